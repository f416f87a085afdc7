"""All seven simulated devices through the whole chain: what they served is stored, what is stored they served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.store.reader import Reader
from gateway.store.records import EventRecord, Reading
from tests.chain.conftest import InstallationFactory, WorkshopFactory
from tests.chain.installation import DEAD_STATION, Installation, Workshop
from tests.chain.rest import latest_agrees
from tests.chain.truth import Report, compare, now_us

pytestmark = [pytest.mark.chain, pytest.mark.timeout(150)]

WORK = 45_000_000
"""µs of work at ten times the process speed."""


class Tampered(Reader):
    """A store in which something is wrong, to see that the comparison sees it."""

    def __init__(self, reader: Reader) -> None:
        self.__dict__ = dict(reader.__dict__)
        self.lost: Reading | None = None
        self.changed: Reading | None = None
        self.lost_event = ""

    def history(self, *arguments: Any, **more: Any) -> Iterator[list[Reading]]:
        for piece in super().history(*arguments, **more):
            yield [self._shown(row) for row in piece if row != self.lost]

    def _shown(self, row: Reading) -> Reading:
        if row != self.changed:
            return row
        return Reading(row.signal, row.ts, row.n, not row.value, row.status, row.flags)

    def events(self, *arguments: Any, **more: Any) -> list[EventRecord]:
        return [event for event in super().events(*arguments, **more) if event.id != self.lost_event]


def test_all_seven_devices_over_a_minute_of_work(install: InstallationFactory, open_workshop: WorkshopFactory) -> None:
    workshop = open_workshop()
    gateway = install(workshop.links(longest=3.0))
    gateway.start()
    subjects = workshop.subjects
    gateway.settle(subjects, now_us())
    begun = now_us()
    # values that are bad for a while, by the server's word and by a word of the register
    workshop.fault("plc-01", "bad", node="DB_Line/ConveyorSpeed", status="BadSensorFailure")
    workshop.fault("mt-01", "bad", node="Monitoring/Spindle/Load", status="UncertainSensorNotAccurate")
    workshop.fault("temp-01", "sentinel", value="0x8003")
    gateway.settle(subjects, begun + WORK // 4)
    for device in ("plc-01", "mt-01", "temp-01"):
        workshop.clear(device)
    gateway.settle(subjects, begun + WORK, timeout=60)
    report = compare(gateway.reader, subjects, workshop.truth, events_until=begun + WORK - 2_000_000)
    report.holds()
    _nothing_is_missing(gateway, workshop, report)
    assert latest_agrees(gateway, without=frozenset({DEAD_STATION})) > 300
    _the_comparison_would_see_it(gateway, workshop)
    gateway.stop()
    again = compare(gateway.reader, subjects, workshop.truth, events_until=begun + WORK - 2_000_000)
    again.holds()


def _nothing_is_missing(gateway: Installation, workshop: Workshop, report: Report) -> None:
    assert not report.excused, "in an undisturbed minute nothing is in a gap"
    assert gateway.reader.gaps() == []
    assert {interval.device for interval in gateway.reader.connections()} == {DEAD_STATION}
    assert gateway.reader.dead_letters() == []
    for subject in workshop.subjects:
        assert report.stored[subject.device] > 30, subject
        assert report.served[subject.device] >= report.stored[subject.device] - 60, subject
    assert report.events["imm-01"] >= 5
    statuses = {row.status for piece in gateway.reader.history(_ids(gateway)) for row in piece}
    assert statuses >= {0, 0x808C0000, 0x40930000}, "BadSensorFailure and UncertainSensorNotAccurate were served"


def _ids(gateway: Installation) -> list[int]:
    return [signal.id for signal in gateway.reader.signals()]


def _the_comparison_would_see_it(gateway: Installation, workshop: Workshop) -> None:
    """A lost reading, a false one and a lost event are found, so that silence means something."""
    names = {(signal.device, signal.name): signal.id for signal in gateway.reader.signals()}
    for device, signal in (("imm-01", "cycle/last_time"), ("sew-01", "stitches")):
        rows = [row for piece in gateway.reader.history([names[device, signal]]) for row in piece]
        some = [subject for subject in workshop.subjects if subject.device == device]
        tampered = Tampered(gateway.reader)
        tampered.lost = rows[len(rows) // 2]
        kinds = {difference.kind for difference in compare(tampered, some, workshop.truth).differences}
        assert "served and not stored" in kinds
        tampered.lost, tampered.changed = None, rows[len(rows) // 2]
        kinds = {difference.kind for difference in compare(tampered, some, workshop.truth).differences}
        assert "stored and not served" in kinds
    tampered = Tampered(gateway.reader)
    tampered.lost_event = next(event.id for event in gateway.reader.events(devices=["imm-01"]))
    some = [subject for subject in workshop.subjects if subject.device == "imm-01"]
    kinds = {difference.kind for difference in compare(tampered, some, workshop.truth).differences}
    assert "event sent and not stored" in kinds
