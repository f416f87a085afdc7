"""The database's settings and roles, on a real PostgreSQL (which has no TimescaleDB: the roles are the same without it)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.config.models import Secret, StoreSettings
from gateway.store import open_reader, open_writer
from tests.deploy.files import DEPLOY
from tests.servers.needs import require
from tests.servers.postgresql import Postgres

ROLES = DEPLOY / "timescaledb/010-guantong.sql"
GIVEN = {"listen_addresses", "port", "unix_socket_directories"}
"""What the test's cluster sets itself."""


def settings() -> dict[str, str]:
    """The lines of the shipped postgresql.conf."""
    found = {}
    for line in (DEPLOY / "timescaledb/postgresql.conf").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"(?P<name>[a-z_.]+) = (?P<value>'[^']*'|\S+)\s*(#.*)?", line)
            assert match is not None, line
            found[match["name"]] = match["value"]
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A cluster with the shipped settings, less those of TimescaleDB, which Debian does not have."""
    ours = {k: v for k, v in settings().items() if "timescaledb" not in k + v and k not in GIVEN}
    server = Postgres(ours)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets") / "with a blank"
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)
    return folder


def run_roles(url: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    command = [require("psql"), "--no-psqlrc", "--dbname", url, f"--set=secrets={secrets}", "--file", ROLES]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def store(server: Postgres, secrets: Path) -> str:
    """An empty database with the roles; its URL for the superuser."""
    url = server.new_database()
    told = run_roles(url, secrets)
    assert told.returncode == 0, told.stderr
    assert "ERROR" not in told.stderr
    return url


@pytest.fixture
def settings_of(store: str, secrets: Path) -> Callable[[str], StoreSettings]:
    def of(role: str) -> StoreSettings:
        url = store.replace("//guantong@", f"//guantong_{role}@")
        return StoreSettings(url=url, password=Secret(file=secrets / f"store_{role}"))

    return of


def test_the_settings_are_taken(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        shown = dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())
        errors = connection.execute("SELECT name FROM pg_file_settings WHERE error IS NOT NULL").fetchall()
    assert errors == []
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        assert shown[name] == "on", name
    assert shown["shared_buffers"] == str(768 * 1024 // 8)
    assert int(shown["max_worker_processes"]) >= int(settings()["timescaledb.max_background_workers"]) + 2 + 3


def test_ingest_makes_the_tables_and_serve_only_reads_them(
    settings_of: Callable[[str], StoreSettings], store: str, tmp_path: Path
) -> None:
    writer = open_writer(settings_of("ingest"), tmp_path, "Asia/Shanghai")
    try:
        assert writer.acquire("test", 10)
        reader = open_reader(settings_of("serve"), tmp_path)
        try:
            assert reader.store_id() == writer.store_id
            reader.snapshot()
        finally:
            reader.close()
        writer.release()
    finally:
        writer.close()
    as_serve = store.replace("//guantong@", "//guantong_serve@")
    with psycopg.connect(as_serve, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM reading")
        connection.execute("SET default_transaction_read_only = off")
        for statement in ("DELETE FROM reading", "UPDATE store SET epoch = 0", "CREATE TABLE mine (a int)",
                          "CREATE TEMPORARY TABLE mine (a int)", "DROP TABLE reading"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)  # type: ignore[arg-type,unused-ignore]


def test_neither_role_is_more_than_it_must_be(store: str) -> None:
    with psycopg.connect(store) as connection:
        rows = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolpassword LIKE 'SCRAM-SHA-256$%%'"
            " FROM pg_authid WHERE rolname IN ('guantong_ingest', 'guantong_serve')"
        ).fetchall()
        others = connection.execute("SELECT datname FROM pg_database WHERE datname = 'postgres'").fetchall()
    assert rows == [(False, False, False, False, False, True)] * 2
    assert others


def test_without_passwords_nothing_is_made(server: Postgres, tmp_path: Path) -> None:
    told = run_roles(server.new_database(), tmp_path)
    assert told.returncode != 0
    assert "run deploy/make-secrets" in told.stderr
