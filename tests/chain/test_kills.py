"""kill -9 of each process of the chain, under load, and what is left is the truth."""

from __future__ import annotations

import signal
import time

import pytest

from tests.chain.conftest import InstallationFactory, WorkshopFactory
from tests.chain.installation import DEAD_STATION, Installation, Workshop
from tests.chain.rest import latest_agrees
from tests.chain.truth import Report, compare, now_us
from tests.servers.brokers import Mosquitto
from tests.servers.fixtures import PostgresFactory

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

OUTAGE = 2.0
"""Seconds for which a killed process is missed."""
EVENTS_TAKE = 2_000_000
"""µs after which an event that was fired has surely been asked for: publishing interval, group commit and the way."""


def _work(gateway: Installation, workshop: Workshop, microseconds: int) -> None:
    """Let the workshop work for so long and everything of it be stored."""
    gateway.settle(workshop.subjects, now_us() + microseconds)


def _outage(gateway: Installation, name: str) -> tuple[int, int]:
    """Kill a process, miss it for a while and start it again. Returns from when to when it was not there (µs)."""
    killed = now_us()
    gateway.kill(name)
    time.sleep(OUTAGE)  # the length of the outage, not a hope
    started = now_us()
    gateway.start(name)
    return killed, started


def _standstill(gateway: Installation) -> tuple[int, int]:
    """The collector is frozen for a while, as with its machine. Returns from when to when (µs)."""
    child = gateway.processes["collect"].child
    stopped = now_us()
    child.send(signal.SIGSTOP)
    time.sleep(2 * OUTAGE)  # the length of the outage, not a hope
    went_on = now_us()
    child.send(signal.SIGCONT)
    return stopped, went_on


def _truth(gateway: Installation, workshop: Workshop) -> Report:
    """The comparison, after everything up to now is stored."""
    now = now_us()
    gateway.settle(workshop.subjects, now + EVENTS_TAKE)
    report = compare(gateway.reader, workshop.subjects, workshop.truth, events_until=now)
    report.holds()
    assert gateway.reader.dead_letters() == []
    assert all(report.stored[subject.device] for subject in workshop.subjects)
    return report


def test_killed_ingest_broker_and_serve_nothing_is_missing(
    install: InstallationFactory, open_workshop: WorkshopFactory
) -> None:
    workshop = open_workshop(seed=2)
    gateway = install(workshop.links())
    gateway.start()
    _work(gateway, workshop, 0)
    for victim in ("ingest", "broker", "serve"):
        _outage(gateway, victim)
        _work(gateway, workshop, 1_000_000)
    for victim in ("broker", "ingest"):
        gateway.kill(victim)
    gateway.start("ingest", "broker")
    report = _truth(gateway, workshop)
    assert not report.excused
    assert gateway.reader.gaps() == []
    assert len(gateway.reader.streams()) == 1
    latest_agrees(gateway, without=frozenset({DEAD_STATION}))


def test_killed_collector_leaves_a_gap_that_covers_what_it_missed(
    install: InstallationFactory, open_workshop: WorkshopFactory
) -> None:
    workshop = open_workshop(seed=3)
    gateway = install(workshop.links())
    gateway.start()
    _work(gateway, workshop, 0)
    outages = []
    for _ in range(2):
        outages.append(_outage(gateway, "collect"))
        _work(gateway, workshop, 3_000_000)
    stopped, went_on = _standstill(gateway)
    _work(gateway, workshop, 0)
    _truth(gateway, workshop)
    _covered(gateway, workshop, outages)
    assert len(gateway.reader.streams()) == 3
    (gap,) = [gap for gap in gateway.reader.gaps(limit=10_000) if gap.device is None]
    assert gap.cause == "collector_down"
    assert gap.end is not None
    assert gap.start <= stopped < went_on <= gap.end, "what was not read meanwhile is missing"


def _covered(gateway: Installation, workshop: Workshop, outages: list[tuple[int, int]]) -> None:
    """Each device has a gap collector_down over each outage, and no gap is far longer than that."""
    for subject in workshop.subjects:
        gaps = [gap for gap in gateway.reader.gaps(limit=10_000) if gap.device == subject.device]
        assert {gap.cause for gap in gaps} == {"collector_down"}, subject
        for killed, started in outages:
            covering = [gap for gap in gaps if gap.start <= killed and gap.end is not None and gap.end >= started]
            assert covering, f"{subject.device}: nothing covers {killed} to {started}: {gaps}"
            assert all(gap.end - gap.start < started - killed + 15_000_000 for gap in covering if gap.end is not None)


def test_the_whole_chain_on_postgresql_and_mosquitto(
    install: InstallationFactory,
    open_workshop: WorkshopFactory,
    postgres_factory: PostgresFactory,
    mosquitto: Mosquitto,
) -> None:
    """Every process is killed once, the database and the broker too."""
    database = postgres_factory(settings={"fsync": "on", "synchronous_commit": "on"})
    workshop = open_workshop(seed=4)
    gateway = install(
        workshop.links(), bus={"host": mosquitto.host, "port": mosquitto.port}, store_url=database.new_database()
    )
    gateway.start()
    _work(gateway, workshop, 0)
    outages = []
    database.kill()
    time.sleep(OUTAGE)  # the length of the outage, not a hope
    database.start()
    mosquitto.kill()
    time.sleep(OUTAGE)
    mosquitto.start()
    for victim in ("ingest", "serve"):
        _outage(gateway, victim)
    _work(gateway, workshop, 0)
    outages.append(_outage(gateway, "collect"))
    report = _truth(gateway, workshop)
    _covered(gateway, workshop, outages)
    assert sum(report.served.values()) > 5_000
    latest_agrees(gateway, without=frozenset({DEAD_STATION}))
