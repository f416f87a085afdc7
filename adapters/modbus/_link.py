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
from collections import Counter
from collections.abc import Callable

from pymodbus import ModbusException
from pymodbus.exceptions import ConnectionException
from pymodbus.pdu import ModbusPDU

from adapters.contract import Clock, TransientError
from adapters.modbus._client import Client
from adapters.modbus._codec import RawDecoder, Request, Response, wrong
from adapters.modbus._dial_in import Seat
from adapters.modbus._errors import ForeignMasterError, closed_by_peer, not_connected, open_failed
from adapters.modbus._frames import frame_log, tracer
from adapters.modbus._lanes import Lane, Lanes, Owed
from adapters.modbus._opening import ClosingError, dialled_in, listened_to
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._wire import Wire, foreign_request
from schemas.bilingual import Bilingual, chinese

_IDLE = 5.0
"""A peer that closes in good order after so many idle seconds has cleared up; before, it has thrown us out."""
_REOPEN_PAUSES = (0.0, 0.1, 0.4)
"""Seconds before the tries to open again what we closed ourselves: a device with a single connection needs a moment to free it."""
_REOPEN_WITHIN = 1.5
"""Seconds that opening again may take at least: a first packet that is lost is sent again after one."""
LISTEN = 3.0
"""Seconds of listening on a serial line before the first frame: a line bears one master."""


class NoAnswerError(Exception):
    """The unit did not answer in time, or not with what was asked. The connection is closed already. `kind` is for the counters."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotNowError(Exception):
    """The unit is not to be asked yet. Nothing was sent."""


class Link:
    """The connection of one link. `request` and `open` never run at the same time: `Lanes` say whose turn it is."""

    def __init__(self, settings: ModbusLinkSettings, clock: Clock) -> None:
        self._ways = [settings.model_copy(update={"host": host}) for host in settings.hosts] or [settings]
        """One for each address, in the order in which they are tried."""
        self._settings = self._ways[0]
        self._mute = False
        """Nobody has answered since the link was opened."""
        self._clock = clock
        self._numbered = settings.frames == "mbap"
        """Frames carry transaction numbers, by which a late answer is known."""
        self._transaction = 0
        """The number used last: no connection begins anew with those of the one before."""
        self._port: Wire | None = None
        self._seat = Seat(settings.listen, clock.monotonic) if settings.listen is not None else None
        self._asked: int | None = None
        """The unit asked last."""
        self._quiet: dict[int, float] = {}
        """Unit -> monotonic seconds before which it is not asked: it needs its pause, or, where frames have no transaction numbers and the wire
        stays open, its answer to an earlier request may still come."""
        self.pauses: dict[int, float] = {}
        """Unit -> seconds of rest that it needs between an answer and the next request."""
        self._owed = Owed()
        self._client: Client | None = None
        self._decoder = RawDecoder(clock.now)
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
        self.frames = frame_log(settings.frames)
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
        self._closing = closing = asyncio.Event()
        self._lost = None
        await self._lanes.take(Lane.COMMAND)
        try:
            await self._open_wire(closing)
            await self._open_one()
        finally:
            self._lanes.give()

    def close(self) -> None:
        """Closes the link, now; a request under way raises ClosingError."""
        if self._closing is not None:
            self._closing.set()
        self._owed.clear()
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

        Raises NoAnswerError, ClosingError, TransientError when the link is lost, and of a scan, which has others to ask meanwhile,
        NotNowError where the unit is not to be asked yet (`quiet_until`).
        """
        rested = 0.0
        if self._quiet or self._free_at or self._port is not None or not self._lanes.take_now(lane):
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
                client = await self._reopen(timeout)
            return await self._exchange(client, request, timeout)
        finally:
            self.taken = self._clock.monotonic() - begun
            self.busy += self.taken
            if self.pauses and request.dev_id in self.pauses:
                until = self._clock.monotonic() + self.pauses[request.dev_id]
                self._quiet[request.dev_id] = max(until, self.quiet_until(request.dev_id))
            self._lanes.give()

    async def _turn(self, request: Request, lane: Lane) -> float:
        """Takes the wire, when this request may be sent. Returns for how many seconds it has rested with it."""
        given_way = False
        unit = request.dev_id
        while True:
            quiet = self.quiet_until(unit) - self._clock.monotonic()
            if quiet > 0 and lane is Lane.SCAN:
                self._owed.turned_away(unit)
                raise NotNowError
            if quiet > 0:  # the others have the wire meanwhile
                await asyncio.sleep(quiet)
            if lane is Lane.ONCE and await self._owed.first(unit):
                continue
            await self._lanes.take(lane)
            if self.quiet_until(unit) > self._clock.monotonic():  # somebody else has asked it meanwhile
                self._lanes.give()
                continue
            if lane is Lane.SCAN:
                self._owed.paid(unit)
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
        """Monotonic seconds before which the unit is not asked."""
        return self._quiet.get(unit, 0.0) if self._quiet else 0.0

    # ------------------------------------------------------------------------------------------------------ one request

    async def _exchange(self, client: Client, request: Request, timeout: float) -> Response:
        self.requests += 1
        self._decoder.expect(request)
        self._in_flight = True
        port = self._port
        longest = timeout
        if port is not None:
            self._asked = request.dev_id
            port.asking = True
            longest += port.time_of(request)
        client.answer_within(longest + port.patience if port is not None else longest)
        silent = port.watch(request, timeout, client.give_up) if port is not None else None
        answered = False
        task = asyncio.current_task()
        cancelling = task.cancelling() if task is not None else 0
        try:
            answer = await client.execute(request)
            answered = True
        except ModbusException as error:
            raise self._failed(request, timeout) from error
        finally:
            self._in_flight = False
            if port is not None:
                port.asking = False
                if silent is not None:
                    silent.cancel()
            if (
                not answered and not self._settings.datagrams
            ):  # cancelled too: its answer may still come, and must find nobody
                self._drop()
                if port is not None and not self._numbered:
                    self._quiet[request.dev_id] = self._clock.monotonic() + longest
            if self._settings.pause:
                self._free_at = self._clock.monotonic() + self._settings.pause
        if task is not None and task.cancelling() > cancelling:
            raise asyncio.CancelledError  # Python 3.11's wait_for, inside pymodbus, forgets it when the answer comes in that moment
        if self._closing is not None and self._closing.is_set():
            raise ClosingError
        return self._verified(request, answer, longest)

    def _failed(self, request: Request, timeout: float) -> Exception:
        if self._closing is not None and self._closing.is_set():
            return ClosingError()
        if self._lost is not None:
            self.errors["closed"] += 1
            return closed_by_peer(self._settings, self._lost)
        if self._settings.datagrams and self._error is not None:
            self.errors["refused"] += 1
            error, self._error = self._error, None
            return open_failed(self._settings, error)
        self.errors["timeout"] += 1
        self._note(
            f"no answer of unit {request.dev_id} within {timeout:g} s"
            + (": closed, since it may still come" if self._port is None and not self._settings.datagrams else "")
        )
        return NoAnswerError("timeout", f"unit {request.dev_id} did not answer within {timeout:g} s")

    def _verified(self, request: Request, answer: ModbusPDU, longest: float) -> Response:
        problem = wrong(request, answer)
        if problem is not None or not isinstance(answer, Response):
            self._drop()
            if self._port is not None and not self._numbered:  # what else comes of it must find nobody
                self._quiet[request.dev_id] = self._clock.monotonic() + longest
            self.errors["malformed"] += 1
            self._note(f"closed: the answer does not fit the request: {problem}")
            raise NoAnswerError("malformed", f"unit {request.dev_id}: the answer does not fit the request: {problem}")
        if answer.code and not request.may_be_refused:
            self.errors[f"exception_{answer.code}"] += 1
        elif answer.short:
            self.errors["short"] += 1
        self._last_answer = self._clock.monotonic()
        self._mute = False
        if request.may_be_refused and answer.code and self._port is None:
            # who does not know the function may not know its length either: what is left of the request goes with the connection
            self._drop()
            self._lost = None
        return answer

    # --------------------------------------------------------------------------------------- a wire that stays open

    async def _open_wire(self, closing: asyncio.Event) -> None:
        """Opens what stays open, if the link has such a wire. Raises TransientError, ClosingError."""
        self._quiet.clear()
        try:
            if self._settings.serial is not None:
                self._port = await listened_to(
                    self._settings, self._clock.monotonic, closing, listen=LISTEN, asked=self._asked
                )
            elif self._seat is not None:
                self._port = await dialled_in(self._seat, self._settings.place, closing)
        except TransientError as error:
            self.errors["foreign" if isinstance(error, ForeignMasterError) else "connect"] += 1
            self._note(f"not opened: {error}")
            raise

    def _unasked(self, port: Wire) -> None:
        """Throws away what came while nothing was asked. Raises ForeignMasterError where another master has asked."""
        data = port.take()
        if not data:
            return
        self.errors["unasked"] += 1
        if foreign_request(data, self._settings.frames):
            self.errors["foreign"] += 1
            self._note(f"{len(data)} bytes that nobody here has asked for: another master")
            self._drop()
            raise ForeignMasterError(self._settings.place, len(data))
        self._note(f"{len(data)} bytes that came unasked are thrown away: {data[:64].hex(' ')}")

    # -------------------------------------------------------------------------------------------------- the connection

    def _new_client(self) -> Client:
        return Client(
            self._settings,
            self._decoder,
            self._port,
            trace=self._trace,
            transaction=self._transaction,
            on_error=self._not_opened,
            on_refused=self._nobody_there,
            on_closed=self._peer_closed,
        )

    def _not_opened(self, error: OSError) -> None:
        self._error = error

    def _nobody_there(self, client: Client, error: OSError) -> None:
        """A datagram could not be delivered."""
        if client is self._client and self._in_flight:
            self._error = error
            client.fail(ConnectionException(str(error)))

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

    async def _open(self, within: float | None = None) -> None:
        closing = self._closing
        if closing is None or closing.is_set():
            raise ClosingError
        self._error = None
        self._client = client = self._new_client()
        if within is not None:
            client.answer_within(within)
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
                connecting.add_done_callback(client.abort)
                self._drop()
        if not connected:
            self.errors["connect"] += 1
            self._note(f"not connected to {self._settings.place}: {self._error or 'no answer'}")
            raise open_failed(self._settings, self._error)
        self._note(f"connected to {self._settings.place}")
        self._last_answer = self._clock.monotonic()

    async def _reopen(self, timeout: float) -> Client:
        """A connection in place of one that we closed, or that the peer closed because nothing was said on it.

        The peer has lived until now: it is not waited for much longer than for its answer, so that a pulled cable is found soon.
        """
        within = min(self._settings.timeout, max(timeout, _REOPEN_WITHIN))
        if self._lost is not None:
            raise closed_by_peer(self._settings, self._lost)
        failure: TransientError | None = None
        for pause in _REOPEN_PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._open(within)
            except TransientError as error:
                failure = error
                if error.reason not in ("refused", "reset"):
                    break
            else:
                assert self._client is not None
                return self._client
        assert failure is not None
        raise failure

    def _peer_closed(self, client: Client, error: Exception | None) -> None:
        if client is not self._client:
            return
        self._transaction = client.transaction
        idle = self._clock.monotonic() - self._last_answer
        if error is None and not self._in_flight and idle >= _IDLE:
            self._client = None
            return
        self._lost = (
            str(error) if error is not None else Bilingual("the other end closed the connection", "对端关闭了连接")
        )
        self._note(self._lost)
        if self._in_flight:
            client.fail(ConnectionException(self._lost))
        if self.on_lost is not None:
            self.on_lost()

    def _note(self, text: str) -> None:
        self.frames.note(self._clock.now(), text)

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._transaction = client.transaction
        if self._in_flight:
            client.fail(ConnectionException("closed"))
        client.close()
