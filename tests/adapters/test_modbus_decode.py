"""The compiled decoder against a slow one that takes the bytes apart as the manuals describe it."""

from __future__ import annotations

import math
import struct
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus._decode import check_address, compile_decoder, decode_one
from adapters.modbus._plan import Read, Value
from gateway.points.testread import decode as in_testread
from schemas.modbus import LAYOUTS, LongOrder, Order
from schemas.model import Text
from schemas.profile import REGISTERS, ModbusAddress
from schemas.status import BAD_DECODING_ERROR, BAD_OUT_OF_SERVICE, BAD_SENSOR_FAILURE
from simulators.modbus import decode
from simulators.modbus.map_entry import MapEntry

CODES = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip


def most_significant_first(data: bytes, order: str) -> bytes:
    """The bytes of a value as they would be in order ABCD."""
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if len(order) == 8:  # of 64 bits: the places of the letters
        placed = dict(zip(order, data, strict=True))
        return bytes(placed[letter] for letter in "ABCDEFGH")
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def slowly(address: ModbusAddress, start: int, data: bytes) -> Any:
    offset = (address.wire - start) * 2
    whole = data[offset : offset + address.registers * 2]
    raw = most_significant_first(whole, address.order) if address.count is None else whole
    if address.type == "bytes":
        return raw
    if address.type in ("int8", "uint8"):
        byte = raw[0] if address.byte == "high" else raw[1]
        return byte - 256 if address.type == "int8" and byte > 127 else byte
    if address.count is not None:
        own = data[offset : offset + address.registers * 2]
        width = len(own) // address.count
        each = [most_significant_first(own[at : at + width], address.order) for at in range(0, len(own), width)]
        return [struct.unpack(">" + CODES[address.type], one)[0] for one in each]
    if address.type in ("bcd16", "bcd32"):
        digits = [int(digit, 16) for digit in raw.hex()]
        if any(digit > 9 for digit in digits):
            return int.from_bytes(raw, "big")
        return sum(digit * 10**place for place, digit in enumerate(reversed(digits)))
    if address.type == "string":
        try:
            return raw.decode(address.encoding).rstrip("\0 ")
        except UnicodeDecodeError:
            return raw
    return struct.unpack(">" + CODES[address.type], raw)[0]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def bcd_source(address: ModbusAddress, start: int, data: bytes) -> int:
    offset = (address.wire - start) * 2
    raw = most_significant_first(data[offset : offset + address.registers * 2], address.order)
    return int.from_bytes(raw, "big")


def compiled(*addresses: ModbusAddress, size: int | None = None, bits: bool = False) -> Any:
    """A decoder of one read from the first address to the end of the last."""
    ordered = sorted((Value(a.wire, a.registers, point) for point, a in enumerate(addresses)))
    start = ordered[0].start
    read = Read(start, size or max(value.end for value in ordered) - start, tuple(ordered))
    return compile_decoder(read, dict(enumerate(addresses)), bits=bits)


@st.composite
def registers(draw: st.DrawFn) -> ModbusAddress:
    kind = draw(st.sampled_from([*REGISTERS, "string", "bytes"]))
    orders = [*get_args(Order), *(get_args(LongOrder) if REGISTERS.get(kind) == 4 else ())]
    return ModbusAddress(
        table="holding",
        address=draw(st.integers(100, 118)),
        type=kind,
        order=draw(st.sampled_from(orders)),
        length=draw(st.integers(1, 6)) if kind in ("string", "bytes") else None,
        count=draw(st.none() | st.integers(2, 3)) if kind in CODES else None,
        byte=draw(st.sampled_from(["low", "high"])),
        encoding=draw(st.sampled_from(["utf-8", "latin-1", "gbk", "utf-16-be"])),
    )


@given(st.lists(registers(), min_size=1, max_size=12), st.integers(0, 3), st.binary(min_size=80, max_size=80))
def test_any_block_decodes_as_the_slow_one(addresses: list[ModbusAddress], more: int, noise: bytes) -> None:
    start = min(address.wire for address in addresses)
    size = max(address.wire + address.registers for address in addresses) - start + more
    data = noise[: size * 2]
    decoder = compiled(*addresses, size=size)
    values, status = decoder.decode(data)
    assert sorted(decoder.points) == list(range(len(addresses)))
    for row, point in enumerate(decoder.points):
        expected = slowly(addresses[point], start, data)
        assert same(values[row], expected), (addresses[point], values[row], expected)
        undecodable = addresses[point].type == "string" and isinstance(expected, bytes)
        if addresses[point].type in ("bcd16", "bcd32"):
            undecodable = not f"{bcd_source(addresses[point], start, data):x}".isdecimal()
        assert (status[row] if status else 0) == (BAD_DECODING_ERROR if undecodable else 0)


@pytest.mark.parametrize(
    ("order", "wire"),
    [("ABCD", "42f6e979"), ("BADC", "f64279e9"), ("CDAB", "e97942f6"), ("DCBA", "79e9f642")],
)
def test_the_four_orders_of_123_456(order: Any, wire: str) -> None:
    address = ModbusAddress(table="input", address=0, type="float32", order=order)
    (value,), _ = compiled(address).decode(bytes.fromhex(wire))
    assert value == pytest.approx(123.456)


@pytest.mark.parametrize(
    ("order", "wire"),
    [
        ("ABCD", "0123456789abcdef"),
        ("BADC", "23016745ab89efcd"),
        ("CDAB", "cdef89ab45670123"),
        ("DCBA", "efcdab8967452301"),
        ("CDABGHEF", "45670123cdef89ab"),
        ("EFGHABCD", "89abcdef01234567"),
        ("DCBAHGFE", "67452301efcdab89"),
        ("FEHGBADC", "ab89efcd23016745"),
    ],
)
def test_the_eight_orders_of_64_bits(order: Any, wire: str) -> None:
    address = ModbusAddress(table="input", address=0, type="uint64", order=order)
    (value,), _ = compiled(address).decode(bytes.fromhex(wire))
    assert value == 0x0123456789ABCDEF


def test_orders_of_64_bits_by_eight_letters() -> None:
    def order(name: str, kind: Any = "uint64") -> str:
        return ModbusAddress(table="input", address=0, type=kind, order=name).order  # type: ignore[arg-type]

    assert [order(name) for name in ("ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA")] == [
        "ABCD",
        "CDAB",
        "BADC",
        "DCBA",
    ]
    with pytest.raises(ValueError, match="64 bits"):
        order("EFGHABCD", "float32")
    data = bytes.fromhex("45670123cdef89ab")
    for name in get_args(LongOrder):
        entry = MapEntry("a", "holding", 0, type="uint64", order=name)
        (value,), _ = compiled(ModbusAddress(table="holding", address=0, type="uint64", order=name)).decode(data)
        assert value == decode(entry, struct.unpack(">4H", data))
        assert in_testread(data, "uint64", name) == decode(entry, struct.unpack(">4H", data))


def test_a_sentinel_in_a_mixed_order_keeps_its_words() -> None:
    address = ModbusAddress(
        table="input", address=0, type="int64", order="CDABGHEF", sentinels={0x0123456789ABCDEF: "BadSensorFailure"},
        faults={0x0123456789ABCDEF: Text(zh="断线", en="broken")},
    )  # fmt: skip
    decoder = compiled(address)
    assert decoder.decode(bytes.fromhex("45670123cdef89ab")) == ([0x0123456789ABCDEF], [BAD_SENSOR_FAILURE])
    assert "broken" in decoder.told[0]


def test_sentinels_are_unsigned_words_and_the_value_stays() -> None:
    sentinels = {0x8002: "BadOutOfService", 0x8003: "BadSensorFailure"}
    signed = ModbusAddress(table="holding", address=0, type="int16", sentinels=sentinels)
    plain = ModbusAddress(table="holding", address=1, type="int16")
    decoder = compiled(signed, plain)
    assert decoder.decode(b"\x80\x02\x80\x02") == ([-32766, -32766], [BAD_OUT_OF_SERVICE, 0])
    assert decoder.decode(b"\x80\x03\x00\x07") == ([-32765, 7], [BAD_SENSOR_FAILURE, 0])
    assert decoder.decode(b"\x00\x19\x00\x07") == ([25, 7], None)


def test_a_sentinel_that_is_not_a_number() -> None:
    address = ModbusAddress(
        table="input", address=0, type="float32", order="CDAB", sentinels={0xFFC00001: "BadSensorFailure"}
    )
    (value,), status = compiled(address).decode(bytes.fromhex("0001ffc0"))
    assert math.isnan(value)
    assert status == [BAD_SENSOR_FAILURE]
    (value,), status = compiled(address).decode(bytes.fromhex("0000ffc0"))
    assert math.isnan(value)
    assert status is None


def test_strings_lose_padding_only() -> None:
    def text(data: bytes, **more: Any) -> Any:
        address = ModbusAddress(table="holding", address=0, type="string", length=len(data) // 2, **more)
        return compiled(address).decode(data)

    assert text(b"SDM630  ") == (["SDM630"], None)
    assert text(b"SDM630\0\0") == (["SDM630"], None)
    assert text(b"  A\0B \0\0") == (["  A\0B"], None)
    assert text(b"DS6M03\0\0", order="BADC") == (["SDM630"], None)
    assert text("注塑机".encode("gbk"), encoding="gbk") == (["注塑机"], None)
    assert text(b"\xff\xff\xff\xff") == ([b"\xff\xff\xff\xff"], [BAD_DECODING_ERROR])


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=48, max_size=48),
    st.sampled_from(["coil", "discrete"]),
)
def test_bits(places: list[int], memory: list[bool], table: Any) -> None:
    addresses = [ModbusAddress(table=table, address=place, type="bool") for place in places]
    start, end = min(places), max(places) + 1
    wanted = memory[start:end]
    data = bytes(sum(bit << i for i, bit in enumerate(wanted[at : at + 8])) for at in range(0, len(wanted), 8))
    decoder = compiled(*addresses, bits=True)
    values, status = decoder.decode(data)
    assert status is None
    assert [(point, value) for point, value in zip(decoder.points, values, strict=True)] == [
        (point, memory[places[point]]) for point in decoder.points
    ]
    assert all(type(value) is bool for value in values)


def test_what_is_wrong_with_an_address_is_said_with_the_nearest_right_thing() -> None:
    good = ModbusAddress(table="holding", address=0, sentinels={1: "BadSensorFailure"})
    assert check_address(good) is None
    typo = ModbusAddress(table="holding", address=0, sentinels={1: "BadSensorFailur"})
    assert "BadSensorFailure" in str(check_address(typo))
    encoding = ModbusAddress(table="holding", address=0, type="string", length=2, encoding="utf-99")
    assert "utf-99" in str(check_address(encoding))
    assert "encoding" in str(check_address(encoding.model_copy(update={"encoding": "utf\0"})))


def one(data: str | bytes, **address: Any) -> tuple[Any, int]:
    """Value and status of one address's bytes (hex)."""
    raw = bytes.fromhex(data) if isinstance(data, str) else data
    return decode_one(ModbusAddress(table="holding", address=7, **address), raw)


def test_bytes_of_a_register() -> None:
    assert one("12fe", type="uint8") == (0xFE, 0)
    assert one("12fe", type="int8") == (-2, 0)
    assert one("12fe", type="uint8", byte="high") == (0x12, 0)
    for order in ("BADC", "DCBA"):
        assert one("12fe", type="uint8", byte="high", order=order) == (0xFE, 0)
    assert one("12fe", type="uint8", byte="high", order="CDAB") == (0x12, 0)
    assert one("12ff", type="int8", sentinels={0xFF: "BadSensorFailure"}) == (-1, BAD_SENSOR_FAILURE)


def test_bcd() -> None:
    assert one("1234", type="bcd16") == (1234, 0)
    assert one("12345678", type="bcd32") == (12345678, 0)
    assert one("56781234", type="bcd32", order="CDAB") == (12345678, 0)
    assert one("12a4", type="bcd16") == (0x12A4, BAD_DECODING_ERROR)
    assert one("ffff", type="bcd16", sentinels={0xFFFF: "BadSensorFailure"}) == (0xFFFF, BAD_SENSOR_FAILURE)


def test_arrays() -> None:
    assert one("0001fffe0003", type="int16", count=3) == ([1, -2, 3], 0)
    assert one("0001000000020000", type="uint32", count=2, order="CDAB") == ([1, 2], 0)
    assert one("00127fff", type="uint16", count=2, sentinels={0x7FFF: "BadSensorFailure"}) == (
        [0x12, 0x7FFF],
        BAD_SENSOR_FAILURE,
    )
    assert one("0012", type="bytes", length=1) == (b"\x00\x12", 0)
    assert one("12340a00", type="bcd16", count=2) == ([0x1234, 0x0A00], BAD_DECODING_ERROR)


def test_uint64_is_exact() -> None:
    assert one("ffffffffffffffff", type="uint64") == (2**64 - 1, 0)
    assert one("0020000000000001", type="uint64") == (2**53 + 1, 0)


def test_named_bits() -> None:
    fields = {"running": 0, "fault": 15, "mode": [4, 3]}
    assert one("8051", type="uint16", fields=fields) == ({"running": True, "fault": True, "mode": 5}, 0)
    assert one("0000", type="uint16", fields=fields) == ({"running": False, "fault": False, "mode": 0}, 0)


@pytest.mark.parametrize(
    ("padding", "data", "text"),
    [
        ("end", b"AB\0\0  ", "AB"),
        ("nul", b"AB\0\xff\xfeC", "AB"),
        ("both", b"  AB\0\0", "AB"),
        ("ff", b"AB \xff\xff\xff", "AB"),
    ],
)
def test_paddings_of_strings(padding: Any, data: bytes, text: str) -> None:
    assert one(data, type="string", length=3, padding=padding) == (text, 0)


def test_a_nul_of_utf_16_is_two_bytes() -> None:
    data = "中A".encode("utf-16-be") + b"\0\0" + b"\xd8\x00"
    assert one(data, type="string", length=4, padding="nul", encoding="utf-16-be") == ("中A", 0)


MOMENT = 1_763_872_200_000_000  # 2025-11-23 04:30:00 UTC


@pytest.mark.parametrize(
    ("layout", "data"),
    [
        ("unix32", "69228dc8"),
        ("unix64-ms", "0000019aaef9d540"),
        ("iec870", "00190bf7041e0000"),
        ("registers6", "07e9000b00170004001e0000"),
        ("registers6", "0019000b00170004001e0000"),
        ("bytes6", "190b17041e00"),
        ("bcd6", "251123043000"),
    ],
)
def test_date_times(layout: Any, data: str) -> None:
    assert one(data, type="datetime", layout=layout) == (MOMENT, 0)
    eight_hours = 8 * 3600 * 1_000_000
    assert one(data, type="datetime", layout=layout, zone="Asia/Shanghai") == (MOMENT - eight_hours, 0)


def test_date_times_that_are_none() -> None:
    assert one("000000000000", type="datetime", layout="bytes6") == (bytes(6), BAD_DECODING_ERROR)
    assert one("251323043000", type="datetime", layout="bcd6")[1] == BAD_DECODING_ERROR
    assert one("25112304300a", type="datetime", layout="bcd6")[1] == BAD_DECODING_ERROR
    assert one("00190bf7049e0000", type="datetime", layout="iec870")[1] == BAD_DECODING_ERROR
    assert one("00190bf7041eea60", type="datetime", layout="iec870")[1] == BAD_DECODING_ERROR
    assert one("00190bf7041eea5f", type="datetime", layout="iec870") == (MOMENT + 59_999_000, 0)
    assert one("ff" * 8, type="datetime", layout="unix64-ms")[1] == BAD_DECODING_ERROR


@given(st.sampled_from(sorted(LAYOUTS)), st.data(), st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]))
def test_no_date_time_whatever_raises(layout: Any, data: st.DataObject, zone: str) -> None:
    size = LAYOUTS[layout] * 2
    raw = data.draw(st.binary(min_size=size, max_size=size))
    value, status = one(raw, type="datetime", layout=layout, zone=zone)
    assert (type(value), status) in ((int, 0), (bytes, BAD_DECODING_ERROR))


def test_sentinels_in_words() -> None:
    address = ModbusAddress(
        table="holding", address=0, type="int16",
        sentinels={0x8002: "BadOutOfService", 0x8003: "BadSensorFailure"},
        faults={0x8002: {"zh": "正在初始化", "en": "starting"}},
    )  # fmt: skip
    decoder = compiled(address)
    decoder.decode(b"\x80\x02")
    assert list(decoder.told) == [0]
    assert "starting" in decoder.told[0]
    assert "正在初始化" in decoder.told[0].zh
    decoder.decode(b"\x80\x03")
    assert decoder.told == {}
    decoder.decode(b"\x80\x02")
    decoder.decode(b"\x00\x02")
    assert decoder.told == {}


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ({"type": "datetime"}, "layout"),
        ({"type": "uint16", "layout": "bcd6"}, "layout"),
        ({"type": "uint8", "count": 3}, "count"),
        ({"type": "float64", "count": 32}, "125"),
        ({"type": "int16", "fields": {"a": 1}}, "fields"),
        ({"type": "uint16", "fields": {"a": [12, 5]}}, "16 bits"),
        ({"type": "string", "length": 2, "ratio": "ct"}, "ratio"),
        ({"type": "uint16", "faults": {5: "broken"}}, "sentinels"),
        ({"type": "datetime", "layout": "bcd6", "zone": "Asia/Shenzen"}, "Asia/Shenzen"),
        ({"scale_by": {"exponent": True}}, "signal"),
        ({"scale_by": "holding 6 uint17"}, "uint17"),
    ],
)
def test_addresses_that_contradict_themselves(address: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ModbusAddress(table="holding", address=0, **address)
