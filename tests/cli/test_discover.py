"""`discover` and `explain` against Modbus servers on loopback and on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import re
import signal
import sys
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.points.importing import import_table
from schemas.profile import ModbusAddress, Profile
from simulators.modbus.framing import rtu_frame, rtu_intact
from simulators.modbus.server import Framing, ModbusServer
from simulators.modbus.unit import Reply, Unit
from simulators.truth import TruthLog
from tests.explore.devices import Device, Register, always, counts, noisy
from tests.servers.waiting import eventually_async

runner = CliRunner()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def small() -> Device:
    """A device with a float, a counter, a temperature and a hole."""
    return Device(
        map=[
            Register(0, "voltage", "float32", noisy(230.4, 0.6), "CDAB"),
            Register(2, "energy", "uint32", counts(1_310_000, 55.0), "CDAB"),
            Register(4, "temperature", "int16", noisy(-20, 2.0, 40, 30)),
            Register(8, "setting", "uint16", always(50)),
        ]
    )


async def guantong(*words: str) -> Result:
    return await asyncio.to_thread(lambda: runner.invoke(app, list(words)))


FAST = ("--rate", "200", "--timeout", "0.2", "--yes")


class Counting(Unit):
    """Counts what is asked of it."""

    asked = 0

    def answer(self, pdu: bytes) -> Reply:
        self.asked += 1
        assert pdu[0] in (1, 2, 3, 4, 43), "only reads"
        return Unit.answer(self, pdu)


@asynccontextmanager
async def listening(*units: tuple[int, Unit], framing: Framing = "tcp") -> AsyncIterator[str]:
    server = ModbusServer(framing, dict(units), TruthLog(None, "device"))
    port = await server.open("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.close()


async def test_units_and_ranges_behind_a_gateway() -> None:
    other = Unit()
    for address in (*range(100, 120), *range(122, 130)):
        other.set_word("input", address, address)
    async with listening((3, small()), (17, other)) as place:
        answer = await guantong("discover", "modbus", place, "--units", "1-20", "--step", "0", "--json", *FAST)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["state"] == "complete"
    assert [one["unit"] for one in told["units"]] == [3, 17]
    assert told["answers"]["exception_11"] == 18  # the gateway speaks for the units that are not there
    first, second = (one["tables"] for one in told["units"])
    assert first["holding"]["ranges"] == [{"first": 0, "size": 5}, {"first": 8, "size": 1}]
    assert first["input"]["absent"]
    assert second["input"]["ranges"] == [{"first": 100, "size": 20}, {"first": 122, "size": 8}]


async def test_it_says_what_it_will_send_and_sends_nothing_without_consent() -> None:
    unit = Counting()
    async with listening((1, unit)) as place:
        answer = await guantong("discover", "modbus", place, "--most", "77")
    assert answer.exit_code == 2
    assert "At most 77 requests" in answer.stderr
    assert "1, 2, 3, 4, 43/14" in answer.stderr
    assert unit.asked == 0


async def test_the_number_of_requests_is_kept() -> None:
    unit = Counting()
    unit.set_word("holding", 0, 1)
    async with listening((1, unit)) as place:
        answer = await guantong("discover", "modbus", place, "--units", "1", "--most", "25", *FAST)
    assert answer.exit_code == 0
    assert unit.asked == 25
    assert "raise it with --most" in answer.stderr


async def test_a_device_that_answers_to_every_number_is_one_device() -> None:
    device = small()
    async with listening(*((number, device) for number in range(1, 248))) as place:
        answer = await guantong("discover", "modbus", place, "--tables", "input", "--step", "0", "--json", *FAST)
    told = json.loads(answer.stdout)
    assert told["any_unit"]
    assert [one["unit"] for one in told["units"]] == [1]


async def test_rtu_over_tcp_and_units_that_are_silent() -> None:
    async with listening((5, small()), framing="rtu") as place:
        answer = await guantong(
            "discover", "modbus", place, "--rtu-over-tcp", "--units", "4-6", "--tables", "holding", "--step", "0", "--json",
            "--most", "200", *FAST,
        )  # fmt: skip
    told = json.loads(answer.stdout)
    assert [one["unit"] for one in told["units"]] == [5]
    assert told["answers"]["silence"] == 2
    assert told["units"][0]["tables"]["holding"]["ranges"][0] == {"first": 0, "size": 5}


async def test_nobody_there() -> None:
    async with listening() as place:
        pass
    answer = await guantong("discover", "modbus", place, *FAST)
    assert answer.exit_code == 1
    assert "refused" in answer.stderr


class _Identity(Reply):
    """The answer to Read Device Identification with two objects (Modbus Application Protocol V1.1b3 §6.21)."""

    __slots__ = ()

    def pdu(self) -> bytes:
        objects = b"".join(bytes((number, len(text))) + text for number, text in enumerate((b"Acme", b"PM-5")))
        return bytes((43, 14, 1, 1, 0, 0, 2)) + objects


class Named(Unit):
    """Says who it is."""

    def answer(self, pdu: bytes) -> Reply:
        return _Identity(43, 0, 0) if pdu[:3] == bytes((43, 14, 1)) else Unit.answer(self, pdu)


@pytest.mark.parametrize("framing", ["tcp", "rtu"])
async def test_identification(framing: Framing) -> None:
    unit = Named()
    unit.set_word("holding", 0, 7)
    rtu = ["--rtu-over-tcp"] if framing == "rtu" else []
    async with listening((1, unit), framing=framing) as place:
        answer = await guantong(
            "discover",
            "modbus",
            place,
            *rtu,
            "--units",
            "1",
            "--tables",
            "holding",
            "--addresses",
            "0-9",
            "--json",
            *FAST,
        )
    assert json.loads(answer.stdout)["units"][0]["identity"] == {"vendor": "Acme", "product": "PM-5"}


async def test_control_c_gives_what_was_found() -> None:
    unit = Counting()
    unit.set_word("holding", 0, 7)
    async with listening((1, unit)) as place:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from gateway.cli import main; main()", "discover", "modbus", place, "--units", "1", "--rate", "20",
            "--yes", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await eventually_async(lambda: unit.asked > 8, 20, what="the search is under way")
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == 130
    told = json.loads(out)
    assert told["state"] == "stopped"
    assert told["units"][0]["tables"]["holding"]["ranges"] == [{"first": 0, "size": 1}]


# ------------------------------------------------------------------------------------------------------------ serial line


@contextmanager
def line(units: dict[int, Unit], *, chatter: bool = False) -> Iterator[str]:
    """A pseudo-terminal with units at its other end; with `chatter`, another master's requests are heard on it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    loop = asyncio.get_running_loop()
    buffer = bytearray()

    def readable() -> None:
        buffer.extend(os.read(master, 512))
        while len(buffer) >= (size := 7 if buffer[1:2] == b"+" else 8):
            frame = bytes(buffer[:size])
            del buffer[:size]
            unit = units.get(frame[0])
            if rtu_intact(frame) and unit is not None:
                os.write(master, rtu_frame(frame[0], unit.answer(frame[1:-2]).pdu()))

    loop.add_reader(master, readable)
    speaking = asyncio.ensure_future(_chatter(master)) if chatter else None
    try:
        yield os.ttyname(slave)
    finally:
        if speaking is not None:
            speaking.cancel()
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


async def _chatter(master: int) -> None:
    while True:
        os.write(master, rtu_frame(9, bytes((3, 0, 0, 0, 10))))
        await asyncio.sleep(0.05)


async def test_a_serial_line_is_searched(tmp_path: Path) -> None:
    with line({2: small()}) as path:
        answer = await guantong(
            "discover", "modbus", "--serial", path, "--units", "1-3", "--tables", "holding", "--step", "0", "--listen", "0.1",
            "--json", "-o", str(tmp_path / "line.csv"), *FAST,
        )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [(one["unit"], one["setting"]) for one in told["units"]] == [(2, "9600 8N1")]
    assert told["units"][0]["tables"]["holding"]["ranges"] == [{"first": 0, "size": 5}, {"first": 8, "size": 1}]
    assert "9600 8N1, 9600 8E1, 9600 8N2, 19200 8N1" in answer.stderr
    (link,) = import_table(tmp_path / "line.csv").links
    assert link["settings"] == {"serial": path, "baud": 9600, "parity": "N", "stop": 1}
    assert link["devices"][0]["settings"] == {"unit": 2}


async def test_a_line_with_another_master_is_refused_before_the_first_frame() -> None:
    unit = Counting()
    with line({2: unit}, chatter=True) as path:
        answer = await guantong("discover", "modbus", "--serial", path, "--units", "2", "--listen", "5", *FAST)
    assert answer.exit_code == 1
    assert "another master" in answer.stderr
    assert unit.asked == 0


async def test_what_is_no_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = await guantong("discover", "modbus", "--serial", str(tmp_path / "file"), *FAST)
    assert answer.exit_code == 1
    assert "no serial port" in answer.stderr


# ---------------------------------------------------------------------------------------------------------------- explain


async def test_explain_writes_a_profile_that_reads_the_device(tmp_path: Path) -> None:
    file = tmp_path / "unknown.yaml"
    async with listening((1, small())) as place:
        answer = await guantong(
            "explain", "modbus", place, "--registers", "holding:0-4", "--registers", "holding:8", "--for", "1.5", "--period", "0.03",
            "--output", str(file), *FAST,
        )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert "float32 CDAB" in answer.stdout
    assert "voltage? ×1 V" in answer.stdout
    profile = Profile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    places = {one.name: ModbusAddress.model_validate(one.address) for one in profile.signals}
    assert (places["holding/0"].type, places["holding/0"].order) == ("float32", "CDAB")
    assert (places["holding/2"].type, places["holding/2"].order) == ("uint32", "CDAB")
    assert places["holding/4"].type == "int16"
    again = await guantong("explain", "modbus", place, "--output", str(file), *FAST)
    assert again.exit_code == 1
    assert "not overwritten" in again.stderr


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
async def test_explain_writes_a_point_table_that_imports_as_it_is(tmp_path: Path, suffix: str) -> None:
    table, configuration = tmp_path / f"Press 7{suffix}", tmp_path / "guantong.yaml"
    async with listening((4, small())) as place:
        answer = await guantong(
            "explain", "modbus", place, "--unit", "4", "--registers", "holding:0-4", "--registers", "holding:8", "--for", "1.5", "--period",
            "0.03", "--output", str(table), *FAST,
        )  # fmt: skip
        assert answer.exit_code == 0, answer.output
        taken = import_table(table)
        assert taken.notices == []
        stored = await guantong("points", "import", str(table), "--output", str(configuration))
        assert stored.exit_code == 0, stored.output
    (link,) = taken.links
    (device,) = link["devices"]
    assert (device["id"], device["settings"]["unit"]) == ("press-7", 4)
    assert f"{link['settings']['host']}:{link['settings']['port']}" == place
    signals = {one["name"]: one for one in device["signals"]}
    voltage = signals["r0_voltage"]
    assert voltage["address"] == {"table": "holding", "address": 0, "type": "float32", "order": "CDAB"}
    assert voltage["description"] == {"zh": "电压? ×1 V", "en": "voltage? ×1 V"}
    temperature = signals["r4_temperature"]
    assert (temperature["type"], temperature["scale"], temperature["unit"]) == ("float64", 0.1, "Cel")
    assert signals["r2_counter"]["address"]["type"] == "uint32"
    assert signals["r8"]["address"]["type"] == "uint16"


async def test_the_table_says_how_sure_it_is_and_what_else_it_might_be(tmp_path: Path) -> None:
    table = tmp_path / "meter.csv"
    async with listening((1, small())) as place:
        answer = await guantong(
            "explain", "modbus", place, "--registers", "holding:0-4", "--for", "1.5", "--period", "0.03", "-o", str(table), *FAST
        )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    rows = {row["signal"]: row["notes"] for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig")))}
    assert re.match(r"\d\d% sure: changes smoothly, a plausible magnitude\. Raw value 2[23]\d\.\d", rows["r0_voltage"])
    assert "Otherwise: " in rows["r0_voltage"]
    assert "int16 ABCD = " in rows["r4_temperature"] or "uint16 ABCD = " in rows["r4_temperature"]


async def test_discover_writes_what_can_be_read_as_a_table_and_names_the_next_command(tmp_path: Path) -> None:
    table = tmp_path / "found.csv"
    async with listening((3, small())) as place:
        answer = await guantong(
            "discover", "modbus", place, "--units", "3", "--tables", "holding", "--step", "0", "-o", str(table), *FAST
        )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert f"guantong explain modbus {place} --unit 3 --registers holding:0-4 --registers holding:8-8" in answer.stderr
    (device,) = import_table(table).links[0]["devices"]
    assert [one["name"] for one in device["signals"]] == ["r0", "r1", "r2", "r3", "r4", "r8"]


async def test_what_cannot_be_written_is_told_before_the_first_request(tmp_path: Path) -> None:
    unit = Counting()
    (tmp_path / "there.xlsx").touch()
    async with listening((1, unit)) as place:
        other = await guantong("explain", "modbus", place, "-o", str(tmp_path / "points.txt"), *FAST)
        there = await guantong("discover", "modbus", place, "-o", str(tmp_path / "there.xlsx"), *FAST)
    assert (other.exit_code, there.exit_code) == (2, 1)
    assert ".xlsx, .csv, .yaml" in other.stderr
    assert "not overwritten" in there.stderr
    assert unit.asked == 0


async def test_explain_searches_when_it_is_not_told_where() -> None:
    async with listening((1, small())) as place:
        answer = await guantong("explain", "modbus", place, "--for", "1", "--period", "0.05", "--json", *FAST)
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)
    assert next(row["address"] for row in rows if row["table"] == "holding") == 0
    assert {"alternatives", "confidence", "reasons"} <= rows[0].keys()


@pytest.mark.parametrize(
    "words",
    [["discover", "modbus", "10.0.0.1:x"], ["discover", "modbus"], ["explain", "modbus", "h", "--registers", "4-5"]],
)
def test_what_was_typed_wrongly(words: list[str]) -> None:
    assert runner.invoke(app, words).exit_code == 2


def test_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    answer = runner.invoke(app, ["discover", "modbus", "127.0.0.1:1"])
    assert "只读功能码" in answer.stderr
