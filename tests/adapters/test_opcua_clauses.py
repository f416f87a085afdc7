"""Event clauses that a server does not take as they are: what it refuses is told, costs itself alone, and comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import DeviceEvent, EventTrouble, Samples
from adapters.opcua import _clauses
from schemas.bilingual import chinese
from schemas.profile import EventClause, EventField
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import MACHINE
from tests.adapters.test_opcua_events import PREFIXES, Machine, clause
from tests.adapters.test_opcua_resumption import via
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import NodeOpcUaServer

NOBODY = "urn:nobody"


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    with Machine() as running:
        yield running


class Strict:
    """Makes a server judge select clauses as the OPC Foundation's stack does: it refuses the whole item, and marks what it does not know.
    `named` False: it only says that the filter is bad; `fault` True: it answers the whole call with a fault."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, server: Machine, *, named: bool = True, fault: bool = False
    ) -> None:
        self.unknown, self.named, self.fault = {"Cushion"}, named, fault
        self.taken: list[list[str]] = []
        """The profile's own fields of each filter that was taken."""
        service = server.server.iserver.subscription_service
        create, modify = service.create_monitored_items, service.modify_monitored_items

        async def strict_create(params: Any) -> Any:
            bad = any(self.bad(item) for item in params.ItemsToCreate)  # then it is the only item of the call
            return self.judged(
                params.ItemsToCreate, [None] if bad else await create(params), ua.MonitoredItemCreateResult
            )

        def strict_modify(params: Any) -> Any:
            if any(self.bad(item) for item in params.ItemsToModify):
                return self.judged(params.ItemsToModify, [None], ua.MonitoredItemModifyResult)
            return self.judged(params.ItemsToModify, modify(params), ua.MonitoredItemModifyResult)

        monkeypatch.setattr(service, "create_monitored_items", strict_create)
        monkeypatch.setattr(service, "modify_monitored_items", strict_modify)

    def bad(self, item: Any) -> bool:
        return any(name in self.unknown for name in self.names(item))

    @staticmethod
    def names(item: Any) -> list[str]:
        wanted = item.RequestedParameters.Filter
        if not isinstance(wanted, ua.EventFilter):
            return []
        return [clause.BrowsePath[-1].Name for clause in wanted.SelectClauses]

    def judged(self, items: Any, results: list[Any], kind: Any) -> list[Any]:
        for i, item in enumerate(items):
            if not self.bad(item):
                if self.names(item):
                    self.taken.append(self.names(item)[8:])
                continue
            if self.fault:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadInternalError)
            results[i] = kind()
            results[i].StatusCode = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterInvalid)
            if self.named:
                marks = ua.EventFilterResult()
                marks.SelectClauseResults = [
                    ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown if name in self.unknown else ua.StatusCodes.Good)
                    for name in self.names(item)
                ]
                results[i].FilterResult = marks
        return results


def with_cushion(server: Machine, **changes: Any) -> EventClause:
    """Three fields of the machine's, in the midst of them one that it does not have."""
    fields = {
        "cycles": EventField(path="m:Cycles"),
        "cushion": EventField(path="m:Cushion", unit="mm"),
        "weight": EventField(path="m:Weight", unit="g"),
    }
    return clause(server, fields=fields, **changes)


def told(host: Collector) -> list[str | None]:
    """The troubles of events that were told, None where one is over."""
    return [item.problem for item in host.of(EventTrouble)]


async def fired(host: Collector, server: Machine, cycles: int) -> dict[str, Any]:
    """The fields of an event that the server sends now."""
    server.event(cycles, 12.5, f"cycle {cycles}")
    await host.until(lambda: any(event.message == f"cycle {cycles}" for event in host.of(DeviceEvent)))
    fields: dict[str, Any] = host.of(DeviceEvent)[-1].fields
    return fields


@pytest.mark.parametrize("how", [{}, {"named": False}, {"fault": True}], ids=["named", "unnamed", "fault"])
async def test_a_refused_field_costs_itself_alone_and_comes_back(
    server: Machine, monkeypatch: pytest.MonkeyPatch, how: dict[str, bool]
) -> None:
    strict = Strict(monkeypatch, server, **how)
    spec = link(
        server.endpoint, device([node("v0")], events=(with_cushion(server),), namespaces=PREFIXES), item_retry=0.1
    )
    async with Collector(spec) as host:
        await host.until(lambda: told(host))
        (trouble,) = host.of(EventTrouble)
        assert (trouble.device, trouble.clause) == ("press", "cycle/end")
        status = (
            "BadInternalError"
            if strict.fault
            else "BadNodeIdUnknown"
            if strict.named
            else "BadMonitoredItemFilterInvalid"
        )
        for text in (trouble.problem, chinese(trouble.problem)):
            assert f"nsu={MACHINE};i={server.cycle_end.nodeid.Identifier}" in text
            assert "cushion" in text
            assert "m:Cushion" in text
            assert status in text
            assert "m:Weight" not in text
        assert "guantong browse" in trouble.fix_en
        assert "guantong browse" in trouble.fix_zh
        assert await fired(host, server, 1) == {"cycles": 1, "cushion": None, "weight": 12.5}

        due = host.adapter._link.monitored.due  # type: ignore[union-attr]
        first = next(iter(due.values()))[0]
        await host.until(
            lambda: next(iter(due.values()))[0] > first
        )  # refused again: the pause grows, and nothing is said
        assert len(told(host)) == 1
        assert await fired(host, server, 2) == {"cycles": 2, "cushion": None, "weight": 12.5}
        strict.unknown.clear()
        await host.until(lambda: told(host)[-1] is None)
        assert strict.taken[-1] == ["Cycles", "Cushion", "Weight"]
        server.generator.event.add_property("Cushion", 2.25, ua.VariantType.Double)
        try:
            assert await fired(host, server, 3) == {"cycles": 3, "cushion": 2.25, "weight": 12.5}
        finally:
            server.generator.event.add_property("Cushion", None, ua.VariantType.Null)
        assert len([event for event in host.of(DeviceEvent) if event.clause == "cycle/end"]) == 3
        assert host.error is None


async def test_a_refused_change_leaves_every_field_in_its_place(
    server: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many fields as before, but others: what comes by the old filter goes on to be read by it."""
    Strict(monkeypatch, server)
    spec = link(
        server.endpoint, device([node("v0")], events=(with_cushion(server),), namespaces=PREFIXES), item_retry=60
    )
    async with Collector(spec) as host:
        await host.until(lambda: told(host))
        open_link = host.adapter._link
        assert open_link is not None
        (item,) = open_link.monitored.event_items
        cushion, weight = item.own[1], item.own[2]
        assert item.left == {cushion}
        item.returned = {weight}  # its type has come with an update that also brought the cushion; but not the weight

        async def tried(*_: Any) -> dict[int, int]:
            return {weight: ua.StatusCodes.BadNodeIdUnknown}

        async def modify(session: Any, subscription: Any, item: Any) -> bool:
            item.filter()
            return False

        monkeypatch.setattr(_clauses, "_tried", tried)
        monkeypatch.setattr(_clauses, "_modify", modify)
        (subscription,) = (s for s in open_link._publisher.subscriptions.values() if s.events)
        await _clauses.monitor(open_link.session, subscription, item)
        assert await fired(host, server, 21) == {"cycles": 21, "cushion": None, "weight": 12.5}


async def test_a_field_in_a_namespace_that_the_server_lacks(server: Machine) -> None:
    wanted = with_cushion(server)
    wanted = wanted.model_copy(update={"fields": {**wanted.fields, "cushion": EventField(path="n:Cushion")}})
    rules = {"namespaces": {**PREFIXES, "n": NOBODY}}
    async with Collector(link(server.endpoint, device([node("v0")], events=(wanted,), **rules))) as host:
        await host.until(lambda: told(host))
        (problem,) = told(host)
        assert problem is not None
        assert "cushion (n:Cushion): BadNodeIdUnknown" in problem
        assert NOBODY in problem
        assert NOBODY in chinese(problem)
        assert await fired(host, server, 4) == {"cycles": 4, "cushion": None, "weight": 12.5}


async def test_unknown_types_and_notifiers_are_told(server: Machine) -> None:
    clauses = (
        clause(server, name="namespace", type=f"nsu={NOBODY};i=1"),
        clause(server, name="type", type=f"nsu={MACHINE};i=987654"),
        clause(server, name="path", notifier="m:Nope"),
        clause(server, name="node", notifier=node("v0")),
        clause(server),
    )
    spec = link(server.endpoint, device([node("v0")], events=clauses, namespaces=PREFIXES), item_retry=60)
    async with Collector(spec) as host:
        await host.until(lambda: len(told(host)) == 4)
        problems = {item.clause: item.problem for item in host.of(EventTrouble)}
        assert "lacks namespace" in problems["namespace"]
        assert f"nsu={MACHINE};i=987654" in problems["type"]
        assert "m:Nope" in problems["path"]
        assert "BadNoMatch" in problems["path"]
        assert node("v0") in problems["node"]
        assert all(chinese(problem) != problem for problem in problems.values())
        assert await fired(host, server, 5)
        assert {event.clause for event in host.of(DeviceEvent)} == {"cycle/end"}


async def test_an_event_type_that_comes_with_an_update(server: Machine) -> None:
    wanted = EventClause(name="later", type=f"nsu={MACHINE};i=77001", fields={"a": EventField(path="m:A")})
    spec = link(server.endpoint, device(events=(wanted,), namespaces=PREFIXES), item_retry=0.1)
    async with Collector(spec) as host:
        await host.until(lambda: told(host))

        async def update() -> Any:
            index = server.index(MACHINE)
            kind = await server.server.nodes.base_event_type.add_object_type(ua.NodeId(77001, index), f"{index}:Later")
            await kind.add_property(index, "A", 0)
            return await server.server.get_event_generator(kind, server.server.nodes.server)

        generator = server.run(update())
        await host.until(lambda: told(host)[-1] is None)
        generator.event.A = 7
        server.run(generator.trigger(message="at last"))
        await host.until(lambda: host.of(DeviceEvent))
        assert host.of(DeviceEvent)[0].fields == {"a": 7}


async def test_node_opcua_marks_a_field_and_takes_the_item(node_opcua_server: NodeOpcUaServer) -> None:
    """It looks for a field at the very type: one that the type inherits is marked too, and is none the less there. A type that it does not
    have is a fault of the whole call."""
    server = node_opcua_server
    wanted = EventClause(
        name="cycle",
        type=f"nsu={server.namespace};i=2001",
        fields={
            "number": EventField(path="f:CycleNumber"),
            "cushion": EventField(path="f:Cushion"),
            "inherited": EventField(path="Severity"),
            "foreign": EventField(path="f:Anything", of=f"nsu={server.namespace};i=2999"),
        },
    )
    unknown = EventClause(name="unknown", type=f"nsu={server.namespace};i=2998")
    alarms = EventClause(name="alarm", type="i=2915", kind="alarm")
    press = device(events=(alarms, unknown, wanted), namespaces={"f": server.namespace})
    async with Collector(link(server.endpoint, press, item_retry=60)) as host:
        await host.until(lambda: len(told(host)) == 2)
        assert [item.clause for item in host.of(EventTrouble)] == ["unknown", "cycle"]  # all that an alarm has is there
    spec = link(server.endpoint, device(events=(wanted,), namespaces={"f": server.namespace}), item_retry=0.2)
    async with Collector(spec) as host:
        await host.until(lambda: told(host))
        (problem,) = told(host)
        assert problem is not None
        assert "cushion (f:Cushion): BadNoMatch" in problem
        assert "foreign (f:Anything of" in problem
        assert "inherited" not in problem
        assert "number" not in problem
        server.fire(8)
        await host.until(lambda: host.of(DeviceEvent))
        assert host.of(DeviceEvent)[0].fields == {"number": 8, "cushion": None, "inherited": 108, "foreign": None}
        server.declare("Cushion")
        await host.until(lambda: "cushion" not in (told(host)[-1] or ""))
        assert "foreign" in (told(host)[-1] or "")
        server.fire(9)
        await host.until(lambda: len(host.of(DeviceEvent)) == 2)
        assert host.of(DeviceEvent)[1].fields == {"number": 9, "cushion": 2.25, "inherited": 109, "foreign": None}


async def test_what_is_refused_is_told_again_after_an_outage(server: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the subscription has outlived it: the state of a device begins anew with each connection."""
    Strict(monkeypatch, server)
    press = device([node("v0")], events=(with_cushion(server),), namespaces=PREFIXES)
    with FaultProxy(server.port) as proxy:
        host = Collector(link(via(proxy), press, item_retry=60))
        async with host:
            await host.until(lambda: told(host) and host.rows(0))
            await asyncio.to_thread(proxy.cut)
            await host.fails()
            await asyncio.to_thread(proxy.restore)
            await host.connect()
            await host.until(lambda: told(host))
            assert "m:Cushion" in (told(host)[0] or "")
            assert await fired(host, server, 6) == {"cycles": 6, "cushion": None, "weight": 12.5}


@pytest.mark.parametrize("at_the_end", [False, True], ids=["browse", "browse-next"])
async def test_a_server_that_does_not_browse_its_event_types_costs_no_link(
    server: Machine, monkeypatch: pytest.MonkeyPatch, at_the_end: bool
) -> None:
    """A small controller without its types, or with too few continuation points: the clause asks for its own type alone."""
    space = server.server.iserver.view_service
    browse = space.browse
    refused = []

    def poor(params: Any) -> Any:
        if all(each.ReferenceTypeId.Identifier == ua.ObjectIds.HasSubtype for each in params.NodesToBrowse):
            refused.append(params)
            if not at_the_end:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadServiceUnsupported)
            results = browse(params)
            for each in results:
                each.ContinuationPoint = b"gone"
            return results
        return browse(params)

    monkeypatch.setattr(space, "browse", poor)
    spec = link(server.endpoint, device([node("v0")], events=(with_cushion(server),), namespaces=PREFIXES))
    async with Collector(spec) as host:
        await host.until(lambda: host.of(Samples))
        assert (await fired(host, server, 3))["cycles"] == 3
    assert refused
