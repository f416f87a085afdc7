"""The process that looks: whatever it does, its parent has an answer in time, and nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import zipfile
from pathlib import Path

import msgspec
import psutil
import pytest

from gateway.looking import child, looker
from gateway.looking.looker import Looker
from gateway.looking.questions import Browse, Endpoints, Export, Link, ReadSignal, Table
from gateway.looking.shapes import Document
from tests.servers.waiting import eventually_async

ASK = Export(form="csv")
_FRAME = "import os,sys,time\nos.read(0,4096)\n"


def doing(what: str) -> Looker:
    """A looker whose child does something else."""
    return Looker((sys.executable, "-c", _FRAME + what))


async def test_a_question_and_its_answer() -> None:
    looking = Looker()
    try:
        seen = await looking.ask(ASK)
        assert seen.failure is None
        document = msgspec.json.decode(seen.body, type=Document)
        assert document.name == "template-points.csv"
        assert "设备" in document.data.decode("utf-8-sig") or "device" in document.data.decode("utf-8-sig")
        pid = looking.pid
        assert (await looking.ask(ASK)).failure is None
        assert looking.pid == pid
        assert pid is not None
        assert psutil.Process(pid).nice() > psutil.Process().nice()
    finally:
        await looking.close()
    assert looking.pid is None
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("os._exit(3)", "crashed"),
        ("os.kill(os.getpid(), 9)", "crashed"),
        ("os.write(1, b'\\0\\0\\0\\5hello')", "crashed"),
        ("os.write(1, b'\\xff\\xff\\xff\\xff'); time.sleep(60)", "too_large"),
        ("time.sleep(60)", "too_slow"),
        ("os.write(1, b'\\0\\0'); time.sleep(60)", "too_slow"),
    ],
)
async def test_a_child_that_misbehaves_is_an_answer(what: str, reason: str) -> None:
    looking = doing(what)
    seen = await looking.ask(ASK, within=1.0)
    assert seen.failure is not None
    assert seen.failure.reason == reason
    assert seen.failure.zh
    assert seen.failure.fix_zh
    assert looking.pid is None  # nothing of it is left


async def test_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looker, "WAIT", 0.1)
    looking = doing("time.sleep(60)")
    first = asyncio.create_task(looking.ask(ASK, within=1.0))
    await eventually_async(lambda: looking.pid is not None, what="the child runs")
    second = await looking.ask(ASK)
    assert second.failure is not None
    assert second.failure.reason == "busy"
    answer = await first
    assert answer.failure is not None
    assert answer.failure.reason == "too_slow"


async def test_who_gives_up_waiting_leaves_no_answer_to_the_next() -> None:
    looking = doing("time.sleep(60)")
    task = asyncio.create_task(looking.ask(ASK))
    await eventually_async(lambda: looking.pid is not None, what="the child runs")
    pid = looking.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert looking.pid is None
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_it_ends_with_its_parent_even_while_it_hangs() -> None:
    """A parent that is killed closes the pipe; the child's reader sees that although its loop is blocked."""
    code = (
        "import sys,threading,time,asyncio\nfrom gateway.looking import child\n"
        "child._LEAVE_WITHIN=0.2\n"
        "async def hang(*_): time.sleep(60)\n"
        "child._answer=hang\nasyncio.run(child.serve())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    message = msgspec.json.encode(ASK)
    process.stdin.write(child.HEAD.pack(len(message)) + message)
    await process.stdin.drain()
    process.stdin.close()
    async with asyncio.timeout(20):
        assert await process.wait() == 1


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """A child that fills its memory fails by itself, and says so."""
    if sys.platform != "linux":
        pytest.skip("RLIMIT_DATA counts all memory on Linux only")
    code = (
        "import asyncio\nfrom gateway.looking import child\nchild.MEMORY=200*1024**2\nchild._confine()\n"
        "async def look(*_): return [bytearray(1024**2) for _ in range(10**6)]\n"
        "child._look=look\nasyncio.run(child.serve())\n"
    )
    looking = Looker((sys.executable, "-c", code))
    seen = await looking.ask(ASK, within=30)
    assert seen.failure is not None
    assert seen.failure.reason == "too_large"
    await looking.close()


async def test_a_child_that_idled_away_is_started_again() -> None:
    looking = Looker()
    assert (await looking.ask(ASK)).failure is None
    assert looking._process is not None
    assert looking._process.stdin is not None
    first = looking.pid
    looking._process.stdin.close()  # what it sees when it leaves by itself is the same: an end
    await looking._process.wait()
    assert (await looking.ask(ASK)).failure is None
    assert looking.pid != first
    await looking.close()


async def test_what_the_collector_answers_itself() -> None:
    looking = Looker()
    seen = await looking.ask(ReadSignal(signal="a/b"))
    assert seen.failure is not None
    nobody = await looking.ask(Endpoints(url="http://here", lang="zh"))
    assert nobody.failure is not None
    assert nobody.failure.reason == "invalid"
    assert nobody.failure.mistakes[0].parameter.startswith("url")
    other = await looking.ask(Browse(link=Link("modbus", {})))
    assert other.failure is not None
    assert other.failure.mistakes[0].parameter == "link.adapter"
    await looking.close()


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    held = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    looking = Looker()
    settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}", "security": "none", "timeout": 0.5}
    seen = await looking.ask(Browse(link=Link("opcua", settings)))
    assert seen.failure is not None
    assert seen.failure.reason == "timeout"
    assert seen.failure.fix_zh
    held.set()
    server.close()
    await looking.close()


HOSTILE: list[tuple[str, bytes]] = [
    ("空.xlsx", b"PK\x03\x04"),
    ("a.xlsx", b"PK\x03\x04" + os.urandom(2000)),
    ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500),
    ("binary.csv", bytes(range(256)) * 20),
    ("a.csv", b'"' * 10_000),
    ("../../etc/passwd", b"\n\n\n"),
]


async def test_files_that_are_no_tables(tmp_path: Path) -> None:
    config = tmp_path / "guantong.yaml"
    config.write_text("gateway: {id: a}\nlinks: []\n", encoding="utf-8")
    looking = Looker()
    for name, data in [*HOSTILE, ("bomb.xlsx", bomb())]:
        seen = await looking.ask(Table(file=str(config), name=name, data=data))
        assert seen.failure is not None, (name, seen.body)
        assert seen.failure.reason == "invalid_table", name
        assert seen.failure.mistakes[0].detail, name
        assert looking.pid is not None, name
    await looking.close()


def bomb() -> bytes:
    """A workbook of a few kilobytes whose sheet would unpack to a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            piece = b" " * 2**24
            for _ in range(33):
                sheet.write(piece)
    return out.getvalue()
