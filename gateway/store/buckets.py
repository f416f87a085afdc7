"""Buckets: what a signal did in each piece of time. One definition for every store, for queries and roll-ups alike.

A bucket is [start, end). Its numbers:

- `good`, `uncertain`, `bad`: how many readings have a ts in it, by quality (the top two bits of the status).
- `min`, `max`, `sum`, `first`, `last` (with their ts): of the readings in it that are good or uncertain and have a finite
  number; a boolean counts as 0 or 1, an integer beyond 2^53 as the nearest float8.
- `covered`: for how long (µs) of it the value was known. A value is known from its ts until the next reading of the signal,
  whatever that one's quality; a bad reading, a text, NaN or an infinity is not a number and covers nothing. The last reading
  before the bucket counts into it, so that an unchanged value that was not stored again still covers. The newest reading
  covers up to `complete_to` of its scan group, and not beyond.
- `average`: the time-weighted mean, the integral of that step function over the covered time divided by `covered`; None when
  nothing is covered.

While the device was not connected, or the collector was down, a value from before does not cover; it does again afterwards,
since a changed one would have been stored. A reading inside of such an interval (from the device's own history, or its initial
value) covers from its ts on. Where readings were lost (`_HARD`), nothing covers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from math import fsum, isfinite
from typing import Literal
from zoneinfo import ZoneInfo

from gateway.store.records import Bucket
from gateway.store.tables import TS_MAX, to_datetime
from schemas.wire import Cause

Width = float | Literal["day"]
"""Seconds, or a day of the site's time zone."""

Sample = tuple[int, float | None, int]
"""(ts, number or None, status) of a reading."""

Interval = tuple[int, int]
"""[from, to) in µs."""

_HARD = frozenset({Cause.DROPPED, Cause.OVERRUN, Cause.LOST, Cause.UNDECODABLE, Cause.FORK, Cause.TOO_LATE})
_PENDING = 2_048
_AFTER_ALL = TS_MAX + 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_hard(cause: str) -> bool:
    """True for causes of gaps in which single readings are missing between others."""
    return cause in _HARD


def edges(start: int, end: int, width: Width, timezone: str) -> Iterator[int]:
    """The bounds of the buckets that [start, end) touches, the first one at or before `start`, the last at or after `end`.

    Widths in seconds are counted from the epoch; days begin at midnight in `timezone`. Raises ValueError for a width of 0.
    """
    if start >= end:
        return
    if width == "day":
        zone = ZoneInfo(timezone)
        day = _date(start, zone)
        edge = _midnight(day, zone)
        yield edge
        while edge < end:
            day += timedelta(days=1)
            edge = _midnight(day, zone)
            yield edge
        return
    step = _step(width)
    edge = start // step * step
    yield edge
    while edge < end:
        edge += step
        yield edge


def span(start: int, end: int, width: Width, timezone: str) -> Interval:
    """The first and the last of `edges`; start < end."""
    if width == "day":
        zone = ZoneInfo(timezone)
        return _midnight(_date(start, zone), zone), _midnight(_date(end - 1, zone) + timedelta(days=1), zone)
    step = _step(width)
    return start // step * step, -(-end // step) * step


def _step(width: float | str) -> int:
    step = round(float(width) * 1_000_000)
    if step <= 0:
        raise ValueError(f"width {width}: expected seconds above 0, or 'day'")
    return step


def _date(ts: int, zone: ZoneInfo) -> date:
    return to_datetime(ts).astimezone(zone).date()


def _midnight(day: date, zone: ZoneInfo) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


class Blind:
    """Intervals in which a value from before is not known to hold (`soft`), or nothing is (`hard`)."""

    def __init__(self, soft: Iterable[Interval], hard: Iterable[Interval]) -> None:
        self._soft = _merge(soft)
        self._hard = _merge(hard)
        self._soft_starts = [start for start, _ in self._soft]
        self._hard_starts = [start for start, _ in self._hard]

    @property
    def empty(self) -> bool:
        """True when nothing is hidden."""
        return not self._soft and not self._hard

    def known(self, start: int, end: int, since: int) -> list[Interval]:
        """The parts of [start, end) in which a value that was read at `since` is known."""
        parts = [(start, end)]
        if self._hard:
            parts = _without(parts, _touching(self._hard, self._hard_starts, start, end))
        if self._soft:
            later = [gap for gap in _touching(self._soft, self._soft_starts, start, end) if gap[0] > since]
            parts = _without(parts, later)
        return parts


def _merge(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _touching(intervals: Sequence[Interval], starts: Sequence[int], start: int, end: int) -> Sequence[Interval]:
    first = max(0, bisect_right(starts, start) - 1)
    last = bisect_right(starts, end)
    return [interval for interval in intervals[first:last] if interval[1] > start and interval[0] < end]


def _without(parts: list[Interval], holes: Iterable[Interval]) -> list[Interval]:
    for hole_start, hole_end in holes:
        left: list[Interval] = []
        for start, end in parts:
            if hole_end <= start or end <= hole_start:
                left.append((start, end))
                continue
            if start < hole_start:
                left.append((start, hole_start))
            if hole_end < end:
                left.append((hole_end, end))
        parts = left
    return parts


class _Sum:
    """A sum of floats that stays correctly rounded to within a few units in the last place, in bounded memory."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[float] = []

    def add(self, value: float) -> None:
        self._pending.append(value)
        if len(self._pending) >= _PENDING:
            # the rounding error of the partial sum is kept as a summand of its own
            total = fsum(self._pending)
            error = fsum([*self._pending, -total]) if isfinite(total) else 0.0
            self._pending = [total, error]

    def value(self) -> float:
        try:
            return fsum(self._pending)
        except OverflowError:
            return sum(self._pending)


class _Open:
    """A bucket that is being filled."""

    __slots__ = (
        "bad",
        "covered",
        "end",
        "first",
        "good",
        "integral",
        "last",
        "max",
        "min",
        "start",
        "sum",
        "uncertain",
    )

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.good = self.uncertain = self.bad = self.covered = 0
        self.min: float | None = None
        self.max: float | None = None
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] | None = None
        self.sum, self.integral = _Sum(), _Sum()

    def count(self, ts: int, number: float | None, status: int) -> None:
        quality = status >> 30
        if quality >= 2:
            self.bad += 1
            return
        if quality:
            self.uncertain += 1
        else:
            self.good += 1
        if number is None:
            return
        if self.min is None or number < self.min:
            self.min = number
        if self.max is None or number > self.max:
            self.max = number
        if self.first is None:
            self.first = (ts, number)
        self.last = (ts, number)
        self.sum.add(number)

    def cover(self, start: int, end: int, number: float) -> None:
        self.covered += end - start
        self.integral.add(number * (end - start))

    def close(self) -> Bucket:
        return Bucket(
            start=self.start,
            end=self.end,
            good=self.good,
            uncertain=self.uncertain,
            bad=self.bad,
            min=self.min,
            max=self.max,
            first=None if self.first is None else self.first[1],
            first_ts=None if self.first is None else self.first[0],
            last=None if self.last is None else self.last[1],
            last_ts=None if self.last is None else self.last[0],
            sum=None if self.first is None else self.sum.value(),
            average=self.integral.value() / self.covered if self.covered else None,
            covered=self.covered,
        )


def fold(
    samples: Iterable[Sample], bounds: Iterable[int], carry: Sample | None, blind: Blind, known_to: int
) -> Iterator[Bucket]:
    """Buckets between the `bounds`, empty ones included, from the samples of one signal in the order of (ts, n).

    `carry` is the last sample before the first bound. The last sample covers up to `known_to`. Samples beyond the last bound
    are not wanted, those before the first are ignored. Nothing but the open bucket is kept in memory.
    """
    iterator = iter(bounds)
    start = next(iterator, None)
    end = next(iterator, None)
    if start is None or end is None:
        return
    course = _Course(start, end, iterator, carry, blind)
    for sample in samples:
        ts, _, status = sample
        if ts < start:
            continue
        if ts < course.end:
            course.hold(ts)
        else:
            yield from course.close_until(ts)
            if course.ended:
                return
        number = course.held = _number(sample)
        course.since = ts
        course.bucket.count(ts, number, status)
    yield from course.close_until(max(known_to, course.at))
    course.held = None
    yield from course.close_until(_AFTER_ALL)


class _Course:
    """The step function of a signal on its way through the buckets."""

    __slots__ = ("_blind", "_bounds", "at", "bucket", "end", "ended", "held", "since")

    def __init__(self, start: int, end: int, bounds: Iterator[int], carry: Sample | None, blind: Blind) -> None:
        self._bounds = bounds
        self._blind = blind
        self.at = start
        self.held = _number(carry)
        self.since = start if carry is None else carry[0]
        self.end = end
        self.ended = False
        self.bucket = _Open(start, end)

    def _next(self) -> None:
        end = next(self._bounds, None)
        if end is None:
            self.ended = True
        else:
            self.bucket = _Open(self.end, end)
            self.end = end

    def hold(self, to: int) -> None:
        """The held value covers [at, to) of the open bucket, as far as it is known there."""
        if self.held is not None and self.at < to:
            if self._blind.empty:
                self.bucket.cover(self.at, to, self.held)
            else:
                for start, end in self._blind.known(self.at, to, self.since):
                    self.bucket.cover(start, end, self.held)
        if to > self.at:
            self.at = to

    def close_until(self, ts: int) -> Iterator[Bucket]:
        """Hold the value until `ts` and close the buckets that end by then."""
        while not self.ended and self.end <= ts:
            self.hold(self.end)
            yield self.bucket.close()
            self._next()
        if not self.ended:
            self.hold(ts)


def _number(sample: Sample | None) -> float | None:
    """The number that a sample holds; None for a bad one and for what is not a finite number."""
    if sample is None or sample[1] is None or sample[2] >> 30 >= 2 or not isfinite(sample[1]):
        return None
    return sample[1]
