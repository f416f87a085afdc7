"""From the bytes of a response to columns of values: everything that can be known beforehand is compiled beforehand.

Registers travel with the high byte first (Modbus Application Protocol V1.1b3 §4.2); how several of them make one value is left to each
vendor. With A the most significant byte of the value, the four usual orders are two choices (words reversed, bytes swapped
in each word), so that two buffers (as received, and with the bytes of each word swapped) and the two endians of `struct` give them all:

    ABCD  received, big endian          DCBA  received, little endian
    BADC  swapped, big endian           CDAB  swapped, little endian

which holds for one, two and four registers alike. The four orders of 64 bits that are left (CDABGHEF and the like) are put in order byte by byte.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

from adapters.modbus._dates import date_reader
from adapters.modbus._plan import Read, Value
from schemas.bilingual import Bilingual, chinese, of_error
from schemas.modbus import REGISTERS, ModbusAddress
from schemas.status import BAD_DECODING_ERROR, by_name

_CODES = {
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
_BCD = {"bcd16": "H", "bcd32": "I"}
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_BITS = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))
"""The bits of each byte, least significant first, as coils are packed (V1.1b3 §6.1)."""

Decoded = tuple[Sequence[Any], list[int] | None]
"""Values, and their StatusCodes or None when all are Good."""


class Decoder(Protocol):
    """Decodes the data bytes of one read."""

    points: tuple[int, ...]
    """The points, in the order of the values."""
    told: dict[int, str]
    """What the sentinels mean that were found in the data decoded last, by point; for those that mean something in words."""

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
        except (LookupError, ValueError):  # no such encoding; no name at all
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
        self.told: dict[int, str] = {}
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
        self.told: dict[int, str] = {}
        size = read.size * 2
        lanes: dict[tuple[bool, str], list[_Lane]] = {}
        finishes: dict[int, Finish] = {}
        for value in read.values:
            address = addresses[value.point]
            swapped = address.order in ("BADC", "CDAB")
            endian = "<" if address.order in ("CDAB", "DCBA") else ">"
            mixed = address.order if len(address.order) == 8 else None
            if mixed is not None:
                address = address.model_copy(update={"order": "ABCD"})
            code, finish = _format(address)
            if finish is not None:
                finish = self._telling(value.point, address, finish)
            if mixed is not None:
                code, finish = _put_in_order(mixed, code, finish)
            if finish is not None:
                finishes[value.point] = finish
            offset = (value.start - read.start) * 2
            width = struct.calcsize("=" + code)
            if width == 1 and (address.byte == "low") is (endian == ">"):
                offset += 1
            row = lanes.setdefault((swapped, endian), [])
            lane = next((lane for lane in row if lane.end <= offset), None)
            if lane is None:
                lane = _Lane()
                row.append(lane)
            lane.add(value.point, offset, code, width)
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

    def _telling(self, point: int, address: ModbusAddress, finish: Finish) -> Finish:
        """`finish`, and `told` as well, where the sentinels of an address have words."""
        if not address.faults:
            return finish
        texts = {
            raw: Bilingual(f"{raw:#06x}: {text.get('en')}", f"{raw:#06x}：{text.get('zh')}")
            for raw, text in address.faults.items()
        }
        word = _Raw(address)
        told = self.told

        def telling(raw: Any) -> tuple[Any, int]:
            value, status = finish(raw)
            for each in word(raw) if status else ():
                if each in texts:
                    told[point] = texts[each]
            return value, status

        return telling

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
        if self.told:
            self.told.clear()
        for row, finish in self._finishes:
            values[row], code = finish(values[row])
            if code:
                if status is None:
                    status = [0] * len(values)
                status[row] = code
        return values, status


class _Raw:
    """The unsigned numbers in what the format of an address unpacks: those that sentinels are compared with."""

    def __init__(self, address: ModbusAddress) -> None:
        self._little = address.order in ("CDAB", "DCBA")
        self._width = REGISTERS.get(address.type, 0) * 2 if address.count else 0

    def __call__(self, raw: Any) -> list[int]:
        if isinstance(raw, int):
            return [raw]
        width, order = self._width or len(raw), "little" if self._little else "big"
        return [int.from_bytes(raw[at : at + width], order) for at in range(0, len(raw), width)]  # type: ignore[arg-type]


def _format(address: ModbusAddress) -> tuple[str, Finish | None]:
    """The struct code of a value in its lane, and what is left to do afterwards."""
    sentinels = {raw: by_name(name) for raw, name in address.sentinels.items()}
    if address.count is not None:
        return f"{address.registers * 2}s", _array_finish(address, sentinels)
    code = _CODES.get(address.type) or _BCD.get(address.type)
    if code is None:
        return f"{address.registers * 2}s", _bytes_finish(address, sentinels)
    if address.type in _BCD:
        return code, _bcd_finish(sentinels)
    if address.fields:
        return code, _fields_finish(address.named_bits, sentinels)
    if not sentinels:
        return code, None
    # Sentinels are compared as unsigned words: a NaN is not equal to itself, and has a payload.
    unsigned = _UNSIGNED[struct.calcsize("=" + code)]
    return unsigned, _sentinel_finish(sentinels, struct.Struct("=" + unsigned), struct.Struct("=" + code))


def _put_in_order(order: str, code: str, finish: Finish | None) -> tuple[str, Finish]:
    """Format and finish of values of 64 bits in one of the mixed orders, from those of the same in order ABCD."""
    inner = struct.Struct(">" + code)
    places = [order.index(letter) for letter in "ABCDEFGH"]

    def ordered(data: bytes) -> tuple[Any, int]:
        (raw,) = inner.unpack(bytes(data[at + place] for at in range(0, len(data), 8) for place in places))
        return finish(raw) if finish is not None else (raw, 0)

    return f"{inner.size}s", ordered


def _bytes_finish(address: ModbusAddress, sentinels: Mapping[int, int]) -> Finish:
    """Of strings, bytes and date-times."""
    reverse = address.order in ("CDAB", "DCBA")
    read: Callable[[bytes], Any] | None = None
    if address.layout is not None:
        read = date_reader(address.layout, address.zone)
    elif address.type == "string":
        read = _text_reader(address.encoding, address.padding)

    def finish(data: bytes) -> tuple[Any, int]:
        if reverse:
            data = data[::-1]
        status = sentinels.get(int.from_bytes(data, "big"), 0) if sentinels else 0
        if read is None:
            return data, status
        try:
            return read(data), status
        except (ValueError, OverflowError):  # not of this encoding; no such day
            return data, status or BAD_DECODING_ERROR

    return finish


def _text_reader(encoding: str, padding: str) -> Callable[[bytes], str]:
    if padding == "nul":
        width = 2 if encoding.lower().replace("_", "-").startswith("utf-16") else 1

        def until_nul(data: bytes) -> str:
            for at in range(0, len(data), width):
                if not any(data[at : at + width]):
                    return data[:at].decode(encoding)
            return data.decode(encoding)

        return until_nul
    if padding == "both":
        return lambda data: data.decode(encoding).strip("\0 ")
    if padding == "ff":
        return lambda data: data.rstrip(b"\xff").decode(encoding).rstrip("\0 ")
    return lambda data: data.decode(encoding).rstrip("\0 ")


def _bcd(raw: int) -> int:
    """A digit in each four bits. Raises ValueError where they are more than nine."""
    return int(f"{raw:x}")


def _bcd_finish(sentinels: Mapping[int, int]) -> Finish:
    def finish(raw: int) -> tuple[Any, int]:
        status = sentinels.get(raw, 0)
        try:
            return _bcd(raw), status
        except ValueError:
            return raw, status or BAD_DECODING_ERROR

    return finish


def _fields_finish(fields: Mapping[str, tuple[int, int]], sentinels: Mapping[int, int]) -> Finish:
    parts = [(name, first, (1 << number) - 1) for name, (first, number) in fields.items()]

    def finish(raw: int) -> tuple[Any, int]:
        taken = {name: bool(raw >> first & 1) if mask == 1 else raw >> first & mask for name, first, mask in parts}
        return taken, sentinels.get(raw, 0)

    return finish


def _array_finish(address: ModbusAddress, sentinels: Mapping[int, int]) -> Finish:
    """Of several numbers; a sentinel among them gives its status to all."""
    endian = "<" if address.order in ("CDAB", "DCBA") else ">"
    code = _CODES.get(address.type) or _BCD[address.type]
    form = struct.Struct(f"{endian}{address.count}{code}")
    words = struct.Struct(f"{endian}{address.count}{_UNSIGNED[struct.calcsize('=' + code)]}")
    bcd = address.type in _BCD

    def finish(data: bytes) -> tuple[Any, int]:
        status = 0
        if sentinels:
            status = next((sentinels[word] for word in words.unpack(data) if word in sentinels), 0)
        values = list(form.unpack(data))
        if bcd:
            try:
                values = [_bcd(value) for value in values]
            except ValueError:
                return values, status or BAD_DECODING_ERROR
        return values, status

    return finish


def _sentinel_finish(sentinels: Mapping[int, int], unsigned: struct.Struct, native: struct.Struct) -> Finish:
    look_up, pack, unpack = sentinels.get, unsigned.pack, native.unpack
    if unsigned.format == native.format:
        return lambda raw: (raw, look_up(raw, 0))
    return lambda raw: (unpack(pack(raw))[0], look_up(raw, 0))


def decode_one(address: ModbusAddress, data: bytes) -> tuple[Any, int]:
    """Value and StatusCode of the registers of one address, whose bytes `data` are as received; for bits the byte with the bit.

    Factors of other registers are not applied. Raises ValueError for too few bytes, and what `compile_decoder` raises.
    """
    bits = address.table in ("coil", "discrete")
    size = 1 if bits else address.registers * 2
    if len(data) < size:
        raise ValueError(f"{len(data)} bytes for {address.type}")
    value = Value(address.wire, address.registers, 0)
    decoder = compile_decoder(Read(address.wire, address.registers, (value,)), {0: address}, bits=bits)
    values, status = decoder.decode(data[:size])
    return values[0], status[0] if status else 0
