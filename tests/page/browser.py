"""Chromium, driven by Playwright in a process of its own (`npm/browse.mjs`): one command a line, one answer a line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.servers.needs import missing, require

NPM = Path(__file__).with_name("npm")
PHONE, DESKTOP, WALL = (390, 844), (1366, 768), (1920, 1080)


class BrowserError(AssertionError):
    """A command that the browser could not do, such as a click on what is not there."""


class Browser:
    """One browser. Each `open` begins with nothing: no cookies, no storage, nothing watched yet."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _do(self, command: str, **values: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": command, **values}).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        assert line, "the browser's driver has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserError(f"{command} {values}: {answer['error']}")
        return answer["ok"]

    async def open(
        self,
        url: str,
        size: tuple[int, int] = DESKTOP,
        locale: str = "en-GB",
        colour: str = "light",
        script: str | None = None,
    ) -> None:
        """A new page at `url`; `script` runs in it before anything of its own."""
        await self._do("open", url=url, width=size[0], height=size[1], locale=locale, colour=colour, script=script)

    async def click(self, selector: str) -> None:
        """Clicks the first match, as soon as it can be clicked."""
        await self._do("click", selector=selector)

    async def fill(self, selector: str, text: str) -> None:
        """Writes into a field."""
        await self._do("fill", selector=selector, text=text)

    async def choose(self, selector: str, value: str) -> None:
        """Chooses an option."""
        await self._do("choose", selector=selector, value=value)

    async def press(self, key: str) -> None:
        """Presses a key, such as `Tab`."""
        await self._do("press", key=key)

    async def upload(self, selector: str, path: Path) -> None:
        """Chooses a file."""
        await self._do("upload", selector=selector, path=str(path))

    async def download(self, selector: str) -> tuple[str, bytes]:
        """Clicks what saves a file: its name and content."""
        saved = await self._do("download", selector=selector)
        return saved["name"], base64.b64decode(saved["base64"])

    async def until(self, code: str) -> None:
        """Waits until the expression is true; 20 seconds at most."""
        await self._do("until", code=code)

    async def evaluate(self, code: str) -> Any:
        """The value of an expression in the page."""
        return await self._do("evaluate", code=code)

    async def text(self, selector: str) -> str:
        """The text of the first match."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def shot(self, path: Path) -> None:
        """A picture of what is seen."""
        await self._do("shot", path=str(path))

    async def barriers(self) -> list[Any]:
        """What axe-core finds that keeps people out; see its rules for the ids."""
        found = await self._do("axe")
        assert isinstance(found, list)
        return found

    async def errors(self) -> list[str]:
        """Errors of the page's console, and exceptions that nobody caught, since `open`."""
        return list((await self._do("watched"))["errors"])

    async def requests(self) -> list[str]:
        """All URLs that the page has asked for since `open`."""
        return list((await self._do("watched"))["requests"])


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser for as long as the context lasts. Skips the test, or fails it with CI=true, where a part is missing."""
    if not (NPM / "node_modules" / "playwright-core").is_dir():
        missing("what drives the browser (tests/page/npm/node_modules)", "make test-needs")
    node, chromium = require("node"), require("chromium")
    process = await asyncio.create_subprocess_exec(
        node, NPM / "browse.mjs", chromium, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    try:
        yield Browser(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
