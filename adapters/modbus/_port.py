"""The serial port of a link: open for as long as the link is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from adapters.modbus._codec import Request
from adapters.modbus._serial import SerialPlace, close_port, open_port
from adapters.modbus._wire import Wire
from schemas.bilingual import Bilingual


class SerialPort(Wire):
    """Opens the port. Raises TransientError."""

    def __init__(self, place: SerialPlace, monotonic: Callable[[], float]) -> None:
        super().__init__(place.path, monotonic)
        if place.ascii:
            self.patience = 1.0  # so long may a device rest between two characters (Serial Line V1.02 §2.5.2.1)
        self.place = place
        self._descriptor = open_port(place)
        self._echo = b""
        """What was sent last, of a two-wire adapter that hears itself; empty as soon as something else is heard."""
        self._held = b""
        self._loop.add_reader(self._descriptor, self._readable)

    def write(self, data: bytes) -> None:
        """Sends one frame."""
        self._echo, self._held = data, b""
        try:
            os.write(self._descriptor, data)  # a request's eight bytes: the driver's buffer takes them
        except OSError as error:
            self._end(error)
            return
        # 3.5 characters after the last byte of the frame
        self.free_at = self._monotonic() + len(data) * self.place.character + self.place.silence

    def time_of(self, request: Request) -> float:
        """Seconds that request and answer take on the wire at the longest, beside what the unit takes to think."""
        return self._sending(request) + self._characters(request.longest) * self.place.character

    def watch(self, request: Request, timeout: float, give_up: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls `give_up` when so long after the request's last character nothing of an answer has come: a long answer at a low speed
        may take longer than that, a silent unit need not."""

        def look() -> None:
            if not self.heard:
                give_up()

        return self._loop.call_later(timeout + self._sending(request), look)

    def _sending(self, request: Request) -> float:
        return self._characters(1 + len(request.encode())) * self.place.character

    def _characters(self, pdu: int) -> int:
        return 2 * pdu + 7 if self.place.ascii else pdu + 3

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
        self.arrived(data)

    def cleaned(self, data: bytes) -> bytes:
        """Without what the adapter hears of itself."""
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
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        why = error.strerror or str(error)
        self.ended(ConnectionResetError(Bilingual(f"the serial port is gone: {why}", f"串口已断开：{why}")))
