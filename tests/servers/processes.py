"""Child processes of the tests: started, watched, and ended by their id."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.waiting import eventually

HOST = "127.0.0.1"

_PORTS = 1_500
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_FIRST_PORT = 20_000 + _WORKER * _PORTS
"""Below Linux's ephemeral range (32768 to 60999): no outgoing connection can take the port of a stopped server. Each of the workers
that share the suite has ports of its own."""

_running: dict[int, ChildProcess] = {}
_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens and which was not handed out before in this run."""
    for _ in range(1_000):
        port = random.randrange(_FIRST_PORT, _FIRST_PORT + _PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise RuntimeError(f"no free TCP port from {_FIRST_PORT} on")


def accepts(port: int, host: str = HOST) -> bool:
    """True when something accepts a TCP connection there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


class ChildProcess:
    """One process whose standard output and error are read line by line into `lines` (at most `keep` of them).

    Its standard input is a pipe that closes with us, so that our own scripts can end when the test run dies.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        keep: int = 100_000,
    ) -> None:
        """Start `command`. `on_line` is called with each line of output, in a thread of its own."""
        self.command = [str(part) for part in command]
        self.lines: list[str] = []
        self._keep = keep
        self._on_line = on_line
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
        )
        _running[self.pid] = self
        self._reader = threading.Thread(target=self._read, name=f"output of {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while the process runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            if len(self.lines) < self._keep:
                self.lines.append(line)
            if self._on_line is not None:
                self._on_line(line)

    def output(self, last: int = 40) -> str:
        """The last lines of output, for a message."""
        return "\n".join(self.lines[-last:])

    def wait_until(self, ready: Callable[[], bool], timeout: float = 15.0, what: str = "ready") -> None:
        """Wait until `ready()`. Raises RuntimeError with the output when the process ends first or time runs out."""
        try:
            eventually(lambda: not self.running or ready(), timeout, what=f"{self.command[0]}: {what}")
        except AssertionError as late:
            output = self.output()
            self.kill()
            raise RuntimeError(f"{late}\n{output}") from late
        if not self.running:
            self._finish()
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.returncode}:\n{self.output()}")

    def first_json(self, timeout: float = 30.0) -> dict[str, Any]:
        """The first line of output that is a JSON object; what comes before it is only text."""
        found: list[dict[str, Any]] = []
        looked = 0

        def look() -> bool:
            nonlocal looked
            while not found and looked < len(self.lines):
                line = self.lines[looked]
                looked += 1
                if line.startswith("{"):
                    with contextlib.suppress(json.JSONDecodeError):
                        found.append(json.loads(line))
            return bool(found)

        self.wait_until(look, timeout, "first line of JSON")
        return found[0]

    def write_line(self, line: str) -> None:
        """Write one line to the process's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.running:
            self._process.send_signal(number)

    def stop(self, timeout: float = 10.0, by: signal.Signals = signal.SIGTERM) -> int:
        """End the process in an orderly way, by SIGKILL if it takes longer than `timeout` seconds. Returns the exit code."""
        self.send(by)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._finish()

    def kill(self) -> int:
        """End the process by SIGKILL and wait for it. Returns the exit code."""
        if self.running:
            self._process.kill()
        return self._finish()

    def _finish(self) -> int:
        code = self._process.wait(10)
        _running.pop(self.pid, None)
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # a process that is gone cannot take what we never wrote
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return code


def running_children() -> list[ChildProcess]:
    """The processes started here that nobody has ended yet."""
    return list(_running.values())


def end_all() -> None:
    """End every process that is still there; called at exit, so that a failed run leaves nothing behind."""
    for child in running_children():
        child.kill()


atexit.register(end_all)
