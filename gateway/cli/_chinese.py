"""Chinese help and Chinese words for what typer says by itself: headings, defaults, mistakes in what was typed."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.exceptions import TyperException

from gateway.cli._chinese_help import HELP

_EXAMPLES = re.compile(r"^Examples?: ")
_HEADINGS = {"Options": "选项", "Arguments": "参数", "Commands": "命令"}
_EXTRAS = (
    (re.compile(r"\[default: "), "[默认："), (re.compile(r"; default: "), "；默认："),
    (re.compile(r"\[env var: "), "[环境变量："), (re.compile(r"; env var: "), "；环境变量："),
    (re.compile(r"(?:; |(?<=\[))required\]"), "必填]"),
)  # fmt: skip
_HELP_OPTION = "Show this message and exit."

MISTAKES: tuple[tuple[str, str], ...] = (
    (r"No such command (.+?)\. Did you mean (.+)\?", r"没有命令 {0}。是否指 {1}？"),
    (r"No such command (.+)\.", r"没有命令 {0}。"),
    (r"No such option: (\S+) \(Possible options: (.+)\)", r"没有选项 {0}（可用：{1}）"),
    (r"No such option: (.+)", r"没有选项 {0}"),
    (r"Missing argument (.+?)\. Choose from:\s*(.+)", r"缺少参数 {0}。可选：{1}"),
    (r"Missing option (.+?)\. Choose from:\s*(.+)", r"缺少选项 {0}。可选：{1}"),
    (r"Missing argument (.+)\.", r"缺少参数 {0}。"),
    (r"Missing option (.+)\.", r"缺少选项 {0}。"),
    (r"Missing command\.", r"缺少命令。"),
    (r"Got unexpected extra argument\(s\) \((.+)\)", r"多余的参数：{0}"),
    (r"Option (.+) does not take a value\.", r"选项 {0} 不带值。"),
    (r"Option (.+) requires an argument\.", r"选项 {0} 需要一个值。"),
    (r"Option (.+) requires (\d+) arguments\.", r"选项 {0} 需要 {1} 个值。"),
    (r"Argument (.+) takes (\d+) values\.", r"参数 {0} 需要 {1} 个值。"),
    (r"Invalid value for (.+?): (.+)", r"{0} 的值无效：{1}"),
    (r"Invalid value: (.+)", r"值无效：{0}"),
    (r"Could not open file (.+?): (.+)", r"无法打开文件 {0}：{1}"),
)  # fmt: skip
"""What typer finds wrong in what was typed, and the same in Chinese; `{0}` is the first group."""
VALUES: tuple[tuple[str, str], ...] = (
    (r"Input should be a valid integer.*", "应为整数"),
    (r"Input should be a valid number.*", "应为数字"),
    (r"Input should be a valid boolean.*", "应为 true 或 false"),
    (r"Input should be greater than or equal to (.+)", "应不小于 {0}"),
    (r"Input should be less than or equal to (.+)", "应不大于 {0}"),
    (r"Input should be greater than (.+)", "应大于 {0}"),
    (r"Input should be less than (.+)", "应小于 {0}"),
    (r"(?:Value error, )?(.+) is not one of (.+)\.", "{0} 不在以下范围：{1}"),
    (r"(?:File|Directory|Path) (.+) does not exist\.", "{0} 不存在"),
    (r"(?:File|Directory|Path) (.+) is a (?:file|directory)\.", "{0} 的类型不对"),
    (r"(?:File|Directory|Path) (.+) is not (?:readable|writable)\.", "{0} 没有读写权限"),
)  # fmt: skip
"""What is wrong with a value."""


def translate(command: Any) -> None:
    """Puts Chinese texts into a tree of commands (click's objects, made anew for each run)."""
    command.context_class = _context_class(command.context_class)
    if command.help:
        command.help = HELP.get(command.help, command.help)
        command.short_help = command.help.split("。")[0].split("；")[0]
    if command.epilog:
        command.epilog = HELP.get(command.epilog) or _EXAMPLES.sub("示例：", command.epilog)
    for parameter in command.params:
        text = getattr(parameter, "help", None)
        if text:
            parameter.help = HELP.get(text, text)
    for below in getattr(command, "commands", {}).values():
        translate(below)


def mistake(message: str) -> str:
    """A message of typer's about what was typed; one that is not known stays as it is."""
    return _said(message, MISTAKES, VALUES)


def _said(message: str, *tables: Sequence[tuple[str, str]]) -> str:
    for pattern, chinese in tables[0]:
        found = re.fullmatch(pattern, message, re.DOTALL)
        if found is not None:
            groups = [_said(group, *tables[1:]) if tables[1:] else group for group in found.groups()]
            return chinese.format(*groups)
    return message


@contextmanager
def telling() -> Iterator[None]:
    """Shows a mistake in what was typed as typer does, in Chinese, and ends the process with its code."""
    try:
        yield
    except typer.Abort:
        typer.echo("已中止。", err=True)
        sys.exit(1)
    except TyperException as error:
        _show(error)


def _show(error: Any) -> None:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # the help of a group that was named without a command
        typer.echo(message, err=True)
        sys.exit(error.exit_code)
    if context is not None:
        typer.echo(
            f"{context.get_usage()}\n用 '{context.command_path} {context.help_option_names[0]}' 查看帮助。\n", err=True
        )
    typer.echo(f"错误：{mistake(message)}", err=True)
    sys.exit(error.exit_code)


# --------------------------------------------------------------------------------------------------------------- layout

_CONTEXTS: dict[type, type] = {}


def _context_class(base: type[Any]) -> type[Any]:
    """The command's context with a formatter that knows Chinese headings and the width of Chinese letters."""
    if base in _CONTEXTS.values():
        return base
    if base not in _CONTEXTS:
        formatter = type("Formatter", (_Chinese, base.formatter_class), {})
        _CONTEXTS[base] = type(base.__name__, (base,), {"formatter_class": formatter})
    return _CONTEXTS[base]


class _Chinese:
    """Mixed into typer's formatter of help."""

    width: int
    current_indent: int
    write: Any

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        del prefix
        args = args.replace("[OPTIONS]", "[选项]").replace("COMMAND [ARGS]...", "命令 [参数]...")
        self._lines(wrapped(f"用法：{prog} {args}", self.width), "")

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{_HEADINGS.get(heading, heading)}：\n")

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        for number, paragraph in enumerate(text.split("\n\n")):
            if number:
                self.write("\n")
            self._lines(wrapped(" ".join(paragraph.split("\n")), self.width - len(indent)), indent)

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        first_width = min(max((shown_width(first) for first, _ in rows), default=0), col_max) + col_spacing
        for first, second in rows:
            self.write(f"{'':>{self.current_indent}}{first}")
            lines = wrapped(_row(second), max(self.width - first_width - 2, 10))
            fits = shown_width(first) <= first_width - col_spacing
            indent = " " * (first_width + self.current_indent)
            self.write(" " * (first_width - shown_width(first)) if fits else f"\n{indent}")
            self.write(f"\n{indent}".join(lines) + "\n")

    def _lines(self, lines: Sequence[str], indent: str) -> None:
        self.write("".join(f"{indent}{line}\n" for line in lines))


def _row(text: str) -> str:
    text = "显示本帮助并退出。" if text == _HELP_OPTION else text
    for pattern, chinese in _EXTRAS:
        text = pattern.sub(chinese, text)
    return text


def shown_width(text: str) -> int:
    """Columns of a terminal that a text takes: Chinese letters take two (Unicode Standard Annex #11)."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at blanks and between Chinese letters, never before a punctuation mark."""
    lines, line = [], ""
    for part in re.findall(r"\s+|\[[^\]]*\]|[⺀-鿿，；：）？！]|[^\s\[⺀-鿿，；：）？！]+|.", text):
        if line.strip() and shown_width(line + part.rstrip()) > width and part[0] not in "。，；：）、？！":
            lines.append(line.rstrip())
            line = ""
        line += part if line else part.lstrip()
    return [*lines, line.rstrip()] if line.strip() or not lines else lines
