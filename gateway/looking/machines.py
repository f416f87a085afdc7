"""Looks at machines, inside the child process: OPC UA servers, whose session stays open for the next look, and Modbus devices."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from adapters.contract import AdapterError
from gateway.looking import shapes, told
from gateway.looking.questions import (
    Browse,
    Endpoints,
    FailedLookError,
    Link,
    Mistake,
    ReadNode,
    ReadRegisters,
)
from schemas.documents import DocumentError, validate
from schemas.status import info, quality

if TYPE_CHECKING:
    from adapters.opcua import LinkSettings
    from adapters.opcua.discovery import Explorer, Found

MOST_NODES: Final = 5_000
"""Largest `limit` of one look."""
WALK: Final = 16.0
"""Seconds that a filter searches; what was found until then is the answer."""
_LOST: Final = frozenset({"session_lost", "connection_lost", "not_connected", "server_shutdown", "timeout", "refused"})
"""Reasons for which a session that was open is opened once more."""
SESSION_TIMEOUT: Final = 60.0
"""Seconds after which a server forgets a session of ours that was killed."""


async def offered(question: Endpoints) -> shapes.Offered:
    """The endpoints of a server. Raises FailedLookError."""
    from adapters.opcua.discovery import endpoints

    settings = _opcua(Link("opcua", {"endpoint": question.url, "security": "none"}), question.lang, "url")
    try:
        found = await endpoints(settings.endpoint, settings.timeout)
    except AdapterError as error:
        raise _failed(error) from error
    return shapes.Offered(
        [shapes.OfferedEndpoint(e.url, e.policy, e.mode, list(e.users), e.fingerprint, e.server) for e in found]
    )


class Machines:
    """The open OPC UA session, if there is one. `close` ends it."""

    def __init__(self) -> None:
        self._explorer: Explorer | None = None
        self._key = ""

    async def close(self) -> None:
        """Ends the session in order."""
        explorer, self._explorer, self._key = self._explorer, None, ""
        if explorer is not None:
            await explorer.__aexit__(None, None, None)

    async def browse(self, question: Browse) -> shapes.Browsed:
        """See `questions.Browse`. Raises FailedLookError."""
        settings = _opcua(question.link, question.lang)
        limit = min(max(question.limit, 1), MOST_NODES)

        async def look(explorer: Explorer) -> shapes.Browsed:
            from gateway.points.browsing import recognise

            nodes, truncated = await _nodes(explorer, question, limit)
            zh = question.lang == "zh"
            known = [
                shapes.Known(r.uri, r.name.zh if zh else r.name.en, r.profile, r.note.zh if zh else r.note.en)
                for r in recognise(explorer.namespaces)
            ]
            return shapes.Browsed(nodes, explorer.namespaces, known, truncated)

        result: shapes.Browsed = await self._with(settings, question, look)
        return result

    async def read_node(self, question: ReadNode) -> shapes.TestRead:
        """One node. Raises FailedLookError."""
        from gateway.points.browsing import value_type

        settings = _opcua(question.link, question.lang)

        async def look(explorer: Explorer) -> shapes.TestRead:
            found = await explorer.read(question.node)
            read = told.reading(
                question.lang, found.status, found.value, time.time_ns() // 1000, type=found.type,
                signal_type=value_type(found), unit=found.unit, name=found.name, node=found.node,
                source_ts=found.source_ts, server_ts=found.server_ts,
            )  # fmt: skip
            if found.texts and isinstance(found.value, int) and found.value in found.texts:
                read = msgspec.structs.replace(read, text=f"{read.text} {found.texts[found.value]}")
            return read

        result: shapes.TestRead = await self._with(settings, question, look)
        return result

    async def _with(self, settings: LinkSettings, question: Browse | ReadNode, look: Any) -> Any:
        """`look` with a session by these settings: the open one if it is by the same, which may have been lost meanwhile."""
        key = json.dumps([question.link.settings, question.pki], sort_keys=True)
        try:
            if self._explorer is not None and self._key == key:
                try:
                    return await look(self._explorer)
                except AdapterError as error:
                    if error.reason not in _LOST:
                        raise
            await self.close()
            self._explorer, self._key = await _explorer(settings, question).__aenter__(), key
            return await look(self._explorer)
        except AdapterError as error:
            await self.close()
            raise _failed(error) from error


def _explorer(settings: LinkSettings, question: Browse | ReadNode) -> Explorer:
    from adapters.opcua.discovery import Explorer

    return Explorer(settings, pki=None if question.pki is None else Path(question.pki), gateway=question.gateway)


async def _nodes(explorer: Explorer, question: Browse, limit: int) -> tuple[list[shapes.Node], bool]:
    """The nodes that are asked for, and whether there are more."""
    from gateway.points.browsing import matches

    pattern = (question.filter or "").strip()
    if pattern and not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    found: list[shapes.Node] = []
    ends = time.monotonic() + WALK
    async for one in explorer.walk(question.node, depth=50 if pattern else 1):
        if pattern and (one.node_class != "Variable" or not matches(one, pattern)):
            if time.monotonic() > ends:
                return found, True
            continue
        if len(found) == limit:
            return found, True
        found.append(_node(one, question.path))
        if time.monotonic() > ends:
            return found, True
    return found, False


def _node(found: Found, above: str) -> shapes.Node:
    from gateway.points.browsing import plain_path, value_type

    variable = found.node_class == "Variable"
    path = plain_path(found.path)
    return shapes.Node(
        node=found.node, path=f"{above}/{path}" if above else path, name=found.name, node_class=found.node_class,
        type=found.type, picked_type=value_type(found) if variable else "", value=told.shown(found.value),
        unit=found.unit, status=found.status, status_name=info(found.status).name, quality=quality(found.status),
        source_ts=told.moment(found.source_ts), has_children=found.has_children, enum=_texts(found),
    )  # fmt: skip


def _texts(found: Found) -> dict[str, str] | None:
    return {str(value): text for value, text in found.texts.items()} if found.texts else None


async def read_registers(question: ReadRegisters) -> shapes.TestRead:
    """One Modbus address, over a connection of its own. Raises FailedLookError."""
    from adapters.modbus import ModbusLinkSettings
    from adapters.modbus.probe import SerialPlace
    from gateway.points.testread import read_modbus, read_serial
    from schemas.profile import ModbusAddress

    settings = dict(question.link.settings)
    try:
        address = validate(question.address, ModbusAddress, "")
    except DocumentError as error:
        raise told.invalid("address", error, question.lang) from error
    if address.select is not None:
        raise told.needs_selector(address.select)
    if not 0 <= question.unit <= 255:
        raise _wrong("unit", question.unit, "0 to 255", "0 至 255")
    try:
        link = validate(settings, ModbusLinkSettings, "")
        if link.serial is not None and link.framing == "rtu":
            place = SerialPlace(link.serial, link.baud, link.parity, link.stop)
            found = await read_serial(place, question.unit, address)
        else:
            found = await read_modbus(link, question.unit, address)
    except DocumentError as error:
        raise told.invalid("link.settings", error, question.lang) from error
    except AdapterError as error:
        raise _failed(error) from error
    return told.of_modbus(question.lang, found)


def _wrong(parameter: str, found: Any, en: str, zh: str) -> FailedLookError:
    shown = told.shown(found)
    return FailedLookError(
        "invalid",
        f"{parameter}: found {shown!r}, expected {en}",
        f"{parameter}：收到 {shown!r}，应为 {zh}",
        mistakes=[Mistake(shown, en, zh, parameter)],
    )


def _opcua(link: Link, lang: Any, where: str = "link.settings") -> LinkSettings:
    """The settings of an OPC UA link. Raises FailedLookError."""
    from adapters.opcua import LinkSettings

    if link.adapter != "opcua":
        raise _wrong("link.adapter", link.adapter, "opcua: only OPC UA has a tree", "opcua：只有 OPC UA 具有地址空间")
    try:
        settings = validate(link.settings, LinkSettings, "")
    except DocumentError as error:
        raise told.invalid(where, error, lang) from error
    if settings.session_timeout > SESSION_TIMEOUT:
        settings = settings.model_copy(update={"session_timeout": SESSION_TIMEOUT})
    return settings


def _failed(error: AdapterError) -> FailedLookError:
    failed = FailedLookError(error.reason, str(error), "")
    failed.failure = told.failure_of(error)
    return failed
