"""What the answers to looks look like; the API's OpenAPI document is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gateway.api.shapes import Quality, StatusCode, Time, Value

Text = str


class ProfileChoice(msgspec.Struct, frozen=True):
    """A shipped profile."""

    name: str
    protocol: str
    title: str
    vendor: str
    verified: Annotated[str, msgspec.Meta(description="none, simulator, manual or hardware.")]
    source: str
    signals: int


class ProfileChoices(msgspec.Struct, frozen=True):
    profiles: list[ProfileChoice]


class SignalTrouble(msgspec.Struct, frozen=True):
    """What is wrong with one signal."""

    signal: str
    text: str


class DeviceTroubles(msgspec.Struct, frozen=True):
    """A device's state as its collector sees it, with its signals that are in trouble."""

    device: str
    state: Annotated[str, msgspec.Meta(examples=["ok", "degraded", "recovering"])]
    reason: str
    items: list[SignalTrouble]


class OfferedEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of an OPC UA server, with its security."""

    url: str
    policy: Annotated[str, msgspec.Meta(examples=["Basic256Sha256", "None"])]
    mode: Annotated[str, msgspec.Meta(examples=["SignAndEncrypt", "None"])]
    users: Annotated[list[str], msgspec.Meta(description="Ways of signing in: Anonymous, UserName, Certificate.")]
    fingerprint: Annotated[str, msgspec.Meta(description="SHA-1 of the server's certificate, in hex.")]
    server: str


class Offered(msgspec.Struct, frozen=True):
    endpoints: list[OfferedEndpoint]


class Node(msgspec.Struct, frozen=True):
    """A node of an address space. `path` is without prefixes of namespaces; `picked_type` the type that a signal of it would have."""

    node: str
    path: str
    name: str
    node_class: str = msgspec.field(name="class")
    type: str
    picked_type: str
    value: Value
    unit: str
    status: StatusCode
    status_name: str
    quality: Quality
    source_ts: Time | None
    has_children: bool
    enum: Annotated[
        dict[str, str] | None,
        msgspec.Meta(description="What the values of an enumeration mean, in the server's words."),
    ] = None


class Known(msgspec.Struct, frozen=True):
    """A companion specification by its namespace; `profile` is the shipped one to begin with, empty if there is none."""

    uri: str
    name: str
    profile: str
    note: str


class Browsed(msgspec.Struct, frozen=True):
    """`truncated`: there is more than is listed; a filter, or a deeper start, shows it."""

    nodes: list[Node]
    namespaces: list[str]
    known: list[Known]
    truncated: bool


class OtherReading(msgspec.Struct, frozen=True):
    """What the same registers would be as another type or in another byte order."""

    type: str
    order: str
    value: Value
    text: str


class TestRead(msgspec.Struct, frozen=True):
    """One value, as it came and as it is understood.

    `registers` and `raw` (hex) are those of Modbus; `raw_value` is a configured signal's value before scale and offset.
    `signal_type` is the type that a signal of it would have.
    """

    __test__ = False  # pytest: it is no test

    status: StatusCode
    status_name: str
    status_text: str
    quality: Quality
    fix: str
    value: Value
    text: str
    type: str
    signal_type: str
    unit: str
    name: str
    node: str
    source_ts: Time | None
    server_ts: Time | None
    received_at: Time
    registers: list[int] | None = None
    raw: str | None = None
    raw_value: Any = None
    others: list[OtherReading] = msgspec.field(default_factory=list)


class Notice(msgspec.Struct, frozen=True):
    """Something about a table, or about what was made of it, that is no mistake."""

    place: str
    found: str
    text: str


class TableDraft(msgspec.Struct, frozen=True):
    """The configuration with a table's links: to be sent to `config`, first with `dry_run`."""

    yaml: str
    devices: int
    points: int
    notices: list[Notice]


class DeviceDraft(msgspec.Struct, frozen=True):
    """The configuration with a device added or replaced, and on which link it is."""

    yaml: str
    device: str
    link: str
    signals: int
    notices: list[Notice]


class Draft(msgspec.Struct, frozen=True):
    """A configuration: to be sent to `config`, first with `dry_run`."""

    yaml: str
    notices: list[Notice]


class Document(msgspec.Struct, frozen=True):
    """A file, on its way from the child to serve."""

    data: bytes
    name: str
    notices: list[Notice]
