"""A Modbus TCP device whose every answer is another one: each signal is a number that rises by one when it is read.

So what was handed out, what is missing and what is there twice needs no comparing of values: it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from types import TracebackType
from typing import Self

from simulators.truth import now_us
from tests.servers.processes import HOST, free_port

REGISTERS = 2
"""Of one signal: a uint32, the more significant word first (ABCD). Signal k begins at holding register 2k."""


class NumberedDevice:
    """One device with `signals` numbers. Serves in a thread of its own between entering and leaving."""

    def __init__(self, signals: int) -> None:
        self.signals, self.port = signals, free_port()
        self.served: list[list[int]] = [[] for _ in range(signals)]
        """For each signal when (µs, UTC) its numbers 1, 2, … were handed out; written before the answer leaves."""
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="numbered device", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, self.port), self._loop
        ).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readexactly(7)  # MBAP: transaction, protocol, length, unit
                    pdu = await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
                    answer = self.answer(pdu)
                    writer.write(head[:4] + struct.pack(">HB", len(answer) + 1, head[6]) + answer)
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()

    def answer(self, pdu: bytes) -> bytes:
        """The answer to one request (Modbus Application Protocol 1.1b3 §6.3): function 3 within the registers, else an exception."""
        if pdu[0] != 3 or len(pdu) != 5:
            return bytes((pdu[0] | 0x80, 1))
        address, count = struct.unpack(">HH", pdu[1:])
        if not 1 <= count <= 125 or address + count > self.signals * REGISTERS:
            return bytes((0x83, 2))
        now = now_us()
        first, last = address // REGISTERS, (address + count - 1) // REGISTERS
        for signal in range(first, last + 1):
            if address <= signal * REGISTERS and signal * REGISTERS + REGISTERS <= address + count:
                self.served[signal].append(now)
        words = b"".join(struct.pack(">I", len(self.served[signal])) for signal in range(first, last + 1))
        skipped = (address - first * REGISTERS) * 2
        return bytes((3, count * 2)) + words[skipped : skipped + count * 2]
