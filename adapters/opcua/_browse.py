"""Walking the address space (OPC 10000-4 §5.9) within the server's limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from asyncua import ua

from adapters.contract import BrowseNode
from adapters.opcua import _limits as limits
from adapters.opcua._addresses import AddressError, escape, node_text
from adapters.opcua._session import Session
from schemas import status as codes
from schemas.bilingual import Bilingual

HIERARCHICAL: Final = ua.NodeId(33)
OBJECTS: Final = ua.NodeId(85)
_PER_NODE: Final = 1_000
"""References asked for at once of one node; the rest comes by BrowseNext."""
_MOST: Final = 200_000
"""Nodes after which a walk ends: a server whose address space has no end must not fill the memory."""
_NODE_CLASS: Final = 2
_DATA_TYPE: Final = 14
_VALUE: Final = 13


@dataclass(frozen=True, slots=True)
class Child:
    """A node below another."""

    node: Any
    name: Any
    display: str
    node_class: str


async def children(session: Session, nodes: Sequence[Any]) -> list[list[Child]]:
    """The children by hierarchical references of each node; none for a node that cannot be browsed."""
    return await related(session, nodes, HIERARCHICAL)


async def related(session: Session, nodes: Sequence[Any], reference: Any, *, forward: bool = True) -> list[list[Child]]:
    """What each node refers to (or, not `forward`, what refers to it) by this type of reference or a subtype of it."""

    async def call(piece: Sequence[Any]) -> list[Any]:
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = _PER_NODE
        request.Parameters.NodesToBrowse = [_description(node, reference, forward) for node in piece]
        answer = await session.call(request, ua.BrowseResponse)
        return list(answer.Results)

    results = await session.limits.calls(limits.BROWSE, nodes, call)
    found = []
    for node, first in zip(nodes, results, strict=True):
        result = first
        if result.StatusCode.name == "BadNoContinuationPoints" and len(nodes) > 1:
            (again,) = await call([node])  # alone it needs one continuation point only
            result = again
        references = list(result.References or [])
        while result.ContinuationPoint:
            request = ua.BrowseNextRequest()
            request.Parameters.ReleaseContinuationPoints = False  # asyncua's default would end the browse here
            request.Parameters.ContinuationPoints = [result.ContinuationPoint]
            answer = await session.call(request, ua.BrowseNextResponse)
            (result,) = answer.Parameters.Results
            result.StatusCode.check()
            references.extend(result.References or [])
        found.append([_child(each) for each in references if is_local(each.NodeId)])
    return found


def _description(node: Any, reference: Any, forward: bool) -> Any:
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Forward if forward else ua.BrowseDirection.Inverse
    description.ReferenceTypeId = reference
    description.IncludeSubtypes = True
    description.ResultMask = ua.BrowseResultMask.All
    return description


def _child(reference: Any) -> Child:
    return Child(
        plain_node_id(reference.NodeId),
        reference.BrowseName,
        reference.DisplayName.Text or reference.BrowseName.Name or "",
        reference.NodeClass.name,
    )


def is_local(node: Any) -> bool:
    """Whether a NodeId, maybe an ExpandedNodeId, is one of this server."""
    return not getattr(node, "ServerIndex", 0)


def plain_node_id(node: Any) -> Any:
    """The NodeId of an ExpandedNodeId of this server."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


Texts = Callable[[Session, Sequence[tuple[str, Sequence[Child]]]], Awaitable[list[dict[int, str] | None]]]


async def walk(
    session: Session, start: Any, depth: int, prefixes: Mapping[str, str], enumerations: Texts
) -> AsyncIterator[BrowseNode]:
    """Every node down to `depth` levels below `start`, level by level, each once, variables with type and value.

    `prefixes` (namespace URI -> prefix) shortens the paths, which begin at `start`. `enumerations` finds the texts of variables' values,
    given the data type and children of each. Raises AddressError when the server lacks `start`.
    """
    ((_, status, _, _),) = await session.read([start], _NODE_CLASS)
    if codes.is_bad(status):
        where = f"{node_text(start, session.namespaces)}: {codes.info(status).name}"
        raise AddressError(Bilingual(f"{where}: the server has no such node", f"{where}：服务器没有该节点"))
    seen = {start}
    level: list[tuple[Any, str]] = [(start, "")]
    for _ in range(depth):
        following: list[tuple[Any, str]] = []
        piece_size = session.limits.of(limits.BROWSE)
        for i in range(0, len(level), piece_size):
            piece = level[i : i + piece_size]
            fresh: list[tuple[Child, str]] = []
            for (_, path), found in zip(piece, await children(session, [node for node, _ in piece]), strict=True):
                for child in found:
                    if child.node not in seen and len(seen) < _MOST:
                        seen.add(child.node)
                        fresh.append((child, _join(path, child.name, session.namespaces, prefixes)))
            nodes = [child.node for child, _ in fresh]
            inner = await children(session, nodes) if nodes else []
            values = await _values(session, [child for child, _ in fresh])
            below_of = dict(zip(nodes, inner, strict=True))
            variables = [(str(data_type or ""), below_of[each]) for each, (_, data_type) in values.items()]
            texts = dict(zip(values, await enumerations(session, variables), strict=True))
            for (child, path), below in zip(fresh, inner, strict=True):
                found_node = _browse_node(session, child, path, bool(below), values.get(child.node))
                yield replace(found_node, texts=texts.get(child.node))
            following.extend((child.node, path) for child, path in fresh)
        level = following


async def _values(session: Session, found: Sequence[Child]) -> dict[Any, tuple[Any, Any]]:
    """(row of the value, data type's NodeId as text) of each variable."""
    variables = [child.node for child in found if child.node_class == "Variable"]
    wanted = [(node, attribute) for node in variables for attribute in (_VALUE, _DATA_TYPE)]
    rows = await session.read_attributes(wanted)
    return {node: (rows[2 * i], rows[2 * i + 1][0]) for i, node in enumerate(variables)}


def _browse_node(session: Session, child: Child, path: str, has_children: bool, read: Any) -> BrowseNode:
    node = node_text(child.node, session.namespaces)
    if read is None:
        return BrowseNode(node, path, child.display, child.node_class, has_children=has_children)
    (value, status, source, _), data_type = read
    return BrowseNode(
        node, path, child.display, child.node_class,
        type=_type_name(data_type), value=None if codes.is_bad(status) else value, status=status, source_ts=source,
        has_children=has_children,
    )  # fmt: skip


def _type_name(data_type: Any) -> str:
    """`Double` for a type of the standard, the NodeId for any other."""
    text = str(data_type or "")
    if text.startswith("i=") and text[2:].isdecimal():
        return str(ua.ObjectIdNames.get(int(text[2:]), text))
    return text


def _join(path: str, name: Any, namespaces: Sequence[str], prefixes: Mapping[str, str]) -> str:
    index = name.NamespaceIndex
    uri = namespaces[index] if index < len(namespaces) else ""
    prefix = "" if index == 0 else f"{prefixes.get(uri, index)}:"
    part = f"{prefix}{escape(name.Name or '')}"
    return f"{path}/{part}" if path else part
