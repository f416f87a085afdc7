"""Faults of disks, databases, certificates, versions and neighbours."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import psycopg

from tests.chain.installation import Process
from tests.faults.faults import COLLECT, DEVICE, Fault, Steps
from tests.faults.hostile import Flood, deaf_listener, deaf_subscriber
from tests.faults.power import Recording
from tests.faults.rig import Kind, Rig
from tests.faults.shim import environment
from tests.servers.brokers import Mosquitto
from tests.servers.processes import free_port

SQLITE: tuple[Kind, ...] = ("mosquitto", "embedded")
POSTGRESQL: tuple[Kind, ...] = ("postgresql",)
MOSQUITTO: tuple[Kind, ...] = ("mosquitto", "postgresql")


# --------------------------------------------------------------------------------------------------------------- disks


def disk_full(name: str, rig: Rig, random: Random) -> Steps:
    """Not a byte is left on the disk, for a while."""
    if name == "database":
        rig.expected_down.add("database")  # PostgreSQL ends when its log cannot be written, and is started again
    rig.fill(name)
    try:
        yield random.uniform(2.0, 6.0)
    finally:
        rig.free(name)
        if name == "database":
            rig.start(name)


# ----------------------------------------------------------------------------------------------------------- databases


def locked(what: str, rig: Rig, random: Random) -> Steps:
    """Somebody else writes in the SQLite file and does not come to an end."""
    file = rig.collect_data / "outbox.sqlite" if what == "outbox" else rig.store_data / "store.sqlite"
    other = sqlite3.connect(file, isolation_level=None, timeout=10)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        yield random.uniform(1.0, 8.0)
        other.execute("ROLLBACK")


def locked_table(rig: Rig, random: Random) -> Steps:
    """Somebody holds the readings' table locked."""
    with psycopg.connect(rig.database_url, connect_timeout=20) as other:
        other.execute("LOCK TABLE reading IN ACCESS EXCLUSIVE MODE")
        yield random.uniform(1.0, 8.0)
        other.rollback()


def connection_limit(rig: Rig, random: Random) -> Steps:
    """All connections to the database are somebody else's."""
    others: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        one = psycopg.connect(rig.database_url, autocommit=True, connect_timeout=20)
        others.append(one)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                one.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'other' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
                others.append(psycopg.connect(rig.database_url, application_name="other", connect_timeout=20))
        yield random.uniform(1.0, 5.0)
    finally:
        for other in others:
            other.close()


# -------------------------------------------------------------------------------------------------------------- broker


def forgetful(rig: Rig, random: Random) -> Steps:
    """The broker comes back without its persistence."""
    assert isinstance(rig.broker, Mosquitto)
    rig.kill("broker")
    for file in (rig.broker.configuration.parent / "persistence").iterdir():
        file.unlink()
    try:
        yield random.uniform(0.0, 2.0)
    finally:
        rig.start("broker")


def expired(rig: Rig, random: Random) -> Steps:
    """The broker's certificate has run out; after a while it gets a new one."""
    assert isinstance(rig.broker, Mosquitto)
    assert rig.authority is not None
    configuration = rig.broker.configuration
    good = configuration.read_text(encoding="utf-8")
    old = rig.authority.issue("expired", days=-0.5)
    words = [line.split(" ", 1) for line in good.splitlines()]
    bad = {"certfile": str(old.certificate), "keyfile": str(old.key)}
    rig.kill("broker")
    configuration.write_text("".join(f"{name} {bad.get(name, rest)}\n" for name, rest in words), encoding="utf-8")
    try:
        rig.start("broker")
        yield random.uniform(2.0, 6.0)
    finally:
        rig.kill("broker")
        configuration.write_text(good, encoding="utf-8")
        rig.start("broker")


def flood(rig: Rig, random: Random) -> Steps:
    """Rubbish on the ledger's topics, a thousand messages a second."""
    hostile = Flood(rig, Random(random.random()), 1000)
    try:
        yield random.uniform(3.0, 7.0)
    finally:
        hostile.end()


def deaf(rig: Rig, random: Random) -> Steps:
    """A subscriber of everything that never reads."""
    with contextlib.closing(deaf_subscriber(rig)):
        yield random.uniform(4.0, 8.0)


def deaf_client(rig: Rig, random: Random) -> Steps:
    """Ten clients of the live values that never read."""
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(contextlib.closing(deaf_listener(rig)))
        yield random.uniform(4.0, 8.0)


# --------------------------------------------------------------------------------------------------------------- roles


def _copy(folder: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for file in folder.glob("outbox.sqlite*"):
        shutil.copy2(file, to / file.name)


def outbox_of_last_week(rig: Rig, random: Random) -> Steps:
    """Collect is ended, and an outbox of before put in its place: what it had and had not been sent yet is gone."""
    kept = rig.folder / "last-week"
    _end(rig, "collect")
    _copy(rig.collect_data, kept)
    rig.start("collect")
    yield random.uniform(3.0, 6.0)
    _end(rig, "collect")
    try:
        for file in rig.collect_data.glob("outbox.sqlite*"):
            file.unlink()
        for file in kept.iterdir():
            shutil.copy2(file, rig.collect_data / file.name)
        yield random.uniform(0.0, 1.0)
    finally:
        rig.start("collect")


def _end(rig: Rig, role: str) -> None:
    rig.expected_down.add(role)
    if rig.running(role):
        rig.roles[role].child.stop(10)


def power_cut(rig: Rig, random: Random) -> Steps:
    """The power of the box goes, and comes again: of what was written and not synced something is there and something is not (see power.py). On
    PostgreSQL it is the collector's box alone.

    What is cut is the last second and more: a moment between two writes, the same for outbox and store.
    """
    box = ("collect",) if rig.database is not None else ("collect", "ingest", "serve")
    folder = rig.disks["outbox"].folder if rig.database is not None else rig.folder / "disks"
    for role in box:
        _end(rig, role)
    rig.leave_store()
    record = rig.folder / "record"
    record.unlink(missing_ok=True)
    recording = Recording(folder, record)
    for role in box:
        rig.roles[role].start({**rig.roles[role].env, **environment(below=folder, record=record)})
    yield random.uniform(4.0, 7.0)
    for role in (*box, *(("broker",) if rig.database is None else ())):
        rig.kill(role)
    rig.leave_store()
    try:
        entries = recording.entries()
        last = len(entries)
        if rig.database is None:
            last = max(
                0, len(entries) - random.randrange(1 + sum(e.at > entries[-1].at - 1_500_000_000 for e in entries))
            )
        (cut,) = recording.cuts([last], random, entries)
        found = rig.folder / "after-the-cut"
        cut.write_to(found)
        for disk in ("outbox",) if rig.database is not None else ("outbox", "store"):
            to = rig.disks[disk].folder
            source = found if rig.database is not None else found / disk
            shutil.rmtree(to / "data")
            shutil.copytree(source / "data", to / "data")
        yield random.uniform(0.0, 1.0)
    finally:
        if rig.database is None:
            rig.start("broker")
        for role in box:
            rig.start(role)


def second_ingest(rig: Rig, random: Random) -> Steps:
    """A second ingest is started on the same store; then one of the two is killed."""
    config = rig.write_config(
        "ingest", "second-ingest", metrics={"collect_port": free_port(), "ingest_port": free_port()}
    )
    env = rig.roles["ingest"].env
    command = [sys.executable, "-m", "gateway.roles", "ingest", "--config", str(config)]
    second = Process("second-ingest", command, rig.folder / "second-ingest.log", env)
    second.start()
    try:
        yield random.uniform(2.0, 4.0)
        if random.random() < 0.5:
            rig.kill("ingest")
            yield random.uniform(0.0, 4.0)
    finally:
        second.kill()
        rig.start("ingest")


def older_ingest(rig: Rig, random: Random) -> Steps:
    """Collect was upgraded first: for a while an ingest runs that is too old for its messages."""
    _end(rig, "ingest")
    config = rig.folder / "ingest.yaml"
    command = [sys.executable, "-m", "tests.faults.older_ingest", "--config", str(config)]
    old = Process("older-ingest", command, rig.folder / "older-ingest.log", rig.roles["ingest"].env)
    old.start()
    try:
        yield random.uniform(3.0, 6.0)
    finally:
        old.kill()
        rig.start("ingest")


def slow_sync(name: str, rig: Rig, random: Random) -> Steps:
    """Each fsync takes a fifth to one and a half seconds longer."""
    control = rig.controls[name]
    control.sync_delay = random.uniform(0.2, 1.5)
    try:
        yield random.uniform(3.0, 7.0)
    finally:
        control.sync_delay = 0.0


def read_only(name: str, rig: Rig, random: Random) -> Steps:
    """The file system has become read-only, as after an error; after a while it is mounted anew."""
    control = rig.controls[name]
    if name == "database":
        rig.expected_down.add("database")  # PostgreSQL ends when its log cannot be written, and is started again
    control.read_only()
    try:
        yield random.uniform(2.0, 6.0)
    finally:
        control.healthy()
        rig.start(name)


def clock_set(ahead: bool, rig: Rig, random: Random) -> Steps:
    """The clock of the box is ten minutes to two hours wrong for a while, then right again; the devices' clocks are right all the time."""
    seconds = random.uniform(600, 7200) * (1 if ahead else -1)
    for control in rig.controls.values():
        control.clock = seconds
    try:
        yield random.uniform(4.0, 8.0)
    finally:
        for control in rig.controls.values():
            control.clock = 0.0
        yield 2.5  # until it is noticed: readings keep a steady time until then


def _disks() -> Iterator[Fault]:
    outbox, store = frozenset({"collect", "outbox"}), frozenset({"ingest", "store"})
    database, broker = frozenset({"database"}), frozenset({"broker"})
    lost = COLLECT | DEVICE | {"dropped"}
    yield Fault("disk full: outbox", partial(disk_full, "outbox"), lost, intervals=True, parts=outbox)
    yield Fault("disk full: store (SQLite)", partial(disk_full, "store"), kinds=SQLITE, parts=store)
    yield Fault("disk full: database", partial(disk_full, "database"), kinds=POSTGRESQL, parts=database)
    yield Fault("disk full: broker", partial(disk_full, "broker"), kinds=MOSQUITTO, parts=broker)
    yield Fault("read-only: outbox", partial(read_only, "collect"), lost, intervals=True, parts=outbox)
    yield Fault("read-only: store (SQLite)", partial(read_only, "ingest"), kinds=SQLITE, parts=store)
    yield Fault("read-only: database", partial(read_only, "database"), kinds=POSTGRESQL, parts=database)
    yield Fault("slow fsync: outbox", partial(slow_sync, "collect"), DEVICE, parts=outbox)
    yield Fault("slow fsync: store (SQLite)", partial(slow_sync, "ingest"), kinds=SQLITE, parts=store)
    yield Fault("slow fsync: database", partial(slow_sync, "database"), kinds=POSTGRESQL, parts=database)
    yield Fault("lock held: outbox", partial(locked, "outbox"), DEVICE, parts=outbox)
    yield Fault("lock held: store (SQLite)", partial(locked, "store"), kinds=SQLITE, parts=store)
    yield Fault("lock held: database", locked_table, kinds=POSTGRESQL, parts=database)
    yield Fault("connection limit reached: database", connection_limit, kinds=POSTGRESQL, parts=database)


def other_faults() -> Iterator[Fault]:
    """Those of this module."""
    broker, ingest = frozenset({"broker"}), frozenset({"ingest"})
    yield from _disks()
    yield Fault("restarted without its persistence: broker", forgetful, kinds=MOSQUITTO, parts=broker)
    yield Fault("certificate expired: broker", expired, kinds=POSTGRESQL, parts=broker)
    yield Fault("a flood of poison", flood, parts=broker)
    yield Fault("a subscriber that never reads", deaf, parts=broker)
    yield Fault("ten clients that never read", deaf_client, parts=frozenset({"serve"}))
    yield Fault(
        "outbox replaced by last week's", outbox_of_last_week, COLLECT | {"lost"}, intervals=True,
        parts=frozenset({"collect", "outbox"}),
    )  # fmt: skip
    yield Fault(
        "power cut", power_cut, COLLECT, intervals=True,
        parts=frozenset({"collect", "ingest", "serve", "broker", "outbox", "store"}),
    )  # fmt: skip
    everything = frozenset({"collect", "ingest", "serve", "broker", "database", "outbox", "store", "devices"})
    yield Fault("clock set forward and back", partial(clock_set, True), parts=everything)
    yield Fault("clock set back and forward", partial(clock_set, False), parts=everything)
    yield Fault("two ingests at once", second_ingest, parts=ingest | {"store"})
    yield Fault("collect upgraded before ingest", older_ingest, parts=ingest)
