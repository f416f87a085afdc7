"""One session from connect to disconnect: what is subscribed, what is watched, what is tried again."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from adapters.contract import (
    AdapterError,
    Clock,
    DeviceSpec,
    DeviceState,
    LinkSpec,
    PointTrouble,
    Recovered,
)
from adapters.opcua import _redundancy, _resolve, _resumption
from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._backfill import Backfill
from adapters.opcua._errors import EXPECTED, translate
from adapters.opcua._limits import Limits
from adapters.opcua._losses import Losses
from adapters.opcua._monitored import Monitored
from adapters.opcua._monitoring import Item
from adapters.opcua._orphans import Orphan
from adapters.opcua._outlet import Outlet
from adapters.opcua._polling import Poller
from adapters.opcua._publishing import Publisher
from adapters.opcua._resolve import RootError
from adapters.opcua._retrying import Retrying
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Session, identity_of
from adapters.opcua._subscription import Group
from adapters.opcua._watch import Watch
from adapters.opcua.settings import LinkSettings
from schemas.bilingual import Bilingual
from schemas.profile import Group as GroupOptions

log = logging.getLogger("guantong.opcua")


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
        self._clock: Clock = spec.clock
        self._count = count
        self._since = dict(since)
        self.acks = acks
        self._before = before
        self.outlet = Outlet(settings.queue, self.acks, lambda n: count("overruns", n))
        self.session = Session(settings, limits, lambda: count("requests", 1), orphan, identity_of(spec))
        self._server_clock = ServerClock()
        self._publisher = Publisher(
            self.session, self.acks, self._clock, self._spawn, lambda *ended: self._retrying.ended(*ended), count
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.monitored = Monitored(
            settings, limits, self.session, self.outlet, self._clock, self._server_clock, self._publisher, logged
        )
        self._losses = Losses(
            self.session, self.outlet, self._clock, self._server_clock, lambda: self.monitored.items, self._spawn
        )
        self.monitored.on_loss = self._losses.take
        self._retrying = Retrying(
            spec.devices, settings, self.session, self.outlet, self._clock, self.monitored, self._spawn,
            self._root, self._begin,
        )  # fmt: skip
        self.monitored.on_gone, self.monitored.on_back = self._retrying.gone, self._retrying.back
        self._watch = Watch(spec, settings, self.session, self.outlet, self.monitored, self._spawn, count)
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
            self.monitored.opened()
            await self._watch.beat()
            if least and (level := await _redundancy.service_level(self.session)) < least:
                raise _redundancy.LowServiceLevel(self._settings.endpoint, level)
            if before is not None and await self._resume(before):
                log.info("%s: %d subscriptions go on", self._settings.endpoint, len(self._publisher.subscriptions))
            else:
                self.acks.begin()
                for device in self._spec.devices:
                    await self._begin(device)
            self._spawn(self._watch_session())
            self._spawn(self._watch.heartbeat())
            self._spawn(self._watch.level())
            self._spawn(self._watch.silence())
            self._spawn(self._retrying.run())
            self._spawn(self.monitored.definitions.run(self.monitored.read_structures))
            self._spawn(self.monitored.refresher.run())
            self.monitored.probe_deadband(self._spawn)
        except BaseException:  # also when cancelled: no task and no subscription may stay behind
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
        whole = bool(self._publisher.subscriptions) and not self._retrying.unfinished
        return whole and _resumption.resumable(self.outlet.error)

    async def _resume(self, before: Link) -> bool:
        """Goes on with the subscriptions of the lost link, where the server still has all of them and nothing else has changed."""
        subscriptions = list(before._publisher.subscriptions.values())
        rootless = len(before.monitored.roots) < len(self._spec.devices)
        if self.session.namespaces != before.session.namespaces or rootless:
            await _resumption.drop(self.session, [s.id for s in subscriptions] if self.session.resumed else [])
            return False
        if not await _resumption.transfer(self.session, subscriptions):
            return False
        self.transferred = not self.session.resumed
        self.monitored.take_over(before.monitored, subscriptions)
        every = self.monitored.items
        _resumption.adopt(subscriptions, self.outlet, self._clock, initial=self.transferred)
        await self.monitored.definitions.prepare([item.node for item in every.values() if item.structured])
        self.monitored.report([item for item in every.values() if not item.alive])
        for item in every.values():
            if item.alive and item.reported:
                self.outlet.put(
                    PointTrouble(
                        item.device.id, item.point.id, Bilingual("no value since its trouble", "自出现问题以来没有新值")
                    )
                )
        by_group: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in every.values():
            by_group[item.device.id, item.point.group].append(item)
        for key, items in by_group.items():
            group, since = self.monitored.groups[key], self._since.pop(key, None)
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
            self.monitored.postpone(device.id)
            state = DeviceState(device.id, False, self._clock.now(), error.reason, error.fix_en, error.fix_zh)
            self.outlet.put(state)
            self.monitored.log(device.id, str(error))
            for name in {point.group for point in device.points}:
                since = self._since.pop((device.id, name), None)
                if since is not None:
                    self.outlet.put(Recovered(device.id, name, since, None))
            return
        self.monitored.roots[device.id] = root
        by_group: dict[str, list[Item]] = defaultdict(list)
        for point in device.points:
            group = self.monitored.group(device, point.group)
            mode = device.options.get(point.group, GroupOptions()).mode
            item = self.monitored.items[point.id] = Item(device, point, group, read_only=mode == "poll")
            by_group[point.group].append(item)
        for name, items in by_group.items():
            group = self.monitored.group(device, name)
            since = self._since.pop((device.id, name), None)
            backfill = None
            if since is not None:  # before the first live values come
                backfill = Backfill(self.session, self.outlet, self._clock, self._server_clock, group, since)
            await self.monitored.subscribe(device, group, items)
            group.ready = True
            self._poll(device, group, items)
            if backfill is not None:
                self._spawn(backfill.run(items, events=bool(device.events)))
        await self.monitored.subscribe_events(device)

    async def _root(self, device: DeviceSpec) -> Any:
        """The root, if anything needs it: a device with NodeIds alone is not held up by a root that is not there."""
        needed = any(_resolve.address_of(point).path is not None for point in device.points) or any(
            clause.notifier for clause in device.events
        )
        return await _resolve.root(self.session, device) if needed else None

    def _poll(self, device: DeviceSpec, group: Group, items: list[Item]) -> None:
        """Starts to read a group that is not, or not only, subscribed."""
        options = device.options.get(group.name, GroupOptions())
        if options.mode == "subscribe":
            return
        period = options.poll if options.mode == "both" else group.period
        poller = Poller(
            self.session, self._clock, self._server_clock, self.outlet, group, items, period,
            lambda point, status: self._retrying.gone(None, point, status), self._retrying.back, self._count,
        )  # fmt: skip
        self._spawn(poller.run())

    def node_of(self, point: int) -> Any:
        """The point's NodeId in this session, an `Unresolved`, or None while its device has no root."""
        item = self.monitored.items.get(point)
        return None if item is None else item.node
