"""The yardsticks of the campaign: the same faults, at the same moment, on the usual ways and on the gateway: `python -m tests.faults.usual --seed N --runs K`.

Four collectors, each with a numbered device and a Mosquitto of its own, and a line that can break between the two:

- `guantong`: the three roles, with SQLite as their store.
- `plain`: a loop that publishes at QoS 1 and forgets, and a subscriber that inserts (tests.faults.plain).
- `tb-memory`, `tb-sqlite`: ThingsBoard Gateway with its default storage and with SQLite, and the same subscriber. They are left
  out where it is not installed (`make chaos-usual-needs`).

A run is one fault on all of them. Counted are the numbers that each device handed out from the end of the last run's fault to the end of this one's: those that are nowhere
stored and in no recorded gap are lost; those that are stored n times are n - 1 times there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from simulators.truth import now_us
from tests.chain.installation import Installation, Process
from tests.chain.truth import Missing
from tests.faults import thingsboard
from tests.faults.lines import Lines
from tests.faults.numbered import NumberedDevice
from tests.faults.plain import prepare, signal_name
from tests.servers.brokers import Mosquitto
from tests.servers.processes import HOST
from tests.servers.waiting import ConditionNotMet, eventually

PROJECT = Path(__file__).parents[2]
GUANTONG, PLAIN = "guantong", "plain"
STORAGES: dict[str, thingsboard.Storage] = {"tb-memory": "memory", "tb-sqlite": "sqlite"}
WAYS = (GUANTONG, PLAIN, *STORAGES)
SIGNALS = 40
CALM = 4.0
"""Seconds without news after which nothing more is expected to arrive."""
RECOVERED_WITHIN = 90.0
_MANY = 10**6


@dataclass(slots=True)
class Figures:
    """What came of one run for one way."""

    served: int = 0
    lost: int = 0
    twice: int = 0
    twice_keyed: int = 0
    """Those of them that a key over signal and time would not have dropped, as their times differ."""
    in_gaps: int = 0
    """Not stored, and in a recorded gap."""
    gaps: int = 0
    """Gaps and intervals without connection that are recorded for the time of the run."""
    recovered: bool = True


@dataclass(slots=True)
class Result:
    """What came of one run."""

    seed: int
    number: int
    fault: str
    lasted: float
    figures: dict[str, Figures] = field(default_factory=dict)
    at: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """One line for a person."""
        told = [
            f"{way} lost {one.lost} twice {one.twice} in gaps {one.in_gaps}/{one.gaps}{'' if one.recovered else ' NOT BACK'}"
            for way, one in self.figures.items()
        ]
        return f"{self.number:4} {self.fault} ({self.lasted:.1f} s): {'; '.join(told)}"


class Rig:
    """All of it. Made and started by entering; leaving ends everything."""

    def __init__(self, folder: Path, ways: Sequence[str], signals: int = SIGNALS, calm: float = CALM) -> None:
        self.folder, self.ways, self.signals, self._calm = folder, tuple(ways), signals, calm
        self.devices = {way: NumberedDevice(signals) for way in ways}
        self.collectors: dict[str, Process] = {}
        self.stores: list[Process] = []
        self.brokers: dict[str, Mosquitto] = {}
        self.gateway: Installation | None = None
        self._stack = contextlib.ExitStack()
        self._seen: Counter[str] = Counter()
        self._found: dict[str, dict[tuple[int, int], Counter[int]]] = {way: defaultdict(Counter) for way in ways}

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _make(self) -> None:
        for device in self.devices.values():
            self._stack.enter_context(device)
        for way in self.ways:
            acl = thingsboard.rights(way) if way in STORAGES else ""
            self.brokers[way] = Mosquitto(self.folder / f"mosquitto-{way}", persistent=True, acl=acl)
            self._stack.callback(self.brokers[way].kill)
            self.brokers[way].start()
        self.lines = Lines({way: broker.port for way, broker in self.brokers.items()})
        self._stack.callback(self.lines.close)
        for way in self.ways:
            self._way(way)
        for process in (*self.stores, *self.collectors.values()):
            process.start()

    def _way(self, way: str) -> None:
        device, line = self.devices[way].port, self.lines.ports[way]
        if way != GUANTONG:
            self._subscriber(way)
        if way == GUANTONG:
            folder = self.folder / GUANTONG
            folder.mkdir()
            self.gateway = Installation(folder, [self._link(device)], bus={"host": HOST, "port": line})
            self._stack.enter_context(self.gateway)
            self.collectors[way] = self.gateway.processes["collect"]
            self.stores.append(self.gateway.processes["ingest"])
        elif way == PLAIN:
            command = [sys.executable, "-m", "tests.faults.plain", "collect", str(device), str(line), str(self.signals)]
            self.collectors[way] = self._process(way, command)
        else:
            python = thingsboard.installed(PROJECT)
            assert python is not None, "ThingsBoard Gateway is not installed: make chaos-usual-needs"
            folder = self.folder / way
            thingsboard.configure(folder, STORAGES[way], way, device, line, self.signals)
            self.collectors[way] = self._process(
                way, thingsboard.command(python, folder), thingsboard.environment(folder)
            )

    def _subscriber(self, way: str) -> None:
        prepare(self.rows(way)).close()
        command = [
            sys.executable,
            "-m",
            "tests.faults.plain",
            "store",
            str(self.brokers[way].port),
            str(self.rows(way)),
        ]
        self.stores.append(self._process(f"{way}-store", command))
        if way in STORAGES:
            self._stack.callback(thingsboard.Server(self.brokers[way].port).close)

    def _process(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Process:
        process = Process(name, command, self.folder / f"{name}.log", env or {**os.environ})
        self._stack.callback(process.kill)
        return process

    def _link(self, port: int) -> dict[str, Any]:
        names = [
            {"name": signal_name(number), "unit": "1", "type": "uint32", "address": {"table": "holding", "address": number * 2, "type": "uint32"}}
            for number in range(self.signals)
        ]  # fmt: skip
        return {
            "id": GUANTONG, "adapter": "modbus", "settings": {"host": HOST, "port": port},
            "devices": [{"id": GUANTONG, "signals": names}],
        }  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- counting

    def rows(self, way: str) -> Path:
        """Where the subscriber of a way stores."""
        return self.folder / f"{way}.sqlite"

    def found(self, way: str) -> dict[tuple[int, int], Counter[int]]:
        """For each stored (signal, number) how often it is stored with each time (µs)."""
        if way == GUANTONG:
            return self._in_gateway()
        with contextlib.closing(sqlite3.connect(self.rows(way), timeout=20)) as db:
            query = "SELECT id, signal, ts, value FROM reading WHERE id > ? ORDER BY id"
            for number, name, ts, value in db.execute(query, (self._seen[way],)):
                self._seen[way] = number
                self._found[way][int(name[1:]), value][ts] += 1
        return self._found[way]

    def _in_gateway(self) -> dict[tuple[int, int], Counter[int]]:
        assert self.gateway is not None
        found: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        names = {one.id: int(one.name[1:]) for one in self.gateway.reader.signals() if one.device == GUANTONG}
        for piece in self.gateway.reader.history(list(names)):
            for row in piece:
                found[names[row.signal], row.value][row.ts] += 1
        return found

    def behind(self, way: str, since: int) -> bool:
        """Whether nothing is stored yet of what the device handed out from `since` (µs) on."""
        if way == GUANTONG:
            assert self.gateway is not None
            complete = self.gateway.complete_to()
            return not complete or min(complete.values()) < since
        device = self.devices[way]
        newest: dict[int, int] = defaultdict(int)
        for number, value in self.found(way):
            newest[number] = max(newest[number], value)
        return not any(device.served[number][value - 1] >= since for number, value in newest.items())

    def figures(self, way: str, since: int, until: int) -> Figures:
        """What became of the numbers handed out from `since` to `until` (µs)."""
        figures, found, missing, ids = Figures(), self.found(way), None, {}
        if way == GUANTONG:
            assert self.gateway is not None
            reader = self.gateway.reader
            missing, ids = Missing(reader), {one.name: one.id for one in reader.signals()}
            gaps = reader.gaps(since, until, limit=_MANY)
            figures.gaps = len(gaps) + len(reader.connections(None, since, until, limit=_MANY))
        for number, times in enumerate(self.devices[way].served):
            for place, at in enumerate(times):
                if not since <= at < until:
                    continue
                figures.served += 1
                stored = found.get((number, place + 1))
                if stored:
                    figures.twice += sum(stored.values()) - 1
                    figures.twice_keyed += len(stored) - 1
                elif missing is not None and missing.covers(GUANTONG, ids.get(signal_name(number)), at):
                    figures.in_gaps += 1
                else:
                    figures.lost += 1
        return figures

    def settle(self, since: int, timeout: float = RECOVERED_WITHIN) -> set[str]:
        """Wait until every way stores what is new and nothing old arrives any more. Returns the ways that were not back in time."""
        late = set(self.ways)

        def back() -> bool:
            for way in sorted(late):
                if not self.behind(way, since):
                    late.discard(way)
            return not late

        with contextlib.suppress(ConditionNotMet):
            eventually(back, timeout, what="every way stores what is new", interval=0.5)
        calm, before = time.monotonic(), -1
        while time.monotonic() - calm < self._calm:
            now = sum(self._old(way, since) for way in self.ways)
            if now != before:
                calm, before = time.monotonic(), now
            time.sleep(0.5)  # between two looks at whether anything has arrived
        return late

    def _old(self, way: str, until: int) -> int:
        """How many rows hold what was handed out before `until` (µs)."""
        served = self.devices[way].served
        return sum(
            sum(times.values())
            for (number, value), times in self.found(way).items()
            if served[number][value - 1] < until
        )


# -------------------------------------------------------------------------------------------------------------- faults

Fault = Callable[[Rig, Random], None]


def _lasts(seconds: float) -> None:
    time.sleep(seconds)  # the length of a fault, not a hope


def nothing(rig: Rig, random: Random) -> None:
    """No fault: what the other figures are to be compared with."""
    _lasts(random.uniform(3.0, 6.0))


def collectors_killed(rig: Rig, random: Random) -> None:
    """kill -9 of every collector, missed for a while, started again."""
    _lasts(random.uniform(0.0, 2.0))
    for process in rig.collectors.values():
        process.kill()
    _lasts(random.uniform(1.0, 3.0))
    for process in rig.collectors.values():
        process.start()


def broker_killed(rig: Rig, random: Random) -> None:
    """kill -9 of the brokers, which come back without what they had kept on their disks."""
    _lasts(random.uniform(0.0, 2.0))
    for way, broker in rig.brokers.items():
        broker.kill()
        kept = rig.folder / f"mosquitto-{way}" / "persistence"
        shutil.rmtree(kept)
        kept.mkdir()
    _lasts(random.uniform(1.0, 5.0))
    for broker in rig.brokers.values():
        broker.start()


def lines_refused(rig: Rig, random: Random) -> None:
    """The link to the broker is cut for 20 s, and refused meanwhile."""
    with _refused(rig):
        _lasts(20.0)


def refused_and_killed(rig: Rig, random: Random) -> None:
    """The link to the broker is cut for 20 s, and meanwhile the collectors are killed and started again."""
    with _refused(rig):
        _lasts(random.uniform(5.0, 10.0))
        for process in rig.collectors.values():
            process.kill()
            process.start()
        _lasts(10.0)


@contextlib.contextmanager
def _refused(rig: Rig) -> Iterator[None]:
    rig.lines.refuse(rig.ways)
    rig.lines.cut(rig.ways)
    try:
        yield
    finally:
        rig.lines.restore(rig.ways)


def half_open(rig: Rig, random: Random) -> None:
    """A pulled cable: nothing arrives and nothing is closed for up to 10 s; what was on the way is gone."""
    rig.lines.half_open(rig.ways)
    _lasts(random.uniform(3.0, 10.0))
    rig.lines.cut(rig.ways)
    rig.lines.restore(rig.ways)


def stores_killed(rig: Rig, random: Random) -> None:
    """kill -9 of what writes to the database, missed for a while, started again."""
    _lasts(random.uniform(0.0, 2.0))
    for process in rig.stores:
        process.kill()
    _lasts(random.uniform(1.0, 5.0))
    for process in rig.stores:
        process.start()


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "kill -9: collector": collectors_killed,
    "kill -9: broker, back without its persistence": broker_killed,
    "refused: collector - broker, 20 s": lines_refused,
    "refused: collector - broker, 20 s, and kill -9: collector": refused_and_killed,
    "half-open: collector - broker": half_open,
    "kill -9: what writes to the store": stores_killed,
}


def plan(seed: int, number: int) -> str:
    """The fault of a run: each comes once in as many runs as there are, in an order of the seed."""
    names = list(FAULTS)
    turn, place = divmod(number - 1, len(names))
    return Random(f"{seed}/{turn}").sample(names, len(names))[place]


def run(rig: Rig, seed: int, number: int, name: str, since: int) -> tuple[Result, int]:
    """One run; `since` (µs) is where the last one's numbers ended. Returns the result and where this one's end."""
    begun = time.monotonic()
    FAULTS[name](rig, Random(f"{seed}/{number}"))
    until, lasted = now_us(), time.monotonic() - begun
    result = Result(seed, number, name, round(lasted, 2), at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    late = rig.settle(until)
    for way in rig.ways:
        result.figures[way] = rig.figures(way, since, until)
        result.figures[way].recovered = way not in late
    return result, until


def ready(rig: Rig, timeout: float = RECOVERED_WITHIN) -> int:
    """Wait until every way stores. Returns from when on (µs) everything counts."""
    late = rig.settle(now_us(), timeout)
    assert not late, f"nothing is stored by {sorted(late)}; the logs are in {rig.folder}"
    return now_us()


def main() -> int:
    """The command; 0 when the gateway has lost nothing and has nothing twice."""
    from tests.faults.report import write
    from tests.faults.usual_report import MARKERS, table, versions

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, too
    parser = argparse.ArgumentParser(prog="python -m tests.faults.usual", description="Faults on the usual ways.")
    add = parser.add_argument
    add("--seed", type=int, default=1, help="what happens depends on it alone")
    add("--runs", type=int, default=2 * len(FAULTS), help="how many runs, each a fault (default: each fault twice)")
    add("--first", type=int, default=1, help="the number of the first run (default 1)")
    add("--way", action="append", default=[], choices=WAYS, help="only these ways")
    add("--fault", choices=tuple(FAULTS), help="this fault in each run, instead of all in turn")
    add("--log", type=Path, help="append each result as a line of JSON")
    add("--table", type=Path, nargs="+", default=[], help="no runs: only the table of these logs")
    add("--version-of", default="", help="what to write as our version into the log (default: the commit)")
    add("--keep", action="store_true", help="leave the folder with logs and stores")
    add("--write", type=Path, nargs="+", default=[], help="pages to put the table into; in a folder zh: in Chinese")
    options = parser.parse_args()
    if options.table:
        lines = [line for log in options.table for line in log.read_text(encoding="utf-8").splitlines()]
        results = [json.loads(line) for line in lines]
    else:
        present = versions()
        results = _campaign(options, present | ({GUANTONG: options.version_of} if options.version_of else {}))
    for page in options.write:
        write(page, table(results, "zh" if page.parent.name == "zh" else "en"), MARKERS)
    sys.stdout.write(table(results, "en") + "\n")
    ours = [result["figures"][GUANTONG] for result in results if GUANTONG in result["figures"]]
    return 1 if any(one["lost"] or one["twice"] for one in ours) else 0


def _campaign(options: argparse.Namespace, versions: dict[str, str]) -> list[dict[str, Any]]:
    present = [way for way in WAYS if way not in STORAGES or thingsboard.installed(PROJECT) is not None]
    ways = options.way or present
    if len(ways) < len(WAYS):
        sys.stdout.write(f"left out: {', '.join(sorted(set(WAYS) - set(ways)))}\n")
    results: list[dict[str, Any]] = []
    folder = Path(tempfile.mkdtemp(prefix="guantong-usual-"))
    try:
        with Rig(folder, ways) as rig:
            since = ready(rig)
            for number in range(options.first, options.first + options.runs):
                name = options.fault or plan(options.seed, number)
                result, since = run(rig, options.seed, number, name, since)
                result.versions = versions
                told = json.dumps(dataclasses.asdict(result), ensure_ascii=False)
                results.append(json.loads(told))
                sys.stdout.write(result.line() + "\n")
                sys.stdout.flush()
                if options.log is not None:
                    with options.log.open("a", encoding="utf-8") as file:
                        file.write(told + "\n")
    finally:
        if options.keep:
            sys.stdout.write(f"kept: {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
