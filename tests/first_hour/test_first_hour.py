"""`docs/first-hour.md` and its Chinese twin are done as they are written: two strange machines, the network cut, no YAML by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.first_hour.transcript import Command, Part, Step, differs, read
from tests.servers.needs import cut_off

DOCS = Path(__file__).parents[2] / "docs"
CHILLER = (
    "r30_temperature",
    "r31_temperature",
    "r40",
    "r42",
    "r44_voltage",
    "r46",
    "r48_counter",
    "r50",
    "r52_counter",
)
"""What is proposed for the chiller: int16 × 0.1 at 30 and 31, float32 in the order CDAB from 40 to 47 and at 50, counters of two words."""
TRANSCRIPTS = {"en": DOCS / "first-hour.md", "zh": DOCS / "zh" / "first-hour.md"}


def served(log: Path, of: dict[str, str]) -> dict[str, set[Any]]:
    """Every value that a machine has served, by the signals' ids; `of` has the id of each name in the log."""
    found: dict[str, set[Any]] = {signal: set() for signal in of.values()}
    for line in log.read_text(encoding="utf-8").splitlines():
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        if "change" in told:
            found[of[told["change"]]].add(told["value"])
        for name, node in told.get("nodes", {}).items():
            found[of[name]].add(node["value"])
    return found


@pytest.mark.timeout(400)
@pytest.mark.chain
@pytest.mark.usefixtures("chromium")
@pytest.mark.parametrize(("language", "speed"), [("en", 1), ("zh", 20)])
def test_two_strange_machines_from_their_addresses_to_stored_rows(language: str, speed: int, tmp_path: Path) -> None:
    """In English as it is written; in Chinese the chiller works, and is watched, twenty times as fast."""
    walk = [sys.executable, "-m", "tests.first_hour.walk", TRANSCRIPTS[language], tmp_path, language, str(speed)]
    command = [*cut_off(), *walk]
    walked = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert walked.returncode == 0, walked.stdout[-2000:] + walked.stderr[-4000:]
    told = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    names = ("Temperature", "Pressure", "Level", "BottlesTotal", "BottlesRejected", "Speed", "Running", "Recipe")
    ids = {
        name: next(i for i in told["stored"] if i.startswith("filler/") and i.endswith(f"/{_snake(name)}"))
        for name in names
    }
    truth = served(tmp_path / "filler.log", ids)
    for name, signal in ids.items():
        rows = told["stored"][signal]
        assert rows, f"nothing of {signal} is stored"
        strange = [row for row in rows if row[1] not in truth[signal]]
        assert not strange, f"{name}: stored, and never served: {strange}"
    unnamed = [address for address in CHILLER if not told["stored"].get(f"chiller/{address}")]
    assert not unnamed, f"not proposed, or without rows: {unnamed}"
    (celsius, *_) = told["stored"]["chiller/r30_temperature"]
    assert -20 < celsius[1] < 20, "the brine is some degrees, and not tens of them"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("language", TRANSCRIPTS)
def test_the_times_are_of_these_steps(language: str) -> None:
    """The table of times in the transcript counts the keys and clicks that are in it."""
    text = TRANSCRIPTS[language].read_text(encoding="utf-8")
    parts = read(text)
    assert len(parts) >= 3
    for part in parts:
        row = re.search(rf"^\| {re.escape(part.title)} \| (\d+) \| (\d+) \|", text, re.MULTILINE)
        assert row, f"the table has no row {part.title!r}"
        assert (int(row[1]), int(row[2])) == (part.keys, part.clicks), part.title


def test_both_languages_take_the_same_steps() -> None:
    en, zh = ([_shape(part) for part in read(path.read_text(encoding="utf-8"))] for path in TRANSCRIPTS.values())
    assert en == zh


def _shape(part: Part) -> list[str]:
    return [step.do if isinstance(step, Step) else step.line.split()[0] for step in part.steps]


def test_a_transcript_is_read_as_steps() -> None:
    text = """
# Title
## First
```console
$ guantong probe 10.0.0.1
3 units found
Go on? [y/N]: y
$ guantong version
```
```page
fill "Address" with 10.0.0.1 or so
click treeitem "A B"
choose "Order": CDAB
see done
```
## Only words
"""
    (part,) = read(text)
    assert part.title == "First"
    assert part.steps[0] == Command("guantong probe 10.0.0.1", ("y",), ("3 units found", "Go on? [y/N"))
    assert part.steps[2:] == [
        Step("fill", "Address", "10.0.0.1 or so"), Step("click", "A B", role="treeitem"),
        Step("choose", "Order", "CDAB"), Step("see", "done"),
    ]  # fmt: skip
    assert part.clicks == 4
    assert part.keys == len("guantong probe 10.0.0.1") + 1 + 2 + len("guantong version") + 1 + len("10.0.0.1 or so")


def test_answers_are_compared_in_order_and_without_their_numbers() -> None:
    got = "found   3 units\nrange 0..49\nwrote x.xlsx"
    assert differs(["found 4 units", "...", "wrote x.xlsx"], got) == ""
    assert differs(["wrote x.xlsx", "found 4 units"], got) == "found 4 units"
    assert differs(["wrote y.xlsx"], got) == "wrote y.xlsx"
