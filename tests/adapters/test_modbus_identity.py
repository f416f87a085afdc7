"""Who a device says that it is (function 43/14): asked once after its first values, and of no cost to those that do not know it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.contract import Identity, TransientError
from adapters.modbus import ModbusAdapter, _unit
from adapters.modbus.identification import Identification, Identified, named, parsed
from simulators.modbus.framing import rtu_frame
from tests.adapters.modbus_server import Ask, Running, Server, Spec, holding
from tests.adapters.modbus_slave import Slaves
from tests.adapters.test_modbus_serial import link_spec

BASIC = {0: b"ACME", 1: b"M1", 2: b"2.4"}
REGULAR = {
    **BASIC,
    3: b"https://example.org",
    4: b"Meter",
    5: b"M1-3P",
    6: "热处理".encode("gb18030"),
    0x80: b"private",
}
TOLD = {"vendor": "ACME", "product": "M1", "revision": "2.4"}
ALL = {**TOLD, "url": "https://example.org", "product_name": "Meter", "model": "M1-3P", "application": "热处理"}


def identities(line: Running) -> list[tuple[str, dict[str, str]]]:
    return [(item.device, dict(item.told)) for item in line.items if isinstance(item, Identity)]


def running(server: Server, *units: int, state: Path | None = None, period: float = 0.02, **rules: Any) -> Running:
    spec = Spec(server.port, server.rtu)
    for unit in units or (1,):
        spec.device(unit, [holding(0)], period=period, **{"identification": True, **rules})
    return Running(ModbusAdapter(replace(spec.build(), state=state)))


@pytest.mark.parametrize("rtu", [False, True])
async def test_a_device_says_who_it_is_in_as_many_parts_as_it_needs(rtu: bool) -> None:
    server = Server(rtu=rtu, identity={1: REGULAR}, room=16).holds(1, range(5))
    async with server, running(server) as line:
        await line.until(lambda: identities(line))
        assert identities(line) == [("unit-1", ALL)]
        seen = len(server.questions)
        assert [(ask.count, ask.address) for ask in server.questions[:2]] == [(1, 0), (2, 3)]
        before = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > before + 20)
        assert len(server.questions) == seen
        assert set(line.rows(0)) == {(0, 0)}


async def test_more_follows_within_the_basic_objects() -> None:
    server = Server(identity={1: BASIC}, room=6, conformity=0x01).holds(1, range(5))
    async with server, running(server) as line:
        await line.until(lambda: identities(line))
    assert identities(line) == [("unit-1", TOLD)]
    assert [(ask.count, ask.address) for ask in server.questions] == [(1, 0), (1, 1), (1, 2)]


async def test_no_value_waits_for_it() -> None:
    async with Server(identity={1: BASIC}).holds(1, range(5)) as server, running(server) as line:
        await line.until(lambda: identities(line))
        assert server.asks[0].at < server.questions[0].at
        assert line.rows(0)


async def test_a_device_that_does_not_know_the_function_is_asked_once_for_each_connection() -> None:
    async with Server().holds(1, range(5)) as server, running(server) as line:
        await line.until(lambda: len(line.rows(0)) > 20)
        assert len(server.questions) == 1
        server.cut()
        assert isinstance(await line.ended(), TransientError)
        await line.adapter.disconnect()
        await line.adapter.connect()
        line.start()
        before = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > before + 20)
        assert len(server.questions) == 2
    assert not identities(line)


@pytest.mark.parametrize("code", [4, 5, 6, 11])
async def test_one_that_is_busy_half_way_has_not_become_another(code: int) -> None:
    """Without the regular objects it would look like a device that has fewer of them."""

    def busy(ask: Ask) -> bool:
        if ask.count == 2:
            ask.refuse(code)
        return ask.count == 2

    server = Server(identity={1: REGULAR}, question_hook=busy).holds(1, range(5))
    async with server, running(server) as line:
        await line.until(lambda: len(server.questions) == 2)
        before = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > before + 20)
        assert len(server.questions) == 2
    assert not identities(line)


async def test_one_that_does_not_know_the_length_of_the_request_either_loses_no_value() -> None:
    """As a server made with libmodbus: it answers with exception 1, and takes what is left of the request for the next one."""
    spoilt: set[int] = set()

    def refuse(ask: Ask) -> bool:
        ask.refuse(1)
        spoilt.add(ask.connection)
        return True

    def lose(ask: Ask) -> bool:
        if ask.connection in spoilt:
            ask.writer.transport.abort()
        return ask.connection in spoilt

    server = Server(question_hook=refuse, hook=lose).holds(1, range(5))
    async with server, running(server) as line:
        await line.until(lambda: server.questions)
        before = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > before + 20)
        assert len(server.questions) == 1
        assert server.connections == 2
        assert not line.states("unit-1")


@pytest.mark.parametrize("rtu", [False, True])
async def test_one_that_is_silent_over_it_is_never_asked_again(tmp_path: Path, rtu: bool) -> None:
    server = Server(rtu=rtu, question_hook=lambda _: True).holds(1, range(5))
    async with server:
        for _ in range(2):
            async with running(server, state=tmp_path, timeout=0.1) as line:
                await line.until(lambda: len(line.rows(0)) > 10)
                assert not line.states("unit-1")
        assert len(server.questions) == 1


async def test_one_that_dies_over_the_question_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.02)
    dead = False

    def die(ask: Ask) -> bool:
        nonlocal dead
        dead = dead or len(server.questions) == 1
        return dead

    server = Server(question_hook=die, hook=lambda ask: dead and ask.unit == 1, identity={1: BASIC})
    async with server.holds(1, range(5)).holds(2, range(5)), running(server, 1, 2, timeout=0.05) as line:
        await line.until(lambda: any(not state.up for state in line.states("unit-1")))
        server.identity[1] = {**BASIC, 2: b"9"}
        dead = False
        server.question_hook = None
        await line.until(lambda: ("unit-1", {**TOLD, "revision": "9"}) in identities(line))


async def test_one_that_hangs_up_over_it_is_left_alone_after_the_second_time(tmp_path: Path) -> None:
    def hang_up(ask: Ask) -> bool:
        ask.writer.transport.abort()
        return True

    server = Server(question_hook=hang_up).holds(1, range(5))
    async with server, running(server, state=tmp_path) as line:
        for _ in range(2):
            assert isinstance(await line.ended(), TransientError)
            await line.adapter.disconnect()
            await line.adapter.connect()
            line.start()
        before = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > before + 20)
        assert len(server.questions) == 2


async def test_an_exchanged_unit_says_so_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.02)
    server = Server(identity={1: BASIC, 2: BASIC}).holds(1, range(5)).holds(2, range(5))
    async with server, running(server, 1, 2, timeout=0.05) as line:
        await line.until(lambda: len(identities(line)) == 2)
        server.hook = lambda ask: ask.unit == 1
        await line.until(lambda: any(not state.up for state in line.states("unit-1")))
        server.identity[1] = {**BASIC, 1: b"M2"}
        server.hook = None
        await line.until(lambda: len(identities(line)) == 3)
        assert identities(line)[2] == ("unit-1", {**TOLD, "product": "M2"})


async def test_it_may_be_switched_off() -> None:
    async with Server(identity={1: BASIC}).holds(1, range(5)) as server:
        async with running(server, identification=False) as line:
            await line.until(lambda: len(line.rows(0)) > 10)
        assert not server.questions


@pytest.mark.parametrize(("rtu", "units", "asked"), [(False, 1, 1), (False, 2, 0), (True, 1, 0)])
async def test_by_itself_only_a_device_that_has_the_connection_to_itself_is_asked(
    rtu: bool, units: int, asked: int
) -> None:
    """A unit that reads frames by lengths, such as one made with libmodbus, loses the beat over a function that it does not know."""
    server = Server(rtu=rtu, identity={1: BASIC}, conformity=0x01)
    for unit in range(1, units + 1):
        server.holds(unit, range(5))
    async with server, running(server, *range(1, units + 1), identification=None) as line:
        await line.until(lambda: len(server.questions) >= asked)
        begun = len(line.rows(0))
        await line.until(lambda: len(line.rows(0)) > begun + 60)  # longer than the question gives way to values
        assert len(server.questions) == asked


async def test_on_a_serial_port() -> None:
    told = bytes((0x2B, 0x0E, 1, 1, 0, 0, 3)) + b"".join(bytes((n, len(t))) + t for n, t in BASIC.items())
    async with Slaves({1: {0: 5}, 2: {0: 7}}, identity={2: told}) as slaves:
        asked = {"identification": True}
        spec = Spec(0).device(1, [holding(0)], **asked).device(2, [holding(0)], **asked)
        async with Running(ModbusAdapter(link_spec(slaves, spec))) as line:
            await line.until(lambda: identities(line) and len(line.rows(0)) > 10)
            assert identities(line) == [("unit-2", TOLD)]
            assert set(line.rows(0)) == {(5, 0)}
            assert set(line.rows(1)) == {(7, 0)}


# ---------------------------------------------------------------------------------------------------------- its layout


@given(st.binary(max_size=60))
def test_nothing_that_a_device_may_say_is_too_much(data: bytes) -> None:
    part = parsed(data)
    if part is not None:
        assert all(text.isprintable() for text in named(part.objects).values())
    frame = rtu_frame(1, b"\x2b\x0e" + data)
    assert Identified.calculateRtuFrameSize(frame) >= 0


@given(st.dictionaries(st.integers(0, 6), st.binary(max_size=20)), st.binary(max_size=5))
def test_the_end_of_a_serial_frame_is_known_from_its_objects(objects: dict[int, bytes], behind: bytes) -> None:
    body = b"".join(bytes((n, len(text))) + text for n, text in objects.items())
    frame = rtu_frame(1, bytes((0x2B, 0x0E, 1, 1, 0, 0, len(objects))) + body)
    assert Identified.calculateRtuFrameSize(frame + behind) == len(frame)
    for cut in range(len(frame) - 2):
        assert Identified.calculateRtuFrameSize(frame[:cut]) in (0, len(frame))


def test_a_device_that_never_comes_to_an_end_is_asked_a_few_times() -> None:
    one = Identification()
    one.begin()
    assert not one.gave_values(1)
    assert one.wanted
    asked = 0
    while one._took(parsed(bytes((1, 1, 0xFF, (asked + 1) % 7, 0))) or pytest.fail("well formed")):
        asked += 1
        assert asked < 20
