"""From the bytes of a response to columns of values: everything that can be known beforehand is compiled beforehand.

Registers travel with the high byte first (Modbus Application Protocol V1.1b3 §4.2); how several of them make one value is left to each
vendor. With A the most significant byte of the value, the four usual orders are two choices (words reversed, bytes swapped
in each word), so that two buffers (as received, and with the bytes of each word swapped) and the two endians of `struct` give them all:

    ABCD  received, big endian          DCBA  received, little endian
    BADC  swapped, big endian           CDAB  swapped, little endian

which holds for one, two and four registers alike.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

from adapters.modbus._plan import Read
from schemas.bilingual import Bilingual, chinese, of_error
from schemas.profile import ModbusAddress
from schemas.status import BAD_DECODING_ERROR, by_name

_CODES = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
_UNSIGNED = {1: "H", 2: "I", 4: "Q"}
_BITS = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))
"""The bits of each byte, least significant first, as coils are packed (V1.1b3 §6.1)."""

Decoded = tuple[Sequence[Any], list[int] | None]
"""Values, and their StatusCodes or None when all are Good."""


class Decoder(Protocol):
    """Decodes the data bytes of one read."""

    points: tuple[int, ...]
    """The points, in the order of the values."""

    def decode(self, data: bytes) -> Decoded:
        """The values of the data bytes after the byte count, whose number must be that of the read (2 for each register, 1 for each 8 bits)."""
        ...


def check_address(address: ModbusAddress) -> str | None:
    """What is wrong with an address that no device is needed to see, else None."""
    for name in address.sentinels.values():
        try:
            by_name(name)
        except ValueError as error:
            return Bilingual(f"sentinels: {error}", f"sentinels 有误：{chinese(of_error(error))}")
    if address.type == "string":
        try:
            "".encode(address.encoding)
            b"".decode(address.encoding)
        except LookupError:
            return Bilingual(
                f"encoding {address.encoding!r} is not known: write utf-8, ascii, gbk, latin-1 or utf-16-be",
                f"不认识的编码 {address.encoding!r}：请写 utf-8、ascii、gbk、latin-1 或 utf-16-be",
            )
    return None


def compile_decoder(read: Read, addresses: Mapping[int, ModbusAddress], *, bits: bool) -> Decoder:
    """The decoder of `read`, whose points have `addresses`. Raises ValueError or LookupError where `check_address` finds fault."""
    return _BitDecoder(read) if bits else _RegisterDecoder(read, addresses)


class _BitDecoder:
    def __init__(self, read: Read) -> None:
        self.points = tuple(value.point for value in read.values)
        offsets = [value.start - read.start for value in read.values]
        self._pick: Callable[[Sequence[bool]], tuple[bool, ...]]
        if len(offsets) == 1:
            only = offsets[0]
            self._pick = lambda all_bits: (all_bits[only],)
        elif offsets == list(range(len(offsets))):
            count = len(offsets)
            self._pick = lambda all_bits: tuple(all_bits[:count])
        else:
            self._pick = itemgetter(*offsets)

    def decode(self, data: bytes) -> Decoded:
        return self._pick(tuple(chain.from_iterable([_BITS[byte] for byte in data]))), None


class _Lane:
    """Values that do not overlap and lie in one buffer in one endian: one compiled format."""

    def __init__(self) -> None:
        self.end = 0
        self.parts: list[str] = []
        self.points: list[int] = []

    def add(self, point: int, offset: int, code: str, size: int) -> None:
        if offset > self.end:
            self.parts.append(f"{offset - self.end}x")
        self.parts.append(code)
        self.points.append(point)
        self.end = offset + size


_Unpack = Callable[[Any], tuple[Any, ...]]
Finish = Callable[[Any], tuple[Any, int]]
"""Makes value and status of what the format unpacked."""


class _RegisterDecoder:
    def __init__(self, read: Read, addresses: Mapping[int, ModbusAddress]) -> None:
        size = read.size * 2
        lanes: dict[tuple[bool, str], list[_Lane]] = {}
        finishes: dict[int, Finish] = {}
        for value in read.values:
            address = addresses[value.point]
            swapped = address.order in ("BADC", "CDAB")
            endian = "<" if address.order in ("CDAB", "DCBA") else ">"
            code, finish = _format(address, value.size)
            if finish is not None:
                finishes[value.point] = finish
            offset = (value.start - read.start) * 2
            row = lanes.setdefault((swapped, endian), [])
            lane = next((lane for lane in row if lane.end <= offset), None)
            if lane is None:
                lane = _Lane()
                row.append(lane)
            lane.add(value.point, offset, code, value.size * 2)
        self.points: tuple[int, ...] = ()
        self._received: list[_Unpack] = []
        self._swapped: list[_Unpack] = []
        for swapped, endian in sorted(lanes):  # what is taken as received comes first
            for lane in lanes[swapped, endian]:
                rest = f"{size - lane.end}x" if lane.end < size else ""
                form = struct.Struct(endian + "".join(lane.parts) + rest)
                (self._swapped if swapped else self._received).append(form.unpack)
                self.points += tuple(lane.points)
        self._finishes = [(row, finishes[point]) for row, point in enumerate(self.points) if point in finishes]

    def decode(self, data: bytes) -> Decoded:
        values: tuple[Any, ...] = ()
        for unpack in self._received:
            values = values + unpack(data) if values else unpack(data)
        if self._swapped:
            words = array("H", data)
            words.byteswap()
            for unpack in self._swapped:
                values = values + unpack(words) if values else unpack(words)
        if not self._finishes:
            return values, None
        return self._finish(list(values))

    def _finish(self, values: list[Any]) -> Decoded:
        status: list[int] | None = None
        for row, finish in self._finishes:
            values[row], code = finish(values[row])
            if code:
                if status is None:
                    status = [0] * len(values)
                status[row] = code
        return values, status


def _format(address: ModbusAddress, registers: int) -> tuple[str, Finish | None]:
    """The struct code of a value in its lane, and what is left to do afterwards."""
    sentinels = {raw: by_name(name) for raw, name in address.sentinels.items()}
    code = _CODES.get(address.type)
    if code is not None:
        if not sentinels:
            return code, None
        # Sentinels are compared as unsigned words: a NaN is not equal to itself, and has a payload.
        unsigned = _UNSIGNED[registers]
        return unsigned, _sentinel_finish(sentinels, struct.Struct("=" + unsigned), struct.Struct("=" + code))
    reverse = address.order in ("CDAB", "DCBA")
    encoding = address.encoding if address.type == "string" else None

    def finish(data: bytes) -> tuple[Any, int]:
        if reverse:
            data = data[::-1]
        status = sentinels.get(int.from_bytes(data, "big"), 0) if sentinels else 0
        if encoding is None:
            return data, status
        try:
            return data.decode(encoding).rstrip("\0 "), status
        except UnicodeError:
            return data, status or BAD_DECODING_ERROR

    return f"{registers * 2}s", finish


def _sentinel_finish(sentinels: Mapping[int, int], unsigned: struct.Struct, native: struct.Struct) -> Finish:
    look_up, pack, unpack = sentinels.get, unsigned.pack, native.unpack
    if unsigned.format == native.format:
        return lambda raw: (raw, look_up(raw, 0))
    return lambda raw: (unpack(pack(raw))[0], look_up(raw, 0))
