"""The truth test (what a device served and what is in the store), both ways.

(a) Each value that a device served is stored, or equal to (within the deadband of) the last stored one of its signal at that time, or inside
a recorded gap or an interval without connection. (b) Each stored value was served, with that time, status and flags. Events likewise. Nothing is
there twice.

Compared is what was served up to the `complete_to` of its device and group: the gateway's own word for "up to here everything is there".
"""

from __future__ import annotations

import math
import uuid
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

from gateway.store.reader import Reader
from gateway.store.records import EventRecord, Reading
from schemas.wire import Flag
from simulators.truth import now_us
from tests.chain.served import CLAUSES, Fired, Served, SignalTruth, Subject, fired_events, served_values

__all__ = ["Difference", "Missing", "Report", "compare", "now_us", "same"]

_MANY = 10**7
_HOW_IT_CAME = Flag.INITIAL | Flag.LATE | Flag.OVERFLOW | Flag.HISTORICAL
"""Flags that tell of the reading's way; the others speak of the value."""
_SHOWN = 10
EVENT_IDS = uuid.UUID("6f6c7aa1-9a2f-5d0e-8a38-3f5e5a0c6f11")
"""Namespace (RFC 9562, version 5) in which a device's event id becomes the event's: `DEVICE:EVENT-ID in hex`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not agree."""

    kind: str
    device: str
    signal: str
    detail: str

    def __str__(self) -> str:
        return f"{self.device} {self.signal}: {self.detail}"


@dataclass(slots=True)
class Report:
    """What was compared, and what does not agree."""

    differences: list[Difference] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    """Values that the device served and that were compared, by device."""
    stored: Counter[str] = field(default_factory=Counter)
    """Rows by device."""
    excused: Counter[str] = field(default_factory=Counter)
    """Values and events that are not stored, but inside a gap or an interval, by device."""
    events: Counter[str] = field(default_factory=Counter)
    """Events in the store that a device sent, by device."""

    def add(self, kind: str, device: str, signal: str, detail: str) -> None:
        self.differences.append(Difference(kind, device, signal, detail))

    def holds(self) -> None:
        """Raises AssertionError with the first differences of each kind."""
        if not self.differences:
            return
        lines = [f"the truth does not hold: {len(self.differences)} differences"]
        by_kind: dict[str, list[Difference]] = defaultdict(list)
        for difference in self.differences:
            by_kind[difference.kind].append(difference)
        for kind, some in by_kind.items():
            where = Counter(difference.device for difference in some)
            told = ", ".join(f"{device} {count}" for device, count in where.items())
            lines.append(f"{kind}: {len(some)} ({told})")
            lines += [f"    {difference}" for difference in some[:_SHOWN]]
        lines.append(self.counts())
        raise AssertionError("\n".join(lines))

    def counts(self) -> str:
        """How much was compared, by device."""
        devices = sorted({*self.served, *self.stored})
        return "\n".join(
            f"{device}: served {self.served[device]}, rows {self.stored[device]}, in gaps {self.excused[device]}, "
            f"events {self.events[device]}"
            for device in devices
        )


class Missing:
    """Where the store itself says that something is missing: gaps and intervals without connection."""

    def __init__(self, reader: Reader) -> None:
        self._gaps: dict[str | None, list[tuple[float, float, frozenset[int] | None]]] = defaultdict(list)
        for gap in reader.gaps(limit=_MANY):
            signals = None if gap.signals is None else frozenset(gap.signals)
            self._gaps[gap.device].append((gap.start, math.inf if gap.end is None else gap.end, signals))
        for interval in reader.connections(limit=_MANY):
            end = math.inf if interval.end is None else interval.end
            self._gaps[interval.device].append((interval.start, end, None))

    def covers(self, device: str, signal: int | None, at: int) -> bool:
        """Whether `at` (µs) lies in a gap of the signal, or of an event of the device where that is None."""
        return any(
            start <= at <= end and (signals is None or signal is None or signal in signals)
            for start, end, signals in (*self._gaps[device], *self._gaps[None])
        )


def compare(
    reader: Reader, subjects: Iterable[Subject], truth: Path, *, events_until: int | None = None, since: int = 0
) -> Report:
    """Compares the store with the truth logs in the folder `truth`. Events are compared up to `events_until` (µs), or all.

    What was handed out before `since` (µs) need not be there: a gateway that starts for the first time misses what it has not asked for yet.
    """
    report = Report()
    complete = {(done.device, done.group): done.complete_to for done in reader.snapshot().progress}
    ids = {(signal.device, signal.name): signal.id for signal in reader.signals()}
    missing = Missing(reader)
    rows: dict[int, list[Reading]] = defaultdict(list)
    for piece in reader.history(list(ids.values())):
        for row in piece:
            rows[row.signal].append(row)
    stored_events: dict[str, list[EventRecord]] = defaultdict(list)
    for event in reader.events(limit=_MANY):
        stored_events[event.device].append(event)
    for subject in subjects:
        _compare_events(report, subject, truth, stored_events[subject.device], missing, events_until)
        for name, signal in served_values(subject, truth).items():
            number = ids.get((subject.device, name))
            if number is None:
                report.add("signal is not in the store", subject.device, name, "no birth")
                continue
            mine = rows.get(number, [])
            report.stored[subject.device] += len(mine)
            _once(report, signal, mine)
            until = complete.get((subject.device, signal.group), -1)
            side: type[_Side] = _Stamped if subject.protocol == "opcua" else _Polled
            side(report, signal, number, mine, missing).compare(since, until)
    return report


# -------------------------------------------------------------------------------------------------------------- values


def _once(report: Report, signal: SignalTruth, rows: Sequence[Reading]) -> None:
    """Rows are numbered from 0 for each ts, and none is there twice."""
    for before, row in pairwise(rows):
        again = before.ts == row.ts
        if row.n != (before.n + 1 if again else 0):
            report.add("n is not consecutive", signal.device, signal.name, f"{_told(before)}, then {_told(row)}")
        if again and same(before.value, row.value) and before.status == row.status:
            report.add("stored twice", signal.device, signal.name, _told(row))
    if rows and rows[0].n != 0:
        report.add("n is not consecutive", signal.device, signal.name, f"begins with {_told(rows[0])}")


def _told(row: Reading) -> str:
    status = f" status {row.status:#010x}" if row.status else ""
    return f"{row.value!r}{status} ts {row.ts} n {row.n} flags {row.flags}"


def same(one: Any, other: Any) -> bool:
    """Equal in value and type; NaN is NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


class _Side:
    """One signal: what was served and what is stored."""

    by_the_gateways_clock = Flag(0)
    """Flags that depend on the clock of the machine that the test runs on."""

    def __init__(
        self, report: Report, signal: SignalTruth, number: int, rows: Sequence[Reading], missing: Missing
    ) -> None:
        self.report, self.signal, self.number, self.rows, self.missing = report, signal, number, rows, missing

    def compare(self, since: int, until: int) -> None:
        """Adds to the report what does not agree, of what was handed out from `since` on and is complete up to `until` (µs)."""
        raise NotImplementedError

    def _unchanged(self, served: Served, row: Reading | None) -> bool:
        """Whether the served value need not be stored while `row` is the last one."""
        if row is None or served.status != row.status:
            return False
        if same(served.value, row.value):
            return True
        numbers = isinstance(served.value, int | float) and isinstance(row.value, int | float)
        if not self.signal.deadband or not numbers:
            return False
        return abs(Fraction(served.value) - Fraction(row.value)) < self.signal.deadband

    def _absent(self, served: Served, last: Reading | None) -> None:
        detail = f"{served}; the last one stored was {'none' if last is None else _told(last)}"
        self.report.add("served and not stored", self.signal.device, self.signal.name, detail)

    def _check_row(self, row: Reading, told: Sequence[Served]) -> None:
        """Whether one of these served values is what the row says."""
        fits = [one for one in told if same(one.value, row.value) and one.status == row.status]
        if not fits:
            seen = "; ".join(map(str, told[:3])) or "nothing"
            detail = f"{_told(row)}; served was {seen}"
            self.report.add("stored and not served", self.signal.device, self.signal.name, detail)
            return
        flags = row.flags & ~(_HOW_IT_CAME | self.by_the_gateways_clock)
        wanted = {
            (Flag.OUT_OF_RANGE if one.out_of_range else 0) | (Flag.RAW_KEPT if one.raw is not None else 0)
            for one in fits
        }
        if flags not in wanted or row.source_ts is not None:
            detail = f"{_told(row)} source_ts {row.source_ts}; flags expected are {sorted(wanted)}"
            self.report.add("flags", self.signal.device, self.signal.name, detail)
        if row.flags & Flag.INITIAL and not any(one.first for one in fits):
            self.report.add("flagged initial and is not", self.signal.device, self.signal.name, _told(row))
        if row.flags & Flag.RAW_KEPT and not any(same(one.raw, row.raw) for one in fits):
            self.report.add(
                "raw value", self.signal.device, self.signal.name, f"{row.raw!r}, arrived was {fits[0].raw!r}"
            )


class _Stamped(_Side):
    """Values with a time of their source."""

    def compare(self, since: int, until: int) -> None:
        times = [row.ts for row in self.rows]
        by_ts: dict[int, list[Served]] = defaultdict(list)
        for served in self.signal.served:
            if served.ts is None:
                self.report.add("served without a time", self.signal.device, self.signal.name, str(served))
                continue
            by_ts[served.ts].append(served)
            if served.ts <= until and served.t >= since:
                self._look_for(served, served.ts, times)
        for row in self.rows:
            self._check_row(row, by_ts.get(row.ts, ()))

    def _look_for(self, served: Served, ts: int, times: Sequence[int]) -> None:
        self.report.served[self.signal.device] += 1
        first, last = bisect_left(times, ts), bisect_right(times, ts)
        if any(same(row.value, served.value) and row.status == served.status for row in self.rows[first:last]):
            return
        before = self.rows[last - 1] if last else None
        if not self.signal.every and self._unchanged(served, before):
            return
        gone = self.missing.covers(self.signal.device, self.number, ts)
        if gone or (served.first and self.missing.covers(self.signal.device, self.number, served.t)):
            self.report.excused[self.signal.device] += 1
            return
        self._absent(served, before)


class _Polled(_Side):
    """Values without a time: the gateway's, which lies between this answer and the next one of the same signal."""

    by_the_gateways_clock = Flag.UNSYNCED

    def compare(self, since: int, until: int) -> None:
        times = [row.ts for row in self.rows]
        answers = self.signal.served
        for served, following in zip(answers, [*answers[1:], None], strict=True):
            if served.t > until:
                break
            if served.t < since:
                continue
            self.report.served[self.signal.device] += 1
            end = len(times) if following is None else bisect_left(times, following.t)
            last = self.rows[end - 1] if end else None
            if self._unchanged(served, last):
                continue
            if self.missing.covers(self.signal.device, self.number, served.t):
                self.report.excused[self.signal.device] += 1
                continue
            self._absent(served, last)
        moments = [served.t for served in answers]
        for row in self.rows:
            place = bisect_right(moments, row.ts)
            self._check_row(row, answers[max(0, place - 1) : place])


# -------------------------------------------------------------------------------------------------------------- events


def _compare_events(
    report: Report, subject: Subject, truth: Path, stored: Sequence[EventRecord], missing: Missing, until: int | None
) -> None:
    fired = {str(uuid.uuid5(EVENT_IDS, f"{event.device}:{event.id}")): event for event in fired_events(subject, truth)}
    found: Counter[str] = Counter()
    for record in sorted(stored, key=attrgetter("no")):
        if record.type not in CLAUSES.values():
            continue  # the gateway's own
        report.events[subject.device] += 1
        told = fired.get(record.id)
        if told is None:
            report.add("event stored and not sent", subject.device, record.type, f"{record.id} of {record.ts}")
            continue
        found[record.id] += 1
        if found[record.id] > 1:
            report.add("event stored twice", subject.device, told.clause, told.id)
        _compare_event(report, record, told)
    for number, event in fired.items():
        if number in found or (until is not None and event.ts > until):
            continue
        if missing.covers(subject.device, None, event.ts):
            report.excused[subject.device] += 1
            continue
        report.add("event sent and not stored", subject.device, event.clause, f"{event.id} of {event.ts}, at {event.t}")


def _compare_event(report: Report, record: EventRecord, told: Fired) -> None:
    def differ(what: str, got: object, wanted: object) -> None:
        report.add(f"event's {what}", told.device, told.clause, f"{told.id}: {got!r} instead of {wanted!r}")

    for what, got, wanted in (
        ("type", record.type, told.clause),
        ("ts", record.ts, told.ts),
        ("source_ts", record.source_ts, told.ts),
        ("severity", record.severity, told.severity),
        ("condition", record.condition, told.condition),
        ("state", record.state, told.state),
    ):
        if got != wanted:
            differ(what, got, wanted)
    if told.message not in (record.message_en, record.message_zh):
        differ("message", (record.message_zh, record.message_en), told.message)
    fields = {**told.fields, "event_type": told.type}
    for name in {*record.fields, *fields}:
        if name not in fields or name not in record.fields or not same(record.fields[name], fields[name]):
            differ(f"field {name}", record.fields.get(name), fields.get(name))
