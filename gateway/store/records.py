"""What the store's reader gives back. Times are µs since the epoch, UTC; `None` as an end means: it goes on."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from schemas.wire import Done, Row


class Reading(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A stored reading. `status` is an OPC UA StatusCode (0 Good), `flags` are those of `schemas.wire.Flag`.

    `source_ts` is the device's own time where `ts` is not it; `raw` what arrived where it is not the value.
    """

    signal: int
    ts: int
    n: int
    value: Any
    status: int = 0
    flags: int = 0
    source_ts: int | None = None
    raw: Any = None


class Connection(msgspec.Struct, frozen=True):
    """An interval in which a device was not connected."""

    id: int
    device: str
    start: int
    end: int | None
    reason: str


class Snapshot(msgspec.Struct, frozen=True):
    """The state of the store at one commit: `rows` has the newest row of each signal that has one."""

    store: str
    epoch: int
    commit_no: int
    rows: list[Row]
    connections: list[Connection]
    progress: list[Done]


class AssetRecord(msgspec.Struct, frozen=True):
    id: str
    gateway: str
    name_zh: str
    name_en: str
    parent: str | None
    level: str


class DeviceRecord(msgspec.Struct, frozen=True):
    """A device; `born_at` is its first birth's time, `changed_at` its last one's."""

    id: str
    gateway: str
    asset: str
    name_zh: str
    name_en: str
    protocol: str
    profile: str
    endpoint: str
    identity: dict[str, str] | None
    retired: bool
    born_at: int
    changed_at: int


class Revision(msgspec.Struct, frozen=True):
    """What a signal's numbers mean from `valid_from` on. `enum` maps a number to its texts (zh, en)."""

    valid_from: int
    revision: str
    type: str
    unit: str
    kind: str
    scale: float
    offset: float
    address: str
    enum: dict[int, tuple[str, str]] | None = None
    counter: dict[str, Any] | None = None


class SignalRecord(msgspec.Struct, frozen=True):
    """A signal as it is now, and its revisions, the oldest first."""

    id: int
    device: str
    name: str
    asset: str
    group: str
    revision: str
    type: str
    unit: str
    kind: str
    description_zh: str
    description_en: str
    semantic_id: str | None
    range: tuple[float, float] | None
    deadband: dict[str, float] | None
    silence: float | None
    retired: bool
    born_at: int
    retired_at: int | None = None
    revisions: list[Revision] = msgspec.field(default_factory=list)

    @property
    def enum(self) -> dict[int, tuple[str, str]] | None:
        """The texts of the current revision."""
        return self.revisions[-1].enum if self.revisions else None

    @property
    def counter(self) -> dict[str, Any] | None:
        """The counter semantics of the current revision."""
        return self.revisions[-1].counter if self.revisions else None


class Bucket(msgspec.Struct, frozen=True):
    """What one signal did in [start, end). See `gateway.store.buckets` for the definition of each number.

    The numbers are None where there is no numeric value; `covered` is the time (µs) in which the value was known.
    """

    start: int
    end: int
    good: int = 0
    uncertain: int = 0
    bad: int = 0
    min: float | None = None
    max: float | None = None
    first: float | None = None
    first_ts: int | None = None
    last: float | None = None
    last_ts: int | None = None
    sum: float | None = None
    average: float | None = None
    covered: int = 0


class EventRecord(msgspec.Struct, frozen=True):
    """An event; `no` numbers the events in the order of their commits."""

    no: int
    id: str
    ts: int
    source_ts: int | None
    gateway: str
    asset: str
    device: str
    type: str
    severity: int
    message_zh: str
    message_en: str
    fields: dict[str, Any]
    condition: str | None
    state: str | None
    flags: int


class GapRecord(msgspec.Struct, frozen=True):
    """What is missing. `signals` None: all of the device; `device` None: all devices of the gateway. Bounds inclusive."""

    id: int
    gateway: str
    device: str | None
    signals: list[int] | None
    start: int
    end: int | None
    cause: str
    count: int | None
    detail: str
    stream: str
    seq: int


class StreamRecord(msgspec.Struct, frozen=True):
    """A stream of the ledger; `lost` counts the numbers that never arrived, `gaps` the gaps that came with it."""

    id: str
    gateway: str
    watermark: int
    opened_at: int
    seen_at: int
    closed_at: int | None
    lost: int
    gaps: int


LetterState = Literal["waiting", "requested", "replayed", "discarded"]
"""Of a dead letter: nobody has decided yet; ingest shall replay it; it is stored now; it never will be."""


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be stored; `raw` is MessagePack of it, or the bytes as they came.

    `kind` is that of its message (`schemas.wire.Kind`), 0 for a single stored row (`schemas.wire.Row`), None where it is not known;
    `enc` is the encoding of `raw`. `note` says why a replay failed, what it stored, or why the letter was discarded.
    """

    id: int
    at: int
    gateway: str
    stream: str
    seq: int
    reason: str
    count: int
    raw: bytes
    kind: int | None = None
    enc: int | None = None
    state: LetterState = "waiting"
    settled_at: int | None = None
    note: str = ""
