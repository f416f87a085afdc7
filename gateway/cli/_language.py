"""The command in the reader's language: what it prints of itself (help, mistakes in what was typed) in a Chinese terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from gateway.cli._output import chinese


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
