"""gzip and zstd for who accepts them (RFC 9110 §12.5.3); live streams are left alone, since a buffer would hold them up."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache
from typing import Literal, Protocol

import zstandard
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Encoding = Literal["identity", "gzip", "zstd"]
_GZIP_LEVEL, _ZSTD_LEVEL = 4, 3
_SMALLEST = 500
_IN_THREAD = 64 * 1024
_TYPES = ("application/json", "application/problem+json", "application/x-ndjson", "text/csv", "text/html", "text/css",
          "text/javascript", "application/javascript", "text/plain")  # fmt: skip


@lru_cache(maxsize=256)
def chosen(accept_encoding: str) -> Encoding:
    """The encoding for a header Accept-Encoding: zstd before gzip where both are equally welcome."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(",")[:20]:
        name, _, parameter = part.partition(";")
        key, _, number = parameter.strip().partition("=")
        try:
            weights[name.strip()] = float(number) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    best: tuple[float, Encoding] = (0.0, "identity")
    encodings: tuple[Encoding, ...] = ("zstd", "gzip")
    for encoding in encodings:
        weight = weights.get(encoding, weights.get("*", 0.0))
        if weight > best[0]:
            best = (weight, encoding)
    return best[1]


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def _compressor(encoding: Encoding) -> _Compressor:
    if encoding == "zstd":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)


def compress(data: bytes, encoding: Encoding) -> bytes:
    """`data` in one piece."""
    if encoding == "identity":
        return data
    compressor = _compressor(encoding)
    return compressor.compress(data) + compressor.flush()


async def compressed(data: bytes, encoding: Encoding) -> bytes:
    """`compress`, in a worker thread when there is much to do."""
    if len(data) < _IN_THREAD:
        return compress(data, encoding)
    return await asyncio.get_running_loop().run_in_executor(None, compress, data, encoding)


class Encoded:
    """A body that is sent many times, compressed once for each encoding. `link` is its next page."""

    __slots__ = ("_forms", "link", "plain")

    def __init__(self, plain: bytes, link: str | None = None) -> None:
        self.plain = plain
        self.link = link
        self._forms: dict[Encoding, bytes] = {}

    async def get(self, encoding: Encoding) -> bytes:
        """The body in this encoding."""
        if encoding == "identity":
            return self.plain
        found = self._forms.get(encoding)
        if found is None:
            found = self._forms[encoding] = await compressed(self.plain, encoding)
        return found


class Compress:
    """ASGI: compresses what the client accepts and what is worth it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted = b""
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                accepted = value
        encoding = chosen(accepted.decode("latin-1")) if accepted else "identity"
        await self._app(scope, receive, _Sender(send, encoding) if encoding != "identity" else send)


class _Sender:
    """Holds the head back until the first piece of the body shows whether compressing is worth it."""

    def __init__(self, send: Send, encoding: Encoding) -> None:
        self._send = send
        self._encoding = encoding
        self._head: Message | None = None
        self._compressor: _Compressor | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            media = headers.get("content-type", "").partition(";")[0]
            if media in _TYPES and "content-encoding" not in headers:
                self._head = message
            else:
                await self._send(message)
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        if self._head is not None:
            head, self._head = self._head, None
            more = message.get("more_body", False)
            if head["status"] in (204, 304):
                await self._send(head)
                await self._send(message)
                return
            headers = MutableHeaders(raw=list(head["headers"]))
            if "accept-encoding" not in headers.get("vary", "").lower():
                headers.add_vary_header("Accept-Encoding")
            if more or len(message.get("body", b"")) >= _SMALLEST:
                self._compressor = _compressor(self._encoding)
                headers["Content-Encoding"] = self._encoding
                del headers["Content-Length"]
            await self._send({**head, "headers": headers.raw})
        if self._compressor is None:
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        squeezed = await self._squeeze(self._compressor, body, last=not more)
        await self._send({"type": "http.response.body", "body": squeezed, "more_body": more})

    @staticmethod
    async def _squeeze(compressor: _Compressor, body: bytes, *, last: bool) -> bytes:
        def work() -> bytes:
            data = compressor.compress(body)
            return data + compressor.flush() if last else data

        if len(body) < _IN_THREAD:
            return work()
        return await asyncio.get_running_loop().run_in_executor(None, work)
