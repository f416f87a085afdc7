"""CreateSubscription and CreateMonitoredItems (OPC 10000-4 §5.13, §5.14) within the server's limits."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua

from adapters.contract import DeviceSpec, Point
from adapters.opcua import _limits as limits
from adapters.opcua._addresses import node_text
from adapters.opcua._resolve import Unresolved, address_of, rules_of
from adapters.opcua._session import Session
from adapters.opcua._subscription import Group, Subscription, revised_sampling
from adapters.opcua._types import STRUCTURED
from adapters.opcua.settings import LinkSettings
from schemas import status as codes
from schemas.bilingual import Bilingual
from schemas.profile import Group as GroupOptions

log = logging.getLogger("guantong.opcua")

BAD_TOO_MANY_MONITORED_ITEMS: Final = 0x80DB0000
_VALUE: Final = 13
_SLACK: Final = 10
"""Samples that a server's queue holds beyond those of two publishing intervals, for a late PublishRequest."""
_DEFAULT: Final = GroupOptions()
_JUST_BELOW: Final = 1 - 2**-30
"""A server reports what differs by more than the deadband, the gateway stores what differs by as much."""
_TRIGGERS: Final = {
    "status": ua.DataChangeTrigger.Status,
    "status-value": ua.DataChangeTrigger.StatusValue,
    "status-value-timestamp": ua.DataChangeTrigger.StatusValueTimestamp,
}
_FILTER_REFUSED: Final = frozenset({0x80430000, 0x80440000, 0x80450000, 0x808E0000})
"""BadMonitoredItemFilterInvalid, BadMonitoredItemFilterUnsupported, BadFilterNotAllowed, BadDeadbandFilterInvalid."""
_PER_NOTIFICATION: Final = 10_000
"""Most values in one notification: what keeps a message, and the pause to decode it, small."""


@dataclass(slots=True)
class Item:
    """A point as a monitored item of this session."""

    device: DeviceSpec
    point: Point
    group: Group
    node: Any = None
    """NodeId of this session, or `Unresolved`."""
    item_id: int | None = None
    subscription: Subscription | None = None
    queue: int = 0
    """Values that its queue holds at the server."""
    reported: bool = False
    """The host was told of its trouble."""
    pause: float = 0.0
    due: float = math.inf
    """Monotonic time of the next attempt."""
    created: float = -math.inf
    """Monotonic time at which it was made last."""
    read_only: bool = False
    """It is read on a grid and not monitored."""
    filtered: bool = False
    """Its deadband is applied by the server."""
    plain: bool = False
    """The server refused its filter: it is monitored without one."""

    @property
    def options(self) -> GroupOptions:
        """What is configured of its group."""
        return self.device.options.get(self.point.group, _DEFAULT)

    @property
    def may_be_filtered(self) -> bool:
        """Whether its deadband may be applied by the server, once that has shown to be worth it."""
        trigger = address_of(self.point).trigger or self.options.trigger
        apart = self.read_only or self.plain or self.options.mode != "subscribe" or trigger == "status"
        return bool(self.point.deadband) and not apart and rules_of(self.device).deadband == "server"

    @property
    def alive(self) -> bool:
        """Whether it is monitored, or can be read."""
        if self.read_only:
            return self.node is not None and not isinstance(self.node, Unresolved)
        return self.item_id is not None

    @property
    def structured(self) -> bool:
        """Whether its node is known, and its values may be structures, whose types are to be known."""
        return self.point.type in STRUCTURED and self.node is not None and not isinstance(self.node, Unresolved)

    def made(self, now: float) -> None:
        """It is alive; its next trouble begins with the shortest pause again, unless that comes soon."""
        self.due, self.created = math.inf, now

    def postpone(self, settings: LinkSettings, now: float) -> None:
        """The next attempt comes after twice the last pause, with jitter, so that items do not come back in a swarm."""
        if now - self.created > 2 * settings.item_retry_max:
            self.pause = 0.0
        self.pause = min(self.pause * 2, settings.item_retry_max) if self.pause else settings.item_retry
        self.due = now + self.pause * random.uniform(0.75, 1.25)


def subscription_request(period: float, settings: LinkSettings) -> Any:
    """Keep-alives about once a second, and after three publishing intervals at the latest, so that silence shows and progress is told; a
    lifetime as long as the session's."""
    keep_alive = max(1, min(3, round(1.0 / period)))
    request = ua.CreateSubscriptionRequest()
    parameters = request.Parameters
    parameters.RequestedPublishingInterval = period * 1_000
    parameters.RequestedMaxKeepAliveCount = keep_alive
    parameters.RequestedLifetimeCount = max(3 * keep_alive, math.ceil(settings.session_timeout / period))
    parameters.MaxNotificationsPerPublish = _PER_NOTIFICATION
    parameters.PublishingEnabled = True
    parameters.Priority = 0
    return request


def data_change_filter(item: Item, deadband: bool) -> Any:
    """The DataChangeFilter (OPC 10000-4 §7.22.2) that the item asks for; None where the server's default is just that.

    The deadband is an absolute one: the profile's ranges are known here, and few servers have an EURange at the node.
    """
    trigger = address_of(item.point).trigger or item.options.trigger
    band = item.point.deadband if deadband else 0.0
    if item.plain or (trigger == "status-value" and not band):
        return None
    wanted = ua.DataChangeFilter()
    wanted.Trigger = _TRIGGERS[trigger]
    wanted.DeadbandType = int(ua.DeadbandType.Absolute if band else ua.DeadbandType.None_)
    wanted.DeadbandValue = float(band) * _JUST_BELOW
    return wanted


def _item_request(item: Item, publishing: float) -> Any:
    address, options = address_of(item.point), item.options
    sampling = next((s for s in (address.sampling, options.sampling) if s is not None), item.group.period)
    per_publish = math.ceil(publishing / sampling) if sampling > 0 else 100
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node
    request.ItemToMonitor.AttributeId = ua.AttributeIds(_VALUE)
    request.MonitoringMode = ua.MonitoringMode.Reporting
    parameters = request.RequestedParameters
    parameters.ClientHandle = item.point.id
    parameters.SamplingInterval = sampling * 1_000
    parameters.QueueSize = address.queue or options.queue or 2 * per_publish + _SLACK
    parameters.DiscardOldest = (address.discard or options.discard) == "oldest"
    wanted = data_change_filter(item, item.filtered)
    if wanted is not None:
        parameters.Filter = wanted
    return request


async def create_items(
    session: Session, subscription: Subscription, items: Sequence[Item], *, initial: bool = True
) -> list[Item]:
    """Creates the items, whose nodes are resolved; those that the server refuses get an `Unresolved` as node.

    Gives back those for which this subscription has no room left. `initial`: their first values may be old ones, and are
    flagged so; not for items that take the place of others.
    """

    async def call(piece: Sequence[Item]) -> list[Any]:
        for item in piece:  # before the call: its first notification may overtake the answer
            if initial:
                subscription.initial.add(item.point.id)
            subscription.points.add(item.point.id)
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [_item_request(item, subscription.publishing) for item in piece]
        return list((await session.call(request, ua.CreateMonitoredItemsResponse)).Results)

    results = await session.limits.calls(limits.MONITOR, items, call)
    surplus: list[Item] = []
    refused: list[Item] = []
    for item, result in zip(items, results, strict=True):
        status = int(result.StatusCode.value)
        if not codes.is_bad(status):
            item.item_id = result.MonitoredItemId
            item.subscription = subscription
            item.queue = int(result.RevisedQueueSize)
            if item.reported:
                subscription.troubled.add(item.point.id)
            subscription.sampling = max(subscription.sampling, revised_sampling(result, subscription.publishing))
            continue
        subscription.initial.discard(item.point.id)
        subscription.points.discard(item.point.id)
        if status & codes.CODE_MASK == BAD_TOO_MANY_MONITORED_ITEMS:
            surplus.append(item)
        elif status & codes.CODE_MASK in _FILTER_REFUSED and not item.plain:
            item.plain = True
            refused.append(item)
        else:
            info = codes.info(status)
            where = f"{info.name}: {node_text(item.node, session.namespaces)}"
            problem = Bilingual(f"{where}: {info.text_en}", f"{where}：{info.text_zh}")
            item.node = Unresolved(status, problem)
    if refused:
        log.info(
            "%s: %d item(s) without a filter, which the server refuses, first %s",
            session.settings.endpoint, len(refused), refused[0].point.signal,
        )  # fmt: skip
        surplus += await create_items(session, subscription, refused, initial=initial)
    return surplus


async def delete_items(session: Session, subscription: Subscription, item_ids: Sequence[int]) -> None:
    """Deletes monitored items whose nodes are gone. That the server has trouble with it (asyncua's has) is no trouble: an item without
    a node sends nothing."""

    async def call(piece: Sequence[int]) -> list[Any]:
        request = ua.DeleteMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.MonitoredItemIds = list(piece)
        return list((await session.call(request, ua.DeleteMonitoredItemsResponse)).Results)

    try:
        await session.limits.calls(limits.MONITOR, item_ids, call)
    except ua.UaStatusCodeError as error:
        log.debug("%s: DeleteMonitoredItems: %s", session.settings.endpoint, error)
