"""The role `ingest`: holds the store's lease, answers syncs, writes what the ledger brings, confirms it, tells serve.

The store's calls block and run in one worker thread; everything else is in the event loop. When the store is away ingest keeps what it
holds, tries again for ever and confirms nothing; collectors wait with their outboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from gateway.bus.client import Bus
from gateway.bus.topics import Topics
from gateway.ledger.receiver import Receiver
from gateway.ledger.sender import WINDOW_BYTES, WINDOW_MESSAGES
from gateway.ledger.steps import Applied, LeaseLostError, Step, StoreFailedError, StoreWeatherError, WatermarkError
from schemas.bilingual import Bilingual, of_error
from schemas.wire import VERSION, Confirmed, Hello, Mark, Replay, State, SyncAnswer, SyncRequest

log = logging.getLogger("guantong.ingest")

T = TypeVar("T")

MOST_ROWS = 6_000
"""About so many readings in one transaction: what serve is told of it fits into a packet of 256 kB, which is what brokers take."""
MOST_AGE = 0.05
"""Seconds that the oldest message waits for others to share its transaction with, which is one fsync for all of them. A collector
commits, and sends, five times a second; nothing waits once there is enough for a transaction."""
ENOUGH_MESSAGES, ENOUGH_BYTES = WINDOW_MESSAGES // 4, WINDOW_BYTES // 4
"""So much of one collector is written at once: well below its window, or it would wait for us and we for it."""
LETTERS_INTERVAL = 1.0
LEASE_TTL = 10.0
HELLO_INTERVAL = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
_TICK = 0.5
MOST_SYNCS = 1_000

_encode = msgspec.msgpack.Encoder().encode
_sync = msgspec.msgpack.Decoder(SyncRequest)


class LedgerWriter(Protocol):
    """What ingest needs of a store; `gateway.store.writer.Writer` is it."""

    store_id: str
    epoch: int

    def acquire(self, holder: str, ttl: float) -> bool: ...
    def renew(self) -> None: ...
    def release(self) -> None: ...
    def marks(self, gateway: str, streams: list[str]) -> list[Mark]: ...
    def gateways(self) -> list[str]: ...
    def raise_epoch(self) -> None: ...
    def apply(self, steps: list[Step]) -> Applied: ...
    def replay(self) -> list[Applied]: ...
    def open_letters(self) -> int: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Health:
    """State of this ingest, with reason and fix."""

    state: State = "starting"
    reason: str = ""
    fix: str = ""


@dataclass(slots=True)
class Numbers:
    """Running totals, for /metrics."""

    messages: int = 0
    rows: int = 0
    duplicates: int = 0
    late: int = 0
    dead_letters: int = 0
    replayed: int = 0
    commits: int = 0
    retries: int = 0
    last_commit: float = 0.0
    lag: float = 0.0
    """Seconds between the arrival of the oldest message of the last commit and its commit."""
    open_letters: int = 0
    """Dead letters in the store that nobody has decided about."""


@dataclass(slots=True)
class _Gateway:
    receiver: Receiver
    greeted: float = -HELLO_INTERVAL
    problems: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Ingest:
    """See the module. `open_store` is called in the worker thread, again after each failure to open."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        open_store: Callable[[], LedgerWriter],
        *,
        holder: str,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        supports: int = VERSION,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.bus, self.topics = bus, topics
        self.health = Health()
        self.numbers = Numbers()
        self.problems: deque[str] = deque(maxlen=50)
        self._open_store = open_store
        self._holder = holder
        self._now, self._monotonic = now_us, monotonic
        self._supports = supports
        self._store: LedgerWriter | None = None
        self._leased = False
        self._gateways: dict[str, _Gateway] = {}
        self._syncs: dict[tuple[str, tuple[str, ...]], SyncRequest] = {}
        """The newest of each outbox: who has asked again does not listen for the answer to the question before."""
        self._work = asyncio.Event()
        self._enough = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "store")
        bus.subscribe(topics.ledger("+"), self._on_ledger)
        bus.subscribe(topics.sync("+"), self._on_sync)

    @property
    def store_id(self) -> str | None:
        """The store's UUID once it is open."""
        return None if self._store is None else self._store.store_id

    @property
    def receivers(self) -> dict[str, Receiver]:
        """The receiver of each gateway heard of."""
        return {name: gateway.receiver for name, gateway in self._gateways.items()}

    # --------------------------------------------------------------------------------------------- from the bus

    def _on_sync(self, topic: str, payload: bytes) -> None:
        try:
            request = _sync.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.warning("%s: a sync request that cannot be read", topic)
            return
        outbox = (request.gateway, tuple(held.stream for held in request.streams))
        if request.gateway == self.topics.last(topic) and (outbox in self._syncs or len(self._syncs) < MOST_SYNCS):
            self._syncs.pop(outbox, None)
            self._syncs[outbox] = request
            self._enough.set()
            self._work.set()

    def _on_ledger(self, topic: str, payload: bytes) -> None:
        if not self._leased:
            return
        name = self.topics.last(topic)
        gateway = self._gateways.get(name)
        now = self._monotonic()
        if gateway is None:
            gateway = self._gateways[name] = _Gateway(Receiver(name, supports=self._supports))
        receiver = gateway.receiver
        if not receiver.offer(payload, self._now(), now) and now - gateway.greeted > HELLO_INTERVAL:
            gateway.greeted = now
            self._greet(name)
        if receiver.held >= ENOUGH_MESSAGES or receiver.held_bytes >= ENOUGH_BYTES:
            self._enough.set()
        self._work.set()

    def _greet(self, gateway: str, problem: str = "") -> None:
        if self._store is not None:
            self._tell(gateway, Hello(VERSION, self._store.store_id, self.id, problem))

    def _tell(self, gateway: str, message: SyncAnswer | Confirmed | Replay | Hello) -> None:
        self.bus.publish(self.topics.confirmed(gateway), _encode(message))

    # ------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Until cancelled; then the lease is given back. An error of a person's kind is a state, not an end."""
        try:
            while True:
                try:
                    await self._lead()
                except (StoreWeatherError, StoreFailedError) as error:
                    weather = isinstance(error, StoreWeatherError)
                    self._become("recovering" if weather else "failed", of_error(error), error.fix)
                except LeaseLostError as error:
                    self._become("recovering", of_error(error), error.fix)
                self._stand_down()
                await asyncio.sleep(
                    random.uniform(0.5, 1.0) * (LONGEST_PAUSE if self.health.state == "failed" else 1.0)
                )
        finally:
            self._become("stopping")
            await self._close()
            self._become("stopped")

    async def _close(self) -> None:
        store, self._store, self._leased = self._store, None, False

        def close() -> None:
            if store is not None:
                with contextlib.suppress(StoreWeatherError, StoreFailedError, LeaseLostError):
                    store.release()
                store.close()

        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, close))
        self._thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def _lead(self) -> None:
        """Opens the store, takes the lease and works until something goes wrong."""
        if self._store is None:
            self._store = await self._in_thread(self._open_store)
        store = self._store
        while not await self._in_thread(store.acquire, self._holder, LEASE_TTL):
            self._become(
                "degraded",
                Bilingual(
                    f"another ingest holds the lease of store {store.store_id}",
                    f"存储 {store.store_id} 的租约由另一个 ingest 持有",
                ),
                Bilingual(
                    "This one stands by. Stop it if it is not meant as a reserve.",
                    "本进程待命。若不打算作为备用，请停止它。",
                ),
            )
            await asyncio.sleep(LEASE_TTL / 4)
        self._leased = True
        self._become("ok")
        for name in await self._in_thread(store.gateways):
            self._gateways.setdefault(name, _Gateway(Receiver(name, supports=self._supports)))
            self._greet(name)
        renewed = looked = self._monotonic()
        self.numbers.open_letters = await self._in_thread(store.open_letters)
        while True:
            await self._gather()
            now = self._monotonic()
            while self._syncs:
                await self._answer(store, self._syncs.pop(next(iter(self._syncs))))
            await self._write(store)
            if now - looked > LETTERS_INTERVAL:
                looked = now
                await self._replay(store)
            for name, gateway in self._gateways.items():
                gateway.receiver.nudge(now)
                for stream, seq in gateway.receiver.wanted():
                    self._tell(name, Replay(VERSION, store.store_id, self.id, stream, seq))
                if gateway.receiver.too_new is not None and now - gateway.greeted > HELLO_INTERVAL:
                    gateway.greeted = now
                    self._greet(name, f"ingest too old: it reads version {self._supports} of the ledger")
                    self._become(
                        "degraded",
                        Bilingual(
                            f"gateway {name} writes version {gateway.receiver.too_new} of the ledger, this ingest reads {self._supports}",
                            f"网关 {name} 写的账本版本为 {gateway.receiver.too_new}，本 ingest 只能读 {self._supports}",
                        ),
                        Bilingual(
                            "Upgrade ingest; the collector keeps everything until then.",
                            "请升级 ingest；在此之前采集端保留全部数据。",
                        ),
                    )
            if self._monotonic() - renewed > LEASE_TTL / 4:
                await self._in_thread(store.renew)
                renewed = self._monotonic()

    async def _gather(self) -> None:
        """Until there is something to do: at once what is enough for a transaction, else what has come within MOST_AGE of the first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK):
                await self._work.wait()
        if self._work.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOST_AGE):
                    await self._enough.wait()
        self._work.clear()
        self._enough.clear()

    def _stand_down(self) -> None:
        """What is held ahead is worth nothing without the lease; collectors will sync again."""
        self._leased = False
        for gateway in self._gateways.values():
            gateway.receiver.reset()

    def _become(self, state: State, reason: str = "", fix: str = "") -> None:
        if (state, reason) != (self.health.state, self.health.reason):
            write = log.info if state in ("ok", "stopping", "stopped") else log.warning
            write("ingest is %s%s", state, f": {reason}. {fix}" if reason else "")
        self.health = Health(state, reason, fix)

    # -------------------------------------------------------------------------------------------------- the work

    async def _answer(self, store: LedgerWriter, request: SyncRequest) -> None:
        try:
            marks = await self._in_thread(store.marks, request.gateway, [h.stream for h in request.streams])
        except StoreFailedError as error:
            self._note(f"sync of gateway {request.gateway}: {error}. {error.fix}")
            return
        stored = {mark.stream: mark.seq for mark in marks}
        if any(held.confirmed > stored[held.stream] for held in request.streams):
            self._note(
                f"the store is behind what it had confirmed to gateway {request.gateway}: it was restored from a backup "
                "and is filled again"
            )
            await self._in_thread(store.raise_epoch)
        gateway = self._gateways.setdefault(
            request.gateway, _Gateway(Receiver(request.gateway, supports=self._supports))
        )
        gateway.receiver.learn(request.streams, marks, self._monotonic())
        self._tell(request.gateway, SyncAnswer(VERSION, request.nonce, store.store_id, self.id, marks))
        self._work.set()

    async def _write(self, store: LedgerWriter) -> None:
        """One transaction after the other while there is something to write."""
        while True:
            steps: list[Step] = []
            for gateway in self._gateways.values():
                steps += gateway.receiver.take(MOST_ROWS - len(steps), self._now())
            if not steps:
                return
            applied = await self._apply(store, steps)
            if applied is None:
                return
            self._done(store, steps, applied)

    async def _apply(self, store: LedgerWriter, steps: list[Step]) -> Applied | None:
        """Applies the same steps again and again through bad weather; None when the watermarks were not where we thought."""
        pause = FIRST_PAUSE
        while True:
            try:
                applied = await self._in_thread(store.apply, steps)
            except WatermarkError as error:
                self._note(f"{error}; collectors are asked again")
                for name, gateway in self._gateways.items():
                    gateway.receiver.reset()
                    self._greet(name)
                return None
            except StoreWeatherError as error:
                self.numbers.retries += 1
                self._become("recovering", of_error(error), error.fix)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                if self.health.state == "recovering":
                    self._become("ok")
                return applied

    async def _replay(self, store: LedgerWriter) -> None:
        """Dead letters whose replay somebody has asked for."""
        try:
            for applied in await self._in_thread(store.replay):
                self.numbers.replayed += 1
                self.numbers.rows += applied.rows
                self.bus.publish(self.topics.committed(store.store_id), _encode(applied.committed))
            self.numbers.open_letters = await self._in_thread(store.open_letters)
        except StoreWeatherError as error:
            # what is asked for stays so in the store; the next round tries it again
            self._note(f"dead letters: {error}")

    def _done(self, store: LedgerWriter, steps: list[Step], applied: Applied) -> None:
        numbers = self.numbers
        numbers.commits += 1
        numbers.messages += len(steps)
        numbers.rows += applied.rows
        numbers.duplicates += applied.duplicates
        numbers.late += applied.late
        numbers.dead_letters += applied.dead_letters
        numbers.open_letters += applied.dead_letters
        numbers.last_commit = self._now() / 1e6
        numbers.lag = max(0.0, (self._now() - min(step.at for step in steps)) / 1e6)
        for problem in applied.problems:
            self._note(problem)
        owners = {step.stream: step.gateway for step in steps}
        for mark in applied.marks:
            self._tell(owners[mark.stream], Confirmed(VERSION, store.store_id, self.id, mark))
        # one that is too large for the broker is not sent: serve sees the hole and reads the store
        self.bus.publish(self.topics.committed(store.store_id), _encode(applied.committed))

    def _note(self, problem: str) -> None:
        log.warning("%s", problem)
        self.problems.append(problem)
