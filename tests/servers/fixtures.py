"""The fixtures. Each server is real, on 127.0.0.1 and a free port, and ended by its process id even when a test fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.servers.brokers import IotcoreBroker, Mosquitto
from tests.servers.certificates import CertificateAuthority
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import (
    MACHINE_SOURCE,
    LibmodbusMachine,
    LibmodbusServer,
    ModbusSerialServer,
    NodeOpcUaServer,
    compile_libmodbus_server,
)
from tests.servers.needs import require
from tests.servers.postgresql import Postgres
from tests.servers.processes import end_all
from tests.servers.timescale import Timescale, make_timescale

MosquittoFactory = Callable[..., Mosquitto]
PostgresFactory = Callable[..., Postgres]
ProxyFactory = Callable[..., FaultProxy]


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """At the end of the run nothing that was started here is left, whatever a fixture did."""
    yield
    end_all()


@pytest.fixture(scope="session")
def certificate_authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """A certificate authority that lives as long as the run; `issue` gives server and client certificates."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def mosquitto_factory(tmp_path: Path) -> Iterator[MosquittoFactory]:
    """Makes and starts Mosquittos with the parameters of `brokers.Mosquitto`; each may be stopped, killed and started."""
    made: list[Mosquitto] = []

    def factory(**parameters: object) -> Mosquitto:
        broker = Mosquitto(tmp_path / f"mosquitto-{len(made)}", **parameters)  # type: ignore[arg-type]
        made.append(broker)
        broker.start()
        return broker

    yield factory
    for broker in made:
        broker.kill()


@pytest.fixture
def mosquitto(mosquitto_factory: MosquittoFactory) -> Mosquitto:
    """A running Mosquitto with anonymous access, of this test alone (starting one takes some milliseconds)."""
    return mosquitto_factory()


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[IotcoreBroker]:
    """A running broker of the iotcore wheel, of this test alone: `port` for MQTT 3.1.1, `v5_port` for MQTT 5."""
    broker = IotcoreBroker(tmp_path / "iotcore")
    with ExitStack() as stack:
        stack.callback(broker.kill)
        broker.start()
        yield broker


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One running PostgreSQL cluster for the run. Take a database of your own with `new_database()`; a test that stops or
    kills the server uses `postgres_factory` instead."""
    with closing(Postgres()) as server:
        server.start()
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database on the cluster of the run, dropped after the test."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def postgres_factory() -> Iterator[PostgresFactory]:
    """Makes and starts clusters of this test alone (two seconds each), with the parameters of `postgresql.Postgres`."""
    with ExitStack() as stack:

        def factory(**parameters: object) -> Postgres:
            server = stack.enter_context(closing(Postgres(**parameters)))  # type: ignore[arg-type]
            server.start()
            return server

        yield factory


@pytest.fixture(scope="session")
def timescale() -> Iterator[Timescale]:
    """One TimescaleDB for the run: PGlite in a Node process, or the server that GUANTONG_TEST_TIMESCALE_URL names. Its limits
    are in `timescale.Timescale` and `timescale.PgliteTimescale`."""
    with closing(make_timescale()) as server:
        yield server


@pytest.fixture
def timescale_url(timescale: Timescale) -> Iterator[str]:
    """The URL of an empty database with the extension, emptied or dropped after the test."""
    url = timescale.new_database()
    yield url
    timescale.drop_database(url)


@pytest.fixture
def node_opcua_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeOpcUaServer]:
    """A running OPC UA server on node-opcua, of this test alone (two seconds to start)."""
    # one folder for the run: making its certificates is what takes longest
    server = NodeOpcUaServer(tmp_path_factory.getbasetemp() / "node-opcua")
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


@pytest.fixture
def modbus_serial_server() -> Iterator[ModbusSerialServer]:
    """A running Modbus TCP server on modbus-serial with good, slow, busy and silent units, of this test alone."""
    server = ModbusSerialServer()
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


@pytest.fixture(scope="session")
def libmodbus_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled libmodbus server."""
    return compile_libmodbus_server(tmp_path_factory.mktemp("libmodbus"))


@pytest.fixture
def libmodbus_server(libmodbus_program: Path) -> Iterator[LibmodbusServer]:
    """A running Modbus TCP server on libmodbus with values of all types and orders, of this test alone."""
    server = LibmodbusServer(libmodbus_program)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


@pytest.fixture(scope="session")
def libmodbus_machine_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled machine on libmodbus."""
    return compile_libmodbus_server(tmp_path_factory.mktemp("libmodbus"), MACHINE_SOURCE)


@pytest.fixture
def libmodbus_machine(libmodbus_machine_program: Path) -> Iterator[Callable[..., LibmodbusMachine]]:
    """Makes and starts machines nobody knows the map of, whose values live: `machine = libmodbus_machine(speed=40)`, then `machine.port`."""
    with ExitStack() as stack:

        def start(speed: float = 1.0) -> LibmodbusMachine:
            machine = LibmodbusMachine(libmodbus_machine_program, speed=speed)
            stack.callback(machine.kill)
            machine.start()
            return machine

        yield start


@pytest.fixture
def fault_proxy() -> Iterator[ProxyFactory]:
    """Makes and starts proxies: `proxy = fault_proxy(target_port)`, then clients connect to `proxy.port`."""
    with ExitStack() as stack:
        yield lambda target_port: stack.enter_context(FaultProxy(target_port))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of Debian's Chromium. As root it needs --no-sandbox."""
    return require("chromium")
