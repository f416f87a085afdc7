"""The simulated Modbus devices as servers: read by pymodbus and by raw frames, compared with their truth logs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.device import Device, DeviceSettings, FaultError
from simulators.modbus import DEAD_UNITS, FACTORIES, MAPS, PROFILES, decode, sentinel_of, width
from simulators.modbus.device import ModbusDevice
from simulators.modbus.framing import rtu_frame, rtu_intact, tcp_frame
from simulators.modbus.press import create_press
from simulators.truth import TruthLog, now_us, read_truth
from tests.servers.waiting import eventually_async

HOST = "127.0.0.1"
METER = {entry.name: entry for entry in MAPS["eastron-sdm630"]}
TEMPERATURE = {entry.name: entry for entry in MAPS["delta-dtb"]}
PRESS = {entry.name: entry for entry in MAPS["generic-dio8-counter"]}
SEWING = {entry.name: entry for entry in MAPS["generic-sewing-station"]}


class Bench:
    """One device on a free port, its truth, and clients for it."""

    def __init__(self, device: Device, truth: Path) -> None:
        self.device = device
        self.port = 0
        self._truth = truth
        self._clients: list[AsyncModbusTcpClient] = []
        self._writers: list[asyncio.StreamWriter] = []

    def truth(self, *kinds: str) -> list[dict[str, Any]]:
        return [record for record in read_truth(self._truth) if not kinds or record["kind"] in kinds]

    async def client(self, timeout: float = 2.0) -> AsyncModbusTcpClient:
        framer = FramerType.SOCKET if self.device.protocol == "modbus-tcp" else FramerType.RTU
        client = AsyncModbusTcpClient(
            HOST, port=self.port, framer=framer, timeout=timeout, retries=0, reconnect_delay=0
        )
        assert await client.connect()
        self._clients.append(client)
        return client

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for writer in self._writers:
            writer.close()
        await self.device.stop()


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    name: str = request.param
    log = TruthLog.in_directory(tmp_path, name)
    device = FACTORIES[name].create(DeviceSettings(name, log, seed=1, speed=20.0))
    bench = Bench(device, tmp_path / f"{name}.ndjson")
    bench.port = await device.start(HOST, 0)
    yield bench
    await bench.close()


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", names, indirect=True)


def _read(function: int, address: int, count: int) -> bytes:
    return struct.pack(">BHH", function, address, count)


def _port_of(server: ModbusTcpServer) -> int:
    listener = server.transport
    assert isinstance(listener, asyncio.Server)
    return int(listener.sockets[0].getsockname()[1])


async def _receive(reader: asyncio.StreamReader, size: int, timeout: float = 5.0) -> bytes:
    async with asyncio.timeout(timeout):
        return await reader.readexactly(size)


# ------------------------------------------------------------------------------------------------------------ every one


@on(*FACTORIES)
async def test_every_value_of_the_map_is_served_and_every_answer_is_in_the_truth(bench: Bench) -> None:
    client = await bench.client()
    readers = {
        "input": client.read_input_registers,
        "holding": client.read_holding_registers,
        "discrete": client.read_discrete_inputs,
    }
    for entry in MAPS[PROFILES[bench.device.id]]:
        before = now_us()
        answer = await readers[entry.table](entry.address, count=width(entry), device_id=1)
        assert not answer.isError(), (entry, answer)
        got = [int(bit) for bit in answer.bits[:1]] if entry.table == "discrete" else answer.registers
        record = bench.truth("answer")[-1]
        assert (record["device"], record["unit"]) == (bench.device.id, 1)
        assert (record["address"], record["count"]) == (entry.address, width(entry))
        assert record["bits" if entry.table == "discrete" else "registers"] == got
        assert before <= record["t"] <= now_us()
        assert decode(entry, got) is not None or sentinel_of(entry, got)
    assert len(bench.truth("answer")) == len(MAPS[PROFILES[bench.device.id]])
    assert bench.truth("exception") == []


@on(*FACTORIES)
async def test_what_is_not_there_is_refused_with_the_right_code(bench: Bench) -> None:
    client = await bench.client()
    hole = await client.read_holding_registers(0x7000, count=1, device_id=1)
    has_holding = bench.device.id != "meter-01"
    assert hole.exception_code == (2 if has_holding else 1)
    assert (await client.read_coils(0, count=1, device_id=1)).exception_code == 1
    assert (await client.write_register(0, 1, device_id=1)).exception_code == 1
    assert [(record["function"], record["code"]) for record in bench.truth("exception")] == [
        (3, 2 if has_holding else 1), (1, 1), (6, 1),
    ]  # fmt: skip


@on(*FACTORIES)
async def test_off_cuts_and_closes_and_clear_brings_the_same_port_back(bench: Bench) -> None:
    reader, _ = await bench.raw()
    await bench.device.fault("off")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await _receive(reader, 1)
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, bench.port)
    await bench.device.clear()
    await bench.client()
    assert [record["kind"] for record in bench.truth()] == ["up", "down", "up"]


@on("meter-01", "sew-line")
async def test_half_open_accepts_and_says_nothing(bench: Bench) -> None:
    await bench.device.fault("half_open")
    client = await bench.client(timeout=0.3)
    with pytest.raises(ModbusIOException):
        await client.read_input_registers(0, count=2, device_id=1)
    assert bench.truth("answer", "exception") == []
    await bench.device.clear()
    client = await bench.client()
    assert (await client.read_holding_registers(0, count=2, device_id=1)).function_code in (0x83, 3)


@on("press-01")
async def test_stop_writes_down_frees_the_port_and_may_be_called_twice(bench: Bench) -> None:
    await bench.device.stop()
    await bench.device.stop()
    assert bench.truth()[-1]["kind"] == "down"
    server = await asyncio.start_server(lambda _reader, _writer: None, HOST, bench.port)
    server.close()
    await server.wait_closed()


async def test_a_port_that_is_taken_is_an_error() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    device = FACTORIES["meter-01"].create(DeviceSettings("meter-01", TruthLog(None, "meter-01")))
    with pytest.raises(OSError):
        await device.start(HOST, port)
    await device.stop()
    server.close()
    await server.wait_closed()


@on("meter-01")
@pytest.mark.parametrize(
    ("kind", "args", "says"),
    [
        ("sentinel", {}, r"meter-01 does not know the fault 'sentinel'; it knows off, half_open"),
        ("silent", {"unit": 9}, r"meter-01 has no unit 9; it has \[1\]"),
        ("hole", {}, r"hole: needs address=N"),
        ("hole", {"address": "12x"}, r"address='12x' is not a whole number such as 3 or 0x1000"),
        ("late", {"delay": "soon"}, r"delay='soon' is not a number of seconds"),
        ("slow", {"depay": 1}, r"slow: does not know depay"),
        ("exception", {"code": 300}, r"code=300 is not a byte"),
        ("off", {"now": True}, r"off: does not know now"),
    ],
)
async def test_a_wrong_fault_says_what_is_valid(bench: Bench, kind: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(FaultError, match=says):
        await bench.device.fault(kind, **args)


# --------------------------------------------------------------------------------------------------------------- faults


@on("meter-01")
async def test_exception_here_and_there(bench: Bench) -> None:
    client = await bench.client()
    await bench.device.fault("exception", code=6, address="0x46")
    assert (await client.read_input_registers(0x46, count=2, device_id=1)).exception_code == 6
    assert (await client.read_input_registers(0x42, count=4, device_id=1)).exception_code == 2  # the hole at 0x44
    assert not (await client.read_input_registers(0x48, count=2, device_id=1)).isError()
    await bench.device.fault("exception")
    assert (await client.read_input_registers(0x48, count=2, device_id=1)).exception_code == 4
    await bench.device.clear()
    assert not (await client.read_input_registers(0x46, count=2, device_id=1)).isError()


@on("sew-line")
async def test_hole_and_silence_of_one_unit_leave_the_others_alone(bench: Bench) -> None:
    client = await bench.client(timeout=0.5)
    await bench.device.fault("hole", address=4, unit=2)
    assert (await client.read_holding_registers(0, count=6, device_id=2)).exception_code == 2
    assert not (await client.read_holding_registers(0, count=4, device_id=2)).isError()
    assert not (await client.read_holding_registers(0, count=6, device_id=3)).isError()
    await bench.device.fault("silent", unit=3)
    with pytest.raises(ModbusIOException):
        await client.read_holding_registers(0, count=6, device_id=3)
    assert not (await client.read_holding_registers(0, count=6, device_id=1)).isError()


@on("meter-01", "press-01")
async def test_short_answers_lack_their_end_and_are_not_in_the_truth_as_answers(bench: Bench) -> None:
    await bench.device.fault("short", bytes=3)
    tcp = bench.device.protocol == "modbus-tcp"
    reader, writer = await bench.raw()
    pdu = _read(4, 0, 2)
    writer.write(tcp_frame(1, 1, pdu) if tcp else rtu_frame(1, pdu))
    full = 7 + 2 + 4 if tcp else 1 + 2 + 4 + 2
    received = await _receive(reader, full - 3)
    (record,) = bench.truth("short")
    assert bytes.fromhex(record["frame"]["bytes"]) == received
    assert bench.truth("answer") == []
    if not tcp:
        assert not rtu_intact(received)


@on("sew-line")
async def test_a_late_answer_meets_the_next_request(bench: Bench) -> None:
    await bench.device.fault("late", delay=0.3, unit=1)
    reader, writer = await bench.raw()
    writer.write(rtu_frame(1, _read(3, 0, 2)))
    writer.write(rtu_frame(2, _read(3, 0, 4)))
    second = await _receive(reader, 3 + 8 + 2)
    stale = await _receive(reader, 3 + 4 + 2)
    assert (second[0], stale[0]) == (2, 1)
    assert rtu_intact(second)
    assert rtu_intact(stale)
    answers = bench.truth("answer")
    assert [(record["unit"], record.get("late")) for record in answers] == [(2, None), (1, 300_000)]


@on("temp-01")
async def test_a_late_answer_that_nobody_waits_for_is_not_in_the_truth(bench: Bench) -> None:
    await bench.device.fault("late", delay=0.2)
    _, gone = await bench.raw()
    gone.write(tcp_frame(1, 1, _read(3, 0x1000, 2)))
    await gone.drain()
    gone.close()
    await gone.wait_closed()
    reader, writer = await bench.raw()
    writer.write(tcp_frame(2, 1, _read(3, 0x1001, 1)))
    await _receive(reader, 7 + 2 + 2)  # was asked later, so the other's time is over as well
    assert [record["address"] for record in bench.truth("answer")] == [0x1001]


@on("temp-01")
async def test_slow_delays_each_answer(bench: Bench) -> None:
    await bench.device.fault("slow", delay=0.25)
    client = await bench.client()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert not (await client.read_holding_registers(0x1000, count=2, device_id=1)).isError()
    assert loop.time() - begin >= 0.25


# ------------------------------------------------------------------------------------------------------------ the meter


@on("meter-01")
async def test_the_meter_refuses_what_the_document_says(bench: Bench) -> None:
    client = await bench.client()
    block = await client.read_input_registers(0x00, count=44, device_id=1)  # 0x00 to 0x2A, without a hole
    assert len(block.registers) == 44
    assert (await client.read_input_registers(0x00, count=46, device_id=1)).exception_code == 2  # 0x2C is a hole
    assert (await client.read_input_registers(0x01, count=2, device_id=1)).exception_code == 2  # cuts a value
    assert (await client.read_input_registers(0x00, count=1, device_id=1)).exception_code == 2
    assert len((await client.read_input_registers(0x14E, count=48, device_id=1)).registers) == 48
    assert (await client.read_input_registers(0x00, count=82, device_id=1)).exception_code == 3  # over 40 values
    assert (await client.read_input_registers(0x00, count=80, device_id=1)).exception_code == 2  # 40, but with holes
    assert (await client.read_input_registers(0x00, count=2, device_id=2)).exception_code == 0x0B


@on("meter-01")
async def test_the_meters_values_agree_with_each_other(bench: Bench) -> None:
    client = await bench.client()
    registers = (await client.read_input_registers(0x00, count=44, device_id=1)).registers

    def value(name: str) -> float:
        entry = METER[name]
        found = decode(entry, registers[entry.address : entry.address + 2])
        assert found is not None
        return found

    for line in ("l1", "l2", "l3"):
        apparent = value(f"voltage/{line}") * value(f"current/{line}")
        assert value(f"power/apparent/{line}") == pytest.approx(apparent, rel=1e-5)
        assert value(f"power/active/{line}") == pytest.approx(apparent * value(f"power_factor/{line}"), rel=1e-5)
    mean = sum(value(f"voltage/l{phase}") for phase in (1, 2, 3)) / 3
    assert value("voltage/average") == pytest.approx(mean, rel=1e-6)


@on("meter-01")
async def test_energy_rises_and_a_reset_is_seen(bench: Bench) -> None:
    client = await bench.client()

    async def energy() -> float:
        answer = await client.read_input_registers(0x48, count=2, device_id=1)
        found = decode(METER["energy/active/import"], answer.registers)
        assert found is not None
        return found

    first = await energy()
    assert first > 80_000

    async def risen() -> bool:
        now = await energy()
        assert now >= first
        return now > first

    await eventually_async(risen, what="the energy rises")
    await bench.device.fault("reset")
    assert await energy() < 1.0


async def test_pymodbus_own_server_with_the_meters_map_gives_the_same_answers() -> None:
    """Keeps our server honest: what it says of a map is what a library that is not ours says of it."""
    device = FACTORIES["meter-01"].create(DeviceSettings("meter-01", TruthLog(None, "meter-01"), speed=0.0))
    our_port = await device.start(HOST, 0)
    assert isinstance(device, ModbusDevice)
    memory = device.instrument.units[1]
    data = []
    for entry in METER.values():
        words = [word for place in range(2) if (word := memory.word("input", entry.address + place)) is not None]
        assert len(words) == 2
        data.append(SimData(entry.address, values=words, datatype=DataType.REGISTERS))
    theirs = ModbusTcpServer([SimDevice(1, data)], address=(HOST, 0))
    await theirs.serve_forever(background=True)
    their_port = _port_of(theirs)

    requests = [_read(4, address, count) for address, count in
                [(0, 2), (0, 44), (0x2A, 4), (0x2C, 2), (0x46, 20), (0x48, 12), (0xC8, 8), (0x14E, 48), (0x17C, 2),
                 (0x17E, 2), (0xFFFE, 2), (0x64, 8)]]  # fmt: skip
    ours: list[bytes] = []
    reference: list[bytes] = []
    for port, answers in ((our_port, ours), (their_port, reference)):
        reader, writer = await asyncio.open_connection(HOST, port)
        for number, request in enumerate(requests):
            writer.write(tcp_frame(number, 1, request))
            head = await _receive(reader, 6)
            answers.append(head + await _receive(reader, int.from_bytes(head[4:6], "big")))
        writer.close()
        await writer.wait_closed()
    await theirs.shutdown()  # type: ignore[no-untyped-call]
    await device.stop()
    assert ours == reference
    assert {answer[7] for answer in ours} == {0x04, 0x84}  # values as well as refusals


# ------------------------------------------------------------------------------------------- the temperature controller


@on("temp-01")
async def test_the_controller_bears_eight_words_and_sixteen_bits(bench: Bench) -> None:
    client = await bench.client()
    assert len((await client.read_holding_registers(0x1000, count=8, device_id=1)).registers) == 8
    assert (await client.read_holding_registers(0x1000, count=9, device_id=1)).exception_code == 3
    assert (await client.read_holding_registers(0x1018, count=2, device_id=1)).exception_code == 2
    assert (await client.read_discrete_inputs(0x0800, count=15, device_id=1)).bits[5] is True  # °C
    assert (await client.read_discrete_inputs(0x0800, count=17, device_id=1)).exception_code == 3


@on("temp-01")
async def test_every_fault_word_in_its_turn(bench: Bench) -> None:
    client = await bench.client()
    entry = TEMPERATURE["temperature/actual"]

    async def registers() -> list[int]:
        answer = await client.read_holding_registers(entry.address, count=1, device_id=1)
        return list(answer.registers)

    assert sentinel_of(entry, await registers()) == "initial process: no temperature yet"  # right after power on

    async def measured() -> bool:
        return decode(entry, await registers()) is not None

    await eventually_async(measured, what="a first temperature")
    for word in (0x8003, 0x8004, 0x8006, 0x8007):
        await bench.device.fault("sentinel", value=hex(word))
        assert await registers() == [word]
        assert decode(entry, [word]) is None
        alarm = await client.read_discrete_inputs(0x0807, count=1, device_id=1)
        assert alarm.bits[0] is True
    with pytest.raises(FaultError, match="0x8005 is not a fault of this controller"):
        await bench.device.fault("sentinel", value=0x8005)
    await bench.device.clear()
    assert await measured()


@on("temp-01")
async def test_the_oven_warms_up_before_ones_eyes(bench: Bench) -> None:
    client = await bench.client()

    async def degrees() -> float:
        answer = await client.read_holding_registers(0x1000, count=1, device_id=1)
        return decode(TEMPERATURE["temperature/actual"], answer.registers) or 0.0

    async def warm() -> bool:
        return await degrees() > 50.0

    await eventually_async(warm, timeout=10.0, what="the oven is above 50 °C")
    output = await client.read_holding_registers(0x1012, count=1, device_id=1)
    assert decode(TEMPERATURE["output/heating"], output.registers) == 100.0
    led = await client.read_holding_registers(0x102A, count=1, device_id=1)
    assert decode(TEMPERATURE["output/heating_on"], led.registers) is True
    assert decode(TEMPERATURE["alarm/1/active"], led.registers) is True  # far below the set point


# ------------------------------------------------------------------------------------------------------------ the press


@on("press-01")
async def test_strokes_are_counted_across_the_roll_over(bench: Bench) -> None:
    client = await bench.client()
    assert isinstance(bench.device, ModbusDevice)
    seen: list[int] = []
    for _ in range(60):
        answer = await client.read_input_registers(0, count=2, device_id=1)
        count = decode(PRESS["cycle/count"], answer.registers)
        assert isinstance(count, int)
        seen.append(count)
        bench.device.instrument.advance(20.0)
    falls = [(old, new) for old, new in pairwise(seen) if new < old]
    assert len(falls) == 1  # shortly after 65,535, and never again within twenty minutes
    assert falls[0][0] > 65_500
    assert falls[0][1] < 30
    gains = [(new - old) % 65_536 for old, new in pairwise(seen)]
    assert all(0 <= gain <= 14 for gain in gains)  # no more than 20 s bear
    assert sum(gains) > 200


@on("press-01")
async def test_the_press_module_has_eight_inputs_and_no_more(bench: Bench) -> None:
    client = await bench.client()
    answer = await client.read_discrete_inputs(0, count=8, device_id=1)
    assert len(answer.bits) == 8
    assert answer.bits[7] is False  # the spare
    assert (await client.read_discrete_inputs(0, count=9, device_id=1)).exception_code == 3
    assert (await client.read_discrete_inputs(7, count=2, device_id=1)).exception_code == 2
    modes = await client.read_holding_registers(0x100, count=8, device_id=1)
    assert modes.registers == [1, 0, 0, 0, 0, 0, 0, 0]


@on("press-01", "sew-line")
async def test_a_frame_in_pieces_is_one_frame_and_a_broken_one_none(bench: Bench) -> None:
    reader, writer = await bench.raw()
    frame = rtu_frame(1, _read(3, 0x100, 1) if bench.device.id == "press-01" else _read(3, 0, 1))
    for byte in frame:
        writer.write(bytes((byte,)))
        await writer.drain()
    assert rtu_intact(await _receive(reader, 7))
    writer.write(frame[:-1] + bytes((frame[-1] ^ 0xFF,)))  # a wrong checksum: the slave says nothing
    await writer.drain()
    with pytest.raises(TimeoutError):
        await _receive(reader, 1, timeout=0.4)
    writer.write(frame)
    assert rtu_intact(await _receive(reader, 7))
    assert len(bench.truth("answer")) == 2


@on("press-01")
async def test_silence_ends_a_request_of_a_function_that_nobody_knows(bench: Bench) -> None:
    reader, writer = await bench.raw()
    writer.write(rtu_frame(1, b"\x63\x01\x02"))
    assert await _receive(reader, 5) == rtu_frame(1, b"\xe3\x01")


@on("meter-01", "press-01")
async def test_rubbish_harms_nobody(bench: Bench) -> None:
    rng = random.Random(20)
    for size in (1, 5, 7, 8, 40, 300):
        _, writer = await bench.raw()
        for _ in range(10):
            writer.write(rng.randbytes(size))
        with contextlib.suppress(ConnectionError):  # what is not Modbus may be hung up on
            await writer.drain()
    client = await bench.client()
    assert not (await client.read_input_registers(0, count=2, device_id=1)).isError()


async def test_bytes_cost_time_on_a_line_with_a_baud_rate() -> None:
    settings = DeviceSettings("press-01", TruthLog(None, "press-01"))
    device = create_press(settings, baud=2400)
    port = await device.start(HOST, 0)
    reader, writer = await asyncio.open_connection(HOST, port)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    writer.write(rtu_frame(1, _read(4, 0, 16)))
    await _receive(reader, 5 + 32)
    assert loop.time() - begin >= (8 + 37) * 11 / 2400
    writer.close()
    await writer.wait_closed()
    await device.stop()


# -------------------------------------------------------------------------------------------------------- the sewing line


@on("sew-line")
async def test_five_stations_answer_and_the_dead_one_never_does(bench: Bench) -> None:
    client = await bench.client(timeout=0.4)
    for unit in range(1, 7):
        if unit in DEAD_UNITS:
            with pytest.raises(ModbusIOException):
                await client.read_holding_registers(0, count=14, device_id=unit)
        else:
            answer = await client.read_holding_registers(0, count=14, device_id=unit)
            assert len(answer.registers) == 14
            thermometer = sentinel_of(SEWING["needle/temperature"], answer.registers[12:13])
            assert (thermometer is not None) == (unit in (3, 6))
    assert [record["unit"] for record in bench.truth("answer")] == [1, 2, 3, 5, 6]


@on("sew-line")
async def test_counters_have_their_low_word_first(bench: Bench) -> None:
    client = await bench.client()
    answer = await client.read_holding_registers(2, count=2, device_id=1)
    stitches = decode(SEWING["stitches"], answer.registers)
    kind = client.DATATYPE.UINT32
    assert stitches == client.convert_from_registers(answer.registers, kind, word_order="little")
    assert isinstance(stitches, int)
    assert stitches > 4_294_960_000  # unit 1 stands shortly before its roll-over


@on("sew-line")
async def test_two_masters_share_the_line_one_request_at_a_time(bench: Bench) -> None:
    await bench.device.fault("slow", delay=0.15)
    first, second = await bench.client(), await bench.client()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    answers = await asyncio.gather(
        first.read_holding_registers(0, count=14, device_id=1), second.read_holding_registers(0, count=14, device_id=2)
    )
    assert loop.time() - begin >= 0.3
    assert not any(answer.isError() for answer in answers)


@on("sew-line")
async def test_pipelined_requests_are_answered_in_their_order(bench: Bench) -> None:
    reader, writer = await bench.raw()
    writer.write(b"".join(rtu_frame(unit, _read(3, 13, 1)) for unit in (1, 5, 2)))
    answer = await _receive(reader, 21)
    assert [answer[place] for place in (0, 7, 14)] == [1, 5, 2]
