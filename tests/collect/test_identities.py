"""Who the devices say they are: in the birth, remembered from one start to the next, and a change is an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.collect.births import births_of
from gateway.collect.identities import Identities, changed
from gateway.collect.items import Events
from gateway.collect.role import Collect
from gateway.config.load import load_config
from gateway.config.resolve import resolve
from gateway.ledger.outbox import Outbox
from gateway.roles import bus_of
from schemas.wire import Birth, Event
from tests.adapters.modbus_server import HOST, Server
from tests.collect.plans import planned
from tests.servers.processes import free_port
from tests.servers.waiting import eventually_async

FIRST = {0: b"ACME", 1: b"M1", 2: b"1.0"}
TOLD = {"vendor": "ACME", "product": "M1", "revision": "1.0"}


def test_what_is_said_again_is_nothing_new_and_another_place_is_not_compared() -> None:
    known = Identities()
    assert known.take("m", "tcp://a", TOLD)
    assert not known.take("m", "tcp://a", dict(TOLD))
    assert known.of("m", "tcp://b") is None
    again = Identities()
    again.load(known.dump(), ["m", "other"])
    assert again.of("m", "tcp://a") == TOLD
    again.load(known.dump(), ["other"])
    assert again.of("m", "tcp://a") is None


def test_a_birth_without_signals_says_who_it_is() -> None:
    device, known = planned([{"type": "int16"}]), Identities()
    known.take("d", "fake://d", TOLD)
    (alone,) = births_of([device], {"d": "fake://d"}, 7, known, signals=False)
    (whole,) = births_of([device], {"d": "fake://d"}, 7, known)
    assert alone.identity == whole.identity == TOLD
    assert not alone.signals
    assert len(whole.signals) == 1
    assert msgspec.structs.replace(whole, signals=[]) == alone


def test_the_event_tells_both() -> None:
    event = changed(planned([{"type": "int16"}]), TOLD, {**TOLD, "revision": "1.1"}, 9)
    assert (event.type, event.device, event.ts) == ("device_changed", "d", 9)
    assert event.fields == {"old": TOLD, "new": {**TOLD, "revision": "1.1"}}
    assert "revision 1.0" in event.message_en
    assert "revision 1.1" in event.message_zh


# ------------------------------------------------------------------------------------------------------- the whole role


@asynccontextmanager
async def collecting(file: Path, told: list[Birth | Event]) -> AsyncIterator[None]:
    """The role, until the end; its births and events go to `told` as well."""
    config = load_config(file)
    role = Collect(config, resolve(config), bus_of(config, "collect"), Outbox(file.parent / "outbox.sqlite", "process"))
    put = role.recorder.put_now

    def also(item: Any) -> None:
        told.extend(item.events if isinstance(item, Events) else [item] if isinstance(item, Birth) else [])
        put(item)

    role.recorder.put_now = also  # type: ignore[method-assign]
    task = asyncio.ensure_future(role.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def identities(told: list[Birth | Event]) -> list[dict[str, str] | None]:
    return [item.identity for item in told if isinstance(item, Birth)]


async def test_an_exchanged_device_is_told_also_across_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(identity={1: dict(FIRST)}).holds(1, range(5)) as server:
        signal: dict[str, Any] = {"name": "a", "type": "uint16", "address": {"table": "holding", "address": 1}}
        device = {"id": "m", "settings": {"unit": 1}, "groups": {"default": {"period": "50ms"}}, "signals": [signal]}
        link = {"id": "line", "adapter": "modbus", "settings": {"host": HOST, "port": server.port}, "devices": [device]}
        document = {"data_dir": str(tmp_path), "bus": {"port": free_port()}, "links": [link]}
        file = tmp_path / "guantong.yaml"
        file.write_text(msgspec.json.encode(document).decode(), encoding="utf-8")
        first: list[Birth | Event] = []
        async with collecting(file, first):
            await eventually_async(lambda: TOLD in identities(first), what="a birth says who it is")
        again: list[Birth | Event] = []
        async with collecting(file, again):  # the same device: nothing but the birth of the new stream
            await eventually_async(lambda: len(server.questions) == 2, what="it is asked again")
            seen = len(server.asks)
            await eventually_async(lambda: len(server.asks) > seen + 3, what="it is read on")
        server.identity[1] = {**FIRST, 2: b"1.1"}
        other: list[Birth | Event] = []
        async with collecting(file, other):
            await eventually_async(lambda: len(identities(other)) == 2, what="the change is told")
        assert identities(first) == [None, TOLD]
        assert identities(again) == [TOLD]
        assert identities(other) == [TOLD, {**TOLD, "revision": "1.1"}]
        assert not [item for item in (*first, *again) if isinstance(item, Event)]
        (event,) = [item for item in other if isinstance(item, Event)]
        assert event.type == "device_changed"
        assert event.fields == {"old": TOLD, "new": {**TOLD, "revision": "1.1"}}
        assert "another device" in caplog.text
