"""Fixtures of the API's tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from gateway.api.role import Serve
from gateway.bus.client import Bus
from gateway.config.models import ApiSettings
from tests.api.shop import Shop
from tests.servers.waiting import eventually_async

Starter = Callable[..., AbstractAsyncContextManager[Serve]]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A new store with nothing in it."""
    made = Shop(tmp_path)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def started(shop: Shop, *, loaded: bool = True, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Serve]:
    """A server over the shop, on a free port unless `port` names one, with the shop's clock."""
    made = Serve(
        ApiSettings(host=host, port=options.pop("port", 0)),
        options.pop("reader", shop.reader),
        cast(Bus, options.pop("bus", shop.bus)),
        shop.topics,
        shop.folder,
        **{"now_us": shop.clock.now, "monotonic": shop.clock.monotonic, "poll": 0.2, **options},
    )
    task = asyncio.create_task(made.run())
    ready = asyncio.create_task(made.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=10)
    if task.done():
        ready.cancel()
        task.result()
    if loaded:
        await eventually_async(lambda: made.live.loaded, what="the store is read")
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def serve(shop: Shop) -> AsyncIterator[Serve]:
    """A server over the small workshop, with a few readings."""
    shop.fill()
    shop.clock.us = shop.feed.at
    async with started(shop) as made:
        yield made


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `serve`; paths are below /api/v1 or begin with a slash of their own."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as made:
        yield made
