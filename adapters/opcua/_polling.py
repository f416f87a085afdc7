"""Reading on a fixed grid (OPC 10000-4 §5.11.2): for servers without good subscriptions, and to check those that have them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from typing import Final

from asyncua import ua

from adapters.contract import Clock, Samples
from adapters.opcua._errors import fault_name
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._resolve import Unresolved
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Row, Session
from adapters.opcua._strings import settle
from adapters.opcua._subscription import GONE, Group, Told
from schemas import status as codes
from schemas.wire import Flag

_SESSION_LOST: Final = frozenset(
    {"BadSessionIdInvalid", "BadSessionClosed", "BadSessionNotActivated", "BadSecureChannelIdInvalid",
     "BadSecureChannelClosed", "BadConnectionClosed", "BadServerHalted", "BadShutdown", "BadTcpMessageTooLarge"}
)  # fmt: skip


class Poller:
    """Reads the items of one group, all within one turn, turns on a grid that does not drift: `start + n * period`.

    A turn that takes longer than a period leaves turns out. With `group.told` (mode both) a row goes on only when the subscription has not
    told it by the next turn either; without, each row does.
    """

    def __init__(
        self,
        session: Session,
        clock: Clock,
        server_clock: ServerClock,
        outlet: Outlet,
        group: Group,
        items: Sequence[Item],
        period: float,
        on_gone: Callable[[int, int], None],
        on_back: Callable[[int], None],
        count: Callable[[str, int], None],
    ) -> None:
        """`on_gone` is told (point, status) of a node that is gone or refused, `on_back` of one that can be read again."""
        self._session = session
        self._clock = clock
        self._server_clock = server_clock
        self._outlet = outlet
        self._group = group
        self._items = items
        self._period = period
        self._on_gone, self._on_back = on_gone, on_back
        self._count = count
        self._seen: set[int] = set()
        self._untold: dict[int, Told] = {}
        self._previous = clock.now()

    async def run(self) -> None:
        """Until cancelled. Raises the network's and asyncua's errors when the link is lost."""
        start, turn = self._clock.monotonic(), 0
        while True:
            await self.turn()
            now = self._clock.monotonic()
            after = max(turn + 1, math.ceil((now - start) / self._period))
            if after > turn + 1:
                self._count("turns_left_out", after - turn - 1)
            turn = after
            await asyncio.sleep(max(0.0, start + turn * self._period - now))

    async def turn(self) -> None:
        """Reads everything once."""
        items = [item for item in self._items if item.node is not None and not isinstance(item.node, Unresolved)]
        if not items:
            return
        rows = await self._read(items)
        received = self._clock.now()
        points = [item.point.id for item in items]
        self._watch(items, rows)
        if self._group.told is not None:
            self._check(points, rows, received, self._group.told)
        else:
            completed = self._server_clock.complete_to(self._session.decoder.answered, 0, received)
            self._group.received(received)
            self._group.polled(completed if completed is not None else received)
            self._put(points, rows, received, self._group.completed())

    async def _read(self, items: Sequence[Item]) -> list[Row]:
        try:
            return await self._session.read([item.node for item in items])
        except ua.UaStatusCodeError as error:
            name = fault_name(error)
            if name in _SESSION_LOST:
                raise
            self._count(name, 1)
            status = int(error.code)
            return [(None, status, None, None)] * len(items)

    def _watch(self, items: Sequence[Item], rows: Sequence[Row]) -> None:
        """Tells of nodes that are gone or refused, and of those that are back."""
        if self._group.told is not None:
            return  # the subscription does
        for item, row in zip(items, rows, strict=True):
            if row[1] & codes.CODE_MASK in GONE:
                self._on_gone(item.point.id, row[1])
            elif item.reported and not codes.is_bad(row[1]):
                self._on_back(item.point.id)

    def _check(self, points: Sequence[int], rows: Sequence[Row], received: int, told: dict[int, Told]) -> None:
        """Passes on what the subscription has not told although a whole turn went by."""
        late: list[int] = []
        late_rows: list[Row] = []
        before, self._untold = self._untold, {}
        for point, row in zip(points, rows, strict=True):
            value, status, source, _ = row
            known = told.get(point)
            if known is None or _same(known, (value, status, source)) or _older(source, known[2]):
                continue
            if point in before and _same(before[point], (value, status, source)):
                told[point] = (value, status, source)
                late.append(point)
                late_rows.append(row)
            else:
                self._untold[point] = (value, status, source)
        if late:
            self._count("untold", len(late))
            self._put(late, late_rows, received, None)

    def _put(self, points: list[int], rows: Sequence[Row], received: int, complete_to: int | None) -> None:
        first = set() if self._group.told is not None else set(points) - self._seen
        self._seen.update(points)
        samples = samples_of(self._group, points, rows, received, first)
        samples.server_ts, samples.complete_to = self._session.decoder.answered, complete_to
        if self._group.firsts is not None:
            for point, (value, status, source, _) in zip(points, rows, strict=True):
                self._group.firsts.setdefault(point, (value, status, source))
        self._outlet.put_samples(samples, (), self._previous, received)
        self._previous = received


def samples_of(
    group: Group, points: Sequence[int], rows: Sequence[Row], received: int, initial: Collection[int]
) -> Samples:
    """Rows that were read, as samples; those of `initial` points may be old values, and are flagged so."""
    flags = [0] * len(points)
    source: list[int | None] = []
    for i, (point, row) in enumerate(zip(points, rows, strict=True)):
        if row[2] is None:
            flags[i] = int(Flag.NO_SOURCE_TIME)
        if point in initial:
            flags[i] |= int(Flag.INITIAL)
        source.append(row[2] if row[2] is not None else row[3])
    status = [row[1] for row in rows]
    samples = Samples(
        group.device, group.name, received, points, [row[0] for row in rows], source,
        status if any(status) else None, flags if any(flags) else None,
    )  # fmt: skip
    settle(samples, group.encoding)
    return samples


def _same(one: Told, other: Told) -> bool:
    """One row: the same source time and status, and the same value where there is no time (NaN is NaN)."""
    if one[1] != other[1] or one[2] != other[2]:
        return False
    return one[2] is not None or one[0] == other[0] or (one[0] != one[0] and other[0] != other[0])


def _older(source: int | None, told: int | None) -> bool:
    return source is not None and told is not None and source < told
