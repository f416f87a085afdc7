"""The serial port of a link: open for as long as the link is, whoever speaks over it.

A TCP connection is closed after a lost answer, so that the answer, when it comes after all, finds nobody. Closing a serial port keeps no
byte away. So it stays open, and what arrives while nothing is asked is kept apart here: noise, a late answer, or another master.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from pymodbus.framer.rtu import FramerRTU

from adapters.modbus._serial import SerialPlace, close_port, open_port
from schemas.bilingual import Bilingual

_KEPT: Final = 1024
"""Bytes nobody asked for that are kept; a line full of another master's talk must not fill the memory."""
_REQUEST: Final = 8
"""Bytes of a request of functions 3, 4 and 6 (V1.1b3 §6.3, §6.4, §6.6), with unit and checksum."""


class _Receives(Protocol):
    """As much of `asyncio.Protocol` as is needed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def data_received(self, data: bytes) -> None: ...


class SerialPort:
    """Bytes to and from one port. `attach` gives a transport to whoever asks; its `close` leaves the port open. Raises TransientError."""

    def __init__(self, place: SerialPlace, monotonic: Callable[[], float]) -> None:
        self.place = place
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._descriptor = open_port(place)
        self._owner: _Attached | None = None
        self._echo = b""
        """What was sent last, of a two-wire adapter that hears itself; empty as soon as something else is heard."""
        self._held = b""
        self._news = asyncio.Event()
        self.unasked = bytearray()
        """What came while nothing was asked."""
        self.asking = False
        """Whether bytes that arrive are an answer's."""
        self.free_at = 0.0
        """Monotonic seconds from which a frame may begin: 3.5 characters after the last byte of the one before."""
        self.lost: OSError | None = None
        self._loop.add_reader(self._descriptor, self._readable)

    def attach(self, protocol: _Receives) -> asyncio.Transport:
        """From now on the answers go to `protocol`."""
        if self.lost is not None:
            raise self.lost
        self._owner = _Attached(self, protocol)
        protocol.connection_made(self._owner)
        return self._owner

    def detach(self, one: asyncio.Transport) -> None:
        """Its owner wants to hear no more."""
        if self._owner is one:
            self._owner = None

    def write(self, data: bytes) -> None:
        """Sends one frame."""
        self._echo, self._held = data, b""
        try:
            os.write(self._descriptor, data)  # a request's twelve bytes at most: the driver's buffer takes them
        except OSError as error:
            self._end(error)
            return
        self.free_at = self._monotonic() + len(data) * self.place.character + self.place.silence

    def close(self) -> None:
        """May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            close_port(descriptor)

    async def listen(self, seconds: float) -> bytes:
        """Says nothing for so long, or until four bytes have come: fewer are noise. Returns what has been heard."""
        end = self._loop.time() + seconds
        try:
            async with asyncio.timeout_at(end):
                while len(self.unasked) < 4 and self.lost is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return self.take() if len(self.unasked) >= 4 else b""

    def take(self) -> bytes:
        """What came while nothing was asked, and forgets it."""
        data = bytes(self.unasked)
        self.unasked.clear()
        return data

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, 512)
        except BlockingIOError:
            return
        except OSError as error:  # the adapter was unplugged
            self._end(error)
            return
        if not data:
            self._end(OSError("the port is gone"))
            return
        self.free_at = self._monotonic() + self.place.silence
        if not self.asking or self._owner is None:
            self.unasked += data
            del self.unasked[:-_KEPT]
            self._news.set()
            return
        data = self._without_echo(data)
        if data:
            self._owner.protocol.data_received(data)

    def _without_echo(self, data: bytes) -> bytes:
        if not self._echo:
            return data
        data = self._held + data
        if self._echo.startswith(data):
            self._held = b"" if len(data) == len(self._echo) else data
            if not self._held:
                self._echo = b""
            return b""
        echo, self._echo, self._held = self._echo, b"", b""
        return data.removeprefix(echo)

    def _end(self, error: OSError) -> None:
        self.lost = error
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        self._news.set()
        owner, self._owner = self._owner, None
        if owner is not None:
            why = error.strerror or str(error)
            told = ConnectionResetError(Bilingual(f"the serial port is gone: {why}", f"串口已断开：{why}"))
            self._loop.call_soon(owner.protocol.connection_lost, told)


class _Attached(asyncio.Transport):
    def __init__(self, port: SerialPort, protocol: _Receives) -> None:
        super().__init__()
        self._port = port
        self.protocol = protocol
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._port.write(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._port.detach(self)

    def abort(self) -> None:
        self.close()


def of_unit(data: bytes, unit: int | None) -> bool:
    """Whether this is one whole frame of that unit, such as an answer that came too late."""
    return len(data) >= 4 and data[0] == unit and _intact(data)


def foreign_request(data: bytes) -> bool:
    """Whether somewhere in these bytes stands a whole read request of functions 3 and 4, or a write of one register: we have sent none that nobody waits for.

    An answer to functions 3 and 4 has an odd number of bytes; what is eight long and has a right checksum came from a master (or confirms what a master wrote).
    """
    return any(
        1 <= data[at] <= 247 and data[at + 1] in (3, 4, 6) and _intact(data[at : at + _REQUEST])
        for at in range(len(data) - _REQUEST + 1)
    )


def _intact(frame: bytes) -> bool:
    return FramerRTU.compute_CRC(frame[:-2]) == int.from_bytes(frame[-2:], "big")


__all__ = ["SerialPort", "foreign_request", "of_unit"]
