"""Events: the filter that a profile's clause asks for, and what comes back as a `DeviceEvent`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua

from adapters.contract import DeviceEvent, DeviceSpec, EventTrouble
from adapters.opcua import _resolve
from adapters.opcua._addresses import UnknownNamespaceError, browse_path, is_node_id, node_id, node_text, parse_path
from adapters.opcua._browse import Child, related
from adapters.opcua._conditions import REFRESH_EVENTS, Conditions
from adapters.opcua._errors import fault_name
from adapters.opcua._session import Session
from adapters.opcua._strings import text
from schemas import status as codes
from schemas.bilingual import Bilingual, chinese, of_error
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
_NODE_CLASS: Final = 2
_VALUE: Final = 13
_HAS_SUBTYPE: Final = ua.NodeId(45)
_SUBTYPES: Final = 12
"""Most event types that are named in a where clause."""
_OF_THE_BROWSE: Final = frozenset(
    {
        "BadInternalError", "BadUnexpectedError", "BadNotSupported", "BadNotImplemented", "BadServiceUnsupported", "BadNodeIdUnknown",
        "BadNodeIdInvalid", "BadReferenceTypeIdInvalid", "BadContinuationPointInvalid", "BadNoContinuationPoints", "BadViewIdUnknown",
        "BadUserAccessDenied", "BadNotReadable", "BadBrowseDirectionInvalid",
    }
)  # fmt: skip
"""Faults of a browse that are not the session's."""


NOTHING: Final = Bilingual("", "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the server does not take of an event clause: its status, and what it says more than that."""

    status: int
    more: Bilingual = NOTHING

    @property
    def text(self) -> Bilingual:
        """For people."""
        info = codes.info(self.status)
        en, zh = f"{info.name}: {info.text_en}", f"{info.name}：{info.text_zh}"
        return Bilingual(f"{en} ({self.more})", f"{zh}（{self.more.zh}）") if self.more else Bilingual(en, zh)


@dataclass(slots=True)
class EventItem:
    """An event clause as a monitored item of a session. A *place* is the position of a field among all that the clause asks for: those of
    every event, those of an alarm, the profile's."""

    device: DeviceSpec
    clause: EventClause
    handle: int
    notifier: Any = None
    event_type: Any = None
    """NodeId of the type in the where clause."""
    type_known: bool = True
    """Whether that type is among the server's nodes."""
    selects: list[Any] = field(default_factory=list)
    """The select clause of each place; None for a field in a namespace that the server lacks."""
    where: list[Any] = field(default_factory=list)
    item_id: int | None = None
    simple: bool = False
    """The server refused the full where clause: only the type itself is asked for."""
    left: set[int] = field(default_factory=set)
    """Places that are not asked for, since the server refuses the whole clause with them."""
    refused: dict[int, Refusal] = field(default_factory=dict)
    """Places that the server refuses, whether they are asked for or not."""
    absent: dict[int, Refusal] = field(default_factory=dict)
    """Places of which the server lacks the namespace or the event type."""
    returned: set[int] = field(default_factory=set)
    """Places that were absent when the clause was prepared before, and are not any more."""
    proved: set[int] = field(default_factory=set)
    """Places that have had a value, whatever the server says of them."""
    heard: bool = False
    """An event has come: the server has the type, whether it shows it or not."""
    layouts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Number of fields in an event -> their places; an event that comes late may still have the fields of before."""
    trouble: EventTrouble | None = None
    """What the host was told of it."""
    conditions: Conditions | None = None
    """What is known of the conditions of an alarm clause."""

    @property
    def name(self) -> str:
        """For people."""
        return f"device {self.device.id}: event {self.clause.name}"

    @property
    def own(self) -> range:
        """The places of the profile's fields."""
        first = _first_own(self.clause)
        return range(first, first + len(self.clause.fields))

    def filter(self, places: Iterable[int] | None = None) -> Any:
        """The EventFilter (OPC 10000-4 §7.22.3) that asks for these places of the profile's, by default for all that are not left out,
        besides the standard's own."""
        wanted = set(self.own) - self.left if places is None else set(places)
        asked = tuple(
            place
            for place, select in enumerate(self.selects)
            if select is not None and (place in wanted or (place < self.own.start and place not in self.left))
        )
        if places is None:
            self.layouts[len(asked)] = asked
        made = ua.EventFilter()
        made.SelectClauses = [self.selects[place] for place in asked]
        made.WhereClause.Elements = list(self.where)
        return made


def _first_own(clause: EventClause) -> int:
    return len(_BASE_FIELDS) + (len(_ALARM_FIELDS) if clause.kind == "alarm" else 0)


async def prepare(session: Session, item: EventItem, root: Any) -> Refusal | None:
    """Resolves notifier, type and fields for this session; a Refusal says why the clause cannot be asked for at all."""
    clause = item.clause
    prefixes = _resolve.rules_of(item.device).namespaces
    if item.item_id is None:
        item.simple = False
    try:
        item.event_type = node_id(clause.of_type or clause.type, session.namespaces)
        definition = node_id(clause.type, session.namespaces)
        if not clause.notifier:
            item.notifier = SERVER
        elif is_node_id(clause.notifier):
            item.notifier = node_id(clause.notifier, session.namespaces)
        else:
            path = browse_path(parse_path(clause.notifier, prefixes), session.namespaces)
            (item.notifier,) = await _resolve.translate(session, [(root, path)])
            if isinstance(item.notifier, int):
                what = f"the notifier's path {clause.notifier}", f"通知者路径 {clause.notifier}"
                return Refusal(item.notifier, Bilingual(*what))
    except UnknownNamespaceError as error:
        return Refusal(codes.BAD_NODE_ID_UNKNOWN, _lacks(error))
    selects: list[Any] = [_operand(_BASE_EVENT, [ua.QualifiedName(name, 0)]) for name in _BASE_FIELDS]
    if clause.kind == "alarm":
        selects += [_alarm_operand(definition, names) for definition, names in _ALARM_FIELDS]
    operands: list[tuple[Any, list[Any]] | None] = []
    absent: dict[int, Refusal] = {}
    for wanted in clause.fields.values():
        try:
            path = browse_path(parse_path(wanted.path, prefixes), session.namespaces)
            owner = definition if wanted.of is None else node_id(wanted.of, session.namespaces)
        except UnknownNamespaceError as error:  # it costs this field alone
            absent[item.own.start + len(operands)] = Refusal(codes.BAD_NODE_ID_UNKNOWN, _lacks(error))
            operands.append(None)
        else:
            operands.append((owner, path))
    missing = await _missing(session, {item.event_type, *(operand[0] for operand in operands if operand is not None)})
    for place, operand in enumerate(operands, item.own.start):
        owner = None if operand is None else operand[0]
        selects.append(None if operand is None else _operand(_BASE_EVENT if owner in missing else owner, operand[1]))
        if owner in missing and owner != definition:
            kind = node_text(owner, session.namespaces)
            why = Bilingual(f"the server does not have the event type {kind}", f"服务器没有事件类型 {kind}")
            absent[place] = Refusal(codes.BAD_NODE_ID_UNKNOWN, why)
    item.selects = selects
    item.returned, item.absent = set(item.absent) - set(absent), absent
    item.type_known = item.event_type not in missing
    item.where = _where(await _wanted(session, item, item.event_type))
    return None


def _lacks(error: UnknownNamespaceError) -> Bilingual:
    return Bilingual(f"the server lacks {of_error(error)}", f"服务器缺少{chinese(of_error(error))}")


async def _missing(session: Session, types: Collection[Any]) -> set[Any]:
    """Those of the types that are not among the server's nodes; the standard's own are taken as known, since not every server shows them.

    They must not stand in a select clause (node-opcua hangs up at once), where BaseEventType means whatever the event is of
    (OPC 10000-4 §7.7.4.5).
    """
    asked = [each for each in types if each.NamespaceIndex != 0]
    rows = await session.read(asked, _NODE_CLASS, timestamps=False)
    unknown = (codes.BAD_NODE_ID_UNKNOWN, codes.BAD_NODE_ID_INVALID)
    return {each for each, row in zip(asked, rows, strict=True) if row[1] & codes.CODE_MASK in unknown}


async def declared(session: Session, item: EventItem, place: int) -> bool:
    """Whether the address space has this field, at its event type or at one that it descends from: some servers look at the type alone when
    they judge a select clause."""
    select = item.selects[place]
    types, level = [select.TypeDefinitionId], [select.TypeDefinitionId]
    while level and len(types) <= _SUBTYPES:
        above = await _related(session, level, forward=False)
        level = [each.node for parents in above for each in parents if each.node not in types]
        types += level
    found = await _resolve.translate(session, [(each, list(select.BrowsePath)) for each in types])
    return any(not isinstance(each, int) for each in found)


async def _related(session: Session, types: Sequence[Any], *, forward: bool = True) -> list[list[Child]]:
    """The types below (or above) these, none where the server does not browse its types: that costs no more than what they would tell."""
    try:
        return await related(session, types, _HAS_SUBTYPE, forward=forward)
    except ua.UaStatusCodeError as error:
        if fault_name(error) not in _OF_THE_BROWSE:
            raise
        return []


async def _wanted(session: Session, item: EventItem, event_type: Any) -> list[Any]:
    """The event types of the where clause. OfType includes subtypes (OPC 10000-4 §7.7.3), yet some servers, asyncua's among them, compare
    the type alone: a few subtypes are named, and of an alarm the events of a refresh, which some servers hold back."""
    if event_type == _BASE_EVENT or item.simple:
        return [event_type]
    found = [event_type]
    level = [event_type]
    while level and len(found) <= _SUBTYPES:
        level = [child.node for below in await _related(session, level) for child in below]
        level = [node for node in level if node not in found]
        found += level
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
    padded: list[Any] = [None] * item.own.stop
    for place, value in zip(item.layouts.get(len(fields), range(item.own.stop)), fields, strict=False):
        padded[place] = text(value, encoding)
    item.heard = True
    item.proved.update(place for place in (*item.refused, *item.absent) if padded[place] is not None)
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
