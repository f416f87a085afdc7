"""Units of measurement: what people write, the UCUM code it stands for, and exact conversion within one quantity.

The canonical form of a unit is a code of UCUM (the Unified Code for Units of Measure, version 2.2). The common units of
a workshop come from ``data/units.csv`` and cost no import; any other valid code is understood through the library
ucumvert, which is loaded only then. A unit belongs to one named *quantity*, which is finer than its dimension: active,
apparent and reactive power share the dimension of the watt and never convert into each other, nor do counts of
different things. docs/decisions/0002-units.md says why and how codes such as ``kV.A{reactive}`` came about.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from schemas.bilingual import Bilingual, chinese, of_error

_DATA: Final = Path(__file__).with_name("data") / "units.csv"


class UnitError(ValueError):
    """A text that is no unit, or that may mean several, or a conversion between different quantities."""


class Unit(NamedTuple):
    """One unit. A value `x` in it is `x * scale + offset` in the coherent unit of its `quantity` (kelvin for
    temperature, kilogram for mass, volt ampere for all kinds of power, one for counts); both are exact, except
    where pi is in them (then 50 digits are right). For levels such as dB the coherent unit is the unit itself.

    `code` is the UCUM code and resolves to this unit again, `symbol` is what a display shows.
    """

    code: str
    quantity: str
    scale: Fraction
    offset: Fraction
    symbol: str
    name_en: str
    name_zh: str


@lru_cache(maxsize=4096)
def resolve(text: str) -> Unit:
    """The unit that a text means: an alias in Chinese or English ("℃", "kWh", "件/小时"), or a UCUM code.

    Full-width and compatibility characters, spaces, kinds of dots, slashes and superscripts make no difference; upper
    and lower case make one only where it decides (mPa and MPa, MS and ms). Raises UnitError for a text that is
    unknown, with the nearest known ones, and for one that people use for different things ("度", "C", "PA").
    """
    key = normalise(text)
    if not key:
        raise UnitError(
            Bilingual(
                f"unit {text!r} is empty: leave the unit out, or write 1 for a pure number",
                f"单位 {text!r} 为空：请省略单位，纯数请写 1",
            )
        )
    _refuse_ambiguous(key, text)
    found = _lookup(key, text)
    if found is not None:
        return found
    from schemas import _ucum  # brings in ucumvert and pint: 30 MB that a gateway with common units does not pay

    code = _composed(key, text)
    if code in _index().exact:
        return _index().exact[code]
    _refuse_ambiguous(code, text)
    try:
        return _ucum.derive(code)
    except _ucum.NotUcum as error:
        why, near = of_error(error), _nearest(key)
        raise UnitError(
            Bilingual(
                f"unit {text!r} is neither a known alias nor a valid UCUM code ({why}); {near}",
                f"单位 {text!r} 既不是已知写法，也不是有效的 UCUM 代码（{chinese(why)}）；{chinese(near)}",
            )
        ) from error


def conversion(source: Unit, target: Unit) -> tuple[float, float]:
    """Scale and offset such that a value in `target` is `value * scale + offset`, a value in `source` being given.

    Computed exactly and rounded once to the nearest floats. Raises UnitError if the units measure different quantities.
    """
    if source.quantity != target.quantity:
        pair = frozenset((source.quantity, target.quantity))
        why = next((reason for kinds, reason in _REASONS if pair <= kinds), _NOTHING)
        source_en, target_en = _spoken(source.quantity), _spoken(target.quantity)
        source_zh, target_zh = source.name_zh, target.name_zh
        raise UnitError(
            Bilingual(
                f"cannot convert {source.symbol} ({source.code}, {source_en}) to {target.symbol} "
                f"({target.code}, {target_en}): {why}",
                f"无法将 {source.symbol}（{source.code}，{source_zh}）换算为 {target.symbol}（{target.code}，{target_zh}）："
                f"{chinese(why)}",
            )
        )
    return float(source.scale / target.scale), float((source.offset - target.offset) / target.scale)


def table() -> dict[str, Unit]:
    """All units of the committed table by UCUM code, in the order of the file."""
    return dict(_index().units)


def aliases(code: str) -> tuple[str, ...]:
    """What people may write for a unit of the table, as they write it: its code, symbol, names and aliases. Raises
    KeyError for a code that is not in the table."""
    return _index().written[code]


def normalise(text: str) -> str:
    """The form in which aliases are compared: no spaces, no compatibility characters, one kind of dot and slash."""
    text = _POWER_OF_TEN.sub(lambda match: "10*" + match.group(1), text.translate(_BEFORE))
    text = "".join(unicodedata.normalize("NFKC", text).split()).translate(_AFTER)
    if "[" in text:  # bracketed UCUM atoms hold carets and quotes of their own
        return text
    return _STAR.sub(".", _CARET.sub("", text.replace("**", "^")))


_POWER_OF_TEN: Final = re.compile("(?<![0-9])10([⁻⁺]?[⁰¹²³⁴-⁹]+)")
_CARET: Final = re.compile(r"(?<!10)\^")
_STAR: Final = re.compile(r"(?<!10)\*")
# ordinal indicator and ring above are typed for the degree sign; NFKC would turn them into a letter and a blank
_BEFORE: Final = str.maketrans({"º": "°", "˚": "°", "∆": "Δ", "△": "Δ"})
_AFTER: Final = str.maketrans(
    dict.fromkeys("·•⋅∙・‧×", ".")
    | dict.fromkeys("∕⁄÷每", "/")
    | dict.fromkeys("−‐‑‒–", "-")
    | {"μ": "u", "Ω": "Ohm", "′": "'", "’": "'", "″": "''", "”": "''"}
)

AMBIGUOUS: Final[dict[str, tuple[str, ...]]] = {
    "度": ("℃ (摄氏度)", "kWh (度电)", "deg (角度)"),
    "分": ("min (分钟)", "' (角分)"),
    "C": (Bilingual("℃ for degrees Celsius", "℃（摄氏度）"), Bilingual("A.s for coulombs", "A.s（库仑）")),
    "F": (Bilingual("℉ for degrees Fahrenheit", "℉（华氏度）"), Bilingual("A.s/V for farads", "A.s/V（法拉）")),
    "S": (Bilingual("s for seconds", "s（秒）"), Bilingual("Ohm-1 for siemens", "Ohm-1（西门子）")),
    "H": (Bilingual("h for hours", "h（小时）"), Bilingual("V.s/A for henrys", "V.s/A（亨利）")),
    "T": (Bilingual("t for tonnes", "t（吨）"), Bilingual("V.s/m2 for teslas", "V.s/m2（特斯拉）")),
    "G": (
        Bilingual("g for grams", "g（克）"),
        Bilingual("[g] for the acceleration of gravity", "[g]（重力加速度）"),
        Bilingual("10*-4.V.s/m2 for gauss", "10*-4.V.s/m2（高斯）"),
    ),
    "k": (Bilingual("K for kelvins", "K（开尔文）"), Bilingual("the unit behind the prefix k", "词头 k 之后的单位")),
    "M": (Bilingual("m for metres", "m（米）"), Bilingual("min for minutes", "min（分钟）")),
    "spm": (Bilingual("冲次/分 for strokes of a press", "冲次/分"), Bilingual("针/分 for stitches", "针/分")),
    "kg/cm2": (
        Bilingual("kgf/cm2 for a pressure", "kgf/cm2（压力）"),
        Bilingual("10*4.kg/m2 for a mass per area", "10*4.kg/m2（单位面积质量）"),
    ),
    "kg/mm2": (
        Bilingual("kgf/mm2 for a pressure", "kgf/mm2（压力）"),
        Bilingual("10*6.kg/m2 for a mass per area", "10*6.kg/m2（单位面积质量）"),
    ),
}
"""Normalised texts that are refused, and what to write instead. Some are valid UCUM codes, but hardly ever meant so."""

_NOTHING: Final = Bilingual("nothing converts one into the other", "两者之间不能换算")
_POWERS: Final = frozenset({"active_power", "apparent_power", "reactive_power"})
_ENERGIES: Final = frozenset({"energy", "apparent_energy", "reactive_energy"})
_GAS: Final = Bilingual("it needs the pressure and temperature of the gas", "换算需要气体的压力和温度")
_REASONS: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (
        _POWERS,
        Bilingual(
            "active, apparent and reactive power depend on each other only through the power factor",
            "有功、视在与无功功率之间还取决于功率因数",
        ),
    ),
    (
        _ENERGIES,
        Bilingual("active, apparent and reactive energy are counted apart", "有功、视在与无功电能分别计量"),
    ),
    (
        frozenset({"energy", "torque"}),
        Bilingual("a torque is no energy although both are newtons times metres", "扭矩不是能量，尽管两者都是牛顿乘米"),
    ),
    (
        frozenset({"active_power", "energy"}),
        Bilingual(
            "an energy is a power times a time: perhaps kW and kWh were mixed up",
            "能量等于功率乘以时间：可能混淆了 kW 与 kWh",
        ),
    ),
    (
        frozenset({"mass", "force"}),
        Bilingual("a mass is no force: write kgf or tf (吨力) for a force", "质量不是力：表示力请写 kgf 或 tf（吨力）"),
    ),
    (
        frozenset({"frequency", "rotational_speed"}),
        Bilingual(
            "an electrical frequency is no speed of a shaft: it needs the pole count",
            "电频率不是轴的转速：换算需要极数",
        ),
    ),
    (
        frozenset({"angular_velocity", "rotational_speed"}),
        Bilingual("turns are counted, angles are measured", "转数是计数，角度是测量"),
    ),
    (
        frozenset({"temperature", "temperature_difference"}),
        Bilingual("a difference has no zero point", "温差没有零点"),
    ),
    (frozenset({"volume_flow", "normal_volume_flow"}), _GAS),
    (frozenset({"volume", "normal_volume"}), _GAS),
)


class _Index(NamedTuple):
    units: dict[str, Unit]
    exact: dict[str, Unit]
    folded: dict[str, dict[str, Unit]]  # case-folded alias to the aliases that fold to it
    written: dict[str, tuple[str, ...]]


@cache
def _index() -> _Index:
    """The table. An alias of two units is a mistake in the file and raises ValueError."""
    import csv  # needed once

    index = _Index({}, {}, {}, {})
    with _DATA.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            unit = Unit(
                row["code"], row["quantity"], _number(row["scale"]), _number(row["offset"]),
                row["symbol"], row["name_en"], row["name_zh"],
            )  # fmt: skip
            texts = (unit.code, unit.symbol, unit.name_en, unit.name_zh, *row["aliases"].split())
            index.units[unit.code] = unit
            index.written[unit.code] = tuple(dict.fromkeys(texts))
            for text in texts:
                key = normalise(text)
                if index.exact.setdefault(key, unit) is not unit:
                    raise ValueError(f"{_DATA.name}: {text!r} stands for {index.exact[key].code} and {unit.code}")
                index.folded.setdefault(key.casefold(), {})[key] = unit
    return index


_PI: Final = "3.14159265358979323846264338327950288419716939937510"


def _number(text: str) -> Fraction:
    """An exact number of the table: decimals and ``pi``, divided from left to right."""
    first, *divisors = (Fraction(_PI if part == "pi" else part) for part in text.split("/"))
    for divisor in divisors:
        first /= divisor
    return first


def _lookup(key: str, text: str) -> Unit | None:
    """The unit of the table that a normalised text means, in any case of letters where that is safe."""
    index = _index()
    exact = index.exact.get(key)
    if exact is not None:
        return exact
    near = index.folded.get(key.casefold())
    if near is None:
        return None
    if {alias[0] for alias in near} == {"m", "M"} and not key.isupper() and not key.islower():
        near = {alias: unit for alias, unit in near.items() if alias[0] == key[0]}  # Mpa is MPa, mPA is mPa
    alias, unit = next(iter(near.items()))
    if len({unit.code for unit in near.values()}) > 1:
        meanings = " or ".join(f"{alias} ({unit.name_en}, {unit.name_zh})" for alias, unit in near.items())
        meanings_zh = " 或 ".join(f"{alias}（{unit.name_zh}）" for alias, unit in near.items())
        raise UnitError(
            Bilingual(
                f"unit {text!r} may mean several things by its upper and lower case: write {meanings}",
                f"单位 {text!r} 因大小写可有多种含义：请写 {meanings_zh}",
            )
        )
    if _spelled_like_ucum(key):
        raise UnitError(
            Bilingual(
                f"unit {text!r} is a UCUM code of its own, but looks like {alias} ({unit.name_en}, {unit.name_zh}): write "
                f"{alias} if that is meant, else the prefix as a factor, such as 10*6 for M",
                f"单位 {text!r} 本身是 UCUM 代码，但与 {alias}（{unit.name_zh}）相似：若指后者请写 {alias}，否则请把词头写成系数，"
                "如以 10*6 代替 M",
            )
        )
    if key[0] == "m" and alias[0] == "M":
        raise UnitError(
            Bilingual(
                f"unit {text!r}: m is milli and M is mega; write {alias} if {unit.name_en} is meant",
                f"单位 {text!r}：m 为毫，M 为兆；若指{unit.name_zh}请写 {alias}",
            )
        )
    return unit


def _refuse_ambiguous(key: str, text: str) -> None:
    if key in AMBIGUOUS:
        meant = AMBIGUOUS[key]
        raise UnitError(
            Bilingual(
                f"unit {text!r} may mean several things: write {' or '.join(meant)}",
                f"单位 {text!r} 可有多种含义：请写 {' 或 '.join(map(chinese, meant))}",
            )
        )


UCUM_PREFIXES: Final = "Y Z E P T G M k h d c m u n p f a z y da Ki Mi Gi Ti"
UCUM_METRIC: Final = (
    "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L ar t bar u eV pc gf Ky Gal dyn erg P "
    "Bi St Mx G Oe Gb sb Lmb ph Ci R RAD REM cal_m cal_IT cal_th cal tex eq osm g% kat U Np B st mho bit By Bd"
)
UCUM_OTHER: Final = "% gon deg ' '' min h d a_t a_j a_g a wk mo_s mo_j mo_g mo AU atm Ao b att circ sph bit_s"
"""The UCUM atoms without brackets; those of `UCUM_METRIC` take prefixes. With them a code is recognised, without the
library, in a text whose letters differ from an alias only in case."""

_ATOMS: Final = frozenset(f"{UCUM_METRIC} {UCUM_OTHER}".split())
_PREFIXED: Final = frozenset(prefix + atom for prefix in UCUM_PREFIXES.split() for atom in UCUM_METRIC.split())
_ANNOTATION: Final = re.compile(r"\{[^}]*\}")
_COMPONENT: Final = re.compile(r"([^0-9+-]+)([+-]?[0-9]+)?")


def _spelled_like_ucum(key: str) -> bool:
    for component in re.split("[./]", _ANNOTATION.sub("", key)):
        match = _COMPONENT.fullmatch(component)
        if match is None or not (match.group(1) in _ATOMS or match.group(1) in _PREFIXED):
            return False
    return True


def _composed(key: str, text: str) -> str:
    """The text with each alias between slashes replaced by its code: "g/双" becomes "g/{pair}". UCUM codes stay."""
    if "{" in key or "(" in key:
        return key
    codes = []
    for place, part in enumerate(key.split("/")):
        if not part.isascii():
            _refuse_ambiguous(part, text)
        if part in _index().exact or not (part in AMBIGUOUS or _spelled_like_ucum(part)):
            unit = _lookup(part, text) if part else None
            if unit is not None:
                part = f"({unit.code})" if place and re.search("[./]", unit.code) else unit.code
        codes.append(part)
    return "/".join(codes)


def _nearest(key: str) -> str:
    from difflib import get_close_matches  # only on the way to an error

    index = _index()
    near = get_close_matches(key.casefold(), index.folded, n=3, cutoff=0.5)
    if not near:
        return Bilingual("no known unit is like it", "没有与之相近的已知单位")
    known = dict.fromkeys(alias for folded in near for alias in index.folded[folded])
    return Bilingual(
        "the nearest known are " + ", ".join(f"{alias} ({index.exact[alias].name_en})" for alias in known),
        "相近的已知单位：" + "、".join(f"{alias}（{index.exact[alias].name_zh}）" for alias in known),
    )


def _spoken(quantity: str) -> str:
    return quantity.replace("_", " ")
