"""What a session monitors: the items of points and of event clauses, in subscriptions by groups, and how they are made."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from asyncua import ua

from adapters.contract import Clock, DeadbandHeld, DeviceSpec, EventTrouble, Lost, PointTrouble, Samples
from adapters.opcua import _clauses, _events, _monitoring, _resolve
from adapters.opcua._conditions import Conditions, Refresher
from adapters.opcua._deadband import DeadbandProbe
from adapters.opcua._events import EventItem
from adapters.opcua._limits import Limits
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._polling import samples_of
from adapters.opcua._publishing import Publisher
from adapters.opcua._resolve import Unresolved
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Session
from adapters.opcua._subscription import Group, Subscription
from adapters.opcua._types import Definitions
from adapters.opcua.settings import LinkSettings
from schemas.profile import Group as GroupOptions

log = logging.getLogger("guantong.opcua")

_EVENTS: Final = "/events"
"""Key of a device's events among its groups; no group can have this name."""
_EVENT_PERIOD: Final = 1.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Monitored:
    """The items of one link. Subscriptions that outlive their link pass to the next one's by `take_over`."""

    def __init__(
        self,
        settings: LinkSettings,
        limits: Limits,
        session: Session,
        outlet: Outlet,
        clock: Clock,
        server_clock: ServerClock,
        publisher: Publisher,
        logged: dict[str, str],
    ) -> None:
        """`logged` is what has been said (by what it is about)."""
        self._settings = settings
        self._limits = limits
        self._logged = logged
        self.session = session
        self.outlet = outlet
        self.clock = clock
        self.server_clock = server_clock
        self.publisher = publisher
        self.definitions: Definitions
        self.refresher = Refresher(session)
        self.groups: dict[tuple[str, str], Group] = {}
        self.items: dict[int, Item] = {}
        self.event_items: list[EventItem] = []
        self.roots: dict[str, Any] = {}
        self.due: dict[str, tuple[float, float]] = {}
        """Devices without a root, and event clauses that were refused: (pause, monotonic time of the next attempt)."""
        self.redone = 0
        """How often a subscription that the server ended was made anew."""
        self.wake = asyncio.Event()
        """Set when something is to be tried again."""
        self.conditions: dict[str, Conditions] = {}
        """What is known of the conditions of each alarm clause, by its name; the adapter puts here what outlives a link."""
        self.on_gone: Callable[[Subscription | None, int, int], None] = lambda *_: None
        """Told (subscription, point, status) of a node that is gone or refused."""
        self.on_back: Callable[[int], None] = lambda _: None
        """Told a point in trouble that has a value again."""
        self.on_loss: Callable[[Group, Lost], bool] = lambda *_: False
        """See `Group.on_loss`."""
        self._held: set[int] = limits.held

    def opened(self) -> None:
        """To be called once the session is open, before anything is monitored on it."""
        self.definitions = Definitions(self.session, self.clock.monotonic, self._settings.item_retry)

    def take_over(self, before: Monitored, subscriptions: Iterable[Subscription]) -> None:
        """Goes on with what a lost link monitored, whose subscriptions these are."""
        self.groups, self.items, self.event_items = before.groups, before.items, before.event_items
        self.roots, self.due, self.redone = before.roots, before.due, before.redone
        for (_, name), group in self.groups.items():
            if name != _EVENTS:
                group.on_loss = self.on_loss
        for subscription in subscriptions:
            subscription.clock = self.server_clock
            subscription.on_gone, subscription.on_back = self.on_gone, self.on_back
            subscription.queue_sizes = self.queue_sizes
            for event in subscription.events.values():
                self.refresh(event, subscription)
        for event in self.event_items:
            if event.trouble is not None:
                self.outlet.put(event.trouble)

    # -------------------------------------------------------------------------------------------------- subscribing

    def group(self, device: DeviceSpec, name: str) -> Group:
        """A device's group, made at the first need."""
        key = (device.id, name)
        if key not in self.groups:
            both = device.options.get(name, GroupOptions()).mode == "both"
            self.groups[key] = Group(
                device.id, name, device.groups.get(name, 1.0),
                encoding=_resolve.rules_of(device).encoding, told={} if both else None, on_loss=self.on_loss,
            )  # fmt: skip
        return self.groups[key]

    def _hold(self, items: Iterable[Item], held: bool) -> None:
        """The server applies the deadbands of these items, or the gateway does: the host is told before their next values."""
        by_device: dict[str, list[int]] = defaultdict(list)
        for item in items:
            item.filtered = held
            by_device[item.device.id].append(item.point.id)
        for device, points in by_device.items():
            if not self._held.isdisjoint(points) if not held else not self._held.issuperset(points):
                self.outlet.put(DeadbandHeld(device, points, held))
        (self._held.update if held else self._held.difference_update)(p for ps in by_device.values() for p in ps)

    async def _filter(self, items: Sequence[Item], held: bool) -> bool:
        """Makes items with a deadband at the server, or without; the old one ends when the new one is there, so that nothing is missed.
        False where an item is not alive or its subscription is full: then nothing is changed."""
        by_subscription: dict[Subscription, list[Item]] = defaultdict(list)
        for item in items:
            if item.subscription is not None and item.item_id is not None:
                by_subscription[item.subscription].append(item)
        done = sum(map(len, by_subscription.values())) == len(items)
        for subscription, some in by_subscription.items():
            room = self._room(subscription) or len(some)
            for first in range(0, len(some), room):
                done = await self._refilter(subscription, some[first : first + room], held) and done
        return done

    async def _refilter(self, subscription: Subscription, items: list[Item], held: bool) -> bool:
        old = {item.point.id: (item.item_id, item.node) for item in items}
        self._hold(items, held)
        await _monitoring.create_items(self.session, subscription, items, initial=False)
        replaced = [old[item.point.id][0] for item in items if item.item_id != old[item.point.id][0]]
        await _monitoring.delete_items(self.session, subscription, [each for each in replaced if each is not None])
        left = [item for item in items if item.item_id == old[item.point.id][0]]
        for item in left:  # the old one goes on
            item.node = old[item.point.id][1]
            subscription.points.add(item.point.id)
        plain = [item for item in items if item.plain]
        self._hold(left + plain if held else [], False)
        return not left and not plain

    def probe_deadband(self, spawn: Spawn) -> None:
        """Tries on one item whether the server's deadband keeps slow drifts, unless that is known."""
        candidates = [item for item in self.items.values() if item.may_be_filtered and item.alive]
        if candidates and self._limits.deadbands is None:
            spawn(DeadbandProbe(self.session, self.clock, self.outlet, candidates, self._filter).run())

    async def read_structures(self) -> None:
        """Structures that came before their types were known are read once more."""
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self.items.values():
            if item.alive and item.structured:
                by_group[item.group.device, item.group.name].append(item)
        for items in by_group.values():
            before = self.clock.now()
            rows = await self.session.read([item.node for item in items])
            points = [item.point.id for item in items]
            received = self.clock.now()
            self.outlet.put_samples(samples_of(items[0].group, points, rows, received, points), (), before, received)

    async def subscribe(self, device: DeviceSpec, group: Group, items: list[Item]) -> None:
        """Resolves and creates these items of one group; what fails is reported and comes again by `Retrying`."""
        nodes = await _resolve.nodes(self.session, device, self.roots.get(device.id), [item.point for item in items])
        for item, node in zip(items, nodes, strict=True):
            item.node = node
        await self.definitions.prepare([item.node for item in items if item.structured])
        self._hold([item for item in items if item.may_be_filtered or item.filtered], self._limits.deadbands is True)
        waiting = [item for item in items if not item.read_only and not isinstance(item.node, Unresolved)]
        while waiting:
            subscription = self._with_room(group) or await self._create_subscription(group, group.period)
            room = self._room(subscription)
            piece, waiting = waiting[:room], waiting[room:]
            surplus = await _monitoring.create_items(self.session, subscription, piece)
            if surplus:
                held = len(subscription.points)
                if not held:
                    for item in surplus:
                        item.node = Unresolved(
                            _monitoring.BAD_TOO_MANY_MONITORED_ITEMS,
                            "BadTooManyMonitoredItems: the server monitors no further item for this session",
                        )
                    continue
                self._limits.items_per_subscription = held
                waiting = surplus + waiting
        now = self.clock.monotonic()
        self._hold([item for item in items if item.plain and item.filtered], False)
        for item in items:
            if item.alive:
                item.made(now)  # a trouble that was told is over with the first value that is not bad
        troubled = [item for item in items if not item.alive]
        for item in troubled:
            item.postpone(self._settings, now)
        self.report([item for item in troubled if not item.reported])

    def report(self, items: list[Item]) -> None:
        """Tells the host of points that the server refuses: a bad row each, and what is wrong."""
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in items:
            by_group[item.device.id, item.point.group].append(item)
        for (device, group), some in by_group.items():
            received = self.clock.now()
            rows = Samples(
                device, group, received,
                points=[item.point.id for item in some],
                values=[None] * len(some),
                status=[item.node.status for item in some],
            )  # fmt: skip
            self.outlet.put_samples(rows, (), received, received)
            for item in some:
                item.reported = True
                self.outlet.put(PointTrouble(device, item.point.id, item.node.problem))
            first = some[0]
            text = f"{len(some)} point(s) refused, first {first.point.signal}: {first.node.problem}"
            self.log(f"{device}/{group}", f"device {device}: {text}")
        self.wake.set()

    def queue_sizes(self, subscription: Subscription) -> dict[int, int]:
        """Point -> values that its queue holds at the server, for those that hold more than the newest."""
        known = (self.items[point] for point in subscription.points if point in self.items)
        return {item.point.id: item.queue for item in known if item.queue > 1}

    def _room(self, subscription: Subscription) -> int:
        most = self._settings.items_per_subscription
        if self._limits.items_per_subscription is not None:
            most = min(most, self._limits.items_per_subscription)
        return max(0, most - len(subscription.points))

    def _with_room(self, group: Group) -> Subscription | None:
        for subscription in group.subscriptions:
            if self._room(subscription):
                return subscription
        return None

    async def _create_subscription(self, group: Group, period: float) -> Subscription:
        request = _monitoring.subscription_request(period, self._settings)
        answer = (await self.session.call(request, ua.CreateSubscriptionResponse)).Parameters
        publishing = float(answer.RevisedPublishingInterval) / 1_000 or period
        subscription = Subscription(
            int(answer.SubscriptionId), group, publishing, publishing * max(1, int(answer.RevisedMaxKeepAliveCount)),
            self.server_clock, self.outlet, heard=self.clock.monotonic(), previous=self.clock.now(),
            on_gone=self.on_gone, on_back=self.on_back, queue_sizes=self.queue_sizes,
        )  # fmt: skip
        group.subscriptions.append(subscription)
        self.publisher.add(subscription)
        return subscription

    async def subscribe_events(self, device: DeviceSpec) -> None:
        """Creates the event clauses of a device; what fails comes again by `Retrying`."""
        for clause in device.events:
            item = EventItem(device, clause, len(self.event_items))
            self.event_items.append(item)
            await self.subscribe_event(item)

    async def subscribe_event(self, item: EventItem) -> None:
        """Creates one of them."""
        device, fresh = item.device, item.item_id is None
        refusal = await _events.prepare(self.session, item, self.roots.get(device.id))
        if refusal is None:
            key = (device.id, _EVENTS)
            if key not in self.groups:
                self.groups[key] = Group(device.id, "events", min([_EVENT_PERIOD, *device.groups.values()]))
            group = self.groups[key]
            existing = next((s for s in self.publisher.subscriptions.values() if s.group is group), None)
            subscription = existing or await self._create_subscription(group, group.period)
            refusal = await _clauses.monitor(self.session, subscription, item)
            if fresh and item.item_id is not None:
                self.refresh(item, subscription)
        self._judge_event(item, _clauses.trouble(item, refusal))

    def _judge_event(self, item: EventItem, trouble: EventTrouble | None) -> None:
        """Tells the host of the trouble of a clause, or that it is over; the clause, or what is refused of it, is asked for again."""
        if trouble is not None:
            self.postpone(item.name)
            self.log(item.name, f"{item.name}: {trouble.problem}")
        else:
            self.due.pop(item.name, None)
            if self._logged.pop(item.name, None):
                log.info("%s: %s: subscribed again", self._settings.endpoint, item.name)
        if trouble != item.trouble:
            item.trouble = trouble
            self.outlet.put(trouble or EventTrouble(item.device.id, item.clause.name, None))

    def refresh(self, item: EventItem, subscription: Subscription) -> None:
        """Asks for the conditions of an event clause, now and whenever the server says that it should."""
        if item.clause.kind != "alarm":
            return
        item.conditions = self.conditions.setdefault(item.name, Conditions())
        item.conditions.interrupted()
        item.conditions.ask = lambda: self.refresher.ask(subscription.id)
        item.conditions.ask()

    def log(self, what: str, text: str) -> None:
        """A warning once, and again only when it changes, over all sessions of the adapter."""
        if self._logged.get(what) != text:
            self._logged[what] = text
            log.warning("%s: %s", self._settings.endpoint, text)

    def postpone(self, what: str) -> None:
        """A root or an event clause is tried again after twice its last pause."""
        pause = self.due[what][0] * 2 if what in self.due else self._settings.item_retry
        pause = min(pause, self._settings.item_retry_max)
        self.due[what] = (pause, self.clock.monotonic() + pause)
        self.wake.set()
