"""MQTT brokers on loopback: Debian's Mosquitto, and the one of the iotcore wheel in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.certificates import Certificate, CertificateAuthority
from tests.servers.needs import require
from tests.servers.processes import HOST, ChildProcess, accepts, free_port


class BrokerProcess(ABC):
    """A broker that a test may stop, kill and start again on the same ports.

    `port` takes MQTT 3.1.1 clients, `v5_port` MQTT 5 clients (one and the same on a broker that speaks both on one).
    """

    host = HOST
    port: int
    v5_port: int

    def __init__(self) -> None:
        self._child: ChildProcess | None = None
        self.env: dict[str, str] | None = None
        """The environment of the next start; ours where it is None."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        assert self._child is not None, "the broker is not running"
        return self._child.pid

    def start(self) -> None:
        """Start, or start again, and return when all ports accept connections. Does nothing while it runs."""
        if self.running:
            return
        self._child = ChildProcess(self._command(), env=self.env)
        self._child.wait_until(lambda: all(accepts(port) for port in {self.port, self.v5_port}), what="listening")

    def stop(self) -> None:
        """An orderly end (SIGTERM); clients see their connection closed."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def kill(self) -> None:
        """A crash (SIGKILL)."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def output(self) -> str:
        """What the broker printed since its last start."""
        return "" if self._child is None else self._child.output()


class Mosquitto(BrokerProcess):
    """Mosquitto with a configuration of its own in `folder`.

    `users` maps names to passwords, written by mosquitto_passwd, and ends anonymous access; `acl` is the text of an ACL
    file; `authority` turns TLS on, with a server certificate issued by it, and `require_client_certificate` asks for the
    client's. `settings` are further lines of mosquitto.conf such as {"max_packet_size": 1000}. With `persistent` sessions
    and retained messages survive `stop`, and a `kill` as far as Mosquitto's autosave (on every change here) goes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        authority: CertificateAuthority | None = None,
        require_client_certificate: bool = False,
        settings: Mapping[str, str | int | bool] | None = None,
        persistent: bool = False,
    ) -> None:
        super().__init__()
        self._program = require("mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = self.v5_port = free_port()
        self.authority = authority
        self.certificate: Certificate | None = None
        lines = [f"listener {self.port} {HOST}", "log_dest stdout", "log_type all"]
        if os.geteuid() == 0:
            lines.append("user root")  # else it gives up root for a user who cannot read the test's folder
        if users is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {self._password_file(folder, users)}"]
        if acl:
            acl_file = folder / "acl"
            acl_file.write_text(acl, encoding="utf-8")
            acl_file.chmod(0o700)
            lines.append(f"acl_file {acl_file}")
        if authority is not None:
            self.certificate = authority.issue("mosquitto")
            lines += [
                f"cafile {authority.certificate}",
                f"certfile {self.certificate.certificate}",
                f"keyfile {self.certificate.key}",
                f"require_certificate {_text(require_client_certificate)}",
            ]
        if persistent:
            location = folder / "persistence"
            location.mkdir()
            lines += ["persistence true", f"persistence_location {location}/"]
            lines += ["autosave_on_changes true", "autosave_interval 1"]
        lines += [f"{name} {_text(value)}" for name, value in (settings or {}).items()]
        self.configuration = folder / "mosquitto.conf"
        self.configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _password_file(self, folder: Path, users: Mapping[str, str]) -> Path:
        path = folder / "passwords"
        path.write_text("".join(f"{name}:{password}\n" for name, password in users.items()), encoding="utf-8")
        path.chmod(0o600)
        if users:
            # -U hashes a file of clear passwords in place
            subprocess.run([require("mosquitto_passwd"), "-U", path], check=True, capture_output=True)
        return path

    def _command(self) -> Sequence[str | Path]:
        return [self._program, "-c", self.configuration]


class IotcoreBroker(BrokerProcess):
    """The broker of the iotcore wheel (rumqttd), with one listener for MQTT 3.1.1 and one for MQTT 5.

    It keeps nothing on disk: a restarted one is an empty one.
    """

    def __init__(self, folder: Path, *, max_payload_size: int = 1_048_576) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.v5_port = free_port(), free_port()
        self.configuration = folder / "iotcore.toml"
        router = {
            "id": 0,
            "max_connections": 1000,
            "max_outgoing_packet_count": 200,
            "max_segment_size": 104_857_600,
            "max_segment_count": 10,
        }
        connection = {
            "connection_timeout_ms": 60_000,
            "max_payload_size": max_payload_size,
            "max_inflight_count": 500,
            "dynamic_filters": "true",
        }
        lines = ["id = 0", "[router]", *(f"{name} = {value}" for name, value in router.items())]
        for version, port in (("v4", self.port), ("v5", self.v5_port)):
            lines += [f"[{version}.1]", f'name = "{version}-1"', f'listen = "{HOST}:{port}"']
            lines += ["next_connection_delay_ms = 1", f"[{version}.1.connections]"]
            lines += [f"{name} = {value}" for name, value in connection.items()]
        self.configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "iotcore", "--config", self.configuration, "--log-level", "WARNING"]


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
