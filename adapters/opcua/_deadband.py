"""Whether a server's deadband can be relied on, found by trying it on one item.

A deadband compares with the value that was reported last (OPC 10000-4 §7.22.2). Servers exist that compare with the value before (asyncua's
does), so that a slow drift is never reported, and others that take the filter and ignore it. So one item gets the filter, is read
beside it, and what it tells is compared with what is read. Until a server has shown that its deadband keeps slow drifts, all others are
monitored without, and what the pilot does not tell is passed on from its readings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from typing import Any, Final

from adapters.contract import Clock
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._polling import samples_of
from adapters.opcua._session import Session
from adapters.opcua._subscription import Watched
from schemas import status as codes

log = logging.getLogger("guantong.opcua")

_KEPT: Final = 2
"""So many reports of a slow drift show that a deadband keeps it."""
_SMALL: Final = 3
"""So many reports of changes within the deadband show that there is none."""
_SILENT: Final = 5
"""So many readings in a row far from the last report show that a drift is not reported: a report may take two periods to come."""
_FAR: Final = 1.5
_TURN: Final = 60.0
"""Seconds after which another item is tried, one that moves more."""
_FASTEST: Final = 0.05

Apply = Callable[[Sequence[Item], bool], Awaitable[bool]]


class Judge:
    """Compares what an item with a deadband tells with what is read of it."""

    def __init__(self, band: float) -> None:
        self._band = band
        self._told: float | None = None
        self._read: float | None = None
        self._slow = False
        """Since the last report no two readings differed by more than the deadband."""
        self._kept = self._small = self._silent = 0

    @property
    def far(self) -> bool:
        """Whether what was read should have been told by now."""
        return self._silent >= _SILENT - 1

    def look(self, read: float, told: Sequence[float]) -> bool | None:
        """One reading, and what was told since the one before. True: the deadband keeps slow drifts; False: it does not, or there is
        none; None: not known yet."""
        for value in told:
            if self._told is not None:
                moved = abs(value - self._told)
                if moved < self._band * 0.999:
                    self._small += 1
                elif self._slow and moved < 3 * self._band:
                    self._kept += 1
            self._told, self._slow, self._silent = value, True, 0
        if self._told is None:
            return None
        if self._read is not None and abs(read - self._read) > self._band:
            self._slow = False
        self._read = read
        self._silent = self._silent + 1 if abs(read - self._told) > _FAR * self._band else 0
        if self._small >= _SMALL or self._silent >= _SILENT:
            return False
        return True if self._kept >= _KEPT and not self._small else None


class DeadbandProbe:
    """Tries the deadband of a server, and then puts it into use or leaves it."""

    def __init__(
        self, session: Session, clock: Clock, outlet: Outlet, candidates: Sequence[Item], apply: Apply
    ) -> None:
        """`apply` makes items anew with a deadband or without; False where it cannot."""
        self._session = session
        self._clock = clock
        self._outlet = outlet
        self._candidates = candidates
        self._apply = apply

    async def run(self) -> None:
        """Until it is known."""
        limits = self._session.limits
        stale = [item for item in self._candidates if item.filtered and item.alive]
        if stale:  # of a trial that was cut short
            await self._apply(stale, False)
        for item in cycle(self._candidates):
            if not item.alive or not await self._apply([item], True):
                await asyncio.sleep(_TURN)
                continue
            verdict = await self._try(item)
            if verdict is None:
                await self._apply([item], False)
                continue
            limits.deadbands = verdict
            endpoint = self._session.settings.endpoint
            if verdict:
                log.info("%s: its deadband keeps slow drifts: %d items use it", endpoint, len(self._candidates))
                await self._apply([each for each in self._candidates if each.alive and each is not item], True)
            else:
                log.info(
                    "%s: its deadband is not to be relied on: deadbands are applied by the gateway alone", endpoint
                )
                await self._apply([item], False)
            return

    async def _try(self, item: Item) -> bool | None:
        """The verdict by this item; None when it has not moved enough in its time."""
        group, point = item.group, item.point
        judge = Judge(point.deadband)
        watched = group.watched = Watched(point.id)
        try:
            end = self._clock.monotonic() + _TURN
            while self._clock.monotonic() < end:
                await asyncio.sleep(max(_FASTEST, group.period))
                before = self._clock.now()
                (row,) = await self._session.read([item.node])
                told, watched.values = [v for v in watched.values if _is_number(v)], []
                if codes.is_bad(row[1]) or not _is_number(row[0]):
                    continue
                verdict = judge.look(row[0], told)
                if judge.far and not watched.values:
                    received = self._clock.now()
                    self._outlet.put_samples(samples_of(group, [point.id], [row], received, ()), (), before, received)
                if verdict is not None:
                    return verdict
        finally:
            group.watched = None
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
