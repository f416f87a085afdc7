"""Why a protected channel did not open: servers often just fall silent, but say by GetEndpoints what they offer (OPC 10000-4 §5.5.4)."""

from __future__ import annotations

import hashlib

from asyncua import Client
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adapters.contract import AuthError, ConfigError
from adapters.opcua._errors import EXPECTED, asyncua_decodes, fault_name
from adapters.opcua.settings import LinkSettings

_MODES = {1: "None", 2: "Sign", 3: "SignAndEncrypt"}


async def explain(settings: LinkSettings, error: BaseException) -> BaseException:
    """A better error than `error`, if the server's endpoints show what is wrong; else `error` itself."""
    security = settings.security
    if security.policy == "none" or fault_name(error) or security.server_certificate is None:
        return error
    client = Client(settings.endpoint, timeout=settings.timeout, auto_reconnect=False)
    try:
        with asyncua_decodes("GetEndpoints"):
            endpoints = await client.connect_and_get_server_endpoints()
    except EXPECTED:
        return error  # what went wrong first says more
    offered = {(str(e.SecurityPolicyUri).rpartition("#")[2], _MODES.get(int(e.SecurityMode), "?")) for e in endpoints}
    if (security.policy, security.mode) not in offered:
        listed = ", ".join(sorted(f"{policy} {mode}" for policy, mode in offered))
        return ConfigError(
            f"{settings.endpoint}: the server does not offer {security.policy} {security.mode}; it offers {listed}",
            reason="security_mismatch",
            fix_en=f"Set `security:` to one of these, or enable {security.policy} in the server: {listed}.",
            fix_zh=f"请将 security 改为其中之一，或在服务器上启用 {security.policy}：{listed}。",
        )
    pinned = _der(security.server_certificate.read_bytes())
    shown = {bytes(e.ServerCertificate) for e in endpoints if e.ServerCertificate}
    if shown and not any(certificate.startswith(pinned) for certificate in shown):
        prints = ", ".join(sorted(hashlib.sha1(certificate).hexdigest() for certificate in shown))
        return AuthError(
            f"{settings.endpoint}: the server shows another certificate than {security.server_certificate} "
            f"(SHA-1 {hashlib.sha1(pinned).hexdigest()}): {prints}",
            reason="server_certificate_changed",
            fix_en="Find out why the certificate changed; if it is right, replace the file of `server_certificate`.",
            fix_zh="请查明服务器证书为何变更；确认无误后替换 server_certificate 文件。",
        )
    return error


def _der(certificate: bytes) -> bytes:
    if certificate.lstrip().startswith(b"-----"):
        return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    return certificate
