"""A stream whose numbers were used by somebody else goes on under a new id, with its births and what is not confirmed."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.ledger._outbox_file import COLUMNS, INSERT, Row, Stream, link, walk
from gateway.ledger.bodies import decode_body
from gateway.ledger.compression import Compressor
from schemas.wire import ZERO_HASH, Kind, Tombstone

_CHUNK = 200


def rehome(db: sqlite3.Connection, path: Path, old: Stream, compressor: Compressor) -> Stream:
    """Gives the messages new numbers and a new chain, in the same place of the order; the stream's own row is the caller's. To be called within a transaction.

    Raises OutboxDamagedError.
    """
    fresh = Stream(old.pos, uuid.uuid4().hex, 1, 0, ZERO_HASH, 0)
    aside = -old.pos
    for row in _moving(db, path, old):
        for kind, enc, body in _bodies(row, compressor):
            seq = fresh.high + 1
            moved = Row(seq, seq, kind, fresh.hash, enc, body, None)
            seal, fresh.hash = link(fresh.id, moved)
            fresh.high = seq
            db.execute(INSERT, (aside, *moved._replace(seal=seal)))
    db.execute("DELETE FROM message WHERE pos = ?", (old.pos,))
    db.execute("UPDATE message SET pos = ? WHERE pos = ?", (old.pos, aside))
    return fresh


def _bodies(row: Row, compressor: Compressor) -> Iterator[tuple[int, int, bytes]]:
    """(kind, enc, body) of what goes on. A tombstone's numbers were of the old chain: its gaps and readings go on as they are."""
    if row.kind != Kind.TOMBSTONE:
        yield row.kind, row.enc, row.body
        return
    stone = decode_body(row.kind, row.body, row.enc)
    assert isinstance(stone, Tombstone)
    yield int(Kind.GAP), *compressor.pack(msgspec.msgpack.encode(stone.gaps))
    if stone.newest is not None:
        yield int(Kind.READINGS), *compressor.pack(msgspec.msgpack.encode(stone.newest))


def _moving(db: sqlite3.Connection, path: Path, old: Stream) -> Iterator[Row]:
    """Births first come, and what is not confirmed, a few at a time: an outage of weeks does not fit into memory."""
    after = 0
    while True:
        rows = db.execute(
            f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq > ? AND (kind = ? OR last_seq > ?) ORDER BY seq LIMIT ?",
            (old.pos, after, int(Kind.BIRTH), old.confirmed, _CHUNK),
        ).fetchall()
        if not rows:
            return
        for raw in rows:
            (row, _), *_rest = walk(path, old, [raw], raw[0])
            yield row
        after = rows[-1][0]
