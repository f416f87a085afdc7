"""The outbox as a file: what survives, what is refused, what is dropped."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from gateway.ledger.bodies import PoisonError, decode_body
from gateway.ledger.outbox import Outbox, OutboxDamagedError, OutboxError, OutboxFullError
from schemas.wire import MAX_MESSAGE, ZERO_HASH, Batch, Birth, Closed, Extra, Gap, Kind, Link, Tombstone

_encode = msgspec.msgpack.encode


def batch(number: int, size: int = 1) -> bytes:
    return _encode(Batch(1000 + number, [number] * size, list(range(size)), [float(number)] * size))


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    box = Outbox(tmp_path / "outbox.sqlite")
    box.begin()
    return box


def test_only_what_is_committed_survives(outbox: Outbox, tmp_path: Path) -> None:
    stream = outbox.current
    for number in range(3):
        outbox.append(Kind.READINGS, batch(number))
    assert outbox.read(stream, 1, 10, 10**6) == []
    outbox.commit()
    outbox.append(Kind.READINGS, batch(3))
    outbox.close()
    again = Outbox(tmp_path / "outbox.sqlite")
    assert [m.seq for m in again.read(stream, 1, 10, 10**6)] == [1, 2, 3]
    assert again.streams()[0].high == 3


def test_the_chain_holds_across_commits_and_a_restart(outbox: Outbox, tmp_path: Path) -> None:
    for number in range(6):
        outbox.append(Kind.READINGS, batch(number))
        if number % 2:
            outbox.commit()
    stream = outbox.streams()[0]
    messages = outbox.read(stream.id, 1, 10, 10**6)
    assert messages[0].prev == ZERO_HASH
    assert [m.prev for m in messages[1:]] == [m.hash() for m in messages[:-1]]
    assert stream.hash == messages[-1].hash()
    assert [outbox.hash_at(stream.id, m.seq) for m in messages] == [m.hash() for m in messages]
    outbox.close()
    assert Outbox(tmp_path / "outbox.sqlite").streams()[0].hash == messages[-1].hash()


def test_a_start_begins_a_new_stream_and_says_where_the_old_one_ended(outbox: Outbox, tmp_path: Path) -> None:
    old = outbox.current
    outbox.append(Kind.READINGS, batch(1))
    outbox.commit()
    outbox.close()
    again = Outbox(tmp_path / "outbox.sqlite")
    new = again.begin()
    again.commit()
    assert new != old
    (message,) = again.read(new, 1, 10, 10**6)
    assert decode_body(message.kind, message.body, message.enc) == Closed(old, 1, again.streams()[0].hash)
    assert again.streams()[0].high == 1, "the old stream got no further number"


def test_overflow_keeps_the_numbers_the_chain_and_everything_but_readings(outbox: Outbox) -> None:
    stream = outbox.current
    outbox.append(Kind.BIRTH, _encode(Birth(0, "d", "a")))
    for number in range(10):
        outbox.append(Kind.READINGS, batch(number, 50))
    outbox.append(Kind.LINK, _encode(Link("d", False, 5)))
    for number in range(10, 20):
        outbox.append(Kind.READINGS, batch(number, 50))
    outbox.commit()
    before = {m.seq: m for m in outbox.read(stream, 1, 100, 10**7)}
    assert outbox.drop_oldest(0) == 1000
    left = outbox.read(stream, 1, 100, 10**7)
    assert [(m.kind, m.seq, m.last_seq) for m in left] == [
        (Kind.BIRTH, 1, 1),
        (Kind.TOMBSTONE, 2, 11),
        (Kind.LINK, 12, 12),
        (Kind.TOMBSTONE, 13, 22),
    ]
    stone = decode_body(left[1].kind, left[1].body, left[1].enc)
    assert isinstance(stone, Tombstone)
    assert stone.gaps == [Gap(None, list(range(10)), 1000, 1009 + 49, "dropped", 500)]
    assert (left[1].prev, stone.hash) == (before[2].prev, before[11].hash())
    assert outbox.read(stream, 5, 100, 10**7)[0].seq == 2, "a number inside a tombstone is answered by it"
    assert outbox.drop_oldest(0) == 0, "nothing is dropped twice"
    assert stone.newest is None, "the newest tombstone carries it"
    assert told(outbox, 13) == {number: (1000 + number + 49, float(number)) for number in range(20)}


def told(outbox: Outbox, seq: int) -> dict[int, tuple[int, float]]:
    """Point -> (ts, value) of what a tombstone keeps of the readings that it stands for."""
    (message,) = outbox.read(outbox.current, seq, 1, 10**6)
    stone = decode_body(message.kind, message.body, message.enc)
    assert isinstance(stone, Tombstone)
    assert stone.newest is not None
    newest = stone.newest
    rows = zip(newest.points, newest.offsets, newest.values, strict=True)
    return {point: (newest.base + offset, value) for point, offset, value in rows}


def test_what_holds_since_it_was_dropped_is_kept(outbox: Outbox, tmp_path: Path) -> None:
    """A state that is told once and holds for weeks: the drop must not leave an older one standing. However often it is dropped on, and
    whatever its kind."""
    state = Batch(
        1000, [1, 2, 3], [0, 5, 5], ["run", None, 7], [0, 1 << 31, 0], [0, 0, 1], [0, 0, 2], {1: Extra(3, "raw")}
    )
    outbox.append(Kind.READINGS, _encode(state))
    for number in range(30):
        outbox.append(Kind.LINK, _encode(Link("d", False, number)))
        outbox.append(Kind.READINGS, _encode(Batch(2000 + number, [4, 3], [0, -1500], [float(number), 6])))
    outbox.commit()
    assert outbox.drop_oldest(0, most=5) == 3 + 4 * 2
    outbox.close()
    again = Outbox(tmp_path / "outbox.sqlite")
    old = again.streams()[0].id
    again.begin()
    assert again.drop_oldest(0) == 26 * 2
    found = [decode_body(m.kind, m.body, m.enc) for m in again.read(old, 1, 100, 10**6) if m.kind == Kind.TOMBSTONE]
    assert len(found) == 31
    assert [stone for stone in found[:-1] if isinstance(stone, Tombstone) and stone.newest is not None] == []
    assert isinstance(found[-1], Tombstone)
    newest = found[-1].newest
    assert newest == Batch(
        1000,
        [1, 2, 3, 4],
        [0, 5, 5, 1029],
        ["run", None, 7, 29.0],
        [0, 1 << 31, 0, 0],
        [0, 0, 1, 0],
        None,
        {1: Extra(3, "raw")},
    )


def test_of_more_signals_than_fit_those_are_kept_that_have_held_for_longest(outbox: Outbox) -> None:
    for first in range(0, 12_000, 1000):
        points = list(range(first, first + 1000))
        outbox.append(
            Kind.READINGS, _encode(Batch(first, points, list(range(1000)), [float(point) for point in points]))
        )
    outbox.commit()
    assert outbox.drop_oldest(0) == 12_000
    kept = told(outbox, 1)
    assert len(kept) > 1900
    assert kept == {point: (point, float(point)) for point in range(len(kept))}


def test_what_a_tombstone_keeps_goes_on_with_its_stream(outbox: Outbox) -> None:
    outbox.append(Kind.READINGS, batch(4, 3))
    outbox.commit()
    outbox.drop_oldest(0)
    new = outbox.rehome(outbox.current)
    gap, kept = (decode_body(m.kind, m.body, m.enc) for m in outbox.read(new, 1, 10, 10**6))
    assert gap == [Gap(None, [4], 1004, 1006, "dropped", 3)]
    assert kept == Batch(1006, [4], [0], [4.0])


def test_a_tombstone_whose_readings_are_no_table_is_poison() -> None:
    body = _encode(Tombstone(ZERO_HASH, [], Batch(0, [1, 2], [0], [1.0])))
    with pytest.raises(PoisonError, match="column offsets has 1 rows"):
        decode_body(Kind.TOMBSTONE, body)
    assert decode_body(Kind.TOMBSTONE, _encode([ZERO_HASH, []])) == Tombstone(ZERO_HASH, []), "of an older version"


def test_confirmed_messages_are_kept_for_their_time_and_births_with_their_stream(outbox: Outbox) -> None:
    stream = outbox.current
    outbox.append(Kind.BIRTH, _encode(Birth(0, "d", "a")))
    for number in range(4):
        outbox.append(Kind.READINGS, batch(number))
    outbox.commit()
    outbox.set_confirmed(stream, 3, now=100.0)
    assert outbox.trim(before=99.0) == 0
    assert outbox.trim(before=100.0) == 2
    assert [m.seq for m in outbox.read(stream, 1, 10, 10**6)] == [1, 4, 5]
    assert outbox.streams()[0].low == 4
    outbox.set_confirmed(stream, 0, now=101.0)  # the store was restored
    assert outbox.streams()[0].confirmed == 0
    assert outbox.trim(before=200.0) == 0, "what is not confirmed any more stays"


def test_a_stream_that_somebody_else_continued_goes_on_under_a_new_id(outbox: Outbox) -> None:
    old = outbox.current
    outbox.append(Kind.BIRTH, _encode(Birth(0, "d", "a")))
    for number in range(4):
        outbox.append(Kind.READINGS, batch(number))
    outbox.commit()
    outbox.set_confirmed(old, 3, now=0.0)
    outbox.append(Kind.READINGS, batch(4))
    new = outbox.rehome(old)
    assert outbox.current == new != old
    moved = outbox.read(new, 1, 10, 10**6)
    assert [m.kind for m in moved] == [Kind.BIRTH, Kind.READINGS, Kind.READINGS, Kind.READINGS]
    assert [m.seq for m in moved] == [1, 2, 3, 4]
    assert [m.prev for m in moved[1:]] == [m.hash() for m in moved[:-1]]
    assert outbox.append(Kind.READINGS, batch(5)) == 5
    outbox.commit()
    assert outbox.read(new, 5, 10, 10**6)[0].prev == moved[-1].hash()


def test_a_full_disk_keeps_what_is_pending(outbox: Outbox) -> None:
    outbox._db.execute(f"PRAGMA max_page_count={outbox._db.execute('PRAGMA page_count').fetchone()[0] + 2}")
    for number in range(20):
        outbox.append(Kind.READINGS, batch(number, 500))
    with pytest.raises(OutboxFullError, match="no space left"):
        outbox.commit()
    assert outbox.pending == 20
    outbox._db.execute("PRAGMA max_page_count=1000000")
    assert outbox.commit() == 20
    assert len(outbox.read(outbox.current, 1, 100, 10**7)) == 20


def test_a_file_that_is_no_outbox_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(OutboxDamagedError, match=r"outbox\.sqlite is damaged: file is not a database") as caught:
        Outbox(path)
    assert "saves what can be read" in caught.value.fix


def test_an_outbox_of_the_first_format_is_brought_up_to_date_and_sent_as_it_was(outbox: Outbox, tmp_path: Path) -> None:
    """Its rows have no seals; the chain alone judges them."""
    for number in range(3):
        outbox.append(Kind.READINGS, batch(number))
    outbox.commit()
    stream = outbox.current
    before = outbox.read(stream, 1, 10, 10**6)
    outbox.close()
    db = sqlite3.connect(tmp_path / "outbox.sqlite")
    db.executescript(
        "ALTER TABLE message DROP COLUMN seal; ALTER TABLE stream DROP COLUMN seal; UPDATE meta SET value = '1' WHERE key = 'format'"
    )
    db.close()
    again = Outbox(tmp_path / "outbox.sqlite")
    assert again.read(stream, 1, 10, 10**6) == before
    again.begin()
    again.append(Kind.READINGS, batch(7))
    again.commit()
    again.close()
    db = sqlite3.connect(tmp_path / "outbox.sqlite")
    db.execute("UPDATE message SET body = ? WHERE seq = 2 AND pos = 1", (batch(8),))
    db.commit()
    db.close()
    with pytest.raises(OutboxDamagedError, match=r"number 3 of stream .* does not continue the chain"):
        Outbox(tmp_path / "outbox.sqlite")


def test_bodies_are_compressed_where_it_pays_and_say_so(outbox: Outbox) -> None:
    """A message with a plain body stays one of version 1, so that an older ingest reads it; a compressed one stops it."""
    large = batch(1, 200)
    outbox.append(Kind.READINGS, batch(0))
    outbox.append(Kind.READINGS, large)
    outbox.commit()
    plain, packed = outbox.read(outbox.current, 1, 10, 10**6)
    assert (plain.version, plain.enc, plain.body) == (1, 0, batch(0))
    assert (packed.version, packed.enc) == (2, 1)
    assert len(packed.body) < len(large) / 2
    assert decode_body(packed.kind, packed.body, packed.enc) == decode_body(Kind.READINGS, large)
    assert packed.hash() == outbox.streams()[-1].hash, "the hash is over what is stored"


def test_an_outbox_of_a_newer_version_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    outbox.close()
    db = sqlite3.connect(tmp_path / "outbox.sqlite")
    db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    db.commit()
    db.close()
    with pytest.raises(OutboxError, match="format 99"):
        Outbox(tmp_path / "outbox.sqlite")


def test_a_body_that_is_too_large_is_refused(outbox: Outbox) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        outbox.append(Kind.READINGS, bytes(MAX_MESSAGE))
