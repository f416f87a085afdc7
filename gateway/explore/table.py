"""A point table to begin with, made of proposals or of bare registers: rows for `gateway.points.exporting.write`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.explore.discover import Report, UnitFound
from gateway.explore.proposal import Proposal
from gateway.explore.words import quantity, reasons
from gateway.points._rules import Values
from gateway.points.exporting import Rows

MOST_POINTS = 2000
"""Bare registers of one unit that a table names at most: nobody reads on in a longer one."""
_PREFIXES = {"holding": "r", "input": "i", "coil": "c", "discrete": "d"}
_ROLES = {"counter": "counter", "state": "state", "text": "text"}


def device_values(device: str, connection: Values, unit: int) -> Values:
    """The row of a device: the columns of its connection, and its unit number."""
    return {"device": device, "protocol": "modbus", **connection, "unit_id": unit}


def rows_of(device: Values, proposals: Sequence[Proposal], language: str) -> Rows:
    """A device (as of `device_values`) and a point for each proposal but the spare registers.

    Names are the place and what it may be: `r30_temperature` is holding register 30, `i30` input register 30. Type, order, scale and
    unit are those proposed, the description names the quantity with a question mark, and the notes (in `language`, zh or en) say how sure it
    is, why, the value now and what other readings would give.
    """
    return [device], [_point(device["device"], one, language) for one in proposals if not one.spare]


def _point(device: str, one: Proposal, language: str) -> Values:
    values: Values = {
        "device": device, "name": _name(one), "table": one.table, "address": one.address, "data_type": one.type,
        "type": one.type if one.scale == 1.0 else "float64", "notes": _notes(one, language.startswith("zh")),
    }  # fmt: skip
    if one.order != "ABCD":
        values["order"] = one.order
    if one.type == "string":
        values |= {"length": one.width, "encoding": "ascii", "kind": "text"}
    if one.guess is not None:
        values |= {"unit": one.guess.unit}
        if one.scale != 1.0:
            values["scale"] = one.scale
        for key, chinese in (("description_zh", True), ("description_en", False)):
            values[key] = f"{quantity(one.guess.quantity, chinese=chinese)}? ×{one.scale:g} {one.guess.unit}"
    return values


def _name(one: Proposal) -> str:
    role = one.guess.quantity if one.guess is not None else next((_ROLES[r] for r in one.reasons if r in _ROLES), "")
    return f"{_PREFIXES[one.table]}{one.address}" + (f"_{role}" if role else "")


def _notes(one: Proposal, chinese: bool) -> str:
    told = reasons(one.reasons, chinese=chinese)
    others = "; ".join(f"{other.type} {other.order} = {shown(other.value)}" for other in one.alternatives[:3])
    now = shown(one.value)
    if chinese:
        return f"把握 {one.confidence:.0%}：{told}。当前原始值 {now}" + (f"。其他解读：{others}" if others else "")
    return f"{one.confidence:.0%} sure: {told}. Raw value {now}" + (f". Otherwise: {others}" if others else "")


def shown(value: Any) -> str:
    """A value in six digits, text in quotes."""
    return f"{value:.6g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)


def rows_of_report(
    report: Report, name: str, connection: Callable[[str], Values], *, language: str
) -> tuple[Rows, list[int]]:
    """The rows of what a search found: a device for each unit and a bare register or bit for each address that can be read.

    `connection` gives the columns of the connection with a setting of the line, such as 9600-8N1. Devices are called `name`, where there are
    several `name-UNIT`. The second part of the answer are the units whose table ends after
    `MOST_POINTS` points.
    """
    devices: list[Values] = []
    points: list[Values] = []
    ended: list[int] = []
    for one in report.units:
        device = name if len(report.units) == 1 else f"{name}-{one.unit}"
        told = " ".join(one.identity.values())
        row = device_values(device, connection(one.setting), one.unit)
        devices.append(row | ({"name_zh": told, "name_en": told} if told else {}))
        bare = [_bare(device, table, address, language) for table, address in _addresses(one)]
        points += bare[:MOST_POINTS]
        if len(bare) > MOST_POINTS:
            ended.append(one.unit)
    return (devices, points), ended


def _addresses(one: UnitFound) -> list[tuple[str, int]]:
    return [
        (table, address)
        for table, found in one.tables.items()
        for start, size in found.ranges
        for address in range(start, start + size)
    ]


def _bare(device: str, table: str, address: int, language: str) -> Values:
    values: Values = {"device": device, "name": f"{_PREFIXES[table]}{address}", "table": table, "address": address}
    if table in ("coil", "discrete"):
        return {**values, "data_type": "bool", "type": "bool"}
    note = "可读；类型未知，explain 可给出建议" if language.startswith("zh") else "can be read; its type is not known"
    return {**values, "data_type": "uint16", "type": "uint16", "notes": note}
