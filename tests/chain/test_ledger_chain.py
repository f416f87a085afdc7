"""Recorder, outbox, bus, ingest and an SQLite store in one process, over real brokers: what is put is stored once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.bus.client import Bus, BusOptions
from gateway.bus.topics import Topics
from gateway.collect.forwarder import Forwarder
from gateway.collect.items import Readings
from gateway.collect.recorder import Recorder
from gateway.config.models import StoreSettings
from gateway.ingest.role import Ingest
from gateway.ledger.opening import open_or_salvage
from gateway.ledger.sender import Sender
from gateway.store import open_reader, open_writer
from schemas.wire import Birth, SignalBirth
from tests.servers.brokers import Mosquitto
from tests.servers.waiting import eventually_async

T0 = 1_800_000_000_000_000


@dataclass
class Collector:
    """A collector without links: what it records is put by the test."""

    folder: Path
    options: BusOptions
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    durable: int = 0
    gateway: str = "gw"
    device: str = "dev"

    def start(self) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.outbox, self.salvaged = open_or_salvage(self.folder / "outbox.sqlite", "power", T0)
        self.outbox.begin()
        bus = Bus(self.options)
        self.sender = Sender(self.outbox, self.gateway)
        self.forwarder = Forwarder(bus, Topics(), self.gateway, self.sender, self.thread, keep_confirmed=600)
        self.recorder = Recorder(
            self.outbox, self.thread, budget=10**9, policy="oldest", now_us=lambda: T0, woken=self.forwarder.wake
        )
        signals = [SignalBirth(i, f"s{i}", "r1", "float64", "V", "measurement", "a") for i in range(10)]
        self.recorder.put_now(Birth(T0, self.device, "a", signals=signals))
        self.tasks = [asyncio.create_task(c) for c in (bus.run(), self.recorder.run(), self.forwarder.run())]

    async def put(self, number: int) -> None:
        def durable() -> None:
            self.durable += 1

        readings = Readings(self.device, "g", T0, [number % 10], [T0 + number], [float(number)])
        await self.recorder.put(readings, durable)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.thread.shutdown()
        self.outbox.close()


@contextlib.asynccontextmanager
async def ingesting(folder: Path, options: BusOptions, holder: str = "ingest") -> AsyncIterator[Ingest]:
    bus = Bus(options)
    settings = StoreSettings()
    ingest: Ingest = Ingest(bus, Topics(), lambda: open_writer(settings, folder, "Asia/Shanghai"), holder=holder)
    tasks = [asyncio.create_task(c) for c in (bus.run(), ingest.run())]
    try:
        yield ingest
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stored(folder: Path) -> list[float]:
    reader = open_reader(StoreSettings(), folder)
    try:
        ids = [signal.id for signal in reader.signals()]
        return sorted(row.value for chunk in reader.history(ids, None, None) for row in chunk)
    finally:
        reader.close()


async def test_everything_put_is_stored_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(tmp_path, options) as ingest:
        for number in range(5000):
            await collector.put(number)
        await eventually_async(lambda: ingest.numbers.rows == 5000, 20)
        await eventually_async(lambda: collector.outbox.streams()[-1].drained, 10)
        assert collector.durable == 5000
    await collector.stop()
    assert stored(tmp_path) == [float(i) for i in range(5000)]


async def test_kills_and_restarts_lose_and_double_nothing(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The broker dies, ingest dies, the collector is restarted, all while readings keep coming."""
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    number = 0

    async def put(many: int) -> None:
        nonlocal number
        for _ in range(many):
            await collector.put(number)
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0.01)

    async with ingesting(tmp_path, options) as ingest:
        await put(500)
        await eventually_async(lambda: ingest.numbers.rows > 0, 10)
        mosquitto.kill()
        await put(500)
        await asyncio.get_running_loop().run_in_executor(None, mosquitto.start)
        await put(500)
    await put(500)  # nobody ingests
    await collector.stop()
    collector = Collector(tmp_path, options)
    collector.start()
    await put(500)
    async with ingesting(tmp_path, options) as ingest:
        await eventually_async(lambda: all(s.drained for s in collector.outbox.streams()), 30)
    await collector.stop()
    assert stored(tmp_path) == [float(i) for i in range(number)]


async def test_a_second_ingest_stands_by_and_takes_over(tmp_path: Path, mosquitto: Mosquitto) -> None:
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(tmp_path, options, "second"):
        async with ingesting(tmp_path, options, "first") as one:
            await collector.put(1)
            await eventually_async(lambda: stored_quietly(tmp_path) == [1.0], 20)
            del one
        await collector.put(2)
        await eventually_async(lambda: stored_quietly(tmp_path) == [1.0, 2.0], 30)
    await collector.stop()


def stored_quietly(folder: Path) -> Any:
    with contextlib.suppress(Exception):
        return stored(folder)
    return None


async def test_another_store_gets_nothing(tmp_path: Path, mosquitto_factory: Callable[..., Mosquitto]) -> None:
    """An outbox belongs to one store; another one that answers confirms nothing and is named."""
    mosquitto = mosquitto_factory()
    options = BusOptions(port=mosquitto.port)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    collector = Collector(tmp_path, options)
    collector.start()
    async with ingesting(tmp_path / "a", options):
        await collector.put(1)
        await eventually_async(lambda: collector.outbox.streams()[-1].confirmed >= 2, 20)
    async with ingesting(tmp_path / "b", options) as other:
        await collector.put(2)
        await eventually_async(lambda: collector.sender.other_store == other.store_id is not None, 20)
        assert not collector.outbox.streams()[-1].drained
    async with ingesting(tmp_path / "a", options):
        await eventually_async(lambda: collector.outbox.streams()[-1].drained, 20)
    await collector.stop()
    assert stored(tmp_path / "a") == [1.0, 2.0]


async def test_confirmed_by_the_broker_is_not_exactly_once_but_stores_what_arrives(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """`bus.confirm: broker`: the broker's acknowledgement frees the outbox, whether or not anybody ingests."""
    options = BusOptions(port=mosquitto.port)
    collector = Collector(tmp_path, options)
    collector.start()
    collector.sender.by_broker = True
    for number in range(20):
        await collector.put(number)
    await eventually_async(lambda: collector.outbox.streams()[-1].high and collector.outbox.streams()[-1].drained, 20)
    async with ingesting(tmp_path, options):
        for number in range(20, 40):
            await collector.put(number)
        # what the broker took before anybody listened is still in the outbox and comes by replay
        await eventually_async(lambda: stored_quietly(tmp_path) == [float(i) for i in range(40)], 30)
    await collector.stop()
