"""The judgement of a device's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.collect.clock import FROZEN_SPAN, WINDOW, ClockChange, DeviceClock
from gateway.config.models import ClockSettings

T = 1_795_336_200_000_000
S = 1_000_000
HOUR = 3600 * S


def test_a_right_clock_is_believed_and_nothing_is_said() -> None:
    clock = DeviceClock(ClockSettings())
    assert [clock.observe(T + i * S + 300_000, T + i * S) for i in range(100)] == [None] * 100
    assert (clock.clock, clock.offset) == ("source", 300_000)


def test_a_clock_that_is_off_from_the_start_is_known_at_once() -> None:
    clock = DeviceClock(ClockSettings())
    assert clock.observe(T + 8 * HOUR, T) == ClockChange(T, "gateway", "off", 8 * HOUR)
    assert clock.clock == "gateway"


def test_one_late_message_is_not_a_wrong_clock() -> None:
    clock = DeviceClock(ClockSettings())
    for i in range(10):
        assert clock.observe(T + i * S, T + i * S) is None
    assert clock.observe(T + 10 * S, T + 100 * S) is None


def test_a_clock_that_goes_wrong_and_is_set_right() -> None:
    clock = DeviceClock(ClockSettings(tolerance=10.0))
    changes = []
    for i in range(240):
        ahead = 20 * S if 60 <= i < 120 else 0
        changes.append(clock.observe(T + i * S + ahead, T + i * S))
    told = [(i, change.clock, change.reason) for i, change in enumerate(changes) if change is not None]
    (at, first, off), (back, second, right) = told
    assert (first, off, second, right) == ("gateway", "off", "source", "right")
    # The median of a minute follows after half a minute.
    assert 60 + 25 <= at <= 60 + 35
    assert 120 + 25 <= back <= 120 + 35


def test_at_the_edge_of_the_tolerance_it_does_not_flicker() -> None:
    clock = DeviceClock(ClockSettings(tolerance=10.0))
    changes = []
    for i in range(600):
        edge = 10 * S + (200_000 if (i // 90) % 2 else -200_000)
        changes.append(clock.observe(T + i * S + edge, T + i * S))
    assert sum(change is not None for change in changes) == 1


def test_a_known_offset() -> None:
    clock = DeviceClock(ClockSettings(offset=8 * 3600.0))
    assert clock.clock == "offset"
    assert clock.shift == 8 * HOUR
    assert clock.observe(T + 8 * HOUR, T) is None
    change = clock.observe(T + 2 * S, T + 2 * S)
    assert change is None  # the median of two is the later one only when both agree
    for i in range(3, 70):
        change = clock.observe(T + i * S, T + i * S) or change
    assert change is not None
    assert (change.clock, change.reason) == ("gateway", "off")


def test_frozen_is_three_values_with_one_time_over_two_seconds() -> None:
    clock = DeviceClock(ClockSettings())
    assert clock.repeated(1, T, 10, 11, T) is None
    assert clock.repeated(1, T, 11, 12, T + S) is None
    assert not clock.frozen
    change = clock.repeated(1, T, 12, 13, T + FROZEN_SPAN)
    assert change == ClockChange(T + FROZEN_SPAN, "gateway", "frozen", 0)
    assert clock.frozen


def test_two_values_that_alternate_are_not_three() -> None:
    clock = DeviceClock(ClockSettings())
    for i in range(10):
        assert clock.repeated(1, T, i % 2, (i + 1) % 2, T + i * S) is None


def test_another_source_time_begins_anew() -> None:
    clock = DeviceClock(ClockSettings())
    for i in range(10):
        assert clock.repeated(1, T + i, i, i + 1, T + i * S) is None


def test_a_frozen_clock_that_runs_again() -> None:
    clock = DeviceClock(ClockSettings())
    clock.repeated(1, T, 10, 11, T)
    clock.repeated(1, T, 11, 12, T + 3 * S)
    assert clock.frozen
    assert clock.moved(T, T + 4 * S) is None
    assert clock.moved(T + 5 * S, T + 5 * S) is None
    assert clock.moved(T + 6 * S, T + 6 * S) is None
    change = clock.moved(T + 7 * S, T + 7 * S)
    assert change is not None
    assert (change.clock, change.reason, clock.clock) == ("source", "right", "source")


def test_the_gateways_own_clock_is_set() -> None:
    clock = DeviceClock(ClockSettings())
    for i in range(60):
        clock.observe(T + i * S, T + i * S)
    clock.restart()
    change = clock.observe(T + 61 * S, T + 61 * S + HOUR)
    assert change is not None
    # Set back: what was observed in the future is forgotten as well.
    assert clock.observe(T + 62 * S, T + 62 * S) is not None
    assert clock.clock == "source"


@given(st.lists(st.integers(-59 * S, 59 * S), min_size=1, max_size=200))
def test_within_the_tolerance_it_is_always_believed(offsets: list[int]) -> None:
    clock = DeviceClock(ClockSettings())
    for i, offset in enumerate(offsets):
        assert clock.observe(T + i * S + offset, T + i * S) is None


@given(st.lists(st.tuples(st.integers(0, 3 * WINDOW), st.integers(-(10**12), 10**12)), max_size=100))
def test_any_sequence_gives_a_judgement(steps: list[tuple[int, int]]) -> None:
    clock, now = DeviceClock(ClockSettings()), T
    for step, offset in steps:
        now += step
        before = clock.clock
        change = clock.observe(now + offset, now)
        assert (change is not None) == (clock.clock != before)
