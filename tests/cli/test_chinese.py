"""The command in a Chinese terminal: help, and what it says of mistakes in what was typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli import _chinese
from gateway.cli._chinese_help import HELP
from gateway.cli._output import chinese
from gateway.cli.app import app

runner = CliRunner()
_HAN = re.compile(r"[一-鿿]")


@pytest.fixture(autouse=True)
def zh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("GUANTONG_LANGUAGE", "zh_CN.UTF-8")


def commands(command: Any, path: str = "guantong") -> Iterator[tuple[str, Any]]:
    """Every command and group of the tree, with what is typed for it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def texts(command: Any) -> Iterator[tuple[str, str]]:
    """What the help of a command says of it and of its options and arguments: (whose, text)."""
    yield "help", command.help or ""
    for parameter in command.params:
        yield parameter.name, getattr(parameter, "help", None) or ""


def test_every_command_option_and_argument_has_a_help_in_both_languages() -> None:
    root = typer.main.get_command(app)
    missing = [
        f"{path}, {whose}: {text!r}"
        for path, command in commands(root)
        for whose, text in texts(command)
        if not text or not _HAN.search(HELP.get(text, ""))
    ]
    assert not missing, "write their Chinese into gateway/cli/_chinese_help.py:\n" + "\n".join(missing)


def test_the_chinese_help_has_nothing_that_no_command_says() -> None:
    root = typer.main.get_command(app)
    said = {text for _, command in commands(root) for _, text in texts(command)}
    said |= {command.epilog for _, command in commands(root) if command.epilog}
    assert sorted(set(HELP) - said) == []


def test_the_help_of_every_command_is_shown_in_chinese_alone() -> None:
    english = typer.main.get_command(app)
    for path, command in commands(english):
        if path == "guantong simulate":
            continue  # all it is given goes to the simulators, the request for help as well
        answer = runner.invoke(app, [*path.split()[1:], "--help"])
        assert answer.exit_code == 0, answer.output
        assert answer.output.startswith(f"用法：{path} ")
        shown = "".join(answer.output.split())
        for whose, text in texts(command):
            assert "".join(HELP[text].split()) in shown or path == "guantong ledger", (path, whose, answer.output)
        for word in (
            "Usage",
            "Options",
            "Arguments",
            "Commands",
            "Example",
            "default:",
            "required",
            "env var",
            "Show this",
        ):
            assert word not in answer.output, (path, answer.output)


def test_lines_fit_into_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = runner.invoke(app, ["browse", "--help"]).output.splitlines()
    assert max(map(_chinese.shown_width, lines)) <= 80
    assert not [line for line in lines if line.lstrip()[:1] in "。，；、" and line.strip()]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--nope"], "错误：没有选项 --nope"),
        (["nope"], "错误：没有命令 'nope'。"),
        (["appl"], "错误：没有命令 'appl'。是否指 'apply'？"),
        (["check", "--confi", "x"], "错误：没有选项 --confi（可用：--config, --json）"),
        (["read"], "错误：缺少参数 'device'。"),
        (["read", "a", "b", "c"], "错误：多余的参数：c"),
        (["check", "--config"], "错误：选项 '--config' 需要一个值。"),
        (["demo", "--plain=3"], "错误：选项 '--plain' 不带值。"),
        (["browse", "x", "--depth", "abc"], "错误：'--depth' 的值无效：应为整数"),
        (["browse", "x", "--depth", "1000"], "错误：'--depth' 的值无效：应不大于 100"),
        (["browse", "x", "--depth", "0"], "错误：'--depth' 的值无效：应不小于 1"),
        (["demo", "--speed", "fast"], "错误：'--speed' 的值无效：应为数字"),
        (["key", "add", "x", "--role", "king"], "错误：'--role' 的值无效：'king' 不在以下范围："),
    ],
)
def test_a_mistake_in_what_was_typed_is_told_in_chinese(typed: list[str], said: str) -> None:
    answer = runner.invoke(app, typed)
    assert answer.exit_code == 2
    assert said in answer.output
    assert "用法：guantong" in answer.output or "--plain" in said or "--config'" in said
    for word in ("Error", "Usage", "Try "):
        assert word not in answer.output


def test_a_group_without_a_command_shows_its_help() -> None:
    answer = runner.invoke(app, ["points"])
    assert answer.exit_code == 2
    assert "命令：\n  template  写出带下拉选项和示例的空点表" in answer.output


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GUANTONG_LANGUAGE": "zh"}, True),
        ({"GUANTONG_LANGUAGE": "en", "LC_ALL": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8"}, False),
    ],
)
def test_the_language_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool
) -> None:
    for name in ("GUANTONG_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chinese() is expected


def test_an_english_terminal_sees_no_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUANTONG_LANGUAGE", "en")
    answer = runner.invoke(app, ["demo", "--help"])
    assert answer.output.startswith("Usage: guantong demo [OPTIONS]")
    assert not _HAN.search(answer.output)
    assert "Error: No such option: --nope" in runner.invoke(app, ["--nope"]).output


def test_the_help_of_the_simulators_is_in_the_terminals_language(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulators.__main__ import _parser

    text = _parser().format_help()
    options = [line for line in text.splitlines() if line.startswith("  -")]
    assert text.startswith("用法：python -m simulators")
    assert len(options) >= 10
    for word in ("usage", "options:", "default", "show this", "device ids"):
        assert word not in text
    monkeypatch.setenv("GUANTONG_LANGUAGE", "en")
    english = _parser().format_help()
    assert english.startswith("usage: python -m simulators")
    assert not _HAN.search(english)
