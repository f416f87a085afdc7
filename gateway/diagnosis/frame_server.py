"""How `guantong capture` and `guantong support` get the frames of a running collector: a socket in `data_dir`, for this user alone.

A socket of the file system and not a port: frames hold the values of machines, and whoever may read the outbox may read them, nobody else. A
question is a line of JSON, `{"device": ID, "after": NUMBER}`; the answer is one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from adapters.frames import Direction, FrameLog, Wire
from gateway.platform import POSIX
from schemas.bilingual import Bilingual

if TYPE_CHECKING:
    from gateway.collect.link import LinkHost
    from gateway.collect.role import Collect

log = logging.getLogger("guantong.frames")

NAME: Final = "frames.sock"
_LONGEST: Final = 100
"""Bytes of a path that fit into a socket's address (sun_path has 108)."""
_LINE: Final = 16 * 1024**2


class Question(msgspec.Struct, frozen=True):
    """Frames of the link of `device` with a number above `after`; without a device: which devices there are."""

    device: str = ""
    after: int = -1


class Told(msgspec.Struct, frozen=True):
    """A frame on its way to the command."""

    number: int
    at: int
    direction: Direction
    data: bytes
    size: int
    meaning: str


class Answer(msgspec.Struct, frozen=True):
    """`wire` is None where the link keeps no frames, or has no such device; `devices` are those of all links then."""

    link: str = ""
    wire: Wire | None = None
    frames: list[Told] = []
    devices: list[str] = []


class NoFramesError(Exception):
    """No collector answers."""


@contextlib.contextmanager
def _address(data_dir: Path) -> Iterator[str]:
    """The socket's address, by a short way where the path is too long for one (Linux)."""
    path = data_dir / NAME
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(data_dir, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)


class FrameServer:
    """Answers questions while collect runs. What goes wrong with it costs captures and nothing else."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect
        self._path = collect.config.data_dir / NAME

    async def run(self) -> None:
        """Until cancelled."""
        try:
            server = await self._listen()
        except OSError as error:
            log.warning("frames cannot be captured: %s: %s", self._path, error)
            await asyncio.Event().wait()
            return
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        if not POSIX:
            raise OSError(Bilingual("this system has no sockets in the file system", "本系统不支持文件系统套接字"))
        self._path.unlink(missing_ok=True)  # of a collector that was killed; the outbox's lock says that none runs
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # before it is bound: the file is never anybody else's
            with _address(self._collect.config.data_dir) as address:
                listener.bind(address)
            self._path.chmod(0o600)
            return await asyncio.start_unix_server(self._talk, sock=listener)
        except OSError:
            listener.close()
            raise

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                answer = await self._answer(msgspec.json.decode(line, type=Question))
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:
            log.debug("a capture ended: %s", error)
        finally:
            writer.close()

    async def _answer(self, question: Question) -> Answer:
        host = next((h for h in self._collect.hosts if question.device in h.device_ids), None)
        frames = host.frames if host is not None else None
        if host is None or frames is None:
            return Answer(devices=[name for h in self._collect.hosts for name in _with_frames(h)])
        after = (
            question.after if question.after < frames.total else -1
        )  # the link was begun anew, and its numbers with it
        # explained in another thread: a look must not delay a poll
        found = await asyncio.to_thread(frames.explained, frames.records(after))
        told = [Told(f.number, f.at, f.direction, f.data, f.size, f.meaning) for f in found]
        return Answer(host.link.id, frames.wire, told)


def _with_frames(host: LinkHost) -> list[str]:
    frames: FrameLog | None = host.frames
    return [] if frames is None else list(host.device_ids)


class FrameClient:
    """A command's connection to the collector of a data directory. Raises NoFramesError."""

    def __init__(self, data_dir: Path, within: float = 10.0) -> None:
        if not POSIX:
            raise NoFramesError(
                Bilingual("this system has no sockets in the file system", "本系统不支持文件系统套接字")
            )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(within)
        try:
            with _address(data_dir) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise NoFramesError(
                Bilingual(
                    f"{data_dir / NAME}: {error.strerror or error}",
                    f"无法连接 {data_dir / NAME}：{error.strerror or error}",
                )
            ) from error
        self._file = self._socket.makefile("rb")

    def ask(self, question: Question) -> Answer:
        """One question, one answer."""
        try:
            self._socket.sendall(msgspec.json.encode(question) + b"\n")
            line = self._file.readline(_LINE)
            return msgspec.json.decode(line, type=Answer)
        except (OSError, msgspec.MsgspecError) as error:
            raise NoFramesError(Bilingual(f"the collector ended: {error}", f"采集进程已结束：{error}")) from error

    def close(self) -> None:
        """Ends it."""
        self._file.close()
        self._socket.close()
