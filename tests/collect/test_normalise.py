"""The normaliser: what of a device's samples is stored, with which value, time, status and number."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.contract import Samples
from gateway.collect._signal_rules import MAX_VALUE, same
from gateway.collect.clock import AHEAD
from gateway.collect.items import Readings
from gateway.collect.normalise import MAX_N, Normaliser
from gateway.config.models import ClockSettings
from schemas import status as codes
from schemas.wire import Extra, Flag
from tests.collect.plans import FIRST, INDEX, planned

T = 1_795_336_200_000_000
S = 1_000_000
NAN, INF = math.nan, math.inf


class Feeder:
    """Feeds one device sample by sample; one second passes each time unless told otherwise."""

    def __init__(self, *signals: dict[str, Any], clock: ClockSettings | None = None, slow: bool = False) -> None:
        self.normaliser = Normaliser(planned(signals, clock=clock), new_id=lambda: "id")
        self.now = T
        if slow:
            self.normaliser._quick = [()] * len(signals)

    def poll(self, *values: Any, status: list[int] | None = None, flags: list[int] | None = None) -> Readings | None:
        points = range(FIRST, FIRST + len(values))
        self.now += S
        return self.normaliser.feed(Samples("d", "default", self.now, points, values, None, status, flags))

    def notify(
        self, value: Any, source: int | None, *, status: int = 0, flags: int = 0, server: int | None = None, point: int = 0,
        after: int = S,
    ) -> Readings | None:  # fmt: skip
        self.now += after
        return self.normaliser.feed(
            Samples("d", "default", self.now, [FIRST + point], [value], [source], [status], [flags], server)
        )


def one(readings: Readings | None) -> tuple[Any, int]:
    """Value and status of the only row."""
    assert readings is not None
    assert len(readings) == 1
    return readings.values[0], readings.status[0] if readings.status else 0


# ---------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("signal", "raw", "value"),
    [
        ({"type": "uint16"}, 65535, 65535),
        ({"type": "uint64"}, 2**64 - 1, 2**64 - 1),
        ({"type": "int64"}, -(2**63), -(2**63)),
        ({"type": "float64"}, 2**60 + 1, 2**60 + 1),
        ({"type": "float32"}, struct.unpack("f", struct.pack("f", 0.1))[0], 0.10000000149011612),
        ({"type": "float32"}, NAN, NAN),
        ({"type": "float64"}, -INF, -INF),
        ({"type": "int16", "scale": 0.1}, 3, 0.3),
        ({"type": "int16", "scale": 0.1}, 253, 25.3),
        ({"type": "int16", "scale": 0.1, "offset": -40}, 1000, 60.0),
        ({"type": "int16", "scale": 2.5}, 3, 7.5),
        ({"type": "int16", "offset": 1}, 3, 4.0),
        ({"type": "int16", "scale": -1}, 3, -3.0),
        ({"type": "float32", "unit": "kW", "source_unit": "W"}, 1500.0, 1.5),
        ({"type": "float32", "unit": "Cel", "source_unit": "[degF]"}, 212.0, pytest.approx(100)),
        ({"type": "bool", "bit": 3}, 0b1000, True),
        ({"type": "bool", "bit": 3}, 0b0111, False),
        ({"type": "uint8", "bits": (4, 4)}, 0xA5, 0xA),
        ({"type": "float64", "bits": (0, 4), "scale": 0.5}, 0xA5, 2.5),
        ({"type": "bool"}, True, True),
        ({"type": "bool"}, 1, True),
        ({"type": "float64"}, True, 1),
        ({"type": "string"}, "注塑", "注塑"),
        ({"type": "bytes"}, b"\x00\xff", b"\x00\xff"),
        ({"type": "datetime"}, T, T),
        ({"type": "array"}, [1, [2.5, "x"]], [1, [2.5, "x"]]),
        ({"type": "object"}, {"a": None}, {"a": None}),
        ({"type": "uint8", "enum": {1: "on", 2: "off"}}, 2, 2),
    ],
)  # fmt: skip
def test_values(signal: dict[str, Any], raw: Any, value: Any) -> None:
    got, status = one(Feeder(signal).poll(raw))
    assert status == 0
    assert same(got, value) or got == value
    assert type(got) is type(value) or not isinstance(value, bool | int | float | str)


@pytest.mark.parametrize(
    ("signal", "raw"),
    [
        ({"type": "uint16"}, -1),
        ({"type": "uint16"}, 65536),
        ({"type": "uint16"}, 1.0),
        ({"type": "uint16"}, "1"),
        ({"type": "int64"}, 2**63),
        ({"type": "bool"}, 2),
        ({"type": "bool"}, 0.5),
        ({"type": "bool", "bit": 1}, 0.5),
        ({"type": "float64"}, "1.5"),
        ({"type": "float64"}, 10**400),
        ({"type": "string"}, 5),
        ({"type": "string"}, b"x"),
        ({"type": "array"}, "x"),
        ({"type": "datetime"}, True),
        ({"type": "object"}, {"a": 2**70}),
        ({"type": "object"}, {"a": object()}),
    ],
)
def test_a_value_of_another_type_is_bad_and_kept_as_raw(signal: dict[str, Any], raw: Any) -> None:
    readings = Feeder(signal).poll(raw)
    assert one(readings) == (None, codes.BAD_TYPE_MISMATCH)
    assert readings is not None
    assert readings.flags == [Flag.RAW_KEPT]
    assert readings.extra is not None
    kept = readings.extra[0].raw
    assert kept == raw or isinstance(kept, str)


def test_an_integer_too_large_for_the_wire_becomes_a_float() -> None:
    value, status = one(Feeder({"type": "float64"}).poll(2**70))
    assert (value, type(value), status) == (float(2**70), float, 0)


def test_a_bad_value_is_none_and_what_arrived_is_kept() -> None:
    readings = Feeder({"type": "int16"}).poll(-32766, status=[codes.BAD_SENSOR_FAILURE])
    assert one(readings) == (None, codes.BAD_SENSOR_FAILURE)
    assert readings is not None
    assert readings.extra == {0: Extra(None, -32766)}
    assert one(Feeder({"type": "int16"}).poll(None, status=[codes.BAD_TIMEOUT])) == (None, codes.BAD_TIMEOUT)
    assert one(Feeder({"type": "int16"}).poll(None)) == (None, codes.BAD_NO_VALUE)


def test_an_uncertain_value_stays() -> None:
    assert one(Feeder({"type": "int16"}).poll(5, status=[codes.UNCERTAIN])) == (5, codes.UNCERTAIN)


def test_outside_the_range_it_stays_and_is_uncertain() -> None:
    feeder = Feeder({"type": "int16", "scale": 0.1, "range": (0, 50)})
    readings = feeder.poll(501)
    assert one(readings) == (50.1, codes.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED)
    assert readings is not None
    assert readings.flags == [Flag.OUT_OF_RANGE]
    assert one(feeder.poll(500)) == (50.0, 0)
    assert one(feeder.poll(0)) == (0.0, 0)
    assert one(feeder.poll(-1))[1] == codes.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED
    assert one(feeder.poll(-2, status=[codes.UNCERTAIN_SENSOR_NOT_ACCURATE]))[1] == codes.UNCERTAIN_SENSOR_NOT_ACCURATE
    assert one(Feeder({"type": "float32", "range": (0, 1)}).poll(NAN))[1] == codes.UNCERTAIN_ENGINEERING_UNITS_EXCEEDED


def test_an_unknown_member_of_an_enumeration_is_uncertain() -> None:
    for members in ({0: "a", 1: "b", 2: "c"}, {1: "a", 7: "b"}):
        feeder = Feeder({"type": "uint8", "enum": members})
        assert one(feeder.poll(1)) == (1, 0)
        assert one(feeder.poll(9)) == (9, codes.UNCERTAIN)
        assert one(feeder.poll(1)) == (1, 0)


def test_a_value_too_large_for_a_message_is_refused_with_a_gap() -> None:
    feeder = Feeder({"type": "string"}, {"type": "int16"})
    assert one(feeder.poll("x" * (MAX_VALUE - 10))) == ("x" * (MAX_VALUE - 10), 0)
    for i in range(20):
        feeder.poll("x" * (MAX_VALUE + i))
    _, gaps = feeder.normaliser.take()
    assert [(g.points, g.start, g.end, g.cause, g.count) for g in gaps] == [
        ([INDEX], T + 2 * S, T + 2 * S, "dropped", 1)
    ]
    feeder.normaliser.tick(feeder.now)
    _, gaps = feeder.normaliser.take()
    assert [(g.start, g.end, g.count) for g in gaps] == [(T + 3 * S, T + 21 * S, 19)]
    feeder.poll("y" * MAX_VALUE)
    assert one(feeder.poll("short")) == ("short", 0)
    assert [(g.start, g.count) for g in feeder.normaliser.take()[1]] == [(T + 22 * S, 1)]
    feeder.poll("y" * MAX_VALUE)
    feeder.normaliser.flush()
    assert len(feeder.normaliser.take()[1]) == 1


def test_a_large_array_and_a_broken_text_cost_only_themselves() -> None:
    feeder = Feeder({"type": "array"}, {"type": "string"})
    readings = feeder.poll([0.1] * 10_000, "\udcb0")
    assert readings is not None
    assert readings.values == [None, None]
    assert readings.status == [codes.BAD_ENCODING_LIMITS_EXCEEDED, codes.BAD_DECODING_ERROR]


# -------------------------------------------------------------------------------------------------------- what is a change


@pytest.mark.parametrize(
    ("kind", "first", "second", "changed"),
    [
        ("float64", NAN, -NAN, False),
        ("float64", NAN, 1.0, True),
        ("float64", 1.0, NAN, True),
        ("float64", INF, INF, False),
        ("float64", INF, -INF, True),
        ("float64", 0.0, -0.0, False),
        ("float64", 5, 5.0, False),
        ("array", [1], [True], True),
        ("array", [NAN, 1], [NAN, 1], False),
        ("array", [1, 2], [1], True),
        ("object", {"a": [1]}, {"a": [1]}, False),
        ("object", {"a": 1}, {"b": 1}, True),
        ("string", "a", "a", False),
        ("bool", True, 1, False),
    ],
)
def test_change(kind: str, first: Any, second: Any, changed: bool) -> None:
    feeder = Feeder({"type": kind})
    assert feeder.poll(first) is not None
    assert (feeder.poll(second) is not None) is changed


def test_status_alone_is_a_change_and_bad_is_stored_on_transition_only() -> None:
    feeder = Feeder({"type": "int16"})
    bad, worse = codes.BAD_TIMEOUT, codes.BAD_SENSOR_FAILURE
    statuses = [0, bad, bad, worse, worse, 0, codes.UNCERTAIN, codes.UNCERTAIN, 0]
    stored = [one(r) if (r := feeder.poll(7, status=[s])) else None for s in statuses]
    assert stored == [(7, 0), (None, bad), None, (None, worse), None, (7, 0), (7, codes.UNCERTAIN), None, (7, 0)]


def test_a_deadband_counts_from_what_was_stored() -> None:
    for slow in (False, True):
        feeder = Feeder({"type": "float64", "deadband": {"absolute": 1}}, slow=slow)
        stored = [v for v in (10, 10.9, 9.1, 11, 11.5, 12, NAN, NAN, 12, INF, INF) if feeder.poll(v) is not None]
        assert str(stored) == str([10, 11, 12, NAN, 12, INF])


def test_a_deadband_in_percent_is_of_the_range() -> None:
    feeder = Feeder({"type": "float64", "range": (-50, 150), "deadband": {"percent": 1}})
    assert [v for v in (0, 1.9, 2, 3.9, 4.1) if feeder.poll(v) is not None] == [0, 2, 4.1]


def test_every_stores_every_one_but_what_is_sent_again() -> None:
    feeder = Feeder({"type": "int16", "store": "every"})
    assert [feeder.poll(5) is not None for _ in range(3)] == [True] * 3
    feeder = Feeder({"type": "int16", "store": "every"})
    assert feeder.notify(5, T) is not None
    assert feeder.notify(5, T, flags=Flag.INITIAL) is None
    assert feeder.notify(5, T + S) is not None


def test_after_the_longest_silence_a_polled_value_is_stored_again() -> None:
    feeder = Feeder({"type": "int16", "silence": 10}, {"type": "int16"})
    stored = [feeder.now for _ in range(25) if feeder.poll(5, 6) is not None]
    assert stored == [T + S, T + 11 * S, T + 21 * S]
    assert feeder.normaliser.tick(feeder.now + 3600 * S) == []


def test_after_the_longest_silence_the_newest_suppressed_sample_is_stored_with_its_own_time() -> None:
    feeder = Feeder({"type": "float64", "silence": 10, "deadband": {"absolute": 1}})
    feeder.notify(5.0, T)
    feeder.notify(5.1, T + 2 * S)
    feeder.notify(5.2, T + 3 * S)
    assert feeder.normaliser.tick(T + 10 * S) == []
    (readings,) = feeder.normaliser.tick(T + 11 * S)
    assert (readings.points, readings.ts, readings.values) == ([INDEX], [T + 3 * S], [5.2])
    assert feeder.normaliser.tick(T + 60 * S) == []
    # What is sent again after a subscribe is not a sample of its own.
    assert feeder.notify(5.2, T + 3 * S, flags=Flag.INITIAL) is None
    assert feeder.normaliser.tick(T + 120 * S) == []


def test_two_groups_are_kept_apart_when_the_silence_passes() -> None:
    signal = {"type": "float64", "silence": 1, "deadband": {"absolute": 1}}
    feeder = Feeder({**signal, "group": "a"}, {**signal, "group": "b"})
    for point in (0, 1):
        feeder.notify(5.0, T, point=point, after=0)
        feeder.notify(5.5, T + 1, point=point, after=0)
    assert [(r.group, r.points) for r in feeder.normaliser.tick(T + 2 * S)] == [("a", [INDEX]), ("b", [INDEX + 1])]


# ------------------------------------------------------------------------------------------------------ coming and going


def test_while_a_device_is_down_no_communication_is_not_stored_and_unchanged_values_are_good_again() -> None:
    feeder = Feeder({"type": "int16"})
    feeder.poll(7)
    feeder.normaliser.down()
    assert feeder.poll(None, status=[codes.BAD_NO_COMMUNICATION]) is None
    feeder.normaliser.up()
    assert feeder.poll(7) is None
    assert one(feeder.poll(None, status=[codes.BAD_NO_COMMUNICATION])) == (None, codes.BAD_NO_COMMUNICATION)


def test_the_last_value_sent_again_after_a_subscribe_is_unchanged() -> None:
    feeder = Feeder({"type": "int16"})
    assert feeder.notify(7, T - 3600 * S, flags=Flag.INITIAL) is not None
    feeder.normaliser.down()
    feeder.normaliser.up()
    assert feeder.notify(7, T - 3600 * S, flags=Flag.INITIAL) is None
    readings = feeder.notify(8, T + 2 * S, flags=Flag.INITIAL)
    assert readings is not None
    assert (readings.ts, readings.flags) == ([T + 2 * S], [Flag.INITIAL])


def test_what_was_there_before_an_interruption_is_not_stored_twice_when_it_comes_again() -> None:
    """Present values are read after a loss: the one that was stored last may still be it. With another time the same value is a new one."""
    feeder = Feeder({"type": "int16"})
    feeder.notify(7, T)
    feeder.normaliser.interrupted([FIRST])
    assert feeder.notify(7, T) is None
    assert feeder.notify(7, T, flags=Flag.HISTORICAL) is None
    again = feeder.notify(7, T + 5 * S)
    assert again is not None
    assert (again.ts, again.values, again.n) == ([T + 5 * S], [7], None)
    feeder.normaliser.interrupted([FIRST])
    other = feeder.notify(8, T + 5 * S)
    assert other is not None
    assert list(other.n or []) == [1], "another value of that time is another reading"


def test_history_has_a_deadband_of_its_own_and_moves_the_live_one_only_when_newer() -> None:
    feeder = Feeder({"type": "float64", "deadband": {"absolute": 1}})
    feeder.notify(10.0, T)
    feeder.normaliser.down()
    feeder.normaliser.up()
    feeder.notify(20.0, T + 100 * S, after=101 * S)
    history = [
        feeder.notify(v, T + i * S, flags=Flag.HISTORICAL, after=0) for i, v in ((1, 10.5), (2, 12.0), (3, 12.5))
    ]
    assert [r.values if r else None for r in history] == [None, [12.0], None]
    assert history[1] is not None
    assert history[1].flags == [Flag.HISTORICAL]
    assert feeder.notify(20.5, T + 102 * S) is None
    assert feeder.notify(30.0, T + 103 * S, flags=Flag.HISTORICAL) is not None
    assert feeder.notify(30.5, T + 104 * S) is None


# ------------------------------------------------------------------------------------------------------------------ times


def test_polled_values_have_the_time_of_the_answer() -> None:
    readings = Feeder({"type": "int16"}, {"type": "int16"}).poll(1, 2)
    assert readings is not None
    assert (readings.ts, readings.flags, readings.extra) == ([T + S, T + S], None, None)


def test_the_devices_time_is_taken_as_it_is() -> None:
    readings = Feeder({"type": "int16"}).notify(1, T - 86400 * S, server=T)
    assert readings is not None
    assert (readings.ts, readings.flags, readings.extra) == ([T - 86400 * S], None, None)


@pytest.mark.parametrize("source", [0, T + AHEAD + 2 * S, 946_684_799_999_999])
@pytest.mark.parametrize("flags", [0, Flag.INITIAL])
def test_times_that_cannot_be_are_replaced_and_kept(source: int, flags: int) -> None:
    readings = Feeder({"type": "int16"}).notify(1, source, flags=flags)
    assert readings is not None
    assert (readings.ts, readings.flags) == ([T + S], [flags | Flag.GATEWAY_TIME])
    assert readings.extra == {0: Extra(source)}


def test_without_a_source_time_the_servers_is_taken_else_the_gateways() -> None:
    feeder = Feeder({"type": "int16"})
    readings = feeder.notify(1, None, server=T + 500_000)
    assert readings is not None
    assert (readings.ts, readings.flags) == ([T + 500_000], [Flag.NO_SOURCE_TIME])
    readings = feeder.notify(2, None)
    assert readings is not None
    assert (readings.ts, readings.flags) == ([T + 2 * S], [Flag.NO_SOURCE_TIME])


def test_a_clock_that_is_off_gives_live_values_the_gateways_time_and_says_so_once() -> None:
    feeder = Feeder({"type": "int16"})
    ahead = 600 * S
    first = feeder.notify(1, T + ahead - 5, flags=Flag.INITIAL, server=T + S + ahead)
    live = feeder.notify(2, T + 2 * S + ahead - 5, server=T + 2 * S + ahead)
    past = feeder.notify(3, T + ahead - 9, flags=Flag.HISTORICAL, server=T + 3 * S + ahead)
    assert first is not None
    assert live is not None
    assert past is not None
    assert first.ts == [T + ahead - 5]
    assert (live.ts, live.flags, live.extra) == (
        [T + 2 * S],
        [Flag.GATEWAY_TIME],
        {0: Extra(T + 2 * S + ahead - 5)},
    )
    assert past.ts == [T + ahead - 9]
    (event,), _ = feeder.normaliser.take()
    assert (event.type, event.fields["clock"], event.fields["offset"]) == ("device_clock", "gateway", 600.0)
    assert "+600.0" in event.message_en
    assert "+600.0" in event.message_zh


def test_a_known_offset_is_subtracted_everywhere() -> None:
    feeder = Feeder({"type": "int16"}, clock=ClockSettings(offset=8 * 3600.0))
    hours = 8 * 3600 * S
    for value, flags in ((1, Flag.INITIAL), (2, 0), (3, Flag.HISTORICAL)):
        readings = feeder.notify(value, feeder.now + hours, flags=flags, server=feeder.now + S + hours)
        assert readings is not None
        assert readings.ts == [feeder.now - S]
        assert readings.extra == {0: Extra(feeder.now - S + hours)}
    assert feeder.normaliser.take()[0] == []


def test_a_frozen_clock() -> None:
    feeder = Feeder({"type": "int16"})
    stored = [feeder.notify(i, T, server=feeder.now) for i in range(6)]
    assert [r.ts[0] if r else None for r in stored[:4]] == [T] * 4
    assert [r.n for r in stored[:4] if r] == [None, [1], [2], [3]]
    assert [(r.ts, r.flags) for r in stored[4:] if r] == [
        ([T + 5 * S], [Flag.GATEWAY_TIME]),
        ([T + 6 * S], [Flag.GATEWAY_TIME]),
    ]
    for i in range(10, 14):
        last = feeder.notify(i, feeder.now, server=feeder.now)
    assert last is not None
    assert last.flags is None
    assert [event.fields["reason"] for event in feeder.normaliser.take()[0]] == ["frozen", "right"]


def test_an_unsynchronised_gateway_flags_what_it_stamps() -> None:
    feeder = Feeder({"type": "int16"})
    feeder.normaliser.unsynced = True
    for slow_status in (None, [codes.UNCERTAIN]):
        readings = feeder.poll(1, status=slow_status)
        assert readings is not None
        assert readings.flags == [Flag.UNSYNCED]
    own = feeder.notify(5, T)
    assert own is not None
    assert own.flags is None


# ---------------------------------------------------------------------------------------------------------------------- n


def test_different_readings_of_one_time_are_numbered() -> None:
    feeder = Feeder({"type": "int16"})
    rows = [feeder.notify(v, T, after=0) for v in (1, 2, 2, 3)] + [feeder.notify(4, T + 1, after=0)]
    assert [(r.n[0] if r.n else 0) if r else None for r in rows] == [0, 1, None, 2, 0]


def test_when_the_numbers_are_used_up_the_gateways_time_is_taken() -> None:
    feeder = Feeder({"type": "int16"})
    for i in range(MAX_N + 1):
        last = feeder.notify(i % 2, T, after=0)
    assert last is not None
    assert (last.ts, last.n) == ([T], [MAX_N])
    over = feeder.notify(2, T, after=5)
    assert over is not None
    assert (over.ts, over.n, over.flags) == ([T + 5], None, [Flag.GATEWAY_TIME])
    assert over.extra == {0: Extra(T)}


# --------------------------------------------------------------------------------------------------------------- contract


def test_points_of_another_device_and_ragged_columns_are_refused() -> None:
    normaliser = Normaliser(planned([{"type": "int16"}]))
    for points in ([FIRST - 1], [FIRST + 1], [0]):
        with pytest.raises(IndexError):
            normaliser.feed(Samples("d", "default", T, points, [1]))
    with pytest.raises(IndexError):
        normaliser.feed(Samples("d", "default", T, [FIRST], [1, 2]))
    assert normaliser.feed(Samples("d", "default", T, [], [], server_ts=T)) is None


def test_suppressed_values_are_counted() -> None:
    feeder = Feeder({"type": "int16"}, {"type": "int16"})
    for _ in range(5):
        feeder.poll(1, 2)
    assert feeder.normaliser.suppressed == 8


# ------------------------------------------------------------------------------------------------------------- properties

SIGNALS: list[dict[str, Any]] = [
    {"type": "int16"},
    {"type": "float64"},
    {"type": "int16", "scale": 0.1, "range": (-1, 1)},
    {"type": "float32", "deadband": {"absolute": 0.5}},
    {"type": "uint8", "enum": {2: "a", 3: "b"}},
    {"type": "bool"},
    {"type": "bool", "bit": 1},
    {"type": "float64", "store": "every"},
    {"type": "int16", "silence": 3},
    {"type": "string"},
]
# No two of them are equal and of different types: an answer that equals the one before is known to be unchanged at once.
raws = st.sampled_from([-3, -2, -1, 2, 3, 4, 5, 11, 0.25, 0.75, 1.5, NAN, INF, -INF, True, False, "", "a"])
statuses = st.sampled_from([0, 0, 0, 0, codes.UNCERTAIN, codes.BAD_TIMEOUT])
flag_sets = st.sampled_from([0, 0, 0, Flag.INITIAL.value, Flag.OVERFLOW.value, Flag.HISTORICAL.value])
rows_of_samples = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, len(SIGNALS) - 1), raws, statuses, flag_sets, st.integers(-2, 2)), min_size=1, max_size=6),
        st.booleans(),
        st.booleans(),
    ),
    max_size=25,
)  # fmt: skip


def samples_of(rows: list[tuple[int, Any, int, int, int]], now: int, stamped: bool, plain: bool) -> Samples:
    return Samples(
        "d",
        "default",
        now,
        [FIRST + row[0] for row in rows],
        [row[1] for row in rows],
        [now + row[4] * S for row in rows] if stamped else None,
        None if plain else [row[2] for row in rows],
        None if plain else [row[3] for row in rows],
    )


@settings(max_examples=300, deadline=None)
@given(rows_of_samples)
@example([([(1, -3, 0, 0, 0), (1, -2, 0, 0, 0)], False, True)] * 2)
def test_the_quick_way_gives_what_the_full_way_gives(steps: list[Any]) -> None:
    quick, full = Feeder(*SIGNALS), Feeder(*SIGNALS, slow=True)
    now = T
    for rows, stamped, plain in steps:
        now += S
        samples = samples_of(rows, now, stamped, plain)
        assert repr(quick.normaliser.feed(samples)) == repr(full.normaliser.feed(samples))
        assert repr(quick.normaliser.tick(now)) == repr(full.normaliser.tick(now))


@settings(max_examples=200, deadline=None)
@given(rows_of_samples)
def test_every_value_served_is_stored_or_unchanged_and_every_value_stored_was_served(steps: list[Any]) -> None:
    feeder = Feeder(*SIGNALS)
    last: dict[int, tuple[Any, int]] = {}
    now = T
    for rows, stamped, plain in steps:
        now += S
        for row in rows:  # one by one, so that a row can be compared with what it gave
            now += 1
            row = (*row[:3], row[3] & ~Flag.HISTORICAL, row[4])
            readings = feeder.normaliser.feed(samples_of([row], now, stamped, plain))
            rules = feeder.normaliser._rules[row[0]]
            status = 0 if plain else row[2]
            served = (None, status) if status & 0x80000000 else rules.full(row[1], status)[:2]
            if readings is not None:
                assert readings.points == [INDEX + row[0]]
                stored = (readings.values[0], readings.status[0] if readings.status else 0)
                assert same(list(stored), list(served))
                last[row[0]] = stored
                continue
            value, code = last[row[0]]
            assert code == served[1]
            assert same(value, served[0]) or abs(value - served[0]) < rules.deadband
