"""CreateSession and ActivateSession (OPC 10000-4 §5.6.2, §5.6.3): the session's name, who signs in, and how a secret is protected."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client, _first_cert_from_chain
from asyncua.common.utils import create_nonce

from adapters.contract import AuthError, ConfigError
from adapters.opcua import _security, _trust
from adapters.opcua import certificates as x
from adapters.opcua._discovery import policy_name
from adapters.opcua._errors import after
from adapters.opcua._security import STRENGTH, Channel
from adapters.opcua._trust import Identity
from adapters.opcua.pki import PkiError
from adapters.opcua.settings import DEPRECATED, LinkSettings
from schemas.bilingual import Bilingual

_KINDS: Final = {"user": "UserName", "certificate": "Certificate", "nobody": "Anonymous"}


def session_name(identity: Identity) -> str:
    """The same at every start, so that whoever looks at the server's sessions sees whose it is."""
    return "/".join(part for part in ("guantong", identity.gateway, identity.link) if part)


async def create(client: Any, settings: LinkSettings, identity: Identity, channel: Channel) -> None:
    """Creates the session; the server has proved that it holds its certificate's key, and tells the same as before.

    Raises AuthError, ConfigError, and asyncua's and the network's errors.
    """
    policy = client.security_policy
    parameters = ua.CreateSessionParameters()
    description = ua.ApplicationDescription()
    description.ApplicationUri = client.application_uri
    description.ProductUri = client.product_uri
    description.ApplicationName = ua.LocalizedText(client.name)
    description.ApplicationType = ua.ApplicationType.Client
    nonce = create_nonce(32)
    parameters.ClientDescription = description
    parameters.ClientNonce = nonce
    parameters.ClientCertificate = policy.host_certificate or None
    parameters.EndpointUrl = channel.url
    parameters.SessionName = session_name(identity)
    parameters.RequestedSessionTimeout = client.session_timeout
    parameters.MaxResponseMessageSize = 0
    answer = await client.uaclient.create_session(parameters)
    policy.asymmetric_cryptography.verify((policy.host_certificate or b"") + nonce, answer.ServerSignature.Signature)
    client._server_nonce = answer.ServerNonce
    shown = _first_cert_from_chain(answer.ServerCertificate) if answer.ServerCertificate else None
    if not policy.peer_certificate:
        policy.peer_certificate = shown
    elif policy.peer_certificate != shown:
        raise ua.UaError("Server certificate mismatch")
    endpoints = list(answer.ServerEndpoints or [])
    _security.compare(settings, channel, endpoints)
    client._policy_ids = Client.find_endpoint(endpoints, policy.Mode, policy.URI).UserIdentityTokens or []
    client.session_timeout = answer.RevisedSessionTimeout or client.session_timeout


async def activate(client: Any, settings: LinkSettings, identity: Identity, now_us: int) -> None:
    """Signs in: anonymous, with user and password, or with a user certificate, over the strongest token policy that the server takes.

    Raises AuthError before a password could leave the gateway in clear, ConfigError for a way of signing in that the server lacks.
    """
    token = _token(client, settings)
    client._policy_ids = [token]
    secret = settings.password is not None or settings.user_certificate is not None
    if secret and client.security_policy.Mode == ua.MessageSecurityMode.None_:
        _known(client, settings, identity, now_us)
    certificate = None
    if settings.user_certificate is not None:
        certificate, client.user_private_key = _security.user_files(settings)
    password = settings.password.get_secret_value() if settings.password is not None else None
    await client.activate_session(username=settings.user, password=password, certificate=certificate)


def _token(client: Any, settings: LinkSettings) -> Any:
    """The token policy to sign in by (OPC 10000-4 §7.43), its own security policy filled in from the channel's where it has none."""
    wanted = _KINDS["user" if settings.user is not None else "certificate" if settings.user_certificate else "nobody"]
    channel = client.security_policy
    offered = [token for token in client._policy_ids if token.TokenType.name == wanted]
    if not offered:
        if wanted == "Anonymous" and not client._policy_ids:
            return ua.UserTokenPolicy(TokenType=ua.UserTokenType.Anonymous, SecurityPolicyUri=channel.URI)
        raise _no_such_identity(client, settings, wanted)
    filled = [dataclasses.replace(t, SecurityPolicyUri=t.SecurityPolicyUri or channel.URI) for t in offered]
    spoken = [token for token in filled if policy_name(token.SecurityPolicyUri) in STRENGTH]
    best = max(spoken or filled, key=lambda token: STRENGTH.get(policy_name(token.SecurityPolicyUri), -1))
    name = policy_name(best.SecurityPolicyUri)
    if wanted == "Anonymous" or channel.Mode == ua.MessageSecurityMode.SignAndEncrypt:
        return best
    if wanted == "Certificate":
        if name == "None":
            raise _no_such_identity(client, settings, "Certificate (signed)")
        return best
    if settings.password is None or settings.allow_clear_password:
        return best
    if name == "None" or (name in DEPRECATED and not settings.security.allow_deprecated):
        raise _clear(settings, name)
    return best


def _clear(settings: LinkSettings, name: str) -> AuthError:
    how = "in clear" if name == "None" else f"under {name}, which protects no longer"
    how_zh = "以明文方式" if name == "None" else f"以已失效的 {name}"
    return AuthError(
        Bilingual(
            f"{settings.endpoint}: the server takes the password only {how}, so it was not sent",
            f"{settings.endpoint}：服务器只{how_zh}接收密码，因此未发送",
        ),
        reason="password_in_clear",
        fix_en="Use a protected channel (`security: auto`), or have the server encrypt passwords. To send it all the same: "
        "`allow_clear_password: true`.",
        fix_zh="请使用加密连接（security: auto），或在服务器上启用密码加密。若仍要发送：allow_clear_password: true。",
        cured=after(60.0),
    )


def _no_such_identity(client: Any, settings: LinkSettings, wanted: str) -> ConfigError:
    found = ", ".join(sorted({token.TokenType.name for token in client._policy_ids})) or "none"
    return ConfigError(
        Bilingual(
            f"{settings.endpoint}: the server does not let anybody sign in by {wanted} here; it offers {found}",
            f"{settings.endpoint}：服务器不允许以 {wanted} 方式登录；现提供 {found}",
        ),
        reason="identity_unsupported",
        fix_en=f"Set `user` and `password`, `user_certificate`, or neither, as the server offers: {found}; or enable {wanted} there.",
        fix_zh=f"请按服务器支持的方式设置 user/password、user_certificate 或匿名：{found}；或在服务器上启用 {wanted}。",
    )


def _known(client: Any, settings: LinkSettings, identity: Identity, now_us: int) -> None:
    """On a channel without protection a secret is encrypted for the certificate that the server shows: the same one as the first time."""
    data = client.security_policy.peer_certificate
    pki = identity.pki
    if not data or pki is None or not identity.link:
        return
    certificate = x.read_certificate(data)
    new = _trust.new_pin("", "", certificate, now_us, "password")
    try:
        pin = pki.pins(identity.link).get(settings.endpoint)
        trusted = any(kept.certificate == certificate for kept in pki.certificates("trusted"))
        if pin is not None and pin.used_for == "password" and pin.sha256 != new.sha256 and not trusted:
            shown = _trust.Shown((certificate,), "", None)
            raise _trust.changed(shown, settings, identity, pki, pin)
        if pin is None or pin.sha256 != new.sha256 or pin.used_for != "password":
            pki.set_pin(identity.link, settings.endpoint, new)
    except PkiError as error:
        raise _security.pki_error(settings, error) from error
    except OSError as error:
        raise _security.pki_error(settings, PkiError(str(error), str(error))) from error
