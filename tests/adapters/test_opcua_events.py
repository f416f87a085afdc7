"""Events with the profile's fields, and alarms, against asyncua's server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import DeviceEvent, Lost
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._decode import EventFields, Message
from adapters.opcua._events import QUEUE_OVERFLOW, EventItem, to_event
from adapters.opcua._outlet import Outlet
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._subscription import Group, Subscription
from schemas.profile import EventClause, EventField
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import MACHINE, OTHER, SmallServer

PREFIXES = {"m": MACHINE, "o": OTHER}


class Machine(SmallServer):
    """Also has event types: CycleEnd (Cycles, Weight) and an alarm."""

    cycle_end: Any
    generator: Any

    def __enter__(self) -> Machine:
        super().__enter__()
        self.run(self._types())
        return self

    async def _types(self) -> None:
        index = self.index(MACHINE)
        properties = [("Cycles", ua.VariantType.UInt64), ("Weight", ua.VariantType.Double)]
        self.cycle_end = await self.server.create_custom_event_type(
            index, "CycleEnd", ua.ObjectIds.BaseEventType, properties
        )
        self.generator = await self.server.get_event_generator(self.cycle_end, self.server.nodes.server)
        self.makers = await self.server.create_custom_event_type(
            index, "MakersCycleEnd", self.cycle_end, [("Cushion", ua.VariantType.Float)]
        )
        self.makers_generator = await self.server.get_event_generator(self.makers, self.server.nodes.server)
        self.alarm = await self.server.get_event_generator(ua.ObjectIds.AlarmConditionType, self.server.nodes.server)

    def event(self, cycles: int, weight: float, message: str) -> bytes:
        """Fires one, and gives back its EventId."""
        self.generator.event.Cycles, self.generator.event.Weight = cycles, weight
        self.run(self.generator.trigger(message=message))
        return bytes(self.generator.event.EventId.Value)

    def raise_alarm(self, active: bool, acked: bool) -> None:
        event = self.alarm.event
        event.add_property("NodeId", ua.NodeId("Overheat", self.index(MACHINE)), ua.VariantType.NodeId)
        event.add_property("ActiveState/Id", active, ua.VariantType.Boolean)
        event.add_property("AckedState/Id", acked, ua.VariantType.Boolean)
        event.add_property("ConditionName", "Overheat", ua.VariantType.String)
        event.add_property("Retain", True, ua.VariantType.Boolean)
        self.run(self.alarm.trigger(message="料筒超温"))


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    with Machine() as running:
        yield running


def clause(server: Machine, **changes: Any) -> EventClause:
    identifier = server.cycle_end.nodeid
    parameters: dict[str, Any] = {
        "name": "cycle/end",
        "type": f"nsu={MACHINE};i={identifier.Identifier}",
        "fields": {
            "cycles": EventField(path="m:Cycles"),
            "weight": EventField(path="m:Weight", unit="g"),
            "source": EventField(path="SourceName"),
        },
    }
    return EventClause.model_validate({**parameters, **changes})


async def test_an_event_arrives_with_its_fields(server: Machine) -> None:
    spec = link(server.endpoint, device([node("v0")], events=(clause(server),), namespaces=PREFIXES))
    async with Collector(spec, ack=False) as host:
        await host.until(lambda: host.rows(0))
        event_id = server.event(2**64 - 1, 12.5, "周期结束")
        await host.until(lambda: host.of(DeviceEvent))
        (event,) = host.of(DeviceEvent)
        assert (event.device, event.clause) == ("press", "cycle/end")
        assert event.fields == {"cycles": 2**64 - 1, "weight": 12.5, "source": "Server"}
        assert event.message == "周期结束"
        assert event.severity == 1
        assert event.event_id == event_id.hex()
        assert event.type == f"nsu={MACHINE};i={server.cycle_end.nodeid.Identifier}"
        assert abs(event.source_ts - event.received) < 60_000_000
        assert (event.condition, event.state, event.historical) == (None, None, False)
        assert event.token is not None
        kept = server.unacknowledged()
        host.adapter.ack(event.token)
        await host.until(lambda: server.unacknowledged() < kept)


async def test_a_makers_own_event_type_comes_with_its_own_fields(server: Machine) -> None:
    """As EUROMAP's CycleParametersEventType, which is abstract. asyncua's server compares types in OfType without their subtypes."""
    cushion = EventField(path="m:Cushion", of=f"nsu={MACHINE};i={server.makers.nodeid.Identifier}")
    wanted = clause(server)
    wanted = wanted.model_copy(update={"fields": {**wanted.fields, "cushion": cushion}})
    async with Collector(link(server.endpoint, device([node("v0")], events=(wanted,), namespaces=PREFIXES))) as host:
        await host.until(lambda: host.rows(0))
        generator = server.makers_generator
        generator.event.Cycles, generator.event.Weight, generator.event.Cushion = 7, 1.5, 2.25
        server.run(generator.trigger(message="maker"))
        server.event(8, 2.5, "plain")
        await host.until(lambda: len(host.of(DeviceEvent)) == 2)
        made, plain = host.of(DeviceEvent)
        assert made.fields == {"cycles": 7, "weight": 1.5, "source": "Server", "cushion": 2.25}
        assert made.type == cushion.of
        assert plain.fields == {"cycles": 8, "weight": 2.5, "source": "Server", "cushion": None}


async def test_a_server_that_refuses_the_where_clause_gets_a_simpler_one(
    server: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.server.iserver.subscription_service
    create = service.create_monitored_items
    sizes: list[int] = []

    async def spy(params: Any) -> Any:
        results = await create(params)
        for item, result in zip(params.ItemsToCreate, results, strict=True):
            if isinstance(item.RequestedParameters.Filter, ua.EventFilter):
                sizes.append(len(item.RequestedParameters.Filter.WhereClause.Elements))
                if sizes[-1] > 1:
                    result.StatusCode = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
        return results

    monkeypatch.setattr(service, "create_monitored_items", spy)
    spec = link(server.endpoint, device([node("v0")], events=(clause(server),), namespaces=PREFIXES))
    async with Collector(spec) as host:
        await host.until(lambda: host.rows(0))
        server.event(9, 3.5, "plain")
        await host.until(lambda: host.of(DeviceEvent))
        assert sizes == [3, 1]


async def test_other_event_types_are_left_out_and_severity_is_overridden(server: Machine) -> None:
    spec = link(server.endpoint, device(events=(clause(server, severity=700),), namespaces=PREFIXES))
    async with Collector(spec) as host:
        server.raise_alarm(True, False)
        server.event(1, 1.0, "one")
        await host.until(lambda: host.of(DeviceEvent))
        (event,) = host.of(DeviceEvent)
        assert (event.message, event.severity) == ("one", 700)


async def test_an_alarm_has_condition_and_state(server: Machine) -> None:
    alarm = EventClause(name="alarm/heat", type="i=2915", kind="alarm")
    async with Collector(link(server.endpoint, device([node("v0")], events=(alarm,)))) as host:
        await host.until(lambda: host.rows(0))
        server.raise_alarm(True, False)
        server.raise_alarm(False, True)
        await host.until(lambda: len(host.of(DeviceEvent)) == 2)
        first, second = host.of(DeviceEvent)
        assert first.condition == second.condition == f"nsu={MACHINE};s=Overheat"
        assert (first.state, second.state) == ("active,unacked", "inactive,acked")
        assert first.fields == {"condition_name": "Overheat", "retain": True, "source": "Server"}


async def test_an_alarm_of_before_the_gateway_is_told_once() -> None:
    """By ConditionRefresh, which asyncua's server has when it is told to."""
    alarm = EventClause(name="alarm/heat", type="i=2915", kind="alarm")
    with Machine() as server:
        server.run(server.server.iserver.setup_condition_methods())
        server.raise_alarm(True, False)
        host = Collector(link(server.endpoint, device([node("v0")], events=(alarm,))))
        async with host:
            await host.until(lambda: host.of(DeviceEvent))
            assert host.of(DeviceEvent)[0].state == "active,unacked"
        async with host:  # it is refreshed again, and known
            await host.until(lambda: host.rows(0) and host.adapter._link.monitored.refresher.supported)  # type: ignore[union-attr]
            server.raise_alarm(False, True)
            await host.until(lambda: host.of(DeviceEvent))
            assert [event.state for event in host.of(DeviceEvent)] == ["inactive,acked"]
        assert host.adapter.counters().errors == {}


async def test_a_clause_that_the_server_lacks_costs_nobody(server: Machine) -> None:
    clauses = (
        clause(server, name="lost", type="nsu=urn:nobody;i=1"),
        clause(server, name="nowhere", notifier="m:Nope"),
        clause(server),
    )
    spec = link(server.endpoint, device([node("v0")], events=clauses, namespaces=PREFIXES), item_retry=0.1)
    async with Collector(spec) as host:
        await host.until(lambda: host.rows(0))
        server.event(5, 5.0, "five")
        await host.until(lambda: host.of(DeviceEvent))
        assert {event.clause for event in host.of(DeviceEvent)} == {"cycle/end"}
        assert host.error is None


async def test_slow_consumer_events_are_a_recorded_loss(server: Machine) -> None:
    spec = link(server.endpoint, device(events=(clause(server),), namespaces=PREFIXES), queue=4)
    async with Collector(spec) as host:
        server.event(0, 0.0, "first")
        await host.until(lambda: host.of(DeviceEvent))
        host.paused.clear()
        for i in range(1, 12):
            server.event(i, 0.0, "more")
        await host.until(lambda: host.adapter.counters().overruns > 0)
        host.paused.set()
        await host.until(host.lost)
        (loss,) = host.lost()
        assert (loss.cause, loss.points) == ("overrun", None)
        await host.until(lambda: len(host.of(DeviceEvent)) + (loss.count or 0) == 12)
        await host.until(lambda: server.unacknowledged() == 0)


async def test_an_overflow_event_is_a_recorded_loss() -> None:
    item = EventItem(device(), EventClause(name="x", type="i=2041"), 3)
    acks = Acknowledgements()
    outlet = Outlet(100, acks, lambda _: None)
    subscription = Subscription(
        8, Group("press", "events", 1.0), 1.0, 1.0, ServerClock(), outlet, heard=0.0, events={3: item}, previous=50
    )
    overflow = EventFields(3, [b"\x01", QUEUE_OVERFLOW, None, None, 5, None, None, 300])
    subscription.deliver(Message(4, None, events=[overflow]), False, 70)
    loss = await outlet.get()
    assert isinstance(loss, Lost)
    assert (loss.cause, loss.points, loss.start, loss.end) == ("overrun", None, 50, 70)
    assert loss.token is not None
    acks.ack(loss.token)
    assert acks.take(5) == [(8, 4)]


def test_fields_that_a_server_leaves_out_are_none() -> None:
    fields = {"a": EventField(path="A"), "b": EventField(path="B")}
    item = EventItem(device(), EventClause(name="x", type="i=2041", fields=fields), 0)
    event = to_event(item, [None] * 8 + [1], 7)
    assert (event.source_ts, event.severity, event.message, event.event_id) == (None, 1, "", "")
    assert event.fields == {"a": 1, "b": None}
