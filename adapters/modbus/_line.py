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
from adapters.modbus._codec import Request, Response
from adapters.modbus._device import PROBE_MOST, Answered, Block, Device, Hunt, Refused, Scan
from adapters.modbus._errors import (
    GATEWAY_FIX_EN,
    GATEWAY_FIX_ZH,
    NO_ANSWER_FIX_EN,
    NO_ANSWER_FIX_ZH,
    no_answer,
)
from adapters.modbus._isolate import ILLEGAL_ADDRESS, ILLEGAL_VALUE, BadSpan, Defect, isolate
from adapters.modbus._lanes import Lane
from adapters.modbus._link import ClosingError, Link, NoAnswerError
from adapters.modbus._load import Told, Watch, measured
from adapters.modbus._schedule import Schedule
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._unit import Unit
from schemas.bilingual import Bilingual, chinese
from schemas.status import BAD_CONFIGURATION_ERROR, BAD_DECODING_ERROR, modbus_exception
from schemas.wire import Cause

_JITTER = 0.2
_MISSES_TO_DOWN = 2
"""A unit that has answered before may miss once: a single lost frame on a serial line is no outage."""
_GATEWAY_SILENT = (10, 11)
"""Exceptions by which a gateway says that the unit behind it does not answer (V1.1b3 §7)."""
_PASSING = (5, 6)
"""Exceptions that pass by themselves: acknowledge, busy."""
BUSY_FIRST = 0.1
"""Seconds for which a device that says that it is busy is left alone; doubled each time, up to `BUSY_MOST`."""
BUSY_MOST = 1.0
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
        self._watch = Watch(self._units)
        self._shown: Told | None = None
        self._connected_at = 0
        self._sleeping: asyncio.Future[None] | None = None
        self._random = random.Random()
        self.values = 0
        self.overruns = 0
        self.on_learned: Callable[[], None] = lambda: None
        """Called after a device has taught something about its registers."""
        link.on_lost = self.wake

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
            if unit is not None and unit.down and self._silent():
                lost = no_answer(self._settings, len(self._units))
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
                yield from self._refused_rows(device, refused, now)

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
        except NoAnswerError:
            self._watch.vain += self._link.taken
            items.extend(self._not_answered(unit, by_time_out=True))
        else:
            if response.code in _GATEWAY_SILENT:
                self._watch.vain += self._link.taken
                items.extend(self._not_answered(unit, by_time_out=False))
            else:
                if isinstance(work, Scan):
                    work.spent += self._link.taken
                items.extend(self._alive(unit, response.received))
                waits = self._waits_for(unit, work) if response.code in _PASSING else False
                if waits:
                    pass  # the same again, a little later
                elif isinstance(work, Refused):
                    items.extend(self._tried_again(device, work, response))
                elif work.hunt is not None:
                    items.extend(self._hunted(device, work, work.hunt, response))
                else:
                    items.extend(self._scanned(device, work, response))
        if unit.pause:
            unit.free_at = max(unit.free_at, self._clock.monotonic() + unit.pause)
        if unit.misses:
            unit.free_at = max(unit.free_at, self._link.quiet_until(unit.number))
        self._schedule.served(unit)
        unit.settle()
        return items

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
        told = await unit.identification.step(self._link, unit.number, unit.devices[0].rules.timeout)
        if unit.pause:
            unit.free_at = self._clock.monotonic() + unit.pause
        self._schedule.served(unit)
        unit.settle()
        return [] if told is None else [Identity(device.id, told) for device in unit.devices]

    # ----------------------------------------------------------------------------------------------------------- scans

    def _scanned(self, device: Device, scan: Scan, response: Response) -> Iterator[Item]:
        block = scan.pending[0]
        if response.code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) or response.short:
            code = response.code or ILLEGAL_VALUE  # a device that cuts its answer off means that too much was asked for
            yield from self._hunt(device, scan, block, code, response)
            return
        if response.code:
            yield self._exception(device, scan, block, response)
            if response.code not in _PASSING:
                yield from self._troubled(device, block, response.code)
            return
        if device.identification.gave_values(response.received):
            self.on_learned()
        got = device.decoded(block, response.data)
        self.values += len(got.values)
        yield Samples(
            device.id, scan.group, response.received, got.points, got.values, status=got.status,
            complete_to=self._done(scan, response),
        )  # fmt: skip
        if device.troubles or got.told:
            yield from self._told(device, got)

    def _told(self, device: Device, got: Answered) -> Iterator[Item]:
        """What the values of a block say in words, and the end of what was said before."""
        for point in got.points:
            problem = got.told.get(point)
            if device.troubles.get(point) != problem:
                if problem is None:
                    del device.troubles[point]
                else:
                    device.troubles[point] = problem
                yield PointTrouble(device.id, point, problem)

    def _done(self, scan: Scan, response: Response) -> int | None:
        """The first block of the scan is done; the time up to which all is complete if it was the last."""
        scan.pending.popleft()
        scan.waits = 0
        if scan.pending:
            return None
        scan.reckon()
        self.overruns += scan.advance(self._clock.monotonic())
        scan.complete_to = response.received
        return response.received

    def _exception(self, device: Device, scan: Scan, block: Block, response: Response) -> Samples:
        points = block.points
        self.values += len(points)
        code = modbus_exception(response.code).status if response.code else BAD_DECODING_ERROR
        return Samples(
            device.id, scan.group, response.received, points, (None,) * len(points), status=(code,) * len(points),
            complete_to=self._done(scan, response),
        )  # fmt: skip

    def _troubled(self, device: Device, block: Block, code: int) -> Iterator[Item]:
        why, read = _explain(code), block.read
        problem = Bilingual(
            f"{block.table} registers {read.start:#06x} to {read.start + read.size - 1:#06x}: {why}",
            f"{block.table} 寄存器 {read.start:#06x} 至 {read.start + read.size - 1:#06x}：{chinese(why)}",
        )
        for point in block.points:
            if device.troubles.get(point) != problem:
                device.troubles[point] = problem
                yield PointTrouble(device.id, point, problem)

    # ------------------------------------------------------------------------------------- what the device refuses to give

    def _hunt(self, device: Device, scan: Scan, block: Block, code: int, response: Response) -> Iterator[Item]:
        """A block was refused: begin to look for the reason."""
        if scan.vain > 1:  # refused again and again, and each time nothing is found: a mood of the device
            yield self._exception(device, scan, block, response)
            return
        steps = isolate(sorted({value.span for value in block.read.values}), code)
        try:
            probe = next(steps)
        except StopIteration as found:
            yield from self._found(device, scan, block, found.value, response.received)
        else:
            scan.hunt = Hunt(block, code, steps, device.request(block.table, *probe))

    def _hunted(self, device: Device, scan: Scan, hunt: Hunt, response: Response) -> Iterator[Item]:
        """The answer to one step of the search."""
        code = ILLEGAL_VALUE if response.short else response.code
        if code not in (0, ILLEGAL_ADDRESS, ILLEGAL_VALUE):
            scan.hunt = None
            yield self._exception(device, scan, hunt.block, response)
            return
        try:
            probe = hunt.steps.send(code)
        except StopIteration as found:
            scan.hunt = None
            yield from self._found(device, scan, hunt.block, found.value, response.received)
        else:
            hunt.request = device.request(hunt.block.table, *probe)

    def _found(self, device: Device, scan: Scan, block: Block, defect: Defect | None, received: int) -> Iterator[Item]:
        if defect is None:
            scan.vain += 1
            return
        if isinstance(defect, BadSpan):
            refused = device.quarantine(block.table, defect, self._clock.monotonic())
            yield from self._refused_rows(device, refused, received)
        else:
            device.learn(block.table, defect)
            device.taught_at = self._clock.now()
        self.on_learned()
        device.replan()
        device.continue_with(scan)
        if not scan.pending and scan.blocks:  # the refused block was the last, and nothing of it is left
            self.overruns += scan.advance(self._clock.monotonic())

    def _refused_rows(self, device: Device, refused: Refused, received: int) -> Iterator[Item]:
        status = modbus_exception(refused.code).status
        problem = refusal(refused.table, *refused.span, refused.code)
        for group, value in refused.values:
            if value.point < 0:
                device.factors[value.point] = (None, status)
                continue
            yield Samples(device.id, group, received, (value.point,), (None,), status=(status,))
            yield PointTrouble(device.id, value.point, problem)

    def _tried_again(self, device: Device, refused: Refused, response: Response) -> Iterator[Item]:
        now = self._clock.monotonic()
        if response.code or response.short:
            refused.delay = min(refused.delay * 2, PROBE_MOST)
            refused.due = now + refused.delay
            return
        device.release(refused, now)
        self.on_learned()
        device.replan()
        by_group: dict[str, list[int]] = {}
        for group, value in refused.values:
            by_group.setdefault(group, []).append(value.point)
            if value.point >= 0:
                yield PointTrouble(device.id, value.point, None)
        for group in by_group:
            tables = {refused.table: [value for own, value in refused.values if own == group]}
            for block in device.blocks(tables):
                got = device.decoded(block, response.data)
                self.values += len(got.values)
                yield Samples(device.id, group, response.received, got.points, got.values, status=got.status)

    # ----------------------------------------------------------------------------------------------- units come and go

    def _alive(self, unit: Unit, received: int) -> Iterator[Item]:
        now = self._clock.monotonic()
        for device, scan, slots in unit.passed_by(now):
            since = scan.complete_to or self._known_until(unit)
            yield Lost(
                device.id, scan.points(), since, received, Cause.DISCONNECTED, slots, "the unit did not answer in time"
            )
        if unit.answered(received, now):
            yield from self._states(unit, up=True, at=received)

    def _not_answered(self, unit: Unit, *, by_time_out: bool) -> Iterable[Item]:
        unit.missed(self._clock.monotonic(), self._jitter(), by_time_out=by_time_out)
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
        """Whether no unit at all answers, nor a gateway for one of them."""
        asked = [unit for unit in self._units if unit.readable]
        return bool(asked) and all(unit.down and unit.by_time_out for unit in asked)

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
                    self.overruns += missed
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


def refusal(table: str, start: int, size: int, code: int) -> Bilingual:
    """What people are told of a span that the device refuses on its own."""
    why = _explain(code)
    return Bilingual(
        f"{table} register {start:#06x} ({size} long): {why}",
        f"{table} 寄存器 {start:#06x}（长度 {size}）：{chinese(why)}",
    )


def _explain(code: int) -> str:
    exception = modbus_exception(code)
    return Bilingual(
        f"exception {code}, {exception.name}. {exception.text_en} {exception.fix_en}".strip(),
        f"异常码 {code}（{exception.name}）。{exception.text_zh}{exception.fix_zh}",
    )
