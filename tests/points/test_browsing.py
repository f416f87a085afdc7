"""Browsing: paging and limits on large and stubborn servers, and what becomes of names and types."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import AdapterError
from adapters.opcua import LinkSettings
from adapters.opcua import _browse as adapter_browse
from adapters.opcua._limits import BROWSE, READ, Limits
from adapters.opcua.discovery import Explorer, Found, endpoints, walk
from gateway.points.browsing import KNOWN, imported, matches, plain_path, recognise, rows_of, signal_name, value_type
from schemas.library import shipped
from schemas.times import from_rfc3339
from tests.adapters.opcua_server import MACHINE, SmallServer

NOW = from_rfc3339("2026-11-22T08:00:00Z")
FOLDERS, EACH = 100, 500


class FakeSession:
    """A server with folders of variables that answers Browse and Read, refuses more operations than it allows, and pages references."""

    def __init__(self, browse: int, read: int, references: int) -> None:
        self.limits = Limits()
        self.namespaces = ["http://opcfoundation.org/UA/", "urn:server", "urn:machine"]
        self._browse, self._read, self._references = browse, read, references
        self._open: dict[bytes, list[Any]] = {}
        self.most_open = 0
        self.largest = {BROWSE: 0, READ: 0}

    def _refuse(self, kind: str, count: int, limit: int) -> None:
        if count > limit:
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        self.largest[kind] = max(self.largest[kind], count)

    def _below(self, node: Any) -> list[Any]:
        if node == adapter_browse.OBJECTS:
            return [self._reference(i, f"F{i}", ua.NodeClass.Object) for i in range(1, FOLDERS + 1)]
        if node.Identifier > FOLDERS:
            return []
        first = node.Identifier * 1000
        return [self._reference(first + i, f"V{i}", ua.NodeClass.Variable) for i in range(EACH)]

    def _reference(self, number: int, name: str, kind: Any) -> Any:
        reference = ua.ReferenceDescription()
        reference.NodeId = ua.NodeId(number, 2)
        reference.BrowseName = ua.QualifiedName(name, 2)
        reference.DisplayName = ua.LocalizedText(name)
        reference.NodeClass = kind
        return reference

    def _page(self, references: list[Any], point: bytes) -> Any:
        result = ua.BrowseResult()
        result.References = references[: self._references]
        rest = references[self._references :]
        result.ContinuationPoint = point if rest else None
        self._open.pop(point, None)
        if rest:
            self._open[point] = rest
            self.most_open = max(self.most_open, len(self._open))
        return result

    async def call(self, request: Any, response: Any) -> Any:
        answer = response()
        if isinstance(request, ua.BrowseRequest):
            wanted = request.Parameters.NodesToBrowse
            self._refuse(BROWSE, len(wanted), self._browse)
            answer.Results = [self._page(self._below(d.NodeId), str(d.NodeId).encode()) for d in wanted]
        else:
            points = request.Parameters.ContinuationPoints
            answer.Parameters.Results = [self._page(self._open[point], point) for point in points]
        return answer

    async def read_attributes(self, wanted: Sequence[tuple[Any, int]]) -> list[Any]:
        async def call(piece: Sequence[tuple[Any, int]]) -> list[Any]:
            self._refuse(READ, len(piece), self._read)
            return [(n.Identifier, 0, NOW, NOW) if a == 13 else ("i=6", 0, None, None) for n, a in piece]

        return await self.limits.calls(READ, wanted, call)


async def test_fifty_thousand_nodes_in_pages_within_the_limits() -> None:
    session = FakeSession(browse=40, read=90, references=30)
    found = [f async for f in walk(session, adapter_browse.OBJECTS, 10)]
    assert len(found) == FOLDERS + FOLDERS * EACH == 50_100
    assert len({f.node for f in found}) == len(found)
    assert 0 < session.largest[BROWSE] <= 40
    assert 0 < session.largest[READ] <= 90
    assert not session._open  # every continuation point was used to its end
    last = found[-1]
    assert (last.path, last.value, last.type, last.source_ts) == ("2:F100/2:V499", 100_499, "Int32", NOW)


async def test_depth_ends_the_walk() -> None:
    session = FakeSession(browse=1000, read=1000, references=1000)
    assert len([f async for f in walk(session, adapter_browse.OBJECTS, 1)]) == FOLDERS


def _settings(server: SmallServer, timeout: float = 3.0) -> LinkSettings:
    return LinkSettings.model_validate({"endpoint": server.endpoint, "security": "none", "timeout": timeout})


async def _explored(server: SmallServer, timeout: float = 3.0) -> list[Found]:
    async with Explorer(_settings(server, timeout)) as explorer:
        return [f async for f in explorer.walk()]


def test_a_server_of_some_thousand_nodes() -> None:
    with SmallServer() as server:

        async def grow() -> None:
            for i in range(20):
                folder = await server.server.nodes.objects.add_folder(server.index(MACHINE), f"Cell{i}")
                for j in range(100):
                    await folder.add_variable(server.node(f"c{i}.{j}"), server.name(f"T{j}"), float(j))

        server.run(grow(), timeout=60)
        found = asyncio.run(_explored(server))
    values = {plain_path(f.path): f.value for f in found if f.node_class == "Variable"}
    assert {f"Cell{i}/T{j}": float(j) for i in range(20) for j in range(100)}.items() <= values.items()


def test_what_was_found_stays_when_the_server_goes_silent() -> None:
    with SmallServer() as server:
        found: list[Found] = []

        async def explore() -> None:
            async with Explorer(_settings(server, 0.5)) as explorer:
                async for one in explorer.walk():
                    found.append(one)
                    if len(found) == 3:
                        await explorer._opened().close()

        with pytest.raises(AdapterError):
            asyncio.run(explore())
        assert len(found) >= 3


def test_endpoints_of_a_server() -> None:
    with SmallServer() as server:
        (one,) = asyncio.run(endpoints(server.endpoint))
    assert (one.policy, one.mode, one.fingerprint) == ("None", "None", "")
    assert "Anonymous" in one.users


def _found(path: str, **more: Any) -> Found:
    return Found(f"ns=2;s={path}", path, path.rpartition(":")[2], "Variable", **more)


def test_names_of_signals() -> None:
    taken: set[str] = set()
    assert signal_name("3:Hall/4:PressA/4:ActualTemperature", taken) == "hall/press_a/actual_temperature"
    assert signal_name("3:Hall/4:press-a/4:ActualTemperature", taken) == "hall/press_a/actual_temperature_2"
    assert signal_name("4:温度", taken) == "signal"
    assert signal_name("4:压力", taken) == "signal_2"
    assert signal_name('3:"DB_Line"/3:"Good&/Bad"', taken) == "db_line/good_bad"


@pytest.mark.parametrize(("kind", "value", "expected"), [
    ("Double", 1.5, "float64"), ("UInt16", 3, "uint16"), ("Int32", [1, 2], "array"), ("ns=3;i=7", 2, "int64"),
    ("ns=3;i=7", True, "bool"), ("ns=3;i=7", {"a": 1}, "object"), ("ns=3;i=7", None, "float64"), ("LocalizedText", "甲", "string"),
])  # fmt: skip
def test_types_of_signals(kind: str, value: Any, expected: str) -> None:
    assert value_type(_found("2:a", type=kind, value=value)) == expected


def test_rows_are_a_sound_table() -> None:
    picked = [
        _found("2:Hall/2:温度", type="Double", unit="°C"), _found("2:Hall/2:Odd", type="Int32", unit="furlong"),
        _found("2:Hall/2:Name", type="String"),
    ]  # fmt: skip
    (link,) = imported(rows_of("opc.tcp://10.0.0.1:4840", "press-1", picked)).links
    first, second, third = link["devices"][0]["signals"]
    assert (first["unit"], first["description"]) == ("°C", {"zh": "温度"})
    assert (second.get("unit"), second["description"]) == (None, {"en": "Odd [furlong]"})
    assert (third["type"], third["kind"]) == ("string", "text")


def test_known_address_spaces() -> None:
    known = recognise(
        ["http://opcfoundation.org/UA/", "http://www.euromap.org/euromap83/", "http://www.euromap.org/euromap77/"]
    )
    assert [k.profile for k in known] == ["euromap77-injection", ""]
    assert {k.profile for k in KNOWN.values() if k.profile} <= set(shipped())
    assert all(k.name.zh and k.name.en for k in KNOWN.values())


def test_patterns() -> None:
    found = _found("2:Hall/3:Press_A/3:Temp")
    assert all(matches(found, p) for p in ("temp", "hall/*", "*press?a*", "2:Hall/*", "ns=2;*"))
    assert not matches(found, "press")


def test_texts_of_an_enumeration_go_into_the_point_table() -> None:
    mode = Found("ns=2;s=mode", "2:Mode", "Mode", "Variable", "Enumeration", 1, texts={1: "Auto; 100 %", 0: "手动"})
    level = Found("ns=2;s=level", "2:Level", "Level", "Variable", "Double", 1.0, texts={0: "odd"})
    rows = rows_of("opc.tcp://10.0.0.1:4840", "press", [mode, level])
    assert [point.get("kind") for point in rows[1]] == ["state", None]
    (link,) = imported(rows).links
    signals = {signal["name"]: signal for signal in link["devices"][0]["signals"]}
    texts = {int(value): text["zh"] for value, text in signals["mode"]["enum"].items()}
    assert texts == {0: "手动", 1: "Auto; 100 %"}
    assert "enum" not in signals["level"]
