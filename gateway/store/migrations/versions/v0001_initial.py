"""The initial schema."""

from __future__ import annotations

from alembic import op

from gateway.store.tables import metadata, tail_metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    if op.get_bind().dialect.name == "sqlite":
        tail_metadata.create_all(op.get_bind())
