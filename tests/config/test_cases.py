"""Configurations with mistakes, one folder each: `config.yaml` and what has to be said about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config.load import check_config, load_config
from gateway.config.resolve import resolve
from schemas.bilingual import chinese
from schemas.documents import DocumentError

CASES = Path(__file__).parents[1] / "cases" / "config"
NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_is_told(name: str) -> None:
    folder = CASES / name
    told = "".join(f"{problem}\n" for problem in check_config(folder / "config.yaml", {}))
    assert told.replace(f"{folder}/", "") == (folder / "expected.txt").read_text()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sound"])
def test_every_mistake_is_told_in_chinese_as_well(name: str) -> None:
    for problem in check_config(CASES / name / "config.yaml", {}):
        told = problem.text("zh")
        assert told != str(problem)
        assert ("发现" in told) == bool(problem.found)
        # whatever is a word in English is one in Chinese: only what was found, as it was written, may have none
        for part in (problem.expected, problem.fix):
            assert not part or re.search(r"[一-鿿]", chinese(part)) or "://" in part, (name, part)
        ours = re.sub(r"（[^）]*）", "", told)  # in brackets stands what a library said
        assert not re.search(r"\b(expected|found|which|Write|Did you mean)\b", ours), told


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sound", "secret-not-there")])
def test_none_of_them_starts(name: str) -> None:
    with pytest.raises(DocumentError):
        resolve(load_config(CASES / name / "config.yaml", {}), {})


def test_there_are_cases() -> None:
    assert len(NAMES) >= 20
    assert len((CASES / "ten-mistakes" / "expected.txt").read_text().splitlines()) == 10
