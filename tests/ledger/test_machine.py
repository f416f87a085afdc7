"""No sequence of faults loses or doubles a message, or skips one that is new.

The machine plays collectors, a bus that drops, doubles and reorders, ingests and stores. After any sequence it heals
everything and counts: each message that was durable in an outbox is in the store once, or stands in a recorded gap.
"""

from __future__ import annotations

import copy
import itertools
import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.wire import Kind
from tests.ledger import model


class LedgerMachine(RuleBasedStateMachine):
    """The rules are the faults of a workshop; the parts are those of the model, or the gateway's own in a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = itertools.count(1)
        self.streams = itertools.count(1)
        self.nonces = itertools.count(1)
        self.ingests = itertools.count(1)
        self.born: dict[int, tuple[str, int]] = {}
        self.excused: set[int] = set()
        self.trimmed: set[int] = set()
        self.up: list[Any] = []
        self.asks: list[Any] = []
        self.down: list[list[tuple[Any, ...]]] = [[], []]
        self.snapshot: Any = None
        self.backup: Any = None
        self.rotten: set[tuple[str, int]] = set()
        self.supports = 1
        self.upgraded = False

    # ------------------------------------------------------------------------------------------------ the parts

    def make_outbox(self) -> Any:
        outbox = model.Outbox(store="main")
        outbox.begin(self.new_stream())
        return outbox

    def make_store(self, name: str) -> Any:
        return model.Store(name)

    def make_sender(self, outbox: Any) -> Any:
        return model.Sender(outbox)

    def make_receiver(self, store: Any) -> Any:
        return model.Receiver(f"ingest{next(self.ingests)}", store, self.supports)

    def copy_outbox(self, outbox: Any) -> Any:
        """As a file system holds it: what is not synced may be missing."""
        image = copy.deepcopy(outbox)
        image.power_cut()
        return image

    def make_broken(self, message: Any) -> Any:
        return model.Message(**{**message.__dict__, "broken": True})

    def new_stream(self) -> str:
        return f"s{next(self.streams)}"

    # --------------------------------------------------------------------------------------------------- begin

    @initialize()
    def begin(self) -> None:
        self.store = self.make_store("main")
        self.other = None
        self.outboxes = [self.make_outbox()]
        self.senders = [self.make_sender(self.outboxes[0])]
        self.receivers = [self.make_receiver(self.store)]
        self.connect(0)

    def connect(self, c: int) -> None:
        self.asks.append(self.senders[c].ask(f"n{next(self.nonces)}"))

    def produce_one(self, c: int, body: int, kind: Kind, version: int = 1) -> None:
        outbox = self.outboxes[c]
        outbox.append(body, kind, version)
        self.born[body] = (outbox.streams[-1].id, outbox.streams[-1].high)

    # --------------------------------------------------------------------------------------------- the collector

    @rule(c=st.integers(0, 1), many=st.integers(1, 6), what=st.sampled_from(["reading", "reading", "link", "poison"]))
    def produce(self, c: int, many: int, what: str) -> None:
        for _ in range(many):
            body = next(self.ids)
            kind = Kind.LINK if what == "link" else Kind.READINGS
            self.produce_one(
                c % len(self.outboxes), -body if what == "poison" else body, kind, 2 if self.upgraded else 1
            )

    @rule(c=st.integers(0, 1))
    def group_commit(self, c: int) -> None:
        self.outboxes[c % len(self.outboxes)].unsynced.clear()

    @rule(c=st.integers(0, 1))
    def send(self, c: int) -> None:
        for message in self.senders[c % len(self.senders)].next():
            broken = (message.stream, message.seq) in self.rotten
            self.up.append(self.make_broken(message) if broken else message)

    @rule(c=st.integers(0, 1), rounds=st.integers(1, 3), heard=st.booleans())
    def flow(self, c: int, rounds: int, heard: bool) -> None:
        """Everything works for a while, except perhaps that the collector hears nothing."""
        c %= len(self.senders)
        self.outboxes[c].unsynced.clear()
        for _ in range(rounds):
            while self.asks:
                self.answer()
            while heard and self.down[c]:
                self.collector_hears(c, self.down[c].pop(0))
            self.send(c)
            self.deliver_all_if_any()

    @rule(c=st.integers(0, 1))
    def reconnect(self, c: int) -> None:
        self.connect(c % len(self.senders))

    @rule(c=st.integers(0, 1), power=st.booleans())
    def crash_collector(self, c: int, power: bool) -> None:
        c %= len(self.outboxes)
        outbox = self.outboxes[c]
        if power:
            self.excused.update(outbox.power_cut())
        else:
            outbox.unsynced.clear()
        self.restart(c, outbox)

    def restart(self, c: int, outbox: Any) -> None:
        outbox.begin(self.new_stream())
        self.outboxes[c] = outbox
        self.senders[c] = self.make_sender(outbox)
        self.connect(c)

    @rule(c=st.integers(0, 1))
    def overflow(self, c: int) -> None:
        self.trimmed.update(self.outboxes[c % len(self.outboxes)].overflow())

    @rule(c=st.integers(0, 1))
    def trim(self, c: int) -> None:
        self.trimmed.update(self.outboxes[c % len(self.outboxes)].trim())

    @rule()
    def take_snapshot(self) -> None:
        self.snapshot = self.copy_outbox(self.outboxes[0])

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def restore_outbox(self) -> None:
        """The box is set back to an image: what came after it, and had not been stored, is physically gone."""
        image = self.copy_outbox(self.snapshot)
        self.excused.update(self.held(self.outboxes[0]) - self.held(image))
        self.restart(0, image)

    def held(self, outbox: Any) -> set[int]:
        return {body for s in outbox.streams for m in s.messages for body in (m.dropped or (m.body,))}

    @precondition(lambda self: len(self.outboxes) == 1)
    @rule()
    def clone_outbox(self) -> None:
        """Somebody copies the box and starts both."""
        self.outboxes.append(self.copy_outbox(self.outboxes[0]))
        self.senders.append(None)
        self.restart(1, self.outboxes[1])

    @rule(data=st.data())
    def rot(self, data: st.DataObject) -> None:
        """A durable message that cannot be read as an envelope any more, however often it is sent."""
        held = [
            m for s in self.outboxes[0].streams for m in s.messages if m.seq > s.confirmed and m.kind == Kind.READINGS
        ]
        if held and len(self.rotten) < 3:
            message = data.draw(st.sampled_from(held))
            self.rotten.add((message.stream, message.seq))

    # ------------------------------------------------------------------------------------------------- the bus

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """One message reaches every ingest; which one is up to the broker."""
        at = data.draw(st.integers(0, min(len(self.up), 6) - 1))
        self.hand_over(self.up.pop(at))

    @precondition(lambda self: self.up)
    @rule()
    def deliver_all(self) -> None:
        pending, self.up = self.up, []
        for message in pending:
            self.hand_over(message)

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def double(self, data: st.DataObject) -> None:
        self.up.append(data.draw(st.sampled_from(self.up)))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.up.pop(data.draw(st.integers(0, len(self.up) - 1)))

    @rule()
    def wipe_broker(self) -> None:
        self.up, self.asks, self.down = [], [], [[], []]
        for c in range(len(self.senders)):
            self.connect(c)

    def hand_over(self, message: Any) -> None:
        for receiver in self.receivers:
            before = dict(receiver.store.marks)
            asked = receiver.receive(message)
            for stream, mark in receiver.store.marks.items():
                if before.get(stream) != mark:
                    self.tell("confirmed", receiver.store.id, receiver.id, stream, mark[0])
            if asked is not None:
                self.tell("replay", receiver.store.id, receiver.id, *asked)

    def tell(self, *message: Any) -> None:
        for c in range(len(self.senders)):
            self.down[c].append(message)

    @precondition(lambda self: self.asks)
    @rule()
    def answer(self) -> None:
        nonce, streams = self.asks.pop(0)
        for receiver in self.receivers:
            if receiver.holds_lease:
                self.tell("marks", nonce, receiver.store.id, receiver.id, receiver.marks(streams))

    @rule(c=st.integers(0, 1), drop=st.booleans())
    def tell_collector(self, c: int, drop: bool) -> None:
        c %= len(self.senders)
        if self.down[c]:
            message = self.down[c].pop(0)
            if not drop:
                self.collector_hears(c, message)

    def collector_hears(self, c: int, message: tuple[Any, ...]) -> None:
        sender = self.senders[c]
        match message:
            case ("confirmed", store, ingest, stream, seq):
                if sender.confirmed(store, ingest, stream, seq) and sender.nonce is None:
                    self.connect(c)
            case ("replay", store, ingest, stream, seq):
                sender.replay(store, ingest, stream, seq)
            case ("marks", nonce, store, ingest, marks):
                sender.answer(nonce, store, ingest, marks)

    # ------------------------------------------------------------------------------------- ingest and the store

    @rule()
    def crash_ingest(self) -> None:
        """The holder is gone, with all it held ahead."""
        self.receivers = [r for r in self.receivers if r.store is not self.store]
        self.receivers.append(self.make_receiver(self.store))

    @precondition(lambda self: sum(r.store is self.store for r in self.receivers) < 2)
    @rule()
    def second_ingest(self) -> None:
        """It takes the lease while the first still runs."""
        self.receivers.append(self.make_receiver(self.store))

    @precondition(lambda self: self.other is None)
    @rule()
    def second_store(self) -> None:
        self.other = self.make_store("other")
        self.receivers.append(self.make_receiver(self.other))

    @rule()
    def back_up_store(self) -> None:
        self.backup = self.image_of_store()

    def image_of_store(self) -> Any:
        return copy.deepcopy(self.store)

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore_store(self) -> None:
        fence = self.store.fence
        self.store = copy.deepcopy(self.backup)
        self.store.fence = fence
        self.receivers = [r for r in self.receivers if r.store is self.other]
        self.receivers.append(self.make_receiver(self.store))
        for c in range(len(self.senders)):
            self.connect(c)

    @precondition(lambda self: not self.upgraded)
    @rule()
    def upgrade_collector(self) -> None:
        """From now on the collector writes a version that this ingest does not know."""
        self.upgraded = True

    # ---------------------------------------------------------------------------------------------- what holds

    @invariant()
    def nothing_twice(self) -> None:
        if not hasattr(self, "store"):
            return
        stored = self.stored()
        assert len(stored) == len(set(stored)), f"stored twice: {sorted(i for i in stored if stored.count(i) > 1)}"
        assert set(stored) <= set(self.born)

    def stored(self) -> list[int]:
        return [*self.store.rows, *self.store.dead]

    def gaps(self) -> list[tuple[str, int, int, str]]:
        return list(self.store.gaps)

    def dropped(self) -> set[int]:
        return set(self.store.dropped)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        self.supports = 2
        self.receivers = [self.make_receiver(self.store)]
        for outbox in self.outboxes:
            outbox.unsynced.clear()
        self.up, self.asks, self.down = [], [], [[], []]
        for _ in range(400):
            before = self.progress()
            for c in range(len(self.senders)):
                self.connect(c)
            while self.asks:
                self.answer()
            for c in range(len(self.senders)):
                while self.down[c]:
                    self.collector_hears(c, self.down[c].pop(0))
                self.send(c)
            self.deliver_all_if_any()
            if self.progress() == before and self.drained():
                break
        assert self.drained(), "the outboxes do not drain"
        self.nothing_twice()
        stored, gaps, dropped = set(self.stored()), self.gaps(), self.dropped()
        for body, (stream, seq) in self.born.items():
            covered = any(g[0] == stream and g[1] <= seq <= g[2] and g[3] in ("lost", "undecodable") for g in gaps)
            assert body in stored or body in dropped or covered or body in self.excused, (
                f"message {body} ({stream}, {seq}) is neither stored nor in a gap {gaps}"
            )
        for stream, first, last, cause in gaps:
            if cause == "lost":  # only what the outbox does not hold any more may be called lost
                held = {b for b, (s, q) in self.born.items() if s == stream and first <= q <= last}
                assert held <= self.trimmed | self.excused, f"called lost though still held: {held - self.trimmed}"
            assert cause != "fork", "no fork without one"

    def deliver_all_if_any(self) -> None:
        pending, self.up = self.up, []
        for message in pending:
            self.hand_over(message)

    def progress(self) -> Any:
        return dict(self.store.marks), len(self.store.gaps)

    def drained(self) -> bool:
        return all(not s.messages or s.messages[-1].last_seq <= s.confirmed for o in self.outboxes for s in o.streams)


LONG = bool(os.environ.get("LONG"))
"""The long form takes ten minutes for each of the two machines."""
LedgerMachine.TestCase.settings = settings(
    max_examples=30_000 if LONG else 400,
    stateful_step_count=50,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or not os.environ.get("NO_SHRINK")],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestModel = LedgerMachine.TestCase
