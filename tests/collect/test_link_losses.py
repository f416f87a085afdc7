"""A link that lives lost something, and its adapter finds it in the device's history: what the host stores, and what stays a gap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.contract import Interrupted, Lost, Recovered, Refilled
from gateway.collect.items import Readings
from tests.collect.plans import FIRST, INDEX
from tests.collect.test_link import Rig, S, gaps, lost, one_group, stamped
from tests.virtual_time import START


def loss(rig: Rig, points: list[int]) -> Lost:
    """Everything of these points since two seconds ago."""
    return Lost("d", points, rig.time.now() - 2 * S, rig.time.now(), "overrun", detail="the queue overflowed")


def values(rig: Rig) -> list[tuple[float, Any]]:
    """Each row of the first signal: seconds since the start, value."""
    return [
        ((ts - START) / S, value)
        for r in rig.sink.taken(Readings)
        for p, ts, value in zip(r.points, r.ts, r.values, strict=True)
        if p == INDEX
    ]


async def test_what_a_living_link_lost_and_found_leaves_no_gap() -> None:
    """On and off and on again: what came live equals what was stored before the loss, and the value between comes from the history."""
    rig = one_group()
    async with rig.running():
        await stamped(rig, 1)
        found = Interrupted("d", "default", [FIRST])
        await rig.give(found)
        await stamped(rig, 1, after=2)
        await rig.give(found)
        await stamped(rig, 9, ago=1, after=0)
        await stamped(rig, 1, ago=0.1, after=0.1)
        await rig.give(Refilled("d", "default", [loss(rig, [FIRST])], []))
        await rig.time.advance(2)
        assert gaps(rig) == []
        assert values(rig) == [(1.0, 1), (3.0, 1), (2.0, 9), (3.0, 1)]


async def test_a_live_value_while_the_history_is_read_is_not_taken_for_the_one_before() -> None:
    """9 was lost; 1 came live while nobody knew of it. That it equals what was stored last says nothing."""
    rig = one_group()
    async with rig.running():
        await stamped(rig, 1)
        await rig.give(Interrupted("d", "default", [FIRST]))
        await stamped(rig, 1, after=3)
        await stamped(rig, 9, ago=2, after=0)  # the history ends there: it lags
        await rig.give(Refilled("d", "default", [loss(rig, [FIRST])], []))
        assert sorted(values(rig)) == [(1.0, 1), (2.0, 9), (4.0, 1)]
        await stamped(rig, 1)
        assert len(values(rig)) == 3  # unchanged again


async def test_a_history_within_a_deadband_begins_anew() -> None:
    """What was read of it for an earlier loss does not say what is unchanged in this one."""
    rig = one_group()
    async with rig.running():
        for old, new in ((10, 20), (30, 20)):
            await stamped(rig, old)
            await rig.give(Interrupted("d", "default", [FIRST]))
            await stamped(rig, new, ago=0.5)
            await rig.give(Refilled("d", "default", [loss(rig, [FIRST])], []))
        assert [value for _, value in values(rig)] == [10, 20, 30, 20]


async def test_what_stays_lost_of_a_living_link_is_the_gap() -> None:
    rig = one_group()
    async with rig.running():
        await stamped(rig, 1, 1)
        await rig.give(Interrupted("d", "default", [FIRST, FIRST + 1]))
        await stamped(rig, 2, 2, after=2)
        whole = loss(rig, [FIRST, FIRST + 1])
        await rig.give(Refilled("d", "default", [whole], [replace(whole, points=[FIRST + 1])]))
        assert gaps(rig) == [([INDEX + 1], 1.0, 3.0, "overrun")]


@pytest.mark.parametrize("right_again", [False, True])
async def test_a_wrong_clock_fills_no_loss_of_a_living_link(right_again: bool) -> None:
    """Rows were left out because of it: that it is right by the end of the history does not bring them back."""
    rig = one_group()
    async with rig.running():
        for _ in range(5):
            await stamped(rig, 1, 1, server_ts=rig.time.now() + 600 * S)
        await rig.give(Interrupted("d", "default", [FIRST]))
        rows = len(values(rig))
        await stamped(rig, 7, ago=0.5)
        assert len(values(rig)) == rows
        for _ in range(70 if right_again else 1):
            await stamped(rig, 1, 1, server_ts=rig.time.now() + (0 if right_again else 600 * S))
        assert len(gaps(rig)) == 0
        await rig.give(Refilled("d", "default", [loss(rig, [FIRST])], []))
        ((points, _, _, cause),) = gaps(rig)
        assert (points, cause) == ([INDEX], "overrun")
        if right_again:  # the next one is filled
            await rig.give(Interrupted("d", "default", [FIRST]))
            await stamped(rig, 30, ago=0.5)
            await rig.give(Refilled("d", "default", [loss(rig, [FIRST])], []))
            assert len(gaps(rig)) == 1
            assert values(rig)[-1][1] == 30


async def test_a_loss_that_was_being_looked_for_is_part_of_the_outage() -> None:
    rig = one_group()
    async with rig.running():
        await stamped(rig, 1, 1)
        await rig.give(Interrupted("d", "default", [FIRST]))
        await stamped(rig, 2, 2, complete_to=START + S)
        await rig.give(lost())
        await rig.time.advance(2)
        assert rig.adapter.asked[-1] == {("d", "default"): 1.0}
        await rig.give(Recovered("d", "default", START, None))
        await stamped(rig, 3, 3)
        assert [gap[:2] for gap in gaps(rig)] == [(None, 1.0)]
