"""Which collectors are alive: each shows it by progress on the bus, or by a watermark that moves in the store."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.store.records import StreamRecord


class Heard:
    """When each gateway's collector was last heard of. Times are monotonic seconds of serve's own clock."""

    def __init__(self, silent: float) -> None:
        self.quiet: set[str] = set()
        """Gateways of which nothing has been heard for longer than `silent` seconds."""
        self._silent = silent
        self._at: dict[str, float] = {}
        self._marks: dict[str, int] = {}

    def note(self, gateway: str, now: float) -> None:
        """The bus brought word of this gateway."""
        self._at[gateway] = now

    def age(self, gateway: str, now: float) -> float | None:
        """Seconds since the last word; None when there never was one."""
        at = self._at.get(gateway)
        return None if at is None else max(0.0, now - at)

    def look(self, streams: Iterable[StreamRecord], before: float, now: float, wall: int) -> bool:
        """Take the watermarks as they are now (`wall` in µs), last looked at `before`; True when any has moved."""
        marks: dict[str, int] = {}
        moved = False
        for stream in streams:
            marks[stream.id] = stream.watermark
            if self._marks.get(stream.id) == stream.watermark:
                continue
            moved = True
            at = now - max(0.0, (wall - stream.seen_at) / 1e6)
            if self._marks:
                # ingest's clock may be another one; but what has moved has moved since the last look
                at = max(at, before)
            self._at[stream.gateway] = max(at, self._at.get(stream.gateway, at))
        moved = moved or len(marks) < len(self._marks)
        self._marks = marks
        return moved

    def watch(self, gateways: Iterable[str], now: float) -> set[str]:
        """Finds out anew who is quiet; returns those who have turned, either way."""
        quiet = {name for name in gateways if now - self._at.get(name, float("-inf")) > self._silent}
        turned = quiet ^ self.quiet
        self.quiet = quiet
        return turned
