"""The plan: what the configuration, its profiles and overrides come to, ready for adapters, normaliser and births."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from adapters.contract import Adapter, Clock, ConfigError, DeviceSpec, LinkSpec, Point, SystemClock
from gateway.config.models import ClockSettings, GatewaySettings
from schemas.bilingual import Bilingual
from schemas.model import INTEGER_TYPES, Asset, Signal, Text
from schemas.profile import Anchor, EventClause, Group, ModbusAddress, OpcUaAddress

NUMBERS = INTEGER_TYPES | {"float32", "float64"}
"""Types of signals that may have a scale and a deadband."""

PKI: Final = "pki"
LEARNED: Final = "learned"
"""Folder in data_dir of what adapters have learned of devices."""
"""Folder in `data_dir` of the gateway's own certificate and of those that it trusts."""


@dataclass(frozen=True, slots=True)
class PlannedSignal:
    """A signal as it is collected.

    `point` is its index within the link (`adapters.contract.Point.id`), `index` the one within the whole plan, by which
    `gateway.collect.items.Readings` names it. A stored number is `raw * scale + offset`, unit conversion included, in `unit` (a UCUM code).
    `type` is the type of what is stored: a number that is scaled is a float64 whatever the device sends.
    """

    point: int
    index: int
    device: str
    signal: Signal
    group: str
    address: BaseModel
    address_text: str
    revision: str
    asset: str
    unit: str
    scale: float
    offset: float
    type: str


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A device with its signals. `groups`: period (s) of each group in use. `first` is the point of its first signal: its points are contiguous within the link."""

    id: str
    name: Text
    link: str
    asset: str
    asset_path: tuple[Asset, ...]
    protocol: str
    profile: str
    settings: BaseModel
    rules: BaseModel
    groups: Mapping[str, float]
    first: int
    signals: tuple[PlannedSignal, ...]
    events: tuple[EventClause, ...]
    clock: ClockSettings
    anchor: Anchor | None = None
    options: Mapping[str, Group] = field(default_factory=dict)
    """Everything that is configured of each group in use."""


@dataclass(frozen=True, slots=True)
class PlannedLink:
    """A link with its devices. `broken` says why its adapter cannot be used; such a link has no devices and costs no other."""

    id: str
    protocol: str
    adapter: type[Adapter] | None
    settings: BaseModel | None
    devices: tuple[PlannedDevice, ...]
    broken: ConfigError | None = None
    gateway: str = "guantong"
    pki: Path | None = None
    state: Path | None = None
    writes: bool = False

    def spec(self, clock: Clock | None = None) -> LinkSpec:
        """What the adapter is given. Raises the `broken` error of a link without one."""
        if self.settings is None:
            raise self.broken or ConfigError(
                Bilingual(f"link {self.id} has no settings", f"链路 {self.id} 没有设置"), reason="link_broken"
            )
        devices = tuple(
            DeviceSpec(
                id=device.id,
                settings=device.settings,
                rules=device.rules,
                groups=dict(device.groups),
                points=tuple(
                    Point(s.point, device.id, s.signal.name, s.group, s.address, s.signal.type, raw_deadband(s))
                    for s in device.signals
                ),
                events=device.events,
                options=dict(device.options),
            )
            for device in self.devices
        )
        return LinkSpec(
            self.id, self.settings, devices, clock or SystemClock(), self.writes, self.gateway, self.pki, self.state
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is collected."""

    gateway: GatewaySettings
    links: tuple[PlannedLink, ...]
    assets: Mapping[str, Asset] = field(default_factory=dict)

    @property
    def devices(self) -> tuple[PlannedDevice, ...]:
        """All devices, in the order of the file."""
        return tuple(device for link in self.links for device in link.devices)

    @property
    def signals(self) -> tuple[PlannedSignal, ...]:
        """All signals; each stands at its `index`."""
        return tuple(signal for device in self.devices for signal in device.signals)

    def device(self, name: str) -> PlannedDevice:
        """The device with this id. Raises KeyError."""
        for device in self.devices:
            if device.id == name:
                return device
        raise KeyError(name)


def raw_deadband(planned: PlannedSignal) -> float:
    """The signal's deadband as a difference of raw values; 0 where it has none, or where it cannot be said of raw values."""
    signal = planned.signal
    if signal.deadband is None or signal.store == "every" or signal.type not in NUMBERS or not planned.scale:
        return 0.0
    if signal.bit is not None or signal.bits is not None:
        return 0.0
    span = signal.range[1] - signal.range[0] if signal.range is not None else 0.0
    return (signal.deadband.absolute or span * (signal.deadband.percent or 0.0) / 100) / abs(planned.scale)


def address_text(address: BaseModel) -> str:
    """An address for people: `input 52 float32`, `nsu=…;s=…`; a third party's as JSON."""
    if isinstance(address, ModbusAddress):
        order = f" {address.order}" if address.registers > 1 and address.order != "ABCD" else ""
        many = address.length if address.length is not None else address.count
        length = f"[{many}]" if many is not None else f" {address.byte}" if address.type in ("int8", "uint8") else ""
        return f"{address.table} {address.wire} {address.type}{length}{order}"
    if isinstance(address, OpcUaAddress):
        return address.node or address.path or ""
    return json.dumps(address.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False, sort_keys=True)
