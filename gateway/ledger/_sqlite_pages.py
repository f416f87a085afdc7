"""Records out of the pages of an SQLite file that SQLite itself may refuse: what a broken b-tree still has in its leaves.

Layout: https://www.sqlite.org/fileformat2.html, sections 1.2 (header), 1.5 and 1.6 (pages, cells, overflow), 2.1 (records), 4.1 and 4.2
(write-ahead log). Nothing of what is found is believed here: pages may be old, freed, or half overwritten, so each record must
prove itself to whoever asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x0A, 0x02
_HEADER = b"SQLite format 3\x00"
_WAL_HEADER, _FRAME_HEADER = 32, 24
_LARGEST_RECORD = 1 << 24
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = int | float | str | bytes | None


class Record(NamedTuple):
    """A record: of a table with its rowid, of an index (or a table without rowids) with None."""

    rowid: int | None
    values: tuple[Value, ...]


class Pages:
    """The pages of a database and of the write-ahead log beside it; either may be missing or cut. Sectors that cannot be read are skipped."""

    def __init__(self, path: Path) -> None:
        self._main = _open(path)
        self._wal = _open(path.with_name(path.name + "-wal"))
        head = self._read(self._main, 0, 100)
        self.size = _page_size(head, self._read(self._wal, 0, _WAL_HEADER))
        known = len(head) == 100 and head.startswith(_HEADER)
        self._usable = self.size - (head[20] if known and head[20] <= 64 else 0)
        self.count = -(-_length(self._main) // self.size)
        self._frames: list[int] = []
        self._latest: dict[int, int] = {}
        step = _FRAME_HEADER + self.size
        for at in range(_WAL_HEADER, _length(self._wal) - _FRAME_HEADER, step):
            number = int.from_bytes(self._read(self._wal, at, 4), "big")
            if number:
                self._frames.append(at)
                self._latest[number] = at

    def close(self) -> None:
        """Closes both files."""
        for descriptor in (self._main, self._wal):
            if descriptor is not None:
                os.close(descriptor)

    def leaves(self) -> Iterator[tuple[int, bytes, bool]]:
        """Each page that may hold records, as (its kind, its bytes, whether it is of the log): the database's own in their order, then the
        log's in the order of writing."""
        for number in range(1, self.count + 1):
            page = self._page(number)
            kind = _kind(page, number == 1)
            if kind is not None:
                yield kind, page, False
        for at in self._frames:
            page = self._read(self._wal, at + _FRAME_HEADER, self.size)
            number = int.from_bytes(self._read(self._wal, at, 4), "big")
            kind = _kind(page, number == 1)
            if kind is not None:
                yield kind, page, True

    def records(self, kind: int, page: bytes, of_log: bool, most: int | None = None) -> Iterator[Record]:
        """The records of a page, at most so many. One that goes on in overflow pages is given once for each way to read them: the log's pages
        before the database's, and the other way round."""
        start = 100 if page.startswith(_HEADER) else 0
        cells = int.from_bytes(page[start + 3 : start + 5], "big")
        head = start + (12 if kind == INDEX_INTERIOR else 8)
        for i in range(min(cells, len(page) // 4, most if most is not None else cells)):
            at = int.from_bytes(page[head + 2 * i : head + 2 * i + 2], "big")
            if not head <= at < len(page):
                continue
            yield from self._cell(kind, page, at, of_log)

    def _cell(self, kind: int, page: bytes, at: int, of_log: bool) -> Iterator[Record]:
        rowid: int | None = None
        if kind == INDEX_INTERIOR:
            at += 4
        length, at = _varint(page, at)
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
        if not 0 < length <= _LARGEST_RECORD:
            return
        local = self._local(length, kind == TABLE_LEAF)
        payload = page[at : at + local]
        if length == local:
            values = _values(payload)
            if values is not None:
                yield Record(rowid, values)
            return
        first = int.from_bytes(page[at + local : at + local + 4], "big")
        before = None
        for log_first in (of_log, not of_log):
            whole = self._with_overflow(payload, length, first, log_first)
            if whole is not None and whole != before:
                before = whole
                values = _values(whole)
                if values is not None:
                    yield Record(rowid, values)

    def _local(self, length: int, table: bool) -> int:
        """Bytes of a record that lie in the page itself (section 1.6)."""
        usable = self._usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return length
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        return local if local <= most else least

    def _with_overflow(self, payload: bytes, length: int, number: int, log_first: bool) -> bytes | None:
        parts, size, left = [payload], len(payload), -(-length // (self._usable - 4)) + 1
        while size < length:
            if not number or left <= 0:
                return None
            left -= 1
            page = b""
            if log_first and number in self._latest:
                page = self._read(self._wal, self._latest[number] + _FRAME_HEADER, self.size)
            elif number <= self.count:
                page = self._page(number)
            elif number in self._latest:
                page = self._read(self._wal, self._latest[number] + _FRAME_HEADER, self.size)
            if len(page) < 4:
                return None
            number = int.from_bytes(page[:4], "big")
            part = page[4 : min(self._usable, 4 + length - size)]
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _page(self, number: int) -> bytes:
        return self._read(self._main, (number - 1) * self.size, self.size)

    @staticmethod
    def _read(descriptor: int | None, at: int, size: int) -> bytes:
        if descriptor is None:
            return b""
        try:
            os.lseek(descriptor, at, os.SEEK_SET)  # Windows has no pread
            return os.read(descriptor, size)
        except OSError:  # a sector that cannot be read: what lay there is lost, and nothing else
            return b""


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None


def _length(descriptor: int | None) -> int:
    return 0 if descriptor is None else os.fstat(descriptor).st_size


def _page_size(head: bytes, wal: bytes) -> int:
    sizes = [int.from_bytes(head[16:18], "big")] if head.startswith(_HEADER) else []
    sizes.append(int.from_bytes(wal[8:12], "big"))
    for size in sizes:
        size = 65536 if size == 1 else size
        if 512 <= size <= 65536 and not size & (size - 1):
            return size
    return 4096


def _kind(page: bytes, first: bool) -> int | None:
    at = 100 if first and page.startswith(_HEADER) else 0
    if len(page) < at + 12 or page[at] not in (TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR):
        return None
    return page[at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Big-endian base 128, the ninth byte whole (section 1.6); cut data reads as zeros."""
    value = 0
    for i in range(9):
        byte = data[at + i] if at + i < len(data) else 0
        if i == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + i + 1
    raise AssertionError("unreachable")


def _values(payload: bytes) -> tuple[Value, ...] | None:
    """The columns of a record (section 2.1); None for bytes that cannot be one."""
    end, at = _varint(payload, 0)
    if end > len(payload) or end > 256:
        return None
    body = end
    values: list[Value] = []
    while at < end:
        serial, at = _varint(payload, at)
        if serial == 0:
            values.append(None)
        elif serial in _INTEGERS:
            size = _INTEGERS[serial]
            values.append(int.from_bytes(payload[body : body + size], "big", signed=True))
            body += size
        elif serial in (8, 9):
            values.append(serial - 8)
        elif serial >= 12:
            size = (serial - 12) // 2
            part = payload[body : body + size]
            body += size
            if serial % 2:
                try:
                    values.append(part.decode())
                except UnicodeDecodeError:
                    return None
            else:
                values.append(part)
        else:  # a float, or a reserved type: the outbox has neither
            return None
    return tuple(values) if at == end and body == len(payload) else None
