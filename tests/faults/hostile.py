"""Clients that do what they should not: they send rubbish, or never read."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from random import Random
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from schemas.wire import VERSION, ZERO_HASH, Envelope, Kind
from tests.faults.rig import Rig
from tests.servers.processes import HOST

LEDGER = "guantong/v1/ledger/gw"


def client(rig: Rig) -> mqtt.Client:
    """A connected MQTT client, with its network loop in a thread."""
    made = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    if rig.authority is not None:
        made.tls_set(str(rig.authority.certificate))
    made.connect(HOST, rig.broker_port)
    made.loop_start()
    return made


class Flood:
    """Rubbish on the ledger's topics, as fast as asked, until `end`: bytes of no meaning, messages of other shapes and versions, pieces of
    true messages, true messages again, and streams that nobody has."""

    def __init__(self, rig: Rig, random: Random, each_second: int) -> None:
        self.sent = 0
        self._random, self._pause = random, 1.0 / each_second
        self._true: list[bytes] = []
        self._client = client(rig)
        self._client.on_message = self._heard
        self._client.subscribe(LEDGER, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="flood")
        self._thread.start()

    def _heard(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # it hears its own rubbish, too
            if msgspec.msgpack.decode(message.payload, type=Envelope).stream != "f" * 32:
                self._true = [*self._true[-50:], message.payload]

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            with contextlib.suppress(OSError, ValueError):
                self._client.publish(self._topic(), self._rubbish(), 0)
                self.sent += 1

    def _topic(self) -> str:
        return self._random.choice(
            [LEDGER, LEDGER, LEDGER, "guantong/v1/sync/gw", "guantong/v1/confirmed/gw", "guantong/v1/commands/gw"]
        )

    def _rubbish(self) -> bytes:
        random = self._random
        true = list(self._true)
        kinds = 6 if true else 4
        match random.randrange(kinds):
            case 0:
                return random.randbytes(random.randrange(0, 3000))
            case 1:
                return msgspec.msgpack.encode(
                    [VERSION, Kind.READINGS, "f" * 32, random.randrange(1, 9), "x", 1, b"", 0, None]
                )
            case 2:
                return msgspec.msgpack.encode({"version": VERSION, "stream": None})
            case 3:
                body = random.randbytes(100)
                unknown = Envelope(
                    VERSION, random.randrange(30), "f" * 32, 7, 7, 1, ZERO_HASH, random.randrange(5), body
                )
                return msgspec.msgpack.encode(unknown)
            case 4:
                piece = random.choice(true)
                return piece[: random.randrange(len(piece))]
            case _:
                return random.choice(true)

    def end(self) -> None:
        """Sends nothing more."""
        self._over.set()
        self._thread.join(10)
        self._client.loop_stop()
        self._client.disconnect()


def _connection(rig: Rig) -> socket.socket:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain.settimeout(10)
    plain.connect((HOST, rig.broker_port))
    if rig.authority is None:
        return plain
    context = ssl.create_default_context(cafile=str(rig.authority.certificate))
    return context.wrap_socket(plain, server_hostname=HOST)


def deaf_subscriber(rig: Rig) -> socket.socket:
    """An MQTT 3.1.1 client that subscribes to everything at QoS 1 and never reads again (OASIS MQTT 3.1.1, clauses 3.1 and 3.8)."""
    connection = _connection(rig)
    name = f"deaf{time.monotonic_ns()}".encode()
    body = b"\x00\x04MQTT\x04\x02" + struct.pack(">H", 0) + struct.pack(">H", len(name)) + name
    connection.sendall(bytes([0x10, len(body)]) + body)
    connection.recv(4)
    topic = b"guantong/#"
    subscribe = struct.pack(">HH", 1, len(topic)) + topic + b"\x01"
    connection.sendall(bytes([0x82, len(subscribe)]) + subscribe)
    return connection


def deaf_listener(rig: Rig) -> socket.socket:
    """A client of the live values (SSE) that never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(10)
    connection.connect((HOST, rig.api_port))
    connection.sendall(
        b"GET /api/v1/stream?match=*/** HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    )
    return connection
