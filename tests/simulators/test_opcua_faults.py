"""Each fault of the simulated OPC UA devices does what it says, and ends when it is cleared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from simulators.device import DeviceSettings, FaultArgument, FaultError
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.opcua.line import LineModel
from simulators.truth import TruthLog, now_us, read_truth
from tests.simulators.opcua_client import connected, until

PLACED = "DB_Line/Placed"


@pytest.fixture
async def plc(tmp_path: Path) -> AsyncIterator[OpcUaDevice]:
    device = FACTORIES["plc-01"].create(DeviceSettings("plc-01", TruthLog(tmp_path / "plc.ndjson", "plc-01"), 1, 20.0))
    assert isinstance(device, OpcUaDevice)
    await device.start("127.0.0.1", 0)
    yield device
    await device.stop()


def ups_and_downs(tmp_path: Path) -> list[tuple[str, str]]:
    return [(r["kind"], r["reason"]) for r in read_truth(tmp_path / "plc.ndjson") if r["kind"] in ("up", "down")]


def _port(device: OpcUaDevice) -> int:
    return int(device.endpoint.rpartition(":")[2])


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


@pytest.mark.parametrize(("kind", "sessions"), [("off", 0), ("cut", 1)])
async def test_off_and_cut_close_the_port_and_only_off_ends_the_sessions(
    plc: OpcUaDevice, tmp_path: Path, kind: str, sessions: int
) -> None:
    port = _port(plc)
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [plc.variables[PLACED]])
        await raw.changes(subscription, bool)
        await plc.fault(kind)
        with pytest.raises((ConnectionError, TimeoutError, ua.UaError)):
            await raw.read(plc.variables[PLACED])
    assert await _refuses(port)
    assert (plc.sessions, plc.subscriptions) == (sessions, sessions)
    before = len(list(read_truth(tmp_path / "plc.ndjson")))
    await _ticks(plc, 3)
    assert len(list(read_truth(tmp_path / "plc.ndjson"))) == before, "nothing is handed out meanwhile"
    await plc.clear()
    assert _port(plc) == port
    async with connected(plc.endpoint) as raw:
        (value,) = await raw.read(plc.variables[PLACED])
        assert value.StatusCode.is_good()
    assert ups_and_downs(tmp_path) == [("up", "start"), ("down", kind), ("up", "clear")]


async def _ticks(device: OpcUaDevice, count: int) -> None:
    """Wait until the device has looked at its process *count* times more."""
    wanted = device._ticks + count
    await until(lambda: device._ticks >= wanted)


def _newest_source(device: OpcUaDevice) -> Any:
    """The newest source time of all variables."""
    nodes = device._node_faults._space.nodes
    values = [
        nodes.read_attribute_value(variable.node, ua.AttributeIds.Value)
        for variable in device._node_faults._space.variables.values()
    ]
    return max(value.SourceTimestamp for value in values)


async def test_a_machine_that_is_off_does_nothing_and_one_that_is_cut_off_works_on(plc: OpcUaDevice) -> None:
    model = plc._model
    assert isinstance(model, LineModel)
    await plc.fault("off")
    before, sourced = model.line.time, _newest_source(plc)
    await _ticks(plc, 12)
    assert model.line.time == before
    assert _newest_source(plc) == sourced, "measurements neither"
    await plc.clear()
    await plc.fault("cut")
    await until(lambda: model.line.time > before + 4)


async def test_half_open_accepts_and_says_nothing(plc: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(plc.endpoint, timeout=0.5) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [plc.variables[PLACED]])
        await raw.changes(subscription, bool)
        await plc.fault("half_open")
        handed = len(list(read_truth(tmp_path / "plc.ndjson")))
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await raw.client.uaclient.protocol.send_request(ua.ReadRequest(), 0.5)
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(plc))
        writer.write(b"HELF" + bytes(28))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.read(1)
        assert len(list(read_truth(tmp_path / "plc.ndjson"))) == handed, "nothing is handed out into the void"
        await plc.clear()
        assert await reader.read(1) == b"", "swallowed requests are gone: connections are cut"
        writer.close()
    async with connected(plc.endpoint) as raw:
        assert (await raw.read(plc.variables[PLACED]))[0].StatusCode.is_good()
    assert ups_and_downs(tmp_path) == [("up", "start"), ("down", "half_open"), ("up", "clear")]


async def test_slow_delays_each_answer_and_keeps_their_order(plc: OpcUaDevice) -> None:
    async with connected(plc.endpoint) as raw:
        await plc.fault("slow", delay=0.4)
        loop = asyncio.get_running_loop()
        started = loop.time()
        order: list[int] = []

        async def read(number: int) -> None:
            await raw.read(plc.variables[PLACED])
            order.append(number)

        await asyncio.gather(*(read(number) for number in range(5)))
        assert loop.time() - started >= 0.4
        assert order == [0, 1, 2, 3, 4]
        await plc.clear()


async def test_a_restart_ends_all_sessions_and_shows_a_new_start(plc: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(plc.endpoint) as raw:
        await raw.subscribe()
        (first,) = await raw.read("i=2257")
        await plc.fault("restart", down=0.2)
        assert (plc.sessions, plc.subscriptions) == (0, 0)
        assert await _refuses(_port(plc))
    await until(lambda: ups_and_downs(tmp_path)[-1] == ("up", "restart"))
    async with connected(plc.endpoint) as raw:
        (second,) = await raw.read("i=2257")
        (status,) = await raw.read("i=2256")
    assert second.Value.Value > first.Value.Value
    assert status.Value.Value.StartTime == second.Value.Value
    await plc.fault("restart", down=60)
    await plc.clear()
    assert not await _refuses(_port(plc)), "clear ends a restart at once"


async def test_a_wrong_clock_shifts_every_time_that_the_device_tells(plc: OpcUaDevice) -> None:
    hours = 8 * 3600
    async with connected(plc.endpoint) as raw:
        await plc.fault("clock", offset=hours)
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [plc.variables[PLACED]])
        result = await raw.publish()
        items = await raw.changes(subscription, bool)
        ahead = [items[-1].Value.SourceTimestamp, items[-1].Value.ServerTimestamp]
        ahead += [result.NotificationMessage.PublishTime]

        async def current() -> bool:
            (value,) = await raw.read("i=2258")
            return bool(abs(value.Value.Value.timestamp() - time.time() - hours) < 5)

        deadline = time.monotonic() + 5
        while not await current():
            assert time.monotonic() < deadline, "CurrentTime does not follow the clock"
        await plc.clear()
        back = (await raw.changes(subscription, lambda found: len(found) >= 2))[-1].Value.SourceTimestamp
    assert all(abs(stamp.timestamp() - time.time() - hours) < 10 for stamp in ahead)
    assert abs(back.timestamp() - time.time()) < 10


async def test_a_frozen_source_stands_still_while_values_change(plc: OpcUaDevice) -> None:
    async with connected(plc.endpoint) as raw:
        await plc.fault("frozen_source")
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [plc.variables[PLACED]])
        items = (await raw.changes(subscription, lambda found: len(found) >= 5))[1:]
    assert len({item.Value.Value.Value for item in items}) >= 4
    assert len({item.Value.SourceTimestamp for item in items}) == 1
    assert len({item.Value.ServerTimestamp for item in items}) >= 4


async def test_without_source_timestamps_there_are_none(plc: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(plc.endpoint) as raw:
        await plc.fault("no_source")
        subscription = await raw.subscribe()
        await raw.monitor(subscription, list(plc.variables.values())[:10])
        items = await raw.changes(subscription, lambda found: len(found) >= 15)
        assert all(item.Value.SourceTimestamp is None for item in items)
        assert all(item.Value.ServerTimestamp is not None for item in items)
        await plc.clear()
        values = await raw.read(*list(plc.variables.values())[:10])
        assert all(value.SourceTimestamp is not None for value in values)
    records = [r for r in read_truth(tmp_path / "plc.ndjson") if r["kind"] == "value"]
    assert all(record["source_ts"] is None for record in records)


@pytest.mark.parametrize(
    ("status", "code", "kept"),
    [
        ("BadSensorFailure", 0x808C0000, False),
        ("UncertainLastUsableValue", 0x40900000, True),
        (2159017984, 0x80B00000, False),
    ],
)
async def test_a_bad_node_stays_bad_and_its_neighbours_good(
    plc: OpcUaDevice, status: FaultArgument, code: int, kept: bool
) -> None:
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [plc.variables[PLACED], plc.variables["DB_Line/CycleTime"]])
        await raw.changes(subscription, lambda found: len(found) >= 2)
        await plc.fault("bad", node=PLACED, status=status)
        items = await raw.changes(subscription, lambda found: sum(i.ClientHandle == 1 for i in found) >= 3)
        placed = [item.Value for item in items if item.ClientHandle == 0]
        assert {value.StatusCode.value for value in placed} == {code}
        assert all((value.Value.Value is not None) == kept for value in placed)
        assert kept or len(placed) == 1, "a bad value is told once"
        assert all(item.Value.StatusCode.is_good() for item in items if item.ClientHandle == 1)
        (value,) = await raw.read(plc.variables[PLACED])
        assert value.StatusCode.value == code
        cleared = now_us()
        await plc.clear()
        items = await raw.changes(
            subscription, lambda found: any(i.Value.StatusCode.is_good() for i in found if i.ClientHandle == 0)
        )
        good = next(i.Value for i in items if i.ClientHandle == 0 and i.Value.StatusCode.is_good())
        assert good.SourceTimestamp.timestamp() * 1e6 >= cleared - 1000
        (read,) = await raw.read(plc.variables[PLACED])
    assert good.Value.Value <= read.Value.Value <= good.Value.Value + 1


async def test_a_missing_node_is_unknown_until_it_comes_back(plc: OpcUaDevice) -> None:
    unknown = ua.StatusCodes.BadNodeIdUnknown
    node = plc.variables[PLACED]
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        kept, dropped = await raw.monitor(subscription, [node, node])
        await raw.changes(subscription, lambda found: len(found) >= 2)
        await plc.fault("missing", node=node)
        items = await raw.changes(subscription, lambda found: len(found) >= 2)
        assert {item.Value.StatusCode.value for item in items} == {unknown}
        (value,) = await raw.read(node)
        assert value.StatusCode.value == unknown
        (result,) = await raw.monitor(subscription, [node])
        assert result.StatusCode.value == unknown
        parent = raw.client.get_node(raw.node('nsu=http://www.siemens.com/simatic-s7-opcua;s="DB_Line"'))
        assert "Placed" not in [(await child.read_browse_name()).Name for child in await parent.get_children()]
        request = ua.DeleteMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.MonitoredItemIds = [dropped.MonitoredItemId]
        (deleted,) = (await raw.send(request, ua.DeleteMonitoredItemsResponse)).Results
        assert deleted.is_good()
        await plc.clear()
        items = await raw.changes(subscription, lambda found: len(found) >= 2)
        assert all(item.Value.StatusCode.is_good() for item in items)
        assert {item.ClientHandle for item in items} == {0}
        assert "Placed" in [(await child.read_browse_name()).Name for child in await parent.get_children()]
    assert kept.StatusCode.is_good()


@pytest.mark.parametrize(
    ("kind", "args", "says"),
    [
        ("melt", {}, "knows no fault 'melt'; it knows off, half_open"),
        ("slow", {"seconds": 2}, "fault slow does not take seconds; it takes delay"),
        ("off", {"delay": 2}, "fault off does not take delay; it takes no arguments"),
        ("clock", {"offset": "later"}, "offset='later' is not a number of seconds"),
        ("bad", {}, "needs node=PATH"),
        ("bad", {"node": "Nowhere"}, "node=Nowhere means no variable of this device"),
        ("bad", {"node": PLACED, "status": "BadLuck"}, "'BadLuck' is no StatusCode"),
        ("missing", {"node": "DB_Line"}, "means no variable"),
    ],
)  # fmt: skip
async def test_a_wrong_fault_says_what_is_valid(plc: OpcUaDevice, kind: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(FaultError) as caught:
        await plc.fault(kind, **args)
    assert says in str(caught.value)
    async with connected(plc.endpoint) as raw:
        assert (await raw.read(plc.variables[PLACED]))[0].StatusCode.is_good()


async def test_several_nodes_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    device = FACTORIES["imm-01"].create(DeviceSettings("imm-01", TruthLog(None, "imm-01")))
    await device.start("127.0.0.1", 0)
    try:
        with pytest.raises(FaultError, match="several variables"):
            await device.fault("bad", node="ActualTemperature")
        await device.fault("bad", node="BarrelTemperatureZone_3/ActualTemperature")
    finally:
        await device.stop()
