"""Servers that are not the adapter's own: libmodbus, modbus-serial, pymodbus, and the simulated workshop with its shipped profiles."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from adapters.contract import DeviceSpec, LinkSpec, Point, SystemClock
from adapters.modbus import ModbusAdapter, ModbusDeviceSettings, ModbusLinkSettings, _unit
from schemas.library import load_profile, parsed_address
from schemas.profile import ModbusAddress, ModbusRules, Profile
from schemas.status import BAD_SENSOR_FAILURE, BAD_SERVER_TOO_BUSY
from simulators.device import Device, DeviceSettings
from simulators.modbus import DEAD_UNITS, FACTORIES, MAPS, PROFILES, decode, width
from simulators.truth import TruthLog, read_truth
from tests.adapters.modbus_server import HOST, Running, Spec, holding
from tests.servers.foreign import LibmodbusServer, ModbusSerialServer
from tests.servers.waiting import eventually_async

ORDERS = {"AB": "ABCD", "BA": "BADC", "ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "": "ABCD"}


def of_map(entry: dict[str, Any]) -> ModbusAddress:
    """An entry of the libmodbus server's map as our address."""
    return ModbusAddress(
        table=entry["table"],
        address=entry["address"],
        type=entry["type"],
        order=ORDERS.get(entry["order"], entry["order"]),
        length=entry["words"] if entry["type"] == "string" else None,
    )


def is_part(got: list[Any], served: list[Any]) -> bool:
    """Whether what was yielded is a part of what was served without a hole. Answers at the trial during the connect, or under way at
    the end, reach nobody."""
    return any(got == served[skip : skip + len(got)] for skip in range(len(served) - len(got) + 1))


async def test_libmodbus_every_type_and_order(libmodbus_server: LibmodbusServer) -> None:
    entries = list(libmodbus_server.map.values())
    spec = Spec(libmodbus_server.port).device(1, [of_map(entry) for entry in entries], period=0.05)
    async with Running(ModbusAdapter(spec.build())) as line:
        await line.until(lambda: all(len(line.rows(point)) >= 3 for point in range(len(entries))))
        for point, entry in enumerate(entries):
            assert set(line.rows(point)) == {(entry["value"], 0)}, entry
            assert type(line.rows(point)[0][0]) is type(entry["value"])
            assert not line.troubles(point)
        assert not line.states("unit-1")
        refused = line.adapter.counters().errors["exception_2"]
        seen = len(line.samples())
        await line.until(lambda: len(line.samples()) > seen + 20)  # the borders of its holes are known by now
        assert line.adapter.counters().errors["exception_2"] == refused


async def test_libmodbus_counter_over_its_end_equals_what_was_served(libmodbus_server: LibmodbusServer) -> None:
    counter = of_map(libmodbus_server.map["counter"])
    spec = Spec(libmodbus_server.port).device(255, [counter], period=0.02)
    async with Running(ModbusAdapter(spec.build())) as line:
        libmodbus_server.count(15)
        await line.until(lambda: any(5 <= value < 1000 for value, _ in line.rows(0)))
    got = [value for value, status in line.rows(0) if status == 0]

    def served() -> list[int]:
        answers = [t["values"] for t in libmodbus_server.truth if t.get("address") == 120 and "values" in t]
        return [high << 16 | low for low, high in answers]

    await eventually_async(lambda: is_part(got, served()), what="what was yielded is what was served")
    assert got[0] >= 4294967290
    assert any(before > after for before, after in pairwise(got))


async def test_modbus_serial_units_good_slow_busy_and_silent(
    modbus_serial_server: ModbusSerialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.2)
    spec = Spec(modbus_serial_server.port)
    addresses = [holding(a) for a in (0, 1, 48, 49, 60, 61)] + [
        ModbusAddress(table="input", address=7),
        ModbusAddress(table="coil", address=3, type="bool"),
        ModbusAddress(table="discrete", address=4, type="bool"),
    ]
    for unit in (1, 2, 3, 4, 5):
        spec.device(unit, addresses, period=0.1, timeout=0.6)
    async with Running(ModbusAdapter(spec.build())) as line:
        count = len(addresses)

        def complete(unit: int) -> bool:
            return all(line.rows(point) for point in range((unit - 1) * count, unit * count))

        await line.until(lambda: all(complete(unit) for unit in (1, 2, 3, 4)) and line.states("unit-5"))
        for unit in (1, 2, 3):
            base = (unit - 1) * count
            expected = [(1000 * unit + a) % 65536 for a in (0, 1, 48, 49, 60, 61)]
            expected += [1000 * unit + 507, (unit + 3) % 3 == 0, (unit + 4) % 5 == 0]
            assert [line.rows(base + i)[-1] for i in range(count)] == [(value, 0) for value in expected]
        assert {line.rows(3 * count + i)[-1] for i in range(count)} == {(None, BAD_SERVER_TOO_BUSY)}
        assert {state.device for unit in range(1, 6) for state in line.states(f"unit-{unit}")} == {"unit-5"}


@asynccontextmanager
async def pymodbus_server(device: SimDevice) -> AsyncIterator[int]:
    server = ModbusTcpServer(device, address=(HOST, 0))
    await server.serve_forever(background=True)
    assert server.transport is not None
    try:
        yield server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


async def test_pymodbus_server() -> None:
    """Its data types are laid out by its own code: float64, int64, strings and bits come back as they were put in."""
    words = [
        SimData(0, values=[-5], datatype=DataType.INT16),
        SimData(1, values=[math.pi], datatype=DataType.FLOAT64),
        SimData(5, values=[-(2**62) - 1], datatype=DataType.INT64),
        SimData(9, values=[1.5], datatype=DataType.FLOAT32),
        SimData(11, values="Guantong", datatype=DataType.STRING),
    ]
    bits = [SimData(0, values=[True, False, True, True], datatype=DataType.BITS)]
    device = SimDevice(1, (bits, bits, words, words))
    addresses = [
        holding(0, "int16"),
        holding(1, "float64"),
        holding(5, "int64"),
        ModbusAddress(table="input", address=9, type="float32"),
        ModbusAddress(table="input", address=11, type="string", length=4),
        *(ModbusAddress(table="coil", address=n, type="bool") for n in range(4)),
    ]
    async with pymodbus_server(device) as port:
        spec = Spec(port).device(1, addresses)
        async with Running(ModbusAdapter(spec.build())) as line:
            await line.until(lambda: all(line.rows(point) for point in range(len(addresses))))
            values = [line.rows(point)[0] for point in range(len(addresses))]
    expected = [-5, math.pi, -(2**62) - 1, 1.5, "Guantong", True, False, True, True]
    assert values == [(value, 0) for value in expected]


# ------------------------------------------------------------------------------------------------ the simulated workshop


def link_to(device: Device, port: int, profile: Profile, units: list[int], period: float) -> LinkSpec:
    """The link that a configuration of this profile makes: every group scanned in `period` seconds."""
    transport = "tcp" if device.protocol == "modbus-tcp" else "rtu-over-tcp"
    specs = []
    number = 0
    for unit in units:
        points = []
        for signal in profile.signals:
            address = parsed_address("modbus", signal)
            points.append(Point(number, f"unit-{unit}", signal.name, signal.group, address, signal.type))
            number += 1
        rules = ModbusRules.model_validate({**profile.rules, "timeout": 0.5})
        groups = dict.fromkeys(profile.groups, period)
        specs.append(DeviceSpec(f"unit-{unit}", ModbusDeviceSettings(unit=unit), rules, groups, tuple(points)))
    settings = ModbusLinkSettings(host=HOST, port=port, transport=transport)
    return LinkSpec(device.id, settings, tuple(specs), SystemClock())


def raw(entry: Any, record: dict[str, Any]) -> Any:
    """What the simulator's own decoder makes of a record of the truth, before scale and bit; None when it lies elsewhere."""
    function = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}[entry.table]
    data = record.get("bits") or record.get("registers")
    at = entry.address - record["address"]
    if record["function"] != function or data is None or at < 0 or at + width(entry) > len(data):
        return None
    plain = type(entry)(entry.name, entry.table, entry.address, type=entry.type, order=entry.order)
    return decode(plain, data[at : at + width(entry)])


@pytest.mark.parametrize("name", list(FACTORIES))
async def test_a_simulated_device_by_its_shipped_profile(name: str, tmp_path: Path) -> None:
    """Each value that was served is yielded, in order, and each that is yielded was served."""
    path = tmp_path / "truth.ndjson"
    device = FACTORIES[name].create(DeviceSettings(name, TruthLog(path, name), speed=20.0))
    port = await device.start(HOST, 0)
    profile = load_profile(PROFILES[name])
    units = [1, 2, 4, 6] if name == "sew-line" else [1]
    spec = link_to(device, port, profile, units, 0.1)
    living = [unit for unit in units if name != "sew-line" or unit not in DEAD_UNITS]
    entries = {entry.name: entry for entry in MAPS[PROFILES[name]]}
    try:
        async with Running(ModbusAdapter(spec)) as line:
            points = [p for d in spec.devices for p in d.points if int(d.id[5:]) in living]
            await line.until(lambda: all(len(line.rows(p.id)) >= 4 for p in points), timeout=20)
            assert not [item for item in line.items if type(item).__name__ == "PointTrouble"]
            assert {state.device for unit in units for state in line.states(f"unit-{unit}") if not state.up} == {
                f"unit-{unit}" for unit in units if unit not in living
            }
    finally:
        await device.stop()
    truth = [record for record in read_truth(path) if record["kind"] == "answer"]
    compared = 0
    for point in points:
        entry = entries.get(point.signal)
        if entry is None:
            continue
        unit = int(point.device[5:])
        served = [v for r in truth if r["unit"] == unit and (v := raw(entry, r)) is not None]
        got = [value for value, _ in line.rows(point.id)]
        # answers before the first sample (the trial at the connect) and after the last one reached nobody
        assert any(got == served[skip : skip + len(got)] for skip in range(len(served) - len(got) + 1)), (
            f"{point.signal}: got {got}, served {served}"
        )
        assert len(served) - len(got) <= 4
        compared += 1
    assert compared >= len(points) // 2


async def test_a_sentinel_of_the_temperature_controller(tmp_path: Path) -> None:
    device = FACTORIES["temp-01"].create(DeviceSettings("temp-01", TruthLog(None, "temp-01")))
    port = await device.start(HOST, 0)
    profile = load_profile("delta-dtb")
    spec = link_to(device, port, profile, [1], 0.05)
    (point,) = (p.id for p in spec.devices[0].points if p.signal == "temperature/actual")
    try:
        async with Running(ModbusAdapter(spec)) as line:
            await line.until(lambda: line.rows(point) and line.rows(point)[-1][1] == 0)
            await device.fault("sentinel", value=0x8003)
            await line.until(lambda: line.rows(point)[-1][1] != 0)
            assert line.rows(point)[-1] == (0x8003 - 0x10000, BAD_SENSOR_FAILURE)
    finally:
        await device.stop()
