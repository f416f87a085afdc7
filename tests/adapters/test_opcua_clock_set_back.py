"""The gateway's own clock is set back, the server's is right all the time: what was complete by the old clock stops nothing."""

from __future__ import annotations

from adapters.opcua._acknowledgements import Acknowledgements
from adapters.opcua._decode import Message
from adapters.opcua._outlet import Outlet
from adapters.opcua._server_clock import ServerClock
from adapters.opcua._subscription import Group, Subscription

S = 1_000_000
RIGHT, AHEAD = 1_000_000 * S, 1_001_400 * S
"""The server's time, and the gateway's while it is ahead (µs)."""


def test_a_subscription_is_complete_by_the_new_clock() -> None:
    group = Group("press", "default", 1.0, ready=True)
    clock = ServerClock()
    clock.measured(RIGHT, AHEAD)
    some = Subscription(8, group, 1.0, 1.0, clock, Outlet(100, Acknowledgements(), lambda _: None), heard=0.0)
    group.subscriptions.append(some)
    some.deliver(Message(1, RIGHT + S, keep_alive=True), False, AHEAD + S)
    assert group.completed() == AHEAD + S - some.sampling
    clock.measured(RIGHT + 2 * S, RIGHT + 2 * S)
    some.deliver(Message(1, RIGHT + 3 * S, keep_alive=True), False, RIGHT + 3 * S)
    assert group.completed() == RIGHT + 3 * S - some.sampling
    some.deliver(Message(1, RIGHT + 4 * S, keep_alive=True), False, RIGHT + 2 * S + S // 2)  # received a little earlier
    assert group.completed() == RIGHT + 3 * S - some.sampling


def test_a_group_that_is_read_is_complete_by_the_new_clock() -> None:
    group = Group("press", "slow", 1.0, ready=True)
    group.polled(AHEAD)
    group.received(RIGHT)
    group.polled(RIGHT)
    assert group.completed() == RIGHT
