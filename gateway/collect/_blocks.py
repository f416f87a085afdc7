"""The answers of a polled device that hold the same points each time, looked at as a whole.

What a signal does to its values one by one (`SignalRules`) costs more than everything else on the way of a Modbus value. So of an answer of which the
last one is known, only those rows are looked at that differ from it; and where most of them do, and all are ordinary numbers, whole
columns are compared, converted and taken at once. Both give what each value by itself would give.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from math import hypot
from operator import itemgetter, le, ne
from typing import Any, Final

from gateway.collect._rows import Row, State
from gateway.collect._signal_rules import HIGHEST, LOWEST, SignalRules

FOR_EVER: Final = 2**63
FEW: Final = 20
"""So many rows are looked at one by one as fast as a whole answer."""
_FORMATS: Final[dict[tuple[float, float], str]] = {
    (0, 2**8 - 1): "B", (-(2**7), 2**7 - 1): "b", (0, 2**16 - 1): "H", (-(2**15), 2**15 - 1): "h",
    (0, 2**32 - 1): "I", (-(2**31), 2**31 - 1): "i", (0, 2**64 - 1): "Q", (-(2**63), 2**63 - 1): "q",
}  # fmt: skip
"""Bounds of an integer -> the format that packs what is within, and nothing else."""
_WIDE: Final = (LOWEST, HIGHEST)
_SURELY_WITHIN: Final = 2.0**63


class Block:
    """An answer of a polled device: these points, each of them once. Rows are counted within it.

    `values` and `odd` are those of the last answer. While `soonest` (µs) has not come, a row that is not in `odd`, not in `every`, is Good, and has
    the raw value that it had in the last answer is unchanged. Whoever works on an answer sets `soonest` to 0 before, and calls `done`
    after it; whoever changes what was stored last by another way forgets the block.
    """

    __slots__ = (
        "_converts", "_deadbands", "_form", "_gather", "_highs", "_kinds", "_lows", "_part", "_places", "_quick", "_silent", "_wide",
        "able", "counted", "every", "index", "moving", "odd", "points", "soonest", "values",
    )  # fmt: skip

    def __init__(
        self,
        points: tuple[int, ...],
        first: int,
        rules: Sequence[SignalRules],
        quick: Sequence[tuple[type, ...]],
        index: Sequence[int],
    ) -> None:
        self.points = points
        self._places = places = [point - first for point in points]
        mine = [rules[p] for p in places]
        self.values: tuple[Any, ...] = ()
        self.odd: list[int] = []
        """Rows that went the long way in the last answer."""
        self.soonest = 0
        self.moving = False
        """So many rows of the last answer were stored that the next one is taken as a whole at once."""
        self.index = [index[p] for p in places]
        """The plan index of each row."""
        self.counted = False
        """Some of its signals are counters."""
        self._part = (
            slice(places[0], places[-1] + 1) if places == list(range(places[0], places[-1] + 1)) else None
        )  # fmt: skip
        part = self._part
        self._gather: Callable[[list[Any]], Sequence[Any]] = (
            (lambda column: column[part]) if part is not None else itemgetter(*places)
        )
        self._quick = [quick[p] for p in places]
        self.able = all(self._quick)
        """All of its rows are of signals that have a short way."""
        self._kinds: list[type] = []
        """Classes of raw values all of which have passed."""
        self._lows, self._highs = [r.low for r in mine], [r.high for r in mine]
        codes = [_FORMATS.get((r.low, r.high), "") if float not in r.quick else "" for r in mine]
        self._form = struct.Struct("=" + "".join(codes)) if all(codes) else None
        self._wide = all((r.low, r.high) == _WIDE for r in mine)
        self._converts = [(row, r.convert) for row, r in enumerate(mine) if r.convert is not None]
        self._deadbands = [(row, places[row]) for row, r in enumerate(mine) if r.deadband]
        self.every = [row for row, r in enumerate(mine) if r.every]
        self._silent = [(row, places[row], r.silence) for row, r in enumerate(mine) if r.silence is not None]

    def differing(self, values: tuple[Any, ...], status: Sequence[int] | None) -> list[bool]:
        """Which rows may have changed since the last answer."""
        differ = list(map(ne, values, self.values))
        for row in self.odd:
            differ[row] = True
        for row in self.every:
            differ[row] = True
        if status is not None:
            differ = [a or code != 0 for a, code in zip(differ, status, strict=True)]
        return differ

    def done(self, values: tuple[Any, ...], odd: list[int], received: int, due: Mapping[int, int]) -> None:
        """An answer was worked on, and what is to be stored of it was taken."""
        self.values, self.odd = values, odd
        self.soonest = (
            min(due.get(p, received) for _, p, _ in self._silent) if self._silent else FOR_EVER
        )  # fmt: skip

    def whole(
        self,
        values: tuple[Any, ...],
        received: int,
        state: State,
        deadbands: Sequence[float],
        due: dict[int, int],
        pending: dict[int, Row],
    ) -> tuple[list[int], list[Any]] | None:
        """Takes all rows at once, each Good: the plan indices and values of those that are to be stored, of which `state` then knows. None, and nothing
        has been done, where some row has to go its own way. Only if `able`."""
        kinds = list(map(type, values))
        if kinds != self._kinds:
            if not all(kind in quick for kind, quick in zip(kinds, self._quick, strict=True)):
                return None
            self._kinds = kinds
        gather = self._gather
        if not self._within(values) or any(gather(state.status)):
            return None
        times = gather(state.ts)
        if received in times:
            return None
        column: Sequence[Any] = values
        if self._converts:
            column = converted = list(values)
            for row, convert in self._converts:
                converted[row] = convert(converted[row])
        last = gather(state.value)
        changed = list(map(ne, column, last))
        for row, p in self._deadbands:
            if changed[row] and (band := deadbands[p]) and -band < column[row] - last[row] < band:
                changed[row] = False
        for row in self.every:
            changed[row] = True
        for row, p, silence in self._silent:
            if not changed[row] and received > times[row] and received >= due.get(p, received):
                changed[row] = True
            if changed[row]:
                due[p] = received + silence
                pending.pop(p, None)
        return self._remember(column, changed, received, state)

    def _within(self, values: tuple[Any, ...]) -> bool:
        """Whether each value lies within the bounds of its signal's short way. May be wrong in saying no."""
        if self._form is not None:
            try:
                self._form.pack(*values)
            except struct.error:
                return False
            return True
        if self._wide:
            try:  # what is not finite makes it infinite, or no number
                if hypot(*values) < _SURELY_WITHIN:
                    return True
            except OverflowError:
                return False
        return all(map(le, self._lows, values)) and all(map(le, values, self._highs))

    def _remember(
        self, column: Sequence[Any], changed: list[bool], received: int, state: State
    ) -> tuple[list[int], list[Any]]:
        part = self._part
        if part is not None and False not in changed:
            size = len(changed)
            state.value[part] = column
            state.ts[part] = [received] * size
            state.n[part] = [0] * size
            return self.index.copy(), list(column)
        for p, value in compress(zip(self._places, column, strict=True), changed):
            state.value[p], state.ts[p], state.n[p] = value, received, 0
        return list(compress(self.index, changed)), list(compress(column, changed))
