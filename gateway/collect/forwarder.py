"""The forwarder: moves what is durable in the outbox over the bus, as the sender says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from gateway.bus.client import Bus
from gateway.bus.topics import Topics
from gateway.ledger.sender import Sender
from schemas.bilingual import Bilingual
from schemas.wire import Envelope, FromIngest, SyncRequest

log = logging.getLogger("guantong.forwarder")

_TICK = 0.25
_TRIM = 5.0

_encode = msgspec.msgpack.Encoder().encode
_from_ingest: msgspec.msgpack.Decoder[FromIngest] = msgspec.msgpack.Decoder(FromIngest)


def twin_text(gateway: str, stream: str) -> tuple[Bilingual, Bilingual]:
    """That a second collector lives under this gateway's id, and what is to be done."""
    return (
        Bilingual(
            f"another collector uses the gateway id {gateway}: its stream {stream} is stored too (a cloned box or a copied data_dir?)",
            f"另一个采集端也在使用网关编号 {gateway}：其数据流 {stream} 同样已入库（克隆的设备，或复制了 data_dir？）",
        ),
        Bilingual(
            "Nothing is lost. Stop one of the two, give it a gateway.id of its own and an empty data_dir.",
            "没有数据丢失。请停止其中一个，为其设置单独的 gateway.id 和空的 data_dir。",
        ),
    )


class Forwarder:
    """See the module. Everything that touches the outbox runs in `thread`, which it shares with the recorder."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        gateway: str,
        sender: Sender,
        thread: ThreadPoolExecutor,
        *,
        keep_confirmed: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus, self._topics, self._gateway = bus, topics, gateway
        self.sender = sender
        self._thread = thread
        self._keep = keep_confirmed
        self._monotonic = monotonic
        self._inbox: list[FromIngest] = []
        self._taken: deque[tuple[str, int]] = deque()
        self._link_changed = False
        self._work = asyncio.Event()
        self._told = ("", "")
        self._twin_told: str | None = None
        bus.subscribe(topics.confirmed(gateway), self._on_confirmed)
        bus.on_connected.append(self._on_link)
        bus.on_disconnected.append(self._on_link)

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._work.set()

    def _on_link(self) -> None:
        self._link_changed = True
        self._inbox.clear()
        self._work.set()

    def _on_confirmed(self, topic: str, payload: bytes) -> None:
        try:
            self._inbox.append(_from_ingest.decode(payload))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.warning("%s: a message that cannot be read", topic)
            return
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        trimmed = self._monotonic()
        while True:
            try:
                async with asyncio.timeout(_TICK):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            inbox, self._inbox = self._inbox, []
            changed, self._link_changed = self._link_changed, False
            messages = await loop.run_in_executor(self._thread, self._step, inbox, changed)
            for message in messages:
                if not self._publish(message):
                    break  # the connection is gone: the next sync says where to go on
            if messages and not isinstance(messages[0], SyncRequest):
                self._work.set()  # perhaps there is more that fits into the window
            now = self._monotonic()
            if now - trimmed > _TRIM:
                trimmed = now
                await loop.run_in_executor(self._thread, self.sender.outbox.trim, now - self._keep)
            self._tell()

    def _publish(self, message: SyncRequest | Envelope) -> bool:
        if isinstance(message, SyncRequest):
            return self._bus.publish(self._topics.sync(self._gateway), _encode(message))
        stream, last = message.stream, message.last_seq
        taken = partial(self._taken.append, (stream, last)) if self.sender.by_broker else None
        return self._bus.publish(self._topics.ledger(self._gateway), _encode(message), on_taken=taken)

    def _step(self, inbox: list[FromIngest], changed: bool) -> list[SyncRequest | Envelope]:
        now = self._monotonic()
        if changed:
            self.sender.disconnected()
            if self._bus.connected:
                self.sender.connected(now)
        for message in inbox:
            self.sender.receive(message, now)
        while self._taken:
            self.sender.acknowledged(*self._taken.popleft(), now)
        return self.sender.poll(now)

    def _tell(self) -> None:
        """Once for each change: another store, a problem of ingest, a fork."""
        told = (self.sender.other_store or "", self.sender.problem)
        if told != self._told:
            self._told = told
            if self.sender.other_store:
                log.error(
                    "store %s answers, but this outbox belongs to store %s: nothing is sent to it. If the new one is meant, run: "
                    "guantong ledger adopt %s",
                    self.sender.other_store, self.sender.outbox.store, self.sender.other_store,
                )  # fmt: skip
            if self.sender.problem:
                log.error("ingest: %s", self.sender.problem)
        twin = self.sender.twin
        if (twin is None) != (self._twin_told is None):
            if twin is not None:
                log.error("%s. %s", *twin_text(self._gateway, twin))
            else:
                log.info("no other collector uses the id %s any more", self._gateway)
            self._twin_told = twin
        while self.sender.forked:
            stream = self.sender.forked.pop()
            log.error(
                "stream %s was continued by somebody else (a machine set back while it ran?); it goes on under a new id",
                stream,
            )
