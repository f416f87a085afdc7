"""What the normaliser keeps of each signal, and the columns of readings that it builds."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from gateway.collect.items import Readings
from schemas.wire import Extra

NEVER: Final = -1
"""The status of a signal of which nothing was stored yet."""


class State:
    """What was stored last of each signal, as columns."""

    __slots__ = ("n", "status", "ts", "value")

    def __init__(self, size: int) -> None:
        self.value: list[Any] = [None] * size
        self.status: list[int] = [NEVER] * size
        self.ts: list[int | None] = [None] * size
        self.n: list[int] = [0] * size

    def copy(self) -> State:
        """One that goes its own way from now on."""
        other = State(0)
        other.value, other.status = self.value.copy(), self.status.copy()
        other.ts, other.n = self.ts.copy(), self.n.copy()
        return other

    def take(self, other: State, p: int) -> None:
        """Of one signal, what `other` has."""
        self.value[p], self.status[p], self.ts[p], self.n[p] = other.value[p], other.status[p], other.ts[p], other.n[p]


class Row(NamedTuple):
    """A reading, to be stored or not."""

    ts: int
    value: Any
    status: int
    flags: int
    extra: Extra | None


class Rows:
    """The columns that are being built; status, flags, n and extra only of rows that have some."""

    __slots__ = ("extra", "flags", "n", "points", "status", "ts", "values")

    def __init__(self) -> None:
        self.points: list[int] = []
        self.ts: list[int] = []
        self.values: list[Any] = []
        self.status: dict[int, int] = {}
        self.flags: dict[int, int] = {}
        self.n: dict[int, int] = {}
        self.extra: dict[int, Extra] = {}

    def add(self, index: int, row: Row, n: int) -> None:
        """One more row, of the signal with this plan index."""
        place = len(self.points)
        self.points.append(index)
        self.ts.append(row.ts)
        self.values.append(row.value)
        if row.status:
            self.status[place] = row.status
        if row.flags:
            self.flags[place] = row.flags
        if n:
            self.n[place] = n
        if row.extra is not None:
            self.extra[place] = row.extra

    def readings(self, device: str, group: str, received: int) -> Readings | None:
        """The rows as readings; None where there are none."""
        size = len(self.points)
        if not size:
            return None

        def column(sparse: dict[int, int]) -> list[int] | None:
            if not sparse:
                return None
            full = [0] * size
            for place, value in sparse.items():
                full[place] = value
            return full

        return Readings(
            device, group, received, self.points, self.ts, self.values,
            column(self.status), column(self.flags), column(self.n), self.extra or None,
        )  # fmt: skip
