"""sew-line: a row of sewing stations on one RTU line behind a serial server, units 1 to 6, of which unit 4 is dead.

The stations are generic; their map is their own: holding registers 0 to 13 (function 3), at most 32 a read; 10 to 13
and the status are single words, the counters uint32 with the low word first (CDAB). The stitch counter goes from
4,294,967,295 to 0; the piece counter begins each day at zero; every counter falls to zero at the operator's key. A
station without a needle thermometer says 0x7FFF there. Address 14 and above do not exist: exception 0x02.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from simulators.device import DeviceSettings, FaultError
from simulators.modbus.device import ModbusDevice, faults_of
from simulators.modbus.map_entry import MapEntry
from simulators.modbus.unit import Unit
from simulators.process.sewing import Station, StationState

__all__ = [
    "DEAD_UNITS",
    "NO_THERMOMETER",
    "SEWING_FAULTS",
    "SEWING_MAP",
    "SEWING_STATIONS",
    "SewingLine",
    "create_sewing",
]

SEWING_STATIONS: Mapping[int, str] = {unit: f"sew-{unit:02d}" for unit in range(1, 7)}
"""Unit on the first line and the station's id."""
DEAD_UNITS = frozenset({4})
NO_THERMOMETER = 0x7FFF
_WITHOUT_THERMOMETER = frozenset({3, 6})
_STITCH_MODULUS = 1 << 32

SEWING_FAULTS = {
    **faults_of("reset", "sentinel"),
    "sentinel": "the needle temperature of every station is replaced by value=0x7FFF (no thermometer)",
}


def _counter(name: str, address: int, unit: str = "") -> MapEntry:
    return MapEntry(name, "holding", address, type="uint32", order="CDAB", unit=unit)


_STATUS_BITS = ("power", "running", "thread_break", "bobbin_low", "needle_up", "foot_up", "operator", "fault")
_WORDS: tuple[MapEntry, ...] = (
    MapEntry("status/word", "holding", 0),
    MapEntry("motor/speed", "holding", 1, type="int16", unit="rpm"),
    _counter("stitches", 2),
    _counter("pieces", 4),
    _counter("trims", 6),
    _counter("run_time", 8, "s"),
    MapEntry("thread_breaks", "holding", 10),
    MapEntry("fault_code", "holding", 11),
    MapEntry(
        "needle/temperature", "holding", 12, type="int16", scale=0.1, unit="°C",
        sentinels={NO_THERMOMETER: "no thermometer"},
    ),
    MapEntry("station/type", "holding", 13),
)  # fmt: skip
SEWING_MAP: tuple[MapEntry, ...] = _WORDS + tuple(
    MapEntry(f"status/{name}", "holding", 0, bit=bit) for bit, name in enumerate(_STATUS_BITS)
)

_FAULT_CODES = {StationState.THREAD_BREAK: 11, StationState.BOBBIN_CHANGE: 21}
_STATION_TYPE = 5301


class SewingLine:
    """The stations of one line as an instrument."""

    dead: frozenset[int] = DEAD_UNITS

    def __init__(self, seed: int) -> None:
        """*seed* decides everything that varies; unit 1 stands shortly before the roll-over of its stitches."""
        rng = random.Random(f"sewing line {seed}")
        self.stations = {unit: Station(seed, unit) for unit in SEWING_STATIONS if unit not in DEAD_UNITS}
        self.units: Mapping[int, Unit] = {unit: Unit(max_registers=32) for unit in self.stations}
        self._stitches_before = {unit: rng.randint(1_000_000, 900_000_000) for unit in self.stations}
        self._stitches_before[1] = _STITCH_MODULUS - rng.randint(2_000, 4_000)
        self._sentinel = False

    def stitches(self, unit: int) -> int:
        """What the stitch counter of *unit* says."""
        return (self._stitches_before[unit] + self.stations[unit].stitches) % _STITCH_MODULUS

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass."""
        for station in self.stations.values():
            station.advance(seconds)
        self._publish()

    def reset(self) -> None:
        """All counters of all stations to zero."""
        for unit, station in self.stations.items():
            station.reset()
            self._stitches_before[unit] = 0
        self._publish()

    def halt(self, halted: bool) -> None:
        """Nobody sews, or everybody goes on."""
        for station in self.stations.values():
            station.halted = halted

    def sentinel(self, word: int | None) -> None:
        """No station has a needle thermometer any more."""
        if word not in (None, 0, NO_THERMOMETER):
            raise FaultError(f"value={word:#06x} is not a fault of these stations; they know {NO_THERMOMETER:#06x}")
        self._sentinel = word is not None
        self._publish()

    def _publish(self) -> None:
        for unit, station in self.stations.items():
            values = {
                "status/word": _status(station),
                "motor/speed": station.speed,
                "stitches": self.stitches(unit),
                "pieces": station.pieces,
                "trims": station.trims,
                "run_time": station.run_seconds,
                "thread_breaks": station.thread_breaks,
                "fault_code": _FAULT_CODES.get(station.state, 0),
                "needle/temperature": station.needle_celsius,
                "station/type": _STATION_TYPE,
            }
            memory = self.units[unit]
            for entry in _WORDS:
                memory.set(entry, values[entry.name])
            if self._sentinel or unit in _WITHOUT_THERMOMETER:
                memory.set_word("holding", 12, NO_THERMOMETER)


def _status(station: Station) -> int:
    at_rest = not station.running
    bits = {
        "power": True,
        "running": station.running,
        "thread_break": station.state is StationState.THREAD_BREAK,
        "bobbin_low": station.bobbin_low,
        "needle_up": at_rest,
        "foot_up": station.state in (StationState.HANDLING, StationState.ABSENT, StationState.BOBBIN_CHANGE),
        "operator": station.state is not StationState.ABSENT,
        "fault": station.state in _FAULT_CODES,
    }
    return sum(1 << place for place, name in enumerate(_STATUS_BITS) if bits[name])


def create_sewing(settings: DeviceSettings, *, baud: int | None = None) -> ModbusDevice:
    """Make a line of stations; *baud* lets the bytes of the line take their time."""
    return ModbusDevice(settings, SewingLine(settings.seed), "rtu", SEWING_FAULTS, baud=baud)
