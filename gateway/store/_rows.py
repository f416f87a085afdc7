"""Readings on their way into the store: columns, which of them are newer, and what becomes of the others (rule 9)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.store._values import EXACT, KIND_MASK
from schemas.wire import Flag

N_MAX = 32_767
_ANY_N = int(Flag.HISTORICAL | Flag.INITIAL)

Key = tuple[int, int]
"""(signal id, ts)"""


@dataclass(slots=True)
class Columns:
    """Rows of `reading`, as columns of equal length. `exact` is JSON text, `status` null for Good, `flags` with the kind.

    `value` is what arrived, for those who follow the commits; `step` says which step of the transaction brought the row.
    """

    signal: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    n: list[int] = field(default_factory=list)
    num: list[float | None] = field(default_factory=list)
    exact: list[str | None] = field(default_factory=list)
    status: list[int | None] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    value: list[Any] = field(default_factory=list)
    step: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.signal)

    def all(self) -> tuple[list[Any], ...]:
        """Every column, in the order of the fields."""
        return (
            self.signal, self.ts, self.n, self.num, self.exact, self.status, self.flags, self.value, self.step,
        )  # fmt: skip

    def stored(self) -> Iterable[tuple[Any, ...]]:
        """The rows as tuples (signal, ts, n, num, exact, status, flags)."""
        return zip(self.signal, self.ts, self.n, self.num, self.exact, self.status, self.flags, strict=True)

    def extend(self, other: Columns) -> None:
        """Append the rows of `other`."""
        for mine, theirs in zip(self.all(), other.all(), strict=True):
            mine.extend(theirs)

    def cut(self, start: int, end: int) -> Columns:
        """The rows start..end-1."""
        return Columns(*(column[start:end] for column in self.all()))

    def pick(self, rows: list[int]) -> Columns:
        """These rows, in this order."""
        return Columns(*([column[row] for row in rows] for column in self.all()))


@dataclass(slots=True)
class Newest:
    """The newest stored (ts, n) of each signal, so that most rows need no look into the store."""

    ts: dict[int, int] = field(default_factory=dict)
    n: dict[int, tuple[int, int]] = field(default_factory=dict)
    """signal -> (ts, n), only where n is not 0."""

    def split(self, columns: Columns) -> list[int]:
        """Move on to the newest row of each signal; returns the positions of the rows that are not newer, in order.

        The others cannot collide with anything stored, nor repeat it. Rows that are older than the newest get the flag `late`.
        """
        newest, flags, late = self.ts, columns.flags, int(Flag.LATE)
        rest: list[int] = []
        if not any(columns.n):
            get = newest.get
            for row, (signal, ts) in enumerate(zip(columns.signal, columns.ts, strict=True)):
                last = get(signal, _NEVER)
                if ts > last:
                    newest[signal] = ts
                    continue
                rest.append(row)
                if ts < last:
                    flags[row] |= late
            return rest
        waiting: set[Key] = set()
        for row, (signal, ts, n) in enumerate(zip(columns.signal, columns.ts, columns.n, strict=True)):
            last = newest.get(signal, _NEVER)
            if ts < last:
                rest.append(row)
                flags[row] |= late
                continue
            if ts == last and (n <= self._n_of(signal, ts) or flags[row] & _ANY_N or (signal, ts) in waiting):
                rest.append(row)
                waiting.add((signal, ts))  # what follows at this ts is numbered after it
                continue
            newest[signal] = ts
            if n:
                self.n[signal] = (ts, n)
        return rest

    def note(self, signal: int, ts: int, n: int) -> None:
        """A row was stored with another `n` than it came with."""
        if n and self.ts.get(signal) == ts and n > self._n_of(signal, ts):
            self.n[signal] = (ts, n)

    def _n_of(self, signal: int, ts: int) -> int:
        at, number = self.n.get(signal, (ts, 0))
        return number if at == ts else 0


_NEVER = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Stored:
    """What is compared of a stored row; `value` is `num`, or the text of `exact.v`."""

    n: int
    value: Any
    status: int


@dataclass(slots=True)
class Resolved:
    """What became of rows that were not newer."""

    rows: Columns = field(default_factory=Columns)
    duplicates: int = 0
    late: int = 0
    full: list[int] = field(default_factory=list)
    """Positions of rows whose ts has no free n left."""


def comparable(num: float | None, exact: Any, flags: int) -> Any:
    """The value of a row as `Stored` has it; `exact` is a parsed object, JSON text or None."""
    if flags & KIND_MASK != EXACT:
        return num
    return (json.loads(exact) if isinstance(exact, str) else exact)["v"]


def resolve(columns: Columns, existing: dict[Key, list[Stored]], newest: Newest) -> Resolved:
    """Rule 9. `existing` has the stored rows of each key.

    A row whose n is free is stored as it is, unless it is flagged historical or initial and equal to the one before it: `n` numbers different readings,
    and what is equal came twice. At a conflict: flagged historical or initial, equal to any stored row of its
    ts is a duplicate; otherwise equal to the last is one; else it takes the n after the last.
    """
    keep: list[int] = []
    result = Resolved()
    for row in range(len(columns)):
        signal, ts = columns.signal[row], columns.ts[row]
        n, flags = columns.n[row], columns.flags[row]
        mine = Stored(n, comparable(columns.num[row], columns.exact[row], flags), columns.status[row] or 0)
        there = existing.setdefault((signal, ts), [])
        if flags & _ANY_N and n and Stored(n - 1, mine.value, mine.status) in there:
            result.duplicates += 1
            continue
        if any(other.n == n for other in there):
            last = max(there, key=lambda other: other.n)
            candidates = there if flags & _ANY_N else [last]
            if any(other.value == mine.value and other.status == mine.status for other in candidates):
                result.duplicates += 1
                continue
            if last.n >= N_MAX:
                result.full.append(row)
                continue
            n = last.n + 1
            columns.n[row] = n
        there.append(Stored(n, mine.value, mine.status))
        if flags & Flag.LATE:
            result.late += 1
        newest.note(signal, ts, n)
        keep.append(row)
    result.rows = columns.pick(keep)
    return result
