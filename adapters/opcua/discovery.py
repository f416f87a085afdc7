"""What a server is and holds, before anything is configured: its endpoints, its address space, one value."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from asyncua import ua

from adapters.contract import TransientError
from adapters.opcua import _browse, _discovery
from adapters.opcua import _limits as limits
from adapters.opcua._addresses import UnknownNamespaceError, lacking, node_id, node_text
from adapters.opcua._browse import Child, children
from adapters.opcua._errors import EXPECTED, translate
from adapters.opcua._limits import Limits
from adapters.opcua._session import Session, quiet_asyncua
from adapters.opcua._trust import Identity
from adapters.opcua._types import enumerations
from adapters.opcua.certificates import NotACertificateError, read_chain, sha1
from adapters.opcua.pki import Pki
from adapters.opcua.settings import LinkSettings
from schemas import status as codes
from schemas.bilingual import Bilingual

_SERVER: Final = ua.NodeId(2253)
"""The Server object: thousands of diagnostics and no machine data; walked only when asked for by name."""
_DATA_TYPE: Final = 14
_VALUE: Final = 13
_NODE_CLASS: Final = 2
_BROWSE_NAME: Final = 3
_DISPLAY_NAME: Final = 4
MOST_NODES: Final = 200_000
"""Nodes after which a walk ends: a server whose address space has no end must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that a server offers, its policy spelt as in `security:`. `fingerprint` is the SHA-1 of its certificate in hex, empty
    without one."""

    url: str
    policy: str
    mode: str
    users: tuple[str, ...]
    fingerprint: str
    server: str
    certificate: bytes
    application_uri: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A node of the address space. `path` begins below the start of the walk; times in µs; `unit` as the server writes it.

    `type` is the name of a standard data type, else a NodeId; `has_children` does not count a variable's properties.
    """

    node: str
    path: str
    name: str
    node_class: str
    type: str = ""
    value: Any = None
    status: int = 0
    source_ts: int | None = None
    server_ts: int | None = None
    unit: str = ""
    has_children: bool = False
    texts: dict[int, str] | None = None
    """What the values of an enumeration mean, in the server's words."""


async def endpoints(url: str, timeout: float = 5.0) -> list[Endpoint]:
    """The endpoints of the server at `url` by GetEndpoints (OPC 10000-4 §5.5.4), which needs no session and no certificate.

    Raises AdapterError.
    """
    quiet_asyncua()
    try:
        told = await _discovery.ask(url, timeout)
    except EXPECTED as error:
        raise translate(error, url) from error
    return [
        Endpoint(
            url=o.url,
            policy=o.policy,
            mode=o.mode,
            users=o.users,
            fingerprint=_fingerprint(o.certificate),
            server=o.server,
            certificate=o.certificate,
            application_uri=o.application_uri,
        )
        for o in told.offers
    ]


def _fingerprint(certificate: bytes) -> str:
    """SHA-1 of the server's own certificate, without the issuers that it may send behind it."""
    try:
        return sha1(read_chain(certificate)[0]) if certificate else ""
    except NotACertificateError:
        return hashlib.sha1(certificate).hexdigest()


class Explorer:
    """A session of its own for looking around: `async with Explorer(settings) as explorer`. Raises AdapterError throughout."""

    def __init__(self, settings: LinkSettings, *, pki: Path | None = None, gateway: str = "guantong") -> None:
        """`pki` is the folder of the gateway's certificates (`adapters.opcua.pki`), without which a protected channel needs its files
        in the settings; what the look around meets is not pinned."""
        self._settings = settings
        self._identity = Identity(gateway, "", None if pki is None else Pki(pki, gateway))
        self._requests = 0
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        quiet_asyncua()
        session = Session(self._settings, Limits(), self._count, identity=self._identity)
        try:
            await session.open()
        except EXPECTED as error:
            raise translate(error, self._settings.endpoint) from error
        self._session = session
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _count(self) -> None:
        self._requests += 1

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._requests

    @property
    def namespaces(self) -> list[str]:
        """The server's NamespaceArray."""
        return list(self._opened().namespaces)

    def _opened(self) -> Session:
        if self._session is None:
            raise TransientError(
                Bilingual(f"{self._settings.endpoint}: not connected", f"{self._settings.endpoint}：未连接"),
                reason="not_connected",
            )
        return self._session

    async def walk(self, node: str | None = None, *, depth: int = 50) -> AsyncIterator[Found]:
        """Every node down to `depth` levels below `node` (a NodeId; the Objects folder without the Server object by default).

        Level by level, each node once, within the server's limits; what has been yielded stays good when a later call fails.
        """
        session = self._opened()
        try:
            start = _browse.OBJECTS if node is None else node_id(node, session.namespaces)
            async for found in walk(session, start, depth, skip=() if node is not None else (_SERVER,)):
                yield found
        except UnknownNamespaceError as error:
            raise translate(lacking(node, error), self._settings.endpoint) from None
        except EXPECTED as error:
            raise translate(error, self._settings.endpoint) from error

    async def read(self, node: str) -> Found:
        """One node with its value, type, unit and times; a node that the server lacks is a bad status."""
        session = self._opened()
        try:
            wanted = node_id(node, session.namespaces)
            attributes = (_NODE_CLASS, _BROWSE_NAME, _DISPLAY_NAME)
            rows = await session.read_attributes([(wanted, attribute) for attribute in attributes])
            name = str(rows[2][0] or node)
            child = Child(wanted, ua.QualifiedName(name, 0), name, "Variable" if rows[0][0] == 2 else "Object")
            if codes.is_bad(rows[0][1]):
                return Found(node, "", node, "", status=rows[0][1])
            (below,) = await children(session, [wanted])
            (found,) = await _described(session, [(child, "")], [below])
            return found
        except UnknownNamespaceError as error:
            raise translate(lacking(node, error), self._settings.endpoint) from None
        except EXPECTED as error:
            raise translate(error, self._settings.endpoint) from error


async def walk(session: Any, start: Any, depth: int, *, skip: Sequence[Any] = ()) -> AsyncIterator[Found]:
    """See `Explorer.walk`; raises what the session raises. Each node is browsed once, each variable read once."""
    seen = {start, *skip}
    (first,) = await children(session, [start])
    level = _fresh(first, "", seen, session.namespaces)
    for remaining in range(depth, 0, -1):
        following: list[tuple[Child, str]] = []
        size = session.limits.of(limits.BROWSE)
        for i in range(0, len(level), size):
            piece = level[i : i + size]
            below = await children(session, [child.node for child, _ in piece])
            for found in await _described(session, piece, below):
                yield found
            if remaining > 1:
                for (child, path), kids in zip(piece, below, strict=True):
                    following += _fresh(_inner(child, kids), path, seen, session.namespaces)
        level = following


def _inner(child: Child, kids: Sequence[Child]) -> list[Child]:
    """The children that are not mere properties of a variable (its unit, its range)."""
    return [k for k in kids if child.node_class != "Variable" or k.name.NamespaceIndex != 0]


def _fresh(kids: Sequence[Child], path: str, seen: set[Any], namespaces: Sequence[str]) -> list[tuple[Child, str]]:
    fresh = []
    for child in kids:
        if child.node not in seen and len(seen) < MOST_NODES and child.node_class in ("Object", "Variable"):
            seen.add(child.node)
            fresh.append((child, _browse._join(path, child.name, namespaces, {})))
    return fresh


async def _described(session: Any, piece: Sequence[tuple[Child, str]], below: Sequence[Sequence[Child]]) -> list[Found]:
    """The nodes with values, types, units and the texts of enumerations."""
    wanted: list[tuple[Any, int]] = []
    for child, _ in piece:
        if child.node_class == "Variable":
            wanted += [(child.node, _VALUE), (child.node, _DATA_TYPE)]
    units: dict[int, Any] = {}
    for i, ((child, _), kids) in enumerate(zip(piece, below, strict=True)):
        unit = next((k for k in kids if k.name.NamespaceIndex == 0 and k.name.Name == "EngineeringUnits"), None)
        if unit is not None and child.node_class == "Variable":
            units[i] = unit.node
    rows = iter(await session.read_attributes([*wanted, *((node, _VALUE) for node in units.values())]))
    values = {i: (next(rows), next(rows)[0]) for i, (child, _) in enumerate(piece) if child.node_class == "Variable"}
    told = {i: _unit(next(rows)) for i in units}
    variables = [(str(data_type or ""), below[i]) for i, (_, data_type) in values.items()]
    texts = dict(zip(values, await enumerations(session, variables), strict=True))
    result = []
    for i, ((child, path), kids) in enumerate(zip(piece, below, strict=True)):
        node = node_text(child.node, session.namespaces)
        inner = bool(_inner(child, kids))
        if i not in values:
            result.append(Found(node, path, child.display, child.node_class, has_children=inner))
            continue
        (value, status, source, server), data_type = values[i]
        result.append(
            Found(
                node, path, child.display, child.node_class, _browse._type_name(data_type),
                None if codes.is_bad(status) else value, status, source, server, told.get(i, ""), inner, texts[i],
            )
        )  # fmt: skip
    return result


def _unit(row: Any) -> str:
    """The display name of an EUInformation (OPC 10000-8 §5.6.3)."""
    value = row[0]
    name = value.get("DisplayName") if isinstance(value, dict) else None
    if isinstance(name, dict):
        name = name.get("Text")
    return str(name or "")
