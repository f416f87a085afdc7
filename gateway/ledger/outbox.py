"""The outbox: what holds every message until the store has confirmed it. One SQLite file, one writer.

Each start begins a new stream; older streams in the file are drained first. A message is readable for the sender only after
its commit: `append` collects, `commit` makes durable. At level `power` a commit is fsynced (SQLite WAL, synchronous FULL), at
level `process` it survives a kill of the process only. Bodies are compressed where it pays.

What is read is proved: each row by its seal, and by the chain between neighbours. Damage is an OutboxDamagedError, never a message.

All methods may be called from any one thread at a time; a lock inside keeps two from interleaving.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from gateway.ledger import _overflow
from gateway.ledger._outbox_file import (
    COLUMNS,
    INSERT,
    MOVED,
    STORE,
    STORE_SEAL,
    STREAM_NAME,
    WAL_LIMIT,
    Durability,
    OutboxDamagedError,
    OutboxError,
    OutboxFullError,
    Row,
    Stream,
    check_newest,
    crc_of_text,
    from_sqlite,
    is_damage,
    is_full,
    link,
    load_streams,
    mark_damaged,
    open_file,
    save_stream,
    walk,
)
from gateway.ledger._rehome import rehome
from gateway.ledger.bodies import OVERHEAD
from gateway.ledger.compression import Compressor
from schemas.wire import MAX_MESSAGE, ZERO_HASH, Closed, Envelope, Kind, version_of

ROW = 92
"""Bytes that a message takes on the disk beside its body: its row's other columns, its place in the index, and its share of what is
left free in pages. 77 beside bodies of 140 bytes, 102 beside those of 320; more beside large ones, where it matters less."""
_TRIM_CHUNK = 500
_EMPTY_STREAMS = 64
"""Empty streams that are remembered by their numbers, so that a restored store learns what it can never get again."""


@dataclass(frozen=True, slots=True)
class _Pending:
    row: Row
    end: bytes


class Outbox:
    """See the module. `path` is the file; its directory must exist and be writable. `log_limit`: bytes of its write-ahead log.

    Raises OutboxError for a file of a newer format, OutboxFullError, and OutboxDamagedError for what is no outbox or is damaged:
    the newest 64 MB are checked here, the rest when it is read.
    """

    def __init__(self, path: Path, durability: Durability = "power", log_limit: int = WAL_LIMIT) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db = open_file(path, durability, log_limit)
        try:
            self._streams = load_streams(path, self._db)
            check_newest(path, self._db, self._streams.values())
            self._page = int(self._db.execute("PRAGMA page_size").fetchone()[0])
            self._size = self._measured()
            self.store: str | None = self._meta(STORE)
            if self.store is not None and self._meta(STORE_SEAL) not in (None, crc_of_text(self.store)):
                raise OutboxDamagedError(path, "the id of its store is not what was written")
        except sqlite3.Error as error:
            self._db.close()
            raise from_sqlite(path, error) from error
        except OutboxError:
            self._db.close()
            raise
        self._compressor = Compressor()
        self.written = 0
        """About how many bytes of the file this process has filled."""
        self._pending: list[_Pending] = []
        self._next_seq = 1
        self._next_prev = ZERO_HASH
        self._current: Stream | None = None
        self._drop_after: dict[str, int] = {}
        self._gone: set[str] = set()
        self._confirmed_at: deque[tuple[float, str, int]] = deque(
            (0.0, s.id, s.confirmed) for s in self.streams() if s.confirmed
        )

    # -------------------------------------------------------------------------------------------------- writing

    def begin(self) -> str:
        """Begins a new stream, durably, and returns its id. What the file still holds of older streams goes first.

        The new stream's first messages say where the older ones ended (`Closed`), so that no old stream gets another number.
        """
        with self._lock:
            self._forget([s for s in self._streams.values() if not s.high])
            ended = [s for s in self._streams.values() if s.low <= s.high]
            stream_id = uuid.uuid4().hex
            place = 1 + int(self._db.execute("SELECT coalesce(max(pos), 0) FROM stream").fetchone()[0])
            with self._transaction():
                self._current = Stream(place, stream_id, 1, 0, ZERO_HASH, 0)
                save_stream(self._db, self._current)
                self._set_meta(f"{STREAM_NAME}{place}", stream_id)
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
            seq = self._next_seq
            enc, stored = self._compressor.pack(body)
            row = Row(seq, seq, int(kind), self._next_prev, enc, stored, None)
            seal, end = link(self._current.id, row)
            self._pending.append(_Pending(row._replace(seal=seal), end))
            self._next_seq, self._next_prev = seq + 1, end
            return seq

    @property
    def pending(self) -> int:
        """Messages appended and not yet committed."""
        return len(self._pending)

    def commit(self) -> int:
        """Makes everything appended so far durable; returns the highest durable number of the current stream.

        Raises OutboxFullError when the disk is full, OutboxDamagedError, sqlite3.Error for other trouble; the messages stay pending then.
        """
        with self._lock:
            current = self._current
            assert current is not None, "begin() first"
            batch = list(self._pending)
            if not batch:
                return current.high
            high, end = batch[-1].row.seq, batch[-1].end
            with self._transaction():
                self._db.executemany(INSERT, [(current.pos, *m.row) for m in batch])
                save_stream(self._db, replace(current, high=high, hash=end))
            current.high, current.hash = high, end
            self._pending = self._pending[len(batch) :]
            self._size = self._measured()
            self.written += sum(len(m.row.body) + ROW for m in batch)
            return high

    # -------------------------------------------------------------------------------------------------- reading

    def streams(self) -> list[Stream]:
        """All streams in their order; the current one is the last."""
        return list(self._streams.values())

    def stream(self, stream_id: str) -> Stream | None:
        """One stream, or None."""
        return self._streams.get(stream_id)

    def was_ours(self, stream_id: str) -> bool:
        """True for a stream of this file that has gone: moved to a new id, or forgotten since this start."""
        return stream_id in self._gone or self.meta(f"{MOVED}{stream_id}") is not None

    def read(self, stream_id: str, first: int, most: int, most_bytes: int) -> list[Envelope]:
        """Durable messages from number `first` on (a tombstone that covers it included), at most so many and so many bytes.

        At least one is given if there is one. Raises OutboxDamagedError for what is not what was appended, or is not there.
        """
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None:
                return []
            out: list[Envelope] = []
            with self._reading():
                rows = self._db.execute(
                    f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq >= "
                    "coalesce((SELECT max(seq) FROM message WHERE pos = ? AND seq <= ? AND last_seq >= ?), ?) ORDER BY seq LIMIT ?",
                    (stream.pos, stream.pos, first, first, first, most),
                )
                size = 0
                for row, _ in walk(self.path, stream, rows, first):
                    size += len(row.body)
                    if out and size > most_bytes:
                        break
                    out.append(
                        Envelope(
                            version_of(row.enc), row.kind, stream.id, row.seq, row.last_seq, stream.low, row.prev, row.enc, row.body
                        )
                    )  # fmt: skip
                if not out and most > 0 and max(first, stream.low) <= stream.high:
                    raise OutboxDamagedError(self.path, f"number {first} of stream {stream_id} is missing")
            return out

    def hash_at(self, stream_id: str, seq: int) -> bytes | None:
        """The chain's hash after number `seq`, as far as the outbox can tell; None when it is not held."""
        with self._lock:
            stream = self._streams.get(stream_id)
            if stream is None or seq > stream.high:
                return None
            if seq == stream.high:
                return stream.hash
            with self._reading():
                rows = self._db.execute(
                    f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq = ?", (stream.pos, seq + 1)
                )
                found = [row for row, _ in walk(self.path, stream, rows, seq + 1)]
            return found[0].prev if found else None

    @property
    def size(self) -> int:
        """Bytes of the file that are in use: whole pages, free ones not counted. The file is as large as this once was at most, since
        free pages are used again before it grows; the write-ahead log beside it has `WAL_LIMIT` bytes at most."""
        return self._size

    @property
    def on_disk(self) -> int:
        """Bytes that the file and its write-ahead log take on the disk now."""
        total = 0
        for name in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                total += name.stat().st_size
            except FileNotFoundError:
                pass  # a log that is not there yet
        return total

    @property
    def waiting(self) -> int:
        """About how many of the bytes in use are of messages that the store has not confirmed."""
        held = unconfirmed = 0
        for stream in self.streams():
            held += stream.high - stream.low + 1
            unconfirmed += stream.high - max(stream.confirmed, stream.low - 1)
        return self._size * unconfirmed // held if held else 0

    def _measured(self) -> int:
        pages = int(self._db.execute("PRAGMA page_count").fetchone()[0])
        free = int(self._db.execute("PRAGMA freelist_count").fetchone()[0])
        return (pages - free) * self._page

    # -------------------------------------------------------------------------------------- confirmed, and gone

    def pin(self, store: str) -> None:
        """From now on only this store confirms; durable before this returns."""
        with self._lock:
            with self._transaction():
                self._set_meta(STORE, store)
                self._set_meta(STORE_SEAL, crc_of_text(store))
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
                self._drop_after.pop(stream_id, None)
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
        with self._transaction():
            found = self._db.execute(
                "DELETE FROM message WHERE pos = ? AND last_seq <= ? AND kind != ?", (stream.pos, upto, int(Kind.BIRTH))
            )
            save_stream(self._db, replace(stream, low=upto + 1))
        stream.low = upto + 1
        self._size = self._measured()
        return found.rowcount

    def _forget(self, streams: Iterable[Stream]) -> None:
        for stream in list(streams):
            with self._transaction():
                self._db.execute("DELETE FROM message WHERE pos = ?", (stream.pos,))
                self._db.execute("DELETE FROM stream WHERE pos = ?", (stream.pos,))
                self._db.execute("DELETE FROM meta WHERE key = ?", (f"{STREAM_NAME}{stream.pos}",))
            del self._streams[stream.id]
            self._gone.add(stream.id)
            self._size = self._measured()

    # ------------------------------------------------------------------------------------------------- overflow

    def drop_oldest(self, target: int, most: int | None = None) -> int:
        """Replaces the oldest unconfirmed readings by tombstones under the same numbers until `size` is at most `target`, or until
        `most` tombstones were written.

        Confirmed messages go first. Returns how many readings were dropped. Progress goes with the readings around it; nothing else
        is ever dropped.
        """
        with self._lock:
            dropped = 0
            for stream in self.streams():
                while self._size > target and stream.confirmed >= stream.low:
                    self._delete(stream, min(stream.confirmed, stream.low + _TRIM_CHUNK - 1))
            for stream in self.streams():
                while self._size > target and (most is None or most > 0):
                    after = max(stream.confirmed, self._drop_after.get(stream.id, 0))
                    with self._reading():
                        buried = _overflow.bury(
                            self._db, self.path, stream, after, self._size - target, self._compressor, self._transact
                        )
                    if buried is None:
                        break
                    self._drop_after[stream.id] = buried.seq - 1
                    self._size = self._measured()
                    dropped += buried.readings
                    most = None if most is None else most - 1
            return dropped

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
            with self._transaction():
                fresh = rehome(self._db, self.path, old, self._compressor)
                save_stream(self._db, fresh)
                self._set_meta(f"{MOVED}{old.id}", fresh.id)
                self._set_meta(f"{STREAM_NAME}{fresh.pos}", fresh.id)
            self._streams = {
                (fresh.id if s.id == stream_id else s.id): (fresh if s is old else s) for s in self.streams()
            }
            if old is self._current:
                self._current, self._next_seq, self._next_prev = fresh, fresh.high + 1, fresh.hash
            self._drop_after.pop(stream_id, None)
            self._size = self._measured()
            return fresh.id

    # -------------------------------------------------------------------------------------------------- private

    def close(self) -> None:
        """Closes the file; what was not committed is gone, as after a crash."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Damage that SQLite finds is told as such, and remembered for the next start; everything else as SQLite tells it."""
        try:
            yield
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            mark_damaged(self.path, str(error))
            raise OutboxDamagedError(self.path, str(error)) from error
        except OutboxDamagedError as error:
            mark_damaged(self.path, str(error))
            raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, durable at the level. Raises OutboxFullError, OutboxDamagedError, sqlite3.Error."""
        with self._reading():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                self._rollback()
                if isinstance(error, sqlite3.Error) and is_full(error):
                    raise from_sqlite(self.path, error) from error
                raise

    def _transact(self, change: Callable[[], None]) -> None:
        with self._transaction():
            change()

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
        with self._lock, self._reading():
            return self._meta(key)

    def set_meta(self, key: str, value: str) -> None:
        """Writes such a fact, durably."""
        with self._lock, self._reading():
            self._set_meta(key, value)


__all__ = ["ROW", "WAL_LIMIT", "Durability", "Outbox", "OutboxDamagedError", "OutboxError", "OutboxFullError", "Stream"]
