"""What operators read names every state, cause and policy, and quotes what the gateway really says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from gateway.config.models import OutboxSettings
from schemas import wire

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
TROUBLE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


def first_cells(page: str, heading: str) -> list[str]:
    """The first column of the first table below the row that begins with `heading`."""
    table = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None, heading
    return [line.split("|")[1].strip() for line in table[1].splitlines()]


def quoted(cell: str) -> list[str]:
    found: list[str] = re.findall(r"`([^`]+)`", cell)
    return found


def test_every_cause_of_a_gap() -> None:
    assert [name for cell in first_cells(OPERATING, "cause") for name in quoted(cell)] == [c.value for c in wire.Cause]


def test_every_state() -> None:
    assert [name for cell in first_cells(OPERATING, "state") for name in quoted(cell)] == list(get_args(wire.State))


def test_every_policy() -> None:
    policies = get_args(OutboxSettings.model_fields["policy"].annotation)
    assert [name for cell in first_cells(OPERATING, "`outbox.policy`") for name in quoted(cell)] == list(policies)


@pytest.fixture(scope="module")
def said() -> str:
    """Everything that the gateway may say: its sources, the table of statuses, the Makefile. Strings in two pieces are joined."""
    files = [
        *ROOT.glob("gateway/**/*.py"),
        *ROOT.glob("adapters/**/*.py"),
        ROOT / "schemas/data/statuscodes.csv",
        ROOT / "Makefile",
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s+f?"', "", text)


def test_what_is_quoted_is_what_it_says(said: str) -> None:
    cells = [
        cell
        for heading in ("you see · 提示", "reason · 原因", "you see · 现象")
        for cell in first_cells(TROUBLE, heading)
    ]
    cells += [
        line.split("|")[1] for line in TROUBLE.split("## Bus and store")[1].splitlines() if line.startswith("| `")
    ]
    phrases = {phrase for cell in cells for phrase in quoted(cell)}
    assert len(phrases) > 25
    assert sorted(phrase for phrase in phrases if phrase not in said) == []


def test_each_row_is_told_in_both_languages() -> None:
    for line in TROUBLE.splitlines():
        if line.startswith("| ") and "---" not in line:
            _, english, chinese = (cell.strip() for cell in line.strip("|").split("|"))
            assert english, line
            assert re.search(r"[\u4e00-\u9fff]", chinese), line
