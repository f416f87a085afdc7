"""Times: on the wire and in the store a time is an integer number of microseconds since 1970-01-01T00:00:00Z (UTC)."""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))",
)


def to_datetime(us: int) -> dt.datetime:
    """The aware UTC datetime of `us` microseconds. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + dt.timedelta(microseconds=us)


def from_datetime(value: dt.datetime) -> int:
    """Microseconds of an aware datetime. Raises ValueError for a naive one: such a time does not exist here."""
    if value.tzinfo is None:
        raise ValueError(f"naive datetime {value.isoformat()}: give it a time zone")
    return (value - EPOCH) // _MICROSECOND


def to_rfc3339(us: int) -> str:
    """`2026-11-22T08:30:00.000001Z` (RFC 3339, always six decimals, always Z): sorts as text as it does as time."""
    seconds, micro = divmod(us, 1_000_000)
    return f"{_second(seconds)}.{micro:06}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """The text of a whole second; strftime takes five times as long as all the rest, and readings share their seconds."""
    text = (EPOCH + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return text.rjust(19, "0")  # strftime does not fill up the years before 1000


def from_rfc3339(text: str) -> int:
    """Microseconds of an RFC 3339 time (offset required; digits beyond the sixth decimal are cut).

    Raises ValueError that says what was found and gives an example.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time with an offset, such as 2026-11-22T08:30:00Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    micro = int((match[7] or "").ljust(6, "0")[:6] or 0)
    try:
        base = dt.datetime(year, month, day, hour, minute, min(second, 59), micro, tzinfo=dt.UTC)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None
    us = from_datetime(base) + (second - min(second, 59)) * 1_000_000
    if match[9]:
        offset = (int(match[10]) * 60 + int(match[11])) * 60_000_000
        us += -offset if match[9] == "+" else offset
    return us
