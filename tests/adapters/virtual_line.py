"""A Modbus line in virtual time: units that answer after a while, or not at all; the schedule and the lanes are the real ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from adapters.contract import Item, LinkSpec, TransientError
from adapters.modbus._codec import Request, Response
from adapters.modbus._device import Device
from adapters.modbus._lanes import Lane
from adapters.modbus._line import Line
from adapters.modbus._link import Link, NoAnswerError
from tests.adapters.virtual_loop import START, LoopClock


@dataclass
class Wire:
    """What the units do: `dead` say nothing; `answer` seconds for each; `hook` gives an exception code, or 0."""

    dead: set[int] = field(default_factory=set)
    answer: float | dict[int, float] = 0.02
    hook: Callable[[Request], int] = lambda _: 0
    asked: list[tuple[float, Request, Lane]] = field(default_factory=list)
    """Seconds, request, lane, in the order in which they went out."""

    def times(self, unit: int, address: int | None = None, since: float = 0.0) -> list[float]:
        """When a unit (at an address) was asked for registers."""
        return [
            at
            for at, request, _ in self.asked
            if at >= since
            and (request.dev_id, request.function_code) == (unit, 3)
            and address in (None, request.address)
        ]

    def intervals(self, unit: int, address: int | None = None, since: float = 0.0) -> list[float]:
        """Seconds between these."""
        return [after - before for before, after in pairwise(self.times(unit, address, since))]


class VirtualLink(Link):
    """A link whose wire is a `Wire`."""

    def __init__(self, spec: LinkSpec, wire: Wire) -> None:
        super().__init__(spec.settings, spec.clock)  # type: ignore[arg-type]
        self.wire = wire
        self._closing = asyncio.Event()
        self._client = object()  # type: ignore[assignment]

    async def _exchange(self, client: object, request: Request, timeout: float) -> Response:
        wire, clock = self.wire, self._clock
        self.requests += 1
        wire.asked.append((clock.monotonic(), request, self._lanes._last))
        try:
            return await self._answer(wire, request, timeout)
        finally:
            self._free_at = clock.monotonic() + self._settings.pause

    async def _answer(self, wire: Wire, request: Request, timeout: float) -> Response:
        clock = self._clock
        if request.dev_id in wire.dead:
            await asyncio.sleep(timeout)
            raise NoAnswerError("timeout", "silent")
        await asyncio.sleep(wire.answer if isinstance(wire.answer, float) else wire.answer[request.dev_id])
        code = wire.hook(request)
        if code:
            answer = Response(bytes((request.function_code | 0x80, code)), clock.now())
            answer.code = code
            return answer
        return Response(bytes((request.function_code, request.data_bytes)) + bytes(request.data_bytes), clock.now())


@dataclass
class VirtualRun:
    """A line that runs: `items` with the second at which each came."""

    line: Line
    link: VirtualLink
    wire: Wire
    items: list[tuple[float, Item]] = field(default_factory=list)
    error: TransientError | None = None
    """Why it ended by itself, at the second `ended`."""
    ended: float = 0.0

    def of(self, kind: type[Any]) -> list[Any]:
        """The items of a kind."""
        return [item for _, item in self.items if isinstance(item, kind)]


def second(at: int) -> float:
    """A time in µs as a second of the loop."""
    return (at - START) / 1e6


async def run_line(
    spec: LinkSpec,
    wire: Wire,
    seconds: float,
    beside: Callable[[VirtualRun], Coroutine[Any, Any, None]] | None = None,
) -> VirtualRun:
    """Runs the schedule for so long, with `beside` at the same time."""
    spec = LinkSpec(spec.id, spec.settings, spec.devices, LoopClock())
    link = VirtualLink(spec, wire)
    line = Line(spec.settings, link, [Device(device) for device in spec.devices], spec.clock)  # type: ignore[arg-type]
    run = VirtualRun(line, link, wire)
    loop = asyncio.get_running_loop()
    for unit in line._units:
        unit.begin()  # as at a connect

    async def iterate() -> None:
        try:
            async for item in line.run():
                run.items.append((loop.time(), item))
        except TransientError as error:
            run.error, run.ended = error, loop.time()

    tasks = [asyncio.ensure_future(iterate())]
    if beside is not None:
        tasks.append(asyncio.ensure_future(beside(run)))
    done, _ = await asyncio.wait(tasks[:1], timeout=seconds)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()
    return run
