"""The services of the simulated OPC UA servers keep to OPC 10000-4 where a gateway's correctness hangs on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from simulators.device import DeviceSettings
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.opcua.machining import INFO as MACHINING
from simulators.opcua.machining import MachiningModel
from simulators.process.machining import ALERTS
from simulators.truth import TruthLog, read_truth
from tests.simulators.opcua_client import Raw, connected, until

S7 = "nsu=http://www.siemens.com/simatic-s7-opcua;s="


@pytest.fixture
async def plc(tmp_path: Path) -> AsyncIterator[OpcUaDevice]:
    device = FACTORIES["plc-01"].create(DeviceSettings("plc-01", TruthLog(tmp_path / "plc.ndjson", "plc-01"), 1, 20.0))
    assert isinstance(device, OpcUaDevice)
    await device.start("127.0.0.1", 0)
    yield device
    await device.stop()


def tags(device: OpcUaDevice) -> list[str]:
    return list(device.variables.values())


async def _refused(answer: Any) -> str:
    with pytest.raises(ua.UaStatusCodeError) as caught:
        await answer
    return str(ua.StatusCode(caught.value.code).name)


async def test_ten_operations_a_call_are_announced_and_enforced(plc: OpcUaDevice) -> None:
    limits = ["i=11705", "i=11714", "i=11710", "i=11712", "i=11707"]
    async with connected(plc.endpoint) as raw:
        values = await raw.read(*limits)
        assert [value.Value.Value for value in values] == [10] * len(limits)
        assert all(value.Value.VariantType == ua.VariantType.UInt32 for value in values)
        assert len(await raw.read(*tags(plc)[:10])) == 10
        assert await _refused(raw.read(*tags(plc)[:11])) == "BadTooManyOperations"
        subscription = await raw.subscribe()
        assert await _refused(raw.monitor(subscription, tags(plc)[:11])) == "BadTooManyOperations"
        assert len(await raw.monitor(subscription, tags(plc)[:10])) == 10
        browse = ua.BrowseRequest()
        browse.Parameters.NodesToBrowse = [ua.BrowseDescription(NodeId=ua.NodeId(85)) for _ in range(11)]
        assert await _refused(raw.send(browse, ua.BrowseResponse)) == "BadTooManyOperations"
        paths = ua.TranslateBrowsePathsToNodeIdsRequest()
        paths.Parameters.BrowsePaths = [ua.BrowsePath(StartingNode=ua.NodeId(85)) for _ in range(11)]
        translated = raw.send(paths, ua.TranslateBrowsePathsToNodeIdsResponse)
        assert await _refused(translated) == "BadTooManyOperations"


async def test_there_is_no_history(plc: OpcUaDevice) -> None:
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails()
    async with connected(plc.endpoint) as raw:
        request.Parameters.NodesToRead = [ua.HistoryReadValueId(NodeId=raw.node(tags(plc)[0]))]
        assert await _refused(raw.send(request, ua.HistoryReadResponse)) == "BadServiceUnsupported"


async def test_nothing_can_be_written(plc: OpcUaDevice) -> None:
    request = ua.WriteRequest()
    async with connected(plc.endpoint) as raw:
        node = raw.node(S7 + '"DB_Line"."Placed"')
        value = ua.DataValue(ua.Variant(1, ua.VariantType.UInt32))
        request.Parameters.NodesToWrite = [ua.WriteValue(NodeId=node, AttributeId=13, Value=value)]
        (status,) = (await raw.send(request, ua.WriteResponse)).Results
    assert status.name == "BadUserAccessDenied"


async def test_a_message_stays_available_until_it_is_acknowledged(plc: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, tags(plc)[:3])
        message = (await raw.publish()).NotificationMessage
        number = message.SequenceNumber
        for _ in range(2):
            again = await raw.republish(subscription, number)
            assert again.SequenceNumber == number
            assert again.NotificationData[0].MonitoredItems == message.NotificationData[0].MonitoredItems
        result = await raw.publish((subscription, number), (subscription, number), (subscription + 1, 1))
        assert [status.name for status in result.Results] == [
            "Good", "BadSequenceNumberUnknown", "BadSubscriptionIdInvalid",
        ]  # fmt: skip
        assert await _refused(raw.republish(subscription, number)) == "BadMessageNotAvailable"
        assert await _refused(raw.republish(subscription + 1, 1)) == "BadSubscriptionIdInvalid"
    records = [r for r in read_truth(tmp_path / "plc.ndjson") if r["kind"] == "value" and r["sequence"] == number]
    assert [record.get("republished", False) for record in records] == [False] * 3 + [True] * 6


async def test_a_subscription_without_news_keeps_itself_alive_and_says_when(plc: OpcUaDevice) -> None:
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe(interval=200, keep_alive=2)
        await raw.monitor(subscription, [S7 + '"DB_Order"."Planned"'])
        first = (await raw.publish()).NotificationMessage
        second = (await raw.publish((subscription, first.SequenceNumber))).NotificationMessage
    assert second.NotificationData == []
    assert second.SequenceNumber == first.SequenceNumber + 1, "a keep-alive announces the next number and takes none"
    assert second.PublishTime > first.PublishTime


async def test_without_a_subscription_of_its_own_a_session_cannot_publish(plc: OpcUaDevice) -> None:
    async with connected(plc.endpoint) as one, connected(plc.endpoint) as other:
        await one.subscribe()
        assert await _refused(other.publish()) == "BadNoSubscription"


async def test_intervals_are_revised_as_the_plc_can(plc: OpcUaDevice) -> None:
    request = ua.CreateSubscriptionRequest()
    request.Parameters.RequestedPublishingInterval = 10.0
    request.Parameters.RequestedMaxKeepAliveCount = 50
    request.Parameters.RequestedLifetimeCount = 10
    async with connected(plc.endpoint) as raw:
        revised = (await raw.send(request, ua.CreateSubscriptionResponse)).Parameters
        results = await raw.monitor(revised.SubscriptionId, tags(plc)[:1])
    assert (revised.RevisedPublishingInterval, revised.RevisedMaxKeepAliveCount) == (200.0, 50)
    assert revised.RevisedLifetimeCount == 150
    assert results[0].RevisedSamplingInterval == 100.0


async def test_timestamps_are_those_that_were_asked_for(plc: OpcUaDevice) -> None:
    node = S7 + '"DB_Line"."Placed"'
    which = ua.TimestampsToReturn
    async with connected(plc.endpoint) as raw:
        for asked, source, server in ((which.Source, True, False), (which.Server, False, True), (which.Both, True, True),
                                      (which.Neither, False, False)):  # fmt: skip
            (value,) = await raw.read(node, timestamps=asked)
            assert (value.SourceTimestamp is not None, value.ServerTimestamp is not None) == (source, server)
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [node], timestamps=which.Source)
        (item, *_) = await raw.changes(subscription, bool)
    assert item.Value.SourceTimestamp is not None
    assert item.Value.ServerTimestamp is None


async def test_a_deadband_counts_from_the_value_last_reported(plc: OpcUaDevice) -> None:
    flt = ua.DataChangeFilter(
        Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=ua.DeadbandType.Absolute, DeadbandValue=3.0
    )
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [S7 + '"DB_Line"."Placed"'], flt=flt)
        items = await raw.changes(subscription, lambda found: len(found) >= 3, seconds=20)
    values = [item.Value.Value.Value for item in items]
    assert [after - before for before, after in pairwise(values)] == [4] * (len(values) - 1)


async def test_a_full_queue_loses_the_oldest_and_says_so(plc: OpcUaDevice, tmp_path: Path) -> None:
    async with connected(plc.endpoint) as raw:
        subscription = await raw.subscribe()
        await raw.monitor(subscription, [S7 + '"DB_Line"."Placed"'], queue=2)
        before = (await raw.changes(subscription, bool))[-1].Value.Value.Value
        placed = before

        async def look() -> int:
            (value,) = await raw.read(S7 + '"DB_Line"."Placed"')
            return int(value.Value.Value)

        while placed < before + 5:
            placed = await look()
        items = (await raw.publish()).NotificationMessage.NotificationData[0].MonitoredItems
    assert [item.Value.StatusCode.value & 0x480 for item in items] == [0x480, 0]
    assert items[-1].Value.Value.Value >= placed
    last = [r for r in read_truth(tmp_path / "plc.ndjson") if r["kind"] == "value"][-2:]
    assert [record["status"] for record in last] == [0x480, 0], "the truth is what left, overflow bit included"


async def test_a_subscription_can_be_taken_over_by_another_session(plc: OpcUaDevice) -> None:
    node = S7 + '"DB_Line"."Placed"'
    async with connected(plc.endpoint) as one:
        subscription = await one.subscribe()
        await one.monitor(subscription, [node])
        first = (await one.publish()).NotificationMessage
        async with connected(plc.endpoint) as other:
            request = ua.TransferSubscriptionsRequest()
            request.Parameters.SubscriptionIds = [subscription]
            (result,) = (await other.send(request, ua.TransferSubscriptionsResponse)).Parameters.Results
            assert result.StatusCode.is_good()
            assert list(result.AvailableSequenceNumbers) == [first.SequenceNumber]
            assert (await other.republish(subscription, first.SequenceNumber)).NotificationData
            items = await other.changes(subscription, bool)
    assert items[0].Value.Value.Value > first.NotificationData[0].MonitoredItems[0].Value.Value.Value


async def test_a_session_survives_its_connection_and_nothing_is_lost_meanwhile(plc: OpcUaDevice) -> None:
    """The values of the time without a connection wait in the subscription: nobody pretends to have sent them."""
    node = S7 + '"DB_Line"."Placed"'
    async with connected(plc.endpoint) as one:
        subscription = await one.subscribe()
        await one.monitor(subscription, [node])
        first = (await one.publish()).NotificationMessage.NotificationData[0].MonitoredItems[0].Value.Value.Value
        # requests that the server will find when the connection is gone
        for _ in range(3):
            request = ua.PublishRequest()
            one.client.uaclient.protocol._send_request(request, 60)
        one.client.uaclient.protocol.transport.abort()
    assert plc.sessions == 1
    async with connected(plc.endpoint) as other:
        (value,) = await other.read(node)
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [subscription]
        await other.send(request, ua.TransferSubscriptionsResponse)
        acks = [(subscription, number) for number in (1,)]
        items: list[int] = []
        while not items or items[-1] < value.Value.Value + 2:
            result = await other.publish(*acks)
            acks = []
            for notification in result.NotificationMessage.NotificationData:
                items += [item.Value.Value.Value for item in notification.MonitoredItems]
    assert items == list(range(first + 1, first + 1 + len(items)))


async def test_conditions_are_told_again_on_refresh() -> None:
    model = MachiningModel(1)
    settings = DeviceSettings("mt-01", TruthLog(None, "mt-01"), 1, 1.0)
    device = OpcUaDevice(settings, MACHINING, model)
    await device.start("127.0.0.1", 0)
    try:
        model.machine._interrupt(ALERTS[1])  # lasts a minute and more
        async with connected(device.endpoint) as raw:
            subscription = await raw.subscribe()
            everything = "i=2041"
            await raw.monitor_events(subscription, "i=2253", everything, [("0:EventType",), ("0:Retain",), ()])
            light = device.variables["Monitoring/Stacklight/Element_0/SignalOn"]
            watch = await raw.subscribe()
            await raw.monitor(watch, [light])
            await raw.changes(watch, lambda found: bool(found and found[-1].Value.Value.Value))
            events = await _refresh(raw, subscription)
    finally:
        await device.stop()
    assert [event[0].Identifier for event in events if event[0].NamespaceIndex == 0] == [2787, 2788]
    (inside,) = events[1:-1]
    assert inside[1] is True
    assert inside[2].Identifier == f"Notification.Messages.{ALERTS[1].code}"


async def _refresh(raw: Raw, subscription: int) -> list[list[Any]]:
    """ConditionRefresh (OPC 10000-9 §5.5.7), and the events from its start to its end."""
    request = ua.CallRequest()
    call = ua.CallMethodRequest()
    call.ObjectId = ua.NodeId(ua.ObjectIds.ConditionType)
    call.MethodId = ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh)
    call.InputArguments = [ua.Variant(subscription, ua.VariantType.UInt32)]
    request.Parameters.MethodsToCall = [call]
    (result,) = (await raw.send(request, ua.CallResponse)).Results
    assert result.StatusCode.is_good()
    found: list[list[Any]] = []
    while not any(event[0].Identifier == 2788 for event in found):
        found += await raw.fired(subscription, 1)
    start = next(i for i, event in enumerate(found) if event[0].Identifier == 2787)
    end = next(i for i, event in enumerate(found) if event[0].Identifier == 2788)
    return found[start : end + 1]


async def test_a_dead_session_ends_by_itself(plc: OpcUaDevice) -> None:
    async with connected(plc.endpoint) as raw:
        await raw.subscribe()
        server = plc._server
        assert server is not None
        (session,) = server.iserver._external_sessions.values()
        session.session_timeout = 0.2
        session._timeout_task.cancel()
        session._timeout_task = None
        session._start_timeout_watchdog()
        raw.client.uaclient.protocol.transport.abort()
        await until(lambda: plc.sessions == 0)
    assert plc.subscriptions == 0
