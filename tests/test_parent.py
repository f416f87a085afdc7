"""The parent: it brings children back, gives up on a bad configuration, and leaves nobody behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from gateway.parent import Child, Parent, Work
from tests.servers.waiting import eventually, eventually_async

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

OBEDIENT = "import sys, pathlib, os; pathlib.Path(sys.argv[1]).open('a').write(f'{os.getpid()}\\n'); sys.stdin.read()"
STUBBORN = (
    "import signal, sys, pathlib, os, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).open('a').write(f'{os.getpid()}\\n'); time.sleep(600)"
)


def child(name: str, code: str, *arguments: str) -> Child:
    return Child(name, [sys.executable, "-c", code, *arguments])


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    parent = Parent(Work([child("one", OBEDIENT, str(file))]))
    task = asyncio.create_task(parent.run())
    await eventually_async(lambda: len(pids(file)) == 1)
    os.kill(pids(file)[0], signal.SIGKILL)
    await eventually_async(lambda: len(pids(file)) == 2, 10)
    assert parent.kept[0].restarts == 1
    parent.stop()
    assert await task == 0
    assert not any(psutil.pid_exists(pid) for pid in pids(file))


async def test_a_child_that_cannot_work_as_configured_ends_everything(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    parent = Parent(Work([child("good", OBEDIENT, str(file)), child("bad", "raise SystemExit(2)")]))
    assert await asyncio.wait_for(parent.run(), 20) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids(file))


async def test_a_stubborn_child_is_killed_within_five_seconds(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    parent = Parent(Work([child("stubborn", STUBBORN, str(file))]))
    task = asyncio.create_task(parent.run())
    await eventually_async(lambda: len(pids(file)) == 1)
    parent.stop()
    await asyncio.wait_for(task, 5)
    assert not psutil.pid_exists(pids(file)[0])


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    work = msgspec.json.encode(Work([child("one", OBEDIENT, str(file))])).decode()
    parent = subprocess.Popen([sys.executable, "-m", "gateway.parent", work])
    try:
        eventually(lambda: len(pids(file)) == 1, 10)
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: not psutil.pid_exists(pids(file)[0]), 10)


def test_a_signal_ends_it_with_code_zero(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    work = msgspec.json.encode(Work([child("one", OBEDIENT, str(file))])).decode()
    parent = subprocess.Popen([sys.executable, "-m", "gateway.parent", work])
    eventually(lambda: len(pids(file)) == 1, 10)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(6) == 0
    assert not psutil.pid_exists(pids(file)[0])
