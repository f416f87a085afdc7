"""A Modbus server for simulated devices: exact answers, faults on demand, and a truth record before each answer.

Two framings: MBAP for Modbus TCP, and RTU frames in a TCP stream, as a serial server passes them on. The second
behaves like the line it stands for: one request at a time whoever sent it, and, when a baud rate is given, the time
that the bytes take on the wire.

In the truth log, an answer that left late carries ``late``, its delay in microseconds: a client that had given up must
not take it for another's. A cut-off answer is no ``answer`` but a record ``short`` with the bytes that left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from simulators.modbus.framing import (
    MBAP,
    RTU_BITS_PER_BYTE,
    rtu_frame,
    rtu_intact,
    rtu_request_length,
    tcp_frame,
)
from simulators.modbus.unit import GATEWAY_TARGET_FAILED, Reply, Unit
from simulators.truth import TruthLog

__all__ = ["Framing", "LinkFaults", "ModbusServer", "UnitFault"]

Framing: TypeAlias = Literal["tcp", "rtu"]

_SILENCE = 0.1
"""Seconds without a byte that end an RTU frame here. The standard's 3.5 characters (4 ms at 9600 baud) do not survive
TCP, which may cut a frame anywhere."""


@dataclass(slots=True)
class UnitFault:
    """A fault that one unit, or with ``unit`` None each of them, shows while it holds."""

    unit: int | None = None
    code: int = 0
    """Of ``exception``: the exception code."""
    address: int | None = None
    """Of ``exception``: only for reads that touch this wire address."""
    delay: float = 0.0
    """Of ``late``: seconds."""
    cut: int | None = None
    """Of ``short``: how many bytes are lacking at the end; None for half of the frame."""

    def concerns(self, unit: int, reply: Reply | None = None) -> bool:
        """Whether the fault holds for *unit* and, when it has an address, for the request that *reply* answers."""
        if self.unit is not None and self.unit != unit:
            return False
        if self.address is None or reply is None:
            return True
        return reply.address <= self.address < reply.address + max(reply.count, 1)


@dataclass(slots=True)
class LinkFaults:
    """What the server does wrong at present; nothing by default."""

    half_open: bool = False
    slow: float = 0.0
    """Seconds that each answer takes longer, the line being busy meanwhile."""
    silent: UnitFault | None = None
    exception: UnitFault | None = None
    short: UnitFault | None = None
    late: UnitFault | None = None
    """The answer leaves after its delay while the line is free: it meets whoever asks next."""


@dataclass(slots=True)
class _Request:
    """One request as it came in, and how its answer is framed."""

    unit: int
    pdu: bytes
    size: int
    transaction: int | None = None
    addressed: int = 0
    """Over MBAP, the unit as the client wrote it, which the answer repeats."""

    def frame(self, pdu: bytes) -> bytes:
        if self.transaction is None:
            return rtu_frame(self.unit, pdu)
        return tcp_frame(self.transaction, self.addressed, pdu)


@dataclass(slots=True)
class ModbusServer:
    """Serves *units* on one port.

    A unit that is not among *units* does not answer on an RTU line; over MBAP it is answered by exception 0x0B, as by
    a TCP gateway whose target does not respond. Units in *dead* never answer. Broadcasts (unit 0) are never answered
    on a line; over MBAP, unit 0 and 255 mean the one unit when there is but one.
    """

    framing: Framing
    units: Mapping[int, Unit]
    truth: TruthLog
    dead: frozenset[int] = frozenset()
    baud: int | None = None
    """Nominal baud rate of the line; None lets bytes cost no time."""
    faults: LinkFaults = field(default_factory=LinkFaults)
    _server: asyncio.Server | None = None
    _closed: bool = True
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self, host: str, port: int) -> int:
        """Listen on *host* and *port* (0: a free one); returns the bound port.

        Raises:
            OSError: the port cannot be bound.
        """
        self._closed = False
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Free the port and cut all connections; answers under way are dropped. May be called twice."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._closed = True
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    # --------------------------------------------------------------------------------------------------- connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted in the moment of closing
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        requests = self._tcp_requests(reader) if self.framing == "tcp" else self._rtu_requests(reader)
        try:
            async with aclosing(requests):
                async for request in requests:
                    async with self._line:
                        await self._handle(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        except asyncio.CancelledError:
            pass  # close() cancels; a cancelled handler would be reported as an error by Python 3.11's streams
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _tcp_requests(self, reader: asyncio.StreamReader) -> AsyncGenerator[_Request, None]:
        while True:
            header = await reader.readexactly(MBAP.size)
            transaction, protocol, length, unit = MBAP.unpack(header)
            if protocol != 0 or not 2 <= length <= 254:
                return  # not Modbus, and nothing tells where the next frame begins: hang up
            pdu = await reader.readexactly(length - 1)
            if unit in (0, 255) and len(self.units) == 1:
                (own,) = self.units
            else:
                own = unit
            yield _Request(own, pdu, MBAP.size + len(pdu), transaction, unit)

    async def _rtu_requests(self, reader: asyncio.StreamReader) -> AsyncGenerator[_Request, None]:
        buffer = b""
        noise = False
        while True:
            data: bytes | None
            try:
                async with asyncio.timeout(_SILENCE if buffer or noise else None):
                    data = await reader.read(512)
            except TimeoutError:
                data = None
            if data == b"":
                return
            if data is None:  # silence: what is there is a whole frame or rubbish
                if not noise and rtu_intact(buffer):
                    yield _Request(buffer[0], buffer[1:-2], len(buffer))
                buffer, noise = b"", False
                continue
            if noise:
                continue
            buffer += data
            while length := rtu_request_length(buffer):
                if len(buffer) < length:
                    break
                frame, buffer = buffer[:length], buffer[length:]
                if not rtu_intact(frame):
                    buffer, noise = b"", True  # a slave is deaf until the line has been silent
                    break
                yield _Request(frame[0], frame[1:-2], length)

    # ------------------------------------------------------------------------------------------------------- answers

    def _reply(self, request: _Request) -> Reply | None:
        """What the addressed unit says, faults included; None when nobody answers."""
        faults = self.faults
        if faults.half_open or request.unit in self.dead:
            return None
        if faults.silent is not None and faults.silent.concerns(request.unit):
            return None
        unit = self.units.get(request.unit)
        if unit is None:
            if self.framing == "rtu":
                return None
            return Reply(request.pdu[0], 0, 0, code=GATEWAY_TARGET_FAILED)
        reply = unit.answer(request.pdu)
        if faults.exception is not None and faults.exception.concerns(request.unit, reply):
            return Reply(reply.function, reply.address, reply.count, code=faults.exception.code)
        return reply

    async def _handle(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        await self._on_the_wire(request.size)
        if self.faults.slow:
            await asyncio.sleep(self.faults.slow)
        if self.faults.late is not None and self.faults.late.concerns(request.unit):
            task = asyncio.ensure_future(self._answer_late(request, writer, self.faults.late.delay))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        await self._answer(request, writer, {})

    async def _answer_late(self, request: _Request, writer: asyncio.StreamWriter, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await self._answer(request, writer, {"late": round(delay * 1_000_000)})
        except ConnectionError:
            pass  # the client did not wait

    async def _answer(self, request: _Request, writer: asyncio.StreamWriter, remarks: dict[str, Any]) -> None:
        """Record, then send. What cannot leave any more, since the connection is gone, is not recorded either."""
        reply = self._reply(request)
        if reply is None:
            return
        frame = request.frame(reply.pdu())
        await self._on_the_wire(len(frame))
        if writer.transport.is_closing():
            return
        short = self.faults.short
        if short is not None and short.concerns(request.unit):
            frame = frame[: max(1, len(frame) - (short.cut if short.cut is not None else len(frame) // 2))]
            self.truth.write("short", unit=request.unit, function=reply.function, address=reply.address,
                             count=reply.count, frame=frame)  # fmt: skip
        elif reply.code is not None:
            self.truth.write("exception", unit=request.unit, function=reply.function, address=reply.address,
                             count=reply.count, code=reply.code, **remarks)  # fmt: skip
        else:
            data = {"bits" if reply.function in (1, 2) else "registers": reply.values}
            self.truth.write("answer", unit=request.unit, function=reply.function, address=reply.address,
                             count=reply.count, **data, **remarks)  # fmt: skip
        writer.write(frame)
        await writer.drain()

    async def _on_the_wire(self, size: int) -> None:
        if self.baud and self.framing == "rtu":
            await asyncio.sleep(size * RTU_BITS_PER_BYTE / self.baud)
