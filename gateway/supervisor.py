"""Everything that runs for ever is a supervised child: one way to come back, one closed set of states, and two lines in the log
for each outage, one when it begins and one when it is over."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from adapters.contract import Clock, SystemClock
from schemas.bilingual import Bilingual
from schemas.wire import State

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
SLOW_FIRST: Final = 60.0
SLOW_LONGEST: Final = 3600.0
STEADY: Final = 30.0
"""Seconds that a child must have been up for its next outage to begin with the first pause again."""
_JITTER: Final = 0.25
LOOK: Final = 3.0
"""Seconds between two looks whether the cause of a trouble was removed."""

Retry = Literal["soon", "seldom", "never"]
Sleep = Callable[[float], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a child is not up: a short stable word, a sentence, what a person can do, and when to try again (not before `after` seconds)."""

    reason: str
    message: str
    fix_en: str = ""
    fix_zh: str = ""
    retry: Retry = "soon"
    after: float | None = None
    cured: Callable[[], bool] | None = None
    """Asked every few seconds of a long pause: true ends it, since a person has done something about it."""
    bug: bool = False
    """Nobody expected this: it is logged with its traceback, and the state is failed while it is tried again."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a child is since when (µs), with the reason and the fix of its trouble."""

    state: State
    since: int
    reason: str = ""
    message: str = ""
    fix_en: str = ""
    fix_zh: str = ""


@dataclass(slots=True)
class Numbers:
    """Running totals since the start. `down_seconds` counts finished outages only."""

    attempts: int = 0
    ups: int = 0
    losses: int = 0
    down_seconds: float = 0.0


class Backoff:
    """Pauses that double from `first` to `longest` seconds, each a quarter shorter or longer by chance, so that children that
    were lost together do not all come back at once. No pause is longer than `longest`."""

    def __init__(self, first: float, longest: float, chance: Callable[[], float] = random.random) -> None:
        self._first, self._longest, self._chance = first, longest, chance
        self._next = first

    def pause(self) -> float:
        """The next pause in seconds."""
        base, self._next = self._next, min(self._next * 2, self._longest)
        return min(base * (1 - _JITTER + 2 * _JITTER * self._chance()), self._longest)

    def reset(self) -> None:
        """Begins with the first pause again."""
        self._next = self._first


class Supervised:
    """Keeps one thing running: `run` calls `once` again and again until it is cancelled.

    `once` is given a function to call when the thing is up; it runs until the thing is lost and then raises. `judge` says what an
    exception means; one for which it gives None is not the child's trouble and ends `run`. `on_change` hears of each new condition.
    """

    def __init__(
        self,
        name: str,
        once: Callable[[Callable[[], None]], Awaitable[None]],
        judge: Callable[[Exception], Trouble | None],
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
        on_change: Callable[[Condition], None] | None = None,
    ) -> None:
        self.name = name
        self.numbers = Numbers()
        self._once, self._judge = once, judge
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._soon = Backoff(first, longest, chance)
        self._seldom = Backoff(SLOW_FIRST, SLOW_LONGEST, chance)
        self._on_change = on_change
        self._log = logging.getLogger("guantong.supervisor")
        self._up_at: float | None = None
        self._lost_at: float | None = None
        self._told: set[str] = set()
        self.condition = Condition("starting", self._clock.now())

    async def run(self) -> None:
        """Runs until it is cancelled. Raises what `judge` does not know."""
        try:
            while True:
                trouble = await self._attempt()
                self._lost(trouble)
                await self._pause(trouble)
        finally:
            self._set(Condition("stopped", self._clock.now()))

    def stopping(self) -> None:
        """The child is about to be cancelled and will take a moment."""
        self._set(Condition("stopping", self._clock.now()))

    def degrade(self, reason: str, message: str, *, fix_en: str = "", fix_zh: str = "") -> None:
        """The child is up but not all of it works. No effect while it is not up."""
        if self.condition.state in ("ok", "degraded"):
            self._set(Condition("degraded", self._clock.now(), reason, message, fix_en, fix_zh))

    def recover(self) -> None:
        """All of it works again."""
        if self.condition.state == "degraded":
            self._set(Condition("ok", self._clock.now()))

    async def _attempt(self) -> Trouble:
        """One life of the child; how it ended."""
        self.numbers.attempts += 1
        try:
            await self._once(self._up)
        except Exception as error:  # a plug-in may raise anything: `judge` decides, and what it does not know is raised
            trouble = self._judge(error)
            if trouble is None:
                raise
            if trouble.bug and trouble.reason not in self._told:
                self._log.error("%s: %s", self.name, trouble.message, exc_info=error)
                self._told.add(trouble.reason)
            return trouble
        return Trouble("ended", Bilingual("ended without being asked to", "意外结束"))

    def _up(self) -> None:
        if self._up_at is not None:
            return
        now = self._clock.monotonic()
        self._up_at = now
        self.numbers.ups += 1
        if self._lost_at is not None:
            lasted = now - self._lost_at
            self.numbers.down_seconds += lasted
            self._log.info("%s: back after %.1f s", self.name, lasted)
            self._lost_at = None
        self._told.clear()
        self._seldom.reset()
        self._set(Condition("ok", self._clock.now()))

    def _lost(self, trouble: Trouble) -> None:
        now = self._clock.monotonic()
        if self._up_at is not None:
            self.numbers.losses += 1
            if now - self._up_at >= STEADY:
                self._soon.reset()
            self._up_at = None
        if self._lost_at is None:
            self._lost_at = now
        if trouble.reason not in self._told:
            self._told.add(trouble.reason)
            fix = f" {trouble.fix_en}" if trouble.fix_en else ""
            self._log.warning("%s: %s (%s).%s", self.name, trouble.message, trouble.reason, fix)
        state: State = "failed" if trouble.bug or trouble.retry != "soon" else "recovering"
        self._set(Condition(state, self._clock.now(), trouble.reason, trouble.message, trouble.fix_en, trouble.fix_zh))

    async def _pause(self, trouble: Trouble) -> None:
        if trouble.retry == "never":
            await asyncio.Event().wait()  # until it is cancelled: only another configuration helps
        pause = (self._seldom if trouble.retry == "seldom" else self._soon).pause()
        pause = max(pause, trouble.after or 0.0)
        while trouble.cured is not None and pause > LOOK:
            await self._sleep(LOOK)
            pause -= LOOK
            if self._cured(trouble.cured):
                self._seldom.reset()
                return
        await self._sleep(pause)

    def _cured(self, cured: Callable[[], bool]) -> bool:
        try:
            return cured()
        except Exception:  # noqa: BLE001  a plug-in may raise anything; then the pause is waited out
            self._log.debug("%s: looking whether it is cured", self.name, exc_info=True)
            return False

    def _set(self, condition: Condition) -> None:
        before = self.condition
        if replace(condition, since=before.since) == before:
            return
        if condition.state == before.state:
            condition = replace(condition, since=before.since)
        self.condition = condition
        if self._on_change is not None:
            self._on_change(condition)
