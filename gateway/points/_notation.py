"""Numbers whose first digit names the table (40001, 400001), as Modicon's PLCs have it.

A digit never chooses the table by itself: 45100 may be holding register 45100 or holding register 5100, and nobody but the manual
knows. It is understood where there is no doubt: in the column that says so, and where a whole column has six digits, which no
address on the wire has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from gateway.points._cells import Cell, chosen, narrow, shown
from gateway.points._grid import Row
from gateway.points.columns import REFERENCE, TABLES

TABLE_OF: Final = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
Tell = Callable[[Row, str, str, str, str], None]
"""Row, column, what was found, and what to write in Chinese and English."""


def understood(text: str) -> tuple[str, int] | None:
    """Table and number (from 1) of 40001 or 400001; None for what is not so written."""
    match = re.fullmatch(r"([0134])(\d{4,5})", text)
    number = int(match[2]) if match else 0
    return (TABLE_OF[match[1]], number) if match and 1 <= number <= 65536 else None


def resolve(rows: Sequence[Row], tell: Tell) -> bool:
    """Puts table and number in place of such cells, in the rows themselves. Returns whether numbers with five digits are taken as
    they are although they might be meant so."""
    for key in ("address", "number"):
        texts = [_digits(row.cells[key]) for row in rows if key in row.cells]
        if (
            texts
            and all(len(text) == 6 and understood(text) for text in texts)
            and any(text[0] != "0" for text in texts)
        ):
            for row in rows:
                if key in row.cells:
                    _convert(row, key, tell)
    for row in rows:
        if REFERENCE in row.cells:
            other = next((key for key in ("address", "number") if key in row.cells), None)
            if other is not None:
                tell(row, REFERENCE, "", "“地址”“编号”和“4x编号”只填其一", "write one of address, number and 4x number")
            _convert(row, REFERENCE, tell)
    return _doubtful(rows)


def _convert(row: Row, key: str, tell: Tell) -> None:
    cell = row.cells[key]
    found = understood(_digits(cell))
    if found is None:
        tell(
            row, key, shown(cell.value), "请写成 40001 或 400001（首位 4 保持寄存器、3 输入寄存器、1 离散输入、0 线圈）",
            "write such as 40001 or 400001 (first digit 4 holding, 3 input, 1 discrete, 0 coil)",
        )  # fmt: skip
        return
    table, number = found
    del row.cells[key]
    row.cells["number"] = Cell(number, cell.place)
    named = row.cells.get("table")
    if named is None:
        row.cells["table"] = Cell(table, cell.place)
        return
    said = chosen(TABLES, narrow(str(named.value)))
    if said is not None and said != table:
        tell(
            row, "table", shown(named.value), f"{shown(cell.value)} 的首位表示 {table}：请使两者一致",
            f"the first digit of {shown(cell.value)} means {table}: make both the same",
        )  # fmt: skip


def _doubtful(rows: Sequence[Row]) -> bool:
    """Whether every number has five digits of which the first is that of its table."""
    seen = 0
    for row in rows:
        for key in ("address", "number"):
            if key not in row.cells:
                continue
            found = understood(_digits(row.cells[key]))
            table = row.cells.get("table")
            if found is None or table is None or chosen(TABLES, narrow(str(table.value))) != found[0]:
                return False
            seen += len(_digits(row.cells[key])) == 5 and found[0] in ("holding", "input")
    return seen > 0


def _digits(cell: Cell) -> str:
    """The digits as the cell shows them, which Excel may keep as a number with a format of zeros."""
    value = cell.value
    if isinstance(value, str):
        return narrow(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        return ""
    text = str(int(value))
    return text.zfill(len(cell.format)) if re.fullmatch("0+", cell.format) else text
