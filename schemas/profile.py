"""A profile describes a device type as data: its signals, where each is found, and how it is converted.

A profile is a YAML file; one profile serves many devices. `load_profile` is in `schemas.profiles`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from schemas._address_base import from_zero
from schemas.bilingual import Bilingual
from schemas.modbus import REGISTERS as REGISTERS
from schemas.modbus import ModbusAddress as ModbusAddress
from schemas.modbus import ModbusRules as ModbusRules
from schemas.modbus import ModbusType as ModbusType
from schemas.model import Deadband, Duration, Signal, SignalName, Strict, Text, ValueType

# ---------------------------------------------------------------------------------------------------- OPC UA addresses

Discard = Literal["oldest", "newest"]
Trigger = Literal["status", "status-value", "status-value-timestamp"]
"""What of a value makes a notification (OPC 10000-4 §7.22.2, DataChangeTrigger)."""
Mode = Literal["subscribe", "poll", "both"]

_NODE_ID = re.compile(r"(?:(?:nsu=[^;]+|ns=\d+);)?(?:i=\d+|s=.+|g=[0-9a-fA-F-]{36}|b=.+)", re.DOTALL)


class OpcUaAddress(Strict):
    """Where a value lies in an OPC UA server: a NodeId, or a browse path from the device's root.

    `node` is a NodeId with namespace URI (`nsu=http://…;s="DB_Line"."Placed"`; OPC 10000-6 §5.1.12) or index. `path` is a relative path such as
    `em77:Jobs/em77:ActiveJobValues/em83:JobCycleCounter`; prefixes are those of the profile's `namespaces`; a name that contains / or : is
    written with & before it (OPC 10000-4 Annex A.2).
    """

    node: str | None = None
    path: str | None = None
    sampling: Duration | None = Field(
        default=None,
        description="Sampling interval; the group's by default. 0: each change, as fast as the server can.",
    )
    queue: int | None = Field(
        default=None, ge=1, le=100_000, description="Server-side queue size; the group's by default."
    )
    discard: Discard | None = Field(default=None, description="What a full queue drops; the group's by default.")
    trigger: Trigger | None = Field(default=None, description="What counts as a change; the group's by default.")

    @model_validator(mode="after")
    def _coherent(self) -> OpcUaAddress:
        if (self.node is None) == (self.path is None):
            raise ValueError(
                Bilingual(
                    "give `node` (a NodeId) or `path` (a browse path), one of the two",
                    "`node`（NodeId）与 `path`（浏览路径）须且只能写一个",
                )
            )
        if self.node is not None and not _NODE_ID.fullmatch(self.node):
            raise ValueError(
                Bilingual(
                    f"{self.node!r} is not a NodeId: write nsu=URI;s=NAME, nsu=URI;i=NUMBER, ns=2;s=NAME or i=2258",
                    f"{self.node!r} 不是 NodeId：请写 nsu=URI;s=NAME、nsu=URI;i=NUMBER、ns=2;s=NAME 或 i=2258",
                )
            )
        return self


class OpcUaRules(Strict):
    """What a profile says of its servers."""

    namespaces: dict[str, str] = Field(default_factory=dict, description="Prefix of a path's names -> namespace URI.")
    root: str = Field(
        default="",
        description="Where the device's paths begin: a NodeId, or a path below Objects in which * matches any characters, "
        "e.g. di:DeviceSet/em77:IMM_*. Empty: the Objects folder.",
    )
    encoding: str = Field(
        default="utf-8",
        description="How the server encodes its strings, where it is not UTF-8 as the standard asks, e.g. gbk.",
    )
    deadband: Literal["server", "gateway"] = Field(
        default="server",
        description="Where deadbands are applied: at the server too, once it has shown that its deadband keeps slow drifts, "
        "or in the gateway alone.",
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            name = codecs.lookup(value).name
            "a".encode(name)
        except (LookupError, UnicodeError, ValueError):
            raise ValueError(
                Bilingual(
                    f"{value!r} is not a text encoding: write utf-8, gbk, gb18030, big5, shift_jis, latin-1 …",
                    f"{value!r} 不是字符编码：请写 utf-8、gbk、gb18030、big5、shift_jis、latin-1 等",
                )
            ) from None
        return name


class EventField(Strict):
    """One field of an event: a select clause (OPC 10000-4 §7.22.3, SimpleAttributeOperand)."""

    path: str = Field(description="Browse path from the event type, e.g. em83:JobCycleCounter or Message.")
    of: str | None = Field(
        default=None,
        description="NodeId of the event type that defines the field, when it is a subtype of the clause's.",
    )
    unit: str = ""
    type: ValueType | Literal["any"] = "any"
    description: Text = Text()


class EventClause(Strict):
    """An event type that is subscribed, with its select clauses."""

    name: SignalName
    type: str = Field(description="NodeId of the event type; its subtypes are included.")
    notifier: str = Field(default="", description="NodeId or path of the notifier; empty: the Server object.")
    of_type: str | None = Field(default=None, description="NodeId of the type in the where clause, if not `type`.")
    kind: Literal["event", "alarm", "record"] = "event"
    severity: int | None = Field(default=None, ge=1, le=1000, description="Overrides the event's own severity.")
    fields: dict[str, EventField] = Field(default_factory=dict)
    description: Text = Text()


# ------------------------------------------------------------------------------------------------------------- profile


class Group(Strict):
    """A scan group (Modbus) or a subscription (OPC UA)."""

    period: Duration = Field(
        default=1.0, gt=0, description="Scan period; OPC UA: publishing interval, or the grid on which it is read."
    )
    phase: Duration | None = Field(
        default=None,
        description="Modbus: where the scans stand on the clock: so long after each multiple of the period since midnight of 1 January "
        "1970, UTC; period 1min and phase 5s: at second 5 of each minute. By default they begin with the connection.",
    )
    mode: Mode = Field(
        default="subscribe",
        description="OPC UA: how values come. subscribe: the server tells changes; poll: everything is read on a fixed grid; "
        "both: subscribed, and read every `poll` to find what the subscription did not tell.",
    )
    poll: Duration = Field(default=60.0, gt=0, description="OPC UA, mode both: how often everything is read as well.")
    sampling: Duration | None = Field(
        default=None, description="OPC UA: sampling interval; the period by default. 0: as fast as the server can."
    )
    queue: int | None = Field(
        default=None, ge=1, le=100_000,
        description="OPC UA: values that the server holds for each signal; by default those of two publishing intervals and some.",
    )  # fmt: skip
    discard: Discard = Field(default="oldest", description="OPC UA: what a full queue drops.")
    trigger: Trigger = Field(
        default="status-value",
        description="OPC UA: what counts as a change: the status alone, status and value, or a new source time as well.",
    )
    deadband: Deadband | None = Field(
        default=None,
        description="For the measurements and settings of the group that have none of their own; percent where they have a range.",
    )


class Source(Strict):
    """Where the profile's facts come from."""

    document: str
    version: str = ""
    page: str = ""
    note: str = ""


class Anchor(Strict):
    """A value by which a person can tell that the profile fits: `grid/frequency lies between 49 and 51 Hz`."""

    signal: SignalName
    min: float
    max: float
    why: Text = Text()


class ProfileSignal(Signal):
    """A signal with its place in the device."""

    group: str = "default"
    address: dict[str, Any] = Field(description="Protocol address: see ModbusAddress, OpcUaAddress.")


class Profile(Strict):
    """A device type."""

    profile: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Its name, as devices refer to it.")
    version: int = Field(default=1, ge=1)
    protocol: str = Field(description="Name of the adapter: opcua, modbus, or a third party's.")
    name: Text
    vendor: str = ""
    source: Source
    verified: Literal["none", "simulator", "manual", "hardware"]
    licence: str
    anchor: Anchor | None = None
    groups: dict[str, Group] = Field(default_factory=lambda: {"default": Group()})
    rules: dict[str, Any] = Field(default_factory=dict, description="Protocol rules: see ModbusRules, OpcUaRules.")
    address_base: Literal[0, 1] = Field(
        default=0,
        description="Modbus: from what the document counts its addresses. 1: every `address` here, in `scale_by`, `select` and `holes` too, is one "
        "higher than on the wire.",
    )
    signals: tuple[ProfileSignal, ...]
    events: tuple[EventClause, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _on_the_wire(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("protocol") == "modbus" and value.get("address_base") == 1:
            return from_zero(value)
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Profile:
        if self.address_base == 1:
            raise ValueError(
                Bilingual(
                    "address_base: only addresses of Modbus are counted", "address_base：只有 Modbus 的地址才计数"
                )
            )
        seen: set[str] = set()
        for signal in self.signals:
            if signal.name in seen:
                raise ValueError(Bilingual(f"signal {signal.name} is defined twice", f"信号 {signal.name} 重复定义"))
            seen.add(signal.name)
            if signal.group not in self.groups:
                raise ValueError(
                    Bilingual(
                        f"signal {signal.name}: group {signal.group!r} is not one of {sorted(self.groups)}",
                        f"信号 {signal.name}：分组 {signal.group!r} 不在 {sorted(self.groups)} 之中",
                    )
                )
        if self.anchor is not None and self.anchor.signal not in seen:
            raise ValueError(
                Bilingual(
                    f"anchor: signal {self.anchor.signal!r} is not defined",
                    f"anchor：信号 {self.anchor.signal!r} 未定义",
                )
            )
        return self


BUILT_IN_ADDRESSES: dict[str, type[BaseModel]] = {"modbus": ModbusAddress, "opcua": OpcUaAddress}
BUILT_IN_RULES: dict[str, type[BaseModel]] = {"modbus": ModbusRules, "opcua": OpcUaRules}
