"""Alarms and conditions: refreshed after each subscribe, told once, ended when they are no more; against node-opcua's own alarms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.contract import DeviceEvent
from adapters.opcua._conditions import END, REQUIRED, START, Conditions
from schemas.profile import EventClause, EventField
from tests.adapters.foreign_reading import ReadingServer
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import SmallServer
from tests.servers.fault_proxy import FaultProxy

ALARM = EventClause(name="alarm/level", type="i=2915", kind="alarm")


def event(kind: str = "i=9341", condition: str | None = "c", **more: Any) -> DeviceEvent:
    fields = {"retain": more.pop("retain", True), **({"branch": b} if (b := more.pop("branch", None)) else {})}
    made = {
        "received": 10,
        "source_ts": 5,
        "severity": 500,
        "message": "high",
        "event_id": "01",
        "state": "active,unacked",
        **more,
    }
    return DeviceEvent("press", "alarm/level", type=kind, condition=condition, fields=fields, **made)


def test_a_refresh_repeats_nothing_and_tells_what_is_new() -> None:
    conditions = Conditions()
    first = event()
    assert conditions.take(first) == [first]
    assert conditions.take(first) == []  # sent again by Republish
    assert conditions.take(event(START)) == []
    assert conditions.take(event()) == []
    assert conditions.take(event(event_id="02")) == []  # refreshed under another id, the same state
    changed = event(condition="d", event_id="03")
    assert conditions.take(changed) == [changed]
    branch = event(branch="b1", event_id="04")
    assert conditions.take(branch) == [branch]
    assert conditions.take(event(END)) == []
    acked = event(event_id="05", state="active,acked")
    assert conditions.take(acked) == [acked]
    same_again = event(event_id="06", state="active,acked")
    assert conditions.take(same_again) == [same_again]  # not in a refresh: it happened


def test_what_a_refresh_does_not_have_any_more_has_ended() -> None:
    conditions = Conditions()
    conditions.take(event(state="active,unacked,unconfirmed"))
    conditions.take(event(condition="d", event_id="02"))
    gone = event(condition="e", event_id="03", retain=False)
    assert conditions.take(gone) == [gone]
    conditions.take(event(START))
    conditions.take(event(condition="d", event_id="02"))
    (ended,) = conditions.take(event(END, received=99, source_ts=98))
    assert (ended.condition, ended.state) == ("c", "inactive,unacked,unconfirmed")
    assert ended.fields == {"retain": False, "inferred": True}
    assert (ended.received, ended.source_ts, ended.event_id) == (99, 98, "")
    conditions.take(event(START))
    assert [e.condition for e in conditions.take(event(END))] == ["d"]
    assert conditions.take(event(END)) == []


def test_an_interrupted_refresh_ends_nothing() -> None:
    conditions = Conditions()
    conditions.take(event())
    conditions.take(event(START))
    conditions.interrupted()
    assert conditions.take(event(END)) == []
    asked: list[int] = []
    conditions.ask = lambda: asked.append(1)
    assert conditions.take(event(REQUIRED)) == []
    conditions.lost()
    assert asked == [1, 1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingServer]:
    running = ReadingServer(tmp_path_factory.getbasetemp() / "node-opcua-reading")
    running.start()
    yield running
    running.stop()


def states(host: Collector) -> list[str | None]:
    return [each.state for each in host.of(DeviceEvent)]


async def test_alarms_of_node_opcua(server: ReadingServer) -> None:
    fields = {
        "limit": EventField(path="LimitState/CurrentState", of="i=9341"),
        "high": EventField(path="HighLimit", of="i=2955"),
    }
    clause = ALARM.model_copy(update={"fields": fields})
    host = Collector(link(server.endpoint, device([server.node(1)], events=(clause,))))
    async with host:
        await host.until(lambda: host.rows(0))
        assert not states(host)
        server.do(value=85)
        await host.until(lambda: states(host))
        (high,) = host.of(DeviceEvent)
        assert high.state == "active,unacked,unconfirmed"
        assert high.condition == f"nsu={server.first['namespace']};s=LevelAlarm"
        assert high.fields["condition_name"] == "Level"
        assert high.fields["source"].endswith("Press")  # "1:Press" of node-opcua
        assert high.fields["retain"] is True
        assert high.fields["limit"] == "High"
        assert high.fields["high"] == 80
        assert high.type == "i=9341"
        assert high.severity > 0
        assert high.message
    # the alarm is still there: nothing new
    async with host:
        requests = host.adapter.counters().requests
        await host.until(lambda: host.adapter._link.monitored.refresher.supported)  # type: ignore[union-attr]
        server.do(value=95)
        await host.until(lambda: states(host))
        assert [e.fields["limit"] for e in host.of(DeviceEvent)] == ["HighHigh"]
        assert host.adapter.counters().requests > requests
    # another gateway hears of it, since it is asked for
    async with Collector(link(server.endpoint, device(events=(ALARM,)))) as other:
        await other.until(lambda: states(other))
        assert other.of(DeviceEvent)[0].event_id == host.adapter._conditions["device press: event alarm/level"]._known[
            (high.condition, None)
        ].event_id  # fmt: skip
    # it ends while nobody is connected, and nobody is told
    server.do(retire=True)
    async with host:
        await host.until(lambda: states(host))
        (ended,) = host.of(DeviceEvent)
        assert ended.state == "inactive,unacked,unconfirmed"
        assert ended.fields["inferred"] is True
    assert host.adapter.counters().errors == {}


async def test_a_server_without_conditions_stays_fine() -> None:
    with SmallServer() as server:
        async with Collector(link(server.endpoint, device([node("v0")], events=(ALARM,)))) as host:
            await host.until(lambda: host.rows(0))
            await host.until(lambda: host.adapter._link.monitored.refresher.supported is False)  # type: ignore[union-attr]
            server.write("v0", 77)
            await host.until(lambda: host.last(0) == 77)
            assert host.error is None


async def test_an_alarm_that_changes_while_the_link_is_cut_comes_once(server: ReadingServer) -> None:
    clause = ALARM.model_copy(update={"fields": {"limit": EventField(path="LimitState/CurrentState", of="i=9341")}})
    with FaultProxy(server.port) as proxy:
        endpoint = server.endpoint.replace(str(server.port), str(proxy.port))
        host = Collector(link(endpoint, device([server.node(1)], events=(clause,))))
        await host.connect()
        await host.until(lambda: host.rows(0) and host.adapter._link.monitored.refresher.supported)  # type: ignore[union-attr]
        await asyncio.to_thread(server.do, value=50)
        await asyncio.to_thread(server.do, value=85)
        await host.until(lambda: states(host) and host.of(DeviceEvent)[-1].fields["limit"] == "High")
        await asyncio.to_thread(proxy.cut)
        await host.fails()
        await host.disconnect()
        await asyncio.to_thread(server.do, value=95)
        async with host:
            await host.until(lambda: states(host) and host.adapter._link.monitored.refresher.supported)  # type: ignore[union-attr]
            await asyncio.to_thread(server.do, value=5)
            await host.until(lambda: host.of(DeviceEvent)[-1].fields["limit"] == "LowLow")
            told = [event.fields["limit"] for event in host.of(DeviceEvent)]
            assert told[-2:] == ["HighHigh", "LowLow"]
            assert "High" not in told
