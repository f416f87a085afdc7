"""Fixtures for the whole suite: real servers on loopback. What each gives is said in `tests.servers.fixtures`."""

from tests.servers.fixtures import (
    certificate_authority,
    chromium,
    embedded_broker,
    fault_proxy,
    mosquitto,
    mosquitto_factory,
    no_process_left,
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
    "mosquitto",
    "mosquitto_factory",
    "no_process_left",
    "postgres",
    "postgres_factory",
    "postgres_url",
    "timescale",
    "timescale_url",
]
