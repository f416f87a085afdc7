"""NodeIds and browse paths as people write them, and as a session's namespace indices have them.

A NodeId is written `nsu=URI;s=NAME` (OPC 10000-6 §5.1.12; `;` and `%` of the URI as %3B and %25), `ns=2;s=NAME` or `i=2258`. A path is
`em77:Jobs/em77:ActiveJobValues`: names below one another, each with the prefix of its namespace (or its index, or none for the
standard's), & before a character that is part of a name and not a separator.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua

from schemas.bilingual import Bilingual, chinese, of_error

_NODE: Final = re.compile(r"(?:nsu=(?P<uri>[^;]+);|ns=(?P<index>\d+);)?(?P<kind>[isgb])=(?P<id>.+)", re.DOTALL)
STANDARD: Final = "http://opcfoundation.org/UA/"


class AddressError(ValueError):
    """An address that is not written as it should be: the message says what was found and what was expected."""


class UnknownNamespaceError(LookupError):
    """The server does not have this namespace URI (or index)."""


def lacking(place: str | None, error: UnknownNamespaceError) -> AddressError:
    """The error of an address in a namespace that the server does not have; without `place` it is the point's own."""
    what = of_error(error)
    head_en, head_zh = (f"{place}: ", f"{place}：") if place is not None else ("", "")
    return AddressError(Bilingual(f"{head_en}the server lacks {what}", f"{head_zh}服务器缺少{chinese(what)}"))


@dataclass(frozen=True, slots=True)
class Name:
    """One name of a path: `namespace` is a URI or an index; `pattern` is True when `*` in it matches any characters."""

    namespace: str | int
    text: str
    pattern: bool = False

    def matches(self, name: str) -> bool:
        """Whether a browse name's text fits."""
        if not self.pattern:
            return name == self.text
        return re.fullmatch(".*".join(re.escape(part) for part in self.text.split("*")), name, re.DOTALL) is not None


def node_id(text: str, namespaces: Sequence[str]) -> Any:
    """The asyncua NodeId of `text` in a session with these `namespaces` (its NamespaceArray).

    Raises AddressError for what is not a NodeId, UnknownNamespaceError when the server lacks the namespace.
    """
    match = _NODE.fullmatch(text)
    if match is None:
        raise AddressError(
            Bilingual(
                f"{text!r} is not a NodeId: write nsu=URI;s=NAME, nsu=URI;i=NUMBER, ns=2;s=NAME or i=2258",
                f"{text!r} 不是 NodeId：请写 nsu=URI;s=NAME、nsu=URI;i=NUMBER、ns=2;s=NAME 或 i=2258",
            )
        )
    index = 0
    if match["uri"] is not None:
        index = namespace_index(match["uri"].replace("%3B", ";").replace("%25", "%"), namespaces)
    elif match["index"] is not None:
        index = namespace_index(int(match["index"]), namespaces)
    kind, identifier = match["kind"], match["id"]
    try:
        if kind == "i":
            return ua.NodeId(int(identifier), index, ua.NodeIdType.Numeric)
        if kind == "g":
            return ua.NodeId(uuid.UUID(identifier), index, ua.NodeIdType.Guid)
        if kind == "b":
            return ua.NodeId(base64.b64decode(identifier, validate=True), index, ua.NodeIdType.ByteString)
    except (ValueError, binascii.Error) as error:
        raise AddressError(Bilingual(f"{text!r} is not a NodeId: {error}", f"{text!r} 不是 NodeId：{error}")) from None
    return ua.NodeId(identifier, index, ua.NodeIdType.String)


def node_text(node: Any, namespaces: Sequence[str]) -> str:
    """An asyncua NodeId with its namespace URI, as `node_id` understands it."""
    return written(node.Identifier, node.NamespaceIndex, None, namespaces)


def written(identifier: int | str | bytes | uuid.UUID, index: int, uri: str | None, namespaces: Sequence[str]) -> str:
    """The text of a NodeId from its parts: namespace index, or the URI that an ExpandedNodeId may hold instead."""
    text = identifier_text(identifier)
    if uri is None and index < len(namespaces):
        uri = namespaces[index]
    if uri == STANDARD or (uri is None and index == 0):
        return text
    if uri is None:
        return f"ns={index};{text}"
    return f"nsu={uri.replace('%', '%25').replace(';', '%3B')};{text}"


def identifier_text(identifier: int | str | bytes | uuid.UUID) -> str:
    """`i=…`, `s=…`, `g=…` or `b=…` of a NodeId's identifier."""
    if isinstance(identifier, int):
        return f"i={identifier}"
    if isinstance(identifier, uuid.UUID):
        return f"g={identifier}"
    if isinstance(identifier, bytes):
        return f"b={base64.b64encode(identifier).decode()}"
    return f"s={identifier}"


def is_node_id(text: str) -> bool:
    """Whether `text` is a NodeId and not a path."""
    return _NODE.fullmatch(text) is not None


def namespace_index(namespace: str | int, namespaces: Sequence[str]) -> int:
    """The session's index of a namespace URI (or index). Raises UnknownNamespaceError."""
    if isinstance(namespace, int):
        if namespace and namespaces and namespace >= len(namespaces):
            raise UnknownNamespaceError(
                Bilingual(
                    f"namespace index {namespace}; the server has {len(namespaces)}",
                    f"命名空间索引 {namespace}；服务器共有 {len(namespaces)} 个",
                )
            )
        return namespace
    if namespace == STANDARD:
        return 0
    try:
        return list(namespaces).index(namespace)
    except ValueError:
        raise UnknownNamespaceError(
            Bilingual(
                f"namespace {namespace}; the server has {', '.join(namespaces)}",
                f"命名空间 {namespace}；服务器有 {', '.join(namespaces)}",
            )
        ) from None


def parse_path(text: str, prefixes: Mapping[str, str]) -> tuple[Name, ...]:
    """The names of a path. Raises AddressError for a prefix that is not in `prefixes` and for an empty name."""
    names = []
    for part in _split(text, "/"):
        pieces = _split(part, ":", once=True)
        prefix = _unescape(pieces[0]) if len(pieces) == 2 else ""
        name = pieces[-1]
        if not name:
            raise AddressError(
                Bilingual(
                    f"path {text!r}: an empty name; names are separated by one / each",
                    f"路径 {text!r}：有空的名称；各名称之间用一个 / 分隔",
                )
            )
        namespace: str | int
        if not prefix:
            namespace = 0
        elif prefix.isdecimal():
            namespace = int(prefix)
        elif prefix in prefixes:
            namespace = prefixes[prefix]
        else:
            known = ", ".join(sorted(prefixes)) or "none"
            raise AddressError(
                Bilingual(
                    f"path {text!r}: prefix {prefix!r} is not one of the profile's namespaces ({known}); "
                    "write & before a : that belongs to the name",
                    f"路径 {text!r}：前缀 {prefix!r} 不在模板的命名空间（{known}）之中；属于名称的 : 前请写 &",
                )
            )
        names.append(Name(namespace, _unescape(name), "*" in re.sub("&.", "", name)))
    return tuple(names)


def browse_path(names: Sequence[Name], namespaces: Sequence[str]) -> list[Any]:
    """The asyncua QualifiedNames of a path without patterns. Raises UnknownNamespaceError."""
    return [ua.QualifiedName(name.text, namespace_index(name.namespace, namespaces)) for name in names]


def escape(name: str) -> str:
    """A browse name as a part of a path."""
    return re.sub(r"([&/:])", r"&\1", name)


def _split(text: str, separator: str, *, once: bool = False) -> list[str]:
    """Splits at separators that have no & before them; the & stay."""
    parts = [""]
    escaped = False
    for character in text:
        if character == separator and not escaped and not (once and len(parts) == 2):
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "&" and not escaped
    return parts


def _unescape(text: str) -> str:
    return re.sub(r"&(.)", r"\1", text, flags=re.DOTALL)
