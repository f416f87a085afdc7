"""The documentation at /docs: every link through the running server, languages, headers, and how it looks."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import pytest

from gateway.api.documentation import POLICY
from gateway.api.role import Serve
from gateway.documentation import source
from gateway.documentation.site import site
from tests.documentation.test_site import Links
from tests.page.browser import DESKTOP, PHONE, browsing


async def test_every_link_of_every_page_is_answered(client: httpx.AsyncClient) -> None:
    """Beginning at /docs in each language, as a reader does."""
    asked: dict[str, httpx.Response] = {}
    anchors: dict[str, set[str]] = {}
    wanted: list[tuple[str, str]] = []
    waiting = ["/docs?lang=en", "/docs?lang=zh"]
    while waiting:
        path = waiting.pop()
        answer = asked[path] = await client.get(path, follow_redirects=True)
        assert answer.status_code == 200, path
        if not path.startswith("/docs") or path == "/docs/api" or "html" not in answer.headers["content-type"]:
            continue
        links = Links(answer.text)
        anchors[path] = links.anchors
        for target in links.targets:
            where = urlsplit(urljoin(str(answer.url), target))
            if where.netloc != urlsplit(str(client.base_url)).netloc:
                assert where.scheme in ("http", "https"), target
                continue
            wanted.append((where.path, unquote(where.fragment)))
            if where.path not in asked and where.path not in waiting:
                waiting.append(where.path)
    assert [link for link in wanted if link[1] and link[1] not in anchors[link[0]]] == []
    seen = {path.removeprefix("/docs/") for path in asked}
    assert seen >= {path for path in site().paths() if path.endswith(".html")}, "a page that nothing leads to"
    assert seen >= {"api", "images/architecture.svg", "style/docs.css"}


@pytest.mark.parametrize(
    ("path", "headers", "leads"),
    [
        ("/docs", {}, "/docs/en/index.html"),
        ("/docs", {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "/docs/zh/index.html"),
        ("/docs/", {"Cookie": "guantong_lang=zh"}, "/docs/zh/index.html"),
        ("/docs?lang=en", {"Cookie": "guantong_lang=zh"}, "/docs/en/index.html"),
        ("/docs/zh", {}, "/docs/zh/index.html"),
        ("/docs/zh/", {}, "/docs/zh/index.html"),
        ("/docs/operating", {}, "/docs/en/operating.html"),
        ("/docs/zh/operating", {}, "/docs/zh/operating.html"),
        ("/docs/en/decisions/0004-page.md", {"Accept-Language": "zh"}, "/docs/en/decisions/0004-page.html"),
        ("/docs/points.md", {"Accept-Language": "zh"}, "/docs/zh/points.html"),
        ("/docs/decisions/0004-page", {"Accept-Language": "zh"}, "/docs/zh/decisions/0004-page.html"),
    ],
)
async def test_a_short_path_leads_to_the_page(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], leads: str
) -> None:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 307
    assert not answer.headers["location"].startswith(("/", "http")), "relative, for a proxy's sake"
    assert urlsplit(urljoin(str(answer.url), answer.headers["location"])).path == leads
    assert (await client.get(path, headers=headers, follow_redirects=True)).status_code == 200


async def test_headers_of_a_page(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs/zh/page.html")
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["content-language"] == "zh"
    assert "script" not in page.text.lower().replace("javascript", "")
    again = await client.get("/docs/zh/page.html", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    example = await client.get("/docs/examples/scale.py")
    assert example.headers["content-type"] == "text/plain; charset=utf-8"
    drawing = await client.get("/docs/images/architecture.svg")
    assert "sandbox" in drawing.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["en/nothing.html", "fr/page.html", "en/../../README.md", "style/../../app.py", "en/page.txt", "en/nothing"]
)
async def test_what_is_not_there_is_named(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/docs/{path.replace('..', '%2e%2e')}", headers={"Accept-Language": "zh"})
    assert answer.status_code == 404
    assert "/docs" in answer.json()["fix"]


async def test_an_installation_without_documentation_says_so(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(source, "_SHIPPED", tmp_path / "pages")
    monkeypatch.setattr(source, "_CHECKOUT", tmp_path)
    site.cache_clear()
    source.load.cache_clear()
    try:
        answer = await client.get("/docs/en/index.html")
    finally:
        site.cache_clear()
        source.load.cache_clear()
    assert answer.status_code == 404
    assert str(tmp_path / "docs") in answer.json()["fix"]


async def test_how_it_looks(serve: Serve, tmp_path: Path) -> None:
    """On a phone nothing is wider than the screen; nothing keeps people out; nothing comes from elsewhere."""
    address = f"http://127.0.0.1:{serve.port}"
    async with browsing() as browser:
        for size, colour, paths in (
            (DESKTOP, "light", ("zh/index", "zh/quick-start")),
            (PHONE, "dark", ("en/configuration", "zh/architecture")),
        ):
            for path in paths:
                await browser.open(f"{address}/docs/{path}.html", size, colour=colour)
                await browser.until("document.readyState === 'complete'")
                await browser.shot(tmp_path / f"{re.sub('/', '-', path)}-{colour}.png")
                wide = await browser.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert wide <= 0, f"{path}: {wide} px wider than the screen of {size}"
                assert await browser.barriers() == [], path
                assert await browser.errors() == []
                assert all(url.startswith(address) for url in await browser.requests())
        await browser.open(f"{address}/docs?lang=zh", DESKTOP)
        await browser.click("a[href='../zh/clock.html']")
        await browser.until("document.querySelector('h1').innerText.includes('时钟')")
        await browser.click("a[hreflang=en]")
        await browser.until("document.querySelector('h1').innerText === 'The clock of the box'")
        await browser.click("a[href='../api']")
        await browser.until("document.querySelectorAll('.opblock').length > 10")
