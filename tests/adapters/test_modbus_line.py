"""The schedule of a link: dead units, refused addresses, slow lines, slow consumers, the end of a connection."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest

from adapters.contract import AuthError, ConfigError, DeviceState, Lost, Samples, TransientError
from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _device, _line, _link, _unit
from adapters.modbus._device import Scan
from schemas.profile import ModbusAddress
from schemas.status import (
    BAD_CONFIGURATION_ERROR,
    BAD_DEVICE_FAILURE,
    BAD_NO_COMMUNICATION,
    BAD_NODE_ID_UNKNOWN,
    BAD_SERVER_TOO_BUSY,
    BAD_SERVICE_UNSUPPORTED,
)
from tests.adapters.modbus_server import Ask, Running, Server, Spec, holding
from tests.servers.waiting import eventually_async


@pytest.fixture(params=["tcp", "rtu-over-tcp"])
def rtu(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "rtu-over-tcp")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off and quarantine in tenths of seconds, without chance."""
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.1)
    monkeypatch.setattr(_unit, "BACKOFF_MOST", 0.4)
    monkeypatch.setattr(_line, "_JITTER", 0.0)
    monkeypatch.setattr(_device, "PROBE_FIRST", 0.1)


def running(spec: Spec) -> Running:
    return Running(ModbusAdapter(spec.build()))


# ------------------------------------------------------------------------------------------------------------ the grid


def test_the_grid_does_not_drift_and_missed_slots_are_not_bunched() -> None:
    scan = Scan("fast", 0.5, {}, due=10.0)
    assert scan.advance(10.3) == 0
    assert scan.due == 10.5
    assert scan.advance(10.999) == 0  # late, yet within the slot that has begun at 10.5: the next one is due at once
    assert scan.due == 11.0
    assert scan.advance(13.2) == 3  # 11.5, 12.0 and 12.5 are over, 13.0 is served late, once
    assert scan.due == 13.0
    assert scan.advance(13.2) == 0
    assert scan.due == 13.5


async def test_overruns_are_counted_and_the_line_is_asked_no_faster(quick: None) -> None:
    async def slow(ask: Ask) -> bool:
        await asyncio.sleep(0.06)
        return False

    async with Server(hook=slow).holds(1, range(10)) as server:
        spec = Spec(server.port).device(1, [holding(0)], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: line.adapter.counters().overruns >= 5)
            asked, got = len(server.asks), len(line.samples())
            assert asked - got <= 2  # one request at a time, none sent ahead
            assert line.adapter.counters().requests == asked + len(server.questions)
            assert not line.states("unit-1")


async def test_units_take_turns_request_by_request() -> None:
    """A unit with a scan of forty requests does not make a unit with one request wait for forty."""

    async def slow(ask: Ask) -> bool:
        await asyncio.sleep(0.003)  # longer than both periods: both units always have something to do
        return False

    async with Server(hook=slow).holds(1, range(400)).holds(2, range(10)) as server:
        spec = Spec(server.port)
        spec.device(1, [holding(10 * n) for n in range(40)], max_gap=0, period=0.001)
        spec.device(2, [holding(5)], period=0.001)
        async with running(spec) as line:
            await line.until(lambda: len(line.samples("unit-2")) >= 60)
        units = [ask.unit for ask in server.asks[5:100]]
        longest = max(len(run) for run in "".join(map(str, units)).split("2"))
        assert longest <= 2


async def test_complete_to_comes_with_the_last_block_of_a_scan() -> None:
    async with Server().holds(1, range(300)).holds(1, {7: 1}, function=1) as server:
        coil = ModbusAddress(table="coil", address=7, type="bool")
        spec = Spec(server.port).device(1, [holding(0), holding(100), coil, holding(200)], period=0.05)
        async with running(spec) as line:
            await line.until(lambda: sum(s.complete_to is not None for s in line.samples()) >= 2)
        rows = line.samples()[:8]
        assert [s.complete_to is not None for s in rows] == [False, False, False, True] * 2
        assert all(s.complete_to in (None, s.received) and s.source_ts is None for s in rows)
        assert sorted(p for s in rows[:4] for p in s.points) == [0, 1, 2, 3]
        assert line.rows(2)[0] == (True, 0)
        assert line.adapter.counters().values >= 8


async def test_groups_of_a_device_keep_their_own_periods() -> None:
    async with Server().holds(1, range(300)) as server:
        spec = Spec(server.port).device(
            1, {"fast": [holding(0)], "slow": [holding(1)]}, period={"fast": 0.02, "slow": 3600.0}
        )
        async with running(spec) as line:
            await line.until(lambda: sum(s.group == "fast" for s in line.samples()) >= 5)
            assert sum(s.group == "slow" for s in line.samples()) == 1


# ------------------------------------------------------------------------------------------------------- silent units


async def test_a_dead_unit_costs_its_neighbours_one_time_out_per_back_off(rtu: bool, quick: None) -> None:
    """One offline RTU slave must not block the line (ThingsBoard #164, Telegraf #11782, Neuron #1602)."""
    async with Server(rtu).holds(1, range(10)).holds(3, range(10)) as server:
        spec = Spec(server.port, rtu)
        for unit in (1, 2, 3):
            spec.device(unit, [holding(unit)], period=0.02, timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: sum(ask.unit == 2 for ask in server.asks) >= 5)
            (down,) = line.states("unit-2")
            assert not down.up
            assert down.reason == "no_answer"
            assert down.fix_en
            assert down.fix_zh
            assert not line.states("unit-1")
            assert not line.states("unit-3")
            assert all(status == 0 for p in (0, 2) for _, status in line.rows(p))
            assert not line.rows(1)
        asked = [ask.at for ask in server.asks if ask.unit == 2]
        pauses = [after - before for before, after in pairwise(asked)]
        for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.4), strict=False):
            assert pause >= least + 0.1 - 0.005  # the time-out, and then the back-off
        between = [[ask.unit for ask in server.asks if a < ask.at < b] for a, b in pairwise(asked)]
        assert all(1 in units and 3 in units for units in between)
        assert line.adapter.counters().errors["timeout"] >= 4


async def test_a_unit_that_dies_is_down_since_its_last_answer_and_comes_back(rtu: bool, quick: None) -> None:
    async with Server(rtu).holds(1, range(10)).holds(2, range(10)) as server:
        spec = Spec(server.port, rtu)
        spec.device(1, [holding(1)], timeout=0.1).device(2, [holding(2)], timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: len(line.samples("unit-2")) >= 3)
            server.hook = lambda ask: ask.unit == 2
            await line.until(lambda: line.states("unit-2"))
            (down,) = line.states("unit-2")
            assert down.at == line.samples("unit-2")[-1].received
            before = line.adapter.counters().overruns
            await asyncio.sleep(0.3)
            server.hook = None
            await line.until(lambda: len(line.states("unit-2")) == 2)
            up = line.states("unit-2")[1]
            await line.until(lambda: line.samples("unit-2")[-1].received >= up.at)
            assert up.up
            assert up.at > down.at
            assert line.adapter.counters().overruns <= before + 3  # an outage is not a row of overruns
            assert not line.states("unit-1")


async def test_one_lost_frame_is_no_outage(rtu: bool, quick: None) -> None:
    async with Server(rtu).holds(1, range(10)).holds(2, range(10)) as server:
        lost: list[Ask] = []

        def lose(ask: Ask) -> bool:
            if ask.unit == 1 and len(server.asks) > 10 and not lost:
                lost.append(ask)
                return True
            return False

        server.hook = lose
        spec = Spec(server.port, rtu).device(1, [holding(1)], timeout=0.1).device(2, [holding(2)], timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: lost)
            seen = len(line.samples("unit-1"))
            await line.until(lambda: len(line.samples("unit-1")) > seen + 2)
            assert not line.states("unit-1")
            assert line.adapter.counters().errors == {"timeout": 1}


async def test_a_scan_that_was_interrupted_is_complete_only_when_all_of_it_is_read_anew(rtu: bool, quick: None) -> None:
    """It goes on with the block that was not answered, which alone a late answer would fit."""
    async with Server(rtu).holds(1, range(300)) as server:
        lost_at: list[int] = []

        def lose(ask: Ask) -> bool:
            if ask.address == 100 and len(server.asks) > 6 and not lost_at:
                lost_at.append(len(server.asks))
                return True
            return False

        server.hook = lose
        spec = Spec(server.port, rtu).device(1, [holding(0), holding(100), holding(200)], timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: lost_at and len(server.asks) > lost_at[0] + 4)
            after = [ask.address for ask in server.asks[lost_at[0] : lost_at[0] + 3]]
            assert after == [100, 200, 0]
            rows = [(s.points[0], s.complete_to is not None) for s in line.samples()]
            again = next(i for i, row in enumerate(rows) if row == (0, True))
            assert rows[again - 3 : again + 1] == [(0, False), (1, False), (2, False), (0, True)]


async def test_when_every_unit_is_silent_the_link_is_lost_and_stays_so(rtu: bool, quick: None) -> None:
    async with Server(rtu).holds(1, range(10)).holds(2, range(10)) as server:
        spec = Spec(server.port, rtu).device(1, [holding(1)], timeout=0.1).device(2, [holding(2)], timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: line.samples("unit-1") and line.samples("unit-2"))
            server.hook = lambda _: True
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "no_answer"
            assert "transport" in error.fix_en
            for name in ("unit-1", "unit-2"):
                (down,) = line.states(name)
                assert down.at == line.samples(name)[-1].received
            await line.adapter.disconnect()
            with pytest.raises(TransientError):  # a port that opens is not a device that lives
                await line.adapter.connect()
            server.hook = lambda ask: ask.unit == 2
            line.items.clear()
            await line.adapter.connect()
            line.start()
            await line.until(lambda: line.samples("unit-1"))
            await line.until(lambda: line.states("unit-2"))
            assert not line.states("unit-2")[0].up
            server.hook = None
            await line.until(lambda: line.samples("unit-2"))
            assert line.states("unit-2")[-1].up
            assert not line.states("unit-1")


async def test_a_gateway_that_speaks_for_a_dead_unit_keeps_its_connection(quick: None) -> None:
    def gateway(ask: Ask) -> bool:
        if ask.unit == 2:
            ask.refuse(11)
        return ask.unit == 2

    async with Server(hook=gateway).holds(1, range(10)) as server:
        spec = Spec(server.port).device(1, [holding(1)]).device(2, [holding(2)])
        async with running(spec) as line:
            await line.until(lambda: line.states("unit-2") and len(line.samples("unit-1")) > 10)
            await line.until(lambda: line.adapter.counters().errors["exception_11"] >= 3)
            (down,) = line.states("unit-2")
            assert (down.up, down.reason) == (False, "gateway_no_answer")
            assert not line.rows(1)
            assert server.connections == 1


# ----------------------------------------------------------------------------------------------- what a device refuses


async def test_an_illegal_address_inside_a_block_costs_nobody_and_is_tried_again(rtu: bool, quick: None) -> None:
    """One illegal address loses every field of the device (Telegraf #14671); here it loses its own."""
    async with Server(rtu).holds(1, range(60)) as server:
        del server.memory[1, 3][23]
        spec = Spec(server.port, rtu).device(1, [holding(a) for a in range(50)], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: all(line.rows(p) for p in range(50)))
            assert line.rows(23) == [(None, BAD_NODE_ID_UNKNOWN)]
            (problem,) = line.troubles(23)
            assert problem is not None
            assert "0x0017" in problem
            assert "exception 2" in problem
            for point in range(50):
                if point != 23:
                    assert all(row == (point, 0) for row in line.rows(point))
                    assert not line.troubles(point)
            await line.until(lambda: sum(s.complete_to is not None for s in line.samples()) > 3)
            assert not line.states("unit-1")
            server.holds(1, {23: 4711})
            await line.until(lambda: (4711, 0) in line.rows(23))
            assert line.troubles(23)[-1] is None
            seen = len(line.samples())
            await line.until(lambda: len(line.samples()) > seen + 5)
            assert len(line.samples()[-1].points) == 50  # in one read again


async def test_many_illegal_addresses_are_all_found(quick: None) -> None:
    async with Server().holds(1, range(100)) as server:
        for address in (0, 1, 2, 40, 41, 77, 99):
            del server.memory[1, 3][address]
        spec = Spec(server.port).device(1, [holding(a) for a in range(100)], period=0.05)
        async with running(spec) as line:
            await line.until(lambda: all(line.rows(p) for p in range(100)))
        assert {p for p in range(100) if line.rows(p)[0][1]} == {0, 1, 2, 40, 41, 77, 99}


async def test_an_illegal_address_in_two_groups_comes_back_in_both(quick: None) -> None:
    async with Server().holds(1, range(20)) as server:
        del server.memory[1, 3][7]
        groups = {"a": [holding(5), holding(7)], "b": [holding(7), holding(9)]}
        spec = Spec(server.port).device(1, groups, period=0.02)
        async with running(spec) as line:
            await line.until(lambda: all(line.rows(p) for p in range(4)))
            assert line.rows(1)[0] == line.rows(2)[0] == (None, BAD_NODE_ID_UNKNOWN)
            server.holds(1, {7: 70})
            await line.until(lambda: line.rows(1)[-1] == line.rows(2)[-1] == (70, 0))
            seen = len(line.samples())
            await line.until(lambda: len(line.samples()) > seen + 5)
            assert {s.group: sorted(s.points) for s in line.samples()[-4:]} == {"a": [0, 1], "b": [2, 3]}
            assert line.troubles(1)[-1] is None
            assert line.troubles(2)[-1] is None


async def test_a_gap_that_cannot_be_read_is_not_read_along(quick: None) -> None:
    """The optimiser reads a register that does not exist, and the whole block fails (ioBroker.modbus #581)."""
    async with Server().holds(1, {0: 10, 1: 11, 4: 14, 5: 15}) as server:
        spec = Spec(server.port).device(1, [holding(a) for a in (0, 1, 4, 5)], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: len(line.rows(0)) > 3 and len(line.rows(3)) > 3)
            assert not any(line.troubles(p) for p in range(4))
        asked = [(ask.address, ask.count) for ask in server.asks]
        assert asked[-4:] in ([(0, 2), (4, 2)] * 2, [(4, 2), (0, 2)] * 2)


@pytest.mark.parametrize("cuts_off", [False, True])
async def test_the_largest_read_is_learned(quick: None, cuts_off: bool) -> None:
    """Devices with a small largest batch (Telegraf #16873): the Delta DTB gives eight words; some cut their answer off."""

    def short(ask: Ask) -> bool:
        if cuts_off and ask.count > 8:
            ask.words(list(range(ask.address, ask.address + 8)))
        return cuts_off and ask.count > 8

    async with Server(hook=short, max_registers=8).holds(1, range(40)) as server:
        spec = Spec(server.port).device(1, [holding(a) for a in range(40)], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: all(len(line.rows(p)) > 2 for p in range(40)))
        assert all(row == (p, 0) for p in range(40) for row in line.rows(p))
        assert [ask.count for ask in server.asks[-5:]] == [8] * 5
        assert len({ask.address for ask in server.asks[-5:]}) == 5
        if cuts_off:
            assert line.adapter.counters().errors["short"] >= 1


async def test_other_exceptions_are_the_status_of_their_block(quick: None) -> None:
    async with Server().holds(1, range(300)) as server:
        codes = {100: 4, 200: 6}

        def moody(ask: Ask) -> bool:
            if ask.address in codes:
                ask.refuse(codes[ask.address])
            return ask.address in codes

        server.hook = moody
        coil = ModbusAddress(table="coil", address=7, type="bool")
        spec = Spec(server.port).device(1, [holding(0), holding(100), holding(200), coil], period=0.02)
        async with running(spec) as line:
            await line.until(lambda: len(line.rows(3)) >= 3)
            assert set(line.rows(0)) == {(0, 0)}
            assert set(line.rows(1)) == {(None, BAD_DEVICE_FAILURE)}
            assert set(line.rows(2)) == {(None, BAD_SERVER_TOO_BUSY)}
            assert set(line.rows(3)) == {(None, BAD_SERVICE_UNSUPPORTED)}
            assert len(line.troubles(1)) == 1
            assert not line.troubles(2)  # busy passes by itself
            assert "illegal function" in str(line.troubles(3)[0])
            assert any(s.complete_to for s in line.samples())
            assert not line.states("unit-1")
            codes.clear()
            await line.until(lambda: (100, 0) in line.rows(1) and (200, 0) in line.rows(2))
            assert line.troubles(1)[-1] is None


async def test_points_that_cannot_be_read_as_configured_cost_themselves() -> None:
    async with Server().holds(1, range(100)) as server:
        addresses = [
            holding(0),
            holding(10, "string", length=20),
            holding(51),
            holding(2, sentinels={1: "BadSensorFailur"}),
        ]
        spec = Spec(server.port).device(1, addresses, max_registers=16, holes=((50, 60),))
        async with running(spec) as line:
            await line.until(lambda: len(line.rows(0)) > 2)
            assert "max_registers" in str(line.troubles(1))
            assert "hole" in str(line.troubles(2))
            assert "BadSensorFailure" in str(line.troubles(3))
            assert [line.rows(p) for p in (1, 2, 3)] == [[(None, BAD_CONFIGURATION_ERROR)]] * 3
            samples = await line.adapter.read([0, 1])
            assert dict(zip(samples.points, samples.status or (), strict=True)) == {0: 0, 1: BAD_CONFIGURATION_ERROR}
        assert {(ask.address, ask.count) for ask in server.asks} == {(0, 1)}


# ------------------------------------------------------------------------------------------------- the connection ends


async def test_a_connection_cut_under_way_is_a_loss_since_the_last_answer(rtu: bool) -> None:
    def cut(ask: Ask) -> bool:
        ask.writer.transport.abort()
        return True

    async with Server(rtu).holds(1, range(10)) as server:
        spec = Spec(server.port, rtu).device(1, [holding(1)])
        async with running(spec) as line:
            await line.until(lambda: len(line.samples()) >= 3)
            server.hook = cut
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "closed"
            (down,) = line.states("unit-1")
            assert not down.up
            assert down.at == line.samples()[-1].received
            assert line.adapter.counters().errors == {"closed": 1}


async def test_a_connection_closed_because_nothing_was_said_is_opened_again(
    rtu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "_IDLE", 0.05)
    async with Server(rtu).holds(1, range(10)) as server:
        spec = Spec(server.port, rtu).device(1, [holding(1)], period=0.3)
        async with running(spec) as line:
            for scans in (1, 2, 3):
                await line.until(lambda n=scans: len(line.samples()) >= n)  # type: ignore[misc]
                server.later(0.1, server.cut)
            await line.until(lambda: len(line.samples()) >= 4)
            assert not line.states("unit-1")
            assert server.connections == 4
            assert not line.adapter.counters().errors


async def test_a_peer_that_is_gone_after_a_time_out_is_a_loss(rtu: bool, quick: None) -> None:
    async with Server(rtu).holds(1, range(10)).holds(2, range(10)) as server:
        spec = Spec(server.port, rtu).device(1, [holding(1)]).device(2, [holding(2)])
        async with running(spec) as line:
            await line.until(lambda: line.samples("unit-1") and line.samples("unit-2"))
            server.hook = lambda _: True  # a pulled cable: what is open stays open, and nothing new can be opened
            assert server._server is not None
            server._server.close()
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "refused"
            assert {state.device for state in line.items if isinstance(state, DeviceState)} == {"unit-1", "unit-2"}


async def test_polling_goes_on_after_each_of_many_outages(rtu: bool, quick: None) -> None:
    """Polling that silently stops after an outage (ThingsBoard #2132, plc4x #2045)."""
    async with Server(rtu).holds(1, range(10)) as server:
        line = running(Spec(server.port, rtu).device(1, [holding(1)], timeout=2.0))
        for _ in range(4):
            await line.adapter.connect()
            line.items.clear()
            line.start()
            await line.until(lambda: len(line.samples()) >= 3)
            await server.down()
            assert isinstance(await line.ended(), TransientError)
            await line.adapter.disconnect()
            with pytest.raises(TransientError) as refused:
                await line.adapter.connect()
            assert refused.value.reason == "refused"
            assert refused.value.fix_zh
            await server.up()


async def test_a_gateway_that_hangs_up_for_a_dead_unit_leaves_the_others_a_link(rtu: bool, quick: None) -> None:
    def hang_up(ask: Ask) -> bool:
        if ask.unit == 2:
            ask.writer.transport.abort()
        return ask.unit == 2

    async with Server(rtu, hook=hang_up).holds(1, range(10)) as server:
        spec = Spec(server.port, rtu).device(1, [holding(1)], period=0.02).device(2, [holding(2)], period=0.02)
        line = running(spec)
        for session in range(5):
            await line.adapter.connect()
            line.items.clear()
            line.start()
            assert isinstance(await line.ended(), TransientError)
            if session >= 3:  # by now it is left alone for 0.4 s at a time
                assert len(line.samples("unit-1")) >= 5
                assert not line.states("unit-2")[0].up
            await line.adapter.disconnect()


async def test_disconnect_does_not_wait_for_an_answer(rtu: bool) -> None:
    async with Server(rtu).holds(1, range(10)) as server:
        async with running(Spec(server.port, rtu).device(1, [holding(1)], timeout=60)) as line:
            await line.until(line.samples)
            server.hook = lambda _: True
            asked = len(server.asks)
            await line.until(lambda: len(server.asks) > asked)
            async with asyncio.timeout(2):
                await line.adapter.disconnect()
                assert await line.ended() is None
        await eventually_async(lambda: server.links == 0)


async def test_hosts_that_cannot_be_reached_are_told_apart() -> None:
    spec = Spec(1, settings={"host": "no-such-host.invalid"}).device(1, [holding(1)])
    with pytest.raises(TransientError) as unknown:
        await ModbusAdapter(spec.build()).connect()
    assert unknown.value.reason == "host_unknown"
    assert not isinstance(unknown.value, AuthError)
    spec = Spec(1, settings={"host": "two..dots"}).device(1, [holding(1)])
    with pytest.raises(TransientError) as impossible:
        await ModbusAdapter(spec.build()).connect()
    assert impossible.value.reason == "host_unknown"


# ------------------------------------------------------------------------------------------------------ back-pressure


async def test_slots_lost_to_a_slow_consumer_are_told() -> None:
    async with Server().holds(1, range(10)) as server:
        adapter = ModbusAdapter(Spec(server.port).device(1, [holding(1), holding(2)], period=0.02).build())
        await adapter.connect()
        items = adapter.items()
        seen = 0
        complete = 0
        async with asyncio.timeout(10):
            async for item in items:
                if isinstance(item, Lost):
                    break
                if isinstance(item, Samples):
                    seen += 1
                    complete = item.complete_to or complete
                if seen == 3:
                    await asyncio.sleep(0.2)
        assert isinstance(item, Lost)
        assert (item.device, item.cause) == ("unit-1", "overrun")
        assert sorted(item.points or ()) == [0, 1]
        assert (item.count or 0) >= 5
        assert item.start <= complete
        assert item.end > item.start + 150_000
        assert adapter.counters().overruns >= (item.count or 0)
        await adapter.disconnect()


# ----------------------------------------------------------------------------------------------------- read, and config


async def test_read_between_the_polls_and_of_a_unit_that_is_silent(rtu: bool, quick: None) -> None:
    async with Server(rtu).holds(1, range(60)).holds(2, range(10)) as server:
        del server.memory[1, 3][5]
        spec = Spec(server.port, rtu).device(1, [holding(a) for a in range(10)], period=0.02, timeout=0.1)
        spec.device(2, [holding(2)], period=0.02, timeout=0.1)
        async with running(spec) as line:
            await line.until(lambda: line.samples("unit-1") and line.samples("unit-2"))
            samples = await line.adapter.read(list(range(10)))
            values = dict(zip(samples.points, zip(samples.values, samples.status or (), strict=True), strict=True))
            assert values == {p: (p, 0) if p != 5 else (None, BAD_NODE_ID_UNKNOWN) for p in range(10)}
            server.hook = lambda ask: ask.unit == 2
            samples = await line.adapter.read([10])
            assert list(samples.status or ()) == [BAD_NO_COMMUNICATION]
            with pytest.raises(ConfigError):
                await line.adapter.read([0, 10])
            with pytest.raises(ConfigError):
                await line.adapter.read([])
            seen = len(line.samples("unit-1"))
            await line.until(lambda: len(line.samples("unit-1")) > seen + 3)


async def test_the_pause_between_requests_is_kept() -> None:
    async with Server().holds(1, range(10)).holds(2, range(10)) as server:
        spec = Spec(server.port, settings={"pause": 0.03}).device(1, [holding(1)], period=0.01)
        spec.device(2, [holding(2)], period=0.01, pause=0.1)
        async with running(spec) as line:
            await line.until(lambda: sum(ask.unit == 2 for ask in server.asks) >= 4)
        asked = [ask.at for ask in server.asks]
        assert min(b - a for a, b in pairwise(asked)) >= 0.029
        own = [ask.at for ask in server.asks if ask.unit == 2]
        assert min(b - a for a, b in pairwise(own)) >= 0.099


def test_what_no_device_is_needed_to_see() -> None:
    with pytest.raises(ConfigError) as broadcast:
        ModbusAdapter(Spec(502, rtu=True).device(0, [holding(1)]).build())
    assert "broadcast" in str(broadcast.value)
    adapter = ModbusAdapter(Spec(502).device(0, [holding(1)]).device(17, [holding(1)]).build())
    assert adapter.endpoint("unit-17") == "modbus+tcp://127.0.0.1:502/unit/17"
    line = ModbusAdapter(Spec(4001, rtu=True).device(3, [holding(1)]).build())
    assert line.endpoint("unit-3") == "modbus+rtu-over-tcp://127.0.0.1:4001/unit/3"


def test_a_device_without_readable_points_is_never_due() -> None:
    device = _device.Device(Spec(502).device(1, [holding(51)], holes=((50, 60),)).devices[0])
    assert device.next_due() == math.inf


async def test_the_time_for_which_the_wire_is_taken_is_counted() -> None:
    """Answers of 20 ms each: what is counted lies between those and the time that has passed."""

    async def slow(ask: Ask) -> bool:
        await asyncio.sleep(0.02)
        return False

    async with Server(hook=slow).holds(1, range(10)) as server:
        adapter = ModbusAdapter(Spec(server.port).device(1, [holding(0)], period=0.05).build())
        assert adapter.counters().busy == 0
        begun = asyncio.get_running_loop().time()
        async with Running(adapter) as line:
            await line.until(lambda: len(line.samples()) >= 5)
        counters = adapter.counters()
        assert 5 * 0.018 < counters.busy < asyncio.get_running_loop().time() - begun


# ----------------------------------------------------------------------------------------------------- several addresses


async def test_the_second_address_is_taken_where_the_first_refuses() -> None:
    async with Server().holds(1, range(10)) as server:
        spec = Spec(server.port, settings={"host": ["127.0.0.2", "127.0.0.1"]}).device(1, [holding(3)])
        adapter = ModbusAdapter(spec.build())
        async with Running(adapter) as line:
            await line.until(lambda: (3, 0) in line.rows(0))
        assert adapter.endpoint("unit-1") == f"modbus+tcp://127.0.0.2:{server.port}/unit/1"
        assert adapter.reads_at(ModbusLinkSettings(host="127.0.0.1", port=server.port))
        assert not adapter.reads_at(ModbusLinkSettings(host="127.0.0.3", port=server.port))


async def test_an_address_at_which_nobody_answers_comes_last_the_next_time() -> None:
    async with Server().holds(1, range(10)) as server:

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(mute, "127.0.0.2", server.port) as deaf:
            spec = Spec(server.port, settings={"host": ["127.0.0.2", "127.0.0.1"]})
            adapter = ModbusAdapter(spec.device(1, [holding(3)], timeout=0.1).build())
            with pytest.raises(TransientError, match="does not answer"):
                await adapter.connect()
            await adapter.disconnect()
            async with Running(adapter) as line:
                await line.until(lambda: (3, 0) in line.rows(0))
            deaf.close()


async def test_every_address_that_fails_is_named() -> None:
    async with Server() as server:
        port = server.port
    adapter = ModbusAdapter(Spec(port, settings={"host": ["127.0.0.2", "127.0.0.1"]}).device(1, [holding(3)]).build())
    with pytest.raises(TransientError) as caught:
        await adapter.connect()
    assert f"127.0.0.2:{port}" in str(caught.value)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert caught.value.reason == "refused"
