"""What counts for the usual ways can count: what the plain collector loses is seen, what it does not lose is not, and what is there twice is seen."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sqlite3
import struct
from pathlib import Path

import pytest

from simulators.truth import now_us
from tests.faults.numbered import NumberedDevice
from tests.faults.usual import FAULTS, PLAIN, Figures, Result, Rig, plan, ready
from tests.faults.usual_report import TEXTS, table
from tests.servers.waiting import eventually


def test_each_answer_of_the_device_is_another_one() -> None:
    device = NumberedDevice(3)
    whole, one, half = (struct.pack(">BHH", 3, address, count) for address, count in ((0, 6), (2, 2), (4, 1)))
    assert device.answer(whole) == struct.pack(">BB3I", 3, 12, 1, 1, 1)
    assert device.answer(one) == struct.pack(">BBI", 3, 4, 2)
    assert device.answer(half) == struct.pack(">BBH", 3, 2, 0)  # half of a number is none
    assert device.answer(whole) == struct.pack(">BB3I", 3, 12, 2, 3, 2)
    assert device.answer(struct.pack(">BHH", 3, 5, 2)) == b"\x83\x02"
    assert device.answer(struct.pack(">BHH", 4, 0, 2)) == b"\x84\x01"
    assert [len(times) for times in device.served] == [2, 3, 2]


def test_each_fault_comes_in_its_turn() -> None:
    count = len(FAULTS)
    assert sorted(plan(3, number) for number in range(1, count + 1)) == sorted(FAULTS)
    assert [plan(3, number) for number in range(1, 30)] == [plan(3, number) for number in range(1, 30)]
    assert [plan(3, number) for number in range(1, 30)] != [plan(4, number) for number in range(1, 30)]


@pytest.mark.chain
@pytest.mark.timeout(120)
def test_what_the_plain_collector_loses_is_counted(tmp_path: Path) -> None:
    with Rig(tmp_path, [PLAIN], signals=4, calm=1.0) as rig:
        since = ready(rig, 60)
        device, collector = rig.devices[PLAIN], rig.collectors[PLAIN]

        def polls(more: int) -> None:
            wanted = len(device.served[0]) + more
            eventually(lambda: len(device.served[0]) >= wanted, 30, what="the device is polled")

        polls(2)
        until = now_us()
        assert not rig.settle(until, 60)
        undisturbed = rig.figures(PLAIN, since, until)
        assert undisturbed.served >= 8
        assert (undisturbed.lost, undisturbed.twice) == (0, 0)

        rig.lines.refuse([PLAIN])
        rig.lines.cut([PLAIN])
        polls(2)  # what was read goes into the memory of a process that is then killed
        collector.kill()
        collector.start()
        rig.lines.restore([PLAIN])
        since, until = until, now_us()
        assert not rig.settle(until, 60)
        killed = rig.figures(PLAIN, since, until)
        assert 4 <= killed.lost <= killed.served
        assert killed.twice == 0

        with contextlib.closing(sqlite3.connect(rig.rows(PLAIN), timeout=20)) as db, db:
            copied = "device, signal, ts, value"
            first = "SELECT min(id) FROM reading"
            db.execute(f"INSERT INTO reading ({copied}) SELECT {copied} FROM reading WHERE id = ({first})")
            db.execute(
                f"INSERT INTO reading ({copied}) SELECT device, signal, ts + 1, value FROM reading WHERE id = ({first})"
            )
        again = rig.figures(PLAIN, 0, until)
        assert (again.twice, again.twice_keyed) == (2, 1)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_adds_up_the_runs_of_a_fault(language: str) -> None:
    def result(number: int, **figures: Figures) -> dict[str, object]:
        told = Result(9, number, "nothing", 1.0, figures, versions={"thing": "1.0"})
        return dataclasses.asdict(told)

    text = table(
        [
            result(
                1, guantong=Figures(served=1_000, in_gaps=2), plain=Figures(served=500, lost=3, twice=1, twice_keyed=1)
            ),
            result(2, guantong=Figures(served=1_000, in_gaps=1), plain=Figures(served=500, lost=4, recovered=False)),
        ],
        language,
    )
    row = next(line for line in text.splitlines() if line.startswith("| nothing "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["nothing", "2"]
    assert re.fullmatch(r"0 / 0 \(\S+ 3\)", cells[2])
    assert cells[3].startswith("7 / 1")
    assert cells[3].endswith("1")
    assert cells[4] == cells[5] == str(TEXTS[language]["none"])
    assert "3,000" in text
    assert "thing 1.0" in text
    assert "`make chaos-usual SEED=9 RUNS=2`" in text
