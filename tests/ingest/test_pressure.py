"""A store that is slow, or stands: what waits, waits in the outbox, and ingest holds no more than the sender's window."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

from gateway.bus.client import BusOptions
from gateway.collect.items import Readings
from gateway.config.models import StoreSettings
from gateway.ingest.metrics import IngestMetrics
from gateway.ledger.receiver import Receiver
from gateway.ledger.sender import WINDOW_BYTES, WINDOW_MESSAGES
from gateway.store import open_reader
from schemas.wire import ZERO_HASH, Batch, Envelope, Held, Kind, Mark
from tests.chain.test_ledger_chain import T0, Collector, ingesting
from tests.ingest.test_role import _encode
from tests.servers.brokers import Mosquitto
from tests.servers.waiting import eventually_async

TEXT = 20_000
MANY = 1_200
"""So many texts are 24 MB, three times the window."""
_random = random.Random(1)


async def test_a_store_that_stands_costs_the_outbox_room_and_ingest_none(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(tmp_path, options) as ingest:
        await collector.put(0)
        await eventually_async(lambda: ingest.numbers.rows == 1, 20)
        with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(1, MANY):
                readings = Readings("dev", "g", T0, [number % 10], [T0 + number], [_random.randbytes(TEXT // 2).hex()])
                await collector.recorder.put(readings, lambda: None)
            (stream,) = collector.outbox.streams()
            await eventually_async(lambda: stream.high >= MANY // 4, 20, what="everything is in the outbox")
            await eventually_async(lambda: collector.sender.numbers.sent > 50, 20, what="the window is sent")
            (receiver,) = ingest.receivers.values()
            assert ingest.numbers.rows == 1
            assert receiver.held <= 2 * WINDOW_MESSAGES
            assert receiver.held_bytes <= 2 * WINDOW_BYTES
            assert receiver.held_bytes < MANY * TEXT / 2, "and the rest is not here"
            assert stream.high - stream.confirmed > WINDOW_MESSAGES
            metrics = {family.name for family in IngestMetrics(ingest).collect()}
            assert {"guantong_ingest_held_messages", "guantong_ingest_held_bytes"} <= metrics
            other.execute("ROLLBACK")
        await eventually_async(lambda: ingest.numbers.rows >= MANY and stream.drained, 40, what="all is stored")
        assert (receiver.held, receiver.held_bytes) == (0, 0)
        assert ingest.numbers.rows == MANY
        assert ingest.numbers.duplicates == 0
    await collector.stop()
    reader = open_reader(StoreSettings(), tmp_path)
    rows = [row for piece in reader.history([signal.id for signal in reader.signals()]) for row in piece]
    reader.close()
    assert sorted(row.ts - T0 for row in rows) == list(range(MANY))


def test_a_receiver_holds_no_more_than_twice_the_window_whatever_comes() -> None:
    """Also where a collector says that it holds nothing below, and sends on and on."""
    receiver = Receiver("gw")
    receiver.learn([Held("s", 1, 10**6)], [Mark("s", 0)])
    body = _encode(Batch(1, [1], [0], [1.0]))
    for seq in range(2, 5_000):
        low = 1 if seq < 2_500 else seq - 10
        payload = _encode(Envelope(1, Kind.READINGS, "s", seq, seq, low, ZERO_HASH, 0, body))
        assert receiver.offer(payload, seq, 0.0)
    assert receiver.held <= 2 * WINDOW_MESSAGES
    assert receiver.numbers.beyond_window > 4_000
    assert receiver.wanted() == [("s", 1)]
    assert receiver.take(10_000, 1) == []
    receiver.offer(_encode(Envelope(1, Kind.READINGS, "s", 1, 1, 1, ZERO_HASH, 0, body)), 1, 0.0)
    assert [step.last for step in receiver.take(10_000, 1)] == list(range(1, 2 + 2 * WINDOW_MESSAGES))
