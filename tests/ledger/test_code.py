"""The machine of `test_machine.py`, played with the gateway's own outbox, sender and receiver."""

from __future__ import annotations

import copy
import itertools
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.ledger.bodies import decode_body, plain_body
from gateway.ledger.opening import open_or_salvage
from gateway.ledger.outbox import Outbox
from gateway.ledger.receiver import Receiver
from gateway.ledger.sender import Sender
from gateway.ledger.steps import Step
from schemas.wire import (
    ZERO_HASH,
    Batch,
    Confirmed,
    Envelope,
    Gap,
    Hello,
    Kind,
    Link,
    Mark,
    Replay,
    SyncAnswer,
    SyncRequest,
    Tombstone,
)  # fmt: skip
from tests.ledger.model import WINDOW, Store
from tests.ledger.test_machine import LONG, LedgerMachine

_encode = msgspec.msgpack.encode


def body_of(number: int, kind: Kind, version: int = 1) -> bytes:
    """A real body that names the message; a negative number is a body that cannot be decoded. Of version 2: one that is compressed."""
    if number < 0:
        return _encode({"poison": number})
    if kind == Kind.LINK:
        return _encode(Link(str(number), True, number))
    return _encode(Batch(number, [number], [0], [number if version == 1 else f"{number:200d}"]))


def numbers_in(kind: int, body: bytes, enc: int) -> tuple[int, ...]:
    """The messages that a body names: one, or all that a tombstone stands for; none for births, closings and gaps."""
    raw = msgspec.msgpack.decode(plain_body(body, enc))
    if isinstance(raw, dict):
        return (raw["poison"],)
    decoded = decode_body(kind, body, enc)
    match decoded:
        case Batch():
            return tuple(decoded.points)
        case Link():
            return (int(decoded.device),)
        case Tombstone():
            return points_of(decoded.gaps)
        case _:
            return ()


def points_of(gaps: list[Gap]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(g.points or () for g in gaps))


@dataclass
class Held:
    kind: int
    seq: int
    last_seq: int
    stream: str
    numbers: tuple[int, ...]


@dataclass
class StreamView:
    id: str
    confirmed: int
    high: int
    messages: list[Held]


class RealOutbox:
    """The gateway's outbox behind the model's names; `unsynced.clear()` is its group commit."""

    def __init__(self, folder: Path, image: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(dir=folder)) / "outbox.sqlite"
        if image is not None:
            source, target = sqlite3.connect(image), sqlite3.connect(self.path)
            source.backup(target)
            source.close()
            target.close()
        self.outbox = Outbox(self.path, "process")
        self.pending: list[int] = []
        self.now = 0.0

    def begin(self, _name: str) -> None:
        self.outbox.begin()
        self.outbox.commit()

    def append(self, number: int, kind: Kind, version: int) -> tuple[str, int]:
        self.pending.append(number)
        return self.outbox.current, self.outbox.append(kind, body_of(number, kind, version))

    @property
    def unsynced(self) -> RealOutbox:
        return self

    def clear(self) -> None:
        self.outbox.commit()
        self.pending.clear()

    def power_cut(self) -> list[int]:
        lost, self.pending = self.pending, []
        self.outbox.close()
        self.outbox = Outbox(self.path, "process")
        return lost

    def damage(self, places: list[int]) -> list[int]:
        """The process ends, some rows of the file are torn, and the next start saves the rest. What is lost stands in a tombstone or
        below what is held."""
        self.clear()
        before = {(s.id, m.seq): m.numbers for s in self.streams for m in s.messages}
        self.outbox.close()
        db = sqlite3.connect(self.path)
        rows = [row[0] for row in db.execute("SELECT rowid FROM message ORDER BY pos, seq")]
        for place in places:
            if rows:
                db.execute("UPDATE message SET body = x'00' WHERE rowid = ?", (rows.pop(place % len(rows)),))
        db.commit()
        db.close()
        self.outbox, _ = open_or_salvage(self.path, "process", 0)
        after = {(s.id, m.seq) for s in self.streams for m in s.messages if m.kind != Kind.TOMBSTONE or m.numbers}
        lost = [key for key in before if key not in after]
        for stream, seq in lost:
            found = self.outbox.read(stream, seq, 1, 1)
            low = next(s.low for s in self.outbox.streams() if s.id == stream)
            assert seq < low or (found[0].kind == Kind.TOMBSTONE and found[0].seq <= seq <= found[0].last_seq)
        return [number for key in lost for number in before[key]]

    def overflow(self) -> list[int]:
        before = self.numbers()
        self.outbox.drop_oldest(max(self.outbox.size - 1, 0))
        return sorted(before - self.numbers())

    def trim(self) -> list[int]:
        before = self.numbers()
        self.outbox.trim(float("inf"))
        return sorted(before - self.numbers())

    def numbers(self) -> set[int]:
        return {n for s in self.streams for m in s.messages for n in m.numbers} | set(self.pending)

    @property
    def streams(self) -> list[StreamView]:
        views = []
        for s in self.outbox.streams():
            held = [
                Held(e.kind, e.seq, e.last_seq, s.id, numbers_in(e.kind, e.body, e.enc))
                for e in self.outbox.read(s.id, s.low, 10_000, 10**9)
            ]
            views.append(StreamView(s.id, s.confirmed, s.high, held))
        return views


class RealSender:
    """The gateway's sender behind the model's names. Time leaps with each call, so that no rate limit hides a fault."""

    def __init__(self, machine: CodeMachine, box: RealOutbox) -> None:
        self.machine, self.box = machine, box
        self.sender = Sender(box.outbox, "gw", window_messages=WINDOW)

    def ask(self, _nonce: str) -> SyncRequest:
        self.sender.connected(self.machine.tick())
        (request,) = self.sender.poll(self.machine.tick())
        assert isinstance(request, SyncRequest)
        return request

    @property
    def nonce(self) -> str:
        return "the sender asks by itself"

    def next(self) -> list[Envelope]:
        out = []
        for message in self.sender.poll(self.machine.tick()):
            if isinstance(message, SyncRequest):
                self.machine.asks.append(message)
            else:
                out.append(message)
        return out

    def hear(self, message: Any) -> None:
        self.sender.receive(message, self.machine.tick())


class RealReceiver:
    """The gateway's receiver over the model's store, as ingest drives it."""

    def __init__(self, machine: CodeMachine, name: str, store: Store, supports: int) -> None:
        self.machine, self.id, self.store = machine, name, store
        store.fence += 1
        self.fence = store.fence
        self.receiver = Receiver("gw", supports=supports)

    @property
    def holds_lease(self) -> bool:
        return self.fence == self.store.fence

    def marks(self, request: SyncRequest) -> list[Mark]:
        marks = [Mark(h.stream, *self.store.marks.get(h.stream, (0, ZERO_HASH))) for h in request.streams]
        self.receiver.learn(request.streams, marks)
        self.write()
        return marks

    def receive(self, message: Any) -> tuple[str, int] | None:
        payload = message if isinstance(message, bytes) else _encode(message)
        if not self.receiver.offer(payload, 0, self.machine.tick()):
            self.machine.tell(Hello(1, self.store.id, self.id))
        self.write()
        self.receiver.nudge(self.machine.tick())
        wanted = self.receiver.wanted()
        return wanted[0] if wanted else None

    def write(self) -> None:
        while steps := self.receiver.take(2, 0):
            if not self.apply(steps):
                self.receiver.reset()
                break

    def apply(self, steps: list[Step]) -> bool:
        """All steps or none."""
        store = copy.deepcopy(self.store)
        for step in steps:
            if not store.apply(self.fence, step.stream, step.first, step.last, step.hash):
                return False
            if step.gap is not None:
                store.gaps.append((step.stream, step.first, step.last, step.gap.value))
            if step.poison is not None:
                assert step.raw is not None
                store.dead.append(msgspec.msgpack.decode(step.raw)["poison"])
            match step.body:
                case Batch():
                    store.rows += step.body.points
                case Link():
                    store.rows.append(int(step.body.device))
                case Tombstone():
                    store.dropped += points_of(step.body.gaps)
        self.store.__dict__.update(store.__dict__)
        return True


class CodeMachine(LedgerMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.time = 0.0
        self.boxes: list[RealOutbox] = []

    def tick(self) -> float:
        self.time += 2.0
        return self.time

    def make_outbox(self) -> Any:
        box = self.keep(RealOutbox(self.folder))
        box.outbox.pin("main")
        box.begin("")
        return box

    def keep(self, box: RealOutbox) -> RealOutbox:
        self.boxes.append(box)
        return box

    def make_sender(self, outbox: Any) -> Any:
        return RealSender(self, outbox)

    def make_receiver(self, store: Any) -> Any:
        return RealReceiver(self, f"ingest{next(self.ingests)}", store, self.supports)

    def copy_outbox(self, outbox: Any) -> Any:
        return self.keep(RealOutbox(self.folder, outbox.path))

    def make_broken(self, message: Any) -> Any:
        return b"\xc1" + _encode(message)

    @rule(c=st.integers(0, 1), places=st.lists(st.integers(0, 1000), min_size=1, max_size=3))
    def damage_outbox(self, c: int, places: list[int]) -> None:
        """Torn rows, found at the next start: what is whole is saved under its numbers."""
        c %= len(self.outboxes)
        self.excused.update(self.outboxes[c].damage(places))
        self.restart(c, self.outboxes[c])

    def produce_one(self, c: int, body: int, kind: Kind, version: int = 1) -> None:
        self.born[body] = self.outboxes[c].append(body, kind, version)

    def held(self, outbox: Any) -> set[int]:
        return set(outbox.numbers())

    def connect(self, c: int) -> None:
        self.asks.append(self.senders[c].ask(""))

    def answer(self) -> None:
        request = self.asks.pop(0)
        for receiver in self.receivers:
            if receiver.holds_lease:
                marks = receiver.marks(request)
                self.tell(SyncAnswer(1, request.nonce, receiver.store.id, receiver.id, marks))

    def tell(self, *message: Any) -> None:
        match message:
            case ("confirmed", store, ingest, stream, seq):
                end = self.store.marks.get(stream, (0, ZERO_HASH))[1]
                message = (Confirmed(1, store, ingest, Mark(stream, seq, end)),)
            case ("replay", store, ingest, stream, seq):
                message = (Replay(1, store, ingest, stream, seq),)
        super().tell(message[0])

    def collector_hears(self, c: int, message: tuple[Any, ...]) -> None:
        self.senders[c].hear(message[0])

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for box in self.boxes:
                box.outbox.close()
            shutil.rmtree(self.folder, ignore_errors=True)


CodeMachine.TestCase.settings = settings(
    LedgerMachine.TestCase.settings, max_examples=10_000 if LONG else 80, stateful_step_count=50, deadline=None
)
TestCode = CodeMachine.TestCase
