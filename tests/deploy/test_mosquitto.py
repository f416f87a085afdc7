"""Mosquitto with the shipped settings, ACL and start script, only the paths and the port put in the place of the container's."""

from __future__ import annotations

import os
import queue
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.bus.topics import Topics
from schemas.wire import MAX_MESSAGE
from tests.deploy.files import DEPLOY, SECRETS
from tests.servers.needs import require
from tests.servers.processes import HOST, ChildProcess, accepts, free_port
from tests.servers.waiting import eventually

TOPICS = Topics()
GATEWAY = "hall-1"
USERS = ("collect", "ingest", "serve", "reader")
LEDGER = {
    TOPICS.ledger(GATEWAY): ({"collect"}, {"ingest"}),
    TOPICS.sync(GATEWAY): ({"collect"}, {"ingest"}),
    TOPICS.confirmed(GATEWAY): ({"ingest"}, {"collect"}),
    TOPICS.committed("store-1"): ({"ingest"}, {"serve"}),
    TOPICS.commands(GATEWAY): (set[str](), set[str]()),
}
COURTESY = {
    topic: ({"collect"}, {"reader"})
    for topic in (
        TOPICS.readings("press-01"),
        TOPICS.events("press-01"),
        TOPICS.birth("press-01"),
        TOPICS.status("press-01"),
        TOPICS.gateway_status(GATEWAY),
    )
}
FOREIGN = {
    topic: (set[str](), set[str]())
    for topic in ("guantong/v1/ledger", "guantong/v1/ledger/a/b", "guantong/v2/ledger/a", "other/v1/readings/a", "a")
}
RULES: dict[str, tuple[set[str], set[str]]] = {**LEDGER, **COURTESY, **FOREIGN}
"""Topic -> who writes it, who reads it."""


@dataclass
class Broker:
    """The running broker and its passwords."""

    port: int
    passwords: dict[str, str]
    process: ChildProcess
    hashes: Path


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)
    return folder


def start(folder: Path, secrets: Path, port: int) -> ChildProcess:
    """start.sh as in the container."""
    programs = {require("mosquitto").parent, require("mosquitto_passwd").parent}
    text = (DEPLOY / "mosquitto/mosquitto.conf").read_text(encoding="utf-8")
    for ours, theirs in (
        ("listener 1883\n", f"listener {port} {HOST}\n"),
        ("/mosquitto/run/passwords", str(folder / "passwords")),
        ("/mosquitto/config/acl", str(DEPLOY / "mosquitto/acl")),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    if os.geteuid() == 0:
        text += "user root\n"  # else it gives up root for a user who cannot read this folder
    configuration = folder / "mosquitto.conf"
    configuration.write_text(text, encoding="utf-8")
    return ChildProcess(
        ["/bin/sh", DEPLOY / "mosquitto/start.sh"],
        env={
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "MOSQUITTO_SECRETS": str(secrets),
            "MOSQUITTO_PASSWORDS": str(folder / "passwords"),
            "MOSQUITTO_CONFIGURATION": str(configuration),
        },
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, secrets: Path) -> Iterator[Broker]:
    folder, port = tmp_path_factory.mktemp("mosquitto"), free_port()
    process = start(folder, secrets, port)
    try:
        process.wait_until(lambda: accepts(port), what="listening")
        passwords = {user: (secrets / f"mqtt_{user}").read_text().strip() for user in USERS}
        yield Broker(port, passwords, process, folder / "passwords")
    finally:
        process.stop()


@dataclass
class Client:
    """A connected MQTT 5 client: what it received, and how the broker answered its messages."""

    paho: mqtt.Client
    reasons: queue.Queue[Any] = field(default_factory=queue.Queue)
    received: list[tuple[str, bytes]] = field(default_factory=list)
    answers: dict[int, bool] = field(default_factory=dict)
    taken: int = 0

    def on_subscribe(self, *_: object) -> None:
        self.taken += 1

    def subscribe(self, topic_filter: str) -> None:
        """Returns when the broker has taken the subscription."""
        taken = self.taken
        self.paho.subscribe(topic_filter, qos=1)
        eventually(lambda: self.taken > taken, what=f"a subscription to {topic_filter}")

    def refused(self, topic: str, payload: bytes) -> bool:
        """Publishes at QoS 1; True when the PUBACK says that it is not allowed."""
        message = self.paho.publish(topic, payload, qos=1).mid
        eventually(lambda: message in self.answers, what=f"an answer to a message on {topic}")
        return self.answers[message]


def connect(port: int, user: str | None, password: str | None) -> Client:
    """Raises AssertionError when the broker does not accept."""
    paho = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
    client = Client(paho)
    if user is not None:
        paho.username_pw_set(user, password)
    paho.on_connect = lambda _c, _u, _f, reason, properties: client.reasons.put((reason, properties))
    paho.on_subscribe = client.on_subscribe
    paho.on_message = lambda _c, _u, message: client.received.append((message.topic, message.payload))
    paho.on_publish = lambda _c, _u, mid, reason, _p: client.answers.update({mid: reason.is_failure})
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    paho.connect(HOST, port, clean_start=True, properties=properties)
    paho.loop_start()
    reason, _ = client.reasons.get(timeout=10)
    if reason.is_failure:
        paho.loop_stop()
        raise AssertionError(str(reason))
    return client


@pytest.fixture
def clients(broker: Broker) -> Iterator[dict[str, Client]]:
    made = {user: connect(broker.port, user, broker.passwords[user]) for user in USERS}
    yield made
    for client in made.values():
        client.paho.disconnect()
        client.paho.loop_stop()


def test_everybody_writes_and_reads_what_is_theirs_and_nothing_else(clients: dict[str, Client]) -> None:
    for client in clients.values():
        client.subscribe("#")
    expected: dict[str, set[str]] = {user: set() for user in USERS}
    for topic, (writers, readers) in RULES.items():
        for user, client in clients.items():
            assert client.refused(topic, user.encode()) is (user not in writers), f"{user} writes {topic}"
        for user in readers if writers else ():
            expected[user].add(topic)
    # what was sent before reaches everybody before this one, which each of them may read
    last = {TOPICS.confirmed("last"): "ingest", TOPICS.sync("last"): "collect", TOPICS.committed("last"): "ingest",
            TOPICS.status("last"): "collect"}  # fmt: skip
    for topic, user in last.items():
        assert not clients[user].refused(topic, b"last")
    for user, client in clients.items():
        eventually(lambda client=client: any(p == b"last" for _, p in client.received), what=f"the last to {user}")  # type: ignore[misc]
        assert {topic for topic, payload in client.received if payload != b"last"} == expected[user], user


def test_nobody_without_a_password(broker: Broker) -> None:
    for user, password in ((None, None), ("collect", "wrong"), ("collect", ""), ("nobody", "x")):
        with pytest.raises(AssertionError, match=r"(?i)not authori[sz]ed|bad user"):
            connect(broker.port, user, password)


def test_a_full_message_of_the_ledger_fits_and_a_huge_one_ends_the_connection(
    broker: Broker, clients: dict[str, Client]
) -> None:
    clients["ingest"].subscribe(TOPICS.ledger("+"))
    full = bytes(MAX_MESSAGE)
    assert not clients["collect"].refused(TOPICS.ledger(GATEWAY), full)
    eventually(lambda: (TOPICS.ledger(GATEWAY), full) in clients["ingest"].received, what="the full message")
    lost: list[bool] = []
    clients["collect"].paho.on_disconnect = lambda *_: lost.append(True)
    clients["collect"].paho.publish(TOPICS.ledger(GATEWAY), bytes(300_000), qos=1)
    eventually(lambda: lost, what="the end of the connection")
    assert broker.process.running


def test_the_broker_tells_a_limit_that_the_gateway_accepts(broker: Broker) -> None:
    paho = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
    told: queue.Queue[Any] = queue.Queue()
    paho.on_connect = lambda _c, _u, _f, _reason, properties: told.put(properties)
    paho.username_pw_set("collect", broker.passwords["collect"])
    paho.connect(HOST, broker.port)
    paho.loop_start()
    try:
        assert told.get(timeout=10).MaximumPacketSize >= MAX_MESSAGE + 512
    finally:
        paho.disconnect()
        paho.loop_stop()


def test_passwords_are_kept_as_hashes_only(broker: Broker) -> None:
    kept = broker.hashes.read_text()
    assert [line.split(":")[0] for line in kept.splitlines()] == list(USERS)
    assert not any(password in kept for password in broker.passwords.values())
    assert broker.hashes.stat().st_mode & 0o077 == 0


def test_it_does_not_start_without_a_password(tmp_path: Path, secrets: Path) -> None:
    partly = tmp_path / "secrets"
    partly.mkdir()
    for user in ("collect", "ingest"):
        (partly / f"mqtt_{user}").write_text((secrets / f"mqtt_{user}").read_text())
    (partly / "mqtt_serve").write_text("\n")
    process = start(tmp_path, partly, free_port())
    eventually(lambda: not process.running, what="the end")
    assert process.kill() == 1
    assert "MQTT user serve" in process.output()


def test_secrets_are_random_kept_and_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(SECRETS)
    assert len(set(made.values())) == len(SECRETS)
    assert all(len(text.strip()) == 64 for text in made.values())
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "mqtt_reader").unlink()
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert again.pop("mqtt_reader") != made.pop("mqtt_reader")
    assert again == made
