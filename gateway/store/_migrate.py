"""Brings a database to the schema of this version, and sees whether it is there."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from gateway.ledger.steps import StoreFailedError, StoreWeatherError
from gateway.store import tables as t
from gateway.store._engine import now
from gateway.store._timescale import create_extension, make_hypertable
from schemas.bilingual import Bilingual

HEAD = "0002"
"""The newest revision in `migrations/versions`."""
_KNOWN = ("0001", "0002")
_one_at_a_time = threading.Lock()
"""Alembic keeps what it works on in globals of its modules."""


def version(connection: sa.Connection) -> str | None:
    """The revision of the database; None for a database without our schema."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def check_version(found: str | None, place: str) -> None:
    """Raise StoreWeatherError when ingest has yet to create the schema, StoreFailedError when it is newer than this code."""
    if found is None or (found in _KNOWN and found != HEAD):
        raise StoreWeatherError(
            Bilingual(
                f"store {place}: the schema is {found or 'not there yet'}, expected {HEAD}",
                f"存储 {place}：表结构为 {found or '（尚未建立）'}，应为 {HEAD}",
            ),
            fix=Bilingual(
                "Start ingest once: it creates and upgrades the schema.", "请先启动一次 ingest：由它建立并升级表结构。"
            ),
        )
    if found != HEAD:
        raise StoreFailedError(
            Bilingual(
                f"store {place}: the schema has revision {found}, this version knows up to {HEAD}",
                f"存储 {place}：表结构版本为 {found}，本版本最高支持 {HEAD}",
            ),
            fix=Bilingual(
                "Install the version of Guantong that made this store, or a newer one.",
                "请安装建立该存储的贯通版本或更新版本。",
            ),
        )


def upgrade(engine: sa.Engine, place: str, timezone: str) -> None:
    """Create or upgrade the schema, and the store's identity, in one transaction.

    Raises StoreFailedError for a schema that is newer than this code; errors of the database come as they are.
    """
    with engine.connect() as connection:
        found = version(connection)
    if found == HEAD:
        return
    if found is not None and found not in _KNOWN:
        check_version(found, place)
    create_extension(engine)
    try:
        with _one_at_a_time:
            _run(engine, timezone)
    except DBAPIError:
        # another ingest may have made the schema at the same time: then all is well
        with engine.connect() as connection:
            if version(connection) != HEAD:
                raise


def _run(engine: sa.Engine, timezone: str) -> None:
    # Alembic is imported only when there is something to do: it costs ingest ten megabytes.
    from alembic import command
    from alembic.config import Config

    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        make_hypertable(connection)
        if connection.execute(sa.select(t.store.c.id)).first() is None:
            row = {
                "id": 1, "store_id": str(uuid.uuid4()), "created_at": now(), "timezone": timezone, "epoch": 1,
                "commit_no": 0, "event_no": 0, "fence": 0, "merge_row": 0, "merge_signal": 0,
            }  # fmt: skip
            connection.execute(t.store.insert(), row)
