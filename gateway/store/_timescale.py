"""What TimescaleDB adds to PostgreSQL: chunks, a columnstore by signal, retention by whole chunks."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

CHUNK = "1 day"
COMPRESS_AFTER = "2 days"
"""Chunks older than this become columns; rows that arrive later than this are decompressed by TimescaleDB itself."""


def installed(connection: sa.Connection) -> bool:
    """True when the database has the extension."""
    if connection.dialect.name != "postgresql":
        return False
    found = connection.execute(sa.text("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")).first()
    return found is not None


def create_extension(engine: sa.Engine) -> None:
    """Create the extension where the server offers it and we may; else the store is plain PostgreSQL."""
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        offered = connection.execute(
            sa.text("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL")
        ).first()
    if offered is None:
        return
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    except DBAPIError as error:
        # 42501: only a superuser may; 0A000 and 58P01: offered, but not preloaded. Plain tables serve as well.
        if getattr(error.orig, "sqlstate", None) not in ("42501", "0A000", "58P01", "F0000", "XX000"):
            raise


def make_hypertable(connection: sa.Connection) -> None:
    """Turn `reading` into a hypertable with a columnstore, where TimescaleDB is installed. Does nothing when it is one."""
    if not installed(connection):
        return
    connection.execute(
        sa.text(
            "SELECT create_hypertable('reading', 'ts', chunk_time_interval => CAST(:chunk AS interval),"
            " create_default_indexes => false, if_not_exists => true)"
        ),
        {"chunk": CHUNK},
    )
    try:
        with connection.begin_nested():
            connection.execute(
                sa.text(
                    "ALTER TABLE reading SET (timescaledb.compress, timescaledb.compress_segmentby = 'signal_id',"
                    " timescaledb.compress_orderby = 'ts, n')"
                )
            )
            connection.execute(
                sa.text(
                    "SELECT add_compression_policy('reading', compress_after => CAST(:age AS interval), if_not_exists => true)"
                ),
                {"age": COMPRESS_AFTER},
            )
    except DBAPIError as error:
        # 0A000: the Apache edition has chunks, but no columnstore.
        if getattr(error.orig, "sqlstate", None) != "0A000":
            raise


NO_LIMIT = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
"""Late rows of a long outage decompress more than the default of 100,000 tuples (SQLSTATE 53400)."""
