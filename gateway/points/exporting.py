"""From a configuration to a point table, and the empty table with examples: workbooks and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.comments import Comment
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.datavalidation import DataValidation

from gateway.config.models import Config, DeviceSettings, LinkSettings
from gateway.points._cells import escaped
from gateway.points._grid import TableError
from gateway.points._rules import Values
from gateway.points.columns import COMBINED, DEVICES, POINTS, SHEETS, Column, Sheet
from gateway.points.importing import import_table
from schemas.documents import path_text
from schemas.model import Text
from schemas.profile import BUILT_IN_ADDRESSES, ProfileSignal

Form = Literal["xlsx", "csv", "csv-gbk"]
_EXACT: Final = 10**15
_LIST_MOST: Final = 255
"""Longest list that a validation may hold inline (ECMA-376 part 1 §18.3.1.32 as Excel reads it)."""
_TEXT_FORMAT: Final = "@"
_TEXTUAL: Final = frozenset(
    {
        "id",
        "signal",
        "text",
        "code",
        "node",
        "path",
        "enum",
        "pairs",
        "sentinels",
        "bits",
        "resets",
        "register",
        "fields",
        "words",
        "factor",
        "selector",
        "ratios",
    }
)
NOTES: Final = Column("notes", "备注", "notes", "text", width=60)
"""What whoever edits the table should know of a row. Written behind the other columns where a row has it; import leaves it aside."""
Rows = tuple[Sequence[Values], Sequence[Values]]
"""The rows of 设备 and of 点位."""


def write(rows: Rows, form: Form, language: str = "zh") -> bytes:
    """A table with these rows: a workbook, or CSV in UTF-8 (with a byte order mark, for Excel) or GBK (GB 18030).

    Besides the columns of the sheets a row may hold `notes` (text), which no import reads.
    """
    if form == "xlsx":
        return _workbook(rows, language)
    devices = {values["device"]: values for values in rows[0]}
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    combined: list[Values] = []
    told: set[str] = set()
    by_device: dict[str, list[Values]] = {name: [] for name in devices}
    for point in rows[1]:
        by_device.setdefault(point["device"], []).append(point)
    for name, points in by_device.items():
        for point in points or [{"device": name}]:
            combined.append({**(devices.get(name, {}) if name not in told else {}), **point})
            told.add(name)
    used = [c for c in COMBINED if not combined or c.key in _CSV_ALWAYS or any(c.key in row for row in combined)]
    used += _noted(combined)
    writer.writerow([column.heading(language) for column in used])
    for row in combined:
        writer.writerow([_csv_text(_written(column, row.get(column.key), language)) for column in used])
    return out.getvalue().encode("gb18030" if form == "csv-gbk" else "utf-8-sig")


def _noted(rows: Sequence[Values]) -> list[Column]:
    return [NOTES] if any(NOTES.key in row for row in rows) else []


_CSV_ALWAYS: Final = frozenset({"device", "protocol", "host", "name", "unit"})


def _csv_text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _written(column: Column, value: Any, language: str) -> Any:
    """What stands in a cell for a value: text or number."""
    if value is None:
        return None
    zh = language.startswith("zh")
    match column.kind:
        case "bool":
            return ("是" if value else "否") if zh else ("yes" if value else "no")
        case "enum":
            return "; ".join(f"{key}={_enum_text(text)}" for key, text in value.items())
        case "pairs":
            return "; ".join(f"{key}={escaped(text)}" for key, text in value.items())
        case "ratios":
            return "; ".join(f"{name}={number!r}" for name, number in value.items())
        case "sentinels":
            return "; ".join(f"0x{raw:X}={name}" for raw, name in value.items())
        case "fields":
            return "; ".join(
                f"{name}={first}" + (f",{number}" if number != 1 else "") for name, (first, number) in value.items()
            )
        case "bits" | "resets" | "words":
            return ",".join(str(part) for part in value)
        case "deadband":
            return f"{value['percent']!r}%" if "percent" in value else value["absolute"]
        case "register" | "int":
            return str(value) if value >= _EXACT else value
        case "number" | "duration":
            return value
        case _:
            return str(value)


def _enum_text(text: Mapping[str, str]) -> str:
    zh, en = escaped(text.get("zh", "")), escaped(text.get("en", ""))
    return zh if zh == en else f"{zh}|{en}"


# -------------------------------------------------------------------------------------------------------------- workbook


def _workbook(rows: Rows, language: str) -> bytes:
    workbook = Workbook()
    workbook.remove(workbook.active)
    for sheet, values in zip(SHEETS, rows, strict=True):
        _sheet(workbook, sheet, values, language)
    out = io.BytesIO()
    workbook.save(out)
    return out.getvalue()


def _sheet(workbook: Any, sheet: Sheet, rows: Sequence[Values], language: str) -> None:
    page = workbook.create_sheet(sheet.title(language))
    last = max(2_000, len(rows) + 500)
    columns = (*sheet.columns, *_noted(rows))
    for number, column in enumerate(columns, 1):
        letter = get_column_letter(number)
        head = page.cell(1, number, column.heading(language))
        head.font = Font(bold=True, color="FFFFFF")
        head.fill = PatternFill("solid", fgColor=_COLOURS[column.protocol])
        head.alignment = Alignment(vertical="center", wrap_text=True)
        note = column.note.get(language)
        if note:
            head.comment = Comment(note, "Guantong")
        page.column_dimensions[letter].width = column.width
        if column.kind in _TEXTUAL:
            page.column_dimensions[letter].number_format = _TEXT_FORMAT  # so that Excel leaves ids as they are
        formula = _list_of(column, sheet, language)
        if formula is not None:
            validation = DataValidation(type="list", formula1=formula, allow_blank=True, showErrorMessage=False)
            validation.add(f"{letter}2:{letter}{last}")
            page.add_data_validation(validation)
    page.freeze_panes = "B2" if sheet is DEVICES else "C2"
    page.row_dimensions[1].height = 32
    for r, values in enumerate(rows, 2):
        for c, column in enumerate(columns, 1):
            value = _written(column, values.get(column.key), language)
            if value is None:
                continue
            cell = page.cell(r, c)
            if isinstance(value, str):
                cell.value = ILLEGAL_CHARACTERS_RE.sub("", value)
                cell.data_type = "s"  # never a formula, whatever it begins with
                cell.number_format = _TEXT_FORMAT
            elif isinstance(value, float) and float(f"{value:.16g}") != value:
                cell.value = repr(value)  # as a number openpyxl would keep sixteen digits of it
                cell.data_type = "s"
            else:
                cell.value = value


_COLOURS: Final = {"": "1F4E79", "modbus": "7F6000", "opcua": "375623"}


def _list_of(column: Column, sheet: Sheet, language: str) -> str | None:
    if column.kind == "choice":
        listed = ",".join(column.choices)
        return f'"{listed}"' if len(listed) <= _LIST_MOST else None
    if column.kind == "bool":
        return '"是,否"' if language.startswith("zh") else '"yes,no"'
    if column.key == "device" and sheet is POINTS:
        return f"'{DEVICES.title(language)}'!$A$2:$A$2000"
    return None


def template(form: Form = "xlsx", language: str = "zh") -> bytes:
    """An empty table with drop-downs and a row of example for each protocol, which import leaves out."""
    sign = "示例-" if language.startswith("zh") else "(example) "
    devices: list[Values] = [
        {"device": f"{sign}plc-1", "name_zh": "1号线PLC", "name_en": "PLC of line 1", "protocol": "opcua", "host": "opc.tcp://192.168.1.20:4840", "security": "none"},
        {"device": f"{sign}meter-1", "name_zh": "1号电表", "name_en": "Meter 1", "protocol": "modbus", "host": "192.168.1.30", "port": 502, "transport": "tcp", "unit_id": 1},
        {"device": f"{sign}meter-2", "name_zh": "2号电表（串口）", "name_en": "Meter 2 (serial)", "protocol": "modbus", "serial": "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0", "baud": 9600, "parity": "E", "stop": 1, "unit_id": 2, "ratio_values": {"ct": 40.0}},
    ]  # fmt: skip
    points: list[Values] = [
        {"device": f"{sign}plc-1", "name": "cycle/count", "description_zh": "产量", "description_en": "Parts", "node": "ns=3;s=DB_Line.Count", "type": "uint32", "unit": "件", "kind": "counter", "counts": "good part", "period": 1.0},
        {"device": f"{sign}meter-1", "name": "temperature", "description_zh": "温度", "description_en": "Temperature", "table": "holding", "address": 4096, "data_type": "int16", "unit": "℃", "scale": 0.1, "low": -40.0, "high": 400.0, "sentinels": {0x8000: "BadSensorFailure"}, "period": 1.0},
        {"device": f"{sign}meter-1", "name": "power/total", "description_zh": "总功率", "description_en": "Total power", "table": "input", "number": 53, "data_type": "float32", "order": "CDAB", "unit": "kW", "deadband": {"percent": 0.5}, "low": 0.0, "high": 500.0},
        {"device": f"{sign}meter-2", "name": "current/l1", "description_zh": "A相电流", "description_en": "Current L1", "reference": "40007", "data_type": "float32", "type": "float64", "ratio": ["ct"], "unit": "A"},
    ]  # fmt: skip
    return write((devices, points), form, language)


# ---------------------------------------------------------------------------------------------------------------- export


def rows_of(config: Config) -> Rows:
    """The rows of a configuration's links; what a table has no column for is left out."""
    devices: list[Values] = []
    points: list[Values] = []
    for link in config.links:
        if link.adapter not in BUILT_IN_ADDRESSES:
            continue
        for device in link.devices:
            devices.append(_device_values(link, device))
            points += [_point_values(link.adapter, device, signal) for signal in device.signals]
    return devices, points


def export_table(config: Config, form: Form = "xlsx", language: str = "zh") -> tuple[bytes, list[Text]]:
    """The table of a configuration, and what of its links it cannot hold, found by importing it again."""
    data = write(rows_of(config), form, language)
    notices: list[Text] = []
    try:
        imported = import_table(data, file="table", base=config.base)
    except TableError as error:
        notices = [
            Text(zh=f"导出的表无法再导入：{p.told('zh')}", en=f"the table cannot be imported again: {p.told('en')}")
            for p in error.problems
        ]
        return data, notices
    again = {link["id"]: LinkSettings.model_validate(link) for link in imported.links}
    for link in config.links:
        for lost in _lost(comparable(link), comparable(again[link.id]) if link.id in again else {}, (link.id,)):
            notices.append(Text(zh=f"点表无法表示：{lost}", en=f"a table cannot hold {lost}"))
    return data, notices


def _lost(before: Any, after: Any, place: tuple[str | int, ...]) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key):
                yield from _lost(before.get(key), after.get(key), (*place, str(key)))
    elif before != after:
        yield path_text(place)


def comparable(link: LinkSettings) -> dict[str, Any]:
    """A link with its devices and signals by their ids, addresses and security in one spelling: equal when they mean the same."""
    data = link.model_dump(mode="json")
    settings = data["settings"]
    security = settings.get("security")
    if isinstance(security, Mapping) and set(security) == {"policy"}:
        settings["security"] = security["policy"]
    model = BUILT_IN_ADDRESSES.get(link.adapter)
    for device in data["devices"]:
        for signal in device["signals"]:
            if model is not None:
                signal["address"] = model.model_validate(signal["address"]).model_dump(mode="json")
        device["signals"] = {signal["name"]: signal for signal in device["signals"]}
    data["devices"] = {device["id"]: device for device in data["devices"]}
    return data


def _device_values(link: LinkSettings, device: DeviceSettings) -> Values:
    settings = link.settings
    values: Values = {"device": device.id, "link": link.id, "protocol": link.adapter}
    values |= {f"name_{lang}": text for lang, text in (("zh", device.name.zh), ("en", device.name.en)) if text}
    host = settings.get("endpoint") if link.adapter == "opcua" else settings.get("host")
    values["host"] = (
        host[0] if isinstance(host, list) and host else host
    )  # a table has room for the first of redundant servers
    values |= {
        key: settings[key]
        for key in ("port", "transport", "serial", "baud", "parity", "stop", "user")
        if key in settings
    }
    security = settings.get("security")
    if isinstance(security, Mapping):
        values["security"] = security.get("policy")
        values |= {k: security[k] for k in ("mode", "certificate", "key", "server_certificate") if k in security}
    elif security is not None:
        values["security"] = security
    password = settings.get("password")
    if isinstance(password, Mapping) and "env" in password:
        values["password_env"] = password["env"]
    values |= {
        to: device.settings[key] for key, to in (("unit", "unit_id"), ("root", "root")) if key in device.settings
    }
    for key, to in (("namespaces", "namespaces"), ("ratios", "ratio_values")):
        if isinstance(device.rules.get(key), Mapping):
            values[to] = device.rules[key]
    values |= {key: getattr(device, key) for key in ("profile", "asset") if getattr(device, key) is not None}
    return {key: value for key, value in values.items() if value is not None}


def _point_values(protocol: str, device: DeviceSettings, signal: ProfileSignal) -> Values:
    values = signal_values(protocol, signal)
    if signal.group in device.groups:
        values["period"] = device.groups[signal.group].period
    return {"device": device.id, **values}


def signal_values(protocol: str, signal: ProfileSignal) -> Values:
    """The columns of a signal of a built-in protocol: those that are not as they are by themselves."""
    data = signal.model_dump(mode="json", exclude_defaults=True)
    values: Values = {"name": signal.name, "type": signal.type}
    for key in (
        "unit",
        "source_unit",
        "kind",
        "semantic_id",
        "scale",
        "offset",
        "bit",
        "bits",
        "silence",
        "store",
        "group",
    ):
        if key in data:
            values[key] = data[key]
    values |= {f"description_{lang}": text for lang in ("zh", "en") if (text := getattr(signal.description, lang))}
    if signal.deadband is not None:
        values["deadband"] = signal.deadband.model_dump(exclude_none=True)
    if signal.enum is not None:
        values["enum"] = {key: text.model_dump() for key, text in signal.enum.items()}
    if signal.range is not None:
        values["low"], values["high"] = signal.range
    if signal.counter is not None:
        values |= {
            k: v for k, v in signal.counter.model_dump(mode="json", exclude_defaults=True).items() if v is not None
        }
        values["counts"] = signal.counter.counts
    if signal.asset is not None:
        values["signal_asset"] = signal.asset
    address = BUILT_IN_ADDRESSES[protocol].model_validate(signal.address)
    found = address.model_dump(exclude_defaults=True)
    kind = getattr(address, "type", None)
    found.pop("type", None)
    if kind is not None:
        values["data_type"] = kind
    found |= {key: str(getattr(address, key)) for key in ("scale_by", "select") if key in found}
    return {**values, **found}
