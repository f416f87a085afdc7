"""What is refused before it is looked at, and hostile requests of every kind: an answer in the fours, never in the fives."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.context import Limits
from gateway.api.role import Serve
from gateway.ledger.steps import StoreFailedError, StoreWeatherError
from tests.api.conftest import started
from tests.api.shop import Shop
from tests.servers.waiting import eventually_async

V1 = "/api/v1"


async def test_writes_are_refused(client: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("signals/imm-01/mode", "latest", "writes", "devices/imm-01"):
            answer = await client.request(
                method, f"{V1}/{path}", content=b'{"value": 1}', headers={"Accept-Language": "zh"}
            )
            assert answer.status_code == 403
            assert answer.json()["type"] == "urn:guantong:problem:writes-disabled"
            assert "只读" in answer.json()["detail"]
    assert (await client.post("/health")).status_code == 405
    assert (await client.options(f"{V1}/latest")).status_code == 405


async def test_health_shows_writes(shop: Shop) -> None:
    shop.fill()
    for setting, shown in (("disabled", "disabled"), ("enabled", "enabled (refused in this version)")):
        async with (
            started(shop, writes=setting) as serve,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
        ):
            assert (await client.get("/health")).json()["writes"] == shown
            assert (await client.post(f"{V1}/writes")).status_code == 403
        shop.reader.close()


async def test_only_own_names_on_loopback(shop: Shop) -> None:
    shop.fill()
    async with (
        started(shop, hosts=["gateway.local"]) as serve,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
    ):
        for host in ("localhost", "LOCALHOST:1", f"127.0.0.1:{serve.port}", "[::1]:8000", "[::1]", "gateway.local:80"):
            assert (await client.get(f"{V1}/latest", headers={"Host": host})).status_code == 200, host
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "[::2]",
            "127.0.0.2",
            "localhost@evil",
        ):
            answer = await client.get(f"{V1}/latest", headers={"Host": host})
            assert answer.status_code == 421, host
            assert answer.json()["type"] == "urn:guantong:problem:wrong-host"


async def test_head_is_get_without_a_body(client: httpx.AsyncClient) -> None:
    for path in (
        f"{V1}/latest",
        f"{V1}/devices/imm-01",
        "/",
        "/docs/api",
        "/docs/zh/index.html",
        f"{V1}/signals/imm-01/mode/history?format=csv",
        "/health",
    ):
        answer = await client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
        assert answer.headers["content-type"] == (await client.get(path)).headers["content-type"]
    assert (await client.head(f"{V1}/devices/x")).status_code == 404
    assert (await client.head(f"{V1}/stream")).status_code == 405


async def test_headers_of_every_answer(client: httpx.AsyncClient) -> None:
    for path in (f"{V1}/latest", f"{V1}/nothing", "/", "/docs/api", "/docs/en/index.html", "/openapi.json"):
        answer = await client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        assert ("content-security-policy" in answer.headers) == answer.headers["content-type"].startswith("text/html")


WRONG: list[tuple[str, str, object, str]] = [
    ("latest?sginal=x", "sginal", "x", "the nearest is signal"),
    ("latest?limit=0", "limit", "0", "greater than or equal to 1"),
    ("latest?limit=1&limit=x", "limit", "x", "integer"),
    ("latest?int64=text", "int64", "text", "'number' or 'string'"),
    ("latest?cursor=!!", "cursor", "!!", "`next` link"),
    ("latest?device=imm-1", "device", "imm-1", "the nearest is imm-01"),
    ("latest?asset=hal-1", "asset", "hal-1", "the nearest is hall-1"),
    ("latest?lang=fr", "lang", "fr", "'en' or 'zh'"),
    ("signals?kind=speed", "kind", "speed", "'measurement'"),
    ("devices?state=on", "state", "on", "'connected'"),
    ("devices?retired=maybe", "retired", "maybe", "valid boolean"),
    ("events?min_severity=-1", "min_severity", "-1", "greater than or equal to 0"),
    ("events?order=commit&start=now", "start", "now", "nothing with order=commit"),
    ("gaps?signal=imm-01/mode&device=imm-01", "device", "imm-01", "nothing beside signal"),
    ("gaps?start=yesterday", "start", "yesterday", "RFC 3339"),
    ("gaps?start=2026-01-01T00:00:00", "start", "2026-01-01T00:00:00", "RFC 3339"),
    ("gaps?start=2026-13-01T00:00:00Z", "start", "2026-13-01T00:00:00Z", "RFC 3339"),
    ("gaps?start=0000-01-01T00:00:00Z", "start", "0000-01-01T00:00:00Z", "RFC 3339"),
    ("gaps?start=0001-01-01T00:00:00%2B23:59", "start", "0001-01-01T00:00:00+23:59", "1 to 9999"),
    ("gaps?start=-1h&end=-2h", "end", "-2h", "after start"),
    ("signals/imm-01/mode/history?buckets=1h", "start", None, "a time"),
    ("signals/imm-01/mode/history?buckets=1y&start=-1h", "buckets", "1y", "15m"),
    ("signals/imm-01/mode/history?buckets=0s&start=-1h", "buckets", "0s", "15m"),
    ("signals/imm-01/mode/history?buckets=1h&start=-1h&order=desc", "order", "desc", "asc"),
    ("signals/imm-01/mode/history?buckets=1d&start=0001-01-01T00:00:00Z", "start", "0001-01-01T00:00:00Z", "2 to 9998"),
    (
        "signals/imm-01/mode/history?buckets=1h&start=now&end=9999-12-31T00:00:00Z",
        "end",
        "9999-12-31T00:00:00Z",
        "2 to 9998",
    ),
    ("signals/imm-01/mode/history?buckets=1s&start=-30d&format=csv", "buckets", "1s", "1000000"),
    ("signals/imm-01/mode/history?tz=Mars", "tz", "Mars", "IANA"),
    ("signals/imm-01/mode/history?tz=../../etc/passwd", "tz", "../../etc/passwd", "IANA"),
    ("signals/imm-01/mode/history?limit=20000", "limit", 20000, "10000"),
    ("signals/imm-01/mode/history?format=xml", "format", "xml", "'json'"),
]
"""Query, the parameter that is wrong in it, what was found, and a part of what is expected."""


async def test_wrong_parameters_are_named(client: httpx.AsyncClient) -> None:
    for query, parameter, found, expected in WRONG:
        answer = await client.get(f"{V1}/{query}")
        assert answer.status_code == 422, (query, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        (error,) = answer.json()["errors"]
        assert (error["parameter"], error.get("found")) == (parameter, found), query
        assert expected in error["expected"], query
        assert parameter in answer.json()["detail"]


async def test_cursors_of_other_lists_are_not_taken(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.rows(*((1, second, 1.0) for second in range(1, 5)), *((3, second, 1) for second in range(1, 5)))
    signals = (await client.get(f"{V1}/signals?limit=1")).json()["next"].split("cursor=")[1]
    history = (await client.get(f"{V1}/signals/imm-01/mode/history?limit=1")).json()["next"].split("cursor=")[1]
    for path in (
        f"events?cursor={signals}", f"gaps?cursor={history}", f"latest?cursor={history}",
        f"signals/imm-01/cycle/last_time/history?cursor={history}", f"signals/imm-01/mode/history?order=desc&cursor={history}",
        f"signals/imm-01/mode/history?buckets=1h&cursor={history}", f"events?order=commit&cursor={signals}",
        f"devices/imm-01/connections?cursor={signals}",
    ):  # fmt: skip
        answer = await client.get(f"{V1}/{path}")
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "cursor"), path


# ---------------------------------------------------------------------------------------------------- the store is away


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreWeatherError("the disk is away", fix="Put it back."), "store-unavailable"),
        (StoreFailedError("wrong version", fix="Upgrade."), "store-failed"),
    ],
)
async def test_a_store_that_cannot_be_read(
    serve: Serve, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    for method in ("history", "gaps", "connections", "events", "streams"):
        monkeypatch.setattr(serve.api.reader, method, fail)
    for path in ("signals/imm-01/mode/history", "events", "gaps", "ledger", "devices/imm-01/connections"):
        answer = await client.get(f"{V1}/{path}")
        assert answer.status_code == 503, path
        assert answer.json()["type"] == f"urn:guantong:problem:{kind}"
        assert answer.json()["detail"] == str(error)
        assert answer.headers["retry-after"]
    assert (await client.get(f"{V1}/latest")).status_code == 200  # from memory


async def test_before_the_store_is_there(shop: Shop) -> None:
    """Serve may start first: it says so, and answers when ingest has made the store."""

    class Later:
        there = False

        def __getattr__(self, name: str) -> Callable[..., Any]:
            if not self.there:
                raise StoreWeatherError("ingest has not made the store yet", fix="Start ingest.")
            found: Callable[..., Any] = getattr(shop.reader, name)
            return found

    shop.fill()
    later = Later()
    async with (
        started(shop, reader=later, loaded=False) as serve,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
    ):
        for path in ("latest", "devices", "signals", "assets", "stream", "events"):
            answer = await client.get(f"{V1}/{path}")
            assert answer.status_code == 503, path
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/live")).json() == {"status": "alive"}
        await eventually_async(lambda: serve.live.health.state == "recovering")
        store = (await client.get("/health/ready")).json()["components"]["store"]
        assert store == {"state": "recovering", "reason": "ingest has not made the store yet", "fix": "Start ingest."}
        later.there = True
        await eventually_async(lambda: serve.live.loaded, timeout=10)
        assert (await client.get(f"{V1}/latest")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


async def test_too_many_questions_at_once(shop: Shop) -> None:
    import threading

    shop.fill()
    go_on = threading.Event()
    reader = shop.reader

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(reader, name)

        def events(self, *_: Any, **__: Any) -> Any:
            assert go_on.wait(10)
            return []

    async with (
        started(shop, reader=Slow(), limits=Limits(threads=1, waiting=2)) as serve,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
    ):
        asked = [asyncio.create_task(client.get(f"{V1}/events")) for _ in range(2)]
        await eventually_async(lambda: serve.api._waiting == 2)
        answer = await client.get(f"{V1}/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get(f"{V1}/latest")).status_code == 200  # memory needs no thread
        go_on.set()
        assert [(await task).status_code for task in asked] == [200, 200]


async def test_a_mistake_of_ours_is_a_problem_too(
    serve: Serve, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(serve.api.view, "items", fail)
    answer = await client.get(f"{V1}/latest")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:guantong:problem:internal-error"
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


# -------------------------------------------------------------------------------------------------------- raw requests


async def raw(serve: Serve, data: bytes, *, wait: float = 5.0) -> bytes:
    """What the server answers to these bytes until it hangs up or a whole answer is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", serve.port)
    try:
        writer.write(data)
        found = b""
        async with asyncio.timeout(wait):
            while b"\r\n\r\n" not in found:
                piece = await reader.read(65536)
                if not piece:
                    break
                found += piece
        return found
    finally:
        writer.close()


RAW: list[tuple[bytes, bytes]] = [
    (b"rubbish\r\n\r\n", b"400"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),  # TLS
    (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"40"),
    (b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
    (b"POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413"),
    (b"POST /api/v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"4"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
    (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000, b"431"),
    (b"GET / HTTP/1.0\r\n\r\n", b"421"),
    (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"200"),
    (b"GET /api/v1/latest%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    (b"GET /api/v1/devices/%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    (b"GET /static-docs/..%2f..%2fcore.py HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    (b"GET /static-docs/%2e%2e/core.py HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    (b"GET /api/v1/latest?match=%ff&match=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
    (b"TRACE /api/v1/latest HTTP/1.1\r\nHost: localhost\r\n\r\n", b"403"),
]
"""What is sent, and how the status of the answer begins."""


async def test_raw_requests(serve: Serve) -> None:
    for data, status in RAW:
        answer = await raw(serve, data)
        assert answer.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status)), (data[:60], answer[:200])
    assert (await raw(serve, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_pipelined_and_slow_requests(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.api import protocol

    one = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", serve.port)
    writer.write(one * 20)  # more than a header's worth, in one piece
    found = b""
    async with asyncio.timeout(5):
        while found.count(b'"alive"') < 20:
            found += await reader.read(65536)
    writer.close()
    monkeypatch.setattr(protocol, "_HEADER_TIME", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", serve.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: loc")  # and then nothing
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            assert await reader.read() == b""
            raise ConnectionResetError
    writer.close()


async def test_too_many_connections(shop: Shop) -> None:
    shop.fill()
    async with started(shop, limits=Limits(connections=5)) as serve:
        held = [socket.create_connection(("127.0.0.1", serve.port)) for _ in range(5)]
        answer = await raw(serve, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 5
        while not (await raw(serve, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(
            b"HTTP/1.1 200"
        ):
            assert time.monotonic() < deadline


# ---------------------------------------------------------------------------------------------------------------- fuzz

_PATHS = (
    "assets", "assets/imm", "devices", "devices/imm-01", "devices/imm-01/connections", "signals", "signals/1",
    "signals/imm-01/mode", "signals/imm-01/mode/history", "signals/1/history", "latest", "events", "gaps", "ledger",
)  # fmt: skip
_NAMES = (
    "lang", "view", "parent", "asset", "state", "retired", "limit", "cursor", "start", "end", "order", "device", "kind", "q",
    "match", "signal", "int64", "buckets", "tz", "format", "bom", "type", "min_severity", "x",
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        [
            "", "0", "-1", "1", "1e9", "99999999999999999999", "true", "null", "imm-01", "imm-01/mode", "now", "-24h", "-999999999d",
            "2025-10-09T08:53:20Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "desc", "commit", "json", "csv", "ndjson",
            "1d", "15m", "1s", "Asia/Shanghai", "*", "[", "[!a-", "?" * 50, "*" * 100, "%", "'; DROP TABLE reading; --", "gaFu", "k6Fi",
        ]
    ),
    st.text(max_size=40),
)  # fmt: skip


async def test_no_request_makes_an_error_of_ours(shop: Shop, serve: Serve) -> None:
    """Any path with any parameters: an answer, or a problem that is the client's."""
    shop.rows(*((3, second, second) for second in range(1, 50)))
    loop = asyncio.get_running_loop()
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}")

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.one_of(st.sampled_from(_PATHS), st.text(min_size=1, max_size=20).map(lambda text: f"signals/{text}")),
        st.lists(st.tuples(st.sampled_from(_NAMES), _VALUES), max_size=4),
    )
    def ask(path: str, query: list[tuple[str, str]]) -> None:
        async def one() -> None:
            try:
                url = httpx.URL(f"{V1}/").join(path.encode("utf-8", "replace").decode()).copy_merge_params(tuple(query))
            except (httpx.InvalidURL, ValueError):
                return
            if not str(url).startswith(V1):
                return
            answer = await client.get(url)
            assert answer.status_code < 500, (str(url), answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["status"] == answer.status_code

        asyncio.run_coroutine_threadsafe(one(), loop).result(30)

    await asyncio.to_thread(ask)
    await client.aclose()
