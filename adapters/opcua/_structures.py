"""Structures of a server's own types, decoded by their definitions (OPC 10000-3 §8.48 to §8.51, OPC 10000-6 §5.2.6, §5.2.7, §5.2.8).

A structure becomes a dict of its fields; an optional field that is not there is left out; a union is a dict of its one field, or empty.
What a definition says comes from the server and is not trusted: depth, lengths and the number of values are bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adapters.opcua._binary import DEPTH, I32, U32, DecodingError, Undecoded, matrix, u32_array

Read = Callable[[bytes, int], tuple[Any, int]]
Key = tuple[int, Any]
"""Namespace index and identifier of a NodeId in this session."""

_MOST_VALUES: Final = 40_000
"""Values in one structure, in all depths together: more than fit a message of the ledger."""
_MOST_FIELDS: Final = 2_000
_VARIANT: Final = 24
_EXTENSION_OBJECT: Final = 22
_INT32: Final = 6
_AS_VARIANT: Final = {26, 27, 28}
"""Number, Integer and UInteger are abstract: a field of theirs is a Variant (OPC 10000-6 §5.2.2.16)."""
_ENUMERATION: Final = 29

PLAIN, OPTIONAL, UNION, SUBTYPED, UNION_SUBTYPED = range(5)
"""StructureType (OPC 10000-3 §8.49)."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure. `type` is a NodeId as text; `rank` as ValueRank; `optional` is IsOptional, which with the subtyped kinds
    says that the value may be of a subtype."""

    name: str
    type: str
    rank: int = -1
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure's definition."""

    kind: int
    fields: tuple[Field, ...]


class Types:
    """The types of one session: structures, enumerations, and names for simple types, by NodeId text; structures also by encoding."""

    def __init__(self, scalars: Mapping[int, Read]) -> None:
        """`scalars` decodes the built-in types, by their number."""
        self._scalars = scalars
        self.structures: dict[str, Structure] = {}
        self.enumerations: dict[str, dict[int, str]] = {}
        self.aliases: dict[str, str] = {}
        """Simple types -> what they are a subtype of."""
        self.standard: dict[str, Read] = {}
        """Structures of the standard that the server does not define."""
        self._encodings: dict[Key, str] = {}
        self._compiled: dict[str, Read] = {}
        self._depth = 0
        self._left = 0
        self._fault = 0

    def __contains__(self, type_id: str) -> bool:
        return (
            type_id in self.structures
            or type_id in self.enumerations
            or type_id in self.aliases
            or type_id in self.standard
        )

    def define(self, type_id: str, structure: Structure) -> None:
        """Adds a structure. Raises DecodingError for a definition that cannot be one."""
        if not 0 <= structure.kind <= UNION_SUBTYPED:
            raise DecodingError(f"structure {type_id} is of kind {structure.kind}, expected 0 to 4")
        if len(structure.fields) > _MOST_FIELDS:
            raise DecodingError(
                f"structure {type_id} has {len(structure.fields)} fields, at most {_MOST_FIELDS} are taken"
            )
        if structure.kind == OPTIONAL and sum(field.optional for field in structure.fields) > 32:
            raise DecodingError(f"structure {type_id} has more than 32 optional fields")
        self.structures[type_id] = structure
        self._compiled.clear()

    def encode_as(self, type_id: str, encoding: Key) -> None:
        """An ExtensionObject with this type id holds that structure."""
        self._encodings[encoding] = type_id

    def forget(self, encoding: Key) -> None:
        """Its definition does not fit what the server sends."""
        type_id = self._encodings.pop(encoding, None)
        if type_id is not None:
            self.structures.pop(type_id, None)
            self._compiled.clear()

    def knows(self, encoding: Key) -> bool:
        """Whether ExtensionObjects with this type id can be decoded."""
        return encoding in self._encodings

    def decode(self, encoding: Key, body: bytes) -> tuple[Any, int]:
        """The structure in the body of an ExtensionObject, and 0 or the status of what in it could not be decoded.

        Raises DecodingError, struct.error or IndexError when the body is not what the definition says.
        """
        outermost = not self._depth
        if outermost:
            self._left, self._fault = _MOST_VALUES, 0
        value, end = self._reader(self._encodings[encoding])(body, 0)
        if end != len(body):
            raise DecodingError(f"a structure of {len(body)} bytes of which its definition takes {end}")
        return value, self._fault

    # ---------------------------------------------------------------------------------------------------- compiling

    def _reader(self, type_id: str) -> Read:
        found = self._compiled.get(type_id)
        if found is None:
            structure = self.structures.get(type_id)
            found = self._compiled[type_id] = self.standard[type_id] if structure is None else self._compile(structure)
        return found

    def _compile(self, structure: Structure) -> Read:
        kind = structure.kind
        readers = [(field.name, self._field(field, kind), field.optional) for field in structure.fields]
        if kind in (UNION, UNION_SUBTYPED):
            return self._bounded(_union([(name, read) for name, read, _ in readers]))
        if kind == OPTIONAL:
            return self._bounded(_with_optional(readers))
        return self._bounded(_plain([(name, read) for name, read, _ in readers]))

    def _bounded(self, read: Read) -> Read:
        def bounded(data: bytes, pos: int) -> tuple[Any, int]:
            if self._depth >= DEPTH:
                raise DecodingError(f"structures nested deeper than {DEPTH}")
            self._depth += 1
            try:
                return read(data, pos)
            finally:
                self._depth -= 1

        return bounded

    def _field(self, field: Field, kind: int) -> Read:
        if kind in (SUBTYPED, UNION_SUBTYPED) and field.optional:
            base = _EXTENSION_OBJECT if self._structured(field.type) else _VARIANT
            one = self._one(self._scalars[base])
        elif field.rank < -1 or field.rank == 0:
            return self._one(self._scalars[_VARIANT])  # any rank: a Variant says which
        else:
            one = self._value(field.type)
        if field.rank == -1:
            return one
        return _array(one) if field.rank == 1 else _matrix(one)

    def _structured(self, type_id: str) -> bool:
        return type_id == "i=22" or type_id in self.structures or type_id in self.standard

    def _value(self, type_id: str) -> Read:
        seen = set()
        while type_id in self.aliases and type_id not in seen:
            seen.add(type_id)
            type_id = self.aliases[type_id]
        if type_id in self.enumerations:
            return self._one(self._scalars[_INT32])
        if type_id in self.structures or type_id in self.standard:
            # by name, when it is read: a type may contain itself
            def nested(data: bytes, pos: int) -> tuple[Any, int]:
                self._count()
                return self._reader(type_id)(data, pos)

            return nested
        number = int(type_id[2:]) if type_id.startswith("i=") and type_id[2:].isdecimal() else 0
        number = _VARIANT if number in _AS_VARIANT else _INT32 if number == _ENUMERATION else number
        scalar = self._scalars.get(number)
        if scalar is None or (seen and number == _EXTENSION_OBJECT):
            return _unknown(type_id)  # a structure whose definition is not known
        return self._one(scalar)

    def _one(self, scalar: Read) -> Read:
        """A built-in type; what of it cannot be decoded is kept as it is, and noted."""

        def read(data: bytes, pos: int) -> tuple[Any, int]:
            self._count()
            value, pos = scalar(data, pos)
            if type(value) is Undecoded:
                self._fault = value.status
                return value.raw, pos
            return value, pos

        return read

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise DecodingError(f"a structure of more than {_MOST_VALUES} values")


def _plain(readers: Sequence[tuple[str, Read]]) -> Read:
    def read(data: bytes, pos: int) -> tuple[Any, int]:
        value = {}
        for name, field in readers:
            value[name], pos = field(data, pos)
        return value, pos

    return read


def _with_optional(readers: Sequence[tuple[str, Read, bool]]) -> Read:
    """OPC 10000-6 §5.2.7: a mask with a bit for each optional field comes first."""

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        (mask,) = U32.unpack_from(data, pos)
        pos += 4
        value, bit = {}, 1
        for name, field, optional in readers:
            if optional:
                there, bit = mask & bit, bit << 1
                if not there:
                    continue
            value[name], pos = field(data, pos)
        return value, pos

    return read


def _union(readers: Sequence[tuple[str, Read]]) -> Read:
    """OPC 10000-6 §5.2.8: the number of the field comes first, 0 for none."""

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        (switch,) = U32.unpack_from(data, pos)
        pos += 4
        if not switch:
            return {}, pos
        if switch > len(readers):
            raise DecodingError(f"field {switch} of a union of {len(readers)}")
        name, field = readers[switch - 1]
        value, pos = field(data, pos)
        return {name: value}, pos

    return read


def _array(one: Read) -> Read:
    def read(data: bytes, pos: int) -> tuple[Any, int]:
        (count,) = I32.unpack_from(data, pos)
        return (None, pos + 4) if count < 0 else _elements(one, data, pos + 4, count)

    return read


def _matrix(one: Read) -> Read:
    """OPC 10000-6 §5.2.5: the dimensions, then all elements."""

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        dimensions, pos = u32_array(data, pos)
        count = 1 if dimensions else 0
        for dimension in dimensions:
            count *= dimension
        elements, pos = _elements(one, data, pos, count)
        return matrix(elements, dimensions), pos

    return read


def _elements(one: Read, data: bytes, pos: int, count: int) -> tuple[list[Any], int]:
    if count > len(data) - pos:
        raise DecodingError(f"an array of {count} elements in {len(data) - pos} bytes")
    elements = []
    for _ in range(count):
        element, pos = one(data, pos)
        elements.append(element)
    return elements, pos


def _unknown(type_id: str) -> Read:
    def read(_data: bytes, _pos: int) -> tuple[Any, int]:
        raise DecodingError(f"a field of type {type_id}, which the server does not define")

    return read


def structure_of(definition: Mapping[str, Any]) -> Structure:
    """From a StructureDefinition as the decoder gives it (OPC 10000-3 §8.48). Raises DecodingError."""
    try:
        return Structure(
            int(definition["StructureType"]),
            tuple(
                Field(
                    str(each["Name"]), str(each["DataType"] or "i=24"), int(each["ValueRank"]), bool(each["IsOptional"])
                )
                for each in definition["Fields"] or ()
            ),
        )
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise DecodingError(f"a StructureDefinition without {error}") from None
