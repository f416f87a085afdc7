"""Courtesy topics: readings as JSON."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.client import Bus, BusOptions
from gateway.bus.topics import Topics
from gateway.collect.courtesy import Courtesy, json_value
from gateway.collect.items import Readings
from gateway.config.models import GatewaySettings
from gateway.config.plan import Plan, PlannedLink
from schemas import wire
from schemas.times import to_rfc3339
from tests.collect.plans import planned

T0 = 1_800_000_000_999_999


class OpenBus(Bus):
    """Always connected; keeps what is published."""

    def __init__(self) -> None:
        super().__init__(BusOptions())
        self.sent: list[tuple[str, bytes]] = []

    @property
    def connected(self) -> bool:
        return True

    def publish(self, topic: str, payload: bytes, **_options: Any) -> bool:
        self.sent.append((topic, payload))
        return True


def messages(item: Readings, signals: int = 8) -> list[tuple[str, bytes]]:
    """What is published of these readings of a device with so many signals."""
    device = planned([{"name": f"s{i}", "type": "float64", "unit": "Cel"} for i in range(signals)])
    device = replace(device, signals=tuple(replace(s, index=i) for i, s in enumerate(device.signals)))
    plan = Plan(GatewaySettings(id="gw"), (PlannedLink("link", "fake", None, None, (device,)),))
    bus = OpenBus()
    Courtesy(bus, Topics(), plan, enabled=True).readings(item)
    return bus.sent


def published(item: Readings) -> wire.Readings:
    ((topic, payload),) = messages(item)
    assert topic == "guantong/v1/readings/d"
    return msgspec.json.decode(payload, type=wire.Readings)


VALUES: list[Any] = [1, 1.5, True, None, "油温", math.nan, -math.inf, [1.0, math.nan], b"\x01", 2**60]


@pytest.mark.parametrize("column", ["status", "flags", "n"])
def test_a_missing_column_is_one_of_zeros(column: str) -> None:
    points, ts = [i % 8 for i in range(len(VALUES))], [T0 + i // 2 for i in range(len(VALUES))]
    without = Readings("d", "default", T0, points, ts, VALUES)
    zeros = replace(without)
    setattr(zeros, column, [0] * len(VALUES))
    readings = published(without).readings
    assert published(zeros).readings == readings
    assert [(r.signal, r.ts) for r in readings] == [(f"s{p}", to_rfc3339(t)) for p, t in zip(points, ts, strict=True)]
    assert [r.value for r in readings] == [json_value(value) for value in VALUES]


def test_a_reading_says_what_it_is() -> None:
    flags = wire.Flag.INITIAL | wire.Flag.RAW_KEPT
    item = Readings(
        "d", "default", T0, [1, 2], [T0, T0 + 1], [20.5, None], [0, 0x80050000], [0, flags], [0, 3],
        {1: wire.Extra(T0 - 5, "NaN?")},
    )  # fmt: skip
    good, bad = published(item).readings
    assert (good.signal, good.ts, good.value, good.unit) == ("s1", "2027-01-15T08:00:00.999999Z", 20.5, "Cel")
    assert (bad.ts, bad.value, bad.quality, bad.n) == ("2027-01-15T08:00:01.000000Z", None, "bad", 3)
    assert (bad.flags, bad.source_ts, bad.raw) == (["initial", "raw_kept"], "2027-01-15T08:00:00.999994Z", "NaN?")


def test_many_readings_are_split_into_messages_that_brokers_take() -> None:
    size = 5_000
    item = Readings("d", "default", T0, list(range(size)), [T0] * size, [float(i) for i in range(size)])
    sent = messages(item, size)
    assert all(len(payload) <= wire.MAX_MESSAGE for _, payload in sent)
    readings = [r for _, payload in sent for r in msgspec.json.decode(payload, type=wire.Readings).readings]
    assert [r.value for r in readings] == item.values


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_times_have_six_decimals_and_a_year_of_four_digits(when: dt.datetime) -> None:
    us = (when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    assert to_rfc3339(us) == when.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


@pytest.mark.parametrize("us", [-62_135_596_800_000_001, 253_402_300_800_000_000])
def test_no_time_outside_the_years_1_to_9999(us: int) -> None:
    with pytest.raises(OverflowError):
        to_rfc3339(us)
