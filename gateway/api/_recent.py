"""The last minute of commits, as the bytes in which they arrived: what a client of the live stream may have missed."""

from __future__ import annotations

from collections import deque

KEEP = 60.0
"""Seconds of commits that are kept for clients that come back."""
KEEP_BYTES = 48 * 1024 * 1024
"""Above so many bytes the kept time is shorter."""


class Recent:
    """Commits in the order of their numbers, without a hole."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, int, bytes]] = deque()
        self._bytes = 0
        self._from = 0

    def begin(self, commit_no: int) -> None:
        """Forget everything; what comes next follows `commit_no`."""
        self._kept.clear()
        self._bytes, self._from = 0, commit_no

    def add(self, now: float, commit_no: int, payload: bytes) -> None:
        """Keep the next commit, which arrived at `now` (monotonic)."""
        self._kept.append((now, commit_no, payload))
        self._bytes += len(payload)
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop what is too old, or too much."""
        kept = self._kept
        while kept and (now - kept[0][0] > KEEP or self._bytes > KEEP_BYTES):
            _, number, payload = kept.popleft()
            self._bytes -= len(payload)
            self._from = number

    def has(self, commit_no: int, payload: bytes) -> bool:
        """Whether exactly this commit is kept."""
        return any(number == commit_no and kept == payload for _, number, kept in self._kept)

    def since(self, commit_no: int) -> list[bytes] | None:
        """The commits after this one; None when not all of them are kept."""
        if commit_no < self._from:
            return None
        return [payload for _, number, payload in self._kept if number > commit_no]
