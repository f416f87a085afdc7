"""What is tried again: refused items, missing roots, refused event clauses, nodes that were deleted, subscriptions that the server ended."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from adapters.contract import Clock, DeviceSpec, DeviceState, Interrupted, Lost, PointTrouble
from adapters.opcua import _monitoring
from adapters.opcua._errors import lost
from adapters.opcua._monitored import Monitored, Spawn
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._resolve import RootError
from adapters.opcua._session import Session
from adapters.opcua._subscription import DELETED, Subscription
from adapters.opcua.settings import LinkSettings
from schemas import status as codes
from schemas.bilingual import Bilingual
from schemas.wire import Cause

log = logging.getLogger("guantong.opcua")

_MOST_REDONE: Final = 5
"""How often a subscription that the server ended is made anew before the whole session is."""


class Retrying:
    """Each trouble has its own growing pause, and none waits for another."""

    def __init__(
        self,
        devices: Sequence[DeviceSpec],
        settings: LinkSettings,
        session: Session,
        outlet: Outlet,
        clock: Clock,
        monitored: Monitored,
        spawn: Spawn,
        root: Callable[[DeviceSpec], Awaitable[Any]],
        begin: Callable[[DeviceSpec], Awaitable[None]],
    ) -> None:
        """`root` resolves a device's root or raises RootError; `begin` subscribes a device."""
        self._devices = devices
        self._settings = settings
        self._session = session
        self._outlet = outlet
        self._clock = clock
        self._monitored = monitored
        self._spawn = spawn
        self._root = root
        self._begin = begin
        self.unfinished = 0
        """Subscriptions that the server ended and that are not made anew: on another link everything is."""

    async def run(self) -> None:
        """Tries refused items, missing roots and refused event clauses again, each with its own growing pause."""
        while True:
            now = self._clock.monotonic()
            await self._retry_devices(now)
            await self._retry_items(now)
            for item in self._monitored.event_items:
                if self._monitored.due.get(item.name, (0.0, math.inf))[1] <= now:
                    await self._monitored.subscribe_event(item)
            dues = [item.due for item in self._monitored.items.values()] + [
                due for _, due in self._monitored.due.values()
            ]
            pause = min(dues, default=math.inf) - self._clock.monotonic()
            self._monitored.wake.clear()
            try:
                async with asyncio.timeout(None if math.isinf(pause) else max(0.01, pause)):
                    await self._monitored.wake.wait()
            except TimeoutError:
                pass  # something is due

    async def _retry_devices(self, now: float) -> None:
        for device in self._devices:
            if device.id in self._monitored.roots or self._monitored.due.get(device.id, (0.0, math.inf))[1] > now:
                continue
            try:
                await self._root(device)
            except RootError:
                self._monitored.postpone(device.id)
                continue
            del self._monitored.due[device.id]
            self._outlet.put(DeviceState(device.id, True, self._clock.now()))
            await self._begin(device)

    async def _retry_items(self, now: float) -> None:
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self._monitored.items.values():
            if item.due <= now:
                by_group[item.device.id, item.point.group].append(item)
        for items in by_group.values():
            stale = [item for item in items if item.item_id is not None]
            await self._drop(stale)
            await self._monitored.subscribe(items[0].device, items[0].group, items)

    async def _drop(self, items: Iterable[Item]) -> None:
        """Deletes monitored items whose nodes are gone, so that they can be made anew."""
        by_subscription: dict[Subscription, list[Item]] = defaultdict(list)
        for item in items:
            if item.subscription is not None:
                by_subscription[item.subscription].append(item)
        for subscription, some in by_subscription.items():
            await _monitoring.delete_items(
                self._session, subscription, [item.item_id for item in some if item.item_id is not None]
            )
            for item in some:
                subscription.points.discard(item.point.id)
                item.item_id, item.subscription = None, None

    def gone(self, subscription: Subscription | None, point: int, status: int) -> None:
        """A node was deleted under its item, or is refused: the server may give it a new one, which needs a new item."""
        item = self._monitored.items.get(point)
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
        self._outlet.put(PointTrouble(item.device.id, point, problem))
        self._monitored.wake.set()

    def back(self, point: int) -> None:
        """A point in trouble has a value again."""
        item = self._monitored.items.get(point)
        if item is not None and item.reported:
            item.reported, item.due = False, math.inf
            self._outlet.put(PointTrouble(item.device.id, point, None))

    def ended(self, subscription: Subscription, status: int) -> None:
        """The server has ended a subscription: make it anew, or, when that goes on, the session."""
        name = codes.info(status).name
        self._monitored.redone += 1
        self._monitored.publisher.remove(subscription)
        if subscription in subscription.group.subscriptions:
            subscription.group.subscriptions.remove(subscription)
        group = subscription.group
        points = sorted(subscription.points)
        now = self._clock.now()
        hole = Lost(group.device, points, min(subscription.previous, now), now, Cause.LOST)
        hole.detail = f"the server ended the subscription: {name}"
        if self._monitored.redone > _MOST_REDONE:
            what = Bilingual(
                f"the server ended subscription {subscription.id} ({name}), again and again",
                f"服务器反复结束订阅 {subscription.id}（{name}）",
            )
            if not subscription.events:  # until the link is down, the others must not say that the group is complete
                group.growing += 1
                group.holes.append(hole)
            self._session.fail(lost(self._settings.endpoint, what, "subscription_lost"))
            return
        log.warning("%s: the server ended subscription %d: %s", self._settings.endpoint, subscription.id, name)
        self.unfinished += 1
        if subscription.events:
            hole.points = None
            self._outlet.put(hole)
            self._spawn(self._redo_events(subscription, hole))
        else:
            group.growing += 1
            group.holes.append(hole)
            self._outlet.put(Interrupted(group.device, group.name, points))
            self._spawn(self._redo(subscription, hole))

    async def _redo_events(self, subscription: Subscription, hole: Lost) -> None:
        """Makes it anew; what happens until then is lost too."""
        try:
            await self._make_anew(subscription)
            self.unfinished -= 1
        finally:
            self._outlet.put(replace(hole, start=hole.end, end=self._clock.now()))

    async def _redo(self, subscription: Subscription, hole: Lost) -> None:
        """Makes it anew; what changes until then is part of the loss. Where that fails the link does, and its outage goes on from there:
        the group was told to be complete up to the begin of the loss."""
        group = subscription.group
        await self._make_anew(subscription)
        self.unfinished -= 1
        hole.end = self._clock.now()
        group.growing -= 1
        group.on_loss(group, hole)

    async def _make_anew(self, subscription: Subscription) -> None:
        for event in subscription.events.values():
            event.item_id = None
            await self._monitored.subscribe_event(event)
        items = [item for item in self._monitored.items.values() if item.subscription is subscription]
        for item in items:
            item.item_id, item.subscription, item.due = None, None, math.inf
        if items:
            await self._monitored.subscribe(items[0].device, subscription.group, items)
