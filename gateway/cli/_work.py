"""What the parent is given: the processes of `guantong run` and of the demonstration."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import msgspec

from gateway.bus import broker
from gateway.config.models import Config
from gateway.parent import Child, Work


def role_child(role: str, config_file: Path | None) -> Child:
    """A role in a process of its own."""
    config = [] if config_file is None else ["--config", str(config_file)]
    return Child(role, [sys.executable, "-m", "gateway.roles", role, *config])


def gateway_children(config: Config, config_file: Path | None) -> list[Child]:
    """The embedded broker, where there is none of the site's own, and the three roles."""
    children = []
    if config.bus.embedded:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        file = broker.write_config(config.data_dir / "broker.toml", config.bus.port, config.bus.root)
        children.append(Child("broker", broker.command(file), give_up=None))
    return children + [role_child(role, config_file) for role in ("ingest", "serve", "collect")]


def taken_port(host: str, port: int) -> bool:
    """True when this machine cannot listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def hand_over(work: Work, module: str, *arguments: str) -> int:
    """Becomes the light parent process (on Windows: waits for it); returns its exit code where it returns at all."""
    command = [sys.executable, "-m", module, msgspec.json.encode(work).decode(), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execv(sys.executable, command)
    import subprocess

    return subprocess.call(command)
