"""A device that is off for long: one interval, no rows, and when it is back its unchanged signals are good again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.store.records import Reading
from schemas.times import from_rfc3339
from tests.chain.conftest import InstallationFactory, WorkshopFactory
from tests.chain.installation import Installation
from tests.chain.truth import compare, now_us
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

NIGHT = 12.0
"""Seconds: many attempts to connect, none of which may leave a trace in the history."""
DEVICES = {"imm-01": "identity/serial_number", "temp-01": "firmware"}
"""The devices that are switched off, each with a signal that does not change."""
BAD_NO_COMMUNICATION = 0x80310000


def _latest(gateway: Installation, device: str) -> dict[str, Any]:
    (item,) = gateway.get(f"/latest?signal={device}/{DEVICES[device]}")["items"]
    found: dict[str, Any] = item
    return found


def _rows(gateway: Installation, device: str, start: int | None = None, end: int | None = None) -> list[Reading]:
    ids = [signal.id for signal in gateway.reader.signals() if signal.device == device]
    return [row for piece in gateway.reader.history(ids, start, end) for row in piece]


def test_a_device_that_is_off_overnight(install: InstallationFactory, open_workshop: WorkshopFactory) -> None:
    workshop = open_workshop(devices=[*DEVICES, "meter-01"])
    gateway = install(workshop.links())
    gateway.start()
    gateway.serving()
    gateway.settle(workshop.subjects, now_us() + 1_000_000)
    good = {}
    for device in DEVICES:
        good[device] = eventually(lambda d=device: _good(gateway, d), 10, what=f"{device} is good")  # type: ignore[misc]

    for device in DEVICES:
        workshop.fault(device, "off")
    off = now_us()
    for device in DEVICES:
        lost = eventually(lambda d=device: _lost(gateway, d), 15, what=f"{device} is lost")  # type: ignore[misc]
        assert (lost["value"], lost["quality"]) == (None, "bad")
        assert lost["reason"], "why it is not connected"
        assert lost["last"]["value"] == good[device]["value"]
        assert lost["last"]["ts"] == good[device]["ts"], "an old value keeps its time"
        state = gateway.get(f"/devices/{device}")
        assert state["state"] == "disconnected"
        assert state["text"]
        assert state["fix"]
    time.sleep(max(0.0, off / 1e6 + NIGHT - time.time()))  # the length of the night, not a hope
    for device in DEVICES:
        (interval,) = gateway.reader.connections(device)
        assert interval.end is None
    back = now_us()
    for device in DEVICES:
        workshop.clear(device)

    gateway.settle(workshop.subjects, back + 5_000_000, timeout=60)
    for device in DEVICES:
        again = eventually(lambda d=device: _good(gateway, d), 10, what=f"{device} is good again")  # type: ignore[misc]
        assert again["value"] == good[device]["value"]
        assert again["ts"] == good[device]["ts"], "an unchanged value is not stamped anew"
        assert from_rfc3339(again["seen_at"]) > back
        (interval,) = gateway.reader.connections(device)
        assert interval.start <= off
        assert interval.end is not None
        assert interval.end >= back
        assert _rows(gateway, device, off, back) == []
        listed = gateway.get(f"/devices/{device}/connections")["items"]
        assert [from_rfc3339(item["start"]) for item in listed] == [interval.start]
        number = next(s.id for s in gateway.reader.signals() if (s.device, s.name) == (device, DEVICES[device]))
        rows = [row for row in _rows(gateway, device) if row.signal == number]
        assert [row.status for row in rows] == [0], "neither the loss nor the return is a reading"
        history = gateway.get(f"/signals/{device}/{DEVICES[device]}/history?start={again['ts']}")
        assert [reading["value"] for reading in history["readings"]] == [again["value"]]
        assert not history["completeness"]["complete"]
        assert len(history["completeness"]["disconnected"]) == 1
    assert gateway.reader.connections("meter-01") == []
    assert {(gap.device, gap.cause) for gap in gateway.reader.gaps()} <= {
        (device, "disconnected") for device in DEVICES
    }
    compare(gateway.reader, workshop.subjects, workshop.truth, events_until=back).holds()


def _good(gateway: Installation, device: str) -> dict[str, Any]:
    item = _latest(gateway, device)
    return item if item["status"] == 0 and item["seen_at"] is not None else {}


def _lost(gateway: Installation, device: str) -> dict[str, Any]:
    item = _latest(gateway, device)
    return item if item["status"] == BAD_NO_COMMUNICATION else {}
