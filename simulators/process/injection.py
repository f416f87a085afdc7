"""An injection-moulding machine: heating up, test samples, cycles, drift, bad parts, standstills, job and shift changes.

Numbers of states are those of OPC 40083 (EUROMAP 83), so that a server can pass them on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, auto
from typing import TypeAlias

__all__ = [
    "STANDSTILL_REASONS", "Alarm", "AlarmChange", "Cycle", "InjectionMachine", "Job", "Occurrence", "ReasonEntered",
    "StatusChange", "Zone",
]  # fmt: skip

STEP = 0.5
"""Process seconds of one step of the model; what happens depends on the seed alone, not on how time is dealt out."""
SHIFT_SECONDS = 8 * 3600.0
TEST_CYCLES = 3


class MachineMode(IntEnum):
    """OPC 40083 §13.3 (MachineModeEnumeration)."""

    OTHER = 0
    AUTOMATIC = 1
    SEMI_AUTOMATIC = 2
    MANUAL = 3
    SETUP = 4
    SLEEP = 5


class ProductionStatus(IntEnum):
    """OPC 40083 §14.7 (ProductionStatusEnumeration)."""

    OTHER = 0
    NO_PRODUCTION = 1
    START_UP = 2
    READY_FOR_PRODUCTION = 3
    PRODUCTION = 4
    DRY_RUN = 5


class JobStatus(IntEnum):
    """OPC 40083 §18.4.1 (JobStatusEnumeration)."""

    OTHER = 0
    TRANSFERRED_ASSIGNED = 1
    SET_UP_ACTIVE = 2
    SET_UP_INTERRUPTED = 3
    SET_UP_FINISHED = 4
    START_UP_ACTIVE = 5
    JOB_IN_PRODUCTION = 6
    JOB_INTERRUPTED = 7
    JOB_FINISHED = 8
    TEAR_DOWN_ACTIVE = 9
    TEAR_DOWN_INTERRUPTED = 10
    TEAR_DOWN_FINISHED = 11


@dataclass(frozen=True, slots=True)
class Job:
    """A production job and the product it makes."""

    product: str
    description: str
    material: str
    customer: str
    mould: str
    parts: int
    box: int
    cavities: int
    cycle: float
    """Expected cycle time in seconds."""
    melt: float
    """Set temperature of the nozzle in °C."""


JOBS = (
    Job("HS-A12 外壳", "Housing A12, upper shell", "ABS PA-757", "华强电子", "M-1042", 320, 40, 2, 24.0, 235.0),
    Job("BT-07 按键", "Button set 07", "PC/ABS C2800", "Star Appliances", "M-0871", 800, 160, 8, 18.0, 255.0),
    Job("LN-30 镜片", "Lens 30 mm", "PMMA CM-207", "明达光学", "M-1190", 480, 96, 4, 32.0, 245.0),
    Job("CP-55 瓶盖", "Cap 55 mm", "PP K8003", "Haitian Foods", "M-0665", 1600, 400, 16, 12.0, 220.0),
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A message of the machine; those of a standstill stop it."""

    id: str
    message: str
    classification: int
    """OPC 40077 (IMMMessageClassificationEnumeration)."""
    severity: int
    standstill: bool
    reason: str = ""
    """Which standstill reason an operator will enter."""
    seconds: tuple[float, float] = (40.0, 120.0)


STANDSTILL_REASONS: Mapping[str, tuple[str, str]] = {
    "R01": ("Material shortage", "缺料"),
    "R02": ("Mould protection", "锁模保护"),
    "R03": ("Robot fault", "机械手故障"),
    "R04": ("Waiting for operator", "等待人员"),
    "R05": ("Hot runner fault", "热流道故障"),
}
"""Id of each reason with its text in English and Chinese."""
ALARMS = (
    Alarm("E1107", "Material hopper empty", 209, 600, True, "R01", (90.0, 240.0)),
    Alarm("E1031", "Mould protection triggered", 105, 700, True, "R02", (40.0, 150.0)),
    Alarm("E2040", "Robot not in home position", 202, 600, True, "R03", (60.0, 200.0)),
    Alarm("E1290", "Guard door open", 101, 500, True, "R04", (30.0, 90.0)),
    Alarm("E1555", "Hot runner zone 2 deviation", 113, 650, True, "R05", (120.0, 300.0)),
)
DEVIATION = Alarm("W1410", "Barrel temperature outside tolerance", 111, 300, False)


@dataclass(slots=True)
class Zone:
    """A heated zone: it follows its set value with a lag, drifts and is measured to a tenth of a degree."""

    name: str
    nominal: float
    actual: float
    lag: float
    disturbance: float = 0.0
    measured: float = 0.0

    def step(self, dt: float, noise: float) -> None:
        """Let *dt* process seconds go by."""
        self.actual += (self.nominal + self.disturbance - self.actual) * (1 - math.exp(-dt / self.lag))
        self.measured = round(self.actual + noise, 1)


@dataclass
class Counters:
    """What a job counts; all but the machine's own begin anew with each job."""

    cycles: int = 0
    parts: int = 0
    good: int = 0
    bad: int = 0
    test: int = 0
    box_cycles: int = 0
    box_parts: int = 0
    box_good: int = 0
    box_bad: int = 0
    box: int = 1
    seconds: float = 0.0
    """Sum of the cycle times."""

    @property
    def average(self) -> float:
        """Mean cycle time in seconds; 0 before the first cycle."""
        return self.seconds / self.cycles if self.cycles else 0.0


@dataclass(frozen=True, slots=True)
class Cycle:
    """A finished cycle, as it is told once and never stands in a variable (OPC 40083 §19)."""

    seconds: float
    quality: int
    """OPC 40083 §19.12: good 0, bad 1, test sample 2."""
    cavities: tuple[int, ...]
    """Quality by cavity: good 1, bad 2."""
    part_ids: tuple[str, ...]
    injection_seconds: float
    dosing_seconds: float
    cushion: float
    """cm³"""
    plastification: float
    """cm³"""
    pressure: float
    """bar"""
    barrel: tuple[float, ...]
    mould: tuple[float, ...]
    counters: Counters
    """As they stood at the end of this cycle."""
    machine_cycles: int
    job: str
    lot: str
    box: str
    status: JobStatus


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """An alarm came or went."""

    alarm: Alarm
    active: bool


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The production status changed."""

    old: ProductionStatus
    new: ProductionStatus


@dataclass(frozen=True, slots=True)
class ReasonEntered:
    """An operator entered a standstill reason, or production cleared it (empty)."""

    reason: str


Occurrence: TypeAlias = Cycle | AlarmChange | StatusChange | ReasonEntered


class _Phase(IntEnum):
    HEATING = auto()
    START_UP = auto()
    PRODUCTION = auto()
    STANDSTILL = auto()
    FINISHED = auto()
    TEAR_DOWN = auto()
    SET_UP = auto()


@dataclass
class InjectionMachine:
    """The machine. :meth:`advance` lets time go by, :meth:`drain` tells what happened, the attributes how it stands."""

    seed: int
    time: float = 0.0
    """Process seconds since it was switched on."""
    mode: MachineMode = MachineMode.SETUP
    production: ProductionStatus = ProductionStatus.START_UP
    job_status: JobStatus = JobStatus.SET_UP_ACTIVE
    reason: str = ""
    standstill: Alarm | None = None
    power_on: bool = True
    last_cycle: float = 0.0
    """Seconds."""
    part_ids: tuple[str, ...] = ()
    machine_cycles: int = 1_204_318
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._owed = 0.0
        self._occurred: list[Occurrence] = []
        self._job_number = 4170 + self.seed % 100
        self._job_index = self.seed % len(JOBS)
        self._shift_start = SHIFT_SECONDS - self._random.uniform(900.0, 1500.0)
        nozzle = self.job.melt
        steps = (-45.0, -30.0, -20.0, -10.0, -5.0, 0.0)
        names = ("feed", "zone 2", "zone 3", "zone 4", "zone 5", "nozzle")
        self.barrel = [
            Zone(name, nozzle + step, nozzle + step - 25.0, 15.0 + 3.0 * i)
            for i, (name, step) in enumerate(zip(names, steps, strict=True))
        ]
        self.mould = [Zone("fixed half", 60.0, 48.0, 30.0), Zone("moving half", 58.0, 45.0, 35.0)]
        self.oil = Zone("oil", 45.0, 38.0, 400.0)
        for zone in (*self.barrel, *self.mould, self.oil):
            zone.step(0.0, 0.0)
        self._phase = _Phase.HEATING
        self._left = 0.0
        self._cycle = self.job.cycle
        self._warned: Zone | None = None

    # ------------------------------------------------------------------------------------------------ how it stands

    @property
    def job(self) -> Job:
        """The job at work."""
        return JOBS[self._job_index]

    @property
    def job_name(self) -> str:
        """Name of the job, new for each."""
        return f"JOB-{self._job_number:05d}"

    @property
    def shift(self) -> int:
        """Shifts since it was switched on, the first being 0."""
        return int((self.time + self._shift_start) // SHIFT_SECONDS)

    @property
    def lot(self) -> str:
        """Name of the lot: one for each job and shift."""
        return f"{self.job_name}-{'ABC'[self.shift % 3]}{self.shift // 3:02d}"

    @property
    def user(self) -> str:
        """Who is logged on: another one each shift."""
        return ("zhang.wei", "li.na", "wang.fang")[self.shift % 3]

    @property
    def box_id(self) -> str:
        """Which box is being filled."""
        return f"{self.job_name}-B{self.counters.box:03d}"

    @property
    def average_cycle(self) -> float:
        """Mean cycle time of the job in seconds; 0 before its first cycle."""
        return self.counters.average

    def drain(self) -> list[Occurrence]:
        """What happened since the last call, in order."""
        occurred, self._occurred = self._occurred, []
        return occurred

    # ------------------------------------------------------------------------------------------------ letting time go

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time go by."""
        self._owed += seconds
        while self._owed >= STEP:
            self._owed -= STEP
            self._step()

    def _step(self) -> None:
        self.time += STEP
        for zone in (*self.barrel, *self.mould):
            zone.step(STEP, self._random.gauss(0.0, 0.08))
        self.oil.step(STEP, 0.0)
        self._watch_temperatures()
        self._left -= STEP
        match self._phase:
            case _Phase.HEATING:
                if all(abs(zone.actual - zone.nominal) < 3.0 for zone in (*self.barrel, *self.mould)):
                    self._begin(_Phase.START_UP)
            case _Phase.START_UP | _Phase.PRODUCTION:
                if self._left <= 0:
                    self._finish_cycle()
            case _Phase.STANDSTILL:
                self._stand_still()
            case _ if self._left <= 0:
                self._change_job()

    def _watch_temperatures(self) -> None:
        if self._warned is not None:
            if self._random.random() < STEP / 60.0:
                self._warned.disturbance = 0.0
            if self._warned.disturbance == 0.0 and abs(self._warned.actual - self._warned.nominal) < 2.0:
                self._warned = None
                self._occurred.append(AlarmChange(DEVIATION, False))
        elif self._phase is _Phase.PRODUCTION and self._random.random() < STEP / 500.0:
            self._warned = self._random.choice(self.barrel[:5])
            self._warned.disturbance = self._random.choice((-7.0, 7.0))
            self._occurred.append(AlarmChange(DEVIATION, True))

    def _set_production(self, status: ProductionStatus) -> None:
        if status is not self.production:
            self._occurred.append(StatusChange(self.production, status))
            self.production = status

    def _set_reason(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._occurred.append(ReasonEntered(reason))

    def _begin(self, phase: _Phase) -> None:
        """Enter *phase*, with all that it shows."""
        self._phase = phase
        job, status, mode = JobStatus, ProductionStatus, MachineMode
        shown = {
            _Phase.HEATING: (job.SET_UP_FINISHED, status.START_UP, mode.SETUP),
            _Phase.START_UP: (job.START_UP_ACTIVE, status.START_UP, mode.SEMI_AUTOMATIC),
            _Phase.PRODUCTION: (job.JOB_IN_PRODUCTION, status.PRODUCTION, mode.AUTOMATIC),
            _Phase.STANDSTILL: (job.JOB_INTERRUPTED, status.NO_PRODUCTION, mode.AUTOMATIC),
            _Phase.FINISHED: (job.JOB_FINISHED, status.NO_PRODUCTION, mode.MANUAL),
            _Phase.TEAR_DOWN: (job.TEAR_DOWN_ACTIVE, status.NO_PRODUCTION, mode.SETUP),
            _Phase.SET_UP: (job.SET_UP_ACTIVE, status.NO_PRODUCTION, mode.SETUP),
        }
        self.job_status, production, self.mode = shown[phase]
        self._set_production(production)
        if phase in (_Phase.START_UP, _Phase.PRODUCTION):
            self._set_reason("")
            self._next_cycle()
        elif phase in (_Phase.FINISHED, _Phase.TEAR_DOWN, _Phase.SET_UP):
            self._left = {_Phase.FINISHED: 30.0, _Phase.TEAR_DOWN: 90.0, _Phase.SET_UP: 150.0}[phase]

    def _next_cycle(self) -> None:
        drift = 0.012 * math.sin(2 * math.pi * self.time / 5400.0)
        self._cycle = self.job.cycle * (1 + drift + self._random.gauss(0.0, 0.004))
        self._left = self._cycle

    def _finish_cycle(self) -> None:
        job, counters = self.job, self.counters
        test = self._phase is _Phase.START_UP
        worst = max(abs(zone.actual - zone.nominal) for zone in self.barrel)
        chance = 0.006 + 0.01 * worst
        cavities = tuple(2 if self._random.random() < chance else 1 for _ in range(job.cavities))
        bad = cavities.count(2)
        counters.cycles += 1
        counters.seconds += self._cycle
        counters.parts += job.cavities
        self.machine_cycles += 1
        self.last_cycle = self._cycle
        first = counters.parts - job.cavities
        self.part_ids = tuple(f"{self.job_name}-{first + i + 1:06d}" for i in range(job.cavities))
        if test:
            counters.test += job.cavities
        else:
            counters.good += job.cavities - bad
            counters.bad += bad
            self._fill_box(job, bad)
        quality = 2 if test else int(bad > 0)
        self._occurred.append(self._describe(quality, cavities))
        self._after_cycle(test)

    def _fill_box(self, job: Job, bad: int) -> None:
        counters = self.counters
        if counters.box_parts >= job.box:
            counters.box += 1
            counters.box_cycles = counters.box_parts = counters.box_good = counters.box_bad = 0
        counters.box_cycles += 1
        counters.box_parts += job.cavities
        counters.box_good += job.cavities - bad
        counters.box_bad += bad

    def _describe(self, quality: int, cavities: tuple[int, ...]) -> Cycle:
        gauss = self._random.gauss
        heat = self.barrel[-1].actual - self.job.melt
        return Cycle(
            seconds=self._cycle,
            quality=quality,
            cavities=cavities,
            part_ids=self.part_ids,
            injection_seconds=round(0.11 * self.job.cycle + gauss(0.0, 0.01), 3),
            dosing_seconds=round(0.27 * self.job.cycle + gauss(0.0, 0.04), 3),
            cushion=round(6.2 + gauss(0.0, 0.12), 2),
            plastification=round(11.5 * self.job.cavities + gauss(0.0, 0.2), 2),
            pressure=round(920.0 - 2.5 * heat + gauss(0.0, 6.0), 1),
            barrel=tuple(zone.measured for zone in self.barrel),
            mould=tuple(zone.measured for zone in self.mould),
            counters=replace(self.counters),
            machine_cycles=self.machine_cycles,
            job=self.job_name,
            lot=self.lot,
            box=self.box_id,
            status=self.job_status,
        )

    def _after_cycle(self, test: bool) -> None:
        if test:
            if self.counters.cycles >= TEST_CYCLES:
                self._begin(_Phase.PRODUCTION)
            else:
                self._next_cycle()
        elif self.counters.good >= self.job.parts:
            self._begin(_Phase.FINISHED)
        elif self._random.random() < 1 / 30:
            self._stop()
        else:
            self._next_cycle()

    def _stop(self) -> None:
        self.standstill = self._random.choice(ALARMS)
        self._occurred.append(AlarmChange(self.standstill, True))
        self._begin(_Phase.STANDSTILL)
        self._left = self._random.uniform(*self.standstill.seconds)
        # an operator comes, looks, and only then enters why
        self._noticed = self._left * self._random.uniform(0.4, 0.8)

    def _stand_still(self) -> None:
        alarm = self.standstill
        if alarm is None:  # a standstill without its alarm cannot be entered
            raise AssertionError("standstill without an alarm")
        if not self.reason and self._left <= self._noticed:
            self.mode = MachineMode.MANUAL
            self._set_reason(alarm.reason)
        if self._left <= 0:
            self._occurred.append(AlarmChange(alarm, False))
            self.standstill = None
            self._begin(_Phase.PRODUCTION)

    def _change_job(self) -> None:
        if self._phase is _Phase.FINISHED:
            self._begin(_Phase.TEAR_DOWN)
        elif self._phase is _Phase.TEAR_DOWN:
            self._job_index = (self._job_index + 1) % len(JOBS)
            self._job_number += 1
            self.counters = Counters()
            shift = self.job.melt - self.barrel[-1].nominal
            for zone in self.barrel:
                zone.nominal += shift
            self._begin(_Phase.SET_UP)
        else:
            self._begin(_Phase.HEATING)
