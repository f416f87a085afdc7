"""Roll-ups: buckets of 15 minutes and of the site's days, kept beside the readings.

A signal's quarters are made once `complete_to` of its scan group has passed their end: then all that belongs into them is
stored. What comes in later all the same (late rows, gaps) marks a range as dirty in its own transaction, and that is made again.
Below the horizon of the retention nothing is made again: its readings are gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import fsum
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._history import SAMPLE, blind_intervals, known_to, select_readings, stream_rows
from gateway.store._rows import Columns
from gateway.store.buckets import edges, fold, span
from gateway.store.records import Bucket
from gateway.store.tables import TS_MAX, TS_MIN

QUARTER_SECONDS = 900
QUARTER = QUARTER_SECONDS * 1_000_000
_MOST = 7 * 96 * QUARTER
"""So much time of a signal is made in one go."""
_FIELDS = tuple(column.name for column in t.rollup_quarter.columns)


def quarter_before(ts: int) -> int:
    """The last bound of a quarter at or before `ts`."""
    return ts // QUARTER * QUARTER


def combine(parts: Iterable[Bucket], start: int, end: int) -> Bucket:
    """One bucket of the buckets in it, which are in the order of time."""
    known = list(parts)
    numeric = [part for part in known if part.first_ts is not None]
    covered = sum(part.covered for part in known)
    weighted = fsum(part.average * part.covered for part in known if part.average is not None)
    return Bucket(
        start=start,
        end=end,
        good=sum(part.good for part in known),
        uncertain=sum(part.uncertain for part in known),
        bad=sum(part.bad for part in known),
        min=min((part.min for part in numeric if part.min is not None), default=None),
        max=max((part.max for part in numeric if part.max is not None), default=None),
        first=numeric[0].first if numeric else None,
        first_ts=numeric[0].first_ts if numeric else None,
        last=numeric[-1].last if numeric else None,
        last_ts=numeric[-1].last_ts if numeric else None,
        sum=fsum(part.sum for part in numeric if part.sum is not None) if numeric else None,
        average=weighted / covered if covered else None,
        covered=covered,
    )


def to_bucket(row: Any) -> Bucket:
    """A bucket of a stored row."""
    given = row._mapping
    return Bucket(
        given["start_ts"], given["end_ts"], given["good"], given["uncertain"], given["bad"], given["min"], given["max"],
        given["first"], given["first_ts"], given["last"], given["last_ts"], given["sum"], given["average"], given["covered"],
    )  # fmt: skip


def stored(connection: sa.Connection, table: sa.Table, signal: int, start: int, end: int) -> Iterator[Bucket]:
    """The stored buckets of a tier in [start, end)."""
    query = (
        sa.select(table)
        .where(table.c.signal_id == signal, table.c.start_ts >= start, table.c.start_ts < end)
        .order_by(table.c.start_ts)
    )
    return (to_bucket(row) for row in connection.execute(query))


def regroup(parts: Iterable[Bucket], bounds: Iterable[int]) -> Iterator[Bucket]:
    """Wider buckets of narrower ones, empty ones included; every bound is a bound of the narrower ones, too."""
    source = iter(parts)
    waiting = next(source, None)
    edge = iter(bounds)
    start = next(edge, None)
    for end in edge:
        assert start is not None
        inside = []
        while waiting is not None and waiting.start < end:
            if waiting.start >= start:
                inside.append(waiting)
            waiting = next(source, None)
        yield combine(inside, start, end)
        start = end


def raw_buckets(
    connection: sa.Connection, signal: int, bounds: Sequence[int] | Iterator[int], first: int, last: int, *, large: bool
) -> Iterator[Bucket]:
    """The buckets between `bounds`, which go from `first` to `last`, from the readings themselves."""
    before = select_readings(connection, [signal], None, first, descending=True, limit=1, names=SAMPLE)
    carry = connection.execute(before).first()
    query = select_readings(connection, [signal], first, last, names=SAMPLE)
    rows = chain.from_iterable(stream_rows(connection, query, large=large))
    yield from fold(
        ((ts, num, status or 0) for ts, num, status, _ in rows),
        bounds,
        None if carry is None else (carry[0], carry[1], carry[2] or 0),
        blind_intervals(connection, signal, first if carry is None else carry[0], last),
        known_to(connection, signal, last),
    )


# ----------------------------------------------------------------------------------------------------------- marking


def mark_late(connection: sa.Connection, columns: Columns, rolled_to: int) -> None:
    """Mark the rows that are older than the newest roll-up."""
    ranges: dict[int, tuple[int, int]] = {}
    for signal, ts in zip(columns.signal, columns.ts, strict=True):
        if ts < rolled_to:
            low, high = ranges.get(signal, (ts, ts))
            ranges[signal] = (min(low, ts), max(high, ts))
    rows = [
        {"device": None, "signal_id": signal, "start_ts": low, "end_ts": high}
        for signal, (low, high) in sorted(ranges.items())
    ]
    if rows:
        connection.execute(t.dirty.insert(), rows)


def mark_gap(connection: sa.Connection, gateway: str, device: str | None, start: int, end: int) -> None:
    """Mark the time of a gap, or of an interval without connection, for all signals of the device (None: of the gateway)."""
    devices = [device]
    if device is None:
        devices = list(connection.scalars(sa.select(t.device.c.id).where(t.device.c.gateway == gateway)))
    rows = [{"device": name, "signal_id": None, "start_ts": start, "end_ts": end} for name in devices]
    if rows:
        connection.execute(t.dirty.insert(), rows)


def newest_rolled(connection: sa.Connection) -> int:
    """Up to when the roll-up that is the furthest on is made: rows from there on need no mark."""
    found = connection.execute(sa.select(sa.func.max(t.rolled.c.quarter_to))).scalar()
    return TS_MIN if found is None else int(found)


# ------------------------------------------------------------------------------------------------------------ making


class _Head(msgspec.Struct):
    zone: str
    horizon: int


def _head(connection: sa.Connection) -> _Head:
    row = connection.execute(sa.select(t.store.c.timezone, t.store.c.horizon)).one()
    return _Head(row.timezone, TS_MIN if row.horizon is None else row.horizon)


def due(connection: sa.Connection) -> list[int]:
    """The signals that have a quarter to be made, by id."""
    query = (
        sa.select(t.signal.c.id, t.progress.c.complete_to, t.rolled.c.quarter_to)
        .select_from(
            t.signal.join(
                t.progress,
                sa.and_(t.progress.c.device == t.signal.c.device, t.progress.c.group_name == t.signal.c.group_name),
            ).outerjoin(t.rolled, t.rolled.c.signal_id == t.signal.c.id)
        )
        .order_by(t.signal.c.id)
    )
    rows = connection.execute(query).all()
    first = first_readings(connection) if any(row.quarter_to is None for row in rows) else {}
    return [
        row.id
        for row in rows
        if (first.get(row.id, TS_MAX) if row.quarter_to is None else row.quarter_to) < quarter_before(row.complete_to)
    ]


def first_readings(connection: sa.Connection) -> dict[int, int]:
    """The time of the oldest reading of each signal that is not rolled up yet; without those that have none."""
    new = ~sa.exists().where(t.rolled.c.signal_id == t.signal.c.id)
    oldest = sa.select(sa.func.min(t.reading.c.ts)).where(t.reading.c.signal_id == t.signal.c.id).scalar_subquery()
    found: dict[int, int] = {}
    for signal, ts in connection.execute(sa.select(t.signal.c.id, oldest).where(new)):
        if ts is not None:
            found[signal] = ts
    if connection.dialect.name == "sqlite":
        waiting = sa.select(t.tail.c.signal_id, sa.func.min(t.tail.c.ts)).group_by(t.tail.c.signal_id)
        for signal, ts in connection.execute(waiting):
            found[signal] = min(ts, found.get(signal, ts))
    return found


def make(connection: sa.Connection, signal: int, *, upto: int | None = None) -> bool:
    """Make the quarters of a signal that are complete (or all before `upto`), then its days.

    Returns True when there is more to do for it than was done in one go.
    """
    head = _head(connection)
    state = connection.execute(sa.select(t.rolled).where(t.rolled.c.signal_id == signal)).first()
    start = _first_reading(connection, signal) if state is None else state.quarter_to
    if start is None:
        return False
    start = quarter_before(start)
    end = quarter_before(_complete_to(connection, signal) if upto is None else upto)
    until = min(end, start + _MOST)
    if until > start:
        _make_quarters(connection, signal, start, until)
        if state is None:
            connection.execute(t.rolled.insert(), {"signal_id": signal, "quarter_to": until, "day_to": None})
        else:
            connection.execute(t.rolled.update().where(t.rolled.c.signal_id == signal).values(quarter_to=until))
    elif state is None:
        return False
    _make_days(connection, signal, head.zone, max(start, until))
    return end > until


def _make_quarters(connection: sa.Connection, signal: int, start: int, end: int) -> None:
    bounds = edges(start, end, QUARTER_SECONDS, "UTC")
    _store(connection, t.rollup_quarter, signal, raw_buckets(connection, signal, bounds, start, end, large=False))


def _make_days(connection: sa.Connection, signal: int, zone: str, upto: int) -> None:
    """Make the days that end by `upto` and are not made yet, from their quarters."""
    state = connection.execute(sa.select(t.rolled.c.day_to).where(t.rolled.c.signal_id == signal)).one()
    start = state.day_to
    if start is None:
        start = connection.execute(
            sa.select(sa.func.min(t.rollup_quarter.c.start_ts)).where(t.rollup_quarter.c.signal_id == signal)
        ).scalar()
        if start is None:
            return
        start = span(start, start + 1, "day", zone)[0]
    last = span(upto, upto + 1, "day", zone)[0]
    if last <= start:
        return
    quarters = stored(connection, t.rollup_quarter, signal, start, last)
    _store(connection, t.rollup_day, signal, regroup(quarters, edges(start, last, "day", zone)))
    connection.execute(t.rolled.update().where(t.rolled.c.signal_id == signal).values(day_to=last))


def _store(connection: sa.Connection, table: sa.Table, signal: int, buckets: Iterable[Bucket]) -> None:
    rows = [
        dict(
            zip(
                _FIELDS,
                (
                    signal, one.start, one.end, one.good, one.uncertain, one.bad, one.min, one.max, one.first, one.first_ts,
                    one.last, one.last_ts, one.sum, one.average, one.covered,
                ),
                strict=True,
            )
        )
        for one in buckets
        if one.covered or one.good or one.uncertain or one.bad
    ]  # fmt: skip
    if rows:
        connection.execute(table.insert(), rows)


def move_days(connection: sa.Connection, zone: str) -> None:
    """The site has another time zone now: its days are made anew, from the quarters."""
    connection.execute(t.rollup_day.delete())
    connection.execute(t.rolled.update().values(day_to=None))
    connection.execute(t.store.update().values(timezone=zone))


def clean(connection: sa.Connection, limit: int) -> int:
    """Make dirty ranges again, at most `limit` marks; returns how many were looked at."""
    marks = connection.execute(sa.select(t.dirty).order_by(t.dirty.c.id).limit(limit)).all()
    ranges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for mark in marks:
        signals = [mark.signal_id]
        if mark.signal_id is None:
            signals = list(connection.scalars(sa.select(t.signal.c.id).where(t.signal.c.device == mark.device)))
        for signal in signals:
            ranges[signal].append((mark.start_ts, mark.end_ts))
    head = _head(connection)
    for signal, found in sorted(ranges.items()):
        _remake(connection, signal, min(start for start, _ in found), max(end for _, end in found), head)
    if marks:
        connection.execute(t.dirty.delete().where(t.dirty.c.id <= marks[-1].id))
    return len(marks)


def _remake(connection: sa.Connection, signal: int, start: int, end: int, head: _Head) -> None:
    state = connection.execute(sa.select(t.rolled).where(t.rolled.c.signal_id == signal)).first()
    if state is None:
        return
    # a value holds until the next reading: so far the change of one reaches
    next_one = None
    if end < state.quarter_to:
        after = select_readings(connection, [signal], end + 1, None, limit=1, names=SAMPLE)
        next_one = connection.execute(after).first()
    end = min(TS_MAX if next_one is None else next_one[0], state.quarter_to - 1)
    start = quarter_before(max(start, -(-head.horizon // QUARTER) * QUARTER))
    if start >= state.quarter_to:
        return
    end = min(quarter_before(max(start, end)) + QUARTER, state.quarter_to)
    columns = t.rollup_quarter.c
    connection.execute(
        t.rollup_quarter.delete().where(columns.signal_id == signal, columns.start_ts >= start, columns.start_ts < end)
    )
    _make_quarters(connection, signal, start, end)
    days = t.rollup_day.c
    if state.day_to is not None:
        first, last = span(start, end, "day", head.zone)
        last = min(last, state.day_to)
        if first < last:
            connection.execute(
                t.rollup_day.delete().where(days.signal_id == signal, days.start_ts >= first, days.start_ts < last)
            )
            quarters = stored(connection, t.rollup_quarter, signal, first, last)
            _store(connection, t.rollup_day, signal, regroup(quarters, edges(first, last, "day", head.zone)))


def _first_reading(connection: sa.Connection, signal: int) -> int | None:
    first = select_readings(connection, [signal], None, None, limit=1, names=SAMPLE)
    row = connection.execute(first).first()
    return None if row is None else int(row[0])


def _complete_to(connection: sa.Connection, signal: int) -> int:
    found = connection.execute(
        sa.select(t.progress.c.complete_to)
        .select_from(
            t.signal.join(
                t.progress,
                sa.and_(t.progress.c.device == t.signal.c.device, t.progress.c.group_name == t.signal.c.group_name),
            )
        )
        .where(t.signal.c.id == signal)
    ).scalar()
    return TS_MIN if found is None else int(found)


def clean_to(connection: sa.Connection, signal: int, table: sa.Table) -> int:
    """Up to when the stored buckets of a tier answer for a signal: as far as they are made, and no mark before."""
    state = connection.execute(sa.select(t.rolled).where(t.rolled.c.signal_id == signal)).first()
    made = None if state is None else state.quarter_to if table is t.rollup_quarter else state.day_to
    if made is None:
        return TS_MIN
    device = sa.select(t.signal.c.device).where(t.signal.c.id == signal).scalar_subquery()
    first = connection.execute(
        sa.select(sa.func.min(t.dirty.c.start_ts)).where(
            sa.or_(t.dirty.c.signal_id == signal, sa.and_(t.dirty.c.signal_id.is_(None), t.dirty.c.device == device))
        )
    ).scalar()
    return int(made) if first is None else min(int(made), int(first))
