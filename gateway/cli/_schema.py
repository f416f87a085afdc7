"""`guantong schema`."""

from __future__ import annotations

from importlib.resources import files

import typer

from gateway.cli._output import fail, say
from schemas.documents import nearest


def print_schema(name: str, *, only_names: bool) -> None:
    """Prints a generated document, or the names of all."""
    folder = files("schemas").joinpath("json")
    found = {f.name.rsplit(".", 1)[0]: f for f in folder.iterdir() if f.name.endswith((".json", ".yaml"))}
    if only_names:
        for known in sorted(found):
            typer.echo(known)
        return
    name = {"config": "configuration"}.get(name, name)
    if name not in found:
        near = nearest(name, found)
        hint = f"; {say('是否指', 'did you mean')} {near}?" if near else ""
        fail(
            say(
                f"没有名为 {name!r} 的 schema（guantong schema --list）", f"no schema {name!r} (guantong schema --list)"
            )
            + hint,
            2,
        )
    typer.echo(found[name].read_text(encoding="utf-8"), nl=False)
