"""The outbox's file: its tables, how it is opened and brought up to date, what it weighs, and how a row proves itself.

A row of `message` carries `seal`, the first eight bytes of its own hash: with its neighbours' chain, damage is found where it is
and nowhere else. Rows of format 1 have none and are judged by the chain alone. A row of `stream` carries a CRC-32 of itself, and the
store's id has one beside it in `meta`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gateway.ledger._sqlite_log import unread_commits
from gateway.ledger.bodies import PoisonError, decode_body
from schemas.bilingual import Bilingual
from schemas.wire import ZERO_HASH, Kind, Tombstone, chain_hash, version_of

Durability = Literal["power", "process"]

FORMAT = "2"
_FORMATS = ("1", FORMAT)
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (
    pos INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    low INTEGER NOT NULL, high INTEGER NOT NULL, hash BLOB NOT NULL, confirmed INTEGER NOT NULL, seal INTEGER
);
CREATE TABLE IF NOT EXISTS message (
    pos INTEGER NOT NULL, seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, kind INTEGER NOT NULL,
    prev BLOB NOT NULL, enc INTEGER NOT NULL, body BLOB NOT NULL, seal INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS message_place ON message (pos, seq);
"""
INSERT = "INSERT INTO message (pos, seq, last_seq, kind, prev, enc, body, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
COLUMNS = "seq, last_seq, kind, prev, enc, body, seal"

STREAM_NAME = "stream/"
"""Before the place of a stream in `meta`: its id once more, on another page, since without it no message of it can be proved."""
MOVED = "moved/"
"""Before the id of a stream in `meta`: its messages went on under a new id, and copies of them in free pages must not come back."""
STORE, STORE_SEAL = "store", "store/seal"

PAGE = 4096
WAL_LIMIT = 8 * 1024 * 1024
"""Bytes that the write-ahead log may have while nobody reads the file in one long transaction."""
CHECKED_AT_START = 64 * 1024 * 1024
"""Bytes of bodies, the newest ones, that are checked at each start: what a power cut can have torn. The rest is checked when it is read."""

_MAGIC = b"SQLite format 3\x00"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_READ_ERRORS = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)


class OutboxError(Exception):
    """The outbox cannot be used; `fix` says what a person can do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class OutboxFullError(OutboxError):
    """The disk is full: nothing was lost, what is pending stays pending; try `commit` again."""


class OutboxDamagedError(OutboxError):
    """The file holds what nobody wrote: a torn page, a cut end, a chain that does not fit. `gateway.ledger.opening` saves what can be read."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            Bilingual(f"the outbox {path} is damaged: {what}", f"发件箱 {path} 已损坏：{what}"),
            Bilingual(
                "Nothing: the collector starts anew, saves what can be read, and records the rest as a gap. Check the disk.",
                "无需处理：采集进程会重新启动，保存可读取的内容，其余记为缺口。请检查磁盘。",
            ),
        )


class Row(NamedTuple):
    """A row of `message` as `COLUMNS` gives it."""

    seq: int
    last_seq: int
    kind: int
    prev: bytes
    enc: int
    body: bytes
    seal: int | None


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


def save_stream(db: sqlite3.Connection, stream: Stream) -> None:
    """Writes a stream's row, with its seal."""
    db.execute(
        "INSERT INTO stream (pos, id, low, high, hash, confirmed, seal) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pos) DO UPDATE SET "
        "id = excluded.id, low = excluded.low, high = excluded.high, hash = excluded.hash, confirmed = excluded.confirmed, "
        "seal = excluded.seal",
        (stream.pos, stream.id, stream.low, stream.high, stream.hash, stream.confirmed, crc_of(stream)),
    )


def crc_of(stream: Stream) -> int:
    """CRC-32 of a stream's row."""
    row = (stream.pos, stream.id, stream.low, stream.high, stream.hash, stream.confirmed)
    return zlib.crc32(msgspec.msgpack.encode(row))


def crc_of_text(text: str) -> str:
    """CRC-32 of a text, as eight hexadecimal digits."""
    return f"{zlib.crc32(text.encode()):08x}"


def seal_of(digest: bytes) -> int:
    """What a row keeps of its own hash (32 bytes): the first eight, as SQLite's signed integer."""
    return int.from_bytes(digest[:8], "big", signed=True)


def link(stream: str, row: Row) -> tuple[int, bytes]:
    """The seal of a row, and the chain's hash after it, which a tombstone carries in its body.

    Raises PoisonError for a tombstone that cannot be read.
    """
    digest = chain_hash(version_of(row.enc), row.kind, stream, row.seq, row.last_seq, row.prev, row.enc, row.body)
    if row.kind != Kind.TOMBSTONE:
        return seal_of(digest), digest
    stone = decode_body(row.kind, row.body, row.enc)
    assert isinstance(stone, Tombstone)
    return seal_of(digest), stone.hash


def well_formed(row: Row) -> bool:
    """Whether the columns have the types and bounds that they were written with: SQLite itself takes anything."""
    return (
        all(type(value) is int for value in (row.seq, row.last_seq, row.kind, row.enc))
        and isinstance(row.prev, bytes)
        and isinstance(row.body, bytes)
        and (row.seal is None or type(row.seal) is int)
        and 1 <= row.seq <= row.last_seq
        and len(row.prev) == len(ZERO_HASH)
    )


def mark_damaged(path: Path, what: str) -> None:
    """Remembers beside the file that it is to be salvaged: what was found now may not be found at the next start."""
    try:
        marker_of(path).write_text(what, encoding="utf-8")
    except OSError:
        pass  # the disk is full or gone; then it is found again


def marker_of(path: Path) -> Path:
    """The file beside an outbox that says that it is damaged."""
    return path.with_name(path.name + ".damaged")


def open_file(path: Path, durability: Durability, log_limit: int = WAL_LIMIT) -> sqlite3.Connection:
    """The file, made if there is none, in the present format. Raises OutboxError and its kinds."""
    began_empty = _checked_before_opening(path, durability)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        if not began_empty and db.execute("PRAGMA schema_version").fetchone()[0]:
            _checked_tables(path, db)
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'NORMAL'}")
        db.execute(f"PRAGMA wal_autocheckpoint={max(log_limit // PAGE, 16)}")
        db.execute(f"PRAGMA journal_size_limit={log_limit}")
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")  # all tables or none, wherever the power goes
        _bring_up_to_date(path, db)
    except sqlite3.Error as error:
        db.close()
        raise from_sqlite(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def _checked_before_opening(path: Path, durability: Durability) -> bool:
    """Whether the file is to be made. SQLite takes an empty file for a new database, and throws away a log beside it."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return True
    except OSError:
        return False  # SQLite says why
    if head != _MAGIC:
        raise OutboxDamagedError(path, "file is not a database" if head else "it is empty")
    if durability == "process":
        return False  # a power cut may tear any of the commits since the last checkpoint there: the tail is lost, as agreed
    unread = unread_commits(path.with_name(path.name + "-wal"))
    if unread:
        raise OutboxDamagedError(path, f"{unread} commits of its write-ahead log lie behind a damaged one")
    return False


def _checked_tables(path: Path, db: sqlite3.Connection) -> None:
    """Another kind of database, or a schema that was torn, must not be given tables as if it were new."""
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = {"meta", "stream", "message"} - names
    if missing and names:
        raise OutboxDamagedError(path, f"it has no table {', '.join(sorted(missing))}")


def _bring_up_to_date(path: Path, db: sqlite3.Connection) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    found = None if row is None else row[0]
    if found is None:
        if db.execute("SELECT 1 FROM stream UNION ALL SELECT 1 FROM message").fetchone() is not None:
            raise OutboxDamagedError(path, "its format is not told")
        db.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
    elif found not in _FORMATS:
        if not isinstance(found, str) or not found.isdigit():
            raise OutboxDamagedError(path, f"its format is {found!r}")
        raise OutboxError(
            Bilingual(
                f"{path} has format {found}; this version reads {FORMAT}",
                f"{path} 的格式为 {found}；本版本可读 {FORMAT}",
            ),
            Bilingual("Start the newer version of the gateway again.", "请重新使用较新版本的网关。"),
        )
    elif found != FORMAT:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ALTER TABLE message ADD COLUMN seal INTEGER")
        db.execute("ALTER TABLE stream ADD COLUMN seal INTEGER")
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (FORMAT,))
        db.execute("COMMIT")


def load_streams(path: Path, db: sqlite3.Connection) -> dict[str, Stream]:
    """The streams in their order. Raises OutboxDamagedError for what cannot be one."""
    streams: dict[str, Stream] = {}
    try:
        for row in db.execute("SELECT pos, id, low, high, hash, confirmed, seal FROM stream ORDER BY pos"):
            stream = as_stream(row)
            if stream is None:
                raise OutboxDamagedError(path, f"row {row[0]} of its table of streams is not what was written")
            streams[stream.id] = stream
    except sqlite3.Error as error:
        raise from_sqlite(path, error) from error
    return streams


def as_stream(row: tuple[object, ...]) -> Stream | None:
    """The stream of a row (pos, id, low, high, hash, confirmed, seal); None for one that cannot be, or is not what was written."""
    *columns, seal = row
    pos, name, low, high, end, confirmed = columns
    if not all(type(number) is int for number in (pos, low, high, confirmed)):
        return None
    if not isinstance(name, str) or not isinstance(end, bytes) or len(end) != len(ZERO_HASH):
        return None
    stream = Stream(pos, name, low, high, end, confirmed)  # type: ignore[arg-type]  # looked at above
    possible = is_name(name) and 1 <= stream.low <= stream.high + 1 and 0 <= stream.confirmed <= stream.high
    return stream if possible and (seal is None or seal == crc_of(stream)) else None


def is_name(text: str) -> bool:
    """Whether a text can be a stream's id: 32 hexadecimal digits."""
    return len(text) == 32 and all(digit in "0123456789abcdef" for digit in text)


def from_sqlite(path: Path, error: sqlite3.Error) -> OutboxError:
    """What SQLite says, as what it means for an outbox: full, damaged, or unusable."""
    if is_full(error):
        return OutboxFullError(
            Bilingual(f"{path}: no space left on the disk", f"{path}：磁盘空间不足"),
            Bilingual(
                "Free space on the disk of data_dir, or set outbox.budget.",
                "请清理 data_dir 所在磁盘，或设置 outbox.budget。",
            ),
        )
    if is_damage(error):
        return OutboxDamagedError(path, str(error))
    return OutboxError(
        Bilingual(f"{path} is not a readable outbox: {error}", f"{path} 不是可读取的发件箱：{error}"),
        Bilingual("Check the disk and the permissions of data_dir.", "请检查磁盘与 data_dir 的权限。"),
    )


def is_full(error: sqlite3.Error) -> bool:
    """No space left on the disk, or in a database with a largest size."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or "disk is full" in str(error)


def is_damage(error: sqlite3.Error) -> bool:
    """The file's content is wrong, or a sector cannot be read. Locks, rights and full disks are none."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by the module: bytes in a text column that are no text
        return "decode" in str(error).lower()
    return (code & 0xFF) in _DAMAGE or code in _READ_ERRORS


def walk(path: Path, stream: Stream, rows: Iterable[tuple[object, ...]], first: int) -> Iterator[tuple[Row, bytes]]:
    """Each row with the chain's hash after it, in their order from number `first` on, once it is proved.

    A hole is allowed only below `stream.low`, where births alone are kept. Raises OutboxDamagedError.
    """
    expected: int | None = None
    before: bytes | None = None
    for raw in rows:
        row = Row(*raw)  # type: ignore[arg-type]  # `well_formed` looks
        if not well_formed(row):
            raise OutboxDamagedError(path, f"a row of stream {stream.id} is none")
        hole = row.seq != expected if expected is not None else row.seq > max(first, stream.low)
        if hole and (row.seq > stream.low or (expected or 0) > row.seq):
            raise OutboxDamagedError(path, f"stream {stream.id} has a hole before number {row.seq}")
        try:
            seal, end = link(stream.id, row)
        except PoisonError as error:  # a tombstone that cannot be read
            raise OutboxDamagedError(path, f"number {row.seq} of stream {stream.id}: {error}") from error
        if row.seal is not None and row.seal != seal:
            raise OutboxDamagedError(path, f"number {row.seq} of stream {stream.id} is not what was written")
        if before is not None and row.seq == expected and row.prev != before:
            raise OutboxDamagedError(path, f"number {row.seq} of stream {stream.id} does not continue the chain")
        yield row, end
        expected, before = row.last_seq + 1, end
    if expected is not None and expected == stream.high + 1 and before != stream.hash:
        raise OutboxDamagedError(path, f"the chain of stream {stream.id} does not end where it ended")


def check_newest(path: Path, db: sqlite3.Connection, streams: Iterable[Stream]) -> None:
    """Walks the newest messages, `CHECKED_AT_START` bytes of them. Raises OutboxDamagedError."""
    left = CHECKED_AT_START
    try:
        for stream in reversed(list(streams)):
            if left <= 0 or stream.low > stream.high:
                continue
            first = stream.high + 1
            low = db.execute(  # a tombstone of which the store had a part already begins below
                "SELECT max(seq) FROM message WHERE pos = ? AND seq <= ? AND last_seq >= ?",
                (stream.pos, stream.low, stream.low),
            ).fetchone()[0]
            for seq, size in db.execute(
                "SELECT seq, length(body) FROM message WHERE pos = ? AND seq >= ? ORDER BY seq DESC",
                (stream.pos, stream.low if low is None else low),
            ):
                if type(seq) is not int or type(size) is not int or left <= 0:
                    break
                first, left = seq, left - size
            rows = db.execute(
                f"SELECT {COLUMNS} FROM message WHERE pos = ? AND seq >= ? ORDER BY seq", (stream.pos, first)
            )
            last = 0
            for row, _ in walk(path, stream, rows, first):
                last = row.last_seq
            if last != stream.high:
                raise OutboxDamagedError(path, f"the end of stream {stream.id} is missing")
    except sqlite3.Error as error:
        raise from_sqlite(path, error) from error
