"""The application: all routes behind the guard, errors as problem documents, the documentation without the internet."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway import __version__
from gateway.api import (
    completeness,
    config,
    dead_letters,
    documentation,
    happenings,
    health,
    openapi,
    page,
    readings,
    resources,
    setup,
    stream,
    troubles,
)
from gateway.api.compression import Compress
from gateway.api.context import Api
from gateway.api.guard import Guard
from gateway.api.keys import KeyFile
from gateway.api.language import Words, preferred
from gateway.api.parameters import explain
from gateway.api.problems import MEDIA_TYPE, ProblemError, invalid_all
from gateway.api.stream import Streams
from gateway.bus.client import Bus
from gateway.looking.looker import Looker

log = logging.getLogger("guantong.serve")


@dataclass(frozen=True, slots=True)
class Application:
    """What the server runs (`asgi`), and what is needed of it besides."""

    asgi: ASGIApp
    fastapi: FastAPI
    streams: Streams
    guard: Guard
    registry: CollectorRegistry
    looker: Looker
    """Opens tables and writes drafts in a child process; to be closed at the end."""


def make_app(
    api: Api,
    bus: Bus,
    keys: KeyFile,
    *,
    loopback: bool = True,
    hosts: frozenset[str] | None = None,
    configured: config.Configured | None = None,
) -> Application:
    """The application over `api`. `loopback`: without keys everybody is let in; `hosts`: see `Guard`; `configured`: where the
    configuration lies, if it may be read and changed."""
    streams = Streams(api)
    looker = Looker()
    registry = CollectorRegistry(auto_describe=False)
    fastapi: FastAPI = FastAPIOffline(
        title="Guantong 贯通",
        version=__version__,
        description=openapi.DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url="/docs/api",
        swagger_ui_oauth2_redirect_url="/docs/api/oauth2-redirect",
        redoc_url=None,
        static_url="/static-docs",
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=_operation_id,
        swagger_ui_parameters={"docExpansion": "list", "defaultModelsExpandDepth": 0, "tryItOutEnabled": True},
    )
    fastapi.router.redirect_slashes = False
    for router in (
        readings.routes(api),
        stream.routes(api, streams),
        resources.routes(api),
        happenings.routes(api),
        completeness.routes(api),
        dead_letters.routes(api),
        health.routes(api, bus, registry),
        page.routes(),
        documentation.routes(),
    ):
        fastapi.include_router(router)
    if configured is not None:
        fastapi.include_router(config.routes(api, configured))
        fastapi.include_router(setup.routes(api, configured, looker))
        fastapi.include_router(troubles.routes(api, configured.data_dir))
    fastapi.add_exception_handler(ProblemError, _problem)
    fastapi.add_exception_handler(RequestValidationError, _invalid)
    fastapi.add_exception_handler(HTTPException, _http_error)
    fastapi.add_exception_handler(Exception, _internal)
    fastapi.openapi = lambda: openapi.document(fastapi)  # type: ignore[method-assign]
    guard = Guard(Compress(fastapi), keys, loopback=loopback, hosts=hosts, limits=api.limits, monotonic=api.monotonic)
    registry.register(health.ServeMetrics(api, bus, streams, guard.numbers))
    return Application(guard, fastapi, streams, guard, registry, looker)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _respond(request: Request, problem: ProblemError) -> Response:
    given = request.query_params.get("lang")
    language = preferred(given or request.headers.get("accept-language", ""))
    return Response(
        problem.body(language, request.scope["path"]),
        problem.status,
        {"Content-Language": language, "Cache-Control": "no-store", **problem.headers},
        MEDIA_TYPE,
    )


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _respond(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, invalid_all(explain(error.errors(), openapi.parameters_of(request.scope.get("route")))))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return _respond(request, ProblemError("method-not-allowed", headers=dict(error.headers or {})))
    if error.status_code == 404:
        path = request.scope["path"][:200]
        detail = Words(f"There is nothing at {path}.", f"{path} 不存在。")
        fix = Words("/docs/api lists everything that there is.", "全部接口见 /docs/api。")
        return _respond(request, ProblemError("not-found", detail, fix=fix))
    return _respond(request, ProblemError("bad-request", Words(str(error.detail), str(error.detail))))


async def _internal(request: Request, error: Exception) -> Response:
    log.error("serve: %s %s failed", request.method, request.scope["path"], exc_info=error)
    return _respond(
        request,
        ProblemError(
            "internal-error",
            Words("This is a mistake of ours; the log of serve says more.", "这是网关自身的错误，详见 serve 日志。"),
        ),
    )
