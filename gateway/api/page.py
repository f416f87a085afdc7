"""The routes of the page at `/` and of the files that it needs. What they say is made by `gateway.page`."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.language import Language, Words, preferred
from gateway.api.problems import ProblemError
from gateway.page import frame

COOKIE: Final = "guantong_lang"
"""Remembers the language that was chosen, and nothing else."""
_YEAR: Final = 366 * 86_400
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: no script and no style in the HTML, nothing from another host."""


def routes() -> APIRouter:
    """The page and its files. Both are open without a key: they hold texts, no data."""
    router = APIRouter(include_in_schema=False)

    @router.get("/", name="page")
    async def page(request: Request, lang: str | None = None) -> Response:
        """The page, in the language that `lang`, the cookie or the browser names."""
        chosen = _known(lang)
        language = (
            chosen or _known(request.cookies.get(COOKIE)) or preferred(request.headers.get("accept-language", ""))
        )
        headers = {
            "Content-Language": language,
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Language, Cookie",
        }
        response = Response(frame.render(language), media_type="text/html", headers=headers)
        if chosen is not None:
            response.set_cookie(COOKIE, chosen, max_age=_YEAR, httponly=True, samesite="strict")
        return response

    @router.get("/page/{digest}/{name}", name="page_file")
    async def file(digest: str, name: str) -> Response:
        """A file of the page. Its URL changes with its content."""
        asset = frame.assets().get(name)
        if asset is None or digest != frame.digest():
            fix = Words("Load the page anew.", "请刷新页面。")
            raise ProblemError("not-found", Words("This file is not of this version.", "文件与当前版本不符。"), fix=fix)
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    return router


def _known(language: str | None) -> Language | None:
    return "zh" if language == "zh" else "en" if language == "en" else None
