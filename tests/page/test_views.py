"""Every view in Chromium, against a server with eight hours of history that goes on living, in both languages."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.api.keys import KeyFile
from gateway.page.frame import VIEWS
from tests.api.conftest import started
from tests.page.browser import DESKTOP, PHONE, WALL, Browser, browsing
from tests.page.workshop import Workshop, many
from tests.servers.waiting import eventually_async

pytestmark = pytest.mark.usefixtures("chromium")
FILLED = {
    "devices": "document.querySelectorAll('#devices-list > li').length === 12",
    "values": "[...document.querySelectorAll('#values-rows .row .value')].filter((cell) => cell.textContent).length > 5",
    "trend": "document.querySelector('#trend-panels figure')?.dataset.pieces > 0",
    "happenings": "document.querySelectorAll('#gaps tbody tr').length === 4 && document.querySelectorAll('#events tbody tr').length === 3",
    "completeness": "document.querySelectorAll('#completeness-list > li').length === 12",
    "wall": "document.querySelectorAll('#wall-tiles .number').length > 20 && document.querySelector('#wall-complete').textContent",
}
"""What is true of a view that shows something. The others are tested in `test_setup_views`, where there is something to set up."""
SET_UP = {"connect", "tables", "changes"}
HEADINGS = {
    "zh": {"devices": "设备", "values": "实时值", "trend": "趋势", "happenings": "事件与缺口", "completeness": "最近八小时数据完整率"},
    "en": {
        "devices": "Devices", "values": "Live values", "trend": "Trend", "happenings": "Events and gaps",
        "completeness": "Completeness of the last eight hours",
    },
}  # fmt: skip
OIL = "imm-01/oil/temperature"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as made:
        yield made


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[str]:
    """The address of a filled workshop's server."""
    workshop = Workshop(tmp_path)
    workshop.fill()
    async with workshop.living() as serve:
        yield f"http://127.0.0.1:{serve.port}/"
    workshop.shop.close()


async def at_peace(browser: Browser, base: str) -> None:
    """No error in the console, nothing asked of another host."""
    assert await browser.errors() == []
    assert {urlsplit(url).netloc for url in await browser.requests()} == {urlsplit(base).netloc}


async def go(browser: Browser, view: str) -> None:
    """Clicks the view's link and waits until it shows something."""
    await browser.click(f"nav a[href='#/{view}']")
    if view == "trend":
        await browser.fill("#trend-form input", OIL)
        await browser.press("Enter")
    await browser.until(FILLED[view])


async def shot(browser: Browser, name: str) -> None:
    """A picture for people, where GUANTONG_SHOTS names a folder."""
    folder = os.environ.get("GUANTONG_SHOTS")
    if folder:
        await browser.shot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize(("size", "language"), list(itertools.product([PHONE, DESKTOP, WALL], ["zh", "en"])))
async def test_each_view_by_its_link(browser: Browser, base: str, size: tuple[int, int], language: str) -> None:
    await browser.open(base, size, "zh-CN" if language == "zh" else "en-GB", "dark" if size == DESKTOP else "light")
    for view in FILLED:
        await go(browser, view)
        if view in HEADINGS[language]:
            assert await browser.text(f"#view-{view} h1") == HEADINGS[language][view]
        assert await browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        assert await browser.barriers() == [], view
        await shot(browser, f"{size[0]}-{language}-{view}")
    assert await browser.evaluate("getComputedStyle(document.querySelector('header')).display") == "none"
    await browser.press("Escape")
    await browser.until("location.hash === '#/devices'")
    await at_peace(browser, base)


def test_no_view_is_forgotten() -> None:
    assert set(FILLED) | SET_UP == set(VIEWS)


async def test_barriers_would_be_found(browser: Browser, base: str) -> None:
    await browser.open(base)
    await browser.evaluate(
        "void document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"/page/x\"><input>')"
    )
    assert {"image-alt", "label"} <= {found["id"] for found in await browser.barriers()}


async def test_the_language_changes_and_the_view_stays(browser: Browser, base: str) -> None:
    await browser.open(base)
    await go(browser, "completeness")
    await browser.click(".languages a[lang='zh-CN']")
    await browser.until("document.documentElement.lang === 'zh-CN'")
    await browser.until(FILLED["completeness"])
    assert await browser.text("#view-completeness h1") == "最近八小时数据完整率"
    await browser.open(base, locale="zh-CN")
    await browser.click(".languages a[lang='en']")
    await browser.until("document.documentElement.lang === 'en'")
    await browser.evaluate("void location.replace('/')")
    await browser.until("document.readyState === 'complete' && document.documentElement.lang === 'en'")
    await at_peace(browser, base)


async def test_a_device_that_is_away_says_why_and_what_to_do(browser: Browser, base: str) -> None:
    await browser.open(base)
    await browser.until(FILLED["devices"])
    first = await browser.text("#devices-list > li")
    assert "Meter 1" in first
    assert "not connected" in first
    assert "The serial server works; the unit behind it does not answer." in first
    assert "What to do: Check the unit's power" in first
    assert await browser.text("#devices-summary") == "11 of 12 devices connected"
    await browser.click("#devices-list a[href='#/values?device=meter-01']")
    await browser.until("document.querySelectorAll('#values-rows .row').length === 1")
    await browser.until("document.querySelector('#values-rows .row').dataset.quality === 'bad'")
    assert "last: " in await browser.text("#values-rows .value")


async def test_values_are_live(browser: Browser, base: str) -> None:
    await browser.open(f"{base}#/values")
    await browser.fill("#values-filters input", "cycle/count")
    await browser.until("document.querySelectorAll('#values-rows .row').length === 1")
    value = "Number(document.querySelector('#values-rows .value').textContent)"
    await browser.until(f"{value} > 0")
    before = int(await browser.evaluate(value))
    await browser.until(f"{value} > {before}")
    await browser.until("/^[0-5] s$/.test(document.querySelector('#values-rows .age').textContent)")
    assert await browser.text("#stream") == "live"
    await browser.fill("#values-filters input", "")
    await browser.choose("#values-filters [name=quality]", "uncertain")
    await browser.until("document.querySelectorAll('#values-rows .row').length === 1")
    await browser.until(f"document.querySelector('#values-rows .row').dataset.signal === '{OIL}'")


INK = """(() => {
  const figure = document.querySelector('figure'), canvas = figure.querySelector('canvas');
  const { from, to } = figure.dataset, pen = canvas.getContext('2d'), ratio = canvas.width / canvas.clientWidth;
  const inked = (ago, colour) => {
    const x = (62 + (1 - ago * 60000 / (to - from)) * (canvas.clientWidth - 72)) * ratio;
    const pixels = pen.getImageData(Math.round(x) - 1, 0, 3, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4) {
      if (pixels[at + 3] > 200 && colour.every((part, n) => Math.abs(pixels[at + n] - part) < 24)) return true;
    }
    return false;
  };
  const line = [11, 92, 173], bad = [176, 0, 32];
  return { line: [50, 35, 25, 17, 10].map((ago) => inked(ago, line)), bad: [50, 35, 25, 17, 10].map((ago) => inked(ago, bad)) };
})()"""


async def test_the_trend_breaks_at_a_gap_and_marks_bad_quality(browser: Browser, base: str) -> None:
    await browser.open(base)
    await go(browser, "trend")
    figure = "document.querySelector('figure').dataset"
    assert await browser.evaluate(f"[{figure}.gaps, {figure}.bad, {figure}.pieces]") == ["1", "1", "3"]
    # minutes ago: 50 drawn, 35 away, 25 drawn, 17 bad, 10 drawn
    found = await browser.evaluate(INK)
    assert found == {"line": [True, False, True, False, True], "bad": [False, False, False, True, False]}
    assert "not connected" in await browser.text("#trend-missing li")
    await browser.evaluate("document.querySelector('figure').focus()")
    for _ in range(58):  # a hundredth of the hour each: 35 minutes ago
        await browser.press("ArrowLeft")
    assert "not connected" in await browser.text("figure figcaption")
    for seconds in ("28800", "604800"):
        await browser.choose("#trend-form [name=range]", seconds)
        await browser.until(f"{figure}.to - {figure}.from === {seconds}000")
        assert await browser.evaluate(f"Number({figure}.gaps)") == 2  # the collector was down six hours ago
        assert await browser.evaluate(f"Number({figure}.bad)") >= 1
    await browser.fill("#trend-form input", "meter-01/power/total")
    await browser.press("Enter")
    await browser.until("document.querySelectorAll('figure').length === 2")
    assert "signal=meter-01" in str(await browser.evaluate("location.hash"))
    await browser.click("#trend-chosen button")
    await browser.until("document.querySelectorAll('figure').length === 1")
    await at_peace(browser, base)


async def test_completeness_adds_up(browser: Browser, base: str) -> None:
    await browser.open(base)
    await go(browser, "completeness")
    of = "Number(document.querySelector(`#completeness-list [data-device='{}']`).dataset.share)"
    assert await browser.evaluate(of.format("air-01")) == pytest.approx(1 - 10 / 480, abs=0.001)
    assert await browser.evaluate(of.format("imm-01")) == pytest.approx(1 - (20 + 5 / 4) / 480, abs=0.0005)
    assert await browser.evaluate(of.format("press-01")) == pytest.approx(1 - (10 + 4 / 3) / 480, abs=0.0005)
    assert await browser.evaluate(of.format("meter-01")) == pytest.approx(1 - 17 / 480, abs=0.003)
    await browser.click("#completeness-list [data-device='imm-01'] summary")
    told = await browser.text("#completeness-list [data-device='imm-01'] .missing")
    assert "not connected" in told
    assert "collector down" in told
    assert "0.2 %" in told, "one signal of four was bad for five minutes of eight hours"


async def test_completeness_is_judged_by_devices_as_they_are_now(browser: Browser, base: str) -> None:
    await browser.open(base)
    await go(browser, "completeness")
    await browser.click("nav a[href='#/wall']")
    await browser.until(FILLED["wall"])
    asked = [urlsplit(url).path for url in await browser.requests()]
    gaps = [number for number, path in enumerate(asked) if path == "/api/v1/gaps"]
    assert len(gaps) >= 2
    assert all("/api/v1/devices" in asked[number - 3 : number] for number in gaps)
    told = str(await browser.text("#wall-complete"))
    assert told.startswith("8 h completeness 97.")


async def test_events_and_gaps_by_device_and_severity(browser: Browser, base: str) -> None:
    await browser.open(base)
    await go(browser, "happenings")
    assert "all devices of line1" in await browser.text("#gaps tbody tr:last-child")
    assert "Safety gate open" in await browser.text("#events tbody tr")
    await browser.choose("#happenings-form [name=severity]", "500")
    await browser.until("document.querySelectorAll('#events tbody tr').length === 2")
    await browser.choose("#happenings-form [name=device]", "press-01")
    await browser.until("document.querySelector('#events .empty')")


async def test_by_keyboard_alone(browser: Browser, base: str) -> None:
    await browser.open(base)
    await browser.until(FILLED["devices"])
    await browser.press("Tab")
    assert await browser.evaluate("document.activeElement.className") == "skip"
    for _ in range(2):
        await browser.press("Tab")
    assert await browser.evaluate("document.activeElement.getAttribute('href')") == "#/values"
    assert await browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await browser.press("Enter")
    await browser.until(FILLED["values"])
    assert await browser.evaluate("document.activeElement.id") == "main"


async def test_a_key_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.fill()
    key = KeyFile(workshop.shop.folder).add("wall")
    async with workshop.living() as serve:
        base = f"http://127.0.0.1:{serve.port}/"
        await browser.open(base)
        await browser.until("!document.querySelector('#key-form').hidden")
        assert await browser.barriers() == []
        await browser.fill("#key", "wrong")
        await browser.press("Enter")
        await browser.until("document.querySelector('#key-error').textContent.includes('does not accept')")
        await browser.fill("#key", key)
        await browser.press("Enter")
        await browser.until(FILLED["devices"])
        await browser.until("document.querySelector('#stream').dataset.state === 'ok'")
    workshop.shop.close()


async def test_it_says_when_the_gateway_is_away_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.fill()
    async with workshop.living() as serve:
        port = serve.port
        await browser.open(f"http://127.0.0.1:{port}/")
        await browser.until("document.querySelector('#stream').dataset.state === 'ok'")
    await browser.until("document.querySelector('#notices').textContent.includes('does not answer')")
    await browser.until("document.querySelector('#stream').dataset.state === 'lost'")
    async with workshop.living(port):
        await browser.until("document.querySelector('#stream').dataset.state === 'ok'")
        await browser.until("!document.querySelector('#notices').textContent.includes('does not answer')")
    workshop.shop.close()


async def test_only_rows_that_are_seen_are_painted(browser: Browser, tmp_path: Path) -> None:
    workshop = many(tmp_path, 2000)
    async with started(workshop.shop) as serve:
        await browser.open(f"http://127.0.0.1:{serve.port}/#/values")
        await browser.until("document.querySelectorAll('#values-rows .row').length === 2000")
        await browser.until("document.querySelector('#values-rows .row .value').textContent")
        painted = "[...document.querySelectorAll('#values-rows .value')].filter((cell) => cell.textContent).length"
        assert 5 < int(await browser.evaluate(painted)) < 60
        await browser.evaluate("void document.querySelector('#values-rows').lastChild.scrollIntoView()")
        await browser.until(
            "document.querySelector('#values-rows').lastChild.querySelector('.value').textContent.startsWith('1999')"
        )
        workshop.shop.rows(*((10_000 + n, workshop.at + 1, float(n + 10_000)) for n in range(2000)))
        await eventually_async(lambda: serve.live.commit_no == workshop.shop.writer.commit_no)
        await browser.until(
            "document.querySelector('#values-rows').lastChild.querySelector('.value').textContent.startsWith('11999')"
        )
        assert await browser.errors() == []
    workshop.shop.close()
