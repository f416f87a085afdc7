"""What devices teach about their registers is still known after a restart, and is doubted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.modbus import ModbusAdapter, _device
from schemas.status import BAD_NODE_ID_UNKNOWN
from tests.adapters.modbus_server import Running, Server, Spec, holding


def running(spec: Spec, state: Path) -> Running:
    return Running(ModbusAdapter(replace(spec.build(), state=state)))


def spec_of(server: Server, points: int = 30) -> Spec:
    return Spec(server.port).device(1, [holding(a) for a in range(points)], period=0.02)


async def test_a_refused_address_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Server().holds(1, range(40)) as server:
        for address in (7, 19):
            del server.memory[1, 3][address]
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
        server.asks.clear()
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
            assert line.rows(7) == line.rows(19) == [(None, BAD_NODE_ID_UNKNOWN)]
            assert "0x0007" in str(line.troubles(7)[0])
        bad = {7, 19}
        assert not any(bad & set(range(ask.address, ask.address + ask.count)) for ask in server.asks)


async def test_what_is_given_after_all_is_read_again_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_device, "PROBE_FIRST", 0.05)
    async with Server().holds(1, range(40)) as server:
        del server.memory[1, 3][7]
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: line.rows(7))
        assert os.listdir(tmp_path) == ["line.json"]
        server.holds(1, {7: 70})
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: (70, 0) in line.rows(7))
            assert line.troubles(7)[-1] is None
        assert os.listdir(tmp_path) == []


async def test_the_largest_read_and_borders_are_known_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server(max_registers=8).holds(1, range(40)) as server:
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
        server.asks.clear()
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
        assert max(ask.count for ask in server.asks) == 8
        monkeypatch.setattr("adapters.modbus._learned.KEPT_FOR", 0)
        server.asks.clear()
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
        assert max(ask.count for ask in server.asks) == 30


async def test_another_device_at_another_place_is_not_judged_by_it(tmp_path: Path) -> None:
    async with Server().holds(1, range(40)) as first, Server().holds(1, range(40)) as second:
        del first.memory[1, 3][7]
        async with running(spec_of(first), tmp_path) as line:
            await line.until(lambda: line.rows(7))
        async with running(spec_of(second), tmp_path) as line:
            await line.until(lambda: line.rows(7))
            assert line.rows(7)[0] == (7, 0)
            assert not line.troubles(7)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"unit-1": {"place": 3}}', b"\xff\xfe"])
async def test_a_broken_file_costs_nothing(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "line.json").write_bytes(data)
    async with Server().holds(1, range(40)) as server:
        async with running(spec_of(server), tmp_path) as line:
            await line.until(lambda: line.rows(7))
        assert line.rows(7)[0] == (7, 0)
    assert "line.json" in caplog.text


async def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with Server().holds(1, range(40)) as server:
        del server.memory[1, 3][7]
        async with running(spec_of(server), tmp_path / "file") as line:
            await line.until(lambda: all(line.rows(p) for p in range(30)))
