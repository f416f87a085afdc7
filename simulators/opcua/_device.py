"""A simulated device with an OPC UA server: a model of a machine, its address space, and its faults."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from asyncua import ua

from simulators.device import COMMON_FAULTS, DeviceSettings, FaultArgument, FaultError, ProtocolName
from simulators.opcua._clock import DeviceClock
from simulators.opcua._events import SimulatedEvent
from simulators.opcua._node_faults import NodeFaults
from simulators.opcua._server import DeviceServer
from simulators.opcua._session import OperationLimits
from simulators.opcua._space import Place, Point, Space
from simulators.pace import TICK_SECONDS, paced

__all__ = ["FAULTS", "Model", "OpcUaDevice", "ServerInfo"]

_log = logging.getLogger(__name__)

FAULTS: Mapping[str, str] = {
    **COMMON_FAULTS,
    "cut": "as off, but the machine works on and its sessions live (a pulled cable)",
    "restart": "the server is off for down=SECONDS (default 1); all sessions are gone, ServerStatus has a new start",
    "clock": "the device's clock runs ahead by offset=SECONDS",
    "frozen_source": "source timestamps stand still while values change",
    "no_source": "values come without a SourceTimestamp",
    "bad": "a variable has a bad or uncertain status: node=PATH [status=BadSensorFailure]",
    "missing": "a node is gone from the address space: node=PATH",
}
"""Every fault that an OPC UA device knows. A node is named by its path (or a unique end of it), or by its NodeId."""

_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "slow": frozenset({"delay"}),
    "restart": frozenset({"down"}),
    "clock": frozenset({"offset"}),
    "bad": frozenset({"node", "status"}),
    "missing": frozenset({"node"}),
}
_CLOSED = ("off", "cut", "restart")
_SLOW_TICKS = round(1 / TICK_SECONDS)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself."""

    name: str
    product_uri: str
    manufacturer: str
    product: str
    software: str
    namespaces: Sequence[str]
    """URIs after the standard one and the server's own, in the order of their indexes from 2."""
    limits: OperationLimits = field(default_factory=OperationLimits)
    min_publishing: float = 100.0
    """The shortest publishing interval in milliseconds."""


class Model(Protocol):
    """A machine and how it shows itself in an address space."""

    def build(self, objects: Place) -> None:
        """Build the nodes under the Objects folder."""
        ...

    def advance(self, seconds: float) -> None:
        """Let process seconds go by."""
        ...

    def events(self) -> list[SimulatedEvent]:
        """The events since the last call; called after the values were written."""
        ...


class OpcUaDevice:
    """See :class:`simulators.device.Device`."""

    def __init__(self, settings: DeviceSettings, info: ServerInfo, model: Model) -> None:
        self._settings = settings
        self._info = info
        self._model = model
        self._clock = DeviceClock()
        self._faults: dict[str, dict[str, FaultArgument]] = {}
        self._ticks = 0
        self._host = ""
        self._server: DeviceServer | None = None
        self._space: Space | None = None
        self._nodes: NodeFaults | None = None
        self._listening = False
        self._ticking: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._applying = asyncio.Lock()

    # --------------------------------------------------------------------------------------------- what others may see

    @property
    def id(self) -> str:
        """Its id."""
        return self._settings.device

    @property
    def protocol(self) -> ProtocolName:
        """How to talk to it."""
        return "opcua"

    @property
    def endpoint(self) -> str:
        """Its endpoint URL."""
        return f"opc.tcp://{self._host}:{self._listener.port}"

    @property
    def sessions(self) -> int:
        """How many sessions are open; also in the server's ServerDiagnosticsSummary."""
        return self._running.sessions()

    @property
    def subscriptions(self) -> int:
        """How many subscriptions are open; also in the server's ServerDiagnosticsSummary."""
        return self._running.subscriptions()

    @property
    def variables(self) -> dict[str, str]:
        """NodeId text (``nsu=…;s=…``) of each variable by its path, as the truth log writes it."""
        return self._node_faults.names()

    @property
    def _running(self) -> DeviceServer:
        if self._server is None:
            raise RuntimeError(f"{self.id} is not running: start it first")
        return self._server

    @property
    def _listener(self) -> Any:
        return self._running.bserver

    @property
    def _node_faults(self) -> NodeFaults:
        if self._nodes is None:
            raise RuntimeError(f"{self.id} is not running: start it first")
        return self._nodes

    # ------------------------------------------------------------------------------------------------ starting, stopping

    async def start(self, host: str, port: int) -> int:
        """Build the address space, bind and serve; see :meth:`simulators.device.Device.start`."""
        info, truth = self._info, self._settings.truth
        product = (info.product_uri, info.manufacturer, info.product, info.software)
        uri = f"urn:guantong:simulators:{self.id}"
        server = DeviceServer(info.name, uri, product, truth, self._clock, info.limits, info.min_publishing)
        await server.init()
        for namespace in info.namespaces:
            await server.register_namespace(namespace)
        self._space = Space(server, default=len(info.namespaces) + 1)
        self._model.build(self._space.at(ua.NodeId(ua.ObjectIds.ObjectsFolder)))
        self._nodes = NodeFaults(self._space, self._clock)
        self._host = host
        self._server = server
        try:
            bound = await server.serve(host, port)
        except OSError:
            await server.iserver.stop()
            self._server = None
            raise
        self._listening = True
        truth.write("up", reason="start")
        self._ticking = asyncio.create_task(self._run(), name=f"process of {self.id}")
        return bound

    async def stop(self) -> None:
        """Cut connections and free the port; see :meth:`simulators.device.Device.stop`.

        Raises:
            Exception: whatever ended the model before its time.
        """
        server, self._server = self._server, None
        if server is None:
            return
        tasks = [task for task in (self._restarting, self._ticking) if task is not None]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        if self._listening:
            self._settings.truth.write("down", reason="stop")
            self._listening = False
        await server.stop()
        self._settings.truth.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    # ------------------------------------------------------------------------------------------------------- the process

    async def _run(self) -> None:
        try:
            async with aclosing(paced(self._settings.speed)) as steps:
                async for seconds in steps:
                    self._ticks += 1
                    if not self._faults.keys() & {"off", "restart"}:  # a device without power samples nothing
                        self._model.advance(seconds)
                        await self._show()
        except Exception:
            _log.exception("the process of %s ended; its values stand still", self.id)
            raise

    async def _show(self) -> None:
        """Write what changed since the last step, then fire the events."""
        slow = self._ticks % _SLOW_TICKS == 0
        for point in self._points:
            if slow or not point.slow:
                value = point.read()
                if value != point.last:
                    point.last = value
                    await self._node_faults.write(point.variable, value)
        service = self._running.iserver.subscription_service
        for event in self._model.events():
            await service.trigger_event(event)

    @property
    def _points(self) -> list[Point]:
        return self._space.points if self._space is not None else []

    # ---------------------------------------------------------------------------------------------------------- faults

    async def fault(self, kind: str, **args: FaultArgument) -> None:
        """Begin to misbehave; see :meth:`simulators.device.Device.fault`."""
        if kind not in FAULTS:
            raise FaultError(f"{self.id} knows no fault {kind!r}; it knows {', '.join(FAULTS)}")
        if unknown := args.keys() - _ARGUMENTS.get(kind, frozenset()):
            valid = ", ".join(sorted(_ARGUMENTS.get(kind, ()))) or "no arguments"
            raise FaultError(f"{self.id}: fault {kind} does not take {', '.join(sorted(unknown))}; it takes {valid}")
        match kind:
            case "bad":
                await self._node_faults.degrade(args.get("node"), args.get("status", "BadSensorFailure"))
            case "missing":
                await self._node_faults.remove(args.get("node"))
            case "clock":
                self._clock.offset = timedelta(seconds=self._number(kind, args, "offset", 0.0))
            case "frozen_source":
                self._clock.frozen = self._clock.now()
            case "no_source":
                self._clock.no_source = True
                self._node_faults.drop_sources()
            case "slow":
                self._listener_behaviour.delay = self._number(kind, args, "delay", 1.0)
            case "restart":
                await self._restart(self._number(kind, args, "down", 1.0))
            case _:
                self._faults[kind] = args
                await self._apply(kind)

    def _number(self, kind: str, args: Mapping[str, FaultArgument], name: str, default: float) -> float:
        value = args.get(name, default)
        try:
            return float(value)
        except ValueError:
            raise FaultError(f"{self.id}: fault {kind}: {name}={value!r} is not a number of seconds") from None

    async def clear(self) -> None:
        """End all faults; see :meth:`simulators.device.Device.clear`."""
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.gather(self._restarting, return_exceptions=True)
            self._restarting = None
        self._faults.clear()
        self._clock.offset = timedelta()
        self._clock.frozen = None
        self._clock.no_source = False
        self._listener_behaviour.delay = 0.0
        await self._node_faults.clear()
        await self._apply("clear")

    @property
    def _listener_behaviour(self) -> Any:
        return self._running.behaviour

    async def _restart(self, down: float) -> None:
        self._faults["restart"] = {"down": down}
        await self._apply("restart")
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._come_back(down), name=f"restart of {self.id}")

    async def _come_back(self, down: float) -> None:
        await asyncio.sleep(down)
        self._faults.pop("restart", None)
        await self._running.restarted()
        await self._apply("restart")

    async def _apply(self, reason: str) -> None:
        """Open or close the port, fall silent or speak again, as the faults demand; write what changed."""
        async with self._applying:
            server, truth = self._running, self._settings.truth
            listen = not any(kind in self._faults for kind in _CLOSED)
            silent = "half_open" in self._faults
            served = self._listening and not server.behaviour.silent
            if served and not (listen and not silent):
                truth.write("down", reason=reason)
            if self._listening and not listen:
                await self._listener.shut()
                await self._listener.settle()
            if not listen and any(kind in self._faults for kind in ("off", "restart")):
                await server.close_sessions()
            if server.behaviour.silent and not silent and self._listening:
                # what was swallowed meanwhile is gone: clients have to connect anew
                self._listener.cut()
            server.behaviour.silent = silent
            if listen and not self._listening:
                await self._listener.listen()
            self._listening = listen
            if not served and listen and not silent:
                truth.write("up", reason=reason)
