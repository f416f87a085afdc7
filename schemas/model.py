"""What a workshop consists of: assets, devices, signals. ISA-95 gives the words (IEC 62264-1, equipment hierarchy).

These are configuration-time models (pydantic). What travels on the wire is in `schemas.wire`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.bilingual import Bilingual

ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
SIGNAL_PATTERN = r"^[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){0,7}$"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|min|m|h|d)")
_DURATION_US = {
    "us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000, "m": 60_000_000,
    "h": 3_600_000_000, "d": 86_400_000_000,
}  # fmt: skip


def parse_duration(value: Any) -> float:
    """Seconds of `500ms`, `1s`, `10min`, `2h`, `30d` or of a plain number of seconds."""
    if isinstance(value, bool):
        raise ValueError(
            Bilingual("expected a duration such as 500ms, 1s, 10min, 2h", "应为时长，如 500ms、1s、10min、2h")
        )
    if isinstance(value, int | float):
        return float(value)
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(
            Bilingual(
                f"{value!r} is not a duration: write it as 500ms, 1s, 10min, 2h or 30d",
                f"{value!r} 不是时长：请写成 500ms、1s、10min、2h 或 30d",
            )
        )
    return float(match[1]) * _DURATION_US[match[2]] / 1_000_000


Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    Field(ge=0, description="A duration: 500ms, 1s, 10min, 2h, 30d, or seconds."),
]


def _check_signal_name(name: str) -> str:
    if not re.fullmatch(SIGNAL_PATTERN, name) or len(name) > 120:
        raise ValueError(
            Bilingual(
                f"{name!r} is not a signal name: lower-case letters, digits, - and _, in parts separated by /, "
                "such as cycle/last_time",
                f"{name!r} 不是信号名：只能用小写字母、数字、- 和 _，各段以 / 分隔，如 cycle/last_time",
            )
        )
    return name


Id = Annotated[str, Field(pattern=ID_PATTERN, description="A stable id: lower-case letters, digits, - and _.")]
SignalName = Annotated[str, AfterValidator(_check_signal_name)]


class Strict(BaseModel):
    """Base of everything that people write: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Text(Strict):
    """A text in Chinese and English. One may be missing; then the other is shown."""

    zh: str = ""
    en: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, value: Any) -> Any:
        return {"zh": value, "en": value} if isinstance(value, str) else value

    def get(self, language: str) -> str:
        """The text in `language` (zh or en), else in the other."""
        first, second = (self.zh, self.en) if language.startswith("zh") else (self.en, self.zh)
        return first or second


Level = Literal["enterprise", "site", "area", "line", "cell", "machine", "unit"]
ValueType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "string", "bytes", "datetime", "array", "object",
]  # fmt: skip
INTEGER_TYPES = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
Kind = Literal["measurement", "counter", "state", "alarm", "setting", "text", "record"]


class Asset(Strict):
    """A piece of the workshop in the ISA-95 equipment hierarchy; two to seven levels (a small shop has no area, no line)."""

    id: Id
    name: Text = Text()
    parent: Id | None = None
    level: Level = "machine"


class Counter(Strict):
    """What a counter means; a decrease that no rule here explains is an event, never a delta."""

    counts: str = Field(description="What is counted: cycle, good part, bad part, energy, time…")
    per_count: float = Field(
        default=1, gt=0, description="How much one step of the counter stands for, in the signal's unit."
    )
    modulus: int | None = Field(default=None, gt=1, description="The value at which it rolls over to 0, e.g. 65536.")
    resets_on: tuple[Literal["job", "shift", "power", "operator"], ...] = Field(
        default=(), description="What may set it to zero; empty = nothing ever does.",
    )  # fmt: skip
    may_decrease: bool = Field(
        default=False, description="True when corrections book downwards (a good part re-booked as bad)."
    )
    max_rate: float | None = Field(default=None, gt=0, description="The greatest believable rise per second.")


class Deadband(Strict):
    """A change smaller than this is not stored. `percent` is of the span of `range` (OPC 10000-8 §7.2)."""

    absolute: float | None = Field(default=None, gt=0)
    percent: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _one(self) -> Deadband:
        if (self.absolute is None) == (self.percent is None):
            raise ValueError(
                Bilingual("a deadband is either absolute or percent", "死区只能是 absolute 或 percent 之一")
            )
        return self


class Signal(Strict):
    """One named quantity of a device: what its numbers mean, in the terms of the common schema.

    engineering value = raw * scale + offset, in `source_unit`, then converted to `unit`.
    """

    name: SignalName
    type: ValueType = "float64"
    unit: str = Field(default="", description="UCUM code or a known alias (℃, kWh, rpm, 件).")
    source_unit: str = Field(default="", description="The unit the device speaks, when it differs from `unit`.")
    kind: Kind = "measurement"
    description: Text = Text()
    semantic_id: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    bit: int | None = Field(
        default=None, ge=0, le=63, description="Take this one bit of an integer (0 = least significant)."
    )
    bits: tuple[int, int] | None = Field(default=None, description="Take [first bit, number of bits] of an integer.")
    enum: dict[int, Text] | None = Field(default=None, description="Texts of an enumeration's values.")
    range: tuple[float, float] | None = Field(default=None, description="Outside of it a value is stored as uncertain.")
    deadband: Deadband | None = None
    silence: Duration | None = Field(
        default=None, description="The longest time without a stored sample of an unchanged value."
    )
    store: Literal["change", "every"] = "change"
    counter: Counter | None = None
    asset: Id | None = Field(default=None, description="The asset this signal belongs to, when it is not its device's.")

    @model_validator(mode="after")
    def _coherent(self) -> Signal:
        if self.kind == "counter" and self.counter is None:
            raise ValueError(
                Bilingual(
                    f"signal {self.name}: kind counter needs a `counter:` section (counts: …)",
                    f"信号 {self.name}：kind 为 counter 时需要 `counter:` 段（counts: …）",
                )
            )
        if self.bit is not None and self.bits is not None:
            raise ValueError(
                Bilingual(
                    f"signal {self.name}: give `bit` or `bits`, not both",
                    f"信号 {self.name}：`bit` 与 `bits` 只能写一个",
                )
            )
        if self.deadband is not None and self.deadband.percent is not None and self.range is None:
            raise ValueError(
                Bilingual(
                    f"signal {self.name}: a deadband in percent needs a `range`",
                    f"信号 {self.name}：以百分比表示的死区需要 `range`",
                )
            )
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(
                Bilingual(
                    f"signal {self.name}: range {list(self.range)}: the lower bound comes first",
                    f"信号 {self.name}：range {list(self.range)}：下限应写在前面",
                )
            )
        return self

    def revision(self, address: dict[str, Any]) -> str:
        """Hash (16 hex digits) of what changes the meaning of stored numbers: type, unit, scale, address, texts."""
        meaning = self.model_dump(
            mode="json",
            include={"type", "unit", "source_unit", "kind", "scale", "offset", "bit", "bits", "enum", "counter"},
        )
        canonical = json.dumps(
            [meaning, address], sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
