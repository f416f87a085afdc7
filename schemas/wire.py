"""What travels on the bus. The ledger's messages are MessagePack arrays; the courtesy topics carry JSON objects.

An `Envelope` is decoded before its body, and the body is kept as the bytes that the outbox stored: its hash chain (SHA-256) makes a
fork or a later change visible. The rules are in docs/wire-format.md.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Any, Literal

import msgspec

VERSION = 2
"""Newest version of the envelope. A reader refuses a newer one, as a state that says so, and confirms nothing.

Each message carries the lowest version that can say it (`version_of`): 1 with a plain body, 2 with a compressed one.
"""

PLAIN, ZSTD = 0, 1
"""Encodings of a body (`Envelope.enc`): MessagePack as it is; MessagePack in one Zstandard frame (RFC 8878) with its content size."""

ZERO_HASH = bytes(32)
MAX_MESSAGE = 64 * 1024
"""Largest message on the ledger, in bytes, envelope included."""


class Kind(enum.IntEnum):
    """Kinds of ledger messages. READINGS may be dropped by an overflow, and PROGRESS between them, which the next one repeats; a
    TOMBSTONE then takes their numbers."""

    BIRTH = 1
    READINGS = 2
    LINK = 3
    EVENT = 4
    GAP = 5
    PROGRESS = 6
    CLOSED = 7
    TOMBSTONE = 8
    COMMAND = 9


class Cause(enum.StrEnum):
    """Why there is a gap."""

    DISCONNECTED = "disconnected"
    STALE = "stale"
    BAD = "bad"
    OVERRUN = "overrun"
    DROPPED = "dropped"
    COLLECTOR_DOWN = "collector_down"
    TOO_LATE = "too_late"
    UNDECODABLE = "undecodable"
    FORK = "fork"
    LOST = "lost"


class Flag(enum.IntFlag):
    """Flags of a reading."""

    GATEWAY_TIME = 1
    """`ts` is the gateway's time although the device gave one (`source_ts`): its clock is wrong."""
    NO_SOURCE_TIME = 2
    """The device should have given a time and did not: server's or gateway's time instead."""
    HISTORICAL = 4
    """Read later from the device's history, or replayed."""
    INITIAL = 8
    """The first value after a subscribe: the device's last value, sent again."""
    OVERFLOW = 16
    """The device says that values before this one were lost from its queue."""
    UNSYNCED = 32
    """The gateway stamped it while its own clock was not synchronised."""
    RAW_KEPT = 64
    """What arrived is kept in `raw`."""
    OUT_OF_RANGE = 128
    """Outside the signal's range; status is uncertain, the value stays."""
    LATE = 256
    """Arrived in the store after newer readings of its signal."""


class Envelope(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message of the ledger: `[version, kind, stream, seq, last_seq, low, prev, enc, body]`.

    `seq..last_seq` is one number except for a tombstone. `low` is the lowest number the outbox still holds; it alone is
    outside the hash, since it changes when a message is sent again. `enc` is PLAIN or ZSTD; the hash is over the
    body as it is stored, that is compressed.
    """

    version: int
    kind: int
    stream: str
    seq: int
    last_seq: int
    low: int
    prev: bytes
    enc: int
    body: bytes

    def hash(self) -> bytes:
        """The link of the chain: SHA-256 (32 bytes) over all fields except `low`, length-prefixed by MessagePack."""
        return chain_hash(self.version, self.kind, self.stream, self.seq, self.last_seq, self.prev, self.enc, self.body)


_encoder = msgspec.msgpack.Encoder()


def version_of(enc: int) -> int:
    """The version that a message with a body of this encoding carries, so that a reader that would take it for poison stops instead."""
    return 1 if enc == PLAIN else 2


def chain_hash(
    version: int, kind: int, stream: str, seq: int, last_seq: int, prev: bytes, enc: int, body: bytes
) -> bytes:
    """SHA-256 (32 bytes) of a message, the `prev` of the next one."""
    digest = hashlib.sha256(_encoder.encode((version, kind, stream, seq, last_seq, prev, enc)))
    digest.update(body)
    return digest.digest()


# ------------------------------------------------------------------------------------------------------ ledger bodies


class Extra(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What few readings have: the device's own time where `ts` is not it (µs), and what arrived where it is not the value."""

    source_ts: int | None = None
    raw: Any = None


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Readings of many devices, as columns of equal length (kind READINGS).

    Row i: point `points[i]` (stream-local, from a birth), `ts = base + offsets[i]` (µs), `values[i]` (null when bad),
    `status[i]` (unsigned OPC UA StatusCode), `flags[i]` (`Flag`), `n[i]`. A column that is null throughout means 0 in each row.
    """

    base: int
    points: list[int]
    offsets: list[int]
    values: list[Any]
    status: list[int] | None = None
    flags: list[int] | None = None
    n: list[int] | None = None
    extra: dict[int, Extra] | None = None


class AssetBirth(msgspec.Struct, array_like=True, frozen=True):
    """An asset on the path of a device."""

    id: str
    name_zh: str = ""
    name_en: str = ""
    parent: str | None = None
    level: str = "machine"


class SignalBirth(msgspec.Struct, array_like=True, frozen=True):
    """Stream-local point -> signal, with everything the store needs to know of it."""

    point: int
    name: str
    revision: str
    type: str
    unit: str
    kind: str
    asset: str
    group: str = "default"
    description_zh: str = ""
    description_en: str = ""
    scale: float = 1.0
    offset: float = 0.0
    address: str = ""
    enum: dict[int, tuple[str, str]] | None = None
    counter: dict[str, Any] | None = None
    range: tuple[float, float] | None = None
    deadband: dict[str, float] | None = None
    silence: float | None = None
    semantic_id: str | None = None
    retired: bool = False


class Birth(msgspec.Struct, array_like=True, frozen=True):
    """A device and some of its signals (kind BIRTH). Births add up; what is gone is said with `retired`."""

    at: int
    device: str
    asset: str
    name_zh: str = ""
    name_en: str = ""
    protocol: str = ""
    profile: str = ""
    endpoint: str = ""
    identity: dict[str, str] | None = None
    assets: list[AssetBirth] = msgspec.field(default_factory=list)
    signals: list[SignalBirth] = msgspec.field(default_factory=list)
    retired: bool = False


class Link(msgspec.Struct, array_like=True, frozen=True):
    """A device came or went (kind LINK): an interval of `connection` is opened by a down and closed by the next up."""

    device: str
    up: bool
    at: int
    reason: str = ""


class Event(msgspec.Struct, array_like=True, frozen=True):
    """Something that happened (kind EVENT). `condition` and `state` are those of an alarm (OPC 10000-9)."""

    id: str
    ts: int
    source_ts: int | None
    asset: str
    device: str
    type: str
    severity: int
    message_zh: str = ""
    message_en: str = ""
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    condition: str | None = None
    state: str | None = None
    flags: int = 0


class Gap(msgspec.Struct, array_like=True, frozen=True):
    """What is missing (kind GAP, and inside a tombstone): never understated, maybe overstated.

    `points` null: all signals of the device; `device` null: all devices of the gateway. Bounds in µs, both inclusive.
    """

    device: str | None
    points: list[int] | None
    start: int
    end: int
    cause: str
    count: int | None = None
    detail: str = ""


class Done(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Everything that (device, group) sourced up to `complete_to` (µs) is durable before this message, or unchanged.

    `back_to` (µs): what was missed from then on was fetched afterwards and is durable before this message, or is told by gaps of
    its own: a gap `collector_down` of this group ends there.
    """

    device: str
    group: str
    complete_to: int
    back_to: int | None = None


class Progress(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Proof of life, once a second (kind PROGRESS)."""

    at: int
    done: list[Done] = msgspec.field(default_factory=list)


class Closed(msgspec.Struct, array_like=True, frozen=True):
    """An older stream of this outbox has ended at `last_seq` (kind CLOSED); told on its successor, so that it takes no number of its own."""

    stream: str
    last_seq: int
    hash: bytes


class Tombstone(msgspec.Struct, array_like=True, frozen=True):
    """What stands in the place of dropped messages (kind TOMBSTONE); `hash` is that of the last message replaced.

    `newest`: of each signal the newest of the readings that were dropped up to here. They are stored like any others: a value that holds
    since then is not told again by itself.
    """

    hash: bytes
    gaps: list[Gap]
    newest: Batch | None = None


# --------------------------------------------------------------------------------------- sync/{gw} and confirmed/{gw}


class Held(msgspec.Struct, array_like=True, frozen=True):
    """A stream as the outbox holds it: `low..high`, of which the store had confirmed up to `confirmed`."""

    stream: str
    low: int
    high: int
    confirmed: int = 0


class SyncRequest(msgspec.Struct, array_like=True, frozen=True, tag="sync", tag_field="type"):
    """Collect asks ingest where to go on; answered with the same nonce."""

    version: int
    gateway: str
    nonce: str
    store: str | None
    streams: list[Held]


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """How far a stream is stored: the highest number and its hash; 0 and zeros for an unknown stream."""

    stream: str
    seq: int
    hash: bytes = ZERO_HASH


class SyncAnswer(msgspec.Struct, array_like=True, frozen=True, tag="marks", tag_field="type"):
    version: int
    nonce: str
    store: str
    ingest: str
    marks: list[Mark]


class Confirmed(msgspec.Struct, array_like=True, frozen=True, tag="confirmed", tag_field="type"):
    """`seq` and everything before it in `stream` is fsynced by the store."""

    version: int
    store: str
    ingest: str
    mark: Mark


class Replay(msgspec.Struct, array_like=True, frozen=True, tag="replay", tag_field="type"):
    """Ingest asks that sending goes back to `seq`."""

    version: int
    store: str
    ingest: str
    stream: str
    seq: int


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello", tag_field="type"):
    """A new ingest is there, or one that cannot go on (`problem`): collectors ask again with `sync`."""

    version: int
    store: str
    ingest: str
    problem: str = ""


FromIngest = SyncAnswer | Confirmed | Replay | Hello


# ---------------------------------------------------------------------------------------------------- committed/{store}


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stored reading, as serve needs it for `latest` and the live stream."""

    signal: int
    ts: int
    n: int
    value: Any
    status: int = 0
    flags: int = 0


class Committed(msgspec.Struct, array_like=True, frozen=True):
    """One transaction of the store: `[epoch, commit_no, rows, links, progress, events]`."""

    epoch: int
    commit_no: int
    rows: list[Row]
    links: list[Link]
    progress: list[Done]
    events: list[str] = msgspec.field(default_factory=list)
    births: bool = False


# ------------------------------------------------------------------------------------------------ courtesy topics, JSON

Quality = Literal["good", "uncertain", "bad"]
Clock = Literal["source", "gateway", "offset"]


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reading as JSON shows it. `ts` is RFC 3339 UTC; NaN and infinities are the strings NaN, Infinity, -Infinity."""

    signal: str
    ts: str
    value: Any
    n: int = 0
    status: int = 0
    quality: Quality = "good"
    unit: str = ""
    flags: list[str] = msgspec.field(default_factory=list)
    source_ts: str | None = None
    raw: Any = None


class Readings(msgspec.Struct, frozen=True):
    """`{root}/v1/readings/{device}`."""

    gateway: str
    device: str
    readings: list[Reading]


class EventMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{root}/v1/events/{device}`."""

    gateway: str
    device: str
    id: str
    ts: str
    type: str
    severity: int
    asset: str = ""
    source_ts: str | None = None
    message: dict[str, str] = msgspec.field(default_factory=dict)
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    condition: str | None = None
    state: str | None = None


class BirthSignal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A signal as the retained birth of its device shows it."""

    name: str
    type: str
    unit: str
    kind: str
    asset: str
    description: dict[str, str] = msgspec.field(default_factory=dict)
    enum: dict[str, dict[str, str]] | None = None
    range: tuple[float, float] | None = None
    counter: dict[str, Any] | None = None


class BirthMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{root}/v1/birth/{device}`, retained."""

    gateway: str
    device: str
    at: str
    asset: str
    name: dict[str, str]
    protocol: str
    profile: str
    signals: list[BirthSignal]
    retired: bool = False


State = Literal["starting", "ok", "degraded", "recovering", "failed", "stopping", "stopped"]


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """`{root}/v1/status/{device}` and `{root}/v1/status/gateway/{gateway}`, retained."""

    gateway: str
    state: State
    since: str
    device: str | None = None
    reason: str = ""
    fix: dict[str, str] = msgspec.field(default_factory=dict)
