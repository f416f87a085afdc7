"""What the REST API says, beside what the store has."""

from __future__ import annotations

import base64
import math
from typing import Any, Protocol

from schemas.times import from_rfc3339
from tests.chain.installation import Installation
from tests.chain.truth import same
from tests.servers.waiting import eventually


def rest_value(value: Any) -> Any:
    """A stored value as the REST API writes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class Answers(Protocol):
    """What has a REST API."""

    def get(self, path: str) -> Any: ...


def latest_of(gateway: Answers) -> dict[str, dict[str, Any]]:
    """`latest` of all signals, by their public ids; page after page."""
    found = {}
    path: str | None = "/latest?match=*/**&limit=100"
    while path is not None:
        page = gateway.get(path.removeprefix("/api/v1"))
        found.update({item["signal"]: item for item in page["items"]})
        path = page["next"]
    return found


def latest_agrees(gateway: Installation, *, without: frozenset[str] = frozenset(), timeout: float = 10.0) -> int:
    """Waits until `latest` of every signal is a stored reading that is not older than the newest one of a moment ago.

    `without` are devices that never gave a value. Returns how many signals there are.
    """

    def agrees() -> int:
        names = {s.id: (s.device, s.name) for s in gateway.reader.signals() if s.device not in without}
        newest = {row.signal: row for row in gateway.reader.snapshot().rows}
        items = latest_of(gateway)
        for number, (device, name) in names.items():
            item, row = items[f"{device}/{name}"], newest[number]
            assert item["ts"] is not None, item
            ts = from_rfc3339(item["ts"])
            assert (ts, item.get("n", 0)) >= (row.ts, row.n), (item, row)
            (stored,) = [
                reading
                for piece in gateway.reader.history([number], ts, ts + 1)
                for reading in piece
                if reading.n == item.get("n", 0)
            ]
            assert same(item["value"], rest_value(stored.value)), (item, stored)
            assert item["status"] == stored.status, (item, stored)
        return len(names)

    return eventually(agrees, timeout, what="latest is what is stored", interval=0.2)
