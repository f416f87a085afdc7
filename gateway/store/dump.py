"""The store saved to a file and made from one, by the store's own means: SQLite's online backup, pg_dump and pg_restore.

A store may be saved while it is written to: what is saved is its state at one moment. See the SQLite manual, "Online Backup API", and
the PostgreSQL manual, "pg_dump", "pg_restore".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import psycopg

from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreFailedError
from gateway.store._engine import Place, place_of
from schemas.bilingual import Bilingual, chinese, of_error

Kind = Literal["sqlite", "postgresql"]
_INSTALL = Bilingual(
    "Install PostgreSQL's client programs of the server's version or newer (Debian: apt install postgresql-client).",
    "请安装与服务器版本相同或更新的 PostgreSQL 客户端程序（Debian：apt install postgresql-client）。",
)
_READ = Bilingual("Read what the program said.", "请查看该程序的输出。")


class DumpError(Exception):
    """The store cannot be saved or made anew; `fix` says what a person can do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


def kind_of(settings: StoreSettings, data_dir: Path) -> Kind:
    """Which kind of store the settings name. Raises DumpError."""
    return "sqlite" if _place(settings, data_dir).sqlite else "postgresql"


def sqlite_file(settings: StoreSettings, data_dir: Path) -> Path | None:
    """The file of an SQLite store. Raises DumpError."""
    place = _place(settings, data_dir)
    return Path(place.url.database or "") if place.sqlite else None


def save(settings: StoreSettings, data_dir: Path, file: Path) -> bool:
    """Saves the store to `file`, which must not be there, and checks what was saved. False when there is no store yet.

    Raises DumpError.
    """
    place = _place(settings, data_dir)
    if place.sqlite:
        path = Path(place.url.database or "")
        if not path.exists():
            return False
        _save_sqlite(path, file)
    else:
        _run(
            place,
            "pg_dump",
            ["--format=custom", "--no-owner", "--no-privileges", "--file", str(file), "--dbname", _dbname(place)],
        )
    check(file, "sqlite" if place.sqlite else "postgresql")
    return True


def check(file: Path, kind: Kind) -> None:
    """Raises DumpError when a saved store is not whole."""
    if kind == "postgresql":
        listed = _run(None, "pg_restore", ["--list", str(file)])
        if "TABLE DATA" not in listed:
            raise DumpError(Bilingual(f"{file.name}: holds no tables", f"{file.name}：其中没有数据表"))
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as saved:
            told = [row[0] for row in saved.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        raise DumpError(f"{file.name}: {error}") from error
    if told != ["ok"]:
        raise DumpError(
            f"{file.name}: {'; '.join(told)}",
            Bilingual("The store is damaged: check the disk.", "存储已损坏：请检查磁盘。"),
        )


def occupied(settings: StoreSettings, data_dir: Path) -> str:
    """What is there already where a store would be made; empty when nothing is. Raises DumpError."""
    place = _place(settings, data_dir)
    if place.sqlite:
        path = Path(place.url.database or "")
        return str(path) if path.exists() else ""
    with _connected(place) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()").fetchone()
    if row is None or not row[0]:
        return ""
    return Bilingual(f"{row[0]} tables in {place.text}", f"{place.text} 中的 {row[0]} 张表")


def make(settings: StoreSettings, data_dir: Path, file: Path) -> None:
    """Makes the store from a saved one; what was there is replaced. Nobody else may use it meanwhile. Raises DumpError."""
    place = _place(settings, data_dir)
    if place.sqlite:
        _make_sqlite(Path(place.url.database or ""), file)
        return
    timescale = "EXTENSION - timescaledb" in _run(None, "pg_restore", ["--list", str(file)])
    if not timescale:
        arguments = ["--clean", "--if-exists"] if occupied(settings, data_dir) else []
        arguments += ["--single-transaction", "--no-owner", "--no-privileges", "--exit-on-error"]
        _run(place, "pg_restore", [*arguments, "--dbname", _dbname(place), str(file)])
        return
    if there := occupied(settings, data_dir):
        raise DumpError(
            Bilingual(
                f"{there}: a TimescaleDB is restored into an empty database only",
                f"{chinese(there)}：TimescaleDB 只能恢复到空数据库",
            ),
            Bilingual(
                "Create a new database (CREATE DATABASE), name it in store.url, and restore again.",
                "请新建数据库（CREATE DATABASE），在 store.url 中写明后重新恢复。",
            ),
        )
    with _connected(place) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        connection.execute("SELECT timescaledb_pre_restore()")
    try:
        _run(
            place,
            "pg_restore",
            ["--no-owner", "--no-privileges", "--exit-on-error", "--dbname", _dbname(place), str(file)],
        )
    finally:
        with _connected(place) as connection:
            connection.execute("SELECT timescaledb_post_restore()")


# --------------------------------------------------------------------------------------------------------------- SQLite


def _save_sqlite(path: Path, file: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as source,
            contextlib.closing(sqlite3.connect(file)) as target,
        ):
            source.backup(target)  # in one step: one moment, however much is written meanwhile
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise DumpError(
            f"{path}: {error}", Bilingual("Check the disk and its free space.", "请检查磁盘及剩余空间。")
        ) from error


def _make_sqlite(path: Path, file: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _alone(path)
        shutil.copyfile(file, part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        check(part, "sqlite")
        for beside in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        os.replace(part, path)
    except OSError as error:
        raise DumpError(
            f"{path}: {error.strerror or error}", Bilingual("Check the disk and the permissions.", "请检查磁盘与权限。")
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _alone(path: Path) -> None:
    """Raises DumpError while somebody else has the store open: leaving the write-ahead log needs to be alone."""
    with contextlib.closing(sqlite3.connect(path, timeout=1)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise DumpError(
                    Bilingual(f"{path} is in use", f"{path} 正在使用"),
                    Bilingual("Stop the gateway (all roles), then restore.", "请先停止网关（所有进程），再恢复。"),
                ) from error
            # a damaged store is what a backup is for


# ----------------------------------------------------------------------------------------------------------- PostgreSQL


def _place(settings: StoreSettings, data_dir: Path) -> Place:
    try:
        return place_of(settings, data_dir)
    except StoreFailedError as error:
        raise DumpError(of_error(error), error.fix) from error


def _dbname(place: Place) -> str:
    """A connection URI without the password, which other users of the machine could read on the command line."""
    return place.url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _connected(place: Place) -> psycopg.Connection[tuple[int]]:
    uri = place.url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        return psycopg.connect(uri, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise DumpError(
            f"{place.text}: {error}",
            Bilingual("Check store.url and that the server runs.", "请检查 store.url 以及数据库服务是否运行。"),
        ) from error


def _run(place: Place | None, program: str, arguments: Sequence[str]) -> str:
    found = shutil.which(program)
    if found is None:
        raise DumpError(
            Bilingual(f"the program {program} is not found on PATH", f"PATH 中没有程序 {program}"), _INSTALL
        )
    environment = dict(os.environ)
    if place is not None and place.url.password is not None:
        environment["PGPASSWORD"] = str(place.url.password)
    done = subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        fix = _INSTALL if "version mismatch" in said or "unsupported version" in said else _READ
        raise DumpError(f"{program}: {said[:1000]}", fix)
    return done.stdout
