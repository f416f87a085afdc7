"""How long it takes from the command to the first stored reading, with the environment installed and the simulators up.

Each start is measured several times, from the moment the command is executed, on a data directory that is empty, and once
more on the one that the last start left. The demonstration starts its simulators itself, which counts.
"""

from __future__ import annotations

import re
import socket
import statistics
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._gateway import Ports, free_ports, guantong, rows_of
from benchmarks._processes import HOST, end, module, start, wait_for

TIMES = 2 if SHORT else 5
AIM = 5.0
WITHIN = 90.0
_PORTS = (48401, 48402, 48403, 48411, 48412, 48413, 48414)
"""The simulators' ports in the demonstration's configuration."""
_OFFSET = 48400


def free_base() -> int:
    """A first port from which on the simulators' are free."""
    for base in range(21_000, 32_000, 50):
        if not any(_listens(base + port - _OFFSET) for port in _PORTS):
            return base
    raise RuntimeError("no room for the simulators' ports between 21000 and 32000")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def environment(ports: Ports) -> dict[str, str]:
    """What moves the ports of a gateway."""
    return {
        "GUANTONG_API_PORT": str(ports.api),
        "GUANTONG_BUS_PORT": str(ports.bus),
        "GUANTONG_METRICS_COLLECT_PORT": str(ports.collect),
        "GUANTONG_METRICS_INGEST_PORT": str(ports.ingest),
    }


def first_reading(command: list[str], store: Path, log: Path, env: dict[str, str]) -> float:
    """Seconds from the start of `command` to one reading more in `store` than before."""
    before = rows_of(store)
    began = time.monotonic()
    process = start(command, env=env, output=log)
    try:
        wait_for(f"a reading in {store} (log: {log})", lambda: rows_of(store) > before, WITHIN)
        return time.monotonic() - began
    except TimeoutError:
        say(log.read_text(encoding="utf-8")[-4_000:])
        raise
    finally:
        end(process)


def told(name: str, seconds: list[float]) -> list[Figure]:
    """The middle one, and the slowest."""
    say(f"{name}: " + ", ".join(f"{s:.2f}" for s in seconds) + " s")
    return [
        Figure(name, statistics.median(seconds), "s", aim=AIM),
        Figure(f"{name}.slowest", max(seconds), "s", aim=AIM),
    ]


def run(folder: Path) -> list[Figure]:
    """Everything, in `folder`."""
    say(load_average())
    base = free_base()
    text = files("gateway").joinpath("demo.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\b484\d\d\b", lambda found: str(int(found[0]) + base - _OFFSET), text)
    simulators = start(
        module("simulators", "--base-port", str(base), "--end-with-stdin"), output=folder / "simulators.log"
    )
    try:
        wait_for("the simulators", lambda: all(_listens(base + port - _OFFSET) for port in _PORTS), 60)
        cold: list[float] = []
        again: list[float] = []
        for number in range(TIMES):
            data = folder / f"run-{number}"
            data.mkdir()
            config = data / "guantong.yaml"
            config.write_text(text, encoding="utf-8")
            command = guantong("run", "--config", str(config))
            for seconds in (cold, again):
                seconds.append(
                    first_reading(command, data / "store.sqlite", data / "run.log", environment(free_ports()))
                )
    finally:
        end(simulators)
    demo = []
    for number in range(TIMES):
        ports, data = free_ports(), folder / f"demo-{number}"
        command = guantong(
            "demo", "--plain", "--dir", str(data), "--api-port", str(ports.api), "--mqtt-port", str(ports.bus),
            "--base-port", str(free_base()),
        )  # fmt: skip
        demo.append(first_reading(command, data / "store.sqlite", folder / f"demo-{number}.log", {}))
    return [*told("start.run", cold), *told("start.again", again), *told("start.demo", demo)]


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="guantong-start-") as folder:
        found = run(Path(folder))
    tell(found)


if __name__ == "__main__":
    main()
