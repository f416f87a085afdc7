"""The write side of the store: one ingest, one transaction for each bundle of steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gateway.config.models import StoreSettings
from gateway.ledger.steps import (
    Applied,
    LeaseLostError,
    Step,
    StoreError,
    StoreFailedError,
    StoreWeatherError,
)
from gateway.store import _lease as lease
from gateway.store import tables as t
from gateway.store._engine import Place, make_engine, now, place_of
from gateway.store._errors import DataError, translated
from gateway.store._migrate import upgrade
from gateway.store._replay import NotReplayableError, Replay
from gateway.store._rollups import move_days
from gateway.store._sql import text
from gateway.store._sqlite import PIECE_ROWS, SqliteReadings
from gateway.store._state import Readings, State
from gateway.store._timescale import installed
from gateway.store._transaction import Transaction
from gateway.store._upkeep import Upkeep
from schemas.bilingual import Bilingual
from schemas.wire import Mark

_UPKEEP = 0.05
"""Seconds of upkeep after a commit, and of rest before the next ones."""
_UPKEEP_EVERY = 1.0
_UPKEEP_AGAIN = 60.0


class Writer:
    """Writes what the ledger brings, exactly once. Made by `open_writer`.

    Order: `acquire` until it says True, then `marks` and `apply`, with `renew` at least twice in each ttl (an `apply` renews as
    well). All methods block, may be called from any thread, and take turns. They raise StoreWeatherError when the database is
    not there at the moment (nothing was committed, or it is unknown and the next `apply` says so with WatermarkError),
    LeaseLostError when another ingest has taken the lease, StoreFailedError when a person is needed.
    """

    def __init__(self, engine: sa.Engine, place: Place, timezone: str, *, retention: float | None = None) -> None:
        self._engine = engine
        self._place = place
        self._timezone = timezone
        self._state = State()
        self._lock = threading.RLock()
        self._fence: int | None = None
        self._ttl = 0.0
        self._maintenance: StoreError | None = None
        self._upkeep_at = 0.0
        with self._transaction() as connection:
            row = connection.execute(sa.select(t.store)).one()
            self.timescale: bool = installed(connection)
            """True when the store is TimescaleDB."""
        self._readings = _readings(place, timescale=self.timescale)
        self._upkeep = Upkeep(
            self._transaction, self._upkeep_transaction, self._tidy, retention=retention, timescale=self.timescale
        )
        self.store_id: str = row.store_id
        """UUID, born with the database."""
        self.epoch: int = row.epoch
        self.commit_no: int = row.commit_no

    # ------------------------------------------------------------------------------------------------------- lease

    def acquire(self, holder: str, ttl: float) -> bool:
        """Take the lease for `ttl` seconds; False while another holder has it.

        A holder that comes back under its own name (after a crash) gets the lease at once: the fencing number shuts out the
        former one. So `holder` names the process's place (gateway and host), and two processes never share it.
        """
        with self._lock, self._transaction() as connection:
            fence = lease.acquire(connection, holder, ttl)
            if fence is None:
                return False
            row = connection.execute(sa.select(t.store.c.epoch, t.store.c.commit_no, t.store.c.timezone)).one()
            if row.timezone != self._timezone:
                move_days(connection, self._timezone)
        self._fence, self._ttl = fence, ttl
        self.epoch, self.commit_no = row.epoch, row.commit_no
        self._state = State()
        return True

    def renew(self) -> None:
        """Hold the lease for another ttl. Raises LeaseLostError."""
        with self._lock, self._transaction() as connection:
            if not lease.renew(connection, self._fenced(), self._ttl):
                raise self._lost()

    def release(self) -> None:
        """Give the lease back, so that the next ingest need not wait."""
        with self._lock:
            if self._fence is not None:
                with self._transaction() as connection:
                    lease.release(connection, self._fence)
                self._fence = None

    # -------------------------------------------------------------------------------------------------- watermarks

    def marks(self, gateway: str, streams: Sequence[str]) -> list[Mark]:
        """How far each of the streams is stored, in their order; 0 and zeros for an unknown one.

        Raises StoreFailedError when one of them is another gateway's.
        """
        with self._lock, self._transaction() as connection:
            query = sa.select(t.stream).where(t.stream.c.id.in_(list(streams)))
            known = {row.id: row for row in connection.execute(query)}
        for row in known.values():
            if row.gateway != gateway:
                raise StoreFailedError(
                    Bilingual(
                        f"stream {row.id} belongs to gateway {row.gateway}, gateway {gateway} asks for it",
                        f"流 {row.id} 属于网关 {row.gateway}，却由网关 {gateway} 查询",
                    ),
                    fix=Bilingual(
                        "Give each gateway an id of its own (gateway.id), and never copy an outbox.",
                        "请为每个网关设置各自的 gateway.id，且不要复制 outbox。",
                    ),
                )
        return [
            Mark(stream, known[stream].watermark, bytes(known[stream].hash)) if stream in known else Mark(stream, 0)
            for stream in streams
        ]

    def gateways(self) -> list[str]:
        """The gateways that have sent something, by name."""
        with self._lock, self._transaction() as connection:
            return list(connection.scalars(sa.select(t.stream.c.gateway).distinct().order_by(t.stream.c.gateway)))

    def raise_epoch(self) -> None:
        """Begin a new epoch: the store was restored, the numbers of its commits mean something else now (rule 18)."""
        with self._lock, self._transaction() as connection:
            self.epoch = (
                connection.execute(
                    t.store.update()
                    .where(t.store.c.fence == self._fenced())
                    .values(epoch=t.store.c.epoch + 1)
                    .returning(t.store.c.epoch)
                ).scalar()
                or self._raise_lost()
            )

    # ------------------------------------------------------------------------------------------------------- apply

    def apply(self, steps: Sequence[Step]) -> Applied:
        """Write the steps, in their order and in one transaction, and move the watermarks with them.

        Up to about 50,000 readings are a good size. What the database refuses (SQLSTATE 22, 23) is found by halving and becomes
        a dead letter. Raises WatermarkError when a stream is not where the first of its steps says.
        """
        with self._lock:
            if self._maintenance is not None:
                raise self._maintenance
            try:
                applied = self._apply(steps, careful=False)
            except DataError:
                try:
                    applied = self._apply(steps, careful=True)
                except DataError as error:
                    raise StoreFailedError(
                        Bilingual(f"store {self._place.text}: {error}", f"存储 {self._place.text}：{error}"),
                        fix=Bilingual("Read the database's log.", "请查看数据库日志。"),
                    ) from error
                self._state.loaded = False
            self._after(applied)
            return applied

    def _apply(self, steps: Sequence[Step], *, careful: bool) -> Applied:
        with self._committing() as (connection, head):
            transaction = Transaction(
                connection, self._state, self._readings, self._place.text, event_no=head.event_no, careful=careful
            )
            return transaction.run(steps, head.epoch, head.commit_no)

    @contextmanager
    def _committing(self) -> Iterator[tuple[sa.Connection, Any]]:
        """A transaction that takes the next number of a commit, checks the lease, and knows the state; what is remembered of it is
        forgotten when it fails. Gives the connection, and the row (epoch, commit_no, event_no) of the store."""
        try:
            with self._transaction() as connection:
                head = connection.execute(
                    t.store.update()
                    .where(t.store.c.fence == self._fenced(), t.store.c.holder.is_not(None))
                    .values(commit_no=t.store.c.commit_no + 1)
                    .returning(t.store.c.epoch, t.store.c.commit_no, t.store.c.event_no)
                ).first()
                if head is None:
                    raise self._lost()
                lease.renew(connection, self._fenced(), self._ttl)
                if not self._state.loaded:
                    self._state.load(connection, self._readings)
                yield connection, head
        except BaseException:
            self._state.loaded = False
            self._readings.rolled_back()
            raise
        self._readings.committed()
        self.epoch, self.commit_no = head.epoch, head.commit_no

    # ------------------------------------------------------------------------------------------------ dead letters

    def open_letters(self) -> int:
        """How many dead letters nobody has decided about yet."""
        with self._lock, self._transaction() as connection:
            query = sa.select(sa.func.count()).select_from(t.dead_letter).where(t.dead_letter.c.settled_at.is_(None))
            return int(connection.execute(query).scalar_one())

    def replay(self, most: int = 50) -> list[Applied]:
        """Store the dead letters whose replay was asked for (`gateway.store.letters`), in their order, each in a transaction of its
        own that marks it as replayed; one that can still not be stored waits again, with the reason.

        At most so many; returns what each transaction did that stored something.
        """
        letter = t.dead_letter.c
        with self._lock:
            if self._maintenance is not None:
                raise self._maintenance
            query = sa.select(letter.id).where(letter.settled_at.is_(None), letter.state == "requested")
            with self._transaction() as connection:
                wanted = list(connection.scalars(query.order_by(letter.id).limit(most)))
            return [done for one in wanted if (done := self._replay(one)) is not None]

    def _replay(self, letter: int) -> Applied | None:
        try:
            with self._committing() as (connection, head):
                columns = t.dead_letter.c
                row = connection.execute(
                    sa.select(t.dead_letter).where(columns.id == letter, columns.state == "requested")
                ).first()
                if row is None:
                    raise NotReplayableError("")  # withdrawn since
                replay = Replay(connection, self._state, self._readings, self._place.text, event_no=head.event_no)
                applied = replay.replay(row, head.epoch, head.commit_no, now())
        except (StoreWeatherError, LeaseLostError):
            raise
        except (
            Exception
        ) as error:  # whatever is in a letter, and whatever the database says of it: the readings behind go on
            columns = t.dead_letter.c
            with self._transaction() as connection:
                if not lease.renew(connection, self._fenced(), self._ttl):
                    raise self._lost() from error
                connection.execute(
                    t.dead_letter.update()
                    .where(columns.id == letter, columns.state == "requested")
                    .values(state="waiting", note=text(str(error) or type(error).__name__))
                )
            return None
        self._after(applied)
        return applied

    # ------------------------------------------------------------------------------------------------- maintenance

    def maintain(self, *, everything: bool = False) -> None:
        """Merge SQLite's tail as far as it is due (or all of it); `apply` does so by and by. Nothing to do elsewhere."""
        with self._lock:
            while self._merge(everything=everything):
                everything = False

    def roll_up(self, limit: int | None = None) -> int:
        """Make the roll-ups that are due, and delete what is older than the retention; `apply` does so by and by.

        At most `limit` short transactions; returns how many there were.
        """
        with self._lock:
            pieces = 0
            while (limit is None or pieces < limit) and self._upkeep_step():
                pieces += 1
            return pieces

    def _after(self, applied: Applied) -> None:
        """Upkeep after a commit, for a short time; what was committed stays so, whatever happens here."""
        try:
            pieces = 1 + 2 * applied.rows // PIECE_ROWS
            while pieces > 0 and self._merge():
                pieces -= 1
        except StoreWeatherError:
            return  # the next transaction tries it again
        except StoreFailedError as error:
            self._maintenance = error
            return
        began = time.monotonic()
        if began < self._upkeep_at:
            return
        try:
            while self._upkeep_step():
                if time.monotonic() - began > _UPKEEP:
                    self._upkeep_at = time.monotonic() + _UPKEEP
                    return
            self._upkeep_at = time.monotonic() + _UPKEEP_EVERY
        except (StoreWeatherError, LeaseLostError):
            return
        except StoreFailedError as error:
            # the readings are safe without roll-ups: say it, and try again in a while
            applied.problems.append(f"roll-ups: {error}")
            self._upkeep_at = time.monotonic() + _UPKEEP_AGAIN

    def _upkeep_step(self) -> bool:
        try:
            return self._upkeep.step()
        except DataError as error:
            raise StoreFailedError(
                Bilingual(f"store {self._place.text}: roll-ups: {error}", f"存储 {self._place.text}：汇总：{error}"),
                fix=Bilingual("Read the database's log.", "请查看数据库日志。"),
            ) from error

    @contextmanager
    def _upkeep_transaction(self) -> Iterator[sa.Connection]:
        """A transaction that is ours by the lease; what it has moved is known to the next `apply`."""
        with self._transaction() as connection:
            if not lease.renew(connection, self._fenced(), self._ttl):
                raise self._lost()
            yield connection
            state = State()
            state.load_upkeep(connection)
        self._state.rolled_to, self._state.horizon = state.rolled_to, state.horizon

    def _tidy(self) -> None:
        everything = True
        while self._merge(everything=everything):
            everything = False

    def _merge(self, *, everything: bool = False) -> bool:
        try:
            with translated(self._place.text):
                return self._readings.maintain(self._engine, everything=everything)
        except DataError as error:
            raise StoreFailedError(
                Bilingual(
                    f"store {self._place.text}: merging the tail: {error}",
                    f"存储 {self._place.text}：合并尾部：{error}",
                ),
                fix=Bilingual(
                    "Check the file with PRAGMA integrity_check.", "请用 PRAGMA integrity_check 检查该文件。"
                ),
            ) from error

    def close(self) -> None:
        """Close the connection. The lease stays as it is: call `release` before."""
        with self._lock:
            self._engine.dispose()

    # ---------------------------------------------------------------------------------------------------- internal

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with translated(self._place.text), self._engine.begin() as connection:
            yield connection

    def _fenced(self) -> int:
        if self._fence is None:
            raise LeaseLostError(
                Bilingual(
                    f"store {self._place.text}: this ingest holds no lease",
                    f"存储 {self._place.text}：本 ingest 未持有租约",
                ),
                fix=Bilingual("Acquire the lease first.", "请先取得租约。"),
            )
        return self._fence

    def _lost(self) -> LeaseLostError:
        self._fence = None
        return LeaseLostError(
            Bilingual(
                f"store {self._place.text}: another ingest has taken the lease",
                f"存储 {self._place.text}：租约已被另一个 ingest 取得",
            ),
            fix=Bilingual(
                "Run one ingest for each store; this one waits for its turn.",
                "每个存储只运行一个 ingest；本进程等待接替。",
            ),
        )

    def _raise_lost(self) -> int:
        raise self._lost()


def _readings(place: Place, *, timescale: bool) -> Readings:
    if place.sqlite:
        return SqliteReadings()
    from gateway.store._postgres import PostgresReadings  # with psycopg, nine megabytes

    return PostgresReadings(copy=place.copy, timescale=timescale)


def open_writer(settings: StoreSettings, data_dir: Path, timezone: str) -> Writer:
    """Open the store for ingest; its schema is created or upgraded first. `timezone` is that of site-local days.

    Raises StoreWeatherError when the database is not there (call again later), StoreFailedError when a person is needed.
    """
    place = place_of(settings, data_dir)
    if place.sqlite:
        try:
            Path(place.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreWeatherError(
                Bilingual(f"store {place.text}: {error}", f"存储 {place.text}：{error}"),
                fix=Bilingual("Make the folder writable.", "请让该目录可写。"),
            ) from error
    engine = make_engine(place, writer=True)
    try:
        with translated(place.text):
            upgrade(engine, place.text, timezone)
        return Writer(engine, place, timezone, retention=settings.retention)
    except DataError as error:
        engine.dispose()
        raise StoreWeatherError(
            Bilingual(f"store {place.text}: {error}", f"存储 {place.text}：{error}"),
            fix=Bilingual("Another ingest was making the schema.", "另一个 ingest 正在建立表结构。"),
        ) from error
    except BaseException:
        engine.dispose()
        raise
