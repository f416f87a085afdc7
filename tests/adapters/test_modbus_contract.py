"""The contract of adapters, for Modbus TCP and for RTU frames over TCP."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from adapters.conformance import AdapterContract, Harness
from adapters.contract import LinkSpec
from adapters.modbus import ModbusAdapter
from tests.adapters.modbus_server import HOST, Server, Spec, holding


def nobody() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


class ModbusHarness(Harness):
    """A device with four registers and a float, and a listener that never answers."""

    adapter = ModbusAdapter

    def __init__(self, *, rtu: bool) -> None:
        self.rtu = rtu
        self.device = Server(rtu=rtu).holds(1, range(100, 110))
        self.deaf = Server(rtu=rtu, hook=lambda _: True)
        self._step = 0

    def _spec(self, port: int, *, bad: bool = False) -> LinkSpec:
        addresses = [holding(100), holding(101), holding(103, "int32"), holding(106, "float32", order="CDAB")]
        if bad:
            addresses.append(holding(110))
        return Spec(port, self.rtu).device(1, addresses).build()

    def spec(self, *, bad: bool = False) -> LinkSpec:
        return self._spec(self.device.port, bad=bad)

    def dead(self) -> LinkSpec:
        return self._spec(nobody())

    def silent(self) -> LinkSpec:
        return self._spec(self.deaf.port)

    async def change(self) -> None:
        self._step += 1
        self.device.holds(1, {address: address + 7 * self._step for address in range(100, 110)})

    async def cut(self) -> None:
        self.device.cut()

    async def down(self) -> None:
        await self.device.down()

    async def up(self) -> None:
        await self.device.up()

    async def open_links(self) -> int:
        return self.device.links + self.deaf.links


@pytest.fixture(params=["tcp", "rtu-over-tcp"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[ModbusHarness]:
    made = ModbusHarness(rtu=request.param == "rtu-over-tcp")
    async with made.device, made.deaf:
        yield made


class TestContract(AdapterContract):
    pass
