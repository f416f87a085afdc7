"""temp-01: the temperature controller of a curing oven, over Modbus TCP after the map of the Delta DTB.

Source: Delta Electronics, "DTB Series Temperature Controller" user manual, clause 13 (RS-485 communication): function
3, at most 8 words a read; function 2, at most 16 bits; process value 1000H in 0.1 degrees, where 8002H to 8007H are
faults. Bits and their places: the same clause as public drivers for the DTB use it; not tried on a real controller.
A larger read gets exception 0x03 here; the manual does not say which. Writing is off, as the controller comes from the
factory, and so functions 5 and 6 get exception 0x01.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulators.device import DeviceSettings, FaultError
from simulators.modbus.device import ModbusDevice, faults_of
from simulators.modbus.map_entry import MapEntry
from simulators.modbus.unit import Unit
from simulators.process.oven import Oven

__all__ = [
    "ADC_FAULT",
    "INITIALISING",
    "INPUT_FAULT",
    "MEMORY_FAULT",
    "NO_SENSOR",
    "TEMPERATURE_FAULTS",
    "TEMPERATURE_MAP",
    "TemperatureController",
    "create_temperature",
]

INITIALISING = 0x8002
NO_SENSOR = 0x8003
INPUT_FAULT = 0x8004
ADC_FAULT = 0x8006
MEMORY_FAULT = 0x8007
_SENTINELS: Mapping[int, str] = {
    INITIALISING: "initial process: no temperature yet",
    NO_SENSOR: "temperature sensor not connected",
    INPUT_FAULT: "temperature sensor input error",
    ADC_FAULT: "ADC input error",
    MEMORY_FAULT: "memory read or write error",
}

TEMPERATURE_FAULTS = {
    **faults_of("sentinel"),
    "sentinel": "the process value is replaced by value=N: 0x8002 to 0x8004, 0x8006, 0x8007 (default 0x8003, no sensor)",
}


def _tenths(name: str, address: int, unit: str, sentinels: Mapping[int, str] | None = None) -> MapEntry:
    return MapEntry(name, "holding", address, type="int16", scale=0.1, unit=unit, sentinels=sentinels or {})


def _word(name: str, address: int, unit: str = "") -> MapEntry:
    return MapEntry(name, "holding", address, unit=unit)


_LED_BITS = {
    "alarm/3/active": 0,
    "alarm/2/active": 1,
    "display/fahrenheit": 2,
    "display/celsius": 3,
    "alarm/1/active": 4,
    "output/cooling_on": 5,
    "output/heating_on": 6,
    "control/tuning": 7,
}
_LED_WORD = 0x102A

_HOLDING: tuple[MapEntry, ...] = (
    _tenths("temperature/actual", 0x1000, "°C", _SENTINELS),
    _tenths("temperature/setpoint", 0x1001, "°C"),
    _tenths("temperature/range_max", 0x1002, "°C"),
    _tenths("temperature/range_min", 0x1003, "°C"),
    _word("sensor/type", 0x1004),
    _word("control/method", 0x1005),
    _word("control/direction", 0x1006),
    _word("output/heating_cycle", 0x1007, "s"),
    _word("output/cooling_cycle", 0x1008, "s"),
    _tenths("pid/proportional_band", 0x1009, "K"),
    _word("pid/integral_time", 0x100A, "s"),
    _word("pid/derivative_time", 0x100B, "s"),
    _tenths("pid/integral_default", 0x100C, "%"),
    _tenths("pid/offset", 0x100D, "%"),
    _word("pid/coefficient", 0x100E),
    _word("pid/dead_band", 0x100F),
    _tenths("output/heating_hysteresis", 0x1010, "K"),
    _tenths("output/cooling_hysteresis", 0x1011, "K"),
    _tenths("output/heating", 0x1012, "%"),
    _tenths("output/cooling", 0x1013, "%"),
    _word("output/analog_max", 0x1014),
    _word("output/analog_min", 0x1015),
    _tenths("temperature/correction", 0x1016, "K"),
    _word("display/decimals", 0x1017),
    _word("alarm/1/type", 0x1020),
    _word("alarm/2/type", 0x1021),
    _word("alarm/3/type", 0x1022),
    _word("alarm/system_output", 0x1023),
    _tenths("alarm/1/upper", 0x1024, "K"),
    _tenths("alarm/1/lower", 0x1025, "K"),
    _tenths("alarm/2/upper", 0x1026, "°C"),
    _tenths("alarm/2/lower", 0x1027, "°C"),
    _tenths("alarm/3/upper", 0x1028, "°C"),
    _tenths("alarm/3/lower", 0x1029, "°C"),
    _word("led/word", _LED_WORD),
    _word("keys/word", 0x102B),
    _word("lock", 0x102C),
    _tenths("current/heater", 0x102D, "A"),
    _word("firmware", 0x102F),
)
_WORD_BITS = tuple(MapEntry(name, "holding", _LED_WORD, bit=bit) for name, bit in _LED_BITS.items())
_BITS: tuple[MapEntry, ...] = tuple(
    MapEntry(name, "discrete", address, type="bool")
    for address, name in (
        (0x0800, "led/tuning"),
        (0x0801, "led/output1"),
        (0x0802, "led/output2"),
        (0x0803, "led/alarm1"),
        (0x0804, "led/fahrenheit"),
        (0x0805, "led/celsius"),
        (0x0806, "led/alarm2"),
        (0x0807, "led/alarm3"),
        (0x0808, "keys/set"),
        (0x0809, "keys/function"),
        (0x080A, "keys/up"),
        (0x080B, "keys/down"),
        (0x080C, "event/1"),
        (0x080D, "event/2"),
        (0x080E, "alarm/system"),
        (0x0810, "control/write_enabled"),
        (0x0811, "control/celsius"),
        (0x0812, "control/decimal_point"),
        (0x0813, "control/tuning_on"),
        (0x0814, "control/run"),
    )
)
TEMPERATURE_MAP: tuple[MapEntry, ...] = _HOLDING + _WORD_BITS + _BITS

_CONSTANTS: Mapping[str, float] = {
    "temperature/range_max": 400.0,
    "temperature/range_min": 0.0,
    "sensor/type": 0,  # thermocouple K
    "control/method": 0,  # PID
    "control/direction": 2,  # heating on output 1, cooling on output 2
    "output/heating_cycle": 4,
    "output/cooling_cycle": 4,
    "pid/integral_default": 0.0,
    "pid/offset": 0.0,
    "pid/coefficient": 100,
    "pid/dead_band": 0,
    "output/heating_hysteresis": 0.0,
    "output/cooling_hysteresis": 0.0,
    "output/analog_max": 0,
    "output/analog_min": 0,
    "temperature/correction": 0.0,
    "display/decimals": 1,
    "alarm/1/type": 1,  # deviation, above and below
    "alarm/2/type": 6,  # absolute, above
    "alarm/3/type": 0,  # none of its own: shows the system alarm
    "alarm/system_output": 3,
    "alarm/1/upper": 8.0,
    "alarm/1/lower": 8.0,
    "alarm/2/upper": 215.0,
    "alarm/2/lower": 0.0,
    "alarm/3/upper": 0.0,
    "alarm/3/lower": 0.0,
    "keys/word": 0x000F,  # a pressed key is 0
    "lock": 0,
    "firmware": 0x0160,
}


class TemperatureController:
    """The controller as an instrument, with the oven it controls: unit 1."""

    dead: frozenset[int] = frozenset()

    def __init__(self, seed: int) -> None:
        """*seed* decides doors, recipes and noise."""
        self.oven = Oven(seed)
        self._unit = Unit(max_registers=8, max_bits=16)
        self.units: Mapping[int, Unit] = {1: self._unit}
        self._sentinel: int | None = None
        self._entries = {entry.name: entry for entry in _HOLDING + _BITS}
        for name, value in _CONSTANTS.items():
            self._unit.set(self._entries[name], value)

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time pass."""
        self.oven.advance(seconds)
        self._publish()

    def reset(self) -> None:
        """It has no counters: nothing happens."""

    def halt(self, halted: bool) -> None:
        """Control goes to STOP and the oven cools down, or RUN again."""
        self.oven.halted = halted
        self._publish()

    def sentinel(self, word: int | None) -> None:
        """Answer *word* as process value; 0 means that the sensor is not connected."""
        chosen = NO_SENSOR if word == 0 else word
        if chosen is not None and chosen not in _SENTINELS:
            words = ", ".join(f"{known:#06x} ({what})" for known, what in _SENTINELS.items())
            raise FaultError(f"value={chosen:#06x} is not a fault of this controller; it knows {words}")
        self._sentinel = chosen
        self._publish()

    def _publish(self) -> None:
        oven = self.oven
        sentinel = INITIALISING if oven.temperature is None else self._sentinel
        system = sentinel is not None and sentinel != INITIALISING
        measured = oven.temperature or 0.0
        known = sentinel is None
        lamps = {
            "alarm/1/active": known and abs(measured - oven.setpoint) > _CONSTANTS["alarm/1/upper"],
            "alarm/2/active": known and measured > _CONSTANTS["alarm/2/upper"],
            "alarm/3/active": system,
            "display/fahrenheit": False,
            "display/celsius": True,
            "control/tuning": False,
            "output/heating_on": oven.heating > 0.0,
            "output/cooling_on": oven.cooling > 0.0,
        }
        values: dict[str, float] = {
            "temperature/actual": measured,
            "temperature/setpoint": oven.setpoint,
            "output/heating": oven.heating,
            "output/cooling": oven.cooling,
            "pid/proportional_band": oven.proportional_band,
            "pid/integral_time": oven.integral_time,
            "pid/derivative_time": oven.derivative_time,
            "current/heater": oven.amperes,
            "led/word": sum(1 << bit for name, bit in _LED_BITS.items() if lamps[name]),
            "led/tuning": lamps["control/tuning"],
            "led/output1": lamps["output/heating_on"],
            "led/output2": lamps["output/cooling_on"],
            "led/alarm1": lamps["alarm/1/active"],
            "led/alarm2": lamps["alarm/2/active"],
            "led/alarm3": lamps["alarm/3/active"],
            "led/fahrenheit": False,
            "led/celsius": True,
            **{f"keys/{key}": True for key in ("set", "function", "up", "down")},
            "event/1": False,
            "event/2": False,
            "alarm/system": system,
            "control/write_enabled": False,
            "control/celsius": True,
            "control/decimal_point": True,
            "control/tuning_on": False,
            "control/run": not oven.halted,
        }
        for name, value in values.items():
            self._unit.set(self._entries[name], value)
        if sentinel is not None:
            self._unit.set_word("holding", 0x1000, sentinel)


def create_temperature(settings: DeviceSettings) -> ModbusDevice:
    """Make a temperature controller."""
    return ModbusDevice(settings, TemperatureController(settings.seed), "tcp", TEMPERATURE_FAULTS)
