"""Events, gaps and the ledger over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.api.role import Serve
from schemas.wire import Cause, Event, Gap
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
