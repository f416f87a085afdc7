"""A PostgreSQL cluster of our own, from Debian's packages, in a temporary folder."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg

from tests.servers.needs import PACKAGES, missing
from tests.servers.processes import HOST, ChildProcess, free_port

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""PostgreSQL documentation, "Shutting Down the Server"."""


def _program(name: str) -> Path:
    """A server program; Debian keeps them per version and outside of PATH."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    versions = sorted(
        folders, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.parent.name)], reverse=True
    )
    for folder in versions:
        if (folder / name).is_file():
            return folder / name
    found = shutil.which(name)
    if found is None:
        missing(f"PostgreSQL's {name}", f"apt-get install {PACKAGES['postgres']}")
        raise AssertionError("not reached: missing() ends the test")
    return Path(found)


class Postgres:
    """One cluster, reachable over TCP on 127.0.0.1 and a Unix socket in `folder`; the superuser `guantong` needs no password.

    PostgreSQL refuses to run as root: then it runs as the system user `postgres`, or `nobody` where there is none.
    """

    user = "guantong"

    def __init__(
        self,
        settings: Mapping[str, str | int] | None = None,
        *,
        parent: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Make the cluster; `settings` are lines of postgresql.conf, its folder is made in `parent` (the system's temporary folder), and
        the server gets `env` in addition. Call `start` next, `close` at the end."""
        self._initdb, self._server = _program("initdb"), _program("postgres")
        self.host, self.port = HOST, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="guantong-pg-", dir=parent))
        self._env = {**os.environ, **(env or {})}
        self.data = self.folder / "data"
        self._numbers = itertools.count(1)
        self._child: ChildProcess | None = None
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            account = self._account()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as_user = [
                "setpriv",
                f"--reuid={account.pw_uid}",
                f"--regid={account.pw_gid}",
                "--clear-groups",
                "--",
            ]
        options = ["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        made = subprocess.run(
            [*self._as_user, str(self._initdb), "-D", str(self.data), "-U", self.user, *options],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        lines: dict[str, str | int] = {
            "listen_addresses": f"'{HOST}'",
            "port": self.port,
            "unix_socket_directories": f"'{self.folder}'",
            "max_connections": 50,
            "shared_buffers": "'64MB'",
            "timezone": "'UTC'",
            **(settings or {}),
        }
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as configuration:
            configuration.writelines(f"{name} = {value}\n" for name, value in lines.items())

    @staticmethod
    def _account() -> pwd.struct_passwd:
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise RuntimeError("neither the system user postgres nor nobody exists; PostgreSQL refuses to run as root")

    def url_of(self, database: str) -> str:
        """The libpq URL of a database."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, which always exists. Make your own with `new_database`."""
        return self.url_of("postgres")

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        assert self._child is not None, "PostgreSQL is not running"
        return self._child.pid

    def start(self, timeout: float = 30.0) -> None:
        """Start, or start again (with recovery after a kill), and return when it takes queries."""
        if self.running:
            return
        self._child = ChildProcess([*self._as_user, self._server, "-D", self.data], cwd=self.folder, env=self._env)
        self._child.wait_until(self._answers, timeout, "answering queries")

    def stop(self, mode: str = "fast") -> None:
        """Stop in PostgreSQL's mode `smart`, `fast` or `immediate` (the last one makes the next start recover)."""
        if self._child is not None:
            self._child.stop(by=_STOP_SIGNALS[mode], timeout=30)
            self._child = None

    def kill(self) -> None:
        """A crash: SIGKILL to the postmaster and to all of its children."""
        if self._child is None:
            return
        backends = psutil.Process(self.pid).children(recursive=True) if self.running else []
        self._child.send(signal.SIGKILL)
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself once the postmaster is gone
                backend.kill()
        psutil.wait_procs(backends, timeout=10)
        self._child.kill()
        self._child = None

    def new_database(self, template: str = "template1") -> str:
        """Create an empty database (or a copy of another one to which nobody is connected). Returns its URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')  # type: ignore[arg-type,unused-ignore]
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = url.rsplit("/", 1)[1]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')  # type: ignore[arg-type,unused-ignore]

    def close(self) -> None:
        """Stop and remove the cluster."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def output(self) -> str:
        """The server's log since its last start."""
        return "" if self._child is None else self._child.output()

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False
