"""Bodies of ledger messages: MessagePack of the types in `schemas.wire`, by kind, compressed or not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.ledger.compression import PoisonError, plain_body
from gateway.ledger.steps import Body
from schemas.wire import Batch, Birth, Cause, Closed, Event, Gap, Kind, Link, Progress, Tombstone

OVERHEAD = 256
"""Room for the envelope around a body, in bytes: nine fields, of which the hash and the stream's id are the largest."""

_TYPES: dict[int, Any] = {
    Kind.BIRTH: Birth,
    Kind.READINGS: Batch,
    Kind.LINK: Link,
    Kind.EVENT: list[Event],
    Kind.GAP: list[Gap],
    Kind.PROGRESS: Progress,
    Kind.CLOSED: Closed,
    Kind.TOMBSTONE: Tombstone,
}
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {int(k): msgspec.msgpack.Decoder(t) for k, t in _TYPES.items()}


def decode_body(kind: int, body: bytes, enc: int = 0) -> Body:
    """The body as its type. `enc` says how `body` is stored: PLAIN or ZSTD.

    Raises PoisonError for unknown kinds and encodings, and for bytes that do not fit the encoding or the type.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise PoisonError(f"kind {kind} is not known")
    plain = plain_body(body, enc)
    try:
        decoded: Body = decoder.decode(plain)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError(f"{type(error).__name__}: {error}") from error
    if isinstance(decoded, Batch):
        _check_columns(decoded)
    elif isinstance(decoded, Tombstone) and decoded.newest is not None:
        _check_columns(decoded.newest)
    return decoded


def _check_columns(batch: Batch) -> None:
    rows = len(batch.points)
    for name in ("offsets", "values", "status", "flags", "n"):
        column = getattr(batch, name)
        if column is not None and len(column) != rows:
            raise PoisonError(f"column {name} has {len(column)} rows, points has {rows}")
    if batch.extra and (max(batch.extra) >= rows or min(batch.extra) < 0):
        raise PoisonError(f"extra names a row outside 0..{rows - 1}")


def gaps_of_batch(batch: Batch) -> Gap:
    """What is missing when these readings are dropped: their points, the bounds of their times, and how many."""
    times = [batch.base + offset for offset in batch.offsets]
    return Gap(
        device=None,
        points=sorted(set(batch.points)),
        start=min(times, default=batch.base),
        end=max(times, default=batch.base),
        cause=Cause.DROPPED.value,
        count=len(batch.points),
    )


def merge_gaps(gaps: Iterable[Gap]) -> list[Gap]:
    """One gap in the place of many of one cause and device: all points, the widest bounds, the sum of the counts. Never understated."""
    merged: dict[tuple[str, str | None], Gap] = {}
    points: dict[tuple[str, str | None], set[int] | None] = {}
    for gap in gaps:
        key = gap.cause, gap.device
        known = points.setdefault(key, set())
        if gap.points is None or known is None:
            points[key] = None  # all points, and so it stays
        else:
            known.update(gap.points)
        before = merged.get(key)
        merged[key] = gap if before is None else _widest(before, gap)
    return [_with_points(gap, points[key]) for key, gap in merged.items()]


def _widest(one: Gap, other: Gap) -> Gap:
    count = None if one.count is None or other.count is None else one.count + other.count
    return Gap(
        one.device, None, min(one.start, other.start), max(one.end, other.end), one.cause, count, one.detail or other.detail
    )  # fmt: skip


def _with_points(gap: Gap, points: set[int] | None) -> Gap:
    return msgspec.structs.replace(gap, points=None if points is None else sorted(points))


__all__ = ["OVERHEAD", "PoisonError", "decode_body", "gaps_of_batch", "merge_gaps", "plain_body"]
