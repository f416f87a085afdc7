"""Subscriptions that outlive their link: taken over with their session, or transferred to a new one (OPC 10000-4 §6.7, §5.14.7).

What the server published and we did not get, it still has, and gives again by Republish as soon as the next number shows the hole.
What it could not queue is lost; where its history has it, it is fetched from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncua import ua

from adapters.contract import Clock, Recovered
from adapters.opcua import _losses
from adapters.opcua._errors import EXPECTED, fault_name
from adapters.opcua._monitoring import Item
from adapters.opcua._outlet import Outlet
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._session import Session
from adapters.opcua._subscription import Group, Subscription

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


def adopt(subscriptions: Iterable[Subscription], outlet: Outlet, clock: Clock, *, initial: bool) -> None:
    """Makes subscriptions of a lost link those of the present one. `initial`: the server repeats the last value of each item."""
    for subscription in subscriptions:
        subscription.outlet = outlet
        subscription.heard = clock.monotonic()
        subscription.held.clear()  # not acknowledged, so the server gives it again
        subscription.repairing = False
        subscription.queues = subscription.queue_sizes(subscription)
        if initial:
            subscription.initial.update(subscription.points)
        if not subscription.events:
            subscription.group.answering = True


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

    while group.growing or any(waiting(s) for s in group.subscriptions):  # noqa: ASYNC110  silence is watched
        await asyncio.sleep(_LOOK)
    good = _losses.readable(items)
    async with group.reading:
        end = group.reached() or clock.now()
        holes = [] if group.growing else list(group.holes)
        rows = await session.read([item.node for item in good])
        if holes:  # they stay with the group until they are told: the link may break once more before
            live = {item.point.id: row for item, row in zip(good, rows, strict=True)}
            await _losses.fill(session, outlet, clock, server_clock, group, holes, good, live)
        group.answering = False
        if since is not None:
            outlet.put(Recovered(group.device, group.name, group.until(end), (), timed=False))
        await _losses.hand_on(outlet, clock, group, good, rows)
    if group.holes:
        group.on_loss(group, group.holes[0])


def same_session(session: Session, before: Session) -> bool:
    """Whether what the server was left with is the session of that link, and not one that was begun since and came to nothing."""
    return session.orphan is not None and before.orphan is not None and session.orphan.token == before.orphan.token


def resumable(error: Any) -> bool:
    """Whether a link that was lost with this error may have left its subscriptions alive: the network failed, the server did not."""
    return getattr(error, "reason", "") in ("connection_lost", "timeout")
