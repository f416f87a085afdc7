"""Values as JSON: what JSON has no form for becomes a string, and integers beyond 2^53 do on request (`int64=string`)."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from math import isfinite, isnan
from typing import Any

from msgspec.msgpack import Ext

from schemas.times import from_datetime, to_rfc3339
from schemas.wire import Flag

LARGEST = 1 << 53
"""Up to here a reader that keeps all numbers as float64 (JavaScript, Excel) has every integer exact."""
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1

FLAG_NAMES = {flag.value: flag.name.lower() for flag in Flag if flag.name is not None}


def to_plain(value: Any, *, int64_text: bool = False) -> Any:
    """`value` as JSON has it.

    NaN and the infinities are the strings NaN, Infinity and -Infinity, bytes are base64, times RFC 3339, a MessagePack extension is
    `[code, base64]`. With `int64_text`, integers beyond 2^53 are decimal strings; those beyond 64 bits always are.
    """
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else _name(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        large = not -LARGEST <= value <= LARGEST
        return str(value) if large and (int64_text or not _INT64_MIN <= value <= _UINT64_MAX) else value
    if isinstance(value, list | tuple):
        return [to_plain(item, int64_text=int64_text) for item in value]
    if isinstance(value, dict):
        return {_key(key): to_plain(item, int64_text=int64_text) for key, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return to_rfc3339(from_datetime(value))
    if isinstance(value, Ext):
        return [value.code, b64encode(value.data).decode()]
    return str(value)


def _name(value: float) -> str:
    if isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _key(key: Any) -> str:
    if isinstance(key, bytes):
        return b64encode(key).decode()
    return key if isinstance(key, str) else str(to_plain(key))


def flag_names(flags: int) -> list[str]:
    """The names of the flags that are set, by `schemas.wire.Flag`."""
    return [name for bit, name in FLAG_NAMES.items() if flags & bit] if flags else []
