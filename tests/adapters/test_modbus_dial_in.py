"""Links that dial in: who they are, heartbeats between frames, many on one port, strangers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from pydantic import ValidationError

from adapters.contract import LinkSpec, SystemClock, TransientError
from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _dial_in, _unit
from adapters.modbus._codec import Request
from adapters.modbus._dial_in import stripped
from adapters.modbus._link import Link, NoAnswerError
from tests.adapters.modbus_server import HOST, Running, Spec, holding, rtu_frame, tcp_frame
from tests.servers.waiting import eventually_async

BEAT = b"beat"


@pytest.fixture(autouse=True)
async def quick(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Waits tenths of seconds only, and leaves no port open."""
    monkeypatch.setattr(_dial_in, "WAIT", 2.0)
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.1)
    yield
    for listener in list(_dial_in._LISTENERS.values()):
        listener.finish()
    await asyncio.sleep(0)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


@pytest.fixture(params=["tcp", "rtu-over-tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Unit:
    """A unit behind a DTU: connects, registers, answers reads of holding registers of unit 1 with `words`."""

    port: int
    says: bytes
    words: list[int]
    rtu: bool = False
    before: bytes = b""
    """Comes in front of each answer, in the same segment."""
    answers: bool = True
    asked: int = 0
    transaction: int = 0
    writer: asyncio.StreamWriter | None = None
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await eventually_async(lambda: _listening(self.port), what="the gateway listens")
        reader, self.writer = await asyncio.open_connection(HOST, self.port)
        self._task = asyncio.ensure_future(self._serve(reader, self.writer))
        self.say(self.says)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.writer is not None
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        self.writer.close()

    def say(self, data: bytes) -> None:
        """Bytes to the gateway."""
        assert self.writer is not None
        if data and not self.writer.is_closing():
            self.writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                frame = await reader.readexactly(7)
                more = 0 if frame[1] == 0x2B else 1
                frame += await reader.readexactly(more if self.rtu else int.from_bytes(frame[4:6], "big") - 1)
                if frame[1 if self.rtu else 7] == 0x2B:  # who are you? It does not know the function
                    no = b"\xab\x01"
                    self.say(
                        rtu_frame(frame[0], no)
                        if self.rtu
                        else tcp_frame(int.from_bytes(frame[:2], "big"), frame[6], no)
                    )
                    continue
                self.asked += 1
                pdu = frame[1:-2] if self.rtu else frame[7:]
                start, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
                words = b"".join(word.to_bytes(2, "big") for word in self.words[start : start + count])
                body = bytes((pdu[0], 2 * count)) + words
                self.transaction = transaction = int.from_bytes(frame[:2], "big")
                answer = rtu_frame(frame[0], body) if self.rtu else tcp_frame(transaction, frame[6], body)
                if self.answers:
                    self.say(self.before + answer)
        self.hung_up.set()


def _listening(port: int) -> bool:
    return any(listener.port == port and listener._server for listener in _dial_in._LISTENERS.values())


def settings(port: int, registration: str = "DTU-1", transport: str = "tcp", **more: Any) -> ModbusLinkSettings:
    listen = {"port": port, "registration": registration, "bind": HOST, "heartbeat": BEAT.decode(), **more}
    return ModbusLinkSettings.model_validate({"listen": listen, "transport": transport})


def adapter_of(made: ModbusLinkSettings, *addresses: int) -> ModbusAdapter:
    spec = Spec(0).device(1, [holding(a) for a in addresses or (0,)], timeout=0.3)
    return ModbusAdapter(LinkSpec("line", made, tuple(spec.devices)))


# -------------------------------------------------------------------------------------------------------------- settings


def test_what_may_be_written() -> None:
    made = settings(5020, "hex:AA 55 01")
    assert made.listen is not None
    assert made.listen.registration_bytes == b"\xaa\x55\x01"
    assert made.listen.heartbeat_bytes == (BEAT,)
    assert made.place == "hex:AA 55 01 (:5020)"
    for wrong in (
        {"port": 5020},
        {"port": 5020, "registration": "hex:XY"},
        {"port": 5020, "registration": "a"},
        {"port": 5020, "registration": "abc", "heartbeat": "hex:00"},
    ):
        with pytest.raises(ValidationError):
            ModbusLinkSettings.model_validate({"listen": wrong})
    with pytest.raises(ValidationError):
        ModbusLinkSettings.model_validate({"listen": {"port": 5020, "registration": "abc"}, "port": 502})
    adapter = adapter_of(settings(5020, "DTU 1", "rtu-over-tcp"))
    assert adapter.endpoint("unit-1") == f"modbus+rtu-over-tcp+listen://{HOST}:5020/DTU%201/unit/1"


def test_heartbeats_are_taken_from_the_begin_only() -> None:
    between = (b"beat", b"DTU-1")
    assert stripped(b"beatbeatDTU-1\x01\x03", between) == (b"\x01\x03", False)
    assert stripped(b"\x01beat", between) == (b"\x01beat", False)
    assert stripped(b"beatbe", between) == (b"be", True)
    assert stripped(b"beat", between) == (b"", False)


# ------------------------------------------------------------------------------------------------------------ dialling in


async def test_a_unit_that_dials_in_is_read(port: int, transport: str) -> None:
    adapter = adapter_of(settings(port, transport=transport), 0, 1)
    line = Running(adapter)
    connecting = asyncio.ensure_future(line.__aenter__())
    async with Unit(port, b"DTU-1", [11, 12], rtu=transport != "tcp") as unit:
        await connecting
        await line.until(lambda: len(line.rows(1)) >= 3)
        assert set(line.rows(0)) == {(11, 0)}
        assert set(line.rows(1)) == {(12, 0)}
        assert unit.asked >= 3
        await line.__aexit__()


@pytest.mark.parametrize("before", [BEAT, BEAT * 3, b"DTU-1", BEAT + b"DTU-1"])
async def test_heartbeats_in_front_of_answers_and_between_them(port: int, transport: str, before: bytes) -> None:
    link = Link(settings(port, transport=transport), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, BEAT + b"DTU-1" + BEAT, [11], rtu=transport != "tcp", before=before) as unit:
        await opening
        for _ in range(5):
            unit.say(BEAT)
            answer = await link.request(Request(1, 3, 0, 1), 1.0)
            assert answer.data == b"\x00\x0b"
        assert not link.errors
        link.close()


async def test_heartbeats_in_pieces(port: int, transport: str) -> None:
    link = Link(settings(port, transport=transport), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, b"DTU", [11], rtu=transport != "tcp", answers=False) as unit:
        await asyncio.sleep(0.02)
        unit.say(b"-1")
        await opening
        asking = asyncio.ensure_future(link.request(Request(1, 3, 0, 1), 2.0))
        await eventually_async(lambda: unit.asked == 1, what="the request is out")
        for piece in (b"be", b"at"):
            unit.say(piece)
            await asyncio.sleep(0.02)
        unit.answers = True
        body = bytes((3, 2, 0, 11))
        unit.say(rtu_frame(1, body) if unit.rtu else tcp_frame(unit.transaction, 1, body))
        assert (await asking).data == b"\x00\x0b"
        link.close()


async def test_an_answer_that_looks_like_a_heartbeat_inside_is_whole(port: int, transport: str) -> None:
    words = [int.from_bytes(BEAT[:2], "big"), int.from_bytes(BEAT[2:], "big")]
    link = Link(settings(port, transport=transport), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, b"DTU-1", words, rtu=transport != "tcp"):
        await opening
        assert (await link.request(Request(1, 3, 0, 2), 1.0)).data == BEAT
        link.close()


async def test_many_on_one_port_and_none_is_taken_for_another(port: int, transport: str) -> None:
    names = [f"DTU-{n}" for n in range(1, 5)]
    lines = [Running(adapter_of(settings(port, name, transport))) for name in names]
    opening = [asyncio.ensure_future(line.__aenter__()) for line in lines]
    async with contextlib.AsyncExitStack() as stack:
        for n, name in reversed(list(enumerate(names))):
            await stack.enter_async_context(Unit(port, name.encode(), [100 + n], rtu=transport != "tcp"))
        await asyncio.gather(*opening)
        for n, line in enumerate(lines):
            await line.until(lambda line=line: len(line.rows(0)) >= 2)  # type: ignore[misc]
            assert set(line.rows(0)) == {(100 + n, 0)}
        for line in lines:
            await line.__aexit__()


async def test_strangers_are_refused_and_told(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dial_in, "WAIT", 0.5)
    monkeypatch.setattr(_dial_in, "REGISTER_WITHIN", 0.1)
    link = Link(settings(port), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, b"DTU-9", [1]) as other, Unit(port, b"", [1]) as silent, Unit(port, b"DT", [1]) as half:
        for unit in (other, silent, half):
            async with asyncio.timeout(2):
                await unit.hung_up.wait()
        with pytest.raises(TransientError) as caught:
            await opening
    assert caught.value.reason == "not_dialled_in"
    assert "DTU-9" in str(caught.value)
    assert "said nothing" in str(caught.value)
    assert HOST in str(caught.value)
    assert caught.value.fix_zh
    assert link.errors["connect"] == 1


async def test_who_comes_while_the_link_is_closed_is_there_when_it_opens(port: int) -> None:
    adapter = adapter_of(settings(port))
    _dial_in_wait = asyncio.ensure_future(adapter.connect())
    await asyncio.sleep(0.05)
    await adapter.disconnect()
    with pytest.raises(TransientError):
        await _dial_in_wait
    async with Unit(port, b"DTU-1", [7]), Running(adapter) as line:
        await line.until(lambda: line.rows(0))
        assert line.rows(0)[0] == (7, 0)


async def test_a_time_out_keeps_the_connection(port: int, transport: str) -> None:
    """Who has dialled in may not come back for minutes."""
    link = Link(settings(port, transport=transport), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, b"DTU-1", [11], rtu=transport != "tcp", answers=False) as unit:
        await opening
        with pytest.raises(NoAnswerError):
            await link.request(Request(1, 3, 0, 1), 0.1)
        unit.answers = True
        assert (await link.request(Request(1, 3, 0, 1), 0.5)).data == b"\x00\x0b"
        assert not unit.hung_up.is_set()
        link.close()


async def test_who_dials_in_anew_takes_the_place_of_a_half_open_connection(port: int) -> None:
    adapter = adapter_of(settings(port))
    line = Running(adapter)
    connecting = asyncio.ensure_future(line.__aenter__())
    async with Unit(port, b"DTU-1", [1]) as old:
        await connecting
        await line.until(lambda: line.rows(0))
        async with Unit(port, b"DTU-1", [2]):
            async with asyncio.timeout(2):
                await old.hung_up.wait()
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "closed"
            await adapter.disconnect()
            line.items.clear()
            await adapter.connect()
            line.start()
            await line.until(lambda: line.rows(0))
            assert line.rows(0)[0] == (2, 0)
            await line.__aexit__()


async def test_a_registration_belongs_to_one_link_and_a_port_to_one_program(port: int) -> None:
    first, second = Link(settings(port), SystemClock()), Link(settings(port), SystemClock())
    opening = asyncio.ensure_future(first.open())
    async with Unit(port, b"DTU-1", [1]):
        await opening
        with pytest.raises(TransientError) as caught:
            await second.open()
        assert caught.value.reason == "registration_taken"
        first.close()
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        third = Link(settings(taken.getsockname()[1]), SystemClock())
        with pytest.raises(TransientError) as caught:
            await third.open()
        assert caught.value.reason == "listen_failed"


async def test_a_port_without_links_is_closed_after_a_while(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dial_in, "GRACE", 0.1)
    link = Link(settings(port), SystemClock())
    opening = asyncio.ensure_future(link.open())
    async with Unit(port, b"DTU-1", [1]) as unit:
        await opening
        link.close()
        async with asyncio.timeout(2):
            await unit.hung_up.wait()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, port)


async def test_a_late_answer_of_the_first_request_is_not_taken_for_the_second(port: int) -> None:
    """The connection stays open after a time-out, so the numbers of its requests must go on and not begin anew."""
    link = Link(settings(port), SystemClock())
    opening = asyncio.ensure_future(link.open())
    await eventually_async(lambda: _listening(port), what="the gateway listens")
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"DTU-1")
    await opening

    async def behave() -> None:
        first = await reader.readexactly(12)
        second = await reader.readexactly(12)
        for request, word in ((first, 100), (second, 200)):
            number = int.from_bytes(request[:2], "big")
            writer.write(tcp_frame(number, 1, bytes((3, 2)) + word.to_bytes(2, "big")))

    behaving = asyncio.ensure_future(behave())
    with pytest.raises(NoAnswerError):
        await link.request(Request(1, 3, 100, 1), 0.05)
    assert (await link.request(Request(1, 3, 200, 1), 5.0)).data == (200).to_bytes(2, "big")
    await behaving
    writer.close()
    link.close()
