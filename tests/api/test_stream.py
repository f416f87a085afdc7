"""The live stream: beginning, going on, being reset, filters, and clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest

from gateway.api import shapes, stream
from gateway.api.context import Limits
from gateway.api.role import Serve
from gateway.bus.client import Bus, BusOptions
from schemas.wire import Event, Flag, Link, SignalBirth
from tests.api.conftest import started
from tests.api.shop import SECOND, T0, Shop, imm
from tests.servers.brokers import Mosquitto
from tests.servers.waiting import eventually_async

V1 = "/api/v1"


@dataclass
class Sent:
    """An event as a browser would see it."""

    id: str
    event: str
    data: Any


class Listener:
    """Reads a stream in the background; `id` moves as WHATWG HTML §9.2.6 has it, also by events without data."""

    def __init__(self) -> None:
        self.events: list[Sent] = []
        self.id = ""
        self.comments = 0
        self.ended = False
        self.broken = False
        """The connection broke: the answer had no end."""

    async def read(self, answer: httpx.Response) -> None:
        event, data = "message", ""
        try:
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if not line:
                    if data:
                        self.events.append(Sent(self.id, event, json.loads(data)))
                    event, data = "message", ""
                elif name == "id":
                    self.id = value
                elif name == "event":
                    event = value
                elif name == "data":
                    data += value
                elif line.startswith(":"):
                    self.comments += 1
        except httpx.RemoteProtocolError:
            self.broken = True
        self.ended = True

    def values(self) -> list[Any]:
        return [
            reading["value"]
            for sent in self.events
            if sent.event == "change"
            for reading in sent.data.get("readings", ())
        ]

    def kinds(self) -> list[str]:
        return [sent.event for sent in self.events]


@contextlib.asynccontextmanager
async def listening(serve: Serve, query: str = "", last: str | None = None) -> AsyncIterator[Listener]:
    """A client of the stream that has got its beginning."""
    headers = {} if last is None else {"Last-Event-ID": last}
    listener = Listener()
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}", timeout=30) as client,
        client.stream("GET", f"{V1}/stream?{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-encoding" not in answer.headers
        task = asyncio.create_task(listener.read(answer))
        await eventually_async(lambda: listener.events, what="the beginning of the stream")
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def has_kinds(heard: Listener, kinds: list[str]) -> None:
    await eventually_async(lambda: heard.kinds() == kinds)


async def test_snapshot_then_each_commit(shop: Shop, serve: Serve) -> None:
    async with listening(serve) as heard:
        begin = heard.events[0]
        assert (begin.event, begin.id) == ("snapshot", f"{serve.live.epoch}.{serve.live.commit_no}")
        snapshot = msgspec.convert(begin.data, shapes.StreamSnapshot)
        assert [item.value for item in snapshot.items] == [100, 23.5, 1, 12.25]
        assert [(item.device, item.state) for item in snapshot.devices] == [
            ("imm-01", "connected"),
            ("meter-01", "connected"),
        ]
        for second in range(1, 4):
            shop.rows((1, second, float(second)), (11, second, -float(second)))
        await eventually_async(lambda: len(heard.values()) == 6)
        assert heard.values() == [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]
        assert [sent.id for sent in heard.events[1:]] == [
            f"{serve.live.epoch}.{shop.writer.commit_no - 2 + i}" for i in range(3)
        ]
        reading = heard.events[-1].data["readings"][0]
        assert reading == {
            "signal": "imm-01/cycle/last_time", "ts": "2025-10-09T08:53:23.000000Z", "value": 3.0, "status": 0, "quality": "good",
        }  # fmt: skip
        msgspec.convert(heard.events[-1].data, shapes.StreamChange)


async def test_resume_gives_what_was_missed_and_no_more(shop: Shop, serve: Serve) -> None:
    async with listening(serve) as heard:
        shop.rows((1, 1, 1.0))
        await eventually_async(lambda: heard.values() == [1.0])
        last = heard.id
    shop.rows((1, 2, 2.0))
    shop.rows((1, 3, 3.0), (11, 3, -3.0))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    async with listening(serve, "match=imm-01/*", last) as heard:
        await eventually_async(lambda: heard.values() == [2.0, 3.0])
        shop.rows((1, 4, 4.0))
        await eventually_async(lambda: heard.values() == [2.0, 3.0, 4.0])
        assert set(heard.kinds()) == {"change"}


async def test_resume_from_now_gives_nothing_old(shop: Shop, serve: Serve) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        at = (await client.get(f"{V1}/latest")).json()["stream"]
    async with listening(serve, f"last_event_id={at}") as heard:
        shop.rows((1, 4, 4.0))
        await eventually_async(lambda: heard.values() == [4.0])
        assert "snapshot" not in heard.kinds()


async def test_an_old_id_is_reset(shop: Shop, serve: Serve) -> None:
    old = f"{serve.live.epoch}.{serve.live.commit_no}"
    shop.rows((1, 1, 1.0))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    shop.clock.move(61)
    shop.rows((1, 2, 2.0))
    await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
    for last in (old, "0.1", f"{serve.live.epoch}.{serve.live.commit_no + 1}", "999999999999999999.0"):
        async with listening(serve, last=last) as heard:
            await has_kinds(heard, ["reset", "snapshot"])
            assert heard.id == f"{serve.live.epoch}.{serve.live.commit_no}"


async def test_a_hole_resets_those_who_listen(shop: Shop, serve: Serve) -> None:
    async with listening(serve) as heard:
        shop.rows((1, 1, 1.0), tell=False)
        shop.rows((1, 2, 2.0))
        await eventually_async(lambda: heard.kinds() == ["snapshot", "reset", "snapshot"])
        values = {item["signal"]: item["value"] for item in heard.events[-1].data["items"]}
        assert values["imm-01/cycle/last_time"] == 2.0
        shop.rows((1, 3, 3.0))
        await eventually_async(lambda: heard.values() == [3.0])


async def test_filters(shop: Shop, serve: Serve) -> None:
    async with (
        listening(serve, "match=*/cycle/*") as cycles,
        listening(serve, "device=meter-01") as meter,
        listening(serve, "signal=imm-01/mode&int64=string") as mode,
        listening(serve, "asset=plant") as plant,
    ):
        assert [item["signal"] for item in meter.events[0].data["items"]] == ["meter-01/power/total"]
        shop.rows((1, 1, 1.0))
        shop.rows((11, 1, 2.0))
        shop.rows((3, 1, 2**60))
        shop.commit(Link("meter-01", False, T0 + SECOND, "timeout"))
        shop.rows((1, 2, 3.0), (11, 2, 4.0), (3, 2, 5))
        await eventually_async(lambda: len(plant.values()) == 6)
        await eventually_async(lambda: cycles.values() == [1.0, 3.0])
        await eventually_async(lambda: meter.values() == [2.0, 4.0])
        await eventually_async(lambda: mode.values() == [str(2**60), 5])
        devices = [sent.data["devices"] for sent in meter.events if sent.data.get("devices") and sent.event == "change"]
        assert devices == [
            [
                {
                    "device": "meter-01",
                    "state": "disconnected",
                    "reason": "timeout",
                    "since": "2025-10-09T08:53:21.000000Z",
                }
            ]
        ]
        assert not any(sent.data.get("devices") for sent in cycles.events if sent.event == "change")


async def test_old_readings_are_not_news(shop: Shop, serve: Serve) -> None:
    async with listening(serve) as heard:
        shop.rows((1, 10, 10.0))
        shop.rows((1, 5, 5.0, 0, int(Flag.HISTORICAL)), (1, 11, 11.0))
        await eventually_async(lambda: heard.values() == [10.0, 11.0])


async def test_events_progress_and_births(shop: Shop, serve: Serve) -> None:
    async with listening(serve, "seen=true&lang=zh") as heard:
        shop.commit([Event("e1", T0, None, "imm", "imm-01", "alarm", 700, "温度过高", "Too hot")])
        shop.commit(shop.feed.done(30, device="imm-01"))
        shop.commit(
            shop.feed.step(imm(SignalBirth(4, "new", "r1", "float64", "", "measurement", "imm"))),
            shop.feed.rows((4, 31, 9.0)),
        )
        await eventually_async(lambda: heard.values() == [9.0])
        changes = [sent.data for sent in heard.events[1:]]
        assert changes[0]["events"][0]["message"] == "温度过高"
        assert changes[1]["seen"] == [
            {"device": "imm-01", "group": "default", "complete_to": "2025-10-09T08:53:50.000000Z"}
        ]
        assert changes[2]["readings"][0]["signal"] == "imm-01/new"


async def test_a_silent_collector_is_told(shop: Shop, serve: Serve) -> None:
    async with listening(serve) as heard:
        shop.clock.move(11)
        await eventually_async(lambda: len(heard.events) == 2)
        assert {item["state"] for item in heard.events[1].data["devices"]} == {"unknown"}


async def test_heartbeat_moves_the_id(shop: Shop, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose filter lets nothing through can still resume."""
    monkeypatch.setattr(stream, "HEARTBEAT", 0.1)
    async with listening(serve, "device=meter-01") as heard:
        before = heard.id
        shop.rows((1, 1, 1.0))
        await eventually_async(lambda: heard.comments > 0 and heard.id != before)
        assert heard.id == f"{serve.live.epoch}.{shop.writer.commit_no}"
        assert heard.kinds() == ["snapshot"]


async def test_large_snapshots_come_in_pieces(shop: Shop) -> None:
    many = [SignalBirth(100 + i, f"zone-{i:04}", "r1", "float64", "Cel", "measurement", "imm") for i in range(2500)]
    shop.fill([imm(*many)])
    async with started(shop) as serve, listening(serve) as heard:
        await eventually_async(lambda: len(heard.events) == 3)
        assert [len(sent.data["items"]) for sent in heard.events] == [1000, 1000, 503]
        assert [sent.data["more"] for sent in heard.events] == [True, True, False]
        assert [bool(sent.id) for sent in heard.events] == [False, False, True]  # half of it is not resumed


async def test_a_slow_client_is_cut_and_costs_the_others_nothing(
    shop: Shop, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "QUEUE_CHANGES", 50)
    async with listening(serve) as quick:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", serve.port))
        slow.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await eventually_async(lambda: len(serve.app.streams.clients) == 2)
        sent = 0
        deadline = time.monotonic() + 60
        while serve.app.streams.cut == 0 and time.monotonic() < deadline:
            shop.rows(*((1, 10 + sent * 500 + row, float(row)) for row in range(500)))
            sent += 1
            await eventually_async(lambda: serve.live.commit_no == shop.writer.commit_no)
        assert serve.app.streams.cut == 1
        await eventually_async(lambda: len(quick.values()) == sent * 500, timeout=20)
        await eventually_async(lambda: len(serve.app.streams.clients) == 1)
        slow.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.to_thread(slow.recv, 65536):  # what was under way, and then the end
                pass
        slow.close()
        shop.rows((1, 1e6, 1.0))
        await eventually_async(lambda: len(quick.values()) == sent * 500 + 1)


async def test_a_client_that_takes_nothing_is_cut(shop: Shop) -> None:
    """Nothing new comes, so that no queue grows; what is under way does not go out, and that is enough."""
    many = [SignalBirth(100 + i, f"zone-{i:05}", "r1", "float64", "Cel", "measurement", "imm") for i in range(20_000)]
    shop.fill([imm(*many)])
    async with started(shop) as serve:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", serve.port))
            slow.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await eventually_async(lambda: len(serve.app.streams.clients) == 1)
            (client,) = serve.app.streams.clients
            await eventually_async(lambda: client in serve.live.listeners)
            shop.clock.move(stream.HEARTBEAT + stream.STALLED + 1)
            await eventually_async(lambda: client not in serve.app.streams.clients)
            assert serve.app.streams.cut == 1


async def test_too_many_streams(shop: Shop) -> None:
    shop.fill()
    async with started(shop, limits=Limits(streams=3, streams_per_client=2)) as serve:
        async with (
            listening(serve),
            listening(serve),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client,
        ):
            answer = await client.get(f"{V1}/stream")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:guantong:problem:busy")
            assert answer.headers["retry-after"] == "5"
        await eventually_async(lambda: not serve.app.streams.clients)
        async with listening(serve):
            pass


async def test_ids_that_are_none(serve: Serve) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serve.port}") as client:
        for given in ("x", "1", "1.2.3", "-1.2", "1." + "9" * 30):
            answer = await client.get(f"{V1}/stream", headers={"Last-Event-ID": given})
            assert answer.status_code == 422, given
            assert answer.json()["errors"][0]["parameter"] == "Last-Event-ID"


async def test_clients_that_go_are_forgotten(serve: Serve) -> None:
    for _ in range(3):
        async with listening(serve):
            pass
    await eventually_async(lambda: not serve.app.streams.clients and serve.live.listeners == {serve.api.clocks})


async def test_the_server_stops_although_streams_are_open(shop: Shop) -> None:
    shop.fill()
    async with contextlib.AsyncExitStack() as stack:
        async with started(shop) as serve:
            heard = [await stack.enter_async_context(listening(serve)) for _ in range(3)]
            idle = socket.create_connection(("127.0.0.1", serve.port))
            stack.callback(idle.close)
        await eventually_async(lambda: all(one.ended for one in heard))
        assert not any(one.broken for one in heard)  # ended in good order, not by the time-out of the stop
        assert serve.health.state == "stopped"
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{serve.port}/")


async def test_over_a_real_broker(shop: Shop, mosquitto: Mosquitto) -> None:
    """Ingest's words come over Mosquitto; the broker goes and comes back, and nothing is missing."""
    shop.fill()
    ingest = Bus(BusOptions(port=mosquitto.port))
    task = asyncio.create_task(ingest.run())
    try:
        async with started(shop, bus=Bus(BusOptions(port=mosquitto.port)), poll=60) as serve:
            await eventually_async(lambda: ingest.connected and serve.bus.connected)
            await eventually_async(lambda: serve.live.numbers.loads >= 2)
            async with listening(serve) as heard:

                def write(*rows: tuple[Any, ...]) -> None:
                    applied = shop.rows(*rows, tell=False)
                    ingest.publish(
                        shop.topics.committed(shop.writer.store_id), msgspec.msgpack.encode(applied.committed)
                    )

                for second in range(1, 21):
                    write((1, second, float(second)))
                await eventually_async(lambda: heard.values() == [float(second) for second in range(1, 21)])
                mosquitto.kill()
                await eventually_async(lambda: not serve.bus.connected and not ingest.connected)
                write((1, 21, 21.0))  # nobody hears of this one
                mosquitto.start()
                await eventually_async(lambda: heard.kinds()[-2:] == ["reset", "snapshot"], timeout=20)
                values = {item["signal"]: item["value"] for item in heard.events[-1].data["items"]}
                assert values["imm-01/cycle/last_time"] == 21.0
                await eventually_async(lambda: ingest.connected, timeout=20)
                write((1, 22, 22.0))
                await eventually_async(lambda: heard.values()[-1] == 22.0)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
