"""What must be true after a fault, and what was found to be otherwise.

A gap or an outage is explained by a fault of its run that may leave it, when it begins in the time of that very fault, also where a second one falls with
it, and ends soon after the last one. A machine that had no time explains some of the others, and the run is then marked as excused.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.ledger.verify import verify
from gateway.store.reader import Reader
from gateway.store.records import Connection, GapRecord
from gateway.store.witness import Witness
from schemas.times import from_rfc3339
from schemas.wire import Cause
from tests.chain.rest import latest_of, rest_value
from tests.chain.truth import compare, now_us, same
from tests.faults.clocks import Righted
from tests.faults.faults import DEVICE, Fault
from tests.faults.rig import GATEWAY, Rig
from tests.servers.waiting import eventually

EARLIER = 3_000_000
"""µs by which the gap of a polled device may begin before the fault: at its last answer, of which the period is a second at most, told by progress once a
second."""
KEEP_ALIVE = 3_000_000
"""µs more for what sends by itself (OPC UA): where nothing changes, only a keep-alive says that there was nothing, after up to three publishing intervals
of up to a second."""
RECONNECTED = 20_000_000
"""µs after the faults in which everything is connected again: a back-off of ten seconds at most, and twice that with the time-outs of a connect."""
SILENT, LATER = 15_000_000, 3_000_000
"""µs by which what only the busy machine explains may begin before the last look (a device that was silent then), and end after all was stored."""
EVENTS_TAKE = 2_000_000
"""µs after which an event has surely been asked for; younger ones are compared after the next run."""
MEMORY_SHARE, MEMORY_MORE = 1.25, 24.0
"""Memory is back where it was up to this factor and so many megabytes: what Python's allocator and a broker's log keep of a backlog."""
BUSY = frozenset({"overrun"})
"""What a machine that has other work to do causes by itself: a scan that was due before the last one was done is missed, and recorded as such."""
STARVED = 0.6
"""A machine is starved when something waited for a processor for this share of the time: then time-outs of devices are its doing, too. That the collector
was down is never its doing: of that the machine excuses only how long the start took which a fault made necessary."""
PRESSURE = Path("/proc/pressure/cpu")
LOST = frozenset({"served and not stored", "event sent and not stored", "signal is not in the store"})
TWICE = frozenset({"stored twice", "event stored twice"})

Judgement = Literal["fault", "machine", "other time", "unexplained"]
"""What explains a gap: a fault (or that a scan may be missed anywhere), only the busy machine, a fault that fell at another time, nothing."""


@dataclass(frozen=True, slots=True)
class Fell:
    """A fault and when it fell: from `begun` until it was over at `healed` (µs)."""

    fault: Fault
    begun: int
    healed: int


@dataclass(slots=True)
class Verdict:
    """What a look at the store found."""

    lost: int = 0
    twice: int = 0
    wrong: list[str] = field(default_factory=list)
    """Everything that should not be, in words."""
    gaps: Counter[str] = field(default_factory=Counter)
    """New gaps by cause; intervals without connection are counted as `interval`."""
    gap_seconds: float = 0.0
    """The longest of them."""
    compared: int = 0
    in_gaps: int = 0
    """Values and events that were handed out and lie in gaps."""
    starved: bool = False
    """Whether other work kept the machine so busy that devices ran into time-outs by that alone."""
    excused: bool = False
    """Whether that was needed: there are gaps or outages that no fault explains, or not so early or so late."""
    stood: int = 0
    """How many of `wrong` are that the collector stood still by itself, on a starved machine: said, and never excused."""


def waited() -> float:
    """Seconds since the start of the machine for which something waited for a processor (Linux, Documentation/accounting/psi.rst); 0 where nobody
    counts them."""
    try:
        some = PRESSURE.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


@dataclass(frozen=True, slots=True)
class Window:
    """When a run was: since the look before it and until all of it was stored (µs), and whether the machine was starved."""

    since: int
    settled: int
    starved: bool = False


def judge(
    cause: str | None, start: int, end: int | None, fell: Iterable[Fell], window: Window, *, subscribed: bool = False
) -> Judgement:
    """What explains a gap of this cause, or an outage (`cause` None), from `start` to `end` (µs) of a device that is polled or `subscribed`."""
    if end is None:
        return "unexplained"
    everything = list(fell)
    may = [one for one in everything if (one.fault.intervals if cause is None else cause in one.fault.causes)]
    early = EARLIER + (KEEP_ALIVE if subscribed else 0)
    begins = any(one.begun - early <= start <= one.healed + RECONNECTED for one in may)
    if begins and end <= max(one.healed for one in everything) + RECONNECTED:
        return "fault"
    if window.since - SILENT <= start and end <= window.settled + LATER:
        if cause in BUSY:
            return "fault"
        if window.starved and (may or cause is None or cause in DEVICE):
            return "machine"
    return "other time" if may else "unexplained"


class Oracle:
    """Looks at one installation after each run."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._since = rig, now_us()
        self._last_look = self._since
        self._gaps = {gap.id for gap in rig.reader.gaps(limit=100_000)}
        self._intervals = {interval.id for interval in rig.reader.connections(limit=100_000)}
        self._letters = len(rig.reader.dead_letters(limit=100_000))
        self._memory = rig.memory()
        self._looked, self._waited = time.monotonic(), waited()

    def look(self, fell: Iterable[Fell], settled: int) -> Verdict:
        """The truth after a run of which everything was stored at `settled` (µs)."""
        some = list(fell)
        verdict = Verdict(starved=self._starved())
        righted = Righted(self._rig.reader)
        self._look_at_gaps(righted, verdict, some, settled)
        self._look_at_readings(righted, verdict, settled)
        try:
            eventually(self._latest, 20, what="REST tells what is stored", interval=0.2)
        except AssertionError as error:
            verdict.wrong.append(str(error))
        letters = len(self._rig.reader.dead_letters(limit=100_000))
        if letters > self._letters:
            last = self._rig.reader.dead_letters(limit=100_000)[-1]
            verdict.wrong.append(f"{letters - self._letters} dead letters, such as {last}")
        self._letters = letters
        return verdict

    def _look_at_gaps(self, reader: Reader, verdict: Verdict, fell: list[Fell], settled: int) -> None:
        window = Window(self._last_look, settled, verdict.starved)
        self._last_look = settled
        dead, subscribed = self._rig.load.dead, self._rig.load.subscribed

        def look(span: GapRecord | Connection, cause: str | None, told: str) -> None:
            told = f"{told} from {span.start} to {span.end}"
            match judge(cause, span.start, span.end, fell, window, subscribed=span.device in subscribed):
                case "machine":
                    verdict.excused = True
                case "other time":
                    times = ", ".join(f"{one.fault.name} from {one.begun} to {one.healed}" for one in fell)
                    verdict.wrong.append(f"not when the fault fell ({times}; all stored at {settled}): {told}")
                case "unexplained":
                    verdict.wrong.append(f"no fault explains the {told}")
                    verdict.stood += verdict.starved and cause == Cause.COLLECTOR_DOWN.value

        for gap in reader.gaps(limit=100_000):
            if gap.id in self._gaps or gap.device in dead:
                continue
            self._gaps.add(gap.id)
            verdict.gaps[gap.cause] += 1
            look(gap, gap.cause, f"gap {gap.cause} of {gap.device or 'all devices'} ({gap.detail})")
            if gap.end is not None:
                verdict.gap_seconds = max(verdict.gap_seconds, (gap.end - gap.start) / 1e6)
        for interval in reader.connections(limit=100_000):
            if interval.id in self._intervals or interval.device in dead:
                continue
            self._intervals.add(interval.id)
            verdict.gaps["interval"] += 1
            look(interval, None, f"outage of {interval.device} ({interval.reason})")

    def _look_at_readings(self, reader: Reader, verdict: Verdict, settled: int) -> None:
        load = self._rig.load
        report = compare(reader, load.subjects, load.truth, events_until=settled - EVENTS_TAKE, since=self._since)
        verdict.compared, verdict.in_gaps = sum(report.served.values()), sum(report.excused.values())
        kinds = Counter(difference.kind for difference in report.differences)
        verdict.lost = sum(kinds[kind] for kind in LOST)
        verdict.twice = sum(kinds[kind] for kind in TWICE)
        shown: Counter[str] = Counter()
        for difference in report.differences:
            shown[difference.kind] += 1
            if shown[difference.kind] <= 3:
                verdict.wrong.append(f"{difference.kind} ({kinds[difference.kind]}): {difference}")

    def _starved(self) -> bool:
        """Since the last look."""
        since, before = self._looked, self._waited
        self._looked, self._waited = time.monotonic(), waited()
        return self._waited - before > STARVED * (self._looked - since)

    def _latest(self) -> bool:
        """`latest` of every signal is the newest stored reading, or a newer one; of a device without connection it has no value."""
        signals, snapshot = self._rig.reader.signals(), self._rig.reader.snapshot()
        down = self._rig.load.dead | {interval.device for interval in snapshot.connections}
        names = {signal.id: f"{signal.device}/{signal.name}" for signal in signals if signal.device not in down}
        newest = {row.signal: row for row in snapshot.rows if row.signal in names}
        items = latest_of(self._rig)
        for number, row in newest.items():
            item = items[names[number]]
            assert item["ts"] is not None, item
            place = (from_rfc3339(item["ts"]), item.get("n", 0))
            assert place >= (row.ts, row.n), (item, row)
            if place == (row.ts, row.n):
                assert same(item["value"], rest_value(row.value)), (item, row)
                assert item["status"] == row.status, (item, row)
        return True

    def ledger(self) -> list[str]:
        """What `guantong ledger --verify` finds: outbox, hash chain, store and gaps walked against each other."""
        outbox = self._rig.collect_data / "outbox.sqlite"
        found = verify(outbox, Witness(self._rig.reader), GATEWAY)
        return [f"ledger: {one.code}: {one.text}" for one in found.findings]

    def memory(self) -> tuple[dict[str, float], list[str]]:
        """Megabytes of each process, and which of them has not gone back."""
        now = self._rig.memory()
        grown = [
            f"{name} has {now[name]:.0f} MB, and had {before:.0f} MB"
            for name, before in self._memory.items()
            if now.get(name, 0.0) > before * MEMORY_SHARE + MEMORY_MORE
        ]
        return now, grown


__all__ = ["Fell", "Oracle", "Verdict", "Window", "judge", "now_us"]
