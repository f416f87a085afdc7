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
from schemas.bilingual import Bilingual

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
            "replayed": ("Dead letters that were replayed", numbers.replayed),
            "retries": ("Transactions tried again because the store was not there", numbers.retries),
        }
        for name, (text, value) in totals.items():
            yield CounterMetricFamily(f"guantong_ingest_{name}", text, value)
        yield GaugeMetricFamily("guantong_ingest_lag_seconds", "Arrival to commit, last transaction", numbers.lag)
        yield GaugeMetricFamily("guantong_ingest_last_commit_seconds", "Time of the last commit", numbers.last_commit)
        yield GaugeMetricFamily(
            "guantong_ingest_dead_letters_open", "Dead letters that nobody has decided about", numbers.open_letters
        )
        receivers = ingest.receivers.values()
        yield GaugeMetricFamily(
            "guantong_ingest_held_messages",
            "Messages in memory that wait for the store",
            sum(one.held for one in receivers),
        )
        yield GaugeMetricFamily("guantong_ingest_held_bytes", "Their bytes", sum(one.held_bytes for one in receivers))
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


def _letters_part(number: int) -> Part:
    """Something could not be stored: nothing else suffers, but a person has to decide what becomes of it."""
    if not number:
        return Part()
    return Part(
        "degraded",
        Bilingual(f"{number} dead letters wait: what could not be stored", f"有 {number} 条死信待处理：它们未能入库"),
        Bilingual(
            "See them with `guantong dead-letters`; replay or discard them.",
            "用 `guantong dead-letters` 查看，然后重放或丢弃。",
        ),
    )


class Measured:
    """Ingest, its bus, and its metrics, until cancelled."""

    def __init__(self, ingest: Ingest, settings: MetricsSettings) -> None:
        self._ingest, self._settings = ingest, settings

    def _look(self) -> Look:
        """How ingest is, for /health: it is ready while it writes, or stands by for another one that does."""
        health = self._ingest.health
        parts = {
            "store": Part(health.state, health.reason, health.fix),
            "bus": bus_part(self._ingest.bus),
            "dead_letters": _letters_part(self._ingest.numbers.open_letters),
        }
        return Look(parts, frozenset({"store"}))

    async def run(self) -> None:
        """Runs all three."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(IngestMetrics(self._ingest))
        async with served(registry, self._settings, self._settings.ingest_port, "ingest", self._look):
            await together(self._ingest.run(), self._ingest.bus.run())
