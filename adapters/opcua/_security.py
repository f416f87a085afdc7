"""Which endpoint is used, how its channel is protected, and by which certificates: decided anew for each connection.

What was agreed at the first contact is pinned (policy, mode, certificate): a server, or somebody in its place, that later offers less
is refused by name and never followed down.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from adapters.contract import AuthError, ConfigError
from adapters.opcua import _discovery, _trust
from adapters.opcua import certificates as x
from adapters.opcua._discovery import Offer
from adapters.opcua._errors import after
from adapters.opcua._trust import Identity, Shown
from adapters.opcua.pki import Pin, Pki, PkiError
from adapters.opcua.settings import DEPRECATED, LinkSettings
from schemas.bilingual import Bilingual

STRENGTH: Final = {
    name: rank
    for rank, name in enumerate(
        ("None", "Basic128Rsa15", "Basic256", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
    )
}
"""Policies by strength; one that is not here is not spoken."""
_MODE_STRENGTH: Final = {"None": 0, "Sign": 1, "SignAndEncrypt": 2}


def strength(kind: tuple[str, str]) -> tuple[int, int]:
    """Of a policy and mode, to compare: encrypted is more than signed, whatever the policy."""
    return _MODE_STRENGTH.get(kind[1], -1), STRENGTH.get(kind[0], -1)


@dataclass(frozen=True, slots=True)
class Channel:
    """How to connect. Without protection `policy` and `mode` are None and there are no certificates."""

    url: str
    """The endpoint's URL for Hello and CreateSession: the configured address, with the path that the server tells."""
    policy: str = "None"
    mode: str = "None"
    application_uri: str = ""
    own: x509.Certificate | None = None
    key: Any = None
    server: x509.Certificate | None = None
    kinds: frozenset[tuple[str, str]] = frozenset()
    """What GetEndpoints told, to be compared with what the session tells; empty if it was not asked."""
    pin: bool = False
    """Whether what is agreed is to be pinned."""

    def apply(self, client: Any) -> None:
        """Gives asyncua's client the policy with keys and certificates."""
        if self.server is None:
            return
        client.application_uri = self.application_uri
        policy = getattr(security_policies, f"SecurityPolicy{self.policy}")
        client.security_policy = policy(self.server, self.own, self.key, getattr(ua.MessageSecurityMode, self.mode))
        client.uaclient.set_security(client.security_policy)


async def prepare(settings: LinkSettings, identity: Identity, now_us: int) -> Channel:
    """Decides; asks the server for its endpoints where the answer matters.

    Raises AuthError, ConfigError, and asyncua's and the network's errors (`_errors.EXPECTED`).
    """
    security = settings.security
    if security.policy == "none":
        return Channel(settings.endpoint)
    now = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)
    try:
        own, key = await asyncio.to_thread(_own, settings, identity, now)
        if security.policy != "auto" and security.server_certificate is not None:
            server = await asyncio.to_thread(_file, settings, "server_certificate")
            return Channel(
                settings.endpoint, security.policy, security.mode, _uri(own, settings), own, key, server
            )  # fmt: skip
        told = await _discovery.ask(settings.endpoint, settings.timeout)
        offer = await asyncio.to_thread(_choose, settings, identity, told.offers)
        server = await asyncio.to_thread(_server, settings, identity, offer, told.time, now)
    except PkiError as error:
        raise pki_error(settings, error) from error
    except OSError as error:
        if error.filename is None:
            raise  # the network's
        raise pki_error(
            settings, PkiError(f"{error.filename}: {error.strerror}", f"{error.filename}：{error.strerror}")
        ) from error
    kinds = frozenset(o.kind for o in told.offers)
    return Channel(
        _url(settings.endpoint, offer.url), offer.policy, offer.mode, _uri(own, settings), own, key, server, kinds,
        pin=identity.pki is not None and bool(identity.link),
    )  # fmt: skip


def pki_error(settings: LinkSettings, error: PkiError) -> AuthError:
    """Trouble with the gateway's own folder of certificates: a person must look, and then it goes on by itself."""
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the gateway's certificates: {error.en}", f"{settings.endpoint}：网关证书：{error.zh}"
        ),
        reason="pki_unusable",
        fix_en="Put right what the message names; the folder `pki` in data_dir must be writable for the gateway's user.",
        fix_zh="请按提示处理；data_dir 下的 pki 文件夹须对网关用户可写。",
        cured=after(30.0),
    )


# ------------------------------------------------------------------------------------------------------- our certificate


def _own(settings: LinkSettings, identity: Identity, now: dt.datetime) -> tuple[x509.Certificate, Any]:
    """The certificate that the settings name, else the gateway's own, with its key."""
    security = settings.security
    if security.certificate is not None:
        password = security.key_password.get_secret_value() if security.key_password else None
        return _pair(settings, "certificate", "key", password)
    if identity.pki is None:
        raise _no_pki(settings, "certificate and key")
    own = identity.pki.own(now)
    return own.certificate, serialization.load_pem_private_key(own.key.read_bytes(), None)


def _no_pki(settings: LinkSettings, what: str) -> ConfigError:
    return ConfigError(
        Bilingual(
            f"{settings.endpoint}: security: {settings.security.policy} needs {what}, and there is no folder of certificates",
            f"{settings.endpoint}：security：{settings.security.policy} 需要 {what}，但没有证书文件夹",
        ),
        reason="certificate_missing",
        fix_en="Name the files `certificate`, `key` and `server_certificate`, or run this with a configuration.",
        fix_zh="请指定 certificate、key 与 server_certificate 文件，或在命令中指定网关配置。",
    )


def _file(settings: LinkSettings, name: str) -> x509.Certificate:
    path = getattr(settings.security, name, None) or getattr(settings, name)
    try:
        return x.read_certificate(path.read_bytes())
    except x.NotACertificateError as error:
        raise invalid(settings, f"{name}: {path}: {error}") from error


def _key(settings: LinkSettings, name: str, password: str | None) -> Any:
    path = getattr(settings.security, name, None) or getattr(settings, name)
    data = path.read_bytes()
    load = (
        serialization.load_pem_private_key if data.lstrip().startswith(b"-----") else serialization.load_der_private_key
    )
    try:
        key = load(data, password.encode() if password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise invalid(settings, f"{name}: {path}: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise invalid(settings, f"{name}: {path}: it is no RSA key")
    return key


def user_files(settings: LinkSettings) -> tuple[x509.Certificate, Any]:
    """The user's certificate and key. Raises ConfigError."""
    password = settings.user_key_password.get_secret_value() if settings.user_key_password else None
    return _pair(settings, "user_certificate", "user_key", password)


def _pair(settings: LinkSettings, certificate: str, key: str, password: str | None) -> tuple[x509.Certificate, Any]:
    """A certificate and the key that belongs to it."""
    found, private = _file(settings, certificate), _key(settings, key, password)
    if private.public_key() != found.public_key():
        raise invalid(settings, f"{key}: it is not the key of {certificate}")
    return found, private


def invalid(settings: LinkSettings, what: str) -> ConfigError:
    """A certificate or key that is named in the settings cannot be used."""
    return ConfigError(
        Bilingual(f"{settings.endpoint}: security: {what}", f"{settings.endpoint}：安全设置（security）：{what}"),
        reason="certificate_invalid",
        fix_en="Check that the files are an X.509 certificate and its RSA key (PEM or DER), and `key_password`.",
        fix_zh="请检查文件是否为 X.509 证书及其 RSA 私钥（PEM 或 DER），以及 key_password。",
    )


def _uri(own: x509.Certificate, settings: LinkSettings) -> str:
    """The application URI in our certificate; the session must show the same (OPC 10000-6 §6.2.2)."""
    uris = x.application_uris(own)
    if not uris:
        path = settings.security.certificate
        raise ConfigError(
            Bilingual(
                f"{settings.endpoint}: security.certificate: {path}: its subject alternative name has no URI",
                f"{settings.endpoint}：security.certificate：{path}：使用者可选名称中没有 URI",
            ),
            reason="certificate_invalid",
            fix_en="Use an X.509 certificate whose subject alternative name holds the application URI (URI:urn:…).",
            fix_zh="请使用在使用者可选名称中含应用程序 URI（URI:urn:…）的 X.509 证书。",
        )
    return uris[0]


# ------------------------------------------------------------------------------------------------------------ the endpoint


def _choose(settings: LinkSettings, identity: Identity, offers: tuple[Offer, ...]) -> Offer:
    """The endpoint to use: the configured policy and mode, the pinned ones, or the strongest."""
    security = settings.security
    pin = _pin(settings, identity)
    wanted: tuple[str, str]
    if security.policy != "auto":
        wanted = (security.policy, security.mode)
    elif pin is not None and pin.policy:
        wanted = (pin.policy, pin.mode)
        if wanted not in {o.kind for o in offers}:
            raise _downgrade(settings, identity, pin, offers)
    else:
        usable = [o for o in offers if o.policy not in ("None", *DEPRECATED) and min(strength(o.kind)) > 0]
        if not usable:
            raise _nothing(settings, identity, offers)
        wanted = max((o.kind for o in usable), key=strength)
    fitting = [o for o in offers if o.kind == wanted and o.certificate]
    if not fitting:
        raise _discovery.mismatch(settings, offers)
    kind = "UserName" if settings.user is not None else "Certificate" if settings.user_certificate else "Anonymous"
    path = urlsplit(settings.endpoint).path.strip("/")
    return min(fitting, key=lambda o: (kind not in o.users, urlsplit(o.url).path.strip("/") != path))


def _pin(settings: LinkSettings, identity: Identity) -> Pin | None:
    if identity.pki is None or not identity.link:
        return None
    pin = identity.pki.pins(identity.link).get(settings.endpoint)
    return pin if pin is None or pin.used_for == "channel" else None


def _url(configured: str, told: str) -> str:
    """The configured host and port, which can be reached from here, with the server's own path where none was configured."""
    ours = urlsplit(configured)
    return configured if ours.path.strip("/") else ours._replace(path=urlsplit(told).path or ours.path).geturl()


def _downgrade(settings: LinkSettings, identity: Identity, pin: Pin, offers: tuple[Offer, ...]) -> AuthError:
    found = _discovery.listed(offers)
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the server no longer offers {pin.policy} {pin.mode}, which was agreed on {pin.since}; it offers {found}",
            f"{settings.endpoint}：服务器不再提供 {pin.since} 约定的 {pin.policy} {pin.mode}；现提供 {found}",
        ),
        reason="security_downgrade",
        fix_en="Find out who changed the server's security, or who answers in its place. If it is meant: "
        f"guantong certs unpin {identity.link}",
        fix_zh=f"请查明是谁更改了服务器的安全设置，或是否有人冒充服务器。若属有意更改：guantong certs unpin {identity.link}",
        details={"command": f"guantong certs unpin {identity.link}", "fingerprint": pin.sha256, "sha1": pin.sha1},
        cured=_either(after(60.0), identity),
    )


def _either(first: Any, identity: Identity) -> Any:
    if identity.pki is None:
        return first
    second = _trust.watch(identity.pki, identity.link)
    return lambda: first() or second()


def _nothing(settings: LinkSettings, identity: Identity, offers: tuple[Offer, ...]) -> AuthError:
    found = _discovery.listed(offers)
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the server offers no protection that counts; it offers {found}",
            f"{settings.endpoint}：服务器未提供有效的安全保护；现提供 {found}",
        ),
        reason="security_none_offered",
        fix_en="Switch Basic256Sha256 or better on in the server. To go on without: `security: none`, or name the deprecated policy "
        "with `allow_deprecated: true`.",
        fix_zh="请在服务器上启用 Basic256Sha256 或更强的策略；若确需继续：security: none，或指定旧策略并写 allow_deprecated: true。",
        cured=_either(after(60.0), identity),
    )


# -------------------------------------------------------------------------------------------------- the server's certificate


def _server(
    settings: LinkSettings, identity: Identity, offer: Offer, time: int | None, now: dt.datetime
) -> x509.Certificate:
    """The certificate of the endpoint, after it was found to be trusted."""
    try:
        shown = Shown(tuple(x.read_chain(offer.certificate)), offer.application_uri, time)
    except x.NotACertificateError as error:
        raise AuthError(
            Bilingual(
                f"{settings.endpoint}: what the server shows as its certificate is none: {error}",
                f"{settings.endpoint}：服务器出示的证书无法识别：{error}",
            ),
            reason="server_certificate_invalid",
            fix_en="Make the server's certificate anew.",
            fix_zh="请在服务器上重新生成证书。",
            cured=after(60.0),
        ) from error
    if settings.security.server_certificate is not None:
        pinned = _file(settings, "server_certificate")
        if pinned != shown.certificate:
            raise AuthError(
                Bilingual(
                    f"{settings.endpoint}: the server shows another certificate than {settings.security.server_certificate} "
                    f"(SHA-1 {x.sha1(pinned)}): {_trust.described(shown.certificate)}",
                    f"{settings.endpoint}：服务器证书与 {settings.security.server_certificate}（SHA-1 {x.sha1(pinned)}）不同："
                    f"{_trust.described(shown.certificate).zh}",
                ),
                reason="server_certificate_changed",
                fix_en="Find out why the certificate changed; if it is right, replace the file of `server_certificate`.",
                fix_zh="请查明服务器证书为何变更；确认无误后替换 server_certificate 文件。",
                details={"fingerprint": x.sha256(shown.certificate), "before": x.sha256(pinned)},
                cured=after(60.0),
            )
        return pinned
    if identity.pki is None:
        raise _no_pki(settings, "server_certificate")
    _trust.check(shown, settings, identity, identity.pki, now)
    return shown.certificate


def keep_pin(settings: LinkSettings, identity: Identity, channel: Channel, now_us: int) -> None:
    """Remembers what a session that has been activated was agreed on. Raises AuthError when it cannot be written."""
    pki: Pki | None = identity.pki
    if pki is None or not channel.pin or channel.server is None:
        return
    auto = settings.security.policy == "auto"
    new = _trust.new_pin(channel.policy if auto else "", channel.mode if auto else "", channel.server, now_us)
    try:
        old = pki.pins(identity.link).get(settings.endpoint)
        same = old is not None and (old.policy, old.mode, old.sha256, old.used_for) == (
            new.policy, new.mode, new.sha256, new.used_for,
        )  # fmt: skip
        if not same:
            pki.set_pin(identity.link, settings.endpoint, new)
    except PkiError as error:
        raise pki_error(settings, error) from error
    except OSError as error:
        raise pki_error(settings, PkiError(str(error), str(error))) from error


def compare(settings: LinkSettings, channel: Channel, endpoints: list[Any]) -> None:
    """What the protected session says of the endpoints must be what GetEndpoints said without protection (OPC 10000-4 §5.6.2.2).

    Raises AuthError if a stronger one had been hidden.
    """
    if not channel.kinds or settings.security.policy != "auto":
        return
    told = {_discovery.offer(e).kind for e in endpoints}
    hidden = [kind for kind in told - channel.kinds if strength(kind) > strength((channel.policy, channel.mode))]
    if hidden:
        policy, mode = max(hidden, key=strength)
        raise AuthError(
            Bilingual(
                f"{settings.endpoint}: {policy} {mode} was hidden when the gateway asked for the endpoints, and the session tells of it",
                f"{settings.endpoint}：查询端点时 {policy} {mode} 被隐去，而会话中却存在",
            ),
            reason="discovery_tampered",
            fix_en="Somebody between gateway and server changes messages: look at the network between them.",
            fix_zh="网关与服务器之间有人篡改报文：请检查两者之间的网络。",
            cured=after(60.0),
        )


def certificate_of(data: bytes) -> x509.Certificate | None:
    """The first certificate of what a server shows; None for none."""
    return uacrypto.x509_from_der(data) if data else None
