"""Prometheus metrics of ingest: http://METRICS_HOST:INGEST_PORT/metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.config.models import MetricsSettings
from gateway.ingest.role import Ingest
from gateway.metrics import bus_metrics, bus_part, process_metrics, served
from gateway.role_health import Look, Part
from gateway.tasks import together

log = logging.getLogger("guantong.ingest")


class IngestMetrics(Collector):
    """Reads the running totals when it is asked; nothing is counted twice in the hot path."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def collect(self) -> Iterator[Metric]:
        ingest, numbers = self._ingest, self._ingest.numbers
        totals = {
            "rows": ("Readings stored", numbers.rows),
            "messages": ("Ledger messages stored", numbers.messages),
            "commits": ("Transactions committed", numbers.commits),
            "duplicates": ("Readings that were stored already", numbers.duplicates),
            "late": ("Readings older than their signal's newest", numbers.late),
            "dead_letters": ("Messages or readings that could not be stored", numbers.dead_letters),
            "retries": ("Transactions tried again because the store was not there", numbers.retries),
        }
        for name, (text, value) in totals.items():
            yield CounterMetricFamily(f"guantong_ingest_{name}", text, value)
        yield GaugeMetricFamily("guantong_ingest_lag_seconds", "Arrival to commit, last transaction", numbers.lag)
        yield GaugeMetricFamily("guantong_ingest_last_commit_seconds", "Time of the last commit", numbers.last_commit)
        up = GaugeMetricFamily("guantong_ingest_up", "1 when the state is ok", labels=["state", "reason"])
        up.add_metric([ingest.health.state, ingest.health.reason], float(ingest.health.state == "ok"))
        yield up
        seen = CounterMetricFamily(
            "guantong_ledger_received", "Ledger messages by what became of them", labels=["gateway", "what"]
        )
        for gateway, receiver in ingest.receivers.items():
            for what in (
                "received",
                "duplicates",
                "unreadable",
                "unknown",
                "beyond_window",
                "replays",
                "forks",
                "lost",
            ):
                seen.add_metric([gateway, what], getattr(receiver.numbers, what))
        yield seen
        yield from bus_metrics(ingest.bus)
        yield from process_metrics("ingest")


class Measured:
    """Ingest, its bus, and its metrics, until cancelled."""

    def __init__(self, ingest: Ingest, settings: MetricsSettings) -> None:
        self._ingest, self._settings = ingest, settings

    def _look(self) -> Look:
        """How ingest is, for /health: it is ready while it writes, or stands by for another one that does."""
        health = self._ingest.health
        parts = {"store": Part(health.state, health.reason, health.fix), "bus": bus_part(self._ingest.bus)}
        return Look(parts, frozenset({"store"}))

    async def run(self) -> None:
        """Runs all three."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(IngestMetrics(self._ingest))
        async with served(registry, self._settings, self._settings.ingest_port, "ingest", self._look):
            await together(self._ingest.run(), self._ingest.bus.run())
