"""A table's cells from a workbook or a CSV file: which sheet, which row holds the headings, which column means what."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openpyxl import load_workbook
from openpyxl.utils import coordinate_to_tuple, get_column_letter

from gateway.points._cells import FORMULA, Cell, blank
from gateway.points.columns import COMBINED, IGNORED, SHEETS, Column, by_heading, folded
from schemas.bilingual import chinese
from schemas.documents import nearest
from schemas.model import Text

MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_UNPACKED: Final = 512 * 1024 * 1024
_MAX_ROWS: Final = 200_000
_MAX_COLUMNS: Final = 1_000
_MAX_MERGED: Final = 1_000_000
"""Cells of one merge; a larger one is decoration."""
_HEADINGS_WITHIN: Final = 12
"""The headings stand in one of the first rows."""


@dataclass(frozen=True, slots=True)
class TableProblem:
    """One mistake in a table: the file, the sheet and cell (点位!F12), what was found, and what to write instead."""

    file: str
    place: str
    found: str
    text: Text

    def told(self, language: str) -> str:
        """One line in zh or en."""
        where = f"{self.file}: {self.place}: " if self.place else f"{self.file}: "
        if not self.found:
            return where + self.text.get(language)
        return (
            where
            + (f"填的是 {chinese(self.found)}：" if language.startswith("zh") else f"found {self.found}: ")
            + self.text.get(language)
        )

    def __str__(self) -> str:
        return self.told("en")


class TableError(Exception):
    """A table cannot be imported; `problems` holds every mistake, in the order of sheets and rows."""

    def __init__(self, problems: Sequence[TableProblem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(slots=True)
class Row:
    """A row: its cells by column key; blank ones are left out."""

    sheet: str
    number: int
    cells: dict[str, Cell]

    def place(self, key: str, letters: dict[str, str]) -> str:
        """`点位!F12` of one of its cells, also of a blank one; the row (点位!12:12) for a column that is not there."""
        cell = self.cells.get(key)
        if cell is not None:
            reference = cell.place
        else:
            reference = f"{letters[key]}{self.number}" if key in letters else f"{self.number}:{self.number}"
        return f"{self.sheet}!{reference}" if self.sheet else reference


@dataclass(slots=True)
class Table:
    """The rows below the headings of one sheet. `letters`: column key -> its letter."""

    key: str
    title: str
    rows: list[Row]
    letters: dict[str, str]


@dataclass(slots=True)
class Book:
    """What a file holds: `devices` and `points`, or `combined`. `notices` are no mistakes."""

    file: str
    tables: dict[str, Table] = field(default_factory=dict)
    problems: list[TableProblem] = field(default_factory=list)
    notices: list[TableProblem] = field(default_factory=list)


def read_table(path: Path) -> Book:
    """The cells of an .xlsx or .csv file. Raises TableError for a file that cannot be read at all."""
    file = path.name
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise TableError(
            [_problem(file, "", "", f"无法读取：{error.strerror}", f"cannot be read: {error.strerror}")]
        ) from None
    return read_bytes(data, file)


def read_bytes(data: bytes | None, file: str) -> Book:
    """As `read_table`, of a file's content (None: it is too large). `file` is its name, whose ending does not matter."""
    if data is None or len(data) > MAX_BYTES:
        raise TableError(
            [_problem(file, "", "", "文件超过 16 MB，不像点表", "more than 16 MB: this is no point table")]
        )
    if data[:4] == b"PK\x03\x04":
        return _workbook(data, file)
    if data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise TableError([
            _problem(file, "", "", "这是旧的 .xls 或加密的文件；请另存为 .xlsx（不加密）", "an old .xls or an encrypted file: save it as .xlsx, without a password")
        ])  # fmt: skip
    return _csv(data, file)


def _problem(file: str, place: str, found: str, zh: str, en: str) -> TableProblem:
    return TableProblem(file, place, found, Text(zh=zh, en=en))


# -------------------------------------------------------------------------------------------------------------- workbook

Grid = dict[tuple[int, int], Cell]
"""(row, column) from 1 -> cell."""


def _workbook(data: bytes, file: str) -> Book:
    broken = _problem(
        file,
        "",
        "",
        "不是可用的 .xlsx 文件；请用 Excel 或 WPS 打开后另存为 .xlsx",
        "no usable .xlsx file: open it in Excel or WPS and save it as .xlsx",
    )
    formulas: dict[str, list[str]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_UNPACKED:
                raise TableError([broken])
            sheets = [n for n in archive.namelist() if n.startswith("xl/worksheets/sheet")]
            has_formulas = any(re.search(rb"<f[ >/]", archive.read(name)) for name in sheets)
        workbook = load_workbook(io.BytesIO(data), data_only=True)
        if has_formulas:
            for sheet in load_workbook(io.BytesIO(data)):
                formulas[sheet.title] = [c.coordinate for c in _written(sheet) if c.data_type == "f"]
    except TableError:
        raise
    except Exception as error:  # a damaged archive makes zipfile, the XML parser and openpyxl raise anything
        raise TableError([broken]) from error
    book = Book(file)
    for sheet in workbook.worksheets:
        known = next((s for s in SHEETS if folded(sheet.title) in {folded(t) for t in (s.zh, s.en, *s.synonyms)}), None)
        if known is None and len(workbook.worksheets) > 1:
            continue
        columns = known.columns if known is not None else COMBINED
        key = known.key if known is not None else "combined"
        if key in book.tables:
            continue
        grid, merged_down, covered = _cells_of(sheet, book)
        for reference in formulas.get(sheet.title, ()):
            at = coordinate_to_tuple(reference)
            if blank(grid.get(at)):
                grid[at] = Cell(FORMULA, reference)
        _take(book, key, sheet.title, grid, columns, merged_down, covered)
    if "combined" not in book.tables and "points" not in book.tables and "devices" not in book.tables:
        listed = "、".join(s.title for s in workbook.worksheets)
        book.problems.append(_problem(
            file, "", listed, "没有“设备”和“点位”工作表；可用 guantong points template 生成模板",
            "there is no sheet 设备 (devices) and 点位 (points): `guantong points template` writes one",
        ))  # fmt: skip
    return book


def _written(sheet: Any) -> list[Any]:
    """The cells that the file has. Not by `iter_rows`, which makes every other cell up to the furthest one, and a colour for a whole
    column or row lies at the end of the sheet, among 17,000 million cells."""
    return [cell for _, cell in sorted(sheet._cells.items())]


def _cells_of(
    sheet: Any,
    book: Book,
) -> tuple[Grid, dict[tuple[int, int], tuple[int, int]], dict[tuple[int, int], tuple[int, int]]]:
    """Cells; those of merges that continue the one above them; and those that continue the one to their left."""
    grid: Grid = {}
    for cell in _written(sheet):
        if cell.value is None and cell.data_type != "f":
            continue
        if cell.row > _MAX_ROWS or cell.column > _MAX_COLUMNS:
            _too_far(book, f"{sheet.title}!{cell.coordinate}", str(cell.value))
            break
        grid[cell.row, cell.column] = Cell(cell.value, cell.coordinate, str(cell.number_format or ""))
    down: dict[tuple[int, int], tuple[int, int]] = {}
    across: dict[tuple[int, int], tuple[int, int]] = {}
    for merge in sheet.merged_cells.ranges:
        first = (merge.min_row, merge.min_col)
        rows, columns = merge.max_row - merge.min_row, merge.max_col - merge.min_col
        if rows > _MAX_ROWS or (rows + 1) * (columns + 1) > _MAX_MERGED:
            continue
        for r in range(merge.min_row, merge.max_row + 1):
            if r > merge.min_row:
                down[r, merge.min_col] = first
            for c in range(merge.min_col + 1, merge.max_col + 1):
                across[r, c] = first
    return grid, down, across


def _too_far(book: Book, place: str, found: str) -> None:
    book.problems.append(_problem(
        book.file, place, repr(found[:60]), f"超出可读取的范围（{_MAX_ROWS} 行、{_MAX_COLUMNS} 列）；请删除，或拆分点表",
        f"lies beyond the {_MAX_ROWS} rows and {_MAX_COLUMNS} columns that are read: delete it, or split the table",
    ))  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- CSV


def _csv(data: bytes, file: str) -> Book:
    text = _decoded(data, file)
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=head.count)
    book = Book(file)
    grid: Grid = {}
    try:
        for number, fields in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 1):
            far = next((value for value in fields[_MAX_COLUMNS:] if value.strip()), None)
            if far is not None or (number > _MAX_ROWS and any(value.strip() for value in fields)):
                _too_far(book, f"{number}:{number}", next(value for value in (far, *fields) if value and value.strip()))
                break
            for column, value in enumerate(fields[:_MAX_COLUMNS], 1):
                if value.strip():
                    grid[number, column] = Cell(value, f"{get_column_letter(column)}{number}")
    except csv.Error as error:
        raise TableError([_problem(file, "", "", f"不是可用的 CSV：{error}", f"no usable CSV: {error}")]) from None
    _take(book, "combined", "", grid, COMBINED, {}, {})
    return book


def _decoded(data: bytes, file: str) -> str:
    """UTF-8 with or without a byte order mark, UTF-16 as Excel's "Unicode text", else GBK (by its superset GB 18030)."""
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise TableError([
        _problem(file, "", "", "既不是 UTF-8 也不是 GBK；请另存为“CSV UTF-8”", "neither UTF-8 nor GBK: save it as CSV UTF-8")
    ])  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- headings


def _take(
    book: Book,
    key: str,
    title: str,
    grid: Grid,
    columns: Sequence[Column],
    down: dict[tuple[int, int], tuple[int, int]],
    across: dict[tuple[int, int], tuple[int, int]],
) -> None:
    words = by_heading(columns)
    last = max((r for r, _ in grid), default=0)
    width = max((c for _, c in grid), default=0)
    candidates = {r: _headings(r, width, grid, words, down, across) for r in range(1, min(last, _HEADINGS_WITHIN) + 1)}
    best = max(candidates, key=lambda r: (len({c.key for c in candidates[r].values()}), r), default=None)
    if best is None or len({c.key for c in candidates[best].values()}) < 2:
        first = ", ".join(str(grid[at].value) for at in sorted(grid)[:6])
        expected_zh = "、".join(c.zh for c in columns[:6])
        expected_en = ", ".join(c.en for c in columns[:6])
        book.problems.append(_problem(
            book.file, f"{title}!A1" if title else "A1", repr(first[:60]), f"没有找到表头；应有 {expected_zh} 等列",
            f"no headings found: expected columns such as {expected_en}",
        ))  # fmt: skip
        return
    headings = candidates[best]
    letters: dict[str, str] = {}
    at_column: dict[int, str] = {}
    for c in range(1, width + 1):
        place = f"{title}!{get_column_letter(c)}{best}" if title else f"{get_column_letter(c)}{best}"
        column = headings.get(c)
        if column is None:
            _unknown_heading(book, grid.get((best, c)), place, words)
        elif column.key in letters:
            book.problems.append(_problem(
                book.file, place, repr(str(column.zh)), f"与 {letters[column.key]} 列含义相同；请删除其中一列",
                f"means the same as column {letters[column.key]} ({column.en}): remove one of the two",
            ))  # fmt: skip
        else:
            letters[column.key] = get_column_letter(c)
            at_column[c] = column.key
    rows: list[Row] = []
    for r in range(best + 1, last + 1):
        cells: dict[str, Cell] = {}
        for c, name in at_column.items():
            cell = grid.get((r, c))
            if blank(cell) and (r, c) in down and down[r, c][0] > best:
                cell = grid.get(down[r, c])
            if cell is not None and not blank(cell):
                cells[name] = cell
        if cells:
            rows.append(Row(title, r, cells))
    book.tables[key] = Table(key, title, rows, letters)


def _headings(
    row: int,
    width: int,
    grid: Grid,
    words: dict[str, Column],
    down: dict[tuple[int, int], tuple[int, int]],
    across: dict[tuple[int, int], tuple[int, int]],
) -> dict[int, Column]:
    """Column number -> what its heading in this row means; a heading merged over columns above may complete it."""
    found: dict[int, Column] = {}
    for c in range(1, width + 1):
        if (row, c) in across and across[row, c][0] == row:
            continue  # the right part of a heading merged over columns belongs to none
        cell = grid.get((row, c)) or grid.get(down.get((row, c), (0, 0)))
        if cell is None or blank(cell):
            continue
        text = str(cell.value)
        above = grid.get(across.get((row - 1, c), (row - 1, c)))
        group = str(above.value) if above is not None and not blank(above) else ""
        for candidate in _spellings(text, group):
            if candidate in words:
                found[c] = words[candidate]
                break
    return found


def _spellings(text: str, group: str) -> Iterator[str]:
    yield folded(text)
    if group:
        yield folded(group + text)
        yield folded(text + group)
    yield folded(re.sub(r"[(（\[【].*?[)）\]】]", "", text))
    for part in re.split(r"[/\n|]", text):  # a heading in two languages
        yield folded(part)


def _unknown_heading(book: Book, cell: Cell | None, place: str, words: dict[str, Column]) -> None:
    if cell is None or blank(cell) or folded(str(cell.value)) in IGNORED:
        return
    text = str(cell.value)
    near = nearest(folded(text), [w for w in words if len(w) > 2])
    if near and not text.isdigit():
        column = words[near]
        book.problems.append(_problem(
            book.file, place, repr(text), f"没有这一列；是否应为“{column.zh}”？若是自用列，请改名为“备注”",
            f"no such column: did you mean {column.en!r}? A column of your own is headed remark",
        ))  # fmt: skip
    else:
        book.notices.append(_problem(book.file, place, repr(text), "未使用这一列", "this column is not used"))
