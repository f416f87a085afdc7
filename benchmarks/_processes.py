"""Processes of a benchmark: started, watched in /proc, ended by their id. Linux only."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_TICK = os.sysconf("SC_CLK_TCK")

_children: list[subprocess.Popen[str]] = []


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used so far: seconds of CPU, bytes handed to the disk, and proportional memory now in bytes."""

    cpu: float
    written: int
    memory: int


def use_of(pid: int) -> Use:
    """Raises OSError when the process is gone."""
    proc = Path("/proc") / str(pid)
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    rollup = (proc / "smaps_rollup").read_text()
    pss = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return Use((int(fields[11]) + int(fields[12])) / _TICK, int(io["write_bytes"]), int(pss) * 1024)


def children_of(pid: int) -> list[int]:
    """The direct children of a process, whichever of its threads started them."""
    found: list[int] = []
    for task in (Path("/proc") / str(pid) / "task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def command_of(pid: int) -> list[str]:
    """Its command line; empty for one that is gone."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


def start(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, output: Path | None = None
) -> subprocess.Popen[str]:
    """Starts a process in the project's folder, with pipes for its input and output (or `output` for both of its outputs).

    It is ended at our exit if it has not ended before.
    """
    out = subprocess.PIPE if output is None else output.open("ab")
    process = subprocess.Popen(
        list(command), cwd=ROOT, env={**os.environ, **(env or {})}, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=out, stderr=None if output is None else out,
    )  # fmt: skip
    if output is not None and not isinstance(out, int):
        out.close()
    _children.append(process)
    return process


def module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a Python module in this environment."""
    return [sys.executable, "-m", name, *arguments]


def end(process: subprocess.Popen[str], within: float = 10.0) -> int:
    """SIGTERM, and SIGKILL if that is not enough. Returns the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    if process in _children:
        _children.remove(process)
    return process.wait()


@atexit.register
def _end_all() -> None:
    for process in list(_children):
        end(process, 3.0)


class Told:
    """A process of ours that prints one line of JSON when it is ready, and one for each line that it is sent."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._name = name
        self.process = start(module(name, *arguments))
        self.ready = self._read()

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, line: str) -> dict[str, Any]:
        """Sends a line and returns the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self._name} ended with {self.process.wait()}")

    def end(self) -> None:
        end(self.process)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, look: Callable[[], T | None], within: float, every: float = 0.02) -> T:
    """What `look` returns as soon as that is something. Raises TimeoutError."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:g} s")
        time.sleep(every)
