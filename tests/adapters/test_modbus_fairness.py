"""Five units on one line, two of them dead, in real time: over a pseudo-terminal and through a serial server. The servers' logs of what they
were asked, and when, say whether the others kept their period. (In virtual time, for hours: test_modbus_schedule.)"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from statistics import median

import pytest

from adapters.contract import DeviceState, LinkSpec, TransientError
from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _link, _unit
from tests.adapters.modbus_server import Ask, Running, Server, Spec, holding
from tests.adapters.modbus_slave import Slaves
from tests.servers.fault_proxy import FaultProxy
from tests.servers.waiting import eventually_async

PERIOD = 0.4
LIVING, DEAD = (1, 3, 5), (2, 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens a moment only; dead units are tried each second and not each minute, which is harder for the others."""
    monkeypatch.setattr(_link, "LISTEN", 0.05)
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.5)
    monkeypatch.setattr(_unit, "BACKOFF_MOST", 1.0)


def five_units() -> Spec:
    spec = Spec(0)
    for unit in range(1, 6):
        spec.device(unit, [holding(unit)], period=PERIOD, timeout=0.15)
    return spec


def kept(times: list[float]) -> None:
    """The period of one unit, by the times at which it was asked: on the whole within a tenth."""
    gaps = [after - before for before, after in pairwise(times)]
    assert 0.9 * PERIOD <= median(gaps) <= 1.1 * PERIOD, gaps
    assert (len(times) - 1) * PERIOD >= 0.85 * (times[-1] - times[0]), gaps  # a loaded machine may miss a slot


async def serial_line() -> None:
    """A pseudo-terminal of 19200 baud whose units take 20 ms."""
    words = {unit: {unit: 100 + unit} for unit in LIVING}
    async with Slaves(dict(words)) as slaves:

        def after_a_while(request: bytes, answer: bytes) -> bytes:
            if answer:
                slaves.later(0.02, answer)
            return b""

        slaves.hook = after_a_while
        settings = ModbusLinkSettings.model_validate({"serial": slaves.path, "baud": 19200})
        async with Running(ModbusAdapter(LinkSpec("line", settings, tuple(five_units().devices)))) as line:
            await line.until(lambda: all(len(line.samples(f"unit-{unit}")) >= 14 for unit in LIVING), timeout=30)
            asked = [(at, request[0]) for at, request in slaves.asks if request[1] == 3]
            judge(line, asked)
            slaves.units.update({unit: {unit: 100 + unit} for unit in DEAD})
            await line.until(lambda: all(line.samples(f"unit-{unit}") for unit in DEAD), timeout=30)


async def serial_server() -> None:
    """RTU frames over TCP."""

    async def after_a_while(ask: Ask) -> bool:
        await asyncio.sleep(0.02)
        return False

    async with Server(rtu=True, hook=after_a_while) as server:
        for unit in LIVING:
            server.holds(unit, range(10))
        spec = five_units()
        settings = ModbusLinkSettings(host="127.0.0.1", port=server.port, transport="rtu-over-tcp")
        async with Running(ModbusAdapter(LinkSpec("line", settings, tuple(spec.devices)))) as line:
            await line.until(lambda: all(len(line.samples(f"unit-{unit}")) >= 14 for unit in LIVING), timeout=30)
            judge(line, [(ask.at, ask.unit) for ask in server.asks if ask.function == 3])
            for unit in DEAD:
                server.holds(unit, range(10))
            await line.until(lambda: all(line.samples(f"unit-{unit}") for unit in DEAD), timeout=30)


def judge(line: Running, asked: list[tuple[float, int]]) -> None:
    """What the server's log says, after the first second, in which nobody is known to be dead."""
    begun = asked[0][0] + 1.0
    for unit in LIVING:
        kept([at for at, number in asked if number == unit and at > begun])
    for unit in DEAD:
        tries = sum(number == unit for _, number in asked)
        assert 2 <= tries <= 3 + (asked[-1][0] - asked[0][0]) / 0.5  # tried, and not all the time
        assert [state.up for state in line.states(f"unit-{unit}")] == [False]
    assert {item.device for item in line.items if isinstance(item, DeviceState)} == {f"unit-{unit}" for unit in DEAD}


async def test_three_of_five_units_keep_their_period_beside_two_dead_ones_which_come_back() -> None:
    async with asyncio.TaskGroup() as together:
        together.create_task(serial_line())
        together.create_task(serial_server())


async def test_a_one_off_read_is_the_next_request_on_a_line_that_is_never_idle() -> None:
    """The server's log: between the moment of asking and the read there is at most the request that was on the wire."""

    async def slowly(ask: Ask) -> bool:
        await asyncio.sleep(0.02)
        return False

    async with Server(rtu=True, hook=slowly) as server:
        spec = Spec(server.port, rtu=True)
        for unit in (1, 2, 3):
            server.holds(unit, range(2000))
            spec.device(unit, [holding(200 * n) for n in range(5)], period=0.05, max_gap=0, timeout=5.0)
        async with Running(ModbusAdapter(spec.build())) as line:
            await line.until(lambda: len(line.samples()) > 20)
            for n in range(10):
                before = len(server.asks)
                await line.adapter.read_registers(2, "holding", 1500 + n, 1, timeout=5.0)
                own = next(i for i, ask in enumerate(server.asks) if i >= before and ask.address == 1500 + n)
                assert own - before <= 1


@pytest.mark.parametrize("transport", ["tcp", "rtu-over-tcp"])
async def test_a_pulled_cable_is_found_within_two_periods(transport: str) -> None:
    """Half open: the connection stands, new ones are taken, and nothing comes."""
    async with Server(rtu=transport != "tcp") as server:
        with FaultProxy(server.port) as proxy:
            spec = Spec(proxy.port, rtu=transport != "tcp")
            for unit in (1, 2):
                server.holds(unit, range(10))
                spec.device(unit, [holding(unit)], period=1.5, timeout=0.15)
            async with Running(ModbusAdapter(spec.build())) as line:
                await line.until(lambda: line.samples("unit-1") and line.samples("unit-2"))
                last = max(sample.received for sample in line.samples())
                proxy.half_open()
                begun = asyncio.get_running_loop().time()
                error = await line.ended(20)
                assert asyncio.get_running_loop().time() - begun <= 2 * 1.5
                assert isinstance(error, TransientError)
                assert {state.device for state in line.items if isinstance(state, DeviceState)} == {"unit-1", "unit-2"}
                assert all(not s.up and s.at <= last for s in line.items if isinstance(s, DeviceState))
                proxy.restore()
                await line.adapter.disconnect()
                seen = len(line.samples())
                await eventually_async(lambda: again(line), 10, what="the link is back")
                await line.until(lambda: len(line.samples()) > seen + 1)


async def again(line: Running) -> bool:
    """Connects once more, as the host does after a while."""
    try:
        await line.adapter.connect()
    except TransientError:
        return False
    line.start()
    return True


async def test_the_second_address_takes_over_when_the_first_one_dies_in_service() -> None:
    async with Server() as first, Server() as second:
        first.holds(1, {0: 11})
        second.holds(1, {0: 22})
        with FaultProxy(first.port) as one, FaultProxy(second.port) as other:
            # two addresses of one device have the same port: the second is the same proxy's neighbour on another loopback address
            relay = await asyncio.start_server(
                lambda reader, writer: _relayed(reader, writer, other.port), "127.0.0.2", one.port
            )
            spec = Spec(one.port, settings={"host": ["127.0.0.1", "127.0.0.2"], "timeout": 1.0})
            spec.device(1, [holding(0)], period=0.1, timeout=0.2)
            async with Running(ModbusAdapter(spec.build())) as line:
                await line.until(lambda: (11, 0) in line.rows(0))
                one.refuse()
                one.cut()
                await line.ended()
                await line.adapter.disconnect()
                await eventually_async(lambda: again(line), 10)
                await line.until(lambda: (22, 0) in line.rows(0))
            relay.close()


async def _relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    onward, outward = await asyncio.open_connection("127.0.0.1", port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(4096):
                target.write(data)
        except ConnectionError:
            pass
        target.close()

    await asyncio.gather(copy(reader, outward), copy(onward, writer))
