"""Roll-ups answer as the readings do, whatever comes in late; retention takes readings and leaves the answers."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config.models import StoreSettings
from gateway.store import Reader, Writer, open_reader, open_writer
from gateway.store import tables as t
from gateway.store._rollups import QUARTER, combine, due, raw_buckets
from gateway.store.buckets import edges, span
from gateway.store.records import Bucket
from schemas.wire import Batch, Flag, Gap
from tests.store.conftest import ZONE, Target
from tests.store.feed import SECOND, T0, Feed, event, signal

HOUR = 3600
DAY = 24 * HOUR
HISTORICAL = int(Flag.HISTORICAL)
BAD = 0x80000000


def at(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


def from_readings(reader: Reader, number: int, start: int, end: int, width: Any) -> list[Bucket]:
    """The buckets without any roll-up."""
    first, last = span(start, end, width, ZONE)
    with reader.transaction() as connection:
        return list(raw_buckets(connection, number, edges(start, end, width, ZONE), first, last, large=False))


def alike(left: list[Bucket], right: list[Bucket]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in (
            "start",
            "end",
            "good",
            "uncertain",
            "bad",
            "min",
            "max",
            "first",
            "first_ts",
            "last",
            "last_ts",
            "covered",
        ):
            assert getattr(one, name) == getattr(other, name), (name, one, other)
        for name in ("sum", "average"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None), (name, one, other)
            if mine is not None:
                assert mine == pytest.approx(theirs, rel=1e-11, abs=1e-9)


def agree(reader: Reader, signals: tuple[int, ...] = (1, 2), end: float = 3 * DAY) -> None:
    """Roll-ups and readings say the same, in every width that is made of quarters."""
    for number in signals:
        for width in (QUARTER // SECOND, HOUR, "day"):
            found = list(reader.buckets(number, at(0), at(end), width))
            alike(found, from_readings(reader, number, at(0), at(end), width))


def quarters(reader: Reader, number: int = 1) -> int:
    with reader.transaction() as connection:
        return int(
            connection.execute(
                sa.select(sa.func.count()).select_from(t.rollup_quarter).where(t.rollup_quarter.c.signal_id == number)
            ).scalar_one()
        )


def days(reader: Reader) -> int:
    with reader.transaction() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(t.rollup_day)).scalar_one())


def fill(writer: Writer, feed: Feed, start: float, end: float, step: float, seed: int = 1) -> None:
    source = random.Random(seed)
    seconds = [start + step * number for number in range(int((end - start) / step))]
    rows = [
        (
            point,
            second + source.random(),
            None if (bad := source.random() < 0.05) else source.uniform(-50, 50),
            BAD if bad else 0,
        )
        for second in seconds
        for point in (1, 2)
    ]
    writer.apply([feed.rows(*rows), feed.done(end)])


@pytest.fixture
def feed(writer: Writer) -> Feed:
    """Two and a half days of two signals."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "a"), signal(2, "b"))])
    fill(writer, feed, 100, 2.5 * DAY, 400)
    writer.roll_up()
    return feed


def test_rollups_answer_as_the_readings_do(writer: Writer, reader: Reader, feed: Feed) -> None:
    assert quarters(reader) == pytest.approx(2.5 * 96, abs=2)
    assert days(reader) == 2 * 3  # the fourth day goes on
    agree(reader)
    fill(writer, feed, 2.5 * DAY, 2.9 * DAY, 300, seed=2)
    agree(reader)
    assert writer.roll_up() >= 0
    assert quarters(reader) == pytest.approx(2.9 * 96, abs=2)
    agree(reader)
    assert writer.roll_up() == 0
    for width in (60, 1800, DAY):
        for start in (at(0), at(-DAY), at(1.3 * DAY)):
            alike(
                list(reader.buckets(1, start, start + HOUR * SECOND, width)),
                from_readings(reader, 1, start, start + HOUR * SECOND, width),
            )
    other = list(reader.buckets(1, at(0), at(2 * DAY), "day", timezone="America/New_York"))
    assert [bucket.end - bucket.start for bucket in other] == [DAY * SECOND] * len(other)
    assert sum(bucket.good + bucket.bad for bucket in other) > 400


def test_the_tiers_are_what_answers(writer: Writer, reader: Reader, feed: Feed) -> None:
    """With the readings gone the closed buckets answer still."""
    before = [list(reader.buckets(1, at(0), at(2 * DAY), width)) for width in (HOUR, "day")]
    with writer._engine.begin() as connection:
        connection.execute(t.reading.delete())
        if connection.dialect.name == "sqlite":
            connection.execute(t.tail.delete())
    after = [list(reader.buckets(1, at(0), at(2 * DAY), width)) for width in (HOUR, "day")]
    alike(after[0], before[0])
    alike(after[1][:2], before[1][:2])


def test_late_rows_change_the_rollups(writer: Writer, reader: Reader, feed: Feed) -> None:
    late = [(1, DAY + 777, 1e6, 0, HISTORICAL), (1, DAY + 50_000, -1e6, 0, HISTORICAL), (2, 5, 3.0, 0, HISTORICAL)]
    applied = writer.apply([feed.rows(*late)])
    assert applied.late == 3
    agree(reader)  # at once
    writer.roll_up()
    agree(reader)
    with reader.transaction() as connection:
        assert connection.execute(sa.select(t.dirty)).first() is None
    assert max(bucket.max or 0 for bucket in reader.buckets(1, at(0), at(2 * DAY), "day")) == 1e6


def test_gaps_and_connections_change_the_rollups(writer: Writer, reader: Reader, feed: Feed) -> None:
    writer.apply([feed.step([Gap("press", [1], at(0.5 * DAY), at(0.6 * DAY), "dropped")])])
    agree(reader)
    writer.apply([feed.step([Gap(None, None, at(1.2 * DAY), at(1.25 * DAY), "overrun")])])
    writer.roll_up()
    agree(reader)
    writer.apply([feed.link(False, 1.5 * DAY)])
    writer.roll_up()
    writer.apply([feed.link(True, 1.7 * DAY), feed.done(2.6 * DAY)])
    agree(reader)
    writer.roll_up()
    agree(reader)


def test_a_quarter_is_made_when_all_of_it_is_stored(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    zero = -(T0 % QUARTER) // SECOND + 900  # seconds to a quarter's begin
    writer.apply([feed.birth(signal(1, "a"), signal(2, "b", group="slow")), feed.rows((1, zero, 1.0), (2, zero, 2.0))])
    writer.apply([feed.done(zero + 899.5), feed.done(zero + 5, "slow")])
    writer.roll_up()
    assert (quarters(reader, 1), quarters(reader, 2)) == (0, 0)
    writer.apply([feed.done(zero + 900)])
    writer.roll_up()
    assert (quarters(reader, 1), quarters(reader, 2)) == (1, 0)
    writer.apply([feed.done(zero + 1801, "slow")])
    writer.roll_up()
    assert (quarters(reader, 1), quarters(reader, 2)) == (1, 2)
    (first, _) = reader.buckets(2, at(zero), at(zero + 1800), 900)
    assert (first.average, first.covered, first.good) == (2.0, QUARTER, 1)


def test_an_apply_makes_what_is_due(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "a")), feed.rows((1, 0, 1.0)), feed.done(2000)])
    assert quarters(reader) == 2


def test_due_is_what_has_a_quarter_that_is_over(writer: Writer) -> None:
    """Each signal that is looked at costs, and a new store has thousands whose first quarter is not over."""
    feed = Feed()
    writer._upkeep_at = math.inf  # only when it is said
    zero = 900 - T0 // SECOND % 900  # where a quarter begins

    def found() -> list[int]:
        with writer._transaction() as connection:
            return due(connection)

    writer.apply([feed.birth(signal(1, "a"), signal(2, "b"), signal(3, "c"))])
    writer.apply([feed.rows((1, zero + 5, 1.0)), feed.done(zero + 800)])
    assert found() == []
    writer.apply([feed.rows((2, zero + 1000, 2.0)), feed.done(zero + 1200)])
    assert found() == [1]
    writer.roll_up()
    assert found() == []
    writer.apply([feed.done(zero + 1900)])
    assert found() == [1, 2]


def test_another_time_zone(target: Target, writer: Writer, reader: Reader, feed: Feed) -> None:
    before = list(reader.buckets(1, at(0), at(2 * DAY), "day"))
    writer.close()
    other = open_writer(target.settings, target.folder, "Europe/Berlin")
    target.made.append(other)
    assert other.acquire("ingest-1", 60)
    assert days(reader) == 0
    moved = list(reader.buckets(1, at(0), at(2 * DAY), "day"))
    assert moved[0].start - before[0].start == 6 * HOUR * SECOND  # in October Berlin is six hours behind Shanghai
    other.apply([feed.done(2.5 * DAY + 900)])
    other.roll_up()
    assert days(reader) > 0
    alike(list(reader.buckets(1, at(0), at(2 * DAY), "day"))[:2], moved[:2])
    alike(list(reader.buckets(1, at(0), at(2 * DAY), "day", timezone=ZONE))[:2], before[:2])


def test_combining_nothing() -> None:
    assert combine([], 5, 9) == Bucket(5, 9)


# --------------------------------------------------------------------------------------------------------- retention


@pytest.fixture
def old(target: Target) -> tuple[Writer, Reader, Feed]:
    """A store that keeps one day, with ten days of two signals, and a third that has not changed since the first hour."""
    target.settings = target.settings.model_copy(update={"retention": float(DAY)})
    writer, reader, feed = target.writer(), target.reader(), Feed()
    writer._upkeep_at = math.inf  # only when it is said
    writer.apply([feed.birth(signal(1, "a"), signal(2, "b"), signal(3, "c")), feed.rows((3, 600, "as ever"))])
    for day in range(10):
        fill(writer, feed, day * DAY + 100, (day + 1) * DAY, 1000, seed=day)
    return writer, reader, feed


def test_retention(target: Target, old: tuple[Writer, Reader, Feed]) -> None:
    writer, reader, feed = old
    complete = [list(reader.buckets(number, at(0), at(10 * DAY), HOUR)) for number in (1, 2, 3)]
    newest = reader.snapshot().rows
    writer.roll_up()
    horizon = (at(9 * DAY)) // QUARTER * QUARTER
    left = [row for chunk in reader.history([1, 2, 3]) for row in chunk]
    kept = [row for row in left if row.ts < horizon]
    if target.kind == "timescale":  # whole chunks
        assert len(kept) < 250
    else:
        assert [(row.signal, row.ts < horizon) for row in kept] == [(1, True), (2, True), (3, True)]
    assert next(row for row in left if row.signal == 3).value == "as ever"
    assert len([row for row in left if row.ts >= horizon]) == pytest.approx(2 * 86, abs=4)
    assert reader.snapshot().rows == newest
    for number, before in zip((1, 2, 3), complete, strict=True):
        alike(list(reader.buckets(number, at(0), at(10 * DAY), HOUR)), before)
    writer.close()
    again = target.writer()
    assert again.apply([feed.rows((1, 10 * DAY + 1, 1.0))]).late == 0


def test_a_reading_before_the_horizon_is_too_late(old: tuple[Writer, Reader, Feed]) -> None:
    writer, reader, feed = old
    writer.roll_up()
    before = list(reader.buckets(1, at(0), at(9 * DAY), HOUR))
    late = [(1, DAY, 1e9, 0, HISTORICAL), (1, 2 * DAY, 1e9, 0, HISTORICAL), (1, 9.5 * DAY, 5.0, 0, HISTORICAL)]
    applied = writer.apply([feed.rows(*late)])
    assert (applied.rows, applied.late) == (1, 3)
    (gap,) = [gap for gap in reader.gaps(signal=1) if gap.cause == "too_late"]
    assert (gap.start, gap.end, gap.count, gap.signals) == (at(DAY), at(2 * DAY), 2, [1])
    writer.roll_up()
    alike(list(reader.buckets(1, at(0), at(9 * DAY), HOUR)), before)
    # the newest reading of a signal is its present value, however old it is
    writer.apply([feed.birth(signal(4, "d")), feed.rows((4, 50, 7.0, 0, int(Flag.INITIAL)))])
    assert reader.snapshot().rows[-1].value == 7.0


def test_a_clock_that_is_ahead_deletes_nothing(
    old: tuple[Writer, Reader, Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader, _ = old
    monkeypatch.setattr("gateway.store._upkeep.now", lambda: at(40_000 * DAY))
    writer.roll_up()
    assert len([row for chunk in reader.history([1], at(9.1 * DAY)) for row in chunk]) > 70


# ---------------------------------------------------------------------------------------------------- any order at all


steps = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.lists(st.tuples(st.integers(1, 2), st.integers(0, 400), st.sampled_from([1.0, 2.5, -3.0, None])), min_size=1, max_size=6)),
        st.tuples(st.just("done"), st.integers(0, 400)),
        st.tuples(st.just("gap"), st.integers(0, 400), st.integers(0, 60), st.sampled_from(["dropped", "stale"]), st.sampled_from([None, [1]])),
        st.tuples(st.just("link"), st.booleans(), st.integers(0, 400)),
        st.tuples(st.just("lost")),
        st.tuples(st.just("event")),
        st.tuples(st.just("stream")),
        st.tuples(st.just("roll")),
    ),
    max_size=25,
)  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    open_writer(StoreSettings(), folder, ZONE).close()
    return folder / "store.sqlite"


@settings(max_examples=40, deadline=None)
@given(steps)
@example(
    [
        ("rows", [(1, 0, 1.0)]),
        ("done", 2),
        ("rows", [(1, 0, 1.0)]),
        ("roll",),
        ("done", 0),
        ("rows", [(1, 0, 1.0)]),
        ("lost",),
    ]
)
def test_rollups_agree_whatever_happens(empty: Path, found: list[Any]) -> None:
    """Times in units of five minutes, over a day and a third: readings, gaps and links in any order, roll-ups between them."""
    unit = 300
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(empty, name)
        writer = open_writer(StoreSettings(), Path(name), ZONE)
        reader = open_reader(StoreSettings(), Path(name))
        writer._upkeep_at = math.inf  # only when it is said
        assert writer.acquire("a", 60)
        streams = 1
        feed = Feed("s1")
        births = (signal(1, "a"), signal(2, "b"))
        writer.apply([feed.birth(*births)])
        for step in found:
            match step:
                case ("rows", rows):
                    columns = [list(column) for column in zip(*sorted(rows, key=lambda row: row[1]), strict=True)]
                    status = [BAD if value is None else 0 for value in columns[2]]
                    offsets = [number * unit * SECOND for number in columns[1]]
                    writer.apply([feed.step(Batch(T0, columns[0], offsets, columns[2], status))])
                case ("done", to):
                    writer.apply([feed.done(to * unit)])
                case ("gap", start, length, cause, points):
                    writer.apply(
                        [feed.step([Gap("press", points, at(start * unit), at((start + length) * unit), cause)])]
                    )
                case ("link", up, when):
                    writer.apply([feed.link(up, when * unit)])
                case ("lost",):
                    writer.apply([feed.lost(1)])
                case ("event",):
                    writer.apply([feed.step([event(f"e{feed.seq}")])])
                case ("stream",):
                    streams += 1
                    feed = Feed(f"s{streams}")
                    writer.apply([feed.birth(*births)])
                case _:
                    writer.roll_up()
        writer.roll_up()
        agree(reader, end=400 * unit)
        writer.close()
        reader.close()
