"""Cutting a range of registers into values: the readings of all places together, as devices are made.

Whoever lays out a device's registers does so by habit: one word order, wide values an even distance apart, values of a kind side by side. A
habit may change within a range (several people fill a PLC's block), but seldom. So the best cut is sought over readings and habits at once
(Viterbi, "Error bounds for convolutional codes", IEEE Trans. Inf. Theory 13, 1967): a reading that goes against the habit has to be worth the
change. That is done three times: what is sure in one cut is an example to what is doubtful near it in the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.explore.evidence import Candidate
from gateway.explore.series import ORDERS, Order

_ORDER = 0.45
"""What a change of byte order costs, in score times registers."""
_PHASE = 0.45
"""... and of the parity of the addresses at which wide values begin."""
_RARE = (0.0, 0.05, 0.35, 0.35)
"""What it costs to begin with each of `ORDERS`."""
_ODD = 0.2
"""... and with wide values that begin at odd addresses, an odd number of registers from the begin of a range at an even one."""
_WIDE = 0.12
"""What a wide reading gains, per register, where all the sure values near it are wide."""
_KIN = 0.08
"""... and where they have its type as well."""
_REACH = 20.0
"""Registers over which an example fades."""
_ENOUGH = 0.3
"""Weight of examples that is believed wholly."""
_ELSEWHERE = 50.0
"""Distance of an example in another range of the device, or far away."""
_WORDS = 0.3
"""Weight of an example that is a single word, or of another order, against a wide reading."""
_OTHER_KIND = 0.25
"""Weight of an example with a point for an integer at rest, and the other way round."""
_ROW = 4
"""Pairs with a zero at the same place that make a row."""
_IN_ROW = 0.12
"""What a pair gains, per register, in a row of such."""
_AT_REST = 0.8
"""How far a reading that rests follows the examples."""

Cut = list[tuple[int, Candidate]]
State = tuple[int, int]
"""Index in ORDERS and parity of wide values: the habit of the moment."""
_STATES: tuple[State, ...] = tuple((order, phase) for order in range(4) for phase in (0, 1))


Range = Sequence[Sequence[Candidate]]
"""For each register of a range the readings that begin there, at least one of a single register; none reaches beyond the end."""


@dataclass(frozen=True, slots=True)
class _Example:
    area: int
    place: int
    candidate: Candidate
    weight: float


def best_cuts(ranges: Sequence[Range], starts: Sequence[int]) -> list[Cut]:
    """For each of the ranges of one device: which readings, one after the other and without gaps, are the best together.

    `starts` are the wire addresses at which the ranges begin.
    """
    odd = [0.0 if start % 2 else _ODD for start in starts]
    rows = [
        [[_in_row(p, c, row) for c in here] for p, here in enumerate(one)]
        for one, row in zip(ranges, map(_alternating, ranges), strict=True)
    ]
    cuts = [_viterbi(one, rows[area], _RARE, odd[area]) for area, one in enumerate(ranges)]
    for _ in range(2):
        examples = [example for area, cut in enumerate(cuts) for example in _examples(area, cut, ranges[area])]
        begin = _beginning(examples)
        cuts = [
            _viterbi(
                one,
                [
                    [_follows(area, p, c, examples) + rows[area][p][n] for n, c in enumerate(here)]
                    for p, here in enumerate(one)
                ],
                begin,
                odd[area],
            )
            for area, one in enumerate(ranges)
        ]
    return cuts


def _in_row(place: int, candidate: Candidate, row: dict[tuple[int, Order], float]) -> float:
    """What a row of small pairs gives this reading, per register."""
    fits = candidate.width == 2 and "upper_zero" in candidate.reasons
    return row.get((place, candidate.order), 0.0) if fits else 0.0


def _alternating(candidates: Range) -> dict[tuple[int, Order], float]:
    """Where in the range every second register is zero and those between are not: a row of pairs that hold small numbers.

    For the place and order of each such pair what the row gives it, per register.
    """
    zero = ["zero" in here[0].reasons for here in candidates]
    found: dict[tuple[int, Order], float] = {}
    orders: tuple[tuple[Order, int], ...] = (("ABCD", 0), ("CDAB", 1))
    for order, top in orders:
        for phase in (0, 1):
            row: list[int] = []
            for place in [*range(phase, len(zero) - 1, 2), len(zero)]:
                pair = zero[place : place + 2]
                if pair == [True, True]:
                    continue
                if len(pair) == 2 and pair[top] and not pair[1 - top]:
                    row.append(place)
                    continue
                if len(row) >= _ROW:
                    found |= {(at, order): _IN_ROW for at in row}
                row = []
    return found


def _examples(area: int, cut: Cut, candidates: Range) -> list[_Example]:
    """The values that show the habit: wide ones of which all parts move, and words that move between others that move."""
    rests = [not any(one.moving for one in here if one.width == 1) for here in candidates]
    found: list[_Example] = []
    for place, one in cut:
        if one.type == "string" or not one.moving or one.score < 0.7:
            continue
        if one.width == 1:
            near = [rests[at] for at in (place - 1, place + 1) if 0 <= at < len(rests)]
            if not any(near) and "state" not in one.reasons:
                found.append(_Example(area, place, one, one.score - 0.5))
        elif one.type.startswith("float") or {"carries", "sign_extends", "upper_rests", "counter"} & set(one.reasons):
            found.append(_Example(area, place, one, one.score - 0.5))
    return found


def _beginning(examples: Sequence[_Example]) -> Sequence[float]:
    """What it costs to begin a range with each of `ORDERS`: nothing with the one that the device shows elsewhere."""
    shown = [
        sum(one.weight for one in examples if one.candidate.width > 1 and one.candidate.order == o) for o in ORDERS
    ]
    believed = min(sum(shown) / _ENOUGH, 1.0)
    if not believed:
        return _RARE
    return [
        (1 - believed) * rare + believed * _ORDER * (1 - weight / sum(shown))
        for rare, weight in zip(_RARE, shown, strict=True)
    ]


def _follows(area: int, place: int, candidate: Candidate, examples: Sequence[_Example]) -> float:
    """What the examples give a wide reading, per register."""
    if candidate.width == 1 or candidate.type == "string":
        return 0.0
    wide = kin = words = 0.0
    for example in examples:
        one = example.candidate
        if example.place == place and example.area == area:
            continue
        distance = min(abs(example.place - place), _ELSEWHERE) if example.area == area else _ELSEWHERE
        weight = example.weight * math.exp(-distance / _REACH)
        if one.width == 1:
            words += weight
            continue
        if not candidate.moving and one.type.startswith("float") != candidate.type.startswith("float"):
            weight *= _OTHER_KIND
        if one.order != candidate.order:
            words += weight
            continue
        wide += weight * (1.0 if example.area != area or (example.place - place) % 2 == 0 else 0.6)
        kin += weight * (one.type.removeprefix("u") == candidate.type.removeprefix("u"))
    total = wide + _WORDS * words
    if not total:
        return 0.0
    trust = min(total / _ENOUGH, 1.0)
    if not candidate.moving:
        trust *= _AT_REST
    return trust * (_WIDE * wide + _KIN * kin) / total


def _viterbi(candidates: Range, bonus: Sequence[Sequence[float]], begin: Sequence[float], odd: float) -> Cut:
    size = len(candidates)
    best: list[dict[State, float]] = [dict.fromkeys(_STATES, -math.inf) for _ in range(size + 1)]
    came: list[dict[State, tuple[int, State, Candidate]]] = [{} for _ in range(size + 1)]
    best[0] = {state: -begin[state[0]] - odd * state[1] for state in _STATES}
    for place in range(size):
        here, origin = _changed(best[place])
        for candidate, extra in zip(candidates[place], bonus[place], strict=True):
            ends = place + candidate.width
            gain = (candidate.score + extra) * candidate.width
            wide = candidate.width > 1 and candidate.type != "string"
            for state in _STATES:
                if wide and (ORDERS[state[0]] != candidate.order or state[1] != place % 2):
                    continue
                if here[state] + gain > best[ends][state]:
                    best[ends][state] = here[state] + gain
                    came[ends][state] = (place, origin[state], candidate)
    cut: Cut = []
    state = max(_STATES, key=lambda one: best[size][one])
    place = size
    while place:
        place, state, candidate = came[place][state]
        cut.append((place, candidate))
    return cut[::-1]


def _changed(values: dict[State, float]) -> tuple[dict[State, float], dict[State, State]]:
    """The best value of each habit when it may be taken up here at the cost of the change, and from which habit it comes."""
    origin: dict[State, State] = {}
    result: dict[State, float] = {}
    for state in _STATES:

        def worth(other: State, state: State = state) -> float:
            return values[other] - _ORDER * (other[0] != state[0]) - _PHASE * (other[1] != state[1])

        origin[state] = max(_STATES, key=worth)
        result[state] = worth(origin[state])
    return result, origin
