"""Writing values to the address space, and the nodes that misbehave."""

from __future__ import annotations

import dataclasses
from typing import Any

from asyncua import ua

from simulators.device import FaultArgument, FaultError
from simulators.opcua._clock import DeviceClock
from simulators.opcua._space import Space, Variable
from simulators.opcua._values import node_text, status_code

__all__ = ["NodeFaults"]

_VALUE = ua.AttributeIds.Value


class NodeFaults:
    """All writes go through here, so that a node can be bad, uncertain or gone."""

    def __init__(self, space: Space, clock: DeviceClock) -> None:
        self._space = space
        self._clock = clock
        self._status: dict[Any, Any] = {}
        self._gone: dict[Any, tuple[Any, list[tuple[Any, Any]]]] = {}
        self._latest: dict[Any, tuple[Variable, Any]] = {}

    def names(self) -> dict[str, str]:
        """NodeId text of each variable by its path."""
        namespaces = self._space.server.iserver.subscription_service.namespaces
        return {path: node_text(variable.node, namespaces) for path, variable in self._space.variables.items()}

    async def write(self, variable: Variable, value: Any) -> None:
        """Give *variable* a new value, sourced now; a bad one keeps its status, an uncertain one carries it."""
        status = self._status.get(variable.node)
        gone = variable.node in self._gone
        if gone or status is not None:
            self._latest[variable.node] = (variable, value)
        if not gone and (status is None or not status.is_bad()):
            await self._put(variable, variable.variant(value), status or ua.StatusCode())

    async def _put(self, variable: Variable, variant: Any, status: Any) -> None:
        value = ua.DataValue(
            variant, StatusCode=status, SourceTimestamp=self._clock.source(), ServerTimestamp=self._clock.now()
        )
        await self._space.nodes.write_attribute_value(variable.node, _VALUE, value)

    def find(self, node: FaultArgument | None) -> Variable:
        """The variable that *node* names: its path, a unique end of its path, or its NodeId.

        Raises:
            FaultError: none or several are meant.
        """
        if node is None:
            raise FaultError("this fault needs node=PATH, such as node=" + next(iter(self._space.variables)))
        text = str(node)
        names = self.names()
        found = [path for path, name in names.items() if text in (path, name)]
        found = found or [path for path in names if path.endswith("/" + text)]
        if len(found) != 1:
            which = f"several variables: {', '.join(found)}" if found else "no variable of this device"
            raise FaultError(f"node={text} means {which}; give the whole path or the NodeId")
        return self._space.variables[found[0]]

    async def degrade(self, node: FaultArgument | None, status: FaultArgument) -> None:
        """Give a variable a bad or uncertain *status* until cleared."""
        variable = self.find(node)
        try:
            code = status_code(status if isinstance(status, int) else str(status))
        except ValueError as error:
            raise FaultError(str(error)) from None
        value = self._space.nodes.read_attribute_value(variable.node, _VALUE)
        if variable.node not in self._status and value.Value is not None:
            self._latest[variable.node] = (variable, value.Value.Value)
        self._status[variable.node] = code
        kept = self._latest[variable.node][1]
        await self._put(variable, ua.Variant() if code.is_bad() else variable.variant(kept), code)

    async def remove(self, node: FaultArgument | None) -> None:
        """Take a variable out of the address space until cleared; its monitored items learn BadNodeIdUnknown."""
        variable = self.find(node)
        nodes = self._space.nodes
        if variable.node in self._gone:
            return
        data = nodes[variable.node]
        if variable.node not in self._latest:
            self._latest[variable.node] = (variable, data.attributes[_VALUE].value.Value.Value)
        parents = [reference.NodeId for reference in data.references if not reference.IsForward]
        removed = [
            (parent, reference)
            for parent in parents
            for reference in nodes[parent].references
            if reference.NodeId == variable.node
        ]
        for parent, reference in removed:
            nodes[parent].references.remove(reference)
        del nodes[variable.node]
        self._gone[variable.node] = (data, removed)
        lost = ua.DataValue(
            StatusCode=ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown), ServerTimestamp=self._clock.now()
        )
        for handle, callback in list(data.attributes[_VALUE].datachange_callbacks.items()):
            await callback(handle, lost)

    def drop_sources(self) -> None:
        """Take the SourceTimestamp from all values as they stand."""
        self._stamp(None)

    def _stamp(self, time: Any) -> None:
        for variable in self._space.variables.values():
            node = self._space.nodes.get(variable.node)
            if node is not None:
                attribute = node.attributes[_VALUE]
                attribute.value = dataclasses.replace(attribute.value, SourceTimestamp=time)

    async def clear(self) -> None:
        """Bring back what is gone and give every degraded variable its present value, sourced now."""
        for node, (data, removed) in self._gone.items():
            self._space.nodes[node] = data
            for parent, reference in removed:
                self._space.nodes[parent].references.append(reference)
        self._gone.clear()
        self._status.clear()
        latest, self._latest = self._latest, {}
        for variable, value in latest.values():
            await self._put(variable, variable.variant(value), ua.StatusCode())
        now = self._clock.now()
        for variable in self._space.variables.values():
            attribute = self._space.nodes[variable.node].attributes[_VALUE]
            if attribute.value.SourceTimestamp is None:
                attribute.value = dataclasses.replace(attribute.value, SourceTimestamp=now)
