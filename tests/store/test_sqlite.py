"""What SQLite has of its own: the tail, its merge in short transactions, and durability."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreFailedError, StoreWeatherError
from gateway.store import Reader, Writer, _sqlite, open_reader, open_writer
from schemas.wire import Batch, Flag
from tests.store.feed import SECOND, T0, Feed, signal

SIGNALS = 40


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = open_writer(StoreSettings(), tmp_path, "UTC")
    assert writer.acquire("a", 60)
    yield writer
    writer.close()


@pytest.fixture
def reader(writer: Writer, tmp_path: Path) -> Iterator[Reader]:
    reader = open_reader(StoreSettings(), tmp_path)
    yield reader
    reader.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    yield connection
    connection.close()


def fill(writer: Writer, feed: Feed, start: int, count: int = 10) -> None:
    steps = [feed.birth(*(signal(point, f"s{point}") for point in range(1, SIGNALS + 1)))] if feed.seq == 0 else []
    points = list(range(1, SIGNALS + 1))
    for second in range(start, start + count):
        values = [float(second + point) for point in points]
        steps.append(feed.step(Batch(T0, points, [second * SECOND] * SIGNALS, values)))
    writer.apply(steps)


def everything(reader: Reader) -> list[Any]:
    return [row for chunk in reader.history(range(1, SIGNALS + 1)) for row in chunk]


def counts(database: sqlite3.Connection) -> tuple[int, int]:
    return tuple(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("reading", "tail"))


def test_readers_see_each_row_once_at_each_moment_of_a_merge(
    writer: Writer, reader: Reader, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "PIECE_ROWS", 35)
    feed = Feed()
    fill(writer, feed, 0)
    assert counts(database) == (0, 400)
    before, newest = everything(reader), reader.snapshot().rows
    assert len(before) == 400
    pieces = 0
    more = writer._readings.maintain(writer._engine, everything=True)
    while more:
        pieces += 1
        assert everything(reader) == before
        assert reader.snapshot().rows == newest
        if pieces == 3:  # late and equal rows, of signals merged already and not yet
            late = [(point, 2.5, 9.0, 0, int(Flag.HISTORICAL)) for point in (1, SIGNALS)]
            equal = [(point, 2, float(2 + point), 0, int(Flag.HISTORICAL)) for point in (1, SIGNALS)]
            other = [(point, 3, -1.0) for point in (1, SIGNALS)]
            applied = writer.apply([feed.rows(*late, *equal, *other)])
            assert (applied.rows, applied.duplicates, applied.late) == (4, 2, 4)
            before = everything(reader)
            assert len(before) == 404
        more = writer._readings.maintain(writer._engine)
    assert pieces > 5
    assert counts(database) == (400, 4)
    assert everything(reader) == before
    writer.maintain(everything=True)
    assert counts(database) == (404, 0)
    assert everything(reader) == before
    assert database.execute("SELECT merge_row, merge_signal FROM store").fetchone() == (0, 0)
    fill(writer, feed, 10)
    assert len(everything(reader)) == 804


@pytest.mark.parametrize("after", [1, 4, 10])
def test_a_merge_that_was_killed_goes_on(
    tmp_path: Path,
    writer: Writer,
    reader: Reader,
    database: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    monkeypatch.setattr(_sqlite, "PIECE_ROWS", 35)
    feed = Feed()
    fill(writer, feed, 0)
    for _ in range(after):
        writer._readings.maintain(writer._engine, everything=True)
    writer.close()
    before = everything(reader)
    again = open_writer(StoreSettings(), tmp_path, "UTC")
    assert again.acquire("a", 60)
    fill(again, feed, 10)
    again.maintain(everything=True)
    again.maintain(everything=True)
    again.close()
    assert counts(database) == (800, 0)
    assert [row for row in everything(reader) if row.ts < T0 + 10 * SECOND] == before


def test_the_tail_is_merged_by_and_by(
    writer: Writer, reader: Reader, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "MERGE_ROWS", 1000)
    monkeypatch.setattr(_sqlite, "MERGE_ROWS_MOST", 1000)
    monkeypatch.setattr(_sqlite, "PIECE_ROWS", 100)
    monkeypatch.setattr("gateway.store.writer.PIECE_ROWS", 100)
    feed = Feed()
    largest = 0
    for start in range(0, 200, 10):
        fill(writer, feed, start)
        largest = max(largest, counts(database)[1])
    assert largest < 2500
    assert counts(database)[0] > 6000
    assert len(everything(reader)) == 8000


def test_the_tail_is_merged_when_it_is_old(
    writer: Writer, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "MERGE_SECONDS", 0.0)
    feed = Feed()
    fill(writer, feed, 0)
    writer.apply([feed.done(1)])
    assert counts(database) == (400, 0)


def test_rows_lie_in_pages_by_signal(writer: Writer, database: sqlite3.Connection) -> None:
    """What the tail is for: a reading costs a fraction of a page, not a page."""
    feed = Feed()
    for start in range(0, 600, 100):
        fill(writer, feed, start, 100)
    writer.maintain(everything=True)
    (pages,) = (
        database.execute("SELECT sum(pageno IS NOT NULL) FROM dbstat WHERE name = 'reading'").fetchone()
        if (
            database.execute(
                "SELECT 1 FROM pragma_compile_options WHERE compile_options = 'ENABLE_DBSTAT_VTAB'"
            ).fetchone()
        )
        else database.execute("PRAGMA page_count").fetchone()
    )
    assert pages * 4096 / (600 * SIGNALS) < 80


def test_the_migrated_schema_is_that_of_the_tables(writer: Writer, database: sqlite3.Connection) -> None:
    """Beside columns and indexes, which are compared for all stores: tables by key, and the one row of `store`."""
    rows = dict(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    assert {name for name, sql in rows.items() if "WITHOUT ROWID" in sql} == {"reading", "rollup_quarter", "rollup_day"}
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        database.execute("UPDATE store SET id = 2")


def test_settings_that_durability_rests_on(writer: Writer) -> None:
    with writer._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_locked_file_is_weather(writer: Writer, database: sqlite3.Connection) -> None:
    with writer._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    feed = Feed()
    steps = [feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))]
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreWeatherError, match="locked"):
        writer.apply(steps)
    database.execute("ROLLBACK")
    assert writer.apply(steps).rows == 1


def test_a_full_disk_is_weather(writer: Writer) -> None:
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    with writer._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 1}")
    steps = [feed.rows(*((1, number, "x" * 100) for number in range(1000)))]
    with pytest.raises(StoreWeatherError, match="full"):
        writer.apply(steps)
    with writer._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    assert writer.apply(steps).rows == 1000


def test_what_is_no_database_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"this is a text, and no database at all" * 100)
    with pytest.raises(StoreFailedError, match="not a database"):
        open_writer(StoreSettings(), tmp_path, "UTC")


def test_a_reader_waits_for_the_writer(tmp_path: Path) -> None:
    reader = open_reader(StoreSettings(), tmp_path)
    with pytest.raises(StoreWeatherError):
        reader.snapshot()
    assert not (tmp_path / "store.sqlite").exists()
    sqlite3.connect(tmp_path / "store.sqlite").close()
    with pytest.raises(StoreWeatherError, match="not there yet"):
        reader.check()
    writer = open_writer(StoreSettings(), tmp_path, "UTC")
    assert reader.snapshot().store == writer.store_id
    assert reader.size() > 0
    reader.close()
    writer.close()
