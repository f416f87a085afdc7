"""Events, gaps and the ledger over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from gateway.api.happenings import CAUSES
from gateway.api.keys import KeyFile
from gateway.api.role import Serve
from gateway.store.letters import open_letters
from schemas.wire import Cause, Event, Gap, Link
from tests.api.conftest import started
from tests.api.shop import SECOND, T0, Shop
from tests.servers.waiting import eventually_async
from tests.store.feed import Feed

V1 = "/api/v1"


def alarm(number: int, **more: Any) -> Event:
    given: dict[str, Any] = {
        "ts": T0 + number * SECOND, "source_ts": None, "asset": "imm", "device": "imm-01", "type": "alarm", "severity": 500,
        "message_zh": f"报警 {number}", "message_en": f"Alarm {number}", "fields": {"code": number},
    }  # fmt: skip
    return Event(f"e{number}", **(given | more))


async def get(client: httpx.AsyncClient, path: str, status: int = 200) -> dict[str, Any]:
    answer = await client.get(path if path.startswith("/") else f"{V1}/{path}")
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_events_in_full(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.commit([alarm(5, source_ts=T0, condition="overheat", state="active", fields={"t": 2**60, "x": float("nan")})])
    found = await get(client, "events?lang=zh&int64=string")
    assert found == {
        "items": [
            {
                "id": "e5", "no": 1, "ts": "2025-10-09T08:53:25.000000Z", "device": "imm-01", "asset": "imm", "type": "alarm",
                "severity": 500, "message": "报警 5", "fields": {"t": str(2**60), "x": "NaN"},
                "source_ts": "2025-10-09T08:53:20.000000Z", "condition": "overheat", "state": "active",
            }
        ],
        "next": None,
    }  # fmt: skip


async def test_event_filters(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.commit(
        [
            alarm(1),
            alarm(2, type="cycle", severity=100),
            alarm(3, device="meter-01", asset="hall-1"),
            alarm(4, severity=900),
        ]
    )

    async def ids(query: str) -> list[str]:
        return [item["id"] for item in (await get(client, f"events?{query}"))["items"]]

    assert await ids("") == ["e4", "e3", "e2", "e1"]
    assert await ids("order=asc") == ["e1", "e2", "e3", "e4"]
    assert await ids("device=meter-01") == ["e3"]
    assert await ids("asset=imm") == ["e4", "e2", "e1"]
    assert await ids("asset=plant&type=alarm") == ["e4", "e3", "e1"]
    assert await ids("min_severity=500") == ["e4", "e3", "e1"]
    assert await ids("start=2025-10-09T08:53:22Z&end=2025-10-09T08:53:24Z") == ["e3", "e2"]


async def test_event_pages_while_events_are_added(shop: Shop, client: httpx.AsyncClient) -> None:
    for order in ("asc", "desc"):
        shop.commit([alarm(number + (100 if order == "desc" else 0)) for number in range(20)])
        found: list[tuple[str, int]] = []
        url: str | None = f"events?order={order}&limit=3"
        page = 0
        while url:
            answer = await get(client, url)
            found += [(item["ts"], item["no"]) for item in answer["items"]]
            url = answer["next"]
            page += 1
            if page < 4:
                shop.commit(
                    [alarm(1000 * (1 + (order == "desc")) + page), alarm(-1000 * (1 + (order == "desc")) - page)]
                )
        assert found == sorted(set(found), reverse=order == "desc")
        assert len(found) >= 20


async def test_the_feed_gives_each_event_once(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    """In the order of commits: an event that is stored late comes last, whatever its time."""
    shop.commit([alarm(10), alarm(11), alarm(12, type="cycle")])
    first = await get(client, "events?order=commit&limit=2")
    assert [item["id"] for item in first["items"]] == ["e10", "e11"]
    second = await get(client, first["next"])
    assert [item["id"] for item in second["items"]] == ["e12"]
    empty = await get(client, second["next"])
    assert empty["items"] == []
    shop.commit([alarm(1), alarm(10)])  # the second one is a repetition
    third = await get(client, empty["next"])
    assert [item["id"] for item in third["items"]] == ["e1"]
    filtered = await get(client, "events?order=commit&type=cycle&limit=1")
    assert [item["id"] for item in filtered["items"]] == ["e12"]
    assert (await get(client, filtered["next"]))["items"] == []
    shop.writer.raise_epoch()
    shop.rows((1, 50, 1.0))
    await eventually_async(lambda: serve.live.epoch == shop.writer.epoch)
    gone = await get(client, third["next"], 410)
    assert gone["type"] == "urn:guantong:problem:cursor-gone"


async def test_gaps(shop: Shop, client: httpx.AsyncClient) -> None:
    before = (await get(client, "gaps"))["items"]  # of the time before the collector came
    shop.commit(
        [
            Gap("imm-01", [1, 2], T0 + 10 * SECOND, T0 + 11 * SECOND, Cause.DROPPED, 7, "budget"),
            Gap("imm-01", None, T0 + 20 * SECOND, T0 + 21 * SECOND, Cause.OVERRUN),
            Gap(None, None, T0 + 30 * SECOND, T0 + 31 * SECOND, Cause.UNDECODABLE),
        ]
    )

    async def causes(query: str) -> list[str]:
        return [item["cause"] for item in (await get(client, f"gaps?start=2025-10-09T08:53:25Z&{query}"))["items"]]

    assert await causes("") == ["dropped", "overrun", "undecodable"]
    assert await causes("device=meter-01") == ["undecodable"]
    assert await causes("signal=imm-01/mode") == ["overrun", "undecodable"]
    assert await causes("signal=imm-01/cycle/count") == ["dropped", "overrun", "undecodable"]
    assert await causes("end=2025-10-09T08:53:35Z") == ["dropped"]
    first = await get(client, "gaps?limit=1&start=2025-10-09T08:53:25Z&lang=zh")
    item = first["items"][0]
    assert (item["signals"], item["count"], item["text"]) == (
        ["imm-01/cycle/last_time", "imm-01/cycle/count"], 7, "本地缓存已满，部分数据被丢弃。",
    )  # fmt: skip
    assert (await get(client, first["next"]))["items"][0]["cause"] == "overrun"
    assert len((await get(client, "gaps"))["items"]) == len(before) + 3


async def test_ledger(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    other = Feed("s2", "line2")
    shop.commit(other.birth(device="press"), other.lost(4))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    found = await get(client, "ledger")
    assert (found["store"], found["epoch"], found["commit_no"]) == (
        shop.writer.store_id,
        shop.writer.epoch,
        shop.writer.commit_no,
    )
    streams = {item["stream"]: item for item in found["streams"]}
    assert (streams["s1"]["gateway"], streams["s1"]["stored"], streams["s1"]["closed_at"]) == (
        "line1",
        shop.feed.seq,
        None,
    )
    assert (streams["s2"]["stored"], streams["s2"]["lost"]) == (5, 4)
    assert streams["s2"]["gaps"] >= 1


async def test_gaps_of_an_asset_and_of_a_cause(shop: Shop, client: httpx.AsyncClient) -> None:
    shop.commit(
        [
            Gap("imm-01", [1], T0 + 10 * SECOND, T0 + 11 * SECOND, Cause.DROPPED, 7),
            Gap("meter-01", None, T0 + 20 * SECOND, T0 + 21 * SECOND, Cause.OVERRUN),
            Gap(None, None, T0 + 30 * SECOND, T0 + 31 * SECOND, Cause.UNDECODABLE),
        ]
    )
    shop.commit(shop.feed.lost(1))

    async def causes(query: str) -> list[str]:
        return [item["cause"] for item in (await get(client, f"gaps?start=2025-10-09T08:53:25Z&{query}"))["items"]]

    assert await causes("asset=imm") == ["dropped", "undecodable", "lost"]
    assert await causes("asset=hall-1&cause=overrun&cause=dropped") == ["dropped", "overrun"]
    assert await causes("asset=imm&device=meter-01") == []
    assert await causes("cause=stale") == []
    ongoing = (await get(client, "gaps?cause=lost&device=imm-01&lang=zh"))["items"]
    assert [(item["end"], item["text"]) for item in ongoing] == [(None, "有消息永久丢失。")]
    refused = await get(client, "gaps?cause=forgotten", 422)
    assert "undecodable" in refused["errors"][0]["expected"]
    assert (await get(client, "gaps?signal=imm-01/mode&asset=imm", 422))["errors"][0]["parameter"] == "asset"
    assert {cause.value for cause in Cause} == {str(cause) for cause in CAUSES}


async def test_completeness_of_signals_devices_and_assets(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    shop.clock.us = T0 + 100 * SECOND
    shop.commit(
        [Gap("imm-01", [1], T0 + 10 * SECOND, T0 + 20 * SECOND, Cause.DROPPED, 7)],
        Link("meter-01", False, T0 + 50 * SECOND, "timeout"),
    )
    shop.commit(shop.feed.done(90, device="imm-01"), shop.feed.done(50, device="meter-01"))
    shop.rows((2, 80, None, 0x80890000), (2, 85, 1))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    shop.clock.us = T0 + 100 * SECOND
    start = "start=2025-10-09T08:53:20Z"
    whole = await get(client, f"completeness?{start}&end=now&by=device&asset=plant")
    assert whole["end"] == "2025-10-09T08:55:00.000000Z"
    assert whole["signals"] == 4
    assert {item["id"]: item["completeness"] for item in whole["items"]} == {
        "imm-01": {
            "share": 255 / 300,
            "expected": 300.0,
            "disconnected": 0.0,
            "gap": 10.0,
            "bad": 5.0,
            "unknown": 30.0,
        },
        "meter-01": {"share": 0.5, "expected": 100.0, "disconnected": 50.0, "gap": 0.0, "bad": 0.0, "unknown": 0.0},
    }
    assert whole["completeness"]["share"] == (255 + 50) / 400
    settled = await get(client, f"completeness?{start}&device=imm-01")
    assert (settled["end"], settled["completeness"]["unknown"]) == ("2025-10-09T08:54:50.000000Z", 0.0)
    assert settled["completeness"]["share"] == 255 / 270
    single = await get(client, f"completeness?{start}&end=2025-10-09T08:53:40Z&signal=imm-01/cycle/last_time")
    assert (single["completeness"]["share"], "items" in single, "buckets" in single) == (0.5, False, False)
    assets = await get(client, f"completeness?{start}&end=now&by=asset&asset=hall-1")
    assert {item["id"]: item["completeness"]["share"] for item in assets["items"]} == {
        "hall-1": 305 / 400,
        "imm": 255 / 300,
    }
    signals = await get(client, f"completeness?{start}&end=2025-10-09T08:54:40Z&by=signal&device=imm-01")
    assert {item["id"]: item["completeness"]["share"] for item in signals["items"]} == {
        "imm-01/cycle/count": 1.0, "imm-01/cycle/last_time": 7 / 8, "imm-01/mode": 1.0,
    }  # fmt: skip
    pieces = await get(
        client, f"completeness?{start}&end=2025-10-09T08:54:00Z&buckets=10s&signal=imm-01/cycle/last_time"
    )
    assert [item["completeness"]["share"] for item in pieces["buckets"]] == [1.0, 0.0, 1.0, 1.0]
    days = await get(client, "completeness?start=2025-10-09T08:00:00Z&end=now&buckets=1d")
    assert [item["end"] for item in days["buckets"]] == [days["end"]]
    tokyo = await get(
        client, "completeness?start=2025-10-08T14:00:00Z&end=2025-10-09T08:54:00Z&buckets=1d&tz=Asia/Tokyo"
    )
    assert [item["start"] for item in tokyo["buckets"]] == [
        "2025-10-08T14:00:00.000000Z",
        "2025-10-08T15:00:00.000000Z",
    ]
    assert tokyo["buckets"][0]["completeness"]["share"] is None, "before the first birth nothing was expected"
    assert (await get(client, "completeness?start=now&end=-1h", 422))["errors"][0]["parameter"] == "end"
    assert (await get(client, "completeness?start=-365d&buckets=1s", 422))["errors"][0]["parameter"] == "buckets"
    assert (await get(client, "completeness?signal=imm-01/nothing", 422))["errors"][0]["parameter"] == "signal"


async def test_dead_letters(shop: Shop, client: httpx.AsyncClient) -> None:
    assert await get(client, "dead-letters") == {"items": [], "next": None}
    deep = b"\x91" * 600 + b"\xc0"
    shop.commit(
        shop.feed.step(poison="DecodeError: MessagePack is malformed", raw=b"\xc1\x02", kind=2, enc=0),
        shop.feed.step(
            poison="kind 77 is not known", raw=msgspec.msgpack.encode({"a": [1, float("inf")]}), kind=77, enc=0
        ),
        shop.feed.step(poison="too deep", raw=deep, kind=2, enc=0),
    )
    first = await get(client, "dead-letters?limit=1")
    (item,) = first["items"]
    assert (item["reason"], item["kind"], item["content"], item["raw"], item["state"]) == (
        "DecodeError: MessagePack is malformed", "readings", None, "c102", "waiting",
    )  # fmt: skip
    rest = await get(client, first["next"])
    assert rest["items"][0]["content"] == {"a": [1, "Infinity"]}
    assert (await get(client, rest["next"]))["items"][0]["raw"] == deep.hex()
    letters = open_letters(shop.settings, shop.folder)
    letters.discard([item["id"]], "told the maker")
    letters.close()
    (discarded,) = (await get(client, "dead-letters?state=discarded"))["items"]
    assert (discarded["note"], discarded["state"]) == ("told the maker", "discarded")
    assert len((await get(client, "dead-letters"))["items"]) == 2


async def test_dead_letters_are_for_those_who_set_the_gateway_up(shop: Shop) -> None:
    shop.fill()
    keys = {role: KeyFile(shop.folder).add(role, role) for role in ("viewer", "operator", "engineer", "admin")}
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for role, status in (("viewer", 403), ("operator", 403), ("engineer", 200), ("admin", 200)):
            answer = await client.get(f"{V1}/dead-letters", headers={"X-API-Key": keys[role], "Accept-Language": "zh"})
            assert answer.status_code == status, role
            if status == 403:
                assert "死信" in answer.json()["detail"]
            assert (await client.get(f"{V1}/gaps", headers={"X-API-Key": keys[role]})).status_code == 200
