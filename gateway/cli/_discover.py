"""`guantong discover modbus` and `guantong explain modbus`: looking at an unknown device, gently and with consent."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast

import msgspec
import typer

from gateway.cli._output import chinese, fail, say, show
from gateway.cli.app import JsonOption, app

if TYPE_CHECKING:
    from adapters.contract import AdapterError
    from adapters.modbus.probe import Prober, SerialPlace, TcpPlace
    from gateway.explore.discover import Explorer, Report
    from gateway.explore.proposal import Proposal
    from gateway.explore.watch import Seen, Span

discover_app = typer.Typer(
    help="Find the devices, units and readable ranges behind an address.", no_args_is_help=True, rich_markup_mode=None
)
explain_app = typer.Typer(
    help="Watch live values and propose what they mean.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(discover_app, name="discover")
app.add_typer(explain_app, name="explain")

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
TableOption = Annotated[
    str, typer.Option("--tables", help="Tables to look at: holding, input, coil, discrete; separated by commas.")
]

_SETTINGS = [(baud, parity, stop) for baud in (9600, 19200) for parity, stop in (("N", 1), ("E", 1), ("N", 2))]
_FIRST_UNITS = 32
"""On a serial line these are tried at every setting; all of them only at the setting at which one answers."""


# -------------------------------------------------------------------------------------------------------- what was typed


def _place(host: str | None, serial: str | None, *, rtu: bool) -> TcpPlace | str:
    """Where to: a TCP place, or the path of a serial port."""
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


def _tables(text: str) -> list[str]:
    wanted = [part.strip() for part in text.split(",")]
    for name in wanted:
        if name not in ("holding", "input", "coil", "discrete"):
            fail(
                say(
                    f"--tables：没有 {name!r}；可用 holding, input, coil, discrete",
                    f"--tables: no {name!r}; there are holding, input, coil, discrete",
                ),
                2,
            )
    return wanted


def _serial_places(path: str, setting: str | None) -> list[SerialPlace]:
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


def _consent(lines: Sequence[str], *, yes: bool) -> None:
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


def _promise(where: str, functions: str, most: int, rate: float, timeout: float) -> list[str]:
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


def _functions(tables: Sequence[str], *, identify: bool) -> str:
    from gateway.explore.watch import FUNCTIONS

    used = [str(code) for code in sorted({FUNCTIONS[name] for name in tables} | ({3, 4} if identify else set()))]
    return ", ".join([*used, "43/14"] if identify else used)


def _run(work: Callable[[], Coroutine[Any, Any, None]], stopped: Callable[[], None]) -> None:
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


def _step(sent: int) -> None:
    if sys.stderr.isatty() and sent % 10 == 0:
        typer.echo(say(f"\r已发 {sent} 个请求", f"\r{sent} requests"), err=True, nl=False)


# ------------------------------------------------------------------------------------------------------------- discover


@discover_app.command(
    "modbus",
    epilog="Examples: guantong discover modbus 192.168.1.10    guantong discover modbus 192.168.1.20:4001 --rtu-over-tcp --units 1-32    "
    "guantong discover modbus --serial /dev/serial/by-id/usb-1a86_USB_Serial-if00-port0",
)
def discover_modbus(
    host: HostArgument = None,
    rtu: RtuOption = False,
    serial: SerialOption = None,
    setting: SettingOption = None,
    units: Annotated[str, typer.Option("--units", help="Unit numbers to look for, such as 1-32,100.")] = "1-247",
    tables: TableOption = "holding,input,coil,discrete",
    addresses: Annotated[str, typer.Option("--addresses", help="Wire addresses to look at.")] = "0-65535",
    step: Annotated[
        int,
        typer.Option(
            "--step", min=0, help="Also begin at every so manieth address; 0: only where devices usually begin."
        ),
    ] = 1024,
    most: MostOption = 2000,
    rate: RateOption = 20.0,
    timeout: TimeoutOption = 0.5,
    listen: ListenOption = 5.0,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Find units, what they say they are, and which registers can be read. Read-only, slow, and only when you agree."""
    from gateway.explore.discover import Report

    place = _place(host, serial, rtu=rtu)
    wanted, names = numbers(units, 0, 247 if isinstance(place, str) or rtu else 255), _tables(tables)
    reach = numbers(addresses, 0, 65535)
    if isinstance(place, str) or rtu:
        wanted = [unit for unit in wanted if unit]  # 0 is the broadcast on a line, which nobody answers
    where = place if isinstance(place, str) else f"{place.host}:{place.port}{' (RTU)' if place.rtu else ''}"
    lines = _promise(where, _functions(names, identify=True), most, rate, timeout)
    if isinstance(place, str):
        tried = _serial_places(place, setting)
        lines.insert(1, say(
            f"先静听 {listen:g} 秒，若有其他主站则不发送；然后依次尝试 {', '.join(one.setting for one in tried)}。",
            f"First listens for {listen:g} s and sends nothing where another master speaks; then tries {', '.join(one.setting for one in tried)}.",
        ))  # fmt: skip
    else:
        tried = []
    _consent(lines, yes=yes)
    report = Report()
    options = {"tables": names, "first": min(reach), "last": max(reach), "step": step}

    async def work() -> None:
        from gateway.explore.discover import CapError

        try:
            if isinstance(place, str):
                await _on_serial(tried, wanted, report, options, most, rate, timeout, listen)
            else:
                await _on_tcp(place, wanted, report, options, most, rate, timeout)
            report.state = "complete"
        except CapError:
            report.state = "cap"

    def stopped() -> None:
        report.state = "stopped"

    _run(work, stopped)
    _show_report(report, json=json)
    if report.state == "stopped":
        raise typer.Exit(130)


async def _on_tcp(
    place: TcpPlace,
    units: Sequence[int],
    report: Report,
    options: dict[str, Any],
    most: int,
    rate: float,
    timeout: float,
) -> None:
    from adapters.modbus.probe import Prober
    from gateway.explore.discover import Explorer

    async with Prober(place, timeout=timeout, pause=1 / rate) as prober:
        explorer = Explorer(prober, report, most=most, step=_step)
        await explorer.units(units, tcp=not place.rtu)
        await _look_at(explorer, report, options)


async def _on_serial(
    places: Sequence[SerialPlace], units: Sequence[int], report: Report, options: dict[str, Any], most: int, rate: float,
    timeout: float, listen: float,
) -> None:  # fmt: skip
    from adapters.modbus.probe import Prober
    from gateway.explore.discover import Explorer

    sent = 0
    for number, place in enumerate(places):
        async with Prober(place, timeout=timeout, pause=1 / rate) as prober:
            await prober.listen(listen if number == 0 else min(listen, 1.0))
            explorer = Explorer(prober, report, most=most, step=_step, sent=sent)
            few = [unit for unit in units if len(places) == 1 or unit <= _FIRST_UNITS] or units
            found = await explorer.units(few, setting=place.setting, tcp=False)
            if found:  # a line has one setting
                await explorer.units([unit for unit in units if unit not in few], setting=place.setting, tcp=False)
                await _look_at(explorer, report, options)
                return
            sent = explorer.sent


async def _look_at(explorer: Explorer, report: Report, options: dict[str, Any]) -> None:
    for one in report.units:
        await explorer.identify(one)
        await explorer.ranges(
            one, options["tables"], first=options["first"], last=options["last"], step=options["step"]
        )


def _show_report(report: Report, *, json: bool) -> None:
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report.plain())) + b"\n")
        sys.stdout.buffer.flush()
        return
    rows: list[dict[str, Any]] = []
    for one in report.units:
        told = " ".join(one.identity.values())
        typer.echo(
            say(f"站号 {one.unit}", f"Unit {one.unit}")
            + (f", {one.setting}" if one.setting else "")
            + (f": {told}" if told else ""),
            err=True,
        )
        for name, found in one.tables.items():
            note = ""
            if found.absent:
                note = say("设备无此表（非法功能）", "no such table (illegal function)")
            elif found.silent:
                note = say("此处停止应答", "stopped to answer here")
            elif found.pairs:
                note = say("只能成对读取", "only in pairs")
            if not found.ranges and note:
                rows.append({"unit": one.unit, "table": name, "note": note})
            rows += [
                {
                    "unit": one.unit,
                    "table": name,
                    "first": start,
                    "last": start + size - 1,
                    "size": size,
                    "longest": found.longest,
                    "note": note,
                }
                for start, size in found.ranges
            ]
    show(
        rows,
        {
            "unit": say("站号", "unit"), "table": say("表", "table"), "first": say("首地址", "first"), "last": say("末地址", "last"),
            "size": say("个数", "size"), "longest": say("最长读取", "longest read"), "note": say("说明", "note"),
        },
        as_json=False,
    )  # fmt: skip
    for line in _remarks(report):
        typer.echo(line, err=True)


def _remarks(report: Report) -> list[str]:
    """What a person should know besides the ranges."""
    from schemas.status import modbus_exception

    lines = []
    if not report.units:
        lines.append(say(
            "没有站点应答。请检查地址、站号、接线和波特率；TCP 串口服务器请试 --rtu-over-tcp。",
            "No unit answered. Check address, unit numbers, wiring and baud rate; with a serial server try --rtu-over-tcp.",
        ))  # fmt: skip
    if report.any_unit:
        lines.append(
            say("设备对任何站号都应答：按站号 1 处理。", "The device answers to every unit number: taken as unit 1.")
        )
    if report.failing:
        lines.append(say(
            f"站号 {report.failing[:8]} 只返回异常 4 或 6，多半不存在。", f"Units {report.failing[:8]} gave only exception 4 or 6: most likely they do not exist.",
        ))  # fmt: skip
    if report.answers["garbled"]:
        lines.append(say(
            f"{report.answers['garbled']} 个应答残缺：波特率或校验不符、站号重复或干扰。",
            f"{report.answers['garbled']} answers were garbled: another baud rate or parity, one number for two units, or noise.",
        ))  # fmt: skip
    for key, count in sorted(report.answers.items()):
        if key.startswith("exception_"):
            code = modbus_exception(int(key.removeprefix("exception_")))
            lines.append(f"{count} × 0x{code.code:02X} {code.name}: {say(code.text_zh, code.text_en)}")
    if report.answers["silence"]:
        lines.append(
            say(f"{report.answers['silence']} 个请求无应答", f"{report.answers['silence']} requests without an answer")
        )
    if report.state == "cap":
        lines.append(
            say(
                "已达到请求上限，结果不完整；可用 --most 提高上限。",
                "The number of requests is used up, this is not all; raise it with --most.",
            )
        )
    if report.state == "stopped":
        lines.append(say("已停止，结果不完整。", "Stopped; this is not all."))
    return lines


# -------------------------------------------------------------------------------------------------------------- explain


@explain_app.command(
    "modbus",
    epilog="Examples: guantong explain modbus 192.168.1.10 --registers holding:0-49    guantong explain modbus 192.168.1.10 --for 120 -o meter.yaml",
)
def explain_modbus(
    host: HostArgument = None,
    rtu: RtuOption = False,
    serial: SerialOption = None,
    setting: SettingOption = None,
    unit: Annotated[int, typer.Option("--unit", min=0, max=255, help="Unit number.")] = 1,
    registers: Annotated[
        list[str] | None,
        typer.Option(
            "--registers",
            help="What to watch, such as holding:0-49; may be given again. Without it the readable ranges are searched first.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--for", min=1, max=86_400, help="Seconds to watch.")] = 60.0,
    period: Annotated[float, typer.Option("--period", min=0.02, max=3600, help="Seconds from look to look.")] = 1.0,
    most: MostOption = 2000,
    rate: RateOption = 20.0,
    timeout: TimeoutOption = 0.5,
    listen: ListenOption = 5.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a profile (YAML) here; must not exist.")
    ] = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Watch live registers and propose type, byte order and scale of each, with reason, confidence and alternatives."""
    from gateway.explore.proposal import explain
    from gateway.explore.watch import Seen

    place = _place(host, serial, rtu=rtu)
    if isinstance(place, str) and setting is None:
        fail(
            say(
                "--serial 需要 --setting，如 9600-8N1（discover 可找出）",
                "--serial needs --setting, such as 9600-8N1 (discover finds it)",
            ),
            2,
        )
    if output is not None and output.exists():
        fail(say(f"{output} 已存在，不会覆盖", f"{output} exists and is not overwritten"))
    goal = _serial_places(place, setting)[0] if isinstance(place, str) else place
    spans = [span for text in registers or () for span in _spans(text)]
    rounds = max(2, int(seconds / period) + 1)
    where = place if isinstance(place, str) else f"{place.host}:{place.port}{' (RTU)' if place.rtu else ''}"
    lines = _promise(say(f"{where}，站号 {unit}", f"{where}, unit {unit}"), "3, 4", most, rate, timeout)
    lines.insert(
        1,
        say(f"观察 {seconds:g} 秒，每 {period:g} 秒读一遍。", f"Watches for {seconds:g} s, a look every {period:g} s."),
    )
    _consent(lines, yes=yes)
    seen = Seen(spans, [], [])

    async def work() -> None:
        from adapters.modbus.probe import Prober

        async with Prober(goal, timeout=timeout, pause=1 / rate) as prober:
            if isinstance(place, str):
                await prober.listen(listen)
            await _watch(prober, unit, seen, rounds, period, most)

    _run(work, lambda: None)
    if len(seen.rows) < 2:
        why = f" ({seen.last_failure})" if seen.last_failure else ""
        fail(
            say(
                f"没有读到足够的数据{why}：请检查站号和 --registers",
                f"not enough was read{why}: check the unit number and --registers",
            )
        )
    proposals = explain(seen.series())
    _show_proposals(proposals, json=json)
    if seen.failed:
        typer.echo(
            say(
                f"{seen.failed} 遍读取不完整（{seen.last_failure}），未计入",
                f"{seen.failed} looks were not whole ({seen.last_failure}) and do not count",
            ),
            err=True,
        )
    if output is not None:
        _write(output, proposals, max(span.size for span in seen.spans))


def _spans(text: str) -> list[Span]:

    table, _, area = text.partition(":")
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", area)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if table not in ("holding", "input") or not first <= last <= 65535:
        fail(
            say(
                f"--registers {text!r}：应如 holding:0-49 或 input:100-119",
                f"--registers {text!r}: expected holding:0-49 or input:100-119",
            ),
            2,
        )
    return _cut(table, first, last - first + 1, 120)


def _cut(table: str, start: int, size: int, longest: int) -> list[Span]:
    from gateway.explore.watch import Span

    kind = cast("Literal['holding', 'input']", table)
    return [Span(kind, at, min(longest, start + size - at)) for at in range(start, start + size, longest)]


async def _watch(prober: Prober, unit: int, seen: Seen, rounds: int, period: float, most: int) -> None:
    from gateway.explore.discover import CapError, Explorer, Report, UnitFound
    from gateway.explore.watch import watch

    sent = 0
    if not seen.spans:
        found = UnitFound(unit)
        explorer = Explorer(prober, Report(), most=max(1, most // 2), step=_step)
        try:
            await explorer.ranges(found, ("holding", "input"), first=0, last=65535, step=0)
        except CapError:
            typer.echo(
                say(
                    "查找用去了一半请求，现观察已找到的部分",
                    "the search took half of the requests; what it found is watched",
                ),
                err=True,
            )
        sent = explorer.sent
        seen.spans = [
            span for table, one in found.tables.items() for start, size in one.ranges
            for span in _cut(table, start, size, max(one.longest - one.longest % (2 if one.pairs else 1), 1))
        ]  # fmt: skip
    if not seen.spans:
        return
    await watch(
        prober, unit, seen.spans, rounds=min(rounds, max((most - sent) // len(seen.spans), 2)), period=period, seen=seen
    )


def _show_proposals(proposals: Sequence[Proposal], *, json: bool) -> None:
    from gateway.explore.words import quantity, reasons

    if json:
        rows = [
            {
                "table": one.table, "address": one.address, "width": one.width, "type": one.type, "order": one.order, "value": _plain(one.value),
                "scale": one.scale, "quantity": one.guess.quantity if one.guess else None, "unit": one.guess.unit if one.guess else None,
                "confidence": one.confidence, "reasons": list(one.reasons), "spare": one.spare,
                "alternatives": [{"type": other.type, "order": other.order, "value": _plain(other.value), "score": other.score} for other in one.alternatives],
            }
            for one in proposals
        ]  # fmt: skip
        show(rows, {}, as_json=True)
        return
    table = [
        {
            "place": f"{one.table} {one.address}" + (f"-{one.address + one.width - 1}" if one.width > 1 else ""),
            "type": one.type + (f" {one.order}" if one.width > 1 or one.order != "ABCD" else ""),
            "value": _short(one.value),
            "quantity": f"{quantity(one.guess.quantity, chinese=chinese())}? ×{one.guess.scale:g} {one.guess.unit}"
            if one.guess
            else "",
            "confidence": f"{one.confidence:.0%}",
            "why": reasons(one.reasons, chinese=chinese()),
            "others": "; ".join(f"{other.type} {other.order} {_short(other.value)}" for other in one.alternatives[:3]),
        }
        for one in proposals
        if not one.spare
    ]
    show(
        table,
        {
            "place": say("寄存器", "registers"), "type": say("类型", "type"), "value": say("当前值", "value"), "quantity": say("可能是", "may be"),
            "confidence": say("把握", "confidence"), "why": say("理由", "why"), "others": say("其他解读", "otherwise"),
        },
        as_json=False,
    )  # fmt: skip
    spare = sum(one.spare for one in proposals)
    if spare:
        typer.echo(
            say(f"另有 {spare} 个寄存器一直为 0，未列出", f"{spare} more registers were always 0 and are not shown"),
            err=True,
        )


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and value - value != 0 else value


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)


def _write(output: Path, proposals: Sequence[Proposal], longest: int) -> None:
    from gateway.explore.profile import profile_yaml

    if all(one.spare for one in proposals):
        fail(say("全部寄存器都为 0，没有可写的内容", "all registers are 0: there is nothing to write"))
    name = re.sub(r"[^a-z0-9]+", "-", output.stem.lower()).strip("-") or "device"
    try:
        with output.open("x", encoding="utf-8") as out:
            out.write(profile_yaml(proposals, name, longest=longest))
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    typer.echo(
        say(f"已写入 {output}；请对照手册核对后使用", f"Wrote {output}; compare it with the manual before use"),
        err=True,
    )
