"""The commands. Each is small; what it needs it imports when it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway import __version__
from gateway.cli._language import Commands
from gateway.cli._output import fail, say, tell_problems

if TYPE_CHECKING:
    from gateway.config.models import Config

app = typer.Typer(
    name="guantong",
    cls=Commands,
    help="Guantong (贯通): OPC UA and Modbus in; one schema, one bus, one store and one REST API out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The configuration file; GUANTONG_CONFIG names it as well.", envvar="GUANTONG_CONFIG"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def load(config: Path | None) -> Config:
    """The configuration; every mistake in it is printed and ends the command with code 2."""
    from gateway.config.load import load_config
    from schemas.documents import DocumentError

    try:
        return load_config(config)
    except DocumentError as error:
        tell_problems(error.problems)
        fail(say(f"配置有 {len(error.problems)} 处错误", f"{len(error.problems)} mistakes in the configuration"), 2)


@app.command(epilog="Example: guantong run --config workshop.yaml")
def run(
    config: ConfigOption = None,
    role: Annotated[
        str | None,
        typer.Option(help="Only this role, in this process: collect, ingest or serve (for containers, systemd)."),
    ] = None,
) -> None:
    """Run the gateway: all roles (and the embedded broker) under one parent, or one role alone."""
    from gateway.roles import ROLES, start

    if role is not None:
        if role not in ROLES:
            fail(
                say(
                    f"--role {role!r}：请写 {'、'.join(ROLES)} 之一",
                    f"--role {role!r}: write one of {', '.join(ROLES)}",
                ),
                2,
            )
        raise typer.Exit(start(role, config))
    loaded = load(config)
    from gateway.cli._work import gateway_children, hand_over, taken_port
    from gateway.parent import Work

    _refuse_taken(
        [
            (loaded.api.host, loaded.api.port, "api.port", "GUANTONG_API_PORT"),
            *([("127.0.0.1", loaded.bus.port, "bus.port", "GUANTONG_BUS_PORT")] if loaded.bus.embedded else []),
        ],
        taken_port,
    )
    raise typer.Exit(hand_over(Work(gateway_children(loaded, config)), "gateway.parent"))


def _refuse_taken(wanted: list[tuple[str, int, str, str]], taken: Any) -> None:
    for host, port, option, variable in wanted:
        if port and taken(host, port):
            fail(
                say(
                    f"端口 {host}:{port} 已被占用；请用 {option} 或 {variable}={port + 1} 换一个端口",
                    f"port {host}:{port} is taken; move it with {option} or {variable}={port + 1}",
                )
            )


@app.command(
    epilog="Examples: guantong demo    guantong demo --api-port 8080 --mqtt-port 1884    guantong demo --language zh"
)
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where its configuration and data lie; a second start goes on from there.")
    ] = Path("var/demo"),
    api_port: Annotated[int, typer.Option(help="Port of the REST API.")] = 8000,
    mqtt_port: Annotated[int, typer.Option(help="Port of the embedded MQTT broker.")] = 1883,
    speed: Annotated[float, typer.Option(help="How much faster than life the simulated processes run.")] = 10.0,
    base_port: Annotated[
        int, typer.Option(help="First port of the simulators; other than 48400 only with a configuration to match.")
    ] = 48400,
    plain: Annotated[bool, typer.Option(help="No screen: one line every ten seconds.")] = False,
    language: Annotated[str | None, typer.Option(help="zh or en; the terminal's by default.")] = None,
) -> None:
    """Run a simulated workshop and the gateway, and show what goes on. Ctrl-C stops everything."""
    from gateway.cli._demo import start_demo

    raise typer.Exit(start_demo(directory, api_port, mqtt_port, speed, base_port, plain, language))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    epilog="Examples: guantong simulate --list    guantong simulate --devices imm-01,meter-01 --speed 10 --truth truth/",
)
def simulate(context: typer.Context) -> None:
    """Run simulated devices of the bundled workshop (all options: guantong simulate --help)."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "simulators", *context.args]))


@app.command(epilog="Examples: guantong init > workshop.yaml    guantong init --empty workshop.yaml")
def init(
    file: Annotated[Path | None, typer.Argument(help="Where to write it; standard output without.")] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Without machines: they are added on the page.")] = False,
) -> None:
    """Write a commented configuration to begin with."""
    from importlib.resources import files

    text = files("gateway").joinpath("start.yaml").read_text(encoding="utf-8")
    if empty:
        text = text.partition("\nlinks:\n")[0] + "\nlinks: [] # 设备可在网页上添加 / machines are added on the page\n"
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        fail(say(f"{file} 已存在，不会覆盖", f"{file} exists and is not overwritten"))
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    then = "run" if empty else "check"
    typer.echo(
        say(
            f"已写入 {file}。下一步：guantong {then} --config {file}",
            f"Wrote {file}. Next: guantong {then} --config {file}",
        )
    )


@app.command(epilog="Examples: guantong schema    guantong schema profile    guantong schema --list")
def schema(
    name: Annotated[str, typer.Argument(help="Which one; see --list.")] = "config",
    list_: Annotated[bool, typer.Option("--list", help="Only the names.")] = False,
) -> None:
    """Print the JSON Schema of a wire type, of profiles or of the configuration, or the AsyncAPI document of the bus."""
    from gateway.cli._schema import print_schema

    print_schema(name, only_names=list_)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(
        f"guantong {__version__} (Python {sys.version.split()[0]}, {os.uname().sysname if os.name == 'posix' else os.name})"
    )


# Each adds its commands to `app`, which must exist by then.
for _name in (
    "_apply",
    "_backup",
    "_browse",
    "_capture",
    "_certs",
    "_check",
    "_dead_letters",
    "_discover",
    "_doctor",
    "_explain",
    "_keys",
    "_ledger",
    "_live",
    "_points",
    "_support",
):
    import_module(f"gateway.cli.{_name}")
