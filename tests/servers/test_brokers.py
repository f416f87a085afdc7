"""The brokers, with paho as the client."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.servers.brokers import BrokerProcess, IotcoreBroker, Mosquitto
from tests.servers.certificates import CertificateAuthority
from tests.servers.processes import HOST, accepts
from tests.servers.waiting import eventually


class MqttProbe:
    """A paho client with its network loop in a thread, and what it saw."""

    def __init__(self, port: int, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, **tls: Any) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.reasons: list[str] = []
        self.messages: list[tuple[str, bytes]] = []
        self.lost = threading.Event()
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.reasons.append(str(reason))
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, bytes(message.payload)))
        self.client.on_disconnect = lambda *_: self.lost.set()
        self._port = port
        if tls:
            self.client.tls_set(**tls)

    def open(self) -> str:
        self.client.connect(HOST, self._port)
        self.client.loop_start()
        return eventually(lambda: self.reasons, what="CONNACK")[0]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def mqtt_probe(port: int, version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, **tls: Any) -> Iterator[MqttProbe]:
    probe = MqttProbe(port, version, **tls)
    try:
        yield probe
    finally:
        probe.close()


def round_trip(port: int, version: MQTTProtocolVersion) -> None:
    with mqtt_probe(port, version) as probe:
        assert probe.open() == "Success"
        probe.client.subscribe("a/#", qos=1)
        eventually(lambda: probe.client.publish("a/b", b"\x00\xff", qos=1) and probe.messages, what="message back")
        assert probe.messages[0] == ("a/b", b"\x00\xff")


@pytest.mark.parametrize("name", ["mosquitto", "embedded_broker"])
def test_a_broker_speaks_both_versions_and_survives_a_kill(name: str, request: pytest.FixtureRequest) -> None:
    broker: BrokerProcess = request.getfixturevalue(name)
    round_trip(broker.port, MQTTProtocolVersion.MQTTv311)
    round_trip(broker.v5_port, MQTTProtocolVersion.MQTTv5)
    with mqtt_probe(broker.v5_port) as probe:
        probe.open()
        broker.kill()
        assert probe.lost.wait(5), "a killed broker ends its connections"
    assert not accepts(broker.port)
    broker.start()
    round_trip(broker.v5_port, MQTTProtocolVersion.MQTTv5)
    broker.stop()
    assert not broker.running


def test_the_embedded_broker_is_only_on_loopback(embedded_broker: IotcoreBroker) -> None:
    listening = {c.laddr for c in psutil.Process(embedded_broker.pid).net_connections("tcp") if c.status == "LISTEN"}
    assert listening == {(HOST, embedded_broker.port), (HOST, embedded_broker.v5_port)}


def test_mosquitto_with_passwords_and_acl(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    acl = "user collect\ntopic write out/#\n\nuser ingest\ntopic read out/#\n"
    broker = mosquitto_factory(users={"collect": "贯通-1", "ingest": "two"}, acl=acl)
    with mqtt_probe(broker.port) as anonymous, mqtt_probe(broker.port) as wrong:
        assert anonymous.open() == "Not authorized"
        wrong.client.username_pw_set("ingest", "three")
        assert wrong.open() == "Not authorized"
    with mqtt_probe(broker.port) as ingest, mqtt_probe(broker.port) as collect:
        ingest.client.username_pw_set("ingest", "two")
        assert ingest.open() == "Success"
        ingest.client.subscribe("#", qos=1)
        collect.client.username_pw_set("collect", "贯通-1")
        assert collect.open() == "Success"
        collect.client.publish("elsewhere", b"x", qos=1)
        eventually(lambda: collect.client.publish("out/1", b"y", qos=1) and ingest.messages, what="allowed message")
        assert {topic for topic, _ in ingest.messages} == {"out/1"}


def test_mosquitto_over_tls(
    mosquitto_factory: Callable[..., Mosquitto], certificate_authority: CertificateAuthority, tmp_path: Path
) -> None:
    broker = mosquitto_factory(authority=certificate_authority, require_client_certificate=True)
    client = certificate_authority.issue("collect", client=True)
    files: dict[str, Any] = {"certfile": str(client.certificate), "keyfile": str(client.key)}
    with mqtt_probe(broker.port, ca_certs=str(certificate_authority.certificate), **files) as probe:
        assert probe.open() == "Success"
    other = CertificateAuthority(tmp_path / "other", "another CA")
    context = ssl.create_default_context(cafile=other.certificate)
    with socket.create_connection((HOST, broker.port), timeout=5) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname=HOST)


def test_mosquitto_with_protocol_limits(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    broker = mosquitto_factory(settings={"max_packet_size": 1000})
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.publish("a", b"x" * 2000, qos=1)
        assert probe.lost.wait(5), "a packet above the limit ends the connection"


def test_mosquitto_keeps_retained_messages_when_persistent(mosquitto_factory: Callable[..., Mosquitto]) -> None:
    broker = mosquitto_factory(persistent=True)
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.publish("birth", b"1", qos=1, retain=True).wait_for_publish(5)
    broker.stop()
    broker.start()
    with mqtt_probe(broker.port) as probe:
        probe.open()
        probe.client.subscribe("birth")
        eventually(lambda: probe.messages == [("birth", b"1")], what="retained message")
