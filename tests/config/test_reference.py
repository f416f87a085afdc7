"""The generated reference and schema say what the models say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from gateway.config.load import check_config
from gateway.config.reference import EXAMPLE, generated, main, markdown, schema


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
