"""Plain numbers decoded by precompiled layouts: the same columns as one by one, whatever stands beside them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.opcua import _decode
from adapters.opcua._binary import DecodingError
from adapters.opcua._decode import Decoder
from adapters.opcua._runs import DataChange

NUMBERS = {
    1: ("?", st.booleans()),
    2: ("b", st.integers(-(2**7), 2**7 - 1)),
    3: ("B", st.integers(0, 2**8 - 1)),
    4: ("h", st.integers(-(2**15), 2**15 - 1)),
    5: ("H", st.integers(0, 2**16 - 1)),
    6: ("i", st.integers(-(2**31), 2**31 - 1)),
    7: ("I", st.integers(0, 2**32 - 1)),
    8: ("q", st.integers(-(2**63), 2**63 - 1)),
    9: ("Q", st.integers(0, 2**64 - 1)),
    10: ("f", st.floats(width=32)),
    11: ("d", st.floats()),
    19: ("I", st.integers(0, 2**32 - 1)),
}
TICKS = st.sampled_from([0, -1, 133_000_000_000_000_000, 133_000_000_000_000_001, 133_000_000_000_000_010, 2**63 - 1])


@st.composite
def items(draw: st.DrawFn) -> bytes:
    """Some items of one layout: plain numbers, text, nothing at all, or with picoseconds."""
    kind = draw(st.sampled_from([*NUMBERS, 0, 12]))
    mask = draw(st.sampled_from([0x00, 0x01, 0x03, 0x05, 0x09, 0x0D, 0x0F, 0x1D, 0x3F]))
    encoded = b""
    for _ in range(draw(st.sampled_from([1, 2, 7, 8, 9, 40]))):
        encoded += struct.pack("<IB", draw(st.integers(0, 2**32 - 1)), mask)
        if mask & 0x01:
            encoded += bytes((kind,))
            if kind == 12:
                text = draw(st.sampled_from(["", "\r\r\r\r", "油温"])).encode()
                encoded += struct.pack("<i", len(text)) + text
            elif kind:
                code, values = NUMBERS[kind]
                encoded += struct.pack(f"<{code}", draw(values))
        if mask & 0x02:
            encoded += struct.pack("<I", draw(st.sampled_from([0, 0x40000000, 0x80050000])))
        for bit, form in ((0x04, "<q"), (0x10, "<H"), (0x08, "<q"), (0x20, "<H")):
            if mask & bit:
                encoded += struct.pack(form, 7 if form == "<H" else draw(TICKS))
    return encoded


def decoded(data: bytes, count: int, *, quick: bool) -> str:
    """The columns as text, in which NaN is NaN."""

    def one_by_one(_data: bytes, pos: int, left: int, _change: DataChange) -> tuple[int, int]:
        return pos, left

    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.setattr(_decode, "take", one_by_one)
        try:
            change = Decoder()._data_change(struct.pack("<i", count) + data, 0)
        except (struct.error, IndexError, DecodingError):  # the last for a string whose end is missing
            return "cut short"
    return repr((change.handles, change.values, change.status, change.source, change.server))


def count_of(data: bytes) -> int:
    """So many whole items are in `data`."""
    decoder, pos, count = Decoder(), 0, 0
    while pos < len(data):
        *_, pos = decoder._data_value(data, pos + 4)
        count += 1
    return count


@given(st.lists(items(), max_size=5))
def test_runs_are_what_they_are_one_by_one(parts: list[bytes]) -> None:
    data = b"".join(parts)
    count = count_of(data)
    quick = decoded(data, count, quick=True)
    assert quick == decoded(data, count, quick=False)
    assert quick != "cut short"


@given(st.lists(items(), min_size=1, max_size=3), st.data())
def test_what_is_cut_short_is_an_error_either_way(parts: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(parts)
    count = count_of(data)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]
    assert decoded(cut, count, quick=True) == decoded(cut, count, quick=False)


def test_no_more_items_than_are_told() -> None:
    """What follows in the message may look like one more."""
    item = struct.pack("<IBBdqq", 1, 0x0D, 11, 1.5, 133_000_000_000_000_000, 133_000_000_000_000_000)
    for count in (0, 1, 8, 19):
        change = Decoder()._data_change(struct.pack("<i", count) + item * 20, 0)
        assert (len(change.handles), len(change.server)) == (count, count)
