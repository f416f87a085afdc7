"""`guantong ledger --verify` against PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ledger.verify import verify
from gateway.store.witness import Witness
from tests.ledger.test_verify import Line
from tests.store.conftest import Target


@pytest.mark.parametrize("target", ["postgresql"], indirect=True)
def test_against_postgresql(target: Target, tmp_path: Path) -> None:
    made = Line(tmp_path, target.writer())
    made.begin()
    made.work()
    made.deliver()
    witness = Witness(target.reader())
    found = verify(made.path, witness, "gw", pause=lambda _: None)
    assert (found.findings, found.readings, found.events) == ([], 20, 5)
    with made.writer._transaction() as connection:
        connection.exec_driver_sql("DELETE FROM reading WHERE signal_id = 2")
    assert [one.code for one in verify(made.path, witness, "gw", pause=lambda _: None).findings] == ["reading_missing"]
    made.outbox.close()
