"""Without the lease an ingest holds nothing, and it asks anew when it has it again."""

from __future__ import annotations

import msgspec

from gateway.ledger.steps import LeaseLostError
from schemas.wire import Hello, SyncAnswer
from tests.ingest.test_role import FakeStore, chain, ingesting, synced
from tests.servers.waiting import eventually_async

_encode = msgspec.msgpack.encode


async def test_what_was_held_under_a_lost_lease_is_forgotten() -> None:
    """Another ingest may have written meanwhile: collectors say again where they are."""
    store = FakeStore()
    async with ingesting(store) as (ingest, bus):
        await synced(ingest, bus)
        one, two, _ = chain(3)
        store.script = [LeaseLostError("another ingest has it")]
        bus.hand("ledger", _encode(one))
        await eventually_async(lambda: store.leases == 2 and ingest.health.state == "ok", 10)
        greeted = len(bus.told(Hello))
        bus.hand("ledger", _encode(two))
        await eventually_async(lambda: ingest.receivers["gw"].numbers.unknown > 0, 10)
        assert store.applied == []
        assert greeted > 0
        answers = len(bus.told(SyncAnswer))
        await synced(ingest, bus)
        await eventually_async(lambda: len(bus.told(SyncAnswer)) > answers, 10)
        for message in (one, two):
            bus.hand("ledger", _encode(message))
        await eventually_async(lambda: [s.last for steps in store.applied for s in steps] == [1, 2], 10)
