"""From the configuration to the plan: adapters, profiles, overrides, addresses and units, each checked where it is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from adapters import registry
from adapters.contract import Adapter, ConfigError
from gateway.config._check import path_of
from gateway.config.models import Config, DeviceSettings, LinkSettings, SignalOverride
from gateway.config.plan import LEARNED, NUMBERS, PKI, Plan, PlannedDevice, PlannedLink, PlannedSignal, address_text
from gateway.config.secrets import settings_with_secrets
from schemas import units
from schemas._explain import sentence
from schemas.bilingual import Bilingual, of_error
from schemas.documents import NO_SUCH_FILE, Document, DocumentError, Place, Problem, check_part, nearest, validate
from schemas.library import check_addresses, read_profile
from schemas.modbus import ModbusAddress, ModbusRules
from schemas.model import Asset, Deadband, Signal
from schemas.profile import Anchor, Group, Profile, ProfileSignal

_NOT_NONE = frozenset({"unit", "source_unit", "scale", "offset", "store", "description"})
"""Keys of an override in which nothing means what the profile says."""


def resolve(config: Config, environ: Mapping[str, str] | None = None) -> Plan:
    """The plan of `config`, with the secrets of adapter settings read. Raises DocumentError with every problem at once.

    A link whose adapter cannot be imported is no problem of the configuration: it stands in the plan as `broken`.
    """
    plan, problems = resolve_all(config, os.environ if environ is None else environ)
    if problems:
        raise DocumentError(problems)
    return plan


def resolve_all(config: Config, environ: Mapping[str, str] | None) -> tuple[Plan, list[Problem]]:
    """The plan as far as it goes, and every problem. `environ` None leaves secrets unread."""
    resolver = _Resolver(config, environ)
    return resolver.plan(), resolver.problems


@dataclass
class _LoadedProfile:
    """A profile as one adapter sees it; `addresses` by signal name. What is wrong in it was told once."""

    profile: Profile
    document: Document
    addresses: dict[str, BaseModel] = field(default_factory=dict)


@dataclass
class _Source:
    """A signal on its way: where it is written, and where its override is."""

    signal: ProfileSignal
    document: Document
    place: Place
    address: BaseModel | None = None


class _Resolver:
    def __init__(self, config: Config, environ: Mapping[str, str] | None) -> None:
        self._config = config
        self._environ = environ
        self._profiles: dict[tuple[str, str], _LoadedProfile | None] = {}
        self._units: dict[str, units.Unit | None] = {}
        self._index = 0
        self._told: set[Problem] = set()
        self.problems: list[Problem] = []
        self._assets: dict[str, Asset] = {}

    # ------------------------------------------------------------------------------------------------- links and devices

    def plan(self) -> Plan:
        config = self._config
        for asset in config.assets:
            self._assets.setdefault(asset.id, asset)
        for link in config.links:
            for device in link.devices:
                if device.asset is None and device.id not in self._assets:
                    self._assets[device.id] = Asset(id=device.id, name=device.name)
        links = [self._link(i, link) for i, link in enumerate(config.links) if link.enabled]
        return Plan(config.gateway, tuple(link for link in links if link is not None), self._assets)

    def _tell(self, *problems: Problem) -> None:
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                self.problems.append(problem)

    def _link(self, index: int, link: LinkSettings) -> PlannedLink | None:
        place: list[str | int] = ["links", index]
        try:
            adapter = registry.load(link.adapter)
        except ConfigError as error:
            if error.reason == "adapter_unknown":
                known = registry.available()
                self._tell(
                    self._config.document.problem(
                        [*place, "adapter"], found=Bilingual(f"the adapter {link.adapter!r}", f"适配器 {link.adapter!r}"),
                        expected=_one_of(sorted(known)), nearest=nearest(link.adapter, known),
                        fix="" if nearest(link.adapter, known) else Bilingual(error.fix_en, error.fix_zh),
                    )
                )  # fmt: skip
                return None
            return PlannedLink(link.id, link.adapter, None, None, (), error)
        settings = self._settings(adapter.LinkSettings, link.settings, [*place, "settings"])
        devices: list[PlannedDevice] = []
        point = 0
        for j, device in enumerate(link.devices):
            planned = self._device(link, adapter, device, [*place, "devices", j], point)
            if planned is not None:
                devices.append(planned)
                point += len(planned.signals)
        if settings is None:
            return None
        pki = self._config.data_dir / PKI
        return PlannedLink(
            link.id,
            link.adapter,
            adapter,
            settings,
            tuple(devices),
            gateway=self._config.gateway.id,
            pki=pki,
            state=self._config.data_dir / LEARNED,
            writes=self._config.writes == "enabled",
        )

    def _settings(self, model: type[BaseModel], data: dict[str, Any], place: Place) -> BaseModel | None:
        document = self._config.document
        ready, problems = settings_with_secrets(
            data, model, base=self._config.base, environ=self._environ, document=document, place=place
        )
        settings, more = check_part(document, place, ready, model)
        self._tell(*problems, *more)
        return settings

    def _device(
        self, link: LinkSettings, adapter: type[Adapter], device: DeviceSettings, place: Place, first: int
    ) -> PlannedDevice | None:
        document = self._config.document
        loaded: _LoadedProfile | None = None
        if device.profile is not None:
            loaded = self._profile(device.profile, link.adapter, adapter, [*place, "profile"])
        profile = loaded.profile if loaded is not None else None
        settings = self._settings(adapter.DeviceSettings, device.settings, [*place, "settings"])
        own_rules = device.rules if profile is None else {**profile.rules, **device.rules}
        rules, problems = check_part(document, [*place, "rules"], own_rules, adapter.Rules)
        if device.rules or profile is None:
            self._tell(*problems)
        groups = {"default": Group(), **(profile.groups if profile is not None else {}), **device.groups}
        sources = self._sources(device, loaded, adapter, place, groups)
        if device.profile is not None and profile is None:
            return None
        signals: list[PlannedSignal] = []
        asset = device.asset or device.id
        for source in sources:
            signal = self._signal(device, source, adapter, place, asset, first + len(signals), groups)
            if signal is not None:
                signals.append(signal)
        if settings is None or rules is None:
            return None
        signals = [_with_ratios(signal, rules) for signal in signals]
        path = path_of(asset, self._assets) or ()
        used = {signal.group for signal in signals} or {"default"}
        return PlannedDevice(
            id=device.id,
            name=device.name,
            link=link.id,
            asset=asset,
            asset_path=tuple(self._assets[a] for a in path if a in self._assets),
            protocol=link.adapter,
            profile=profile.profile if profile is not None else "",
            settings=settings,
            rules=rules,
            groups={name: group.period for name, group in groups.items() if name in used},
            first=first,
            signals=tuple(signals),
            events=(*(profile.events if profile is not None else ()), *device.events),
            clock=device.clock,
            anchor=_anchor(profile, signals) if profile is not None else None,
            options={name: group for name, group in groups.items() if name in used},
        )

    # ---------------------------------------------------------------------------------------------------------- profiles

    def _profile(self, name: str, protocol: str, adapter: type[Adapter], place: Place) -> _LoadedProfile | None:
        key = (name, protocol)
        if key not in self._profiles:
            self._profiles[key] = self._load_profile(name, adapter, place)
        loaded = self._profiles[key]
        if loaded is not None and loaded.profile.protocol != protocol:
            self._tell(
                self._config.document.problem(
                    place,
                    found=Bilingual(
                        f"the profile {name!r}, which is for {loaded.profile.protocol}",
                        f"设备模板 {name!r}，其协议为 {loaded.profile.protocol}",
                    ),
                    expected=Bilingual(
                        f"a profile for {protocol}, as its link's adapter", f"{protocol} 的设备模板，与链路的适配器一致"
                    ),
                    fix=Bilingual(
                        f"Move the device to a link with `adapter: {loaded.profile.protocol}`, or take another profile.",
                        f"请将设备移到 `adapter: {loaded.profile.protocol}` 的链路，或换用其他模板。",
                    ),
                )
            )  # fmt: skip
            return None
        return loaded

    def _load_profile(self, name: str, adapter: type[Adapter], place: Place) -> _LoadedProfile | None:
        try:
            document = read_profile(name, self._config.base)
            profile = validate(document, Profile)
        except DocumentError as error:
            for problem in error.problems:
                if not problem.file or problem.found == NO_SUCH_FILE:
                    here = self._config.document.problem(
                        place,
                        found=problem.found
                        if not problem.file
                        else Bilingual(f"the profile {name!r}, which is no file", f"设备模板 {name!r}，文件不存在"),
                        expected=problem.expected, nearest=problem.nearest, fix=problem.fix,
                    )  # fmt: skip
                    self._tell(here)
                else:
                    self._tell(problem)
            return None
        if profile.protocol != adapter.protocol:
            return _LoadedProfile(profile, document)
        problems = check_addresses(document, profile, None, adapter.Rules)
        addresses: dict[str, BaseModel] = {}
        for index, signal in enumerate(profile.signals):
            address, more = check_part(document, ["signals", index, "address"], signal.address, adapter.Address)
            problems += more
            if address is not None:
                addresses[signal.name] = address
        self._tell(*problems)
        return _LoadedProfile(profile, document, addresses)

    # ----------------------------------------------------------------------------------------------------------- signals

    def _sources(
        self,
        device: DeviceSettings,
        loaded: _LoadedProfile | None,
        adapter: type[Adapter],
        place: Place,
        groups: Mapping[str, Group],
    ) -> list[_Source]:
        """The device's signals from profile and file, and the problems of their names."""
        document = self._config.document
        sources: dict[str, _Source] = {}
        if loaded is not None:
            for index, signal in enumerate(loaded.profile.signals):
                sources[signal.name] = _Source(
                    signal, loaded.document, ["signals", index], loaded.addresses.get(signal.name)
                )
        for index, signal in enumerate(device.signals):
            at = [*place, "signals", index]
            if signal.name in sources:
                in_profile = sources[signal.name].document is not document
                self._tell(
                    document.problem(
                        [*at, "name"],
                        found=Bilingual(f"the signal {signal.name!r} a second time", f"重复的信号 {signal.name!r}"),
                        expected=Bilingual("each name once", "每个名称只出现一次"),
                        fix=Bilingual("The profile has it: change it under `override:`.", "模板中已有：请在 `override:` 中修改。")
                        if in_profile
                        else Bilingual("Rename one of the two.", "请为其中一个改名。"),
                    )
                )  # fmt: skip
                continue
            if signal.group not in groups:
                self._tell(self._unknown_group([*at, "group"], signal.group, groups))
            address, problems = check_part(document, [*at, "address"], signal.address, adapter.Address)
            self._tell(*problems)
            sources[signal.name] = _Source(signal, document, at, address)
        for name, override in device.override.items():
            at = [*place, "override", name]
            if name not in sources and not (device.profile is not None and loaded is None):
                self._tell(
                    document.problem(
                        at, found=Bilingual(f"the signal {name!r}", f"信号 {name!r}"),
                        expected=Bilingual("a signal of the profile or of this device", "模板或本设备的信号"),
                        nearest=nearest(name, sources),
                    )
                )  # fmt: skip
            if override.group is not None and override.group not in groups:
                self._tell(self._unknown_group([*at, "group"], override.group, groups))
        return list(sources.values())

    def _unknown_group(self, place: Place, group: str, groups: Mapping[str, Group]) -> Problem:
        return self._config.document.problem(
            place, found=Bilingual(f"the group {group!r}", f"分组 {group!r}"), expected=_one_of(groups),
            nearest=nearest(group, groups),
            fix=Bilingual("Groups are defined under `groups:` of the device.", "分组在设备的 `groups:` 中定义。"),
        )  # fmt: skip

    def _signal(
        self,
        device: DeviceSettings,
        source: _Source,
        adapter: type[Adapter],
        place: Place,
        asset: str,
        point: int,
        groups: Mapping[str, Group],
    ) -> PlannedSignal | None:
        """The signal with its override, or None for one that is disabled or wrong."""
        override = device.override.get(source.signal.name)
        signal: Signal = source.signal
        address, group = source.address, source.signal.group
        at: Place = [*place, "override", signal.name]
        document = self._config.document
        if override is not None:
            if override.disabled:
                return None
            changed = self._overridden(source.signal, override, at)
            if changed is None:
                return None
            signal, group = changed, override.group or group
            if override.address is not None:
                merged = {**source.signal.address, **override.address}
                merged = {key: value for key, value in merged.items() if value is not None}
                address, problems = check_part(document, [*at, "address"], merged, adapter.Address)
                self._tell(*problems)
        if override is None or "deadband" not in override.model_fields_set:  # null there means none
            signal = _with_deadband(signal, groups.get(group, Group()).deadband)
        converted = self._conversion(signal, source, override, at)
        if address is None or converted is None:
            return None
        unit, scale, offset = converted
        scaled = (scale, offset) != (1.0, 0.0)
        if scaled and signal.type not in NUMBERS:
            self._tell(
                self._part(source, override, at, "scale" if signal.scale != 1 or signal.offset != 0 else "unit").problem(
                    found=Bilingual(f"a scale for a signal of type {signal.type}", f"类型 {signal.type} 的信号带有 scale"),
                    expected=Bilingual("scale and units for numbers only", "scale 与单位只用于数字"),
                )
            )  # fmt: skip
            return None
        planned = PlannedSignal(
            point=point,
            index=self._index,
            device=device.id,
            signal=signal,
            group=group,
            address=address,
            address_text=address_text(address),
            revision=signal.revision(address.model_dump(mode="json", exclude_defaults=True)),
            asset=signal.asset or asset,
            unit=unit,
            scale=scale,
            offset=offset,
            type="float64" if scaled else signal.type,
        )
        self._index += 1
        return planned

    def _overridden(self, signal: ProfileSignal, override: SignalOverride, at: Place) -> Signal | None:
        changes = override.model_dump(exclude_unset=True, exclude={"disabled", "group", "address"})
        changes = {k: v for k, v in changes.items() if v is not None or k not in _NOT_NONE}
        data = {**signal.model_dump(exclude={"group", "address"}), **changes}
        changed, problems = check_part(self._config.document, at, data, Signal)
        self._tell(*problems)
        return changed

    # ------------------------------------------------------------------------------------------------------------- units

    def _part(self, source: _Source, override: SignalOverride | None, at: Place, key: str) -> _Part:
        """Where a key of a signal is written: in its override if it stands there, else with the signal."""
        if override is not None and key in override.model_fields_set:
            return _Part(self._config.document, [*at, key])
        return _Part(source.document, [*source.place, key])

    def _unit(self, text: str, part: _Part) -> units.Unit | None:
        if text not in self._units:
            try:
                self._units[text] = units.resolve(text)
            except units.UnitError as error:
                self._units[text] = None
                self._tell(_no_unit(part, text, sentence(of_error(error))))
                return None
        elif self._units[text] is None:
            told = Bilingual("See the first message about it.", "见关于它的第一条消息。")
            self._tell(_no_unit(part, text, told))
        return self._units[text]

    def _conversion(
        self, signal: Signal, source: _Source, override: SignalOverride | None, at: Place
    ) -> tuple[str, float, float] | None:
        """UCUM code, total scale and total offset."""
        if not signal.unit:
            if signal.source_unit:
                self._tell(
                    self._part(source, override, at, "source_unit").problem(
                        found=Bilingual(
                            f"source_unit {signal.source_unit!r} without `unit`",
                            f"只有 source_unit {signal.source_unit!r}，没有 `unit`",
                        ),
                        expected=Bilingual("both, or `unit` alone", "两者都写，或只写 `unit`"),
                    )
                )  # fmt: skip
                return None
            return "", signal.scale, signal.offset
        unit = self._unit(signal.unit, self._part(source, override, at, "unit"))
        if not signal.source_unit:
            return None if unit is None else (unit.code, signal.scale, signal.offset)
        spoken = self._unit(signal.source_unit, self._part(source, override, at, "source_unit"))
        if unit is None or spoken is None:
            return None
        try:
            units.conversion(spoken, unit)
        except units.UnitError as error:
            part = self._part(source, override, at, "source_unit")
            self._tell(
                part.problem(
                    found=Bilingual(
                        f"source_unit {signal.source_unit!r} with unit {signal.unit!r}",
                        f"source_unit {signal.source_unit!r} 与 unit {signal.unit!r}",
                    ),
                    expected=Bilingual("two units of one quantity", "同一种量的两个单位"),
                    fix=sentence(of_error(error)),
                )
            )  # fmt: skip
            return None
        return unit.code, *total(signal.scale, signal.offset, spoken, unit)


@dataclass(frozen=True)
class _Part:
    document: Document
    place: Place

    def problem(self, *, found: str, expected: str, fix: str = "") -> Problem:
        return self.document.problem(self.place, found=found, expected=expected, fix=fix)


def total(scale: float, offset: float, source: units.Unit, target: units.Unit) -> tuple[float, float]:
    """`scale` and `offset` with the conversion from `source` to `target` after them, rounded once: the decimals that people write
    are taken as they are written, so that 0.1 kW is 100 W exactly."""
    factor = source.scale / target.scale
    shift = (source.offset - target.offset) / target.scale
    return float(Fraction(repr(scale)) * factor), float(Fraction(repr(offset)) * factor + shift)


def _with_ratios(planned: PlannedSignal, rules: BaseModel) -> PlannedSignal:
    """The signal with a revision that holds the ratios by which its numbers are multiplied: another ratio, another meaning."""
    address = planned.address
    if not isinstance(address, ModbusAddress) or not isinstance(rules, ModbusRules) or not address.ratio:
        return planned
    ratios = {name: rules.ratios.get(name) for name in address.ratio}
    meaning = {**address.model_dump(mode="json", exclude_defaults=True), "ratios": ratios}
    return replace(planned, revision=planned.signal.revision(meaning))


def _anchor(profile: Profile, signals: Sequence[PlannedSignal]) -> Anchor | None:
    """The profile's anchor in the unit in which this device's signal is stored, which an override may have changed."""
    anchor = profile.anchor
    wanted = next((s for s in signals if anchor is not None and s.signal.name == anchor.signal), None)
    if anchor is None or wanted is None:
        return anchor
    unit = next(s.unit for s in profile.signals if s.name == anchor.signal)
    if unit == wanted.signal.unit or not unit or not wanted.unit:
        return anchor
    try:
        scale, offset = units.conversion(units.resolve(unit), units.resolve(wanted.unit))
    except units.UnitError:  # another quantity: what the device measures is not what the profile thinks
        return None
    low, high = sorted((anchor.min * scale + offset, anchor.max * scale + offset))
    return anchor.model_copy(update={"min": low, "max": high})


def _with_deadband(signal: Signal, deadband: Deadband | None) -> Signal:
    """The signal with its group's deadband, if that is meant for it."""
    if deadband is None or signal.deadband is not None or signal.type not in NUMBERS:
        return signal
    if signal.kind not in ("measurement", "setting") or signal.store == "every":
        return signal
    if deadband.percent is not None and signal.range is None:
        return signal
    return signal.model_copy(update={"deadband": deadband})


def _no_unit(part: _Part, text: str, fix: str) -> Problem:
    return part.problem(
        found=Bilingual(f"the unit {text!r}", f"单位 {text!r}"), expected=Bilingual("a unit", "有效的单位"), fix=fix
    )


def _one_of(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return Bilingual(f"one of {listed}", f"以下之一：{listed}")
