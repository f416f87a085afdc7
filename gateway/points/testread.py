"""One point read before anything is saved: what arrived, what it means, and what else it could mean."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from adapters.contract import DeviceSpec, LinkSpec, Point, SystemClock
from adapters.modbus import ModbusAdapter, ModbusDeviceSettings, ModbusLinkSettings
from schemas.profile import REGISTERS, ModbusAddress, ModbusRules

_CODES: Final = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")
_MOST: Final = 4
"""Registers of the longest number."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the same registers give as another type or in another order."""

    type: str
    order: str
    value: Any


@dataclass(frozen=True, slots=True)
class ModbusTest:
    """The outcome of a test-read. `registers` (as on the wire) and `raw` are empty for a bad status and for bits.

    `status` is a StatusCode, `received` µs since the epoch; `others` holds every other number that begins at this address.
    """

    address: ModbusAddress
    status: int
    received: int
    registers: tuple[int, ...]
    raw: bytes
    value: Any
    others: tuple[Reading, ...]


def decode(data: bytes, kind: str, order: str, encoding: str = "utf-8") -> Any:
    """The value in registers' bytes as received; `order` as in `schemas.profile.ModbusAddress`.

    Raises ValueError for text that is not in `encoding` and for too few bytes.
    """
    if kind in _CODES:
        data = data[: REGISTERS[kind] * 2]
    if order in ("BADC", "CDAB"):
        data = b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2))
    little = order in ("CDAB", "DCBA")
    if kind in _CODES:
        try:
            return struct.unpack(("<" if little else ">") + _CODES[kind], data)[0]
        except struct.error as error:
            raise ValueError(f"{len(data)} bytes for {kind}") from error
    if little:
        data = data[::-1]
    return data if kind == "bytes" else data.decode(encoding).rstrip("\0 ")


def alternatives(data: bytes, kind: str, order: str) -> Iterator[Reading]:
    """Every number that the bytes may begin with, other than (`kind`, `order`); in one register an order only swaps its bytes."""
    for other in _CODES:
        count = REGISTERS[other]
        if len(data) < 2 * count:
            continue
        for spelling in _ORDERS if count > 1 else ("ABCD", "BADC"):
            if (other, spelling) != (kind, order):
                yield Reading(other, spelling, decode(data, other, spelling))
    text = data.rstrip(b"\0 ")
    if kind != "string" and len(text) > 1 and text.isascii() and text.decode("ascii").isprintable():
        yield Reading("string", "ABCD", text.decode("ascii"))


async def read_modbus(
    link: ModbusLinkSettings, unit: int, address: ModbusAddress, *, timeout: float = 1.0
) -> ModbusTest:
    """Reads `address` of a unit once, over a connection of its own. `timeout` in seconds for one answer.

    A device that refuses the address is a bad status. Raises AdapterError when nobody answers.
    """
    bits = address.table in ("coil", "discrete")
    points = [Point(0, "test", "wanted", "default", address, "any")]
    if not bits:
        for registers in sorted({address.registers, min(max(address.registers, _MOST), 65536 - address.wire)}):
            whole = ModbusAddress(table=address.table, address=address.wire, type="bytes", length=registers)
            points.append(Point(len(points), "test", f"raw{registers}", "default", whole, "bytes"))
    device = DeviceSpec(
        "test", ModbusDeviceSettings(unit=unit), ModbusRules(timeout=timeout), {"default": 1.0}, tuple(points)
    )
    adapter = ModbusAdapter(LinkSpec("test", link, (device,), SystemClock()))
    try:
        await adapter.connect()
        samples = await adapter.read([point.id for point in points])
    finally:
        await adapter.disconnect()
    found = {
        point: (value, status)
        for point, value, status in zip(
            samples.points, samples.values, samples.status or [0] * len(samples.points), strict=True
        )
    }
    value, status = found[0]
    longest = next(
        (v for p, (v, s) in sorted(found.items(), reverse=True) if p and not s and isinstance(v, bytes)), b""
    )
    raw = longest[: 2 * address.registers]
    return ModbusTest(
        address,
        status,
        samples.received,
        tuple(int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)),
        raw,
        value,
        tuple(alternatives(longest, address.type, address.order)),
    )


def written(value: Any) -> str:
    """A decoded value for people: short, exact for integers."""
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else str(value)
    return value.hex(" ") if isinstance(value, bytes) else repr(value) if isinstance(value, str) else str(value)
