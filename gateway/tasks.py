"""Running things beside each other: when one ends or fails, the others are cancelled and awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends; cancels and awaits the rest; raises what that one raised. Cancellation reaches all.

    The parts are cancelled in their order, each awaited before the next: put first what must end first.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for task in done:
        task.result()
