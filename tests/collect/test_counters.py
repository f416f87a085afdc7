"""Counters: what a rule explains is silent, everything else is an event."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.collect.counters import CounterWatch
from gateway.collect.items import Readings
from schemas.wire import Flag
from tests.collect.plans import INDEX, planned

SECOND = 1_000_000


def events(
    counter: dict[str, Any], values: list[Any], *, scale: float = 1.0, flags: int = 0, every: float = 1.0
) -> list[str]:
    device = planned(
        [
            {"type": "uint32", "kind": "counter", "scale": scale, "counter": {"counts": "cycle", **counter}},
            {"type": "float64"},
        ]
    )
    watch = CounterWatch(device, lambda: "id")
    found = []
    for row, value in enumerate(values):
        ts = round((row + 1) * every * SECOND)
        found += watch.check(
            Readings(
                "d", "default", ts, [INDEX, INDEX + 1], [ts, ts], [value, -value if value else 0.0], flags=[flags, 0]
            )
        )
    return [event.type for event in found]


@pytest.mark.parametrize(
    ("counter", "values", "expected"),
    [
        ({}, [1, 2, 2, 5], []),
        ({}, [5, 4], ["counter_decreased"]),
        ({}, [5, 0, 1], ["counter_decreased"]),
        ({"resets_on": ["job"]}, [500, 0, 1], []),
        ({"resets_on": ["job"]}, [500, 3], []),
        ({"resets_on": ["job"]}, [500, 480], ["counter_decreased"]),
        ({"may_decrease": True}, [500, 480], []),
        ({"modulus": 65536}, [65530, 4], []),
        ({"modulus": 65536, "max_rate": 20}, [65530, 4], []),
        ({"modulus": 65536, "max_rate": 2}, [65530, 4], ["counter_decreased"]),
        ({"modulus": 65536}, [40000, 39000], ["counter_decreased"]),
        ({"max_rate": 10}, [0, 10, 20], []),
        ({"max_rate": 10}, [0, 1000], ["counter_jumped"]),
        ({}, [5, None, 6], []),
        ({}, [5, float("nan"), 4], ["counter_decreased"]),
    ],
)
def test_rules(counter: dict[str, Any], values: list[Any], expected: list[str]) -> None:
    assert events(counter, values) == expected


def test_a_scaled_counter_rolls_over_at_its_scaled_modulus() -> None:
    assert events({"modulus": 65536}, [655.30, 0.04], scale=0.01) == []
    assert events({"modulus": 65536}, [400.0, 390.0], scale=0.01) == ["counter_decreased"]


def test_history_that_comes_late_says_nothing() -> None:
    assert events({}, [9, 3], flags=Flag.HISTORICAL) == []


def test_the_event_says_what_happened_in_both_languages() -> None:
    device = planned([{"name": "parts/good", "type": "uint32", "kind": "counter", "counter": {"counts": "good part"}}])
    watch = CounterWatch(device, lambda: "id")
    assert watch.check(Readings("d", "default", 0, [INDEX], [1], [100])) == []
    (event,) = watch.check(Readings("d", "default", 0, [INDEX], [2], [90]))
    assert (event.ts, event.device, event.type) == (2, "d", "counter_decreased")
    assert "parts/good" in event.message_en
    assert "计数减少" in event.message_zh
    assert event.fields == {"signal": "parts/good", "before": 100, "before_ts": 1, "after": 90}
