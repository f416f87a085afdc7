"""From what was read over time to a proposal for each register: type, byte and word order, scale, with reason and confidence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.explore.cut import Cut, best_cuts
from gateway.explore.evidence import Candidate, single, wide
from gateway.explore.quantity import Guess, guess
from gateway.explore.series import Order, Series, number, text
from gateway.explore.texts import strings


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another reading of registers from the same place, with its value now and its score (0 to 1)."""

    type: str
    order: Order
    value: Any
    score: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the registers `address` to `address + width - 1` (wire addresses) may be.

    `value` is the last raw one; engineering value = raw * scale. `reasons` are codes of `gateway.explore.words`; `confidence` lies
    between 0 and 1 and says how far the next best reading of the same registers is behind.
    """

    table: str
    address: int
    type: str
    order: Order
    width: int
    value: Any
    confidence: float
    reasons: tuple[str, ...]
    guess: Guess | None
    alternatives: tuple[Alternative, ...]

    @property
    def scale(self) -> float:
        return self.guess.scale if self.guess is not None else 1.0

    @property
    def spare(self) -> bool:
        """Nothing but zeros was seen."""
        return "zero" in self.reasons


def explain(samples: Iterable[Series]) -> list[Proposal]:
    """A proposal for every register of every series, in the order of table and address.

    Each range is cut into values so that their scores together are greatest, and their orders, places and widths fit together (`cut`).
    """
    ranges = [_Range(series) for series in sorted(samples, key=lambda one: (one.table, one.start))]
    cuts = best_cuts([one.candidates for one in ranges], [one.start for one in ranges])
    return [proposal for one, cut in zip(ranges, cuts, strict=True) for proposal in one.proposals(cut)]


class _Range:
    """One series on its way to proposals."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self.start = series.start
        size, rows = series.size, series.rows
        self.candidates: list[list[Candidate]] = []
        for place in range(size):
            here = single([row[place] for row in rows])
            for width in (2, 4):
                if place + width <= size:
                    here = here + wide([row[place : place + width] for row in rows], width)
            self.candidates.append(here)
        for place, candidate in strings(rows).items():
            self.candidates[place].append(candidate)

    def proposals(self, cut: Cut) -> list[Proposal]:
        return [self._proposal(place, candidate) for place, candidate in cut]

    def _value(self, place: int, type_: str, order: Order, width: int, row: int = -1) -> Any:
        words = self._series.rows[row][place : place + width]
        return text(words, order) if type_ == "string" else number(words, type_, order)

    def _proposal(self, place: int, chosen: Candidate) -> Proposal:
        series = self._series
        others = [one for one in self.candidates[place] if (one.type, one.order) != (chosen.type, chosen.order)]
        alternatives = tuple(
            Alternative(one.type, one.order, self._value(place, one.type, one.order, one.width), round(one.score, 3))
            for one in sorted(others, key=lambda one: -one.score)[:5]
        )
        # In pieces: the same registers as single words are another reading.
        pieces = math.fsum(self.candidates[place + offset][0].score for offset in range(chosen.width)) / chosen.width
        twin = (
            chosen.type.removeprefix("u"),
            chosen.order,
        )  # signed or not: the same number as long as it is not below zero
        rivals = [one for one in others if (one.type.removeprefix("u"), one.order) != twin]
        rival = max([one.score for one in rivals if one.width == chosen.width], default=0.0)
        if chosen.width > 1:
            rival = max(rival, pieces)
        confidence = min(max(0.5 + 0.9 * (chosen.score - rival), 0.15), 0.99)
        if "zero" in chosen.reasons or (not chosen.moving and chosen.type != "string"):
            confidence = min(confidence, 0.2 if "zero" in chosen.reasons else 0.6)
        values = [self._value(place, chosen.type, chosen.order, chosen.width, row) for row in range(len(series.rows))]
        return Proposal(
            series.table, series.start + place, chosen.type, chosen.order, chosen.width, values[-1], round(confidence, 2),
            chosen.reasons, guess(values, chosen), alternatives,
        )  # fmt: skip
