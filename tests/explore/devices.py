"""Devices made of a map and of processes, for judging what `explain` says of them.

Each value is a function of the second since it was switched on; a real Modbus server gives its registers out, and the process moves on with
each round of reads, so that what is seen does not depend on the speed of the machine that tests it.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.explore.series import CODES, WIDTHS, Order, ordered
from simulators.modbus.unit import Reply, Unit
from tests.explore.judging import Truth

Process = Callable[[float, random.Random], Any]
"""The raw value at a second."""


@dataclass(frozen=True, slots=True)
class Register:
    """One value of a map: where it lies, and how it moves."""

    address: int
    name: str
    type: str
    at: Process
    order: Order = "ABCD"
    length: int = 0

    @property
    def width(self) -> int:
        return self.length or WIDTHS["uint16" if self.type == "spare" else self.type]

    def words(self, value: Any) -> list[int]:
        """Its registers on the wire."""
        if self.type == "string":
            data = value.encode().ljust(2 * self.length, b"\0")
            words = list(struct.unpack(f">{self.length}H", data))
            return [(word & 0xFF) << 8 | word >> 8 for word in words] if self.order == "BADC" else words
        code = ">H" if self.type == "spare" else CODES[self.type]
        data = struct.pack(code, value if "float" in self.type else round(value))
        return ordered(struct.unpack(f">{len(data) // 2}H", data), self.order)


@dataclass(slots=True)
class Device(Unit):
    """A unit whose process moves on by `step` seconds with each read of its first register."""

    map: Sequence[Register] = ()
    seed: int = 1
    step: float = 1.0
    now: float = 0.0
    used: set[int] = field(default_factory=set)
    """Registers that were not zero at some time."""
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random.seed(self.seed)
        self._renew()

    def _renew(self) -> None:
        for register in self.map:
            for offset, word in enumerate(register.words(register.at(self.now, self._random))):
                self.set_word("holding", register.address + offset, word)
                if word:
                    self.used.add(register.address + offset)

    def answer(self, pdu: bytes) -> Reply:
        if pdu[0] == 3 and int.from_bytes(pdu[1:3], "big") == self.map[0].address:
            self.now += self.step
            self._renew()
        return Unit.answer(self, pdu)

    def truth(self) -> list[Truth]:
        """What lies where; a value that was zero in all of its registers all the time is `spare`, whatever the map calls it."""
        return [
            Truth("holding", one.address, one.type if self._alive(one) else "spare", one.order, one.width, one.name)
            for one in self.map
        ]

    def _alive(self, one: Register) -> bool:
        return not self.used.isdisjoint(range(one.address, one.address + one.width))


# ------------------------------------------------------------------------------------------------------------- processes


def always(value: Any) -> Process:
    return lambda t, rng: value


def noisy(middle: float, noise: float, swing: float = 0.0, period: float = 120.0) -> Process:
    """A measured value: a slow swing and the noise of the last digits."""
    return lambda t, rng: middle + swing * math.sin(2 * math.pi * t / period) + rng.gauss(0, noise)


def counts(start: float, rate: float) -> Process:
    """A counter with a steady rate per second."""
    return lambda t, rng: math.floor(start + rate * t)


def ramp(low: float, high: float, period: float, noise: float) -> Process:
    """Up and down between two values, as a drive follows its set value."""
    return lambda t, rng: low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * t / period)) + rng.gauss(0, noise)


def turns(values: Sequence[Any], every: float) -> Process:
    """One state after the other."""
    return lambda t, rng: values[int(t / every) % len(values)]


def flows(start: float, rate: float, swing: float = 0.0, period: float = 120.0) -> Process:
    """A total: what has flowed since with `rate` per second, which swings by `swing`."""
    turn = 2 * math.pi / period
    return lambda t, rng: math.floor(start + rate * t + swing * (1 - math.cos(turn * t)) / turn)


def lags(middle: float, swing: float, period: float, noise: float) -> Process:
    """Something that heats and cools by a two-point controller: up and down in straight lines, with the noise of the last digit."""
    return lambda t, rng: middle + swing * (4 * abs((t / period) % 1 - 0.5) - 1) + rng.gauss(0, noise)


def gusts(middle: float, spread: float, memory: float) -> Process:
    """Wind and vibration: wanders about its middle and forgets within `memory` seconds; never below zero."""
    state = [middle]

    def at(t: float, rng: random.Random) -> float:
        keep = math.exp(-1 / memory)
        state[0] = middle + (state[0] - middle) * keep + rng.gauss(0, spread * math.sqrt(1 - keep * keep))
        return max(state[0], 0.0)

    return at


def bits(*cycles: tuple[int, float, float]) -> Process:
    """Packed bits, each its own: bit number, seconds of its cycle, share of it for which the bit is set."""
    return lambda t, rng: sum(1 << bit for bit, cycle, share in cycles if (t / cycle + 0.13 * bit) % 1 < share)
