"""The role `collect`: every link of the plan, the outbox, and the way to the bus."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from adapters.contract import SystemClock
from gateway.apply.receiver import Receiver
from gateway.bus import broker
from gateway.bus.client import Bus, Will
from gateway.bus.topics import Topics
from gateway.collect.births import births_of, dump_known, known_of, load_known, retired
from gateway.collect.budget import affordable, log_limit
from gateway.collect.courtesy import Courtesy, will
from gateway.collect.damage import Damage
from gateway.collect.forwarder import Forwarder
from gateway.collect.identities import IDENTITIES, Identities, changed, described
from gateway.collect.items import DeviceStatus, Events, Gaps, Item, Readings
from gateway.collect.link import Left, LinkHost
from gateway.collect.metrics import Measured
from gateway.collect.points import PointBook
from gateway.collect.recorder import Recorder
from gateway.collect.standstill import Standstill
from gateway.config.models import Config
from gateway.config.plan import Plan, PlannedDevice, PlannedLink
from gateway.config.resolve import resolve
from gateway.ledger.opening import open_or_salvage
from gateway.ledger.outbox import Outbox, OutboxError, OutboxFullError
from gateway.ledger.salvage import Salvaged
from gateway.ledger.sender import WINDOW_BYTES, Sender
from gateway.platform import FileLock, LockedError
from gateway.tasks import together
from schemas.documents import DocumentError
from schemas.model import Text
from schemas.wire import Birth, Event

log = logging.getLogger("guantong.collect")

_HEARTBEAT = 1.0
_STEP = 0.5
"""Seconds by which the system clock must be ahead of or behind ours for a step; less is a slew."""


class Collect:
    """See the module. Holds the lock on its outbox from the constructor on."""

    def __init__(self, config: Config, plan: Plan, bus: Bus, outbox: Outbox, salvaged: Salvaged | None = None) -> None:
        self.config = config
        self.points = PointBook()
        self.identities = Identities()
        self.plan = plan = self.points.number(plan)
        self.clock = SystemClock()
        self.bus = bus
        self.outbox = outbox
        topics = Topics(config.bus.root)
        self.thread = ThreadPoolExecutor(1, "outbox")
        self.sender = Sender(
            outbox, plan.gateway.id,
            window_bytes=broker.WINDOW if config.bus.embedded else WINDOW_BYTES, by_broker=config.bus.confirm == "broker",
        )  # fmt: skip
        self.forwarder = Forwarder(
            bus, topics, plan.gateway.id, self.sender, self.thread, keep_confirmed=config.outbox.keep_confirmed
        )
        self.recorder = Recorder(
            outbox, self.thread,
            budget=affordable(config.outbox.budget, outbox.path.parent), policy=config.outbox.policy,
            now_us=self.clock.now, woken=self.forwarder.wake,
        )  # fmt: skip
        self._damage = Damage(salvaged, outbox.path)
        self.recorder.notice = self._damage.notice()
        self.courtesy = Courtesy(bus, topics, plan, enabled=config.bus.courtesy)
        self.status_listeners: list[Callable[[DeviceStatus], None]] = []
        """Hear of each change of a device's state; they neither wait nor raise."""
        self.readings: dict[str, int] = {device.id: 0 for device in plan.devices}
        self.hosts = [self._host(link) for link in plan.links]
        self._tasks: dict[LinkHost, asyncio.Task[None]] = {}
        self._host_failed = asyncio.Event()
        self._receiver = Receiver(self)

    # ----------------------------------------------------------------------------------------------- sink of the links

    async def put(self, item: Item, on_durable: Callable[[], None] | None = None) -> None:
        """To the ledger, and once it is durable there, to whoever else listens."""
        durable = on_durable
        if isinstance(item, Readings):
            self.readings[item.device] += len(item)
            durable = self._after(lambda: self.courtesy.readings(item), on_durable)
        elif isinstance(item, Events):
            durable = self._after(lambda: self.courtesy.events(item.events), on_durable)
        await self.recorder.put(item, durable)

    @staticmethod
    def _after(first: Callable[[], None], then: Callable[[], None] | None) -> Callable[[], None]:
        def both() -> None:
            if then is not None:
                then()
            first()

        return both

    def _on_status(self, status: DeviceStatus) -> None:
        self.courtesy.status(status)
        for listener in self.status_listeners:
            listener(status)

    def _on_identity(self, name: str, told: Mapping[str, str], at: int) -> None:
        """A device has said who it is: what is new goes into its birth, what has changed is an event as well."""
        device = next((device for device in self.plan.devices if device.id == name), None)
        host = next((host for host in self.hosts if name in host.device_ids), None)
        if device is None or host is None:  # another plan is just taking over
            return
        endpoint = host.endpoint(name)
        before = self.identities.of(name, endpoint)
        if not self.identities.take(name, endpoint, told):
            return
        for birth in births_of([device], {name: endpoint}, at, self.identities, signals=False):
            self.recorder.put_now(birth)
        if before is None:
            log.info("%s says that it is %s", name, described(told))
        else:
            log.warning(
                "%s says that it is another device: before %s, now %s", name, described(before), described(told)
            )
            event = changed(device, before, told, at)
            self.recorder.put_now(Events([event]))
            self.recorder.when_durable(lambda: self.courtesy.events([event]))
        text = self.identities.dump()
        self.recorder.when_durable(lambda: self._remember(IDENTITIES, text))

    # ------------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Until cancelled: then links are closed, and what they still gave is made durable."""
        await asyncio.get_running_loop().run_in_executor(self.thread, self.outbox.begin)
        self.identities.load(self.outbox.meta(IDENTITIES), [device.id for device in self.plan.devices])
        complete_to = self.recorder.load_complete_to([device.id for device in self.plan.devices])
        for host in self.hosts:
            host.resume_after_restart(complete_to)
        self._announce()
        self.recorder.tell_refused()
        if (event := self._damage.event(self.clock.now())) is not None:
            self.recorder.put_now(Events([event]))
        await self.recorder.commit()
        log.info("collecting %d signals of %d devices", len(self.plan.signals), len(self.plan.devices))
        if self.sender.by_broker:
            log.warning("bus.confirm is broker: not exactly once; what the broker loses is a gap")
        try:
            await together(
                self._links(), self._heartbeat(), self.recorder.run(), self.forwarder.run(), self.bus.run(),
                self._receiver.run(),
            )  # fmt: skip
        finally:
            self.courtesy.gateway("stopped", self.clock.now())
            self.thread.shutdown(wait=True)
            self.outbox.close()

    def _host(self, link: PlannedLink) -> LinkHost:
        return LinkHost(link, self, clock=self.clock, on_status=self._on_status, on_identity=self._on_identity)

    async def _links(self) -> None:
        """Every link's host; a gateway without links still proves that it lives. Raises what a host raises."""
        for host in self.hosts:
            self._start(host)
        try:
            await self._host_failed.wait()
            for task in list(self._tasks.values()):
                if task.done():
                    task.result()
        finally:
            await self._end(list(self._tasks))

    def _start(self, host: LinkHost) -> None:
        task = self._tasks[host] = asyncio.create_task(host.run())
        task.add_done_callback(lambda ended: None if ended.cancelled() else self._host_failed.set())

    async def _end(self, hosts: Iterable[LinkHost]) -> None:
        tasks = [self._tasks.pop(host) for host in hosts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------ another plan

    async def reconfigure(self, plan: Plan) -> None:
        """Collects by another plan from now on: hosts of links that it leaves as they are go on, the others end, and begin anew.

        `plan` has been numbered by `self.points`. To be called once at a time, while `run` runs.
        """
        before, self.plan = self.plan, plan
        old = {host.link.id: host for host in self.hosts}
        kept = {link.id for link in plan.links if link.id in old and same_link(old[link.id].link, link)}
        ending = [host for name, host in old.items() if name not in kept]
        await self._end([host for host in ending if host in self._tasks])
        left: dict[str, Left] = {}
        for host in ending:
            left |= await host.leave()
        self.hosts = [old[link.id] if link.id in kept else self._host(link) for link in plan.links]
        unsynced = any(host.unsynced for host in old.values())
        for host in self.hosts:
            host.flag_unsynced(unsynced)
        self.readings = {device.id: self.readings.get(device.id, 0) for device in plan.devices}
        self.courtesy.learn(plan)
        self._tell(before, plan)
        for host in self.hosts:
            if host.link.id not in kept:
                host.resume(left)
                self._start(host)

    def _tell(self, before: Plan, plan: Plan) -> None:
        """Births of the devices that are new or changed, and of what is gone."""
        now = self.clock.now()
        known = {device.id: device for device in before.devices}
        changed = [device for device in plan.devices if known.get(device.id) != device]
        self._births(changed, retired(plan, known_of(before), now, self.points.new), now)
        text = dump_known(known_of(plan))
        # remembered once the births are safe: a crash in between tells them again
        self.recorder.when_durable(lambda: self._remember("births", text))

    def _remember(self, key: str, text: str) -> None:
        self.thread.submit(self.outbox.set_meta, key, text)

    def _births(self, devices: list[PlannedDevice], gone: list[Birth], now: int) -> None:
        endpoints = {d.id: host.endpoint(d.id) for host in self.hosts for d in host.link.devices}
        for birth in [*births_of(devices, endpoints, now, self.identities), *gone]:
            self.recorder.put_now(birth)
        self.courtesy.births(devices, now, [birth.device for birth in gone if birth.retired])

    def _announce(self) -> None:
        now = self.clock.now()
        gone = retired(self.plan, load_known(self.outbox.meta("births")), now, self.points.new)
        self._births(list(self.plan.devices), gone, now)
        self.outbox.set_meta("births", dump_known(known_of(self.plan)))
        self.courtesy.gateway("ok", now)

    async def _heartbeat(self) -> None:
        standstill = Standstill(self.clock.now)
        while True:
            await asyncio.sleep(_HEARTBEAT)
            drift = self.clock.drift()
            if abs(drift) > _STEP:
                self._stepped(drift)
            gap = standstill.beat(_HEARTBEAT)
            if gap is not None:
                log.warning("%s: a gap of all devices", gap.detail)
                self.recorder.put_now(Gaps([gap]))
            self.recorder.heartbeat()
            self.recorder.notice = self._damage.notice()

    def _stepped(self, drift: float) -> None:
        """The system clock was set: readings go on with the new time, and the history says where."""
        before = self.clock.now()
        self.clock.step()
        for host in self.hosts:
            host.clock_stepped(round(drift * 1e6))
        log.warning("the system clock was set by %+.3f s", drift)
        gateway = self.plan.gateway
        event = Event(
            str(uuid.uuid4()), self.clock.now(), None, "", "", "clock_step", 500,
            f"系统时钟被调整 {drift:+.3f} 秒", f"The system clock was set by {drift:+.3f} s",
            {"seconds": drift, "before": before, "gateway": gateway.id},
        )  # fmt: skip
        self.recorder.put_now(Events([event]))


def same_link(one: PlannedLink, other: PlannedLink) -> bool:
    """Whether a link that runs by `one` need not be touched for `other`: what is only told of its devices (their names, the
    names of their assets) may differ."""
    if one.broken is not None and other.broken is not None:
        return (one.id, str(one.broken)) == (other.id, str(other.broken))
    return _collected(one) == _collected(other)


def _collected(link: PlannedLink) -> PlannedLink:
    devices = tuple(replace(device, name=Text(), asset_path=()) for device in link.devices)
    return replace(link, devices=devices)


def make_collect(config: Config) -> Measured:
    """The role from its configuration. Raises CannotStartError, DocumentError."""
    from gateway.roles import CannotStartError, bus_of, data_dir_of

    try:
        plan = resolve(config)
    except DocumentError as error:
        raise CannotStartError("; ".join(str(p) for p in error.problems)) from error
    data_dir = data_dir_of(config)
    clock = SystemClock()
    gateway = config.gateway.id
    bus = bus_of(config, "collect", Will(Topics(config.bus.root).gateway_status(gateway), will(gateway, clock.now())))
    outbox, salvaged = open_outbox(data_dir, config)
    return Measured(Collect(config, plan, bus, outbox, salvaged), config.metrics)


_locks: list[FileLock] = []


def open_outbox(data_dir: Path, config: Config) -> tuple[Outbox, Salvaged | None]:
    """The outbox, locked for this process until it ends, and what was saved if it was damaged.

    Raises CannotStartError; OutboxFullError for a disk without room, which is tried again by whoever starts this process.
    """
    from gateway.roles import CannotStartError

    try:
        _locks.append(FileLock(data_dir / "outbox.lock"))
    except LockedError as error:
        raise CannotStartError(
            f"another collector uses {data_dir / 'outbox.sqlite'}; stop it, or give this one a data_dir of its own"
        ) from error
    try:
        limit = log_limit(config.outbox.budget)
        return open_or_salvage(data_dir / "outbox.sqlite", config.outbox.durability, SystemClock().now(), limit)
    except OutboxFullError as error:
        log.error("%s. %s", error, error.fix)
        raise
    except OutboxError as error:
        raise CannotStartError(f"{error}. {error.fix}") from error
