"""Builds a device's part of an address space, node by node, from the names and types that a standard gives."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AttributeValue, NodeData

from simulators.opcua._events import SimulatedEvent
from simulators.opcua._server import DeviceServer

__all__ = ["Place", "Point", "Space", "Unit", "Variable", "numeric"]


def numeric(identifier: int, namespace: int = 0) -> Any:
    """A numeric NodeId."""
    return ua.NodeId(identifier, namespace)


def _float32(value: float) -> float:
    number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return number


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit as OPC UA gives it: EUInformation with the UNECE Recommendation 20 code (OPC 10000-8 §5.6.3)."""

    code: str
    symbol: str
    name: str

    def information(self) -> Any:
        """The EUInformation structure; the unit id is the code's characters as a big-endian number."""
        return ua.EUInformation(
            NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
            UnitId=int.from_bytes(self.code.encode("ascii"), "big"),
            DisplayName=ua.LocalizedText(self.symbol),
            Description=ua.LocalizedText(self.name, "en"),
        )


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that was built: where it is and what type its values have."""

    node: Any
    path: str
    """Names from the device's root, joined with ``/``."""
    kind: Any
    """The VariantType."""
    array: bool = False

    def variant(self, value: Any) -> Any:
        """*value* as a Variant of this variable's type; a Float is rounded to what 32 bits hold, as it will be sent."""
        if self.kind is ua.VariantType.Float and value is not None:
            value = [_float32(item) for item in value] if self.array else _float32(value)
        return ua.Variant(value, self.kind, is_array=self.array)


@dataclass(slots=True)
class Point:
    """A variable that follows the process."""

    variable: Variable
    read: Callable[[], Any]
    slow: bool
    """Looked at once a real second (measurements) and not at each step (states and counters)."""
    last: Any = None


@dataclass(frozen=True, slots=True)
class Place:
    """A node under which others can be put."""

    space: Space
    node: Any
    path: str

    def object(self, namespace: int, name: str, kind: Any = None, *, notifier: bool = False, organizes: bool = False,
               node: Any = None) -> Place:  # fmt: skip
        """Add an object of type *kind* (default BaseObjectType)."""
        path = self._path(name)
        node = node or self.space.node_id(path)
        attributes = {ua.AttributeIds.EventNotifier: (1 if notifier else 0, ua.VariantType.Byte)}
        reference = ua.ObjectIds.Organizes if organizes else ua.ObjectIds.HasComponent
        kind = kind or numeric(ua.ObjectIds.BaseObjectType)
        self.space.add(node, ua.NodeClass.Object, (namespace, name), self.node, reference, kind, attributes)
        if notifier:
            self.space.refer(self.node, ua.ObjectIds.HasEventSource, node)
        return Place(self.space, node, path)

    def variable(
        self,
        namespace: int,
        name: str,
        kind: Any,
        value: Any,
        *,
        data_type: Any = None,
        prop: bool = False,
        array: bool = False,
        type_definition: Any = None,
        node: Any = None,
    ) -> Variable:
        """Add a variable (a property when *prop*) with *value* of VariantType *kind*."""
        path = self._path(name)
        result = Variable(node or self.space.node_id(path), path, kind, array)
        ids = ua.ObjectIds
        if prop:
            reference, definition = ids.HasProperty, numeric(ids.PropertyType)
        else:
            reference, definition = ids.HasComponent, type_definition or numeric(ids.BaseDataVariableType)
        if data_type is None and kind is ua.VariantType.ExtensionObject:
            data_type = (value[0] if array else value).data_type
        attributes = {
            ua.AttributeIds.DataType: (data_type or numeric(kind.value), ua.VariantType.NodeId),
            ua.AttributeIds.ValueRank: (1 if array else -1, ua.VariantType.Int32),
            ua.AttributeIds.AccessLevel: (1, ua.VariantType.Byte),
            ua.AttributeIds.UserAccessLevel: (1, ua.VariantType.Byte),
            ua.AttributeIds.MinimumSamplingInterval: (100.0, ua.VariantType.Double),
            ua.AttributeIds.Historizing: (False, ua.VariantType.Boolean),
        }
        if array:
            attributes[ua.AttributeIds.ArrayDimensions] = ([0], ua.VariantType.UInt32)
        self.space.add(
            result.node, ua.NodeClass.Variable, (namespace, name), self.node, reference, definition, attributes
        )
        self.space.set_value(result, value)
        return result

    def property(self, namespace: int, name: str, kind: Any, value: Any, *, data_type: Any = None,
                 array: bool = False) -> Variable:  # fmt: skip
        """Add a property."""
        return self.variable(namespace, name, kind, value, data_type=data_type, array=array, prop=True)

    def analog(self, namespace: int, name: str, read: Callable[[], float], unit: Unit,
               low: float, high: float, *, type_definition: int = ua.ObjectIds.AnalogItemType) -> Variable:  # fmt: skip
        """Add a Double of AnalogItemType with unit and range that follows *read* (OPC 10000-8 §5.3.2)."""
        kind = ua.VariantType
        result = self.variable(namespace, name, kind.Double, read(), type_definition=numeric(type_definition))
        here = Place(self.space, result.node, result.path)
        here.property(0, "EngineeringUnits", kind.ExtensionObject, unit.information())
        here.property(0, "EURange", kind.ExtensionObject, ua.Range(Low=low, High=high))
        self.space.follow(result, read, slow=True)
        return result

    def live(self, namespace: int, name: str, kind: Any, read: Callable[[], Any], *, data_type: Any = None,
             prop: bool = False, array: bool = False, slow: bool = False, node: Any = None) -> Variable:  # fmt: skip
        """Add a variable that follows *read*."""
        result = self.variable(namespace, name, kind, read(), data_type=data_type, prop=prop, array=array, node=node)
        self.space.follow(result, read, slow=slow)
        return result

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


@dataclass
class Space:
    """The address space of one device under construction, and what of it follows the process."""

    server: DeviceServer
    default: int
    """Namespace index for NodeIds."""
    points: list[Point] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    """Every variable by its path."""
    event_types: dict[Any, frozenset[Any]] = field(default_factory=dict)

    def node_id(self, path: str) -> Any:
        """The NodeId of a node without one of its own: its path with dots."""
        return ua.NodeId(path.replace("/", "."), self.default)

    @property
    def nodes(self) -> Any:
        """asyncua's address space."""
        return self.server.iserver.aspace

    def at(self, node: Any, path: str = "") -> Place:
        """An existing node as a place."""
        return Place(self, node, path)

    def add(
        self,
        node: Any,
        node_class: Any,
        name: tuple[int, str],
        parent: Any,
        reference: int,
        definition: Any,
        attributes: Mapping[Any, tuple[Any, Any]],
    ) -> None:
        """Add a node with its references to and from *parent* and to its type definition."""
        if node in self.nodes:
            raise ValueError(f"node {node} is built twice")
        ids, kind = ua.AttributeIds, ua.VariantType
        every: dict[Any, tuple[Any, Any]] = {
            ids.NodeId: (node, kind.NodeId),
            ids.NodeClass: (node_class, kind.Int32),
            ids.BrowseName: (ua.QualifiedName(name[1], name[0]), kind.QualifiedName),
            ids.DisplayName: (ua.LocalizedText(name[1]), kind.LocalizedText),
            ids.WriteMask: (0, kind.UInt32),
            ids.UserWriteMask: (0, kind.UInt32),
            **attributes,
        }
        data = NodeData(node)
        data.attributes = {
            key: AttributeValue(ua.DataValue(ua.Variant(value, variant, is_array=isinstance(value, list))))
            for key, (value, variant) in every.items()
        }
        self.nodes[node] = data
        self.refer(parent, reference, node, definition)
        if definition is not None:
            self.refer(node, ua.ObjectIds.HasTypeDefinition, definition, inverse=False)

    def refer(self, source: Any, reference: int, target: Any, definition: Any = None, *, inverse: bool = True) -> None:
        """Add a reference, and its inverse."""
        self._reference(source, reference, target, True, definition)
        if inverse:
            self._reference(target, reference, source, False, None)

    def _reference(self, source: Any, reference: int, target: Any, forward: bool, definition: Any) -> None:
        attributes = self.nodes[target].attributes
        found = {
            key: attributes[key].value.Value.Value
            for key in (ua.AttributeIds.NodeClass, ua.AttributeIds.BrowseName, ua.AttributeIds.DisplayName)
        }
        description = ua.ReferenceDescription(
            ReferenceTypeId=numeric(reference),
            IsForward=forward,
            NodeId=target,
            BrowseName=found[ua.AttributeIds.BrowseName],
            DisplayName=found[ua.AttributeIds.DisplayName],
            NodeClass=ua.NodeClass(found[ua.AttributeIds.NodeClass]),
        )
        if definition is not None:
            description.TypeDefinition = definition
        self.nodes[source].references.append(description)

    def set_value(self, variable: Variable, value: Any) -> None:
        """Give a variable its first value, sourced now."""
        now = self.server.iserver.clock.now()
        first = ua.DataValue(variable.variant(value), SourceTimestamp=now, ServerTimestamp=now)
        self.nodes[variable.node].attributes[ua.AttributeIds.Value] = AttributeValue(first)
        self.variables[variable.path] = variable

    def follow(self, variable: Variable, read: Callable[[], Any], *, slow: bool) -> None:
        """Let *variable* follow the process from now on."""
        self.points.append(Point(variable, read, slow, read()))

    def object_type(self, namespace: int, identifier: int, name: str, supertype: Any, *, abstract: bool = False) -> Any:
        """Add an object type under its supertype; its NodeId."""
        return self._type(ua.NodeClass.ObjectType, namespace, identifier, name, supertype, abstract)

    def event_type(
        self,
        namespace: int,
        identifier: int,
        name: str,
        supertype: Any,
        properties: Sequence[tuple[int, str, Any]] = (),
        *,
        abstract: bool = False,
    ) -> Any:
        """Add an event type with its properties (namespace, name, VariantType); its NodeId."""
        node = self._type(ua.NodeClass.ObjectType, namespace, identifier, name, supertype, abstract)
        here = Place(self, node, name)
        for owner, title, kind in properties:
            value = ua.get_default_value(kind)
            made = here.variable(owner, title, kind, value, prop=True, node=self.node_id(f"{name}/{title}"))
            del self.variables[made.path]  # a declaration, not a value of the machine
        self.event_types[node] = self.event_types.get(supertype, self._standard_supertypes(supertype)) | {node}
        return node

    def _standard_supertypes(self, node: Any) -> frozenset[Any]:
        found = {node}
        while node != numeric(ua.ObjectIds.BaseEventType):
            node = next(
                reference.NodeId
                for reference in self.nodes[node].references
                if not reference.IsForward and reference.ReferenceTypeId == numeric(ua.ObjectIds.HasSubtype)
            )
            found.add(node)
        return frozenset(found)

    def enumeration(self, namespace: int, identifier: int, name: str, texts: Mapping[int, str]) -> Any:
        """Add an enumeration data type with its EnumValues (OPC 10000-3 §5.8.3); its NodeId."""
        supertype = numeric(ua.ObjectIds.Enumeration)
        node = self._type(ua.NodeClass.DataType, namespace, identifier, name, supertype, False)
        values = [ua.EnumValueType(Value=value, DisplayName=ua.LocalizedText(text)) for value, text in texts.items()]
        here = Place(self, node, name)
        made = here.property(0, "EnumValues", ua.VariantType.ExtensionObject, values, array=True)
        del self.variables[made.path]
        return node

    def _type(self, node_class: Any, namespace: int, identifier: int, name: str, supertype: Any, abstract: bool) -> Any:
        node = ua.NodeId(identifier, namespace)
        attributes = {ua.AttributeIds.IsAbstract: (abstract, ua.VariantType.Boolean)}
        self.add(node, node_class, (namespace, name), supertype, ua.ObjectIds.HasSubtype, None, attributes)
        return node

    def event(self, event_type: Any, source: Place, notifiers: Sequence[Place], fields: Mapping[Any, Any],
              *, condition: Any = None, retain: bool = False) -> SimulatedEvent:  # fmt: skip
        """An event of *event_type* at *source*, seen at *notifiers* and at the Server object."""
        supertypes = self.event_types.get(event_type) or self._standard_supertypes(event_type)
        return SimulatedEvent(
            EventType=event_type,
            supertypes=supertypes,
            emitting_node=source.node,
            notifiers=(*dict.fromkeys((source.node, *(n.node for n in notifiers))), numeric(ua.ObjectIds.Server)),
            fields=fields,
            condition=condition,
            retain=retain,
        )
