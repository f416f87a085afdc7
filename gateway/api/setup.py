"""`/api/v1/setup`: what somebody needs who connects a machine: endpoints, browsing, test-reads, point tables, drafts of the configuration.

Serve itself touches no machine and opens no uploaded file. Looks at machines are made by the collector (`gateway.looking.collector`), tables
and drafts by a child process of serve; both have a deadline, and both may fail without costing a reading or this API. Nothing here
changes anything: a draft goes to `config`. Who may ask at all: `gateway.api.guard`.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import _setup_examples as examples
from gateway.api._asking import asked, problem_of, told
from gateway.api._secret_files import SecretFile, forget_unused
from gateway.api.config import Configured
from gateway.api.context import ROOT, Api, answer, language_of
from gateway.api.language import Language, Words
from gateway.api.parameters import OneQuery
from gateway.api.problems import ProblemError
from gateway.looking.looker import Looker
from gateway.looking.questions import (
    AddDevice,
    Browse,
    Endpoints,
    Export,
    Failure,
    Link,
    Machine,
    NewDevice,
    Paper,
    Picked,
    ReadNode,
    ReadRegisters,
    ReadSignal,
    RemoveDevice,
    Table,
)
from gateway.looking.shapes import Document, ProfileChoice, ProfileChoices

B = TypeVar("B", bound=msgspec.Struct)

MEDIA: dict[str, str] = {
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "csv": "text/csv; charset=utf-8",
    "csv-gbk": "text/csv; charset=gb18030",
}


class EndpointsWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The OPC UA server whose endpoints are asked for."""

    url: Annotated[str, msgspec.Meta(max_length=2000, examples=["opc.tcp://192.168.1.20:4840"])]


class BrowseWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes below `node`. `path` is the path of `node`, with which the paths of the answer begin."""

    link: Link
    node: Annotated[str | None, msgspec.Meta(description="A NodeId; null: the Objects folder.")] = None
    filter: Annotated[
        str | None,
        msgspec.Meta(
            description="With * and ?; without them anywhere in it. Variables at any depth whose name, path or NodeId fits."
        ),
    ] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 500
    path: str = ""


class TestReadWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One value: a `node` of an OPC UA link; an `address` of a `unit` of a Modbus link; or a configured `signal`."""

    __test__ = False  # pytest: it is no test

    link: Link | None = None
    node: str | None = None
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    address: Annotated[
        dict[str, Any] | None,
        msgspec.Meta(description="table, address (or number), type, order, length: as in a profile."),
    ] = None
    signal: Annotated[str | None, msgspec.Meta(description="`device/name`.")] = None


class DeviceWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device with its link and what is to be collected: a profile, picked nodes, signals as in a profile, or several of these."""

    device: NewDevice
    link: Link
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    profile: str | None = None
    nodes: Annotated[list[Picked], msgspec.Meta(max_length=5000)] = msgspec.field(default_factory=list)
    signals: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=5000)] = msgspec.field(default_factory=list)


class RemovalWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id of a configured device."""

    device: str


BODIES: dict[str, type[msgspec.Struct]] = {
    "setup_endpoints": EndpointsWanted,
    "setup_browse": BrowseWanted,
    "setup_test_read": TestReadWanted,
    "setup_device": DeviceWanted,
    "setup_removal": RemovalWanted,
}
"""Operation -> its body."""


class FormQuery(OneQuery):
    """In which form a table is wanted."""

    form: Literal["xlsx", "csv", "csv-gbk"] = Field(default="xlsx", description="csv is UTF-8 with a byte order mark.")


class UploadQuery(OneQuery):
    """How the uploaded file is called."""

    name: str = Field(
        default="points.xlsx", max_length=200, description="Its name, for messages; the ending does not matter."
    )


def _body(operation: str) -> dict[str, Any]:
    given = examples.REQUESTS[operation]
    schema = {"$ref": f"#/components/schemas/{BODIES[operation].__name__}"}
    content = {"schema": schema, "examples": {name: {"value": value} for name, value in given.items()}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "contentMediaType": MEDIA["xlsx"]}}},
    }
}


def routes(api: Api, configured: Configured, looker: Looker) -> APIRouter:
    """The routes of this module. `looker` is serve's own child process."""
    router = APIRouter(prefix=f"{ROOT}/setup", tags=["Setup"])
    file, data_dir = str(configured.file), configured.data_dir
    turn = asyncio.Semaphore(4)
    """So many requests wait for the collector; it takes one after the other."""

    async def look(request: Request, question: Machine, lang: Language) -> Response:
        if turn.locked():
            raise problem_of(Failure("busy", "Too many looks are waiting.", "等待处理的请求过多。"))
        async with turn:
            return answer(request, await asked(data_dir, question), lang)

    async def paper(question: Paper, lang: Language) -> bytes:
        return told(await looker.ask(question))

    @router.get("/profiles")
    async def setup_profiles(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The shipped profiles, with how far each is verified and where its facts come from."""
        lang = language_of(request, query)
        return answer(request, await asyncio.to_thread(profiles, lang), lang)

    @router.post("/endpoints", openapi_extra=_body("setup_endpoints"))
    async def setup_endpoints(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The endpoints of an OPC UA server, with their security."""
        wanted = await _wanted(request, EndpointsWanted, api.limits.config_bytes)
        lang = language_of(request, query)
        return await look(request, Endpoints(url=wanted.url, lang=lang), lang)

    @router.post("/browse", openapi_extra=_body("setup_browse"))
    async def setup_browse(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """A piece of an OPC UA server's address space: the children of a node, or what a filter finds below it."""
        wanted = await _wanted(request, BrowseWanted, api.limits.config_bytes)
        lang = language_of(request, query)
        question = Browse(
            link=wanted.link, node=wanted.node, path=wanted.path, filter=wanted.filter, limit=wanted.limit, lang=lang
        )
        return await look(request, question, lang)

    @router.post("/test-read", openapi_extra=_body("setup_test_read"))
    async def setup_test_read(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """One value, read now: what came, and what it means. Nothing is stored."""
        lang = language_of(request, query)
        return await look(
            request, _reading(await _wanted(request, TestReadWanted, api.limits.config_bytes), lang), lang
        )

    @router.post("/table", openapi_extra=_UPLOAD)
    async def setup_import_table(request: Request, query: Annotated[UploadQuery, Query()]) -> Response:
        """The configuration with the links of an uploaded point table (.xlsx, or CSV in UTF-8 or GBK). Nothing is written."""
        lang = language_of(request, query)
        data = await _read(request, api.limits.table_bytes)
        if not data:
            raise ProblemError("bad-request", Words("The body is empty.", "请求体为空。"))
        return answer(request, await paper(Table(file=file, name=_name(query.name), data=data, lang=lang), lang), lang)

    @router.get("/table")
    async def setup_export_table(request: Request, query: Annotated[FormQuery, Query()]) -> Response:
        """The present links, devices and signals as a point table."""
        lang = language_of(request, query)
        return _attachment(await paper(Export(file=file, form=query.form, lang=lang), lang), query.form, lang)

    @router.get("/template")
    async def setup_template(request: Request, query: Annotated[FormQuery, Query()]) -> Response:
        """An empty point table with drop-downs and examples."""
        lang = language_of(request, query)
        return _attachment(await paper(Export(form=query.form, lang=lang), lang), query.form, lang)

    @router.post("/device", openapi_extra=_body("setup_device"))
    async def setup_device(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The configuration with a device added or replaced. Only a typed password is written, into a file of its own."""
        wanted = await _wanted(request, DeviceWanted, api.limits.config_bytes)
        lang = language_of(request, query)
        link, secrets = _without_secrets(wanted, configured)
        question = AddDevice(
            file=file, device=wanted.device, link=link, unit=wanted.unit, profile=wanted.profile, nodes=wanted.nodes,
            signals=wanted.signals, lang=lang,
        )  # fmt: skip
        body = await paper(question, lang)
        if secrets:
            await asyncio.to_thread(_keep, secrets, configured)
        return answer(request, body, lang)

    @router.post("/removal", openapi_extra=_body("setup_removal"))
    async def setup_removal(request: Request, query: Annotated[OneQuery, Query()]) -> Response:
        """The configuration without a device. Nothing is written."""
        wanted = await _wanted(request, RemovalWanted, api.limits.config_bytes)
        lang = language_of(request, query)
        return answer(request, await paper(RemoveDevice(file=file, device=wanted.device, lang=lang), lang), lang)

    return router


@cache
def profiles(lang: Language) -> ProfileChoices:
    """The shipped profiles."""
    from schemas.library import load_profile, shipped

    found = []
    for name in shipped():
        p = load_profile(name)
        source = ", ".join(part for part in (p.source.document, p.source.version) if part)
        found.append(ProfileChoice(name, p.protocol, p.name.get(lang), p.vendor, p.verified, source, len(p.signals)))
    return ProfileChoices(found)


def _reading(wanted: TestReadWanted, lang: Language) -> Machine:
    """The question that a body is. Raises the problem `bad-request`."""
    given = [name for name in ("node", "address", "signal") if getattr(wanted, name) is not None]
    if given == ["signal"] and wanted.link is None and wanted.signal is not None:
        return ReadSignal(signal=wanted.signal, lang=lang)
    if wanted.link is not None and given == ["node"] and wanted.node is not None:
        return ReadNode(link=wanted.link, node=wanted.node, lang=lang)
    if wanted.link is not None and given == ["address"] and wanted.address is not None:
        return ReadRegisters(link=wanted.link, unit=wanted.unit, address=wanted.address, lang=lang)
    raise ProblemError(
        "bad-request",
        Words(
            "The body: expected `link` with `node` or `address`, or `signal` alone.",
            "请求体应为 link 加 node 或 address，或仅有 signal。",
        ),
    )


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise ProblemError("too-large", Words(f"At most {most} bytes are read.", f"请求体上限 {most} 字节。"))
    return bytes(body)


async def _wanted(request: Request, kind: type[B], most: int) -> B:
    try:
        return msgspec.json.decode(await _read(request, most), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError("bad-request", Words(f"The body: {error}", f"请求体：{error}")) from error


def _name(text: str) -> str:
    """A file name for messages: its last part, without what no name holds."""
    plain = text.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in plain if c.isprintable())[:100] or "points"


# ---------------------------------------------------------------------------------------------------------------- secrets


def _without_secrets(wanted: DeviceWanted, configured: Configured) -> tuple[Link, list[SecretFile]]:
    """The link with a reference in place of each typed secret, and the files that are to hold them."""
    found: list[SecretFile] = []

    def without(settings: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in settings.items():
            if isinstance(value, dict):
                made[key] = without(value) if set(value) not in ({"env"}, {"file"}) else value
            elif not isinstance(value, str) or not key.endswith("password"):
                made[key] = value
            elif value:  # an empty one is none
                found.append(SecretFile.new(configured.data_dir, _name(wanted.device.id), value))
                made[key] = {"file": found[-1].reference(configured.file.parent)}
        return made

    return msgspec.structs.replace(wanted.link, settings=without(wanted.link.settings)), found


def _keep(secrets: list[SecretFile], configured: Configured) -> None:
    try:
        forget_unused(configured.data_dir, configured.file)
        for secret in secrets:
            secret.write()
    except OSError as error:
        why = f"{error.filename or configured.data_dir}: {error.strerror or error}"
        raise ProblemError(
            "config-unwritable", Words(why, why),
            fix=Words("Give serve's user the right to write there.", "请授予 serve 进程写入权限。"),
        ) from error  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- answers


def _attachment(body: bytes, form: str, lang: Language) -> Response:
    document = msgspec.json.decode(body, type=Document)
    headers = {
        "Content-Disposition": f'attachment; filename="{document.name}"',
        "Content-Language": lang,
        "Cache-Control": "no-store",
        "X-Guantong-Notices": str(len(document.notices)),
    }
    return Response(document.data, media_type=MEDIA[form], headers=headers)
