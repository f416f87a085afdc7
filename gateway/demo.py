"""The demonstration's parent: keeps the processes and shows, on one screen, what goes on. Light, as `gateway.parent` is.

`python -m gateway.demo WORK-JSON SETTINGS-JSON`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
import unicodedata
from dataclasses import dataclass, field

import msgspec

from gateway import __version__
from gateway.api.reasons import explain
from gateway.parent import Parent, Work, keep

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_INTERVAL = 1.0
_PLAIN_EVERY = 10.0


class Settings(msgspec.Struct, frozen=True):
    """Where to look, and how to show it."""

    directory: str
    log: str
    api: str
    mqtt: str
    collect_metrics: int
    ingest_metrics: int
    language: str
    plain: bool
    command: str
    devices: list[str]


@dataclass(slots=True)
class Numbers:
    """What the metrics said last."""

    at: float = 0.0
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    readings: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    rows: float = 0.0
    row_rate: float = 0.0
    lag: float = 0.0
    waiting: float = 0.0


_TEXTS = {
    "en": {
        "docs": "docs", "topics": "topics", "data": "data", "log": "log", "try": "To copy, in another terminal:",
        "device": "DEVICE", "state": "STATE", "rate": "READINGS/S", "reason": "REASON", "rows": "rows stored since the start", "lag": "lag",
        "waiting": "in the outbox", "readings": "readings", "stop": "Ctrl-C stops everything.", "starting": "starting", "up": "up",
        "processes": "processes", "stopping": "stopping…", "stopped": "stopped; a second start goes on from here",
    },
    "zh": {
        "docs": "文档", "topics": "主题", "data": "数据目录", "log": "日志", "try": "可在另一个终端复制执行：",
        "device": "设备", "state": "状态", "rate": "读数/秒", "reason": "原因", "rows": "本次已存储行数", "lag": "延迟",
        "waiting": "发件箱待确认", "readings": "读数", "stop": "按 Ctrl-C 停止全部进程。", "starting": "启动中", "up": "已运行",
        "processes": "进程", "stopping": "正在停止…", "stopped": "已停止；再次启动会接着运行",
    },
}  # fmt: skip

_COLOUR = {
    "ok": "32",
    "running": "32",
    "starting": "33",
    "recovering": "33",
    "degraded": "33",
    "restarting": "31",
    "failed": "31",
}


async def fetch(port: int, path: str = "/metrics") -> str:
    """The body of http://127.0.0.1:port/path. Raises OSError or TimeoutError."""
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            data = await reader.read()
        finally:
            writer.close()
    return data.partition(b"\r\n\r\n")[2].decode()


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each sample of a Prometheus text."""
    return [
        (m[1], dict(_LABEL.findall(m[2] or "")), float(m[3]))
        for m in _SAMPLE.finditer(text)
        if not m[0].startswith("#")
    ]


async def look(settings: Settings, numbers: Numbers) -> None:
    """Brings the numbers up to date; what does not answer yet stays as it was."""
    found = []
    for port in (settings.collect_metrics, settings.ingest_metrics):
        try:
            found += samples(await fetch(port))
        except (OSError, TimeoutError, ValueError):
            continue
    now = time.monotonic()
    elapsed = max(now - numbers.at, 1e-3)
    rows, states = numbers.rows, {}
    for name, labels, value in found:
        device = labels.get("device", "")
        match name:
            case "guantong_device_state" if value:
                states[device] = (labels["state"], labels["reason"])
            case "guantong_device_readings_total":
                numbers.rates[device] = max(0.0, value - numbers.readings.get(device, value)) / elapsed
                numbers.readings[device] = value
            case "guantong_ingest_rows_total":
                rows = value
            case "guantong_ingest_lag_seconds":
                numbers.lag = value
            case "guantong_outbox_unconfirmed_messages":
                numbers.waiting = value
    if numbers.at and rows >= numbers.rows:
        numbers.row_rate = (rows - numbers.rows) / elapsed
    numbers.rows, numbers.at = rows, now
    if states:
        numbers.states = states


def screen(
    settings: Settings, numbers: Numbers, parent: Parent, started: float, width: int, *, colour: bool
) -> list[str]:
    """The lines of the live summary."""
    t = _TEXTS[settings.language]

    def paint(text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text

    up = int(time.monotonic() - started)
    lines = [
        paint(f"贯通 Guantong {__version__}", "1")
        + f"   {t['up']} {up // 3600:02}:{up // 60 % 60:02}:{up % 60:02}   {t['stop']}",
        f"REST  {settings.api}   {t['docs']}: {settings.api}/docs",
        f"MQTT  {settings.mqtt}   {t['topics']}: guantong/v1/readings/#",
        f"{t['data']}: {settings.directory}   {t['log']}: {settings.log}",
        "",
        t["try"],
        *(f"  {command}" for command in commands(settings)),
        "",
        _columns(t["device"], t["state"], t["rate"], t["reason"]),
    ]
    for device in settings.devices:
        state, reason = numbers.states.get(device, ("starting", ""))
        rate = f"{numbers.rates.get(device, 0.0):.1f}"
        line = _columns(device, state, rate, reason_text(reason, settings.language))
        lines.append(paint(line[: max(width, 20)], _COLOUR.get(state, "")))
    running = "  ".join(f"{k.child.name} {paint(k.state, _COLOUR.get(k.state, ''))}" for k in parent.kept)
    lines += [
        "",
        f"{t['readings']} {sum(numbers.rates.values()):,.0f}/s   {t['rows']} {numbers.rows:,.0f} ({numbers.row_rate:+,.0f}/s)   "
        f"{t['lag']} {numbers.lag:.2f} s   {t['waiting']} {numbers.waiting:,.0f}",
        f"{t['processes']}: {running}",
    ]
    return lines


def reason_text(reason: str, language: str) -> str:
    """A short word of a reason as a sentence; what is no such word stays as it is."""
    return explain(reason).text.get("zh" if language == "zh" else "en") if reason else ""


def commands(settings: Settings) -> list[str]:
    """Three commands to copy, of those that are installed here."""
    host, _, port = settings.mqtt.partition(":")
    where = f"--config {settings.directory}/guantong.yaml"
    api = "" if settings.api.endswith(":8000") else f" --api {settings.api}"
    listen = f"mosquitto_sub -h {host} -p {port} -t 'guantong/v1/readings/#' -v"
    fetch_one = f"curl -s '{settings.api}/api/v1/latest?match=imm-01/*'"
    return [
        f"{settings.command} tail 'imm-01/*' {where}{api}",
        fetch_one if shutil.which("curl") else f"{settings.command} read meter-01 'voltage/*' {where}",
        listen if shutil.which("mosquitto_sub") else f"{settings.command} devices {where}{api}",
    ]


def _columns(device: str, state: str, rate: str, reason: str) -> str:
    return f"{_pad(device, 12)}{_pad(state, 13)}{' ' * max(0, 10 - _width(rate))}{rate}  {reason}".rstrip()


def _width(text: str) -> int:
    """Columns on a terminal: Chinese characters take two (Unicode TR 11)."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * max(1, width - _width(text))


def _line(settings: Settings, numbers: Numbers) -> str:
    states = [s for s, _ in (numbers.states.get(d, ("starting", "")) for d in settings.devices)]
    told = "  ".join(f"{state}: {states.count(state)}" for state in dict.fromkeys(states))
    return (
        f"{time.strftime('%H:%M:%S')}  {told}  readings/s: {sum(numbers.rates.values()):.0f}  rows stored: {numbers.rows:.0f}  "
        f"lag: {numbers.lag:.2f} s"
    )


async def summary(settings: Settings, parent: Parent) -> None:
    """The live summary, until cancelled."""
    numbers, started = Numbers(), time.monotonic()
    plain = settings.plain or not sys.stdout.isatty()
    if plain:
        print_plain_head(settings)
    told = 0.0
    while True:
        await look(settings, numbers)
        if not plain:
            size = shutil.get_terminal_size()
            lines = screen(settings, numbers, parent, started, size.columns, colour="NO_COLOR" not in os.environ)
            _write("\x1b[H\x1b[J" + "\r\n".join(lines[: size.lines - 1]) + "\r\n")
        elif time.monotonic() - told > _PLAIN_EVERY or (numbers.rows and not told):
            told = time.monotonic()
            _write(_line(settings, numbers) + "\n")
        await asyncio.sleep(_INTERVAL)


def print_plain_head(settings: Settings) -> None:
    """Where to look, as plain lines."""
    t = _TEXTS[settings.language]
    lines = [
        f"REST  {settings.api}   {t['docs']}: {settings.api}/docs",
        f"MQTT  {settings.mqtt}",
        t["try"],
        *(f"  {command}" for command in commands(settings)),
        t["stop"],
    ]
    _write("\n".join(lines) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def show_until_stopped(work: Work, settings: Settings) -> int:
    """Keeps the processes and shows the summary; returns the exit code."""
    t = _TEXTS[settings.language]
    code = await keep(work, lambda parent: summary(settings, parent))
    _write(f"\n{t['stopped'] if code == 0 else settings.log}\n")
    return code


def main() -> None:
    """See the module."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    settings = msgspec.json.decode(sys.argv[2], type=Settings)
    sys.exit(asyncio.run(show_until_stopped(work, settings)))


if __name__ == "__main__":
    main()
