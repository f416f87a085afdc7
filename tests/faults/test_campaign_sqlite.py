"""Faults on Mosquitto and SQLite, in the short form: afterwards nothing is missing, nothing is there twice, and no gap is without its cause."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from tests.faults.campaign import FAULTS
from tests.faults.oracle import Fell, now_us
from tests.faults.short import Installation
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with Installation("mosquitto") as made:
        yield made


@pytest.mark.parametrize(
    "faults",
    [
        ("kill -9: ingest", "2 s latency: collect - broker"),
        ("disk full: outbox", "kill -9 three times: broker"),
        ("stalls: device - collect", "two ingests at once"),
        ("a flood of poison", "kill -9: collect"),
        ("outbox replaced by last week's",),
        ("power cut",),
    ],
    ids=" + ".join,
)
def test_nothing_is_lost_and_nothing_is_there_twice(installation: Installation, faults: tuple[str, ...]) -> None:
    result = installation.run(*faults)
    assert result.compared > 0


def test_the_clock_is_set(installation: Installation) -> None:
    installation.run("clock set back and forward")


def test_the_campaign_would_see_it(installation: Installation) -> None:
    """Readings that are taken out of the store, and readings that are put in a second time, are found."""
    rig = installation.rig
    rig.settle(now_us(), 60)
    begun = now_us()
    store = sqlite3.connect(rig.store_data / "store.sqlite", timeout=20)
    # the tail is merged now and then, and fills again
    eventually(lambda: store.execute("SELECT count(*) FROM tail").fetchone()[0] > 700, 60, what="rows in the tail")
    with store:
        last = store.execute("SELECT max(row) FROM tail").fetchone()[0]
        some = f"SELECT row FROM tail WHERE row BETWEEN {last - 600} AND {last - 300}"
        store.execute(f"DELETE FROM tail WHERE row IN ({some}) AND row % 2 = 0")
        copied = "signal_id, ts, n + 1, num, exact, status, flags"
        store.execute(
            f"INSERT INTO tail (signal_id, ts, n, num, exact, status, flags) SELECT {copied} FROM tail WHERE row IN ({some})"
        )
    store.close()
    verdict = installation.oracle.look([Fell(FAULTS["nothing"], begun, now_us())], now_us())
    assert verdict.lost > 10
    assert verdict.twice > 10
