"""The recorder: from normalised items to durable messages of the ledger. It is the `Sink` of every link.

Readings of all devices are gathered into columns and written together with everything else in one group commit: at once when the
outbox has been idle, after 200 ms at the latest. The order of `put` is the order of the ledger. SQLite's work runs in the worker
thread that also serves the sender, so that a slow disk never holds up the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.collect.budget import Budget, Health, Policy, Refused, load_refused, thinned
from gateway.collect.items import Events, Gaps, Item, Readings
from gateway.ledger.bodies import OVERHEAD
from gateway.ledger.outbox import Outbox, OutboxFullError
from schemas.bilingual import Bilingual, of_error
from schemas.wire import MAX_MESSAGE, Batch, Birth, Done, Extra, Kind, Link, Progress

log = logging.getLogger("guantong.outbox")

GROUP_COMMIT = 0.2
"""Seconds after which what was put is durable at the latest, as far as the disk keeps up."""
_LARGEST_BODY = MAX_MESSAGE - OVERHEAD
_ROWS_AT_ONCE = 2_000
_PENDING_ROWS = 200_000
"""Rows that may wait for the disk before `put` waits too."""
_RETRY = 1.0
_HEADROOM = 0.98
"""When the budget is spent, so much of it is kept by policy `oldest`."""
_BURIED_AT_ONCE = 8
"""Tombstones after one commit: the disk is not to be kept from the next one for seconds."""
_SPENT_HEARTBEAT = 60.0
"""Seconds between two proofs of life while the budget is spent and nothing can be dropped for them."""
REFUSED = "refused"
"""Where the outbox remembers what was not taken, until a gap tells it."""

COMPLETE_TO = "complete_to"
"""Where the outbox remembers up to when each group is complete, for a back-fill after a restart."""
_REMEMBER_EVERY = 10.0
"""Seconds. What is remembered may be that much behind: then that much more history is read than is missing."""

_encode = msgspec.msgpack.Encoder().encode
OnDurable = Callable[[], None]


@dataclass(slots=True)
class Numbers:
    """Running totals, for /metrics and the live summary."""

    readings: int = 0
    messages: int = 0
    commits: int = 0
    dropped: int = 0
    bytes: int = 0


class _Columns:
    """Readings on their way into one or more messages."""

    __slots__ = ("extra", "flags", "n", "points", "status", "ts", "values")

    def __init__(self) -> None:
        self.points: list[int] = []
        self.ts: list[int] = []
        self.values: list[Any] = []
        self.status: list[int] | None = None
        self.flags: list[int] | None = None
        self.n: list[int] | None = None
        self.extra: dict[int, Extra] = {}

    def extend(self, readings: Readings) -> None:
        before = len(self.points)
        self.points += readings.points
        self.ts += readings.ts
        self.values += readings.values
        self.status = _joined(self.status, readings.status, before, len(readings.points))
        self.flags = _joined(self.flags, readings.flags, before, len(readings.points))
        self.n = _joined(self.n, readings.n, before, len(readings.points))
        if readings.extra:
            self.extra.update({before + row: extra for row, extra in readings.extra.items()})

    def bodies(self) -> list[bytes]:
        """Bodies of batches, each small enough for a message."""
        out: list[bytes] = []
        for first in range(0, len(self.points), _ROWS_AT_ONCE):
            self._encode(first, min(first + _ROWS_AT_ONCE, len(self.points)), out)
        return out

    def _encode(self, first: int, last: int, out: list[bytes]) -> None:
        base = self.ts[first]
        part = slice(first, last)
        extra = {row - first: e for row, e in self.extra.items() if first <= row < last} if self.extra else None
        body = _encode(
            Batch(
                base, self.points[part], [t - base for t in self.ts[part]], self.values[part],
                self.status and self.status[part], self.flags and self.flags[part], self.n and self.n[part], extra or None,
            )
        )  # fmt: skip
        if len(body) <= _LARGEST_BODY or last - first == 1:
            out.append(body)
        else:
            middle = (first + last) // 2
            self._encode(first, middle, out)
            self._encode(middle, last, out)


def _joined(ours: list[int] | None, theirs: list[int] | None, before: int, added: int) -> list[int] | None:
    if theirs is None:
        return None if ours is None else ours + [0] * added
    return ([0] * before if ours is None else ours) + theirs


class Recorder:
    """See the module. `thread` is the one worker thread that touches the outbox; `woken` is called after each commit."""

    def __init__(
        self,
        outbox: Outbox,
        thread: ThreadPoolExecutor,
        *,
        budget: int,
        policy: Policy,
        now_us: Callable[[], int],
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        self.outbox = outbox
        self.health = Health()
        self.numbers = Numbers()
        self._thread = thread
        self.budget = Budget(budget, policy)
        self.notice: Health | None = None
        """What is to be known while all is well otherwise: that the outbox was damaged, and what became of it."""
        self._now = now_us
        self._woken = woken
        self._ready: deque[tuple[Kind, bytes]] = deque()
        self._columns = _Columns()
        self._callbacks: list[OnDurable] = []
        self._progress: dict[tuple[str, str], Done] = {}
        self.complete_to: dict[str, dict[str, int]] = {}
        """Device -> group -> up to when (µs) it is complete, also from the process before this one."""
        self._remembered = float("-inf")
        self._refused = Refused(policy)
        self._refused_told = float("-inf")
        self._beat_at = float("-inf")
        self._dirty = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def load_complete_to(self, devices: Collection[str]) -> dict[str, dict[str, int]]:
        """Up to when the process before this one had everything, of those of its devices that are still there; before `run`."""
        text = self.outbox.meta(COMPLETE_TO)
        known = msgspec.json.decode(text, type=dict[str, dict[str, int]]) if text else {}
        self.complete_to = {name: groups for name, groups in known.items() if name in devices}
        return {name: dict(groups) for name, groups in self.complete_to.items()}

    def tell_refused(self) -> None:
        """What the process before this one did not take, and could not tell, as gaps of the devices; after the births, before `run`."""
        gaps = load_refused(self.outbox.meta(REFUSED))
        if gaps:
            self.put_now(Gaps(gaps))
            self.when_durable(self._forget_refused)

    # --------------------------------------------------------------------------------------------------- putting

    async def put(self, item: Item, on_durable: OnDurable | None = None) -> None:
        """See `gateway.collect.items.Sink`."""
        await self._room.wait()
        if isinstance(item, Readings):
            self._put_readings(item)
        elif isinstance(item, Progress):
            for done in item.done:
                before = self._progress.get((done.device, done.group))
                if before is not None and before.back_to is not None and done.back_to is None:
                    done = msgspec.structs.replace(done, back_to=before.back_to)
                self._progress[done.device, done.group] = done
                self.complete_to.setdefault(done.device, {})[done.group] = done.complete_to
        else:
            self.put_now(item)
        if on_durable is not None:
            self._callbacks.append(on_durable)
        if len(self._columns.points) >= _PENDING_ROWS:
            self._room.clear()
        self._dirty.set()

    def put_now(self, item: Link | Events | Gaps | Birth) -> None:
        """What is never dropped and never waits: births, links, events, gaps."""
        self._close_columns()
        match item:
            case Link():
                self._ready.append((Kind.LINK, _encode(item)))
            case Birth():
                self._ready.append((Kind.BIRTH, _encode(item)))
            case Events():
                self._ready.extend((Kind.EVENT, body) for body in _split(item.events))
            case Gaps():
                self._ready.extend((Kind.GAP, body) for body in _split(item.gaps))
        self._dirty.set()

    def when_durable(self, call: OnDurable) -> None:
        """Calls `call` once everything that was put so far is durable."""
        self._callbacks.append(call)
        self._dirty.set()

    def heartbeat(self) -> None:
        """Once a second: proof of life, and how far each device is complete. Once a minute while the budget is spent and this would
        only fill it more."""
        beat = time.monotonic()
        if self.budget.spent and self.budget.policy != "oldest" and beat - self._beat_at < _SPENT_HEARTBEAT:
            return
        self._beat_at = beat
        self._close_columns()
        done = list(self._progress.values())
        self._progress.clear()
        now = self._now()
        for first in range(0, max(len(done), 1), 500):
            self._ready.append((Kind.PROGRESS, _encode(Progress(now, done[first : first + 500]))))
        self._dirty.set()

    def _put_readings(self, readings: Readings) -> None:
        if self.budget.take_one_in != 1:
            readings, gone = self._without(readings)
            self.numbers.dropped += gone
        if self._refused:
            self._refused.taken(readings)
        self._columns.extend(readings)
        self.numbers.readings += len(readings.points)

    def _without(self, readings: Readings) -> tuple[Readings, int]:
        """What the policy takes, and how many rows it does not: those are remembered until a gap tells them."""
        taken, gone = thinned(readings, self.budget.take_one_in)
        if gone:
            self._refused.add(readings, gone)
        return taken, len(gone)

    def _close_columns(self) -> None:
        if self._columns.points:
            self._ready.extend((Kind.READINGS, body) for body in self._columns.bodies())
            self._columns = _Columns()

    # ------------------------------------------------------------------------------------------------ committing

    async def run(self) -> None:
        """The group commit, until cancelled; then what was put is still made durable, as far as the disk lets it."""
        loop = asyncio.get_running_loop()
        last = -GROUP_COMMIT
        try:
            while True:
                await self._dirty.wait()
                rest = last + GROUP_COMMIT - loop.time()
                if rest > 0:
                    await asyncio.sleep(rest)
                await self.commit()
                last = loop.time()
        finally:
            self._remembered = float("-inf")
            await asyncio.shield(self._commit_once())

    async def commit(self) -> None:
        """Makes durable what was put so far; tries again while the disk is full or the file is locked."""
        while not await self._commit_once():  # noqa: ASYNC110 (nobody tells us when a disk has room again)
            await asyncio.sleep(_RETRY)

    async def _commit_once(self) -> bool:
        self._dirty.clear()
        self._close_columns()
        remember, refused, now = None, None, asyncio.get_running_loop().time()
        if self._refused and self.budget.take_one_in == 1:
            self._take_back()
        elif self._refused and (now - self._refused_told >= 1 or any(kind == Kind.PROGRESS for kind, _ in self._ready)):
            refused, self._refused_told = self._refused.dump(), now
        if self.complete_to and now - self._remembered >= _REMEMBER_EVERY:
            remember = msgspec.json.encode(self.complete_to).decode()
        bodies, callbacks = list(self._ready), self._callbacks
        self._ready, self._callbacks = deque(), []
        try:
            writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, bodies, remember, refused)
            await asyncio.shield(writing)  # cancelled before the thread came to it, it would never be written
        except (OutboxFullError, sqlite3.Error) as error:
            # numbers were given: the bodies are pending in the outbox and go with its next commit
            self._callbacks = callbacks + self._callbacks
            full = isinstance(error, OutboxFullError)
            reason = (
                of_error(error)
                if full
                else Bilingual(f"{self.outbox.path}: {error}", f"发件箱 {self.outbox.path}：{error}")
            )
            if self.health.reason != reason:
                log.error("the outbox cannot be written: %s", reason)
            fix = (
                error.fix
                if isinstance(error, OutboxFullError)
                else Bilingual("Check the disk and the permissions of data_dir.", "请检查磁盘与 data_dir 的权限。")
            )
            self.health = Health("failed", reason, fix)
            self._room.clear()
            self._dirty.set()
            return False
        if remember is not None:
            self._remembered = now
        self.numbers.commits += bool(bodies)
        self.numbers.messages += len(bodies)
        self.numbers.bytes += sum(len(body) for _, body in bodies)
        for callback in callbacks:
            callback()
        await self._keep_budget()
        if bodies:
            self._woken()
        return True

    def _take_back(self) -> None:
        """There is room again: the newest of what was refused is told after all, and the rest as gaps."""
        newest, gaps = self._refused.take()
        for readings in newest:
            self._columns.extend(readings)
        self._close_columns()
        self.numbers.dropped -= len(newest)
        self.numbers.readings += len(newest)
        if gaps:
            self.put_now(Gaps(gaps))
        self.when_durable(self._forget_refused)

    def _forget_refused(self) -> None:
        self._thread.submit(self.outbox.set_meta, REFUSED, "[]")

    def _write(self, bodies: list[tuple[Kind, bytes]], remember: str | None, refused: str | None) -> None:
        """In the worker thread. Appending cannot fail for size: every body was split to fit."""
        for kind, body in bodies:
            self.outbox.append(kind, body)
        if refused is not None:  # before the progress that comes with it claims that all is there
            self.outbox.set_meta(REFUSED, refused)
        self.outbox.commit()
        if remember is not None:  # only now: it must never be ahead of what is durable
            self.outbox.set_meta(COMPLETE_TO, remember)

    async def _keep_budget(self) -> None:
        outbox, budget = self.outbox, self.budget
        if outbox.size > budget.allowed:  # what is kept for a restored store goes first, then what the policy says
            dropped = await asyncio.get_running_loop().run_in_executor(self._thread, self._make_room)
            self.numbers.dropped += dropped
        before = self.health
        found = budget.look(outbox.size, outbox.waiting, outbox.written)
        if found.state == "ok":
            if before.state != "ok" and before is not self.notice:
                log.info("the outbox takes everything again")
            found = self.notice or found
        elif before.state == "ok" or before is self.notice or before.reason[:20] != found.reason[:20]:
            log.warning("%s. %s", found.reason, found.fix)
        self.health = found
        if budget.policy == "block" and budget.spent:
            self._room.clear()
            asyncio.get_running_loop().call_later(_RETRY, self._dirty.set)
        else:
            self._room.set()

    def _make_room(self) -> int:
        """In the worker thread. How many readings were dropped."""
        while self.outbox.size > self.budget.allowed and self.outbox.trim(float("inf")):
            pass
        if self.budget.policy != "oldest" or self.outbox.size <= self.budget.allowed:
            return 0
        return self.outbox.drop_oldest(int(self.budget.allowed * _HEADROOM), _BURIED_AT_ONCE)


def _split(items: list[Any]) -> list[bytes]:
    body = _encode(items)
    if len(body) <= _LARGEST_BODY or len(items) <= 1:
        return [body]
    middle = len(items) // 2
    return _split(items[:middle]) + _split(items[middle:])
