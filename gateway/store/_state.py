"""What the writer knows of the store between transactions, and the way of readings into it."""

from __future__ import annotations

from typing import Protocol

import sqlalchemy as sa

from gateway.store import _gaps as gaps
from gateway.store import tables as t
from gateway.store._catalog import Catalog
from gateway.store._rollups import newest_rolled
from gateway.store._rows import Columns, Key, Newest, Stored


class Readings(Protocol):
    """How readings get into one kind of database."""

    def append(self, connection: sa.Connection, columns: Columns) -> None: ...
    def insert(self, connection: sa.Connection, columns: Columns) -> None: ...
    def existing(self, connection: sa.Connection, keys: set[Key]) -> dict[Key, list[Stored]]: ...
    def newest(self, connection: sa.Connection) -> Newest: ...
    def committed(self) -> None: ...
    def rolled_back(self) -> None: ...
    def maintain(self, engine: sa.Engine, *, everything: bool = False) -> bool: ...


class State:
    """What the writer remembers between transactions; read anew after each that failed."""

    def __init__(self) -> None:
        self.loaded = False
        self.catalog = Catalog()
        self.newest = Newest()
        self.open_gaps: set[str] = set()
        self.rolled_to = t.TS_MIN
        """Up to when the roll-up that is the furthest on is made."""
        self.horizon = t.TS_MIN
        """Where the raw readings begin (retention)."""

    def load(self, connection: sa.Connection, readings: Readings) -> None:
        """Read it from the store."""
        self.catalog.load(connection)
        self.newest = readings.newest(connection)
        self.open_gaps = gaps.devices_with_open_gaps(connection)
        self.load_upkeep(connection)
        self.loaded = True

    def load_upkeep(self, connection: sa.Connection) -> None:
        """Read what roll-ups and retention have moved."""
        self.rolled_to = newest_rolled(connection)
        horizon = connection.execute(sa.select(t.store.c.horizon)).scalar()
        self.horizon = t.TS_MIN if horizon is None else int(horizon)
