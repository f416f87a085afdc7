"""What ingest hands to the store: one step of a stream's watermark, with what is to be written for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.wire import Batch, Birth, Cause, Closed, Committed, Event, Gap, Link, Mark, Progress, Tombstone

Body = Batch | Birth | Link | list[Event] | list[Gap] | Progress | Closed | Tombstone


@dataclass(frozen=True, slots=True)
class Step:
    """Moves `stream` from watermark `first - 1` to `last`; `hash` (32 bytes) is the chain's hash after it.

    `body` is what is written with it. Without a body, `gap` says what is recorded instead: `lost` or `undecodable` (nothing is
    held any more of first..last, or nothing that can be read). `gap` beside a body is `fork`: written, and an alarm.
    `poison` (with `raw`, and `kind` and `enc` as its envelope gave them) is a body that could not be decoded: a dead-letter row in
    place of it.
    `at` is ingest's time (µs) when it arrived.
    """

    gateway: str
    stream: str
    first: int
    last: int
    hash: bytes
    at: int
    body: Body | None = None
    gap: Cause | None = None
    detail: str = ""
    poison: str | None = None
    raw: bytes | None = None
    kind: int | None = None
    enc: int | None = None


@dataclass(slots=True)
class Applied:
    """What one transaction did."""

    marks: list[Mark]
    committed: Committed
    rows: int = 0
    duplicates: int = 0
    late: int = 0
    dead_letters: int = 0
    problems: list[str] = field(default_factory=list)
    """What a person should see: a fork, a device id owned by another gateway, a poison body."""


class StoreError(Exception):
    """Base of what the store raises towards ingest; `fix` says what a person can do."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class StoreWeatherError(StoreError):
    """Connection lost, locked, disk full, shutting down, out of resources: try again for ever, nothing was committed."""


class LeaseLostError(StoreError):
    """Another ingest holds the store's lease: stop writing, nothing was committed."""


class WatermarkError(StoreError):
    """The watermark in the store is not where the step says (another writer, a restored store): ask `marks` again."""


class StoreFailedError(StoreError):
    """Anything else: visible, nothing confirmed."""


__all__ = [
    "Applied",
    "Body",
    "LeaseLostError",
    "Step",
    "StoreError",
    "StoreFailedError",
    "StoreWeatherError",
    "WatermarkError",
]
