"""Three foreign stacks (libmodbus, npm's modbus-serial, pymodbus) over lines that break in every way: after each, what is stored and what
the servers say that they answered agree, within recorded gaps."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus.simulator import DataType, SimData, SimDevice

from schemas.wire import Cause
from tests.adapters.modbus_host import MangledLine, MangledTcp, ModbusHost, device
from tests.adapters.modbus_server import holding
from tests.adapters.opcua_host import Served
from tests.adapters.test_modbus_servers import pymodbus_server
from tests.servers.fault_proxy import FaultProxy
from tests.servers.foreign import LibmodbusServer, LibmodbusUnit, ModbusSerialServer
from tests.servers.processes import HOST
from tests.servers.waiting import eventually_async

LONG = bool(os.environ.get("LONG"))
TURNS = 120 if LONG else 6
pytestmark = pytest.mark.timeout(3_600 if LONG else 120)
COUNTER = holding(120, "uint32", order="CDAB")
"""Of the libmodbus server."""
READS = holding(90)
"""Of modbus-serial and pymodbus: how often it has been read."""
Log = Callable[[], list[Served]]


def told_by_libmodbus(server: LibmodbusServer) -> list[Served]:
    answers = [t for t in list(server.truth) if t.get("address") == 120 and "values" in t]
    return [(t["time"], t["values"][1] << 16 | t["values"][0]) for t in answers]


def told_by_modbus_serial(server: ModbusSerialServer) -> list[Served]:
    answers = [t for t in list(server.truth) if t.get("table") == "holding" and t["address"] == 90 and "values" in t]
    return [(t["time"], t["values"][0]) for t in answers if t["unit"] == 1]


def settled(host: ModbusHost, log: Log) -> Callable[[], bool]:
    """What is answered from now on is stored again."""
    since = len(log())

    def look() -> bool:
        newest = {value for _, value in log()[since:]}
        return host.is_up() and any(value in newest for _, value in host.rows()[0][-5:])

    return look


async def well(host: ModbusHost, log: Log) -> None:
    """The line is whole again: new values are stored, and complete up to now."""
    await host.until(settled(host, log))
    now = host.clock.now()
    await host.until(lambda: host.complete_to() >= now)


async def agrees(host: ModbusHost, log: Log) -> None:
    """What was stored up to now and what was served agree. A server tells what it answered a moment later."""
    now = host.clock.now()
    await host.until(lambda: log()[-1][0] > now + 5_000)
    later = log()[-1][0]
    await host.until(lambda: host.complete_to() >= later)  # what was on its way at `now` has come
    host.agree(log(), until=now)


# ----------------------------------------------------------------------------------------------------- through the proxy


@asynccontextmanager
async def pymodbus_counting() -> AsyncIterator[tuple[int, Log]]:
    served: list[Served] = []

    async def count(function: int, start: int, address: int, count: int, registers: list[int], values: Any) -> None:
        if function == 3 and values is None:
            registers[90 - start] = len(served) + 1
            served.append((time.time_ns() // 1000, len(served) + 1))

    words = [SimData(0, count=100, values=0, datatype=DataType.REGISTERS)]
    async with pymodbus_server(SimDevice(1, words, action=count)) as port:  # type: ignore[arg-type]
        yield port, lambda: list(served)


@pytest.fixture(params=["libmodbus", "modbus-serial", "pymodbus"])
async def stack(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, int, Log]]:
    """A signal, the port of a server that has it, and what that server says that it answered."""
    if request.param == "pymodbus":
        async with pymodbus_counting() as (port, log):
            yield READS, port, log
    elif request.param == "libmodbus":
        server: LibmodbusServer = request.getfixturevalue("libmodbus_server")
        server.count(10)
        yield COUNTER, server.port, lambda: told_by_libmodbus(server)
    else:
        other: ModbusSerialServer = request.getfixturevalue("modbus_serial_server")
        yield READS, other.port, lambda: told_by_modbus_serial(other)


async def test_cut_half_open_and_stalled(stack: tuple[Any, int, Log]) -> None:
    address, port, log = stack
    chance = random.Random(11)
    with FaultProxy(port) as proxy:
        async with ModbusHost(device(address), host=proxy.host, port=proxy.port) as host:
            await well(host, log)
            for turn in range(TURNS):
                fault = (
                    ("cut", "half_open", "stall", "refuse")[turn % 4]
                    if turn < 4
                    else chance.choice(["cut", "half_open", "stall"])
                )
                before = host.outages()
                if fault == "cut":
                    proxy.cut()
                    await host.until(lambda: host.outages() > before)  # noqa: B023  waited for within the turn
                elif fault == "half_open":
                    proxy.half_open()
                    await host.until(lambda: host.outages() > before)  # noqa: B023  waited for within the turn
                elif fault == "refuse":
                    proxy.refuse()
                    proxy.cut()
                    await host.until(lambda: not host.is_up())
                else:
                    proxy.delay(chance.uniform(0.05, 0.25))  # more and less than the time-out
                    await asyncio.sleep(chance.uniform(0.1, 0.6))
                proxy.restore()
                await well(host, log)
                await agrees(host, log)
            assert host.outages() >= 3
    assert {gap.cause for gap in host.gaps()} <= {Cause.DISCONNECTED.value, Cause.OVERRUN.value}


def manglings(chance: random.Random) -> list[Callable[[bytes], bytes]]:
    """What becomes of answers on their way. None of it can be taken for another value: Modbus TCP has no checksum, so its data
    bytes are left alone."""
    noise = bytes(chance.randrange(256) for _ in range(7))
    return [
        lambda data: noise + data,  # in front
        lambda data: data[: len(data) // 2],  # half a frame
        lambda data: data + data,  # twice
        lambda data: b"",  # none
        lambda data: data[:5] + b"\x00" + data[6:],  # a length that is wrong
        lambda data: bytes((data[0] ^ 0x40,)) + data[1:],  # another transaction's
        lambda data: data[:6] + bytes((9,)) + data[7:],  # of another unit
        lambda data: data[:7] + bytes((4,)) + data[8:],  # of another function
    ]


async def test_garbage(stack: tuple[Any, int, Log]) -> None:
    address, port, log = stack
    chance = random.Random(5)
    async with MangledTcp(port) as line, ModbusHost(device(address), host=HOST, port=line.port) as host:
        await well(host, log)
        for mangle in manglings(chance) * (10 if LONG else 1):
            seen = 0

            def count(data: bytes, mangle: Callable[[bytes], bytes] = mangle) -> bytes:
                nonlocal seen
                seen += 1
                return mangle(data) if seen % 3 else data  # two of three answers

            line.mangle = count
            await eventually_async(lambda: seen >= 4, what="some answers are mangled")  # noqa: B023  waited for within the turn
            line.mangle = bytes
            await well(host, log)
            await agrees(host, log)


async def test_libmodbus_killed_and_started(libmodbus_server: LibmodbusServer) -> None:
    server = libmodbus_server
    server.count(10)

    def log() -> list[Served]:
        return told_by_libmodbus(server)

    async with ModbusHost(device(COUNTER), host=server.host, port=server.port) as host:
        await well(host, log)
        for turn in range(TURNS // 3):
            await asyncio.to_thread(server.kill)
            await host.until(lambda: not host.is_up())
            await asyncio.to_thread(server.start)
            server.set("holding", 121, 1000 + turn)  # numbers that it never had
            server.count(10)
            await well(host, log)
            await agrees(host, log)
        assert host.outages() >= TURNS // 3


# ------------------------------------------------------------------------------------------------------------- a serial line


@pytest.fixture
async def line() -> AsyncIterator[MangledLine]:
    async with MangledLine() as made:
        yield made


@pytest.fixture
def unit(line: MangledLine, libmodbus_program: Path) -> Iterator[LibmodbusUnit]:
    server = LibmodbusUnit(libmodbus_program, line.far_path)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server


async def test_libmodbus_on_a_serial_line(
    line: MangledLine, unit: LibmodbusUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.modbus._link.LISTEN", 0.05)
    unit.count(10)
    chance = random.Random(3)

    def log() -> list[Served]:
        return told_by_libmodbus(unit)

    def flipped(data: bytes) -> bytes:
        at = chance.randrange(len(data))
        return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]

    faults: list[Callable[[bytes], bytes]] = [
        flipped,
        lambda data: b"\xff\x00\x01" + data,
        lambda data: data[: chance.randrange(len(data))],
        lambda data: data + data,
        lambda data: b"",
    ]
    async with ModbusHost(device(COUNTER), serial=line.path, baud=115200) as host:
        await well(host, log)
        for fault in faults * (20 if LONG else 1):
            seen = 0

            def count(data: bytes, fault: Callable[[bytes], bytes] = fault) -> bytes:
                nonlocal seen
                seen += 1
                return fault(data) if seen % 3 else data

            line.mangle = count
            await eventually_async(lambda: seen >= 4, what="some answers are mangled")  # noqa: B023  waited for within the turn
            line.mangle = bytes
            await well(host, log)
            await agrees(host, log)
        before = host.outages()
        line.cut = True
        await host.until(lambda: host.outages() > before)
        line.cut = False
        await well(host, log)
        line.say(bytes(chance.randrange(256) for _ in range(40)))  # noise while nothing is asked, or in an answer
        await well(host, log)
        await agrees(host, log)
        errors = host.host.counters().errors
    assert errors["timeout"] >= 3
