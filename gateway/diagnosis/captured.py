"""Frames as text and as a pcapng file (draft-ietf-opsawg-pcapng §4), which Wireshark opens.

Frames are recorded above TCP. The file therefore has them in IPv4 and TCP headers that are made up: 192.0.2.1 is the gateway, 192.0.2.2 the
device, and the port the protocol's registered one (502, 4840), so that Wireshark decodes by itself; RTU frames are of link type USER0, ASCII frames of USER1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from adapters.frames import Frame, Wire
from gateway import __version__
from schemas.times import to_rfc3339

_RAW_IP: Final = 101
_SERIAL: Final = {"modbus-rtu": 147, "modbus-ascii": 148}
"""Link types USER0 and USER1."""
_PORTS: Final[dict[str, int]] = {"modbus-tcp": 502, "opcua": 4840}
_OUR_PORT: Final = 50_000
_GATEWAY, _DEVICE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
"""Documentation addresses (RFC 5737)."""
_ARROWS: Final = {"sent": "->", "received": "<-", "note": "--"}
_SHOWN: Final = 260
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_END, _COMMENT, _APPLICATION, _NAME = 0, 1, 4, 2


def as_text(frame: Frame) -> str:
    """One line of meaning and, of a frame, one of bytes in hexadecimal."""
    head = f"{to_rfc3339(frame.at)} {_ARROWS[frame.direction]} {frame.meaning}"
    if not frame.data:
        return head
    more = f" … ({frame.size} bytes)" if frame.size > min(len(frame.data), _SHOWN) else ""
    return f"{head}\n    {frame.data[:_SHOWN].hex(' ')}{more}"


def as_pcapng(frames: Iterable[Frame], wire: Wire, link: str) -> Iterator[bytes]:
    """The blocks of a pcapng file, in order. Frames that came in pieces stand in it once, whole; a note is the comment of the next frame."""
    yield _block(
        _SECTION,
        struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        + _option(_APPLICATION, f"guantong {__version__}")
        + _option(_END, ""),
    )
    kind = _SERIAL.get(wire, _RAW_IP)
    yield _block(_INTERFACE, struct.pack("<HHI", kind, 0, 0) + _option(_NAME, link) + _option(_END, ""))
    next_byte = {"sent": 1, "received": 1}
    notes: list[str] = []
    for frame in _whole(frames):
        if frame.direction == "note" or not frame.data:
            notes.append(frame.meaning)
            continue
        data, size = frame.data, frame.size
        if kind == _RAW_IP:
            other = "received" if frame.direction == "sent" else "sent"
            data = _ip(frame, _PORTS[wire], next_byte[frame.direction], next_byte[other])
            next_byte[frame.direction] = (next_byte[frame.direction] + size) % 2**32
            size += 40
        comment = "; ".join([*notes, frame.meaning])
        notes.clear()
        head = struct.pack("<IIIII", 0, frame.at >> 32, frame.at & 0xFFFFFFFF, len(data), size)
        yield _block(_PACKET, head + _padded(data) + _option(_COMMENT, comment) + _option(_END, ""))


def _whole(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Without frames that are only the beginning of the next."""
    held: Frame | None = None
    for frame in frames:
        if held is not None and not (
            held.direction == frame.direction == "received"
            and frame.size > held.size
            and frame.data.startswith(held.data)
        ):
            yield held
        held = frame
    if held is not None:
        yield held


def _ip(frame: Frame, port: int, sequence: int, acknowledged: int) -> bytes:
    """The frame behind an IPv4 and a TCP header (RFC 791, RFC 9293), both without options."""
    sent = frame.direction == "sent"
    source, target = (_GATEWAY, _DEVICE) if sent else (_DEVICE, _GATEWAY)
    ports = (_OUR_PORT, port) if sent else (port, _OUR_PORT)
    length = min(40 + frame.size, 0xFFFF)
    header = struct.pack(">BBHHHBBH", 0x45, 0, length, frame.number & 0xFFFF, 0x4000, 64, 6, 0) + source + target
    header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
    tcp = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 0x50, 0x18, 0xFFFF, 0, 0)
    if len(frame.data) == frame.size:
        pseudo = source + target + struct.pack(">BBH", 0, 6, 20 + frame.size)
        tcp = tcp[:16] + struct.pack(">H", _checksum(pseudo + tcp + frame.data)) + tcp[18:]
    return header + tcp + frame.data


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, text: str) -> bytes:
    value = text.encode()[:0xFFF0]
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
