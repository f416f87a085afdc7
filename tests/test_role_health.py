"""/health of the roles without an API: in both languages, beside the metrics, and only while the role's event loop lives."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway import metrics, role_health
from gateway.config.models import MetricsSettings
from gateway.role_health import Device, Look, Part
from schemas.bilingual import Bilingual

_SPENT = Part("degraded", Bilingual("the budget is spent", "额度已用完"), Bilingual("Raise it.", "请调大。"))
_FULL = Part("failed", Bilingual("the disk is full", "磁盘已满"), Bilingual("Free space.", "请清理磁盘。"))


def _get(url: str, accept: str = "en") -> tuple[int, dict[str, Any], dict[str, str]]:
    request = urllib.request.Request(url, headers={"Accept-Language": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)


async def _asked(look: Callable[[], Look], paths: list[tuple[str, str]], caplog: pytest.LogCaptureFixture) -> list[Any]:
    caplog.set_level("INFO", "guantong.metrics")
    async with metrics.served(CollectorRegistry(), MetricsSettings(), 0, "collect", look):
        (line,) = [r.getMessage() for r in caplog.records if "metrics and health of collect" in r.getMessage()]
        base = line.split("http://")[1].split("/")[0]
        return [await asyncio.to_thread(_get, f"http://{base}{path}", accept) for path, accept in paths]


async def test_health_is_told_in_the_readers_language(caplog: pytest.LogCaptureFixture) -> None:
    device = Device(
        "press-1", "recovering", Bilingual("no answer", "无应答"), Bilingual("Look at the cable.", "请检查网线。"),
        {"voltage/l1": Bilingual("no such register", "没有该寄存器")},
    )  # fmt: skip
    look = Look({"outbox": _SPENT, "bus": Part()}, frozenset({"outbox"}), (device,))
    paths = [("/health", "en"), ("/health/", "zh-CN"), ("/health?lang=zh", "en"), ("/health/live", "en")]
    (code, en, headers), (_, zh, _), (_, asked, _), (live_code, live, _) = await _asked(lambda: look, paths, caplog)
    assert (code, live_code) == (200, 200)
    assert headers["Content-Language"] == "en"
    assert en["status"] == "degraded"
    assert en["role"] == "collect"
    assert en["components"]["outbox"] == {"state": "degraded", "reason": "the budget is spent", "fix": "Raise it."}
    assert en["components"]["bus"] == {"state": "ok", "reason": "", "fix": ""}
    assert zh["components"]["outbox"] == {"state": "degraded", "reason": "额度已用完", "fix": "请调大。"}
    assert zh["devices"] == [
        {
            "device": "press-1", "state": "recovering", "reason": "无应答", "fix": "请检查网线。",
            "signals": {"voltage/l1": "没有该寄存器"},
        }
    ]  # fmt: skip
    assert asked == zh
    assert live == {"status": "alive", "role": "collect"}


async def test_ready_fails_only_for_what_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    look = [Look({"outbox": Part(), "bus": _FULL}, frozenset({"outbox"}))]
    async with metrics.served(CollectorRegistry(), MetricsSettings(), 0, "collect", lambda: look[0]):
        pass  # its port is free again at once
    (code, body, _), (again, full, _), (always, _, _) = await _asked(
        lambda: look[0], [("/health/ready", "en")], caplog
    ) + await _asked_anew(look, Look({"outbox": _FULL}, frozenset({"outbox"})), caplog)
    assert (code, body["status"]) == (200, "degraded")
    assert (again, full["status"]) == (503, "not_ready")
    assert always == 200


async def _asked_anew(look: list[Look], now: Look, caplog: pytest.LogCaptureFixture) -> list[Any]:
    look[0] = now
    caplog.clear()
    return await _asked(lambda: look[0], [("/health/ready", "en"), ("/health", "en")], caplog)


async def test_metrics_are_where_they_were(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "guantong.metrics")
    async with metrics.served(CollectorRegistry(), MetricsSettings(), 0, "ingest", lambda: Look({}, frozenset())):
        base = caplog.records[-1].getMessage().split("http://")[1].split("/")[0]
        answer = await asyncio.to_thread(urllib.request.urlopen, f"http://{base}/metrics", None, 10)
        with answer:
            assert answer.headers["Content-Type"].startswith("text/plain")


def test_a_role_that_stands_still_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role_health, "ANSWERS_WITHIN", 0.05)
    still = asyncio.new_event_loop()  # never run
    answered: list[tuple[str, list[tuple[str, str]]]] = []

    def ask(path: str) -> dict[str, Any]:
        app = role_health.application("collect", lambda: Look({}, frozenset()), still, lambda *_: [])
        start = lambda status, headers: answered.append((status, headers))  # noqa: E731
        (body,) = app({"PATH_INFO": path, "QUERY_STRING": "lang=zh"}, start)  # type: ignore[arg-type]
        return json.loads(body)  # type: ignore[no-any-return]

    try:
        assert ask("/health/live")["status"] == "not_alive"
        told = ask("/health")
        assert told["status"] == "not_ready"
        assert "没有应答" in told["components"]["role"]["reason"]
        assert [status for status, _ in answered] == ["503 Service Unavailable", "200 OK"]
    finally:
        still.run_until_complete(asyncio.sleep(0))
        still.close()


async def test_a_taken_port_costs_health_and_metrics_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "guantong.metrics")
    look = Look({}, frozenset())
    async with metrics.served(CollectorRegistry(), MetricsSettings(), 0, "collect", lambda: look):
        port = int(caplog.records[-1].getMessage().split("127.0.0.1:")[1].split("/")[0])
        async with metrics.served(CollectorRegistry(), MetricsSettings(), port, "ingest", lambda: look):
            assert "metrics of ingest are off" in caplog.records[-1].getMessage()
