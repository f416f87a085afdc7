"""The three stores of the common suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from gateway.config.models import StoreSettings
from gateway.store import Reader, Writer, open_reader, open_writer
from gateway.store.records import Reading

ZONE = "Asia/Shanghai"


@dataclass
class Target:
    """A new, empty store, and whoever is connected to it."""

    kind: str
    settings: StoreSettings
    folder: Path
    made: list[Writer | Reader] = field(default_factory=list)
    single: bool = False
    altered: bool = False
    """Set by a test that changes the schema."""

    def open_writer(self) -> Writer:
        """A writer without the lease."""
        writer = open_writer(self.settings, self.folder, ZONE)
        self.made.append(writer)
        return writer

    def writer(self, holder: str = "ingest-1", ttl: float = 60) -> Writer:
        writer = self.open_writer()
        assert writer.acquire(holder, ttl)
        return writer

    def reader(self) -> Reader:
        reader = open_reader(self.settings, self.folder)
        self.made.append(reader)
        return reader

    def close(self) -> None:
        for one in self.made:
            one.close()


class Servers:
    """One database for all tests of a kind, emptied between them: making the schema takes longer than most tests."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._urls: dict[str, str] = {}

    def empty(self, kind: str) -> tuple[str, bool]:
        """The URL of an empty database (with or without the schema), and whether it takes one transaction at a time."""
        server = self._request.getfixturevalue("postgres" if kind == "postgresql" else "timescale")
        single = kind == "timescale" and server.single_connection
        if kind not in self._urls:
            self._urls[kind] = server.new_database()
        url = self._urls[kind]
        with psycopg.connect(url, autocommit=True) as connection:
            names = [
                name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ]
            names = [name for name in names if name not in ("store", "alembic_version")]
            if names:
                connection.execute(f"TRUNCATE {', '.join(names)} RESTART IDENTITY")
                connection.execute(
                    "UPDATE store SET store_id = gen_random_uuid(), epoch = 1, commit_no = 0, event_no = 0, fence = 0,"
                    " holder = NULL, lease_until = NULL, horizon = NULL"
                )
        options = ([] if server_copies(server) else ["copy=off"]) + (["connections=1"] if single else [])
        return "&".join([url + ("" if "?" in url else "?"), *options]).replace("?&", "?"), single

    def forget(self, kind: str) -> None:
        """The schema was changed: the next test gets a new database."""
        url = self._urls.pop(kind, None)
        if url is not None:
            self._request.getfixturevalue("postgres" if kind == "postgresql" else "timescale").drop_database(url)


def server_copies(server: object) -> bool:
    """Whether COPY FROM STDIN works."""
    return bool(getattr(server, "copy", True))


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The databases of the common suite."""
    return Servers(request)


@pytest.fixture(params=["sqlite", "postgresql", "timescale"])
def target(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[Target]:
    """A new, empty store of each kind."""
    url, single = (None, False) if request.param == "sqlite" else servers.empty(request.param)
    made = Target(request.param, StoreSettings(url=url), tmp_path, single=single)
    yield made
    made.close()
    if made.altered:
        servers.forget(request.param)


@pytest.fixture
def writer(target: Target) -> Writer:
    """A writer with the lease."""
    return target.writer()


@pytest.fixture
def reader(target: Target, writer: Writer) -> Reader:
    """A reader of the store that `writer` writes."""
    return target.reader()


@pytest.fixture
def history(reader: Reader) -> Callable[..., list[Reading]]:
    """All readings of the given signals (signal 1 by default), in one list."""

    def read(*signals: int) -> list[Reading]:
        return [row for chunk in reader.history(list(signals) or [1]) for row in chunk]

    return read
