"""One point read before anything is saved: what arrived, what it means, and what else it could mean."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from adapters.contract import DeviceSpec, LinkSpec, Point, SystemClock, TransientError
from adapters.modbus import ModbusAdapter, ModbusDeviceSettings, ModbusLinkSettings, decode_one
from schemas.bilingual import Bilingual
from schemas.profile import REGISTERS, ModbusAddress, ModbusRules
from schemas.status import BAD_DECODING_ERROR, BAD_NO_COMMUNICATION, modbus_exception

if TYPE_CHECKING:
    from adapters.modbus.probe import Prober, SerialPlace

_CODES: Final = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")
_MOST: Final = 4
"""Registers of the longest number."""
LISTEN: Final = 1.0
"""Seconds of listening on a serial line before something is asked on it."""


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
    if len(order) == 8:
        data, order = bytes(data[at + order.index(c)] for at in range(0, len(data) - 7, 8) for c in "ABCDEFGH"), "ABCD"
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


async def read_serial(place: SerialPlace, unit: int, address: ModbusAddress, *, timeout: float = 1.0) -> ModbusTest:
    """As `read_modbus`, on a serial port of this machine.

    It first listens for a moment, and asks nothing where another master speaks. Raises AdapterError (`foreign_master`, `no_answer`).
    """
    from adapters.modbus.probe import Prober  # needs a POSIX terminal, which the rest of this module does not

    async with Prober(place, timeout=timeout) as prober:
        await prober.listen(LISTEN)
        longest, status = await _registers(prober, unit, address)
    return tested(address, longest, status, SystemClock().now())


async def _registers(prober: Prober, unit: int, address: ModbusAddress) -> tuple[bytes, int]:
    """The bytes from `address` on, more than it needs where the device has them, and a status."""
    from adapters.modbus.probe import Outcome

    function = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}[address.table]
    wanted = address.registers
    for count in dict.fromkeys((longest_read(address), wanted)):
        answer = await prober.read(unit, function, address.wire, count)
        if answer.outcome is Outcome.DATA:
            return answer.data, 0
        if answer.outcome is not Outcome.EXCEPTION:
            raise _silent(unit, garbled=answer.outcome is Outcome.GARBLED)
    return b"", modbus_exception(answer.code).status


def _silent(unit: int, *, garbled: bool) -> TransientError:
    return TransientError(
        Bilingual(
            f"unit {unit}: bytes came that are no answer" if garbled else f"unit {unit} does not answer",
            f"站号 {unit}：收到的字节不是有效应答" if garbled else f"站号 {unit} 无应答",
        ),
        reason="garbled" if garbled else "no_answer",
        fix_en="Check the unit number, baud rate, parity and stop bits, the wiring (A and B), and that the device is on.",
        fix_zh="请检查站号、波特率、校验位与停止位、接线（A/B）以及设备是否通电。",
    )


def longest_read(address: ModbusAddress) -> int:
    """How many registers are read for an address, so that every other number that begins there can be told; one for a bit."""
    if address.table in ("coil", "discrete"):
        return 1
    return min(max(address.registers, _MOST), 65536 - address.wire)


def tested(address: ModbusAddress, data: bytes, status: int, received: int) -> ModbusTest:
    """The outcome of a read that gave the registers' bytes from `address` on (empty: none); `received` in µs."""
    if status or not data:
        return ModbusTest(address, status or BAD_NO_COMMUNICATION, received, (), b"", None, ())
    if address.table in ("coil", "discrete"):
        return ModbusTest(address, 0, received, (), b"", bool(data[0] & 1), ())
    raw = data[: 2 * address.registers]
    value: Any = None
    try:
        value, status = decode_one(address, raw)
    except (ValueError, LookupError):
        status = BAD_DECODING_ERROR
    registers = tuple(int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2))
    return ModbusTest(
        address, status, received, registers, raw, value, tuple(alternatives(data, address.type, address.order))
    )


def written(value: Any) -> str:
    """A decoded value for people: short, exact for integers."""
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else str(value)
    return value.hex(" ") if isinstance(value, bytes) else repr(value) if isinstance(value, str) else str(value)
