"""What devices have taught about their registers, kept over restarts of the gateway.

One small JSON file for each link: device -> its place, when it was learned (µs since the epoch), spans that it refuses, borders, and
its largest reads. Losing the file costs the search anew and nothing else; so nothing here ever stops a link.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from adapters.contract import Clock
from adapters.modbus._device import Device

log = logging.getLogger(__name__)

KEPT_FOR = 7 * 86_400 * 1_000_000
"""Microseconds after which borders and largest reads are learned anew: unlike refused spans, they are never tried again by themselves."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    place: str
    at: int
    refused: list[tuple[str, int, int, int]]
    """Table, start, size, exception code."""
    cuts: dict[str, list[int]] = {}
    limits: dict[str, int] = {}
    mute_since: int = 0
    """Since when (µs) it is known to live and not to say who it is; 0: not."""


class Memory:
    """The file of one link. `places`: device -> where it is; what another device has taught at another place is not believed."""

    def __init__(self, file: Path, places: Mapping[str, str], clock: Clock) -> None:
        self._file = file
        self._places = places
        self._clock = clock

    def recall(self, devices: Mapping[str, Device]) -> None:
        """Tells the devices what they have taught before."""
        try:
            entries = msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Entry])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s: not readable, its link learns anew: %s", self._file, error)
            return
        now, mono = self._clock.now(), self._clock.monotonic()
        for name, entry in entries.items():
            device = devices.get(name)
            if device is None or entry.place != self._places[name]:
                continue
            if 0 <= now - entry.at < KEPT_FOR:
                device.taught(entry.cuts, entry.limits, entry.at)
            if 0 <= now - entry.mute_since < KEPT_FOR:
                device.identification.mute_since = entry.mute_since
            for table, start, size, code in entry.refused:
                device.recall_refused(table, (start, size), code, mono)
            device.replan()

    def save(self, devices: Mapping[str, Device]) -> None:
        """Writes the file anew, or removes it when nothing is known. Never raises: a full disk is told in the log."""
        entries: dict[str, Any] = {}
        for name, device in devices.items():
            mute = device.identification.mute_since
            entry = _Entry(self._places[name], device.taught_at or self._clock.now(), *device.lessons(), mute)
            if entry.refused or entry.cuts or entry.limits or mute:
                entries[name] = entry
        try:
            if not entries:
                self._file.unlink(missing_ok=True)
                return
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(msgspec.json.encode(entries))
                os.replace(temporary, self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            log.warning("%s: what was learned of the devices is not kept: %s", self._file, error)
