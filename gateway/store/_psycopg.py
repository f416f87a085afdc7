"""The SQLAlchemy engine of a PostgreSQL server. Imported only for one: psycopg costs a role nine megabytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.types.numeric import Int8BinaryLoader
from sqlalchemy.pool import NullPool


class _BinaryCursor(psycopg.Cursor[Any]):
    """Results in binary: cheaper, and timestamptz arrives as its number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = psycopg.pq.Format.BINARY


class _BinaryServerCursor(psycopg.ServerCursor[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = psycopg.pq.Format.BINARY


def postgres_engine(url: sa.URL, *, single: bool, writer: bool, dump: Callable[[Any], str]) -> sa.Engine:
    """An engine; it connects at its first use. `single`: the server takes one connection at a time. `dump`: objects to JSON."""
    arguments: dict[str, Any] = {
        "connect_timeout": 10,
        "application_name": "guantong ingest" if writer else "guantong serve",
        "tcp_user_timeout": 30_000,
        "cursor_factory": _BinaryCursor,
    }
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if writer else {"pool_size": 2, "max_overflow": 4}
    if single:
        arguments["prepare_threshold"] = None
        options = {"poolclass": NullPool}
    else:
        options["pool_recycle"] = 3600
    engine = sa.create_engine(url, connect_args=arguments, json_serializer=dump, **options)
    # many rows as the VALUES of few statements: cheaper than a pipeline of statements for one row each
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.server_cursor_factory = _BinaryServerCursor
        connection.adapters.register_loader("timestamptz", Int8BinaryLoader)
        if writer and not single:
            connection.autocommit = True
            connection.execute("SET synchronous_commit TO on")
            connection.execute("SET lock_timeout TO '10s'")
            connection.autocommit = False

    return engine
