"""Selectors (function 23) and the question who a device is (43/14), as pymodbus's server understands them, in every framing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from adapters.contract import Identity
from adapters.modbus import ModbusAdapter
from tests.adapters.modbus_server import Running, Spec, holding
from tests.servers.processes import HOST

MAKER = {0: "ACME", 1: "M1", 2: "2.4", 3: "https://example.org", 4: "Meter", 5: "M1-3P"}
TOLD = {
    "vendor": "ACME", "product": "M1", "revision": "2.4", "url": "https://example.org", "product_name": "Meter", "model": "M1-3P",
}  # fmt: skip
FRAMERS = {
    "tcp": FramerType.SOCKET, "rtu-over-tcp": FramerType.RTU, "ascii-over-tcp": FramerType.ASCII, "udp": FramerType.SOCKET,
}  # fmt: skip


@contextlib.asynccontextmanager
async def served(transport: str) -> AsyncIterator[int]:
    """Unit 1 with forty holding registers and a name. Gives its port."""
    device = SimDevice(1, [SimData(0, values=list(range(100, 140)), datatype=DataType.REGISTERS)])
    kind: Any = ModbusUdpServer if transport == "udp" else ModbusTcpServer
    server = kind(
        device, address=(HOST, 0), framer=FRAMERS[transport], identity=ModbusDeviceIdentification(info=dict(MAKER))
    )
    await server.serve_forever(background=True)
    try:
        held = server.transport
        sock = held.get_extra_info("socket") if transport == "udp" else held.sockets[0]
        yield sock.getsockname()[1]
    finally:
        await server.shutdown()


@pytest.mark.parametrize("transport", list(FRAMERS))
async def test_pymodbus_writes_the_selector_and_says_who_it_is(transport: str) -> None:
    addresses = [holding(4), holding(8, select="8=3"), holding(8, select="8=700"), holding(9, select="8=3")]
    async with served(transport) as port:
        spec = Spec(port, settings={"transport": transport}).device(
            1, addresses, period=0.05, timeout=2.0, identification=True
        )
        async with Running(ModbusAdapter(replace(spec.build(), writes=True))) as line:
            await line.until(lambda: all(len(line.rows(point)) >= 3 for point in range(4)))
            await line.until(lambda: any(isinstance(item, Identity) for item in line.items))
    assert [set(line.rows(point)) for point in range(4)] == [{(104, 0)}, {(3, 0)}, {(700, 0)}, {(109, 0)}]
    told = [dict(item.told) for item in line.items if isinstance(item, Identity)]
    assert told == [TOLD]
