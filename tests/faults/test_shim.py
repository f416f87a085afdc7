"""The library that makes disk and clock misbehave: what the processes of a gateway meet under it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.shim import Control, environment
from tests.servers.brokers import Mosquitto
from tests.servers.postgresql import Postgres
from tests.servers.processes import ChildProcess
from tests.servers.waiting import eventually

_WRITER = """
import os, sqlite3, sys, time
folder = sys.argv[1]
db = sqlite3.connect(folder + "/a.sqlite", isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS t (x)")
print("ready", flush=True)
for line in sys.stdin:
    said = []
    try:
        db.execute("INSERT INTO t VALUES (?)", (os.urandom(6000),))
    except sqlite3.Error as error:
        said.append(error.sqlite_errorname)
    try:
        with open(folder + "/new", "a") as file:
            file.write("hello")
        os.replace(folder + "/new", folder + "/old")
    except OSError as error:
        said.append(str(error.errno))
    print(time.time(), *said, flush=True)
"""


class Writer:
    """A process that writes a row and a file whenever it is asked."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.child = ChildProcess([sys.executable, "-c", _WRITER, folder], env={**os.environ, **env})
        self.child.wait_until(lambda: self.child.lines[:1] == ["ready"])

    def write(self) -> list[str]:
        """Its time of day, and the errors."""
        before = len(self.child.lines)
        self.child.write_line("go")
        self.child.wait_until(lambda: len(self.child.lines) > before)
        return self.child.lines[-1].split()


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path / "control")


@pytest.fixture
def writer(tmp_path: Path, control: Control) -> Iterator[Writer]:
    data = tmp_path / "data"
    data.mkdir()
    writer = Writer(data, environment(control=control, below=data))
    yield writer
    writer.child.kill()


def rows(folder: Path) -> int:
    db = sqlite3.connect(folder / "a.sqlite")
    (count,) = db.execute("SELECT count(*) FROM t").fetchone()
    db.close()
    return int(count)


def test_the_disk_is_full_and_has_room_again(writer: Writer, control: Control, tmp_path: Path) -> None:
    assert len(writer.write()) == 1
    control.full()
    assert writer.write()[1:] == ["SQLITE_FULL", "28"]
    control.full(room=3000)
    assert writer.write()[1:] == ["SQLITE_FULL", "28"], "what fits in part does not fit"
    control.full(only="a.sqlite")
    assert writer.write()[1:] == ["SQLITE_FULL"]
    assert control.failed > 0
    control.healthy()
    assert len(writer.write()) == 1
    assert rows(tmp_path / "data") == 2


def test_the_file_system_is_read_only_or_broken(writer: Writer, control: Control, tmp_path: Path) -> None:
    writer.write()
    control.read_only()
    assert writer.write()[1:] == ["SQLITE_IOERR_WRITE", "30"]
    control.broken()
    assert writer.write()[1:] == ["SQLITE_IOERR_WRITE", "5"]
    control.healthy()
    assert len(writer.write()) == 1
    assert rows(tmp_path / "data") == 2


def test_a_sync_takes_its_time(writer: Writer, control: Control) -> None:
    before = control.syncs
    control.sync_delay = 0.2
    began = time.monotonic()
    writer.write()
    assert time.monotonic() - began >= 0.2
    assert control.syncs == before + 1, "SQLite syncs a commit once"


def test_the_clock_goes_back_and_forward_and_nobody_else_sees_it(writer: Writer, control: Control) -> None:
    control.clock = -3600.0
    assert float(writer.write()[0]) < time.time() - 3599
    control.clock = 86400.0
    assert float(writer.write()[0]) > time.time() + 86399
    control.clock = 0.0
    assert abs(float(writer.write()[0]) - time.time()) < 60


def test_a_broker_whose_disk_is_full_says_so_and_goes_on(
    tmp_path: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Mosquitto(tmp_path / "broker", persistent=True)
    for name, value in environment(control=control, below=tmp_path / "broker").items():
        monkeypatch.setenv(name, value)
    broker.start()
    for name in ("LD_PRELOAD", "FAULT_DIR", "FAULT_CONTROL"):
        monkeypatch.delenv(name)

    def publish(text: str) -> None:
        words = ["mosquitto_pub", "-p", str(broker.port), "-r", "-t", "t", "-m", text]
        subprocess.run(words, check=True, timeout=10)

    saved = tmp_path / "broker" / "persistence" / "mosquitto.db"
    try:
        publish("first")
        eventually(lambda: saved.exists() and b"first" in saved.read_bytes(), 10, what="saved")
        control.full()
        publish("second")
        eventually(lambda: control.failed > 0, 10, what="a write fails")
        assert b"second" not in saved.read_bytes()
        control.healthy()
        publish("third")
        eventually(lambda: b"third" in saved.read_bytes(), 10, what="saved again")
    finally:
        broker.kill()


def test_a_database_whose_disk_is_full_refuses_and_goes_on() -> None:
    parent = Path(tempfile.mkdtemp(prefix="guantong-pg-"))
    parent.chmod(0o755)  # it runs as another user
    control = Control(parent / "control")
    server = Postgres(parent=parent, env=environment(control=control, below=parent))
    try:
        server.start()
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CREATE TABLE t (x text)")
            before = control.syncs
            db.execute("INSERT INTO t VALUES ('a')")
            assert control.syncs > before, "a commit is synced"
            control.full(only="/base/")
            with pytest.raises(psycopg.errors.DiskFull):
                db.execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            control.healthy()
            db.execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            row = db.execute("SELECT count(*) FROM t").fetchone()
            assert row == (1001,)
            control.clock = -86400.0
            row = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
            assert row is not None
            assert row[0] < time.time() - 86000
    finally:
        server.close()
        shutil.rmtree(parent, ignore_errors=True)
