"""A machine that is set back to a snapshot while it runs gives numbers of its stream a second time: nothing new is skipped."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from gateway.ledger.outbox import Outbox
from gateway.ledger.receiver import Receiver
from gateway.ledger.sender import Sender
from schemas.wire import ZERO_HASH, Batch, Birth, Confirmed, Envelope, Kind, Mark, SyncAnswer, SyncRequest

_encode = msgspec.msgpack.encode


class Ingest:
    """A receiver with a store of watermarks and points."""

    def __init__(self) -> None:
        self.receiver = Receiver("gw")
        self.marks: dict[str, Mark] = {}
        self.points: list[int] = []
        self.births: list[str] = []

    def answer(self, request: SyncRequest) -> SyncAnswer:
        marks = [self.marks.get(h.stream, Mark(h.stream, 0, ZERO_HASH)) for h in request.streams]
        self.receiver.learn(request.streams, marks)
        return SyncAnswer(1, request.nonce, "store", "ingest", marks)

    def take(self, message: Envelope, now: float) -> list[Confirmed]:
        assert self.receiver.offer(_encode(message), 0, now)
        confirmed = []
        for step in self.receiver.take(10, 0):
            self.marks[step.stream] = Mark(step.stream, step.last, step.hash)
            if isinstance(step.body, Batch):
                self.points += step.body.points
            elif isinstance(step.body, Birth):
                self.births.append(step.stream)
            confirmed.append(Confirmed(1, "store", "ingest", self.marks[step.stream]))
        return confirmed


def flow(sender: Sender, ingest: Ingest, start: float) -> None:
    """Connects and moves everything that wants to move."""
    now = start
    sender.connected(now)
    for _ in range(20):
        now += 2.0
        for message in sender.poll(now):
            if isinstance(message, SyncRequest):
                sender.receive(ingest.answer(message), now)
            else:
                for confirmed in ingest.take(message, now):
                    sender.receive(confirmed, now)


def put(outbox: Outbox, *points: int) -> None:
    for point in points:
        outbox.append(Kind.READINGS, _encode(Batch(point, [point], [0], [float(point)])))
    outbox.commit()


def as_it_ran(path: Path, image: Path, confirmed: int) -> Outbox:
    """The process of the snapshot, memory included: it goes on with its stream as if nothing had happened."""
    source, target = sqlite3.connect(path), sqlite3.connect(image)
    source.backup(target)
    source.close()
    target.close()
    outbox = Outbox(image)
    current = outbox.streams()[-1]
    outbox._current, outbox._next_seq, outbox._next_prev = current, current.high + 1, current.hash
    current.confirmed = confirmed
    return outbox


@pytest.mark.parametrize("after", [1, 2, 5], ids=["behind the store", "level with it", "ahead of it"])
def test_set_back_while_running(tmp_path: Path, after: int) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.begin()
    outbox.append(Kind.BIRTH, _encode(Birth(0, "d", "a")))
    put(outbox, 1, 2)
    ingest = Ingest()
    flow(Sender(outbox, "gw"), ingest, 0.0)
    set_back = as_it_ran(tmp_path / "outbox.sqlite", tmp_path / "image.sqlite", confirmed=3)
    put(outbox, 3, 4)  # what happened after the snapshot, and was stored
    flow(Sender(outbox, "gw"), ingest, 100.0)
    assert ingest.points == [1, 2, 3, 4]
    old = set_back.current
    fresh = list(range(10, 10 + after))
    put(set_back, *fresh)
    sender = Sender(set_back, "gw")
    flow(sender, ingest, 200.0)
    assert ingest.points == [1, 2, 3, 4, *fresh], "everything new is stored, and nothing twice"
    assert sender.forked == [old]
    assert sender.numbers.forks == 1
    assert set_back.current != old
    assert ingest.births == [old, set_back.current], "the new stream says what its points are"
    put(set_back, 99)
    flow(sender, ingest, 300.0)
    assert ingest.points[-1] == 99


def test_a_chain_that_does_not_continue_is_written_and_told(tmp_path: Path) -> None:
    """What ingest cannot prevent it says: the message is stored, with a gap of cause fork."""
    outbox = Outbox(tmp_path / "outbox.sqlite")
    stream = outbox.begin()
    put(outbox, 1, 2)
    first, second = outbox.read(stream, 1, 10, 10**6)
    receiver = Receiver("gw")
    receiver.learn([], [Mark(stream, 0)])
    receiver.offer(_encode(first), 0, 0.0)
    assert [s.gap for s in receiver.take(10, 0)] == [None]
    receiver.offer(_encode(msgspec.structs.replace(second, prev=bytes(range(32)))), 0, 1.0)
    (step,) = receiver.take(10, 0)
    assert step.gap == "fork"
    assert isinstance(step.body, Batch)
