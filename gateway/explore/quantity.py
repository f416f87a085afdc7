"""Which quantity numbers of a certain size may be, and with which scale. A hint for a person, never more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.explore.evidence import Candidate


@dataclass(frozen=True, slots=True)
class Guess:
    """A quantity (a key of `gateway.explore.words`), its UCUM unit and the scale that makes the numbers fit; `weight` 0 to 1."""

    quantity: str
    unit: str
    scale: float
    weight: float


_RANGES = (  # quantity, unit, low, high, weight, largest swing
    ("frequency", "Hz", 49.0, 51.0, 0.9, 1.5),
    ("frequency", "Hz", 59.0, 61.0, 0.85, 1.5),
    ("voltage", "V", 218.0, 242.0, 0.8, 20.0),
    ("voltage", "V", 380.0, 410.0, 0.8, 25.0),
    ("power_factor", "1", 0.5, 1.0, 0.5, 0.4),
    ("temperature", "Cel", 12.0, 95.0, 0.4, 10.0),
)


def guess(values: Sequence[Any], candidate: Candidate) -> Guess | None:
    """The likeliest quantity of a moving number, None when nothing is to be said.

    Counters, states, texts and constants get none: their size says nothing.
    """
    if not candidate.moving or {"counter", "state"} & set(candidate.reasons) or candidate.type == "string":
        return None
    numbers = [float(value) for value in values if math.isfinite(value)]
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    scales = (1.0,) if candidate.type.startswith("float") else (0.1, 0.01, 1.0, 0.001)
    found: list[Guess] = []
    for quantity, unit, least, most, weight, swing in _RANGES:
        for rank, scale in enumerate(scales):
            if quantity == "temperature" and candidate.type in ("int16", "int32") and low < 0:
                fits = scale == 0.1 and low * scale >= -60 and high * scale <= 95
            else:
                fits = least <= low * scale and high * scale <= most and (high - low) * scale <= swing
            if quantity == "power_factor" and scale == 1.0 and not candidate.type.startswith("float"):
                fits = False
            if quantity == "temperature" and not candidate.type.startswith("float") and scale != 0.1:
                fits = False  # whole degrees and hundredths are rare, and speeds and levels are as large
            if fits:
                found.append(Guess(quantity, unit, scale, weight - 0.05 * rank))
    return max(found, key=lambda one: one.weight, default=None)
