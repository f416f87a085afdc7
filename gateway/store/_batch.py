"""From a batch on the ledger to rows of the store, and what in it cannot be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.store._rows import N_MAX, Columns
from gateway.store._values import FLAG_MASK, encode, encode_column, to_json
from gateway.store.tables import TS_MAX, TS_MIN
from schemas.wire import Batch, Extra

_STATUS_MAX = (1 << 32) - 1


def malformed(batch: Batch) -> str:
    """Why the batch as a whole is none; empty when its columns are of equal length."""
    size = len(batch.points)
    for name in ("offsets", "values", "status", "flags", "n"):
        column = getattr(batch, name)
        if column is not None and len(column) != size:
            return f"batch: {len(column)} {name} for {size} points"
    if batch.extra and not all(0 <= row < size for row in batch.extra):
        return f"batch: extra for rows {sorted(batch.extra)}, there are {size}"
    return ""


def take(batch: Batch, rows: list[int]) -> Batch:
    """A batch of some rows of another."""

    def some(column: list[Any]) -> list[Any]:
        return [column[row] for row in rows]

    extra = {new: batch.extra[old] for new, old in enumerate(rows) if old in batch.extra} if batch.extra else None
    return Batch(
        base=batch.base,
        points=some(batch.points),
        offsets=some(batch.offsets),
        values=some(batch.values),
        status=None if batch.status is None else some(batch.status),
        flags=None if batch.flags is None else some(batch.flags),
        n=None if batch.n is None else some(batch.n),
        extra=extra or None,
    )


def columns_of(batch: Batch, points: Mapping[int, int], step: int) -> Columns | None:
    """The rows of a batch; None when one of them cannot be a row (`faults` says which). `malformed` was asked before."""
    size = len(batch.points)
    if not size:
        return Columns()
    base = batch.base
    try:
        signals = list(map(points.__getitem__, batch.points))
        nums, exacts, kinds = encode_column(batch.values, batch.extra)
    except (KeyError, TypeError):
        return None
    if not (base + min(batch.offsets) >= TS_MIN and base + max(batch.offsets) <= TS_MAX):
        return None
    n = batch.n or [0] * size
    if min(n) < 0 or max(n) > N_MAX:
        return None
    status: list[int | None] = [None] * size
    if batch.status is not None:
        if min(batch.status) < 0 or max(batch.status) > _STATUS_MAX:
            return None
        status = [code or None for code in batch.status]
    if isinstance(kinds, int):
        kinds = [kinds] * size
    if batch.flags is not None:
        kinds = [kind | flag & FLAG_MASK for kind, flag in zip(kinds, batch.flags, strict=True)]
    return Columns(
        signals, [base + offset for offset in batch.offsets], list(n), nums, exacts or [None] * size, status, kinds,
        list(batch.values), [step] * size,
    )  # fmt: skip


def faults(batch: Batch, points: Mapping[int, int]) -> dict[int, str]:
    """Row -> why it cannot be stored, for all rows that cannot."""
    found: dict[int, str] = {}
    for row, point in enumerate(batch.points):
        ts = batch.base + batch.offsets[row]
        status = batch.status[row] if batch.status is not None else 0
        n = batch.n[row] if batch.n is not None else 0
        if point not in points:
            found[row] = f"point {point} is unknown in this stream"
        elif not TS_MIN <= ts <= TS_MAX:
            found[row] = f"ts {ts} is outside the years 1 to 9999"
        elif not 0 <= n <= N_MAX:
            found[row] = f"n {n} is outside 0..{N_MAX}"
        elif not 0 <= status <= _STATUS_MAX:
            found[row] = f"status {status} is no 32-bit status code"
        else:
            extra = (batch.extra or {}).get(row, Extra())
            reason = _unfit(encode, batch.values[row]) or _unfit(to_json, extra.raw)
            if reason:
                found[row] = reason
    return found


def _unfit(convert: Callable[[object], object], value: object) -> str:
    try:
        convert(value)
    except TypeError as error:
        return str(error)
    return ""
