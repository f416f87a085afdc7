"""ThingsBoard Gateway as it is installed and configured here, and the little that it needs of a server.

It is installed by `make chaos-usual-needs` into an environment of its own and is no part of ours. It is configured as its own examples are: one Modbus
device, each signal as a time series, polled once a second. What differs from its defaults: host and port, no remote configuration and no statistics (there is no
server that could ask for them). Its storage is either what it comes with (memory, 100,000 records) or SQLite.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.plain import signal_name
from tests.servers.processes import HOST

PYTHON = Path("build/thingsboard-gateway/bin/python")
"""Where it is installed, below the project's folder."""
Storage = Literal["memory", "sqlite"]
_RPC = "v1/devices/me/rpc/"
"""On a server `me` is the session's own device. On a plain broker it is one topic for all, and a gateway would hear its own questions and answer
them: therefore `rights`, and a broker for each of them."""
_UNLIMITED = {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""}
_LIMITS = {
    "maxPayloadSize": 65536,
    "maxInflightMessages": 100,
    "rateLimits": _UNLIMITED,
    "gatewayRateLimits": _UNLIMITED,
}
_NOWHERE = f"http://{HOST}:9"
"""It asks a server of its makers for updates; nothing here leaves the machine."""


def installed(project: Path) -> Path | None:
    """The Python that has it, if it is installed."""
    python = project / PYTHON
    return python if python.exists() else None


def configure(folder: Path, storage: Storage, device: str, device_port: int, broker_port: int, signals: int) -> None:
    """Writes its configuration into `folder`."""
    (folder / "data").mkdir(parents=True)
    (folder / "logs").mkdir()
    stored: dict[str, Any] = {"type": "memory", "read_records_count": 100, "max_records_count": 100000}
    if storage == "sqlite":
        stored = {
            "type": "sqlite", "data_file_path": f"{folder}/data/", "messages_ttl_check_in_hours": 1, "messages_ttl_in_days": 7,
            "max_read_records_count": 1000, "size_limit": 1024, "max_db_amount": 10, "oversize_check_period": 1,
            "writing_batch_size": 1000,
        }  # fmt: skip
    server = {
        "host": HOST, "port": broker_port, "remoteShell": False, "remoteConfiguration": False,
        "statistics": {"enable": False}, "maxPayloadSizeBytes": 8196, "minPackSendDelayMS": 50, "minPackSizeToSend": 500,
        "checkConnectorsConfigurationInSeconds": 60, "handleDeviceRenaming": True, "qos": 1,
        "security": {"type": "accessToken", "accessToken": device},
        "checkingDeviceActivity": {"checkDeviceInactivity": False},
    }  # fmt: skip
    connectors = [{"type": "modbus", "name": "modbus", "configuration": "modbus.json"}]
    _write(
        folder / "tb_gateway.json",
        {"thingsboard": server, "storage": stored, "grpc": {"enabled": False}, "connectors": connectors},
    )
    series = [
        {"tag": signal_name(number), "type": "32uint", "functionCode": 3, "objectsCount": 2, "address": number * 2}
        for number in range(signals)
    ]
    slave = {
        "host": HOST, "port": device_port, "type": "tcp", "method": "socket", "unitId": 1, "deviceName": device,
        "deviceType": "default", "timeout": 35, "byteOrder": "BIG", "wordOrder": "BIG", "retries": 3, "retryOnEmpty": True,
        "retryOnInvalid": True, "pollPeriod": 1000, "connectAttemptTimeMs": 5000, "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 300000, "attributes": [], "timeseries": series, "attributeUpdates": [], "rpc": [],
    }  # fmt: skip
    _write(folder / "modbus.json", {"name": "modbus", "logLevel": "INFO", "master": {"slaves": [slave]}})


def _write(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=2), encoding="utf-8")


def command(python: Path, folder: Path) -> list[str | Path]:
    """What starts it; it writes its logs below the working directory."""
    program = "import os, sys; os.chdir(sys.argv.pop(1)); from thingsboard_gateway.tb_gateway import main; main()"
    return [python, "-c", program, str(folder)]


def environment(folder: Path) -> dict[str, str]:
    """The environment for `command`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE)
    return {**kept, **proxies, "TB_GW_CONFIG_DIR": str(folder), "PYTHONUNBUFFERED": "1"}


def rights(device: str) -> str:
    """An ACL file: the gateway, whose access token is its user name, hears the answers to its questions, and not the questions."""
    return f"topic readwrite #\nuser {device}\ntopic write #\ntopic read {_RPC}response/+\n"


class Server:
    """Answers the one question that a gateway waits for before it sends: which limits its session has (none)."""

    def __init__(self, broker_port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="limits")
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{_RPC}request/+", qos=1)
        self._client.on_message = self._asked
        self._client.connect_async(HOST, broker_port)
        self._client.loop_start()

    def _asked(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if json.loads(message.payload).get("method") == "getSessionLimits":
            number = message.topic.rpartition("/")[2]
            client.publish(f"{_RPC}response/{number}", json.dumps(_LIMITS), qos=1)

    def close(self) -> None:
        """Ends it."""
        self._client.disconnect()
        self._client.loop_stop()
