"""`guantong discover modbus`: the units, identification and readable registers of an unknown device, gently and with consent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli._output import fail, say, show
from gateway.cli._probing import (
    HostArgument,
    ListenOption,
    MostOption,
    RateOption,
    RtuOption,
    SerialOption,
    SettingOption,
    TimeoutOption,
    YesOption,
    check_output,
    connection,
    consent,
    device_id,
    numbers,
    place_of,
    promise,
    run,
    save_table,
    serial_places,
    step,
)
from gateway.cli.app import JsonOption, app

if TYPE_CHECKING:
    from adapters.modbus.probe import SerialPlace, TcpPlace
    from gateway.explore.discover import Explorer, Report

discover_app = typer.Typer(
    help="Find the devices, units and readable ranges behind an address.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(discover_app, name="discover")

TableOption = Annotated[
    str, typer.Option("--tables", help="Tables to look at: holding, input, coil, discrete; separated by commas.")
]

_MOST_AREAS = 20
"""Ranges in the command that is shown for copying."""
_FIRST_UNITS = 32
"""On a serial line these are tried at every setting; all of them only at the setting at which one answers."""


# ------------------------------------------------------------------------------------------------------------- discover


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


def _functions(tables: Sequence[str], *, identify: bool) -> str:
    from gateway.explore.watch import FUNCTIONS

    used = [str(code) for code in sorted({FUNCTIONS[name] for name in tables} | ({3, 4} if identify else set()))]
    return ", ".join([*used, "43/14"] if identify else used)


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
    grid: Annotated[
        int,
        typer.Option(
            "--step", min=0, help="Also begin at every so manieth address; 0: only where devices usually begin."
        ),
    ] = 1024,
    most: MostOption = 2000,
    rate: RateOption = 20.0,
    timeout: TimeoutOption = 0.5,
    listen: ListenOption = 5.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a point table (.xlsx or .csv) of what can be read; must not exist."),
    ] = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Find units, what they say they are, and which registers can be read. Read-only, slow, and only when you agree."""
    from gateway.explore.discover import Report

    place = place_of(host, serial, rtu=rtu)
    check_output(output, (".xlsx", ".csv"))
    wanted, names = numbers(units, 0, 247 if isinstance(place, str) or rtu else 255), _tables(tables)
    reach = numbers(addresses, 0, 65535)
    if isinstance(place, str) or rtu:
        wanted = [unit for unit in wanted if unit]  # 0 is the broadcast on a line, which nobody answers
    where = place if isinstance(place, str) else f"{place.host}:{place.port}{' (RTU)' if place.rtu else ''}"
    lines = promise(where, _functions(names, identify=True), most, rate, timeout)
    if isinstance(place, str):
        tried = serial_places(place, setting)
        lines.insert(1, say(
            f"先静听 {listen:g} 秒，若有其他主站则不发送；然后依次尝试 {', '.join(one.setting for one in tried)}。",
            f"First listens for {listen:g} s and sends nothing where another master speaks; then tries {', '.join(one.setting for one in tried)}.",
        ))  # fmt: skip
    else:
        tried = []
    consent(lines, yes=yes)
    report = Report()
    options = {"tables": names, "first": min(reach), "last": max(reach), "step": grid}

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

    run(work, stopped)
    _show_report(report, json=json)
    if not json:
        _what_next(report, place)
    if output is not None:
        _save(report, output, place)
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
        explorer = Explorer(prober, report, most=most, step=step)
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
            explorer = Explorer(prober, report, most=most, step=step, sent=sent)
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


def _what_next(report: Report, place: TcpPlace | str) -> None:
    """The command that explains what was found, ready to be copied."""
    for one in report.units:
        areas = [
            f"--registers {table}:{start}-{start + size - 1}"
            for table in ("holding", "input")
            if table in one.tables
            for start, size in one.tables[table].ranges
        ]
        if not areas:
            continue
        if isinstance(place, str):
            where = f"--serial {place} --setting {one.setting.replace(' ', '-')}"
        else:
            where = f"{f'[{place.host}]' if ':' in place.host else place.host}:{place.port}" + (
                " --rtu-over-tcp" if place.rtu else ""
            )
        typer.echo(
            say("下一步：", "Next: ")
            + " ".join(
                [
                    "guantong explain modbus",
                    where,
                    f"--unit {one.unit}",
                    *areas[:_MOST_AREAS],
                    "--for 150",
                    "-o points.xlsx",
                ]
            ),
            err=True,
        )
        if len(areas) > _MOST_AREAS:
            typer.echo(
                say(f"（另有 {len(areas) - _MOST_AREAS} 段）", f"(and {len(areas) - _MOST_AREAS} ranges more)"),
                err=True,
            )


def _save(report: Report, output: Path, place: TcpPlace | str) -> None:
    from gateway.explore.table import MOST_POINTS, rows_of_report

    rows, ended = rows_of_report(
        report, device_id(output), lambda setting: connection(place, setting), language=say("zh", "en")
    )
    if not rows[0]:
        fail(say(f"没有找到站点，未写入 {output}", f"no unit was found: {output} was not written"))
    save_table(rows, output)
    for unit in ended:
        typer.echo(
            say(
                f"站号 {unit}：点表只含前 {MOST_POINTS} 个点位",
                f"Unit {unit}: the table ends after {MOST_POINTS} points",
            ),
            err=True,
        )
