"""Damaged outboxes: the start goes on by itself, no wrong message comes through, and each one that is whole is saved.

Real files are damaged at random places: sectors zeroed and overwritten, bits turned, pages exchanged, ends cut off, of the file and of the
log beside it.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger._outbox_file import is_damage, marker_of
from gateway.ledger.bodies import decode_body
from gateway.ledger.opening import damaged_files, open_or_salvage
from gateway.ledger.outbox import Outbox, OutboxDamagedError, OutboxError
from schemas.wire import Batch, Birth, Done, Envelope, Gap, Kind, Progress, Tombstone

_encode = msgspec.msgpack.encode
PAGE, FRAME = 4096, 24
NOW = 900_000_000
Key = tuple[str, int]


@dataclass
class Made:
    """An outbox as a killed process leaves it, with all that was ever in it and what it holds."""

    path: Path
    ever: dict[Key, Envelope]
    held: dict[Key, Envelope]


def make(folder: Path, chance: random.Random, *, checkpoint: bool) -> Made:
    """Three streams with births, readings and progress; some confirmed and gone, some buried."""
    box = Outbox(folder / "live.sqlite", "process")
    box.pin("store-1")
    ever: dict[Key, Envelope] = {}
    for stream in range(3):
        name = box.begin()
        at = stream * 100_000_000
        box.append(Kind.BIRTH, _encode(Birth(at, "dev", "a", name_zh="名" * 40)))
        for _ in range(chance.randrange(40, 90)):
            at += 1_000_000
            rows = chance.choice([1, 5, 20, 20, 600])
            values = [chance.random() for _ in range(rows)]
            box.append(Kind.READINGS, _encode(Batch(at, list(range(rows)), list(range(rows)), values)))
            if chance.random() < 0.4:
                box.append(Kind.PROGRESS, _encode(Progress(at + 1, [Done("dev", "g", at)])))
            if chance.random() < 0.4:
                box.commit()
        box.commit()
        ever |= {(name, m.seq): m for m in box.read(name, 1, 10_000, 10**9)}
        if chance.random() < 0.5:
            box.set_confirmed(name, chance.randrange(2, 30), 0.0)
            box.trim(1.0)
        if chance.random() < 0.3:
            box.drop_oldest(box.size - 10_000, 2)
    held = {(s.id, m.seq): m for s in box.streams() for m in box.read(s.id, 1, 10_000, 10**9)}
    if checkpoint:
        box._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = folder / "outbox.sqlite"
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"live.sqlite{suffix}", f"{path}{suffix}")
    box.close()
    return Made(path, ever, held)


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def damage(file: Path, what: str, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if not data:
        return
    at = chance.randrange(len(data)) // 512 * 512
    match what:
        case "zeros":
            data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
        case "noise":
            data[at : at + 512] = chance.randbytes(len(data[at : at + 512]))
        case "bit":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case "exchanged":
            one, two = (chance.randrange(-(-len(data) // PAGE)) * PAGE for _ in range(2))
            data[one : one + PAGE], data[two : two + PAGE] = data[two : two + PAGE], data[one : one + PAGE]
        case "cut":
            del data[at:]
    file.write_bytes(data)


def read_all(box: Outbox) -> dict[Key, Envelope]:
    found: dict[Key, Envelope] = {}
    for stream in box.streams():
        first = 1
        while batch := box.read(stream.id, first, 500, 10**9):
            found |= {(stream.id, m.seq): m for m in batch}
            first = batch[-1].last_seq + 1
    return found


def opened(path: Path) -> tuple[Outbox, dict[Key, Envelope]]:
    """As collect does: opens; what is found later only ends the process, and the next start mends it."""
    box, _ = open_or_salvage(path, "power", NOW)
    try:
        return box, read_all(box)
    except OutboxDamagedError:
        box.close()
    box, salvaged = open_or_salvage(path, "power", NOW)
    assert salvaged is not None
    return box, read_all(box)


def pieces(made: Made, whole: dict[Path, bytes]) -> bytes:
    """Pages of the database and of the log that no damage has touched, with a byte between two."""
    found = []
    for file, before in whole.items():
        after = file.read_bytes() if file.exists() else b""
        start, step, head = (0, PAGE, 0) if file == made.path else (32, PAGE + FRAME, FRAME)
        for at in range(start, len(before) - step + 1, step):
            if after[at : at + step] == before[at : at + step] and len(after) >= at + step:
                found.append(after[at + head : at + step])
    return b"|".join(found)


KINDS = ["zeros", "noise", "bit", "exchanged", "cut"]


@given(
    seed=st.integers(0, 2**32),
    hits=st.lists(st.tuples(st.sampled_from(KINDS[:4]), st.booleans()), min_size=1, max_size=5),
    checkpoint=st.booleans(),
)
@settings(max_examples=int(os.environ.get("LONG", "0")) * 2000 or 25, deadline=None)
def test_damage_at_random_places(seed: int, hits: list[tuple[str, bool]], checkpoint: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        chance = random.Random(seed)
        made = make(Path(name), chance, checkpoint=checkpoint)
        whole = {file: file.read_bytes() for file in (made.path, log_of(made.path)) if file.exists()}
        for what, of_log in hits:
            damage(log_of(made.path) if of_log and not checkpoint else made.path, what, chance)
        left = pieces(made, whole)
        box, found = opened(made.path)
        for key, message in found.items():
            if message.kind != Kind.TOMBSTONE:
                before = made.ever[key]
                assert (message.kind, message.prev, message.body) == (before.kind, before.prev, before.body)
        high = {stream.id: stream.high for stream in box.streams()}
        # the last transaction alone was hit, as by a power cut: it counts as never written
        torn = not damaged_files(made.path)
        for (stream, seq), message in chance.sample(list(made.held.items()), 25):  # to look for all takes a second
            if len(message.body) > 3000 or message.kind == Kind.TOMBSTONE or stream not in high:
                continue  # a body in several pages: all of them would have to be whole
            if torn and seq > high[stream]:
                continue
            if message.prev + message.body in left:
                assert (stream, seq) in found, f"number {seq} lies in a page that is whole, and was not saved"
        told = _tombstones(found)
        for stream in box.streams():
            for seq in range(stream.low, stream.high + 1):
                assert (stream.id, seq) in found or any(s == stream.id and a <= seq <= b for s, a, b in told)
        assert box.store in ("store-1", None)
        box.begin()
        box.append(Kind.READINGS, _encode(Batch(0, [1], [0], [1])))
        box.commit()
        box.close()
        again, salvaged = open_or_salvage(made.path, "power", NOW)
        again.close()
        assert salvaged is None, "what was mended is sound"


def _tombstones(found: dict[Key, Envelope]) -> list[tuple[str, int, int]]:
    return [(stream, m.seq, m.last_seq) for (stream, _), m in found.items() if m.kind == Kind.TOMBSTONE]


@pytest.mark.parametrize("end", [0, 1, 100, 511, 4096, 5000, 40_000], ids=lambda end: f"cut to {end}")
@pytest.mark.parametrize("checkpoint", [True, False], ids=["checkpointed", "with a log"])
def test_a_file_that_is_cut(tmp_path: Path, end: int, checkpoint: bool) -> None:
    """The log, where there is one, has what the file lacks."""
    made = make(tmp_path, random.Random(3), checkpoint=checkpoint)
    with made.path.open("r+b") as file:
        file.truncate(end)
    box, found = opened(made.path)
    saved = {key for key in made.held if key in found and found[key].body == made.held[key].body}
    if not checkpoint:
        assert len(saved) == len(made.held)
    elif end >= 40_000:
        assert saved
    assert all(found[key].body == made.ever[key].body for key in found if found[key].kind != Kind.TOMBSTONE)
    box.close()


def test_a_log_that_is_gone_or_of_another_file_accepts_nothing_wrong(tmp_path: Path) -> None:
    for place, with_other in (("gone", False), ("other", True)):
        folder = tmp_path / place
        (folder / "x").mkdir(parents=True)
        made = make(folder, random.Random(8), checkpoint=False)
        other = make(folder / "x", random.Random(9), checkpoint=False)
        log_of(made.path).unlink()
        if with_other:
            shutil.copy(log_of(other.path), log_of(made.path))
        box, found = opened(made.path)
        ever = made.ever | other.ever
        assert all(m.body == ever[key].body for key, m in found.items() if m.kind != Kind.TOMBSTONE)
        box.close()


def test_what_is_missing_is_a_gap_of_each_device_between_what_was_complete_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    box = Outbox(path)
    stream = box.begin()
    box.append(Kind.BIRTH, _encode(Birth(5, "a", "a")))
    box.append(Kind.BIRTH, _encode(Birth(7, "late", "a")))
    box.append(Kind.PROGRESS, _encode(Progress(100, [Done("a", "fast", 90), Done("a", "slow", 60)])))
    for number in range(3):
        box.append(Kind.READINGS, _encode(Batch(110 + number, [1], [0], [number])))
    box.append(Kind.PROGRESS, _encode(Progress(200, [Done("a", "fast", 205)])))
    box.append(Kind.PROGRESS, _encode(Progress(300, [Done("a", "slow", 290), Done("late", "g", 310, 3)])))
    box.commit()
    box.set_meta("complete_to", '{"a": {"fast": 205, "slow": 290}}')
    whole = {m.seq: m for m in box.read(stream, 1, 100, 10**6)}
    box.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE message SET body = x'00' WHERE seq = 5")
    db.execute("DELETE FROM message WHERE seq = 4")
    db.commit()
    db.close()
    box, salvaged = open_or_salvage(path, "power", NOW)
    assert salvaged is not None
    assert (salvaged.messages, salvaged.lost) == (6, 2)
    assert [(m.seq, m.last_seq) for m in box.read(stream, 1, 100, 10**6)] == [
        (1, 1), (2, 2), (3, 3), (4, 5), (6, 6), (7, 7), (8, 8),
    ]  # fmt: skip
    stone = box.read(stream, 4, 1, 10**6)[0]
    assert stone.prev == whole[4].prev
    body = decode_body(stone.kind, stone.body, stone.enc)
    assert isinstance(body, Tombstone)
    assert body.hash == whole[6].prev, "the chain goes on"
    detail = "the outbox was damaged: numbers 4 to 5"
    assert body.gaps == [Gap("a", None, 60, 205, "lost", None, detail), Gap("late", None, 3, 310, "lost", None, detail)]
    assert box.meta("complete_to") == '{"a": {"fast": 60, "slow": 60}}', "a history is read again from there"


def test_the_damaged_file_is_kept_and_one_only(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    for at in (1_000_000, 2_000_000):
        path.write_bytes(b"no database" * 1000)
        log_of(path).write_bytes(b"no log")
        box, salvaged = open_or_salvage(path, "power", at)
        assert salvaged is not None
        assert salvaged.messages == 0
        assert box.streams() == []
        box.close()
        (aside,) = damaged_files(path)
        assert aside == salvaged.aside == tmp_path / f"outbox.sqlite.damaged-19700101T00000{at // 1_000_000}Z"
        assert aside.read_bytes() == b"no database" * 1000


def test_damage_that_is_found_while_it_runs_is_mended_at_the_next_start(tmp_path: Path) -> None:
    """Older than what a start looks at: the message is never handed out, and the process is told to end."""
    path = tmp_path / "outbox.sqlite"
    box = Outbox(path)
    stream = box.begin()
    for number in range(20):
        box.append(Kind.READINGS, _encode(Batch(number, [1], [0], [number])))
    box.commit()
    db = sqlite3.connect(path)
    db.execute("UPDATE message SET body = x'91' WHERE seq = 9")
    db.commit()
    db.close()
    assert [m.seq for m in box.read(stream, 1, 8, 10**6)] == list(range(1, 9))
    with pytest.raises(OutboxDamagedError, match=r"number 9 of stream .* is not what was written"):
        box.read(stream, 9, 10, 10**6)
    box.close()
    assert marker_of(path).exists()
    box, salvaged = open_or_salvage(path, "power", NOW)
    assert salvaged is not None
    assert (salvaged.messages, salvaged.lost) == (19, 1)
    assert not marker_of(path).exists()


def test_a_newer_version_a_lock_and_missing_rights_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    Outbox(path).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    db.commit()
    with pytest.raises(OutboxError, match="format 99") as caught:
        open_or_salvage(path, "power", NOW)
    assert "newer version" in caught.value.fix
    db.execute("BEGIN EXCLUSIVE")
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked") as busy:
        other.execute("BEGIN IMMEDIATE")
    other.close()
    db.close()
    assert not is_damage(busy.value)
    with pytest.raises(sqlite3.OperationalError, match="unable to open") as refused:
        sqlite3.connect(tmp_path / "nowhere" / "x").execute("SELECT 1")
    assert not is_damage(refused.value)
    assert damaged_files(path) == []


def test_a_start_that_is_killed_between_the_renames_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    box = Outbox(path)
    stream = box.begin()
    box.append(Kind.READINGS, _encode(Batch(1, [1], [0], [1])))
    box.commit()
    box.close()
    path.rename(tmp_path / "outbox.sqlite.salvaged")
    box, _ = open_or_salvage(path, "power", NOW)
    assert [m.seq for m in box.read(stream, 1, 10, 10**6)] == [1]
