"""A reading's value as columns: `num` (float8) where that is exact, else `exact` (JSON).

`exact` is an object with up to three members: `v` the value, `source_ts` the device's own time (µs), `raw` what arrived.
JSON stands for itself as far as it is exact in PostgreSQL's jsonb; for the rest stand objects with one member:
`{"$float": "NaN"}` (also infinities, -0.0 and what needs an exponent: Python's repr), `{"$bytes": base64}`,
`{"$text": base64 of UTF-8}` (a text with U+0000, which jsonb refuses), `{"$time": µs since the epoch}`,
`{"$map": [[key, value], …]}` (keys that are no text, or begin with `$`), `{"$ext": [code, base64]}` (a MessagePack extension).
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import copysign, isfinite
from typing import Any

from msgspec.msgpack import Ext

from schemas.wire import Extra

FLOAT, INTEGER, BOOLEAN, EXACT = 0, 1 << 12, 2 << 12, 3 << 12
"""What `num` holds, as two bits beside the flags: rows speak for themselves, whatever their signal's type was."""
KIND_MASK = EXACT
FLAG_MASK = (1 << 12) - 1
LARGEST = 1 << 53
"""Up to here every integer is exact as a float8."""

_MINUS_ZERO = array("d", [-0.0]).tobytes()
_UTC_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_json(value: Any) -> Any:
    """`value` in the form that this module documents."""
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        text = repr(value)
        plain = isfinite(value) and "e" not in text and not (value == 0 and copysign(1.0, value) < 0)
        return value if plain else {"$float": text}
    if kind is str:
        return {"$text": b64encode(value.encode()).decode()} if "\x00" in value else value
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        if all(type(key) is str and key[:1] != "$" and "\x00" not in key for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {"$map": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": (value - _UTC_EPOCH) // _MICROSECOND}
    if isinstance(value, Ext):
        return {"$ext": [value.code, b64encode(value.data).decode()]}
    raise TypeError(f"a value of type {kind.__name__} has no form in the store")


def from_json(form: Any) -> Any:
    """The value that `to_json` was given (a tuple comes back as a list)."""
    if isinstance(form, list):
        return [from_json(item) for item in form]
    if not isinstance(form, dict):
        return form
    if len(form) == 1:
        ((tag, inner),) = form.items()
        if tag == "$float":
            return float(inner)
        if tag == "$bytes":
            return b64decode(inner)
        if tag == "$text":
            return b64decode(inner).decode()
        if tag == "$time":
            return _UTC_EPOCH + inner * _MICROSECOND
        if tag == "$map":
            return {from_json(key): from_json(item) for key, item in inner}
        if tag == "$ext":
            return Ext(inner[0], b64decode(inner[1]))
    return {key: from_json(item) for key, item in form.items()}


def dump(form: Any) -> str:
    """JSON text of a form; floats as Python's repr, which keeps them exact."""
    return json.dumps(form, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(value: Any) -> tuple[float | None, Any, int]:
    """(num, form of `exact.v` or None, kind) of one value. Raises TypeError for what has no form."""
    kind = type(value)
    if value is None:
        return None, None, FLOAT
    if kind is float:
        if not isfinite(value):
            return None, to_json(value), EXACT
        if value == 0 and copysign(1.0, value) < 0:
            return 0.0, to_json(value), EXACT  # SQLite stores 0.0 as the integer 0, and its sign is gone
        return value, None, FLOAT
    if kind is bool:
        return float(value), None, BOOLEAN
    if kind is int:
        return (float(value), None, INTEGER) if -LARGEST <= value <= LARGEST else (float(value), value, EXACT)
    return None, to_json(value), EXACT


def encode_column(
    values: Sequence[Any], extra: dict[int, Extra] | None
) -> tuple[list[float | None], list[str | None] | None, int | list[int]]:
    """(num, exact as JSON text, kind) of a column; `exact` is None and `kind` one number where that holds for all rows.

    Raises TypeError when a value has no form in the store.
    """
    types = set(map(type, values))
    if not extra and len(types) == 1:
        if types == {float} and isfinite(sum(values)) and _MINUS_ZERO not in array("d", values).tobytes():
            return list(values), None, FLOAT
        if types == {bool}:
            return list(map(float, values)), None, BOOLEAN
        if types == {int} and min(values) >= -LARGEST and max(values) <= LARGEST:
            return list(map(float, values)), None, INTEGER
    nums: list[float | None] = []
    exacts: list[str | None] = []
    kinds: list[int] = []
    for value in values:
        num, form, kind = encode(value)
        nums.append(num)
        exacts.append(None if kind != EXACT else dump({"v": form}))
        kinds.append(kind)
    for row, more in (extra or {}).items():
        members: dict[str, Any] = {"v": encode(values[row])[1]} if kinds[row] == EXACT else {}
        if more.source_ts is not None:
            members["source_ts"] = more.source_ts
        if more.raw is not None:
            members["raw"] = to_json(more.raw)
        exacts[row] = dump(members) if members else None
    return nums, exacts, kinds


def decode(num: float | None, exact: dict[str, Any] | None, flags: int) -> Any:
    """The value of a stored row; `flags` is the stored number, kind included."""
    kind = flags & KIND_MASK
    if kind == EXACT:
        return from_json((exact or {}).get("v"))
    if num is None or kind == FLOAT:
        return num
    return bool(num) if kind == BOOLEAN else int(num)
