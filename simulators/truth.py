"""The truth log: what a simulated device handed out, one NDJSON file a device.

A record is written with one ``write`` call, unbuffered, *before* the answer leaves the process: after a ``kill -9`` the
log may hold a record that never arrived, but never lacks one that did. Times are integer microseconds since the epoch,
UTC, of the real clock; ``t`` is when the record was handed out.

Kinds of record (every one also has ``kind``, ``device`` and ``t``):

- ``value``: one notification in an OPC UA publish response: ``node``, ``value``, ``type``, ``status``, ``source_ts``,
  ``server_ts``, ``subscription``, ``sequence``; ``republished`` is true when a Republish handed it out once more.
- ``read``: one value of an OPC UA Read answer, like ``value`` without subscription and sequence.
- ``event``: one OPC UA event in a publish response: ``event_id``, ``type``, ``fields``, ``source_ts``,
  ``subscription``, ``sequence``.
- ``answer``: one Modbus answer: ``unit``, ``function``, ``address`` (wire), ``count``, ``registers`` or ``bits``.
- ``exception``: one Modbus exception: the same with ``code`` in place of the data.
- ``up`` and ``down``: the device began or ceased to serve, with ``reason``.

What JSON cannot carry exactly is tagged: ``{"float": "nan"}`` (also ``inf`` and ``-inf``) and ``{"bytes": "<hex>"}``.
64-bit integers stay JSON integers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["TruthLog", "now_us", "read_truth", "tag", "untag"]

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder().decode
_TAGGED_KEYS = ("value", "fields")


def now_us() -> int:
    """The real time in integer microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def tag(value: Any) -> Any:
    """Give *value* in a form that JSON carries exactly; see the module's text for the tags."""
    if isinstance(value, float):
        return value if isfinite(value) else {"float": str(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, Mapping):
        return {str(key): tag(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tag(item) for item in value]
    return value


def untag(value: Any) -> Any:
    """Undo :func:`tag`."""
    if isinstance(value, dict):
        if len(value) == 1:
            if isinstance(text := value.get("float"), str):
                return float(text)
            if isinstance(text := value.get("bytes"), str):
                return bytes.fromhex(text)
        return {key: untag(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untag(item) for item in value]
    return value


class TruthLog:
    """Append-only log of one device; with *path* ``None`` it keeps nothing and costs nothing.

    Not meant for several threads. The file is created with its directories, and appended to when it exists.
    """

    def __init__(self, path: Path | str | None, device: str) -> None:
        """Open the log of *device* at *path* for appending.

        Raises:
            OSError: the file cannot be created or opened.
        """
        self.device = device
        self.path = None if path is None else Path(path)
        self._fd = -1
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)

    @classmethod
    def in_directory(cls, directory: Path | str | None, device: str) -> TruthLog:
        """The log ``<directory>/<device>.ndjson``, or one that keeps nothing when *directory* is ``None``."""
        return cls(None if directory is None else Path(directory) / f"{device}.ndjson", device)

    @property
    def enabled(self) -> bool:
        """Whether records are kept; ask before building costly ones."""
        return self._fd >= 0

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record; ``device`` and ``t`` (now) are added. Values are tagged where JSON needs it."""
        if self._fd >= 0:
            self.write_many([{"kind": kind, **fields}])

    def write_many(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append *records* (each with its ``kind``) in one write; ``device`` and, where missing, ``t`` are added."""
        if self._fd < 0:
            return
        t = now_us()
        data = b"".join(_ENCODE({"device": self.device, "t": t, **tag(record)}) + b"\n" for record in records)
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Close the file; further records are not kept. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_truth(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the records of a truth log in the order in which they were handed out, tags undone.

    A last line that a kill tore is left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line other than the last is not JSON; the message names file and line.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _DECODE(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            for key in _TAGGED_KEYS:
                if key in record:
                    record[key] = untag(record[key])
            yield record
