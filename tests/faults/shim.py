"""Faults of disk and clock for a process under test, by the library `shim.c`, whose header says what it does and how it is controlled.

    control = Control(folder / "control")
    env = {**os.environ, **environment(control=control, below=data, record=folder / "record")}

A process started with that environment, and all its children, can be changed while they run:

    control.full()            # the disk is full; `control.full(room=10_000)` leaves so many bytes
    control.read_only()
    control.broken()          # writes and fsyncs fail with EIO
    control.healthy()
    control.sync_delay = 0.01
    control.clock = -3600.0   # an hour back

Several processes may share a control file, or have one each. What was recorded is for `tests.faults.power`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.servers.needs import require

SOURCE = Path(__file__).with_name("shim.c")

GROWTH, WRITES, SYNCS, NAMES = 1, 2, 4, 8
_SIZE = 512
_MATCH = 128
_CLOCK, _SYNC_DELAY, _ERROR, _ROOM, _WHAT, _FAILED, _SYNCS = range(8, 64, 8)


def build() -> Path:
    """The library, compiled once for each state of its source. Needs gcc."""
    source = SOURCE.read_bytes()
    folder = Path(tempfile.gettempdir()) / f"guantong-shim-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # a database runs as another user
    library = folder / f"shim-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not library.exists():
        fresh = folder / f"{library.name}.{os.getpid()}"
        words = ["-shared", "-fPIC", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"]
        made = subprocess.run(
            [str(require("gcc")), *words, str(SOURCE), "-o", str(fresh)], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise RuntimeError(f"gcc does not compile {SOURCE}:\n{made.stderr}")
        fresh.chmod(0o755)
        fresh.replace(library)  # others may build it at the same time
    return library


class Control:
    """A control file: what happens to the processes that have mapped it. Made healthy, or joined when it exists already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(b"FAULTS01" + bytes(_SIZE - 8))
            path.chmod(0o666)  # a database runs as another user
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def close(self) -> None:
        """Let go of the file; the processes keep what was set last."""
        self._map.close()

    # ------------------------------------------------------------------------------------------------------- faults

    def full(self, room: int = 0, only: str = "") -> None:
        """ENOSPC for writes that grow a file, after `room` more bytes. `only` as in `fail`."""
        self.fail(errno.ENOSPC, GROWTH, room, only)

    def read_only(self, only: str = "") -> None:
        """EROFS for every change, as after a file system's error."""
        self.fail(errno.EROFS, WRITES | NAMES, only=only)

    def broken(self, only: str = "") -> None:
        """EIO for writes and fsyncs."""
        self.fail(errno.EIO, WRITES | SYNCS, only=only)

    def fail(self, error: int, what: int, room: int = 0, only: str = "") -> None:
        """Calls of the kinds `what` fail with this errno, for paths that contain `only`."""
        text = only.encode()
        if len(text) > 255:
            raise ValueError(f"{only!r} is longer than 255 bytes")
        self._set(_ERROR, 0)
        self._map[_MATCH : _MATCH + len(text) + 1] = text + b"\0"
        self._set(_ROOM, room)
        self._set(_WHAT, what)
        self._set(_ERROR, error)

    def healthy(self) -> None:
        """Disk and clock as they are."""
        self._set(_ERROR, 0)
        self._map[_MATCH] = 0
        self.clock = self.sync_delay = 0.0

    @property
    def clock(self) -> float:
        """Seconds added to the time of day."""
        return self._get(_CLOCK) / 1e9

    @clock.setter
    def clock(self, seconds: float) -> None:
        self._set(_CLOCK, round(seconds * 1e9))

    @property
    def sync_delay(self) -> float:
        """Seconds that each fsync takes longer."""
        return self._get(_SYNC_DELAY) / 1e9

    @sync_delay.setter
    def sync_delay(self, seconds: float) -> None:
        self._set(_SYNC_DELAY, round(seconds * 1e9))

    # ------------------------------------------------------------------------------------------------------ counters

    @property
    def failed(self) -> int:
        """Calls that failed by this file."""
        return self._get(_FAILED)

    @property
    def syncs(self) -> int:
        """fsync and fdatasync calls of all its processes, below their folder."""
        return self._get(_SYNCS)

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("=q", self._map, offset)[0])

    def _set(self, offset: int, value: int) -> None:
        struct.pack_into("=q", self._map, offset, value)


def environment(
    *, control: Control | None = None, below: Path | None = None, record: Path | None = None
) -> dict[str, str]:
    """What a process needs in its environment. `below` is the folder whose files fail and are recorded; it must exist."""
    env = {"LD_PRELOAD": str(build())}
    if control is not None:
        env["FAULT_CONTROL"] = str(control.path.resolve())
    if below is not None:
        env["FAULT_DIR"] = str(below.resolve(strict=True))
    if record is not None:
        assert below is not None, "a record is of a folder"
        record.touch()
        with contextlib.suppress(PermissionError):
            record.chmod(0o666)
        env["FAULT_RECORD"] = str(record.resolve())
    return env


def mark(text: str) -> None:
    """Enter a text into the record of this very process; nothing without the library."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).fault_mark(text.encode())
