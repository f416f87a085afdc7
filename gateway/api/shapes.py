"""What answers look like. The OpenAPI document's schemas are made from these classes, and answers are encoded from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Time = Annotated[
    str,
    msgspec.Meta(
        description="RFC 3339, UTC, always six decimals and Z.",
        examples=["2026-11-22T08:30:00.000001Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
SignalId = Annotated[str, msgspec.Meta(description="`device/name`.", examples=["imm-01/cycle/last_time"])]
Value = Annotated[
    Any,
    msgspec.Meta(
        description="Exact. NaN and infinities are the strings NaN, Infinity, -Infinity; bytes are base64; null when bad.",
        extra_json_schema={},
    ),
]
StatusCode = Annotated[int, msgspec.Meta(description="OPC UA StatusCode, unsigned; 0 is Good.", ge=0, le=0xFFFFFFFF)]
Quality = Literal["good", "uncertain", "bad"]
Next = Annotated[str | None, msgspec.Meta(description="Link to the next page; null on the last one.")]
Flags = Annotated[
    list[str],
    msgspec.Meta(
        description="gateway_time, no_source_time, historical, initial, overflow, unsynced, raw_kept, out_of_range, late."
    ),
]
DeviceState = Literal["connected", "disconnected", "unknown", "retired"]


class Asset(msgspec.Struct, frozen=True):
    """A piece of the workshop (ISA-95 equipment hierarchy). `path` are the ids from the root down to it."""

    id: str
    name: str
    level: str
    parent: str | None
    path: list[str]
    devices: Annotated[list[str], msgspec.Meta(description="Devices that belong to it.")]
    gateway: str


class Assets(msgspec.Struct, frozen=True):
    items: list[Asset]


class AssetNode(msgspec.Struct, frozen=True):
    """An asset with what lies below it."""

    id: str
    name: str
    level: str
    parent: str | None
    path: list[str]
    devices: list[str]
    gateway: str
    children: list[AssetNode]


class AssetTree(msgspec.Struct, frozen=True):
    items: list[AssetNode]


class AssetDetail(msgspec.Struct, frozen=True):
    """An asset, its children and its signals."""

    id: str
    name: str
    level: str
    parent: str | None
    path: list[str]
    devices: list[str]
    gateway: str
    children: list[str]
    signals: Annotated[list[SignalId], msgspec.Meta(description="Signals that belong to it, wherever they are read.")]


class Device(msgspec.Struct, frozen=True):
    """What a link talks to. `reason`, `text` and `fix` say why it is not connected, and what a person can do."""

    id: str
    name: str
    asset: str
    gateway: str
    protocol: str
    profile: str
    endpoint: str
    identity: Annotated[
        dict[str, str], msgspec.Meta(description="What the device says of itself: maker, model, serial number.")
    ]
    signals: int
    state: DeviceState
    reason: str
    text: str
    fix: str
    since: Annotated[Time | None, msgspec.Meta(description="Since when it is so, where that is known.")]
    last_seen: Annotated[Time | None, msgspec.Meta(description="When something of the device was last known to hold.")]
    born_at: Time
    changed_at: Time


class Devices(msgspec.Struct, frozen=True):
    items: list[Device]
    next: Next = None


class Interval(msgspec.Struct, frozen=True):
    """An interval without connection; `end` null: it goes on."""

    device: str
    start: Time
    end: Time | None
    reason: str
    text: str
    fix: str


class Intervals(msgspec.Struct, frozen=True):
    items: list[Interval]
    next: Next = None


class EnumText(msgspec.Struct, frozen=True):
    value: int
    text: str


class SignalRevision(msgspec.Struct, frozen=True):
    """What the signal's numbers mean from `valid_from` on."""

    valid_from: Time
    revision: str
    type: str
    unit: str
    kind: str
    scale: float
    offset: float
    address: str
    enum: list[EnumText] | None
    counter: dict[str, Any] | None


class Signal(msgspec.Struct, frozen=True):
    """One named quantity. `unit` is a UCUM code."""

    id: SignalId
    number: Annotated[int, msgspec.Meta(description="The store's number of it; `signals/{number}` works too.")]
    device: str
    name: str
    asset: str
    kind: str
    type: str
    unit: str
    description: str
    enum: Annotated[list[EnumText] | None, msgspec.Meta(description="Texts of an enumeration's values.")]
    range: tuple[float, float] | None
    counter: dict[str, Any] | None
    semantic_id: str | None
    retired: bool
    history: Annotated[str, msgspec.Meta(description="Link to its history.")]


class Signals(msgspec.Struct, frozen=True):
    items: list[Signal]
    next: Next = None


class SignalDetail(msgspec.Struct, frozen=True):
    """A signal with everything that is known of it."""

    id: SignalId
    number: int
    device: str
    name: str
    asset: str
    kind: str
    type: str
    unit: str
    description: str
    enum: list[EnumText] | None
    range: tuple[float, float] | None
    counter: dict[str, Any] | None
    semantic_id: str | None
    retired: bool
    history: str
    group: Annotated[str, msgspec.Meta(description="The scan group that reads it.")]
    deadband: dict[str, float] | None
    silence: Annotated[float | None, msgspec.Meta(description="The longest time in seconds without a stored reading.")]
    born_at: Time
    revisions: list[SignalRevision]


class LastReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last reading before the device was lost."""

    value: Value
    status: StatusCode
    quality: Quality
    ts: Time
    n: int = 0


class Latest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The newest reading of a signal.

    While the device is not connected the value is null and the status BadNoCommunication, with the last reading beside it in `last`.
    While nothing is heard of the collector a good value is uncertain (UncertainNoCommunicationLastUsableValue). Before the first
    reading the status is BadWaitingForInitialData.
    """

    signal: SignalId
    value: Value
    status: StatusCode
    status_name: str
    status_text: str
    quality: Quality
    ts: Annotated[Time | None, msgspec.Meta(description="The reading's own time; with BadNoCommunication, since when.")]
    unit: str
    seen_at: Annotated[
        Time | None, msgspec.Meta(description="When the value was last known to hold: moves while it is unchanged.")
    ]
    n: int = 0
    flags: Flags = msgspec.field(default_factory=list)
    reason: str = ""
    last: LastReading | None = None


class LatestValues(msgspec.Struct, frozen=True):
    """`stream` is the id with which `/api/v1/stream` goes on from here (`Last-Event-ID`)."""

    items: list[Latest]
    stream: str
    next: Next = None


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored reading; `n` numbers different readings of one `ts`."""

    ts: Time
    value: Value
    status: StatusCode
    quality: Quality
    n: int = 0
    flags: Flags = msgspec.field(default_factory=list)
    source_ts: Annotated[Time | None, msgspec.Meta(description="The device's own time, where `ts` is not it.")] = None
    raw: Annotated[Any, msgspec.Meta(description="What arrived, where it is not the value.", extra_json_schema={})] = (
        None
    )
    local: Annotated[str | None, msgspec.Meta(description="`ts` in the time zone that was asked for.")] = None


class Missing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A gap inside the range: what is missing, and why."""

    id: int
    start: Time
    end: Annotated[Time | None, msgspec.Meta(description="Inclusive; null: it goes on.")]
    cause: str
    count: int | None = None
    detail: str = ""


class Disconnected(msgspec.Struct, frozen=True):
    """The device was not connected."""

    start: Time
    end: Time | None
    reason: str


ShareNumber = Annotated[
    float | None,
    msgspec.Meta(description="0 to 1; below 1 whenever anything is missing; null when nothing was expected."),
]


class CompletenessShare(msgspec.Struct, frozen=True):
    """The share of a period that is there, and the seconds behind it: share = (expected - all that is missing) / expected.

    Expected is the period from the birth of a signal on, and until it was retired. Missing are: `disconnected`, the device was not
    connected; `gap`, something is missing or nothing was collected; `bad`, from a bad reading to the next one; `unknown`, not settled
    yet, because the collector has not said that it has told everything. Time that is missing for several reasons counts once, for the
    first of these.
    """

    share: ShareNumber
    expected: float
    disconnected: float
    gap: float
    bad: float
    unknown: float


class CompletenessItem(msgspec.Struct, frozen=True):
    """Of one signal, device or asset (with all assets below it)."""

    id: str
    completeness: CompletenessShare


class CompletenessBucket(msgspec.Struct, frozen=True):
    """Of one piece of the period, [start, end)."""

    start: Time
    end: Time
    completeness: CompletenessShare


class CompletenessAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How complete a period is, of all signals that were asked for together, and one by one.

    `end` is where the period really ends: never after now, and without an `end` in the request where all fresh scan groups are settled.
    """

    start: Time
    end: Time
    completeness: CompletenessShare
    signals: int
    items: list[CompletenessItem] = msgspec.field(default_factory=list)
    buckets: list[CompletenessBucket] | None = None


class Completeness(msgspec.Struct, frozen=True):
    """How complete the range is.

    `known_to`: everything up to then is stored. `complete` is true when nothing is missing: no gap, no interval without connection, no
    bad reading that lasts, and the range ends before `known_to`. A range without an end is complete as far as `known_to`, unless the
    collector is silent. `share` is the share of the range that is there, as /completeness defines it.
    """

    complete: bool
    share: ShareNumber
    known_to: Time | None
    gaps: list[Missing]
    disconnected: list[Disconnected]
    more: Annotated[bool, msgspec.Meta(description="There are more gaps or intervals than are listed: see /gaps.")] = (
        False
    )


class History(msgspec.Struct, frozen=True):
    """Readings of one signal. `revisions` are those that are valid within the range, so that scales and units are known."""

    signal: SignalId
    unit: str
    start: Time | None
    end: Time | None
    readings: list[Reading]
    completeness: Completeness
    revisions: list[SignalRevision]
    next: Next = None


BucketNumber = Annotated[
    float | Literal["NaN", "Infinity", "-Infinity"] | None,
    msgspec.Meta(description="A text only when it is beyond what a float64 holds."),
]


class Bucket(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the signal did in [start, end): readings by quality, and numbers of those that are not bad.

    `average` is weighted by time; `covered` is for how many seconds the value was known.
    """

    start: Time
    end: Time
    good: int
    uncertain: int
    bad: int
    covered: float
    min: float | None = None
    max: float | None = None
    first: float | None = None
    first_ts: Time | None = None
    last: float | None = None
    last_ts: Time | None = None
    sum: BucketNumber = None
    average: BucketNumber = None
    local: Annotated[str | None, msgspec.Meta(description="`start` in the time zone that was asked for.")] = None


class Buckets(msgspec.Struct, frozen=True):
    """Buckets of one signal, empty ones included."""

    signal: SignalId
    unit: str
    width: str
    timezone: str | None
    start: Time
    end: Time
    buckets: list[Bucket]
    completeness: Completeness
    revisions: list[SignalRevision]
    next: Next = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened. `no` numbers events in the order in which they were stored."""

    id: str
    no: int
    ts: Time
    device: str
    asset: str
    type: str
    severity: int
    message: str
    fields: Annotated[dict[str, Any], msgspec.Meta(description="The fields that the event's clause selects.")]
    source_ts: Time | None = None
    condition: str | None = None
    state: str | None = None
    flags: Flags = msgspec.field(default_factory=list)


class Events(msgspec.Struct, frozen=True):
    items: list[Event]
    next: Next = None


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is missing. No `signals`: all of the device; no `device`: all devices of the gateway."""

    id: int
    gateway: str
    start: Time
    end: Annotated[Time | None, msgspec.Meta(description="Inclusive; null: it goes on.")]
    cause: str
    text: str
    device: str | None = None
    signals: list[SignalId] | None = None
    count: int | None = None
    detail: str = ""


class Gaps(msgspec.Struct, frozen=True):
    items: list[Gap]
    next: Next = None


class Stream(msgspec.Struct, frozen=True):
    """A stream of the ledger: everything up to number `stored` is in the store."""

    stream: str
    gateway: str
    stored: int
    lost: Annotated[int, msgspec.Meta(description="Numbers that never arrived; each is within a gap.")]
    gaps: int
    opened_at: Time
    seen_at: Time
    closed_at: Time | None


class Ledger(msgspec.Struct, frozen=True):
    """What is stored of each stream."""

    store: str
    epoch: int
    commit_no: int
    streams: list[Stream]


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """What arrived and could not be stored. `content` is what it holds, as far as it can be decoded; `raw` its bytes in hex."""

    id: int
    at: Time
    gateway: str
    stream: str
    seq: int
    reason: str
    count: Annotated[int, msgspec.Meta(description="Readings, or 1 for another message.")]
    state: Annotated[str, msgspec.Meta(examples=["waiting", "requested", "replayed", "discarded"])]
    kind: Annotated[str | None, msgspec.Meta(examples=["readings", "birth", "row"])]
    content: Annotated[Any, msgspec.Meta(extra_json_schema={})]
    raw: str
    settled_at: Time | None = None
    note: str = ""


class DeadLetters(msgspec.Struct, frozen=True):
    items: list[DeadLetter]
    next: Next = None


class StreamReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reading in the live stream."""

    signal: SignalId
    ts: Time
    value: Value
    status: StatusCode
    quality: Quality
    n: int = 0
    flags: Flags = msgspec.field(default_factory=list)


class StreamDevice(msgspec.Struct, frozen=True):
    """How a device is, in the live stream."""

    device: str
    state: DeviceState
    reason: str
    since: Time | None


class StreamSeen(msgspec.Struct, frozen=True):
    """Everything of this device and scan group is known up to `complete_to`."""

    device: str
    group: str
    complete_to: Time


class StreamChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One commit, as far as the filter lets it through (event `change`)."""

    readings: list[StreamReading] = msgspec.field(default_factory=list)
    devices: list[StreamDevice] = msgspec.field(default_factory=list)
    events: list[Event] = msgspec.field(default_factory=list)
    seen: list[StreamSeen] = msgspec.field(default_factory=list)


class StreamSnapshot(msgspec.Struct, frozen=True):
    """Where the stream begins (event `snapshot`); `more`: another snapshot event follows."""

    items: list[Latest]
    devices: list[StreamDevice]
    more: bool = False


class Component(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part that serve depends on."""

    state: str
    reason: str = ""
    fix: str = ""
    age: Annotated[float | None, msgspec.Meta(description="Seconds.")] = None


class Health(msgspec.Struct, frozen=True):
    """Whether answers are right. `degraded`: they are, but something needs a look."""

    status: Literal["ready", "degraded", "not_ready"]
    role: str
    version: str
    writes: Annotated[str, msgspec.Meta(examples=["disabled", "enabled (refused in this version)"])]
    components: dict[str, Component]


class Alive(msgspec.Struct, frozen=True):
    status: Literal["alive", "ready", "degraded", "not_ready"]
