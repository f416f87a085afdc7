"""The schedule of a line in virtual time: the grid, deadlines, fairness, lanes, and silent units that cost the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from adapters.contract import DeviceState, LinkSpec, Lost, Samples, TransientError
from adapters.modbus._codec import Request
from adapters.modbus._lanes import Lane, Lanes
from adapters.modbus._link import NoAnswerError
from adapters.modbus._read import read_plain
from schemas.profile import Group
from schemas.wire import Cause
from tests.adapters.modbus_server import Spec, holding
from tests.adapters.virtual_line import VirtualRun, Wire, run_line, second
from tests.adapters.virtual_loop import in_virtual_time


def run(spec: Spec | LinkSpec, wire: Wire, seconds: float, **more: Any) -> VirtualRun:
    """The line for so many virtual seconds."""
    made = spec.build() if isinstance(spec, Spec) else spec
    return in_virtual_time(run_line(made, wire, seconds, **more))


# ------------------------------------------------------------------------------------------------------------- the grid


def test_a_group_keeps_its_grid_for_an_hour() -> None:
    """3,600 slots of 1 s, each with an answer of another length: the last begins where the first one and the period say."""
    wire = Wire(answer=0.02)
    spec = Spec(1).device(1, {"a": [holding(0)], "b": [holding(100)]}, period={"a": 1.0, "b": 7.0})
    run(spec, wire, 3600.5)
    for address, period, count in ((0, 1.0, 3601), (100, 7.0, 515)):
        times = wire.times(1, address)
        assert len(times) == count
        assert max(abs(at - (times[0] + n * period)) for n, at in enumerate(times)) <= 0.0401


def with_phase(spec: Spec, **phases: float) -> LinkSpec:
    """The link with groups that stand on the clock."""
    built = spec.build()
    (device,) = built.devices
    options = {group: Group(period=device.groups[group], phase=phase) for group, phase in phases.items()}
    changed = type(device)(device.id, device.settings, device.rules, device.groups, device.points, options=options)
    return LinkSpec(built.id, built.settings, (changed,))


def test_a_phase_puts_the_grid_on_the_clock() -> None:
    """The session begins at a whole minute and 0 s: a first scan at once, then at second 5 of each minute, and at 12.5, 22.5, …"""
    wire = Wire()
    spec = Spec(1).device(1, {"a": [holding(0)], "b": [holding(100)]}, period={"a": 60.0, "b": 10.0})
    done = run(with_phase(spec, a=5.0, b=2.5), wire, 200)
    assert [round(at, 1) for at in wire.times(1, 0)] == [0.0, 5.0, 65.0, 125.0, 185.0]
    assert [round(at, 1) for at in wire.times(1, 100)][:4] == [0.0, 2.5, 12.5, 22.5]
    stamps = [second(s.received) for s in done.of(Samples) if s.group == "a"]
    assert [round(at % 60, 2) for at in stamps[1:]] == [5.02] * 4


# ------------------------------------------------------------------------------------------------------------ deadlines


def test_the_earliest_deadline_goes_first() -> None:
    """A scan of forty requests once in 10 s does not hold up a group that is due each 0.1 s, on the same unit or another one."""
    wire = Wire(answer=0.02)
    spec = Spec(1)
    slow, fast = [holding(20 * n) for n in range(40)], [holding(5000)]
    spec.device(1, {"slow": slow, "fast": fast}, period={"slow": 10.0, "fast": 0.1}, max_gap=0)
    spec.device(2, fast, period=0.1)
    done = run(spec, wire, 60)
    for unit in (1, 2):
        assert len(wire.times(unit, 5000)) in (600, 601)
        assert max(wire.intervals(unit, 5000)) <= 0.1 + 3 * 0.02 + 1e-6
    whole = [s for s in done.of(Samples) if s.group == "slow" and s.complete_to is not None]
    assert len(whole) == 6
    assert done.line.overruns == 0


def test_a_line_that_is_asked_for_too_much_takes_from_all_alike() -> None:
    """Five units ask for 2.5 times what the line bears: each gets its fifth, none of them all or nothing."""
    wire = Wire(answer=0.1)
    spec = Spec(1)
    for unit in range(1, 6):
        spec.device(unit, [holding(100 * n) for n in range(1 + unit % 2)], period=0.28, max_gap=0)
    done = run(spec, wire, 60)
    got = Counter(request.dev_id for _, request, _ in wire.asked)
    assert all(118 <= got[unit] <= 122 for unit in range(1, 6)), got
    assert done.line.overruns > 100
    assert not done.of(DeviceState)


# ---------------------------------------------------------------------------------------------------------- silent units


def five_units(timeout: float, period: float = 1.0) -> Spec:
    """Three requests a second and unit for each of five units."""
    spec = Spec(1)
    for unit in range(1, 6):
        spec.device(unit, [holding(200 * n) for n in range(3)], period=period, timeout=timeout, max_gap=0)
    return spec


@pytest.mark.parametrize("timeout", [0.3, 1.0, 3.0])
def test_two_dead_units_of_five_leave_the_others_their_period(timeout: float) -> None:
    """Ten minutes; 0.45 s of each second are taken by the three that live. A time-out of 1 s or 3 s never fits between their scans."""
    wire = Wire(dead={2, 4}, answer=0.05)
    done = run(five_units(timeout), wire, 600)
    for unit in (1, 3, 5):
        times = wire.times(unit, 0, since=60)
        gaps = [after - before for before, after in pairwise(times)]
        assert 0.9 <= median(gaps) <= 1.1
        assert len(times) >= 0.9 * 540
        within = sum(0.9 <= gap <= 1.1 for gap in gaps) / len(gaps)
        assert within >= (0.99 if timeout < 0.5 else 0.9)
    for unit in (2, 4):
        trials = wire.times(unit, since=60)
        assert 7 <= len(trials) <= 11  # once a minute, and never given up
    downs = [(state.device, state.up) for state in done.of(DeviceState)]
    assert downs == [("unit-2", False), ("unit-4", False)]
    neighbours = [(a[1].dev_id, b[1].dev_id) for a, b in pairwise(wire.asked) if a[0] > 10]
    assert not {(2, 4), (4, 2), (2, 2), (4, 4)} & set(neighbours)  # never two time-outs running


def test_dead_units_are_not_found_one_behind_the_other_at_the_start() -> None:
    """Three units that are off, with long time-outs: the fourth has its turn after each of them, from the first second on."""
    wire = Wire(dead={2, 3, 4})
    spec = Spec(1).device(1, [holding(0)], period=0.5)
    for unit in (2, 3, 4):
        spec.device(unit, [holding(0)], period=0.5, timeout=5.0)
    done = run(spec, wire, 60)
    assert max(wire.intervals(1)) <= 5.0 + 0.1
    assert {state.device for state in done.of(DeviceState)} == {"unit-2", "unit-3", "unit-4"}


@pytest.mark.parametrize(("timeout", "lost", "until"), [(2.3, 2, 12.35), (0.3, 1, 10.35)])
def test_what_a_late_unit_misses_is_a_gap(timeout: float, lost: int, until: float) -> None:
    """One question is not answered in time. Where the time-out is longer than the period, values of whole slots are missing; where the question is
    asked again within its slot, the answer to the first one is: the unit may have handed it out, and it came too late."""
    wire = Wire(answer=0.05)

    async def power(run: VirtualRun) -> None:
        await asyncio.sleep(9.9)
        wire.dead.add(1)
        await asyncio.sleep(0.35 if timeout < 1 else 2.0)
        wire.dead.clear()

    spec = Spec(1).device(1, [holding(0), holding(2)], period=1.0, timeout=timeout)
    done = run(spec, wire, 20, beside=power)
    assert not done.of(DeviceState), "one time-out is no outage"
    (gap,) = done.of(Lost)
    assert gap.count == lost
    assert gap.cause == Cause.DISCONNECTED
    assert (list(gap.points or ()), gap.device) == ([0, 1], "unit-1")
    assert second(gap.start) == pytest.approx(9.05, abs=0.01)
    assert second(gap.end) == pytest.approx(until, abs=0.01)


def test_units_that_die_and_come_back() -> None:
    wire = Wire(answer=0.05)

    async def power(run: VirtualRun) -> None:
        await asyncio.sleep(100)
        wire.dead |= {2, 4}
        await asyncio.sleep(200)
        wire.dead.clear()

    done = run(five_units(0.3), wire, 500, beside=power)
    states = [(at, item) for at, item in done.items if isinstance(item, DeviceState)]
    assert [(item.device, item.up) for _, item in states[:2]] == [("unit-2", False), ("unit-4", False)]
    assert all(100 < at <= 102 for at, _ in states[:2])  # within two periods
    assert all(second(item.at) <= 100.3 for _, item in states[:2])  # since their last answers
    assert sorted((item.device, item.up) for _, item in states[2:]) == [("unit-2", True), ("unit-4", True)]
    assert all(300 < at <= 300 + 60 * 1.2 + 10 + 1 for at, _ in states[2:])
    for unit in (1, 3, 5):
        gaps = wire.intervals(unit, 0)
        assert sum(0.9 <= gap <= 1.1 for gap in gaps) / len(gaps) >= 0.98
    assert done.line.overruns == 0


def test_a_silent_unit_with_room_between_the_scans_is_asked_in_time() -> None:
    """It is not put off where a time-out fits: its back-off alone says when (1, 2, 4, … 60 s, give or take a fifth)."""
    wire = Wire(dead={2}, answer=0.01)
    spec = Spec(1).device(1, [holding(0)], period=5.0, timeout=1.0).device(2, [holding(0)], period=1.0, timeout=1.0)
    run(spec, wire, 400)
    for gap, back_off in zip(wire.intervals(2), (1, 2, 4, 8, 16, 32, 60, 60), strict=False):
        assert 0.8 * back_off + 1.0 <= gap <= 1.2 * back_off + 1.0 + 1.1


# ----------------------------------------------------------------------------------------------------- the link is gone


@pytest.mark.parametrize(
    ("units", "period", "timeout"), [(1, 1.0, 0.3), (5, 1.0, 0.3), (3, 60.0, 1.0), (8, 900.0, 3.0)]
)
def test_a_link_on_which_nobody_answers_any_more_is_lost_within_two_periods(
    units: int, period: float, timeout: float
) -> None:
    """Half open: nothing says that the other end is gone, but that it does not answer; on slow groups too."""
    wire = Wire(answer=0.02)
    spec = Spec(1)
    for unit in range(1, units + 1):
        spec.device(unit, [holding(0)], period=period, timeout=timeout)
    cut = 2.5 * period

    async def cable(_: VirtualRun) -> None:
        await asyncio.sleep(cut)
        wire.dead |= set(range(1, units + 1))

    done = run(spec, wire, 6 * period, beside=cable)
    assert isinstance(done.error, TransientError)
    assert done.error.reason == "no_answer"
    assert done.ended - cut <= 2 * period
    states = [(item.device, item.up) for item in done.of(DeviceState)]
    assert sorted(states) == [(f"unit-{unit}", False) for unit in range(1, units + 1)]
    assert all(second(item.at) <= cut for item in done.of(DeviceState))  # down since they answered last


def test_two_lost_frames_are_not_the_end_of_a_link() -> None:
    """One of each unit, one behind the other."""
    wire = Wire(answer=0.02)
    spec = Spec(1).device(1, [holding(0)], timeout=0.1, period=1.0).device(2, [holding(0)], timeout=0.1, period=1.0)

    async def noise(_: VirtualRun) -> None:
        await asyncio.sleep(4.9)
        wire.dead |= {1, 2}
        await asyncio.sleep(0.25)  # at 5.0 and 5.1 they are asked in vain
        wire.dead.clear()

    done = run(spec, wire, 20, beside=noise)
    assert len(wire.times(1)) == len(wire.times(2)) == 21
    assert done.error is None
    assert not done.of(DeviceState)


# ---------------------------------------------------------------------------------------------------------------- lanes


def test_a_one_off_request_waits_for_the_request_on_the_wire_alone() -> None:
    """On a line that is full, and however many scans wait."""
    wire = Wire(answer=0.1)
    spec = Spec(1)
    for unit in range(1, 6):
        spec.device(unit, [holding(200 * n) for n in range(10)], period=0.1, max_gap=0)
    waited: list[float] = []

    async def person(run: VirtualRun) -> None:
        loop = asyncio.get_running_loop()
        for n in range(20):
            await asyncio.sleep(1.037)
            asked = loop.time()
            await run.link.request(Request(9, 3, 4000 + n, 1), 1.0)
            waited.append(wire.times(9)[-1] - asked)

    run(spec, wire, 60, beside=person)
    assert len(waited) == 20
    assert max(waited) <= 0.1 + 1e-6


def test_a_one_off_request_does_not_wait_for_a_pause_and_another_request_behind_it() -> None:
    wire = Wire(answer=0.05)
    spec = Spec(1, settings={"pause": 0.2}).device(1, [holding(0)], period=0.1)
    waited: list[float] = []

    async def person(run: VirtualRun) -> None:
        loop = asyncio.get_running_loop()
        link = run.link
        for n in range(20):
            await asyncio.sleep(1.037)
            asked = loop.time()
            await link.request(Request(9, 3, 4000 + n, 1), 1.0)
            waited.append(wire.times(9)[-1] - asked)

    run(spec, wire, 40, beside=person)
    assert len(waited) == 20
    assert 0.1 <= max(waited) <= 0.05 + 0.2 + 1e-6


def test_a_one_off_request_keeps_the_pause_that_a_device_needs_and_holds_up_no_other() -> None:
    """Unit 1 needs half a second between two requests, whoever asks; unit 2 goes on each 0.1 s."""
    wire = Wire(answer=0.02)
    spec = Spec(1).device(1, [holding(0)], period=1.0, pause=0.5).device(2, [holding(0)], period=0.1)

    async def person(run: VirtualRun) -> None:
        for _ in range(20):
            await asyncio.sleep(0.9)
            await run.link.request(Request(1, 3, 4000, 1), 1.0)

    run(spec, wire, 30, beside=person)
    assert len(wire.times(1, 4000)) == 20
    assert min(wire.intervals(1)) >= 0.52 - 1e-6
    assert len(wire.times(1, 0)) >= 28
    assert max(wire.intervals(2)) <= 0.1 + 0.045


@pytest.mark.parametrize("others", [0, 4])
def test_who_reads_a_device_without_end_does_not_have_it_alone(others: int) -> None:
    """It needs a rest between two requests, and both wait for that; also where other units fill the line."""
    wire = Wire(answer=0.02)
    spec = Spec(1).device(1, [holding(0)], period=1.0, pause=0.2)
    for unit in range(2, 2 + others):
        spec.device(unit, [holding(0)], period=0.05)
    took: list[float] = []

    async def script(run: VirtualRun) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await run.link.request(Request(1, 3, 4000, 1), 1.0)
            took.append(loop.time() - asked)

    run(spec, wire, 30, beside=script)
    assert len(wire.times(1, 0)) >= 27
    assert max(wire.intervals(1, 0)) <= 1.5
    assert len(wire.times(1, 4000)) >= 60
    assert max(took) <= 1.0


def test_a_one_off_read_does_not_wait_long_for_a_scan_that_does_not_come() -> None:
    """A scan was turned away, and then the unit died: one-off reads of it go on."""
    wire = Wire(answer=0.02)
    spec = Spec(1).device(1, [holding(0)], period=0.1, pause=0.5, timeout=0.1).device(2, [holding(0)], period=0.1)
    took: list[float] = []

    async def person(run: VirtualRun) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1.0)
        for n in range(20):
            if n == 1:
                wire.dead.add(1)
            asked = loop.time()
            with contextlib.suppress(NoAnswerError):
                await run.link.request(Request(1, 3, 4000, 1), 0.1)
            took.append(loop.time() - asked)

    run(spec, wire, 60, beside=person)
    assert len(took) == 20
    assert max(took) <= 2.5


async def test_commands_go_before_one_off_reads_and_these_in_turn_with_scans() -> None:
    lanes = Lanes()
    order: list[str] = []

    async def caller(name: str, lane: Lane) -> None:
        await lanes.take(lane)
        order.append(name)
        await asyncio.sleep(0)
        lanes.give()

    await lanes.take(Lane.SCAN)
    tasks = [
        asyncio.ensure_future(caller(f"{lane.name.lower()}-{n}", lane))
        for n in (1, 2)
        for lane in (Lane.SCAN, Lane.ONCE, Lane.COMMAND)
    ]
    await asyncio.sleep(0)
    assert lanes.outranked(Lane.SCAN)
    assert not lanes.outranked(Lane.COMMAND)
    lanes.give()
    await asyncio.gather(*tasks)
    assert order == ["command-1", "command-2", "once-1", "scan-1", "once-2", "scan-2"]


@pytest.mark.parametrize("moment", ["waiting", "its turn"])
async def test_a_caller_that_is_cancelled_holds_up_nobody(moment: str) -> None:
    lanes = Lanes()
    await lanes.take(Lane.SCAN)
    first = asyncio.ensure_future(lanes.take(Lane.COMMAND))
    second_one = asyncio.ensure_future(lanes.take(Lane.SCAN))
    await asyncio.sleep(0)
    if moment == "waiting":
        first.cancel()
        await asyncio.sleep(0)
        lanes.give()
    else:
        lanes.give()
        first.cancel()
    async with asyncio.timeout(1):
        await second_one
    assert first.cancelled()
    lanes.give()
    async with asyncio.timeout(1):
        await lanes.take(Lane.ONCE)


# ----------------------------------------------------------------------------------------------------------------- busy


@pytest.mark.parametrize("code", [5, 6])
def test_a_device_that_is_busy_is_asked_again_within_its_slot(code: int) -> None:
    """Busy for three requests, twice: its values come late, and are good; its neighbour waits for nothing."""
    busy = dict.fromkeys((5, 6), 3)

    def hook(request: Request) -> int:
        if request.dev_id == 1 and len(wire.times(1)) > 4 and busy[code]:
            busy[code] -= 1
            return code
        return 0

    wire = Wire(answer=0.02, hook=hook)
    done = run(Spec(1).device(1, [holding(0)], period=5.0).device(2, [holding(0)], period=0.2), wire, 60)
    rows = [s for s in done.of(Samples) if s.device == "unit-1"]
    assert all(s.status is None for s in rows)
    assert len(rows) == 12
    late = [round(second(s.received) % 5, 2) for s in rows]
    assert sorted(late)[-1] == pytest.approx(0.02 + 0.1 + 0.02 + 0.2 + 0.02 + 0.4 + 0.02, abs=0.05)
    assert max(wire.intervals(2)) <= 0.2 + 0.045
    assert done.line.overruns == 0


def test_a_device_that_stays_busy_has_that_status_in_each_slot() -> None:
    wire = Wire(answer=0.02, hook=lambda request: 6 if request.dev_id == 1 else 0)
    done = run(Spec(1).device(1, [holding(0)], period=2.0).device(2, [holding(0)], period=0.2), wire, 20)
    rows = [s for s in done.of(Samples) if s.device == "unit-1"]
    assert len(rows) == 10
    assert all(s.status and s.complete_to is not None for s in rows)
    assert done.line.overruns == 0
    assert 5 <= len(wire.times(1)) / len(rows) <= 7  # after 0.1, 0.2, 0.4, 0.8 s, and no storm


@pytest.mark.parametrize(("busy", "code"), [(2, 0), (99, 6)])
def test_a_one_off_read_waits_for_a_busy_device_a_second(busy: int, code: int) -> None:
    left = busy

    def hook(request: Request) -> int:
        nonlocal left
        left -= request.address == 7
        return 6 if request.address == 7 and left >= 0 else 0

    got: list[tuple[float, int]] = []

    async def person(run: VirtualRun) -> None:
        begun = asyncio.get_running_loop().time()
        answer, _, _ = await read_plain(run.link, run.link._settings, 1, "holding", 7, 1, 0.5)
        got.append((asyncio.get_running_loop().time() - begun, answer))

    wire = Wire(answer=0.02, hook=hook)
    run(Spec(1).device(1, [holding(0)], period=0.2), wire, 5, beside=person)
    ((took, answer),) = got
    assert answer == code
    assert took <= 1.0
    assert len(wire.times(1, 7)) == (3 if code == 0 else 4)  # after 0.1, 0.2 and 0.4 s
    assert max(wire.intervals(1, 0)) <= 0.2 + 0.045


# ------------------------------------------------------------------------------------------------------- who a device is


def test_on_a_full_line_every_unit_is_asked_who_it_is_and_goes_on_giving_values() -> None:
    wire = Wire(answer=0.02, hook=lambda request: 1 if request.function_code == 43 else 0)
    spec = Spec(1)
    for unit in (1, 2, 3):
        spec.device(unit, [holding(0)], period=0.03, identification=True)
    run(spec, wire, 10)
    asked = Counter((request.dev_id, request.function_code) for _, request, _ in wire.asked)
    assert [asked[unit, 43] for unit in (1, 2, 3)] == [1, 1, 1]
    assert all(asked[unit, 3] >= 160 for unit in (1, 2, 3))
