"""The host of one link: connects its adapter again and again, and turns what it gives into items for the ledger."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Hashable
from dataclasses import replace

from adapters.contract import (
    Adapter,
    AdapterError,
    AuthError,
    Clock,
    ConfigError,
    Counters,
    DeviceEvent,
    DeviceState,
    Item,
    Lost,
    PointTrouble,
    Samples,
    TransientError,
)
from gateway.collect.items import DeviceStatus, Events, Gaps, Sink
from gateway.collect.normalise import Normaliser
from gateway.config.plan import PlannedDevice, PlannedLink
from gateway.supervisor import Condition, Sleep, Supervised, Trouble
from schemas.wire import Cause, Done, Event, Flag, Gap, Link, Progress, State

log = logging.getLogger("guantong.link")

TICK = 1.0
SILENT_IS_UP = 10.0
"""Seconds after which a device of a living link that has said nothing, and of which nothing was said, counts as up."""
_EVENTS = uuid.UUID("6f6c7aa1-9a2f-5d0e-8a38-3f5e5a0c6f11")
"""Namespace of event ids made from the device's own (RFC 9562, version 5)."""


class _Device:
    """What the host knows of one device."""

    def __init__(self, plan: PlannedDevice) -> None:
        self.plan = plan
        self.normaliser = Normaliser(plan)
        self.up: bool | None = None
        self.since = 0
        self.reason, self.fix_en, self.fix_zh = "", "", ""
        self.seen = 0
        """When it last proved to be alive (µs)."""
        self.done: dict[str, int] = {}
        self.moved: set[str] = set()
        self.open: dict[str, int] = {}
        """Group -> where the gap of the present or last outage began."""
        self.covered: dict[str, int] = {}
        """Group -> since when nothing of it is missed in this connection (µs): it is complete up to a time only from then on."""
        self.troubles: dict[str, str] = {}
        self.clauses = {clause.name: clause for clause in plan.events}
        self.groups = {
            group: [s.index for s in plan.signals if s.group == group] for group in {s.group for s in plan.signals}
        }


class LinkHost:
    """See the module. `run` until cancelled. `on_status` hears of each change of a device's state."""

    def __init__(
        self,
        link: PlannedLink,
        sink: Sink,
        *,
        clock: Clock,
        on_status: Callable[[DeviceStatus], None] = lambda _: None,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.link = link
        self._sink, self._clock, self._on_status = sink, clock, on_status
        self._devices = {device.id: _Device(device) for device in link.devices}
        self._by_point = {s.point: s for d in link.devices for s in d.signals}
        self._told: dict[str, DeviceStatus] = {}
        self._adapter: Adapter | None = None
        self._broken: AdapterError | None = link.broken
        self.supervised = Supervised(
            f"link {link.id}", self._once, _judge, clock=clock, sleep=sleep, chance=chance, on_change=self._changed
        )
        if link.adapter is not None:
            try:
                self._adapter = link.adapter(link.spec(clock))
            except ConfigError as error:
                self._broken = error

    # ---------------------------------------------------------------------------------------------------- for people

    def endpoint(self, device: str) -> str:
        """Where the device is, for people."""
        return self._adapter.endpoint(device) if self._adapter is not None else ""

    def counters(self) -> Counters:
        """The adapter's running totals."""
        return self._adapter.counters() if self._adapter is not None else Counters()

    def statuses(self) -> list[DeviceStatus]:
        """How each device is."""
        return [self._status(device) for device in self._devices.values()]

    def _status(self, device: _Device) -> DeviceStatus:
        link = self.supervised.condition
        name = device.plan.id
        if link.state not in ("ok", "degraded"):
            return DeviceStatus(name, link.state, link.since, link.message or link.reason, link.fix_en, link.fix_zh)
        state: State = "ok" if device.up else "starting" if device.up is None else "recovering"
        reason, troubles = device.reason, dict(device.troubles)
        if device.up and troubles:
            signal, problem = next(iter(troubles.items()))
            more = f" (+{len(troubles) - 1})" if len(troubles) > 1 else ""
            state, reason = "degraded", f"{signal}: {problem}{more}"
        return DeviceStatus(name, state, device.since, reason, device.fix_en, device.fix_zh, troubles)

    def _changed(self, _condition: Condition | None = None) -> None:
        for device in self._devices.values():
            status = self._status(device)
            before = self._told.get(status.device)
            if before is None or replace(before, since=status.since) != status:
                self._told[status.device] = status
                self._on_status(status)

    # ------------------------------------------------------------------------------------------------------ for ever

    async def run(self) -> None:
        """Until cancelled. Trouble of the link, of whatever kind, is a state and never an end."""
        await self.supervised.run()

    async def _once(self, up: Callable[[], None]) -> None:
        adapter = self._adapter
        if adapter is None:
            raise self._broken or ConfigError(f"link {self.link.id} has no adapter", reason="adapter_unknown")
        ticker: asyncio.Task[None] | None = None
        try:
            try:
                await adapter.connect()
                up()
                ticker = asyncio.create_task(self._tick(self._clock.monotonic()))
                async for item in adapter.items():
                    await self._take(adapter, item)
                    if ticker.done():
                        ticker.result()
            finally:
                if ticker is not None:
                    ticker.cancel()
                    await asyncio.gather(ticker, return_exceptions=True)
                await adapter.disconnect()
        except AdapterError as error:
            await self._all_down(error)
            raise
        except Exception:  # a plug-in may raise anything; the devices are down all the same, and the supervisor tells
            await self._all_down(None)
            raise

    async def _all_down(self, error: AdapterError | None) -> None:
        reason = error.reason if error is not None else "adapter_failed"
        fixes = (error.fix_en, error.fix_zh) if error is not None else ("", "")
        for device in self._devices.values():
            await self._down(device, device.seen or self._clock.now(), reason, *fixes)

    async def _tick(self, began: float) -> None:
        """Once a second: progress, the longest silence, devices of which nothing was said."""
        while True:
            await asyncio.sleep(TICK)
            await self._pass(began)

    async def _pass(self, began: float) -> None:
        now = self._clock.now()
        quiet = self._clock.monotonic() - began > SILENT_IS_UP
        done: list[Done] = []
        for device in self._devices.values():
            if device.up is not True:
                if device.up is None and quiet:
                    await self._up(device, now)
                continue
            for readings in device.normaliser.tick(now):
                await self._sink.put(readings)
            await self._besides(device)
            done += [Done(device.plan.id, group, device.done[group]) for group in device.moved]
            device.moved.clear()
        if done:
            await self._sink.put(Progress(now, done))

    # ----------------------------------------------------------------------------------------------------- the items

    async def _take(self, adapter: Adapter, item: Item) -> None:
        device = self._devices[item.device]
        match item:
            case Samples():
                await self._samples(adapter, device, item)
            case DeviceEvent():
                await self._event(adapter, device, item)
            case DeviceState():
                if item.up:
                    await self._up(device, item.at)
                else:
                    await self._down(device, item.at, item.reason, item.fix_en, item.fix_zh)
            case Lost():
                points = None if item.points is None else [self._by_point[p].index for p in item.points]
                gap = Gap(device.plan.id, points, item.start, item.end, item.cause, item.count, item.detail)
                await self._sink.put(Gaps([gap]), _ack(adapter, item.token))
            case PointTrouble():
                name = self._by_point[item.point].signal.name
                if item.problem is None:
                    device.troubles.pop(name, None)
                else:
                    device.troubles[name] = item.problem
                self._changed()

    async def _samples(self, adapter: Adapter, device: _Device, samples: Samples) -> None:
        if device.up is not True:
            await self._up(device, samples.received)
        device.seen = max(device.seen, samples.received)
        ack = _ack(adapter, samples.token)
        readings = device.normaliser.feed(samples) if samples.points else None
        await self._besides(device)
        if readings is not None:
            await self._sink.put(readings, ack)
        elif ack is not None:
            ack()  # nothing new in it: what it repeats is stored, or will be sent again with its own token
        covered = device.covered.setdefault(samples.group, samples.received)
        if samples.complete_to is not None and samples.complete_to >= covered:
            await self._complete(device, samples.group, samples.complete_to)

    async def _complete(self, device: _Device, group: str, complete_to: int) -> None:
        start = device.open.pop(group, None)
        if start is not None and complete_to > start:
            gap = Gap(device.plan.id, device.groups.get(group), start, complete_to, Cause.DISCONNECTED.value)
            await self._sink.put(Gaps([gap]))
        if complete_to > device.done.get(group, 0):
            device.done[group] = complete_to
            device.moved.add(group)

    async def _besides(self, device: _Device) -> None:
        events, gaps = device.normaliser.take()
        if events:
            await self._sink.put(Events(events))
        if gaps:
            await self._sink.put(Gaps(gaps))

    async def _event(self, adapter: Adapter, device: _Device, event: DeviceEvent) -> None:
        if device.up is not True:
            await self._up(device, event.received)
        device.seen = max(device.seen, event.received)
        clause = device.clauses.get(event.clause)
        own = f"{device.plan.id}:{event.event_id}"
        wire = Event(
            str(uuid.uuid5(_EVENTS, own) if event.event_id else uuid.uuid4()),
            event.source_ts if event.source_ts is not None else event.received,
            event.source_ts,
            device.plan.asset,
            device.plan.id,
            event.clause,
            clause.severity if clause is not None and clause.severity is not None else event.severity,
            event.message,
            event.message,
            {**event.fields, "event_type": event.type} if event.type else dict(event.fields),
            event.condition,
            event.state,
            (Flag.HISTORICAL if event.historical else 0) | (0 if event.source_ts is not None else Flag.NO_SOURCE_TIME),
        )
        await self._sink.put(Events([wire]), _ack(adapter, event.token))

    # ------------------------------------------------------------------------------------------------ coming and going

    async def _up(self, device: _Device, at: int) -> None:
        if device.up is True:
            return
        device.up, device.since = True, at
        device.reason, device.fix_en, device.fix_zh = "", "", ""
        device.seen = max(device.seen, at)
        device.normaliser.up()
        await self._sink.put(Link(device.plan.id, True, at))
        self._changed()

    async def _down(self, device: _Device, at: int, reason: str, fix_en: str, fix_zh: str) -> None:
        other = device.up is False and reason != device.reason
        device.reason, device.fix_en, device.fix_zh = reason, fix_en, fix_zh
        if other:  # still the same outage, seen from nearer
            await self._sink.put(Link(device.plan.id, False, at, reason))
        elif device.up is not False:
            device.up, device.since = False, at
            device.normaliser.down()
            for group, done in device.done.items():
                device.open.setdefault(group, done)
            device.covered.clear()
            device.troubles.clear()
            await self._sink.put(Link(device.plan.id, False, at, reason))
        self._changed()


def _ack(adapter: Adapter, token: Hashable | None) -> Callable[[], None] | None:
    return None if token is None else lambda: adapter.ack(token)


def _judge(error: Exception) -> Trouble:
    if isinstance(error, TransientError):
        return Trouble(error.reason, str(error), error.fix_en, error.fix_zh, after=error.retry_after)
    if isinstance(error, AuthError):
        return Trouble(error.reason, str(error), error.fix_en, error.fix_zh, retry="seldom")
    if isinstance(error, AdapterError):
        return Trouble(error.reason, str(error), error.fix_en, error.fix_zh, retry="never")
    return Trouble(
        "adapter_failed",
        f"{type(error).__name__}: {error}",
        "Report this to the adapter's author.",
        "请联系适配器作者。",
        bug=True,
    )
