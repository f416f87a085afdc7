"""`/api/v1/setup`: who may ask, what a question may be, what the document says of it; the looks themselves are in tests/looking and tests/chain."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from gateway.api import _setup_examples, openapi, setup
from gateway.api._secret_files import FOLDER, SecretFile, forget_unused
from gateway.api.keys import KeyFile
from gateway.api.role import Serve
from gateway.apply import requests
from gateway.apply.history import History, read_files
from gateway.apply.requests import LookRequest
from gateway.looking.questions import Failure, Machine, Mistake, Seen, Troubles
from tests.api.conftest import started
from tests.api.shop import Shop
from tests.api.test_guard import raw

SETUP = "/api/v1/setup"
OCTETS = {"Content-Type": "application/octet-stream"}
TEXT = "# ours\ngateway: {id: a}\nlinks: []\n"


@pytest.fixture
async def serve(shop: Shop) -> AsyncIterator[Serve]:
    """A server that knows its configuration."""
    shop.fill()
    file = shop.folder / "guantong.yaml"
    file.write_text(TEXT, encoding="utf-8")
    async with started(shop, config_file=file) as made:
        yield made


@contextmanager
def collector(data_dir: Path, answer: Callable[[Machine], Seen]) -> Iterator[list[Machine]]:
    """Answers looks as a collector would."""
    asked: list[Machine] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            for name, request in requests.take(data_dir):
                assert isinstance(request, LookRequest)
                asked.append(request.question)
                requests.reply(data_dir, name, answer(request.question))
            over.wait(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def kind_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


async def test_pages_of_strangers_are_refused(client: httpx.AsyncClient) -> None:
    body = {"url": "opc.tcp://127.0.0.1:1"}
    for headers, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ):
        for path in ("endpoints", "browse", "test-read", "device", "removal"):
            answer = await client.post(f"{SETUP}/{path}", json=body, headers=headers)
            assert answer.status_code == status, (path, headers, answer.text)
    assert (await client.post(f"{SETUP}/table", content=b"x", headers={"Content-Type": "text/csv"})).status_code == 415
    assert (await client.get(f"{SETUP}/table", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert (await client.put(f"{SETUP}/device", json={})).status_code == 403
    assert (await client.delete(f"{SETUP}/device")).status_code == 403


async def test_only_engineers_and_admins(shop: Shop, client: httpx.AsyncClient, serve: Serve) -> None:
    keys = {role: KeyFile(shop.folder).add(role, role) for role in ("viewer", "operator", "engineer", "admin")}  # type: ignore[arg-type]
    serve.keys._looked = float("-inf")
    assert (await client.get(f"{SETUP}/profiles")).status_code == 401
    for role, allowed in (("viewer", False), ("operator", False), ("engineer", True), ("admin", True)):
        headers = {"X-API-Key": keys[role], "Accept-Language": "zh"}
        for method, path in (
            ("GET", "profiles"),
            ("GET", "table"),
            ("GET", "template"),
            ("POST", "browse"),
            ("POST", "removal"),
        ):
            answer = await client.request(
                method, f"{SETUP}/{path}", headers=headers, json=None if method == "GET" else {}
            )
            if allowed:
                assert answer.status_code in (200, 400), (role, path, answer.text)
            else:
                assert kind_of(answer) == (403, "forbidden")
                assert "engineer" in answer.json()["fix"]


async def test_without_a_configuration_file_there_is_nothing_to_set_up(shop: Shop) -> None:
    shop.fill()
    async with started(shop) as made, httpx.AsyncClient(base_url=f"http://127.0.0.1:{made.port}") as client:
        assert (await client.get(f"{SETUP}/profiles")).status_code == 404


async def test_what_is_no_question(client: httpx.AsyncClient, serve: Serve) -> None:
    link = {"adapter": "modbus", "settings": {"host": "h"}}
    for path, body in (
        ("endpoints", {}),
        ("endpoints", {"url": 1}),
        ("endpoints", {"url": "x", "more": 1}),
        ("browse", {"link": {"adapter": "opcua", "settings": {}, "pki": "/etc"}}),
        ("browse", {"link": link, "limit": 10**9}),
        ("test-read", {}),
        ("test-read", {"link": link}),
        ("test-read", {"link": link, "unit": 999, "address": {}}),
        ("test-read", {"signal": "a/b", "node": "i=1", "link": link}),
        ("device", {"device": {"id": 5}, "link": link}),
        ("removal", []),
    ):
        answer = await client.post(f"{SETUP}/{path}", json=body)
        assert kind_of(answer) == (400, "bad-request"), (path, body)
    for body_bytes in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        answer = await client.post(f"{SETUP}/browse", content=body_bytes, headers={"Content-Type": "application/json"})
        assert kind_of(answer) == (400, "bad-request")
    assert kind_of(await client.post(f"{SETUP}/table", content=b"", headers=OCTETS)) == (400, "bad-request")
    size = 16 * 1024 * 1024 + 1
    head = f"POST {SETUP}/table HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    assert (await raw(serve, head.encode())).startswith(b"HTTP/1.1 413")


async def test_what_is_wrong_with_signals_of_a_device_is_asked_of_the_collector(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    body = {"device": "imm-01", "state": "degraded", "reason": "r", "items": [{"signal": "a/b", "text": "exception 2"}]}
    with collector(shop.folder, lambda _: Seen(msgspec.Raw(msgspec.json.encode(body)))) as asked:
        answer = await client.get("/api/v1/devices/imm-01/troubles", headers={"Accept-Language": "zh"})
        assert (answer.status_code, answer.json()) == (200, body)
        assert asked == [Troubles(device="imm-01", lang="zh")]
        assert kind_of(await client.get("/api/v1/devices/imm-99/troubles")) == (404, "not-found")
        assert len(asked) == 1


async def test_without_a_collector(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TAKEN_WITHIN", 0.1)
    answer = await client.post(f"{SETUP}/endpoints", json={"url": "opc.tcp://h"}, headers={"Accept-Language": "zh"})
    assert kind_of(answer) == (503, "no-collector")
    assert "采集进程" in answer.json()["detail"]
    assert answer.headers["retry-after"]


FAILURES: list[tuple[Failure, int, str]] = [
    (Failure("busy", "b", "忙"), 429, "look-busy"),
    (Failure("too_slow", "s", "慢"), 504, "look-timeout"),
    (Failure("crashed", "c", "崩"), 502, "look-failed"),
    (Failure("port_in_use", "p", "用"), 409, "port-in-use"),
    (Failure("unknown_signal", "u", "无"), 404, "not-found"),
    (Failure("invalid", "i", "误", mistakes=[Mistake(5, "a text", "文本", "link.x")]), 422, "invalid-parameter"),
    (Failure("server_certificate_untrusted", "t", "信", "do", "做", details={"fingerprint": "ab", "command": "c"}), 502, "look-failed"),
]  # fmt: skip


async def test_every_failure_is_a_problem_in_both_languages(client: httpx.AsyncClient, shop: Shop) -> None:
    left = [failure for failure in FAILURES for _ in range(2)]
    with collector(shop.folder, lambda _: Seen(failure=left.pop(0)[0])) as asked:
        for failure, status, kind in FAILURES:
            for lang, said in (("en", failure.en), ("zh", failure.zh)):
                answer = await client.post(f"{SETUP}/test-read?lang={lang}", json={"signal": "a/b"})
                assert kind_of(answer) == (status, kind)
                told = answer.json()
                assert (told["detail"], told["reason"]) == (said, failure.reason)
                assert told.get("details", {}) == failure.details
                assert told["title"].isascii() is (lang == "en")
                if failure.mistakes:
                    assert told["errors"] == [
                        {"parameter": "link.x", "found": 5, "expected": "a text" if lang == "en" else "文本"}
                    ]
        assert [question.lang for question in asked[:2]] == ["en", "zh"]


async def test_too_many_at_once_are_told_so(client: httpx.AsyncClient, shop: Shop) -> None:
    held = threading.Event()

    def answer(_: Machine) -> Seen:
        assert held.wait(20)
        return Seen(msgspec.Raw(b'{"endpoints":[]}'))

    with collector(shop.folder, answer) as asked:
        tasks = [asyncio.create_task(client.post(f"{SETUP}/endpoints", json={"url": "opc.tcp://h"})) for _ in range(5)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        (refused,) = done
        assert kind_of(refused.result()) == (429, "look-busy")
        assert refused.result().headers["retry-after"]
        held.set()
        answers = await asyncio.gather(*tasks)
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 200, 429]
    assert len(asked) == 4


async def test_tables_and_templates(client: httpx.AsyncClient, shop: Shop) -> None:
    for form, media, head in (
        ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", b"PK"),
        ("csv", "text/csv; charset=utf-8", b"\xef\xbb\xbf"),
        ("csv-gbk", "text/csv; charset=gb18030", "设备".encode("gbk")),
    ):
        for path in ("template", "table"):
            answer = await client.get(f"{SETUP}/{path}?form={form}&lang=zh")
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == media
            assert answer.headers["content-disposition"].startswith("attachment; filename=")
            assert answer.content.startswith(head)
    template = await client.get(f"{SETUP}/template?form=csv&lang=zh")
    empty = await client.post(f"{SETUP}/table?name=points.csv", content=template.content, headers=OCTETS)
    assert kind_of(empty) == (422, "invalid-table")  # examples are left out
    row = "设备编号,协议,连接地址,信号名,寄存器区,地址（从0起）,单位\nm,modbus,h,t,holding,{},{}\n"
    good = row.format(7, "℃").encode("gbk")
    draft = (await client.post(f"{SETUP}/table?name=points.csv", content=good, headers=OCTETS)).json()
    assert (draft["devices"], draft["points"]) == (1, 1)
    assert draft["yaml"].startswith("# ours\n")
    bad = await client.post(
        f"{SETUP}/table?name=a/b.csv&lang=zh", content=row.format("x", "furlong").encode(), headers=OCTETS
    )
    assert kind_of(bad) == (422, "invalid-table")
    assert {e["place"] for e in bad.json()["errors"]} == {"F2", "G2"}
    assert all(not e["detail"].isascii() and e["found"] for e in bad.json()["errors"])
    assert (shop.folder / "guantong.yaml").read_text(encoding="utf-8") == TEXT


async def test_a_typed_password_lies_in_a_file_of_its_own(client: httpx.AsyncClient, shop: Shop) -> None:
    link = {
        "adapter": "opcua",
        "settings": {"endpoint": "opc.tcp://h:4840", "security": "none", "user": "u", "password": "geheim"},
    }
    wanted = {"device": {"id": "plc"}, "link": link, "profile": "siemens-s7-1500-line"}
    wrong = await client.post(f"{SETUP}/device", json={**wanted, "profile": "nonsense"})
    assert wrong.status_code == 422
    assert not (shop.folder / FOLDER).exists()  # nothing is kept of a mistake
    draft = await client.post(f"{SETUP}/device", json=wanted)
    assert draft.status_code == 200, draft.text
    assert "geheim" not in draft.text
    (file,) = (shop.folder / FOLDER).iterdir()
    none = {**link["settings"], "password": ""}  # type: ignore[dict-item]
    anonymous = await client.post(f"{SETUP}/device", json={**wanted, "link": {**link, "settings": none}})
    assert "password" not in anonymous.json()["yaml"]
    assert f"file: secrets/{file.name}" in draft.json()["yaml"]
    assert file.read_text() == "geheim\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_secrets_of_drafts_that_nobody_applied_go(tmp_path: Path) -> None:
    config = tmp_path / "guantong.yaml"
    made = {name: SecretFile.new(tmp_path, name, "x") for name in ("used", "kept", "old", "new", "../e vil")}
    for secret in made.values():
        secret.write()
    assert made["../e vil"].path.parent == tmp_path / FOLDER
    config.write_text(f"a: {made['kept'].reference(tmp_path)}", encoding="utf-8")
    History(tmp_path).keep(read_files(config), 0)
    config.write_text(f"a: {made['used'].reference(tmp_path)}", encoding="utf-8")
    import os

    for name in ("used", "kept", "old"):
        os.utime(made[name].path, (0, 0))
    forget_unused(tmp_path, config)
    assert {name for name, secret in made.items() if not secret.path.exists()} == {"old"}
    assert SecretFile.new(Path("/elsewhere"), "a", "x").reference(tmp_path).startswith("/elsewhere/")


async def test_the_document_describes_it_with_examples(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    registry: Registry[Any] = Registry().with_resource(
        "urn:api", Resource.from_contents({"$schema": Draft202012Validator.META_SCHEMA["$id"], **document})
    )

    def holds(schema: Any, value: Any) -> None:
        local = json.loads(json.dumps(schema).replace('"#/', '"urn:api#/'))
        Draft202012Validator(local, registry=registry).validate(value)

    found = {
        operation["operationId"]: operation
        for path, methods in document["paths"].items()
        if path.startswith(SETUP)
        for operation in methods.values()
    }
    assert set(found) == {name for name in openapi.CONFIGURING if name.startswith("setup_")} | {
        "setup_export_table",
        "setup_template",
    }
    assert set(_setup_examples.REQUESTS) == set(setup.BODIES)
    for name, operation in found.items():
        assert operation["summary"]
        assert operation["tags"] == ["Setup"]
        assert {"403", "502", "504"} <= operation["responses"].keys()
        for media in operation.get("requestBody", {}).get("content", {}).values():
            for example in media.get("examples", {}).values():
                holds(media["schema"], example["value"])
                msgspec.convert(example["value"], setup.BODIES[name])
        (media, *_) = operation["responses"]["200"]["content"].values()
        if name in openapi.CONFIGURING:
            (example,) = media["examples"].values()
            holds(media["schema"], example["value"])
            msgspec.convert(example["value"], openapi.CONFIGURING[name][0], strict=True)
    profiles = await client.get(f"{SETUP}/profiles?lang=zh")
    holds(found["setup_profiles"]["responses"]["200"]["content"]["application/json"]["schema"], profiles.json())
    assert any(not p["title"].isascii() for p in profiles.json()["profiles"])
    assert all(p["signals"] and p["source"] for p in profiles.json()["profiles"])
