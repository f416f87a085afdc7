"""The decoder, the frames and the memory of the simulated Modbus devices, against values that others computed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.framer.rtu import FramerRTU

from simulators.modbus import MAPS, MapEntry, decode, encode, sentinel_of, width
from simulators.modbus.framing import crc16, rtu_frame, rtu_intact, rtu_request_length, tcp_frame
from simulators.modbus.map_entry import Order, WireType
from simulators.modbus.unit import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, Unit

ORDERS: tuple[Order, ...] = ("ABCD", "BADC", "CDAB", "DCBA")


def _request(function: int, address: int, count: int) -> bytes:
    return bytes((function, address >> 8, address & 0xFF, count >> 8, count & 0xFF))


@pytest.mark.parametrize(
    ("entry", "registers", "value"),
    [
        # 230.2 V and 240.5, as printed in the Eastron protocol document, 3.8.1 and 3.7
        (MapEntry("v", "input", 0, type="float32"), [0x4366, 0x3334], pytest.approx(230.2, abs=1e-4)),
        (MapEntry("v", "input", 0, type="float32"), [0x4370, 0x8000], 240.5),
        (MapEntry("v", "input", 0, type="float32", order="CDAB"), [0x8000, 0x4370], 240.5),
        (MapEntry("v", "input", 0, type="float32", order="BADC"), [0x7043, 0x0080], 240.5),
        (MapEntry("v", "input", 0, type="float32", order="DCBA"), [0x0080, 0x7043], 240.5),
        (MapEntry("n", "holding", 0, type="uint32"), [0x0001, 0x0002], 65_538),
        (MapEntry("n", "holding", 0, type="uint32", order="CDAB"), [0x0001, 0x0002], 131_073),
        (MapEntry("n", "holding", 0, type="int32"), [0xFFFF, 0xFFFE], -2),
        (MapEntry("n", "holding", 0, type="int16"), [0xFC7C], -900),
        (MapEntry("t", "holding", 0, type="int16", scale=0.1), [1805], 180.5),
        (MapEntry("t", "holding", 0, type="int16", scale=0.1, sentinels={0x8003: "no sensor"}), [0x8003], None),
        (MapEntry("b", "holding", 0, bit=4), [0x0010], True),
        (MapEntry("b", "holding", 0, bit=4), [0xFFEF], False),
        (MapEntry("b", "discrete", 0, type="bool"), [1], True),
    ],
)
def test_decode_gives_what_the_registers_mean(entry: MapEntry, registers: list[int], value: object) -> None:
    assert decode(entry, registers) == value


def test_a_sentinel_says_what_it_means() -> None:
    entry = MapEntry("t", "holding", 0, type="int16", sentinels={0x8003: "no sensor"})
    assert sentinel_of(entry, [0x8003]) == "no sensor"
    assert sentinel_of(entry, [0x7FFF]) is None


def test_too_few_registers_are_an_error_that_names_the_entry() -> None:
    with pytest.raises(ValueError, match=r"stitches takes 2 registers from 0x0002, found 1"):
        decode(MapEntry("stitches", "holding", 2, type="uint32"), [1])


@given(
    st.sampled_from(["int16", "uint16", "int32", "uint32", "float32"]),
    st.sampled_from(ORDERS),
    st.integers(-(2**15), 2**15 - 1),
)
def test_encode_and_decode_undo_each_other(type_: WireType, order: Order, number: int) -> None:
    value = abs(number) if type_.startswith("u") else number
    entry = MapEntry("x", "holding", 0, type=type_, order=order)
    registers = encode(entry, value)
    assert len(registers) == width(entry)
    assert decode(entry, registers) == value


@given(st.floats(width=32, allow_nan=False))
def test_float32_agrees_with_pymodbus_in_both_word_orders(value: float) -> None:
    kind = ModbusClientMixin.DATATYPE.FLOAT32
    for order, words in (("ABCD", "big"), ("CDAB", "little")):
        entry = MapEntry("x", "input", 0, type="float32", order=order)  # type: ignore[arg-type]
        assert encode(entry, value) == ModbusClientMixin.convert_to_registers(value, kind, word_order=words)  # type: ignore[arg-type]


def test_values_beyond_a_type_stop_at_its_ends() -> None:
    assert encode(MapEntry("x", "holding", 0, type="int16"), 40_000) == [0x7FFF]
    assert encode(MapEntry("x", "holding", 0), -5) == [0]


@given(st.binary(min_size=1, max_size=64))
def test_checksum_agrees_with_pymodbus(data: bytes) -> None:
    assert crc16(data).to_bytes(2, "little") == FramerRTU.compute_CRC(data).to_bytes(2, "big")


def test_a_frame_from_the_meters_document() -> None:
    # Eastron, clause 3.8.1: the query of two registers from 0 of unit 1 ends with 71 CB
    frame = rtu_frame(1, _request(4, 0, 2))
    assert frame == bytes.fromhex("01 04 00 00 00 02 71 CB")
    assert rtu_intact(frame)
    assert not rtu_intact(frame[:-1] + b"\x00")
    assert not rtu_intact(b"\x01\x04")


def test_an_mbap_frame() -> None:
    assert tcp_frame(0x0102, 1, b"\x04\x00") == bytes.fromhex("01 02 00 00 00 03 01 04 00")


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (b"\x01", 0),
        (b"\x01\x04", 8),
        (b"\x01\x10\x00\x00\x00\x02", 0),
        (b"\x01\x10\x00\x00\x00\x02\x04", 13),
        (b"\x01\x17", 0),
        (b"\x01\x63\x00", None),
    ],
)
def test_how_long_a_request_is(start: bytes, length: int | None) -> None:
    assert rtu_request_length(start) == length


class TestUnit:
    @pytest.fixture
    def unit(self) -> Unit:
        unit = Unit(max_registers=4)
        for address in (0, 1, 2, 3, 4, 5, 10, 11):
            unit.set_word("holding", address, 100 + address)
        unit.set_word("discrete", 0, 1)
        unit.set_word("discrete", 1, 0)
        return unit

    def test_registers(self, unit: Unit) -> None:
        reply = unit.answer(_request(3, 1, 2))
        assert (reply.values, reply.code) == ((101, 102), None)
        assert reply.pdu() == bytes.fromhex("03 04 0065 0066")

    def test_bits_fill_a_byte_from_below(self, unit: Unit) -> None:
        assert unit.answer(_request(2, 0, 2)).pdu() == bytes.fromhex("02 01 01")

    @pytest.mark.parametrize(
        ("request_pdu", "code"),
        [
            (_request(3, 5, 2), ILLEGAL_ADDRESS),  # the second is a hole
            (_request(3, 9, 2), ILLEGAL_ADDRESS),  # the first is one
            (_request(3, 65_535, 2), ILLEGAL_ADDRESS),  # beyond the last address
            (_request(3, 0, 5), ILLEGAL_VALUE),  # more than this unit bears
            (_request(3, 0, 0), ILLEGAL_VALUE),
            (_request(2, 0, 2001), ILLEGAL_VALUE),
            (_request(3, 0, 1) + b"\x00", ILLEGAL_VALUE),
            (_request(4, 0, 1), ILLEGAL_FUNCTION),  # a table it does not have
            (_request(6, 0, 1), ILLEGAL_FUNCTION),  # a write
            (b"\x07", ILLEGAL_FUNCTION),
        ],
    )
    def test_refusals(self, unit: Unit, request_pdu: bytes, code: int) -> None:
        reply = unit.answer(request_pdu)
        assert (reply.code, reply.values) == (code, ())
        assert reply.pdu() == bytes((request_pdu[0] | 0x80, code))

    def test_a_punched_hole_can_be_filled_again(self, unit: Unit) -> None:
        unit.punch([2])
        assert unit.answer(_request(3, 0, 4)).code == ILLEGAL_ADDRESS
        assert unit.answer(_request(3, 0, 2)).code is None
        unit.punch(())
        assert unit.answer(_request(3, 0, 4)).values == (100, 101, 102, 103)

    def test_pairs_only(self) -> None:
        unit = Unit(pairs_only=True)
        unit.set(MapEntry("a", "input", 0, type="float32"), 1.0)
        unit.set(MapEntry("b", "input", 2, type="float32"), 2.0)
        assert unit.answer(_request(4, 0, 4)).code is None
        assert unit.answer(_request(4, 1, 2)).code == ILLEGAL_ADDRESS
        assert unit.answer(_request(4, 0, 3)).code == ILLEGAL_ADDRESS


@pytest.mark.parametrize("profile", MAPS)
def test_no_two_values_of_a_map_share_a_register_or_a_name(profile: str) -> None:
    taken: dict[tuple[str, int], str] = {}
    names = [entry.name for entry in MAPS[profile]]
    assert len(names) == len(set(names))
    for entry in MAPS[profile]:
        if entry.bit is not None:
            continue  # shares its word with the word's own entry
        for place in range(entry.address, entry.address + width(entry)):
            assert (entry.table, place) not in taken
            taken[entry.table, place] = entry.name


def test_the_meters_addresses_are_those_of_its_document() -> None:
    where = {entry.name: entry.address for entry in MAPS["eastron-sdm630"]}
    assert where["voltage/l1"] == 0x00
    assert where["current/l3"] == 0x0A
    assert where["power/active/l2"] == 0x0E
    assert where["power/active/total"] == 0x34
    assert where["frequency"] == 0x46
    assert where["energy/active/import"] == 0x48
    assert where["energy/active/export"] == 0x4A
    assert where["energy/active/total"] == 0x156
    assert where["energy/l3/reactive/total"] == 0x17C
    assert len(where) == 85
    assert all(address % 2 == 0 for address in where.values())
    assert math.isclose(max(where.values()), 0x17C)
