"""The checks of `guantong doctor` that need no configuration, and the order of all of them.

Each check returns findings and raises nothing that a machine may do to it: what cannot be looked at is a finding too.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from gateway import __version__
from gateway.diagnosis.findings import Finding
from gateway.diagnosis.kernel_clock import Synchronisation, synchronisation

if TYPE_CHECKING:
    from gateway.config.models import Config

_EARLIEST, _LATEST = 2025, 2100
_MEMORY: Final = 512 * 1024**2
_FREE_MEMORY: Final = 150 * 1024**2
_SERVICES: Final = ("chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntpd", "ntp")
_PROCESSES: Final = ("chronyd", "systemd-timesyncd", "systemd-timesyn", "ntpd", "ptp4l", "phc2sys")
_PACKAGES: Final = ("asyncua", "pymodbus", "paho-mqtt", "msgspec", "SQLAlchemy", "psycopg", "pydantic", "fastapi")


def examine(config: Config | None) -> list[Finding]:
    """All checks; those that need the configuration are left out without one."""
    checks: list[Callable[[], Iterable[Finding]]] = [clock, time_service, network, memory, versions]
    if config is not None:
        from gateway.diagnosis import site
        from gateway.diagnosis.certificates import certificates

        checks[2:2] = [
            lambda: site.last_times(config), lambda: site.disk(config), lambda: site.rights(config),
            lambda: site.serial_rights(config), lambda: site.ports(config), lambda: site.devices(config),
            lambda: certificates(config),
        ]  # fmt: skip
    return [finding for check in checks for finding in _safely(check)]


def _safely(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001  a look that fails must not hide what the others see
        name = getattr(check, "__name__", "check")
        text = f"{type(error).__name__}: {error}"
        return [Finding(name, "warn", f"无法检查：{text}", f"cannot be looked at: {text}")]


# ------------------------------------------------------------------------------------------------------------------ clock


def clock(
    probe: Callable[[], Synchronisation] = synchronisation, now: Callable[[], float] = time.time
) -> list[Finding]:
    """Year plausible; synchronised or not."""
    moment = datetime.fromtimestamp(now(), UTC)
    shown = moment.strftime("%Y-%m-%d %H:%M:%SZ")
    if not _EARLIEST <= moment.year < _LATEST:
        return [
            Finding(
                "clock", "fail", f"时钟显示 {shown}，年份不可信", f"the clock says {shown}: no plausible year",
                "请设置时间：sudo date -u -s '2026-01-31 08:30:00'，再执行 sudo hwclock -w；电池可能已耗尽。",
                "Set it: sudo date -u -s '2026-01-31 08:30:00', then sudo hwclock -w; its battery may be empty.",
            )
        ]  # fmt: skip
    state = probe()
    if state == "synced":
        return [Finding("clock", "ok", f"{shown}，已同步", f"{shown}, synchronised")]
    if state == "unknown":
        return [
            Finding(
                "clock", "warn", f"{shown}，无法判断是否同步", f"{shown}; whether it is synchronised cannot be told here",
                "请在宿主机上执行 timedatectl 或 chronyc tracking。", "Ask the host: timedatectl, or chronyc tracking.",
            )
        ]  # fmt: skip
    return [
        Finding(
            "clock", "warn", f"{shown}，未同步：网关打的时间戳会带 unsynced 标志",
            f"{shown}, not synchronised: readings stamped by the gateway are flagged unsynced",
            "安装 chrony（sudo apt install chrony），并指定厂内 NTP 服务器；见 docs/clock.md。",
            "Install chrony (sudo apt install chrony) and name an NTP server of the plant; see docs/clock.md.",
        )
    ]  # fmt: skip


def time_service() -> list[Finding]:
    """Who keeps the clock."""
    names = {process.info["name"] for process in psutil.process_iter(["name"])}
    running = [name for name in _PROCESSES if name in names]
    if running:
        return [Finding("time_service", "ok", f"{running[0]} 正在运行", f"{running[0]} runs")]
    installed = [name for name in _SERVICES if _unit_exists(name)]
    if installed:
        return [
            Finding(
                "time_service", "warn", f"{installed[0]} 已安装但未运行", f"{installed[0]} is installed and does not run",
                f"sudo systemctl enable --now {installed[0]}", f"sudo systemctl enable --now {installed[0]}",
            )
        ]  # fmt: skip
    return [
        Finding(
            "time_service", "warn", "没有时间同步服务（容器内属正常，由宿主机负责）",
            "no time synchronisation service runs (right in a container, where the host does it)",
            "sudo apt install chrony", "sudo apt install chrony",
        )
    ]  # fmt: skip


def _unit_exists(name: str) -> bool:
    folders = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
    return any((Path(folder) / f"{name}.service").exists() for folder in folders)


# ---------------------------------------------------------------------------------------------------------------- network


def network() -> list[Finding]:
    """Interfaces that are up, with their addresses."""
    stats, addresses = psutil.net_if_stats(), psutil.net_if_addrs()
    up = {
        name: [a.address for a in addresses.get(name, []) if a.family in (socket.AF_INET, socket.AF_INET6)]
        for name, state in stats.items()
        if state.isup and name != "lo"
    }
    usable = {name: [a for a in found if not a.startswith("fe80")] for name, found in up.items()}
    if not any(usable.values()):
        down = ", ".join(name for name, state in stats.items() if not state.isup and name != "lo")
        return [
            Finding(
                "network", "warn", f"除本机回环外没有可用网口（未启用：{down or '无'}）",
                f"no interface but loopback is up with an address (down: {down or 'none'})",
                "检查网线与指示灯；用 ip link、ip addr 查看；设置固定地址。",
                "Look at cable and lights; see ip link and ip addr; give the interface a fixed address.",
            )
        ]  # fmt: skip
    shown = "; ".join(f"{name} {', '.join(found)}" for name, found in usable.items() if found)
    found = [Finding("network", "ok", shown, shown)]
    bare = [name for name, has in usable.items() if not has and stats[name].speed]
    if bare:
        names = ", ".join(bare)
        found.append(
            Finding(
                "network", "warn", f"{names} 已接通但没有地址", f"{names} is up and has no address",
                "设置固定地址，例如 nmcli 或 /etc/network/interfaces。",
                "Give it a fixed address, with nmcli or in /etc/network/interfaces.",
            )
        )  # fmt: skip
    return found


# ----------------------------------------------------------------------------------------------------- memory and versions


def memory() -> list[Finding]:
    """What the gateway needs: 300 MB, and some for everybody else."""
    have = psutil.virtual_memory()
    zh, en = (
        f"内存共 {have.total >> 20} MB，可用 {have.available >> 20} MB",
        f"{have.total >> 20} MB of memory, {have.available >> 20} MB available",
    )
    if have.total >= _MEMORY and have.available >= _FREE_MEMORY:
        return [Finding("memory", "ok", zh, en)]
    return [
        Finding(
            "memory", "warn", zh, en, "网关需要约 300 MB：请关闭其他程序或增加内存。",
            "The gateway needs about 300 MB: stop other programs or add memory.",
        )
    ]  # fmt: skip


def versions() -> list[Finding]:
    """Of the gateway, Python, the system, and the packages that speak to the outside."""
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    shown = f"guantong {__version__}, Python {platform.python_version()}, {platform.platform()}; {', '.join(found)}"
    if sys.version_info < (3, 11) or missing:
        lost = ", ".join(missing)
        return [
            Finding(
                "versions", "fail", f"{shown}；缺少：{lost}", f"{shown}; missing: {lost}",
                "请重新安装网关（Python 3.11 或更新）。", "Install the gateway anew (Python 3.11 or later).",
            )
        ]  # fmt: skip
    return [Finding("versions", "ok", shown, shown)]


def hardware_clock() -> str:
    """What `timedatectl` says, for the support parcel; empty where there is none."""
    program = shutil.which("timedatectl")
    if program is None:
        return ""
    try:
        done = subprocess.run([program], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
