"""Modbus TCP from the request to the durable outbox, beside a bare pymodbus loop and a libmodbus loop in C on the same server.

The server is a process of its own, in C on libmodbus, and answers blocks of 125 registers. The clients take it one after the other, a process
each: libmodbus, on one connection, and pymodbus read 80 blocks (10,000 registers) as fast as they can and throw them away; the
gateway does so with everything that it does for a reading, between two halves of pymodbus's time: on one link, and with the 80 blocks shared out
among four and among sixteen links. Then it reads 100,000 registers once a second over one link.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._modbus_client import SIZE
from benchmarks._processes import ROOT, end, module, start

SECONDS = 4.0 if SHORT else 30.0
BLOCKS = 80
"""10,000 registers: of a unit alone on its link, else of one unit for each link together."""
LINKS = (1, 4, 16)
AT_ONCE = 0.001
"""A period that no scan keeps: the next one begins when one has ended."""
GRID_UNITS = 10
GRID = 1.0
AIM = 2.0
"""CPU for each block, as a multiple of that of the bare pymodbus loop."""
AIM_GRID = 10.0
"""Percent of a core for 100,000 registers at 1 Hz."""


class NeedError(Exception):
    """Something that this benchmark is built with is not installed."""


def compiled(name: str, folder: Path) -> Path:
    """A C source of this folder as a program. Raises NeedError."""
    gcc, pkg_config = shutil.which("gcc"), shutil.which("pkg-config")
    if gcc is None or pkg_config is None:
        raise NeedError("this benchmark needs gcc and pkg-config: apt-get install gcc pkg-config")
    flags = subprocess.run([pkg_config, "--cflags", "--libs", "libmodbus"], capture_output=True, text=True, check=False)
    if flags.returncode:
        raise NeedError("this benchmark needs libmodbus with its headers: apt-get install libmodbus-dev")
    source, program = ROOT / "benchmarks" / f"{name}.c", folder / name
    subprocess.run(
        [gcc, "-O2", "-std=gnu11", "-Wall", "-Wextra", str(source), "-o", str(program), *flags.stdout.split()],
        check=True,
    )
    return program


def one(
    server_program: Path,
    client_command: list[str],
    links: int = 1,
    units: int = 1,
    period: float = AT_ONCE,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Runs one client against a server of its own; what it measured and, of the gateway, what the outbox says of loss.

    `client_command` begins with the kind of client; a program in C is told by its path.
    """
    server = start([str(server_program)])
    client = None
    try:
        port = str(_line(server)["port"])
        kind, *command = client_command
        if kind == "libmodbus":
            client = start([*command, port, str(BLOCKS), str(seconds)])
        else:
            numbers = [str(links), str(units), str(BLOCKS // links), str(period), str(seconds)]
            client = start(module("benchmarks._modbus_client", kind, port, *numbers))
        measured = _line(client)
        if kind != "gateway":
            return measured
        _tell(server, "hold")
        told = _line(server)
        _tell(client, "held")
        _tell(client, json.dumps(told))
        return {**measured, **_line(client)}
    finally:
        if client is not None:
            end(client)
        end(server)


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise RuntimeError(f"{process.args!r} ended with {process.wait()}")


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _say(name: str, run: dict[str, Any]) -> None:
    rate = run["blocks"] / run["wall"]
    found = (
        f"; of {run['compared']:,} values {run['missing']} missing, {run['twice']} twice; {run['gaps']} gaps, "
        f"{run['overruns']} periods overrun, errors {run['errors'] or 'none'}"
        if "compared" in run
        else ""
    )
    say(
        f"{name}: {rate:,.0f} blocks/s, {rate * SIZE:,.0f} values/s, {_cpu(run):.1f} µs CPU a block, "
        f"{100 * run['cpu'] / run['wall']:.1f} % of a core{found}"
    )


def _cpu(run: dict[str, Any]) -> float:
    return 1e6 * float(run["cpu"]) / max(float(run["blocks"]), 1.0)


def main() -> int:
    """Exit code 1 when the gateway lost or doubled a value, 2 when something that it needs is missing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            server, loop = compiled("_modbus_server", Path(folder)), compiled("_modbus_loop", Path(folder))
        except NeedError as need:
            say(str(need))
            return 2
        say(load_average())
        runs = {"libmodbus": one(server, ["libmodbus", str(loop)], seconds=SECONDS / 2)}
        _say("libmodbus", runs["libmodbus"])
        for links in LINKS:
            before = one(server, ["pymodbus"], links, seconds=SECONDS / 2)
            _say(f"pymodbus, {links} links", before)
            runs[f"gateway.{links}"] = one(server, ["gateway"], links)
            _say(f"gateway, {links} links", runs[f"gateway.{links}"])
            after = one(server, ["pymodbus"], links, seconds=SECONDS / 2)
            _say(f"pymodbus again, {links} links", after)
            runs[f"pymodbus.{links}"] = {key: before[key] + after[key] for key in before}
        runs["grid"] = one(server, ["gateway"], 1, GRID_UNITS, GRID)
        _say("grid", runs["grid"])
        say(load_average())
    rate = {name: float(round(run["blocks"] / run["wall"])) for name, run in runs.items()}
    bare, ours, grid = _cpu(runs["pymodbus.1"]), runs["gateway.1"], runs["grid"]
    shared = [(n, runs[f"gateway.{n}"], runs[f"pymodbus.{n}"]) for n in LINKS[1:]]
    gateways = [ours, *(run for _, run, _ in shared), grid]
    tell([
        Figure("modbus.cpu_per_block", _cpu(ours), "µs", bare, AIM),
        Figure("modbus.cpu_per_block.libmodbus", _cpu(ours), "µs", _cpu(runs["libmodbus"])),
        Figure("modbus.cpu_per_value", _cpu(ours) / SIZE, "µs", bare / SIZE),
        Figure("modbus.blocks", rate["gateway.1"], "blocks/s", rate["pymodbus.1"]),
        Figure("modbus.values", rate["gateway.1"] * SIZE, "values/s", rate["pymodbus.1"] * SIZE),
        Figure("modbus.blocks.libmodbus", rate["libmodbus"], "blocks/s"),
        *(Figure(f"modbus.{n}.cpu_per_block", _cpu(run), "µs", _cpu(yardstick), AIM) for n, run, yardstick in shared),
        *(Figure(f"modbus.{n}.blocks", rate[f"gateway.{n}"], "blocks/s", rate[f"pymodbus.{n}"]) for n, _, _ in shared),
        Figure("modbus.lost", float(sum(run["missing"] for run in gateways[:-1])), "values", None, 0.0),
        Figure("modbus.doubled", float(sum(run["twice"] for run in gateways[:-1])), "values", None, 0.0),
        Figure("modbus.grid.cpu", 100 * grid["cpu"] / grid["wall"], "% of a core", None, AIM_GRID),
        Figure("modbus.grid.cpu_per_block", _cpu(grid), "µs", bare, AIM),
        Figure("modbus.grid.values", rate["grid"] * SIZE, "values/s", None, GRID_UNITS * BLOCKS * SIZE / GRID),
        Figure("modbus.grid.lost", float(grid["missing"]), "values", None, 0.0),
        Figure("modbus.grid.overruns", float(grid["overruns"]), "periods", None, 0.0),
    ])  # fmt: skip
    return int(any(run["missing"] or run["twice"] or not run["compared"] for run in gateways))


if __name__ == "__main__":
    sys.exit(main())
