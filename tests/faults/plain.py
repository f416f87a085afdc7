"""The usual way, as one writes it in a week: a loop that polls and publishes at QoS 1, and a subscriber that inserts what arrives.

`python -m tests.faults.plain collect DEVICE-PORT BROKER-PORT SIGNALS`: pymodbus reads all signals of a device (tests.faults.numbered) once a second in
as few requests as possible, with a time-out of five seconds; paho publishes each as JSON `{device, signal, ts, value}` at QoS 1 and forgets. Both
reconnect by themselves; while the broker is away paho keeps what it was given in memory, without a limit, and sends it afterwards.

`python -m tests.faults.plain store BROKER-PORT FILE`: paho with a session that the broker keeps (`clean_session=False`), which acknowledges a message
after its rows are committed to SQLite (WAL). The table has no key over signal and time. It stores what ThingsBoard Gateway publishes, too.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from tests.servers.processes import HOST

DEVICE = "plain"
TOPIC = "factory/readings"
THINGSBOARD = "v1/gateway/telemetry"
_BLOCK = 120
"""Registers of one request."""


def signal_name(number: int) -> str:
    """The name of a signal of a numbered device."""
    return f"n{number:02}"


def collect(device_port: int, broker_port: int, signals: int) -> None:
    """Polls and publishes for ever."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="plain-collector")
    client.reconnect_delay_set(1, 10)
    client.connect_async(HOST, broker_port)
    client.loop_start()
    device = ModbusTcpClient(HOST, port=device_port, timeout=5)
    due = time.monotonic()
    while True:
        try:
            if device.connected or device.connect():  # type: ignore[no-untyped-call]
                for number, value in _read(device, signals):
                    told = {
                        "device": DEVICE,
                        "signal": signal_name(number),
                        "ts": time.time_ns() // 1000,
                        "value": value,
                    }
                    client.publish(TOPIC, json.dumps(told), qos=1)
        except ModbusException as error:
            sys.stderr.write(f"{error}\n")
            device.close()  # type: ignore[no-untyped-call]
        due = max(due + 1.0, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))  # until the next poll


def _read(device: ModbusTcpClient, signals: int) -> Iterator[tuple[int, int]]:
    for address in range(0, signals * 2, _BLOCK):
        answer = device.read_holding_registers(address, count=min(_BLOCK, signals * 2 - address), device_id=1)
        if answer.isError():
            raise ModbusException(str(answer))
        for place in range(0, len(answer.registers), 2):
            yield (address + place) // 2, answer.registers[place] << 16 | answer.registers[place + 1]


def prepare(file: Path) -> sqlite3.Connection:
    """The database, made if it is not there."""
    db = sqlite3.connect(file, timeout=20, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    columns = "id INTEGER PRIMARY KEY, device TEXT, signal TEXT, ts INTEGER, value INTEGER"
    db.execute(f"CREATE TABLE IF NOT EXISTS reading ({columns})")
    db.commit()
    return db


def store(broker_port: int, file: Path) -> None:
    """Stores what arrives, for ever."""
    db = prepare(file)

    def connected(client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(TOPIC, 1), (THINGSBOARD, 1)])

    def arrived(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        with db:
            db.executemany("INSERT INTO reading (device, signal, ts, value) VALUES (?, ?, ?, ?)", _rows(message))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="plain-store", clean_session=False)
    client.reconnect_delay_set(1, 10)
    client.on_connect = connected
    client.on_message = arrived  # paho acknowledges when it returns
    client.connect_async(HOST, broker_port)
    client.loop_forever(retry_first_connection=True)


def _rows(message: mqtt.MQTTMessage) -> list[tuple[str, str, int, int]]:
    told = json.loads(message.payload)
    if message.topic == TOPIC:
        return [(told["device"], told["signal"], told["ts"], told["value"])]
    return [
        (device, signal, entry["ts"] * 1000, value)
        for device, entries in told.items()
        for entry in entries
        for signal, value in entry["values"].items()
    ]


if __name__ == "__main__":
    if sys.argv[1] == "collect":
        collect(*map(int, sys.argv[2:5]))
    else:
        store(int(sys.argv[2]), Path(sys.argv[3]))
