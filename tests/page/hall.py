"""A gateway with machines beside it, for the tests of the page's views that set devices up, and what is done in each of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.chain.installation import Installation
from tests.chain.installation import Workshop as Machines
from tests.page.browser import Browser
from tests.servers.processes import HOST, accepts
from tests.servers.waiting import eventually

ROWS = "document.querySelectorAll('#connect-tree [role=treeitem]').length"
DRAFTED = "location.hash === '#/changes' && document.querySelector('#changes-difference li') && !document.querySelector('#changes-apply').hidden"


class Hall:
    """A gateway that collects a meter, and a milling machine beside it that nobody has configured yet."""

    def __init__(self, folder: Path) -> None:
        self.machines = Machines(folder, ["mt-01", "meter-01"], speed=20)
        self.machines.start()
        (meter,) = (link for link in self.machines.links() if link["id"] == "meter-01")
        self.gateway = Installation(folder, [meter])
        self.first = self.gateway.config.read_text(encoding="utf-8")
        self.gateway.start()
        eventually(lambda: self.gateway.complete_to(), 60, what="readings are stored")
        eventually(lambda: accepts(self.gateway.api_port), 60, what="the page is served")

    @property
    def base(self) -> str:
        return f"http://{HOST}:{self.gateway.api_port}/"

    @property
    def endpoint(self) -> str:
        return f"{HOST}:{self.machines.port('mt-01')}"

    def reset(self) -> None:
        """Back to the first configuration."""
        if self.gateway.config.read_text(encoding="utf-8") != self.first:
            answer = httpx.put(
                f"{self.base}api/v1/config", json={"yaml": self.first}, headers={"If-Match": "*"}, timeout=30
            )
            assert answer.status_code == 200, answer.text

    def close(self) -> None:
        self.gateway.__exit__(None, None, None)
        self.machines.process.kill()


async def at_peace(browser: Browser, base: str, *refused: int) -> None:
    """No error in the console but those that the browser itself writes for answers with the status `refused`; no other host asked."""
    errors = await browser.errors()
    assert [text for text in errors if not any(f"status of {status}" in text for status in refused)] == []
    assert {urlsplit(url).netloc for url in await browser.requests() if not url.startswith("blob:")} == {
        urlsplit(base).netloc
    }


async def accessible(browser: Browser, what: str) -> None:
    """axe finds nothing, and nothing sticks out sideways."""
    assert await browser.barriers() == [], what
    assert await browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), what


async def offered(browser: Browser, hall: Hall) -> None:
    """From the address to the first level of the tree."""
    await browser.until("!document.querySelector('#connect-steps').hidden")
    await browser.fill("[name=endpoint]", hall.endpoint)
    await browser.press("Enter")
    await browser.until("document.querySelector('#connect-endpoints input')")
    await browser.click("#connect-endpoints [value='\"none\"']")
    await browser.click("#connect-browse")
    await browser.until(f"{ROWS} > 0")


async def applied(browser: Browser) -> int:
    """Applies the draft; the number that the page tells."""
    await browser.until(DRAFTED)
    await browser.click("#changes-apply")
    await browser.click("dialog .primary")
    await browser.until("document.querySelector('#changes-told .told')")
    assert await browser.evaluate("document.querySelector('#changes-draft').hidden")
    return int(await browser.evaluate("document.querySelector('#changes-told').textContent.match(/\\d+/)[0]"))


async def press_until(browser: Browser, key: str, there: str, most: int = 40) -> None:
    """Presses a key until the expression is true."""
    for _ in range(most):
        if await browser.evaluate(there):
            return
        await browser.press(key)
    raise AssertionError(f"{most} times {key}, and not: {there}")


async def type_in(browser: Browser, text: str) -> None:
    for key in text:
        await browser.press(key)


async def drop(browser: Browser, text: str) -> None:
    """Drops a file with this text into the field of the point tables."""
    await browser.evaluate(
        "(() => { const data = new DataTransfer(); data.items.add(new File([" + repr(text) + "], 'points.csv'));"
        "document.querySelector('#tables-drop').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })); })()"
    )
