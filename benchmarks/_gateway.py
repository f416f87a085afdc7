"""The gateway as a benchmark runs it: its configuration, its processes, its metrics, its SQLite store."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks._opcua_load import NAMESPACE
from benchmarks._processes import HOST, Use, children_of, command_of, end, free_port, start, use_of, wait_for

STORE = Path("data/store.sqlite")
"""The store, from the folder of the configuration."""
_SAMPLE = re.compile(r"^(\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where this gateway listens."""

    api: int
    bus: int
    collect: int
    ingest: int


def free_ports() -> Ports:
    """Ports of 127.0.0.1 that are free just now."""
    return Ports(free_port(), free_port(), free_port(), free_port())


@dataclass(frozen=True, slots=True)
class Load:
    """Half of the signals over Modbus, half over OPC UA, each in so many devices on so many links."""

    modbus_port: int = 0
    endpoint: str = ""
    units: int = 20
    registers: int = 125
    modbus_links: int = 4
    machines: int = 5
    variables: int = 2_500
    period: float = 1.0

    @property
    def signals(self) -> int:
        """All of them."""
        return self.units * self.registers + self.variables


def write_config(folder: Path, load: Load, ports: Ports) -> Path:
    """The gateway's configuration with two profiles beside it; returns its path."""
    source = {"source": {"document": "benchmarks/_gateway.py"}, "verified": "simulator", "licence": "Apache-2.0"}
    groups = {"groups": {"default": {"period": load.period}}}
    _dump(folder / "load-modbus.yaml", {
        "profile": "load-modbus", "protocol": "modbus", "name": {"en": "Load"}, **source, **groups,
        "signals": [
            {"name": f"r{a}", "type": "uint16", "unit": "1", "address": {"table": "holding", "address": a}}
            for a in range(load.registers)
        ],
    })  # fmt: skip
    _dump(folder / "load-opcua.yaml", {
        "profile": "load-opcua", "protocol": "opcua", "name": {"en": "Load"}, **source, **groups,
        "rules": {"namespaces": {"load": NAMESPACE}},
        "signals": [
            {"name": f"v{v}", "type": "float64", "unit": "1", "address": {"path": f"load:v{v}"}}
            for v in range(load.variables // max(load.machines, 1))
        ],
    })  # fmt: skip
    units = range(1, load.units + 1)
    links: list[dict[str, Any]] = [
        {
            "id": f"modbus-{number}",
            "adapter": "modbus",
            "settings": {"host": HOST, "port": load.modbus_port},
            "devices": [
                {"id": f"unit-{unit:02}", "profile": "load-modbus.yaml", "settings": {"unit": unit}}
                for unit in units[number :: load.modbus_links]
            ],
        }
        for number in range(load.modbus_links)
    ]
    links += [
        {
            "id": f"opcua-{m}",
            "adapter": "opcua",
            "settings": {"endpoint": load.endpoint, "security": "none"},
            "devices": [
                {"id": f"machine-{m}", "profile": "load-opcua.yaml", "settings": {"root": f"nsu={NAMESPACE};s=m{m}"}}
            ],
        }
        for m in range(load.machines)
    ]
    file = folder / "guantong.yaml"
    _dump(file, {
        "gateway": {"id": "load"},
        "data_dir": "data",
        "bus": {"port": ports.bus},
        "api": {"port": ports.api},
        "metrics": {"collect_port": ports.collect, "ingest_port": ports.ingest},
        "links": links,
    })  # fmt: skip
    return file


def _dump(file: Path, data: Mapping[str, Any]) -> None:
    file.write_text(yaml.safe_dump(dict(data), allow_unicode=True, sort_keys=False), encoding="utf-8")


def guantong(*arguments: str) -> list[str]:
    """The command line of the command `guantong` in this environment."""
    return [sys.executable, "-c", "from gateway.cli import main; main()", *arguments]


class Gateway:
    """`guantong run`, from its start to its end."""

    def __init__(self, config: Path, ports: Ports) -> None:
        self.ports = ports
        self.log = config.with_suffix(".log")
        self.process: subprocess.Popen[str] = start(guantong("run", "--config", str(config)), output=self.log)

    def processes(self) -> dict[str, int]:
        """Process ids of the parent, the broker and the roles, as far as they run."""
        return named_processes(self.process.pid)

    def wait(self, within: float = 60.0) -> None:
        """Until all processes run and both metrics answer."""
        wait_for(f"all processes of the gateway (log: {self.log})", lambda: len(self.processes()) == 5, within)
        for port in (self.ports.collect, self.ports.ingest):
            wait_for(f"metrics on port {port} (log: {self.log})", lambda port=port: metrics(port), within)  # type: ignore[misc]

    def use(self) -> dict[str, Use]:
        """What each process has used so far."""
        return {name: use_of(pid) for name, pid in self.processes().items()}

    def end(self) -> int:
        """An orderly end; the exit code."""
        return end(self.process)


def named_processes(parent: int) -> dict[str, int]:
    """The parent's own id, and those of its children that are the broker or a role."""
    found = {"parent": parent}
    for pid in children_of(parent):
        command = command_of(pid)
        if "gateway.bus.broker" in command:
            found["broker"] = pid
        elif "gateway.roles" in command:
            found[command[command.index("gateway.roles") + 1]] = pid
    return found


def metrics(port: int) -> dict[str, float]:
    """The sum of each metric over its labels; empty while nothing answers."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError):
        text = urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5).read().decode()
        for match in _SAMPLE.finditer(text):
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


@contextlib.contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The store, for reading, beside the gateway."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


READINGS = (
    "SELECT signal_id, ts, n, num FROM reading UNION ALL SELECT signal_id, ts, n, num FROM tail "
    "WHERE row > (SELECT merge_row FROM store) OR signal_id > (SELECT merge_signal FROM store)"
)
"""All stored readings: a merge moves them from `tail` to `reading` a piece at a time."""


def rows_of(file: Path) -> int:
    """How many readings are stored; 0 while there is no store."""
    try:
        with opened(file) as store:
            count: int = store.execute(f"SELECT count(*) FROM ({READINGS})").fetchone()[0]
            return count
    except sqlite3.Error:
        return 0
