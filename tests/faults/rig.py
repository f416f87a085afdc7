"""The installation that faults fall upon: the load, the three roles as processes of their own, broker and database, and a line that can break
between each two of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil
import yaml

from gateway.bus import broker as embedded
from gateway.config.models import StoreSettings
from gateway.ledger.steps import StoreWeatherError
from gateway.parent import PARENT_PIPE
from gateway.store import open_reader
from gateway.store.reader import Reader
from tests.chain.installation import Process
from tests.chain.served import groups_of
from tests.faults.clocks import Righted
from tests.faults.disks import Disk
from tests.faults.lines import Lines
from tests.faults.load import Load
from tests.faults.shim import Control, environment
from tests.servers.brokers import Mosquitto
from tests.servers.certificates import CertificateAuthority
from tests.servers.postgresql import Postgres
from tests.servers.processes import HOST, accepts, free_port
from tests.servers.waiting import eventually

Kind = Literal["embedded", "mosquitto", "postgresql"]
KINDS: tuple[Kind, ...] = ("mosquitto", "postgresql", "embedded")
"""mosquitto: Mosquitto and SQLite; postgresql: Mosquitto with TLS and PostgreSQL; embedded: the wheel's broker and SQLite."""
GATEWAY = "gw"
ROLES = ("ingest", "serve", "collect")
OUTBOX_DISK, STORE_DISK, BROKER_DISK, DATABASE_DISK = 96, 192, 24, 640
"""Megabytes."""
WRITERS = {"outbox": "collect", "store": "ingest"}
"""Who writes to a disk, where it is not named like it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the installation is made."""

    kind: Kind
    seed: int
    copies: int = 3
    speed: float = 10.0


class Rig:
    """See the module. Made and started by entering; leaving ends everything."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.settings = folder, settings
        self.load = Load(folder, seed=settings.seed, copies=settings.copies, speed=settings.speed)
        self.disks: dict[str, Disk] = {}
        self.broker: Mosquitto | Process
        self.database: Postgres | None = None
        self.authority: CertificateAuthority | None = None
        self.controls: dict[str, Control] = {}
        """What each process is told by the preloaded library, by its name."""
        self.roles: dict[str, Process] = {}
        self.expected_down: set[str] = set()
        """Roles, `broker` and `database` that a fault has ended and will start again."""
        self._reader: Reader | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # ------------------------------------------------------------------------------------------------------- making

    def _make(self) -> None:
        self._disk("outbox", OUTBOX_DISK)
        self._disk("store", STORE_DISK)
        self._stack.callback(self.load.process.kill)
        self.load.start()
        self._broker()
        self._database()
        targets = dict(self.load.ports)
        targets |= {f"{role}-broker": self.broker_port for role in ROLES}
        if self.database is not None:
            targets |= {f"{role}-database": self.database.port for role in ("ingest", "serve")}
        self._stack.callback(self.leave_store)
        self.lines = Lines(targets)
        self._stack.callback(self.lines.close)
        self._roles()

    def _preload(self, name: str, below: Path) -> dict[str, str]:
        control = self.controls[name] = Control(self.folder / f"{name}.control")
        self._stack.callback(control.close)
        return environment(control=control, below=below)

    def _disk(self, name: str, megabytes: int) -> Path:
        disk = self.disks[name] = Disk(self.folder / "disks" / name, megabytes)
        self._stack.callback(disk.close)
        return disk.folder

    def _broker(self) -> None:
        if self.settings.kind == "embedded":
            self.broker_port = free_port()
            file = embedded.write_config(self.folder / "broker.toml", self.broker_port)
            env = {**os.environ, PARENT_PIPE: "1"}
            self.broker = Process("broker", embedded.command(file), self.folder / "broker.log", env)
        else:
            if self.settings.kind == "postgresql":
                self.authority = CertificateAuthority(self.folder / "ca")
            folder = self._disk("broker", BROKER_DISK)
            self.broker = Mosquitto(folder / "mosquitto", persistent=True, authority=self.authority)
            self.broker.env = {**os.environ, **self._preload("broker", folder)}
            self.broker_port = self.broker.port
        self._stack.callback(self.broker.kill)
        self.start_broker()

    def _database(self) -> None:
        if self.settings.kind != "postgresql":
            return
        folder = self._disk("database", DATABASE_DISK)
        self.database = Postgres(
            {"fsync": "on", "synchronous_commit": "on", "max_connections": 30, "max_wal_size": "'128MB'", "min_wal_size": "'32MB'"},
            parent=folder, env=self._preload("database", folder),
        )  # fmt: skip
        self._stack.callback(self.database.close)
        self.database.start()
        self.database_url = self.database.new_database()

    def _roles(self) -> None:
        self.metrics = {"collect_port": free_port(), "ingest_port": free_port()}
        self.api_port = free_port()
        for role in ROLES:
            config = self.write_config(role)
            disk = self.disks["outbox" if role == "collect" else "store"].folder
            env = {**os.environ, PARENT_PIPE: "1", "PYTHONUNBUFFERED": "1", **self._preload(role, disk)}
            command = [sys.executable, "-m", "gateway.roles", role, "--config", str(config)]
            self.roles[role] = Process(role, command, self.folder / f"{role}.log", env)
            self._stack.callback(self.roles[role].kill)
        for role in ROLES:
            self.roles[role].start()

    @property
    def collect_data(self) -> Path:
        """Where the outbox lies."""
        return self.disks["outbox"].folder / "data"

    @property
    def store_data(self) -> Path:
        """Where an SQLite store lies."""
        return self.disks["store"].folder / "data"

    def write_config(self, role: str, name: str | None = None, **more: Any) -> Path:
        """The configuration of one role, which reaches broker and database by lines of its own; returns its path."""
        bus: dict[str, Any] = {"port": self.lines.ports[f"{role}-broker"]}
        if self.settings.kind == "embedded":
            bus = {"host": HOST, "protocol": "3.1.1", **bus}
        else:
            bus["host"] = HOST
        if self.authority is not None:
            bus["tls"] = {"ca": str(self.authority.certificate)}
        data = self.collect_data if role == "collect" else self.store_data
        document: dict[str, Any] = {
            "gateway": {"id": GATEWAY, "name": "Test"},
            "data_dir": str(data),
            "bus": bus,
            "api": {"port": self.api_port},
            "metrics": dict(self.metrics),
            "links": self.load.links(self.lines.ports),
            **more,
        }
        url = self._store_url(role)
        if url is not None:
            document["store"] = {"url": url}
        file = self.folder / f"{name or role}.yaml"
        file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return file

    def _store_url(self, role: str) -> str | None:
        if self.database is None:
            return None
        port = self.lines.ports.get(f"{role}-database", self.database.port)
        return self.database_url.replace(f":{self.database.port}/", f":{port}/")

    # ---------------------------------------------------------------------------------------------------- processes

    def start_broker(self) -> None:
        """Start it unless it runs; returns when it listens."""
        if not self.broker.running:
            self.broker.start()
            eventually(lambda: accepts(self.broker_port), 30, what="the broker listens")

    def ids(self, name: str) -> list[int]:
        """The process ids of a role, of `broker` or of `database` with all its backends; empty while it does not run."""
        if name == "database":
            if self.database is None or not self.database.running:
                return []
            parent = psutil.Process(self.database.pid)
            return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
        one = self.broker if name == "broker" else self.roles[name]
        if not one.running:
            return []
        return [one.child.pid if isinstance(one, Process) else one.pid]

    def running(self, name: str) -> bool:
        """Whether a role, `broker` or `database` runs."""
        return bool(self.ids(name))

    def kill(self, name: str) -> None:
        """SIGKILL. Does nothing when it does not run."""
        self.expected_down.add(name)
        if name == "database":
            assert self.database is not None
            self.database.kill()
        elif name == "broker":
            self.broker.kill()
        else:
            self.roles[name].kill()

    def start(self, name: str) -> None:
        """Start what does not run."""
        self.expected_down.discard(name)
        if self.running(name):
            return
        if name == "database":
            assert self.database is not None
            self.database.kill()  # what is left of one that ended by itself
            self.database.start(60)
        elif name == "broker":
            self.start_broker()
        else:
            self.roles[name].kill()
            self.roles[name].start()

    def send(self, ids: list[int], number: signal.Signals) -> None:
        """A signal to processes of ours that may be gone."""
        for pid in ids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def fill(self, disk: str) -> None:
        """Not a byte is left on this disk: a small one is filled, on another one writes fail."""
        if self.disks[disk].small:
            self.disks[disk].fill()
        else:
            self.controls[WRITERS.get(disk, disk)].full()

    def free(self, disk: str) -> None:
        """The disk is as it was."""
        if self.disks[disk].small:
            self.disks[disk].free()
        else:
            self.controls[WRITERS.get(disk, disk)].healthy()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all processes that faults fall upon."""
        return (*ROLES, "broker", *(["database"] if self.database is not None else []))

    def memory(self) -> dict[str, float]:
        """Proportional set size of each role and of the broker, in megabytes."""
        found = {}
        for name in (*ROLES, "broker"):
            for pid in self.ids(name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found[name] = psutil.Process(pid).memory_full_info().pss / 1e6
        return found

    # -------------------------------------------------------------------------------------------------------- store

    @property
    def reader(self) -> Reader:
        """Reads the store, past all lines."""
        if self._reader is None:
            url = None if self.database is None else self.database_url
            self._reader = open_reader(StoreSettings(url=url), self.store_data)
        return self._reader

    def leave_store(self) -> None:
        """Close what we have of it, so that its files can be changed."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def behind(self, until: int) -> list[str]:
        """The devices and groups of which not everything up to `until` (µs) is stored."""
        try:
            progress = Righted(self.reader).snapshot().progress
        except StoreWeatherError:
            return ["the store is away"]
        complete = {(done.device, done.group): done.complete_to for done in progress}
        return [
            f"{subject.device}/{group}"
            for subject in self.load.subjects
            for group in groups_of(subject)
            if complete.get((subject.device, group), -1) < until
        ]

    def settle(self, until: int, timeout: float) -> None:
        """Wait until everything up to `until` (µs) is stored."""

        def settled() -> bool:
            late = self.behind(until)
            assert not late, f"behind are {len(late)}, such as {late[:4]}"
            return True

        eventually(settled, timeout, what=f"everything up to {until} is stored", interval=0.1)

    def get(self, path: str) -> Any:
        """The JSON that the REST API answers to GET /api/v1`path`. Raises AssertionError when it does not answer so."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.api_port}/api/v1{path}", timeout=10) as answer:
                return json.load(answer)
        except OSError as error:
            raise AssertionError(f"GET {path}: {error}") from error

    def logs(self, last: int = 30) -> dict[str, str]:
        """The last lines of each log."""
        return {
            path.stem: "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-last:])
            for path in sorted(self.folder.glob("*.log"))
        }
