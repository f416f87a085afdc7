"""Which notifications are durable in the outbox and may be forgotten by the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final

from asyncua import ua

Notification = tuple[int, int]
"""(subscription id, sequence number)."""
Token = tuple[int, int, int]
"""(generation of the subscriptions, subscription id, sequence number); a negative subscription id stands for several."""

_UNACKNOWLEDGED: Final = 20_000
"""Tokens remembered for a host that never acknowledges. A server keeps far fewer notifications for Republish."""


class Acknowledgements:
    """Tokens given out, and the SubscriptionAcknowledgements for the next PublishRequests (OPC 10000-4 §5.14.5)."""

    def __init__(self) -> None:
        self._generation = 0
        self._given: dict[Hashable, tuple[Notification, ...]] = {}
        self._durable: deque[Notification] = deque()
        self._batches = 0
        self.rejected = 0
        """How many acknowledgements the server did not accept."""

    def begin(self) -> None:
        """The subscriptions are new ones, whose numbers may be those of old ones: tokens given so far mean nothing any more."""
        self._generation += 1
        self._given.clear()
        self._durable.clear()

    def token(self, notifications: Sequence[Notification]) -> Token | None:
        """A token for an item that makes these notifications durable; None for none."""
        if not notifications:
            return None
        if len(notifications) == 1:
            token = (self._generation, *notifications[0])
        else:
            self._batches += 1
            token = (self._generation, -1, self._batches)
        self._given[token] = tuple(notifications)
        if len(self._given) > _UNACKNOWLEDGED:
            del self._given[next(iter(self._given))]  # never acknowledged: the server's own limit has dropped it
        return token

    def ack(self, token: Hashable) -> None:
        """The item with this token is durable. Unknown tokens, and those of an earlier session, are passed over."""
        self._durable.extend(self._given.pop(token, ()))

    def forget(self, subscription: int) -> None:
        """The server no longer has this subscription: nothing of it can be acknowledged."""
        self._durable = deque(pair for pair in self._durable if pair[0] != subscription)

    def take(self, most: int) -> list[Notification]:
        """Up to `most` acknowledgements for the PublishRequest that is about to be sent."""
        return [self._durable.popleft() for _ in range(min(most, len(self._durable)))]

    def restore(self, taken: Sequence[Notification]) -> None:
        """The request that carried them failed."""
        self._durable.extendleft(reversed(taken))

    def settle(self, taken: Sequence[Notification], results: Sequence[int]) -> list[int]:
        """The server's results for them, in their order; gives back the bad ones."""
        bad = [status for _, status in zip(taken, results, strict=False) if status >> 30 == 2]
        self.rejected += len(bad)
        return bad

    @property
    def unacknowledged(self) -> int:
        """Tokens that were given out and have not come back."""
        return len(self._given)


def acknowledgement(notification: Notification) -> ua.SubscriptionAcknowledgement:
    """As asyncua sends it."""
    return ua.SubscriptionAcknowledgement(SubscriptionId=notification[0], SequenceNumber=notification[1])
