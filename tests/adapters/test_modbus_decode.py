"""The compiled decoder against a slow one that takes the bytes apart as the manuals describe it."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.modbus._decode import check_address, compile_decoder
from adapters.modbus._plan import Read, Value
from schemas.profile import REGISTERS, ModbusAddress
from schemas.status import BAD_DECODING_ERROR, BAD_OUT_OF_SERVICE, BAD_SENSOR_FAILURE

CODES = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip


def most_significant_first(data: bytes, order: str) -> bytes:
    """The bytes of a value as they would be in order ABCD."""
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def slowly(address: ModbusAddress, start: int, data: bytes) -> Any:
    offset = (address.wire - start) * 2
    raw = most_significant_first(data[offset : offset + address.registers * 2], address.order)
    if address.type == "bytes":
        return raw
    if address.type == "string":
        try:
            return raw.decode(address.encoding).rstrip("\0 ")
        except UnicodeDecodeError:
            return raw
    return struct.unpack(">" + CODES[address.type], raw)[0]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and bool(a == b)


def compiled(*addresses: ModbusAddress, size: int | None = None, bits: bool = False) -> Any:
    """A decoder of one read from the first address to the end of the last."""
    ordered = sorted((Value(a.wire, a.registers, point) for point, a in enumerate(addresses)))
    start = ordered[0].start
    read = Read(start, size or max(value.end for value in ordered) - start, tuple(ordered))
    return compile_decoder(read, dict(enumerate(addresses)), bits=bits)


@st.composite
def registers(draw: st.DrawFn) -> ModbusAddress:
    kind = draw(st.sampled_from([*REGISTERS, "string", "bytes"]))
    return ModbusAddress(
        table="holding",
        address=draw(st.integers(100, 118)),
        type=kind,
        order=draw(st.sampled_from(["ABCD", "BADC", "CDAB", "DCBA"])),
        length=draw(st.integers(1, 6)) if kind in ("string", "bytes") else None,
        encoding=draw(st.sampled_from(["utf-8", "latin-1", "gbk", "utf-16-be"])),
    )


@given(st.lists(registers(), min_size=1, max_size=12), st.integers(0, 3), st.binary(min_size=60, max_size=60))
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
    ],
)
def test_the_four_orders_of_64_bits(order: Any, wire: str) -> None:
    address = ModbusAddress(table="input", address=0, type="uint64", order=order)
    (value,), _ = compiled(address).decode(bytes.fromhex(wire))
    assert value == 0x0123456789ABCDEF


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
