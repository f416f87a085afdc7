"""The generated reference and schema say what the models say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from gateway.config._reference_zh import SECTIONS
from gateway.config.load import check_config
from gateway.config.reference import EXAMPLE, chinese, generated, main, markdown, schema, sections

ROOT = Path(__file__).parents[2]


def test_committed_files_are_what_the_models_say() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, "run python -m gateway.config.reference"


def test_check_says_what_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    monkeypatch.setattr("gateway.config.reference.markdown", lambda: "other")
    assert main(["--check"]) == 1
    assert "docs/configuration.md" in capsys.readouterr().err


def test_the_example_of_the_reference_is_sound(tmp_path: Path) -> None:
    assert EXAMPLE in markdown()
    (tmp_path / "example.yaml").write_text(EXAMPLE)
    assert [str(p) for p in check_config(tmp_path / "example.yaml", {})] == []


def test_the_schema_accepts_what_the_models_accept() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    for example in schema()["examples"]:
        validator.validate(example)
    validator.validate(yaml.safe_load(EXAMPLE))
    case = Path(__file__).parents[1] / "cases" / "config" / "sound" / "config.yaml"
    validator.validate(yaml.safe_load(case.read_text()))
    assert not validator.is_valid({"bus": {"prot": 1}})
    assert json.loads(json.dumps(schema())) == schema()


def test_every_key_is_told_in_chinese_and_none_that_is_gone() -> None:
    titles = [title for title, _, _, _ in sections()]
    assert sorted(set(titles)) == sorted(titles), "two sections of one title"
    assert sorted(SECTIONS) == sorted(titles)
    for title, model, _, _ in sections():
        told = SECTIONS[title]
        assert set(told.keys) == set(model.model_fields), title
        assert list(told.keys) == list(model.model_fields), f"{title}: in the order of the model"
        for key, meaning in {**told.keys, "title": told.title, "sentence": told.sentence}.items():
            assert re.search("[\u4e00-\u9fff]", meaning), f"{title}, {key}"


def test_a_key_without_chinese_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SECTIONS["opcua: link"].keys, "heartbeat")
    with pytest.raises(
        LookupError, match=re.escape("_reference_zh.py lacks the Chinese of opcua: link.heartbeat; mend")
    ):
        chinese()
    monkeypatch.setitem(SECTIONS["opcua: link"].keys, "heartbeat", "心跳。")
    monkeypatch.setitem(SECTIONS["opcua: link"].keys, "heart", "心。")
    with pytest.raises(LookupError, match=re.escape("the models do not have: opcua: link.heart;")):
        chinese()


def test_the_chinese_page_has_the_keys_and_defaults_of_the_english_one() -> None:
    def rows(text: str) -> list[tuple[str, str]]:
        cells = [line.replace("\\|", "").split("|") for line in text.splitlines() if line.startswith("| `")]
        return [(row[1].strip(), re.sub(r"\*\*.*\*\*", "required", row[3].strip())) for row in cells if len(row) == 6]

    assert rows(chinese()) == rows(markdown())
    assert len(rows(chinese())) > 150
    assert EXAMPLE in chinese()
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall("^## (.*)$", chinese(), re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", chinese())) <= anchors
    prose = re.sub(r"`[^`]*`|\([^)]*\)|^```.*?^```$|<!--.*?-->", "", chinese(), flags=re.M | re.S)
    assert not re.search(r"\b(of|the|list|text|number|or)\b", prose), "a word that was not translated"


def test_no_role_carries_the_chinese_reference_in_memory() -> None:
    importing = {
        file.relative_to(ROOT).as_posix()
        for package in ("schemas", "adapters", "gateway")
        for file in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(?:from|import) .*(?:_reference_zh|config\.reference|config import reference)", file.read_text("utf-8"), re.M)
    }  # fmt: skip
    assert importing == {"gateway/config/reference.py"}
