"""Structures of servers before OPC UA 1.04, which describe their types in a dictionary: an XML document of OPC Binary type descriptions
(OPC 10000-5 Annex E, OPC 10000-3 §5.8.3).

The DataType has an encoding, the encoding a description (its value is the type's name in the dictionary), and the description is a
component of the dictionary (its value is the document).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from asyncua import ua

from adapters.opcua._binary import DecodingError
from adapters.opcua._structures import OPTIONAL, PLAIN, UNION, Field, Structure

_OPC: Final = "{http://opcfoundation.org/BinarySchema/}"
_LARGEST: Final = 8 << 20
_MOST: Final = 5_000
_BITS: Final = 32
_SIMPLE: Final = {
    "Boolean": 1, "SByte": 2, "Byte": 3, "Int16": 4, "UInt16": 5, "Int32": 6, "UInt32": 7, "Int64": 8, "UInt64": 9, "Float": 10,
    "Double": 11, "String": 12, "CharArray": 12, "DateTime": 13, "Guid": 14, "ByteString": 15, "XmlElement": 16, "NodeId": 17,
    "ExpandedNodeId": 18, "StatusCode": 19, "QualifiedName": 20, "LocalizedText": 21, "ExtensionObject": 22, "DataValue": 23,
    "Variant": 24, "DiagnosticInfo": 25, "Char": 3,
}  # fmt: skip
"""Names of the built-in types in opc: and ua:, by their number."""


class Dictionary:
    """The types of one document. `name` makes their ids differ from those of other documents."""

    def __init__(self, name: str, document: bytes) -> None:
        """Raises DecodingError for what is no dictionary."""
        self.name = name
        if len(document) > _LARGEST or b"<!DOCTYPE" in document or b"<!ENTITY" in document:
            raise DecodingError(f"type dictionary {name}: {len(document)} bytes, or with entities: it is not read")
        try:
            root = ElementTree.fromstring(document.rstrip(b"\0"))
        except ElementTree.ParseError as error:
            raise DecodingError(f"type dictionary {name}: {error}") from None
        self.structures: dict[str, Structure] = {}
        self.enumerations: dict[str, dict[int, str]] = {}
        self.standard: set[str] = set()
        """Structures of the standard that are used, by their ids."""
        enumerations = {each.get("Name", ""): each for each in root.iter(f"{_OPC}EnumeratedType")}
        for kind, each in enumerations.items():
            values = each.iter(f"{_OPC}EnumeratedValue")
            self.enumerations[self.id_of(kind)] = {_number(v.get("Value")): v.get("Name", "") for v in values}
        described = list(root.iter(f"{_OPC}StructuredType"))
        if len(described) > _MOST:
            raise DecodingError(f"type dictionary {name}: {len(described)} types, at most {_MOST} are read")
        for each in described:
            self.structures[self.id_of(each.get("Name", ""))] = self._structure(each)

    def id_of(self, type_name: str) -> str:
        """The id of a type of this dictionary, in the place of a NodeId."""
        return f"dictionary={self.name};{type_name}"

    def _structure(self, described: Any) -> Structure:
        fields = list(described.iter(f"{_OPC}Field"))
        bits = [f.get("Name", "") for f in fields if f.get("TypeName") == "opc:Bit"]
        lengths = {f.get("LengthField") for f in fields if f.get("LengthField")}
        switch = next((f.get("SwitchField") for f in fields if f.get("SwitchValue") is not None), None)
        found = []
        for each in fields:
            name = each.get("Name", "")
            if each.get("TypeName") == "opc:Bit" or name in lengths or (switch is not None and name == switch):
                continue
            rank = 1 if each.get("LengthField") else -1
            found.append(Field(name, self._type(each.get("TypeName", "")), rank, each.get("SwitchField") in bits))
        if switch is not None and switch not in bits:
            return Structure(UNION, tuple(found))
        if bits:
            optional = [f.get("SwitchField") for f in fields if f.get("SwitchField") in bits]
            if optional != bits[: len(optional)] or _width(fields) != _BITS:
                raise DecodingError(
                    f"type dictionary {self.name}: {described.get('Name')}: bits in an order that is not known"
                )
            return Structure(OPTIONAL, tuple(found))
        return Structure(PLAIN, tuple(found))

    def _type(self, name: str) -> str:
        prefix, _, local = name.rpartition(":")
        if prefix in ("opc", "ua") and local in _SIMPLE:
            return f"i={_SIMPLE[local]}"
        if prefix == "ua":
            data_type = ua.ObjectIds.__dict__.get(local)
            if isinstance(data_type, int):
                self.standard.add(f"i={data_type}")
                return f"i={data_type}"
        return self.id_of(local)


def _width(fields: Sequence[Any]) -> int:
    return sum(_number(f.get("Length") or "1") for f in fields if f.get("TypeName") == "opc:Bit")


def _number(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise DecodingError(f"a number in a type dictionary is {text!r}") from None
