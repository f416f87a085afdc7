"""Each fixture works with a client that is not ours: paho, psycopg, asyncua, pymodbus, plain sockets."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import math
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncua
import paho.mqtt.client as mqtt
import psutil
import psycopg
import pytest
from asyncua import ua
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from tests.servers import needs
from tests.servers.brokers import BrokerProcess, IotcoreBroker, Mosquitto
from tests.servers.certificates import CertificateAuthority
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import LibmodbusServer, ModbusSerialServer, NodeOpcUaServer
from tests.servers.postgresql import Postgres
from tests.servers.processes import HOST, ChildProcess, accepts, free_port, running_children
from tests.servers.timescale import Timescale
from tests.servers.waiting import ConditionNotMet, eventually, eventually_async

# --- waiting, needs, processes -----------------------------------------------------------------------------------


def test_eventually_returns_what_the_predicate_gave() -> None:
    answers = iter([0, None, "there"])
    assert eventually(lambda: next(answers), 5) == "there"


def test_eventually_names_the_condition_and_what_was_last_seen() -> None:
    with pytest.raises(ConditionNotMet, match=r"^the lamp did not come true within 0\.05 s; last seen: 'off'$"):
        eventually(lambda: None if time.monotonic() < 0 else _fail("off"), 0.05, what="the lamp")


def _fail(text: str) -> None:
    class Seen(AssertionError):
        def __repr__(self) -> str:
            return repr(text)

    raise Seen


async def test_eventually_async_takes_plain_functions_and_coroutines_and_lets_the_loop_run() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)

    async def coroutine() -> str:
        return "yes" if done.is_set() else ""

    assert await eventually_async(done.is_set, 5)
    assert await eventually_async(coroutine, 5) == "yes"
    with pytest.raises(ConditionNotMet):
        await eventually_async(lambda: False, 0.05)


def test_a_missing_need_is_skipped_by_hand_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(needs.PACKAGES, "no-such-program", "no-such-package")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        needs.require("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        needs.require("no-such-program")


def test_a_process_that_ends_early_is_told_with_its_output() -> None:
    child = ChildProcess([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match=r"ended with 3:\nthe reason"):
        child.wait_until(lambda: False, 20)
    assert child not in running_children()


def test_a_stopped_process_is_gone_and_its_sockets_closed() -> None:
    port = free_port()
    child = ChildProcess([sys.executable, "-m", "http.server", "--bind", HOST, str(port)])
    child.wait_until(lambda: accepts(port))
    assert child in running_children()
    child.stop()
    assert not child.running
    assert not accepts(port)
    assert child not in running_children()


def test_chromium_is_there(chromium: Path) -> None:
    version = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Chromium ")


# --- brokers ------------------------------------------------------------------------------------------------------


class MqttProbe:
    """A paho client with its network loop in a thread, and what it saw."""

    def __init__(self, port: int, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, **tls: Any) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.reasons: list[str] = []
        self.messages: list[tuple[str, bytes]] = []
        self.lost = threading.Event()
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.reasons.append(str(reason))
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, bytes(message.payload)))
        self.client.on_disconnect = lambda *_: self.lost.set()
        self._port = port
        if tls:
            self.client.tls_set(**tls)

    def open(self) -> str:
        self.client.connect(HOST, self._port)
        self.client.loop_start()
        return eventually(lambda: self.reasons, what="CONNACK")[0]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def mqtt_probe(port: int, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, **tls: Any) -> Iterator[MqttProbe]:
    probe = MqttProbe(port, version, **tls)
    try:
        yield probe
    finally:
        probe.close()


def round_trip(port: int, version: MQTTProtocolVersion) -> None:
    with mqtt_probe(port, version) as probe:
        assert probe.open() == "Success"
        probe.client.subscribe("a/#", qos=1)
        eventually(lambda: probe.client.publish("a/b", b"\x00\xff", qos=1) and probe.messages, what="message back")
        assert probe.messages[0] == ("a/b", b"\x00\xff")


@pytest.mark.parametrize("name", ["mosquitto", "embedded_broker"])
def test_a_broker_speaks_both_versions_and_survives_a_kill(name: str, request: pytest.FixtureRequest) -> None:
    broker: BrokerProcess = request.getfixturevalue(name)
    round_trip(broker.port, MQTTProtocolVersion.MQTTv311)
    round_trip(broker.v5_port, MQTTProtocolVersion.MQTTv5)
    with mqtt_probe(broker.v5_port) as probe:
        probe.open()
        broker.kill()
        assert probe.lost.wait(5), "a killed broker ends its connections"
    assert not accepts(broker.port)
    broker.start()
    round_trip(broker.v5_port, MQTTProtocolVersion.MQTTv5)
    broker.stop()
    assert not broker.running


def test_the_embedded_broker_is_only_on_loopback(embedded_broker: IotcoreBroker) -> None:
    listening = {c.laddr for c in psutil.Process(embedded_broker.pid).net_connections("tcp") if c.status == "LISTEN"}
    assert listening == {(HOST, embedded_broker.port), (HOST, embedded_broker.v5_port)}


def test_mosquitto_with_passwords_and_acl(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    acl = "user collect\ntopic write out/#\n\nuser ingest\ntopic read out/#\n"
    broker = mosquitto_factory(users={"collect": "贯通-1", "ingest": "two"}, acl=acl)
    with mqtt_probe(broker.port) as anonymous, mqtt_probe(broker.port) as wrong:
        assert anonymous.open() == "Not authorized"
        wrong.client.username_pw_set("ingest", "three")
        assert wrong.open() == "Not authorized"
    with mqtt_probe(broker.port) as ingest, mqtt_probe(broker.port) as collect:
        ingest.client.username_pw_set("ingest", "two")
        assert ingest.open() == "Success"
        ingest.client.subscribe("#", qos=1)
        collect.client.username_pw_set("collect", "贯通-1")
        assert collect.open() == "Success"
        collect.client.publish("elsewhere", b"x", qos=1)
        eventually(lambda: collect.client.publish("out/1", b"y", qos=1) and ingest.messages, what="allowed message")
        assert {topic for topic, _ in ingest.messages} == {"out/1"}


def test_mosquitto_over_tls(
    mosquitto_factory: Callable[..., Mosquitto], certificate_authority: CertificateAuthority, tmp_path: Path
) -> None:
    broker = mosquitto_factory(authority=certificate_authority, require_client_certificate=True)
    client = certificate_authority.issue("collect", client=True)
    files: dict[str, Any] = {"certfile": str(client.certificate), "keyfile": str(client.key)}
    with mqtt_probe(broker.port, ca_certs=str(certificate_authority.certificate), **files) as probe:
        assert probe.open() == "Success"
    other = CertificateAuthority(tmp_path / "other", "another CA")
    context = ssl.create_default_context(cafile=other.certificate)
    with socket.create_connection((HOST, broker.port), timeout=5) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname=HOST)


def test_mosquitto_with_protocol_limits(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    broker = mosquitto_factory(settings={"max_packet_size": 1000})
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.publish("a", b"x" * 2000, qos=1)
        assert probe.lost.wait(5), "a packet above the limit ends the connection"


def test_mosquitto_keeps_retained_messages_when_persistent(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    broker = mosquitto_factory(persistent=True)
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.publish("birth", b"1", qos=1, retain=True).wait_for_publish(5)
    broker.stop()
    broker.start()
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.subscribe("birth")
        eventually(lambda: probe.messages == [("birth", b"1")], what="retained message")


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def test_postgres_gives_each_test_a_database_of_its_own(postgres: Postgres, postgres_url: str) -> None:
    other = postgres.new_database()
    try:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE reading (n int)")
            with connection.cursor().copy("COPY reading FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4"])
                copy.write_row((42,))
            assert connection.execute("SELECT n FROM reading").fetchall() == [(42,)]
            assert connection.info.server_version >= 150_000
        with psycopg.connect(other) as connection:
            assert connection.execute("SELECT to_regclass('reading')").fetchone() == (None,)
    finally:
        postgres.drop_database(other)


def test_postgres_survives_stop_and_kill(postgres_factory: Callable[..., Postgres]) -> None:
    server = postgres_factory(settings={"max_connections": 7})
    url = server.new_database()
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (2)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    for mode in ("killed", "immediate", "smart"):
        if mode != "killed":
            server.stop(mode)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)], "the open transaction is rolled back"


# --- TimescaleDB ---------------------------------------------------------------------------------------------------

NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def hypertable(timescale_url: str) -> str:
    with psycopg.connect(timescale_url) as connection:
        connection.execute("CREATE TABLE reading (s int4, ts timestamptz NOT NULL, num float8, PRIMARY KEY (s, ts))")
        connection.execute("SELECT create_hypertable('reading', by_range('ts', INTERVAL '1 day'))")
    return timescale_url


def copy_rows(connection: psycopg.Connection[Any], rows: list[tuple[int, dt.datetime, float]]) -> None:
    with connection.cursor().copy("COPY reading (s, ts, num) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "timestamptz", "float8"])
        for row in rows:
            copy.write_row(row)


def test_timescale_has_hypertables_and_binary_copy(hypertable: str) -> None:
    rows = [(n % 10, NEW_YEAR + dt.timedelta(minutes=n), n / 2) for n in range(5000)]
    with psycopg.connect(hypertable) as connection:
        copy_rows(connection, rows)
        answer = connection.execute("SELECT s, ts, num FROM reading ORDER BY ts").fetchall()
        assert answer == rows
        buckets = connection.execute("SELECT count(DISTINCT time_bucket('15 minutes', ts)) FROM reading").fetchone()
        assert buckets == (334,)
        connection.execute("ALTER TABLE reading SET (timescaledb.compress, timescaledb.compress_segmentby = 's')")
        connection.execute("SELECT compress_chunk(c) FROM show_chunks('reading') c")
        assert connection.execute("SELECT count(*), sum(num) FROM reading").fetchone() == (5000, 6_248_750.0)


def test_a_failed_copy_into_timescale_is_an_error_and_rolls_back(hypertable: str) -> None:
    with psycopg.connect(hypertable) as connection:
        copy_rows(connection, [(1, NEW_YEAR, 1.0)])
        connection.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            copy_rows(connection, [(2, NEW_YEAR, 2.0), (1, NEW_YEAR, 1.5)])
        connection.rollback()
        with pytest.raises(psycopg.errors.UndefinedTable), connection.cursor().copy("COPY nothing FROM STDIN") as copy:
            copy.write("1\n")
        connection.rollback()
        with pytest.raises(ZeroDivisionError), connection.cursor().copy("COPY reading FROM STDIN") as copy:
            copy.write(str(1 / 0))
        connection.rollback()
        assert connection.execute("SELECT s, num FROM reading").fetchall() == [(1, 1.0)]


def test_timescale_takes_many_connections_one_after_the_other_and_at_once(hypertable: str) -> None:
    for n in range(20):
        with psycopg.connect(hypertable) as connection:
            connection.execute("INSERT INTO reading VALUES (%s, %s, 0)", (n, NEW_YEAR))
    with (
        psycopg.connect(hypertable, autocommit=True, prepare_threshold=0) as one,
        psycopg.connect(hypertable, autocommit=True, prepare_threshold=0) as two,
    ):
        for n in range(3):  # both prepare a statement of the same name
            assert one.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
            assert two.execute("SELECT %s::text || '!'", (str(n),)).fetchone() == (f"{n}!",)
        assert one.pgconn.exec_(b"DEALLOCATE ALL").command_status == b"DEALLOCATE ALL"
        assert two.execute("SELECT %s::text || '!'", ("still",)).fetchone() == ("still!",)
        with one.pipeline():
            cursors = [one.execute("SELECT %s::int", (n,)) for n in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
        with pytest.raises(psycopg.errors.DivisionByZero), one.pipeline():
            one.execute("SELECT 1 / %s::int", (0,)).fetchone()
        assert two.execute("SELECT count(*) FROM reading").fetchone() == (20,)


def test_a_transaction_on_timescale_waits_for_the_open_one_and_an_abandoned_one_is_rolled_back(hypertable: str) -> None:
    answers: list[Any] = []
    with psycopg.connect(hypertable, autocommit=True) as other:
        abandoned = psycopg.connect(hypertable)
        abandoned.execute("INSERT INTO reading VALUES (1, %s, 0)", (NEW_YEAR,))
        asking = threading.Thread(
            target=lambda: answers.append(other.execute("SELECT count(*) FROM reading").fetchone())
        )
        asking.start()
        asking.join(0.2)
        assert answers == [], "the other transaction is still open"
        with socket.socket(fileno=abandoned.fileno()) as connection:
            connection.shutdown(socket.SHUT_RDWR)
            connection.detach()
        asking.join(10)
        assert answers == [(0,)]
        abandoned.close()


def test_settings_of_one_timescale_connection_are_gone_when_nobody_is_connected(timescale_url: str) -> None:
    with psycopg.connect(timescale_url, options="-c statement_timeout=5000 -c search_path=public") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)

    def timeout() -> bool:
        with psycopg.connect(timescale_url) as again:
            return again.execute("SHOW statement_timeout").fetchone() == ("0",)

    eventually(timeout)
    with psycopg.connect(timescale_url) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_timescale_gives_an_empty_database(timescale: Timescale) -> None:
    url = timescale.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
        connection.execute("CREATE TABLE t (id serial PRIMARY KEY, ts timestamptz NOT NULL, m mood)")
        connection.execute("CREATE VIEW v AS SELECT * FROM t")
        connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.execute("CREATE SCHEMA own CREATE TABLE inner_table (n int)")
    timescale.drop_database(url)
    url = timescale.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('other')")
        connection.execute("CREATE TABLE t (ts timestamptz NOT NULL)")
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'")
        connection.execute("SELECT create_hypertable('t', by_range('ts'))")
    timescale.drop_database(url)


# --- OPC UA: node-opcua ---------------------------------------------------------------------------------------------


def as_told(value: Any) -> Any:
    """A value that asyncua read, as npm/opcua.mjs writes it."""
    if isinstance(value, list):
        return [as_told(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, uuid.UUID):
        return str(value).upper()
    if isinstance(value, ua.LocalizedText):
        return {"locale": value.Locale, "text": value.Text}
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value


async def test_every_variable_of_node_opcua_is_what_the_server_told(node_opcua_server: NodeOpcUaServer) -> None:
    async with asyncua.Client(node_opcua_server.endpoint) as client:
        assert node_opcua_server.namespace in await client.get_namespace_array()
        for name, told in node_opcua_server.nodes.items():
            read = await client.get_node(told["node_id"]).read_data_value(raise_on_bad_status=False)
            assert read.StatusCode is not None
            assert read.StatusCode.value == told["status"], name
            assert as_told(read.SourceTimestamp) == told["time"], name
            assert read.Value is not None
            if told["status"] >> 30 == 2:
                continue  # bad: there is no value to compare
            assert read.Value.VariantType.name == told["type"], name
            expected = told["value"]
            if told["type"] in {"Int64", "UInt64"}:
                expected = [int(one) for one in expected] if told["array"] else int(expected)
            assert as_told(read.Value.Value) == expected, name
        engineering_range = await client.nodes.objects.get_child(["2:Press", "2:Pressure", "0:EURange"])
        assert await engineering_range.read_value() == ua.Range(Low=-1.0, High=400.5)


async def test_changes_and_events_of_node_opcua_arrive_in_order(node_opcua_server: NodeOpcUaServer) -> None:
    changes: list[tuple[Any, str]] = []
    events: list[tuple[int, str, float, int, str]] = []

    class Handler:
        def datachange_notification(self, _node: Any, value: Any, data: Any) -> None:
            changes.append((value, as_told(data.monitored_item.Value.SourceTimestamp)))

        def event_notification(self, event: Any) -> None:
            events.append((event.CycleNumber, event.PartName, event.CycleTime, event.Severity, event.Message.Text))

    async with asyncua.Client(node_opcua_server.endpoint) as client:
        subscription = await client.create_subscription(50, Handler())
        counter = node_opcua_server.nodes["Counter"]
        await subscription.subscribe_data_change(
            client.get_node(counter["node_id"]), queuesize=100, sampling_interval=0
        )
        source, event_type = (client.get_node(node_opcua_server.first[what]) for what in ("source", "event_type"))
        # a queue size of 0, asyncua's default, is one of 1 on this server
        await subscription.subscribe_events(source, event_type, queuesize=100)
        await eventually_async(lambda: changes == [(0, counter["time"])], what="first value")
        node_opcua_server.run(40)
        await eventually_async(lambda: len(changes) > 10 and len(events) > 10, what="ten changes and events")
        node_opcua_server.run(0)
        node_opcua_server.set("Counter", 4_000_000_000, time="2026-05-06T07:08:09.123Z")
        await eventually_async(lambda: changes[-1] == (4_000_000_000, "2026-05-06T07:08:09.123Z"))
        truth = node_opcua_server.truth
        assert changes[1:] == [(line["value"], line["time"]) for line in truth if "change" in line]
        assert events == [
            tuple(line[field] for field in ("CycleNumber", "PartName", "CycleTime", "severity", "message"))
            for line in truth
            if "event" in line
        ]
        await subscription.delete()


async def test_node_opcua_over_a_proxy_with_password_and_limits(
    tmp_path: Path, fault_proxy: Callable[..., FaultProxy]
) -> None:
    server = NodeOpcUaServer(tmp_path / "pki", limit=10)
    try:
        server.start()
        proxy = fault_proxy(server.port)
        client = asyncua.Client(f"opc.tcp://{HOST}:{proxy.port}/foreign")
        client.set_user(server.first["user"])
        client.set_password(server.first["password"])
        async with client:
            limit = client.get_node(ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead)
            assert await limit.read_value() == 10
            nodes = [client.get_node(told["node_id"]) for told in server.nodes.values()]
            with pytest.raises(ua.UaStatusCodeError):
                await client.read_values(nodes[:11])
            assert proxy.bytes_up > 0
    finally:
        server.stop()
    assert not server.running


# --- Modbus: libmodbus and modbus-serial -----------------------------------------------------------------------------

STRUCT = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q"}
STRUCT |= {"float32": ">f", "float64": ">d"}
READ = {"holding": "read_holding_registers", "input": "read_input_registers"}
READ |= {"coil": "read_coils", "discrete": "read_discrete_inputs"}


async def modbus_read(client: AsyncModbusTcpClient, table: str, address: int, count: int, unit: int = 1) -> list[Any]:
    """The registers or bits; a Modbus exception comes back as its code."""
    response = await getattr(client, READ[table])(address, count=count, device_id=unit)
    if response.isError():
        return [response.exception_code]
    return list(response.registers if table in {"holding", "input"} else response.bits[:count])


def modbus_value(entry: dict[str, Any], registers: list[Any]) -> Any:
    """Undo the order that the map names, by moving each byte to where its letter stands in the alphabet."""
    if entry["type"] == "bool":
        return registers[0]
    wire = b"".join(register.to_bytes(2, "big") for register in registers)
    if entry["type"] == "string":
        text = wire if entry["order"] == "AB" else b"".join(wire[i : i + 2][::-1] for i in range(0, len(wire), 2))
        return text.rstrip(b"\0").decode()
    ordered = bytes(wire[entry["order"].index(letter)] for letter in "ABCDEFGH"[: len(wire)])
    return struct.unpack(STRUCT[entry["type"]], ordered)[0]


@asynccontextmanager
async def modbus_client(port: int) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(HOST, port=port, timeout=1, retries=0, reconnect_delay=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


async def test_every_value_of_libmodbus_is_what_its_map_tells(libmodbus_server: LibmodbusServer) -> None:
    entries = libmodbus_server.map
    assert {"ABCD", "CDAB", "BADC", "DCBA"} <= {entry["order"] for entry in entries.values()}
    async with modbus_client(libmodbus_server.port) as client:
        for name, entry in entries.items():
            if name.startswith("row_"):
                continue
            registers = await modbus_read(client, entry["table"], entry["address"], entry["words"])
            assert modbus_value(entry, registers) == entry["value"], name
        rows = await modbus_read(client, "holding", 200, 125) + await modbus_read(client, "holding", 325, 75)
        assert rows == [3 * n + 1 for n in range(200)]
        assert await modbus_read(client, "holding", 2, 4) == [2], "a hole is an illegal data address"
        assert await modbus_read(client, "input", 2, 2) == [2]
        assert await modbus_read(client, "holding", 399, 2) == [2], "the end of the map"
        assert await modbus_read(client, "holding", 0, 1, unit=7) == [11], "no such unit"


async def test_libmodbus_tells_each_answer_and_obeys_commands(libmodbus_server: LibmodbusServer) -> None:
    counter = libmodbus_server.map["counter"]
    async with modbus_client(libmodbus_server.port) as client, modbus_client(libmodbus_server.port) as second:
        libmodbus_server.set("holding", 0, 17)
        libmodbus_server.set("coil", 0, 0)
        await eventually_async(lambda: len(libmodbus_server.truth) == 2, what="two changes told")
        assert await modbus_read(client, "holding", 0, 2) == [17, 54321]
        assert await modbus_read(second, "coil", 0, 3) == [False, False, True]
        await eventually_async(lambda: len(libmodbus_server.truth) == 4, what="two answers told")
        assert [line["values"] for line in libmodbus_server.truth[2:]] == [[17, 54321], [0, 0, 1]]
        libmodbus_server.count(5)

        async def rolled_over() -> bool:
            registers = await modbus_read(client, "holding", counter["address"], 2)
            return bool(modbus_value(counter, registers) < 1000)

        await eventually_async(rolled_over, what="the counter's roll-over")
    libmodbus_server.stop()
    assert not libmodbus_server.running


async def test_the_units_of_modbus_serial_behave_as_told(modbus_serial_server: ModbusSerialServer) -> None:
    async with modbus_client(modbus_serial_server.port) as client:
        for unit in (1, 2):
            assert await modbus_read(client, "holding", 7, 3, unit) == [1000 * unit + n for n in (7, 8, 9)]
            assert await modbus_read(client, "input", 7, 1, unit) == [1000 * unit + 507]
            assert await modbus_read(client, "coil", 0, 6, unit) == [(unit + n) % 3 == 0 for n in range(6)]
            assert await modbus_read(client, "discrete", 0, 6, unit) == [(unit + n) % 5 == 0 for n in range(6)]
        assert await modbus_read(client, "holding", 45, 10) == [2]
        assert await modbus_read(client, "holding", 0, 1, unit=4) == [6]
        started = time.monotonic()
        assert await modbus_read(client, "holding", 0, 1, unit=3) == [3000]
        assert time.monotonic() - started >= modbus_serial_server.first["slow_ms"] / 1000
        with pytest.raises(ModbusException):
            await modbus_read(client, "holding", 0, 1, unit=9)
        registers = [line for line in modbus_serial_server.truth if line["table"] == "holding" and "values" in line]
        assert [line["values"] for line in registers] == [[1007, 1008, 1009], [2007, 2008, 2009], [3000]]


# --- the proxy that breaks links -----------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back and ends when its client does."""
    listener = socket.create_server((HOST, 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(connection,)))
            threads[-1].start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except ConnectionError:
                return

    server = threading.Thread(target=serve)
    server.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in [server, *threads]:
        thread.join(5)
        assert not thread.is_alive(), "the proxy left a connection to its target open"


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        more = connection.recv(65_536)
        if not more:
            break
        answer += more
    return answer


@pytest.fixture
def proxy(echo: int, fault_proxy: Callable[..., FaultProxy]) -> Iterator[FaultProxy]:
    made = fault_proxy(echo)
    yield made
    made.close()  # before the echo server looks for connections that were left


def test_the_proxy_forwards_and_counts(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4096
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += connection.recv(65_536)
        sender.join()
        assert received == data
        assert proxy.active == 1
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the end of the stream goes through"
    eventually(lambda: proxy.active == 0)
    assert (proxy.connections, proxy.bytes_up, proxy.bytes_down) == (1, len(data), len(data))


def test_a_cut_resets_what_is_open_and_nothing_else(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert proxy.active == 0
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"two") == b"two"
    assert proxy.connections == 2


def test_a_half_open_link_is_silent_and_delivers_late(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.half_open()
        with socket.create_connection((HOST, proxy.port), timeout=0.2) as late:
            for silent in (connection, late):
                silent.settimeout(0.2)
                silent.sendall(b"two")
                with pytest.raises(TimeoutError):
                    silent.recv(1)
            proxy.restore()
            for restored in (connection, late):
                restored.settimeout(5)
                assert restored.recv(3) == b"two"


def test_a_half_open_link_can_be_cut(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.half_open()
        connection.sendall(b"lost")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_refusing_proxy_keeps_what_is_open(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        assert ask(connection, b"one") == b"one"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, proxy.port), timeout=5)
        assert ask(connection, b"two") == b"two"
        proxy.restore()
        with socket.create_connection((HOST, proxy.port), timeout=5) as again:
            assert ask(again, b"three") == b"three"


def test_a_delay_keeps_the_order_and_is_at_least_what_was_asked(proxy: FaultProxy) -> None:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection:
        proxy.delay(0.1)
        started = time.monotonic()
        assert ask(connection, b"one") == b"one"
        assert time.monotonic() - started >= 0.2, "there and back"
        connection.sendall(b"slow ")
        eventually(lambda: proxy.bytes_up >= 8)
        proxy.delay(0)
        assert ask(connection, b"fast ") == b"slow "
        assert connection.recv(5) == b"fast "


def test_a_target_that_refuses_is_an_ended_connection(fault_proxy: Callable[..., FaultProxy]) -> None:
    proxy = fault_proxy(free_port())
    with socket.create_connection((HOST, proxy.port), timeout=5) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    eventually(lambda: proxy.active == 0)


async def test_the_proxy_serves_a_test_that_has_a_loop_of_its_own(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(b"one")
    assert await reader.readexactly(3) == b"one"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
