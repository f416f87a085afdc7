"""The outbox's budget: how full it is, for how long there is room, and what gives way when it is spent.

| policy | from four fifths on | when it is spent |
|---|---|---|
| `oldest` | a warning | the oldest readings become tombstones |
| `newest` | a warning | no reading is taken until a twentieth is free |
| `thin` | one reading in 2, 4, 16, 100 (from 80, 85, 90, 95 %) | none |
| `block` | a warning | reading the devices stops until a twentieth is free |

Shares are of what waits for the store: confirmed messages, which are kept for a store that is restored, give way first.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.collect.items import Readings
from gateway.ledger.outbox import WAL_LIMIT
from schemas.bilingual import Bilingual
from schemas.wire import Cause, Gap, State

Policy = Literal["oldest", "newest", "thin", "block"]

WARN = 0.8
_RELIEVED = 0.95
_DRAINED = 0.7
"""Under `oldest` there is always some room, made at others' cost: it is over once the store has taken something away."""
_STEPS = ((1.0, 0), (0.95, 100), (0.9, 16), (0.85, 4), (WARN, 2))
"""Share of the budget from which on policy `thin` takes one reading in so many; 0: none."""
_SAMPLE, _SAMPLES = 10.0, 61
"""Seconds between two looks at what was written, and how many are kept: ten minutes."""
_TELL_EVERY = 60.0
"""Seconds for which a figure in a reason stands."""
_NAMED_POINTS = 5_000
"""Signals that a gap names; of more it says that it is the whole device, so that it fits into a message."""
_OF_FREE, _LEAST = 0.8, 64 * 1024**2


@dataclass(slots=True)
class Health:
    """State of the outbox, with reason and fix."""

    state: State = "ok"
    reason: str = ""
    fix: str = ""


def log_limit(budget: int) -> int:
    """Bytes of the budget that the write-ahead log may take."""
    return min(WAL_LIMIT, budget // 8)


def affordable(budget: int, folder: Path) -> int:
    """The budget, or less where the disk of `folder` has not so much: what the outbox takes now and four fifths of what is free at the
    start. A disk that others fill later is a state of its own."""
    held = sum(file.stat().st_size for file in folder.glob("outbox.sqlite*") if ".damaged" not in file.name)
    return max(min(budget, held + int(shutil.disk_usage(folder).free * _OF_FREE)), min(budget, _LEAST))


class Budget:
    """See the module. `limit` in bytes on disk, the write-ahead log included."""

    def __init__(self, limit: int, policy: Policy, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.policy = limit, policy
        self.allowed = limit - log_limit(limit)
        """Bytes of the file that may be in use."""
        self.spent = False
        self.take_one_in = 1
        """Of so many readings one is taken; 0: none."""
        self._monotonic = monotonic
        self._written: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._told = (float("-inf"), Health())

    def look(self, size: int, waiting: int, written: int) -> Health:
        """To be called after each commit with the bytes in use, those of them that wait for the store, and all that was ever written."""
        self._sample(written)
        share = waiting / self.allowed
        over = size > self.allowed or share >= 1
        self.spent = over or (self.spent and share >= (_DRAINED if self.policy == "oldest" else _RELIEVED))
        self.take_one_in = self._one_in(share)
        if self.spent:
            return self._spent()
        if share >= WARN:
            return self._warning(waiting)
        self._told = (float("-inf"), Health())
        return Health()

    def _one_in(self, share: float) -> int:
        match self.policy:
            case "newest":
                return 0 if self.spent else 1
            case "thin":
                return 0 if self.spent else next((one for least, one in _STEPS if share >= least), 1)
            case _:
                return 1

    @property
    def rate(self) -> float | None:
        """Bytes on disk for each second, over the last ten minutes; None for the first ten seconds."""
        if len(self._written) < 2:
            return None
        (since, before), (until, now) = self._written[0], self._written[-1]
        return (now - before) / (until - since) if until > since else None

    def room(self, waiting: int) -> float | None:
        """Seconds until the budget is spent if the store confirms nothing from now on; None where the rate is not known, or nothing."""
        return max(self.allowed - waiting, 0) / self.rate if self.rate else None

    def _sample(self, written: int) -> None:
        now = self._monotonic()
        if not self._written or now - self._written[-1][0] >= _SAMPLE:
            self._written.append((now, written))

    def _spent(self) -> Health:
        what = f"{self.limit} bytes" if self.limit < 10**8 else f"{self.limit / 1e9:.1f} GB"
        what_zh = what.replace("bytes", "字节")
        return Health(
            "degraded",
            Bilingual(
                f"the outbox's budget of {what} is spent; policy {self.policy}",
                f"发件箱的额度 {what_zh} 已用完；策略 {self.policy}",
            ),
            Bilingual(
                "Bring back the bus and the store; or raise outbox.budget if the disk has room.",
                "请恢复总线与存储；若磁盘有余量，可调大 outbox.budget。",
            ),
        )

    def _warning(self, waiting: int) -> Health:
        told_at, told = self._told
        now = self._monotonic()
        if now - told_at < _TELL_EVERY:
            return told
        seconds = self.room(waiting)
        when = "" if seconds is None else f"; at this rate it is full in {days(seconds)}"
        when_zh = "" if seconds is None else f"；按目前的速度，{days(seconds, chinese=True)}后用完"
        held, limit = f"{waiting / 1e9:.3g} GB", f"{self.allowed / 1e9:.3g} GB"
        thinned = self.policy == "thin"
        health = Health(
            "degraded",
            Bilingual(
                f"the outbox holds {held} of {limit}{when}"
                + ("; policy thin drops readings already" if thinned else ""),
                f"发件箱已有 {held}，共 {limit}{when_zh}" + ("；策略 thin 已开始舍弃读数" if thinned else ""),
            ),
            Bilingual(
                f"Bring back the bus and the store, or raise outbox.budget; then policy {self.policy} decides what gives way.",
                f"请恢复总线与存储，或调大 outbox.budget；用完后由策略 {self.policy} 决定舍弃什么。",
            ),
        )
        self._told = (now, health)
        return health


def days(seconds: float, *, chinese: bool = False) -> str:
    """A time as people plan with it: days, below two of them hours, below two of those minutes."""
    for size, en, zh in ((86_400, "days", "天"), (3_600, "hours", "小时"), (60, "minutes", "分钟")):
        if seconds >= 2 * size or size == 60:
            return f"{seconds / size:.0f} {zh if chinese else en}"
    raise AssertionError("unreachable")


class Refused:
    """Readings that were not taken: what is missing of each device, until it is told as a gap. Kept in the outbox's memory meanwhile, since
    a process that is killed must not take it along; there without points, which mean something in their stream alone."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._gaps: dict[str, Gap] = {}
        self._points: dict[str, set[int]] = {}
        self._newest: dict[int, Readings] = {}

    def __bool__(self) -> bool:
        return bool(self._gaps)

    def add(self, readings: Readings, rows: list[int]) -> None:
        """These rows were not taken."""
        device, times = readings.device, [readings.ts[row] for row in rows]
        before = self._gaps.get(device)
        start, end, count = min(times), max(times), len(times)
        if before is not None:
            start, end, count = min(start, before.start), max(end, before.end), count + (before.count or 0)
        self._gaps[device] = Gap(device, None, start, end, Cause.DROPPED.value, count, f"policy {self._policy}")
        self._points.setdefault(device, set()).update(readings.points[row] for row in rows)
        for row in rows:
            held = self._newest.get(readings.points[row])
            if held is None or held.ts[0] <= readings.ts[row]:
                self._newest[readings.points[row]] = _row(readings, row)

    def taken(self, readings: Readings) -> None:
        """These were taken: what was refused of the same points before is history."""
        for point, ts in zip(readings.points, readings.ts, strict=True):
            held = self._newest.get(point)
            if held is not None and held.ts[0] <= ts:
                del self._newest[point]

    def take(self) -> tuple[list[Readings], list[Gap]]:
        """To be told, now that there is room: of each point the newest reading that was refused, if none was taken since, and the gaps for the
        others. Nothing is left here.

        An unchanged value is not stored again: without that reading an older one would stand as the present value, beyond the gap.
        """
        newest = list(self._newest.values())
        told = Counter(reading.device for reading in newest)
        found = [
            msgspec.structs.replace(
                gap, points=sorted(points) if len(points) <= _NAMED_POINTS else None, count=(gap.count or 0) - told[gap.device or ""]
            )
            for gap, points in zip(self._gaps.values(), self._points.values(), strict=True)
        ]  # fmt: skip
        self._gaps, self._points, self._newest = {}, {}, {}
        return newest, [gap for gap in found if gap.count]

    def dump(self) -> str:
        """As text, for the outbox's memory."""
        return msgspec.json.encode(list(self._gaps.values())).decode()


def _row(readings: Readings, row: int) -> Readings:
    """One row. Without `n`: what it was numbered after may be missing, and the store numbers it."""
    return Readings(
        readings.device, readings.group, readings.received, [readings.points[row]], [readings.ts[row]], [readings.values[row]],
        readings.status and [readings.status[row]], readings.flags and [readings.flags[row]], None,
        {0: readings.extra[row]} if readings.extra and row in readings.extra else None,
    )  # fmt: skip


def load_refused(text: str | None) -> list[Gap]:
    """What a process before this one had refused and not told."""
    return msgspec.json.decode(text, type=list[Gap]) if text else []


def thinned(readings: Readings, one_in: int) -> tuple[Readings, list[int]]:
    """What is taken when one row in `one_in` is (0: none), and the rows that are not."""
    rows = range(len(readings.points))
    keep = [i for i in rows if one_in and (readings.ts[i] // 1000 + i) % one_in == 0]
    kept = set(keep)

    def pick(column: list[Any]) -> list[Any]:
        return [column[i] for i in keep]

    extra = None
    if readings.extra:
        extra = {new: readings.extra[old] for new, old in enumerate(keep) if old in readings.extra}
    taken = Readings(
        readings.device, readings.group, readings.received, pick(readings.points), pick(readings.ts), pick(readings.values),
        readings.status and pick(readings.status), readings.flags and pick(readings.flags), readings.n and pick(readings.n), extra,
    )  # fmt: skip
    return taken, [i for i in rows if i not in kept]
