"""What PostgreSQL and TimescaleDB have of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreWeatherError, WatermarkError
from gateway.store import open_reader, open_writer
from gateway.store.records import Reading
from schemas.wire import Batch
from tests.servers.fixtures import PostgresFactory
from tests.servers.postgresql import Postgres
from tests.store.conftest import ZONE, Target
from tests.store.feed import SECOND, T0, Feed, signal
from tests.store.test_readings import EXACT, same

Read = Callable[..., list[Reading]]


@pytest.fixture
def server(postgres_factory: PostgresFactory) -> Iterator[Postgres]:
    """A cluster of this test alone, which may be killed."""
    return postgres_factory()  # type: ignore[return-value]


def test_without_copy(postgres_url: str, tmp_path: Path) -> None:
    """Where a server has no COPY, arrays bring the same rows."""
    settings = StoreSettings(url=f"{postgres_url}?copy=off")
    writer, reader = open_writer(settings, tmp_path, ZONE), open_reader(settings, tmp_path)
    assert writer.acquire("a", 60)
    feed = Feed()
    writer.apply([feed.birth(signal(1, "mixed"))])
    numbers = [(1, 1000 + number, float(number)) for number in range(5000)]
    applied = writer.apply(
        [feed.rows(*((1, number, value) for number, value in enumerate(EXACT))), feed.rows(*numbers)]
    )
    assert (applied.rows, applied.duplicates) == (5000 + len(EXACT), 0)
    stored = [row for chunk in reader.history([1]) for row in chunk]
    assert all(map(same, [row.value for row in stored], [*EXACT, *(value for _, _, value in numbers)]))
    writer.close()
    reader.close()


def test_a_killed_server_is_weather_until_it_is_back(server: Postgres, tmp_path: Path) -> None:
    settings = StoreSettings(url=server.new_database())
    writer, reader = open_writer(settings, tmp_path, ZONE), open_reader(settings, tmp_path)
    assert writer.acquire("a", 60)
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))])
    assert len(reader.snapshot().rows) == 1
    steps = [feed.rows((1, 1, 2.0))]
    server.kill()
    for _ in range(2):
        with pytest.raises(StoreWeatherError):
            writer.apply(steps)
        with pytest.raises(StoreWeatherError):
            reader.snapshot()
        with pytest.raises(StoreWeatherError):
            open_writer(settings, tmp_path, ZONE)
    server.start()
    assert writer.marks("line1", ["s1"])[0].seq == 2
    assert writer.apply(steps).rows == 1
    assert [row.value for chunk in reader.history([1]) for row in chunk] == [1.0, 2.0]
    writer.close()
    reader.close()


def test_a_terminated_session_is_weather_once(postgres: Postgres, postgres_url: str, tmp_path: Path) -> None:
    settings = StoreSettings(url=postgres_url)
    writer = open_writer(settings, tmp_path, ZONE)
    assert writer.acquire("a", 60)
    feed = Feed()
    steps = [feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0))]
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreWeatherError):
        writer.apply(steps)
    assert writer.apply(steps).rows == 1
    with pytest.raises(WatermarkError):
        writer.apply(steps)
    writer.close()


def test_two_ingests_that_start_together_make_one_store(postgres_url: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gateway.config.models import StoreSettings; import gateway.store as s\n"
        "sys.stdin.readline()\n"
        "writer = s.open_writer(StoreSettings(url=sys.argv[1]), Path('.'), 'UTC')\n"
        "print(writer.store_id, writer.acquire(sys.argv[2], 60))"
    )
    ingests = [
        subprocess.Popen(
            [sys.executable, "-c", program, postgres_url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for ingest in ingests:  # they have imported everything by and by, and begin on a word
        assert ingest.stdin is not None
        ingest.stdin.write("go\n")
        ingest.stdin.flush()
    answers = [ingest.communicate(timeout=60)[0].split() for ingest in ingests]
    assert [ingest.returncode for ingest in ingests] == [0, 0, 0]
    assert len({store for store, _ in answers}) == 1
    assert sorted(lease for _, lease in answers) == ["False", "False", "True"]


# -------------------------------------------------------------------------------------------------------- TimescaleDB


@pytest.mark.parametrize("target", ["timescale"], indirect=True)
def test_readings_are_a_compressed_hypertable(target: Target) -> None:
    """Chunks become columns; late rows, duplicates and queries go on as before."""
    writer, reader = target.writer(), target.reader()
    assert writer.timescale
    assert target.settings.url is not None
    url = target.settings.url.replace("&connections=1", "").replace("?connections=1", "")
    feed = Feed()
    signals = range(1, 11)
    writer.apply([feed.birth(*(signal(point, f"s{point}") for point in signals))])
    day = 86_400 * SECOND
    for number in range(4):
        offsets = [number * day + second * SECOND for second in range(100) for _ in signals]
        writer.apply([feed.step(Batch(T0, [*signals] * 100, offsets, [float(offset % 977) for offset in offsets]))])
    before = [row for chunk in reader.history(signals) for row in chunk]
    assert len(before) == 4000
    with psycopg.connect(url, autocommit=True) as connection:
        (chunks,) = connection.execute("SELECT count(*) FROM show_chunks('reading')").fetchone() or (0,)
        assert chunks >= 4
        connection.execute("SELECT compress_chunk(c, true) FROM show_chunks('reading') c")
        kinds = connection.execute(
            "SELECT attname, segmentby_column_index, orderby_column_index FROM timescaledb_information.compression_settings "
            "WHERE hypertable_name = 'reading' ORDER BY 1"
        ).fetchall()
        assert kinds == [("n", None, 2), ("signal_id", 1, None), ("ts", None, 1)]
        jobs = connection.execute(
            "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'"
        ).fetchone()
        assert jobs == (1,)
    assert [row for chunk in reader.history(signals) for row in chunk] == before
    assert [row.ts for row in reader.snapshot().rows] == [T0 + 3 * day + 99 * SECOND] * 10
    late = [(1, 0.5, 7.0, 0, 4), (1, 86_400, before[0].value, 0, 4), (2, 5, -1.0)]
    applied = writer.apply([feed.rows(*late)])
    assert (applied.rows, applied.late, applied.dead_letters) == (2 + (before[100].value != before[0].value), 3, 0)
    assert len([row for chunk in reader.history(signals) for row in chunk]) == 4000 + applied.rows
    writer.close()
    again = target.writer()
    assert again.apply([feed.rows((1, 4 * 86_400, 1.0))]).late == 0
