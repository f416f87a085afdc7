"""uvicorn's HTTP/1.1 protocol with three things more: a limit of the header's size and of connections, and a way to end one at once."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.context import Limits
from gateway.api.language import Words
from gateway.api.problems import MEDIA_TYPE, ProblemError
from gateway.api.stream import ABORT

_HEADER_TIME = 15.0
"""Seconds in which a request's header has to arrive."""


class Protocol(HttpToolsProtocol):
    """One connection; `limited` makes a class with limits of its own."""

    most_connections = 1024
    most_header = 32 * 1024

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._in_header = True
        self._received = 0
        self._deadline = self.loop.call_later(_HEADER_TIME, self._late)
        if len(self.connections) > self.most_connections:
            self._refuse(
                ProblemError("busy", Words("Too many connections.", "连接数已达上限。"), headers={"Retry-After": "5"})
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)
        if self._in_header and self._received > self.most_header:
            self._refuse_header()  # one that goes on and on

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._deadline.cancel()
        self._deadline = self.loop.call_later(_HEADER_TIME, self._late)
        extensions = self.scope.setdefault("extensions", {})
        assert extensions is not None
        extensions[ABORT] = {"call": self.transport.abort}

    def on_headers_complete(self) -> None:
        self._deadline.cancel()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.most_header:
            self._refuse_header()
            raise ValueError("the header is too large")  # ends the parsing
        self._in_header, self._received = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_header, self._received = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """A request that is not HTTP."""
        self._refuse(ProblemError("bad-request", Words(msg, "不是有效的 HTTP 请求。")))

    def _late(self) -> None:
        """The header has not come in time."""
        self.transport.abort()

    def _refuse_header(self) -> None:
        most = self.most_header
        self._refuse(
            ProblemError(
                "headers-too-large",
                Words(f"The header of the request has more than {most} bytes.", f"请求头超过 {most} 字节。"),
            )
        )

    def _refuse(self, problem: ProblemError) -> None:
        """Answers without the application, and hangs up."""
        if self.transport.is_closing():
            return
        body = problem.body("en")
        head = [
            f"HTTP/1.1 {problem.status} {problem.kind}",
            f"Content-Type: {MEDIA_TYPE}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in problem.headers.items()),
        ]
        self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        self.transport.close()


def limited(limits: Limits) -> type[Protocol]:
    """The protocol with these limits."""
    own = {"most_connections": limits.connections, "most_header": limits.header_bytes}
    return type("LimitedProtocol", (Protocol,), own)
