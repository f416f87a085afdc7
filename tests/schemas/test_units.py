"""The unit table against the UCUM library and pint, what people write, and conversions that must or must not happen."""

import csv
import subprocess
import sys
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import ucumvert
from hypothesis import given
from hypothesis import strategies as st
from lark.exceptions import VisitError
from ucumvert.xml_util import get_base_units, get_metric_units, get_non_metric_units, get_prefixes

from schemas import _ucum, units
from schemas.units import Unit, UnitError, conversion, resolve

TABLE = units.table()
WRITTEN = [(alias, code) for code in TABLE for alias in units.aliases(code)]
UNITS = st.sampled_from(list(TABLE.values()))
SAME_QUANTITY = [(a, b) for a in TABLE.values() for b in TABLE.values() if a.quantity == b.quantity]


def codes(*texts: str) -> list[str]:
    return [resolve(text).code for text in texts]


# The table


def test_every_row_is_complete_and_its_base_has_scale_one() -> None:
    for unit in TABLE.values():
        assert all((unit.code, unit.quantity, unit.symbol, unit.name_en, unit.name_zh)), unit
        assert unit.scale > 0, unit
        assert unit.offset == 0 or unit.quantity == "temperature", unit
        assert any("\u4e00" <= char <= "\u9fff" for char in unit.name_zh), unit
        assert unit.name_en.isascii(), unit
        assert unit.code.isascii(), unit


def test_aliases_are_unique_after_normalisation() -> None:
    path = Path(units.__file__).with_name("data") / "units.csv"
    owners: dict[str, set[str]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for text in (row["code"], row["symbol"], row["name_en"], row["name_zh"], *row["aliases"].split()):
                owners.setdefault(units.normalise(text), set()).add(row["code"])
    assert {text: owner for text, owner in owners.items() if len(owner) > 1} == {}
    assert not set(owners) & set(units.AMBIGUOUS)
    assert len(owners) > 800


def test_a_table_with_an_alias_of_two_units_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "units.csv"
    path.write_text(
        "code,quantity,scale,offset,symbol,name_en,name_zh,aliases\n"
        "m,length,1,0,m,metre,米,公尺\nkm,length,1000,0,km,kilometre,千米,公尺\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(units, "_DATA", path)
    with pytest.raises(ValueError, match="'公尺' stands for m and km"):
        units._index.__wrapped__()


@cache
def pint_of(code: str) -> tuple[Fraction, Fraction, frozenset[tuple[str, int]]] | None:
    """Scale, offset and dimensions by ucumvert's own way through pint; None where it is not linear."""
    registry = pint_registry()
    stripped, _ = _ucum.split_annotations(code)
    tree = ucumvert.parse_ucum(stripped, ucumvert.get_ucum_parser())
    quantity = ucumvert.UcumToPintTransformer(ureg=registry).transform(tree)
    try:
        base = quantity.to_base_units().magnitude
        zero = registry.Quantity(Fraction(0), quantity.units).to_base_units().magnitude
    except TypeError:  # a logarithm of a fraction
        return None
    dimensions = frozenset((str(name), int(power)) for name, power in quantity.dimensionality.items())
    return Fraction(base) - Fraction(zero), Fraction(zero), dimensions


@cache
def pint_registry() -> Any:
    return ucumvert.PintUcumRegistry(non_int_type=Fraction)


# ucumvert 0.3.2 maps the minute and second of arc to those of time and has no definition of [pH]; levels are logarithms.
NOT_BY_PINT = {"'", "''", "[pH]", "dB", "dB[SPL]{A}", "dB{mW}"}


@pytest.mark.parametrize("code", TABLE)
def test_scale_and_offset_agree_with_the_library(code: str) -> None:
    unit = TABLE[code]
    try:
        found = pint_of(code)
    except VisitError:
        found = None
    if code in NOT_BY_PINT:
        assert found is None or found[0] != unit.scale  # else it can be taken from the list
        return
    assert found is not None
    scale, offset, _ = found
    assert float(scale) == pytest.approx(float(unit.scale), rel=1e-15)
    assert float(offset) == pytest.approx(float(unit.offset), rel=1e-15)


def test_units_of_one_quantity_have_one_dimension() -> None:
    dimensions: dict[str, set[frozenset[tuple[str, int]]]] = {}
    for unit in TABLE.values():
        found = None if unit.code in NOT_BY_PINT else pint_of(unit.code)
        if found is not None:
            dimensions.setdefault(unit.quantity, set()).add(found[2])
    assert {quantity: found for quantity, found in dimensions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("code", TABLE)
def test_the_table_agrees_exactly_with_what_its_codes_mean(code: str) -> None:
    unit = TABLE[code]
    derived = _ucum.derive(code)
    assert (derived.scale, derived.offset, derived.quantity) == (unit.scale, unit.offset, unit.quantity)


# What people write


@pytest.mark.parametrize(("alias", "code"), WRITTEN)
def test_every_alias_leads_to_its_unit(alias: str, code: str) -> None:
    assert resolve(alias) is TABLE[code] or resolve(alias) == TABLE[code]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("℃", "Cel"),
        ("°C", "Cel"),
        ("ºC", "Cel"),
        ("degC", "Cel"),
        ("℉", "[degF]"),
        ("kWh", "kW.h"),
        ("kW·h", "kW.h"),
        ("ｋＷｈ", "kW.h"),
        ("KWH", "kW.h"),
        ("千瓦时", "kW.h"),
        ("度电", "kW.h"),
        ("kvarh", "kV.A.h{reactive}"),
        ("kvar·h", "kV.A.h{reactive}"),
        ("kvar", "kV.A{reactive}"),
        ("VA", "V.A"),
        ("kVA", "kV.A"),
        ("KVA", "kV.A"),
        ("rpm", "{rev}/min"),
        ("RPM", "{rev}/min"),
        ("r/min", "{rev}/min"),
        ("转/分", "{rev}/min"),
        ("件", "{piece}"),
        ("个", "{piece}"),
        ("pcs", "{piece}"),
        ("模", "{shot}"),
        ("次", "{count}"),
        ("双", "{pair}"),
        ("件／小时", "{piece}/h"),
        ("件每小时", "{piece}/h"),
        ("％", "%"),
        ("Bar", "bar"),
        ("Mpa", "MPa"),
        ("kgf/cm²", "kgf/cm2"),
        ("公斤力/平方厘米", "kgf/cm2"),
        ("HZ", "Hz"),
        ("秒", "s"),
        ("分钟", "min"),
        ("小时", "h"),
        ("N·m", "N.m"),
        ("N-m", "N.m"),
        ("m³/h", "m3/h"),
        ("㎥/h", "m3/h"),
        ("m^3/h", "m3/h"),
        ("M3/H", "m3/h"),
        ("l/min", "L/min"),
        ("µm", "um"),
        ("μm", "um"),
        ("丝", "10.um"),
        ("MΩ", "MOhm"),
        ("dB(A)", "dB[SPL]{A}"),
        ("冲次/分", "{stroke}/min"),
        ("针/分", "{stitch}/min"),
        ("Kilowatt Hour", "kW.h"),
        (" kW h ", "kW.h"),
        ("Nm3/h", "m3{normal}/h"),
        ("1/min", "/min"),
    ],
)
def test_what_is_met_on_displays_and_in_manuals(text: str, code: str) -> None:
    assert resolve(text).code == code


def full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


@given(st.sampled_from(WRITTEN))
def test_full_width_characters_and_blanks_make_no_difference(written: tuple[str, str]) -> None:
    alias, code = written
    assert resolve(full_width(alias)).code == code
    assert resolve(" \u3000".join(alias)).code == code


@given(st.data())
def test_letters_of_another_case_lead_to_the_same_unit_or_to_a_question(data: st.DataObject) -> None:
    alias, code = data.draw(st.sampled_from(WRITTEN))
    text = "".join(
        data.draw(st.sampled_from([char.lower(), char.upper()])) if char.isascii() else char for char in alias
    )
    known = {key: unit.code for key, unit in units._index().exact.items()}
    try:
        found = resolve(text).code
    except UnitError as error:
        assert "write" in str(error)  # noqa: PT017 - either outcome is right
    else:
        prefix_decides = text[0] in "mM" and found[0] == text[0] and not text.isupper() and not text.islower()
        assert found == known.get(units.normalise(text), code) or prefix_decides


@pytest.mark.parametrize("text", ["mw", "MPA", "mpa", "MWH", "NM", "nM", "PA", "MA", "ML", "mhz", "mvar", "nm3"])
def test_case_that_decides_a_prefix_is_asked_for(text: str) -> None:
    with pytest.raises(UnitError, match=f"unit '{text}'.* write "):
        resolve(text)


@pytest.mark.parametrize("text", units.AMBIGUOUS)
def test_ambiguous_texts_are_refused_with_alternatives_that_work(text: str) -> None:
    with pytest.raises(UnitError, match="may mean several things: write ") as caught:
        resolve(text)
    for alternative in units.AMBIGUOUS[text]:
        assert alternative in str(caught.value)
        if text != "k" or alternative.startswith("K"):
            resolve(alternative.split(" ")[0])


def test_the_other_meanings_that_are_offered_for_single_letters_are_those_of_ucum() -> None:
    for letter, spelled_out in {"C": "A.s", "F": "A.s/V", "S": "Ohm-1", "H": "V.s/A", "T": "V.s/m2"}.items():
        meaning, other = _ucum.evaluate(letter), _ucum.evaluate(spelled_out)
        assert (meaning.scale, meaning.dimensions) == (other.scale, other.dimensions)
    assert _ucum.evaluate("G").scale == _ucum.evaluate("10*-4.V.s/m2").scale


def test_ambiguous_parts_are_refused_in_composed_texts_too() -> None:
    for text in ("度/分", "公斤/平方厘米"):
        with pytest.raises(UnitError, match="may mean several things"):
            resolve(text)


def test_aliases_that_are_other_codes_in_ucum_are_few_and_known() -> None:
    clashes = set()
    for key, unit in units._index().exact.items():
        try:
            meaning = _ucum.evaluate(key)
        except _ucum.NotUcum:
            continue
        if (meaning.scale, _ucum.quantity(meaning)) != (unit.scale, unit.quantity):
            clashes.add(key)
    assert clashes == CLASHES


# To UCUM a femtotonne, a picophot, a petasiemens, a picohenry, an exaampere, parsecs, and bels instead of bytes.
CLASHES = (
    {"ft", "ft/min", "kph", "pph", "PS", "pH", "EA"}
    | {"pc", "pc/s", "pc/min", "pc/h", "pc/d", "s/pc", "min/pc", "g/pc"}
    | {"B", "kB", "MB", "GB", "KiB", "MiB", "GiB"}
)


@pytest.mark.parametrize(
    ("text", "near"),
    [("kwhh", "kWh"), ("千瓦小", "千瓦小时"), ("件/班", "件/时"), ("metr", "metre"), ("Mvarr", "Mvar")],
)
def test_unknown_texts_are_answered_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UnitError, match=f"unit '{text}' is neither") as caught:
        resolve(text)
    assert f" {near} (" in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "\u3000"])
def test_no_text_is_no_unit(text: str) -> None:
    with pytest.raises(UnitError, match="empty: leave the unit out"):
        resolve(text)


@given(st.text(max_size=12))
def test_any_text_is_a_unit_or_a_unit_error(text: str) -> None:
    try:
        unit = resolve(text)
    except UnitError as error:
        assert repr(text) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert resolve(unit.code) == unit


# Codes outside the table


@pytest.mark.parametrize(
    ("text", "quantity", "scale"),
    [
        ("GV.A", "apparent_power", 10**9),
        ("uV.A{reactive}", "reactive_power", Fraction(1, 10**6)),
        ("GW", "active_power", 10**9),
        ("J/s", "active_power", 1),
        ("kN.cm", "torque", 10),
        ("kV.A.s", "apparent_energy", 1000),
        ("eV", "energy", Fraction("1.602176634e-19")),
        ("MJ/m3", "energy_density", 10**6),
        ("[lbf_av]/[ft_i]2", "pressure", Fraction("4.4482216152605") / Fraction("0.3048") ** 2),
        ("dar", "area", 1000 // 100),
        ("[cft_i]", "volume", Fraction("0.3048") ** 3),
        ("10³/min", "frequency", Fraction(1000, 60)),
        ("{piece}/wk", "piece_rate", Fraction(1, 604800)),
        ("mg/{shot}", "mass_per_shot", Fraction(1, 10**6)),
        ("klx", "illuminance", 1000),
        ("mrad", "angle", Fraction(1, 1000)),
        ("kg.m/s2", "force", 1),
        ("m.s-1", "speed", 1),
        ("cm3.min-1", "volume_flow", Fraction(1, 60 * 10**6)),
        ("(/m)", "m-1", 1),
    ],
)
def test_codes_outside_the_table(text: str, quantity: str, scale: Fraction) -> None:
    unit = resolve(text)
    assert (unit.quantity, unit.scale) == (quantity, scale)
    assert not unit.offset
    assert resolve(unit.code) == unit


def test_prefixed_temperatures_keep_their_zero_point() -> None:
    assert conversion(resolve("mCel"), resolve("Cel")) == (0.001, 0.0)
    assert conversion(resolve("[degRe]"), resolve("Cel")) == (1.25, 0.0)


def test_parts_in_chinese_and_english_are_composed() -> None:
    assert codes("克/双", "kWh/双", "KWH/套", "千瓦/平方米", "元/m³") == [
        "g/{pair}",
        "kW.h/{pair}",
        "kW.h/{set}",
        "kW/m2",
        "{CNY}/m3",
    ]
    assert codes("双/kWh") == ["{pair}/(kW.h)"]
    assert resolve("牛/平方毫米") is TABLE["N/mm2"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Bq", "Hz"),
        ("Gy", "Sv"),
        ("Bd", "Hz"),
        ("rad/s", "Hz"),
        ("mol", "1"),
        ("[iU]", "1"),
        ("[iU]/mL", "[arb'U]/mL"),
        ("dB[W]", "dB[kW]"),
        ("dB", "B"),
        ("lm", "cd"),
        ("{widget}", "{gadget}"),
        ("{widget}", "1"),
        ("{widget}/h", "{gadget}/h"),
        ("g/{widget}", "g.{widget}"),
        ("kW.h/{widget}", "kW.h"),
        ("rad", "1"),
    ],
)
def test_codes_that_must_not_convert(a: str, b: str) -> None:
    with pytest.raises(UnitError, match="cannot convert"):
        conversion(resolve(a), resolve(b))


def test_unknown_annotations_convert_among_themselves() -> None:
    assert conversion(resolve("{widget}/min"), resolve("{widget}/h")) == (60.0, 0.0)
    assert conversion(resolve("kBq"), resolve("MBq")) == (0.001, 0.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2.5", "no decimal fractions"),
        ("10kW", "unexpected character 'k'"),
        ("W/(m2.Cel)", "Cel has a zero point"),
        ("Cel2", "Cel has a zero point"),
        ("dB[W]/m", r"dB\[W\] is no multiple"),
        ("{件}", "printable ASCII"),
        ("{a", "printable ASCII"),
        ("a}", "without its {"),
        ("m{}", "printable ASCII"),
        ("(m", "unexpected end"),
        ("m/", "unexpected end"),
        ("m0", "unexpected character '0'"),
    ],
)
def test_codes_that_are_not_valid_say_why(text: str, reason: str) -> None:
    with pytest.raises(UnitError, match=reason):
        resolve(text)


@pytest.mark.parametrize(
    ("code", "stripped", "tags"),
    [
        ("{piece}", "1", {"piece": 1}),
        ("/{piece}", "1/1", {"piece": -1}),
        ("g/{shot}", "g/1", {"shot": -1}),
        ("kV.A.h{reactive}", "kV.A.h", {"reactive": 1}),
        ("{pulse}/(kW.h)", "1/(kW.h)", {"pulse": 1}),
        ("m/(s.{step})", "m/(s.1)", {"step": -1}),
        ("m/(s/{step})", "m/(s/1)", {"step": 1}),
        ("m/{a}.{b}", "m/1.1", {"a": -1, "b": 1}),
        ("g/(8.h){shift}", "g/(8.h)", {"shift": -1}),
        ("{a}/{a}", "1/1", {}),
        ("m/(s.(h/{x})){y}", "m/(s.(h/1))", {"x": 1, "y": -1}),
    ],
)
def test_annotations_are_taken_out_with_the_sign_of_their_place(code: str, stripped: str, tags: dict[str, int]) -> None:
    found, powers = _ucum.split_annotations(code)
    assert (found, dict(powers)) == (stripped, tags)


def test_every_atom_of_ucum_is_understood() -> None:
    for atom in get_base_units() + get_metric_units() + get_non_metric_units():
        assert _ucum.evaluate(atom).scale > 0, atom
    for prefix in get_prefixes():
        assert _ucum.evaluate(prefix + "m").scale == _ucum._PREFIXES[prefix]


def test_the_atoms_known_without_the_library_are_those_of_the_library() -> None:
    def bare(atoms: list[str]) -> set[str]:
        return {atom for atom in atoms if "[" not in atom and not atom[0].isdigit()}

    assert set(units.UCUM_PREFIXES.split()) == set(get_prefixes())
    assert set(units.UCUM_METRIC.split()) == bare(get_base_units() + get_metric_units())
    assert set(units.UCUM_OTHER.split()) == bare(get_non_metric_units())


# Conversion


def convert(value: Fraction, source: Unit, target: Unit) -> Fraction:
    return (value * source.scale + source.offset - target.offset) / target.scale


@pytest.mark.parametrize(
    ("source", "target", "scale", "offset"),
    [
        ("kWh", "Wh", 1000.0, 0.0),
        ("Wh", "kWh", 0.001, 0.0),
        ("kvarh", "varh", 1000.0, 0.0),
        ("MWh", "GJ", 3.6, 0.0),
        ("℉", "℃", 5 / 9, -160 / 9),
        ("℃", "℉", 1.8, 32.0),
        ("K", "℃", 1.0, -273.15),
        ("℃", "K", 1.0, 273.15),
        ("bar", "MPa", 0.1, 0.0),
        ("kgf/cm2", "kPa", 98.0665, 0.0),
        ("m3/h", "L/min", 50 / 3, 0.0),
        ("rpm", "r/s", 1 / 60, 0.0),
        ("件/分", "件/小时", 60.0, 0.0),
        ("deg", "'", 60.0, 0.0),
        ("''", "deg", 1 / 3600, 0.0),
        ("in", "mm", 25.4, 0.0),
        ("吨力", "kN", 9.80665, 0.0),
        ("%", "1", 0.01, 0.0),
        ("kg", "斤", 2.0, 0.0),
        ("件", "个", 1.0, 0.0),
        ("MB", "Mbit", 8.0, 0.0),
        ("kgce", "tce", 0.001, 0.0),
    ],
)
def test_conversions_are_exact(source: str, target: str, scale: float, offset: float) -> None:
    assert conversion(resolve(source), resolve(target)) == (scale, offset)


@given(st.sampled_from(SAME_QUANTITY), st.floats(-1e12, 1e12))
def test_conversion_and_back_is_the_same_value(pair: tuple[Unit, Unit], value: float) -> None:
    source, target = pair
    scale, offset = conversion(source, target)
    back_scale, back_offset = conversion(target, source)
    size = max(abs(value), abs(float(source.offset / source.scale)), abs(float(target.offset / source.scale)))
    tiny = max(size * 1e-12, 1e-290)  # below, floats lose digits
    assert (value * scale + offset) * back_scale + back_offset == pytest.approx(value, rel=1e-12, abs=tiny)


@given(st.sampled_from(SAME_QUANTITY), st.fractions(-1000, 1000))
def test_conversion_agrees_with_exact_arithmetic(pair: tuple[Unit, Unit], value: Fraction) -> None:
    source, target = pair
    scale, offset = conversion(source, target)
    assert (scale, offset) == (
        float(convert(Fraction(1), source, target) - convert(Fraction(0), source, target)),
        float(convert(Fraction(0), source, target)),
    )
    assert convert(convert(value, source, target), target, source) == value


@given(UNITS)
def test_a_unit_converts_to_itself_by_nothing(unit: Unit) -> None:
    assert conversion(unit, unit) == (1.0, 0.0)


@given(UNITS, UNITS)
def test_conversion_happens_exactly_within_one_quantity(source: Unit, target: Unit) -> None:
    if source.quantity == target.quantity:
        conversion(source, target)
        return
    with pytest.raises(UnitError) as caught:
        conversion(source, target)
    message = str(caught.value)
    assert source.code in message
    assert target.code in message
    assert source.quantity.replace("_", " ") in message
    assert target.quantity.replace("_", " ") in message


@pytest.mark.parametrize(
    "family",
    [
        ("kW", "kVA", "kvar"),
        ("kWh", "kVAh", "kvarh", "N.m"),
        ("件", "模", "次", "双", "转", "套", "箱", "脉冲", "1"),
        ("件/h", "模/h", "次/h", "双/h", "Hz", "rpm", "bps"),
        ("℃", "Δ℃"),
        ("m3/h", "Nm3/h"),
        ("%", "%RH", "%LEL", "vol%"),
        ("dB", "dB(A)", "dBm"),
        ("kg", "kgce", "kgCO2", "kgf"),
        ("lm", "cd"),
        ("deg", "转", "1"),
    ],
)
def test_kinds_that_share_a_dimension_never_convert(family: tuple[str, ...]) -> None:
    for a, b in combinations(family, 2):
        with pytest.raises(UnitError, match="cannot convert"):
            conversion(resolve(a), resolve(b))


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("kW", "kvar", "power factor"),
        ("kWh", "kW", "mixed up"),
        ("吨", "kN", "吨力"),
        ("Hz", "rpm", "pole count"),
        ("N.m", "J", "a torque is no energy"),
        ("件", "℃", "nothing converts one into the other"),
    ],
)
def test_a_refused_conversion_says_why(a: str, b: str, why: str) -> None:
    for source, target in ((a, b), (b, a)):
        with pytest.raises(UnitError, match=why):
            conversion(resolve(source), resolve(target))


# Lightness


def test_common_units_never_load_the_library() -> None:
    program = """
import sys
import schemas.units as units
heavy = {"pint", "ucumvert", "lark", "numpy", "pandas", "msgspec", "pydantic"}
assert not heavy & set(sys.modules), "at import"
assert units._index.cache_info().currsize == 0, "the table is read at import"
for code in units.table():
    for alias in units.aliases(code):
        units.resolve(alias)
for text in ("度", "PA", "mpa"):
    try:
        units.resolve(text)
    except units.UnitError:
        pass
assert not heavy & set(sys.modules), "by aliases"
units.resolve("GV.A")
assert "ucumvert" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
