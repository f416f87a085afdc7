"""Dead letters for people: what is in one, and what shall become of it.

A dead letter is what arrived and could not be stored. It waits until somebody has it replayed, which is asked for here and done by
ingest under its lease, or discards it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.config.models import StoreSettings
from gateway.ledger.bodies import PoisonError, decode_body
from gateway.ledger.steps import StoreFailedError
from gateway.store import tables as t
from gateway.store._engine import Place, make_engine, now, place_of
from gateway.store._errors import DataError, translated
from gateway.store._letters import ROW, LetterRow, forget_points
from gateway.store._migrate import check_version, version
from gateway.store._sql import text
from gateway.store.records import DeadLetter
from schemas.bilingual import Bilingual
from schemas.wire import Kind

_letter = t.dead_letter.c


def content(letter: DeadLetter) -> Any:
    """What the letter holds, decoded as far as possible, as lists, dicts and plain values; None when its bytes are no MessagePack."""
    try:
        if letter.kind == ROW:
            return msgspec.to_builtins(msgspec.msgpack.decode(letter.raw, type=LetterRow))
        if letter.kind is not None:
            return _named(decode_body(letter.kind, letter.raw, letter.enc or 0))
    except (PoisonError, msgspec.MsgspecError, UnicodeDecodeError):
        pass  # it is a dead letter for that: what its bytes are without a type is better than nothing
    try:
        return msgspec.msgpack.decode(letter.raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def kind_name(kind: int | None) -> str | None:
    """The kind of what a letter holds, in a word; None where it is not known."""
    if kind == ROW:
        return "row"
    return next((one.name.lower() for one in Kind if one == kind), None)


def _named(body: Any) -> Any:
    """Structs as dicts with the names of their fields: on the wire they are arrays."""
    if isinstance(body, msgspec.Struct):
        return {name: _named(getattr(body, name)) for name in body.__struct_fields__}
    if isinstance(body, list | tuple):
        return [_named(item) for item in body]
    if isinstance(body, dict):
        return {key: _named(item) for key, item in body.items()}
    return body


class Letters:
    """Decisions about dead letters, beside a running ingest; made by `open_letters`.

    Methods raise StoreWeatherError when the database is not there at the moment, StoreFailedError when a person is needed.
    """

    def __init__(self, engine: sa.Engine, place: Place) -> None:
        self._engine, self._place = engine, place

    def request(self, ids: Sequence[int] | None) -> list[int]:
        """Ask ingest to replay these letters (None: all that wait). Returns those that were waiting, in the order in which it will."""
        with self._transaction() as connection:
            query = t.dead_letter.update().where(_letter.state == "waiting", _letter.settled_at.is_(None))
            if ids is not None:
                query = query.where(_letter.id.in_(list(ids)))
            return sorted(connection.scalars(query.values(state="requested", note="").returning(_letter.id)))

    def withdraw(self, ids: Sequence[int]) -> list[int]:
        """Take back what was asked for and not done yet; returns which."""
        with self._transaction() as connection:
            query = t.dead_letter.update().where(_letter.state == "requested", _letter.id.in_(list(ids)))
            return sorted(connection.scalars(query.values(state="waiting").returning(_letter.id)))

    def discard(self, ids: Sequence[int] | None, reason: str) -> list[int]:
        """Never store these letters (None: all that wait); they stay in the table, with the reason. Returns which were waiting."""
        with self._transaction() as connection:
            query = t.dead_letter.update().where(_letter.state == "waiting", _letter.settled_at.is_(None))
            if ids is not None:
                query = query.where(_letter.id.in_(list(ids)))
            given = query.values(state="discarded", settled_at=now(), note=text(reason))
            rows = connection.execute(given.returning(_letter.id, _letter.stream)).all()
            for stream in {row.stream for row in rows}:
                forget_points(connection, stream)
            return sorted(row.id for row in rows)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with translated(self._place.text), self._engine.begin() as connection:
                check_version(version(connection), self._place.text)
                yield connection
        except DataError as error:
            raise StoreFailedError(
                Bilingual(f"store {self._place.text}: {error}", f"存储 {self._place.text}：{error}"),
                fix=Bilingual("Read the database's log.", "请查看数据库日志。"),
            ) from error


def open_letters(settings: StoreSettings, data_dir: Path) -> Letters:
    """For decisions about the dead letters of the store that the settings name. Raises StoreFailedError when there is none."""
    place = place_of(settings, data_dir)
    if place.sqlite and not Path(place.url.database or "").exists():
        raise StoreFailedError(
            Bilingual(f"store {place.text}: there is no such file", f"存储 {place.text}：没有该文件"),
            fix=Bilingual("Start ingest once: it creates the store.", "请先启动一次 ingest：由它建立存储。"),
        )
    return Letters(make_engine(place, writer=True), place)
