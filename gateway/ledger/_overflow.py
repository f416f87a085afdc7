"""Dropping under the same numbers: a run of readings gives way to one tombstone, which says what is missing.

Progress between readings goes along, since the next one repeats it: dropping it can only overstate a gap. Otherwise a tombstone for
every second would remain, and weeks of an outage would fill the budget with them.

A value that holds for long is told once. So the newest of the dropped readings of each signal go along in the newest tombstone of a
stream, as many as fit into it (some 2,000), those that have held for longest first: without them an older value would stand beyond the gap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.ledger._outbox_file import COLUMNS, INSERT, OutboxDamagedError, Row, Stream, link, walk
from gateway.ledger.bodies import OVERHEAD, PoisonError, decode_body, gaps_of_batch, merge_gaps
from gateway.ledger.compression import Compressor
from schemas.wire import MAX_MESSAGE, Batch, Gap, Kind, Progress, Tombstone

MOST = 500
"""Messages in one run, so that one transaction stays short."""


@dataclass(frozen=True, slots=True)
class Buried:
    """A tombstone that stands: from number `seq` on, in the place of so many `readings`; `freed` bytes of bodies."""

    seq: int
    readings: int
    freed: int


def bury(
    db: sqlite3.Connection,
    path: Path,
    stream: Stream,
    after: int,
    excess: int,
    compressor: Compressor,
    transact: Callable[[Callable[[], None]], None],
) -> Buried | None:
    """Puts one tombstone in the place of the first run of readings beyond number `after`; None when there is none.

    The run ends with what is never dropped, with `MOST` messages, or when `excess` bytes are reached. Raises OutboxDamagedError.
    """
    run: list[Row] = []
    gaps: list[Gap] = []
    newest = _Newest()
    carrier: tuple[Row, Tombstone] | None = None
    size = readings = 0
    cursor = db.execute(
        f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq >= "
        "coalesce((SELECT max(seq) FROM message WHERE pos = ? AND seq <= ? AND last_seq > ?), ?) ORDER BY seq",
        (stream.pos, stream.pos, after, after, after + 1),
    )
    for row, _ in walk(path, stream, cursor, after + 1):
        if row.seq <= after:  # a tombstone of which the store had a part already: it stays as it is
            continue
        body = _droppable(row)
        missing = None if body is None else _missing(body)
        if missing is None or len(run) == MOST or size > excess + MAX_MESSAGE:
            if readings:
                break
            run, gaps, size = [], [], 0
            newest = _Newest(None if carrier is None else carrier[1].newest)
        if missing is None or (not run and row.kind == Kind.PROGRESS):
            continue
        run.append(row)
        gaps += missing
        size += len(row.body)
        if isinstance(body, Batch):
            newest.add(body)
            readings += len(body.points)
        elif isinstance(body, Tombstone) and body.newest is not None:
            newest.add(body.newest)
            carrier = row, body
    cursor.close()
    if not readings:
        return None
    if (
        run[-1].kind == Kind.PROGRESS
    ):  # what is just behind the last reading proves how far the tombstone goes: it stays
        size -= len(run.pop().body)
    first, last = run[0], run[-1]
    stone, whole = _tombstone(stream, first, last, link(stream.id, last)[1], merge_gaps(gaps), newest, compressor)
    lighter = None
    if carrier is not None and carrier[0].seq < first.seq and whole:  # what it carried goes on in the new one
        row, old = carrier
        body_without = msgspec.msgpack.encode(Tombstone(old.hash, old.gaps))
        lighter = tombstone(stream, row.seq, row.last_seq, row.prev, body_without, compressor)

    def replace() -> None:
        if lighter is not None:
            db.execute("DELETE FROM message WHERE pos = ? AND seq = ?", (stream.pos, lighter.seq))
            db.execute(INSERT, (stream.pos, *lighter))
        db.execute("DELETE FROM message WHERE pos = ? AND seq BETWEEN ? AND ?", (stream.pos, first.seq, last.seq))
        db.execute(INSERT, (stream.pos, *stone))

    transact(replace)
    return Buried(first.seq, readings, size - len(stone.body))


def _tombstone(
    stream: Stream, first: Row, last: Row, end: bytes, gaps: list[Gap], newest: _Newest, compressor: Compressor
) -> tuple[Row, bool]:  # fmt: skip
    """Of all points where naming them would not fit into a message: overstated, never understated. And whether `newest` fits whole."""
    body = msgspec.msgpack.encode(Tombstone(end, gaps))
    if len(body) + OVERHEAD > MAX_MESSAGE:
        gaps = merge_gaps(msgspec.structs.replace(gap, points=None) for gap in gaps)
        body = msgspec.msgpack.encode(Tombstone(end, gaps))
    found = newest.batch(MAX_MESSAGE - OVERHEAD - len(body))
    if found is not None:
        body = msgspec.msgpack.encode(Tombstone(end, gaps, found))
    whole = found is not None and len(found.points) == len(newest)
    return tombstone(stream, first.seq, last.last_seq, first.prev, body, compressor), whole


def tombstone(stream: Stream, seq: int, last_seq: int, prev: bytes, body: bytes, compressor: Compressor) -> Row:
    """The row of a tombstone over `seq..last_seq` with this plain body."""
    enc, stored = compressor.pack(body)
    row = Row(seq, last_seq, int(Kind.TOMBSTONE), prev, enc, stored, None)
    return row._replace(seal=link(stream.id, row)[0])


def _droppable(row: Row) -> Batch | Tombstone | Progress | None:
    """What a message says that may go; None for one that is never dropped, or that cannot be read."""
    if row.kind not in (Kind.READINGS, Kind.TOMBSTONE, Kind.PROGRESS):
        return None
    try:
        body = decode_body(row.kind, row.body, row.enc)
    except PoisonError:
        return None
    if isinstance(body, Progress) and any(done.back_to is not None for done in body.done):
        return None  # an outage that was filled is told once only
    return body if isinstance(body, Batch | Tombstone | Progress) else None


def _missing(body: Batch | Tombstone | Progress) -> list[Gap]:
    """What would be missing without it."""
    match body:
        case Batch():
            return [gaps_of_batch(body)] if body.points else []
        case Tombstone():
            return body.gaps
        case _:
            return []


class _Newest:
    """Of each point the newest of the readings that are dropped."""

    def __init__(self, carried: Batch | None = None) -> None:
        self._rows: dict[int, tuple[int, Batch, int]] = {}
        if carried is not None:
            self.add(carried)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, batch: Batch) -> None:
        """These come after those before."""
        rows, base = self._rows, batch.base
        for row, (point, offset) in enumerate(zip(batch.points, batch.offsets, strict=True)):
            held = rows.get(point)
            if held is None or held[0] <= base + offset:
                rows[point] = base + offset, batch, row

    def batch(self, room: int) -> Batch | None:
        """As many as fit into so many bytes, those that have held for longest first; None when not one does."""
        some = sorted(self._rows.values(), key=lambda one: one[0])
        while some:
            made = _as_batch(some)
            size = len(msgspec.msgpack.encode(made))
            if size <= room:
                return made
            some = some[: max(min(len(some) * room // size, len(some) - 1), 0)]
        return None


def _as_batch(some: list[tuple[int, Batch, int]]) -> Batch:
    """Without `n`: what a reading was numbered after may be missing, and the store numbers it."""
    base = some[0][0]
    return Batch(
        base,
        [batch.points[row] for _, batch, row in some],
        [ts - base for ts, _, _ in some],
        [batch.values[row] for _, batch, row in some],
        [batch.status[row] if batch.status else 0 for _, batch, row in some] if any(b.status for _, b, _ in some) else None,
        [batch.flags[row] if batch.flags else 0 for _, batch, row in some] if any(b.flags for _, b, _ in some) else None,
        None,
        {new: b.extra[row] for new, (_, b, row) in enumerate(some) if b.extra and row in b.extra} or None,
    )  # fmt: skip


__all__ = ["Buried", "OutboxDamagedError", "bury", "tombstone"]
