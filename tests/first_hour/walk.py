"""Takes the steps of a transcript, in a network that ends at this machine's loopback, between machines that nobody has seen before.

    unshare -n python -m tests.first_hour.walk TRANSCRIPT FOLDER LANGUAGE SPEED

Loopback gets the machines' addresses. The chiller's process runs SPEED times as fast as the clock, and is watched for that much less. FOLDER takes pictures of the page after each step, what the machines served (`filler.log`, `chiller.log`), and
`told.json`: the seconds, keys, clicks and seconds of hands of each section, and the rows in the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.first_hour.transcript import Command, Part, Step, differs, read
from tests.page.browser import Browser, browsing
from tests.servers.foreign import MACHINE_SOURCE, compile_libmodbus_server
from tests.servers.needs import require
from tests.servers.processes import ChildProcess, accepts
from tests.servers.timescale import NPM
from tests.servers.waiting import eventually

PAGE = "http://127.0.0.1:8000/"
ROOT = Path(__file__).parents[2]
FILLER, CHILLER = "192.168.10.20", "192.168.10.30"
"""Addresses of the two machines: OPC UA on port 4840, Modbus TCP on port 502."""


def cut_off() -> None:
    """This process's own network: loopback and the machines' addresses on it, and no way out."""
    ip = require("ip")
    subprocess.run([ip, "link", "set", "lo", "up"], check=True)
    for address in (FILLER, CHILLER):
        subprocess.run([ip, "address", "add", f"{address}/32", "dev", "lo"], check=True)
    routes = subprocess.run([ip, "route", "show"], check=True, capture_output=True, text=True).stdout
    assert not routes, f"the network is not cut: {routes}"


class Walk:
    """One newcomer: a terminal in an empty folder, and a browser."""

    def __init__(self, folder: Path, language: str, browser: Browser, speed: float) -> None:
        self._folder, self._browser, self._speed = folder, browser, speed
        self._shots = 0
        self._background: list[ChildProcess] = []
        locale = "zh_CN.UTF-8" if language == "zh" else "C.UTF-8"
        self._locale = "zh-CN" if language == "zh" else "en-GB"
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "LANG": locale, "LC_ALL": locale,
            "COLUMNS": "160", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    async def take(self, step: Command | Step) -> None:
        """Takes one step; raises AssertionError when it does not go as it is written."""
        if isinstance(step, Step):
            try:
                await self._do(step)
            finally:
                self._shots += 1
                await self._browser.shot(self._folder / f"step-{self._shots:02}.png")
        elif step.background:
            self._background.append(ChildProcess(shlex.split(step.line), env=self._env, cwd=self._folder))
            await self._until_told(self._background[-1], step)
        else:
            await self._command(step)

    async def _until_told(self, child: ChildProcess, step: Command) -> None:
        async with asyncio.timeout(60):
            while missing := differs(step.expected, "\n".join(child.lines)):
                assert child.running, f"$ {step.line}\nended: {child.output()}"
                assert missing
                await asyncio.sleep(0.1)

    async def _command(self, step: Command) -> None:
        words = shlex.split(step.line)
        if words[0] == "export":
            self._env.update([words[1].split("=", 1)])
            return
        if words[:3] == ["guantong", "certs", "trust"]:
            words[3] = await self._fingerprint()
        if "--for" in words and self._speed != 1:
            seconds = words.index("--for") + 1
            words[seconds] = str(float(words[seconds]) / self._speed)
            words += ["--period", str(1 / self._speed), "--rate", "200"]
        master, terminal = os.openpty()  # who is asked sits at a terminal
        process = await asyncio.create_subprocess_exec(
            *words, cwd=self._folder, env=self._env, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        os.close(terminal)
        os.write(master, "".join(f"{answer}\n" for answer in step.answers).encode())
        output, _ = await process.communicate()
        os.close(master)
        text = output.decode()
        assert process.returncode == 0, f"$ {step.line}\n{text}"
        missing = differs(step.expected, text)
        assert not missing, f"$ {step.line}\nsays not {missing!r} but:\n{text}"

    async def _fingerprint(self) -> str:
        """The first digits of the certificate that the page shows: they are others in each run."""
        found = re.search(r"SHA-1 ([0-9a-f]{8})", await self._browser.text("main"))
        assert found, "the page shows no fingerprint"
        return found[1]

    async def _do(self, step: Step) -> None:
        page = self._browser
        name = step.what.replace('"', '\\"')
        match step.do:
            case "open":
                await page.open(step.what, locale=self._locale)
            case "click":
                # a tree item's name goes on with its value; what lies under an open dialogue cannot be clicked
                wanted = f"/^{re.escape(step.what)}\\b/" if step.role == "treeitem" else f'"{name}"s'
                above = "dialog[open] >> " if await page.evaluate("!!document.querySelector('dialog[open]')") else ""
                await page.click(f"{above}role={step.role}[name={wanted}] >> visible=true")
            case "fill":
                await page.fill(f'internal:label="{name}"s >> visible=true', step.text)
            case "choose":
                await page.choose(f'role=combobox[name="{name}"s] >> visible=true', step.text)
            case "upload":
                await page.upload(f'internal:label="{name}"s', self._folder / step.text)
            case "see":
                await page.until(f"document.body.innerText.includes({json.dumps(step.what)})")

    def end(self) -> None:
        """Ends what was left running."""
        for child in reversed(self._background):
            child.stop(timeout=10)


async def walk(parts: Sequence[Part], folder: Path, language: str, speed: float) -> dict[str, Any]:
    """Takes all steps, watching the chiller `speed` times as fast as it is written. Returns what each section took, and the rows that came into the store by signal."""
    work = folder / "work"
    work.mkdir()
    filler = ChildProcess(
        [require("node"), NPM / "filler.mjs", folder / "filler", FILLER, "4840"], on_line=_log(folder / "filler.log")
    )
    program = compile_libmodbus_server(folder, MACHINE_SOURCE)
    chiller = ChildProcess([program, "502", str(speed), CHILLER], on_line=_log(folder / "chiller.log"))
    sections = []
    try:
        await asyncio.to_thread(
            eventually, lambda: accepts(4840, FILLER) and accepts(502, CHILLER), 60, what="the machines run"
        )
        async with browsing() as browser:
            newcomer = Walk(work, language, browser, speed)
            try:
                for part in parts:
                    begun = time.monotonic()
                    for step in part.steps:
                        await newcomer.take(step)
                    sections.append({
                        "title": part.title, "seconds": round(time.monotonic() - begun, 1), "keys": part.keys,
                        "clicks": part.clicks, "hands": round(part.hands),
                    })  # fmt: skip
                # the browser itself writes one for an answer that is a problem, such as an untrusted certificate
                mistakes = [text for text in await browser.errors() if "responded with a status of" not in text]
                assert not mistakes, mistakes
                strangers = [url for url in await browser.requests() if not url.startswith(PAGE)]
                assert not strangers, f"requests that leave the box: {strangers}"
                stored = await asyncio.to_thread(_stored)
            finally:
                newcomer.end()
    finally:
        filler.kill()
        chiller.kill()
    return {"sections": sections, "stored": stored}


def _stored() -> dict[str, list[tuple[str, Any]]]:
    """What the store has of each signal, as (source or reading time, value)."""
    found = {}
    for signal in _get("signals")["items"]:
        rows = _get(f"signals/{signal['id']}/history?limit=1000")["readings"]
        found[signal["id"]] = [(row["ts"], row["value"]) for row in rows]
    return found


def _get(path: str) -> Any:
    with urllib.request.urlopen(f"{PAGE}api/v1/{path}", timeout=10) as answer:
        return json.load(answer)


def _log(path: Path) -> Any:
    def write(line: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return write


def main(transcript: Path, folder: Path, language: str, speed: float) -> None:
    """Walks, and writes what came of it to `told.json` in the folder."""
    cut_off()
    told = asyncio.run(walk(read(transcript.read_text(encoding="utf-8")), folder, language, speed))
    (folder / "told.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
