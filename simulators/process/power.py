"""The electrical supply of a small workshop: machines that draw power, a mains that sags a little, and what a meter sums up.

Pure and seeded: the same seed and the same total of process seconds give the same numbers, however the time was cut.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulators.process.shift import ShiftPlan

__all__ = ["PHASES", "STEP_SECONDS", "Consumer", "Demand", "Draw", "Phase", "Supply"]

STEP_SECONDS = 0.5
PHASES = 3
_DEMAND_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Draw:
    """What one consumer takes at a moment: watts for each phase, and its displacement power factor (lagging)."""

    watts: tuple[float, float, float]
    power_factor: float


class Consumer:
    """A machine as the meter sees it: a program of (seconds, kilowatts) stages that repeats while people work.

    ``shares`` says how its power spreads over the three phases; ``idle`` is what it takes between programs and while
    halted, ``rest`` what it takes outside working hours. Each stage varies by a few percent from turn to turn.
    """

    def __init__(
        self,
        rng: random.Random,
        stages: Sequence[tuple[float, float]],
        *,
        shares: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
        power_factor: float = 0.85,
        idle: float = 0.0,
        rest: float = 0.0,
        always: bool = False,
    ) -> None:
        """*stages* are seconds and kilowatts, *idle* and *rest* kilowatts; *always* runs through breaks and nights."""
        self._rng = rng
        self._stages = stages
        self._shares = shares
        self._power_factor = power_factor
        self._idle = idle
        self._rest = rest
        self._always = always
        self._stage = rng.randrange(len(stages))
        self._left = stages[self._stage][0] * rng.random()
        self._level = stages[self._stage][1]
        self._pause = 0.0

    def step(self, seconds: float, at_work: bool, halted: bool) -> Draw:
        """Let *seconds* pass and say what it draws."""
        if self._always:
            at_work, halted = True, False
        if not at_work:
            kilowatts = self._rest
        elif halted:
            kilowatts = self._idle
        elif self._pause > 0.0:
            self._pause -= seconds
            kilowatts = self._idle
        else:
            kilowatts = self._level
            self._left -= seconds
            if self._left <= 0.0:
                self._next_stage()
        watts = kilowatts * 1000.0
        first, second, third = self._shares
        return Draw((watts * first, watts * second, watts * third), self._power_factor)

    def _next_stage(self) -> None:
        self._stage = (self._stage + 1) % len(self._stages)
        length, level = self._stages[self._stage]
        self._left = length * self._rng.uniform(0.96, 1.05)
        self._level = level * self._rng.uniform(0.95, 1.05)
        if self._stage == 0 and not self._always and self._rng.random() < 0.015:
            self._pause = self._rng.uniform(30.0, 240.0)  # a small stoppage between two programs


def _workshop(rng: random.Random) -> list[Consumer]:
    """An injection machine with its heaters, a machine tool, a press, a compressor, an oven, light and offices."""
    return [
        Consumer(rng, [(1.5, 9.0), (2.5, 31.0), (6.0, 14.0), (12.0, 18.5), (3.0, 6.0), (2.0, 3.0)],
                 power_factor=0.79, idle=3.2, rest=0.1),
        Consumer(rng, [(7.0, 9.6), (13.0, 0.4)], power_factor=0.99, idle=1.8, rest=0.0),
        Consumer(rng, [(4.0, 2.5), (38.0, 7.4), (5.0, 3.0), (52.0, 10.8), (6.0, 2.5), (25.0, 5.1)],
                 power_factor=0.82, idle=2.1, rest=0.3),
        Consumer(rng, [(1.2, 3.6), (1.0, 5.9)], power_factor=0.74, idle=1.9, rest=0.0),
        Consumer(rng, [(75.0, 15.2), (48.0, 4.3)], power_factor=0.86, idle=4.3, rest=0.6),
        Consumer(rng, [(9.0, 6.0), (14.0, 0.1)], shares=(0.0, 1.0, 0.0), power_factor=1.0, idle=2.4, rest=0.0),
        Consumer(rng, [(600.0, 2.6), (600.0, 2.5)], shares=(0.55, 0.25, 0.2), power_factor=0.95, idle=2.5, rest=0.4),
        Consumer(rng, [(300.0, 0.55), (120.0, 0.8)], shares=(0.2, 0.2, 0.6), power_factor=0.9, always=True),
    ]  # fmt: skip


@dataclass(slots=True)
class Phase:
    """The momentary values of one phase."""

    volts: float = 230.0
    amperes: float = 0.0
    watts: float = 0.0
    vars: float = 0.0
    volts_thd: float = 1.8
    amperes_thd: float = 12.0
    """Total harmonic distortion in percent."""
    watt_hours: float = 0.0
    var_hours: float = 0.0

    @property
    def volt_amperes(self) -> float:
        """Apparent power."""
        return math.hypot(self.watts, self.vars)


@dataclass(slots=True)
class Demand:
    """Mean of a quantity over a sliding hour of whole minutes, and the greatest such mean since the last reset."""

    value: float = 0.0
    maximum: float = 0.0
    _minutes: deque[float] = field(default_factory=lambda: deque(maxlen=_DEMAND_MINUTES))
    _sum: float = 0.0

    def add(self, value: float) -> None:
        """Take the value of one step."""
        self._sum += value

    def close_minute(self, steps: int) -> None:
        """End a minute that had *steps* steps."""
        self._minutes.append(self._sum / steps)
        self._sum = 0.0
        self.value = sum(self._minutes) / len(self._minutes)
        self.maximum = max(self.maximum, self.value)


class Supply:
    """The incoming supply with everything behind it; read its public attributes after :meth:`advance`."""

    def __init__(self, seed: int, plan: ShiftPlan | None = None) -> None:
        """*seed* decides everything that varies; *plan* says when people work."""
        rng = random.Random(f"power {seed}")
        self._rng = rng
        self._plan = plan or ShiftPlan()
        self._consumers = _workshop(rng)
        self._carry = 0.0
        self._steps = 0
        self.seconds = 0.0
        """Process seconds that have passed."""
        self.halted = False
        """While true the machines stand; light, offices and idle consumption go on."""
        self.frequency = 50.0
        start = rng.uniform(81_000.0, 89_000.0)
        self.phases = tuple(
            Phase(watt_hours=start * 1000.0 * share, var_hours=start * 480.0 * share) for share in (0.335, 0.345, 0.32)
        )
        self.volt_ampere_hours = start * 1120.0
        self.ampere_hours = start * 1.58
        self.neutral_amperes = 0.0
        self.export_watt_hours = 0.0
        self.power_demand = Demand()
        self.apparent_demand = Demand()
        self.neutral_demand = Demand()
        self.current_demands = tuple(Demand() for _ in range(PHASES))
        self._mains = [rng.gauss(0.0, 1.0) for _ in range(PHASES)]

    @property
    def watts(self) -> float:
        """Total active power."""
        return sum(phase.watts for phase in self.phases)

    @property
    def vars(self) -> float:
        """Total reactive power."""
        return sum(phase.vars for phase in self.phases)

    @property
    def volt_amperes(self) -> float:
        """Total apparent power, the vector sum."""
        return math.hypot(self.watts, self.vars)

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass, in steps of :data:`STEP_SECONDS`; what is left over waits."""
        self._carry += seconds
        while self._carry > STEP_SECONDS - 1e-9:
            self._carry -= STEP_SECONDS
            self._step(STEP_SECONDS)

    def reset(self) -> None:
        """Energies, charges and greatest demands to zero, as by the meter's reset menu."""
        for phase in self.phases:
            phase.watt_hours = phase.var_hours = 0.0
        self.volt_ampere_hours = self.ampere_hours = self.export_watt_hours = 0.0
        for demand in (self.power_demand, self.apparent_demand, self.neutral_demand, *self.current_demands):
            demand.maximum = 0.0

    def _step(self, seconds: float) -> None:
        self.seconds += seconds
        at_work = self._plan.at_work(self.seconds)
        watts = [0.0] * PHASES
        reactive = [0.0] * PHASES
        for consumer in self._consumers:
            draw = consumer.step(seconds, at_work, self.halted)
            tangent = math.tan(math.acos(draw.power_factor))
            for number, share in enumerate(draw.watts):
                watts[number] += share
                reactive[number] += share * tangent
        self._mains_drift()
        hours = seconds / 3600.0
        for number, phase in enumerate(self.phases):
            noise = self._rng.gauss(1.0, 0.004)
            phase.watts = watts[number] * noise
            phase.vars = reactive[number] * noise
            phase.volts = 230.6 + 1.6 * self._mains[number] - phase.watts / 22_000.0
            phase.amperes = phase.volt_amperes / phase.volts
            phase.volts_thd = 1.9 + 0.15 * self._mains[(number + 1) % PHASES] ** 2
            phase.amperes_thd = 8.0 + 140.0 / (6.0 + phase.amperes) + self._rng.gauss(0.0, 0.2)
            phase.watt_hours += phase.watts * hours
            phase.var_hours += phase.vars * hours
        self._neutral()
        self.volt_ampere_hours += self.volt_amperes * hours
        self.ampere_hours += sum(phase.amperes for phase in self.phases) * hours
        self._demands()

    def _mains_drift(self) -> None:
        """Voltages and frequency wander and return: an Ornstein-Uhlenbeck walk with some minutes' memory."""
        for number in range(PHASES):
            self._mains[number] += -0.004 * self._mains[number] + 0.07 * self._rng.gauss(0.0, 1.0)
        self.frequency += -0.02 * (self.frequency - 50.0) + 0.003 * self._rng.gauss(0.0, 1.0)

    def _neutral(self) -> None:
        real = imaginary = 0.0
        for number, phase in enumerate(self.phases):
            angle = -2.0 * math.pi * number / PHASES - math.atan2(phase.vars, phase.watts)
            real += phase.amperes * math.cos(angle)
            imaginary += phase.amperes * math.sin(angle)
        self.neutral_amperes = math.hypot(real, imaginary)

    def _demands(self) -> None:
        self.power_demand.add(self.watts)
        self.apparent_demand.add(self.volt_amperes)
        self.neutral_demand.add(self.neutral_amperes)
        for demand, phase in zip(self.current_demands, self.phases, strict=True):
            demand.add(phase.amperes)
        self._steps += 1
        if self._steps * STEP_SECONDS >= 60.0:
            for demand in (self.power_demand, self.apparent_demand, self.neutral_demand, *self.current_demands):
                demand.close_minute(self._steps)
            self._steps = 0
