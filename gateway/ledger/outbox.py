"""The outbox: what holds every message until the store has confirmed it. One SQLite file, one writer.

Each start begins a new stream; older streams in the file are drained first. A message is readable for the sender only after
its commit: `append` collects, `commit` makes durable. At level `power` a commit is fsynced (SQLite WAL, synchronous FULL), at
level `process` it survives a kill of the process only.

All methods may be called from any one thread at a time; a lock inside keeps two from interleaving.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from gateway.ledger.bodies import OVERHEAD, PoisonError, decode_body, gaps_of_batch, merge_gaps
from schemas.bilingual import Bilingual
from schemas.wire import MAX_MESSAGE, VERSION, ZERO_HASH, Batch, Closed, Envelope, Gap, Kind, Tombstone, chain_hash

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    low INTEGER NOT NULL, high INTEGER NOT NULL, hash BLOB NOT NULL, confirmed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS message (
    pos INTEGER NOT NULL, seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, kind INTEGER NOT NULL,
    prev BLOB NOT NULL, enc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS message_place ON message (pos, seq);
"""
_FORMAT = "1"
_TRIM_CHUNK = 500
_EMPTY_STREAMS = 64
"""Empty streams that are remembered by their numbers, so that a restored store learns what it can never get again."""


class OutboxError(Exception):
    """The outbox cannot be used; `fix` says what a person can do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class OutboxFullError(OutboxError):
    """The disk is full: nothing was lost, what is pending stays pending; try `commit` again."""


@dataclass(slots=True)
class Stream:
    """A stream in the file. `high` and `hash` are durable; `low` is the lowest number still held; numbers begin with 1."""

    pos: int
    id: str
    low: int
    high: int
    hash: bytes
    confirmed: int

    @property
    def drained(self) -> bool:
        """True when the store has everything."""
        return self.confirmed >= self.high


@dataclass(frozen=True, slots=True)
class _Pending:
    kind: int
    seq: int
    prev: bytes
    body: bytes


class Outbox:
    """See the module. `path` is the file; its directory must exist and be writable.

    Raises OutboxError for a file that is not an outbox, or one of a newer format.
    """

    def __init__(self, path: Path, durability: Literal["power", "process"] = "power") -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'NORMAL'}")
            self._db.execute("PRAGMA wal_autocheckpoint=2000")
            self._db.executescript(_SCHEMA)
            found = self._meta("format")
        except sqlite3.DatabaseError as error:
            self._db.close()
            if _is_full(error):
                raise OutboxFullError(
                    Bilingual(f"{path}: no space left on the disk", f"{path}：磁盘空间不足"),
                    Bilingual("Free space on the disk of data_dir.", "请清理 data_dir 所在磁盘。"),
                ) from error
            raise OutboxError(
                Bilingual(f"{path} is not a readable outbox: {error}", f"{path} 不是可读取的发件箱：{error}"),
                Bilingual(
                    f"Move {path} aside and start again; what it held and the store had not confirmed is a recorded gap.",
                    f"请将 {path} 移开后重新启动；其中尚未被存储确认的内容会记为缺口。",
                ),
            ) from error
        if found is None:
            self._set_meta("format", _FORMAT)
        elif found != _FORMAT:
            self._db.close()
            raise OutboxError(
                Bilingual(
                    f"{path} has format {found}; this version reads {_FORMAT}",
                    f"{path} 的格式为 {found}；本版本可读 {_FORMAT}",
                ),
                Bilingual("Start the newer version of the gateway again.", "请重新使用较新版本的网关。"),
            )
        self._streams: dict[str, Stream] = {}
        for row in self._db.execute("SELECT pos, id, low, high, hash, confirmed FROM stream ORDER BY pos"):
            self._streams[row[1]] = Stream(*row)
        self._pending: list[_Pending] = []
        self._next_seq = 1
        self._next_prev = ZERO_HASH
        self._current: Stream | None = None
        self._confirmed_at: deque[tuple[float, str, int]] = deque(
            (0.0, s.id, s.confirmed) for s in self.streams() if s.confirmed
        )
        self._bytes = int(self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM message").fetchone()[0])
        self.store: str | None = self._meta("store")

    # -------------------------------------------------------------------------------------------------- writing

    def begin(self) -> str:
        """Begins a new stream, durably, and returns its id. What the file still holds of older streams goes first.

        The new stream's first messages say where the older ones ended (`Closed`), so that no old stream gets another number.
        """
        with self._lock:
            self._forget([s for s in self._streams.values() if not s.high])
            ended = [s for s in self._streams.values() if s.low <= s.high]
            stream_id = uuid.uuid4().hex
            cursor = self._db.execute(
                "INSERT INTO stream (id, low, high, hash, confirmed) VALUES (?, 1, 0, ?, 0)", (stream_id, ZERO_HASH)
            )
            assert cursor.lastrowid is not None
            self._current = Stream(cursor.lastrowid, stream_id, 1, 0, ZERO_HASH, 0)
            self._streams[stream_id] = self._current
            self._pending, self._next_seq, self._next_prev = [], 1, ZERO_HASH
            for old in ended:
                self.append(Kind.CLOSED, msgspec.msgpack.encode(Closed(old.id, old.high, old.hash)))
            return stream_id

    @property
    def current(self) -> str:
        """The id of the stream that `append` writes to."""
        assert self._current is not None, "begin() first"
        return self._current.id

    def append(self, kind: Kind, body: bytes) -> int:
        """Gives the next number to a body (MessagePack, at most 64 kB with its envelope). Durable only after `commit`.

        Raises ValueError for a body that is too large: whoever makes bodies splits them.
        """
        if len(body) + OVERHEAD > MAX_MESSAGE:
            raise ValueError(f"a body of {len(body)} bytes does not fit into a message of {MAX_MESSAGE} bytes")
        with self._lock:
            assert self._current is not None, "begin() first"
            seq, prev = self._next_seq, self._next_prev
            self._pending.append(_Pending(kind, seq, prev, body))
            self._next_seq = seq + 1
            self._next_prev = chain_hash(VERSION, kind, self._current.id, seq, seq, prev, 0, body)
            return seq

    @property
    def pending(self) -> int:
        """Messages appended and not yet committed."""
        return len(self._pending)

    def commit(self) -> int:
        """Makes everything appended so far durable; returns the highest durable number of the current stream.

        Raises OutboxFullError when the disk is full, sqlite3.Error for other trouble; the messages stay pending then.
        """
        with self._lock:
            current = self._current
            assert current is not None, "begin() first"
            batch = list(self._pending)
            if not batch:
                return current.high
            high, end = batch[-1].seq, self._next_prev
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT INTO message (pos, seq, last_seq, kind, prev, enc, body) VALUES (?, ?, ?, ?, ?, 0, ?)",
                    [(current.pos, m.seq, m.seq, m.kind, m.prev, m.body) for m in batch],
                )
                self._db.execute("UPDATE stream SET high = ?, hash = ? WHERE pos = ?", (high, end, current.pos))
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._rollback()
                if _is_full(error):
                    raise OutboxFullError(
                        Bilingual(f"{self.path}: no space left on the disk", f"{self.path}：磁盘空间不足"),
                        Bilingual(
                            "Free space on the disk of data_dir, or set outbox.budget.",
                            "请清理 data_dir 所在磁盘，或设置 outbox.budget。",
                        ),
                    ) from error
                raise
            current.high, current.hash = high, end
            self._bytes += sum(len(m.body) for m in batch)
            self._pending = self._pending[len(batch) :]
            return high

    # -------------------------------------------------------------------------------------------------- reading

    def streams(self) -> list[Stream]:
        """All streams in their order; the current one is the last."""
        return list(self._streams.values())

    def stream(self, stream_id: str) -> Stream | None:
        """One stream, or None."""
        return self._streams.get(stream_id)

    def read(self, stream_id: str, first: int, most: int, most_bytes: int) -> list[Envelope]:
        """Durable messages from number `first` on (a tombstone that covers it included), at most so many and so many bytes.

        At least one is given if there is one. A row whose bytes do not fit its neighbours' chain is given all the same:
        ingest judges it.
        """
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None:
                return []
            rows = self._db.execute(
                "SELECT seq, last_seq, kind, prev, enc, body FROM message WHERE pos = ? AND seq >= "
                "coalesce((SELECT max(seq) FROM message WHERE pos = ? AND seq <= ? AND last_seq >= ?), ?) ORDER BY seq LIMIT ?",
                (stream.pos, stream.pos, first, first, first, most),
            )
            out: list[Envelope] = []
            size = 0
            for seq, last_seq, kind, prev, enc, body in rows:
                size += len(body)
                if out and size > most_bytes:
                    break
                out.append(Envelope(VERSION, kind, stream.id, seq, last_seq, stream.low, prev, enc, body))
            return out

    def hash_at(self, stream_id: str, seq: int) -> bytes | None:
        """The chain's hash after number `seq`, as far as the outbox can tell; None when it is not held."""
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None or seq > stream.high:
                return None
            if seq == stream.high:
                return stream.hash
            row = self._db.execute(
                "SELECT prev FROM message WHERE pos = ? AND seq = ?", (stream.pos, seq + 1)
            ).fetchone()
            return None if row is None else bytes(row[0])

    @property
    def size(self) -> int:
        """Bytes of all bodies held."""
        return self._bytes

    # -------------------------------------------------------------------------------------- confirmed, and gone

    def pin(self, store: str) -> None:
        """From now on only this store confirms; durable before this returns."""
        with self._lock:
            self._set_meta("store", store)
            self.store = store

    def set_confirmed(self, stream_id: str, seq: int, now: float) -> None:
        """The store has everything up to `seq`. It may go back: then the store was restored from a backup.

        `now` in seconds of any steady clock: from it counts how long confirmed messages are kept. Kept in memory; a restart
        asks the store again.
        """
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            seq = min(seq, stream.high)
            if seq < stream.confirmed:
                self._confirmed_at = deque(
                    (t, s, min(q, seq) if s == stream_id else q) for t, s, q in self._confirmed_at
                )
            elif seq > stream.confirmed:
                self._confirmed_at.append((now, stream_id, seq))
            stream.confirmed = seq

    def trim(self, before: float) -> int:
        """Deletes what was confirmed before the time `before` (same clock as `set_confirmed`); returns how many messages.

        At most a few hundred a call, so that a commit never waits long. Births stay as long as their stream does.
        """
        with self._lock:
            deleted = 0
            while self._confirmed_at and self._confirmed_at[0][0] <= before and deleted < _TRIM_CHUNK:
                _, stream_id, seq = self._confirmed_at[0]
                stream = self._streams.get(stream_id)
                if stream is None or stream.low > seq:
                    self._confirmed_at.popleft()
                    continue
                upto = min(seq, stream.low + _TRIM_CHUNK - 1)
                deleted += self._delete(stream, upto)
            empty = [s for s in self._streams.values() if s is not self._current and s.low > s.high and s.drained]
            self._forget(empty[:-_EMPTY_STREAMS])
            return deleted

    def _delete(self, stream: Stream, upto: int) -> int:
        where = "FROM message WHERE pos = ? AND last_seq <= ? AND kind != ?"
        args = (stream.pos, upto, int(Kind.BIRTH))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            count, size = self._db.execute(f"SELECT count(*), coalesce(sum(length(body)), 0) {where}", args).fetchone()
            self._db.execute(f"DELETE {where}", args)
            self._db.execute(
                "UPDATE stream SET low = ?, confirmed = ? WHERE pos = ?", (upto + 1, stream.confirmed, stream.pos)
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._rollback()
            raise
        stream.low = upto + 1
        self._bytes -= size
        return int(count)

    def _forget(self, streams: Iterable[Stream]) -> None:
        for stream in list(streams):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM message WHERE pos = ?", (stream.pos,))
            self._db.execute("DELETE FROM stream WHERE pos = ?", (stream.pos,))
            self._db.execute("COMMIT")
            del self._streams[stream.id]
            self._bytes = int(self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM message").fetchone()[0])

    # ------------------------------------------------------------------------------------------------- overflow

    def drop_oldest(self, target: int) -> int:
        """Replaces the oldest unconfirmed readings by tombstones under the same numbers until `size` is at most `target`.

        Confirmed messages go first. Returns how many readings were dropped. Nothing else than readings is ever dropped.
        """
        with self._lock:
            dropped = 0
            for stream in self.streams():
                if self._bytes > target and stream.confirmed >= stream.low:
                    self._delete(stream, stream.confirmed)
            for stream in self.streams():
                while self._bytes > target:
                    count = self._bury(stream, self._bytes - target)
                    if count is None:
                        break
                    dropped += count
            return dropped

    def _bury(self, stream: Stream, excess: int) -> int | None:
        """Puts one tombstone in the place of the first run of unconfirmed readings; None when there is none of two or more."""
        run: list[tuple[int, int, int, bytes, bytes]] = []
        size = 0
        worth = False
        rows = self._db.execute(
            "SELECT seq, last_seq, kind, prev, body FROM message WHERE pos = ? AND seq > ? ORDER BY seq",
            (stream.pos, stream.confirmed),
        )
        gaps: list[Gap] = []
        count = 0
        for row in rows:
            gap = _droppable(row[2], row[4])
            if gap is None or size > excess + MAX_MESSAGE or len(run) == _TRIM_CHUNK:
                if worth:
                    break
                run, size, gaps, count = [], 0, [], 0
            if gap is not None:
                run.append(row)
                size += len(row[4])
                gaps += gap
                if row[2] == Kind.READINGS:
                    worth, count = True, count + sum(g.count or 0 for g in gap)
        rows.close()
        if not worth:
            return None
        first, last = run[0], run[-1]
        following = self._db.execute(
            "SELECT prev FROM message WHERE pos = ? AND seq = ?", (stream.pos, last[1] + 1)
        ).fetchone()
        end = stream.hash if following is None else bytes(following[0])
        stone = msgspec.msgpack.encode(Tombstone(end, merge_gaps(gaps)))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(
                "DELETE FROM message WHERE pos = ? AND seq BETWEEN ? AND ?", (stream.pos, first[0], last[0])
            )
            self._db.execute(
                "INSERT INTO message (pos, seq, last_seq, kind, prev, enc, body) VALUES (?, ?, ?, ?, ?, 0, ?)",
                (stream.pos, first[0], last[1], int(Kind.TOMBSTONE), first[3], stone),
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._rollback()
            raise
        self._bytes += len(stone) - size
        return count

    # ----------------------------------------------------------------------------------------------------- fork

    def rehome(self, stream_id: str) -> str:
        """Moves what the store has not confirmed of a stream to a new stream in the same place of the order.

        For a stream whose numbers were used by somebody else (a running machine was set back to a snapshot): its births go
        first, then the rest under new numbers. Returns the new id; if it was the current stream, the new one is.
        """
        with self._lock:
            old = self._streams[stream_id]
            if old is self._current:
                self.commit()
            rows = self._db.execute(
                "SELECT kind, last_seq, prev, body FROM message WHERE pos = ? AND (kind = ? OR last_seq > ?) ORDER BY seq",
                (old.pos, int(Kind.BIRTH), old.confirmed),
            ).fetchall()
            fresh = Stream(old.pos, uuid.uuid4().hex, 1, 0, ZERO_HASH, 0)
            moved = []
            for kind, _last, _prev, body in rows:
                if (
                    kind == Kind.TOMBSTONE
                ):  # its numbers were of the old chain; the gaps it stands for go on as they are
                    kind, body = Kind.GAP, msgspec.msgpack.encode(decode_body(kind, body).gaps)  # type: ignore[union-attr]
                seq = fresh.high + 1
                moved.append((fresh.pos, seq, seq, kind, fresh.hash, body))
                fresh.hash = chain_hash(VERSION, kind, fresh.id, seq, seq, fresh.hash, 0, body)
                fresh.high = seq
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM message WHERE pos = ?", (old.pos,))
            self._db.executemany(
                "INSERT INTO message (pos, seq, last_seq, kind, prev, enc, body) VALUES (?, ?, ?, ?, ?, 0, ?)", moved
            )
            self._db.execute(
                "UPDATE stream SET id = ?, low = 1, high = ?, hash = ?, confirmed = 0 WHERE pos = ?",
                (fresh.id, fresh.high, fresh.hash, old.pos),
            )
            self._db.execute("COMMIT")
            self._streams = {
                (fresh.id if s.id == stream_id else s.id): (fresh if s is old else s) for s in self.streams()
            }
            if old is self._current:
                self._current, self._next_seq, self._next_prev = fresh, fresh.high + 1, fresh.hash
            self._bytes = int(self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM message").fetchone()[0])
            return fresh.id

    # -------------------------------------------------------------------------------------------------- private

    def close(self) -> None:
        """Closes the file; what was not committed is gone, as after a crash."""
        with self._lock:
            self._db.close()

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def meta(self, key: str) -> str | None:
        """A small durable fact beside the messages, such as which births were told."""
        with self._lock:
            return self._meta(key)

    def set_meta(self, key: str, value: str) -> None:
        """Writes such a fact, durably."""
        with self._lock:
            self._set_meta(key, value)


def _droppable(kind: int, body: bytes) -> list[Gap] | None:
    """What would be missing without this message; None for one that is never dropped, or that cannot be read."""
    if kind not in (Kind.READINGS, Kind.TOMBSTONE):
        return None
    try:
        decoded = decode_body(kind, body)
    except PoisonError:
        return None
    return (
        [gaps_of_batch(decoded)]
        if isinstance(decoded, Batch)
        else decoded.gaps
        if isinstance(decoded, Tombstone)
        else None
    )


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or "disk is full" in str(error)
