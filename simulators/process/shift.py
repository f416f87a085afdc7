"""When people work: the hours of a shift plan, on the clock of the process."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAY_SECONDS", "ShiftPlan"]

DAY_SECONDS = 86_400.0
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class ShiftPlan:
    """Working hours of a day that begins at *start* (seconds after midnight) when the process begins.

    The default is a single shift with lunch, an afternoon and overtime in the evening, and begins two minutes before
    eight, so that a fresh workshop starts up before one's eyes.
    """

    start: float = 8 * _HOUR - 120.0
    hours: tuple[tuple[float, float], ...] = (
        (8 * _HOUR - 120.0, 12 * _HOUR),
        (13 * _HOUR, 17.5 * _HOUR),
        (18.5 * _HOUR, 21 * _HOUR),
    )
    """Spans of work, in seconds after midnight."""

    def time_of_day(self, seconds: float) -> float:
        """Seconds after midnight when *seconds* of process time have passed."""
        return (self.start + seconds) % DAY_SECONDS

    def day(self, seconds: float) -> int:
        """Which day it is, the first being 0."""
        return int((self.start + seconds) // DAY_SECONDS)

    def at_work(self, seconds: float) -> bool:
        """Whether people work when *seconds* of process time have passed."""
        now = self.time_of_day(seconds)
        return any(begin <= now < end for begin, end in self.hours)
