"""What a store needs beside its transactions: roll-ups and retention, in short pieces between them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

import sqlalchemy as sa

from gateway.store import _retention as retention
from gateway.store import _rollups as rollups
from gateway.store import tables as t
from gateway.store._engine import now

Begin = Callable[[], AbstractContextManager[sa.Connection]]
"""Opens a transaction."""

_SIGNALS = 20
"""So many signals in one transaction."""
_MARKS = 200
RETAIN_EVERY = 3600.0
"""Seconds between two looks at the retention."""


class Upkeep:
    """The queue of what is due. `step` does one short piece of it, in a transaction of its own.

    `look` opens a transaction that writes nothing, which costs no flash; `begin` one that is ours by the lease.
    `tidy` is called before roll-ups are made: it merges SQLite's tail, which each query of theirs would read.
    """

    def __init__(
        self, look: Begin, begin: Begin, tidy: Callable[[], None], *, retention: float | None, timescale: bool
    ) -> None:
        self._look = look
        self._begin = begin
        self._tidy = tidy
        self._retention = retention
        self._timescale = timescale
        self._seen: tuple[int, ...] | None = None
        self._due: deque[int] = deque()
        self._retained_at: float | None = None
        self._horizon: int | None = None
        self._behind: deque[int] = deque()
        self._deleting: deque[int] | None = None

    def step(self) -> bool:
        """Do one piece; False when nothing is due."""
        return self._clean() or self._roll_up() or self._retain()

    def _clean(self) -> bool:
        with self._look() as connection:
            if connection.execute(sa.select(t.dirty.c.id).limit(1)).first() is None:
                return False
        with self._begin() as connection:
            return rollups.clean(connection, _MARKS) > 0

    def _roll_up(self) -> bool:
        if not self._due:
            with self._look() as connection:
                ends = connection.scalars(sa.select(t.progress.c.complete_to).order_by(t.progress.c.complete_to))
                quarters = tuple(sorted({rollups.quarter_before(end) for end in ends}))
                if quarters == self._seen:
                    return False
                self._due.extend(rollups.due(connection))
            self._seen = quarters
            if not self._due:
                return False
            self._tidy()
        self._make(self._due, None)
        return True

    def _make(self, queue: deque[int], upto: int | None) -> None:
        with self._begin() as connection:
            for _ in range(min(_SIGNALS, len(queue))):
                signal = queue[0]
                if not rollups.make(connection, signal, upto=upto):
                    queue.popleft()

    def _retain(self) -> bool:
        """In pieces: make what is missing of the roll-ups, move the horizon, delete what is before it."""
        if self._retention is None:
            return False
        if self._horizon is None:
            if self._retained_at is not None and time.monotonic() - self._retained_at < RETAIN_EVERY:
                return False
            self._retained_at = time.monotonic()
            with self._look() as connection:
                self._horizon = retention.horizon_of(connection, self._retention, now())
                if self._horizon is None:
                    return False
                self._behind = deque(retention.behind(connection, self._horizon))
            self._tidy()
            return True
        if self._behind:
            self._make(self._behind, self._horizon)
            return True
        if self._deleting is None:
            with self._begin() as connection:
                retention.move_horizon(connection, self._horizon)
                self._deleting = deque(connection.scalars(sa.select(t.signal.c.id).order_by(t.signal.c.id)))
            return True
        with self._begin() as connection:
            if self._timescale:
                self._deleting.clear()
                retention.drop_chunks_before(connection, self._horizon)
            else:
                some = [self._deleting.popleft() for _ in range(min(_SIGNALS, len(self._deleting)))]
                retention.delete_before(connection, some, self._horizon)
        if not self._deleting:
            self._deleting = self._horizon = None
        return True
