"""The reference load: three copies of the simulated workshop, a thousand signals, with a line that can break before each device."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from schemas.model import parse_duration
from simulators.registry import device_types
from simulators.workshop import COPY_PORTS
from tests.chain.installation import DEAD_STATION, PROFILES, SIMULATED, STATIONS, Process, free_base_port
from tests.chain.served import Subject, profile
from tests.servers.processes import HOST

COPIES = 3
SLOWEST = 1.0
"""Seconds after which every group is read again, also the settings, so that a run need not wait a minute to know that it is over."""
SERIAL = ("meter-01", "temp-01", "press-01", "sew-line")
"""What speaks Modbus, and so would fit a serial line of 9600 baud."""


class Load:
    """The devices as one process. `truth` is the folder of their logs."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        copies: int = COPIES,
        speed: float = 10.0,
        devices: tuple[str, ...] = SIMULATED,
    ) -> None:
        self.truth = folder / "truth"
        self._types = {device: device_types()[device] for device in devices}
        self.simulators = {
            kind.instance(number): (device, number)
            for device, kind in self._types.items()
            for number in range(1, copies + 1)
        }
        base = free_base_port([self._offset(name) for name in self.simulators])
        self.ports = {name: base + self._offset(name) for name in self.simulators}
        command = [
            sys.executable, "-m", "simulators", "--devices", ",".join(devices), "--speed", str(speed), "--count", str(copies),
            "--seed", str(seed), "--base-port", str(base), "--truth", str(self.truth), "--end-with-stdin",
        ]  # fmt: skip
        self.process = Process("workshop", command, folder / "workshop.log", os.environ)

    def _offset(self, name: str) -> int:
        device, number = self.simulators[name]
        return self._types[device].port + COPY_PORTS * (number - 1)

    def start(self) -> None:
        """Returns when all devices serve."""
        self.process.start()
        child = self.process.child
        child.wait_until(lambda: any('"ready": "all"' in line for line in child.lines), 60, "all devices")

    def serial(self) -> list[str]:
        """The simulated devices that would fit a serial line."""
        return [name for name, (device, _) in self.simulators.items() if device in SERIAL]

    @property
    def subjects(self) -> list[Subject]:
        """What is compared: every device but the dead stations."""
        return [subject for subject in self._devices() if not subject.device.endswith(DEAD_STATION[-3:])]

    @property
    def dead(self) -> frozenset[str]:
        """Devices that never answer."""
        return frozenset(
            {subject.device for subject in self._devices()} - {subject.device for subject in self.subjects}
        )

    @property
    def subscribed(self) -> frozenset[str]:
        """Devices that send by themselves (OPC UA); all others are polled."""
        return frozenset(
            subject.device
            for subject in self._devices()
            if self._types[self.simulators[subject.simulator][0]].protocol == "opcua"
        )

    def _devices(self) -> list[Subject]:
        found = []
        for name, (device, number) in self.simulators.items():
            if device == "sew-line":
                found += [
                    Subject(f"sew-{number}-{unit:02}", PROFILES[device], name, unit) for unit in range(1, STATIONS + 1)
                ]
            else:
                found.append(Subject(name, PROFILES[device], name))
        return found

    def links(self, ports: dict[str, int]) -> list[dict[str, Any]]:
        """The `links` of the configuration; `ports` says where each simulated device is reached."""
        return [self._link(name, ports[name]) for name in self.simulators]

    def _link(self, name: str, port: int) -> dict[str, Any]:
        device, _ = self.simulators[name]
        model = PROFILES[device]
        groups = {
            group: {"period": SLOWEST}
            for group, told in profile(model)["groups"].items()
            if parse_duration(told["period"]) > SLOWEST
        }
        devices: list[dict[str, Any]] = []
        for subject in self._devices():
            if subject.simulator == name:
                devices.append({"id": subject.device, "profile": model, "groups": groups})
                if device == "sew-line":
                    devices[-1]["settings"] = {"unit": subject.unit}
        settings: dict[str, Any] = {"host": HOST, "port": port}
        protocol = self._types[device].protocol
        if protocol == "opcua":
            settings = {"endpoint": f"opc.tcp://{HOST}:{port}", "security": "none"}
        elif protocol == "modbus-rtu-over-tcp":
            settings["transport"] = "rtu-over-tcp"
        adapter = "opcua" if protocol == "opcua" else "modbus"
        return {"id": name, "adapter": adapter, "settings": settings, "devices": devices}
