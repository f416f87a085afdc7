"""The adapter contract: what a protocol adapter is given, what it gives back, and what it must not do.

An adapter instance owns one link (an OPC UA session, a TCP connection, a serial line) on which many devices may sit. The host
calls, in this order: the constructor, `connect`, then iterates `items` until it ends or raises, then `disconnect`; after a pause of the host's
choosing it calls `connect` again on the same object, which keeps its resume state. `close` comes last and once. `ack` may come at any time
between `connect` and `disconnect`, and for a token of an earlier session, which is then ignored.

An adapter does not decide when to reconnect, log outages, convert units, count, or know MQTT. Library exceptions do not
cross this contract: what crosses is an `AdapterError`. Trouble of one point is a status of that point, trouble of one device on a
living link a `DeviceState`; only the loss of the link is an exception.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from schemas.bilingual import Bilingual
from schemas.profile import EventClause, Group

# ---------------------------------------------------------------------------------------------------------------- errors


class AdapterError(Exception):
    """Base of what crosses the contract. `message` is for people, best a `schemas.bilingual.Bilingual`; `reason` is a short stable word,
    `fix_en`/`fix_zh` say what a person can do.

    `details` holds what a program may want to show or use by itself, e.g. `fingerprint` and `command`; never a secret.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        fix_en: str = "",
        fix_zh: str = "",
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.fix_en = fix_en
        self.fix_zh = fix_zh
        self.details: Mapping[str, str] = details or {}


class TransientError(AdapterError):
    """Weather: connect again, not before `retry_after` seconds if that is given."""

    def __init__(
        self, message: str, *, reason: str, fix_en: str = "", fix_zh: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, reason=reason, fix_en=fix_en, fix_zh=fix_zh)
        self.retry_after = retry_after


class AuthError(AdapterError):
    """The device refuses who we are, or we whom it shows itself to be: stop hammering, ask a person (the host tries again seldom).

    `cured` may be asked every few seconds: true once a person has done something about it, so that the host need not wait any
    longer. It is cheap and touches no network.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        fix_en: str = "",
        fix_zh: str = "",
        details: Mapping[str, str] | None = None,
        cured: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, fix_en=fix_en, fix_zh=fix_zh, details=details)
        self.cured = cured


class ConfigError(AdapterError):
    """It cannot work as configured; trying again is useless until the configuration changes."""


class WritesDisabledError(AdapterError):
    """Writes, method calls and acknowledgements are refused: the local configuration does not say `writes: enabled`."""

    def __init__(self, what: str) -> None:
        super().__init__(
            Bilingual(f"{what}: this gateway is read-only", f"{what}：本网关为只读"),
            reason="writes_disabled",
            fix_en="Commands to devices are refused in this version.",
            fix_zh="本版本不允许向设备下发命令。",
        )


# ---------------------------------------------------------------------------------------------------- what it is given


class Clock(Protocol):
    """The host's clock, injected so that tests can set it."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC; advances monotonically between detected steps of the system clock."""

    def monotonic(self) -> float:
        """Seconds of a clock that never steps."""


class SystemClock:
    """UTC from a monotonic anchor. `step` moves the anchor when the system clock was stepped (rules: an event, by the host)."""

    def __init__(self) -> None:
        self._anchor = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        return (self._anchor + time.monotonic_ns()) // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def drift(self) -> float:
        """Seconds by which the system clock is ahead of this one: more than a slew means that it was stepped."""
        return (time.time_ns() - time.monotonic_ns() - self._anchor) / 1e9

    def step(self) -> None:
        """Takes the system clock's present time as the new anchor."""
        self._anchor = time.time_ns() - time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to read. `id` is small and dense within the link (an index into lists); `address` the adapter's own address model."""

    id: int
    device: str
    signal: str
    group: str
    address: BaseModel
    type: str
    """The signal's type (`schemas.model.ValueType`), which an adapter may use to decode."""
    deadband: float = 0.0
    """Raw values that differ from the one given last by no more than this need not be given: they are not stored. 0: all are."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device on the link: its validated settings and profile rules, its points, its event clauses."""

    id: str
    settings: BaseModel
    rules: BaseModel
    groups: dict[str, float]
    """Group name -> period in seconds."""
    points: tuple[Point, ...]
    events: tuple[EventClause, ...] = ()
    options: Mapping[str, Group] = field(default_factory=dict)
    """Group name -> everything that is configured of it; one that is missing is as `Group()`."""


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Everything an adapter instance is given."""

    id: str
    settings: BaseModel
    devices: tuple[DeviceSpec, ...]
    clock: Clock = field(default_factory=SystemClock)
    writes: bool = False
    gateway: str = "guantong"
    """Id of the gateway, by which it names itself to devices."""
    pki: Path | None = None
    """Folder of the gateway's own certificate and of those that it trusts, one for all links; None: the host keeps none, and what
    needs one is a ConfigError."""
    state: Path | None = None
    """Folder where an adapter may keep what it has learned of devices, in files named after the link; one for all links. To lose it
    costs time and nothing else. None: nothing is kept."""


# ---------------------------------------------------------------------------------------------------- what it gives back


@dataclass(slots=True)
class Samples:
    """Raw values of one device and one group, as columns of equal length, possibly empty (then only `complete_to` matters).

    `received`: gateway time (µs) when the response was complete; one for all. `source_ts`: the device's time for each row (µs), None where
    it gave none; None as a whole for protocols without times. `server_ts`: the server's own time (µs) as far as known, by which its clock is judged.
    `status`: unsigned StatusCodes, None = all Good; a bad row's value may hold what arrived. `flags`: `schemas.wire.Flag`, None = all 0.
    `complete_to`: everything that this device and group sourced up to then (µs) is in this or earlier samples, or unchanged. `token`: for `ack`.
    """

    device: str
    group: str
    received: int
    points: Sequence[int]
    values: Sequence[Any]
    source_ts: Sequence[int | None] | None = None
    status: Sequence[int] | None = None
    flags: Sequence[int] | None = None
    server_ts: int | None = None
    complete_to: int | None = None
    token: Hashable | None = None


@dataclass(slots=True)
class DeviceEvent:
    """An event of a device, with the fields its clause selects. `source_ts` in µs."""

    device: str
    clause: str
    received: int
    source_ts: int | None
    severity: int
    message: str = ""
    event_id: str = ""
    """The device's own id of the event (hex), empty if it has none."""
    type: str = ""
    """The most specific event type, as a NodeId with namespace URI."""
    fields: dict[str, Any] = field(default_factory=dict)
    condition: str | None = None
    state: str | None = None
    historical: bool = False
    token: Hashable | None = None


@dataclass(slots=True)
class DeviceState:
    """A device on a living link came or went. `at` in µs; a down is backdated to the last proof of life."""

    device: str
    up: bool
    at: int
    reason: str = ""
    fix_en: str = ""
    fix_zh: str = ""


@dataclass(slots=True)
class Lost:
    """The adapter knows that something is missing: a recorded gap (`schemas.wire.Cause`). Bounds in µs, `points` None = all of the device."""

    device: str
    points: Sequence[int] | None
    start: int
    end: int
    cause: str
    count: int | None = None
    detail: str = ""
    token: Hashable | None = None


@dataclass(slots=True)
class PointTrouble:
    """Something about one point that a person should see in the device's state (best a `schemas.bilingual.Bilingual`); None clears it. The
    status goes with the samples."""

    device: str
    point: int
    problem: str | None


@dataclass(slots=True)
class EventTrouble:
    """Something about one event clause that a person should see in the device's state (best a `schemas.bilingual.Bilingual`), as that the device
    does not have one of its fields; None clears it. What the device takes of the clause goes on."""

    device: str
    clause: str
    problem: str | None
    fix_en: str = ""
    fix_zh: str = ""


@dataclass(slots=True)
class LinkTrouble:
    """Something about the link of a device that a person should see while it goes on working (best a `schemas.bilingual.Bilingual`), as
    that it is asked for more than it bears; None clears it. The loss of the device or of the link clears it too."""

    device: str
    problem: str | None
    fix_en: str = ""
    fix_zh: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """What could not be fetched of an outage: `points` (None = all of the group, empty = its events alone) from `start` to `end` (µs,
    gateway's clock)."""

    points: Sequence[int] | None
    start: int
    end: int
    detail: str = ""


@dataclass(slots=True)
class Recovered:
    """The answer to `Resumable.resume` for one group: everything that it sourced since then and up to `end` (µs, gateway's clock) is in
    earlier items, but for `missed`.

    `missed` None: nothing was fetched, and when the group is complete again is told by the samples' `complete_to` as ever.
    `timed`: the rows that were fetched lie in the history where the device's own clock put them, so that they fill the outage
    only if that clock is right; False where the values came live after all.
    """

    device: str
    group: str
    end: int
    missed: Sequence[Missed] | None = ()
    timed: bool = True


@dataclass(slots=True)
class Interrupted:
    """On a link that lives, something of `points` is missing just before the items that follow, and the device may still have it. What it gives
    follows as rows flagged `HISTORICAL`, those of each point in the order of time, and `Refilled` ends it; until then `complete_to` of the
    group stays before the loss.

    The next live row of each of these points is stored even if it equals the last, since there may have been another between them. It may come
    once more before the history is handed on: whatever was read of it earlier, its first row is stored too.
    """

    device: str
    group: str
    points: Sequence[int]


@dataclass(slots=True)
class Refilled:
    """The losses `lost` of a link that lives are filled as far as they can be: `rest` stays missing, the part of them that the rows since
    `Interrupted` do not cover. Where the host could not take these rows, all of `lost` is missing."""

    device: str
    group: str
    lost: Sequence[Lost]
    rest: Sequence[Lost]


@dataclass(slots=True)
class DeadbandHeld:
    """From now on the device itself leaves out what lies within the deadbands of these points (`held`), or no longer does. While it does,
    each value that comes is stored if it differs: two deadbands, one after the other, would be one of twice the size."""

    device: str
    points: Sequence[int]
    held: bool


@dataclass(slots=True)
class Identity:
    """What a device says of itself: maker, model, version, serial number, by short names (`vendor`, `product`, `revision`). To be given on
    each connection on which it says anything; the host knows what it has said before, and tells a change.

    `told` is never empty, and holds nothing that changes while the device stays the same one.
    """

    device: str
    told: Mapping[str, str]


Item = (
    Samples
    | DeviceEvent
    | DeviceState
    | Lost
    | PointTrouble
    | EventTrouble
    | LinkTrouble
    | Recovered
    | Interrupted
    | Refilled
    | DeadbandHeld
    | Identity
)


@dataclass(frozen=True, slots=True)
class BrowseNode:
    """One node of a device's address space."""

    node: str
    path: str
    name: str
    node_class: str
    type: str = ""
    value: Any = None
    status: int = 0
    source_ts: int | None = None
    has_children: bool = False
    texts: dict[int, str] | None = None
    """What the values of an enumeration mean, in the device's own words."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What an adapter counts for /metrics, since its start."""

    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    overruns: int = 0
    values: int = 0
    busy: float = 0.0
    """Seconds for which a wire that bears one request at a time was taken; 0 of a link that is none."""
    load: float = 0.0
    """What the schedule asks of such a wire, as a share of its time: more than 1 is more than it bears."""


@runtime_checkable
class Adapter(Protocol):
    """One link. The class attributes are the pydantic models by which the configuration is validated."""

    protocol: ClassVar[str]
    LinkSettings: ClassVar[type[BaseModel]]
    DeviceSettings: ClassVar[type[BaseModel]]
    Address: ClassVar[type[BaseModel]]
    Rules: ClassVar[type[BaseModel]]

    def __init__(self, spec: LinkSpec) -> None:
        """Opens nothing. May be called without a running event loop. Raises ConfigError for what can be seen without a device."""

    async def connect(self) -> None:
        """Opens the link, once; all devices are then as they are said by the following `DeviceState` items (none means up).

        Raises TransientError, AuthError or ConfigError; leaves nothing open when it raises. Cancellable.
        """

    def items(self) -> AsyncIterator[Item]:
        """Yields until the link is lost (TransientError, AuthError) or `disconnect` is called (ends). Never blocks the loop.

        A slow consumer is back-pressure: the adapter keeps its session alive, and what it must skip is a `Lost` with cause overrun.
        """

    def ack(self, token: Hashable) -> None:
        """The item with this token is durable. Never blocks, never raises for an unknown token."""

    async def disconnect(self) -> None:
        """Closes the link, within two seconds. Idempotent; may be called while `items` is being iterated, which then ends."""

    async def read(self, points: Sequence[int]) -> Samples:
        """Reads these points of one device once, now, on the open link. Raises TransientError when the link is lost."""

    async def write(self, point: int, value: Any) -> None:
        """Raises WritesDisabledError unless the spec allows writes."""

    def browse(self, node: str | None = None, *, depth: int = 1) -> AsyncIterator[BrowseNode]:
        """The device's own model, where it has one, from `node` downwards. Raises ConfigError where the protocol has none."""

    def endpoint(self, device: str) -> str:
        """Where the device is, for people: `opc.tcp://192.168.1.20:4840`, `modbus+tcp://192.168.1.21:502/unit/1`. No secrets."""

    def counters(self) -> Counters:
        """Running totals."""


@dataclass(frozen=True, slots=True)
class LineLoad:
    """What the schedule will ask of a line, reckoned before it runs. `text` says it for people (a `schemas.bilingual.Bilingual`), with what would fit."""

    share: float
    """1: all of its time."""
    fits: bool
    text: str
    fix_en: str = ""
    fix_zh: str = ""


@runtime_checkable
class Refuses(Protocol):
    """An adapter that remembers which addresses its devices refuse."""

    def refused(self, device: str) -> list[str]:
        """Each such address with what the device says (best a `schemas.bilingual.Bilingual`), also from before a restart."""


@runtime_checkable
class Reckons(Protocol):
    """An adapter that can tell before it is connected how full its line will be."""

    def expected_load(self) -> LineLoad | None:
        """None where nothing is known of the line's speed."""


@runtime_checkable
class Resumable(Protocol):
    """An adapter that can fetch what it missed: from what the device kept for this client, or from the device's own history."""

    def resume(self, since: Mapping[tuple[str, str], int]) -> None:
        """Called before each `connect`: (device, group) -> up to when (µs, gateway's clock) everything that it sourced is durable, for
        those groups that may have missed something since: after an outage, and after a restart of the gateway.

        On the connection that follows, the adapter gives back exactly one `Recovered` for each of them, after the samples that fill the
        outage, which are flagged `HISTORICAL` where they were read from a history. Until then the host tells nobody that the
        group is complete; so the answer comes within a bounded time, also when the device does not give its history.
        """
