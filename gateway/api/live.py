"""Serve's memory of `latest`, fed by what ingest says it committed (rule 18), and by the store when the bus is silent.

At start, when the bus is back, when a commit number is missing and when the epoch is another, the store is read in one
transaction; what ingest tells meanwhile waits, and is applied where the reading ended. The last minute of commits is kept, so
that a client of the live stream can go on where it was. All methods belong to the event loop; the store is read in worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.api._heard import Heard
from gateway.api._recent import Recent
from gateway.api.catalog import EMPTY, Catalog
from gateway.api.reasons import COLLECTOR_SILENT, NEVER_HEARD, RETIRED
from gateway.api.shapes import DeviceState
from gateway.bus.topics import Topics
from gateway.ledger.steps import StoreError, StoreWeatherError
from gateway.store.records import AssetRecord, DeviceRecord, SignalRecord, Snapshot, StreamRecord
from schemas.bilingual import of_error
from schemas.wire import Committed, Done, Flag, Link, Row, State

log = logging.getLogger("guantong.serve")

T = TypeVar("T")

POLL = 5.0
"""Seconds of silence of the bus after which the store is asked, and then again and again."""
SILENT = 10.0
"""Seconds without a word of a collector after which its devices are unknown."""
_WAITING_BYTES = 64 * 1024 * 1024
_IN_FLIGHT = 2.0
"""Seconds after a load in which messages of commits that it had already seen may still arrive."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_AT_ONCE = 20

_committed = msgspec.msgpack.Decoder(Committed)


class LiveReader(Protocol):
    """What is needed of the store; `gateway.store.Reader` is it."""

    def snapshot(self) -> Snapshot: ...
    def assets(self) -> list[AssetRecord]: ...
    def devices(self) -> list[DeviceRecord]: ...
    def signals(self) -> list[SignalRecord]: ...
    def streams(self) -> list[StreamRecord]: ...


class LiveBus(Protocol):
    """What is needed of the bus; `gateway.bus.client.Bus` is it."""

    on_connected: list[Callable[[], None]]

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None: ...


class InThread(Protocol):
    """Runs a blocking call in a worker thread."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(slots=True)
class Health:
    """Whether the store can be read, with reason and fix."""

    state: State = "starting"
    reason: str = "the store has not been read yet"
    fix: str = ""


@dataclass(slots=True)
class Numbers:
    """Running totals, for /metrics."""

    rows: int = 0
    commits: int = 0
    loads: int = 0
    holes: int = 0
    polls: int = 0
    unreadable: int = 0
    foreign: int = 0


@dataclass(slots=True, eq=False)
class Entry:
    """The newest reading of a signal; `rendered` has its JSON in the forms that were asked for."""

    row: Row
    rendered: dict[Any, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Change:
    """One commit as the live stream tells it. `devices` came or went; `rendered` has its JSON for the filters in use.

    `numbered` is False for what did not come with a commit: a collector that fell silent.
    """

    epoch: int
    commit_no: int
    rows: list[Row]
    devices: list[str]
    seen: list[Done]
    events: list[str]
    numbered: bool = True
    rendered: dict[Any, bytes] = field(default_factory=dict)


class Listener(Protocol):
    """Who hears of each change, at once and in order; must not block, and must not raise."""

    def tell(self, change: Change) -> None: ...
    def reset(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeviceView:
    """How a device is: `connected`, `disconnected`, `unknown` or `retired`; `since` in µs where that is known."""

    state: DeviceState
    reason: str = ""
    since: int | None = None


class Live:
    """See the module. Call `run` once; it goes on until it is cancelled."""

    def __init__(
        self,
        reader: LiveReader,
        topics: Topics,
        bus: LiveBus | None,
        in_thread: InThread,
        *,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        poll: float = POLL,
        silent: float = SILENT,
    ) -> None:
        self.health = Health()
        self.numbers = Numbers()
        self.catalog: Catalog = EMPTY
        self.loaded = False
        """True once the store has been read for the first time."""
        self.store_id = ""
        self.epoch = 0
        self.commit_no = 0
        self.version = 0
        """Rises whenever anything that an answer may show has changed."""
        self.last_commit: float | None = None
        """When a commit was last heard of (monotonic)."""
        self.entries: dict[int, Entry] = {}
        self.seen: dict[str, dict[str, int]] = {}
        """Device -> scan group -> `complete_to` (µs)."""
        self.down: dict[str, tuple[int, str]] = {}
        self.listeners: set[Listener] = set()
        self._reader, self._topics, self._in_thread = reader, topics, in_thread
        self._now, self._monotonic = now_us, monotonic
        self._poll = poll
        self._inbox: deque[tuple[int, str, bytes]] = deque()
        self._inbox_bytes = 0
        self._arrived = 0
        self._known_births = 0
        self._load_wanted = "start"
        self._awake = asyncio.Event()
        self._recent = Recent()
        self._heard = Heard(silent)
        self._loaded_at = -_IN_FLIGHT
        self._loaded_no = 0
        self._checked = 0.0
        self._pause = _FIRST_PAUSE
        if bus is not None:
            bus.subscribe(topics.committed("+"), self._on_committed)
            bus.on_connected.append(self._on_connected)

    # --------------------------------------------------------------------------------------------- from the bus

    def _on_committed(self, topic: str, payload: bytes) -> None:
        self._arrived += 1
        self._inbox.append((self._arrived, self._topics.last(topic), payload))
        self._inbox_bytes += len(payload)
        if self._inbox_bytes > _WAITING_BYTES:
            self._inbox.clear()
            self._inbox_bytes = 0
            self._want("more waits than can be kept")
        self._awake.set()

    def _on_connected(self) -> None:
        self._want("the bus is connected")

    def _want(self, why: str) -> None:
        self._load_wanted = self._load_wanted or why
        self._awake.set()

    # ------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Until cancelled. A store that cannot be read is a state, not an end."""
        while True:
            pause = 0.0
            try:
                if self._load_wanted:
                    await self._load()
                await self._work()
                await self._look()
            except StoreError as error:
                self._become(
                    "recovering" if isinstance(error, StoreWeatherError) else "failed", of_error(error), error.fix
                )
                pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
            self._watch()
            if self._load_wanted:
                await asyncio.sleep(pause)
            elif not self._inbox:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(1.0, self._poll)):  # not wait_for: 3.11's may swallow a cancellation
                        await self._awake.wait()
            self._awake.clear()

    async def _ask(self, call: Callable[[], T]) -> T:
        """Asks the store; that it answered ends a bad state."""
        answer = await self._in_thread(call)
        self._become("ok")
        self._pause = _FIRST_PAUSE
        return answer

    def _become(self, state: State, reason: str = "", fix: str = "") -> None:
        if (state, reason) != (self.health.state, self.health.reason):
            write = log.info if state == "ok" else log.warning
            write("serve: store is %s%s", state, f": {reason}. {fix}" if reason else "")
            self.health = Health(state, reason, fix)

    async def _work(self) -> None:
        """Everything that has arrived, in its order."""
        done = 0
        while self._inbox and not self._load_wanted:
            number, store, payload = self._inbox.popleft()
            self._inbox_bytes -= len(payload)
            if store != self.store_id:
                self.numbers.foreign += 1
                continue
            try:
                message = _committed.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.numbers.unreadable += 1
                self._want("a message could not be read")
                return
            if message.births and number > self._known_births:
                try:
                    await self._load_catalog()
                except StoreError:
                    self._want("births")  # this message has left the inbox
                    raise
            self._take(message, payload)
            done += 1
            if done % _AT_ONCE == 0:
                await asyncio.sleep(0)

    # ---------------------------------------------------------------------------------------------- from the store

    async def _load(self) -> None:
        """Reads everything from the store, and takes it where it is another commit than the one that is known."""
        arrived = self._arrived
        why, self._load_wanted = self._load_wanted, ""
        try:
            streams, snapshot, catalog = await self._ask(self._read)
        except BaseException:  # also when cancelled: what was wanted is still wanted
            self._load_wanted = self._load_wanted or why
            raise
        self.numbers.loads += 1
        log.debug("serve: read the store at commit %s.%s: %s", snapshot.epoch, snapshot.commit_no, why)
        same = self.loaded and (snapshot.store, snapshot.epoch, snapshot.commit_no) == (
            self.store_id, self.epoch, self.commit_no,
        )  # fmt: skip
        self.store_id, self.epoch, self.commit_no = snapshot.store, snapshot.epoch, snapshot.commit_no
        self._know(catalog, arrived)
        self.entries = {row.signal: Entry(row) for row in snapshot.rows}
        self.seen = {}
        for done in snapshot.progress:
            self.seen.setdefault(done.device, {})[done.group] = done.complete_to
        self.down = {item.device: (item.start, item.reason) for item in snapshot.connections}
        self._loaded_at, self._loaded_no = self._monotonic(), snapshot.commit_no
        now = self._monotonic()
        self._heard.look(streams, self._checked, now, self._now())
        self._checked = now
        self.loaded = True
        self._changed()
        if not same:
            self.last_commit = self._monotonic() if self.last_commit is not None or streams else None
            self._recent.begin(snapshot.commit_no)
            for listener in list(self.listeners):
                listener.reset()

    def _read(self) -> tuple[list[StreamRecord], Snapshot, Catalog]:
        # the streams before the snapshot: what they say later and the snapshot does not have is then noticed
        streams = self._reader.streams()
        snapshot = self._reader.snapshot()
        return streams, snapshot, self._read_catalog()

    def _read_catalog(self) -> Catalog:
        return Catalog(self._reader.assets(), self._reader.devices(), self._reader.signals())

    async def _load_catalog(self) -> None:
        arrived = self._arrived
        self._know(await self._ask(self._read_catalog), arrived)

    def _know(self, catalog: Catalog, arrived: int) -> None:
        """Births of messages that had arrived when the catalogue was read are in it."""
        self._known_births = max(self._known_births, arrived)
        if catalog.digest != self.catalog.digest:
            self.catalog = catalog
            for entry in self.entries.values():
                entry.rendered.clear()
            self._changed()

    async def _look(self) -> None:
        """Asks the store for its watermarks when the bus, or a collector, has been silent."""
        now = self._monotonic()
        if not self.loaded or now - self._checked < self._poll:
            return
        told = self.last_commit is not None and now - self.last_commit < self._poll
        ages = [self._heard.age(name, now) for name in self._gateways()]
        if told and all(age is not None and age < self._poll for age in ages):
            return
        before, self._checked = self._checked, now
        self.numbers.polls += 1
        streams = await self._ask(self._reader.streams)
        moved = self._heard.look(streams, before, self._monotonic(), self._now())
        if moved and not told:
            self._want("the store has moved on, and the bus said nothing")

    def _gateways(self) -> set[str]:
        return {device.gateway for device in self.catalog.devices.values() if not device.retired}

    # --------------------------------------------------------------------------------------------------- applying

    def _take(self, message: Committed, payload: bytes) -> None:
        """One commit: the next one is applied, an earlier one skipped, anything else makes the store be read again."""
        if message.epoch != self.epoch:
            if message.epoch > self.epoch:
                self.numbers.holes += 1
                self._want("another epoch")
            return
        if message.commit_no <= self.commit_no:
            if not self._had(message.commit_no, payload):
                self._want("an old number")
            return
        if message.commit_no > self.commit_no + 1:
            self.numbers.holes += 1
            self._want(f"commit {self.commit_no + 1} is missing")
            return
        self._apply(message)
        self._recent.add(self._monotonic(), message.commit_no, payload)

    def _had(self, commit_no: int, payload: bytes) -> bool:
        """Whether a number that is not new is a repetition; if not, the store has been put back."""
        if commit_no <= self._loaded_no and self._monotonic() - self._loaded_at < _IN_FLIGHT:
            return True
        return self._recent.has(commit_no, payload)

    def _apply(self, message: Committed) -> None:
        self.commit_no = message.commit_no
        self.numbers.commits += 1
        self.numbers.rows += len(message.rows)
        now = self.last_commit = self._monotonic()
        entries = self.entries
        for row in message.rows:
            entry = entries.get(row.signal)
            if entry is None:
                entries[row.signal] = Entry(row)
            elif row.ts > entry.row.ts or (row.ts == entry.row.ts and row.n > entry.row.n):
                entry.row = row
                entry.rendered = {}
        devices = self.catalog.devices
        for done in message.progress:
            self.seen.setdefault(done.device, {})[done.group] = done.complete_to
            self._hear(devices, done.device, now)
        for link in message.links:
            self._link(link)
            self._hear(devices, link.device, now)
        self._changed()
        self._tell(self._change(message))

    @staticmethod
    def _change(message: Committed) -> Change:
        devices = list(dict.fromkeys(link.device for link in message.links))
        return Change(message.epoch, message.commit_no, message.rows, devices, message.progress, message.events)

    def _hear(self, devices: dict[str, DeviceRecord], device: str, now: float) -> None:
        known = devices.get(device)
        if known is not None:
            self._heard.note(known.gateway, now)

    def _link(self, link: Link) -> None:
        if link.up:
            self.down.pop(link.device, None)
        else:
            # gone since the first word, for the newest reason: as the store has it
            since, _ = self.down.get(link.device, (link.at, ""))
            self.down[link.device] = (since, link.reason)
        self._forget_rendered(link.device)

    def _forget_rendered(self, device: str) -> None:
        for number in self.catalog.signals_of.get(device, ()):
            entry = self.entries.get(number)
            if entry is not None:
                entry.rendered = {}

    def _changed(self) -> None:
        self.version += 1

    def _tell(self, change: Change) -> None:
        for listener in list(self.listeners):
            listener.tell(change)

    def _watch(self) -> None:
        """Which collectors are silent, and what is too old to be kept."""
        now = self._monotonic()
        self._recent.forget(now)
        turned = self._heard.watch(self._gateways(), now) if self.loaded else set()
        if turned:
            devices = [device.id for device in self.catalog.devices.values() if device.gateway in turned]
            for device in devices:
                self._forget_rendered(device)
            self._changed()
            self._tell(Change(self.epoch, self.commit_no, [], devices, [], [], numbered=False))

    # ----------------------------------------------------------------------------------------------- for the stream

    def since(self, epoch: int, commit_no: int) -> list[Change] | None:
        """The commits after this one, or None when they are not all kept any more (or never were of this store)."""
        if epoch != self.epoch or commit_no > self.commit_no:
            return None
        payloads = self._recent.since(commit_no)
        return None if payloads is None else [self._change(_committed.decode(payload)) for payload in payloads]

    # -------------------------------------------------------------------------------------------------- for answers

    def is_quiet(self, gateway: str) -> bool:
        """Whether nothing has been heard of this gateway's collector for too long."""
        return gateway in self._heard.quiet

    def silence(self, gateway: str) -> float | None:
        """Seconds since the last word of this gateway's collector; None when there never was one."""
        return self._heard.age(gateway, self._monotonic())

    def commit_age(self) -> float | None:
        """Seconds since a commit was last heard of; None before the first."""
        return None if self.last_commit is None else max(0.0, self._monotonic() - self.last_commit)

    def view(self, device: DeviceRecord) -> DeviceView:
        """How the device is. What nobody has heard of for long is unknown, whatever was said last."""
        if device.retired:
            return DeviceView("retired", RETIRED, device.changed_at)
        last_seen = self.last_seen(device.id)
        if device.gateway in self._heard.quiet:
            return DeviceView("unknown", COLLECTOR_SILENT, last_seen)
        down = self.down.get(device.id)
        if down is not None:
            return DeviceView("disconnected", down[1], down[0])
        if last_seen is None:
            return DeviceView("unknown", NEVER_HEARD)
        return DeviceView("connected")

    def last_seen(self, device: str) -> int | None:
        """Up to when something is known of the device (µs): its newest reading, or progress of one of its groups."""
        times = list(self.seen.get(device, {}).values())
        for number in self.catalog.signals_of.get(device, ()):
            entry = self.entries.get(number)
            if entry is not None:
                times.append(entry.row.ts)
        return max(times, default=None)

    def seen_at(self, signal: SignalRecord) -> int | None:
        """When the signal's value was last known to hold (µs): its ts, or the progress of its scan group."""
        entry = self.entries.get(signal.id)
        if entry is None:
            return None
        return max(entry.row.ts, self.seen.get(signal.device, {}).get(signal.group, entry.row.ts))


def is_live(row: Row) -> bool:
    """False for what was stored after newer readings of its signal: history, not news."""
    return not row.flags & Flag.LATE
