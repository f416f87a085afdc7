"""Readings in the store: exact, each once, whatever their order (rules 9 and 14)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import Reader, Writer
from gateway.store import _values as values
from gateway.store.records import Reading
from schemas.wire import Batch, Extra, Flag, Row
from tests.store.conftest import Target
from tests.store.feed import SECOND, T0, Feed, signal

Read = Callable[..., list[Reading]]
LATE, HISTORICAL, INITIAL = int(Flag.LATE), int(Flag.HISTORICAL), int(Flag.INITIAL)

EXACT: list[Any] = [
    0.0, -0.0, 1.5, -1e-300, 1.7976931348623157e308, 5e-324, 0.1, 1e16, math.nan, math.inf, -math.inf,
    0, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**64 - 1,
    True, False, None, "", "运行", "a\x00b", "$float", 'quote " and \\', "\U0001f600",
    b"", b"\x00\xff", [], [1, 2.0, True, None, "x", [2**64 - 1]], [1e22, -0.0, math.nan, 1e-7, 0.5],
    {}, {"a": 1, "b": {"c": [math.inf]}}, {"$float": "x"}, {"$a": 1, 2: b"\x00"}, {"a\x00": 1},
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), msgspec.msgpack.Ext(5, b"ext"),
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Equal, of the same type, the sign of zero and NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def test_every_value_comes_back_exact(target: Target, writer: Writer, reader: Reader, history: Read) -> None:
    feed = Feed()
    rows = [(1, number, value) for number, value in enumerate(EXACT)]
    applied = writer.apply([feed.birth(signal(1, "mixed")), feed.rows(*rows)])
    assert applied.rows == len(EXACT)
    assert not applied.dead_letters
    for _ in range(2):
        stored = history()
        assert [row.ts for row in stored] == [T0 + number * SECOND for number in range(len(EXACT))]
        wrong = [(value, row.value) for value, row in zip(EXACT, stored, strict=True) if not same(value, row.value)]
        assert not wrong
        writer.maintain(everything=True)  # SQLite: the same once more from the table
    committed = [row.value for row in applied.committed.rows]
    assert all(map(same, committed, EXACT))
    assert same(reader.snapshot().rows[0].value, EXACT[-1])


def test_whole_columns_of_one_type(writer: Writer, history: Read) -> None:
    """The short ways for batches of one type give the same as the long one."""
    feed = Feed()
    columns: list[list[Any]] = [
        [1.5, 2.5],
        [1, 2],
        [True, False],
        ["a", "b"],
        [1.0, math.nan],
        [1e308, 1e308],
        [2**53, 2**60],
    ]
    writer.apply(
        [feed.birth(signal(1, "mixed"))]
        + [
            feed.rows(*((1, 10 * at + row, value) for row, value in enumerate(column)))
            for at, column in enumerate(columns)
        ]
    )
    stored = [row.value for row in history()]
    assert all(map(same, stored, [value for column in columns for value in column]))


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-5, 5), inner),
))  # fmt: skip
def test_form_in_json_is_exact(value: Any) -> None:
    form = values.from_json(msgspec.json.decode(values.dump(values.to_json(value))))
    assert same(form, value)


def test_status_flags_source_time_and_raw(writer: Writer, history: Read) -> None:
    feed = Feed()
    bad = 0x80050000
    flags = int(Flag.GATEWAY_TIME | Flag.RAW_KEPT)
    writer.apply(
        [
            feed.birth(signal(1, "t")),
            feed.rows(
                (1, 0, 1.5, 0x40000000, flags),
                (1, 1, None, bad),
                (1, 2, None, 0xFFFFFFFF, 511),
                (1, 3, 2**60),
                extra={0: Extra(T0 - 5, [32767, b"\x00"]), 1: Extra(None, 65535), 3: Extra(T0 + 9)},
            ),
        ]
    )
    assert history() == [
        Reading(1, T0, 0, 1.5, 0x40000000, flags, T0 - 5, [32767, b"\x00"]),
        Reading(1, T0 + SECOND, 0, None, bad, 0, None, 65535),
        Reading(1, T0 + 2 * SECOND, 0, None, 0xFFFFFFFF, 511),
        Reading(1, T0 + 3 * SECOND, 0, 2**60, 0, 0, T0 + 9),
    ]


def test_extreme_times(writer: Writer, history: Read) -> None:
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.step(Batch(0, [1, 1, 1], [first, -1, last], [1.0, 2.0, 3.0]))])
    assert [row.ts for row in history()] == [first, -1, last]


# ------------------------------------------------------------------------------------------------------------ rule 9


@pytest.fixture
def feed(writer: Writer) -> Feed:
    """A stream with two signals, and a reading of the first at T0: 20.0."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u")), feed.rows((1, 0, 20.0))])
    return feed


def values_at(rows: list[Reading], seconds: float = 0) -> list[tuple[int, Any]]:
    return [(row.n, row.value) for row in rows if row.ts == T0 + round(seconds * SECOND)]


@pytest.mark.parametrize("flags", [0, HISTORICAL, INITIAL])
def test_equal_to_the_last_is_a_duplicate(writer: Writer, feed: Feed, history: Read, flags: int) -> None:
    applied = writer.apply([feed.rows((1, 0, 20.0, 0, flags))])
    assert (applied.rows, applied.duplicates, applied.committed.rows) == (0, 1, [])
    assert values_at(history()) == [(0, 20.0)]


def test_another_value_takes_the_next_n(writer: Writer, feed: Feed, history: Read) -> None:
    applied = writer.apply([feed.rows((1, 0, 21.0)), feed.rows((1, 0, 22.0))])
    assert (applied.rows, applied.duplicates) == (2, 0)
    assert values_at(history()) == [(0, 20.0), (1, 21.0), (2, 22.0)]
    assert applied.committed.rows == [Row(1, T0, 1, 21.0), Row(1, T0, 2, 22.0)]


def test_another_status_takes_the_next_n(writer: Writer, feed: Feed, history: Read) -> None:
    assert writer.apply([feed.rows((1, 0, 20.0, 0x40000000))]).rows == 1
    assert [(row.n, row.status) for row in history()] == [(0, 0), (1, 0x40000000)]


def test_live_row_equal_to_an_older_n_is_stored(writer: Writer, feed: Feed, history: Read) -> None:
    writer.apply([feed.rows((1, 0, 21.0))])
    assert writer.apply([feed.rows((1, 0, 20.0))]).rows == 1
    assert values_at(history()) == [(0, 20.0), (1, 21.0), (2, 20.0)]


@pytest.mark.parametrize("flags", [HISTORICAL, INITIAL])
def test_historical_or_initial_row_equal_to_any_n_is_a_duplicate(
    writer: Writer, feed: Feed, history: Read, flags: int
) -> None:
    writer.apply([feed.rows((1, 0, 21.0))])
    assert writer.apply([feed.rows((1, 0, 20.0, 0, flags))]).duplicates == 1
    assert writer.apply([feed.rows((1, 0, 23.0, 0, flags))]).rows == 1
    assert values_at(history()) == [(0, 20.0), (1, 21.0), (2, 23.0)]


@pytest.mark.parametrize("flags", [HISTORICAL, INITIAL])
def test_historical_or_initial_row_that_repeats_the_one_before_it_is_a_duplicate(
    writer: Writer, feed: Feed, history: Read, flags: int
) -> None:
    """Its n is free, but n numbers readings that differ: what came live was read from the history once more."""
    assert writer.apply([feed.rows((1, 0, 20.0, 0, flags, 1))]).duplicates == 1
    assert writer.apply([feed.rows((1, 0, 21.0, 0, flags, 1))]).rows == 1
    assert values_at(history()) == [(0, 20.0), (1, 21.0)]


def test_numbered_rows_keep_their_n(writer: Writer, feed: Feed, history: Read) -> None:
    applied = writer.apply([feed.rows((1, 1, 1.0), (1, 1, 2.0, 0, 0, 1), (1, 1, 1.0, 0, 0, 2), (1, 2, 5.0))])
    assert (applied.rows, applied.duplicates, applied.late) == (4, 0, 0)
    assert values_at(history(), 1) == [(0, 1.0), (1, 2.0), (2, 1.0)]
    # the same again, by a new stream that counts anew
    again = writer.apply([feed.rows((1, 1, 1.0, 0, HISTORICAL), (1, 1, 2.0, 0, HISTORICAL, 1), (1, 1, 9.0, 0, 0, 2))])
    assert (again.rows, again.duplicates, again.late) == (1, 2, 1)
    assert values_at(history(), 1) == [(0, 1.0), (1, 2.0), (2, 1.0), (3, 9.0)]


def test_conflicts_inside_of_one_transaction(writer: Writer, feed: Feed, history: Read) -> None:
    applied = writer.apply(
        [feed.rows((2, 5, "a")), feed.rows((2, 5, "a"), (2, 5, "b")), feed.rows((2, 5, "b"), (2, 6, "c"))]
    )
    assert (applied.rows, applied.duplicates, applied.late) == (3, 2, 0)
    assert [(row.n, row.value) for row in history(2)] == [(0, "a"), (1, "b"), (0, "c")]


@pytest.mark.parametrize("value", [math.nan, 2**64 - 1, [1, math.inf], {"a": 1, "b": 2.5}, "x\x00", -0.5, True, None])
def test_duplicates_of_every_kind_of_value(writer: Writer, feed: Feed, value: Any) -> None:
    status = 0x80000000 if value is None else 0
    assert writer.apply([feed.rows((2, 0, value, status))]).rows == 1
    assert writer.apply([feed.rows((2, 0, value, status))]).duplicates == 1
    writer.maintain(everything=True)
    assert writer.apply([feed.rows((2, 0, value, status))]).duplicates == 1
    assert writer.apply([feed.rows((2, 0, "another", status))]).rows == 1


def test_no_n_is_left(writer: Writer, feed: Feed, reader: Reader) -> None:
    assert writer.apply([feed.rows((2, 0, 1.0, 0, 0, 32767))]).rows == 1
    applied = writer.apply([feed.rows((2, 0, 2.0, 0, 0, 32767))])
    assert (applied.rows, applied.dead_letters) == (0, 1)
    assert "n" in reader.dead_letters()[0].reason
    assert reader.gaps(signal=2)[0].cause == "undecodable"


# -------------------------------------------------------------------------------------------------------------- late


def test_late_rows_are_stored_in_their_place_and_flagged(writer: Writer, feed: Feed, history: Read) -> None:
    writer.apply([feed.rows((1, 10, 30.0), (2, 10, 1.0))])
    applied = writer.apply([feed.rows((1, 5, 25.0, 0, HISTORICAL), (1, 11, 31.0), (2, 11, 2.0))])
    assert (applied.rows, applied.late, applied.duplicates) == (3, 1, 0)
    assert [(row.ts - T0, row.value, row.flags) for row in history()] == [
        (0, 20.0, 0),
        (5 * SECOND, 25.0, LATE | HISTORICAL),
        (10 * SECOND, 30.0, 0),
        (11 * SECOND, 31.0, 0),
    ]


def test_many_late_rows_among_many_new_ones(writer: Writer, feed: Feed, history: Read) -> None:
    writer.apply([feed.rows((1, 1000, 0.0))])
    rows = [(1 + number % 2, 1001 + number, float(number)) for number in range(400)]
    late = [(1, 100 + number / 2, float(number), 0, HISTORICAL) for number in range(300)]
    applied = writer.apply([feed.rows(*late[:150], *rows[:200]), feed.rows(*rows[200:], *late[150:])])
    assert (applied.rows, applied.late, applied.dead_letters) == (700, 300, 0)
    assert len(history()) == 2 + 200 + 300
    assert [row.value for row in history(2)] == [float(number) for number in range(1, 400, 2)]
    again = writer.apply([feed.rows(*late)])
    assert (again.rows, again.duplicates) == (0, 300)


def test_the_newest_row_is_known_after_a_restart(target: Target, writer: Writer, feed: Feed) -> None:
    writer.apply([feed.rows((1, 10, 30.0), (1, 10, 31.0, 0, 0, 1))])
    writer.close()
    other = target.writer()
    applied = other.apply(
        [feed.rows((1, 10, 31.0, 0, 0, 1)), feed.rows((1, 9, 1.0)), feed.rows((1, 10, 32.0, 0, 0, 2))]
    )
    assert (applied.rows, applied.late, applied.duplicates) == (2, 1, 1)


# ------------------------------------------------------------------------------------------------- what is no reading


def test_a_reading_of_an_unknown_point_is_a_dead_letter(
    writer: Writer, feed: Feed, reader: Reader, history: Read
) -> None:
    applied = writer.apply([feed.rows((1, 1, 1.0), (77, 1, "lost", 0, 0, 1), (77, 2, 5), (2, 1, 2.0))])
    assert (applied.rows, applied.dead_letters) == (2, 2)
    (letter,) = reader.dead_letters()
    assert (letter.stream, letter.seq, letter.count) == ("s1", 3, 2)
    assert "point 77" in letter.reason
    batch = msgspec.msgpack.decode(letter.raw, type=Batch)
    assert (batch.points, batch.values, batch.n) == ([77, 77], ["lost", 5], [1, 0])
    assert len(history(1, 2)) == 3


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (Batch(T0, [1, 2], [0, 0], [1.0]), "1 values for 2 points"),
        (Batch(T0, [1], [0], [1.0], status=[0, 0]), "2 status for 1 points"),
        (Batch(T0, [1], [0], [1.0], extra={3: Extra()}), "extra"),
        (Batch(2**62, [1], [2**62], [1.0]), "ts"),
        (Batch(T0, [1], [9], [1.0], n=[40_000]), "n 40000"),
        (Batch(T0, [1], [9], [1.0], status=[2**32]), "status"),
    ],
)  # fmt: skip
def test_impossible_rows_are_dead_letters(
    writer: Writer, feed: Feed, reader: Reader, batch: Batch, reason: str
) -> None:
    applied = writer.apply([feed.step(batch), feed.rows((1, 20, 5.0))])
    assert applied.rows == 1
    (letter,) = reader.dead_letters()
    assert reason in letter.reason
    assert msgspec.msgpack.decode(letter.raw, type=Batch) == batch
    assert applied.problems


def test_an_empty_batch_is_fine(writer: Writer, feed: Feed) -> None:
    assert writer.apply([feed.step(Batch(T0, [], [], []))]).rows == 0
