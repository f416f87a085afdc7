"""Queries for readings, over the table and, on SQLite, its tail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._sqlite import tail_visible
from gateway.store._values import FLAG_MASK, KIND_MASK, decode, from_json
from gateway.store.buckets import Blind, Interval, is_hard
from gateway.store.records import Reading
from gateway.store.tables import TS_MAX, TS_MIN, reading, signal, tail
from schemas.wire import Row

_GROUP = 500
CHUNK = 5_000
"""Rows in one piece of a history."""

SAMPLE = ("ts", "num", "status", "n")
"""The columns of a sample, as `gateway.store.buckets` takes it, and what orders it."""
_NAMES = ("signal_id", "ts", "n", "num", "exact", "status", "flags")


def _arms(connection: sa.Connection) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """The tables that hold readings, each with the condition that leaves out what another one has."""
    arms: list[tuple[sa.Table, sa.ColumnElement[bool]]] = [(reading, sa.true())]
    if connection.dialect.name == "sqlite":
        arms.append((tail, tail_visible()))
    return arms


def select_readings(
    connection: sa.Connection,
    signals: Sequence[int],
    start: int | None,
    end: int | None,
    *,
    after: tuple[int, int] | None = None,
    descending: bool = False,
    limit: int | None = None,
    names: Sequence[str] = _NAMES,
) -> sa.Executable:
    """The rows of some signals with start <= ts < end, in the order of (signal, ts, n).

    Of one signal they may be had beyond `after` (ts, n), or `descending`.
    """
    arms = []
    for table, visible in _arms(connection):
        columns = table.c
        query = sa.select(*(columns[name] for name in names)).where(visible)
        query = query.where(columns.signal_id == signals[0] if len(signals) == 1 else columns.signal_id.in_(signals))
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
    key = ("ts", "n") if len(signals) == 1 else ("signal_id", "ts", "n")
    if len(arms) == 1:
        return arms[0].order_by(*_direction(reading.c, key, descending)).limit(limit)
    union = sa.union_all(*arms)
    return union.order_by(*_direction(union.selected_columns, key, descending)).limit(limit)


def _direction(columns: Any, key: Sequence[str], descending: bool) -> list[Any]:
    return [columns[name].desc() if descending else columns[name].asc() for name in key]


def groups(connection: sa.Connection, signals: Sequence[int], *, descending: bool) -> Iterator[Sequence[int]]:
    """The signals in the groups in which they are best asked for: one by one, by the index.

    SQLite reads its whole tail for each question, so it is asked for many signals at once.
    """
    if connection.dialect.name != "sqlite" or descending:
        yield from ([one] for one in signals)
        return
    for start in range(0, len(signals), _GROUP):
        yield signals[start : start + _GROUP]


def blind_intervals(connection: sa.Connection, signal_id: int, start: int, end: int) -> Blind:
    """Where the signal's value is not known although no reading says so: no connection, or a gap."""
    soft: list[Interval] = []
    hard: list[Interval] = []
    device = connection.execute(
        sa.select(t.device.c.id, t.device.c.gateway)
        .select_from(t.signal.join(t.device, t.device.c.id == t.signal.c.device))
        .where(t.signal.c.id == signal_id)
    ).first()
    if device is None:
        return Blind(soft, hard)
    down = t.connection.c
    for row in connection.execute(
        sa.select(down.from_ts, down.to_ts).where(
            down.device == device.id, down.from_ts < end, sa.or_(down.to_ts.is_(None), down.to_ts > start)
        )
    ):
        soft.append((row.from_ts, TS_MAX if row.to_ts is None else row.to_ts))
    gap = t.gap.c
    for hole in connection.execute(
        sa.select(gap.start_ts, gap.end_ts, gap.cause, gap.signals).where(
            sa.or_(gap.device == device.id, sa.and_(gap.device.is_(None), gap.gateway == device.gateway)),
            gap.start_ts < end,
            sa.or_(gap.end_ts.is_(None), gap.end_ts > start),
        )
    ):
        if hole.signals is None or signal_id in hole.signals:
            interval = (hole.start_ts, TS_MAX if hole.end_ts is None else hole.end_ts)
            (hard if is_hard(hole.cause) else soft).append(interval)
    return Blind(soft, hard)


def known_to(connection: sa.Connection, signal_id: int, end: int) -> int:
    """Up to when (µs) the last value of a signal before `end` holds: until its next reading, or `complete_to` of its group.

    What was rolled up was complete, even when a clock has gone back since. TS_MIN when there is nothing of it.
    """
    after = select_readings(connection, [signal_id], end, None, limit=1, names=SAMPLE)
    if connection.execute(after).first() is not None:
        return end
    found = connection.execute(
        sa.select(t.progress.c.complete_to)
        .select_from(
            signal.join(
                t.progress,
                sa.and_(t.progress.c.device == signal.c.device, t.progress.c.group_name == signal.c.group_name),
            )
        )
        .where(signal.c.id == signal_id)
    ).scalar()
    made = connection.execute(sa.select(t.rolled.c.quarter_to).where(t.rolled.c.signal_id == signal_id)).scalar()
    return max(TS_MIN if one is None else int(one) for one in (found, made))


def stream_rows(connection: sa.Connection, query: sa.Executable, *, large: bool) -> Iterator[Sequence[Any]]:
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
