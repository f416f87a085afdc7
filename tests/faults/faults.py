"""The faults by name. Each is a generator: what it yields are the seconds until its next step, and when it has ended everything is whole again.

A fault says which causes of gaps it may leave. What is not behind the outbox leaves none: the broker, ingest, serve, the database and the lines
between them may be away for as long as they like, and nothing may be missing afterwards.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.faults.rig import KINDS, Kind, Rig

Steps = Iterator[float]
SHORTEST, LONGEST = 0.5, 3.0
"""Seconds for which most faults last."""
DEVICE = frozenset({"disconnected", "stale", "bad", "overrun"})
"""What a broken line to a device may leave, besides intervals without connection."""
COLLECT = frozenset({"collector_down"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: `causes` are the causes of the gaps that it may leave, `kinds` the installations on which it can happen.

    `intervals` says whether devices may be without connection meanwhile.
    """

    name: str
    steps: Callable[[Rig, Random], Steps]
    causes: frozenset[str] = NOTHING
    kinds: tuple[Kind, ...] = KINDS
    intervals: bool = False
    parts: frozenset[str] = NOTHING
    """What it has for itself: two faults of one part do not fall together."""


def _length(random: Random) -> float:
    return random.uniform(SHORTEST, LONGEST)


# ----------------------------------------------------------------------------------------------------------- processes


def killed(part: str, rig: Rig, random: Random) -> Steps:
    """kill -9, missed for a while, started again."""
    rig.kill(part)
    try:
        yield _length(random)
    finally:
        rig.start(part)


def killed_again_and_again(part: str, rig: Rig, random: Random) -> Steps:
    """kill -9 and started again at once, three times: also while it starts."""
    for _ in range(3):
        rig.kill(part)
        rig.start(part)
        yield random.uniform(0.1, 1.5)


def stopped(part: str, rig: Rig, random: Random) -> Steps:
    """SIGSTOP, and SIGCONT after a while: a machine that stands still, and knows nothing of it."""
    ids = rig.ids(part)
    rig.send(ids, signal.SIGSTOP)
    try:
        yield random.uniform(1.0, 5.0)
    finally:
        rig.send(ids, signal.SIGCONT)


def ended(part: str, rig: Rig, random: Random) -> Steps:
    """An orderly end (SIGTERM) and another start."""
    rig.expected_down.add(part)
    if part == "database":
        assert rig.database is not None
        rig.database.stop()
    elif rig.running(part):
        rig.roles[part].child.stop(10)
    try:
        yield _length(random)
    finally:
        rig.start(part)


# --------------------------------------------------------------------------------------------------------------- lines


def _names(where: str, rig: Rig) -> list[str]:
    if where == "devices":
        return list(rig.load.simulators)
    return [where] if where in rig.lines.ports else []


def cut(where: str, rig: Rig, random: Random) -> Steps:
    """All connections reset, three times."""
    for _ in range(3):
        rig.lines.cut(_names(where, rig))
        yield random.uniform(0.1, 1.0)


def refused(where: str, rig: Rig, random: Random) -> Steps:
    """Nobody listens there for a while."""
    rig.lines.refuse(_names(where, rig))
    rig.lines.cut(_names(where, rig))
    try:
        yield _length(random)
    finally:
        rig.lines.restore(_names(where, rig))


def half_open(where: str, rig: Rig, random: Random) -> Steps:
    """A pulled cable: nothing arrives, nothing is closed; what was on the way is gone when it is over."""
    rig.lines.half_open(_names(where, rig))
    try:
        yield random.uniform(1.0, 6.0)
    finally:
        rig.lines.cut(_names(where, rig))
        rig.lines.restore(_names(where, rig))


def stalls(where: str, rig: Rig, random: Random) -> Steps:
    """Stands still for 0.2 to 3 s, now and again; what was on the way arrives then."""
    for _ in range(random.randint(2, 4)):
        rig.lines.half_open(_names(where, rig))
        try:
            yield random.uniform(0.2, 3.0)
        finally:
            rig.lines.restore(_names(where, rig))
        yield random.uniform(0.1, 0.5)


def latency(where: str, rig: Rig, random: Random) -> Steps:
    """Everything takes two seconds in each direction."""
    rig.lines.delay(2.0, _names(where, rig))
    try:
        yield random.uniform(4.0, 7.0)
    finally:
        rig.lines.restore(_names(where, rig))


def slow_line(where: str, rig: Rig, random: Random) -> Steps:
    """9600 baud: 960 bytes a second. Of the devices only those that would fit such a line, which speak Modbus."""
    names = rig.load.serial() if where == "devices" else _names(where, rig)
    rig.lines.rate(960.0, names)
    try:
        yield random.uniform(3.0, 6.0)
    finally:
        rig.lines.restore(names)


LINE_FAULTS = {
    "cut": cut, "refused": refused, "half-open": half_open, "stalls": stalls, "2 s latency": latency, "9600 baud": slow_line,
}  # fmt: skip
LINE_NAMES = {
    "devices": "device - collect", "collect-broker": "collect - broker", "ingest-broker": "broker - ingest",
    "serve-broker": "broker - serve", "ingest-database": "ingest - database", "serve-database": "serve - database",
}  # fmt: skip


def _on_lines() -> Iterator[Fault]:
    for what, steps in LINE_FAULTS.items():
        for where, words in LINE_NAMES.items():
            device = where == "devices"
            kinds: tuple[Kind, ...] = ("postgresql",) if where.endswith("database") else KINDS
            yield Fault(
                f"{what}: {words}", partial(steps, where), DEVICE if device else NOTHING, kinds, device,
                parts=frozenset({where}),
            )  # fmt: skip


def _on_processes() -> Iterator[Fault]:
    for part in ("collect", "ingest", "serve", "broker", "database"):
        collect = part == "collect"
        kinds: tuple[Kind, ...] = ("postgresql",) if part == "database" else KINDS
        causes = COLLECT if collect else NOTHING
        for words, steps in (
            ("kill -9", killed), ("kill -9 three times", killed_again_and_again), ("SIGSTOP", stopped),
        ):  # fmt: skip
            yield Fault(f"{words}: {part}", partial(steps, part), causes, kinds, collect, parts=frozenset({part}))
        if part != "broker":
            yield Fault(f"restarted: {part}", partial(ended, part), causes, kinds, collect, parts=frozenset({part}))


def nothing(rig: Rig, random: Random) -> Steps:
    """No fault at all: what the figures of the others are to be compared with."""
    yield _length(random)


def process_and_line_faults() -> Iterator[Fault]:
    """Those of this module."""
    yield Fault("nothing", nothing)
    yield from _on_processes()
    yield from _on_lines()
