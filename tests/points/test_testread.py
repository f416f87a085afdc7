"""Test-reading a Modbus point: what arrived, and every other way to read it."""

from __future__ import annotations

import struct

import pytest

from adapters.contract import AdapterError
from adapters.modbus import ModbusLinkSettings
from gateway.points.testread import alternatives, decode, read_modbus
from schemas.profile import ModbusAddress
from schemas.status import info, is_bad
from tests.adapters.modbus_server import HOST, Server


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


@pytest.mark.parametrize(("order", "data"), [
    ("ABCD", b"\x43\x5c\x80\x00"), ("CDAB", b"\x80\x00\x43\x5c"), ("BADC", b"\x5c\x43\x00\x80"), ("DCBA", b"\x00\x80\x5c\x43"),
])  # fmt: skip
def test_orders_are_those_of_the_adapter(order: str, data: bytes) -> None:
    assert decode(data, "float32", order) == 220.5
    others = {(r.type, r.order): r.value for r in alternatives(data, "int16", "ABCD")}
    assert others["float32", order] == 220.5
    assert ("int16", "ABCD") not in others
    assert not {"int64", "uint64", "float64"} & {kind for kind, _ in others}


def test_sixty_four_bits_and_text() -> None:
    assert decode(struct.pack(">d", 1.5), "float64", "ABCD") == 1.5
    assert decode(struct.pack("<q", -7), "int64", "DCBA") == -7
    assert decode(b"EASTRON\0", "string", "ABCD") == "EASTRON"
    assert {r.value for r in alternatives(b"EASTRON\0", "uint16", "ABCD") if r.type == "string"} == {"EASTRON"}
    with pytest.raises(ValueError, match="2 bytes"):
        decode(b"\0\1", "int32", "ABCD")


async def test_a_float_in_low_word_order() -> None:
    async with Server() as server:
        data = struct.pack(">f", 220.5)
        words = _words(data)[::-1]
        server.holds(1, dict(enumerate([*words, 1, 2], 0x1000)), 3)
        link = ModbusLinkSettings(host=HOST, port=server.port)
        found = await read_modbus(link, 1, ModbusAddress(table="holding", address=0x1000, type="float32"))
        assert found.registers == tuple(words)
        assert found.raw == data[2:] + data[:2]
        assert found.status == 0
        assert found.value != 220.5
        assert {r.order for r in found.others if r.type == "float32" and r.value == 220.5} == {"CDAB"}
        assert any(r.type == "float64" for r in found.others)


async def test_at_the_end_of_the_map_and_beyond_it() -> None:
    async with Server() as server:
        server.holds(1, {65535: 7, 10: 1}, 3)
        link = ModbusLinkSettings(host=HOST, port=server.port)
        found = await read_modbus(link, 1, ModbusAddress(table="holding", address=65535, type="int16"))
        assert (found.value, found.registers) == (7, (7,))
        lonely = await read_modbus(link, 1, ModbusAddress(table="holding", address=10, type="int16"))
        assert lonely.value == 1  # what lies behind it is refused, and costs it nothing
        assert {r.type for r in lonely.others} == {"int16", "uint16"}
        refused = await read_modbus(link, 1, ModbusAddress(table="holding", address=11, type="int16"))
        assert is_bad(refused.status), info(refused.status).name
        assert (refused.value, refused.registers, refused.others) == (None, (), ())


async def test_a_coil() -> None:
    async with Server() as server:
        server.holds(1, {3: 1}, 1)
        link = ModbusLinkSettings(host=HOST, port=server.port)
        found = await read_modbus(link, 1, ModbusAddress(table="coil", address=3, type="bool"))
        assert (found.value, found.others) == (True, ())


async def test_nobody_answers() -> None:
    async with Server() as server:
        server.holds(1, {0: 1}, 3)
        with pytest.raises(AdapterError):
            await read_modbus(
                ModbusLinkSettings(host=HOST, port=server.port),
                9,
                ModbusAddress(table="holding", address=0),
                timeout=0.1,
            )
