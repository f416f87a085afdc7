"""What a command prints: colour and tables in a terminal, plain text or JSON otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from schemas.bilingual import Language, of_error, spoken, terminal_language

if TYPE_CHECKING:
    from schemas.documents import Problem


def chinese() -> bool:
    """True when the terminal's language is Chinese."""
    return terminal_language(os.environ) == "zh"


def say(zh: str, en: str) -> str:
    """The text in the terminal's language."""
    return zh if chinese() else en


def language() -> Language:
    """The terminal's language."""
    return "zh" if chinese() else "en"


def told(text: str | BaseException) -> str:
    """A text that exists in both languages, or what an exception says, in the terminal's language."""
    return spoken(text if isinstance(text, str) else of_error(text), language())


def with_fix(error: BaseException, fix: str) -> str:
    """What an exception says, and what can be done, as two sentences."""
    what = told(error)
    if not fix:
        return what
    return f"{what.removesuffix('。')}。{told(fix)}" if chinese() else f"{what.removesuffix('.')}. {told(fix)}"


def tell_problems(problems: Sequence[Problem]) -> None:
    """Prints the mistakes of a document, one a line, on standard error."""
    for problem in problems:
        typer.echo(problem.text(language()), err=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Prints what is wrong, on standard error, and ends with `code`."""
    head = say("错误：", "error: ")
    typer.echo(
        typer.style(head, fg="red", bold=True) + told(message) if sys.stderr.isatty() else head + told(message),
        err=True,
    )
    raise typer.Exit(code)


def show(rows: Sequence[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    """A table of `rows`: `columns` maps keys to headings. JSON (one array) with `as_json`, tab-separated where no terminal is."""
    if as_json:
        left = memoryview(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        while left:  # with PYTHONUNBUFFERED a write may take a part alone
            left = left[sys.stdout.buffer.write(left) :]
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
