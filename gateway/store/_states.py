"""Links and progress: whether a device is connected, and up to when all that it sourced is stored."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._sql import text, upsert
from schemas.wire import Done, Link


def store_link(connection: sa.Connection, link: Link) -> tuple[int, int] | None:
    """A down opens an interval, or gives the open one its newer reason; an up closes it, whichever stream opened it (rule 15).

    Returns the interval whose bounds have changed, as far as it is known.
    """
    interval = t.connection.c
    open_one = connection.execute(
        sa.select(interval.id, interval.from_ts).where(interval.device == link.device, interval.to_ts.is_(None))
    ).first()
    if link.up and open_one is not None:
        end = max(link.at, open_one.from_ts)
        connection.execute(t.connection.update().where(interval.id == open_one.id).values(to_ts=end))
        return open_one.from_ts, end
    if not link.up and open_one is None:
        row = {"device": link.device, "from_ts": link.at, "to_ts": None, "reason": text(link.reason)}
        connection.execute(t.connection.insert(), row)
        return link.at, link.at
    if open_one is not None:
        connection.execute(t.connection.update().where(interval.id == open_one.id).values(reason=text(link.reason)))
    return None


def store_progress(connection: sa.Connection, stream: str, at: int, done: Iterable[Done]) -> None:
    """Keep the latest `complete_to` of each (device, group); the last one wins, also when a clock went back."""
    rows = {
        (item.device, item.group): {
            "device": item.device, "group_name": item.group, "complete_to": item.complete_to, "stream": stream, "at": at,
        }
        for item in done
    }  # fmt: skip
    upsert(connection, t.progress, [rows[key] for key in sorted(rows)])
