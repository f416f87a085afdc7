"""`/health` of the roles that have no API: beside their `/metrics`, in the reader's language, answered by the role's own event loop.

A role whose event loop stands still does not answer `/health/live` with 200, although the thread that serves it lives.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socketserver
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import msgspec

from gateway import __version__
from gateway.api.language import Language, preferred
from schemas.bilingual import Bilingual, spoken

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ANSWERS_WITHIN: Final = 3.0
"""Seconds after which an event loop that does not answer counts as standing still."""
MOST_DEVICES: Final = 200

_GOOD = ("ok", "degraded")
_STANDS_STILL: Final = Bilingual(
    f"The role has not answered for {ANSWERS_WITHIN:g} s.", f"该进程已有 {ANSWERS_WITHIN:g} 秒没有应答。"
)
_RESTART: Final = Bilingual(
    "Restart the role if this stays, and keep its log (guantong support).",
    "若持续如此，请重启该进程并保留日志（guantong support）。",
)


@dataclass(frozen=True, slots=True)
class Part:
    """How a part of the role is. `reason` and `fix` are `schemas.bilingual.Bilingual`, empty where all is well."""

    state: str = "ok"
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is not well, with what is wrong with single signals."""

    device: str
    state: str
    reason: str = ""
    fix: str = ""
    signals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """How the role is. It is ready while the parts named in `needed` are ok or degraded."""

    parts: Mapping[str, Part]
    needed: frozenset[str]
    devices: tuple[Device, ...] = ()

    @property
    def status(self) -> str:
        """ready, degraded or not_ready."""
        if any(self.parts[name].state not in _GOOD for name in self.needed):
            return "not_ready"
        return "ready" if all(part.state == "ok" for part in self.parts.values()) else "degraded"

    def document(self, role: str, language: Language) -> dict[str, Any]:
        """The answer, in the form of serve's /health."""
        found: dict[str, Any] = {"status": self.status, "role": role, "version": __version__}
        found["components"] = {
            name: {"state": part.state, "reason": spoken(part.reason, language), "fix": spoken(part.fix, language)}
            for name, part in self.parts.items()
        }
        if self.devices:
            found["devices"] = [
                {
                    "device": one.device, "state": one.state, "reason": spoken(one.reason, language),
                    "fix": spoken(one.fix, language),
                    "signals": {name: spoken(problem, language) for name, problem in one.signals.items()},
                }
                for one in self.devices[:MOST_DEVICES]
            ]  # fmt: skip
        return found


def application(
    role: str, look: Callable[[], Look], loop: asyncio.AbstractEventLoop, otherwise: WSGIApplication
) -> WSGIApplication:
    """A WSGI application (PEP 3333) for /health, /health/ready and /health/live; everything else goes to `otherwise`.

    `look` is called in `loop`, the role's own.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", "")).rstrip("/")
        if path not in ("/health", "/health/ready", "/health/live"):
            return otherwise(environ, start_response)
        given = parse_qs(str(environ.get("QUERY_STRING", ""))).get("lang", [""])[0]
        language = preferred(given or str(environ.get("HTTP_ACCEPT_LANGUAGE", "")))
        found = _looked(look, loop)
        stands_still = found is None
        if found is None:
            found = Look({"role": Part("failed", _STANDS_STILL, _RESTART)}, frozenset({"role"}))
        document = found.document(role, language)
        if path == "/health/live":
            document = {"status": "not_alive" if stands_still else "alive", "role": role}
        bad = stands_still if path == "/health/live" else path == "/health/ready" and found.status == "not_ready"
        body = msgspec.json.encode(document)
        headers = [
            ("Content-Type", "application/json"), ("Content-Language", language), ("Cache-Control", "no-store"),
            ("Content-Length", str(len(body))),
        ]  # fmt: skip
        start_response("503 Service Unavailable" if bad else "200 OK", headers)
        return [body]

    return answer


def _looked(look: Callable[[], Look], loop: asyncio.AbstractEventLoop) -> Look | None:
    async def there() -> Look:
        return look()

    coroutine = there()
    try:
        asked = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # the role has ended
        coroutine.close()
        return None
    try:
        return asked.result(ANSWERS_WITHIN)
    except concurrent.futures.TimeoutError:
        asked.cancel()
        return None


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves an application, each request in a thread. No name of the machine is looked up: there may be nobody to ask."""

    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class QuietHandler(WSGIRequestHandler):
    """Logs no request, and looks up no name of the client."""

    def log_message(self, format: str, *args: Any) -> None:  # the parent's name
        """Nothing."""

    def address_string(self) -> str:
        return str(self.client_address[0])
