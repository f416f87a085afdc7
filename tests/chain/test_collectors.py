"""Cloned boxes, several collectors, another store, a store from an older backup, a damaged outbox: what is stored in the end."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.bus.client import BusOptions
from gateway.config.models import StoreSettings
from gateway.store import open_reader
from schemas.wire import Cause
from tests.chain.test_ledger_chain import Collector, ingesting, stored, stored_quietly
from tests.servers.brokers import Mosquitto
from tests.servers.waiting import eventually_async


async def confirmed(collector: Collector) -> None:
    """Everything that was put is in the store."""
    await collector.recorder.commit()
    await eventually_async(lambda: all(s.drained for s in collector.outbox.streams()), 30)


def copied(source: Path, target: Path, *names: str) -> None:
    """Files of a process that has ended."""
    target.mkdir()
    for name in names:
        for file in source.glob(f"{name}*"):
            shutil.copy(file, target / file.name)


async def test_two_collectors_with_one_id_are_both_stored_and_both_say_so(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cloned memory card: the same id, the same outbox, two boxes."""
    monkeypatch.setattr("gateway.ledger.sender.TWIN_AFTER", 0.5)
    options = BusOptions(port=mosquitto.port)
    (tmp_path / "one").mkdir()
    one = Collector(tmp_path / "one", options)
    one.start()
    await one.put(1)
    await one.recorder.commit()
    await one.stop()  # not stored yet: the clone has it too
    copied(tmp_path / "one", tmp_path / "two", "outbox.sqlite")
    one, two = Collector(tmp_path / "one", options), Collector(tmp_path / "two", options)
    one.start()
    two.start()
    number = 10
    async with ingesting(tmp_path, options):

        async def named() -> bool:
            nonlocal number
            await one.put(number)
            await two.put(number + 1)
            number += 2
            return one.sender.twin is not None and two.sender.twin is not None

        await eventually_async(named, 30)
        assert one.sender.twin == two.outbox.current
        assert two.sender.twin == one.outbox.current
        await confirmed(one)
        await confirmed(two)
        await eventually_async(lambda: "another collector uses the gateway id gw" in caplog.text)
    await one.stop()
    await two.stop()
    assert stored(tmp_path) == [1.0, *(float(i) for i in range(10, number))], "both, and what both had once"


async def test_a_twin_that_is_gone_is_forgotten_and_an_own_old_stream_is_none(tmp_path: Path) -> None:
    from gateway.ledger.outbox import Outbox
    from gateway.ledger.sender import TWIN_AFTER, TWIN_GONE, Sender
    from schemas.wire import Confirmed, Hello, Mark

    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.begin()
    outbox.pin("store")
    sender = Sender(outbox, "gw")
    sender.connected(0.0)
    sender._ingest, sender._nonce = "i", None

    def hear(stream: str, now: float) -> None:
        sender.receive(Confirmed(1, "store", "i", Mark(stream, 1)), now)

    hear("other", 0.0)
    assert sender.twin is None, "one alone may be of the process before"
    hear("other", TWIN_AFTER)
    assert sender.twin == "other"
    sender.poll(TWIN_AFTER + TWIN_GONE + 1)
    assert sender.twin is None
    old = outbox.current
    outbox.rehome(old)
    hear(old, 100.0)
    hear(old, 100.0 + TWIN_AFTER)
    assert sender.twin is None
    sender.receive(Hello(1, "store", "i"), 0.0)


async def test_several_collectors_fill_one_store(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    collectors = []
    for name in ("north", "south", "west"):
        (tmp_path / name).mkdir()
        collectors.append(Collector(tmp_path / name, options, gateway=name, device=f"dev-{name}"))
    async with ingesting(tmp_path, options) as ingest:
        for collector in collectors:
            collector.start()
        for number in range(300):
            await collectors[number % 3].put(number)
        for collector in collectors:
            await confirmed(collector)
        assert {name for name, _ in ingest.receivers.items()} == {"north", "south", "west"}
        assert all(collector.sender.twin is None for collector in collectors)
    for collector in collectors:
        await collector.stop()
    assert stored(tmp_path) == [float(i) for i in range(300)]


async def test_a_store_that_is_adopted_gets_all_that_the_outbox_still_holds(
    tmp_path: Path, mosquitto_factory: Callable[..., Mosquitto]
) -> None:
    """Also what the store before had confirmed and is kept; and the store before keeps what it has."""
    options = BusOptions(port=mosquitto_factory().port)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(tmp_path / "a", options):
        for number in range(50):
            await collector.put(number)
        await confirmed(collector)
    await collector.put(50)
    await collector.recorder.commit()
    await collector.stop()
    async with ingesting(tmp_path / "b", options) as other:
        await eventually_async(lambda: other.store_id is not None, 20)
        collector = Collector(tmp_path, options)
        collector.start()
        await eventually_async(lambda: collector.sender.other_store == other.store_id, 20)
        await collector.stop()
        collector = Collector(tmp_path, options)
        collector.start()
        assert other.store_id is not None
        collector.outbox.pin(other.store_id)  # what `guantong ledger adopt` does, between two runs
        await eventually_async(lambda: stored_quietly(tmp_path / "b") == [float(i) for i in range(51)], 30)
        await collector.stop()
    assert stored(tmp_path / "a") == [float(i) for i in range(50)]


async def test_a_store_from_an_older_backup_is_filled_again(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    store, backup = tmp_path / "store", tmp_path / "backup"
    store.mkdir()
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(store, options):
        for number in range(30):
            await collector.put(number)
        await confirmed(collector)
    copied(store, backup, "store.sqlite")
    async with ingesting(store, options):
        for number in range(30, 60):
            await collector.put(number)
        await confirmed(collector)
    for file in store.glob("store.sqlite*"):
        file.unlink()
    for file in backup.iterdir():
        shutil.copy(file, store / file.name)
    assert stored(store) == [float(i) for i in range(30)]
    async with ingesting(store, options):
        await eventually_async(lambda: stored_quietly(store) == [float(i) for i in range(60)], 30)
        await collector.put(60)
        await confirmed(collector)
    await collector.stop()
    assert stored(store) == [float(i) for i in range(61)]


async def test_a_damaged_outbox_is_stored_but_for_what_is_a_gap(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    for number in range(40):
        await collector.put(number)
        await collector.recorder.commit()
    await collector.stop()
    db = sqlite3.connect(tmp_path / "outbox.sqlite")
    places = [row[0] for row in db.execute("SELECT seq FROM message WHERE kind = 2 ORDER BY seq")]
    torn = places[10:13]
    db.execute(f"UPDATE message SET body = x'c0' WHERE seq IN ({', '.join('?' * len(torn))})", torn)
    db.commit()
    db.close()
    collector = Collector(tmp_path, options)
    collector.start()
    assert collector.salvaged is not None
    assert collector.salvaged.lost == 3
    async with ingesting(tmp_path, options):
        await confirmed(collector)
    await collector.stop()
    assert stored(tmp_path) == [float(i) for i in range(40) if i not in (10, 11, 12)]
    reader = open_reader(StoreSettings(), tmp_path)
    try:
        lost = [gap for gap in reader.gaps() if gap.cause == Cause.LOST]
    finally:
        reader.close()
    assert len(lost) == 1
    assert lost[0].device == "dev"
