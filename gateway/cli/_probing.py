"""What `discover` and `explain` share: where to look, what will be sent, and consent before the first request."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gateway.cli._output import chinese, fail, say

if TYPE_CHECKING:
    from adapters.contract import AdapterError
    from adapters.modbus.probe import SerialPlace, TcpPlace
    from gateway.points._rules import Values
    from gateway.points.exporting import Rows

HostArgument = Annotated[str | None, typer.Argument(metavar="HOST[:PORT]", help="Address; port 502 by default.")]
RtuOption = Annotated[bool, typer.Option("--rtu-over-tcp", help="The other end passes serial frames on.")]
SerialOption = Annotated[
    str | None, typer.Option("--serial", help="A serial port, best one of /dev/serial/by-id, instead of a host.")
]
SettingOption = Annotated[
    str | None, typer.Option("--setting", help="Serial: only this one, such as 9600-8N1; all six are tried otherwise.")
]
ListenOption = Annotated[
    float, typer.Option("--listen", min=0, max=60, help="Serial: seconds to listen for another master first.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.02, max=10, help="Seconds an answer may take.")]
RateOption = Annotated[float, typer.Option("--rate", min=0.1, max=200, help="Requests a second at most.")]
MostOption = Annotated[int, typer.Option("--most", min=1, max=200_000, help="Requests altogether at most.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the first request.")]

_SETTINGS = [(baud, parity, stop) for baud in (9600, 19200) for parity, stop in (("N", 1), ("E", 1), ("N", 2))]


# -------------------------------------------------------------------------------------------------------- what was typed


def place_of(host: str | None, serial: str | None, *, rtu: bool) -> TcpPlace | str:
    """Where to: a TCP place, or the path of a serial port. Ends the command where it is neither or both."""
    from adapters.modbus.probe import TcpPlace

    if (host is None) == (serial is None):
        fail(say("请给出 HOST[:PORT] 或 --serial 之一", "give HOST[:PORT] or --serial, one of the two"), 2)
    if serial is not None:
        return serial
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+)(?::(\d{1,5}))?", host or "")
    port = int((match and (match[2] or match[4])) or 502)
    if match is None or not 1 <= port <= 65535:
        fail(
            say(
                f"{host!r} 不是 HOST[:PORT]，例如 192.168.1.10:502",
                f"{host!r} is not HOST[:PORT], such as 192.168.1.10:502",
            ),
            2,
        )
    return TcpPlace(match[1] or match[3], port, rtu)


def numbers(text: str, low: int, high: int) -> list[int]:
    """The numbers of a list such as `1-8,17`, each once. Ends the command where it is none."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not low <= first <= last <= high:
            fail(
                say(
                    f"{text!r}：应为 {low} 到 {high} 的列表，如 1-8,17",
                    f"{text!r}: expected a list of {low} to {high}, such as 1-8,17",
                ),
                2,
            )
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def serial_places(path: str, setting: str | None) -> list[SerialPlace]:
    """The port with each setting to try, or with the one that was asked for. Ends the command for an unknown one."""
    from adapters.modbus.probe import SerialPlace

    every = [SerialPlace(path, baud, "E" if parity == "E" else "N", stop) for baud, parity, stop in _SETTINGS]
    if setting is None:
        return every
    wanted = [place for place in every if place.setting == setting.upper().replace("-", " ")]
    if not wanted:
        known = ", ".join(place.setting.replace(" ", "-") for place in every)
        fail(say(f"--setting {setting!r}：可用 {known}", f"--setting {setting!r}: there are {known}"), 2)
    return wanted


# ------------------------------------------------------------------------------------------------------------- consent


def consent(lines: Sequence[str], *, yes: bool) -> None:
    """Says what will be sent, and asks."""
    for line in lines:
        typer.echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        fail(say("未发送任何请求：请加 --yes 表示同意", "nothing was sent: agree with --yes"), 2)
    if not typer.confirm(say("开始吗？", "Begin?"), default=False, err=True):
        typer.echo(say("未发送任何请求。", "Nothing was sent."), err=True)
        raise typer.Exit(1)


def promise(where: str, functions: str, most: int, rate: float, timeout: float) -> list[str]:
    """What will be sent, how often and for how long, as lines for `consent`."""
    minutes = most * max(1 / rate, 0.0) / 60
    worst = most * (1 / rate + timeout) / 60
    return [
        say(f"目标：{where}", f"Target: {where}"),
        say(
            f"只读功能码 {functions}，不写任何数据。最多 {most} 个请求，每秒最多 {rate:g} 个：约 {minutes:.1f} 分钟，若无应答则不超过 {worst:.1f} 分钟。",
            f"Only the read functions {functions}; nothing is written. At most {most} requests, at most {rate:g} a second: some {minutes:.1f} min, "
            f"{worst:.1f} min if nobody answers.",
        ),
        say("Ctrl-C 随时停止，并显示已找到的内容。", "Ctrl-C stops at any time and shows what was found."),
    ]  # fmt: skip


def run(work: Callable[[], Coroutine[Any, Any, None]], stopped: Callable[[], None]) -> None:
    """Runs to the end or to Ctrl-C; then `stopped` is told."""
    from adapters.contract import AdapterError

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        stopped()
    except AdapterError as error:
        _refused(error)


def _refused(error: AdapterError) -> NoReturn:
    fail(f"{error}\n{error.fix_zh if chinese() else error.fix_en}")


def step(sent: int) -> None:
    """Shows how many requests were sent, in a terminal."""
    if sys.stderr.isatty() and sent % 10 == 0:
        typer.echo(say(f"\r已发 {sent} 个请求", f"\r{sent} requests"), err=True, nl=False)


# --------------------------------------------------------------------------------------------------------------- output


def check_output(output: Path | None, suffixes: Sequence[str]) -> None:
    """Ends the command before anything is sent where `output` cannot be written: another suffix, or a file that exists."""
    if output is None:
        return
    if output.suffix.lower() not in suffixes:
        listed = ", ".join(suffixes)
        fail(say(f"{output}：文件名应以 {listed} 之一结尾", f"{output}: the name ends with one of {listed}"), 2)
    if output.exists():
        fail(say(f"{output} 已存在，不会覆盖", f"{output} exists and is not overwritten"))


def device_id(output: Path) -> str:
    """A device's id from the name of a file."""
    return re.sub(r"[^a-z0-9_-]+", "-", output.stem.lower()).strip("-_")[:60] or "device"


def connection(place: TcpPlace | str, setting: str | None) -> Values:
    """The columns of a connection as a point table has them; `setting` is that of a serial line, such as 9600-8N1."""
    if not isinstance(place, str):
        return {
            "host": place.host,
            "port": place.port,
            "transport": "rtu-over-tcp" if place.rtu else "tcp",
        }
    found = re.fullmatch(r"(\d+)[- ]8([NEO])([12])", (setting or "").upper())
    line: Values = {"baud": int(found[1]), "parity": found[2], "stop": int(found[3])} if found is not None else {}
    return {"serial": place, **line}


def save_table(rows: Rows, output: Path) -> None:
    """Writes a point table and says what comes next. Ends the command where that fails."""
    from gateway.points.exporting import write

    data = write(rows, "csv" if output.suffix.lower() == ".csv" else "xlsx", say("zh", "en"))
    try:
        with output.open("xb") as out:
            out.write(data)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    typer.echo(
        say(
            f"已写入 {output}（{len(rows[1])} 个点位）。请对照手册核对，可用 Excel 修改；下一步：guantong points import {output}",
            f"Wrote {output} ({len(rows[1])} points). Compare it with the manual, edit it in Excel; next: guantong points import {output}",
        ),
        err=True,
    )
