"""A subscription outlives its link: nothing is lost that the server still has, and what it lost is a gap as small as it can be."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from adapters.contract import Recovered
from schemas.profile import Group
from schemas.wire import Cause
from tests.adapters.opcua_collector import Collector, link, node
from tests.adapters.opcua_collector import device as points_of
from tests.adapters.opcua_host import Host, Served, device, while_running
from tests.adapters.opcua_server import SIZE, SmallServer
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import NodeOpcUaServer

ALL = [node(f"v{i}") for i in range(SIZE)]
CUTS = 1_440 if os.environ.get("LONG") else 200
"""For each of two stacks."""
pytestmark = pytest.mark.timeout(3_600 if os.environ.get("LONG") else 120)


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture
def server(shared: SmallServer) -> Iterator[SmallServer]:
    shared.calls.clear()
    shared.drop_sequences.clear()
    shared.forget_sequences.clear()
    yield shared
    shared.end_sessions()
    shared.run(shared.server.iserver.subscription_service.delete_subscriptions(list(shared.subscriptions)))


class Writer:
    """Writes values that never were, and remembers them."""

    def __init__(self, server: SmallServer) -> None:
        self.server = server
        self.served: dict[int, list[Served]] = {}
        for i in range(SIZE):
            node = server.server.get_node(server.node(f"v{i}"))
            value = server.run(node.read_data_value())
            self.served[i] = [(micros(value.SourceTimestamp), value.Value.Value)]

    def write(self) -> None:
        """One new value for each."""
        self.server.value += SIZE
        for i in range(SIZE):
            now = dt.datetime.now(dt.UTC)
            self.served[i].append((micros(now), self.server.value + i))
            self.server.write(f"v{i}", self.server.value + i, SourceTimestamp=now)

    def on_and_on(self, stop: asyncio.Event) -> None:
        """Until told to stop, every 20 ms."""
        while not stop.is_set():
            self.write()
            time.sleep(0.02)


def micros(at: dt.datetime) -> int:
    return (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def via(proxy: FaultProxy) -> str:
    return f"opc.tcp://127.0.0.1:{proxy.port}/"


# ---------------------------------------------------------------------------------------------------------- it goes on


async def test_what_came_while_the_link_was_cut_is_not_lost(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL)) as host:
            await host.until(lambda: all(host.rows().values()))
            before = set(server.subscriptions)
            for _ in range(3):
                await asyncio.to_thread(proxy.refuse)
                await asyncio.to_thread(proxy.cut)
                await host.until(lambda: not host.is_up())
                for _ in range(3):
                    await asyncio.to_thread(writer.write)
                await asyncio.to_thread(proxy.restore)
                await host.until(lambda: host.last() == server.value)
            end = writer.served[SIZE - 1][-1][0]
            await host.until(lambda: host.complete_to() >= end)
            assert set(server.subscriptions) == before
        assert host.compare(writer.served) == 0
        assert host.outages() == 3
        assert host.gaps() == []


async def test_a_notification_that_was_on_the_wire_is_published_again(server: SmallServer) -> None:
    """The server counts it as sent; the connection broke under it."""
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL)) as host:
            await host.until(lambda: all(host.rows().values()))
            await asyncio.to_thread(proxy.half_open)
            (subscription,) = server.subscriptions.values()
            published = subscription._notification_seq
            await asyncio.to_thread(writer.write)
            await host.until(lambda: subscription._notification_seq > published)
            await asyncio.to_thread(writer.write)
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == server.value)
            end = writer.served[SIZE - 1][-1][0]
            await host.until(lambda: host.complete_to() >= end)
        assert host.compare(writer.served) == 0
        assert host.gaps() == []
        assert server.calls["republish"] >= 1


async def test_a_pulled_cable_loses_nothing(server: SmallServer) -> None:
    """Silence is noticed first; it is the link's and not the subscription's, which goes on."""
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL), timeout=0.4) as host:
            await host.until(lambda: host.complete_to() > 0)
            before = set(server.subscriptions)
            await asyncio.to_thread(proxy.half_open)
            await asyncio.to_thread(writer.write)
            await host.until(lambda: not host.is_up())
            await asyncio.to_thread(writer.write)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == server.value)
            await complete(host, writer)
            assert set(server.subscriptions) == before
        assert host.compare(writer.served) == 0
        assert host.gaps() == []


async def complete(host: Host, writer: Writer) -> None:
    """Everything that was written is told to be there."""
    end = max(rows[-1][0] for rows in writer.served.values())
    await host.until(lambda: host.complete_to() >= end)


async def test_what_is_only_read_was_not_read_meanwhile(server: SmallServer) -> None:
    """The subscription of its neighbour goes on; a group that is polled has missed the outage."""
    polled = replace(points_of(ALL[:1]), options={"fast": Group(period=0.05, mode="poll")})
    with FaultProxy(server.port) as proxy:
        async with Collector(link(via(proxy), polled, points_of(ALL[1:2], name="oven", first=1))) as host:
            await host.until(lambda: host.rows(0) and host.rows(1))
            before = set(server.subscriptions)
            await asyncio.to_thread(proxy.cut)
            await host.fails()
            await host.disconnect()
            host.adapter.resume({("press", "fast"): 5, ("oven", "fast"): 5})
            await host.connect()
            await host.until(lambda: len(host.of(Recovered)) == 2)
            assert set(server.subscriptions) == before
            answers = {answer.device: answer for answer in host.of(Recovered)}
            assert answers["press"].missed is None
            assert answers["oven"].missed == ()


async def test_an_acknowledgement_of_before_the_cut_counts_after_it(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        async with Collector(link(via(proxy), points_of(ALL)), ack=False) as host:
            await host.until(lambda: all(host.rows(i) for i in range(SIZE)))
            tokens = [token for item in host.items if (token := getattr(item, "token", None)) is not None]
            await asyncio.to_thread(proxy.cut)
            await host.fails()
            await host.disconnect()
            for token in tokens:
                host.adapter.ack(token)
            server.acked.clear()
            await host.connect()
            await host.until(lambda: len(server.acked) >= len(tokens))
            assert set(server.acked) >= {(subscription, number) for _, subscription, number in tokens}


async def test_a_restarted_server_knows_no_subscription(server: SmallServer) -> None:
    """Its numbers begin anew: no token of before acknowledges what came after."""
    with FaultProxy(server.port) as proxy:
        async with Collector(link(via(proxy), points_of(ALL)), ack=False) as host:
            await host.until(lambda: all(host.rows(i) for i in range(SIZE)))
            tokens = [token for item in host.items if (token := getattr(item, "token", None)) is not None]
            await asyncio.to_thread(proxy.cut)
            await host.fails()
            await host.disconnect()
            await asyncio.to_thread(server.end_sessions)
            service = server.server.iserver.subscription_service
            service._sub_id_counter -= 1  # the number of the lost one comes again
            host.adapter.resume({("press", "fast"): 5})
            await host.connect()
            await host.until(lambda: all(host.rows(i) for i in range(SIZE)))
            await host.until(lambda: host.of(Recovered))
            (answer,) = host.of(Recovered)
            assert answer.missed is None
            assert {token[1] for token in tokens} & set(server.subscriptions)
            server.acked.clear()
            for token in tokens:
                host.adapter.ack(token)
            server.write_all()
            await host.until(lambda: host.last(0) == server.value)
            assert server.acked == []


# ------------------------------------------------------------------------------------------------------------ transferred


def lose_session(server: SmallServer) -> None:
    """The server forgets the session, and keeps its subscriptions: as one whose session time-out is shorter."""

    async def forget() -> None:
        for session in list(server.server.iserver._external_sessions.values()):
            server.server.iserver.unregister_external_session(session)

    server.run(forget())


@pytest.fixture
def right_transfer(server: SmallServer) -> Iterator[list[Any]]:
    """asyncua's server transfers a subscription's answers and not its requests: here it does both, and tells what it was asked."""
    from asyncua.server.uaprocessor import UaProcessor

    service = server.server.iserver.subscription_service
    original, asked = service.transfer_subscriptions, []

    async def transfer(params: Any, session_id: Any, callback: Any) -> Any:
        asked.append(params)
        results = await original(params, session_id, callback)
        for number in params.SubscriptionIds:
            if number in service.subscriptions:
                processor: UaProcessor = callback.__self__
                service.subscriptions[number].pub_request_callback = processor.get_publish_request
        return results

    service.transfer_subscriptions = transfer
    yield asked
    service.transfer_subscriptions = original


@pytest.fixture
def silent_transfer(server: SmallServer) -> Iterator[None]:
    """TransferSubscriptions is Good, and nothing comes: asyncua's server, which goes on to look for requests at the old connection, once
    there are none left there (until then it answers them on the new one, where nobody has sent them)."""
    service = server.server.iserver.subscription_service
    original = service.transfer_subscriptions

    async def transfer(params: Any, session_id: Any, callback: Any) -> Any:
        results = await original(params, session_id, callback)
        for number in params.SubscriptionIds:
            if number in service.subscriptions:
                service.subscriptions[number].pub_request_callback = lambda _: None
        return results

    service.transfer_subscriptions = transfer
    yield
    service.transfer_subscriptions = original


async def cut_without_session(host: Host, proxy: FaultProxy, server: SmallServer) -> None:
    await asyncio.to_thread(proxy.refuse)
    await asyncio.to_thread(proxy.cut)
    await host.until(lambda: not host.is_up())
    await asyncio.to_thread(lose_session, server)


async def test_subscriptions_are_transferred_to_a_new_session(server: SmallServer, right_transfer: list[Any]) -> None:
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL)) as host:
            await host.until(lambda: all(host.rows().values()))
            before = set(server.subscriptions)
            await cut_without_session(host, proxy, server)
            await asyncio.to_thread(writer.write)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == server.value)
            end = writer.served[SIZE - 1][-1][0]
            await host.until(lambda: host.complete_to() >= end)
            assert set(server.subscriptions) == before
            (request,) = right_transfer
            assert set(request.SubscriptionIds) == before
            assert request.SendInitialValues is True
        assert host.compare(writer.served) == 0
        assert host.gaps() == []


@pytest.mark.usefixtures("silent_transfer")
async def test_a_transferred_subscription_that_is_silent_is_not_transferred_again(server: SmallServer) -> None:
    """It is found out, once."""
    with FaultProxy(server.port) as proxy:
        async with Host(via(proxy), device(ALL), timeout=0.5) as host:
            await host.until(lambda: all(host.rows().values()))
            first = set(server.subscriptions)
            await cut_without_session(host, proxy, server)
            await asyncio.to_thread(server.write_all)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: not first & set(server.subscriptions))
            await host.until(lambda: host.last() == server.value)
            await cut_without_session(host, proxy, server)
            outages = host.outages()
            await asyncio.to_thread(server.write_all)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == server.value)
            assert host.outages() == outages
            assert not host.host.counters().errors.get("subscription_silent", 0) > 1


async def test_an_incomplete_transfer_is_given_up(server: SmallServer, right_transfer: list[Any]) -> None:
    """One of two subscriptions is gone: both are made anew, and the other is deleted on the server."""
    with FaultProxy(server.port) as proxy:
        async with Host(via(proxy), device(ALL), items_per_subscription=SIZE // 2) as host:
            await host.until(lambda: host.complete_to() > 0)
            one, other = sorted(server.subscriptions)
            await cut_without_session(host, proxy, server)
            server.run(server.server.iserver.subscription_service.delete_subscriptions([one]))
            await asyncio.to_thread(server.write_all)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: all(host.last(i) == server.value + i for i in range(SIZE)))
            await host.until(lambda: len(server.subscriptions) == 2)
            assert other not in server.subscriptions
            await host.until(lambda: bool(host.gaps()))
            (gap,) = host.gaps()
            assert gap.cause == Cause.DISCONNECTED


# ------------------------------------------------------------------------------------------------- what did not fit there


async def test_a_queue_that_was_full_is_a_gap_also_if_the_server_says_nothing(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL)) as host:
            await host.until(lambda: all(host.rows().values()))
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            await host.until(lambda: not host.is_up())
            for _ in range(100):  # more than its queue, and what it answers meanwhile to requests of before, hold
                await asyncio.to_thread(writer.write)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == server.value)
            end = writer.served[SIZE - 1][-1][0]
            await host.until(lambda: host.complete_to() >= end)
        assert host.compare(writer.served) > 0
        assert {gap.cause for gap in host.gaps()} == {Cause.OVERRUN.value}


async def test_what_did_not_fit_is_read_from_the_history(server: SmallServer) -> None:
    for i in range(SIZE):
        variable = server.server.get_node(server.node(f"v{i}"))
        server.run(server.server.historize_node_data_change(variable))
    try:
        with FaultProxy(server.port) as proxy:
            writer = Writer(server)
            async with Host(via(proxy), device(ALL)) as host:
                await host.until(lambda: all(host.rows().values()))
                await asyncio.to_thread(writer.write)
                await host.until(lambda: host.last() == server.value)
                await asyncio.to_thread(proxy.refuse)
                await asyncio.to_thread(proxy.cut)
                await host.until(lambda: not host.is_up())
                for _ in range(30):
                    await asyncio.to_thread(writer.write)
                await asyncio.to_thread(proxy.restore)
                end = writer.served[SIZE - 1][-1][0]
                await host.until(lambda: host.complete_to() >= end)
            assert host.compare(writer.served) == 0
            assert host.gaps() == []
    finally:
        for i in range(SIZE):
            variable = server.server.get_node(server.node(f"v{i}"))
            server.run(server.server.dehistorize_node_data_change(variable))


# ------------------------------------------------------------------------------------------------------------ many times


async def test_many_cuts_lose_nothing(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL)) as host:
            await host.until(lambda: all(host.rows().values()))
            async with while_running(writer.on_and_on):
                for done in range(CUTS):
                    await asyncio.to_thread(proxy.cut)
                    await host.until(lambda: host.outages() > done and host.is_up())  # noqa: B023  waited for within the turn
            end = writer.served[SIZE - 1][-1][0]
            await host.until(lambda: host.complete_to() >= end)
            assert server.sessions() == 1
            assert len(server.subscriptions) == 1
        host.compare(writer.served)
        assert host.outages() >= CUTS
        # asyncua's server forgets a notification with its Republish, also if the answer to that is cut
        assert {gap.cause for gap in host.gaps()} <= {Cause.OVERRUN.value, Cause.LOST.value}


def told(server: NodeOpcUaServer, begin: int) -> list[Served]:
    """What node-opcua says that its variable Counter was."""
    first = server.nodes["Counter"]
    lines = [(first["value"], first["time"])] + [
        (line["value"], line["time"]) for line in server.truth[begin:] if line.get("change") == "Counter"
    ]
    return [(micros(dt.datetime.fromisoformat(time)), value) for value, time in lines]


async def test_many_cuts_of_node_opcua_lose_nothing(node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    with FaultProxy(server.port) as proxy:
        endpoint = server.endpoint.replace(str(server.port), str(proxy.port))
        counter = f"nsu={server.namespace};i=1020"
        async with Host(endpoint, device([counter], type="uint32", sampling=0)) as host:
            await host.until(lambda: all(host.rows().values()))
            server.run(60)
            for done in range(CUTS):
                await asyncio.to_thread(proxy.cut)
                await host.until(lambda: host.outages() > done and host.is_up())  # noqa: B023  waited for within the turn
            server.run(0)
            await asyncio.sleep(0)
            await host.until(lambda: host.last() == told(server, 0)[-1][1])
            end = told(server, 0)[-1][0]
            await host.until(lambda: host.complete_to() >= end)
        host.compare({0: told(server, 0)})
        assert host.outages() >= CUTS
