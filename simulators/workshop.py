"""The workshop: several simulated devices in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from simulators.device import Device, DeviceSettings, DeviceType, FaultArgument, FaultError
from simulators.registry import device_types
from simulators.truth import TruthLog

__all__ = ["BASE_PORT", "Workshop", "WorkshopError"]

BASE_PORT = 48400
COPY_PORTS = 100
"""Ports between one copy of a device and the next."""


class WorkshopError(Exception):
    """The workshop cannot be opened as asked; the message says why and what to do."""


class Workshop:
    """Simulated devices, started on entering and stopped on leaving::

    async with Workshop(["imm-01", "meter-01"], speed=10, truth_dir=tmp_path) as workshop:
        port = workshop.ports["imm-01"]
        await workshop.fault("imm-01", "slow", delay=0.5)
    """

    def __init__(
        self,
        devices: Sequence[str | DeviceType] | None = None,
        *,
        speed: float = 10.0,
        seed: int = 1,
        host: str = "127.0.0.1",
        truth_dir: Path | str | None = None,
        base_port: int | None = None,
        count: int = 1,
    ) -> None:
        """Prepare *devices* (ids of device types, all by default), each *count* times.

        Args:
            devices: such as ``["imm-01", "sew-line"]``; copies are named imm-02, imm-03 …. A device type that is none of the
                workshop's own, such as one made from a profile, is given itself.
            speed: process seconds a real second; timestamps are never accelerated.
            seed: what the processes do depends on it alone.
            host: address to bind.
            truth_dir: where each device writes ``<id>.ndjson``; no logs when it is ``None``.
            base_port: ports are counted from here (imm-01 has *base_port* + 1, its copies 100 more each); free ports
                when it is ``None``.
            count: how many of each device.

        Raises:
            WorkshopError: a device does not exist, or a number makes no sense.
        """
        self._types = self._chosen(devices)
        if count < 1:
            raise WorkshopError(f"count is {count}; it has to be at least 1")
        if not speed > 0:
            raise WorkshopError(f"speed is {speed}; it has to be greater than 0 (1 is real time)")
        self._speed = speed
        self._seed = seed
        self._host = host
        self._truth_dir = truth_dir
        self._base_port = base_port
        self._count = count
        self.devices: dict[str, Device] = {}
        """The running devices by id."""
        self.ports: dict[str, int] = {}
        """The port of each running device by id."""

    @staticmethod
    def _chosen(devices: Sequence[str | DeviceType] | None) -> list[DeviceType]:
        own = [device for device in devices or () if isinstance(device, DeviceType)]
        named = None if devices is None else [device for device in devices if isinstance(device, str)]
        if named == [] and own:
            return own  # the workshop's own types are not even imported
        types = device_types()
        unknown = [device for device in named or () if device not in types]
        if unknown:
            raise WorkshopError(f"there is no device {', '.join(unknown)}; there are {', '.join(types)}")
        return [*(kind for name, kind in types.items() if named is None or name in named), *own]

    async def __aenter__(self) -> Self:
        """Start all devices.

        Raises:
            WorkshopError: a port cannot be bound.
        """
        try:
            for kind in self._types:
                for number in range(1, self._count + 1):
                    await self._start(kind, number)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all devices."""
        await self.stop()

    async def _start(self, kind: DeviceType, number: int) -> None:
        name = kind.instance(number)
        port = 0 if self._base_port is None else self._base_port + kind.port + COPY_PORTS * (number - 1)
        if port > 65535:
            raise WorkshopError(f"{name} would have port {port}, beyond 65535: choose a lower --base-port or --count")
        try:
            truth = TruthLog.in_directory(self._truth_dir, name)
        except OSError as error:
            raise WorkshopError(
                f"the truth log of {name} cannot be written: {error}; choose another --truth"
            ) from error
        device = kind.create(DeviceSettings(name, truth, self._seed + number - 1, self._speed))
        try:
            self.ports[name] = await device.start(self._host, port)
        except OSError as error:
            truth.close()
            raise WorkshopError(
                f"{name} cannot listen on {self._host} port {port} ({error.strerror or error}): stop what listens "
                "there, or choose other ports with --base-port or another address with --host"
            ) from error
        self.devices[name] = device

    async def stop(self) -> None:
        """Stop all devices; may be called twice. An error of one does not keep the others from stopping."""
        errors: list[Exception] = []
        while self.devices:
            _, device = self.devices.popitem()
            try:
                await device.stop()
            except Exception as error:  # noqa: BLE001  # raised below, after the others have stopped
                errors.append(error)
        self.ports.clear()
        if errors:
            raise errors[0]

    async def fault(self, device: str, kind: str, **args: FaultArgument) -> None:
        """Let *device* misbehave; see :meth:`simulators.device.Device.fault`.

        Raises:
            FaultError: there is no such device or fault, or the arguments do not fit.
        """
        await self._device(device).fault(kind, **args)

    async def clear(self, device: str) -> None:
        """End all faults of *device*.

        Raises:
            FaultError: there is no such device.
        """
        await self._device(device).clear()

    def _device(self, name: str) -> Device:
        if name not in self.devices:
            raise FaultError(f"no device {name!r} is running; running are {', '.join(self.devices)}")
        return self.devices[name]
