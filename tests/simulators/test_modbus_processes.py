"""The processes behind the Modbus devices: deterministic, believable, and consistent in themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from simulators.process.oven import Oven
from simulators.process.power import Supply
from simulators.process.press import STEP_SECONDS, Light, Press, PressState
from simulators.process.sewing import Station, StationState
from simulators.process.shift import ShiftPlan

HOUR = 3600.0


def _supply(seed: int, cuts: list[float]) -> tuple[float, ...]:
    supply = Supply(seed)
    for cut in cuts:
        supply.advance(cut)
    return (supply.watts, supply.volt_ampere_hours, *(phase.volts for phase in supply.phases))


def _oven(seed: int, cuts: list[float]) -> tuple[float, ...]:
    oven = Oven(seed)
    for cut in cuts:
        oven.advance(cut)
    return (oven.temperature or 0.0, oven.heating, oven.setpoint)


def _press(seed: int, cuts: list[float]) -> tuple[float, ...]:
    press = Press(seed)
    for cut in cuts:
        for _ in range(press.due_steps(cut)):
            press.step()
    return (press.strokes, round(press.seconds, 6), *press.inputs())


def _sewing(seed: int, cuts: list[float]) -> tuple[float, ...]:
    station = Station(seed, 1)
    for cut in cuts:
        station.advance(cut)
    return (station.stitches, station.pieces, station.speed, station.needle_celsius)


@pytest.mark.parametrize("run", [_supply, _oven, _press, _sewing])
def test_the_seed_alone_decides_however_the_time_is_cut(run: Callable[[int, list[float]], tuple[float, ...]]) -> None:
    once = run(7, [600.0])
    assert run(7, [600.0]) == once
    assert run(7, [0.5] * 1200) == once
    assert run(7, [37.3, 112.7, 450.0]) == once
    assert run(8, [600.0]) != once


class TestShiftPlan:
    def test_the_day_begins_at_work(self) -> None:
        plan = ShiftPlan()
        assert plan.at_work(0.0)
        assert not plan.at_work(4.5 * HOUR)  # lunch
        assert plan.at_work(6 * HOUR)
        assert not plan.at_work(15 * HOUR)  # night
        assert plan.at_work(24 * HOUR + 1.0)

    def test_days_change_at_midnight(self) -> None:
        plan = ShiftPlan(start=23 * HOUR)
        assert (plan.day(0.0), plan.day(HOUR - 1.0), plan.day(HOUR)) == (0, 0, 1)


class TestSupply:
    def test_energy_is_the_integral_of_power(self) -> None:
        supply = Supply(1)
        before = sum(phase.watt_hours for phase in supply.phases)
        watt_seconds = 0.0
        for _ in range(1200):
            supply.advance(0.5)
            watt_seconds += supply.watts * 0.5
        after = sum(phase.watt_hours for phase in supply.phases)
        assert after - before == pytest.approx(watt_seconds / 3600.0, rel=1e-6)

    def test_voltages_and_frequency_stay_where_a_grid_keeps_them(self) -> None:
        supply = Supply(2)
        for _ in range(3600):
            supply.advance(1.0)
            assert 49.8 < supply.frequency < 50.2  # EN 50160: 49.5 to 50.5
            for phase in supply.phases:
                assert 207.0 < phase.volts < 253.0  # 230 V, 10 % more or less
                assert phase.amperes == pytest.approx(math.hypot(phase.watts, phase.vars) / phase.volts)

    def test_the_load_follows_the_shift(self) -> None:
        supply = Supply(3)
        supply.advance(600.0)
        working = supply.watts
        supply.advance(4.5 * HOUR - 600.0)  # half past twelve
        assert supply.watts < working / 5

    def test_a_standstill_lowers_the_load_and_going_on_raises_it(self) -> None:
        supply = Supply(4)
        watts = []
        for halted in (False, True, False):
            supply.halted = halted
            total = 0.0
            for _ in range(240):
                supply.advance(0.5)
                total += supply.watts
            watts.append(total / 240)
        assert watts[1] < 0.6 * watts[0]
        assert watts[2] > 1.5 * watts[1]

    def test_demand_is_a_mean_and_its_maximum_never_falls(self) -> None:
        supply = Supply(5)
        highest = 0.0
        for _ in range(90):
            supply.advance(60.0)
            assert supply.power_demand.maximum >= supply.power_demand.value
            assert supply.power_demand.maximum >= highest
            highest = supply.power_demand.maximum
        assert 5_000 < supply.power_demand.value < 80_000

    def test_reset_leaves_nothing_counted(self) -> None:
        supply = Supply(6)
        supply.advance(120.0)
        supply.reset()
        assert sum(phase.watt_hours + phase.var_hours for phase in supply.phases) == 0.0
        assert supply.power_demand.maximum == 0.0
        supply.advance(60.0)
        assert sum(phase.watt_hours for phase in supply.phases) > 0.0


class TestOven:
    def test_there_is_no_temperature_right_after_power_on(self) -> None:
        oven = Oven(1)
        assert oven.temperature is None
        oven.advance(3.0)
        assert oven.temperature == pytest.approx(24.0, abs=1.0)

    def test_it_warms_up_and_settles(self) -> None:
        oven = Oven(1)
        curve = []
        for _ in range(7):
            oven.advance(30.0)
            curve.append(oven.temperature or 0.0)
        assert all(later > earlier for earlier, later in pairwise(curve[:5]))
        assert curve[-1] == pytest.approx(180.0, abs=4.0)

    def test_an_open_door_cools_it_and_the_controller_answers(self) -> None:
        oven = Oven(1)
        while not oven.door_open:
            oven.advance(1.0)
        before = oven.temperature or 0.0
        oven.advance(14.0)
        assert (oven.temperature or 0.0) < before - 3.0
        assert oven.heating > 50.0

    def test_stop_lets_it_cool_down(self) -> None:
        oven = Oven(1)
        oven.advance(300.0)
        oven.halted = True
        oven.advance(600.0)
        assert oven.heating == 0.0
        assert (oven.temperature or 0.0) < 120.0


class TestPress:
    def test_strokes_are_pulses(self) -> None:
        press = Press(1)
        edges, level = 0, False
        for _ in range(press.due_steps(900.0)):
            press.step()
            edges += press.cycle_pulse and not level
            level = press.cycle_pulse
        assert edges == press.strokes > 100

    def test_it_strokes_only_while_running_and_shows_each_state(self) -> None:
        press = Press(3)
        seen: set[PressState] = set()
        for _ in range(int(3 * HOUR / STEP_SECONDS)):
            strokes = press.strokes
            press.step()
            seen.add(press.state)
            if press.strokes != strokes:
                assert press.state is PressState.RUNNING
                assert press.motor_on
                assert press.guard_closed
                assert press.lamps == (False, False, True)
        assert seen >= {PressState.READY, PressState.RUNNING, PressState.COIL_CHANGE, PressState.JAM}

    def test_a_blinking_lamp_is_lit_half_of_the_time(self) -> None:
        press = Press(1)
        lit = looked = 0
        for _ in range(int(900 / STEP_SECONDS)):
            press.step()
            if press.state is PressState.READY:
                assert press.lights == (Light.DARK, Light.DARK, Light.BLINK)
                looked += 1
                lit += press.lamps[2]
        assert 0.4 < lit / looked < 0.6

    def test_a_standstill_is_a_jam_until_it_is_over(self) -> None:
        press = Press(1)
        press.halted = True
        for _ in range(press.due_steps(120.0)):
            press.step()
        assert (press.state, press.strokes) == (PressState.JAM, 0)
        press.halted = False
        for _ in range(press.due_steps(300.0)):
            press.step()
        assert press.strokes > 0


class TestStation:
    def test_counters_only_rise_within_a_day(self) -> None:
        station = Station(1, 2)
        last = (0, 0, 0, 0)
        for _ in range(3600):
            station.advance(1.0)
            now = (station.stitches, station.pieces, station.trims, station.run_seconds)
            assert all(new >= old for new, old in zip(now, last, strict=True))
            last = now
        assert last[0] > 10_000
        assert last[1] > 60

    def test_threads_break_and_speed_runs_backwards_in_a_back_tack(self) -> None:
        station = Station(1, 1)
        breaks, slowest = 0, 0.0
        for _ in range(20_000):
            station.advance(0.1)
            breaks += station.state is StationState.THREAD_BREAK
            slowest = min(slowest, station.speed)
        assert breaks > 0
        assert station.thread_breaks > 0
        assert slowest < -500

    def test_pieces_begin_anew_each_day(self) -> None:
        station = Station(1, 1, ShiftPlan(start=23.9 * HOUR, hours=((0.0, 24 * HOUR),)))
        station.advance(350.0)
        before = station.pieces
        assert before > 0
        station.advance(60.0)
        assert station.pieces < before

    def test_nobody_sews_at_a_standstill(self) -> None:
        station = Station(1, 1)
        station.advance(60.0)
        station.halted = True
        station.advance(5.0)
        stitches = station.stitches
        station.advance(60.0)
        assert station.stitches == stitches
        assert station.state is StationState.ABSENT
