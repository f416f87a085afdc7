"""A Modbus device made from any profile: living values where the profile has signals, refusals elsewhere.

It shows that a profile can be read and what comes of it, not that the real device is so: map, limits and holes are the profile's own.

- Measurements swing about a plausible level: the anchor's, else one for the unit, inside range and wire type.
- Counters rise, roll over at their modulus, stop with the machine; states and enumerations change; alarms come seldom; settings stay.
- Addresses between two signals that the profile's `max_gap` lets a planner read along hold 0; all others, and `holes`, get exception 0x02.
- Date-times begin on 2026-01-01. Where a value is multiplied by a ratio or another register, that factor is 1.
- Reads larger than `max_registers` or `max_bits` get exception 0x03.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from schemas.library import load_profile, parsed_address
from schemas.modbus import REGISTERS, ModbusAddress, ModbusRules
from schemas.profile import Profile, ProfileSignal
from schemas.units import conversion, resolve
from simulators.device import DeviceSettings, DeviceType, FaultError
from simulators.modbus.date_words import date_words
from simulators.modbus.device import ModbusDevice, faults_of
from simulators.modbus.map_entry import MapEntry, Table, Value, WireType, decode, encode, width
from simulators.modbus.server import Framing
from simulators.modbus.unit import Unit

__all__ = ["PROFILED_FAULTS", "ProfileError", "ProfiledInstrument", "profiled"]

PROFILED_FAULTS = faults_of("reset", "sentinel")
_WIRE: Mapping[str, WireType] = {name: name for name in get_args(WireType)}
_BCD: Mapping[str, WireType] = {"bcd16": "uint16", "bcd32": "uint32"}
_UNSIGNED: Mapping[int, WireType] = {1: "uint16", 2: "uint32", 4: "uint64"}
_BEGIN = 1_767_225_600
"""2026-01-01 UTC, when the clocks of these devices begin, in seconds since 1970."""
_LEVELS: Mapping[str, float] = {
    "voltage": 230.0,
    "current": 12.0,
    "frequency": 50.0,
    "active_power": 7_500.0,
    "reactive_power": 1_800.0,
    "apparent_power": 7_800.0,
    "temperature": 318.15,
    "ratio": 0.9,
    "rotational_speed": 24.0,
}
"""A plausible level of a quantity, in its coherent unit."""
_RISES: Mapping[str, float] = {"energy": 7_500.0, "reactive_energy": 1_800.0, "apparent_energy": 7_800.0}
"""Rise of a counter for each second, in the quantity's coherent unit (joule and its kin)."""
_COUNTS = 0.2
"""Rise of any other counter for each second."""
_FIRST_COUNT = 1_000.0


class ProfileError(ValueError):
    """A profile that no device can be made from; the message names the signal and says why."""


@dataclass(slots=True)
class _Word:
    """What lies at one place: a number, or several fields of bits of it, or both."""

    entry: MapEntry
    number: ProfileSignal | None
    fields: list[tuple[ProfileSignal, int, int]]
    """Signal, first bit, number of bits."""


class ProfiledInstrument:
    """The device of a profile as an instrument, with one unit.

    `served` holds for each signal what its registers say at this moment, converted as the profile has it (scale and offset, in the device's
    own unit), a text's string, a date-time's microseconds since 1970, an array's list, the parts of named bits. Values that a ratio or another
    register multiplies are left out.
    """

    dead: frozenset[int] = frozenset()

    def __init__(self, profile: Profile, seed: int = 1, unit: int = 1) -> None:
        """*seed* decides levels and phases.

        Raises:
            ProfileError: it is no Modbus profile, or has a type that this simulator does not know.
        """
        if profile.protocol != "modbus":
            raise ProfileError(f"profile {profile.profile} is for {profile.protocol}; a Modbus one can be simulated")
        rules = ModbusRules.model_validate(profile.rules)
        self._profile = profile
        self._seed = seed
        self._unit = Unit(max_registers=rules.max_registers, max_bits=rules.max_bits)
        self.units: Mapping[int, Unit] = {unit: self._unit}
        self.served: dict[str, Any] = {}
        self._places = {s.name: _address(s) for s in profile.signals}
        self._wholes = [s for s in profile.signals if _whole(self._places[s.name])]
        self._words = list(self._gathered())
        for address in self._places.values():
            self._fill_factor(address)
        self._counted = {s.name: _FIRST_COUNT for s in profile.signals if s.kind == "counter"}
        self._time = 0.0
        self._halted = False
        self._sentinel: tuple[str, int] | None = None
        self._fill_gaps(rules)
        self.advance(0.0)

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass."""
        self._time += seconds
        if not self._halted:
            for signal in self._profile.signals:
                if signal.name in self._counted:
                    self._count(signal, seconds)
        for word in self._words:
            self._publish(word)
        for signal in self._wholes:
            self._publish_whole(signal)
        for name, address in self._places.items():
            if address.ratio or address.scale_by is not None:
                self.served.pop(name, None)

    def reset(self) -> None:
        """All counters to zero."""
        self._counted = dict.fromkeys(self._counted, 0.0)
        self.advance(0.0)

    def halt(self, halted: bool) -> None:
        """Counters stand still, or rise again."""
        self._halted = halted

    def sentinel(self, word: int | None) -> None:
        """The first signal that knows the fault *word* answers with it; 0 means the first one that the profile has."""
        known = [(s.name, w) for s in self._profile.signals for w in self._places[s.name].sentinels]
        chosen = next((pair for pair in known if word in (0, pair[1])), None)
        if word is not None and chosen is None:
            words = ", ".join(f"{w:#06x} of {name}" for name, w in known) or "none"
            raise FaultError(f"value={word:#06x} is not a fault of this profile; it has {words}")
        self._sentinel = None if word is None else chosen
        self.advance(0.0)

    # ------------------------------------------------------------------------------------------------------ the memory

    def _gathered(self) -> Iterator[_Word]:
        """The signals by the place where they lie; fields of bits share a word with each other and with its number."""
        words: dict[tuple[str, int, str, str], _Word] = {}
        for signal in self._profile.signals:
            address = self._places[signal.name]
            if _whole(address):
                continue
            entry = _entry(signal, address)
            word = words.setdefault((address.table, address.wire, entry.type, address.order), _Word(entry, None, []))
            byte = address.type in ("int8", "uint8")
            first = 8 if byte and address.byte == "high" else 0
            if signal.bit is not None:
                word.fields.append((signal, first + signal.bit, 1))
            elif signal.bits is not None:
                word.fields.append((signal, first + signal.bits[0], signal.bits[1]))
            elif byte:
                word.fields.append((signal, first, 8))
            else:
                word.number = signal
        yield from words.values()

    def _publish_whole(self, signal: ProfileSignal) -> None:
        """Values that share their registers with no other: texts, date-times, BCD, arrays."""
        address = self._places[signal.name]
        if address.type in ("string", "bytes"):
            self._write_text(signal, address)
            return
        if address.layout is not None:
            now = _BEGIN + int(self._time)
            self._write(address, date_words(address.layout, address.zone, now))
            self.served[signal.name] = now * 1_000_000
            return
        kind, size = _BCD.get(address.type) or _WIRE[address.type], REGISTERS[address.type]
        entry = MapEntry(signal.name, address.table, address.wire, type=kind, order=address.order)
        registers: list[int] = []
        held: list[Value] = []
        for _ in range(address.count or 1):
            raw = self._raw(signal)
            if address.type in _BCD:
                digits = str(abs(int(raw)) % 10 ** (4 * size))
                held.append(int(digits))
                registers += encode(entry, int(digits, 16))
            else:
                registers += encode(entry, raw)
                value = decode(entry, registers[-size:])
                assert value is not None  # the plain entry has no sentinels
                held.append(value)
        self._write(address, registers)
        self.served[signal.name] = held if address.count is not None else _scaled(signal, held[0])

    def _write(self, address: ModbusAddress, words: list[int]) -> None:
        for offset, word in enumerate(words):
            self._unit.set_word(address.table, address.wire + offset, word)

    def _fill_factor(self, address: ModbusAddress) -> None:
        """The register by which a value is multiplied holds 1, or the exponent 0."""
        by = address.scale_by
        if by is not None and by.address is not None:
            kind = _BCD.get(by.type) or _WIRE.get(by.type, "uint16")
            self._unit.set(MapEntry("", by.table, by.address, type=kind, order=by.order), 0 if by.exponent else 1)

    def _write_text(self, signal: ProfileSignal, address: ModbusAddress) -> None:
        size = address.registers * 2
        text = self._profile.profile.upper()[:size]
        data = text.encode(address.encoding)[:size].ljust(size, b"\0")
        if address.order in ("BADC", "DCBA"):
            swapped = bytearray(data)
            swapped[0::2], swapped[1::2] = data[1::2], data[0::2]
            data = bytes(swapped)
        self._write(address, [int.from_bytes(data[at : at + 2], "big") for at in range(0, size, 2)])
        self.served[signal.name] = text

    def _fill_gaps(self, rules: ModbusRules) -> None:
        """Zeros where the profile says that a planner may read along."""
        holes = {place for first, last in rules.holes for place in range(first, last + 1)}
        tables: dict[Table, set[int]] = {}
        for address in self._places.values():
            tables.setdefault(address.table, set()).update(range(address.wire, address.wire + address.registers))
        for table, places in tables.items():
            for low, high in pairwise(sorted(places)):
                if 1 < high - low <= rules.max_gap + 1:
                    for place in range(low + 1, high):
                        if place not in holes:
                            self._unit.set_word(table, place, 0)

    def _publish(self, word: _Word) -> None:
        entry = word.entry
        raw: Value = 0 if word.number is None else self._raw(word.number)
        for signal, first, count in word.fields:
            mask = (1 << count) - 1
            raw = int(raw) & ~(mask << first) | (int(self._raw(signal)) & mask) << first
        registers = encode(entry, raw)
        for offset, register in enumerate(registers):
            self._unit.set_word(entry.table, entry.address + offset, register)
        held = decode(entry, registers)
        assert held is not None  # the plain entry has no sentinels
        for signal, first, count in word.fields:
            part = int(held) >> first & (1 << count) - 1
            if self._places[signal.name].type == "int8" and count == 8 and part > 127:
                part -= 256
            self.served[signal.name] = bool(part) if signal.bit is not None else _scaled(signal, part)
        if word.number is not None:
            named = self._places[word.number.name].named_bits
            self.served[word.number.name] = _parts(int(held), named) if named else _scaled(word.number, held)
            if self._sentinel is not None and self._sentinel[0] == word.number.name:
                plain = MapEntry("", entry.table, entry.address, type=_UNSIGNED[width(entry)], order=entry.order)
                self._unit.set(plain, self._sentinel[1])

    # ------------------------------------------------------------------------------------------------------ the values

    def _raw(self, signal: ProfileSignal) -> Value:
        """What the device would hold for a signal now, before scale and offset."""
        value = self._value(signal)
        if isinstance(value, bool) or signal.bit is not None:
            return bool(value)
        if signal.enum is not None:
            return int(value)
        if signal.unit and signal.source_unit:
            scale, offset = conversion(resolve(signal.unit), resolve(signal.source_unit))
            value = value * scale + offset
        raw = (value - signal.offset) / signal.scale
        if self._places[signal.name].type.startswith("float"):
            return raw
        return math.floor(raw) if signal.kind == "counter" else round(raw)

    def _value(self, signal: ProfileSignal) -> Value:
        """The signal's value now, in its unit."""
        chance, anchor = self._chance(signal), self._profile.anchor
        address = self._places[signal.name]
        if signal.enum is not None:
            known = sorted(signal.enum)
            moving = signal.kind not in ("setting", "alarm")
            return known[int(self._time / (20.0 + 20.0 * chance)) % len(known) if moving else 0]
        if signal.type == "bool" or signal.bit is not None or address.type == "bool":
            if anchor is not None and anchor.signal == signal.name:
                return anchor.min > 0
            if signal.kind == "alarm":
                return (self._time + 120.0 * chance) % 120.0 > 115.0
            if signal.kind == "setting":
                return False
            return int(self._time / (3.0 + 9.0 * chance) + 2.0 * chance) % 2 == 1
        if signal.kind == "counter":
            return self._counted[signal.name]
        if signal.kind == "alarm":
            return 0
        low, high = self._bounds(signal)
        level = _level(signal)
        if not low <= level <= high:
            level = (low + high) / 2
        if signal.kind == "setting":
            return level
        swing = min(0.04 * abs(level), 0.3 * (high - level), 0.3 * (level - low))
        return level + swing * math.sin(self._time / (7.0 + 6.0 * chance) + 6.28 * chance)

    def _bounds(self, signal: ProfileSignal) -> tuple[float, float]:
        low, high = signal.range if signal.range is not None else (-math.inf, math.inf)
        anchor = self._profile.anchor
        if anchor is not None and anchor.signal == signal.name:
            low, high = max(low, anchor.min), min(high, anchor.max)
        return low, high

    def _count(self, signal: ProfileSignal, seconds: float) -> None:
        assert signal.counter is not None  # the schema has it so
        rate = _COUNTS
        if signal.unit:
            unit = resolve(signal.unit)
            rate = _RISES.get(unit.quantity, _COUNTS * float(unit.scale)) / float(unit.scale)
        if signal.counter.max_rate is not None:
            rate = min(rate, signal.counter.max_rate / 2)
        counted = self._counted[signal.name] + rate * seconds
        modulus = signal.counter.modulus
        self._counted[signal.name] = counted if modulus is None else counted % modulus

    def _chance(self, signal: ProfileSignal) -> float:
        """A number in [0, 1) of the signal's own, always the same for one seed."""
        return zlib.crc32(f"{self._seed}/{signal.name}".encode()) / 2**32


def _address(signal: ProfileSignal) -> ModbusAddress:
    address = parsed_address("modbus", signal)
    assert isinstance(address, ModbusAddress)
    if address.order != "ABCD" and (address.layout is not None or address.type in ("int8", "uint8")):
        raise ProfileError(f"signal {signal.name}: the simulator knows no {address.type} in the order {address.order}")
    return address


def _entry(signal: ProfileSignal, address: ModbusAddress) -> MapEntry:
    """Where a signal lies, without scale and bits."""
    if address.table in ("coil", "discrete"):
        return MapEntry(signal.name, address.table, address.wire, type="bool")
    kind: WireType = "uint16" if address.type in ("int8", "uint8") else _WIRE[address.type]
    return MapEntry(signal.name, address.table, address.wire, type=kind, order=address.order)


def _whole(address: ModbusAddress) -> bool:
    """Whether the value shares its registers with no other."""
    return address.type in ("string", "bytes", "datetime", *_BCD) or address.count is not None


def _parts(held: int, named: Mapping[str, tuple[int, int]]) -> dict[str, bool | int]:
    """The values of named bits; one bit is a truth value."""
    parts = {name: held >> first & (1 << count) - 1 for name, (first, count) in named.items()}
    return {name: bool(part) if named[name][1] == 1 else part for name, part in parts.items()}


def _level(signal: ProfileSignal) -> float:
    if not signal.unit:
        return 100.0
    unit = resolve(signal.unit)
    coherent = _LEVELS.get(unit.quantity)
    return 100.0 if coherent is None else (coherent - float(unit.offset)) / float(unit.scale)


def _scaled(signal: ProfileSignal, held: Value) -> Value:
    if isinstance(held, bool) or (signal.scale == 1 and signal.offset == 0):
        return held
    return held * signal.scale + signal.offset


def profiled(
    name_or_path: str, *, number: int = 0, framing: Framing = "tcp", unit: int = 1, base: Path | None = None
) -> DeviceType:
    """The device type of a profile, shipped (`delta-dtb`) or a file (`./ours.yaml`); *number* is its port's offset.

    Raises:
        DocumentError: there is no such profile, or it has mistakes.
        ProfileError: no device can be made from it.
    """
    profile = load_profile(name_or_path, base)
    ProfiledInstrument(profile)

    def create(settings: DeviceSettings) -> ModbusDevice:
        return ModbusDevice(settings, ProfiledInstrument(profile, settings.seed, unit), framing, PROFILED_FAULTS)

    return DeviceType(
        id=profile.profile,
        protocol="modbus-tcp" if framing == "tcp" else "modbus-rtu-over-tcp",
        port=number,
        summary=f"{profile.name.get('en')}, made from its profile",
        create=create,
        faults=PROFILED_FAULTS,
    )
