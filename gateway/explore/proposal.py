"""From what was read over time to a proposal for each register: type, byte and word order, scale, with reason and confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.explore.evidence import Candidate, single, strings, wide
from gateway.explore.quantity import Guess, guess
from gateway.explore.series import Order, Series, number, text

_ALIKE = 0.10
"""What a reading gains, per register, when the sure values near it have its byte order."""
_KIN = 0.05
"""... and when they have its type as well."""
_PHASE = 0.04
"""... and when it begins an even distance from theirs."""
_REACH = 12.0
"""Registers over which the example of a neighbour fades."""
_EVEN = 0.015
"""What a wide value gains for an even distance from the begin of its range."""


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

    Each range is cut into values so that the sum of their scores is greatest. That is done twice: what is sure in the first cut
    lends its byte order to what is doubtful near it, since a device seldom mixes orders at one place.
    """
    proposals: list[Proposal] = []
    for series in sorted(samples, key=lambda one: (one.table, one.start)):
        proposals.extend(_Cut(series).proposals())
    return proposals


def _sure(candidate: Candidate) -> bool:
    """Whether the byte order of this one is an example for its neighbours: it moves, and both halves of it took part."""
    if candidate.width == 1 or candidate.type == "string" or not candidate.moving or candidate.score < 0.7:
        return False
    return candidate.type.startswith("float") or bool(
        {"carries", "sign_extends", "upper_rests", "counter"} & set(candidate.reasons)
    )  # fmt: skip


class _Cut:
    """One series on its way to proposals."""

    def __init__(self, series: Series) -> None:
        self._series = series
        size, rows = series.size, series.rows
        self._all: list[list[Candidate]] = []
        for place in range(size):
            here = single([row[place] for row in rows])
            for width in (2, 4):
                if place + width <= size:
                    here = here + wide([row[place : place + width] for row in rows], width)
            self._all.append(here)
        for place, candidate in strings(rows).items():
            self._all[place].append(candidate)

    def proposals(self) -> list[Proposal]:
        cut = self._best(lambda place, candidate: 0.0)
        for _ in range(2):
            sure = [(place, one) for place, one in cut if _sure(one)]
            cut = self._best(lambda place, candidate: self._example(place, candidate, sure))  # noqa: B023 (called at once)
        return [self._proposal(place, candidate) for place, candidate in cut]

    def _example(self, place: int, candidate: Candidate, sure: Sequence[tuple[int, Candidate]]) -> float:
        if candidate.width == 1 or candidate.type == "string":
            return 0.0
        alike = kin = phase = total = 0.0
        for other, one in sure:
            if other == place:
                continue
            if not candidate.moving and one.type.startswith("float") != candidate.type.startswith("float"):
                continue  # a number at rest follows only its own kind
            weight = (one.score - 0.5) * math.exp(-abs(other - place) / _REACH)
            total += weight
            alike += weight * (one.order == candidate.order)
            kin += weight * (one.type == candidate.type)
            phase += weight * (one.order == candidate.order and (other - place) % 2 == 0)
        if not total:
            return 0.0
        trust = min(total / 0.3, 1.0)
        if not candidate.moving:
            trust *= 0.6 if candidate.type.startswith("float") else 0.5
        elif {"upper_zero", "upper_rests"} & set(candidate.reasons):
            trust *= 0.5
        return trust * (_ALIKE * alike + _KIN * kin + _PHASE * phase) / total

    def _best(self, bonus: Callable[[int, Candidate], float]) -> list[tuple[int, Candidate]]:
        size = self._series.size
        best: list[tuple[float, Candidate | None]] = [(0.0, None)] * (size + 1)
        for place in range(size - 1, -1, -1):
            options = []
            for candidate in self._all[place]:
                even = _EVEN if candidate.width > 1 and place % 2 == 0 else 0.0
                score = candidate.score + bonus(place, candidate) + even
                options.append((score * candidate.width + best[place + candidate.width][0], candidate))
            best[place] = max(options, key=lambda option: option[0])
        cut, place = [], 0
        while place < size:
            chosen = best[place][1]
            assert chosen is not None  # every register has its readings as a single word
            cut.append((place, chosen))
            place += chosen.width
        return cut

    def _value(self, place: int, type_: str, order: Order, width: int, row: int = -1) -> Any:
        words = self._series.rows[row][place : place + width]
        return text(words, order) if type_ == "string" else number(words, type_, order)

    def _proposal(self, place: int, chosen: Candidate) -> Proposal:
        series = self._series
        others = [one for one in self._all[place] if (one.type, one.order) != (chosen.type, chosen.order)]
        alternatives = tuple(
            Alternative(one.type, one.order, self._value(place, one.type, one.order, one.width), round(one.score, 3))
            for one in sorted(others, key=lambda one: -one.score)[:5]
        )
        # In pieces: the same registers as single words are another reading.
        pieces = math.fsum(self._all[place + offset][0].score for offset in range(chosen.width)) / chosen.width
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
