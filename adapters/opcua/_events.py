"""Events: the filter that a profile's clause asks for, and what comes back as a `DeviceEvent`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua

from adapters.contract import DeviceEvent, DeviceSpec
from adapters.opcua import _resolve
from adapters.opcua._addresses import UnknownNamespaceError, browse_path, is_node_id, node_id, parse_path
from adapters.opcua._browse import related
from adapters.opcua._conditions import REFRESH_EVENTS, Conditions
from adapters.opcua._session import Session
from adapters.opcua._strings import text
from schemas import status as codes
from schemas.profile import EventClause

SERVER: Final = ua.NodeId(2253)
EVENT_NOTIFIER: Final = 12
_BASE_EVENT: Final = ua.NodeId(2041)
_CONDITION: Final = ua.NodeId(2782)
_ACKNOWLEDGEABLE: Final = ua.NodeId(2881)
_ALARM: Final = ua.NodeId(2915)
QUEUE_OVERFLOW: Final = "i=3035"
"""EventQueueOverflowEventType: the server's queue was full and events are lost (OPC 10000-5 §6.4.6)."""

_BASE_FIELDS: Final = ("EventId", "EventType", "SourceNode", "SourceName", "Time", "ReceiveTime", "Message", "Severity")
"""Of BaseEventType (OPC 10000-5 §6.4.2)."""
_ALARM_FIELDS: Final[tuple[tuple[Any, tuple[str, ...]], ...]] = (
    (_CONDITION, ()),
    (_CONDITION, ("ConditionName",)),
    (_CONDITION, ("Retain",)),
    (_CONDITION, ("BranchId",)),
    (_CONDITION, ("EnabledState", "Id")),
    (_ACKNOWLEDGEABLE, ("AckedState", "Id")),
    (_ACKNOWLEDGEABLE, ("ConfirmedState", "Id")),
    (_ALARM, ("ActiveState", "Id")),
)
"""Of conditions and alarms (OPC 10000-9 §5.5.2, §5.7.2, §5.8.2); the empty path selects the ConditionId."""
_NODE_ID: Final = 1
_VALUE: Final = 13
_HAS_SUBTYPE: Final = ua.NodeId(45)
_SUBTYPES: Final = 12
"""Most event types that are named in a where clause."""


@dataclass(slots=True)
class EventItem:
    """An event clause as a monitored item of a session."""

    device: DeviceSpec
    clause: EventClause
    handle: int
    notifier: Any = None
    filter: Any = None
    item_id: int | None = None
    simple: bool = False
    """The server refused the full where clause: only the type itself is asked for."""
    conditions: Conditions | None = None
    """What is known of the conditions of an alarm clause."""

    @property
    def name(self) -> str:
        """For people."""
        return f"device {self.device.id}: event {self.clause.name}"


async def prepare(session: Session, item: EventItem, root: Any) -> _resolve.Unresolved | None:
    """Resolves the notifier and builds the filter for this session; an `Unresolved` says why it cannot."""
    clause = item.clause
    prefixes = _resolve.rules_of(item.device).namespaces
    try:
        event_type = node_id(clause.of_type or clause.type, session.namespaces)
        selects = [_operand(_BASE_EVENT, [ua.QualifiedName(name, 0)]) for name in _BASE_FIELDS]
        if clause.kind == "alarm":
            selects += [_alarm_operand(definition, names) for definition, names in _ALARM_FIELDS]
        definition = node_id(clause.type, session.namespaces)
        for field in clause.fields.values():
            path = browse_path(parse_path(field.path, prefixes), session.namespaces)
            owner = definition if field.of is None else node_id(field.of, session.namespaces)
            selects.append(_operand(owner, path))
        if not clause.notifier:
            item.notifier = SERVER
        elif is_node_id(clause.notifier):
            item.notifier = node_id(clause.notifier, session.namespaces)
        else:
            path = browse_path(parse_path(clause.notifier, prefixes), session.namespaces)
            (item.notifier,) = await _resolve.translate(session, [(root, path)])
            if isinstance(item.notifier, int):
                return _resolve.Unresolved(item.notifier, f"nothing at the notifier's path {clause.notifier}")
    except UnknownNamespaceError as error:
        return _resolve.Unresolved(codes.BAD_NODE_ID_UNKNOWN, f"the server lacks {error}")
    item.filter = ua.EventFilter()
    item.filter.SelectClauses = selects
    item.filter.WhereClause.Elements = _where(await _wanted(session, item, event_type))
    return None


async def _wanted(session: Session, item: EventItem, event_type: Any) -> list[Any]:
    """The event types of the where clause. OfType includes subtypes (OPC 10000-4 §7.7.3), yet some servers, asyncua's among them, compare
    the type alone: a few subtypes are named, and of an alarm the events of a refresh, which some servers hold back."""
    if event_type == _BASE_EVENT or item.simple:
        return [event_type]
    found = [event_type]
    level = [event_type]
    while level and len(found) <= _SUBTYPES:
        level = [child.node for below in await related(session, level, _HAS_SUBTYPE) for child in below]
        found += [node for node in level if node not in found]
    if len(found) > _SUBTYPES:
        found = [event_type]
    if item.clause.kind == "alarm":
        found += [ua.NodeId(int(each[2:])) for each in sorted(REFRESH_EVENTS)]
    return found


def _where(types: Sequence[Any]) -> list[Any]:
    """The elements of a content filter: any of these types (OPC 10000-4 §7.7.1); all events need none."""
    if list(types) == [_BASE_EVENT]:
        return []
    elements: list[Any] = []
    for i, each in enumerate(types):
        if i < len(types) - 1:
            either = ua.ContentFilterElement()
            either.FilterOperator = ua.FilterOperator.Or
            place = len(elements)
            either.FilterOperands = [ua.ElementOperand(place + 1), ua.ElementOperand(place + 2)]
            elements.append(either)
        elements.append(_of_type(each))
    return elements


def _operand(definition: Any, path: list[Any], attribute: int = _VALUE) -> Any:
    operand = ua.SimpleAttributeOperand()
    operand.TypeDefinitionId = definition
    operand.BrowsePath = path
    operand.AttributeId = ua.AttributeIds(attribute)
    return operand


def _alarm_operand(definition: Any, names: tuple[str, ...]) -> Any:
    return _operand(definition, [ua.QualifiedName(name, 0) for name in names], _VALUE if names else _NODE_ID)


def _of_type(event_type: Any) -> Any:
    """The event is of this type or a subtype (OPC 10000-4 §7.7.3, OfType)."""
    element = ua.ContentFilterElement()
    element.FilterOperator = ua.FilterOperator.OfType
    operand = ua.LiteralOperand()
    operand.Value = ua.Variant(event_type, ua.VariantType.NodeId)
    element.FilterOperands = [operand]
    return element


def to_event(item: EventItem, fields: Sequence[Any], received: int) -> DeviceEvent:
    """The event that these fields, in the order of the select clauses, describe; what the server left out is None."""
    encoding = _resolve.rules_of(item.device).encoding
    padded = [
        *(text(field, encoding) for field in fields),
        *([None] * (len(_BASE_FIELDS) + len(_ALARM_FIELDS) + len(item.clause.fields))),
    ]
    base = dict(zip(_BASE_FIELDS, padded, strict=False))
    rest = padded[len(_BASE_FIELDS) :]
    event_id, time, severity = base["EventId"], base["Time"], base["Severity"]
    event = DeviceEvent(
        item.device.id,
        item.clause.name,
        received,
        time if isinstance(time, int) else None,
        item.clause.severity or (severity if isinstance(severity, int) else 1),
        message=str(base["Message"] or ""),
        event_id=event_id.hex() if isinstance(event_id, bytes) else "",
        type=str(base["EventType"] or ""),
    )
    if item.clause.kind == "alarm":
        condition, name, retain, branch, enabled, acked, confirmed, active = rest[: len(_ALARM_FIELDS)]
        rest = rest[len(_ALARM_FIELDS) :]
        event.condition = str(condition) if condition else None
        event.state = _state(active, acked, confirmed)
        event.fields.update(condition_name=name, retain=retain, source=base["SourceName"])
        if branch:  # a former state that still waits to be acknowledged (OPC 10000-9 §4.4)
            event.fields["branch"] = str(branch)
        if enabled is False:
            event.fields["enabled"] = False
    for name, value in zip(item.clause.fields, rest, strict=False):
        event.fields[name] = value
    return event


def _state(active: Any, acked: Any, confirmed: Any) -> str | None:
    """`active,unacked,unconfirmed`: the parts that the server told."""
    words = []
    for value, yes, no in (
        (active, "active", "inactive"),
        (acked, "acked", "unacked"),
        (confirmed, "confirmed", "unconfirmed"),
    ):
        if isinstance(value, bool):
            words.append(yes if value else no)
    return ",".join(words) or None
