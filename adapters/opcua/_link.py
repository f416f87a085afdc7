"""One session from connect to disconnect: what is subscribed, what is watched, what is tried again."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from asyncua import ua

from adapters.contract import (
    AdapterError,
    Clock,
    DeadbandHeld,
    DeviceSpec,
    DeviceState,
    LinkSpec,
    Lost,
    PointTrouble,
    Recovered,
    Samples,
)
from adapters.opcua import _events, _monitoring, _redundancy, _resolve, _resumption
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._backfill import Backfill
from adapters.opcua._conditions import Conditions, Refresher
from adapters.opcua._deadband import DeadbandProbe
from adapters.opcua._errors import EXPECTED, lost, translate
from adapters.opcua._events import EventItem
from adapters.opcua._limits import Limits
from adapters.opcua._monitoring import Item
from adapters.opcua._orphans import Orphan
from adapters.opcua._outlet import Outlet
from adapters.opcua._polling import Poller, samples_of
from adapters.opcua._publishing import Publisher
from adapters.opcua._resolve import RootError, Unresolved
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Session, identity_of
from adapters.opcua._subscription import DELETED, Group, Subscription
from adapters.opcua._types import Definitions
from adapters.opcua.settings import LinkSettings
from schemas import status as codes
from schemas.bilingual import Bilingual
from schemas.profile import Group as GroupOptions
from schemas.wire import Cause

log = logging.getLogger("guantong.opcua")

_SHUTDOWN: Final = 4
_NOT_WORKING: Final = {1: "failed", 2: "no configuration", 3: "suspended", 6: "communication fault"}
"""ServerStates (OPC 10000-5 §12.6) in which the values are none; 0 Running, 5 Test and 7 Unknown are taken as working."""
_EVENTS: Final = "/events"
"""Key of a device's events among its groups; no group can have this name."""
_EVENT_PERIOD: Final = 1.0
_MOST_REDONE: Final = 5
"""How often a subscription that the server ended is made anew before the whole session is."""


class Link:
    """Runs on one session; tells everything through the outlet, the loss of the link too."""

    def __init__(
        self,
        spec: LinkSpec,
        settings: LinkSettings,
        limits: Limits,
        count: Callable[[str, int], None],
        orphan: Orphan | None,
        logged: dict[str, str],
        since: Mapping[tuple[str, str], int],
        acks: Acknowledgements,
        before: Link | None,
    ) -> None:
        """`orphan` is the session that the last link left behind, `logged` what has been said (by what it is about), `since` as in
        `adapters.contract.Resumable`, `before` the link whose subscriptions may have outlived it."""
        self._spec = spec
        self._settings = settings
        self._limits = limits
        self._clock: Clock = spec.clock
        self._count = count
        self._logged = logged
        self._since = dict(since)
        self.acks = acks
        self._before = before
        self.outlet = Outlet(settings.queue, self.acks, lambda n: count("overruns", n))
        self.session = Session(settings, limits, lambda: count("requests", 1), orphan, identity_of(spec))
        self._server_clock = ServerClock()
        self._publisher = Publisher(self.session, self.acks, self._clock, self._spawn, self._ended, count)
        self._tasks: set[asyncio.Task[None]] = set()
        self._groups: dict[tuple[str, str], Group] = {}
        self._items: dict[int, Item] = {}
        self._event_items: list[EventItem] = []
        self._roots: dict[str, Any] = {}
        self._due: dict[str, tuple[float, float]] = {}
        """Devices without a root, and event clauses that were refused: (pause, monotonic time of the next attempt)."""
        self._redone = 0
        self._held: set[int] = self._limits.held
        self.conditions: dict[str, Conditions] = {}
        """What is known of the conditions of each alarm clause, by its name; the adapter puts here what outlives a link."""
        self._retry_wake = asyncio.Event()
        self._state = 0
        self.transferred = False
        """Whether its subscriptions were transferred from a session that is no more."""

    # ---------------------------------------------------------------------------------------------------- beginning

    async def open(self, least: int = 0) -> None:
        """Connects and subscribes. Raises asyncua's and the network's errors, LowServiceLevel for a server that is worth less than `least`;
        leaves nothing open when it raises."""
        before, self._before = self._before, None
        self.session.resume = before is not None and _resumption.same_session(self.session, before.session)
        await self.session.open()
        try:
            self._definitions = Definitions(self.session, self._clock.monotonic, self._settings.item_retry)
            self._refresher = Refresher(self.session)
            await self._beat()
            if least and (level := await _redundancy.service_level(self.session)) < least:
                raise _redundancy.LowServiceLevel(self._settings.endpoint, level)
            if before is not None and await self._resume(before):
                log.info("%s: %d subscriptions go on", self._settings.endpoint, len(self._publisher.subscriptions))
            else:
                self.acks.begin()
                for device in self._spec.devices:
                    await self._begin(device)
            self._spawn(self._watch_session())
            self._spawn(self._heartbeat())
            self._spawn(self._watch_level())
            self._spawn(self._watch_silence())
            self._spawn(self._retry())
            self._spawn(self._definitions.run(self._read_structures))
            self._spawn(self._refresher.run())
            self._probe_deadband()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends everything, on the server too unless `resumable`; `outlet` ends after what it holds."""
        self.outlet.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.session.close(leave=self.resumable)

    @property
    def resumable(self) -> bool:
        """Whether the link was lost in a way that the server's side of it may have outlived."""
        return bool(self._publisher.subscriptions) and _resumption.resumable(self.outlet.error)

    async def _resume(self, before: Link) -> bool:
        """Goes on with the subscriptions of the lost link, where the server still has all of them and nothing else has changed."""
        subscriptions = list(before._publisher.subscriptions.values())
        if self.session.namespaces != before.session.namespaces or len(before._roots) < len(self._spec.devices):
            await _resumption.drop(self.session, [s.id for s in subscriptions] if self.session.resumed else [])
            return False
        if not await _resumption.transfer(self.session, subscriptions):
            return False
        self.transferred = not self.session.resumed
        self._groups, self._items, self._event_items = before._groups, before._items, before._event_items
        self._roots, self._due, self._redone = before._roots, before._due, before._redone
        _resumption.adopt(subscriptions, self._items, self.outlet, self._clock, initial=self.transferred)
        for subscription in subscriptions:
            subscription.clock = self._server_clock
            subscription.on_gone, subscription.on_back = self._gone, self._back
            for event in subscription.events.values():
                self._refresh(event, subscription)
        await self._definitions.prepare([item.node for item in self._items.values() if item.structured])
        self._report([item for item in self._items.values() if not item.alive])
        for item in self._items.values():
            if item.alive and item.reported:
                self.outlet.put(
                    PointTrouble(
                        item.device.id, item.point.id, Bilingual("no value since its trouble", "自出现问题以来没有新值")
                    )
                )
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self._items.values():
            by_group[item.device.id, item.point.group].append(item)
        for key, items in by_group.items():
            group, since = self._groups[key], self._since.pop(key, None)
            self._poll(items[0].device, group, items)
            if group.subscriptions:
                answer = _resumption.gone_on(
                    self.session, self.outlet, self._clock, self._server_clock, group, items, since
                )
                self._spawn(answer)
            elif since is not None:  # it is only read, and was not meanwhile
                backfill = Backfill(self.session, self.outlet, self._clock, self._server_clock, group, since)
                self._spawn(backfill.run(items, events=False))
        for subscription in subscriptions:
            self._publisher.add(subscription)
        return True

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if not isinstance(error, (*EXPECTED, AdapterError)):
                log.error("%s: a fault of the adapter itself", self._settings.endpoint, exc_info=error)
            self.session.fail(error)

    async def _watch_session(self) -> None:
        error = await asyncio.shield(self.session.failed)
        self.outlet.fail(translate(error, self._settings.endpoint))

    async def _begin(self, device: DeviceSpec) -> None:
        """Resolves and subscribes a device; one whose root is missing is down, and tried again later."""
        try:
            root = await self._root(device)
        except RootError as error:
            self._postpone(device.id)
            state = DeviceState(device.id, False, self._clock.now(), error.reason, error.fix_en, error.fix_zh)
            self.outlet.put(state)
            self._log(device.id, str(error))
            for name in {point.group for point in device.points}:
                since = self._since.pop((device.id, name), None)
                if since is not None:
                    self.outlet.put(Recovered(device.id, name, since, None))
            return
        self._roots[device.id] = root
        by_group: dict[str, list[Item]] = defaultdict(list)
        for point in device.points:
            group = self._group(device, point.group)
            mode = device.options.get(point.group, GroupOptions()).mode
            item = self._items[point.id] = Item(device, point, group, read_only=mode == "poll")
            by_group[point.group].append(item)
        for name, items in by_group.items():
            group = self._group(device, name)
            since = self._since.pop((device.id, name), None)
            backfill = None
            if since is not None:  # before the first live values come
                backfill = Backfill(self.session, self.outlet, self._clock, self._server_clock, group, since)
            await self._subscribe(device, group, items)
            group.ready = True
            self._poll(device, group, items)
            if backfill is not None:
                self._spawn(backfill.run(items, events=bool(device.events)))
        await self._subscribe_events(device)

    async def _root(self, device: DeviceSpec) -> Any:
        """The root, if anything needs it: a device with NodeIds alone is not held up by a root that is not there."""
        needed = any(_resolve.address_of(point).path is not None for point in device.points) or any(
            clause.notifier for clause in device.events
        )
        return await _resolve.root(self.session, device) if needed else None

    def _group(self, device: DeviceSpec, name: str) -> Group:
        key = (device.id, name)
        if key not in self._groups:
            both = device.options.get(name, GroupOptions()).mode == "both"
            self._groups[key] = Group(
                device.id, name, device.groups.get(name, 1.0),
                encoding=_resolve.rules_of(device).encoding, told={} if both else None,
            )  # fmt: skip
        return self._groups[key]

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

    def _probe_deadband(self) -> None:
        candidates = [item for item in self._items.values() if item.may_be_filtered and item.alive]
        if candidates and self._limits.deadbands is None:
            self._spawn(DeadbandProbe(self.session, self._clock, self.outlet, candidates, self._filter).run())

    async def _read_structures(self) -> None:
        """Structures that came before their types were known are read once more."""
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self._items.values():
            if item.alive and item.structured:
                by_group[item.group.device, item.group.name].append(item)
        for items in by_group.values():
            before = self._clock.now()
            rows = await self.session.read([item.node for item in items])
            points = [item.point.id for item in items]
            received = self._clock.now()
            self.outlet.put_samples(samples_of(items[0].group, points, rows, received, points), (), before, received)

    def _poll(self, device: DeviceSpec, group: Group, items: list[Item]) -> None:
        """Starts to read a group that is not, or not only, subscribed."""
        options = device.options.get(group.name, GroupOptions())
        if options.mode == "subscribe":
            return
        period = options.poll if options.mode == "both" else group.period
        poller = Poller(
            self.session, self._clock, self._server_clock, self.outlet, group, items, period,
            lambda point, status: self._gone(None, point, status), self._back, self._count,
        )  # fmt: skip
        self._spawn(poller.run())

    # -------------------------------------------------------------------------------------------------- subscribing

    async def _subscribe(self, device: DeviceSpec, group: Group, items: list[Item]) -> None:
        """Resolves and creates these items of one group; what fails is reported and comes again by `_retry`."""
        nodes = await _resolve.nodes(self.session, device, self._roots.get(device.id), [item.point for item in items])
        for item, node in zip(items, nodes, strict=True):
            item.node = node
        await self._definitions.prepare([item.node for item in items if item.structured])
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
        now = self._clock.monotonic()
        self._hold([item for item in items if item.plain and item.filtered], False)
        for item in items:
            if item.alive:
                item.made(now)  # a trouble that was told is over with the first value that is not bad
        troubled = [item for item in items if not item.alive]
        for item in troubled:
            item.postpone(self._settings, now)
        self._report([item for item in troubled if not item.reported])

    def _report(self, items: list[Item]) -> None:
        """Tells the host of points that the server refuses: a bad row each, and what is wrong."""
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in items:
            by_group[item.device.id, item.point.group].append(item)
        for (device, group), some in by_group.items():
            received = self._clock.now()
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
            self._log(f"{device}/{group}", f"device {device}: {text}")
        self._retry_wake.set()

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
            self._server_clock, self.outlet, heard=self._clock.monotonic(), previous=self._clock.now(),
            on_gone=self._gone, on_back=self._back,
        )  # fmt: skip
        group.subscriptions.append(subscription)
        self._publisher.add(subscription)
        return subscription

    async def _subscribe_events(self, device: DeviceSpec) -> None:
        for clause in device.events:
            item = EventItem(device, clause, len(self._event_items))
            self._event_items.append(item)
            await self._subscribe_event(item)

    async def _subscribe_event(self, item: EventItem) -> None:
        device = item.device
        unresolved = await _events.prepare(self.session, item, self._roots.get(device.id))
        problem = unresolved.problem if unresolved is not None else ""
        if not problem:
            key = (device.id, _EVENTS)
            if key not in self._groups:
                self._groups[key] = Group(device.id, "events", min([_EVENT_PERIOD, *device.groups.values()]))
            group = self._groups[key]
            existing = next((s for s in self._publisher.subscriptions.values() if s.group is group), None)
            subscription = existing or await self._create_subscription(group, group.period)
            (problem,) = await _monitoring.create_event_items(self.session, subscription, [item])
            if problem and not item.simple:
                item.simple = True
                await _events.prepare(self.session, item, self._roots.get(device.id))
                (problem,) = await _monitoring.create_event_items(self.session, subscription, [item])
        if problem:
            self._postpone(item.name)
            self._log(item.name, f"{item.name}: {problem}")
        else:
            self._due.pop(item.name, None)
            self._refresh(item, subscription)
            if self._logged.pop(item.name, None):
                log.info("%s: %s: subscribed again", self._settings.endpoint, item.name)

    def _refresh(self, item: EventItem, subscription: Subscription) -> None:
        """Asks for the conditions of an event clause, now and whenever the server says that it should."""
        if item.clause.kind != "alarm":
            return
        item.conditions = self.conditions.setdefault(item.name, Conditions())
        item.conditions.interrupted()
        item.conditions.ask = lambda: self._refresher.ask(subscription.id)
        item.conditions.ask()

    def _log(self, what: str, text: str) -> None:
        """A warning once, and again only when it changes, over all sessions of the adapter."""
        if self._logged.get(what) != text:
            self._logged[what] = text
            log.warning("%s: %s", self._settings.endpoint, text)

    # ------------------------------------------------------------------------------------------------- trying again

    def _postpone(self, what: str) -> None:
        pause = self._due[what][0] * 2 if what in self._due else self._settings.item_retry
        pause = min(pause, self._settings.item_retry_max)
        self._due[what] = (pause, self._clock.monotonic() + pause)
        self._retry_wake.set()

    async def _retry(self) -> None:
        """Tries refused items, missing roots and refused event clauses again, each with its own growing pause."""
        while True:
            now = self._clock.monotonic()
            await self._retry_devices(now)
            await self._retry_items(now)
            for item in self._event_items:
                if item.item_id is None and self._due.get(item.name, (0.0, math.inf))[1] <= now:
                    await self._subscribe_event(item)
            dues = [item.due for item in self._items.values()] + [due for _, due in self._due.values()]
            pause = min(dues, default=math.inf) - self._clock.monotonic()
            self._retry_wake.clear()
            try:
                async with asyncio.timeout(None if math.isinf(pause) else max(0.01, pause)):
                    await self._retry_wake.wait()
            except TimeoutError:
                pass  # something is due

    async def _retry_devices(self, now: float) -> None:
        for device in self._spec.devices:
            if device.id in self._roots or self._due.get(device.id, (0.0, math.inf))[1] > now:
                continue
            try:
                await self._root(device)
            except RootError:
                self._postpone(device.id)
                continue
            del self._due[device.id]
            self.outlet.put(DeviceState(device.id, True, self._clock.now()))
            await self._begin(device)

    async def _retry_items(self, now: float) -> None:
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self._items.values():
            if item.due <= now:
                by_group[item.device.id, item.point.group].append(item)
        for items in by_group.values():
            stale = [item for item in items if item.item_id is not None]
            await self._drop(stale)
            await self._subscribe(items[0].device, items[0].group, items)

    async def _drop(self, items: Iterable[Item]) -> None:
        """Deletes monitored items whose nodes are gone, so that they can be made anew."""
        by_subscription: dict[Subscription, list[Item]] = defaultdict(list)
        for item in items:
            if item.subscription is not None:
                by_subscription[item.subscription].append(item)
        for subscription, some in by_subscription.items():
            await _monitoring.delete_items(
                self.session, subscription, [item.item_id for item in some if item.item_id is not None]
            )
            for item in some:
                subscription.points.discard(item.point.id)
                item.item_id, item.subscription = None, None

    def _gone(self, subscription: Subscription | None, point: int, status: int) -> None:
        """A node was deleted under its item, or is refused: the server may give it a new one, which needs a new item."""
        item = self._items.get(point)
        if item is None or item.due < math.inf:
            return
        item.reported = True
        if subscription is not None:
            subscription.troubled.add(point)
        item.postpone(self._settings, self._clock.monotonic())
        info = codes.info(status)
        deleted = status & codes.CODE_MASK in DELETED
        what = Bilingual("the node was deleted on the server", "节点已在服务器上删除")
        if not deleted:
            what = Bilingual(info.text_en, info.text_zh)
        problem = Bilingual(f"{info.name}: {what}", f"{info.name}：{what.zh}")
        self.outlet.put(PointTrouble(item.device.id, point, problem))
        self._retry_wake.set()

    def _back(self, point: int) -> None:
        """A point in trouble has a value again."""
        item = self._items.get(point)
        if item is not None and item.reported:
            item.reported, item.due = False, math.inf
            self.outlet.put(PointTrouble(item.device.id, point, None))

    def _ended(self, subscription: Subscription, status: int) -> None:
        """The server has ended a subscription: make it anew, or, when that goes on, the session."""
        name = codes.info(status).name
        self._redone += 1
        self._publisher.remove(subscription)
        if subscription in subscription.group.subscriptions:
            subscription.group.subscriptions.remove(subscription)
        if self._redone > _MOST_REDONE:
            what = Bilingual(
                f"the server ended subscription {subscription.id} ({name}), again and again",
                f"服务器反复结束订阅 {subscription.id}（{name}）",
            )
            self.session.fail(lost(self._settings.endpoint, what, "subscription_lost"))
            return
        log.warning("%s: the server ended subscription %d: %s", self._settings.endpoint, subscription.id, name)
        group = subscription.group
        points = None if subscription.events else sorted(subscription.points)
        now = self._clock.now()
        hole = Lost(group.device, points, min(subscription.previous, now), now, Cause.LOST)
        hole.detail = f"the server ended the subscription: {name}"
        self.outlet.put(hole)
        self._spawn(self._redo(subscription, hole))

    async def _redo(self, subscription: Subscription, hole: Lost) -> None:
        """Makes it anew; what changes until then is lost too."""
        try:
            await self._make_anew(subscription)
        finally:
            self.outlet.put(replace(hole, start=hole.end, end=self._clock.now()))

    async def _make_anew(self, subscription: Subscription) -> None:
        for event in subscription.events.values():
            event.item_id = None
            await self._subscribe_event(event)
        items = [item for item in self._items.values() if item.subscription is subscription]
        for item in items:
            item.item_id, item.subscription, item.due = None, None, math.inf
        if items:
            await self._subscribe(items[0].device, subscription.group, items)

    # ----------------------------------------------------------------------------------------------------- watching

    async def _heartbeat(self) -> None:
        """The server's state and clock at a fixed beat; an answer that does not come is the loss of the link."""
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            await self._beat()

    async def _beat(self) -> None:
        sent = self._clock.now()
        time, state, seconds = await self.session.server_status()
        if time is not None:
            self._server_clock.measured(time, sent)
        if state == _SHUTDOWN:
            what = Bilingual(f"the server announces its shutdown in {seconds} s", f"服务器宣布将在 {seconds} 秒后停机")
            raise lost(
                self._settings.endpoint,
                what,
                "server_shutdown",
                retry_after=0.0 if self._others else max(5.0, float(seconds)),
            )
        if (state in _NOT_WORKING) != (self._state in _NOT_WORKING):
            up = state not in _NOT_WORKING
            reason = "" if up else f"server_{_NOT_WORKING[state].replace(' ', '_')}"
            en = "" if up else f"The server says of itself: {_NOT_WORKING[state]}. Look into its own diagnostics."
            zh = "" if up else "服务器自报状态异常，请查看服务器自身的诊断信息。"
            log.warning("%s: server state %d", self._settings.endpoint, state)
            for device in self._roots:  # one without a root is down anyhow
                self.outlet.put(DeviceState(device, up, self._clock.now(), reason, en, zh))
        self._state = state

    @property
    def _others(self) -> list[str]:
        """The other endpoints of redundant servers."""
        assert isinstance(self._spec.settings, LinkSettings)
        return [endpoint for endpoint in self._spec.settings.endpoints if endpoint != self._settings.endpoint]

    async def _watch_level(self) -> None:
        """Leaves a server that is not healthy for one that is better; for a single one, tells once of which others it knows."""
        others = self._others
        if not others:
            uris = await _redundancy.partners(self.session)
            if uris:
                told = f"it says that it is redundant with {', '.join(uris)}; write their endpoints beside this one to use them"
                self._log("redundancy", told)
            return
        pause = self._settings.heartbeat
        while True:
            await asyncio.sleep(pause)
            level = await _redundancy.service_level(self.session)
            if level >= _redundancy.HEALTHY:
                pause = self._settings.heartbeat
                continue
            found = await _redundancy.better(level, others, self._probe)
            if found is not None:
                what = Bilingual(
                    f"its service level is {level}, and {found} is better", f"其服务级别为 {level}，{found} 更好"
                )
                raise lost(self._settings.endpoint, what, "service_level_low", retry_after=0.0)
            pause = min(60.0, pause * 2)  # each look is a session on every other server

    def _probe(self, endpoint: str) -> Session:
        return Session(
            self._settings.at(endpoint), Limits(), lambda: self._count("requests", 1), None, identity_of(self._spec)
        )

    async def _watch_silence(self) -> None:
        """A subscription of which nothing is heard for three publishing intervals (or the keep-alive that the server granted, where that
        is longer) and the time-out is dead, whatever the session says. Before the time-out the server is asked for its state: if it does
        not answer either, it is the link that is dead, and the subscription may outlive it."""
        last = self._clock.monotonic()
        question: asyncio.Task[None] | None = None
        question_at = 0.0
        while True:
            subscriptions = list(self._publisher.subscriptions.values())
            tick = min([1.0, *(max(0.05, s.keep_alive / 2) for s in subscriptions)])
            await asyncio.sleep(tick)
            now = self._clock.monotonic()
            asleep = max(0.0, now - last - 2 * tick)
            last = now
            for subscription in subscriptions:
                subscription.heard += asleep  # the gateway itself stood still: that is no silence of the server
                silent = now - subscription.heard
                longest = max(3 * subscription.publishing, subscription.keep_alive)
                if silent > longest and (question is None or (question.done() and question_at < subscription.heard)):
                    question, question_at = self._spawn(self._beat()), now
                if silent > longest + self._settings.timeout and not subscription.repairing:
                    if question is not None and not question.done():
                        continue  # its time-out comes next
                    what = Bilingual(
                        f"nothing heard of subscription {subscription.id} for {silent:.1f} s",
                        f"订阅 {subscription.id} 已有 {silent:.1f} 秒没有消息",
                    )
                    raise lost(self._settings.endpoint, what, "subscription_silent")

    # ------------------------------------------------------------------------------------------------------ reading

    def node_of(self, point: int) -> Any:
        """The point's NodeId in this session, an `Unresolved`, or None while its device has no root."""
        item = self._items.get(point)
        return None if item is None else item.node
