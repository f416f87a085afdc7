"""Reads that write a selector first: Read/Write Multiple Registers, function 23 (V1.1b3 §6.17).

Some devices show one of many records in the same registers, and a register that is written says which. Function 23 writes it and
reads in one request, so that no other request can come between. It is sent only where the configuration permits writes.
"""

from __future__ import annotations

import struct

from adapters.modbus._codec import Request
from schemas.bilingual import Bilingual
from schemas.modbus import Select

FUNCTION = 23


class SelectRequest(Request):
    """Writes one register and reads `count` holding registers from `address`."""

    def __init__(self, unit: int, address: int, count: int, select: Select) -> None:
        super().__init__(unit, FUNCTION, address, count)
        self._encoded = struct.pack(">HHHHBH", address, count, select.address, 1, 2, select.value)


def not_permitted(select: Select) -> Bilingual:
    """Why a point that needs a selector is not read."""
    return Bilingual(
        f"select: reading it writes {select.value} into register {select.address:#06x} of the device first, and this gateway is "
        "read-only: write `writes: enabled` at the top of the configuration if that may be",
        f"select：读取前要向设备寄存器 {select.address:#06x} 写入 {select.value}，而本网关为只读：若允许，请在配置文件顶层写 `writes: enabled`",
    )
