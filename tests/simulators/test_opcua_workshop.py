"""The workshop as a whole, and as a program."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from simulators.__main__ import main
from simulators.device import FaultError
from simulators.registry import device_types
from simulators.truth import read_truth
from simulators.workshop import Workshop, WorkshopError
from tests.simulators.opcua_client import connected

SEVEN = {
    "imm-01": 1, "mt-01": 2, "plc-01": 3, "meter-01": 11, "temp-01": 12, "press-01": 13, "sew-line": 14,
}  # fmt: skip


def test_there_are_seven_devices_on_their_ports() -> None:
    assert {name: kind.port for name, kind in device_types().items()} == SEVEN
    for kind in device_types().values():
        assert {"off", "half_open", "slow"} <= kind.faults.keys()


async def test_copies_have_names_ports_and_lives_of_their_own(tmp_path: Path) -> None:
    async with Workshop(["plc-01", "meter-01"], speed=20, count=2, truth_dir=tmp_path) as workshop:
        assert set(workshop.ports) == {"plc-01", "plc-02", "meter-01", "meter-02"}
        assert len(set(workshop.ports.values())) == 4
        values = []
        for name in ("plc-01", "plc-02"):
            async with connected(workshop.devices[name].endpoint) as raw:
                (value,) = await raw.read('nsu=http://www.siemens.com/simatic-s7-opcua;s="DB_Order"."Number"')
                values.append(value.Value.Value)
        assert values[0] != values[1]
        await workshop.fault("plc-02", "off")
        async with connected(workshop.devices["plc-01"].endpoint) as raw:
            assert (await raw.read("i=2258"))[0].StatusCode.is_good()
        await workshop.clear("plc-02")
        with pytest.raises(FaultError, match="no device 'plc-09' is running; running are plc-01"):
            await workshop.fault("plc-09", "off")
    assert workshop.ports == {}
    for name in ("plc-01", "plc-02", "meter-01", "meter-02"):
        records = list(read_truth(tmp_path / f"{name}.ndjson"))
        assert (records[0]["kind"], records[-1]["kind"]) == ("up", "down")


def _free_base() -> int:
    """A base port with nothing on the ports of the first four offsets."""
    for base in range(52_000, 60_000, 100):
        try:
            for offset in (1, 2, 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports between 52000 and 60000")


async def test_a_taken_port_is_named_with_the_way_out_and_the_others_are_stopped() -> None:
    base = _free_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 3))
        taken.listen()
        with pytest.raises(WorkshopError) as caught:
            async with Workshop(["mt-01", "plc-01"], base_port=base):
                pass
    assert f"plc-01 cannot listen on 127.0.0.1 port {base + 3}" in str(caught.value)
    assert "--base-port" in str(caught.value)
    async with Workshop(["mt-01"], base_port=base) as workshop:
        assert workshop.ports == {"mt-01": base + 2}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"devices": ["imm-01", "robot-01"]}, "there is no device robot-01; there are imm-01, mt-01"),
        ({"count": 0}, "count is 0"),
        ({"speed": 0.0}, "speed is 0.0"),
    ],
)
def test_what_cannot_be_is_said(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkshopError) as caught:
        Workshop(**arguments)
    assert says in str(caught.value)


async def test_a_base_port_too_high_is_said() -> None:
    with pytest.raises(WorkshopError, match="beyond 65535"):
        async with Workshop(["plc-01"], base_port=65_533):
            pass


@asynccontextmanager
async def _program(*arguments: str, stdin: int = asyncio.subprocess.PIPE) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "simulators", "--base-port", "0", *arguments,
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.communicate()


async def _lines(process: asyncio.subprocess.Process, last: str) -> list[dict[str, Any]]:
    """The JSON lines up to one that has the key *last*."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    while not found or last not in found[-1]:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
        assert line, f"the program ended after {found}"
        found.append(json.loads(line))
        if found[-1].get("ready") is True and last == "ready":
            continue
    return found


async def _ready(process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not found or found[-1].get("ready") != "all":
        found += await _lines(process, "ready")
    return found


async def test_the_program_tells_where_takes_commands_and_stops(tmp_path: Path) -> None:
    arguments = ("--devices", "plc-01,press-01", "--truth", str(tmp_path), "--fault", "press-01:slow,delay=0.1")
    async with _program(*arguments) as process:
        *devices, everything = await _ready(process)
        assert [device["device"] for device in devices] == ["plc-01", "press-01"]
        assert everything == {"ready": "all"}
        assert devices[0]["endpoint"].startswith("opc.tcp://127.0.0.1:")
        assert process.stdin is not None
        process.stdin.write(b"fault plc-01 bad node=DB_Line/Placed status=BadSensorFailure\n")
        assert await _lines(process, "done") == [{"done": "fault", "device": "plc-01", "kind": "bad"}]
        async with connected(devices[0]["endpoint"]) as raw:
            (value,) = await raw.read('nsu=http://www.siemens.com/simatic-s7-opcua;s="DB_Line"."Placed"')
            assert value.StatusCode.name == "BadSensorFailure"
        for command, says in (
            (b"clear plc-01\n", None), (b"fault plc-01 melt\n", "knows no fault"), (b"dance\n", "is no command"),
            (b"fault plc-01 slow fast\n", "not of the form name=value"), (b"\n", None), (b"clear press-01\n", None),
        ):  # fmt: skip
            process.stdin.write(command)
            if command.strip():
                (answer,) = await _lines(process, "error" if says else "done")
                assert says is None or says in answer["error"]
        process.stdin.write(b"quit\n")
        async with asyncio.timeout(5):
            assert await process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_end_of_input_ends_nothing_and_a_signal_does(number: signal.Signals) -> None:
    async with _program("--devices", "mt-01", stdin=asyncio.subprocess.DEVNULL) as process:
        (device, _) = await _ready(process)
        async with connected(device["endpoint"]) as raw:
            assert (await raw.read("i=2258"))[0].StatusCode.is_good()
            process.send_signal(number)
            async with asyncio.timeout(10):
                code = await process.wait()
            assert code == 0
            assert process.stderr is not None
        assert (await process.stderr.read()) == b""


async def test_the_program_says_what_it_cannot_do() -> None:
    async with _program("--devices", "robot-01") as process:
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert errors.decode().startswith("simulators: there is no device robot-01; there are imm-01")
    async with _program("--devices", "plc-01", "--fault", "plc-01") as process:
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert "write DEVICE:KIND" in errors.decode()


def test_the_list_and_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {entry["device"]: entry["port"] - 48400 for entry in listed} == SEVEN
    assert main(["--list"]) == 0
    assert "frozen_source" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "examples:" in capsys.readouterr().out
