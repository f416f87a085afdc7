"""A collector that stood still says so."""

from __future__ import annotations

from gateway.collect.standstill import Standstill
from schemas.wire import Gap

T0 = 1_800_000_000_000_000


class Clocks:
    """The gateway's time and the clock that runs on while the machine sleeps."""

    def __init__(self) -> None:
        self.now, self.elapsed = T0, 50.0

    def passes(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.elapsed += seconds
        self.now += round((seconds + set_by) * 1e6)


def standing(clocks: Clocks) -> Standstill:
    return Standstill(lambda: clocks.now, lambda: clocks.elapsed)


def test_a_late_heartbeat_is_a_gap_of_all_devices_from_the_beat_before_the_last() -> None:
    clocks = Clocks()
    standstill = standing(clocks)
    for seconds in (1.0, 1.3, 1.9):
        clocks.passes(seconds)
        assert standstill.beat(1.0) is None
    clocks.passes(13.0)
    start = T0 + 2_300_000
    assert standstill.beat(1.0) == Gap(
        None, None, start, clocks.now, "collector_down", None, "the collector stood still for 12.0 s"
    )
    clocks.passes(1.0)
    assert standstill.beat(1.0) is None


def test_at_the_first_heartbeat_already() -> None:
    clocks = Clocks()
    standstill = standing(clocks)
    clocks.passes(5.0)
    gap = standstill.beat(1.0)
    assert gap is not None
    assert (gap.start, gap.end) == (T0, T0 + 5_000_000)


def test_a_clock_that_is_set_is_no_standstill_and_turns_no_gap_round() -> None:
    clocks = Clocks()
    standstill = standing(clocks)
    clocks.passes(1.0, set_by=3600.0)
    assert standstill.beat(1.0) is None
    clocks.passes(9.0, set_by=-7200.0)
    gap = standstill.beat(1.0)
    assert gap is not None
    assert gap.start <= gap.end == clocks.now
