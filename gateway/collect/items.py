"""What collect writes to the ledger, before it is given stream-local numbers: the sink translates plan indices to points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.wire import Event, Extra, Gap, Link, Progress, State


@dataclass(slots=True)
class Readings:
    """Normalised readings of one device and group as columns of equal length, never empty.

    `points` are plan indices (`PlannedSignal.index`), `ts` µs UTC, `values` None where bad, `status` unsigned StatusCodes, `flags`
    `schemas.wire.Flag`; a column that is None means 0 in each row. `extra` by row. `received`: when they arrived (µs).
    """

    device: str
    group: str
    received: int
    points: list[int]
    ts: list[int]
    values: list[Any]
    status: list[int] | None = None
    flags: list[int] | None = None
    n: list[int] | None = None
    extra: dict[int, Extra] | None = None

    def __len__(self) -> int:
        return len(self.points)


@dataclass(slots=True)
class Events:
    """Events, of a device or about it."""

    events: list[Event]


@dataclass(slots=True)
class Gaps:
    """Gaps; their `points` are plan indices."""

    gaps: list[Gap]


Item = Readings | Link | Events | Gaps | Progress
"""A `Link` is a device that came or went; a `Progress` holds the latest `complete_to` of each (device, group) that moved."""


class Sink(Protocol):
    """Where the items go: the outbox. One order for all of them, that of the calls."""

    async def put(self, item: Item, on_durable: Callable[[], None] | None = None) -> None:
        """Takes an item; waiting is back-pressure. `on_durable` is called once, from the same event loop, when the item would
        survive what the outbox is configured to survive; never if the process ends before."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """How a device is, for people: `guantong devices`, `status/{device}` and the API. `since` in µs."""

    device: str
    state: State
    since: int
    reason: str = ""
    fix_en: str = ""
    fix_zh: str = ""
    troubles: dict[str, str] = field(default_factory=dict)
    """Signal, or `event NAME`, -> what is wrong with it."""
