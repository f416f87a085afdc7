"""The host of one link: connects its adapter again and again, and turns what it gives into items for the ledger."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from adapters.contract import (
    Adapter,
    AdapterError,
    AuthError,
    Clock,
    ConfigError,
    Counters,
    DeadbandHeld,
    DeviceEvent,
    DeviceState,
    EventTrouble,
    Identity,
    Interrupted,
    Item,
    LinkTrouble,
    Lost,
    Missed,
    PointTrouble,
    Recovered,
    Refilled,
    Resumable,
    Samples,
    TransientError,
)
from adapters.frames import Framed, FrameLog
from gateway.collect import items
from gateway.collect._device_events import wire_event
from gateway.collect.clock import AHEAD
from gateway.collect.items import DeviceStatus, Events, Gaps, Sink
from gateway.collect.normalise import Normaliser
from gateway.config.plan import PlannedDevice, PlannedLink
from gateway.supervisor import Condition, Sleep, Supervised, Trouble
from schemas.bilingual import Bilingual, chinese, of_error
from schemas.wire import Cause, Done, Flag, Gap, Link, Progress, State

log = logging.getLogger("guantong.link")

TICK = 1.0
SILENT_IS_UP = 10.0
"""Seconds after which a device of a living link that has said nothing, and of which nothing was said, counts as up."""
CONNECT_WITHIN = 60.0
DISCONNECT_WITHIN = 3.0
"""Seconds: the contract allows two; a plug-in that takes longer is left behind."""
EVENT = "event "
"""Before the name of an event among what is in trouble of a device; no signal's name has a space in it."""
LINK = "the link"
"""Among the same: what is of the link."""
_NO_FIX = ("", "")
_FIX_EN, _FIX_ZH = "Report this to the adapter's author, with the log.", "请将日志反馈给适配器作者。"


RECONFIGURED = "reconfigured"
"""Why a device is down between the end of its link's host and the first answer to the next: its configuration was changed."""


@dataclass(frozen=True, slots=True)
class Left:
    """A device of a host that has ended: what it was, and for each group up to when it was complete (µs)."""

    plan: PlannedDevice
    complete_to: Mapping[str, int]


class SinkError(Exception):
    """The sink failed: no trouble of the link, and the end of its host."""


class _Device:
    """What the host knows of one device."""

    def __init__(self, plan: PlannedDevice) -> None:
        self.plan = plan
        self.normaliser = Normaliser(plan)
        self.up: bool | None = None
        self.declared = False
        """True while the adapter has said on this connection that the device is gone: then only its word brings it back."""
        self.since = 0
        self.reason, self.fix_en, self.fix_zh = "", "", ""
        self.seen = 0
        """When it last proved to be alive (µs)."""
        self.done: dict[str, int] = {}
        self.moved: set[str] = set()
        self.back_to: dict[str, int] = {}
        """Group -> from when on (µs) what was missed has been fetched, until it is told with its progress."""
        self.open: dict[str, int] = {}
        """Group -> where the gap of the present or last outage began."""
        self.newest: dict[str, int] = {}
        """Group -> the newest time (µs) of a live value since that outage. None that was lost in it is newer: a clock may be ahead of ours, and be
        believed."""
        self.covered: dict[str, int] = {}
        """Group -> since when nothing of it is missed in this connection (µs): it is complete up to a time only from then on."""
        self.before: dict[str, int] = {}
        """Group -> up to when (µs) it was complete before this process began, while it has not been complete since."""
        self.asked: dict[str, int | None] = {}
        """Groups whose outage the adapter is filling on this connection, each with the latest time (µs) up to which it is complete:
        told when the adapter has answered."""
        self.refilling: set[str] = set()
        """Groups that have lost something on this connection for which the adapter looks in the device's history."""
        self.left_out: set[str] = set()
        """Groups of which rows of a history came that were not taken, so that nothing counts as filled by it."""
        self.troubles: dict[str, str] = {}
        self.fixes: dict[str, tuple[str, str]] = {}
        """What can be done about those of `troubles` that say so."""
        self.clauses = {clause.name: clause for clause in plan.events}
        self.groups: dict[str, list[int] | None] = {
            group: [s.index for s in plan.signals if s.group == group] for group in {s.group for s in plan.signals}
        }
        if len(self.groups) == 1:
            self.groups = dict.fromkeys(self.groups)  # no list of points: all of the device

    def set_back(self, now: int, step: int) -> None:
        """The clock was set back by -`step` (µs), to `now`: what it had said and lies ahead of now was by the old clock. Were it kept, nothing would
        be told as complete until then, and an outage would have no gap."""

        def by_the_new_clock(at: int) -> int:
            return at + step if at > now else at

        for times in (self.done, self.open, self.newest, self.covered, self.before, self.back_to):
            times.update({group: by_the_new_clock(at) for group, at in times.items()})
        self.asked.update({group: None if at is None else by_the_new_clock(at) for group, at in self.asked.items()})
        self.seen, self.since = by_the_new_clock(self.seen), by_the_new_clock(self.since)


class LinkHost:
    """See the module. `run` until cancelled. `on_status` hears of each change of a device's state, `on_identity` what a device says
    of itself, with the present time (µs)."""

    def __init__(
        self,
        link: PlannedLink,
        sink: Sink,
        *,
        clock: Clock,
        on_status: Callable[[DeviceStatus], None] = lambda _: None,
        on_identity: Callable[[str, Mapping[str, str], int], None] = lambda _device, _told, _at: None,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.link = link
        self._sink, self._clock, self._on_status, self._sleep = sink, clock, on_status, sleep
        self._on_identity = on_identity
        self._dirty = False
        self._set_back = 0
        """By how much (µs, negative) our clock was set back last; 0 if never."""
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
            except Exception as error:  # a third party's constructor may raise anything, and costs its own link only
                log.exception("link %s: the adapter cannot be made", link.id)
                self._broken = ConfigError(_unexpected(error), reason="adapter_failed", fix_en=_FIX_EN, fix_zh=_FIX_ZH)

    # ---------------------------------------------------------------------------------------------------- for people

    def endpoint(self, device: str) -> str:
        """Where the device is, for people."""
        try:
            return self._adapter.endpoint(device) if self._adapter is not None else ""
        except Exception:  # only for people: a plug-in that fails at it may still read well
            log.exception("link %s: no endpoint of %s", self.link.id, device)
            return ""

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
        reason, troubles = device.reason, device.troubles
        if device.up and troubles:
            what, problem = next(iter(troubles.items()))
            more = f" (+{len(troubles) - 1})" if len(troubles) > 1 else ""
            state = "degraded"
            named = _named(what)
            reason = Bilingual(f"{named}: {problem}{more}", f"{chinese(named)}：{chinese(problem)}{more}")
            return DeviceStatus(name, state, device.since, reason, *device.fixes.get(what, _NO_FIX), _lines(device))
        return DeviceStatus(name, state, device.since, reason, device.fix_en, device.fix_zh, _lines(device))

    def clock_stepped(self, step: int) -> None:
        """The gateway's own clock was set by `step` (µs, negative: back): what was observed of the devices' clocks against it says nothing any
        more, and times that the old clock gave and that are to come yet are not waited for."""
        now = self._clock.now()
        for device in self._devices.values():
            device.normaliser.clock.restart()
            if step < 0:
                device.set_back(now, step)
        if step < 0:
            self._set_back = step

    def _by_our_clock(self, at: int) -> int:
        """A time of our clock (µs) that an item brings. One ahead of now was taken before the clock was set back, while the item was on its way:
        kept, it would stop the progress of its group until then."""
        return at + self._set_back if self._set_back and at > self._clock.now() else at

    @property
    def device_ids(self) -> Collection[str]:
        """The devices of the link."""
        return self._devices.keys()

    @property
    def frames(self) -> FrameLog | None:
        """The last frames of the link, where its adapter keeps them."""
        return self._adapter.frames if isinstance(self._adapter, Framed) else None

    @property
    def connected(self) -> Adapter | None:
        """The adapter, while its link is up: for a reading beside the schedule."""
        return self._adapter if self.supervised.condition.state in ("ok", "degraded") else None

    @property
    def unsynced(self) -> bool:
        """What `flag_unsynced` was told last."""
        return any(device.normaliser.unsynced for device in self._devices.values())

    def flag_unsynced(self, unsynced: bool) -> None:
        """Whether the gateway's own clock is not synchronised: what it stamps from now on is flagged."""
        for device in self._devices.values():
            device.normaliser.unsynced = unsynced

    def _changed(self, _condition: Condition | None = None) -> None:
        self._dirty = False
        for device in self._devices.values():
            status = self._status(device)
            before = self._told.get(status.device)
            if before is None or replace(before, since=status.since) != status:
                self._told[status.device] = status
                self._on_status(status)

    # ------------------------------------------------------------------------------------------------------ for ever

    async def run(self) -> None:
        """Until cancelled; the adapter is then disconnected, and gaps that were still growing are told.

        Trouble of the link, of whatever kind, is a state and never an end; only the sink's failure is raised, as SinkError.
        """
        try:
            await self.supervised.run()
        finally:
            for device in self._devices.values():
                device.normaliser.flush()
                await self._besides(device)

    def resume_after_restart(self, complete_to: Mapping[str, Mapping[str, int]]) -> None:
        """To be called before `run`, when the gateway begins: device -> group -> up to when (µs) the last process had everything. What
        was missed since is asked of an adapter that can fetch it; the gap itself is the store's, by the new stream."""
        for name, device in self._devices.items():
            found = complete_to.get(name, {})
            device.before = {group: found[group] for group in device.groups if group in found}
            if device.before:
                device.normaliser.history_from_nothing()

    async def leave(self) -> dict[str, Left]:
        """To be called after `run` has ended, where another host takes the devices over: each is told to be down, and how far it
        was complete is given back, by device."""
        left: dict[str, Left] = {}
        for name, device in self._devices.items():
            if device.up:
                await self._down(device, device.seen or self._clock.now(), RECONFIGURED, "", "")
            left[name] = Left(device.plan, dict(device.open))
        return left

    def resume(self, left: Mapping[str, Left]) -> None:
        """To be called before `run`: the outage of devices that another host has left ends here, with its gap."""
        for name, device in self._devices.items():
            before = left.get(name)
            if before is None or not before.complete_to:
                continue
            known = {s.signal.name for s in before.plan.signals}
            for group in device.groups:
                start = before.complete_to.get(group)
                if start is None and any(s.group == group and s.signal.name in known for s in device.plan.signals):
                    start = min(before.complete_to.values())  # its signals were in other groups
                if start is not None:
                    device.open[group] = start

    async def _once(self, up: Callable[[], None]) -> None:
        adapter = self._adapter
        if adapter is None:
            raise self._broken or ConfigError(
                Bilingual(f"link {self.link.id} has no adapter", f"链路 {self.link.id} 没有适配器"),
                reason="adapter_unknown",
            )
        for device in self._devices.values():
            device.declared = False
        self._ask(adapter)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._connect(adapter)
            up()
            tasks = [
                asyncio.create_task(self._read(adapter)),
                asyncio.create_task(self._tick(self._clock.monotonic())),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise TransientError(Bilingual("the link ended without a reason", "链路无故结束"), reason="link_ended")
        except asyncio.CancelledError:
            self.supervised.stopping()
            await self._disconnect(adapter, tasks)
            raise
        except (
            Exception
        ) as error:  # a plug-in may raise anything; the devices are down all the same, and the supervisor tells
            await self._disconnect(adapter, tasks)
            if not isinstance(error, SinkError):
                await self._all_down(error if isinstance(error, AdapterError) else None)
            raise

    def _ask(self, adapter: Adapter) -> None:
        """Tells the adapter what it may fetch on the connection that is about to be made."""
        if not isinstance(adapter, Resumable):
            return
        since: dict[tuple[str, str], int] = {}
        for name, device in self._devices.items():
            device.asked = dict.fromkeys({**device.before, **device.open})
            since |= {(name, group): min(_known(device, group)) for group in device.asked}
        adapter.resume(since)

    async def _connect(self, adapter: Adapter) -> None:
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await adapter.connect()
        except TimeoutError:
            raise TransientError(
                Bilingual(f"no connection within {CONNECT_WITHIN:g} s", f"{CONNECT_WITHIN:g} 秒内未能连接"),
                reason="connect_timeout",
            ) from None

    async def _read(self, adapter: Adapter) -> None:
        iterator = adapter.items()
        try:
            async for item in iterator:
                await self._take(adapter, item)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def _disconnect(self, adapter: Adapter, tasks: list[asyncio.Task[None]]) -> None:
        """Ends the tasks and the connection, whatever the adapter does meanwhile."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(DISCONNECT_WITHIN):
                await adapter.disconnect()
        except TimeoutError:
            log.warning("link %s: the adapter did not disconnect within %g s", self.link.id, DISCONNECT_WITHIN)
        except Exception:  # the link is given up in any case, and why it was lost matters more
            log.debug("link %s: disconnect", self.link.id, exc_info=True)

    async def _put(self, item: items.Item, on_durable: Callable[[], None] | None = None) -> None:
        try:
            await self._sink.put(item, on_durable)
        except Exception as error:  # whatever it is, it is not the link's
            raise SinkError(f"{type(error).__name__}: {error}") from error

    async def _all_down(self, error: AdapterError | None) -> None:
        reason = error.reason if error is not None else "adapter_failed"
        fixes = (error.fix_en, error.fix_zh) if error is not None else ("", "")
        for device in self._devices.values():
            await self._down(device, device.seen or self._clock.now(), reason, *fixes)

    async def _tick(self, began: float) -> None:
        """Once a second: progress, the longest silence, devices of which nothing was said."""
        while True:
            await self._sleep(TICK)
            await self._pass(began)

    async def _pass(self, began: float) -> None:
        if self._dirty:
            self._changed()
        now = self._clock.now()
        quiet = self._clock.monotonic() - began > SILENT_IS_UP
        done: list[Done] = []
        for device in self._devices.values():
            if device.up is not True:
                if quiet and not device.declared:
                    await self._up(device, now)
                continue
            for name, problem in device.normaliser.misfits().items():
                if problem is not None or device.troubles.get(name, "").startswith("BadTypeMismatch"):
                    self._trouble(device, name, problem)
            for readings in device.normaliser.tick(now):
                await self._put(readings)
            await self._besides(device)
            done += [Done(device.plan.id, g, device.done[g], device.back_to.pop(g, None)) for g in device.moved]
            device.moved.clear()
        if done:
            await self._put(Progress(now, done))

    # ----------------------------------------------------------------------------------------------------- the items

    async def _take(self, adapter: Adapter, item: Item) -> None:
        device = self._devices[item.device]
        match item:
            case Samples():
                received = self._by_our_clock(item.received)
                if received != item.received:
                    complete_to = None if item.complete_to is None else self._by_our_clock(item.complete_to)
                    item = replace(item, received=received, complete_to=complete_to)
                await self._samples(adapter, device, item)
            case DeviceEvent():
                await self._event(adapter, device, item)
            case DeviceState():
                device.declared = not item.up
                if item.up:
                    await self._up(device, self._by_our_clock(item.at))
                else:
                    await self._down(device, self._by_our_clock(item.at), item.reason, item.fix_en, item.fix_zh)
            case Lost():
                await self._put(Gaps([self._lost(item)]), _ack(adapter, item.token))
            case Interrupted():
                device.refilling.add(item.group)
                device.normaliser.interrupted(item.points)
            case Refilled():
                device.refilling.discard(item.group)
                lost = item.lost if self._unfit(device, item.group) else item.rest
                if lost:
                    await self._put(Gaps([self._lost(each) for each in lost]))
            case Recovered():
                await self._recovered(device, item)
            case PointTrouble():
                name = self._by_point[item.point].signal.name
                self._trouble(device, name, item.problem)
            case EventTrouble():
                name = EVENT + item.clause
                device.fixes[name] = (item.fix_en, item.fix_zh)
                self._trouble(device, name, item.problem)
            case LinkTrouble():
                device.fixes[LINK] = (item.fix_en, item.fix_zh)
                self._trouble(device, LINK, item.problem)
            case Identity():
                self._on_identity(device.plan.id, item.told, self._clock.now())
            case DeadbandHeld():
                device.normaliser.deadbands(item.points, item.held)

    def _trouble(self, device: _Device, signal: str, problem: str | None) -> None:
        if device.troubles.get(signal) == problem:
            return
        if problem is None:
            del device.troubles[signal]
        else:
            device.troubles[signal] = problem
        self._dirty = True  # told with the next tick: a thousand wrong addresses are one change

    async def _samples(self, adapter: Adapter, device: _Device, samples: Samples) -> None:
        if _alive(samples):
            if device.up is not True and not device.declared:
                await self._up(device, samples.received)
            device.seen = max(device.seen, samples.received)
        ack = _ack(adapter, samples.token)
        fetched = samples.flags and samples.flags[0] & Flag.HISTORICAL
        if fetched and device.normaliser.clock.clock == "gateway":
            readings = None  # they would not lie where live values do; the gap stays
            if samples.group in device.asked or samples.group in device.refilling:
                device.left_out.add(samples.group)
        else:
            readings = device.normaliser.feed(samples) if samples.points else None
        await self._besides(device)
        if readings is not None:
            await self._put(readings, ack)
        elif ack is not None:
            ack()  # nothing new in it: what it repeats is stored, or will be sent again with its own token
        if samples.group in device.open and not fetched:
            device.newest[samples.group] = max(device.newest.get(samples.group, 0), _newest(device, samples))
        covered = device.covered.setdefault(samples.group, samples.received)
        if samples.complete_to is not None and samples.complete_to >= covered:
            await self._complete(device, samples.group, samples.complete_to)

    async def _complete(self, device: _Device, group: str, complete_to: int) -> None:
        if group in device.asked:
            device.asked[group] = max(complete_to, device.asked[group] or complete_to)
            return
        start, newest = device.open.pop(group, None), device.newest.pop(group, 0)
        if start is not None and complete_to > start:
            end = max(complete_to, newest)
            gap = Gap(device.plan.id, device.groups.get(group), start, end, Cause.DISCONNECTED.value)
            await self._put(Gaps([gap]))
        device.before.pop(group, None)
        self._progressed(device, group, complete_to)

    async def _recovered(self, device: _Device, item: Recovered) -> None:
        """The outage of a group is filled, as far as it can be: what is left of it is its gap. Only now the group is complete again."""
        group = item.group
        if group not in device.asked:
            return
        held = device.asked.pop(group)
        missed = item.missed
        if self._unfit(device, group) and item.timed:
            missed = None
        if missed is not None:
            began, restarted = min(_known(device, group)), group in device.before
            cause = Cause.COLLECTOR_DOWN if restarted and group not in device.open else Cause.DISCONNECTED
            device.open.pop(group, None)
            device.newest.pop(group, None)
            device.before.pop(group, None)
            gaps = [
                self._gap(device, group, part, began, cause) for part in missed if part.end > max(part.start, began)
            ]
            if gaps:
                await self._put(Gaps(gaps))
            device.normaliser.history_ended(group)
            self._progressed(device, group, self._by_our_clock(item.end))
            if restarted:
                device.back_to[group] = began
        if held is not None:
            await self._complete(device, group, held)

    @staticmethod
    def _unfit(device: _Device, group: str) -> bool:
        """Whether what was fetched of a history cannot fill anything: live values have the gateway's time, history has the device's, so
        that it does not lie where the loss was."""
        left_out = group in device.left_out
        device.left_out.discard(group)
        return left_out or device.normaliser.clock.clock == "gateway"

    def _lost(self, lost: Lost) -> Gap:
        points = None if lost.points is None else [self._by_point[p].index for p in lost.points]
        start = min(self._by_our_clock(lost.start), lost.end)  # as in _down
        return Gap(lost.device, points, start, lost.end, lost.cause, lost.count, lost.detail)

    def _gap(self, device: _Device, group: str, part: Missed, began: int, cause: Cause) -> Gap:
        points = device.groups.get(group) if part.points is None else [self._by_point[p].index for p in part.points]
        return Gap(device.plan.id, points, max(part.start, began), part.end, cause.value, None, part.detail)

    def _progressed(self, device: _Device, group: str, complete_to: int) -> None:
        if complete_to > device.done.get(group, 0):
            device.done[group] = complete_to
            device.moved.add(group)

    async def _besides(self, device: _Device) -> None:
        events, gaps = device.normaliser.take()
        if events:
            await self._put(Events(events))
        if gaps:
            await self._put(Gaps(gaps))

    async def _event(self, adapter: Adapter, device: _Device, event: DeviceEvent) -> None:
        if device.up is not True and not device.declared:
            await self._up(device, self._by_our_clock(event.received))
        device.seen = max(device.seen, self._by_our_clock(event.received))
        clause = device.clauses.get(event.clause)
        stored = wire_event(device.plan, clause, event, device.normaliser, lambda: str(uuid.uuid4()))
        await self._put(Events([stored]), _ack(adapter, event.token))

    # ------------------------------------------------------------------------------------------------ coming and going

    async def _up(self, device: _Device, at: int) -> None:
        if device.up is True:
            return
        device.up, device.since = True, at
        device.reason, device.fix_en, device.fix_zh = "", "", ""
        device.seen = max(device.seen, at)
        device.normaliser.up()
        await self._put(Link(device.plan.id, True, at))
        self._changed()

    async def _down(self, device: _Device, at: int, reason: str, fix_en: str, fix_zh: str) -> None:
        at = min(at, self._clock.now())  # what an adapter remembers may be by a clock that was set back since
        other = device.up is False and reason != device.reason
        device.reason, device.fix_en, device.fix_zh = reason, fix_en, fix_zh
        if other:  # still the same outage, seen from nearer
            await self._put(Link(device.plan.id, False, at, reason))
        elif device.up is not False:
            device.up, device.since = False, at
            device.normaliser.down()
            for group, done in device.done.items():
                device.open.setdefault(group, done)
            device.covered.clear()
            device.asked.clear()
            device.refilling.clear()
            device.left_out.clear()
            device.troubles.clear()
            await self._put(Link(device.plan.id, False, at, reason))
        self._changed()


def _named(what: str) -> str:
    """A signal's name, an event's, or the link."""
    if what == LINK:
        return Bilingual(LINK, "链路")
    if what.startswith(EVENT):
        name = what.removeprefix(EVENT)
        return Bilingual(f"event {name}", f"事件 {name}")
    return what


def _lines(device: _Device) -> dict[str, str]:
    """What is in trouble -> what is wrong with it, and what can be done."""
    lines = {}
    for what, problem in device.troubles.items():
        en, zh = device.fixes.get(what, _NO_FIX)
        end_en, end_zh = problem.removesuffix("."), chinese(problem).removesuffix("。")
        lines[what] = Bilingual(f"{end_en}. {en}", f"{end_zh}。{zh}") if en else problem
    return lines


def _known(device: _Device, group: str) -> list[int]:
    """Up to when a group was complete before its outage: in this process, in the one before, or both."""
    return [known[group] for known in (device.open, device.before) if group in known]


def _newest(device: _Device, samples: Samples) -> int:
    """The newest source time of samples (µs), as far as it is believed; 0 without one."""
    clock = device.normaliser.clock
    if samples.source_ts is None or clock.clock == "gateway":
        return 0
    times = [ts - clock.shift for ts in samples.source_ts if ts is not None]
    return max((ts for ts in times if ts <= samples.received + AHEAD), default=0)


def _ack(adapter: Adapter, token: Hashable | None) -> Callable[[], None] | None:
    return None if token is None else lambda: adapter.ack(token)


def _alive(samples: Samples) -> bool:
    """Whether samples prove that the device lives: they are complete up to some time, or one of them is not bad."""
    if samples.complete_to is not None:
        return True
    return bool(samples.points) and (
        samples.status is None or any(not status & 0x80000000 for status in samples.status)
    )


def _judge(error: Exception) -> Trouble | None:
    if isinstance(error, SinkError):
        return None
    if isinstance(error, TransientError):
        return Trouble(error.reason, of_error(error), error.fix_en, error.fix_zh, after=error.retry_after)
    if isinstance(error, AuthError):
        return Trouble(error.reason, of_error(error), error.fix_en, error.fix_zh, retry="seldom", cured=error.cured)
    if isinstance(error, AdapterError):
        return Trouble(error.reason, of_error(error), error.fix_en, error.fix_zh, retry="never")
    return Trouble("adapter_failed", _unexpected(error), _FIX_EN, _FIX_ZH, bug=True)


def _unexpected(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    return Bilingual(what, f"适配器出错（{what}）")
