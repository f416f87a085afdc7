"""The pace of a simulated process: real time in, process time out, at most twenty times a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["TICK_SECONDS", "run_at_pace"]

TICK_SECONDS = 0.1
"""Real seconds between two steps of a process."""


async def run_at_pace(
    step: Callable[[float], None],
    speed: float,
    *,
    period: float = TICK_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Call ``step(process_seconds)`` every *period* real seconds until cancelled; exceptions of *step* end it.

    The process seconds are the real ones since the call before, times *speed*; after a pause of the machine (a
    suspended laptop, a stopped process) at most one real second is made up, so that there is no burst.
    """
    period = max(period, 0.05)
    last = monotonic()
    while True:
        await asyncio.sleep(period)
        now = monotonic()
        step(min(now - last, 1.0) * speed)
        last = now
