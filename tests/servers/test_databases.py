"""PostgreSQL and TimescaleDB, with psycopg as the client."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from tests.servers.postgresql import Postgres
from tests.servers.timescale import ExternalTimescale, PgliteTimescale, Timescale, make_timescale
from tests.servers.waiting import eventually


def test_postgres_gives_each_test_a_database_of_its_own(postgres: Postgres, postgres_url: str) -> None:
    other = postgres.new_database()
    try:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("CREATE TABLE reading (n int)")
            with connection.cursor().copy("COPY reading FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int4"])
                copy.write_row((42,))
            assert connection.execute("SELECT n FROM reading").fetchall() == [(42,)]
            assert connection.info.server_version >= 150_000
        with psycopg.connect(other) as connection:
            assert connection.execute("SELECT to_regclass('reading')").fetchone() == (None,)
    finally:
        postgres.drop_database(other)


def test_postgres_survives_stop_and_kill(postgres_factory: Callable[..., Postgres]) -> None:
    server = postgres_factory(settings={"max_connections": 7})
    url = server.new_database()
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (2)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    for mode in ("killed", "immediate", "smart"):
        if mode != "killed":
            server.stop(mode)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)], "the open transaction is rolled back"


NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def hypertable(timescale_url: str) -> str:
    with psycopg.connect(timescale_url) as connection:
        connection.execute("CREATE TABLE reading (s int4, ts timestamptz NOT NULL, num float8, PRIMARY KEY (s, ts))")
        connection.execute("SELECT create_hypertable('reading', by_range('ts', INTERVAL '1 day'))")
    return timescale_url


def copy_rows(connection: psycopg.Connection[Any], rows: list[tuple[int, dt.datetime, float]]) -> None:
    with connection.cursor().copy("COPY reading (s, ts, num) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "timestamptz", "float8"])
        for row in rows:
            copy.write_row(row)


def test_timescale_has_hypertables_and_binary_copy(hypertable: str) -> None:
    rows = [(n % 10, NEW_YEAR + dt.timedelta(minutes=n), n / 2) for n in range(5000)]
    with psycopg.connect(hypertable) as connection:
        copy_rows(connection, rows)
        answer = connection.execute("SELECT s, ts, num FROM reading ORDER BY ts").fetchall()
        assert answer == rows
        buckets = connection.execute("SELECT count(DISTINCT time_bucket('15 minutes', ts)) FROM reading").fetchone()
        assert buckets == (334,)
        connection.execute("ALTER TABLE reading SET (timescaledb.compress, timescaledb.compress_segmentby = 's')")
        connection.execute("SELECT compress_chunk(c) FROM show_chunks('reading') c")
        assert connection.execute("SELECT count(*), sum(num) FROM reading").fetchone() == (5000, 6_248_750.0)


def test_a_failed_copy_into_timescale_is_an_error_and_rolls_back(hypertable: str) -> None:
    with psycopg.connect(hypertable) as connection:
        copy_rows(connection, [(1, NEW_YEAR, 1.0)])
        connection.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            copy_rows(connection, [(2, NEW_YEAR, 2.0), (1, NEW_YEAR, 1.5)])
        connection.rollback()
        with pytest.raises(psycopg.errors.UndefinedTable), connection.cursor().copy("COPY nothing FROM STDIN") as copy:
            copy.write("1\n")
        connection.rollback()
        with pytest.raises(ZeroDivisionError), connection.cursor().copy("COPY reading FROM STDIN") as copy:
            copy.write(str(1 / 0))
        connection.rollback()
        assert connection.execute("SELECT s, num FROM reading").fetchall() == [(1, 1.0)]


def test_timescale_takes_many_connections_one_after_the_other_and_at_once(hypertable: str) -> None:
    for n in range(20):
        with psycopg.connect(hypertable) as connection:
            connection.execute("INSERT INTO reading VALUES (%s, %s, 0)", (n, NEW_YEAR))
    with (
        psycopg.connect(hypertable, autocommit=True, prepare_threshold=0) as one,
        psycopg.connect(hypertable, autocommit=True, prepare_threshold=0) as two,
    ):
        for n in range(3):  # both prepare a statement of the same name
            assert one.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
            assert two.execute("SELECT %s::text || '!'", (str(n),)).fetchone() == (f"{n}!",)
        assert one.pgconn.exec_(b"DEALLOCATE ALL").command_status == b"DEALLOCATE ALL"
        assert two.execute("SELECT %s::text || '!'", ("still",)).fetchone() == ("still!",)
        with one.pipeline():
            cursors = [one.execute("SELECT %s::int", (n,)) for n in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
        with pytest.raises(psycopg.errors.DivisionByZero), one.pipeline():
            one.execute("SELECT 1 / %s::int", (0,)).fetchone()
        assert two.execute("SELECT count(*) FROM reading").fetchone() == (20,)


def test_a_transaction_on_timescale_waits_for_the_open_one_and_an_abandoned_one_is_rolled_back(hypertable: str) -> None:
    answers: list[Any] = []
    with psycopg.connect(hypertable, autocommit=True) as other:
        abandoned = psycopg.connect(hypertable)
        abandoned.execute("INSERT INTO reading VALUES (1, %s, 0)", (NEW_YEAR,))
        asking = threading.Thread(
            target=lambda: answers.append(other.execute("SELECT count(*) FROM reading").fetchone())
        )
        asking.start()
        asking.join(0.2)
        assert answers == [], "the other transaction is still open"
        with socket.socket(fileno=abandoned.fileno()) as connection:
            connection.shutdown(socket.SHUT_RDWR)
            connection.detach()
        asking.join(10)
        assert answers == [(0,)]
        abandoned.close()


def test_settings_of_one_timescale_connection_are_gone_when_nobody_is_connected(timescale_url: str) -> None:
    with psycopg.connect(timescale_url, options="-c statement_timeout=5000 -c search_path=public") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)

    def timeout() -> bool:
        with psycopg.connect(timescale_url) as again:
            return again.execute("SHOW statement_timeout").fetchone() == ("0",)

    eventually(timeout)
    with psycopg.connect(timescale_url) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_timescale_gives_an_empty_database(timescale: Timescale) -> None:
    url = timescale.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('good', 'bad')")
        connection.execute("CREATE TABLE t (id serial PRIMARY KEY, ts timestamptz NOT NULL, m mood)")
        connection.execute("CREATE VIEW v AS SELECT * FROM t")
        connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.execute("CREATE SCHEMA own CREATE TABLE inner_table (n int)")
    timescale.drop_database(url)
    url = timescale.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('other')")
        connection.execute("CREATE TABLE t (ts timestamptz NOT NULL)")
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'")
        connection.execute("SELECT create_hypertable('t', by_range('ts'))")
    timescale.drop_database(url)


def test_a_killed_timescale_comes_back_empty_on_its_port() -> None:
    with closing(PgliteTimescale()) as server:
        url = server.new_database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n int)")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        assert server.new_database() == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_a_timescale_that_the_environment_names_gives_databases_of_its_own(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUANTONG_TEST_TIMESCALE_URL", postgres.url)
    assert isinstance(make_timescale(), ExternalTimescale)
    server = ExternalTimescale(postgres.url, extension="plpgsql")  # Debian's cluster has no timescaledb
    one, two = server.new_database(), server.new_database()
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE t (n int)")
    with psycopg.connect(two) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)
    for url in (one, two):
        server.drop_database(url)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
