"""What a gateway has stored whose clock was set: told in the time that it really was, so that it can be compared with what the devices know.

The gateway itself says when its clock was set and by how much (events `clock_step`). Pieces of history under a wrong clock lie apart from everything
else, because the clock is set by ten minutes and more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec

from gateway.store.reader import Reader
from gateway.store.records import Connection, EventRecord, GapRecord, Reading, Snapshot
from schemas.wire import Flag

_OURS = Flag.GATEWAY_TIME | Flag.UNSYNCED
NEAR = 60_000_000
"""µs around a piece that are its own, too: nothing else lies so near."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch under a wrong clock, in its own time (µs), and by how much it was ahead."""

    start: int
    end: int
    ahead: int


def pieces(reader: Reader) -> list[Piece]:
    """All of them so far; the one that goes on ends never."""
    found: list[Piece] = []
    ahead = 0
    begun = 0
    steps = [event for event in reader.events(limit=10**6) if event.type == "clock_step"]
    for event in sorted(steps, key=lambda event: event.no):
        if ahead:
            found.append(Piece(begun, event.fields["before"], ahead))
        ahead += round(event.fields["seconds"] * 1e6)
        if abs(ahead) < NEAR:
            ahead = 0  # set back to what it was, but for what the setting took
        begun = event.ts
    if ahead:
        found.append(Piece(begun, 1 << 62, ahead))
    return found


class Righted(Reader):
    """A reader that gives times as they really were. Open gaps and intervals stay open."""

    def __init__(self, reader: Reader) -> None:
        self.__dict__ = dict(reader.__dict__)
        self._pieces = pieces(reader)

    def really(self, at: int) -> int:
        """The time that it really was when the gateway's clock said `at`."""
        for piece in self._pieces:
            if piece.start - NEAR <= at <= piece.end + NEAR:
                return at - piece.ahead
        return at

    def history(self, signals: Sequence[int], *arguments: Any, **more: Any) -> Iterator[list[Reading]]:
        """As the reader's, each signal in one piece and by its real times."""
        for number in signals:
            rows = [self._row(row) for some in super().history([number], *arguments, **more) for row in some]
            yield self._numbered(rows) if self._pieces else rows

    @staticmethod
    def _numbered(rows: list[Reading]) -> list[Reading]:
        """In the order of their real times; `n` counts those of one time."""
        rows.sort(key=lambda row: (row.ts, row.n))
        numbered: list[Reading] = []
        for row in rows:
            n = numbered[-1].n + 1 if numbered and numbered[-1].ts == row.ts else 0
            numbered.append(row if row.n == n else msgspec.structs.replace(row, n=n))
        return numbered

    def _row(self, row: Reading) -> Reading:
        """A row with the gateway's time because of *our* wrong clock has the device's own beside it, which is right."""
        if row.flags & Flag.GATEWAY_TIME and row.source_ts is not None and self._pieces:
            return msgspec.structs.replace(row, ts=row.source_ts, source_ts=None, flags=row.flags & ~_OURS)
        at = self.really(row.ts)
        return row if at == row.ts else msgspec.structs.replace(row, ts=at)

    def gaps(self, *arguments: Any, **more: Any) -> list[GapRecord]:
        return [self._span(gap) for gap in super().gaps(*arguments, **more)]

    def connections(self, *arguments: Any, **more: Any) -> list[Connection]:
        return [self._span(interval) for interval in super().connections(*arguments, **more)]

    def _span(self, span: Any) -> Any:
        start, end = self.really(span.start), None if span.end is None else self.really(span.end)
        return span if (start, end) == (span.start, span.end) else msgspec.structs.replace(span, start=start, end=end)

    def snapshot(self) -> Snapshot:
        found = super().snapshot()
        progress = [msgspec.structs.replace(done, complete_to=self.really(done.complete_to)) for done in found.progress]
        return msgspec.structs.replace(found, progress=progress)

    def events(self, *arguments: Any, **more: Any) -> list[EventRecord]:
        return cast("list[EventRecord]", [self._event(event) for event in super().events(*arguments, **more)])

    def _event(self, event: EventRecord) -> EventRecord:
        if event.source_ts is not None and event.flags & Flag.GATEWAY_TIME and self._pieces:
            return msgspec.structs.replace(event, ts=event.source_ts, flags=event.flags & ~Flag.GATEWAY_TIME)
        return event
