"""What the tests need from the machine: present, or named with the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "chromium": "chromium",
    "gcc": "gcc",
    "libmodbus": "libmodbus-dev pkg-config",
    "ip": "iproute2",
    "mosquitto": "mosquitto",
    "mosquitto_passwd": "mosquitto",
    "mosquitto_pub": "mosquitto-clients",
    "mosquitto_sub": "mosquitto-clients",
    "node": "nodejs npm",
    "pkg-config": "pkg-config",
    "postgres": "postgresql",
    "runuser": "util-linux",
    "shellcheck": "shellcheck",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}
"""Debian 12's package of each program that a test may ask for."""


def in_ci() -> bool:
    """True where a missing need is a failure, that is with CI=true in the environment."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(what: str, remedy: str) -> None:
    """End the test for a need that is not there: a failure in CI, else a skip. `remedy` is the command that mends it."""
    message = f"{what} is not installed; install it with: {remedy}"
    if in_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def require(program: str) -> Path:
    """The path of `program`. Where it is missing the test fails with CI=true and is skipped otherwise, naming the apt
    command. Looks in PATH, in /usr/sbin and /usr/local/sbin, and for PostgreSQL's programs in Debian's own folder."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        missing(f"the program {program}", f"apt-get install {PACKAGES.get(program, program)}")
        raise AssertionError("not reached: missing() ends the test")
    return Path(found)


def cut_off(*, mounts: bool = False) -> list[str | Path]:
    """What a command begins with so that it runs in a network of its own, which has nothing but a loopback interface that is down; with `mounts`
    it sees mounts of its own, too. As another user than root the command becomes root in a user namespace."""
    unshare = require("unshare")
    ways = [["-n", "-m"]] if mounts else [["-n"], ["-r", "-n"]]
    for way in ways:
        if subprocess.run([unshare, *way, "true"], capture_output=True, check=False).returncode == 0:
            return [unshare, *way]
    missing(
        f"leave to cut the network off (unshare {' '.join(ways[-1])})",
        "running the tests as root, or sysctl kernel.unprivileged_userns_clone=1",
    )
    raise AssertionError("not reached: missing() ends the test")
