"""The bounded queue between the server's notifications and the host that makes them durable.

A slow host must not stop publishing, or the server would end the subscription. So when the queue is full, only the newest row of each
signal is kept; once there is room again the loss is told first (cause overrun) and these rows follow, so that the last value is right.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.contract import DeviceEvent, Item, Lost, Samples
from adapters.opcua._acknowledgements import Acknowledgements, Notification, Token
from schemas.wire import Cause, Flag

_Row = tuple[Any, int | None, int, int]


@dataclass(slots=True)
class _Overrun:
    """What did not fit, of one device and group."""

    start: int
    end: int
    count: int = 0
    last: Samples | None = None
    rows: dict[int, _Row] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    notifications: list[Notification] = field(default_factory=list)


class Outlet:
    """Items in order, with a bound on the rows held."""

    def __init__(self, limit: int, acks: Acknowledgements, count_overruns: Callable[[int], None]) -> None:
        self._limit = limit
        self._acks = acks
        self._count_overruns = count_overruns
        self._items: deque[Item] = deque()
        self._rows = 0
        self._overruns: dict[tuple[str, str], _Overrun] = {}
        self._event_overruns: dict[str, _Overrun] = {}
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        """Set when an item was taken, for whom `room` keeps waiting."""
        self._error: BaseException | None = None
        self._closed = False

    def put(self, item: Item) -> None:
        """Queues what is never dropped: states, troubles, losses."""
        self._items.append(item)
        self._rows += 1
        self._wake.set()

    def put_samples(self, samples: Samples, notifications: Sequence[Notification], start: int, end: int) -> None:
        """Queues rows that came with `notifications`; `start` and `end` (µs) bound what would be missing without them.

        Samples without rows only tell progress; the newest of them is enough.
        """
        key = (samples.device, samples.group)
        overrun = self._overruns.get(key)
        if not samples.points and not notifications:
            tail = self._items[-1] if self._items else None
            if overrun is not None or self._rows >= self._limit:
                return
            if type(tail) is Samples and not tail.points and tail.token is None and (tail.device, tail.group) == key:
                self._items[-1] = samples
                return
        elif overrun is None and self._rows >= self._limit:
            overrun = self._overruns[key] = _Overrun(start, end)
        if overrun is None:
            samples.token = self._acks.token(notifications)
            self._append(samples)
        else:
            self._conflate(overrun, samples, notifications, end)

    def put_event(self, event: DeviceEvent, notifications: Sequence[Notification], start: int, end: int) -> None:
        """Queues an event; when the queue is full it is dropped and the loss recorded."""
        overrun = self._event_overruns.get(event.device)
        if overrun is None and self._rows < self._limit:
            event.token = self._acks.token(notifications)
            self._append(event)
            return
        if overrun is None:
            overrun = self._event_overruns[event.device] = _Overrun(start, end)
        overrun.count += 1
        overrun.end = max(overrun.end, end)
        overrun.notifications.extend(notifications)
        self._count_overruns(1)

    def token(self, notifications: Sequence[Notification]) -> Token | None:
        """A token by which the host makes these notifications durable."""
        return self._acks.token(notifications)

    def acknowledge(self, token: Token | None) -> None:
        """Nothing in these notifications needs to be kept."""
        self._acks.ack(token)

    def _append(self, item: Samples | DeviceEvent) -> None:
        self._items.append(item)
        self._rows += max(1, len(item.points)) if isinstance(item, Samples) else 1
        self._wake.set()

    def _conflate(self, overrun: _Overrun, samples: Samples, notifications: Sequence[Notification], end: int) -> None:
        overrun.end = max(overrun.end, end)
        overrun.last = samples
        overrun.notifications.extend(notifications)
        for i, point in enumerate(samples.points):
            if point in overrun.rows:
                overrun.count += 1
                overrun.dropped.add(point)
            overrun.rows[point] = (
                samples.values[i],
                None if samples.source_ts is None else samples.source_ts[i],
                0 if samples.status is None else samples.status[i],
                0 if samples.flags is None else samples.flags[i],
            )

    def _flush_overruns(self) -> None:
        """There is room again: first what was lost, then the newest rows."""
        overruns, self._overruns = self._overruns, {}
        for (device, group), overrun in overruns.items():
            last = overrun.last
            if last is None:
                continue
            if overrun.dropped:
                self._count_overruns(overrun.count)
                detail = "the outbox was slower than the device"
                points = sorted(overrun.dropped)
                self.put(Lost(device, points, overrun.start, overrun.end, Cause.OVERRUN, overrun.count, detail))
            rows = list(overrun.rows.items())
            flags = [row[3] | (Flag.OVERFLOW if point in overrun.dropped else 0) for point, row in rows]
            samples = Samples(
                device,
                group,
                last.received,
                points=[point for point, _ in rows],
                values=[row[0] for _, row in rows],
                source_ts=[row[1] for _, row in rows],
                status=[row[2] for _, row in rows] if any(row[2] for _, row in rows) else None,
                flags=[int(flag) for flag in flags] if any(flags) else None,
                server_ts=last.server_ts,
                complete_to=last.complete_to,
            )
            samples.token = self._acks.token(overrun.notifications)
            self._append(samples)
        events, self._event_overruns = self._event_overruns, {}
        for device, overrun in events.items():
            detail = "events: the outbox was slower than the device"
            lost = Lost(device, None, overrun.start, overrun.end, Cause.OVERRUN, overrun.count, detail)
            lost.token = self._acks.token(overrun.notifications)
            self.put(lost)

    async def get(self) -> Item | None:
        """The next item; None when closed and empty. Raises what `fail` was given once what came before is taken."""
        while True:
            if (self._overruns or self._event_overruns) and self._rows <= self._limit // 2:
                self._flush_overruns()
            if self._items:
                item = self._items.popleft()
                self._rows -= max(1, len(item.points)) if isinstance(item, Samples) else 1
                self._taken.set()
                return item
            if self._closed:
                return None
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()

    def put_history(self, samples: Samples) -> None:
        """Queues rows of a history, which are never merged with live ones; `room` before them keeps the bound."""
        self._append(samples)

    async def room(self) -> None:
        """Until half of the room is free: for rows that can wait, as those of a history. Returns at once when the link is over."""
        while self._rows > self._limit // 2 and not self._closed and self._error is None:
            self._taken.clear()
            await self._taken.wait()

    def fail(self, error: BaseException) -> None:
        """The link is lost; the first error counts."""
        if self._error is None:
            self._error = error
            self._wake.set()
            self._taken.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake.set()
        self._taken.set()

    @property
    def error(self) -> BaseException | None:
        """With what the link was lost."""
        return self._error
