"""A host for one OPC UA adapter in a test: connects, iterates, keeps what came, and waits for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

from adapters.contract import AdapterError, DeviceSpec, Item, LinkSpec, Lost, Point, PointTrouble, Refilled, Samples
from adapters.opcua import DeviceSettings, LinkSettings, OpcUaAdapter
from schemas.profile import EventClause, OpcUaAddress, OpcUaRules
from tests.adapters.opcua_server import MACHINE

DEADLINE = 15.0
PERIOD = 0.05


def points(addresses: Sequence[str | dict[str, Any]], *, device: str = "press", first: int = 0) -> tuple[Point, ...]:
    """Points of the group `fast`; a text with = is a NodeId, any other a path."""
    made = []
    for i, address in enumerate(addresses, first):
        if isinstance(address, str):
            address = {"node": address} if "=" in address else {"path": address}
        made.append(Point(i, device, f"s{i}", "fast", OpcUaAddress.model_validate(address), "any"))
    return tuple(made)


def node(name: str) -> str:
    """NodeId text of one of the small server's variables."""
    return f"nsu={MACHINE};s={name}"


def device(
    addresses: Sequence[str | dict[str, Any]] = (),
    *,
    name: str = "press",
    first: int = 0,
    root: str | None = None,
    period: float = PERIOD,
    events: tuple[EventClause, ...] = (),
    **rules: Any,
) -> DeviceSpec:
    """A device with these points."""
    made = points(addresses, device=name, first=first)
    return DeviceSpec(name, DeviceSettings(root=root), OpcUaRules(**rules), {"fast": period}, made, events)


def link(endpoint: str, *devices: DeviceSpec, **settings: Any) -> LinkSpec:
    """A link without security, unless `settings` say otherwise."""
    parameters = {"endpoint": endpoint, "security": "none", "timeout": 3.0, **settings}
    return LinkSpec("link", LinkSettings.model_validate(parameters), devices)


class Collector:
    """`async with Collector(spec) as host:` connects, and disconnects at the end; `items` grows meanwhile."""

    def __init__(self, spec: LinkSpec, *, ack: bool = True) -> None:
        self.adapter = OpcUaAdapter(spec)
        self.ack = ack
        self.items: list[Item] = []
        self.error: AdapterError | None = None
        self.paused = asyncio.Event()
        self.paused.set()
        """Cleared: the consumer stands still."""
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()

    async def connect(self) -> None:
        """Connects and starts to iterate, with an empty list."""
        await self.adapter.connect()
        self.items.clear()
        self.error = None
        self._task = asyncio.create_task(self._iterate())

    async def disconnect(self) -> None:
        """Disconnects and waits for the iteration to end."""
        await self.adapter.disconnect()
        self.paused.set()
        if self._task is not None:
            await self._task

    async def _iterate(self) -> None:
        try:
            async for item in self.adapter.items():
                self.items.append(item)
                token = getattr(item, "token", None)
                if self.ack and token is not None:
                    self.adapter.ack(token)
                self._news.set()
                await self.paused.wait()
        except AdapterError as error:
            self.error = error
        self._news.set()

    async def until(self, condition: Callable[[], Any], deadline: float = DEADLINE) -> None:
        """Waits until `condition` holds; it is looked at again with each item and every few milliseconds."""
        end = asyncio.get_running_loop().time() + deadline
        while not condition():
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"not within {deadline} s; error {self.error}; last items {self.items[-6:]}")
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), 0.02)
            except TimeoutError:
                pass

    async def fails(self, deadline: float = DEADLINE) -> AdapterError:
        """The error with which the iteration ends."""
        await self.until(lambda: self.error is not None, deadline)
        assert self.error is not None
        return self.error

    # -------------------------------------------------------------------------------------------------- what has come

    def rows(self, point: int) -> list[dict[str, Any]]:
        """Every row of a point, with the columns as keys."""
        found = []
        for item in self.items:
            if isinstance(item, Samples):
                for i, p in enumerate(item.points):
                    if p == point:
                        found.append(
                            {
                                "value": item.values[i],
                                "source": None if item.source_ts is None else item.source_ts[i],
                                "status": 0 if item.status is None else item.status[i],
                                "flags": 0 if item.flags is None else item.flags[i],
                                "received": item.received,
                            }
                        )
        return found

    def values(self, point: int) -> list[Any]:
        """The values of a point's rows."""
        return [row["value"] for row in self.rows(point)]

    def last(self, point: int) -> Any:
        """The point's last value, None without any."""
        values = self.values(point)
        return values[-1] if values else None

    def of(self, kind: type[Any]) -> list[Any]:
        """The items of one class."""
        return [item for item in self.items if isinstance(item, kind)]

    def lost(self) -> list[Lost]:
        """The recorded losses."""
        return self.of(Lost) + [lost for item in self.of(Refilled) for lost in item.rest]

    def troubles(self) -> list[tuple[int, str | None]]:
        """(point, problem) of each PointTrouble."""
        return [(item.point, item.problem) for item in self.of(PointTrouble)]
