"""kill -9 of the collector beside a server that keeps a history: what it missed is in the store, once, and the gap is what was not kept."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.store.records import Reading
from schemas.wire import Cause, Flag
from tests.adapters.opcua_server import MACHINE, SmallServer
from tests.chain.conftest import InstallationFactory
from tests.chain.installation import Installation
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

KEPT = ("v0", "v1", "v2")
"""Variables with a history."""
NOT_KEPT = "v3"
VARIABLES = (*KEPT, NOT_KEPT)
Rows = dict[str, list[Reading]]
Served = dict[str, list[tuple[int, int]]]
"""Source time (µs) and value of all that a variable was."""


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer() as running:
        for name in KEPT:
            node = running.server.get_node(running.node(name))
            running.run(running.server.historize_node_data_change(node))
        yield running


def link(server: SmallServer) -> dict[str, Any]:
    """Two devices: one all of whose signals have a history, and one without."""
    devices = [
        {
            "id": device, "groups": {"default": {"period": "100ms"}},
            "signals": [
                {"name": name, "type": "int64", "address": {"node": f"nsu={MACHINE};s={name}"}} for name in names
            ],
        }
        for device, names in (("kept", KEPT), ("lost", (NOT_KEPT,)))
    ]  # fmt: skip
    return {
        "id": "press", "adapter": "opcua", "settings": {"endpoint": server.endpoint, "security": "none"},
        "devices": devices,
    }  # fmt: skip


def stored(gateway: Installation) -> Rows:
    names = {signal.id: signal.name for signal in gateway.reader.signals()}
    found: Rows = {name: [] for name in names.values()}
    for piece in gateway.reader.history(list(names)):
        for row in piece:
            found[names[row.signal]].append(row)
    return found


def write(server: SmallServer, served: Served, times: int) -> None:
    """New values of all variables, each of another time."""
    for _ in range(times):
        server.value += 1
        for name in VARIABLES:
            at = dt.datetime.now(dt.UTC)
            served[name].append((round(at.timestamp() * 1e6), server.value))
            server.write(name, server.value, SourceTimestamp=at)
        time.sleep(0.002)  # no two values of one time


def last_is_there(gateway: Installation, served: Served) -> None:
    """Wait until the newest value of each variable is stored, and everything before it is said to be there."""

    def there() -> bool:
        rows = stored(gateway)
        if not all(rows.get(name) and rows[name][-1].value == served[name][-1][1] for name in VARIABLES):
            return False
        end = max(times[-1][0] for times in served.values())
        complete = gateway.complete_to()
        return all(complete.get((device, "default"), 0) >= end for device in ("kept", "lost"))

    eventually(lambda: bool(gateway.complete_to()), 30, what="anything is stored", interval=0.1)
    eventually(there, 30, what="the newest values are stored", interval=0.1)


def test_a_killed_collector_fetches_what_it_missed(install: InstallationFactory, server: SmallServer) -> None:
    gateway = install([link(server)])
    served: Served = {name: [] for name in VARIABLES}
    gateway.start()
    eventually(lambda: bool(gateway.complete_to()), 30, what="anything is stored", interval=0.1)
    write(server, served, 5)
    last_is_there(gateway, served)
    first = len(served[NOT_KEPT])
    gateway.kill("collect")
    write(server, served, 50)
    gateway.start("collect")
    last_is_there(gateway, served)

    rows = stored(gateway)
    for name in KEPT:
        told = [(row.ts, row.value) for row in rows[name] if row.value >= served[name][0][1]]
        assert told == served[name], "each of them, once, in its order"
        missed = {at for at, _ in served[name][first:-1]}  # the last one is there when the collector comes back
        assert all(row.flags & Flag.HISTORICAL for row in rows[name] if row.ts in missed)
    assert len(rows[NOT_KEPT]) < len(rows[KEPT[0]])

    gaps = gateway.reader.gaps(limit=100)
    assert [gap for gap in gaps if gap.device == "kept"] == []
    (gap,) = [gap for gap in gaps if gap.device == "lost"]
    assert gap.cause == Cause.COLLECTOR_DOWN.value
    assert gap.start <= served[NOT_KEPT][first][0]
    assert gap.end is not None
    assert gap.end >= served[NOT_KEPT][-1][0]
    assert len(gateway.reader.streams()) == 2
    assert gateway.reader.dead_letters() == []
