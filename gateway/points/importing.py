"""From a point table to the links, devices and signals of a configuration, or to a profile: whole, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.config.models import Config
from gateway.config.resolve import resolve_all
from gateway.points._cells import CellError, narrow, parse, shown
from gateway.points._data import device_data, link_settings
from gateway.points._grid import Book, Row, Table, TableError, TableProblem, read_bytes, read_table
from gateway.points._notation import resolve
from gateway.points._rules import Values, check_device, check_point
from gateway.points.columns import COMBINED, DEVICES, POINTS, Column
from schemas.bilingual import chinese
from schemas.documents import DocumentError, Problem, nearest, validate
from schemas.model import Text
from schemas.profile import Profile

_DEVICE_KEYS: Final = frozenset(column.key for column in DEVICES.columns)
_COLUMNS: Final = {column.key: column for column in COMBINED}
_LINK_KEYS: Final = (
    "protocol", "host", "port", "transport", "serial", "baud", "parity", "stop", "security", "mode", "certificate", "key", "server_certificate", "user", "password_env",
)  # fmt: skip
"""Device columns that belong to the link, which several devices may share."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A table's content as configuration data: `links` (and `assets` that it names), ready for YAML. `notices` are no mistakes."""

    links: list[dict[str, Any]]
    assets: list[dict[str, Any]]
    notices: list[TableProblem]

    @property
    def points(self) -> int:
        """How many signals it has."""
        return sum(len(d.get("signals", ())) for link in self.links for d in link["devices"])


@dataclass(slots=True)
class _Device:
    values: Values
    row: Row
    letters: dict[str, str]
    points: list[tuple[Values, Row]] = field(default_factory=list)


def import_table(source: Path | bytes, *, file: str = "", base: Path | None = None) -> Imported:
    """The content of an .xlsx or .csv table, checked whole. `source` is the file, or its bytes with `file` as its name.

    `base` is the directory that paths of profiles start from (by default the working directory). Raises TableError with every mistake
    of every sheet at once.
    """
    book = read_table(source) if isinstance(source, Path) else read_bytes(source, file or "table")
    return _Importer(book, base or Path.cwd()).run()


class _Importer:
    def __init__(self, book: Book, base: Path) -> None:
        self.book = book
        self.base = base
        self.problems = book.problems
        self.notices = book.notices
        self.devices: dict[str, _Device] = {}
        self.point_letters: dict[str, str] = {}
        self._bad: set[tuple[str, int]] = set()
        """Rows with a mistake in a cell: what follows from it is not told."""
        self._examples = 0

    def run(self) -> Imported:
        tables = self.book.tables
        if "combined" in tables:
            self._combined(tables["combined"])
        else:
            if "devices" in tables:
                self._device_rows(tables["devices"])
            elif "points" in tables and not self.problems:
                self._tell(None, "", "", "没有“设备”工作表", "there is no sheet 设备 (devices)")
            if "points" in tables:
                self._point_rows(tables["points"])
        if self._examples:
            self.notices.append(TableProblem(self.book.file, "", "", Text(
                zh=f"跳过 {self._examples} 行示例", en=f"{self._examples} rows of examples left out"
            )))  # fmt: skip
        for device in self.devices.values():
            self._check(device)
        if not self.devices and not self.problems:
            self._tell(None, "", "", "表中没有任何设备", "there is no device in the table")
        links, places = self._links()
        assets = self._assets(links)
        if not self.problems:
            self._validate(links, assets, places)
        if self.problems:
            raise TableError(sorted(self.problems, key=_order))
        return Imported(links, assets, self.notices)

    # ---------------------------------------------------------------------------------------------------------------- rows

    def _tell(self, row: Row | None, place: str, found: str, zh: str, en: str) -> None:
        if row is not None:
            self._bad.add((row.sheet, row.number))
        self.problems.append(TableProblem(self.book.file, place, found, Text(zh=zh, en=en)))

    def _values(self, row: Row, columns: Sequence[Column], letters: dict[str, str]) -> Values:
        values: Values = {}
        for column in columns:
            cell = row.cells.get(column.key)
            if cell is None:
                continue
            try:
                values[column.key] = parse(column, cell)
            except CellError as error:
                self._tell(row, row.place(column.key, letters), error.found, error.text.zh, error.text.en)
        return values

    def _example(self, row: Row) -> bool:
        if _is_example(row):
            self._examples += 1
            return True
        return False

    def _resolve_notation(self, table: Table) -> None:
        def tell(row: Row, key: str, found: str, zh: str, en: str) -> None:
            self._tell(row, row.place(key, table.letters), found, zh, en)

        if resolve([row for row in table.rows if not _is_example(row)], tell):
            self.notices.append(TableProblem(self.book.file, "", "", Text(
                zh="地址按原样使用：40001 是 40001 号寄存器；若手册的 40001 指保持寄存器 1，请改填“4x编号”列",
                en="addresses are used as they are: 40001 is register 40001; if the manual's 40001 is holding register 1, "
                "write it under 4x number",
            )))  # fmt: skip

    def _device_rows(self, table: Table) -> None:
        for row in table.rows:
            if self._example(row):
                continue
            values = self._values(row, DEVICES.columns, table.letters)
            name = values.get("device")
            if name is None:
                if "device" not in row.cells:
                    self._tell(row, row.place("device", table.letters), "", "请填写设备编号", "write the device's id")
                continue
            if name in self.devices:
                first = self.devices[name].row.place("device", table.letters)
                self._tell(
                    row, row.place("device", table.letters), repr(name), f"设备编号重复，已在 {first}", f"this device is already at {first}"
                )  # fmt: skip
                continue
            self.devices[name] = _Device(values, row, table.letters)

    def _point_rows(self, table: Table) -> None:
        self.point_letters = table.letters
        self._resolve_notation(table)
        for row in table.rows:
            if self._example(row):
                continue
            values = self._values(row, POINTS.columns, table.letters)
            name = values.get("device")
            if name is None and "device" not in row.cells and len(self.devices) == 1:
                name = next(iter(self.devices))
            if name is None:
                if "device" not in row.cells:
                    self._tell(row, row.place("device", table.letters), "", "请填写设备编号", "write the device's id")
                continue
            device = self.devices.get(name)
            if device is None:
                near = nearest(name, self.devices)
                self._tell(
                    row, row.place("device", table.letters), repr(name),
                    "“设备”工作表中没有这个设备" + (f"；是否应为 {near}？" if near else ""),
                    "the sheet 设备 (devices) has no such device" + (f": did you mean {near}?" if near else ""),
                )  # fmt: skip
                continue
            device.points.append((values, row))

    def _combined(self, table: Table) -> None:
        self.point_letters = table.letters
        last: _Device | None = None
        self._resolve_notation(table)
        for row in table.rows:
            if self._example(row):
                continue
            values = self._values(row, COMBINED, table.letters)
            name = values.get("device")
            if name is None:
                if "device" in row.cells:
                    continue
                if last is None:
                    self._tell(row, row.place("device", table.letters), "", "请填写设备编号", "write the device's id")
                    continue
                name = last.values["device"]
            own = {key: value for key, value in values.items() if key in _DEVICE_KEYS}
            device = self.devices.get(name)
            if device is None:
                device = self.devices[name] = _Device({"device": name, **own}, row, table.letters)
            else:
                for key, value in own.items():
                    if key in device.values and device.values[key] != value:
                        self._differs(row, key, value, device, table.letters)
                    device.values.setdefault(key, value)
            last = device
            point = {key: value for key, value in values.items() if key not in _DEVICE_KEYS or key == "device"}
            if any(key not in _DEVICE_KEYS for key in row.cells):
                device.points.append((point, row))

    def _differs(self, row: Row, key: str, value: Any, first: _Device, letters: dict[str, str]) -> None:
        column = _COLUMNS[key]
        there = first.row.place(key, first.letters)
        self._tell(
            row, row.place(key, letters), shown(value),
            f"“{column.zh}”与 {there} 的 {shown(first.values[key])} 不一致；请填写相同内容",
            f"{column.en} is {shown(first.values[key])} at {there}: write the same",
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------------- checks

    def _check(self, device: _Device) -> None:
        for key, found, zh, en in check_device(device.values, set(device.row.cells)):
            self._tell(device.row, device.row.place(key, device.letters), found, zh, en)
        seen: dict[str, Row] = {}
        periods: dict[str, tuple[float, Row]] = {}
        for values, row in device.points:
            bad_before = (row.sheet, row.number) in self._bad
            for key, found, zh, en in check_point(values, set(row.cells), device.values.get("protocol")):
                if not bad_before or found or key not in values:
                    self._tell(row, row.place(key, self.point_letters), found, zh, en)
            name = values.get("name")
            if name in seen:
                there = seen[name].place("name", self.point_letters)
                self._tell(
                    row, row.place("name", self.point_letters), repr(name), f"同一设备的信号名重复，已在 {there}",
                    f"this device's signal is already at {there}",
                )  # fmt: skip
            elif name is not None:
                seen[name] = row
            group, period = values.get("group", "default"), values.get("period")
            if period is not None:
                first = periods.setdefault(group, (period, row))
                if first[0] != period:
                    there = first[1].place("period", self.point_letters)
                    self._tell(
                        row, row.place("period", self.point_letters), shown(period),
                        f"同组的采集周期须相同，{there} 是 {first[0]:g} 秒；否则请填写另一个“采集组”",
                        f"one group has one period, {first[0]:g} s at {there}: write the same, or another scan group",
                    )  # fmt: skip
        if "profile" not in device.values:
            for values, row in device.points:
                group = values.get("group", "default")
                if group != "default" and group not in periods and (row.sheet, row.number) not in self._bad:
                    periods[group] = (1.0, row)
                    self._tell(
                        row, row.place("period", self.point_letters), "", f"请填写采集组 {group} 的采集周期",
                        f"write the period of the scan group {group}",
                    )  # fmt: skip
            if not device.points and (device.row.sheet, device.row.number) not in self._bad:
                self._tell(
                    device.row, device.row.place("device", device.letters), repr(device.values["device"]),
                    "该设备没有点位，也没有设备模板；请在“点位”中添加，或填写设备模板",
                    "a device without points and without a profile: add points, or write its profile",
                )  # fmt: skip

    # --------------------------------------------------------------------------------------------------------------- result

    def _links(self) -> tuple[list[dict[str, Any]], dict[str, tuple[_Device, Row | None]]]:
        """The links, and for the path of each device and signal its rows."""
        grouped: dict[str, list[_Device]] = {}
        by_address: dict[tuple[Any, ...], str] = {}
        for name, device in self.devices.items():
            values = device.values
            address = tuple(values.get(key) for key in ("protocol", "host", "port", "transport", "serial"))
            link = values.get("link") or by_address.setdefault(address, name)
            grouped.setdefault(link, []).append(device)
        links: list[dict[str, Any]] = []
        places: dict[str, tuple[_Device, Row | None]] = {}
        for i, (link, devices) in enumerate(grouped.items()):
            shared: Values = {}
            for device in devices:
                for key in _LINK_KEYS:
                    if key not in device.values:
                        continue
                    if key in shared and shared[key] != device.values[key]:
                        owner = next(d for d in devices if key in d.values)
                        self._differs(device.row, key, device.values[key], owner, device.letters)
                    shared.setdefault(key, device.values[key])
            places[f"links[{i}]"] = (devices[0], None)
            for j, device in enumerate(devices):
                places[f"links[{i}].devices[{j}]"] = (device, None)
                for k, (_, row) in enumerate(device.points):
                    places[f"links[{i}].devices[{j}].signals[{k}]"] = (device, row)
            links.append({
                "id": link, "adapter": shared.get("protocol", ""), "settings": link_settings(shared),
                "devices": [device_data(d.values, [values for values, _ in d.points]) for d in devices],
            })  # fmt: skip
        return links, places

    def _assets(self, links: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        devices = [d for link in links for d in link["devices"]]
        own = {d["id"] for d in devices if "asset" not in d}
        named = [d.get("asset") for d in devices] + [s.get("asset") for d in devices for s in d.get("signals", ())]
        return [{"id": name} for name in dict.fromkeys(named) if name is not None and name not in own]

    def _validate(
        self, links: list[dict[str, Any]], assets: list[dict[str, Any]], places: dict[str, tuple[_Device, Row | None]]
    ) -> None:
        """What the models and the adapters find, told at the cell that it came from."""
        try:
            config = validate({"links": links, "assets": assets}, Config, self.book.file, context={"base": self.base})
            config._base = self.base
            problems = resolve_all(config, None)[1]
        except DocumentError as error:
            problems = error.problems
        for problem in problems:
            place = self._place_of(problem, places)
            en = f"expected {problem.expected}" if problem.expected else ""
            zh = f"应为 {chinese(problem.expected)}" if problem.expected else ""
            if problem.nearest:
                en += f", did you mean {problem.nearest}?"
                zh += f"，是否指 {problem.nearest}？"
            en = f"{en} {problem.fix}".strip() or str(problem)
            zh = f"{zh}{'。' if zh and not zh.endswith('？') else ''}{chinese(problem.fix)}" or problem.text("zh")
            self._tell(None, place, problem.found, f"不符合要求：{zh}", en)

    def _place_of(self, problem: Problem, places: Mapping[str, tuple[_Device, Row | None]]) -> str:
        match = re.match(r"links\[\d+\](\.devices\[\d+\](\.signals\[\d+\])?)?", problem.path)
        if match is None:
            return problem.path
        device, row = places[match[0]]
        rest = problem.path[match.end() :].strip(".")
        if row is not None:
            return row.place(
                _SIGNAL_PLACES.get(rest) or _SIGNAL_PLACES.get(rest.split(".")[0], "name"), self.point_letters
            )
        return device.row.place(
            _DEVICE_PLACES.get(rest) or _DEVICE_PLACES.get(rest.split(".")[0], "device"), device.letters
        )


def _is_example(row: Row) -> bool:
    cell = row.cells.get("device")
    return cell is not None and narrow(str(cell.value)).casefold().startswith(("示例", "(example)"))


_SIGNAL_PLACES: Final[dict[str, str]] = {
    "address": "address", "address.type": "data_type", "counter": "counts", "range": "low", "description": "description_zh",
    **{f"address.{k}": k for k in ("table", "address", "number", "order", "length", "encoding", "sentinels", "node", "path", "sampling", "queue")},
    **{f"address.{k}": k for k in ("byte", "count", "padding", "layout", "zone", "fields", "atomic", "ratio", "scale_by", "select", "faults")},
    **{f"counter.{k}": k for k in ("counts", "per_count", "modulus", "resets_on", "may_decrease", "max_rate")},
    **{k: k for k in ("name", "type", "unit", "source_unit", "scale", "offset", "bit", "bits", "kind", "deadband", "enum", "silence", "store", "group", "asset", "semantic_id")},
}  # fmt: skip
_SIGNAL_PLACES["asset"] = "signal_asset"
_DEVICE_PLACES: Final[dict[str, str]] = {
    "adapter": "protocol", "settings.endpoint": "host", "settings.unit": "unit_id", "settings": "host", "id": "device",
    "settings.security": "security", "settings.security.mode": "mode", "settings.password": "password_env", "rules": "namespaces",
    **{f"settings.{k}": k for k in ("host", "port", "transport", "serial", "baud", "parity", "stop", "user", "root")},
    "rules.ratios": "ratio_values",
    **{f"settings.security.{k}": k for k in ("certificate", "key", "server_certificate")},
    **{k: k for k in ("profile", "asset", "link")},
}  # fmt: skip


def _order(problem: TableProblem) -> tuple[str, int, int, str]:
    match = re.search(r"([A-Z]*|\d+:)(\d+)$", problem.place)
    sheet = problem.place.partition("!")[0] if "!" in problem.place else ""
    rank = "0" if sheet in (DEVICES.zh, DEVICES.en) else "1"
    return (rank + sheet, int(match[2]), len(match[1]), match[1]) if match else ("", 0, 0, problem.place)


def profile_of(imported: Imported, name: str, source: str) -> dict[str, Any]:
    """The points of a table's only device as a profile named `name`; `source` says where the facts come from.

    Raises TableError unless the table has exactly one device with points and no profile.
    """
    devices = [(link, d) for link in imported.links for d in link["devices"]]
    if len(devices) != 1 or "profile" in devices[0][1]:
        raise TableError([TableProblem(source, "", "", Text(
            zh=f"做成模板需要表中恰好一个设备，且没有设备模板；现有 {len(devices)} 个",
            en=f"a profile is made of exactly one device without a profile of its own; there are {len(devices)}",
        ))])  # fmt: skip
    link, device = devices[0]
    named = device.get("name") or {"zh": name, "en": name}
    data: dict[str, Any] = {
        "profile": name, "version": 1, "protocol": link["adapter"], "name": named,
        "source": {"document": source}, "verified": "none", "licence": "unpublished",
    }  # fmt: skip
    groups = device.get("groups", {})
    if groups:
        data["groups"] = groups if "default" in groups else {"default": {"period": 1.0}, **groups}
    rules: dict[str, Any] = dict(device.get("rules", {}))
    if "root" in device.get("settings", {}):
        rules["root"] = device["settings"]["root"]
    if rules:
        data["rules"] = rules
    data["signals"] = device["signals"]
    try:
        validate(data, Profile, source)
    except DocumentError as error:
        raise TableError([
            TableProblem(source, p.path, p.found, Text(zh=f"应为 {p.expected} {p.fix}", en=f"expected {p.expected} {p.fix}"))
            for p in error.problems
        ]) from None  # fmt: skip
    return data
