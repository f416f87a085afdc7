"""What a configuration says of a Modbus link and of a device on it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.bilingual import Bilingual
from schemas.model import Duration, Strict

Transport = Literal["tcp", "rtu-over-tcp", "ascii-over-tcp", "udp"]
Frames = Literal["mbap", "rtu", "ascii"]
"""What a frame looks like: with a transaction number (MBAP), with a checksum alone, or in hexadecimal digits."""
Baud = Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200]
Parity = Literal["N", "E", "O"]

_OF_SERIAL = ("baud", "parity", "stop", "bits", "framing")
_OF_NETWORK = ("port", "transport")


def _bytes_of(text: str) -> bytes:
    """The bytes of a text as it is, or of `hex:0A FF`."""
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text[4:])
    except ValueError:
        raise ValueError(
            Bilingual(
                f"{text!r}: expected hex: and pairs of hexadecimal digits, such as hex:AA 55 01",
                f"{text!r}：应为 hex: 加成对的十六进制数字，如 hex:AA 55 01",
            )
        ) from None


def _spelled(text: str) -> str:
    if len(_bytes_of(text)) < 2:
        raise ValueError(Bilingual(f"{text!r}: expected at least two bytes", f"{text!r}：至少需要两个字节"))
    return text


_Sent = Annotated[str, AfterValidator(_spelled)]


class DialIn(Strict):
    """A unit that connects to the gateway, such as a 4G unit (DTU) or a serial server in client mode."""

    port: int = Field(
        ge=1, le=65535, description="The port on which the gateway listens. Any number of links may share it."
    )
    registration: _Sent = Field(
        description="What the unit sends first, by which it is known: a text as it is, or `hex:AA 55 01`. Each unit has its own."
    )
    heartbeat: _Sent | None = Field(
        default=None,
        description="What the unit sends now and then to keep its connection, written in the same way: thrown away.",
    )
    bind: str = Field(
        default="0.0.0.0", min_length=1,
        description="The address of this machine on which to listen. 0.0.0.0: all of them. The port should be open to the units alone.",
    )  # fmt: skip

    @property
    def registration_bytes(self) -> bytes:
        """As they come."""
        return _bytes_of(self.registration)

    @property
    def heartbeat_bytes(self) -> tuple[bytes, ...]:
        """None or one."""
        return () if self.heartbeat is None else (_bytes_of(self.heartbeat),)


class ModbusLinkSettings(Strict):
    """One wire: a TCP connection (`host`) to a Modbus TCP device or gateway or to a serial server that passes RTU frames on, a
    serial port of this machine (`serial`), or a unit that connects to the gateway (`listen`). Any number of devices share it."""

    host: str | tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Name or address of the device, gateway or serial server. Of one with several addresses a list: the later ones are "
        "tried where the earlier ones do not answer.",
    )
    port: int = Field(default=502, ge=1, le=65535)
    transport: Transport = Field(
        default="tcp",
        description="tcp: Modbus TCP frames (MBAP). rtu-over-tcp: serial frames with checksum in a TCP connection, as serial "
        "servers in transparent mode pass them on; ascii-over-tcp: the same of devices that speak Modbus ASCII. udp: MBAP frames in datagrams.",
    )
    serial: str | None = Field(
        default=None, pattern="^/dev/.",
        description="Instead of `host`: a serial port of this machine (Modbus RTU), best by its name under /dev/serial/by-id, which "
        "does not change when cables are moved.",
    )  # fmt: skip
    baud: Baud = Field(default=9600, description="Serial port: bits per second, as set at every device on the line.")
    parity: Parity = Field(default="N", description="Serial port: parity none (N), even (E) or odd (O).")
    stop: Literal[1, 2] = Field(default=1, description="Serial port: stop bits.")
    framing: Literal["rtu", "ascii"] = Field(
        default="rtu", description="Serial port: Modbus RTU, which nearly all devices speak, or Modbus ASCII."
    )
    bits: Literal[7, 8] = Field(default=8, description="Serial port: data bits. 7 with `framing: ascii` alone.")
    listen: DialIn | None = Field(
        default=None,
        description="Instead of `host`: a unit that connects to the gateway (a 4G DTU, a serial server in client mode).",
    )
    timeout: Duration = Field(default=3.0, gt=0, le=30, description="How long opening the connection may take.")
    pause: Duration = Field(
        default=0.0,
        description="Rest between two requests on this link, whichever unit they are for. On a serial port at least the 3.5 "
        "characters that the standard asks for.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [key for key in ("host", "serial", "listen") if getattr(self, key) is not None]
        if len(places) != 1:
            raise ValueError(
                Bilingual(
                    "a Modbus link needs one of `host` (a network address), `serial` (a port such as /dev/serial/by-id/…) "
                    "and `listen` (a unit that connects to the gateway)",
                    "Modbus 链路需填写以下之一：`host`（网络地址）、`serial`（串口，如 /dev/serial/by-id/…）、`listen`（设备主动连接网关）",
                )
            )
        if not all(self.hosts):
            raise ValueError(Bilingual("an address of `host` is empty", "`host` 中有空地址"))
        foreign = {"host": _OF_SERIAL, "serial": _OF_NETWORK, "listen": (*_OF_SERIAL, "port")}[places[0]]
        for key in foreign:
            if key in self.model_fields_set:
                raise ValueError(
                    Bilingual(
                        f"`{key}` does not belong to a link with `{places[0]}`: leave it out",
                        f"`{key}` 不属于 `{places[0]}` 链路：请删除",
                    )
                )
        if self.bits == 7 and self.framing == "rtu":
            raise ValueError(
                Bilingual(
                    "`bits: 7` is for `framing: ascii`: an RTU frame has bytes of eight bits",
                    "`bits: 7` 仅用于 `framing: ascii`：RTU 帧的字节为八位",
                )
            )
        if self.listen is not None and self.datagrams:
            raise ValueError(
                Bilingual(
                    "`transport: udp` has no connection that a unit could open: give its `host`",
                    "`transport: udp` 没有可由设备建立的连接：请填写 `host`",
                )
            )
        return self

    @property
    def frames(self) -> Frames:
        """What the frames on this wire look like."""
        if self.serial is not None:
            return self.framing
        return {"rtu-over-tcp": "rtu", "ascii-over-tcp": "ascii"}.get(self.transport, "mbap")  # type: ignore[return-value]

    @property
    def datagrams(self) -> bool:
        """Whether there is no connection: a frame is a datagram, which may be lost."""
        return self.transport == "udp"

    @property
    def rtu(self) -> bool:
        """Whether frames are those of a serial line, without transaction numbers."""
        return self.frames != "mbap"

    def frame_length(self, pdu: int) -> int:
        """Characters of a frame on a serial line with so many bytes from the function code on (Serial Line V1.02 §2.5.1, §2.5.2)."""
        return 2 * pdu + 7 if self.framing == "ascii" else pdu + 3

    @property
    def place(self) -> str:
        """Where the link goes, as people write it: `192.168.1.20:502`, the path of the serial port, or
        `DTU0001 (:5020)` of one who dials in."""
        if self.listen is not None:
            return f"{self.listen.registration} (:{self.listen.port})"
        if self.serial is not None:
            return self.serial
        return " / ".join(f"{host}:{self.port}" for host in self.hosts)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses in the order in which they are tried; none of a link that goes elsewhere."""
        if self.host is None:
            return ()
        return (self.host,) if isinstance(self.host, str) else tuple(dict.fromkeys(self.host))


class ModbusDeviceSettings(Strict):
    """One unit on the link. Limits, gaps, pauses and time-outs are rules: the profile's, overridden by the device's `rules`."""

    unit: int = Field(
        default=1, ge=0, le=255,
        description="Unit identifier (station number). On Modbus TCP without a gateway often 1, 0 or 255; on a serial line 1 to 247.",
    )  # fmt: skip
