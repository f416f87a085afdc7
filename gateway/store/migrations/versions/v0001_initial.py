"""The initial schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from gateway.store.tables import Micros

revision = "0001"
down_revision = None

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "asset",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("level", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "connection",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("from_ts", Micros(), nullable=False),
        sa.Column("to_ts", Micros(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Intervals in which a device was not connected; to_ts is null while it is not.",
    )
    op.create_index("connection_device_from", "connection", ["device", "from_ts"], unique=False)
    is_down = sa.text("to_ts IS NULL")
    op.create_index("connection_open", "connection", ["device"], postgresql_where=is_down, sqlite_where=is_down)
    op.create_table(
        "dead_letter",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", Micros(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="What arrived and could not be stored; raw is MessagePack, or the bytes as they came.",
    )
    op.create_table(
        "device",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("name_zh", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("identity", JSON, nullable=True),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("born_at", Micros(), nullable=False),
        sa.Column("changed_at", Micros(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_device_gateway"), "device", ["gateway"], unique=False)
    op.create_table(
        "dirty",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("signal_id", sa.Integer(), nullable=True),
        sa.Column("start_ts", Micros(), nullable=False),
        sa.Column("end_ts", Micros(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Where roll-ups are to be made again, up to the reading after end_ts. signal_id null: all of the device.",
    )
    op.create_index("dirty_device", "dirty", ["device"], unique=False)
    op.create_index(op.f("ix_dirty_signal_id"), "dirty", ["signal_id"], unique=False)
    op.create_table(
        "event",
        sa.Column("no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ts", Micros(), nullable=False),
        sa.Column("source_ts", Micros(), nullable=True),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False),
        sa.Column("message_zh", sa.Text(), nullable=False),
        sa.Column("message_en", sa.Text(), nullable=False),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("condition", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("flags", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("no"),
        sa.UniqueConstraint("id"),
        comment="no numbers the events in the order of their commits.",
    )
    op.create_index("event_device_ts", "event", ["device", "ts", "no"], unique=False)
    op.create_index("event_ts_no", "event", ["ts", "no"], unique=False)
    op.create_table(
        "gap",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("group_name", sa.Text(), nullable=True),
        sa.Column("signals", JSON, nullable=True),
        sa.Column("start_ts", Micros(), nullable=False),
        sa.Column("end_ts", Micros(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="What is missing. signals null: all of the device; device null: all of the gateway; end_ts null: it goes on.",
    )
    op.create_index("gap_device_end", "gap", ["device", "end_ts"], unique=False)
    op.create_index("gap_stream", "gap", ["stream"], unique=False)
    goes_on = sa.text("end_ts IS NULL")
    op.create_index("gap_open", "gap", ["gateway"], postgresql_where=goes_on, sqlite_where=goes_on)
    op.create_table(
        "point",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("point", sa.BigInteger(), nullable=False),
        sa.Column("signal_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "point"),
        comment="Stream-local point -> signal, from the births of the streams that are open.",
    )
    op.create_table(
        "progress",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("complete_to", Micros(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("at", Micros(), nullable=False),
        sa.PrimaryKeyConstraint("device", "group_name"),
    )
    op.create_table(
        "reading",
        sa.Column("signal_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ts", Micros(), autoincrement=False, nullable=False),
        sa.Column("n", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("num", sa.Double(), nullable=True),
        sa.Column("exact", JSON, nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("flags", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signal_id", "ts", "n"),
        comment="status is null for Good. The two bits 4096 and 8192 of flags say what num holds: 0 a float, 1 an integer, 2 a boolean, 3 that the value lies in exact.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rolled",
        sa.Column("signal_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("quarter_to", Micros(), nullable=False),
        sa.Column("day_to", Micros(), nullable=True),
        sa.PrimaryKeyConstraint("signal_id"),
        comment="Up to when the roll-ups of a signal are made.",
    )
    op.create_table(
        "rollup_day",
        sa.Column("signal_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ts", Micros(), autoincrement=False, nullable=False),
        sa.Column("end_ts", Micros(), nullable=False),
        sa.Column("good", sa.BigInteger(), nullable=False),
        sa.Column("uncertain", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("first", sa.Double(), nullable=True),
        sa.Column("first_ts", Micros(), nullable=True),
        sa.Column("last", sa.Double(), nullable=True),
        sa.Column("last_ts", Micros(), nullable=True),
        sa.Column("sum", sa.Double(), nullable=True),
        sa.Column("average", sa.Double(), nullable=True),
        sa.Column("covered", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signal_id", "start_ts"),
        comment="Days of the site's time zone (store.timezone), from the buckets of 15 minutes.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollup_quarter",
        sa.Column("signal_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ts", Micros(), autoincrement=False, nullable=False),
        sa.Column("end_ts", Micros(), nullable=False),
        sa.Column("good", sa.BigInteger(), nullable=False),
        sa.Column("uncertain", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("first", sa.Double(), nullable=True),
        sa.Column("first_ts", Micros(), nullable=True),
        sa.Column("last", sa.Double(), nullable=True),
        sa.Column("last_ts", Micros(), nullable=True),
        sa.Column("sum", sa.Double(), nullable=True),
        sa.Column("average", sa.Double(), nullable=True),
        sa.Column("covered", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signal_id", "start_ts"),
        comment="Buckets of 15 minutes; covered is in µs. Empty ones are not stored.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "signal",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("description_zh", sa.Text(), nullable=False),
        sa.Column("description_en", sa.Text(), nullable=False),
        sa.Column("semantic_id", sa.Text(), nullable=True),
        sa.Column("range", JSON, nullable=True),
        sa.Column("deadband", JSON, nullable=True),
        sa.Column("silence", sa.Double(), nullable=True),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("born_at", Micros(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device", "name", name="signal_device_name"),
    )
    op.create_table(
        "signal_revision",
        sa.Column("signal_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("valid_from", Micros(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scale", sa.Double(), nullable=False),
        sa.Column("offset", sa.Double(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("enum", JSON, nullable=True),
        sa.Column("counter", JSON, nullable=True),
        sa.PrimaryKeyConstraint("signal_id", "valid_from"),
    )
    op.create_table(
        "store",
        sa.Column("id", sa.SmallInteger(), sa.CheckConstraint("id = 1"), autoincrement=False, nullable=False),
        sa.Column("store_id", sa.Text(), nullable=False),
        sa.Column("created_at", Micros(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("commit_no", sa.BigInteger(), nullable=False),
        sa.Column("event_no", sa.BigInteger(), nullable=False),
        sa.Column("horizon", Micros(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("lease_until", Micros(), nullable=True),
        sa.Column("merge_row", sa.BigInteger(), nullable=False),
        sa.Column("merge_signal", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="One row: who this store is, the number of its last commit, and which ingest may write (lease, fencing number).",
    )
    op.create_table(
        "stream",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", Micros(), nullable=False),
        sa.Column("seen_at", Micros(), nullable=False),
        sa.Column("closed_at", Micros(), nullable=True),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="A stream of the ledger: everything up to `watermark` is stored.",
    )
    op.create_index(op.f("ix_stream_gateway"), "stream", ["gateway"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        op.create_table(
            "tail",
            sa.Column("row", sa.Integer(), nullable=False),
            sa.Column("signal_id", sa.Integer(), nullable=False),
            sa.Column("ts", Micros(), nullable=False),
            sa.Column("n", sa.SmallInteger(), nullable=False),
            sa.Column("num", sa.Double(), nullable=True),
            sa.Column("exact", JSON, nullable=True),
            sa.Column("status", sa.BigInteger(), nullable=True),
            sa.Column("flags", sa.SmallInteger(), nullable=False),
            sa.PrimaryKeyConstraint("row"),
        )
