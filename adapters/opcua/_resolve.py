"""From what the profile says to the NodeIds of this session: namespaces, roots with *, browse paths. Anew in each session, since a server
may number its namespaces otherwise after a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from asyncua import ua

from adapters.contract import DeviceSpec, Point
from adapters.opcua import _limits as limits
from adapters.opcua._addresses import (
    AddressError,
    Name,
    UnknownNamespaceError,
    browse_path,
    is_node_id,
    lacking,
    namespace_index,
    node_id,
    node_text,
    parse_path,
)
from adapters.opcua._browse import HIERARCHICAL, OBJECTS, children, is_local, plain_node_id
from adapters.opcua._session import Session
from adapters.opcua.settings import DeviceSettings
from schemas import status as codes
from schemas.bilingual import Bilingual, chinese, of_error
from schemas.profile import OpcUaAddress, OpcUaRules

_WHOLE: Final = 0xFFFFFFFF
"""RemainingPathIndex of a target that the whole path reached (OPC 10000-4 §5.9.4)."""
BAD_NO_MATCH: Final = 0x806F0000


class RootError(Exception):
    """The device's root is not there, or not one: a trouble of the device, not of the link."""

    def __init__(self, message: str, reason: str, fix_en: str, fix_zh: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.fix_en = fix_en
        self.fix_zh = fix_zh


class Unresolved:
    """What stands in place of a NodeId: the status of the point and what a person should know."""

    __slots__ = ("problem", "status")

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        self.problem = problem


def address_of(point: Point) -> OpcUaAddress:
    """The point's address, typed."""
    address = point.address
    assert isinstance(address, OpcUaAddress)
    return address


def rules_of(device: DeviceSpec) -> OpcUaRules:
    """The device's rules, typed."""
    assert isinstance(device.rules, OpcUaRules)
    return device.rules


def root_text(device: DeviceSpec) -> str:
    """Where the device's paths begin, as it is written: its own setting, else its profile's."""
    assert isinstance(device.settings, DeviceSettings)
    return rules_of(device).root if device.settings.root is None else device.settings.root


def check(device: DeviceSpec) -> None:
    """Raises AddressError for what can be seen without a server."""
    prefixes = rules_of(device).namespaces
    root = root_text(device)
    if root and not is_node_id(root):
        parse_path(root, prefixes)
    for point in device.points:
        address = address_of(point)
        if address.path is not None:
            parse_path(address.path, prefixes)
        else:
            assert address.node is not None
            _offline_node(address.node)
    for clause in device.events:
        for node in (clause.type, clause.of_type, *(field.of for field in clause.fields.values())):
            if node:
                _offline_node(node)
        if clause.notifier and not is_node_id(clause.notifier):
            parse_path(clause.notifier, prefixes)
        for field in clause.fields.values():
            parse_path(field.path, prefixes)


def _offline_node(text: str) -> None:
    """Raises AddressError for a text that is no NodeId in any session."""
    try:
        node_id(text, ())
    except UnknownNamespaceError:
        pass  # only a server can say


async def root(session: Session, device: DeviceSpec) -> Any:
    """The NodeId where the device's paths begin. Raises RootError when there is none or more than one."""
    text = root_text(device)
    if not text:
        return OBJECTS
    try:
        if is_node_id(text):
            return node_id(text, session.namespaces)
        names = parse_path(text, rules_of(device).namespaces)
        found: list[tuple[Any, str]] = [(OBJECTS, "")]
        for name in names:
            found = await _step(session, found, name)
    except UnknownNamespaceError as error:
        raise _no_root(device.id, text, of_error(lacking(None, error))) from None
    if not found:
        raise _no_root(device.id, text, Bilingual("nothing below Objects matches it", "Objects 之下没有匹配项"))
    if len(found) > 1:
        matching = ", ".join(name for _, name in found[:8])
        raise RootError(
            Bilingual(
                f"device {device.id}: root {text!r} matches {len(found)} nodes: {matching}",
                f"设备 {device.id}：root {text!r} 匹配 {len(found)} 个节点：{matching}",
            ),
            "root_ambiguous",
            f"Set `root:` in the device's settings to one of: {matching}.",
            f"请在设备设置中将 root 设为其中之一：{matching}。",
        )
    return found[0][0]


def _no_root(device: str, text: str, why: str) -> RootError:
    return RootError(
        Bilingual(f"device {device}: root {text!r}: {why}", f"设备 {device}：root {text!r}：{chinese(why)}"),
        "root_not_found",
        "Look with `guantong browse` how the server names this machine, and set `root:` in the device's settings.",
        "请用 guantong browse 确认服务器对该设备的命名，并在设备设置中填写 root。",
    )


async def _step(session: Session, found: Sequence[tuple[Any, str]], name: Name) -> list[tuple[Any, str]]:
    nodes = [node for node, _ in found]
    index = namespace_index(name.namespace, session.namespaces)
    if not name.pattern:
        paths = [(node, [ua.QualifiedName(name.text, index)]) for node in nodes]
        targets = await translate(session, paths)
        return [(node, name.text) for node in targets if not isinstance(node, int)]
    below = await children(session, nodes)
    # a child that also is an event source stands there twice: two hierarchical references lead to it
    matching = {
        child.node: child.name.Name
        for found_children in below
        for child in found_children
        if child.name.NamespaceIndex == index and name.matches(child.name.Name or "")
    }
    return list(matching.items())


async def translate(session: Session, paths: Sequence[tuple[Any, list[Any]]]) -> list[Any]:
    """For each (start, QualifiedNames) the NodeId at its end, or the status that says why there is none."""

    async def call(piece: Sequence[tuple[Any, list[Any]]]) -> list[Any]:
        request = ua.TranslateBrowsePathsToNodeIdsRequest()
        for start, names in piece:
            path = ua.BrowsePath()
            path.StartingNode = start
            path.RelativePath.Elements = [_element(name) for name in names]
            request.Parameters.BrowsePaths.append(path)
        answer = await session.call(request, ua.TranslateBrowsePathsToNodeIdsResponse)
        return list(answer.Results)

    results = await session.limits.calls(limits.TRANSLATE, paths, call)
    return [_target(result) for result in results]


def _element(name: Any) -> Any:
    element = ua.RelativePathElement()
    element.ReferenceTypeId = HIERARCHICAL
    element.IsInverse = False
    element.IncludeSubtypes = True
    element.TargetName = name
    return element


def _target(result: Any) -> Any:
    status = int(result.StatusCode.value)
    if codes.is_bad(status):
        return status
    for target in result.Targets or []:
        if target.RemainingPathIndex == _WHOLE and is_local(target.TargetId):
            return plain_node_id(target.TargetId)
    return BAD_NO_MATCH


async def nodes(session: Session, device: DeviceSpec, start: Any, points: Sequence[Point]) -> list[Any]:
    """For each point its NodeId or an `Unresolved`."""
    found: list[Any] = [None] * len(points)
    paths: list[tuple[int, tuple[Any, list[Any]]]] = []
    prefixes = rules_of(device).namespaces
    for i, point in enumerate(points):
        try:
            place = _place(session, address_of(point), prefixes)
        except (UnknownNamespaceError, AddressError) as error:
            lack = lacking(None, error) if isinstance(error, UnknownNamespaceError) else error
            found[i] = Unresolved(codes.BAD_NODE_ID_UNKNOWN, of_error(lack))
            continue
        if isinstance(place, list):
            paths.append((i, (start, place)))
        else:
            found[i] = place
    for (i, _), node in zip(paths, await translate(session, [path for _, path in paths]), strict=True):
        if isinstance(node, int):
            name, path, below = codes.info(node).name, address_of(points[i]).path, node_text(start, session.namespaces)
            problem = Bilingual(f"{name}: nothing at {path} below {below}", f"{name}：{below} 之下没有 {path}")
            found[i] = Unresolved(node, problem)
        else:
            found[i] = node
    return found


def _place(session: Session, address: OpcUaAddress, prefixes: Mapping[str, str]) -> Any:
    """A NodeId, or the QualifiedNames of a path."""
    if address.node is not None:
        return node_id(address.node, session.namespaces)
    assert address.path is not None
    return browse_path(parse_path(address.path, prefixes), session.namespaces)
