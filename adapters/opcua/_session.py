"""One session on one secure channel, over asyncua's client, of which only the channel, the session and the raw requests are used.

asyncua's own supervisor, watchdog and publish loop are never started: the host owns reconnecting, and acknowledging waits for the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from adapters.contract import AdapterError, LinkSpec, SystemClock
from adapters.frames import FrameLog
from adapters.opcua import _activation, _frames, _security
from adapters.opcua._binary import DecodingError
from adapters.opcua._decode import Decoder
from adapters.opcua._discovery import explain
from adapters.opcua._errors import EXPECTED, ChannelRefusedError, asyncua_decodes
from adapters.opcua._limits import LIMIT_NODES, MAX_ITEMS_PER_SUBSCRIPTION, READ, Limits
from adapters.opcua._orphans import Orphan, SessionFile
from adapters.opcua._trust import Identity
from adapters.opcua.certificates import our_uri
from adapters.opcua.pki import Pki
from adapters.opcua.settings import LinkSettings

log = logging.getLogger("guantong.opcua")

NAMESPACE_ARRAY: Final = 2255
CURRENT_TIME: Final = 2258
STATE: Final = 2259
SECONDS_TILL_SHUTDOWN: Final = 2992
"""Nodes of the Server object (OPC 10000-5 §6.3, §12.10)."""

_CLOSING: Final = 0.8
"""Seconds for CloseSession to be answered, so that `disconnect` keeps within its two."""
_CHANNEL_LIFETIME: Final = 3_600_000
"""Milliseconds after which the channel's keys are replaced, at the latest."""
_CREATING: Final = 1.5
"""Seconds that a cancelled `open` waits for the answer to CreateSession, without which its session could not be closed."""
_SLOTS: Final = 1000
"""Requests in flight, far more than are ever sent: asyncua's own bound must not hold a heartbeat behind parked PublishRequests."""


Row = tuple[Any, int, int | None, int | None]
"""A read value: value, status, source time and server time in µs."""


def identity_of(spec: LinkSpec) -> Identity:
    """Who the gateway is on this link."""
    return Identity(spec.gateway, spec.id, None if spec.pki is None else Pki(spec.pki, spec.gateway))


def quiet_asyncua() -> None:
    """asyncua logs whole notifications at INFO: half of the cost of a value, and a full disk."""
    logger = logging.getLogger("asyncua")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


class Session:
    """One connection to the server. Raises asyncua's and the network's own errors (`_errors.EXPECTED`), not the contract's."""

    def __init__(
        self,
        settings: LinkSettings,
        limits: Limits,
        count: Callable[[], None],
        orphan: Orphan | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.settings = settings
        self.identity = identity or Identity()
        self.orphan = orphan
        """The session that an earlier link left behind on the server; after `close` this one's, if it could not be closed."""
        self.resume = False
        """Set before `open`: whether the orphan is to go on, with its subscriptions, if the server still has it."""
        self.resumed = False
        """Whether it does."""
        self.limits = limits
        self.namespaces: list[str] = []
        self.decoder = Decoder()
        self._count = count
        self.frames: FrameLog | None = None
        """Where requests and responses are recorded; opening and closing the session, with its credentials, are not."""
        self.now: Callable[[], int] = SystemClock().now
        self._client: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._file: SessionFile | None = None
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Is given the error when the session is lost by something that no caller waits for."""

    # ----------------------------------------------------------------------------------------------- open and close

    async def open(self) -> None:
        """Connects, opens the channel, creates and activates the session, reads namespaces and limits.

        Leaves nothing open when it fails or is cancelled, on the server neither: the answer to a CreateSession that is under way is
        waited for, for a moment, so that its session can be closed.
        """
        opening = asyncio.create_task(self._open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.done():
                await self._abort(opening)
            await self.close()
            raise
        except EXPECTED as error:
            await self.close()
            raise await explain(self.settings, self.identity, error) from error
        except BaseException:  # whatever it is goes on: only no half-open channel may stay behind
            await self.close()
            raise

    async def _abort(self, opening: asyncio.Task[None]) -> None:
        """Ends `_open` at once, except while a session may be coming into being on the server."""
        session = self._client.uaclient.session if self._client is not None else None
        end = asyncio.get_running_loop().time() + _CREATING
        while not opening.done() and session is not None and session.state.value == "creating":
            await asyncio.wait([opening], timeout=0.01)
            if asyncio.get_running_loop().time() > end:
                break
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, *EXPECTED):
            await opening

    async def _open(self) -> None:
        settings = self.settings
        channel = await _security.prepare(settings, self.identity, self.now())
        client = Client(channel.url, timeout=settings.timeout, auto_reconnect=False)
        client.name = f"Guantong gateway {self.identity.gateway}"
        client.application_uri = our_uri(self.identity.gateway)
        client.product_uri = "urn:guantong"
        client.secure_channel_timeout = _CHANNEL_LIFETIME
        client.session_timeout = int(settings.session_timeout * 1000)
        client.set_locale(["zh-CN", "en"])
        client.set_max_concurrent_requests(_SLOTS)
        self._client = client
        channel.apply(client)
        await client.connect_socket()
        with asyncua_decodes("opening the session"):
            await client.send_hello()
            await self._open_channel(client)
            self._file = SessionFile.claim(self.identity, settings.endpoint)
            if self.orphan is None and self._file is not None:
                self.orphan = self._file.read()
            if self.resume and await self._take_over(client):
                self.resumed = True
            else:
                await self._close_orphan(client)
                await _activation.create(client, settings, self.identity, channel)
                await self._activate(client)
        if self._file is not None:
            self._file.write(self._as_orphan(client))
        await asyncio.to_thread(_security.keep_pin, settings, self.identity, channel, self.now())
        self._start(self._renew(client))
        await self._learn()

    def _as_orphan(self, client: Any) -> Orphan:
        """What it would take to close this session after its connection broke."""
        token, peer = client.uaclient.session.authentication_token, client.security_policy.peer_certificate
        return Orphan(self.settings.endpoint, token, client._server_nonce, client._policy_ids, peer)

    async def _open_channel(self, client: Any) -> None:
        """Opens the channel. A server that simply hangs up here has seen the gateway's certificate and does not like it."""
        try:
            await client.open_secure_channel()
        except ConnectionError as error:
            if client.security_policy.host_certificate is None:
                raise
            raise ChannelRefusedError(str(error)) from error

    async def _close_orphan(self, client: Any) -> None:
        """Closes the session that the last link left behind, so that a server with few of them does not run out; from the new channel
        alone, which takes it over, it can be closed."""
        unprotected = not client.security_policy.peer_certificate
        if not await self._take_over(client):
            return
        try:
            await client.uaclient.close_session(True)
        except ua.UaStatusCodeError as error:
            log.debug("%s: closing the session left behind: %s", self.settings.endpoint, error)
        self._without_session(client)
        if unprotected:
            client.security_policy.peer_certificate = None

    async def _take_over(self, client: Any) -> bool:
        """Activates the session that the last link left behind on the new channel (OPC 10000-4 §5.6.3, §6.7); False if the server does
        not have it any more."""
        orphan, self.orphan = self.orphan, None
        if orphan is None or orphan.endpoint != self.settings.endpoint:
            return False  # another server's ends by its own time-out
        unprotected = not client.security_policy.peer_certificate
        client._server_nonce, client._policy_ids = orphan.nonce, orphan.policies
        client.security_policy.peer_certificate = client.security_policy.peer_certificate or orphan.certificate
        client.uaclient.session.restore_authentication_token(orphan.token)
        try:
            await self._activate(client)
        except (ua.UaStatusCodeError, AdapterError) as error:
            log.debug("%s: the session left behind is gone already: %s", self.settings.endpoint, error)
            self._without_session(client)
            if unprotected:
                client.security_policy.peer_certificate = None
            return False
        return True

    @staticmethod
    def _without_session(client: Any) -> None:
        client.uaclient.session.reset_authentication_token()
        client._server_nonce, client._policy_ids = None, []

    async def _activate(self, client: Any) -> None:
        await _activation.activate(client, self.settings, self.identity, self.now())

    async def close(self, *, leave: bool = False) -> None:
        """Closes session (with its subscriptions), channel and socket, in about a second; never raises.

        `leave`: the link is dead, and the session is left to be taken over by the next one: nothing is sent any more.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await self._end(client, leave)
        finally:
            file, self._file = self._file, None
            if file is not None:
                if self.orphan is None:
                    file.clear()
                file.release()

    async def _end(self, client: Any, leave: bool) -> None:
        client.uaclient.pre_request_hook = None
        protocol = client.uaclient.protocol
        transport = protocol.transport if protocol is not None else None
        session = client.uaclient.session
        if session.has_session:
            self.orphan = self._as_orphan(client)
        if transport is None or protocol.is_closed:
            return
        if leave and session.has_session:
            client.disconnect_socket()
            transport.abort()
            return
        try:
            for step in (lambda: client.uaclient.close_session(True), client.uaclient.close_secure_channel):
                try:
                    await asyncio.wait_for(step(), _CLOSING)
                    if session.state.value == "closed":
                        self.orphan = None
                except Exception as error:  # noqa: BLE001  a channel that was never opened makes asyncua raise anything
                    log.debug("%s: closing: %r", self.settings.endpoint, error)
        finally:
            client.disconnect_socket()
            if transport.get_write_buffer_size():
                transport.abort()  # nobody reads at the other end

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _renew(self, client: Any) -> None:
        """Renews the channel's token after three quarters of its lifetime (OPC 10000-4 §5.6.2)."""
        try:
            while True:
                await asyncio.sleep(client.secure_channel_timeout * 0.75 / 1000)
                with asyncua_decodes("renewing the channel"):
                    await client.open_secure_channel(renew=True)
                client.uaclient.revolve_security_token()
        except EXPECTED as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The session is lost."""
        if not self.failed.done():
            self.failed.set_result(error)

    # -------------------------------------------------------------------------------------------------------- calls

    async def send(self, request: Any, timeout: float | None = None) -> bytes:
        """The bytes of the answer from its type id on. `timeout` 0 waits for ever and says so to the server.

        Raises asyncua's error for a ServiceFault, ConnectionError when the link is or gets lost.
        """
        client = self._client
        protocol = client.uaclient.protocol if client is not None else None
        if protocol is None:
            raise ConnectionError("the session is closed")
        self._count()
        frames = self.frames
        if frames is not None:
            _frames.sent(frames, self.now(), request)
        try:
            buffer: Buffer = await protocol.send_request(request, self.settings.timeout if timeout is None else timeout)
        except EXPECTED as error:
            if frames is not None:
                frames.note(self.now(), f"{type(request).__name__}: {type(error).__name__}: {error}")
            raise
        data = bytes(buffer.read(len(buffer)))
        if frames is not None:
            _frames.received(frames, self.now(), data)
        return data

    async def call(self, request: Any, response: type[Any]) -> Any:
        """Sends a request and decodes the answer with asyncua; its ServiceResult has been checked."""
        data = await self.send(request)
        with asyncua_decodes(response.__name__):
            answer = struct_from_binary(response, Buffer(data))
            answer.ResponseHeader.ServiceResult.check()
        return answer

    async def read(self, nodes: Sequence[Any], attribute: int = 13, timestamps: bool = True) -> list[Row]:
        """Reads one attribute (13: Value) of nodes within the server's limits."""
        return await self.read_attributes([(node, attribute) for node in nodes], timestamps)

    async def read_attributes(self, wanted: Sequence[tuple[Any, int]], timestamps: bool = True) -> list[Row]:
        """Reads (node, attribute) pairs within the server's limits."""

        async def call(piece: Sequence[tuple[Any, int]]) -> list[Row]:
            request = ua.ReadRequest()
            request.Parameters.TimestampsToReturn = (
                ua.TimestampsToReturn.Both if timestamps else ua.TimestampsToReturn.Neither
            )
            for node, attribute in piece:
                value_id = ua.ReadValueId()
                value_id.NodeId = node
                value_id.AttributeId = ua.AttributeIds(attribute)
                request.Parameters.NodesToRead.append(value_id)
            return self.decoder.read_response(await self.send(request))

        return await self.limits.calls(READ, wanted, call)

    async def _learn(self) -> None:
        """Namespaces and limits; a server that lacks the limits' nodes has none to tell."""
        (namespaces,) = await self.read([ua.NodeId(NAMESPACE_ARRAY)])
        if not isinstance(namespaces[0], list):
            raise DecodingError(f"NamespaceArray is {namespaces[0]!r}, expected a list of URIs")
        self.namespaces = [str(uri) for uri in namespaces[0]]
        self.decoder = Decoder(self.namespaces)
        kinds = list(LIMIT_NODES)
        rows = await self.read([ua.NodeId(LIMIT_NODES[READ])])
        self.limits.tell(READ, _number(rows[0]))
        others = [kind for kind in kinds if kind != READ]
        rows = await self.read([ua.NodeId(n) for n in (*(LIMIT_NODES[k] for k in others), MAX_ITEMS_PER_SUBSCRIPTION)])
        for kind, row in zip(others, rows, strict=False):
            self.limits.tell(kind, _number(row))
        told = _number(rows[-1])
        if told:
            learned = self.limits.items_per_subscription
            self.limits.items_per_subscription = told if learned is None else min(told, learned)

    async def server_status(self) -> tuple[int | None, int, int]:
        """CurrentTime (µs), State (OPC 10000-5 §12.6: 0 Running, 4 Shutdown) and SecondsTillShutdown."""
        rows = await self.read([ua.NodeId(CURRENT_TIME), ua.NodeId(STATE), ua.NodeId(SECONDS_TILL_SHUTDOWN)])
        time = rows[0][0]
        return (time if isinstance(time, int) else None), _number(rows[1]) or 0, _number(rows[2]) or 0


def _number(row: Row) -> int | None:
    return row[0] if isinstance(row[0], int) and row[1] >> 30 != 2 else None
