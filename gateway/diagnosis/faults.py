"""What a link said before a device was lost: the last 50 frames, in `data_dir/faults/DEVICE-TIME.txt`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adapters.frames import FrameLog, Record
from gateway.collect.items import DeviceStatus
from gateway.diagnosis.captured import as_text
from schemas.bilingual import Bilingual

if TYPE_CHECKING:
    from gateway.collect.link import LinkHost

log = logging.getLogger("guantong.faults")

FOLDER: Final = "faults"
BEFORE: Final = 50
FILES: Final = 100
"""The newest are kept."""
_EVERY: Final = 60.0
"""Seconds between two files of one link: a device that comes and goes writes the disk full else."""


class Faults:
    """Hears of each change of a device's state, and has the frames written when one was up and is lost.

    A link that is lost takes all its devices along: there is one file, of the first of them.
    """

    def __init__(
        self,
        data_dir: Path,
        hosts: Callable[[], Sequence[LinkHost]],
        submit: Callable[[Callable[[], None]], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`submit` runs what writes the file elsewhere than in the event loop."""
        self._folder = data_dir / FOLDER
        self._hosts, self._submit, self._monotonic = hosts, submit, monotonic
        self._up: dict[str, bool] = {}
        self._saved: dict[str, float] = {}

    def status(self, status: DeviceStatus) -> None:
        """A device's new state."""
        was_up = self._up.get(status.device, False)
        self._up[status.device] = status.state in ("ok", "degraded")
        if not was_up or status.state not in ("recovering", "failed"):
            return
        host = next((h for h in self._hosts() if status.device in h.device_ids), None)
        frames = host.frames if host is not None else None
        if host is None or frames is None:
            return
        now = self._monotonic()
        if now - self._saved.get(host.link.id, -_EVERY) < _EVERY:
            return
        self._saved[host.link.id] = now
        records = frames.records()[-BEFORE:]
        link = host.link.id
        try:
            self._submit(lambda: self._write(status, link, frames, records))
        except RuntimeError:
            log.debug("%s: lost while the collector ends", status.device)

    def _write(self, status: DeviceStatus, link: str, frames: FrameLog, records: list[tuple[int, Record]]) -> None:
        """In another thread. A disk that takes no file costs the file."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(status.since / 1e6))
        path = self._folder / f"{status.device}-{stamp}.txt"
        head = f"device {status.device}, link {link}: {status.state}: {status.reason}\n{status.fix_en}\n"
        if isinstance(status.reason, Bilingual):
            head += f"{status.reason.zh}\n"
        head += f"{status.fix_zh}\n\n"
        try:
            text = head + "\n".join(as_text(frame) for frame in frames.explained(records)) + "\n"
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            oldest = sorted(self._folder.glob("*.txt"), key=lambda file: file.stat().st_mtime)[:-FILES]
            for file in oldest:
                file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the frames before the loss of %s cannot be kept: %s: %s", status.device, path, error)
            return
        log.info("the frames before the loss of %s: %s", status.device, path)
