"""Serve's memory: what it knows after commits, holes, new epochs, and when the bus or a collector is silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gateway.api._recent import KEEP, Recent
from gateway.api.live import Change, Live
from gateway.ledger.steps import StoreWeatherError
from schemas.wire import Committed, Link, Row
from tests.api.shop import SECOND, T0, Shop, imm, meter, move_stamps
from tests.servers.waiting import eventually_async
from tests.store.feed import Feed


class Ear:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Change | None] = []

    def tell(self, change: Change) -> None:
        self.heard.append(change)

    def reset(self) -> None:
        self.heard.append(None)

    @property
    def numbers(self) -> list[int | None]:
        return [None if change is None else change.commit_no for change in self.heard]


async def in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


@contextlib.asynccontextmanager
async def running(shop: Shop, **options: Any) -> AsyncIterator[Live]:
    """A `Live` over the shop, until the end of the block."""
    reader = options.pop("reader", shop.reader)
    live = Live(
        reader, shop.topics, shop.bus, in_thread, now_us=shop.clock.now, monotonic=shop.clock.monotonic, **options
    )
    task = asyncio.create_task(live.run())
    try:
        yield live
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def loaded(live: Live, loads: int = 1) -> None:
    await eventually_async(lambda: live.numbers.loads >= loads and live.loaded, what="the store is read")


def state(live: Live) -> str:
    return live.health.state


def value(live: Live, name: str) -> Any:
    signal = live.catalog.find(name)
    assert signal is not None
    return live.entries[signal.id].row.value


async def test_start_loads_the_store(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        assert (live.epoch, live.commit_no) == (shop.writer.epoch, shop.writer.commit_no)
        assert value(live, "imm-01/cycle/last_time") == 23.5
        assert live.seen == {"imm-01": {"default": T0 + SECOND}, "meter-01": {"default": T0 + SECOND}}
        assert state(live) == "ok"


async def test_commits_are_applied_in_order(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        ear = Ear()
        live.listeners.add(ear)
        first = shop.writer.commit_no
        for second in range(1, 6):
            shop.rows((1, second, 23.5 + second))
        await eventually_async(lambda: live.commit_no == first + 5)
        assert value(live, "imm-01/cycle/last_time") == 28.5
        assert ear.numbers == [first + 1, first + 2, first + 3, first + 4, first + 5]
        assert live.numbers.loads == 1


async def test_an_older_reading_does_not_move_latest(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        shop.rows((1, 10, 1.0))
        shop.rows((1, 5, 2.0), (1, 10, 3.0, 0, 0, 1))
        await eventually_async(lambda: live.commit_no == shop.writer.commit_no)
        row = live.entries[1].row
        assert (row.ts, row.n, row.value) == (T0 + 10 * SECOND, 1, 3.0)


async def test_commits_during_the_load_are_kept_and_applied_once(shop: Shop) -> None:
    """The snapshot has the first of three commits; the other two arrive while it is being read."""
    shop.fill()
    entered, go_on = threading.Event(), threading.Event()
    reader = shop.reader
    snapshot = reader.snapshot

    class Slow:
        assets, devices, signals, streams = reader.assets, reader.devices, reader.signals, reader.streams

        @staticmethod
        def snapshot() -> Any:
            found = snapshot()
            entered.set()
            assert go_on.wait(10)
            return found

    async with running(shop, reader=Slow()) as live:
        ear = Ear()
        live.listeners.add(ear)
        applied = shop.rows((1, 1, 1.0), tell=False)
        await eventually_async(entered.is_set)
        at = shop.writer.commit_no
        shop.tell(applied)  # known to the snapshot already, or not: both must be right
        shop.rows((1, 2, 2.0))
        shop.rows((1, 3, 3.0))
        assert not live.loaded
        go_on.set()
        await eventually_async(lambda: live.commit_no == at + 2)
        assert value(live, "imm-01/cycle/last_time") == 3.0
        assert [number for number in ear.numbers if number is not None][-2:] == [at + 1, at + 2]


async def test_a_hole_makes_it_read_the_store_again(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        ear = Ear()
        live.listeners.add(ear)
        shop.rows((1, 1, 1.0), tell=False)
        shop.rows((1, 2, 2.0))
        await loaded(live, 2)
        await eventually_async(lambda: live.commit_no == shop.writer.commit_no)
        assert value(live, "imm-01/cycle/last_time") == 2.0
        assert live.numbers.holes == 1
        assert ear.heard[0] is None  # those who listen begin anew
        assert live.since(live.epoch, live.commit_no) == []
        assert live.since(live.epoch, live.commit_no - 1) is None


async def test_another_epoch_makes_it_read_the_store_again(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        epoch = live.epoch
        shop.writer.raise_epoch()
        shop.rows((1, 1, 1.0))
        await eventually_async(lambda: live.epoch == epoch + 1)
        assert live.commit_no == shop.writer.commit_no
        assert value(live, "imm-01/cycle/last_time") == 1.0
        old = Committed(epoch, live.commit_no + 1, [Row(1, T0 + 99 * SECOND, 0, 99.0)], [], [])
        shop.bus.deliver(shop.topics.committed(live.store_id), msgspec.msgpack.encode(old))
        shop.rows((1, 2, 2.0))
        await eventually_async(lambda: value(live, "imm-01/cycle/last_time") == 2.0)


async def test_the_bus_back_again_makes_it_read_the_store_again(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        ear = Ear()
        live.listeners.add(ear)
        shop.bus.connect()
        await loaded(live, 2)
        assert ear.heard == []  # nothing was missed, nobody is troubled
        shop.rows((1, 1, 1.0), tell=False)
        shop.bus.connect()
        await loaded(live, 3)
        assert ear.heard == [None]
        assert value(live, "imm-01/cycle/last_time") == 1.0


async def test_a_repeated_message_changes_nothing(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        ear = Ear()
        live.listeners.add(ear)
        applied = shop.rows((1, 1, 1.0))
        shop.tell(applied)
        shop.rows((1, 2, 2.0))
        shop.tell(applied)
        await eventually_async(lambda: value(live, "imm-01/cycle/last_time") == 2.0)
        await eventually_async(lambda: not live._inbox)
        assert len(ear.heard) == 2
        assert live.numbers.loads == 1


async def test_a_store_put_back_is_noticed_by_its_numbers(shop: Shop) -> None:
    """The same epoch, an old number, another content: the store was restored and nobody has said so yet."""
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        shop.clock.move(10)
        other = Committed(live.epoch, live.commit_no, [Row(1, T0 + 50 * SECOND, 0, 50.0)], [], [])
        shop.bus.deliver(shop.topics.committed(live.store_id), msgspec.msgpack.encode(other))
        await loaded(live, 2)
        assert value(live, "imm-01/cycle/last_time") == 23.5


async def test_words_of_another_store_are_not_heard(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        message = Committed(live.epoch, live.commit_no + 1, [Row(1, T0 + 50 * SECOND, 0, 50.0)], [], [])
        shop.bus.deliver(shop.topics.committed("another"), msgspec.msgpack.encode(message))
        await eventually_async(lambda: live.numbers.foreign == 1)
        assert value(live, "imm-01/cycle/last_time") == 23.5


async def test_rubbish_on_the_topic_costs_one_reading_of_the_store(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        shop.bus.deliver(shop.topics.committed(live.store_id), b"\xff\x00rubbish")
        await loaded(live, 2)
        shop.rows((1, 1, 1.0))
        await eventually_async(lambda: value(live, "imm-01/cycle/last_time") == 1.0)
        assert live.numbers.unreadable == 1


async def test_without_a_bus_the_store_is_asked(shop: Shop) -> None:
    shop.fill()
    async with running(shop, poll=0.05) as live:
        await loaded(live)
        shop.rows((1, 1, 1.0), tell=False)
        shop.clock.move(1)
        await eventually_async(lambda: value(live, "imm-01/cycle/last_time") == 1.0)
        loads = live.numbers.loads
        for _ in range(3):  # nothing new: the store is asked for its watermarks, and not read
            polls = live.numbers.polls
            shop.clock.move(1)
            await eventually_async(lambda polls=polls: live.numbers.polls > polls)  # type: ignore[misc]
        assert live.numbers.loads == loads


async def test_births_are_known_before_their_readings_are_told(shop: Shop) -> None:
    shop.fill([imm()])
    async with running(shop) as live:
        await loaded(live)
        names: list[str] = []

        class Namer(Ear):
            def tell(self, change: Change) -> None:
                names.extend(live.catalog.names[row.signal] for row in change.rows)

        live.listeners.add(Namer())
        digest = live.catalog.digest
        shop.commit(shop.feed.step(meter()), shop.feed.rows((11, 5, 1.5)))
        await eventually_async(lambda: names == ["meter-01/power/total"])
        assert live.catalog.digest != digest
        assert live.numbers.loads == 1


async def test_a_device_that_is_gone_and_back(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        device = live.catalog.devices["imm-01"]
        assert live.view(device).state == "connected"
        shop.commit(Link("imm-01", False, T0 + 5 * SECOND, "timeout"))
        await eventually_async(lambda: live.view(device).state == "disconnected")
        assert (live.view(device).reason, live.view(device).since) == ("timeout", T0 + 5 * SECOND)
        shop.commit(Link("imm-01", False, T0 + 7 * SECOND, "refused"))  # gone already: only the reason is news
        await eventually_async(lambda: live.view(device).reason == "refused")
        assert live.view(device).since == T0 + 5 * SECOND
        shop.bus.connect()
        await loaded(live, 2)
        assert (live.view(device).reason, live.view(device).since) == ("refused", T0 + 5 * SECOND)
        shop.commit(Link("imm-01", True, T0 + 9 * SECOND))
        await eventually_async(lambda: live.view(device).state == "connected")


async def test_a_silent_collector_makes_its_devices_unknown(shop: Shop) -> None:
    shop.fill([imm()])
    shop.clock.us = shop.feed.at
    async with running(shop, poll=0.05) as live:
        await loaded(live)
        ear = Ear()
        live.listeners.add(ear)
        device = live.catalog.devices["imm-01"]
        assert live.view(device).state == "connected"
        shop.clock.move(9)
        shop.commit(shop.feed.done(9, device="imm-01"))
        await eventually_async(lambda: live.commit_no == shop.writer.commit_no)
        shop.clock.move(9)
        polls = live.numbers.polls
        await eventually_async(lambda: live.numbers.polls > polls)
        assert live.view(device).state == "connected"
        shop.clock.move(2)
        await eventually_async(lambda: live.view(device).state == "unknown")
        assert live.view(device).reason == "collector_silent"
        assert ear.heard[-1] is not None
        assert ear.heard[-1].devices == ["imm-01"]
        assert not ear.heard[-1].numbered
        shop.commit(shop.feed.done(20, device="imm-01"))
        await eventually_async(lambda: live.view(device).state == "connected")


async def test_a_collector_is_alive_when_only_its_stream_moves(shop: Shop) -> None:
    """All its devices are gone, so that no progress names one: the watermark in the store is the sign of life."""
    shop.fill([imm()])
    shop.commit(Link("imm-01", False, T0 + SECOND, "timeout"), tell=False)
    shop.clock.us = shop.feed.at
    async with running(shop, poll=0.05) as live:
        await loaded(live)
        other = Feed("s2", "line2")
        for _ in range(4):
            shop.clock.move(4)
            move_stamps(shop.feed, shop.clock)
            shop.commit(Link("imm-01", False, T0 + SECOND, "timeout"), tell=False)
            shop.commit(other.birth(device="press"))
            await eventually_async(lambda: live.silence("line1") == 0)
        assert live.view(live.catalog.devices["imm-01"]).state == "disconnected"


async def test_a_device_of_a_collector_that_was_long_silent_at_the_start(shop: Shop) -> None:
    shop.fill([imm()])
    shop.clock.us = shop.feed.at + 3600 * SECOND
    async with running(shop, poll=0.05) as live:
        await loaded(live)
        await eventually_async(lambda: live.view(live.catalog.devices["imm-01"]).state == "unknown")


async def test_a_device_that_was_never_heard_of(shop: Shop) -> None:
    shop.commit(imm(), tell=False)
    async with running(shop) as live:
        await loaded(live)
        assert live.view(live.catalog.devices["imm-01"]).reason == "never_heard"


async def test_a_minute_of_commits_is_kept(shop: Shop) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        first = live.commit_no
        shop.rows((1, 1, 1.0))
        await eventually_async(lambda: live.commit_no == first + 1)
        shop.clock.move(KEEP / 2)
        shop.rows((1, 2, 2.0))
        await eventually_async(lambda: live.commit_no == first + 2)
        changes = live.since(live.epoch, first)
        assert changes is not None
        assert [change.rows[0].value for change in changes] == [1.0, 2.0]
        shop.clock.move(KEEP / 2 + 1)
        shop.rows((1, 3, 3.0))
        await eventually_async(lambda: live.commit_no == first + 3)
        assert live.since(live.epoch, first) is None
        again = live.since(live.epoch, first + 1)
        assert again is not None
        assert [change.commit_no for change in again] == [first + 2, first + 3]
        assert live.since(live.epoch, live.commit_no) == []
        assert live.since(live.epoch, live.commit_no + 1) is None
        assert live.since(live.epoch + 1, live.commit_no) is None


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api._recent.KEEP_BYTES", 1000)
    recent = Recent()
    recent.begin(10)
    for number in range(11, 21):
        recent.add(0.0, number, bytes([number]) * 300)
    assert recent.since(16) is None
    assert [payload[0] for payload in recent.since(17) or ()] == [18, 19, 20]
    assert recent.since(20) == []


async def test_a_store_that_cannot_be_read_is_a_state(shop: Shop) -> None:
    shop.fill()
    reader = shop.reader

    class Weather:
        away = True
        assets, devices, signals, streams = reader.assets, reader.devices, reader.signals, reader.streams

        def snapshot(self) -> Any:
            if self.away:
                raise StoreWeatherError("the database is not there", fix="Start it.")
            return reader.snapshot()

    weather = Weather()
    async with running(shop, reader=weather) as live:
        await eventually_async(lambda: state(live) == "recovering")
        assert (live.health.reason, live.health.fix) == ("the database is not there", "Start it.")
        weather.away = False
        await loaded(live)
        assert state(live) == "ok"
        weather.away = True
        shop.bus.connect()
        await eventually_async(lambda: state(live) == "recovering")
        assert value(live, "imm-01/cycle/last_time") == 23.5  # what is known stays known
        weather.away = False
        await eventually_async(lambda: state(live) == "ok")


@pytest.mark.parametrize("steps", [1, 7])
async def test_many_messages_at_once(shop: Shop, steps: int) -> None:
    shop.fill()
    async with running(shop) as live:
        await loaded(live)
        for second in range(50):
            shop.rows(*((1, 10 * second + step, float(second)) for step in range(1, steps + 1)))
        await eventually_async(lambda: live.commit_no == shop.writer.commit_no)
        assert live.numbers.rows == 50 * steps
        assert value(live, "imm-01/cycle/last_time") == 49.0
