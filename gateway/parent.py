"""The parent of `guantong run`: one process each for the embedded broker and the roles, restarted when they die.

It imports nothing heavy and is given its work as JSON (`Work`), so that it costs a small box little memory. A child ends when its
standard input closes: none outlives its parent, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from gateway import platform

STOP_WITHIN = 4.0
"""Seconds that the children have to end after SIGTERM, together; then they are killed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
_STEADY = 30.0
"""A child that ran so long gets the first pause again when it dies."""

PARENT_PIPE = "GUANTONG_PARENT_PIPE"


class Child(msgspec.Struct, frozen=True):
    """A process to keep: its name, command line, and a code that means "do not try again" (bad configuration)."""

    name: str
    command: list[str]
    give_up: int | None = 2
    environment: dict[str, str] = msgspec.field(default_factory=dict)


class Work(msgspec.Struct, frozen=True):
    """What the parent keeps running, in the order of starting; `log` is where the children's logs go (else to the parent's own)."""

    children: list[Child]
    log: str | None = None


@dataclass(slots=True)
class Kept:
    """A child as it is now."""

    child: Child
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    state: str = "starting"
    since: float = field(default_factory=time.time)


class Parent:
    """Keeps the children of `work` until `stop` is called. `kept` tells how they are."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.kept = [Kept(child) for child in work.children]
        self.exit_code = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends everything, in order."""
        self._stopping.set()

    @property
    def stopping(self) -> asyncio.Event:
        """Set when everything is to end."""
        return self._stopping

    async def run(self) -> int:
        """Until `stop`, or until a child says that it is useless to go on. Returns the exit code."""
        tasks = [asyncio.create_task(self._keep(kept)) for kept in self.kept]
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_all()
        return self.exit_code

    async def _keep(self, kept: Kept) -> None:
        pause = FIRST_PAUSE
        while True:
            started = time.monotonic()
            kept.process = await self._spawn(kept.child)
            kept.state, kept.since = "running", time.time()
            code = await kept.process.wait()
            _close_input(kept.process)
            if code == kept.child.give_up:
                _say(f"{kept.child.name} ended with code {code}: it cannot work as configured")
                kept.state, self.exit_code = "failed", code
                self.stop()
                return
            kept.state, kept.since = "restarting", time.time()
            kept.restarts += 1
            if time.monotonic() - started > _STEADY:
                pause = FIRST_PAUSE
            _say(f"{kept.child.name} ended with code {code}; starting it again in {pause:.1f} s at most")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        environment = {**os.environ, **child.environment, PARENT_PIPE: "1"}
        if self.work.log is None:
            return await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.PIPE, env=environment, start_new_session=platform.POSIX
            )
        with open(self.work.log, "ab") as log:  # noqa: ASYNC230 (once for each start of a child)
            return await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=platform.POSIX,
            )

    async def _end_all(self) -> None:
        """The roles first and together, the broker last: what collect still holds reaches ingest if it can."""
        broker = [k for k in self.kept if k.child.name == "broker"]
        await _end([k for k in self.kept if k not in broker], STOP_WITHIN * 0.8)
        await _end(broker, STOP_WITHIN * 0.2)


async def _end(kept: list[Kept], within: float) -> None:
    alive = [k.process for k in kept if k.process is not None and k.process.returncode is None]
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    if alive:
        await asyncio.wait([asyncio.ensure_future(p.wait()) for p in alive], timeout=within)
    for process in alive:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        _close_input(process)
    for k in kept:
        k.state = "stopped"


def _close_input(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _say(text: str) -> None:
    sys.stderr.write(f"guantong: {text}\n")


Beside = Callable[[Parent], Awaitable[None]]


async def keep(work: Work, beside: Beside | None = None) -> int:
    """Runs the parent until SIGINT or SIGTERM; `beside` runs next to it (the demo's live summary) and is cancelled at the end."""
    parent = Parent(work)
    platform.on_stop_signals(asyncio.get_running_loop(), parent.stop)
    task = asyncio.ensure_future(beside(parent)) if beside is not None else None
    try:
        return await parent.run()
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def main() -> None:
    """`python -m gateway.parent JSON`."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    sys.exit(asyncio.run(keep(work)))


if __name__ == "__main__":
    main()
