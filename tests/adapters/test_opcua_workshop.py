"""The shipped profiles on the simulated machines: what the adapter yields is what the machine wrote into its truth log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.contract import DeviceEvent, DeviceSpec, EventTrouble, LinkSpec, Point
from adapters.opcua import DeviceSettings
from adapters.opcua._addresses import node_text
from schemas.library import load_profile
from schemas.profile import OpcUaAddress, OpcUaRules
from simulators.device import DeviceSettings as SimulatorSettings
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.truth import TruthLog, read_truth, tag, untag
from tests.adapters.opcua_collector import Collector, link

PROFILES = {"imm-01": "euromap77-injection", "mt-01": "opc40501-machinetool", "plc-01": "siemens-s7-1500-line"}


@pytest.fixture
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpcUaDevice]:
    name: str = request.param
    settings = SimulatorSettings(name, TruthLog.in_directory(tmp_path, name), seed=5, speed=60.0)
    made = FACTORIES[name].create(settings)
    assert isinstance(made, OpcUaDevice)
    await made.start("127.0.0.1", 0)
    yield made
    await made.stop()


def spec(machine: OpcUaDevice) -> LinkSpec:
    """The machine with its profile, all groups at 200 ms."""
    profile = load_profile(PROFILES[machine.id])
    points = tuple(
        Point(i, machine.id, signal.name, signal.group, OpcUaAddress.model_validate(signal.address), signal.type)
        for i, signal in enumerate(profile.signals)
    )
    rules = OpcUaRules.model_validate(profile.rules)
    groups = dict.fromkeys(profile.groups, 0.2)
    return link(
        machine.endpoint, DeviceSpec(machine.id, DeviceSettings(), rules, groups, points, profile.events), heartbeat=1.0
    )


@pytest.mark.parametrize("machine", sorted(PROFILES), indirect=True)
async def test_nothing_else_and_nothing_less_than_the_truth(machine: OpcUaDevice, tmp_path: Path) -> None:
    link_spec = spec(machine)
    count = len(link_spec.devices[0].points)
    events = bool(link_spec.devices[0].events)
    async with Collector(link_spec) as host:
        await host.until(lambda: all(host.rows(i) for i in range(count)), 30.0)
        await host.until(lambda: sum(len(host.rows(i)) for i in range(count)) > 2 * count, 30.0)
        if events and machine.id == "imm-01":
            await host.until(lambda: len(host.of(DeviceEvent)) >= 2, 30.0)
        assert not host.troubles()
        assert not host.of(EventTrouble)
        assert not host.lost()
        adapter_link: Any = host.adapter._link
        namespaces = adapter_link.session.namespaces
        nodes = {node_text(adapter_link.node_of(i), namespaces): i for i in range(count)}
    records = list(read_truth(tmp_path / f"{machine.id}.ndjson"))
    told: dict[int, list[Any]] = defaultdict(list)
    for record in records:
        if record["kind"] == "value" and record["node"] in nodes:
            told[nodes[record["node"]]].append((untag(tag(record["value"])), record["status"], record["source_ts"]))
    for point in range(count):
        got = [(row["value"], row["status"], row["source"]) for row in host.rows(point)]
        # the last notification may have been on its way when the session was closed
        assert told[point][: len(got)] == got, link_spec.devices[0].points[point].signal
        assert len(told[point]) - len(got) <= 1
    _compare_events(host.of(DeviceEvent), link_spec.devices[0], records)
    assert host.adapter.counters().errors == {}


def _compare_events(events: list[DeviceEvent], device: DeviceSpec, records: list[dict[str, Any]]) -> None:
    told = {record["event_id"]: record for record in records if record["kind"] == "event"}
    clauses = {clause.name: clause for clause in device.events}
    for event in events:
        record = told[event.event_id]
        assert (event.type, event.source_ts) == (record["type"], record["source_ts"])
        assert event.message == record["fields"]["Message"]
        for name, selected in clauses[event.clause].fields.items():
            path = "/".join(part.rpartition(":")[2] for part in selected.path.split("/"))
            assert event.fields[name] == untag(tag(record["fields"].get(path))), (event.clause, name)
