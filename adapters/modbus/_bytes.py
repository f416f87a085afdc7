"""Bytes to and from a TCP connection or a serial port, for one who asks and waits."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from adapters.modbus._errors import open_failed
from adapters.modbus._serial import SerialPlace, close_port, open_port
from adapters.modbus._settings import ModbusLinkSettings

_CONNECT = 3.0


class _Way(Protocol):
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class ByteChannel:
    """What arrives is in `buffer`; `lost` says why nothing will arrive any more."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.lost: str | None = None
        self._news = asyncio.Event()
        self._way: _Way | None = None

    def carry(self, way: _Way) -> None:
        """From now on bytes go that way."""
        self._way = way

    def write(self, data: bytes) -> None:
        """Sends, without waiting."""
        if self._way is not None:
            self._way.write(data)

    def take(self) -> bytes:
        """What has arrived, and empties the buffer."""
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    async def wait(self, seconds: float) -> bool:
        """Waits for more bytes; False when none came in time, or the channel is lost."""
        if self.lost is not None or seconds <= 0:
            return False
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return self.lost is None

    def arrived(self, data: bytes) -> None:
        """Of the way: bytes."""
        self.buffer += data
        self._news.set()

    def ended(self, why: str) -> None:
        """Of the way: it is at its end."""
        self.lost = why
        self._news.set()

    def close(self) -> None:
        """May be called twice."""
        way, self._way = self._way, None
        if way is not None:
            way.close()
        self.ended("closed")


class _Tcp(asyncio.Protocol):
    def __init__(self, channel: ByteChannel) -> None:
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        self._channel.arrived(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.ended(str(exc) if exc is not None else "the other end closed the connection")


class _Port:
    def __init__(self, descriptor: int, channel: ByteChannel) -> None:
        self._descriptor = descriptor
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, 512)
        except BlockingIOError:
            return
        except OSError as error:  # the adapter was unplugged
            self._loop.remove_reader(self._descriptor)
            self._channel.ended(error.strerror or str(error))
            return
        if data:
            self._channel.arrived(data)

    def write(self, data: bytes) -> None:
        try:
            os.write(self._descriptor, data)  # twelve bytes at most: the driver's buffer takes them
        except OSError as error:
            self._channel.ended(error.strerror or str(error))

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        close_port(self._descriptor)


class _Stream:
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()


async def open_tcp(host: str, port: int) -> ByteChannel:
    """A TCP connection. Raises TransientError."""
    channel = ByteChannel()
    loop = asyncio.get_running_loop()
    settings = ModbusLinkSettings(host=host, port=port, timeout=_CONNECT)
    try:
        async with asyncio.timeout(_CONNECT):
            transport, _ = await loop.create_connection(lambda: _Tcp(channel), host, port)
    except OSError as error:  # a time-out too
        raise open_failed(settings, error) from error
    channel.carry(_Stream(transport))
    return channel


def open_serial(place: SerialPlace) -> ByteChannel:
    """A serial port. Raises TransientError."""
    channel = ByteChannel()
    channel.carry(_Port(open_port(place), channel))
    return channel


__all__ = ["ByteChannel", "open_serial", "open_tcp"]
