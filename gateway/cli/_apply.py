"""`guantong apply`: another configuration while the gateway runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli._output import fail, say, show, tell_problems
from gateway.cli.app import ConfigOption, JsonOption, app, load

if TYPE_CHECKING:
    from gateway.apply.difference import Difference
    from gateway.apply.history import History, Kept
    from gateway.apply.requests import Answer


@app.command(
    epilog="Examples: guantong apply --config workshop.yaml --dry-run    guantong apply    guantong apply --history    "
    "guantong apply --rollback    guantong apply --rollback 12"
)
def apply(
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Go back to the configuration before, or to the one with the number NUMBER."),
    ] = False,
    number: Annotated[int | None, typer.Argument(help="With --rollback: which one; see --history.")] = None,
    history: Annotated[bool, typer.Option("--history", help="List the configurations that are kept.")] = False,
    json: JsonOption = False,
) -> None:
    """Have the running gateway take over the edited configuration; only links that change are begun anew."""
    file = config or (Path(os.environ["GUANTONG_CONFIG"]) if os.environ.get("GUANTONG_CONFIG") else None)
    if file is None:
        fail(say("请用 --config 指定配置文件", "name the configuration file with --config"), 2)
    if number is not None and not rollback:
        fail(say("编号只能与 --rollback 一起使用", "a number is only for --rollback"), 2)
    if history:
        _show_history(file, as_json=json)
    elif rollback:
        _rollback(file, number, dry_run=dry_run, as_json=json)
    else:
        _check(file)
        _tell(_ask(load(file).data_dir, file, dry_run=dry_run), dry_run=dry_run, as_json=json)


def _check(file: Path) -> None:
    """Every mistake is told here as well, with the words of `guantong check`, before anybody is asked."""
    from gateway.config.load import check_config

    problems = check_config(file)
    tell_problems(problems)
    if problems:
        fail(
            say(
                f"配置有 {len(problems)} 处错误；未作任何更改",
                f"{len(problems)} mistakes in the configuration; nothing was changed",
            ),
            2,
        )


def _ask(data_dir: Path, file: Path, *, dry_run: bool, text: str | None = None) -> Answer:
    from gateway.apply.requests import NoCollectorError, Request, ask

    try:
        return ask(data_dir, Request("difference" if dry_run else "apply", str(file.absolute()), text))
    except NoCollectorError as error:
        fail(say(error.zh, error.en))
    except OSError as error:
        fail(f"{data_dir}: {error.strerror or error}")


def _tell(answer: Answer, *, dry_run: bool, as_json: bool) -> None:
    """Prints the answer; one that says no ends the command: code 2 for a wrong configuration, else 1."""
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
    if answer.failure:
        for problem in answer.problems if not as_json else ():
            typer.echo(say(problem.text_zh, problem.text), err=True)
        fail(say(answer.zh, answer.en), 2 if answer.failure == "problems" else 1)
    if as_json:
        return
    _show_difference(answer.difference)
    if dry_run:
        return
    if answer.number is not None:
        typer.echo(say(f"已应用，编号 {answer.number}", f"applied, kept as number {answer.number}"))


def _show_difference(difference: Difference) -> None:
    if difference.empty:
        typer.echo(say("没有差异", "no difference"))
        return
    signs = {"added": "+", "removed": "-", "changed": "~"}
    for change in difference.changes:
        keys = f"  ({', '.join(change.keys)})" if change.keys else ""
        what = say({"link": "链路", "device": "设备", "signal": "信号"}[change.what], change.what)
        typer.echo(f"{signs[change.how]} {what} {change.id}{keys}")
    if difference.links:
        listed = ", ".join(difference.links)
        typer.echo(say(f"重新建立的链路：{listed}", f"links that are begun anew: {listed}"))
    if difference.restart:
        listed = ", ".join(difference.restart)
        typer.echo(
            say(f"重启网关后才生效的部分：{listed}", f"what counts only when the gateway is started again: {listed}"),
            err=True,
        )


def _show_history(file: Path, *, as_json: bool) -> None:
    from gateway.apply.history import History, data_dir_of_text

    try:
        data_dir = data_dir_of_text(file, os.environ)
    except OSError as error:
        fail(f"{file}: {error.strerror or error}")
    rows: list[dict[str, Any]] = []
    for kept in History(data_dir).list():
        names = [*(profile.name for profile in kept.profiles), *kept.shipped]
        rows.append(
            {
                "number": kept.number, "time": kept.time, "hash": kept.hash if as_json else kept.hash[:12],
                "profiles": names if as_json else ", ".join(names), "file": kept.file,
            }
        )  # fmt: skip
    headings = {
        "number": say("编号", "number"), "time": say("时间", "time"), "hash": say("校验值", "hash"),
        "profiles": say("设备模板", "profiles"), "file": say("文件", "file"),
    }  # fmt: skip
    show(rows, headings, as_json=as_json)


def _wanted(history: History, number: int | None) -> Kept:
    """The configuration to go back to: the one with this number, by default the one before the newest."""
    there = history.list()
    if number is None:
        if len(there) < 2:
            fail(say("没有更早的配置可供回退", "there is no earlier configuration to go back to"))
        return there[1]
    found = next((kept for kept in there if kept.number == number), None)
    if found is None:
        numbers = ", ".join(str(kept.number) for kept in there) or "-"
        fail(
            say(
                f"没有编号为 {number} 的配置；现有：{numbers}",
                f"there is no configuration {number}; there are {numbers}",
            ),
            2,
        )
    return found


def _rollback(file: Path, number: int | None, *, dry_run: bool, as_json: bool) -> None:
    """The file and its profiles are written as they were and applied; when that is refused they are put back."""
    from gateway.apply.history import History, data_dir_of_text, put_back, write_files

    before: dict[Path, str | None] = {}
    done = False
    try:
        data_dir = data_dir_of_text(file, os.environ)  # the edit that is to be undone may be wrong in any way
        history = History(data_dir)
        wanted = history.files(_wanted(history, number))
        if not dry_run:
            before = write_files(wanted, file)
        answer = _ask(data_dir, file, dry_run=dry_run, text=wanted.text if dry_run else None)
        done = not answer.failure
    except OSError as error:
        fail(f"{error.filename or file}: {error.strerror or error}")
    finally:
        if not done:
            put_back(before)
    _tell(answer, dry_run=dry_run, as_json=as_json)
