"""Readings in SQLite: appended to a tail, which is merged into the table by key in short transactions.

Ten thousand signals with one row each per commit would touch ten thousand pages of a table by key, 8 kB for each reading;
the tail takes them in the order of their arrival, and the merge finds many rows for each page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._rows import Columns, Key, Newest, Stored, comparable
from gateway.store.tables import store, tail

MERGE_ROWS = 20_000
MERGE_ROWS_OF_A_SIGNAL = 20
MERGE_ROWS_MOST = 200_000
"""So many rows in the tail start a merge: 20 of each signal make it worth while, but every query reads the whole tail
(5 ms at 200,000)."""
MERGE_SECONDS = 600.0
"""So old may the tail become."""
PIECE_ROWS = 20_000
"""About so many rows are merged in one transaction."""

_COLUMNS = "signal_id, ts, n, num, exact, status, flags"
_VISIBLE = "(row > (SELECT merge_row FROM store) OR signal_id > (SELECT merge_signal FROM store))"
_KEYS = 10_000


def tail_visible() -> sa.ColumnElement[bool]:
    """The condition on `tail` that leaves out what the merge has moved to `reading` already."""
    merge_row = sa.select(store.c.merge_row).scalar_subquery()
    merge_signal = sa.select(store.c.merge_signal).scalar_subquery()
    return sa.or_(tail.c.row > merge_row, tail.c.signal_id > merge_signal)


class SqliteReadings:
    """The way of readings into an SQLite store. One writer; every method runs in a transaction of the caller."""

    def __init__(self) -> None:
        self._rows: int | None = None
        self._since = time.monotonic()
        self._appended = 0
        self._pieces: list[tuple[int, int]] = []
        self._merge_rows = MERGE_ROWS

    def append(self, connection: sa.Connection, columns: Columns) -> None:
        """Store rows whose keys are known to be free."""
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.executemany(f"INSERT INTO tail ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)", columns.stored())
        self._appended += len(columns)

    insert = append

    def existing(self, connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, list[Stored]]:
        """The stored rows of each (signal, ts) that has some."""
        found: dict[Key, list[Stored]] = {}
        wanted = sorted(keys)
        driver = connection.connection.driver_connection
        assert driver is not None
        for start in range(0, len(wanted), _KEYS):
            some = wanted[start : start + _KEYS]
            given = json.dumps(some)
            rows: Sequence[tuple[Any, ...]] = driver.execute(
                f"WITH k(s, t) AS MATERIALIZED (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) "
                f"SELECT {_COLUMNS} FROM k JOIN reading ON signal_id = s AND ts = t "
                f"UNION ALL SELECT {_COLUMNS} FROM tail "
                f"WHERE ts BETWEEN ? AND ? AND (signal_id, ts) IN (SELECT s, t FROM k) AND {_VISIBLE}",
                (given, min(ts for _, ts in some), max(ts for _, ts in some)),
            ).fetchall()
            for signal, ts, n, num, exact, status, flags in rows:
                found.setdefault((signal, ts), []).append(Stored(n, comparable(num, exact, flags), status or 0))
        return found

    def newest(self, connection: sa.Connection) -> Newest:
        """The newest (ts, n) of each signal."""
        newest = Newest()
        rows = connection.exec_driver_sql(
            "SELECT s.id, r.ts, r.n FROM signal s JOIN reading r ON r.signal_id = s.id AND (r.ts, r.n) = "
            "(SELECT ts, n FROM reading WHERE signal_id = s.id ORDER BY ts DESC, n DESC LIMIT 1) "
            "UNION ALL SELECT t.signal_id, t.ts, t.n FROM tail t "
            "JOIN (SELECT signal_id, max(ts) AS ts FROM tail GROUP BY signal_id) m USING (signal_id, ts)"
        )
        for signal, ts, n in rows:
            if (ts, n) > (newest.ts.get(signal, -(1 << 63)), newest.n.get(signal, (0, 0))[1]):
                newest.ts[signal] = ts
                newest.n[signal] = (ts, n)
        return newest

    def committed(self) -> None:
        """The transaction of the rows appended so far has been committed."""
        if self._rows is not None:
            self._rows += self._appended
        self._appended = 0

    def rolled_back(self) -> None:
        """The transaction was rolled back."""
        self._appended = 0

    def maintain(self, engine: sa.Engine, *, everything: bool = False) -> bool:
        """Merge a piece of the tail when it is large or old enough, in a transaction of its own.

        Returns True while there is more to merge. `everything` starts a merge whatever the size.
        """
        if self._rows is None:
            with engine.begin() as connection:
                self._resume(connection)
        if not self._pieces:
            due = bool(self._rows) and (
                everything or (self._rows or 0) >= self._merge_rows or time.monotonic() - self._since >= MERGE_SECONDS
            )
            if not due:
                return False
            with engine.begin() as connection:
                last = connection.execute(sa.select(sa.func.max(tail.c.row))).scalar_one()
                self._pieces = self._plan(connection, last, -1)
                connection.execute(store.update().values(merge_row=last, merge_signal=-1))
        self._merge_piece(engine)
        return bool(self._pieces)

    def _resume(self, connection: sa.Connection) -> None:
        """Count the tail, and go on with a merge that a crash has interrupted."""
        self._rows = connection.execute(sa.select(sa.func.count()).select_from(tail)).scalar_one()
        self._plan_size(connection)
        row, signal = connection.execute(sa.select(store.c.merge_row, store.c.merge_signal)).one()
        if row:
            self._pieces = self._plan(connection, row, signal) or [(signal, signal)]

    def _plan_size(self, connection: sa.Connection) -> None:
        signals = connection.execute(sa.select(sa.func.count()).select_from(t.signal)).scalar_one()
        self._merge_rows = max(MERGE_ROWS, min(MERGE_ROWS_MOST, MERGE_ROWS_OF_A_SIGNAL * signals))

    def _plan(self, connection: sa.Connection, last: int, done: int) -> list[tuple[int, int]]:
        """Ranges (after, to) of signals, each of about PIECE_ROWS rows of the tail."""
        counts = connection.execute(
            sa.select(tail.c.signal_id, sa.func.count())
            .where(tail.c.row <= last, tail.c.signal_id > done)
            .group_by(tail.c.signal_id)
            .order_by(tail.c.signal_id)
        ).all()
        pieces: list[tuple[int, int]] = []
        after, rows = done, 0
        for signal, count in counts:
            rows += count
            if rows >= PIECE_ROWS:
                pieces.append((after, signal))
                after, rows = signal, 0
        if rows:
            pieces.append((after, counts[-1][0]))
        return pieces

    def _merge_piece(self, engine: sa.Engine) -> None:
        after, to = self._pieces[0]
        final = len(self._pieces) == 1
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO reading ({_COLUMNS}) SELECT {_COLUMNS} FROM tail WHERE row <= (SELECT merge_row FROM store) "
                "AND signal_id > ? AND signal_id <= ? ORDER BY signal_id, ts, n",
                (after, to),
            )
            connection.execute(store.update().values(merge_signal=to))
            if final:
                connection.exec_driver_sql("DELETE FROM tail WHERE row <= (SELECT merge_row FROM store)")
                connection.execute(store.update().values(merge_row=0, merge_signal=0))
                self._plan_size(connection)
                left = connection.execute(sa.select(sa.func.count()).select_from(tail)).scalar_one()
        del self._pieces[0]
        if final:
            self._rows = left
            self._since = time.monotonic()
