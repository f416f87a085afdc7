"""A gateway as somebody installs it: a YAML file, a broker, and one process for each role, each of which may be killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from gateway.bus import broker
from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreWeatherError
from gateway.parent import PARENT_PIPE
from gateway.store import open_reader
from gateway.store.reader import Reader
from schemas.model import parse_duration
from simulators.registry import device_types
from tests.chain.served import Subject, groups_of, profile
from tests.servers.processes import HOST, ChildProcess, accepts, free_port
from tests.servers.waiting import eventually

ROLES = ("ingest", "serve", "collect")
SIMULATED = ("imm-01", "mt-01", "plc-01", "meter-01", "temp-01", "press-01", "sew-line")
PROFILES = {
    "imm-01": "euromap77-injection", "mt-01": "opc40501-machinetool", "plc-01": "siemens-s7-1500-line",
    "meter-01": "eastron-sdm630", "temp-01": "delta-dtb", "press-01": "generic-dio8-counter",
    "sew-line": "generic-sewing-station",
}  # fmt: skip
STATIONS = 6
DEAD_STATION = "sew-04"


class Process:
    """One child whose output goes to a file, over all its starts; it ends with us, as its input is a pipe of ours."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> None:
        self.name, self.log = name, log
        self._command, self._env = command, env
        self._child: ChildProcess | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def env(self) -> Mapping[str, str]:
        """Its environment."""
        return self._env

    @property
    def child(self) -> ChildProcess:
        """The process as it was started last."""
        assert self._child is not None, f"{self.name} was not started"
        return self._child

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start, or start again, with its own environment or for once with `env`; returns at once."""
        assert not self.running, f"{self.name} runs already"
        self._child = ChildProcess(self._command, env=env or self._env, on_line=self._write, keep=2_000)

    def _write(self, line: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None:
            self._child.kill()

    def stop(self, within: float = 5.0) -> int:
        """SIGTERM; raises AssertionError when it takes longer than `within` seconds. Gives back the exit code."""
        begun = time.monotonic()
        code = self.child.stop(within + 5)
        assert time.monotonic() - begun < within, f"{self.name} took more than {within} s to stop"
        return code


class Workshop:
    """The simulated workshop as a process of its own; `truth` is the folder of its logs."""

    def __init__(self, folder: Path, devices: Iterable[str] = SIMULATED, *, speed: float = 10.0, seed: int = 1) -> None:
        self.devices = [device for device in SIMULATED if device in set(devices)]
        self.truth = folder / "truth"
        self.base_port = free_base_port([device_types()[device].port for device in self.devices])
        command = [
            sys.executable, "-m", "simulators", "--devices", ",".join(self.devices), "--speed", str(speed),
            "--seed", str(seed), "--base-port", str(self.base_port), "--truth", str(self.truth), "--end-with-stdin",
        ]  # fmt: skip
        self.process = Process("workshop", command, folder / "workshop.log", os.environ)

    def start(self, timeout: float = 30.0) -> None:
        """Returns when all devices serve."""
        self.process.start()
        child = self.process.child
        child.wait_until(lambda: any('"ready": "all"' in line for line in child.lines), timeout, "all devices")

    def fault(self, device: str, kind: str, **arguments: object) -> None:
        """Let a device misbehave; returns when it does."""
        words = [f"{name}={value}" for name, value in arguments.items()]
        self._say(" ".join(["fault", device, kind, *words]))

    def clear(self, device: str) -> None:
        """End all faults of a device; returns when it has."""
        self._say(f"clear {device}")

    def _say(self, line: str) -> None:
        child = self.process.child
        before = len(child.lines)
        child.write_line(line)
        answer = eventually(
            lambda: [told for told in child.lines[before:] if '"done"' in told or '"error"' in told], 10, what=line
        )
        assert '"done"' in answer[0], f"{line}: {answer[0]}"

    def port(self, device: str) -> int:
        """Where a device listens."""
        return self.base_port + device_types()[device].port

    def links(self, *, longest: float = 1.0) -> list[dict[str, Any]]:
        """The `links` of a configuration that reads all devices by the shipped profiles; what they read more seldom than every
        `longest` seconds (settings, once a minute) is read that often."""
        return [self._link(device, longest) for device in self.devices]

    def _link(self, device: str, longest: float) -> dict[str, Any]:
        protocol = device_types()[device].protocol
        name = PROFILES[device]
        groups = {
            group: {"period": longest}
            for group, told in profile(name)["groups"].items()
            if parse_duration(told["period"]) > longest
        }
        devices: list[dict[str, Any]] = [{"id": device, "profile": name, "groups": groups}]
        if device == "sew-line":
            devices = [
                {"id": f"sew-{unit:02}", "profile": name, "groups": groups, "settings": {"unit": unit}}
                for unit in range(1, STATIONS + 1)
            ]
        settings: dict[str, Any] = {"host": HOST, "port": self.port(device)}
        if protocol == "opcua":
            settings = {"endpoint": f"opc.tcp://{HOST}:{self.port(device)}", "security": "none"}
        elif protocol == "modbus-rtu-over-tcp":
            settings["transport"] = "rtu-over-tcp"
        adapter = "opcua" if protocol == "opcua" else "modbus"
        return {"id": device, "adapter": adapter, "settings": settings, "devices": devices}

    @property
    def subjects(self) -> list[Subject]:
        """What the truth test compares: every device but the dead station."""
        found = []
        for device in self.devices:
            if device != "sew-line":
                found.append(Subject(device, PROFILES[device], device))
                continue
            stations = [(f"sew-{unit:02}", unit) for unit in range(1, STATIONS + 1)]
            found += [Subject(name, PROFILES[device], device, unit) for name, unit in stations if name != DEAD_STATION]
        return found


class Installation:
    """Configuration, broker and roles in `folder`. Leaving it stops everything; `logs` shows what was said."""

    def __init__(
        self,
        folder: Path,
        links: Sequence[Mapping[str, Any]],
        *,
        bus: Mapping[str, Any] | None = None,
        store_url: str | None = None,
    ) -> None:
        """`bus` are the settings of a broker that the test has started; by default the gateway's embedded one is ours."""
        self.folder = folder
        self.api_port, bus_port = free_port(), free_port()
        self.config = folder / "guantong.yaml"
        self._store = StoreSettings(url=store_url)
        document = {
            "gateway": {"id": "gw", "name": "Test"},
            "data_dir": "data",
            "bus": dict(bus or {"port": bus_port}),
            "api": {"port": self.api_port},
            "metrics": {"collect_port": free_port(), "ingest_port": free_port()},
            **({"store": {"url": store_url}} if store_url is not None else {}),
            "links": list(links),
        }
        self.config.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
        self.data = folder / "data"
        self.data.mkdir()
        env = {**os.environ, PARENT_PIPE: "1", "PYTHONUNBUFFERED": "1"}
        self.processes: dict[str, Process] = {}
        if bus is None:
            file = broker.write_config(self.data / "broker.toml", bus_port)
            self.processes["broker"] = Process("broker", broker.command(file), folder / "broker.log", env)
        for role in ROLES:
            command = [sys.executable, "-m", "gateway.roles", role, "--config", str(self.config)]
            self.processes[role] = Process(role, command, folder / f"{role}.log", env)
        self._bus_port = bus_port
        self._reader: Reader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
        for process in reversed(self.processes.values()):
            process.kill()

    # ----------------------------------------------------------------------------------------------------- processes

    def start(self, *names: str) -> None:
        """Start these processes (all by default); the broker first, and until it listens."""
        for name in names or self.processes:
            self.processes[name].start()
            if name == "broker":
                eventually(lambda: accepts(self._bus_port), 15, what="broker listens")

    def kill(self, name: str) -> None:
        """SIGKILL to one process."""
        self.processes[name].kill()

    def stop(self) -> None:
        """An orderly end of all, collect first; each within five seconds."""
        for name in ("collect", "ingest", "serve"):
            assert self.processes[name].stop() == 0, f"{name} ended badly"
        if "broker" in self.processes:
            self.processes["broker"].kill()

    def logs(self, last: int = 40) -> dict[str, str]:
        """The last lines that each process wrote."""
        found = {}
        for name in self.processes:
            path = self.folder / f"{name}.log"
            if path.exists():
                found[name] = "\n".join(path.read_text(encoding="utf-8").splitlines()[-last:])
        return found

    # --------------------------------------------------------------------------------------------------------- store

    @property
    def reader(self) -> Reader:
        """Reads the store."""
        if self._reader is None:
            self._reader = open_reader(self._store, self.data)
        return self._reader

    def complete_to(self) -> dict[tuple[str, str], int]:
        """(device, group) -> up to when everything is stored (µs); empty while there is no store."""
        try:
            return {(done.device, done.group): done.complete_to for done in self.reader.snapshot().progress}
        except StoreWeatherError:
            return {}

    def settle(self, subjects: Iterable[Subject], until: int, timeout: float = 30.0) -> None:
        """Wait until everything of these devices up to `until` (µs) is stored, in every group that they have."""
        wanted = {(subject.device, group) for subject in subjects for group in groups_of(subject)}

        def behind() -> list[tuple[str, str]]:
            complete = self.complete_to()
            return sorted(key for key in wanted if complete.get(key, -1) < until)

        def settled() -> bool:
            late = behind()
            assert not late, f"behind: {late}"
            return True

        eventually(settled, timeout, what="everything is stored", interval=0.2)

    # ---------------------------------------------------------------------------------------------------------- REST

    def get(self, path: str) -> Any:
        """The JSON that the REST API answers to GET /api/v1`path`. Raises urllib.error.HTTPError with its text."""
        request = urllib.request.Request(f"http://{HOST}:{self.api_port}/api/v1{path}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            raise AssertionError(f"GET {path}: {error.code} {text}") from error

    def serving(self, timeout: float = 20.0) -> None:
        """Wait until the REST API answers."""

        def answers() -> bool:
            with contextlib.suppress(OSError):
                self.get("/devices")
                return True
            return False

        eventually(answers, timeout, what="the REST API answers", interval=0.1)


def free_base_port(offsets: Sequence[int]) -> int:
    """A base port from which all these ports are free; below the range from which outgoing connections take theirs."""
    for _ in range(100):
        base = free_port() - offsets[0]
        if all(_is_free(base + offset) for offset in offsets):
            return base
    raise RuntimeError("no free ports for the workshop")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
