"""The search of ranges: what it finds, in how many reads, whatever the device's ways to refuse."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.explore.search import Found, Reply, places, search


def run(
    readable: set[int], *, most: int = 125, pairs: bool = False, starts: list[int] | None = None, bits: bool = False
) -> tuple[Found, int]:
    """The search against a device that holds these registers; how many reads it took."""
    found = Found(bits)
    steps = search(found, places(0, 65535, 4096) if starts is None else starts)
    reads = 0
    try:
        start, size = next(steps)
        while True:
            reads += 1
            assert 1 <= size <= (2000 if bits else 125)
            assert start >= 0
            assert start + size <= 65536
            if size > most:
                reply = Reply.TOO_LONG
            elif (pairs and (start | size) & 1) or not readable.issuperset(range(start, start + size)):
                reply = Reply.NO
            else:
                reply = Reply.YES
            start, size = steps.send(reply)
    except StopIteration:
        return found, reads


def test_a_block_its_holes_and_its_neighbours() -> None:
    readable = set(range(300)) - {44, 45, 100} | set(range(330, 340)) | set(range(4096, 4100))
    found, reads = run(readable)
    assert found.ranges == [(0, 44), (46, 54), (101, 199), (330, 10), (4096, 4)]
    assert reads < 250


def test_a_small_block_in_a_wide_hole_is_not_passed_by() -> None:
    found, _ = run({*range(4), *range(30, 34), *range(40, 54)}, starts=[0])
    assert found.ranges == [(0, 4), (30, 4), (40, 14)]


def test_a_seed_in_the_middle_grows_both_ways() -> None:
    found, _ = run(set(range(4000, 4200)), starts=[4096])
    assert found.ranges == [(4000, 200)]


def test_a_device_with_short_reads() -> None:
    found, _ = run(set(range(0x1000, 0x1033)), most=8)
    assert found.ranges == [(0x1000, 0x33)]
    assert found.longest == 8


def test_a_device_that_gives_pairs_only() -> None:
    found, _ = run(set(range(80)), pairs=True)
    assert found.pairs
    assert found.ranges == [(0, 80)]


def test_bits() -> None:
    found, _ = run(set(range(0x800, 0x815)), bits=True, starts=[0x800])
    assert found.ranges == [(0x800, 0x15)]


def test_an_absent_table_costs_one_read() -> None:
    found = Found(False)
    steps = search(found, places(0, 65535, 256))
    next(steps)
    try:
        steps.send(Reply.NEVER)
    except StopIteration:
        pass
    else:
        raise AssertionError("it asked again")
    assert found.absent


def test_a_silent_unit_is_left_alone() -> None:
    found = Found(False)
    steps = search(found, places(0, 65535, 256))
    next(steps)
    asked = 1
    try:
        while True:
            steps.send(Reply.LOST)
            asked += 1
    except StopIteration:
        pass
    assert found.silent
    assert asked <= 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 150)), max_size=5), st.sampled_from([125, 64, 10]))
def test_it_never_says_of_a_hole_that_it_can_be_read(blocks: list[tuple[int, int]], most: int) -> None:
    readable = {address for start, size in blocks for address in range(start, start + size)}
    found, _ = run(readable, most=most, starts=list(range(0, 700, 16)))
    told = {address for start, size in found.ranges for address in range(start, start + size)}
    assert told <= readable
    assert {address for address in range(0, 700, 16) if address in readable} <= told
