"""Fixtures for the whole suite: real servers on loopback. What each gives is said in `tests.servers.fixtures`."""

from tests.servers.fixtures import (
    certificate_authority,
    chromium,
    embedded_broker,
    fault_proxy,
    libmodbus_program,
    libmodbus_server,
    modbus_serial_server,
    mosquitto,
    mosquitto_factory,
    no_process_left,
    node_opcua_server,
    postgres,
    postgres_factory,
    postgres_url,
    timescale,
    timescale_url,
)

__all__ = [
    "certificate_authority",
    "chromium",
    "embedded_broker",
    "fault_proxy",
    "libmodbus_program",
    "libmodbus_server",
    "modbus_serial_server",
    "mosquitto",
    "mosquitto_factory",
    "no_process_left",
    "node_opcua_server",
    "postgres",
    "postgres_factory",
    "postgres_url",
    "timescale",
    "timescale_url",
]
