"""The few statements that SQLite and PostgreSQL write alike, but that SQLAlchemy keeps in two dialects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]], *, keep: Sequence[str] = ()
) -> None:
    """Insert `rows`, which all have the same keys; where the primary key is there, update all columns but those in `keep`."""
    if not rows:
        return
    insert = _insert(connection, table)
    key = [column.name for column in table.primary_key]
    changes = {name: insert.excluded[name] for name in rows[0] if name not in key and name not in keep}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changes), list(rows))


def insert_new(connection: sa.Connection, table: sa.Table, row: dict[str, Any], *, unique: str) -> bool:
    """Insert a row unless `unique` is there already; True when it was inserted."""
    statement = _insert(connection, table).values(row).on_conflict_do_nothing(index_elements=[unique])
    return connection.execute(statement.returning(table.c[unique])).first() is not None


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def text(value: str) -> str:
    """A text that every database takes: PostgreSQL has no U+0000, the replacement character stands for it."""
    return value.replace("\x00", "\ufffd") if "\x00" in value else value
