"""`guantong dead-letters` on an SQLite store, beside a writer."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.config.models import StoreSettings
from gateway.store import Reader, Writer, open_writer
from tests.store.feed import SECOND, T0, Feed, birth, signal

runner = CliRunner()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("GUANTONG_LANGUAGE", raising=False)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Of a store with two dead letters: readings of a point that nobody knows, and something that is no message."""
    (tmp_path / "c.yaml").write_text("data_dir: .\n", encoding="utf-8")
    made = open_writer(StoreSettings(), tmp_path, "UTC")
    assert made.acquire("ingest-1", 3600)
    feed = Feed()
    made.apply([feed.birth(signal(1, "t")), feed.rows((1, 0, 1.0), (2, 1, 2.5))])
    made.apply([feed.step(poison="DecodeError: malformed", raw=bytes(range(0xC1, 0xF1)), kind=2, enc=0)])
    made.feed = feed  # type: ignore[attr-defined]
    yield made
    made.close()


def run(folder: Path, *words: str, language: str = "en") -> Result:
    command = ["dead-letters", "--config", str(folder / "c.yaml"), *words]
    return runner.invoke(app, command, env={"GUANTONG_LANGUAGE": language})


def ids(folder: Path, *words: str) -> list[tuple[int, str]]:
    answer = run(folder, "--json", *words)
    assert answer.exit_code == 0, answer.output
    return [(row["id"], row["state"]) for row in json.loads(answer.stdout)]


def test_what_waits_is_listed_and_shown(tmp_path: Path, writer: Writer) -> None:
    assert ids(tmp_path) == [(1, "waiting"), (2, "waiting")]
    table = run(tmp_path, language="zh").output
    assert "待处理" in table
    assert "point 2 is unknown in this stream" in table
    shown = run(tmp_path, "show", "1").output
    assert '"values": [\n    2.5\n  ]' in shown
    assert "point 2: unknown in this stream" in shown
    broken = run(tmp_path, "show", "2").output
    assert "cannot be decoded" in broken
    assert "00020  e1 e2" in broken
    document = json.loads(run(tmp_path, "show", "1", "--json").stdout)
    assert (document["signals"], document["kind"], document["seq"]) == ({"2": None}, "readings", 2)
    missing = run(tmp_path, "show", "77")
    assert missing.exit_code == 1
    assert "no dead letter 77" in missing.output


def test_replayed_by_ingest_while_the_command_waits(tmp_path: Path, writer: Writer) -> None:
    writer.apply([writer.feed.step(birth("press", signal(2, "u"), at=T0 + SECOND))])  # type: ignore[attr-defined]
    stop = threading.Event()

    def ingest() -> None:
        while not stop.wait(0.05):
            writer.replay()

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        answer = run(tmp_path, "replay", "--all")
    finally:
        stop.set()
        thread.join()
    assert answer.exit_code == 1, "one of the two can still not be stored"
    assert "1: replayed: stored 1" in answer.output
    assert "2: still cannot be stored: " in answer.output
    assert ids(tmp_path) == [(2, "waiting")]
    assert ids(tmp_path, "--all") == [(1, "replayed"), (2, "waiting")]
    again = run(tmp_path, "replay", "1", "--wait", "0")
    assert (again.exit_code, again.output) == (0, "no dead letter waits\n")


def test_asked_for_while_no_ingest_runs(tmp_path: Path, writer: Writer) -> None:
    answer = run(tmp_path, "replay", "2", "--wait", "0")
    assert answer.exit_code == 1
    assert "2: asked for; ingest does it when it runs" in answer.output
    assert ids(tmp_path) == [(1, "waiting"), (2, "requested")]


def test_a_flood_of_them_is_asked_for_as_a_whole(
    tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database takes no list of any length (PostgreSQL 65,535 parameters, SQLite 32,766 as it is delivered)."""
    asked: list[int] = []
    read = Reader.dead_letters

    def counted(self: Reader, **given: Any) -> Any:
        asked.append(len(given["ids"]))
        return read(self, **given)

    monkeypatch.setattr(Reader, "dead_letters", counted)
    many = 1_200
    with contextlib.closing(sqlite3.connect(tmp_path / "store.sqlite")) as db, db:
        columns = "at, gateway, stream, seq, reason, count, raw, kind, enc, state"
        rows = f"SELECT at, gateway, stream, seq, reason, count, raw, kind, enc, state FROM dead_letter, n WHERE id = 2 AND i <= {many}"
        series = f"WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {many})"
        db.execute(f"INSERT INTO dead_letter ({columns}) {series} {rows}")
    answer = run(tmp_path, "replay", "--all", "--wait", "0", "--json")
    assert answer.exit_code == 1, answer.output[-500:]
    assert [row["state"] for row in json.loads(answer.stdout)] == ["requested"] * (many + 2)
    assert max(asked) <= 500


def test_discarded_with_a_reason(tmp_path: Path, writer: Writer) -> None:
    assert run(tmp_path, "discard", "2").exit_code == 2
    assert run(tmp_path, "discard", "2", "--reason", " ").exit_code == 2
    assert run(tmp_path, "discard", "--reason", "x").exit_code == 2
    assert run(tmp_path, "discard", "2", "--all", "--reason", "x").exit_code == 2
    answer = run(tmp_path, "discard", "2", "--reason", "a test of the maker", language="zh")
    assert (answer.exit_code, answer.output) == (0, "已丢弃 1 条\n")
    again = run(tmp_path, "discard", "1", "2", "--reason", "once more")
    assert again.exit_code == 1
    assert "left as they are: 2" in again.output
    notes = [row["note"] for row in json.loads(run(tmp_path, "--all", "--json").stdout)]
    assert notes == ["once more", "a test of the maker"]
    assert ids(tmp_path) == []


def test_without_a_store(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data_dir: .\n", encoding="utf-8")
    for words in ((), ("show", "1"), ("replay", "--all"), ("discard", "--all", "--reason", "x")):
        answer = run(tmp_path, *words)
        assert answer.exit_code == 1, words
        assert "store sqlite" in answer.output
    assert not (tmp_path / "store.sqlite").exists()
