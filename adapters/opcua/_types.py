"""Type definitions read from the server: what its structures consist of, and what the values of its enumerations mean.

Servers of OPC UA 1.04 and later have them in the attribute DataTypeDefinition of the DataType node (OPC 10000-3 §5.8.3); older ones have a
dictionary of their structures (`_dictionary`), and the properties EnumStrings or EnumValues at their enumerations.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from adapters.opcua._addresses import AddressError, UnknownNamespaceError, node_id, node_text
from adapters.opcua._binary import DecodingError
from adapters.opcua._browse import Child, related
from adapters.opcua._decode import HOSTILE, plain
from adapters.opcua._dictionary import Dictionary
from adapters.opcua._session import Session
from adapters.opcua._structures import Key, Read, Types, structure_of
from schemas import status as codes

log = logging.getLogger("guantong.opcua")

DATA_TYPE: Final = 14
_DEFINITION: Final = 23
_HAS_SUBTYPE: Final = ua.NodeId(45)
_HAS_ENCODING: Final = ua.NodeId(38)
_HAS_PROPERTY: Final = ua.NodeId(46)
_HAS_COMPONENT: Final = ua.NodeId(47)
_HAS_DESCRIPTION: Final = ua.NodeId(39)
_MOST: Final = 5_000
"""Types of one server that are read; no real one has more in use."""
_BUILT_IN: Final = frozenset(f"i={number}" for number in range(1, 30))
_ENUMERATION: Final = "i=29"


def key_of(node: Any) -> Key:
    """How a decoder names a NodeId."""
    return node.NamespaceIndex, node.Identifier


async def load(session: Session, wanted: Iterable[str]) -> None:
    """Reads the definitions of these data types (NodeIds as text), and of all that their fields are made of, into the session's
    decoder. A type that the server does not define stays unknown."""
    types = session.decoder.types
    queue = _unknown(wanted, types)
    while queue and len(types.structures) < _MOST:
        nodes = [_node(session, each) for each in queue]
        there = [(text, node) for text, node in zip(queue, nodes, strict=True) if node is not None]
        rows = await session.read_attributes([(node, _DEFINITION) for _, node in there], timestamps=False)
        structures, others, following = [], [], []
        for (text, node), (definition, status, _, _) in zip(there, rows, strict=True):
            if not isinstance(definition, dict) or codes.is_bad(status) or "Fields" not in definition:
                others.append((text, node))
            elif "StructureType" in definition:
                try:
                    types.define(text, structure_of(definition))
                except DecodingError as error:
                    log.warning("%s: %s", session.settings.endpoint, error)
                    continue
                structures.append((text, node, definition.get("DefaultEncodingId")))
                following += [field.type for field in types.structures[text].fields]
            else:
                types.enumerations[text] = texts_of(definition["Fields"])
        await _encodings(session, types, structures)
        following += await _supertypes(session, types, others)
        queue = _unknown(following, types)


def _unknown(wanted: Iterable[str], types: Types) -> list[str]:
    return [each for each in dict.fromkeys(wanted) if each not in _BUILT_IN and each not in types]


def _node(session: Session, text: str) -> Any:
    try:
        return node_id(text, session.namespaces)
    except (AddressError, UnknownNamespaceError):
        return None


async def _encodings(session: Session, types: Types, structures: Sequence[tuple[str, Any, str | None]]) -> None:
    """By which type ids ExtensionObjects hold these structures: their encodings' NodeIds, and for careless servers their own."""
    found = await related(session, [node for _, node, _ in structures], _HAS_ENCODING)
    for (text, node, default), encodings in zip(structures, found, strict=True):
        types.encode_as(text, key_of(node))
        told = _node(session, default) if default else None
        if told is not None:
            types.encode_as(text, key_of(told))
        for encoding in encodings:
            if encoding.name.Name == "Default Binary":
                types.encode_as(text, key_of(encoding.node))


async def _supertypes(session: Session, types: Types, others: Sequence[tuple[str, Any]]) -> list[str]:
    """Types without a definition are names for their supertypes, or structures of the standard; gives back the supertypes."""
    if not others:
        return []
    above = await related(session, [node for _, node in others], _HAS_SUBTYPE, forward=False)
    following = []
    for (text, node), parents in zip(others, above, strict=True):
        standard = _standard(node, session)
        if standard is not None:
            types.standard[text] = standard
        elif parents:
            types.aliases[text] = parent = node_text(parents[0].node, session.namespaces)
            following.append(parent)
        else:
            types.aliases[text] = ""
    return following


def _standard(node: Any, session: Session) -> Read | None:
    """How asyncua decodes a structure of the standard."""
    cls = ua.extension_objects_by_datatype.get(node) if node.NamespaceIndex == 0 else None
    if cls is None:
        return None

    def read(data: bytes, pos: int) -> tuple[Any, int]:
        buffer = Buffer(data, pos)
        before = len(buffer)
        try:
            value = plain(struct_from_binary(cls, buffer), session.namespaces)
        except HOSTILE as error:
            raise DecodingError(f"{cls.__name__}: {error}") from None
        return value, pos + before - len(buffer)

    return read


# ---------------------------------------------------------------------------------------------------------- enumerations


def texts_of(fields: Iterable[Any]) -> dict[int, str]:
    """From the fields of an EnumDefinition or of EnumValues (OPC 10000-3 §8.51, §8.40): DisplayName, else Name, by value."""
    texts = {}
    for each in fields or ():
        if isinstance(each, dict) and isinstance(each.get("Value"), int):
            text = each.get("DisplayName") or each.get("Name")
            if text:
                texts[each["Value"]] = str(text)
    return texts


async def enumerations(
    session: Session, variables: Sequence[tuple[str, Sequence[Child]]]
) -> list[dict[int, str] | None]:
    """For each variable, given as its data type (NodeId as text) and its children, the texts of its values: those of an enumeration,
    or the variable's own EnumStrings or EnumValues, as MultiStateDiscreteType has (OPC 10000-8 §5.3.3); None where there are none."""
    own_types = [data_type for data_type, _ in variables if data_type and data_type not in _BUILT_IN]
    if not own_types and not any(_is_texts(child) for _, children in variables for child in children):
        return [None] * len(variables)
    await load(session, own_types)
    types = session.decoder.types
    bare = [
        each for each in dict.fromkeys(data_type for data_type, _ in variables)
        if not types.enumerations.get(each) and _base(each, types) == _ENUMERATION
    ]  # fmt: skip
    nodes = [(each, node) for each in bare if (node := _node(session, each)) is not None]
    found = await related(session, [node for _, node in nodes], _HAS_PROPERTY)
    owners: list[tuple[int | str, Child]] = [
        (each, child) for (each, _), children in zip(nodes, found, strict=True) for child in children
    ]
    owners += [(i, child) for i, (_, children) in enumerate(variables) for child in children]
    owners = [(owner, child) for owner, child in owners if _is_texts(child)]
    values = await session.read([child.node for _, child in owners], timestamps=False) if owners else []
    own: dict[int, dict[int, str]] = {}
    for (owner, child), (value, status, _, _) in zip(owners, values, strict=True):
        if not isinstance(value, list) or codes.is_bad(status):
            continue
        strings = child.name.Name == "EnumStrings"
        texts = {n: str(text) for n, text in enumerate(value) if text} if strings else texts_of(value)
        if isinstance(owner, int):
            own[owner] = texts
        else:
            types.enumerations[owner] = texts
    return [own.get(i) or types.enumerations.get(data_type) or None for i, (data_type, _) in enumerate(variables)]


def _base(type_id: str, types: Types) -> str:
    """What a simple type is in the end a subtype of, itself if of none."""
    seen: set[str] = set()
    while type_id in types.aliases and type_id not in seen:
        seen.add(type_id)
        type_id = types.aliases[type_id]
    return type_id


def _is_texts(child: Child) -> bool:
    return child.name.NamespaceIndex == 0 and child.name.Name in ("EnumStrings", "EnumValues")


async def types_of(session: Session, encodings: Iterable[Key]) -> list[str]:
    """The data types whose values come with these type ids: the encodings' owners, or the data types themselves."""
    nodes = [ua.NodeId(identifier, index) for index, identifier in encodings]
    found = await related(session, nodes, _HAS_ENCODING, forward=False)
    return [
        node_text(owners[0].node if owners else node, session.namespaces)
        for node, owners in zip(nodes, found, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------------ dictionaries


async def load_dictionaries(session: Session, encodings: Sequence[Key]) -> None:
    """Reads the dictionaries that describe these encodings, where a server has them, into the session's decoder."""
    types = session.decoder.types
    nodes = [ua.NodeId(identifier, index) for index, identifier in encodings]
    described = await related(session, nodes, _HAS_DESCRIPTION)
    pairs = [(key, found[0].node) for key, found in zip(encodings, described, strict=True) if found]
    if not pairs:
        return
    names = await session.read([node for _, node in pairs], timestamps=False)
    owners = await related(session, [node for _, node in pairs], _HAS_COMPONENT, forward=False)
    documents: dict[Any, Dictionary] = {}
    for (key, _), (name, _, _, _), above in zip(pairs, names, owners, strict=True):
        if not above or not isinstance(name, str):
            continue
        place = above[0].node
        try:
            if place not in documents:
                ((document, _, _, _),) = await session.read([place], timestamps=False)
                read = Dictionary(
                    node_text(place, session.namespaces), document if isinstance(document, bytes) else b""
                )
                documents[place] = read
                for type_id, structure in read.structures.items():
                    types.define(type_id, structure)
                types.enumerations.update(read.enumerations)
                await load(session, sorted(read.standard))
        except DecodingError as error:
            log.warning("%s: %s", session.settings.endpoint, error)
            continue
        if documents[place].id_of(name) in types.structures:
            types.encode_as(documents[place].id_of(name), key)


# --------------------------------------------------------------------------------------------------------------- supplying

STRUCTURED: Final = frozenset({"object", "array", "any"})
"""Types of signals whose values may be structures."""


class Definitions:
    """Supplies the session's decoder with the types that it meets: those of the points before they are subscribed, others when they
    come, and anew when a definition does not fit any more."""

    def __init__(self, session: Session, monotonic: Callable[[], float], pause: float) -> None:
        """`pause`: seconds after which a type that could not be had is asked for again."""
        self._session = session
        self._monotonic = monotonic
        self._pause = pause
        self._tried: dict[Key, float] = {}
        self._wanted: set[Key] = set()
        self._wake = asyncio.Event()
        session.decoder.on_unknown = self._unknown

    def _unknown(self, key: Key) -> None:
        if key not in self._wanted and self._tried.get(key, 0.0) <= self._monotonic() and len(self._tried) < _MOST:
            self._wanted.add(key)
            self._wake.set()

    async def prepare(self, nodes: Sequence[Any]) -> None:
        """Loads the data types of these variables."""
        if not nodes:
            return
        try:
            rows = await self._session.read(nodes, DATA_TYPE, timestamps=False)
            await load(self._session, [str(row[0]) for row in rows if row[0] and not codes.is_bad(row[1])])
        except ua.UaStatusCodeError as error:  # the values come all the same, as they are
            log.info("%s: reading type definitions: %s", self._session.settings.endpoint, error)

    async def run(self, again: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: loads what was met and not known; `again` is called when values can be decoded that could not."""
        types = self._session.decoder.types
        while True:
            await self._wake.wait()
            self._wake.clear()
            keys, self._wanted = self._wanted, set()
            for key in keys:
                self._tried[key] = self._monotonic() + self._pause
                types.forget(key)
            try:
                await load(self._session, await types_of(self._session, keys))
                await load_dictionaries(self._session, [key for key in keys if not types.knows(key)])
            except ua.UaStatusCodeError as error:
                log.info("%s: reading type definitions: %s", self._session.settings.endpoint, error)
            if any(types.knows(key) for key in keys):
                await again()
