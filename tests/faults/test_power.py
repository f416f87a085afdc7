"""The power goes at any moment: what was told to be durable is there, and what is there is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.models import StoreSettings
from gateway.ledger._outbox_file import Durability
from gateway.ledger.bodies import decode_body
from gateway.ledger.opening import open_or_salvage
from gateway.ledger.outbox import Outbox
from gateway.store import Reader, open_reader, open_writer
from gateway.store.records import Reading
from schemas.wire import ZERO_HASH, Batch, Closed, Envelope, Kind, Link, Tombstone
from tests.chain.conftest import InstallationFactory, WorkshopFactory, install, open_workshop
from tests.chain.installation import Installation
from tests.chain.truth import compare, now_us
from tests.faults.power import Cut, Names, Op, RecordError, Recording
from tests.faults.shim import environment
from tests.servers.brokers import Mosquitto
from tests.store.feed import SECOND, T0

__all__ = ["install", "open_workshop"]  # fixtures

LONG = bool(os.environ.get("LONG"))
CUTS = 2_000 if LONG else 100
SEED = int(os.environ.get("SEED", "1"))


def write(recording: Recording, *words: str) -> None:
    """Run a program of `tests.faults.writers` under the record."""
    env = {**os.environ, **environment(below=recording.folder, record=recording.record)}
    command = [sys.executable, "-m", "tests.faults.writers", words[0], str(recording.folder), *words[1:]]
    subprocess.run(command, env=env, check=True, timeout=60)


def new_recording(tmp_path: Path, names: Names = "posix") -> Recording:
    folder = tmp_path / "disk"
    folder.mkdir()
    return Recording(folder, tmp_path / "record", names)


def told(cut: Cut, name: str) -> list[dict[str, Any]]:
    """What the program had said of this kind before the cut."""
    marks = [json.loads(text) for text in cut.marks]
    return [one for one in marks if name in one]


# ------------------------------------------------------------------------------------------------- the tool itself


def lost_rows(recording: Recording, scratch: Path) -> tuple[int, int]:
    """(cuts after which a committed row is missing, cuts after which the database is broken)."""
    rng = random.Random(SEED)
    missing = broken = 0
    for cut in recording.cuts(recording.positions(CUTS, rng), rng):
        cut.write_to(scratch)
        last = max((one["row"] for one in told(cut, "row")), default=0)
        db = sqlite3.connect(scratch / "rows.sqlite")
        try:
            tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            numbers = [n for (n,) in db.execute("SELECT number FROM t ORDER BY number")] if tables != (0,) else []
            whole = db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            numbers, whole = [], False
        finally:
            db.close()
        if not whole:
            broken += 1
        elif numbers[:last] != list(range(1, last + 1)):
            missing += 1
    return missing, broken


@pytest.mark.parametrize("names", ["posix", "ext4"])
@pytest.mark.parametrize("level", ["wal-FULL", "truncate-FULL", "wal-NORMAL", "wal-OFF", "truncate-OFF"])
def test_a_database_that_syncs_keeps_its_commits_and_one_that_does_not_is_found_out(
    tmp_path: Path, level: str, names: Names
) -> None:
    recording = new_recording(tmp_path, names)
    write(recording, "rows", level)
    missing, broken = lost_rows(recording, tmp_path / "scratch")
    if level.endswith("FULL"):
        assert (missing, broken) == (0, 0)
    elif level == "wal-NORMAL":
        assert broken == 0
        assert missing > 0, "a commit that is not synced may be lost"
    else:
        assert missing > 0
        assert broken > 0, "a checkpoint that is not synced may tear the database"


@pytest.mark.parametrize("names", ["posix", "ext4"])
@pytest.mark.parametrize("steps", ["file,folder", "file", "folder", ""])
def test_a_file_is_there_when_it_and_its_name_were_synced(tmp_path: Path, steps: str, names: Names) -> None:
    recording = new_recording(tmp_path, names)
    write(recording, "file", steps)
    rng = random.Random(SEED)
    scratch = tmp_path / "scratch"
    torn = behind = 0
    for cut in recording.cuts(recording.positions(CUTS, rng), rng):
        cut.write_to(scratch)
        last = max((one["file"] for one in told(cut, "file")), default=0)
        content = (scratch / "named").read_bytes() if (scratch / "named").exists() else b""
        number = int(content[:6].strip(b"\0") or 0)
        if content and content != b"%06d" % number * 1000:
            torn += 1
        elif number < last:
            behind += 1
    assert (torn > 0) == ("file" not in steps)
    assert (behind > 0) == ("folder" not in steps) or (torn > 0)


def test_what_cannot_be_modelled_is_said(tmp_path: Path) -> None:
    recording = new_recording(tmp_path)
    script = (
        "import mmap, sys; f = open(sys.argv[1], 'w+b'); f.write(bytes(4096)); f.flush(); mmap.mmap(f.fileno(), 4096)"
    )
    env = {**os.environ, **environment(below=recording.folder, record=recording.record)}
    subprocess.run([sys.executable, "-c", script, str(recording.folder / "mapped")], env=env, check=True, timeout=60)
    entries = recording.entries()
    assert [entry.op for entry in entries] == [Op.CREATE, Op.WRITE, Op.MAP]
    with pytest.raises(RecordError, match="shared mapping"):
        list(recording.cuts([len(entries)], random.Random(1)))


# ------------------------------------------------------------------------------------------------------ the outbox


def _held(box: Outbox, stream: str) -> list[Envelope]:
    found = box.stream(stream)
    assert found is not None
    return box.read(stream, found.low, 100_000, 10**9)


def _chain_is_right(box: Outbox, stream: str) -> list[Envelope]:
    """The messages of a stream, after their numbers and hashes were found to be one chain."""
    view = box.stream(stream)
    assert view is not None
    messages = _held(box, stream)
    following, before = view.low, None
    for message in messages:
        first = before is None and message.seq <= following <= message.last_seq  # a tombstone may begin below
        assert first or message.seq == following, f"{stream}: {message.seq} follows {following - 1}"
        assert before is None or message.prev == before, f"{stream}: {message.seq} does not continue the chain"
        body = decode_body(message.kind, message.body, message.enc)
        before = body.hash if isinstance(body, Tombstone) else message.hash()
        following = message.last_seq + 1
    assert following == view.high + 1
    if messages and messages[0].seq == 1:
        assert messages[0].prev == ZERO_HASH
    assert before is None or before == view.hash
    return messages


def _numbers(message: Envelope) -> set[int]:
    body = decode_body(message.kind, message.body, message.enc)
    match body:
        case Batch():
            return set(body.points)
        case Link():
            return {int(body.device)}
        case Tombstone():
            return {point for gap in body.gaps for point in gap.points or ()}
        case _:
            return set()


class Outboxes:
    """What the programs had said of their outbox before a cut, and whether the file agrees."""

    def __init__(self, cut: Cut) -> None:
        self.numbers = {(one["stream"], one["seq"]): one for one in told(cut, "number")}
        self.durable: dict[str, int] = {}
        for one in told(cut, "durable"):
            self.durable[one["stream"]] = one["durable"]
        self.confirmed: dict[str, int] = {}
        for one in told(cut, "confirmed"):
            self.confirmed[one["stream"]] = max(one["confirmed"], self.confirmed.get(one["stream"], 0))
        self.complete_to = max((one["complete_to"] for one in told(cut, "complete_to")), default=0)

    def check(self, box: Outbox, *, tail_may_be_lost: bool) -> None:
        held: set[int] = set()
        for view in box.streams():
            assert view.low <= self.confirmed.get(view.id, 0) + 1, "what was not confirmed is gone"
            for message in _chain_is_right(box, view.id):
                for seq in range(message.seq, message.last_seq + 1):
                    one = self.numbers.get((view.id, seq))
                    if one is not None:
                        assert one["number"] in _numbers(message), f"{view.id} {seq} is another message"
                        assert message.kind != Kind.TOMBSTONE or not one["link"], "only readings are dropped"
                    else:
                        assert message.kind == Kind.CLOSED
            held |= {
                one["number"] for (stream, seq), one in self.numbers.items() if stream == view.id and seq <= view.high
            }
            if not tail_may_be_lost:
                assert view.high >= self.durable.get(view.id, 0), "what commit called durable is lost"
        streams = {view.id for view in box.streams()}
        gone = {s for s in self.durable if s not in streams}
        if not tail_may_be_lost:
            assert all(self.confirmed.get(stream, 0) >= self.durable[stream] for stream in gone)
            assert int(box.meta("complete_to") or 0) >= self.complete_to
        last = max(held, default=0)
        assert int(box.meta("complete_to") or 0) <= last, "complete up to what is lost"
        for (stream, _), one in self.numbers.items():
            kept = one["number"] in held or (
                stream in gone and self.confirmed.get(stream, 0) >= self.durable.get(stream, 1)
            )
            assert kept or one["number"] > last, "only the tail may be lost"


@pytest.mark.parametrize("level", ["power", "process"])
def test_an_outbox_holds_what_commit_called_durable(tmp_path: Path, level: Durability) -> None:
    """Three starts, each killed, and the power goes anywhere in them. At level `process` the tail may be lost, and nothing else."""
    recording = new_recording(tmp_path)
    for start in range(3):
        write(recording, "outbox", level, str(SEED * 10 + start), str(start * 1000))
    rng = random.Random(SEED)
    entries = recording.entries()
    positions = sorted([*recording.positions(CUTS, rng, entries), *range(0, 60, 1 if LONG else 6)])
    scratch = tmp_path / "scratch"
    lost = 0
    for cut in recording.cuts(positions, rng, entries):
        cut.write_to(scratch)
        said = Outboxes(cut)
        box, salvaged = open_or_salvage(scratch / "outbox.sqlite", level, cut.at // 1000)
        try:
            assert salvaged is None or not said.durable, "a power cut is no damage"
            said.check(box, tail_may_be_lost=level == "process")
            ends = {view.id: (view.high, view.hash) for view in box.streams() if view.low <= view.high}
            lost += any(view.high < said.durable.get(view.id, 0) for view in box.streams())
            new = box.begin()
            box.commit()
            assert new not in said.durable, "no stream ever gets a number twice"
            closed = [decode_body(m.kind, m.body, m.enc) for m in _held(box, new)]
            assert closed == [Closed(stream, *end) for stream, end in ends.items()]
            (whole,) = box._db.execute("PRAGMA integrity_check").fetchone()
            assert whole == "ok"
        finally:
            box.close()
        if salvaged is None:
            assert {path.name for path in scratch.iterdir()} <= {f"outbox.sqlite{end}" for end in ("", "-wal", "-shm")}
    assert (lost > 0) == (level == "process"), "the cut is one that costs what is not synced"


def _all_held(box: Outbox) -> list[tuple[str, int, int, int, bytes]]:
    return [
        (view.id, message.seq, message.last_seq, message.kind, message.body)
        for view in box.streams()
        for message in _held(box, view.id)
    ]


def test_a_salvage_that_is_cut_loses_nothing_that_it_would_have_saved(tmp_path: Path) -> None:
    recording = new_recording(tmp_path)
    write(recording, "outbox", "power", str(SEED), "0")
    damaged = tmp_path / "damaged"
    shutil.copytree(recording.folder, damaged)
    (damaged / "outbox.sqlite-shm").unlink()
    raw = bytearray((damaged / "outbox.sqlite").read_bytes())
    raw[4096 * 6 + 100 : 4096 * 6 + 2000] = bytes(1900)
    raw[:200] = bytes(200)  # what makes it a database, and the root of everything
    (damaged / "outbox.sqlite").write_bytes(raw)
    whole = tmp_path / "whole"
    shutil.copytree(damaged, whole)
    box, saved = open_or_salvage(whole / "outbox.sqlite", "power", 0)
    expected = _all_held(box)
    box.close()
    assert saved is not None
    assert saved.messages > 0

    recording = Recording(damaged, tmp_path / "record-of-salvage")
    write(recording, "salvage")
    entries = recording.entries()
    rng = random.Random(SEED)
    positions = [position for position in range(len(entries) + 1) for _ in range(4)]
    scratch = tmp_path / "scratch"
    for cut in recording.cuts(positions, rng, entries):
        cut.write_to(scratch)
        box, _ = open_or_salvage(scratch / "outbox.sqlite", "power", 0)
        try:
            assert _all_held(box) == expected, f"cut at {cut.position} of {len(entries)}"
        finally:
            box.close()


# ------------------------------------------------------------------------------------------------------- the store


def _history(reader: Reader, signal: int) -> list[Reading]:
    return [row for chunk in reader.history([signal]) for row in chunk]


def test_a_store_has_the_rows_of_its_watermark_and_every_watermark_that_it_told(tmp_path: Path) -> None:
    recording = new_recording(tmp_path)
    for start in range(2):
        write(recording, "store", str(SEED * 10 + start), str(start * 1000))
    rng = random.Random(SEED)
    entries = recording.entries()
    opening = next(index for index, entry in enumerate(entries) if entry.op == Op.MARK)
    positions = recording.positions(CUTS // 3, rng, entries)
    positions += [rng.randint(0, opening) for _ in range(CUTS // 12)]  # the first start, which makes the schema
    scratch = tmp_path / "scratch"
    for cut in recording.cuts(positions, rng, entries):
        cut.write_to(scratch)
        watermarks = {one["stream"]: one["watermark"] for one in told(cut, "watermark")}
        if not watermarks:
            open_writer(StoreSettings(), scratch, "Asia/Shanghai").close()
        reader = open_reader(StoreSettings(), scratch)
        try:
            _rows_are_those_of_the_watermarks(reader, cut, watermarks)
        finally:
            reader.close()
        db = sqlite3.connect(scratch / "store.sqlite")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


def _rows_are_those_of_the_watermarks(reader: Reader, cut: Cut, watermarks: dict[str, int]) -> None:
    stored = {row.id: row.watermark for row in reader.streams()}
    for stream, watermark in watermarks.items():
        assert stored.get(stream, 0) >= watermark, "a confirmed watermark is lost"
    expected: list[int] = []
    for one in told(cut, "birth"):
        watermark = stored.get(one["stream"], 0)
        expected += [T0 + (one["birth"] + seq - 1) * SECOND for seq in range(2, watermark + 1)]
    for signal in range(1, 7) if expected else ():
        assert [row.ts for row in _history(reader, signal)] == expected, "rows and watermark went apart"


# -------------------------------------------------------------------------------------------------- the whole box


@pytest.mark.chain
@pytest.mark.timeout(3_600 if LONG else 180)
@pytest.mark.parametrize("level", ["power", *(["process"] if LONG else [])])
def test_the_power_of_the_whole_box_goes(
    install: InstallationFactory, open_workshop: WorkshopFactory, mosquitto: Mosquitto, tmp_path: Path, level: str
) -> None:
    """Outbox and store are cut at one moment; what the machines served is stored, or in the gap of the outage."""
    workshop = open_workshop(devices=("imm-01", "plc-01", "meter-01"), seed=SEED)
    bus = {"host": mosquitto.host, "port": mosquitto.port}

    def installed() -> Installation:
        made = install(workshop.links(), bus=bus)
        settings = yaml.safe_load(made.config.read_text(encoding="utf-8")) | {"outbox": {"durability": level}}
        made.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return made

    box = installed()
    recording = Recording(box.data, tmp_path / "record")
    for process in box.processes.values():
        process._env = {**process._env, **environment(below=box.data, record=recording.record)}
    box.start()
    box.settle(workshop.subjects, now_us())
    before = len(recording.entries())
    box.settle(workshop.subjects, now_us() + 2_000_000)
    for name in box.processes:
        box.kill(name)
    entries = recording.entries()
    rng = random.Random(SEED)
    positions = [rng.randint(before, len(entries)) for _ in range(40 if LONG else 1)]
    for cut in recording.cuts(positions, rng, entries):
        after = installed()
        cut.write_to(after.data)
        booted = now_us()
        after.start("ingest", "collect")
        now = now_us()
        after.settle(workshop.subjects, now + 2_000_000)
        report = compare(after.reader, workshop.subjects, workshop.truth, events_until=now)
        report.holds()
        assert after.reader.dead_letters() == []
        for subject in workshop.subjects:
            gaps = [
                gap for gap in after.reader.gaps(limit=10_000) if gap.device == subject.device and gap.end is not None
            ]
            assert {gap.cause for gap in gaps} == {"collector_down"}
            assert any(gap.start <= cut.at // 1000 and booted <= gap.end for gap in gaps), (
                subject,
                gaps,
                cut.at,
                booted,
            )
            assert report.stored[subject.device]
        for name in after.processes:
            after.kill(name)
