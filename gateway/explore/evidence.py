"""How believable it is that some registers are one value of a type and byte order.

A score is per register, between 0 and 1, so that readings of the same registers in pieces of different width compare. The
rules are about how devices behave: a measured value moves little between two looks and has a magnitude that people
print on panels; a counter rises; the low word of a larger number jumps about or wraps where the high word steps.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from gateway.explore.series import ORDERS, WIDTHS, Order, number, ordered

ROUGH = 6000
"""Mean change between two looks, in counts of 16 bits, above which a word is no measured value."""


_COUNTERS = ((0.3, 0.78), (0.8, 0.74), (1.5, 0.66), (5.0, 0.62), (100.0, 0.56), (2000.0, 0.45), (math.inf, 0.3))
"""Counts from one look to the next, and the score of a counter of 16 bits: nobody builds one that is full within the hour."""


_FAST = 20_000
"""Counts from one look to the next above which one of 32 bits would be full within days."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One reading of `width` registers: score per register, and why (codes of `gateway.explore.words`)."""

    type: str
    order: Order
    width: int
    score: float
    reasons: tuple[str, ...] = field(default=())
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Motion:
    """How a series of numbers moves."""

    low: float
    high: float
    distinct: int
    change: float
    """Mean of the absolute differences."""
    typical: float
    """Median of those differences that are not zero."""
    greatest: float
    rises: int
    falls: int

    @property
    def constant(self) -> bool:
        return self.distinct == 1

    @property
    def counter(self) -> bool:
        """Only ever rises, and not in one jump."""
        return self.rises >= 3 and self.falls == 0

    @property
    def size(self) -> float:
        return max(abs(self.low), abs(self.high))


def motion(values: Sequence[int | float]) -> Motion:
    """Of finite values, at least one."""
    steps = [float(b) - float(a) for a, b in itertools.pairwise(values)]
    moved = [abs(step) for step in steps if step]
    return Motion(
        float(min(values)), float(max(values)), len(set(values)), math.fsum(moved) / max(len(steps), 1),
        median(moved) if moved else 0.0, max(moved, default=0.0), sum(step > 0 for step in steps), sum(step < 0 for step in steps),
    )  # fmt: skip


def _short(value: float) -> int:
    """How many significant digits the number needs to come out as the same float32: a setting has few."""
    wanted = struct.pack(">f", value)
    for digits in range(1, 9):
        try:
            if struct.pack(">f", float(f"{value:.{digits}g}")) == wanted:
                return digits
        except OverflowError:
            return 9
    return 9


# ---------------------------------------------------------------------------------------------------------- one register


def single(words: Sequence[int]) -> list[Candidate]:
    """The readings of one register, of which `words` are the looks."""
    plain = motion(words)
    if plain.constant:
        return _constant_word(words[0])
    signed = [word - 65536 if word & 0x8000 else word for word in words]
    swapped = [(word & 0xFF) << 8 | word >> 8 for word in words]
    turned = [word - 65536 if word & 0x8000 else word for word in swapped]
    found = [_word("uint16", "ABCD", plain, 0.0), _word("int16", "ABCD", motion(signed), 0.02)]
    if plain.high < 0x8000:
        found[1] = Candidate("int16", "ABCD", 1, found[0].score - 0.03, found[0].reasons, True)
    elif plain.low >= 0x8000 and motion(signed).low >= -5000:
        found[0] = Candidate("uint16", "ABCD", 1, found[0].score * 0.7, found[0].reasons, True)
    if plain.low < 0x8000 <= plain.high:
        # It crosses 0 or 32768: the reading that jumps there is the wrong one.
        there = motion(signed)
        wrong = 0 if there.greatest < 0.6 * plain.greatest else 1 if plain.greatest < 0.6 * there.greatest else None
        if wrong is not None:
            one = found[wrong]
            found[wrong] = Candidate(one.type, one.order, 1, min(one.score, 0.4), ("jumps",), True)
    if _packed(words):
        score = max(found[0].score, 0.64 if plain.size <= 4000 else 0.58)
        found[0] = Candidate("uint16", "ABCD", 1, score, ("state",), True)
    # Swapped bytes in single registers are rare: only a word that is rough as it stands can show them.
    for type_, values in (("uint16", swapped), ("int16", turned)):
        other = _word(type_, "BADC", motion(values), 0.2)
        if found[0].score < 0.35 and found[1].score < 0.35:
            found.append(other)
    return sorted(found, key=lambda candidate: -candidate.score)


def _packed(words: Sequence[int]) -> bool:
    """Whether these are bits, each for itself: they rest at most looks, and one or two change at a time."""
    changes = [(a ^ b).bit_count() for a, b in itertools.pairwise(words) if a != b]
    few = len(set(words)) <= 24 and len(changes) <= 0.4 * len(words)
    return few and len(changes) >= 3 and math.fsum(changes) <= 1.6 * len(changes)


def _constant_word(word: int) -> list[Candidate]:
    if word == 0:
        return [Candidate("uint16", "ABCD", 1, 0.60, ("zero",)), Candidate("int16", "ABCD", 1, 0.5, ("zero",))]
    if word in (0xFFFF, 0x8000, 0x7FFF):
        score = 0.5
        return [
            Candidate("uint16", "ABCD", 1, score, ("absent",)), Candidate("int16", "ABCD", 1, score - 0.02, ("absent",)),
        ]  # fmt: skip
    if word >= 65536 - 3000:
        return [
            Candidate("int16", "ABCD", 1, 0.54, ("constant", "negative")),
            Candidate("uint16", "ABCD", 1, 0.3, ("constant",)),
        ]
    score = 0.6 if word <= 100 else 0.56 if word <= 4000 or word % 100 == 0 else 0.52 if word <= 12000 else 0.49
    return [
        Candidate("uint16", "ABCD", 1, score, ("constant",)), Candidate("int16", "ABCD", 1, score - 0.03, ("constant",)),
    ]  # fmt: skip


def _word(type_: str, order: Order, moves: Motion, penalty: float) -> Candidate:
    reasons: list[str] = []
    if moves.counter:
        score = next(score for most, score in _COUNTERS if moves.change < most)
        reasons.append("counter")
    elif moves.distinct <= 4 and moves.size <= 1024:
        score, reasons = 0.7, ["state"]
    else:
        relative = moves.typical / max(moves.size, 1.0)
        if moves.change > ROUGH:
            score, reasons = 0.05, ["jumps"]
        elif moves.typical <= 5 or relative <= 0.03:
            score, reasons = 0.77, ["smooth"]
        elif moves.distinct <= 6 and moves.change < 600:
            score, reasons = 0.62 if moves.size <= 4000 else 0.4, ["state"]
        else:
            score = max(0.68 - 0.4 * min(relative, 1.0) - 0.3 * moves.change / ROUGH, 0.1)
            reasons = ["moves"]
    if moves.low < 0:
        reasons.append("negative")
    return Candidate(type_, order, 1, score - penalty, tuple(reasons), True)


# ------------------------------------------------------------------------------------------------------ several registers


def wide(rows: Sequence[Sequence[int]], width: int) -> list[Candidate]:
    """The readings of two or four registers as one number; `rows` are the looks."""
    if all(not any(row) for row in rows):
        return []
    found: list[Candidate] = []
    small = all(word < 256 for row in rows for word in row)
    for order in ORDERS:
        if small and order in ("BADC", "DCBA"):
            continue  # small numbers side by side
        words = [ordered(row, order) for row in rows]
        rare = {"ABCD": 0.0, "CDAB": 0.02, "BADC": 0.05, "DCBA": 0.05}[order]
        float_ = _float("float32" if width == 2 else "float64", order, rows, rare)
        if float_ is not None:
            found.append(float_)
        for type_ in ("uint32", "int32") if width == 2 else ("uint64", "int64"):
            integer = _integer(type_, order, words, rows, rare)
            if integer is not None:
                found.append(integer)
    return sorted(found, key=lambda candidate: -candidate.score)


def _float(type_: str, order: Order, rows: Sequence[Sequence[int]], rare: float) -> Candidate | None:
    values = [float(number(row, type_, order)) for row in rows]
    finite = [value for value in values if math.isfinite(value)]
    width = WIDTHS[type_]
    if not finite:
        # One quiet NaN, as devices write it for "no value": the sign and payload bits are all zero or all one.
        first = ordered(rows[0], order)
        if first[0] in (0x7FC0, 0x7FF8, 0xFFC0) and not any(first[1:]):
            return Candidate(type_, order, width, 0.7 - rare, ("nan",))
        return None
    if len(finite) < len(values) and not all(value != value for value in values if not math.isfinite(value)):
        return None
    shown = [abs(value) for value in finite if value]
    if not shown:
        return None
    big, small = max(shown), min(shown)
    if big > 1e12 or small < 1e-9 or big < 1e-6:
        return None
    moves = motion(finite)
    if width == 4 and not moves.constant and moves.high - moves.low < 1e-9 * moves.size:
        return None  # only the last digits move: a word behind three that rest
    most = 1e7 if width == 2 else 1e10
    likely = 0.0 if 0.01 <= big <= most / 100 else 0.07 if 0.001 <= big <= most else 0.35
    if moves.constant:
        digits = _short(finite[0]) if type_ == "float32" else len(f"{finite[0]:.15g}".replace(".", "").strip("-0"))
        score = 0.74 if digits <= 4 else 0.66 if digits <= 6 else 0.5
        reasons = ["constant", "few_digits" if digits <= 6 else "magnitude"]
        likely *= 2
    elif moves.counter:
        score = 0.88 if moves.typical <= 0.02 * moves.size else 0.7
        reasons = ["counter", "magnitude"]
    else:
        relative = moves.typical / max(moves.size, 1e-9)
        span = (moves.high - moves.low) / max(moves.size, 1e-9)
        score = 0.88 if relative <= 0.05 else 0.8 if relative <= 0.2 else 0.66 if relative <= 0.7 else 0.5
        reasons = ["smooth" if relative <= 0.2 else "moves", "magnitude"]
        if span > 1 and small < big * 1e-4:
            score -= 0.1
    if any(value != value for value in values):
        reasons.append("nan")
    if min(finite) < 0:
        reasons.append("negative")
        if max(finite) > 0 and moves.typical > 0.9 * moves.size:
            score -= 0.3
    if not moves.constant and moves.distinct <= 4 and _short(finite[0]) > 4:
        score -= 0.12  # a few states, and none of them a round number
    if order in ("BADC", "DCBA") and moves.constant:
        score -= (
            0.25 if any(ordered(rows[0], order)[width // 2 :]) else 0.05
        )  # one number at rest is no evidence of a rare order
    if not moves.constant and len(finite) == len(values):
        lower = {tuple(ordered(row, order)[width // 2 :]) for row in rows}
        upper = {tuple(ordered(row, order)[: width // 2]) for row in rows}
        if width == 2 and len(upper) == 1 and len(lower) > 4 and max(lower)[0] < 4_000:
            score -= 0.25  # below a word that rests, a small number: each for itself
        if len(lower) == 1 and any(next(iter(lower))):
            score -= 0.35  # the fine part rests at something while the coarse part moves
        elif len(lower) > 1 and len(upper) > 1:
            score += 0.1 * _coupling(finite, _loosened(rows, type_, order)) - 0.03
    if width == 4 and not moves.constant and _rough(rows, order, 2) and _rough(rows, order, 3):
        score += 0.08  # two words of digits below a steady beginning
    elif width == 4 and not moves.constant:
        # The finest digits of a measured number are noise, or none where it was a float32.
        lowest = {tuple(ordered(row, order)[2:]) for row in rows}
        score -= 0.2 if all(last == 0 and not third & 0x1FFF for third, last in lowest) else 0.3
    elif width == 4:
        score -= 0.03  # what holds as float64 often holds as two float32, and these are far commoner
    return Candidate(
        type_, order, width, score - likely - rare - _disorder(rows, order), tuple(reasons), not moves.constant
    )  # fmt: skip


def _coupling(values: Sequence[float], loose: Sequence[float]) -> float:
    """How far the upper and the lower part of a number go together: 1 wholly, 0 not at all.

    `loose` is the number with the lower part taken from another look: if that moves no more than `values` do, the parts are strangers.
    """
    together = math.fsum(abs(b - a) for a, b in itertools.pairwise(values))
    apart = math.fsum(abs(b - a) for a, b in itertools.pairwise(loose))
    return max(0.0, 1 - together / apart) if apart else 0.0


def _loosened(rows: Sequence[Sequence[int]], type_: str, order: Order) -> list[float]:
    """The numbers with the lower half of each taken from the look half the watch later."""
    words = [ordered(row, order) for row in rows]
    half, turn = len(words[0]) // 2, len(words) // 2
    mixed = [word[:half] + words[(place + turn) % len(words)][half:] for place, word in enumerate(words)]
    return [float(number(word, type_, "ABCD")) for word in mixed]


def _rough(rows: Sequence[Sequence[int]], order: Order, place: int) -> bool:
    """Whether the word of this significance jumps about, read with and without sign."""
    words = [ordered(row, order)[place] for row in rows]
    signed = [word - 65536 if word & 0x8000 else word for word in words]
    return min(motion(words).change, motion(signed).change) > 2500


def _disorder(rows: Sequence[Sequence[int]], order: Order) -> float:
    """A penalty when a byte takes more values than a less significant one does: then the order is wrong."""
    counts: list[int] = []
    for place in range(len(rows[0])):
        words = {row[place] for row in rows}
        halves = [len({word >> 8 for word in words}), len({word & 0xFF for word in words})]
        counts += halves
    if order in ("CDAB", "DCBA"):
        counts = [count for place in range(len(counts) - 2, -1, -2) for count in counts[place : place + 2]]
    if order in ("BADC", "DCBA"):
        counts = [count for place in range(0, len(counts), 2) for count in (counts[place + 1], counts[place])]
    for upper, lower in itertools.pairwise(counts):
        if upper > 1.5 * lower + 2 and lower > 1:
            return 0.12
    # A byte that rests below one that moves: only round numbers do so, and then everything below rests too.
    moving = [count > 1 for count in counts]
    last = max((place for place, one in enumerate(moving) if one), default=-1)
    first = moving.index(True) if True in moving else 0
    return 0.1 if not all(moving[first : last + 1]) else 0.0


def _integer(
    type_: str, order: Order, words: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], rare: float
) -> Candidate | None:
    values = [int(number(row, type_, order)) for row in rows]
    width = WIDTHS[type_]
    signed = type_.startswith("int")
    moves = motion(values)
    negative = moves.low < 0
    if signed and not negative:
        twin = _integer(f"u{type_}", order, words, rows, rare)
        return None if twin is None else Candidate(
            type_, order, width, twin.score - 0.03, twin.reasons, twin.moving
        )  # fmt: skip
    if not signed and moves.high >= 1 << 16 * width - 1:
        return None
    if moves.size >= (1 << 31 if width == 2 else 1 << 48):
        return None
    if width == 4 and moves.size >= 1 << 40:
        return None
    low = motion([word[-1] for word in words])
    upper = [tuple(word[:-1]) for word in words]
    going = len(set(upper)) > 1 and not low.constant
    coupling = _coupling([float(value) for value in values], _loosened(rows, type_, order)) if going else 0.0
    if (
        moves.distinct <= 4
        and going
        and all((a[:-1] != b[:-1]) == (a[-1] != b[-1]) for a, b in itertools.pairwise(words))
    ):
        coupling = 1.0  # they step together
    score, reasons = _upper_part(
        upper, low, moves, width, coupling, _rough(words, "ABCD", width - 1), _carried(words, values)
    )
    if score == 0.0:
        return None
    if negative:
        reasons.append("negative")
    score -= 2.5 * _disorder(rows, order)
    if order in ("BADC", "DCBA") and "carries" not in reasons and "sign_extends" not in reasons:
        score -= 0.12  # without such evidence the bytes of each word stand as the standard has them
    return Candidate(type_, order, width, score - rare, tuple(reasons), not moves.constant)


def _large(first: tuple[int, ...], low: float, moves: Motion) -> float:
    """The score of an integer at rest that needs more than 16 bits."""
    if moves.low < 0:
        return 0.42 if moves.low > -(1 << 18) else 0.3
    if moves.size >= 1e8:
        return 0.3
    return 0.56 if max(first) <= 8 and low > 12_000 else 0.44


def _carried(words: Sequence[Sequence[int]], values: Sequence[int]) -> bool:
    """Whether the lowest word wraps whenever the others step, and the number goes on as if nothing were: what strangers do not do."""
    steps = [
        (abs(b - a), abs(after[-1] - before[-1]))
        for (before, after), (a, b) in zip(itertools.pairwise(words), itertools.pairwise(values), strict=True)
        if before[:-1] != after[:-1]
    ]
    return len(steps) >= 2 and all(whole <= 16_000 and wrap >= 40_000 for whole, wrap in steps)


def _stepping(
    upper: Sequence[tuple[int, ...]], low: Motion, moves: Motion, width: int, coupling: float
) -> tuple[float, list[str]]:
    """Score and reasons of an integer of which the upper registers move; 0 when nothing speaks for it."""
    zeros, ones = (0,) * (width - 1), (0xFFFF,) * (width - 1)
    if moves.distinct <= 4 and moves.size < 1 << 24 and coupling == 1.0:
        return 0.62, ["state", "together"]
    if set(upper) == {zeros, ones}:
        near = moves.typical <= ROUGH and moves.greatest <= 20_000
        return (0.86, ["sign_extends"]) if near else (0.0, [])
    if low.constant or moves.typical == 0.0 or (coupling < 0.3 and not moves.counter):
        return 0.0, []
    even = moves.greatest <= 12 * moves.typical
    sawtooth = moves.counter and even and low.falls > 0 and low.high - low.low > 30_000
    if width == 4 and any(first[:2] != (0, 0) for first in upper) and len({first[:2] for first in upper}) == 1:
        # The lower half alone explains it, unless a small number above it is the top of a total.
        if sawtooth and upper[0][0] == 0 and upper[0][1] <= 400:
            return 0.72, ["counter", "carries"]
        return 0.4, ["carries"]
    if sawtooth:
        # A sawtooth in the low word under a step of the upper one: nothing else looks so.
        return 0.6 if moves.low < 0 else 0.95 if moves.typical < _FAST else 0.7, ["counter", "carries"]
    if even and not moves.counter and low.high - low.low > 30_000 and moves.typical <= 0.25 * moves.size:
        return 0.78, ["smooth", "carries"]
    return 0.0, []


def _upper_part(
    upper: Sequence[tuple[int, ...]],
    low: Motion,
    moves: Motion,
    width: int,
    coupling: float,
    rough: bool,
    carried: bool,
) -> tuple[float, list[str]]:
    """Score and reasons of an integer from how the registers above the lowest behave; 0 when they cannot belong to it."""
    zeros, ones = (0,) * (width - 1), (0xFFFF,) * (width - 1)
    resting = len(set(upper)) == 1
    if not resting:
        found = _stepping(upper, low, moves, width, coupling)
        if width == 2 and found[0] < 0.9 and carried and not moves.counter:
            return 0.9, ["smooth", "carries"]
        tops = {first[0] - 65536 if first[0] & 0x8000 else first[0] for first in upper}
        if found[0] == 0.0 and width == 2 and rough and min(tops) >= -8 and max(tops) <= 8 and not moves.counter:
            return 0.62, ["moves", "together"]  # a word that jumps belongs to something, and this is a narrow top of it
        return found
    first = upper[0]
    empty, full = first == zeros, first == ones
    if moves.constant:
        if moves.size == 0:
            return 0.0, []
        if full:
            return 0.58, ["constant", "sign_extends"]
        if empty and width == 2 and low.low >= 65536 - 3000:
            return 0.48, ["constant", "upper_zero"]  # rather a zero and a small negative number
        score = 0.5 if empty else 0.52 if first[:2] == (0, 0) else _large(first, low.low, moves)
        return score - (0.02 if width == 4 else 0.0), ["constant", "upper_zero"] if empty else ["constant"]
    slow = moves.typical <= 0.05 * max(moves.size, 1.0)
    if full:
        return 0.76, ["sign_extends", "smooth" if slow else "moves"]
    if empty:
        if moves.counter:
            return 0.70 if width == 2 else 0.63, ["counter", "upper_zero"]
        if (
            width == 2
            and moves.rises
            and not moves.falls
            and moves.distinct <= 4
            and moves.typical <= 5 <= low.low / 10
        ):
            return 0.68, ["counter", "upper_zero"]
        if width == 4:
            return 0.5, ["moves", "upper_zero"]
        if moves.distinct <= 4 and moves.size <= 1024:
            return 0.53, ["state", "upper_zero"]
        return (0.70 if rough else 0.59), ["smooth" if slow else "moves", "upper_zero"]
    top = first[0] if width == 2 else first[0] * 65536 + first[1]
    if moves.counter and width == 4:
        return (0.3 if top > 4000 else 0.6 if top else 0.72), ["counter", "upper_rests"]
    if width == 2 and moves.rises and not moves.falls and moves.distinct <= 4 and moves.typical <= 2 <= low.low / 250:
        return (0.62 if top <= 400 else 0.5), ["counter", "upper_rests"]
    if moves.counter:
        # The low word of a large number lies anywhere; a number of 16 bits is mostly small.
        return (0.5 if top > 4000 else 0.76 if low.low > 10_000 else 0.7 if low.low > 8_000 else 0.65), [
            "counter",
            "upper_rests",
        ]
    if slow and rough:
        return 0.7, ["smooth", "upper_rests"]
    likely = 0.56 if low.distinct > 6 and low.high > 8_000 else 0.42
    return (likely if slow and top <= 400 else 0.2), ["moves", "upper_rests"]
