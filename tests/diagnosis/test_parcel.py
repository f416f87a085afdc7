"""The parcel for support: what is in it, and that no planted secret is."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.diagnosis.parcel import HIDDEN, Scrubber

PLANTED = (
    "hunter2-broker",
    "s3cr3t-store",
    "plc-passw0rd",
    "url-pa55",
    "env-tok3n-value",
    "MIIEvQIBADANBg",
    "assigned-42",
)


def config_in(tmp_path: Path) -> Path:
    (tmp_path / "plc.secret").write_text("plc-passw0rd\n")
    (tmp_path / "data" / "faults").mkdir(parents=True)
    (tmp_path / "data" / "keys.json").write_text('{"hash": "url-pa55"}')
    (tmp_path / "data" / "faults" / "m1-1.txt").write_text("refused: password=assigned-42\n")
    (tmp_path / "data" / "gateway.log").write_text(
        "connecting with hunter2-broker\nhttp://bob:url-pa55@10.0.0.1/x\nplc-passw0rd s3cr3t-store env-tok3n-value\n"
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\nall is well\n"
    )
    file = tmp_path / "workshop.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "data_dir": "data",
                "api": {"port": 0},
                "metrics": {"enabled": False},
                "bus": {"host": "127.0.0.1", "username": "gw", "password": {"env": "BROKER_WORD"}},
                "store": {"password": {"env": "STORE_PASSWORD"}},
                "links": [
                    {
                        "id": "press", "adapter": "opcua",
                        "settings": {
                            "endpoint": "opc.tcp://127.0.0.1:1", "security": "none", "user": "bob",
                            "password": {"file": "plc.secret"},
                        },
                        "devices": [{"id": "m1", "profile": "euromap77-injection"}],
                    }
                ],
            },
        )
    )  # fmt: skip
    return file


def test_no_planted_secret_is_in_the_parcel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_WORD", "hunter2-broker")
    monkeypatch.setenv("STORE_PASSWORD", "s3cr3t-store")
    monkeypatch.setenv("GUANTONG_TEST_TOKEN", "env-tok3n-value")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    out = tmp_path / "parcel.zip"
    answer = CliRunner().invoke(app, ["support", "--config", str(config_in(tmp_path)), "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with zipfile.ZipFile(out) as parcel:
        content = {name: parcel.read(name).decode() for name in parcel.namelist()}
    assert {
        "configuration.yaml", "doctor.json", "ledger.json", "health.json", "metrics/collect.txt", "frames/press.txt",
        "faults/m1-1.txt", "logs/gateway.log",
    } <= set(content)  # fmt: skip
    for name, text in content.items():
        for secret in PLANTED:
            assert secret not in text, name
    assert "all is well" in content["logs/gateway.log"]
    assert "Python 3" in content["doctor.json"]
    assert "not available" in content["frames/press.txt"]
    packed = yaml.safe_load(content["configuration.yaml"])
    assert packed["bus"] == {"host": "127.0.0.1", "username": HIDDEN, "password": {"env": "BROKER_WORD"}}
    assert packed["links"][0]["settings"]["password"] == {"file": "plc.secret"}
    assert packed["links"][0]["settings"]["endpoint"] == "opc.tcp://127.0.0.1:1"


def test_a_secret_in_clear_is_hidden_whatever_its_form() -> None:
    scrub = Scrubber([])
    tree = {
        "api_key": ["a-clear", {"b": "secret"}],
        "nested": [{"PASSWORD": 12345678}],
        "url": "mqtt://u:pw@h/x",
        "n": 1,
    }
    assert scrub.tree(tree) == {
        "api_key": HIDDEN, "nested": [{"PASSWORD": HIDDEN}], "url": f"mqtt://{HIDDEN}@h/x", "n": 1,
    }  # fmt: skip


def test_short_values_do_not_blot_out_the_text() -> None:
    assert Scrubber(["a", ""]).text("a parcel") == "a parcel"


def test_what_a_request_was_authorised_by_is_hidden() -> None:
    assert Scrubber([]).text("Authorization: Bearer abc.def ok") == f"Authorization: Bearer {HIDDEN} ok"
