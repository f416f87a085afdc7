"""The read planner: which registers are asked for together. Pure: no clock, no connection, the same answer for the same question."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from schemas.bilingual import Bilingual


@dataclass(frozen=True, slots=True, order=True)
class Value:
    """Where the value of a point lies in its table: `size` registers (or bits) from wire address `start`.

    `within` (start, size) is what has to be read in one response if the value is to be used at all; None: the value itself.
    """

    start: int
    size: int
    point: int
    within: tuple[int, int] | None = None

    @property
    def begin(self) -> int:
        """The first address that is read with it."""
        return self.within[0] if self.within is not None else self.start

    @property
    def end(self) -> int:
        """The address after the last one that is read with it."""
        return sum(self.within) if self.within is not None else self.start + self.size

    @property
    def span(self) -> tuple[int, int]:
        """(start, size) of what is not split, which several points may share."""
        return self.within if self.within is not None else (self.start, self.size)


def together(values: Sequence[Value]) -> list[Value]:
    """The same values, none of which can be had without all the others."""
    start = min(value.begin for value in values)
    within = (start, max(value.end for value in values) - start)
    return [replace(value, within=within) for value in values]


@dataclass(frozen=True, slots=True)
class Read:
    """One request: `size` registers (or bits) from `start`, and the values that lie wholly inside, in address order."""

    start: int
    size: int
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A point that no permitted request can read, and why."""

    point: int
    text: str


def plan(
    values: Iterable[Value],
    *,
    limit: int,
    max_gap: int = 0,
    holes: Sequence[tuple[int, int]] = (),
    cuts: Sequence[int] = (),
    learned: int | None = None,
) -> tuple[list[Read], list[Problem]]:
    """The fewest requests that read all `values` of one table, in ascending order, and the values that cannot be read.

    No request is larger than `limit`, touches a hole (`(first, last)`, both included), skips more than `max_gap` addresses
    that nobody asked for, or splits a value. `cuts` and `learned` are what the device has taught: a request that begins before a cut holds no
    value that begins at or after it, and a request of several values is not larger than `learned`. Unlike holes they are kept
    to only where a choice exists: a single value is always asked for in one request.
    """
    ordered = sorted(values, key=lambda value: (value.span, value))
    bad = _problems(ordered, limit, holes)
    unreadable = {problem.point for problem in bad}
    combined = min(limit, learned) if learned is not None else limit
    cuts = sorted(cuts)
    hole_starts = sorted(first for first, _ in holes)
    reads: list[Read] = []
    open_values: list[Value] = []
    start = end = 0
    for value in ordered:
        if value.point in unreadable:
            continue
        if open_values and (
            max(end, value.end) - start > max(combined, end - start if value.end <= end else 0)
            or value.begin - end > max_gap
            or _between(hole_starts, start, value.end)
            or _between(cuts, start + 1, value.begin + 1)
        ):
            reads.append(Read(start, end - start, tuple(open_values)))
            open_values = []
        if not open_values:
            start, end = value.span[0], value.end
        open_values.append(value)
        end = max(end, value.end)
    if open_values:
        reads.append(Read(start, end - start, tuple(open_values)))
    return reads, bad


def _between(sorted_places: Sequence[int], low: int, high: int) -> bool:
    """Whether one of the places is in [low, high)."""
    at = bisect_right(sorted_places, low - 1)
    return at < len(sorted_places) and sorted_places[at] < high


def _problems(values: Iterable[Value], limit: int, holes: Sequence[tuple[int, int]]) -> list[Problem]:
    found: list[Problem] = []
    for value in values:
        size = value.span[1]
        if size > limit and value.within is not None:
            found.append(
                Problem(
                    value.point,
                    Bilingual(
                        f"the values of its atomic group take {size} registers from {value.begin:#06x}, but this device gives at most "
                        f"{limit} in one read: raise max_registers if the device can do it, or make the group smaller",
                        f"其 atomic 组的值自 {value.begin:#06x} 起占 {size} 个寄存器，而该设备一次最多读 {limit} 个："
                        "若设备支持，请调大 max_registers，或缩小该组",
                    ),
                )
            )
            continue
        if size > limit:
            found.append(
                Problem(
                    value.point,
                    Bilingual(
                        f"the value at {value.start:#06x} takes {value.size} registers, but this device gives at most {limit} "
                        "in one read: raise max_registers if the device can do it, or give a shorter `length`",
                        f"{value.start:#06x} 处的值占 {value.size} 个寄存器，而该设备一次最多读 {limit} 个："
                        "若设备支持，请调大 max_registers，或缩短 `length`",
                    ),
                )
            )
            continue
        for first, last in holes:
            if first < value.end and value.begin <= last:
                found.append(
                    Problem(
                        value.point,
                        Bilingual(
                            f"the value at {value.begin:#06x} to {value.end - 1:#06x} lies in the hole {first:#06x} to {last:#06x}, "
                            "which must not be read: correct the address, or the `holes` of the rules",
                            f"{value.begin:#06x} 至 {value.end - 1:#06x} 处的值位于禁读区 {first:#06x} 至 {last:#06x}："
                            "请更正地址，或规则中的 `holes`",
                        ),
                    )
                )
                break
    return found
