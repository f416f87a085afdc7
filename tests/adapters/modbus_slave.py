"""A pair of pseudo-terminals as a serial line: the gateway opens `path`, the units sit at the other end."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.adapters.modbus_server import rtu_frame

Hook = Callable[[bytes, bytes], bytes | None]


@dataclass
class Slaves:
    """Units with holding registers. Requests are told apart by their eight bytes.

    `hook(request, answer)` gives the bytes to send instead of the right answer (empty: none); None leaves the answer as it is.
    """

    units: dict[int, dict[int, int]] = field(default_factory=dict)
    identity: dict[int, bytes] = field(default_factory=dict)
    """The PDU with which a unit says who it is (43/14); the others give exception 1. Not among `asks`, and not for `hook`."""
    hook: Hook | None = None
    echo: bool = False
    asks: list[tuple[float, bytes]] = field(default_factory=list)
    """Monotonic seconds, request."""
    path: str = ""
    _near: int = -1
    _far: int = -1
    _buffer: bytes = b""

    async def __aenter__(self) -> Self:
        self._near, self._far = pty.openpty()
        tty.setraw(self._far)
        self.path = os.ttyname(self._far)
        os.set_blocking(self._near, False)
        asyncio.get_running_loop().add_reader(self._near, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.unplug()

    def unplug(self) -> None:
        """The adapter is pulled out. May be called twice."""
        if self._near >= 0:
            asyncio.get_running_loop().remove_reader(self._near)
            os.close(self._near)
            os.close(self._far)
            self._near = -1

    def say(self, data: bytes) -> None:
        """Bytes on the line."""
        if self._near >= 0:
            os.write(self._near, data)

    def later(self, seconds: float, data: bytes) -> None:
        """Bytes on the line after a while."""
        asyncio.get_running_loop().call_later(seconds, self.say, data)

    def _read(self) -> None:
        try:
            self._buffer += os.read(self._near, 512)
        except OSError:  # nobody has the other end open
            return
        while len(self._buffer) >= 7:
            if self._buffer[1] == 0x2B:  # who are you?
                request, self._buffer = self._buffer[:7], self._buffer[7:]
                if self.echo:
                    self.say(request)
                if request[0] in self.units:
                    self.say(rtu_frame(request[0], self.identity.get(request[0], b"\xab\x01")))
                continue
            if len(self._buffer) < 8:
                return
            request, self._buffer = self._buffer[:8], self._buffer[8:]
            self.asks.append((asyncio.get_running_loop().time(), request))
            if self.echo:
                self.say(request)
            answer = self._answer(request)
            if self.hook is not None:
                other = self.hook(request, answer)
                answer = answer if other is None else other
            if answer:
                self.say(answer)

    def _answer(self, request: bytes) -> bytes:
        unit, function = request[0], request[1]
        memory = self.units.get(unit)
        if memory is None:
            return b""
        start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        if any(address not in memory for address in range(start, start + count)):
            return rtu_frame(unit, bytes((function | 0x80, 2)))
        words = b"".join(memory[address].to_bytes(2, "big") for address in range(start, start + count))
        return rtu_frame(unit, bytes((function, 2 * count)) + words)
