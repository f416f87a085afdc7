"""First contact, trust, and what happens when a server later shows or offers something else."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.contract import AdapterError, AuthError, ConfigError, LinkSpec
from adapters.opcua import OpcUaAdapter, _discovery
from adapters.opcua import certificates as x
from adapters.opcua._trust import Shown, faults, trust
from adapters.opcua.pki import Pki, PkiError
from schemas.wire import Cause
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_host import Host
from tests.adapters.opcua_host import device as planned_device
from tests.adapters.opcua_server import SmallServer
from tests.servers.certificates import ApplicationAuthority, application_certificate
from tests.servers.foreign import NodeOpcUaServer
from tests.servers.needs import missing

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
BEST = "Aes256Sha256RsaPss_SignAndEncrypt"


class Protected(SmallServer):
    """A server whose certificate and whose offer can be changed while it runs, as if another stood in its place."""

    def offer(self, files: tuple[Path, Path], *kinds: str, uri: str = "urn:test:server") -> None:
        """From the next connection on: this certificate, and these `kinds` (names of asyncua's SecurityPolicyType)."""
        self.run(self._offer(files, kinds, uri))

    async def _offer(self, files: tuple[Path, Path], kinds: tuple[str, ...], uri: str) -> None:
        server = self.server
        server._application_uri = uri
        await server.load_certificate(str(files[0]))
        await server.load_private_key(str(files[1]))
        server.set_security_policy([getattr(ua.SecurityPolicyType, kind) for kind in kinds])
        server.iserver.endpoints.clear()
        server._policies.clear()
        await server._setup_server_nodes()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return application_certificate(tmp_path_factory.mktemp("trust"), "server", "urn:test:server")


@pytest.fixture(scope="module")
def first() -> Iterator[Protected]:
    with Protected() as running:
        yield running


@pytest.fixture
def server(first: Protected, files: tuple[Path, Path]) -> Protected:
    kinds = ["NoSecurity", "Basic256_SignAndEncrypt", "Basic256Sha256_Sign", "Basic256Sha256_SignAndEncrypt", BEST]
    first.offer(files, *kinds)
    return first


@pytest.fixture(scope="module")
def second() -> Iterator[Protected]:
    with Protected() as running:
        yield running


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki", "box")


def spec(endpoint: str, pki: Pki, name: str = "link", **settings: Any) -> LinkSpec:
    plain = link(endpoint, device([node("v3")]), **{"security": "auto", **settings})
    return dataclasses.replace(plain, id=name, pki=pki.folder, gateway=pki.gateway)


async def refusal(wanted: LinkSpec) -> AdapterError:
    adapter = OpcUaAdapter(wanted)
    with pytest.raises(AdapterError) as caught:
        async with asyncio.timeout(10):
            await adapter.connect()
    await adapter.disconnect()
    assert caught.value.fix_en
    assert caught.value.fix_zh
    return caught.value


def certificate_of(files: tuple[Path, Path]) -> x509.Certificate:
    return x.read_certificate(files[0].read_bytes())


# ------------------------------------------------------------------------------------------------------ first contact


async def test_an_unknown_server_is_kept_and_named_and_connects_once_it_was_trusted(
    server: Protected, files: tuple[Path, Path], pki: Pki
) -> None:
    shown = certificate_of(files)
    wanted = spec(server.endpoint, pki)
    error = await refusal(wanted)
    assert isinstance(error, AuthError)
    assert error.reason == "server_certificate_untrusted"
    assert f"guantong certs trust {x.sha256(shown)}" in error.fix_en
    assert f"guantong certs trust {x.sha256(shown)}" in error.fix_zh
    assert error.details["fingerprint"] == x.sha256(shown)
    assert x.sha1(shown) in str(error)
    (rejected,) = pki.certificates("rejected")
    assert rejected.certificate == shown
    assert server.sessions() == 0
    assert error.cured is not None
    assert not error.cured()

    pki.put("trusted", pki.find(error.details["fingerprint"][:12]).certificate)

    assert error.cured()
    assert not pki.certificates("rejected")
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
        opened: Any = host.adapter._link
        used = opened.session._client.security_policy
        assert type(used).__name__ == "SecurityPolicyAes256Sha256RsaPss"
        assert used.Mode == ua.MessageSecurityMode.SignAndEncrypt
    (pin,) = pki.pins("link").values()
    assert (pin.policy, pin.mode, pin.sha256) == ("Aes256Sha256RsaPss", "SignAndEncrypt", x.sha256(shown))
    assert server.sessions() == 0


async def test_the_gateways_certificate_is_made_once(server: Protected, files: tuple[Path, Path], pki: Pki) -> None:
    pki.put("trusted", certificate_of(files))
    for _ in range(2):
        async with Collector(spec(server.endpoint, pki)) as host:
            await host.until(lambda: host.last(0) == 3)
    own = pki.own(NOW)
    assert own.key.stat().st_mode & 0o777 == 0o600
    assert own.uri.startswith("urn:")
    assert own.uri.endswith(":guantong:box")
    certificate = own.certificate
    assert certificate.not_valid_before_utc < NOW - DAY * 0.9
    assert certificate.not_valid_after_utc.year - certificate.not_valid_before_utc.year == 20
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert not x.weakness(certificate)
    assert x.host_names(certificate)
    renewed = pki.renew(NOW)
    assert renewed.certificate != certificate
    assert pki.own(NOW).certificate == renewed.certificate


def test_a_box_whose_clock_stands_in_1970_makes_a_certificate_that_is_valid_today(tmp_path: Path) -> None:
    own = Pki(tmp_path, "box").own(dt.datetime(1970, 1, 1, 0, 3, tzinfo=dt.UTC))
    assert own.certificate.not_valid_before_utc < NOW < own.certificate.not_valid_after_utc
    assert own.certificate.not_valid_after_utc.year >= 2045


def test_a_box_that_may_not_look_at_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise PermissionError("netlink")

    monkeypatch.setattr("adapters.opcua.certificates.psutil.net_if_addrs", refused)
    own = Pki(tmp_path, "box").own(NOW)
    assert len(x.host_names(own.certificate)) == 1


def test_a_key_that_is_not_the_certificates_is_named(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "a", "box")
    own = pki.own(NOW)
    other = Pki(tmp_path / "b", "box").own(NOW)
    own.key.write_bytes(other.key.read_bytes())
    with pytest.raises(PkiError, match="is not this certificate's") as caught:
        pki.own(NOW)
    assert "guantong certs renew" in caught.value.zh


async def test_none_is_never_taken_by_itself(server: Protected, files: tuple[Path, Path], pki: Pki) -> None:
    server.offer(files, "NoSecurity", "Basic256_SignAndEncrypt")
    error = await refusal(spec(server.endpoint, pki))
    assert (type(error), error.reason) == (AuthError, "security_none_offered")
    assert "Basic256 SignAndEncrypt" in str(error)
    assert server.sessions() == 0
    pki.put("trusted", certificate_of(files))
    deprecated = {"policy": "Basic256", "allow_deprecated": True}
    async with Collector(spec(server.endpoint, pki, security=deprecated)) as host:
        await host.until(lambda: host.last(0) == 3)


async def test_a_server_that_offers_less_than_was_agreed_is_not_followed(
    server: Protected, files: tuple[Path, Path], pki: Pki
) -> None:
    pki.put("trusted", certificate_of(files))
    wanted = spec(server.endpoint, pki)
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    before = pki.pins("link")
    for kinds in (["NoSecurity"], ["NoSecurity", "Basic256Sha256_SignAndEncrypt"]):
        server.offer(files, *kinds)
        error = await refusal(wanted)
        assert isinstance(error, AuthError)
        assert error.reason == "security_downgrade"
        assert "guantong certs unpin link" in error.fix_en
        assert server.sessions() == 0
    assert pki.pins("link") == before
    assert isinstance(error, AuthError)
    assert error.cured is not None
    pki.unpin("link")
    assert error.cured()
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    (pin,) = pki.pins("link").values()
    assert pin.policy == "Basic256Sha256"


async def test_a_stronger_offer_that_was_hidden_is_noticed(
    server: Protected, files: tuple[Path, Path], pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki.put("trusted", certificate_of(files))
    ask = _discovery.ask

    async def thinned(url: str, timeout: float) -> _discovery.Told:
        told = await ask(url, timeout)
        return dataclasses.replace(told, offers=tuple(o for o in told.offers if "Aes" not in o.policy))

    monkeypatch.setattr(_discovery, "ask", thinned)
    error = await refusal(spec(server.endpoint, pki))
    assert (type(error), error.reason) == (AuthError, "discovery_tampered")
    assert "Aes256Sha256RsaPss" in str(error)
    assert not pki.pins("link")


async def test_a_changed_certificate_is_told_with_both_fingerprints(
    server: Protected, files: tuple[Path, Path], pki: Pki, tmp_path: Path
) -> None:
    old = certificate_of(files)
    new_files = application_certificate(tmp_path, "renewed", "urn:test:server")
    new = certificate_of(new_files)
    pki.put("trusted", old)
    wanted = spec(server.endpoint, pki)
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    server.offer(new_files, BEST)
    error = await refusal(wanted)
    assert (type(error), error.reason) == (AuthError, "server_certificate_changed")
    assert x.sha1(old) in str(error)
    assert x.sha1(new) in str(error)
    assert (error.details["before"], error.details["fingerprint"]) == (x.sha256(old), x.sha256(new))
    assert error.details["command"] in error.fix_en
    assert server.sessions() == 0
    assert next(iter(pki.pins("link").values())).sha256 == x.sha256(old)
    pki.put("trusted", pki.find(x.sha256(new)).certificate)
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    assert next(iter(pki.pins("link").values())).sha256 == x.sha256(new)


async def test_a_certificate_that_changes_under_a_running_gateway(
    server: Protected, files: tuple[Path, Path], pki: Pki, tmp_path: Path
) -> None:
    """The link waits with the alarm, and goes on by itself once somebody has trusted the new one."""
    new_files = application_certificate(tmp_path, "renewed", "urn:test:server")
    pki.put("trusted", certificate_of(files))
    async with Host(server.endpoint, planned_device([node("v3")]), security="auto", pki=pki) as host:
        await host.until(lambda: host.complete_to() > 0)
        await asyncio.to_thread(server.offer, new_files, BEST)
        await asyncio.to_thread(server.end_sessions)
        await host.until(lambda: host.told[-1].state == "failed")
        assert f"guantong certs trust {x.sha256(certificate_of(new_files))}" in host.told[-1].fix_en
        assert pki.find(x.sha256(certificate_of(new_files)), ["rejected"])
        assert server.sessions() == 0
        await asyncio.to_thread(server.write, "v3", 4711)
        pki.put("trusted", certificate_of(new_files))
        await host.until(lambda: host.last() == 4711 and host.is_up())
        await host.until(host.gaps)
        (gap,) = host.gaps()
        assert gap.cause == Cause.DISCONNECTED
    await asyncio.to_thread(server.write, "v3", 3)  # as the other tests of this server find it


async def test_two_machines_with_their_cables_exchanged(
    server: Protected, second: Protected, pki: Pki, files: tuple[Path, Path], tmp_path: Path
) -> None:
    other = application_certificate(tmp_path, "other", "urn:test:other")
    second.offer(other, BEST, uri="urn:test:other")
    pki.put("trusted", certificate_of(files))
    pki.put("trusted", certificate_of(other))
    for name, running in (("first", server), ("second", second)):
        async with Collector(spec(running.endpoint, pki, name)) as host:
            await host.until(lambda: host.last(0) == 3)
    server.offer(other, BEST, uri="urn:test:other")
    error = await refusal(spec(server.endpoint, pki, "first"))
    assert error.reason == "server_certificate_changed"
    assert "cables" in error.fix_en


async def test_a_pin_that_was_damaged_is_no_first_contact(
    server: Protected, files: tuple[Path, Path], pki: Pki
) -> None:
    pki.put("trusted", certificate_of(files))
    (pki.folder / "pinned").mkdir()
    (pki.folder / "pinned" / "link.json").write_text("{")
    error = await refusal(spec(server.endpoint, pki))
    assert (type(error), error.reason) == (AuthError, "pki_unusable")
    assert "guantong certs unpin link" in str(error)


# ---------------------------------------------------------------------------------------------- what is wrong with it


@pytest.mark.parametrize(
    ("made", "accept", "reason"),
    [
        ({"begin": NOW - 30 * DAY, "end": NOW - DAY}, "expired", "server_certificate_expired"),
        ({"begin": NOW + DAY, "end": NOW + 30 * DAY}, "expired", "server_certificate_not_yet_valid"),
        ({"uri": "urn:somebody:else"}, "application_uri", "server_certificate_uri"),
        ({"bits": 1024}, "weak", "server_certificate_weak"),
    ],
)
async def test_a_trusted_certificate_with_a_fault(
    server: Protected, pki: Pki, tmp_path: Path, made: dict[str, Any], accept: str, reason: str
) -> None:
    files = application_certificate(tmp_path, "faulty", **{"uri": "urn:test:server", **made})
    pki.put("trusted", certificate_of(files))
    policy = "Basic256Sha256"
    server.offer(files, f"{policy}_SignAndEncrypt")
    error = await refusal(spec(server.endpoint, pki, security={"policy": policy}))
    assert (type(error), error.reason) == (AuthError, reason)
    assert f"accept: [{accept}]" in error.fix_en or "clock" in error.fix_en
    assert pki.certificates("trusted")
    yes = {"policy": policy, "accept": [accept]}
    async with Collector(spec(server.endpoint, pki, security=yes)) as host:
        await host.until(lambda: host.last(0) == 3)


def test_dates_are_blamed_on_the_clock_that_is_wrong(tmp_path: Path) -> None:
    files = application_certificate(tmp_path, "server", "urn:test:server")
    chain = (certificate_of(files),)
    (fault,) = faults(Shown(chain, "urn:test:server", None), "127.0.0.1", dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
    assert fault.reason == "gateway_clock_wrong"
    there = int(NOW.timestamp() * 1e6)
    (fault,) = faults(Shown(chain, "urn:test:server", there), "127.0.0.1", NOW + 4000 * DAY)
    assert fault.reason == "gateway_clock_wrong"
    assert NOW.strftime("%Y-%m-%d") in fault.text
    (fault,) = faults(Shown(chain, "urn:test:server", None), "127.0.0.1", NOW + 4000 * DAY)
    assert fault.reason == "server_certificate_expired"
    assert not faults(Shown(chain, "urn:test:server", None), "localhost", NOW)


# ------------------------------------------------------------------------------------------------------- authorities


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> ApplicationAuthority:
    return ApplicationAuthority(tmp_path_factory.mktemp("authority"))


async def test_a_certificate_of_a_trusted_authority(
    server: Protected, pki: Pki, authority: ApplicationAuthority
) -> None:
    files = authority.issue("plc", "urn:test:server")
    server.offer(files, BEST)
    wanted = spec(server.endpoint, pki)
    assert (await refusal(wanted)).reason == "server_certificate_untrusted"
    pki.put("trusted", authority.certificate)
    assert (await refusal(wanted)).reason == "revocation_unknown"
    pki.put_crl("trusted", authority.crl())
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    pki.put_crl("trusted", authority.crl(files))
    error = await refusal(wanted)
    assert (type(error), error.reason) == (AuthError, "server_certificate_revoked")


async def test_through_an_authority_the_host_name_counts(
    server: Protected, pki: Pki, authority: ApplicationAuthority
) -> None:
    files = authority.issue("elsewhere", "urn:test:server", host="plc-7.example")
    pki.put("trusted", authority.certificate)
    pki.put_crl("trusted", authority.crl())
    server.offer(files, BEST)
    error = await refusal(spec(server.endpoint, pki))
    assert error.reason == "server_certificate_host"
    assert "plc-7.example" in str(error)
    pki.put("trusted", certificate_of(files))
    async with Collector(spec(server.endpoint, pki)) as host:
        await host.until(lambda: host.last(0) == 3)


def test_chains(pki: Pki, authority: ApplicationAuthority, tmp_path: Path) -> None:
    between = authority.authority(tmp_path, "between")
    files = between.issue("leaf", "urn:test:server")
    leaf = certificate_of(files)
    pki.put("trusted", authority.certificate)
    for one in (authority, between):
        pki.put_crl("issuers", one.crl())
    assert not trust((leaf,), pki, NOW).trusted  # the authority between is not known
    assert trust((leaf, between.certificate), pki, NOW).trusted  # sent by the server
    pki.put("issuers", between.certificate)
    assert trust((leaf,), pki, NOW).trusted
    stranger = ApplicationAuthority(tmp_path / "stranger", "Test authority")  # the same name, another key
    assert not trust((certificate_of(stranger.issue("x", "urn:x")),), pki, NOW).trusted
    impostor = application_certificate(
        tmp_path, "impostor", "urn:x", issuer=files
    )  # signed by one that is no authority
    assert not trust((certificate_of(impostor), leaf), pki, NOW).trusted


# ------------------------------------------------------------------------------------------------------- the stores


def test_a_file_put_there_by_hand_counts(pki: Pki, files: tuple[Path, Path]) -> None:
    folder = pki.folder / "trusted" / "certs"
    folder.mkdir(parents=True)
    (folder / "by hand.pem").write_bytes(certificate_of(files).public_bytes(serialization.Encoding.PEM))
    (folder / "notes.txt").write_text("not a certificate")
    assert trust((certificate_of(files),), pki, NOW).trusted


def test_rejected_certificates_are_bounded(
    pki: Pki, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.opcua.pki.MOST_REJECTED", 3)
    made = [certificate_of(application_certificate(tmp_path, f"s{i}", "urn:x", bits=1024)) for i in range(5)]
    for certificate in made:
        pki.put("rejected", certificate)
    kept = {k.sha256 for k in pki.certificates("rejected")}
    assert kept == {x.sha256(certificate) for certificate in made[2:]}


@pytest.mark.parametrize("wrong", ["1234", "zz11223344", "00" * 20])
def test_fingerprints_that_name_nothing(pki: Pki, files: tuple[Path, Path], wrong: str) -> None:
    pki.put("rejected", certificate_of(files))
    with pytest.raises(PkiError, match="certs list"):
        pki.find(wrong)


def test_a_fingerprint_as_tools_write_it(pki: Pki, files: tuple[Path, Path]) -> None:
    certificate = certificate_of(files)
    pki.put("rejected", certificate)
    text = x.sha1(certificate).upper()
    colons = ":".join(text[i : i + 2] for i in range(0, 40, 2))
    assert pki.find(colons).certificate == certificate


def test_bytes_that_are_no_certificate() -> None:
    for data in (b"", b"\x30", b"\x30\x82\xff\xff", b"0" * 40, b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(x.NotACertificateError):
            x.read_chain(data)
        with pytest.raises(x.NotACertificateError):
            x.read_certificate(data)


# ------------------------------------------------------------------------------------------------------- who signs in


class Wire:
    """A relay in front of a server that keeps what the client sends. With `refuse` it answers a protected OpenSecureChannel with these
    bytes and hangs up."""

    def __init__(self, port: int, refuse: bytes | None = None) -> None:
        self._port, self._refuse = port, refuse
        self.sent = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> str:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"opc.tcp://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/"

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(w.wait_closed() for w in self._writers), return_exceptions=True)
        await self._listener.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        for source, target, kept in ((reader, back, self.sent), (there, writer, bytearray())):
            task = asyncio.create_task(self._pass(source, target, kept))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, kept: bytearray) -> None:
        while data := await source.read(65536):
            kept += data
            if self._refuse is not None and b"SecurityPolicy#Aes256" in data[:200] and data.startswith(b"OPN"):
                self._writers[-2].write(self._refuse)
                self._writers[-2].close()
                break
            target.write(data)
            await target.drain()
        target.close()


ALICE: dict[str, Any] = {"security": "none", "user": "alice", "password": "secret"}


async def test_a_password_on_an_open_channel_is_encrypted_for_the_server(
    server: Protected, files: tuple[Path, Path], pki: Pki
) -> None:
    error = await refusal(spec(server.endpoint, pki, **ALICE))  # which prefers Basic256
    assert (type(error), error.reason) == (AuthError, "password_in_clear")
    assert "under Basic256," in str(error)
    server.offer(files, "NoSecurity", BEST)
    wire = Wire(server.port)
    async with wire as endpoint, Collector(spec(endpoint, pki, **ALICE)) as host:
        await host.until(lambda: host.last(0) == 3)
    assert b"alice" in wire.sent
    assert b"secret" not in wire.sent


@pytest.mark.parametrize("kind", ["NoSecurity", "Basic256Sha256_Sign"])
async def test_a_password_never_goes_in_clear_unasked(
    server: Protected, files: tuple[Path, Path], pki: Pki, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that asks for the password in clear, over a channel that does not encrypt."""
    server.offer(files, kind)
    pki.put("trusted", certificate_of(files))
    for endpoint in server.server.iserver.endpoints:
        for token in endpoint.UserIdentityTokens:
            token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
    name, _, mode = kind.partition("_")
    security: Any = "none" if name == "NoSecurity" else {"policy": name, "mode": mode}
    alice = {**ALICE, "security": security}
    wire = Wire(server.port)
    async with wire as endpoint:
        error = await refusal(spec(endpoint, pki, **alice))
        assert (type(error), error.reason) == (AuthError, "password_in_clear")
        assert b"secret" not in wire.sent
        async with Collector(spec(endpoint, pki, **alice, allow_clear_password=True)) as host:
            await host.until(lambda: host.last(0) == 3)
    assert b"secret" in wire.sent
    assert server.sessions() == 0


async def test_a_password_goes_only_to_the_server_that_got_it_first(
    server: Protected, files: tuple[Path, Path], pki: Pki, tmp_path: Path
) -> None:
    server.offer(files, "NoSecurity", BEST)
    wanted = spec(server.endpoint, pki, **ALICE)
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)
    stranger = application_certificate(tmp_path, "stranger", "urn:test:server")
    server.offer(stranger, "NoSecurity", BEST)
    error = await refusal(wanted)
    assert (type(error), error.reason) == (AuthError, "server_certificate_changed")
    assert server.sessions() == 0
    pki.put("trusted", pki.find(error.details["fingerprint"]).certificate)
    async with Collector(wanted) as host:
        await host.until(lambda: host.last(0) == 3)


@pytest.mark.parametrize("security", ["none", "auto"])
async def test_a_user_certificate(
    server: Protected, files: tuple[Path, Path], pki: Pki, tmp_path: Path, security: str
) -> None:
    pki.put("trusted", certificate_of(files))
    user = application_certificate(tmp_path, "operator", "urn:operator")
    seen: list[Any] = []
    manager = server.server.iserver.user_manager
    original = manager.get_user

    def spy(*args: Any, certificate: Any = None, **kwargs: Any) -> Any:
        seen.append(certificate)
        return original(*args, certificate=certificate, **kwargs)

    manager.get_user = spy
    try:
        signing: dict[str, Any] = {"security": security, "user_certificate": user[0], "user_key": user[1]}
        async with Collector(spec(server.endpoint, pki, **signing)) as host:
            await host.until(lambda: host.last(0) == 3)
    finally:
        manager.get_user = original
    assert seen == [user[0].read_bytes()]


async def test_a_way_of_signing_in_that_the_server_lacks(server: Protected, files: tuple[Path, Path], pki: Pki) -> None:
    for endpoint in server.server.iserver.endpoints:
        endpoint.UserIdentityTokens = [t for t in endpoint.UserIdentityTokens if t.TokenType.name == "UserName"]
    error = await refusal(spec(server.endpoint, pki, security="none"))
    assert error.reason == "identity_unsupported"
    assert "UserName" in error.fix_en
    assert server.sessions() == 0


@pytest.mark.parametrize(
    ("kind", "told"), [("other", "is not the key of"), ("elliptic", "no RSA key"), ("text", "key:")]
)
async def test_files_that_do_not_go_together(
    server: Protected, files: tuple[Path, Path], pki: Pki, tmp_path: Path, kind: str, told: str
) -> None:
    ours = application_certificate(tmp_path, "ours", "urn:ours")
    key = tmp_path / "key.pem"
    if kind == "other":
        key.write_bytes(application_certificate(tmp_path, "other", "urn:other")[1].read_bytes())
    elif kind == "elliptic":
        made = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key.write_bytes(made.private_bytes(*form))
    else:
        key.write_text("nothing")
    error = await refusal(spec(server.endpoint, pki, security={"policy": "auto", "certificate": ours[0], "key": key}))
    assert (type(error), error.reason) == (ConfigError, "certificate_invalid")
    assert told in str(error)
    assert server.sessions() == 0


async def test_a_user_certificate_that_is_not_there(server: Protected, pki: Pki, tmp_path: Path) -> None:
    missing: dict[str, Any] = {
        "security": "none",
        "user_certificate": tmp_path / "no.der",
        "user_key": tmp_path / "no.pem",
    }
    with pytest.raises(AdapterError) as caught:
        OpcUaAdapter(spec(server.endpoint, pki, **missing))
    assert caught.value.reason == "certificate_missing"
    assert "no.der" in str(caught.value)


# ------------------------------------------------------------------------------------------------------ another stack


async def test_another_stack(node_opcua_server: NodeOpcUaServer, pki: Pki) -> None:
    server = node_opcua_server
    named = device([f"nsu={server.namespace};{server.nodes['Counter']['node_id'].split(';', 1)[1]}"])
    bare = server.endpoint.removesuffix("/foreign")

    def wanted(**settings: Any) -> LinkSpec:
        made = link(bare, named, **{"security": "auto", "timeout": 10.0, **settings})
        return dataclasses.replace(made, pki=pki.folder, gateway="box")

    error = await refusal(wanted())
    assert error.reason == "server_certificate_untrusted"
    pki.put("trusted", pki.find(error.details["fingerprint"]).certificate)
    for settings in (
        {},
        {"user": "operator", "password": "贯通-secret"},
        {"security": "none", "user": "operator", "password": "贯通-secret"},
        {"security": {"policy": "Basic256Sha256", "mode": "Sign"}, "user": "operator", "password": "贯通-secret"},
    ):
        async with Collector(wanted(**settings)) as host:
            await host.until(lambda: host.last(0) is not None)
    pins = Pki(pki.folder, "box").pins("link")
    assert {pin.mode for pin in pins.values()} <= {"", "SignAndEncrypt"}


def error_message(code: int) -> bytes:
    """An Error message of OPC UA TCP (OPC 10000-6 §7.1.2.5)."""
    return b"ERRF" + struct.pack("<III", 16, code, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "channel_refused"),
        (error_message(0x80130000), "certificate_untrusted"),  # BadSecurityChecksFailed
        (error_message(0x801A0000), "certificate_untrusted"),  # BadCertificateUntrusted
        (error_message(0x80140000), "certificate_rejected"),  # BadCertificateTimeInvalid
    ],
)
async def test_a_server_that_does_not_trust_the_gateway(
    server: Protected, files: tuple[Path, Path], pki: Pki, answer: bytes, reason: str
) -> None:
    pki.put("trusted", certificate_of(files))
    async with Wire(server.port, answer) as endpoint:
        error = await refusal(spec(endpoint, pki, timeout=2.0))
    assert isinstance(error, AuthError)
    assert error.reason == reason
    assert x.sha1(pki.own(NOW).certificate) in str(error)
    assert error.cured is not None
    assert not error.cured()


def test_files_that_root_writes_belong_to_whom_the_folder_belongs(tmp_path: Path, files: tuple[Path, Path]) -> None:
    if os.geteuid() != 0:
        missing("root, who can give files away", "running the tests as root")
    os.chown(tmp_path, 12345, 12345)
    pki = Pki(tmp_path / "pki", "box")
    own = pki.own(NOW)
    put = pki.put("trusted", certificate_of(files))
    assert {path.stat().st_uid for path in (own.path, own.key, own.key.parent, put, put.parent, pki.folder)} == {12345}
