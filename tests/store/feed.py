"""A collector as the store sees it: steps of a stream, numbered and chained."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.ledger.steps import Body, Step
from schemas.wire import ZERO_HASH, Batch, Birth, Cause, Done, Event, Extra, Link, Progress, SignalBirth

T0 = 1_760_000_000_000_000
"""2025-10-09T08:53:20Z in µs."""
SECOND = 1_000_000


def signal(point: int, name: str, **more: Any) -> SignalBirth:
    given = {"revision": "r1", "type": "float64", "unit": "Cel", "kind": "measurement", "asset": "press"} | more
    return SignalBirth(point=point, name=name, **given)


def birth(device: str = "press", *signals: SignalBirth, at: int = T0 - 10 * SECOND, **more: Any) -> Birth:
    return Birth(at=at, device=device, asset=more.pop("asset", "press"), signals=list(signals), **more)


def event(id: str, ts: int = T0, device: str = "press", **more: Any) -> Event:
    return Event(
        id=id, ts=ts, source_ts=None, asset="press", device=device, type=more.pop("type", "alarm"), severity=500, **more
    )


class Feed:
    """Makes the steps of one stream."""

    def __init__(self, stream: str = "s1", gateway: str = "line1") -> None:
        self.stream = stream
        self.gateway = gateway
        self.seq = 0
        self.hash = ZERO_HASH
        self.at = T0

    def step(self, body: Body | None = None, *, count: int = 1, **more: Any) -> Step:
        first, self.seq = self.seq + 1, self.seq + count
        self.hash = hashlib.sha256(self.hash + str(self.seq).encode()).digest()
        self.at += SECOND
        return Step(self.gateway, self.stream, first, self.seq, self.hash, self.at, body, **more)

    def birth(self, *signals: SignalBirth, device: str = "press", **more: Any) -> Step:
        return self.step(birth(device, *signals, **more))

    def rows(self, *rows: tuple[Any, ...], extra: dict[int, Extra] | None = None) -> Step:
        """Rows (point, seconds after T0, value[, status[, flags[, n]]])."""
        full = [(*row, *(0, 0, 0)[len(row) - 3 :]) for row in rows]
        points, offsets, values, status, flags, n = (list(column) for column in zip(*full, strict=True))
        return self.step(
            Batch(T0, points, [round(offset * SECOND) for offset in offsets], values, status, flags, n, extra)
        )

    def done(self, seconds: float, group: str = "default", device: str = "press") -> Step:
        return self.step(Progress(self.at, [Done(device, group, T0 + round(seconds * SECOND))]))

    def link(self, up: bool, seconds: float, device: str = "press", reason: str = "") -> Step:
        return self.step(Link(device, up, T0 + round(seconds * SECOND), reason))

    def lost(self, count: int, cause: Cause = Cause.LOST) -> Step:
        return self.step(None, count=count, gap=cause)
