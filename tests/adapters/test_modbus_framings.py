"""Modbus ASCII and Modbus over UDP: frames by the standard, pymodbus's servers at the other end, and a link's whole life over each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from adapters.contract import LinkSpec, TransientError
from adapters.modbus import ModbusAdapter, ModbusLinkSettings, _link
from adapters.modbus._codec import AsciiFramer, RawDecoder
from adapters.modbus._frames import frame_log, tracer
from adapters.modbus._serial import SerialPlace, close_port, open_port
from adapters.modbus._wire import foreign_request, of_unit
from tests.adapters.modbus_peer import HOST, ascii_frame
from tests.adapters.modbus_server import Running, Spec, holding

WORDS = [100 + n for n in range(40)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listens a moment only."""
    monkeypatch.setattr(_link, "LISTEN", 0.02)


# ---------------------------------------------------------------------------------------------------------------- frames


def framer() -> AsciiFramer:
    """One that has nothing yet."""
    return AsciiFramer(RawDecoder(lambda: 0))


def test_an_ascii_frame_is_that_of_the_standard() -> None:
    """The sum of all bytes, checksum included, is 0 modulo 256 (Serial Line V1.02 §2.5.2.2)."""
    frame = framer().encode(bytes((3, 0, 0x13, 0, 0x8A)), 17, 0)
    assert frame == b":11030013008A4F\r\n"
    assert ascii_frame(17, bytes((3, 0, 0x13, 0, 0x8A))) == frame
    assert framer().decode(frame) == (len(frame), 17, 0, bytes((3, 0, 0x13, 0, 0x8A)))
    assert framer().decode(frame.lower()) == (len(frame), 17, 0, bytes((3, 0, 0x13, 0, 0x8A)))


@pytest.mark.parametrize(
    "noise",
    [b"", b"\x00\xff", b"\r\n", b":", b":1103", b":GG\r\n", b": 11 03\r\n", b"::::", b":110300\r\n", b"\x80:\xe4\r\n"],
)
def test_a_colon_begins_a_frame_anew_whatever_stands_before_it(noise: bytes) -> None:
    frame = ascii_frame(17, b"\x03\x02\x00\x05")
    assert framer().decode(noise + frame) == (len(noise) + len(frame), 17, 0, b"\x03\x02\x00\x05")
    assert framer().decode(noise + frame[:-2])[3] == b""


def test_a_wrong_checksum_or_half_a_frame_is_none() -> None:
    frame = ascii_frame(17, b"\x03\x02\x00\x05")
    for broken in (frame[:5] + b"7" + frame[6:], frame[:-4] + b"00\r\n", frame[3:], frame[:-5] + b"\r\n"):
        assert framer().decode(broken)[3] == b""


def test_what_a_master_says_is_known_from_what_a_unit_says() -> None:
    answer, request = ascii_frame(1, bytes((3, 2, 0, 5))), ascii_frame(1, bytes((3, 0, 0, 0, 2)))
    assert foreign_request(b"\x00" + request + answer, "ascii")
    assert not foreign_request(answer * 2, "ascii")
    assert not foreign_request(request[:-3], "ascii")
    assert not foreign_request(request, "mbap")
    assert of_unit(answer, 1, "ascii")
    assert not of_unit(answer, 2, "ascii")
    assert not of_unit(answer * 2, 1, "ascii")


def test_ascii_frames_are_explained() -> None:
    log = frame_log("ascii")
    trace = tracer(log, lambda: 0)
    trace(True, ascii_frame(17, bytes((3, 0, 0x13, 0, 2))))
    trace(False, ascii_frame(17, bytes((3, 4, 0, 5, 0, 6))))
    trace(False, b":1103")
    trace(False, b":1")
    told = [frame.meaning for frame in log.frames()]
    assert told[0] == "unit 17: Read Holding Registers (3), address 19, count 2"
    assert told[1] == "unit 17: Read Holding Registers (3), 2 registers: 5 6"
    assert "first" in told[2]
    assert "first 2 characters" in told[3]


# -------------------------------------------------------------------------------------------------------------- settings


def test_what_may_be_written() -> None:
    made = ModbusLinkSettings.model_validate({"serial": "/dev/ttyS0", "framing": "ascii", "bits": 7, "parity": "E"})
    assert made.frames == "ascii"
    assert ModbusLinkSettings(host="h", transport="ascii-over-tcp").frames == "ascii"
    assert ModbusLinkSettings(host="h", transport="udp").frames == "mbap"
    assert ModbusLinkSettings(host="h", transport="udp").datagrams
    for wrong in (
        {"serial": "/dev/ttyS0", "bits": 7},
        {"serial": "/dev/ttyS0", "framing": "udp"},
        {"serial": "/dev/ttyS0", "transport": "udp"},
        {"host": "h", "framing": "ascii"},
        {"host": "h", "bits": 8},
        {"listen": {"port": 5020, "registration": "abc"}, "transport": "udp"},
    ):
        with pytest.raises(ValidationError):
            ModbusLinkSettings.model_validate(wrong)


def test_seven_bits_can_be_set_and_make_a_character_shorter() -> None:
    near, far = pty.openpty()
    try:
        place = SerialPlace(os.ttyname(far), 9600, "E", 1, 7, True)
        close_port(open_port(place))
        assert place.setting == "9600 7E1"
        assert place.character == pytest.approx(10 / 9600)
        assert place.silence == 0
        with pytest.raises(ValueError, match="7 data bits"):
            SerialPlace(os.ttyname(far), 9600, "E", 1, 7)
    finally:
        os.close(near)
        os.close(far)


def test_a_reckoned_line_of_ascii_frames_takes_twice_as_long() -> None:
    def share(**settings: Any) -> float:
        made = ModbusLinkSettings.model_validate({"serial": "/dev/ttyS0", "baud": 1200, **settings})
        devices = tuple(Spec(0).device(1, [holding(n) for n in range(60)], period=10.0).devices)
        load = ModbusAdapter(LinkSpec("line", made, devices)).expected_load()
        assert load is not None
        return load.share

    assert 1.8 <= share(framing="ascii") / share() <= 2.1


# ------------------------------------------------------------------------------------------------ pymodbus at the other end


@contextlib.asynccontextmanager
async def served(kind: str) -> AsyncIterator[int]:
    """pymodbus's server with unit 1: the words at address 0 of the holding registers. Gives its port."""
    device = SimDevice(1, [SimData(0, values=WORDS, datatype=DataType.REGISTERS)])
    server: Any
    if kind == "udp":
        server = ModbusUdpServer(device, address=(HOST, 0))
    else:
        server = ModbusTcpServer(device, address=(HOST, 0), framer=FramerType.ASCII)
    await server.serve_forever(background=True)
    try:
        transport = server.transport
        sock = transport.get_extra_info("socket") if kind == "udp" else transport.sockets[0]
        yield sock.getsockname()[1]
    finally:
        await server.shutdown()


@contextlib.asynccontextmanager
async def serial_server(port: int) -> AsyncIterator[str]:
    """A serial port whose other end is that TCP server: bytes pass as they are."""
    near, far = pty.openpty()
    tty.setraw(far)
    os.set_blocking(near, False)
    reader, writer = await asyncio.open_connection(HOST, port)

    def outgoing() -> None:
        with contextlib.suppress(OSError):
            writer.write(os.read(near, 512))

    async def incoming() -> None:
        while data := await reader.read(512):
            os.write(near, data)

    asyncio.get_running_loop().add_reader(near, outgoing)
    task = asyncio.ensure_future(incoming())
    try:
        yield os.ttyname(far)
    finally:
        asyncio.get_running_loop().remove_reader(near)
        task.cancel()
        writer.close()
        await asyncio.wait({task})
        os.close(near)
        os.close(far)


@pytest.mark.parametrize("wire", ["ascii-over-tcp", "udp", "ascii on a port"])
async def test_pymodbus_is_polled_and_a_refused_address_found(wire: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(served("udp" if wire == "udp" else "ascii"))
        if wire == "ascii on a port":
            path = await stack.enter_async_context(serial_server(port))
            given: dict[str, Any] = {"serial": path, "framing": "ascii", "baud": 115200}
            endpoint = f"modbus+ascii://{path}/unit/1"
        else:
            given = {"host": HOST, "port": port, "transport": wire}
            endpoint = f"modbus+{wire}://{HOST}:{port}/unit/1"
        spec = Spec(0).device(1, [holding(0), holding(39), holding(41)], timeout=2.0)
        link = LinkSpec("line", ModbusLinkSettings.model_validate(given), tuple(spec.devices))
        async with Running(ModbusAdapter(link)) as line:
            await line.until(lambda: len(line.rows(0)) >= 3 and len(line.rows(1)) >= 3 and line.rows(2))
            assert set(line.rows(0)) == {(100, 0)}
            assert set(line.rows(1)) == {(139, 0)}
            assert line.rows(2)[0][0] is None
            assert line.adapter.endpoint("unit-1") == endpoint
            assert (await line.adapter.read_registers(1, "holding", 5, 2))[1] == bytes((0, 105, 0, 106))


async def test_nobody_answers_datagrams() -> None:
    """A port that takes datagrams and says nothing, and one that does not exist."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (HOST, 0))
    port = transport.get_extra_info("sockname")[1]
    spec = Spec(port, settings={"transport": "udp"}).device(1, [holding(0)], timeout=0.1)
    adapter = ModbusAdapter(spec.build())
    with pytest.raises(TransientError) as silent:
        await adapter.connect()
    assert silent.value.reason == "no_answer"
    transport.close()
    await asyncio.sleep(0)
    with pytest.raises(TransientError) as refused:
        await ModbusAdapter(spec.build()).connect()
    assert refused.value.reason == "refused"
