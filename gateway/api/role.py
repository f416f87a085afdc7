"""The role `serve`: the HTTP server, its memory of `latest`, and the bus, in one process and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import uvicorn

from gateway.api.app import Application, make_app
from gateway.api.config import Configured
from gateway.api.context import DEFAULT_LIMITS, Api, Limits
from gateway.api.guard import allowed_hosts
from gateway.api.keys import KeyFile, KeyFileError
from gateway.api.live import POLL, SILENT, Live
from gateway.api.protocol import limited
from gateway.bus.client import Bus
from gateway.bus.topics import Topics
from gateway.config.models import ApiSettings
from gateway.platform import POSIX
from gateway.roles import CannotStartError
from gateway.store import Reader
from schemas.bilingual import Bilingual
from schemas.wire import State

if TYPE_CHECKING:
    from gateway.config.models import Config

log = logging.getLogger("guantong.serve")

T = TypeVar("T")

STOP_WITHIN = 2.0
"""Seconds that answers which are under way have to end when the server stops."""
_KEEP_ALIVE = 30


class ServeCannotStartError(CannotStartError):
    """The server cannot listen; `fix` says what a person can do."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(f"{message}. {fix}")
        self.fix = fix


@dataclass(slots=True)
class Health:
    """State of this role, with reason and fix; that of its parts is in /health."""

    state: State = "starting"
    reason: str = ""
    fix: str = ""


class Serve:
    """See the module. `run` goes on until it is cancelled, and then stops within three seconds, open streams included."""

    def __init__(
        self,
        settings: ApiSettings,
        reader: Reader,
        bus: Bus,
        topics: Topics,
        data_dir: Path,
        *,
        writes: str = "disabled",
        hosts: Iterable[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        poll: float = POLL,
        silent: float = SILENT,
        config_file: Path | None = None,
    ) -> None:
        self.settings = settings
        self.health = Health()
        self.bus = bus
        self.keys = KeyFile(data_dir)
        self.port = settings.port
        """The port that is listened on, once `ready` is set; with port 0 in the settings it is a free one."""
        self.ready = asyncio.Event()
        """Set when the server listens."""
        self._reader = reader
        self._threads = ThreadPoolExecutor(limits.threads, "read")
        self._state_thread = ThreadPoolExecutor(1, "live")
        self.live = Live(
            reader, topics, bus, self._in_thread, now_us=now_us, monotonic=monotonic, poll=poll, silent=silent
        )
        self.api = Api(
            reader, self.live, self._threads, writes=writes, limits=limits, now_us=now_us, monotonic=monotonic
        )
        loopback = settings.loopback
        self.app: Application = make_app(
            self.api,
            bus,
            self.keys,
            loopback=loopback,
            hosts=allowed_hosts(settings.host, hosts) if loopback else None,
            configured=None if config_file is None else Configured(config_file, data_dir),
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """`Live` has a thread of its own: questions of clients must not make it wait."""
        return await asyncio.get_running_loop().run_in_executor(self._state_thread, call)

    # ------------------------------------------------------------------------------------------------- for ever

    async def run(self) -> None:
        """Until cancelled. Raises ServeCannotStartError when it may not, or cannot, listen."""
        try:
            self._check_keys()
            listener = self._listen()
        except ServeCannotStartError as error:
            self.health = Health("failed", str(error), error.fix)
            self._end_threads()
            raise
        self.port = listener.getsockname()[1]
        server = _Server(self._config())
        log.info("serve: listening on http://%s:%s (documentation at /docs)", self._host_text(), self.port)
        tasks = [
            asyncio.create_task(part, name=name)
            for name, part in (
                ("server", server.serve([listener])), ("live", self.live.run()), ("bus", self.bus.run()),
                ("clocks", self.api.clocks.run()),
                ("started", self._announce(server)),
            )
        ]  # fmt: skip
        try:
            # none of the first four ends by itself unless something is wrong
            done, _ = await asyncio.wait(tasks[:4], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._stop(server, tasks)

    async def _announce(self, server: _Server) -> None:
        await server.listening.wait()
        self.health = Health("ok")
        self.ready.set()

    async def _stop(self, server: _Server, tasks: list[asyncio.Task[None]]) -> None:
        self.health = Health("stopping")
        self.app.streams.stop()
        server.should_exit = True
        web, *others = tasks
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.wait([web], timeout=STOP_WITHIN + 0.5)
        web.cancel()
        await asyncio.gather(web, return_exceptions=True)
        await self.app.looker.close(0.3)  # it holds nothing that would have to be ended in order
        self._end_threads()
        self.health = Health("stopped")

    def _end_threads(self) -> None:
        for threads in (self._threads, self._state_thread):
            threads.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    # ---------------------------------------------------------------------------------------------------- listening

    def _check_keys(self) -> None:
        """A listener that others can reach needs a key."""
        try:
            there = self.keys.any()
        except KeyFileError as error:
            raise ServeCannotStartError(str(error), fix=error.fix) from error
        if not there and not self.settings.loopback:
            raise ServeCannotStartError(
                Bilingual(
                    f"api.host is {self.settings.host}, which other machines can reach, and there is no API key in {self.keys.path}",
                    f"api.host 为 {self.settings.host}，其他机器可以访问，而 {self.keys.path} 中没有 API 密钥",
                ),
                fix=Bilingual(
                    "Make one with `guantong key add NAME --role viewer`, or set api.host: 127.0.0.1",
                    "请用 guantong key add NAME --role viewer 生成密钥，或设置 api.host: 127.0.0.1",
                ),
            )

    def _listen(self) -> socket.socket:
        host, port = self.settings.host, self.settings.port
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except OSError as error:
            raise ServeCannotStartError(
                f"api.host {host!r} is not an address of this machine: {error}", fix="Correct api.host"
            ) from error
        listener = socket.socket(family, kind, protocol)
        try:
            if POSIX:  # on Windows it would let two programs share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise ServeCannotStartError(
                    f"port {port} of {host} is taken by another program",
                    fix="Stop that, or choose another port with --api-port or api.port",
                ) from error
            raise ServeCannotStartError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                fix="Choose another address or port with api.host and api.port (--api-port)",
            ) from error
        return listener

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app.asgi,
            http=limited(self.api.limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=round(STOP_WITHIN),
        )

    def _host_text(self) -> str:
        return f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host


class _Server(uvicorn.Server):
    """uvicorn inside a process whose signals are somebody else's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def make_serve(config: Config) -> Serve:
    """The role as the configuration has it."""
    from gateway.roles import bus_of, data_dir_of
    from gateway.store import open_reader

    data_dir = data_dir_of(config)
    file = Path(config.document.file).absolute()
    return Serve(
        config.api,
        open_reader(config.store, data_dir),
        bus_of(config, "serve"),
        Topics(config.bus.root),
        data_dir,
        writes=config.writes,
        config_file=file if file.is_file() else None,
    )
