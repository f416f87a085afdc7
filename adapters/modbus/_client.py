"""pymodbus's client as a link needs it: one connection that is never opened again by itself, with the framing of the link.

It may be attached to a wire that is open already, sends datagrams as well, and goes on with the transaction numbers of the
connection before it: an answer that comes late on a wire that stayed open then belongs to no request of this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.pdu import ModbusPDU

from adapters.modbus._codec import AsciiFramer, RawDecoder, Request
from adapters.modbus._settings import Frames, ModbusLinkSettings
from adapters.modbus._wire import Wire

_BUFFER: Final = 4096
"""Bytes of unread answers that are kept; pymodbus's own 264 would drop a good answer behind a late one."""
_NEVER: Final = 1_000_000_000
_FRAMERS: Final[dict[Frames, FramerType]] = {
    "mbap": FramerType.SOCKET, "rtu": FramerType.RTU, "ascii": FramerType.ASCII,
}  # fmt: skip


class Client:
    """Made where a loop runs. Opens nothing before `connect`.

    `on_error` hears why it could not be opened, `on_refused` that a datagram found nobody, `on_closed` that the other end is gone
    (with the error, None after a close in good order).
    """

    def __init__(
        self,
        settings: ModbusLinkSettings,
        decoder: RawDecoder,
        wire: Wire | None,
        *,
        trace: Callable[[bool, bytes], bytes],
        transaction: int,
        on_error: Callable[[OSError], None],
        on_refused: Callable[[Client, OSError], None],
        on_closed: Callable[[Client, Exception | None], None],
    ) -> None:
        kind = AsyncModbusUdpClient if settings.datagrams else AsyncModbusTcpClient
        self._client = kind(
            next(iter(settings.hosts), ""),
            port=settings.port,
            framer=_FRAMERS[settings.frames],
            timeout=settings.timeout,
            retries=0,
            reconnect_delay=0,
            trace_packet=trace,
        )
        self.execute: Callable[[Request], Coroutine[Any, Any, ModbusPDU]] = partial(self._client.execute, False)
        """Sends a request and waits for what looks like its answer. Raises ModbusException."""
        self._transaction = transaction
        self._on_closed = on_closed
        self._context = context = self._client.ctx
        if settings.frames == "ascii":
            context.framer = AsciiFramer(decoder)
        context.framer.decoder = decoder
        context.max_buffer_size = _BUFFER
        # a connection is closed after each time-out, but by us and not there; one of datagrams stays
        context.max_until_disconnect = _NEVER
        create = context.call_create
        if wire is not None:

            async def attach() -> object:
                return wire.attach(context), context

            create = attach

        async def remembering() -> object:
            try:
                return await create()
            except OSError as error:
                on_error(error)
                raise

        context.call_create = remembering
        context.callback_disconnected = self._closed  # type: ignore[method-assign]
        if settings.datagrams:
            self._one_frame_each(on_refused)

    def _one_frame_each(self, on_refused: Callable[[Client, OSError], None]) -> None:
        """A datagram is a frame (Messaging on TCP/IP has none of them; all stacks send an MBAP frame): what is left of one is no begin of
        the next."""
        context = self._context
        received = context.datagram_received

        def alone(data: bytes, addr: tuple[Any, ...] | None) -> None:
            context.recv_buffer = b""
            received(data, addr)
            context.recv_buffer = b""

        def refused(exc: Exception) -> None:
            if isinstance(exc, OSError):
                on_refused(self, exc)

        context.datagram_received = alone  # type: ignore[method-assign]
        context.error_received = refused  # type: ignore[method-assign]

    def _closed(self, exc: Exception | None) -> None:
        self._on_closed(self, exc)

    async def connect(self) -> bool:
        """Whether it is open now; if not, and there was an error, it was told."""
        connected = bool(await self._client.connect())
        self._context.next_tid = self._transaction
        return connected

    def answer_within(self, seconds: float) -> None:
        """How long the answer to the next request may take."""
        self._context.comm_params.timeout_connect = seconds

    def give_up(self) -> None:
        """The request under way is not waited for any longer: a time-out."""
        self.fail(TimeoutError())

    def fail(self, error: Exception) -> None:
        """Ends the request under way, if its answer is not there."""
        if not self._context.response_future.done():
            self._context.response_future.set_exception(error)

    @property
    def transaction(self) -> int:
        """The transaction number used last."""
        return int(self._context.next_tid)

    def close(self) -> None:
        """May be called twice."""
        self._client.close()

    def abort(self, connecting: asyncio.Future[bool]) -> None:
        """Closes what a cancelled connect may have opened in its last moment; pymodbus closes only once."""
        if not connecting.cancelled():
            connecting.exception()  # told already, or of no interest any more
        transport: Any = self._context.transport  # a stream's or one of datagrams: both have `abort`
        if transport is not None:
            transport.abort()
