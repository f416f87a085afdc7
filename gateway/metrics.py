"""What the metrics of all roles share: the bus, the process, and the little server of roles that have no API."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import psutil
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.bus.client import Bus
from gateway.config.models import MetricsSettings

log = logging.getLogger("guantong.metrics")


def bus_metrics(bus: Bus) -> Iterator[Metric]:
    """The connection to the broker."""
    yield GaugeMetricFamily("guantong_bus_connected", "1 while connected to the broker", float(bus.connected))
    messages = CounterMetricFamily("guantong_bus_messages", "Messages by what became of them", labels=["what"])
    for what in ("published", "received", "dropped", "refused"):
        messages.add_metric([what], getattr(bus.numbers, what))
    yield messages
    yield CounterMetricFamily(
        "guantong_bus_reconnects", "Connections after the first", max(bus.numbers.connects - 1, 0)
    )


def process_metrics(role: str) -> Iterator[Metric]:
    """Memory and CPU of this process."""
    process = psutil.Process()
    times = process.cpu_times()
    cpu = CounterMetricFamily("guantong_process_cpu_seconds", "CPU time of this role", labels=["role"])
    cpu.add_metric([role], times.user + times.system)
    yield cpu
    memory = GaugeMetricFamily("guantong_process_resident_bytes", "Resident memory of this role", labels=["role"])
    memory.add_metric([role], process.memory_info().rss)
    yield memory


@contextlib.asynccontextmanager
async def served(registry: CollectorRegistry, settings: MetricsSettings, port: int, role: str) -> AsyncIterator[None]:
    """Serves the registry over HTTP while inside. A port that is taken costs the metrics and nothing else."""
    if not settings.enabled:
        yield
        return
    try:
        server, thread = start_http_server(port, settings.host, registry)
    except OSError as error:
        log.warning(
            "metrics of %s are off: port %s on %s: %s. Set metrics.%s_port", role, port, settings.host, error, role
        )
        yield
        return
    log.info("metrics of %s: http://%s:%s/metrics", role, settings.host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
