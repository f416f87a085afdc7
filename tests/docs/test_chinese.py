"""Each page that a user reads exists in Chinese too, with the same commands, configurations, tables and sections."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BILINGUAL = {"docs/troubleshooting.md"}
"""One page that speaks both languages, side by side; tests/docs/test_operating.py looks into each of its rows."""
ELSEWHERE = {"README.md": "README.zh.md", "deploy/README.md": "docs/zh/deployment.md"}
"""Pages whose Chinese does not lie under the same name in docs/zh. Changes, decisions and CONTRIBUTING are for developers: English."""
ENGLISH = sorted({*ELSEWHERE, *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))} - BILINGUAL)
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)\s*# .*$")
_CHINESE = re.compile("[\u4e00-\u9fff]")


def twin(english: str) -> str:
    """Where the Chinese of a page lies."""
    return ELSEWHERE.get(english) or english.replace("docs/", "docs/zh/", 1)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """The fenced blocks: what they are, and their lines without comments, which are translated. Of a session on a terminal the
    commands alone, and of one in a browser nothing: what is to be seen there is in the reader's language."""
    found = []
    for what, inside in _FENCED.findall(text):
        lines = [_COMMENT.sub("", line).rstrip() for line in inside.splitlines()]
        if what.startswith("console"):
            lines = [line for line in lines if line.startswith("$ ")]
        elif what.startswith("page"):
            lines = []
        found.append((what, [line for line in lines if line]))
    return found


def named(text: str) -> list[list[str]]:
    """What each row of a table is about, for the rows that are about a name in code. What a reader replaces (`NAME`, `名称`) counts as one."""
    rows = re.findall(r"^\| (`[^|]*) \|", _FENCED.sub("", text), re.MULTILINE)
    return [re.findall("`([^`]+)`", re.sub(r"[\u4e00-\u9fff]+|\b[A-Z]{3,}\b", "NAME", row)) for row in rows]


def shape(text: str) -> list[tuple[int, int, int]]:
    """Of each section the level of its heading, and how many points of lists and rows of tables it has."""
    parts = re.split(r"^(#+) .*$", _FENCED.sub("", text), flags=re.MULTILINE)[1:]
    return [
        (len(marks), len(re.findall(r"^(?:-|\d+\.) ", part, re.M)), len(re.findall(r"^\|", part, re.M)))
        for marks, part in zip(parts[::2], parts[1::2], strict=True)
    ]


@pytest.mark.parametrize("page", ENGLISH)
def test_a_page_exists_in_chinese_with_the_same_blocks_tables_and_sections(page: str) -> None:
    assert (ROOT / twin(page)).is_file(), f"{page} has no Chinese: write {twin(page)}"
    english, chinese = read(page), read(twin(page))
    assert blocks(chinese) == blocks(english)
    assert named(chinese) == named(english)
    assert shape(chinese) == shape(english)


@pytest.mark.parametrize("page", ENGLISH)
def test_every_name_that_the_english_page_quotes_stands_in_the_chinese_one(page: str) -> None:
    """Keys, options, states, reasons, paths: what is one word in code. What a reader replaces may be called otherwise."""

    def names(path: str) -> set[str]:
        quoted = re.findall("`([^`]+)`", _FENCED.sub("", read(path)))
        return {name for name in quoted if not re.search(r"\s|[\u4e00-\u9fff]|\b[A-Z]{3,}\b", name)}

    assert sorted(names(page) - names(twin(page))) == []


@pytest.mark.parametrize("page", ENGLISH)
def test_the_two_languages_of_a_page_lead_to_each_other(page: str) -> None:
    def targets(path: str) -> set[Path]:
        return {((ROOT / path).parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", read(path))}

    assert (ROOT / twin(page)).resolve() in targets(page)
    assert (ROOT / page).resolve() in targets(twin(page))


@pytest.mark.parametrize("page", ENGLISH)
def test_the_chinese_of_a_page_is_chinese(page: str) -> None:
    for paragraph in re.split(r"\n\s*\n", _FENCED.sub("", read(twin(page)))):
        words = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|^\|.*\|$", "", paragraph, flags=re.MULTILINE)
        if len(re.findall(r"\b[A-Za-z]{3,}\b", words)) > 5:
            assert _CHINESE.search(words), paragraph


def test_no_chinese_page_is_left_of_one_that_is_gone() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/zh/**/*.md")}
    assert there <= {twin(page) for page in ENGLISH}


def test_what_is_said_to_speak_both_languages_does() -> None:
    for page in BILINGUAL:
        for heading in re.findall(r"^#+ (.*)$", read(page), re.MULTILINE):
            assert _CHINESE.search(heading), heading
            assert re.search("[A-Za-z]{3}", heading), heading
