"""Commands that need no running gateway."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from adapters.modbus import ModbusAdapter
from gateway.cli.app import app
from gateway.config.load import load_config
from gateway.config.resolve import resolve
from gateway.ledger.outbox import Outbox
from gateway.platform import FileLock
from schemas.wire import Kind
from simulators.workshop import Workshop
from tests.adapters.modbus_server import Running, Server

runner = CliRunner()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("GUANTONG_LANGUAGE", raising=False)


def test_every_command_has_a_help_text() -> None:
    answer = runner.invoke(app, ["--help"])
    assert answer.exit_code == 0
    assert {"run", "check", "doctor", "capture", "support", "apply", "points", "backup"} <= set(_commands())
    for path in _commands():
        if " " not in path:
            assert f"  {path} " in answer.output
        if path != "simulate":  # which gives all that it is given to the simulators
            of_one = runner.invoke(app, [*path.split(), "--help"])
            assert of_one.exit_code == 0, of_one.output
            assert of_one.output.startswith(f"Usage: guantong {path} ")


def _commands() -> list[str]:
    """What is typed for every command and group, as the tree itself has it."""

    def below(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        for name, one in getattr(command, "commands", {}).items():
            yield " ".join([*path, name])
            yield from below(one, (*path, name))

    return list(below(typer.main.get_command(app), ()))


def test_every_command_says_what_it_is_for_and_how_it_is_typed() -> None:
    root: Any = typer.main.get_command(app)
    for path in _commands():
        command = root
        for name in path.split():
            command = command.commands[name]
        assert command.help, path
        # a group, and what has nothing to choose, needs no example
        if not getattr(command, "commands", {}) and path not in ("version", "key list"):
            assert (command.epilog or "").startswith(("Example: guantong ", "Examples: guantong ")), path


def test_what_init_writes_is_a_sound_configuration(tmp_path: Path) -> None:
    file = tmp_path / "workshop.yaml"
    answer = runner.invoke(app, ["init", str(file)])
    assert answer.exit_code == 0, answer.output
    from gateway.config.load import check_config

    assert check_config(file) == []
    again = runner.invoke(app, ["init", str(file)])
    assert again.exit_code == 1
    assert "not overwritten" in again.output
    assert runner.invoke(app, ["init"]).output == file.read_text(encoding="utf-8")


def test_init_empty_is_a_gateway_to_which_machines_are_added_on_the_page(tmp_path: Path) -> None:
    file = tmp_path / "workshop.yaml"
    answer = runner.invoke(app, ["init", "--empty", str(file)])
    assert answer.exit_code == 0, answer.output
    assert f"guantong run --config {file}" in answer.output
    from gateway.config.load import load_config

    config = load_config(file)
    assert not config.links
    assert [asset.id for asset in config.assets] == ["workshop", "machine-1"]


def test_what_init_shows_commented_out_is_sound_as_well(tmp_path: Path) -> None:
    """Every commented example, uncommented, still is a configuration."""
    lines = runner.invoke(app, ["init"]).output.splitlines()
    text = "\n".join(
        line.replace("# ", "", 1) if "#   " in line or line.startswith(("# bus:", "# store:", "  # - id")) else line
        for line in lines
    )
    file = tmp_path / "workshop.yaml"
    file.write_text(text, encoding="utf-8")
    from gateway.config.load import check_config

    problems = check_config(file, {"GUANTONG_BUS_PASSWORD": "x"})
    assert [str(p) for p in problems if "store_password" not in str(p)] == []


def test_schemas() -> None:
    names = runner.invoke(app, ["schema", "--list"]).output.split()
    assert {"configuration", "profile", "envelope", "asyncapi"} <= set(names)
    assert json.loads(runner.invoke(app, ["schema"]).output)["title"]
    wrong = runner.invoke(app, ["schema", "profil"])
    assert wrong.exit_code == 2
    assert "profile" in wrong.output


def test_a_bad_configuration_is_told_whole(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("gatway: {id: x}\napi: {port: 99999}\n", encoding="utf-8")
    answer = runner.invoke(app, ["check", "--config", str(file)])
    assert answer.exit_code == 2
    assert "gateway" in answer.output
    assert "99999" in answer.output
    assert "2 mistakes" in answer.output


def test_a_taken_port_is_named_with_what_moves_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "c.yaml"
        file.write_text(f"api: {{port: {port}}}\n", encoding="utf-8")
        answer = runner.invoke(app, ["run", "--config", str(file)])
        assert answer.exit_code == 1
        assert f"port 127.0.0.1:{port} is taken" in answer.output
        assert "api.port" in answer.output
        answer = runner.invoke(app, ["demo", "--api-port", str(port), "--dir", str(tmp_path / "demo")])
        assert answer.exit_code == 1
        assert "--api-port" in answer.output


def test_the_ledger_of_an_outbox_beside_which_nothing_runs(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("gateway: {id: gw1}\ndata_dir: .\nmetrics: {collect_port: 1}\n", encoding="utf-8")
    outbox = Outbox(tmp_path / "outbox.sqlite")
    stream = outbox.begin()
    outbox.append(Kind.PROGRESS, b"\x92\x01\x90")
    outbox.commit()
    outbox.close()
    answer = runner.invoke(app, ["ledger", "--config", str(file), "--json"])
    assert answer.exit_code == 0, answer.output
    (row,) = json.loads(answer.stdout)
    assert row["stream"] == stream
    assert (row["gateway"], row["outbox"], row["high"]) == ("gw1", 1, 1)


def test_adopting_a_store(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data_dir: .\n", encoding="utf-8")
    Outbox(tmp_path / "outbox.sqlite").close()
    lock = FileLock(tmp_path / "outbox.lock")
    store = "0f0c7d3e-5a64-4f0e-9f4d-2b9a3c1d8e77"
    adopt = ["ledger", "--config", str(file), "adopt"]
    answer = runner.invoke(app, [*adopt, store])
    assert answer.exit_code == 1, answer.output
    assert "stop the gateway" in answer.output
    lock.release()
    answer = runner.invoke(app, [*adopt, "new-store"])
    assert answer.exit_code == 1, answer.output
    assert "new-store is not the id of a store" in answer.output
    answer = runner.invoke(app, [*adopt, store])
    assert answer.exit_code == 0, answer.output
    db = sqlite3.connect(tmp_path / "outbox.sqlite")
    assert db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone() == (store,)
    db.close()


CONFIG = """
data_dir: .
metrics: {{enabled: false}}
links:
  - id: meter
    adapter: modbus
    settings: {{host: 127.0.0.1, port: {meter}}}
    devices: [{{id: meter-01, profile: eastron-sdm630}}]
  - id: nobody
    adapter: modbus
    settings: {{host: 127.0.0.1, port: 1, timeout: 1s}}
    devices: [{{id: ghost, profile: eastron-sdm630}}]
"""


SERIAL = """
gateway: {{id: t}}
data_dir: {folder}
links:
  - id: hall
    adapter: modbus
    settings: {{serial: /dev/serial/by-id/nothing-there, baud: {baud}}}
    devices: [{{id: meter-01, profile: eastron-sdm630, settings: {{unit: 1}}}}]
"""


@pytest.mark.parametrize(("baud", "state"), [(9600, "ok"), (1200, "degraded")])
def test_check_reckons_how_full_a_serial_line_will_be(tmp_path: Path, baud: int, state: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SERIAL.format(folder=tmp_path, baud=baud), encoding="utf-8")
    answer = runner.invoke(app, ["check", "--config", str(file), "--json"])
    assert answer.exit_code == 1
    reckoned, opened = [row for row in json.loads(answer.stdout) if row["what"] == "link hall"]
    assert reckoned["state"] == state
    assert "% busy" in reckoned["detail"]
    assert ("would fit" in reckoned["detail"]) == bool(reckoned["fix"]) == (state == "degraded")
    assert opened["state"] == "failed"
    answer = runner.invoke(app, ["check", "--config", str(file), "--json"], env={"GUANTONG_LANGUAGE": "zh"})
    assert "总线占用" in answer.stdout


async def test_check_lists_the_addresses_that_a_device_refuses(tmp_path: Path) -> None:
    import asyncio

    async with Server().holds(1, {0: 7, 2: 8}) as server:
        file = tmp_path / "c.yaml"
        signals = [{"name": f"s{a}", "type": "uint16", "address": {"table": "holding", "address": a}} for a in range(3)]
        links = [{
            "id": "line", "adapter": "modbus", "settings": {"host": "127.0.0.1", "port": server.port},
            "devices": [{"id": "m", "settings": {"unit": 1}, "groups": {"default": {"period": "20ms"}}, "signals": signals}],
        }]  # fmt: skip
        file.write_text(json.dumps({"data_dir": str(tmp_path), "links": links}), encoding="utf-8")

        def row(**environment: str) -> dict[str, Any]:
            answer = runner.invoke(app, ["check", "--config", str(file), "--json"], env=environment)
            return next(row for row in json.loads(answer.stdout) if row["what"] == "device m")

        before = await asyncio.to_thread(row)
        assert "refused" not in before
        adapter = ModbusAdapter(resolve(load_config(file)).links[0].spec())
        async with Running(adapter) as line:
            await line.until(lambda: line.rows(1))
        found = await asyncio.to_thread(row)
        assert found["state"] == "degraded"
        assert len(found["refused"]) == 1
        assert "it refuses: holding register 0x0001 (1 long): exception 2" in found["detail"]
        assert (
            "设备拒绝的地址：holding 寄存器 0x0001" in (await asyncio.to_thread(row, GUANTONG_LANGUAGE="zh"))["detail"]
        )


async def test_check_reaches_devices_and_read_shows_what_they_answer(tmp_path: Path) -> None:
    import asyncio

    async with Workshop(["meter-01"], speed=1, seed=1, host="127.0.0.1") as workshop:
        file = tmp_path / "c.yaml"
        file.write_text(CONFIG.format(meter=workshop.ports["meter-01"]), encoding="utf-8")
        answer = await asyncio.to_thread(runner.invoke, app, ["check", "--config", str(file), "--json"])
        assert answer.exit_code == 1, answer.output
        rows = {row["what"]: row for row in json.loads(answer.stdout)}
        assert rows["device meter-01"]["state"] == "ok", rows
        assert rows["link nobody"]["state"] == "failed"
        assert rows["link nobody"]["fix"]
        assert rows["bus"]["state"] == rows["store"]["state"] == "ok"
        answer = await asyncio.to_thread(
            runner.invoke, app, ["read", "meter-01", "frequency", "--config", str(file), "--json"]
        )
        assert answer.exit_code == 0, answer.output
        (row,) = json.loads(answer.stdout)
        assert 49 < row["value"] < 51
        assert (row["unit"], row["quality"]) == ("Hz", "good")
        answer = await asyncio.to_thread(runner.invoke, app, ["read", "meter-1", "x", "--config", str(file)])
        assert answer.exit_code == 2
        assert "meter-01" in answer.output
