"""One unit at the other end of any wire that a Modbus link may have: what it answers is said by a test, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from adapters.modbus import ModbusLinkSettings
from simulators.modbus.framing import MBAP, rtu_frame, tcp_frame

HOST: Final = "127.0.0.1"
WIRES: Final = ("rtu on a port", "ascii on a port", "rtu over tcp", "ascii over tcp", "tcp", "udp")


def ascii_frame(unit: int, pdu: bytes) -> bytes:
    """A frame as the standard draws it (Serial Line V1.02 §2.5.2.1)."""
    body = bytes((unit,)) + pdu
    return b":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper().encode() + b"\r\n"


@dataclass
class Asked:
    """A request. `send` writes bytes as they are, now or `after` seconds."""

    unit: int
    pdu: bytes
    transaction: int
    wire: str
    write: Callable[[bytes], None]

    @property
    def address(self) -> int:
        """Where it begins."""
        return int.from_bytes(self.pdu[1:3], "big")

    def frame(self, pdu: bytes, *, unit: int | None = None, transaction: int | None = None) -> bytes:
        """The PDU in the framing of this wire; `unit` and `transaction` lie about whose it is."""
        number = self.unit if unit is None else unit
        if self.wire.startswith("rtu"):
            return rtu_frame(number, pdu)
        if self.wire.startswith("ascii"):
            return ascii_frame(number, pdu)
        return tcp_frame(self.transaction if transaction is None else transaction, number, pdu)

    @property
    def right(self) -> bytes:
        """The PDU of the right answer: each register holds unit * 1000 + address."""
        count = int.from_bytes(self.pdu[3:5], "big")
        return registers(self.unit, self.address, count)

    def send(self, data: bytes, after: float = 0.0) -> None:
        """Bytes on the wire."""
        if after:
            asyncio.get_running_loop().call_later(after, self.write, data)
        else:
            self.write(data)


def registers(unit: int, address: int, count: int) -> bytes:
    """The PDU of an answer to function 3."""
    content = b"".join((unit * 1000 + address + n).to_bytes(2, "big") for n in range(count))
    return bytes((3, len(content))) + content


@dataclass
class Peer:
    """Answers rightly, unless `hook` says that it has dealt with a request."""

    wire: str
    settings: ModbusLinkSettings
    hook: Callable[[Asked], bool] | None = None
    asked: list[Asked] = field(default_factory=list)
    _buffer: bytes = b""

    def feed(self, data: bytes, write: Callable[[bytes], None]) -> None:
        """Bytes of the gateway."""
        self._buffer += data
        while (asked := self._next(write)) is not None:
            self.asked.append(asked)
            if self.hook is None or not self.hook(asked):
                asked.send(asked.frame(asked.right))

    def _next(self, write: Callable[[bytes], None]) -> Asked | None:
        data = self._buffer
        if self.wire.startswith("ascii"):
            end = data.find(b"\r\n")
            if end < 0:
                return None
            self._buffer = data[end + 2 :]
            body = bytes.fromhex(data[1:end].decode())
            return Asked(body[0], body[1:-1], 0, self.wire, write)
        size = 8 if self.wire.startswith("rtu") else MBAP.size + 5
        if len(data) < size:
            return None
        self._buffer = data[size:]
        if self.wire.startswith("rtu"):
            return Asked(data[0], data[1:6], 0, self.wire, write)
        transaction, _, _, unit = MBAP.unpack_from(data)
        return Asked(unit, data[MBAP.size : size], transaction, self.wire, write)


@contextlib.asynccontextmanager
async def peer(wire: str, **settings: Any) -> AsyncIterator[Peer]:
    """A peer on a wire of this kind, and the settings of a link to it."""
    opened = {"port": _on_a_port, "tcp": _over_tcp, "udp": _by_datagrams}[wire.split()[-1]]
    async with opened(wire, settings) as made:
        yield made


@contextlib.asynccontextmanager
async def _on_a_port(wire: str, settings: dict[str, Any]) -> AsyncIterator[Peer]:
    near, far = pty.openpty()
    tty.setraw(far)
    os.set_blocking(near, False)
    given = {"serial": os.ttyname(far), "baud": 115200, "framing": wire.split()[0], **settings}
    made = Peer(wire, ModbusLinkSettings.model_validate(given))
    loop = asyncio.get_running_loop()
    open_here = True

    def write(data: bytes) -> None:
        if open_here:
            os.write(near, data)

    def readable() -> None:
        with contextlib.suppress(OSError):  # nobody has the other end open
            made.feed(os.read(near, 512), write)

    loop.add_reader(near, readable)
    try:
        yield made
    finally:
        open_here = False
        loop.remove_reader(near)
        os.close(near)
        os.close(far)


@contextlib.asynccontextmanager
async def _over_tcp(wire: str, settings: dict[str, Any]) -> AsyncIterator[Peer]:
    transport = {"rtu": "rtu-over-tcp", "ascii": "ascii-over-tcp", "tcp": "tcp"}[wire.split()[0]]
    made: list[Peer] = []
    open_here: set[asyncio.Transport] = set()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            open_here.add(transport)

        def data_received(self, data: bytes) -> None:
            made[0].feed(data, lambda answer: None if self.transport.is_closing() else self.transport.write(answer))

        def connection_lost(self, exc: Exception | None) -> None:
            open_here.discard(self.transport)
            made[0]._buffer = b""

    server = await asyncio.get_running_loop().create_server(Connection, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    made.append(
        Peer(wire, ModbusLinkSettings.model_validate({"host": HOST, "port": port, "transport": transport, **settings}))
    )
    try:
        yield made[0]
    finally:
        server.close()
        for one in list(open_here):
            one.abort()


@contextlib.asynccontextmanager
async def _by_datagrams(wire: str, settings: dict[str, Any]) -> AsyncIterator[Peer]:
    made: list[Peer] = []

    class Socket(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            made[0].feed(
                data, lambda answer: None if self.transport.is_closing() else self.transport.sendto(answer, addr)
            )

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Socket, (HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    made.append(
        Peer(wire, ModbusLinkSettings.model_validate({"host": HOST, "port": port, "transport": "udp", **settings}))
    )
    try:
        yield made[0]
    finally:
        transport.close()
