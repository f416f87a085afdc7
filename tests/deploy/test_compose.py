"""docker-compose.yml: valid by the Compose Specification, and everything that it names is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deploy.files import DEPLOY, ROOT, SECRETS, compose, interpolated

ROLES = ("collect", "ingest", "serve")
SPECIFICATION = Path(__file__).with_name("compose-spec.json")
"""schema/compose-spec.json of the Compose Specification (github.com/compose-spec/compose-spec, Apache-2.0), as it is there."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return compose()


def test_valid_by_the_compose_specification(project: dict[str, Any]) -> None:
    schema = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(project)] == []
    project["services"]["collect"]["comand"] = ["run"]
    try:
        assert len(list(validator.iter_errors(project))) == 1, "the schema sees a misspelt key"
    finally:
        del project["services"]["collect"]["comand"]


def test_every_file_that_is_named_exists(project: dict[str, Any]) -> None:
    named: list[Path] = []
    for service in project["services"].values():
        named += [ROOT / volume["source"] for volume in service.get("volumes", []) if volume["type"] == "bind"]
        if "build" in service:
            named.append(ROOT / service["build"]["context"] / service["build"]["dockerfile"])
    assert named
    assert [path for path in named if not path.exists()] == []


def test_every_volume_network_and_secret_is_declared(project: dict[str, Any]) -> None:
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for service in project["services"].values():
        used["volumes"] |= {v["source"] for v in service.get("volumes", []) if v["type"] == "volume"}
        used["networks"] |= set(service["networks"])
        used["secrets"] |= {s if isinstance(s, str) else s["source"] for s in service.get("secrets", [])}
    for what, names in used.items():
        assert names == set(project[what]), what


def test_no_secret_in_clear(project: dict[str, Any]) -> None:
    assert set(project["secrets"]) == set(SECRETS)
    assert all(set(secret) == {"file"} for secret in project["secrets"].values())
    for name, service in project["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", key):
                assert key.endswith("_FILE"), f"{name}: {key}"
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{name}: {key} holds a password"
    example = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    assert not re.search(r"^\w*(PASSWORD|TOKEN|KEY)\w*=", example, re.MULTILINE)


def test_only_loopback_is_published(project: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in project["services"].items() if "ports" in service}
    assert set(published) == {"serve", "mosquitto"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_every_service_is_confined(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if service.get("profiles") == ["tools"] else "unless-stopped"), name
        assert service["mem_limit"], name
        assert "privileged" not in service, name
        assert "healthcheck" in service, name


def test_each_role_is_one_service_with_secrets_of_its_own(project: dict[str, Any]) -> None:
    for role in ROLES:
        service = project["services"][role]
        assert service["command"] == ["run", "--role", role]
        assert service["environment"]["GUANTONG_BUS_USERNAME"] == role
        assert {"source": f"mqtt_{role}", "target": "bus_password"} in service["secrets"]
        assert service["healthcheck"]["test"] == ["CMD", "guantong-health", role]
    stores = {role: project["services"][role]["environment"].get("GUANTONG_STORE_URL", "") for role in ROLES}
    assert stores["collect"] == ""
    assert "guantong_ingest@" in stores["ingest"]
    assert "guantong_serve@" in stores["serve"]
    assert project["services"]["simulators"]["profiles"] == ["demo"]


def test_the_commands_are_commands(project: dict[str, Any]) -> None:
    for name, option in (("collect", "--role"), ("ingest", "--role"), ("serve", "--role"), ("tools", "--json")):
        command = project["services"][name]["command"]
        told = subprocess.run(
            [sys.executable, "-c", "from gateway.cli import main; main()", *command, "--help"],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        assert option in told.stdout
    simulators = project["services"]["simulators"]["command"]
    told = subprocess.run(
        [sys.executable, "-m", "simulators", *simulators, "--list"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "imm-01" in told.stdout


def test_a_variable_without_a_default_is_noticed() -> None:
    assert interpolated("a ${B:-c} d") == "a c d"
    with pytest.raises(AssertionError):
        interpolated("${B}")


def test_the_example_names_every_variable_with_its_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    told = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert told == used
