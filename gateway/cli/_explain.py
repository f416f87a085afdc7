"""`guantong explain modbus`: live registers watched, and what each may mean as a point table or a profile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from gateway.cli._output import chinese, fail, say, show
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
    place_of,
    promise,
    run,
    save_table,
    serial_places,
    step,
)
from gateway.cli.app import JsonOption, app

if TYPE_CHECKING:
    from adapters.modbus.probe import Prober
    from gateway.explore.proposal import Proposal
    from gateway.explore.watch import Seen, Span

explain_app = typer.Typer(
    help="Watch live values and propose what they mean.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(explain_app, name="explain")


# -------------------------------------------------------------------------------------------------------------- explain


@explain_app.command(
    "modbus",
    epilog="Examples: guantong explain modbus 192.168.1.10 --registers holding:0-49    guantong explain modbus 192.168.1.10 --for 150 -o points.xlsx",
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
        Path | None,
        typer.Option("--output", "-o", help="Write a point table (.xlsx, .csv) or a profile (.yaml); must not exist."),
    ] = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Watch live registers and propose type, byte order and scale of each, with reason, confidence and alternatives."""
    from gateway.explore.proposal import explain
    from gateway.explore.table import device_values, rows_of
    from gateway.explore.watch import Seen

    place = place_of(host, serial, rtu=rtu)
    check_output(output, (".xlsx", ".csv", ".yaml", ".yml"))
    if isinstance(place, str) and setting is None:
        fail(
            say(
                "--serial 需要 --setting，如 9600-8N1（discover 可找出）",
                "--serial needs --setting, such as 9600-8N1 (discover finds it)",
            ),
            2,
        )
    goal = serial_places(place, setting)[0] if isinstance(place, str) else place
    spans = [span for text in registers or () for span in _spans(text)]
    rounds = max(2, int(seconds / period) + 1)
    where = place if isinstance(place, str) else f"{place.host}:{place.port}{' (RTU)' if place.rtu else ''}"
    lines = promise(say(f"{where}，站号 {unit}", f"{where}, unit {unit}"), "3, 4", most, rate, timeout)
    lines.insert(
        1,
        say(f"观察 {seconds:g} 秒，每 {period:g} 秒读一遍。", f"Watches for {seconds:g} s, a look every {period:g} s."),
    )
    consent(lines, yes=yes)
    seen = Seen(spans, [], [])

    async def work() -> None:
        from adapters.modbus.probe import Prober

        async with Prober(goal, timeout=timeout, pause=1 / rate) as prober:
            if isinstance(place, str):
                await prober.listen(listen)
            await _watch(prober, unit, seen, rounds, period, most)

    run(work, lambda: None)
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
        if all(one.spare for one in proposals):
            fail(say("全部寄存器都为 0，没有可写的内容", "all registers are 0: there is nothing to write"))
        if output.suffix.lower() in (".yaml", ".yml"):
            _write_profile(output, proposals, max(span.size for span in seen.spans))
        else:
            device = device_values(device_id(output), connection(place, setting), unit)
            save_table(rows_of(device, proposals, say("zh", "en")), output)


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
        explorer = Explorer(prober, Report(), most=max(1, most // 2), step=step)
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
    from gateway.explore.table import shown
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
            "value": shown(one.value),
            "quantity": f"{quantity(one.guess.quantity, chinese=chinese())}? ×{one.guess.scale:g} {one.guess.unit}"
            if one.guess
            else "",
            "confidence": f"{one.confidence:.0%}",
            "why": reasons(one.reasons, chinese=chinese()),
            "others": "; ".join(f"{other.type} {other.order} {shown(other.value)}" for other in one.alternatives[:3]),
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


def _write_profile(output: Path, proposals: Sequence[Proposal], longest: int) -> None:
    from gateway.explore.profile import profile_yaml

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
