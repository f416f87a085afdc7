"""The collector's side of the ledger, without I/O: what to send next, and what an answer means.

The host calls `connected` and `disconnected` as the bus comes and goes, `receive` for each message on `confirmed/{gateway}`, and `poll`
often; it publishes what `poll` returns. Nothing is sent before ingest has answered a sync with our nonce; that answer alone
moves the send cursor forward to where the store is, a replay request only moves it back.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from gateway.ledger.outbox import Outbox, Stream
from schemas.wire import (
    VERSION,
    ZERO_HASH,
    Confirmed,
    Envelope,
    FromIngest,
    Held,
    Hello,
    Replay,
    SyncAnswer,
    SyncRequest,
)

WINDOW_MESSAGES = 200
WINDOW_BYTES = 8 * 1024 * 1024
SYNC_RETRY = 1.0
"""Seconds after which an unanswered sync is asked again, with a new nonce."""
CONFIRM_TIMEOUT = 10.0
"""Seconds without a confirmation, while something is unconfirmed, after which the collector asks again where the store is."""
REPLAY_INTERVAL = 1.0
TWIN_AFTER, TWIN_GONE = 5.0, 60.0
"""Seconds between the first and the last confirmation of a stream that is not ours after which another collector must live that uses our
id; and seconds without one after which it is gone. One confirmation alone may be of a process before this one."""
_READ_AT_ONCE = 64


@dataclass(slots=True)
class Numbers:
    """What a sender has done, for /metrics and the `ledger` command."""

    syncs: int = 0
    sent: int = 0
    resent: int = 0
    replays: int = 0
    forks: int = 0
    restored: int = 0


class Sender:
    """See the module. Times are seconds of one steady clock."""

    def __init__(
        self,
        outbox: Outbox,
        gateway: str,
        *,
        window_messages: int = WINDOW_MESSAGES,
        window_bytes: int = WINDOW_BYTES,
        by_broker: bool = False,
    ) -> None:
        self.outbox = outbox
        self.by_broker = by_broker
        """The broker's acknowledgement frees the outbox (`bus.confirm: broker`): not exactly once, since brokers lose messages."""
        self.gateway = gateway
        self.numbers = Numbers()
        self.other_store: str | None = None
        """The id of a store that answers although another one is pinned: it confirms nothing here."""
        self.problem = ""
        """What ingest says of itself when it cannot go on, e.g. that it is too old."""
        self.forked: list[str] = []
        """Streams whose numbers somebody else used; the host tells a person and takes them from here."""
        self.twin: str | None = None
        """A stream of another collector that uses this gateway's id: a cloned box. Both are stored; a person has to part them."""
        self._twin_since = self._twin_at = float("-inf")
        self._window_messages, self._window_bytes = window_messages, window_bytes
        self._connected = False
        self._nonce: str | None = None
        self._asked_at = -SYNC_RETRY
        self._ingest: str | None = None
        self._cursor: dict[str, int] = {}
        self._sent_high: dict[str, int] = {}
        self._in_flight: dict[str, list[tuple[int, int]]] = {}
        self._heard_at = 0.0
        self._replayed_at = -REPLAY_INTERVAL

    # --------------------------------------------------------------------------------------------------- the bus

    def connected(self, now: float) -> None:
        """The bus is there: ask first."""
        self._connected = True
        self._ask_again(now)

    def disconnected(self) -> None:
        """The bus is gone, and whatever was on the way with it."""
        self._connected = False
        self._nonce, self._ingest = None, None
        self._cursor.clear()
        self._in_flight.clear()

    @property
    def synced(self) -> bool:
        """True when ingest has answered and messages may flow."""
        return self._connected and self._ingest is not None and self._nonce is None

    def cursor(self, stream_id: str) -> int | None:
        """The next number to send of a stream; None before the answer to a sync."""
        return self._cursor.get(stream_id)

    def poll(self, now: float) -> list[SyncRequest | Envelope]:
        """What is to be published now, in this order."""
        if self.twin is not None and now - self._twin_at > TWIN_GONE:
            self.twin = None
        if not self._connected:
            return []
        if self._ingest is not None and self._unconfirmed() and now - self._heard_at > CONFIRM_TIMEOUT:
            self._ask_again(now)
        if self._nonce is None and self._ingest is None:
            self._nonce = uuid.uuid4().hex
            self._asked_at = -SYNC_RETRY
        if self._nonce is None:
            return list(self._next(now))
        asked: list[SyncRequest | Envelope] = []
        if now - self._asked_at >= SYNC_RETRY:
            self._asked_at = now
            self.numbers.syncs += 1
            held = [Held(s.id, s.low, s.high, s.confirmed) for s in self.outbox.streams()]
            asked = [SyncRequest(VERSION, self.gateway, self._nonce, self.outbox.store, held)]
        return [*asked, *self._next(now)] if self.by_broker else asked

    def acknowledged(self, stream_id: str, last_seq: int, now: float) -> None:
        """The broker has taken this message. Means something only with `by_broker`."""
        stream = self.outbox.stream(stream_id)
        if self.by_broker and stream is not None and last_seq > stream.confirmed:
            self._heard_at = now
            self.outbox.set_confirmed(stream_id, last_seq, now)

    def _next(self, now: float) -> list[Envelope]:
        for stream in self.outbox.streams():
            if stream.drained and self._cursor.get(stream.id, stream.high + 1) > stream.high:
                continue
            flying = self._in_flight.setdefault(stream.id, [])
            while flying and flying[0][0] <= stream.confirmed:
                flying.pop(0)
            room = self._window_messages - len(flying)
            room_bytes = self._window_bytes - sum(size for _, size in flying)
            cursor = self._cursor.get(stream.id)
            if cursor is None:
                cursor = self._cursor[stream.id] = stream.confirmed + 1
            if room <= 0 or room_bytes <= 0 or cursor > stream.high:
                return []  # later streams wait for this one: order beats freshness
            batch = self.outbox.read(stream.id, cursor, min(room, _READ_AT_ONCE), room_bytes)
            if not batch:
                return []
            if not flying:
                self._heard_at = now
            before = self._sent_high.get(stream.id, 0)
            self.numbers.resent += sum(m.seq <= before for m in batch)
            self.numbers.sent += len(batch)
            flying += [(m.last_seq, len(m.body)) for m in batch]
            self._cursor[stream.id] = batch[-1].last_seq + 1
            self._sent_high[stream.id] = max(before, batch[-1].last_seq)
            return batch
        return []

    def _unconfirmed(self) -> bool:
        return any(self._cursor.get(s.id, 1) > s.confirmed + 1 for s in self.outbox.streams() if not s.drained)

    def _ask_again(self, now: float) -> None:
        self._nonce, self._ingest = uuid.uuid4().hex, None
        self._asked_at = now - SYNC_RETRY
        if self.by_broker:
            return
        self._cursor.clear()
        self._in_flight.clear()

    # ----------------------------------------------------------------------------------------------- from ingest

    def receive(self, message: FromIngest, now: float) -> None:
        """One message of `confirmed/{gateway}`. What is not for us, or of another store than the pinned one, changes nothing."""
        if isinstance(message, SyncAnswer):
            if self._nonce is not None and message.nonce == self._nonce and self._is_ours(message.store):
                if self.outbox.store is None:
                    self.outbox.pin(message.store)
                if self.by_broker:
                    self._nonce, self._ingest = None, message.ingest
                else:
                    self._answered(message, now)
            return
        if not self._connected or message.store != self.outbox.store:
            return
        if isinstance(message, Hello):
            self.problem = message.problem
            if message.ingest != self._ingest and self._nonce is None:
                self._ask_again(now)
        elif message.ingest != self._ingest:
            if self._nonce is None:
                self._ask_again(now)
        elif isinstance(message, Confirmed):
            self.problem = ""
            stream = self.outbox.stream(message.mark.stream)
            if stream is None:
                self._foreign(message.mark.stream, now)
            if not self.by_broker and stream is not None and message.mark.seq > stream.confirmed:
                self._heard_at = now
                self.outbox.set_confirmed(stream.id, message.mark.seq, now)
        elif isinstance(message, Replay):
            self._replay(message, now)

    def _foreign(self, stream: str, now: float) -> None:
        """The store has confirmed a stream that this outbox does not have."""
        if self.outbox.was_ours(stream):
            return
        if now - self._twin_at > TWIN_GONE:
            self._twin_since = now
        self._twin_at = now
        if now - self._twin_since >= TWIN_AFTER:
            self.twin = stream

    def _is_ours(self, store: str) -> bool:
        if self.outbox.store is None or store == self.outbox.store:
            self.other_store = None
            return True
        self.other_store = store
        return False

    def _answered(self, answer: SyncAnswer, now: float) -> None:
        self._nonce, self._ingest, self._heard_at = None, answer.ingest, now
        self.problem = ""
        self._cursor.clear()
        self._in_flight.clear()
        marks = {mark.stream: mark for mark in answer.marks}
        before = len(self.forked)
        for stream in self.outbox.streams():
            mark = marks.get(stream.id)
            seq = mark.seq if mark is not None else 0
            if mark is not None and self._forked(stream, seq, mark.hash):
                self.numbers.forks += 1
                self.forked.append(stream.id)
                self.outbox.rehome(stream.id)
                continue
            if seq < stream.confirmed:
                self.numbers.restored += 1
            self.outbox.set_confirmed(stream.id, seq, now)
            self._cursor[stream.id] = min(seq, stream.high) + 1
        if len(self.forked) > before:
            self._ask_again(now)  # ingest does not know the new streams yet

    def _forked(self, stream: Stream, seq: int, end: bytes) -> bool:
        """True when the store's history of this stream is not ours: a machine was set back to a snapshot while it ran."""
        if seq > stream.high:
            return stream.id == self.outbox.current  # an older stream of a restored image may well be behind
        ours = self.outbox.hash_at(stream.id, seq) if seq else None
        return ours is not None and end != ZERO_HASH and ours != end

    def _replay(self, message: Replay, now: float) -> None:
        cursor = self._cursor.get(message.stream)
        if cursor is None or message.seq >= cursor or now - self._replayed_at < REPLAY_INTERVAL:
            return
        self._replayed_at = now
        self.numbers.replays += 1
        self._cursor[message.stream] = max(message.seq, 1)
        self._in_flight[message.stream] = [f for f in self._in_flight.get(message.stream, []) if f[0] < message.seq]
