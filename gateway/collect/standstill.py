"""Whether the collector stood still: its process stopped, its machine frozen or asleep. Nothing was read then, and that is a gap.

A heartbeat that comes late tells it: the event loop did not run, so that answers ran into their time-outs unread and slots passed unserved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.platform import uptime
from schemas.wire import Cause, Gap

LONGEST: Final = 1.0
"""Seconds by which a heartbeat may be late: less is load, and costs a polled device at most one of its slots."""


class Standstill:
    """Told of each heartbeat. `now` is the gateway's time (µs), `elapsed` seconds of a clock that also runs while the machine sleeps."""

    def __init__(self, now: Callable[[], int], elapsed: Callable[[], float] = uptime) -> None:
        self._now, self._elapsed = now, elapsed
        self._last = self._before = now()
        self._at = elapsed()

    def beat(self, interval: float) -> Gap | None:
        """A heartbeat, `interval` seconds after the last one if all goes well; the gap of the whole gateway if it comes too late.

        The gap begins with the beat before the last: what had arrived by the last one was perhaps not read any more.
        """
        at, now = self._elapsed(), self._now()
        late = at - self._at - interval
        start, self._before, self._last, self._at = self._before, self._last, now, at
        if late <= LONGEST:
            return None
        detail = f"the collector stood still for {late:.1f} s"
        return Gap(None, None, min(start, now), now, Cause.COLLECTOR_DOWN.value, None, detail)
