"""The simulated machines behave believably, and what they do depends on the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from simulators.process import injection, line, machining
from simulators.process.injection import InjectionMachine
from simulators.process.line import AssemblyLine, LineState
from simulators.process.machining import MachineTool

HOUR = 3600


def _state(machine: Any) -> Any:
    """Everything that a machine shows, as text."""
    shown = {name: value for name, value in vars(machine).items() if not name.startswith("_")}
    return repr(shown)


@pytest.mark.parametrize("make", [InjectionMachine, MachineTool, AssemblyLine])
def test_what_happens_depends_on_the_seed_and_not_on_how_time_is_dealt_out(make: Callable[[int], Any]) -> None:
    one, other, different = make(5), make(5), make(6)
    for _ in range(2000):
        one.advance(1.0)
        different.advance(1.0)
    for _ in range(500):
        other.advance(4.0)
    assert _state(one) == _state(other)
    assert _state(one) != _state(different)


def _hours_of_moulding(hours: int) -> tuple[list[Any], list[tuple[Any, ...]], InjectionMachine]:
    machine = InjectionMachine(2)
    occurred: list[Any] = []
    seen = []
    for _ in range(hours * HOUR):
        machine.advance(1.0)
        occurred += machine.drain()
        seen.append((machine.job_status, machine.production, machine.mode, machine.reason, machine.standstill))
    return occurred, seen, machine


def test_a_day_of_moulding() -> None:
    occurred, seen, machine = _hours_of_moulding(10)
    kinds = Counter(type(occurrence).__name__ for occurrence in occurred)
    assert kinds["Cycle"] > 800
    assert {status for status, *_ in seen} >= {
        injection.JobStatus.SET_UP_ACTIVE, injection.JobStatus.START_UP_ACTIVE, injection.JobStatus.JOB_IN_PRODUCTION,
        injection.JobStatus.JOB_INTERRUPTED, injection.JobStatus.TEAR_DOWN_ACTIVE,
    }  # fmt: skip
    assert all(cycle.seconds > 5 for cycle in occurred if isinstance(cycle, injection.Cycle))
    assert machine.shift >= 1, "the shift changed"
    assert len({cycle.lot for cycle in occurred if isinstance(cycle, injection.Cycle)}) > 2


def test_counters_of_a_job_add_up_and_begin_anew_with_the_next() -> None:
    occurred, _, _ = _hours_of_moulding(6)
    cycles = [occurrence for occurrence in occurred if isinstance(occurrence, injection.Cycle)]
    jobs = [cycle.job for cycle in cycles]
    assert len(set(jobs)) >= 3
    for before, after in pairwise(cycles):
        assert after.machine_cycles == before.machine_cycles + 1
        new = after.job != before.job
        assert after.counters.cycles == (1 if new else before.counters.cycles + 1)
    for cycle in cycles:
        counters = cycle.counters
        assert counters.parts == counters.good + counters.bad + counters.test
        assert counters.box_parts == counters.box_good + counters.box_bad
        assert cycle.cavities.count(2) <= len(cycle.cavities) == len(cycle.part_ids)
    assert sum(cycle.counters.bad for cycle in cycles) > 0, "some parts are bad"


def test_a_standstill_has_an_alarm_then_a_reason_and_production_clears_both() -> None:
    occurred, seen, _ = _hours_of_moulding(4)
    standing = [moment for moment in seen if moment[4] is not None]
    assert any(reason == "" for *_, reason, _ in standing), "the operator has not come yet"
    assert {reason for *_, reason, _ in standing if reason} <= injection.STANDSTILL_REASONS.keys()
    for status, production, _, _, alarm in seen:
        stopped = status is injection.JobStatus.JOB_INTERRUPTED
        assert stopped == (alarm is not None)
        assert not stopped or production is injection.ProductionStatus.NO_PRODUCTION
    assert not any(
        reason for _, production, _, reason, _ in seen if production is injection.ProductionStatus.PRODUCTION
    )
    changes = [change for change in occurred if isinstance(change, injection.AlarmChange)]
    by_id = Counter((change.alarm.id, change.active) for change in changes)
    assert all(abs(by_id[alarm, True] - by_id[alarm, False]) <= 1 for alarm, _ in by_id)


def test_the_barrel_heats_up_before_the_first_cycle_and_keeps_its_temperature() -> None:
    machine = InjectionMachine(2)
    cold = [zone.measured for zone in machine.barrel]
    while not machine.counters.cycles:
        machine.advance(1.0)
    warm = [zone.measured for zone in machine.barrel]
    assert all(after > before + 10 for before, after in zip(cold, warm, strict=True))
    assert machine.time > 30
    for zone in machine.barrel:
        assert zone.measured == pytest.approx(zone.nominal, abs=5)


def test_a_day_of_milling() -> None:
    machine = MachineTool(4)
    occurred: list[Any] = []
    lights = set()
    hours = machine.power_on_hours
    for _ in range(8 * HOUR):
        machine.advance(1.0)
        occurred += machine.drain()
        lights.add(machine.light)
        assert machine.good <= machine.completed <= machine.program.planned
        assert (machine.alert is not None) == (machine.state is machining.ProgramState.INTERRUPTED)
        assert 0 <= machine.spindle_load < 100
    parts = [part for part in occurred if isinstance(part, machining.PartFinished)]
    assert lights == {"red", "green", "yellow"}
    assert 100 < len(parts) < 400
    assert len({part.identifier for part in parts}) == len(parts)
    assert len({part.job for part in parts}) > 3
    assert any(not part.good for part in parts)
    assert machine.power_on_hours - hours in (8, 9)
    assert machine.lifetime_parts == 88_412 + len(parts)
    changes = [change for change in occurred if isinstance(change, machining.StateChange)]
    assert all(before.new is after.old for before, after in pairwise(changes))
    worn = [change for change in occurred if isinstance(change, machining.AlertChange) and change.alert.code == "6424"]
    assert worn, "tools wear out"


def test_a_day_on_the_line() -> None:
    assembly = AssemblyLine(3)
    states = Counter[LineState]()
    orders = set()
    last = assembly.placed
    for _ in range(8 * HOUR):
        assembly.advance(1.0)
        states[assembly.state] += 1
        orders.add(assembly.order.number)
        assert last <= assembly.placed <= last + 1
        last = assembly.placed
        assert any(assembly.station_faults) == (assembly.state is LineState.FAULT) == (assembly.fault_code > 0)
        assert (assembly.speed > 0) == assembly.running
        assert assembly.rejected <= assembly.order_placed <= assembly.order.planned
        assert len(assembly.station_times) == line.STATIONS
    assert set(states) == set(LineState) - {LineState.OFF}
    assert states[LineState.RUNNING] > 4 * HOUR
    assert len(orders) > 10
    assert assembly.energy > 98_765_432_100
    assert assembly.runtime == pytest.approx(states[LineState.RUNNING], rel=0.02)
