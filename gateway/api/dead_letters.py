"""`dead-letters`: what arrived and could not be stored. Read-only; `guantong dead-letters` decides what becomes of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import cursors, shapes
from gateway.api.context import ROOT, Api, answer, language_of, next_link
from gateway.api.parameters import DeadLetterQuery
from gateway.api.resources import time_of
from gateway.api.values import to_plain
from gateway.store.letters import content, kind_name
from gateway.store.records import DeadLetter
from schemas.times import to_rfc3339


def routes(api: Api) -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix=ROOT)

    @router.get("/dead-letters", name="dead_letters", tags=["Gateway"])
    async def dead_letters(request: Request, query: Annotated[DeadLetterQuery, Query()]) -> Response:
        """What arrived and could not be stored, with the reason, by number; for the roles engineer and admin."""
        after = cursors.load(query.cursor, cursors.LetterCursor).id if query.cursor else 0
        rows = await api.ask(
            lambda: api.reader.dead_letters(limit=query.limit + 1, after=after, states=query.state or None)
        )
        more = None
        if len(rows) > query.limit:
            rows = rows[: query.limit]
            more = next_link(request, cursors.LetterCursor(rows[-1].id))
        return answer(
            request, shapes.DeadLetters([_letter(row) for row in rows], more), language_of(request, query), next=more
        )

    return router


def _plain(row: DeadLetter) -> object:
    try:
        return to_plain(content(row))
    except RecursionError:  # nested deeper than anything of ours: its bytes have to do
        return None


def _letter(row: DeadLetter) -> shapes.DeadLetter:
    return shapes.DeadLetter(
        row.id, to_rfc3339(row.at), row.gateway, row.stream, row.seq, row.reason, row.count, row.state, kind_name(row.kind),
        _plain(row), row.raw.hex(), time_of(row.settled_at), row.note,
    )  # fmt: skip
