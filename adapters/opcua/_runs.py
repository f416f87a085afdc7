"""MonitoredItemNotifications of plain numbers (OPC 10000-4 §7.25.2, OPC 10000-6 §5.2.2.16, §5.2.2.17), decoded by precompiled layouts.

The masks of its DataValue and of its Variant, two bytes, say how long an item of a plain number is and where everything in it
lies. A notification mostly holds many of one layout, one after the other: these are decoded in one go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.opcua._binary import microseconds

_CODES: Final = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d", 19: "I"}
"""Built-in types of one size that need nothing done to them: Boolean to Double, and StatusCode."""
_VALUE, _STATUS, _SOURCE, _SERVER = 0x01, 0x02, 0x04, 0x08
_MASKS: Final = 4
"""Where the two masks are in an item: behind its handle."""
_RUN: Final = 8
"""From so many alike items on it pays to decode them in one go."""


@dataclass(slots=True)
class DataChange:
    """A DataChangeNotification as columns. `source` and `server` are µs or None where the server gave no time."""

    handles: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    source: list[int | None] = field(default_factory=list)
    server: list[int | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Items of one layout: their size in bytes and the columns of what they have; -1 for what they have not."""

    size: int
    unpack_from: Callable[[bytes, int], tuple[Any, ...]]
    iter_unpack: Callable[[bytes], Any]
    status: int
    source: int
    server: int


def _layouts() -> dict[bytes, _Layout]:
    found = {}
    for kind, code in _CODES.items():
        for mask in range(_VALUE, 16, 2):
            places, column, form = {}, 4, f"<IBB{code}"
            for bit, letter in ((_STATUS, "I"), (_SOURCE, "q"), (_SERVER, "q")):
                if mask & bit:
                    places[bit], column, form = column, column + 1, form + letter
            packed = struct.Struct(form)
            found[bytes((mask, kind))] = _Layout(
                packed.size, packed.unpack_from, packed.iter_unpack,
                places.get(_STATUS, -1), places.get(_SOURCE, -1), places.get(_SERVER, -1),
            )  # fmt: skip
    return found


_LAYOUTS: Final = _layouts()


def take(data: bytes, pos: int, count: int, change: DataChange) -> tuple[int, int]:
    """Appends items from `pos` on to `change`, `count` at most, up to the first whose layout is none of plain numbers.

    Returns where that one begins and how many are left. Raises struct.error where an item is cut short.
    """
    handles, values, status, source, server = change.handles, change.values, change.status, change.source, change.server
    ticks: int = 0
    time: int | None = None
    while count > 0:
        masks = data[pos + _MASKS : pos + _MASKS + 2]
        layout = _LAYOUTS.get(masks)
        if layout is None:
            break
        size = layout.size
        far = pos + (_RUN - 1) * size + _MASKS
        if count >= _RUN and data[far : far + 2] == masks and (run := _run(data, pos, count, size, masks)) > 1:
            _append_run(layout, data[pos : pos + run * size], change)
            pos += run * size
            count -= run
            continue
        row = layout.unpack_from(data, pos)
        handles.append(row[0])
        values.append(row[3])
        status.append(row[layout.status] if layout.status > 0 else 0)
        if layout.source > 0:
            if row[layout.source] != ticks:  # mostly it is the time of the one before
                ticks = row[layout.source]
                time = microseconds(ticks)
            source.append(time)
        else:
            source.append(None)
        if layout.server > 0:
            if row[layout.server] != ticks:
                ticks = row[layout.server]
                time = microseconds(ticks)
            server.append(time)
        else:
            server.append(None)
        pos += size
        count -= 1
    return pos, count


def _run(data: bytes, pos: int, most: int, size: int, masks: bytes) -> int:
    """How many whole items from `pos` on have these masks: each that has them puts the next one `size` bytes further."""
    count = min(most, (len(data) - pos) // size)
    for place in (0, 1):
        start = pos + _MASKS + place
        column = data[start : start + size * count : size]
        count = len(column) - len(column.lstrip(masks[place : place + 1]))
    return count


def _append_run(layout: _Layout, items: bytes, change: DataChange) -> None:
    columns = list(zip(*layout.iter_unpack(items), strict=True))
    nothing = (None,) * len(columns[0])
    change.handles += columns[0]
    change.values += columns[3]
    change.status += columns[layout.status] if layout.status > 0 else (0,) * len(columns[0])
    change.source += _times(columns[layout.source]) if layout.source > 0 else nothing
    change.server += _times(columns[layout.server]) if layout.server > 0 else nothing


def _times(column: tuple[int, ...]) -> list[int | None]:
    """Mostly all items of a notification have one time."""
    if column.count(column[0]) == len(column):
        return [microseconds(column[0])] * len(column)
    return list(map(microseconds, column))
