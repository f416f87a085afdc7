"""`check` and the plausibility anchor of a profile: a violated one names the likely cause."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from tests.adapters.modbus_server import HOST, Server

PROFILE = """
profile: tested
protocol: modbus
name: {zh: 表, en: meter}
source: {document: none}
verified: none
licence: Apache-2.0
anchor: {signal: value, min: MIN, max: MAX, why: {zh: 应当如此。, en: It must be so.}}
rules: {max_gap: 0, holes: [[12, 12]]}
signals:
  - {name: value, unit: UNIT, address: {table: holding, address: 10, type: TYPE}}
  - {name: other, address: {table: holding, address: 40}}
"""
runner = CliRunner()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().holds(1, range(40, 41)) as running:
        yield running


def words(code: str, value: float) -> list[int]:
    """A number as registers, high word first."""
    data = struct.pack(">" + code, value)
    return list(struct.unpack(f">{len(data) // 2}H", data))


async def checked(
    server: Server,
    folder: Path,
    language: str = "en",
    *,
    low: float = 49,
    high: float = 51,
    unit: str = "Hz",
    kind: str = "float32",
    override: dict[str, Any] | None = None,
) -> dict[str, str]:
    """The row of the device in the answer of `check`."""
    text = PROFILE.replace("MIN", f"{low}").replace("MAX", f"{high}").replace("UNIT", f'"{unit}"').replace("TYPE", kind)
    (folder / "tested.yaml").write_text(text, encoding="utf-8")
    device = {"id": "it", "profile": "./tested.yaml", "override": override or {}}
    link = {"id": "line", "adapter": "modbus", "settings": {"host": HOST, "port": server.port}, "devices": [device]}
    file = folder / "c.yaml"
    file.write_text(json.dumps({"data_dir": ".", "metrics": {"enabled": False}, "links": [link]}), encoding="utf-8")
    words = ["check", "--config", str(file), "--json"]
    answer = await asyncio.to_thread(runner.invoke, app, words, env={"GUANTONG_LANGUAGE": language})
    (row,) = [row for row in json.loads(answer.stdout) if row["what"] == "device it"]
    assert answer.exit_code == (0 if row["state"] == "ok" else 1)
    found: dict[str, str] = row
    return found


def at(server: Server, registers: list[int], first: int = 10) -> None:
    server.holds(1, {first + place: word for place, word in enumerate(registers)})


async def test_an_anchor_that_holds(server: Server, tmp_path: Path) -> None:
    at(server, words("f", 50.02))
    row = await checked(server, tmp_path)
    assert row["state"] == "ok"
    assert len(server.asks) <= 4  # what is right is not looked at again


async def test_a_wrong_word_order_is_named(server: Server, tmp_path: Path) -> None:
    at(server, words("f", 50.02)[::-1])
    row = await checked(server, tmp_path)
    assert row["state"] == "degraded"
    assert "expected 49 to 51 Hz. It must be so." in row["detail"]
    assert "order: CDAB" in row["fix"]
    chinese = await checked(server, tmp_path, "zh")
    assert "应为 49 至 51 Hz。应当如此。" in chinese["detail"]
    assert "order: CDAB" in chinese["fix"]


async def test_swapped_bytes_of_one_register_are_named(server: Server, tmp_path: Path) -> None:
    at(server, [50 << 8])
    assert "order: BADC" in (await checked(server, tmp_path, kind="uint16"))["fix"]


@pytest.mark.parametrize("shift", [-1, 1])
async def test_an_address_off_by_one_is_named(server: Server, tmp_path: Path, shift: int) -> None:
    server.holds(1, dict.fromkeys((9, 10, 11), 7))
    at(server, [50], 10 + shift)
    row = await checked(server, tmp_path, kind="uint16")
    assert f"wire address {10 + shift}" in row["fix"]
    assert f"({shift:+d})" in row["fix"]


async def test_a_hole_is_not_touched_for_it(server: Server, tmp_path: Path) -> None:
    at(server, [0, 0, 0x4248], 10)  # what lies one further would be 50.0, behind the border of a hole
    row = await checked(server, tmp_path)
    assert "It is 0" in row["fix"]
    assert all(not ask.address <= 12 < ask.address + ask.count for ask in server.asks)


@pytest.mark.parametrize(("value", "factor"), [(0.5, "100"), (5.0, "10"), (500.0, "0.1"), (5000.0, "0.01")])
async def test_a_forgotten_power_of_ten_is_named(server: Server, tmp_path: Path, value: float, factor: str) -> None:
    at(server, words("f", value))
    assert f"Times {factor} it would fit" in (await checked(server, tmp_path))["fix"]


async def test_the_ratio_of_a_transformer_is_named(server: Server, tmp_path: Path) -> None:
    at(server, words("f", 130.0))
    row = await checked(server, tmp_path, low=5_000, high=6_000, unit="W")
    assert "ratio of 38.5 to 46.2" in row["fix"]
    at(server, words("f", 9_000.0))  # too large: no ratio explains that
    assert "ratio" not in (await checked(server, tmp_path, low=5_000, high=6_000, unit="W"))["fix"]


async def test_fahrenheit_is_named(server: Server, tmp_path: Path) -> None:
    at(server, words("f", 77.0))
    assert "source_unit: °F" in (await checked(server, tmp_path, low=15, high=35, unit="°C"))["fix"]


async def test_what_is_no_number_or_nothing_known(server: Server, tmp_path: Path) -> None:
    at(server, words("f", math.nan))
    assert "It is no number" in (await checked(server, tmp_path))["fix"]
    at(server, words("f", 77.0))
    assert "Compare address, type, order and scale" in (await checked(server, tmp_path))["fix"]


async def test_the_anchor_follows_a_unit_that_this_device_has_otherwise(server: Server, tmp_path: Path) -> None:
    kilowatts = {"value": {"unit": "kW", "source_unit": "W"}}
    at(server, words("f", 5_500.0))
    assert (await checked(server, tmp_path, low=5_000, high=6_000, unit="W", override=kilowatts))["state"] == "ok"
    at(server, words("f", 5.5))
    row = await checked(server, tmp_path, low=5_000, high=6_000, unit="W", override=kilowatts)
    assert "value is 0.0055 kW, expected 5 to 6 kW" in row["detail"]


async def test_a_signal_that_is_left_out_is_not_judged(server: Server, tmp_path: Path) -> None:
    at(server, words("f", 77.0))
    row = await checked(server, tmp_path, override={"value": {"disabled": True}})
    assert row["state"] == "ok"
