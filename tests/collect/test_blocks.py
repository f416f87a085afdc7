"""Answers of a polled device that are looked at as a whole: they give what each value by itself gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.contract import Samples
from gateway.collect._blocks import FEW, Block
from gateway.collect.items import Readings
from gateway.collect.normalise import Normaliser
from schemas import status as codes
from schemas.wire import Flag
from tests.collect.plans import FIRST, INDEX, planned

T = 1_795_336_200_000_000
S = 1_000_000
NAN, INF = math.nan, math.inf

# As in `test_normalise`, no two raw values of a signal are equal and of different types: equal ones are known to be unchanged.
KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "word": ({"type": "uint16"}, [0, 1, 7, 65535, 65536, -1, 1.5]),
    "long": ({"type": "int64"}, [0, -(2**63), 2**63 - 1, 2**63]),
    "scaled": ({"type": "int16", "scale": 0.1}, [0, 1, -7, 300]),
    "float": ({"type": "float32"}, [0.0, -0.0, 1.5, NAN, INF, 1e30, 3]),
    "range": ({"type": "float32", "range": (-1, 1)}, [0.0, 0.5, 1.0, 1.5, NAN]),
    "deadband": ({"type": "float32", "deadband": {"absolute": 0.5}}, [0.0, 0.5, 0.3, 0.6, 1.2, -INF, NAN]),
    "percent": ({"type": "int16", "range": (0, 100), "deadband": {"percent": 5}}, [0, 3, 6, 50, 101]),
    "enum": ({"type": "uint8", "enum": {0: "off", 1: "on", 2: "trip"}}, [0, 1, 2, 3]),
    "bit": ({"type": "bool", "bit": 2}, [0, 4, 7, 3]),
    "bool": ({"type": "bool"}, [True, False]),
    "every": ({"type": "uint16", "store": "every"}, [0, 1]),
    "silence": ({"type": "uint16", "silence": 3}, [0, 1, 2]),
    "slack": ({"type": "float64", "silence": 2, "deadband": {"absolute": 1}}, [0.0, 0.5, 1.5, 9.0]),
    "counter": (
        {"type": "uint32", "kind": "counter", "counter": {"counts": "parts", "resets_on": ["power"], "max_rate": 100}},
        [0, 5, 50, 2_000_000, 4_000_000_000],
    ),
    "text": ({"type": "string"}, ["", "a", b"\xff"]),
}  # fmt: skip


def pair(kinds: list[str]) -> tuple[Normaliser, Normaliser]:
    """Two devices with the same signals, the second of which takes the long way for each value."""
    plan = planned([KINDS[kind][0] for kind in kinds])
    quick, slow = Normaliser(plan, new_id=lambda: "id"), Normaliser(plan, new_id=lambda: "id")
    slow._quick = [()] * len(kinds)
    return quick, slow


def fed(normaliser: Normaliser, now: int, values: Any, status: Any = None, flags: Any = None, skip: int = 0) -> Any:
    points = tuple(range(FIRST + skip, FIRST + skip + len(values)))
    return normaliser.feed(Samples("d", "default", now, points, values, None, status, flags))


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[str], list[Any]]:
    """A device with at least so many signals that its answers are taken as a whole, and what happens to it."""
    some = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4))
    filler = draw(st.sampled_from(list(KINDS)))
    kinds = some + [filler] * (FEW + draw(st.integers(1, 3)))
    good = [KINDS[kind][1] for kind in kinds]
    tame = draw(st.booleans())  # values of the short way only, so that whole answers take it
    choices = [st.sampled_from(values[:2] if tame else values) for values in good]
    steps: list[Any] = []
    for _ in range(draw(st.integers(1, 8))):
        what = draw(
            st.sampled_from(["answer"] * 6 + ["same", "few", "part", "status", "flags", "down", "lost", "back"])
        )
        steps.append((what, draw(st.tuples(*choices)), draw(st.integers(0, len(kinds) - 1)), draw(st.integers(0, 2))))
    return kinds, steps


def lived(normaliser: Normaliser, kinds: list[str], steps: list[Any]) -> list[Any]:
    """What comes of it."""
    now, values, found = T, (), []
    for number, (what, new, which, seconds) in enumerate(steps):
        now += -S if what == "back" else seconds * S + (number == 0)
        status = flags = None
        if what == "down":
            normaliser.down()
            bad = [codes.BAD_NO_COMMUNICATION] * len(kinds)
            found.append(fed(normaliser, now, (None,) * len(kinds), bad))
            normaliser.up()
        elif what == "lost":
            normaliser.interrupted([FIRST + which])
        if what == "few" and values:
            values = (*values[:which], new[which], *values[which + 1 :])
        elif what != "same" or not values:
            values = new
        if what == "status":
            status = [codes.BAD_SENSOR_FAILURE if row == which else 0 for row in range(len(kinds))]
        elif what == "flags":
            flags = [Flag.HISTORICAL.value if row <= which else 0 for row in range(len(kinds))]
        elif what == "lost":
            normaliser.unsynced = not normaliser.unsynced
        if what == "part":
            found.append(fed(normaliser, now, values[which:], skip=which))
        else:
            found.append(fed(normaliser, now, values, status, flags))
        found += [normaliser.tick(now), normaliser.take(), normaliser.suppressed]
    return found


@settings(max_examples=150, deadline=None)
@given(lives())
def test_whole_answers_give_what_each_value_by_itself_gives(life: tuple[list[str], list[Any]]) -> None:
    quick, slow = pair(life[0])
    assert repr(lived(quick, *life)) == repr(lived(slow, *life))


# --------------------------------------------------------------------------------------------- that they are taken as a whole


@pytest.mark.parametrize("kind", ["word", "scaled", "float", "range", "deadband", "enum", "bit", "bool", "every", "silence", "counter"])  # fmt: skip
def test_ordinary_answers_are_taken_as_a_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = pair([kind] * (FEW + 5))
    one, other = KINDS[kind][1][:2]
    for normaliser in (quick, slow):
        fed(normaliser, T, (one,) * (FEW + 5))
    if kind != "enum":  # its edges go the long way
        monkeypatch.setattr(quick, "_one_by_one", None)
    for number, value in enumerate((other, one, other), start=1):
        answer = (value,) * (FEW + 5)
        assert repr(fed(quick, T + number * S, answer)) == repr(fed(slow, T + number * S, answer))


def test_only_what_differs_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["word"] * 30 + ["text"]
    quick, _ = pair(kinds)
    looked: list[Any] = []
    before = quick._one_by_one

    def counting(samples: Any, points: Any, values: Any, differ: Any, rows: Any) -> Any:
        looked.append(len(points) if differ is None else differ.count(True))
        return before(samples, points, values, differ, rows)

    monkeypatch.setattr(quick, "_one_by_one", counting)
    for number, at in enumerate((0, 0, 5, 5)):
        fed(quick, T + number * S, (*range(at), *(9 for _ in range(30 - at)), "a"))
    assert looked == [31, 1, 6, 1]  # the text goes the long way each time


def test_a_row_that_raises_leaves_nothing_half_known(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, _ = pair(["word"] * 3)
    fed(quick, T, (1, 1, 1))
    convert = quick._convert

    def broken(_: Any) -> Any:
        raise ZeroDivisionError

    quick._convert = [None, broken, None]
    with pytest.raises(ZeroDivisionError):
        fed(quick, T + S, (2, 2, 2))
    quick._convert = convert
    readings: Readings | None = fed(quick, T + 2 * S, (1, 1, 1))
    assert readings is not None
    assert (readings.points, readings.values) == ([INDEX], [1])  # the first row had become 2


def test_columns_that_the_adapter_uses_again_are_not_taken_for_the_last_answer() -> None:
    quick, _ = pair(["word"] * 3)
    values, points = [1, 2, 3], [FIRST, FIRST + 1, FIRST + 2]
    stored = []
    for number in range(3):
        values[1] = 10 + number
        readings = quick.feed(Samples("d", "default", T + number * S, points, values))
        assert readings is not None
        stored.append(readings.values)
    assert stored == [[1, 10, 3], [11], [12]]


@pytest.mark.parametrize(
    ("kinds", "values", "within"),
    [
        (["word"], (65535,), True),
        (["word"], (65536,), False),
        (["word"], (-1,), False),
        (["long", "word"], (-(2**63), 5), True),
        (["long"], (2**63,), False),
        (["float"], (1e18,), True),
        (["float"], (-1e18,), True),
        (["float"], (1e30,), False),
        (["float", "float"], (0.0, NAN), False),
        (["float", "float"], (NAN, 0.0), False),
        (["float"], (INF,), False),
        (["float"], (2**70,), False),
        (["float"], (10**400,), False),
        (["range", "word"], (0.5, 5), True),
        (["range", "word"], (NAN, 5), False),
        (["range", "word"], (1.5, 5), False),
        (["enum"], (2,), True),
        (["enum"], (3,), False),
    ],
)  # fmt: skip
def test_bounds(kinds: list[str], values: tuple[Any, ...], within: bool) -> None:
    normaliser, _ = pair(kinds)
    points = tuple(range(FIRST, FIRST + len(kinds)))
    block = Block(points, FIRST, normaliser._rules, normaliser._quick, normaliser._index)
    assert block._within(values) is within
