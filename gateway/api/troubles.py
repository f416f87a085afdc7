"""`devices/{device}/troubles`: what is wrong with single signals of a device right now, such as addresses that it refuses.

Serve does not know it: a reading's status says that a value is bad, and the collector why. So the collector is asked.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from gateway.api._asking import asked, problem_of
from gateway.api.context import ROOT, Api, answer, language_of
from gateway.api.language import Words
from gateway.api.parameters import OneQuery
from gateway.api.problems import not_found
from gateway.api.resources import DevicePath
from gateway.looking.questions import Failure, Troubles

_WAITING = 4
"""So many requests wait for the collector."""


def routes(api: Api, data_dir: Path) -> APIRouter:
    """The routes of this module; `data_dir` is the collector's."""
    router = APIRouter(prefix=ROOT)
    turn = asyncio.Semaphore(_WAITING)

    @router.get("/devices/{device}/troubles", name="device_troubles", tags=["Workshop"])
    async def device_troubles(request: Request, device: DevicePath, query: Annotated[OneQuery, Query()]) -> Response:
        """What is wrong with single signals of the device right now, such as addresses that it refuses. From the running collector."""
        catalog, lang = api.catalog(), language_of(request, query)
        if device not in catalog.devices:
            raise not_found(Words("the device", "设备"), device, catalog.nearest_devices(device))
        if turn.locked():
            raise problem_of(Failure("busy", "Too many questions are waiting.", "等待处理的请求过多。"))
        async with turn:
            return answer(request, await asked(data_dir, Troubles(device=device, lang=lang)), lang)

    return router
