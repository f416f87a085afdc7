"""An assembly line with eight stations that places parts on carriers: takt, rejects, faults, stops, orders, shifts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["STATIONS", "AssemblyLine", "LineState", "Order"]

STEP = 0.25
"""Process seconds of one step of the model."""
STATIONS = 8
SHIFT_SECONDS = 8 * 3600.0


class LineState(IntEnum):
    """What the line's program shows."""

    OFF = 0
    STARTING = 1
    RUNNING = 2
    STARVED = 3
    BLOCKED = 4
    FAULT = 5
    SETUP = 6


@dataclass(frozen=True, slots=True)
class Order:
    """What is being assembled, and how many."""

    number: str
    program: str
    planned: int
    takt: float
    """Seconds."""


PROGRAMS = (("PRG_LED_A", 300, 4.2), ("PRG_ADAPTER_12V", 500, 3.1), ("PRG_HUB_4P", 200, 5.6))


@dataclass
class AssemblyLine:
    """The line. :meth:`advance` lets time go by; the attributes tell how it stands."""

    seed: int
    time: float = 0.0
    state: LineState = LineState.STARTING
    placed: int = 1_482_230
    """Parts placed in the line's life; never reset."""
    order_placed: int = 0
    rejected: int = 0
    takt: float = 0.0
    """Last takt in seconds."""
    average: float = 0.0
    current: float = 1.2
    """Drive current in A."""
    speed: float = 0.0
    """Conveyor speed in m/min."""
    energy: int = 98_765_432_100
    """Wh since commissioning."""
    runtime: int = 0
    """Seconds running since it was switched on."""
    fault_code: int = 0
    cabinet: int = 254
    """Temperature of the cabinet in tenths of a degree."""
    station_times: list[float] = field(default_factory=lambda: [0.0] * STATIONS)
    station_faults: list[bool] = field(default_factory=lambda: [False] * STATIONS)
    feeder: list[int] = field(default_factory=lambda: [0] * 4)
    """Parts left in each feeder."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._owed = 0.0
        self._left = 12.0
        self._index = self.seed % len(PROGRAMS)
        self._number = 7700 + self.seed % 90
        self._running = 0.0
        self._watt_seconds = 0.0
        self._shift_start = SHIFT_SECONDS - self._random.uniform(600.0, 1200.0)
        self.feeder = [self._random.randint(60, 400) for _ in range(4)]

    @property
    def order(self) -> Order:
        """The order at work."""
        program, planned, takt = PROGRAMS[self._index]
        return Order(f"PO-{self._number:06d}", program, planned, takt)

    @property
    def shift(self) -> int:
        """1 to 3."""
        return int((self.time + self._shift_start) // SHIFT_SECONDS) % 3 + 1

    @property
    def running(self) -> bool:
        """Whether carriers move."""
        return self.state is LineState.RUNNING

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time go by."""
        self._owed += seconds
        while self._owed >= STEP:
            self._owed -= STEP
            self._step()

    def _step(self) -> None:
        self.time += STEP
        self._left -= STEP
        if self._left <= 0:
            self._next()
        gauss = self._random.gauss
        if self.running:
            self._running += STEP
            self.runtime = int(self._running)
            self.speed = round(6.0 + gauss(0.0, 0.03), 2)
            self.current = round(4.8 + gauss(0.0, 0.08), 2)
        else:
            self.speed, self.current = 0.0, round(1.2 + gauss(0.0, 0.02), 2)
        self._watt_seconds += STEP * self.current * 400.0
        if self._watt_seconds >= 3600.0:
            self.energy += int(self._watt_seconds // 3600)
            self._watt_seconds %= 3600.0
        if self._random.random() < STEP / 20.0:
            self.cabinet = max(220, min(420, self.cabinet + self._random.choice((-1, 1))))

    def _next(self) -> None:
        match self.state:
            case LineState.RUNNING:
                self._place()
            case LineState.STARVED:
                self.feeder = [count or 400 for count in self.feeder]
                self._run()
            case LineState.FAULT:
                self.fault_code = 0
                self.station_faults = [False] * STATIONS
                self._run()
            case LineState.SETUP:
                self._index = (self._index + 1) % len(PROGRAMS)
                self._number += 1
                self.order_placed = self.rejected = 0
                self.average = 0.0
                self._run()
            case _:
                self._run()

    def _run(self) -> None:
        self.state = LineState.RUNNING
        self._begin_takt()

    def _begin_takt(self) -> None:
        self._left = self._takt = self.order.takt * (1 + abs(self._random.gauss(0.0, 0.05)))

    def _place(self) -> None:
        gauss = self._random.gauss
        self.takt = round(self._takt, 3)
        self.station_times = [round(self._takt * 0.8 + gauss(0.0, 0.1), 2) for _ in range(STATIONS)]
        self.placed += 1
        self.order_placed += 1
        self.average += (self.takt - self.average) / self.order_placed
        self.rejected += self._random.random() < 0.012
        self.feeder = [max(0, count - (self._random.random() < 0.5)) for count in self.feeder]
        if self.order_placed >= self.order.planned:
            self.state, self._left = LineState.SETUP, 90.0
        elif not all(self.feeder):
            self.state, self._left = LineState.STARVED, self._random.uniform(20.0, 60.0)
        elif self._random.random() < 1 / 90:
            station = self._random.randrange(STATIONS)
            self.fault_code = 0x1000 + station
            self.station_faults = [i == station for i in range(STATIONS)]
            self.state, self._left = LineState.FAULT, self._random.uniform(15.0, 90.0)
        elif self._random.random() < 1 / 120:
            self.state, self._left = LineState.BLOCKED, self._random.uniform(10.0, 40.0)
        else:
            self._begin_takt()
