"""The ledger's protocol as a small model: a collector's outbox, a lossy bus, ingest and a store, all in memory.

It was written before the gateway's code and stays beside it: `test_machine.py` drives this model and the real outbox, sender,
receiver and store through the same sequences of faults. What the model keeps simple: bodies are small integers that name the
message, and "durable" is a list that survives a crash.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field

from schemas.wire import VERSION, ZERO_HASH, Kind, chain_hash

WINDOW = 4
"""Unconfirmed messages at a time; small, so that the machine meets its edges."""
REPLAYS = 3
"""Replays of a number that arrives broken each time, before it is given up as undecodable."""


@dataclass(frozen=True)
class Message:
    """An envelope of the model; `body` names the message, `dropped` lists what a tombstone stands for."""

    kind: Kind
    stream: str
    seq: int
    last_seq: int
    low: int
    prev: bytes
    body: int
    end: bytes = ZERO_HASH
    dropped: tuple[int, ...] = ()
    version: int = VERSION
    broken: bool = False

    def hash(self) -> bytes:
        """The chain's hash after this message."""
        if self.kind == Kind.TOMBSTONE:
            return self.end
        return chain_hash(1, self.kind, self.stream, self.seq, self.last_seq, self.prev, 0, str(self.body).encode())


@dataclass
class Stream:
    """A stream as the outbox holds it."""

    id: str
    messages: list[Message] = field(default_factory=list)
    high: int = 0
    hash: bytes = ZERO_HASH
    confirmed: int = 0

    @property
    def low(self) -> int:
        return self.messages[0].seq if self.messages else self.high + 1


@dataclass
class Outbox:
    """Streams in order; the last is the current one. `unsynced` messages are lost by a power cut."""

    streams: list[Stream] = field(default_factory=list)
    unsynced: list[int] = field(default_factory=list)
    store: str | None = None

    def begin(self, stream: str) -> None:
        """A start of collect: a new stream; the older ones wait to be drained."""
        self.streams.append(Stream(stream))

    def append(self, body: int, kind: Kind = Kind.READINGS, version: int = VERSION) -> None:
        current = self.streams[-1]
        seq = current.high + 1
        message = Message(kind, current.id, seq, seq, 0, current.hash, body, version=version)
        current.messages.append(message)
        current.high, current.hash = seq, message.hash()
        self.unsynced.append(body)

    def power_cut(self) -> list[int]:
        """The unsynced tail is gone. It was never sent: only what is synced is."""
        lost, self.unsynced = self.unsynced, []
        for stream in self.streams:
            kept = [m for m in stream.messages if m.kind == Kind.TOMBSTONE or m.body not in lost]
            if len(kept) < len(stream.messages):
                first_lost = next(m for m in stream.messages if m not in kept)
                stream.high, stream.hash, stream.messages = first_lost.seq - 1, first_lost.prev, kept
        return lost

    def durable(self, stream: Stream) -> list[Message]:
        return [m for m in stream.messages if m.kind == Kind.TOMBSTONE or m.body not in self.unsynced]

    def overflow(self) -> list[int]:
        """What is confirmed goes; then the first run of unconfirmed readings becomes a tombstone under the same numbers."""
        gone = self.trim()
        for stream in self.streams:
            run: list[Message] = []
            for message in self.durable(stream):
                if message.seq > stream.confirmed and message.kind in (Kind.READINGS, Kind.TOMBSTONE):
                    run.append(message)
                elif run:
                    break
            if len(run) > 1:
                dropped = tuple(itertools.chain.from_iterable(m.dropped or (m.body,) for m in run))
                stone = Message(
                    Kind.TOMBSTONE, stream.id, run[0].seq, run[-1].last_seq, 0, run[0].prev, 0, run[-1].hash(), dropped
                )
                at = stream.messages.index(run[0])
                stream.messages[at : at + len(run)] = [stone]
                break
        return gone

    def trim(self) -> list[int]:
        """What is confirmed and old enough goes."""
        gone: list[int] = []
        for stream in self.streams:
            kept = [m for m in stream.messages if m.last_seq > stream.confirmed]
            gone += [b for m in stream.messages if m.last_seq <= stream.confirmed for b in m.dropped or (m.body,)]
            stream.messages = kept
        return gone


class Sender:
    """The collector's side: asks where to go on, sends within a window, goes back when asked."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.nonce: str | None = None
        self.ingest: str | None = None
        self.cursor: dict[str, int] = {}
        self.other_store: str | None = None

    def ask(self, nonce: str) -> tuple[str, dict[str, tuple[int, int]]]:
        """Each connect and each new ingest begins with this; nothing is sent before the answer."""
        self.nonce, self.cursor = nonce, {}
        held = {s.id: self.outbox.durable(s) for s in self.outbox.streams}
        return nonce, {s.id: (s.low, held[s.id][-1].last_seq if held[s.id] else 0) for s in self.outbox.streams}

    def answer(self, nonce: str, store: str, ingest: str, marks: dict[str, tuple[int, bytes]]) -> None:
        if self.nonce is None or nonce != self.nonce or not self._pinned(store):
            return
        self.nonce, self.ingest = None, ingest
        for stream in self.outbox.streams:
            seq, _ = marks.get(stream.id, (0, ZERO_HASH))
            stream.confirmed = min(seq, stream.high)  # it may also go back: the store was restored
            self.cursor[stream.id] = stream.confirmed + 1

    def confirmed(self, store: str, ingest: str, stream_id: str, seq: int) -> bool:
        """True when it must ask again: another ingest speaks."""
        if not self._pinned(store):
            return False
        if ingest != self.ingest:
            return True
        for stream in self.outbox.streams:
            if stream.id == stream_id and stream_id in self.cursor:
                stream.confirmed = max(stream.confirmed, min(seq, stream.high))
        return False

    def replay(self, store: str, ingest: str, stream_id: str, seq: int) -> None:
        if store == self.outbox.store and ingest == self.ingest and stream_id in self.cursor:
            self.cursor[stream_id] = min(self.cursor[stream_id], seq)

    def next(self) -> list[Message]:
        """What may be sent now: of the first stream that is not confirmed throughout, within the window."""
        if self.nonce is not None:
            return []
        for stream in self.outbox.streams:
            durable = self.outbox.durable(stream)
            if stream.id not in self.cursor or not durable or durable[-1].last_seq <= stream.confirmed:
                continue
            ahead = [m for m in durable if m.last_seq >= self.cursor[stream.id]]
            room = [m for m in ahead if m.seq <= stream.confirmed + WINDOW or m is ahead[0]]
            if room:
                self.cursor[stream.id] = room[-1].last_seq + 1
            return [
                copy.replace(m, low=stream.low) if hasattr(copy, "replace") else _with_low(m, stream.low) for m in room
            ]
        return []

    def _pinned(self, store: str) -> bool:
        if self.outbox.store is None:
            self.outbox.store = store
        self.other_store = None if store == self.outbox.store else store
        return self.other_store is None


def _with_low(message: Message, low: int) -> Message:
    return Message(**{**message.__dict__, "low": low})


@dataclass
class Store:
    """Watermarks and contents change in one transaction."""

    id: str
    marks: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    gaps: list[tuple[str, int, int, str]] = field(default_factory=list)
    fence: int = 0

    def apply(self, fence: int, stream: str, first: int, last: int, end: bytes) -> bool:
        """Compare-and-set of the watermark; False for a fenced or late writer, and nothing is written then."""
        if fence != self.fence or self.marks.get(stream, (0, ZERO_HASH))[0] != first - 1:
            return False
        self.marks[stream] = (last, end)
        return True


class Receiver:
    """Ingest's side."""

    def __init__(self, ingest: str, store: Store, supports: int = VERSION) -> None:
        self.id, self.store, self.supports = ingest, store, supports
        store.fence += 1
        self.fence = store.fence
        self.ahead: dict[str, dict[int, Message]] = {}
        self.broken = 0
        self.asked: dict[str, int] = {}
        self.high: dict[str, int] = {}
        self.low: dict[str, int] = {}
        self.known: dict[str, tuple[int, bytes]] = dict(store.marks)
        self.too_old = False

    @property
    def holds_lease(self) -> bool:
        return self.fence == self.store.fence

    def marks(self, streams: dict[str, tuple[int, int]]) -> dict[str, tuple[int, bytes]]:
        """The answer to a collector that holds these streams from and up to these numbers; what it cannot hold any more is lost."""
        for stream, (low, high) in streams.items():
            self.low[stream] = max(low, self.low.get(stream, 0))
            self.high[stream] = max(high, self.high.get(stream, 0))
            self.ahead.setdefault(stream, {})
            self._drain(stream)
        return {s: self.store.marks[s] for s in streams if s in self.store.marks}

    def receive(self, message: Message) -> tuple[str, int] | None:
        """Takes a message; returns (stream, seq) of a replay to ask for."""
        if not self.holds_lease:
            return None
        if message.broken:
            self.broken += 1
            return self._hole()
        if message.version > self.supports:
            self.too_old = True
            return None
        if message.last_seq <= self._mark(message.stream)[0]:
            return None
        held = self.ahead.setdefault(message.stream, {})
        held[message.seq] = message
        self._drain(message.stream)
        mark, _ = self._mark(message.stream)
        if held and min(held) > mark + 1:
            return self._ask(message.stream, mark + 1)
        return None

    def _hole(self) -> tuple[str, int] | None:
        """The first number that must be there and is not: something that cannot be read may be it."""
        for stream in {**self.ahead, **self.high}:
            mark, _ = self._mark(stream)
            held = self.ahead.setdefault(stream, {})
            if held or mark < self.high.get(stream, 0):
                asked = self._ask(stream, mark + 1)
                self._drain(stream)
                return asked
        return None

    def _ask(self, stream: str, seq: int) -> tuple[str, int]:
        if self.asked.get(stream) != seq:
            self.asked[stream], self.broken = seq, 0
        return stream, seq

    def _drain(self, stream: str) -> None:
        held = self.ahead[stream]
        while True:
            mark, end = self._mark(stream)
            for seq in [s for s, m in held.items() if m.last_seq <= mark]:
                del held[seq]
            first = held[min(held)] if held else None
            if first is not None and first.seq <= mark + 1:
                del held[first.seq]
                if not self._write(stream, mark, end, first):
                    return
                continue
            low = max((m.low for m in held.values()), default=self.low.get(stream, 0))
            if mark + 1 < low:
                last, cause = low - 1, "lost"
            elif self.broken > REPLAYS and self.asked.get(stream) == mark + 1:
                last, cause, self.broken = mark + 1, "undecodable", 0
            else:
                return
            if not self._apply(stream, mark + 1, last, ZERO_HASH):
                return
            self.store.gaps.append((stream, mark + 1, last, cause))

    def _mark(self, stream: str) -> tuple[int, bytes]:
        """What this ingest believes; the compare-and-set finds out when it is wrong."""
        return self.known.get(stream, (0, ZERO_HASH))

    def _apply(self, stream: str, first: int, last: int, end: bytes) -> bool:
        if not self.store.apply(self.fence, stream, first, last, end):
            return False
        self.known[stream] = (last, end)
        return True

    def _write(self, stream: str, mark: int, end: bytes, first: Message) -> bool:
        fork = first.seq == mark + 1 and end != ZERO_HASH and first.prev != end
        assert first.version <= self.supports, "written without being understood"
        if not self._apply(stream, mark + 1, first.last_seq, first.hash()):
            return False
        if fork:
            self.store.gaps.append((stream, first.seq, first.seq, "fork"))
        if first.kind == Kind.TOMBSTONE:
            self.store.dropped += first.dropped
        elif first.body < 0:
            self.store.dead.append(first.body)
        else:
            self.store.rows.append(first.body)
        return True
