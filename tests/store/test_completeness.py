"""Completeness against its definition, moment by moment."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import Reader, Writer
from gateway.store.completeness import Course, Interval, Share, total, union
from schemas.wire import Birth, Gap
from tests.store.feed import SECOND, T0, Feed, signal

BAD, UNCERTAIN = 0x80000000, 0x40000000
HOUR = 3600

intervals = st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50)), max_size=6)


@given(
    disconnected=intervals, gaps=intervals, bad=intervals, known_to=st.integers(-5, 60), born=st.integers(-5, 50),
    retired=st.none() | st.integers(-5, 50), start=st.integers(0, 40), size=st.integers(0, 20),
)  # fmt: skip
def test_a_share_is_what_counting_moments_gives(
    disconnected: list[Interval], gaps: list[Interval], bad: list[Interval], known_to: int, born: int,
    retired: int | None, start: int, size: int,
) -> None:  # fmt: skip
    end = start + size
    found = Course(born, retired, known_to, disconnected, gaps, bad, 60).share(start, end)
    expected = [ts for ts in range(start, end) if ts >= born and (retired is None or ts < retired)]
    counted = dict.fromkeys(("disconnected", "gap", "bad", "unknown"), 0)
    for ts in expected:
        for cause, holes in (
            ("disconnected", disconnected), ("gap", gaps), ("bad", bad), ("unknown", [(known_to, 60)]),
        ):  # fmt: skip
            if any(first <= ts < last for first, last in holes):
                counted[cause] += 1
                break
    assert found == Share(len(expected), **counted)
    assert found.missing == sum(counted.values())
    if expected:
        assert found.share == (1.0 if not found.missing else (len(expected) - found.missing) / len(expected))
    else:
        assert found.share is None


def test_nothing_is_rounded_up() -> None:
    century = 100 * 366 * 86_400 * SECOND
    share = Share(expected=2**62 if century < 2**62 else century, gap=1).share
    assert share is not None
    assert share < 1


def test_shares_add_up_by_their_expected_times() -> None:
    """A mean over signals, each weighted by the time in which it was expected."""
    both = total([Share(100, gap=50), Share(300, unknown=30), Share()])
    assert (both.expected, both.missing, both.share) == (400, 80, 0.8)
    assert total([]).share is None


def test_union() -> None:
    assert union([(5, 7), (1, 3), (3, 4), (9, 9), (6, 8)]) == [(1, 4), (5, 8)]


@dataclass
class Told:
    """What a test has put into the store, in seconds after T0."""

    rows: list[tuple[int, int]] = field(default_factory=list)
    down: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    born: int = 0
    known_to: int = 0

    def at(self, ts: int) -> str:
        """Why the moment `ts` is missing; empty when it is not."""
        if any(first <= ts < last for first, last in self.down):
            return "disconnected"
        if any(first <= ts < last for first, last in self.gaps):
            return "gap"
        before = [row for row in self.rows if row[0] <= ts]
        if before and before[-1][1] >= BAD:
            return "bad"
        return "unknown" if ts >= self.known_to else ""

    def share(self, start: int, end: int, step: int) -> Share:
        moments = [ts for ts in range(start, end, step) if ts >= self.born]
        causes = [self.at(ts) for ts in moments]
        width = step * SECOND
        return Share(
            len(moments) * width,
            **{name: causes.count(name) * width for name in ("disconnected", "gap", "bad", "unknown")},
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_the_store_gives_what_its_definition_says(writer: Writer, reader: Reader, seed: int) -> None:
    """Six hours of flickering, stuck and good signals, with roll-ups made in between, late rows, gaps and outages."""
    dice = random.Random(seed)
    step, most = 60, 6 * HOUR
    feed = Feed()
    born = T0 // (900 * SECOND) * 900 - T0 // SECOND  # the beginning of a quarter, as seconds after T0
    births = [signal(number, f"s{number}") for number in range(1, 6)]
    writer.apply([feed.birth(*births, at=T0 + born * SECOND), feed.done(born)])
    told = {number: Told(born=born, known_to=born + most) for number in range(1, 6)}
    likely = {1: 0.0, 2: 0.02, 3: 0.5, 4: 1.0, 5: 0.1}
    rows = [
        (
            number,
            ts,
            1.0,
            dice.choice([BAD, BAD | 0x8A0000]) if dice.random() < likely[number] else dice.choice([0, UNCERTAIN]),
        )
        for ts in range(born, born + most, step)
        for number in told
        if dice.random() < (0.02 if number == 4 else 0.6)
    ]
    late = [row for row in rows if dice.random() < 0.05]
    for number, ts, _, status in rows:
        told[number].rows.append((ts, status))
    parts = [
        [row for row in rows if row not in late and born + part * HOUR <= row[1] < born + (part + 1) * HOUR]
        for part in range(6)
    ]
    for part, some in enumerate(parts):
        writer.apply([feed.rows(*some), feed.done(born + (part + 1) * HOUR)])
        if part in (1, 3):
            writer.roll_up()
            writer.maintain(everything=True)
    writer.apply([feed.rows(*late)])
    if seed == 1:
        writer.roll_up(2)
    for _ in range(3):
        first = born + dice.randrange(0, most, step)
        last = first + dice.randrange(step, HOUR, step)
        number = dice.randrange(1, 6)
        writer.apply([feed.step([Gap("press", [number], T0 + first * SECOND, T0 + last * SECOND, "dropped")])])
        told[number].gaps.append((first, last))
    first = born + 2 * HOUR + 60
    writer.apply([feed.link(False, first), feed.link(True, first + 300)])
    last = born + most - 600
    writer.apply([feed.link(False, last)])
    for one in told.values():
        one.down += [(first, first + 300), (last, 10**9)]
    for start, end in (
        (born, born + most),
        (born + HOUR + 120, born + 4 * HOUR - 60),
        (born - HOUR, born + most + HOUR),
    ):
        bounds = [T0 + start * SECOND, T0 + end * SECOND]
        found = reader.completeness([1, 2, 3, 4, 5, 99], bounds)
        assert found == {number: [one.share(start, end, step)] for number, one in told.items()}
    hours = [T0 + (born + hour * HOUR) * SECOND for hour in range(7)]
    by_hour = reader.completeness([3], hours)[3]
    assert by_hour == [told[3].share(born + hour * HOUR, born + (hour + 1) * HOUR, step) for hour in range(6)]
    assert total(by_hour) == reader.completeness([3], [hours[0], hours[-1]])[3][0]


def test_signals_that_come_and_go(writer: Writer, reader: Reader) -> None:
    """Nothing is expected before the birth and after the retirement; what was retired is settled."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u"), at=T0), feed.done(0), feed.done(100)])
    writer.apply([feed.step(Birth(T0 + 60 * SECOND, "press", "press", signals=[signal(2, "u", retired=True)]))])
    minute = 60 * SECOND
    found = reader.completeness([1, 2], [T0 - minute, T0, T0 + minute, T0 + 3 * minute])
    assert found[1] == [Share(), Share(minute), Share(2 * minute, unknown=80 * SECOND)]
    assert found[2] == [Share(), Share(minute), Share()]
    assert [record.retired_at for record in reader.signals()] == [None, T0 + minute]
    writer.apply([feed.step(Birth(T0 + 2 * minute, "press", "press", retired=True))])
    assert [record.retired_at for record in reader.signals()] == [T0 + 2 * minute, T0 + minute]
    assert reader.completeness([1], [T0, T0 + 3 * minute])[1] == [Share(2 * minute)]
    writer.apply([feed.birth(signal(1, "t"), at=T0 + 4 * minute)])
    assert reader.signals()[0].retired_at is None
    assert reader.completeness([], [T0, T0 + 1]) == {}
    assert reader.completeness([1], [T0]) == {}


def test_where_the_readings_are_deleted_a_quarter_with_a_bad_one_is_bad(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    quarter = 900
    base = T0 // (quarter * SECOND) * quarter - T0 // SECOND
    writer.apply([feed.birth(signal(1, "t"), at=T0 + base * SECOND), feed.done(base)])
    writer.apply(
        [feed.rows((1, base, 1.0), (1, base + 10, None, BAD), (1, base + 20, 2.0), (1, base + 3 * quarter, 3.0))]
    )
    writer.apply([feed.done(base + 4 * quarter)])
    writer.roll_up()
    writer.maintain(everything=True)
    bounds = [T0 + (base + number * quarter) * SECOND for number in range(3)]
    assert [share.bad for share in reader.completeness([1], bounds)[1]] == [10 * SECOND, 0]
    with writer._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM reading WHERE status IS NOT NULL")
        from gateway.store import tables as t

        connection.execute(t.store.update().values(horizon=bounds[1]))
    assert [share.bad for share in reader.completeness([1], bounds)[1]] == [quarter * SECOND, 0]
