"""Text in registers: where it begins, how far it reaches, and which byte of a register comes first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from gateway.explore.evidence import Candidate
from gateway.explore.series import Order, text


def strings(rows: Sequence[Sequence[int]]) -> dict[int, Candidate]:
    """Where text begins, and the best reading of each run: registers that rest and hold printable ASCII, padding behind included.

    Which byte of a register comes first is told by the look of the text; where that says little, by the other texts of the range.
    """
    first = rows[0]
    rests = [all(row[place] == first[place] for row in rows) for place in range(len(first))]
    runs: list[tuple[int, int, int]] = []
    place = 0
    while place < len(first):
        end = place
        while end < len(first) and rests[end] and _full(first[end]):
            end += 1
        if end < len(first) and rests[end] and _half(first[end]) and end > place:
            end += 1
        if end - place >= 2:
            content = end
            zeros = content
            while zeros < len(first) and rests[zeros] and first[zeros] == 0:
                zeros += 1
            if _worded(text(first[place:content], "ABCD")):
                runs.append((place, content, zeros))
            end = _field_end(place, content, zeros)
        place = max(end, place + 1)
    habit = math.fsum(_leaning(first[begin:content]) for begin, content, _ in runs)
    found: dict[int, Candidate] = {}
    for begin, content, zeros in runs:
        # The number before a text may look like letters: the text may also begin later.
        for later in range(begin, min(begin + _LATER, content - 2) + 1):
            own = _leaning(first[later:content])
            order: Order = "ABCD" if (own if abs(own) > _PLAIN else own + habit) >= -0.02 else "BADC"
            score = 0.95 if content - later >= 3 else 0.75
            found[later] = Candidate("string", order, _field_end(later, content, zeros) - later, score, ("text",))
    return found


def _field_end(begin: int, content: int, zeros: int) -> int:
    """Where a text ends that fills the registers to `content`, with zeros up to `zeros`: fields have round lengths, other zeros are not theirs."""
    return max([begin + size for size in _FIELDS if content <= begin + size <= zeros], default=content)


_FIELDS = (4, 8, 10, 16, 20, 24, 32)
"""Registers of a field of text: round numbers."""
_LATER = 2
"""Registers of a number that may be taken for the begin of a text."""
_PLAIN = 0.25
"""Difference of naturalness from which on a text speaks for itself."""


def _printable(byte: int) -> bool:
    return 0x20 <= byte < 0x7F


def _full(word: int) -> bool:
    return _printable(word >> 8) and _printable(word & 0xFF)


def _half(word: int) -> bool:
    return (_printable(word >> 8) and not word & 0xFF) or (_printable(word & 0xFF) and not word >> 8)


def _kind(character: str) -> str:
    return "d" if character.isdigit() else "u" if character.isupper() else "l" if character.islower() else "p"


_PAIRS = frozenset(
    ["th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed", "is", "it", "al", "ar", "st", "to", "nt", "ng", "se", "ha", "as", "ou", "io", "le", "ve", "co", "me", "de", "hi", "ri", "ro", "ic", "ne", "ea", "ra", "ce", "li", "ch", "ll", "be", "ma", "si", "om", "ur", "ac", "pr", "tr", "mo", "el", "ec", "ct", "ow", "po", "um", "pu", "mp", "ss", "in", "va", "al", "oi", "dr", "iv", "se", "na", "am", "no", "em", "co", "mp", "et", "sy", "te", "ol", "ga", "ng", "sh"]
)  # fmt: skip


def _natural(shown: str) -> float:
    """How much a text looks like names, versions and serial numbers, per letter: usual pairs of letters, capitals at the begin of words."""
    found = 0.0
    for a, b in itertools.pairwise(shown):
        kinds = _kind(a) + _kind(b)
        if (a + b).lower() in _PAIRS:
            found += 1.0
        if kinds == "lu":
            found -= 2.0
        elif kinds in ("ld", "dl", "ud", "du"):
            found -= 0.7
        elif kinds == "pp":
            found -= 1.0
        elif kinds == "pl":
            found -= 0.2
    if shown and _kind(shown[0]) == "p":
        found -= 1.0
    return found / max(len(shown) - 1, 1)


def _worded(shown: str) -> bool:
    return sum(character.isalnum() for character in shown) >= max(4, 0.6 * len(shown))


def _leaning(words: Sequence[int]) -> float:
    """Above zero where the first character of a register is in its upper byte, below where it is in its lower one."""
    straight, swapped = text(words, "ABCD"), text(words, "BADC")
    if ("\0" in straight) != ("\0" in swapped):
        return -1.0 if "\0" in straight else 1.0
    return _natural(straight) - _natural(swapped)
