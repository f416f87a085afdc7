"""Whether a device's clock can be believed: judged for the device, never by the age of one value."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.config.models import ClockSettings
from schemas.wire import Clock

WINDOW: Final = 60_000_000
"""The offset is the median over this time (µs)."""
_EACH: Final = 1_000_000
"""One observation in this time is enough (µs)."""
_LEAST: Final = 4
"""So many observations are kept however old they are, so that one late message on a quiet link decides nothing."""
_BACK: Final = 0.8
"""A clock is believed again within this part of the tolerance, so that one at its edge does not flicker."""
FROZEN_VALUES: Final = 3
FROZEN_SPAN: Final = 2_000_000
"""Frozen: this many different values with one source time, over at least this time (µs)."""
EARLIEST: Final = 946_684_800_000_000
"""2000-01-01T00:00:00Z: a source time before it is a clock that was never set."""
AHEAD: Final = 3_600_000_000
"""A source time further than this ahead of the gateway (µs) is never believed."""

Reason = Literal["right", "off", "frozen"]


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The judgement changed at `at` (µs): `clock` is what `ts` is from now on, `offset` (µs) how far the device is ahead."""

    at: int
    clock: Clock
    reason: Reason
    offset: int


class DeviceClock:
    """The judgement of one device's clock.

    `clock` is `source` (its times are taken), `offset` (taken less the configured offset) or `gateway`. `shift` is the configured
    offset (µs), 0 without one.
    """

    def __init__(self, settings: ClockSettings) -> None:
        self._tolerance = round(settings.tolerance * 1e6)
        self.shift = round((settings.offset or 0.0) * 1e6)
        self._good: Clock = "offset" if settings.offset else "source"
        self.clock: Clock = self._good
        self.offset = 0
        self._off = False
        self._frozen_at: int | None = None
        self._advances: list[tuple[int, int]] = []
        self._observed: deque[tuple[int, int]] = deque()
        self._repeated: dict[int, tuple[int, int, list[Any]]] = {}

    def observe(self, server_ts: int, received: int) -> ClockChange | None:
        """The device's own time as it was when the gateway's was `received` (both µs); the change of judgement, if any."""
        observed = self._observed
        if observed and 0 <= received - observed[-1][0] < _EACH:
            return None
        if observed and received < observed[-1][0]:
            observed.clear()  # the gateway's clock was set back: what was observed before says nothing
        observed.append((received, server_ts - self.shift - received))
        while len(observed) > _LEAST and observed[0][0] < received - WINDOW:
            observed.popleft()
        offsets = sorted(offset for _, offset in observed)
        self.offset = offsets[len(offsets) // 2]
        limit = self._tolerance * (_BACK if self._off else 1.0)
        self._off = abs(self.offset) > limit
        return self._judge(received)

    def repeated(self, point: int, source_ts: int, before: Any, value: Any, received: int) -> ClockChange | None:
        """A live value of `point` differs from the one `before` it and has the same source time (µs)."""
        entry = self._repeated.get(point)
        if entry is None or entry[0] != source_ts:
            self._repeated[point] = (source_ts, received, [before, value])
            return None
        _, since, values = entry
        if len(values) < FROZEN_VALUES and value not in values:
            values.append(value)
        if len(values) < FROZEN_VALUES or received - since < FROZEN_SPAN:
            return None
        self._frozen_at = max(source_ts, self._frozen_at or source_ts)
        self._advances.clear()
        self._repeated.clear()
        return self._judge(received)

    def moved(self, source_ts: int, received: int) -> ClockChange | None:
        """A live source time (µs) of a clock that stood still: it runs again after three later times over two seconds."""
        if self._frozen_at is None or source_ts <= self._frozen_at:
            return None
        advances = self._advances
        if not advances or source_ts > advances[-1][0]:
            advances.append((source_ts, received))
        if len(advances) < FROZEN_VALUES or advances[-1][1] - advances[0][1] < FROZEN_SPAN:
            return None
        self._frozen_at = None
        advances.clear()
        return self._judge(received)

    @property
    def frozen(self) -> bool:
        """True while the clock stands still although values change."""
        return self._frozen_at is not None

    def restart(self) -> None:
        """The gateway's clock was set: what was observed before says nothing any more; the judgement stays until the next observation."""
        self._observed.clear()
        self._repeated.clear()

    def _judge(self, at: int) -> ClockChange | None:
        clock: Clock = "gateway" if self._off or self.frozen else self._good
        if clock == self.clock:
            return None
        self.clock = clock
        reason: Reason = "off" if self._off else "frozen" if self.frozen else "right"
        return ClockChange(at, clock, reason, self.offset)
