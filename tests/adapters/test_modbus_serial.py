"""Modbus RTU on a serial port, over pseudo-terminals: several units, what goes wrong on a wire, and another master."""

from __future__ import annotations

import asyncio
import os
import pty
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters.contract import DeviceState, LinkSpec, SystemClock, TransientError
from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _link, _unit
from adapters.modbus._codec import Request
from adapters.modbus._link import Link, NoAnswerError
from adapters.modbus._serial import SerialPlace, close_port, open_port
from adapters.modbus._wire import foreign_request, of_unit
from tests.adapters.modbus_server import Running, Spec, holding, rtu_frame
from tests.adapters.modbus_slave import Slaves
from tests.servers.waiting import eventually_async


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens a moment only; back-off in tenths of seconds."""
    monkeypatch.setattr(_link, "LISTEN", 0.05)
    monkeypatch.setattr(_unit, "BACKOFF_FIRST", 0.1)
    monkeypatch.setattr(_unit, "BACKOFF_MOST", 0.2)


def words(*given: int) -> dict[int, int]:
    return dict(enumerate(given))


def link_spec(slaves: Slaves, spec: Spec, **settings: object) -> LinkSpec:
    made = ModbusLinkSettings.model_validate({"serial": slaves.path, "baud": 115200, "timeout": 0.5, **settings})
    return LinkSpec("line", made, tuple(spec.devices))


def link_of(slaves: Slaves, **settings: object) -> Link:
    return Link(link_spec(slaves, Spec(0), **settings).settings, SystemClock())  # type: ignore[arg-type]


async def read(link: Link, unit: int, address: int, count: int = 1, timeout: float = 0.2) -> list[int]:
    """Registers of a unit."""
    data = (await link.request(Request(unit, 3, address, count), timeout)).data
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


# -------------------------------------------------------------------------------------------------------------- settings


def test_a_link_goes_to_one_place() -> None:
    assert ModbusLinkSettings(serial="/dev/ttyUSB0").rtu
    assert ModbusLinkSettings(serial="/dev/ttyUSB0").place == "/dev/ttyUSB0"
    assert not ModbusLinkSettings(host="h").rtu
    for wrong in (
        {},
        {"host": "h", "serial": "/dev/ttyUSB0"},
        {"serial": "COM3"},
        {"serial": "/dev/ttyUSB0", "port": 502},
        {"serial": "/dev/ttyUSB0", "transport": "rtu-over-tcp"},
        {"host": "h", "baud": 9600},
        {"serial": "/dev/ttyUSB0", "baud": 9601},
        {"serial": "/dev/ttyUSB0", "parity": "X"},
    ):
        with pytest.raises(ValidationError):
            ModbusLinkSettings.model_validate(wrong)


def test_the_silence_between_frames_is_that_of_the_standard() -> None:
    assert SerialPlace("/dev/x", 9600, "E", 1).silence == pytest.approx(3.5 * 11 / 9600)
    assert SerialPlace("/dev/x", 9600, "N", 1).silence == pytest.approx(3.5 * 10 / 9600)
    assert SerialPlace("/dev/x", 115200, "N", 1).silence == 0.00175
    with pytest.raises(ValueError, match="9601"):
        SerialPlace("/dev/x", 9601)


# ------------------------------------------------------------------------------------------------------------- the port


async def test_units_share_one_port_and_a_dead_one_is_left_alone() -> None:
    async with Slaves({1: words(11, 12, 13), 3: words(31)}) as slaves:
        spec = Spec(0).device(1, [holding(0), holding(2)], timeout=0.1).device(2, [holding(0)], timeout=0.1)
        spec.device(3, [holding(0)], timeout=0.1)
        adapter = ModbusAdapter(link_spec(slaves, spec))
        async with Running(adapter) as line:
            await line.until(lambda: len(line.rows(0)) > 5 and len(line.rows(3)) > 5 and line.states("unit-2"))
            assert set(line.rows(0)) == {(11, 0)}
            assert set(line.rows(1)) == {(13, 0)}
            assert set(line.rows(3)) == {(31, 0)}
            assert not line.states("unit-1")
            assert adapter.endpoint("unit-3") == f"modbus+rtu://{slaves.path}/unit/3"
            assert adapter.reads_at(ModbusLinkSettings(serial=slaves.path))
            assert not adapter.reads_at(ModbusLinkSettings(serial="/dev/null"))
            assert not adapter.reads_at(ModbusLinkSettings(host="h"))


async def test_a_port_is_one_links_alone_and_free_again_afterwards() -> None:
    async with Slaves({1: words(5)}) as slaves:
        first, second = link_of(slaves), link_of(slaves)
        await first.open()
        with pytest.raises(TransientError, match="another program uses the port"):
            await second.open()
        first.close()
        await second.open()
        assert await read(second, 1, 0) == [5]
        second.close()


def test_a_port_that_this_user_may_not_open_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TransientError, match="permission denied") as caught:
        open_port(SerialPlace("/dev/serial/by-id/usb-x"))
    assert "dialout" in caught.value.fix_en
    assert "dialout" in caught.value.fix_zh


def test_no_serial_port_and_no_port_at_all(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(TransientError, match="this is no serial port"):
        open_port(SerialPlace(str(tmp_path / "plain")))
    with pytest.raises(TransientError) as caught:
        open_port(SerialPlace(str(tmp_path / "none")))
    assert "/dev/serial/by-id" in caught.value.fix_en


def test_every_setting_of_a_port_can_be_set() -> None:
    near, far = pty.openpty()
    try:
        for parity in ("N", "E", "O"):
            for stop in (1, 2):
                close_port(open_port(SerialPlace(os.ttyname(far), 38400, parity, stop)))
        assert stat.S_ISCHR(os.fstat(far).st_mode)
    finally:
        os.close(near)
        os.close(far)


async def test_the_adapter_is_pulled_out() -> None:
    async with Slaves({1: words(5)}) as slaves:
        adapter = ModbusAdapter(link_spec(slaves, Spec(0).device(1, [holding(0)])))
        async with Running(adapter) as line:
            await line.until(lambda: line.samples())
            slaves.unplug()
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "closed"
            assert "the serial port is gone" in str(error)
            assert [state.up for state in line.items if isinstance(state, DeviceState)] == [False]


# --------------------------------------------------------------------------------------------------- what a wire can do


async def test_an_adapter_that_hears_itself_is_borne() -> None:
    async with Slaves({1: words(5), 2: words(7)}, echo=True) as slaves:
        link = link_of(slaves)
        await link.open()
        for _ in range(3):
            assert (await read(link, 1, 0), await read(link, 2, 0)) == ([5], [7])
        assert not link.errors
        link.close()


@pytest.mark.parametrize("junk", [b"\x00", b"\xff\xff\x00", rtu_frame(9, bytes((3, 2, 0, 99))), b"\x01\x03"])
async def test_garbage_before_an_answer_never_becomes_a_value(junk: bytes) -> None:
    async with Slaves({1: words(5)}, hook=lambda _, answer: junk + answer) as slaves:
        link = link_of(slaves)
        await link.open()
        for _ in range(2):
            try:
                assert await read(link, 1, 0) == [5]
            except NoAnswerError:
                pass  # a frame that cannot be told from the noise in front of it is a miss
        slaves.hook = None
        assert await read(link, 1, 0) == [5]
        link.close()


@pytest.mark.parametrize("cut", [1, 4, 6])
async def test_half_a_frame_is_no_answer_and_the_next_one_is_whole(cut: int) -> None:
    async with Slaves({1: words(5, 6)}, hook=lambda _, answer: answer[:cut]) as slaves:
        link = link_of(slaves)
        await link.open()
        with pytest.raises(NoAnswerError):
            await read(link, 1, 0)
        slaves.hook = None
        assert await read(link, 1, 1) == [6]
        link.close()


async def test_a_wrong_checksum_is_no_answer() -> None:
    async with Slaves({1: words(5)}, hook=lambda _, answer: answer[:-1] + bytes((answer[-1] ^ 1,))) as slaves:
        link = link_of(slaves)
        await link.open()
        with pytest.raises(NoAnswerError):
            await read(link, 1, 0)
        link.close()


async def test_a_late_answer_is_never_taken_for_the_current_one() -> None:
    """Register 0 is answered after the time-out; the next request of the unit waits until that answer has come and gone."""
    async with Slaves({1: words(100, 200), 2: words(7)}) as slaves:

        def late(request: bytes, answer: bytes) -> bytes | None:
            if request[:4] == b"\x01\x03\x00\x00":
                slaves.later(0.15, answer)
                return b""
            return None

        slaves.hook = late
        link = link_of(slaves)
        await link.open()
        with pytest.raises(NoAnswerError):
            await read(link, 1, 0, timeout=0.1)
        assert await read(link, 1, 1, timeout=0.1) == [200]
        with pytest.raises(NoAnswerError):
            await read(link, 1, 0, timeout=0.1)
        assert await read(link, 2, 0, timeout=0.2) == [7]  # the late answer of unit 1 comes in front of it
        assert await read(link, 1, 1, timeout=0.1) == [200]
        assert link.errors["timeout"] == 2
        assert link.errors["unasked"] >= 1
        link.close()


async def test_a_cancelled_read_leaves_nothing_behind() -> None:
    async with Slaves({1: words(100, 200)}) as slaves:

        def slow(request: bytes, answer: bytes) -> bytes | None:
            slaves.later(0.1, answer)
            return b""

        slaves.hook = slow
        link = link_of(slaves)
        await link.open()
        task = asyncio.ensure_future(read(link, 1, 0))
        await eventually_async(lambda: len(slaves.asks) == 1, what="the request is out")
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await read(link, 1, 1) == [200]
        link.close()


# -------------------------------------------------------------------------------------------------------- another master


def test_what_a_master_says_is_known_from_what_a_unit_says() -> None:
    answer = rtu_frame(1, bytes((3, 2, 0, 5)))
    request = rtu_frame(1, bytes((3, 0, 0, 0, 2)))
    assert foreign_request(request, "rtu")
    assert foreign_request(b"\x00" + request + answer, "rtu")
    assert not foreign_request(answer, "rtu")
    assert not foreign_request(answer + answer, "rtu")
    assert not foreign_request(request[:-1], "rtu")
    assert of_unit(answer, 1, "rtu")
    assert not of_unit(answer, 2, "rtu")
    assert not of_unit(answer[:-1], 1, "rtu")
    assert not of_unit(answer, None, "rtu")


async def test_foreign_traffic_keeps_the_link_off_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "LISTEN", 0.5)
    async with Slaves({1: words(5)}) as slaves:
        link = link_of(slaves)
        slaves.later(0.1, rtu_frame(4, bytes((3, 0, 0, 0, 2))))
        with pytest.raises(TransientError, match="another master speaks on this line") as caught:
            await link.open()
        assert caught.value.reason == "foreign_master"
        assert not slaves.asks  # not one frame of ours
        assert link.errors["foreign"] == 1
        monkeypatch.setattr(_link, "LISTEN", 0.05)
        slaves.later(0.01, b"\x00")  # a stray byte is noise
        await link.open()
        assert await read(link, 1, 0) == [5]
        link.close()


async def test_a_master_that_begins_to_speak_later_is_found() -> None:
    async with Slaves({1: words(5)}) as slaves:
        adapter = ModbusAdapter(link_spec(slaves, Spec(0).device(1, [holding(0)], period=0.1)))
        async with Running(adapter) as line:
            await line.until(lambda: len(line.samples()) >= 2)
            for n in range(40):
                slaves.later(0.01 * n, rtu_frame(4, bytes((3, 0, 0, 0, 2))))
            error = await line.ended()
            assert isinstance(error, TransientError)
            assert error.reason == "foreign_master"
            assert not line.states("unit-1")[-1].up


async def test_listening_ends_at_once_when_the_link_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "LISTEN", 60.0)
    async with Slaves({1: words(5)}) as slaves:
        adapter = ModbusAdapter(link_spec(slaves, Spec(0).device(1, [holding(0)])))
        connecting = asyncio.ensure_future(adapter.connect())
        await asyncio.sleep(0)
        await adapter.disconnect()
        async with asyncio.timeout(2):
            with pytest.raises(TransientError):
                await connecting
        close_port(open_port(SerialPlace(slaves.path)))  # free again
