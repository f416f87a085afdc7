"""Every kind of wire with everything that goes wrong on one: no answer of another request ever becomes a value, and the wire recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from adapters.contract import SystemClock, TransientError
from adapters.modbus import _link
from adapters.modbus._codec import Request
from adapters.modbus._link import Link, NoAnswerError
from tests.adapters.modbus_peer import WIRES, Asked, Peer, peer, registers
from tests.servers.waiting import eventually_async

TIMEOUT = 0.06


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens a moment only."""
    monkeypatch.setattr(_link, "LISTEN", 0.02)


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def opened(made: Peer) -> AsyncIterator[Link]:
    link = Link(made.settings, SystemClock())
    await link.open()
    try:
        yield link
    finally:
        link.close()


async def read(link: Link, unit: int, address: int, timeout: float = TIMEOUT) -> int | None:
    """The register, None where the answer was refused or did not come."""
    try:
        answer = await link.request(Request(unit, 3, address, 1), timeout)
    except NoAnswerError:
        return None
    if answer.short or answer.code:
        return None
    assert len(answer.data) == 2
    return int.from_bytes(answer.data, "big")


async def no_lie(made: Peer, link: Link, rounds: int = 1) -> None:
    """Reads registers of two units in turn, all of one length; whatever comes is right."""
    for _ in range(rounds):
        for unit, address in ((1, 10), (1, 20), (2, 10), (1, 30)):
            assert await read(link, unit, address) in (unit * 1000 + address, None)


def late(asked: Asked) -> None:
    asked.send(asked.frame(asked.right), TIMEOUT * 1.1)


def twice(asked: Asked) -> None:
    asked.send(asked.frame(asked.right) * 2)


def of_another_unit(asked: Asked) -> None:
    asked.send(asked.frame(registers(7, asked.address, 1), unit=7))


def of_another_function(asked: Asked) -> None:
    asked.send(asked.frame(b"\x04" + asked.right[1:]))


def of_an_unknown_function(asked: Asked) -> None:
    asked.send(asked.frame(b"\x63\x01\x02"))


def with_too_much_data(asked: Asked) -> None:
    asked.send(asked.frame(registers(asked.unit, asked.address, 3)))


def with_too_little_data(asked: Asked) -> None:
    asked.send(asked.frame(bytes((3, 1, 5))))


def with_a_byte_count_that_is_wrong(asked: Asked) -> None:
    asked.send(asked.frame(bytes((3, 4)) + asked.right[2:]))


def half(asked: Asked) -> None:
    frame = asked.frame(asked.right)
    asked.send(frame[: len(frame) // 2])


def broken(asked: Asked) -> None:
    frame = bytearray(asked.frame(asked.right))
    frame[-3 if asked.wire.startswith("ascii") else -1] ^= 1
    asked.send(bytes(frame) if not asked.wire.endswith(("tcp", "udp")) or " " in asked.wire else b"")


def behind_garbage(asked: Asked) -> None:
    asked.send(b"\x00\xff:\x01\x03" + asked.frame(asked.right))


def behind_half_a_frame_of_another(asked: Asked) -> None:
    asked.send(asked.frame(registers(2, 999, 1), unit=2)[:-3] + asked.frame(asked.right))


def out_of_order(asked: Asked) -> None:
    """The answer of an earlier request first, where frames carry numbers; else of another unit's."""
    earlier = asked.frame(registers(asked.unit, asked.address + 500, 1), transaction=(asked.transaction - 1) & 0xFFFF)
    if asked.wire in ("tcp", "udp"):
        asked.send(earlier)
    else:
        asked.send(asked.frame(registers(9, asked.address, 1), unit=9))
    asked.send(asked.frame(asked.right))


def never(asked: Asked) -> None:
    pass


MISDEEDS: tuple[Callable[[Asked], None], ...] = (
    late, twice, out_of_order, of_another_unit, of_another_function, of_an_unknown_function, with_too_much_data,
    with_too_little_data, with_a_byte_count_that_is_wrong, half, broken, behind_garbage, behind_half_a_frame_of_another, never,
)  # fmt: skip


@pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda misdeed: misdeed.__name__)
async def test_what_is_no_answer_never_becomes_a_value(wire: str, misdeed: Callable[[Asked], None]) -> None:
    done = 0

    def hook(asked: Asked) -> bool:
        nonlocal done
        if len(made.asked) % 4 or done == 2:
            return False
        done += 1
        misdeed(asked)
        return True

    async with peer(wire) as made, opened(made) as link:
        assert await eventually_async(lambda: read(link, 1, 10)) == 1010
        made.hook = hook
        while done < 2:
            await no_lie(made, link)
        made.hook = None
        for unit, address in ((1, 20), (2, 10), (1, 30)):
            # a loaded machine may be slower than the short time-out: then once more, but never a wrong one
            async def right(unit: int = unit, address: int = address) -> bool:
                value = await read(link, unit, address)
                assert value in (None, unit * 1000 + address)
                return value is not None

            await eventually_async(right, 10)


async def test_a_read_that_is_cancelled_answers_no_other(wire: str) -> None:
    """A cancelled read of register 100 must not answer the next one of register 200."""
    async with peer(wire) as made, opened(made) as link:
        made.hook = lambda asked: asked.address == 100 and (asked.send(asked.frame(asked.right), 0.03) or True)
        for _ in range(3):
            count = len(made.asked)
            task = asyncio.ensure_future(read(link, 1, 100, 0.2))
            await eventually_async(lambda n=count: len(made.asked) > n, interval=0.001)  # type: ignore[misc]
            task.cancel()
            await asyncio.wait({task})
            assert await read(link, 1, 200, 5.0) == 1200


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "udp"])
async def test_an_answer_in_single_bytes_is_one(wire: str) -> None:
    """Of datagrams there are no pieces."""
    async with peer(wire) as made, opened(made) as link:

        def trickle(asked: Asked) -> bool:
            for n, byte in enumerate(asked.frame(asked.right)):
                asked.send(bytes((byte,)), 0.001 * (n + 1))
            return True

        made.hook = trickle
        assert await read(link, 1, 10, 5.0) == 1010
        assert not link.errors


async def test_a_long_answer_on_a_slow_line_is_waited_for_and_a_silent_unit_is_not() -> None:
    """At 1200 baud 60 registers take 1.2 s: longer than the time-out, which is for the unit's own time."""
    async with peer("rtu on a port", baud=1200) as made, opened(made) as link:

        def slowly(asked: Asked) -> bool:
            if asked.unit != 1:
                return True
            frame = asked.frame(asked.right)
            for at in range(0, len(frame), 25):
                asked.send(frame[at : at + 25], 0.02 + 0.2 * at / 25)
            return True

        made.hook = slowly
        answer = await link.request(Request(1, 3, 0, 60), 0.3)
        assert len(answer.data) == 120
        begun = asyncio.get_running_loop().time()
        with pytest.raises(NoAnswerError):
            await link.request(Request(2, 3, 0, 60), 0.3)
        assert asyncio.get_running_loop().time() - begun < 1.2  # 0.3 s, and what a loaded machine adds


async def test_a_datagram_to_nobody_is_a_refusal_and_no_time_out() -> None:
    """The other machine is on, and nothing listens there: told at once, and by its name."""
    async with peer("udp") as made:
        settings = made.settings
    link = Link(settings, SystemClock())
    await link.open()
    with pytest.raises(TransientError, match="refused"):
        await link.request(Request(1, 3, 0, 1), 20.0)
    assert link.errors["refused"] == 1
    link.close()


async def test_a_lost_datagram_costs_one_time_out_and_the_socket_stays() -> None:
    async with peer("udp") as made, opened(made) as link:
        lost = 0

        def lose(asked: Asked) -> bool:
            nonlocal lost
            lost += len(made.asked) % 2
            return bool(len(made.asked) % 2)

        made.hook = lose
        got = [await read(link, 1, n) for n in range(8)]
        assert all(value in (None, 1000 + n) for n, value in enumerate(got))
        assert link.errors["timeout"] >= lost == 4
        assert len({asked.transaction for asked in made.asked}) == 8
