"""An event loop whose time passes only by waiting: an hour of a schedule takes a moment, and no load of the machine moves it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

START = 1_795_336_200_000_000
"""UTC in µs at the loop's second 0: a whole minute."""

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nobody: the time it is asked to wait has passed at once."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is due: the schedule sleeps for ever")
        self.passed += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.own = _Selector()
        super().__init__(self.own)

    def time(self) -> float:
        return self.own.passed


class LoopClock:
    """`adapters.contract.Clock` by the running loop's time."""

    def now(self) -> int:
        return START + round(asyncio.get_running_loop().time() * 1e6)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` on such a loop."""
    loop = _Loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
