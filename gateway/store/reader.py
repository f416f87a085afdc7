"""The read side of the store, for serve and for the command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreFailedError
from gateway.store import records as r
from gateway.store import tables as t
from gateway.store._courses import courses
from gateway.store._engine import Place, make_engine, place_of
from gateway.store._errors import DataError, translated
from gateway.store._history import (
    CHUNK,
    groups,
    last_rows,
    select_readings,
    stream_rows,
    to_readings,
)
from gateway.store._migrate import check_version, version
from gateway.store._rollups import QUARTER, clean_to, raw_buckets, regroup, stored
from gateway.store._values import from_json
from gateway.store.buckets import Width, edges, span
from gateway.store.completeness import Share
from schemas.bilingual import Bilingual
from schemas.wire import Done

Order = Literal["asc", "desc"]


class Reader:
    """Reads from the store; made by `open_reader`. Safe in many threads at once.

    It connects when it is asked something. Every method may raise StoreWeatherError (the database is not there, or ingest has
    not made the schema yet) and StoreFailedError. Ranges are start <= t < end in µs; None leaves a side open.
    """

    def __init__(self, engine: sa.Engine, place: Place) -> None:
        self._engine = engine
        self._place = place
        self._checked = False

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Raise StoreWeatherError or StoreFailedError unless the store can be read."""
        with self.transaction():
            pass

    def store_id(self) -> str:
        """The UUID that was born with the database."""
        with self.transaction() as connection:
            found: str = connection.execute(sa.select(t.store.c.store_id)).scalar_one()
            return found

    def size(self) -> int:
        """Bytes that the store takes on disk."""
        path = self._place.url.database or ""
        if self._place.sqlite:
            files = (Path(path + suffix) for suffix in ("", "-wal"))
            return sum(file.stat().st_size for file in files if file.exists())
        with self.transaction() as connection:
            return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())

    # ----------------------------------------------------------------------------------------------------- state

    def snapshot(self) -> r.Snapshot:
        """Epoch, commit number, the newest row of each signal, open connection intervals and progress, as of one commit."""
        with self.transaction() as connection:
            head = connection.execute(sa.select(t.store)).one()
            down = sa.select(t.connection).where(t.connection.c.to_ts.is_(None)).order_by(t.connection.c.id)
            open_ones = connection.execute(down)
            progress = connection.execute(
                sa.select(t.progress.c.device, t.progress.c.group_name, t.progress.c.complete_to).order_by(
                    t.progress.c.device, t.progress.c.group_name
                )
            )
            return r.Snapshot(
                store=head.store_id,
                epoch=head.epoch,
                commit_no=head.commit_no,
                rows=last_rows(connection),
                connections=[r.Connection(row.id, row.device, row.from_ts, row.to_ts, row.reason) for row in open_ones],
                progress=[Done(*row) for row in progress],
            )

    def assets(self) -> list[r.AssetRecord]:
        """All assets, by id."""
        with self.transaction() as connection:
            rows = connection.execute(sa.select(t.asset).order_by(t.asset.c.id))
            return [r.AssetRecord(**row) for row in rows.mappings()]

    def devices(self) -> list[r.DeviceRecord]:
        """All devices, by id, retired ones included."""
        with self.transaction() as connection:
            rows = connection.execute(sa.select(t.device).order_by(t.device.c.id))
            return [r.DeviceRecord(**{**row, "identity": from_json(row["identity"])}) for row in rows.mappings()]

    def signals(self) -> list[r.SignalRecord]:
        """All signals with their revisions, by id, retired ones included."""
        with self.transaction() as connection:
            revisions: dict[int, list[r.Revision]] = {}
            order = (t.signal_revision.c.signal_id, t.signal_revision.c.valid_from)
            for row in connection.execute(sa.select(t.signal_revision).order_by(*order)).mappings():
                given = dict(row)
                enum = given.pop("enum")
                texts = None if enum is None else {int(number): (zh, en) for number, (zh, en) in enum.items()}
                counter = from_json(given.pop("counter"))
                revision = r.Revision(
                    **{k: v for k, v in given.items() if k != "signal_id"}, enum=texts, counter=counter
                )
                revisions.setdefault(given["signal_id"], []).append(revision)
            found = []
            for row in connection.execute(sa.select(t.signal).order_by(t.signal.c.id)).mappings():
                given = dict(row)
                bounds = given.pop("range")
                found.append(
                    r.SignalRecord(
                        **{("group" if key == "group_name" else key): value for key, value in given.items()},
                        range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
                        revisions=revisions.get(given["id"], []),
                    )
                )
            return found

    # --------------------------------------------------------------------------------------------------- history

    def history(
        self,
        signal_ids: Sequence[int],
        start: int | None = None,
        end: int | None = None,
        *,
        limit: int | None = None,
        after: tuple[int, int, int] | None = None,
        order: Order = "asc",
    ) -> Iterator[list[r.Reading]]:
        """The readings of the signals in pieces of at most 5,000, as of one moment; memory does not grow with the range.

        Signals come in the order of their ids, each by (ts, n), forwards or backwards. `after` is the (signal, ts, n) of the
        last reading that the caller has. A generator that is not read to its end must be closed.
        """
        descending = order == "desc"
        left = limit
        with self.transaction() as connection:
            wanted = sorted(set(signal_ids))
            begun: list[int] = []
            if after is not None:
                begun = [after[0]] if after[0] in wanted else []
                wanted = [signal for signal in wanted if signal > after[0]]
            for group in chain([begun] if begun else [], groups(connection, wanted, descending=descending)):
                if left is not None and left <= 0:
                    return
                within = after[1:] if after is not None and group is begun else None
                query = select_readings(connection, group, start, end, after=within, descending=descending, limit=left)
                for rows in stream_rows(
                    connection, query, large=not self._place.single and (left is None or left > CHUNK)
                ):
                    if left is not None:
                        left -= len(rows)
                    yield to_readings(rows)

    def last_before(self, signal: int, ts: int) -> r.Reading | None:
        """The newest reading of a signal before `ts`."""
        with self.transaction() as connection:
            query = select_readings(connection, [signal], None, ts, descending=True, limit=1)
            found = to_readings(connection.execute(query))
            return found[0] if found else None

    def buckets(
        self, signal: int, start: int, end: int, width: Width, *, timezone: str | None = None
    ) -> Iterator[r.Bucket]:
        """The buckets that [start, end) touches, each a whole one; what their numbers mean: `gateway.store.buckets`.

        `width` is seconds, or "day" for days of `timezone` (by default the site's). A generator that is not read to its end
        must be closed.
        """
        if start >= end:
            return
        with self.transaction() as connection:
            site = connection.execute(sa.select(t.store.c.timezone)).scalar_one()
            zone = timezone or site
            first, last = span(start, end, width, zone)
            tier = _tier(width, zone == site)
            cut = first
            if tier is not None:
                # what the tier answers for ends where it is made, or dirty; from the bucket there on it is the readings
                upto = min(clean_to(connection, signal, tier), last)
                cut = span(upto, upto + 1, width, zone)[0] if upto > first else first
                if cut > first:
                    parts = stored(connection, tier, signal, first, cut)
                    yield from regroup(parts, edges(first, cut, width, zone))
            if cut < last:
                bounds = edges(cut, last, width, zone)
                yield from raw_buckets(connection, signal, bounds, cut, last, large=not self._place.single)

    def completeness(self, signal_ids: Sequence[int], bounds: Sequence[int]) -> dict[int, list[Share]]:
        """How complete each of the signals is in each period between two of the `bounds` (ascending); what that means:
        `gateway.store.completeness`. Signals that there are not are left out."""
        pieces = list(pairwise(bounds))
        if not pieces:
            return {}
        with self.transaction() as connection:
            found = courses(connection, sorted(set(signal_ids)), bounds[0], bounds[-1])
        return {signal: [course.share(*piece) for piece in pieces] for signal, course in found.items()}

    def site_timezone(self) -> str:
        """The time zone of the site's days."""
        with self.transaction() as connection:
            return str(connection.execute(sa.select(t.store.c.timezone)).scalar_one())

    # ------------------------------------------------------------------------------------- events, gaps, connections

    def events(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        devices: Sequence[str] | None = None,
        assets: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        min_severity: int | None = None,
        limit: int = 1000,
        after: tuple[int, int] | None = None,
        order: Order = "asc",
    ) -> list[r.EventRecord]:
        """Events by (ts, no); `after` is the (ts, no) of the last one that the caller has."""
        columns = t.event.c
        query = sa.select(t.event).where(*_within(columns.ts, start, end))
        if devices is not None:
            query = query.where(columns.device.in_(list(devices)))
        if assets is not None:
            query = query.where(columns.asset.in_(list(assets)))
        if types is not None:
            query = query.where(columns.type.in_(list(types)))
        if min_severity is not None:
            query = query.where(columns.severity >= min_severity)
        if after is not None:
            query = query.where(_beyond(columns.ts, columns.no, after, order))
        return self._events(query.order_by(*_ordered(order, columns.ts, columns.no)).limit(limit))

    def event_feed(self, after: int = 0, *, limit: int = 1000) -> list[r.EventRecord]:
        """Events in the order of their commits, from the number after `after` on: who keeps the last `no` reads each once."""
        query = sa.select(t.event).where(t.event.c.no > after).order_by(t.event.c.no).limit(limit)
        return self._events(query)

    def newest_events(self, types: Sequence[str], *, among: int = 10_000) -> list[r.EventRecord]:
        """Events of these types among the last `among` that were stored, by number."""
        newest = sa.select(sa.func.coalesce(sa.func.max(t.event.c.no), 0)).scalar_subquery()
        query = sa.select(t.event).where(t.event.c.no > newest - among, t.event.c.type.in_(list(types)))
        return self._events(query.order_by(t.event.c.no))

    def event_by_id(self, ids: Sequence[str]) -> list[r.EventRecord]:
        """The events with these ids, by number."""
        return self._events(sa.select(t.event).where(t.event.c.id.in_(list(ids))).order_by(t.event.c.no))

    def _events(self, query: sa.Select[Any]) -> list[r.EventRecord]:
        with self.transaction() as connection:
            return [
                r.EventRecord(**{**row, "fields": from_json(row["fields"])})
                for row in connection.execute(query).mappings()
            ]

    def gaps(
        self,
        start: int | None = None,
        end: int | None = None,
        *,
        devices: Sequence[str] | None = None,
        signal: int | None = None,
        signals: Sequence[int] | None = None,
        causes: Sequence[str] | None = None,
        limit: int = 1000,
        after: int | None = None,
    ) -> list[r.GapRecord]:
        """Gaps that overlap the range, by id; `after` is the id of the last one that the caller has.

        With `devices` also the gaps of their whole gateways. With `signal`, or several `signals` (their devices are looked up), only
        gaps that cover one of them.
        """
        wanted = {signal} if signal is not None else None if signals is None else set(signals)
        columns = t.gap.c
        query = sa.select(t.gap).where(*_overlapping(columns.start_ts, columns.end_ts, start, end, inclusive=True))
        if causes is not None:
            query = query.where(columns.cause.in_([str(cause) for cause in causes]))
        with self.transaction() as connection:
            if wanted is not None:
                of_signals = sa.select(t.signal.c.device).where(t.signal.c.id.in_(list(wanted))).distinct()
                devices = list(connection.scalars(of_signals))
            if devices is not None:
                owners = sa.select(t.device.c.gateway).where(t.device.c.id.in_(list(devices)))
                whole = sa.and_(columns.device.is_(None), columns.gateway.in_(owners))
                query = query.where(sa.or_(columns.device.in_(list(devices)), whole))
            found: list[r.GapRecord] = []
            while len(found) < limit:
                page = query if after is None else query.where(columns.id > after)
                rows = connection.execute(page.order_by(columns.id).limit(limit)).mappings().all()
                for row in rows:
                    if wanted is None or row["signals"] is None or not wanted.isdisjoint(row["signals"]):
                        found.append(_gap(row))
                if len(rows) < limit:
                    break
                after = rows[-1]["id"]
            return found[:limit]

    def connections(
        self,
        device: str | None = None,
        start: int | None = None,
        end: int | None = None,
        *,
        limit: int = 1000,
        after: tuple[int, int] | None = None,
        order: Order = "asc",
    ) -> list[r.Connection]:
        """Intervals without connection that overlap the range, by (start, id); `after` is that of the last one known."""
        columns = t.connection.c
        query = sa.select(t.connection).where(
            *_overlapping(columns.from_ts, columns.to_ts, start, end, inclusive=False)
        )
        if device is not None:
            query = query.where(columns.device == device)
        if after is not None:
            query = query.where(_beyond(columns.from_ts, columns.id, after, order))
        query = query.order_by(*_ordered(order, columns.from_ts, columns.id)).limit(limit)
        with self.transaction() as connection:
            rows = connection.execute(query)
            return [r.Connection(row.id, row.device, row.from_ts, row.to_ts, row.reason) for row in rows]

    # ---------------------------------------------------------------------------------------------------- ledger

    def streams(self) -> list[r.StreamRecord]:
        """All streams, by the time of their first message."""
        with self.transaction() as connection:
            counts: dict[str, int] = {
                row.stream: row.gaps
                for row in connection.execute(
                    sa.select(t.gap.c.stream, sa.func.count().label("gaps")).group_by(t.gap.c.stream)
                )
            }
            rows = connection.execute(sa.select(t.stream).order_by(t.stream.c.opened_at, t.stream.c.id))
            return [
                r.StreamRecord(
                    row.id, row.gateway, row.watermark, row.opened_at, row.seen_at, row.closed_at, row.lost,
                    counts.get(row.id, 0),
                )
                for row in rows
            ]  # fmt: skip

    def dead_letters(
        self,
        *,
        limit: int = 1000,
        after: int = 0,
        ids: Sequence[int] | None = None,
        states: Sequence[r.LetterState] | None = None,
    ) -> list[r.DeadLetter]:
        """Dead letters by id, from the one after `after` on; only these, or only in these states."""
        columns = t.dead_letter.c
        query = sa.select(t.dead_letter).where(columns.id > after)
        if ids is not None:
            query = query.where(columns.id.in_(list(ids)))
        if states is not None:
            query = query.where(columns.state.in_(list(states)))
        with self.transaction() as connection:
            rows = connection.execute(query.order_by(columns.id).limit(limit)).mappings()
            return [r.DeadLetter(**{**row, "raw": bytes(row["raw"])}) for row in rows]

    def points(self, stream: str) -> dict[int, str]:
        """Point -> device/name of the signals that births of the stream have told, as long as they are kept."""
        query = (
            sa.select(t.point.c.point, t.signal.c.device, t.signal.c.name)
            .join(t.signal, t.signal.c.id == t.point.c.signal_id)
            .where(t.point.c.stream == stream)
        )
        with self.transaction() as connection:
            return {row.point: f"{row.device}/{row.name}" for row in connection.execute(query)}

    # -------------------------------------------------------------------------------------------------- internal

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A read transaction that sees one moment of the store, for this package."""
        try:
            with translated(self._place.text), self._engine.connect() as connection:
                if not self._place.sqlite:
                    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                with connection.begin():
                    if not self._checked:
                        check_version(version(connection), self._place.text)
                        self._checked = True
                    yield connection
        except DataError as error:
            raise StoreFailedError(
                Bilingual(f"store {self._place.text}: {error}", f"存储 {self._place.text}：{error}"),
                fix=Bilingual("Correct the query.", "请更正查询。"),
            ) from error


def _tier(width: Width, site: bool) -> sa.Table | None:
    """The roll-up that has the buckets of this width, or the parts of them."""
    if width == "day":
        return t.rollup_day if site else t.rollup_quarter
    return t.rollup_quarter if round(float(width) * 1_000_000) % QUARTER == 0 else None


def _gap(row: sa.RowMapping) -> r.GapRecord:
    return r.GapRecord(
        row["id"], row["gateway"], row["device"], row["signals"], row["start_ts"], row["end_ts"], row["cause"],
        row["count"], row["detail"], row["stream"], row["seq"],
    )  # fmt: skip


def _within(column: Any, start: int | None, end: int | None) -> list[Any]:
    return [*([] if start is None else [column >= start]), *([] if end is None else [column < end])]


def _overlapping(first: Any, last: Any, start: int | None, end: int | None, *, inclusive: bool) -> list[Any]:
    found: list[Any] = []
    if end is not None:
        found.append(first < end)
    if start is not None:
        found.append(sa.or_(last.is_(None), last >= start if inclusive else last > start))
    return found


def _beyond(major: Any, minor: Any, after: tuple[int, int], order: Order) -> Any:
    first, second = after
    if order == "desc":
        return sa.and_(major <= first, sa.or_(major < first, minor < second))
    return sa.and_(major >= first, sa.or_(major > first, minor > second))


def _ordered(order: Order, *columns: Any) -> list[Any]:
    return [column.desc() if order == "desc" else column.asc() for column in columns]


def open_reader(settings: StoreSettings, data_dir: Path) -> Reader:
    """A reader; it connects when it is first asked. Raises StoreFailedError when the settings name no store."""
    place = place_of(settings, data_dir)
    return Reader(make_engine(place, writer=False), place)
