"""The map of a Modbus device as data, and how its registers are read as values.

The codec here is written plainly and on its own, so that a test can decode what a simulated device handed out without
the gateway's decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["MapEntry", "Order", "Table", "Value", "WireType", "decode", "encode", "sentinel_of", "width"]

Table: TypeAlias = Literal["coil", "discrete", "input", "holding"]
Order: TypeAlias = Literal["ABCD", "BADC", "CDAB", "DCBA", "CDABGHEF", "EFGHABCD", "DCBAHGFE", "FEHGBADC"]
WireType: TypeAlias = Literal["bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
Value: TypeAlias = bool | int | float

_STRUCT: Mapping[str, struct.Struct] = {
    "int16": struct.Struct(">h"),
    "uint16": struct.Struct(">H"),
    "int32": struct.Struct(">i"),
    "uint32": struct.Struct(">I"),
    "int64": struct.Struct(">q"),
    "uint64": struct.Struct(">Q"),
    "float32": struct.Struct(">f"),
    "float64": struct.Struct(">d"),
}


@dataclass(frozen=True, slots=True)
class MapEntry:
    """One value of a device: where it lies and what its registers mean.

    ``value = raw * scale`` in ``unit``; with ``bit`` the value is that bit of the raw word, a bool.
    """

    name: str
    """The signal's name, as in the profile of the device type."""
    table: Table
    address: int
    """Zero-based, as on the wire."""
    type: WireType = "uint16"
    order: Order = "ABCD"
    """Order of the bytes on the wire: CDAB is low word first, BADC swaps the bytes in each word, DCBA does both; of 64 bits also the orders
    with eight letters."""
    scale: float = 1.0
    unit: str = ""
    bit: int | None = None
    """Take this bit of the word, 0 is the least significant."""
    sentinels: Mapping[int, str] = field(default_factory=dict)
    """Raw words, unsigned, that are no value but a fault, and what each says."""


def width(entry: MapEntry) -> int:
    """How many registers (or, in the tables of bits, how many bits) the value takes: 1, 2 or 4."""
    return 1 if entry.type == "bool" else _STRUCT[entry.type].size // 2


def _ordered(words: Sequence[int], order: Order) -> list[int]:
    """Words as on the wire into words most significant first, or back: each order is its own inverse."""
    ordered = list(reversed(words)) if order in ("CDAB", "DCBA") else list(words)
    if order in ("CDABGHEF", "DCBAHGFE"):
        ordered = [ordered[1], ordered[0], ordered[3], ordered[2]]
    elif order in ("EFGHABCD", "FEHGBADC"):
        ordered = ordered[2:] + ordered[:2]
    if order in ("BADC", "DCBA", "DCBAHGFE", "FEHGBADC"):
        ordered = [(word & 0xFF) << 8 | word >> 8 for word in ordered]
    return ordered


def sentinel_of(entry: MapEntry, registers: Sequence[int]) -> str | None:
    """What the registers of *entry* say when they hold one of its sentinels, else ``None``."""
    raw = 0
    for word in _ordered(registers[: width(entry)], entry.order):
        raw = raw << 16 | word
    return entry.sentinels.get(raw)


def decode(entry: MapEntry, registers: Sequence[int]) -> Value | None:
    """The value of *entry* in its unit, from its registers in wire order (or its one bit), or ``None`` for a sentinel.

    Only the first :func:`width` items of *registers* are looked at. An integer whose scale is 1 stays an integer.

    Raises:
        ValueError: fewer registers than the entry takes.
    """
    needed = width(entry)
    if len(registers) < needed:
        raise ValueError(f"{entry.name} takes {needed} registers from {entry.address:#06x}, found {len(registers)}")
    if entry.type == "bool":
        return bool(registers[0])
    if sentinel_of(entry, registers) is not None:
        return None
    words = _ordered(registers[:needed], entry.order)
    raw: int | float = _STRUCT[entry.type].unpack(struct.pack(f">{needed}H", *words))[0]
    if entry.bit is not None:
        return bool(int(raw) >> entry.bit & 1)
    return raw if entry.scale == 1 else raw * entry.scale


def encode(entry: MapEntry, value: Value) -> list[int]:
    """The registers of *entry*, in wire order, that hold *value* (in the entry's unit); for a bit table the one bit.

    Integers are rounded to the nearest step of the scale and kept inside their range, as a device's display would.
    """
    if entry.type == "bool":
        return [int(bool(value))]
    if entry.type in ("float32", "float64"):
        data = _STRUCT[entry.type].pack(value / entry.scale)
    else:
        size = 16 * width(entry)
        low, high = (-(1 << size - 1), (1 << size - 1) - 1) if entry.type.startswith("int") else (0, (1 << size) - 1)
        whole = isinstance(value, int) and entry.scale == 1  # a float would lose what is beyond 2^53
        data = _STRUCT[entry.type].pack(min(max(value if whole else round(value / entry.scale), low), high))
    return _ordered(struct.unpack(f">{len(data) // 2}H", data), entry.order)
