"""Gaps: what is missing, never understated (rule 12).

When messages are lost, or a collector was down, nobody knows which readings are missing. What is known is `complete_to`: all
that a scan group sourced up to then is stored. So a gap begins, for each (device, group), at the last stored `complete_to`, and
goes on until the next one of the same group arrives in the same or a later stream, since that again covers all before it.
Where that one says that what was missed while the collector was down has been fetched from some time on (`back_to`), the gap ends
there, and one of which nothing is left is withdrawn: what could not be fetched has been told by gaps of its own.
Where a group has vanished, its gap goes on until every group that the device now has has reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from gateway.ledger.steps import Step
from gateway.store import tables as t
from gateway.store._sql import text
from schemas.wire import Cause, Done, Gap


def insert_gaps(connection: sa.Connection, step: Step, gaps: Sequence[Gap], points: dict[int, int]) -> None:
    """Store gaps as collect tells them. A point that is unknown makes it a gap of the whole device."""
    rows = []
    for gap in gaps:
        signals = None
        if gap.points is not None and all(point in points for point in gap.points):
            signals = sorted({points[point] for point in gap.points})
        rows.append(
            _row(step, gap.device, gap.cause, gap.start, max(gap.start, gap.end), signals=signals, detail=gap.detail)
            | {"count": gap.count}
        )
    if rows:
        connection.execute(t.gap.insert(), rows)


def insert_gap(
    connection: sa.Connection, step: Step, device: str, signal: int, cause: Cause, start: int, end: int, count: int
) -> None:
    """Store a gap of one signal."""
    row = _row(step, device, cause, start, end, signals=[signal]) | {"count": count}
    connection.execute(t.gap.insert(), row)


def open_gaps(connection: sa.Connection, step: Step, cause: Cause, detail: str = "") -> list[tuple[str, int]]:
    """Begin a gap for each device of the step's gateway, to be ended by `end_gaps`; not where one of this cause is open.

    Returns the devices, each with the gap's begin.
    """
    device, progress, gap = t.device.c, t.progress.c, t.gap.c
    open_ones = {
        (row.device, row.group_name)
        for row in connection.execute(
            sa.select(gap.device, gap.group_name).where(
                gap.gateway == step.gateway, gap.cause == cause.value, gap.end_ts.is_(None)
            )
        )
    }
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    live = sa.select(t.signal.c.id, t.signal.c.device, t.signal.c.group_name).join(
        t.device, sa.and_(device.id == t.signal.c.device, device.gateway == step.gateway)
    )
    for row in connection.execute(live.where(t.signal.c.retired.is_(False))):
        members[row.device, row.group_name].append(row.id)
        sizes[row.device] += 1
    known = connection.execute(
        sa.select(device.id, device.born_at, progress.group_name, progress.complete_to)
        .select_from(t.device.outerjoin(t.progress, progress.device == device.id))
        .where(device.gateway == step.gateway, device.retired.is_(False))
    )
    rows = []
    for name, born_at, group, complete_to in known:
        if (name, group) in open_ones:
            continue
        signals = members.get((name, group)) if group is not None else None
        if signals is not None and len(signals) == sizes[name]:
            signals = None
        start = born_at if complete_to is None else complete_to
        rows.append(_row(step, name, cause, start, None, signals=signals, detail=detail) | {"group_name": group})
    if rows:
        connection.execute(t.gap.insert(), rows)
    return [(row["device"], row["start_ts"]) for row in rows]


def devices_with_open_gaps(connection: sa.Connection) -> set[str]:
    """Devices for which `end_gaps` has something to do."""
    return {name for name in connection.scalars(sa.select(t.gap.c.device).where(t.gap.c.end_ts.is_(None))) if name}


def end_gaps(connection: sa.Connection, step: Step, done: Sequence[Done]) -> list[tuple[str, int]]:
    """End open gaps of the devices in `done`, whose progress is stored already. See the module's docstring.

    Returns the devices whose gaps ended, each with the gap's begin.
    """
    gap = t.gap.c
    devices = sorted({item.device for item in done})
    open_ones = connection.execute(
        sa.select(gap.id, gap.device, gap.group_name, gap.start_ts, gap.cause).where(
            gap.device.in_(devices), gap.end_ts.is_(None), gap.gateway == step.gateway
        )
    ).all()
    ended: list[tuple[str, int]] = []
    if not open_ones:
        return ended
    complete = {(item.device, item.group): item for item in done}
    for name in {row.device for row in open_ones}:
        reported = {
            row.group_name: row.complete_to
            for row in connection.execute(
                sa.select(t.progress.c.group_name, t.progress.c.complete_to).where(
                    t.progress.c.device == name, t.progress.c.stream == step.stream
                )
            )
        }
        groups = set(
            connection.scalars(
                sa.select(t.signal.c.group_name)
                .where(t.signal.c.device == name, t.signal.c.retired.is_(False))
                .distinct()
            )
        )
        for row in open_ones:
            if row.device != name:
                continue
            if (name, row.group_name) in complete:
                item = complete[name, row.group_name]
                end = item.complete_to
                if item.back_to is not None and row.cause == Cause.COLLECTOR_DOWN.value:
                    if item.back_to <= row.start_ts:
                        connection.execute(t.gap.delete().where(gap.id == row.id))
                        ended.append((name, row.start_ts))
                        continue
                    end = min(end, item.back_to)
            elif (row.group_name is None or row.group_name not in groups) and groups <= set(reported):
                end = max(reported.values())
            else:
                continue
            connection.execute(t.gap.update().where(gap.id == row.id).values(end_ts=max(end, row.start_ts)))
            ended.append((name, row.start_ts))
    return ended


def end_gaps_of_retired(connection: sa.Connection, device: str, at: int) -> None:
    """Nothing more is expected of a retired device: its open gaps end."""
    condition = sa.and_(t.gap.c.device == device, t.gap.c.end_ts.is_(None))
    later = sa.case((t.gap.c.start_ts > at, t.gap.c.start_ts), else_=sa.literal(at, t.Micros))
    connection.execute(t.gap.update().where(condition).values(end_ts=later))


def _row(
    step: Step,
    device: str | None,
    cause: str,
    start: int,
    end: int | None,
    *,
    signals: list[int] | None,
    detail: str = "",
) -> dict[str, Any]:
    return {
        "gateway": step.gateway, "device": device, "group_name": None, "signals": signals, "start_ts": start,
        "end_ts": end, "cause": str(cause), "count": None, "detail": text(detail or step.detail),
        "stream": step.stream, "seq": step.first,
    }  # fmt: skip
