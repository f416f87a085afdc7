"""Whether the certificate that a server shows is one that the gateway trusts (OPC 10000-4 §6.1.3), and what is said when it is not.

Two ways lead to trust: the certificate itself lies in the trusted store, or it was issued by an authority that does. A server that is
trusted by itself is known by its key, so that the host name in its certificate adds nothing; one that is trusted through its issuer
must be the host that was asked for.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from adapters.contract import AuthError
from adapters.opcua import certificates as x
from adapters.opcua._errors import after
from adapters.opcua.pki import Pin, Pki
from adapters.opcua.settings import LinkSettings
from schemas.bilingual import Bilingual
from schemas.times import to_rfc3339

_APART: Final = 3600.0
"""Seconds between the gateway's and a server's clock from which a date that does not fit is blamed on a clock."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the gateway is towards servers. `link` is empty for a look around that belongs to no link; then nothing is pinned."""

    gateway: str = "guantong"
    link: str = ""
    pki: Pki | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a certificate; `accept` is the word in `security.accept` that overlooks it, empty where nothing does."""

    reason: str
    accept: str
    text: Bilingual
    fix_en: str
    fix_zh: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A server's certificate with the issuers behind it, what it says of itself, and its clock (µs) as far as it is known."""

    chain: tuple[x509.Certificate, ...]
    application_uri: str
    time: int | None

    @property
    def certificate(self) -> x509.Certificate:
        """The server's own."""
        return self.chain[0]


def day(moment: dt.datetime) -> str:
    """A date for people."""
    return moment.strftime("%Y-%m-%d")


def described(certificate: x509.Certificate) -> Bilingual:
    """A certificate in one line."""
    name, thumbprint = x.common_name(certificate), x.sha1(certificate)
    begin, end = day(certificate.not_valid_before_utc), day(certificate.not_valid_after_utc)
    return Bilingual(
        f"{name!r}, SHA-1 {thumbprint}, valid {begin} to {end}",
        f"“{name}”，SHA-1 {thumbprint}，有效期 {begin} 至 {end}",
    )


# ------------------------------------------------------------------------------------------------------------------ faults


def _time_fault(shown: Shown, now: dt.datetime) -> Fault | None:
    """A date that does not fit, or the clock that makes it so."""
    certificate = shown.certificate
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begin <= now <= end:
        return None
    there = None if shown.time is None else dt.datetime.fromtimestamp(shown.time / 1e6, dt.UTC)
    apart = there is not None and abs((there - now).total_seconds()) > _APART
    if now < x.EARLIEST or (apart and there is not None and begin <= there <= end):
        told = "" if there is None else f", the server's {there.strftime('%Y-%m-%d %H:%M')} UTC"
        told_zh = "" if there is None else f"，服务器时钟为 {there.strftime('%Y-%m-%d %H:%M')} UTC"
        here = now.strftime("%Y-%m-%d %H:%M")
        return Fault(
            "gateway_clock_wrong", "",
            Bilingual(
                f"the gateway's clock shows {here} UTC{told}; the certificate is valid {day(begin)} to {day(end)}",
                f"网关时钟为 {here} UTC{told_zh}；证书有效期为 {day(begin)} 至 {day(end)}",
            ),
            "Set the gateway's clock (`timedatectl`, docs/clock.md); nothing is wrong with the certificate.",
            "请校准网关时钟（timedatectl，见 docs/clock.md）；证书本身没有问题。",
        )  # fmt: skip
    if now < begin:
        return Fault(
            "server_certificate_not_yet_valid", "expired",
            Bilingual(f"it is valid from {day(begin)} only, and today is {day(now)}", f"证书自 {day(begin)} 起生效，今天是 {day(now)}"),
            "Set the clock of the machine on which the certificate was made, or this gateway's, and make the certificate anew if it "
            "is the machine's that was wrong.",
            "请校准生成该证书的设备时钟或本网关时钟；若设备时钟曾有误，请重新生成证书。",
        )  # fmt: skip
    return Fault(
        "server_certificate_expired", "expired",
        Bilingual(f"it expired on {day(end)}, and today is {day(now)}", f"证书已于 {day(end)} 过期，今天是 {day(now)}"),
        "Renew the certificate in the server and trust the new one; until then `security: {accept: [expired]}` goes on with the old one.",
        "请在服务器上更新证书并重新信任；在此之前可写 security: {accept: [expired]} 继续使用旧证书。",
    )  # fmt: skip


def faults(shown: Shown, host: str, now: dt.datetime) -> list[Fault]:
    """Everything that is wrong with a certificate apart from who trusts it."""
    certificate = shown.certificate
    found = [] if (wrong := _time_fault(shown, now)) is None else [wrong]
    uris = x.application_uris(certificate)
    if shown.application_uri and shown.application_uri not in uris:
        has = ", ".join(uris) or "none"
        found.append(
            Fault(
                "server_certificate_uri", "application_uri",
                Bilingual(
                    f"the server calls itself {shown.application_uri!r}, and the application URI in the certificate is {has}",
                    f"服务器自称 {shown.application_uri!r}，而证书中的应用程序 URI 为 {has}",
                ),
                "Make the server's certificate anew, with its application URI; or overlook it with `security: {accept: [application_uri]}`.",
                "请用服务器的应用程序 URI 重新生成其证书；或写 security: {accept: [application_uri]} 忽略。",
            )
        )  # fmt: skip
    if not x.for_host(certificate, host):
        has = ", ".join(x.host_names(certificate)) or "none"
        found.append(
            Fault(
                "server_certificate_host", "host_name",
                Bilingual(f"it is made for {has}, and not for {host}", f"证书适用于 {has}，不适用于 {host}"),
                "Write one of these names in `endpoint`, make the certificate anew with this one, trust it by itself (`guantong certs "
                "trust`), or overlook it with `security: {accept: [host_name]}`.",
                "请在 endpoint 中使用证书内的名称，或用该主机名重新生成证书，或单独信任该证书（guantong certs trust），"
                "或写 security: {accept: [host_name]} 忽略。",
            )
        )  # fmt: skip
    if weak := x.weakness(certificate):
        found.append(
            Fault(
                "server_certificate_weak", "weak", Bilingual(weak, f"证书强度不足（{weak}）"),
                "Make the server's certificate anew with an RSA key of 2048 bits and SHA-256; or overlook it with `security: {accept: [weak]}`.",
                "请用 2048 位 RSA 密钥与 SHA-256 重新生成服务器证书；或写 security: {accept: [weak]} 忽略。",
            )
        )  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------------------------------- chains


@dataclass(frozen=True, slots=True)
class Trust:
    """How a certificate is trusted: by itself (`direct`), through an authority, or not at all; `fault` is a revocation."""

    direct: bool = False
    through: x509.Certificate | None = None
    fault: Fault | None = None

    @property
    def trusted(self) -> bool:
        """Either way, and not revoked."""
        return (self.direct or self.through is not None) and self.fault is None


def trust(chain: tuple[x509.Certificate, ...], pki: Pki, now: dt.datetime) -> Trust:
    """Looks for the certificate, or for an authority above it, among the trusted ones."""
    trusted = [kept.certificate for kept in pki.certificates("trusted")]
    issuers = [kept.certificate for kept in pki.certificates("issuers")]
    leaf = chain[0]
    path = [leaf]
    while not x.self_signed(path[-1]) and len(path) <= 10:
        above = next((c for c in (*trusted, *issuers, *chain[1:]) if x.issued_by(path[-1], c)), None)
        if above is None or above in path:
            break
        path.append(above)
    direct = leaf in trusted
    through = next((c for c in path[1:] if c in trusted), None)
    if not direct and through is None:
        return Trust()
    for certificate, issuer in itertools.pairwise(path):
        if (fault := _revocation(certificate, issuer, pki, direct=direct)) is not None:
            return Trust(direct, through, fault)
        if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc and not direct:
            shown = Shown((issuer,), "", None)
            return Trust(direct, through, _time_fault(shown, now))
    return Trust(direct, through)


def _revocation(certificate: x509.Certificate, issuer: x509.Certificate, pki: Pki, *, direct: bool) -> Fault | None:
    lists = [crl for crl in pki.crls() if crl.issuer == issuer.subject and _signed(crl, issuer)]
    if any(crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None for crl in lists):
        return Fault(
            "server_certificate_revoked", "",
            Bilingual(
                f"{x.common_name(issuer)!r} has revoked {x.common_name(certificate)!r}",
                f"“{x.common_name(issuer)}”已吊销“{x.common_name(certificate)}”",
            ),
            "Ask whoever runs the authority; the server needs a new certificate.",
            "请联系证书颁发机构管理员；服务器需要新证书。",
        )  # fmt: skip
    if lists or direct:
        return None
    return Fault(
        "revocation_unknown", "revocation_unknown",
        Bilingual(f"there is no revocation list of {x.common_name(issuer)!r}", f"没有“{x.common_name(issuer)}”的吊销列表"),
        "Get the authority's list and take it in with `guantong certs trust FILE.crl`; or do without it: `security: {accept: [revocation_unknown]}`.",
        "请取得该颁发机构的吊销列表并执行 guantong certs trust FILE.crl；或写 security: {accept: [revocation_unknown]} 不作检查。",
    )  # fmt: skip


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # any other kind of key raises
    except Exception:  # noqa: BLE001  an odd key or algorithm: it is not this authority's
        return False


# ---------------------------------------------------------------------------------------------------------------- judgement


def check(shown: Shown, settings: LinkSettings, identity: Identity, pki: Pki, now: dt.datetime) -> None:
    """Returns if the server may be talked to. Raises AuthError, and keeps what it showed among the rejected.

    A pinned certificate that is still shown counts no less and no more than one seen for the first time: it must be trusted.
    """
    accept = settings.security.accept
    host = urlsplit(settings.endpoint).hostname or ""
    told = trust(shown.chain, pki, now)
    found = faults(shown, host, now)
    pin = pki.pins(identity.link).get(settings.endpoint) if identity.link else None
    other = pin is not None and pin.sha256 != x.sha256(shown.certificate)
    if other and pin is not None and (not told.trusted or _elsewhere(shown, settings.endpoint, pin, pki)):
        raise changed(shown, settings, identity, pki, pin)
    if not told.direct and told.through is None:
        raise _untrusted(shown, settings, identity, pki, found)
    if told.fault is not None and (not told.fault.accept or told.fault.accept not in accept):
        raise _faulty(shown, settings, identity, pki, told.fault)
    for fault in found:
        if fault.accept in accept or (fault.accept == "host_name" and told.direct):
            continue
        raise _faulty(shown, settings, identity, pki, fault)


def _elsewhere(shown: Shown, endpoint: str, pin: Pin, pki: Pki) -> bool:
    """Whether this is the certificate of another machine that the gateway knows: cables or addresses were exchanged.

    The same machine under two names has renewed its certificate under the same application URI.
    """
    if pin.uri and pin.uri in x.application_uris(shown.certificate):
        return False
    fingerprint = x.sha256(shown.certificate)
    here = urlsplit(endpoint).netloc
    return any(
        pin.sha256 == fingerprint and urlsplit(where).netloc != here
        for link in pki.pinned_links()
        for where, pin in pki.pins(link).items()
    )


def watch(pki: Pki, link: str) -> Callable[[], bool]:
    """Whether somebody has changed the certificates since now; for `AuthError.cured`."""
    before = pki.stamp(link)
    return lambda: pki.stamp(link) != before


def command(certificate: x509.Certificate) -> str:
    """What trusts a rejected certificate."""
    return f"guantong certs trust {x.sha256(certificate)}"


def _details(shown: Shown, pin: Pin | None = None) -> dict[str, str]:
    certificate = shown.certificate
    told = {
        "fingerprint": x.sha256(certificate),
        "sha1": x.sha1(certificate),
        "subject": x.common_name(certificate),
        "command": command(certificate),
    }
    return told if pin is None else {**told, "before": pin.sha256}


def _keep(shown: Shown, pki: Pki) -> Bilingual:
    """Keeps it among the rejected, from where it can be trusted; what to say if that fails."""
    certificate = shown.certificate
    if any(kept.certificate == certificate for kept in pki.certificates("trusted")):
        return Bilingual("", "")
    try:
        pki.put("rejected", certificate)
    except OSError as error:
        return Bilingual(f"; it could not be kept: {error}", f"；证书无法保存：{error}")
    return Bilingual("", "")


def _untrusted(shown: Shown, settings: LinkSettings, identity: Identity, pki: Pki, found: list[Fault]) -> AuthError:
    also = [fault.text for fault in found if fault.accept != "host_name"]
    kept = _keep(shown, pki)
    certificate = shown.certificate
    return AuthError(
        Bilingual(
            "; ".join(
                [f"{settings.endpoint}: the server's certificate is not trusted: {described(certificate)}", *also]
            )
            + kept,
            "；".join(
                [f"{settings.endpoint}：服务器证书未受信任：{described(certificate).zh}", *(text.zh for text in also)]
            )
            + kept.zh,
        ),
        reason="server_certificate_untrusted",
        fix_en=f"Compare the fingerprint with the one that the server shows, then: {command(certificate)}",
        fix_zh=f"请与服务器上显示的指纹核对，然后执行：{command(certificate)}",
        details=_details(shown),
        cured=watch(pki, identity.link),
    )


def changed(shown: Shown, settings: LinkSettings, identity: Identity, pki: Pki, pin: Pin) -> AuthError:
    """Another certificate than the pinned one, which nobody has trusted, or which is another machine's."""
    new = shown.certificate
    kept = _keep(shown, pki)
    if _elsewhere(shown, settings.endpoint, pin, pki):
        return AuthError(
            Bilingual(
                f"{settings.endpoint}: another machine answers, whose certificate belongs to another endpoint: {described(new)}; "
                f"before it was {pin.subject!r}, SHA-1 {pin.sha1}, since {pin.since}",
                f"{settings.endpoint}：应答的是另一台设备，其证书属于其他端点：{described(new).zh}；原为“{pin.subject}”，SHA-1 {pin.sha1}，"
                f"自 {pin.since} 起",
            ),
            reason="server_certificate_changed",
            fix_en="Check cables and IP addresses: two machines seem to be exchanged. If that is meant: guantong certs unpin "
            f"{identity.link}",
            fix_zh=f"请检查网线与 IP 地址：两台设备可能接反。若属有意更换：guantong certs unpin {identity.link}",
            details={**_details(shown, pin), "command": f"guantong certs unpin {identity.link}"},
            cured=watch(pki, identity.link),
        )
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the server's certificate has changed: it was {pin.subject!r}, SHA-1 {pin.sha1}, since {pin.since}, "
            f"and is {described(new)}{kept}",
            f"{settings.endpoint}：服务器证书已变更：原为“{pin.subject}”，SHA-1 {pin.sha1}，自 {pin.since} 起；现为 "
            f"{described(new).zh}{kept.zh}",
        ),
        reason="server_certificate_changed",
        fix_en="Find out why: a renewed certificate or a replaced machine is no harm, a stranger in between is. If it is right: "
        f"{command(new)}",
        fix_zh=f"请查明原因：证书更新或更换设备属正常，否则可能有人冒充服务器。确认无误后执行：{command(new)}",
        details=_details(shown, pin),
        cured=watch(pki, identity.link),
    )


def _faulty(shown: Shown, settings: LinkSettings, identity: Identity, pki: Pki, fault: Fault) -> AuthError:
    details = {key: value for key, value in _details(shown).items() if key != "command"}
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the server's certificate is not valid: {fault.text} ({described(shown.certificate)})",
            f"{settings.endpoint}：服务器证书无效：{fault.text.zh}（{described(shown.certificate).zh}）",
        ),
        reason=fault.reason,
        fix_en=fault.fix_en,
        fix_zh=fault.fix_zh,
        details=details,
        # dates and clocks are put right without a file of ours being touched
        cured=after(60.0) if fault.accept in ("", "expired") else watch(pki, identity.link),
    )


def new_pin(policy: str, mode: str, certificate: x509.Certificate, now_us: int, used_for: str = "channel") -> Pin:
    """What is remembered of a server that was agreed with."""
    return Pin(
        policy, mode, x.sha256(certificate), x.sha1(certificate), x.common_name(certificate), to_rfc3339(now_us),
        "password" if used_for == "password" else "channel", next(iter(x.application_uris(certificate)), ""),
    )  # fmt: skip
