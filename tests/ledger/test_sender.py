"""The collector's side of the ledger, rule by rule: each of these fails when its rule is taken out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.ledger.outbox import Outbox
from gateway.ledger.sender import CONFIRM_TIMEOUT, REPLAY_INTERVAL, SYNC_RETRY, Sender
from schemas.wire import ZERO_HASH, Batch, Confirmed, Envelope, Hello, Kind, Mark, Replay, SyncAnswer, SyncRequest


class Collector:
    """An outbox and its sender, with a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.outbox = Outbox(path, "process")
        self.outbox.begin()
        self.outbox.commit()
        self.sender = Sender(self.outbox, "gw", window_messages=4, window_bytes=10_000)
        self.now = 100.0

    @property
    def stream(self) -> str:
        return self.outbox.current

    def produce(self, count: int, size: int = 1) -> None:
        """So many messages, durable."""
        for number in range(count):
            values = [float(number)] * size
            self.outbox.append(
                Kind.READINGS, msgspec.msgpack.encode(Batch(number, [1] * size, list(range(size)), values))
            )
        self.outbox.commit()

    def poll(self) -> list[SyncRequest | Envelope]:
        return self.sender.poll(self.now)

    def sent(self) -> list[int]:
        """Numbers that are sent now, until nothing more is."""
        out: list[int] = []
        while messages := self.poll():
            assert all(isinstance(m, Envelope) for m in messages)
            out += [m.seq for m in messages if isinstance(m, Envelope)]
        return out

    def ask(self) -> SyncRequest:
        (request,) = self.poll()
        assert isinstance(request, SyncRequest)
        return request

    def hear(self, message: SyncAnswer | Confirmed | Replay | Hello) -> None:
        self.sender.receive(message, self.now)

    def sync(self, *marks: Mark, store: str = "store", ingest: str = "ingest") -> None:
        """Connected, asked and answered."""
        self.sender.connected(self.now)
        self.hear(SyncAnswer(1, self.ask().nonce, store, ingest, list(marks)))

    def confirm(self, seq: int, *, store: str = "store", ingest: str = "ingest") -> None:
        self.hear(Confirmed(1, store, ingest, Mark(self.stream, seq, ZERO_HASH)))


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(tmp_path / "outbox.sqlite")


def test_nothing_is_sent_before_the_answer_to_ones_own_question(collector: Collector) -> None:
    collector.produce(3)
    assert collector.poll() == [], "there is no bus yet"
    collector.sender.connected(collector.now)
    request = collector.ask()
    assert [(held.stream, held.low, held.high) for held in request.streams] == [(collector.stream, 1, 3)]
    assert collector.poll() == []
    collector.hear(SyncAnswer(1, "of somebody else", "store", "ingest", []))
    assert collector.poll() == []
    collector.now += SYNC_RETRY
    assert collector.ask().nonce == request.nonce, "asked again"
    collector.hear(SyncAnswer(1, request.nonce, "store", "ingest", []))
    assert collector.sent() == [1, 2, 3]


def test_the_answer_says_where_to_go_on(collector: Collector) -> None:
    collector.produce(4)
    end = collector.outbox.hash_at(collector.stream, 3)
    assert end is not None
    collector.sync(Mark(collector.stream, 3, end))
    assert collector.sent() == [4]
    collector.sender.disconnected()
    assert collector.poll() == []
    collector.sync()  # a store that was restored knows nothing of it
    assert collector.sent() == [1, 2, 3, 4]
    stream = collector.outbox.stream(collector.stream)
    assert stream is not None
    assert stream.confirmed == 0
    assert collector.sender.numbers.restored == 1


def test_what_is_not_durable_is_not_sent(collector: Collector) -> None:
    collector.sync()
    collector.outbox.append(Kind.READINGS, msgspec.msgpack.encode(Batch(0, [1], [0], [1.0])))
    assert collector.sent() == []
    collector.outbox.commit()
    assert collector.sent() == [1]


def test_no_more_than_the_window_is_unconfirmed(collector: Collector) -> None:
    collector.produce(10)
    collector.sync()
    assert collector.sent() == [1, 2, 3, 4]
    collector.confirm(1)
    assert collector.sent() == [5]
    collector.confirm(5)
    assert collector.sent() == [6, 7, 8, 9]


def test_no_more_than_the_windows_bytes_are_unconfirmed(collector: Collector) -> None:
    for number in range(3):
        body = msgspec.msgpack.encode(
            Batch(number, [1], [0], [hex((number + 1) * 7**20_000)])
        )  # nothing that shrinks much
        collector.outbox.append(Kind.READINGS, body)
    collector.outbox.commit()
    collector.sync()
    first = collector.sent()
    assert 1 <= len(first) < 3
    collector.confirm(first[-1])
    assert collector.sent()[0] == first[-1] + 1


def test_order_beats_freshness(collector: Collector) -> None:
    collector.produce(6)
    old = collector.stream
    collector.outbox.begin()
    collector.outbox.commit()
    collector.produce(2)
    collector.sync()
    assert collector.sent() == [1, 2, 3, 4], "the new stream waits for the old one"
    collector.hear(Confirmed(1, "store", "ingest", Mark(old, 4, ZERO_HASH)))
    messages = collector.poll()
    assert [(m.stream, m.seq) for m in messages if isinstance(m, Envelope)] == [(old, 5), (old, 6)]
    assert collector.sent() == []
    collector.hear(Confirmed(1, "store", "ingest", Mark(old, 6, ZERO_HASH)))
    messages = collector.poll()
    assert {m.stream for m in messages if isinstance(m, Envelope)} == {collector.stream}


def test_a_replay_moves_back_only_and_once_a_second(collector: Collector) -> None:
    collector.produce(4)
    collector.sync()
    assert collector.sent() == [1, 2, 3, 4]
    collector.hear(Replay(1, "store", "ingest", collector.stream, 2))
    assert collector.sent() == [2, 3, 4]
    collector.hear(Replay(1, "store", "ingest", collector.stream, 2))
    assert collector.sent() == [], "a second one in the same second"
    collector.now += REPLAY_INTERVAL
    collector.hear(Replay(1, "store", "ingest", collector.stream, 9))
    assert collector.sent() == []
    collector.hear(Replay(1, "another", "ingest", collector.stream, 2))
    assert collector.sent() == [], "not our store"
    collector.hear(Replay(1, "store", "ingest", collector.stream, 4))
    assert collector.sent() == [4]


def test_without_a_word_it_asks_again(collector: Collector) -> None:
    collector.produce(2)
    collector.sync()
    assert collector.sent() == [1, 2]
    collector.now += CONFIRM_TIMEOUT + 0.1
    collector.ask()
    collector.now += 0.1
    assert collector.poll() == [], "nothing is sent meanwhile"


def test_without_anything_unconfirmed_it_does_not_ask(collector: Collector) -> None:
    collector.produce(2)
    collector.sync()
    assert collector.sent() == [1, 2]
    collector.confirm(2)
    collector.now += 10 * CONFIRM_TIMEOUT
    assert collector.poll() == []


@pytest.mark.parametrize("by", ["hello", "confirmed"])
def test_another_ingest_is_asked_first(collector: Collector, by: str) -> None:
    collector.produce(2)
    collector.sync()
    assert collector.sent() == [1, 2]
    if by == "hello":
        collector.hear(Hello(1, "store", "another"))
    else:
        collector.confirm(2, ingest="another")
    stream = collector.outbox.stream(collector.stream)
    assert stream is not None
    assert stream.confirmed == 0, "what an ingest says that was not asked counts for nothing"
    collector.ask()


def test_only_the_store_that_was_first_confirms(collector: Collector, tmp_path: Path) -> None:
    collector.produce(2)
    collector.sync()
    assert collector.outbox.store == "store"
    collector.confirm(2, store="another")
    stream = collector.outbox.stream(collector.stream)
    assert stream is not None
    assert stream.confirmed == 0
    collector.sender.disconnected()
    collector.sender.connected(collector.now)
    request = collector.ask()
    collector.hear(SyncAnswer(1, request.nonce, "another", "ingest", []))
    assert collector.sender.other_store == "another"
    assert collector.poll() == []
    collector.outbox.close()
    assert Outbox(tmp_path / "outbox.sqlite").store == "store", "also after a restart"
