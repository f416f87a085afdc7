"""One connection to the broker, kept for ever: MQTT 5 or 3.1.1 by paho-mqtt, a new paho client for each connection.

The bus is a lossy pipe: nothing here is queued over a disconnect, no session is kept (clean start, expiry 0). QoS 1 messages are
acknowledged on receipt. Handlers are called in the event loop, in order of arrival within a topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from schemas.bilingual import Bilingual, chinese, of_error
from schemas.wire import MAX_MESSAGE, State

log = logging.getLogger("guantong.bus")

KEEPALIVE = 15
CONNECT_TIMEOUT = 5.0
FIRST_PAUSE, LONGEST_PAUSE, AUTH_PAUSE = 0.2, 15.0, 30.0
COURTESY_QUEUE = 1000
"""Messages on their way to the broker above which courtesy messages (QoS 0) are dropped."""
_RECEIVE_MAXIMUM = 1000
_USUAL_LARGEST = 4 * MAX_MESSAGE
"""Largest packet, in bytes, that a broker is expected to take when it does not say (only MQTT 5 can): the embedded one does."""
_HEADROOM = 1024
"""What topic and headers may add to a payload."""

Handler = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM; `ca` None: the system's certificates."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    key_password: str | None = None


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this connection dies."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class BusOptions:
    """Where the broker is and who we are."""

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None
    client_id: str = ""
    will: Will | None = None


@dataclass(slots=True)
class Health:
    """State of the connection, with its reason and what a person can do."""

    state: State = "starting"
    reason: str = ""
    fix_en: str = ""
    fix_zh: str = ""


@dataclass(slots=True)
class Numbers:
    """Running totals, for /metrics."""

    connects: int = 0
    disconnects: int = 0
    published: int = 0
    received: int = 0
    dropped: int = 0
    refused: int = 0


class _ConnectError(Exception):
    def __init__(self, reason: str, fix_en: str, fix_zh: str, *, auth: bool = False) -> None:
        super().__init__(reason)
        self.fix_en, self.fix_zh, self.auth = fix_en, fix_zh, auth


@dataclass(slots=True)
class _Session:
    """What belongs to one paho client."""

    client: mqtt.Client
    connected: asyncio.Future[None]
    lost: asyncio.Future[str]
    subscribed: dict[int, str] = field(default_factory=dict)
    inbox: deque[tuple[str, bytes]] = field(default_factory=deque)
    woken: bool = False
    queued: int = 0
    largest: int = _USUAL_LARGEST
    taken: dict[int, Callable[[], None]] = field(default_factory=dict)


class Bus:
    """See the module. `subscribe` and the callbacks are set before `run`, which is cancelled to end it."""

    def __init__(self, options: BusOptions) -> None:
        self.options = options
        self.health = Health()
        self.numbers = Numbers()
        self.on_connected: list[Callable[[], None]] = []
        self.on_disconnected: list[Callable[[], None]] = []
        self._handlers: list[tuple[str, Handler]] = []
        self._session: _Session | None = None
        self._too_large: set[str] = set()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """`handler(topic, payload)` for each message on this filter (QoS 1), in every connection from now on."""
        self._handlers.append((topic_filter, handler))

    @property
    def connected(self) -> bool:
        """True while messages can be published."""
        return self._session is not None

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        on_taken: Callable[[], None] | None = None,
    ) -> bool:
        """Hands a message to the connection. False when there is none, or (QoS 0) when the broker does not keep up, or when
        the message is larger than the broker takes: it would cut the connection.

        `on_taken` is called in the loop when the broker has acknowledged a QoS 1 message; never after the connection was lost.
        """
        session = self._session
        if session is None:
            return False
        if qos == 0 and session.queued > COURTESY_QUEUE:
            self.numbers.dropped += 1
            return False
        if len(payload) + len(topic) > session.largest - _HEADROOM:
            self._tell_too_large(topic, len(payload), session.largest)
            return False
        session.queued += 1
        info = session.client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc not in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_QUEUE_SIZE):
            session.queued -= 1
            return False
        self.numbers.published += 1
        if on_taken is not None:
            session.taken[info.mid] = on_taken
        return True

    def _tell_too_large(self, topic: str, size: int, largest: int) -> None:
        """Counted each time, told once for each topic."""
        self.numbers.refused += 1
        if topic not in self._too_large:
            self._too_large.add(topic)
            log.warning("%s: a message of %d bytes is not sent, the broker takes %d at most", topic, size, largest)

    # ------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Connects, and connects again, until cancelled. Logs once when the bus is lost and once when it is back."""
        pause = FIRST_PAUSE
        told = ""
        try:
            while True:
                try:
                    session = await self._open()
                except _ConnectError as error:
                    self.health = Health(
                        "failed" if error.auth else "recovering", of_error(error), error.fix_en, error.fix_zh
                    )
                    if told != str(error):
                        told = str(error)
                        log.warning("bus %s:%s: %s. %s", self.options.host, self.options.port, error, error.fix_en)
                    wait = AUTH_PAUSE if error.auth else pause
                    await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                if told:
                    log.info("bus %s:%s: connected again", self.options.host, self.options.port)
                pause, told = FIRST_PAUSE, ""
                reason = await self._serve(session)
                told = reason
                self.health = Health(
                    "recovering",
                    reason,
                    "Check that the broker runs and can be reached.",
                    "请检查 MQTT 代理是否运行、网络是否可达。",
                )
                log.warning("bus %s:%s: %s; connecting again", self.options.host, self.options.port, reason)
        finally:
            self.health = Health("stopped")

    async def _serve(self, session: _Session) -> str:
        self._session = session
        self.numbers.connects += 1
        self.health = Health("ok")
        try:
            for callback in self.on_connected:
                callback()
            self._drain(session)
            return await session.lost
        finally:
            self._session = None
            self.numbers.disconnects += 1
            for callback in self.on_disconnected:
                callback()
            await self._close(session)

    async def _close(self, session: _Session) -> None:
        def close() -> None:
            session.client.disconnect()
            session.client.loop_stop()

        # a cancelled role must not leave paho's thread behind
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, close))

    # ------------------------------------------------------------------------------------------------ connecting

    async def _open(self) -> _Session:
        loop = asyncio.get_running_loop()
        client = self._client()
        session = _Session(client, loop.create_future(), loop.create_future())
        self._wire(session, loop)
        try:
            await loop.run_in_executor(None, self._dial, client)
        except _ConnectError:
            raise
        except (OSError, ValueError) as error:  # ValueError: paho, of a host name that cannot be one
            raise _explain(error, self.options) from error
        client.loop_start()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT * 2):
                await session.connected
        except BaseException as error:
            await self._close(session)
            if isinstance(error, TimeoutError):
                raise _ConnectError(
                    Bilingual(
                        "the broker accepted the connection and then said nothing", "代理接受了连接，但随后没有应答"
                    ),
                    "Check that this port belongs to an MQTT broker (and whether it expects TLS).",
                    "请确认该端口是 MQTT 代理（以及是否要求 TLS）。",
                ) from error
            raise
        return session

    def _client(self) -> mqtt.Client:
        five = self.options.protocol == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.options.client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            clean_session=None if five else True,
        )
        client.connect_timeout = CONNECT_TIMEOUT
        if self.options.username is not None:
            client.username_pw_set(self.options.username, self.options.password)
        if self.options.will is not None:
            client.will_set(self.options.will.topic, self.options.will.payload, qos=1, retain=True)
        return client

    def _dial(self, client: mqtt.Client) -> None:
        """In a worker thread: name lookup, TCP and TLS hand-shake, CONNECT."""
        tls = self.options.tls
        if tls is not None:
            context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
            if tls.cert is not None:
                context.load_cert_chain(tls.cert, tls.key, password=tls.key_password)
            client.tls_set_context(context)
        extra: dict[str, Any] = {}
        if self.options.protocol == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = _RECEIVE_MAXIMUM
            properties.SessionExpiryInterval = 0
            extra = {"clean_start": True, "properties": properties}
        client.connect(self.options.host, self.options.port, keepalive=KEEPALIVE, **extra)

    def _wire(self, session: _Session, loop: asyncio.AbstractEventLoop) -> None:
        """paho's callbacks run in its thread; they only pass on."""

        def call(function: Callable[..., None], *args: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                loop.call_soon_threadsafe(function, *args)

        def on_connect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, properties: Properties | None) -> None:
            call(self._connected, session, reason, properties)

        def on_subscribe(_c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
            call(self._subscribed, session, mid, reasons)

        def on_disconnect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
            call(self._lost, session, Bilingual(f"connection lost: {reason}", f"连接中断：{reason}"))

        def on_message(_c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
            session.inbox.append((message.topic, bytes(message.payload)))
            if not session.woken:
                session.woken = True
                call(self._drain, session)

        def on_publish(_c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
            call(self._published, session, mid, reason.is_failure, str(reason))

        session.client.on_connect = on_connect
        session.client.on_subscribe = on_subscribe
        session.client.on_disconnect = on_disconnect
        session.client.on_message = on_message
        session.client.on_publish = on_publish

    # ------------------------------------------------------------------------------------------ in the event loop

    def _connected(self, session: _Session, reason: ReasonCode, properties: Properties | None) -> None:
        if session.connected.done():
            return
        if reason.is_failure:
            session.connected.set_exception(_refused(str(reason)))
            return
        largest = getattr(properties, "MaximumPacketSize", None) if properties is not None else None
        if largest is not None and largest < MAX_MESSAGE + 512:
            session.connected.set_exception(
                _ConnectError(
                    Bilingual(
                        f"the broker takes packets of {largest} bytes at most; the ledger needs {MAX_MESSAGE + 512}",
                        f"代理的报文上限为 {largest} 字节；账本需要 {MAX_MESSAGE + 512}",
                    ),
                    f"Set the broker's largest packet to {4 * MAX_MESSAGE} (Mosquitto: max_packet_size).",
                    f"请把代理的最大报文设为 {4 * MAX_MESSAGE}（Mosquitto：max_packet_size）。",
                    auth=True,
                )
            )
            return
        if largest is not None:
            session.largest = largest
        for topic_filter, _ in self._handlers:
            _, mid = session.client.subscribe(topic_filter, qos=1)
            if mid is not None:
                session.subscribed[mid] = topic_filter
        if not self._handlers:
            session.connected.set_result(None)

    def _subscribed(self, session: _Session, mid: int, reasons: list[ReasonCode]) -> None:
        topic_filter = session.subscribed.pop(mid, "?")
        if session.connected.done():
            return
        if any(reason.is_failure for reason in reasons):
            session.connected.set_exception(
                _ConnectError(
                    Bilingual(f"the broker refuses the subscription to {topic_filter}", f"代理拒绝订阅 {topic_filter}"),
                    f"Allow this user to read {topic_filter} in the broker's ACL.",
                    f"请在代理的 ACL 中允许该用户订阅 {topic_filter}。",
                    auth=True,
                )
            )
        elif not session.subscribed:
            session.connected.set_result(None)

    def _lost(self, session: _Session, reason: str) -> None:
        if not session.connected.done():
            session.connected.set_exception(_refused(reason))
        if not session.lost.done():
            session.lost.set_result(reason)

    def _published(self, session: _Session, mid: int, failed: bool, reason: str) -> None:
        session.queued -= 1
        taken = session.taken.pop(mid, None)
        if taken is not None and not failed and session is self._session:
            taken()
        if failed:
            self.numbers.refused += 1
            if self.health.state == "ok":
                log.warning("bus %s:%s refuses a message: %s", self.options.host, self.options.port, reason)
                self.health = Health(
                    "degraded",
                    Bilingual(f"the broker refuses messages: {reason}", f"代理拒绝消息：{reason}"),
                    "Allow this user to write below the root topic in the broker's ACL.",
                    "请在代理的 ACL 中允许该用户向根主题下发布。",
                )

    def _drain(self, session: _Session) -> None:
        session.woken = False
        if self._session is not session:
            return  # arrived before the connection was announced: kept until it is, or gone with it
        while session.inbox:
            topic, payload = session.inbox.popleft()
            self.numbers.received += 1
            for topic_filter, handler in self._handlers:
                if mqtt.topic_matches_sub(topic_filter, topic):
                    handler(topic, payload)


def _refused(reason: str) -> _ConnectError:
    lower = reason.lower()
    if "authorized" in lower or "authorised" in lower or "user name" in lower or "password" in lower:
        return _ConnectError(
            Bilingual(f"the broker refuses this user: {reason}", f"代理拒绝该用户：{chinese(reason)}"),
            "Check bus.username and bus.password.",
            "请检查 bus.username 与 bus.password。",
            auth=True,
        )
    if "protocol version" in lower:
        return _ConnectError(
            Bilingual(
                f"the broker does not speak this version of MQTT: {reason}",
                f"代理不支持该 MQTT 版本：{chinese(reason)}",
            ),
            "Write bus.protocol: 3.1.1.",
            "请写 bus.protocol: 3.1.1。",
            auth=True,
        )
    return _ConnectError(
        Bilingual(f"the broker ended the connection: {reason}", f"代理结束了连接：{chinese(reason)}"),
        "See the broker's log; with MQTT 5 towards an old broker write bus.protocol: 3.1.1.",
        "请查看代理日志；若代理较旧，请写 bus.protocol: 3.1.1。",
    )


def _explain(error: Exception, options: BusOptions) -> _ConnectError:
    where = f"{options.host}:{options.port}"
    if isinstance(error, ssl.SSLError):
        return _ConnectError(
            Bilingual(f"TLS with {where} fails: {error}", f"与 {where} 的 TLS 连接失败：{error}"),
            "Check bus.tls.ca and that the certificate names this host; is it the TLS port?",
            "请检查 bus.tls.ca 以及证书中的主机名；端口是否为 TLS 端口？",
            auth=isinstance(error, ssl.SSLCertVerificationError),
        )
    if isinstance(error, ConnectionRefusedError):
        return _ConnectError(
            Bilingual(f"nothing listens on {where}", f"{where} 没有服务监听"),
            "Start the broker, or mend bus.host and bus.port.",
            "请启动 MQTT 代理，或检查 bus.host 与 bus.port。",
        )
    return _ConnectError(
        Bilingual(f"{where} cannot be reached: {error}", f"无法访问 {where}：{error}"),
        "Check the network and bus.host.",
        "请检查网络与 bus.host。",
    )
