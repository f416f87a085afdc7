"""Dead letters as the writer sees them: what kind each is, and what has to stay as long as one may be replayed."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import sqlalchemy as sa

from gateway.store import tables as t
from schemas.wire import Batch, Birth, Closed, Event, Gap, Kind, Link, Progress, Tombstone

ROW: Final = 0
"""The kind of a dead letter that is one stored row; all others are those of `schemas.wire.Kind`."""
_SMALLEST, _LARGEST = 0, 32_767


class LetterRow(msgspec.Struct, array_like=True, frozen=True):
    """A reading that the database refused: `schemas.wire.Row`, and the text of `exact` where the row has one."""

    signal: int
    ts: int
    n: int
    value: Any
    status: int = 0
    flags: int = 0
    exact: str | None = None


def kind_of(body: Any) -> int | None:
    """The kind of what a dead letter holds; None when it cannot be told."""
    match body:
        case LetterRow():
            return ROW
        case Batch():
            return Kind.READINGS
        case Birth():
            return Kind.BIRTH
        case Link():
            return Kind.LINK
        case Progress():
            return Kind.PROGRESS
        case Closed():
            return Kind.CLOSED
        case Tombstone():
            return Kind.TOMBSTONE
        case [Event(), *_]:
            return Kind.EVENT
        case [Gap(), *_]:
            return Kind.GAP
    return None


def small(number: int | None) -> int | None:
    """A number that an envelope claims, as far as the column takes it."""
    return number if number is not None and _SMALLEST <= number <= _LARGEST else None


def has_open_letters(connection: sa.Connection, stream: str) -> bool:
    """True while a dead letter of the stream may still be replayed: then its points are needed."""
    letter = t.dead_letter.c
    query = sa.select(letter.id).where(letter.settled_at.is_(None), letter.stream == stream).limit(1)
    return connection.execute(query).first() is not None


def forget_points(connection: sa.Connection, stream: str) -> None:
    """The points of a stream that has ended whole go with its last open dead letter."""
    ended = connection.execute(
        sa.select(t.stream.c.id).where(t.stream.c.id == stream, t.stream.c.closed_at.is_not(None), t.stream.c.lost == 0)
    ).first()
    if ended is not None and not has_open_letters(connection, stream):
        connection.execute(t.point.delete().where(t.point.c.stream == stream))
