"""Whose turn it is on a wire that bears one request at a time: commands first, then one-off reads, then the scans."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import IntEnum
from typing import Final

OWED_WITHIN: Final = 1.0
"""Seconds for which a one-off read waits at most for the scan that had to give way to the one before."""


class Lane(IntEnum):
    """What a request is for. The smaller one goes first."""

    COMMAND = 0
    ONCE = 1
    """A person or a check asks for it, beside the schedule."""
    SCAN = 2


class Lanes:
    """The wire is one caller's, from `take` to `give`. Within a lane whoever came first goes first.

    A command waits for the request on the wire at most, and for the commands before it. One-off reads go before the scans, in turn with
    them where many of either wait: a script that reads without pause takes half of the wire and not all of it.
    """

    def __init__(self) -> None:
        self._taken = False
        self._crowd = 0
        """Those who wait, and those who have given up and are still in a queue."""
        self._last = Lane.SCAN
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}

    def take_now(self, lane: Lane) -> bool:
        """Whether the wire was free, and is the caller's now."""
        if self._taken:
            return False
        self._taken, self._last = True, lane
        return True

    async def take(self, lane: Lane) -> None:
        """Returns when the wire is the caller's, who must `give` it back. Cancellable."""
        if self.take_now(lane):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        self._crowd += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # the turn came in the very moment
            raise

    def give(self) -> None:
        """The wire is free for the next one."""
        if not self._crowd:
            self._taken = False
            return
        for lane in self._order():
            waiting = self._waiting[lane]
            while waiting:
                turn = waiting.popleft()
                self._crowd -= 1
                if not turn.done():
                    self._last = lane
                    turn.set_result(None)  # the wire stays taken: nobody may come between
                    return
        self._taken = False

    def outranked(self, lane: Lane) -> bool:
        """Whether somebody waits who goes before the one who has the wire for this lane and has sent nothing yet."""
        return any(not turn.done() for before in Lane if before < lane for turn in self._waiting[before])

    def _order(self) -> tuple[Lane, ...]:
        if self._last is Lane.ONCE:
            return Lane.COMMAND, Lane.SCAN, Lane.ONCE
        return Lane.COMMAND, Lane.ONCE, Lane.SCAN


class Owed:
    """Units of which a scan was turned away, since somebody had just asked them and they need a rest.

    A scan does not wait for that, since others could be asked meanwhile; a one-off read does. Whoever reads such a unit without end would
    have it alone: so the next one-off read lets the scan go first.
    """

    def __init__(self) -> None:
        self._units: dict[int, asyncio.Event] = {}

    def turned_away(self, unit: int) -> None:
        """A scan was."""
        self._units.setdefault(unit, asyncio.Event())

    def paid(self, unit: int) -> None:
        """A scan has the wire."""
        event = self._units.pop(unit, None)
        if event is not None:
            event.set()

    async def first(self, unit: int) -> bool:
        """Whether a scan had to go first, which it has done by now; one of a unit that has fallen silent may not come."""
        event = self._units.get(unit)
        if event is None:
            return False
        try:
            async with asyncio.timeout(OWED_WITHIN):
                await event.wait()
        except TimeoutError:
            if self._units.get(unit) is event:
                del self._units[unit]
        return True

    def clear(self) -> None:
        """The link is closed: nobody waits any more."""
        for unit in list(self._units):
            self.paid(unit)
