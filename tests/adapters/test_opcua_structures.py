"""Structures of a server's own types: decoded by their definitions, from asyncua's server and by hand, and bounded."""

from __future__ import annotations

import asyncio
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.common.type_dictionary_builder import DataTypeDictionaryBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.opcua._binary import DecodingError
from adapters.opcua._decode import Decoder
from adapters.opcua._dictionary import Dictionary
from adapters.opcua._structures import Field, Structure, Types, structure_of
from schemas import status as codes
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import MACHINE, SmallServer

URIS = ["http://opcfoundation.org/UA/", "urn:server", MACHINE]
KEY = (2, 77)


def text(value: str) -> bytes:
    return struct.pack("<i", len(value.encode())) + value.encode()


def types(*structures: tuple[str, Structure], decoder: Decoder | None = None) -> Types:
    """The first one is what ExtensionObjects with the id KEY hold."""
    made = (decoder or Decoder(URIS)).types
    for name, structure in structures:
        made.define(name, structure)
    made.encode_as(structures[0][0], KEY)
    return made


# ------------------------------------------------------------------------------------------------------------ by hand


def test_fields_optional_fields_and_arrays() -> None:
    shot = Structure(
        1,
        (
            Field("Number", "i=9"), Field("Weight", "i=11", optional=True), Field("Text", "i=12", optional=True),
            Field("Zones", "i=4", 1), Field("Grid", "i=6", 2), Field("Any", "i=24"),
        ),
    )  # fmt: skip
    body = struct.pack("<IQ", 0b10, 2**64 - 1) + text("合格") + struct.pack("<ihh", 2, -1, 5)
    body += struct.pack("<iii", 2, 2, 1) + struct.pack("<ii", 7, 8) + b"\x06" + struct.pack("<i", -4)
    value, fault = types(("T", shot)).decode(KEY, body)
    assert value == {"Number": 2**64 - 1, "Text": "合格", "Zones": [-1, 5], "Grid": [[7], [8]], "Any": -4}
    assert fault == 0


def test_unions_nested_structures_enumerations_and_names_for_simple_types() -> None:
    made = types(
        ("T", Structure(0, (Field("Step", "S", 1), Field("Result", "U"), Field("Mode", "E"), Field("For", "i=290")))),
        ("S", Structure(0, (Field("At", "i=13"), Field("Inner", "T", 1)))),
        ("U", Structure(2, (Field("Good", "i=1"), Field("Code", "i=7")))),
    )
    made.enumerations["E"] = {1: "auto"}
    made.aliases["i=290"] = "i=11"
    inner = struct.pack("<i", 0) + struct.pack("<I", 0) + struct.pack("<i", 1) + struct.pack("<d", 0.5)
    step = struct.pack("<q", 116_444_736_000_000_000) + struct.pack("<i", 1) + inner
    body = struct.pack("<i", 1) + step + struct.pack("<II", 2, 99) + struct.pack("<id", 3, 1.5)
    value, fault = made.decode(KEY, body)
    small = {"Step": [], "Result": {}, "Mode": 1, "For": 0.5}
    assert value == {"Step": [{"At": 0, "Inner": [small]}], "Result": {"Code": 99}, "Mode": 3, "For": 1.5}
    assert fault == 0


def test_fields_that_allow_subtypes() -> None:
    made = types(
        ("T", Structure(3, (Field("Part", "S", optional=True), Field("Size", "i=26", optional=True)))),
        ("S", Structure(0, (Field("Id", "i=5"),))),
    )
    made.encode_as("S", (2, 78))
    inline = b"\x01\x02" + struct.pack("<H", 78) + b"\x01" + struct.pack("<iH", 2, 9)
    assert made.decode(KEY, inline + b"\x0b" + struct.pack("<d", 2.5)) == ({"Part": {"Id": 9}, "Size": 2.5}, 0)


def test_what_is_not_known_inside_is_kept_and_makes_the_value_uncertain() -> None:
    made = types(("T", Structure(0, (Field("Text", "i=12"), Field("Odd", "i=22"), Field("Last", "i=3")))))
    gbk = "温度".encode("gbk")
    odd = b"\x01\x02" + struct.pack("<H", 500) + b"\x01" + struct.pack("<i", 3) + b"abc"
    value, fault = made.decode(KEY, struct.pack("<i", 4) + gbk + odd + b"\x07")
    assert fault == codes.UNCERTAIN
    assert value["Text"].encode(errors="surrogateescape") == gbk
    assert value["Odd"] == {"UaTypeId": f"nsu={MACHINE};i=500", "UaEncoding": 1, "UaBody": b"abc"}
    assert value["Last"] == 7


@pytest.mark.parametrize(
    ("structure", "body", "problem"),
    [
        (Structure(0, (Field("A", "i=6", 1),)), struct.pack("<i", 2**31 - 1), "an array of"),
        (Structure(0, (Field("A", "i=6", 2),)), struct.pack("<iii", 2, 2**31 - 1, 2**31 - 1), "an array of"),
        (Structure(0, (Field("A", "i=3"),)), b"\x01\x02", "takes 1"),
        (Structure(0, (Field("A", "nsu=urn:x;i=1"),)), b"\x01", "does not define"),
        (Structure(2, (Field("A", "i=3"),)), struct.pack("<I", 2), "field 2 of a union of 1"),
        (Structure(0, (Field("A", "T"),)), b"\x01", "nested deeper"),
    ],
)
def test_hostile_definitions_and_lengths(structure: Structure, body: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        types(("T", structure)).decode(KEY, body)


def test_a_definition_that_multiplies_is_bounded() -> None:
    """A hundred structures of a thousand fields each, one in the other, need no byte to be endless."""
    chain = [(f"T{i}", Structure(0, tuple(Field(f"f{n}", f"T{i + 1}") for n in range(1_000)))) for i in range(60)]
    with pytest.raises(DecodingError, match="values"):
        types(*chain, ("T60", Structure(0, ()))).decode(KEY, b"")


def test_definitions_that_cannot_be_are_refused() -> None:
    for definition in ({}, {"StructureType": 0, "Fields": [{"Name": "x"}]}, {"StructureType": None, "Fields": []}):
        with pytest.raises(DecodingError):
            structure_of(definition)
    with pytest.raises(DecodingError, match="kind 9"):
        types(("T", Structure(9, ())))
    with pytest.raises(DecodingError, match="32 optional"):
        types(("T", Structure(1, (Field("x", "i=1", optional=True),) * 33)))


def test_a_structure_that_does_not_fit_costs_only_its_own_value() -> None:
    decoder = Decoder(URIS)
    types(("T", Structure(0, (Field("A", "i=11"),))), decoder=decoder)
    told: list[Any] = []
    decoder.on_unknown = told.append
    value, fault, pos = decoder._variant(
        b"\x16\x01\x02" + struct.pack("<H", 77) + b"\x01" + struct.pack("<i", 2) + b"ab", 0
    )
    assert value == {"UaTypeId": f"nsu={MACHINE};i=77", "UaEncoding": 1, "UaBody": b"ab"}
    assert (fault, pos, told) == (codes.UNCERTAIN, 12, [KEY])
    xml = b"\x16\x01\x02" + struct.pack("<H", 77) + b"\x02" + text("<a/>")
    assert decoder._variant(xml, 0)[:2] == (
        {"UaTypeId": f"nsu={MACHINE};i=77", "UaEncoding": 2, "UaBody": b"<a/>"}, codes.UNCERTAIN,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_definition_and_no_body_raises_anything_else(data: st.DataObject) -> None:
    names = ["T", "S", "U"]
    choices = st.sampled_from([*names, "i=1", "i=9", "i=12", "i=22", "i=24", "i=29", "nsu=x;i=1"])
    field = st.builds(Field, st.sampled_from("abc"), choices, st.sampled_from([-3, -1, 0, 1, 2]), st.booleans())
    drawn = [
        (name, Structure(data.draw(st.integers(0, 4)), tuple(data.draw(st.lists(field, max_size=4))))) for name in names
    ]
    made = types(*drawn)
    try:
        made.decode(KEY, data.draw(st.binary(max_size=60)))
    except (DecodingError, struct.error, IndexError):
        pass
    assert made._depth == 0


# --------------------------------------------------------------------------------------------- against asyncua's server


class Shop(SmallServer):
    """Also has a structure with optional fields, an array of another one, and an enumeration."""

    def __enter__(self) -> Shop:
        super().__enter__()
        self.run(self._types())
        return self

    async def _types(self) -> None:
        index = self.index(MACHINE)
        mode, _ = await self._enum("Mode", ["Manual", "Auto"])
        zone, _ = await new_struct(
            self.server, index, "Zone",
            [new_struct_field("Name", ua.VariantType.String), new_struct_field("Temperature", ua.VariantType.Float)],
        )  # fmt: skip
        await new_struct(
            self.server, index, "Shot",
            [
                new_struct_field("Number", ua.VariantType.UInt64),
                new_struct_field("Mode", mode.nodeid),
                new_struct_field("Zones", zone.nodeid, array=True),
                new_struct_field("Weight", ua.VariantType.Double, optional=True),
            ],
        )  # fmt: skip
        await self.server.load_data_type_definitions()
        self.mode = mode
        await self.server.nodes.objects.add_variable(
            self.node("shot"), self.name("Shot"), ua.Variant(self.shot(1, None), ua.VariantType.ExtensionObject)
        )
        variable = await self.server.nodes.objects.add_variable(
            self.node("mode"), self.name("Mode"), ua.Variant(1, ua.VariantType.Int32), datatype=mode.nodeid
        )
        assert variable

    async def _enum(self, name: str, values: list[str]) -> tuple[Any, Any]:
        made = await new_enum(self.server, self.index(MACHINE), name, values)
        return made, None

    def shot(self, number: int, weight: float | None) -> Any:
        cls, zone, mode = (getattr(ua, name) for name in ("Shot", "Zone", "Mode"))
        return cls(Number=number, Mode=mode(1), Zones=[zone("喷嘴", 210.5), zone("料筒", 190.0)], Weight=weight)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as running:
        yield running


def expected(number: int, **more: Any) -> dict[str, Any]:
    zones = [{"Name": "喷嘴", "Temperature": 210.5}, {"Name": "料筒", "Temperature": 190.0}]
    return {"Number": number, "Mode": 1, "Zones": zones, **more}


async def test_a_structure_arrives_as_a_dict(shop: Shop) -> None:
    async with Collector(link(shop.endpoint, device([node("shot"), node("mode")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert host.rows(0)[0]["value"] == expected(1)
        assert host.rows(0)[0]["status"] == 0
        shop.write("shot", shop.shot(2**63, 12.5), ua.VariantType.ExtensionObject)
        await host.until(lambda: host.last(0) == expected(2**63, Weight=12.5))
        assert host.last(1) == 1
        read = await host.adapter.read([0])
        assert read.values[0] == expected(2**63, Weight=12.5)
        found = {each.path: each async for each in host.adapter.browse()}
        index = shop.index(MACHINE)
        assert found[f"{index}:Mode"].texts == {0: "Manual", 1: "Auto"}
        assert found[f"{index}:Shot"].texts is None


async def test_a_structure_behind_an_abstract_type_is_read_again_once_its_type_is_known(shop: Shop) -> None:
    """The variable's data type says nothing of it; the value's own encoding does."""

    async def build() -> None:
        value = ua.Variant(shop.shot(5, None), ua.VariantType.ExtensionObject)
        await shop.server.nodes.objects.add_variable(
            shop.node("any"), shop.name("Any"), value, datatype=ua.NodeId(ua.ObjectIds.Structure)
        )

    shop.run(build())
    async with Collector(link(shop.endpoint, device([node("any")]))) as host:
        await host.until(lambda: host.last(0) == expected(5))
        first, *_ = host.rows(0)
        assert first["status"] == codes.UNCERTAIN
        assert first["value"]["UaBody"]
        assert host.rows(0)[-1]["status"] == 0


async def test_a_server_without_definitions_gives_what_came(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def none(*_: Any) -> None:
        asked.set()

    monkeypatch.setattr("adapters.opcua._types.load", none)
    async with Collector(link(shop.endpoint, device([node("shot"), node("v0")]))) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert asked.is_set()
        assert host.rows(0)[0]["status"] == codes.UNCERTAIN
        assert host.rows(0)[0]["value"]["UaTypeId"].startswith(f"nsu={MACHINE};")
        assert host.rows(1)[0]["status"] == 0


# ------------------------------------------------------------------------------------------------------- dictionaries

DICTIONARY = """<?xml version="1.0" encoding="utf-8"?>
<opc:TypeDictionary xmlns:opc="http://opcfoundation.org/BinarySchema/" xmlns:ua="http://opcfoundation.org/UA/" xmlns:tns="urn:m">
  <opc:EnumeratedType Name="Mode" LengthInBits="32"><opc:EnumeratedValue Name="Auto" Value="1"/></opc:EnumeratedType>
  <opc:StructuredType Name="Zone" BaseType="ua:ExtensionObject">
    <opc:Field Name="Name" TypeName="opc:CharArray"/><opc:Field Name="Limits" TypeName="ua:Range"/>
  </opc:StructuredType>
  <opc:StructuredType Name="Outcome" BaseType="ua:Union">
    <opc:Field Name="SwitchField" TypeName="opc:UInt32"/>
    <opc:Field Name="Good" TypeName="opc:Boolean" SwitchField="SwitchField" SwitchValue="1"/>
    <opc:Field Name="Code" TypeName="opc:UInt16" SwitchField="SwitchField" SwitchValue="2"/>
  </opc:StructuredType>
  <opc:StructuredType Name="Shot" BaseType="ua:ExtensionObject">
    <opc:Field Name="WeightSpecified" TypeName="opc:Bit"/><opc:Field Name="TextSpecified" TypeName="opc:Bit"/>
    <opc:Field Name="Reserved1" TypeName="opc:Bit" Length="30"/>
    <opc:Field Name="Mode" TypeName="tns:Mode"/>
    <opc:Field Name="NoOfZones" TypeName="opc:Int32"/><opc:Field Name="Zones" TypeName="tns:Zone" LengthField="NoOfZones"/>
    <opc:Field Name="Outcome" TypeName="tns:Outcome"/>
    <opc:Field Name="Weight" TypeName="opc:Double" SwitchField="WeightSpecified"/>
    <opc:Field Name="Text" TypeName="ua:LocalizedText" SwitchField="TextSpecified"/>
  </opc:StructuredType>
</opc:TypeDictionary>"""


def test_a_dictionary_of_an_older_server() -> None:
    read = Dictionary("d", DICTIONARY.encode() + b"\0")
    assert read.enumerations == {"dictionary=d;Mode": {1: "Auto"}}
    assert read.standard == {"i=884"}
    made = Decoder(URIS).types
    for type_id, structure in read.structures.items():
        made.define(type_id, structure)
    made.enumerations.update(read.enumerations)
    made.define("i=884", Structure(0, (Field("Low", "i=11"), Field("High", "i=11"))))
    made.encode_as(read.id_of("Shot"), KEY)
    body = struct.pack("<Iii", 0b01, 1, 1) + text("区") + struct.pack("<ddIHd", 1.0, 2.0, 2, 9, 12.5)
    assert made.decode(KEY, body) == (
        {
            "Mode": 1,
            "Zones": [{"Name": "区", "Limits": {"Low": 1.0, "High": 2.0}}],
            "Outcome": {"Code": 9},
            "Weight": 12.5,
        },
        0,
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("<a", "unclosed"), ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "entities"), ("x" * (9 << 20), "not read"),
        (DICTIONARY.replace('Length="30"', 'Length="x"'), "a number"), (DICTIONARY.replace('Length="30"', 'Length="6"'), "bits"),
    ],
)  # fmt: skip
def test_a_dictionary_that_is_none(document: str, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        Dictionary("d", document.encode())


async def test_asyncuas_dictionary(shop: Shop) -> None:
    async def build() -> None:
        index = shop.index(MACHINE)
        builder = DataTypeDictionaryBuilder(shop.server, index, MACHINE, "MyDictionary")
        await builder.init()
        old = await builder.create_data_type("OldShot")
        old.add_field("Number", ua.VariantType.UInt64)
        old.add_field("Names", ua.VariantType.String, is_array=True)
        await builder.set_dict_byte_string()
        await shop.server.load_type_definitions()
        value = ua.OldShot()
        value.Number, value.Names = 2**63, ["a", "区"]
        await shop.server.nodes.objects.add_variable(
            shop.node("old"),
            shop.name("Old"),
            ua.Variant(value, ua.VariantType.ExtensionObject),
            datatype=old.data_type,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        shop.run(build())
    async with Collector(link(shop.endpoint, device([node("old")]))) as host:
        await host.until(lambda: host.last(0) == {"Number": 2**63, "Names": ["a", "区"]})
