"""What can be read of a damaged outbox, in a new file under the same streams and numbers; the rest as gaps.

Every page that may hold rows is read, whatever the b-tree above it says. A row is taken when its seal proves it: stream, number, chain
and body are what was written. So no wrong message comes through, each one that is whole is saved, and since numbers stay, the store
knows what it has already. Where numbers are missing between others a tombstone stands with a gap `lost`; what is missing before the
first one is told by `low`, as always, and the store opens the gap.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from gateway.ledger._outbox_file import (
    COLUMNS,
    FORMAT,
    INSERT,
    MOVED,
    PAGE,
    SCHEMA,
    STORE,
    STORE_SEAL,
    STREAM_NAME,
    Row,
    Stream,
    as_stream,
    crc_of_text,
    is_name,
    link,
    save_stream,
    well_formed,
)
from gateway.ledger._overflow import tombstone
from gateway.ledger._sqlite_pages import TABLE_LEAF, Pages, Record
from gateway.ledger.bodies import PoisonError, decode_body
from gateway.ledger.compression import Compressor
from schemas.wire import ZERO_HASH, Birth, Cause, Gap, Kind, Progress, Tombstone

COMPLETE_TO = "complete_to"
_MOST_GAPS = 400
_LOOK_AHEAD = 5
"""Progress messages behind a hole that say where it ends."""


@dataclass(slots=True)
class Salvaged:
    """What became of a damaged outbox."""

    why: str
    aside: Path
    messages: int = 0
    """Messages saved."""
    lost: int = 0
    """Numbers that are known to be missing."""
    streams: int = 0


@dataclass(slots=True)
class _Hole:
    """Numbers first..last are missing; `before` is the chain's hash ahead of them, `after` behind them."""

    first: int
    last: int
    before: bytes
    after: bytes
    starts: dict[str, int]
    ends: dict[str, int] = field(default_factory=dict)
    at: int | None = None
    left: int = _LOOK_AHEAD


class _Times:
    """What the messages so far say of when each device was complete, for the bounds of gaps."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.groups: dict[tuple[str, str], int] = {}
        self.born: dict[str, int] = {}
        self.holes: list[_Hole] = []
        self.lost_from: dict[str, int] = {}

    def stream(self) -> None:
        """Another stream begins."""
        self.holes = []

    def hole(self, first: int, last: int, before: bytes, after: bytes) -> None:
        """Numbers are missing here."""
        starts = dict(self.born)
        per_device: dict[str, int] = {}
        for (device, _), at in self.groups.items():
            per_device[device] = min(at, per_device.get(device, at))
        self.holes.append(_Hole(first, last, before, after, starts | per_device))

    def look(self, row: Row) -> None:
        """A message that is there."""
        if row.kind not in (Kind.PROGRESS, Kind.BIRTH):
            return
        try:
            body = decode_body(row.kind, row.body, row.enc)
        except PoisonError:
            return
        if isinstance(body, Birth):
            self.born[body.device] = min(body.at, self.born.get(body.device, body.at))
        elif isinstance(body, Progress):
            for hole in self.holes:
                if hole.left > 0:
                    hole.left -= 1
                    hole.at = body.at if hole.at is None else hole.at
                    for done in body.done:
                        hole.ends.setdefault(done.device, done.complete_to)
                for done in body.done:
                    if done.back_to is not None and done.device in hole.starts:
                        hole.starts[done.device] = min(hole.starts[done.device], done.back_to)
            for done in body.done:
                self.groups[done.device, done.group] = done.complete_to

    def gaps(self, hole: _Hole) -> list[Gap]:
        """What a hole may lack: of each device from when it was complete before to when it is again; overstated, never understated."""
        end = self.now if hole.at is None else hole.at
        for device, start in hole.starts.items():
            self.lost_from[device] = min(start, self.lost_from.get(device, start))
        detail = f"the outbox was damaged: numbers {hole.first} to {hole.last}"

        def gap(device: str | None, start: int, until: int) -> Gap:
            return Gap(device, None, min(start, until), max(start, until), Cause.LOST.value, None, detail)

        devices = sorted(hole.starts.keys() | hole.ends.keys())
        earliest = min(hole.starts.values(), default=end)
        if not devices or len(devices) > _MOST_GAPS:
            return [gap(None, earliest, max(end, *hole.ends.values(), earliest) if hole.ends else end)]
        return [gap(name, hole.starts.get(name, earliest), max(end, hole.ends.get(name, end))) for name in devices]


def salvage(damaged: Path, target: Path, now_us: int, why: str = "") -> Salvaged:
    """Writes what can be read of `damaged` and the log beside it to `target`, a new file, durably. `now_us` in µs UTC.

    Raises OSError and sqlite3.Error for `target` (no space, no rights); `damaged` is only read.
    """
    found = Salvaged(why, damaged)
    pages = Pages(damaged)
    db = sqlite3.connect(target, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.executescript(SCHEMA)
        streams, meta = _names(pages)
        db.execute("BEGIN")
        places = {key: place for place, key in enumerate(sorted(streams), 1)}
        _take_rows(pages, db, places)
        times, compressor = _Times(now_us), Compressor()
        for key, place in places.items():
            _mend(db, replace(streams[key], pos=place), times, compressor, found)
        _write_meta(db, meta, places, times)
        db.execute("COMMIT")
    finally:
        db.close()
        pages.close()
    descriptor = os.open(target, os.O_RDWR)  # Windows synchronises only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found


def _names(pages: Pages) -> tuple[dict[tuple[int, str], Stream], dict[str, str]]:
    """The streams, by (place, id), as far as rows, memory and index tell, and the memory."""
    streams: dict[tuple[int, str], Stream] = {}
    meta: dict[str, str] = {}
    for kind, page, of_log in pages.leaves():
        if kind == TABLE_LEAF and any(_message(record) for record in pages.records(kind, page, of_log, 1)):
            continue
        for record in pages.records(kind, page, of_log):
            match record.values:
                case (None, str(), *rest) if record.rowid is not None and len(rest) in (4, 5):
                    row = (record.rowid, *record.values[1:], *([None] if len(rest) == 4 else []))
                    stream = as_stream(row)
                    if stream is not None:
                        key = stream.pos, stream.id
                        streams[key] = _newest(stream, streams.get(key))
                case (str(key), str(value)) if kind != TABLE_LEAF:
                    meta[key] = value
                case (str(name), int(place)) if kind != TABLE_LEAF and is_name(name) and place > 0:
                    streams.setdefault((place, name), Stream(place, name, 1, 0, ZERO_HASH, 0))
    for name, value in meta.items():
        place = (
            int(name[len(STREAM_NAME) :]) if name.startswith(STREAM_NAME) and name[len(STREAM_NAME) :].isdigit() else 0
        )
        if place and is_name(value):
            streams.setdefault((place, value), Stream(place, value, 1, 0, ZERO_HASH, 0))
    gone = {name[len(MOVED) :] for name in meta if name.startswith(MOVED)}
    streams = {(place, name): stream for (place, name), stream in streams.items() if name not in gone}
    return streams, meta


def _newest(one: Stream, other: Stream | None) -> Stream:
    """Of two copies of a stream's row what is furthest: the numbers only rise."""
    if other is None:
        return one
    last = one if one.high >= other.high else other
    return replace(last, low=max(one.low, other.low), confirmed=max(one.confirmed, other.confirmed))


def _message(record: Record) -> tuple[int, Row] | None:
    """(place, row) of a record that can be a row of `message`; those of format 1 have no seal."""
    if record.rowid is None or len(record.values) not in (7, 8):
        return None
    place = record.values[0]
    row = Row(*record.values[1:], *(() if len(record.values) == 8 else (None,)))  # type: ignore[arg-type]  # looked at below
    return (place, row) if type(place) is int and well_formed(row) else None


def _take_rows(pages: Pages, db: sqlite3.Connection, places: dict[tuple[int, str], int]) -> None:
    """Every row that proves itself, or cannot because it has no seal, into `db`; of two tombstones with one number the longer, which is the newer."""
    names: dict[int, list[str]] = defaultdict(list)
    for place, name in places:
        names[place].append(name)
    insert = f"{INSERT} ON CONFLICT (pos, seq) DO UPDATE SET last_seq = excluded.last_seq, kind = excluded.kind, prev = excluded.prev, "
    insert += "enc = excluded.enc, body = excluded.body, seal = excluded.seal WHERE excluded.last_seq > last_seq"
    for kind, page, of_log in pages.leaves():
        if kind != TABLE_LEAF:
            continue
        for record in pages.records(kind, page, of_log):
            message = _message(record)
            if message is None:
                continue
            place, row = message
            for name in names.get(place, ()):
                try:
                    proved = row.seal is None or link(name, row)[0] == row.seal
                except PoisonError:  # a tombstone that was damaged
                    proved = False
                if proved:
                    db.execute(insert, (places[place, name], *row))


def _mend(db: sqlite3.Connection, stream: Stream, times: _Times, compressor: Compressor, found: Salvaged) -> None:
    """Makes one stream whole: old copies go, holes get tombstones, and the chain's ends are told."""
    db.execute(
        "DELETE FROM message WHERE pos = ? AND last_seq < ? AND kind != ?", (stream.pos, stream.low, int(Kind.BIRTH))
    )
    times.stream()
    expected, end = stream.low, ZERO_HASH if stream.low == 1 else b""
    for row, after in _proved(db, stream):
        if row.last_seq < stream.low:
            times.look(row)  # a birth that was kept
            continue
        if row.seq > expected:
            found.lost += row.seq - expected
            if end:
                times.hole(expected, row.seq - 1, end, row.prev)
            else:
                stream.low = row.seq
        times.look(row)
        found.messages += 1
        expected, end = row.last_seq + 1, after
    if expected > stream.high:
        stream.high, stream.hash = expected - 1, end or stream.hash
    else:
        found.lost += stream.high + 1 - expected
        if end:
            times.hole(expected, stream.high, end, stream.hash)
        else:
            stream.low = stream.high + 1
    for hole in times.holes:
        body = msgspec.msgpack.encode(Tombstone(hole.after, times.gaps(hole)))
        db.execute(INSERT, (stream.pos, *tombstone(stream, hole.first, hole.last, hole.before, body, compressor)))
    found.streams += 1
    stream.confirmed = min(stream.confirmed, stream.high)
    save_stream(db, stream)


def _proved(db: sqlite3.Connection, stream: Stream) -> Iterator[tuple[Row, bytes]]:
    """The rows in their order, each with the chain's hash after it; what a tombstone covers, and what the chain does not prove, is deleted."""
    rows = db.execute(f"SELECT {COLUMNS} FROM message WHERE pos = ? ORDER BY seq", (stream.pos,))
    held: tuple[Row, bytes] | None = None
    gone: list[int] = []
    reached = 0
    for raw in rows:
        row = Row(*raw)
        if row.last_seq <= reached:
            gone.append(row.seq)
            continue
        try:
            this = row, link(stream.id, row)[1]
        except PoisonError:  # a tombstone without a seal
            gone.append(row.seq)
            continue
        if held is not None:
            follows = row.seq == held[0].last_seq + 1
            if (follows and row.prev == held[1]) or (not follows and held[0].seal is not None):
                yield held
            else:
                gone.append(held[0].seq)
        held, reached = this, row.last_seq
    if held is not None:
        if held[0].seal is not None or (held[0].last_seq == stream.high and held[1] == stream.hash):
            yield held
        else:
            gone.append(held[0].seq)
    db.executemany("DELETE FROM message WHERE pos = ? AND seq = ?", [(stream.pos, seq) for seq in gone])


def _write_meta(
    db: sqlite3.Connection, meta: dict[str, str], places: dict[tuple[int, str], int], times: _Times
) -> None:
    """What was remembered, as far as it is whole. A device is complete to where its messages are: a history that its server keeps
    is read again from there."""
    kept = {
        key: value for key, value in meta.items() if key not in (STORE, STORE_SEAL, "format") and _sound(key, value)
    }
    if STORE in meta and meta.get(STORE_SEAL) == crc_of_text(meta[STORE]):
        kept |= {STORE: meta[STORE], STORE_SEAL: meta[STORE_SEAL]}
    if COMPLETE_TO in kept:
        known = json.loads(kept[COMPLETE_TO])
        for device, start in times.lost_from.items():
            if isinstance(known.get(device), dict):
                known[device] = {group: min(at, start) for group, at in known[device].items() if isinstance(at, int)}
        kept[COMPLETE_TO] = json.dumps(known)
    kept["format"] = FORMAT
    kept |= {f"{STREAM_NAME}{place}": name for (_, name), place in places.items()}
    db.executemany("INSERT INTO meta VALUES (?, ?)", kept.items())


def _sound(key: str, value: str) -> bool:
    """Whether a remembered value is whole: all are JSON. What is behind costs a second look, what is torn must not be believed."""
    if key.startswith(STREAM_NAME):
        return False
    if key.startswith(MOVED):
        return is_name(value)
    try:
        known = json.loads(value)
    except ValueError:
        return False
    return isinstance(known, dict) if key == COMPLETE_TO else True
