"""What completeness rests on, read from the store: gaps, intervals without connection, bad readings, and how far each is known.

Bad readings are looked for where the roll-ups say that there are some, and where there are no roll-ups yet: never in all that is
stored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._rollups import QUARTER, quarter_before
from gateway.store._sqlite import tail_visible
from gateway.store.completeness import Course, Interval, union
from gateway.store.tables import TS_MAX, TS_MIN

_BAD = 1 << 31
_MANY = 500
Sample = tuple[int, int, bool]
"""(ts, n, whether it is bad) of a reading."""


def courses(connection: sa.Connection, signals: Sequence[int], start: int, end: int) -> dict[int, Course]:
    """Of each of the signals what is known of it in [start, end); signals that there are not are left out."""
    found: dict[int, Course] = {}
    for first in range(0, len(signals), _MANY):
        found |= _courses(connection, signals[first : first + _MANY], start, end)
    return found


def _courses(connection: sa.Connection, signals: Sequence[int], start: int, end: int) -> dict[int, Course]:
    signal, device, progress = t.signal.c, t.device.c, t.progress.c
    rows = connection.execute(
        sa.select(
            signal.id, signal.device, signal.born_at, signal.retired, signal.retired_at, device.gateway,
            device.changed_at, progress.complete_to,
        )
        .select_from(
            t.signal.join(t.device, device.id == signal.device).outerjoin(
                t.progress, sa.and_(progress.device == signal.device, progress.group_name == signal.group_name)
            )
        )
        .where(signal.id.in_(list(signals)))
    ).all()  # fmt: skip
    devices = sorted({row.device for row in rows})
    lost = _connections(connection, devices, start, end)
    gaps = _gaps(connection, devices, sorted({row.gateway for row in rows}), start, end)
    bad = _Bad(connection, [row.id for row in rows], start, end)
    found = {}
    for row in rows:
        retired = (row.retired_at if row.retired_at is not None else row.changed_at) if row.retired else None
        known_to = row.born_at if row.complete_to is None else row.complete_to
        missing = [
            (first, last)
            for names, first, last in [*gaps[row.device, True], *gaps[row.gateway, False]]
            if names is None or row.id in names
        ]
        found[row.id] = Course(
            row.born_at, retired, known_to if retired is None else max(known_to, retired), lost[row.device], missing,
            bad.intervals(row.id), end,
        )  # fmt: skip
    return found


def _connections(connection: sa.Connection, devices: Sequence[str], start: int, end: int) -> dict[str, list[Interval]]:
    down = t.connection.c
    found: dict[str, list[Interval]] = defaultdict(list)
    for row in connection.execute(
        sa.select(down.device, down.from_ts, down.to_ts).where(
            down.device.in_(devices), down.from_ts < end, sa.or_(down.to_ts.is_(None), down.to_ts > start)
        )
    ):
        found[row.device].append((row.from_ts, TS_MAX if row.to_ts is None else row.to_ts))
    return found


def _gaps(
    connection: sa.Connection, devices: Sequence[str], gateways: Sequence[str], start: int, end: int
) -> dict[tuple[str, bool], list[tuple[Any, int, int]]]:
    """(device, True) or (gateway, False) -> (its signals or None, from, to)."""
    gap = t.gap.c
    found: dict[tuple[str, bool], list[tuple[Any, int, int]]] = defaultdict(list)
    for row in connection.execute(
        sa.select(gap.gateway, gap.device, gap.signals, gap.start_ts, gap.end_ts).where(
            sa.or_(gap.device.in_(devices), sa.and_(gap.device.is_(None), gap.gateway.in_(gateways))),
            gap.start_ts < end,
            sa.or_(gap.end_ts.is_(None), gap.end_ts > start),
        )
    ):
        key = (row.gateway, False) if row.device is None else (row.device, True)
        names = None if row.signals is None else set(row.signals)
        found[key].append((names, row.start_ts, TS_MAX if row.end_ts is None else row.end_ts))
    return found


class _Bad:
    """Intervals in which the last reading of a signal was bad."""

    def __init__(self, connection: sa.Connection, signals: Sequence[int], start: int, end: int) -> None:
        self._connection, self._start, self._end = connection, start, end
        self._tail = _read_tail(connection, signals)
        horizon = connection.execute(sa.select(t.store.c.horizon)).scalar()
        self._horizon = TS_MIN if horizon is None else int(horizon)
        self._before = dict(self._carries(signals))
        self._segments = self._where(signals)

    def intervals(self, signal: int) -> list[Interval]:
        """In the order of time, within the period that was asked for."""
        found: list[Interval] = []
        since = self._start if self._before.get(signal) else None
        at = self._start
        for first, last in [*self._segments.get(signal, ()), (self._end, self._end)]:
            if since is not None and at < first:
                # between the segments no reading is bad: the first one ends it
                ts = self._following(signal, at, first)
                if ts is not None:
                    found.append((since, ts))
                    since = None
            if last <= self._horizon:
                found.append((first, last))  # its readings are gone
            for ts, _, bad in self._between(signal, first, last):
                if bad and since is None:
                    since = ts
                elif not bad and since is not None:
                    found.append((since, ts))
                    since = None
            at = last
        if since is not None:
            found.append((since, self._end))
        return found

    def _where(self, signals: Sequence[int]) -> dict[int, list[Interval]]:
        """Where bad readings are, or may be: quarters with some, and the time that has no roll-ups."""
        clean = self._clean_to(signals)
        found: dict[int, list[Interval]] = defaultdict(list)
        quarter = t.rollup_quarter.c
        for signal, first in self._connection.execute(
            sa.select(quarter.signal_id, quarter.start_ts).where(
                quarter.signal_id.in_(signals), quarter.bad > 0,
                quarter.start_ts > self._start - QUARTER, quarter.start_ts < self._end,
            )
        ):  # fmt: skip
            if first < clean[signal]:
                found[signal].append((max(first, self._start), min(first + QUARTER, self._end)))
        raw = {signal: max(clean[signal], self._start) for signal in signals}
        for signal in self._some_bad(raw):
            found[signal].append((raw[signal], self._end))
        return {signal: union(intervals) for signal, intervals in found.items()}

    def _clean_to(self, signals: Sequence[int]) -> dict[int, int]:
        """Up to when the roll-ups of each signal answer: as far as they are made, and no dirty mark before."""
        rolled, dirty = t.rolled.c, t.dirty.c
        query = sa.select(rolled.signal_id, rolled.quarter_to).where(rolled.signal_id.in_(signals))
        made: dict[int, int] = {row.signal_id: row.quarter_to for row in self._connection.execute(query)}
        found = {signal: made.get(signal, TS_MIN) for signal in signals}
        marks = sa.select(t.signal.c.id, sa.func.min(dirty.start_ts)).where(t.signal.c.id.in_(signals))
        for match in (
            dirty.signal_id == t.signal.c.id,
            sa.and_(dirty.signal_id.is_(None), dirty.device == t.signal.c.device),
        ):
            for signal, first in self._connection.execute(
                marks.select_from(t.signal.join(t.dirty, match)).group_by(t.signal.c.id)
            ):
                found[signal] = min(found[signal], quarter_before(first))
        return found

    def _some_bad(self, since: dict[int, int]) -> Iterator[int]:
        """The signals that have a bad reading from their time on, within the period."""
        some = [signal for signal, first in since.items() if first < self._end]
        if not some:
            return
        columns = t.reading.c
        query = (
            sa.select(columns.signal_id, sa.func.max(columns.ts).label("last"))
            .where(
                columns.signal_id.in_(some), columns.ts >= min(since[signal] for signal in some),
                columns.ts < self._end, columns.status >= _BAD,
            )
            .group_by(columns.signal_id)
        )  # fmt: skip
        last: dict[int, int] = {row.signal_id: row.last for row in self._connection.execute(query)}
        for signal in some:
            late = any(bad and since[signal] <= ts < self._end for ts, _, bad in self._tail.get(signal, ()))
            if late or last.get(signal, TS_MIN) >= since[signal]:
                yield signal

    # ------------------------------------------------------------------------------------------------------ readings

    def _carries(self, signals: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """Whether the last reading before the period was bad."""
        columns = t.reading.c
        for signal in signals:
            query = (
                sa.select(columns.ts, columns.n, columns.status)
                .where(columns.signal_id == signal, columns.ts < self._start)
                .order_by(columns.ts.desc(), columns.n.desc())
                .limit(1)
            )
            rows = [(ts, n, (status or 0) >= _BAD) for ts, n, status in self._connection.execute(query)]
            tail = self._tail.get(signal, [])
            at = bisect_left(tail, (self._start,))
            if at:
                rows.append(tail[at - 1])
            if rows:
                yield signal, max(rows)[2]

    def _following(self, signal: int, start: int, end: int) -> int | None:
        """The ts of the first reading in [start, end)."""
        columns = t.reading.c
        query = sa.select(sa.func.min(columns.ts)).where(
            columns.signal_id == signal, columns.ts >= start, columns.ts < end
        )
        found = self._connection.execute(query).scalar()
        tail = self._tail.get(signal, [])
        at = bisect_left(tail, (start,))
        if at < len(tail) and tail[at][0] < end and (found is None or tail[at][0] < found):
            return tail[at][0]
        return None if found is None else int(found)

    def _between(self, signal: int, start: int, end: int) -> list[Sample]:
        """The readings in [start, end), in order."""
        if start >= end:
            return []
        columns = t.reading.c
        query = (
            sa.select(columns.ts, columns.n, columns.status)
            .where(columns.signal_id == signal, columns.ts >= start, columns.ts < end)
            .order_by(columns.ts, columns.n)
        )
        rows = [(ts, n, (status or 0) >= _BAD) for ts, n, status in self._connection.execute(query)]
        tail = self._tail.get(signal, [])
        late = tail[bisect_left(tail, (start,)) : bisect_left(tail, (end,))]
        return sorted(rows + late) if late else rows


def _read_tail(connection: sa.Connection, signals: Sequence[int]) -> dict[int, list[Sample]]:
    """SQLite's newest readings of the signals, by signal and in order: its tail has no index, one look has to do."""
    if connection.dialect.name != "sqlite":
        return {}
    columns = t.tail.c
    found: dict[int, list[Sample]] = defaultdict(list)
    query = sa.select(columns.signal_id, columns.ts, columns.n, columns.status).where(tail_visible())
    for signal, ts, n, status in connection.execute(query.where(columns.signal_id.in_(signals))):
        found[signal].append((ts, n, (status or 0) >= _BAD))
    for rows in found.values():
        rows.sort()
    return found
