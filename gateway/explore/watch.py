"""Reading the same ranges again and again."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.modbus.probe import Outcome, Prober
from gateway.explore.series import Series

RegisterTable = Literal["holding", "input"]
FUNCTIONS: dict[str, int] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


@dataclass(frozen=True, slots=True)
class Span:
    """`size` registers of a table from wire address `start` on."""

    table: RegisterTable
    start: int
    size: int


@dataclass(slots=True)
class Seen:
    """What a watch has brought so far."""

    spans: Sequence[Span]
    times: list[float]
    rows: list[list[tuple[int, ...]]]
    """A round: the registers of each span."""
    failed: int = 0
    """Rounds that were not whole and do not count."""
    last_failure: str = ""

    def series(self) -> list[Series]:
        """One series for each stretch of registers: spans that touch are one. Empty without a whole round."""
        if not self.rows:
            return []
        found: list[Series] = []
        order = sorted(range(len(self.spans)), key=lambda place: (self.spans[place].table, self.spans[place].start))
        for place in order:
            span = self.spans[place]
            rows = tuple(row[place] for row in self.rows)
            last = found[-1] if found else None
            if last is not None and last.table == span.table and last.start + last.size == span.start:
                joined = tuple(a + b for a, b in zip(last.rows, rows, strict=True))
                found[-1] = Series(last.table, last.start, last.times, joined)
            else:
                found.append(Series(span.table, span.start, tuple(self.times), rows))
        return found


async def watch(
    prober: Prober, unit: int, spans: Sequence[Span], *, rounds: int, period: float, seen: Seen,
    after: Callable[[int], None] = lambda done: None,
) -> None:  # fmt: skip
    """Fills `seen` with up to `rounds` whole rounds, one each `period` seconds; a cancelled watch leaves what it has seen.

    A round in which a span is not answered is left out, and counted. Raises TransientError when the connection is lost.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    for turn in range(rounds):
        wait = began + turn * period - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        row: list[tuple[int, ...]] = []
        at = loop.time() - began
        for span in spans:
            answer = await prober.read(unit, FUNCTIONS[span.table], span.start, span.size)
            if answer.outcome is not Outcome.DATA:
                seen.failed += 1
                seen.last_failure = f"{answer.outcome} {answer.code}" if answer.code else str(answer.outcome)
                break
            row.append(struct.unpack(f">{span.size}H", answer.data))
        else:
            seen.times.append(at)
            seen.rows.append(row)
        after(turn + 1)
