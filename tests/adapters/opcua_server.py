"""A small OPC UA server on loopback for the adapter's tests, made with asyncua, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

T = TypeVar("T")
MACHINE = "http://example.org/machine"
OTHER = "http://example.org/other"
SIZE = 8


class _Users(UserManager):  # type: ignore[misc]  # asyncua is untyped here
    """Anonymous, and alice with her password."""

    def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        if username is not None and (username, password) != ("alice", "secret"):
            return None
        return User(role=UserRole.User)


class SmallServer:
    """Variables `v0` to `v7` (Int64, also below Objects/Hall/Press_A/Data), and whatever a test adds.

    All methods block and may be called from any thread.
    """

    def __init__(self, *, namespaces: tuple[str, ...] = (MACHINE, OTHER), port: int = 0) -> None:
        logging.getLogger("asyncua").setLevel(logging.ERROR)
        self.namespaces = namespaces
        self.port = port
        self.acked: list[tuple[int, int]] = []
        """(subscription, sequence number) of each acknowledgement that arrived."""
        self.counts: dict[str, int] = {}
        """Largest number of operations seen in one call, by service."""
        self.calls: dict[str, int] = {}
        """Number of calls, by service."""
        self.limits: dict[str, int] = {}
        """Operations allowed in one call, by service; more is BadTooManyOperations."""
        self.drop_sequences: set[int] = set()
        """Sequence numbers whose publish response is swallowed once."""
        self.forget_sequences: set[int] = set()
        """Sequence numbers that Republish does not have."""
        self.value = 100
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua server", daemon=True)
        self.server: Any = None

    # ------------------------------------------------------------------------------------------------ start and stop

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 20.0) -> T:
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    async def _start(self) -> None:
        server = self.server = Server(user_manager=_Users())
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/")
        await self._prepare(server)
        for uri in self.namespaces:
            await server.register_namespace(uri)
        self._spy()
        hall = await server.nodes.objects.add_object(self.index(OTHER), "Hall")
        press = await hall.add_object(self.index(MACHINE), "Press_A")
        data = await press.add_object(self.index(MACHINE), "Data")
        for i in range(SIZE):
            await data.add_variable(self.node(f"v{i}"), self.name(f"v{i}"), ua.Variant(i, ua.VariantType.Int64))
        await server.start()
        self.port = server.bserver.port

    async def _prepare(self, server: Any) -> None:
        """What protects it; a subclass may choose otherwise."""
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"opc.tcp://127.0.0.1:{self.port}/"

    def index(self, uri: str) -> int:
        """A namespace's index: 0 is the standard's, 1 the server's own."""
        return self.namespaces.index(uri) + 2

    def node(self, name: str, uri: str = MACHINE) -> Any:
        """NodeId of a variable."""
        return ua.NodeId(name, self.index(uri))

    def name(self, text: str, uri: str = MACHINE) -> Any:
        """A browse name."""
        return ua.QualifiedName(text, self.index(uri))

    # ------------------------------------------------------------------------------------------------------- content

    def write(self, name: str, value: Any, kind: Any = None, **fields: Any) -> None:
        """Writes a variable's DataValue: `fields` are those of ua.DataValue (StatusCode, SourceTimestamp …)."""
        fields.setdefault("SourceTimestamp", dt.datetime.now(dt.UTC))
        variant = ua.Variant(value, ua.VariantType.Int64 if kind is None else kind)
        self.run(self.server.write_attribute_value(self.node(name), ua.DataValue(variant, **fields)))

    def write_all(self) -> None:
        """Gives v0 to v7 values that they never had."""
        self.value += SIZE
        for i in range(SIZE):
            self.write(f"v{i}", self.value + i)

    def add(self, name: str, value: Any, kind: Any) -> None:
        """Adds a variable below Objects."""
        self.run(self._add(name, ua.Variant(value, kind)))

    async def _add(self, name: str, variant: Any) -> None:
        await self.server.nodes.objects.add_variable(self.node(name), self.name(name), variant)

    def delete(self, name: str) -> None:
        """Deletes a variable, as a PLC download does."""
        self.run(self.server.delete_nodes([self.server.get_node(self.node(name))]))

    def announce(self, **limits: int) -> None:
        """Writes OperationLimits by name, e.g. MaxNodesPerRead=10, and enforces them."""
        service = {"MaxNodesPerRead": "read", "MaxNodesPerBrowse": "browse", "MaxMonitoredItemsPerCall": "items",
                   "MaxNodesPerTranslateBrowsePathsToNodeIds": "translate"}  # fmt: skip
        for name, limit in limits.items():
            node = ua.NodeId(getattr(ua.ObjectIds, f"Server_ServerCapabilities_OperationLimits_{name}"))
            value = ua.DataValue(ua.Variant(limit, ua.VariantType.UInt32))
            self.run(self.server.write_attribute_value(node, value))
            self.limits[service[name]] = limit

    def state(self, state: int) -> None:
        """Writes ServerStatus.State."""
        node = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
        value = ua.DataValue(ua.Variant(state, ua.VariantType.Int32))
        self.run(self.server.write_attribute_value(node, value))

    # ----------------------------------------------------------------------------------------------- what it has seen

    def sessions(self) -> int:
        """Sessions of clients."""
        return len(self.server.iserver._external_sessions)

    def connections(self) -> int:
        """Open TCP connections."""
        return len(self.server.bserver.clients)

    @property
    def subscriptions(self) -> dict[int, Any]:
        """asyncua's subscriptions by id."""
        return dict(self.server.iserver.subscription_service.subscriptions)

    def unacknowledged(self) -> int:
        """Notifications that are kept for Republish."""
        return sum(len(s._not_acknowledged_results) for s in self.subscriptions.values())

    def end_subscriptions(self, status: int) -> None:
        """Ends every subscription of a client with a StatusChangeNotification."""

        async def end() -> None:
            service = self.server.iserver.subscription_service
            for number, subscription in list(service.subscriptions.items()):
                if subscription.pub_request_callback is None:
                    continue  # the server's own, by which it keeps a history
                subscription._triggered_statuschanges.append(ua.StatusCode(status))
                subscription._startup = True  # publish in the next cycle
                await asyncio.sleep(2 * subscription.data.RevisedPublishingInterval / 1000)
                service.subscriptions.pop(number, None)
                await subscription.stop()

        self.run(end())

    def end_sessions(self) -> None:
        """Closes what clients left behind."""

        async def end() -> None:
            for session in list(self.server.iserver._external_sessions.values()):
                await session.close_session(True)

        self.run(end())

    def mute(self) -> None:
        """All subscriptions go silent although the session lives."""

        async def stop() -> None:
            for subscription in self.subscriptions.values():
                subscription._task.cancel()

        self.run(stop())

    # ---------------------------------------------------------------------------------------------------------- spying

    def _spy(self) -> None:
        service = self.server.iserver.subscription_service
        publish, create, republish = service.publish, service.create_monitored_items, service.republish

        def spy_publish(acks: Any) -> Any:
            acks = list(acks)
            self.acked.extend((ack.SubscriptionId, ack.SequenceNumber) for ack in acks)
            return publish(acks)

        async def spy_create(params: Any) -> Any:
            self._check("items", len(params.ItemsToCreate))
            return await create(params)

        def spy_republish(params: Any) -> Any:
            self.calls["republish"] = self.calls.get("republish", 0) + 1
            if params.RetransmitSequenceNumber in self.forget_sequences:
                raise ServiceError(ua.StatusCodes.BadMessageNotAvailable)
            return republish(params)

        service.publish, service.create_monitored_items, service.republish = spy_publish, spy_create, spy_republish
        create_subscription = service.create_subscription

        async def spy_subscription(*args: Any, **kwargs: Any) -> Any:
            result = await create_subscription(*args, **kwargs)
            self._swallow(service.subscriptions[result.SubscriptionId])
            return result

        service.create_subscription = spy_subscription
        iserver = self.server.iserver
        create_session = iserver.create_session

        def spy_session(*args: Any, **kwargs: Any) -> Any:
            session = create_session(*args, **kwargs)
            for name, attribute in (("read", "NodesToRead"), ("browse", "NodesToBrowse")):
                self._watch(session, name, attribute)
            translate = session.translate_browsepaths_to_nodeids

            async def spy_translate(params: Any) -> Any:
                self._check("translate", len(params))
                return await translate(params)

            session.translate_browsepaths_to_nodeids = spy_translate
            return session

        iserver.create_session = spy_session

    def _swallow(self, subscription: Any) -> None:
        pop = subscription._pop_publish_result

        def spy() -> Any:
            result = pop()
            message = result.NotificationMessage
            while message.NotificationData and message.SequenceNumber in self.drop_sequences:
                self.drop_sequences.discard(message.SequenceNumber)
                result = pop()
                message = result.NotificationMessage
            return result

        subscription._pop_publish_result = spy

    def _watch(self, session: Any, name: str, attribute: str) -> None:
        original = getattr(session, name)

        async def spy(params: Any) -> Any:
            self._check(name, len(getattr(params, attribute)))
            return await original(params)

        setattr(session, name, spy)

    def _check(self, service: str, count: int) -> None:
        self.counts[service] = max(count, self.counts.get(service, 0))
        self.calls[service] = self.calls.get(service, 0) + 1
        if count > self.limits.get(service, 1 << 30):
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)


def write_certificates(folder: Path, uri: str, name: str) -> tuple[Path, Path]:
    """A self-signed application certificate (DER) with `uri` in its alternative name, and its key (PEM)."""
    from asyncua.crypto.cert_gen import generate_private_key, generate_self_signed_app_certificate
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = generate_private_key()
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    certificate = generate_self_signed_app_certificate(
        key, name, {"organizationName": "Guantong"}, _alternative_names(uri), extended=usages
    )
    paths = folder / f"{name}.der", folder / f"{name}.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _alternative_names(uri: str) -> list[Any]:
    from cryptography import x509

    return [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")]
