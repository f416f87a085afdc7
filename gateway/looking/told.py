"""What was read, in the shape in which the API tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from adapters.contract import AdapterError
from gateway.api.values import to_plain
from gateway.looking.questions import FailedLookError, Failure, Language, Mistake
from gateway.looking.shapes import OtherReading, TestRead
from schemas.bilingual import chinese, of_error
from schemas.documents import DocumentError
from schemas.status import info, quality
from schemas.times import to_rfc3339

if TYPE_CHECKING:
    from gateway.points.testread import ModbusTest

BRIEF: Final = (200, 20)
"""Characters of a text and items of an array that are shown in a list;"""
WHOLE: Final = (16_000, 2_000)
"""and of a value that somebody has asked for."""
_DEEP: Final = 8


def shown(value: Any, most: tuple[int, int] = BRIEF) -> Any:
    """A value as JSON has it (integers beyond 2^53 as text), cut where it is long."""
    return to_plain(_cut(value, most, _DEEP), int64_text=True)


def _cut(value: Any, most: tuple[int, int], deep: int) -> Any:
    characters, items = most
    if isinstance(value, str):
        return value if len(value) <= characters else value[:characters] + "…"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:characters])
    if isinstance(value, list | tuple):
        kept = [_cut(item, most, deep - 1) for item in value[:items]] if deep else []
        return kept if len(kept) == len(value) else [*kept, "…"]
    if isinstance(value, dict):
        return {str(k): _cut(v, most, deep - 1) for k, v in list(value.items())[:items]} if deep else "…"
    return value


def needs_selector(select: object) -> FailedLookError:
    """Why an address that another register selects is not test-read: what would be shown is any record's."""
    found = str(select)
    return FailedLookError(
        "invalid",
        f"address.select: found {found!r}, expected none: a test-read writes nothing, and without it any record might be shown. Add the signal, "
        "and look at its value",
        f"address.select：收到 {found!r}，试读时不能使用：试读不写入，若不写选择寄存器，显示的可能是任一记录。请先添加该信号，再查看其值",
        mistakes=[Mistake(found, "none", "无", "address.select")],
    )


def text_of(value: Any) -> str:
    """A value in a few characters, for people."""
    from gateway.points.testread import written

    plain = shown(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return "" if value is None else plain if isinstance(plain, str) else written(plain)


def moment(us: int | None) -> str | None:
    """A time in µs as the API writes it; None for one that no calendar has."""
    try:
        return None if us is None else to_rfc3339(us)
    except (OverflowError, ValueError):
        return None


def reading(
    lang: Language, status: int, value: Any, received: int, *, type: str, signal_type: str, unit: str = "", name: str = "",
    node: str = "", source_ts: int | None = None, server_ts: int | None = None, **more: Any,
) -> TestRead:  # fmt: skip
    """A value with what its status means; times in µs. `more` are further members of the shape."""
    said = info(status)
    zh = lang == "zh"
    return TestRead(
        status=status, status_name=said.name, status_text=said.text_zh if zh else said.text_en, quality=quality(status),
        fix=said.fix_zh if zh else said.fix_en, value=shown(value, WHOLE), text=text_of(value), type=type,
        signal_type=signal_type, unit=unit, name=name, node=node, source_ts=moment(source_ts), server_ts=moment(server_ts),
        received_at=to_rfc3339(received), **more,
    )  # fmt: skip


def of_modbus(lang: Language, found: ModbusTest, **more: Any) -> TestRead:
    """A Modbus address that was read."""
    address = found.address
    signal_type = "bool" if address.table in ("coil", "discrete") else address.type
    others = [OtherReading(r.type, r.order, shown(r.value), text_of(r.value)) for r in found.others]
    return reading(
        lang, found.status, found.value, found.received, type=address.type, signal_type=signal_type,
        registers=list(found.registers) or None, raw=found.raw.hex() or None, others=others, **more,
    )  # fmt: skip


def failure_of(error: AdapterError) -> Failure:
    """What an adapter says, with its fix."""
    text = of_error(error)
    return Failure(error.reason, str(text), chinese(text), error.fix_en, error.fix_zh, details=dict(error.details))


def invalid(where: str, error: DocumentError, lang: Language) -> FailedLookError:
    """Mistakes in what was asked; `where` is the name of the part of the question."""
    mistakes = []
    for problem in error.problems:
        bare = replace(problem, file="", path="", line=None)
        mistakes.append(
            Mistake(None, bare.text(lang), parameter=".".join(part for part in (where, problem.path) if part))
        )
    first = replace(error.problems[0], file=where, line=None)
    return FailedLookError("invalid", first.text("en"), first.text("zh"), mistakes=mistakes)
