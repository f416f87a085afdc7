"""A bare OPC UA client for the tests: asyncua's connection and codec, but requests are sent one by one, as each test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from asyncua import Client, ua
from asyncua.ua.ua_binary import struct_from_binary

__all__ = ["Raw", "connected", "until"]


class Raw:
    """A session whose PublishRequests and acknowledgements are sent by hand."""

    def __init__(self, client: Any, namespaces: list[str]) -> None:
        self.client = client
        self.namespaces = namespaces

    async def send(self, request: Any, response: Any, timeout: float = 10.0) -> Any:
        """The answer of the service; raises ua.UaStatusCodeError for a service fault."""
        buffer = await self.client.uaclient.protocol.send_request(request, timeout)
        answer = struct_from_binary(response, buffer)
        answer.ResponseHeader.ServiceResult.check()
        return answer

    def node(self, text: str) -> Any:
        """The NodeId of ``nsu=…;s=…`` or ``i=…``."""
        if not text.startswith("nsu="):
            return ua.NodeId.from_string(text)
        uri, _, identifier = text.removeprefix("nsu=").partition(";")
        kind, _, value = identifier.partition("=")
        return ua.NodeId(int(value) if kind == "i" else value, self.namespaces.index(uri))

    async def read(self, *nodes: str, attribute: Any = ua.AttributeIds.Value, timestamps: Any = None) -> list[Any]:
        """The DataValues of these nodes."""
        request = ua.ReadRequest()
        if timestamps is not None:
            request.Parameters.TimestampsToReturn = timestamps
        else:
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=self.node(node), AttributeId=attribute) for node in nodes
        ]
        return list((await self.send(request, ua.ReadResponse)).Results)

    async def subscribe(self, interval: float = 100.0, keep_alive: int = 10, lifetime: int = 100) -> int:
        """Create a subscription; its id."""
        request = ua.CreateSubscriptionRequest()
        parameters = request.Parameters
        parameters.RequestedPublishingInterval = interval
        parameters.RequestedMaxKeepAliveCount = keep_alive
        parameters.RequestedLifetimeCount = lifetime
        parameters.PublishingEnabled = True
        answer = await self.send(request, ua.CreateSubscriptionResponse)
        return int(answer.Parameters.SubscriptionId)

    async def monitor(
        self, subscription: int, nodes: Iterable[str], *, queue: int = 100, timestamps: Any = None, flt: Any = None
    ) -> list[Any]:
        """Create monitored items with the client handles 0, 1, …; their results."""
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both if timestamps is None else timestamps
        for handle, node in enumerate(nodes):
            item = ua.MonitoredItemCreateRequest()
            item.ItemToMonitor = ua.ReadValueId(NodeId=self.node(node), AttributeId=ua.AttributeIds.Value)
            item.MonitoringMode = ua.MonitoringMode.Reporting
            item.RequestedParameters.ClientHandle = handle
            item.RequestedParameters.SamplingInterval = 100.0
            item.RequestedParameters.QueueSize = queue
            item.RequestedParameters.Filter = flt
            request.Parameters.ItemsToCreate.append(item)
        return list((await self.send(request, ua.CreateMonitoredItemsResponse)).Results)

    async def monitor_events(
        self, subscription: int, notifier: str, event_type: str, fields: Iterable[tuple[str, ...]]
    ) -> Any:
        """Create one event item; *fields* are paths of ``namespace:name`` steps. Its result."""
        selected = []
        for path in fields:
            steps = [step.partition(":") for step in path]
            names = [ua.QualifiedName(name, int(index)) for index, _, name in steps]
            attribute = ua.AttributeIds.Value if names else ua.AttributeIds.NodeId
            base = ua.NodeId(ua.ObjectIds.BaseEventType)
            selected.append(ua.SimpleAttributeOperand(TypeDefinitionId=base, BrowsePath=names, AttributeId=attribute))
        of_type = ua.ContentFilterElement()
        of_type.FilterOperator = ua.FilterOperator.OfType
        of_type.FilterOperands = [ua.LiteralOperand(Value=ua.Variant(self.node(event_type), ua.VariantType.NodeId))]
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor = ua.ReadValueId(NodeId=self.node(notifier), AttributeId=ua.AttributeIds.EventNotifier)
        item.MonitoringMode = ua.MonitoringMode.Reporting
        item.RequestedParameters.QueueSize = 1000
        item.RequestedParameters.Filter = ua.EventFilter(
            SelectClauses=selected, WhereClause=ua.ContentFilter(Elements=[of_type])
        )
        request.Parameters.ItemsToCreate.append(item)
        (result,) = (await self.send(request, ua.CreateMonitoredItemsResponse)).Results
        return result

    async def publish(self, *acks: tuple[int, int], timeout: float = 10.0) -> Any:
        """One PublishRequest with these (subscription, sequence number) acknowledged; the PublishResult."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(SubscriptionId=subscription, SequenceNumber=number)
            for subscription, number in acks
        ]
        return (await self.send(request, ua.PublishResponse, timeout)).Parameters

    async def republish(self, subscription: int, number: int) -> Any:
        """The NotificationMessage that Republish gives."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = number
        return (await self.send(request, ua.RepublishResponse)).NotificationMessage

    async def changes(self, subscription: int, enough: Callable[[list[Any]], bool], seconds: float = 10.0) -> list[Any]:
        """Publish and acknowledge until *enough* says so of all MonitoredItemNotifications so far; those."""
        found: list[Any] = []
        acks: list[tuple[int, int]] = []
        deadline = time.monotonic() + seconds
        while not enough(found):
            assert time.monotonic() < deadline, f"not enough within {seconds} s: {found}"
            result = await self.publish(*acks)
            acks = []
            if result.NotificationMessage.NotificationData:
                acks = [(subscription, result.NotificationMessage.SequenceNumber)]
            for notification in result.NotificationMessage.NotificationData:
                found += getattr(notification, "MonitoredItems", [])
        return found

    async def fired(self, subscription: int, count: int, seconds: float = 15.0) -> list[list[Any]]:
        """Publish until *count* events came; the plain values of their fields."""
        found: list[list[Any]] = []
        deadline = time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} events within {seconds} s"
            result = await self.publish()
            for notification in result.NotificationMessage.NotificationData:
                for event in getattr(notification, "Events", []):
                    found.append([field.Value for field in event.EventFields])
        return found


@asynccontextmanager
async def connected(endpoint: str, timeout: float = 5.0) -> AsyncIterator[Raw]:
    """A session at *endpoint*, closed at the end as far as the server still answers."""
    client = Client(endpoint, timeout=timeout, watchdog_intervall=1000.0)
    client.session_timeout = 60_000
    await client.connect()
    try:
        yield Raw(client, list(await client.get_namespace_array()))
    finally:
        try:
            await client.disconnect()
        except (ConnectionError, TimeoutError, ua.UaError):
            pass  # the test took the server away


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until *condition* holds; fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        await asyncio.sleep(0.02)
