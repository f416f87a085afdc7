"""A clock that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

START = 1_795_336_200_000_000


async def settle(rounds: int = 50) -> None:
    """Lets everything run that can run without time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class VirtualTime:
    """`now` and `monotonic` as in `adapters.contract.Clock`, and a `sleep` that wakes in `advance`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.offset = 0
        """µs by which the clock is wrong."""
        self.slept: list[float] = []
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> int:
        return START + round(self.seconds * 1e6) + self.offset

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.seconds + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Lets this much time pass, waking sleepers in their order."""
        await settle()
        end = self.seconds + seconds
        while self._waiting and self._waiting[0][0] <= end:
            at, _, future = heapq.heappop(self._waiting)
            self.seconds = max(self.seconds, at)
            if not future.done():
                future.set_result(None)
                await settle()
        self.seconds = end
        await settle()
