"""The Modbus adapter: `adapters.contract.Adapter` over one TCP connection or serial port with any number of units."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import BaseModel

from adapters.contract import BrowseNode, Counters, Item, LineLoad, LinkSpec, Samples, WritesDisabledError
from adapters.modbus._device import Device
from adapters.modbus._errors import bad_model, bad_unit, no_browse, not_connected, unknown_points
from adapters.modbus._harvest import refusal
from adapters.modbus._learned import Memory
from adapters.modbus._line import Line
from adapters.modbus._link import Link
from adapters.modbus._load import FULL_FIX_EN, FULL_FIX_ZH, expected
from adapters.modbus._opening import ClosingError
from adapters.modbus._read import read_once, read_plain
from adapters.modbus._settings import ModbusDeviceSettings, ModbusLinkSettings
from schemas.profile import ModbusAddress, ModbusRules


class ModbusAdapter:
    """Polls the units of one Modbus TCP, RTU-over-TCP or serial link.

    One `Samples` for each response, all its points with one `received`; `complete_to` is set on the last of a scan of a group. A
    unit that does not answer is a `DeviceState`, and asked again after 1 to 60 s; only the loss of the connection, or the
    silence of every unit, is a TransientError, before which each device that was up is told down, backdated to its last answer. There
    are no tokens: what a poll missed, no device can repeat.
    """

    protocol: ClassVar[str] = "modbus"
    LinkSettings: ClassVar[type[BaseModel]] = ModbusLinkSettings
    DeviceSettings: ClassVar[type[BaseModel]] = ModbusDeviceSettings
    Address: ClassVar[type[BaseModel]] = ModbusAddress
    Rules: ClassVar[type[BaseModel]] = ModbusRules

    def __init__(self, spec: LinkSpec) -> None:
        """Plans the reads. Raises ConfigError; a single point that cannot be read is told by `items` instead."""
        if not isinstance(spec.settings, ModbusLinkSettings):
            raise bad_model(f"link {spec.id}: settings", spec.settings, ModbusLinkSettings)
        self._settings = spec.settings
        self._clock = spec.clock
        units = {device.settings.unit for device in spec.devices if isinstance(device.settings, ModbusDeviceSettings)}
        # several units on a TCP connection are those of a gateway, and a serial line is behind it
        alone = spec.settings.frames == "mbap" and len(units) == 1
        self._devices = {device.id: Device(device, writes=spec.writes, alone=alone) for device in spec.devices}
        if spec.settings.rtu:
            for device in self._devices.values():
                if device.unit == 0:
                    raise bad_unit(device.id, device.unit)
        self._link = Link(spec.settings, spec.clock)
        self.frames = self._link.frames
        self._line = Line(spec.settings, self._link, list(self._devices.values()), spec.clock)
        if spec.state is not None:
            places = {name: self.endpoint(name) for name in self._devices}
            memory = Memory(spec.state / f"{spec.id}.json", places, spec.clock)
            memory.recall(self._devices)
            self._line.call_when_taught(lambda: memory.save(self._devices))
        self._device_of = {point: device for device in self._devices.values() for point in device.addresses}

    async def connect(self) -> None:
        """Opens the connection and waits for the first unit that answers. Raises TransientError."""
        try:
            await self._link.open()
            await self._line.probe()
        except ClosingError:
            raise not_connected(self._settings) from None
        except BaseException:  # also when cancelled: no connection may stay open behind a connect that failed
            self._link.close()
            raise

    def items(self) -> AsyncIterator[Item]:
        """Polls until `disconnect`. May be called again on the same connection; every scan then begins anew."""
        return self._line.run()

    def ack(self, token: Hashable) -> None:
        """Does nothing: there are no tokens."""

    async def disconnect(self) -> None:
        """Closes the connection at once; an answer under way is not waited for."""
        self._link.close()
        self._line.wake()

    async def read(self, points: Sequence[int]) -> Samples:
        """Reads these points of one device between the requests of the schedule. Raises TransientError, ConfigError.

        A unit that does not answer gives the status BadNoCommunication.
        """
        devices = {self._device_of.get(point) for point in points}
        device = devices.pop() if len(devices) == 1 else None
        if device is None:
            raise unknown_points(list(points))
        try:
            return await read_once(self._link, device, points, self._clock)
        except ClosingError:
            raise not_connected(self._settings) from None

    async def read_registers(
        self, unit: int, table: str, address: int, count: int, *, timeout: float = 1.0
    ) -> tuple[int, bytes, int]:
        """Any registers or bits of any unit of the line once, between the requests of the schedule: a second connection beside
        this one, or a second master on the line behind it, is what many devices do not bear.

        Returns the exception code (0: none), the bytes as received, and when (µs). Raises TransientError where the unit does not
        answer within `timeout` seconds, or the link is not open.
        """
        try:
            return await read_plain(self._link, self._settings, unit, table, address, count, timeout)
        except ClosingError:
            raise not_connected(self._settings) from None

    def refused(self, device: str) -> list[str]:
        """The addresses that a device is known to refuse, also from before a restart, each with the exception (`Bilingual`)."""
        return [
            refusal(table, start, size, found.code)
            for (table, (start, size)), found in sorted(self._devices[device].refused.items())
        ]

    def reads_at(self, settings: object) -> bool:
        """Whether these are settings of the very place that this link has its connection to."""
        own = self._settings
        if not isinstance(settings, ModbusLinkSettings):
            return False
        if own.serial is not None and settings.serial is not None:
            return os.path.realpath(settings.serial) == os.path.realpath(own.serial)
        if own.listen is not None:
            return settings.listen is not None and settings.place == own.place
        same = settings.port == own.port and settings.datagrams == own.datagrams
        return same and bool(set(settings.hosts) & set(own.hosts))

    async def write(self, point: int, value: Any) -> None:
        """Raises WritesDisabledError: this adapter does not write."""
        raise WritesDisabledError(f"write of point {point}")

    def browse(self, node: str | None = None, *, depth: int = 1) -> AsyncIterator[BrowseNode]:
        """Raises ConfigError: Modbus has no model to browse."""
        raise no_browse()

    def endpoint(self, device: str) -> str:
        """`modbus+tcp://192.168.1.21:502/unit/1` (WoT binding's form), for serial frames `modbus+rtu-over-tcp://…`, for a
        port `modbus+rtu:///dev/serial/by-id/…/unit/1`, for one who dials in `modbus+tcp+listen://0.0.0.0:5020/DTU0001/unit/1`."""
        settings = self._settings
        if settings.listen is not None:
            who = quote(settings.listen.registration, safe="")
            return (
                f"modbus+{settings.transport}+listen://{settings.listen.bind}:{settings.listen.port}/{who}"
                f"/unit/{self._devices[device].unit}"
            )
        if settings.host is None:
            return f"modbus+{settings.framing}://{settings.serial}/unit/{self._devices[device].unit}"
        first = settings.hosts[0]
        host = f"[{first}]" if ":" in first else first
        return f"modbus+{settings.transport}://{host}:{settings.port}/unit/{self._devices[device].unit}"

    def counters(self) -> Counters:
        """Running totals; errors by kind: timeout, malformed, short, closed, connect, exception_2 and so on."""
        link, line = self._link, self._line
        return Counters(link.requests, dict(link.errors), line.overruns, line.values, link.busy, line.load)

    def expected_load(self) -> LineLoad | None:
        """Of a serial line, by its speed, the lengths of the frames, the silences and the pauses."""
        load = expected(self._settings, self._devices.values())
        if load is None:
            return None
        fits = load.fits is None
        return LineLoad(load.share, fits, load.text, "" if fits else FULL_FIX_EN, "" if fits else FULL_FIX_ZH)
