"""Ingest with a scripted store: weather, a moved watermark, a lost lease, a restored store, a version from the future."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec

from gateway.bus.client import Bus
from gateway.bus.client import Health as BusHealth
from gateway.bus.topics import Topics
from gateway.config.models import MetricsSettings
from gateway.ingest.metrics import Measured
from gateway.ingest.role import ENOUGH_MESSAGES, MOST_AGE, Ingest
from gateway.ledger.steps import Applied, LeaseLostError, Step, StoreFailedError, StoreWeatherError, WatermarkError
from schemas.wire import (
    VERSION,
    ZERO_HASH,
    Batch,
    Committed,
    Confirmed,
    Envelope,
    FromIngest,
    Held,
    Hello,
    Kind,
    Mark,
    Replay,
    Row,
    SyncAnswer,
    SyncRequest,
)
from tests.servers.waiting import eventually_async

_encode = msgspec.msgpack.encode


class FakeBus:
    """Hands over what a test says, and keeps what ingest publishes."""

    def __init__(self) -> None:
        self.handlers: list[tuple[str, Callable[[str, bytes], None]]] = []
        self.published: list[tuple[str, bytes]] = []
        self.health = BusHealth("ok")

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        self.handlers.append((topic_filter, handler))

    def publish(self, topic: str, payload: bytes, **_: Any) -> bool:
        self.published.append((topic, payload))
        return True

    def hand(self, kind: str, payload: bytes) -> None:
        for topic_filter, handler in self.handlers:
            if f"/{kind}/" in topic_filter:
                handler(f"guantong/v1/{kind}/gw", payload)

    def told(self, kind: type) -> list[Any]:
        """Messages of a type that collectors were sent."""
        messages = [msgspec.msgpack.decode(p, type=FromIngest) for t, p in self.published if "/confirmed/" in t]
        return [m for m in messages if isinstance(m, kind)]


class FakeStore:
    """A store whose next answers are scripted: exceptions are raised, once each."""

    def __init__(self) -> None:
        self.store_id, self.epoch = "store", 1
        self.script: list[Exception] = []
        self.marks_now: dict[str, Mark] = {}
        self.applied: list[list[Step]] = []
        self.attempts = 0
        self.leases = 0
        self.refuse_lease = 0
        self.replays: list[list[Applied]] = []
        self.letters = 0

    def acquire(self, _holder: str, _ttl: float) -> bool:
        if self.refuse_lease:
            self.refuse_lease -= 1
            return False
        self.leases += 1
        return True

    def renew(self) -> None: ...
    def release(self) -> None: ...
    def close(self) -> None: ...

    def gateways(self) -> list[str]:
        return ["gw"]

    def raise_epoch(self) -> None:
        self.epoch += 1

    def replay(self) -> list[Applied]:
        return self.replays.pop(0) if self.replays else []

    def open_letters(self) -> int:
        return self.letters

    def marks(self, _gateway: str, streams: list[str]) -> list[Mark]:
        return [self.marks_now.get(s, Mark(s, 0)) for s in streams]

    def apply(self, steps: list[Step]) -> Applied:
        self.attempts += 1
        if self.script:
            raise self.script.pop(0)
        self.applied.append(steps)
        for step in steps:
            self.marks_now[step.stream] = Mark(step.stream, step.last, step.hash)
        return Applied(list(self.marks_now.values()), Committed(self.epoch, len(self.applied), [], [], []))


@contextlib.asynccontextmanager
async def ingesting(
    store: FakeStore, opener: Callable[[], FakeStore] | None = None
) -> AsyncIterator[tuple[Ingest, FakeBus]]:
    bus = FakeBus()
    ingest = Ingest(cast(Bus, bus), Topics(), cast(Any, opener or (lambda: store)), holder="test")
    task = asyncio.create_task(ingest.run())
    try:
        yield ingest, bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def message(seq: int, prev: bytes = ZERO_HASH, version: int = VERSION) -> Envelope:
    body = _encode(Batch(seq, [seq], [0], [float(seq)]))
    return Envelope(version, Kind.READINGS, "s", seq, seq, 1, prev, 0, body)


def chain(many: int) -> list[Envelope]:
    out: list[Envelope] = []
    for seq in range(1, many + 1):
        out.append(message(seq, out[-1].hash() if out else ZERO_HASH))
    return out


async def synced(ingest: Ingest, bus: FakeBus, *, high: int = 3, confirmed: int = 0) -> None:
    await eventually_async(lambda: ingest.health.state == "ok", 10)
    bus.hand("sync", _encode(SyncRequest(VERSION, "gw", "nonce", None, [Held("s", 1, high, confirmed)])))
    await eventually_async(lambda: bus.told(SyncAnswer), 10)


async def test_bad_weather_is_waited_for_and_nothing_is_confirmed_meanwhile() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        store.script = [StoreWeatherError("the database is away", fix="Start it.") for _ in range(3)]
        for envelope in chain(3):
            bus.hand("ledger", _encode(envelope))
        await eventually_async(lambda: ingest.health.state == "recovering", 10)
        assert ingest.health.fix == "Start it."
        assert bus.told(Confirmed) == []
        await eventually_async(lambda: bus.told(Confirmed), 20)
        assert [s.last for steps in store.applied for s in steps] == [1, 2, 3]
        assert bus.told(Confirmed)[-1].mark.seq == 3
        assert ingest.health.state == "ok"
        assert ingest.numbers.retries == 3


async def test_a_watermark_that_moved_makes_everybody_ask_again() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        store.script = [WatermarkError("stream s is at 2")]
        before = len(bus.told(Hello))
        bus.hand("ledger", _encode(message(1)))
        await eventually_async(lambda: len(bus.told(Hello)) > before, 10)
        assert not ingest.receivers["gw"].known("s")
        bus.hand("ledger", _encode(message(1)))
        assert store.applied == [], "nothing is written of a stream that was not synced"


async def test_a_lost_lease_ends_the_writing_until_it_is_taken_again() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        store.script = [LeaseLostError("another ingest has taken the lease")]
        bus.hand("ledger", _encode(message(1)))
        await eventually_async(lambda: store.leases == 2, 15)
        await eventually_async(lambda: ingest.health.state == "ok", 10)
        assert store.applied == []


async def test_what_needs_a_person_is_a_state_and_is_tried_again() -> None:
    opened = 0
    store = FakeStore()

    def opener() -> FakeStore:
        nonlocal opened
        opened += 1
        raise StoreFailedError("the password is wrong", fix="Set store.password.")

    async with ingesting(store, opener) as (ingest, _):
        await eventually_async(lambda: ingest.health.state == "failed", 10)
        assert (ingest.health.reason, ingest.health.fix) == ("the password is wrong", "Set store.password.")
    assert opened >= 1
    assert ingest.health.state == "stopped"


async def test_a_store_behind_what_it_had_confirmed_was_restored() -> None:
    store = FakeStore()
    store.marks_now["s"] = Mark("s", 1, chain(1)[0].hash())
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus, confirmed=3)
        await eventually_async(lambda: store.epoch == 2, 10)
        assert any("restored from a backup" in problem for problem in ingest.problems)


async def test_a_version_from_the_future_stops_the_stream_and_says_so() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        first = message(1)
        bus.hand("ledger", _encode(first))
        await eventually_async(lambda: store.applied, 10)
        bus.hand("ledger", _encode(message(2, first.hash(), VERSION + 1)))
        await eventually_async(lambda: ingest.health.state == "degraded", 10)
        assert "Upgrade ingest" in ingest.health.fix
        await eventually_async(lambda: any("too old" in h.problem for h in bus.told(Hello)), 10)
        assert max(c.mark.seq for c in bus.told(Confirmed)) == 1


async def test_garbage_on_any_topic_costs_nothing() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        for payload in (b"", b"\xc1", b"\x93\x01", b"\xff" * 1000, _encode([1, 2, 3]), _encode({"a": 1})):
            bus.hand("ledger", payload)
            bus.hand("sync", payload)
        for envelope in chain(2):
            bus.hand("ledger", _encode(envelope))
        await eventually_async(lambda: [s.last for steps in store.applied for s in steps] == [1, 2], 10)


async def test_a_hole_is_asked_for() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        one, two, three = chain(3)
        bus.hand("ledger", _encode(one))
        bus.hand("ledger", _encode(three))
        await eventually_async(lambda: bus.told(Replay), 10)
        assert bus.told(Replay)[-1].seq == 2
        bus.hand("ledger", _encode(two))
        await eventually_async(lambda: [s.last for steps in store.applied for s in steps] == [1, 2, 3], 10)


async def test_a_reserve_stands_by() -> None:
    store = FakeStore()
    store.refuse_lease = 1
    async with ingesting(store) as (ingest, bus):
        await eventually_async(lambda: "lease" in ingest.health.reason, 10)
        bus.hand("ledger", _encode(message(1)))
        assert ingest.numbers.messages == 0
        await eventually_async(lambda: ingest.health.state == "ok", 15)


async def test_what_comes_together_is_one_transaction() -> None:
    """By age while there is little, by size as soon as there is enough; a sync is answered at once."""
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus, high=1000)
        await eventually_async(lambda: not ingest._work.is_set(), 10)
        envelopes = chain(ENOUGH_MESSAGES + 5)
        loop = asyncio.get_running_loop()
        for number, envelope in enumerate(envelopes[:5]):
            loop.call_later(MOST_AGE / 20 * number, bus.hand, "ledger", _encode(envelope))
        await eventually_async(lambda: sum(map(len, store.applied)) == 5, 10)
        assert len(store.applied) < 5, "five messages, one after the other"
        before = len(store.applied)
        for envelope in envelopes[5:]:
            bus.hand("ledger", _encode(envelope))
        await eventually_async(lambda: sum(map(len, store.applied)) == len(envelopes), 10)
        assert len(store.applied) == before + 1


async def test_what_needs_a_person_while_writing_confirms_nothing() -> None:
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        store.script = [StoreFailedError("42P01: relation stream does not exist", fix="Undo that.")]
        bus.hand("ledger", _encode(message(1)))
        await eventually_async(lambda: ingest.health.state == "failed", 10)
        assert ingest.health.fix == "Undo that."
        assert bus.told(Confirmed) == []
        assert not ingest.receivers["gw"].known("s"), "the collector has to ask again"


async def test_replayed_dead_letters_are_told_to_serve() -> None:
    store = FakeStore()
    store.letters = 2
    async with ingesting(store) as (ingest, bus):
        await eventually_async(lambda: ingest.numbers.open_letters == 2, 10)
        look = Measured(ingest, MetricsSettings())._look()
        assert look.status == "degraded"
        assert "guantong dead-letters" in look.parts["dead_letters"].fix
        store.replays = [[Applied([], Committed(1, 7, [Row(1, 2, 0, 3.0)], [], []), rows=1)]]
        store.letters = 0
        await eventually_async(lambda: ingest.numbers.replayed == 1, 10)
        told = [
            msgspec.msgpack.decode(payload, type=Committed)
            for topic, payload in bus.published
            if "/committed/" in topic
        ]
        assert [row.value for row in told[-1].rows] == [3.0]
        await eventually_async(lambda: ingest.numbers.open_letters == 0, 10)
        assert Measured(ingest, MetricsSettings())._look().parts["dead_letters"].state == "ok"


async def test_who_asks_again_is_answered_once() -> None:
    store = FakeStore()
    store.refuse_lease = 1
    async with ingesting(store) as (ingest, bus):
        await eventually_async(lambda: "lease" in ingest.health.reason, 10)
        for number in range(100):
            bus.hand("sync", _encode(SyncRequest(VERSION, "gw", f"nonce {number}", None, [Held("s", 1, 3, 0)])))
        await eventually_async(lambda: bus.told(SyncAnswer), 15)
        assert [answer.nonce for answer in bus.told(SyncAnswer)] == ["nonce 99"]
