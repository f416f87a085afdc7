"""Devices whose clocks are wrong: processes that live in another time, on two stacks. Live values get the gateway's time, the device's is kept
beside, and completeness is told in the gateway's."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from asyncua import Client

from adapters.opcua import _decode
from adapters.opcua._session import Session
from schemas.wire import Flag
from tests.adapters.opcua_host import Host, device
from tests.adapters.test_opcua_resumption import micros
from tests.servers.clocks import SkewedAsyncua, SkewedNodeOpcUa, WrongClock
from tests.servers.fault_proxy import FaultProxy

MINUTE = 60_000_000
HOUR = 60 * MINUTE
OFFSETS = {"10 min": 10 * MINUTE, "8 h": 8 * HOUR}
NUMBERS = itertools.count(1_000)
"""Values that the servers never had."""
NEAR = 30_000_000
"""µs that may pass between two looks at a clock, on a loaded machine."""
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared() -> Iterator[SkewedAsyncua]:
    server = SkewedAsyncua()
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


@pytest.fixture(params=["asyncua", "node-opcua"])
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts a server that is so much (µs) ahead."""
    with ExitStack() as stack:

        def started(ahead: int) -> WrongClock:
            if request.param == "asyncua":
                server: SkewedAsyncua = request.getfixturevalue("shared")
                server.set_clock(ahead)
                stack.callback(server.set_clock, 0)
                return server
            node = SkewedNodeOpcUa(tmp_path_factory.getbasetemp() / "node-opcua", ahead)
            stack.callback(node.kill)
            node.start()
            return node

        yield started


async def changed(host: Host, server: WrongClock, value: int, time: str | None = None) -> int:
    """Gives the variable a value, and waits until it is stored; its source time (µs)."""
    server.change(value, time)
    await host.until(lambda: host.last_value() == value)
    return await source_time(host, server, value)


async def source_time(host: Host, server: WrongClock, value: int) -> int:
    """The source time (µs) that the server says it gave the value; it may say so after the value has come."""

    def lines() -> list[str]:
        return [line["time"] for line in server.truth if value in (line.get("value"), *line.get("change", ()))]

    await host.until(lines)
    return micros(dt.datetime.fromisoformat(lines()[-1]))


def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How far CurrentTime and PublishTime were from the gateway's clock (µs), as the adapter got them."""
    found: dict[str, list[int]] = {"current": [], "publish": []}
    status, response = Session.server_status, _decode.Decoder.publish_response

    def now() -> int:
        return micros(dt.datetime.now(dt.UTC))

    async def server_status(self: Any) -> Any:
        answer = await status(self)
        found["current"].append(answer[0] - now())
        return answer

    def publish_response(self: Any, data: bytes) -> Any:
        answer = response(self, data)
        found["publish"].append(answer.message.publish_time - now())
        return answer

    monkeypatch.setattr(Session, "server_status", server_status)
    monkeypatch.setattr(_decode.Decoder, "publish_response", publish_response)
    return found


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
async def test_a_server_that_lives_in_another_time(start: Any, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over an outage, after which what was queued comes late."""
    server: WrongClock = await asyncio.to_thread(start, offset)
    *values, late = itertools.islice(NUMBERS, 6)
    times = heard(monkeypatch)
    sources: dict[int, int] = {}
    with FaultProxy(server.port) as proxy:
        endpoint = server.first["endpoint"].replace(f":{server.port}", f":{proxy.port}")
        async with Host(endpoint, device([server.node], type="int64", sampling=0)) as host:
            await host.until(lambda: host.complete_to() > 0)
            begin = host.clock.now()
            for value in values:
                sources[value] = await changed(host, server, value)
            await asyncio.to_thread(proxy.cut)
            server.change(late)
            await host.until(lambda: host.outages() == 1 and host.is_up())
            await host.until(lambda: host.last_value() == late)
            sources[late] = await source_time(host, server, late)
            now = host.clock.now()
            await host.until(lambda: host.complete_to() >= now)
            assert host.complete_to() <= host.clock.now()
        async with Client(server.first["endpoint"]) as client:
            uri, _, rest = server.node.removeprefix("nsu=").partition(";")
            index = await client.get_namespace_index(uri)
            read = await client.get_node(f"ns={index};{rest}").read_data_value()
    told = [*times["current"], *times["publish"]]
    if read.ServerTimestamp is not None:  # asyncua's server gives none with the value of a variable
        told.append(micros(read.ServerTimestamp) - micros(dt.datetime.now(dt.UTC)))
    assert times["current"]
    assert times["publish"]
    assert all(abs(each - offset) < NEAR for each in told), told
    live = [row for row in host.full_rows(0) if row["value"] in sources]
    assert [row["value"] for row in live] == list(sources)
    for row in live:
        assert row["flags"] & Flag.GATEWAY_TIME
        assert begin <= row["ts"] <= host.clock.now()
        assert abs(row["source"] - sources[row["value"]]) < 1_000  # node-opcua's own truth has milliseconds
        assert abs(row["source"] - row["ts"] - offset) < NEAR


async def test_a_clock_that_stands_still(start: Any) -> None:
    """While the server's own goes on: a device behind it, whose times it passes on. Every value is stored, and the device's times are not
    believed any more once they have stood for two seconds."""
    server: WrongClock = await asyncio.to_thread(start, 0)
    stands = dt.datetime.now(dt.UTC).replace(microsecond=0).isoformat()
    async with Host(server.first["endpoint"], device([server.node], type="int64", sampling=0)) as host:
        await host.until(lambda: host.complete_to() > 0)
        first = value = next(NUMBERS)
        await changed(host, server, first, stands)
        while not host.full_rows(0)[-1]["flags"] & Flag.GATEWAY_TIME:
            value = next(NUMBERS)
            await changed(host, server, value, stands)
            await asyncio.sleep(0.2)
        rows = host.full_rows(0)
        assert [row["value"] for row in rows if row["value"] >= first] == list(range(first, value + 1))
        keys = [(row["ts"], row["n"]) for row in rows]
        assert len(set(keys)) == len(keys)
        source = micros(dt.datetime.fromisoformat(stands))
        before = [row for row in rows if row["value"] >= first and not row["flags"] & Flag.GATEWAY_TIME]
        assert {row["ts"] for row in before} == {source}
        assert rows[-1]["source"] == source
        assert abs(rows[-1]["ts"] - host.clock.now()) < NEAR


async def test_a_clock_that_is_set_while_it_is_listened_to(shared: SkewedAsyncua) -> None:
    """Ahead and back again: completeness goes on in the gateway's time, and never runs ahead of it."""
    async with Host(shared.first["endpoint"], device([shared.node], type="int64"), heartbeat=0.1) as host:
        await host.until(lambda: host.complete_to() > 0)
        for ahead in (8 * HOUR, 0, -8 * HOUR, 0):
            await asyncio.to_thread(shared.set_clock, ahead)
            await changed(host, shared, next(NUMBERS))
            now = host.clock.now()
            await host.until(lambda: host.complete_to() >= now)  # noqa: B023  waited for within the turn
            assert host.complete_to() <= host.clock.now()
        assert host.outages() == 0
        assert not host.gaps()
