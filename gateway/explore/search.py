"""Finding the readable ranges of a table with few reads: the plan alone, which asks through a generator.

A register can be read or not, and a read that touches one that cannot is refused as a whole. So a search begins with single
registers at places where devices begin their blocks, grows from each that answers, and finds the border of a block by bisection.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

Probe = tuple[int, int]
"""First address and number of registers or bits of a read."""


class Reply(StrEnum):
    """What a read came to."""

    YES = "yes"
    NO = "no"
    """Illegal data address, or the device refuses this read for itself."""
    TOO_LONG = "too_long"
    """Illegal data value: more than the device gives at once (or an address that it does not know)."""
    NEVER = "never"
    """Illegal function: the device has no such table."""
    LOST = "lost"
    """No answer."""


Search = Generator[Probe, Reply, None]

LIKELY = (
    0, 1, 100, 0x1000, 0x2000, 0x100, 0x200, 200, 300, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 0x3000,
    0x4000, 0x5000, 0x8000, 0x2100, 0x300, 0x400, 0x500, 20000, 30000, 40000, 30001, 40001, 50000, 0xF000,
)  # fmt: skip
"""Where the blocks of devices begin, the commonest first."""
_LONGEST = {True: 2000, False: 125}
_MISSES = 3
"""Reads without an answer, each asked twice, one after the other, that end the search of a table."""
_JUMPS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""How far behind a block, in smallest reads, the next one is looked for."""


@dataclass(slots=True)
class Found:
    """What is known of one table; complete at any time, also when the search is cut off."""

    bits: bool
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """First address and size, by address; ranges that touch are one."""
    longest: int = 0
    """The longest read that was answered."""
    absent: bool = False
    """The device says that it has no such table."""
    silent: bool = False
    """It stopped to answer here."""
    pairs: bool = False
    """Only reads of two registers were answered."""

    def add(self, start: int, size: int) -> None:
        """Adds a range that was read."""
        self.longest = max(self.longest, size)
        first, last = start, start + size
        rest = []
        for other, length in self.ranges:
            if other <= last and first <= other + length:
                first, last = min(first, other), max(last, other + length)
            else:
                rest.append((other, length))
        self.ranges = sorted([*rest, (first, last - first)])

    def knows(self, address: int) -> bool:
        """Whether the address lies in a range."""
        return any(start <= address < start + size for start, size in self.ranges)


def places(first: int, last: int, step: int) -> list[int]:
    """The addresses to begin at: the likely ones, then every `step`th between `first` and `last`, each once."""
    grid = range(first - first % step, last + 1, step) if step else range(0)
    wanted = dict.fromkeys(address for address in (*LIKELY, *grid) if first <= address <= last)
    return list(wanted)


@dataclass(slots=True)
class _Table:
    """The search of one table."""

    found: Found
    first: int
    last: int
    limit: int
    misses: int = 0
    over: bool = False

    def ask(self, start: int, size: int) -> Generator[Probe, Reply, bool]:
        """Whether these can be read; remembers them."""
        if self.over or start < self.first or start + size - 1 > self.last:
            return False
        reply = yield start, size
        if reply is Reply.LOST:
            reply = yield start, size  # a lost answer is no hole
        if reply is Reply.LOST:
            self.misses += 1
            if self.misses >= _MISSES:
                self.over = self.found.silent = True
            return False
        self.misses = 0
        if reply is Reply.NEVER:
            self.over = True
            self.found.absent = not self.found.ranges
            return False
        if reply is Reply.TOO_LONG and size > self.atom:
            self.limit = min(self.limit, max(size // 2, self.atom))
        if reply is Reply.YES:
            self.found.add(start, size)
        return reply is Reply.YES

    @property
    def atom(self) -> int:
        """The smallest read."""
        return 2 if self.found.pairs else 1

    def begin(self, address: int) -> Generator[Probe, Reply, bool]:
        """Whether anything can be read at the address, alone or, as long as nothing is known, as a pair."""
        if (yield from self.ask(address, self.atom)):
            return True
        if not self.found.ranges and not self.found.bits and not self.over and (yield from self.ask(address, 2)):
            self.found.pairs = True
            return True
        return False

    def grow(self, address: int, direction: int) -> Generator[Probe, Reply, int]:
        """From the readable `address` on (1) or back (-1) as far as it goes without a hole; the first address not read."""
        edge = address + self.atom if direction > 0 else address
        while not self.over:
            room = self.last + 1 - edge if direction > 0 else edge - self.first
            size = min(self.limit, room)
            size -= size % self.atom
            if size < self.atom:
                break
            got = yield from self.reach(edge, size, direction)
            if not got:
                break
            edge += direction * got
        return edge

    def between(self, end: int, begin: int) -> Search:
        """What lies in the hole from `end` to the block at `begin`: steps of growing width over it may have passed by a small block."""
        while not self.over:
            for jump in _JUMPS:
                before = begin - jump * self.atom
                if before <= end:
                    return
                if (yield from self.ask(before, self.atom)):
                    yield from self.grow(before, 1)
                    begin = yield from self.grow(before, -1)
                    break
            else:
                return

    def reach(self, edge: int, size: int, direction: int) -> Generator[Probe, Reply, int]:
        """How many registers from the edge on can be read at once: bisection, since a part of what can be read can be read."""
        limit = self.limit
        if (yield from self.ask(edge if direction > 0 else edge - size, size)):
            return size
        low, high = 0, size
        while high - low > self.atom and not self.over:
            if self.limit < limit:  # too long, not a hole
                limit = self.limit
                high = min(high, limit + self.atom)
            middle = (low + high) // 2
            middle -= middle % self.atom
            middle = max(middle, self.atom)
            if (yield from self.ask(edge if direction > 0 else edge - middle, middle)):
                low = middle
            else:
                high = middle
        return low


def search(
    found: Found, starts: Iterable[int], *, first: int = 0, last: int = 65535, limit: int | None = None
) -> Search:
    """Fills `found` with the readable ranges between `first` and `last`.

    Yields reads and is sent what came of them; ends by itself. `starts` are the addresses to begin at; behind each block it
    looks beyond holes of growing width, up to 64.
    """
    table = _Table(found, first, last, limit or _LONGEST[found.bits])
    for start in starts:
        if table.over:
            return
        if found.knows(start) or not (yield from table.begin(start)):
            continue
        end = yield from table.grow(start, 1)
        yield from table.grow(start, -1)
        while not table.over:
            for jump in _JUMPS:
                beyond = end + jump * table.atom
                if not found.knows(beyond) and (yield from table.ask(beyond, table.atom)):
                    begin = yield from table.grow(beyond, -1)
                    yield from table.between(end, begin)
                    end = yield from table.grow(beyond, 1)
                    break
            else:
                break
