"""Assets, devices, signals over real HTTP."""

from __future__ import annotations

import httpx

from gateway.api.role import Serve
from schemas.wire import Birth, Link, SignalBirth
from tests.api.conftest import started
from tests.api.shop import SECOND, T0, Shop, imm
from tests.servers.waiting import eventually_async

V1 = "/api/v1"


async def get(client: httpx.AsyncClient, path: str, status: int = 200, **headers: str) -> dict[str, object]:
    answer = await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == status, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_assets_as_a_list_and_as_a_tree(client: httpx.AsyncClient) -> None:
    flat = await get(client, f"{V1}/assets")
    assert [item["id"] for item in flat["items"]] == ["hall-1", "imm", "plant"]  # type: ignore[attr-defined]
    imm_asset = flat["items"][1]  # type: ignore[index]
    assert imm_asset == {
        "id": "imm", "name": "Injection machine", "level": "machine", "parent": "hall-1",
        "path": ["plant", "hall-1", "imm"], "devices": ["imm-01"], "gateway": "line1",
    }  # fmt: skip
    tree = await get(client, f"{V1}/assets?view=tree&lang=zh")
    plant = tree["items"][0]  # type: ignore[index]
    assert plant["name"] == "深圳工厂"
    assert plant["children"][0]["children"][0]["name"] == "注塑机"
    assert plant["children"][0]["devices"] == ["meter-01"]
    assert [item["id"] for item in (await get(client, f"{V1}/assets?parent="))["items"]] == ["plant"]  # type: ignore[attr-defined]
    assert [item["id"] for item in (await get(client, f"{V1}/assets?parent=plant"))["items"]] == ["hall-1"]  # type: ignore[attr-defined]
    one = await get(client, f"{V1}/assets/hall-1", accept_language="zh-CN,zh;q=0.9,en;q=0.8")
    assert (one["name"], one["children"], one["signals"]) == ("一车间", ["imm"], ["meter-01/power/total"])


async def test_devices_and_their_state(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    found = await get(client, f"{V1}/devices")
    assert [(item["id"], item["state"]) for item in found["items"]] == [
        ("imm-01", "connected"),
        ("meter-01", "connected"),
    ]  # type: ignore[attr-defined]
    device = await get(client, f"{V1}/devices/imm-01")
    assert device["identity"] == {"maker": "Haitian", "serial": "7"}
    assert device["last_seen"] == "2025-10-09T08:53:21.000000Z"
    assert (device["signals"], device["profile"], device["reason"], device["fix"]) == (3, "euromap77-injection", "", "")
    shop.commit(Link("imm-01", False, T0 + 5 * SECOND, "refused"))
    await eventually_async(lambda: "imm-01" in serve.live.down)
    device = await get(client, f"{V1}/devices/imm-01", accept_language="zh")
    assert (device["state"], device["reason"], device["since"]) == (
        "disconnected",
        "refused",
        "2025-10-09T08:53:25.000000Z",
    )
    assert "连接被拒绝" in str(device["text"])
    assert device["fix"]
    down = await get(client, f"{V1}/devices?state=disconnected")
    assert [item["id"] for item in down["items"]] == ["imm-01"]  # type: ignore[attr-defined]
    assert [item["id"] for item in (await get(client, f"{V1}/devices?asset=imm"))["items"]] == ["imm-01"]  # type: ignore[attr-defined]
    assert len((await get(client, f"{V1}/devices?asset=plant"))["items"]) == 2  # type: ignore[arg-type]


async def test_connection_intervals(shop: Shop, client: httpx.AsyncClient) -> None:
    for second in (10, 20, 30):
        shop.commit(
            Link("imm-01", False, T0 + second * SECOND, "timeout"), Link("imm-01", True, T0 + (second + 5) * SECOND)
        )
    shop.commit(Link("imm-01", False, T0 + 40 * SECOND, "no_answer"))
    found = await get(client, f"{V1}/devices/imm-01/connections")
    assert [item["end"] is None for item in found["items"]] == [True, False, False, False]  # type: ignore[attr-defined]
    assert found["items"][0]["reason"] == "no_answer"  # type: ignore[index]
    first = await get(client, f"{V1}/devices/imm-01/connections?order=asc&limit=3")
    second_page = await get(client, str(first["next"]))
    starts = [item["start"] for page in (first, second_page) for item in page["items"]]  # type: ignore[attr-defined]
    assert starts == sorted(starts)
    assert len(set(starts)) == 4
    assert second_page["next"] is None
    within = await get(client, f"{V1}/devices/imm-01/connections?start=2025-10-09T08:53:41Z&end=2025-10-09T08:53:44Z")
    assert [item["start"] for item in within["items"]] == ["2025-10-09T08:53:40.000000Z"]  # type: ignore[attr-defined]


async def test_signals_and_their_filters(client: httpx.AsyncClient) -> None:
    async def ids(query: str) -> list[str]:
        return [item["id"] for item in (await get(client, f"{V1}/signals?{query}"))["items"]]  # type: ignore[attr-defined]

    assert await ids("") == ["imm-01/cycle/count", "imm-01/cycle/last_time", "imm-01/mode", "meter-01/power/total"]
    assert await ids("kind=counter&kind=state") == ["imm-01/cycle/count", "imm-01/mode"]
    assert await ids("device=meter-01") == ["meter-01/power/total"]
    assert await ids("asset=imm") == ["imm-01/cycle/count", "imm-01/cycle/last_time", "imm-01/mode"]
    assert await ids("asset=hall-1&kind=measurement") == ["imm-01/cycle/last_time", "meter-01/power/total"]
    assert await ids("q=周期") == ["imm-01/cycle/count", "imm-01/cycle/last_time"]
    assert await ids("q=ACTIVE") == ["meter-01/power/total"]
    assert await ids("match=*/power/*") == ["meter-01/power/total"]
    assert await ids("match=imm-01/[cm]o*") == ["imm-01/mode"]
    assert await ids("match=nothing*") == []


async def test_one_signal_with_its_revisions(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    found = await get(client, f"{V1}/signals/imm-01/mode", accept_language="zh")
    assert found["enum"] == [{"value": 0, "text": "其他"}, {"value": 1, "text": "自动"}, {"value": 2, "text": "手动"}]
    assert (found["id"], found["description"], found["group"]) == ("imm-01/mode", "运行模式", "default")
    assert await get(client, f"{V1}/signals/{found['number']}") == await get(client, f"{V1}/signals/imm-01/mode")
    changed = SignalBirth(4, "mode", "r2", "int32", "", "state", "imm", scale=2.0)
    digest = serve.live.catalog.digest
    shop.commit(imm(changed, at=T0 + 60 * SECOND))
    await eventually_async(lambda: serve.live.catalog.digest != digest)
    found = await get(client, f"{V1}/signals/imm-01/mode")
    revisions = [(item["valid_from"], item["scale"]) for item in found["revisions"]]  # type: ignore[attr-defined]
    assert revisions == [("2025-10-09T08:53:10.000000Z", 1.0), ("2025-10-09T08:54:20.000000Z", 2.0)]


async def test_signal_pages_give_each_signal_once(shop: Shop) -> None:
    many = [SignalBirth(100 + i, f"temp/zone-{i:03}", "r1", "float64", "Cel", "measurement", "imm") for i in range(57)]
    shop.fill([imm(*many)])
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for path in ("signals", "latest"):
            names: list[str] = []
            url: str | None = f"{V1}/{path}?limit=7&match=imm-01/*"
            while url:
                answer = await client.get(url)
                names += [item.get("id") or item["signal"] for item in answer.json()["items"]]
                url = answer.json()["next"]
                assert (f'<{url}>; rel="next"' == answer.headers.get("link")) if url else "link" not in answer.headers
            assert len(names) == 60
            assert names == sorted(set(names))


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    for path, words in {
        "devices/imm-02": "imm-01",
        "assets/hall-2": "hall-1",
        "signals/imm-01/cycle/last_tine": "imm-01/cycle/last_time",
        "signals/999": "",
        "devices/imm-02/connections": "imm-01",
        "signals/imm-01/nope/history": "",
    }.items():
        answer = await client.get(f"{V1}/{path}")
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["type"] == "urn:guantong:problem:not-found"
        assert problem["instance"] == f"{V1}/{path}"
        assert words in problem.get("fix", "")


async def test_retired_things_are_out_of_the_way_and_stay_readable(
    shop: Shop, client: httpx.AsyncClient, serve: Serve
) -> None:
    digest = serve.live.catalog.digest
    shop.commit(Birth(at=T0 + 60 * SECOND, device="meter-01", asset="hall-1", retired=True))
    await eventually_async(lambda: serve.live.catalog.digest != digest)
    assert [item["id"] for item in (await get(client, f"{V1}/devices"))["items"]] == ["imm-01"]  # type: ignore[attr-defined]
    retired = await get(client, f"{V1}/devices?state=retired")
    assert [(item["id"], item["state"]) for item in retired["items"]] == [("meter-01", "retired")]  # type: ignore[attr-defined]
    assert "meter-01/power/total" not in str(await get(client, f"{V1}/latest"))
    assert "meter-01/power/total" in str(await get(client, f"{V1}/signals?retired=true"))
    named = await get(client, f"{V1}/latest?signal=meter-01/power/total")
    assert named["items"][0]["value"] == 12.25  # type: ignore[index]
    history = await get(client, f"{V1}/signals/meter-01/power/total/history")
    assert len(history["readings"]) == 1  # type: ignore[arg-type]


async def test_a_signal_named_history(shop: Shop) -> None:
    """The longer name is meant; the other one's history is read by number, and its links say so."""
    shop.fill([imm(SignalBirth(4, "mode/history", "r1", "string", "", "text", "imm"))])
    shop.rows((4, 5, "a"), (4, 6, "b"), tell=False)
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        mode = await get(client, f"{V1}/signals/imm-01/mode")
        assert mode["history"] == f"{V1}/signals/{mode['number']}/history"
        assert len((await get(client, str(mode["history"])))["readings"]) == 1  # type: ignore[arg-type]
        longer = await get(client, f"{V1}/signals/imm-01/mode/history")
        assert longer["id"] == "imm-01/mode/history"
        assert len((await get(client, str(longer["history"])))["readings"]) == 2  # type: ignore[arg-type]
        problem = await get(client, f"{V1}/signals/imm-01/mode/history?start=-1h", 422)
        assert problem["errors"][0]["parameter"] == "start"  # type: ignore[index]


async def test_etags(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    for path in ("assets", "assets/imm", "devices", "devices/imm-01", "signals", "signals/imm-01/mode"):
        first = await client.get(f"{V1}/{path}")
        etag = first.headers["etag"]
        again = await client.get(f"{V1}/{path}", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b""), path
        assert again.headers["etag"] == etag
        other = await client.get(f"{V1}/{path}", headers={"If-None-Match": '"x", W/"y"'})
        assert other.status_code == 200
        chinese = await client.get(f"{V1}/{path}", headers={"If-None-Match": etag, "Accept-Language": "zh"})
        assert chinese.status_code == 200
    etag = (await client.get(f"{V1}/devices/imm-01")).headers["etag"]
    shop.commit(Link("imm-01", False, T0 + 5 * SECOND, "timeout"))
    await eventually_async(lambda: "imm-01" in serve.live.down)
    assert (await client.get(f"{V1}/devices/imm-01", headers={"If-None-Match": etag})).status_code == 200
