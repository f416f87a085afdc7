"""The parts that the test servers are made of: waiting, needs, processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import needs
from tests.servers.processes import HOST, ChildProcess, accepts, free_port, running_children
from tests.servers.waiting import ConditionNotMet, eventually, eventually_async


def test_eventually_returns_what_the_predicate_gave() -> None:
    answers = iter([0, None, "there"])
    assert eventually(lambda: next(answers), 5) == "there"


def test_eventually_names_the_condition_and_what_was_last_seen() -> None:
    with pytest.raises(ConditionNotMet, match=r"^the lamp did not come true within 0\.05 s; last seen: 'off'$"):
        eventually(lambda: None if time.monotonic() < 0 else _fail("off"), 0.05, what="the lamp")


def _fail(text: str) -> None:
    class Seen(AssertionError):
        def __repr__(self) -> str:
            return repr(text)

    raise Seen


async def test_eventually_async_takes_plain_functions_and_coroutines_and_lets_the_loop_run() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)

    async def coroutine() -> str:
        return "yes" if done.is_set() else ""

    assert await eventually_async(done.is_set, 5)
    assert await eventually_async(coroutine, 5) == "yes"
    with pytest.raises(ConditionNotMet):
        await eventually_async(lambda: False, 0.05)


def test_a_missing_need_is_skipped_by_hand_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(needs.PACKAGES, "no-such-program", "no-such-package")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        needs.require("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-package"):
        needs.require("no-such-program")


def test_a_process_that_ends_early_is_told_with_its_output() -> None:
    child = ChildProcess([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match=r"ended with 3:\nthe reason"):
        child.wait_until(lambda: False, 20)
    assert child not in running_children()


def test_a_stopped_process_is_gone_and_its_sockets_closed() -> None:
    port = free_port()
    child = ChildProcess([sys.executable, "-m", "http.server", "--bind", HOST, str(port)])
    child.wait_until(lambda: accepts(port))
    assert child in running_children()
    child.stop()
    assert not child.running
    assert not accepts(port)
    assert child not in running_children()


def test_chromium_is_there(chromium: Path) -> None:
    version = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Chromium ")
