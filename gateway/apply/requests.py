"""How a command reaches the running collector: a request file in `data_dir/control`, and an answer beside it.

The folder is this user's alone (0700). A request is written whole and then renamed; the collector takes it by renaming it, so that a
request which nobody took can be withdrawn with certainty. Why not a socket: docs/decisions/0006-apply.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Literal

import msgspec

from gateway.apply.difference import Difference
from gateway.apply.owner import inherit, make_folder
from gateway.looking.questions import WITHIN, Machine, Seen

FOLDER = "control"
TAKEN_WITHIN = 5.0
"""Seconds in which a running collector has taken a request for certain: it looks twice a second."""
ANSWERED_WITHIN = 120.0
_LOOK = 0.05
_OLD = 600.0


class Request(msgspec.Struct, frozen=True, tag="configuration"):
    """What the collector is to do with the configuration in `file` (an absolute path), or with `text` as if that file had it."""

    action: Literal["difference", "apply"]
    file: str
    text: str | None = None


class LookRequest(msgspec.Struct, frozen=True, tag="look"):
    """A look at a machine. The answer to it is a `gateway.looking.questions.Seen`."""

    question: Machine


class Told(msgspec.Struct, frozen=True):
    """A problem of the configuration."""

    file: str
    path: str
    line: int | None
    text: str
    text_zh: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What came of it. `failure` is empty when all went well, else `problems`, `other_file` or `failed`; then nothing was changed."""

    failure: Literal["", "problems", "other_file", "failed"] = ""
    en: str = ""
    zh: str = ""
    problems: list[Told] = msgspec.field(default_factory=list)
    difference: Difference = msgspec.field(default_factory=Difference)
    number: int | None = None
    """The number under which the configuration that now runs is kept."""


class NoCollectorError(Exception):
    """Nobody took the request, or nobody answered it."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh


def ask(data_dir: Path, request: Request, *, within: float = ANSWERED_WITHIN) -> Answer:
    """Gives a request to the collector of this data directory and waits for the answer.

    Raises NoCollectorError when none runs there (then nothing was done); OSError when the folder cannot be written.
    """
    exchange = _Exchange(data_dir, request, within)
    while not exchange.answered():
        time.sleep(_LOOK)
    return msgspec.json.decode(exchange.answer(), type=Answer)


async def look(data_dir: Path, question: Machine) -> Seen:
    """Has the collector of this data directory look at a machine. Raises as `ask` does. Who waits holds no thread; when it is cancelled, a look that nobody
    has taken is withdrawn."""
    within = WITHIN[type(question)] + 2 * TAKEN_WITHIN
    exchange = _Exchange(data_dir, LookRequest(question), within)
    try:
        while not exchange.answered():  # noqa: ASYNC110 (another process answers)
            await asyncio.sleep(_LOOK)
    except asyncio.CancelledError:
        exchange.withdraw()
        raise
    return msgspec.json.decode(exchange.answer(), type=Seen)


class _Exchange:
    """One request and its answer: `answered` again and again until it is True, then `answer`. Raises OSError."""

    def __init__(self, data_dir: Path, request: Request | LookRequest, within: float) -> None:
        folder = _folder(data_dir)
        name = uuid.uuid4().hex
        self._data_dir = data_dir
        self._applying = isinstance(request, Request)
        self._within = within
        self._request, self._answer = folder / f"request-{name}.json", folder / f"answer-{name}.json"
        _write(self._request, msgspec.json.encode(request))
        self._begun = time.monotonic()

    def answered(self) -> bool:
        """Raises NoCollectorError once nobody takes the request, or nobody answers it."""
        if self._answer.exists():
            return True
        waited = time.monotonic() - self._begun
        if waited > TAKEN_WITHIN and self.withdraw():
            raise NoCollectorError(
                f"no collector runs in {self._data_dir}"
                + ("; the configuration counts when it starts" if self._applying else ""),
                f"{self._data_dir} 中没有正在运行的采集进程" + ("；配置将在启动时生效" if self._applying else ""),
            )
        if waited > self._within:
            raise NoCollectorError(
                f"the collector took the request and did not answer within {self._within:.0f} s; its log says more",
                f"采集进程已收到请求，但 {self._within:.0f} 秒内未应答；详见其日志",
            )
        return False

    def answer(self) -> bytes:
        """The answer, which is gone then."""
        try:
            return self._answer.read_bytes()
        finally:
            self._answer.unlink(missing_ok=True)

    def withdraw(self) -> bool:
        """True when nobody had taken the request: nobody will."""
        try:
            self._request.unlink()
        except FileNotFoundError:
            return False
        return True


def take(data_dir: Path) -> list[tuple[str, Request | LookRequest | None]]:
    """The collector's half: the requests that wait, each with the name to answer it by, the oldest first. None for one that is no
    request. What was left by earlier lives is removed."""
    folder = _folder(data_dir)
    found: list[tuple[str, Request | LookRequest | None]] = []
    for path in sorted(folder.glob("request-*.json"), key=lambda p: p.name):
        taken = path.with_name(path.name.replace("request-", "taken-"))
        try:
            os.replace(path, taken)
            content = taken.read_bytes()
        except FileNotFoundError:  # withdrawn in this moment
            continue
        taken.unlink(missing_ok=True)
        request: Request | LookRequest | None
        try:
            request = msgspec.json.decode(content, type=Request | LookRequest)
        except msgspec.MsgspecError:
            request = None
        found.append((path.stem.removeprefix("request-"), request))
    return found


def clear(data_dir: Path) -> None:
    """At the start of a collector: what lies there was meant for an earlier one."""
    for path in _folder(data_dir).iterdir():
        with contextlib.suppress(OSError):
            path.unlink()


def reply(data_dir: Path, name: str, answer: Answer | Seen) -> None:
    """Answers the request with this name."""
    folder = _folder(data_dir)
    _write(folder / f"answer-{name}.json", msgspec.json.encode(answer))
    for path in folder.glob("answer-*.json"):  # of those that did not wait
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD:
                path.unlink()


def _folder(data_dir: Path) -> Path:
    folder = data_dir / FOLDER
    make_folder(folder, 0o700)
    return folder


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    inherit(temporary)
    os.replace(temporary, path)
