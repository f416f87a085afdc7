"""The connection to the broker: one suite on Mosquitto (MQTT 5 and 3.1.1) and on the embedded broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway.bus import broker as embedded
from gateway.bus.client import Bus, BusOptions, Tls, Will
from gateway.bus.topics import Topics
from schemas.wire import MAX_MESSAGE
from tests.servers.processes import accepts, free_port
from tests.servers.waiting import eventually, eventually_async

# paho leaves the socket of a failed TLS hand-shake to the garbage collector, which may come in any later test
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


class Embedded:
    """The broker as the gateway starts it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.config = embedded.write_config(folder / "broker.toml", self.port)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(embedded.command(self.config), stdin=subprocess.PIPE)
        eventually(lambda: accepts(self.port), timeout=10)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None


@pytest.fixture(params=["mosquitto-5", "mosquitto-3.1.1", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[object, BusOptions]]:
    if request.param == "embedded":
        server = Embedded(tmp_path)
        yield server, BusOptions(port=server.port, protocol="3.1.1")
        server.kill()
    else:
        mosquitto = request.getfixturevalue("mosquitto")
        protocol = request.param.partition("-")[2]
        yield mosquitto, BusOptions(port=mosquitto.port, protocol=protocol)


@contextlib.asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[Bus]:
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_messages_arrive_in_order_and_whole(broker: tuple[object, BusOptions]) -> None:
    got: list[bytes] = []
    reader, writer = Bus(broker[1]), Bus(broker[1])
    reader.subscribe("guantong/v1/ledger/+", lambda _topic, payload: got.append(payload))
    sent = [i.to_bytes(4, "big") * 200 for i in range(1000)] + [os.urandom(MAX_MESSAGE)]
    async with running(reader), running(writer):
        await eventually_async(lambda: reader.connected and writer.connected)
        for payload in sent:
            assert writer.publish("guantong/v1/ledger/gw", payload)
        await eventually_async(lambda: len(got) == len(sent))
    assert got == sent


async def test_a_message_that_the_broker_would_not_take_is_not_sent(
    broker: tuple[object, BusOptions], caplog: pytest.LogCaptureFixture
) -> None:
    """It would cut the connection, and again with the next one."""
    got: list[bytes] = []
    reader, writer = Bus(broker[1]), Bus(broker[1])
    reader.subscribe("guantong/v1/committed/+", lambda _topic, payload: got.append(payload))
    async with running(reader), running(writer):
        await eventually_async(lambda: reader.connected and writer.connected)
        largest = 4 * MAX_MESSAGE
        for _ in range(2):
            assert not writer.publish("guantong/v1/committed/store", bytes(largest))
        assert writer.publish("guantong/v1/committed/store", bytes(largest - 1100))
        assert writer.publish("guantong/v1/committed/store", b"after")
        await eventually_async(lambda: len(got) == 2)
    assert [len(payload) for payload in got] == [largest - 1100, 5]
    assert (writer.numbers.disconnects, writer.numbers.refused) == (1, 2)  # the one disconnect is the end of the test
    assert caplog.text.count("is not sent") == 1


async def test_a_killed_broker_is_survived(broker: tuple[object, BusOptions]) -> None:
    server, options = broker
    got: list[bytes] = []
    came, went = [], []
    bus = Bus(options)
    bus.subscribe("guantong/v1/sync/+", lambda _topic, payload: got.append(payload))
    bus.on_connected.append(lambda: came.append(1))
    bus.on_disconnected.append(lambda: went.append(1))
    async with running(bus):
        await eventually_async(lambda: bus.connected)
        server.kill()  # type: ignore[attr-defined]
        await eventually_async(lambda: not bus.connected)
        assert not bus.publish("guantong/v1/sync/gw", b"nobody hears this")
        assert bus.health.state == "recovering"
        await asyncio.get_running_loop().run_in_executor(None, server.start)  # type: ignore[attr-defined]
        await eventually_async(lambda: bus.connected)
        bus.publish("guantong/v1/sync/gw", b"again")
        await eventually_async(lambda: got == [b"again"])
        assert bus.health.state == "ok"
    assert (len(came), len(went)) == (2, 2)


async def test_the_will_and_what_is_retained(broker: tuple[object, BusOptions]) -> None:
    _, options = broker
    topics = Topics()
    will = Will(topics.gateway_status("gw"), b'{"state":"stopped"}')
    victim = Bus(BusOptions(port=options.port, protocol=options.protocol, will=will))
    got: list[tuple[str, bytes]] = []
    late = Bus(options)
    late.subscribe("guantong/v1/status/#", lambda topic, payload: got.append((topic, payload)))
    async with running(victim):
        await eventually_async(lambda: victim.connected)
        victim.publish(topics.status("imm-01"), b'{"state":"ok"}', qos=1, retain=True)
        async with running(late):
            await eventually_async(lambda: (topics.status("imm-01"), b'{"state":"ok"}') in got)
            session = victim._session
            assert session is not None
            sock = session.client.socket()
            assert sock is not None
            sock.shutdown(2)  # an abrupt end, without DISCONNECT
            await eventually_async(lambda: (topics.gateway_status("gw"), b'{"state":"stopped"}') in got)


async def test_nothing_listens() -> None:
    port = free_port()
    bus = Bus(BusOptions(port=port))
    async with running(bus):
        await eventually_async(lambda: bus.health.state == "recovering")
        assert f"nothing listens on 127.0.0.1:{port}" in bus.health.reason
        assert bus.health.fix_en
        assert bus.health.fix_zh
    assert bus.health.state == "stopped"


async def test_something_else_listens() -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    bus = Bus(BusOptions(port=server.sockets[0].getsockname()[1]))
    async with server, running(bus):
        await eventually_async(lambda: bus.health.state == "recovering")
        assert bus.health.reason


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_wrong_password_is_a_failure_with_a_fix(
    protocol: str, mosquitto_factory: Callable[..., object]
) -> None:
    server = mosquitto_factory(users={"gateway": "right"})
    options = BusOptions(port=server.port, protocol=protocol, username="gateway", password="wrong")  # type: ignore[attr-defined,arg-type]
    bus = Bus(options)
    async with running(bus):
        await eventually_async(lambda: bus.health.state == "failed")
        assert "bus.password" in bus.health.fix_en


async def test_user_and_password_over_tls(
    mosquitto_factory: Callable[..., object], certificate_authority: object
) -> None:
    server = mosquitto_factory(users={"gateway": "right"}, authority=certificate_authority)
    options = BusOptions(
        port=server.port,  # type: ignore[attr-defined]
        username="gateway",
        password="right",
        tls=Tls(ca=certificate_authority.certificate),  # type: ignore[attr-defined]
    )
    bus = Bus(options)
    async with running(bus):
        await eventually_async(lambda: bus.connected)
    untrusting = Bus(BusOptions(port=server.port, username="gateway", password="right", tls=Tls()))  # type: ignore[attr-defined]
    async with running(untrusting):
        await eventually_async(lambda: untrusting.health.state == "failed")
        assert "bus.tls.ca" in untrusting.health.fix_en


async def test_a_broker_with_small_packets_is_a_named_failure(mosquitto_factory: Callable[..., object]) -> None:
    server = mosquitto_factory(settings={"max_packet_size": 20_000})
    bus = Bus(BusOptions(port=server.port))  # type: ignore[attr-defined]
    async with running(bus):
        await eventually_async(lambda: bus.health.state == "failed")
        assert "20000" in bus.health.reason
        assert "max_packet_size" in bus.health.fix_en


async def test_a_publish_that_the_acl_refuses_is_seen(mosquitto_factory: Callable[..., object]) -> None:
    server = mosquitto_factory(users={"gateway": "right"}, acl="user gateway\ntopic read guantong/#\n")
    bus = Bus(BusOptions(port=server.port, username="gateway", password="right"))  # type: ignore[attr-defined]
    async with running(bus):
        await eventually_async(lambda: bus.connected)
        bus.publish("guantong/v1/ledger/gw", b"x")
        await eventually_async(lambda: bus.health.state == "degraded")
        assert "ACL" in bus.health.fix_en


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_embedded_broker_does_not_keep_what_came_with_small_messages(tmp_path: Path) -> None:
    """A confirmation and the large message before it arrive in one buffer, which lives as long as either is in a log."""
    server = Embedded(tmp_path)
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status")

    def resident() -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS")))

    got: list[str] = []
    reader, writer = (Bus(BusOptions(port=server.port, protocol="3.1.1")) for _ in range(2))
    for topic in ("committed", "confirmed"):
        reader.subscribe(f"guantong/v1/{topic}/+", lambda topic, _payload: got.append(topic))
    async with running(reader), running(writer):
        await eventually_async(lambda: reader.connected and writer.connected)
        before, rounds = resident(), 500
        for number in range(1, rounds + 1):
            writer.publish("guantong/v1/confirmed/gw", bytes(80))
            writer.publish("guantong/v1/committed/store", bytes(100_000))
            await eventually_async(lambda number=number: len(got) == 2 * number, interval=0.001)  # type: ignore[misc]
        grown = resident() - before
    server.kill()
    assert grown < 20_000, f"{grown} kB more after {rounds} rounds of 100 kB"


def test_the_embedded_broker_ends_with_its_parent(tmp_path: Path) -> None:
    server = Embedded(tmp_path)
    assert server.process is not None
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(10) == 0
    assert not accepts(server.port)
