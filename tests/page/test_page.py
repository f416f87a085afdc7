"""The page without a browser: languages, headers, files, texts."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from gateway.api.keys import KeyFile
from gateway.page import frame
from gateway.page.texts import HTML_TEXTS, SCRIPT_TEXTS
from tests.api.conftest import client, serve, shop, started
from tests.api.shop import Shop

__all__ = ["client", "serve", "shop"]

PACKAGE = Path(frame.__file__).parent
MODULES = {path.name: path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "static").glob("*.js"))}
TEMPLATES = "".join(path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "templates").glob("*.html")))


@pytest.mark.parametrize(
    ("path", "headers", "language"),
    [
        ("/", {}, "en"),
        ("/", {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"}, "zh"),
        ("/?lang=en", {"Accept-Language": "zh"}, "en"),
        ("/?lang=zh", {"Cookie": "guantong_lang=en"}, "zh"),
        ("/", {"Cookie": "guantong_lang=zh"}, "zh"),
        ("/?lang=xx", {"Cookie": "guantong_lang=yy", "Accept-Language": "zh"}, "zh"),
    ],
)
async def test_the_language_is_the_chosen_one(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], language: str
) -> None:
    answer = await client.get(path, headers=headers)
    assert answer.headers["content-language"] == language
    assert f'data-language="{language}"' in answer.text
    assert ("设备" in answer.text) == (language == "zh")
    remembered = answer.headers.get("set-cookie", "")
    assert ("guantong_lang" in remembered) == (path in ("/?lang=en", "/?lang=zh"))
    if remembered:
        assert {"HttpOnly", "SameSite=strict"} <= set(remembered.split("; "))


async def test_nothing_but_files_of_its_own_may_run(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    policy = answer.headers.get_list("content-security-policy")
    assert len(policy) == 1
    rules = dict(rule.split(" ", 1) for rule in policy[0].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL)
    assert [bool(body) for _, body in scripts] == [True, False]
    assert 'type="application/json"' in scripts[0][0]
    assert not re.search(
        r"\son\w+=|\sstyle=|https?://|//[a-z]", re.sub(r"<script.*?</script>", "", answer.text, flags=re.DOTALL)
    )


async def test_files_are_kept_by_browsers_until_they_change(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    links = set(re.findall(r'(?:href|src)="(page/[^"]+)"', page))
    assert {link.rsplit("/", 1)[1] for link in links} == set(frame.assets())
    for link in links:
        answer = await client.get(f"/{link}")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/svg+xml")
    assert (await client.get("/page/000000000000/app.js")).status_code == 404
    assert (await client.get(f"/page/{frame.digest()}/none.js")).status_code == 404
    assert (await client.get(f"/page/{frame.digest()}/..%2fframe.py")).status_code == 404


async def test_the_page_opens_without_a_key_and_its_data_do_not(shop: Shop) -> None:
    shop.fill()
    KeyFile(shop.folder).add("mes")
    async with started(shop) as serve, httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get(f"/page/{frame.digest()}/app.js")).status_code == 200
        assert (await client.get("/api/v1/devices")).status_code == 401


def test_each_text_is_used_and_each_used_text_exists() -> None:
    words = HTML_TEXTS | SCRIPT_TEXTS
    assert len(words) == len(HTML_TEXTS) + len(SCRIPT_TEXTS)
    in_templates = set(re.findall(r'\bt\("(\w+)"\)', TEMPLATES))
    code = "".join(MODULES.values())
    in_modules = set(re.findall(r'\bt\(\s*"(\w+)"', code))
    assert in_templates <= set(words)
    assert in_modules <= set(SCRIPT_TEXTS)
    named = in_templates | set(re.findall(r"""["'`]([a-z]\w*)["'`]""", code))
    states = {"connected", "disconnected", "unknown", "retired", "good", "uncertain", "bad", "true", "false"}
    unused = {
        name
        for name in words
        if name not in named | states and not re.match(r"(view|part|stream|cause|bar|how|diff|draft|table|form)_", name)
    }
    assert unused == set()


def test_both_languages_say_the_same() -> None:
    for name, words in (HTML_TEXTS | SCRIPT_TEXTS).items():
        assert words.en, name
        assert re.search(r"[一-鿿]", words.zh) or name in ("comma",), name
        assert sorted(re.findall(r"\{(\w+)\}", words.en)) == sorted(re.findall(r"\{(\w+)\}", words.zh)), name


def test_modules_are_small_and_stay_at_home() -> None:
    for name, code in MODULES.items():
        assert len(code.splitlines()) <= 400, name
        assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|\beval\(|new Function", code), name
        for other in re.findall(r'from "([^"]+)"', code):
            assert other.removeprefix("./") in MODULES, f"{name}: {other}"
