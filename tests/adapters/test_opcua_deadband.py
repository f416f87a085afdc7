"""Deadbands at the server: only where a server has shown that they keep slow drifts, and never on top of the gateway's own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from adapters.contract import DeadbandHeld, DeviceSpec
from adapters.opcua._deadband import Judge
from schemas.profile import Group
from tests.adapters.foreign_reading import ReadingServer
from tests.adapters.opcua_collector import Collector, link, node
from tests.adapters.opcua_server import SmallServer, ua
from tests.adapters.test_opcua_modes import grouped

PERIOD = 0.05


def drift(judge: Judge, tells: Any, steps: int = 60, step: float = 0.4) -> bool | None:
    """A slow drift of 0.4 deadbands a reading; `tells(before, told, value)` says whether the server reports."""
    told = before = 0.0
    verdict = judge.look(0.0, [0.0])
    for i in range(1, steps):
        value = i * step
        news = []
        if tells(before, told, value):
            told = value
            news = [value]
        before = value
        verdict = judge.look(value, news)
        if verdict is not None:
            return verdict
    return verdict


def test_a_server_that_compares_with_its_last_report_is_trusted() -> None:
    assert drift(Judge(1.0), lambda _, told, value: abs(value - told) > 1.0) is True


def test_a_server_that_compares_with_the_value_before_is_not() -> None:
    assert drift(Judge(1.0), lambda before, _, value: abs(value - before) > 1.0) is False


def test_a_server_that_ignores_the_filter_is_not() -> None:
    assert drift(Judge(1.0), lambda *_: True) is False


def test_jumps_and_stillness_say_nothing() -> None:
    judge = Judge(1.0)
    assert judge.look(0.0, [0.0]) is None
    for i in range(1, 50):
        assert judge.look(i * 10.0, [i * 10.0]) is None
    for _ in range(50):
        assert judge.look(490.0, []) is None
    assert Judge(1.0).look(5.0, []) is None


def banded(addresses: list[dict[str, Any] | str], band: float, **rules: Any) -> DeviceSpec:
    spec = grouped(addresses, Group(period=PERIOD), **rules)
    return replace(spec, points=tuple(replace(point, deadband=band) for point in spec.points))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingServer]:
    running = ReadingServer(tmp_path_factory.getbasetemp() / "node-opcua-reading")
    running.start()
    yield running
    running.stop()


async def test_node_opcua_keeps_slow_drifts_and_is_used(foreign: ReadingServer) -> None:
    host = Collector(link(foreign.endpoint, banded([foreign.node(1), foreign.node(4)], 1.0)))
    async with host:
        await host.until(lambda: host.rows(0) and host.rows(1))
        value = 50.0
        for _ in range(200):
            value += 0.2
            await asyncio.to_thread(foreign.do, value=value)
            await asyncio.sleep(PERIOD / 2)
            if host.adapter._limits.deadbands is not None and len(host.of(DeadbandHeld)) > 1:
                break
        assert host.adapter._limits.deadbands is True
        await host.until(lambda: {p for held in host.of(DeadbandHeld) if held.held for p in held.points} == {0, 1})
        assert not host.lost()
        told = host.values(0)
        assert max(abs(a - b) for a, b in itertools.pairwise(told)) < 3
        before = len(told)
        await asyncio.to_thread(foreign.do, value=value + 10)
        await host.until(lambda: host.last(0) == value + 10)
        for i in range(5):
            await asyncio.to_thread(foreign.do, value=value + 10 + i * 0.1)
        await asyncio.to_thread(foreign.do, value=value + 20)
        await host.until(lambda: host.last(0) == value + 20)
        assert len(host.values(0)) == before + 2
    async with host:  # remembered: no new trial
        await host.until(lambda: host.rows(0) and host.rows(1))
        assert [held.held for held in host.of(DeadbandHeld)] == []
        assert host.adapter._link is not None
        assert all(item.filtered for item in host.adapter._link.monitored.items.values())


async def test_asyncuas_server_loses_slow_drifts_and_is_not_used() -> None:
    with SmallServer() as server:
        server.add("level", 0.0, ua.VariantType.Double)
        async with Collector(link(server.endpoint, banded([node("level"), node("v0")], 1.0))) as host:
            await host.until(lambda: host.rows(0) and host.rows(1))
            value = 0.0
            for _ in range(200):
                value += 0.4
                server.write("level", value, ua.VariantType.Double)
                await asyncio.sleep(PERIOD / 2)
                if host.adapter._limits.deadbands is not None:
                    break
            assert host.adapter._limits.deadbands is False
            await host.until(lambda: [(held.held) for held in host.of(DeadbandHeld)] == [True, False])
            for i in range(1, 4):  # smaller than the deadband: the gateway decides
                server.write("level", value + i * 0.1, ua.VariantType.Double)
            await host.until(lambda: host.last(0) == value + 3 * 0.1)
            told = host.values(0)
            assert max(abs(a - b) for a, b in itertools.pairwise(told)) < 8


async def test_a_profile_may_keep_deadbands_in_the_gateway(foreign: ReadingServer) -> None:
    spec = banded([foreign.node(1)], 1.0, deadband="gateway")
    async with Collector(link(foreign.endpoint, spec)) as host:
        await host.until(lambda: host.rows(0))
        for value in (1.0, 1.1, 1.2):
            await asyncio.to_thread(foreign.do, value=50 + value)
        await host.until(lambda: host.last(0) == 51.2)
        assert not host.of(DeadbandHeld)
