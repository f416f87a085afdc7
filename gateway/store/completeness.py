"""Completeness: the share of a period in which a signal's value is known and not bad. The one definition, for signals, devices and assets.

Of one signal and a period:

- *Expected* is the period from the signal's birth on, and up to when it was retired.
- *Missing* is the union of: the intervals in which its device was not connected; the gaps that cover it; the time from each bad
  reading (the status's top bit) to its next reading; and what is not known yet, from `complete_to` of its scan group on. Where
  they overlap, the time is counted once, for the first of these four.
- The share is (expected - missing) / expected, exact in µs; None when nothing is expected.

So a period is not complete before it is settled. Uncertain readings count as known. Of several signals (those of a device; those
of an asset and all assets below it) the expected times and the missing ones are added up: the share is the mean over the signals,
each weighted by its expected time. Where readings were deleted by the retention, a quarter of an hour with a bad reading counts as
bad from its beginning to its end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import msgspec

Interval = tuple[int, int]
"""[from, to) in µs."""

MISSING = ("disconnected", "gap", "bad", "unknown")
"""What can be missing, in the order in which overlapping time is counted."""


class Share(msgspec.Struct, frozen=True):
    """Times in µs, of one signal or of several together."""

    expected: int = 0
    disconnected: int = 0
    gap: int = 0
    bad: int = 0
    unknown: int = 0

    @property
    def missing(self) -> int:
        """All four together."""
        return self.disconnected + self.gap + self.bad + self.unknown

    @property
    def share(self) -> float | None:
        """0 to 1; below 1 whenever anything is missing; None when nothing is expected."""
        if not self.expected:
            return None
        if not self.missing:
            return 1.0
        return min((self.expected - self.missing) / self.expected, _BELOW_ONE)

    def __add__(self, other: Share) -> Share:
        return Share(
            self.expected + other.expected,
            self.disconnected + other.disconnected,
            self.gap + other.gap,
            self.bad + other.bad,
            self.unknown + other.unknown,
        )


_BELOW_ONE = 1.0 - 2.0**-53
"""The largest float below 1."""


class Course:
    """What is known of one signal: since when and until when it is expected, and what is missing."""

    def __init__(
        self,
        born: int,
        retired: int | None,
        known_to: int,
        disconnected: Iterable[Interval],
        gaps: Iterable[Interval],
        bad: Iterable[Interval],
        end: int,
    ) -> None:
        """`end`: no period that is asked for goes beyond it."""
        self._born, self._retired = born, retired
        causes = (disconnected, gaps, bad, [(known_to, end)])
        layers: list[Interval] = []
        self._layers: list[_Union] = []
        for intervals in causes:
            layers = union([*layers, *intervals])
            self._layers.append(_Union(layers))

    def share(self, start: int, end: int) -> Share:
        """Of the period [start, end)."""
        start = max(start, self._born)
        end = end if self._retired is None else min(end, self._retired)
        if end <= start:
            return Share()
        upto = [layer.length(start, end) for layer in self._layers]
        parts = [now - before for before, now in zip([0, *upto], upto, strict=False)]
        return Share(end - start, *parts)


class _Union:
    """Disjoint intervals in order, with the sums of their lengths: the length within a period takes two searches."""

    def __init__(self, intervals: Sequence[Interval]) -> None:
        self._starts = [start for start, _ in intervals]
        self._ends = [end for _, end in intervals]
        self._sums = [0]
        for start, end in intervals:
            self._sums.append(self._sums[-1] + end - start)

    def length(self, start: int, end: int) -> int:
        """How much of [start, end) they cover."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if first >= last:
            return 0
        whole = self._sums[last] - self._sums[first]
        return whole - max(0, start - self._starts[first]) - max(0, self._ends[last - 1] - end)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The intervals as disjoint ones in order; empty ones are left out."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def total(shares: Iterable[Share]) -> Share:
    """Of several signals together."""
    found = Share()
    for share in shares:
        found += share
    return found
