"""`guantong ledger --verify`: a sound ledger has no finding, and each way to break one has its own."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.config.models import StoreSettings
from gateway.ledger.outbox import Outbox
from gateway.ledger.receiver import Receiver
from gateway.ledger.verify import Verified, verify
from gateway.store import Writer, open_reader, open_writer
from gateway.store.witness import Witness
from schemas.wire import Batch, Birth, Done, Event, Extra, Gap, Held, Kind, Link, Progress, SignalBirth

T0 = 1_760_000_000_000_000
SECOND = 1_000_000
_encode = msgspec.msgpack.encode
runner = CliRunner()


def signals() -> list[SignalBirth]:
    return [SignalBirth(point, f"s{point}", "r1", "float64", "V", "measurement", "a") for point in (1, 2)]


class Line:
    """An outbox, and what has come of it into a store, without a bus."""

    def __init__(self, folder: Path, writer: Writer) -> None:
        self.folder, self.writer = folder, writer
        self.path = folder / "outbox.sqlite"
        self.outbox = Outbox(self.path)
        self.receiver = Receiver("gw")
        self.streams: list[str] = []
        self.seconds = 0

    def begin(self) -> None:
        self.streams.append(self.outbox.begin())
        self.put(Kind.BIRTH, Birth(T0, "dev", "a", signals=signals()))

    def put(self, kind: Kind, body: Any) -> None:
        self.outbox.append(kind, _encode(body))

    def work(self, many: int = 5) -> None:
        """Messages of every kind."""
        for _ in range(many):
            self.seconds += 1
            base = T0 + self.seconds * SECOND
            self.put(
                Kind.READINGS,
                Batch(
                    base, [1, 2, 1, 2], [0, 0, 1000, 2000], [float(self.seconds), 2**60 + self.seconds, float("nan"), None],
                    [0, 0, 0, 0x80890000], None, None, {0: Extra(base - 5, "raw")},
                ),
            )  # fmt: skip
            self.put(Kind.EVENT, [Event(f"e{self.seconds}", base, None, "a", "dev", "alarm", 100)])
            self.put(Kind.GAP, [Gap("dev", [1], base, base + 5, "overrun", 3)])
            self.put(Kind.PROGRESS, Progress(base, [Done("dev", "default", base + 2000)]))
        self.put(Kind.LINK, Link("dev", True, T0 + self.seconds * SECOND))
        self.outbox.commit()

    def deliver(self, upto: int | None = None, *, confirm: bool = True) -> None:
        """Brings what the outbox holds into the store, in the order of the streams."""
        self.outbox.pin(self.writer.store_id)
        for stream in self.outbox.streams():
            marks = self.writer.marks("gw", [stream.id])
            self.receiver.reset()
            self.receiver.learn([Held(stream.id, stream.low, stream.high)], marks)
            while True:
                for message in self.outbox.read(stream.id, marks[0].seq + 1, 100, 10**7):
                    if upto is None or message.last_seq <= upto:
                        assert self.receiver.offer(_encode(message), T0 + 3600 * SECOND, 0.0)
                steps = self.receiver.take(10**6, T0 + 3600 * SECOND)
                if not steps:
                    break
                self.writer.apply(steps)
                marks = self.writer.marks("gw", [stream.id])
            if confirm:
                self.outbox.set_confirmed(stream.id, marks[0].seq, 0.0)

    def break_outbox(self, statement: str, *given: Any) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            assert db.execute(statement, given).rowcount > 0, statement

    def break_store(self, statement: str, *given: Any) -> None:
        with closing(sqlite3.connect(self.folder / "store.sqlite", isolation_level=None)) as db:
            assert db.execute(statement, given).rowcount > 0, statement

    def verify(self) -> Verified:
        reader = open_reader(StoreSettings(), self.folder)
        try:
            return verify(self.path, Witness(reader), "gw", pause=lambda _: None)
        finally:
            reader.close()

    def codes(self) -> list[str]:
        return sorted({finding.code for finding in self.verify().findings})


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Two streams: the first drained, of the second a part is stored."""
    writer = open_writer(StoreSettings(), tmp_path, "UTC")
    assert writer.acquire("ingest-1", 3600)
    made = Line(tmp_path, writer)
    made.begin()
    made.work()
    made.deliver()
    made.begin()
    made.work()
    made.deliver(upto=12)
    yield made
    made.outbox.close()
    writer.close()


def test_a_sound_ledger_has_no_finding(line: Line) -> None:
    found = line.verify()
    assert found.findings == []
    assert (found.streams, found.messages) == (2, 22 + 23)
    assert (found.readings, found.events, found.gaps) == (20 + 12, 5 + 3, 5 + 2)
    assert found.dead_letters == 0


def test_what_is_trimmed_and_what_is_buried_is_no_finding(line: Line) -> None:
    line.outbox.trim(1.0)
    assert line.outbox.streams()[0].low > 1
    assert line.verify().findings == []
    line.outbox.drop_oldest(0)
    line.work(3)
    line.outbox.commit()
    assert line.verify().findings == []
    line.deliver()
    found = line.verify()
    assert found.findings == []
    assert found.gaps > 3


def test_readings_that_left_a_dead_letter_are_no_finding(line: Line) -> None:
    line.put(Kind.READINGS, Batch(T0 + 900 * SECOND, [77, 1], [0, 0], [1.0, 2.0]))
    line.put(Kind.READINGS, {"not": "a batch"})
    line.outbox.commit()
    line.deliver()
    found = line.verify()
    assert found.findings == []
    assert found.dead_letters == 2


def _damage(code: str, work: Callable[[Line], None]) -> Any:
    return pytest.param(code, work, id=f"{code}-{work.__name__}")


def a_body_was_changed(line: Line) -> None:
    (body,) = (message.body for message in line.outbox.read(line.streams[1], 2, 1, 10**6))
    line.break_outbox("UPDATE message SET body = ? WHERE pos = 2 AND seq = 6", body)


def a_row_was_deleted(line: Line) -> None:
    line.break_outbox("DELETE FROM message WHERE pos = 2 AND seq = 9")


def the_end_is_missing(line: Line) -> None:
    line.break_outbox("DELETE FROM message WHERE pos = 2 AND seq >= 20")


def all_is_missing(line: Line) -> None:
    line.break_outbox("DELETE FROM message WHERE pos = 2")


def the_end_has_another_hash(line: Line) -> None:
    line.break_outbox("UPDATE stream SET hash = ? WHERE pos = 2", os.urandom(32))


def a_body_is_no_message(line: Line) -> None:
    line.break_outbox("UPDATE message SET body = ?, enc = 0 WHERE pos = 2 AND seq = 23", b"\xc1")


def the_store_has_another_hash(line: Line) -> None:
    line.break_store("UPDATE stream SET hash = ? WHERE id = ?", os.urandom(32), line.streams[1])


def the_store_is_ahead(line: Line) -> None:
    line.break_store("UPDATE stream SET watermark = 1000 WHERE id = ?", line.streams[1])


def the_store_was_set_back(line: Line) -> None:
    line.outbox.trim(1.0)  # which makes durable what is confirmed
    line.break_store("UPDATE stream SET watermark = 3 WHERE id = ?", line.streams[0])


def another_gateway_owns_the_stream(line: Line) -> None:
    line.break_store("UPDATE stream SET gateway = 'other' WHERE id = ?", line.streams[0])


def the_outbox_is_of_another_store(line: Line) -> None:
    line.outbox.pin("elsewhere")


def a_reading_was_deleted(line: Line) -> None:
    line.break_store("DELETE FROM tail WHERE signal_id = 1 AND ts = ?", T0 + 2 * SECOND)


def a_reading_was_changed(line: Line) -> None:
    line.break_store("UPDATE tail SET num = 7.5 WHERE signal_id = 1 AND ts = ?", T0 + 2 * SECOND)


def a_status_was_changed(line: Line) -> None:
    line.break_store("UPDATE tail SET status = NULL WHERE signal_id = 2 AND ts = ?", T0 + 2 * SECOND + 2000)


def a_nan_was_changed(line: Line) -> None:
    line.break_store(
        "UPDATE tail SET exact = ? WHERE signal_id = 1 AND ts = ?",
        json.dumps({"v": {"$float": "inf"}}),
        T0 + 2 * SECOND + 1000,
    )


def a_gap_was_deleted(line: Line) -> None:
    line.break_store("DELETE FROM gap WHERE cause = 'overrun' AND start_ts = ?", T0 + 2 * SECOND)


def an_event_was_deleted(line: Line) -> None:
    line.break_store("DELETE FROM event WHERE id = 'e3'")


def a_device_was_deleted(line: Line) -> None:
    line.break_store("DELETE FROM device WHERE id = 'dev'")


def a_signal_was_deleted(line: Line) -> None:
    line.break_store("DELETE FROM signal WHERE name = 's2'")


def a_loss_has_no_gap(line: Line) -> None:
    line.break_store("UPDATE stream SET lost = 4 WHERE id = ?", line.streams[0])


def it_is_no_outbox(line: Line) -> None:
    line.outbox.close()
    for name in ("outbox.sqlite-wal", "outbox.sqlite-shm"):
        (line.folder / name).unlink(missing_ok=True)
    line.path.write_bytes(os.urandom(8192))


@pytest.mark.parametrize(
    ("code", "work"),
    [
        _damage("chain", a_body_was_changed),
        _damage("hole", a_row_was_deleted),
        _damage("hole", the_end_is_missing),
        _damage("hole", all_is_missing),
        _damage("chain", the_end_has_another_hash),
        _damage("body", a_body_is_no_message),
        _damage("fork", the_store_has_another_hash),
        _damage("ahead", the_store_is_ahead),
        _damage("confirmed", the_store_was_set_back),
        _damage("owner", another_gateway_owns_the_stream),
        _damage("other_store", the_outbox_is_of_another_store),
        _damage("reading_missing", a_reading_was_deleted),
        _damage("reading_missing", a_reading_was_changed),
        _damage("reading_missing", a_status_was_changed),
        _damage("reading_missing", a_nan_was_changed),
        _damage("gap_missing", a_gap_was_deleted),
        _damage("event_missing", an_event_was_deleted),
        _damage("birth_missing", a_device_was_deleted),
        _damage("point", a_signal_was_deleted),
        _damage("loss_not_told", a_loss_has_no_gap),
        _damage("unreadable", it_is_no_outbox),
    ],
)
def test_each_way_to_break_it_is_found(line: Line, code: str, work: Callable[[Line], None]) -> None:
    work(line)
    assert code in line.codes()


def test_a_tombstone_whose_gap_is_missing(line: Line) -> None:
    line.outbox.drop_oldest(0)
    line.deliver()
    assert line.codes() == []
    line.break_store("DELETE FROM gap WHERE cause = 'dropped'")
    assert line.codes() == ["gap_missing"]


def test_a_recorded_loss_is_no_finding(line: Line) -> None:
    line.outbox.set_confirmed(line.streams[1], 23, 0.0)  # by another store, say
    line.outbox.trim(1.0)
    line.deliver()
    reader = open_reader(StoreSettings(), line.folder)
    assert sorted(record.lost for record in reader.streams()) == [0, 11]
    reader.close()
    assert line.verify().findings == []


def test_what_moves_meanwhile_is_no_finding(line: Line) -> None:
    """A stream with a finding is walked again: here the outbox is whole again by then."""
    whole = line.path.with_name("whole.sqlite")
    with closing(sqlite3.connect(line.path)) as source, closing(sqlite3.connect(whole)) as target:
        source.backup(target)
    a_row_was_deleted(line)
    waited = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        with closing(sqlite3.connect(whole)) as source, closing(sqlite3.connect(line.path)) as target:
            source.backup(target)

    reader = open_reader(StoreSettings(), line.folder)
    found = verify(line.path, Witness(reader), "gw", pause=pause)
    reader.close()
    assert (found.findings, len(waited)) == ([], 1)


def test_the_command(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUANTONG_LANGUAGE", raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr("gateway.ledger.verify._PAUSE", 0.0)
    file = line.folder / "c.yaml"
    file.write_text("gateway: {id: gw}\ndata_dir: .\n", encoding="utf-8")
    command = ["ledger", "--config", str(file), "--verify"]
    sound = runner.invoke(app, command)
    assert (sound.exit_code, "0 findings" in sound.output) == (0, True), sound.output
    before = {path.name: path.stat().st_size for path in line.folder.iterdir() if "shm" not in path.name}
    an_event_was_deleted(line)
    broken = runner.invoke(app, [*command, "--json"])
    assert broken.exit_code == 1
    document = json.loads(broken.stdout)
    assert [finding["code"] for finding in document["findings"]] == ["event_missing"]
    assert document["walked"]["streams"] == 2
    chinese = runner.invoke(app, command, env={"GUANTONG_LANGUAGE": "zh"})
    assert "有 1 个已确认的事件不在存储中：e3" in chinese.output
    after = {path.name: path.stat().st_size for path in line.folder.iterdir() if "shm" not in path.name}
    assert set(after) == set(before), "nothing is written beside"
    line.writer.close()
    shutil.move(line.folder / "store.sqlite", line.folder / "gone.sqlite")
    alone = runner.invoke(app, [*command, "--json"])
    assert alone.exit_code == 1
    assert json.loads(alone.stdout)["findings"] == []
    assert "only the outbox was checked" in alone.stderr
    line.path.rename(line.folder / "gone")
    assert "there is no outbox" in runner.invoke(app, command).output
