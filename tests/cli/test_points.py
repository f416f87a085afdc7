"""`guantong points` from the template to a sound configuration and back."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from openpyxl import load_workbook
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.config.load import check_config, load_config
from gateway.points.exporting import comparable, template
from schemas.library import load_profile

runner = CliRunner()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def _filled(directory: Path) -> Path:
    """A table in CSV of which the examples are real devices."""
    file = directory / "ours.csv"
    file.write_bytes(template("csv").decode("utf-8-sig").replace("示例-", "").encode("gb18030"))
    return file


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv"])
def test_template_is_written_once(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert runner.invoke(app, ["points", "template", str(file)]).exit_code == 0
    again = runner.invoke(app, ["points", "template", str(file)])
    assert again.exit_code == 1
    assert "--force" in again.output
    assert runner.invoke(app, ["points", "template", str(file), "--force", "--language", "zh"]).exit_code == 0
    if name.endswith("xlsx"):
        assert load_workbook(io.BytesIO(file.read_bytes())).sheetnames == ["设备", "点位"]
    assert runner.invoke(app, ["points", "template", str(tmp_path / "t.pdf")]).exit_code == 2


def test_import_export_import(tmp_path: Path) -> None:
    answer = runner.invoke(app, ["points", "import", str(_filled(tmp_path))])
    assert answer.exit_code == 0, answer.output
    assert "3 devices, 4 points" in answer.output
    written = tmp_path / "ours.yaml"
    assert check_config(written) == []
    assert runner.invoke(app, ["points", "export", "-c", str(written), str(tmp_path / "again.xlsx")]).exit_code == 0
    answer = runner.invoke(app, ["points", "import", str(tmp_path / "again.xlsx")])
    assert answer.exit_code == 0, answer.output
    first, second = load_config(written), load_config(tmp_path / "again.yaml")
    assert [comparable(link) for link in first.links] == [comparable(link) for link in second.links]


def test_import_keeps_the_rest_of_a_configuration(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    assert runner.invoke(app, ["init", str(base)]).exit_code == 0
    target = tmp_path / "new.yaml"
    table = _filled(tmp_path)
    taken = runner.invoke(app, ["points", "import", str(table), "-c", str(base), "-o", str(target)])
    assert taken.exit_code == 2
    assert f"{target}:" in taken.output
    assert "meter-1" in taken.output
    assert not target.exists()
    table.write_bytes(table.read_bytes().replace(b"meter-1", b"meter-9"))
    answer = runner.invoke(app, ["points", "import", str(table), "-c", str(base), "-o", str(target)])
    assert answer.exit_code == 0, answer.output
    config = load_config(target)
    assert config.gateway.id == "workshop-1"
    assert [link.id for link in config.links] == ["meter", "plc-1", "meter-9", "meter-2"]


@pytest.mark.parametrize(("language", "said"), [("zh", "未导入任何内容"), ("en", "nothing was imported")])
def test_nothing_is_imported_halfway(tmp_path: Path, language: str, said: str) -> None:
    file = _filled(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"opcua", b"opcuax").replace(b"float32", b"flaot32"))
    answer = runner.invoke(app, ["points", "import", str(file), "--language", language])
    assert answer.exit_code == 2
    assert said in answer.output
    assert "ours.csv: " in answer.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours.csv"]


def test_a_profile(tmp_path: Path) -> None:
    rows = template("csv").decode("utf-8-sig").replace("示例-", "").splitlines()
    file = tmp_path / "meter.csv"
    file.write_text("\n".join([rows[0], *rows[2:4]]), encoding="utf-8")
    answer = runner.invoke(app, ["points", "import", str(file), "--profile", "our-meter"])
    assert answer.exit_code == 0, answer.output
    assert [s.name for s in load_profile(str(tmp_path / "our-meter.yaml")).signals] == ["temperature", "power/total"]
