"""The three stores of the common suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

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


def _url_with(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@pytest.fixture(params=["sqlite", "postgresql", "timescale"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """A new, empty store of each kind."""
    url, single = None, False
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    elif request.param == "timescale":
        url = request.getfixturevalue("timescale_url")
        server = request.getfixturevalue("timescale")
        if not server.copy:
            url = _url_with(url, "copy=off")
        single = server.single_connection
        if single:
            url = _url_with(url, "connections=1")
    made = Target(request.param, StoreSettings(url=url), tmp_path, single=single)
    yield made
    made.close()


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
