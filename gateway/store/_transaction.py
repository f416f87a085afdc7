"""One transaction of the store: the steps of the ledger, each with what it moves and what it brings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.ledger.steps import Applied, Step, StoreFailedError, WatermarkError
from gateway.store import _gaps as gaps
from gateway.store import tables as t
from gateway.store._batch import columns_of, faults, malformed, take
from gateway.store._errors import DataError, translated
from gateway.store._events import store_events
from gateway.store._letters import LetterRow, has_open_letters, kind_of, small
from gateway.store._rollups import mark_gap, mark_late
from gateway.store._rows import Columns, Resolved, resolve
from gateway.store._sql import text
from gateway.store._state import Readings, State
from gateway.store._states import store_link, store_progress
from gateway.store._values import FLAG_MASK
from schemas.bilingual import Bilingual
from schemas.wire import (
    ZERO_HASH,
    Batch,
    Birth,
    Cause,
    Closed,
    Committed,
    Done,
    Event,
    Flag,
    Gap,
    Link,
    Mark,
    Progress,
    Row,
    Tombstone,
)

_encoder = msgspec.msgpack.Encoder()
_FEW = 32


class Transaction:
    """Applies steps on a connection whose transaction, and lease, are the caller's.

    `careful` isolates each body and halves the readings until the one that the database refuses is found.
    """

    def __init__(
        self, connection: sa.Connection, state: State, readings: Readings, place: str, *, event_no: int, careful: bool
    ) -> None:
        self._connection = connection
        self._state = state
        self._readings = readings
        self._place = place
        self._careful = careful
        self._event_no = event_no
        self._steps: Sequence[Step] = ()
        self._start: dict[str, tuple[int, int]] = {}
        """stream -> (watermark before the transaction, arrival of its first step)"""
        self._end: dict[str, Step] = {}
        self._lost: dict[str, int] = {}
        self._closed_at: dict[str, int] = {}
        self._known: dict[str, Any] = {}
        self._columns = Columns()
        self._rows: list[Row] = []
        self._links: list[Link] = []
        self._progress: dict[tuple[str, str], tuple[Step, Done]] = {}
        self._events: list[str] = []
        self._births = False
        self._too_late = 0
        self._dead: list[dict[str, Any]] = []
        self.applied = Applied(marks=[], committed=Committed(0, 0, [], [], []))

    def run(self, steps: Sequence[Step], epoch: int, commit_no: int) -> Applied:
        """Write everything. Raises WatermarkError, StoreFailedError, DataError and what the database raises."""
        self._steps = steps
        self._look_up({step.stream for step in steps})
        for index, step in enumerate(steps):
            self._move(step)
            self._guard(step, partial(self._body, index, step))
        self._write_readings()
        self._write_progress()
        self._write_watermarks()
        if self._dead:
            self._connection.execute(t.dead_letter.insert(), self._dead)
        if self._events:
            self._connection.execute(t.store.update().values(event_no=self._event_no))
        applied = self.applied
        applied.marks = [Mark(stream, step.last, step.hash) for stream, step in self._end.items()]
        applied.committed = Committed(
            epoch, commit_no, self._rows, self._links, [done for _, done in self._progress.values()], self._events,
            self._births,
        )  # fmt: skip
        return applied

    # ------------------------------------------------------------------------------------------------- watermarks

    def _look_up(self, streams: set[str]) -> None:
        rows = self._connection.execute(sa.select(t.stream).where(t.stream.c.id.in_(sorted(streams))))
        self._known = {row.id: row for row in rows}

    def _move(self, step: Step) -> None:
        """Check that the step is the next one of its stream; a new stream shows that its collector was down."""
        before = self._end.get(step.stream)
        if before is not None:
            watermark = before.last
        else:
            known = self._known.get(step.stream)
            watermark = 0 if known is None else known.watermark
            if known is not None and known.gateway != step.gateway:
                raise StoreFailedError(
                    Bilingual(
                        f"stream {step.stream} belongs to gateway {known.gateway}, gateway {step.gateway} sent it",
                        f"流 {step.stream} 属于网关 {known.gateway}，却由网关 {step.gateway} 发送",
                    ),
                    fix=Bilingual(
                        "Give each gateway an id of its own (gateway.id), and never copy an outbox.",
                        "请为每个网关设置各自的 gateway.id，且不要复制 outbox。",
                    ),
                )
            self._start[step.stream] = (watermark, step.at)
            if known is None:
                self._open_gaps(step, Cause.COLLECTOR_DOWN)
        if step.first != watermark + 1 or step.last < step.first:
            raise WatermarkError(
                Bilingual(
                    f"stream {step.stream}: the store is at {watermark}, the step goes from {step.first} to {step.last}",
                    f"流 {step.stream}：存储水位为 {watermark}，本步为 {step.first} 至 {step.last}",
                ),
                fix=Bilingual("Ask the store for its marks again.", "请重新向存储查询水位。"),
            )
        self._end[step.stream] = step

    def _write_watermarks(self) -> None:
        for stream, step in self._end.items():
            watermark, opened_at = self._start[stream]
            values: dict[str, Any] = {"watermark": step.last, "hash": step.hash, "seen_at": step.at}
            lost = self._lost.get(stream, 0)
            if stream in self._closed_at:
                values["closed_at"] = self._closed_at[stream]
            if stream not in self._known:
                new = {"id": stream, "gateway": step.gateway, "opened_at": opened_at, "lost": lost, **values}
                self._connection.execute(t.stream.insert(), new)
                continue
            moved = self._connection.execute(
                t.stream.update()
                .where(t.stream.c.id == stream, t.stream.c.watermark == watermark)
                .values(lost=t.stream.c.lost + lost, **values)
            )
            if moved.rowcount != 1:
                raise WatermarkError(
                    Bilingual(
                        f"stream {stream}: the store is no longer at {watermark}",
                        f"流 {stream}：存储水位已不是 {watermark}",
                    ),
                    fix=Bilingual("Ask the store for its marks again.", "请重新向存储查询水位。"),
                )

    # ----------------------------------------------------------------------------------------------------- bodies

    def _guard(self, step: Step, work: Callable[[], None]) -> None:
        """Do the work; when careful, a body that the database refuses becomes a dead letter."""
        if not self._careful:
            work()
            return
        try:
            with translated(self._place), self._connection.begin_nested():
                work()
        except DataError as error:
            self._state.catalog.load(self._connection)
            self._dead_letter(step, f"refused by the database: {error}", step.body, 1)

    def _body(self, index: int, step: Step) -> None:
        if step.poison is not None:
            self._dead_letter(step, step.poison, step.raw if step.raw is not None else b"", 1)
        if step.gap is not None or step.poison is not None:
            cause = step.gap or Cause.UNDECODABLE
            self._open_gaps(step, cause)
            if step.body is None:
                self._lost[step.stream] = self._lost.get(step.stream, 0) + step.last - step.first + 1
            where = f"stream {step.stream}, {step.first} to {step.last}"
            self.applied.problems.append(f"{where}: {cause.value} {step.detail}".rstrip())
        body = step.body
        match body:
            case None:
                pass
            case Batch():
                self._batch(index, step, body)
            case Birth():
                self._birth(step, body)
            case Link():
                self._link(step, body)
            case Progress():
                self._done(step, body)
            case Closed():
                self._closed(step, body)
            case Tombstone():
                self._gaps(step, body.gaps)
                if body.newest is not None:
                    self._batch(index, step, body.newest)
            case list():
                self._events_of(step, [item for item in body if isinstance(item, Event)])
                self._gaps(step, [item for item in body if isinstance(item, Gap)])

    def _allowed(self, step: Step, device: str, body: Any) -> bool:
        """False, and a dead letter, when the device is another gateway's."""
        problem = self._state.catalog.foreign(device, step.gateway)
        if problem:
            self._dead_letter(step, problem, body, 1)
        return not problem

    def _batch(self, index: int, step: Step, batch: Batch) -> None:
        reason = malformed(batch)
        if reason:
            self._dead_letter(step, reason, batch, len(batch.points))
            self._open_gaps(step, Cause.UNDECODABLE)
            return
        points = self._state.catalog.points(self._connection, step.stream)
        columns = columns_of(batch, points, index)
        if columns is None:
            bad = faults(batch, points)
            for why in sorted(set(bad.values())):
                rows = [row for row, reason in bad.items() if reason == why]
                self._dead_letter(step, why, take(batch, rows), len(rows))
            for row in bad:
                ts = batch.base + batch.offsets[row]
                if batch.points[row] in points and t.TS_MIN <= ts <= t.TS_MAX:
                    self._gap_of(step, points[batch.points[row]], ts, ts)
            columns = columns_of(
                take(batch, [row for row in range(len(batch.points)) if row not in bad]), points, index
            )
            assert columns is not None  # what was at fault is out
        self._columns.extend(columns)

    def _birth(self, step: Step, birth: Birth) -> None:
        if not self._allowed(step, birth.device, birth):
            return
        self._state.catalog.birth(self._connection, step, birth)
        self._births = True
        if birth.retired:
            gaps.end_gaps_of_retired(self._connection, birth.device, birth.at)
            self._mark(step, birth.device, birth.at, t.TS_MAX)
            self._state.open_gaps.discard(birth.device)

    def _link(self, step: Step, link: Link) -> None:
        if self._allowed(step, link.device, link):
            changed = store_link(self._connection, link)
            if changed is not None:
                self._mark(step, link.device, *changed)
            self._links.append(link)

    def _events_of(self, step: Step, events: list[Event]) -> None:
        mine = [event for event in events if self._allowed(step, event.device, [event])]
        new = store_events(self._connection, step.gateway, mine, self._event_no)
        self._event_no += len(new)
        self._events += new

    def _gaps(self, step: Step, found: list[Gap]) -> None:
        mine = [gap for gap in found if gap.device is None or self._allowed(step, gap.device, [gap])]
        gaps.insert_gaps(self._connection, step, mine, self._state.catalog.points(self._connection, step.stream))
        for gap in mine:
            self._mark(step, gap.device, gap.start, max(gap.start, gap.end))

    def _mark(self, step: Step, device: str | None, start: int, end: int) -> None:
        """Roll-ups that are made already know nothing of this."""
        if start < self._state.rolled_to:
            mark_gap(self._connection, step.gateway, device, start, end)

    def _done(self, step: Step, body: Progress) -> None:
        catalog = self._state.catalog
        done = [item for item in body.done if not catalog.foreign(item.device, step.gateway)]
        if len(done) < len(body.done):
            theirs = sorted({item.device for item in body.done} - {item.device for item in done})
            self.applied.problems += [catalog.foreign(device, step.gateway) for device in theirs]
        for item in done:
            self._progress[item.device, item.group] = (step, item)
        ending = [item for item in done if item.device in self._state.open_gaps]
        if ending:
            self._write_progress()
            for device, start in gaps.end_gaps(self._connection, step, ending):
                self._mark(step, device, start, t.TS_MAX)
            self._state.open_gaps = gaps.devices_with_open_gaps(self._connection)

    def _write_progress(self) -> None:
        streams: dict[str, list[tuple[Step, Done]]] = {}
        for step, done in self._progress.values():
            streams.setdefault(step.stream, []).append((step, done))
        for stream, items in streams.items():
            at = max(step.at for step, _ in items)
            store_progress(self._connection, stream, at, [done for _, done in items])

    def _closed(self, step: Step, closed: Closed) -> None:
        """The end of an older stream: what has not arrived of it by now is lost. It may be told again."""
        here = self._end.get(closed.stream)
        columns = t.stream.c
        row = self._connection.execute(
            sa.select(columns.watermark, columns.closed_at).where(
                columns.id == closed.stream, columns.gateway == step.gateway
            )
        ).first()
        if row is not None and row.closed_at is not None:
            return
        watermark = here.last if here is not None else 0 if row is None else row.watermark
        missing = max(0, closed.last_seq - watermark)
        if missing:
            detail = f"stream {closed.stream} ended at {closed.last_seq}, stored up to {watermark}"
            self._open_gaps(step, Cause.LOST, detail)
            self.applied.problems.append(detail)
        elif not (
            has_open_letters(self._connection, closed.stream)
            or any(letter["stream"] == closed.stream for letter in self._dead)
        ):
            self._state.catalog.forget(self._connection, closed.stream)
        if here is not None:
            self._closed_at[closed.stream] = step.at
            self._lost[closed.stream] = self._lost.get(closed.stream, 0) + missing
        elif row is not None:
            end = {"closed_at": step.at, "lost": columns.lost + missing}
            self._connection.execute(t.stream.update().where(columns.id == closed.stream).values(end))
        elif closed.last_seq:
            unseen = {
                "id": closed.stream, "gateway": step.gateway, "watermark": 0, "hash": ZERO_HASH, "opened_at": step.at,
                "seen_at": step.at, "closed_at": step.at, "lost": missing,
            }  # fmt: skip
            self._connection.execute(t.stream.insert(), unseen)

    # --------------------------------------------------------------------------------------------------- readings

    def _write_readings(self) -> None:
        columns = self._columns
        if not len(columns):
            return
        rest = self._state.newest.split(columns)
        others = columns.pick(rest)
        if len(rest) > _FEW:
            skipped = set(rest)
            columns = columns.pick([row for row in range(len(columns)) if row not in skipped])
        else:
            for row in reversed(rest):
                for column in columns.all():
                    del column[row]
        self._write(columns, self._readings.append)
        if rest:
            others = self._without_too_late(others)
            keys = set(zip(others.signal, others.ts, strict=True))
            resolved = resolve(others, self._readings.existing(self._connection, keys), self._state.newest)
            self._write(resolved.rows, self._readings.insert)
            self._account(others, resolved)

    def _without_too_late(self, others: Columns) -> Columns:
        """Leave out rows before the horizon: a gap for each of their signals. A signal's newest reading is never too late."""
        horizon = self._state.horizon
        if not any(ts < horizon for ts in others.ts):
            return others
        found: dict[int, list[int]] = {}
        for row, ts in enumerate(others.ts):
            if ts < horizon and others.flags[row] & Flag.LATE:
                found.setdefault(others.signal[row], []).append(row)
        for signal, rows in sorted(found.items()):
            times = [others.ts[row] for row in rows]
            step = self._steps[others.step[rows[0]]]
            self._gap_of(step, signal, min(times), max(times), Cause.TOO_LATE, len(rows))
        out = {row for rows in found.values() for row in rows}
        self.applied.late += len(out)
        self._too_late += len(out)
        return others.pick([row for row in range(len(others)) if row not in out])

    def _account(self, others: Columns, resolved: Resolved) -> None:
        self.applied.duplicates += resolved.duplicates
        self.applied.late += resolved.late
        for row in resolved.full:
            self._refuse(others, row, "no n is left for this ts")

    def _write(self, columns: Columns, write: Callable[[sa.Connection, Columns], None]) -> None:
        if not len(columns):
            return
        if self._careful:
            try:
                with translated(self._place), self._connection.begin_nested():
                    write(self._connection, columns)
            except DataError as error:
                middle = len(columns) // 2
                if middle == 0:
                    self._refuse(columns, 0, f"refused by the database: {error}")
                    return
                self._write(columns.cut(0, middle), write)
                self._write(columns.cut(middle, len(columns)), write)
                return
        else:
            write(self._connection, columns)
        if self._state.rolled_to > min(columns.ts):
            mark_late(self._connection, columns, self._state.rolled_to)
        self.applied.rows += len(columns)
        status = [code or 0 for code in columns.status]
        flags = [number & FLAG_MASK for number in columns.flags]
        self._rows += map(Row, columns.signal, columns.ts, columns.n, columns.value, status, flags)

    def _refuse(self, columns: Columns, row: int, reason: str) -> None:
        """A reading that the database does not take: a dead letter, and a gap."""
        step = self._steps[columns.step[row]]
        reading = LetterRow(
            columns.signal[row], columns.ts[row], columns.n[row], columns.value[row], columns.status[row] or 0,
            columns.flags[row] & FLAG_MASK, columns.exact[row],
        )  # fmt: skip
        self._dead_letter(step, reason, reading, 1)
        self._gap_of(step, reading.signal, reading.ts, reading.ts)

    def _gap_of(
        self, step: Step, signal: int, start: int, end: int, cause: Cause = Cause.UNDECODABLE, count: int = 1
    ) -> None:
        device = self._connection.execute(sa.select(t.signal.c.device).where(t.signal.c.id == signal)).scalar_one()
        gaps.insert_gap(self._connection, step, device, signal, cause, start, end, count)

    # --------------------------------------------------------------------------------------------- what goes wrong

    def _open_gaps(self, step: Step, cause: Cause, detail: str = "") -> None:
        self._write_progress()
        for device, start in gaps.open_gaps(self._connection, step, cause, detail):
            self._state.open_gaps.add(device)
            self._mark(step, device, start, t.TS_MAX)

    def _dead_letter(self, step: Step, reason: str, raw: Any, count: int) -> None:
        self._dead.append(
            {
                "at": step.at, "gateway": step.gateway, "stream": step.stream, "seq": step.first, "reason": text(reason),
                "count": count, "raw": raw if isinstance(raw, bytes) else _encoder.encode(raw),
                "kind": small(step.kind) if isinstance(raw, bytes) else kind_of(raw),
                "enc": small(step.enc) if isinstance(raw, bytes) else 0,
            }
        )  # fmt: skip
        self.applied.dead_letters += count
        self.applied.problems.append(f"stream {step.stream}, {step.first}: dead letter: {reason}")
