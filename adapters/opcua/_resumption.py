"""Subscriptions that outlive their link: taken over with their session, or transferred to a new one (OPC 10000-4 §6.7, §5.14.7).

What the server published and we did not get, it still has, and gives again by Republish as soon as the next number shows the hole.
What it could not queue is lost; where its history has it, it is fetched from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua

from adapters.contract import Clock, Lost, Recovered, Samples
from adapters.opcua._backfill import Backfill
from adapters.opcua._errors import EXPECTED, fault_name
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._resolve import Unresolved
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Row, Session
from adapters.opcua._strings import settle
from adapters.opcua._subscription import Group, Subscription
from schemas.wire import Flag

log = logging.getLogger("guantong.opcua")

_LOOK: Final = 0.05
"""Seconds between two looks at whether the first notifications have come."""


async def transfer(session: Session, subscriptions: Iterable[Subscription]) -> bool:
    """Whether all of these subscriptions are this session's now. What was transferred of an incomplete set is deleted again.

    A session that was taken over has them already. SendInitialValues is asked for: it repeats the last value of each item,
    which shows that the subscription lives here, and is recognised as unchanged.
    """
    ids = [subscription.id for subscription in subscriptions]
    if session.resumed or not ids or not session.limits.transfers:
        return session.resumed
    request = ua.TransferSubscriptionsRequest()
    request.Parameters.SubscriptionIds = ids
    request.Parameters.SendInitialValues = True
    try:
        answer = await session.call(request, ua.TransferSubscriptionsResponse)
    except EXPECTED as error:
        if not fault_name(error):
            raise
        log.info("%s: no subscription can be transferred: %s", session.settings.endpoint, fault_name(error))
        return False
    results = list(answer.Parameters.Results)
    mine = [number for number, result in zip(ids, results, strict=False) if result.StatusCode.is_good()]
    if len(mine) == len(ids):
        return True
    log.info("%s: %d of %d subscriptions are still there", session.settings.endpoint, len(mine), len(ids))
    await drop(session, mine)
    return False


async def drop(session: Session, ids: Sequence[int]) -> None:
    """Deletes subscriptions that are not gone on with."""
    if not ids:
        return
    request = ua.DeleteSubscriptionsRequest()
    request.Parameters.SubscriptionIds = list(ids)
    try:
        await session.call(request, ua.DeleteSubscriptionsResponse)
    except EXPECTED as error:
        if not fault_name(error):
            raise


def adopt(
    subscriptions: Iterable[Subscription], items: Mapping[int, Item], outlet: Outlet, clock: Clock, *, initial: bool
) -> None:
    """Makes subscriptions of a lost link those of the present one. `initial`: the server repeats the last value of each item."""
    for subscription in subscriptions:
        subscription.outlet = outlet
        subscription.heard = clock.monotonic()
        subscription.held.clear()  # not acknowledged, so the server gives it again
        subscription.repairing = False
        subscription.queues = {p: items[p].queue for p in subscription.points if p in items and items[p].queue > 1}
        if initial:
            subscription.initial.update(subscription.points)
        if subscription.group.holes is None and not subscription.events:
            subscription.group.holes = []


async def gone_on(
    session: Session,
    outlet: Outlet,
    clock: Clock,
    server_clock: ServerClock,
    group: Group,
    items: Sequence[Item],
    since: int | None,
) -> None:
    """Answers for a group whose subscriptions have outlived the outage, once each of them has told how far it is; `since` None: nobody asked.

    Losses of the outage are told only as far as the server's history does not fill them. At last the present values are read and
    handed on as those of a history, which change nothing where they are known: whatever a server lost without a word is put right.
    """
    before, began = {s: s.complete_to for s in group.subscriptions}, clock.monotonic()

    def waiting(s: Subscription) -> bool:
        unknown = server_clock.offset is None and s.heard > began  # a server that does not tell its time
        return s.repairing or (s.complete_to == before.get(s) and not unknown)

    while any(waiting(s) for s in group.subscriptions):  # noqa: ASYNC110  silence is watched
        await asyncio.sleep(_LOOK)
    holes = list(group.holes or ())  # kept until they are told: the link may break once more before
    end = group.completed() or clock.now()
    good = [i for i in items if i.alive and i.node is not None and not isinstance(i.node, Unresolved)]
    rows = await session.read([item.node for item in good])
    if holes:
        live = {item.point.id: row for item, row in zip(good, rows, strict=True)}
        await _fill(session, outlet, clock, server_clock, group, items, holes, live)
    for hole in (group.holes or [])[len(holes) :]:
        outlet.put(hole)
    group.holes = None
    if since is not None:
        outlet.put(Recovered(group.device, group.name, end, (), timed=False))
    if not rows:
        return
    samples = Samples(
        group.device, group.name, clock.now(), [item.point.id for item in good], [row[0] for row in rows],
        source_ts=[row[2] if row[2] is not None else row[3] for row in rows], status=[row[1] for row in rows],
        flags=[int(Flag.HISTORICAL | (Flag.NO_SOURCE_TIME if row[2] is None else 0)) for row in rows],
    )  # fmt: skip
    settle(samples, group.encoding)
    await outlet.room()
    outlet.put_history(samples)


async def _fill(
    session: Session,
    outlet: Outlet,
    clock: Clock,
    server_clock: ServerClock,
    group: Group,
    items: Sequence[Item],
    holes: Sequence[Lost],
    live: Mapping[int, Row],
) -> None:
    """Reads from the history what the holes left out, up to the present values in `live`; tells what stays lost."""
    points = {point for hole in holes for point in (group_points(items) if hole.points is None else hole.points)}
    wanted = [item for item in items if item.point.id in points and item.point.id in live]
    backfill = Backfill(session, outlet, clock, server_clock, group, min(hole.start for hole in holes))
    backfill.live.update({point: (row[0], row[1], row[2]) for point, row in live.items()})
    missed = await backfill.points(wanted)
    left = set(points)
    if missed is not None:
        open_ones = {point for part in missed for point in (part.points if part.points is not None else points)}
        left &= open_ones
    group.firsts = None
    for hole in holes:
        rest = sorted(left & (points if hole.points is None else set(hole.points)))
        if rest:
            outlet.put(Lost(hole.device, rest, hole.start, hole.end, hole.cause, hole.count, hole.detail, hole.token))


def same_session(session: Session, before: Session) -> bool:
    """Whether what the server was left with is the session of that link, and not one that was begun since and came to nothing."""
    return session.orphan is not None and before.orphan is not None and session.orphan.token == before.orphan.token


def group_points(items: Iterable[Item]) -> set[int]:
    """The points of these items."""
    return {item.point.id for item in items}


def resumable(error: Any) -> bool:
    """Whether a link that was lost with this error may have left its subscriptions alive: the network failed, the server did not."""
    return getattr(error, "reason", "") in ("connection_lost", "timeout")
