"""`guantong points` and `guantong test-read`: signals as a spreadsheet, and one point read before it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli._output import chinese, fail, say
from gateway.cli.app import ConfigOption, app, load

points = typer.Typer(
    name="points",
    help="Point tables: devices and signals as a spreadsheet (.xlsx) or CSV.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(points)

LanguageOption = Annotated[str | None, typer.Option(help="zh or en; the terminal's by default.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")]


def _language(language: str | None) -> str:
    if language is None:
        return "zh" if chinese() else "en"
    if language not in ("zh", "en"):
        fail(say(f"--language {language!r}：请写 zh 或 en", f"--language {language!r}: write zh or en"), 2)
    return language


def form_of(file: Path, gbk: bool = False) -> Any:
    """The form of a table by its file's name. Ends the command for another one."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return "csv-gbk" if gbk else "csv"
    if suffix != ".xlsx":
        fail(say(f"{file}：文件名应以 .xlsx 或 .csv 结尾", f"{file}: the name of a table ends with .xlsx or .csv"), 2)
    return "xlsx"


def save(data: bytes, file: Path, force: bool) -> None:
    """Writes a file whole; ends the command if it exists and may not be overwritten."""
    if file.exists() and not force:
        fail(say(f"{file} 已存在；加 --force 覆盖", f"{file} exists: overwrite it with --force"))
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(file)
    except OSError as error:
        fail(f"{file}: {error.strerror}")


GbkOption = Annotated[bool, typer.Option("--gbk", help="CSV in GBK instead of UTF-8.")]


@points.command(epilog="Examples: guantong points template points.xlsx    guantong points template points.csv --gbk")
def template(
    file: Annotated[Path, typer.Argument(help="The table to write: .xlsx or .csv.")] = Path("points.xlsx"),
    language: LanguageOption = None,
    gbk: GbkOption = False,
    force: ForceOption = False,
) -> None:
    """Write an empty point table with drop-downs and examples."""
    from gateway.points.exporting import template as made

    save(made(form_of(file, gbk), _language(language)), file, force)
    typer.echo(
        say(
            f"已写入 {file}。填写后：guantong points import {file}",
            f"Wrote {file}. Fill it in, then: guantong points import {file}",
        )
    )


@points.command(
    "import", epilog="Examples: guantong points import points.xlsx --output workshop.yaml    guantong points import points.csv --profile our-meter"
)  # fmt: skip
def import_(
    file: Annotated[Path, typer.Argument(help="The table: .xlsx or .csv (UTF-8 or GBK).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; beside the table by default.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Keep everything else of this configuration (its comments are lost)."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Write a profile of this name from the table's only device instead.")
    ] = None,
    language: LanguageOption = None,
    force: ForceOption = False,
) -> None:
    """Make a configuration (or a profile) of a point table; every bad cell is named, and then nothing is written."""
    from gateway.points import files
    from gateway.points._grid import TableError
    from gateway.points.importing import import_table, profile_of
    from schemas.documents import DocumentError

    spoken = _language(language)
    target = output or (file.parent / f"{profile}.yaml" if profile else file.with_suffix(".yaml"))
    if target.exists() and not force:
        fail(say(f"{target} 已存在；加 --force 覆盖", f"{target} exists: overwrite it with --force"))
    comment = f"guantong points import {file.name}"
    try:
        imported = import_table(file, base=target.absolute().parent)
        if profile is not None:
            problems = files.save_profile(files.to_yaml(profile_of(imported, profile, file.name), comment), target)
        else:
            base = files.base_data(config) if config is not None else None
            problems = files.save_configuration(files.to_yaml(files.configuration(imported, base), comment), target)
    except TableError as error:
        for wrong in error.problems:
            typer.echo(wrong.told(spoken), err=True)
        count = len(error.problems)
        fail(
            f"表中有 {count} 处错误，未导入任何内容"
            if spoken == "zh"
            else f"{count} mistakes in the table; nothing was imported",
            2,
        )
    except DocumentError as error:
        problems = error.problems
    except OSError as error:
        fail(f"{target}: {error.strerror}")
    for problem in problems:
        typer.echo(problem.text(spoken), err=True)
    if problems:
        fail(say("未导入任何内容", "nothing was imported"), 2)
    for notice in imported.notices:
        typer.echo(notice.told(spoken), err=True)
    devices = sum(len(link["devices"]) for link in imported.links)
    then = "" if profile else f"guantong check --config {target}"
    typer.echo(
        f"已写入 {target}：{devices} 个设备，{imported.points} 个点位。{'下一步：' + then if then else ''}"
        if spoken == "zh"
        else f"Wrote {target}: {devices} devices, {imported.points} points. {'Next: ' + then if then else ''}"
    )


@points.command(epilog="Example: guantong points export --config workshop.yaml points.xlsx")
def export(
    file: Annotated[Path, typer.Argument(help="The table to write: .xlsx or .csv.")],
    config: ConfigOption = None,
    language: LanguageOption = None,
    gbk: GbkOption = False,
    force: ForceOption = False,
) -> None:
    """Write the links, devices and signals of a configuration as a point table; what it cannot hold is named."""
    from gateway.points.exporting import export_table

    spoken = _language(language)
    data, notices = export_table(load(config), form_of(file, gbk), spoken)
    save(data, file, force)
    for notice in notices:
        typer.echo(notice.get(spoken), err=True)
    typer.echo(f"已写入 {file}" if spoken == "zh" else f"Wrote {file}")
