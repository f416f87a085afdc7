"""Several PublishRequests in flight (OPC 10000-4 §5.14.5), their acknowledgements, and what was missed fetched by Republish."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from asyncua import ua

from adapters.contract import Clock
from adapters.opcua._acknowledgements import Acknowledgements, acknowledgement
from adapters.opcua._binary import DecodingError
from adapters.opcua._decode import Message, PublishResponse
from adapters.opcua._errors import EXPECTED, TOO_MANY, fault_name
from adapters.opcua._session import Session
from adapters.opcua._subscription import Subscription
from schemas import status as codes
from schemas.wire import Cause

log = logging.getLogger("guantong.opcua")

_ACKS: Final = 500
"""Acknowledgements carried by one PublishRequest at most."""
_REPUBLISHED: Final = 1_000
"""Notifications of one hole that are asked for again; a longer hole is a loss (no server keeps that many)."""
_EARLY: Final = 200
"""Answers kept for a subscription whose CreateSubscription answer has not come yet."""
_BREATH: Final = 0.05
"""Seconds before a PublishRequest follows one that failed, so that a faulty server is not stormed."""
_TRANSFERRED: Final = 0x002D0000
"""GoodSubscriptionTransferred: another session has taken it."""
_NOT_KEPT: Final = frozenset({"BadMessageNotAvailable", "BadSequenceNumberUnknown", "BadSequenceNumberInvalid"})


def _ends(status: int) -> bool:
    """Whether a StatusChangeNotification says that the subscription is no longer ours (OPC 10000-4 §7.25.4)."""
    return codes.is_bad(status) or status & codes.CODE_MASK == _TRANSFERRED


class Publisher:
    """Keeps PublishRequests at the server and hands every notification on once, in order."""

    def __init__(
        self,
        session: Session,
        acks: Acknowledgements,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        on_closed: Callable[[Subscription, int], None],
        count: Callable[[str, int], None],
    ) -> None:
        """`on_closed` is told (subscription, status) when the server has ended one; `count` (what, how many)."""
        self._session = session
        self._acks = acks
        self._clock = clock
        self._spawn = spawn
        self._on_closed = on_closed
        self._count = count
        self._running = 0
        self._allowed = 1 << 30
        self._early: deque[tuple[PublishResponse, int]] = deque(maxlen=_EARLY)
        self.subscriptions: dict[int, Subscription] = {}

    def add(self, subscription: Subscription) -> None:
        """A new subscription; starts publishing with the first."""
        self.subscriptions[subscription.id] = subscription
        early, self._early = self._early, deque(maxlen=_EARLY)
        for response, received in early:
            self._handle(response, received)
        wanted = max(self._session.settings.publish_requests, min(len(self.subscriptions) + 1, 20))
        while self._running < min(wanted, self._allowed):
            self._running += 1
            self._spawn(self._work())

    def remove(self, subscription: Subscription) -> None:
        """The server no longer has it."""
        self.subscriptions.pop(subscription.id, None)
        self._acks.forget(subscription.id)

    async def _work(self) -> None:
        """One request after another; ends when the server takes fewer."""
        while True:
            taken = self._acks.take(_ACKS)
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = [acknowledgement(each) for each in taken]
            try:
                data = await self._session.send(request, timeout=0)
            except asyncio.CancelledError:
                self._acks.restore(taken)  # for the session that takes the subscriptions over
                raise
            except EXPECTED as error:
                self._acks.restore(taken)
                if not await self._go_on(error):
                    return
                continue
            received = self._clock.now()
            try:
                response = self._session.decoder.publish_response(data)
            except DecodingError as error:
                self._undecodable(error, received)
                continue
            for status in self._acks.settle(taken, response.results):
                self._count(codes.info(status).name, 1)
            self._handle(response, received)

    async def _go_on(self, error: BaseException) -> bool:
        """Whether this worker goes on after a failed PublishRequest."""
        name = fault_name(error)
        if name == "BadTooManyPublishRequests":
            if self._running > 1:
                self._running -= 1
                self._allowed = self._running
                log.info("%s: takes %d PublishRequests at once", self._session.settings.endpoint, self._allowed)
                return False
        elif name == "BadNoSubscription" and not self.subscriptions:
            pass  # the last one is being replaced
        elif name not in ("BadTimeout", "BadRequestTimeout") and name not in TOO_MANY:
            self._session.fail(error)
            return False
        self._count(name, 1)
        await asyncio.sleep(_BREATH)
        return True

    def _handle(self, response: PublishResponse, received: int) -> None:
        subscription = self.subscriptions.get(response.subscription)
        if subscription is None:
            self._early.append((response, received))
            return
        subscription.heard = self._clock.monotonic()
        if subscription.repairing:
            subscription.held.append((response.message, response.more, received))
            return
        missing = subscription.missing(response.message)
        if missing:
            subscription.repairing = True
            subscription.held.append((response.message, response.more, received))
            self._spawn(self._repair(subscription, missing, response.available))
            return
        self._deliver(subscription, response.message, response.more, received)

    def _deliver(self, subscription: Subscription, message: Message, more: bool, received: int) -> None:
        if message.keep_alive:
            self._count("values", subscription.deliver(message, more, received))
            return
        if subscription.outdated(message):
            return
        subscription.passed(message.sequence)
        self._count("values", subscription.deliver(message, more, received))
        if message.status_change is not None and _ends(message.status_change):
            self._on_closed(subscription, message.status_change)

    async def _repair(self, subscription: Subscription, missing: range, available: list[int]) -> None:
        """Fetches what is missing, as far as the server still has it, and goes on with what came after."""
        log.warning(
            "%s: subscription %d: notifications %d to %d are missing, asking for them again",
            self._session.settings.endpoint, subscription.id, missing[0], missing[-1],
        )  # fmt: skip
        while missing:
            kept = sorted(n for n in available if n in missing) if available else list(missing[-_REPUBLISHED:])
            self._count("republish", len(kept))
            gap = missing[0]
            for number in kept:
                message = await self._republish(subscription, number)
                if message is None:
                    continue
                if number > gap:
                    self._lose(subscription, gap, number - 1)
                subscription.passed(number)
                self._count("values", subscription.deliver(message, True, self._clock.now()))
                subscription.seen.clear()  # the next one was published by itself
                gap = number + 1
            if gap <= missing[-1]:
                self._lose(subscription, gap, missing[-1])
            subscription.expected = missing[-1] + 1
            missing, available = self._release(subscription), []
        subscription.repairing = False

    def _release(self, subscription: Subscription) -> range:
        """Delivers what was held back; gives back the next hole, if there is one."""
        held, subscription.held = subscription.held, []
        for i, (message, more, received) in enumerate(held):
            missing = subscription.missing(message)
            if missing:
                subscription.held = held[i:] + subscription.held
                return missing
            self._deliver(subscription, message, more, received)
        return range(0)

    async def _republish(self, subscription: Subscription, number: int) -> Message | None:
        """The notification with this number, None if the server does not have it."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription.id
        request.Parameters.RetransmitSequenceNumber = number
        try:
            message = self._session.decoder.republish_response(await self._session.send(request))
        except DecodingError as error:
            log.warning("%s: Republish of %d: %s", self._session.settings.endpoint, number, error)
            return None
        except EXPECTED as error:
            if fault_name(error) in _NOT_KEPT:
                return None
            self._session.fail(error)
            raise
        # some servers answer Good with an empty message for what they do not have
        return message if message.sequence == number and not message.keep_alive else None

    def _lose(self, subscription: Subscription, first: int, last: int) -> None:
        detail = f"notifications {first} to {last} of subscription {subscription.id} are gone"
        log.warning("%s: %s", self._session.settings.endpoint, detail)
        lost = subscription.lost(subscription.previous, self._clock.now(), Cause.LOST, detail)
        subscription.outlet.put(subscription.group.lose(lost))
        self._count("lost", last - first + 1)

    def _undecodable(self, error: DecodingError, received: int) -> None:
        """An answer whose subscription cannot be told: all of them may have lost something."""
        self._count("undecodable", 1)
        log.warning("%s: %s", self._session.settings.endpoint, error)
        for subscription in self.subscriptions.values():
            lost = subscription.lost(subscription.previous, received, Cause.UNDECODABLE, str(error))
            subscription.outlet.put(lost)
