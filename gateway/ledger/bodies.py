"""Bodies of ledger messages: MessagePack of the types in `schemas.wire`, by kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

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


class PoisonError(Exception):
    """A body that cannot be what its envelope says."""


def decode_body(kind: int, body: bytes, enc: int = 0) -> Body:
    """The body as its type. Raises PoisonError for unknown kinds and encodings and for bytes that do not fit the type."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise PoisonError(f"kind {kind} is not known")
    if enc != 0:
        raise PoisonError(f"encoding {enc} is not known")
    try:
        decoded: Body = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError(f"{type(error).__name__}: {error}") from error
    if isinstance(decoded, Batch):
        _check_columns(decoded)
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
    """One gap in the place of many: all points, the widest bounds, the sum of the counts. Never understated."""
    points: set[int] = set()
    start, end, count = None, None, 0
    for gap in gaps:
        points.update(gap.points or ())
        start = gap.start if start is None else min(start, gap.start)
        end = gap.end if end is None else max(end, gap.end)
        count += gap.count or 0
    if start is None or end is None:
        return []
    return [Gap(None, sorted(points), start, end, Cause.DROPPED.value, count)]
