"""The routes of the documentation below `/docs`. The pages are made by `gateway.documentation`; they hold no data and need no key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.api.language import Language, Words, preferred
from gateway.api.page import COOKIE
from gateway.api.problems import ProblemError
from gateway.documentation.source import DocumentationMissingError

if TYPE_CHECKING:
    from gateway.documentation.site import Site

POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the documentation: no script at all, nothing from another host."""
_DRAWING: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""That of a drawing that is opened alone: its own styles, no script."""


def routes() -> APIRouter:
    """The documentation, in the language that its path names."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs", name="documentation")
    def begin(request: Request, lang: str | None = None) -> Response:
        """To the first page, in the language that `lang`, the cookie or the browser names."""
        return _redirect(request, lang, "index", "docs/")

    @router.get("/docs/", name="documentation_folder")
    def folder(request: Request, lang: str | None = None) -> Response:
        """The same, below a slash."""
        return _redirect(request, lang, "index", "")

    @router.get("/docs/{path:path}", name="documentation_page")
    def page(request: Request, path: str, lang: str | None = None) -> Response:
        """A page, an image or an example. `docs/NAME` leads to the page of that name in the reader's language."""
        pages = _site()
        answer = pages.answer(path)
        if answer is None:
            name = path.rstrip("/").removesuffix(".html").removesuffix(".md")
            if name in ("en", "zh"):
                return _redirect(request, name, "index", "../" * path.count("/"))
            if name in pages.names():
                return _redirect(request, lang, name, "../" * path.count("/"))
            language, _, rest = name.partition("/")
            if language in ("en", "zh") and rest in pages.names():  # as one writes it by hand, without the suffix
                return _redirect(request, language, rest, "../" * path.count("/"))
            raise ProblemError(
                "not-found",
                Words(f"The documentation has no page {path[:200]}.", f"文档中没有 {path[:200]} 页。"),
                fix=Words("/docs lists all pages.", "全部页面见 /docs。"),
            )
        tag = f'"{hashlib.sha256(answer.body).hexdigest()[:20]}"'
        headers = {
            "Cache-Control": "no-cache",
            "ETag": tag,
            "Content-Security-Policy": _DRAWING if answer.media_type == "image/svg+xml" else POLICY,
        }
        if path.startswith(("en/", "zh/")):
            headers["Content-Language"] = path[:2]
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(answer.body, media_type=answer.media_type, headers=headers)

    return router


def _site() -> Site:
    from gateway.documentation.site import site  # with a library for Markdown, for who reads here only

    try:
        return site()
    except DocumentationMissingError as missing:
        raise ProblemError(
            "not-found",
            Words("The documentation was not installed.", "未安装文档。"),
            fix=Words(
                f"Install the wheel, which brings it: {missing} is not there.",
                f"请用 wheel 安装（自带文档）：找不到 {missing}。",
            ),
        ) from missing


def _redirect(request: Request, lang: str | None, name: str, before: str) -> Response:
    """To a page in the reader's language. The target is relative, so that a proxy may put the gateway below a path."""
    known: tuple[Language, ...] = ("en", "zh")
    language = next((one for one in known if one == lang), None)
    language = language or next((one for one in known if one == request.cookies.get(COOKIE)), None)
    language = language or preferred(request.headers.get("accept-language", ""))
    headers = {"Cache-Control": "no-cache", "Vary": "Accept-Language, Cookie"}
    return RedirectResponse(f"{before}{language}/{name}.html", 307, headers)
