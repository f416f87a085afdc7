"""API keys: the file, who is let in, who is slowed down."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest

from gateway.api.keys import KeyFile, KeyFileError
from tests.api.conftest import started
from tests.api.shop import Shop
from tests.servers.waiting import eventually_async


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    assert not keys.any()
    first = keys.add("mes", now_us=0)
    second = keys.add("andon board", "admin")
    content = keys.path.read_text()
    assert first.split("_", 2)[2] not in content
    assert second.split("_", 2)[2] not in content
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert [(key.name, key.role, key.created) for key in keys.list()][:1] == [
        ("mes", "viewer", "1970-01-01T00:00:00.000000Z")
    ]
    with pytest.raises(ValueError, match="already"):
        keys.add("mes")
    with pytest.raises(ValueError, match="role"):
        keys.add("x", "root")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name"):
        keys.add("no/slash")
    assert keys.revoke("mes").name == "mes"
    with pytest.raises(KeyError):
        keys.revoke("mes")
    assert [key.name for key in keys.list()] == ["andon board"]


def test_only_the_right_key_is_known(tmp_path: Path) -> None:
    now = [0.0]
    keys = KeyFile(tmp_path, lambda: now[0])
    key = keys.add("mes", "operator")
    now[0] += 2
    found = keys.verify(key)
    assert found is not None
    assert (found.name, found.role) == ("mes", "operator")
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for other in (
        wrong,
        key.upper(),
        key + "x",
        f" {key}",
        "",
        "gt_",
        key.replace(key[3:11], "00000000"),
        "ключ",
        "\x00",
    ):
        assert keys.verify(other) is None, other
    keys.revoke("mes")
    now[0] += 0.5
    assert keys.verify(key) is not None  # seen within a second
    now[0] += 1
    assert keys.verify(key) is None


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', '{"version": 1, "keys": [{"id": 3}]}', "\udcff"])
def test_a_broken_file_lets_nobody_in(tmp_path: Path, content: str) -> None:
    keys = KeyFile(tmp_path)
    keys.path.write_bytes(content.encode("utf-8", "surrogateescape"))
    for ask in (keys.any, keys.list, lambda: keys.verify("x"), lambda: keys.add("x")):
        with pytest.raises(KeyFileError, match=r"keys\.json") as caught:
            ask()
        assert caught.value.fix
    assert keys.path.read_bytes() == content.encode("utf-8", "surrogateescape")


async def test_with_keys_one_is_needed(shop: Shop) -> None:
    shop.fill()
    key = KeyFile(shop.folder).add("mes")
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for path in ("/api/v1/latest", "/api/v1/stream", "/metrics", "/api/v1/nothing"):
            refused = await client.get(path)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"] == 'Bearer realm="guantong"'
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await client.post("/api/v1/signals/imm-01/mode")).status_code == 401
        for path in (
            "/",
            "/docs/en/index.html",
            "/docs/api",
            "/openapi.json",
            "/static-docs/swagger-ui.css",
            "/health/live",
        ):
            assert (await client.get(path)).status_code == 200, path
        for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}, {"X-API-Key": key}):
            assert (await client.get("/api/v1/latest", headers=headers)).status_code == 200
            assert "components" in (await client.get("/health", headers=headers)).json()
        assert (await client.get("/health")).json() == {"status": "ready"}  # no reasons for strangers


async def test_on_loopback_without_keys_everybody_is_let_in_until_there_is_one(shop: Shop) -> None:
    shop.fill()
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:

        async def answers(status: int) -> bool:
            return (await client.get("/api/v1/latest")).status_code == status

        assert await answers(200)
        serve.keys.path.write_text("{")
        await eventually_async(lambda: answers(503))
        assert (await client.get("/api/v1/latest")).json()["type"] == "urn:guantong:problem:keys-unreadable"
        serve.keys.path.unlink()
        KeyFile(shop.folder).add("mes")
        await eventually_async(lambda: answers(401))


async def test_who_tries_keys_is_slowed_down_and_a_right_key_is_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.api import guard

    monkeypatch.setattr(guard, "_DELAY", 0.01)
    shop.fill()
    key = KeyFile(shop.folder).add("mes")
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        wrong = {"X-API-Key": "gt_00000000_" + "x" * 43}
        statuses = [(await client.get("/api/v1/latest", headers=wrong)).status_code for _ in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        limited = await client.get("/api/v1/latest", headers=wrong)
        assert int(limited.headers["retry-after"]) == 60
        # the same address, the right key: nobody is locked out by a neighbour
        assert (await client.get("/api/v1/latest", headers={"X-API-Key": key})).status_code == 200
        assert (await client.get("/api/v1/latest")).status_code == 401
        shop.clock.move(61)
        assert (await client.get("/api/v1/latest", headers=wrong)).status_code == 401
