"""The collector's half of apply: a configuration that takes long keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.apply import requests
from gateway.apply.receiver import Receiver
from gateway.apply.requests import Answer, Request
from gateway.looking.questions import ReadSignal
from tests.servers.waiting import eventually_async


class Slow(Receiver):
    """Answers a configuration when it is told to."""

    def __init__(self, collect: Any) -> None:
        super().__init__(collect)
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self.ready = threading.Event()

    def _begin(self) -> None:
        super()._begin()
        self.ready.set()

    async def _answer(self, request: Request | None) -> Answer:
        assert request is not None
        self.begun.append(request.file)
        await self.go_on.wait()
        if request.file == "/broken":
            raise RuntimeError(request.file)
        return Answer(number=len(self.begun))


@pytest.fixture
def receiver(tmp_path: Path) -> Slow:
    """By a collector without a device."""
    document = SimpleNamespace(file=str(tmp_path / "none.yaml"))
    config = SimpleNamespace(data_dir=tmp_path, document=document, base=tmp_path)
    return Slow(
        SimpleNamespace(
            config=config, clock=SimpleNamespace(monotonic=time.monotonic), plan=SimpleNamespace(signals=()), hosts=[]
        )
    )


async def test_looks_and_further_changes_are_taken_while_one_is_made(receiver: Slow, tmp_path: Path) -> None:
    running = asyncio.create_task(receiver.run())
    try:
        async with asyncio.timeout(20):
            await asyncio.to_thread(receiver.ready.wait)
            first = asyncio.create_task(asyncio.to_thread(requests.ask, tmp_path, Request("apply", "/1")))
            await eventually_async(lambda: receiver.begun, 10, what="the change")
            second = asyncio.create_task(asyncio.to_thread(requests.ask, tmp_path, Request("apply", "/2")))
            seen = await requests.look(tmp_path, ReadSignal(signal="a/b"))
            assert seen.failure is not None
            assert seen.failure.reason == "unknown_signal"
            folder = tmp_path / requests.FOLDER
            await eventually_async(lambda: not list(folder.glob("request-*")), 10, what="the second change to be taken")
            assert receiver.begun == ["/1"]
            receiver.go_on.set()
            assert [(await first).number, (await second).number] == [1, 2]
            assert receiver.begun == ["/1", "/2"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_collector_that_cannot_be_changed_is_not_left_as_it_is(receiver: Slow, tmp_path: Path) -> None:
    running = asyncio.create_task(receiver.run())
    await asyncio.to_thread(receiver.ready.wait, 10)
    receiver.go_on.set()
    asking = asyncio.create_task(asyncio.to_thread(requests.ask, tmp_path, Request("apply", "/broken"), within=1.0))
    with pytest.raises(RuntimeError, match="/broken"):
        async with asyncio.timeout(20):
            await running
    with pytest.raises(requests.NoCollectorError):
        await asking


async def test_who_gives_up_a_look_holds_nothing(tmp_path: Path) -> None:
    looking = asyncio.create_task(requests.look(tmp_path, ReadSignal(signal="a/b")))
    folder = tmp_path / requests.FOLDER
    await eventually_async(lambda: list(folder.glob("request-*.json")), 10, what="the request")
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert list(folder.iterdir()) == []
