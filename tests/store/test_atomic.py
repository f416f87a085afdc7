"""What stands in one transaction stands or falls together, and the watermark moves only from where it was seen."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from gateway.ledger.steps import StoreWeatherError, WatermarkError
from gateway.store import Reader, Writer
from gateway.store._transaction import Transaction
from gateway.store.records import Reading
from tests.store.conftest import Target
from tests.store.feed import Feed, signal

Read = Callable[..., list[Reading]]
_TARGETS = pytest.mark.parametrize("target", ["sqlite", "postgresql"], indirect=True)


@_TARGETS
def test_the_watermark_moves_only_from_where_it_was_seen(
    writer: Writer, reader: Reader, history: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who saw an older watermark, in whatever way, changes nothing."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t"))])
    repeated = feed.rows((1, 0, 1.0))
    writer.apply([repeated])
    before = (reader.streams(), history())
    look_up = Transaction._look_up

    def stale(self: Transaction, streams: set[str]) -> None:
        look_up(self, streams)
        self._known = {name: SimpleNamespace(gateway=row.gateway, watermark=1) for name, row in self._known.items()}

    monkeypatch.setattr(Transaction, "_look_up", stale)
    with pytest.raises(WatermarkError, match="no longer at 1"):
        writer.apply([repeated])
    assert (reader.streams(), history()) == before


@_TARGETS
def test_a_dead_letter_comes_with_its_watermark_or_not_at_all(writer: Writer, reader: Reader) -> None:
    """The transaction is cut at its first, second, third … statement, until one goes through."""
    feed = Feed()
    writer.apply([feed.birth(signal(1, "t")), feed.done(1)])
    steps = [feed.step(None, poison="nobody can read it", raw=b"\xc1")]
    before = (reader.streams(), reader.dead_letters(), reader.gaps())
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
            writer.apply(steps)
        except StoreWeatherError:
            assert (reader.streams(), reader.dead_letters(), reader.gaps()) == before
        else:
            break
    sa.event.remove(writer._engine, "before_cursor_execute", cut)
    assert stop > 5
    assert [letter.reason for letter in reader.dead_letters()] == ["nobody can read it"]
    assert reader.streams()[0].watermark == feed.seq


@_TARGETS
def test_a_commit_is_on_the_disk_whatever_the_servers_default_is(target: Target, writer: Writer) -> None:
    if target.kind == "sqlite":
        wanted = {"PRAGMA synchronous": 2, "PRAGMA journal_mode": "wal"}
    else:
        wanted = {"SHOW synchronous_commit": "on"}
        with writer._engine.connect() as connection:
            # what is asked of the server, and not what it does by itself
            source = connection.exec_driver_sql(
                "SELECT source FROM pg_settings WHERE name = 'synchronous_commit'"
            ).scalar()
            assert source == "session"
    with writer._engine.connect() as connection:
        assert {query: connection.exec_driver_sql(query).scalar() for query in wanted} == wanted
