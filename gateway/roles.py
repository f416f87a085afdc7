"""One role in this process: `python -m gateway.roles ROLE [--config FILE]`. What `guantong run --role ROLE` and the parent start.

Ends on SIGTERM or SIGINT, and, as a child of the parent, when its standard input closes. Exit code 2: it cannot work as configured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gateway import platform
from gateway.bus.client import Bus, BusOptions, Tls, Will
from gateway.bus.topics import Topics
from gateway.config.load import load_config
from gateway.config.secrets import resolve_secret
from gateway.logs import configure
from gateway.parent import PARENT_PIPE
from schemas.bilingual import Bilingual
from schemas.documents import DocumentError

if TYPE_CHECKING:
    from gateway.config.models import Config

log = logging.getLogger("guantong.role")

ROLES = ("collect", "ingest", "serve")
BAD_CONFIG = 2


class Role(Protocol):
    """What runs for ever; cancelled to end it."""

    async def run(self) -> None: ...


class CannotStartError(Exception):
    """The role cannot work as configured; the message says what is wrong and how to mend it."""


def bus_of(config: Config, role: str, will: Will | None = None) -> Bus:
    """The role's connection to the broker. The embedded one speaks MQTT 3.1.1 on loopback."""
    settings = config.bus
    if settings.embedded:
        return Bus(BusOptions("127.0.0.1", settings.port, "3.1.1", will=will))
    tls = settings.tls
    password = resolve_secret(settings.password) if settings.password is not None else None
    key_password = resolve_secret(tls.key_password) if tls is not None and tls.key_password is not None else None
    assert settings.host is not None
    return Bus(
        BusOptions(
            settings.host, settings.port, settings.protocol, settings.username, password,
            Tls(tls.ca, tls.cert, tls.key, key_password) if tls is not None else None,
            client_id=f"guantong-{config.gateway.id}-{role}-{os.getpid()}", will=will,
        )
    )  # fmt: skip


def make(role: str, config: Config) -> Role:
    """The role, ready to run. Raises CannotStartError or DocumentError."""
    if role == "collect":
        from gateway.collect.role import make_collect

        return make_collect(config)
    if role == "ingest":
        return _ingest(config)
    from gateway.api.role import make_serve

    return make_serve(config)


def _ingest(config: Config) -> Role:
    from gateway.ingest.metrics import Measured
    from gateway.ingest.role import Ingest
    from gateway.store import open_writer

    data_dir = data_dir_of(config)
    return Measured(
        Ingest(
            bus_of(config, "ingest"),
            Topics(config.bus.root),
            lambda: open_writer(config.store, data_dir, config.gateway.timezone),
            holder=f"{socket.gethostname()}:{data_dir}",
        ),
        config.metrics,
    )


def data_dir_of(config: Config) -> Path:
    """The data directory, made if it is not there. Raises CannotStartError when that cannot be."""
    path = config.data_dir
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotStartError(
            Bilingual(
                f"data_dir {path} cannot be written: {error.strerror or error}. Give this user the right to, or set data_dir",
                f"data_dir {path} 无法写入：{error.strerror or error}。请授予该用户写入权限，或另设 data_dir",
            )
        ) from error
    return path


def _when_input_closes(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    def wait() -> None:
        # the descriptor itself: a daemon thread inside sys.stdin would hold its lock when Python ends
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=wait, daemon=True).start()


async def run_role(role: str, config: Config) -> int:
    """Runs a role until a signal; returns the exit code."""
    loop = asyncio.get_running_loop()
    try:
        made = make(role, config)
    except CannotStartError as error:
        log.error("%s cannot start: %s", role, error)
        return BAD_CONFIG
    task = asyncio.create_task(made.run())

    def stop() -> None:
        task.cancel()

    platform.on_stop_signals(loop, stop)
    if os.environ.get(PARENT_PIPE):
        _when_input_closes(loop, stop)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except CannotStartError as error:
        log.error("%s cannot work: %s", role, error)
        return BAD_CONFIG
    return 0


def start(role: str, config_file: Path | None) -> int:
    """Loads the configuration and runs the role; the exit code of the process."""
    configure(role)
    try:
        config = load_config(config_file)
    except DocumentError as error:
        for problem in error.problems:
            log.error("%s", problem)
        return BAD_CONFIG
    configure(role, config.log_level)
    return platform.run(run_role(role, config))


def main() -> None:
    """The command line of a child of the parent."""
    parser = argparse.ArgumentParser(prog="python -m gateway.roles", description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    sys.exit(start(arguments.role, arguments.config))


if __name__ == "__main__":
    # run as a program this module is `__main__`; the exceptions that the roles raise are those of `gateway.roles`
    from gateway.roles import main as main_of_roles

    main_of_roles()
