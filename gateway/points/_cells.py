"""What one cell means: people's widths, Excel's manglings, and what to write instead, in Chinese and English."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.points.columns import CellKind, Choices, Column
from schemas.documents import nearest
from schemas.model import ID_PATTERN, SIGNAL_PATTERN, Text, parse_duration
from schemas.profile import OpcUaAddress


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as the file holds it: its value (text, number, truth, date or None), where it is (F12), and its number format."""

    value: Any
    place: str
    format: str = ""


class CellError(ValueError):
    """A cell that cannot be used: what was found, and what to write instead."""

    def __init__(self, found: str, zh: str, en: str) -> None:
        super().__init__(f"{found}: {en}")
        self.found = found
        self.text = Text(zh=zh, en=en)


_INVISIBLE: Final = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
_MANGLED: Final = re.compile(r"[+-]?\d(?:\.\d+)?E\+?\d{2,}")
_DATE: Final = re.compile(
    r"\d{1,4}[-/年]\d{1,2}(?:[-/月]\d{1,4}日?)?|\d{1,2}月\d{1,2}日|\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{2}"
)
_EXCEL_ERROR: Final = re.compile(r"#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|SPILL!)")
_EXACT: Final = 10**15
"""Excel keeps fifteen digits of a number; a longer one has lost its end."""


FORMULA: Final = object()
"""The value of a formula whose result the file does not hold."""


def blank(cell: Cell | None) -> bool:
    """Whether there is nothing in a cell but blanks."""
    return cell is None or cell.value is None or (isinstance(cell.value, str) and not _stripped(cell.value))


def _stripped(text: str) -> str:
    return text.translate(_INVISIBLE).strip()


def narrow(text: str) -> str:
    """Full-width digits, letters and signs as usual ones, without blanks at the ends."""
    return _stripped(unicodedata.normalize("NFKC", text))


def shown(value: Any) -> str:
    """A cell's value as a message shows it."""
    text = value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value)
    return repr(text if len(text) <= 40 else text[:37] + "…")


def parse(column: Column, cell: Cell) -> Any:
    """The cell's value as the configuration has it. Raises CellError; a blank cell is the caller's."""
    value = cell.value
    if value is FORMULA:
        raise CellError(
            "", "公式没有保存结果；请复制后“粘贴为值”", "a formula without a value: copy it and paste it as a value"
        )
    if isinstance(value, str):
        value = _stripped(value)
        if _EXCEL_ERROR.fullmatch(value):
            raise CellError(
                shown(value), "这是 Excel 的公式错误；请直接填写值", "an error of a formula: write the value itself"
            )
    if column.kind in ("int", "register", "number", "duration", "deadband"):
        return _NUMERIC[column.kind](column, value, cell)
    if column.kind == "bool" and isinstance(value, bool):
        return value
    return _TEXTUAL[column.kind](column, _as_text(column, value, cell))


def _as_text(column: Column, value: Any, cell: Cell) -> str:
    """The text of a cell that should hold one, unless Excel has made something else of it."""
    if isinstance(value, dt.datetime | dt.date | dt.time):
        raise CellError(
            shown(value),
            "Excel 把它变成了日期；请先将该单元格设为“文本”格式，再重新输入原来的内容",
            "Excel has made a date of it: set the cell's format to Text, then type it again",
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if abs(value) >= _EXACT:
            raise _mangled(value)
        text = str(int(value)) if float(value).is_integer() else repr(value)
        if re.fullmatch("0+", cell.format):
            text = text.zfill(len(cell.format))  # what the cell shows is what was meant
        return text
    text = str(value)
    if column.kind in ("id", "signal", "code") and _MANGLED.fullmatch(narrow(text)):
        raise _mangled(text)
    return text


def _mangled(value: Any) -> CellError:
    text = f"{value:.2E}" if isinstance(value, int | float) else str(value)
    return CellError(
        repr(text),
        "Excel 把长编号变成了数字，后面的位数已丢失；请将该列设为“文本”格式，再重新输入完整编号",
        "Excel has made a number of a long id and lost its last digits: set the column's format to Text, then write it again",
    )


# ------------------------------------------------------------------------------------------------------------- numbers


def _number(column: Column, value: Any, cell: Cell) -> float:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        raise CellError(
            shown(value),
            "Excel 把它变成了日期；请将单元格设为“常规”格式，再重新输入数字",
            "Excel has made a date of it: set the cell's format to General, then type the number again",
        )
    if not isinstance(value, bool):
        try:
            return float(narrow(value).replace("−", "-")) if isinstance(value, str) else float(value)
        except ValueError:
            pass
    raise CellError(shown(value), "请填写数字，如 0.1", "write a number such as 0.1")


def _int(column: Column, value: Any, cell: Cell) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", narrow(value)):
        return int(narrow(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= _EXACT:
        raise _mangled(value)
    number = _number(column, value, cell)
    if not number.is_integer() or abs(number) >= _EXACT:
        raise CellError(shown(value), "请填写整数", "write a whole number")
    return int(number)


def _register(column: Column, value: Any, cell: Cell) -> int:
    if isinstance(value, str):
        text = narrow(value).lower()
        match = re.fullmatch(r"0x([0-9a-f]+)|([0-9a-f]+)h", text)
        if match:
            return int(match[1] or match[2], 16)
        if re.fullmatch(r"[0-9a-f]*[a-f][0-9a-f]*", text):
            raise CellError(
                shown(value), f"十六进制地址请写成 0x{text.upper()}", f"write a hexadecimal address as 0x{text.upper()}"
            )
    number = _int(column, value, cell)
    if number > 65536:
        digits = str(number)
        table = {"4": "保持寄存器 holding", "3": "输入寄存器 input", "1": "离散输入 discrete"}.get(digits[0])
        if len(digits) == 6 and table:
            rest = int(digits[1:])
            raise CellError(
                shown(value),
                f"前缀 {digits[0]} 表示{table}：请在“寄存器区”选择它，并在“编号（从1起）”填写 {rest}",
                f"the digit {digits[0]} means {table}: choose it under table, and write {rest} under number (from 1)",
            )
        raise CellError(shown(value), "地址最大为 65535", "an address is at most 65535")
    if number < 0:
        raise CellError(shown(value), "地址不能为负数", "an address is not negative")
    return number


def _duration(column: Column, value: Any, cell: Cell) -> float:
    if isinstance(value, str):
        text = narrow(value).lower()
        for word, unit in (("毫秒", "ms"), ("分钟", "min"), ("小时", "h"), ("秒", "s"), ("天", "d")):
            text = text.replace(word, unit)
        try:
            return float(text) if re.fullmatch(r"\d+(\.\d*)?(e-?\d+)?", text) else parse_duration(text)
        except ValueError:
            raise CellError(
                shown(value), "请写成 500ms、1s、10min 或秒数", "write 500ms, 1s, 10min or seconds"
            ) from None
    number = _number(column, value, cell)
    if number < 0:
        raise CellError(shown(value), "时间不能为负数", "a duration is not negative")
    return number


def _deadband(column: Column, value: Any, cell: Cell) -> dict[str, float]:
    percent = "%" in cell.format and not isinstance(value, str)
    if isinstance(value, str) and narrow(value).endswith("%"):
        value, percent = narrow(value)[:-1], True
        number = _number(column, value, cell)
    else:
        number = _number(column, value, cell) * (100 if percent else 1)
    if number <= 0 or (percent and number > 100):
        raise CellError(
            shown(value), "死区须大于 0（百分比不超过 100%）", "a deadband is above 0, in percent at most 100%"
        )
    return {"percent": number} if percent else {"absolute": number}


# --------------------------------------------------------------------------------------------------------------- texts


def _id(column: Column, text: str) -> str:
    plain = narrow(text)
    if re.fullmatch(ID_PATTERN, plain):
        return plain
    return _named(column, plain, re.sub(r"[^a-z0-9_-]+", "-", plain.lower()).strip("-_")[:63], ID_PATTERN)


def _signal(column: Column, text: str) -> str:
    plain = narrow(text)
    if re.fullmatch(SIGNAL_PATTERN, plain) and len(plain) <= 120:
        return plain
    better = "/".join(re.sub(r"[^a-z0-9_-]+", "_", part.lower()).strip("-_") for part in plain.split("/"))
    return _named(column, plain, better, SIGNAL_PATTERN)


def _named(column: Column, text: str, better: str, pattern: str) -> str:
    if _DATE.fullmatch(text):
        raise CellError(
            shown(text),
            "看起来是 Excel 由编号变成的日期；请将单元格设为“文本”格式，再重新输入",
            "it looks like a date that Excel made of an id: set the cell's format to Text, then type it again",
        )
    zh = "信号名" if pattern == SIGNAL_PATTERN else "编号"
    en = "a name" if pattern == SIGNAL_PATTERN else "an id"
    hint_zh = f"；可写成 {better}" if re.fullmatch(pattern, better) else "；如 imm-01、cycle/last_time"
    hint_en = f"; write {better}" if re.fullmatch(pattern, better) else ", such as imm-01 or cycle/last_time"
    raise CellError(
        shown(text),
        f"{zh}只能用小写字母、数字、- 和 _{'，用 / 分段' if pattern == SIGNAL_PATTERN else ''}{hint_zh}",
        f"{en} has lower-case letters, digits, - and _ only{' in parts separated by /' if pattern == SIGNAL_PATTERN else ''}{hint_en}",
    )


def _text(column: Column, text: str) -> str:
    return text


def _code(column: Column, text: str) -> str:
    # units keep their signs (℃, m³): schemas.units knows them
    return text if column.key in ("unit", "source_unit", "profile", "group") else narrow(text)


def _node(column: Column, text: str) -> str:
    for candidate in (text, narrow(text)):
        try:
            OpcUaAddress(node=candidate)
        except ValueError:
            continue
        return candidate
    if text.startswith(("nsu=", "ns=", "i=", "s=")) is False and re.fullmatch(r"\d+", narrow(text)):
        hint = f"i={narrow(text)}"
    else:
        hint = "ns=2;s=…"
    raise CellError(
        shown(text),
        f"这不是 NodeId；请写成 nsu=URI;s=名称、ns=2;s=名称 或 i=2258（例如 {hint}）",
        f"this is no NodeId: write nsu=URI;s=NAME, ns=2;s=NAME or i=2258 (for instance {hint})",
    )


def chosen(choices: Choices, text: str) -> str | None:
    """The stored form of a choice, in any width and case, or of what else it is called."""
    wanted = narrow(text).casefold()
    for canonical in choices:
        if wanted == canonical.casefold():
            return canonical
    for canonical, others in choices.items():
        if wanted in others:
            return canonical
    return None


def _choice(column: Column, text: str) -> str:
    found = chosen(column.choices, text)
    if found is not None:
        return found
    listed = ", ".join(column.choices)
    near = nearest(narrow(text), [*column.choices, *(o for others in column.choices.values() for o in others)])
    near = chosen(column.choices, near) or "" if near else ""
    raise CellError(
        shown(text),
        f"请填写以下之一：{listed}" + (f"；是否想填 {near}？" if near else ""),
        f"write one of {listed}" + (f"; did you mean {near}?" if near else ""),
    )


_TRUTH: Final = {
    "true": True, "是": True, "yes": True, "y": True, "1": True, "√": True,
    "false": False, "否": False, "no": False, "n": False, "0": False, "×": False,
}  # fmt: skip


def _bool(column: Column, text: str) -> bool:
    found = _TRUTH.get(narrow(text).casefold())
    if found is None:
        raise CellError(shown(text), "请填写 是 或 否", "write yes or no")
    return found


def split(text: str, separators: str) -> list[str]:
    """The parts between separators that have no backslash before them; backslashes stay."""
    parts, escaped = [""], False
    for character in text:
        if character in separators and not escaped:
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "\\" and not escaped
    return parts


def unescaped(text: str) -> str:
    """Without the backslashes that protected separators."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def escaped(text: str) -> str:
    """A text whose separators are protected by backslashes."""
    return re.sub(r"([\\;；=|])", r"\\\1", text)


def _enum(column: Column, text: str) -> dict[int, dict[str, str]]:
    result: dict[int, dict[str, str]] = {}
    for part in split(text, ";；\n"):
        if not part.strip():
            continue
        key, *rest = split(part.replace("＝", "="), "=")
        number = narrow(key)
        if len(rest) != 1 or not re.fullmatch(r"-?\d+", number):
            raise CellError(
                shown(part),
                "请写成 0=停止; 1=运行，中英文用 | 隔开",
                "write 0=stopped; 1=running, Chinese and English separated by |",
            )
        if int(number) in result:
            raise CellError(shown(part), f"值 {number} 写了两次", f"the value {number} is there twice")
        words = [unescaped(word).strip() for word in split(rest[0], "|")]
        result[int(number)] = {"zh": words[0], "en": words[1] if len(words) > 1 else words[0]}
    return result


def _pairs(column: Column, text: str) -> dict[str, str]:
    result: dict[str, str] = {}
    for part in split(text, ";；\n"):
        name, equals, rest = part.replace("＝", "=").partition("=")
        if not part.strip():
            continue
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", narrow(name)) or not rest.strip():
            raise CellError(
                shown(part), "请写成 前缀=URI，多个用分号隔开", "write prefix=URI, several separated by semicolons"
            )
        result[narrow(name)] = unescaped(rest).strip()
    return result


def _sentinels(column: Column, text: str) -> dict[int, str]:
    from schemas.status import by_name

    result: dict[int, str] = {}
    for part in re.split("[;；,，]", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"(0x[0-9a-f]+|\d+)\s*=\s*([a-z]+)", narrow(part), re.IGNORECASE)
        try:
            if match is None:
                raise ValueError("form")
            by_name(match[2])
        except ValueError as error:
            why = "" if match is None else f" ({error})"
            raise CellError(
                shown(part), f"请写成 0x7FFF=BadSensorFailure{why}", f"write 0x7FFF=BadSensorFailure{why}"
            ) from None
        result[int(match[1], 0 if match[1].lower().startswith("0x") else 10)] = match[2]
    return result


def _bits(column: Column, text: str) -> list[int]:
    numbers = re.findall(r"\d+", narrow(text))
    if not re.fullmatch(r"\d+\s*[,;、~ ]\s*\d+", narrow(text).replace("，", ",")):
        raise CellError(shown(text), "请写成 起始位,位数，如 4,3", "write first bit,number of bits, such as 4,3")
    return [int(number) for number in numbers]


def _fields(column: Column, text: str) -> dict[str, list[int]]:
    result: dict[str, list[int]] = {}
    for part in re.split("[;；\n]", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"(\S.*?)\s*=\s*(\d+)(?:\s*[,、]\s*(\d+))?", narrow(part))
        if match is None or match[1] in result:
            raise CellError(
                shown(part),
                "请写成 running=0; mode=4,3（起始位,位数），名称不重复",
                "write running=0; mode=4,3 (first bit,number of bits), each name once",
            )
        result[match[1]] = [int(match[2]), int(match[3] or 1)]
    return result


def _words(column: Column, text: str) -> list[str]:
    return [word for word in re.split(r"[,，;；、\s]+", narrow(text)) if word]


def _factor(column: Column, text: str) -> str:
    from schemas.modbus import ScaleBy

    try:
        return str(ScaleBy.model_validate(narrow(text)))
    except ValueError:
        raise CellError(
            shown(text),
            "请写信号名，或如 holding 6 uint16 *0.1、input 49 int16 exponent",
            "write a signal, or such as holding 6 uint16 *0.1, input 49 int16 exponent",
        ) from None


def _selector(column: Column, text: str) -> str:
    from schemas.modbus import Select

    try:
        return str(Select.model_validate(narrow(text).replace(" ", "")))
    except ValueError:
        raise CellError(
            shown(text),
            "请写成 0x200=3（选择寄存器的报文地址=数值）",
            "write such as 0x200=3 (wire address of the selector=number)",
        ) from None


def _ratios(column: Column, text: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for part in re.split(r"[;；,，\n]", text):
        if not part.strip():
            continue
        name, equals, number = (piece.strip() for piece in narrow(part).partition("="))
        try:
            if not name or not equals or name in result:
                raise ValueError("form")
            result[name] = float(number)
        except ValueError:
            raise CellError(
                shown(part), "请写成 ct=40; pt=1，名称不重复", "write such as ct=40; pt=1, each name once"
            ) from None
    return result


_RESETS: Final[Choices] = {
    "job": ("工单", "换单", "作业"), "shift": ("班次", "换班"), "power": ("断电", "上电"), "operator": ("人工", "操作员"),
}  # fmt: skip


def _resets(column: Column, text: str) -> list[str]:
    result: list[str] = []
    for part in re.split(r"[,，;；、\s]+", text):
        found = chosen(_RESETS, part) if part else None
        if part and found is None:
            raise CellError(shown(part), "请填写 job、shift、power 或 operator", "write job, shift, power or operator")
        if found is not None and found not in result:
            result.append(found)
    return result


_NUMERIC: Final[dict[CellKind, Callable[[Column, Any, Cell], Any]]] = {
    "int": _int, "register": _register, "number": _number, "duration": _duration, "deadband": _deadband,
}  # fmt: skip
_TEXTUAL: Final[dict[CellKind, Callable[[Column, str], Any]]] = {
    "id": _id, "signal": _signal, "text": _text, "code": _code, "node": _node, "path": _text, "choice": _choice,
    "bool": _bool, "enum": _enum, "pairs": _pairs, "sentinels": _sentinels, "bits": _bits, "resets": _resets,
    "fields": _fields, "words": _words, "factor": _factor, "selector": _selector, "ratios": _ratios,
}  # fmt: skip
