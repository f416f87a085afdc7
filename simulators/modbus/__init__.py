"""The simulated Modbus devices, their maps as data, and a small decoder of its own for tests."""

from __future__ import annotations

from collections.abc import Mapping

from simulators.device import DeviceType
from simulators.modbus.map_entry import MapEntry, decode, encode, sentinel_of, width
from simulators.modbus.meter import METER_FAULTS, METER_MAP, create_meter
from simulators.modbus.press import PRESS_FAULTS, PRESS_MAP, create_press
from simulators.modbus.sewing import DEAD_UNITS, SEWING_FAULTS, SEWING_MAP, SEWING_STATIONS, create_sewing
from simulators.modbus.temperature import TEMPERATURE_FAULTS, TEMPERATURE_MAP, create_temperature

__all__ = [
    "DEAD_UNITS",
    "FACTORIES",
    "MAPS",
    "PROFILES",
    "SEWING_STATIONS",
    "MapEntry",
    "decode",
    "encode",
    "sentinel_of",
    "width",
]

FACTORIES: dict[str, DeviceType] = {
    "meter-01": DeviceType(
        id="meter-01",
        protocol="modbus-tcp",
        port=11,
        summary="three-phase energy meter after the Eastron SDM630's map, with holes, 80 registers a read",
        create=create_meter,
        faults=METER_FAULTS,
    ),
    "temp-01": DeviceType(
        id="temp-01",
        protocol="modbus-tcp",
        port=12,
        summary="temperature controller of a curing oven after the Delta DTB's map, 8 words a read",
        create=create_temperature,
        faults=TEMPERATURE_FAULTS,
    ),
    "press-01": DeviceType(
        id="press-01",
        protocol="modbus-rtu-over-tcp",
        port=13,
        summary="old press seen through an 8-channel input and counter module (unit 1)",
        create=create_press,
        faults=PRESS_FAULTS,
    ),
    "sew-line": DeviceType(
        id="sew-line",
        protocol="modbus-rtu-over-tcp",
        port=14,
        summary="six sewing stations on one line (units 1 to 6), of which unit 4 never answers",
        create=create_sewing,
        faults=SEWING_FAULTS,
    ),
}
"""Device types by the id of their first instance."""

PROFILES: Mapping[str, str] = {
    "meter-01": "eastron-sdm630",
    "temp-01": "delta-dtb",
    "press-01": "generic-dio8-counter",
    "sew-line": "generic-sewing-station",
}
"""The shipped profile that fits each device type; for a line, each of its units."""

MAPS: dict[str, tuple[MapEntry, ...]] = {
    "eastron-sdm630": METER_MAP,
    "delta-dtb": TEMPERATURE_MAP,
    "generic-dio8-counter": PRESS_MAP,
    "generic-sewing-station": SEWING_MAP,
}
"""The map of each device type by the name of its profile; on a line, each unit has it."""
