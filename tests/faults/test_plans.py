"""The seed says what happens: the same runs again, each fault in its turn, alone and in pairs that can fall together."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.campaign import FAULTS, ON_ONE_INSTALLATION, Plan, plans
from tests.faults.rig import KINDS


def some(seed: int, count: int) -> list[Plan]:
    return list(itertools.islice(plans(seed), count))


def test_a_seed_gives_the_same_runs_again_and_another_one_others() -> None:
    assert some(3, 60) == some(3, 60)
    assert some(3, 60) != some(4, 60)
    assert some(3, 60)[40:] == list(itertools.islice(plans(3), 40, 60))


@pytest.mark.parametrize("seed", [1, 2])
def test_all_faults_fall_within_the_long_form(seed: int) -> None:
    runs = some(seed, 200)
    assert {name for plan in runs for name in plan.faults} == set(FAULTS)
    assert {plan.kind for plan in runs} == set(KINDS)
    for plan in runs:
        assert all(plan.kind in FAULTS[name].kinds for name in plan.faults)
        assert len(plan.faults) == (2 if plan.number % 2 == 0 else 1)
        if len(plan.faults) == 2:
            one, other = (FAULTS[name] for name in plan.faults)
            assert not one.parts & other.parts


def test_the_runs_of_a_group_share_their_installation() -> None:
    for group, runs in itertools.groupby(some(5, 80), key=lambda plan: (plan.number - 1) // ON_ONE_INSTALLATION):
        assert len({plan.kind for plan in runs}) == 1, group


def test_what_is_not_behind_the_outbox_may_leave_no_gap() -> None:
    for name, fault in FAULTS.items():
        behind = any(word in name for word in ("collect", "device", "outbox", "power", "clock"))
        if not behind:
            assert not fault.causes, name
            assert not fault.intervals, name
    for where in ("ingest", "serve", "broker", "database"):
        assert not FAULTS.get(f"kill -9: {where}", FAULTS["nothing"]).causes
