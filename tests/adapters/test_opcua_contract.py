"""The OPC UA adapter passes the contract tests of every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from adapters.conformance import AdapterContract, Harness
from adapters.contract import DeviceSpec, LinkSpec, Point
from adapters.opcua import DeviceSettings, LinkSettings, OpcUaAdapter
from schemas.profile import OpcUaAddress, OpcUaRules
from tests.adapters.opcua_server import MACHINE, SIZE, SmallServer
from tests.servers.fault_proxy import FaultProxy
from tests.servers.processes import free_port

PERIOD = 0.05


def link_spec(endpoint: str, *, bad: bool = False, timeout: float = 3.0) -> LinkSpec:
    nodes = [f"nsu={MACHINE};s=v{i}" for i in range(SIZE)]
    if bad:
        nodes.append(f"nsu={MACHINE};s=missing")
    points = tuple(Point(i, "press", f"v{i}", "fast", OpcUaAddress(node=node), "int64") for i, node in enumerate(nodes))
    device = DeviceSpec("press", DeviceSettings(), OpcUaRules(), {"fast": PERIOD}, points)
    settings = LinkSettings.model_validate({"endpoint": endpoint, "security": "none", "timeout": timeout})
    return LinkSpec("link", settings, (device,))


class OpcUaHarness(Harness):
    adapter = OpcUaAdapter

    def __init__(self, server: SmallServer, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self.silent_links: set[asyncio.StreamWriter] = set()
        self.silent_port = 0

    async def listen(self) -> asyncio.Server:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.silent_links.add(writer)
            while await reader.read(1024):
                pass
            self.silent_links.discard(writer)
            writer.close()

        listener = await asyncio.start_server(hold, "127.0.0.1", 0)
        self.silent_port = listener.sockets[0].getsockname()[1]
        return listener

    def spec(self, *, bad: bool = False) -> LinkSpec:
        return link_spec(f"opc.tcp://127.0.0.1:{self.proxy.port}/", bad=bad)

    def dead(self) -> LinkSpec:
        return link_spec(f"opc.tcp://127.0.0.1:{free_port()}/")

    def silent(self) -> LinkSpec:
        return link_spec(f"opc.tcp://127.0.0.1:{self.silent_port}/", timeout=0.5)

    async def change(self) -> None:
        self.server.write_all()

    async def cut(self) -> None:
        self.proxy.cut()

    async def down(self) -> None:
        self.proxy.refuse()
        self.proxy.cut()

    async def up(self) -> None:
        self.proxy.restore()

    async def open_links(self) -> int:
        return self.server.sessions() + self.server.connections() + len(self.silent_links)


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture
async def harness(server: SmallServer) -> AsyncIterator[OpcUaHarness]:
    with FaultProxy(server.port) as proxy:
        made = OpcUaHarness(server, proxy)
        listener = await made.listen()
        yield made
        server.end_sessions()
        listener.close()
        await listener.wait_closed()


class TestContract(AdapterContract):
    pass
