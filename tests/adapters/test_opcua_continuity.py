"""Nothing is lost that the server still has; what is lost is recorded; what dies is noticed and comes back."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from asyncua import ua

from adapters.contract import DeviceState, PointTrouble, Samples, TransientError
from adapters.opcua._server_clock import TOLERANCE, ServerClock
from schemas import status as codes
from schemas.wire import Cause, Flag
from tests.adapters.opcua_collector import PERIOD, Collector, device, link, node
from tests.adapters.opcua_server import SIZE, SmallServer
from tests.servers.fault_proxy import FaultProxy

ALL = [node(f"v{i}") for i in range(SIZE)]


@pytest.fixture(scope="module")
def shared() -> Iterator[SmallServer]:
    with SmallServer() as running:
        yield running


@pytest.fixture
def server(shared: SmallServer) -> Iterator[SmallServer]:
    shared.acked.clear()
    shared.calls.clear()
    shared.drop_sequences.clear()
    shared.forget_sequences.clear()
    yield shared
    shared.state(0)
    shared.end_sessions()


async def settled(host: Collector, server: SmallServer) -> None:
    """Every point has come once."""
    await host.until(lambda: all(host.rows(i) for i in range(SIZE)))


# ------------------------------------------------------------------------------------------------------- acknowledging


async def test_the_server_keeps_what_is_not_acknowledged(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL)), ack=False) as host:
        for _ in range(6):
            before = len(host.rows(0))
            server.write_all()
            await host.until(lambda: len(host.rows(0)) > before)  # noqa: B023  waited for within the turn
        tokens = [item.token for item in host.of(Samples) if item.token is not None]
        assert server.unacknowledged() == len(tokens) >= 6
        assert server.acked == []
        for token in tokens[:3]:
            host.adapter.ack(token)
        server.write_all()  # the next PublishRequest carries them
        await host.until(lambda: len(server.acked) == 3)
        assert server.acked == [(sub, seq) for _, sub, seq in tokens[:3]]
        for token in tokens:
            host.adapter.ack(token)
        await host.until(lambda: len(server.acked) == len(tokens))
        assert sorted(server.acked) == sorted({(sub, seq) for _, sub, seq in tokens})
        assert not host.adapter.counters().errors


async def test_keep_alives_carry_no_token_and_tell_progress(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL))) as host:
        await settled(host, server)
        start = len(host.items)
        await host.until(lambda: len(host.items) >= start + 2)
        for item in host.items[start:]:
            assert isinstance(item, Samples)
            assert len(item.points) == 0
            assert item.token is None
            assert item.complete_to is not None
            assert item.received - 5_000_000 < item.complete_to <= item.received
            assert item.server_ts is not None


# ------------------------------------------------------------------------------------------------------------ sequence


async def test_a_missing_notification_is_fetched_again(server: SmallServer) -> None:
    server.drop_sequences.update({2, 3})
    async with Collector(link(server.endpoint, device(ALL))) as host:
        await settled(host, server)
        for _ in range(4):
            expected = len(host.rows(0)) + 1
            server.write_all()
            await host.until(lambda: len(host.rows(0)) >= expected)  # noqa: B023  waited for within the turn
        values = host.values(0)
        assert values == sorted(values)
        assert len(values) == 5
        assert not host.lost()
        assert server.calls["republish"] == 2
        assert not server.drop_sequences


async def test_what_the_server_no_longer_has_is_a_recorded_loss(server: SmallServer) -> None:
    server.drop_sequences.add(2)
    server.forget_sequences.add(2)
    async with Collector(link(server.endpoint, device(ALL))) as host:
        await settled(host, server)
        first = host.of(Samples)[0].received
        server.write_all()
        gone = server.value
        await host.until(host.lost)
        server.write_all()
        await host.until(lambda: host.last(0) == server.value)
        (loss,) = host.lost()
        assert loss.cause == Cause.LOST
        assert loss.points == list(range(SIZE))
        assert loss.start <= first <= loss.end
        (row,) = (row for row in host.rows(0) if row["value"] == gone)
        assert (
            row["flags"] & Flag.HISTORICAL
        )  # it was still the present value when that was read, and came in no notification
        assert server.calls["republish"] == 1


async def test_an_empty_republish_ends_the_search(server: SmallServer) -> None:
    """Asyncua's server answers Good and nothing for what it does not have; asking again for ever is the known bug of clients."""
    server.drop_sequences.add(2)
    async with Collector(link(server.endpoint, device(ALL)), ack=False) as host:
        await settled(host, server)

        async def forget() -> None:
            for subscription in server.subscriptions.values():
                subscription.republish = lambda number: ua.NotificationMessage()

        server.run(forget())
        server.write_all()
        await host.until(host.lost)
        assert server.calls["republish"] == 1
        assert host.error is None


@pytest.mark.parametrize("status", [codes.BAD_TIMEOUT, 0x002D0000], ids=["BadTimeout", "GoodSubscriptionTransferred"])
async def test_a_subscription_that_the_server_ends_is_made_anew(server: SmallServer, status: int) -> None:
    async with Collector(link(server.endpoint, device(ALL))) as host:
        await settled(host, server)
        await asyncio.to_thread(server.end_subscriptions, status)
        await host.until(lambda: all(len(host.rows(i)) >= 2 for i in range(SIZE)))
        assert all(host.rows(i)[1]["flags"] & Flag.INITIAL for i in range(SIZE))
        await host.until(host.lost)
        assert {(loss.cause, tuple(loss.points or ())) for loss in host.lost()} == {(Cause.LOST, tuple(range(SIZE)))}
        server.write_all()
        await host.until(lambda: all(host.last(i) == server.value + i for i in range(SIZE)))
        assert host.error is None


async def test_a_server_that_ends_subscriptions_again_and_again_loses_the_session(server: SmallServer) -> None:
    """Until the link is down, what is left of the group does not say that the group is complete."""
    spec = link(server.endpoint, device(ALL), items_per_subscription=SIZE // 2)
    async with Collector(spec) as host:
        await settled(host, server)
        open_link = host.adapter._link
        assert open_link is not None
        open_link.monitored.redone = 5
        (group,) = open_link.monitored.groups.values()
        ended, *others = group.subscriptions
        assert others
        began = ended.previous
        open_link._retrying.ended(ended, codes.BAD_TIMEOUT)
        for other in others:
            other.complete_to = began + 60_000_000
        assert group.completed() == began
        assert (await host.fails()).reason == "subscription_lost"


async def test_what_changes_until_an_ended_subscription_is_made_anew_is_a_gap(server: SmallServer) -> None:
    """The server takes its time for the new one: what a value was meanwhile nobody is told."""
    made: list[int] = []
    service = server.server.iserver.subscription_service
    create = service.create_monitored_items

    async def slow(params: Any) -> Any:
        await asyncio.sleep(0.3)  # of the server: how long it takes
        made.append(time.time_ns() // 1000)
        return await create(params)

    async with Collector(link(server.endpoint, device(ALL))) as host:
        await settled(host, server)
        service.create_monitored_items = slow
        try:
            await asyncio.to_thread(server.end_subscriptions, codes.BAD_TIMEOUT)
            await host.until(lambda: all(len(host.rows(i)) >= 2 for i in range(SIZE)))
            await host.until(lambda: max((loss.end for loss in host.lost()), default=0) >= made[0])
        finally:
            service.create_monitored_items = create
        bounds = sorted((loss.start, loss.end) for loss in host.lost())
        assert all(after[0] <= before[1] for before, after in pairwise(bounds))


# ------------------------------------------------------------------------------------------------------------- silence


async def test_a_silent_subscription_is_noticed(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL), timeout=0.5)) as host:
        await settled(host, server)
        server.mute()
        error = await host.fails()
        assert isinstance(error, TransientError)
        assert error.reason == "subscription_silent"
        assert silence(error) <= 3 * PERIOD + 0.5 + 4 * PERIOD  # the last: how often it is looked at


def silence(error: Exception) -> float:
    """Seconds without a word, by the adapter's own clock, in which its own pauses do not count."""
    told = re.search(r"for ([0-9.]+) s", str(error))
    assert told is not None
    return float(told[1])


async def test_one_silent_subscription_of_several_is_noticed(server: SmallServer) -> None:
    """The others go on, and so do the session and its heartbeat."""
    spec = link(server.endpoint, device(ALL[:4]), device(ALL[4:], name="oven", first=4), timeout=0.5, heartbeat=0.1)
    async with Collector(spec) as host:
        await settled(host, server)
        first = next(iter(server.subscriptions.values()))
        server.run(stop(first))
        error = await host.fails()
        assert isinstance(error, TransientError)
        assert error.reason == "subscription_silent"
        assert f"subscription {first.data.SubscriptionId} " in str(error)
        assert silence(error) <= 7 * PERIOD + 0.5


async def stop(subscription: Any) -> None:
    subscription._task.cancel()


async def test_a_slow_period_is_not_silence(server: SmallServer) -> None:
    """Nothing changes, and a keep-alive comes once a period: that is longer than the time-out."""
    async with Collector(link(server.endpoint, device(ALL, period=0.6), timeout=0.3, heartbeat=0.1)) as host:
        await settled(host, server)
        before = len(host.items)
        await host.until(lambda: len(host.items) >= before + 3)
        assert host.error is None


async def test_a_link_that_stalls_is_slow_and_not_dead(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        async with Collector(link(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL), timeout=3.0)) as host:
            await settled(host, server)
            for pause in (0.3, 0.05, 0.5, 0.0, 0.2):
                proxy.delay(pause)
                server.write_all()
                await host.until(lambda: all(host.last(i) == server.value + i for i in range(SIZE)))
        assert host.error is None
        assert not host.lost()


async def test_a_half_open_link_is_noticed(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        spec = link(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL), timeout=0.5, heartbeat=0.5)
        async with Collector(spec) as host:
            await settled(host, server)
            await asyncio.to_thread(proxy.half_open)
            error = await host.fails()
            assert isinstance(error, TransientError)
            assert error.reason in ("timeout", "subscription_silent")
            await asyncio.wait_for(host.disconnect(), 3.0)
            await asyncio.to_thread(proxy.restore)
            await host.connect()
            await settled(host, server)


async def test_no_more_than_one_session_however_often_the_link_is_cut(server: SmallServer) -> None:
    with FaultProxy(server.port) as proxy:
        host = Collector(link(f"opc.tcp://127.0.0.1:{proxy.port}/", device(ALL)))
        for _ in range(5):
            await host.connect()
            await settled(host, server)
            await asyncio.to_thread(proxy.cut)
            assert (await host.fails()).reason == "connection_lost"
            await host.disconnect()
            assert server.sessions() == 1
        async with host:
            await settled(host, server)
            assert server.sessions() == 1
        assert server.sessions() == 0


# -------------------------------------------------------------------------------------------------------- server state


async def test_an_announced_shutdown_is_obeyed(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL), heartbeat=0.1)) as host:
        await settled(host, server)
        server.state(4)
        error = await host.fails()
        assert isinstance(error, TransientError)
        assert error.reason == "server_shutdown"
        assert error.retry_after


async def test_a_suspended_server_is_a_device_that_is_down(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL), heartbeat=0.1)) as host:
        await settled(host, server)
        server.state(3)
        await host.until(lambda: host.of(DeviceState))
        server.state(0)
        await host.until(lambda: len(host.of(DeviceState)) == 2)
        down, up = host.of(DeviceState)
        assert (down.up, down.reason, up.up) == (False, "server_suspended", True)
        assert down.fix_en
        assert down.fix_zh


# ------------------------------------------------------------------------------------------------------------- healing


async def test_a_refused_item_heals_when_its_node_comes(server: SmallServer) -> None:
    spec = link(server.endpoint, device([node("later"), node("v1")]), item_retry=0.1, item_retry_max=0.2)
    async with Collector(spec) as host:
        await host.until(lambda: host.troubles() and host.rows(1))
        server.add("later", 7, ua.VariantType.Int32)
        await host.until(lambda: host.last(0) == 7)
        assert [problem is None for _, problem in host.troubles()] == [False, True]
        assert len(host.rows(0)) == 2  # told once, however often it was tried
        assert host.rows(0)[1]["flags"] & Flag.INITIAL


async def test_a_deleted_node_is_followed_to_its_successor(server: SmallServer) -> None:
    server.add("block", 1, ua.VariantType.Int32)
    spec = link(server.endpoint, device([node("block"), node("v1")]), item_retry=0.1, item_retry_max=0.2)
    async with Collector(spec) as host:
        await host.until(lambda: host.last(0) == 1)

        async def delete() -> None:
            space = server.server.iserver.aspace
            data = space._nodes.pop(server.node("block"))
            gone = ua.DataValue(StatusCode=ua.StatusCode(codes.BAD_NODE_ID_UNKNOWN))
            for handle, callback in list(data.attributes[ua.AttributeIds.Value].datachange_callbacks.items()):
                await callback(handle, gone)

        server.run(delete())
        await host.until(host.troubles)
        assert host.rows(0)[-1]["status"] == codes.BAD_NODE_ID_UNKNOWN
        server.add("block", 2, ua.VariantType.Int32)
        await host.until(lambda: host.last(0) == 2)
        await host.until(lambda: host.troubles()[-1] == (0, None))
        server.write("block", 3, ua.VariantType.Int32)
        await host.until(lambda: host.last(0) == 3)
        assert not [item for item in host.of(PointTrouble) if item.point == 1]


async def test_a_trouble_is_logged_once_over_all_sessions(
    server: SmallServer, caplog: pytest.LogCaptureFixture
) -> None:
    host = Collector(link(server.endpoint, device([node("nowhere"), node("v1")]), item_retry=0.05, item_retry_max=0.05))
    with caplog.at_level(logging.INFO, logger="guantong.opcua"):
        for _ in range(3):
            async with host:
                await host.until(lambda: host.troubles() and host.rows(1))
                start = host.adapter.counters().requests
                await host.until(lambda: host.adapter.counters().requests >= start + 6)  # noqa: B023  within the turn
                assert len(host.troubles()) == 1
    ours = [record for record in caplog.records if record.name == "guantong.opcua"]
    assert [record.levelname for record in ours] == ["WARNING"]
    assert "s=nowhere" in ours[0].getMessage()


# ------------------------------------------------------------------------------------------------------- back-pressure


async def test_a_slow_consumer_costs_a_recorded_overrun_and_not_the_subscription(server: SmallServer) -> None:
    async with Collector(link(server.endpoint, device(ALL), queue=2 * SIZE)) as host:
        await settled(host, server)
        host.paused.clear()
        sent: list[int] = []
        for _ in range(12):
            seen = host.adapter.counters().values
            server.write_all()
            sent.append(server.value)
            await host.until(lambda: host.adapter.counters().values >= seen + SIZE)  # noqa: B023  within the turn
        host.paused.set()
        await host.until(lambda: all(host.last(i) == sent[-1] + i for i in range(SIZE)))
        stored = set(host.values(0))
        missing = [value for value in sent if value not in stored]
        assert missing
        (loss,) = host.lost()
        assert (loss.cause, loss.points) == (Cause.OVERRUN, list(range(SIZE)))
        assert loss.count == len(missing) * SIZE
        assert host.rows(0)[-1]["flags"] & Flag.OVERFLOW
        assert host.adapter.counters().overruns == loss.count
        at = host.items.index(loss)
        first_missing = min(missing)
        assert all(first_missing not in item.values for item in host.items if isinstance(item, Samples))
        after = host.items[at + 1]
        assert isinstance(after, Samples)
        assert after.received >= loss.start
        server.write_all()
        await host.until(lambda: host.last(0) == server.value)
        await host.until(lambda: server.unacknowledged() <= 1)  # what was dropped is acknowledged with its record
        assert host.error is None


async def test_disconnect_hands_out_what_has_come(server: SmallServer) -> None:
    host = Collector(link(server.endpoint, device(ALL)))
    async with host:
        await settled(host, server)
        host.paused.clear()
        seen = host.adapter.counters().values
        server.write_all()
        await host.until(lambda: host.adapter.counters().values >= seen + SIZE)
    assert all(host.last(i) == server.value + i for i in range(SIZE))


# ------------------------------------------------------------------------------------------------------- server's clock

HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000


@pytest.mark.parametrize("offset", [0, 8 * HOUR, -8 * HOUR, -30 * 365 * 24 * HOUR])
def test_complete_to_is_told_in_the_gateways_time(offset: int) -> None:
    clock = ServerClock()
    clock.measured(NOW + offset + 2_000, NOW)  # the answer was written 2 ms after the question was sent
    published, received = NOW + 500_000, NOW + 504_000
    complete = clock.complete_to(published + offset, 100_000, received)
    assert complete is not None
    assert published - 100_000 - 10_000 <= complete <= published - 100_000


def test_a_server_a_little_behind_is_told_in_the_earlier_time() -> None:
    clock = ServerClock()
    clock.measured(NOW - 5_000_000, NOW)
    assert clock.complete_to(NOW - 5_000_000, 100_000, NOW) == NOW - 5_100_000
    clock.measured(NOW + 5_000_000, NOW)
    assert clock.complete_to(NOW + 5_000_000, 100_000, NOW) == NOW - 100_000


def test_nothing_is_complete_while_the_clock_is_not_known() -> None:
    clock = ServerClock()
    assert clock.complete_to(NOW, 0, NOW) is None
    clock.measured(NOW, NOW)
    assert clock.complete_to(None, 0, NOW) is None
    assert clock.complete_to(NOW + HOUR, 0, NOW) is None  # stepped forward
    assert clock.complete_to(NOW + HOUR, 0, NOW) is None
    clock.measured(NOW + HOUR, NOW)
    assert clock.complete_to(NOW + HOUR, 0, NOW) == NOW


def test_a_gap_ends_as_late_as_its_readings_may_be() -> None:
    clock = ServerClock()
    assert clock.latest(NOW + TOLERANCE, NOW) == NOW + TOLERANCE
    assert clock.latest(NOW + HOUR, NOW) == NOW
    assert clock.latest(None, NOW) == NOW
