"""The last frames of a link, kept in memory with what is needed to explain them: an adapter's own flight recorder.

An adapter that has one offers it as the attribute `frames` (`Framed`); the host looks at it when a person asks or a device is lost. Recording
must cost next to nothing, so a frame is kept as it came, bounded in size, and explained only when somebody looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

KEPT: Final = 500
LARGEST: Final = 2048
"""Bytes of one frame that are kept."""

Wire = Literal["modbus-tcp", "modbus-rtu", "modbus-ascii", "opcua"]
"""What the bytes are: Modbus TCP frames (MBAP), RTU frames (with checksum), ASCII frames, or messages of OPC UA TCP (`MSGF…`)."""
Direction = Literal["sent", "received", "note"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, explained. `number` counts all frames of the link from 0; `at` is the gateway's time in µs; `data` may be less than the
    `size` bytes that passed. A note (connected, closed, no answer) has no bytes."""

    number: int
    at: int
    direction: Direction
    data: bytes
    size: int
    meaning: str


class Record(NamedTuple):
    """A frame as it was recorded. `content` is whatever the adapter's `explain` understands."""

    at: int
    direction: Direction
    content: Any
    size: int


Explain = Callable[[Record], tuple[bytes, str]]
"""The bytes of a recorded frame (at most LARGEST) and its meaning on one line, in the protocol's own terms. Raises nothing."""


class FrameLog:
    """A ring of the last frames of one link. Not thread-safe: `records` and everything that adds belong to the link's event loop."""

    def __init__(self, wire: Wire, explain: Explain, keep: int = KEPT) -> None:
        self.wire: Wire = wire
        self.total = 0
        """Frames recorded so far, those that have left the ring included."""
        self._explain = explain
        self._ring: deque[tuple[int, Direction, Any, int]] = deque(maxlen=keep)
        self.keep = self._ring.append
        """For where each tenth of a microsecond counts: appends the fields of a Record; `total` must be raised beside it."""

    def add(self, at: int, direction: Direction, content: Any, size: int = 0) -> None:
        """Records a frame; `at` in µs."""
        self.total += 1
        self._ring.append((at, direction, content, size))

    def note(self, at: int, text: str) -> None:
        """Records what is no frame and explains those around it."""
        self.add(at, "note", text)

    def records(self, after: int = -1) -> list[tuple[int, Record]]:
        """Those with a number above `after` that are still held, the oldest first, each with its number."""
        first = self.total - len(self._ring)
        return [(n, Record(*fields)) for n, fields in enumerate(self._ring, first) if n > after]

    def explained(self, records: list[tuple[int, Record]]) -> list[Frame]:
        """What `records` gave, with bytes and meaning; may be called in another thread."""
        return [self._one(number, record) for number, record in records]

    def frames(self, after: int = -1) -> list[Frame]:
        """`explained(records(after))`."""
        return self.explained(self.records(after))

    def _one(self, number: int, record: Record) -> Frame:
        if record.direction == "note":
            return Frame(number, record.at, "note", b"", 0, str(record.content))
        data, meaning = self._explain(record)
        return Frame(number, record.at, record.direction, data, record.size or len(data), meaning)


@runtime_checkable
class Framed(Protocol):
    """An adapter that keeps its last frames."""

    @property
    def frames(self) -> FrameLog:
        """The same object for the adapter's whole life."""
