"""Counters that fall, or rise faster than they can: what no rule of theirs explains is an event, never a guess.

A counter that drops may be a job change, a shift reset, a download to the PLC, a good part re-booked as bad, or a roll-over. The
stored numbers stay as they are; the event says where whoever counts parts has to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.collect.items import Readings
from gateway.config.plan import PlannedDevice, PlannedSignal
from schemas.wire import Event, Flag

DECREASED = "counter_decreased"
JUMPED = "counter_jumped"
_SEVERITY = 500
_NEAR_ZERO = 0.1
"""A fall to less than this part of the old value looks like a reset; the rest of it was counted since."""


class CounterWatch:
    """The counters of one device. `check` is given what is to be stored, in order."""

    def __init__(self, device: PlannedDevice, new_id: Callable[[], str]) -> None:
        self._device = device
        self._new_id = new_id
        self._counters = {s.index: s for s in device.signals if s.signal.counter is not None}
        self._last: dict[int, tuple[int, float]] = {}

    def concern(self, points: Iterable[int]) -> bool:
        """Whether some of these plan indices are counters."""
        return not self._counters.keys().isdisjoint(points)

    def check(self, readings: Readings) -> list[Event]:
        """Events for what no rule explains. Bad, historical and late values say nothing about how a counter runs."""
        if not self._counters:
            return []
        events = []
        for row, index in enumerate(readings.points):
            planned = self._counters.get(index)
            value = readings.values[row]
            if planned is None or isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                continue
            if readings.flags is not None and readings.flags[row] & Flag.HISTORICAL:
                continue
            ts = readings.ts[row]
            before = self._last.get(index)
            if before is not None and ts < before[0]:
                continue
            self._last[index] = (ts, value)
            if before is not None:
                problem = _unexplained(planned, before, (ts, value))
                if problem is not None:
                    events.append(self._event(planned, before, (ts, value), problem))
        return events

    def _event(self, planned: PlannedSignal, before: tuple[int, float], now: tuple[int, float], kind: str) -> Event:
        name = planned.signal.name
        zh = "计数减少，且没有规则可以解释" if kind == DECREASED else "计数增长快于可能的最大速率"
        en = "fell, and no rule explains it" if kind == DECREASED else "rose faster than it can"
        fields: dict[str, Any] = {"signal": name, "before": before[1], "before_ts": before[0], "after": now[1]}
        return Event(
            self._new_id(), now[0], None, planned.asset, self._device.id, kind, _SEVERITY,
            f"{name}：{zh}（{before[1]:g} → {now[1]:g}）", f"{name} {en} ({before[1]:g} to {now[1]:g})", fields,
        )  # fmt: skip


def _unexplained(planned: PlannedSignal, before: tuple[int, float], now: tuple[int, float]) -> str | None:
    counter = planned.signal.counter
    assert counter is not None
    seconds = max((now[0] - before[0]) / 1e6, 1e-3)
    fastest = counter.max_rate * seconds if counter.max_rate is not None else None
    rise = now[1] - before[1]
    if rise >= 0:
        return JUMPED if fastest is not None and rise > fastest + abs(planned.scale) else None
    if counter.may_decrease:
        return None
    if counter.modulus is not None:
        rolled = rise + counter.modulus * abs(planned.scale)
        limit = fastest + abs(planned.scale) if fastest is not None else counter.modulus * abs(planned.scale) / 2
        if 0 <= rolled <= limit:
            return None
    if counter.resets_on and now[1] <= max(abs(before[1]) * _NEAR_ZERO, fastest or 0.0, abs(planned.scale) * 2):
        return None
    return DECREASED
