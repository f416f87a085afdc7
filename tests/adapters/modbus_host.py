"""The gateway's own host over a Modbus adapter, lines that misbehave, and the truth test against what servers say that they answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from adapters.contract import SystemClock
from adapters.modbus import ModbusAdapter, ModbusDeviceSettings, ModbusLinkSettings
from gateway.collect.items import DeviceStatus, Item
from gateway.collect.link import LinkHost
from gateway.config.plan import PlannedDevice, PlannedLink
from schemas.profile import ModbusAddress, ModbusRules
from tests.adapters.opcua_host import Host, Served, _briefly
from tests.collect.plans import INDEX, planned
from tests.servers.processes import HOST

Mangle = Callable[[bytes], bytes]
_CLOCKS = 5_000
"""Microseconds by which a server's process and ours may tell the time differently."""


def device(*addresses: ModbusAddress, unit: int = 1, period: float = 0.03, **rules: Any) -> PlannedDevice:
    """A device with a signal for each address, in one group."""
    made = planned([{"type": "int64"} for _ in addresses])
    signals = tuple(
        replace(s, address=address, point=i) for i, (s, address) in enumerate(zip(made.signals, addresses, strict=True))
    )
    return replace(
        made, signals=signals, first=0, settings=ModbusDeviceSettings(unit=unit),
        rules=ModbusRules(**{"timeout": 0.15, **rules}), groups={"default": period},
    )  # fmt: skip


class ModbusHost(Host):
    """`async with ModbusHost(device, host=…, port=…) as host:` collects, as the role does."""

    def __init__(self, device: PlannedDevice, **settings: Any) -> None:
        made = ModbusLinkSettings.model_validate({"timeout": 0.5, **settings})
        link = PlannedLink("link", "modbus", ModbusAdapter, made, (device,))
        self.items: list[Item] = []
        self.told: list[DeviceStatus] = []
        self.device = device
        self.clock = SystemClock()
        self.host = LinkHost(link, self, clock=self.clock, on_status=self.told.append, sleep=_briefly)

    def agree(self, served: Sequence[Served], *, until: int | None = None, signal: int = 0) -> int:
        """Both ways: each stored value was served before, and each that was served (time of the answer in µs, value that never comes
        again once it has changed) is stored, or lies in a gap. Returns how many lie in gaps.

        Compared is up to what the host says is complete, and to `until` (µs). Before the first stored value nothing was promised.
        """
        end = self.complete_to() if until is None else min(self.complete_to(), until)
        every = self.rows()[signal]
        rows = [row for row in every if until is None or row[0] <= until]
        assert rows, "nothing is stored"
        first_served: dict[Any, int] = {}
        for at, value in served:
            first_served.setdefault(value, at)
        for ts, value in rows:
            assert value in first_served, f"{value} at {ts} was never served"
            assert ts >= first_served[value] - _CLOCKS, f"{value} is stored at {ts}, before it was served"
        # what was answered just before `until` came just after it
        stored, begin = {value for _, value in every}, rows[0][0]
        missing = [(at, v) for at, v in served if begin <= at <= end and v not in stored]
        lost = [row for row in missing if not self._excused(signal, row[0])]
        assert not lost, f"{len(lost)} of {len(served)} served, not stored and in no gap: {lost[:5]}; {self.gaps()[:5]}"
        return len(missing)

    def _excused(self, signal: int, ts: int) -> bool:
        return any(
            gap.start - _CLOCKS <= ts <= gap.end + _CLOCKS and (gap.points is None or signal + INDEX in gap.points)
            for gap in self.gaps()
        )


class MangledTcp:
    """A TCP connection to a port of this machine whose answers go through `mangle`."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.mangle: Mangle = bytes
        self._target = port
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far: asyncio.StreamWriter | None = None
        up: asyncio.Task[None] | None = None
        try:
            answers, far = await asyncio.open_connection(HOST, self._target)
            up = asyncio.ensure_future(_copy(reader, far, bytes))
            await _copy(answers, writer, lambda data: self.mangle(data))
        except (OSError, asyncio.CancelledError):
            pass  # the end of either side is the end of both
        finally:
            if up is not None:
                up.cancel()
            for one in (writer, far):
                if one is not None:
                    one.transport.abort()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mangle: Mangle) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            writer.write(mangle(data))
    writer.transport.abort()


class MangledLine:
    """A serial line of two pseudo-terminals: the gateway opens `path`, the unit `far_path`; its answers go through `mangle`."""

    def __init__(self) -> None:
        self.mangle: Mangle = bytes
        self.path = self.far_path = ""
        self.cut = False
        """Nothing gets through, in either direction."""

    async def __aenter__(self) -> Self:
        self._ends = [self._open(), self._open()]
        self.path, self.far_path = (os.ttyname(slave) for _, slave in self._ends)
        (near, _), (far, _) = self._ends
        loop = asyncio.get_running_loop()
        loop.add_reader(near, self._pass, near, far, lambda data: data)
        loop.add_reader(far, self._pass, far, near, lambda data: self.mangle(data))
        return self

    async def __aexit__(self, *_: object) -> None:
        for master, slave in self._ends:
            asyncio.get_running_loop().remove_reader(master)
            os.close(master)
            os.close(slave)

    def say(self, data: bytes) -> None:
        """Bytes that the gateway hears."""
        os.write(self._ends[0][0], data)

    @staticmethod
    def _open() -> tuple[int, int]:
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        return master, slave

    def _pass(self, origin: int, goal: int, mangle: Mangle) -> None:
        with contextlib.suppress(OSError):
            data = os.read(origin, 512)
            if not self.cut and (data := mangle(data)):
                os.write(goal, data)
