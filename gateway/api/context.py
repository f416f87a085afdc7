"""What all routes share: the store's reader, serve's memory, the worker threads, and how answers are made."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cursors
from gateway.api.catalog import Catalog, SignalGone
from gateway.api.clocks import Clocks
from gateway.api.language import Language, Words, preferred, words
from gateway.api.latest import LatestView
from gateway.api.live import Live
from gateway.api.parameters import Query, Selection, resolve_moment
from gateway.api.problems import ProblemError, invalid, not_found
from gateway.ledger.steps import StoreError, StoreWeatherError
from gateway.store import Reader
from gateway.store.records import EventRecord, SignalRecord
from schemas.bilingual import Bilingual, chinese

T = TypeVar("T")
ROOT = "/api/v1"
JSON = "application/json"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, or all together, may ask of serve."""

    threads: int = 4
    """Questions to the store at the same time."""
    waiting: int = 64
    """Questions to the store that wait for a thread; one more is told to come again."""
    requests: int = 256
    """Requests at the same time, live streams not counted."""
    connections: int = 1024
    request_bytes: int = 64 * 1024
    """Largest body of a request: none needs one, but"""
    config_bytes: int = 4 * 1024 * 1024
    """a new configuration, and"""
    table_bytes: int = 16 * 1024 * 1024
    """a point table."""
    header_bytes: int = 32 * 1024
    streams: int = 128
    streams_per_client: int = 32
    exports: int = 8
    """NDJSON and CSV answers at the same time."""
    bucket_seconds: float = 5.0
    """Time after which a page of buckets ends early, with a `next` link."""


DEFAULT_LIMITS = Limits()


class Api:
    """See the module. Made by `role.Serve`; lives as long as the server."""

    def __init__(
        self,
        reader: Reader,
        live: Live,
        threads: ThreadPoolExecutor,
        *,
        writes: str = "disabled",
        limits: Limits = DEFAULT_LIMITS,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reader, self.live = reader, live
        self.view = LatestView(live)
        self.clocks = Clocks(reader, self._events)
        live.listeners.add(self.clocks)
        self.writes = writes
        self.limits = limits
        self.now, self.monotonic = now_us, monotonic
        self.exports = 0
        self._threads = threads
        self._waiting = 0

    async def _events(self, call: Callable[[], list[EventRecord]]) -> list[EventRecord]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def ask(self, call: Callable[[], T]) -> T:
        """Asks the store in a worker thread. What goes wrong there is a problem that the client is told."""
        if self._waiting >= self.limits.waiting:
            raise busy("the store is being asked too much", "对存储的查询过多")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except StoreError as error:
            raise store_problem(error) from error
        finally:
            self._waiting -= 1

    def catalog(self) -> Catalog:
        """What is known of assets, devices and signals. Raises the problem `store-unavailable` before the first reading."""
        if not self.live.loaded:
            health = self.live.health
            raise ProblemError(
                "store-unavailable",
                Words(health.reason, f"存储尚不可用：{chinese(health.reason)}"),
                fix=Words(health.fix, health.fix),
                headers={"Retry-After": "2"},
            )
        return self.live.catalog

    # ------------------------------------------------------------------------------------------------- questions

    def signal(self, text: str) -> SignalRecord:
        """The signal with this id. Raises the problem `not-found`."""
        catalog = self.catalog()
        found = catalog.find(text)
        if found is None:
            raise not_found(Words("the signal", "信号"), text, catalog.nearest_signals(text))
        return found

    def check(self, *, devices: Sequence[str] = (), assets: Sequence[str] = ()) -> None:
        """Raises the problem `invalid-parameter` for a device or an asset that there is not."""
        catalog = self.catalog()
        for device in devices:
            if device not in catalog.devices:
                raise invalid("device", device, _known("device", catalog.nearest_devices(device)))
        for asset in assets:
            if asset not in catalog.assets:
                raise invalid("asset", asset, _known("asset", catalog.nearest_assets(asset)))

    def select(
        self, query: Selection, *, names: Sequence[str] = (), match: Sequence[str] = (), retired: bool = False
    ) -> tuple[int, ...]:
        """Numbers of the signals that a query means, in the order of their ids. Raises problems for what is not known."""
        self.check(devices=query.device, assets=query.asset)
        try:
            return self.catalog().select(
                names=names, match=match, devices=query.device, assets=query.asset, retired=retired
            )
        except SignalGone as gone:
            raise invalid("signal", gone.name, _known("signal", gone.nearest)) from None

    def bounds(self, start: str | None, end: str | None) -> tuple[int | None, int | None]:
        """A range as the client wrote it, in µs. Raises the problem `invalid-parameter` when it ends before it starts."""
        now = self.now()
        first = None if start is None else resolve_moment(start, now)
        last = None if end is None else resolve_moment(end, now)
        if first is not None and last is not None and last < first:
            raise invalid("end", end, Bilingual(f"a time after start ({start})", f"start（{start}）之后的时间"))
        return first, last


def language_of(request: Request, query: Query) -> Language:
    """The language of the answer."""
    return query.lang or preferred(request.headers.get("accept-language", ""))


def _known(what: str, nearest: Sequence[str]) -> str:
    what_zh = {"device": "设备", "asset": "资产", "signal": "信号"}[what]
    hint = Bilingual(f"; the nearest is {nearest[0]}", f"；最接近的是 {nearest[0]}") if nearest else ""
    return Bilingual(
        f"a known {what} (see {ROOT}/{what}s){hint}", f"已有的{what_zh}（见 {ROOT}/{what}s）{chinese(hint)}"
    )


def busy(en: str, zh: str) -> ProblemError:
    """Come again in a moment."""
    return ProblemError(
        "busy", Words(en, zh), fix=Words("Try again in a second.", "请稍后重试。"), headers={"Retry-After": "1"}
    )


def store_problem(error: StoreError) -> ProblemError:
    """What a client is told when the store cannot be asked."""
    kind = "store-unavailable" if isinstance(error, StoreWeatherError) else "store-failed"
    return ProblemError(kind, words(error), fix=words(error.fix), headers={"Retry-After": "2"})


# ------------------------------------------------------------------------------------------------------------ answers


def next_link(request: Request, cursor: cursors.AnyCursor) -> str:
    """The URL of the next page, relative to the host: this request with another cursor."""
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name != "cursor"]
    return f"{request.scope['path']}?{urlencode([*kept, ('cursor', cursors.dump(cursor))])}"


def answer(
    request: Request,
    body: Any,
    language: Language,
    *,
    next: str | None = None,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer with this body (bytes of JSON, or what msgspec encodes). With an `etag` that the client has: 304 and no body."""
    all_headers = {
        "Content-Language": language,
        "Vary": "Accept-Language, Accept-Encoding",
        "Cache-Control": "no-cache",
    }
    if next is not None:
        all_headers["Link"] = f'<{next}>; rel="next"'
    if etag is not None:
        all_headers["ETag"] = etag
        if has_etag(request, etag):
            return Response(status_code=304, headers=all_headers)
    content = body if isinstance(body, bytes) else _encode(body)
    return Response(content, media_type=JSON, headers={**all_headers, **(headers or {})})


def etag_of(*parts: object) -> str:
    """A weak ETag of what an answer depends on."""
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}"'


def has_etag(request: Request, etag: str) -> bool:
    """Whether the client says that it has this one (If-None-Match, RFC 9110 §13.1.2, weak comparison)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    bare = etag.removeprefix("W/")
    return given.strip() == "*" or any(part.strip().removeprefix("W/") == bare for part in given.split(","))
