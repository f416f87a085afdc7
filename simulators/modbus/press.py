"""press-01: an old press seen through an 8-channel input and counter module on an RTU line behind a serial server.

The module is generic: eight inputs with a counter of rising edges each, as many makers offer it; its map is its own.

- Discrete inputs 0 to 7 (function 2): pulse, red, yellow, green, motor, guard, oil pressure, spare.
- Input registers 0 to 15 (function 4): the counter of channel *n* as uint32 at 2 n, high word first. It counts rising
  edges, so that a lamp that blinks counts and one that burns does not.
- Holding registers 0x0100 to 0x0107 (function 3): the mode of each counter, 0 for 32 bits and 1 for 16. In 16-bit mode
  the counter goes from 65,535 to 0 and its high word stays 0. Channel 0, the strokes, stands in 16-bit mode.

Nothing else is there: another address gets exception 0x02. Unit 1; other units do not answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from simulators.device import DeviceSettings, FaultError
from simulators.modbus.device import ModbusDevice, faults_of
from simulators.modbus.map_entry import MapEntry
from simulators.modbus.unit import Unit
from simulators.process.press import Press

__all__ = ["PRESS_FAULTS", "PRESS_MAP", "PressModule", "create_press"]

PRESS_FAULTS = faults_of("reset")
_CHANNELS = (
    "cycle/pulse",
    "light/red",
    "light/yellow",
    "light/green",
    "motor/on",
    "guard/closed",
    "oil/pressure_ok",
    "spare",
)
_COUNTERS = (
    "cycle/count",
    "light/red_count",
    "light/yellow_count",
    "light/green_count",
    "motor/starts",
    "guard/closings",
    "oil/pressure_count",
    "spare_count",
)
_MODE = 0x0100
_SIXTEEN_BITS = frozenset({0})
"""Channels whose counter is in 16-bit mode."""

_INPUTS = tuple(MapEntry(name, "discrete", channel, type="bool") for channel, name in enumerate(_CHANNELS))
_COUNTS = tuple(MapEntry(name, "input", 2 * channel, type="uint32") for channel, name in enumerate(_COUNTERS))
_MODES = tuple(MapEntry(f"counter/{channel}/mode", "holding", _MODE + channel) for channel in range(len(_CHANNELS)))
PRESS_MAP: tuple[MapEntry, ...] = _INPUTS + _COUNTS + _MODES


class PressModule:
    """The module as an instrument, with the press whose wires it sees."""

    dead: frozenset[int] = frozenset()

    def __init__(self, seed: int) -> None:
        """*seed* decides the press and where the counters stand; the strokes begin shortly before their roll-over."""
        self.press = Press(seed)
        rng = random.Random(f"press module {seed}")
        self.counts = [65_536 - rng.randint(100, 130)] + [rng.randint(100, 9_000) for _ in _CHANNELS[1:-1]] + [0]
        self._levels = self.press.inputs()
        self._unit = Unit(max_bits=8, max_registers=16)
        self.units: Mapping[int, Unit] = {1: self._unit}
        for channel, entry in enumerate(_MODES):
            self._unit.set(entry, int(channel in _SIXTEEN_BITS))

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass, and count every edge in it."""
        for _ in range(self.press.due_steps(seconds)):
            self.press.step()
            levels = self.press.inputs()
            for channel, level in enumerate(levels):
                if level and not self._levels[channel]:
                    modulus = 1 << (16 if channel in _SIXTEEN_BITS else 32)
                    self.counts[channel] = (self.counts[channel] + 1) % modulus
            self._levels = levels
        self._publish()

    def reset(self) -> None:
        """All counters to zero."""
        self.counts = [0] * len(_CHANNELS)
        self._publish()

    def halt(self, halted: bool) -> None:
        """The press is jammed, or is freed."""
        self.press.halted = halted

    def sentinel(self, word: int | None) -> None:
        """The module knows no such words."""
        if word is not None:
            raise FaultError("a module of this type has no words that mean a fault")

    def _publish(self) -> None:
        for channel, level in enumerate(self._levels):
            self._unit.set(_INPUTS[channel], level)
            self._unit.set(_COUNTS[channel], self.counts[channel])


def create_press(settings: DeviceSettings, *, baud: int | None = None) -> ModbusDevice:
    """Make a press with its module; *baud* lets the bytes of the line take their time."""
    return ModbusDevice(settings, PressModule(settings.seed), "rtu", PRESS_FAULTS, baud=baud)
