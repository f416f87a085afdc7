"""An old mechanical press without any interface: strokes, a tower light, a motor, a guard, and people around it.

Pure and seeded; see :mod:`simulators.process.power` for what that means.
"""

from __future__ import annotations

import random
from enum import Enum

from simulators.process.shift import ShiftPlan

__all__ = ["STEP_SECONDS", "Light", "Press", "PressState"]

STEP_SECONDS = 0.05
_PULSE_SECONDS = 0.35
_BLINK_SECONDS = 0.5
"""Half a period: the lamps blink at 1 Hz."""


class PressState(Enum):
    """What the press is doing; each has its own picture on the tower light."""

    OFF = "off"
    READY = "ready"
    RUNNING = "running"
    COIL_CHANGE = "coil change"
    SETUP = "setup"
    JAM = "jam"
    EMERGENCY_STOP = "emergency stop"


class Light(Enum):
    """How one lamp of the tower light burns."""

    DARK = 0
    STEADY = 1
    BLINK = 2


_LIGHTS: dict[PressState, tuple[Light, Light, Light]] = {
    PressState.OFF: (Light.DARK, Light.DARK, Light.DARK),
    PressState.READY: (Light.DARK, Light.DARK, Light.BLINK),
    PressState.RUNNING: (Light.DARK, Light.DARK, Light.STEADY),
    PressState.COIL_CHANGE: (Light.DARK, Light.BLINK, Light.DARK),
    PressState.SETUP: (Light.DARK, Light.STEADY, Light.DARK),
    PressState.JAM: (Light.STEADY, Light.DARK, Light.DARK),
    PressState.EMERGENCY_STOP: (Light.BLINK, Light.DARK, Light.DARK),
}
_LASTS: dict[PressState, tuple[float, float]] = {
    PressState.READY: (4.0, 18.0),
    PressState.RUNNING: (60.0, 260.0),
    PressState.COIL_CHANGE: (45.0, 130.0),
    PressState.SETUP: (90.0, 300.0),
    PressState.JAM: (20.0, 100.0),
    PressState.EMERGENCY_STOP: (15.0, 60.0),
}
_AFTER_A_RUN: dict[PressState, float] = {
    PressState.READY: 0.52,
    PressState.COIL_CHANGE: 0.24,
    PressState.JAM: 0.15,
    PressState.SETUP: 0.06,
    PressState.EMERGENCY_STOP: 0.03,
}
"""How probably each state follows a run."""


class Press:
    """The press; its attributes and properties are what sensors and lamps would show at this moment."""

    def __init__(self, seed: int, plan: ShiftPlan | None = None) -> None:
        """*seed* decides strokes and stoppages; *plan* says when people work."""
        self._rng = random.Random(f"press {seed}")
        self._plan = plan or ShiftPlan()
        self._carry = 0.0
        self.seconds = 0.0
        self.state = PressState.OFF
        self.halted = False
        """While true the press is jammed and stays so."""
        self.strokes = 0
        """Strokes since the beginning."""
        self._until = self._rng.uniform(2.0, 5.0)
        self._stroke_at = 0.0
        self._pulse_until = 0.0
        self._ideal_cycle = self._rng.uniform(1.7, 2.2)

    @property
    def motor_on(self) -> bool:
        """The main motor's contactor."""
        return self.state not in (PressState.OFF, PressState.EMERGENCY_STOP)

    @property
    def guard_closed(self) -> bool:
        """The guard's switch."""
        return self.state in (PressState.OFF, PressState.READY, PressState.RUNNING)

    @property
    def cycle_pulse(self) -> bool:
        """The cam switch, closed for a third of a second in each stroke."""
        return self.seconds < self._pulse_until

    @property
    def lights(self) -> tuple[Light, Light, Light]:
        """Red, yellow, green."""
        return _LIGHTS[self.state]

    @property
    def lamps(self) -> tuple[bool, bool, bool]:
        """Red, yellow, green as they shine at this moment, blinking included."""
        bright = int(self.seconds / _BLINK_SECONDS) % 2 == 0
        red, yellow, green = (light is Light.STEADY or (light is Light.BLINK and bright) for light in self.lights)
        return red, yellow, green

    def inputs(self) -> tuple[bool, ...]:
        """The eight wires: pulse, red, yellow, green, motor, guard, oil pressure, spare (never used)."""
        return (self.cycle_pulse, *self.lamps, self.motor_on, self.guard_closed, self.motor_on, False)

    def step(self) -> None:
        """Let :data:`STEP_SECONDS` pass."""
        self.seconds += STEP_SECONDS
        at_work = self._plan.at_work(self.seconds)
        if self.halted:
            if self.state is not PressState.JAM:
                self.state = PressState.JAM
            self._until = self.seconds + 5.0
        elif not at_work and self.state is not PressState.OFF:
            self.state = PressState.OFF
        elif self.seconds >= self._until and at_work:
            self._next_state()
        if self.state is PressState.RUNNING and self.seconds >= self._stroke_at:
            self.strokes += 1
            self._pulse_until = self.seconds + _PULSE_SECONDS
            self._stroke_at = self.seconds + self._ideal_cycle * self._rng.uniform(0.98, 1.08)

    def due_steps(self, seconds: float) -> int:
        """How many steps *seconds* of process time come to, together with what was left over before."""
        self._carry += seconds
        steps = int(self._carry / STEP_SECONDS + 1e-9)
        self._carry -= steps * STEP_SECONDS
        return steps

    def _next_state(self) -> None:
        if self.state is PressState.RUNNING:
            self.state = self._rng.choices(list(_AFTER_A_RUN), list(_AFTER_A_RUN.values()))[0]
        elif self.state is PressState.READY:
            self.state = PressState.RUNNING
            self._stroke_at = self.seconds + 0.4
        else:
            self.state = PressState.READY
        shortest, longest = _LASTS[self.state]
        self._until = self.seconds + self._rng.uniform(shortest, longest)
