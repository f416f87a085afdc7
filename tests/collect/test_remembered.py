"""Up to when everything is there, as the outbox remembers it: never ahead of what is durable."""

from __future__ import annotations

import random
from pathlib import Path

from gateway.collect.items import Progress, Readings
from gateway.collect.recorder import COMPLETE_TO
from schemas.wire import Done
from tests.collect.test_recorder import recording
from tests.servers.waiting import eventually_async


async def test_what_is_remembered_as_complete_is_not_ahead_of_a_full_disk(tmp_path: Path) -> None:
    """Readings that wait for room are lost when the process is killed: then the time up to which all is there is before them."""
    async with recording(tmp_path) as recorder:
        values = [random.random() for _ in range(3000)]  # nothing that shrinks much
        db = recorder.outbox._db
        db.execute(f"PRAGMA max_page_count={db.execute('PRAGMA page_count').fetchone()[0] + 2}")
        await recorder.put(Readings("d", "g", 0, list(range(3000)), list(range(3000)), values))
        await recorder.put(Progress(0, [Done("d", "g", 5000)]))
        await eventually_async(lambda: recorder.health.state == "failed")
        assert recorder.outbox.meta(COMPLETE_TO) is None
        db.execute("PRAGMA max_page_count=1000000")
        await eventually_async(lambda: recorder.health.state == "ok", 10)
        await eventually_async(lambda: recorder.outbox.meta(COMPLETE_TO))
        assert recorder.load_complete_to(["d"]) == {"d": {"g": 5000}}
