"""Queries for readings, over the table and, on SQLite, its tail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.store._sqlite import tail_visible
from gateway.store._values import FLAG_MASK, KIND_MASK, decode, from_json
from gateway.store.records import Reading
from gateway.store.tables import reading, signal, tail
from schemas.wire import Row

CHUNK = 5_000
"""Rows in one piece of a history."""

_NAMES = ("signal_id", "ts", "n", "num", "exact", "status", "flags")


def _arms(connection: sa.Connection) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """The tables that hold readings, each with the condition that leaves out what another one has."""
    arms: list[tuple[sa.Table, sa.ColumnElement[bool]]] = [(reading, sa.true())]
    if connection.dialect.name == "sqlite":
        arms.append((tail, tail_visible()))
    return arms


def select_readings(
    connection: sa.Connection,
    signal_id: int,
    start: int | None,
    end: int | None,
    *,
    after: tuple[int, int] | None = None,
    descending: bool = False,
    limit: int | None = None,
) -> sa.Executable:
    """The rows of one signal with start <= ts < end, beyond `after` (ts, n), in the order of (ts, n)."""
    arms = []
    for table, visible in _arms(connection):
        columns = table.c
        query = sa.select(*(columns[name] for name in _NAMES)).where(columns.signal_id == signal_id, visible)
        if start is not None:
            query = query.where(columns.ts >= start)
        if end is not None:
            query = query.where(columns.ts < end)
        if after is not None:
            ts, n = after
            if descending:
                query = query.where(columns.ts <= ts, sa.or_(columns.ts < ts, columns.n < n))
            else:
                query = query.where(columns.ts >= ts, sa.or_(columns.ts > ts, columns.n > n))
        arms.append(query)
    if len(arms) == 1:
        return arms[0].order_by(*_direction(reading.c, descending)).limit(limit)
    union = sa.union_all(*arms)
    return union.order_by(*_direction(union.selected_columns, descending)).limit(limit)


def _direction(columns: Any, descending: bool) -> list[Any]:
    return [columns[name].desc() if descending else columns[name].asc() for name in ("ts", "n")]


def stream_rows(connection: sa.Connection, query: sa.Executable, *, large: bool) -> Iterator[Sequence[sa.Row[Any]]]:
    """The rows in pieces of CHUNK; a `large` answer comes through a cursor on the server."""
    options = {"stream_results": True, "max_row_buffer": CHUNK} if large else {}
    with connection.execute(query, execution_options=options) as result:
        yield from result.partitions(CHUNK)


def to_readings(rows: Iterable[Any]) -> list[Reading]:
    """Readings of stored rows."""
    found: list[Reading] = []
    for signal_id, ts, n, num, exact, status, flags in rows:
        if exact is None:
            value = num if num is None or not flags & KIND_MASK else decode(num, None, flags)
            found.append(Reading(signal_id, ts, n, value, status or 0, flags & FLAG_MASK))
            continue
        found.append(
            Reading(
                signal_id, ts, n, decode(num, exact, flags), status or 0, flags & FLAG_MASK, exact.get("source_ts"),
                from_json(exact.get("raw")),
            )
        )  # fmt: skip
    return found


def last_rows(connection: sa.Connection) -> list[Row]:
    """The newest row of each signal, by signal."""
    newest: dict[int, Any] = {}
    for query in _last_queries(connection):
        for row in connection.execute(query):
            known = newest.get(row.signal_id)
            if known is None or (row.ts, row.n) > (known.ts, known.n):
                newest[row.signal_id] = row
    return [
        Row(row.signal_id, row.ts, row.n, decode(row.num, row.exact, row.flags), row.status or 0, row.flags & FLAG_MASK)
        for _, row in sorted(newest.items())
    ]


def _last_queries(connection: sa.Connection) -> list[sa.Select[Any]]:
    order = (reading.c.ts.desc(), reading.c.n.desc())
    if connection.dialect.name == "postgresql":
        last = (
            sa.select(*(reading.c[name] for name in _NAMES))
            .where(reading.c.signal_id == signal.c.id)
            .order_by(*order)
            .limit(1)
            .lateral("last")
        )
        return [sa.select(last).select_from(signal.join(last, sa.true()))]
    other = reading.alias("other")
    key = (
        sa.select(other.c.ts, other.c.n)
        .where(other.c.signal_id == signal.c.id)
        .order_by(other.c.ts.desc(), other.c.n.desc())
        .limit(1)
    )
    by_key = sa.select(*(reading.c[name] for name in _NAMES)).select_from(
        signal.join(
            reading,
            sa.and_(
                reading.c.signal_id == signal.c.id,
                sa.tuple_(reading.c.ts, reading.c.n) == key.scalar_subquery(),
            ),
        )
    )
    newest = sa.select(tail.c.signal_id, sa.func.max(tail.c.ts).label("ts")).group_by(tail.c.signal_id).subquery()
    in_tail = sa.select(*(tail.c[name] for name in _NAMES)).select_from(
        tail.join(newest, sa.and_(tail.c.signal_id == newest.c.signal_id, tail.c.ts == newest.c.ts))
    )
    return [by_key, in_tail]
