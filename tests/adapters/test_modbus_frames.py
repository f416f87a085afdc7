"""Answers that are late, foreign, cut off or wrong: none of them ever becomes a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from pymodbus.pdu import ModbusPDU

from adapters.contract import TransientError
from adapters.modbus import ModbusAdapter, _codec, _unit
from tests.adapters.modbus_server import Ask, Running, Server, Spec, holding
from tests.servers.waiting import eventually_async


@pytest.fixture(params=["tcp", "rtu-over-tcp"])
def rtu(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "rtu-over-tcp")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off in hundredths of seconds, so that a late answer meets the next request soon."""
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.02)
    monkeypatch.setattr(_unit, "BACKOFF_MOST", 0.02)


def data(ask: Ask, *, words: int | None = None) -> bytes:
    """The right answer's PDU: each register holds unit * 1000 + address."""
    count = ask.count if words is None else words
    content = b"".join((ask.unit * 1000 + ask.address + i).to_bytes(2, "big") for i in range(count))
    return bytes((ask.function, len(content))) + content


def two_units(server: Server, **rules: float) -> Spec:
    """Three blocks of one length on unit 1, so that their answers could be taken for each other, and one on unit 2."""
    for unit in (1, 2):
        server.holds(unit, {address: unit * 1000 + address for address in range(400)})
    spec = Spec(server.port, server.rtu)
    spec.device(1, [holding(0), holding(100), holding(200)], timeout=0.05, period=0.01)
    return spec.device(2, [holding(300)], timeout=0.05, period=0.01)


EXPECTED = {0: 1000, 1: 1100, 2: 1200, 3: 2300}


def asked_for_100(server: Server, since: int) -> bool:
    return any(ask.address == 100 for ask in server.asks[since:])


def assert_no_lie(line: Running) -> None:
    for point, value in EXPECTED.items():
        assert set(line.rows(point)) <= {(value, 0)}, f"point {point} got {set(line.rows(point))}"


class Sometimes:
    """A hook that misbehaves at each n-th request for unit 1, from the tenth of them on."""

    def __init__(self, misbehave: Callable[[Ask], None], every: int = 4) -> None:
        self.misbehave = misbehave
        self.every = every
        self.seen = 0
        self.done = 0

    def __call__(self, ask: Ask) -> bool:
        self.seen += ask.unit == 1
        if ask.unit != 1 or self.seen < 10 or self.seen % self.every:
            return False
        self.done += 1
        self.misbehave(ask)
        return True


async def survives(server: Server, misbehave: Callable[[Ask], None], kind: str, *, every: int = 4) -> Running:
    """Runs until it has misbehaved several times and all points have values after that; nothing false may be among them."""
    hook = Sometimes(misbehave, every)
    async with server:
        line = Running(ModbusAdapter(two_units(server).build()))
        server.hook = hook
        async with line:
            await line.until(lambda: hook.done >= 5, "misbehaviour")
            seen = {point: len(line.rows(point)) for point in EXPECTED}
            await line.until(lambda: all(len(line.rows(p)) > seen[p] for p in EXPECTED), "values after it")
            assert_no_lie(line)
            assert not line.states("unit-2")
            assert line.adapter.counters().errors[kind] >= 4
        return line


async def test_a_late_answer_is_not_taken_for_the_next_one(rtu: bool) -> None:
    """Late reply of request N answered as N+1 (pymodbus #538, #2777; marstek #299)."""
    server = Server(rtu)

    def late(ask: Ask) -> None:
        server.later(0.06, lambda: ask.send(ask.frame(data(ask))))

    await survives(server, late, "timeout")


async def test_a_very_late_answer_meets_the_request_of_another_block(rtu: bool) -> None:
    """The worst moment: it comes on the connection on which it was asked for, when another block of the same unit is waited for."""
    held: list[Ask] = []
    released = 0
    sometimes = Sometimes(lambda ask: None)

    def hold(ask: Ask) -> bool:
        nonlocal released
        if held and ask.unit == 1 and ask.address != held[0].address:
            stale = held.pop()
            stale.send(stale.frame(data(stale)))
            released += 1
        elif not held and sometimes(ask):
            held.append(ask)
            return True
        return False

    async with Server(rtu) as server:
        line = Running(ModbusAdapter(two_units(server).build()))
        server.hook = hold
        async with line:
            await line.until(lambda: released >= 5)
            seen = {point: len(line.rows(point)) for point in EXPECTED}
            await line.until(lambda: all(len(line.rows(p)) > seen[p] for p in EXPECTED))
            assert_no_lie(line)
            assert not line.states("unit-1")


async def test_a_serial_server_that_gives_a_late_answer_to_the_next_connection(rtu: bool) -> None:
    """It does not know whose the bytes are: they go to whoever is connected, in front of the next answer."""
    server = Server(rtu)
    newest: list[Ask] = []
    sometimes = Sometimes(lambda ask: None)

    def mix_up(ask: Ask) -> bool:
        if sometimes(ask):
            newest.append(ask)
            return True
        if newest and ask.unit == 2:  # the late answer of unit 1 arrives in one piece with that of unit 2
            ask.send(ask.frame(data(newest[0]), unit=1, transaction=newest.pop(0).transaction) + ask.frame(data(ask)))
            return True
        return False

    async with server:
        line = Running(ModbusAdapter(two_units(server).build()))
        server.hook = mix_up
        async with line:
            await line.until(lambda: sometimes.done >= 5)
            seen = {point: len(line.rows(point)) for point in EXPECTED}
            await line.until(lambda: all(len(line.rows(p)) > seen[p] for p in EXPECTED))
            assert_no_lie(line)
            errors = line.adapter.counters().errors
            assert errors["timeout"] <= sometimes.done  # unit 2 lost nothing


async def test_an_answer_of_another_unit(rtu: bool) -> None:
    await survives(Server(rtu), lambda ask: ask.send(ask.frame(data(ask), unit=7)), "timeout")


async def test_an_answer_of_another_function(rtu: bool) -> None:
    def wrong(ask: Ask) -> None:
        pdu = data(ask)
        ask.send(ask.frame(bytes((4,)) + pdu[1:]))

    # on the line the frame is noise; in MBAP it claims to be the answer
    await survives(Server(rtu), wrong, "timeout" if rtu else "malformed")


async def test_an_unknown_function_does_not_break_the_transport(rtu: bool) -> None:
    await survives(Server(rtu), lambda ask: ask.send(ask.frame(b"\x63\x01\x02")), "timeout" if rtu else "malformed")


async def test_too_much_data(rtu: bool) -> None:
    await survives(Server(rtu), lambda ask: ask.send(ask.frame(data(ask, words=3))), "timeout" if rtu else "malformed")


async def test_half_an_answer(rtu: bool) -> None:
    await survives(Server(rtu), lambda ask: ask.send(ask.frame(data(ask))[:-1]), "timeout")


async def test_an_answer_in_single_bytes_is_one(rtu: bool) -> None:
    async with Server(rtu) as server:
        spec = two_units(server)

        async def trickle(ask: Ask) -> bool:
            for byte in ask.frame(data(ask)):
                ask.send(bytes((byte,)))
                await asyncio.sleep(0)
            return True

        server.hook = trickle
        async with Running(ModbusAdapter(spec.build())) as line:
            await line.until(lambda: all(len(line.rows(p)) > 3 for p in EXPECTED))
            assert_no_lie(line)
            assert not line.adapter.counters().errors


async def test_a_broken_checksum() -> None:
    def garble(ask: Ask) -> None:
        frame = bytearray(ask.frame(data(ask)))
        frame[3] ^= 0x40
        ask.send(bytes(frame))

    await survives(Server(rtu=True), garble, "timeout")


async def test_noise_in_front_of_an_answer_is_passed_over() -> None:
    """4G modems send registration and heartbeat bytes between frames."""
    async with Server(rtu=True) as server:
        spec = two_units(server)

        def noisy(ask: Ask) -> bool:
            ask.send(b"\x01\x04IMEI860000000000000\x03\x03\r\n" + ask.frame(data(ask)))
            return True

        server.hook = noisy
        async with Running(ModbusAdapter(spec.build())) as line:
            await line.until(lambda: all(len(line.rows(p)) > 3 for p in EXPECTED))
            assert_no_lie(line)
            assert not line.adapter.counters().errors


@pytest.mark.parametrize("transaction", [0, 1, 77, 65535])
async def test_an_answer_of_another_transaction(transaction: int) -> None:
    def wrong(ask: Ask) -> None:
        number = transaction if transaction != ask.transaction else 99
        ask.send(ask.frame(data(ask), transaction=number))

    # a transaction 0 is passed on by pymodbus, and refused by us
    await survives(Server(), wrong, "malformed" if transaction == 0 else "timeout")


async def test_not_modbus_at_all() -> None:
    await survives(Server(), lambda ask: ask.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "timeout")


async def test_a_read_that_is_cancelled_leaves_nothing_behind(rtu: bool) -> None:
    """A cancelled read of register 100 must not answer the next one of register 200."""
    async with Server(rtu) as server:
        spec = two_units(server)
        hold = False

        def slowly(ask: Ask) -> bool:
            if hold and ask.unit == 1 and ask.address == 100:
                server.later(0.03, lambda: ask.send(ask.frame(data(ask))))
                return True
            return False

        server.hook = slowly
        async with Running(ModbusAdapter(spec.build())) as line:
            await line.until(lambda: all(line.rows(p) for p in EXPECTED))
            hold = True
            for _ in range(5):
                asked = len(server.asks)
                read = asyncio.ensure_future(line.adapter.read([1]))
                await eventually_async(partial(asked_for_100, server, asked), interval=0.001)
                read.cancel()
                await asyncio.wait({read})
                samples = await line.adapter.read([2])
                assert list(samples.values) in ([1200], [None])
            assert_no_lie(line)


async def test_a_cancellation_in_the_moment_of_the_answer_is_not_forgotten(
    rtu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's `wait_for`, on which pymodbus waits, returns the answer then, and the caller would never end."""
    async with Server(rtu) as server:
        adapter = ModbusAdapter(two_units(server).build())
        await adapter.connect()
        read = asyncio.ensure_future(adapter.read([1]))
        decode = _codec.RawDecoder.decode

        def cancelling(decoder: _codec.RawDecoder, frame: bytes) -> ModbusPDU | None:
            read.cancel()
            return decode(decoder, frame)

        with monkeypatch.context() as patched:
            patched.setattr(_codec.RawDecoder, "decode", cancelling)
            await asyncio.wait({read})
        assert read.cancelled()
        assert list((await adapter.read([2])).values) == [1200]
        await adapter.disconnect()


async def test_an_iteration_that_is_cancelled_may_begin_again(rtu: bool) -> None:
    async with Server(rtu) as server:
        spec = two_units(server)
        line = Running(ModbusAdapter(spec.build()))
        async with line:
            for _ in range(6):
                asked = len(server.asks)
                await line.until(lambda n=asked: len(server.asks) > n + 3)  # type: ignore[misc]
                await line.cancel()
                line.start()
            await line.until(lambda: all(len(line.rows(p)) > 3 for p in EXPECTED))
            assert_no_lie(line)


async def test_a_peer_that_only_hangs_up_is_a_loss(rtu: bool) -> None:
    """Many devices accept one connection more than they serve, and close it at once."""

    def hang_up(ask: Ask) -> bool:
        ask.writer.close()
        return True

    async with Server(rtu, hook=hang_up) as server:
        adapter = ModbusAdapter(two_units(server).build())
        with pytest.raises(TransientError) as error:
            await adapter.connect()
        assert error.value.reason == "closed"
        assert "connections" in error.value.fix_en
        await adapter.disconnect()
        await eventually_async(lambda: server.links == 0)
