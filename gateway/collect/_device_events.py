"""From what an adapter gives of an event to an event of the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from adapters.contract import DeviceEvent
from gateway.collect._signal_rules import kept, unsendable
from gateway.collect.normalise import Normaliser
from gateway.config.plan import PlannedDevice
from schemas.profile import EventClause
from schemas.wire import Event, Flag

_NAMESPACE = uuid.UUID("6f6c7aa1-9a2f-5d0e-8a38-3f5e5a0c6f11")
"""Of event ids made from the device's own (RFC 9562, version 5)."""
_MAX_TEXT = 2_000
TYPE_FIELD = "event_type"
"""The field that holds the most specific event type, as a NodeId."""


def event_id(device: str, own: str) -> str:
    """The id of an event of which the device says the id itself: the same whenever the device sends it again."""
    return str(uuid.uuid5(_NAMESPACE, f"{device}:{own}"))


def wire_event(
    device: PlannedDevice,
    clause: EventClause | None,
    item: DeviceEvent,
    normaliser: Normaliser,
    new_id: Callable[[], str],
) -> Event:
    """The event as it is stored. Its time follows the rules of the device's clock, which does not judge a historical one; what
    cannot travel (a field of an odd type, or too much of them) is replaced by a short text or left out, and the event stays."""
    flags = Flag.HISTORICAL.value if item.historical else 0
    ts, more, source = normaliser.stamp(item.source_ts, flags, item.received)
    message_zh = message_en = item.message[:_MAX_TEXT]
    severity, title = item.severity, None
    if clause is not None:
        severity = clause.severity if clause.severity is not None else severity
        title = clause.description
    if not item.message and title is not None:
        message_zh, message_en = title.get("zh"), title.get("en")
    return Event(
        id=event_id(device.id, item.event_id) if item.event_id else new_id(),
        ts=ts,
        source_ts=item.source_ts if source is None else source,
        asset=device.asset,
        device=device.id,
        type=item.clause,
        severity=min(max(severity, 1), 1000),
        message_zh=message_zh,
        message_en=message_en,
        fields=_fields(item),
        condition=item.condition,
        state=item.state,
        flags=flags | more,
    )


def _fields(item: DeviceEvent) -> dict[str, Any]:
    fields = {**item.fields, TYPE_FIELD: item.type} if item.type else dict(item.fields)
    if not unsendable(fields):
        return fields
    fields = {str(name): value if not unsendable(value) else kept(value)[0] for name, value in fields.items()}
    while fields and unsendable(fields):
        largest = max(fields, key=lambda name: len(repr(fields[name])))
        del fields[largest]
    return fields
