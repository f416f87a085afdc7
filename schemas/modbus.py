"""Where a value lies in a Modbus device, what its registers mean, and what a device type bears.

Sources: MODBUS Application Protocol V1.1b3 (§4.3, §4.4). How several registers make one value no standard says; the layouts of
date-times are named in `LAYOUTS`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, field_validator, model_validator

from schemas.bilingual import Bilingual
from schemas.model import Duration, Strict, Text

ModbusType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32",
    "datetime", "string", "bytes",
]  # fmt: skip
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]
LongOrder = Literal["CDABGHEF", "EFGHABCD", "DCBAHGFE", "FEHGBADC"]
"""Orders of 64 bits that the four of `Order` do not make: words or double words exchanged, with and without bytes swapped in each word."""
_SAME_ORDER: Final = {"ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "BADCFEHG": "BADC", "HGFEDCBA": "DCBA"}
"""What else the four are called where a value has 64 bits."""
Table = Literal["coil", "discrete", "input", "holding"]
REGISTERS: dict[str, int] = {
    "int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4, "float64": 4,
    "bcd16": 1, "bcd32": 2,
}  # fmt: skip
STORED_AS: Final[dict[str, str]] = {"bcd16": "uint16", "bcd32": "uint32"}
"""Type of the registers -> type of a signal that has their values as they are; the others are called the same."""
Layout = Literal["unix32", "unix64-ms", "iec870", "registers6", "bytes6", "bcd6"]
LAYOUTS: Final[dict[str, int]] = {"unix32": 2, "unix64-ms": 4, "iec870": 4, "registers6": 6, "bytes6": 3, "bcd6": 3}
"""Layout of a date-time -> registers.

`unix32`, `unix64-ms`: seconds or milliseconds since 1970. `iec870`: four registers after IEC 60870-5-4 (Schneider's type DATETIME,
TI081): year since 2000 in bits 6-0; month in 11-8 and day in 4-0; hour in 12-8 and minute in 5-0; milliseconds of the minute.
`registers6`: year (whole, or since 2000 when below 100), month, day, hour, minute, second in a register each. `bytes6`: the same as
bytes, year since 2000, high byte first; `bcd6`: those bytes in BCD, as the date-times of DL/T 645-2007 are written.
"""
_UNSIGNED: Final = frozenset({"uint8", "uint16", "uint32", "uint64"})
_ORDERS: Final = frozenset({"ABCD", "BADC", "CDAB", "DCBA"})
_FACTOR_TYPES: Final = frozenset(REGISTERS)


def whole_number(value: Any) -> Any:
    """The number that a text such as `0x1000` or `4096` means; whatever else as it is."""
    if isinstance(value, str):
        text = value.strip().lower()
        if re.fullmatch(r"0x[0-9a-f]+", text):
            return int(text, 16)
        if re.fullmatch(r"\d+", text):
            return int(text)
    return value


def _or_text(schema: dict[str, Any]) -> None:
    """The JSON schema of what may also be written in one line."""
    whole = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, whole]


class ScaleBy(Strict):
    """A factor that another register of the same device holds: a transformer's ratio, a number of decimal places.

    In one line: `ct/ratio`, the name of another signal, or table, wire address, type, order, `exponent` and a factor, as far as they are
    needed: `holding 6`, `input 0x31 int16 exponent`, `holding 6 uint16 *0.1`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_or_text)

    signal: str | None = Field(
        default=None,
        description="Another signal of this device, whose value in its registers as read last is the factor.",
    )
    table: Literal["input", "holding"] = "holding"
    address: int | None = Field(
        default=None, ge=0, le=65535,
        description="Wire address of the factor; it is read in the same scan as the value, and first.",
    )  # fmt: skip
    type: Literal[
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32",
    ] = "uint16"  # fmt: skip
    order: Order = "ABCD"
    exponent: bool = Field(
        default=False, description="The registers hold n, and the factor is ten to the power n (-30 to 30)."
    )
    scale: float = Field(default=1.0, description="By which the factor, or the power, is multiplied.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return _scale_by(value) if isinstance(value, str) else value

    @field_validator("address", mode="before")
    @classmethod
    def _hex(cls, value: Any) -> Any:
        return whole_number(value)

    @model_validator(mode="after")
    def _coherent(self) -> ScaleBy:
        if (self.signal is None) == (self.address is None):
            raise ValueError(
                Bilingual(
                    "give `signal` (the name of another signal) or `address` (zero-based, as on the wire), one of the two",
                    "`signal`（另一信号的名称）与 `address`（从 0 起，报文地址）须且只能写一个",
                )
            )
        if self.scale == 0:
            raise ValueError(Bilingual("scale 0 makes every value 0", "scale 为 0 会使所有数值为 0"))
        if not math.isfinite(self.scale):
            raise ValueError(Bilingual(f"scale {self.scale} is no number", f"scale {self.scale} 不是数值"))
        return self

    def __str__(self) -> str:
        words = [self.signal] if self.signal is not None else [self.table, str(self.address), self.type]
        if self.order != "ABCD" and self.signal is None:
            words.append(self.order)
        if self.exponent:
            words.append("exponent")
        if self.scale != 1:
            words.append(f"*{self.scale!r}")
        return " ".join(words)


def _scale_by(text: str) -> dict[str, Any]:
    words = text.split()
    data: dict[str, Any] = {}
    first = words.pop(0) if words else ""
    if first in ("input", "holding"):
        data |= {"table": first, "address": words.pop(0) if words else None}
    else:
        data["signal"] = first
    for word in words:
        if word == "exponent":
            data["exponent"] = True
        elif word in _ORDERS:
            data["order"] = word
        elif word in _FACTOR_TYPES:
            data["type"] = word
        elif re.fullmatch(r"\*-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", word):
            data["scale"] = float(word[1:])
        else:
            raise ValueError(
                Bilingual(
                    f"{word!r} is not understood: write a signal's name, or such as `holding 6 uint16 *0.1` or `input 49 int16 exponent`",
                    f"{word!r} 无法识别：请写信号名，或如 `holding 6 uint16 *0.1`、`input 49 int16 exponent`",
                )
            )
    return data


class Select(Strict):
    """A register that says what others show, and the number that is written into it before each read. In one line: `0x200=3`."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_or_text)

    address: int = Field(ge=0, le=65535, description="Wire address of the selector, a holding register.")
    value: int = Field(ge=0, le=65535, description="What is written into it.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        address, equals, number = value.partition("=")
        if not equals:
            raise ValueError(
                Bilingual(
                    f"{value!r} is not understood: write the selector's wire address and the number, such as 0x200=3",
                    f"{value!r} 无法识别：请写选择寄存器的报文地址与数值，如 0x200=3",
                )
            )
        return {"address": address, "value": number}

    @field_validator("address", "value", mode="before")
    @classmethod
    def _hex(cls, value: Any) -> Any:
        return whole_number(value)

    def __str__(self) -> str:
        return f"{self.address:#06x}={self.value}"


class ModbusAddress(Strict):
    """Where a value lies in a Modbus device (Modbus Application Protocol V1.1b3 §4.3, §4.4).

    `address` is the zero-based address on the wire; `number` the one-based number that many manuals print. Digits never choose
    the table: 40001 is not read as "holding register 1"; write `table: holding, number: 1`.
    """

    table: Table
    address: int | None = Field(
        default=None, ge=0, le=65535, description="Zero-based address as on the wire; 0x1000 is understood."
    )
    number: int | None = Field(
        default=None, ge=1, le=65536, description="One-based number as printed in manuals (wire address + 1)."
    )
    type: ModbusType = Field(
        default="uint16",
        description="int8, uint8: one byte of a register, see `byte`; bcd16, bcd32: a decimal digit in each four bits; datetime: see `layout`.",
    )
    order: Order | LongOrder = Field(
        default="ABCD",
        description="Order of the bytes on the wire. CDAB: low word first; BADC: bytes swapped in each word; DCBA: both. "
        "For 64-bit types the same two choices (words reversed, bytes swapped) are meant; the others have a name of eight letters, such as "
        "CDABGHEF and EFGHABCD.",
    )
    byte: Literal["low", "high"] = Field(default="low", description="int8, uint8: which byte of the register.")
    length: int | None = Field(default=None, ge=1, le=125, description="Registers of a string or of bytes.")
    count: int | None = Field(
        default=None, ge=2, le=125, description="That many numbers of this type after each other: one value, an array."
    )
    encoding: str = "utf-8"
    padding: Literal["end", "nul", "both", "ff"] = Field(
        default="end",
        description="What does not belong to a string. end: NULs and blanks at the end; nul: everything from the first NUL on; "
        "both: blanks in front too; ff: 0xFF bytes at the end as well.",
    )
    layout: Layout | None = Field(
        default=None,
        description="Of a datetime. unix32: seconds since 1970; unix64-ms: milliseconds; iec870: four registers after IEC 60870-5-4; "
        "registers6: year, month, day, hour, minute, second in a register each; bytes6: in a byte each; bcd6: such bytes in BCD.",
    )
    zone: str = Field(
        default="UTC", description="Of a datetime: time zone of the device's clock, such as Asia/Shanghai."
    )
    fields: dict[str, int | tuple[int, int]] = Field(
        default_factory=dict,
        description="Named bits of an unsigned number, each with its bit (0 = least significant) or [first bit, number of bits]: one "
        "value, an object.",
    )
    atomic: str | None = Field(
        default=None,
        min_length=1,
        description="Values of one table and scan group with the same word here come from one response, or not at all: such as the two "
        "halves of a counter, or a value and its valid bit.",
    )
    ratio: tuple[str, ...] = Field(
        default=(),
        description="Names of the `ratios` (of the rules) by which the number is multiplied, such as [ct, pt].",
    )
    scale_by: ScaleBy | None = Field(
        default=None, description="Another register of the device by which the number is multiplied."
    )
    select: Select | None = Field(
        default=None,
        description="For registers that show what another register selects: that one is written in the same request (function 23), so "
        "only with `writes: enabled`.",
    )
    sentinels: dict[int, str] = Field(
        default_factory=dict,
        description="Raw register values (unsigned) that mean a fault, each with the name of its StatusCode.",
    )
    faults: dict[int, Text] = Field(
        default_factory=dict,
        description="What sentinels mean in words; shown in the device's state as long as they last.",
    )

    @field_validator("address", "number", mode="before")
    @classmethod
    def _hex(cls, value: Any) -> Any:
        return whole_number(value)

    @field_validator("order", mode="before")
    @classmethod
    def _eight_letters(cls, value: Any) -> Any:
        return _SAME_ORDER.get(value, value) if isinstance(value, str) else value

    @field_validator("sentinels", "faults", mode="before")
    @classmethod
    def _hex_keys(cls, value: Any) -> Any:
        return {whole_number(k): v for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("fields", mode="before")
    @classmethod
    def _single_bits(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: (bit, 1) if isinstance(bit, int) else bit for name, bit in value.items()}

    @field_validator("ratio", mode="before")
    @classmethod
    def _one_ratio(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _coherent(self) -> ModbusAddress:
        for wrong in self._wrong():
            raise ValueError(wrong)
        return self

    def _wrong(self) -> list[Bilingual]:
        """What contradicts itself."""
        found: list[Bilingual] = []

        def wrong(when: bool, en: str, zh: str) -> None:
            if when:
                found.append(Bilingual(en, zh))

        kind, bits = self.type, self.table in ("coil", "discrete")
        wrong(
            (self.address is None) == (self.number is None),
            "give `address` (zero-based, as on the wire) or `number` (one-based, as printed), one of the two",
            "`address`（从 0 起，报文地址）与 `number`（从 1 起，手册编号）须且只能写一个",
        )
        wrong(
            bits and kind not in ("bool", "uint16"),
            f"a {self.table} is one bit: its type is bool, not {kind}",
            f"{self.table} 只有一位：类型应为 bool，而不是 {kind}",
        )
        wrong(
            not bits and kind == "bool",
            "a register is 16 bits: write type uint16 and `bit:` at the signal",
            "寄存器为 16 位：请写 type: uint16，并在信号处写 `bit:`",
        )
        wrong(
            kind in ("string", "bytes") and self.length is None,
            f"type {kind} needs `length` in registers",
            f"类型 {kind} 需要 `length`（寄存器个数）",
        )
        wrong(
            len(self.order) == 8 and REGISTERS.get(kind) != 4,
            f"order {self.order} is of 64 bits: type int64, uint64 or float64, not {kind}",
            f"字节序 {self.order} 用于 64 位：类型应为 int64、uint64 或 float64，而不是 {kind}",
        )
        wrong(
            (kind == "datetime") != (self.layout is not None),
            f"type datetime and `layout` go together: write one of {', '.join(LAYOUTS)}",
            f"类型 datetime 与 `layout` 须同时使用：请写 {'、'.join(LAYOUTS)} 之一",
        )
        wrong(
            self.count is not None and (bits or kind in ("int8", "uint8") or kind not in REGISTERS),
            f"`count` makes an array of numbers of one register or more, not of {'bits' if bits else kind}",
            f"`count` 只用于占一个或多个寄存器的数值，不用于 {'位' if bits else kind}",
        )
        wrong(
            bool(self.fields) and (bits or kind not in _UNSIGNED or self.count is not None),
            "`fields` are bits of one unsigned number: type uint8, uint16, uint32 or uint64",
            "`fields` 是一个无符号数的各位：类型应为 uint8、uint16、uint32 或 uint64",
        )
        width = {"uint8": 8, "uint16": 16, "uint32": 32}.get(kind, 64)
        for name, (first, number) in self.named_bits.items():
            wrong(
                not re.fullmatch(r"\w[\w ./-]*", name),
                f"fields: {name!r} is no name: letters, digits, blanks and . / - _",
                f"fields：{name!r} 不是名称：请用字母、汉字、数字、空格和 . / - _",
            )
            wrong(
                first < 0 or number < 1 or first + number > width,
                f"fields: {name}: [{first}, {number}] does not lie within the {width} bits of a {kind}",
                f"fields：{name}：[{first}, {number}] 超出 {kind} 的 {width} 位",
            )
        wrong(
            bool(self.ratio or self.scale_by) and (bits or kind not in REGISTERS or bool(self.fields)),
            "`ratio` and `scale_by` multiply a number",
            "`ratio` 与 `scale_by` 只用于数值",
        )
        wrong(
            self.select is not None and self.table != "holding",
            f"`select` is for holding registers: function 23 does not read {self.table}",
            f"`select` 只用于保持寄存器：功能码 23 不读取 {self.table}",
        )
        wrong(
            self.select is not None and self.scale_by is not None and self.scale_by.address is not None,
            "with `select`, a register under `scale_by` might be read as that of another record: make the factor a signal, with or "
            "without a `select` of its own, and write its name there",
            "有 `select` 时，`scale_by` 中的寄存器可能属于另一条记录：请把系数设为一个信号（可带自己的 `select`），并在此写其名称",
        )
        unknown = sorted(self.faults.keys() - self.sentinels.keys())
        wrong(
            bool(unknown),
            f"faults: {unknown} are not among the `sentinels`, which give their StatusCodes",
            f"faults：{unknown} 不在给出状态码的 `sentinels` 之中",
        )
        if self.zone != "UTC":
            try:
                ZoneInfo(self.zone)
            except (LookupError, ValueError, OSError):  # no such zone, an impossible name, a folder's name
                wrong(
                    True,
                    f"{self.zone!r} is not a time zone: write such as Asia/Shanghai",
                    f"{self.zone!r} 不是时区：请写如 Asia/Shanghai",
                )
        wrong(
            self.registers > 125,
            f"the value takes {self.registers} registers: a read gives at most 125",
            f"该值占 {self.registers} 个寄存器：一次最多读 125 个",
        )
        wrong(
            self.wire + self.registers > 65536,
            f"address {self.wire} with {self.registers} registers reaches beyond 65535",
            f"地址 {self.wire} 加 {self.registers} 个寄存器超出 65535",
        )
        return found

    @property
    def place(self) -> str:
        """The table, with what is selected: values of one place may come from one request."""
        return self.table if self.select is None else f"{self.table}@{self.select}"

    @property
    def named_bits(self) -> dict[str, tuple[int, int]]:
        """Name -> first bit and number of bits of `fields`."""
        return {name: (place, 1) if isinstance(place, int) else place for name, place in self.fields.items()}

    @property
    def wire(self) -> int:
        """The zero-based address on the wire."""
        return self.address if self.address is not None else (self.number or 1) - 1

    @property
    def registers(self) -> int:
        """How many registers (or bits, in the bit tables) the value takes."""
        if self.table in ("coil", "discrete"):
            return 1
        if self.layout is not None:
            return LAYOUTS[self.layout]
        return REGISTERS.get(self.type, self.length or 1) * (self.count or 1)


class ModbusRules(Strict):
    """What a device type bears. Everything here may be overridden for a device."""

    max_registers: int = Field(default=125, ge=1, le=125, description="Largest read, in registers.")
    max_bits: int = Field(default=2000, ge=1, le=2000, description="Largest read, in coils or discrete inputs.")
    max_gap: int = Field(
        default=16, ge=0, le=124, description="Unused registers that may be read along to save a request."
    )
    pause: Duration = Field(default=0.0, description="Rest between two requests to this device.")
    timeout: Duration = Field(default=1.0, gt=0, description="How long an answer may take.")
    holes: tuple[tuple[int, int], ...] = Field(
        default=(), description="Ranges [first, last] of wire addresses that must not be read, in any table.",
    )  # fmt: skip
    identification: bool | None = Field(
        default=None,
        description="Ask the device after each connect who it is (function 43/14), so that an exchanged device is noticed. By itself only a device "
        "that has a Modbus TCP connection to itself: on serial lines, also behind a gateway, there are units that lose the beat over a function "
        "that they do not know. true where the manual has the function; false: never.",
    )
    ratios: dict[str, float] = Field(
        default_factory=dict,
        description="Ratios of this device's transformers and the like, by the names that addresses give under `ratio`: {ct: 40, pt: 1}.",
    )

    @field_validator("holes")
    @classmethod
    def _forward(cls, holes: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        for first, last in holes:
            if (
                not 0 <= first <= last <= 65535
            ):  # it would forbid nothing, and what must not be read would be read along
                raise ValueError(
                    Bilingual(
                        f"holes: [{first}, {last}] is no range: write [first, last], wire addresses from 0 to 65535",
                        f"holes：[{first}, {last}] 不是区间：请写 [起始, 结束]，报文地址 0 至 65535",
                    )
                )
        return holes
