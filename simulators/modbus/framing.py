"""Modbus frames as a server meets them: MBAP over TCP, RTU with its checksum, and the length of an RTU request.

Sources: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3 (MBAP header); MODBUS over Serial Line V1.02,
2.5.1 (RTU framing) and 6.2.2 (CRC); MODBUS Application Protocol V1.1b3, clause 6 (requests).
"""

from __future__ import annotations

import struct

__all__ = ["MBAP", "RTU_BITS_PER_BYTE", "crc16", "rtu_frame", "rtu_intact", "rtu_request_length", "tcp_frame"]

MBAP = struct.Struct(">HHHB")
"""Transaction, protocol (0), length of what follows it, unit."""

RTU_BITS_PER_BYTE = 11
"""Start, eight data bits, parity or a second stop bit, stop: what one byte costs on the line."""


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _table()


def crc16(data: bytes) -> int:
    """The RTU checksum of *data*; it goes onto the wire low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """An RTU frame: unit, PDU, checksum."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def rtu_intact(frame: bytes) -> bool:
    """Whether *frame* has room for unit, function and checksum, and the checksum is right."""
    return len(frame) >= 4 and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little")


def tcp_frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """An MBAP frame: header and PDU."""
    return MBAP.pack(transaction, 0, len(pdu) + 1, unit) + pdu


_FIXED_LENGTH = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 7: 4, 8: 8, 11: 4, 12: 4, 17: 4, 22: 10, 24: 6, 43: 7}
_BYTE_COUNT_AT = {15: 6, 16: 6, 20: 2, 21: 2, 23: 10}


def rtu_request_length(start: bytes) -> int | None:
    """How long the request that begins with *start* is, checksum included.

    ``0`` when more bytes are needed to tell; ``None`` when the function is not known, so that only silence on the line
    shows the end.
    """
    if len(start) < 2:
        return 0
    function = start[1]
    if (length := _FIXED_LENGTH.get(function)) is not None:
        return length
    if (place := _BYTE_COUNT_AT.get(function)) is None:
        return None
    return place + 1 + start[place] + 2 if len(start) > place else 0
