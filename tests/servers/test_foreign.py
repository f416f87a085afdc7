"""The foreign servers, with asyncua and pymodbus as clients: what a client reads is what the server told."""

from __future__ import annotations

import base64
import datetime as dt
import math
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncua
import pytest
from asyncua import ua
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import LibmodbusServer, ModbusSerialServer, NodeOpcUaServer
from tests.servers.processes import HOST
from tests.servers.waiting import eventually_async


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
