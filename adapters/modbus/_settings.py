"""What a configuration says of a Modbus link and of a device on it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.bilingual import Bilingual
from schemas.model import Duration, Strict

Transport = Literal["tcp", "rtu-over-tcp"]
Baud = Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
Parity = Literal["N", "E", "O"]

_OF_SERIAL = ("baud", "parity", "stop")
_OF_NETWORK = ("port", "transport")


class ModbusLinkSettings(Strict):
    """One wire: a TCP connection (`host`) to a Modbus TCP device or gateway or to a serial server that passes RTU frames on, or a
    serial port of this machine (`serial`). Any number of devices share it."""

    host: str | None = Field(
        default=None, min_length=1, description="Name or address of the device, gateway or serial server."
    )
    port: int = Field(default=502, ge=1, le=65535)
    transport: Transport = Field(
        default="tcp",
        description="tcp: Modbus TCP frames (MBAP). rtu-over-tcp: serial frames with checksum in a TCP connection, as serial "
        "servers in transparent mode pass them on.",
    )
    serial: str | None = Field(
        default=None, pattern="^/dev/.",
        description="Instead of `host`: a serial port of this machine (Modbus RTU), best by its name under /dev/serial/by-id, which "
        "does not change when cables are moved.",
    )  # fmt: skip
    baud: Baud = Field(default=9600, description="Serial port: bits per second, as set at every device on the line.")
    parity: Parity = Field(default="N", description="Serial port: parity none (N), even (E) or odd (O).")
    stop: Literal[1, 2] = Field(default=1, description="Serial port: stop bits. Eight data bits always.")
    timeout: Duration = Field(default=3.0, gt=0, le=30, description="How long opening the connection may take.")
    pause: Duration = Field(
        default=0.0,
        description="Rest between two requests on this link, whichever unit they are for. On a serial port at least the 3.5 "
        "characters that the standard asks for.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host is None) == (self.serial is None):
            raise ValueError(
                Bilingual(
                    "a Modbus link needs either `host` (a network address) or `serial` (a port such as /dev/serial/by-id/…)",
                    "Modbus 链路需填写 `host`（网络地址）或 `serial`（串口，如 /dev/serial/by-id/…）之一",
                )
            )
        foreign = _OF_NETWORK if self.serial is not None else _OF_SERIAL
        for key in foreign:
            if key in self.model_fields_set:
                kind = ("serial", "串口") if self.serial is not None else ("host", "网络")
                raise ValueError(
                    Bilingual(
                        f"`{key}` does not belong to a link with `{kind[0]}`: leave it out",
                        f"`{key}` 不属于{kind[1]}链路（`{kind[0]}`）：请删除",
                    )
                )
        return self

    @property
    def rtu(self) -> bool:
        """Whether frames are RTU, with a checksum and without transaction numbers."""
        return self.serial is not None or self.transport == "rtu-over-tcp"

    @property
    def place(self) -> str:
        """Where the link goes, as people write it: `192.168.1.20:502`, or the path of the serial port."""
        return self.serial if self.serial is not None else f"{self.host}:{self.port}"


class ModbusDeviceSettings(Strict):
    """One unit on the link. Limits, gaps, pauses and time-outs are rules: the profile's, overridden by the device's `rules`."""

    unit: int = Field(
        default=1, ge=0, le=255,
        description="Unit identifier (station number). On Modbus TCP without a gateway often 1, 0 or 255; on a serial line 1 to 247.",
    )  # fmt: skip
