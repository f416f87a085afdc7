"""What the metrics of all roles share: the bus, the process, and the little server of metrics and health of roles that have no API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import psutil
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.bus.client import Bus
from gateway.config.models import MetricsSettings
from gateway.role_health import Look, Part, QuietHandler, Server, application
from schemas.bilingual import Bilingual

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
async def served(
    registry: CollectorRegistry, settings: MetricsSettings, port: int, role: str, look: Callable[[], Look]
) -> AsyncIterator[None]:
    """Serves the registry, and /health by `look`, over HTTP while inside. A port that is taken costs these and nothing else."""
    if not settings.enabled:
        yield
        return
    try:
        server = _listen(settings.host, port)
    except OSError as error:
        log.warning(
            "metrics of %s are off: port %s on %s: %s. Set metrics.%s_port", role, port, settings.host, error, role
        )
        yield
        return
    server.set_app(application(role, look, asyncio.get_running_loop(), make_wsgi_app(registry)))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info("metrics and health of %s: http://%s:%s/metrics, /health", role, settings.host, server.server_port)
    try:
        yield
    finally:
        # in a thread: a request that is being answered waits for this event loop
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, server.shutdown))
        server.server_close()
        thread.join(2)


def bus_part(bus: Bus) -> Part:
    """The connection to the broker for /health."""
    health = bus.health
    fix = Bilingual(health.fix_en, health.fix_zh) if health.fix_en else ""
    return Part(health.state, health.reason, fix)


def _listen(host: str, port: int) -> Server:
    class OfFamily(Server):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]

    return OfFamily((host, port), QuietHandler)
