"""A dead letter that is tried again: what it holds is stored, and it is marked as replayed, in one transaction."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.ledger.bodies import PoisonError, decode_body
from gateway.ledger.steps import Applied, Body, Step
from gateway.store import tables as t
from gateway.store._batch import malformed
from gateway.store._letters import ROW, LetterRow, forget_points
from gateway.store._rows import Columns
from gateway.store._sql import text
from gateway.store._state import Readings, State
from gateway.store._transaction import Transaction
from gateway.store._values import encode
from gateway.store.tables import TS_MAX, TS_MIN
from schemas.wire import ZERO_HASH, Batch, Birth, Cause, Closed, Committed, Event, Gap, Link, Progress, Tombstone

_row = msgspec.msgpack.Decoder(LetterRow)


class NotReplayableError(Exception):
    """What the letter holds can still not be stored; the message says why."""


class Replay(Transaction):
    """One dead letter on a connection whose transaction, and lease, are the caller's. Raises NotReplayableError instead of making
    another dead letter; then the caller rolls back."""

    def __init__(
        self, connection: sa.Connection, state: State, readings: Readings, place: str, *, event_no: int
    ) -> None:
        super().__init__(connection, state, readings, place, event_no=event_no, careful=False)

    def replay(self, letter: Any, epoch: int, commit_no: int, now: int) -> Applied:
        """Store what the row `letter` of the table holds; `now` in µs is when it is settled."""
        step = Step(letter.gateway, letter.stream, letter.seq, letter.seq, ZERO_HASH, letter.at)
        self._steps = [step]
        self._store(step, _decoded(letter))
        keys = set(zip(self._columns.signal, self._columns.ts, strict=True))
        self._write_readings()
        if self._events:
            self._connection.execute(t.store.update().values(event_no=self._event_no))
        self._withdraw(letter, keys)
        applied = self.applied
        note = f"stored {applied.rows}, were there already {applied.duplicates}, too late {self._too_late}"
        columns = t.dead_letter.c
        self._connection.execute(
            t.dead_letter.update().where(columns.id == letter.id).values(state="replayed", settled_at=now, note=note)
        )
        forget_points(self._connection, letter.stream)
        applied.committed = Committed(epoch, commit_no, self._rows, [], [], self._events, self._births)
        return applied

    def _store(self, step: Step, body: Body | LetterRow) -> None:
        match body:
            case LetterRow():
                self._columns.extend(_columns_of(body))
            case Batch():
                reason = malformed(body)
                if reason:
                    raise NotReplayableError(reason)
                self._batch(0, step, body)
            case Birth():
                if self._allowed(step, body.device, body):
                    self._state.catalog.late_birth(self._connection, step, body)
                    self._births = True
            case Tombstone():
                self._gaps(step, body.gaps)
                if body.newest is not None:
                    self._store(step, body.newest)
            case list():
                self._events_of(step, [item for item in body if isinstance(item, Event)])
                self._gaps(step, [item for item in body if isinstance(item, Gap)])
            case Link() | Progress() | Closed():
                raise NotReplayableError(
                    "it says how things were at that moment, and later messages have said it anew: discard it"
                )

    def _withdraw(self, letter: Any, keys: set[tuple[int, int]]) -> None:
        """The gaps that were recorded for these single readings: they are stored now."""
        gap = t.gap.c
        found = self._connection.execute(
            sa.select(gap.id, gap.device, gap.signals, gap.start_ts).where(
                gap.stream == letter.stream, gap.seq == letter.seq, gap.cause == Cause.UNDECODABLE.value,
                gap.start_ts == gap.end_ts, gap.signals.is_not(None),
            )
        ).all()  # fmt: skip
        gone = [row for row in found if len(row.signals) == 1 and (row.signals[0], row.start_ts) in keys]
        if gone:
            self._connection.execute(t.gap.delete().where(gap.id.in_([row.id for row in gone])))
        for row in gone:
            self._mark(self._steps[0], row.device, row.start_ts, row.start_ts)

    def _dead_letter(self, step: Step, reason: str, raw: Any, count: int) -> None:
        raise NotReplayableError(reason)


def _decoded(letter: Any) -> Body | LetterRow:
    if letter.kind is None:
        raise NotReplayableError("it is not known what kind of message it was")
    try:
        if letter.kind == ROW:
            return _row.decode(bytes(letter.raw))
        return decode_body(letter.kind, bytes(letter.raw), letter.enc or 0)
    except PoisonError as error:
        raise NotReplayableError(text(str(error))) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotReplayableError(text(f"{type(error).__name__}: {error}")) from error


def _columns_of(row: LetterRow) -> Columns:
    """The one row, as columns; `exact` keeps what is beside the value."""
    if not TS_MIN <= row.ts <= TS_MAX:
        raise NotReplayableError(f"ts {row.ts} is outside the years 1 to 9999")
    num, _, kind = encode(row.value)
    return Columns(
        [row.signal], [row.ts], [row.n], [num], [row.exact], [row.status or None], [row.flags | kind], [row.value], [0],
    )  # fmt: skip
