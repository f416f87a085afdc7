"""One connection, one request at a time, and no answer that is not verified to be the one asked for.

pymodbus frames, sends and waits; what it leaves open is closed here. It checks neither function code nor length of a response, and on
RTU frames, which carry no transaction number, it would take a late answer for the next one. So a response passes only when unit,
transaction (MBAP), function and byte count are those of the request, and after a time-out, a cancellation or an answer that
does not fit the connection is closed; the next request opens a new one. A serial port, and a connection that was dialled to us, stays
open instead: what arrives unasked is thrown
away, and a unit that has not answered is not asked again before its answer has had as much time once more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU

from adapters.contract import Clock, TransientError
from adapters.modbus._dial_in import Seat
from adapters.modbus._errors import ForeignMasterError, closed_by_peer, not_connected, open_failed
from adapters.modbus._frames import frame_log, tracer
from adapters.modbus._lanes import Lane, Lanes
from adapters.modbus._port import SerialPort
from adapters.modbus._serial import SerialPlace
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._wire import Wire, foreign_request, of_unit
from schemas.bilingual import Bilingual, chinese

_BUFFER = 4096
"""Bytes of unread answers that are kept; pymodbus's own 264 would drop a good answer behind a late one."""
_IDLE = 5.0
"""A peer that closes in good order after so many idle seconds has cleared up; before, it has thrown us out."""
_REOPEN_PAUSES = (0.0, 0.1, 0.4)
"""Seconds before the tries to open again what we closed ourselves: a device with a single connection needs a moment to free it."""
LISTEN = 3.0
"""Seconds of listening on a serial line before the first frame: a line bears one master."""


class NoAnswerError(Exception):
    """The unit did not answer in time, or not with what was asked. The connection is closed already. `kind` is for the counters."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ClosingError(Exception):
    """`close` was called meanwhile."""


class Response(ModbusPDU):
    """A response as it came: `pdu` from the function code on; `received` in µs; `code` the exception code, 0 for data.

    `short`: well-formed data, but less than asked for.
    """

    rtu_byte_count_pos = 2
    code = 0
    short = False

    def __init__(
        self, pdu: bytes, received: int
    ) -> None:  # the base class's thirteen attributes are for codecs that we do not use
        self.pdu = pdu
        self.received = received

    @property
    def data(self) -> bytes:
        """The data bytes after function code and byte count."""
        return self.pdu[2:]


class Request(ModbusPDU):
    """A read request, encoded once (V1.1b3 §6.1 to §6.4)."""

    answered_by: type[Response] = Response
    may_be_refused = False
    """An exception is an ordinary answer to it, and not counted as an error."""

    def __init__(self, unit: int, function: int, address: int, count: int) -> None:
        super().__init__(dev_id=unit, address=address, count=count)
        self.function_code = function
        self.data_bytes = (count + 7) // 8 if function <= 2 else count * 2
        self._encoded = struct.pack(">HH", address, count)

    def encode(self) -> bytes:
        """The PDU after the function code."""
        return self._encoded

    def begins(self, data: bytes) -> bool:
        """Whether a response may begin with these bytes, of which the first two (unit and function) are right."""
        return len(data) < 3 or 0 < data[2] <= self.data_bytes

    def judge(self, answer: Response) -> str | None:
        """What is wrong with a response whose function is right; sets `short` of one that is whole."""
        pdu = answer.pdu
        count = pdu[1] if len(pdu) > 1 else 0
        if len(pdu) != count + 2:
            return f"it says {count} data bytes and has {len(pdu) - 2}"
        if count == self.data_bytes:
            return None
        if 0 < count < self.data_bytes and (self.function_code <= 2 or count % 2 == 0):
            answer.short = True
            return None
        return f"it has {count} data bytes, not {self.data_bytes}"


class _RawDecoder(DecodePDU):
    """Hands responses on undecoded, and tells the RTU framer where one may begin: only at the unit and function asked for."""

    def __init__(self, now: Callable[[], int]) -> None:
        super().__init__(False)
        self._now = now
        self._request: Request | None = None

    def expect(self, request: Request) -> None:
        """Responses to this request are looked for from now on."""
        self._request = request

    def lookupPduClass(self, data: bytes) -> type[ModbusPDU] | None:
        """The class that knows the length of the RTU frame that begins with `data`, None where none can begin."""
        request = self._request
        if request is None or data[0] != request.dev_id:
            return None
        if data[1] == request.function_code | 0x80:
            return ExceptionResponse
        if data[1] == request.function_code and request.begins(data):
            return request.answered_by
        return None

    def decode(self, frame: bytes) -> ModbusPDU | None:
        """Never None: pymodbus would raise inside the transport."""
        return Response(frame, self._now())


class Link:
    """The connection of one link. `request` and `open` never run at the same time: `Lanes` say whose turn it is."""

    def __init__(self, settings: ModbusLinkSettings, clock: Clock) -> None:
        self._ways = [settings.model_copy(update={"host": host}) for host in settings.hosts] or [settings]
        """One for each address, in the order in which they are tried."""
        self._settings = self._ways[0]
        self._mute = False
        """Nobody has answered since the link was opened."""
        self._clock = clock
        self._rtu = settings.rtu
        self._port: Wire | None = None
        self._seat = Seat(settings.listen, clock.monotonic) if settings.listen is not None else None
        self._asked: int | None = None
        """The unit asked last."""
        self._late: dict[int, float] = {}
        """Frames without transaction numbers on a wire that stays open: unit that did not answer -> monotonic seconds until which its answer may still come."""
        self._client: AsyncModbusTcpClient | None = None
        self._decoder = _RawDecoder(clock.now)
        self._lanes = Lanes()
        self._closing: asyncio.Event | None = None
        self._in_flight = False
        self._lost: str | None = None
        """Why the peer's end is gone; None while the connection stands, or when we closed it."""
        self._last_answer = 0.0
        """Monotonic seconds of the last verified answer, or of the opening."""
        self._free_at = 0.0
        self._error: OSError | None = None
        self.on_lost: Callable[[], None] | None = None
        """Called when the peer's end is gone while nothing is asked."""
        self.frames = frame_log(rtu=self._rtu)
        self._trace = tracer(self.frames, clock.now)
        self.requests = 0
        self.busy = 0.0
        """Seconds for which the wire was taken: requests with their answers or time-outs, and the rests before them."""
        self.taken = 0.0
        """What of it the last request has taken."""
        self.errors: Counter[str] = Counter()

    async def open(self) -> None:
        """Opens the link. Raises TransientError, and then nothing is open."""
        logging.getLogger("pymodbus.logging").setLevel(
            logging.CRITICAL
        )  # it logs each lost answer; ours are counted and told once
        self.close()
        self._closing = asyncio.Event()
        self._lost = None
        await self._lanes.take(Lane.COMMAND)
        try:
            if self._settings.serial is not None:
                await self._open_port()
            elif self._seat is not None:
                await self._dialled_in(self._seat)
            await self._open_one()
        finally:
            self._lanes.give()

    def close(self) -> None:
        """Closes the link, now; a request under way raises ClosingError."""
        if self._closing is not None:
            self._closing.set()
        self._drop()
        port, self._port = self._port, None
        if self._seat is not None:
            self._seat.leave()
        elif port is not None:
            port.close()

    @property
    def lost(self) -> TransientError | None:
        """Why the peer's end is gone; None while it is not, or when we closed the connection ourselves and shall open a new one."""
        return None if self._lost is None else closed_by_peer(self._settings, self._lost)

    @property
    def is_open(self) -> bool:
        """Between `open` and `close`, whatever the state of the connection."""
        return self._closing is not None and not self._closing.is_set()

    async def request(self, request: Request, timeout: float, lane: Lane = Lane.ONCE) -> Response:
        """The verified response to `request`, which may be an exception response. Commands and one-off reads go before scans.

        Raises NoAnswerError, ClosingError, and TransientError when the link is lost.
        """
        rested = await self._turn(request, lane)
        begun = self._clock.monotonic() - rested
        try:
            closing = self._closing
            if closing is None or closing.is_set():
                raise ClosingError if closing is not None else not_connected(self._settings)
            if self._port is not None:
                self._unasked(self._port)
            client = self._client
            if client is None or self._lost is not None:
                client = await self._reopen()
            return await self._exchange(client, request, timeout)
        finally:
            self.taken = self._clock.monotonic() - begun
            self.busy += self.taken
            self._lanes.give()

    async def _turn(self, request: Request, lane: Lane) -> float:
        """Takes the wire, when this request may be sent. Returns for how many seconds it has rested with it."""
        given_way = False
        while True:
            quiet = self.quiet_until(request.dev_id) - self._clock.monotonic()
            if quiet > 0:  # this unit's late answer may still come; the others have the wire meanwhile
                await asyncio.sleep(quiet)
            await self._lanes.take(lane)
            free_at = max(self._free_at, self._port.free_at) if self._port is not None else self._free_at
            if not free_at:
                return 0.0
            rest = free_at - self._clock.monotonic()
            if rest <= 0:
                return 0.0
            try:
                await asyncio.sleep(rest)
            except asyncio.CancelledError:
                self._lanes.give()
                raise
            if given_way or not self._lanes.outranked(lane):
                return rest
            given_way = True
            self.busy += rest
            self._lanes.give()

    def quiet_until(self, unit: int) -> float:
        """Monotonic seconds until which the unit is not asked, since its answer to an earlier request may still come."""
        return self._late.get(unit, 0.0) if self._late else 0.0

    # ------------------------------------------------------------------------------------------------------ one request

    async def _exchange(self, client: AsyncModbusTcpClient, request: Request, timeout: float) -> Response:
        self.requests += 1
        self._decoder.expect(request)
        client.ctx.comm_params.timeout_connect = timeout
        self._in_flight = True
        port = self._port
        if port is not None:
            self._asked = request.dev_id
            port.asking = True
        answered = False
        task = asyncio.current_task()
        cancelling = task.cancelling() if task is not None else 0
        try:
            answer = await client.execute(False, request)
            answered = True
        except ModbusException as error:
            raise self._failed(request, timeout) from error
        finally:
            self._in_flight = False
            if port is not None:
                port.asking = False
            if not answered:  # cancelled too: its answer may still come, and must find nobody
                self._drop()
                if port is not None and self._rtu:
                    self._late[request.dev_id] = self._clock.monotonic() + timeout
            if self._settings.pause:
                self._free_at = self._clock.monotonic() + self._settings.pause
        if task is not None and task.cancelling() > cancelling:
            raise asyncio.CancelledError  # Python 3.11's wait_for, inside pymodbus, forgets it when the answer comes in that moment
        if self._closing is not None and self._closing.is_set():
            raise ClosingError
        return self._verified(request, answer)

    def _failed(self, request: Request, timeout: float) -> Exception:
        if self._closing is not None and self._closing.is_set():
            return ClosingError()
        if self._lost is not None:
            self.errors["closed"] += 1
            return closed_by_peer(self._settings, self._lost)
        self.errors["timeout"] += 1
        self._note(
            f"no answer of unit {request.dev_id} within {timeout:g} s"
            + (": closed, since it may still come" if self._port is None else "")
        )
        return NoAnswerError("timeout", f"unit {request.dev_id} did not answer within {timeout:g} s")

    def _verified(self, request: Request, answer: ModbusPDU) -> Response:
        wrong = self._wrong(request, answer)
        if wrong is not None or not isinstance(answer, Response):
            self._drop()
            if self._port is not None and self._rtu:  # what else comes of it must find nobody
                self._late[request.dev_id] = self._clock.monotonic() + self._settings.timeout
            self.errors["malformed"] += 1
            self._note(f"closed: the answer does not fit the request: {wrong}")
            raise NoAnswerError("malformed", f"unit {request.dev_id}: the answer does not fit the request: {wrong}")
        self._last_answer = self._clock.monotonic()
        self._mute = False
        return answer

    def _wrong(self, request: Request, answer: ModbusPDU) -> str | None:
        """What is wrong with an answer; sets `code` and `short` of a right one."""
        if not isinstance(answer, Response):
            return f"it is a {type(answer).__name__}"
        if answer.dev_id != request.dev_id:
            return f"it comes from unit {answer.dev_id}"
        if answer.transaction_id != request.transaction_id:
            return f"it belongs to transaction {answer.transaction_id}, not {request.transaction_id}"
        pdu, function = answer.pdu, request.function_code
        if pdu[0] == function | 0x80 and len(pdu) >= 2:
            answer.code = pdu[1]
            if not request.may_be_refused:
                self.errors[f"exception_{answer.code}"] += 1
            return None if answer.code else "it is an exception without a code"
        if pdu[0] != function:
            return f"it has function {pdu[0]}, not {function}"
        wrong = request.judge(answer)
        if answer.short:
            self.errors["short"] += 1
        return wrong

    # --------------------------------------------------------------------------------------- a wire that stays open

    async def _dialled_in(self, seat: Seat) -> None:
        """Waits for the unit to connect. Raises TransientError, ClosingError."""
        closing = self._closing
        assert closing is not None
        self._late.clear()
        waiting = asyncio.ensure_future(seat.wire(self._settings.place))
        told_to_close = asyncio.ensure_future(closing.wait())
        try:
            await asyncio.wait((waiting, told_to_close), return_when=asyncio.FIRST_COMPLETED)
            if closing.is_set():
                raise ClosingError
            try:
                self._port = waiting.result()
            except TransientError as error:
                self.errors["connect"] += 1
                self._note(f"not connected: {error}")
                raise
        finally:
            told_to_close.cancel()
            waiting.cancel()
            if self._port is None:
                seat.leave()

    async def _open_port(self) -> None:
        """Opens the port and listens whether somebody speaks there already. Raises TransientError, ClosingError."""
        own, closing = self._settings, self._closing
        assert own.serial is not None
        assert closing is not None
        self._late.clear()
        try:
            port = SerialPort(SerialPlace(own.serial, own.baud, own.parity, own.stop), self._clock.monotonic)
        except TransientError as error:
            self.errors["connect"] += 1
            self._note(f"not opened: {error}")
            raise
        self._port = port
        listening = asyncio.ensure_future(port.listen(LISTEN))
        told_to_close = asyncio.ensure_future(closing.wait())
        silent = False
        try:
            await asyncio.wait((listening, told_to_close), return_when=asyncio.FIRST_COMPLETED)
            if closing.is_set():
                raise ClosingError
            heard = listening.result()
            if heard and not of_unit(heard, self._asked):
                self.errors["foreign"] += 1
                raise ForeignMasterError(own.serial, len(heard))
            silent = True
        finally:
            listening.cancel()
            told_to_close.cancel()
            if not silent:
                self._note("the port is closed again: somebody else speaks on this line, or it was to be closed")
                self._port = None
                port.close()

    def _unasked(self, port: Wire) -> None:
        """Throws away what came while nothing was asked. Raises ForeignMasterError where another master has asked."""
        data = port.take()
        if not data:
            return
        self.errors["unasked"] += 1
        if self._rtu and foreign_request(data):
            self.errors["foreign"] += 1
            self._note(f"{len(data)} bytes that nobody here has asked for: another master")
            self._drop()
            raise ForeignMasterError(self._settings.place, len(data))
        self._note(f"{len(data)} bytes that came unasked are thrown away: {data[:64].hex(' ')}")

    # -------------------------------------------------------------------------------------------------- the connection

    def _new_client(self) -> AsyncModbusTcpClient:
        client = AsyncModbusTcpClient(
            next(iter(self._settings.hosts), ""),
            port=self._settings.port,
            framer=FramerType.RTU if self._rtu else FramerType.SOCKET,
            timeout=self._settings.timeout,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._trace,
        )
        context = client.ctx
        context.framer.decoder = self._decoder
        context.max_buffer_size = _BUFFER
        context.max_until_disconnect = 1  # the connection is closed after each time-out: here, not there
        create = context.call_create
        port = self._port
        if port is not None:

            async def attach() -> object:
                return port.attach(context), context

            create = attach

        async def remembering() -> object:
            try:
                return await create()
            except OSError as error:
                self._error = error
                raise

        def disconnected(exc: Exception | None) -> None:
            self._peer_closed(client, exc)

        context.call_create = remembering
        context.callback_disconnected = disconnected  # type: ignore[method-assign]
        return client

    async def _open_one(self) -> None:
        """Opens the first address that can be opened; one at which nobody has answered the last time comes last."""
        failures: list[TransientError] = []
        ways = self._ways
        if self._mute and len(ways) > 1:
            at = ways.index(self._settings) + 1
            ways = [*ways[at:], *ways[:at]]
        for way in ways:
            self._settings = way
            try:
                await self._open()
            except TransientError as error:
                failures.append(error)
            else:
                self._mute = True
                return
        if len(failures) == 1:
            raise failures[0]
        first = failures[0]
        raise TransientError(
            Bilingual("; ".join(map(str, failures)), "；".join(chinese(error.args[0]) for error in failures)),
            reason=first.reason, fix_en=first.fix_en, fix_zh=first.fix_zh,
        )  # fmt: skip

    async def _open(self) -> None:
        closing = self._closing
        if closing is None or closing.is_set():
            raise ClosingError
        self._error = None
        self._client = client = self._new_client()
        connecting = asyncio.ensure_future(client.connect())
        told_to_close = asyncio.ensure_future(closing.wait())
        connected = False
        try:
            await asyncio.wait((connecting, told_to_close), return_when=asyncio.FIRST_COMPLETED)
            if closing.is_set():
                raise ClosingError
            connected = connecting.result()
        except ValueError as error:  # a host that cannot be written as a DNS name: empty or endless labels
            self._error = socket.gaierror(socket.EAI_NONAME, str(error))
        finally:
            told_to_close.cancel()
            if not connected:
                connecting.cancel()
                connecting.add_done_callback(lambda task: _abort(client, task))
                self._drop()
        if not connected:
            self.errors["connect"] += 1
            self._note(f"not connected to {self._settings.place}: {self._error or 'no answer'}")
            raise open_failed(self._settings, self._error)
        self._note(f"connected to {self._settings.place}")
        self._last_answer = self._clock.monotonic()

    async def _reopen(self) -> AsyncModbusTcpClient:
        """A connection in place of one that we closed, or that the peer closed because nothing was said on it."""
        if self._lost is not None:
            raise closed_by_peer(self._settings, self._lost)
        failure: TransientError | None = None
        for pause in _REOPEN_PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._open()
            except TransientError as error:
                failure = error
                if error.reason not in ("refused", "reset"):
                    break
            else:
                assert self._client is not None
                return self._client
        assert failure is not None
        raise failure

    def _peer_closed(self, client: AsyncModbusTcpClient, error: Exception | None) -> None:
        if client is not self._client:
            return
        idle = self._clock.monotonic() - self._last_answer
        if error is None and not self._in_flight and idle >= _IDLE:
            self._client = None
            return
        self._lost = (
            str(error) if error is not None else Bilingual("the other end closed the connection", "对端关闭了连接")
        )
        self._note(self._lost)
        if self._in_flight and not client.ctx.response_future.done():
            client.ctx.response_future.set_exception(ConnectionException(self._lost))
        if self.on_lost is not None:
            self.on_lost()

    def _note(self, text: str) -> None:
        self.frames.note(self._clock.now(), text)

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._in_flight and not client.ctx.response_future.done():
            client.ctx.response_future.set_exception(ConnectionException("closed"))
        client.close()


def _abort(client: AsyncModbusTcpClient, connecting: asyncio.Future[bool]) -> None:
    """Closes what a cancelled connect may have opened in its last moment; pymodbus closes only once."""
    if not connecting.cancelled():
        connecting.exception()  # told already, or of no interest any more
    transport = client.ctx.transport
    if isinstance(transport, asyncio.Transport):
        transport.abort()
