"""The parent's side of the process that looks: started when it is needed, killed when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

import msgspec

from gateway import platform
from gateway.looking.child import HEAD, MOST, TOO_LARGE, too_slow
from gateway.looking.questions import WITHIN, Failure, Question, Seen

log = logging.getLogger("guantong.looking")

WAIT = 3.0
"""Seconds that a question waits for the one before it."""
LEAVE_WITHIN = 2.0


def busy() -> Failure:
    """Somebody else is looking."""
    return Failure(
        "busy",
        "Another look is under way; one is made at a time.",
        "正在处理另一个请求，一次只处理一个。",
        "Try again in a few seconds.",
        "请几秒后重试。",
    )


class Looker:
    """One child process, one question at a time. `close` at the end."""

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        """`command` stands for the child in tests."""
        self._command = command or (sys.executable, "-m", "gateway.looking")
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def ask(self, question: Question, within: float | None = None) -> Seen:
        """The child's answer, or the failure that stands for it: it never raises for what the child does.

        `within` are seconds (by default what `WITHIN` says); then the child is killed.
        """
        try:
            async with asyncio.timeout(WAIT):
                await self._lock.acquire()
        except TimeoutError:
            return Seen(failure=busy())
        try:
            message = msgspec.json.encode(question)
            return await self._asked(message, WITHIN[type(question)] if within is None else within)
        finally:
            self._lock.release()

    async def _asked(self, message: bytes, within: float) -> Seen:
        done = False
        try:
            async with asyncio.timeout(within):
                seen = await self._exchange(message)
            done = True
            return seen
        except TimeoutError:
            log.warning("a look took longer than %g s and was ended", within)
            return Seen(failure=too_slow())
        except _TooLargeError:
            return Seen(failure=TOO_LARGE)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            code = await self._code()
            log.warning("the process that looks ended with code %s: %s", code, error)
            return Seen(failure=_crashed(code))
        finally:
            if not done:  # cancelled too: an answer that comes later must not be taken for another's
                await self._kill()

    async def _exchange(self, message: bytes) -> Seen:
        for last in (False, True):
            fresh = self.pid is None
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(HEAD.pack(len(message)) + message)
                await process.stdin.drain()
                (size,) = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
                if size > 2 * MOST:
                    raise _TooLargeError
                return msgspec.json.decode(await process.stdout.readexactly(size), type=Seen)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                # one that had idled away in this moment is started again
                if last or fresh or await self._code() != 0:
                    raise EOFError(str(error)) from error
        raise EOFError

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            await self._kill()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=platform.POSIX,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        return self._process

    async def _code(self) -> int | None:
        """The exit code of a child whose output has ended; it has a moment to get there."""
        if self._process is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._process.wait()
        return self._process.returncode

    async def close(self, within: float = LEAVE_WITHIN) -> None:
        """Lets the child end, and its session with it; kills it after `within` seconds."""
        process = self._process
        if process is not None and process.returncode is None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await process.wait()
        await self._kill()

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # its end must be seen also when this very task is being cancelled
        await asyncio.shield(asyncio.ensure_future(_reaped(process)))


async def _reaped(process: asyncio.subprocess.Process) -> None:
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()


class _TooLargeError(Exception):
    pass


def _crashed(code: int | None) -> Failure:
    return Failure(
        "crashed",
        f"The process that looked ended unexpectedly (code {code}).",
        f"执行查看的进程意外结束（代码 {code}）。",
        "Nothing else was affected. Try again with less; if it happens again, `guantong support` packs what is needed to report it.",
        "其他功能不受影响。请缩小范围重试；若再次发生，可用 guantong support 打包信息反馈。",
    )
