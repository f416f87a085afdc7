"""Links that dial in: 4G units (DTU) and serial servers that connect to the gateway, and say first who they are.

One listening port serves any number of links of this process. Who connects is known by the registration bytes that it sends; who sends
others, or none in time, is refused, and the links that still wait tell of it. The port stays open for a while after its last link was
closed, so that those who come meanwhile are there when the link tries again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from adapters.contract import TransientError
from adapters.modbus._settings import DialIn
from adapters.modbus._wire import Wire
from schemas.bilingual import Bilingual

log = logging.getLogger("guantong.modbus.listen")

WAIT: Final = 20.0
"""Seconds that a link waits for its unit to dial in before it says that it has not."""
REGISTER_WITHIN: Final = 15.0
"""Seconds within which one who has connected must have said who it is."""
GRACE: Final = 120.0
"""Seconds for which a port without links stays open: longer than the host's longest pause between two tries."""
_LONGEST: Final = 256
"""Bytes that one who is not yet known may send."""
_STRANGERS: Final = 64
"""Connections that may wait to be known at one time."""


class DialledIn(Wire):
    """A connection that has registered. Heartbeats between frames are taken out."""

    def __init__(self, name: str, monotonic: Callable[[], float], between: tuple[bytes, ...]) -> None:
        super().__init__(name, monotonic)
        self._between = between
        self._transport: asyncio.Transport | None = None
        self._begun = False
        """The answer's frame has begun: what comes now belongs to it."""
        self._held = b""

    def carry(self, transport: asyncio.Transport) -> None:
        """Frames go that way."""
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Sends one frame."""
        self._begun, self._held = False, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """May be called twice."""
        if self._transport is not None:
            self._transport.abort()
        self.ended(ConnectionResetError("closed"))

    def take(self) -> bytes:
        """What came while nothing was asked, without heartbeats."""
        return stripped(super().take(), self._between)[0]

    def cleaned(self, data: bytes) -> bytes:
        """Without the heartbeats (and registrations) in front of the answer."""
        if self._begun:
            return data
        rest, wait = stripped(self._held + data, self._between)
        self._held = rest if wait else b""
        if wait:
            return b""
        self._begun = bool(rest)
        return rest


def stripped(data: bytes, between: tuple[bytes, ...]) -> tuple[bytes, bool]:
    """What is left behind the heartbeats at its begin, and whether that may be the begin of another one, so that more must come."""
    while data:
        found = next((one for one in between if data.startswith(one)), None)
        if found is None:
            return data, any(one.startswith(data) for one in between)
        data = data[len(found) :]
    return b"", False


class _Listener:
    """One listening port."""

    def __init__(self, bind: str, port: int) -> None:
        self.bind, self.port = bind, port
        self.wanted: dict[bytes, tuple[tuple[bytes, ...], Callable[[], float]]] = {}
        """Registration -> what may come between frames, and the clock, of each link that was ever opened."""
        self.open: set[bytes] = set()
        """Registrations of links that are open."""
        self.here: dict[bytes, DialledIn] = {}
        self.refused: deque[str] = deque(maxlen=3)
        self.refusals = 0
        self.strangers: set[_Caller] = set()
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._beginning = asyncio.Lock()
        self._forgetting: dict[bytes, asyncio.TimerHandle] = {}

    async def begin(self) -> None:
        """Listens, if it does not yet. Raises OSError."""
        async with self._beginning:
            if self._server is None:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(lambda: _Caller(self), self.bind, self.port)

    def leave(self, registration: bytes) -> None:
        """A link is closed; if it is not opened again, it is forgotten after a while."""
        self.open.discard(registration)
        timer = asyncio.get_running_loop().call_later(GRACE, self.forget, registration)
        self._forgetting[registration] = timer

    def enter(self, registration: bytes, between: tuple[bytes, ...], monotonic: Callable[[], float]) -> None:
        """A link is opened."""
        timer = self._forgetting.pop(registration, None)
        if timer is not None:
            timer.cancel()
        self.open.add(registration)
        self.wanted[registration] = (between, monotonic)

    def forget(self, registration: bytes) -> None:
        """No link has this registration any more. The port is closed with the last one."""
        self._forgetting.pop(registration).cancel()
        del self.wanted[registration]
        wire = self.here.pop(registration, None)
        if wire is not None:
            wire.close()
        if not self.wanted:
            self.finish()

    def finish(self) -> None:
        """Closes the port and whoever is there."""
        for timer in self._forgetting.values():
            timer.cancel()
        for key, listener in list(_LISTENERS.items()):
            if listener is self:
                del _LISTENERS[key]
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for caller in list(self.strangers):
            caller.refuse("")
        for wire in self.here.values():
            wire.close()

    async def wire(self, registration: bytes, seconds: float) -> DialledIn | None:
        """The live connection of this registration; None if it has not come in time."""
        try:
            async with asyncio.timeout(seconds):
                while (wire := self.here.get(registration)) is None or wire.lost is not None:
                    self._news.clear()
                    await self._news.wait()
                return wire
        except TimeoutError:
            return None

    def known(self, registration: bytes, wire: DialledIn, peer: str) -> None:
        """It is here. One that was here before under this name is a half-open connection, or an impostor: the newer is taken."""
        before = self.here.get(registration)
        self.here[registration] = wire
        if before is not None and before.lost is None:
            before.close()
        log.info("%s on port %s: %s has dialled in", peer, self.port, shown(registration))
        self._news.set()

    def tell_refused(self, peer: str, what: str) -> None:
        """Somebody whom no link expects."""
        self.refusals += 1
        told = f"{peer} ({what})"
        if told not in self.refused:
            self.refused.append(told)
            log.warning("port %s: refused %s: no link has this registration", self.port, told)


class _Caller(asyncio.Protocol):
    """A connection, first of a stranger, then of a link."""

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._wire: DialledIn | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:  # a unit whose SIM card is gone does not hang up
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else "?"
        self._listener.strangers.add(self)
        if len(self._listener.strangers) > _STRANGERS:
            self.refuse("too many at once")
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(REGISTER_WITHIN, self._time_over)

    def data_received(self, data: bytes) -> None:
        if self._wire is not None:
            self._wire.arrived(data)
            return
        self._buffer += data
        wanted = self._listener.wanted
        beats = tuple(beat for between, _ in wanted.values() for beat in between if beat not in wanted)
        self._buffer, _ = stripped(self._buffer, beats)
        found = self._found()
        longer = any(one != found and one.startswith(self._buffer) for one in (*wanted, *beats))
        if longer and len(self._buffer) <= _LONGEST:
            return
        if found is None:
            self.refuse(self._said())
        else:
            self._register(found)

    def _found(self) -> bytes | None:
        return max((one for one in self._listener.wanted if self._buffer.startswith(one)), key=len, default=None)

    def _time_over(self) -> None:
        found = self._found()
        if found is not None:
            self._register(found)  # another registration begins with this one
        else:
            self.refuse(self._said())

    def _register(self, registration: bytes) -> None:
        assert self._transport is not None
        self._settle()
        between, monotonic = self._listener.wanted[registration]
        self._wire = DialledIn(self._peer, monotonic, between)
        self._wire.carry(self._transport)
        self._listener.known(registration, self._wire, self._peer)
        rest, self._buffer = self._buffer[len(registration) :], b""
        if rest:
            self._wire.arrived(rest)

    def _said(self) -> str:
        return shown(self._buffer) if self._buffer else "said nothing"

    def refuse(self, what: str) -> None:
        """Hangs up; `what` it said, empty where nothing is to be told."""
        self._settle()
        if what:
            self._listener.tell_refused(self._peer, what)
        if self._transport is not None:
            self._transport.abort()

    def _settle(self) -> None:
        self._listener.strangers.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        if self._wire is not None:
            why = str(exc) if exc is not None else "the other end closed the connection"
            zh = str(exc) if exc is not None else "对端关闭了连接"
            self._wire.ended(ConnectionResetError(Bilingual(why, zh)))


_LISTENERS: dict[tuple[int, str, int], _Listener] = {}


def shown(data: bytes) -> str:
    """Bytes as a configuration writes them: text where it is text, else `hex:…`."""
    if data and all(0x20 <= byte < 0x7F for byte in data):
        return repr(data.decode("ascii")[:40])
    return f"hex:{data[:32].hex()}"


class Seat:
    """The place of one link at a listening port. Opens nothing."""

    def __init__(self, settings: DialIn, monotonic: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._listener: _Listener | None = None

    async def wire(self, place: str) -> DialledIn:
        """The connection of the one who dials in. Raises TransientError where the port is taken, or it has not come."""
        own = self._settings
        key = (id(asyncio.get_running_loop()), own.bind, own.port)
        listener = _LISTENERS.setdefault(key, _Listener(own.bind, own.port))
        registration = own.registration_bytes
        if registration in listener.open:
            raise TransientError(
                Bilingual(f"{place}: another link has this registration", f"{place}：另一条链路已使用该注册包"),
                reason="registration_taken",
                fix_en="Give each unit a registration of its own.",
                fix_zh="请为每台设备设置不同的注册包。",
            )
        try:
            await listener.begin()
        except OSError as error:
            if not listener.wanted:
                _LISTENERS.pop(key, None)
            raise TransientError(
                Bilingual(
                    f"{place}: cannot listen on {own.bind}:{own.port}: {error.strerror or error}",
                    f"{place}：无法监听 {own.bind}:{own.port}：{error.strerror or error}",
                ),
                reason="listen_failed",
                fix_en="Another program has this port, or it is below 1024: choose another one here and in the unit.",
                fix_zh="端口被其他程序占用，或小于 1024：请在此处和设备中改用其他端口。",
            ) from error
        self._listener = listener
        between = tuple(dict.fromkeys((*own.heartbeat_bytes, registration)))
        listener.enter(registration, between, self._monotonic)
        wire = await listener.wire(registration, WAIT)
        if wire is None:
            raise self._not_here(place, listener)
        return wire

    def leave(self) -> None:
        """The link is closed; may be called twice. The connection stays, and waits for the link to be opened again."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.leave(self._settings.registration_bytes)

    def _not_here(self, place: str, listener: _Listener) -> TransientError:
        others = ", ".join(listener.refused)
        en = f"{place}: has not dialled in"
        zh = f"{place}：设备尚未接入"
        if others:
            en += f"; refused on this port: {others}"
            zh += f"；该端口已拒绝：{others}"
        return TransientError(
            Bilingual(en, zh),
            reason="not_dialled_in",
            fix_en="Check address and port of the gateway in the unit, its registration bytes, its SIM card, and the firewall before the gateway.",
            fix_zh="请检查设备中填写的网关地址与端口、注册包、SIM 卡，以及网关前的防火墙。",
        )
