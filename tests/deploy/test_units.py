"""The systemd units and the images' files."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, ROOT
from tests.servers.needs import require
from tests.servers.processes import HOST, free_port

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMMANDS = {"guantong": "run", **{f"guantong-{role}": f"run --role {role}" for role in ("collect", "ingest", "serve")}}


def directives(unit: Path) -> dict[str, list[str]]:
    """Key -> values, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_one_unit_for_each_role_and_one_for_all() -> None:
    started = {unit.stem: directives(unit)["ExecStart"] for unit in UNITS}
    assert started == {name: [f"/opt/guantong/bin/guantong {command}"] for name, command in COMMANDS.items()}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_confined(unit: Path) -> None:
    found = directives(unit)
    assert found["User"] == ["guantong"]
    for key in (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "RestrictNamespaces",
        "LockPersonality",
    ):
        assert found[key] == ["true"], key
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["RestartPreventExitStatus"] == ["2"]
    assert ("guantong.service" in found["Conflicts"][0]) == (unit.stem != "guantong")


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    program = str(require("systemd-analyze"))
    for unit in UNITS:
        # the one thing that this machine cannot have is the installed program
        text = unit.read_text(encoding="utf-8").replace("/opt/guantong/bin/guantong", "/bin/true")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    told = subprocess.run(
        [program, "verify", "--man=no", *sorted(tmp_path.glob("*.service"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in told.stderr.splitlines() if "guantong" in line]
    assert (told.returncode, ours) == (0, []), told.stderr


@pytest.mark.parametrize("name", ["gateway", "simulators"])
def test_an_image_is_built_from_what_is_there_and_runs_as_nobody_special(name: str) -> None:
    file = DEPLOY / f"{name}.Containerfile"
    text = re.sub(r"\\\n\s*", "", file.read_text(encoding="utf-8"))
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
               for word in line.split()[:-1] if not word.startswith("--")]  # fmt: skip
    assert {"requirements.txt", "pyproject.toml", "gateway", "schemas"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    ignored = file.with_name(file.name + ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*", "nothing but what is named"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(sources)
    assert "--require-hashes" in text
    users = re.findall(r"^USER (.*)$", text, re.MULTILINE)
    assert users, "not root"
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", users[-1])
    assert "HEALTHCHECK" in text
    assert "pip install" not in text.split("FROM ", 2)[2], "nothing is installed in the last stage"


@pytest.mark.parametrize("package", ["schemas", "adapters", "gateway", "simulators"])
def test_the_images_hold_every_package(package: str) -> None:
    assert f"COPY {package} ./{package}" in (DEPLOY / "gateway.Containerfile").read_text(encoding="utf-8")


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 503)
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer((HOST, 0), _Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def health(*arguments: str, **environment: str) -> tuple[int, str]:
    told = subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py", *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert told.stderr == ""
    return told.returncode, told.stdout


def test_the_health_check_tells_life_from_death(web: int) -> None:
    assert health("serve", GUANTONG_API_PORT=str(web)) == (0, "")
    assert health(GUANTONG_API_PORT=str(web)) == (0, "")
    assert health(f"tcp://{HOST}:{web}") == (0, "")
    assert health(
        "collect", "ingest", GUANTONG_METRICS_COLLECT_PORT=str(web), GUANTONG_METRICS_INGEST_PORT=str(web)
    ) == (0, "")
    code, told = health(f"http://{HOST}:{web}/elsewhere")
    assert (code, "503" in told) == (1, True)
    code, told = health(f"http://{HOST}:{web}/health/live", f"tcp://{HOST}:{free_port()}")
    assert (code, "refused" in told) == (1, True)
    code, told = health("nonsense")
    assert (code, "write collect, ingest, serve" in told) == (1, True)
