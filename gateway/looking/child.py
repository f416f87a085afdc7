"""The process that looks: `python -m gateway.looking`, started and ended by `gateway.looking.looker`.

It takes questions from standard input and writes answers to standard output, each as four bytes of length (big-endian) and JSON. A
crash, an address space without an end, or a file that unpacks to gigabytes costs this process and nobody's reading: its memory is bounded, it yields the
processor to everybody else, the system kills it first when memory runs out, and it ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import threading
from typing import Final

import msgspec

from gateway.looking.questions import (
    WITHIN,
    AddDevice,
    Browse,
    Endpoints,
    Export,
    FailedLookError,
    Failure,
    Question,
    ReadNode,
    ReadRegisters,
    RemoveDevice,
    Seen,
    Table,
)

HEAD: Final = struct.Struct(">I")
MOST: Final = 16 * 1024 * 1024
"""Largest answer in bytes."""
MEMORY: Final = 512 * 1024 * 1024
"""Bytes of data that the process may hold (RLIMIT_DATA)."""
SESSION_IDLE: Final = 45.0
"""Seconds after which an open session is closed; a server's sessions are few."""
IDLE: Final = 120.0
"""Seconds after which the process ends by itself, and is started again when it is needed."""
_LEAVE_WITHIN: Final = 3.0


async def serve() -> None:
    """Answers questions until standard input closes, or for `IDLE` seconds none comes."""
    from gateway.looking.machines import Machines

    loop = asyncio.get_running_loop()
    questions: asyncio.Queue[bytes | None] = asyncio.Queue()
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    threading.Thread(target=_read, args=(loop, questions), daemon=True).start()
    machines = Machines()
    try:
        while True:
            came, message = await _next(questions, SESSION_IDLE)
            if not came:
                await machines.close()
                came, message = await _next(questions, IDLE - SESSION_IDLE)
            if message is None:
                return
            answer = msgspec.json.encode(await _answer(machines, message))
            if len(answer) > MOST:
                answer = msgspec.json.encode(Seen(failure=TOO_LARGE))
            await loop.run_in_executor(None, _write, answers, answer)
    finally:
        await machines.close()


async def _next(questions: asyncio.Queue[bytes | None], within: float) -> tuple[bool, bytes | None]:
    """Whether something came, and the question; None at the end of the input."""
    try:
        async with asyncio.timeout(within):
            return True, await questions.get()
    except TimeoutError:
        return False, None


def _read(loop: asyncio.AbstractEventLoop, questions: asyncio.Queue[bytes | None]) -> None:
    """In a thread of its own, so that also a loop that hangs ends with the process that started it."""
    with contextlib.suppress(OSError, EOFError, RuntimeError):  # RuntimeError: the loop is closed already
        while True:
            (size,) = HEAD.unpack(_exactly(HEAD.size))
            loop.call_soon_threadsafe(questions.put_nowait, _exactly(size))
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(questions.put_nowait, None)
    threading.Event().wait(_LEAVE_WITHIN)
    os._exit(1)


def _exactly(size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        piece = os.read(0, size - len(parts))
        if not piece:
            raise EOFError
        parts += piece
    return bytes(parts)


def _write(descriptor: int, answer: bytes) -> None:
    left = memoryview(HEAD.pack(len(answer)) + answer)
    while left:
        left = left[os.write(descriptor, left) :]


TOO_LARGE: Final = Failure(
    "too_large",
    "The answer is too large.",
    "结果过大。",
    "Ask for less: a filter, a deeper start, or fewer nodes at once.",
    "请缩小范围：使用筛选、从更深的节点开始，或减少一次选择的数量。",
)

TABLE_TOO_LARGE: Final = Failure(
    "invalid_table",
    "The table is too large to be read.",
    "点表过大，无法读取。",
    "Delete pictures, other sheets and empty formatted rows and columns, or split the table.",
    "请删除图片、其他工作表以及仅有格式的空行空列，或拆分点表。",
)


async def _answer(machines: object, message: bytes) -> Seen:
    from gateway.looking.machines import Machines

    assert isinstance(machines, Machines)
    question: Question | None = None
    try:
        question = msgspec.json.decode(message, type=Question)
        # a little before the parent's patience ends, so that sessions are closed in order
        async with asyncio.timeout(WITHIN[type(question)] * 0.9):
            return Seen(msgspec.Raw(msgspec.json.encode(await _look(machines, question))))
    except FailedLookError as error:
        return Seen(failure=error.failure)
    except TimeoutError:
        await machines.close()
        return Seen(failure=too_slow())
    except MemoryError:
        return Seen(failure=TABLE_TOO_LARGE if isinstance(question, Table) else TOO_LARGE)
    except Exception as error:  # noqa: BLE001 (a library may raise anything at what a stranger's machine or file holds)
        what = f"{type(error).__name__}: {error}"[:500]
        return Seen(failure=Failure("failed", f"This could not be read: {what}", f"无法读取：{what}"))


def too_slow() -> Failure:
    """There was no answer in time."""
    return Failure(
        "too_slow",
        "This took too long and was given up.",
        "耗时过长，已放弃。",
        "Try again with less: a filter, a deeper start; for a slow machine raise its `timeout`.",
        "请缩小范围（筛选或更深的起点）后重试；设备较慢时可加大 timeout。",
    )


async def _look(machines: object, question: Question) -> object:
    from gateway.looking import machines as at_machines

    assert isinstance(machines, at_machines.Machines)
    match question:
        case Endpoints():
            return await at_machines.offered(question)
        case Browse():
            return await machines.browse(question)
        case ReadNode():
            return await machines.read_node(question)
        case ReadRegisters():
            return await at_machines.read_registers(question)
        case Table() | Export():
            from gateway.looking import tables

            return tables.imported(question) if isinstance(question, Table) else tables.exported(question)
        case AddDevice() | RemoveDevice():
            from gateway.looking import drafts

            return drafts.added(question) if isinstance(question, AddDevice) else drafts.removed(question)
        case _:
            raise FailedLookError("failed", "The collector answers this itself.", "该请求由采集进程直接处理。")


def _confine() -> None:
    """Little memory, no core file, and everybody else first. What a system does not have is left out."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def main() -> None:
    """The process."""
    import logging

    logging.disable(logging.CRITICAL)  # what matters is in the answers
    _confine()
    asyncio.run(serve())
    sys.stdout = None  # its descriptor is standard error by now
    os._exit(0)


if __name__ == "__main__":
    main()
