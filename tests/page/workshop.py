"""A workshop of twelve devices whose last eight hours have outages, gaps, bad and uncertain readings, and which goes on living."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.api.role import Serve
from schemas.wire import AssetBirth, Birth, Cause, Done, Event, Gap, Link, Progress, SignalBirth
from tests.api.conftest import started
from tests.api.shop import ASSETS, SECOND, T0, Shop, imm, meter

HOUR = 3600
BAD_DEVICE_FAILURE = 0x808B0000
UNCERTAIN_LAST_USABLE = 0x40900000
NAMES = [
    ("press-01", "压铸机一号", "Die-casting press 1"),
    ("press-02", "压铸机二号", "Die-casting press 2"),
    ("cnc-01", "加工中心一号", "Machining centre 1"),
    ("cnc-02", "加工中心二号", "Machining centre 2"),
    ("sew-01", "缝纫线一号", "Sewing line 1"),
    ("sew-02", "缝纫线二号", "Sewing line 2"),
    ("boiler", "蒸汽锅炉", "Steam boiler"),
    ("air-01", "空压机一号", "Air compressor 1"),
    ("air-02", "空压机二号", "Air compressor 2"),
    ("chiller", "冷水机", "Water chiller"),
]


def now_us() -> int:
    """The real time in µs."""
    return time.time_ns() // 1000


def other(number: int, device: str, zh: str, en: str, at: int) -> Birth:
    """A Modbus device with three signals, points 100, 101, 102 for number 0, and so on."""
    point = 100 + 10 * number
    signals = [
        SignalBirth(
            point, "temperature", "r1", "float32", "Cel", "measurement", "hall-1",
            description_zh="模具温度", description_en="Mould temperature",
        ),
        SignalBirth(
            point + 1, "pressure", "r1", "float32", "bar", "measurement", "hall-1",
            description_zh="液压压力", description_en="Hydraulic pressure",
        ),
        SignalBirth(
            point + 2, "parts", "r1", "uint32", "1", "counter", "hall-1", description_zh="产量", description_en="Parts made",
        ),
    ]  # fmt: skip
    return Birth(
        at=at, device=device, asset="hall-1", name_zh=zh, name_en=en, protocol="modbus", profile="any",
        endpoint=f"192.168.1.{40 + number}:502/1", assets=ASSETS[:2], signals=signals,
    )  # fmt: skip


class Workshop:
    """A shop that is filled around the present, and told of new readings for as long as `living` lasts."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder)
        self.start = now_us()
        self.at = (self.start - T0) / SECOND
        """Now, in seconds after T0."""
        self.devices = ["imm-01", *(name for name, _, _ in NAMES)]

    def ago(self, seconds: float) -> int:
        """That long ago, in µs."""
        return self.start - round(seconds * SECOND)

    def fill(self) -> None:
        """Nine hours of history: imm-01 was away 40 to 30 minutes ago and its temperature is bad 20 to 15 minutes ago; meter-01 is away."""
        shop = self.shop
        born = self.ago(9 * HOUR)
        shop.feed.at = self.start
        more = SignalBirth(
            4, "oil/temperature", "r1", "float64", "Cel", "measurement", "imm",
            description_zh="油温", description_en="Oil temperature",
        )  # fmt: skip
        births = [imm(more, at=born), meter(at=born)]
        births += [other(number, *names, at=born) for number, names in enumerate(NAMES)]
        shop.commit(*births, tell=False)
        rows: list[tuple[Any, ...]] = []
        for step in range(9 * HOUR, -1, -20):
            at = self.at - step
            wave = step / 300
            away = 30 * 60 <= step < 40 * 60
            if not away:
                rows.append((1, at, round(24 + 2 * math.sin(wave), 3)))
                rows.append((2, at, 5000 - step // 20))
                if 15 * 60 < step <= 20 * 60:
                    rows.append((4, at, None, BAD_DEVICE_FAILURE)) if step == 20 * 60 else None
                else:
                    rows.append(
                        (4, at, round(52 + 6 * math.cos(wave / 3), 3), UNCERTAIN_LAST_USABLE if step < 200 else 0)
                    )
            if step > 7 * 60:
                rows.append((11, at, round(12 + 4 * math.sin(wave / 2), 3)))
        rows.append((3, self.at - 8 * HOUR, 1))
        for number in range(len(NAMES)):
            point = 100 + 10 * number
            for step in range(9 * HOUR, -1, -300):
                rows.append((point, self.at - step, round(180 + 9 * math.sin(step / 700 + number), 1)))
                rows.append((point + 1, self.at - step, round(95 + 4 * math.cos(step / 500 + number), 2)))
            rows.append((point + 2, self.at - 30, 1200 + 317 * number))
        rows.sort(key=lambda row: row[1])
        for first in range(0, len(rows), 4000):
            shop.rows(*rows[first : first + 4000], tell=False)
        shop.commit(
            Link("imm-01", False, self.ago(40 * 60), "timeout"), Link("imm-01", True, self.ago(30 * 60), ""), tell=False
        )
        shop.commit(
            [Gap("press-01", [100], self.ago(3 * HOUR), self.ago(3 * HOUR - 240), Cause.OVERRUN, 12, "")], tell=False
        )
        shop.commit(
            [Gap(None, None, self.ago(6 * HOUR), self.ago(6 * HOUR - 600), Cause.COLLECTOR_DOWN, None, "")], tell=False
        )
        for minutes, severity, kind, zh, en in (
            (100, 100, "cycle_finished", "周期完成", "Cycle finished"),
            (55, 600, "alarm", "油温偏高", "Oil temperature high"),
            (12, 900, "alarm", "安全门打开", "Safety gate open"),
        ):
            shop.commit(
                [
                    Event(
                        f"e{minutes}",
                        self.ago(minutes * 60),
                        None,
                        "imm",
                        "imm-01",
                        kind,
                        severity,
                        zh,
                        en,
                        {"count": minutes},
                    )
                ],
                tell=False,
            )
        known = Progress(self.ago(7 * 60), [Done("meter-01", "default", self.ago(7 * 60))])
        shop.commit(known, tell=False)
        self.progress(0, tell=False)
        shop.commit(Link("meter-01", False, self.ago(7 * 60), "gateway_no_answer"), tell=False)

    def progress(self, seconds: float, *, tell: bool = True) -> None:
        """Everything of the connected devices is known up to then."""
        at = T0 + round((self.at + seconds) * SECOND)
        done = [Done(device, "default", at) for device in self.devices]
        self.shop.commit(Progress(at, done), tell=tell)

    @contextlib.asynccontextmanager
    async def living(self, port: int = 0) -> AsyncIterator[Serve]:
        """A server over it, with the real clock; readings come three times a second."""
        async with started(self.shop, port=port, now_us=now_us, monotonic=time.monotonic) as serve:
            task = asyncio.create_task(self._live())
            try:
                yield serve
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _live(self) -> None:
        count = 5000
        while True:
            seconds = (now_us() - self.start) / SECOND
            at = self.at + seconds
            count += 1
            self.shop.feed.at = now_us() - SECOND
            self.shop.rows(
                (1, at, round(24 + math.sin(seconds), 3)),
                (2, at, count),
                (100, at, round(180 + 3 * math.sin(seconds), 1)),
            )
            self.progress(seconds)
            await asyncio.sleep(0.3)


def many(folder: Path, count: int) -> Workshop:
    """A workshop of one more device with `count` signals, points 10000 and up."""
    made = Workshop(folder)
    born = made.ago(HOUR)
    made.shop.feed.at = made.start
    signals = [
        SignalBirth(10_000 + n, f"zone-{n // 50:02}/value-{n:04}", "r1", "float64", "Cel", "measurement", "big")
        for n in range(count)
    ]
    asset = AssetBirth("big", "大设备", "Big machine", None, "site")
    birth = Birth(
        at=born, device="big-01", asset="big", name_zh="大设备", name_en="Big machine", assets=[asset], signals=signals
    )
    made.shop.commit(birth, tell=False)
    made.devices = ["big-01"]
    made.shop.rows(*((10_000 + n, made.at - 1, float(n)) for n in range(count)), tell=False)
    made.progress(0, tell=False)
    return made
