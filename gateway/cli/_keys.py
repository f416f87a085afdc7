"""`guantong key`: keys of the API."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.api.keys import Role
from gateway.cli._output import fail, say, show, told, with_fix
from gateway.cli.app import ConfigOption, JsonOption, app, load

key_app = typer.Typer(
    help="Keys of the API. Only their hashes are stored; a key is shown once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(key_app, name="key")


@key_app.command(epilog="Example: guantong key add mes --role viewer")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    role: Annotated[Role, typer.Option(help="What it may do; only reading so far.")] = "viewer",
    config: ConfigOption = None,
) -> None:
    """Make a key and show it, once."""
    from gateway.api.keys import KeyFile, KeyFileError

    loaded = load(config)
    try:
        loaded.data_dir.mkdir(parents=True, exist_ok=True)
        key = KeyFile(loaded.data_dir).add(name, role)
    except KeyFileError as error:
        fail(with_fix(error, error.fix))
    except (ValueError, OSError) as error:
        fail(told(error))
    typer.echo(key)
    typer.echo(say("请立即保存：此密钥不会再次显示。", "Keep it now: it is not shown again."), err=True)


@key_app.command("list")
def list_(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the keys."""
    from gateway.api.keys import KeyFile, KeyFileError

    try:
        rows = [{"name": k.name, "role": k.role, "created": k.created} for k in KeyFile(load(config).data_dir).list()]
    except KeyFileError as error:
        fail(told(error))
    headings = {"name": say("名称", "name"), "role": say("角色", "role"), "created": say("创建时间", "created")}
    show(rows, headings, as_json=json)


@key_app.command(epilog="Example: guantong key revoke mes")
def revoke(name: Annotated[str, typer.Argument(help="Whose key ends.")], config: ConfigOption = None) -> None:
    """End a key."""
    from gateway.api.keys import KeyFile, KeyFileError

    try:
        KeyFile(load(config).data_dir).revoke(name)
    except KeyError:
        fail(
            say(f"没有名为 {name!r} 的密钥（guantong key list）", f"there is no key named {name!r} (guantong key list)")
        )
    except KeyFileError as error:
        fail(told(error))
    typer.echo(say(f"{name} 的密钥已作废", f"the key of {name} has ended"))
