"""The page in Chromium, with 2,000 signals that all change once a second: how soon it is painted, how soon it shows values, whether it stutters.

The signals come from a Modbus load server through the whole gateway (`guantong run`), so serve has its usual work meanwhile. The browser's
renderer has no graphics card here: frames are drawn by the processor. The yardstick is a page of one line of text from the same server
in the same browser: what is slower or rougher than that is the page's doing. Needs what `make test-needs` installs.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._gateway import STORE, Gateway, Load, free_ports, rows_of, write_config
from benchmarks._processes import HOST, Told, wait_for
from tests.page.browser import DESKTOP, Browser, browsing

SIGNALS = 2_000
TIMES = 3 if SHORT else 9
SECONDS = 8 if SHORT else 30
AIM_PAINT = 1.0
"""Seconds."""
AIM_TASK = 50.0
"""ms: longer tasks are what browsers call long, and what people begin to feel."""
FRAME = 1000 / 60

WATCH = """(() => {
  const told = (window.told = { tasks: [], gaps: [], values: null, on: false });
  new PerformanceObserver((list) => { if (told.on) for (const entry of list.getEntries()) told.tasks.push(entry.duration); }).observe({ type: "longtask" });
  let before = null;
  const frame = () => {
    const now = performance.now(); // not the frame's own time, which hides that it came late
    if (told.on && before !== null) told.gaps.push(now - before);
    before = now;
    if (told.values === null && document.querySelector("#values-rows .value:not(:empty)")) told.values = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})()"""
"""Runs before the page's own scripts: notes when the first value is shown, and while `on` the time between frames and every long task (ms)."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@dataclass(frozen=True, slots=True)
class Smoothness:
    """Of a page that was watched: time between frames and longest task, in ms (0: none was longer than 50)."""

    p99: float
    greatest: float
    task: float
    frames: int


async def paints(browser: Browser, url: str, *, values: bool) -> tuple[list[float], list[float]]:
    """Seconds from the navigation to the first paint and to the first value shown, each time with an empty cache."""
    painted, shown = [], []
    for _ in range(TIMES):
        await browser.open(url, DESKTOP, script=WATCH)
        await browser.until(f"{PAINT} > 0")
        if values:
            await browser.until("window.told.values !== null")
            shown.append(await browser.evaluate("window.told.values") / 1000)
        painted.append(await browser.evaluate(PAINT) / 1000)
    return painted, shown


async def smoothness(browser: Browser, url: str, *, rows: int) -> Smoothness:
    """Watches the page for `SECONDS`, after all `rows` are there and two more seconds have passed."""
    await browser.open(url, DESKTOP, script=WATCH)
    await browser.until(f"document.querySelectorAll('#values-rows .row').length === {rows}")
    await asyncio.sleep(2)
    await browser.evaluate("void (window.told.on = true)")
    await asyncio.sleep(SECONDS)
    told = json.loads(await browser.evaluate("(window.told.on = false, JSON.stringify(window.told))"))
    gaps = sorted(told["gaps"])
    return Smoothness(gaps[int(len(gaps) * 0.99)], gaps[-1], max(told["tasks"], default=0.0), len(gaps))


async def changing(browser: Browser) -> int:
    """How many different values the first row has shown in five seconds: that something moves at all."""
    seen = set()
    for _ in range(50):
        seen.add(await browser.text("#values-rows .value"))
        await asyncio.sleep(0.1)
    return len(seen)


async def watch(port: int) -> list[Figure]:
    """Everything, against a gateway whose API listens on `port`."""
    plain, values = f"http://{HOST}:{port}/health/live", f"http://{HOST}:{port}/#/values"
    async with browsing() as browser:
        bare, _ = await paints(browser, plain, values=False)
        painted, shown = await paints(browser, values, values=True)
        say(
            f"first paint {', '.join(f'{s:.2f}' for s in painted)} s; a line of text {', '.join(f'{s:.2f}' for s in bare)} s"
        )
        still = await smoothness(browser, plain, rows=0)
        live = await smoothness(browser, values, rows=SIGNALS)
        moved = await changing(browser)
    say(
        f"{live.frames} frames in {SECONDS} s with live values, {still.frames} with none; the first row showed {moved} values in 5 s"
    )
    if moved < 4:
        raise RuntimeError(f"the first row showed {moved} values in five seconds: nothing was live")
    return [
        Figure("page.paint", statistics.median(painted), "s", statistics.median(bare), AIM_PAINT),
        Figure("page.paint.slowest", max(painted), "s", max(bare), AIM_PAINT),
        Figure("page.values", statistics.median(shown), "s"),
        Figure("page.values.slowest", max(shown), "s"),
        Figure("page.frame.p99", live.p99, "ms", still.p99),
        Figure("page.frame.greatest", live.greatest, "ms", still.greatest),
        Figure("page.frames", live.frames / SECONDS, "1/s", still.frames / SECONDS, 1000 / FRAME),
        Figure("page.task.longest", live.task, "ms", still.task or None, AIM_TASK),
    ]


def run(folder: Path) -> list[Figure]:
    """Everything, in `folder`."""
    say(load_average())
    modbus = Told("benchmarks._modbus_load")
    ports = free_ports()
    load = Load(modbus_port=int(modbus.ready["port"]), units=16, registers=125, machines=0, variables=0)
    gateway = Gateway(write_config(folder, load, ports), ports)
    try:
        gateway.wait()
        wait_for("a first reading of each signal", lambda: rows_of(folder / STORE) >= SIGNALS, 60, every=0.5)
        found = asyncio.run(watch(ports.api))
        say(f"measured; {load_average()}")
    except BaseException:  # also Ctrl-C: the log says why it hung
        say(gateway.log.read_text(encoding="utf-8")[-4_000:])
        raise
    finally:
        gateway.end()
        modbus.end()
    return found


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="guantong-page-") as folder:
        found = run(Path(folder))
    tell(found)


if __name__ == "__main__":
    main()
