"""What happens on a machine without a network: run in a network namespace of its own, by `tests/deploy/test_bundle.py`.

`python offline.py JOB ARGUMENTS…` brings the loopback interface up, does the job and prints what it saw as one JSON object. The jobs
use the standard library only, and ports as a user finds them: in this namespace all of them are free.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADDRESS = "http://127.0.0.1:8000"


def loopback_up() -> None:
    """Sets IFF_UP on `lo` (netdevice(7)), which is down in a new namespace."""
    with socket.socket() as any_socket:
        asked = fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH22x", b"lo", 0))  # SIOCGIFFLAGS
        flags = struct.unpack("16sH22x", asked)[1]
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", flags | 1))  # SIOCSIFFLAGS


def reaches(address: str) -> str:
    """What a connection to an address outside says."""
    try:
        socket.create_connection((address, 443), 2).close()
    except OSError as error:
        return error.strerror or str(error)
    return "reached"


def script(archive: Path, *arguments: str) -> dict[str, Any]:
    """Runs install.sh; its exit code and all that it said."""
    begun = time.monotonic()
    told = subprocess.run(
        [archive / "install.sh", *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    took = round(time.monotonic() - begun, 1)
    return {"code": told.returncode, "said": told.stdout, "complained": told.stderr, "seconds": took}


def ask(path: str, language: str = "zh") -> Any:
    """The JSON or the text behind a path of the gateway."""
    request = urllib.request.Request(ADDRESS + path, headers={"Accept-Language": language})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read().decode()
        return json.loads(body) if answer.headers["content-type"].startswith("application/json") else body


def wait(what: str, until: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of `until`; it may raise what a server that is not there yet makes it raise."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = until()
        except (OSError, KeyError, ValueError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(0.2)
    raise SystemExit(f"{what}: not within {seconds:.0f} s; last seen: {last!r}")


def main_job(guantong: Path, work: Path) -> dict[str, Any]:
    """The demonstration with its simulators: until rows of the store come out through REST; then the documentation."""
    begun = time.monotonic()
    log = (work / "demo.log").open("wb")
    demo = subprocess.Popen([guantong, "demo", "--dir", work / "demo", "--plain"], stdout=log, stderr=log)
    try:
        signal_path = "/api/v1/signals/meter-01/voltage/l1/history?start=-1h"
        rows = wait(
            "rows of the store", lambda: len(ask(signal_path)["readings"]) >= 3 and ask(signal_path)["readings"]
        )
        good = wait(
            "live values", lambda: [v for v in ask("/api/v1/latest?match=imm-01/*")["items"] if v["quality"] == "good"]
        )
        index = ask("/docs")
        pages = sorted(set(re.findall(r'href="\.\./(zh/[^"#]+)"', index)))
        return {
            "rows": len(rows),
            "good": len(good),
            "documentation": "快速上手" in index,
            "pages": {path: len(ask(f"/docs/{path}")) for path in pages},
            "api": "swagger" in ask("/docs/api"),
            "page": "贯通" in ask("/"),
            "seconds": round(time.monotonic() - begun, 1),
        }
    finally:
        demo.send_signal(signal.SIGINT)
        try:
            demo.wait(20)
        except subprocess.TimeoutExpired:
            demo.kill()
            demo.wait()


def versions(prefix: Path) -> dict[str, str]:
    """Where the links of an installation lead."""
    return {name: os.readlink(prefix / name) for name in ("current", "previous") if (prefix / name).is_symlink()}


def user(archive: Path, work: Path) -> dict[str, Any]:
    """Installs for the one who calls, runs the main job, upgrades, goes back, uninstalls."""
    prefix = work / "home" / ".local" / "share" / "guantong"
    seen: dict[str, Any] = {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "outside": reaches("192.0.2.1"),
        "install": script(archive, "--user"),
        "first": versions(prefix),
    }
    seen["job"] = main_job(prefix / "bin" / "guantong", work)
    config = prefix / "guantong.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "# ours\n", encoding="utf-8")
    (prefix / "var" / "kept").write_text("data", encoding="utf-8")
    seen["upgrade"] = script(archive, "--user", "--lang", "en")
    seen["second"] = versions(prefix)
    seen["rollback"] = script(prefix, "--rollback")
    seen["third"] = versions(prefix)
    wheel = next((archive / "wheels").glob("markdown_it_py*"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    seen["damaged"] = script(archive, "--user")
    seen["after"] = versions(prefix)
    seen["uninstall"] = script(prefix, "--uninstall")
    seen["left"] = sorted(file.relative_to(prefix).as_posix() for file in prefix.rglob("*") if file.is_file())
    seen["configuration"] = config.read_text(encoding="utf-8").endswith("# ours\n")
    return seen


def system(archive: Path, work: Path) -> dict[str, Any]:
    """Installs for the whole machine, whose folders are the namespace's own, and uninstalls."""
    etc = work / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    for folder in ("/run", "/srv", "/var/lib", "/usr/lib/sysusers.d"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", folder], check=True)
    prefix = Path("/srv/guantong")
    seen: dict[str, Any] = {"install": script(archive, "--prefix", str(prefix))}
    units = sorted(Path("/etc/systemd/system").glob("guantong*.service"))
    seen["units"] = {unit.name: re.findall(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE) for unit in units}
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    seen["verify"] = [line for line in told.stderr.splitlines() if "guantong" in line]
    seen["home"] = pwd.getpwnam("guantong").pw_dir
    seen["modes"] = {
        str(path): f"{stat.S_IMODE(path.stat().st_mode):o} {path.owner()}:{path.group()}"
        for path in (Path("/etc/guantong"), Path("/etc/guantong/guantong.yaml"), Path("/var/lib/guantong"))
    }
    command = ["runuser", "-u", "guantong", "--", prefix / "bin" / "guantong", "version"]
    seen["version"] = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/").stdout
    seen["uninstall"] = script(prefix, "--uninstall")
    seen["gone"] = not prefix.exists() and not list(Path("/etc/systemd/system").glob("guantong*.service"))
    seen["kept"] = Path("/etc/guantong/guantong.yaml").is_file() and Path("/var/lib/guantong").is_dir()
    return seen


if __name__ == "__main__":
    loopback_up()
    job = {"user": user, "system": system}[sys.argv[1]]
    sys.stdout.write(json.dumps(job(Path(sys.argv[2]), Path(sys.argv[3]))) + "\n")
