"""meter-01: a three-phase energy meter over Modbus TCP after the map of the Eastron SDM630.

Source of the map, the largest read and the refusals: Eastron, "SDM630Modbus Smart Meter Modbus Protocol
Implementation", V1.8, clauses 1.1, 1.2.1 and 3.11.1. Function 4 only, each value a float32 in two registers, most
significant first, at an even address. As there, a read that cuts a value or touches an address without one gets
exception 0x02, and one of more than 80 registers (40 values) an exception, whose code the document leaves open: here
0x03, as the protocol has it for quantities. The real meter speaks RTU; this one stands behind a Modbus TCP converter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from simulators.device import DeviceSettings, FaultError
from simulators.modbus.device import ModbusDevice, faults_of
from simulators.modbus.map_entry import MapEntry
from simulators.modbus.unit import Unit
from simulators.process.power import Phase, Supply

__all__ = ["METER_FAULTS", "METER_MAP", "Meter", "create_meter"]

METER_FAULTS = faults_of("reset")
_LINES = (("l1-l2", 0, 1), ("l2-l3", 1, 2), ("l3-l1", 2, 0))


def _entries() -> Iterator[MapEntry]:
    def entry(address: int, name: str, unit: str = "") -> MapEntry:
        return MapEntry(name, "input", address, type="float32", unit=unit)

    for phase in range(3):
        wire, line = 2 * phase, f"l{phase + 1}"
        yield entry(0x00 + wire, f"voltage/{line}", "V")
        yield entry(0x06 + wire, f"current/{line}", "A")
        yield entry(0x0C + wire, f"power/active/{line}", "W")
        yield entry(0x12 + wire, f"power/apparent/{line}", "VA")
        yield entry(0x18 + wire, f"power/reactive/{line}", "var")
        yield entry(0x1E + wire, f"power_factor/{line}")
        yield entry(0x24 + wire, f"phase_angle/{line}", "deg")
        yield entry(0xC8 + wire, f"voltage/{_LINES[phase][0]}", "V")
        yield entry(0xEA + wire, f"thd/voltage/{line}", "%")
        yield entry(0xF0 + wire, f"thd/current/{line}", "%")
        yield entry(0x102 + wire, f"demand/current/{line}", "A")
        yield entry(0x108 + wire, f"demand/current_max/{line}", "A")
        yield entry(0x14E + wire, f"thd/voltage/{_LINES[phase][0]}", "%")
        yield entry(0x15A + wire, f"energy/{line}/active/import", "kWh")
        yield entry(0x160 + wire, f"energy/{line}/active/export", "kWh")
        yield entry(0x166 + wire, f"energy/{line}/active/total", "kWh")
        yield entry(0x16C + wire, f"energy/{line}/reactive/import", "kvarh")
        yield entry(0x172 + wire, f"energy/{line}/reactive/export", "kvarh")
        yield entry(0x178 + wire, f"energy/{line}/reactive/total", "kvarh")
    yield entry(0x2A, "voltage/average", "V")
    yield entry(0x2E, "current/average", "A")
    yield entry(0x30, "current/sum", "A")
    yield entry(0x34, "power/active/total", "W")
    yield entry(0x38, "power/apparent/total", "VA")
    yield entry(0x3C, "power/reactive/total", "var")
    yield entry(0x3E, "power_factor/total")
    yield entry(0x42, "phase_angle/total", "deg")
    yield entry(0x46, "frequency", "Hz")
    yield entry(0x48, "energy/active/import", "kWh")
    yield entry(0x4A, "energy/active/export", "kWh")
    yield entry(0x4C, "energy/reactive/import", "kvarh")
    yield entry(0x4E, "energy/reactive/export", "kvarh")
    yield entry(0x50, "energy/apparent", "kVAh")
    yield entry(0x52, "charge", "Ah")
    yield entry(0x54, "demand/active", "W")
    yield entry(0x56, "demand/active_max", "W")  # the document prints VA here, for a maximum of watts
    yield entry(0x64, "demand/apparent", "VA")
    yield entry(0x66, "demand/apparent_max", "VA")
    yield entry(0x68, "demand/neutral", "A")
    yield entry(0x6A, "demand/neutral_max", "A")
    yield entry(0xCE, "voltage/line_average", "V")
    yield entry(0xE0, "current/neutral", "A")
    yield entry(0xF8, "thd/voltage/average", "%")
    yield entry(0xFA, "thd/current/average", "%")
    yield entry(0x154, "thd/voltage/line_average", "%")
    yield entry(0x156, "energy/active/total", "kWh")
    yield entry(0x158, "energy/reactive/total", "kvarh")


METER_MAP: tuple[MapEntry, ...] = tuple(sorted(_entries(), key=lambda entry: entry.address))


def _angle(watts: float, reactive: float) -> float:
    return math.degrees(math.atan2(reactive, watts))


def _factor(watts: float, apparent: float) -> float:
    return watts / apparent if apparent else 1.0


def _phase_values(line: str, phase: Phase) -> dict[str, float]:
    apparent = phase.volt_amperes
    return {
        f"voltage/{line}": phase.volts,
        f"current/{line}": phase.amperes,
        f"power/active/{line}": phase.watts,
        f"power/apparent/{line}": apparent,
        f"power/reactive/{line}": phase.vars,
        f"power_factor/{line}": _factor(phase.watts, apparent),
        f"phase_angle/{line}": _angle(phase.watts, phase.vars),
        f"thd/voltage/{line}": phase.volts_thd,
        f"thd/current/{line}": phase.amperes_thd,
        f"energy/{line}/active/import": phase.watt_hours / 1000.0,
        f"energy/{line}/active/export": 0.0,
        f"energy/{line}/active/total": phase.watt_hours / 1000.0,
        f"energy/{line}/reactive/import": phase.var_hours / 1000.0,
        f"energy/{line}/reactive/export": 0.0,
        f"energy/{line}/reactive/total": phase.var_hours / 1000.0,
    }


def _line_values(phases: tuple[Phase, ...]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, one, other in _LINES:
        first, second = phases[one], phases[other]
        values[f"voltage/{name}"] = math.sqrt(first.volts**2 + second.volts**2 + first.volts * second.volts)
        values[f"thd/voltage/{name}"] = (first.volts_thd + second.volts_thd) / 2.0
    values["voltage/line_average"] = sum(values[f"voltage/{name}"] for name, _, _ in _LINES) / 3.0
    values["thd/voltage/line_average"] = sum(values[f"thd/voltage/{name}"] for name, _, _ in _LINES) / 3.0
    return values


def _total_values(supply: Supply) -> dict[str, float]:
    phases = supply.phases
    active = sum(phase.watt_hours for phase in phases) / 1000.0
    reactive = sum(phase.var_hours for phase in phases) / 1000.0
    amperes = sum(phase.amperes for phase in phases)
    return {
        "voltage/average": sum(phase.volts for phase in phases) / 3.0,
        "current/average": amperes / 3.0,
        "current/sum": amperes,
        "current/neutral": supply.neutral_amperes,
        "power/active/total": supply.watts,
        "power/apparent/total": supply.volt_amperes,
        "power/reactive/total": supply.vars,
        "power_factor/total": _factor(supply.watts, supply.volt_amperes),
        "phase_angle/total": _angle(supply.watts, supply.vars),
        "frequency": supply.frequency,
        "energy/active/import": active,
        "energy/active/export": 0.0,
        "energy/active/total": active,
        "energy/reactive/import": reactive,
        "energy/reactive/export": 0.0,
        "energy/reactive/total": reactive,
        "energy/apparent": supply.volt_ampere_hours / 1000.0,
        "charge": supply.ampere_hours,
        "thd/voltage/average": sum(phase.volts_thd for phase in phases) / 3.0,
        "thd/current/average": sum(phase.amperes_thd for phase in phases) / 3.0,
    }


def _demand_values(supply: Supply) -> dict[str, float]:
    values = {
        "demand/active": supply.power_demand.value,
        "demand/active_max": supply.power_demand.maximum,
        "demand/apparent": supply.apparent_demand.value,
        "demand/apparent_max": supply.apparent_demand.maximum,
        "demand/neutral": supply.neutral_demand.value,
        "demand/neutral_max": supply.neutral_demand.maximum,
    }
    for number, demand in enumerate(supply.current_demands, start=1):
        values[f"demand/current/l{number}"] = demand.value
        values[f"demand/current_max/l{number}"] = demand.maximum
    return values


class Meter:
    """The meter as an instrument: unit 1, its memory renewed whenever the supply has moved on."""

    dead: frozenset[int] = frozenset()

    def __init__(self, seed: int) -> None:
        """*seed* decides the loads."""
        self.supply = Supply(seed)
        self._unit = Unit(max_registers=80, pairs_only=True)
        self.units: Mapping[int, Unit] = {1: self._unit}

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass."""
        self.supply.advance(seconds)
        values = _total_values(self.supply) | _line_values(self.supply.phases) | _demand_values(self.supply)
        for number, phase in enumerate(self.supply.phases, start=1):
            values |= _phase_values(f"l{number}", phase)
        for entry in METER_MAP:
            self._unit.set(entry, values[entry.name])

    def reset(self) -> None:
        """Energies and greatest demands to zero."""
        self.supply.reset()
        self.advance(0.0)

    def halt(self, halted: bool) -> None:
        """The machines behind the meter stand, or go on."""
        self.supply.halted = halted

    def sentinel(self, word: int | None) -> None:
        """The meter knows no such words."""
        if word is not None:
            raise FaultError("a meter of this type has no words that mean a fault")


def create_meter(settings: DeviceSettings) -> ModbusDevice:
    """Make a meter."""
    return ModbusDevice(settings, Meter(settings.seed), "tcp", METER_FAULTS)
