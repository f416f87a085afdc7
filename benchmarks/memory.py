"""The demonstration's memory: the proportional set size (PSS) of parent, broker and roles after five minutes, simulators excluded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._gateway import free_ports, guantong, named_processes, rows_of
from benchmarks._processes import end, start, use_of, wait_for
from benchmarks.start import free_base

SECONDS = 40.0 if SHORT else 300.0
EVERY = 20.0
AIM = 250.0
_MB = 1e6


def run(folder: Path) -> list[Figure]:
    """Everything, in `folder`."""
    say(load_average())
    ports, data, log = free_ports(), folder / "demo", folder / "demo.out"
    command = guantong(
        "demo", "--plain", "--dir", str(data), "--api-port", str(ports.api), "--mqtt-port", str(ports.bus),
        "--base-port", str(free_base()),
    )  # fmt: skip
    process = start(command, output=log)
    began = time.monotonic()
    memory: dict[str, float] = {}
    try:
        wait_for("all processes", lambda: len(named_processes(process.pid)) == 5, 60)
        wait_for("a stored reading", lambda: rows_of(data / "store.sqlite"), 60)
        while time.monotonic() - began < SECONDS:
            time.sleep(min(EVERY, max(0.0, began + SECONDS - time.monotonic())))
            memory = {name: use_of(pid).memory / _MB for name, pid in named_processes(process.pid).items()}
            listed = "  ".join(f"{name} {size:.1f}" for name, size in memory.items())
            say(f"{time.monotonic() - began:4.0f} s  {sum(memory.values()):.1f} MB: {listed}")
        rows = rows_of(data / "store.sqlite")
    except TimeoutError:
        say(log.read_text(encoding="utf-8")[-4_000:])
        raise
    finally:
        end(process)
    return [
        *(Figure(f"memory.{name}", size, "MB") for name, size in memory.items()),
        Figure("memory.readings", float(rows), "readings"),
        Figure("memory", sum(memory.values()), "MB", aim=AIM),
    ]


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="guantong-memory-") as folder:
        found = run(Path(folder))
    tell(found)


if __name__ == "__main__":
    main()
