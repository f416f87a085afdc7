"""What a Modbus frame says, on one line (V1.1b3 §6; MBAP: Messaging on TCP/IP V1.0b §3.1.3; RTU: Serial Line V1.02 §2.5.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from adapters.frames import LARGEST, FrameLog, Record
from adapters.modbus._settings import Frames

_NAMES: Final = {
    1: "Read Coils", 2: "Read Discrete Inputs", 3: "Read Holding Registers", 4: "Read Input Registers", 5: "Write Single Coil",
    6: "Write Single Register", 15: "Write Multiple Coils", 16: "Write Multiple Registers",
    23: "Read/Write Multiple Registers", 43: "Read Device Identification",
}  # fmt: skip
_EXCEPTIONS: Final = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "server device failure", 5: "acknowledge",
    6: "server device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "gateway target failed to respond",
}  # fmt: skip
_SHOWN: Final = 8
"""Registers that are written out."""


def frame_log(frames: Frames) -> FrameLog:
    """An empty log of a Modbus link."""
    if frames == "mbap":
        return FrameLog("modbus-tcp", _explain_tcp)
    return FrameLog("modbus-rtu", _explain_rtu) if frames == "rtu" else FrameLog("modbus-ascii", _explain_ascii)


def tracer(log: FrameLog, now: Callable[[], int]) -> Callable[[bool, bytes], bytes]:
    """What pymodbus calls with everything it sends and has received. It gives a frame that comes in pieces again with each piece.

    Twice for each block: nothing is done here but to keep the tuple.
    """
    keep = log.keep

    def trace(sending: bool, data: bytes) -> bytes:
        size = len(data)
        log.total += 1
        keep((now(), "sent" if sending else "received", data if size <= LARGEST else data[:LARGEST], size))
        return data

    return trace


def _explain_tcp(record: Record) -> tuple[bytes, str]:
    data: bytes = record.content
    if len(data) < 8:
        return data, f"the first {len(data)} bytes of a frame"
    transaction, protocol, length, unit = struct.unpack_from(">HHHB", data)
    if protocol:
        return data, f"no Modbus TCP frame: protocol identifier {protocol}"
    told = _explain_pdu(data[7 : 6 + length], sent=record.direction == "sent")
    missing = 6 + length - max(record.size, len(data))
    more = (
        f" (in pieces: {missing} bytes still to come)"
        if missing > 0
        else f" (and {-missing} bytes behind it)"
        if missing
        else ""
    )
    return data, f"transaction {transaction}, unit {unit}: {told}{more}"


def _explain_rtu(record: Record) -> tuple[bytes, str]:
    data: bytes = record.content
    if len(data) < 4:
        return data, f"the first {len(data)} bytes of a frame"
    right = _crc(data[:-2]) == struct.unpack("<H", data[-2:])[0]
    told = _explain_pdu(data[1:-2], sent=record.direction == "sent")
    return data, f"unit {data[0]}: {told}" + ("" if right else " (checksum wrong, or incomplete)")


def _explain_ascii(record: Record) -> tuple[bytes, str]:
    data: bytes = record.content
    start, end = data.rfind(b":"), data.rfind(b"\r\n")
    try:
        frame = bytes.fromhex(data[start + 1 : end if end > start else len(data)].decode("ascii"))
    except ValueError:
        frame = b""
    if start < 0 or len(frame) < 3:
        return data, f"the first {len(data)} characters of a frame"
    right = end > start and sum(frame) & 0xFF == 0
    told = _explain_pdu(frame[1:-1], sent=record.direction == "sent")
    return data, f"unit {frame[0]}: {told}" + ("" if right else " (checksum wrong, or incomplete)")


def _explain_pdu(pdu: bytes, *, sent: bool) -> str:
    if not pdu:
        return "empty"
    function = pdu[0] & 0x7F
    name = f"{_NAMES.get(function, 'function')} ({function})"
    if pdu[0] & 0x80:
        code = pdu[1] if len(pdu) > 1 else 0
        return f"{name}: exception {code} {_EXCEPTIONS.get(code, '')}".rstrip()
    if sent:
        if len(pdu) >= 5:
            address, count = struct.unpack_from(">HH", pdu, 1)
            written = ""
            if function == 23 and len(pdu) >= 12:
                written = f", after writing {int.from_bytes(pdu[10:12], 'big')} into address {int.from_bytes(pdu[5:7], 'big')}"
            return f"{name}, address {address}, count {count}{written}"
        return name
    if function in (3, 4, 23) and len(pdu) >= 2:
        registers = struct.unpack_from(f">{(len(pdu) - 2) // 2}H", pdu, 2)
        shown = " ".join(str(register) for register in registers[:_SHOWN])
        return f"{name}, {len(registers)} registers: {shown}{' …' if len(registers) > _SHOWN else ''}"
    if function in (1, 2) and len(pdu) >= 2:
        return f"{name}, {len(pdu) - 2} bytes of bits: {pdu[2 : 2 + _SHOWN].hex(' ')}"
    return name


def _crc(data: bytes) -> int:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value
