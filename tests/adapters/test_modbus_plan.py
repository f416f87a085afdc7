"""The read planner against a brute-force model, and the search for defects against devices that have some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.modbus._isolate import ILLEGAL_ADDRESS, ILLEGAL_VALUE, BadSpan, Cut, Defect, Limit, isolate
from adapters.modbus._plan import Read, Value, plan, together
from schemas.modbus import ModbusRules

Spans = list[tuple[int, int]]

spans_strategy = st.lists(st.tuples(st.integers(0, 24), st.integers(1, 5)), min_size=0, max_size=7)
holes_strategy = st.lists(st.tuples(st.integers(0, 26), st.integers(0, 3)), max_size=3).map(
    lambda pairs: [(first, first + more) for first, more in pairs]
)


def numbered(spans: Spans) -> list[Value]:
    return [Value(start, size, point) for point, (start, size) in enumerate(spans)]


def touches(start: int, size: int, hole: tuple[int, int]) -> bool:
    return start <= hole[1] and hole[0] < start + size


def permitted(
    group: Sequence[Value], limit: int, max_gap: int, holes: Sequence[tuple[int, int]], cuts: Sequence[int]
) -> bool:
    """Whether one request may read exactly the span of this group: the rules, written down once more and plainly."""
    start, end = min(v.start for v in group), max(v.end for v in group)
    wanted = {address for v in group for address in range(v.start, v.end)}
    gap = 0
    for address in range(start, end):
        gap = 0 if address in wanted else gap + 1
        if gap > max_gap:
            return False
    return (
        end - start <= limit
        and not any(touches(start, end - start, hole) for hole in holes)
        and not any(start < cut <= v.start for cut in cuts for v in group)
    )


def fewest(
    values: Sequence[Value], limit: int, max_gap: int, holes: Sequence[tuple[int, int]], cuts: Sequence[int]
) -> int:
    """The least number of permitted requests that read all values: every partition is tried."""
    if not values:
        return 0
    first, rest = values[0], values[1:]
    best = len(values)
    for chosen in range(1 << len(rest)):
        group = [first, *(v for i, v in enumerate(rest) if chosen >> i & 1)]
        if permitted(group, limit, max_gap, holes, cuts):
            left = [v for i, v in enumerate(rest) if not chosen >> i & 1]
            best = min(best, 1 + fewest(left, limit, max_gap, holes, cuts))
    return best


@given(spans_strategy, st.integers(1, 12), st.integers(0, 6), holes_strategy, st.lists(st.integers(1, 28), max_size=2))
def test_plan_is_permitted_complete_and_the_shortest(
    spans: Spans, limit: int, max_gap: int, holes: list[tuple[int, int]], cuts: list[int]
) -> None:
    values = numbered(spans)
    reads, problems = plan(values, limit=limit, max_gap=max_gap, holes=holes, cuts=cuts)
    unreadable = {v.point for v in values if v.size > limit or any(touches(v.start, v.size, hole) for hole in holes)}
    assert {problem.point for problem in problems} == unreadable
    readable = [v for v in values if v.point not in unreadable]
    assert sorted(v for read in reads for v in read.values) == sorted(readable)
    for read in reads:
        assert permitted(read.values, limit, max_gap, holes, cuts)
        assert (read.start, read.start + read.size) == (
            min(v.start for v in read.values),
            max(v.end for v in read.values),
        )
    assert [read.start for read in reads] == sorted(read.start for read in reads)
    assert len(reads) == fewest(readable, limit, max_gap, holes, cuts) <= len(readable)


@given(spans_strategy, st.integers(5, 12), st.integers(1, 4), st.randoms())
def test_plan_does_not_depend_on_the_order_and_a_learned_limit_splits_no_value(
    spans: Spans, limit: int, learned: int, random: Random
) -> None:
    values = numbered(spans)
    shuffled = list(values)
    random.shuffle(shuffled)
    reads, problems = plan(values, limit=limit, max_gap=3, learned=learned)
    assert plan(shuffled, limit=limit, max_gap=3, learned=learned) == (reads, problems)
    assert not problems
    assert sorted(v for read in reads for v in read.values) == sorted(values)
    assert len(reads) <= len(values)
    for read in reads:
        assert read.size <= learned or any(v.span == (read.start, read.size) for v in read.values)


@given(
    st.lists(spans_strategy.filter(bool), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 6),
    holes_strategy,
    st.lists(st.integers(1, 28), max_size=2),
    st.integers(1, 12),
)
def test_an_atomic_group_is_read_in_one_request_or_not_at_all(
    groups: list[Spans], limit: int, max_gap: int, holes: list[tuple[int, int]], cuts: list[int], learned: int
) -> None:
    values: list[Value] = []
    for group in groups:
        first = len(values)
        values += together([Value(start, size, first + at) for at, (start, size) in enumerate(group)])
    reads, problems = plan(values, limit=limit, max_gap=max_gap, holes=holes, cuts=cuts, learned=learned)
    unreadable = {problem.point for problem in problems}
    assert sorted([v.point for read in reads for v in read.values] + list(unreadable)) == list(range(len(values)))
    spans = {v.span for v in values if v.point not in unreadable}
    assert unreadable == {v.point for v in values if v.span[1] > limit or any(touches(*v.span, hole) for hole in holes)}
    for read in reads:
        assert read.size <= limit
        assert not any(touches(read.start, read.size, hole) for hole in holes)
        for v in read.values:
            assert read.start <= v.span[0]
            assert sum(v.span) <= read.start + read.size
    members: dict[tuple[int, int], set[int]] = {}
    for number, read in enumerate(reads):
        for v in read.values:
            members.setdefault(v.span, set()).add(number)
    assert all(len(numbers) == 1 for numbers in members.values())
    assert len(reads) <= len(spans)


def test_an_atomic_group_that_is_too_large_says_so() -> None:
    _, problems = plan(together([Value(0, 2, 0), Value(20, 2, 1)]), limit=8)
    assert [problem.point for problem in problems] == [0, 1]
    assert "22 registers" in problems[0].text
    assert "max_registers" in problems[0].text


def test_problems_name_place_and_remedy() -> None:
    _, problems = plan([Value(0x10, 9, 3), Value(0x30, 2, 4)], limit=8, holes=[(0x31, 0x3F)])
    texts = {problem.point: problem.text for problem in problems}
    assert "0x0010" in texts[3]
    assert "max_registers" in texts[3]
    assert "0x0031" in texts[4]
    assert "holes" in texts[4]


@pytest.mark.parametrize("hole", [(5, 2), (-1, 4), (10, 70000)])
def test_a_hole_that_is_no_range_is_a_mistake(hole: tuple[int, int]) -> None:
    """It would forbid nothing, and be read along."""
    with pytest.raises(ValidationError, match="is no range"):
        ModbusRules(holes=(hole,))


def test_the_map_of_a_meter_takes_three_reads() -> None:
    """SDM630: float32 at even addresses, 0x00 to 0x11, 0x34, 0x46 to 0x4B, 0x156; gaps of up to 16 are read along."""
    spans = [(a, 2) for a in (*range(0, 0x12, 2), 0x34, 0x46, 0x48, 0x4A, 0x156)]
    reads, _ = plan(numbered(spans), limit=80, max_gap=16)
    assert [(read.start, read.size) for read in reads] == [(0, 18), (0x34, 24), (0x156, 2)]


# -------------------------------------------------------------------------------------------------- the search for defects


@dataclass
class FussyDevice:
    """Refuses what touches a bad address, goes over a border, or is too large; like real ones, the whole of it."""

    bad: set[int] = field(default_factory=set)
    borders: set[int] = field(default_factory=set)
    limit: int = 125
    address_code: int = ILLEGAL_ADDRESS
    asked: int = 0

    def read(self, start: int, size: int) -> int:
        self.asked += 1
        if size > self.limit:
            return ILLEGAL_VALUE
        if self.bad & set(range(start, start + size)) or self.borders & set(range(start + 1, start + size)):
            return self.address_code
        return 0

    def search(self, spans: Spans) -> Defect | None:
        start, end = spans[0][0], max(first + size for first, size in spans)
        steps = isolate(spans, self.read(start, end - start))
        try:
            probe = next(steps)
            while True:
                probe = steps.send(self.read(*probe))
        except StopIteration as found:
            return found.value  # type: ignore[no-any-return]


def settle(device: FussyDevice, spans: Spans) -> tuple[list[Read], dict[tuple[int, int], int], int | None]:
    """Does what the schedule does: read, search, learn, plan anew, until the device refuses nothing any more."""
    left, cuts, learned, refused = set(spans), set[int](), None, dict[tuple[int, int], int]()
    for _ in range(400):
        reads, _ = plan(numbered(sorted(left)), limit=125, max_gap=16, cuts=sorted(cuts), learned=learned)
        failing = next((read for read in reads if device.read(read.start, read.size)), None)
        if failing is None:
            return reads, refused, learned
        defect = device.search(sorted({value.span for value in failing.values}))
        if isinstance(defect, BadSpan):
            left.discard(defect.span)
            refused[defect.span] = defect.code
        elif isinstance(defect, Cut):
            cuts.add(defect.address)
        elif isinstance(defect, Limit):
            learned = min(defect.size, learned or defect.size)
    raise AssertionError("the search does not come to an end")


@given(
    st.lists(st.tuples(st.integers(0, 120), st.sampled_from([1, 2, 4])), min_size=1, max_size=25, unique=True),
    st.sets(st.integers(0, 130), max_size=6),
    st.sets(st.integers(0, 130), max_size=3),
    st.sampled_from([4, 8, 40, 125]),
    st.sampled_from([ILLEGAL_ADDRESS, ILLEGAL_VALUE]),
)
def test_exactly_the_bad_values_are_found_whatever_else_is_wrong(
    spans: Spans, bad: set[int], borders: set[int], limit: int, address_code: int
) -> None:
    device = FussyDevice(bad, borders, limit, address_code)
    reads, refused, _ = settle(device, spans)
    unreadable = {span for span in spans if FussyDevice(bad, borders, limit).read(*span)}
    assert set(refused) == unreadable
    assert sorted(v.span for read in reads for v in read.values) == sorted(set(spans) - unreadable)


@given(st.integers(1, 59), st.integers(1, 40))
def test_the_largest_read_is_learned_exactly(limit: int, more: int) -> None:
    count = limit + more
    device = FussyDevice(limit=limit)
    reads, refused, learned = settle(device, [(address, 1) for address in range(count)])
    assert learned == limit
    assert not refused
    assert len(reads) == -(-count // limit)


def test_a_bad_address_among_many_costs_few_requests() -> None:
    device = FussyDevice(bad={77})
    assert device.search([(address, 1) for address in range(125)]) == BadSpan((77, 1), ILLEGAL_ADDRESS)
    assert device.asked <= 18


def test_a_hole_that_nobody_asked_for_becomes_a_border() -> None:
    device = FussyDevice(bad={9})
    assert device.search([(0, 2), (4, 2), (12, 2), (14, 2)]) == Cut(12)


def test_a_border_reported_as_illegal_value_is_not_taken_for_a_small_device() -> None:
    device = FussyDevice(borders={4}, address_code=ILLEGAL_VALUE)
    assert device.search([(address, 2) for address in range(0, 40, 2)]) == Cut(4)


def test_nothing_is_learned_from_a_refusal_that_has_passed() -> None:
    steps = isolate([(0, 1), (1, 1)], ILLEGAL_ADDRESS)
    assert next(steps) == (0, 1)
    assert steps.send(0) == (1, 1)
    assert steps.send(0) == (0, 2)
    with pytest.raises(StopIteration) as found:
        steps.send(0)
    assert found.value.value is None
