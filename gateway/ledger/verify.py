"""The outbox, its hash chain, the store and its gaps, walked against each other.

Everything is only read, beside a running gateway too: what moves meanwhile (a commit, a confirmation, a trim) may look wrong for a
moment, so a stream with a finding is walked again, and only what stays is told.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gateway.ledger.bodies import PoisonError, decode_body
from schemas.bilingual import Bilingual, chinese
from schemas.wire import Batch, Birth, Event, Gap, Kind, Tombstone, chain_hash, version_of

ATTEMPTS = 3
"""Walks of a stream before a finding is believed."""
_PAUSE = 1.0
_PIECE = 200
_READINGS = 5_000
_SHOWN = 3


class Mark(NamedTuple):
    """How far a stream is stored."""

    gateway: str
    watermark: int
    hash: bytes
    lost: int


class Told(NamedTuple):
    """A reading that was confirmed: the store's signal, ts in µs, value and status."""

    signal: int
    ts: int
    value: Any
    status: int


class StoreSide(Protocol):
    """What is asked of the store; `gateway.store.witness.Witness` is it."""

    def store_id(self) -> str: ...
    def marks(self) -> dict[str, Mark]: ...
    def signals(self) -> dict[tuple[str, str], int]: ...
    def devices(self) -> dict[str, str]: ...
    def horizon(self) -> int | None: ...
    def letters(self, stream: str) -> set[int]: ...
    def open_letters(self) -> int: ...
    def gaps(self, stream: str) -> set[tuple[str | None, str, int, int | None]]: ...
    def gateways_with_losses_told(self) -> set[str]: ...
    def events(self, ids: Collection[str]) -> set[str]: ...
    def missing(self, readings: Sequence[Told]) -> list[Told]: ...


class Finding(NamedTuple):
    """Something that is not as it should be. `code` is one of the words of docs/operating.md; `text` is Bilingual."""

    code: str
    stream: str | None
    text: str


@dataclass(slots=True)
class Verified:
    """What was walked, and what was found."""

    streams: int = 0
    messages: int = 0
    readings: int = 0
    events: int = 0
    gaps: int = 0
    dead_letters: int = 0
    """In the store, waiting for a decision: told, and no finding."""
    findings: list[Finding] = field(default_factory=list)


class _Held(NamedTuple):
    pos: int
    id: str
    low: int
    high: int
    hash: bytes
    confirmed: int


class _Row(NamedTuple):
    seq: int
    last_seq: int
    kind: int
    prev: bytes
    enc: int
    body: bytes


def verify(
    outbox: Path | None, store: StoreSide | None, gateway: str, *, pause: Callable[[float], None] = time.sleep
) -> Verified:
    """Walk all streams of `outbox` (the file of the gateway with this id; None: there is none) against the `store` (None: it cannot
    be read now, and the outbox is checked by itself).

    Raises what the store raises. An outbox that cannot be read is a finding.
    """
    found = Verified()
    if outbox is not None:
        try:
            with closing(sqlite3.connect(f"{outbox.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
                _Outbox(db, store, gateway, found, pause).walk()
        except sqlite3.Error as error:
            _tell(found.findings, "unreadable", None, f"{outbox}: {error}", f"{outbox}：{error}")
    if store is not None:
        _store_alone(store, found)
    return found


def _tell(findings: list[Finding], code: str, stream: str | None, en: str, zh: str) -> None:
    findings.append(Finding(code, stream, Bilingual(en, zh)))


def _store_alone(store: StoreSide, found: Verified) -> None:
    """Every jump of a watermark has a gap that says so."""
    told = store.gateways_with_losses_told()
    for stream, mark in store.marks().items():
        if mark.lost and mark.gateway not in told:
            _tell(
                found.findings, "loss_not_told", stream,
                f"{mark.lost} numbers of gateway {mark.gateway} never arrived, and no gap says so",
                f"网关 {mark.gateway} 有 {mark.lost} 个编号从未到达，却没有相应的缺口记录",
            )  # fmt: skip
    found.dead_letters = store.open_letters()


class _Outbox:
    """The walk through one file."""

    def __init__(
        self,
        db: sqlite3.Connection,
        store: StoreSide | None,
        gateway: str,
        found: Verified,
        pause: Callable[[float], None],
    ) -> None:
        self._db, self._gateway, self._found, self._pause = db, gateway, found, pause
        self._store = self._ours(store)

    def _ours(self, store: StoreSide | None) -> StoreSide | None:
        """The store, if the outbox belongs to it."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
        if store is None or row is None or row[0] == store.store_id():
            return store
        _tell(
            self._found.findings, "other_store", None,
            f"the outbox belongs to store {row[0]}, this one is {store.store_id()}: see guantong ledger adopt",
            f"发件箱属于存储 {row[0]}，当前存储为 {store.store_id()}：见 guantong ledger adopt",
        )  # fmt: skip
        return None

    def walk(self) -> None:
        for stream in self._streams():
            attempt = 1
            while True:
                counted = Verified()
                self._stream(stream, counted)
                if not counted.findings or attempt == ATTEMPTS:
                    break
                attempt += 1
                self._pause(_PAUSE)
                again = self._held(stream.id)
                if again is None:
                    break  # it was drained and forgotten meanwhile, or goes on under another id
                stream = again
            self._found.streams += 1
            for name in ("messages", "readings", "events", "gaps"):
                setattr(self._found, name, getattr(self._found, name) + getattr(counted, name))
            self._found.findings += counted.findings

    def _streams(self) -> list[_Held]:
        return [_Held(*row) for row in self._db.execute(f"{_SELECT_STREAM} ORDER BY pos")]

    def _held(self, stream: str) -> _Held | None:
        row = self._db.execute(f"{_SELECT_STREAM} WHERE id = ?", (stream,)).fetchone()
        return None if row is None else _Held(*row)

    def _stream(self, held: _Held, out: Verified) -> None:
        """`held` is read after the store's mark: nothing can be stored that it does not reach."""
        mark = None if self._store is None else self._store.marks().get(held.id)
        held = self._held(held.id) or held
        check = _Check(self._store, held, mark, out)
        if mark is not None:
            check.marks(self._gateway)
        end: bytes | None = None
        expected: int | None = None
        for row in self._rows(held):
            out.messages += 1
            if expected is not None and row.seq != expected:
                if not self._gone(held, row.seq):
                    check.tell(
                        "hole",
                        f"numbers {expected} to {row.seq - 1} are missing",
                        f"缺少编号 {expected} 至 {row.seq - 1}",
                    )
                end = None
            elif expected is None and row.seq > held.low and not self._gone(held, row.seq):
                check.tell(
                    "hole", f"numbers {held.low} to {row.seq - 1} are missing", f"缺少编号 {held.low} 至 {row.seq - 1}"
                )
            if end is not None and row.prev != end:
                check.tell(
                    "chain", f"number {row.seq} does not continue the chain of the numbers before",
                    f"编号 {row.seq} 与之前的哈希链不连续",
                )  # fmt: skip
            end = check.message(row)
            expected = row.last_seq + 1
        check.flush()
        if expected is None:
            if held.low <= held.high and not self._gone(held, held.high + 1):
                check.tell(
                    "hole", f"numbers {held.low} to {held.high} are missing", f"缺少编号 {held.low} 至 {held.high}"
                )
        elif expected != held.high + 1 and not self._gone(held, held.high + 1):
            check.tell("hole", f"numbers {expected} to {held.high} are missing", f"缺少编号 {expected} 至 {held.high}")
        elif expected == held.high + 1 and end is not None and end != held.hash:
            check.tell("chain", "the chain does not end where it ended", "哈希链的末端与记录不符")
        if self._store is not None:
            check.confirmed(self._store.marks().get(held.id))

    def _gone(self, held: _Held, after: int) -> bool:
        """True when nothing below `after` is held any more, as the outbox itself says: it was confirmed long ago."""
        now = self._held(held.id)
        return now is None or after <= now.low

    def _rows(self, held: _Held) -> Iterator[_Row]:
        """In their order; births from below `low` come first, since they stay. Read in pieces, so that no lock is held for long."""
        after = 0
        while True:
            rows = self._db.execute(
                "SELECT seq, last_seq, kind, prev, enc, body FROM message WHERE pos = ? AND seq > ? AND seq <= ? "
                f"ORDER BY seq LIMIT {_PIECE}",
                (held.pos, after, held.high),
            ).fetchall()
            for row in rows:
                yield _Row(*row)
            if len(rows) < _PIECE:
                return
            after = rows[-1][0]


_SELECT_STREAM = "SELECT pos, id, low, high, hash, confirmed FROM stream"


class _Check:
    """One stream: what its messages say, and what the store has of it."""

    def __init__(self, store: StoreSide | None, held: _Held, mark: Mark | None, out: Verified) -> None:
        self._store, self._held, self._mark, self._out = store, held, mark, out
        self._stored_to = 0 if mark is None else mark.watermark
        self._points: dict[int, tuple[str, str]] = {}
        self._waiting: list[Told] = []
        self._events: list[str] = []
        asked = store is not None and mark is not None
        self._signals = store.signals() if asked and store is not None else {}
        self._devices = store.devices() if asked and store is not None else {}
        self._letters = store.letters(held.id) if asked and store is not None else set()
        self._gaps = store.gaps(held.id) if asked and store is not None else set()
        self._horizon = store.horizon() if asked and store is not None else None

    def tell(self, code: str, en: str, zh: str) -> None:
        """A finding of this stream."""
        _tell(self._out.findings, code, self._held.id, en, zh)

    def marks(self, gateway: str) -> None:
        """Watermark and owner."""
        mark, held = self._mark, self._held
        assert mark is not None
        if mark.gateway != gateway:
            self.tell(
                "owner", f"the store has it of gateway {mark.gateway}, this one is {gateway}",
                f"存储中它属于网关 {mark.gateway}，本网关为 {gateway}",
            )  # fmt: skip
        if mark.watermark > held.high:
            self.tell(
                "ahead", f"the store is at {mark.watermark}, the outbox ends at {held.high}: it was set back or copied",
                f"存储水位为 {mark.watermark}，发件箱只到 {held.high}：发件箱曾被恢复或复制",
            )  # fmt: skip

    def confirmed(self, mark: Mark | None) -> None:
        """`mark` is newer than what was read of the outbox: the store can only be further on."""
        stored = 0 if mark is None else mark.watermark
        if self._held.confirmed > stored:
            self.tell(
                "confirmed", f"the outbox has {self._held.confirmed} as confirmed, the store is at {stored}: it was restored",
                f"发件箱记录已确认至 {self._held.confirmed}，存储水位为 {stored}：存储曾被恢复",
            )  # fmt: skip

    def message(self, row: _Row) -> bytes | None:
        """Look at a message; returns the chain's hash after it, None when that cannot be told."""
        digest = chain_hash(
            version_of(row.enc), row.kind, self._held.id, row.seq, row.last_seq, row.prev, row.enc, row.body
        )
        try:
            body = decode_body(row.kind, row.body, row.enc)
        except PoisonError as error:
            if row.seq not in self._letters or row.last_seq > self._stored_to:
                self.tell(
                    "body",
                    f"number {row.seq} cannot be read: {error}",
                    f"编号 {row.seq} 无法读取：{chinese(str(error))}",
                )
            return None if row.kind == Kind.TOMBSTONE else digest
        end = body.hash if isinstance(body, Tombstone) else digest
        if isinstance(body, Birth):
            self._points |= {item.point: (body.device, item.name) for item in body.signals}
        if self._mark is None or row.last_seq > self._stored_to:
            return end
        if row.last_seq == self._stored_to and end != self._mark.hash:
            self.tell(
                "fork", f"at number {row.last_seq} the store has another hash than the outbox: two histories",
                f"在编号 {row.last_seq} 处，存储与发件箱的哈希不同：出现了两段历史",
            )  # fmt: skip
        if row.seq not in self._letters:
            self._stored(row, body)
        return end

    def _stored(self, row: _Row, body: Any) -> None:
        """What a confirmed message says has to be in the store."""
        match body:
            case Batch():
                self._readings(row, body)
            case Birth():
                if body.device not in self._devices:
                    self.tell(
                        "birth_missing", f"number {row.seq}: device {body.device} is not in the store",
                        f"编号 {row.seq}：存储中没有设备 {body.device}",
                    )  # fmt: skip
            case Tombstone():
                self._gaps_of(row, body.gaps)
                if body.newest is not None:
                    self._readings(row, body.newest)
            case list():
                self._events += [item.id for item in body if isinstance(item, Event)]
                self._gaps_of(row, [item for item in body if isinstance(item, Gap)])
        if len(self._waiting) >= _READINGS or len(self._events) >= _READINGS:
            self.flush()

    def _readings(self, row: _Row, batch: Batch) -> None:
        status = batch.status or [0] * len(batch.points)
        for number, point in enumerate(batch.points):
            ts = batch.base + batch.offsets[number]
            signal = self._signals.get(self._points.get(point, ("", "")))
            if signal is None:
                self.tell(
                    "point", f"number {row.seq}: point {point} belongs to no signal of the store, and there is no dead letter",
                    f"编号 {row.seq}：点 {point} 不属于存储中的任何信号，也没有死信",
                )  # fmt: skip
                return
            if self._horizon is None or ts >= self._horizon:
                self._waiting.append(Told(signal, ts, batch.values[number], status[number]))

    def _gaps_of(self, row: _Row, gaps: Sequence[Gap]) -> None:
        for gap in gaps:
            self._out.gaps += 1
            if (gap.device, str(gap.cause), gap.start, max(gap.start, gap.end)) not in self._gaps:
                self.tell(
                    "gap_missing", f"number {row.seq}: its gap ({gap.cause}, {gap.start} to {gap.end} µs) is not in the store",
                    f"编号 {row.seq}：其缺口（{gap.cause}，{gap.start} 至 {gap.end} µs）不在存储中",
                )  # fmt: skip

    def flush(self) -> None:
        """Ask the store for what was gathered."""
        readings, self._waiting = self._waiting, []
        events, self._events = self._events, []
        if self._store is None:
            return
        self._out.readings += len(readings)
        self._out.events += len(events)
        missing = self._store.missing(readings) if readings else []
        if missing:
            some = ", ".join(f"{one.signal}@{one.ts}" for one in missing[:_SHOWN])
            self.tell(
                "reading_missing", f"{len(missing)} confirmed readings are not in the store (signal@ts): {some}",
                f"有 {len(missing)} 个已确认的读数不在存储中（信号@时间）：{some}",
            )  # fmt: skip
        lost = sorted(self._store.events(events)) if events else []
        if lost:
            some = ", ".join(lost[:_SHOWN])
            self.tell(
                "event_missing", f"{len(lost)} confirmed events are not in the store: {some}",
                f"有 {len(lost)} 个已确认的事件不在存储中：{some}",
            )  # fmt: skip
