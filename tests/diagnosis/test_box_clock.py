"""The clock of the box: flags, the state clock_behind, and the question to the kernel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adapters.contract import Samples
from gateway.collect.items import Events
from gateway.collect.normalise import Normaliser
from gateway.diagnosis import kernel_clock
from gateway.diagnosis.box_clock import LAST, BoxClock, ClockWatch
from gateway.diagnosis.kernel_clock import Synchronisation
from schemas.wire import Flag
from tests.collect.plans import FIRST, planned

NOW = 1_780_000_000_000_000


class Stop(Exception):
    """Ends a watch that would go on for ever."""


class Host:
    def __init__(self) -> None:
        self.unsynced: bool | None = None

    def flag_unsynced(self, unsynced: bool) -> None:
        self.unsynced = unsynced


def flagged(role: Role) -> list[bool | None]:
    return [host.unsynced for host in role.hosts]


class Role:
    """As much of collect as a watch sees."""

    def __init__(self, last: int | None = None) -> None:
        self.now = NOW
        self.meta = {} if last is None else {LAST: str(last)}
        self.events: list[Any] = []
        self.hosts = [Host()]
        self.clock = SimpleNamespace(now=lambda: self.now)
        self.outbox = SimpleNamespace(meta=self.meta.get, set_meta=self.meta.__setitem__)
        self.recorder = SimpleNamespace(numbers=SimpleNamespace(messages=1), put_now=self._put)
        self.plan = SimpleNamespace(gateway=SimpleNamespace(id="gw"))
        self.thread = None

    def _put(self, item: Events) -> None:
        self.events += item.events

    def watch(self, answers: list[Synchronisation], seconds: int, step: int = 1_000_000) -> ClockWatch:
        """A watch over a kernel that gives these answers, the last for ever, in a world of so many seconds."""
        left = seconds

        async def sleep(_: float) -> None:
            nonlocal left
            if not left:
                raise Stop
            left -= 1
            self.now += step

        return ClockWatch(
            cast(Any, self), probe=lambda: answers.pop(0) if len(answers) > 1 else answers[0], sleep=sleep
        )


async def test_an_unsynchronised_clock_flags_from_the_first_reading_until_it_is_right() -> None:
    role = Role()
    watch = role.watch(["unsynced", "unsynced", "synced"], 25)
    assert flagged(role) == [True]
    with pytest.raises(Stop):
        await watch.run()
    assert flagged(role) == [False]
    assert role.events == []


async def test_a_host_made_later_is_flagged_too() -> None:
    role = Role()
    watch = role.watch(["unsynced"], 2)
    role.hosts.append(Host())
    with pytest.raises(Stop):
        await watch.run()
    assert flagged(role) == [True, True]


async def test_what_cannot_be_told_is_not_flagged() -> None:
    role = Role()
    role.watch(["unknown"], 0)
    assert flagged(role) == [False]


async def test_a_start_behind_the_last_time_is_a_state_and_an_event_until_it_has_caught_up() -> None:
    role = Role(last=NOW + 5_000_000)
    watch = role.watch(["unknown"], 10)
    assert watch.clock.behind == 5.0
    assert flagged(role) == [True]
    assert _state(watch.clock) == "clock_behind"
    with pytest.raises(Stop):
        await watch.run()
    behind, caught_up = role.events
    assert (behind.type, behind.severity, caught_up.type) == ("clock_behind", 700, "clock_caught_up")
    assert behind.fields["last"] == NOW + 5_000_000
    assert "2026" in behind.message_zh
    assert _state(watch.clock) == "unknown"
    assert flagged(role) == [False]


async def test_the_last_time_is_remembered_and_only_a_right_clock_lowers_it() -> None:
    role = Role()
    with pytest.raises(Stop):
        await role.watch(["synced"], 10).run()
    assert role.meta[LAST] == str(NOW + 10_000_000)
    role.meta[LAST] = str(NOW + 3600_000_000)
    with pytest.raises(Stop):
        await role.watch(["unsynced"], 10).run()
    assert role.meta[LAST] == str(NOW + 3600_000_000)
    watch = role.watch(["synced"], 11)
    assert watch.clock.behind > 0
    assert flagged(role) == [False]
    with pytest.raises(Stop):
        await watch.run()
    assert role.meta[LAST] == str(role.now - 1_000_000)
    assert watch.clock.behind == 0


def _state(clock: BoxClock) -> str:
    family = next(clock.metrics())
    (sample,) = family.samples
    return sample.labels["state"]


def test_polled_readings_carry_the_flag_and_unchanged_ones_stay_unstored() -> None:
    normaliser = Normaliser(planned([{"type": "int32"}, {"type": "int32"}]), unsynced=True)
    points = [FIRST, FIRST + 1]
    readings = normaliser.feed(Samples("d", "default", NOW, points, [1, 2]))
    assert readings is not None
    assert readings.flags == [Flag.UNSYNCED, Flag.UNSYNCED]
    readings = normaliser.feed(Samples("d", "default", NOW + 1, points, [1, 3]))
    assert readings is not None
    assert (readings.values, readings.flags) == ([3], [Flag.UNSYNCED])
    normaliser.unsynced = False
    readings = normaliser.feed(Samples("d", "default", NOW + 2, points, [4, 3]))
    assert readings is not None
    assert readings.flags is None


def test_an_unchanged_reading_that_is_stored_after_its_silence_carries_the_flag_too() -> None:
    normaliser = Normaliser(planned([{"type": "int32", "silence": "10s"}]), unsynced=True)
    normaliser.feed(Samples("d", "default", NOW, [FIRST], [1]))
    readings = normaliser.feed(Samples("d", "default", NOW + 11_000_000, [FIRST], [1]))
    assert readings is not None
    assert readings.flags == [Flag.UNSYNCED]


@pytest.mark.parametrize(
    ("status", "file", "expected"),
    [(0x2001, False, "synced"), (0x40, False, "unsynced"), (0x40, True, "synced"), (None, False, "unknown")],
)
def test_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int | None, file: bool, expected: str
) -> None:
    monkeypatch.setattr(kernel_clock, "_kernel_status", lambda: status)
    path = tmp_path / "synchronized"
    if file:
        path.touch()
    assert kernel_clock.synchronisation(path) == expected


def test_this_kernel_answers() -> None:
    assert kernel_clock.synchronisation() in ("synced", "unsynced", "unknown")
