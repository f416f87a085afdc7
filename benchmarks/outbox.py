"""What durability costs: the levels `power` and `process` of the outbox, on this disk and on one whose fsync takes 10 ms.

Readings go through recorder and outbox at a steady rate, a process for each run. The slow disk is this one with a library before
fsync (`_slow_fsync.c`, built with cc). Then the demonstration runs, and what its readings take in the outbox is measured, and an outbox
of some size is opened, checked, damaged and saved.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._gateway import free_ports, guantong
from benchmarks._processes import end, start
from benchmarks.start import free_base

SECONDS = 5.0 if SHORT else 30.0
DEMO = 25.0 if SHORT else 120.0
SETTLED = 12.0
RATES = (1_000, 20_000)
SLOW_US = 10_000
SALVAGE_MB = 60 if SHORT else 600


def shim(folder: Path) -> Path | None:
    """The library that slows fsync; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    target = folder / "slow_fsync.so"
    source = Path(__file__).with_name("_slow_fsync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(target), str(source), "-ldl"], check=True)
    return target


def measured(folder: Path, level: str, rate: int, slow: Path | None) -> dict[str, float]:
    """One run of `_outbox_client`."""
    place = Path(tempfile.mkdtemp(dir=folder))
    environment = dict(os.environ)
    if slow is not None:
        environment |= {"LD_PRELOAD": str(slow), "SLOW_FSYNC_US": str(SLOW_US)}
    command = [sys.executable, "-m", "benchmarks._outbox_client", level, str(rate), str(SECONDS), str(place)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    )
    shutil.rmtree(place)
    return found


def levels(folder: Path) -> list[Figure]:
    """Both levels at both rates on both disks."""
    figures: list[Figure] = []
    library = shim(folder)
    if library is None:
        say("no C compiler: the slow disk is left out")
    for rate in RATES:
        for disk, slow in (("", None), (".slow", library)):
            if disk and slow is None:
                continue
            cheap = measured(folder, "process", rate, slow)
            dear = measured(folder, "power", rate, slow)
            for level, found in (("process", cheap), ("power", dear)):
                name = f"outbox.{level}{disk}.{rate}"
                say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
                beside = cheap if level == "power" else None
                figures += [
                    Figure(f"{name}.cpu", found["cpu_us"], "µs/reading", beside and beside["cpu_us"]),
                    Figure(f"{name}.commits", found["commits"], "1/s", beside and beside["commits"]),
                    Figure(f"{name}.written", found["written"], "bytes/reading", beside and beside["written"]),
                    Figure(f"{name}.latency.p50", found["p50"] * 1e3, "ms", beside and beside["p50"] * 1e3),
                    Figure(f"{name}.latency.p99", found["p99"] * 1e3, "ms", beside and beside["p99"] * 1e3),
                ]
            if not disk:
                figures.append(Figure(f"outbox.{rate}.kept", dear["disk"], "bytes/reading", dear["plain"]))
                figures.append(Figure(f"outbox.{rate}.row", dear["overhead"], "bytes/message"))
    return figures


def demonstration(folder: Path) -> list[Figure]:
    """What the demonstration's readings take in the outbox, with everything else that is written, and for how long the default budget holds."""
    from gateway.collect.budget import Budget
    from gateway.config.models import OutboxSettings
    from gateway.ledger.outbox import ROW

    ports = free_ports()
    data = folder / "demo"
    command = guantong(
        "demo", "--plain", "--dir", str(data), "--api-port", str(ports.api), "--mqtt-port", str(ports.bus),
        "--base-port", str(free_base()),
    )  # fmt: skip
    process = start(command, output=folder / "demo.log")
    try:
        time.sleep(SETTLED)
        first = held(data / "outbox.sqlite")
        time.sleep(DEMO)
        last = held(data / "outbox.sqlite")
    finally:
        end(process)
    seconds, readings, messages, size = (after - before for before, after in zip(first, last, strict=True))
    rate = (size + messages * ROW) / seconds
    budget = Budget(OutboxSettings().budget, "oldest")
    say(
        f"demonstration: {readings / seconds:.0f} readings/s in {messages / seconds:.1f} messages/s, {rate:.0f} bytes/s"
    )
    return [
        Figure("outbox.demo.readings", readings / seconds, "1/s"),
        Figure("outbox.demo.kept", (size + messages * ROW) / readings, "bytes/reading"),
        Figure("outbox.demo.days", budget.allowed / rate / 86_400, "days", aim=35),
    ]


def held(path: Path) -> tuple[float, int, int, int]:
    """(time, readings, messages, bytes of bodies) that the outbox holds and has numbered."""
    from gateway.ledger.bodies import decode_body

    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        readings = messages = size = 0
        for kind, enc, body in db.execute("SELECT kind, enc, body FROM message"):
            decoded = decode_body(kind, body, enc)
            readings += len(decoded.points) if kind == 2 else 0  # type: ignore[union-attr]  # kind 2 is a Batch
            messages, size = messages + 1, size + len(body)
    finally:
        db.close()
    return time.monotonic(), readings, messages, size


def mending(folder: Path) -> list[Figure]:
    """An outbox of some size: opened, checked whole by SQLite for comparison, damaged, and saved."""
    from gateway.ledger.opening import open_or_salvage
    from gateway.ledger.outbox import Outbox
    from schemas.wire import Kind

    path = folder / "large.sqlite"
    box = Outbox(path, "process")
    box.begin()
    while box.size < SALVAGE_MB * 10**6:
        for _ in range(500):
            box.append(Kind.PROGRESS, b"\x92\x01\x90" + os.urandom(800))
        box.commit()
    box.close()
    size = path.stat().st_size / 1e9
    began = time.monotonic()
    Outbox(path, "process").close()
    opened = time.monotonic() - began
    db = sqlite3.connect(path)
    began = time.monotonic()
    db.execute("PRAGMA quick_check").fetchall()
    checked = time.monotonic() - began
    db.execute("UPDATE message SET body = x'00' WHERE seq = 1000")
    db.execute("UPDATE stream SET seal = 1")
    db.commit()
    db.close()
    began = time.monotonic()
    box, found = open_or_salvage(path, "process", 0)
    saved = time.monotonic() - began
    box.close()
    say(f"{size:.2f} GB: opened in {opened:.2f} s, quick_check {checked:.2f} s, saved in {saved:.1f} s: {found}")
    return [
        Figure("outbox.open", opened, "s", checked),
        Figure("outbox.salvage", saved / size, "s/GB"),
    ]


def main() -> None:
    """See the module."""
    say(load_average())
    with tempfile.TemporaryDirectory(prefix="guantong-outbox-") as name:
        folder = Path(name)
        figures = [*levels(folder), *mending(folder), *demonstration(folder)]
    say(load_average())
    tell(figures)


if __name__ == "__main__":
    main()
