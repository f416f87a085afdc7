"""How full a line is: reckoned by its speed, measured while it runs, and what would fit, which then fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.contract import LineLoad, LinkSpec, LinkTrouble, Reckons
from adapters.modbus import ModbusAdapter, ModbusLinkSettings
from adapters.modbus._load import FILL, shortest
from schemas.bilingual import chinese
from tests.adapters.modbus_server import Spec, holding
from tests.adapters.virtual_line import VirtualRun, Wire, run_line
from tests.adapters.virtual_loop import in_virtual_time


def run(spec: Spec, wire: Wire, seconds: float) -> VirtualRun:
    """The line for so many virtual seconds."""
    return in_virtual_time(run_line(spec.build(), wire, seconds))


# ---------------------------------------------------------------------------------------------------------- what fits


def share(parts: list[tuple[float, float]], least: float = 0.0) -> float:
    """What scans (period, cost) take of the line when nothing is read more often than each `least` seconds."""
    return sum(cost / max(period, least) for period, cost in parts)


PARTS = st.lists(st.tuples(st.floats(0.05, 600), st.floats(0.001, 30)), min_size=1, max_size=12)


@given(PARTS)
def test_the_period_that_is_named_fits_and_a_shorter_one_does_not(parts: list[tuple[float, float]]) -> None:
    found = shortest(parts)
    if share(parts) <= FILL:
        assert found == 0
        return
    assert share(parts, found) <= FILL + 1e-9
    assert share(parts, found * 0.88) > FILL  # it is rounded up to two digits


def test_a_period_that_fits_is_a_plain_number() -> None:
    assert shortest([(1.0, 1.4)]) == 1.6
    assert shortest([(1.0, 0.7), (1.0, 0.7)]) == 1.6
    assert shortest([(1.0, 0.5), (60.0, 30.0)]) == 1.3  # the slow group takes half of the line, and may go on so
    assert shortest([(0.1, 0.2), (0.2, 50.0)]) == 56


# ---------------------------------------------------------------------------------------------------- before it runs


def serial(spec: Spec, **settings: object) -> LineLoad | None:
    """What is reckoned of this spec's devices on a serial port."""
    made = ModbusLinkSettings.model_validate({"serial": "/dev/ttyUSB0", **settings})
    adapter = ModbusAdapter(LinkSpec("line", made, tuple(spec.devices)))
    assert isinstance(adapter, Reckons)
    return adapter.expected_load()


def test_a_serial_line_is_reckoned_from_speed_lengths_silences_and_pauses() -> None:
    """9600 8N1: a request of 8 characters, an answer of 5 + 40 bytes, two silences of 3.5 characters, and 20 ms of thought."""
    spec = Spec(0).device(1, [holding(n) for n in range(20)], period=1.0)
    load = serial(spec, baud=9600)
    assert load is not None
    assert load.share == pytest.approx((8 + 45 + 7) * 10 / 9600 + 0.02)
    assert load.fits
    assert "8 % busy" in load.text
    slower = serial(spec, baud=1200, parity="E")
    assert slower is not None
    assert slower.share == pytest.approx((8 + 45 + 7) * 11 / 1200 + 0.02)


def test_a_line_that_cannot_bear_what_is_asked_of_it_names_what_would_fit() -> None:
    spec = Spec(0)
    for unit in range(1, 11):
        spec.device(unit, [holding(200 * n + m) for n in range(2) for m in range(40)], period=1.0, max_gap=0)
    load = serial(spec, baud=9600)
    assert load is not None
    assert not load.fits
    assert load.fix_en
    assert load.fix_zh
    seconds = float(load.text.split("a period of ")[1].split(" s")[0])
    assert load.share / seconds <= FILL
    assert f"{seconds:g} 秒" in chinese(load.text)


def test_a_unit_that_needs_long_pauses_is_named() -> None:
    spec = (
        Spec(0)
        .device(3, [holding(200 * n) for n in range(4)], period=1.0, max_gap=0, pause=0.5)
        .device(4, [holding(0)])
    )
    load = serial(spec, baud=115200)
    assert load is not None
    assert not load.fits
    assert "unit 3" in load.text
    assert "站点 3" in chinese(load.text)


def test_nothing_is_reckoned_where_the_speed_is_not_known() -> None:
    assert ModbusAdapter(Spec(502).device(1, [holding(0)]).build()).expected_load() is None


# ------------------------------------------------------------------------------------------------------ while it runs


def busy_line(period: float) -> Spec:
    """Seven requests of 0.2 s for each of two units: 2.8 s of the line."""
    spec = Spec(1)
    for unit in (1, 2):
        spec.device(unit, [holding(200 * n) for n in range(7)], period=period, max_gap=0)
    return spec


def test_a_full_line_says_how_full_it_is_and_what_would_fit_and_that_fits() -> None:
    done = run(busy_line(2.0), Wire(answer=0.2), 120)
    told = done.of(LinkTrouble)
    assert {trouble.device for trouble in told} == {"unit-1", "unit-2"}
    assert {trouble.problem for trouble in told} == {"the line is 140 % busy: a period of 3.2 s or longer would fit"}
    assert chinese(told[0].problem) == "总线占用 140 %：周期不短于 3.2 秒即可"
    assert told[0].fix_en
    assert told[0].fix_zh
    assert done.line.load == pytest.approx(1.4, abs=0.01)
    assert done.line.overruns > 0
    after = run(busy_line(3.2), Wire(answer=0.2), 600)
    assert after.line.overruns == 0
    assert after.line.load == pytest.approx(0.875, abs=0.01)
    assert not after.of(LinkTrouble)


def test_a_unit_that_needs_long_pauses_is_named_while_the_line_has_room() -> None:
    """0.02 s and half a second of rest each 0.1 s; the line itself is nearly free."""
    spec = Spec(1).device(1, [holding(0)], period=0.1, pause=0.5).device(2, [holding(0)], period=0.1)
    told = run(spec, Wire(answer=0.02), 60).of(LinkTrouble)
    assert {trouble.problem for trouble in told} == {
        "unit 1 is 520 % busy, its pauses included: a period of 0.58 s or longer would fit"
    }


def test_a_line_with_room_says_nothing() -> None:
    done = run(busy_line(10.0), Wire(answer=0.2), 300)
    assert not done.of(LinkTrouble)
    assert done.line.load == pytest.approx(0.28, abs=0.01)


def test_a_line_that_has_room_again_says_so() -> None:
    """Answers become quicker after a minute, as when a radio link recovers."""
    wire = Wire(answer={1: 0.2, 2: 0.2})

    async def mend(_: VirtualRun) -> None:
        import asyncio

        await asyncio.sleep(60)
        wire.answer = 0.05

    done = in_virtual_time(run_line(busy_line(2.0).build(), wire, 200, beside=mend))
    told = done.of(LinkTrouble)
    assert told[0].problem is not None
    assert [trouble.problem for trouble in told[-2:]] == [None, None]


def test_time_outs_that_make_others_late_are_named() -> None:
    """Time-outs of 3 s on a line whose scans are due each second."""
    spec = Spec(1).device(1, [holding(0)], period=1.0, timeout=3.0).device(2, [holding(0)], period=1.0, timeout=3.0)
    done = run(spec, Wire(dead={2}, answer=0.05), 20)
    problems = [trouble.problem for trouble in done.of(LinkTrouble)]
    assert problems
    assert all(problem is None or "silent units: 2" in problem for problem in problems)
    assert "time-outs take" in problems[0]
