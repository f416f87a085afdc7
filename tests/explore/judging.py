"""Comparing proposals with the truth, register by register."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.explore.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Truth:
    """What lies at `address`: `width` registers of one value. Spare registers (always zero) have type `spare`."""

    table: str
    address: int
    type: str
    order: str = "ABCD"
    width: int = 1
    name: str = ""


@dataclass(slots=True)
class Score:
    """How many registers were named rightly, and what went wrong."""

    right: int = 0
    total: int = 0
    unsigned: int = 0
    """Registers of a signed number that was never below zero in the watch and was called unsigned: read alike, yet not counted as right."""
    wrong: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / self.total


def _alike(value: Truth, found: Proposal) -> bool:
    half = 1 << 16 * found.width - 1
    return (found.type, found.order) == (f"u{value.type}", value.order) and found.value < half


def judge(truth: Iterable[Truth], proposals: Sequence[Proposal]) -> Score:
    """A register is right when the value that covers it begins where the true one does and has its type and order.

    Strict: int16 for a true uint16 is wrong even where both read the same (those are counted in `unsigned` besides). A value that was zero in all
    of its registers at all looks is `spare` and not counted: nobody can tell what it is. Everything else counts, also what never moved.
    """
    covering = {
        (one.table, one.address + offset): one for one in proposals for offset in range(one.width)
    }  # fmt: skip
    score = Score()
    for value in truth:
        if value.type == "spare":
            continue
        for address in range(value.address, value.address + value.width):
            found = covering.get((value.table, address))
            score.total += 1
            begins = found is not None and found.address == value.address
            if found is not None and begins and (found.type, found.order) == (value.type, value.order):
                score.right += 1
            else:
                if found is not None and begins and _alike(value, found):
                    score.unsigned += 1
                said = (
                    "nothing" if found is None else f"{found.type} {found.order} from {found.address} {found.reasons}"
                )
                score.wrong.append(
                    f"{address} {value.name}: is {value.type} {value.order} from {value.address}, said {said}"
                )
    return score
