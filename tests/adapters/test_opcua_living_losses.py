"""What a link that lives has lost is read from the server's history; what the history is not shown to hold stays a gap."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from asyncua import ua
from asyncua.server.internal_subscription import InternalSubscription

from adapters.contract import Lost, Refilled, Samples
from adapters.opcua import _history, _losses
from adapters.opcua._backfill import INCOMPLETE, NOT_TO_LIVE
from schemas import status as codes
from schemas.wire import Cause, Flag
from tests.adapters.opcua_collector import Collector, link, node
from tests.adapters.opcua_collector import device as points_of
from tests.adapters.opcua_host import Host, Served, device
from tests.adapters.opcua_server import SIZE, SmallServer
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import NodeOpcUaServer

KEPT = 6
_history_kept, _readable = _history.kept, _losses.readable
ALL = [node(f"v{i}") for i in range(KEPT)]
PLAIN = [node(f"v{i}") for i in range(KEPT, SIZE)]
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MS = 1_000
OVERFLOW = 0x0480


def micros(at: dt.datetime) -> int:
    return (at - EPOCH) // dt.timedelta(microseconds=1)


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallServer]:
    with SmallServer() as running:
        for i in range(KEPT):
            variable = running.server.get_node(running.node(f"v{i}"))
            running.run(running.server.historize_node_data_change(variable))
        yield running


@pytest.fixture
def server(shared: SmallServer) -> Iterator[SmallServer]:
    """It keeps the history of v0 to v5."""
    shared.calls.clear()
    shared.drop_sequences.clear()
    shared.forget_sequences.clear()
    yield shared
    shared.end_sessions()
    mine = [number for number, each in shared.subscriptions.items() if each.pub_request_callback is not None]
    shared.run(shared.server.iserver.subscription_service.delete_subscriptions(mine))


@pytest.fixture
def overflow_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncua's server drops what does not fit and does not say so: here it does, as OPC 10000-4 §7.39.1 has it."""
    enqueue = InternalSubscription._enqueue_event

    async def telling(self: Any, mid: int, eventdata: Any, size: int, queue: dict[int, list[Any]]) -> None:
        full = 1 < size < 100 and len(queue.get(mid, ())) >= size
        await enqueue(self, mid, eventdata, size, queue)
        if full:
            first = queue[mid][0]
            first.Value = dataclasses.replace(first.Value, StatusCode=ua.StatusCode(OVERFLOW))

    monkeypatch.setattr(InternalSubscription, "_enqueue_event", telling)


def subscriptions(server: SmallServer) -> list[Any]:
    """Those of clients; the history has its own."""
    return [each for each in server.subscriptions.values() if each.pub_request_callback is not None]


class Writer:
    """Writes values that never were, and remembers them."""

    def __init__(self, server: SmallServer, first: int = 0, last: int = KEPT) -> None:
        self.server, self.variables = server, range(first, last)
        self.points = last - first
        self.served: dict[int, list[Served]] = {i - first: [] for i in self.variables}
        """Signal -> its rows; the first variable is signal 0."""
        self.write(ago=5.0)  # the history goes back before everything that a test does
        for i in self.variables:
            if i < KEPT:
                self._forget(i, self.served[i - first][0][1])

    def _forget(self, i: int, present: int) -> None:
        """The history begins with the present value, once that has come there: what was before is of other tests."""
        rows = self.server.server.iserver.history_manager.storage._datachanges[self.server.node(f"v{i}")]
        deadline = time.monotonic() + 10
        while not rows or rows[-1].Value.Value != present:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        del rows[:-1]

    def write(self, times: int = 1, ago: float = 0.0) -> None:
        """New values for each point, their source times so many seconds `ago`."""
        for _ in range(times):
            self.server.value += SIZE
            for signal, i in enumerate(self.variables):
                now = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)
                self.served[signal].append((micros(now), self.server.value + signal))
                self.server.write(f"v{i}", self.server.value + signal, SourceTimestamp=now)

    async def rush(self, times: int) -> None:
        """The same in the server's own loop, so that none of its publishing comes between."""
        for _ in range(times):
            self.server.value += SIZE
            for signal, i in enumerate(self.variables):
                now = dt.datetime.now(dt.UTC)
                self.served[signal].append((micros(now), self.server.value + signal))
                variant = ua.Variant(self.server.value + signal, ua.VariantType.Int64)
                await self.server.server.write_attribute_value(
                    self.server.node(f"v{i}"), ua.DataValue(variant, SourceTimestamp=now)
                )

    @property
    def end(self) -> int:
        return max(rows[-1][0] for rows in self.served.values())


async def settled(host: Host, writer: Writer) -> None:
    """All is subscribed, and one value came after the first."""
    await host.until(lambda: all(host.rows().values()))
    await asyncio.to_thread(writer.write)
    await host.until(lambda: host.complete_to() >= writer.end)


async def complete(host: Host, writer: Writer) -> None:
    """One more value, and everything is told to be there."""
    await asyncio.to_thread(writer.write)
    await host.until(lambda: host.complete_to() >= writer.end)


def nothing_missing(host: Host, served: dict[int, list[Served]]) -> None:
    """Nothing is missing, nothing was invented, no gap is left, and at no time was more promised than was there."""
    assert host.compare(served) == 0
    host.check_claims(served)
    assert host.gaps() == []
    assert host.outages() == 0
    assert any(row["flags"] & Flag.HISTORICAL for row in host.full_rows(0))


# ------------------------------------------------------------------------------------------------------------ each loss


@pytest.mark.usefixtures("overflow_bit")
@pytest.mark.parametrize("queue", [2, 5])
async def test_what_overflowed_while_publishing_stood_still(server: SmallServer, queue: int) -> None:
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL, queue=queue)) as host:
            await settled(host, writer)
            await asyncio.to_thread(proxy.half_open)
            await asyncio.to_thread(writer.write, 30)
            await asyncio.to_thread(proxy.restore)
            await complete(host, writer)
        assert any(row["flags"] & Flag.OVERFLOW for row in host.full_rows(0))
        nothing_missing(host, writer.served)


async def test_a_queue_that_came_full_after_a_pause(server: SmallServer) -> None:
    """Of a server that does not tell of an overflow: as many values as its queue holds, after a pause without a word."""
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL, queue=3)) as host:
            await settled(host, writer)
            await asyncio.to_thread(proxy.half_open)
            published = subscriptions(server)[0]
            await host.until(lambda: published._publish_cycles_count > 0)  # no request is left there
            stood = time.monotonic()
            await host.until(lambda: time.monotonic() - stood > 0.4)
            await asyncio.to_thread(writer.write, 12)
            await asyncio.to_thread(proxy.restore)
            await complete(host, writer)
        nothing_missing(host, writer.served)


async def test_what_the_server_does_not_have_for_republish(server: SmallServer) -> None:
    writer = Writer(server)
    async with Host(server.endpoint, device(ALL)) as host:
        await settled(host, writer)
        (subscription,) = subscriptions(server)
        number = subscription._notification_seq
        server.drop_sequences.add(number)
        server.forget_sequences.add(number)
        await asyncio.to_thread(writer.write)
        await host.until(lambda: not server.drop_sequences)
        await complete(host, writer)
        assert server.calls["republish"] == 1
    nothing_missing(host, writer.served)


@pytest.mark.parametrize("status", [codes.BAD_TIMEOUT, 0x002D0000], ids=["BadTimeout", "GoodSubscriptionTransferred"])
async def test_a_subscription_that_the_server_ended(
    server: SmallServer, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values change before it is made anew; the new one tells only the last of them."""
    writer = Writer(server)
    service = server.server.iserver.subscription_service
    create = service.create_monitored_items

    async def meanwhile(params: Any) -> Any:
        await writer.rush(3)
        return await create(params)

    async with Host(server.endpoint, device(ALL)) as host:
        await settled(host, writer)
        first = subscriptions(server)
        monkeypatch.setattr(service, "create_monitored_items", meanwhile)
        await asyncio.to_thread(server.end_subscriptions, status)
        await host.until(lambda: subscriptions(server) and subscriptions(server)[0] is not first[0])
        await host.until(lambda: all(len(rows) >= 5 for rows in writer.served.values()))
        await complete(host, writer)
    nothing_missing(host, writer.served)


async def test_losses_at_node_opcua(node_opcua_server: NodeOpcUaServer) -> None:
    """Another stack: its own overflow bits, its own refusal of Republish, its own end of a subscription."""
    server = node_opcua_server
    address = f"nsu={server.namespace};i=1020"
    served: list[Served] = [(micros(dt.datetime.fromisoformat(server.nodes["Counter"]["time"])), 0)]

    def put(value: int, give: Callable[..., None] = server.set) -> None:
        at = max(served[-1][0] // MS + 1, time.time_ns() // 1_000_000)
        served.append((at * MS, value))
        give("Counter", value, time=(EPOCH + dt.timedelta(milliseconds=at)).isoformat().replace("+00:00", "Z"))

    async def told() -> None:
        put(served[-1][1] + 1)
        await host.until(lambda: host.complete_to() >= served[-1][0])

    server.keep_history("Counter")
    with FaultProxy(server.port) as proxy:
        endpoint = server.endpoint.replace(str(server.port), str(proxy.port))
        async with Host(endpoint, device([address], type="uint32", sampling=0, queue=4)) as host:
            await host.until(lambda: all(host.rows().values()))
            await told()
            await asyncio.to_thread(proxy.half_open)
            for value in range(100, 160):
                put(value)
            await host.until(lambda: len(server.truth) >= 61)
            await asyncio.to_thread(proxy.restore)
            await told()
            assert any(row["flags"] & Flag.OVERFLOW for row in host.full_rows(0))
            put(1_000, server.lose)
            await told()
            assert host.host.counters().errors["lost"] == 1
            server.expire()
            for value in range(2_000, 2_020):
                put(value)
            await told()
        nothing_missing(host, {0: served})


# -------------------------------------------------------------------------------------------------------- what stays a gap


async def lose_one(host: Collector, server: SmallServer, writer: Writer) -> None:
    """One notification is gone for good; the next one comes."""
    await host.until(lambda: all(host.rows(i) for i in range(writer.points)))
    await asyncio.to_thread(writer.write)
    await host.until(lambda: any((item.complete_to or 0) >= writer.end for item in host.of(Samples)))
    (subscription,) = subscriptions(server)
    number = subscription._notification_seq
    server.drop_sequences.add(number)
    server.forget_sequences.add(number)
    await asyncio.to_thread(writer.write)
    await host.until(lambda: not server.drop_sequences)
    await asyncio.to_thread(writer.write)


async def test_points_without_history_keep_the_gap_and_the_others_do_not(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, points_of([ALL[-1], PLAIN[0]]))) as host:
        writer = Writer(server, KEPT - 1, KEPT + 1)
        await lose_one(host, server, writer)
        await host.until(lambda: host.of(Refilled))
        (answer,) = host.of(Refilled)
        assert [lost.points for lost in answer.lost] == [[0, 1]]
        assert [(lost.points, lost.cause) for lost in answer.rest] == [([1], Cause.LOST)]
        assert answer.rest[0].start <= writer.served[1][2][0] <= answer.rest[0].end
        assert answer.rest[0].detail.endswith("no history")
        assert set(writer.served[0]) <= {(row["source"], row["value"]) for row in host.rows(0)}


@contextlib.asynccontextmanager
async def keeping(server: SmallServer, keeps: Callable[[Any], bool]) -> AsyncIterator[None]:
    """The history gets only those DataValues."""
    storage = server.server.iserver.history_manager.storage
    save = storage.save_node_value

    async def choose(node_id: Any, value: Any) -> None:
        if keeps(value):
            await save(node_id, value)

    storage.save_node_value = choose
    try:
        yield
    finally:
        storage.save_node_value = save


@pytest.mark.parametrize(
    ("lacking", "detail"),
    [((2, 3), INCOMPLETE), ((3, 4), NOT_TO_LIVE)],
    ids=["the next live value", "the present value"],
)
async def test_a_history_with_holes_of_its_own_fills_nothing(
    server: SmallServer, lacking: tuple[int, ...], detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it lacks a value that came live it may lack what was lost too, also what lies before the one that is known to be lacking."""
    written: list[Any] = []
    writer = Writer(server, last=1)

    def keeps(value: Any) -> bool:
        written.append(value.Value.Value)
        return len(written) not in lacking

    def readable(items: Any) -> Any:
        server.run(writer.rush(1))  # just before the present value is read
        return _readable(items)

    monkeypatch.setattr("adapters.opcua._losses.readable", readable)
    if 4 in lacking:
        monkeypatch.setattr("adapters.opcua._backfill._LAGS", (0.01,))
    async with Collector(link(server.endpoint, points_of(ALL[:1]))) as host, keeping(server, keeps):
        await lose_one(host, server, writer)
        await host.until(lambda: host.of(Refilled))
        (answer,) = host.of(Refilled)
        assert [(lost.start, lost.end, lost.points) for lost in answer.rest] == [
            (lost.start, lost.end, lost.points) for lost in answer.lost
        ]
        assert answer.rest[0].detail.endswith(detail)


async def test_a_history_that_does_not_go_on_fills_nothing(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.opcua._backfill._LAGS", (0.01,))
    writer = Writer(server, last=1)
    async with Collector(link(server.endpoint, points_of(ALL[:1]))) as host, keeping(server, lambda value: False):
        await lose_one(host, server, writer)
        await host.until(lambda: host.of(Refilled))
        (answer,) = host.of(Refilled)
        assert len(answer.rest) == 1
        assert (answer.rest[0].start, answer.rest[0].end) == (answer.lost[0].start, answer.lost[0].end)


@pytest.mark.usefixtures("overflow_bit")
async def test_a_server_without_history_is_asked_once(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next loss of these points is told without, and one that leaves their newest value known at once."""
    asked: list[int] = []

    async def kept(session: Any, nodes: Sequence[Any]) -> list[bool]:
        asked.append(len(nodes))
        return await _history_kept(session, nodes)

    monkeypatch.setattr("adapters.opcua._history.kept", kept)
    spec = points_of([{"node": each, "queue": 2} for each in PLAIN], period=0.2)
    async with Collector(link(server.endpoint, spec)) as host:
        writer = Writer(server, KEPT, SIZE)
        for _ in range(2):
            answers = len(host.of(Refilled))
            await lose_one(host, server, writer)
            await host.until(lambda: len(host.of(Refilled)) > answers)  # noqa: B023  waited for within the turn
        assert [answer.rest == answer.lost for answer in host.of(Refilled)] == [True, True]
        server.run(writer.rush(10))
        await host.until(lambda: host.of(Lost))
        assert host.of(Lost)[0].cause == Cause.OVERRUN
        assert asked == [2]


async def test_the_present_value_is_right_where_the_history_is_not(server: SmallServer) -> None:
    """The lost value is the one that the signal has now, and for hours: no history, and no subscription, tells it any more."""
    async with Host(server.endpoint, device([PLAIN[0], PLAIN[1]])) as host:
        one, other = Writer(server, KEPT, KEPT + 1), Writer(server, KEPT + 1, KEPT + 2)
        await host.until(lambda: host.complete_to() >= max(one.end, other.end))
        (subscription,) = subscriptions(server)
        number = subscription._notification_seq
        server.drop_sequences.add(number)
        server.forget_sequences.add(number)
        await asyncio.to_thread(one.write)
        await host.until(lambda: not server.drop_sequences)
        await asyncio.to_thread(other.write)
        await host.until(lambda: host.complete_to() >= other.end)
        assert host.last(0) == one.served[0][-1][1]
        assert [gap.cause for gap in host.gaps()] == [Cause.LOST]
        host.check_claims({0: one.served[0][1:], 1: other.served[0][1:]})


# ------------------------------------------------------------------------------------------------------------- meanwhile


@contextlib.asynccontextmanager
async def standing(server: SmallServer) -> AsyncIterator[list[int]]:
    """Every HistoryRead waits until the end of the block; how many wait at once, each time one comes."""
    manager = server.server.iserver.history_manager
    original, waiting, counts = manager.read_history, 0, []
    go = asyncio.Event()

    async def read(params: Any) -> Any:
        nonlocal waiting
        waiting += 1
        counts.append(waiting)
        await go.wait()
        waiting -= 1
        return await original(params)

    manager.read_history = read
    try:
        yield counts
    finally:
        server._loop.call_soon_threadsafe(go.set)
        manager.read_history = original


async def test_live_values_go_on_and_nothing_is_complete_while_the_history_is_read(server: SmallServer) -> None:
    writer = Writer(server)
    async with Host(server.endpoint, device(ALL)) as host:
        await settled(host, writer)
        (subscription,) = subscriptions(server)
        async with standing(server) as counts:
            number = subscription._notification_seq
            server.drop_sequences.add(number)
            server.forget_sequences.add(number)
            await asyncio.to_thread(writer.write)
            lost_at = writer.end
            await host.until(lambda: not server.drop_sequences)
            for _ in range(3):
                await asyncio.to_thread(writer.write)
                await host.until(lambda: host.last() == server.value)
            await host.until(lambda: counts)
            assert host.complete_to() < lost_at
        await complete(host, writer)
        assert max(counts) == 1
    nothing_missing(host, writer.served)


async def test_a_link_that_breaks_while_the_history_is_read(server: SmallServer) -> None:
    """Nothing was told to be complete, so the outage begins before the loss, and is filled with it."""
    with FaultProxy(server.port) as proxy:
        writer = Writer(server)
        async with Host(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL)) as host:
            await settled(host, writer)
            (subscription,) = subscriptions(server)
            async with standing(server) as counts:
                number = subscription._notification_seq
                server.drop_sequences.add(number)
                server.forget_sequences.add(number)
                await asyncio.to_thread(writer.write)
                await host.until(lambda: not server.drop_sequences)
                await asyncio.to_thread(writer.write)
                await host.until(lambda: counts)
                await asyncio.to_thread(proxy.cut)
                await host.until(lambda: host.outages() == 1)
            await host.until(host.is_up)
            await complete(host, writer)
        assert host.compare(writer.served) == 0
        host.check_claims(writer.served)
        assert host.gaps() == []


@pytest.mark.usefixtures("overflow_bit")
async def test_a_loss_while_an_outage_is_being_filled(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer for the outage does not make the group complete over the loss."""
    writer = Writer(server)
    await asyncio.to_thread(writer.write)
    manager = server.server.iserver.history_manager
    original, calls = manager.read_history, 0
    asked, lost, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def kept(session: Any, nodes: Sequence[Any]) -> list[bool]:
        asked.set()
        await lost.wait()
        return await _history_kept(session, nodes)

    monkeypatch.setattr("adapters.opcua._history.kept", kept)

    async def read(params: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:  # the first two are the outage's: the last value before it, and what was in it
            await told.wait()
        return await original(params)

    host = Host(server.endpoint, device(ALL, queue=2))
    host.host.resume_after_restart({"d": {"default": writer.end}})
    manager.read_history = read
    try:
        async with host:
            await host.until(lambda: asked.is_set() and all(host.rows().values()))
            server.run(writer.rush(10))
            lost_at = writer.end
            await host.until(lambda: host.last() == server.value)
            lost.set()
            await host.until(lambda: calls > 2)
            await host.until(host.complete_to)
            assert host.complete_to() < lost_at
            server._loop.call_soon_threadsafe(told.set)
            await complete(host, writer)
    finally:
        server._loop.call_soon_threadsafe(told.set)
        manager.read_history = original
    # the first value was stored before the outage
    nothing_missing(host, {signal: rows[1:] for signal, rows in writer.served.items()})


async def test_losses_of_two_groups_are_read_one_after_the_other(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = 0
    raw = _history.raw

    async def slow(*args: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.3)  # how long it takes: longer than the ends of the two subscriptions are apart
        now -= 1
        return await raw(*args)

    monkeypatch.setattr("adapters.opcua._history.raw", slow)
    spec = link(server.endpoint, points_of(ALL[:1]), points_of(ALL[1:2], name="oven", first=1))
    async with Collector(spec) as host:
        writer = Writer(server, last=2)
        await host.until(lambda: host.last(1) == server.value + 1 and host.last(0) == server.value)
        assert len(subscriptions(server)) == 2
        await asyncio.to_thread(server.end_subscriptions, codes.BAD_TIMEOUT)
        await asyncio.to_thread(writer.write)
        await host.until(lambda: {item.device for item in host.of(Refilled)} == {"press", "oven"})
        assert most == 1
        assert [item.rest for item in host.of(Refilled)] == [[], []]
