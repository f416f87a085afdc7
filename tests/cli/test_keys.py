"""`guantong key`: what it writes is what serve reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.api.keys import KeyFile
from gateway.cli.app import app


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("GUANTONG_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("GUANTONG_CONFIG", raising=False)
    return CliRunner()


def test_a_key_that_is_added_is_let_in_until_it_is_revoked(key: CliRunner, tmp_path: Path) -> None:
    made = key.invoke(app, ["key", "add", "mes", "--role", "viewer"])
    assert made.exit_code == 0, made.output
    secret = made.stdout.splitlines()[0]
    found = KeyFile(tmp_path).verify(secret)
    assert found is not None
    assert (found.name, found.role) == ("mes", "viewer")
    listed = key.invoke(app, ["key", "list"])
    assert "mes" in listed.stdout
    assert secret not in listed.stdout
    assert secret not in (tmp_path / "keys.json").read_text()
    assert key.invoke(app, ["key", "revoke", "mes"]).exit_code == 0
    assert KeyFile(tmp_path).verify(secret) is None


def test_what_cannot_be_is_said_and_nothing_is_made(key: CliRunner, tmp_path: Path) -> None:
    assert key.invoke(app, ["key", "add", "mes"]).exit_code == 0
    for arguments, why in (
        (["add", "mes"], "already"),
        (["add", "a/b"], "is not a name"),
        (["revoke", "erp"], "no key named"),
    ):
        told = key.invoke(app, ["key", *arguments])
        assert told.exit_code == 1
        assert why in told.stderr
    assert [k.name for k in KeyFile(tmp_path).list()] == ["mes"]
