"""`guantong demo`: prepares the directory, looks for free ports, and hands over to `gateway.demo`."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from importlib.resources import files
from pathlib import Path

import msgspec

from gateway.cli._output import chinese, fail, say
from gateway.cli._work import gateway_children, hand_over, taken_port
from gateway.cli.app import load
from gateway.demo import Settings
from gateway.parent import Child, Work

_SIMULATOR_OFFSETS = (1, 2, 3, 11, 12, 13, 14)
_LARGEST_LOG = 20 * 1024 * 1024


def start_demo(
    directory: Path, api_port: int, mqtt_port: int, speed: float, base_port: int, plain: bool, language: str | None
) -> int:
    """Starts everything; returns the exit code. Says which port is taken, and by which option it moves."""
    language = language or ("zh" if chinese() else "en")
    if language not in ("zh", "en"):
        fail(say(f"--language {language!r}：请写 zh 或 en", f"--language {language!r}: write zh or en"), 2)
    wanted = [(api_port, "--api-port"), (mqtt_port, "--mqtt-port")]
    wanted += [(base_port + offset, "--base-port") for offset in _SIMULATOR_OFFSETS]
    for port, option in wanted:
        if taken_port("127.0.0.1", port):
            fail(
                say(
                    f"端口 127.0.0.1:{port} 已被占用（另一个演示在运行？）；可用 {option} 换一个端口",
                    f"port 127.0.0.1:{port} is taken (does another demo run?); move it with {option}",
                )
            )
    directory = directory.absolute()
    config_file = directory / "guantong.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not config_file.exists():
            config_file.write_text(_config(base_port), encoding="utf-8")
        log = _log_file(directory)
    except OSError as error:
        fail(f"{directory}: {error.strerror}")
    ports = [port if not taken_port("127.0.0.1", port) else _free_port() for port in (9101, 9102)]
    environment = {
        "GUANTONG_API_HOST": "127.0.0.1",
        "GUANTONG_API_PORT": str(api_port),
        "GUANTONG_BUS_PORT": str(mqtt_port),
        "GUANTONG_METRICS_COLLECT_PORT": str(ports[0]),
        "GUANTONG_METRICS_INGEST_PORT": str(ports[1]),
    }
    os.environ.update(environment)
    config = load(config_file)
    simulators = [
        sys.executable, "-m", "simulators", "--speed", str(speed), "--base-port", str(base_port), "--end-with-stdin",
    ]  # fmt: skip
    work = Work([Child("simulators", simulators), *gateway_children(config, config_file)], str(log))
    settings = Settings(
        directory=_short(directory),
        log=_short(log),
        api=f"http://127.0.0.1:{api_port}",
        mqtt=f"127.0.0.1:{mqtt_port}",
        collect_metrics=ports[0],
        ingest_metrics=ports[1],
        language=language,
        plain=plain,
        command=_command(),
        devices=[device.id for link in config.links for device in link.devices],
    )
    return hand_over(work, "gateway.demo", msgspec.json.encode(settings).decode())


def _config(base_port: int) -> str:
    text = files("gateway").joinpath("demo.yaml").read_text(encoding="utf-8")
    for offset in _SIMULATOR_OFFSETS:
        text = text.replace(str(48400 + offset), str(base_port + offset))
    return text


def _command() -> str:
    """How this command is typed here: it need not be on the PATH."""
    own = Path(sys.argv[0]).absolute()
    found = shutil.which("guantong")
    return "guantong" if found is not None and Path(found).absolute() == own else _short(own)


def _short(path: Path) -> str:
    """The path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _log_file(directory: Path) -> Path:
    log = directory / "demo.log"
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(directory / "demo.log.1")
    return log


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
