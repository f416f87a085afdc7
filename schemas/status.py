"""OPC UA StatusCodes: quality, names, and texts that an operator understands.

A status is an unsigned 32-bit integer laid out as in OPC 10000-4 §7.39: bits 31-30 severity, 27-16 the code, 15 and
14 structure and semantics changed, 11-10 the kind of the information bits, 9-0 the information bits. The names and
numbers are those of OPC 10000-6 Annex A; the texts in ``data/statuscodes.csv`` are ours. Modbus readings use the same
codes: see `modbus_exception`.
"""

from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

Severity = Literal["good", "uncertain", "bad"]

CODE_MASK: Final = 0xFFFF0000
"""The part of a status that names its code; the rest are information bits."""

GOOD: Final = 0x00000000
UNCERTAIN: Final = 0x40000000
UNCERTAIN_NO_COMMUNICATION_LAST_USABLE_VALUE: Final = 0x408F0000
UNCERTAIN_LAST_USABLE_VALUE: Final = 0x40900000
UNCERTAIN_INITIAL_VALUE: Final = 0x40920000
UNCERTAIN_SENSOR_NOT_ACCURATE: Final = 0x40930000
UNCERTAIN_ENGINEERING_UNITS_EXCEEDED: Final = 0x40940000
BAD: Final = 0x80000000
BAD_UNEXPECTED_ERROR: Final = 0x80010000
BAD_INTERNAL_ERROR: Final = 0x80020000
BAD_RESOURCE_UNAVAILABLE: Final = 0x80040000
BAD_COMMUNICATION_ERROR: Final = 0x80050000
BAD_DECODING_ERROR: Final = 0x80070000
BAD_ENCODING_LIMITS_EXCEEDED: Final = 0x80080000
BAD_UNKNOWN_RESPONSE: Final = 0x80090000
BAD_TIMEOUT: Final = 0x800A0000
BAD_SERVICE_UNSUPPORTED: Final = 0x800B0000
BAD_SHUTDOWN: Final = 0x800C0000
BAD_TOO_MANY_OPERATIONS: Final = 0x80100000
BAD_USER_ACCESS_DENIED: Final = 0x801F0000
BAD_NO_COMMUNICATION: Final = 0x80310000
BAD_WAITING_FOR_INITIAL_DATA: Final = 0x80320000
BAD_NODE_ID_INVALID: Final = 0x80330000
BAD_NODE_ID_UNKNOWN: Final = 0x80340000
BAD_ATTRIBUTE_ID_INVALID: Final = 0x80350000
BAD_INDEX_RANGE_NO_DATA: Final = 0x80370000
BAD_NOT_READABLE: Final = 0x803A0000
BAD_NOT_WRITABLE: Final = 0x803B0000
BAD_OUT_OF_RANGE: Final = 0x803C0000
BAD_NOT_SUPPORTED: Final = 0x803D0000
BAD_NOT_FOUND: Final = 0x803E0000
BAD_TYPE_MISMATCH: Final = 0x80740000
BAD_CONFIGURATION_ERROR: Final = 0x80890000
BAD_NOT_CONNECTED: Final = 0x808A0000
BAD_DEVICE_FAILURE: Final = 0x808B0000
BAD_SENSOR_FAILURE: Final = 0x808C0000
BAD_OUT_OF_SERVICE: Final = 0x808D0000
BAD_NO_DATA: Final = 0x809B0000
BAD_DATA_LOST: Final = 0x809D0000
BAD_DATA_UNAVAILABLE: Final = 0x809E0000
BAD_INVALID_STATE: Final = 0x80AF0000
BAD_WAITING_FOR_RESPONSE: Final = 0x80B20000
BAD_SERVER_TOO_BUSY: Final = 0x80EE0000
BAD_NO_VALUE: Final = 0x80F00000

_QUALITIES: Final[tuple[Severity, ...]] = ("good", "uncertain", "bad", "bad")
_DATA: Final = Path(__file__).with_name("data") / "statuscodes.csv"


class StatusInfo(NamedTuple):
    """What a status means. `code` is the status that was asked for, information bits included; `fix_en` and `fix_zh`
    are empty where an operator can do nothing or need do nothing."""

    name: str
    code: int
    severity: Severity
    text_en: str
    text_zh: str
    fix_en: str
    fix_zh: str


class ModbusException(NamedTuple):
    """A Modbus exception code (Modbus Application Protocol V1.1b3 §7) and the status its points get."""

    code: int
    name: str
    status: int
    text_en: str
    text_zh: str
    fix_en: str
    fix_zh: str


def quality(status: int) -> Severity:
    """The quality of a status: its top two bits and nothing else. 0b11 is reserved and counts as bad (OPC 10000-4
    §7.39)."""
    return _QUALITIES[(status >> 30) & 3]


def is_good(status: int) -> bool:
    """Whether the severity bits say Good. True for Good with information bits set too."""
    return status & 0xC0000000 == 0


def is_uncertain(status: int) -> bool:
    """Whether the severity bits say Uncertain."""
    return status & 0xC0000000 == 0x40000000


def is_bad(status: int) -> bool:
    """Whether the severity bits say Bad, or are the reserved 0b11, which is treated as Bad."""
    return status & 0x80000000 != 0


@cache
def table() -> dict[int, StatusInfo]:
    """All codes of OPC 10000-6 Annex A by number, in ascending order. Read from the CSV at the first call."""
    import csv  # only needed once and not by a process that never explains a status

    with _DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[int, StatusInfo] = {}
    for row in rows:
        code = int(row["code"], 16)
        found[code] = StatusInfo(
            row["name"], code, quality(code), row["text_en"], row["text_zh"], row["fix_en"], row["fix_zh"]
        )
    return found


@cache
def _by_name() -> dict[str, int]:
    return {entry.name: code for code, entry in table().items()}


def info(code: int) -> StatusInfo:
    """Explain a status, whatever it is.

    An unlisted code gets its number as name and a text that says so; set information bits are named at the end of the
    texts. Raises ValueError if `code` is not an unsigned 32-bit integer.
    """
    if not 0 <= code <= 0xFFFFFFFF:
        raise ValueError(f"status code {code}: expected an unsigned 32-bit integer (0 to 4294967295)")
    entry = table().get(code & CODE_MASK)
    if entry is None:
        entry = _unlisted(code)
    notes = _information(code)
    if notes:
        en, zh = "; ".join(note[0] for note in notes), "；".join(note[1] for note in notes)
        entry = entry._replace(text_en=f"{entry.text_en} ({en})", text_zh=f"{entry.text_zh}（{zh}）")
    return entry._replace(code=code)


def by_name(name: str) -> int:
    """The numeric code of a symbolic name such as ``BadNodeIdUnknown``. Raises ValueError that gives the nearest name
    if there is none."""
    names = _by_name()
    if name in names:
        return names[name]
    from difflib import get_close_matches  # only on the way to an error

    folded = {known.casefold(): known for known in names}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.0)
    raise ValueError(
        f"status name {name!r} is not in the OPC UA list (OPC 10000-6 Annex A); the nearest is {folded[near[0]]!r}"
    )


def modbus_exception(code: int) -> ModbusException:
    """What a Modbus exception response means and which status its points get.

    Works for every code; one that the specification does not define (9, and above 11) becomes BadUnknownResponse.
    """
    return MODBUS_EXCEPTIONS.get(code) or ModbusException(
        code,
        "not assigned",
        BAD_UNKNOWN_RESPONSE,
        f"The device answered with exception code {code}, which the Modbus specification does not define.",
        f"设备返回了 Modbus 规范未定义的异常码 {code}。",
        "Look the code up in the device's manual.",
        "请在设备手册中查找该代码。",
    )


def _unlisted(code: int) -> StatusInfo:
    severity = quality(code)
    severity_zh = {"good": "正常", "uncertain": "可疑", "bad": "无效"}[severity]
    number = f"0x{code & CODE_MASK:08X}"
    return StatusInfo(
        number,
        code,
        severity,
        f"The code {number} is not in the OPC UA list; its severity is {severity}.",
        f"代码 {number} 不在 OPC UA 状态码表中，其严重程度为“{severity_zh}”。",
        "Look the code up in the manual of the device or server.",
        "请在设备或服务器手册中查找该代码。",
    )


def _information(code: int) -> list[tuple[str, str]]:
    """The meaning of bits 15 to 0 (OPC 10000-4 §7.39; the historian bits after OPC 10000-11), (en, zh) each."""
    notes: list[tuple[str, str]] = []
    if code & 0x8000:
        notes.append(("the structure of the value has changed", "数值的结构已改变"))
    if code & 0x4000:
        notes.append(("unit, range or meaning of the value has changed", "数值的单位、量程或含义已改变"))
    rest = code & 0x3FFF
    if rest & 0x0C00 == 0x0400:  # the low ten bits belong to a DataValue; with another kind they mean nothing
        limit = (rest >> 8) & 3
        if limit:
            notes.append(_LIMITS[limit])
        if rest & 0x0080:
            notes.append(("values before this one were lost in a full queue", "队列溢出，此前有数据丢失"))
        origin = rest & 3
        if origin in _ORIGINS:
            notes.append(_ORIGINS[origin])
        notes.extend(text for bit, text in _HISTORIAN.items() if rest & bit)
        rest &= ~0x0F9F  # the kind bits and all bits explained above
        if origin == 3:
            rest |= 3
    if rest:
        notes.append((f"reserved bits 0x{rest:04X} are set", f"保留位 0x{rest:04X} 被置位"))
    return notes


_LIMITS: Final = {
    1: ("the value is at its lower limit", "数值处于下限"),
    2: ("the value is at its upper limit", "数值处于上限"),
    3: ("the value is constant and cannot change", "数值为常量，不会变化"),
}
_ORIGINS: Final = {
    1: ("calculated, not raw", "计算值，非原始值"),
    2: ("interpolated, not raw", "插值，非原始值"),
}
_HISTORIAN: Final = {
    0x04: ("computed from an incomplete interval", "由不完整的时间段计算得出"),
    0x08: ("other values of the same time are hidden behind this one", "同一时刻还有被此值遮盖的其他数据"),
    0x10: ("several values fulfil the criterion", "有多个值符合条件"),
}

MODBUS_EXCEPTIONS: Final[dict[int, ModbusException]] = {
    exception.code: exception
    for exception in (
        # 1: the same as an unsupported service; the register may well exist behind another function.
        ModbusException(
            1,
            "illegal function",
            BAD_SERVICE_UNSUPPORTED,
            "The device does not know this Modbus function.",
            "设备不支持该 Modbus 功能码。",
            "Use the register type of the manual: holding registers (03) instead of input registers (04), or the reverse.",
            "按手册选用寄存器类型：保持寄存器（03）与输入寄存器（04）不要混淆。",
        ),
        # 2: an address plays the part of a node id.
        ModbusException(
            2,
            "illegal data address",
            BAD_NODE_ID_UNKNOWN,
            "The device has no register at this address, or the block reaches beyond the last one.",
            "设备在该地址没有寄存器，或读取块超出了末尾。",
            "Check the address, the offset by one between manual and wire, and holes in the register map.",
            "检查地址、手册与报文之间相差 1 的偏移，以及寄存器表中的空洞。",
        ),
        # 3: on reads this is nearly always the number of registers.
        ModbusException(
            3,
            "illegal data value",
            BAD_OUT_OF_RANGE,
            "The device does not accept the number of registers asked for, or the value written.",
            "设备不接受所请求的寄存器数量或写入的值。",
            "Lower the largest read of this device (some permit only 8 words), or write a permitted value.",
            "减小该设备的单次最大读取量（有的只允许 8 个字），或写入允许的值。",
        ),
        ModbusException(
            4,
            "server device failure",
            BAD_DEVICE_FAILURE,
            "The device failed while carrying out the request.",
            "设备在执行请求时发生故障。",
            "Look at the device for its fault message; switch it off and on if it stays.",
            "查看设备上的故障信息；如持续存在，请断电重启。",
        ),
        # 5: accepted, but there is no value yet, so it cannot be Good.
        ModbusException(
            5,
            "acknowledge",
            BAD_WAITING_FOR_RESPONSE,
            "The device has accepted the request and needs more time for it.",
            "设备已接受请求，但需要更长时间处理。",
            "Poll this device more slowly.",
            "降低该设备的采集频率。",
        ),
        ModbusException(
            6,
            "server device busy",
            BAD_SERVER_TOO_BUSY,
            "The device is busy with something else.",
            "设备正忙于处理其他任务。",
            "Poll this device more slowly, or see whether another master is asking it too.",
            "降低该设备的采集频率，或检查是否有其他主站也在访问。",
        ),
        # 7 is of older editions of the specification, still sent by old devices.
        ModbusException(
            7,
            "negative acknowledge",
            BAD_INVALID_STATE,
            "The device cannot carry out the request in its present state.",
            "设备在当前状态下无法执行该请求。",
            "Look at the state or mode of the device and try again.",
            "查看设备的状态或模式后重试。",
        ),
        ModbusException(
            8,
            "memory parity error",
            BAD_DEVICE_FAILURE,
            "The memory of the device is damaged: its own check failed.",
            "设备存储器校验失败，数据已损坏。",
            "Restart the device; have it repaired if the error comes back.",
            "重启设备；如错误再次出现，请送修。",
        ),
        ModbusException(
            9,
            "not assigned",
            BAD_UNKNOWN_RESPONSE,
            "The device answered with exception code 9, which the Modbus specification does not define.",
            "设备返回了 Modbus 规范未定义的异常码 9。",
            "Look the code up in the device's manual.",
            "请在设备手册中查找该代码。",
        ),
        ModbusException(
            10,
            "gateway path unavailable",
            BAD_COMMUNICATION_ERROR,
            "The serial server cannot open a path to the line: it is set up wrongly or overloaded.",
            "串口服务器无法建立到总线的通道：配置错误或过载。",
            "Check port, baud rate and unit range in the serial server; poll more slowly.",
            "检查串口服务器的端口、波特率和站号范围；降低采集频率。",
        ),
        ModbusException(
            11,
            "gateway target device failed to respond",
            BAD_NO_COMMUNICATION,
            "The serial server works, but the unit behind it does not answer.",
            "串口服务器正常，但其后的站点没有响应。",
            "Check power, wiring (A and B), unit address and baud rate of the unit.",
            "检查该站点的电源、接线（A/B）、站号和波特率。",
        ),
    )
}
"""Modbus exception codes 1 to 11. The status is chosen so that what an OPC UA client would understand by it is the same."""
