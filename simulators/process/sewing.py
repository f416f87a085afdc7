"""A row of sewing stations: segments, back-tacks, trims, broken threads, empty bobbins, and people at lunch.

Pure and seeded; see :mod:`simulators.process.power` for what that means.
"""

from __future__ import annotations

import random
from enum import Enum

from simulators.process.shift import ShiftPlan

__all__ = ["STEP_SECONDS", "Station", "StationState"]

STEP_SECONDS = 0.1


class StationState(Enum):
    """What a station is doing."""

    ABSENT = "absent"
    HANDLING = "handling"
    SEWING = "sewing"
    BACKTACK = "back-tack"
    TRIMMING = "trimming"
    THREAD_BREAK = "thread break"
    BOBBIN_CHANGE = "bobbin change"


class Station:
    """One station; its counters are exact integers that never roll over here: a register's width does that."""

    def __init__(self, seed: int, number: int, plan: ShiftPlan | None = None) -> None:
        """*seed* and *number* decide what varies; *plan* says when people work."""
        self._rng = random.Random(f"sewing {seed} {number}")
        self._plan = plan or ShiftPlan()
        self._carry = 0.0
        self.seconds = 0.0
        self.state = StationState.ABSENT
        self.halted = False
        """While true nobody sews."""
        self.speed = 0.0
        """Motor speed in revolutions per minute; negative while a back-tack runs backwards. One turn is one stitch."""
        self.pieces = 0
        """Pieces of this day: the station begins each day anew."""
        self.trims = 0
        self.thread_breaks = 0
        self._stitches = 0.0
        self._run_seconds = 0.0
        self.needle_celsius = 26.0
        self._bobbin = self._rng.uniform(2_000.0, 9_000.0)
        self._until = self._rng.uniform(1.0, 8.0)
        self._segments_left = 0
        self._target = 0.0
        self._nimbleness = self._rng.uniform(0.85, 1.2)

    @property
    def stitches(self) -> int:
        """Stitches since the beginning, backwards ones included."""
        return int(self._stitches)

    @property
    def run_seconds(self) -> int:
        """Seconds with the motor turning."""
        return int(self._run_seconds)

    @property
    def running(self) -> bool:
        """Whether the motor turns."""
        return self.speed != 0.0

    @property
    def bobbin_low(self) -> bool:
        """Whether the bobbin thread is nearly used up."""
        return self._bobbin < 600.0

    def reset(self) -> None:
        """All counters to zero, as by the operator's key."""
        self.pieces = self.trims = self.thread_breaks = 0
        self._stitches = self._run_seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass, in steps of :data:`STEP_SECONDS`; what is left over waits."""
        self._carry += seconds
        while self._carry > STEP_SECONDS - 1e-9:
            self._carry -= STEP_SECONDS
            self._step(STEP_SECONDS)

    def _step(self, seconds: float) -> None:
        if self._plan.day(self.seconds) != self._plan.day(self.seconds + seconds):
            self.pieces = 0
        self.seconds += seconds
        if self.halted or not self._plan.at_work(self.seconds):
            self._enter(StationState.ABSENT, 3.0, 20.0)
        elif self.seconds >= self._until:
            self._next_state()
        self._motor(seconds)
        if self.state is StationState.SEWING and self._rng.random() < 0.0007:
            self.thread_breaks += 1
            self._enter(StationState.THREAD_BREAK, 22.0, 55.0)

    def _motor(self, seconds: float) -> None:
        wanted = {StationState.SEWING: self._target, StationState.BACKTACK: -900.0}.get(self.state, 0.0)
        reach = 24_000.0 * seconds
        self.speed += min(max(wanted - self.speed, -reach), reach)
        turns = abs(self.speed) / 60.0 * seconds
        self._stitches += turns
        self._bobbin -= turns
        if self.speed:
            self._run_seconds += seconds
        warm = 26.0 + abs(self.speed) / 28.0
        self.needle_celsius += (warm - self.needle_celsius) * (0.06 if warm > self.needle_celsius else 0.02)

    def _enter(self, state: StationState, shortest: float, longest: float) -> None:
        self.state = state
        self._until = self.seconds + self._rng.uniform(shortest, longest)

    def _next_state(self) -> None:
        if self.state is StationState.SEWING:
            self._segments_left -= 1
            if self._segments_left > 0:
                self._enter(StationState.HANDLING, 0.5 / self._nimbleness, 1.6 / self._nimbleness)
            else:
                self._enter(StationState.BACKTACK, 0.3, 0.5)
        elif self.state is StationState.BACKTACK:
            self.trims += 1
            self._enter(StationState.TRIMMING, 0.3, 0.4)
        elif self.state is StationState.TRIMMING:
            self.pieces += 1
            if self._bobbin < 300.0:
                self._enter(StationState.BOBBIN_CHANGE, 18.0, 45.0)
            else:
                self._enter(StationState.HANDLING, 2.5 / self._nimbleness, 7.0 / self._nimbleness)
        elif self.state is StationState.HANDLING:
            if self._segments_left <= 0:
                self._segments_left = self._rng.randint(2, 4)
            self._target = self._rng.uniform(3200.0, 4500.0)
            self._enter(StationState.SEWING, 1.2, 3.6)
        else:
            if self.state is StationState.BOBBIN_CHANGE:
                self._bobbin = 9_000.0
            self._enter(StationState.HANDLING, 2.5, 7.0)
