"""What a server offers, by GetEndpoints (OPC 10000-4 §5.5.4): it needs no session and no certificate, and so can be trusted in nothing."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from adapters.contract import AuthError, ConfigError
from adapters.opcua import certificates as x
from adapters.opcua._binary import microseconds
from adapters.opcua._errors import EXPECTED, ChannelRefusedError, asyncua_decodes, fault_name, translate
from adapters.opcua._trust import Identity
from adapters.opcua.pki import PkiError
from adapters.opcua.settings import LinkSettings
from schemas.bilingual import Bilingual, chinese, of_error

MODES: Final = {1: "None", 2: "Sign", 3: "SignAndEncrypt"}


@dataclass(frozen=True, slots=True)
class Offer:
    """An endpoint. `policy` as it is written in `security:` (Aes128Sha256RsaOaep; None for no protection); `users` the kinds of identity."""

    url: str
    policy: str
    mode: str
    users: tuple[str, ...]
    certificate: bytes
    server: str
    application_uri: str

    @property
    def kind(self) -> tuple[str, str]:
        """Policy and mode."""
        return self.policy, self.mode


@dataclass(frozen=True, slots=True)
class Told:
    """A server's answer; `time` is its clock in µs, None if it did not say."""

    offers: tuple[Offer, ...]
    time: int | None


def policy_name(uri: object) -> str:
    """The name of a policy in `security:` from its URI."""
    return str(uri or "").rpartition("#")[2].replace("_", "")


def offer(e: ua.EndpointDescription) -> Offer:
    """An EndpointDescription (OPC 10000-4 §7.14) in our words."""
    tokens = [token.TokenType.name for token in e.UserIdentityTokens or []]
    return Offer(
        url=str(e.EndpointUrl or ""),
        policy=policy_name(e.SecurityPolicyUri),
        mode=MODES.get(int(e.SecurityMode), "?"),
        users=tuple(dict.fromkeys(tokens)),
        certificate=bytes(e.ServerCertificate or b""),
        server=str(e.Server.ApplicationName.Text or "") if e.Server is not None else "",
        application_uri=str(e.Server.ApplicationUri or "") if e.Server is not None else "",
    )


async def ask(url: str, timeout: float) -> Told:
    """The endpoints that the server at `url` tells of. Raises asyncua's and the network's errors (`_errors.EXPECTED`)."""
    client = Client(url, timeout=timeout, auto_reconnect=False)
    request = ua.GetEndpointsRequest()
    request.Parameters.EndpointUrl = client.server_url.geturl()

    async def get() -> Buffer:
        protocol = client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection is closed")
        return await protocol.send_request(request)

    with asyncua_decodes("GetEndpoints"):
        answer = struct_from_binary(ua.GetEndpointsResponse, Buffer(bytes_of(await client._with_temp_channel(get))))
        answer.ResponseHeader.ServiceResult.check()
        offers = tuple(offer(e) for e in answer.Endpoints or [] if str(e.EndpointUrl or "").startswith("opc.tcp"))
        return Told(offers, microseconds(ua.datetime_to_win_epoch(answer.ResponseHeader.Timestamp)))


def bytes_of(buffer: Buffer) -> bytes:
    """What is left in asyncua's buffer."""
    return bytes(buffer.read(len(buffer)))


def listed(offers: tuple[Offer, ...]) -> str:
    """Policies and modes for people."""
    return ", ".join(sorted({f"{o.policy} {o.mode}" for o in offers})) or "nothing"


_OURS: Final = (
    "BadCertificateUntrusted", "BadSecurityChecksFailed", "BadCertificateInvalid", "BadCertificateTimeInvalid",
    "BadCertificateHostNameInvalid", "BadCertificateUriInvalid", "BadCertificateUseNotAllowed", "BadCertificateChainIncomplete",
)  # fmt: skip
"""Faults by which a server says that it does not take the gateway's certificate."""


async def explain(settings: LinkSettings, identity: Identity, error: BaseException) -> BaseException:
    """A better error than `error`, if the server's endpoints or its fault show what is wrong; else `error` itself.

    Servers often just fall silent when a channel does not suit them.
    """
    security = settings.security
    name = fault_name(error)
    if name in _OURS and security.policy != "none":
        return _refused(settings, identity, error)
    if name == "BadTcpEndpointUrlInvalid":
        return await _known_urls(settings, error)
    closed = isinstance(error, ChannelRefusedError)
    if security.policy in ("none", "auto") or name or security.server_certificate is None:
        return _refused(settings, identity, error) if closed else error
    try:
        told = await ask(settings.endpoint, settings.timeout)
    except EXPECTED:
        return error  # what went wrong first says more; a server that is gone has not refused anything
    if (security.policy, security.mode) not in {o.kind for o in told.offers}:
        return mismatch(settings, told.offers)
    pinned = x.read_certificate(security.server_certificate.read_bytes())
    shown = {o.certificate: x.read_chain(o.certificate)[0] for o in told.offers if o.certificate}
    if shown and pinned not in shown.values():
        new = next(iter(shown.values()))
        prints = ", ".join(sorted(x.sha1(one) for one in shown.values()))
        return AuthError(
            Bilingual(
                f"{settings.endpoint}: the server shows another certificate than {security.server_certificate} "
                f"(SHA-1 {x.sha1(pinned)}): {prints}",
                f"{settings.endpoint}：服务器证书与 {security.server_certificate}（SHA-1 {x.sha1(pinned)}）不同：{prints}",
            ),
            reason="server_certificate_changed",
            fix_en="Find out why the certificate changed; if it is right, replace the file of `server_certificate`.",
            fix_zh="请查明服务器证书为何变更；确认无误后替换 server_certificate 文件。",
            details={"fingerprint": x.sha256(new), "sha1": x.sha1(new), "before": x.sha256(pinned)},
        )
    return _refused(settings, identity, error) if closed else error


def _refused(settings: LinkSettings, identity: Identity, error: BaseException) -> BaseException:
    """The server's refusal with the thumbprint by which our certificate is found among its rejected ones."""
    told = translate(error, settings.endpoint)
    path = settings.security.certificate
    try:
        if path is not None:
            certificate = x.read_certificate(path.read_bytes())
        elif identity.pki is not None:
            certificate = identity.pki.own(dt.datetime.now(dt.UTC)).certificate
        else:
            return told
    except (OSError, PkiError, x.NotACertificateError):
        return told  # what the server said matters more
    return AuthError(
        Bilingual(
            f"{told}; the gateway showed {x.common_name(certificate)!r}, SHA-1 {x.sha1(certificate)}",
            f"{chinese(of_error(told))}；网关出示的证书为“{x.common_name(certificate)}”，SHA-1 {x.sha1(certificate)}",
        ),
        reason=told.reason,
        fix_en=told.fix_en,
        fix_zh=told.fix_zh,
        details={"own_fingerprint": x.sha256(certificate), "own_sha1": x.sha1(certificate)},
        cured=told.cured if isinstance(told, AuthError) else None,
    )


def mismatch(settings: LinkSettings, offers: tuple[Offer, ...]) -> ConfigError:
    """The server lacks the policy and mode that are configured."""
    security = settings.security
    found = listed(offers)
    return ConfigError(
        Bilingual(
            f"{settings.endpoint}: the server does not offer {security.policy} {security.mode}; it offers {found}",
            f"{settings.endpoint}：服务器不提供 {security.policy} {security.mode}；现提供 {found}",
        ),
        reason="security_mismatch",
        fix_en=f"Set `security:` to one of these, or enable {security.policy} in the server: {found}.",
        fix_zh=f"请将 security 改为其中之一，或在服务器上启用 {security.policy}：{found}。",
    )


async def _known_urls(settings: LinkSettings, error: BaseException) -> BaseException:
    try:
        told = await ask(settings.endpoint, settings.timeout)
    except EXPECTED:
        return error
    urls = ", ".join(sorted({o.url for o in told.offers})) or "none"
    return ConfigError(
        Bilingual(
            f"{settings.endpoint}: the server does not know this endpoint; it tells of {urls}",
            f"{settings.endpoint}：服务器没有该端点；现有 {urls}",
        ),
        reason="endpoint_unknown",
        fix_en=f"Write the path as the server has it, with an address that can be reached from here: {urls}.",
        fix_zh=f"请按服务器给出的路径书写端点，并使用网关可达的地址：{urls}。",
    )
