"""Finding out why a device refuses a read: a bad address, a border that reads must not cross, or too large a read.

Pure: a generator that says what to ask and is told what came. The line sends its requests among those of other units.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3


@dataclass(frozen=True, slots=True)
class BadSpan:
    """The device refuses this span (start, size) also on its own, with exception `code`."""

    span: tuple[int, int]
    code: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A read that begins before `address` must not go on to it, though both sides can be read."""

    address: int


@dataclass(frozen=True, slots=True)
class Limit:
    """The device gives at most `size` registers (or bits) in one read, as far as its values can show."""

    size: int


Defect = BadSpan | Cut | Limit
Probe = tuple[int, int]
"""(start, size) of a read to try; answered with the exception code, 0 when it was read."""


def isolate(spans: Sequence[tuple[int, int]], code: int) -> Generator[Probe, int, Defect | None]:
    """The first defect of a read that covers `spans` and was refused with exception `code` (2 or 3).

    `spans` are distinct (start, size) in ascending order. None: it cannot be found again, so it has passed. One bad address among n
    spans costs about 2 log2 of its place; what follows it is left to the next run. A device is taken at its word that what
    it refuses in part it refuses in whole; a wrong verdict costs requests, never values of other spans.
    """
    if len(spans) == 1:
        return BadSpan(spans[0], code)
    first = yield spans[0]
    if first:
        return BadSpan(spans[0], first)
    good, bad = 1, len(spans)
    step = 2
    while step < bad:  # first outwards in growing strides: a defect near the front is the common case after the first
        answer = yield _cover(spans[:step])
        if answer:
            bad, code = step, answer
        else:
            good, step = step, step * 2
    while bad - good > 1:
        middle = (good + bad) // 2
        answer = yield _cover(spans[:middle])
        if answer:
            bad, code = middle, answer
        else:
            good = middle
    culprit = spans[good]
    if culprit[0] == spans[0][0]:  # alone it is the very read that was refused
        return BadSpan(culprit, code)
    alone = yield culprit
    if alone:
        return BadSpan(culprit, alone)
    if not (yield _cover(spans[: good + 1])):
        return (
            None  # what was refused before is given now: the device was busy with itself, and nothing is to be learned
        )
    permitted = _cover(spans[:good])[1]
    if code == ILLEGAL_VALUE:
        # Too large, or a border which this device reports with the wrong code: a read of that size elsewhere tells.
        for end in range(good + 2, len(spans) + 1):
            probe = _cover(spans[good:end])
            if probe[1] > permitted:
                return Cut(culprit[0]) if (yield probe) == 0 else Limit(permitted)
        if _end(spans[good - 1]) >= culprit[0]:  # nothing between them: no border that could be crossed
            return Limit(permitted)
    return Cut(culprit[0])


def _end(span: tuple[int, int]) -> int:
    return span[0] + span[1]


def _cover(spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    start = spans[0][0]
    return start, max(_end(span) for span in spans) - start
