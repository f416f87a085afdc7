"""Logs: one JSON object a line for machines, one line of text for people."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from gateway.logs import JsonLines, Lines, configure


def record(level: int = logging.WARNING, **more: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "guantong.collect", "levelno": level, "levelname": logging.getLevelName(level), "created": 1_800_000_000.25,
         "msg": "%s: %d 个点位", "args": ("链路 1", 3), **more}
    )  # fmt: skip


def test_a_line_of_json() -> None:
    line = JsonLines("collect").format(record())
    assert "链路" in line
    assert json.loads(line) == {
        "event": "链路 1: 3 个点位", "logger": "guantong.collect", "level": "warning", "role": "collect",
        "timestamp": "2027-01-15T08:00:00.250000Z",
    }  # fmt: skip


def test_an_exception_stays_in_its_line() -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        line = JsonLines("ingest").format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: bad\nvalue")


def test_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Lines("serve").format(record()).startswith("\x1b[33m")
    assert Lines("serve").format(record(logging.INFO)).endswith("serve   info     guantong.collect: 链路 1: 3 个点位")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in Lines("serve").format(record())


def test_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure("collect", "info")
        logging.getLogger("asyncua").info("a whole message")
        logging.getLogger("guantong.x").info("told")
        logging.getLogger("guantong.x").debug("not told")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["told"]


def test_a_role_imports_nothing_for_show() -> None:
    """They cost megabytes in each role."""
    heavy = ("rich", "pygments", "typer", "numpy", "pandas", "pint", "fastapi", "sqlalchemy", "asyncua", "pymodbus")
    code = f"import sys, gateway.roles; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
