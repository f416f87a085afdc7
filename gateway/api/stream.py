"""The live stream (server-sent events, WHATWG HTML §9.2), by rule 18.

Each commit is one event `change` whose id is `epoch.commit_no`. A client that comes back with `Last-Event-ID` within a minute
gets what it missed; an older id, or a hole, gives the event `reset`, and then `snapshot` events with the newest readings. A client that
does not read fast enough is cut: it costs the others nothing, and can come back.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api import shapes
from gateway.api.context import ROOT, Api, language_of
from gateway.api.happenings import event
from gateway.api.language import Language, Words
from gateway.api.latest import Form
from gateway.api.live import Change, is_live
from gateway.api.parameters import StreamQuery
from gateway.api.problems import ProblemError, invalid
from gateway.api.resources import time_of
from gateway.api.values import flag_names, to_plain
from gateway.ledger.steps import StoreError
from schemas.bilingual import Bilingual
from schemas.status import quality
from schemas.times import to_rfc3339

HEARTBEAT = 10.0
"""Seconds of silence after which a comment shows that the connection stands."""
QUEUE_CHANGES, QUEUE_ROWS = 600, 100_000
"""What may wait for one client; more, and it is cut."""
STALLED = 30.0
"""Seconds in which a client takes nothing at all before it is cut."""
_SNAPSHOT_ITEMS = 1_000
_ID = re.compile(r"(\d{1,18})\.(\d{1,18})")
ABORT = "guantong.abort"
"""The extension of the ASGI scope that ends a connection at once, whatever still waits to be sent."""

_encode = msgspec.json.Encoder().encode


class Streams:
    """All clients of the live stream."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.clients: set[Client] = set()
        self.cut = 0
        """Clients that were too slow, so far."""
        self.stopping = False

    def stop(self) -> None:
        """Ends all of them, so that the server can stop."""
        self.stopping = True
        for client in list(self.clients):
            client.end()

    def admit(self, address: str) -> None:
        """Raises the problem `busy` when there are too many, of all or of this address."""
        limits = self.api.limits
        mine = sum(client.address == address for client in self.clients)
        if self.stopping or len(self.clients) >= limits.streams or mine >= limits.streams_per_client:
            raise ProblemError(
                "busy",
                Words("There are too many live streams.", "实时连接数已达上限。"),
                fix=Words(
                    f"Close some: {limits.streams} are possible, {limits.streams_per_client} of one address.",
                    f"请关闭部分连接：总数上限 {limits.streams}，单个地址上限 {limits.streams_per_client}。",
                ),
                headers={"Retry-After": "5"},
            )


class Filter:
    """What a client wants to hear. `key` is equal for clients that can share what is rendered."""

    def __init__(self, api: Api, query: StreamQuery, language: Language) -> None:
        self._api = api
        self._query = query
        self.form = Form(language, query.int64 == "string")
        self.seen = query.seen
        self.everything = not (query.device or query.asset or query.match or query.signal)
        self.key = (
            self.form, query.seen, tuple(query.device), tuple(query.asset), tuple(query.match), tuple(query.signal),
        )  # fmt: skip
        self._of: object = None
        self._numbers: tuple[int, ...] = ()
        self._members: frozenset[int] = frozenset()
        self._devices: frozenset[str] = frozenset()
        self.numbers()

    def numbers(self) -> tuple[int, ...]:
        """The signals, as the catalogue has them now."""
        catalog = self._api.catalog()
        if self._of is not catalog:
            query = self._query
            self._numbers = self._api.select(query, names=query.signal, match=query.match)
            self._members = frozenset(self._numbers)
            devices = {catalog.signals[number].device for number in self._numbers}
            if self.everything:
                devices = {device.id for device in catalog.devices.values() if not device.retired}
            elif query.device and not (query.match or query.signal or query.asset):
                devices |= set(query.device)
            self._devices = frozenset(devices)
            self._of = catalog
        return self._numbers

    def has(self, signal: int) -> bool:
        """Whether the signal is wanted."""
        return signal in self._members

    def has_device(self, device: str) -> bool:
        """Whether the device, or a signal of it, is wanted."""
        return device in self._devices

    @property
    def devices(self) -> list[str]:
        """The devices, by id."""
        return sorted(self._devices)


class Client:
    """One connection. `tell` and `reset` are called by `Live`, everything else by the connection's own task."""

    def __init__(self, streams: Streams, address: str) -> None:
        self.address = address
        self.too_slow = False
        self._streams = streams
        self._queue: deque[Change | None] = deque()
        self._rows = 0
        self._news = asyncio.Event()
        self.over = asyncio.Event()
        """Set when the connection is to end."""

    def tell(self, change: Change) -> None:
        """Queues a change; a client that has too much waiting is cut."""
        self._queue.append(change)
        self._rows += len(change.rows)
        if len(self._queue) > QUEUE_CHANGES or self._rows > QUEUE_ROWS:
            self.cut()
        self._news.set()

    def reset(self) -> None:
        """What waits is worth nothing any more: the client begins anew."""
        self._queue.clear()
        self._rows = 0
        self._queue.append(None)
        self._news.set()

    def cut(self) -> None:
        """Ends a client that is too slow."""
        if not self.over.is_set():
            self.too_slow = True
            self._streams.cut += 1
        self._queue.clear()
        self._rows = 0
        self.end()

    def end(self) -> None:
        """Ends the connection."""
        self.over.set()
        self._news.set()

    def is_over(self) -> bool:
        """Whether the connection is to end."""
        return self.over.is_set()

    async def next(self, timeout: float) -> tuple[bool, Change | None]:
        """(True, a change or None for a reset), or (False, None) when nothing came in time or the client is to end."""
        if not self._queue and not self.is_over():
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):  # not wait_for: Python 3.11's may swallow a cancellation
                    await self._news.wait()
            except TimeoutError:
                return False, None
        if not self._queue or self.is_over():
            return False, None
        change = self._queue.popleft()
        if change is not None:
            self._rows -= len(change.rows)
        return True, change


class Frames:
    """Makes the text of events from what `Live` tells, once for all clients with the same filter."""

    def __init__(self, api: Api, filter: Filter) -> None:
        self._api = api
        self._filter = filter

    def snapshot(self, *, reset: bool) -> list[bytes]:
        """The newest readings and the state of the devices; only the last event has the id, so that half of it is not resumed."""
        live, wanted = self._api.live, self._filter
        items = self._api.view.items(wanted.numbers(), wanted.form)
        devices = _encode([self._device(name) for name in wanted.devices])
        frames = [b"event: reset\ndata: {}\n\n"] if reset else []
        pieces = [items[at : at + _SNAPSHOT_ITEMS] for at in range(0, len(items), _SNAPSHOT_ITEMS)] or [[]]
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            tail = b"false}" if last else b"true}"
            body = (
                b'{"items":[' + b",".join(piece) + b'],"devices":' + (devices if last else b"[]") + b',"more":' + tail
            )
            ident = b"id: %d.%d\n" % (live.epoch, live.commit_no) if last else b""
            frames.append(ident + b"event: snapshot\ndata: " + body + b"\n\n")
        return frames

    def states(self) -> bytes:
        """How all devices are now, for who missed something."""
        live = self._api.live
        body = shapes.StreamChange(devices=[self._device(name) for name in self._filter.devices])
        return b"id: %d.%d\nevent: change\ndata: " % (live.epoch, live.commit_no) + _encode(body) + b"\n\n"

    async def change(self, change: Change) -> bytes:
        """The event of one commit; empty when nothing in it is wanted."""
        wanted = self._filter
        wanted.numbers()
        known = change.rendered.get(wanted.key)
        if known is None:
            known = change.rendered[wanted.key] = await self._render(change)
        return known

    async def _render(self, change: Change) -> bytes:
        wanted, catalog = self._filter, self._api.live.catalog
        text = wanted.form.int64_text
        rows = sorted(
            (row for row in change.rows if is_live(row) and wanted.has(row.signal)), key=lambda row: (row.ts, row.n)
        )
        body = shapes.StreamChange(
            [
                shapes.StreamReading(
                    catalog.names[row.signal], to_rfc3339(row.ts), to_plain(row.value, int64_text=text), row.status,
                    quality(row.status), row.n, flag_names(row.flags),
                )
                for row in rows
            ],
            [self._device(name) for name in change.devices if wanted.has_device(name) and name in catalog.devices],
            await self._events(change),
            [
                shapes.StreamSeen(done.device, done.group, to_rfc3339(done.complete_to))
                for done in change.seen
                if wanted.seen and wanted.has_device(done.device)
            ],
        )  # fmt: skip
        if not (body.readings or body.devices or body.events or body.seen):
            return b""
        ident = b"id: %d.%d\n" % (change.epoch, change.commit_no) if change.numbered else b""
        return ident + b"event: change\ndata: " + _encode(body) + b"\n\n"

    async def _events(self, change: Change) -> list[shapes.Event]:
        if not change.events:
            return []
        try:
            rows = await self._api.ask(lambda: self._api.reader.event_by_id(change.events))
        except (StoreError, ProblemError):
            return []  # the store is away: the feed of events has them when it is back
        form = self._filter.form
        return [event(row, form.language, form.int64_text) for row in rows if self._filter.has_device(row.device)]

    def _device(self, name: str) -> shapes.StreamDevice:
        view = self._api.live.view(self._api.live.catalog.devices[name])
        return shapes.StreamDevice(name, view.state, view.reason, time_of(view.since))


class StreamResponse(Response):
    """The answer that lasts."""

    def __init__(self, streams: Streams, filter: Filter, address: str, resume: tuple[int, int] | None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(
            {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._streams = streams
        self._filter = filter
        self._frames = Frames(streams.api, filter)
        self._client = Client(streams, address)
        self._resume = resume
        self._sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs until the client goes, is too slow, or the server stops."""
        client, streams = self._client, self._streams
        abort: Callable[[], None] | None = scope.get("extensions", {}).get(ABORT, {}).get("call")
        streams.clients.add(client)
        self._sent = streams.api.monotonic()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._write(send)),
            asyncio.create_task(_gone(receive)),
            asyncio.create_task(client.over.wait()),
        ]
        writer = tasks[0]
        try:
            while not (await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_COMPLETED))[0]:
                if streams.api.monotonic() - self._sent > HEARTBEAT + STALLED:
                    client.cut()
            if client.is_over() and not client.too_slow:
                # the server stops: the writer ends by itself unless the client takes nothing
                await asyncio.wait([writer], timeout=0.5)
        finally:
            streams.clients.discard(client)
            streams.api.live.listeners.discard(client)
            finished = writer.done() and not writer.cancelled() and writer.exception() is None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not finished and abort is not None:
                abort()
                await asyncio.sleep(
                    0
                )  # the server learns that the connection is gone before it asks for the end of the answer
        if writer.done() and not writer.cancelled() and (error := writer.exception()) is not None:
            raise error

    async def _write(self, send: Send) -> None:
        client, live = self._client, self._streams.api.live
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        # no await between listening and reading what there is: nothing is missed, and nothing told twice
        live.listeners.add(client)
        missed = None if self._resume is None else live.since(*self._resume)
        at = (live.epoch, live.commit_no)
        await self._send(send, b"retry: 3000\n\n")
        if missed is None:
            for frame in self._frames.snapshot(reset=self._resume is not None):
                await self._send(send, frame)
        else:
            for change in missed:
                frame = await self._frames.change(change)
                if frame:
                    await self._send(send, frame)
            await self._send(send, self._frames.states())
        told = at
        while not client.is_over():
            there, news = await client.next(HEARTBEAT)
            if client.is_over():
                break
            if not there:
                # an id without data moves Last-Event-ID and raises no event
                await self._send(send, b"id: %d.%d\n: alive\n\n" % told)
            elif news is None:
                for frame in self._frames.snapshot(reset=True):
                    await self._send(send, frame)
                told = (live.epoch, live.commit_no)
            else:
                frame = await self._frames.change(news)
                told = (news.epoch, news.commit_no)
                if frame:
                    await self._send(send, frame)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, frame: bytes) -> None:
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        self._sent = self._streams.api.monotonic()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def routes(api: Api, streams: Streams) -> APIRouter:
    """The route of the stream."""
    router = APIRouter(prefix=ROOT)

    @router.get("/stream", name="stream", tags=["Readings"])
    async def stream(request: Request, query: Annotated[StreamQuery, Query()]) -> Response:
        """Live readings as server-sent events: `snapshot`, then `change` for each commit; `reset` when something was missed."""
        filter = Filter(api, query, language_of(request, query))
        given = request.headers.get("last-event-id") or query.last_event_id
        resume = None
        if given:
            match = _ID.fullmatch(given.strip())
            if match is None:
                raise invalid(
                    "Last-Event-ID",
                    given,
                    Bilingual("the id of an event of this stream, such as 1.4711", "本流中事件的 id，如 1.4711"),
                )
            resume = (int(match[1]), int(match[2]))
        address = request.client.host if request.client else ""
        streams.admit(address)
        return StreamResponse(streams, filter, address, resume)

    return router
