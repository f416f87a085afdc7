"""The supervisor: pauses, states, and what is logged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.supervisor import Backoff, Condition, Supervised, Trouble
from tests.virtual_time import START, VirtualTime, settle


class WeatherError(Exception):
    pass


class Child:
    """A thing that does what the test says: `lives` holds, for each life, None (up until told) or an exception."""

    def __init__(self, time: VirtualTime) -> None:
        self.lives: list[Exception | None] = []
        self.lost: asyncio.Future[None] | None = None
        self.conditions: list[Condition] = []
        self.troubles: dict[str, Trouble] = {}
        self.supervised = Supervised(
            "child",
            self.once,
            self.judge,
            clock=time,
            sleep=time.sleep,
            chance=lambda: 0.5,
            on_change=self.conditions.append,
        )

    async def once(self, up: Callable[[], None]) -> None:
        life = self.lives.pop(0) if self.lives else None
        if life is not None:
            raise life
        up()
        self.lost = asyncio.get_running_loop().create_future()
        await self.lost

    def judge(self, error: Exception) -> Trouble | None:
        if isinstance(error, WeatherError):
            return self.troubles.get(str(error), Trouble(str(error), f"it is {error}", "Wait."))
        return None

    def state(self) -> str:
        return self.supervised.condition.state

    def lose(self, why: str) -> None:
        assert self.lost is not None
        self.lost.set_exception(WeatherError(why))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.supervised.run())
        await settle()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


async def test_a_child_that_is_lost_comes_back_and_says_so_twice(
    time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "guantong.supervisor")
    child = Child(time)
    async with child.running():
        await time.advance(100)
        child.lives = [WeatherError("rain")] * 4
        child.lose("rain")
        await time.advance(200)
        assert child.state() == "ok"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "it is rain (rain). Wait." in caplog.records[0].message
    assert "back after 31.0 s" in caplog.records[1].message
    assert [c.state for c in child.conditions] == ["ok", "recovering", "ok", "stopped"]
    numbers = child.supervised.numbers
    assert (numbers.attempts, numbers.ups, numbers.losses, numbers.down_seconds) == (6, 2, 1, 31.0)


async def test_pauses_double_up_to_the_longest_and_begin_again_after_steady_days(time: VirtualTime) -> None:
    child = Child(time)
    child.lives = [WeatherError("rain")] * 9
    async with child.running():
        await time.advance(500)
        assert time.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        child.lose("rain")
        await settle()
        assert time.slept[-1] == 1


async def test_a_child_that_flaps_does_not_begin_again(time: VirtualTime) -> None:
    child = Child(time)
    async with child.running():
        for _ in range(4):
            child.lose("rain")
            await settle()
            await time.advance(time.slept[-1] + 1)
    assert time.slept == [1, 2, 4, 8]


async def test_a_new_reason_within_an_outage_is_told_once(time: VirtualTime, caplog: pytest.LogCaptureFixture) -> None:
    child = Child(time)
    child.lives = [WeatherError(why) for why in ("rain", "snow", "rain", "snow")]
    async with child.running():
        await time.advance(100)
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["WARNING"] * 2


async def test_what_the_child_asks_for_is_waited_at_least(time: VirtualTime) -> None:
    child = Child(time)
    child.troubles["busy"] = Trouble("busy", "busy", after=30.0)
    child.lives = [WeatherError("busy")]
    async with child.running():
        assert time.slept == [30.0]


async def test_a_trouble_that_a_person_has_removed_is_not_waited_out(time: VirtualTime) -> None:
    child = Child(time)
    removed: list[bool] = []
    child.troubles["locked"] = Trouble("locked", "locked", retry="seldom", cured=lambda: bool(removed))
    child.lives = [WeatherError("locked")]
    async with child.running():
        await time.advance(30)
        assert child.state() == "failed"
        removed.append(True)
        await time.advance(3)
        assert child.state() == "ok"
    assert sum(time.slept) == 33


def broken() -> bool:
    raise OSError("no such folder")


@pytest.mark.parametrize("cured", [lambda: False, broken])
async def test_a_trouble_that_stays_is_waited_out_in_full(time: VirtualTime, cured: Callable[[], bool]) -> None:
    child = Child(time)
    child.troubles["locked"] = Trouble("locked", "locked", retry="seldom", cured=cured)
    child.lives = [WeatherError("locked")]
    async with child.running():
        await time.advance(59.5)
        assert child.state() == "failed"
        await time.advance(1)
        assert child.state() == "ok"
    assert sum(time.slept) == 60


async def test_seldom_is_a_minute_at_first_and_an_hour_at_last(time: VirtualTime) -> None:
    child = Child(time)
    child.troubles["locked"] = Trouble("locked", "locked", retry="seldom")
    child.lives = [WeatherError("locked")] * 8
    async with child.running():
        await settle()
        assert child.state() == "failed"
        await time.advance(30_000)
        assert child.state() == "ok"
    assert time.slept == [60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_never_waits_for_another_configuration(time: VirtualTime) -> None:
    child = Child(time)
    child.troubles["wrong"] = Trouble("wrong", "wrong", "Correct it.", "请更正。", retry="never")
    child.lives = [WeatherError("wrong")]
    async with child.running():
        await time.advance(100_000)
        assert child.supervised.numbers.attempts == 1
        condition = child.supervised.condition
        assert (condition.state, condition.reason, condition.fix_zh) == ("failed", "wrong", "请更正。")
    assert child.state() == "stopped"


async def test_a_bug_is_logged_with_its_traceback_and_tried_again(
    time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child(time)
    child.troubles["bug"] = Trouble("bug", "KeyError: 1", bug=True)
    child.lives = [WeatherError("bug")] * 3
    async with child.running():
        assert child.state() == "failed"
        await time.advance(60)
        assert child.state() == "ok"
    assert [bool(record.exc_info) for record in caplog.records if record.levelno >= logging.WARNING] == [True]


async def test_what_nobody_knows_ends_it(time: VirtualTime) -> None:
    child = Child(time)
    child.lives = [ZeroDivisionError("ours")]
    async with child.running() as task:
        with pytest.raises(ZeroDivisionError):
            await task
    assert child.state() == "stopped"


async def test_a_child_that_just_ends_is_lost(time: VirtualTime) -> None:
    child = Child(time)
    async with child.running():
        assert child.lost is not None
        child.lost.set_result(None)
        await settle()
        assert (child.supervised.condition.state, child.supervised.condition.reason) == ("recovering", "ended")


async def test_degraded_and_stopping(time: VirtualTime) -> None:
    child = Child(time)
    child.supervised.degrade("early", "not up yet")
    assert child.state() == "starting"
    async with child.running():
        await time.advance(5)
        child.supervised.degrade("some", "some signals are bad")
        await time.advance(5)
        child.supervised.degrade("more", "more signals are bad")
        condition = child.supervised.condition
        assert (condition.state, condition.reason, condition.since) == ("degraded", "more", START + 5_000_000)
        child.supervised.recover()
        child.supervised.stopping()
    assert [c.state for c in child.conditions] == ["ok", "degraded", "degraded", "ok", "stopping", "stopped"]


@given(st.floats(0.01, 10), st.floats(10, 1000), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_no_pause_is_nothing_or_longer_than_the_longest(first: float, longest: float, chances: list[float]) -> None:
    backoff = Backoff(first, longest, lambda: chances[0])
    for chance in chances:
        chances[0] = chance
        assert first * 0.75 <= backoff.pause() + 1e-9
        assert backoff.pause() <= longest
