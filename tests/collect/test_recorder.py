"""The recorder: order, group commit, splitting, and what happens when the budget is spent or the disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.collect.budget import Policy, log_limit
from gateway.collect.items import Gaps, Readings
from gateway.collect.recorder import Recorder
from gateway.ledger.bodies import decode_body
from gateway.ledger.outbox import Outbox
from schemas.wire import MAX_MESSAGE, Batch, Done, Extra, Gap, Kind, Link, Progress
from tests.servers.waiting import eventually_async


@contextlib.asynccontextmanager
async def recording(folder: Path, *, budget: int = 10**9, policy: Policy = "oldest") -> AsyncIterator[Recorder]:
    outbox = Outbox(folder / "outbox.sqlite", "process", log_limit(budget))
    outbox.begin()
    thread = ThreadPoolExecutor(1)
    recorder = Recorder(outbox, thread, budget=budget, policy=policy, now_us=lambda: 77)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)  # a task that never ran has nothing to finish
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        thread.shutdown()
        outbox.close()


def messages(recorder: Recorder) -> list[tuple[Kind, Any]]:
    box = recorder.outbox
    return [(Kind(m.kind), decode_body(m.kind, m.body, m.enc)) for m in box.read(box.current, 1, 10_000, 10**9)]


def noise(first: int, rows: int) -> Readings:
    """Readings that do not compress."""
    values: list[Any] = [random.random() for _ in range(rows)]
    return Readings("d", "g", 0, list(range(rows)), [1000 + first + i for i in range(rows)], values)


def readings(first: int, rows: int = 1, value: Any = 1.5) -> Readings:
    return Readings("d", "g", 0, list(range(rows)), [1000 + first + i for i in range(rows)], [value] * rows)


async def test_one_order_and_durable_when_it_is_said(tmp_path: Path) -> None:
    durable: list[int] = []
    async with recording(tmp_path) as recorder:
        await recorder.put(readings(0), lambda: durable.append(len(messages(recorder))))
        await recorder.put(readings(1))
        await recorder.put(Link("d", False, 5, "power"))
        await recorder.put(readings(2))
        await recorder.put(Gaps([Gap("d", None, 1, 2, "disconnected")]))
        await recorder.put(Progress(0, [Done("d", "g", 9)]))
        assert durable == []
        recorder.heartbeat()
        await eventually_async(lambda: len(messages(recorder)) == 5)
        assert [kind for kind, _ in messages(recorder)] == [
            Kind.READINGS, Kind.LINK, Kind.READINGS, Kind.GAP, Kind.PROGRESS,
        ]  # fmt: skip
        assert messages(recorder)[0][1].offsets == [0, 1], "readings that follow each other share a message"
        assert messages(recorder)[-1][1] == Progress(77, [Done("d", "g", 9)])
        assert durable
        assert durable[0] > 0


async def test_what_waits_for_the_thread_when_it_ends_is_written_all_the_same(tmp_path: Path) -> None:
    outbox, thread, free = Outbox(tmp_path / "outbox.sqlite", "process"), ThreadPoolExecutor(1), threading.Event()
    outbox.begin()
    recorder = Recorder(outbox, thread, budget=10**9, policy="oldest", now_us=lambda: 77)
    task = asyncio.create_task(recorder.run())
    thread.submit(free.wait, 30)
    await recorder.put(readings(0, rows=3))
    await eventually_async(lambda: not recorder._columns.points and not recorder._ready)
    task.cancel()
    for _ in range(5):  # so that the cancellation comes to whatever it ends
        await asyncio.sleep(0)
    free.set()
    await asyncio.gather(task, return_exceptions=True)
    assert [len(body.points) for kind, body in messages(recorder) if kind == Kind.READINGS] == [3]
    thread.shutdown()
    outbox.close()


async def test_how_far_it_was_complete_outlives_the_process(tmp_path: Path) -> None:
    """Never ahead of what is durable; a device that is gone is forgotten."""
    async with recording(tmp_path) as recorder:
        assert recorder.load_complete_to(["d", "e"]) == {}
        await recorder.put(Progress(0, [Done("d", "g", 9), Done("e", "g", 7)]))
        recorder.heartbeat()
        await eventually_async(lambda: messages(recorder))
        await recorder.put(Progress(0, [Done("d", "g", 11)]))
        assert recorder.load_complete_to(["d", "e"]) == {"d": {"g": 9}, "e": {"g": 7}}
        await recorder.put(Progress(0, [Done("d", "g", 12)]))
    async with recording(tmp_path) as recorder:  # its end made the last of them durable
        assert recorder.load_complete_to(["d"]) == {"d": {"g": 12}}
        await recorder.put(Progress(0, [Done("d", "slow", 3)]))
    async with recording(tmp_path) as recorder:
        assert recorder.load_complete_to(["d", "e"]) == {"d": {"g": 12, "slow": 3}}


async def test_that_an_outage_was_filled_is_told_with_the_next_progress(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        await recorder.put(Progress(0, [Done("d", "g", 9, 2)]))
        await recorder.put(Progress(0, [Done("d", "g", 10)]))
        recorder.heartbeat()
        await eventually_async(lambda: messages(recorder))
        assert messages(recorder)[-1][1] == Progress(77, [Done("d", "g", 10, 2)])


async def test_columns_that_only_some_readings_have(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        await recorder.put(readings(0, 2))
        odd = Readings("d", "g", 0, [7], [1002], [None], [0x80000000], [1], [3], {0: Extra(5, "raw")})
        await recorder.put(odd)
        await recorder.put(readings(3, 1))
        await eventually_async(lambda: messages(recorder))
        ((_, batch),) = messages(recorder)
        assert batch == Batch(
            1000, [0, 1, 7, 0], [0, 1, 2, 3], [1.5, 1.5, None, 1.5], [0, 0, 0x80000000, 0], [0, 0, 1, 0], [0, 0, 3, 0],
            {2: Extra(5, "raw")},
        )  # fmt: skip


async def test_large_batches_are_split_to_fit(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        await recorder.put(readings(0, 10_000, "x" * 100))
        await eventually_async(lambda: sum(len(b.points) for _, b in messages(recorder)) == 10_000)
        box = recorder.outbox
        assert max(len(m.body) for m in box.read(box.current, 1, 1000, 10**9)) <= MAX_MESSAGE
        times = [b.base + o for _, b in messages(recorder) for o in b.offsets]
        assert times == [1000 + i for i in range(10_000)]


async def test_a_stop_makes_durable_what_was_put(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        await recorder.put(readings(0, 3))
    again = Outbox(tmp_path / "outbox.sqlite")
    assert again.streams()[0].high == 1


async def test_a_full_disk_is_a_state_and_costs_nothing(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        db = recorder.outbox._db
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0] + 2}")
        await recorder.put(noise(0, 3000))
        await eventually_async(lambda: recorder.health.state == "failed")
        assert "no space left" in recorder.health.reason
        assert recorder.health.fix
        db.execute("PRAGMA max_page_count=1000000")
        await eventually_async(lambda: recorder.health.state == "ok", 10)
        assert sum(len(b.points) for _, b in messages(recorder)) == 3000
