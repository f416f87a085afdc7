"""The adapter against a stack that is not asyncua: node-opcua."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import math
from pathlib import Path
from typing import Any

import pytest

from adapters.contract import AuthError, DeviceEvent, Samples
from schemas.profile import EventClause, EventField
from schemas.wire import Flag
from tests.adapters.opcua_collector import Collector, device, link
from tests.adapters.opcua_host import Host
from tests.adapters.opcua_host import device as rows_of
from tests.adapters.opcua_server import write_certificates
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import NodeOpcUaServer

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def microseconds(iso: str) -> int:
    return (dt.datetime.fromisoformat(iso) - EPOCH) // dt.timedelta(microseconds=1)


def expected(told: dict[str, Any]) -> Any:
    """A value that the server told, as the adapter gives it."""
    value, kind = told["value"], told["type"]
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
    if kind == "Double" and isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value]
    return value


def same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))


async def test_values_times_statuses_and_events(node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    index = int(server.first["event_type"].split(";")[0].removeprefix("ns="))
    names = list(server.nodes)
    addresses = [f"nsu={server.namespace};{server.nodes[name]['node_id'].split(';', 1)[1]}" for name in names]
    clause = EventClause(
        name="cycle/end",
        type=f"nsu={server.namespace};i=2001",
        notifier=server.first["source"],
        fields={
            "number": EventField(path="p:CycleNumber"),
            "part": EventField(path=f"{index}:PartName"),
            "time": EventField(path="p:CycleTime"),
        },
    )
    both = device([*addresses, f"nsu={server.namespace};i=1030"], events=(clause,), namespaces={"p": server.namespace})
    async with Collector(link(server.endpoint, both), ack=False) as host:
        await host.until(lambda: all(host.rows(i) for i in range(len(names) + 1)))
        for i, name in enumerate(names):
            told, (row, *again) = server.nodes[name], host.rows(i)
            for other in again:  # NaN comes again with each sample, see below
                assert name == "DoubleNaN"
                assert (other["source"], other["status"]) == (row["source"], row["status"]), (name, row, other)
                assert same(other["value"], row["value"]), (name, row, other)
            assert row["status"] == told["status"], name
            assert row["source"] == microseconds(told["time"]), name
            assert row["flags"] == Flag.INITIAL, name
            if told["status"] >> 30 != 2:
                assert same(row["value"], expected(told)), name
        assert host.last(len(names)) == 210.5

        counter = names.index("Counter")
        begin = len(host.rows(counter))
        for value in (1, 2, 3):
            server.set("Counter", value)
            await host.until(lambda: host.last(counter) == value)  # noqa: B023  waited for within the turn
        truth = [line for line in server.truth if line.get("change") == "Counter"]
        rows = host.rows(counter)[begin:]
        assert [(row["value"], row["source"]) for row in rows] == [
            (line["value"], microseconds(line["time"])) for line in truth
        ]

        for number in (7, 8):
            server.fire(number)
        await host.until(lambda: len(host.of(DeviceEvent)) == 2)
        await host.until(lambda: sum("event" in line for line in server.truth) == 2)
        for event, told in zip(host.of(DeviceEvent), (t for t in server.truth if "event" in t), strict=True):
            assert event.fields == {"number": told["CycleNumber"], "part": told["PartName"], "time": told["CycleTime"]}
            assert (event.message, event.severity) == (told["message"], told["severity"])
            assert event.type == f"nsu={server.namespace};i=2001"

        tokens = [token for item in host.items if (token := getattr(item, "token", None)) is not None]
        for token in tokens:
            host.adapter.ack(token)
        before = len(host.of(Samples))
        await host.until(lambda: len(host.of(Samples)) >= before + 3)
        assert host.adapter.counters().errors == {}  # every acknowledgement was known to the server
        marks = [item.complete_to for item in host.of(Samples) if item.complete_to is not None]
        assert len(marks) >= 3
        assert marks == sorted(marks)

        found = {each.path: each async for each in host.adapter.browse(server.first["source"])}
        assert found["p:UInt64Max"].value == 2**64 - 1
        assert found["p:UInt64Max"].type == "UInt64"


async def test_a_value_that_is_no_number_is_one_reading(node_opcua_server: NodeOpcUaServer) -> None:
    """node-opcua compares NaN with NaN, finds a change at each sample, and tells it again with the same source time."""
    server = node_opcua_server
    nodes = [f"nsu={server.namespace};i={number}" for number in (1013, 1020)]
    async with Host(server.endpoint, rows_of(nodes, type="float64")) as host:
        await host.until(lambda: all(host.rows().values()))
        came = host.host.counters().values
        await host.until(lambda: host.host.counters().values >= came + 10)
        server.set("Counter", 7)
        await host.until(lambda: host.last_value(1) == 7)
        ((_, value),) = host.rows()[0]
        assert math.isnan(value)
        assert host.gaps() == []


async def test_browsing_in_small_pieces(node_opcua_server: NodeOpcUaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.opcua._browse._PER_NODE", 4)
    async with Collector(link(node_opcua_server.endpoint, device())) as host:
        requests = host.adapter.counters().requests
        found = [each async for each in host.adapter.browse(node_opcua_server.first["source"])]
        assert len(found) == len(node_opcua_server.nodes) + 1
        assert host.adapter.counters().requests - requests > len(found) / 4  # BrowseNext


async def test_limits_of_ten_a_call(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = NodeOpcUaServer(tmp_path_factory.getbasetemp() / "node-opcua", limit=10)
    await asyncio.to_thread(server.start)
    try:
        names = list(server.nodes)
        addresses = [f"p:Press/p:{name}" for name in names]
        spec = link(server.endpoint, device(addresses, namespaces={"p": server.namespace}))
        async with Collector(spec) as host:
            await host.until(lambda: all(host.rows(i) for i in range(len(names))))
            assert not host.troubles()
            read = await host.adapter.read(range(len(names)))
            assert [status >> 30 for status in read.status or ()].count(2) == 1
            assert host.adapter.counters().errors == {}
    finally:
        await asyncio.to_thread(server.kill)


async def test_cut_and_restart(node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    address = f"nsu={server.namespace};i=1020"
    with FaultProxy(server.port) as proxy:
        endpoint = server.endpoint.replace(str(server.port), str(proxy.port))
        host = Collector(link(endpoint, device([address])))
        for value in range(1, 6):
            server.set("Counter", value)
            await host.connect()
            await host.until(lambda: host.last(0) == value)  # noqa: B023  waited for within the turn
            await asyncio.to_thread(proxy.cut)
            await host.fails()
            await host.disconnect()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with host:
            await host.until(lambda: host.last(0) == 0)
            server.set("Counter", 77)
            await host.until(lambda: host.last(0) == 77)


async def test_encrypted_with_user(node_opcua_server: NodeOpcUaServer, tmp_path: Path) -> None:
    server = node_opcua_server
    certificate, key = await asyncio.to_thread(write_certificates, tmp_path, "urn:test:client", "client")
    (pinned,) = (server.folder / "server" / "own" / "certs").glob("*.pem")
    security = {
        "policy": "Basic256Sha256", "certificate": certificate, "key": key, "server_certificate": pinned,
    }  # fmt: skip
    spec = link(
        server.endpoint, device([f"nsu={server.namespace};i=1020"]), security=security, user="operator",
        password=server.first["password"],
    )  # fmt: skip
    async with Collector(spec) as host:
        server.set("Counter", 5)
        await host.until(lambda: host.last(0) == 5)
    wrong = link(server.endpoint, device(), security=security, user="operator", password="guess")
    with pytest.raises(AuthError) as caught:
        await Collector(wrong).adapter.connect()
    assert caught.value.reason in ("identity_rejected", "access_denied")
