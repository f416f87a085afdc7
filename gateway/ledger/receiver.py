"""Ingest's side of the ledger, without I/O: which messages may be written now, what is skipped, what is asked for again.

One receiver serves one gateway. The host gives it what arrives (`offer`), takes `Step`s in order (`take`), has the store apply them
in one transaction, and then says so (`applied`) or that it failed (`reset`). A stream is unknown until its collector's sync
was answered (`learn`); what arrives before is refused, and the collector asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from gateway.ledger.bodies import PoisonError, decode_body
from gateway.ledger.sender import REPLAY_INTERVAL, WINDOW_BYTES, WINDOW_MESSAGES
from gateway.ledger.steps import Step
from schemas.wire import VERSION, ZERO_HASH, Batch, Cause, Envelope, Held, Kind, Mark, Tombstone

GIVE_UP_AFTER = 3
"""Replays of a number that cannot be read each time it arrives, before it becomes a gap. That it has arrived again is seen by what was sent
behind it: rubbish of somebody else must not make a gap of what is only slow."""
LAST_GIVEN_UP_AFTER = 60
"""The same for a number behind which nothing is sent: the last one of a stream."""

_QUIET = 5.0
"""Seconds without a message of a stream that is known to hold more, after which it is asked for."""

_decoder = msgspec.msgpack.Decoder(Envelope)
_peek = msgspec.msgpack.Decoder()


@dataclass(slots=True)
class _Stream:
    seq: int
    hash: bytes
    high: int = 0
    """The highest number its outbox is known to hold."""
    low: int = 0
    """The lowest number its outbox still holds."""
    ahead: dict[int, tuple[Envelope, int]] = field(default_factory=dict)
    """Messages beyond the watermark, with their time of arrival."""
    ahead_bytes: int = 0
    asked: int = 0
    asked_at: float = -REPLAY_INTERVAL
    replays: int = 0
    answered: int = 0
    """Of these so many were asked for when something came again that was sent behind the missing number."""
    passed: int = 0
    """How often that was so."""
    unreadable: int = 0
    newer: int = 0
    """The first missing number whose message has come and is of a version that this ingest is too old for: it is never given up."""
    heard_at: float = 0.0


@dataclass(slots=True)
class Numbers:
    """What a receiver has seen, for /metrics."""

    received: int = 0
    duplicates: int = 0
    unreadable: int = 0
    unknown: int = 0
    beyond_window: int = 0
    replays: int = 0
    forks: int = 0
    lost: int = 0


class Receiver:
    """See the module. `supports` is the newest envelope version it understands."""

    def __init__(self, gateway: str, *, supports: int = VERSION) -> None:
        self.gateway = gateway
        self.numbers = Numbers()
        self.too_new: int | None = None
        """The version of a message that this ingest is too old for; nothing of that stream is confirmed any more."""
        self._supports = supports
        self._otherwise = False
        """A newer version with another envelope has come, of whatever stream and number: from then on nothing is given up as unreadable."""
        self._streams: dict[str, _Stream] = {}
        self._wanted: dict[str, int] = {}

    @property
    def held(self) -> int:
        """Messages that have arrived and are not handed out yet. Of each stream at most twice the sender's window is held."""
        return sum(len(stream.ahead) for stream in self._streams.values())

    @property
    def held_bytes(self) -> int:
        """Bytes of their bodies."""
        return sum(stream.ahead_bytes for stream in self._streams.values())

    def learn(self, held: Iterable[Held], marks: Iterable[Mark], now: float = 0.0) -> None:
        """A sync was answered with these marks, to an outbox that holds these streams. `now` as in `offer`."""
        holds = {h.stream: h for h in held}
        for mark in marks:
            stream = self._streams.get(mark.stream)
            if stream is None or stream.seq < mark.seq:
                stream = self._streams[mark.stream] = _Stream(mark.seq, mark.hash, heard_at=now)
            if (hold := holds.get(mark.stream)) is not None:
                stream.high = max(stream.high, hold.high)
                stream.low = max(stream.low, hold.low)

    def known(self, stream_id: str) -> bool:
        """True when the stream was learned."""
        return stream_id in self._streams

    def reset(self) -> None:
        """Forgets everything but its counters: the store is not where this receiver believed; collectors must sync again."""
        self._streams.clear()
        self._wanted.clear()

    def offer(self, payload: bytes, at: int, now: float) -> bool:
        """One payload of `ledger/{gateway}`. `at` is µs UTC, `now` seconds of a steady clock.

        Returns False when the stream is not known: the collector has to sync with this ingest first.
        """
        self.numbers.received += 1
        envelope = self._open(payload)
        if envelope is None:
            self._unreadable(now)
            return True
        stream = self._streams.get(envelope.stream)
        if stream is None:
            self.numbers.unknown += 1
            return False
        stream.heard_at = now
        if envelope.version > self._supports:
            self.too_new = envelope.version
            if envelope.seq <= stream.seq + 1 <= envelope.last_seq:
                stream.newer = stream.seq + 1
            return True
        if envelope.last_seq <= stream.seq:
            self.numbers.duplicates += 1
            return True
        if envelope.seq in stream.ahead and stream.ahead[envelope.seq][0].last_seq >= envelope.last_seq:
            self.numbers.duplicates += 1
            self._came_again(stream, envelope.seq)
            return True
        # what an outbox no longer holds is not waited for; but whatever it says, no more than the window is kept here
        following = stream.seq + 1
        far = envelope.seq > max(following, envelope.low) + 2 * WINDOW_MESSAGES
        full = len(stream.ahead) >= 2 * WINDOW_MESSAGES or stream.ahead_bytes > 2 * WINDOW_BYTES
        if envelope.seq > following and (full or far):
            self.numbers.beyond_window += 1
            self._want(envelope.stream, stream, now)
            return True
        stream.ahead[envelope.seq] = (envelope, at)
        stream.ahead_bytes += len(envelope.body)
        return True

    def _open(self, payload: bytes) -> Envelope | None:
        try:
            envelope = _decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            try:  # a newer version may look otherwise, but begins with its number
                version = _peek.decode(payload)[0]
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, IndexError, KeyError):
                return None
            if isinstance(version, int) and not isinstance(version, bool) and version > self._supports:
                self.too_new, self._otherwise = version, True
            return None
        plausible = 1 <= envelope.seq <= envelope.last_seq and envelope.low >= 0 and len(envelope.prev) == 32
        return (
            envelope if plausible and (envelope.seq == envelope.last_seq or envelope.kind == Kind.TOMBSTONE) else None
        )

    def _unreadable(self, now: float) -> None:
        """Something that cannot be read: perhaps it is the first number that must be there and is not."""
        self.numbers.unreadable += 1
        for stream_id, stream in self._streams.items():
            if stream.ahead or stream.seq < stream.high:
                stream.unreadable += 1
                self._want(stream_id, stream, now)
                return

    @staticmethod
    def _came_again(stream: _Stream, seq: int) -> None:
        """A message that is held came once more: if a replay was asked for, what was sent before it has gone by."""
        if stream.asked == stream.seq + 1 < seq and stream.replays > stream.answered:
            stream.answered = stream.replays
            stream.passed += 1

    def _want(self, stream_id: str, stream: _Stream, now: float) -> None:
        if stream.asked != stream.seq + 1:
            stream.asked, stream.replays, stream.answered, stream.passed = stream.seq + 1, 0, 0, 0
            stream.unreadable = min(stream.unreadable, 1)
        if now - stream.asked_at < REPLAY_INTERVAL:
            return
        stream.asked_at = now
        stream.replays += 1
        self.numbers.replays += 1
        self._wanted[stream_id] = stream.seq + 1

    def wanted(self) -> list[tuple[str, int]]:
        """Replays to ask for now, as (stream, number); each is given once."""
        wanted, self._wanted = list(self._wanted.items()), {}
        return wanted

    def nudge(self, now: float) -> None:
        """Called from time to time: a hole that is still there is asked for again, and so is what an outbox holds and,
        for some seconds, has not sent."""
        for stream_id, stream in self._streams.items():
            if stream.ahead:
                if min(stream.ahead) > stream.seq + 1:
                    self._want(stream_id, stream, now)
            elif stream.seq < stream.high:
                if now - stream.heard_at > _QUIET:
                    self._want(stream_id, stream, now)
                return  # later streams wait for this one

    def take(self, most_rows: int, at: int) -> list[Step]:
        """The steps that may be written now, in order, until about so many readings are together. The watermarks move with them."""
        steps: list[Step] = []
        rows = 0
        for stream_id, stream in self._streams.items():
            while rows < most_rows:
                step = self._step(stream_id, stream, at)
                if step is None:
                    break
                stream.seq, stream.hash = step.last, step.hash
                steps.append(step)
                rows += len(step.body.points) if isinstance(step.body, Batch) else 1
        return steps

    def _step(self, stream_id: str, stream: _Stream, at: int) -> Step | None:
        first = stream.seq + 1
        while stream.ahead:
            seq = min(stream.ahead)
            envelope, arrived = stream.ahead[seq]
            if seq > first:
                break
            del stream.ahead[seq]
            stream.ahead_bytes -= len(envelope.body)
            if envelope.last_seq >= first:
                stream.unreadable = 0
                return self._written(stream, envelope, first, arrived)
        low = max((e.low for e, _ in stream.ahead.values()), default=stream.low)
        if first < low:
            self.numbers.lost += low - first
            detail = f"the outbox holds nothing below {low}"
            return Step(self.gateway, stream_id, first, low - 1, ZERO_HASH, at, gap=Cause.LOST, detail=detail)
        hopeless = stream.passed >= GIVE_UP_AFTER or stream.replays >= LAST_GIVEN_UP_AFTER
        waits_for_newer = self._otherwise or stream.newer == first
        if stream.unreadable > GIVE_UP_AFTER and hopeless and stream.asked == first and not waits_for_newer:
            stream.unreadable = 0
            detail = f"number {first} arrived unreadable {GIVE_UP_AFTER + 1} times"
            return Step(self.gateway, stream_id, first, first, ZERO_HASH, at, gap=Cause.UNDECODABLE, detail=detail)
        return None

    def _written(self, stream: _Stream, envelope: Envelope, first: int, arrived: int) -> Step:
        fork = envelope.seq == first and stream.hash != ZERO_HASH and envelope.prev != stream.hash
        if fork:
            self.numbers.forks += 1
        gap = Cause.FORK if fork else None
        detail = f"number {first} does not continue the chain that is stored" if fork else ""
        try:
            body = decode_body(envelope.kind, envelope.body, envelope.enc)
        except PoisonError as error:
            return Step(
                self.gateway, envelope.stream, first, envelope.last_seq, envelope.hash(), arrived,
                gap=gap, detail=detail, poison=str(error), raw=envelope.body, kind=envelope.kind,
                enc=envelope.enc,
            )  # fmt: skip
        end = body.hash if isinstance(body, Tombstone) else envelope.hash()
        return Step(
            self.gateway, envelope.stream, first, envelope.last_seq, end, arrived, body=body, gap=gap, detail=detail
        )
