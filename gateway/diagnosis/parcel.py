"""`guantong support`: one file with what somebody needs who helps from afar, and nothing that is secret.

What goes in is chosen, never what is left out: the outbox, the store, keys, certificates and environment stay where they are. The configuration is
written with every secret's value, user name and password in URLs replaced; texts (logs, states) are searched for the secrets' values.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from adapters.frames import Frame
from gateway.diagnosis.captured import as_text
from gateway.diagnosis.doctor import examine, hardware_clock
from gateway.diagnosis.faults import FOLDER
from gateway.diagnosis.frame_server import FrameClient, NoFramesError, Question

if TYPE_CHECKING:
    from gateway.config.models import Config

HIDDEN: Final = "***"
_SECRET_KEYS: Final = re.compile(
    r"pass(word|wd|phrase)?$|secret|token|api_?key|credential|^user(name)?$|^key$|private", re.IGNORECASE
)
_IN_URL: Final = re.compile(r"(?<=://)[^/@\s\"']+@")
_ASSIGNED: Final = re.compile(
    r"(?i)(pass(?:word|wd|phrase)?|secret|token|api_?key|authorization)(\"?[ \t]*[=:][ \t]*\"?(?:Bearer |Basic )?)([^\s\",;&]+)"
)
_KEY_BLOCK: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
_SHORTEST: Final = 4
"""Characters of a secret that is searched for in texts: a shorter one would blot out half of them."""
_LOG_BYTES: Final = 20 * 1024**2


class Scrubber:
    """Takes secrets out of texts. `values` are those that are known."""

    def __init__(self, values: Iterable[str]) -> None:
        self._values = sorted({v for v in values if len(v) >= _SHORTEST}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without known values, private keys, URLs' users, and what stands behind `password=`."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        text = _KEY_BLOCK.sub(HIDDEN, text)
        text = _IN_URL.sub(f"{HIDDEN}@", text)
        return _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)

    def tree(self, value: Any) -> Any:
        """A configuration's content: what stands at keys that name secrets is hidden, whatever its form; the rest is scrubbed text."""
        if isinstance(value, Mapping):
            return {
                key: HIDDEN
                if _SECRET_KEYS.search(str(key)) and not _reference(item) and item is not None
                else self.tree(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return self.text(value) if isinstance(value, str) else value


def _reference(value: Any) -> bool:
    """`{env: NAME}` and `{file: PATH}` say where a secret is, and not what."""
    return isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"env", "file"}


def known_secrets(config: Config, environ: Mapping[str, str]) -> list[str]:
    """The values of the secrets that the configuration refers to, and of environment variables that are named like one."""
    found = [value for name, value in environ.items() if _SECRET_KEYS.search(name)]
    for reference in _references(config.document.data):
        if "env" in reference:
            found.append(environ.get(str(reference["env"]), ""))
        else:
            path = config.base / str(reference["file"])
            try:
                found.append(path.read_text(encoding="utf-8").partition("\n")[0].strip())
            except (OSError, UnicodeDecodeError):
                continue
    return found


def _references(value: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if _reference(value):
            yield value
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


def pack(
    config: Config,
    out: Path,
    *,
    environ: Mapping[str, str],
    ledger: Callable[[], str],
    logs: Iterable[Path] = (),
) -> list[str]:
    """Writes the zip file `out` (mode 0600) and returns the names in it. `ledger` gives the ledger's state as text; `logs` are further files.

    Whatever cannot be had is a file that says why. Raises OSError when `out` cannot be written.
    """
    scrub = Scrubber(known_secrets(config, environ))
    parts: dict[str, Callable[[], str]] = {
        "configuration.yaml": lambda: yaml.safe_dump(
            scrub.tree(config.document.data), allow_unicode=True, sort_keys=False
        ),
        "doctor.json": lambda: json.dumps([asdict(f) for f in examine(config)], ensure_ascii=False, indent=2),
        "timedatectl.txt": hardware_clock,
        "ledger.json": ledger,
        "logs/journal.txt": _journal,
        "health.json": lambda: _fetched(config.api.host, config.api.port, "/health"),
        "health-collect.json": lambda: _fetched(config.metrics.host, config.metrics.collect_port, "/health"),
        "health-ingest.json": lambda: _fetched(config.metrics.host, config.metrics.ingest_port, "/health"),
        "metrics/serve.txt": lambda: _fetched(config.api.host, config.api.port, "/metrics"),
        "metrics/collect.txt": lambda: _fetched(config.metrics.host, config.metrics.collect_port, "/metrics"),
        "metrics/ingest.txt": lambda: _fetched(config.metrics.host, config.metrics.ingest_port, "/metrics"),
    }
    for link in config.links:
        device = link.devices[0].id
        parts[f"frames/{link.id}.txt"] = lambda device=device: _frames(config.data_dir, device)  # type: ignore[misc]
    for path in sorted((config.data_dir / FOLDER).glob("*.txt")):
        parts[f"faults/{path.name}"] = lambda path=path: path.read_text(encoding="utf-8", errors="replace")  # type: ignore[misc]
    for path in {*config.data_dir.glob("*.log*"), *(config.data_dir / "logs").glob("*"), *logs}:
        if path.is_file() and path.suffix != ".gz":
            parts[f"logs/{path.name}"] = lambda path=path: _tail(path)  # type: ignore[misc]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as parcel:
        for name, make in parts.items():
            try:
                text = make()
            except Exception as error:  # noqa: BLE001  a gateway that is broken is what the parcel is for
                text = f"not available: {type(error).__name__}: {error}\n"
            parcel.writestr(zipfile.ZipInfo(name, time.gmtime()[:6]), scrub.text(text), zipfile.ZIP_DEFLATED)
    out.touch(mode=0o600)
    out.write_bytes(content.getvalue())
    return list(parts)


def _fetched(host: str, port: int, path: str) -> str:
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=3) as answer:
        text: str = answer.read().decode("utf-8", "replace")
    return text


def _frames(data_dir: Path, device: str) -> str:
    try:
        client = FrameClient(data_dir)
    except NoFramesError as error:
        return f"not available: {error}\n"
    try:
        told = client.ask(Question(device)).frames
        frames = [Frame(t.number, t.at, t.direction, t.data, t.size, t.meaning) for t in told]
        return "".join(f"{as_text(frame)}\n" for frame in frames)
    finally:
        client.close()


def _journal() -> str:
    """The log of the services (systemd); empty where there is no journal."""
    program = shutil.which("journalctl")
    if program is None:
        return ""
    command = [program, "--no-pager", "-q", "-n", "20000", "-u", "guantong*"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False).stdout


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _LOG_BYTES, 0))
        return file.read().decode("utf-8", "replace")
