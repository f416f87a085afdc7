"""Opaque cursors: where a page ended, never how many rows came before, so that rows which are added meanwhile shift nothing.

A cursor is unpadded base64url of a MessagePack array that begins with its kind. Clients pass it back as it is; its content may change.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Literal, TypeVar

import msgspec

from gateway.api.problems import ProblemError, invalid
from schemas.bilingual import Bilingual

# the years 1 to 9999, in µs since the epoch: what the store can hold
Micros = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000_000, le=253_402_300_799_999_999)]
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Order = Literal["asc", "desc"]


class NameCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="n"):
    """After this id of a list that is sorted by id."""

    after: Annotated[str, msgspec.Meta(max_length=300)]


class HistoryCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="h"):
    """After (ts, n) of this signal; the bounds as they were resolved for the first page."""

    signal: Number
    order: Order
    start: Micros | None
    end: Micros | None
    ts: Micros
    n: Annotated[int, msgspec.Meta(ge=-(1 << 15), le=(1 << 15) - 1)]


class BucketCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="b"):
    """From the bucket that begins at `start` on."""

    signal: Number
    width: Annotated[str, msgspec.Meta(max_length=20)]
    start: Micros
    end: Micros


class EventCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="e"):
    """After (ts, no), in the order of time."""

    order: Order
    start: Micros | None
    end: Micros | None
    ts: Micros
    no: Number


class FeedCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="f"):
    """After the event `no` of this epoch of the store, in the order of commits."""

    epoch: Number
    no: Number


class GapCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="g"):
    """After the gap with this id."""

    start: Micros | None
    end: Micros | None
    id: Number


class LetterCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="d"):
    """After the dead letter with this id."""

    id: Number


class ConnectionCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="c"):
    """After the interval (start, id)."""

    order: Order
    start: Micros | None
    end: Micros | None
    ts: Micros
    id: Number


AnyCursor = (
    NameCursor | HistoryCursor | BucketCursor | EventCursor | FeedCursor | GapCursor | ConnectionCursor | LetterCursor
)
C = TypeVar("C", bound=AnyCursor)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyCursor)


def dump(cursor: AnyCursor) -> str:
    """As text for a URL."""
    return urlsafe_b64encode(_encoder.encode(cursor)).rstrip(b"=").decode()


def load(text: str, kind: type[C]) -> C:
    """The cursor that `dump` wrote. Raises the problem `invalid-parameter` when it is not one of this kind."""
    try:
        cursor = _decoder.decode(urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
    except (ValueError, msgspec.MsgspecError):  # ValueError: not ASCII, not base64; MsgspecError: not one of ours
        raise bad_cursor(text) from None
    if not isinstance(cursor, kind):
        raise bad_cursor(text)
    return cursor


def bad_cursor(text: str) -> ProblemError:
    """The cursor does not belong to this request."""
    return invalid(
        "cursor",
        text,
        Bilingual(
            "the cursor of a `next` link of this same list, unchanged, with the other parameters unchanged",
            "同一列表 `next` 链接中的游标，原样使用，其他参数也不变",
        ),
    )
