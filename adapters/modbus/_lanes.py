"""Whose turn it is on a wire that bears one request at a time: commands first, then one-off reads, then the scans."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import IntEnum


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
