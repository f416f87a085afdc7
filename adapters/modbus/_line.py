"""The schedule of a link: one request at a time, each unit its turn, each group on its grid, and no unit waits long for a dead one."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

from adapters.contract import (
    Clock,
    DeviceState,
    Identity,
    Item,
    LinkTrouble,
    Lost,
    PointTrouble,
    Samples,
    TransientError,
)
from adapters.modbus._codec import Request
from adapters.modbus._device import Device, Refused, Scan
from adapters.modbus._errors import (
    GATEWAY_FIX_EN,
    GATEWAY_FIX_ZH,
    NO_ANSWER_FIX_EN,
    NO_ANSWER_FIX_ZH,
    no_answer,
)
from adapters.modbus._harvest import BUSY_FIRST, BUSY_MOST, PASSING, Harvest
from adapters.modbus._lanes import Lane
from adapters.modbus._link import Link, NoAnswerError, NotNowError
from adapters.modbus._load import Told, Watch, measured
from adapters.modbus._opening import ClosingError
from adapters.modbus._schedule import Schedule
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._unit import Unit
from schemas.status import BAD_CONFIGURATION_ERROR
from schemas.wire import Cause

_JITTER = 0.2
_ENOUGH = 3
"""Requests in a row without an answer, after which units that were asked once in vain count as silent."""
_MISSES_TO_DOWN = 2
"""A unit that has answered before may miss once: a single lost frame on a serial line is no outage."""
_GATEWAY_SILENT = (10, 11)
"""Exceptions by which a gateway says that the unit behind it does not answer (V1.1b3 §7)."""
_BUSY_TIMES = 8
_STALL = 0.05
"""Seconds for which the consumer may keep us waiting before lost slots are looked for."""


class Line:
    """Runs the schedule over a `Link`. `values` and `overruns` are running totals."""

    def __init__(self, settings: ModbusLinkSettings, link: Link, devices: Sequence[Device], clock: Clock) -> None:
        self._settings = settings
        self._link = link
        self._clock = clock
        self._devices = {device.id: device for device in devices}
        by_number: dict[int, list[Device]] = {}
        for device in devices:
            by_number.setdefault(device.unit, []).append(device)
        self._units = [Unit(number, sharing) for number, sharing in by_number.items()]
        self._schedule = Schedule(self._units)
        link.pauses = {unit.number: unit.pause for unit in self._units if unit.pause}
        self._vain = 0
        """Requests in a row that nobody has answered."""
        self._watch = Watch(self._units)
        self._shown: Told | None = None
        self._connected_at = 0
        self._sleeping: asyncio.Future[None] | None = None
        self._random = random.Random()
        self._harvest = Harvest(clock)
        link.on_lost = self.wake

    @property
    def values(self) -> int:
        """Values received."""
        return self._harvest.values

    @property
    def overruns(self) -> int:
        """Slots that were over before their scan was done."""
        return self._harvest.overruns

    def call_when_taught(self, remember: Callable[[], None]) -> None:
        """`remember` is called after a device has taught something about its registers, or about itself."""
        self._harvest.on_learned = remember

    def wake(self) -> None:
        """Ends a rest of `run`, which then looks at the state of the link."""
        if self._sleeping is not None and not self._sleeping.done():
            self._sleeping.set_result(None)

    # ------------------------------------------------------------------------------------------------------- connecting

    async def probe(self) -> None:
        """Returns when one unit has answered, whatever it says; those asked in vain before it are down.

        Raises TransientError when none answers, so that a link on which nobody lives does not come up again and again.
        """
        self._connected_at = self._clock.now()
        readable = [unit for unit in self._units if unit.readable]
        for unit in self._units:
            unit.begin()
        for unit in sorted(readable, key=lambda unit: (unit.hung_up, unit.down)):
            device, request = next(self._trials(unit))
            try:
                response = await self._link.request(request, device.rules.timeout)
            except NoAnswerError:
                unit.missed(self._clock.monotonic(), self._jitter(), by_time_out=True)
                unit.down = True
            else:
                if response.code not in _GATEWAY_SILENT:
                    unit.answered(response.received, self._clock.monotonic())
                return
        if readable:
            raise no_answer(self._settings, len(readable))

    def _trials(self, unit: Unit) -> Iterator[tuple[Device, Request]]:
        """Reads that tell whether the unit lives."""
        for device in unit.devices:
            for scan in device.scans.values():
                for block in scan.blocks:
                    yield device, block.request
            for refused in device.refused.values():
                yield device, refused.request

    def _jitter(self) -> float:
        return self._random.uniform(1 - _JITTER, 1 + _JITTER)

    # --------------------------------------------------------------------------------------------------------- running

    async def run(self) -> AsyncIterator[Item]:
        """The items of `Adapter.items`."""
        for item in self._begin():
            yield item
        while self._link.is_open:
            now = self._clock.monotonic()
            if now >= self._watch.due:
                for item in self._look(now):
                    yield item
            unit = self._schedule.choose(now)
            lost = self._link.lost
            items: list[Item] = []
            if lost is None and unit is None:
                await self._rest(self._schedule.next_wake(now) - now)
                continue
            if lost is None and unit is not None:
                try:
                    items = await self._serve(unit, now)
                except ClosingError:
                    return
                except TransientError as error:
                    lost = error
                    items = list(self._all_down(lost))
                    if lost.reason == "closed":
                        self._hung_up(unit)
            elif lost is not None:
                items = list(self._all_down(lost))
            if lost is not None:
                for item in items:
                    yield item
                raise lost
            if unit is not None and unit.misses and self._silent():
                lost = no_answer(self._settings, len(self._units))
                items.extend(self._all_down(lost))
            before = self._clock.monotonic()
            for item in items:
                yield item
            after = self._clock.monotonic()
            if after - before > _STALL:
                for item in self._stalled(before, after):
                    yield item
            if lost is not None:
                raise lost

    def _begin(self) -> Iterator[Item]:
        """What has to be told at the start of a session, and every scan from its beginning."""
        mono, now = self._clock.monotonic(), self._clock.now()
        self._vain = 0
        self._watch.begin(mono, self.overruns)
        self._shown = None
        for unit in self._units:
            for device in unit.devices:
                for scan in device.scans.values():
                    scan.reset(mono, now)
            unit.settle()
            if unit.down:
                yield from self._states(unit, up=False, at=self._known_until(unit))
        for device in self._devices.values():
            for point, problem in device.unreadable.items():
                yield PointTrouble(device.id, point, problem)
                yield Samples(
                    device.id, device.groups[point], now, (point,), (None,), status=(BAD_CONFIGURATION_ERROR,)
                )
            for point, problem in device.troubles.items():
                yield PointTrouble(device.id, point, problem)
            for refused in device.refused.values():
                yield from self._harvest.refused_rows(device, refused, now)

    async def _rest(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._sleeping = sleeping = loop.create_future()
        timer = None if seconds == math.inf else loop.call_later(max(seconds, 0.0), self.wake)
        try:
            await sleeping
        finally:
            self._sleeping = None
            if timer is not None:
                timer.cancel()

    async def _serve(self, unit: Unit, now: float) -> list[Item]:
        """One request for this unit, and what comes of it."""
        if unit.identification.wanted:
            return await self._identify(unit)
        device, work = unit.next_work(now)
        items: list[Item] = []
        try:
            request = work.request if isinstance(work, Refused) else work.request()
            response = await self._link.request(request, device.rules.timeout, Lane.SCAN)
        except NotNowError:
            self._put_off(unit)
            return items
        except NoAnswerError:
            self._watch.vain += self._link.taken
            items.extend(self._not_answered(unit, work, by_time_out=True))
        else:
            if response.code in _GATEWAY_SILENT:
                self._watch.vain += self._link.taken
                items.extend(self._not_answered(unit, work, by_time_out=False))
            else:
                if isinstance(work, Scan):
                    work.spent += self._link.taken
                self._vain = 0
                items.extend(self._alive(unit, response.received))
                waits = self._waits_for(unit, work) if response.code in PASSING else False
                if waits:
                    pass  # the same again, a little later
                elif isinstance(work, Refused):
                    items.extend(self._harvest.tried_again(device, work, response))
                elif work.hunt is not None:
                    items.extend(self._harvest.hunted(device, work, work.hunt, response))
                else:
                    items.extend(self._harvest.scanned(device, work, response))
        unit.free_at = max(unit.free_at, self._link.quiet_until(unit.number))
        self._schedule.served(unit)
        unit.settle()
        return items

    def _put_off(self, unit: Unit) -> None:
        """Somebody else has asked it meanwhile: the other units need not wait for it."""
        unit.free_at = self._link.quiet_until(unit.number)
        unit.settle()

    def _waits_for(self, unit: Unit, work: Scan | Refused) -> bool:
        """The device says that it is busy: whether it is asked for the same once more within the slot, after a while."""
        if isinstance(work, Refused):
            return False
        now = self._clock.monotonic()
        pause = min(BUSY_FIRST * 2**work.waits, BUSY_MOST)
        if work.waits >= _BUSY_TIMES or now + pause >= work.due + work.period:
            work.waits = 0
            return False
        work.waits += 1
        unit.free_at = now + pause
        return True

    async def _identify(self, unit: Unit) -> list[Item]:
        """One question of who it is."""
        try:
            told = await unit.identification.step(self._link, unit.number, unit.timeout)
        except NotNowError:
            self._put_off(unit)
            return []
        unit.free_at = max(unit.free_at, self._link.quiet_until(unit.number))
        self._schedule.served(unit)
        unit.settle()
        return [] if told is None else [Identity(device.id, told) for device in unit.devices]

    # ----------------------------------------------------------------------------------------------- units come and go

    def _alive(self, unit: Unit, received: int) -> Iterator[Item]:
        now = self._clock.monotonic()
        for device, scan, lost in unit.passed_by(now):
            since = scan.complete_to or self._known_until(unit)
            yield Lost(
                device.id, scan.points(), since, received, Cause.DISCONNECTED, lost, "the unit did not answer in time"
            )
        if unit.answered(received, now):
            yield from self._states(unit, up=True, at=received)

    def _not_answered(self, unit: Unit, work: Scan | Refused, *, by_time_out: bool) -> Iterable[Item]:
        if isinstance(work, Scan):
            work.unanswered += 1
        unit.missed(self._clock.monotonic(), self._jitter(), by_time_out=by_time_out)
        self._vain += 1
        if unit.down or (unit.last_life is not None and unit.misses < _MISSES_TO_DOWN):
            return ()
        unit.down = True
        return self._states(unit, up=False, at=self._known_until(unit))

    def _known_until(self, unit: Unit) -> int:
        """Its last sign of life in this session, in µs; the begin of the session if it gave none."""
        return max(unit.last_life or 0, self._connected_at)

    def _states(self, unit: Unit, *, up: bool, at: int) -> Iterator[Item]:
        for device in unit.devices:
            if up:
                yield DeviceState(device.id, True, at)
            elif unit.by_time_out:
                yield DeviceState(device.id, False, at, "no_answer", NO_ANSWER_FIX_EN, NO_ANSWER_FIX_ZH)
            else:
                yield DeviceState(device.id, False, at, "gateway_no_answer", GATEWAY_FIX_EN, GATEWAY_FIX_ZH)

    def _hung_up(self, unit: Unit) -> None:
        """The link went down while this unit was due. If that happens again, it is left alone longer, and the others have a link."""
        unit.missed(self._clock.monotonic(), self._jitter(), by_time_out=True)
        unit.hung_up = True
        unit.down = unit.down or unit.misses >= _MISSES_TO_DOWN

    def _silent(self) -> bool:
        """Whether no unit at all answers, nor a gateway for one of them: each is down, or was asked in vain last, and three times running
        nobody answered. So the end of a link with many units is found soon; two lost frames on a bad line are not the end."""
        asked = [unit for unit in self._units if unit.readable]
        if not asked or not all(unit.misses and unit.by_time_out for unit in asked):
            return False
        return self._vain >= _ENOUGH or all(unit.down for unit in asked)

    def _all_down(self, lost: TransientError) -> Iterator[Item]:
        """The link is lost: nobody knows anything of any device since it answered last."""
        for unit in self._units:
            if not unit.down:
                for device in unit.devices:
                    yield DeviceState(device.id, False, self._known_until(unit), lost.reason, lost.fix_en, lost.fix_zh)

    # ----------------------------------------------------------------------------------------------- how full the line is

    @property
    def load(self) -> float:
        """What the scans ask of the line, as a share of its time, by what they have taken; 0 before the first."""
        return measured(self._units).share

    def _look(self, now: float) -> Iterator[Item]:
        """Says to each device why values come late, or that they do no more."""
        told = self._watch.look(now, self.overruns)
        if told is None:
            if self._shown is not None:
                yield from (LinkTrouble(name, None) for name in self._devices)
        else:  # each time: a device that was away has lost it
            for unit in self._units:
                if not unit.down:
                    yield from (
                        LinkTrouble(device.id, told.problem, told.fix_en, told.fix_zh) for device in unit.devices
                    )
        self._shown = told

    # ------------------------------------------------------------------------------------------------------ back-pressure

    def _stalled(self, before: float, after: float) -> Iterator[Item]:
        """The consumer kept us from reading: slots that lie wholly in that time are lost."""
        now = self._clock.now()
        for unit in self._units:
            for device in unit.devices:
                for scan in device.scans.values():
                    if unit.misses or scan.due == math.inf:
                        continue
                    late = max(math.floor((before - scan.due) / scan.period), 0)
                    missed = scan.skip(after)
                    self._harvest.overruns += missed
                    if missed > late:
                        start = scan.complete_to or now - round((after - before) * 1_000_000)
                        yield Lost(
                            device.id,
                            scan.points(),
                            start,
                            now,
                            Cause.OVERRUN,
                            missed - late,
                            "the gateway did not keep up",
                        )
            unit.settle()
