"""The clock of a simulated OPC UA server, which may be wrong, stand still or be missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["DeviceClock"]


class DeviceClock:
    """What the device takes for the time. Never accelerated."""

    def __init__(self) -> None:
        self.offset = timedelta()
        """How far the clock runs ahead; negative when it is behind."""
        self.frozen: datetime | None = None
        """The one time that all sources give, when source timestamps stand still."""
        self.no_source = False
        """Whether values are served without a SourceTimestamp."""

    def now(self) -> datetime:
        """The server's time."""
        return datetime.now(UTC) + self.offset

    def source(self) -> datetime | None:
        """The SourceTimestamp for a value that changes now."""
        if self.no_source:
            return None
        return self.frozen if self.frozen is not None else self.now()
