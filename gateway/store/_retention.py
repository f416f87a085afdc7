"""Retention of raw readings: what is older goes, the roll-ups stay, and so does the newest older reading of each signal.

That one says what an unchanged signal is at the horizon. TimescaleDB drops whole chunks and gets those rows back.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from gateway.store import tables as t
from gateway.store._rollups import quarter_before

_DELETE = sa.text(
    "DELETE FROM reading WHERE signal_id = :signal_id AND ts < "
    "(SELECT max(ts) FROM reading WHERE signal_id = :signal_id AND ts < :horizon)"
).bindparams(sa.bindparam("horizon", type_=t.Micros), sa.bindparam("signal_id", type_=sa.Integer))

_KEEP = sa.text(
    "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT r.* FROM signal s CROSS JOIN LATERAL "
    "(SELECT * FROM reading WHERE signal_id = s.id AND ts < :horizon ORDER BY ts DESC, n DESC LIMIT 1) r"
).bindparams(sa.bindparam("horizon", type_=t.Micros))
_DROP = sa.text("SELECT drop_chunks('reading', older_than => CAST(:horizon AS timestamptz))").bindparams(
    sa.bindparam("horizon", type_=t.Micros)
)
_BACK = sa.text(
    "INSERT INTO reading SELECT k.* FROM kept k WHERE NOT EXISTS "
    "(SELECT FROM reading r WHERE r.signal_id = k.signal_id AND r.ts = k.ts AND r.n = k.n)"
)


def horizon_of(connection: sa.Connection, retention: float, now: int) -> int | None:
    """Where raw readings begin when `retention` seconds are kept; None when that would be no step forward.

    It is reckoned from the newest `complete_to`, and not from a clock that may have been set wrong by years.
    """
    newest = connection.execute(sa.select(sa.func.max(t.progress.c.complete_to))).scalar()
    if newest is None:
        return None
    horizon = quarter_before(min(int(newest), now) - round(retention * 1_000_000))
    before = connection.execute(sa.select(t.store.c.horizon)).scalar()
    return None if horizon < t.TS_MIN or (before is not None and horizon <= before) else horizon


def behind(connection: sa.Connection, horizon: int) -> list[int]:
    """The signals whose quarters are not made up to the horizon, by id."""
    query = (
        sa.select(t.signal.c.id)
        .select_from(t.signal.outerjoin(t.rolled, t.rolled.c.signal_id == t.signal.c.id))
        .where(sa.or_(t.rolled.c.quarter_to.is_(None), t.rolled.c.quarter_to < horizon))
        .order_by(t.signal.c.id)
    )
    return list(connection.scalars(query))


def move_horizon(connection: sa.Connection, horizon: int) -> None:
    """From now on readings before the horizon are too late, and no roll-up before it is made again."""
    connection.execute(t.store.update().values(horizon=horizon))


def delete_before(connection: sa.Connection, signals: Sequence[int], horizon: int) -> None:
    """Delete the rows of some signals that are older than the newest one before the horizon."""
    if signals:
        connection.execute(_DELETE, [{"signal_id": signal, "horizon": horizon} for signal in signals])


def drop_chunks_before(connection: sa.Connection, horizon: int) -> None:
    """Drop TimescaleDB's chunks that end before the horizon."""
    connection.execute(_KEEP, {"horizon": horizon})
    connection.execute(_DROP, {"horizon": horizon})
    connection.execute(_BACK)
