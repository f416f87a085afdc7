"""UCUM codes outside the unit table.

ucumvert parses a code and ships the definitions of UCUM 2.2 (ucum-essence.xml); both are used here, in exact fractions.
Its way on through pint is not: pint takes the minute of arc for a minute of time, the cubic foot for a length and cannot
build a prefixed annotation. Annotations are taken out before parsing (the library fails on ``{piece}``) and kept as
tags: units with different tags never convert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from typing import Any, Final, NamedTuple

import ucumvert
from lark import Token, Tree
from ucumvert.xml_util import UcumUnitDefinition, get_base_units, get_units_with_full_definition

from schemas.bilingual import Bilingual
from schemas.units import Unit, table

Powers = tuple[tuple[str, int], ...]
"""Names with their exponents, ordered by name, none zero."""


class NotUcum(ValueError):
    """A text that is no valid UCUM code, or one that means nothing that could be converted; the message says why."""


class Meaning(NamedTuple):
    """What a code is worth in coherent SI units. `atoms` are its units without prefixes, `tags` its annotations."""

    scale: Fraction
    offset: Fraction
    dimensions: Powers
    atoms: Powers
    tags: Powers


def derive(code: str) -> Unit:
    """The unit of a UCUM code, whether it is in the table or not. Raises NotUcum if it is no code."""
    meaning = evaluate(code)
    return Unit(code, quantity(meaning), meaning.scale, meaning.offset, code, code, code)


def evaluate(code: str) -> Meaning:
    """What a UCUM code means. Raises NotUcum with the reason if it means nothing."""
    stripped, tags = split_annotations(code)
    if _DECIMAL.search(stripped):
        raise NotUcum(
            Bilingual(
                "UCUM has no decimal fractions, 2.5 is two times five: write 25.10*-1",
                "UCUM 没有小数，2.5 表示 2 乘 5：请写 25.10*-1",
            )
        )
    value = _evaluate(_parse(stripped))
    alone = len(value.atoms) == 1 and value.atoms[0][1] == 1
    for name, _ in value.atoms:
        if name in _ZERO_POINTS and not alone:
            raise NotUcum(
                Bilingual(
                    f"{name} has a zero point and can be no part of a product: write K for a difference",
                    f"{name} 有零点，不能作为乘积的一部分：表示温差请写 K",
                )
            )
        if name.startswith(_LEVEL) and not alone:
            level = name.removeprefix(_LEVEL)
            raise NotUcum(
                Bilingual(
                    f"{level} is no multiple of a unit and can be no part of a product",
                    f"{level} 不是单位的倍数，不能作为乘积的一部分",
                )
            )
    dimensions = _powers(value.dimensions)
    grams = dict(dimensions).get("g", 0)  # UCUM's base unit of mass, the coherent one is the kilogram
    offset = _ZERO_POINTS.get(value.atoms[0][0], Fraction(0)) if alone else Fraction(0)
    return Meaning(value.scale / Fraction(1000) ** grams, offset, dimensions, _powers(value.atoms), tags)


def quantity(meaning: Meaning) -> str:
    """The named quantity that a meaning belongs to.

    That of the units in the table with the same dimensions and annotations; where these are several (power, energy and
    torque, pressure and energy density) the units it is written in decide. If the table has none, a name of its own,
    which only equal dimensions and annotations share.
    """
    candidates = _quantities().get((meaning.dimensions, meaning.tags), ())
    if len(candidates) == 1:
        return candidates[0]
    names = {name for name, _ in meaning.atoms}
    ordinary = [candidate for candidate in candidates if candidate not in _SPECIAL]
    special = [candidate for candidate in candidates if _spelled_specially(candidate, names)]
    if special or ordinary:
        return (special or ordinary)[0]
    parts = [*meaning.dimensions, *((f"{{{tag}}}", power) for tag, power in meaning.tags)]
    return ".".join(name if power == 1 else f"{name}{power}" for name, power in parts)


_FORCES: Final = frozenset({"N", "gf", "dyn", "[lbf_av]"})
_HEATS: Final = frozenset({"J", "W", "eV", "erg", "cal", "cal_IT", "cal_th", "[Cal]", "[Btu]", "[Btu_IT]", "[Btu_th]"})


def _spelled_specially(candidate: str, names: set[str]) -> bool:
    """Whether a unit written with these atoms is of a quantity that shares its dimensions with a commoner one."""
    match candidate:
        case "apparent_power" | "apparent_energy":
            return {"V", "A"} <= names
        case "torque":
            return bool(names & _FORCES)
        case "energy_density":
            return bool(names & _HEATS)
        case _:
            return False


_SPECIAL: Final = frozenset({"apparent_power", "apparent_energy", "torque", "energy_density"})


@cache
def _quantities() -> dict[tuple[Powers, Powers], tuple[str, ...]]:
    found: dict[tuple[Powers, Powers], dict[str, None]] = {}
    for unit in table().values():
        meaning = evaluate(unit.code)
        found.setdefault((meaning.dimensions, meaning.tags), {})[unit.quantity] = None
    return {key: tuple(names) for key, names in found.items()}


def split_annotations(code: str) -> tuple[str, Powers]:
    """Take the annotations out of a code.

    One behind a component goes, one that is a component becomes 1; each leaves a tag, with exponent -1 where it stands
    under a slash, which rules the next component only: "g/{shot}" gives "g/1" and (("shot", -1),). A leading slash gets
    its 1, so that it too rules one component only. Raises NotUcum for braces that do not match and for annotations that
    are empty or not printable ASCII.
    """
    out: list[str] = []
    tags: list[tuple[str, int]] = []
    outer: list[int] = []  # the sign before each open bracket
    sign = 1
    position = 0
    while position < len(code):
        char = code[position]
        if char == "{":
            end = code.find("}", position)
            text = code[position + 1 : end]
            if end < 0 or not text or not all("!" <= letter <= "~" and letter != "{" for letter in text):
                raise NotUcum(
                    Bilingual(
                        "an annotation is printable ASCII without blanks between { and }",
                        "注释是 { 与 } 之间不含空格的可打印 ASCII",
                    )
                )
            if not out or out[-1] in "./(":
                out.append("1")
            tags.append((text, sign * (outer[-1] if outer else 1)))
            position = end
        elif char == "}":
            raise NotUcum(Bilingual("there is a } without its {", "} 缺少对应的 {"))
        else:
            if char in "./":
                sign = -1 if char == "/" else 1
                if char == "/" and (not out or out[-1] == "("):
                    out.append("1")
            elif char == "(":
                outer.append(sign * (outer[-1] if outer else 1))
                sign = 1
            elif char == ")" and outer:
                inside = outer.pop()
                sign = inside * (outer[-1] if outer else 1)
            out.append(char)
        position += 1
    return "".join(out), _powers(tags)


class _Value(NamedTuple):
    scale: Fraction
    dimensions: Powers
    atoms: Powers

    def power(self, exponent: int) -> _Value:
        return _Value(
            self.scale**exponent,
            tuple((name, power * exponent) for name, power in self.dimensions),
            tuple((name, power * exponent) for name, power in self.atoms),
        )

    def times(self, other: _Value) -> _Value:
        return _Value(self.scale * other.scale, self.dimensions + other.dimensions, self.atoms + other.atoms)


def _powers(pairs: Iterable[tuple[str, int]]) -> Powers:
    total: dict[str, int] = {}
    for name, power in pairs:
        total[name] = total.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in total.items() if power))


_DECIMAL: Final = re.compile(r"(?<![^./(])[0-9]+\.[0-9]")
_LEVEL: Final = "level "
_TENS: Final = {"Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1} | {
    "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24
}  # fmt: skip
_PREFIXES: Final = {prefix: Fraction(10) ** power for prefix, power in _TENS.items()} | {
    prefix: Fraction(1024) ** power for power, prefix in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)
}
_SYNONYMS: Final = {"L": "l", "[IU]": "[iU]", "10^": "10*"}
_ZERO_POINTS: Final = {"Cel": Fraction("273.15"), "[degF]": Fraction(45967, 180), "[degRe]": Fraction("273.15")}
_OF_THEIR_OWN: Final = frozenset({"mol", "osm", "bit", "Bd", "Bq", "Gy", "Sv", "REM"})
"""Units that UCUM defines by a number or by other units, and that must not be taken for these: a becquerel is no hertz."""
_PI: Final = Fraction("3.14159265358979323846264338327950288419716939937510")
_GIVEN: Final = {
    "10*": _Value(Fraction(10), (), ()),
    "[pi]": _Value(_PI, (), ()),
    "Cel": _Value(Fraction(1), (("K", 1),), (("Cel", 1),)),
    "[degF]": _Value(Fraction(5, 9), (("K", 1),), (("[degF]", 1),)),
    "[degRe]": _Value(Fraction(5, 4), (("K", 1),), (("[degRe]", 1),)),
    # UCUM rounds to 133.322 Pa a millimetre; BIPM, NIST and pint have more digits. In grams, as all here.
    "m[Hg]": _Value(Fraction("133322387.415"), (("g", 1), ("m", -1), ("s", -2)), (("m[Hg]", 1),)),
}


@cache
def _parser() -> Any:
    return ucumvert.get_ucum_parser()


@cache
def _definitions() -> dict[str, UcumUnitDefinition]:
    return {definition.code_cs: definition for definition in get_units_with_full_definition()}


@cache
def _base_units() -> frozenset[str]:
    return frozenset(get_base_units())


def _parse(code: str) -> Any:
    try:
        return ucumvert.parse_ucum(code, _parser())
    except ucumvert.InvalidUcumError as error:
        raise NotUcum(str(error).splitlines()[0].partition("unit: ")[2] or str(error)) from error


def _evaluate(tree: Any) -> _Value:
    """The value of a tree of ucumvert's grammar, whose terms run from left to right: a/b.c is (a/b).c."""
    if not isinstance(tree, Tree):
        raise NotUcum(f"the unit library gave {tree!r} where a term was expected")
    children = tree.children
    if tree.data == "simple_unit":
        return _simple_unit([child for child in children if isinstance(child, Token)])
    if tree.data == "annotatable":
        return _evaluate(children[0]).power(int(str(children[1])))
    if tree.data == "term":
        left, operator, right = children
        return _evaluate(left).times(_evaluate(right).power(-1 if str(operator) == "/" else 1))
    return _evaluate(children[0])


def _simple_unit(tokens: list[Token]) -> _Value:
    *prefixes, atom = tokens
    if atom.type == "FACTOR":
        return _Value(Fraction(int(atom)), (), ())
    name = _SYNONYMS.get(str(atom), str(atom))
    definition = _definitions().get(name)
    if definition is not None and definition.is_special and name not in _ZERO_POINTS:
        level = "".join(tokens)  # with its prefix, since dB and B are no multiples of each other to us
        return _Value(Fraction(1), ((level, 1),), ((_LEVEL + level, 1),))
    value = _atom(name)
    return value._replace(scale=value.scale * _PREFIXES[str(prefixes[0])]) if prefixes else value


@cache
def _atom(name: str) -> _Value:
    """What an atom is worth without prefix, in UCUM's base units (metre, second, gram, radian, kelvin, coulomb, candela)."""
    if name in _GIVEN:
        return _GIVEN[name]
    definition = _definitions().get(name)
    if name in _base_units() or name in _OF_THEIR_OWN or definition is None or definition.is_arbitrary:
        return _Value(Fraction(1), ((name, 1),), ((name, 1),))
    value = _evaluate(_parse(split_annotations(definition.defining_unit)[0]))
    return _Value(value.scale * Fraction(str(definition.conversion_factor)), _powers(value.dimensions), ((name, 1),))
