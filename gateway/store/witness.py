"""What the store says when it is checked against an outbox: watermarks and hashes, and whether what was confirmed is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from gateway.ledger.verify import Mark, Told
from gateway.store import tables as t
from gateway.store._rows import comparable
from gateway.store._sql import text
from gateway.store._sqlite import SqliteReadings
from gateway.store._state import Readings
from gateway.store._values import dump, encode
from gateway.store.reader import Reader
from schemas.wire import Cause

_MANY = 500


class Witness:
    """Reads only; safe beside a running ingest. Methods raise StoreWeatherError and StoreFailedError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def store_id(self) -> str:
        """The UUID that was born with the database."""
        return self._reader.store_id()

    def marks(self) -> dict[str, Mark]:
        """How far each stream is stored, by its id."""
        with self._reader.transaction() as connection:
            return {
                row.id: Mark(row.gateway, row.watermark, bytes(row.hash), row.lost)
                for row in connection.execute(sa.select(t.stream).order_by(t.stream.c.opened_at, t.stream.c.id))
            }

    def signals(self) -> dict[tuple[str, str], int]:
        """(device, name) -> the number of the signal."""
        columns = t.signal.c
        with self._reader.transaction() as connection:
            query = sa.select(columns.device, columns.name, columns.id)
            return {(row.device, row.name): row.id for row in connection.execute(query)}

    def devices(self) -> dict[str, str]:
        """Device -> its gateway."""
        with self._reader.transaction() as connection:
            query = sa.select(t.device.c.id, t.device.c.gateway)
            return {row.id: row.gateway for row in connection.execute(query)}

    def horizon(self) -> int | None:
        """Readings from before this moment (µs) may have been deleted by the retention."""
        with self._reader.transaction() as connection:
            found = connection.execute(sa.select(t.store.c.horizon)).scalar()
            return None if found is None else int(found)

    def letters(self, stream: str) -> set[int]:
        """The numbers of the stream that have left a dead letter."""
        letter = t.dead_letter.c
        with self._reader.transaction() as connection:
            return set(connection.scalars(sa.select(letter.seq).where(letter.stream == stream)))

    def open_letters(self) -> int:
        """Dead letters that nobody has decided about."""
        query = sa.select(sa.func.count()).select_from(t.dead_letter).where(t.dead_letter.c.settled_at.is_(None))
        with self._reader.transaction() as connection:
            return int(connection.execute(query).scalar_one())

    def gaps(self, stream: str) -> set[tuple[str | None, str, int, int | None]]:
        """(device, cause, start, end) of the gaps that came with the stream."""
        gap = t.gap.c
        query = sa.select(gap.device, gap.cause, gap.start_ts, gap.end_ts).where(gap.stream == stream)
        with self._reader.transaction() as connection:
            return {(row.device, row.cause, row.start_ts, row.end_ts) for row in connection.execute(query)}

    def gateways_with_losses_told(self) -> set[str]:
        """The gateways that have a gap for messages that were lost or could not be read, or that had no device to lose one of."""
        gap, device = t.gap.c, t.device.c
        causes = (Cause.LOST.value, Cause.UNDECODABLE.value, Cause.FORK.value)
        with self._reader.transaction() as connection:
            told = set(connection.scalars(sa.select(gap.gateway).where(gap.cause.in_(causes)).distinct()))
            with_devices = set(connection.scalars(sa.select(device.gateway).distinct()))
            every = set(connection.scalars(sa.select(t.stream.c.gateway).distinct()))
        return told | (every - with_devices)

    def events(self, ids: Collection[str]) -> set[str]:
        """Which of these ids are not there."""
        wanted = {text(one): one for one in ids}
        names = list(wanted)
        with self._reader.transaction() as connection:
            for start in range(0, len(names), _MANY):
                some = names[start : start + _MANY]
                for found in connection.scalars(sa.select(t.event.c.id).where(t.event.c.id.in_(some))):
                    wanted.pop(found, None)
        return set(wanted.values())

    def missing(self, readings: Sequence[Told]) -> list[Told]:
        """The readings of which no row with their signal, ts, value and status is stored."""
        with self._reader.transaction() as connection:
            there = _rows(connection).existing(connection, {(one.signal, one.ts) for one in readings})
        known: dict[tuple[int, int], list[tuple[Any, int]]] = defaultdict(list)
        for key, rows in there.items():
            known[key] = [(row.value, row.status) for row in rows]
        return [one for one in readings if (_value(one.value), one.status) not in known[one.signal, one.ts]]


def _rows(connection: sa.Connection) -> Readings:
    if connection.dialect.name == "sqlite":
        return SqliteReadings()
    from gateway.store._postgres import PostgresReadings  # with psycopg, nine megabytes

    return PostgresReadings(copy=False, timescale=False)


def _value(value: Any) -> Any:
    """As the stored row has it."""
    num, form, kind = encode(value)
    return comparable(num, dump({"v": form}), kind)
