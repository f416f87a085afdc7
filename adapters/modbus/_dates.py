"""Date-times as meters keep them in registers; the layouts and their sources are those of `schemas.modbus.LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

_CENTURY = 2000


def date_reader(layout: str, zone: str) -> Callable[[bytes], int]:
    """What makes microseconds since the epoch (UTC) of a date-time's bytes, most significant first, of a clock that shows the time of `zone`.

    Raises ValueError (when called) for a day or time that does not exist; of an hour that comes twice the first is meant.
    Raises LookupError for an unknown zone or layout.
    """
    clock: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
    if layout in _STEPS:
        return _since_epoch(_STEPS[layout], clock)
    fields = _FIELDS[layout]

    def read(data: bytes) -> int:
        year, month, day, hour, minute, milliseconds = fields(data)
        if milliseconds >= 60_000:
            raise ValueError(f"{milliseconds} milliseconds in a minute")
        second, rest = divmod(milliseconds, 1000)
        when = datetime(year, month, day, hour, minute, second, rest * 1000, tzinfo=clock)
        since = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds

    return read


def _since_epoch(step: int, clock: tzinfo) -> Callable[[bytes], int]:
    """A count since 1970 in steps of so many microseconds, which some clocks count in local time."""

    def read(data: bytes) -> int:
        whole = int.from_bytes(data, "big") * step
        if whole >= _TOO_LATE:
            raise ValueError(f"{whole} microseconds since 1970 lie behind the year 9999")
        if clock is UTC:
            return whole
        seconds, rest = divmod(whole, 1_000_000)
        local = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=clock)
        return int(local.timestamp()) * 1_000_000 + rest

    return read


_Fields = tuple[int, int, int, int, int, int]
"""Year, month, day, hour, minute, milliseconds of the minute."""
_STEPS = {"unix32": 1_000_000, "unix64-ms": 1_000}
_TOO_LATE = 253_402_300_800_000_000


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _iec870(data: bytes) -> _Fields:
    year, date, time, milliseconds = _words(data)
    if time & 0x80:  # the invalid bit (IV) of IEC 60870-5-4
        raise ValueError("the device says that its time is invalid")
    return _CENTURY + (year & 0x7F), date >> 8 & 0xF, date & 0x1F, time >> 8 & 0x1F, time & 0x3F, milliseconds


def _registers6(data: bytes) -> _Fields:
    year, month, day, hour, minute, second = _words(data)
    return year + _CENTURY if year < 100 else year, month, day, hour, minute, second * 1000


def _bytes6(data: bytes) -> _Fields:
    year, month, day, hour, minute, second = data
    return _CENTURY + year, month, day, hour, minute, second * 1000


def _bcd6(data: bytes) -> _Fields:
    return _bytes6(bytes(int(f"{byte:x}") for byte in data))


_FIELDS: dict[str, Callable[[bytes], _Fields]] = {
    "iec870": _iec870, "registers6": _registers6, "bytes6": _bytes6, "bcd6": _bcd6,
}  # fmt: skip
