"""Sessions that keep to the server's operation limits and write what a Read hands out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession

from simulators.opcua._subscription import restrict_timestamps
from simulators.opcua._values import data_value_record, node_text

__all__ = ["OperationLimits", "Session"]


@dataclass(frozen=True, slots=True)
class OperationLimits:
    """How many operations one call may hold (OPC 10000-5 §6.3.11); 0 means no limit. Announced and enforced."""

    read: int = 0
    browse: int = 0
    translate: int = 0
    register: int = 0
    write: int = 0
    call: int = 0
    monitored_items: int = 0
    history: bool = True
    """Whether there is a HistoryRead service at all."""

    def announced(self) -> dict[Any, int]:
        """Value of each variable under ``Server/ServerCapabilities/OperationLimits``."""
        prefix = "Server_ServerCapabilities_OperationLimits_Max"
        names = {
            "NodesPerRead": self.read,
            "NodesPerBrowse": self.browse,
            "NodesPerTranslateBrowsePathsToNodeIds": self.translate,
            "NodesPerRegisterNodes": self.register,
            "NodesPerWrite": self.write,
            "NodesPerMethodCall": self.call,
            "MonitoredItemsPerCall": self.monitored_items,
            "NodesPerHistoryReadData": 0,
            "NodesPerHistoryReadEvents": 0,
            "NodesPerHistoryUpdateData": 0,
            "NodesPerHistoryUpdateEvents": 0,
            "NodesPerNodeManagement": 0,
        }
        return {ua.NodeId(getattr(ua.ObjectIds, prefix + name)): value for name, value in names.items()}


def _check(items: Sequence[Any] | None, limit: int) -> None:
    if not items:
        raise ServiceError(ua.StatusCodes.BadNothingToDo)
    if limit and len(items) > limit:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)


class Session(InternalSession):  # type: ignore[misc]  # asyncua is untyped here
    """A client's session; its server is a :class:`simulators.opcua._server.InternalServer`."""

    async def read(self, params: Any) -> Any:
        limits: OperationLimits = self.iserver.limits
        _check(params.NodesToRead, limits.read)
        results = list(self.iserver.attribute_service.read(params))
        records = []
        service = self.subscription_service
        for index, wanted in enumerate(params.NodesToRead):
            if wanted.AttributeId != ua.AttributeIds.Value:
                continue
            value = dataclasses.replace(results[index], ServerTimestamp=service.clock.now())
            results[index] = value = restrict_timestamps(value, params.TimestampsToReturn)
            if service.truth.enabled:
                node = node_text(wanted.NodeId, service.namespaces)
                records.append({"kind": "read", **data_value_record(node, value, service.namespaces)})
        service.truth.write_many(records)
        return results

    async def write(self, params: Any) -> Any:
        _check(params.NodesToWrite, self.iserver.limits.write)
        return await super().write(params)

    async def browse(self, params: Any) -> Any:
        _check(params.NodesToBrowse, self.iserver.limits.browse)
        return await super().browse(params)

    async def translate_browsepaths_to_nodeids(self, params: Any) -> Any:
        _check(params, self.iserver.limits.translate)
        return await super().translate_browsepaths_to_nodeids(params)

    async def call(self, params: Any) -> Any:
        _check(params, self.iserver.limits.call)
        return await super().call(params)

    async def history_read(self, params: Any) -> Any:
        if not self.iserver.limits.history:
            raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
        return await super().history_read(params)

    async def create_monitored_items(self, params: Any) -> Any:
        _check(params.ItemsToCreate, self.iserver.limits.monitored_items)
        return await super().create_monitored_items(params)

    async def modify_monitored_items(self, params: Any) -> Any:
        _check(params.ItemsToModify, self.iserver.limits.monitored_items)
        return await super().modify_monitored_items(params)

    async def delete_monitored_items(self, params: Any) -> Any:
        _check(params.MonitoredItemIds, self.iserver.limits.monitored_items)
        return await super().delete_monitored_items(params)

    async def set_monitoring_mode(self, params: Any) -> Any:
        _check(params.MonitoredItemIds, self.iserver.limits.monitored_items)
        return await super().set_monitoring_mode(params)

    def publish(self, acks: Iterable[Any] | None = None) -> Any:
        subscriptions = self.subscription_service.subscriptions.values()
        if not any(subscription.session_id == self.session_id for subscription in subscriptions):
            raise ServiceError(ua.StatusCodes.BadNoSubscription)
        return super().publish(acks)
