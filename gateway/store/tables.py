"""The tables of the store, the same on SQLite, PostgreSQL and TimescaleDB; `migrations` creates them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

TS_MIN = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z in µs since the epoch: no reading is older (the range of Python's datetime and of RFC 3339)."""
TS_MAX = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z in µs since the epoch."""
PG_EPOCH = 946_684_800_000_000
"""2000-01-01T00:00:00Z in µs since the epoch: where PostgreSQL's binary timestamptz counts from."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(ts: int) -> datetime:
    """The moment `ts` (µs since the epoch) as an aware datetime. Raises OverflowError outside TS_MIN..TS_MAX."""
    return _EPOCH + timedelta(microseconds=ts)


class Micros(sa.types.TypeDecorator[int]):
    """µs since the epoch, UTC: timestamptz on PostgreSQL, INTEGER on SQLite.

    Our PostgreSQL connections load timestamptz as the raw binary number (µs since 2000), without a datetime in between.
    """

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))
        return dialect.type_descriptor(sa.BigInteger())

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return value
        if not TS_MIN <= value <= TS_MAX:
            raise OverflowError(f"{value} µs is outside the years 1 to 9999")
        return to_datetime(value) if dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> int | None:
        if value is None or dialect.name != "postgresql":
            return value  # type: ignore[no-any-return]
        return int(value) + PG_EPOCH


Json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A 64-bit number that SQLite can use as its rowid."""

metadata = sa.MetaData()

store = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    sa.Column("store_id", sa.Text, nullable=False),
    sa.Column("created_at", Micros, nullable=False),
    sa.Column("timezone", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("commit_no", sa.BigInteger, nullable=False),
    sa.Column("event_no", sa.BigInteger, nullable=False),
    sa.Column("horizon", Micros),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", Micros),
    sa.Column("merge_row", sa.BigInteger, nullable=False),
    sa.Column("merge_signal", sa.BigInteger, nullable=False),
    comment="One row: who this store is, the number of its last commit, and which ingest may write (lease, fencing number).",
)

stream = sa.Table(
    "stream",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("gateway", sa.Text, nullable=False, index=True),
    sa.Column("watermark", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("opened_at", Micros, nullable=False),
    sa.Column("seen_at", Micros, nullable=False),
    sa.Column("closed_at", Micros),
    sa.Column("lost", sa.BigInteger, nullable=False),
    comment="A stream of the ledger: everything up to `watermark` is stored.",
)

point = sa.Table(
    "point",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("point", sa.BigInteger, primary_key=True),
    sa.Column("signal_id", sa.Integer, nullable=False),
    comment="Stream-local point -> signal, from the births of the streams that are open.",
)

asset = sa.Table(
    "asset",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("name_zh", sa.Text, nullable=False),
    sa.Column("name_en", sa.Text, nullable=False),
    sa.Column("parent", sa.Text),
    sa.Column("level", sa.Text, nullable=False),
)

device = sa.Table(
    "device",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("gateway", sa.Text, nullable=False, index=True),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("name_zh", sa.Text, nullable=False),
    sa.Column("name_en", sa.Text, nullable=False),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("identity", Json),
    sa.Column("retired", sa.Boolean, nullable=False),
    sa.Column("born_at", Micros, nullable=False),
    sa.Column("changed_at", Micros, nullable=False),
)

signal = sa.Table(
    "signal",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("group_name", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("description_zh", sa.Text, nullable=False),
    sa.Column("description_en", sa.Text, nullable=False),
    sa.Column("semantic_id", sa.Text),
    sa.Column("range", Json),
    sa.Column("deadband", Json),
    sa.Column("silence", sa.Double),
    sa.Column("retired", sa.Boolean, nullable=False),
    sa.Column("born_at", Micros, nullable=False),
    sa.Column("retired_at", Micros),
    sa.UniqueConstraint("device", "name", name="signal_device_name"),
)

signal_revision = sa.Table(
    "signal_revision",
    metadata,
    sa.Column("signal_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("valid_from", Micros, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("unit", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("scale", sa.Double, nullable=False),
    sa.Column("offset", sa.Double, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("enum", Json),
    sa.Column("counter", Json),
)


def _reading_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("num", sa.Double),
        sa.Column("exact", Json),
        sa.Column("status", sa.BigInteger),
        sa.Column("flags", sa.SmallInteger, nullable=False),
    ]


reading = sa.Table(
    "reading",
    metadata,
    sa.Column("signal_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ts", Micros, primary_key=True, autoincrement=False),
    sa.Column("n", sa.SmallInteger, primary_key=True, autoincrement=False),
    *_reading_columns(),
    sqlite_with_rowid=False,
    comment="status is null for Good. The two bits 4096 and 8192 of flags say what num holds: 0 a float, 1 an integer, "
    "2 a boolean, 3 that the value lies in exact.",
)

tail_metadata = sa.MetaData()
"""What SQLite alone has."""

tail = sa.Table(
    "tail",
    tail_metadata,
    sa.Column("row", sa.Integer, primary_key=True),
    sa.Column("signal_id", sa.Integer, nullable=False),
    sa.Column("ts", Micros, nullable=False),
    sa.Column("n", sa.SmallInteger, nullable=False),
    *_reading_columns(),
)
"""The newest readings in the order of their arrival; merged into `reading` now and then, which spares the flash.

Rows up to `store.merge_row` of signals up to `store.merge_signal` are in `reading` already.
"""


def _rollup(name: str, comment: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("signal_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start_ts", Micros, primary_key=True, autoincrement=False),
        sa.Column("end_ts", Micros, nullable=False),
        sa.Column("good", sa.BigInteger, nullable=False),
        sa.Column("uncertain", sa.BigInteger, nullable=False),
        sa.Column("bad", sa.BigInteger, nullable=False),
        sa.Column("min", sa.Double),
        sa.Column("max", sa.Double),
        sa.Column("first", sa.Double),
        sa.Column("first_ts", Micros),
        sa.Column("last", sa.Double),
        sa.Column("last_ts", Micros),
        sa.Column("sum", sa.Double),
        sa.Column("average", sa.Double),
        sa.Column("covered", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
        comment=comment,
    )


rollup_quarter = _rollup("rollup_quarter", "Buckets of 15 minutes; covered is in µs. Empty ones are not stored.")
rollup_day = _rollup("rollup_day", "Days of the site's time zone (store.timezone), from the buckets of 15 minutes.")

rolled = sa.Table(
    "rolled",
    metadata,
    sa.Column("signal_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("quarter_to", Micros, nullable=False),
    sa.Column("day_to", Micros),
    comment="Up to when the roll-ups of a signal are made.",
)

dirty = sa.Table(
    "dirty",
    metadata,
    sa.Column("id", Number, primary_key=True),
    sa.Column("device", sa.Text),
    sa.Column("signal_id", sa.Integer, index=True),
    sa.Column("start_ts", Micros, nullable=False),
    sa.Column("end_ts", Micros, nullable=False),
    sa.Index("dirty_device", "device"),
    comment="Where roll-ups are to be made again, up to the reading after end_ts. signal_id null: all of the device.",
)

progress = sa.Table(
    "progress",
    metadata,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("group_name", sa.Text, primary_key=True),
    sa.Column("complete_to", Micros, nullable=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("at", Micros, nullable=False),
)

connection = sa.Table(
    "connection",
    metadata,
    sa.Column("id", Number, primary_key=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("from_ts", Micros, nullable=False),
    sa.Column("to_ts", Micros),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("connection_device_from", "device", "from_ts"),
    sa.Index(
        "connection_open", "device", postgresql_where=sa.text("to_ts IS NULL"), sqlite_where=sa.text("to_ts IS NULL")
    ),
    comment="Intervals in which a device was not connected; to_ts is null while it is not.",
)

gap = sa.Table(
    "gap",
    metadata,
    sa.Column("id", Number, primary_key=True),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("device", sa.Text),
    sa.Column("group_name", sa.Text),
    sa.Column("signals", Json),
    sa.Column("start_ts", Micros, nullable=False),
    sa.Column("end_ts", Micros),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Index("gap_device_end", "device", "end_ts"),
    sa.Index("gap_stream", "stream"),
    sa.Index("gap_open", "gateway", postgresql_where=sa.text("end_ts IS NULL"), sqlite_where=sa.text("end_ts IS NULL")),
    comment="What is missing. signals null: all of the device; device null: all of the gateway; end_ts null: it goes on.",
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("no", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("ts", Micros, nullable=False),
    sa.Column("source_ts", Micros),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("severity", sa.Integer, nullable=False),
    sa.Column("message_zh", sa.Text, nullable=False),
    sa.Column("message_en", sa.Text, nullable=False),
    sa.Column("fields", Json, nullable=False),
    sa.Column("condition", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("flags", sa.Integer, nullable=False),
    sa.Index("event_ts_no", "ts", "no"),
    sa.Index("event_device_ts", "device", "ts", "no"),
    comment="no numbers the events in the order of their commits.",
)

dead_letter = sa.Table(
    "dead_letter",
    metadata,
    sa.Column("id", Number, primary_key=True),
    sa.Column("at", Micros, nullable=False),
    sa.Column("gateway", sa.Text, nullable=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("kind", sa.SmallInteger),
    sa.Column("enc", sa.SmallInteger),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("settled_at", Micros),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Index(
        "dead_letter_open",
        "state",
        "id",
        postgresql_where=sa.text("settled_at IS NULL"),
        sqlite_where=sa.text("settled_at IS NULL"),
    ),
    # the comment is that of the first revision: it belongs to the schema
    comment="What arrived and could not be stored; raw is MessagePack, or the bytes as they came.",
)
