"""What breaks in a workshop, against the truth of the servers: restarts, other namespaces, small servers, a gateway that was
down. After each, what is stored and what the servers had agree, within recorded gaps."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator

import pytest
from asyncua import ua

from schemas.wire import Cause, Flag
from tests.adapters.opcua_collector import node
from tests.adapters.opcua_host import Host, Served, device, while_running
from tests.adapters.opcua_server import MACHINE, OTHER, SIZE, SmallServer
from tests.adapters.test_opcua_resumption import Writer, told, via
from tests.collect.plans import INDEX
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import NodeOpcUaServer
from tests.servers.processes import free_port

ALL = [node(f"v{i}") for i in range(SIZE)]
LONG = bool(os.environ.get("LONG"))
RESTARTS = 60 if LONG else 2
pytestmark = pytest.mark.timeout(3_600 if LONG else 120)
MINUTE = 60_000_000


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture
def server(shared: SmallServer) -> Iterator[SmallServer]:
    yield shared
    shared.end_sessions()


async def complete(host: Host, writer: Writer) -> None:
    """Everything that was written is told to be there."""
    end = max(rows[-1][0] for rows in writer.served.values())
    await host.until(lambda: host.complete_to() >= end)


# -------------------------------------------------------------------------------------------------------------- restarts


async def test_a_server_that_is_restarted_again_and_again() -> None:
    """Also with its namespaces in another order: indices mean other things then. Its values begin anew."""
    port, served = free_port(), {i: list[Served]() for i in range(SIZE)}
    orders = ((MACHINE, OTHER), (OTHER, MACHINE))
    async with Host(f"opc.tcp://127.0.0.1:{port}/", device(ALL)) as host:
        for turn in range(RESTARTS + 1):
            small = SmallServer(port=port, namespaces=orders[turn % 2])
            await asyncio.to_thread(small.__enter__)
            try:
                small.value += 10_000 * turn
                writer = Writer(small)
                await host.until(lambda: host.outages() >= turn and host.is_up())  # noqa: B023  waited for within the turn
                for _ in range(5):
                    await asyncio.to_thread(writer.write)
                    await host.until(lambda: host.last() == small.value)  # noqa: B023  waited for within the turn
                await complete(host, writer)
                for i in range(SIZE):
                    served[i] += writer.served[i]
            finally:
                await asyncio.to_thread(small.__exit__)
    host.compare(served)
    assert host.outages() >= RESTARTS
    causes = {gap.cause for gap in host.gaps()}
    assert causes == {Cause.DISCONNECTED.value}
    assert len(host.gaps()) >= RESTARTS


async def test_node_opcua_killed_and_started(node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    counter = f"nsu={server.namespace};i=1020"
    async with Host(server.endpoint, device([counter], type="uint32", sampling=0)) as host:
        await host.until(lambda: host.complete_to() > 0)
        server.set("Counter", 41)
        await host.until(lambda: host.last() == 41)
        served = told(server, 0)
        begin = len(server.truth)
        await asyncio.to_thread(server.kill)
        await host.until(lambda: not host.is_up())
        await asyncio.to_thread(server.start)
        await host.until(host.is_up)
        server.set("Counter", 42)
        await host.until(lambda: host.last() == 42)
        end = told(server, begin)[-1][0]
        await host.until(lambda: host.complete_to() >= end)
    host.compare({0: served + told(server, begin)})
    (gap,) = host.gaps()
    assert gap.cause == Cause.DISCONNECTED
    assert gap.start < end


# -------------------------------------------------------------------------------------------------------- bad networks


async def test_stalls_cuts_and_pulled_cables(server: SmallServer) -> None:
    """In any order, while values come."""
    chance = random.Random(7)
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(via(proxy), device(ALL), timeout=0.4, heartbeat=0.2) as host:
            await host.until(lambda: host.complete_to() > 0)
            async with while_running(writer.on_and_on):
                for _ in range(60 if LONG else 6):
                    match chance.choice(["stall", "cut", "pull"]):
                        case "stall":
                            proxy.delay(chance.uniform(0.0, 0.15))
                            await asyncio.sleep(0.2)
                        case "cut":
                            await asyncio.to_thread(proxy.cut)
                        case "pull":
                            outages = host.outages()
                            await asyncio.to_thread(proxy.half_open)
                            await host.until(lambda: host.outages() > outages)  # noqa: B023  waited for within the turn
                    await asyncio.to_thread(proxy.restore)
                    await host.until(host.is_up)
            await complete(host, writer)
        host.compare(writer.served)


# ------------------------------------------------------------------------------------------------------- small servers


async def test_ten_items_a_call_and_a_link_that_breaks(server: SmallServer) -> None:
    """Every call is refused that asks for more, after each connect."""
    names = [f"x{i}" for i in range(35)]
    for name in names:
        await asyncio.to_thread(server.add, name, 1, ua.VariantType.Int64)
    server.limits |= {"read": 10, "items": 10, "translate": 10, "browse": 10}
    server.counts.clear()
    try:
        with FaultProxy(server.port) as proxy:
            async with Host(via(proxy), device([node(name) for name in names])) as host:
                await host.until(lambda: all(host.rows().values()))
                await host.until(lambda: host.complete_to() > 0)
                for turn in range(3):
                    await asyncio.to_thread(proxy.cut)
                    await host.until(lambda: host.outages() > turn and host.is_up())  # noqa: B023  waited for within the turn
                    for name in names:
                        await asyncio.to_thread(server.write, name, 10 + turn)
                    await host.until(lambda: all(host.last(i) == 10 + turn for i in range(35)))  # noqa: B023
        assert host.gaps() == []
    finally:
        server.limits.clear()


async def test_one_bad_node_of_many_costs_no_neighbour(node_opcua_server: NodeOpcUaServer) -> None:
    server = node_opcua_server
    counter = f"nsu={server.namespace};i=1020"
    many = [
        counter,
        f"nsu={server.namespace};s=NoSuchNode",
        *[f"nsu={server.namespace};i=1007"] * 4_998,
    ]
    with FaultProxy(server.port) as proxy:
        endpoint = server.endpoint.replace(str(server.port), str(proxy.port))
        async with Host(endpoint, device(many, type="uint32", sampling=0), timeout=20) as host:
            await host.until(lambda: sum(bool(rows) for rows in host.rows().values()) == len(many), 60)
            await host.until(lambda: host.complete_to() > 0)
            await asyncio.to_thread(proxy.refuse)
            await asyncio.to_thread(proxy.cut)
            await host.until(lambda: not host.is_up())
            server.set("Counter", 4711)
            await asyncio.to_thread(proxy.restore)
            await host.until(lambda: host.last() == 4711)
            await host.until(lambda: "s1" in host.troubles())
            assert set(host.troubles()) == {"s1"}
        assert not [gap for gap in host.gaps() if gap.points is None or gap.points != [INDEX + 1]]


# ------------------------------------------------------------------------------------------------ the gateway was down


async def test_a_gateway_that_was_down_fetches_what_it_missed(server: SmallServer) -> None:
    """From what the last process remembered: the values of the outage, flagged historical, and back to when nothing is missing."""
    nodes = [server.server.get_node(server.node(f"v{i}")) for i in range(SIZE)]
    for one in nodes:
        server.run(server.server.historize_node_data_change(one))
    try:
        writer = Writer(server)
        async with Host(server.endpoint, device(ALL)) as first:
            await first.until(lambda: first.complete_to() > 0)
            await asyncio.to_thread(writer.write)
            await complete(first, writer)
        before = first.complete_to()
        for _ in range(40):
            await asyncio.to_thread(writer.write)
        second = Host(server.endpoint, device(ALL))
        second.host.resume_after_restart({"d": {"default": before}})
        async with second:
            await asyncio.to_thread(writer.write)
            await complete(second, writer)
            await second.until(lambda: second.back_to())
        assert second.back_to() == [before]
        assert second.gaps() == []
        for i in range(SIZE):
            stored = set(first.rows()[i]) | set(second.rows()[i])
            assert stored == set(writer.served[i])
        again = [row for row in second.full_rows(0) if (row["ts"], row["value"]) in set(first.rows()[0])]
        assert all(row["flags"] & (Flag.HISTORICAL | Flag.INITIAL) for row in again)  # by which the store knows them
    finally:
        for one in nodes:
            server.run(server.server.dehistorize_node_data_change(one))
