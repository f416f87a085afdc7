"""Sessions: never more than one of ours on a server, whose name says whose it is; redundant servers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from adapters.conformance import eventually
from adapters.contract import LinkSpec, TransientError
from adapters.opcua import OpcUaAdapter
from adapters.opcua._session import Session
from tests.adapters.opcua_collector import Collector, device, link, node
from tests.adapters.opcua_server import SmallServer
from tests.servers.processes import free_port

SERVICE_LEVEL = ua.NodeId(2267)


class Server(SmallServer):
    """Remembers the names of the sessions that were made, and how many there were at once at most."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.most = 0

    def _spy(self) -> None:
        super()._spy()
        iserver = self.server.iserver
        create = iserver.create_session

        def spy(name: str, *args: Any, **kwargs: Any) -> Any:
            session = create(name, *args, **kwargs)
            self.names.append(name)
            original = session.create_session

            async def created(params: Any, *more: Any, **others: Any) -> Any:
                self.names[-1] = params.SessionName
                result = await original(params, *more, **others)
                self.most = max(self.most, self.sessions())
                return result

            session.create_session = created
            return session

        iserver.create_session = spy

    def worth(self, level: int) -> None:
        """Sets ServiceLevel."""
        value = ua.DataValue(ua.Variant(level, ua.VariantType.Byte))
        self.run(self.server.write_attribute_value(SERVICE_LEVEL, value))


@pytest.fixture(scope="module")
def first() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def pair(first: Server, second: Server) -> tuple[Server, Server]:
    for one in (first, second):
        one.worth(255)
        one.state(0)
    return first, second


def redundant(*servers: Server | str, **settings: Any) -> LinkSpec:
    endpoints = [one if isinstance(one, str) else one.endpoint for one in servers]
    more: dict[str, Any] = {"heartbeat": 0.1, "alternatives": tuple(endpoints[1:]), **settings}
    pki = more.pop("pki", None)
    made = link(endpoints[0], device([node("v3")]), **more)
    return dataclasses.replace(made, id="press-1", gateway="box", pki=None if pki is None else Path(pki))


async def few(server: Server, most: int) -> None:
    """Waits until the server has at most so many sessions."""

    async def ended() -> bool:
        return server.sessions() <= most

    await eventually(ended, f"at most {most} sessions, there are {server.sessions()}")


# ------------------------------------------------------------------------------------------------------------ one session


async def test_fifty_restarts_leave_no_session_behind(first: Server) -> None:
    first.most = 0
    first.names.clear()
    spec = redundant(first)
    for turn in range(50):
        adapter = OpcUaAdapter(spec)
        if turn % 3 == 2:  # stopped while it connects, at ever later moments
            task = asyncio.create_task(adapter.connect())
            await asyncio.wait([task], timeout=0.0005 * turn)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            await adapter.connect()
        await adapter.disconnect()
    await few(first, 0)
    assert first.most == 1
    assert set(first.names) == {"guantong/box/press-1"}


async def test_a_link_that_breaks_again_and_again_keeps_to_one_session(first: Server) -> None:
    first.most = 0
    adapter = OpcUaAdapter(redundant(first))
    for _ in range(20):
        await adapter.connect()
        opened: Any = adapter._link
        opened.session._client.uaclient.protocol.transport.abort()
        async with asyncio.timeout(10):
            with pytest.raises(TransientError):
                async for _ in adapter.items():
                    pass
    await adapter.connect()
    assert first.sessions() == 1
    await adapter.disconnect()
    await few(first, 0)
    assert first.most == 1


KILLED = """
import asyncio, os, signal, sys
from tests.adapters.test_opcua_sessions import redundant
from adapters.opcua import OpcUaAdapter
from adapters.opcua import _activation
if sys.argv[2] == "between":
    async def activate(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    _activation.activate = activate
async def main():
    adapter = OpcUaAdapter(redundant(sys.argv[1], session_timeout=5, pki=sys.argv[3]))
    await adapter.connect()
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def killed(server: Server, when: str, pki: Path) -> None:
    """A process that connects and is killed: `between` CreateSession and ActivateSession, or `after` it is connected."""
    command = [sys.executable, "-c", KILLED, server.endpoint, when, str(pki)]
    child = await asyncio.to_thread(
        subprocess.run, command, cwd=Path(__file__).parents[2], env=dict(os.environ), check=False
    )
    assert child.returncode == -signal.SIGKILL


async def test_the_session_of_a_killed_process_is_closed_by_the_next(first: Server, tmp_path: Path) -> None:
    first.most = 0
    for _ in range(2):
        await killed(first, "after", tmp_path)
        assert first.sessions() == 1
    async with Collector(redundant(first, pki=tmp_path)) as host:
        await host.until(lambda: host.last(0) is not None)
        assert first.sessions() == 1
        # while this one lives, no other process of the gateway takes its session
        async with Collector(redundant(first, pki=tmp_path)) as other:
            await other.until(lambda: other.last(0) is not None)
            assert first.sessions() == 2
        first.write_all()
        await host.until(lambda: len(host.values(0)) > 1)
    await few(first, 0)
    assert [path.read_bytes() for path in (tmp_path / "sessions").iterdir()] == [b""]


async def test_a_session_that_was_killed_while_it_began_ends_by_itself(first: Server, tmp_path: Path) -> None:
    await killed(first, "between", tmp_path)
    async with Collector(redundant(first, pki=tmp_path)) as host:
        await host.until(lambda: host.last(0) is not None)
        await few(first, 1)
        first.write_all()
        await host.until(lambda: len(host.values(0)) > 1)  # ours is not the one that was ended
    await few(first, 0)


@pytest.mark.parametrize("kept", [b"nonsense", b"\x95\xa1x", b"\x00" * 100])
async def test_a_torn_file_costs_no_connection(first: Server, tmp_path: Path, kept: bytes) -> None:
    adapter = OpcUaAdapter(redundant(first, pki=tmp_path))
    await adapter.connect()
    await adapter.disconnect()
    (file,) = (tmp_path / "sessions").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(kept)
    await adapter.connect()
    await adapter.disconnect()
    assert file.read_bytes() == b""


# ------------------------------------------------------------------------------------------------------- redundant servers


async def test_the_first_that_answers_is_used(pair: tuple[Server, Server]) -> None:
    first, second = pair
    nobody = f"opc.tcp://127.0.0.1:{free_port()}/"
    async with Collector(redundant(nobody, second, first)) as host:
        await host.until(lambda: host.last(0) is not None)
        assert host.adapter.endpoint("press") == second.endpoint
        assert (first.sessions(), second.sessions()) == (0, 1)


async def test_the_healthy_one_is_preferred(pair: tuple[Server, Server]) -> None:
    first, second = pair
    first.worth(150)
    async with Collector(redundant(first, second)) as host:
        assert host.adapter.endpoint("press") == second.endpoint
        assert (first.sessions(), second.sessions()) == (0, 1)
    second.worth(100)
    async with Collector(redundant(second, first)) as host:
        assert host.adapter.endpoint("press") == first.endpoint
        assert (first.sessions(), second.sessions()) == (1, 0)


async def test_a_server_that_becomes_worse_than_another_is_left(pair: tuple[Server, Server]) -> None:
    first, second = pair
    async with Collector(redundant(first, second)) as host:
        await host.until(lambda: host.last(0) is not None)
        assert host.adapter.endpoint("press") == first.endpoint
        first.worth(199)
        error = await host.fails()
        assert isinstance(error, TransientError)
        assert (error.reason, error.retry_after) == ("service_level_low", 0.0)
        assert second.endpoint in str(error)
        await host.connect()
        await host.until(lambda: host.last(0) is not None)
        assert host.adapter.endpoint("press") == second.endpoint


async def test_a_server_that_becomes_worse_stays_if_there_is_no_better_one(pair: tuple[Server, Server]) -> None:
    first, second = pair
    second.worth(10)
    async with Collector(redundant(first, second)) as host:
        await host.until(lambda: host.last(0) is not None)
        before = len(second.names)
        first.worth(100)
        await host.until(lambda: len(second.names) >= before + 2)  # it was asked, and again
        first.write_all()
        await host.until(lambda: len(host.values(0)) > 1)
        assert host.error is None
        assert host.adapter.endpoint("press") == first.endpoint


async def test_an_announced_shutdown_is_followed_at_once(pair: tuple[Server, Server]) -> None:
    first, second = pair
    async with Collector(redundant(first, second)) as host:
        await host.until(lambda: host.last(0) is not None)
        first.state(4)
        error = await host.fails()
        assert isinstance(error, TransientError)
        assert (error.reason, error.retry_after) == ("server_shutdown", 0.0)
        await host.connect()
        assert host.adapter.endpoint("press") == second.endpoint


async def test_when_nobody_answers_each_is_named() -> None:
    ports = [free_port(), free_port()]
    adapter = OpcUaAdapter(redundant(*(f"opc.tcp://127.0.0.1:{port}/" for port in ports)))
    with pytest.raises(TransientError) as caught:
        await adapter.connect()
    assert caught.value.reason == "refused"
    assert all(str(port) in str(caught.value) for port in ports)


async def test_partners_that_nobody_configured_are_a_hint(
    pair: tuple[Server, Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Session.read

    async def told(self: Session, nodes: Any, *args: Any, **others: Any) -> Any:
        if [n.Identifier for n in nodes] == [3709, 11314]:
            return [(2, 0, None, None), (["urn:a", "urn:b"], 0, None, None)]
        return await read(self, nodes, *args, **others)

    monkeypatch.setattr(Session, "read", told)
    async with Collector(redundant(pair[0])) as host:
        await host.until(lambda: any("urn:b" in record.message for record in caplog.records))
