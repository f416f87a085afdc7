"""Sampling, queues, filters and the modes of reading: subscribed, read on a grid, or both; against asyncua's server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import DeviceSpec, Point, Samples
from adapters.opcua import DeviceSettings
from schemas import status as codes
from schemas.profile import Group, OpcUaAddress, OpcUaRules
from schemas.wire import Flag
from tests.adapters.opcua_collector import PERIOD, Collector, device, link, node
from tests.adapters.opcua_server import SmallServer

T = ua.VariantType


class Recording(SmallServer):
    """Keeps the parameters of each monitored item by client handle; may refuse filters."""

    refuse_filters = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, Any] = {}

    def _spy(self) -> None:
        super()._spy()
        service = self.server.iserver.subscription_service
        create = service.create_monitored_items

        async def spy(params: Any) -> Any:
            refused = []
            for item in params.ItemsToCreate:
                self.asked[item.RequestedParameters.ClientHandle] = item.RequestedParameters
                has_filter = isinstance(item.RequestedParameters.Filter, ua.DataChangeFilter)
                refused.append(self.refuse_filters and has_filter)
            results = await create(params)
            for refuse, result in zip(refused, results, strict=True):
                if refuse:
                    result.StatusCode = ua.StatusCode(ua.StatusCodes.BadMonitoredItemFilterUnsupported)
            return results

        service.create_monitored_items = spy


@pytest.fixture(scope="module")
def server() -> Iterator[Recording]:
    with Recording() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(server: Recording) -> Iterator[None]:
    server.refuse_filters = False
    server.asked.clear()
    server.limits.clear()
    server.counts.clear()
    server.calls.clear()
    yield
    server.end_sessions()


def grouped(addresses: list[dict[str, Any] | str], group: Group, **rules: Any) -> DeviceSpec:
    """A device all of whose points are in one group that is configured so."""
    made = []
    for i, address in enumerate(addresses):
        made.append(
            Point(
                i,
                "press",
                f"s{i}",
                "g",
                OpcUaAddress.model_validate({"node": address} if isinstance(address, str) else address),
                "any",
            )
        )
    return DeviceSpec(
        "press", DeviceSettings(), OpcUaRules(**rules), {"g": group.period}, tuple(made), options={"g": group}
    )


# ------------------------------------------------------------------------------------------------- monitored items


async def test_what_is_asked_of_the_server(server: Recording) -> None:
    group = Group(period=0.2, sampling=0.05, queue=7, discard="newest", trigger="status-value-timestamp")
    own = {"node": node("v1"), "sampling": 0, "queue": 3, "discard": "oldest", "trigger": "status"}
    async with Collector(link(server.endpoint, grouped([node("v0"), own], group))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
    first, second = server.asked[0], server.asked[1]
    assert (first.SamplingInterval, first.QueueSize, first.DiscardOldest) == (50.0, 7, False)
    assert first.Filter.Trigger == ua.DataChangeTrigger.StatusValueTimestamp
    assert first.Filter.DeadbandType == 0
    assert (second.SamplingInterval, second.QueueSize, second.DiscardOldest) == (0.0, 3, True)
    assert second.Filter.Trigger == ua.DataChangeTrigger.Status


async def test_without_options_no_filter_is_sent(server: Recording) -> None:
    async with Collector(link(server.endpoint, device([node("v0")]))) as host:
        await host.until(lambda: host.rows(0))
    asked = server.asked[0]
    assert not isinstance(asked.Filter, ua.DataChangeFilter)
    assert (asked.SamplingInterval, asked.QueueSize, asked.DiscardOldest) == (PERIOD * 1000, 12, True)


async def test_a_refused_filter_costs_only_the_filter(server: Recording) -> None:
    server.refuse_filters = True
    group = Group(period=PERIOD, trigger="status-value-timestamp")
    async with Collector(link(server.endpoint, grouped([node("v0"), node("v1")], group))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert not host.troubles()
        server.write("v0", 4711)
        await host.until(lambda: host.last(0) == 4711)
    assert not isinstance(server.asked[0].Filter, ua.DataChangeFilter)


# ------------------------------------------------------------------------------------------------------------- polling


async def test_a_polled_group_is_read_and_never_subscribed(server: Recording) -> None:
    server.limits["read"] = 3
    names = [f"v{i}" for i in range(8)]
    group = Group(period=PERIOD, mode="poll")
    async with Collector(link(server.endpoint, grouped([node(name) for name in names], group))) as host:
        await host.until(lambda: all(host.rows(i) for i in range(8)))
        assert all(host.rows(i)[0]["flags"] & Flag.INITIAL for i in range(8))
        server.write_all()
        await host.until(lambda: all(host.last(i) == server.value + i for i in range(8)))
        assert all(host.rows(i)[-1]["flags"] == 0 for i in range(8))
        await host.until(lambda: len([item for item in host.of(Samples) if item.complete_to is not None]) > 4)
        turns = [item for item in host.of(Samples) if item.points]
        assert all(len(item.points) == 8 for item in turns)
        marks = [item.complete_to for item in turns if item.complete_to is not None]
        assert marks == sorted(marks)
        assert turns[-1].server_ts is not None
    assert not server.asked
    assert server.calls["read"] > 3 * len(turns)


async def test_turns_keep_to_their_grid_and_those_that_are_missed_are_left_out() -> None:
    from tests.adapters.polling_bench import grid

    taken, counted = await grid(period=1.0, durations=[0.25, 0.0, 2.6, 0.1, 0.0])
    assert taken == [0.0, 1.0, 2.0, 5.0, 6.0]
    assert counted == {"turns_left_out": 2}


async def test_a_polled_point_that_is_gone_heals(server: Recording) -> None:
    server.add("poll_me", 5, T.Int32)
    group = Group(period=PERIOD, mode="poll")
    async with Collector(link(server.endpoint, grouped([node("poll_me"), node("v1")], group), item_retry=0.1)) as host:
        await host.until(lambda: host.last(0) == 5)
        server.delete("poll_me")
        await host.until(lambda: host.rows(0)[-1]["status"] == codes.BAD_NODE_ID_UNKNOWN and host.troubles())
        assert (host.troubles()[0][0], "deleted" in (host.troubles()[0][1] or "")) == (0, True)
        server.add("poll_me", "now a text", T.String)
        await host.until(lambda: host.last(0) == "now a text" and host.troubles()[-1] == (0, None))
        assert host.rows(1)[-1]["status"] == 0


async def test_both_passes_on_what_the_subscription_does_not_tell(server: Recording) -> None:
    """The subscriptions go mute; a server that still sends keep-alives and no values is the case that nothing else finds."""
    group = Group(period=PERIOD, mode="both", poll=0.1)
    async with Collector(link(server.endpoint, grouped([node("v0"), node("v1")], group), session_timeout=60)) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        server.write("v0", 1)
        await host.until(lambda: host.last(0) == 1)
        told = len(host.rows(0))
        service = server.server.iserver.aspace

        async def quiet() -> None:
            for data in service._nodes.values():
                for attribute in data.attributes.values():
                    attribute.datachange_callbacks.clear()

        server.run(quiet())
        server.write("v0", 2)
        await host.until(lambda: host.last(0) == 2)
        assert len(host.rows(0)) == told + 1
        assert host.adapter.counters().errors == {"untold": 1}
        assert [row["value"] for row in host.rows(1)] == [1] or len(host.rows(1)) == 1
