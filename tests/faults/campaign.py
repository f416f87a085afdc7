"""The campaign: seeded runs, each a fault or a pair of them on an installation under load, and afterwards the truth.

Number and seed say everything about a run: which installation, which faults, for how long. Some runs follow each other on one installation; a
single one begins with a fresh one.
"""

from __future__ import annotations

import heapq
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.faults import Fault, process_and_line_faults
from tests.faults.oracle import Fell, Oracle, now_us
from tests.faults.others import other_faults
from tests.faults.rig import KINDS, Kind, Rig, Settings

ON_ONE_INSTALLATION = 8
"""Runs that follow each other on one."""
RECOVERED_WITHIN = 90.0
"""Seconds; a back-off is ten at most, a lease ten."""
FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*process_and_line_faults(), *other_faults())}


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is."""

    seed: int
    number: int
    kind: Kind
    faults: tuple[str, ...]

    @property
    def command(self) -> str:
        """What runs it again."""
        return f"make chaos SEED={self.seed} FIRST={self.number} RUNS=1"


@dataclass(slots=True)
class Result:
    """What came of one run. Times in seconds, memory in megabytes."""

    seed: int
    number: int
    kind: str
    faults: list[str]
    lasted: float = 0.0
    recovery: float = 0.0
    lost: int = 0
    twice: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    gap_seconds: float = 0.0
    compared: int = 0
    in_gaps: int = 0
    """Values and events that lie in them."""
    excused: bool = False
    """Whether some of the gaps are explained only by a machine that had no time."""
    memory: dict[str, float] = field(default_factory=dict)
    starved: bool = False
    stood: int = 0
    """How many of `wrong` are that the collector stood still by itself, on a starved machine."""
    wrong: list[str] = field(default_factory=list)
    command: str = ""
    version: str = ""
    at: str = ""

    @property
    def holds(self) -> bool:
        """Whether everything is as promised."""
        return not self.wrong

    def line(self) -> str:
        """One line for a person."""
        gaps = ", ".join(f"{cause} {count}" for cause, count in sorted(self.gaps.items())) or "none"
        memory = " ".join(f"{name} {value:.0f}" for name, value in self.memory.items())
        return (
            f"{'ok  ' if self.holds else 'FAIL'} {self.number:4} {self.kind:10} {' + '.join(self.faults)}: lasted {self.lasted:.1f} s, "
            f"recovered in {self.recovery:.1f} s, gaps: {gaps}; MB: {memory}{'; a busy machine' if self.starved else ''}{', needed as an excuse' if self.excused else ''}"
        )


def kind_of(seed: int, group: int) -> Kind:
    """On which installation the runs of a group happen."""
    first = Random(f"{seed}").randrange(len(KINDS))
    return KINDS[(first + group) % len(KINDS)]


def plans(seed: int, only: Kind | None = None) -> Iterator[Plan]:
    """The runs of a seed, for ever: each fault comes in its turn, alone in one run and with a second one in the next."""
    decks: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
    number = 0
    while True:
        kind = only or kind_of(seed, number // ON_ONE_INSTALLATION)
        possible = [name for name, fault in FAULTS.items() if kind in fault.kinds]
        for _ in range(ON_ONE_INSTALLATION):
            number += 1
            random = Random(f"{seed}/{number}")
            if not decks[kind]:
                decks[kind] = random.sample(possible, len(possible))
                decks[kind].sort(key=lambda name: -len(FAULTS[name].kinds))  # what can happen nowhere else comes first
            first = decks[kind].pop()
            chosen = [first]
            if number % 2 == 0:
                others = [
                    name for name in possible if name != "nothing" and not FAULTS[name].parts & FAULTS[first].parts
                ]
                chosen.append(random.choice(others))
            yield Plan(seed, number, kind, tuple(chosen))


def play(rig: Rig, plan: Plan) -> list[Fell]:
    """Let the faults fall, the second one up to two seconds after the first; returns when all is whole again, and tells when each of them fell."""
    times: dict[int, list[int]] = {}
    begun = time.monotonic()
    playing = []
    for place, name in enumerate(plan.faults):
        random = Random(f"{plan.seed}/{plan.number}/{place}")
        delay = random.uniform(0.0, 2.0) if place else 0.0
        playing.append((begun + delay, place, FAULTS[name].steps(rig, random)))
    steps = [generator for _, _, generator in playing]
    heapq.heapify(playing)
    try:
        while playing:
            due, place, generator = heapq.heappop(playing)
            time.sleep(max(0.0, due - time.monotonic()))  # the length of a fault, not a hope
            times.setdefault(place, [now_us()])
            wait = next(generator, None)
            times[place][1:] = [now_us()]
            if wait is not None:
                heapq.heappush(playing, (time.monotonic() + wait, place, generator))
    finally:
        for generator in steps:
            generator.close()  # type: ignore[attr-defined]
    return [Fell(FAULTS[name], *times[place]) for place, name in enumerate(plan.faults)]


def run(rig: Rig, oracle: Oracle, plan: Plan) -> Result:
    """One run on an installation that is whole."""
    result = Result(plan.seed, plan.number, plan.kind, list(plan.faults), command=plan.command)
    result.at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    begun = now_us()
    fell = play(rig, plan)
    healed = now_us()
    result.lasted = (healed - begun) / 1e6
    for part in rig.parts:
        if not rig.running(part):
            result.wrong.append(f"{part} has ended by itself")
            rig.start(part)
    try:
        rig.settle(healed, RECOVERED_WITHIN)
    except AssertionError as error:
        result.wrong.append(f"not recovered: {error}")
        return result
    settled = now_us()
    result.recovery = (settled - healed) / 1e6
    verdict = oracle.look(fell, settled)
    result.lost, result.twice, result.gaps = verdict.lost, verdict.twice, dict(verdict.gaps)
    result.starved, result.excused, result.stood = verdict.starved, verdict.excused, verdict.stood
    result.gap_seconds, result.compared, result.in_gaps = verdict.gap_seconds, verdict.compared, verdict.in_gaps
    result.memory, grown = oracle.memory()
    result.wrong += verdict.wrong + grown
    return result


def campaign(
    some: Sequence[Plan],
    tell: Callable[[Result], None],
    *,
    copies: int = 3,
    speed: float = 10.0,
    keep: Path | None = None,
) -> None:
    """Run these plans, in groups on one installation each; after a failure the next run gets a fresh one.

    `tell` hears of each result. What a failed installation leaves is kept in the folder `keep`.
    """
    rest = list(some)
    while rest:
        group = _group(rest)
        folder = Path(tempfile.mkdtemp(prefix="guantong-chaos-"))
        folder.chmod(0o755)  # the database runs as another user
        done, failed = 0, False
        settings = Settings(group[0].kind, group[0].seed * 1000 + group[0].number, copies, speed)
        try:
            with Rig(folder, settings) as rig:
                rig.settle(now_us(), RECOVERED_WITHIN)
                oracle = Oracle(rig)
                for plan in group:
                    result = run(rig, oracle, plan)
                    done += 1
                    if plan is group[-1] and result.holds:
                        result.wrong += oracle.ledger()
                    failed = not result.holds
                    if failed and keep is not None:
                        _keep(rig, folder, keep / f"run-{plan.seed}-{plan.number}", result)
                    tell(result)
                    if failed:
                        break
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rest = rest[done:]


def _group(some: Sequence[Plan]) -> list[Plan]:
    """The next plans of one installation."""
    first = some[0]
    last = (first.number - 1) // ON_ONE_INSTALLATION
    group = []
    for plan in some:
        if plan.kind != first.kind or (plan.number - 1) // ON_ONE_INSTALLATION != last:
            break
        group.append(plan)
    return group


def _keep(rig: Rig, folder: Path, to: Path, result: Result) -> None:
    """What is needed to understand a failure: logs, truth, outbox and SQLite store."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    (to / "result.txt").write_text("\n".join([result.line(), *result.wrong, result.command, ""]), encoding="utf-8")
    for log in folder.glob("*.log"):
        shutil.copy2(log, to)
    for part in ("collect", "ingest", "serve"):
        rig.roles[part].kill()
    shutil.copytree(folder / "truth", to / "truth")
    for data in (rig.collect_data, rig.store_data):
        for file in data.glob("*.sqlite*"):
            shutil.copy2(file, to)
    if rig.database is not None:
        (to / "database.log").write_text(rig.database.output(), encoding="utf-8")
