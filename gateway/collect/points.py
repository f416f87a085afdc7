"""Points of a stream: the number by which the ledger names a signal, never used for anything else while the stream lives.

Source: the rule "each stream begins with all births; a change is a new point". A signal that a new plan leaves as it is
keeps its point; one that is new, or changed in whatever way, gets the next number, also when it becomes again what it was once.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.config.plan import Plan, PlannedDevice, PlannedSignal


class PointBook:
    """The points of one stream. Not safe for use from several threads at once."""

    def __init__(self) -> None:
        self._next = 0
        self._signals: dict[tuple[str, str], PlannedSignal] = {}

    def new(self) -> int:
        """A point that nothing has."""
        point, self._next = self._next, self._next + 1
        return point

    def preview(self, plan: Plan) -> Plan:
        """The plan as `number` would give it back, with nothing remembered."""
        book = PointBook()
        book._next, book._signals = self._next, self._signals
        return book.number(plan)

    def number(self, plan: Plan) -> Plan:
        """The plan with the points of this stream as the indices of its signals. What it does not hold is forgotten."""
        signals: dict[tuple[str, str], PlannedSignal] = {}

        def signal(planned: PlannedSignal) -> PlannedSignal:
            key = planned.device, planned.signal.name
            before = self._signals.get(key)
            # where it stands in its link is not what it is
            same = before is not None and replace(before, point=planned.point, index=planned.index) == planned
            point = before.index if before is not None and same else self.new()
            signals[key] = numbered = replace(planned, index=point)
            return numbered

        def device(planned: PlannedDevice) -> PlannedDevice:
            return replace(planned, signals=tuple(signal(s) for s in planned.signals))

        links = tuple(replace(link, devices=tuple(device(d) for d in link.devices)) for link in plan.links)
        self._signals = signals
        return replace(plan, links=links)
