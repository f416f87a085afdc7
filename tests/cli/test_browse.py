"""`guantong browse` and `guantong test-read` against servers on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from typer.testing import CliRunner

from adapters.opcua import discovery
from gateway.cli.app import app
from gateway.config.load import check_config
from schemas.library import load_profile
from tests.adapters.modbus_server import HOST, Server
from tests.adapters.opcua_server import MACHINE, SmallServer

runner = CliRunner()
S7 = "http://www.siemens.com/simatic-s7-opcua"


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    """With a unit on one variable and a namespace that is known."""
    with SmallServer(namespaces=(MACHINE, "http://example.org/other", S7)) as running:

        async def furnish() -> None:
            node = running.server.get_node(running.node("v1"))
            unit = ua.EUInformation(
                NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
                UnitId=4408652,
                DisplayName=ua.LocalizedText("°C"),
            )
            await node.add_property(ua.NodeId(9901, 2), ua.QualifiedName("EngineeringUnits", 0), unit)

        running.run(furnish())
        yield running


def test_the_tree_with_values_types_units_and_times(server: SmallServer) -> None:
    answer = runner.invoke(app, ["browse", server.endpoint])
    assert answer.exit_code == 0, answer.output
    lines = [line.split("\t") for line in answer.output.splitlines()]
    assert [server.endpoint, "None", "None"] in [line[:3] for line in lines]
    (v1,) = [line for line in lines if line[0] == "Hall/Press_A/Data/v1"]
    assert v1[1:4] == ["1", "°C", "Int64"]
    assert v1[4].endswith("Z")
    assert not any(line[0].endswith("EngineeringUnits") for line in lines)
    assert not any(line[0].startswith("Server") for line in lines)
    assert "shipped profile: siemens-s7-1500-line" in answer.output


def test_filter_depth_and_json(server: SmallServer) -> None:
    answer = runner.invoke(app, ["browse", server.endpoint, "--filter", "*/data/V[13]", "--json"])
    assert [(row["name"], row["value"]) for row in json.loads(answer.stdout)] == [("v1", 1), ("v3", 3)]
    answer = runner.invoke(app, ["browse", server.endpoint, "--filter", "v*", "--depth", "3", "--json"])
    assert json.loads(answer.stdout) == []


def test_in_chinese(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    answer = runner.invoke(app, ["browse", server.endpoint])
    assert "安全策略" in answer.output
    assert "识别到 西门子 S7 PLC" in answer.output


@pytest.mark.parametrize("name", ["picked.xlsx", "picked.csv"])
def test_picked_variables_become_a_table_and_a_configuration(server: SmallServer, tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    arguments = ["browse", server.endpoint, "--filter", "v*", "--pick", "--table", str(table), "--device", "press-1"]
    answer = runner.invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert runner.invoke(app, arguments).exit_code == 1  # it exists
    answer = runner.invoke(app, ["points", "import", str(table)])
    assert answer.exit_code == 0, answer.output
    assert "1 devices, 8 points" in answer.output
    written = tmp_path / "picked.yaml"
    assert check_config(written) == []
    read = runner.invoke(app, ["read", "press-1", "hall/*", "-c", str(written), "--json"])
    assert [row["value"] for row in json.loads(read.stdout)] == list(range(8))


def test_picked_variables_become_a_profile(server: SmallServer, tmp_path: Path) -> None:
    target = tmp_path / "press.yaml"
    answer = runner.invoke(
        app, ["browse", server.endpoint, "--filter", "v1", "--pick", "--profile", str(target), "--device", "press"]
    )
    assert answer.exit_code == 0, answer.output
    (signal,) = load_profile(str(target)).signals
    assert (signal.type, signal.unit) == ("int64", "°C")


def test_nobody_there() -> None:
    answer = runner.invoke(app, ["browse", "opc.tcp://127.0.0.1:9", "--timeout", "1"])
    assert answer.exit_code == 1
    assert "127.0.0.1:9" in answer.output
    assert runner.invoke(app, ["browse", "http://127.0.0.1"]).exit_code == 2


def test_test_read_of_a_node(server: SmallServer) -> None:
    answer = runner.invoke(app, ["test-read", "opcua", server.endpoint, f"nsu={MACHINE};s=v1", "--json"])
    (row,) = json.loads(answer.stdout)
    assert (row["value"], row["unit"], row["type"], row["status"]) == (1, "°C", "Int64", "Good")
    missing = runner.invoke(app, ["test-read", "opcua", server.endpoint, f"nsu={MACHINE};s=none"])
    assert missing.exit_code == 1
    assert "BadNodeIdUnknown" in missing.output


async def test_test_read_of_registers_shows_the_other_orders() -> None:
    async with Server() as modbus:
        modbus.holds(1, {0x1000: 0x8000, 0x1001: 0x435C})
        where = ["test-read", "modbus", f"{HOST}:{modbus.port}", "--address"]
        answer = await asyncio.to_thread(runner.invoke, app, [*where, "0x1000", "--type", "float32"])
        assert answer.exit_code == 0, answer.output
        assert "registers 8000 435C" in answer.output
        assert "float32\tCDAB\t220.5" in answer.output
        answer = await asyncio.to_thread(
            runner.invoke, app, [*where, "4096", "--type", "float32", "--order", "cdab", "--json"]
        )
        (row,) = json.loads(answer.stdout)
        assert row["registers"] == [0x8000, 0x435C]
        assert row["values"][0]["value"] == 220.5
        refused = await asyncio.to_thread(runner.invoke, app, [*where, "9"])
        assert refused.exit_code == 1
        assert "holding 9" in refused.output
        assert (await asyncio.to_thread(runner.invoke, app, [*where, "x"])).exit_code == 2


def test_ctrl_c_shows_what_was_found(server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server that answers slowly the walk may be ended by hand."""
    walked = discovery.walk

    async def slow(*arguments: Any, **options: Any) -> AsyncIterator[discovery.Found]:
        count = 0
        async for found in walked(*arguments, **options):
            yield found
            count += found.node_class == "Variable"
            if count == 4:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()

    monkeypatch.setattr(discovery, "walk", slow)
    answer = runner.invoke(app, ["browse", server.endpoint, "--filter", "*"])
    assert answer.exit_code == 1
    assert "4 variables shown" in answer.output
    assert "interrupted" in answer.output
