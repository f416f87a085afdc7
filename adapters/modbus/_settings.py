"""What a configuration says of a Modbus link and of a device on it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.model import Duration, Strict

Transport = Literal["tcp", "rtu-over-tcp"]


class ModbusLinkSettings(Strict):
    """One TCP connection: to a Modbus TCP device or gateway, or to a serial server that passes RTU frames on."""

    host: str = Field(min_length=1, description="Name or address of the device, gateway or serial server.")
    port: int = Field(default=502, ge=1, le=65535)
    transport: Transport = Field(
        default="tcp",
        description="tcp: Modbus TCP frames (MBAP). rtu-over-tcp: serial frames with checksum in a TCP connection, as serial "
        "servers in transparent mode pass them on.",
    )
    timeout: Duration = Field(default=3.0, gt=0, le=30, description="How long opening the connection may take.")
    pause: Duration = Field(
        default=0.0, description="Rest between two requests on this link, whichever unit they are for."
    )


class ModbusDeviceSettings(Strict):
    """One unit on the link. Limits, gaps, pauses and time-outs are rules: the profile's, overridden by the device's `rules`."""

    unit: int = Field(
        default=1, ge=0, le=255,
        description="Unit identifier (station number). On Modbus TCP without a gateway often 1, 0 or 255; on a serial line 1 to 247.",
    )  # fmt: skip
