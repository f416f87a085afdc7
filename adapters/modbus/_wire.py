"""A wire that stays open whoever speaks over it: a serial port, or a connection that was dialled to us.

A connection that we have made is closed after a lost answer, so that the answer, when it comes after all, finds nobody. Closing a serial
port keeps no byte away, and one who has dialled in may not come back for minutes. So such a wire stays open, and what arrives while nothing
is asked is kept apart: noise, a heartbeat, a late answer, or another master.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from pymodbus.framer.ascii import FramerAscii
from pymodbus.framer.rtu import FramerRTU

from adapters.modbus._codec import Request
from adapters.modbus._settings import Frames

_KEPT: Final = 1024
"""Bytes nobody asked for that are kept; a line full of another master's talk must not fill the memory."""
_REQUEST: Final = 8
"""Bytes of a request of functions 3, 4 and 6 (V1.1b3 §6.3, §6.4, §6.6), with unit and checksum."""


class _Receives(Protocol):
    """As much of `asyncio.Protocol` as is needed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def data_received(self, data: bytes) -> None: ...


class Wire(ABC):
    """`attach` gives a transport to whoever asks; its `close` leaves the wire open. Needs a running loop."""

    def __init__(self, name: str, monotonic: Callable[[], float]) -> None:
        self.name = name
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._owner: _Attached | None = None
        self._asking = False
        self.heard = False
        """Something of the answer has come."""
        self.patience = 0.0
        """Seconds for which an answer that has begun is waited for besides."""
        self._news = asyncio.Event()
        self.unasked = bytearray()
        """What came while nothing was asked."""
        self.free_at = 0.0
        """Monotonic seconds from which a frame may begin."""
        self.lost: OSError | None = None

    def attach(self, protocol: _Receives) -> asyncio.Transport:
        """From now on the answers go to `protocol`. Raises OSError when the wire is gone."""
        if self.lost is not None:
            raise self.lost
        self._owner = _Attached(self, protocol)
        protocol.connection_made(self._owner)
        return self._owner

    def detach(self, one: asyncio.Transport) -> None:
        """Its owner wants to hear no more."""
        if self._owner is one:
            self._owner = None

    @property
    def asking(self) -> bool:
        """Whether bytes that arrive are an answer's."""
        return self._asking

    @asking.setter
    def asking(self, value: bool) -> None:
        self._asking, self.heard = value, False

    def time_of(self, request: Request) -> float:
        """Seconds that request and answer take on the wire at the longest, beside what the unit takes to think."""
        return 0.0

    def watch(self, request: Request, timeout: float, give_up: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Calls `give_up` when so long after the request's last character nothing of an answer has come, where that can be known."""
        return None

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Sends one frame."""

    @abstractmethod
    def close(self) -> None:
        """Closes the wire itself. May be called twice."""

    def take(self) -> bytes:
        """What came while nothing was asked, and forgets it."""
        data = bytes(self.unasked)
        self.unasked.clear()
        return data

    def arrived(self, data: bytes) -> None:
        """Bytes have come."""
        if not self._asking or self._owner is None:
            self.unasked += data
            del self.unasked[:-_KEPT]
            self._news.set()
            return
        data = self.cleaned(data)
        if data:
            self.heard = True
            self._owner.protocol.data_received(data)

    def cleaned(self, data: bytes) -> bytes:
        """Without what is no part of an answer."""
        return data

    def ended(self, error: OSError) -> None:
        """Nothing will come any more."""
        if self.lost is not None:
            return
        self.lost = error
        self._news.set()
        owner, self._owner = self._owner, None
        if owner is not None:
            self._loop.call_soon(owner.protocol.connection_lost, error)


class _Attached(asyncio.Transport):
    def __init__(self, wire: Wire, protocol: _Receives) -> None:
        super().__init__()
        self._wire = wire
        self.protocol = protocol
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._wire.write(bytes(data))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._wire.detach(self)

    def abort(self) -> None:
        self.close()


def of_unit(data: bytes, unit: int | None, frames: Frames) -> bool:
    """Whether this is one whole frame of that unit, such as an answer that came too late."""
    if frames == "ascii":
        whole = _ascii_frames(data)
        return len(whole) == 1 and whole[0][0] == unit
    return len(data) >= 4 and data[0] == unit and _intact(data)


def foreign_request(data: bytes, frames: Frames) -> bool:
    """Whether somewhere in these bytes stands a whole read request of functions 3 and 4, or a write of one register: we have sent none
    that nobody waits for.

    An answer to functions 3 and 4 has an odd number of bytes; what is eight long and has a right checksum came from a master (or confirms
    what a master wrote). In ASCII frames it is seven, with a checksum of one byte.
    """
    if frames == "mbap":
        return False
    if frames == "ascii":
        return any(
            len(one) == _REQUEST - 1 and 1 <= one[0] <= 247 and one[1] in (3, 4, 6) for one in _ascii_frames(data)
        )
    return any(
        1 <= data[at] <= 247 and data[at + 1] in (3, 4, 6) and _intact(data[at : at + _REQUEST])
        for at in range(len(data) - _REQUEST + 1)
    )


def _intact(frame: bytes) -> bool:
    return FramerRTU.compute_CRC(frame[:-2]) == int.from_bytes(frame[-2:], "big")


def _ascii_frames(data: bytes) -> list[bytes]:
    """The whole frames among these characters, from unit to checksum (Serial Line V1.02 §2.5.2.1)."""
    found = []
    for line in data.split(FramerAscii.END)[:-1]:
        try:
            frame = bytes.fromhex(line.rpartition(FramerAscii.START)[2].decode("ascii"))
        except ValueError:  # noise
            continue
        if len(frame) >= 3 and FramerAscii.check_LRC(frame[:-1], frame[-1]):
            found.append(frame)
    return found
