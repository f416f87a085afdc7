"""A small workshop in a real SQLite store, a bus that is only memory, and a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.bus.client import Health as BusHealth
from gateway.bus.client import Numbers as BusNumbers
from gateway.bus.topics import Topics
from gateway.config.models import StoreSettings
from gateway.ledger.steps import Applied, Body, Step
from gateway.store import Reader, Writer, open_reader, open_writer
from schemas.wire import AssetBirth, Birth, SignalBirth
from tests.store.feed import SECOND, T0, Feed

ZONE = "Asia/Shanghai"
__all__ = ["SECOND", "T0", "ZONE", "Clock", "FakeBus", "Feed", "Shop", "imm", "meter"]

ASSETS = [
    AssetBirth("plant", "深圳工厂", "Shenzhen plant", None, "site"),
    AssetBirth("hall-1", "一车间", "Hall 1", "plant", "area"),
    AssetBirth("imm", "注塑机", "Injection machine", "hall-1", "machine"),
]


class FakeBus:
    """What `gateway.bus.client.Bus` offers to serve; messages are delivered by the test."""

    def __init__(self) -> None:
        self.on_connected: list[Callable[[], None]] = []
        self.handlers: list[tuple[str, Callable[[str, bytes], None]]] = []
        self.health = BusHealth("ok")
        self.numbers = BusNumbers()
        self.connected = True

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        self.handlers.append((topic_filter, handler))

    def connect(self) -> None:
        for callback in self.on_connected:
            callback()

    def deliver(self, topic: str, payload: bytes) -> None:
        for _, handler in self.handlers:
            handler(topic, payload)

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Clock:
    """Wall clock (µs) and monotonic clock (s), which move together and only when told."""

    us: int = T0
    seconds: float = 1000.0

    def now(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.us += round(seconds * SECOND)
        self.seconds += seconds


def imm(*more: SignalBirth, at: int = T0 - 10 * SECOND) -> Birth:
    """The injection machine: three signals, points 1 to 3."""
    return Birth(
        at=at, device="imm-01", asset="imm", name_zh="注塑机一号", name_en="Injection machine 1", protocol="opcua",
        profile="euromap77-injection", endpoint="opc.tcp://192.168.1.20:4840", identity={"maker": "Haitian", "serial": "7"},
        assets=ASSETS,
        signals=[
            SignalBirth(
                1, "cycle/last_time", "r1", "float64", "s", "measurement", "imm", description_zh="上一周期时间",
                description_en="Time of the last cycle", address="nsu=urn:x;s=Last", range=(0.0, 600.0),
            ),
            SignalBirth(
                2, "cycle/count", "r1", "uint64", "1", "counter", "imm", description_zh="周期计数",
                description_en="Cycles", address="nsu=urn:x;s=Count", counter={"counts": "cycle", "per_count": 1.0},
            ),
            SignalBirth(
                3, "mode", "r1", "int32", "", "state", "imm", description_zh="运行模式", description_en="Mode",
                address="nsu=urn:x;s=Mode", enum={0: ("其他", "Other"), 1: ("自动", "Automatic"), 2: ("手动", "Manual")},
            ),
            *more,
        ],
    )  # fmt: skip


def meter(at: int = T0 - 10 * SECOND) -> Birth:
    """The energy meter of hall 1: point 11."""
    return Birth(
        at=at, device="meter-01", asset="hall-1", name_zh="电表一号", name_en="Meter 1", protocol="modbus",
        profile="eastron-sdm630", endpoint="192.168.1.30:502/1", assets=ASSETS[:2],
        signals=[
            SignalBirth(
                11, "power/total", "r1", "float32", "kW", "measurement", "hall-1", description_zh="总有功功率",
                description_en="Total active power", address="input 52 float32",
            )
        ],
    )  # fmt: skip


@dataclass
class Shop:
    """The store with its writer and reader, and what ingest would do."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    bus: FakeBus = field(default_factory=FakeBus)
    feed: Feed = field(default_factory=Feed)
    topics: Topics = field(default_factory=Topics)

    def __post_init__(self) -> None:
        self.settings = StoreSettings()
        self.writer: Writer = open_writer(self.settings, self.folder, ZONE)
        assert self.writer.acquire("ingest-1", 3600)
        self.reader: Reader = open_reader(self.settings, self.folder)

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    def commit(self, *bodies: Body | Step, tell: bool = True) -> Applied:
        """One transaction; with `tell` the bus brings word of it, as ingest would send it."""
        steps = [body if isinstance(body, Step) else self.feed.step(body) for body in bodies]
        applied = self.writer.apply(steps)
        if tell:
            self.tell(applied)
        return applied

    def tell(self, applied: Applied) -> None:
        topic = self.topics.committed(self.writer.store_id)
        self.bus.deliver(topic, msgspec.msgpack.encode(applied.committed))

    def rows(self, *rows: tuple[Any, ...], tell: bool = True) -> Applied:
        """Rows (point, seconds after T0, value[, status[, flags[, n]]])."""
        return self.commit(self.feed.rows(*rows), tell=tell)

    def fill(self, births: Sequence[Birth] = ()) -> None:
        """Births, a few readings, progress, without telling the bus."""
        self.commit(*(births or (imm(), meter())), tell=False)
        self.rows((1, 0, 23.5), (2, 0, 100), (3, 0, 1), (11, 0, 12.25), tell=False)
        self.commit(self.feed.done(1, device="imm-01"), self.feed.done(1, device="meter-01"), tell=False)


def move_stamps(feed: Feed, clock: Clock) -> None:
    """Ingest's time of the next step is the clock's."""
    feed.at = clock.us - SECOND
