"""A machine whose map nobody knows, from an address to a configuration: discover, explain, a point table, import."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from tests.servers.foreign import LibmodbusMachine

runner = CliRunner()
SPEED = 40.0


async def guantong(*words: str) -> Result:
    return await asyncio.to_thread(lambda: runner.invoke(app, list(words)))


async def test_from_an_address_to_a_configuration(
    libmodbus_machine: Callable[..., LibmodbusMachine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    machine = libmodbus_machine(speed=SPEED)
    place = f"127.0.0.1:{machine.port}"
    found = await guantong(
        "discover", "modbus", place, "--units", "1-3", "--step", "0", "--rate", "200", "--yes", "--json"
    )
    assert found.exit_code == 0, found.output
    (unit,) = json.loads(found.stdout)["units"]
    ranges = [(one["first"], one["size"]) for one in unit["tables"]["holding"]["ranges"]]
    assert ranges == [(0, 4), (30, 4), (40, 14)]
    assert unit["tables"]["input"]["absent"]

    table, configuration = tmp_path / "chiller.xlsx", tmp_path / "guantong.yaml"
    areas = [word for start, size in ranges for word in ("--registers", f"holding:{start}-{start + size - 1}")]
    # three minutes of the process, at its speed
    explained = await guantong(
        "explain", "modbus", place, *areas, "--for", str(180 / SPEED), "--period", str(1.5 / SPEED), "--rate", "200", "--yes", "-o", str(table)
    )  # fmt: skip
    assert explained.exit_code == 0, explained.output
    stored = await guantong("points", "import", str(table), "--output", str(configuration))
    assert stored.exit_code == 0, stored.output

    (link,) = yaml.safe_load(configuration.read_text(encoding="utf-8"))["links"]
    (device,) = link["devices"]
    assert (device["id"], link["settings"]["port"]) == ("chiller", machine.port)
    signals = {signal["address"]["address"]: signal for signal in device["signals"]}
    for name, entry in machine.map.items():
        address = signals[entry["address"]]["address"]
        assert (address["type"], address.get("order", "ABCD")) == (entry["type"], entry["order"]), name
    assert len(signals) == len(machine.map)
    for name in ("brine/temperature", "mould/temperature"):
        signal = signals[machine.map[name]["address"]]
        assert (signal["name"], signal["scale"], signal["unit"]) == (
            f"r{machine.map[name]['address']}_temperature", 0.1, "Cel",
        ), name  # fmt: skip
    assert signals[44]["unit"] == "V"
