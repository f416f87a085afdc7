"""What was read over time, and how registers become numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]
ORDERS: tuple[Order, ...] = ("ABCD", "CDAB", "BADC", "DCBA")
"""From the commonest to the rarest."""
CODES: dict[str, str] = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f",
    "int64": ">q", "uint64": ">Q", "float64": ">d",
}  # fmt: skip
WIDTHS: dict[str, int] = {name: struct.calcsize(code) // 2 for name, code in CODES.items()}


@dataclass(frozen=True, slots=True)
class Series:
    """One readable range, read again and again.

    `rows` holds for each of `times` (seconds, rising) the registers from wire address `start` on; all rows are equally long.
    """

    table: Literal["holding", "input"]
    start: int
    times: tuple[float, ...]
    rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.times) != len(self.rows) or not self.rows:
            raise ValueError(
                f"{len(self.times)} times and {len(self.rows)} rows: expected the same number, at least one"
            )
        if len({len(row) for row in self.rows}) != 1:
            raise ValueError("rows of different length")

    @property
    def size(self) -> int:
        """How many registers."""
        return len(self.rows[0])


def ordered(words: Sequence[int], order: Order) -> list[int]:
    """Words as on the wire into words most significant first."""
    result = list(reversed(words)) if order in ("CDAB", "DCBA") else list(words)
    if order in ("BADC", "DCBA"):
        result = [(word & 0xFF) << 8 | word >> 8 for word in result]
    return result


def number(words: Sequence[int], type_: str, order: Order) -> int | float:
    """The value of `words` as on the wire. `words` has as many items as `type_` takes registers."""
    value: int | float = struct.unpack(CODES[type_], struct.pack(f">{len(words)}H", *ordered(words, order)))[0]
    return value


def text(words: Sequence[int], order: Order) -> str:
    """The characters of `words` up to the padding; what is not ASCII shows as U+FFFD."""
    swapped = [(word & 0xFF) << 8 | word >> 8 for word in words] if order in ("BADC", "DCBA") else words
    data = b"".join(word.to_bytes(2, "big") for word in swapped)
    return data.rstrip(b"\0 ").decode("ascii", "replace")
