"""The containers' configuration at work: each role with its own MQTT user and its own database user, and nothing more than they may do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.bus.topics import Topics
from tests.deploy import test_mosquitto as mosquitto
from tests.deploy import test_timescaledb as database
from tests.deploy.files import DEPLOY, ROOT
from tests.servers.postgresql import Postgres
from tests.servers.processes import HOST, ChildProcess, accepts, free_port
from tests.servers.waiting import eventually

pytestmark = pytest.mark.chain
DEVICES = {
    48401: "imm-01",
    48402: "mt-01",
    48403: "plc-01",
    48411: "meter-01",
    48412: "temp-01",
    48413: "press-01",
    48414: "sew-line",
}


@dataclass
class Installation:
    """What runs, and how to ask it."""

    api: str
    key: str
    metrics: dict[str, int]
    mqtt: int
    reader: str
    store: str

    def get(self, path: str, *, key: bool = True) -> Any:
        request = urllib.request.Request(self.api + path)
        if key:
            request.add_header("Authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def refused(self, role: str) -> float:
        """Messages of this role that the broker has refused."""
        with urllib.request.urlopen(f"http://{HOST}:{self.metrics[role]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "guantong_bus_messages_total" and sample.labels["what"] == "refused"
        )


def configuration(folder: Path, role: str, secrets: Path, ports: dict[str, int]) -> Path:
    """deploy/guantong.yaml as this role sees it in its container."""
    text = (DEPLOY / "guantong.yaml").read_text(encoding="utf-8")
    text = text.replace("/run/secrets/bus_password", str(secrets / f"mqtt_{role}"))
    text = text.replace("/run/secrets/store_password", str(secrets / f"store_{role}"))
    text = text.replace("simulators", HOST)
    for port, device in DEVICES.items():
        assert str(port) in text
        text = text.replace(str(port), str(ports[device]))
    file = folder / f"{role}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("together")
    secrets = folder / "secrets"
    subprocess.run([DEPLOY / "make-secrets", secrets], check=True, capture_output=True)
    with ExitStack() as stack:
        server = stack.enter_context(closing(Postgres({"password_encryption": "'scram-sha-256'"})))
        server.start()
        url = server.new_database()
        assert database.run_roles(url, secrets).returncode == 0

        mqtt = free_port()
        broker = mosquitto.start(folder, secrets, mqtt)
        stack.callback(broker.stop)
        broker.wait_until(lambda: accepts(mqtt), what="listening")

        simulators = ChildProcess([sys.executable, "-m", "simulators", "--base-port", "0", "--speed", "10"], cwd=ROOT)
        stack.callback(simulators.stop)
        simulators.wait_until(lambda: any('"ready":"all"' in line.replace(" ", "") for line in simulators.lines), 60)
        told = [json.loads(line) for line in simulators.lines if line.startswith("{")]
        ports = {
            line["device"]: int(line["endpoint"].rsplit(":", 1)[1].split("/")[0]) for line in told if "device" in line
        }

        metrics = {"collect": free_port(), "ingest": free_port()}
        api = free_port()
        key = ""
        for role in ("serve", "collect", "ingest"):  # any order of starting is right
            environment = {
                **os.environ,
                "GUANTONG_CONFIG": str(configuration(folder, role, secrets, ports)),
                "GUANTONG_DATA_DIR": str(folder / role),
                "GUANTONG_BUS_HOST": HOST,
                "GUANTONG_BUS_PORT": str(mqtt),
                "GUANTONG_BUS_USERNAME": role,
                "GUANTONG_API_PORT": str(api),
                "GUANTONG_METRICS_COLLECT_PORT": str(metrics["collect"]),
                "GUANTONG_METRICS_INGEST_PORT": str(metrics["ingest"]),
            }
            if role != "collect":
                environment["GUANTONG_STORE_URL"] = url.replace("//guantong@", f"//guantong_{role}@")
            if role == "serve":
                made = guantong("key", "add", "me", "--role", "viewer", environment=environment)
                assert made.returncode == 0, made.stderr
                key = made.stdout.strip()
            process = ChildProcess(
                [sys.executable, "-c", "from gateway.cli import main; main()", "run", "--role", role],
                env=environment, cwd=ROOT,
            )  # fmt: skip
            stack.callback(process.stop)
        reader = (secrets / "mqtt_reader").read_text().strip()
        yield Installation(f"http://{HOST}:{api}", key, metrics, mqtt, reader, url)


def guantong(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_reading_goes_from_device_to_rest(installation: Installation) -> None:
    def connected() -> set[str]:
        try:
            items = installation.get("/api/v1/devices")["items"]
        except (urllib.error.URLError, ConnectionError) as error:
            raise AssertionError(str(error)) from error
        return {item["id"] for item in items if item["state"] == "connected"}

    living = {
        "imm-01",
        "mt-01",
        "plc-01",
        "meter-01",
        "temp-01",
        "press-01",
        "sew-01",
        "sew-02",
        "sew-03",
        "sew-05",
        "sew-06",
    }
    eventually(lambda: connected() == living, 60, what="all devices but the dead one")

    def good() -> set[str]:
        items = installation.get("/api/v1/latest")["items"]
        return {item["signal"].split("/")[0] for item in items if item["quality"] == "good"}

    eventually(lambda: good() == living, 30, what="good values of each of them")


def test_the_broker_refuses_none_of_their_messages(installation: Installation) -> None:
    def stored() -> int:
        with psycopg.connect(installation.store) as connection:
            row = connection.execute("SELECT count(*) FROM reading").fetchone()
            assert row is not None
            return int(row[0])

    before = stored()
    eventually(lambda: stored() > before + 100, 30, what="more readings in the store")
    assert installation.refused("collect") == 0
    assert installation.refused("ingest") == 0


def test_the_reader_hears_readings_births_and_states(installation: Installation) -> None:
    client = mosquitto.connect(installation.mqtt, "reader", installation.reader)
    try:
        client.subscribe("guantong/#")
        kinds = {"readings", "birth", "status"}
        eventually(lambda: {topic.split("/")[2] for topic, _ in client.received} >= kinds, 30, what=f"{kinds}")
        topics = Topics()
        assert (topics.gateway_status("gateway")) in {topic for topic, _ in client.received}
        assert not any(topic.startswith("guantong/v1/ledger") for topic, _ in client.received)
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


def test_they_are_alive_for_the_health_check(installation: Installation) -> None:
    environment = {
        "GUANTONG_API_PORT": installation.api.rsplit(":", 1)[1],
        "GUANTONG_METRICS_COLLECT_PORT": str(installation.metrics["collect"]),
        "GUANTONG_METRICS_INGEST_PORT": str(installation.metrics["ingest"]),
    }
    told = subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py", "collect", "ingest", "serve"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, "")


def test_without_a_key_serve_does_not_listen_beyond_loopback(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "GUANTONG_DATA_DIR": str(tmp_path),
        "GUANTONG_API_HOST": "0.0.0.0",
        "GUANTONG_API_PORT": str(port),
    }
    process = ChildProcess([sys.executable, "-m", "gateway.roles", "serve"], env=environment, cwd=ROOT)
    started = time.monotonic()
    eventually(lambda: not process.running or accepts(port) or time.monotonic() - started > 20, 25, what="its end")
    code, listening = process.returncode, accepts(port)
    process.kill()
    assert (code, listening) == (2, False), process.output()
    assert "guantong key add" in process.output()
