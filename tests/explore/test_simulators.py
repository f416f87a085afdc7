"""The maps of the simulated workshop, on which the rules were tuned: what they find there must not get worse."""

from __future__ import annotations

from typing import Literal

import pytest

from gateway.explore.proposal import explain
from gateway.explore.series import ORDERS, Order, Series, ordered
from simulators.modbus.map_entry import MapEntry, width
from simulators.modbus.meter import METER_MAP, Meter
from simulators.modbus.press import PRESS_MAP, PressModule
from simulators.modbus.temperature import TEMPERATURE_MAP, TemperatureController
from tests.explore.judging import Truth, judge


def watch(
    instrument: object, entries: tuple[MapEntry, ...], order: Order, looks: int = 60
) -> tuple[list[Series], list[Truth]]:
    """`looks` looks, a second apart, at all registers of unit 1; values of two registers are laid out in `order`."""
    memories: list[dict[tuple[str, int], int]] = []
    entries = tuple(one for one in entries if one.table in ("holding", "input") and one.bit is None)
    for _ in range(looks):
        instrument.advance(1.0)  # type: ignore[attr-defined]
        unit = next(iter(instrument.units.values()))  # type: ignore[attr-defined]
        memory: dict[tuple[str, int], int] = {}
        for entry in entries:
            words = [unit.word(entry.table, entry.address + offset) or 0 for offset in range(width(entry))]
            if len(words) > 1:
                words = ordered(ordered(words, entry.order), order)
            for offset, word in enumerate(words):
                memory[entry.table, entry.address + offset] = word
        memories.append(memory)
    ranges: list[Series] = []
    keys = sorted(memories[0])
    begin = 0
    for place in range(1, len(keys) + 1):
        if place == len(keys) or keys[place] != (keys[place - 1][0], keys[place - 1][1] + 1):
            part = keys[begin:place]
            table: Literal["holding", "input"] = "holding" if part[0][0] == "holding" else "input"
            rows = tuple(tuple(memory[key] for key in part) for memory in memories)
            ranges.append(Series(table, part[0][1], tuple(float(second) for second in range(looks)), rows))
            begin = place
    truth = []
    for entry in entries:
        size = width(entry)
        states = {tuple(memory[entry.table, entry.address + offset] for offset in range(size)) for memory in memories}
        dead = states == {(0,) * size}
        truth.append(
            Truth(
                entry.table,
                entry.address,
                "spare" if dead else entry.type,
                order if size > 1 else "ABCD",
                size,
                entry.name,
            )
        )
    return ranges, truth


@pytest.mark.parametrize("order", ORDERS)
def test_a_meter_of_floats_in_any_order(order: Order) -> None:
    ranges, truth = watch(Meter(3), METER_MAP, order)
    score = judge(truth, explain(ranges))
    assert score.share >= 0.9, score.wrong


def test_a_module_of_counters() -> None:
    ranges, truth = watch(PressModule(3), PRESS_MAP, "ABCD")
    score = judge(truth, explain(ranges))
    assert score.share >= 0.9, score.wrong


def test_a_controller_of_words_is_no_controller_of_pairs() -> None:
    # Positive settings are unsigned to whoever only looks; what may not happen is that words are glued together.
    ranges, _truth = watch(TemperatureController(3), TEMPERATURE_MAP, "ABCD")
    wide = [one for one in explain(ranges) if one.width > 1]
    assert wide == []
