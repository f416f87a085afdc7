"""One process of `make bench-outbox`: readings through recorder and outbox at a steady rate, measured.

`python -m benchmarks._outbox_client LEVEL RATE SECONDS FOLDER`, LEVEL being `power` or `process`, RATE readings a second. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DEVICES = 10
PERIOD = 0.05
"""Seconds between two scans; each brings a twentieth of a second's readings, of one device after the other."""


async def run(level: Any, rate: int, seconds: float, folder: Path) -> dict[str, float]:
    """Puts readings whose values change by small steps, as measured ones do, and waits for each to be durable."""
    from gateway.collect.items import Readings
    from gateway.collect.recorder import Recorder
    from gateway.ledger.outbox import Outbox

    chance = random.Random(1)
    outbox, thread = Outbox(folder / "outbox.sqlite", level), ThreadPoolExecutor(1)
    outbox.begin()
    recorder = Recorder(outbox, thread, budget=1 << 40, policy="oldest", now_us=lambda: time.time_ns() // 1000)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    rows = max(int(rate * PERIOD), 1)
    latencies: list[float] = []
    before = written(), time.process_time(), time.monotonic(), outbox.size
    put = 0
    due = began = time.monotonic()
    device = 0
    while due - began < seconds:
        now, device = time.time_ns() // 1000, (device + 1) % DEVICES
        first = device * 10_000
        values: list[Any] = [round(20 + chance.gauss(0, 1), 2) for _ in range(rows)]
        at = time.monotonic()
        await recorder.put(
            Readings(f"d{device}", "g", now, list(range(first, first + rows)), [now] * rows, values),
            lambda at=at: latencies.append(time.monotonic() - at),
        )
        put += rows
        due += rows / rate
        await asyncio.sleep(max(due - time.monotonic(), 0))
    await recorder.commit()
    took, cpu, wrote = time.monotonic() - before[2], time.process_time() - before[1], written() - before[0]
    latencies.sort()
    result = {
        "readings": put,
        "cpu_us": cpu / put * 1e6,
        "commits": recorder.numbers.commits / took,
        "written": wrote / put,
        "disk": (outbox.size - before[3]) / put,
        "plain": recorder.numbers.bytes / put,
        "overhead": (outbox.size - before[3] - stored(outbox)) / max(recorder.numbers.messages, 1),
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
    }
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    thread.shutdown()
    outbox.close()
    return result


def stored(outbox: Any) -> int:
    """Bytes of all bodies as they lie there."""
    total, first = 0, 1
    while batch := outbox.read(outbox.current, first, 500, 1 << 26):
        total += sum(len(message.body) for message in batch)
        first = batch[-1].last_seq + 1
    return total


def written() -> int:
    """Bytes that this process has handed to the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def main() -> None:
    """See the module."""
    level, rate, seconds, folder = sys.argv[1:5]
    print(json.dumps(asyncio.run(run(level, int(rate), float(seconds), Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
