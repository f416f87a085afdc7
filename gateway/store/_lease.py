"""One ingest per store: a lease with a fencing number, in the store's own row (rule 24).

The lease says who may write; the fencing number, checked in each transaction, makes sure of it even when the holder has slept
through its lease. PostgreSQL's own clock counts the lease; SQLite has none, there it is this machine's.
"""

from __future__ import annotations

import sqlalchemy as sa

from gateway.store._engine import now

_LONGEST = 3_600_000_000
"""A lease that ends later than in an hour (µs) was taken before the machine's clock was set back: it does not count."""

_ACQUIRE = {
    "postgresql": sa.text(
        "UPDATE store SET holder = :holder, fence = fence + 1,"
        " lease_until = clock_timestamp() + make_interval(secs => :ttl)"
        " WHERE holder IS NULL OR holder = :holder OR lease_until < clock_timestamp() RETURNING fence"
    ).bindparams(sa.bindparam("ttl", type_=sa.Double)),
    "sqlite": sa.text(
        "UPDATE store SET holder = :holder, fence = fence + 1, lease_until = :now + :ttl"
        " WHERE holder IS NULL OR holder = :holder OR lease_until < :now OR lease_until > :now + :longest RETURNING fence"
    ),
}
_RENEW = {
    "postgresql": sa.text(
        "UPDATE store SET lease_until = clock_timestamp() + make_interval(secs => :ttl)"
        " WHERE fence = :fence AND holder IS NOT NULL"
    ).bindparams(sa.bindparam("ttl", type_=sa.Double)),
    "sqlite": sa.text("UPDATE store SET lease_until = :now + :ttl WHERE fence = :fence AND holder IS NOT NULL"),
}


def _times(connection: sa.Connection, ttl: float) -> dict[str, float | int]:
    if connection.dialect.name == "postgresql":
        return {"ttl": ttl}
    return {"ttl": int(ttl * 1_000_000), "now": now()}


def acquire(connection: sa.Connection, holder: str, ttl: float) -> int | None:
    """Take the lease for `ttl` seconds; returns the fencing number, None when another holds it."""
    given = _times(connection, ttl) | {"holder": holder}
    if connection.dialect.name == "sqlite":
        given["longest"] = _LONGEST
    found: int | None = connection.execute(_ACQUIRE[connection.dialect.name], given).scalar()
    return found


def renew(connection: sa.Connection, fence: int, ttl: float) -> bool:
    """Hold the lease for `ttl` seconds from now; False when it is another's."""
    given = _times(connection, ttl) | {"fence": fence}
    return connection.execute(_RENEW[connection.dialect.name], given).rowcount == 1


def release(connection: sa.Connection, fence: int) -> None:
    """Give the lease back, if it is still ours."""
    connection.execute(
        sa.text("UPDATE store SET holder = NULL, lease_until = NULL WHERE fence = :fence"), {"fence": fence}
    )
