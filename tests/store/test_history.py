"""Reading back: history in pieces, cursors, the snapshot, and buckets against a slow exact reference."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.store import Reader, Writer
from gateway.store.buckets import Blind, Sample, edges, fold, span
from gateway.store.records import Bucket, Reading
from schemas.wire import Batch, Gap, Row
from tests.store.conftest import ZONE, Target
from tests.store.feed import SECOND, T0, Feed, signal

Read = Callable[..., list[Reading]]
BAD = 0x80000000


def at(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


def flat(chunks: Any) -> list[Reading]:
    return [row for chunk in chunks for row in chunk]


# ----------------------------------------------------------------------------------------------------------- history


@pytest.fixture
def three(writer: Writer) -> Feed:
    """Three signals with 20 readings each, two at each time; half of them merged on SQLite."""
    feed = Feed()
    writer.apply([feed.birth(*(signal(point, f"s{point}") for point in (1, 2, 3)))])
    for half in (0, 1):
        rows = [
            (point, 10 * half + number // 2, float(number), 0, 0, number % 2)
            for number in range(10)
            for point in (3, 1, 2)
        ]
        writer.apply([feed.rows(*rows)])
        if not half:
            writer.maintain(everything=True)
    return feed


def test_ranges_and_order(reader: Reader, three: Feed) -> None:
    everything = flat(reader.history([3, 1, 2]))
    assert [(row.signal, row.ts, row.n) for row in everything] == [
        (point, at(10 * half + number), n)
        for point in (1, 2, 3)
        for half in (0, 1)
        for number in range(5)
        for n in (0, 1)
    ]
    assert flat(reader.history([2], at(3), at(11))) == [
        row for row in everything if row.signal == 2 and at(3) <= row.ts < at(11)
    ]
    backwards = flat(reader.history([2], order="desc"))
    assert backwards == [row for row in reversed(everything) if row.signal == 2]
    assert flat(reader.history([2], at(3), at(4), limit=1, order="desc")) == [
        row for row in backwards if row.ts == at(3) and row.n == 1
    ]
    assert flat(reader.history([], at(0))) == []
    assert flat(reader.history([99])) == []
    assert flat(reader.history([1], limit=0)) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_by_cursor(reader: Reader, three: Feed, order: Any) -> None:
    whole = flat(reader.history([1, 2, 3], at(1), at(14), order=order))
    assert len(whole) == 48
    for page in (1, 7, 48, 100):
        seen: list[Reading] = []
        after = None
        while rows := flat(reader.history([1, 2, 3], at(1), at(14), limit=page, after=after, order=order)):
            assert len(rows) <= page
            seen += rows
            after = (rows[-1].signal, rows[-1].ts, rows[-1].n)
        assert seen == whole


def test_a_long_history_comes_in_pieces(target: Target, writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    for part in range(3):
        offsets = list(range(part * 5000, part * 5000 + 5000))
        writer.apply([feed.step(Batch(T0, [1] * 5000, offsets, [float(offset) for offset in offsets]))])
        if part == 1:
            writer.maintain(everything=True)
    chunks = reader.history([1], T0 + 500)
    first = next(chunks)
    assert len(first) == 5000
    if not target.single:
        # what is written meanwhile is not part of it
        writer.apply([feed.step(Batch(T0, [1], [20_000], [1.0]))])
        writer.maintain(everything=True)
    rest = flat(chunks)
    assert [row.value for row in first + rest] == [float(offset) for offset in range(500, 15_000)]
    assert reader.last_before(1, T0 + 500) == Reading(1, T0 + 499, 0, 499.0)
    assert reader.last_before(1, T0) is None
    closing = reader.history([1])
    next(closing)
    closing.close()  # type: ignore[attr-defined]
    assert writer.apply([feed.done(1)]).rows == 0


# ---------------------------------------------------------------------------------------------------------- snapshot


def test_snapshot_has_the_newest_row_of_each_signal(writer: Writer, reader: Reader, three: Feed) -> None:
    rows = reader.snapshot().rows
    assert rows == [Row(point, at(14), 1, 9.0) for point in (1, 2, 3)]
    writer.apply([three.rows((1, 14, "new", 0, 8, 2), (2, 13.5, 1.0), (3, 20, None, BAD))])
    expected = [Row(1, at(14), 2, "new", 0, 8), Row(2, at(14), 1, 9.0), Row(3, at(20), 0, None, BAD)]
    assert reader.snapshot().rows == expected
    writer.maintain(everything=True)
    assert reader.snapshot().rows == expected


def test_snapshots_show_whole_commits(target: Target, writer: Writer, reader: Reader) -> None:
    """Each commit writes the same number to two signals, to progress and as commit number."""
    if target.single:
        pytest.skip("this server takes one transaction at a time")
    feed = Feed()
    writer.apply([feed.birth(signal(1, "a"), signal(2, "b")), feed.rows((1, 1, 1), (2, 1, 1)), feed.done(1)])
    stop = threading.Event()
    seen: list[tuple[int, list[int], list[int]]] = []

    def watch() -> None:
        while not stop.is_set():
            now = reader.snapshot()
            done = [(item.complete_to - T0) // SECOND for item in now.progress]
            seen.append((now.commit_no, [row.value for row in now.rows], done))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for number in range(2, 60):
            writer.apply([feed.rows((1, number, number), (2, number, number)), feed.done(number)])
            if number % 10 == 0:
                writer.maintain(everything=True)
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 3
    assert all(rows == [number, number] and done == [number] for number, rows, done in seen)


# ----------------------------------------------------------------------------------------------------------- buckets


def reference(
    samples: list[Sample], start: int, end: int, soft: list[tuple[int, int]], hard: list[tuple[int, int]], known: int
) -> tuple[Any, ...]:
    """One bucket, by the definition, with exact arithmetic and no care for speed."""
    inside = [sample for sample in samples if start <= sample[0] < end]
    numbers = [
        (ts, number)
        for ts, number, status in inside
        if status >> 30 < 2 and number is not None and math.isfinite(number)
    ]
    covered, integral = 0, Fraction(0)
    for index, (ts, number, status) in enumerate(samples):
        until = samples[index + 1][0] if index + 1 < len(samples) else max(known, ts)
        if status >> 30 >= 2 or number is None or not math.isfinite(number):
            continue
        points = sorted({ts, until, start, end, *(bound for interval in soft + hard for bound in interval)})
        for left, right in itertools.pairwise(points):
            if not (ts <= left and right <= until and start <= left and right <= end):
                continue
            if any(a <= left and right <= b for a, b in hard):
                continue
            if any(a <= left and right <= b and _begin(soft, left, right) > ts for a, b in soft):
                continue
            covered += right - left
            integral += Fraction(number) * (right - left)
    return (
        sum(1 for sample in inside if sample[2] >> 30 == 0),
        sum(1 for sample in inside if sample[2] >> 30 == 1),
        sum(1 for sample in inside if sample[2] >> 30 >= 2),
        min((number for _, number in numbers), default=None),
        max((number for _, number in numbers), default=None),
        numbers[0] if numbers else None,
        numbers[-1] if numbers else None,
        sum((Fraction(number) for _, number in numbers), Fraction(0)) if numbers else None,
        integral / covered if covered else None,
        covered,
    )


def _begin(soft: list[tuple[int, int]], left: int, right: int) -> int:
    """Where the blind time that holds [left, right] begins, touching intervals taken as one."""
    begin = min(a for a, b in soft if a <= left and right <= b)
    while (earlier := min((a for a, b in soft if a < begin <= b), default=begin)) < begin:
        begin = earlier
    return begin


def agrees(bucket: Bucket, expected: tuple[Any, ...]) -> None:
    good, uncertain, bad, low, high, first, last, total, average, covered = expected
    assert (bucket.good, bucket.uncertain, bucket.bad, bucket.covered) == (good, uncertain, bad, covered)
    assert (bucket.min, bucket.max) == (low, high)
    assert (bucket.first_ts, bucket.first) == (first or (None, None))
    assert (bucket.last_ts, bucket.last) == (last or (None, None))
    scale = max(abs(low or 0), abs(high or 0), 1e-300)
    if total is None:
        assert bucket.sum is None
    else:
        assert bucket.sum == pytest.approx(float(total), rel=1e-12, abs=scale * 1e-12)
    if average is None:
        assert bucket.average is None
    else:
        assert bucket.average == pytest.approx(float(average), rel=1e-12, abs=abs(float(average)) * 1e-12 + 1e-9)


numbers = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, 0.0])
statuses = st.sampled_from([0, 0, 0, 0x40000000, BAD, 0xC0000000])
tracks = st.lists(st.tuples(st.integers(0, 100), numbers, statuses), max_size=25).map(
    lambda rows: sorted(rows, key=lambda row: row[0])
)
intervals = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 30)).map(lambda pair: (pair[0], sum(pair))), max_size=3
)


@settings(max_examples=300, deadline=None)
@given(tracks, st.integers(0, 60), st.integers(1, 60), st.integers(1, 25), intervals, intervals, st.integers(0, 120))
def test_fold_against_the_definition(
    track: list[Sample], start: int, length: int, width: int, soft: list[Any], hard: list[Any], known: int
) -> None:
    end = start + length
    bounds = list(range(start // width * width, end + width, width))
    before = [sample for sample in track if sample[0] < bounds[0]]
    inside = [sample for sample in track if bounds[0] <= sample[0] < bounds[-1]]
    after = [sample for sample in track if sample[0] >= bounds[-1]]
    known_to = bounds[-1] if after else known
    found = list(fold(inside, bounds, before[-1] if before else None, Blind(soft, hard), known_to))
    assert [(bucket.start, bucket.end) for bucket in found] == list(itertools.pairwise(bounds))
    soft = [interval for interval in soft if interval[0] < interval[1]]
    hard = [interval for interval in hard if interval[0] < interval[1]]
    for bucket in found:
        agrees(bucket, reference(before[-1:] + inside, bucket.start, bucket.end, soft, hard, known_to))


def test_a_sum_of_many_is_exact() -> None:
    samples: list[Sample] = [(number, 0.1 if number % 2 else 1e9, 0) for number in range(100_000)]
    (bucket,) = fold(samples, [0, 100_000], None, Blind([], []), 100_000)
    assert bucket.sum == math.fsum(number for _, number, _ in samples if number is not None)
    assert bucket.average == pytest.approx((1e9 + 0.1) / 2, rel=1e-15)


def test_edges() -> None:
    assert list(edges(at(0), at(0), 60, ZONE)) == []
    assert list(edges(at(1), at(121), 60, "UTC")) == [at(-20), at(40), at(100), at(160)]
    assert list(edges(at(-20), at(40), 60, "UTC")) == [at(-20), at(40)]
    # 2025-10-09T08:53:20Z: midnight in Shanghai was 16:53:20 ago
    midnight = at(-(16 * 3600 + 53 * 60 + 20))
    assert list(edges(at(0), at(1), "day", ZONE)) == [midnight, midnight + 86_400 * SECOND]
    # the day when Berlin leaves summer time has 25 hours
    autumn = [1_761_429_600 * SECOND, 1_761_519_600 * SECOND]
    assert list(edges(autumn[0], autumn[1], "day", "Europe/Berlin")) == autumn
    for width in ("day", 0.25, 7, 86_400 * 7):
        found = list(edges(at(3), at(200_000 if width == "day" else 40), width, ZONE))
        assert span(at(3), at(200_000 if width == "day" else 40), width, ZONE) == (found[0], found[-1])
    with pytest.raises(ValueError, match="width"):
        list(edges(0, 1, 0, ZONE))


def test_buckets_from_the_store(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    zero = 40  # a full minute
    rows = [
        (1, zero - 30, 10.0), (1, zero + 15, 20.0), (1, zero + 30, None, BAD), (1, zero + 45, 40.0, 0x40000000),
        (1, zero + 130, 5), (1, zero + 140, True), (2, zero + 10, "text"),
    ]  # fmt: skip
    writer.apply([feed.birth(signal(1, "t"), signal(2, "text")), feed.rows(*rows[:4])])
    writer.maintain(everything=True)
    writer.apply([feed.rows(*rows[4:]), feed.done(zero + 150)])
    first, second, third = reader.buckets(1, at(zero), at(zero + 170), 60)
    assert first == Bucket(
        at(zero), at(zero + 60), 1, 1, 1, 20.0, 40.0, 20.0, at(zero + 15), 40.0, at(zero + 45), 60.0,
        (10 * 15 + 20 * 15 + 40 * 15) / 45, 45 * SECOND,
    )  # fmt: skip
    assert second == Bucket(at(zero + 60), at(zero + 120), average=40.0, covered=60 * SECOND)
    assert (third.good, third.sum, third.covered) == (2, 6.0, 30 * SECOND)  # and nothing after complete_to
    assert third.average == pytest.approx((40 * 10 + 5 * 10 + 1 * 10) / 30)
    # an older range ends in a value that holds until the next reading
    (older,) = reader.buckets(1, at(zero - 60), at(zero - 1), 60)
    assert (older.covered, older.average) == (30 * SECOND, 10.0)
    (text,) = reader.buckets(2, at(zero), at(zero + 1), 60)
    assert (text.good, text.min, text.sum, text.average, text.covered) == (1, None, None, None, 0)
    (day,) = reader.buckets(1, at(zero), at(zero + 1), "day")
    assert (day.good, day.end - day.start, day.covered) == (4, 86_400 * SECOND, (45 + 15 + 105) * SECOND)
    assert [bucket.start for bucket in reader.buckets(1, at(0), at(1), "day", timezone="UTC")] == [at(-32_000)]
    assert list(reader.buckets(99, at(40), at(100), 60)) == [Bucket(at(40), at(100))]
    assert list(reader.buckets(1, at(5), at(5), 60)) == []


def test_what_was_not_connected_does_not_count(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply(
        [feed.birth(signal(1, "t"), signal(2, "u")), feed.rows((1, 0, 1.0), (2, 0, 1.0)), feed.link(False, 100)]
    )
    writer.apply([feed.link(True, 200), feed.done(400)])
    gap = feed.step([Gap("press", [1], at(300), at(310), "dropped")])
    writer.apply([gap, feed.rows((1, 305, 3.0))])
    (one,) = reader.buckets(1, at(0), at(400), 100_000)
    assert one.covered == (100 + 100 + 90) * SECOND
    assert one.average == pytest.approx((200 * 1.0 + 90 * 3.0) / 290)
    (two,) = reader.buckets(2, at(0), at(400), 100_000)
    assert (two.covered, two.average) == (300 * SECOND, 1.0)
