"""From an address space to signals: which companion specification it is, and a row of a point table for each variable."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from adapters.opcua.discovery import Found
from gateway.points._rules import Values
from gateway.points.exporting import Rows, write
from gateway.points.importing import Imported, import_table
from schemas import units
from schemas.model import INTEGER_TYPES, Text


@dataclass(frozen=True, slots=True)
class Recognised:
    """An address space that we know by its namespace URI. `profile` is the shipped one to begin with, empty if there is none."""

    uri: str
    name: Text
    profile: str
    note: Text


_OTHER_URIS: Final = Text(
    zh="该服务器使用 OPC 基金会的命名空间：请复制设备模板并更改其中两个命名空间",
    en="this server uses the OPC Foundation's namespaces: copy the profile and change its two namespaces",
)
_PLC: Final = Text(
    zh="PLC 的变量由程序决定：设备模板只对示例程序适用，一般请用 --pick --table 生成点表",
    en="a PLC's variables are those of its program: the profile fits one program only; make a point table with --pick --table",
)
KNOWN: Final = {
    "http://www.euromap.org/euromap77/": Recognised("", Text(zh="EUROMAP 77 注塑机", en="EUROMAP 77 injection moulding machine"), "euromap77-injection", Text()),
    "http://www.euromap.org/euromap83/": Recognised("", Text(zh="EUROMAP 83 通用类型", en="EUROMAP 83 general types"), "", Text()),
    "http://opcfoundation.org/UA/PlasticsRubber/IMM2MES/": Recognised("", Text(zh="EUROMAP 77 注塑机（OPC 40077）", en="EUROMAP 77 injection moulding machine (OPC 40077)"), "euromap77-injection", _OTHER_URIS),
    "http://opcfoundation.org/UA/PlasticsRubber/GeneralTypes/": Recognised("", Text(zh="EUROMAP 83 通用类型（OPC 40083）", en="EUROMAP 83 general types (OPC 40083)"), "", Text()),
    "http://opcfoundation.org/UA/MachineTool/": Recognised("", Text(zh="机床（OPC 40501）", en="machine tool (OPC 40501)"), "opc40501-machinetool", Text()),
    "http://opcfoundation.org/UA/Machinery/": Recognised("", Text(zh="机械通用（OPC 40001）", en="Machinery (OPC 40001)"), "", Text()),
    "http://www.siemens.com/simatic-s7-opcua": Recognised("", Text(zh="西门子 S7 PLC", en="Siemens S7 PLC"), "siemens-s7-1500-line", _PLC),
}  # fmt: skip
"""Namespace URI -> what it is; the entries' own `uri` is filled by `recognise`."""


def recognise(namespaces: Iterable[str]) -> list[Recognised]:
    """What a server's namespaces tell of it, those with a profile first."""
    found = [
        Recognised(uri, known.name, known.profile, known.note)
        for uri in namespaces
        if (known := KNOWN.get(uri)) is not None
    ]
    return sorted(found, key=lambda r: not r.profile)


def plain_path(path: str) -> str:
    """A browse path without the prefixes of its namespaces: `Hall/Press_A/Data/v0`."""
    return "/".join(re.sub(r"^\d+:", "", part) for part in re.split(r"(?<!&)/", path))


def matches(found: Found, pattern: str) -> bool:
    """Whether a node's name, its path (with or without prefixes) or its NodeId fits a pattern with * and ?, in any case."""
    wanted = pattern.casefold()
    texts = (found.name, plain_path(found.path), found.path, found.node)
    return any(fnmatchcase(text.casefold(), wanted) for text in texts)


_TYPES: Final = {
    "Boolean": "bool", "SByte": "int8", "Byte": "uint8", "Int16": "int16", "UInt16": "uint16", "Int32": "int32",
    "UInt32": "uint32", "Int64": "int64", "UInt64": "uint64", "Float": "float32", "Double": "float64", "String": "string",
    "LocalizedText": "string", "DateTime": "datetime", "UtcTime": "datetime", "ByteString": "bytes", "Duration": "float64",
    "NodeId": "string", "Guid": "string", "QualifiedName": "string", "Integer": "int64", "UInteger": "uint64", "Number": "float64",
    "Enumeration": "int32",
}  # fmt: skip


def value_type(found: Found) -> str:
    """The signal type of a variable: by its data type, else by its present value."""
    match found.value:
        case list() | tuple():
            return "array"
        case dict() if found.type not in _TYPES:
            return "object"
    if found.type in _TYPES:
        return _TYPES[found.type]
    match found.value:
        case bool():
            return "bool"
        case int():
            return "int64"
        case float() | None:
            return "float64"
        case bytes():
            return "bytes"
        case _:
            return "string"


def signal_name(path: str, taken: set[str]) -> str:
    """A signal name from a browse path, different from those in `taken`, to which it is added."""
    parts = [re.sub(r"[^a-z0-9]+", "_", _snake(part)).strip("_") for part in re.split(r"(?<!&)/", plain_path(path))]
    name = "/".join([part for part in parts if part][-4:])[-100:].strip("/_") or "signal"
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate


def _snake(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()


def rows_of(endpoint: str, device: str, picked: Sequence[Found], link: Values | None = None) -> Rows:
    """The rows of a point table: a device at `endpoint` (with further columns in `link`) and a point for each variable.

    A unit that is not understood is left out and stands in the English description.
    """
    points: list[Values] = []
    taken: set[str] = set()
    for found in picked:
        if found.node_class != "Variable":
            continue
        kind = value_type(found)
        point: Values = {
            "device": device, "name": signal_name(found.path or found.name, taken), "node": found.node, "type": kind,
        }  # fmt: skip
        description = found.name
        if found.unit:
            try:
                units.resolve(found.unit)
                point["unit"] = found.unit
            except units.UnitError:
                description = f"{found.name} [{found.unit}]"
        if not description.isascii():
            point["description_zh"] = description
        else:
            point["description_en"] = description
        if kind in ("string", "bytes", "datetime"):
            point["kind"] = "text"
        if found.texts and kind in INTEGER_TYPES:
            point["enum"] = {value: {"zh": text, "en": text} for value, text in sorted(found.texts.items())}
            point["kind"] = "state"
        points.append(point)
    return [{"device": device, "protocol": "opcua", "host": endpoint, "security": "none", **(link or {})}], points


def imported(rows: Rows) -> Imported:
    """The rows as the import of their table would give them, checked as such. Raises TableError."""
    return import_table(write(rows, "csv"), file="browse")


def tree_row(found: Found, time: str) -> dict[str, Any]:
    """A node as a row for people and for JSON; `time` is its source time as text."""
    return {
        "path": plain_path(found.path), "value": found.value, "unit": found.unit, "type": found.type, "time": time,
        "class": found.node_class, "node": found.node, "status": found.status, "name": found.name,
    }  # fmt: skip
