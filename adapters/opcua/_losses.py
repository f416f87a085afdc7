"""Losses on a link that lives: looked for in the server's history, and told as far as they are not there.

A queue at the server overflowed, a notification is gone for good, the server ended a subscription. The host is told at once that
something is missing, the group stays incomplete from there on, and live values go on as ever. Then the history of the points is read up
to their present values. One reading at a time on a link, with a rest as long as itself after it, so that a server that loses all
the time is not read all the time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from adapters.contract import Clock, Interrupted, Lost, Missed, Refilled, Samples
from adapters.opcua._backfill import INCOMPLETE, NOT_TO_LIVE, Backfill
from adapters.opcua._binary import DecodingError
from adapters.opcua._errors import EXPECTED, fault_name
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._resolve import Unresolved
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Row, Session
from adapters.opcua._strings import settle
from adapters.opcua._subscription import Group, Told
from schemas.wire import Cause, Flag

log = logging.getLogger("guantong.opcua")

LONGEST: Final = 60.0
"""Seconds for the history of one loss. Until its end the group is not complete."""
_AT_ONCE: Final = 1.0
"""Seconds at most that a loss waits for others that come with it."""
_DOUBTFUL: Final = frozenset({NOT_TO_LIVE, INCOMPLETE})
_WITHOUT: Final = 600.0
"""Seconds after which a point without history is asked for one again."""


class Losses:
    """The losses of all groups of one link."""

    def __init__(
        self,
        session: Session,
        outlet: Outlet,
        clock: Clock,
        server_clock: ServerClock,
        items: Callable[[], Mapping[int, Item]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`items` gives every point's item."""
        self._session = session
        self._outlet = outlet
        self._clock = clock
        self._server_clock = server_clock
        self._items = items
        self._spawn = spawn
        self._busy: set[tuple[str, str]] = set()
        self._one = asyncio.Lock()
        self._without: dict[int, float] = {}
        """Points without history, and until when (monotonic) that is believed."""

    def take(self, group: Group, lost: Lost) -> bool:
        """See `Group.on_loss`: false where none of the points has a history, as far as known, and what came last is their present value."""
        if not group.holes and lost.cause == Cause.OVERRUN and self._hopeless(lost.points or ()):
            return False
        self.wake(group)
        return True

    def wake(self, group: Group) -> None:
        """Sees to the losses of a group, unless that is under way."""
        key = (group.device, group.name)
        if key not in self._busy:
            self._busy.add(key)
            self._spawn(self._see_to(group, key))

    def _hopeless(self, points: Iterable[int]) -> bool:
        now = self._clock.monotonic()
        return all(self._without.get(point, 0.0) > now for point in points)

    async def _see_to(self, group: Group, key: tuple[str, str]) -> None:
        try:
            await asyncio.sleep(min(group.period, _AT_ONCE))
            while group.holes and not group.growing and not group.answering:
                began = self._clock.monotonic()
                async with self._one, group.reading:
                    if not group.growing:  # a loss that began while this one waited has no end yet
                        await self._fill(group)
                await asyncio.sleep(max(min(group.period, _AT_ONCE), self._clock.monotonic() - began))
        finally:
            self._busy.discard(key)

    async def _fill(self, group: Group) -> None:
        """Raises asyncua's and the network's errors when the link is lost: the losses then stay with the group."""
        holes = list(group.holes)
        points = sorted({point for hole in holes for point in hole.points or ()})
        items = readable([item for point in points if (item := self._items().get(point)) is not None])
        rows: list[Row] = []
        if items:
            try:
                rows = await self._session.read([item.node for item in items])
            except EXPECTED as error:
                if not (fault_name(error) or isinstance(error, DecodingError)):
                    raise
                log.warning(
                    "%s: %s/%s: no present values: %s", self._session.settings.endpoint, group.device, group.name, error
                )
        live = dict(zip((item.point.id for item in items), rows, strict=False))
        hopeless = self._hopeless(points)
        without = await fill(
            self._session,
            self._outlet,
            self._clock,
            self._server_clock,
            group,
            holes,
            items,
            live,
            history=not hopeless,
        )
        self._without.update(dict.fromkeys(without, self._clock.monotonic() + _WITHOUT))


async def fill(
    session: Session,
    outlet: Outlet,
    clock: Clock,
    server_clock: ServerClock,
    group: Group,
    holes: Sequence[Lost],
    items: Sequence[Item],
    live: Mapping[int, Row],
    *,
    history: bool = True,
) -> set[int]:
    """Reads from the history what the group's losses left out, up to the present values in `live` (by point), hands these on as well, and tells
    what of the losses stays. Gives back the points that have no history. To be called with `group.reading` held.

    `holes`: the losses that the group had before `live` was read, none of them growing; what came since is left to the next time, as nothing
    shows that the history goes on over it. Without `history` nothing is read: it is known that there is none.
    Raises asyncua's and the network's errors when the link is lost; the losses and their witnesses then stay with the group.
    """
    witnesses = {point: list(rows) for point, rows in group.witnesses.items()}
    points = {point for hole in holes for point in hole.points or ()}
    wanted = [item for item in items if item.point.id in points and item.point.id in live]
    missed, without = None, set[int]()
    if wanted:
        outlet.put(Interrupted(group.device, group.name, [item.point.id for item in wanted]))
        since, until = min(_start(hole) for hole in holes), max(hole.end for hole in holes)
        backfill = Backfill(
            session, outlet, clock, server_clock, group, since,
            live={point: (row[0], row[1], row[2]) for point, row in live.items()}, witnesses=witnesses, longest=LONGEST,
            until=until,
        )  # fmt: skip
        if history:
            missed = await backfill.points(wanted)
            without = backfill.without
        await hand_on(outlet, clock, group, wanted, [live[item.point.id] for item in wanted])
    if missed is not None:
        unread = tuple(points - {item.point.id for item in wanted})
        missed = [_of(part, wanted) for part in missed]
        if unread:
            missed.append(Missed(unread, since, until, "not readable"))
    del group.holes[: len(holes)]
    _pass_on(group, witnesses)
    outlet.put(Refilled(group.device, group.name, holes, holes if missed is None else _rest(holes, missed)))
    return without


def _pass_on(group: Group, used: Mapping[int, Sequence[Told]]) -> None:
    """Of the witnesses those stay that the losses since need; `used` are what those before had."""
    later = {point for hole in group.holes for point in hole.points or ()}
    left = {point: rows[len(used.get(point, ())) :] for point, rows in group.witnesses.items() if point in later}
    group.witnesses = {point: rows for point, rows in left.items() if rows}
    group.unwitnessed &= later


async def hand_on(outlet: Outlet, clock: Clock, group: Group, items: Sequence[Item], rows: Sequence[Row]) -> None:
    """Hands on present values as the last of a history: they change nothing where they are known."""
    if not items:
        return
    samples = Samples(
        group.device, group.name, clock.now(), [item.point.id for item in items], [row[0] for row in rows],
        source_ts=[row[2] if row[2] is not None else row[3] for row in rows], status=[row[1] for row in rows],
        flags=[int(Flag.HISTORICAL | (Flag.NO_SOURCE_TIME if row[2] is None else 0)) for row in rows],
    )  # fmt: skip
    settle(samples, group.encoding)
    await outlet.room()
    outlet.put_history(samples)


def readable(items: Iterable[Item]) -> list[Item]:
    """Those of which there is something to be read."""
    return [item for item in items if item.alive and item.node is not None and not isinstance(item.node, Unresolved)]


def _start(hole: Lost) -> int:
    """Where a loss begins; its end, if the gateway's clock was set back over it."""
    return min(hole.start, hole.end)


def _of(part: Missed, items: Sequence[Item]) -> Missed:
    """The same, with the points named."""
    return part if part.points is not None else replace(part, points=tuple(item.point.id for item in items))


def _rest(holes: Sequence[Lost], missed: Sequence[Missed]) -> list[Lost]:
    """What of these losses stays: the parts of them of which the history is shown not to be there, points with the same bounds together.

    A history that has not got one of the live values may lack others as well. So of the losses of such a point nothing counts as filled.
    """
    doubtful = {point for part in missed if part.detail in _DOUBTFUL for point in part.points or ()}
    rest: list[Lost] = []
    for hole in holes:
        own = set(hole.points or ())
        stays: dict[tuple[int, int, str], set[int]] = {}
        for part in missed:
            whole = part.detail in _DOUBTFUL
            start, end = _start(hole), hole.end
            if not whole:
                start, end = max(start, part.start), min(end, part.end)
            if start > end:
                continue
            points = own.intersection(part.points or ())
            if points := points if whole else points - doubtful:
                stays.setdefault((start, end, part.detail), set()).update(points)
        rest += [
            Lost(hole.device, sorted(points), start, end, hole.cause, None, f"{hole.detail}; {detail}")
            for (start, end, detail), points in stays.items()
        ]
    return rest
