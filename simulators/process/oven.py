"""A curing oven under a temperature controller: warm-up, overshoot, doors that open, recipes that change.

Pure and seeded; see :mod:`simulators.process.power` for what that means.
"""

from __future__ import annotations

import random

from simulators.process.shift import ShiftPlan

__all__ = ["STEP_SECONDS", "Oven"]

STEP_SECONDS = 0.4
"""The controller measures and controls every 0.4 s (Delta DTB user manual, register 1000H)."""

_AMBIENT = 24.0
_HEATER_WATTS = 5200.0
_HEATER_CAPACITY = 900.0
_CHAMBER_CAPACITY = 2600.0
"""J/K"""
_HEATER_TO_CHAMBER = 28.0
_CHAMBER_TO_AMBIENT = 9.0
_DOOR_LOSS = 55.0
_FAN_LOSS = 30.0
"""W/K"""
_SETTLE_SECONDS = 2.0
"""After power on the controller has no temperature yet for so long."""


class Oven:
    """Heater, chamber, door, fan, and the PID controller that holds the chamber at ``setpoint`` (all in °C).

    ``heating`` and ``cooling`` are the controller's two outputs in percent.
    """

    def __init__(self, seed: int, plan: ShiftPlan | None = None) -> None:
        """*seed* decides doors, recipes and noise; *plan* says when people open doors and choose recipes."""
        self._rng = random.Random(f"oven {seed}")
        self._plan = plan or ShiftPlan()
        self._carry = 0.0
        self.seconds = 0.0
        self.setpoint = 180.0
        self.heating = 0.0
        self.cooling = 0.0
        self.halted = False
        """While true the controller is in STOP and the oven cools down."""
        self.door_open = False
        self._measured = _AMBIENT
        self._heater = _AMBIENT
        self._chamber = _AMBIENT
        self._integral = 0.0
        self._last_measured = _AMBIENT
        self._door_at = self._rng.uniform(240.0, 900.0)
        self._door_closes_at = 0.0
        self._recipe_at = self._rng.uniform(1500.0, 3000.0)

    proportional_band = 18.0
    """Kelvin of deviation for 100 % output."""
    integral_time = 160.0
    derivative_time = 12.0
    """Seconds."""

    @property
    def temperature(self) -> float | None:
        """What the sensor says in °C; None right after power on, when there is no measurement yet."""
        return None if self.seconds < _SETTLE_SECONDS else self._measured

    @property
    def amperes(self) -> float:
        """Heater current that the controller's current transformer sees."""
        return _HEATER_WATTS / 230.0 * self.heating / 100.0

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass, in steps of :data:`STEP_SECONDS`; what is left over waits."""
        self._carry += seconds
        while self._carry > STEP_SECONDS - 1e-9:
            self._carry -= STEP_SECONDS
            self._step(STEP_SECONDS)

    def _step(self, seconds: float) -> None:
        self.seconds += seconds
        if self._plan.at_work(self.seconds):
            self._people()
        elif self.door_open:
            self.door_open = False
        self._physics(seconds)
        self._measured = self._chamber + self._rng.gauss(0.0, 0.06)
        self._control(seconds)

    def _people(self) -> None:
        if self.door_open:
            if self.seconds >= self._door_closes_at:
                self.door_open = False
                self._door_at = self.seconds + self._rng.uniform(500.0, 1400.0)
        elif self.seconds >= self._door_at and not self.halted:
            self.door_open = True
            self._door_closes_at = self.seconds + self._rng.uniform(15.0, 40.0)
        if self.seconds >= self._recipe_at:
            self.setpoint = self._rng.choice([value for value in (165.0, 180.0, 195.5) if value != self.setpoint])
            self._recipe_at = self.seconds + self._rng.uniform(2700.0, 6300.0)

    def _physics(self, seconds: float) -> None:
        """Two lumped masses: the heater gives to the chamber, the chamber to the room, more so with door or fan."""
        into_chamber = _HEATER_TO_CHAMBER * (self._heater - self._chamber)
        loss = _CHAMBER_TO_AMBIENT + (_DOOR_LOSS if self.door_open else 0.0) + _FAN_LOSS * self.cooling / 100.0
        power = _HEATER_WATTS * self.heating / 100.0
        self._heater += (power - into_chamber) / _HEATER_CAPACITY * seconds
        self._chamber += (into_chamber - loss * (self._chamber - _AMBIENT)) / _CHAMBER_CAPACITY * seconds

    def _control(self, seconds: float) -> None:
        """PID with the derivative on the measurement and the integral held while the output is at a stop."""
        if self.halted:
            self.heating = self.cooling = self._integral = 0.0
            self._last_measured = self._measured
            return
        error = self.setpoint - self._measured
        gain = 100.0 / self.proportional_band
        slope = (self._measured - self._last_measured) / seconds
        self._last_measured += 0.1 * (self._measured - self._last_measured)
        output = gain * (error - self.derivative_time * 0.1 * slope) + self._integral
        if 0.0 < output < 100.0:
            self._integral += gain * error / self.integral_time * seconds
        self.heating = min(max(output, 0.0), 100.0)
        self.cooling = min(max((-error - 4.0) * 10.0, 0.0), 100.0)
