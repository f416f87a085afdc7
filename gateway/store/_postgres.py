"""Readings in PostgreSQL and TimescaleDB: COPY BINARY, or INSERT from unnested binary arrays where there is no COPY.

Layouts: PostgreSQL documentation, "COPY", section Binary Format; array_recv in src/backend/utils/adt/arrayfuncs.c;
timestamptz_recv (int8, µs since 2000-01-01); jsonb_recv (version byte 1, then text).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Dumper
from psycopg.pq import Format

from gateway.store._rows import Columns, Key, Newest, Stored, comparable
from gateway.store._timescale import NO_LIMIT
from gateway.store.tables import PG_EPOCH, to_datetime

_COPY = "COPY reading (signal_id, ts, n, num, exact, status, flags) FROM STDIN (FORMAT BINARY)"
_COPY_TYPES = ["int4", "int8", "int2", "float8", "bytea", "int8", "int2"]
"""On the wire timestamptz is an int8, and jsonb is bytes: dumped as such they cost no objects."""

_INSERT = (
    "INSERT INTO reading (signal_id, ts, n, num, exact, status, flags) SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s)"
)
_EXISTING = (
    "SELECT r.signal_id, r.ts, r.n, r.num, r.exact, r.status, r.flags FROM unnest(%s, %s) AS k(s, t) "
    "JOIN reading r ON r.signal_id = k.s AND r.ts = k.t WHERE r.ts BETWEEN {low} AND {high}"
)
_NEWEST = (
    "SELECT s.id, r.ts, r.n FROM signal s CROSS JOIN LATERAL "
    "(SELECT ts, n FROM reading WHERE signal_id = s.id ORDER BY ts DESC, n DESC LIMIT 1) r"
)

_NULL = b"\xff\xff\xff\xff"
_HEADER = struct.Struct(">iiIii")


class _BinaryArray:
    """A PostgreSQL array, dumped by ourselves."""

    __slots__ = ("data", "oid")

    def __init__(self, oid: int, data: bytes) -> None:
        self.oid = oid
        self.data = data


class _BinaryArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _BinaryArray) -> bytes:
        return obj.data

    def get_key(self, obj: _BinaryArray, format: Any) -> Any:
        return (self.cls, obj.oid)

    def upgrade(self, obj: _BinaryArray, format: Any) -> Dumper:
        dumper = type(self)(self.cls)
        dumper.oid = obj.oid
        return dumper


def _array(column: Sequence[Any], array: int, element: int, code: str, size: int) -> _BinaryArray:
    pack: Callable[[int, Any], bytes] = struct.Struct(f">i{code}").pack
    if None in column:
        body = b"".join([_NULL if item is None else pack(size, item) for item in column])
    else:
        body = b"".join(map(pack, repeat(size), column))
    return _BinaryArray(array, _HEADER.pack(1, 1, element, len(column), 1) + body)


def _int2(column: Sequence[Any]) -> _BinaryArray:
    return _array(column, 1005, 21, "h", 2)


def _int4(column: Sequence[Any]) -> _BinaryArray:
    return _array(column, 1007, 23, "i", 4)


def _int8(column: Sequence[Any]) -> _BinaryArray:
    return _array(column, 1016, 20, "q", 8)


def _float8(column: Sequence[Any]) -> _BinaryArray:
    return _array(column, 1022, 701, "d", 8)


def _times(column: Sequence[int]) -> _BinaryArray:
    return _array([ts - PG_EPOCH for ts in column], 1185, 1184, "q", 8)


def _jsonb(column: Sequence[bytes | None]) -> _BinaryArray:
    body = b"".join([_NULL if item is None else len(item).to_bytes(4, "big") + item for item in column])
    return _BinaryArray(3807, _HEADER.pack(1, 1, 3802, len(column), 1) + body)


def _exact(column: Sequence[str | None]) -> list[bytes | None]:
    return [None if item is None else b"\x01" + item.encode() for item in column]


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


class PostgresReadings:
    """The way of readings into PostgreSQL or TimescaleDB. Every method runs in a transaction of the caller."""

    def __init__(self, *, copy: bool, timescale: bool) -> None:
        self._copy = copy
        self._timescale = timescale

    def append(self, connection: sa.Connection, columns: Columns) -> None:
        """Store rows whose keys are known to be free, by COPY."""
        if not self._copy:
            self.insert(connection, columns)
            return
        with _driver(connection).cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            write = copy.write_row
            exact: Iterable[bytes | None] = repeat(None) if not any(columns.exact) else _exact(columns.exact)
            ts = [ts - PG_EPOCH for ts in columns.ts]
            for row in zip(columns.signal, ts, columns.n, columns.num, exact, columns.status, columns.flags):  # noqa: B905 - repeat() has no end
                write(row)

    def insert(self, connection: sa.Connection, columns: Columns) -> None:
        """Store rows whose keys are known to be free, by one INSERT from arrays."""
        if not len(columns):
            return
        driver = _driver(connection)
        driver.adapters.register_dumper(_BinaryArray, _BinaryArrayDumper)
        if self._timescale:
            driver.execute(NO_LIMIT)
        driver.execute(
            _INSERT,
            (
                _int4(columns.signal), _times(columns.ts), _int2(columns.n), _float8(columns.num),
                _jsonb(_exact(columns.exact)), _int8(columns.status), _int2(columns.flags),
            ),
        )  # fmt: skip

    def existing(self, connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, list[Stored]]:
        """The stored rows of each (signal, ts) that has some."""
        wanted = sorted(keys)
        found: dict[Key, list[Stored]] = {}
        if not wanted:
            return found
        driver = _driver(connection)
        driver.adapters.register_dumper(_BinaryArray, _BinaryArrayDumper)
        times = [ts for _, ts in wanted]
        # the bounds let TimescaleDB leave out the chunks that have nothing to do with it
        low, high = (f"timestamptz '{_text(ts)}'" for ts in (min(times), max(times)))
        rows = driver.execute(
            _EXISTING.format(low=low, high=high),
            (_int4([signal for signal, _ in wanted]), _times(times)),
        )
        for signal, ts, n, num, exact, status, flags in rows:
            key = (signal, ts + PG_EPOCH)
            found.setdefault(key, []).append(Stored(n, comparable(num, exact, flags), status or 0))
        return found

    def newest(self, connection: sa.Connection) -> Newest:
        """The newest (ts, n) of each signal."""
        newest = Newest()
        for signal, ts, n in _driver(connection).execute(_NEWEST):
            newest.ts[signal] = ts + PG_EPOCH
            newest.n[signal] = (ts + PG_EPOCH, n)
        return newest

    def committed(self) -> None:
        """Nothing is kept between transactions."""

    def rolled_back(self) -> None:
        """Nothing is kept between transactions."""

    def maintain(self, engine: sa.Engine, *, everything: bool = False) -> bool:
        """Nothing to do: the server looks after itself. Returns False."""
        return False


def _text(ts: int) -> str:
    return to_datetime(ts).isoformat()
