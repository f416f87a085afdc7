"""A small OPC UA server for one device, made from asyncua's parts."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.user_managers import UserManager

from simulators.opcua._clock import DeviceClock
from simulators.opcua._session import OperationLimits, Session
from simulators.opcua._standard import standard_nodes
from simulators.opcua._subscription import Subscriptions
from simulators.opcua._transport import Behaviour, Listener
from simulators.truth import TruthLog

__all__ = ["DeviceServer"]

_SUMMARY = "Server_ServerDiagnostics_ServerDiagnosticsSummary_"


class _Operators(UserManager):  # type: ignore[misc]  # asyncua is untyped here
    """Everybody may read; nobody is an administrator."""

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        return User(role=UserRole.User)


class _InternalServer(InternalServer):  # type: ignore[misc]  # asyncua is untyped here
    """The services behind the connections."""

    time_task: asyncio.Task[None] | None

    def __init__(self, truth: TruthLog, clock: DeviceClock, limits: OperationLimits, min_publishing: float) -> None:
        super().__init__(user_manager=_Operators())
        self.allow_remote_admin = False
        self.truth = truth
        self.clock = clock
        self.limits = limits
        self.subscription_service = Subscriptions(self, truth, clock, min_publishing)
        self.isession.subscription_service = self.subscription_service

    async def load_standard_address_space(self, shelf_file: Any = None) -> None:
        self.aspace._nodes = await asyncio.to_thread(standard_nodes)

    def create_session(self, name: str, user: Any = None, external: bool = False) -> Any:
        user = user or User(role=UserRole.Anonymous)
        return Session(self, self.aspace, self.subscription_service, name, user=user, external=external)

    async def _set_current_time_loop(self) -> None:
        while True:
            now = self.clock.now()
            status = (await self.server_status_node.read_data_value()).Value.Value
            status.CurrentTime = now
            await self._set(self.server_status_node.nodeid, ua.Variant(status, ua.VariantType.ExtensionObject))
            await self._set(self.current_time_node.nodeid, ua.Variant(now, ua.VariantType.DateTime))
            await asyncio.sleep(1)

    async def _set(self, nodeid: Any, variant: Any) -> None:
        now = self.clock.now()
        value = ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
        await self.aspace.write_attribute_value(nodeid, ua.AttributeIds.Value, value)

    async def stop(self) -> None:
        # asyncua waits up to a second for its clock to notice
        if self.time_task is not None:
            self.time_task.cancel()
            await asyncio.gather(self.time_task, return_exceptions=True)
            self.time_task = None
        await super().stop()


class DeviceServer(Server):  # type: ignore[misc]  # asyncua is untyped here
    """An OPC UA server: security None, anonymous, read-only, on one port that can be closed and opened again."""

    bserver: Listener | None

    def __init__(
        self,
        name: str,
        application_uri: str,
        product: tuple[str, str, str, str],
        truth: TruthLog,
        clock: DeviceClock,
        limits: OperationLimits,
        min_publishing: float = 100.0,
    ) -> None:
        """*product* is product URI, manufacturer, product name and software version (OPC 10000-5 §12.4, BuildInfo)."""
        # asyncua writes every publish response to its log at INFO
        logging.getLogger("asyncua").setLevel(logging.WARNING)
        super().__init__(iserver=_InternalServer(truth, clock, limits, min_publishing))
        self.behaviour = Behaviour()
        self.application_type = ua.ApplicationType.Server
        self._application_uri = application_uri
        self.product_uri, self.manufacturer_name, self._product_name, self._software = product
        self.set_server_name(name)
        self.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self.set_identity_tokens([ua.AnonymousIdentityToken])

    async def init(self, shelf_file: Any = None) -> None:
        await super().init(shelf_file)
        self.iserver.subscription_service.namespaces[:] = await self.get_namespace_array()
        built = self.iserver.clock.now()
        await self.set_build_info(
            self.product_uri, self.manufacturer_name, self._product_name, self._software, "1", built
        )
        for node, limit in self.iserver.limits.announced().items():
            await self.iserver._set(node, ua.Variant(limit, ua.VariantType.UInt32))
        for method in (ua.ObjectIds.ConditionType_ConditionRefresh, ua.ObjectIds.ConditionType_ConditionRefresh2):
            self.iserver.isession.add_method_callback(ua.NodeId(method), self.iserver.subscription_service.refresh)
        for name, count in (("CurrentSessionCount", self.sessions), ("CurrentSubscriptionCount", self.subscriptions)):
            self._count(name, count)

    def _count(self, name: str, count: Any) -> None:
        def value(_node: Any, _attribute: Any) -> Any:
            now = self.iserver.clock.now()
            return ua.DataValue(ua.Variant(count(), ua.VariantType.UInt32), SourceTimestamp=now, ServerTimestamp=now)

        self.iserver.set_attribute_value_callback(ua.NodeId(getattr(ua.ObjectIds, _SUMMARY + name)), value)

    async def register_namespace(self, uri: str) -> int:
        index: int = await super().register_namespace(uri)
        self.iserver.subscription_service.namespaces[:] = await self.get_namespace_array()
        return index

    def sessions(self) -> int:
        """How many sessions are open."""
        return sum(session.is_activated() for session in self.iserver._external_sessions.values())

    def subscriptions(self) -> int:
        """How many subscriptions are open."""
        return len(self.iserver.subscription_service.subscriptions)

    async def serve(self, host: str, port: int) -> int:
        """Bind *host*:*port* and serve; the bound port.

        Raises:
            OSError: the port cannot be bound.
        """
        self.bserver = Listener(self.iserver, host, port, self.limits, self.behaviour)
        self.bserver.set_policies(self._policies)
        await self.bserver.listen()
        self.set_endpoint(f"opc.tcp://{host}:{self.bserver.port}")
        await self._setup_server_nodes()
        await self.iserver.start()
        return int(self.bserver.port)

    async def close_sessions(self) -> None:
        """End all sessions and delete their subscriptions, as a restart does."""
        for session in list(self.iserver._external_sessions.values()):
            await session.close_session(True)
        await self.iserver.subscription_service.delete_subscriptions(
            list(self.iserver.subscription_service.subscriptions)
        )

    async def restarted(self) -> None:
        """Note a new start in ServerStatus, by which a client tells a restart from a cut cable."""
        now = self.iserver.clock.now()
        status = (await self.iserver.server_status_node.read_data_value()).Value.Value
        status.StartTime = now
        await self.iserver._set(
            ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime), ua.Variant(now, ua.VariantType.DateTime)
        )

    async def stop(self) -> None:
        if self.bserver is not None:
            await self.bserver.shut()
            await self.bserver.settle()
            await self.close_sessions()
            self.bserver = None
            await self.iserver.stop()
