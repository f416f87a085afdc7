"""Latest and history over real HTTP: values exact, states honest, every row exactly once."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from typing import Any

import httpx
import msgspec
import pytest
import zstandard

from gateway.api import shapes
from gateway.api.role import Serve
from schemas import status as codes
from schemas.times import to_rfc3339
from schemas.wire import Cause, Extra, Flag, Gap, Link, SignalBirth
from tests.api.conftest import started
from tests.api.shop import SECOND, T0, Shop, imm
from tests.servers.waiting import eventually_async

V1 = "/api/v1"
MIXED = SignalBirth(4, "mixed", "r1", "object", "", "record", "imm")
HISTORY = f"{V1}/signals/imm-01/cycle/last_time/history"


async def settled(serve: Serve, shop: Shop) -> None:
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no and not serve.live._inbox)


async def latest(client: httpx.AsyncClient, query: str = "", **headers: str) -> dict[str, Any]:
    answer = await client.get(f"{V1}/latest?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    msgspec.json.decode(answer.content, type=shapes.LatestValues)
    return {item["signal"]: item for item in answer.json()["items"]}


# -------------------------------------------------------------------------------------------------------------- latest


async def test_latest_in_full(client: httpx.AsyncClient) -> None:
    found = await latest(client)
    assert found["imm-01/cycle/last_time"] == {
        "signal": "imm-01/cycle/last_time", "value": 23.5, "status": 0, "status_name": "Good", "status_text": "The value is good.",
        "quality": "good", "ts": "2025-10-09T08:53:20.000000Z", "unit": "s", "seen_at": "2025-10-09T08:53:21.000000Z",
    } | {"status_text": found["imm-01/cycle/last_time"]["status_text"]}  # fmt: skip
    assert found["imm-01/cycle/count"]["value"] == 100
    assert type(found["imm-01/cycle/count"]["value"]) is int
    chinese = await latest(client, "signal=imm-01/mode", **{"Accept-Language": "zh"})
    assert chinese["imm-01/mode"]["status_text"] == codes.info(0).text_zh


async def test_latest_by_name_glob_device_and_asset(client: httpx.AsyncClient) -> None:
    assert list(await latest(client, "signal=meter-01/power/total&signal=imm-01/mode")) == [
        "imm-01/mode",
        "meter-01/power/total",
    ]
    assert list(await latest(client, "match=imm-01/cycle/*")) == ["imm-01/cycle/count", "imm-01/cycle/last_time"]
    assert list(await latest(client, "match=*/mode&signal=meter-01/power/total")) == [
        "imm-01/mode",
        "meter-01/power/total",
    ]
    assert list(await latest(client, "device=meter-01")) == ["meter-01/power/total"]
    assert list(await latest(client, "asset=imm&match=*/cycle/count")) == ["imm-01/cycle/count"]
    unknown = await client.get(f"{V1}/latest?signal=imm-01/mode&signal=imm-01/mood")
    assert unknown.status_code == 422
    assert unknown.json()["errors"] == [
        {
            "parameter": "signal",
            "found": "imm-01/mood",
            "expected": "a known signal (see /api/v1/signals); the nearest is imm-01/mode",
        }
    ]


async def test_latest_moves_and_is_seen_again(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    query = "signal=imm-01/cycle/last_time"
    before = await latest(client, query)
    shop.commit(shop.feed.done(30, device="imm-01"))
    await settled(serve, shop)
    seen = (await latest(client, query))["imm-01/cycle/last_time"]
    assert (seen["value"], seen["ts"]) == (23.5, before["imm-01/cycle/last_time"]["ts"])  # never stamped anew
    assert seen["seen_at"] == "2025-10-09T08:53:50.000000Z"
    shop.rows((1, 40, 24.0))
    await settled(serve, shop)
    moved = (await latest(client, query))["imm-01/cycle/last_time"]
    assert (moved["value"], moved["ts"], moved["seen_at"]) == (
        24.0,
        "2025-10-09T08:54:00.000000Z",
        "2025-10-09T08:54:00.000000Z",
    )


async def test_latest_of_a_device_that_is_not_connected(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    shop.commit(Link("imm-01", False, T0 + 5 * SECOND, "timeout"))
    await settled(serve, shop)
    found = (await latest(client))["imm-01/cycle/last_time"]
    assert (found["value"], found["status"], found["status_name"], found["quality"]) == (
        None, codes.BAD_NO_COMMUNICATION, "BadNoCommunication", "bad",
    )  # fmt: skip
    assert found["last"] == {"value": 23.5, "status": 0, "quality": "good", "ts": "2025-10-09T08:53:20.000000Z"}
    assert (found["ts"], found["reason"]) == ("2025-10-09T08:53:25.000000Z", "timeout")
    assert (await latest(client))["meter-01/power/total"]["value"] == 12.25
    shop.commit(Link("imm-01", True, T0 + 9 * SECOND))
    await settled(serve, shop)
    again = (await latest(client))["imm-01/cycle/last_time"]
    assert (again["value"], again["quality"]) == (23.5, "good")
    assert "last" not in again


async def test_latest_while_the_collector_is_silent(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    shop.clock.move(11)
    await eventually_async(lambda: serve.live.is_quiet("line1"))
    found = (await latest(client))["imm-01/cycle/last_time"]
    assert (found["value"], found["quality"], found["status_name"]) == (
        23.5, "uncertain", "UncertainNoCommunicationLastUsableValue",
    )  # fmt: skip
    assert (found["ts"], found["reason"]) == ("2025-10-09T08:53:20.000000Z", "collector_silent")
    shop.commit(shop.feed.done(20, device="imm-01"))
    await eventually_async(lambda: not serve.live.is_quiet("line1"))
    assert (await latest(client))["imm-01/cycle/last_time"]["quality"] == "good"


async def test_latest_of_a_signal_without_a_reading(shop: Shop) -> None:
    shop.fill([imm(MIXED)])
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        found = (await latest(client))["imm-01/mixed"]
        assert (found["value"], found["status_name"], found["ts"], found["seen_at"]) == (
            None, "BadWaitingForInitialData", None, None,
        )  # fmt: skip
        shop.commit(Link("imm-01", False, T0, "timeout"))
        await settled(serve, shop)
        assert (await latest(client))["imm-01/mixed"]["status_name"] == "BadNoCommunication"


EXACT: list[tuple[Any, Any, Any]] = [
    (0.1, 0.1, 0.1), (-0.0, -0.0, -0.0), (1e300, 1e300, 1e300), (math.nan, "NaN", "NaN"),
    (math.inf, "Infinity", "Infinity"), (-math.inf, "-Infinity", "-Infinity"), (2**53, 2**53, 2**53),
    (2**53 + 1, 2**53 + 1, str(2**53 + 1)), (2**64 - 1, 2**64 - 1, str(2**64 - 1)), (-(2**63), -(2**63), str(-(2**63))),
    (True, True, True), ("运行 \"quoted\"", "运行 \"quoted\"", "运行 \"quoted\""), (b"\x00\xff", "AP8=", "AP8="),
    ([1, math.nan, [2**60]], [1, "NaN", [2**60]], [1, "NaN", [str(2**60)]]), ({"a": {"b": 2**55}}, {"a": {"b": 2**55}}, {"a": {"b": str(2**55)}}),
    (None, None, None), ("", "", ""),
]  # fmt: skip


async def test_values_are_exact(shop: Shop) -> None:
    shop.fill([imm(MIXED)])
    shop.rows(*((4, second, value) for second, (value, _, _) in enumerate(EXACT)), tell=False)
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for query, column in (("", 1), ("?int64=string", 2)):
            answer = await client.get(f"{V1}/signals/imm-01/mixed/history{query}")
            assert json.dumps([row["value"] for row in answer.json()["readings"]]) == json.dumps(
                [row[column] for row in EXACT]
            )
            separator = "&" if query else "?"
            lines = (
                await client.get(f"{V1}/signals/imm-01/mixed/history{query}{separator}format=ndjson")
            ).text.splitlines()
            assert json.dumps([json.loads(line)["value"] for line in lines]) == json.dumps(
                [row[column] for row in EXACT]
            )
        for value, plain, text in EXACT:
            shop.rows((4, 1000 + shop.feed.seq, value))
            await settled(serve, shop)
            for query, expected in (("", plain), ("int64=string", text)):
                found = (await latest(client, f"signal=imm-01/mixed&{query}"))["imm-01/mixed"]["value"]
                assert json.dumps(found) == json.dumps(expected)


async def test_latest_compressed_and_cached(client: httpx.AsyncClient, serve: Serve, shop: Shop) -> None:
    plain = (await client.get(f"{V1}/latest", headers={"Accept-Encoding": "identity"})).content
    for _ in range(2):
        for encoding, unpack in (("gzip", gzip.decompress), ("zstd", _unzstd)):
            async with client.stream("GET", f"{V1}/latest", headers={"Accept-Encoding": encoding}) as answer:
                assert answer.headers["content-encoding"] == encoding
                assert "Accept-Encoding" in answer.headers["vary"]
                raw = b"".join([piece async for piece in answer.aiter_raw()])
            assert unpack(raw) == plain
    shop.rows((1, 77, 77.0))
    await settled(serve, shop)
    assert (await latest(client))["imm-01/cycle/last_time"]["value"] == 77.0


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


# ------------------------------------------------------------------------------------------------------------- history


async def test_history_with_all_that_belongs_to_a_reading(shop: Shop, client: httpx.AsyncClient) -> None:
    flags = int(Flag.GATEWAY_TIME | Flag.RAW_KEPT)
    shop.commit(shop.feed.rows((1, 10, 5.0, codes.UNCERTAIN, flags), extra={0: Extra(T0 - 7 * SECOND, "0x05")}))
    shop.rows((1, 11, None, codes.BAD_SENSOR_FAILURE), (1, 11, 6.0, 0, 0, 1))
    found = (await client.get(f"{HISTORY}?start=2025-10-09T08:53:30Z&tz=Asia/Shanghai")).json()
    assert found["readings"] == [
        {
            "ts": "2025-10-09T08:53:30.000000Z", "value": 5.0, "status": codes.UNCERTAIN, "quality": "uncertain",
            "flags": ["gateway_time", "raw_kept"], "source_ts": "2025-10-09T08:53:13.000000Z", "raw": "0x05",
            "local": "2025-10-09T16:53:30.000000+08:00",
        },
        {
            "ts": "2025-10-09T08:53:31.000000Z", "value": None, "status": codes.BAD_SENSOR_FAILURE, "quality": "bad",
            "local": "2025-10-09T16:53:31.000000+08:00",
        },
        {
            "ts": "2025-10-09T08:53:31.000000Z", "value": 6.0, "status": 0, "quality": "good", "n": 1,
            "local": "2025-10-09T16:53:31.000000+08:00",
        },
    ]  # fmt: skip
    assert (found["unit"], found["start"], found["end"], found["next"]) == (
        "s",
        "2025-10-09T08:53:30.000000Z",
        None,
        None,
    )
    assert found["revisions"][0]["address"] == "nsu=urn:x;s=Last"


async def test_history_ranges(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.rows(*((1, second, float(second)) for second in range(1, 11)))
    shop.clock.us = T0 + 10 * SECOND

    async def values(query: str) -> list[float]:
        answer = await client.get(f"{HISTORY}?{query}")
        assert answer.status_code == 200, answer.text
        return [row["value"] for row in answer.json()["readings"]]

    assert await values("start=2025-10-09T08:53:25Z&end=2025-10-09T08:53:27Z") == [5.0, 6.0]  # the end is not in it
    assert await values("start=2025-10-09T16:53:25%2B08:00&end=2025-10-09T16:53:26%2B08:00") == [5.0]
    assert await values("start=2025-10-09T16:53:25+08:00&end=2025-10-09T16:53:26+08:00") == [5.0]
    assert await values("start=-3s&end=now") == [7.0, 8.0, 9.0]
    assert await values("start=-3s&order=desc&limit=2") == [10.0, 9.0]
    assert await values("start=2030-01-01T00:00:00Z") == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_every_row_exactly_once_while_rows_are_added(shop: Shop, client: httpx.AsyncClient, order: str) -> None:
    shop.rows(*((1, second, float(second), 0, 0, n) for second in range(1, 40) for n in range(3)))
    before = [(row.ts, row.n) for piece in shop.reader.history([1]) for row in piece]
    found: list[tuple[str, int]] = []
    url: str | None = f"{HISTORY}?limit=7&order={order}"
    page = 0
    while url:
        answer = (await client.get(url)).json()
        found += [(row["ts"], row.get("n", 0)) for row in answer["readings"]]
        url = answer["next"]
        page += 1
        if page < 10:
            shop.rows((1, 100 + page, 1.0), (1, 0.5 + page / 100, 2.0))  # at both ends
    assert len(found) == len(set(found))
    assert len(set(found)) >= len(before)
    assert found == sorted(found, reverse=order == "desc")
    assert {(to_rfc3339(ts), n) for ts, n in before} <= set(found)


async def test_relative_bounds_are_the_same_on_all_pages(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.rows(*((1, second, float(second)) for second in range(1, 11)))
    shop.clock.us = T0 + 11 * SECOND
    first = (await client.get(f"{HISTORY}?start=-8s&end=now&limit=4")).json()
    shop.clock.move(60)
    second = (await client.get(first["next"])).json()
    assert [row["value"] for row in first["readings"] + second["readings"]] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert (first["start"], first["end"]) == (second["start"], second["end"])


async def test_completeness(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    shop.commit(shop.feed.done(20, device="imm-01"))
    await settled(serve, shop)

    async def completeness(query: str, path: str = HISTORY) -> dict[str, Any]:
        found: dict[str, Any] = (await client.get(f"{path}?{query}")).json()["completeness"]
        return found

    # between the first birth and the first progress the collector had just been down
    assert await completeness("start=2025-10-09T08:53:25Z&end=2025-10-09T08:53:35Z") == {
        "complete": True, "share": 1.0, "known_to": "2025-10-09T08:53:40.000000Z", "gaps": [], "disconnected": [], "more": False,
    }  # fmt: skip
    shop.clock.us = T0 + 60 * SECOND
    unsettled = await completeness("start=2025-10-09T08:53:20Z&end=2025-10-09T08:54:00Z")
    assert (unsettled["complete"], unsettled["share"]) == (False, 0.5)
    shop.clock.us = T0 + 60 * SECOND
    shop.commit(
        shop.feed.step([Gap("imm-01", [1], T0 + 30 * SECOND, T0 + 31 * SECOND, Cause.DROPPED, 5, "budget")]),
        shop.feed.step(Link("imm-01", False, T0 + 33 * SECOND, "timeout")),
        shop.feed.step(Link("imm-01", True, T0 + 34 * SECOND)),
        shop.feed.done(61, device="imm-01"),
    )
    await settled(serve, shop)
    found = await completeness("start=2025-10-09T08:53:45Z")
    assert (found["complete"], found["share"]) == (False, 34 / 36)
    assert [(gap["cause"], gap["count"], gap["detail"]) for gap in found["gaps"]] == [("dropped", 5, "budget")]
    assert found["disconnected"] == [
        {"start": "2025-10-09T08:53:53.000000Z", "end": "2025-10-09T08:53:54.000000Z", "reason": "timeout"}
    ]
    export = await client.get(f"{HISTORY}?start=2025-10-09T08:53:45Z&format=csv")
    assert export.headers["guantong-complete"] == "false; missing=2; share=0.944444"
    other = await completeness("start=2025-10-09T08:53:45Z", f"{V1}/signals/imm-01/mode/history")
    assert other["gaps"] == []  # the gap is of one signal alone
    assert (await completeness("start=2025-10-09T08:53:55Z"))["complete"] is True
    shop.rows((1, 56, None, 0x80890000), (1, 58, 1.0))
    await settled(serve, shop)
    bad = await completeness("start=2025-10-09T08:53:55Z&end=2025-10-09T08:54:20Z")
    assert (bad["complete"], bad["share"], bad["gaps"]) == (False, 0.92, [])


# ------------------------------------------------------------------------------------------------------------- buckets


async def test_buckets(shop: Shop, serve: Serve, client: httpx.AsyncClient) -> None:
    start = 1_760_000_400 - T0 // SECOND  # 09:00:00Z, in seconds after T0
    shop.rows(
        (1, start, 10.0), (1, start + 450, 20.0), (1, start + 600, None, codes.BAD_SENSOR_FAILURE), (1, start + 900, 30.0),
        (1, start + 1000, 40.0, codes.UNCERTAIN),
    )  # fmt: skip
    shop.commit(shop.feed.done(start + 1800, device="imm-01"))
    await settled(serve, shop)
    query = "buckets=15m&start=2025-10-09T09:00:00Z&end=2025-10-09T09:30:00Z"
    answer = await client.get(f"{HISTORY}?{query}&tz=Asia/Shanghai")
    found = msgspec.json.decode(answer.content, type=shapes.Buckets)
    first, second = found.buckets
    assert (first.good, first.uncertain, first.bad, first.min, first.max, first.first, first.last, first.sum) == (
        2,
        0,
        1,
        10,
        20,
        10,
        20,
        30,
    )
    assert (first.covered, first.average) == (600.0, 12.5)
    assert (first.start, first.end, first.local) == (
        "2025-10-09T09:00:00.000000Z", "2025-10-09T09:15:00.000000Z", "2025-10-09T17:00:00.000000+08:00",
    )  # fmt: skip
    assert (second.good, second.uncertain, second.last, second.covered) == (1, 1, 40, 900.0)
    assert found.next is None

    days = (
        await client.get(f"{HISTORY}?buckets=1d&start=2025-10-08T00:00:00Z&end=2025-10-10T00:00:00Z&tz=Asia/Shanghai")
    ).json()
    assert [item["start"] for item in days["buckets"]] == [
        "2025-10-07T16:00:00.000000Z", "2025-10-08T16:00:00.000000Z", "2025-10-09T16:00:00.000000Z",
    ]  # fmt: skip

    text = (await client.get(f"{HISTORY}?{query}&format=csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["good"], row["average"]) for row in rows] == [("2", "12.5"), ("1", str(second.average))]
    lines = (await client.get(f"{HISTORY}?{query}&format=ndjson")).text.splitlines()
    assert [json.loads(line)["bad"] for line in lines] == [1, 0]


async def test_bucket_pages_join(client: httpx.AsyncClient) -> None:
    query = "buckets=1s&start=2025-10-09T08:53:00Z&end=2025-10-09T08:54:00Z"
    whole = (await client.get(f"{HISTORY}?{query}")).json()
    assert len(whole["buckets"]) == 60
    found: list[Any] = []
    url: str | None = f"{HISTORY}?{query}&limit=13"
    while url:
        page = (await client.get(url)).json()
        found += page["buckets"]
        url = page["next"]
    assert found == whole["buckets"]
    lines = (await client.get(f"{HISTORY}?{query}&format=ndjson&limit=31")).text.splitlines()
    assert len(lines) == 31


# -------------------------------------------------------------------------------------------------------------- export


async def test_csv(shop: Shop) -> None:
    shop.fill([imm(MIXED)])
    texts = ["运行", "=1+1", "a,b", 'say "x"', "two\r\nlines", "@SUM(A1)", "-3"]
    shop.rows(*((4, second, text) for second, text in enumerate(texts)), tell=False)
    shop.rows(
        (4, 100, None, codes.BAD), (4, 101, [1, 2]), (4, 102, True), (4, 103, -3.5), (4, 104, math.nan), tell=False
    )
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        answer = await client.get(f"{V1}/signals/imm-01/mixed/history?format=csv&tz=Asia/Shanghai")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="imm-01_mixed.csv"'
        assert answer.headers["guantong-complete"] == "true"
        assert not answer.content.startswith(b"\xef\xbb\xbf")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        assert [row["value"] for row in rows] == [*texts, "", "[1,2]", "true", "-3.5", "NaN"]
        assert (rows[0]["ts"], rows[0]["local"]) == ("2025-10-09T08:53:20.000000Z", "2025-10-09 16:53:20.000000")
        assert (rows[7]["quality"], rows[7]["status"]) == ("bad", str(codes.BAD))
        excel = await client.get(f"{V1}/signals/imm-01/mixed/history?format=csv&bom=true")
        assert excel.content.startswith(b"\xef\xbb\xbfsignal,ts,value")
        rows = list(csv.DictReader(io.StringIO(excel.content.decode("utf-8-sig"), newline="")))
        # texts that Excel would run are defused, numbers are not touched
        assert [row["value"] for row in rows] == [
            "运行",
            "'=1+1",
            "a,b",
            'say "x"',
            "two\r\nlines",
            "'@SUM(A1)",
            "'-3",
            "",
            "[1,2]",
            "true",
            "-3.5",
            "NaN",
        ]


async def test_exports_of_many_chunks(shop: Shop, client: httpx.AsyncClient) -> None:
    """Three chunks and a piece; compressed on the way as a whole."""
    shop.rows(*((1, 10 + number / 10, float(number)) for number in range(16_001)))
    for encoding in ("identity", "gzip", "zstd"):
        answer = await client.get(
            f"{HISTORY}?format=ndjson&start=2025-10-09T08:53:25Z", headers={"Accept-Encoding": encoding}
        )
        values = [json.loads(line)["value"] for line in answer.text.splitlines()]
        assert values == [float(number) for number in range(16_001)]
        assert answer.headers.get("content-encoding", "identity") == encoding
    limited = await client.get(f"{HISTORY}?format=ndjson&order=desc&limit=5003")
    assert [json.loads(line)["value"] for line in limited.text.splitlines()] == [
        float(n) for n in range(16_000, 10_997, -1)
    ]
    page = (await client.get(f"{HISTORY}?limit=10000&start=2025-10-09T08:53:25Z")).json()
    rest = await client.get(page["next"].replace("limit=10000", "format=ndjson"))
    assert len(rest.text.splitlines()) == 6_001
