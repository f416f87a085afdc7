"""What may be asked of a child process that looks, and what it says.

Questions travel as JSON from serve to the collector and from there to its child; the body of an answer is the body that the API
answers with (`gateway.looking.shapes`), so that nobody on the way reads it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Language = Literal["en", "zh"]


class Link(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A link that need not be configured: an adapter with its settings, passwords in clear; or the `id` of one that is."""

    adapter: str = ""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    id: str | None = None


class _Question(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    lang: Language = "en"
    pki: str | None = None
    """Folder of certificates and"""
    gateway: str = "guantong"
    """id of the gateway, for an OPC UA session; filled in by the collector."""


class Endpoints(_Question, frozen=True, tag="endpoints"):
    """The endpoints of the OPC UA server at `url`. Answer: `shapes.Offered`."""

    url: str


class Browse(_Question, frozen=True, tag="browse"):
    """Nodes below `node` (None: the Objects folder): its children, or with a `filter` whatever fits it further down. `path` is the
    path of `node`, which the paths of the answer go on from. Answer: `shapes.Browsed`."""

    link: Link
    node: str | None = None
    path: str = ""
    filter: str | None = None
    limit: int = 500


class ReadNode(_Question, frozen=True, tag="node"):
    """One OPC UA node. Answer: `shapes.TestRead`."""

    link: Link
    node: str


class ReadRegisters(_Question, frozen=True, tag="registers"):
    """One Modbus address (the data of a `schemas.profile.ModbusAddress`). Answer: `shapes.TestRead`."""

    link: Link
    unit: int
    address: dict[str, Any]


class ReadSignal(_Question, frozen=True, tag="signal"):
    """A configured signal, `device/name`. Answer: `shapes.TestRead`."""

    signal: str


class Table(_Question, frozen=True, tag="table"):
    """The configuration in `file` with the links of a point table, `data`, whose name is `name`. Answer: `shapes.TableDraft`."""

    file: str
    name: str
    data: bytes


class Export(_Question, frozen=True, tag="export"):
    """The configuration in `file` as a point table; without a file the template. Answer: `shapes.Document`."""

    form: Literal["xlsx", "csv", "csv-gbk"]
    file: str | None = None


class Picked(msgspec.Struct, frozen=True, omit_defaults=True):
    """An OPC UA variable that somebody has picked; `class` and `type` as `shapes.Node` tells them."""

    node: str
    path: str = ""
    name: str = ""
    type: str = ""
    picked_type: str = ""
    unit: str = ""
    enum: dict[int, str] | None = None
    node_class: str = msgspec.field(default="Variable", name="class")


class NewDevice(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Id and names (zh, en) of a device that is to be added."""

    id: str
    name: dict[str, str] = msgspec.field(default_factory=dict)


class AddDevice(_Question, frozen=True, tag="device"):
    """The configuration in `file` with a device added or replaced; secrets in the link's settings are references by now. Answer:
    `shapes.DeviceDraft`."""

    file: str
    device: NewDevice
    link: Link
    unit: int | None = None
    profile: str | None = None
    nodes: list[Picked] = msgspec.field(default_factory=list)
    signals: list[dict[str, Any]] = msgspec.field(default_factory=list)


class RemoveDevice(_Question, frozen=True, tag="removal"):
    """The configuration in `file` without a device. Answer: `shapes.Draft`."""

    file: str
    device: str


class Troubles(_Question, frozen=True, tag="troubles"):
    """What is wrong with single signals of a configured device. Answer: `shapes.DeviceTroubles`."""

    device: str


Machine = Endpoints | Browse | ReadNode | ReadRegisters | ReadSignal | Troubles
"""Asked of the collector, which has the machines' network, secrets and serial ports."""
Paper = Table | Export | AddDevice | RemoveDevice
"""Asked of serve's own child: no machine is involved."""
Question = Machine | Paper


class Mistake(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong in the question (`parameter`) or in a table (`place`, such as 点位!D7)."""

    found: Any = None
    detail: str = ""
    detail_zh: str = ""
    """Empty where `detail` is in the language of the question."""
    parameter: str = ""
    place: str = ""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why there is no answer. `reason` is a short stable word: of the adapter, or one of `busy`, `too_slow`, `crashed`, `too_large`,
    `invalid`, `invalid_table`, `unknown_link`, `unknown_signal`, `unknown_device`, `port_in_use`, `failed`."""

    reason: str
    en: str
    zh: str = ""
    fix_en: str = ""
    fix_zh: str = ""
    mistakes: list[Mistake] = msgspec.field(default_factory=list)
    details: dict[str, str] = msgspec.field(default_factory=dict)
    """For programs: `fingerprint` and `command` of a certificate that is not trusted, for instance."""


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a look: `body` is JSON, or there is a `failure`."""

    body: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


class FailedLookError(Exception):
    """Raised where a look is made; crosses a process as its `failure`."""

    def __init__(
        self,
        reason: str,
        en: str,
        zh: str,
        *,
        fix_en: str = "",
        fix_zh: str = "",
        mistakes: list[Mistake] | None = None,
    ) -> None:
        super().__init__(en)
        self.failure = Failure(reason, en, zh, fix_en, fix_zh, mistakes or [])


WITHIN: dict[type[msgspec.Struct], float] = {
    Endpoints: 15.0, Browse: 30.0, ReadNode: 15.0, ReadRegisters: 15.0, ReadSignal: 10.0, Troubles: 5.0,
    Table: 90.0, Export: 90.0, AddDevice: 60.0, RemoveDevice: 60.0,
}  # fmt: skip
"""Seconds after which a look is given up and its process killed."""
