"""Ingest's side of the ledger, rule by rule: each of these fails when its rule is taken out."""

from __future__ import annotations

import msgspec
import pytest

from gateway.ledger.receiver import LAST_GIVEN_UP_AFTER, Receiver
from gateway.ledger.sender import REPLAY_INTERVAL
from schemas.wire import VERSION, ZERO_HASH, Batch, Envelope, Gap, Held, Kind, Mark, Tombstone

_encode = msgspec.msgpack.encode


def messages(count: int) -> list[Envelope]:
    """A chain of so many."""
    out: list[Envelope] = []
    for seq in range(1, count + 1):
        prev = out[-1].hash() if out else ZERO_HASH
        body = _encode(Batch(seq, [seq], [0], [1.0]))
        out.append(Envelope(1, Kind.READINGS, "s", seq, seq, 1, prev, 0, body))
    return out


class Ingest:
    """A receiver that knows a stream, with a clock that the test moves."""

    def __init__(self, *, low: int = 1, high: int = 0, mark: int = 0, end: bytes = ZERO_HASH) -> None:
        self.receiver = Receiver("gw")
        self.receiver.learn([Held("s", low, high, 0)], [Mark("s", mark, end)], 0.0)
        self.now = 10.0

    def offer(self, *envelopes: Envelope | bytes) -> None:
        for envelope in envelopes:
            assert self.receiver.offer(envelope if isinstance(envelope, bytes) else _encode(envelope), 0, self.now)

    def written(self) -> list[tuple[int, int]]:
        return [(step.first, step.last) for step in self.receiver.take(1000, 0)]

    def wanted(self) -> list[tuple[str, int]]:
        self.receiver.nudge(self.now)
        return self.receiver.wanted()


def test_a_stream_that_was_not_learned_is_refused() -> None:
    receiver = Receiver("gw")
    assert not receiver.offer(_encode(messages(1)[0]), 0, 0.0)
    assert receiver.take(1000, 0) == []
    assert receiver.numbers.unknown == 1


def test_what_is_ahead_of_a_hole_waits_for_it() -> None:
    ingest, (one, two, three) = Ingest(), messages(3)
    ingest.offer(one, three)
    assert ingest.written() == [(1, 1)]
    assert ingest.wanted() == [("s", 2)]
    ingest.now += REPLAY_INTERVAL / 2
    assert ingest.wanted() == [], "once a second"
    ingest.now += REPLAY_INTERVAL
    assert ingest.wanted() == [("s", 2)], "until it comes"
    ingest.offer(two)
    assert ingest.written() == [(2, 2), (3, 3)]


def test_what_was_overtaken_is_not_written_again() -> None:
    """A message waits ahead, and the same numbers come in a tombstone before it is its turn; or the other way round."""
    sent = messages(4)
    gap = Gap(None, [2, 3], 2, 3, "dropped", 2)
    stone = Envelope(1, Kind.TOMBSTONE, "s", 2, 3, 1, sent[1].prev, 0, _encode(Tombstone(sent[2].hash(), [gap])))
    for order in ([sent[2], stone, sent[0], sent[3]], [stone, sent[2], sent[1], sent[0], sent[3]]):
        ingest = Ingest()
        ingest.offer(*order)
        written = ingest.written()
        assert all(first <= last for first, last in written)
        numbers = [number for first, last in written for number in range(first, last + 1)]
        assert numbers == [1, 2, 3, 4], f"each once: {written}"
        assert ingest.receiver.numbers.forks == 0


def test_what_is_stored_is_skipped() -> None:
    sent = messages(3)
    ingest = Ingest(mark=2, end=sent[1].hash())
    ingest.offer(*sent, *sent)
    assert ingest.written() == [(3, 3)]
    assert ingest.receiver.numbers.duplicates == 5


def test_what_the_outbox_cannot_hold_any_more_is_a_gap() -> None:
    """Told by a sync, or by the messages themselves; and only that."""
    sent = [msgspec.structs.replace(envelope, low=4) for envelope in messages(5)]
    by_sync, by_message = Ingest(low=4, high=5), Ingest(low=1, high=5)
    assert by_message.written() == []
    for ingest in (by_sync, by_message):
        ingest.offer(sent[3], sent[4])
        steps = ingest.receiver.take(1000, 0)
        found = [(step.first, step.last, step.gap and step.gap.value) for step in steps]
        assert found == [(1, 3, "lost"), (4, 4, None), (5, 5, None)]
        assert ingest.receiver.numbers.lost == 3
        assert ingest.wanted() == []
    assert Ingest(low=4, high=5).written() == [(1, 3)], "before anything has come"


def test_what_was_garbled_once_is_asked_for() -> None:
    ingest, sent = Ingest(high=2), messages(2)
    ingest.offer(b"\xc1 garbage")
    assert ingest.written() == []
    assert ingest.wanted() == [("s", 1)]
    ingest.offer(*sent)
    assert ingest.written() == [(1, 1), (2, 2)]


def test_what_is_garbled_each_time_is_given_up() -> None:
    ingest, sent = Ingest(high=2), messages(2)
    for _ in range(4):
        assert ingest.written() == []
        ingest.offer(b"\xc1 garbage", sent[1])
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    steps = ingest.receiver.take(1000, 0)
    assert [(step.first, step.gap and step.gap.value) for step in steps] == [(1, "undecodable"), (2, None)]


def test_rubbish_of_somebody_else_makes_no_gap_of_what_is_slow() -> None:
    """Nothing says that the rubbish is what is missing: a line with seconds of latency, or an ingest that has just been started."""
    ingest, sent = Ingest(high=3), messages(3)
    for _ in range(20):
        ingest.offer(*[b"\xc1 rubbish"] * 50)
        assert ingest.written() == []
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    ingest.offer(*sent)
    assert ingest.written() == [(1, 1), (2, 2), (3, 3)]


def test_what_is_held_comes_again_in_one_go_however_often_it_was_asked_for() -> None:
    """Five replays were asked for before the first answer was here: that is one answer."""
    ingest, sent = Ingest(high=3), messages(3)
    ingest.offer(*sent[1:])
    for _ in range(5):
        ingest.offer(b"\xc1 rubbish")
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    ingest.offer(*sent[1:], *sent[1:])
    assert ingest.written() == []
    ingest.offer(*sent)
    assert ingest.written() == [(1, 1), (2, 2), (3, 3)]


def test_the_last_of_a_stream_is_given_up_although_nothing_comes_behind_it() -> None:
    """Otherwise no later stream would ever be sent."""
    ingest = Ingest(high=1)
    for _ in range(LAST_GIVEN_UP_AFTER):
        assert ingest.written() == []
        ingest.offer(b"\xc1 garbage")
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    steps = ingest.receiver.take(1000, 0)
    assert [(step.first, step.gap and step.gap.value) for step in steps] == [(1, "undecodable")]


def test_a_newer_envelope_that_looks_otherwise_is_no_garbage() -> None:
    """It is never given up, however often it comes."""
    ingest = Ingest(high=1)
    for _ in range(12):
        ingest.offer(_encode([VERSION + 1, {"everything": "is different"}]))
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    assert ingest.receiver.too_new == VERSION + 1


def test_a_newer_version_is_neither_written_nor_given_up() -> None:
    ingest, (one, *_) = Ingest(high=1), messages(1)
    newer = msgspec.structs.replace(one, version=VERSION + 1)
    for _ in range(12):
        ingest.offer(newer)
        assert ingest.written() == []
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    assert ingest.receiver.too_new == VERSION + 1


@pytest.mark.parametrize("shape", ["same", "other"])
def test_what_is_too_new_is_never_given_up(shape: str) -> None:
    """An old ingest beside rubbish on its topic: the message that it cannot read yet is no rubbish, and what it can read waits behind it."""
    ingest, sent = Ingest(high=2), messages(2)
    newer = _encode(msgspec.structs.replace(sent[0], version=VERSION + 1))
    if shape == "other":
        newer = _encode([VERSION + 1, {"stream": "s", "seq": 1}])
    for _ in range(LAST_GIVEN_UP_AFTER + 1):
        ingest.offer(newer, b"\xc1 garbage", sent[1])
        assert ingest.written() == []
        ingest.wanted()
        ingest.now += REPLAY_INTERVAL
    assert ingest.receiver.too_new == VERSION + 1
