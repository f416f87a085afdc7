"""One subscription: its sequence numbers, and its notifications as the contract's items."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final

from adapters.contract import Interrupted, Item, Lost, PointTrouble, Samples
from adapters.opcua._conditions import REFRESH_EVENTS
from adapters.opcua._decode import Message
from adapters.opcua._events import QUEUE_OVERFLOW, EventItem, to_event
from adapters.opcua._outlet import Outlet
from adapters.opcua._runs import DataChange
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._strings import UTF8, settle
from schemas import status as codes
from schemas.wire import Cause, Flag

_OVERFLOW: Final = 0x0480
"""InfoType DataValue and the Overflow bit (OPC 10000-4 §7.39.1)."""
_LIMIT_BITS: Final = 0x0300
DELETED: Final = frozenset({codes.BAD_NODE_ID_UNKNOWN, codes.BAD_NODE_ID_INVALID, 0x803F0000})
"""Statuses of a node that was deleted under its monitored item, as by a PLC download; the last is BadObjectDeleted."""
GONE: Final = DELETED | {0x801F0000, 0x803A0000, 0x80350000}
"""And of one that may no longer be read: BadUserAccessDenied, BadNotReadable, BadAttributeIdInvalid. A new item may bring it back."""
_SET_BACK: Final = 1_000_000
"""µs after which a time that is still to come was by another clock, and is not of a message that was received a little earlier."""
_LARGEST: Final = 0xFFFFFFFF
_ASIDE: Final = (Lost, Interrupted, PointTrouble)
"""Items that carry no token."""
Told = tuple[Any, int, int | None]
"""Value, status and source time (µs) of a row."""


@dataclass(slots=True)
class Watched:
    """Everything that comes of one point."""

    point: int
    values: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """A device's group: all its subscriptions together tell how complete it is."""

    device: str
    name: str
    period: float
    subscriptions: list[Subscription] = field(default_factory=list)
    complete_to: int | None = None
    ready: bool = False
    """All items are created (or known to be troubled); before that nothing is complete."""
    encoding: str = UTF8
    """How the device encodes its strings."""
    holes: list[Lost] = field(default_factory=list)
    """Losses that may still be filled from the server's history, in the order in which they came. The group is complete up to them at most."""
    growing: int = 0
    """How many of them go on: subscriptions that the server ended, and that are not made anew yet."""
    answering: bool = False
    """Whether the subscriptions have outlived an outage of which the answer is still due, with the losses in it."""
    on_loss: Callable[[Group, Lost], bool] = lambda *_: False
    """Told of a loss, and asked whether the server's history may fill it."""
    unwitnessed: set[int] = field(default_factory=set)
    """Points of these losses of which no live row has come since."""
    witnesses: dict[int, list[Told]] = field(default_factory=dict)
    """The first live rows of points after a loss: a history that has not got them does not hold everything."""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its history is read: one such reading at a time, whose rows the host compares with one another."""
    firsts: dict[int, Told] | None = None
    """The first live row of each point, kept while an outage is being filled from the server's history."""
    told: dict[int, Told] | None = None
    """What came last of each point; kept only for a group that is read besides being subscribed."""

    watched: Watched | None = None
    """A point of which all values are noted, while the server's deadband is tried on it."""

    def received(self, at: int) -> None:
        """Something came at `at` (µs). Being complete up to a time well after it was by a gateway's clock that has been set back: kept, nothing new would
        be complete until then."""
        if self.complete_to is not None and self.complete_to > at + _SET_BACK:
            self.complete_to = None

    def polled(self, complete_to: int) -> None:
        """A reading turn saw everything up to then."""
        if self.complete_to is None or complete_to > self.complete_to:
            self.complete_to = complete_to

    def lose(self, lost: Lost) -> Item:
        """What the host is to be told of a loss now: that it is being looked for, or that it is one."""
        if lost.points is None or not (self.on_loss(self, lost) or self.answering):
            return lost
        self.holes.append(lost)
        self.unwitnessed.update(lost.points)
        return Interrupted(self.device, self.name, lost.points)

    def witness(self, change: DataChange) -> None:
        """Notes the first live row of each point that has lost something."""
        for point, value, status, at in zip(change.handles, change.values, change.status, change.source, strict=True):
            if point in self.unwitnessed and at is not None and not codes.is_bad(status):
                self.unwitnessed.discard(point)
                self.witnesses.setdefault(point, []).append((value, status, at))

    def until(self, end: int) -> int:
        """`end`, or where the first loss begins that may still be filled."""
        return min([end, *(hole.start for hole in self.holes)])

    def completed(self) -> int | None:
        """Up to when everything of the group has been seen and is in the items so far: not beyond a loss that is being filled."""
        reached = self.reached()
        return None if reached is None else self.until(reached)

    def reached(self) -> int | None:
        """Up to when its subscriptions have come, all of them: the least of theirs, and never less than before."""
        if not self.subscriptions:
            return self.complete_to if self.ready else None  # it is read
        marks = [subscription.complete_to for subscription in self.subscriptions]
        known = [mark for mark in marks if mark is not None]
        if not self.ready or not known or len(known) < len(marks):
            return None
        least = min(known)
        if self.complete_to is None or least > self.complete_to:
            self.complete_to = least
        return self.complete_to


@dataclass(slots=True, eq=False)
class Subscription:
    """What the server granted, and how far its notifications have come."""

    id: int
    group: Group
    publishing: float
    """Revised publishing interval in seconds."""
    keep_alive: float
    """Longest silence in seconds that the server promised."""
    clock: ServerClock
    outlet: Outlet
    heard: float
    """Monotonic time of the last answer for it."""
    events: dict[int, EventItem] = field(default_factory=dict)
    points: set[int] = field(default_factory=set)
    sampling: int = 0
    """Longest revised sampling interval, in µs."""
    expected: int = 1
    complete_to: int | None = None
    previous: int = 0
    """Where a gap begins if the next notification should be missing (µs)."""
    first: bool = True
    queues: dict[int, int] = field(default_factory=dict)
    """Point -> values that its queue holds at the server; only from an outage or a pause until its first notification without more."""
    queue_sizes: Callable[[Subscription], dict[int, int]] = lambda _: {}
    """Gives them."""
    seen: Counter[int] = field(default_factory=Counter)
    """Values of each point since then."""
    initial: set[int] = field(default_factory=set)
    """Points whose first row has not come yet."""
    held: list[tuple[Message, bool, int]] = field(default_factory=list)
    """Notifications that wait for a missing one before them."""
    repairing: bool = False
    on_gone: Callable[[Subscription, int, int], None] = lambda *_: None
    """Told (subscription, point, status) when a node has vanished or is refused."""
    troubled: set[int] = field(default_factory=set)
    """Points of which a trouble was told: `on_back` hears when a value that is not bad comes of one."""
    on_back: Callable[[int], None] = lambda _: None

    def missing(self, message: Message) -> range:
        """The sequence numbers that should have come before this message (OPC 10000-4 §7.26; after 2^32-1 comes 1)."""
        if self.first and message.sequence > self.expected and not message.keep_alive:
            return range(0)  # a server that does not begin at 1; nothing lies before its first notification
        if message.sequence <= self.expected or message.sequence == 0:
            return range(0)
        return range(self.expected, message.sequence)

    def outdated(self, message: Message) -> bool:
        """Whether a data message has come before (a republished one that arrives once more)."""
        return not message.keep_alive and not self.first and 0 < self.expected - message.sequence < _LARGEST // 2

    def passed(self, sequence: int) -> None:
        """This number is dealt with."""
        self.first = False
        self.expected = 1 if sequence >= _LARGEST else sequence + 1

    def deliver(self, message: Message, more: bool, received: int) -> int:
        """Turns a notification into items, in order; the number of values that came."""
        last = message.status_change is not None  # whatever was in the queues is gone with the subscription
        self.group.received(received)
        if self.complete_to is not None and self.complete_to > received + _SET_BACK:
            self.complete_to = None
        complete = None if more or last else self.clock.complete_to(message.publish_time, self.sampling, received)
        if complete is not None and (self.complete_to is None or complete > self.complete_to):
            self.complete_to = complete
        start, end = self.previous, self.clock.latest(message.publish_time, received)
        if end - start > (self.keep_alive + 2 * self.publishing) * 1_000_000 + self.sampling and not self.queues:
            self.queues = self.queue_sizes(self)
        server_ts = message.publish_time
        items: list[Item] = []
        for change in message.changes:
            items.extend(self._samples(change, received, server_ts, start, end))
        for fields in message.events:
            item = self.events.get(fields.handle)
            if item is None:
                continue
            event = to_event(item, fields.fields, received)
            if event.type == QUEUE_OVERFLOW:
                detail = "events: the server's queue overflowed"
                items.append(Lost(self.group.device, None, start, end, Cause.OVERRUN, detail=detail))
                if item.conditions is not None:
                    item.conditions.lost()
            elif item.conditions is not None:
                items.extend(item.conditions.take(event))
            elif event.type not in REFRESH_EVENTS:
                items.append(event)
        if message.undecodable:
            items.append(self.lost(start, end, Cause.UNDECODABLE, message.undecodable))
        self._queue(items, message, received, server_ts, start, end)
        if not last:
            self.previous = min(received, self.complete_to if self.complete_to is not None else received)
        if not more:
            self.queues.clear()
            self.seen.clear()
        return sum(len(change.handles) for change in message.changes)

    def _queue(
        self, items: list[Item], message: Message, received: int, server_ts: int | None, start: int, end: int
    ) -> None:
        """Queues the items; the last of them carries the token, since only then the whole notification is durable."""
        notifications = [] if message.keep_alive else [(self.id, message.sequence)]
        completed = None if self.events else self.group.completed()
        carriers = [item for item in items if not isinstance(item, _ASIDE)]
        if not carriers and not self.events:
            progress = Samples(self.group.device, self.group.name, received, (), (), server_ts=server_ts)
            items.append(progress)
            carriers.append(progress)
        last = carriers[-1] if carriers else None
        for item in items:
            due = notifications if item is last else []
            if isinstance(item, Samples):
                item.complete_to = completed if item is last else None
                self.outlet.put_samples(item, due, start, end)
            elif item is last:
                self.outlet.put_event(item, due, start, end)  # type: ignore[arg-type]  # the only other carrier
            elif isinstance(item, _ASIDE):
                self.outlet.put(item)
            else:
                self.outlet.put_event(item, [], start, end)  # type: ignore[arg-type]
        if last is None and notifications:
            self._lone(items, notifications)

    def _lone(self, items: list[Item], notifications: list[tuple[int, int]]) -> None:
        """A notification of which only a loss is left: the loss carries the token."""
        token = self.outlet.token(notifications)
        for item in reversed(items):
            if isinstance(item, Lost):
                item.token = token
                return
        self.outlet.acknowledge(token)

    def _samples(self, change: DataChange, received: int, server_ts: int | None, start: int, end: int) -> list[Item]:
        """A DataChangeNotification as a Samples, with a Lost before it when the server's queues overflowed."""
        rows = len(change.handles)
        if not rows:
            return []
        status: list[int] | None = change.status if any(change.status) else None
        flags: list[int] | None = None
        items: list[Item] = []
        overflowed: set[int] = set()
        if status is not None:
            overflown = [i for i, code in enumerate(status) if code & _OVERFLOW == _OVERFLOW]
            if overflown:
                flags = [0] * rows
                for i in overflown:
                    flags[i] = int(Flag.OVERFLOW)
                    status[i] = _without_overflow(status[i])
                overflowed = {change.handles[i] for i in overflown}
                points = sorted(overflowed)
                detail = "the server's queue overflowed"
                items.append(self.group.lose(Lost(self.group.device, points, start, end, Cause.OVERRUN, detail=detail)))
                status = status if any(status) else None
            for i, code in enumerate(status or ()):
                if code & codes.CODE_MASK in GONE:
                    self.on_gone(self, change.handles[i], code)
        if self.queues:
            self._check_queues(change, overflowed, items, start, end)
        if self.group.unwitnessed:
            self.group.witness(change)
        source = change.source
        if None in source:
            flags = flags or [0] * rows
            for i, time in enumerate(source):
                if time is None:
                    source[i] = change.server[i]
                    flags[i] |= int(Flag.NO_SOURCE_TIME)
        if self.initial:
            for i, point in enumerate(change.handles):
                if point in self.initial:
                    self.initial.discard(point)
                    if self.group.firsts is not None:
                        self.group.firsts[point] = (change.values[i], 0 if status is None else status[i], source[i])
                    flags = flags or [0] * rows
                    flags[i] |= int(Flag.INITIAL)
        if self.troubled:
            for i, point in enumerate(change.handles):
                if point in self.troubled and (status is None or not codes.is_bad(status[i])):
                    self.troubled.discard(point)
                    self.on_back(point)
        device, group = self.group.device, self.group.name
        samples = Samples(
            device, group, received, change.handles, change.values,
            source_ts=source, status=status, flags=flags, server_ts=server_ts,
        )  # fmt: skip
        if status is not None or self.group.encoding != UTF8:
            settle(samples, self.group.encoding)
        if (watched := self.group.watched) is not None and watched.point in self.points:
            pairs = zip(change.handles, samples.values, strict=True)
            watched.values += [value for point, value in pairs if point == watched.point]
        if self.group.told is not None:
            told = zip(samples.values, samples.status or repeat(0), change.source, strict=False)
            self.group.told.update(zip(change.handles, told, strict=False))
        items.append(samples)
        return items

    def _check_queues(self, change: DataChange, told: set[int], items: list[Item], start: int, end: int) -> None:
        """A queue that is full after an outage or a pause may have overflowed, also if the server does not say so (asyncua's does not)."""
        self.seen.update(change.handles)
        points = set(change.handles) - told
        full = sorted(point for point in points if self.seen[point] >= self.queues.get(point, _LARGEST))
        if full:
            detail = "the server's queue was full"
            items.append(self.group.lose(Lost(self.group.device, full, start, end, Cause.OVERRUN, detail=detail)))

    def lost(self, start: int, end: int, cause: Cause, detail: str) -> Lost:
        """A loss of everything that this subscription carries."""
        points = None if self.events else sorted(self.points)
        return Lost(self.group.device, points, min(start, end), end, cause, detail=detail)


def _without_overflow(status: int) -> int:
    """The status without the Overflow bit, which becomes a flag; limit bits stay."""
    rest = status & ~0x0080
    return rest if rest & _LIMIT_BITS else rest & ~0x0C00


def revised_sampling(result: Any, publishing: float) -> int:
    """The sampling interval that the server granted, in µs; the publishing interval where it gives none (OPC 10000-4 §5.13.1.2)."""
    interval = float(result.RevisedSamplingInterval)
    return int(interval * 1_000) if interval > 0 else int(publishing * 1_000_000)
