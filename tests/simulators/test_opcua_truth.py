"""What an OPC UA client gets from a simulated device is what the device wrote down before, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from simulators.device import DeviceSettings
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.opcua._values import microseconds, plain
from simulators.truth import TruthLog, read_truth, tag, untag
from tests.simulators.opcua_client import Raw, connected


@pytest.fixture(params=sorted(FACTORIES))
async def device(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpcUaDevice]:
    name: str = request.param
    # alerts of the machine tool are minutes apart
    speed = 600.0 if name == "mt-01" else 60.0
    settings = DeviceSettings(name, TruthLog.in_directory(tmp_path, name), seed=3, speed=speed)
    made = FACTORIES[name].create(settings)
    assert isinstance(made, OpcUaDevice)
    await made.start("127.0.0.1", 0)
    yield made
    await made.stop()


def only(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("device", [name], indirect=True)


def truth(device: OpcUaDevice, tmp_path: Path) -> list[dict[str, Any]]:
    return list(read_truth(tmp_path / f"{device.id}.ndjson"))


async def _collect(raw: Raw, device: OpcUaDevice, publishes: int) -> list[tuple[Any, ...]]:
    """Subscribe to every variable; (node, value, status, source, server, sequence) of what came in *publishes* answers."""
    subscription = await raw.subscribe()
    nodes = list(device.variables.values())
    for start in range(0, len(nodes), 10):
        part = nodes[start : start + 10]
        results = await raw.monitor(subscription, part)
        assert all(result.StatusCode.is_good() for result in results)
    got: list[tuple[Any, ...]] = []
    for _ in range(publishes):
        result = await raw.publish()
        message = result.NotificationMessage
        for notification in message.NotificationData:
            for item in notification.MonitoredItems:
                value = item.Value
                got.append((
                    plain(value.Value.Value, raw.namespaces), value.StatusCode.value,
                    microseconds(value.SourceTimestamp), microseconds(value.ServerTimestamp), message.SequenceNumber,
                ))  # fmt: skip
    return got


async def test_every_notification_is_in_the_truth_and_nothing_else(device: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(device.endpoint) as raw:
        got = await _collect(raw, device, 12)
        records = [record for record in truth(device, tmp_path) if record["kind"] == "value"]
    assert len(got) > len(device.variables), "the process changed nothing"
    assert got == [
        (untag(tag(r["value"])), r["status"], r["source_ts"], r["server_ts"], r["sequence"]) for r in records
    ]
    assert {record["node"] for record in records} == set(device.variables.values())
    assert all(record["t"] >= record["source_ts"] for record in records)


async def test_reads_are_in_the_truth_with_the_servers_time(device: OpcUaDevice, tmp_path: Path) -> None:
    nodes = list(device.variables.values())[:10]
    async with connected(device.endpoint) as raw:
        values = await raw.read(*nodes)
        records = [r for r in truth(device, tmp_path) if r["kind"] == "read" and r["node"] in nodes]
    assert [plain(value.Value.Value, raw.namespaces) for value in values] == [r["value"] for r in records]
    assert [microseconds(value.ServerTimestamp) for value in values] == [r["server_ts"] for r in records]
    assert [microseconds(value.SourceTimestamp) for value in values] == [r["source_ts"] for r in records]
    assert all(r["server_ts"] >= r["source_ts"] for r in records)


@only("imm-01")
async def test_cycle_parameters_come_as_events_only(device: OpcUaDevice, tmp_path: Path) -> None:
    fields = [
        ("0:EventId",), ("0:EventType",), ("0:Time",), ("3:JobCycleCounter",), ("3:CycleTime",),
        ("4:InjectionUnitCycleParameters_1", "4:CushionVolume"), ("3:CavityCycleQuality",), ("4:JobCycleCounter",),
    ]  # fmt: skip
    async with connected(device.endpoint) as raw:
        subscription = await raw.subscribe()
        abstract = "nsu=http://www.euromap.org/euromap83/;i=1038"
        result = await raw.monitor_events(subscription, "i=2253", abstract, fields)
        assert result.StatusCode.is_good()
        events = await raw.fired(subscription, 5)
    records = {r["event_id"]: r for r in truth(device, tmp_path) if r["kind"] == "event"}
    counts = [event[3] for event in events]
    assert counts == list(range(counts[0], counts[0] + len(counts))), "cycles are counted one by one"
    for identifier, kind, time, count, seconds, cushion, cavities, wrong in events:
        record = records[identifier.hex()]
        assert record["type"] == "nsu=http://guantong.example/imm/;i=1001"
        assert plain(kind, raw.namespaces) == record["type"]
        assert record["source_ts"] == microseconds(time)
        assert record["fields"]["JobCycleCounter"] == count
        assert record["fields"]["CycleTime"] == seconds
        assert 5_000 < seconds < 60_000, "a duration is in milliseconds"
        assert record["fields"]["InjectionUnitCycleParameters_1/CushionVolume"] == cushion
        assert record["fields"]["CavityCycleQuality"] == cavities
        assert wrong is None, "a field in another namespace is another field"
    assert not any("CushionVolume" in path or "CycleQuality" in path for path in device.variables)


@only("imm-01")
async def test_counters_are_unsigned_64_bit_and_the_event_agrees_with_them(device: OpcUaDevice) -> None:
    async with connected(device.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor_events(
            subscription, "nsu=http://guantong.example/imm/;s=IMM_GUANTONG_0000001",
            "nsu=http://www.euromap.org/euromap83/;i=1038",
            [("3:JobCycleCounter",), ("3:JobGoodPartsCounter",), ("3:JobBadPartsCounter",),
             ("3:JobTestSamplesCounter",), ("3:JobPartsCounter",)],
        )  # fmt: skip
        events = await raw.fired(subscription, 4)
        node = device.variables["Jobs/ActiveJobValues/JobCycleCounter"]
        (value,) = await raw.read(node)
    assert value.Value.VariantType == ua.VariantType.UInt64
    assert value.Value.Value >= events[-1][0]
    for _, good, bad, test, parts in events:
        assert good + bad + test == parts


@only("mt-01")
async def test_an_alert_is_a_condition_that_comes_and_goes(device: OpcUaDevice, tmp_path: Path) -> None:
    fields = [(), ("5:ErrorCode",), ("0:ActiveState", "0:Id"), ("0:Retain",), ("0:Message",)]
    async with connected(device.endpoint) as raw:
        subscription = await raw.subscribe()
        alert = "nsu=http://opcfoundation.org/UA/MachineTool/;i=39"
        await raw.monitor_events(subscription, "i=2253", alert, fields)
        events = await raw.fired(subscription, 4, seconds=60)
    states = [(plain(condition, raw.namespaces), active) for condition, _, active, _, _ in events]
    assert [active for _, active in states] == [True, False, True, False]
    assert states[0][0] == states[1][0]
    assert all(retain == active for _, _, active, retain, _ in events)
    ids = {r["fields"]["ConditionId"] for r in truth(device, tmp_path) if r["kind"] == "event"}
    assert ids == {condition for condition, _ in states}


@only("plc-01")
async def test_types_are_those_of_the_plc(device: OpcUaDevice) -> None:
    wanted = {
        "State": "Int32", "Running": "Boolean", "Placed": "UInt32", "CycleTime": "Float", "CycleTimeAvg": "Double",
        "CabinetTemp": "Int16", "EnergyWh": "Int64", "Runtime": "UInt64", "FaultCode": "UInt16", "StationTime": "Float",
    }  # fmt: skip
    async with connected(device.endpoint) as raw:
        nodes = [f'nsu=http://www.siemens.com/simatic-s7-opcua;s="DB_Line"."{name}"' for name in wanted]
        values = await raw.read(*nodes)
        (data_type,) = await raw.read(nodes[0], attribute=ua.AttributeIds.DataType)
        texts = await raw.client.get_node(data_type.Value.Value).get_child("0:EnumValues")
        members = await texts.read_value()
    assert [value.Value.VariantType.name for value in values] == list(wanted.values())
    assert len(values[-1].Value.Value) == 8
    assert [member.DisplayName.Text for member in members][:3] == ["OFF", "STARTING", "RUNNING"]


@only("plc-01")
async def test_up_and_down_frame_the_truth_and_open_sessions_are_counted(device: OpcUaDevice, tmp_path: Path) -> None:
    assert (device.sessions, device.subscriptions) == (0, 0)
    async with connected(device.endpoint) as raw:
        await raw.subscribe()
        assert (device.sessions, device.subscriptions) == (1, 1)
        counted = await raw.read("i=2277", "i=2285")
        assert [value.Value.Value for value in counted] == [1, 1]
    assert (device.sessions, device.subscriptions) == (0, 0)
    await device.stop()
    await device.stop()
    records = truth(device, tmp_path)
    assert (records[0]["kind"], records[0]["reason"]) == ("up", "start")
    assert (records[-1]["kind"], records[-1]["reason"]) == ("down", "stop")


def test_the_log_keeps_what_json_cannot_say(tmp_path: Path) -> None:
    log = TruthLog(tmp_path / "deep" / "x.ndjson", "x")
    values = [math.inf, -math.inf, b"\x00\xff", 2**64 - 1, -(2**63), "贯通", [1.5, math.nan], True, None]
    log.write("value", value=values)
    log.close()
    log.write("value", value=1)
    (record,) = read_truth(tmp_path / "deep" / "x.ndjson")
    assert repr(record["value"]) == repr(values)
    assert record["device"] == "x"


def test_a_torn_last_line_is_left_out_and_a_broken_one_named(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(json.dumps({"kind": "up"}).encode() + b'\n{"kind": "va')
    assert [record["kind"] for record in read_truth(path)] == ["up"]
    path.write_bytes(b'{"kind": "up"}\nnonsense\n{"kind": "down"}\n')
    with pytest.raises(ValueError, match=r"x\.ndjson, line 2"):
        list(read_truth(path))
