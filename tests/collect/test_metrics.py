"""Figures of devices in the collector's metrics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gateway.collect.items import DeviceStatus
from gateway.collect.metrics import CollectMetrics


def test_signals_in_trouble_are_counted_for_each_device() -> None:
    statuses = [
        DeviceStatus("meter-1", "degraded", 0, troubles={"a": "exception 2", "b": "exception 2"}),
        DeviceStatus("meter-2", "ok", 0),
    ]
    role: Any = SimpleNamespace(hosts=[SimpleNamespace(statuses=lambda: statuses)], readings={"meter-1": 7})
    metrics = CollectMetrics(role, cast(Any, None))
    found = {
        (sample.name, sample.labels["device"]): sample.value
        for metric in metrics._devices()
        for sample in metric.samples
        if "state" not in sample.labels
    }
    assert found["guantong_device_troubles", "meter-1"] == 2
    assert found["guantong_device_troubles", "meter-2"] == 0
    assert found["guantong_device_readings_total", "meter-1"] == 7
