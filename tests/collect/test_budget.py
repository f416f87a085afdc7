"""The outbox's budget: each policy end to end, what is told before it is spent, and that what is dropped is what gaps say."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.collect.budget import Budget, Policy, Refused, affordable, days, load_refused, log_limit
from gateway.collect.items import Events, Gaps, Readings
from gateway.collect.recorder import REFUSED, Recorder
from gateway.ledger.outbox import Outbox
from schemas.wire import Birth, Done, Event, Extra, Gap, Kind, Link, Progress, Tombstone
from tests.collect.test_recorder import messages, recording

KB = 1024
BUDGET = 1024 * KB
ROWS = 500


class Source:
    """Devices that put rows with values that do not compress, and know what they put: (point, time)."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.put: set[tuple[int, int]] = set()
        self.others = 0
        self._at = itertools.count(1)
        self._random = random.Random(5)

    async def rows(self, many: int = ROWS, device: int = 0) -> None:
        at = next(self._at) * 1_000_000
        points = [device * 1000 + i for i in range(many)]
        times = [at + i for i in range(many)]
        self.put |= set(zip(points, times, strict=True))
        values: list[Any] = [self._random.random() for _ in points]
        await self.recorder.put(Readings(f"d{device}", "g", at, points, times, values))

    async def never_dropped(self) -> None:
        """One of each kind that no policy touches."""
        at = next(self._at) * 1_000_000
        self.recorder.put_now(Link("d0", True, at))
        self.recorder.put_now(Birth(at, "d0", "a"))
        self.recorder.put_now(Events([Event(str(at), at, None, "a", "d0", "t", 1)]))
        self.recorder.put_now(Gaps([Gap("d9", None, at, at, "stale")]))
        self.others += 4

    async def fill(self, steps: int, *, beat: bool = True) -> None:
        """So many commits, each with rows, now and then with the rest."""
        for step in range(steps):
            await self.rows(device=step % 2)
            if step % 10 == 0:
                await self.never_dropped()
            if beat:
                at = next(self._at) * 1_000_000
                await self.recorder.put(Progress(at, [Done("d0", "g", at)]))
                self.recorder.heartbeat()
            await self.recorder.commit()


def stored(recorder: Recorder) -> set[tuple[int, int]]:
    """(point, time) of every reading that the outbox still holds."""
    return {
        (point, batch.base + offset)
        for batch in (body for kind, body in messages(recorder) if kind == Kind.READINGS)
        for point, offset in zip(batch.points, batch.offsets, strict=True)
    }


def gaps(recorder: Recorder) -> Iterator[Gap]:
    """What tombstones and gaps say was dropped."""
    for _, body in messages(recorder):
        if isinstance(body, Tombstone):
            yield from body.gaps
        elif isinstance(body, list) and body and isinstance(body[0], Gap):
            yield from (gap for gap in body if gap.cause == "dropped")


def covered(row: tuple[int, int], told: list[Gap]) -> bool:
    point, at = row
    return any(gap.start <= at <= gap.end and (gap.points is None or point in gap.points) for gap in told)


def never_dropped(recorder: Recorder) -> int:
    kinds = [kind for kind, body in messages(recorder) if not (kind == Kind.GAP and body[0].cause == "dropped")]
    return sum(kind in (Kind.LINK, Kind.BIRTH, Kind.EVENT, Kind.GAP) for kind in kinds)


def relieve(recorder: Recorder) -> None:
    """The store has everything."""
    box = recorder.outbox
    box.set_confirmed(box.current, box.streams()[-1].high, 0.0)


async def test_oldest_gives_way_to_tombstones_and_the_file_keeps_its_size(tmp_path: Path) -> None:
    """Long after the budget is spent: progress between the readings does not leave a tombstone for every second."""
    async with recording(tmp_path, budget=BUDGET) as recorder:
        source = Source(recorder)
        await source.fill(400)
        left, told = stored(recorder), list(gaps(recorder))
        assert left < source.put
        assert all(covered(row, told) for row in source.put - left)
        assert sum(gap.count or 0 for gap in told) == recorder.numbers.dropped == len(source.put - left)
        assert never_dropped(recorder) == source.others
        newest = max(at for _, at in source.put)
        assert any(at == newest for _, at in left), "the newest are there"
        assert recorder.outbox.size <= recorder.budget.allowed
        assert recorder.outbox.on_disk <= BUDGET * 1.1
        stones = sum(kind == Kind.TOMBSTONE for kind, _ in messages(recorder))
        assert stones <= source.others + 1, "one between two messages that stay, at most"
        assert recorder.health.state == "degraded"
        assert "oldest" in recorder.health.reason


@pytest.mark.parametrize("policy", ["newest", "thin"])
async def test_what_is_not_taken_is_exactly_what_the_gap_says(tmp_path: Path, policy: Policy) -> None:
    async with recording(tmp_path, budget=BUDGET, policy=policy) as recorder:
        source = Source(recorder)
        await source.fill(400)
        assert recorder.budget.spent
        assert policy in recorder.health.reason
        assert recorder.outbox.size <= BUDGET, "bounded, whatever comes"
        left = stored(recorder)
        assert recorder.numbers.dropped == len(source.put - left)
        share = len(left) / len(source.put)
        last = max(at for _, at in left)
        assert share < 0.9
        if policy == "thin":  # it reaches further for the same bytes
            assert last > max(at for _, at in source.put) / 4
        relieve(recorder)
        await recorder.put(Readings("d0", "g", 0, [1], [1], [0.5]))
        for _ in range(3):  # the first makes room, the next ones are taken again
            await recorder.commit()
        told = list(gaps(recorder))
        assert all(covered(row, told) for row in source.put - left)
        assert sum(gap.count or 0 for gap in told) == recorder.numbers.dropped
        assert {gap.detail for gap in told} == {f"policy {policy}"}
        assert not recorder.budget.spent
        assert recorder.health.state == "ok"


async def test_thin_takes_less_and_less_as_the_budget_runs_out(tmp_path: Path) -> None:
    budget = Budget(1000 * KB, "thin")
    taken = []
    for percent in (50, 80, 85, 90, 95, 100):
        budget.look(0, budget.allowed * percent // 100, 0)
        taken.append(budget.take_one_in)
    assert taken == [1, 2, 4, 16, 100, 0]


async def test_what_was_not_taken_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    """The gap is not lost with the memory: the next process tells it, for the whole device, since points mean something in their stream only."""
    async with recording(tmp_path, budget=BUDGET, policy="newest") as recorder:
        source = Source(recorder)
        await source.fill(250, beat=False)
        recorder._refused_told = -1e9
        await recorder.commit()
        kept = recorder.outbox.meta(REFUSED)
        missing = source.put - stored(recorder)
    assert missing
    gone = Outbox(tmp_path / "outbox.sqlite")
    gone.set_meta(REFUSED, kept or "")  # as a kill would have left it
    gone.close()
    async with recording(tmp_path) as recorder:
        recorder.tell_refused()
        await recorder.commit()
        told = list(gaps(recorder))
        assert {gap.device for gap in told} == {"d0", "d1"}
        assert all(gap.points is None for gap in told)
        assert all(covered(row, told) for row in missing)
        await asyncio.get_running_loop().run_in_executor(recorder._thread, lambda: None)
        assert load_refused(recorder.outbox.meta(REFUSED)) == []


async def test_block_makes_the_reader_wait_and_drops_nothing(tmp_path: Path) -> None:
    async with recording(tmp_path, budget=BUDGET, policy="block") as recorder:
        source = Source(recorder)
        while not recorder.budget.spent:
            await source.fill(1)
        waiting = asyncio.ensure_future(source.rows())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        await source.never_dropped()  # does not wait
        relieve(recorder)
        async with asyncio.timeout(10):
            await waiting
        await recorder.commit()
        assert recorder.numbers.dropped == 0
        assert recorder.health.state == "ok"


async def test_confirmed_messages_give_way_before_anything_is_dropped(tmp_path: Path) -> None:
    """However many there are: what is kept for a restored store is worth less than what no store has."""
    async with recording(tmp_path, budget=BUDGET, policy="newest") as recorder:
        source = Source(recorder)
        for _ in range(2000):
            recorder._ready.append((Kind.EVENT, random.randbytes(300)))
        await recorder.commit()
        relieve(recorder)
        await source.fill(90)
        assert recorder.numbers.dropped == 0
        assert recorder.health.state == "ok"


def test_a_warning_says_how_full_it_is_and_for_how_long_there_is_room() -> None:
    now = [0.0]
    budget = Budget(10 * 10**9, "oldest", lambda: now[0])
    for step in range(13):
        now[0] = step * 10.0
        budget.look(10**9, 10**9, step * 10**6)
    assert budget.rate == 10**5
    assert budget.look(10**9, 10**9, 0).state == "ok"
    health = budget.look(9 * 10**9, 9 * 10**9, 13 * 10**6)
    assert health.state == "degraded"
    assert "holds 9 GB of 9.99 GB; at this rate it is full in 3 hours" in health.reason
    assert "约" not in health.reason
    assert "按目前的速度，3 小时后用完" in getattr(health.reason, "zh", "")
    assert "outbox.budget" in health.fix
    now[0] += 30
    assert budget.look(9_100_000_000, 9_100_000_000, 16 * 10**6) is health, "a figure stands for a minute"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 minutes"), (3600, "60 minutes"), (7200, "2 hours"), (172_800, "2 days"), (3e6, "35 days")],
)
def test_times_as_people_plan_with_them(seconds: float, text: str) -> None:
    assert days(seconds) == text


def test_the_budget_is_no_larger_than_the_disk_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(bytes(10**6))
    (tmp_path / "outbox.sqlite.damaged-1").write_bytes(bytes(10**6))
    free = [10**9]

    class Usage:
        @property
        def free(self) -> int:
            return free[0]

    monkeypatch.setattr("gateway.collect.budget.shutil.disk_usage", lambda _: Usage())
    assert affordable(10**10, tmp_path) == 10**6 + 8 * 10**8
    assert affordable(10**8, tmp_path) == 10**8
    free[0] = 0
    assert affordable(10**10, tmp_path) == 64 * 1024**2, "a disk that is full now may have room again"
    assert affordable(BUDGET, tmp_path) == BUDGET
    assert log_limit(BUDGET) == BUDGET // 8


def test_a_gap_of_very_many_signals_is_one_of_the_whole_device() -> None:
    refused = Refused("thin")
    for ts in (4, 5):
        refused.add(Readings("d", "g", 0, list(range(6000)), [ts] * 6000, [ts] * 6000), list(range(6000)))
    refused.add(Readings("e", "g", 0, [9001, 9007], [2, 9], [0, 0]), [1])
    refused.add(Readings("e", "g", 0, [9008], [4], [0]), [0])
    refused.taken(Readings("e", "g", 0, [9007, 9008], [10, 4], [0, 0]))
    newest, gaps = refused.take()
    assert gaps == [
        Gap("d", None, 4, 5, "dropped", 6000, "policy thin"),
        Gap("e", [9007, 9008], 4, 9, "dropped", 2, "policy thin"),
    ]
    assert [(one.points[0], one.ts[0], one.values[0]) for one in newest] == [(point, 5, 5) for point in range(6000)]
    assert not refused


@pytest.mark.parametrize("policy", ["newest", "thin"])
async def test_what_holds_since_it_was_refused_is_told_when_there_is_room(tmp_path: Path, policy: Policy) -> None:
    """A state that changed while the budget was spent, and not since, is not stored again by itself: the older one would stand for ever."""
    async with recording(tmp_path, budget=BUDGET, policy=policy) as recorder:
        source = Source(recorder)
        await source.fill(400)
        assert recorder.budget.spent
        bad, flag, beside = 0x80000000, 128, Extra(5, "raw")
        both = Readings("d7", "g", 0, [7001, 7002], [10, 20], [1.5, None], [0, bad], [0, flag], [0, 3], {1: beside})
        await recorder.put(both)
        await recorder.put(Readings("d7", "g", 0, [7001], [11], [2.5]))
        relieve(recorder)
        for _ in range(3):
            await recorder.commit()
        told = [body for kind, body in messages(recorder) if kind == Kind.READINGS and 7002 in body.points]
        assert len(told) == 1
        found = {
            point: (
                told[0].base + told[0].offsets[row], told[0].values[row], told[0].status[row], told[0].flags[row],
                told[0].extra.get(row),
            )
            for row, point in enumerate(told[0].points)
        }  # fmt: skip
        assert found[7001] == (11, 2.5, 0, 0, None)
        assert found[7002] == (20, None, bad, flag, beside)
        assert not any(told[0].n or ()), "what came before of that time is missing, and the store numbers it"
        (gap,) = (gap for gap in gaps(recorder) if gap.device == "d7")
        assert (gap.points, gap.start, gap.end, gap.count) == ([7001, 7002], 10, 20, 1)


async def test_a_sign_of_life_never_goes_ahead_of_what_was_refused(tmp_path: Path) -> None:
    """A process that is killed just then would have told that all is there."""
    async with recording(tmp_path, budget=BUDGET, policy="newest") as recorder:
        source = Source(recorder)
        await source.fill(400)
        recorder._refused_told = asyncio.get_running_loop().time()
        recorder._beat_at = -1e9
        await recorder.put(Readings("d7", "g", 0, [7001], [10], [1.5]))
        await recorder.put(Progress(11, [Done("d7", "g", 11)]))
        recorder.heartbeat()
        await recorder.commit()
        assert recorder.budget.spent
        assert "d7" in {gap.device for gap in load_refused(recorder.outbox.meta(REFUSED))}


async def test_a_tombstone_of_very_many_signals_fits_into_a_message(tmp_path: Path) -> None:
    """Named one by one they would not: then it is all of them. Overstated, never understated."""
    async with recording(tmp_path) as recorder:
        for first in range(0, 60_000, 1000):
            points = list(range(first, first + 1000))
            await recorder.put(Readings("d", "g", 0, points, [first] * 1000, [1.5] * 1000))
        await recorder.commit()
        recorder.outbox.drop_oldest(0)
        told = list(gaps(recorder))
        assert [(gap.points, gap.start, gap.end, gap.count) for gap in told] == [(None, 0, 59_000, 60_000)]
