"""Date-times as registers, in the layouts of `schemas.modbus.LAYOUTS`: the way from the time to the words."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

__all__ = ["date_words"]


def date_words(layout: str, zone: str, seconds: int) -> list[int]:
    """The registers, in wire order, of the moment *seconds* after 1970-01-01 UTC, as a clock in *zone* shows it.

    Raises:
        ValueError: an unknown layout.
        LookupError: an unknown zone.
    """
    local = datetime.fromtimestamp(seconds, UTC).astimezone(ZoneInfo(zone))
    shown = int(local.replace(tzinfo=UTC).timestamp())
    if layout == "unix32":
        return _words(shown.to_bytes(4, "big"))
    if layout == "unix64-ms":
        return _words((shown * 1000).to_bytes(8, "big"))
    parts = (local.year - 2000, local.month, local.day, local.hour, local.minute, local.second)
    if layout == "iec870":
        year, month, day, hour, minute, second = parts
        return [year, month << 8 | day, hour << 8 | minute, second * 1000]
    if layout == "registers6":
        return [local.year, *parts[1:]]
    if layout == "bytes6":
        return _words(bytes(parts))
    if layout == "bcd6":
        return _words(bytes(int(str(part), 16) for part in parts))
    raise ValueError(f"layout {layout!r} is not known")


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
