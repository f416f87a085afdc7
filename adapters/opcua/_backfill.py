"""What an outage left out, read from the server's history and handed on as historical rows; and what of it stays missing.

A gap may be overstated and never understated. So a point's outage counts as filled only where its history is shown to reach over it: back
before it (there is a value that is not later than its begin), and on to the live values (the last historical value is the first live one).
A history that begins anew with the server, one that lags, one that ends an answer early, and one of a frozen clock are found out by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from adapters.contract import Clock, Missed, Recovered, Samples
from adapters.opcua import _history
from adapters.opcua._binary import DecodingError
from adapters.opcua._errors import EXPECTED, fault_name
from adapters.opcua._history import OutOfTimeError
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._resolve import Unresolved
from adapters.opcua._server_clock import TOLERANCE, ServerClock
from adapters.opcua._session import Row, Session
from adapters.opcua._strings import settle
from adapters.opcua._subscription import Group, Told
from schemas.wire import Flag

log = logging.getLogger("guantong.opcua")

_MARGIN: Final = 1_000_000
"""µs that are read on both sides beyond what is missing; what is there already is recognised."""
LONGEST: Final = 600.0
"""Seconds for all the history of a group; what is not read by then stays missing."""
_SAME_TIME: Final = 1_000
"""µs by which a time in a history may differ from the live one: many keep milliseconds."""
_AHEAD: Final = 3_600_000_000
"""µs by which a source time may be ahead of the gateway's clock. What is missing is not newer than the newest live row, and may be as new."""
NOT_TO_LIVE: Final = "the history does not go on to the live values"
INCOMPLETE: Final = "the history does not hold every value"
_FIRST_VALUES: Final = 10.0
"""Seconds to wait for the first live value of each point."""
_LAGS: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses (s) after which a history that has not come up to the live values is looked at again."""


@dataclass(slots=True)
class _Filled:
    """How far the history of one point fills its outage (µs, server's clock)."""

    item: Item
    first: int | None = None
    """From when on, None while nothing is known."""
    last: Row | None = None
    """The newest row read."""
    meeting: Row | None = None
    """The newest row that is not later than the first live one."""
    unseen: list[Told] = field(default_factory=list)
    """Live rows that the history must have, and has not given yet."""
    problem: str = ""


class Backfill:
    """Fills the outage of one group; `run` ends with the answer in the outlet, whatever happens."""

    def __init__(
        self,
        session: Session,
        outlet: Outlet,
        clock: Clock,
        server_clock: ServerClock,
        group: Group,
        since: int,
        *,
        live: Mapping[int, Told] | None = None,
        witnesses: Mapping[int, Sequence[Told]] | None = None,
        longest: float | None = None,
        until: int = 0,
    ) -> None:
        """`since` (µs, gateway's clock): up to when everything is durable. `live`: the row of each point up to which its history must go;
        None sets the group to remember its first live rows. `witnesses`: further live rows that a history must have to be believed.
        `longest` is the time (s) for all of it, `LONGEST` if None. `until` (µs): the end of what is missing, where it is later than now, as
        with a server whose clock is ahead."""
        self._session = session
        self._outlet = outlet
        self._clock = clock
        self._server_clock = server_clock
        self._group = group
        self._since = since
        self.live: dict[int, Told] = dict(live or {})
        """Each point's first live row."""
        self.without: set[int] = set()
        """Points of which the server keeps no history."""
        self._witnesses = witnesses or {}
        if live is None:
            group.firsts = self.live
        self._longest = LONGEST if longest is None else longest
        self._until = clock.monotonic() + self._longest
        self._rows = 0
        self._end = self._at_least = max(since, until)

    async def run(self, items: Sequence[Item], *, events: bool) -> None:
        """`items` of the group, subscribed; `events`: whether the device also has events, which no history of values fills.

        Raises asyncua's and the network's errors when the link is lost; what the server merely refuses stays missing.
        """
        device, name = self._group.device, self._group.name
        try:
            async with self._group.reading:
                missed = await self.points(items)
        finally:
            self._group.firsts = None
        if missed is not None and events:
            missed.append(Missed((), self._since, self._end, "events"))
        self._outlet.put(Recovered(device, name, self._group.until(self._end), missed))

    async def points(self, items: Sequence[Item]) -> list[Missed] | None:
        """Fills what it can of these points, whose first live rows are in `live` or come there; what stays missing. None: there is no
        history at all, or the server refuses it."""
        try:
            good = [item for item in items if item.node is not None and not isinstance(item.node, Unresolved)]
            with_history = await _history.kept(self._session, [item.node for item in good])
            wanted = [item for item, has in zip(good, with_history, strict=True) if has]
            self.without = {item.point.id for item, has in zip(good, with_history, strict=True) if not has}
            return await self._fill(items, wanted) if wanted else None
        except (*EXPECTED, OutOfTimeError) as error:
            if not (fault_name(error) or isinstance(error, DecodingError | OutOfTimeError)):
                raise
            where = f"{self._group.device}/{self._group.name}"
            log.warning("%s: %s: no history: %s", self._session.settings.endpoint, where, error)
            return None

    async def _fill(self, items: Sequence[Item], wanted: Sequence[Item]) -> list[Missed]:
        await self._first_values(items)
        self._end = max(self._clock.now(), self._at_least)
        offset = self._server_clock.offset or 0
        shift = offset if abs(offset) > TOLERANCE else 0
        live = [row[2] - shift for row in self.live.values() if row[2] is not None]
        end = max([self._end, *(at for at in live if at <= self._end + _AHEAD)])
        margin = _MARGIN + (0 if shift else abs(offset))
        start, stop = self._since + shift - margin, end + shift + margin
        filled = [_Filled(item, unseen=list(self._witnesses.get(item.point.id, ()))) for item in wanted]
        await self._reach_back(filled, start)
        await self._read(filled, start, stop)
        for pause in _LAGS:
            behind = [each for each in filled if each.first is not None and not self._meets(each)]
            if not behind or self._clock.monotonic() + pause > self._until:
                break
            await asyncio.sleep(pause)
            await self._read(behind, min((each.last[2] or start) if each.last else start for each in behind), stop)
        log.log(
            logging.INFO if self._longest == LONGEST else logging.DEBUG,  # losses of a living link may come all the time
            "%s: %s/%s: %d values of %d points from the history",
            self._session.settings.endpoint, self._group.device, self._group.name, self._rows, len(wanted),
        )  # fmt: skip
        return self._missed(items, filled, shift, end)

    async def _first_values(self, items: Sequence[Item]) -> None:
        """Waits until each point that is monitored has told its first live value."""
        end = self._clock.monotonic() + _FIRST_VALUES
        expected = {item.point.id for item in items if item.alive}
        while not expected <= self.live.keys() and self._clock.monotonic() < end:  # noqa: ASYNC110  bounded, once a connection
            await asyncio.sleep(0.02)

    async def _reach_back(self, filled: Sequence[_Filled], start: int) -> None:
        nodes = [each.item.node for each in filled]
        try:
            rows = await _history.before(self._session, nodes, start, self._in_time)
        except OutOfTimeError:
            return  # nor is anything read then, which tells why
        for each, row in zip(filled, rows, strict=True):
            if row is not None:
                each.first = start
                self._note(each, row)

    async def _read(self, filled: Sequence[_Filled], start: int, stop: int) -> None:
        async def take(place: int, rows: list[Row]) -> None:
            each = filled[place]
            if each.first is None:
                each.first = rows[0][2]
            for row in rows:
                self._note(each, row)
            await self._give(each.item.point.id, rows)
            self._in_time()

        try:
            nodes = [each.item.node for each in filled]
            problems = await _history.raw(self._session, nodes, start, stop, take, self._in_time)
        except OutOfTimeError as error:
            problems = [str(error)] * len(filled)
        for each, problem in zip(filled, problems, strict=True):
            if problem is not None:
                each.problem = problem
                each.meeting = None
                if problem == _history.DISORDERED:
                    each.first = None  # what came may lack anything

    def _in_time(self) -> None:
        if self._clock.monotonic() > self._until:
            raise OutOfTimeError(f"not read within {self._longest:g} s")

    def _note(self, each: _Filled, row: Row) -> None:
        each.last = row
        live = self.live.get(each.item.point.id)
        if live is not None and live[2] is not None and (row[2] or 0) <= live[2]:
            each.meeting = row
        if each.unseen:
            each.unseen = [told for told in each.unseen if not _is_the_row(row, told)]

    def _meets(self, each: _Filled) -> bool:
        """Whether the history goes on to the first live value."""
        live, row = self.live.get(each.item.point.id), each.meeting
        return live is not None and row is not None and _same(row, live)

    async def _give(self, point: int, rows: list[Row]) -> None:
        await self._outlet.room()
        self._rows += len(rows)
        status = [row[1] for row in rows]
        samples = Samples(
            self._group.device, self._group.name, self._clock.now(), [point] * len(rows), [row[0] for row in rows],
            source_ts=[row[2] for row in rows], status=status if any(status) else None,
            flags=[int(Flag.HISTORICAL)] * len(rows),
        )  # fmt: skip
        settle(samples, self._group.encoding)
        self._outlet.put_history(samples)

    def _missed(self, items: Sequence[Item], filled: Sequence[_Filled], shift: int, end: int) -> list[Missed]:
        """What stays missing, points with the same bounds together."""
        parts: dict[tuple[int, int, str], list[int]] = defaultdict(list)
        covered = {each.item.point.id: each for each in filled}
        for item in items:
            point = item.point.id
            each = covered.get(point)
            if each is None:
                parts[self._since, end, "no history"].append(point)
            elif each.first is None:
                parts[self._since, end, each.problem or "the history is empty"].append(point)
            else:
                if each.first - shift > self._since:
                    begins = "the history begins later"
                    parts[self._since, each.first - shift, begins].append(point)
                if not self._meets(each):
                    until = each.last[2] if each.last is not None else None
                    begin = self._since if until is None else max(self._since, until - shift)
                    parts[min(begin, end), end, each.problem or NOT_TO_LIVE].append(point)
                elif each.unseen:
                    parts[self._since, end, INCOMPLETE].append(point)
        return [
            Missed(None if len(points) == len(items) else tuple(points), start, stop, detail)
            for (start, stop, detail), points in parts.items()
        ]


def _same(row: Row, told: Told) -> bool:
    """One value and quality; NaN is NaN."""
    return (row[0] == told[0] or (row[0] != row[0] and told[0] != told[0])) and row[1] >> 30 == told[1] >> 30


def _is_the_row(row: Row, told: Told) -> bool:
    """Whether a row of the history is this live one."""
    return abs((row[2] or 0) - (told[2] or 0)) < _SAME_TIME and _same(row, told)
