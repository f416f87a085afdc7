"""The first hour as it is written down in `docs/first-hour.md`, read as steps that can be taken.

A `console` block is what is typed into a terminal (lines that begin with `$`) and what is answered; with `console background` the command goes on
running. A line of the answer that ends with `]: TEXT` is a question and what was typed. `...` stands for any lines; numbers may differ.
A `page` block is what is done in the browser, one step a line:

    open URL
    click ROLE "NAME"               a button, link, tab, checkbox or treeitem, by the name that a screen reader says
    fill "LABEL" with TEXT
    choose "LABEL": OPTION
    upload "LABEL": FILE
    see TEXT                        waits for it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

KEY, POINT, MENTAL, BUTTON = 0.28, 1.1, 1.35, 0.2
"""Seconds of the keystroke-level model for a typist of 40 words a minute: a key, pointing with a mouse, preparing oneself, pressing a button
(Card, Moran, Newell: The Psychology of Human-Computer Interaction, 1983, chapter 8)."""

_FENCE: Final = re.compile(r"^```(console|console background|page)\s*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_STEPS: Final = {
    "open": re.compile(r"open (?P<what>\S+)"),
    "click": re.compile(r'click (?P<role>[a-z]+) "(?P<what>[^"]+)"'),
    "fill": re.compile(r'fill "(?P<what>[^"]+)" with (?P<text>.+)'),
    "choose": re.compile(r'choose "(?P<what>[^"]+)": (?P<text>.+)'),
    "upload": re.compile(r'upload "(?P<what>[^"]+)": (?P<text>\S+)'),
    "see": re.compile(r"see (?P<what>.+)"),
}


class TranscriptError(ValueError):
    """A line of the transcript that is no step."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something typed into a terminal: the line, what is typed at its questions, and the answer that is expected."""

    line: str
    answers: tuple[str, ...]
    expected: tuple[str, ...]
    background: bool = False

    @property
    def keys(self) -> int:
        """Keys that are pressed, Enter included."""
        return len(self.line) + 1 + sum(len(answer) + 1 for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Step:
    """Something done in the browser."""

    do: Literal["open", "click", "fill", "choose", "upload", "see"]
    what: str
    text: str = ""
    role: str = ""

    @property
    def keys(self) -> int:
        """Keys that are pressed."""
        match self.do:
            case "open":
                return len(self.what) + 1
            case "fill":
                return len(self.text)
            case _:
                return 0

    @property
    def clicks(self) -> int:
        """Clicks: a choice opens the list and takes one; a file is looked for in a dialogue."""
        return {"click": 1, "fill": 1, "choose": 2, "upload": 3}.get(self.do, 0)


Taken = Command | Step


@dataclass(slots=True)
class Part:
    """A section of the transcript with the steps in it."""

    title: str
    steps: list[Taken] = field(default_factory=list)

    @property
    def keys(self) -> int:
        """Keys that are pressed in it."""
        return sum(step.keys for step in self.steps)

    @property
    def clicks(self) -> int:
        """Clicks in it."""
        return sum(step.clicks for step in self.steps if isinstance(step, Step))

    @property
    def hands(self) -> float:
        """Seconds that a person needs for it by the keystroke-level model, looking and reading included as preparing."""
        return self.keys * KEY + self.clicks * (POINT + BUTTON) + MENTAL * len(self.steps)


def read(text: str) -> list[Part]:
    """The sections (`##`) of a transcript that have steps. Raises TranscriptError."""
    parts = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        part = Part(section.partition("\n")[0].strip())
        for kind, body in _FENCE.findall(section):
            part.steps += _steps(body) if kind == "page" else _commands(body, kind.endswith("background"))
        if part.steps:
            parts.append(part)
    return parts


def _commands(body: str, background: bool) -> Iterator[Command]:
    for block in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, rest = block.partition("\n")
        told = [one for one in rest.splitlines() if one.strip()]
        answers = tuple(one.rpartition("]: ")[2].strip() for one in told if "]: " in one)
        yield Command(line.strip(), answers, tuple(one.partition("]: ")[0] for one in told), background)


def _steps(body: str) -> Iterator[Step]:
    for line in body.splitlines():
        if not line.strip():
            continue
        verb = line.split(maxsplit=1)[0]
        found = _STEPS[verb].fullmatch(line.strip()) if verb in _STEPS else None
        if found is None:
            raise TranscriptError(f"{line!r} is not a step")
        yield Step(verb, **found.groupdict())  # type: ignore[arg-type]


def differs(expected: Sequence[str], got: str) -> str:
    """The first expected line that the answer does not have, after those before it; empty when all are there. Numbers may differ."""
    # what is typed at a question is not in the answer, and with it the end of the line
    lines = iter([_plain(line) for line in got.replace("]: ", "]:\n").splitlines()])
    for line in expected:
        if line.strip() == "...":
            continue
        wanted = _plain(line)
        if not any(wanted in one for one in lines):
            return line
    return ""


def _plain(line: str) -> str:
    return re.sub(r"-?\d[\d.,:]*", "#", re.sub(r"\s+", " ", line.replace("|", " "))).strip()
