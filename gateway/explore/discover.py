"""Finding units, what they say they are, and what of them can be read: a few requests a second, and never more than agreed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.contract import TransientError
from adapters.modbus.identification import named, parsed
from adapters.modbus.probe import Answer, ForeignMasterError, Outcome, Prober
from gateway.explore.search import Found, Reply, places, search
from gateway.explore.watch import FUNCTIONS

_GATEWAY = frozenset({0x0A, 0x0B})
_FAILURES = frozenset({0x04, 0x06})
_REPLIES = {0x01: Reply.NEVER, 0x02: Reply.NO, 0x03: Reply.TOO_LONG}
_HANG_UPS = 3
_TELLING = (1, 2, 97, 201, 247)
"""Unit numbers that no line has all of: who answers to each of them does not look at the number."""


class CapError(Exception):
    """The agreed number of requests is used up."""


@dataclass(slots=True)
class UnitFound:
    """One unit that answers."""

    unit: int
    setting: str = ""
    """Of a serial line, such as `9600 8N1`."""
    identity: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Found] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What is known so far; complete at any moment."""

    units: list[UnitFound] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """How requests ended: data, silence, garbled, and exception_N."""
    any_unit: bool = False
    """The device answers whatever unit number is asked."""
    failing: list[int] = field(default_factory=list)
    """Units for which only exception 4 or 6 came: some servers say so of units that they do not have."""
    state: str = "running"
    """running, complete, cap, stopped."""

    def plain(self) -> dict[str, Any]:
        """As JSON wants it."""
        return {
            "state": self.state,
            "any_unit": self.any_unit,
            "failing": self.failing,
            "answers": dict(self.answers),
            "units": [
                {
                    "unit": one.unit,
                    "setting": one.setting,
                    "identity": one.identity,
                    "tables": {
                        name: {
                            "ranges": [{"first": start, "size": size} for start, size in found.ranges],
                            "longest": found.longest,
                            "absent": found.absent,
                            "silent": found.silent,
                            "pairs": found.pairs,
                        }
                        for name, found in one.tables.items()
                    },
                }
                for one in self.units
            ],
        }


class Explorer:
    """Searches through one prober; `most` requests altogether. `step` is called after each request with their number.

    Every method raises CapError when the number is used up, and TransientError when the place cannot be reached (any more).
    """

    def __init__(
        self,
        prober: Prober,
        report: Report,
        *,
        most: int,
        step: Callable[[int], None] = lambda sent: None,
        sent: int = 0,
    ) -> None:
        self._prober = prober
        self.report = report
        self._most = most
        self._step = step
        self.sent = sent
        self._hang_ups = 0

    async def _read(self, unit: int, function: int, address: int, count: int) -> Answer:
        self._count()
        try:
            answer = await self._prober.read(unit, function, address, count)
        except ForeignMasterError:
            raise
        except TransientError as error:
            # Some devices hang up on what they do not like. More than a few times is a device that cannot be searched.
            self._hang_ups += 1
            if error.reason != "closed" or self._hang_ups >= _HANG_UPS:
                raise
            answer = Answer(Outcome.SILENCE)
        else:
            self._hang_ups = 0
        return self._noted(answer)

    def _count(self) -> None:
        if self.sent >= self._most:
            raise CapError
        self.sent += 1
        self._step(self.sent)

    def _noted(self, answer: Answer) -> Answer:
        self.report.answers[f"exception_{answer.code}" if answer.code else str(answer.outcome)] += 1
        return answer

    async def units(self, wanted: Sequence[int], *, setting: str = "", tcp: bool) -> list[UnitFound]:
        """Which of the units answer; each is asked for one register. They are added to the report."""
        found: list[UnitFound] = []
        first: dict[int, Answer] = {}
        order = list(wanted)
        telling = tcp and set(_TELLING) <= set(order)
        if telling:
            order = [*_TELLING, *(unit for unit in order if unit not in _TELLING)]
        for place, unit in enumerate(order):
            answer = await self._read(unit, 3, 0, 1)
            if answer.outcome is Outcome.EXCEPTION and answer.code in _FAILURES:
                answer = await self._read(unit, 4, 0, 1)
                if answer.outcome is Outcome.EXCEPTION and answer.code in _FAILURES:
                    self.report.failing.append(unit)
                    continue
            first[unit] = answer
            if answer.outcome is Outcome.DATA or (answer.outcome is Outcome.EXCEPTION and answer.code not in _GATEWAY):
                one = UnitFound(unit, setting)
                found.append(one)
                self.report.units.append(one)
            alike = len(found) == len(_TELLING) and len({(one.outcome, one.code) for one in first.values()}) == 1
            if telling and place == len(_TELLING) - 1 and alike:
                self.report.any_unit = True
                for extra in found[1:]:
                    self.report.units.remove(extra)
                return found[:1]
        return found

    async def identify(self, one: UnitFound) -> None:
        """Asks for vendor, product and revision (43/14); a unit that does not know the function says so, and that is all."""
        following = 0
        for _ in range(4):
            self._count()
            try:
                answer = self._noted(await self._prober.identify(one.unit, following))
            except TransientError as error:
                if error.reason != "closed":
                    raise
                return
            part = parsed(answer.data) if answer.outcome is Outcome.DATA else None
            if part is None:
                return
            one.identity |= named(part.objects)
            if part.more is None:
                return
            following = part.more

    async def ranges(self, one: UnitFound, tables: Sequence[str], *, first: int, last: int, step: int) -> None:
        """The readable ranges of these tables, into the report as they are found."""
        for table in tables:
            bits = table in ("coil", "discrete")
            found = one.tables[table] = Found(bits)
            steps = search(found, places(first, last, step), first=first, last=last)
            try:
                probe = next(steps)
                while True:
                    probe = steps.send(await self._reply(one.unit, FUNCTIONS[table], *probe))
            except StopIteration:
                continue

    async def _reply(self, unit: int, function: int, start: int, size: int) -> Reply:
        answer = await self._read(unit, function, start, size)
        if answer.outcome is Outcome.DATA:
            return Reply.YES
        if answer.outcome is not Outcome.EXCEPTION or answer.code in _GATEWAY:
            return Reply.LOST
        return _REPLIES.get(answer.code, Reply.NO)
