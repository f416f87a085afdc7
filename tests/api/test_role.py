"""The role as a whole: what keeps it from listening, health, metrics, the page and the documentation."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from referencing import Registry, Resource

from gateway.api import openapi, shapes
from gateway.api.keys import KeyFile
from gateway.api.role import Serve, ServeCannotStartError, make_serve
from gateway.bus.client import Health as BusHealth
from gateway.config.models import ApiSettings, Config
from schemas.wire import Event
from tests.api.conftest import started
from tests.api.shop import SECOND, T0, Shop
from tests.servers.waiting import eventually_async

V1 = "/api/v1"


async def fails(serve: Serve) -> ServeCannotStartError:
    with pytest.raises(ServeCannotStartError) as caught:
        await asyncio.wait_for(serve.run(), 5)
    assert serve.health.state == "failed"
    assert serve.health.fix == caught.value.fix
    return caught.value


def on(shop: Shop, host: str, port: int) -> Serve:
    return Serve(ApiSettings(host=host, port=port), shop.reader, shop.bus, shop.topics, shop.folder)  # type: ignore[arg-type]


async def test_a_port_that_is_taken_is_named(shop: Shop) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = await fails(on(shop, "127.0.0.1", port))
    assert f"port {port} of 127.0.0.1 is taken" in str(error)
    assert "--api-port" in error.fix
    assert "api.port" in error.fix


async def test_other_machines_need_keys(shop: Shop) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        error = await fails(on(shop, host, 0))
        assert host in str(error)
        assert "guantong key add" in error.fix


async def test_a_host_that_is_not_ours(shop: Shop) -> None:
    KeyFile(shop.folder).add("mes")
    assert "192.0.2.1" in str(await fails(on(shop, "192.0.2.1", 0)))
    assert "no.such.host.invalid" in str(await fails(on(shop, "no.such.host.invalid", 0)))


async def test_a_broken_key_file_keeps_it_from_starting(shop: Shop) -> None:
    (shop.folder / "keys.json").write_text("{")
    assert "keys.json" in str(await fails(on(shop, "127.0.0.1", 0)))


async def test_open_to_others_with_a_key(shop: Shop) -> None:
    shop.fill()
    key = KeyFile(shop.folder).add("mes")
    async with (
        started(shop, host="0.0.0.0") as serve,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
    ):
        headers = {"X-API-Key": key, "Host": "gateway.example"}
        assert (await client.get(f"{V1}/latest", headers=headers)).status_code == 200
        serve.keys.revoke("mes")
        await eventually_async(lambda: not serve.keys.any())
        assert (await client.get(f"{V1}/latest", headers=headers)).status_code == 401  # no key left is not an open door


async def test_ipv6_loopback(shop: Shop) -> None:
    shop.fill()
    async with started(shop, host="::1") as serve, httpx.AsyncClient(base_url=f"http://[::1]:{serve.port}") as client:
        assert (await client.get(f"{V1}/latest")).status_code == 200


async def test_from_the_configuration(shop: Shop) -> None:
    shop.fill()
    serve = make_serve(Config(data_dir=shop.folder, api=ApiSettings(port=0), writes="enabled"))
    task = asyncio.create_task(serve.run())
    await asyncio.wait_for(serve.ready.wait(), 10)
    await eventually_async(lambda: serve.live.loaded, timeout=10)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        health = (await client.get("/health")).json()
        assert health["writes"] == "enabled (refused in this version)"
        assert len((await client.get(f"{V1}/signals")).json()["items"]) == 4
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert serve.health.state == "stopped"


# -------------------------------------------------------------------------------------------------- health and metrics


async def test_health_tells_reasons_and_fixes(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    shop.rows((1, 1, 1.0))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    found = msgspec.json.decode((await client.get("/health/ready")).content, type=shapes.Health)
    assert found.status == "ready"
    assert {name: part.state for name, part in found.components.items()} == {
        "store": "ok", "bus": "ok", "commits": "ok", "collectors": "ok", "clock": "ok",
    }  # fmt: skip
    shop.bus.health = BusHealth("recovering", "nothing listens", "Start the broker.", "请启动代理。")
    shop.clock.move(61)
    await eventually_async(lambda: serve.live.is_quiet("line1"))
    answer = await client.get("/health/ready", headers={"Accept-Language": "zh"})
    assert answer.status_code == 200
    found = msgspec.json.decode(answer.content, type=shapes.Health)
    assert found.status == "degraded"
    assert {name: part.state for name, part in found.components.items()} == {
        "store": "ok", "bus": "recovering", "commits": "degraded", "collectors": "degraded", "clock": "ok",
    }  # fmt: skip
    assert found.components["bus"].fix.startswith("请启动代理。")
    assert "line1" in found.components["collectors"].reason
    assert found.components["commits"].age == 61.0


async def test_a_collector_whose_clock_is_behind_is_told_until_it_has_caught_up(
    shop: Shop, serve: Serve, client: httpx.AsyncClient
) -> None:
    def told(kind: str, behind: float) -> Event:
        fields = {"behind": behind, "last": T0, "gateway": "line1"}
        return Event(f"{kind}-{behind}", T0, None, "", "", kind, 700, "", "", fields)

    shop.rows((1, 1, 1.0))  # whose gateway is line1
    shop.commit([told("clock_behind", 90.0)])
    await eventually_async(lambda: bool(serve.api.clocks.behind))
    found = (await client.get("/health", headers={"Accept-Language": "zh"})).json()
    assert found["status"] == "degraded"
    assert found["components"]["clock"]["state"] == "degraded"
    assert "clock_behind：网关 line1 的时钟" in found["components"]["clock"]["reason"]
    assert "慢 90 秒" in found["components"]["clock"]["reason"]
    assert "chrony" in found["components"]["clock"]["fix"]
    assert "90 s behind the last time stored" in (await client.get("/health")).json()["components"]["clock"]["reason"]
    # a serve that starts later reads it from the store
    serve.api.clocks.behind.clear()
    serve.api.clocks.reset()
    await eventually_async(lambda: bool(serve.api.clocks.behind))
    shop.commit([told("clock_caught_up", 0.0)])
    await eventually_async(lambda: not serve.api.clocks.behind)
    assert (await client.get("/health")).json()["components"]["clock"] == {"state": "ok"}


async def test_metrics(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    shop.rows((1, 1, 1.0), (11, 1, 2.0))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    await client.get(f"{V1}/devices/imm-01")
    await client.get(f"{V1}/devices/nobody")
    await client.get(f"{V1}/latest", headers={"Host": "evil.example"})
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["guantong_serve_rows_total", ()] == 2
    assert samples["guantong_serve_signals", ()] == 4
    assert samples["guantong_serve_up", (("reason", ""), ("state", "ok"))] == 1
    route = ("route", f"{V1}/devices/{{device}}")
    assert samples["guantong_http_requests_total", (("method", "GET"), route, ("status", "200"))] == 1
    assert samples["guantong_http_requests_total", (("method", "GET"), route, ("status", "404"))] == 1
    assert samples["guantong_http_refused_total", (("problem", "wrong-host"),)] == 1
    assert samples["guantong_http_seconds_count", ()] == 3
    assert samples["guantong_process_resident_bytes", (("role", "serve"),)] > 1e6


async def test_the_page_leads_everywhere(client: httpx.AsyncClient) -> None:
    import re

    page = await client.get("/")
    links = re.findall(r'href="([^"]+)"', page.text)
    assert {"docs", "docs/api"} <= set(links)
    for link in links:
        async with client.stream("GET", f"/{link}", follow_redirects=True) as answer:
            assert answer.status_code == 200, link
    assert "贯通" in page.text


# ---------------------------------------------------------------------------------------------------------- OpenAPI

EXAMPLES = [
    ("assets", f"{V1}/assets?parent=hall-1"),
    ("assets", f"{V1}/assets?view=tree&lang=zh"),
    ("asset", f"{V1}/assets/hall-1"),
    ("devices", f"{V1}/devices"),
    ("device", f"{V1}/devices/imm-01?lang=zh"),
    ("connections", f"{V1}/devices/imm-01/connections"),
    ("signals", f"{V1}/signals?device=imm-01&kind=counter&kind=state"),
    ("signal", f"{V1}/signals/imm-01/cycle/count"),
    ("signal_by_number", f"{V1}/signals/3"),
    ("latest", f"{V1}/latest?match=imm-01/*&limit=1"),
    ("latest", f"{V1}/latest?signal=meter-01/power/total&lang=zh"),
    ("history", f"{V1}/signals/imm-01/cycle/last_time/history?start=2025-10-09T08:53:00Z&limit=2"),
    (
        "history",
        f"{V1}/signals/imm-01/cycle/last_time/history?start=2025-10-09T08:45:00Z&end=2025-10-09T09:00:00Z&buckets=15m",
    ),
    ("history_by_number", f"{V1}/signals/1/history?limit=1&order=desc"),
    ("events", f"{V1}/events?limit=1"),
    ("events", f"{V1}/events?order=commit"),
    ("gaps", f"{V1}/gaps?signal=imm-01/cycle/last_time&start=2025-10-09T08:53:25Z"),
    ("completeness", f"{V1}/completeness?asset=hall-1&by=device&start=2025-10-09T08:53:00Z"),
    (
        "completeness",
        f"{V1}/completeness?signal=imm-01/cycle/last_time&start=2025-10-09T08:53:00Z&end=2025-10-09T08:55:00Z&buckets=1m",
    ),
    ("dead_letters", f"{V1}/dead-letters"),
    ("ledger", f"{V1}/ledger"),
    ("health", "/health"),
    ("health_ready", "/health/ready"),
    ("health_live", "/health/live"),
]
EXAMPLE_FILE = Path(openapi.__file__).with_name("examples.json")
STORE_ID = "6f0c3a52-7f1e-4c8e-9d3a-2a1f5be0c7d4"


def tell_a_story(shop: Shop) -> None:
    """What the examples in the documentation show."""
    from schemas.wire import Cause, Event, Gap, Link

    shop.fill()
    shop.rows((1, 24, 24.1), (2, 24, 101), (1, 48, 23.9), (2, 48, 102), (11, 30, 12.5), tell=False)
    event = Event(
        "5d2c7c1e", T0 + 24 * SECOND, T0 + 24 * SECOND, "imm", "imm-01", "cycle_finished", 100, "周期完成", "Cycle finished",
        {"count": 101, "time": 24.1},
    )  # fmt: skip
    shop.commit([event], tell=False)
    shop.commit([Gap("imm-01", [1], T0 + 30 * SECOND, T0 + 31 * SECOND, Cause.OVERRUN, 1, "")], tell=False)
    shop.commit(shop.feed.done(50, device="imm-01"), shop.feed.done(50, device="meter-01"), tell=False)
    shop.commit(Link("meter-01", False, T0 + 52 * SECOND, "no_answer"), tell=False)
    shop.rows((99, 53, 7.5), tell=False)


async def record(shop: Shop) -> dict[str, list[dict[str, object]]]:
    """The answers to all examples."""
    tell_a_story(shop)
    shop.clock.us = shop.feed.at
    found: dict[str, list[dict[str, object]]] = {}
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for operation, request in EXAMPLES:
            answer = await client.get(request)
            assert answer.status_code == 200, answer.text
            text = answer.text.replace(shop.writer.store_id, STORE_ID)
            found.setdefault(operation, []).append({"request": request, "answer": json.loads(text)})
    return found


async def test_the_examples_are_what_the_server_answers(shop: Shop) -> None:
    """To record them anew: python -m tests.api.test_role."""
    assert json.loads(EXAMPLE_FILE.read_text(encoding="utf-8")) == await record(shop)


async def test_the_document(client: httpx.AsyncClient, serve: Serve) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    registry: Registry[Any] = Registry().with_resource(
        "urn:api", Resource.from_contents({"$schema": Draft202012Validator.META_SCHEMA["$id"], **document})
    )
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    exampled = set()
    operations = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method == "get", path
            operations[operation["operationId"]] = operation
            assert operation["summary"]
            assert operation["tags"]
            for media in operation["responses"]["200"]["content"].values():
                for example in media.get("examples", {}).values():
                    exampled.add(operation["operationId"])
                    schema = json.loads(json.dumps(media["schema"]).replace('"#/', '"urn:api#/'))
                    Draft202012Validator(schema, registry=registry).validate(example["value"])
    assert set(openapi.ANSWERS) == exampled
    assert set(operations) == {*openapi.ANSWERS, "stream", "metrics"}
    parameters = {item["name"] for item in operations["history"]["parameters"]}
    assert {"device", "name", "start", "end", "buckets", "tz", "format", "bom", "cursor"} <= parameters
    problem = operations["latest"]["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert problem == {"$ref": "#/components/schemas/ProblemDocument"}
    answer = (await client.get(f"{V1}/latest?nonsense=1")).json()
    Draft202012Validator({"$ref": "urn:api#/components/schemas/ProblemDocument"}, registry=registry).validate(answer)


async def test_the_documentation_is_drawn_without_the_internet(
    client: httpx.AsyncClient, serve: Serve, chromium: Path
) -> None:
    """Chromium finds no other host than this one; what it shows has every operation."""
    page = await client.get("/docs/api")
    assert "http://" not in page.text
    assert "https://" not in page.text
    process = await asyncio.create_subprocess_exec(
        str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--virtual-time-budget=20000", "--dump-dom", f"http://127.0.0.1:{serve.port}/docs/api",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    drawn, _ = await asyncio.wait_for(process.communicate(), 60)
    text = drawn.decode()
    for operation in openapi.ANSWERS:
        assert f'-{operation}"' in text, operation
    assert "Failed to load" not in text


async def test_every_answer_is_of_its_shape(client: httpx.AsyncClient) -> None:
    """Strictly: no member too many, none of another type."""
    for operation, request in EXAMPLES:
        content = (await client.get(request)).content
        for shape in openapi.ANSWERS[operation]:
            try:
                decoded = msgspec.json.decode(content, type=shape, strict=True)
            except msgspec.ValidationError:
                continue
            if json.loads(msgspec.json.encode(decoded)) == json.loads(content):
                break
        else:
            pytest.fail(f"{request}: {content[:200]!r} is none of {openapi.ANSWERS[operation]}")


def main() -> None:
    """Records the examples."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        found = asyncio.run(record(shop))
        shop.close()
    EXAMPLE_FILE.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
