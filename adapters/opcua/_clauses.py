"""Event clauses as monitored items (OPC 10000-4 §5.13, §7.22.3): what a server takes of them, what it refuses, and how that comes back.

A refused field costs itself alone: the rest of the clause is monitored without it, and it is asked for again now and then. Servers refuse in
several ways: some take the item and mark its select clauses, some refuse the item and mark them, some only say that the filter is bad, and one
answers the whole call with a fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from asyncua import ua

from adapters.contract import EventTrouble
from adapters.opcua import _limits as limits
from adapters.opcua import _monitoring
from adapters.opcua._errors import fault_name
from adapters.opcua._events import EVENT_NOTIFIER, EventItem, Refusal, declared
from adapters.opcua._session import Session
from adapters.opcua._subscription import Subscription
from schemas import status as codes
from schemas.bilingual import Bilingual

_QUEUE: Final = 10_000
_TRIAL: Final = 0x7F000000
"""Handle of an item by which fields are tried; nothing is known of it, so that its events are passed over."""
_OF_THE_FILTER: Final = frozenset(
    {
        "BadInternalError", "BadUnexpectedError", "BadInvalidArgument", "BadNodeIdUnknown", "BadNodeIdInvalid", "BadNotSupported",
        "BadTypeDefinitionInvalid", "BadBrowseNameInvalid", "BadAttributeIdInvalid", "BadEventFilterInvalid", "BadContentFilterInvalid",
        "BadMonitoredItemFilterInvalid", "BadMonitoredItemFilterUnsupported", "BadFilterNotAllowed", "BadFilterOperandInvalid",
        "BadTypeMismatch", "BadNoMatch", "BadOutOfMemory",
    }
)  # fmt: skip
"""Faults of a whole call that may come of one clause, and are not the session's."""
_FIX: Final = (
    "Look with `guantong browse` how the server names its event types and their fields, and correct the clause in the profile; what an update "
    "of the machine brings is found by itself.",
    "请用 guantong browse 查看服务器的事件类型及其字段名称，并更正模板中的该事件；设备升级后新增的内容会自动识别。",
)

_NAMES: Final = frozenset({codes.BAD_NODE_ID_UNKNOWN, codes.BAD_NODE_ID_INVALID, codes.by_name("BadNoMatch")})
"""Statuses of a name that is not the server's."""

_Marks = Mapping[int, int]
"""Place -> what the server says of its select clause, where that is bad."""


async def monitor(session: Session, subscription: Subscription, item: EventItem) -> Refusal | None:
    """Creates the item, or brings one that is there up to what the server takes by now; it has been prepared. A Refusal says why
    there is no item; what is refused of one that there is stands in `item.refused`."""
    if item.item_id is not None:
        await _again(session, subscription, item)
        return None
    item.left, item.refused = set(), {}
    status, marks = await _create(session, subscription, item)
    if codes.is_bad(status) and not marks and len(item.where) > 1:
        item.simple = True
        item.where = _of_type_alone(item)
        status, marks = await _create(session, subscription, item)
    if codes.is_bad(status):
        refused = marks or await _culprits(session, subscription, item, item.own)
        if refused:
            item.left = set(refused)
            item.refused |= {place: Refusal(code) for place, code in refused.items() if place in item.own}
            status, marks = await _create(session, subscription, item)
    if codes.is_bad(status):
        return Refusal(status)
    await _marked(session, item, marks)
    return None


def _of_type_alone(item: EventItem) -> list[Any]:
    """The element of the where clause that names the clause's own type: the first one without an operator between types."""
    return next(
        ([element] for element in item.where if element.FilterOperator == ua.FilterOperator.OfType), list(item.where)
    )


async def _culprits(
    session: Session, subscription: Subscription, item: EventItem, places: Iterable[int]
) -> dict[int, int]:
    """The fields for which the server refuses a clause without naming any; none where it refuses the clause without them too."""
    bare, _ = await _create(session, subscription, item, ())
    return {} if codes.is_bad(bare) else await _tried(session, subscription, item, places)


async def _marked(session: Session, item: EventItem, marks: _Marks) -> None:
    """The server took the item and finds fault with some of its fields: those that it does not have at all are refused."""
    for place, code in marks.items():
        if place in item.own and not await declared(session, item, place):
            item.refused[place] = Refusal(code)


async def _again(session: Session, subscription: Subscription, item: EventItem) -> None:
    """Asks for what was refused once more."""
    still = await _tried(session, subscription, item, {*item.refused, *item.returned})
    left, refused = item.left, item.refused
    item.left = {place for place in left | item.returned if place in still or place < item.own.start}
    if await _modify(session, subscription, item):
        item.refused = {place: Refusal(still[place]) for place in item.left if place in still}
        await _marked(session, item, {place: code for place, code in still.items() if place not in item.left})
    else:
        item.left, item.refused = left, refused
        item.filter()  # what comes goes on to have the old layout


async def _tried(
    session: Session, subscription: Subscription, item: EventItem, places: Iterable[int]
) -> dict[int, int]:
    """Which of these places the server refuses, and how: by an item that is not monitored, and does not stay."""
    wanted = sorted(place for place in places if item.selects[place] is not None)
    if not wanted:
        return {}
    status, marks = await _create(session, subscription, item, wanted)
    marks = {place: code for place, code in marks.items() if place in wanted}
    if not codes.is_bad(status) or marks:
        return marks
    if len(wanted) == 1:
        return {wanted[0]: status}
    half = len(wanted) // 2
    first = await _tried(session, subscription, item, wanted[:half])
    return first | await _tried(session, subscription, item, wanted[half:])


async def _create(
    session: Session, subscription: Subscription, item: EventItem, places: Iterable[int] | None = None
) -> tuple[int, dict[int, int]]:
    """Creates the item, with all that is not left out, or a trial of `places`; its status, and the places that the server marks as bad."""
    trial = places is not None
    asked = item.filter(places)
    if not trial:
        subscription.events[item.handle] = item

    async def call(piece: Any) -> list[Any]:
        create = ua.MonitoredItemCreateRequest()
        create.ItemToMonitor.NodeId = item.notifier
        create.ItemToMonitor.AttributeId = ua.AttributeIds(EVENT_NOTIFIER)
        create.MonitoringMode = ua.MonitoringMode.Disabled if trial else ua.MonitoringMode.Reporting
        create.RequestedParameters = _parameters(_TRIAL + item.handle if trial else item.handle, asked)
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [create]
        return list((await session.call(request, ua.CreateMonitoredItemsResponse)).Results)

    status, result = await _asked(session, item, call)
    if result is None:
        return status, {}
    if not codes.is_bad(status):
        if trial:
            await _monitoring.delete_items(session, subscription, [result.MonitoredItemId])
        else:
            item.item_id = result.MonitoredItemId
    return status, _marks(item, asked, result)


async def _modify(session: Session, subscription: Subscription, item: EventItem) -> bool:
    """Gives the item the filter that it should have; where the server refuses that, it keeps the old one."""
    asked = item.filter()

    async def call(piece: Any) -> list[Any]:
        modify = ua.MonitoredItemModifyRequest()
        modify.MonitoredItemId = item.item_id
        modify.RequestedParameters = _parameters(item.handle, asked)
        request = ua.ModifyMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToModify = [modify]
        return list((await session.call(request, ua.ModifyMonitoredItemsResponse)).Results)

    status, _ = await _asked(session, item, call)
    return not codes.is_bad(status)


async def _asked(session: Session, item: EventItem, call: Callable[[Any], Awaitable[list[Any]]]) -> tuple[int, Any]:
    """Status and result of one operation; a fault of the whole call that the clause may have caused is its status."""
    try:
        (result,) = await session.limits.calls(limits.MONITOR, [item], call)
    except ua.UaStatusCodeError as error:
        if fault_name(error) not in _OF_THE_FILTER:
            raise
        return int(error.code), None
    return int(result.StatusCode.value), result


def _parameters(handle: int, wanted: Any) -> Any:
    parameters = ua.MonitoringParameters()
    parameters.ClientHandle = handle
    parameters.SamplingInterval = 0.0
    parameters.Filter = wanted
    parameters.QueueSize = _QUEUE
    parameters.DiscardOldest = True
    return parameters


def _marks(item: EventItem, asked: Any, result: Any) -> dict[int, int]:
    """The places whose select clauses the server finds bad (EventFilterResult)."""
    statuses = getattr(result.FilterResult, "SelectClauseResults", None) or []
    place_of = {id(select): place for place, select in enumerate(item.selects) if select is not None}
    return {
        place_of[id(select)]: int(status.value)
        for select, status in zip(asked.SelectClauses, statuses, strict=False)
        if codes.is_bad(int(status.value))
    }


# ------------------------------------------------------------------------------------------------------------ for people


def trouble(item: EventItem, refusal: Refusal | None) -> EventTrouble | None:
    """What is to be told of a clause: `refusal` of the whole, or what is refused of it; None when all of it is there."""
    clause = item.clause
    kind = clause.of_type or clause.type
    if refusal is not None:
        what = f"event type {kind}", f"事件类型 {kind}"
        if clause.notifier:
            what = f"{what[0]} at {clause.notifier}", f"{what[1]}（通知者 {clause.notifier}）"
        problem = Bilingual(f"{what[0]} is refused: {refusal.text}", f"{what[1]}被拒绝：{refusal.text.zh}")
    elif not item.type_known and not item.heard:
        problem = Bilingual(
            f"the server does not have the event type {kind} (BadNodeIdUnknown)",
            f"服务器没有事件类型 {kind}（BadNodeIdUnknown）",
        )
    elif refused := {place: why for place, why in (item.refused | item.absent).items() if place not in item.proved}:
        names = list(clause.fields)
        en, zh = [], []
        for place, why in sorted(refused.items()):
            name = names[place - item.own.start]
            wanted = clause.fields[name]
            where = wanted.path if wanted.of is None else f"{wanted.path} of {wanted.of}"
            en.append(f"{name} ({where}): {why.text}")
            zh.append(f"{name}（{where}）：{why.text.zh}")
        problem = Bilingual(
            f"event type {kind} comes without the fields that the server refuses: {'; '.join(en)}",
            f"事件类型 {kind} 缺少服务器拒绝的字段：{'；'.join(zh)}",
        )
    else:
        return None
    return EventTrouble(item.device.id, clause.name, problem, *_fix(refusal))


def _fix(refusal: Refusal | None) -> tuple[str, str]:
    """What a person can do: look at the names, or what the status asks for."""
    if refusal is None or refusal.status & codes.CODE_MASK in _NAMES:
        return _FIX
    info = codes.info(refusal.status)
    return (info.fix_en, info.fix_zh) if info.fix_en else _FIX
