"""Dead letters that can be replayed or discarded; since when a signal is retired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.store.tables import Micros

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.SmallInteger(), nullable=True),
        sa.Column("enc", sa.SmallInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False, server_default="waiting"),
        sa.Column("settled_at", Micros(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
    ):
        op.add_column("dead_letter", column)
    unsettled = sa.text("settled_at IS NULL")
    op.create_index(
        "dead_letter_open", "dead_letter", ["state", "id"], postgresql_where=unsettled, sqlite_where=unsettled
    )
    op.add_column("signal", sa.Column("retired_at", Micros(), nullable=True))
