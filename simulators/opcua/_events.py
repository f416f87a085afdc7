"""Events as a simulated server fires them: fields by browse path, namespaces included."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from asyncua import ua

from simulators.opcua._values import microseconds, node_text, plain

__all__ = ["FieldPath", "SimulatedEvent", "base_fields"]

FieldPath: TypeAlias = tuple[tuple[int, str], ...]
"""Browse path of a field: (namespace index, name) of each step; empty for the ConditionId (OPC 10000-9 §5.5.2)."""


@dataclass(eq=False)
class SimulatedEvent:
    """One event. It answers a select clause only when names *and* namespaces match (OPC 10000-4 §7.7.4.5).

    asyncua looks at the event object for ``emitting_node``, ``EventType``, ``Retain`` and ``NodeId`` (of a condition).
    """

    EventType: Any
    """NodeId of the event's type."""
    supertypes: frozenset[Any]
    """All types it is an instance of, its own included."""
    emitting_node: Any
    """NodeId of the source."""
    notifiers: tuple[Any, ...]
    """Objects at which a client sees it: the source, those above it, the Server object."""
    fields: Mapping[FieldPath, Any]
    """Variants by browse path."""
    condition: Any = None
    """NodeId of the condition, when it is one."""
    retain: bool = False
    event_id: bytes = field(default_factory=lambda: uuid.uuid4().bytes)

    def to_event_fields(self, clauses: Sequence[Any]) -> list[Any]:
        """The values of *clauses* (SimpleAttributeOperands); null for one that this event does not have."""
        return [self._select(clause) for clause in clauses]

    def _select(self, clause: Any) -> Any:
        path = tuple((name.NamespaceIndex, name.Name) for name in clause.BrowsePath)
        wanted = ua.AttributeIds.Value if path else ua.AttributeIds.NodeId
        if clause.AttributeId != wanted:
            return ua.Variant(None)
        return self.fields.get(path, ua.Variant(None))

    def value(self, name: str) -> Any:
        """The value of a field of the base event type (namespace 0) by its name; ``None`` when it has none."""
        variant = self.fields.get(((0, name),))
        return None if variant is None else variant.Value

    def record(self, namespaces: Sequence[str]) -> dict[str, Any]:
        """What the truth log keeps: all fields, by their names joined with ``/``; the ConditionId as ``ConditionId``."""
        return {
            "kind": "event",
            "event_id": self.event_id.hex(),
            "type": node_text(self.EventType, namespaces),
            "fields": {
                "/".join(name for _, name in path) or "ConditionId": plain(variant, namespaces)
                for path, variant in self.fields.items()
            },
            "source_ts": microseconds(self.value("Time")),
        }


def base_fields(
    event_id: bytes, event_type: Any, source: Any, source_name: str, time: datetime, message: str, severity: int
) -> dict[FieldPath, Any]:
    """The fields that every event has (OPC 10000-5 §6.4.2, BaseEventType)."""
    t = ua.VariantType
    values: dict[str, tuple[Any, Any]] = {
        "EventId": (event_id, t.ByteString),
        "EventType": (event_type, t.NodeId),
        "SourceNode": (source, t.NodeId),
        "SourceName": (source_name, t.String),
        "Time": (time, t.DateTime),
        "ReceiveTime": (time, t.DateTime),
        "Message": (ua.LocalizedText(message, "en"), t.LocalizedText),
        "Severity": (severity, t.UInt16),
    }
    return {((0, name),): ua.Variant(value, kind) for name, (value, kind) in values.items()}
