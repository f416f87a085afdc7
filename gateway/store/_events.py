"""Events: each once, whatever is sent again, and numbered in the order of their commits."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._sql import insert_new, text
from gateway.store._values import to_json
from schemas.wire import Event


def store_events(connection: sa.Connection, gateway: str, events: Sequence[Event], number: int) -> list[str]:
    """Store the events whose id is new, numbered from `number + 1` on. Returns their ids."""
    new: list[str] = []
    for event in events:
        row = {
            "no": number + len(new) + 1, "id": text(event.id), "ts": event.ts, "source_ts": event.source_ts,
            "gateway": gateway, "asset": event.asset, "device": event.device, "type": text(event.type),
            "severity": event.severity, "message_zh": text(event.message_zh), "message_en": text(event.message_en),
            "fields": to_json(event.fields), "condition": None if event.condition is None else text(event.condition),
            "state": event.state, "flags": event.flags,
        }  # fmt: skip
        if insert_new(connection, t.event, row, unique="id"):
            new.append(event.id)
    return new
