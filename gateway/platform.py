"""The one place for what differs between operating systems: signals, file locks, process groups, an event loop that is faster."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any

POSIX = os.name == "posix"


class LockedError(Exception):
    """Another process holds the lock."""


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("ab")
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise LockedError(str(path)) from error

    def release(self) -> None:
        """Gives the lock back."""
        self._file.close()


if sys.platform == "win32":

    def _lock(file: IO[bytes]) -> None:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: IO[bytes]) -> None:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def uptime() -> float:
    """Seconds of a clock that is never set and that runs on while the machine sleeps, where there is one (Linux)."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    else:  # noqa: RET505 (what comes after would be unreachable on Linux, says mypy)
        return time.monotonic()


def on_stop_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Calls `stop` in the loop on SIGINT and SIGTERM (Ctrl-C and Ctrl-Break on Windows)."""
    if POSIX:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return

    def handler(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


def ignore_interrupts() -> None:
    """For a child of the supervisor: Ctrl-C reaches the whole group, and the parent alone decides who stops when."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` on uvloop where it is installed, else on asyncio's own loop (the selector loop on Windows, as paho needs none)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    result: int = uvloop.run(main)
    return result
