"""A poller in virtual time, whose turns take as long as a test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from adapters.opcua import _polling
from adapters.opcua._polling import Poller


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return round(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds


async def grid(period: float, durations: Sequence[float]) -> tuple[list[float], dict[str, int]]:
    """When each turn began (s), and what was counted, where turn i takes `durations[i]`."""
    clock, taken, counted = _Clock(), [], Counter[str]()
    left = list(durations)

    async def turn() -> None:
        if not left:
            raise EOFError
        taken.append(round(clock.seconds, 6))
        clock.seconds += left.pop(0)

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds

    nothing: Any = None
    poller = Poller(
        nothing,
        clock,
        nothing,
        nothing,
        nothing,
        (),
        period,
        nothing,
        nothing,
        lambda what, n: counted.update({what: n}),
    )
    poller.turn = turn  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_polling, "asyncio", _Sleeping(sleep))
        with pytest.raises(EOFError):
            await poller.run()
    return taken, dict(counted)


class _Sleeping:
    """`asyncio` with another sleep."""

    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)
