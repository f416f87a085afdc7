"""`/api/v1/config`: the configuration as it is written, what a change would do, and changing it.

Serve checks nothing by itself: the collector, whose environment has the secrets of the devices, is asked for the difference first, and
the file is written only when it has no objection. Who may ask at all: `gateway.api.guard`.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import ROOT, Api, answer, language_of
from gateway.api.language import Words
from gateway.api.parameters import OneQuery
from gateway.api.problems import ParameterError, ProblemError, invalid
from gateway.apply import requests
from gateway.apply.difference import Difference
from gateway.apply.history import Files, History, Kept, put_back, write_files
from gateway.apply.requests import Answer, NoCollectorError
from gateway.config.secrets import holds_secret
from schemas.bilingual import Bilingual
from schemas.documents import DocumentError, parse_yaml


class ConfigState(msgspec.Struct, frozen=True):
    """The configuration file, and the configurations that ran, the newest first. `yaml` is null when the file holds a secret in
    clear, or cannot be read: then nothing of it is shown."""

    file: str
    yaml: str | None
    history: list[Kept]


class Changed(msgspec.Struct, frozen=True):
    """What a change does, or (`dry_run`) would do. `number`: under which the configuration that now runs is kept."""

    dry_run: bool
    difference: Difference
    number: int | None = None


class ChangeQuery(OneQuery):
    """How to change it."""

    dry_run: bool = Field(default=False, description="Only say what would change.")


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body: the new text, or the number of a kept configuration."""

    yaml: str | None = None
    rollback: int | None = None


@dataclass(frozen=True, slots=True)
class Configured:
    """Where the configuration lies. One change at a time."""

    file: Path
    data_dir: Path
    lock: threading.Lock = field(default_factory=threading.Lock)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"yaml": {"type": "string"}, "rollback": {"type": "integer"}},
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": False,
                },
                "examples": {
                    "text": {"value": {"yaml": "gateway: {id: line1}\nlinks: []\n"}},
                    "rollback": {"value": {"rollback": 12}},
                },
            }
        },
    },
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "schema": {"type": "string"},
            "description": "The ETag of GET; not needed for a dry run.",
        }
    ],
}


def routes(api: Api, configured: Configured) -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix=ROOT, tags=["Gateway"])

    @router.get("/config")
    async def config(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The configuration file with its ETag, and the configurations that ran before. Secrets are never shown."""
        text = await asyncio.to_thread(_text, configured.file)
        history = await asyncio.to_thread(History(configured.data_dir).list)
        state = ConfigState(str(configured.file), text if _showable(text) else None, history)
        return answer(request, state, language_of(request, query), headers={"ETag": _etag(text)})

    async def change(request: Request, query: ChangeQuery) -> Response:
        wanted = await _wanted(request, api.limits.config_bytes)
        # in a thread, which goes on when the client goes away: a file that is written is also applied
        changed = await asyncio.to_thread(_change, configured, wanted, request.headers.get("if-match"), query.dry_run)
        text = await asyncio.to_thread(_text, configured.file)
        return answer(request, changed, language_of(request, query), headers={"ETag": _etag(text)})

    @router.post("/config", openapi_extra=_BODY)
    async def change_config(request: Request, query: Annotated[ChangeQuery, Query()]) -> Response:
        """Change the configuration; with `dry_run=true` only say what would change."""
        return await change(request, query)

    @router.put("/config", openapi_extra=_BODY)
    async def replace_config(request: Request, query: Annotated[ChangeQuery, Query()]) -> Response:
        """Replace the configuration: the same as POST."""
        return await change(request, query)

    return router


async def _wanted(request: Request, most: int) -> _Wanted:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise ProblemError("too-large", Words(f"At most {most} bytes are read.", f"请求体上限 {most} 字节。"))
    try:
        wanted = msgspec.json.decode(body, type=_Wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProblemError("bad-request", Words(f"The body: {error}", f"请求体：{error}")) from error
    if (wanted.yaml is None) == (wanted.rollback is None):
        raise ProblemError(
            "bad-request",
            Words("The body: expected `yaml` or `rollback`, one of the two.", "请求体应包含 yaml 或 rollback 之一。"),
        )
    return wanted


# ---------------------------------------------------------------------------------------------------- in a worker thread


def _change(configured: Configured, wanted: _Wanted, match: str | None, dry_run: bool) -> Changed:
    with configured.lock:
        return _change_alone(configured, wanted, match, dry_run)


def _change_alone(configured: Configured, wanted: _Wanted, match: str | None, dry_run: bool) -> Changed:
    if not dry_run or match is not None:
        _check_match(match, _etag(_text(configured.file)))
    files = _files(configured, wanted)
    difference = _asked(configured, "difference", files.text).difference
    if dry_run:
        return Changed(True, difference)
    try:
        before = write_files(files, configured.file)
    except OSError as error:
        why = f"{error.filename or configured.file}: {error.strerror or error}"
        raise ProblemError(
            "config-unwritable", Words(why, why),
            fix=Words("Give serve's user the right to write there, or edit the file and say `guantong apply`.",
                      "请授予 serve 进程写入权限，或编辑文件后执行 guantong apply。"),
        ) from error  # fmt: skip
    done = False
    try:
        applied = _asked(configured, "apply", None)
        done = True
    finally:
        if not done:
            put_back(before)
    return Changed(False, applied.difference, applied.number)


def _files(configured: Configured, wanted: _Wanted) -> Files:
    if wanted.yaml is not None:
        return Files(configured.file, wanted.yaml, [], [])
    history = History(configured.data_dir)
    kept = next((kept for kept in history.list() if kept.number == wanted.rollback), None)
    if kept is None:
        raise invalid(
            "rollback",
            wanted.rollback,
            Bilingual("the number of a kept configuration (see GET)", "保留的配置的编号（见 GET）"),
        )
    try:
        return history.files(kept)
    except OSError as error:
        raise ProblemError("config-refused", Words(str(error), str(error))) from error


def _asked(configured: Configured, action: Any, text: str | None) -> Answer:
    """What the collector says. Raises the problem when that is no."""
    try:
        told = requests.ask(configured.data_dir, requests.Request(action, str(configured.file), text))
    except NoCollectorError as error:
        raise ProblemError("no-collector", Words(error.en, error.zh), headers={"Retry-After": "5"}) from error
    except OSError as error:
        why = f"{error.filename or configured.data_dir}: {error.strerror or error}"
        raise ProblemError("config-refused", Words(why, why)) from error
    if told.failure == "problems":
        errors = [
            ParameterError(
                f"line {p.line}: {p.path}" if p.line is not None else p.path or p.file,
                None,
                Bilingual(p.text, p.text_zh or p.text),
            )
            for p in told.problems
        ]
        raise ProblemError("invalid-configuration", Words(told.en, told.zh), errors=errors)
    if told.failure:
        raise ProblemError("config-refused", Words(told.en, told.zh))
    return told


def _check_match(given: str | None, present: str) -> None:
    """RFC 9110 §13.1.1: the change is of the version that the client has seen."""
    if given is None:
        raise ProblemError(
            "precondition-required",
            Words("If-Match is missing.", "缺少 If-Match 请求头。"),
            fix=Words("Send the ETag of GET config as If-Match.", "请将 GET config 返回的 ETag 作为 If-Match 发送。"),
        )
    if given.strip() != "*" and present not in (part.strip() for part in given.split(",")):
        raise ProblemError(
            "precondition-failed",
            Words("The file is not the one that was read.", "文件已不是所读取的版本。"),
            fix=Words("Read it again and repeat the change on it.", "请重新读取后再更改。"),
            headers={"ETag": present},
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError("config-refused", Words(f"{file}: {error}", f"{file}：{error}")) from error


def _etag(text: str) -> str:
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _showable(text: str) -> bool:
    """Whether no secret stands in the text; of one that cannot be read nobody knows."""
    try:
        return not holds_secret(parse_yaml(text, "").data)
    except DocumentError:
        return False
