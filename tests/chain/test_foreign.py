"""Servers that are not ours, read by the same gateway with nothing but YAML, through to the store and the REST API."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.store.records import Reading
from tests.chain.conftest import InstallationFactory
from tests.chain.installation import Installation
from tests.chain.rest import latest_agrees, rest_value
from tests.chain.truth import same
from tests.servers.foreign import LibmodbusServer, NodeOpcUaServer
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(90)]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OPCUA_TYPES = {
    "Boolean": "bool", "SByte": "int8", "Byte": "uint8", "Int16": "int16", "UInt16": "uint16", "Int32": "int32",
    "UInt32": "uint32", "Int64": "int64", "UInt64": "uint64", "Float": "float32", "Double": "float64",
    "String": "string", "DateTime": "datetime", "Guid": "string", "ByteString": "bytes", "LocalizedText": "string",
}  # fmt: skip
ORDERS = {"AB": "ABCD", "BA": "BADC", "ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "": "ABCD"}


def microseconds(iso: str) -> int:
    return (datetime.fromisoformat(iso) - EPOCH) // timedelta(microseconds=1)


def rows_of(gateway: Installation, device: str) -> dict[str, list[Reading]]:
    """All stored readings of a device, by signal."""
    names = {signal.id: signal.name for signal in gateway.reader.signals() if signal.device == device}
    found: dict[str, list[Reading]] = {name: [] for name in names.values()}
    for piece in gateway.reader.history(list(names)):
        for row in piece:
            found[names[row.signal]].append(row)
    return found


def wait_for(gateway: Installation, device: str, there: Callable[[dict[str, list[Reading]]], bool], what: str) -> None:
    """Until the stored readings are as they should be."""
    eventually(lambda: bool(gateway.complete_to()), 30, what="anything is stored", interval=0.1)
    eventually(lambda: there(rows_of(gateway, device)), 30, what=what, interval=0.1)


# ------------------------------------------------------------------------------------------------------------- OPC UA


def told_value(told: dict[str, Any]) -> Any:
    """A value that node-opcua told of itself, as it should be stored."""
    value, kind = told["value"], told["type"]
    if told["status"] >> 30 >= 2:
        return None
    if kind in ("Int64", "UInt64"):
        return [int(one) for one in value] if told["array"] else int(value)
    if kind == "DateTime":
        return microseconds(value)
    if kind == "Guid":
        return value.lower()
    if kind == "ByteString":
        return base64.b64decode(value)
    if kind == "LocalizedText":
        return value["text"]
    if kind in ("Double", "Float") and not told["array"]:
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value) or float(value)
    if kind == "Double":
        return [float(one) for one in value]
    return value


def opcua_link(server: NodeOpcUaServer) -> dict[str, Any]:
    """What somebody would write for this server."""
    signals = [
        {
            "name": name.lower(),
            "type": "array" if node["array"] else OPCUA_TYPES[node["type"]],
            "address": {"node": f"nsu={server.namespace};{node['node_id'].split(';', 1)[1]}"},
        }
        for name, node in server.nodes.items()
    ]
    event = {
        "name": "cycle",
        "type": f"nsu={server.namespace};i=2001",
        "notifier": f"nsu={server.namespace};{server.first['source'].split(';', 1)[1]}",
        "fields": {
            "number": {"path": "press:CycleNumber"},
            "part": {"path": "press:PartName"},
            "time": {"path": "press:CycleTime"},
        },
    }
    device = {
        "id": "press", "rules": {"namespaces": {"press": server.namespace}}, "groups": {"default": {"period": "200ms"}},
        "signals": signals, "events": [event],
    }  # fmt: skip
    settings = {"endpoint": server.endpoint, "security": "none"}
    return {"id": "foreign", "adapter": "opcua", "settings": settings, "devices": [device]}


def test_an_opcua_server_made_with_node_opcua(install: InstallationFactory, node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    gateway = install([opcua_link(server)])
    gateway.start()
    wait_for(gateway, "press", lambda rows: bool(rows) and all(rows.values()), "a reading of each signal")
    types = {signal.name: signal.type for signal in gateway.reader.signals()}
    for name, told in server.nodes.items():
        (row,) = rows_of(gateway, "press")[name.lower()]
        if told["value"] is None and told["status"] == 0:
            continue  # a null text: compared below
        assert same(row.value, told_value(told)), (name, row)
        assert (row.ts, row.status) == (microseconds(told["time"]), told["status"]), name
        assert types[name.lower()] == ("array" if told["array"] else OPCUA_TYPES[told["type"]])
    (null,) = rows_of(gateway, "press")["stringnull"]
    assert null.value is None

    for value in range(1, 8):
        server.set("Counter", value)
    wait_for(gateway, "press", lambda rows: rows["counter"][-1].value == 7, "the last count")
    for number in (5, 6):
        server.fire(number)
    changes = [line for line in server.truth if line.get("change") == "Counter"]
    served = {(microseconds(line["time"]), line["value"]) for line in changes} | {
        (microseconds(server.nodes["Counter"]["time"]), 0)
    }
    assert {(row.ts, row.value) for row in rows_of(gateway, "press")["counter"]} <= served
    eventually(lambda: len(gateway.reader.events(devices=["press"])) == 2, 15, what="two events", interval=0.1)
    fired = [line for line in server.truth if "event" in line]
    for event, told in zip(gateway.reader.events(devices=["press"]), fired, strict=True):
        assert event.fields == {
            "number": told["CycleNumber"],
            "part": told["PartName"],
            "time": told["CycleTime"],
            "event_type": f"nsu={server.namespace};i=2001",
        }
        assert event.severity == told["severity"]
        assert told["message"] in (event.message_zh, event.message_en)

    gateway.serving()
    _rest_says_the_same(gateway, "press")


def _rest_says_the_same(gateway: Installation, device: str) -> None:
    """`latest` and `history` over REST are what the store has."""
    rows = rows_of(gateway, device)

    assert latest_agrees(gateway) == len(rows)
    for name, some in rows.items():
        history = gateway.get(f"/signals/{device}/{name}/history")["readings"]
        assert [(microseconds(reading["ts"]), reading["status"]) for reading in history] == [
            (row.ts, row.status) for row in some
        ]
        assert all(same(reading["value"], rest_value(row.value)) for reading, row in zip(history, some, strict=True))


# ------------------------------------------------------------------------------------------------------------- Modbus


def modbus_link(server: LibmodbusServer) -> dict[str, Any]:
    """What somebody would write for this server."""
    signals = []
    for entry in server.map.values():
        address = {"table": entry["table"], "address": entry["address"], "type": entry["type"]}
        if entry["type"] != "bool":
            address["order"] = ORDERS.get(entry["order"], entry["order"])
        if entry["type"] == "string":
            address["length"] = entry["words"]
        signals.append({"name": entry["name"], "type": entry["type"], "address": address})
    device = {
        "id": "rack", "settings": {"unit": 1}, "groups": {"default": {"period": "100ms"}}, "signals": signals,
    }  # fmt: skip
    return {
        "id": "foreign",
        "adapter": "modbus",
        "settings": {"host": server.host, "port": server.port},
        "devices": [device],
    }


def test_a_modbus_server_made_with_libmodbus(install: InstallationFactory, libmodbus_server: LibmodbusServer) -> None:
    server = libmodbus_server
    gateway = install([modbus_link(server)])
    gateway.start()
    wait_for(gateway, "rack", lambda rows: bool(rows) and all(rows.values()), "a reading of each signal")
    types = {signal.name: signal.type for signal in gateway.reader.signals()}
    for name, entry in server.map.items():
        (row,) = rows_of(gateway, "rack")[name]
        assert same(row.value, entry["value"]), (name, row)
        assert row.status == 0
        assert types[name] == entry["type"]

    server.count(20)
    wait_for(gateway, "rack", lambda rows: 20 < rows["counter"][-1].value < 10_000, "the counter has rolled over")
    server.count(0)
    answers = [
        (line["time"], line["values"][1] << 16 | line["values"][0])
        for line in server.truth
        if line.get("address") == server.map["counter"]["address"] and "values" in line
    ]
    rows = rows_of(gateway, "rack")["counter"]
    assert len(rows) > 5
    assert rows[0].value >= 4_294_967_290
    for row in rows:
        time, value = max((answer for answer in answers if answer[0] <= row.ts), default=(0, None))
        assert row.value == value, (row, time)
        assert row.ts - time < 1_000_000, "stamped when the answer came"
    gateway.serving()
    eventually(lambda: _settled(gateway, server), 10, what="the last count is served", interval=0.1)
    _rest_says_the_same(gateway, "rack")


def _settled(gateway: Installation, server: LibmodbusServer) -> bool:
    """The counter stands still, and its last value is stored."""
    told = [
        line["values"]
        for line in server.truth
        if line.get("address") == server.map["counter"]["address"] and "values" in line
    ]
    last = told[-1][1] << 16 | told[-1][0]
    return bool(told[-1] == told[-2]) and rows_of(gateway, "rack")["counter"][-1].value == last
