"""What every request passes first: host, size, key, writes; and what every answer gets: headers, a place in the statistics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import problems
from gateway.api.context import ROOT, Limits
from gateway.api.keys import KeyFile, KeyFileError
from gateway.api.language import Words, preferred, words
from gateway.api.problems import ProblemError

log = logging.getLogger("guantong.serve")

OPEN = ("/", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready", "/favicon.ico")
"""Readable without a key. /health tells who has none only whether it is well."""
OPEN_BELOW = ("/docs/", "/static-docs/", "/page/")
READER = "guantong.reader"
"""In the ASGI scope: True when the request may read everything."""
CONFIG = f"{ROOT}/config"
"""The one thing that can be changed."""
SETUP = f"{ROOT}/setup/"
"""Looks at machines, for who sets the gateway up."""
TABLE = f"{SETUP}table"
LETTERS = f"{ROOT}/dead-letters"
"""What could not be stored, whatever it holds."""
_CHANGERS = frozenset({"engineer", "admin"})

_FAILURES, _WINDOW = 10, 60.0
"""So many wrong keys of one address in so many seconds, and it has to wait."""
_DELAY, _DELAYED = 0.5, 32
_ADDRESSES = 10_000
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_PAGES = b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


@dataclass(slots=True)
class Numbers:
    """Running totals, for /metrics."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """(method, route, status) -> number."""
    seconds: float = 0.0
    buckets: Counter[float] = field(default_factory=Counter)
    """Upper bound in seconds -> answers; live streams are not counted."""
    refused: Counter[str] = field(default_factory=Counter)
    """Kind of problem -> number."""
    active: int = 0


class Guard:
    """ASGI, outermost. `hosts` are the names under which this server may be asked, None for any; see `allowed_hosts`."""

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyFile,
        *,
        loopback: bool,
        hosts: frozenset[str] | None,
        limits: Limits,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.numbers = Numbers()
        self._app = app
        self._keys = keys
        self._loopback = loopback
        self._hosts = hosts
        self._limits = limits
        self._monotonic = monotonic
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._monotonic()
        numbers = self.numbers
        numbers.active += 1
        method = scope["method"]
        sender = _Sender(send, method == "HEAD")
        try:
            try:
                await self._check(scope)
                if scope["method"] == "HEAD":
                    scope = {**scope, "method": "GET"}  # a copy: the server still has to know
                await self._app(scope, receive, sender)
            except ProblemError as problem:
                numbers.refused[problem.kind] += 1
                await refuse(problem, scope, sender)
        finally:
            numbers.active -= 1
            route = getattr(scope.get("route"), "path", "other")
            numbers.requests[method, route, sender.status] += 1
            if not sender.lasting:
                took = self._monotonic() - started
                numbers.seconds += took
                numbers.buckets[next((bound for bound in BUCKETS if took <= bound), float("inf"))] += 1

    async def _check(self, scope: Scope) -> None:
        """Raises the problem for which the request is refused."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._check_host(headers.get(b"host", b"").decode("latin-1"))
        if self.numbers.active > self._limits.requests + self._limits.streams:
            raise ProblemError(
                "busy", Words("Too many requests at once.", "同时请求过多。"), headers={"Retry-After": "1"}
            )
        length = headers.get(b"content-length", b"0")
        most = self._most(scope["path"])
        if not length.isdigit() or int(length[:20]) > most:
            raise ProblemError(
                "too-large",
                Words(
                    f"The body has {length[:20].decode('latin-1')} bytes; at most {most} are read.",
                    f"请求体有 {length[:20].decode('latin-1')} 字节，上限 {most} 字节。",
                ),
                headers={"Connection": "close"},
            )
        if scope["method"] == "HEAD" and scope["path"] == f"{ROOT}/stream":
            raise ProblemError("method-not-allowed", headers={"Allow": "GET"})
        scope[READER] = await self._check_key(scope, headers)
        path, method = scope["path"], scope["method"]
        if method in ("POST", "PUT") and path == CONFIG:
            self._check_change(headers, b"application/json")
        elif path.startswith(SETUP) and method in ("GET", "HEAD"):
            self._check_change(headers, None)
        elif path == LETTERS:
            self._check_role(
                headers,
                Words(
                    "Dead letters are read with the role engineer or admin.", "查看死信需要 engineer 或 admin 角色。"
                ),
            )
        elif path.startswith(SETUP) and method == "POST":
            self._check_change(headers, b"application/octet-stream" if path == TABLE else b"application/json")
        elif scope["method"] not in ("GET", "HEAD", "OPTIONS") and scope["path"].startswith(ROOT):
            raise ProblemError(
                "writes-disabled",
                Words(
                    "This version only reads: commands to devices are refused, whatever the configuration says.",
                    "本版本为只读：无论如何配置，均拒绝向设备下发命令。",
                ),
                fix=Words("Use GET. /health shows the setting `writes`.", "请使用 GET；/health 中可查看 writes 设置。"),
            )

    def _most(self, path: str) -> int:
        """Largest body in bytes."""
        if path == TABLE:
            return self._limits.table_bytes
        return self._limits.config_bytes if path == CONFIG or path.startswith(SETUP) else self._limits.request_bytes

    def _check_change(self, headers: dict[bytes, bytes], expected: bytes | None) -> None:
        """Who may change the configuration (`expected`: the type of the body), and that no page of a stranger does it with somebody's browser: it would send another
        Origin, and cannot send this content type without asking first (which is never answered with yes)."""
        self._check_role(
            headers,
            Words(
                "The configuration is changed with the role engineer or admin.", "更改配置需要 engineer 或 admin 角色。"
            ),
        )
        media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if expected is not None and media != expected:
            wanted = expected.decode()
            raise ProblemError(
                "unsupported-media-type",
                Words(f"Content-Type: expected {wanted}.", f"Content-Type 应为 {wanted}。"),
            )
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", b"none")
        own = headers.get(b"host", b"").lower()
        if (origin is not None and origin.lower().partition(b"://")[2] != own) or site not in (b"none", b"same-origin"):
            raise ProblemError(
                "cross-origin",
                Words("A page of another origin may not change the configuration.", "其他来源的网页不得更改配置。"),
            )

    def _check_role(self, headers: dict[bytes, bytes], why: Words) -> None:
        """Raises the problem `forbidden` unless the key is an engineer's or an admin's, or none is needed."""
        if self._open():
            return
        key = self._keys.verify(_given(headers) or "")
        if key is None or key.role not in _CHANGERS:
            raise ProblemError(
                "forbidden",
                why,
                fix=Words(
                    "`guantong key add NAME --role engineer` makes a key.", "用 guantong key add NAME --role engineer 创建密钥。"
                ),
            )  # fmt: skip

    def _open(self) -> bool:
        """True where everybody who can connect is let in: on loopback, without keys."""
        return self._loopback and not self._keys.any()

    def _check_host(self, host: str) -> None:
        """Against DNS rebinding: a page of a stranger must not read a server on loopback under the stranger's name."""
        if self._hosts is None:
            return
        name = host.lower().strip()
        name = name[: name.rindex("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
        if name not in self._hosts:
            raise ProblemError(
                "wrong-host",
                Words(
                    f"Host: found {problems.show(problems.shorten(host))}, expected one of {', '.join(sorted(self._hosts))}",
                    f"Host 头为 {problems.show(problems.shorten(host))}，应为 {', '.join(sorted(self._hosts))} 之一",
                ),
            )

    # ------------------------------------------------------------------------------------------------------- keys

    async def _check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """True when the request may read everything; False on a page that is open to all."""
        try:
            if self._open():
                return True
            given = _given(headers)
            key = None if given is None else self._keys.verify(given)
        except KeyFileError as error:
            raise ProblemError(
                "keys-unreadable",
                Words("Nobody can be let in until it can.", "在恢复之前拒绝所有访问。"),
                fix=words(error.fix),
            ) from error
        if key is not None:
            return True
        path = scope["path"]
        if given is None and (path in OPEN or path.startswith(OPEN_BELOW)):
            return False
        address = scope["client"][0] if scope.get("client") else ""
        if given is not None:
            await self._failed(address)
        raise ProblemError(
            "unauthorized",
            Words("The key is not valid.", "密钥无效。")
            if given is not None
            else Words("No key was given.", "未提供密钥。"),
            fix=Words(
                "Send `Authorization: Bearer KEY` or `X-API-Key: KEY`; `guantong key add NAME` makes one.",
                "请发送 Authorization: Bearer KEY 或 X-API-Key: KEY；用 guantong key add NAME 创建密钥。",
            ),
            headers={"WWW-Authenticate": 'Bearer realm="guantong"'},
        )

    async def _failed(self, address: str) -> None:
        """Slows down who tries keys. A right key is always let in, so that nobody is locked out by a neighbour behind one address."""
        now = self._monotonic()
        since, count = self._failures.pop(address, (now, 0))
        if now - since > _WINDOW:
            since, count = now, 0
        self._failures[address] = (since, count + 1)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
        if count == 0:
            log.warning("serve: a wrong API key from %s", address or "an unknown address")
        if count >= _FAILURES or self._delayed >= _DELAYED:
            wait = max(1, round(_WINDOW - (now - since)))
            raise ProblemError(
                "too-many-requests",
                Words(
                    f"Too many wrong keys from this address; wait {wait} s.", f"该地址错误密钥过多，请等待 {wait} 秒。"
                ),
                headers={"Retry-After": str(wait)},
            )
        self._delayed += 1
        try:
            await asyncio.sleep(_DELAY)
        finally:
            self._delayed -= 1


def _given(headers: dict[bytes, bytes]) -> str | None:
    """The key that a request carries."""
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    other = headers.get(b"x-api-key")
    return None if other is None else other.decode("latin-1").strip()


def allowed_hosts(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """The names under which a server that listens on `host`, a loopback address, may be asked."""
    names = {"localhost", "127.0.0.1", "[::1]", *more}
    names.add(f"[{host}]" if ":" in host else host.lower())
    return frozenset(names)


async def refuse(problem: ProblemError, scope: Scope, send: Send) -> None:
    """Answers with a problem."""
    language = "en"
    for name, value in scope["headers"]:
        if name == b"accept-language":
            language = preferred(value.decode("latin-1"))
    body = problem.body("zh" if language == "zh" else "en", scope["path"])
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"content-language", language.encode()),
        (b"cache-control", b"no-store"),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Sender:
    """Passes an answer on: adds headers, leaves the body of a HEAD away, remembers the status."""

    def __init__(self, send: Send, head: bool) -> None:
        self.status = 0
        self.lasting = False
        """True for a live stream, whose time is not that of an answer."""
        self._send = send
        self._head = head

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message["headers"])
            given = {name.lower(): value for name, value in headers}
            media = given.get(b"content-type", b"")
            self.lasting = media.startswith(b"text/event-stream")
            headers += _HEADERS
            if media.startswith(b"text/html") and b"content-security-policy" not in given:
                headers.append((b"content-security-policy", _PAGES))
            message = {**message, "headers": headers}
        elif self._head:
            if not message.get("more_body", False):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self._send(message)
