"""Reading from a stack that is not asyncua, node-opcua: structures, nodes that come and go, ten thousand items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.contract import Samples
from schemas import status as codes
from schemas.profile import Group
from tests.adapters.foreign_reading import ReadingServer
from tests.adapters.opcua_collector import Collector, device, link
from tests.adapters.test_opcua_modes import grouped

MANY = 10_000
FIRST = 10_000
AT = 1_767_323_045_678_000
"""2026-01-02T03:04:05.678Z"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingServer]:
    running = ReadingServer(tmp_path_factory.getbasetemp() / "node-opcua-reading", MANY)
    running.start()
    yield running
    running.stop()


async def test_structures_enumerations_and_matrices(server: ReadingServer) -> None:
    async with Collector(link(server.endpoint, device([server.node(i) for i in (2, 5, 6, 7)]))) as host:
        await host.until(lambda: all(host.rows(i) for i in range(4)))
        assert host.rows(0)[0]["value"] == {
            "Number": 1, "Mode": 1, "Zones": [], "Outcome": {"Good": True}, "Range": {"Low": 0.0, "High": 1.0},
        }  # fmt: skip
        assert [host.last(i) for i in (1, 2, 3)] == [1, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], 2]
        zones = [{"name": f"区{i}", "temperature": 200.5 + i, "since": "2026-01-02T03:04:05.678Z"} for i in range(2)]
        server.do(
            shot={"number": str(2**64 - 1), "mode": 0, "zones": zones, "outcome": {"fault": "飞边"}, "range": {"low": -1, "high": 2},
                  "weight": 12.25, "remark": "试模"}
        )  # fmt: skip
        await host.until(lambda: len(host.rows(0)) == 2)
        assert host.last(0) == {
            "Number": 2**64 - 1, "Mode": 0,
            "Zones": [{"Name": f"区{i}", "Temperature": 200.5 + i, "Since": AT} for i in range(2)],
            "Outcome": {"Fault": "飞边"}, "Range": {"Low": -1.0, "High": 2.0}, "Weight": 12.25, "Remark": "试模",
        }  # fmt: skip
        assert all(row["status"] == 0 for row in host.rows(0))
        index = server.first["index"]
        found = {each.path: each async for each in host.adapter.browse(f"nsu={server.first['namespace']};s=Press")}
        assert found[f"{index}:Mode"].texts == {0: "Manual", 1: "Auto"}
        assert found[f"{index}:Lamp"].texts == {0: "off", 1: "on", 2: "blink"}
        assert found[f"{index}:Part"].texts is None


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_download_gives_a_node_another_type(server: ReadingServer, mode: Any) -> None:
    group = Group(period=0.1, mode=mode)
    spec = link(server.endpoint, grouped([server.node(3), server.node(1)], group), item_retry=0.1)
    async with Collector(spec) as host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert isinstance(host.last(0), int)
        server.do(remove=True)
        await host.until(lambda: host.troubles() and codes.is_bad(host.rows(0)[-1]["status"]))
        assert host.troubles()[0][0] == 0
        server.do(add="String", initial="a text now")
        await host.until(lambda: host.last(0) == "a text now")
        await host.until(lambda: host.troubles()[-1] == (0, None))
        assert not any(codes.is_bad(row["status"]) for row in host.rows(1))
        server.do(remove=True)
        await host.until(lambda: codes.is_bad(host.rows(0)[-1]["status"]))
        server.do(add="Int32", initial=5)
        await host.until(lambda: host.last(0) == 5)


async def test_access_that_is_revoked_and_given_back(server: ReadingServer) -> None:
    async with Collector(link(server.endpoint, device([server.node(4), server.node(1)]), item_retry=0.1)) as host:
        await host.until(lambda: host.last(0) in (7, 8) and host.rows(1))
        server.do(readable=False)
        await host.until(lambda: host.troubles())
        assert codes.is_bad(host.rows(0)[-1]["status"])
        assert "BadUserAccessDenied" in (host.troubles()[0][1] or "") or "BadNotReadable" in (
            host.troubles()[0][1] or ""
        )
        told = len(host.troubles())
        await host.until(lambda: len(host.troubles()) > told or host.adapter._link.monitored.items[0].pause > 0.3)  # type: ignore[union-attr]
        assert None not in [problem for _, problem in host.troubles()]  # an item that is made is not yet one that tells
        server.do(readable=True)
        await host.until(lambda: host.last(0) == 8 and host.troubles()[-1] == (0, None))


async def test_ten_thousand_items_and_one_that_is_wrong(server: ReadingServer) -> None:
    nodes = [server.node(FIRST + i) for i in range(MANY)]
    nodes[5_000] = server.node(999_999)
    spec = link(server.endpoint, device(nodes, period=0.25), timeout=20.0)
    async with Collector(spec) as host:
        last: dict[int, Any] = {}
        place = 0

        def caught_up(base: int) -> bool:
            nonlocal place
            for item in host.items[place:]:
                if isinstance(item, Samples):
                    last.update(zip(item.points, item.values, strict=True))
            place = len(host.items)
            return len(last) == MANY and all(last[i] == base + i for i in range(MANY) if i != 5_000)

        await host.until(lambda: caught_up(0), 60)
        assert [point for point, _ in host.troubles()] == [5_000]
        for base in (100_000, 200_000):
            server.do(bulk=base)
            await host.until(lambda: caught_up(base), 60)  # noqa: B023  waited for within the turn
        assert last[5_000] is None
        assert not host.lost()
        assert host.adapter.counters().errors == {}
