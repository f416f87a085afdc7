"""A TCP proxy on loopback that breaks links the way networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from tests.servers.processes import HOST, free_port

T = TypeVar("T")
_CHUNK = 65_536
_QUEUED_CHUNKS = 64
_PIECES = 20
"""Pieces a second in which a slow line delivers."""


@dataclass(eq=False)
class _Link:
    """One accepted connection and, once it is made, the one to the target."""

    client: asyncio.StreamWriter
    target: asyncio.StreamWriter | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class FaultProxy:
    """Forwards `port` to a target on loopback, until it is told to misbehave.

    It has an event loop in a thread of its own, so it serves synchronous tests, asynchronous ones and other processes alike.
    Every method may be called from any thread, takes effect before it returns, and holds until `restore`, except `cut`,
    which happens once. Use it as a context manager, or call `start` and `close`.
    """

    def __init__(self, target_port: int, target_host: str = HOST) -> None:
        self.host, self.port = HOST, free_port()
        self.target = (target_host, target_port)
        self.connections = 0
        """Connections accepted so far."""
        self.bytes_up = 0
        """Bytes delivered to the target so far."""
        self.bytes_down = 0
        """Bytes delivered to clients so far."""
        self.forgets = False
        """Whether what a client had sent and was not delivered yet is dropped when it ends its connection, instead of being delivered later to a
        target whose answer nobody hears."""
        self._delay = 0.0
        self._rate = 0.0
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flowing: asyncio.Event
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def active(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def start(self) -> None:
        """Listen. Does nothing while it runs."""
        if self._thread is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"fault proxy {self.port}", daemon=True)
        self._thread.start()
        self._call(self._start())

    def close(self) -> None:
        """Cut everything and stop listening."""
        if self._thread is None or self._loop is None:
            return
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = self._loop = None

    def cut(self) -> None:
        """Reset (RST) all connections on both sides, once. New ones are accepted as before."""
        self._call(self._cut())

    def half_open(self) -> None:
        """Forward nothing more, in no direction, and keep every connection open, new ones too: a pulled cable. What a side
        sends meanwhile waits, as TCP's retransmission would make it, and an end of connection is not passed on either."""
        self._call(self._half_open())

    def delay(self, seconds: float) -> None:
        """Deliver everything that comes from now on this much later, in each direction; 0 for none. Order is kept."""
        self._call(self._set_delay(seconds))

    def rate(self, bytes_a_second: float) -> None:
        """Deliver no more than so many bytes a second, in each direction and on each connection: a slow line; 0 for no limit."""
        self._call(self._set_rate(bytes_a_second))

    def refuse(self) -> None:
        """Refuse new connections (nothing listens). Those that are open stay; `cut` ends them."""
        self._call(self._refuse())

    def restore(self) -> None:
        """Forward again without delay and limit, listen again. What waited during `half_open` is delivered now."""
        self._call(self._restore())

    def _call(self, action: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            action.close()
            raise RuntimeError("the proxy is not started")
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(10)

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=_CHUNK)

    async def _refuse(self) -> None:
        # not wait_closed(): since Python 3.12 it waits for the open connections too
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _restore(self) -> None:
        self._delay = self._rate = 0.0
        self._flowing.set()
        await self._listen()

    async def _half_open(self) -> None:
        self._flowing.clear()

    async def _set_delay(self, seconds: float) -> None:
        self._delay = seconds

    async def _set_rate(self, bytes_a_second: float) -> None:
        self._rate = bytes_a_second

    async def _close(self) -> None:
        await self._refuse()
        await self._cut()

    async def _cut(self) -> None:
        links, tasks = list(self._links), []
        for link in links:
            for writer in (link.client, link.target):
                if writer is not None:
                    _reset(writer)
            tasks += link.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._links.difference_update(links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(writer)
        this = asyncio.current_task()
        assert this is not None
        link.tasks.append(this)
        self._links.add(link)
        try:
            await self._flowing.wait()
            target_reader, link.target = await asyncio.open_connection(*self.target, limit=_CHUNK)
            up = asyncio.create_task(self._forward(reader, link.target, upward=True))
            down = asyncio.create_task(self._forward(target_reader, writer, upward=False))
            link.tasks += [up, down]
            await asyncio.gather(up, down)
        except OSError:
            # one side is gone or the target refuses: the other side must see its connection end too
            for task in link.tasks[1:]:
                task.cancel()
            await asyncio.gather(*link.tasks[1:], return_exceptions=True)
            _reset(writer)
        except asyncio.CancelledError:
            # cut() ends us; a cancelled handler would be logged as an error by asyncio.streams
            pass
        finally:
            self._links.discard(link)
            for end in (writer, link.target):
                if end is not None:
                    end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        """Copy until the end of the stream, then end the other side's stream."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED_CHUNKS)
        clock = asyncio.get_running_loop().time

        async def deliver() -> None:
            while True:
                due, chunk = await waiting.get()
                await asyncio.sleep(max(0.0, due - clock()))
                await self._flowing.wait()
                if not chunk:
                    with contextlib.suppress(OSError):  # the other side is gone already: nothing to end
                        writer.write_eof()
                    return
                while chunk:
                    # a slow line passes on in pieces, so that the end of its slowness is seen at once
                    piece = chunk[: max(1, int(self._rate / _PIECES))] if self._rate else chunk
                    chunk = chunk[len(piece) :]
                    if self._rate:
                        await asyncio.sleep(len(piece) / self._rate)
                        await self._flowing.wait()
                    writer.write(piece)
                    await writer.drain()
                    if upward:
                        self.bytes_up += len(piece)
                    else:
                        self.bytes_down += len(piece)

        delivery = asyncio.create_task(deliver())
        try:
            while True:
                chunk = await reader.read(_CHUNK)
                if upward and not chunk and self.forgets:
                    raise ConnectionResetError("the client has left")
                await waiting.put((clock() + self._delay, chunk))
                if not chunk or delivery.done():
                    break
            await delivery
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close by RST: linger for zero seconds (socket(7), SO_LINGER), then abort."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
