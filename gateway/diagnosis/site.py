"""The checks of `guantong doctor` that follow the configuration: where data lies, what listens, what is to be reached."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil

from gateway.diagnosis.box_clock import LAST
from gateway.diagnosis.findings import Finding
from schemas.times import to_rfc3339

if TYPE_CHECKING:
    from gateway.config.models import Config, LinkSettings

_LITTLE_SPACE: Final = 1024**3
_NO_SPACE: Final = 100 * 1024**2
_REACH: Final = 3.0
"""Seconds for a device to take a TCP connection."""
_SERIAL: Final = Path("/dev/serial/by-id")


# ------------------------------------------------------------------------------------------------------------- last times


def last_times(config: Config, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Whether the clock is behind what outbox and store hold already."""
    # a device's own time, which the store holds, may rightly be ahead of ours by up to an hour
    for name, last, ahead in (("outbox", _last_of_outbox(config), 1), ("store", _last_of_store(config), 3600)):
        if last is None:
            continue
        off = now() - last / 1e6
        shown = to_rfc3339(last)
        if off < -ahead:
            yield Finding(
                "clock.last", "fail", f"时钟比 {name} 的最后时间 {shown} 慢 {-off:.0f} 秒（clock_behind）",
                f"the clock is {-off:.0f} s behind the last time in the {name}, {shown} (clock_behind)",
                "先校准时钟再启动网关；若以前的时钟超前，见 docs/clock.md。",
                "Set the clock before the gateway starts; if the clock was ahead before, see docs/clock.md.",
            )  # fmt: skip
        else:
            yield Finding(
                "clock.last", "ok", f"{name} 的最后时间为 {shown}，{off:.0f} 秒前",
                f"last time in the {name}: {shown}, {off:.0f} s ago",
            )  # fmt: skip


def _last_of_outbox(config: Config) -> int | None:
    return _one_number(config.data_dir / "outbox.sqlite", "SELECT value FROM meta WHERE key = ?", LAST)


def _last_of_store(config: Config) -> int | None:
    """The highest ts that any signal has."""
    from gateway.ledger.steps import StoreError
    from gateway.store import open_reader

    if config.store.url is None and not any(config.data_dir.glob("*.sqlite*")):
        return None
    reader = open_reader(config.store, config.data_dir)
    try:
        times = [row.ts for row in reader.snapshot().rows]
    except StoreError:
        return None  # `guantong check` says what is wrong with the store
    finally:
        reader.close()
    return max(times, default=None)


def _one_number(path: Path, query: str, *values: str) -> int | None:
    if not path.exists():
        return None
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
        try:
            row = db.execute(query, values).fetchone()
        finally:
            db.close()
    except sqlite3.Error:
        return None
    return int(row[0]) if row is not None and str(row[0]).isdigit() else None


# -------------------------------------------------------------------------------------------------------- disk and rights


def disk(config: Config) -> Iterator[Finding]:
    """Space and inodes of data_dir; the outbox's budget against what is free."""
    path = _existing(config.data_dir)
    usage = shutil.disk_usage(path)
    free, shown = usage.free, f"{path}: {usage.free >> 20} / {usage.total >> 20} MB"
    fix_zh, fix_en = "清理磁盘，或将 data_dir 移到更大的磁盘。", "Make room, or move data_dir to a larger disk."
    if free < _NO_SPACE:
        yield Finding(
            "disk.space", "fail", f"磁盘将满，{shown} 可用", f"the disk is nearly full: {shown} free", fix_zh, fix_en
        )
    elif free < _LITTLE_SPACE:
        yield Finding(
            "disk.space",
            "warn",
            f"磁盘空间不足 1 GB，{shown} 可用",
            f"less than 1 GB left: {shown} free",
            fix_zh,
            fix_en,
        )
    else:
        yield Finding("disk.space", "ok", f"{shown} 可用", f"{shown} free")
    held = sum(file.stat().st_size for file in config.data_dir.glob("outbox.sqlite*"))
    if config.outbox.budget > free + held:
        yield Finding(
            "disk.budget", "warn",
            f"发件箱预算 {config.outbox.budget >> 20} MB 大于可用空间 {free + held >> 20} MB",
            f"the outbox may grow to {config.outbox.budget >> 20} MB and only {free + held >> 20} MB are there for it",
            f"将 outbox.budget 设为 {max((free + held) // 2 >> 20, 1)}M 或更小。",
            f"Set outbox.budget to {max((free + held) // 2 >> 20, 1)}M or less.",
        )  # fmt: skip
    else:
        yield Finding("disk.budget", "ok", "发件箱预算有足够空间", "the outbox's budget fits on the disk")
    inodes = os.statvfs(path)
    if inodes.f_files and inodes.f_favail < max(inodes.f_files // 100, 1000):
        yield Finding(
            "disk.inodes", "fail", f"{path} 只剩 {inodes.f_favail} 个 inode", f"{path} has only {inodes.f_favail} inodes left",
            "删除大量小文件。", "Delete what made so many small files.",
        )  # fmt: skip
    else:
        yield Finding("disk.inodes", "ok", "inode 充足", "enough inodes")


def rights(config: Config) -> Iterator[Finding]:
    """Whether data_dir can be written, and whether the keys are this user's alone."""
    path = config.data_dir
    place = _existing(path)
    who = psutil.Process().username()
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "rights.data_dir", "fail", f"用户 {who} 无权写入 {place}", f"user {who} may not write {place}",
            f"sudo chown -R {who} {place}", f"sudo chown -R {who} {place}",
        )  # fmt: skip
    else:
        yield Finding("rights.data_dir", "ok", f"{path} 可写", f"{path} can be written")
    foreign = [file for file in path.glob("*.sqlite*") if not os.access(file, os.W_OK)] if path.is_dir() else []
    if foreign:
        yield Finding(
            "rights.data_dir", "fail", f"用户 {who} 无权写入 {foreign[0]}", f"user {who} may not write {foreign[0]}",
            f"sudo chown {who} {path}/*", f"sudo chown {who} {path}/*",
        )  # fmt: skip
    keys = path / "keys.json"
    if keys.exists():
        mode = stat.S_IMODE(keys.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                "rights.keys", "fail", f"{keys} 的权限为 {mode:04o}，其他用户可读", f"{keys} has mode {mode:04o}: others may read it",
                f"chmod 600 {keys}", f"chmod 600 {keys}",
            )  # fmt: skip
        else:
            yield Finding("rights.keys", "ok", f"{keys} 仅本用户可读", f"{keys} is this user's alone")


def serial_rights(config: Config, folder: Path = _SERIAL) -> Iterator[Finding]:
    """Serial devices: those that are there, and those that the links name; this user needs their group (dialout)."""
    named = [
        Path(str(value))
        for link in config.links
        for key, value in link.settings.items()
        if key in ("device", "serial") and str(value).startswith("/dev/")
    ]
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in dict.fromkeys([*named, *present]):
        if not path.exists():
            yield Finding(
                "rights.serial", "fail", f"串口 {path} 不存在", f"there is no serial device {path}",
                "检查 USB 连接；使用 /dev/serial/by-id 下的名称。", "Look at the USB cable; use a name under /dev/serial/by-id.",
            )  # fmt: skip
        elif not os.access(path, os.R_OK | os.W_OK):
            yield Finding(
                "rights.serial", "fail", f"本用户无权打开 {path}", f"this user may not open {path}",
                "sudo usermod -aG dialout $USER，然后重新登录（或重启服务）。",
                "sudo usermod -aG dialout $USER, then log in again (or restart the service).",
            )  # fmt: skip
        else:
            yield Finding("rights.serial", "ok", f"{path} 可打开", f"{path} can be opened")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


# ----------------------------------------------------------------------------------------------------- ports and devices


def ports(config: Config) -> Iterator[Finding]:
    """Each port that the gateway listens on: free, ours, or somebody else's."""
    wanted = [("api.port", config.api.host, config.api.port)]
    if config.bus.embedded:
        wanted.append(("bus.port", "127.0.0.1", config.bus.port))
    if config.metrics.enabled:
        wanted += [
            ("metrics.collect_port", config.metrics.host, config.metrics.collect_port),
            ("metrics.ingest_port", config.metrics.host, config.metrics.ingest_port),
        ]
    for link in config.links:
        dial_in = link.settings.get("listen")
        if link.enabled and isinstance(dial_in, dict) and isinstance(dial_in.get("port"), int):
            where = (str(dial_in.get("bind", "0.0.0.0")), dial_in["port"])
            if all((host, port) != where for _, host, port in wanted):
                wanted.append((f"links.{link.id}.settings.listen.port", *where))
    holders = _holders()
    for option, host, port in wanted:
        if not port:
            continue
        if not _taken(host, port):
            yield Finding("port", "ok", f"{option} {host}:{port} 空闲", f"{option} {host}:{port} is free")
            continue
        holder = holders.get(port, "")
        if "guantong" in holder or "gateway." in holder or "iotcore" in holder:
            yield Finding("port", "ok", f"{option} {port}：网关正在使用", f"{option} {port}: the gateway has it")
            continue
        yield Finding(
            "port", "warn" if not holder else "fail", f"{option} {host}:{port} 已被占用：{holder or '未知进程'}",
            f"{option} {host}:{port} is taken by {holder or 'a process that this user may not see'}",
            f"若不是本网关：停止该程序，或更改 {option}。", f"Unless it is this gateway: stop that program, or change {option}.",
        )  # fmt: skip


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _holders() -> dict[int, str]:
    """Port -> command line of who listens on it, as far as this user may see."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.AccessDenied, OSError):
        return {}
    found: dict[int, str] = {}
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.pid and one.laddr:
            try:
                process = psutil.Process(one.pid)
                found[one.laddr.port] = f"{' '.join(process.cmdline()[:6])[:160]} (pid {one.pid})"
            except psutil.Error:
                continue
    return found


def target(link: LinkSettings) -> tuple[str, int] | None:
    """Host and port that a link connects to; None for one without (a serial line, a third party's adapter)."""
    settings = link.settings
    endpoint = settings.get("endpoint") or settings.get("url")
    if isinstance(endpoint, list) and endpoint:
        endpoint = endpoint[0]  # the preferred one of redundant servers
    if isinstance(endpoint, str) and "://" in endpoint:
        parts = urlsplit(endpoint)
        try:
            return (parts.hostname, parts.port or 4840) if parts.hostname else None
        except ValueError:
            return None
    host, port = settings.get("host"), settings.get("port", 502)
    if isinstance(host, list) and host:
        host = host[0]
    return (host, port) if isinstance(host, str) and isinstance(port, int) else None


def devices(config: Config, within: float = _REACH) -> list[Finding]:
    """Whether each link's address takes a TCP connection; nothing is sent."""
    links = [(link, where) for link in config.links if link.enabled and (where := target(link)) is not None]
    if not links:
        return []
    with ThreadPoolExecutor(min(len(links), 16)) as pool:
        return list(pool.map(lambda pair: _reach(pair[0].id, pair[1][0], pair[1][1], within), links))


def _reach(link: str, host: str, port: int, within: float) -> Finding:
    where = f"{host}:{port}"
    begun = time.monotonic()
    try:
        socket.create_connection((host, port), within).close()
    except socket.gaierror:
        return Finding(
            "device", "fail", f"链路 {link}：主机名 {host} 无法解析", f"link {link}: {host} is no known host name",
            "改用 IP 地址，或检查 DNS。", "Write its IP address, or look at the DNS.",
        )  # fmt: skip
    except ConnectionRefusedError:
        return Finding(
            "device", "fail", f"链路 {link}：{where} 拒绝连接", f"link {link}: {where} refuses: the machine is there and nothing listens",
            "检查端口号，以及设备的服务是否启用。", "Check the port, and whether the device's server is switched on.",
        )  # fmt: skip
    except OSError as error:
        return Finding(
            "device", "fail", f"链路 {link}：{where} 无应答（{error}）", f"link {link}: {where} does not answer ({error})",
            "检查网线、电源、IP 地址与子网掩码、防火墙。", "Check cable, power, IP address and netmask, and firewalls.",
        )  # fmt: skip
    took = (time.monotonic() - begun) * 1000
    return Finding(
        "device",
        "ok",
        f"链路 {link}：{where} 可达（{took:.0f} ms）",
        f"link {link}: {where} takes connections ({took:.0f} ms)",
    )
