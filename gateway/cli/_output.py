"""What a command prints: colour and tables in a terminal, plain text or JSON otherwise."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
import typer


def chinese() -> bool:
    """True when the terminal's language is Chinese (LC_ALL, LC_MESSAGES, LANG)."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return value.lower().startswith("zh")
    return (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese"))


def say(zh: str, en: str) -> str:
    """The text in the terminal's language."""
    return zh if chinese() else en


def fail(message: str, code: int = 1) -> NoReturn:
    """Prints what is wrong, on standard error, and ends with `code`."""
    typer.echo(
        typer.style("error: ", fg="red", bold=True) + message if sys.stderr.isatty() else f"error: {message}", err=True
    )
    raise typer.Exit(code)


def show(rows: Sequence[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    """A table of `rows`: `columns` maps keys to headings. JSON (one array) with `as_json`, tab-separated where no terminal is."""
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        sys.stdout.buffer.flush()
        return
    if not sys.stdout.isatty():
        typer.echo("\t".join(columns.values()))
        for row in rows:
            typer.echo("\t".join(_text(row.get(key)) for key in columns))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns.values(), box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(_coloured(_text(row.get(key))) for key in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


_COLOURS = {
    "ok": "green", "good": "green", "up": "green", "degraded": "yellow", "recovering": "yellow", "starting": "yellow",
    "uncertain": "yellow", "failed": "red", "bad": "red", "down": "red", "stopped": "red", "unknown": "yellow",
}  # fmt: skip


def _coloured(text: str) -> Any:
    from rich.text import Text

    return Text(text, style=_COLOURS.get(text, ""))
