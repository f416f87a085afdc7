"""For how long the default budget holds the demonstration: what it writes each second, as measured, on real pages."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.collect.budget import Budget
from gateway.config.models import OutboxSettings
from gateway.ledger.outbox import ROW, Outbox
from schemas.wire import Kind

DEMO = ((Kind.READINGS, 5, 215), (Kind.EVENT, 1, 320), (Kind.PROGRESS, 1, 175))
"""Kind, messages a second, bytes of a body as it is stored (compressed): of two minutes of the demonstration with all of its devices up,
81 to 140 readings a second; rounded up. `make bench-outbox` measures it anew."""
SECONDS = 600
DAYS = 35


def test_35_days_of_the_demonstration_fit_into_the_default_budget(tmp_path: Path) -> None:
    """On what the file really takes: rows, index, free space in pages."""
    box = Outbox(tmp_path / "outbox.sqlite", "process")
    box.begin()
    empty = box.size
    for second in range(SECONDS):
        for kind, many, size in DEMO:
            for _ in range(many):
                box.append(kind, os.urandom(size))
        if second % 20 == 0:
            box.commit()
    box.commit()
    took = (box.size - empty) / SECONDS
    assert took * 86_400 * DAYS < Budget(OutboxSettings().budget, "oldest").allowed
    assert 0.8 < box.written / (box.size - empty) < 1.1, (
        "what is reckoned for the time that is left is near to what is taken"
    )
    box.close()


def test_what_is_reckoned_for_a_row_holds_for_the_usual_sizes(tmp_path: Path) -> None:
    for number, size in enumerate((140, 220, 320)):
        box = Outbox(tmp_path / f"{number}.sqlite", "process")
        box.begin()
        empty = box.size
        for _ in range(2000):
            box.append(Kind.READINGS, os.urandom(size))
        box.commit()
        assert abs((box.size - empty) / 2000 - size - ROW) < 0.1 * (size + ROW)
        box.close()
