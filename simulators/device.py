"""What every simulated device can do, whatever its protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from simulators.truth import TruthLog

__all__ = ["COMMON_FAULTS", "Device", "DeviceSettings", "DeviceType", "FaultArgument", "FaultError", "ProtocolName"]

ProtocolName: TypeAlias = Literal["opcua", "modbus-tcp", "modbus-rtu-over-tcp"]
FaultArgument: TypeAlias = str | int | float | bool

COMMON_FAULTS: Mapping[str, str] = {
    "off": "the port is closed and connections are cut",
    "half_open": "connections are accepted and never answered",
    "slow": "each answer is delayed by delay=SECONDS (default 1)",
}
"""The faults that every device knows, and what they do."""


class FaultError(ValueError):
    """A fault that the device does not know, or an argument it cannot use; the message says what is valid."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a factory needs to make one device.

    ``seed`` alone decides what the process does; ``speed`` is process seconds for each real second.
    """

    device: str
    truth: TruthLog
    seed: int = 1
    speed: float = 1.0


class Device(Protocol):
    """One simulated device: a server on one port."""

    @property
    def id(self) -> str:
        """Its id, such as ``imm-01``; also the name of its truth log."""
        ...

    @property
    def protocol(self) -> ProtocolName:
        """How to talk to it."""
        ...

    @property
    def endpoint(self) -> str:
        """Where it listens, as a client writes it (``opc.tcp://127.0.0.1:48401``, ``tcp://127.0.0.1:48411``)."""
        ...

    async def start(self, host: str, port: int) -> int:
        """Bind and serve until stopped; write ``up`` to the truth log.

        Returns: the bound port, which differs from *port* only when that is 0.
        Raises:
            OSError: the port cannot be bound (taken, not permitted).
        """
        ...

    async def stop(self) -> None:
        """Cut connections, free the port, write ``down``; within a second. May be called twice.

        The process and the log end with it; the device is not started again.
        """
        ...

    async def fault(self, kind: str, **args: FaultArgument) -> None:
        """Begin to misbehave; several faults may hold at once, and one given again replaces its arguments.

        Raises:
            FaultError: this device does not know *kind*, or *args* do not fit it.
        """
        ...

    async def clear(self) -> None:
        """End all faults; a port that was closed is bound again under the same number."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceType:
    """A device of the workshop: how its first instance is called, where it listens, and how one is made."""

    id: str
    """Id of the first instance, such as ``imm-01``."""
    protocol: ProtocolName
    port: int
    """Offset from the base port (1 means 48401 when the base port is 48400)."""
    summary: str
    """One line in English for ``--list``."""
    create: Callable[[DeviceSettings], Device]
    faults: Mapping[str, str] = field(default_factory=lambda: COMMON_FAULTS)
    """Every fault it knows with what it does: the common ones and its own."""

    def instance(self, number: int) -> str:
        """The id of instance *number*, counted from 1: ``imm-01``, ``imm-02``; ``sew-line``, ``sew-line-02``."""
        if number == 1:
            return self.id
        stem = self.id[:-3] if self.id.endswith("-01") else self.id
        return f"{stem}-{number:02d}"
