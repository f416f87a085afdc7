"""Dropping under the same numbers: a run of readings gives way to one tombstone, which says what is missing.

Progress between readings goes along, since the next one repeats it: dropping it can only overstate a gap. Otherwise a tombstone for
every second would remain, and weeks of an outage would fill the budget with them.
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
    size = readings = 0
    cursor = db.execute(
        f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq >= "
        "coalesce((SELECT max(seq) FROM message WHERE pos = ? AND seq <= ? AND last_seq > ?), ?) ORDER BY seq",
        (stream.pos, stream.pos, after, after, after + 1),
    )
    for row, _ in walk(path, stream, cursor, after + 1):
        if row.seq <= after:  # a tombstone of which the store had a part already: it stays as it is
            continue
        missing = droppable(row)
        if missing is None or len(run) == MOST or size > excess + MAX_MESSAGE:
            if readings:
                break
            run, gaps, size = [], [], 0
        if missing is None or (not run and row.kind == Kind.PROGRESS):
            continue
        run.append(row)
        gaps += missing
        size += len(row.body)
        if row.kind == Kind.READINGS:
            readings += sum(gap.count or 0 for gap in missing)
    cursor.close()
    if not readings:
        return None
    if (
        run[-1].kind == Kind.PROGRESS
    ):  # what is just behind the last reading proves how far the tombstone goes: it stays
        size -= len(run.pop().body)
    first, last = run[0], run[-1]
    stone = _tombstone(stream, first, last, link(stream.id, last)[1], merge_gaps(gaps), compressor)

    def replace() -> None:
        db.execute("DELETE FROM message WHERE pos = ? AND seq BETWEEN ? AND ?", (stream.pos, first.seq, last.seq))
        db.execute(INSERT, (stream.pos, *stone))

    transact(replace)
    return Buried(first.seq, readings, size - len(stone.body))


def _tombstone(
    stream: Stream, first: Row, last: Row, end: bytes, gaps: list[Gap], compressor: Compressor
) -> Row:  # fmt: skip
    """Of all points where naming them would not fit into a message: overstated, never understated."""
    body = msgspec.msgpack.encode(Tombstone(end, gaps))
    if len(body) + OVERHEAD > MAX_MESSAGE:
        gaps = merge_gaps(msgspec.structs.replace(gap, points=None) for gap in gaps)
        body = msgspec.msgpack.encode(Tombstone(end, gaps))
    return tombstone(stream, first.seq, last.last_seq, first.prev, body, compressor)


def tombstone(stream: Stream, seq: int, last_seq: int, prev: bytes, body: bytes, compressor: Compressor) -> Row:
    """The row of a tombstone over `seq..last_seq` with this plain body."""
    enc, stored = compressor.pack(body)
    row = Row(seq, last_seq, int(Kind.TOMBSTONE), prev, enc, stored, None)
    return row._replace(seal=link(stream.id, row)[0])


def droppable(row: Row) -> list[Gap] | None:
    """What would be missing without this message; None for one that is never dropped, or that cannot be read."""
    if row.kind not in (Kind.READINGS, Kind.TOMBSTONE, Kind.PROGRESS):
        return None
    try:
        body = decode_body(row.kind, row.body, row.enc)
    except PoisonError:
        return None
    match body:
        case Batch():
            return [gaps_of_batch(body)] if body.points else []
        case Tombstone():
            return body.gaps
        case Progress():  # an outage that was filled is told once only
            return None if any(done.back_to is not None for done in body.done) else []
        case _:
            return None


__all__ = ["Buried", "OutboxDamagedError", "bury", "droppable", "tombstone"]
