"""The command and its reader: what it prints of itself (help, mistakes in what was typed) in a Chinese terminal, and its end when nobody reads
any more."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from gateway.cli._output import chinese

_READER_GONE: Final = 128 + 13
"""What a shell shows of a program that SIGPIPE has ended."""


class Commands(TyperGroup):
    """The root of the commands. In a Chinese terminal the tree is translated before anything of it is shown; in any other the Chinese words
    are not even loaded."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As the parent's."""
        if not chinese():
            return super().main(args, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        from gateway.cli import _chinese

        _chinese.translate(self)
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        with _chinese.telling():
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """As the parent's; a command whose output nobody reads any more (`guantong tail | head`) ends without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if not _unread():
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            raise typer.Exit(_READER_GONE) from None


def _unread() -> bool:
    """Whether standard output is a pipe or socket whose other end is closed; not so where it is no file at all."""
    watch = select.poll()
    try:
        watch.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
