"""Servers that are not ours and not made with our libraries: node-opcua, libmodbus, modbus-serial."""

from __future__ import annotations

import json
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.needs import PACKAGES, missing, require
from tests.servers.processes import HOST, ChildProcess, free_port
from tests.servers.timescale import NPM, node_package

C_SOURCE = Path(__file__).with_name("libmodbus_server.c")
MACHINE_SOURCE = Path(__file__).with_name("libmodbus_machine.c")


class TruthfulServer(ABC):
    """A child process that prints its address space as one line of JSON and then, one line each, what it handed out.

    `first` is that first line; `truth` all lines since. It keeps its port when it is started again; its values start anew.
    """

    host = HOST

    def __init__(self) -> None:
        self.port = free_port()
        self.first: dict[str, Any] = {}
        self.truth: list[dict[str, Any]] = []
        self._child: ChildProcess | None = None

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> None:
        """Start, or start again, and return when it listens."""
        if self.running:
            return
        self.first = {}
        self._child = ChildProcess(self._command(), on_line=self._take, keep=1000)
        self._child.wait_until(lambda: bool(self.first), 30, "listening")

    def _take(self, line: str) -> None:
        if not line.startswith("{"):
            return  # a warning of the library
        told = json.loads(line)
        if self.first:
            self.truth.append(told)
        else:
            self.first = told

    def command(self, line: str) -> None:
        """Give the server one command; what it does about it comes in `truth`."""
        assert self._child is not None, "the server is not running"
        self._child.write_line(line)

    def stop(self) -> None:
        """An orderly end."""
        if self._child is not None:
            self._child.stop(timeout=15)
            self._child = None

    def kill(self) -> None:
        """A crash (SIGKILL)."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def output(self) -> str:
        """What the server printed last."""
        return "" if self._child is None else self._child.output()


class NodeOpcUaServer(TruthfulServer):
    """An OPC UA server on node-opcua; its address space, truth and commands are told in `npm/opcua.mjs`.

    `folder` takes its certificates; `limit` is the most nodes and items it accepts in one call (0: no limit).
    """

    def __init__(self, folder: Path, *, limit: int = 0) -> None:
        super().__init__()
        self._node = require("node")
        node_package("node-opcua")
        self.folder, self._limit = folder, limit

    def _command(self) -> Sequence[str | Path]:
        return [self._node, NPM / "opcua.mjs", self.folder, str(self.port), str(self._limit)]

    @property
    def endpoint(self) -> str:
        return str(self.first["endpoint"])

    @property
    def namespace(self) -> str:
        """The URI of the namespace of all of its variables."""
        return str(self.first["namespace"])

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """Its variables by name: node_id, type, array, value, status, time as they were at the start."""
        return dict(self.first["nodes"])

    def set(self, name: str, value: object, *, status: str = "Good", time: str | None = None) -> None:
        """Change a variable; `time` is its source time in ISO 8601."""
        self._say({"set": name, "value": value, "status": status, **({} if time is None else {"time": time})})

    def fire(self, number: int) -> None:
        """One event CycleFinished with that cycle number."""
        self._say({"fire": number})

    def declare(self, field: str) -> None:
        """An update of the machine: its CycleFinished events have one field more, a Double, a quarter of the cycle number."""
        self._say({"declare": field})

    def keep_history(self, name: str) -> None:
        """Keep a history of a variable from now on."""
        self._say({"history": name})

    def lose(self, name: str, value: object, *, time: str) -> None:
        """Change a variable in a notification that goes to nobody and is not kept for Republish."""
        self._say({"lose": name, "value": value, "time": time})

    def expire(self) -> None:
        """The lifetime of every subscription runs out."""
        self._say({"expire": True})

    def run(self, milliseconds: int) -> None:
        """Change `Counter` and fire an event each so often; 0 stops."""
        self._say({"run": milliseconds})

    def _say(self, command: dict[str, object]) -> None:
        self.command(json.dumps(command, ensure_ascii=False))


class ModbusSerialServer(TruthfulServer):
    """A Modbus TCP server on npm's modbus-serial with good, slow, busy and silent units: `npm/modbus.mjs`."""

    def __init__(self) -> None:
        super().__init__()
        self._node = require("node")
        node_package("modbus-serial")

    def _command(self) -> Sequence[str | Path]:
        return [self._node, NPM / "modbus.mjs", str(self.port)]


class LibmodbusServer(TruthfulServer):
    """A Modbus TCP server on Debian's libmodbus, compiled from `libmodbus_server.c`, which tells its map and commands."""

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program

    def _command(self) -> Sequence[str | Path]:
        return [self._program, str(self.port)]

    @property
    def map(self) -> dict[str, dict[str, Any]]:
        """Its values by name: table, address (zero-based), words, type, order, value as they were at the start."""
        return {entry["name"]: entry for entry in self.first["map"]}

    def set(self, table: str, address: int, value: int) -> None:
        """Change one register or bit; table is holding, input, coil or discrete."""
        self.command(f"{table} {address} {value}")

    def count(self, milliseconds: int) -> None:
        """Add 1 to the register pair `counter` each so often; 0 stops."""
        self.command(f"count {milliseconds}")


class LibmodbusUnit(LibmodbusServer):
    """The same as unit 1 of an RTU line: `path` is the serial port at its end."""

    def __init__(self, program: Path, path: str) -> None:
        super().__init__(program)
        self.path = path

    def _command(self) -> Sequence[str | Path]:
        return [self._program, self.path]


class LibmodbusMachine(TruthfulServer):
    """A chiller on Debian's libmodbus whose values live, compiled from `libmodbus_machine.c`; nobody publishes its map.

    `speed` is how many times as fast as the clock its process runs: 1 where a person watches, more in a test that will not wait.
    """

    def __init__(self, program: Path, *, speed: float = 1.0) -> None:
        super().__init__()
        self._program, self._speed = program, speed

    def _command(self) -> Sequence[str | Path]:
        return [self._program, str(self.port), str(self._speed)]

    @property
    def map(self) -> dict[str, dict[str, Any]]:
        """What its manual would say, by name: table, address (zero-based), words, type, order, scale, unit."""
        return {entry["name"]: entry for entry in self.first["map"]}


def compile_libmodbus_server(folder: Path, source: Path = C_SOURCE) -> Path:
    """Compile a C source with gcc and Debian's libmodbus. Returns the program."""
    gcc, pkg_config = require("gcc"), require("pkg-config")
    flags = subprocess.run([pkg_config, "--cflags", "--libs", "libmodbus"], capture_output=True, text=True, check=False)
    if flags.returncode != 0:
        missing("libmodbus", f"apt-get install {PACKAGES['libmodbus']}")
    program = folder / source.stem
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [str(gcc), "-O2", "-std=gnu11", *warnings, str(source), "-o", str(program), *flags.stdout.split(), "-lm"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile:\n{compiled.stderr}")
    return program
