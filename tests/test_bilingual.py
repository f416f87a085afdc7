"""Every text that exists in two languages, as the source has it: no half is missing, and both tell of the same things."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from schemas.bilingual import Bilingual, chinese, of_error, spoken

ROOT = Path(__file__).parent.parent
_HAN = re.compile(r"[一-鿿]")
_WORD = re.compile(r"[A-Za-z]*[a-z]{3,}")
_PLACE = re.compile(r"'[^']*'|`[^`]*`|\{[^}]*\}|\S*[:/._=-]\S+|--?\w+|[A-Z]\w*")
"""What is the same in both languages: code, addresses, options, names."""


_CHINESE_NAMES = re.compile(r"贯通|[一-鿿]+/[一-鿿]+|\([^)]*\)")
"""What an English text may have of Chinese: the product's name, units of China, and the Chinese word in brackets."""


class Pair(NamedTuple):
    """A text in both languages; `where` is its file and line."""

    where: str
    en: ast.expr
    zh: ast.expr


def pairs(tree: ast.Module, file: str) -> Iterator[Pair]:
    """Every pair in a module: calls that take both, keywords and constants whose names end with the language."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            where = f"{file}:{node.lineno}"
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in ("Bilingual", "Words") and len(node.args) == 2:
                yield Pair(where, *node.args)
            elif name == "say" and len(node.args) == 2:
                yield Pair(where, node.args[1], node.args[0])
            elif name == "Finding" and len(node.args) in (4, 6):
                yield Pair(where, node.args[3], node.args[2])
                if len(node.args) == 6:
                    yield Pair(where, node.args[5], node.args[4])
            given = {word.arg: word.value for word in node.keywords if word.arg}
            for prefix in ("", "fix_"):
                en, zh = given.get(f"{prefix}en"), given.get(f"{prefix}zh")
                if en is not None and zh is not None:
                    yield Pair(where, en, zh)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for name, value in constants.items():
        if name.endswith("_EN"):
            yield Pair(f"{file}:{value.lineno}", value, constants[f"{name[:-3]}_ZH"])


def literal(text: ast.expr) -> str | None:
    """The written part of a text, with {} for each placeholder; None for what is no text that is written here."""
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return text.value
    if isinstance(text, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}"
            for part in text.values
        )
    if isinstance(text, ast.BinOp) and isinstance(text.op, ast.Add):
        left, right = literal(text.left), literal(text.right)
        return None if left is None and right is None else f"{left or '{}'}{right or '{}'}"
    return None


def placeholders(text: ast.expr) -> set[str]:
    """What is put into a text, by the names it is made of; those of one language count as those of the other."""
    names: set[str] = set()
    for node in ast.walk(text):
        if isinstance(node, ast.FormattedValue):
            for part in ast.walk(node.value):
                if isinstance(part, ast.Name):
                    names.add(part.id)
                elif isinstance(part, ast.Attribute):
                    names.add(part.attr)
    same = {re.sub(r"^(zh|en)$|_(zh|en)$", "", name.lower()) for name in names}
    return same - {"", "chinese", "map", "join", "str", "repr", "len", "sorted", "say", "told", "spoken", "of_error"}


def every_pair() -> list[Pair]:
    found: list[Pair] = []
    for package in ("schemas", "adapters", "gateway", "simulators"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found += pairs(ast.parse(path.read_text(encoding="utf-8")), str(path.relative_to(ROOT)))
    return found


PAIRS = every_pair()


def test_there_are_texts() -> None:
    assert len(PAIRS) > 700


def test_no_half_is_missing() -> None:
    wrong = []
    for pair in PAIRS:
        en, zh = literal(pair.en), literal(pair.zh)
        if en is None and zh is None:
            continue
        if (en is None or bool(en.strip())) != (zh is None or bool(zh.strip())):
            wrong.append(f"{pair.where}: {en!r} / {zh!r}")
    assert not wrong, "\n".join(wrong)


def test_the_chinese_half_is_chinese_and_the_english_half_is_not() -> None:
    wrong = []
    for pair in PAIRS:
        en, zh = literal(pair.en), literal(pair.zh)
        if en is None or zh is None:
            continue
        a_command = en == zh and en.startswith(("sudo ", "chmod ", "guantong "))
        if not _HAN.search(zh) and _WORD.search(_PLACE.sub("", en)) and not a_command:
            wrong.append(f"{pair.where}: no Chinese in {zh!r}, for {en!r}")
        if _HAN.search(_CHINESE_NAMES.sub("", en)):
            wrong.append(f"{pair.where}: Chinese in the English {en!r}")
    assert not wrong, "\n".join(wrong)


def test_both_halves_tell_of_the_same_things() -> None:
    wrong = [
        f"{pair.where}: {sorted(placeholders(pair.en) ^ placeholders(pair.zh))}: {literal(pair.en)!r} / {literal(pair.zh)!r}"
        for pair in PAIRS
        if literal(pair.en) is not None
        and literal(pair.zh) is not None
        and placeholders(pair.en) != placeholders(pair.zh)
    ]
    assert not wrong, "\n".join(wrong)


def test_a_bilingual_text_is_its_english_wherever_a_string_is_taken() -> None:
    text = Bilingual("no answer", "无应答")
    assert text == "no answer"
    assert {text: 1}["no answer"] == 1
    assert (chinese(text), chinese("meter-01")) == ("无应答", "meter-01")
    assert (spoken(text, "zh"), spoken(text, "en"), spoken(text, "de")) == ("无应答", "no answer", "no answer")
    assert type(spoken(text, "en")) is str
    assert chinese(of_error(ValueError(text))) == "无应答"
    assert of_error(ValueError("plain")) == "plain"
    assert of_error(ValueError()) == ""


def test_a_bilingual_text_survives_being_copied() -> None:
    import copy
    import pickle

    text = Bilingual("no answer", "无应答")
    for again in (copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (again, again.zh) == ("no answer", "无应答")


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ('Bilingual("the cable is loose", "")', test_no_half_is_missing),
        ('Bilingual("the cable is loose", "the cable")', test_the_chinese_half_is_chinese_and_the_english_half_is_not),
        ('Words("电缆 is loose", "电缆松动")', test_the_chinese_half_is_chinese_and_the_english_half_is_not),
        ('say(f"设备 {a} 无应答", f"device {b} does not answer")', test_both_halves_tell_of_the_same_things),
    ],
)
def test_each_mistake_would_be_found(source: str, test: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PAIRS", list(pairs(ast.parse(source), "a.py")))
    assert callable(test)
    with pytest.raises(AssertionError, match=r"a\.py:1"):
        test()
