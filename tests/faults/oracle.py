"""What must be true after a fault, and what was found to be otherwise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.store.reader import Reader
from schemas.times import from_rfc3339
from tests.chain.rest import latest_of, rest_value
from tests.chain.truth import compare, now_us, same
from tests.faults.clocks import Righted
from tests.faults.faults import DEVICE, Fault
from tests.faults.rig import Rig
from tests.servers.waiting import eventually

EARLIER, LATER = 15_000_000, 3_000_000
"""µs by which a gap or an outage may begin before the fault (at the last sign of life of a device that was silent then) and end after its recovery."""
EVENTS_TAKE = 2_000_000
"""µs after which an event has surely been asked for; younger ones are compared after the next run."""
MEMORY_SHARE, MEMORY_MORE = 1.25, 24.0
"""Memory is back where it was up to this factor and so many megabytes: what Python's allocator and a broker's log keep of a backlog."""
BUSY = frozenset({"overrun"})
"""What a machine that has other work to do causes by itself: a scan that was due before the last one was done is missed, and recorded as such."""
STARVED = 0.6
"""A machine is starved when something waited for a processor for this share of the time: then time-outs of devices are its doing, too."""
STOOD = frozenset({"collector_down"})
"""And the collector itself may get no processor for more than a second, which it records."""
PRESSURE = Path("/proc/pressure/cpu")
LOST = frozenset({"served and not stored", "event sent and not stored", "signal is not in the store"})
TWICE = frozenset({"stored twice", "event stored twice"})


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
    excused: int = 0
    starved: bool = False
    """Whether other work kept the machine so busy that devices ran into time-outs by that alone: their gaps are then explained by it."""


def waited() -> float:
    """Seconds since the start of the machine for which something waited for a processor (Linux, Documentation/accounting/psi.rst); 0 where nobody
    counts them."""
    try:
        some = PRESSURE.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


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

    def look(self, faults: Iterable[Fault], begun: int, settled: int) -> Verdict:
        """The truth after a run that began at `begun` and of which everything was stored at `settled` (µs)."""
        some = list(faults)
        verdict = Verdict(starved=self._starved())
        righted = Righted(self._rig.reader)
        self._look_at_gaps(righted, verdict, some, begun, settled)
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

    def _look_at_gaps(self, reader: Reader, verdict: Verdict, faults: list[Fault], begun: int, settled: int) -> None:
        allowed = BUSY.union(*(fault.causes for fault in faults), DEVICE | STOOD if verdict.starved else ())
        if verdict.starved:
            begun = min(begun, self._last_look)
        self._last_look = settled
        for gap in reader.gaps(limit=100_000):
            if gap.id in self._gaps or gap.device in self._rig.load.dead:
                continue
            self._gaps.add(gap.id)
            verdict.gaps[gap.cause] += 1
            told = f"gap {gap.cause} of {gap.device or 'all devices'} from {gap.start} to {gap.end}: {gap.detail}"
            if gap.cause not in allowed:
                verdict.wrong.append(f"no fault explains the {told}")
            elif gap.end is None or gap.start < begun - EARLIER or gap.end > settled + LATER:
                verdict.wrong.append(f"the fault was from {begun} to {settled}, not so the {told}")
            else:
                verdict.gap_seconds = max(verdict.gap_seconds, (gap.end - gap.start) / 1e6)
        for interval in reader.connections(limit=100_000):
            if interval.id in self._intervals or interval.device in self._rig.load.dead:
                continue
            self._intervals.add(interval.id)
            verdict.gaps["interval"] += 1
            told = f"{interval.device} without connection from {interval.start} to {interval.end}: {interval.reason}"
            if not verdict.starved and not any(fault.intervals for fault in faults):
                verdict.wrong.append(f"no fault explains that {told}")
            elif interval.end is None or interval.start < begun - EARLIER or interval.end > settled + LATER:
                verdict.wrong.append(f"the fault was from {begun} to {settled}; {told}")

    def _look_at_readings(self, reader: Reader, verdict: Verdict, settled: int) -> None:
        load = self._rig.load
        report = compare(reader, load.subjects, load.truth, events_until=settled - EVENTS_TAKE, since=self._since)
        verdict.compared, verdict.excused = sum(report.served.values()), sum(report.excused.values())
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

    def memory(self) -> tuple[dict[str, float], list[str]]:
        """Megabytes of each process, and which of them has not gone back."""
        now = self._rig.memory()
        grown = [
            f"{name} has {now[name]:.0f} MB, and had {before:.0f} MB"
            for name, before in self._memory.items()
            if now.get(name, 0.0) > before * MEMORY_SHARE + MEMORY_MORE
        ]
        return now, grown


__all__ = ["Oracle", "Verdict", "now_us"]
