"""The pace of a simulated process: real time in, process time out, at most twenty times a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

__all__ = ["TICK_SECONDS", "paced", "run_at_pace"]

TICK_SECONDS = 0.1
"""Real seconds between two steps of a process."""


async def paced(
    speed: float,
    *,
    period: float = TICK_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[float, None]:
    """Yield, every *period* real seconds (at least 0.05), the process seconds that have gone by since the last time.

    They are the real ones times *speed*; after a pause of the machine (a suspended laptop, a stopped process) at most
    one real second is made up, so that there is no burst.
    """
    period = max(period, 0.05)
    last = monotonic()
    while True:
        await asyncio.sleep(period)
        now = monotonic()
        yield min(now - last, 1.0) * speed
        last = now


async def run_at_pace(
    step: Callable[[float], None],
    speed: float,
    *,
    period: float = TICK_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Call ``step(process_seconds)`` at the pace of :func:`paced` until cancelled; exceptions of *step* end it."""
    async with aclosing(paced(speed, period=period, monotonic=monotonic)) as steps:
        async for seconds in steps:
            step(seconds)
