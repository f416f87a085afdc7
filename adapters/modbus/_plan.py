"""The read planner: which registers are asked for together. Pure: no clock, no connection, the same answer for the same question."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.bilingual import Bilingual


@dataclass(frozen=True, slots=True, order=True)
class Value:
    """Where the value of a point lies in its table: `size` registers (or bits) from wire address `start`."""

    start: int
    size: int
    point: int

    @property
    def end(self) -> int:
        """The address after the last one."""
        return self.start + self.size

    @property
    def span(self) -> tuple[int, int]:
        """(start, size), which several points may share."""
        return (self.start, self.size)


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
    ordered = sorted(values)
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
            or value.start - end > max_gap
            or _between(hole_starts, start, value.end)
            or _between(cuts, start + 1, value.start + 1)
        ):
            reads.append(Read(start, end - start, tuple(open_values)))
            open_values = []
        if not open_values:
            start, end = value.start, value.end
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
        if value.size > limit:
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
            if first < value.end and value.start <= last:
                found.append(
                    Problem(
                        value.point,
                        Bilingual(
                            f"the value at {value.start:#06x} to {value.end - 1:#06x} lies in the hole {first:#06x} to {last:#06x}, "
                            "which must not be read: correct the address, or the `holes` of the rules",
                            f"{value.start:#06x} 至 {value.end - 1:#06x} 处的值位于禁读区 {first:#06x} 至 {last:#06x}："
                            "请更正地址，或规则中的 `holes`",
                        ),
                    )
                )
                break
    return found
