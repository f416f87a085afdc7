"""An outage is filled from the server's history; what the history does not show to be there stays missing."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError

from adapters.contract import Missed, Recovered, Samples
from adapters.opcua import _history
from adapters.opcua._backfill import Backfill
from schemas.wire import Flag
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import SmallServer

MINUTE = 60_000_000
KEY = ("press", "fast")


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture
def server(shared: SmallServer) -> Iterator[SmallServer]:
    yield shared
    shared.end_sessions()
    storage = shared.server.iserver.history_manager.storage
    storage.max_history_data_response_size = 10_000


def now() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp() * 1e6)


class Past:
    """A historized variable, whose history is written as it pleases."""

    made = 0

    def __init__(self, server: SmallServer) -> None:
        Past.made += 1
        self.server, self.name = server, f"h{Past.made}"
        server.add(self.name, 0.0, ua.VariantType.Double)
        server.run(server.server.historize_node_data_change(server.server.get_node(server.node(self.name))))
        self.rows: list[Any] = server.server.iserver.history_manager.storage._datachanges[server.node(self.name)]
        deadline = time.monotonic() + 10
        while not self.rows:  # the value that it was made with comes by a subscription
            assert time.monotonic() < deadline
            time.sleep(0.002)
        self.rows.clear()

    def put(self, *pairs: tuple[int, float]) -> None:
        """Rows (µs, value) that the history holds."""
        for at, value in pairs:
            when = dt.datetime.fromtimestamp(at / 1e6, dt.UTC)
            self.rows.append(ua.DataValue(ua.Variant(value, ua.VariantType.Double), SourceTimestamp=when))

    def live(self, at: int, value: float) -> None:
        """The present value; the history gets it too."""
        self.server.write(
            self.name, value, ua.VariantType.Double, SourceTimestamp=dt.datetime.fromtimestamp(at / 1e6, dt.UTC)
        )


def recovered(host: Collector) -> Recovered | None:
    found = host.of(Recovered)
    assert len(found) <= 1
    return found[0] if found else None


def is_history(item: Any) -> bool:
    return isinstance(item, Samples) and item.flags is not None and bool(item.flags[0] & Flag.HISTORICAL)


def history(host: Collector, point: int) -> list[tuple[int | None, Any]]:
    rows = []
    for item in host.items:
        if isinstance(item, Samples) and item.source_ts is not None and is_history(item):
            rows += [(ts, v) for p, ts, v in zip(item.points, item.source_ts, item.values, strict=True) if p == point]
    return rows


async def filled(server: SmallServer, since: int, *names: str, **settings: Any) -> Collector:
    """A collector that was told `since`, after its answer."""
    host = Collector(link(server.endpoint, device([node(name) for name in names]), **settings))
    host.adapter.resume({KEY: since})
    async with host:
        await host.until(lambda: recovered(host) is not None)
    return host


# ---------------------------------------------------------------------------------------------------------- what is filled


async def test_an_outage_is_filled_with_source_times(server: SmallServer) -> None:
    past, begin = Past(server), now() - MINUTE
    values = [(begin + i * 1_000_000, float(i)) for i in range(50)]
    past.put((begin - MINUTE, -1.0), *values)
    past.live(now(), 50.0)
    host = await filled(server, begin - 500_000, past.name)
    answer = recovered(host)
    assert answer is not None
    assert (answer.missed, answer.timed) == ([], True)
    assert [row for row in history(host, 0) if row in values] == values
    live = next(row for row in host.rows(0) if row["value"] == 50.0)
    assert answer.end >= live["received"] - 1_000_000
    assert max(i for i, item in enumerate(host.items) if is_history(item)) < host.items.index(answer)


async def test_a_long_history_comes_in_pieces(server: SmallServer) -> None:
    """The server's own continuation points, and a server that ends at the number of values asked for and says nothing."""
    server.server.iserver.history_manager.storage.max_history_data_response_size = 400
    past, begin = Past(server), now() - MINUTE
    values = [(begin + i * 10_000, float(i)) for i in range(3_500)]
    past.put((begin - MINUTE, -1.0), *values)
    past.live(now(), 1.5)
    host = await filled(server, begin - 500_000, past.name)
    assert sorted(set(history(host, 0)) & set(values)) == values
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []


async def test_a_server_that_ends_early_is_asked_again(server: SmallServer) -> None:
    past, begin = Past(server), now() - MINUTE
    values = [(begin + i * 10_000, float(i)) for i in range(3 * _history.VALUES + 7)]
    past.put((begin - MINUTE, -1.0), *values)
    past.live(now(), 1.5)
    host = await filled(server, begin - 500_000, past.name)
    rows = history(host, 0)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []
    assert sorted(set(rows) & set(values)) == values
    assert len(rows) <= len(values) + 3  # nothing is read twice but what lies on an edge


async def test_many_points_in_calls_that_the_server_takes(server: SmallServer) -> None:
    pasts, begin = [Past(server) for _ in range(7)], now() - MINUTE
    for i, past in enumerate(pasts):
        past.put((begin - MINUTE, -1.0), (begin + 5, float(i)))
        past.live(now(), float(i) + 0.5)
    largest: list[int] = []
    manager = server.server.iserver.history_manager
    original = manager.read_history

    async def spy(params: Any) -> Any:
        largest.append(len(params.NodesToRead))
        if len(params.NodesToRead) > 2:
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)
        return await original(params)

    manager.read_history = spy
    try:
        host = await filled(server, begin, *[past.name for past in pasts])
    finally:
        manager.read_history = original
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []
    assert all((begin + 5, float(i)) in history(host, i) for i in range(7))
    assert largest[-1] <= 2


async def test_no_continuation_points_left_is_one_after_the_other(server: SmallServer) -> None:
    """BadNoContinuationPoints for one node of a call: the others go on, and it is read alone afterwards."""
    server.server.iserver.history_manager.storage.max_history_data_response_size = 20
    pasts, begin = [Past(server) for _ in range(3)], now() - MINUTE
    for i, past in enumerate(pasts):
        past.put((begin - MINUTE, -1.0), *[(begin + k * 1_000, 100.0 * i + k) for k in range(50)])
        past.live(now(), float(i) + 0.5)
    manager = server.server.iserver.history_manager
    original = manager.read_history

    async def spy(params: Any) -> Any:
        results = await original(params)
        given = 0
        for result in results:
            given += result.ContinuationPoint is not None
            if given > 1:
                result.StatusCode = ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints)
                result.ContinuationPoint, result.HistoryData = None, ua.HistoryData()
        return results

    manager.read_history = spy
    try:
        host = await filled(server, begin - 1, *[past.name for past in pasts])
    finally:
        manager.read_history = original
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []
    for i in range(3):
        assert {v for _, v in history(host, i)} >= {100.0 * i + k for k in range(50)}


# ----------------------------------------------------------------------------------------------------- what stays missing


async def test_a_server_without_history_says_so_at_once(server: SmallServer) -> None:
    host = await filled(server, now() - MINUTE, "v0", "v1")
    answer = recovered(host)
    assert answer is not None
    assert answer.missed is None
    assert history(host, 0) == []


async def test_points_without_history_stay_missing(server: SmallServer) -> None:
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0), (since + 5, 3.0))
    past.live(now(), 4.0)
    host = await filled(server, since, past.name, "v1")
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == [Missed((1,), since, answer.end, "no history")]
    assert (since + 5, 3.0) in history(host, 0)


async def test_a_history_that_began_anew_with_the_server(server: SmallServer) -> None:
    """Kept in memory, it is gone with a restart: what was before its first value is missing, whatever it holds since."""
    past, since = Past(server), now() - MINUTE
    first = since + 20_000_000
    past.put((first, 7.0), (first + 5, 8.0))
    past.live(now(), 9.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == [Missed(None, since, first, "the history begins later")]


async def test_a_history_that_does_not_come_up_to_the_live_values(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.opcua._backfill._LAGS", (0.01, 0.01))
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0), (since + 5, 3.0))
    await stop_keeping(server, past)
    past.live(now(), 4.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    (part,) = answer.missed or ()
    assert (part.points, part.start, part.end) == (None, since + 5, answer.end)


async def test_a_history_that_lags_is_waited_for(server: SmallServer) -> None:
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0), (since + 5, 3.0))
    await stop_keeping(server, past)
    at = now()
    past.live(at, 4.0)
    host = Collector(link(server.endpoint, device([node(past.name)])))
    host.adapter.resume({KEY: since})
    async with host:
        await host.until(lambda: (since + 5, 3.0) in history(host, 0))
        past.put((at, 4.0))
        await host.until(lambda: recovered(host) is not None)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []


async def test_a_frozen_clock_proves_nothing(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All source times are one and the same: the value is another than the last in the history, so something is missing."""
    monkeypatch.setattr("adapters.opcua._backfill._LAGS", ())
    past, since = Past(server), now() - MINUTE
    frozen = since - 10 * MINUTE
    past.put((frozen, 1.0))
    await stop_keeping(server, past)
    past.live(frozen, 2.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed
    assert answer.missed[0].points is None
    assert (answer.missed[0].start, answer.missed[0].end) == (since, answer.end)


@pytest.mark.parametrize(
    "status", ["BadHistoryOperationUnsupported", "BadUserAccessDenied"], ids=["unsupported", "denied"]
)
async def test_a_refused_history_is_a_gap_and_no_lost_link(server: SmallServer, status: str) -> None:
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0))
    past.live(now(), 4.0)
    manager = server.server.iserver.history_manager
    original = manager.read_history

    async def refuse(params: Any) -> Any:
        raise ServiceError(getattr(ua.StatusCodes, status))

    manager.read_history = refuse
    try:
        host = await filled(server, since, past.name)
    finally:
        manager.read_history = original
    answer = recovered(host)
    assert answer is not None
    assert answer.missed is None
    assert host.error is None


async def test_values_that_cannot_be_told_apart_end_the_search(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More values at one time than an answer holds: a server that goes on giving the same ones is not asked for ever."""
    monkeypatch.setattr("adapters.opcua._backfill._LAGS", ())
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0), *[(since + 5, float(i)) for i in range(2 * _history.VALUES)])
    past.live(now(), 4.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    (part,) = answer.missed or ()
    assert (part.start, part.end) == (since + 5, answer.end)


async def test_a_history_that_is_not_in_the_order_of_time(server: SmallServer) -> None:
    """Cut off by the number of values asked for, it does not show where to go on: shorter ranges do, which come whole."""
    past, since = Past(server), now() - MINUTE
    values = [(since + i * 1_000, float(i)) for i in range(4 * _history.VALUES)]
    mixed = [values[i] for k in range(7) for i in range(k, len(values), 7)]
    past.put((since - MINUTE, -1.0), *mixed)
    past.live(now(), 4.5)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == []
    rows = history(host, 0)
    assert [row for row in dict.fromkeys(rows) if row in set(values)] == values
    assert len(rows) <= len(values) + 20  # an edge is read twice, and nothing else


async def test_a_history_in_no_order_at_one_time_stays_a_gap(server: SmallServer) -> None:
    """More values within a millisecond than an answer holds: what came is kept, and nothing counts as filled."""
    past, since = Past(server), now() - MINUTE
    at = since + 20_000_000
    past.put((since - MINUTE, -1.0), *[(at + 13 * i % 400, float(i)) for i in range(2 * _history.VALUES)])
    past.live(now(), 4.5)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed == [Missed(None, since, answer.end, _history.DISORDERED)]
    assert len(history(host, 0)) >= _history.VALUES


async def test_a_history_longer_than_its_time(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    give = Backfill._give

    async def last(self: Backfill, *args: Any) -> None:
        await give(self, *args)
        self._until = 0.0

    monkeypatch.setattr(Backfill, "_give", last)
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0), *[(since + 5 + i, float(i)) for i in range(3 * _history.VALUES)])
    past.live(now(), 4.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    (part,) = answer.missed or ()
    assert part.start == since + 5 + _history.VALUES - 1
    assert part.end == answer.end


async def test_a_server_is_not_asked_beyond_the_time(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where none of its answers brings a value: thousands of empty ones take their time too."""
    monkeypatch.setattr("adapters.opcua._backfill.LONGEST", 0.0)
    asked: list[Any] = []
    monkeypatch.setattr(_history, "_ask", lambda *args: asked.append(args))
    past, since = Past(server), now() - MINUTE
    past.live(now(), 4.0)
    host = await filled(server, since, past.name)
    answer = recovered(host)
    assert answer is not None
    (part,) = answer.missed or ()
    assert (part.start, part.end) == (since, answer.end)
    assert part.detail == "not read within 0 s"
    assert not asked


async def test_a_clock_that_is_ahead(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing has its times, up to that of the first live value; the group is complete only up to now."""
    monkeypatch.setattr("adapters.opcua._backfill._LAGS", (0.01,))
    past, since = Past(server), now() - MINUTE
    past.put((since - MINUTE, -1.0))
    past.live(now() + 20_000_000, 4.0)
    answer = recovered(await filled(server, since, past.name))
    assert answer is not None
    assert answer.missed == []
    assert answer.end <= now()
    ahead = now() + 30_000_000
    past.live(ahead, 5.0)
    deadline = time.monotonic() + 10
    while past.rows[-1].Value.Value != 5.0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)
    del past.rows[-1]
    answer = recovered(await filled(server, since, past.name))
    assert answer is not None
    (part,) = answer.missed or ()
    assert part.end == ahead
    assert answer.end <= now()


async def test_a_slow_host_loses_no_history(server: SmallServer) -> None:
    past, begin = Past(server), now() - MINUTE
    values = [(begin + i * 1_000, float(i)) for i in range(3_000)]
    past.put((begin - MINUTE, -1.0), *values)
    past.live(now(), 4.0)
    host = Collector(link(server.endpoint, device([node(past.name)]), queue=100))
    host.adapter.resume({KEY: begin - 1})
    host.paused.clear()
    async with host:
        await asyncio.sleep(0)
        await host.until(lambda: bool(host.items))
        host.paused.set()
        await host.until(lambda: recovered(host) is not None)
    assert sorted(set(history(host, 0)) & set(values)) == values
    assert not host.lost()


async def test_a_device_without_its_root_is_answered_at_once(server: SmallServer) -> None:
    spec = link(server.endpoint, device(["Objects/NoSuch/x"], root="NoHall/NoPress"))
    host = Collector(spec)
    host.adapter.resume({KEY: 5})
    async with host:
        await host.until(lambda: recovered(host) is not None)
    answer = recovered(host)
    assert answer is not None
    assert answer.missed is None


async def stop_keeping(server: SmallServer, past: Past) -> None:
    """The history gets no more values, and goes on to be read."""
    manager = server.server.iserver.history_manager
    save: Callable[..., Any] = manager.storage.save_node_value

    async def drop(node_id: Any, value: Any) -> None:
        if node_id != server.node(past.name):
            await save(node_id, value)

    manager.storage.save_node_value = drop
