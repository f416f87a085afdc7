"""What keeps the ledger exactly once: watermarks, the lease, dead letters, and transactions that fail."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from gateway.ledger.steps import LeaseLostError, StoreFailedError, StoreWeatherError, WatermarkError
from gateway.store import Reader, Writer
from gateway.store._engine import make_engine, place_of
from gateway.store.records import Reading
from schemas.wire import ZERO_HASH, Batch, Birth, Cause, Closed, Event, Gap, Mark, Row, Tombstone
from tests.store.conftest import Target
from tests.store.feed import T0, Feed, birth, event, signal

Read = Callable[..., list[Reading]]


def run_sql(target: Target, *statements: str) -> None:
    """Change the database behind the store's back."""
    target.altered = True
    engine = make_engine(place_of(target.settings, target.folder), writer=True)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def refuse_readings(target: Target, number: float) -> None:
    """Let the database refuse every reading whose value is above `number`."""
    if target.kind == "sqlite":
        body = f"BEFORE INSERT ON tail WHEN NEW.num > {number} BEGIN SELECT RAISE(ABORT, 'too large'); END"
        run_sql(target, f"CREATE TRIGGER refuse {body}")
    else:
        run_sql(target, f"ALTER TABLE reading ADD CONSTRAINT refuse CHECK (num <= {number})")


# ---------------------------------------------------------------------------------------------------------- watermark


def test_a_new_store_has_an_identity(target: Target, writer: Writer, reader: Reader) -> None:
    assert len(writer.store_id) == 36
    assert (writer.epoch, writer.commit_no, writer.gateways()) == (1, 0, [])
    assert writer.marks("line1", ["s1", "s2"]) == [Mark("s1", 0, ZERO_HASH), Mark("s2", 0, ZERO_HASH)]
    assert reader.store_id() == writer.store_id
    again = target.open_writer()
    assert again.store_id == writer.store_id


def test_watermark_and_hash_move_with_the_rows(writer: Writer, reader: Reader) -> None:
    feed, other = Feed(), Feed("s2", "line2")
    applied = writer.apply(
        [feed.birth(signal(1, "t")), other.step(birth("oven", signal(1, "t"))), feed.rows((1, 0, 1.0))]
    )
    assert sorted(applied.marks, key=lambda mark: mark.stream) == [Mark("s1", 2, feed.hash), Mark("s2", 1, other.hash)]
    assert writer.marks("line1", ["s1", "x"]) == [Mark("s1", 2, feed.hash), Mark("x", 0)]
    assert writer.gateways() == ["line1", "line2"]
    assert (applied.committed.epoch, applied.committed.commit_no, writer.commit_no) == (1, 1, 1)
    assert [(row.id, row.watermark, row.gateway) for row in reader.streams()] == [
        ("s1", 2, "line1"),
        ("s2", 1, "line2"),
    ]
    with pytest.raises(StoreFailedError, match="belongs to gateway line2"):
        writer.marks("line1", ["s1", "s2"])


def test_a_step_that_is_not_the_next_changes_nothing(writer: Writer, reader: Reader, history: Read) -> None:
    feed = Feed()
    first = [feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))]
    writer.apply(first)
    next_one, after = feed.rows((1, 1, 2.0)), feed.rows((1, 2, 3.0))
    for steps in ([first[1]], [after], [next_one, next_one], [next_one, feed.rows((1, 9, 9.0))]):
        with pytest.raises(WatermarkError, match="s1"):
            writer.apply(steps)
    assert len(history()) == 1
    assert reader.snapshot().commit_no == 1
    assert writer.apply([next_one, after]).rows == 2


def test_a_stream_of_another_gateway_is_refused(writer: Writer) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    feed.gateway = "line2"
    with pytest.raises(StoreFailedError, match="belongs to gateway line1"):
        writer.apply([feed.rows((1, 0, 1.0))])


def test_the_store_survives_a_restart(target: Target, writer: Writer) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))])
    writer.release()
    writer.close()
    other = target.writer("ingest-2")
    assert (other.store_id, other.commit_no) == (writer.store_id, 1)
    assert other.marks("line1", ["s1"]) == [Mark("s1", 2, feed.hash)]
    assert other.apply([feed.rows((1, 1, 2.0))]).committed == msgspec.structs.replace(
        other.apply([feed.rows((1, 2, 2.0))]).committed, commit_no=2, rows=[Row(1, T0 + 1_000_000, 0, 2.0)]
    )


def test_epoch(target: Target, writer: Writer, reader: Reader) -> None:
    writer.raise_epoch()
    assert writer.epoch == 2
    applied = writer.apply([Feed().birth(signal(1, "t"))])
    assert applied.committed.epoch == 2
    assert reader.snapshot().epoch == 2


# -------------------------------------------------------------------------------------------------------------- lease


def test_one_ingest_at_a_time(target: Target, writer: Writer) -> None:
    other = target.open_writer()
    feed = Feed()
    with pytest.raises(LeaseLostError):
        other.apply([feed.birth(signal(1, "t"))])
    with pytest.raises(LeaseLostError):
        other.renew()
    assert not other.acquire("ingest-2", 60)
    writer.renew()
    writer.release()
    assert other.acquire("ingest-2", 60)
    with pytest.raises(LeaseLostError):
        writer.apply([Feed("s0").birth(signal(1, "t"))])


def test_a_holder_that_slept_is_fenced_off(target: Target, writer: Writer, reader: Reader) -> None:
    feed = Feed()
    steps = [feed.birth(signal(1, "t"))]
    assert writer.acquire("ingest-1", 0.05)  # the same holder again: at once
    other = target.open_writer()
    deadline = time.monotonic() + 10
    while not other.acquire("ingest-2", 60):
        assert time.monotonic() < deadline
    for _ in range(2):
        with pytest.raises(LeaseLostError):
            writer.apply(steps)
        with pytest.raises(LeaseLostError):
            writer.renew()
    with pytest.raises(LeaseLostError):
        writer.raise_epoch()
    writer.release()  # nothing to give back
    assert reader.snapshot().commit_no == 0
    assert other.apply(steps).committed.commit_no == 1
    assert not writer.acquire("ingest-1", 60)


def test_a_restarted_holder_takes_over_at_once(target: Target, writer: Writer) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    after = target.writer("ingest-1")
    assert after.apply([feed.rows((1, 0, 1.0))]).rows == 1
    with pytest.raises(LeaseLostError):
        writer.apply([feed.rows((1, 1, 1.0))])


def test_an_apply_renews_the_lease(target: Target) -> None:
    writer, other = target.writer(ttl=0.4), target.open_writer()
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        before = time.monotonic()
        writer.apply([feed.done(1)])
        taken = other.acquire("ingest-2", 60)
        assert not taken or time.monotonic() - before > 0.3  # only where this machine stood still
        if taken:
            return
        time.sleep(0.02)


# -------------------------------------------------------------------------------------------------------- dead letters


def test_poison_is_a_dead_letter_and_a_gap_and_the_watermark(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.done(5)])
    applied = writer.apply([feed.step(poison="not MessagePack", raw=b"\xc1\x00"), feed.rows((1, 6, 1.0)), feed.done(7)])
    assert (applied.rows, applied.dead_letters) == (1, 1)
    assert any("not MessagePack" in problem for problem in applied.problems)
    (letter,) = reader.dead_letters()
    assert (letter.seq, letter.reason, letter.raw) == (3, "not MessagePack", b"\xc1\x00")
    (gap,) = reader.gaps()
    assert (gap.device, gap.signals, gap.cause) == ("press", None, "undecodable")
    assert (gap.start, gap.end) == (T0 + 5_000_000, T0 + 7_000_000)
    assert reader.dead_letters(after=letter.id) == []


@pytest.mark.parametrize("bad", [[], [0], [99], [50], [3, 4, 60, 99]])
def test_the_one_reading_that_the_database_refuses(
    target: Target, writer: Writer, reader: Reader, history: Read, bad: list[int]
) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u")), feed.rows((2, 500, 1.0))])
    refuse_readings(target, 1000)
    rows: list[tuple[Any, ...]] = [(1, number, 5000.0 if number in bad else float(number)) for number in range(100)]
    late = (2, 400, 2.0, 0, 4)
    applied = writer.apply([feed.rows(*rows[:50]), feed.rows(*rows[50:], late, (2, 401, 1001.0, 0, 4))])
    assert (applied.rows, applied.dead_letters) == (101 - len(bad), len(bad) + 1)
    assert [row.value for row in history()] == [float(number) for number in range(100) if number not in bad]
    assert len(applied.committed.rows) == applied.rows
    letters = [msgspec.msgpack.decode(letter.raw, type=Row) for letter in reader.dead_letters()]
    assert sorted(row.ts for row in letters if row.signal == 1) == [T0 + number * 1_000_000 for number in bad]
    assert {letter.seq for letter in reader.dead_letters()} <= {3, 4}
    gaps = [gap for gap in reader.gaps(signal=1) if gap.cause == "undecodable"]
    assert [(gap.start, gap.end, gap.count) for gap in gaps] == [
        (row.ts, row.ts, 1) for row in letters if row.signal == 1
    ]
    assert writer.apply([feed.rows((1, 100, 1.0))]).rows == 1


def test_a_body_that_the_database_refuses(target: Target, writer: Writer, reader: Reader) -> None:
    feed = Feed()
    huge = Event("e1", 2**62, None, "press", "press", "alarm", 1)
    old = birth("oven", signal(9, "t"), at=-(2**62))
    applied = writer.apply(
        [
            feed.birth(signal(1, "t")),
            feed.step([huge]),
            feed.step(old),
            feed.step([event("e2")]),
            feed.rows((1, 0, 1.0), (9, 0, 1.0)),
        ]
    )
    assert (applied.rows, applied.dead_letters, applied.committed.events) == (1, 3, ["e2"])
    assert [letter.seq for letter in reader.dead_letters()] == [2, 3, 5]
    assert msgspec.msgpack.decode(reader.dead_letters()[1].raw, type=Birth) == old
    assert [device.id for device in reader.devices()] == ["press"]
    assert [signal.id for signal in reader.signals()] == [1]
    writer.apply([feed.step(birth("oven", signal(9, "t"))), feed.rows((9, 0, 1.0))])
    assert [(signal.id, signal.device) for signal in reader.signals()] == [(1, "press"), (2, "oven")]


def test_texts_with_nul(writer: Writer, reader: Reader) -> None:
    """A PLC fills its strings with U+0000; PostgreSQL has none."""
    feed = Feed()
    odd = event("e\x00", fields={"part": "A\x00"}, message_zh="门\x00", condition="c\x00")
    applied = writer.apply(
        [
            feed.birth(
                signal(1, "t", description_zh="温\x00", address="DB\x00"),
                name_en="Press\x00",
                identity={"serial": "1\x00"},
            ),
            feed.link(False, 1, reason="\x00"),
            feed.step([odd]),
            feed.step(poison="\x00", raw=b"\x00"),
        ]
    )
    assert applied.dead_letters == 1
    assert reader.devices()[0].identity == {"serial": "1\x00"}
    assert reader.events()[0].fields == {"part": "A\x00"}
    assert reader.events()[0].message_zh == "门\ufffd"


# --------------------------------------------------------------------------------------------------------- failures


def test_a_failure_in_the_middle_leaves_nothing(target: Target, writer: Writer, reader: Reader, history: Read) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))])
    run_sql(target, "ALTER TABLE stream RENAME TO elsewhere")
    steps = [
        feed.birth(signal(1, "t"), signal(2, "u"), device="press"),
        feed.rows((1, 1, 2.0), (2, 1, 2.0)),
        feed.link(False, 1),
        feed.step([event("e1")]),
    ]
    with pytest.raises(StoreFailedError, match="stream"):
        writer.apply(steps)
    run_sql(target, "ALTER TABLE elsewhere RENAME TO stream")
    snapshot = reader.snapshot()
    assert (snapshot.commit_no, len(snapshot.rows), snapshot.connections) == (1, 1, [])
    assert [len(reader.signals()), reader.events(), len(history())] == [1, [], 1]
    applied = writer.apply(steps)
    assert (applied.rows, applied.late, applied.duplicates, applied.committed.commit_no) == (2, 0, 0, 2)
    assert [(row.signal, row.value) for row in history(1, 2)] == [(1, 1.0), (1, 2.0), (2, 2.0)]


def test_a_failure_at_any_statement_leaves_nothing(target: Target, writer: Writer, reader: Reader) -> None:
    """A transaction is cut at its first, second, third … statement, until one goes through."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0)), feed.done(1)])
    steps = [
        feed.birth(signal(1, "t"), signal(2, "u")), feed.rows((1, 1, 2.0), (2, 1, 2.0), (1, 0, 7.0)), feed.link(False, 1),
        feed.step([event("e1")]), feed.done(2), feed.lost(1), feed.done(3),
    ]  # fmt: skip
    before = (reader.snapshot(), reader.signals(), reader.streams(), reader.gaps())
    count = stop = 0

    def cut(connection: sa.Connection, *_: object) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise StoreWeatherError("cut")

    sa.event.listen(writer._engine, "before_cursor_execute", cut)
    while True:
        count, stop = 0, stop + 1
        try:
            applied = writer.apply(steps)
        except StoreWeatherError:
            assert (reader.snapshot(), reader.signals(), reader.streams(), reader.gaps()) == before
        else:
            break
    sa.event.remove(writer._engine, "before_cursor_execute", cut)
    assert stop > 15
    assert (applied.rows, applied.duplicates, len(applied.committed.events)) == (3, 0, 1)
    assert [(gap.cause, gap.start, gap.end) for gap in reader.gaps()] == [("lost", T0 + 2_000_000, T0 + 3_000_000)]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from gateway.store import open_writer
from gateway.config.models import StoreSettings
from tests.store.feed import Feed, signal
writer = open_writer(StoreSettings(url=sys.argv[1] or None), Path(sys.argv[2]), "UTC")
assert writer.acquire("ingest-1", 60)
feed = Feed()
writer.apply([feed.birth(*(signal(point, f"s{point}") for point in range(1, 101)))])
print("ready", flush=True)
for second in range(10_000_000):
    steps = [feed.rows(*((point, 3 * second + part, float(part)) for point in range(1, 101))) for part in range(3)]
    writer.apply(steps)
"""


def test_a_killed_ingest_leaves_whole_transactions(target: Target, writer: Writer, reader: Reader) -> None:
    writer.close()
    program = [sys.executable, "-c", WRITE_FOR_EVER, target.settings.url or "", str(target.folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as ingest:
        assert ingest.stdout is not None
        try:
            assert ingest.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + 60
            while reader.snapshot().commit_no < 20:
                assert time.monotonic() < deadline
        finally:
            ingest.kill()
    again = target.writer("ingest-1")
    (mark,) = again.marks("line1", ["s1"])
    rows = [row for chunk in reader.history(range(1, 101)) for row in chunk]
    assert (mark.seq - 1) % 3 == 0
    assert len(rows) == (mark.seq - 1) * 100
    assert len({(row.signal, row.ts) for row in rows}) == len(rows)
    feed = Feed()
    feed.seq = mark.seq
    assert again.apply([feed.rows((1, 3 * (mark.seq - 1), 1.0))]).late == 0


# ---------------------------------------------------------------------------------------------------- losses and ends


def test_lost_numbers_are_a_gap_and_counted(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.birth(signal(2, "t"), device="oven"), feed.done(5)])
    applied = writer.apply([feed.lost(7), feed.done(9)])
    assert applied.marks == [Mark("s1", 11, feed.hash)]
    assert reader.streams()[0].lost == 7
    gaps = {gap.device: gap for gap in reader.gaps()}
    assert (gaps["press"].start, gaps["press"].end, gaps["press"].cause) == (T0 + 5_000_000, T0 + 9_000_000, "lost")
    # the oven has never reported: from its birth on, until it does
    assert (gaps["oven"].start, gaps["oven"].end) == (T0 - 10_000_000, None)
    writer.apply([feed.lost(1), feed.done(4, device="oven")])
    assert [(gap.device, gap.end is None) for gap in reader.gaps()] == [
        ("press", False),
        ("oven", False),
        ("press", True),
    ]


def test_a_fork_is_written_and_an_alarm(writer: Writer, reader: Reader, history: Read) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.done(1)])
    fork = feed.rows((1, 2, 1.0))
    applied = writer.apply([dataclasses.replace(fork, gap=Cause.FORK, detail="hash differs")])
    assert applied.rows == 1
    assert any("fork" in problem for problem in applied.problems)
    assert [(gap.cause, gap.detail) for gap in reader.gaps()] == [("fork", "hash differs")]
    assert reader.streams()[0].lost == 0


def test_tombstone(writer: Writer, reader: Reader) -> None:
    feed = Feed()
    gaps = [Gap("press", [2], T0, T0 + 5, "dropped", 120), Gap("press", [2, 99], T0, T0 + 5, "dropped", 3)]
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u")), feed.step(Tombstone(bytes(32), gaps), count=40)])
    first, second = reader.gaps()
    assert (first.signals, first.start, first.end, first.cause, first.count) == ([2], T0, T0 + 5, "dropped", 120)
    assert second.signals is None  # one of its points is unknown: better too much
    assert writer.marks("line1", ["s1"])[0].seq == 41


def test_what_a_tombstone_keeps_is_stored_like_any_reading(writer: Writer, reader: Reader) -> None:
    """Also a value from before what is stored already: it has held since then."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"), signal(2, "u")), feed.rows((1, 50, 1.0))])
    kept = Batch(T0, [2, 1], [10, 60], [7.0, 2.0], [0, 1 << 30])
    gaps = [Gap(None, [1, 2], T0, T0 + 60, "dropped", 9)]
    applied = writer.apply([feed.step(Tombstone(bytes(32), gaps, kept), count=40)])
    assert applied.rows == 2
    again = writer.apply([feed.step(Tombstone(bytes(32), gaps, kept), count=3)])
    assert (again.rows, again.duplicates) == (0, 2)
    rows = {(row.signal, row.ts - T0, row.value, row.status) for piece in reader.history([1, 2]) for row in piece}
    assert rows >= {(2, 10, 7.0, 0), (1, 60, 2.0, 1 << 30)}


def test_closed_streams(writer: Writer, reader: Reader) -> None:
    old, new = Feed("s1"), Feed("s2")
    writer.apply([old.birth(signal(1, "t")), old.rows((1, 0, 1.0)), old.done(1)])
    applied = writer.apply([new.birth(signal(5, "t")), new.step(Closed("s1", old.seq, old.hash)), new.done(2)])
    assert applied.problems == []
    assert [(row.id, row.closed_at is None) for row in reader.streams()] == [("s1", False), ("s2", True)]
    third = Feed("s3")
    applied = writer.apply([third.birth(signal(5, "t")), third.step(Closed("s2", new.seq + 4, bytes(32)))])
    assert "ended at 7, stored up to 3" in applied.problems[0]
    assert {gap.cause for gap in reader.gaps() if gap.end is None} == {"collector_down", "lost"}
    assert [row.lost for row in reader.streams()] == [0, 4, 0]
    fourth = Feed("s4")
    applied = writer.apply(
        [
            fourth.birth(signal(5, "t")),
            fourth.step(Closed("s2", new.seq + 4, bytes(32))),  # told again
            fourth.step(Closed("never", 9, bytes(32))),
            fourth.step(Closed("empty", 0, bytes(32))),
            fourth.done(9),
        ]
    )
    assert applied.problems == ["stream never ended at 9, stored up to 0"]
    told = {row.id: (row.watermark, row.lost, row.closed_at is None) for row in reader.streams()}
    assert told == {
        "s1": (3, 0, False),
        "s2": (3, 4, False),
        "s3": (2, 0, True),
        "s4": (5, 0, True),
        "never": (0, 9, False),
    }
    both = Feed("s5")
    assert (
        writer.apply([both.birth(signal(5, "t")), fourth.done(10), both.step(Closed("s4", 6, bytes(32)))]).problems
        == []
    )
    assert [row.id for row in reader.streams() if row.closed_at is None] == ["s3", "s5"]
    # what arrives of it after all is still stored
    assert writer.apply([new.rows((5, 5, 2.0))]).rows == 1
