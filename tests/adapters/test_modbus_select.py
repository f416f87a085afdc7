"""Registers that show what another one selects: function 23, where the configuration permits it, and never else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.modbus import ModbusAdapter
from adapters.modbus._frames import frame_log, tracer
from adapters.modbus._select import SelectRequest
from schemas.modbus import ModbusAddress, Select
from schemas.status import BAD_CONFIGURATION_ERROR, BAD_NODE_ID_UNKNOWN
from simulators.modbus.framing import tcp_frame
from tests.adapters.modbus_server import Running, Server, Spec, holding

RECORDS = {(0x200, 1): {a: 1000 + a for a in range(20)}, (0x200, 2): {a: 2000 + a for a in range(20)}}


def running(server: Server, addresses: list[ModbusAddress], *, writes: bool = True, **rules: Any) -> Running:
    spec = Spec(server.port, server.rtu).device(1, addresses, period=0.02, **rules)
    return Running(ModbusAdapter(replace(spec.build(), writes=writes)))


@pytest.mark.parametrize("rtu", [False, True])
async def test_values_of_several_records_never_mix(rtu: bool) -> None:
    addresses = [
        holding(4, select="0x200=1"), holding(4, select="0x200=2"), holding(4),
        holding(6, select="0x200=1"), holding(6, "uint32", select="0x200=2"),
    ]  # fmt: skip
    async with Server(rtu=rtu, records=RECORDS).holds(1, range(20)) as server, running(server, addresses) as line:
        await line.until(lambda: all(len(line.rows(point)) > 5 for point in range(5)))
        assert [set(line.rows(point)) for point in range(5)] == [
            {(1004, 0)}, {(2004, 0)}, {(4, 0)}, {(1006, 0)}, {(2006 << 16 | 2007, 0)},
        ]  # fmt: skip
        asked = {(ask.function, ask.selected, ask.address, ask.count) for ask in server.asks}
        assert asked == {(23, (0x200, 1), 4, 3), (23, (0x200, 2), 4, 4), (3, None, 4, 1)}
        samples = await line.adapter.read([0, 1])
        assert dict(zip(samples.points, samples.values, strict=True)) == {0: 1004, 1: 2004}


async def test_a_read_only_gateway_writes_no_selector() -> None:
    addresses = [holding(4, select="0x200=1"), holding(5)]
    async with Server(records=RECORDS).holds(1, range(20)) as server:
        async with running(server, addresses, writes=False) as line:
            await line.until(lambda: len(line.rows(1)) > 5)
            assert line.rows(0) == [(None, BAD_CONFIGURATION_ERROR)]
            assert "writes: enabled" in str(line.troubles(0)[0])
            samples = await line.adapter.read([0])
            assert samples.status == [BAD_CONFIGURATION_ERROR]
        assert {ask.function for ask in server.asks} == {3}


def test_the_log_of_frames_says_what_was_written() -> None:
    log = frame_log("mbap")
    request = SelectRequest(1, 0x210, 2, Select(address=0x200, value=3))
    tracer(log, lambda: 0)(True, tcp_frame(7, 1, b"\x17" + request.encode()))
    (frame,) = log.frames()
    assert "address 528, count 2, after writing 3 into address 512" in frame.meaning


async def test_what_a_record_does_not_have_is_refused_by_itself() -> None:
    records = {(0x200, 1): {a: a for a in range(20) if a != 6}, (0x200, 2): {a: a for a in range(20)}}
    addresses = [holding(a, select=f"0x200={record}") for record in (1, 2) for a in range(4, 10)]
    async with Server(records=records).holds(1, range(20)) as server, running(server, addresses) as line:
        await line.until(lambda: all(line.rows(point) for point in range(12)))
        assert line.rows(2) == [(None, BAD_NODE_ID_UNKNOWN)]
        assert "holding@0x0200=1" in str(line.troubles(2)[0])
        assert [line.rows(point)[0] for point in range(6, 12)] == [(a, 0) for a in range(4, 10)]


def test_how_it_is_written() -> None:
    assert holding(4, select="0x200=3").select == Select(address=0x200, value=3) == holding(4, select="512=3").select
    assert str(Select(address=512, value=3)) == "0x0200=3"
    for wrong in ("0x200", "x=1", "0x200=70000", "=3"):
        with pytest.raises(ValidationError):
            holding(4, select=wrong)
    with pytest.raises(ValidationError, match="another record"):  # read without its selector, it would be any record's
        holding(4, select="0x200=3", scale_by="holding 5")
    assert holding(4, select="0x200=3", scale_by="factor").scale_by is not None
    with pytest.raises(ValidationError, match="function 23"):
        ModbusAddress(table="input", address=4, select=Select(address=1, value=1))
