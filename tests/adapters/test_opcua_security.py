"""Who we are and whom we trust: policies, users, certificates, and what each refusal is called."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua
from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from adapters.contract import AdapterError, AuthError, ConfigError, TransientError
from adapters.opcua import LinkSettings, OpcUaAdapter
from adapters.opcua._addresses import AddressError
from adapters.opcua._binary import DecodingError
from adapters.opcua._errors import translate
from schemas.status import by_name
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import SmallServer, write_certificates
from tests.servers.processes import free_port

POLICIES = ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("opcua")
    return {name: write_certificates(folder, f"urn:test:{name}", name) for name in ("server", "client", "other")}


class SecureServer(SmallServer):
    """Offers the three policies that are not deprecated, signed and encrypted, and no unprotected one."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__()
        self.files = (certificate, key)

    async def _prepare(self, server: Server) -> None:
        await server.set_application_uri("urn:test:server")
        await server.load_certificate(str(self.files[0]))
        await server.load_private_key(str(self.files[1]))
        kinds = [getattr(ua.SecurityPolicyType, f"{policy}_{mode}") for policy in POLICIES for mode in MODES]
        server.set_security_policy(kinds)


MODES = ["Sign", "SignAndEncrypt"]


@pytest.fixture(scope="module")
def secure(certificates: dict[str, tuple[Path, Path]]) -> Iterator[SecureServer]:
    with SecureServer(*certificates["server"]) as running:
        yield running


@pytest.fixture(scope="module")
def plain() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


def security(certificates: dict[str, tuple[Path, Path]], **changes: Any) -> dict[str, Any]:
    certificate, key = certificates["client"]
    pinned = certificates["server"][0]
    return {
        "policy": POLICIES[0], "certificate": certificate, "key": key, "server_certificate": pinned, **changes,
    }  # fmt: skip


async def refusal(spec: Any) -> AdapterError:
    """The error with which a connect fails."""
    adapter = OpcUaAdapter(spec)
    with pytest.raises(AdapterError) as caught:
        async with asyncio.timeout(10):
            await adapter.connect()
    await adapter.disconnect()
    assert caught.value.fix_en
    assert caught.value.fix_zh
    assert "opc.tcp://127.0.0.1" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", MODES)
async def test_secured_links(
    secure: SecureServer, certificates: dict[str, tuple[Path, Path]], policy: str, mode: str
) -> None:
    chosen = security(certificates, policy=policy, mode=mode)
    async with Collector(link(secure.endpoint, device([node("v3")]), security=chosen)) as host:
        await host.until(lambda: host.last(0) == 3)
    assert secure.sessions() == 0


async def test_the_channels_keys_are_renewed(
    secure: SecureServer, certificates: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.opcua._session._CHANNEL_LIFETIME", 400)
    chosen = security(certificates)
    async with Collector(link(secure.endpoint, device([node("v3")]), security=chosen)) as host:
        opened: Any = host.adapter._link
        connection = opened.session._client.uaclient.protocol._connection
        for value in range(50, 53):
            before = connection.security_token.TokenId
            await host.until(lambda: connection.security_token.TokenId > before)  # noqa: B023  within the turn
            secure.write("v3", value)
            await host.until(lambda: host.last(0) == value)  # noqa: B023  waited for within the turn
    secure.write("v3", 3)


async def test_a_user_over_a_secured_link(secure: SecureServer, certificates: dict[str, tuple[Path, Path]]) -> None:
    chosen = security(certificates)
    spec = link(secure.endpoint, device([node("v3")]), security=chosen, user="alice", password="secret")
    async with Collector(spec) as host:
        await host.until(lambda: host.last(0) == 3)
    wrong = await refusal(link(secure.endpoint, device(), security=chosen, user="alice", password="guess"))
    assert isinstance(wrong, AuthError)
    assert "guess" not in str(wrong)
    assert secure.sessions() == 0


async def test_another_server_certificate_than_the_pinned_one(
    secure: SecureServer, certificates: dict[str, tuple[Path, Path]]
) -> None:
    chosen = security(certificates, server_certificate=certificates["other"][0])
    error = await refusal(link(secure.endpoint, device(), security=chosen, timeout=1.0))
    assert (type(error), error.reason) == (AuthError, "server_certificate_changed")
    assert str(certificates["other"][0]) in str(error)
    assert secure.sessions() == 0


async def test_a_policy_that_the_server_does_not_offer(
    plain: SmallServer, certificates: dict[str, tuple[Path, Path]]
) -> None:
    error = await refusal(link(plain.endpoint, device(), security=security(certificates), timeout=1.0))
    assert (type(error), error.reason) == (ConfigError, "security_mismatch")
    assert "None None" in error.fix_en
    assert plain.sessions() == 0


async def test_users(plain: SmallServer) -> None:
    yes = {"user": "alice", "allow_clear_password": True}
    async with Collector(link(plain.endpoint, device([node("v1")]), password="secret", **yes)) as host:
        await host.until(lambda: host.rows(0))
    error = await refusal(link(plain.endpoint, device(), password="guess", **yes))
    assert isinstance(error, AuthError)
    assert error.reason in ("identity_rejected", "access_denied")
    assert "guess" not in str(error)
    assert plain.sessions() == 0


async def test_refused_and_unresolvable() -> None:
    error = await refusal(link(f"opc.tcp://127.0.0.1:{free_port()}/", device()))
    assert (type(error), error.reason) == (TransientError, "refused")


async def test_a_port_that_speaks_something_else() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(rude, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    error = await refusal(link(f"opc.tcp://127.0.0.1:{port}/", device(), timeout=1.0))
    assert isinstance(error, TransientError)
    listener.close()
    await listener.wait_closed()


async def test_a_file_that_is_no_certificate(
    secure: SecureServer, certificates: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish.der"
    rubbish.write_bytes(b"rubbish")
    for field in ("certificate", "key", "server_certificate"):
        error = await refusal(link(secure.endpoint, device(), security=security(certificates, **{field: rubbish})))
        assert (type(error), error.reason) == (ConfigError, "certificate_invalid"), field


def test_a_missing_file_is_said_at_once(certificates: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    chosen = security(certificates, key=tmp_path / "nothing.pem")
    with pytest.raises(ConfigError, match=r"security\.key: .*nothing\.pem"):
        OpcUaAdapter(link("opc.tcp://127.0.0.1:1", device(), security=chosen))


# -------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"endpoint": "tcp://x:1"}, "opc.tcp://HOST:PORT"),
        ({"endpoint": "opc.tcp://"}, "opc.tcp://HOST:PORT"),
        ({"endpoint": "opc.tcp://u:p@x:4840"}, "no user and no password"),
        ({"endpoint": "opc.tcp://x:99999999"}, "is not an endpoint"),
        ({"security": {"policy": "auto", "certificate": "a.pem"}}, "go together"),
        ({"security": {"policy": "auto", "mode": "Sign"}}, "chooses the mode"),
        ({"security": "Basic256"}, "allow_deprecated"),
        ({"security": "Basic512"}, "Basic256Sha256"),
        ({"endpoint": []}, "empty list"),
        ({"endpoint": ["opc.tcp://x", "opc.tcp://x:4840"]}, "twice"),
        ({"endpoint": ["opc.tcp://x", "http://y"]}, "opc.tcp://HOST:PORT"),
        ({"user": "u", "user_certificate": "a", "user_key": "b"}, "one identity"),
        ({"user_key": "b"}, "go together"),
        ({"security": {"policy": "none", "trust": "all"}}, "Extra inputs"),
        ({"password": "x"}, "needs `user`"),
        ({"publish_requests": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_say_what_is_wrong(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        LinkSettings.model_validate({"endpoint": "opc.tcp://x", "security": "none", **changes})


def test_security_is_never_left_out_in_silence() -> None:
    with pytest.raises(ValidationError, match="security"):
        LinkSettings.model_validate({"endpoint": "opc.tcp://x"})


def test_settings() -> None:
    settings = LinkSettings.model_validate(
        {"endpoint": "opc.tcp://plc/path", "security": "none", "user": "u", "password": "hidden", "timeout": "500ms"}
    )
    assert settings.endpoint == "opc.tcp://plc:4840/path"
    assert settings.timeout == 0.5
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()


# ---------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        ("BadCertificateUntrusted", AuthError, "certificate_untrusted"),
        ("BadSecurityChecksFailed", AuthError, "certificate_untrusted"),
        ("BadCertificateTimeInvalid", AuthError, "certificate_rejected"),
        ("BadIdentityTokenRejected", AuthError, "identity_rejected"),
        ("BadUserAccessDenied", AuthError, "access_denied"),
        ("BadSecurityPolicyRejected", ConfigError, "security_mismatch"),
        ("BadTcpEndpointUrlInvalid", ConfigError, "endpoint_unknown"),
        ("BadServiceUnsupported", ConfigError, "service_unsupported"),
        ("BadTooManySessions", TransientError, "too_many_sessions"),
        ("BadTooManySubscriptions", TransientError, "too_many_subscriptions"),
        ("BadSessionIdInvalid", TransientError, "session_lost"),
        ("BadServerHalted", TransientError, "server_shutdown"),
        ("BadTcpServerTooBusy", TransientError, "server_busy"),
        ("BadTimeout", TransientError, "timeout"),
        ("BadTcpMessageTooLarge", TransientError, "too_large"),
        ("BadOutOfRange", TransientError, "server_fault"),
        (ua.UaError("No matching endpoints: 1, x"), ConfigError, "security_mismatch"),
        (ua.UaError("Server certificate mismatch"), AuthError, "server_certificate_changed"),
        (socket.gaierror(-2, "Name or service not known"), TransientError, "dns"),
        (TimeoutError(), TransientError, "timeout"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), TransientError, "refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), TransientError, "refused"),
        (OSError(errno.EHOSTUNREACH, "x"), TransientError, "unreachable"),
        (ConnectionResetError(), TransientError, "connection_lost"),
        (InvalidSignature(), AuthError, "certificate_rejected"),
        (DecodingError("x"), TransientError, "protocol_error"),
        (AddressError("x"), ConfigError, "address_invalid"),
        (ua.UaError("x"), TransientError, "protocol_error"),
    ],
)
def test_every_fault_has_a_reason_and_a_fix(error: Any, kind: type[AdapterError], reason: str) -> None:
    if isinstance(error, str):
        name, error = error, ua.UaStatusCodeError(by_name(error))
    else:
        name = ""
    translated = translate(error, "opc.tcp://plc:4840")
    assert (type(translated), translated.reason) == (kind, reason)
    assert str(translated).startswith("opc.tcp://plc:4840: ")
    assert name in str(translated)
    assert translated.fix_en
    assert translated.fix_zh
    if reason in ("too_many_sessions", "server_shutdown"):
        assert isinstance(translated, TransientError)
        assert translated.retry_after


def test_an_error_of_the_contract_stays_what_it_is() -> None:
    error = ConfigError("x", reason="y")
    assert translate(error, "z") is error
