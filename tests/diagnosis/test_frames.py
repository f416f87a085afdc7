"""Frames on their way out: the socket, the command, pcapng read back, and what is kept of a fault."""

from __future__ import annotations

import asyncio
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from adapters.frames import Frame, FrameLog
from adapters.modbus._frames import frame_log, tracer
from gateway.cli.app import app
from gateway.collect.items import DeviceStatus
from gateway.diagnosis.captured import as_pcapng, as_text
from gateway.diagnosis.faults import BEFORE, FILES, Faults
from gateway.diagnosis.frame_server import NAME, FrameClient, FrameServer, NoFramesError, Question
from tests.servers.waiting import eventually_async

REQUEST = bytes.fromhex("000700000006 1103006b0003".replace(" ", ""))
ANSWER = bytes.fromhex("000700000009 110306022b00000064".replace(" ", ""))
AT = 1_780_000_000_000_000


def modbus() -> FrameLog:
    log = frame_log("mbap")
    trace = tracer(log, lambda: AT)
    log.note(AT, "connected to 192.0.2.9:502")
    trace(True, REQUEST)
    trace(False, ANSWER[:9])
    trace(False, ANSWER)
    return log


def host(log: FrameLog | None, *devices: str) -> Any:
    return SimpleNamespace(link=SimpleNamespace(id="line"), device_ids=list(devices), frames=log)


@asynccontextmanager
async def serving(data_dir: Path, *hosts: Any) -> AsyncIterator[None]:
    role = SimpleNamespace(config=SimpleNamespace(data_dir=data_dir), hosts=hosts)
    task = asyncio.create_task(FrameServer(cast(Any, role)).run())
    try:
        await eventually_async((data_dir / NAME).is_socket)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_socket_is_this_users_alone_and_gives_what_is_new(tmp_path: Path) -> None:
    log = modbus()
    (tmp_path / NAME).touch()  # left by one that was killed
    async with serving(tmp_path, host(None, "other"), host(log, "m1", "m2")):
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
        client = await asyncio.to_thread(FrameClient, tmp_path)
        first = await asyncio.to_thread(client.ask, Question("m2"))
        assert (first.link, first.wire, len(first.frames)) == ("line", "modbus-tcp", 4)
        log.note(AT, "closed")
        (new,) = (await asyncio.to_thread(client.ask, Question("m2", first.frames[-1].number))).frames
        assert new.meaning == "closed"
        anew = await asyncio.to_thread(client.ask, Question("m2", 900))
        assert len(anew.frames) == 5, "numbers above the log's own are of an earlier one"
        none = await asyncio.to_thread(client.ask, Question("nobody"))
        assert (none.wire, none.devices) == (None, ["m1", "m2"])
        client.close()
    assert not (tmp_path / NAME).exists()


async def test_a_path_too_long_for_a_socket_works_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("long" * 20)
    folder.mkdir(parents=True)
    async with serving(folder, host(modbus(), "m1")):
        client = await asyncio.to_thread(FrameClient, folder)
        assert len((await asyncio.to_thread(client.ask, Question("m1"))).frames) == 4
        client.close()


def test_without_a_collector_the_client_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoFramesError, match=NAME):
        FrameClient(tmp_path)


async def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    config = tmp_path / "g.yaml"
    config.write_text("data_dir: .\n")
    arguments = ["capture", "meter-01", "--for", "0s", "--config", str(config)]

    async def run(*more: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *more])

    assert "no collector runs" in (await run()).output
    async with serving(tmp_path, host(modbus(), "meter-01")):
        shown = await run()
        assert shown.exit_code == 0
        assert "-> transaction 7, unit 17: Read Holding Registers (3), address 107, count 3" in shown.output
        assert "00 07 00 00 00 06" in shown.output
        assert (await run("--out", str(tmp_path / "f.doc"))).exit_code == 2
        assert (await run("--out", str(tmp_path / "f.txt"))).exit_code == 0
        assert (tmp_path / "f.txt").read_text() == shown.output
        assert (await run("--out", str(tmp_path / "f.pcapng"))).exit_code == 0
        assert len(packets((tmp_path / "f.pcapng").read_bytes())[1]) == 2
        arguments[1] = "meter-02"
        wrong = await run()
        assert (wrong.exit_code, "meter-01?" in wrong.output) == (2, True)


def packets(file: bytes) -> tuple[int, list[tuple[int, int, bytes, str]]]:
    """Link type, and (time, original length, bytes, comment) of each packet; every length is checked on the way."""
    place, link, found = 0, -1, []
    while place < len(file):
        kind, length = struct.unpack_from("<II", file, place)
        assert length % 4 == 0
        assert struct.unpack_from("<I", file, place + length - 4)[0] == length
        body = file[place + 8 : place + length - 4]
        if place == 0:
            assert (kind, body[:4]) == (0x0A0D0D0A, b"\x4d\x3c\x2b\x1a")
        elif kind == 1:
            (link,) = struct.unpack_from("<H", body)
        elif kind == 6:
            _, high, low, kept, size = struct.unpack_from("<IIIII", body)
            options = 20 + kept + -kept % 4
            code, told = struct.unpack_from("<HH", body, options)
            assert code == 1
            comment = body[options + 4 : options + 4 + told].decode()
            found.append((high << 32 | low, size, body[20 : 20 + kept], comment))
        place += length
    return link, found


def ones_complement_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_pcapng_holds_each_frame_once_in_right_headers() -> None:
    link, found = packets(b"".join(as_pcapng(modbus().frames(), "modbus-tcp", "line")))
    assert link == 101
    (at, size, asked, comment), (_, _, answered, _) = found
    assert (at, size, asked[40:], answered[40:]) == (AT, 40 + len(REQUEST), REQUEST, ANSWER)
    assert comment.startswith("connected to 192.0.2.9:502; transaction 7")
    assert struct.unpack_from(">HH", asked, 20)[1] == struct.unpack_from(">HH", answered, 20)[0] == 502
    assert struct.unpack_from(">I", answered, 28)[0] == 1 + len(REQUEST), "acknowledges the request"
    for packet in (asked, answered):
        assert ones_complement_sum(packet[:20]) == 0xFFFF
        pseudo = packet[12:20] + struct.pack(">BBH", 0, 6, len(packet) - 20)
        assert ones_complement_sum(pseudo + packet[20:]) == 0xFFFF


def test_serial_frames_and_frames_kept_in_part() -> None:
    part = Frame(3, AT, "received", b"\1\3\2", 5000, "much")
    link, ((_, size, data, _),) = packets(b"".join(as_pcapng([part], "modbus-rtu", "line")))
    assert (link, size, data) == (147, 5000, b"\1\3\2")
    _, ((_, size, data, _),) = packets(b"".join(as_pcapng([part], "opcua", "line")))
    assert (size, len(data)) == (5040, 43)
    assert as_text(part).endswith("01 03 02 … (5000 bytes)")


def told(device: str, state: Any, since: int = AT) -> DeviceStatus:
    return DeviceStatus(device, state, since, "timeout", "Look at the cable.", "检查网线。")


def test_a_fault_keeps_the_frames_before_it(tmp_path: Path) -> None:
    log = modbus()
    for number in range(60):
        log.note(AT, f"note {number}")
    now = 0.0
    faults = Faults(tmp_path, lambda: [host(log, "m1", "m2")], lambda call: call(), lambda: now)
    for device in ("m1", "m2"):
        faults.status(told(device, "starting"))
        faults.status(told(device, "recovering"))
    assert not (tmp_path / "faults").exists(), "neither was up"
    for device in ("m1", "m2"):
        faults.status(told(device, "ok"))
    faults.status(told("m1", "recovering"))
    faults.status(told("m2", "recovering"))
    (file,) = (tmp_path / "faults").iterdir()
    assert file.name == "m1-20260528T202640Z.txt"
    text = file.read_text(encoding="utf-8")
    assert text.startswith("device m1, link line: recovering: timeout\nLook at the cable.\n检查网线。\n\n")
    assert text.count("note ") == BEFORE
    assert "note 59" in text
    for number in range(FILES + 5):
        now += 61
        faults.status(told("m1", "ok"))
        faults.status(told("m1", "failed", AT + number * 1_000_000))
    assert len(list((tmp_path / "faults").iterdir())) == FILES
