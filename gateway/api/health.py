"""`/health` and `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gateway import __version__
from gateway.api import guard, shapes
from gateway.api.clocks import FIX
from gateway.api.context import Api, answer, language_of
from gateway.api.guard import READER
from gateway.api.language import Language, Words
from gateway.api.parameters import OneQuery
from gateway.api.stream import Streams
from gateway.bus.client import Bus
from gateway.metrics import bus_metrics, process_metrics
from schemas.bilingual import spoken

Status = Literal["ready", "degraded", "not_ready"]
_OLD = 60.0


def routes(api: Api, bus: Bus, registry: CollectorRegistry) -> APIRouter:
    """The routes of this module."""
    router = APIRouter()

    def looked(language: Language) -> shapes.Health:
        components = {
            "store": _store(api, language),
            "bus": _bus(bus, language),
            "commits": _commits(api, language),
            "collectors": _collectors(api, language),
            "clock": _clock(api, language),
        }
        status: Status = "ready"
        if any(part.state != "ok" for part in components.values()):
            status = "degraded"
        if not api.live.loaded or components["store"].state != "ok":
            status = "not_ready"
        writes = api.writes if api.writes == "disabled" else f"{api.writes} (refused in this version)"
        return shapes.Health(status, "serve", __version__, writes, components)

    def health_answer(request: Request, query: OneQuery, *, strict: bool) -> Response:
        language = language_of(request, query)
        health = looked(language)
        full = request.scope.get(READER, False)
        response = answer(request, health if full else shapes.Alive(health.status), language)
        response.headers["Cache-Control"] = "no-store"
        if strict and health.status == "not_ready":
            response.status_code = 503
        return response

    @router.get("/health/live", name="health_live", tags=["Gateway"])
    async def live(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """200 as long as the process answers at all."""
        return answer(
            request, shapes.Alive("alive"), language_of(request, query), headers={"Cache-Control": "no-store"}
        )

    @router.get("/health/ready", name="health_ready", tags=["Gateway"])
    async def ready(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """200 when answers are right, 503 when not; each part with its state, the reason and the fix (with a key where keys are needed)."""
        return health_answer(request, query, strict=True)

    @router.get("/health", name="health", tags=["Gateway"])
    async def health(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The same as /health/ready, always 200."""
        return health_answer(request, query, strict=False)

    @router.get("/metrics", name="metrics", tags=["Gateway"])
    async def metrics() -> Response:
        """Metrics of this role in the text format of Prometheus."""
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"}
        )

    return router


def _store(api: Api, language: Language) -> shapes.Component:
    health = api.live.health
    return shapes.Component(health.state, spoken(health.reason, language), spoken(health.fix, language))


def _clock(api: Api, language: Language) -> shapes.Component:
    """Readings of a gateway whose clock is behind are flagged and stored; what is wrong is their time."""
    reasons = api.clocks.reasons()
    if reasons is None:
        return shapes.Component("ok")
    return shapes.Component("degraded", reasons.get(language), FIX.get(language))


def _bus(bus: Bus, language: Language) -> shapes.Component:
    health = bus.health
    fix = Words(health.fix_en, health.fix_zh)
    if health.state == "ok":
        return shapes.Component("ok")
    behind = Words(
        "Until then latest values follow the store within five seconds.", "在此期间，最新值每 5 秒从存储更新。"
    )
    return shapes.Component(
        health.state, spoken(health.reason, language), f"{fix.get(language)} {behind.get(language)}".strip()
    )


def _commits(api: Api, language: Language) -> shapes.Component:
    age = api.live.commit_age()
    if age is not None and age <= _OLD:
        return shapes.Component("ok", age=round(age, 1))
    reason = Words("Nothing has been stored yet.", "尚未存储任何数据。")
    if age is not None:
        reason = Words(f"Nothing has been stored for {age:.0f} s.", f"已有 {age:.0f} 秒没有新数据入库。")
    fix = Words(
        "See whether the roles collect and ingest run, and whether they reach the broker.",
        "请检查 collect 与 ingest 进程是否运行，以及能否连接 MQTT 代理。",
    )
    return shapes.Component("degraded", reason.get(language), fix.get(language), None if age is None else round(age, 1))


def _collectors(api: Api, language: Language) -> shapes.Component:
    gateways = {device.gateway for device in api.live.catalog.devices.values() if not device.retired}
    silent = sorted(name for name in gateways if api.live.is_quiet(name))
    if not silent:
        return shapes.Component("ok")
    names = ", ".join(silent)
    return shapes.Component(
        "degraded",
        Words(f"Nothing is heard of {names}.", f"{names} 没有消息。").get(language),
        Words("See whether the role collect runs there.", "请检查该处的 collect 进程是否运行。").get(language),
    )


class ServeMetrics(Collector):
    """Reads the running totals when it is asked; nothing is counted twice in the hot path."""

    def __init__(self, api: Api, bus: Bus, streams: Streams, totals: guard.Numbers) -> None:
        self._api, self._bus, self._streams, self._totals = api, bus, streams, totals

    def collect(self) -> Iterator[Metric]:
        live, totals = self._api.live, self._totals
        up = GaugeMetricFamily("guantong_serve_up", "1 when the store can be read", labels=["state", "reason"])
        up.add_metric([live.health.state, live.health.reason], float(live.health.state == "ok"))
        yield up
        counters = {
            "rows": ("Readings that came into latest", live.numbers.rows),
            "commits": ("Commits applied to latest", live.numbers.commits),
            "loads": ("Times that the store was read as a whole", live.numbers.loads),
            "holes": ("Commits of which the bus brought no word", live.numbers.holes),
            "unreadable": ("Messages that could not be read", live.numbers.unreadable),
            "streams_cut": ("Live streams ended because the client was too slow", self._streams.cut),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"guantong_serve_{name}", text, value)
        gauges = {
            "signals": ("Signals with a latest value", len(live.entries)),
            "streams": ("Live streams", len(self._streams.clients)),
            "requests_active": ("Requests being answered, live streams included", totals.active),
            "commit_number": ("Number of the last commit that is in latest", live.commit_no),
        }
        for name, (text, number) in gauges.items():
            yield GaugeMetricFamily(f"guantong_serve_{name}", text, number)
        age = live.commit_age()
        if age is not None:
            yield GaugeMetricFamily("guantong_serve_commit_age_seconds", "Since a commit was last heard of", age)
        silent = GaugeMetricFamily(
            "guantong_serve_collector_silent_seconds", "Since the last word of a collector", labels=["gateway"]
        )
        for gateway in sorted({device.gateway for device in live.catalog.devices.values() if not device.retired}):
            seconds = live.silence(gateway)
            if seconds is not None:
                silent.add_metric([gateway], seconds)
        yield silent
        yield from _http(totals)
        yield from bus_metrics(self._bus)
        yield from process_metrics("serve")


def _http(totals: guard.Numbers) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "guantong_http_requests", "Requests by what was answered", labels=["method", "route", "status"]
    )
    for (method, route, status), number in sorted(totals.requests.items()):
        requests.add_metric([method, route, str(status)], number)
    yield requests
    refused = CounterMetricFamily(
        "guantong_http_refused", "Requests refused before they were looked at", labels=["problem"]
    )
    for kind, number in sorted(totals.refused.items()):
        refused.add_metric([kind], number)
    yield refused
    running, buckets = 0, []
    for bound in (*guard.BUCKETS, float("inf")):
        running += totals.buckets[bound]
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
    yield HistogramMetricFamily(
        "guantong_http_seconds", "Time of answers, live streams left out", buckets=buckets, sum_value=totals.seconds
    )
