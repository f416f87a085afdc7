"""Faults on Mosquitto with TLS and PostgreSQL, in the short form: afterwards nothing is missing, nothing is there twice, and no gap is without its
cause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.short import Installation

pytestmark = [pytest.mark.chain, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with Installation("postgresql") as made:
        yield made


@pytest.mark.parametrize(
    "faults",
    [
        ("kill -9: database", "half-open: collect - broker"),
        ("certificate expired: broker", "lock held: database"),
        ("connection limit reached: database", "cut: device - collect"),
        ("collect upgraded before ingest", "ten clients that never read"),
        ("disk full: database", "SIGSTOP: collect"),
    ],
    ids=" + ".join,
)
def test_nothing_is_lost_and_nothing_is_there_twice(installation: Installation, faults: tuple[str, ...]) -> None:
    result = installation.run(*faults)
    assert result.compared > 0
