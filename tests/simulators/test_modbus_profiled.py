"""Each shipped Modbus profile against the device that is made from it, through the adapter and the normaliser's rules."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.modbus import ModbusAdapter
from gateway.collect._signal_rules import SignalRules
from gateway.config.load import load_config
from gateway.config.plan import PlannedLink
from gateway.config.resolve import resolve
from schemas.library import load_profile, shipped
from schemas.profile import ModbusRules
from schemas.status import by_name
from simulators.device import DeviceSettings, DeviceType, FaultError
from simulators.modbus.device import ModbusDevice
from simulators.modbus.profiled import ProfiledInstrument, ProfileError, profiled
from simulators.truth import TruthLog, read_truth
from simulators.workshop import Workshop
from tests.adapters.modbus_server import HOST, Running, Server

PROFILES = [name for name in shipped() if load_profile(name).protocol == "modbus"]
FROZEN = 1e-9
"""A speed at which nothing changes while a test looks."""

OWN = """
profile: ours
protocol: modbus
name: {zh: 自有设备, en: Our device}
source: {document: none}
verified: none
licence: Apache-2.0
anchor: {signal: pressure, min: 4, max: 8}
rules: {max_registers: 6, max_bits: 8, max_gap: 2, holes: [[8, 8]]}
signals:
  - {name: pressure, unit: bar, scale: 0.01, address: {table: holding, address: 0}}
  - {name: level, unit: "%", range: [20, 30], address: {table: holding, address: 2, type: float64, order: DCBA}}
  - {name: position, type: int64, address: {table: holding, address: 9, type: int64, order: CDAB}}
  - {name: model, type: string, kind: text, address: {table: input, address: 3, type: string, length: 3, order: BADC}}
  - {name: pieces, type: uint16, unit: pcs, kind: counter, counter: {counts: good part, modulus: 5},
     address: {table: holding, address: 7}}
  - {name: mode, type: uint16, kind: state, bits: [4, 2], enum: {1: auto, 2: manual}, address: {table: holding, address: 6}}
  - {name: fault, type: bool, kind: alarm, bit: 0, address: {table: holding, address: 6}}
  - {name: heat, unit: "°F", source_unit: "°C", scale: 0.1, address: {table: input, address: 0, type: int16, sentinels: {0x8000: BadSensorFailure}}}
  - {name: low_byte, type: int8, range: [-60, -20], address: {table: holding, address: 20, type: int8}}
  - {name: high_byte, type: uint8, address: {table: holding, address: 20, type: uint8, byte: high}}
  - {name: digits, type: uint32, range: [1000000, 2000000], address: {table: holding, address: 21, type: bcd32, order: CDAB}}
  - {name: harmonics, type: array, address: {table: holding, address: 23, type: int16, count: 5}}
  - {name: status, type: object, address: {table: holding, address: 28, fields: {running: 2, mode: [3, 4]}}}
  - {name: unix, type: datetime, address: {table: holding, address: 30, type: datetime, layout: unix32}}
  - {name: iec, type: datetime, address: {table: holding, address: 32, type: datetime, layout: iec870, zone: Asia/Shanghai}}
  - {name: six, type: datetime, address: {table: holding, address: 36, type: datetime, layout: registers6}}
  - {name: bytes, type: datetime, address: {table: holding, address: 42, type: datetime, layout: bytes6}}
  - {name: bcd, type: datetime, address: {table: holding, address: 45, type: datetime, layout: bcd6, zone: Asia/Shanghai}}
  - {name: milliseconds, type: datetime, address: {table: holding, address: 48, type: datetime, layout: unix64-ms}}
  - {name: scaled, address: {table: holding, address: 60, scale_by: holding 70}}
  - {name: door, type: bool, kind: state, address: {table: discrete, address: 4}}
"""


def link(tmp_path: Path, profile: str, port: int) -> PlannedLink:
    """The link that a configuration with one device of this profile comes to."""
    file = tmp_path / "workshop.yaml"
    settings = {"host": HOST, "port": port}
    device = {"id": "it", "profile": profile}
    links = [{"id": "line", "adapter": "modbus", "settings": settings, "devices": [device]}]
    file.write_text(json.dumps({"data_dir": ".", "links": links}), encoding="utf-8")
    (planned,) = resolve(load_config(file)).links
    return planned


@asynccontextmanager
async def serving(
    kind: DeviceType, truth: Path | None = None, speed: float = FROZEN
) -> AsyncIterator[tuple[ModbusDevice, int]]:
    device = kind.create(DeviceSettings(kind.id, TruthLog(truth, kind.id), speed=speed))
    assert isinstance(device, ModbusDevice)
    port = await device.start(HOST, 0)
    try:
        yield device, port
    finally:
        await device.stop()


def instrument_of(device: ModbusDevice) -> ProfiledInstrument:
    assert isinstance(device.instrument, ProfiledInstrument)
    return device.instrument


async def compared(tmp_path: Path, kind: DeviceType, profile: str) -> dict[str, tuple[Any, int]]:
    """What one scan of each group stores; compared with what the registers held, and with the refusals: there are none."""
    truth = tmp_path / "truth.ndjson"
    async with serving(kind, truth) as (device, port):
        planned = link(tmp_path, profile, port)
        (plan,) = planned.devices
        async with Running(ModbusAdapter(planned.spec())) as line:
            await line.until(lambda: all(line.rows(signal.point) for signal in plan.signals))
            assert not [item for item in line.items if type(item).__name__ == "PointTrouble"]
        served = instrument_of(device).served
        stored: dict[str, tuple[Any, int]] = {}
        for signal in plan.signals:
            raw, status = line.rows(signal.point)[0]
            value, status, _, _ = SignalRules(signal).full(raw, status)
            stored[signal.signal.name] = value, status
            if signal.signal.name not in served:
                continue  # multiplied by another register
            held = served[signal.signal.name]
            if signal.signal.source_unit:
                factor = signal.scale / signal.signal.scale
                held = held * factor + signal.offset - signal.signal.offset * factor  # type: ignore[operator]
            expected = pytest.approx(held, rel=1e-9) if isinstance(held, float) else held
            assert (value, status) == (expected, 0), signal.signal.name
    refused = [record for record in read_truth(truth) if record["kind"] == "exception"]
    assert {record["function"] for record in refused} <= {43}  # who it is, it does not say
    return stored


@pytest.mark.parametrize("name", PROFILES)
async def test_every_value_of_a_shipped_profile_arrives(name: str, tmp_path: Path) -> None:
    stored = await compared(tmp_path, profiled(name), name)
    profile = load_profile(name)
    assert profile.anchor is not None
    value, _ = stored[profile.anchor.signal]
    assert profile.anchor.min <= value <= profile.anchor.max


async def test_a_profile_of_ones_own_with_every_shape(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(OWN, encoding="utf-8")
    stored = await compared(tmp_path, profiled(str(file)), "./ours.yaml")
    assert 4 <= stored["pressure"][0] <= 8
    assert 20 <= stored["level"][0] <= 30
    assert stored["model"][0] == "OURS"
    assert stored["mode"][0] in (1, 2)
    assert stored["scaled"][0] == pytest.approx(100, abs=10)
    for clock in ("unix", "iec", "six", "bytes", "bcd", "milliseconds"):
        assert stored[clock][0] == 1_767_225_600_000_000  # 2026-01-01
    assert -60 <= stored["low_byte"][0] <= -20
    assert stored["heat"][0] == pytest.approx(113, abs=10)  # 45 °C


@pytest.mark.parametrize("name", PROFILES)
async def test_it_refuses_what_the_profile_says(name: str) -> None:
    rules = ModbusRules.model_validate(load_profile(name).rules)
    device = profiled(name).create(DeviceSettings(name, TruthLog(None, name)))
    assert isinstance(device, ModbusDevice)
    unit = device.instrument.units[1]
    for function in (3, 4):
        too_much = unit.answer(bytes((function, 0, 0, 0, rules.max_registers + 1)))
        assert too_much.code in (1, 3)
        for first, _ in rules.holes:
            assert unit.answer(bytes((function, first >> 8, first & 0xFF, 0, 1))).code in (1, 2)
        assert unit.answer(bytes((function, 0xFF, 0xFF, 0, 1))).code in (1, 2)


def test_values_live_and_counters_roll_over(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(OWN, encoding="utf-8")
    instrument = ProfiledInstrument(load_profile(str(file)))
    seen: dict[str, set[Any]] = {}
    for _ in range(200):
        instrument.advance(2.0)
        for name, value in instrument.served.items():
            seen.setdefault(name, set()).add(str(value) if isinstance(value, list | dict) else value)
    assert seen["pieces"] == {0, 1, 2, 3, 4}
    assert seen["mode"] == {1, 2}
    assert seen["door"] == seen["fault"] == {False, True}
    assert len(seen["pressure"]) > 10
    instrument.halt(True)
    before = instrument.served["pieces"]
    instrument.advance(60.0)
    assert instrument.served["pieces"] == before
    instrument.reset()
    assert instrument.served["pieces"] == 0


async def test_a_sentinel_of_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(OWN, encoding="utf-8")
    async with serving(profiled(str(file))) as (device, port):
        planned = link(tmp_path, "./ours.yaml", port)
        (point,) = [s.point for s in planned.devices[0].signals if s.signal.name == "heat"]
        adapter = ModbusAdapter(planned.spec())
        await adapter.connect()
        try:
            with pytest.raises(FaultError, match="0x8000 of heat"):
                await device.fault("sentinel", value=0x7FFF)
            await device.fault("sentinel")
            samples = await adapter.read([point])
            assert samples.status == [by_name("BadSensorFailure")]
            await device.clear()
            assert (await adapter.read([point])).status == [0]
        finally:
            await adapter.disconnect()


def test_what_cannot_be_simulated_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="siemens-s7-1500-line is for opcua"):
        profiled("siemens-s7-1500-line")


async def test_the_workshop_takes_profiles_beside_its_own_devices(tmp_path: Path) -> None:
    kinds = [profiled("eastron-sdm630"), profiled("delta-dtb", framing="rtu", unit=7, number=1)]
    async with Workshop(["meter-01", *kinds], truth_dir=tmp_path) as workshop:
        assert set(workshop.ports) == {"meter-01", "eastron-sdm630", "delta-dtb"}
        assert workshop.devices["delta-dtb"].protocol == "modbus-rtu-over-tcp"
    assert {Path(name).stem for name in os.listdir(tmp_path)} == {"meter-01", "eastron-sdm630", "delta-dtb"}


async def run(*words: str) -> tuple[asyncio.subprocess.Process, bytes]:
    """Starts the program; returns it with its first line of output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators", *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "GUANTONG_LANGUAGE": "en"},
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return process, await process.stdout.readline()


async def test_the_program_runs_a_profile() -> None:
    process, line = await run("--profile", "delta-dtb", "--port", "0", "--end-with-stdin")
    said = json.loads(line)
    assert (said["device"], said["protocol"]) == ("delta-dtb", "modbus-tcp")
    async with asyncio.timeout(30):
        await process.communicate(b"")
    assert process.returncode == 0


async def test_the_program_names_an_unknown_profile() -> None:
    process, _ = await run("--profile", "delta-dtbb")
    async with asyncio.timeout(30):
        _, complaint = await process.communicate()
    assert process.returncode == 1
    assert b"Did you mean delta-dtb?" in complaint


MBUS_EXAMPLE = (
    "0002 993A 0001 006F 519C C16D 0000 0100 0000 0000 03F8 3CAA 32A7 0204 519C C16D 0000 0200 0000 0000 "
    + ("0000 0000 0000 010B 4882 5F00 0003 0005 519C BBB3")
)
"""The registers of the maker's example (SCM-1202-0096-EN 2.1, page 30)."""


async def test_the_gateways_printed_example_means_what_the_manual_says(tmp_path: Path) -> None:
    memory = {place: int(word, 16) for place, word in enumerate(MBUS_EXAMPLE.split())}
    async with Server().holds(1, memory) as server:
        planned = link(tmp_path, "anybus-mbus-gateway", server.port)
        signals = {s.point: s for s in planned.devices[0].signals if s.signal.name[:7] not in ("value/2", "value/3")}
        adapter = ModbusAdapter(planned.spec())
        await adapter.connect()
        try:
            samples = await adapter.read(list(signals))
        finally:
            await adapter.disconnect()
    got = {
        signals[point].signal.name: SignalRules(signals[point]).full(raw, 0)[0]
        for point, raw in zip(samples.points, samples.values, strict=True)
    }
    at = int(datetime(2013, 5, 22, 13, 0, 29, tzinfo=UTC).timestamp()) * 1_000_000
    assert got == {
        "gateway/serial_number": 0x0002993A,
        "gateway/protocol_version": 1,
        "gateway/version": 111,
        "gateway/read_at": at,
        "meter/1/serial_number": 66600106,
        "meter/1/medium": 4,
        "meter/1/read_at": at,
        "meter/1/flags": 0,
        "value/1": 267000.0,
        "value/1/counted": 267,
        "value/1/exponent": 3,
        "value/1/unit": 5,
        "value/1/read_at": 1369226163 * 1_000_000,
    }
