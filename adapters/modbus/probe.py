"""Asking an unknown Modbus device, one careful request at a time, over TCP, RTU in TCP, or a serial port.

For searching and for test-reads, beside the adapter: an adapter needs points and speed, a search needs to know *how* a request
failed. Nothing but the read functions 1 to 4 and Read Device Identification (43/14) can be sent from here.

Sources: MODBUS Application Protocol V1.1b3 (§6.1 to §6.4, §6.21, §7), MODBUS Messaging on TCP/IP V1.0b §3.1.3, MODBUS over Serial Line
V1.02 §2.5.1 (RTU framing) and §6.2.2 (CRC).
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import StrEnum

from adapters.contract import TransientError
from adapters.modbus._bytes import ByteChannel, open_serial, open_tcp
from adapters.modbus._errors import ForeignMasterError
from adapters.modbus._serial import SerialPlace
from schemas.bilingual import Bilingual, chinese

__all__ = ["Answer", "ForeignMasterError", "Outcome", "Prober", "SerialPlace", "TcpPlace", "crc16"]

_MBAP = struct.Struct(">HHHB")
_READS = frozenset({1, 2, 3, 4})
_IDENTIFY = 0x2B
_MEI = 0x0E


class Outcome(StrEnum):
    """How a request ended."""

    DATA = "data"
    EXCEPTION = "exception"
    SILENCE = "silence"
    GARBLED = "garbled"
    """Bytes came, but no whole frame for us: another baud rate or parity, two units with one number, or noise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `data` are the bytes after the byte count (of 43/14 after function and MEI type); `code` an exception's."""

    outcome: Outcome
    data: bytes = b""
    code: int = 0


@dataclass(frozen=True, slots=True)
class TcpPlace:
    """A TCP address; `rtu`: it passes serial frames on, checksum included."""

    host: str
    port: int = 502
    rtu: bool = False


def crc16(data: bytes) -> int:
    """The RTU checksum; it goes onto the wire low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


class Prober:
    """One connection, one request at a time. `open` first, `close` last (or `async with`).

    `timeout` (s) is how long an answer may take, `pause` (s) the rest between an answer and the next request. `sent` counts requests.
    Raises TransientError where the place cannot be reached or the connection is lost, and ForeignMasterError on a line that has a master.
    """

    def __init__(self, place: TcpPlace | SerialPlace, *, timeout: float = 0.5, pause: float = 0.05) -> None:
        self.place = place
        self.timeout = timeout
        self.pause = pause
        self.sent = 0
        self._rtu = isinstance(place, SerialPlace) or place.rtu
        self._channel: ByteChannel | None = None
        self._transaction = 0
        self._free_at = 0.0
        self._last_unit: int | None = None

    async def __aenter__(self) -> Prober:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def open(self) -> None:
        """Opens the connection or the port."""
        self.close()
        place = self.place
        if isinstance(place, SerialPlace):
            self._channel = open_serial(place)
        else:
            self._channel = await open_tcp(place.host, place.port)

    def close(self) -> None:
        """May be called twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    async def listen(self, seconds: float) -> None:
        """Says nothing and listens. Raises ForeignMasterError when anybody speaks; a stray byte or two of noise does not count."""
        channel = self._open_channel()
        end = asyncio.get_running_loop().time() + seconds
        while await channel.wait(end - asyncio.get_running_loop().time()):
            if len(channel.buffer) >= 4:
                raise ForeignMasterError(self._name, len(channel.buffer))
        channel.take()

    async def read(self, unit: int, function: int, address: int, count: int) -> Answer:
        """Functions 1 to 4: `count` bits or registers from wire address `address`. DATA only with exactly the bytes asked for."""
        if function not in _READS:
            raise ValueError(f"function {function}: only the reads 1 to 4 are sent")
        size = (count + 7) // 8 if function <= 2 else 2 * count
        answer = await self._ask(unit, struct.pack(">BHH", function, address, count), 2 + size)
        if answer.outcome is not Outcome.DATA:
            return answer
        if len(answer.data) != 1 + size or answer.data[0] != size:
            return Answer(Outcome.GARBLED)
        return Answer(Outcome.DATA, answer.data[1:])

    async def identify(self, unit: int, first: int = 0) -> Answer:
        """Read Device Identification, basic stream (43/14, read code 1) from object `first`."""
        answer = await self._ask(unit, bytes((_IDENTIFY, _MEI, 1, first)), 0)
        if answer.outcome is Outcome.DATA and (len(answer.data) < 6 or answer.data[0] != _MEI):
            return Answer(Outcome.GARBLED)
        return Answer(Outcome.DATA, answer.data[1:]) if answer.outcome is Outcome.DATA else answer

    # ------------------------------------------------------------------------------------------------------ one request

    @property
    def _name(self) -> str:
        return self.place.path if isinstance(self.place, SerialPlace) else f"{self.place.host}:{self.place.port}"

    def _open_channel(self) -> ByteChannel:
        if self._channel is None:
            raise RuntimeError("open() comes first")
        return self._channel

    async def _ask(self, unit: int, pdu: bytes, expected: int) -> Answer:
        loop = asyncio.get_running_loop()
        rest = self._free_at - loop.time()
        if rest > 0:
            await asyncio.sleep(rest)
        if self._channel is None or self._channel.lost is not None:
            await self.open()
        channel = self._open_channel()
        self._unasked(channel)
        self.sent += 1
        self._last_unit = unit
        answer: Answer | None = None
        try:
            if self._rtu:
                body = bytes((unit,)) + pdu
                frame = body + crc16(body).to_bytes(2, "little")
                channel.write(frame)
                answer = await self._rtu_answer(channel, frame, expected)
            else:
                self._transaction = self._transaction % 0xFFFF + 1
                channel.write(_MBAP.pack(self._transaction, 0, len(pdu) + 1, unit) + pdu)
                answer = await self._tcp_answer(channel, unit, pdu[0])
        finally:
            self._free_at = loop.time() + self.pause
            settled = answer is not None and answer.outcome in (Outcome.DATA, Outcome.EXCEPTION)
            if not settled and not isinstance(self.place, SerialPlace):
                self.close()  # a late answer must find nobody; on a serial port the checksum and the unit have to do
        return answer

    def _unasked(self, channel: ByteChannel) -> None:
        """What came while nothing was asked: a late answer of the unit asked last, noise, or another master."""
        data = channel.take()
        if not isinstance(self.place, SerialPlace) or len(data) < 8:
            return
        if (
            crc16(data[:6]) == int.from_bytes(data[6:8], "little")
            and data[1] & 0x7F <= 0x2B
            and data[0] != self._last_unit
        ):
            raise ForeignMasterError(self.place.path, len(data))

    async def _tcp_answer(self, channel: ByteChannel, unit: int, function: int) -> Answer:
        end = asyncio.get_running_loop().time() + self.timeout
        while True:
            buffer = channel.buffer
            while len(buffer) >= 8:
                transaction, protocol, length, answering = _MBAP.unpack_from(buffer)
                if protocol != 0 or not 2 <= length <= 254:
                    return Answer(Outcome.GARBLED)
                if len(buffer) < 6 + length:
                    break
                pdu = bytes(buffer[7 : 6 + length])
                del buffer[: 6 + length]
                if transaction == self._transaction and answering == unit:
                    return _judged(pdu, function)
            if not await channel.wait(end - asyncio.get_running_loop().time()):
                if channel.lost is not None:
                    raise self._hung_up(channel.lost)
                return Answer(Outcome.GARBLED if buffer else Outcome.SILENCE)

    async def _rtu_answer(self, channel: ByteChannel, frame: bytes, expected: int) -> Answer:
        """`expected`: bytes of the PDU; 0 when only silence on the line shows its end."""
        loop = asyncio.get_running_loop()
        unit, function = frame[0], frame[1]
        end = loop.time() + self.timeout
        while True:
            data = bytes(channel.buffer)
            if data.startswith(frame):  # a two-wire adapter that hears itself
                data = data[len(frame) :]
            if len(data) >= 5 and data[0] == unit and data[1] == function | 0x80 and _intact(data[:5]):
                channel.take()
                return Answer(Outcome.EXCEPTION, code=data[2])
            if expected and len(data) >= expected + 3 and data[:2] == frame[:2] and _intact(data[: expected + 3]):
                channel.take()
                return _judged(data[1 : expected + 1], function)
            if not expected and len(data) >= 8 and data[:2] == frame[:2] and _intact(data):
                channel.take()
                return _judged(data[1:-2], function)
            if not await channel.wait(end - loop.time()):
                if channel.lost is not None:
                    raise self._hung_up(channel.lost)
                channel.take()
                return Answer(Outcome.GARBLED if data else Outcome.SILENCE)

    def _hung_up(self, why: str) -> TransientError:
        return TransientError(
            Bilingual(f"{self._name}: connection lost: {why}", f"{self._name}：连接中断：{chinese(why)}"),
            reason="closed",
            fix_en="Another master may use the device: many permit only one to four connections. On a serial port, look at the cable.",
            fix_zh="可能有其他主站占用设备：许多设备只允许 1 至 4 个连接。串口请检查线缆。",
        )


def _intact(frame: bytes) -> bool:
    return len(frame) >= 4 and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little")


def _judged(pdu: bytes, function: int) -> Answer:
    if len(pdu) >= 2 and pdu[0] == function | 0x80:
        return Answer(Outcome.EXCEPTION, code=pdu[1])
    if len(pdu) < 2 or pdu[0] != function:
        return Answer(Outcome.GARBLED)
    return Answer(Outcome.DATA, pdu[1:])
