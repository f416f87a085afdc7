"""From the settings to an SQLAlchemy engine, for each of the databases that the store can be."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gateway.config.models import Secret, StoreSettings
from gateway.ledger.steps import StoreFailedError
from gateway.store._values import dump
from schemas.bilingual import Bilingual, chinese

_EXAMPLES = Bilingual(
    "sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE", "sqlite:///PATH 或 postgresql://USER@HOST:PORT/DATABASE"
)
_OFF = ("0", "no", "off", "false")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is, and what is special there."""

    url: sa.URL
    copy: bool = True
    """False: the server has no COPY (`?copy=off` in the URL)."""
    single: bool = False
    """True: the server takes one connection at a time (`?connections=1` in the URL); none is kept open."""

    @property
    def sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def text(self) -> str:
        """For messages: without the password."""
        return self.url.render_as_string(hide_password=True).replace("postgresql+psycopg", "postgresql")


def _secret(secret: Secret) -> str:
    if secret.env is not None:
        value = os.environ.get(secret.env)
        if value is None:
            raise StoreFailedError(
                Bilingual(
                    f"store.password: the environment variable {secret.env} is not set",
                    f"store.password：环境变量 {secret.env} 未设置",
                ),
                fix=Bilingual(f"Set {secret.env}.", f"请设置 {secret.env}。"),
            )
        return value
    assert secret.file is not None  # Secret has one of the two
    try:
        return secret.file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError) as error:
        raise StoreFailedError(
            Bilingual(
                f"store.password: {secret.file} gives no first line: {error}",
                f"store.password：无法读取 {secret.file} 的首行：{error}",
            ),
            fix=Bilingual("Write the password into that file.", "请将密码写入该文件。"),
        ) from error


def place_of(settings: StoreSettings, data_dir: Path) -> Place:
    """The place that the settings name; without `url` it is store.sqlite in `data_dir`.

    Raises StoreFailedError when the URL is not one of the two forms, or the password cannot be read.
    """
    if settings.url is None:
        return Place(sa.URL.create("sqlite", database=str(data_dir / "store.sqlite")))
    try:
        url = sa.make_url(settings.url)
        name = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreFailedError(
            Bilingual(f"store.url: {error}; expected {_EXAMPLES}", f"store.url：{error}；应为 {chinese(_EXAMPLES)}"),
            fix=Bilingual("Correct store.url.", "请更正 store.url。"),
        ) from error
    if name == "sqlite":
        if not url.database or url.database == ":memory:":
            raise StoreFailedError(
                Bilingual(
                    "store.url: sqlite needs a file; expected sqlite:///PATH",
                    "store.url：sqlite 需要文件；应为 sqlite:///PATH",
                ),
                fix=Bilingual("Name a file.", "请写明文件。"),
            )
        return Place(sa.URL.create("sqlite", database=str(data_dir / url.database)))
    if name not in ("postgresql", "postgres"):
        raise StoreFailedError(
            Bilingual(
                f"store.url: found {name}://, expected {_EXAMPLES}",
                f"store.url：发现 {name}://，应为 {chinese(_EXAMPLES)}",
            ),
            fix=Bilingual("Correct store.url.", "请更正 store.url。"),
        )
    query: Mapping[str, Any] = url.query
    if settings.password is not None:
        url = url.set(password=_secret(settings.password))
    return Place(
        url.set(drivername="postgresql+psycopg").difference_update_query(["copy", "connections"]),
        copy=str(query.get("copy", "on")).lower() not in _OFF,
        single=str(query.get("connections", "")) == "1",
    )


def make_engine(place: Place, *, writer: bool) -> sa.Engine:
    """An engine; it connects at its first use. A writer has one connection, which begins with the intent to write."""
    if place.sqlite:
        return _sqlite_engine(place, writer=writer)
    from gateway.store._psycopg import postgres_engine

    return postgres_engine(place.url, single=place.single, writer=writer, dump=dump)


def _sqlite_engine(place: Place, *, writer: bool) -> sa.Engine:
    # A reader must not create the file: it would race with the writer for the schema.
    path = Path(place.url.database or "").absolute()
    uri = f"{path.as_uri()}?mode={'rwc' if writer else 'rw'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)

    size: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if writer else {"pool_size": 4, "max_overflow": 4}
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, json_serializer=dump, **size)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        if writer:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=4000")
        else:
            connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        # KiB for each connection, and a reader has up to eight: the system's own cache holds the file as well
        connection.execute(f"PRAGMA cache_size=-{8000 if writer else 2000}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


def now() -> int:
    """µs since the epoch by this machine's clock."""
    return time.time_ns() // 1000
