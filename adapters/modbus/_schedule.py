"""Who is asked next on a link: the earliest deadline first, fair between units, and a silent unit where it costs the others nothing.

A request is due at its slot of the grid, and its deadline is the slot's end. As long as the line can bear what is asked of it, the earliest
deadline goes first, which keeps all deadlines where any order does (Liu and Layland 1973; requests are not interrupted). What has missed
its deadline is no more urgent than anything else that has: there units take turns, so that on a line that is asked for too much
each of them loses the same, and not one of them everything.

A unit that does not answer costs a whole time-out each time it is asked. It is asked while there is room for that before the
others are due; where there never is, after some patience all the same, but never twice running while others wait.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapters.modbus._unit import Unit


class Schedule:
    """The turns of the units of a link. Times are monotonic seconds."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._turns = 0
        self._in_vain = False

    def choose(self, now: float) -> Unit | None:
        """The unit whose turn it is; None while there is nothing to do before `next_wake`."""
        if len(self._units) == 1:
            (unit,) = self._units
            return unit if unit.wake <= now and (not unit.down or self._bears(unit, now)) else None
        ready = [unit for unit in self._units if unit.wake <= now]
        if len(ready) > 1:
            return self._most_urgent(ready, now)
        if not ready or (ready[0].down and not self._bears(ready[0], now)):
            return None
        return ready[0]

    def served(self, unit: Unit) -> None:
        """It had its turn, and `misses` says whether in vain."""
        self._turns += 1
        unit.turn = self._turns
        self._in_vain = unit.misses > 0

    def next_wake(self, now: float) -> float:
        """When there is something to do, after `choose` has found nothing."""
        return min((unit.wake if unit.wake > now else unit.patience for unit in self._units), default=math.inf)

    def _most_urgent(self, ready: list[Unit], now: float) -> Unit | None:
        if self._in_vain:
            well = [
                unit for unit in ready if not unit.misses
            ]  # best one that has ever answered: the next new one may be dead too
            ready = [unit for unit in well if unit.last_life is not None] or well or ready
        best, best_key = None, (math.inf, 0)
        for unit in ready:
            if not unit.down:
                key = (unit.deadline(now), unit.turn)
            elif self._bears(unit, now):
                key = (now, unit.turn)
            else:
                continue
            if key < best_key:
                best, best_key = unit, key
        return best

    def _bears(self, unit: Unit, now: float) -> bool:
        """Whether a time-out of this unit now lets nobody wait, or can be put off no longer."""
        if now >= unit.patience:
            return True
        return all(other.down or other.wake >= now + unit.timeout for other in self._units)
