"""What `guantong doctor` says of OPC UA certificates, before the day on which one of them stops a link."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway.diagnosis.findings import Finding

if TYPE_CHECKING:
    from gateway.config.models import Config

SOON: Final = timedelta(days=60)


def certificates(config: Config, now: datetime | None = None) -> Iterable[Finding]:
    """The gateway's own certificate, its key's rights, and the trusted ones whose end is near. Nothing where there are none."""
    from adapters.opcua import certificates as x
    from adapters.opcua.pki import Pki, PkiError
    from gateway.config.plan import PKI

    now = now or datetime.now(UTC)
    pki = Pki(config.data_dir / PKI, config.gateway.id)
    found = []
    if pki.has_own:
        try:
            own = pki.own(now)
        except PkiError as error:
            yield Finding("certificates", "fail", error.zh, error.en)
        else:
            if own.key.stat().st_mode & 0o077:
                yield Finding(
                    "certificates", "fail", f"{own.key} 可被其他用户读取", f"{own.key} is readable for others",
                    f"chmod 600 {own.key}", f"chmod 600 {own.key}",
                )  # fmt: skip
            found.append(("own", own.certificate))
    found += [(kept.store, kept.certificate) for kept in pki.certificates("trusted")]
    near = 0
    for store, certificate in found:
        end = certificate.not_valid_after_utc
        if end - now > SOON:
            continue
        near += 1
        name, day = x.common_name(certificate), end.strftime("%Y-%m-%d")
        command = "guantong certs renew"
        fix_zh = command if store == "own" else "请在服务器上更新证书，然后执行 guantong certs trust 信任新证书。"
        fix_en = (
            command if store == "own" else "Renew it in the server, then trust the new one with guantong certs trust."
        )
        past = end < now
        yield Finding(
            "certificates", "fail" if past else "warn",
            f"“{name}”的证书{'已于' if past else '将于'} {day} 过期",
            f"the certificate of {name!r} {'expired' if past else 'expires'} on {day}", fix_zh, fix_en,
        )  # fmt: skip
    if found and not near:
        yield Finding("certificates", "ok", f"{len(found)} 个证书有效", f"{len(found)} certificates are valid")
