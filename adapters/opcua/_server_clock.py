"""How far the server's clock is from the gateway's, so that what it says of completeness can be told in the gateway's time."""

from __future__ import annotations

from collections import deque
from typing import Final

TOLERANCE: Final = 60_000_000
"""µs by which a clock may be off and readings still keep the device's own times (the default of the configuration)."""
_STEP: Final = 1_000_000
"""A difference of more than this (µs) between two measurements is a step of a clock and no noise."""


class ServerClock:
    """An upper bound of `server clock - gateway clock` in µs, from CurrentTime read between two known gateway times.

    The bound is what makes `complete_to` honest: true gateway time of a server's time T is at least T - bound, so that a gap that begins
    there may be overstated by the round trip and is never understated.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=6)
        self.offset: int | None = None
        """The bound; None before the first measurement and after a step, until it is measured again."""

    def measured(self, server: int, sent: int) -> None:
        """CurrentTime `server` came in answer to a request that was sent at `sent` (gateway time)."""
        bound = server - sent
        if self._recent and abs(bound - max(self._recent)) > _STEP:
            self._recent.clear()
        self._recent.append(bound)
        self.offset = max(self._recent)

    def complete_to(self, publish_time: int | None, sampling: int, received: int) -> int | None:
        """Up to when (gateway time, µs) everything that was sourced has been seen, for a notification published at
        `publish_time` (server time) after which the server had no more, its items sampled every `sampling` µs.

        A value that changed at T is sampled by T + sampling at the latest, so everything before publish_time - sampling is in. A server
        whose clock is off within the tolerance keeps its own times in the readings; for one that is behind, complete_to is told in its
        own time then, the earlier of the two. None while the clock is not known.
        """
        if publish_time is None or self.offset is None:
            return None
        if publish_time - received > self.offset + _STEP:
            self.offset = None  # published in the future: the server's clock was stepped
            self._recent.clear()
            return None
        shift = self.offset if self.offset > 0 or self.offset < -TOLERANCE else 0
        return min(publish_time - sampling - shift, received)

    def latest(self, publish_time: int | None, received: int) -> int:
        """The end of a gap that reaches up to this notification: as late as its readings' times may be."""
        if publish_time is None or publish_time - received > TOLERANCE:
            return received
        return max(publish_time, received)
