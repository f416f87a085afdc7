"""Connections that can be made to fall silent, to lag or to break."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from asyncua import ua
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.uaprocessor import UaProcessor

__all__ = ["Behaviour", "Listener"]


@dataclass
class Behaviour:
    """How the connections of one server behave now."""

    silent: bool = False
    """Requests are taken and never answered."""
    delay: float = 0.0
    """Seconds between an answer and its leaving."""


class _Processor(UaProcessor):  # type: ignore[misc]  # asyncua is untyped here
    """One connection's secure channel and services."""

    def __init__(self, server: Any, transport: Any, limits: Any, behaviour: Behaviour) -> None:
        super().__init__(server, _Outlet(transport, behaviour), limits)
        self._real_transport = transport
        self._behaviour = behaviour

    def get_publish_request(self, subscription_id: Any) -> Any:
        """As asyncua, except that nothing is handed out to a connection that is gone or silent: it stays queued."""
        if self._behaviour.silent or self._real_transport.is_closing():
            return None
        return super().get_publish_request(subscription_id)

    def send_response(self, requesthandle: Any, seqhdr: Any, response: Any, msgtype: Any = None) -> None:
        response.ResponseHeader.Timestamp = self.iserver.clock.now()
        super().send_response(requesthandle, seqhdr, response, msgtype or ua.MessageType.SecureMessage)


class _Outlet:
    """A transport whose writes leave later when the device is slow, in their order, and not at all when it is silent."""

    def __init__(self, transport: Any, behaviour: Behaviour) -> None:
        self._transport = transport
        self._behaviour = behaviour
        self._last = 0.0

    def write(self, data: bytes) -> None:
        if self._behaviour.silent:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        when = max(now + self._behaviour.delay, self._last)
        if when <= now:
            self._transport.write(data)
            return
        self._last = when
        loop.call_at(when, self._late, data)

    def _late(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(OPCUAProtocol):  # type: ignore[misc]  # asyncua is untyped here
    """One TCP connection."""

    processor: Any

    def __init__(self, behaviour: Behaviour, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._behaviour = behaviour

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = _Processor(self.iserver, transport, self.limits, self._behaviour)
            self.processor.set_policies(self.policies)

    def data_received(self, data: bytes) -> None:
        if not self._behaviour.silent:
            super().data_received(data)


class Listener(BinaryServer):  # type: ignore[misc]  # asyncua is untyped here
    """The listening socket and its connections."""

    port: int
    _server: Any

    def __init__(self, server: Any, host: str, port: int, limits: Any, behaviour: Behaviour) -> None:
        super().__init__(server, host, port, limits)
        self._behaviour = behaviour

    def _make_protocol(self) -> Any:
        return _Protocol(
            self._behaviour,
            iserver=self.iserver,
            policies=self._policies,
            clients=self.clients,
            closing_tasks=self.closing_tasks,
            limits=self.limits,
        )

    async def listen(self) -> None:
        """Bind and accept; ``port`` is then the bound one.

        Raises:
            OSError: the port cannot be bound.
        """
        self._server = await asyncio.get_running_loop().create_server(self._make_protocol, self.hostname, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Close the port and cut all connections at once, without goodbye."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None

    def cut(self) -> None:
        """Cut all connections; the port stays open."""
        for client in list(self.clients):
            client.transport.abort()

    async def settle(self) -> None:
        """Wait until the connections that were cut are cleared away."""
        # asyncio tells a protocol of its end in the loop's next round
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self._close_tasks()
