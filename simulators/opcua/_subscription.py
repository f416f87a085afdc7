"""Subscriptions that write what they hand out, and that keep to OPC 10000-4 where asyncua 2.1 does not.

The truth is written in :meth:`Subscription._pop_publish_result`: that is called only when a PublishRequest is at hand,
and the response is sent right after it without giving way to anything. What differs from asyncua besides:

- Republish of an unknown message is BadMessageNotAvailable, and a republished message stays available until it is
  acknowledged (asyncua answers an empty Good message, at which its own client asks again for ever);
- acknowledging an unknown number is answered BadSequenceNumberUnknown;
- a full queue sets the overflow bit; deadbands compare with the value last reported, in percent too;
- events reach the notifiers above their source and the Server object; OfType includes subtypes;
- a transferred subscription takes its PublishRequests from the new connection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService, WhereClauseEvaluator
from asyncua.server.subscription_service import SubscriptionService

from simulators.opcua._clock import DeviceClock
from simulators.opcua._events import SimulatedEvent, base_fields
from simulators.opcua._values import data_value_record, node_text
from simulators.truth import TruthLog

__all__ = ["Subscriptions"]

MIN_SAMPLING_MS = 100.0
_OVERFLOW = 0x480  # InfoType DataValue with the Overflow bit, OPC 10000-4 §7.39.1


class _WhereClause(WhereClauseEvaluator):  # type: ignore[misc]  # asyncua is untyped here
    def _eval_el(self, index: int, event: SimulatedEvent) -> Any:
        element = self.elements[index]
        if element.FilterOperator == ua.FilterOperator.OfType:
            return self._eval_op(element.FilterOperands[0], event) in event.supertypes
        return super()._eval_el(index, event)

    def _eval_op(self, op: Any, event: SimulatedEvent) -> Any:
        if isinstance(op, ua.SimpleAttributeOperand):
            return event.to_event_fields([op])[0].Value
        return super()._eval_op(op, event)


class _Items(MonitoredItemService):  # type: ignore[misc]  # asyncua is untyped here
    """The monitored items of one subscription."""

    def __init__(self, subscription: Subscription, space: Any) -> None:
        super().__init__(subscription, space)
        self.nodes: dict[int, str] = {}
        """Node of each item as the truth log writes it; kept after an item is deleted, for what is still queued."""
        self._returned: dict[int, Any] = {}
        self._asked = ua.TimestampsToReturn.Both

    async def create_monitored_items(self, params: Any) -> Any:
        self._asked = params.TimestampsToReturn
        return await super().create_monitored_items(params)

    def _make_monitored_item_common(self, params: Any) -> Any:
        result, item = super()._make_monitored_item_common(params)
        asked = params.RequestedParameters.SamplingInterval
        if asked < 0:
            asked = self.isub.data.RevisedPublishingInterval
        result.RevisedSamplingInterval = max(asked, MIN_SAMPLING_MS)
        return result, item

    def _commit_monitored_item(self, result: Any, mdata: Any) -> None:
        super()._commit_monitored_item(result, mdata)
        self.nodes[result.MonitoredItemId] = node_text(mdata.read_value_id.NodeId, self.isub.namespaces)
        self._returned[result.MonitoredItemId] = self._asked

    def _create_events_monitored_item(self, params: Any) -> Any:
        result = super()._create_events_monitored_item(params)
        if result.StatusCode.is_good():
            item = self._monitored_items[result.MonitoredItemId]
            item.where_clause_evaluator = _WhereClause(self.logger, self.aspace, item.filter.WhereClause)
        return result

    async def trigger_datachange(self, handle: int, nodeid: Any, attr: Any) -> None:
        """The first notification: the value as it is, with the server's time of now."""
        value = self.aspace.read_attribute_value(nodeid, attr)
        if attr == ua.AttributeIds.Value:
            value = dataclasses.replace(value, ServerTimestamp=self.isub.clock.now())
        await self.datachange_callback(handle, value)

    async def datachange_callback(self, handle: int, value: Any, error: Any = None) -> None:
        item_id = self._monitored_datachange.get(handle)
        if item_id is None:
            return
        item = self._monitored_items[item_id]
        if item.mode == ua.MonitoringMode.Disabled:
            return
        if not self._to_report(item, item.mvalue.current_dvalue, value):
            return
        item.mvalue.old_dvalue, item.mvalue.current_dvalue = item.mvalue.current_dvalue, value
        returned = self._returned.get(item_id, ua.TimestampsToReturn.Both)
        if returned != ua.TimestampsToReturn.Both:
            value = restrict_timestamps(value, returned)
        notification = ua.MonitoredItemNotification(ClientHandle=item.client_handle, Value=value)
        await self.isub.enqueue_datachange_event(item_id, notification, item.queue_size)

    def _to_report(self, item: Any, last: Any, value: Any) -> bool:
        """Whether *value* is to be reported after *last* (OPC 10000-4 §7.22.2, OPC 10000-8 §7.2)."""
        if last is None:
            return True
        # asyncua decodes another DataChangeFilter than the one it exports: its fields tell
        change = item.filter if hasattr(item.filter, "DeadbandType") else None
        trigger = change.Trigger if change is not None else ua.DataChangeTrigger.StatusValue
        if last.StatusCode != value.StatusCode:
            return True
        if trigger == ua.DataChangeTrigger.StatusValueTimestamp and last.SourceTimestamp != value.SourceTimestamp:
            return True
        if trigger == ua.DataChangeTrigger.Status or last.Value == value.Value:
            return False
        if change is None or change.DeadbandType == ua.DeadbandType.None_:
            return True
        width = change.DeadbandValue
        if change.DeadbandType == ua.DeadbandType.Percent:
            width *= self._span(item.read_value_id.NodeId) / 100
        new, old = value.Value.Value, last.Value.Value
        if isinstance(new, int | float) and isinstance(old, int | float):
            return bool(abs(new - old) > width)
        return True

    def _span(self, nodeid: Any) -> float:
        """Width of the EURange of a node; 0, so that every change is reported, when it has none."""
        for reference in self.aspace[nodeid].references:
            if reference.IsForward and reference.BrowseName == ua.QualifiedName("EURange", 0):
                value = self.aspace.read_attribute_value(reference.NodeId, ua.AttributeIds.Value).Value.Value
                return float(value.High - value.Low)
        return 0.0

    def _delete_monitored_items(self, mid: int) -> Any:
        try:
            return super()._delete_monitored_items(mid)
        except KeyError:
            # The node was removed meanwhile (fault `missing`): asyncua looks for it to take its callback away. The
            # node keeps the callback; datachange_callback ignores a handle that no item has.
            for handle, owner in list(self._monitored_datachange.items()):
                if owner == mid:
                    del self._monitored_datachange[handle]
            self._monitored_items.pop(mid, None)
            return ua.StatusCode()

    async def trigger_event(self, event: SimulatedEvent, mid: int | None = None) -> bool:
        items = [item for notifier in event.notifiers for item in self._monitored_events.get(notifier, ())]
        for item in items if mid is None else [mid]:
            await self._trigger_event(event, item)
        return bool(items)

    async def _trigger_event(self, event: SimulatedEvent, mid: int) -> None:
        item = self._monitored_items.get(mid)
        if item is None or item.mode != ua.MonitoringMode.Reporting or not item.where_clause_evaluator.eval(event):
            return
        selected = ua.EventFieldList(
            ClientHandle=item.client_handle, EventFields=event.to_event_fields(item.filter.SelectClauses)
        )
        await self.isub.enqueue_simulated_event(mid, selected, event, item.queue_size)


class Subscription(InternalSubscription):  # type: ignore[misc]  # asyncua is untyped here
    """One subscription of a client."""

    monitored_item_srv: Any
    _triggered_events: dict[int, list[Any]]

    def __init__(self, *args: Any, truth: TruthLog, clock: DeviceClock, namespaces: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.truth = truth
        self.clock = clock
        self.namespaces = namespaces
        self.monitored_item_srv = _Items(self, self.monitored_item_srv.aspace)
        self._records: dict[int, list[dict[str, Any]]] = {}

    async def enqueue_datachange_event(self, mid: int, eventdata: Any, maxsize: int) -> None:
        queue = self._triggered_datachanges.get(mid)
        if queue is None:
            self._triggered_datachanges[mid] = [eventdata]
            await self._trigger_publish()
            return
        queue.append(eventdata)
        if maxsize and len(queue) > maxsize:
            del queue[0]
            if maxsize > 1:
                oldest = queue[0].Value
                status = ua.StatusCode((oldest.StatusCode.value if oldest.StatusCode else 0) | _OVERFLOW)
                queue[0].Value = dataclasses.replace(oldest, StatusCode=status)

    async def enqueue_simulated_event(self, mid: int, selected: Any, event: SimulatedEvent, maxsize: int) -> None:
        """Queue *event* for item *mid* with its *selected* fields."""
        await self._enqueue_event(mid, (selected, event), maxsize, self._triggered_events)

    def _pop_triggered_events(self, result: Any) -> None:
        queues, self._triggered_events = self._triggered_events, {}
        if queues:
            pairs = [pair for queue in queues.values() for pair in queue]
            events = ua.EventNotificationList(Events=[selected for selected, _ in pairs])
            result.NotificationMessage.NotificationData.append(events)

    def _pop_publish_result(self) -> Any:
        values = self._triggered_datachanges if self._publishing_enabled else {}
        events = self._triggered_events if self._publishing_enabled else {}
        result = super()._pop_publish_result()
        message = result.NotificationMessage
        message.PublishTime = self.clock.now()
        if self.truth.enabled and (values or events):
            handed = {"subscription": self.data.SubscriptionId, "sequence": message.SequenceNumber}
            nodes = self.monitored_item_srv.nodes
            records = [
                {"kind": "value", **data_value_record(nodes[mid], item.Value, self.namespaces), **handed}
                for mid, queue in values.items()
                for item in queue
            ]
            records += [{**event.record(self.namespaces), **handed} for queue in events.values() for _, event in queue]
            self._records[message.SequenceNumber] = records
            self.truth.write_many(records)
        for number in self._records.keys() - self._not_acknowledged_results.keys():
            del self._records[number]
        return result

    def acknowledge(self, number: int) -> Any:
        """Forget message *number*; the StatusCode for the response (OPC 10000-4 §5.14.5)."""
        known = self._not_acknowledged_results.pop(number, None) is not None
        return ua.StatusCode() if known else ua.StatusCode(ua.StatusCodes.BadSequenceNumberUnknown)

    def republish(self, nb: int) -> Any:
        result = self._not_acknowledged_results.get(nb)
        if result is None:
            raise ServiceError(ua.StatusCodes.BadMessageNotAvailable)
        self.truth.write_many({**record, "republished": True} for record in self._records.get(nb, ()))
        return result.NotificationMessage


class Subscriptions(SubscriptionService):  # type: ignore[misc]  # asyncua is untyped here
    """The subscriptions of one server."""

    def __init__(self, server: Any, truth: TruthLog, clock: DeviceClock, min_publishing: float = 100.0) -> None:
        """*server* is asyncua's InternalServer; *min_publishing* the shortest publishing interval in milliseconds."""
        super().__init__(server.aspace, iserver=server)
        self.truth = truth
        self.clock = clock
        self.namespaces: list[str] = []
        self._min_publishing = min_publishing

    async def create_subscription(
        self, params: Any, callback: Any, session_id: Any, request_callback: Any = None
    ) -> Any:
        if len(self.subscriptions) >= self.iserver.max_subscriptions:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        self._sub_id_counter += 1
        result = ua.CreateSubscriptionResult()
        result.SubscriptionId = self._sub_id_counter
        result.RevisedPublishingInterval = max(params.RequestedPublishingInterval, self._min_publishing)
        result.RevisedMaxKeepAliveCount = self._clamp_keep_alive_count(params.RequestedMaxKeepAliveCount)
        # OPC 10000-4 §5.14.2: the lifetime is at least three times the keep-alive
        lifetime = max(params.RequestedLifetimeCount, 3 * result.RevisedMaxKeepAliveCount)
        result.RevisedLifetimeCount = self._clamp_lifetime_count(lifetime)
        subscription = Subscription(
            result,
            self.aspace,
            callback,
            session_id,
            request_callback=request_callback,
            delete_callback=lambda: self.subscriptions.pop(result.SubscriptionId, None),
            no_acks_limit=self.iserver.max_unacked_messages_per_subscription,
            max_queue_size=self.iserver.max_monitored_item_queue_size,
            publishing_enabled=params.PublishingEnabled,
            truth=self.truth,
            clock=self.clock,
            namespaces=self.namespaces,
        )
        await subscription.start()
        self.subscriptions[result.SubscriptionId] = subscription
        return result

    def publish(self, acks: Iterable[Any]) -> tuple[int, list[Any]]:
        results = []
        for ack in acks:
            subscription = self.subscriptions.get(ack.SubscriptionId)
            if subscription is None:
                results.append(ua.StatusCode(ua.StatusCodes.BadSubscriptionIdInvalid))
            else:
                results.append(subscription.acknowledge(ack.SequenceNumber))
        return len(self.subscriptions), results

    def republish(self, params: Any) -> Any:
        subscription = self.subscriptions.get(params.SubscriptionId)
        if subscription is None:
            raise ServiceError(ua.StatusCodes.BadSubscriptionIdInvalid)
        return subscription.republish(params.RetransmitSequenceNumber)

    async def transfer_subscriptions(self, params: Any, session_id: Any, callback: Any) -> Any:
        results = await super().transfer_subscriptions(params, session_id, callback)
        for number in params.SubscriptionIds:
            subscription = self.subscriptions.get(int(number))
            if subscription is not None:
                subscription.pub_request_callback = callback.__self__.get_publish_request
        return results

    async def trigger_event(self, event: SimulatedEvent, subscription_id: int | None = None) -> None:
        if event.condition is not None:
            if event.retain:
                self._conditions[event.condition] = event
            else:
                self._conditions.pop(event.condition, None)
        for number, subscription in list(self.subscriptions.items()):
            if subscription_id is None or number == subscription_id:
                await subscription.monitored_item_srv.trigger_event(event)

    async def refresh(self, _parent: Any, number: Any, item: Any = None) -> Any:
        """ConditionRefresh and ConditionRefresh2 (OPC 10000-9 §5.5.7 and §5.5.8): tell the retained conditions again."""
        subscription = self.subscriptions.get(number.Value)
        if subscription is None:
            return ua.StatusCode(ua.StatusCodes.BadSubscriptionIdInvalid)
        items = subscription.monitored_item_srv
        only = None if item is None else item.Value
        if only is not None and only not in items.nodes:
            return ua.StatusCode(ua.StatusCodes.BadMonitoredItemIdInvalid)
        notifiers = tuple(items._monitored_events)
        await items.trigger_event(self._refresh_event(ua.ObjectIds.RefreshStartEventType, notifiers), only)
        for event in list(self._conditions.values()):
            await items.trigger_event(event, only)
        await items.trigger_event(self._refresh_event(ua.ObjectIds.RefreshEndEventType, notifiers), only)
        return []

    def _refresh_event(self, kind: int, notifiers: tuple[Any, ...]) -> SimulatedEvent:
        server, base = ua.NodeId(ua.ObjectIds.Server), ua.NodeId(ua.ObjectIds.BaseEventType)
        types = frozenset({ua.NodeId(kind), ua.NodeId(ua.ObjectIds.SystemEventType), base})
        event = SimulatedEvent(ua.NodeId(kind), types, server, notifiers, {})
        event.fields = base_fields(event.event_id, ua.NodeId(kind), server, "Server", self.clock.now(), "Refresh", 1)
        return event


def restrict_timestamps(value: Any, returned: Any) -> Any:
    """*value* with only the timestamps that a client asked for (OPC 10000-4 §7.45, TimestampsToReturn)."""
    wanted = ua.TimestampsToReturn
    changes: dict[str, Any] = {}
    if returned in (wanted.Server, wanted.Neither):
        changes["SourceTimestamp"] = None
    if returned in (wanted.Source, wanted.Neither):
        changes["ServerTimestamp"] = None
    return dataclasses.replace(value, **changes)
