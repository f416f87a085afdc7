"""What one signal does to its raw values, compiled from the plan once."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import msgspec

from gateway.config.plan import PlannedSignal
from schemas.model import INTEGER_TYPES
from schemas.status import (
    BAD_DECODING_ERROR,
    BAD_ENCODING_LIMITS_EXCEEDED,
    BAD_NO_VALUE,
    BAD_TYPE_MISMATCH,
    UNCERTAIN,
    UNCERTAIN_ENGINEERING_UNITS_EXCEEDED,
)
from schemas.wire import Flag

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**64 - 1
"""What MessagePack can carry as an integer."""
MAX_VALUE: Final = 32 * 1024
"""Largest single value, encoded, in bytes: two of them fit a message of the ledger beside its other readings."""
_MAX_RAW: Final = 1024
_SURELY_SMALL: Final = MAX_VALUE // 16
_INTEGER_BOUNDS: Final = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,), "bytes": (bytes,), "datetime": (int,), "array": (list, tuple), "object": (dict, list, tuple),
}  # fmt: skip

Number = int | float
Converted = tuple[Any, int, Any, int]
"""Value, status, raw (None: not kept) and flags."""


class SignalRules:
    """One signal's conversion.

    For a raw value whose class is in `quick` and that lies within `low..high`, the stored value is `convert(raw)` (or the raw value where
    `convert` is None) and its status that of the raw value; `full` covers every other case, and these too.
    """

    __slots__ = (
        "_enum", "_raw_bounds", "_takes", "convert", "deadband", "every", "high", "low", "name", "quick", "range", "silence", "type",
    )  # fmt: skip

    def __init__(self, planned: PlannedSignal) -> None:
        signal = planned.signal
        self.name = signal.name
        self.type = signal.type
        self.every = signal.store == "every"
        self.silence = round(signal.silence * 1e6) if signal.silence is not None else None
        self.range = signal.range
        self.deadband = 0.0
        if signal.deadband is not None:
            span = signal.range[1] - signal.range[0] if signal.range is not None else 0.0
            self.deadband = signal.deadband.absolute or span * (signal.deadband.percent or 0.0) / 100
        self._enum = frozenset(signal.enum) if signal.enum else None
        masked = signal.bit is not None or signal.bits is not None
        self._raw_bounds = (LOWEST, HIGHEST) if masked else _INTEGER_BOUNDS.get(signal.type, (LOWEST, HIGHEST))
        self.convert = _conversion(planned)
        self._takes = (int,) if masked or signal.type in INTEGER_TYPES else (float, int)
        self.low: Number
        self.high: Number
        self.low, self.high = self._raw_bounds
        self.quick: tuple[type, ...] = () if signal.type in _PYTHON else self._takes
        if signal.type == "bool" and not masked:
            self.quick = (bool,)
        self._narrow(planned, masked)

    def _narrow(self, planned: PlannedSignal, masked: bool) -> None:
        """Narrows `low..high` to raw values that are surely within the range and the enumeration; the edges go the full way."""
        if self._enum is not None:
            whole = len(self._enum) == max(self._enum) - min(self._enum) + 1
            if masked or planned.type == "float64" or not whole:
                self.quick = ()
            else:
                self.low, self.high = max(self.low, min(self._enum)), min(self.high, max(self._enum))
        if self.range is not None and self.quick:
            if masked or planned.scale == 0:
                self.quick = ()
                return
            edges = sorted((edge - planned.offset) / planned.scale for edge in self.range)
            margin = (abs(edges[0]) + abs(edges[1])) * 1e-12
            self.low, self.high = max(self.low, edges[0] + margin), min(self.high, edges[1] - margin)

    def full(self, raw: Any, status: int) -> Converted:
        """What is stored for a raw value that is not bad. Never raises for a value, however odd."""
        if raw is None:
            return None, BAD_NO_VALUE, None, 0
        if self.type == "string" and isinstance(raw, bytes) and status & 0xC0000000:
            # a text in an unknown encoding, and the adapter says so: what can be read of it, beside the bytes
            readable = raw.decode(errors="replace")
            problem = unsendable(readable)
            return (None, problem, None, 0) if problem else (readable, status, *kept(raw))
        value = self._typed(raw)
        if value is None:
            return None, BAD_TYPE_MISMATCH, *kept(raw)
        if not isinstance(value, bool | int | float):
            problem = unsendable(value)
            if problem:
                return None, problem, *((None, 0) if problem == BAD_ENCODING_LIMITS_EXCEEDED else kept(raw))
            return value, status, None, 0
        if self.convert is not None:
            value = self.convert(value)
        if isinstance(value, int) and not LOWEST <= value <= HIGHEST:
            value = float(value)
        flags = 0
        if self._enum is not None and value not in self._enum and not status & 0xC0000000:
            status = UNCERTAIN
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            flags = Flag.OUT_OF_RANGE.value
            if not status & 0xC0000000:
                status = UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
        return value, status, None, flags

    def _typed(self, raw: Any) -> Any:
        """The raw value as its type has it; None where it is of another type."""
        kind = self.type
        if kind in _PYTHON:
            return raw if isinstance(raw, _PYTHON[kind]) and not isinstance(raw, bool) else None
        if not isinstance(raw, bool | int | float):
            return None
        if isinstance(raw, float) and float not in self._takes:
            return None
        if kind == "bool" and self.convert is None:
            return raw if isinstance(raw, bool) else bool(raw) if raw in (0, 1) else None
        raw = int(raw) if isinstance(raw, bool) else raw
        low, high = self._raw_bounds
        if isinstance(raw, int) and not low <= raw <= high:
            return _as_float(raw) if float in self._takes else None
        return raw


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


class _Mask:
    """Takes some bits of an integer, and scales what they hold."""

    __slots__ = ("_bits", "_first", "_then")

    def __init__(self, first: int, bits: int, then: Callable[[Any], Any] | None) -> None:
        self._first, self._bits, self._then = first, (1 << bits) - 1, then

    def __call__(self, value: Any) -> Any:
        taken = value >> self._first & self._bits
        return taken if self._then is None else self._then(taken)


def _conversion(planned: PlannedSignal) -> Callable[[Any], Any] | None:
    """Raw to stored; None where they are the same."""
    signal = planned.signal
    scaled = _scaling(planned.scale, planned.offset)
    if signal.bit is not None:
        return _Mask(signal.bit, 1, bool if signal.type == "bool" else scaled)
    if signal.bits is not None:
        return _Mask(signal.bits[0], signal.bits[1], bool if signal.type == "bool" else scaled)
    return scaled


def _scaling(scale: float, offset: float) -> Callable[[Any], Any] | None:
    """`raw * scale + offset` in floats. A scale of 0.1 divides by 10: 3 becomes 0.3 and not 0.30000000000000004."""
    if scale == 1.0:
        return None if offset == 0.0 else lambda value: value + offset
    inverse = Fraction(1) / Fraction(repr(scale)) if scale else Fraction(0)
    if scale and abs(scale) < 1 and inverse.denominator == 1 and abs(inverse) < 2**53:
        divisor = float(inverse)
        return (lambda value: value / divisor) if offset == 0.0 else (lambda value: value / divisor + offset)
    return (lambda value: value * scale) if offset == 0.0 else (lambda value: value * scale + offset)


def unsendable(value: Any) -> int:
    """0 for a text, bytes, array or object that a message can carry, else the StatusCode that says why not."""
    if isinstance(value, str | bytes) and len(value) < _SURELY_SMALL and (isinstance(value, bytes) or value.isascii()):
        return 0
    try:
        size = len(msgspec.msgpack.encode(value))
    except UnicodeEncodeError:
        return BAD_DECODING_ERROR
    except (TypeError, ValueError, OverflowError, RecursionError):
        return BAD_TYPE_MISMATCH
    return 0 if size <= MAX_VALUE else BAD_ENCODING_LIMITS_EXCEEDED


def kept(raw: Any) -> tuple[Any, int]:
    """What of a raw value is kept beside a bad reading (at most 1 kB of it), and the flag that says so."""
    if raw is None:
        return None, 0
    if isinstance(raw, str | bytes) and len(raw) > _MAX_RAW:
        raw = raw[:_MAX_RAW]
    if isinstance(raw, int) and not LOWEST <= raw <= HIGHEST:
        raw = str(raw)[:_MAX_RAW]
    if not isinstance(raw, bool | int | float):
        try:
            small = len(msgspec.msgpack.encode(raw)) <= 4 * _MAX_RAW
        except (TypeError, ValueError, OverflowError, RecursionError):  # UnicodeEncodeError is a ValueError
            small = False
        if not small:
            raw = ascii(raw)[:_MAX_RAW]
    return raw, Flag.RAW_KEPT.value


def same(a: Any, b: Any) -> bool:
    """Whether two stored values are the same: NaN is NaN, 0.0 is -0.0, 5 is 5.0, but true is not 1, also inside arrays."""
    if a is b:
        return True
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, bool) is not isinstance(b, bool):
        return False
    return bool(a == b or (a != a and b != b))  # only NaN differs from itself
