"""Documents: the YAML dialect, positions, and messages that a newcomer can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from schemas.documents import Document, DocumentError, Problem, nearest, parse_yaml, path_text, read_yaml, validate
from schemas.library import load_profile, parsed_address, read_profile, shipped
from schemas.model import Duration, Id, Strict, Text
from schemas.profile import ModbusAddress


class Inner(Strict):
    id: Id
    colour: Literal["red", "green", "blue"] = "red"
    period: Duration = 1.0
    name: Text = Text()
    password: str | None = None
    port: int | None = None


class Outer(Strict):
    items: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = Field(default_factory=dict)
    ratio: float = 1.0
    enabled: bool = True


def problems(text: str) -> list[Problem]:
    with pytest.raises(DocumentError) as caught:
        validate(parse_yaml(text, "f.yaml"), Outer)
    return caught.value.problems


def test_words_that_yaml_1_1_turns_into_something_else_stay_texts() -> None:
    document = parse_yaml("a: on\nb: no\nc: 12:30:00\nd: 2026-11-22\ne: 1e3\nf: 0x10\non: y\ng: 0o17\nh: 017\n", "f")
    assert document.data == {
        "a": "on", "b": "no", "c": "12:30:00", "d": "2026-11-22", "e": 1000.0, "f": 16, "on": "y", "g": 15, "h": 17,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        'node: ns=3;s="DB"."T"',
        'node: \'ns=3;s="DB"."T"\'',
        'node: "ns=3;s=\\"DB\\".\\"T\\""',
        'node: >-\n  ns=3;s="DB"."T"',
    ],
)
def test_a_node_id_with_quotes(line: str) -> None:
    assert parse_yaml(line, "f").data == {"node": 'ns=3;s="DB"."T"'}


def test_a_node_id_in_the_wrong_quotes_is_explained() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml('a: 1\nnode: "ns=3;s="DB"."T""\n', "f.yaml")
    (problem,) = caught.value.problems
    assert problem.line == 2
    assert "single quotes" in problem.fix


def test_every_key_that_is_written_twice_is_told_with_both_lines() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", "f.yaml")
    first, second = caught.value.problems
    assert (first.line, first.path, second.line, second.path) == (4, "b.c", 5, "a")
    assert "first on line 3" in first.expected


def test_anchors_and_merges_keep_the_lines_of_their_source() -> None:
    document = parse_yaml("base: &b\n  id: x\n  colour: pink\nby_name:\n  one:\n    <<: *b\n    period: 2s\n", "f")
    assert document.data["by_name"]["one"] == {"id": "x", "colour": "pink", "period": "2s"}
    assert document.line(["by_name", "one", "colour"]) == 3
    assert document.line(["by_name", "one", "period"]) == 7


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: !!python/object:os.system x", "tag"),
        ("a: !x y", "tag"),
        ("a: &a [*a]", "alias"),
        ("a:\n\t- b", "tab"),
        ("[a]: 1\n", "key"),
        ("a: @x", "quotes"),
        ("a: b: c", "quotes"),
        ("a: {b: c", "quotes"),
        ("a: \x07", "control character"),
        ("[" * 200_000, "nesting"),
        ("- 1\n--- \n- 2\n", "not YAML"),
    ],
)
def test_what_is_refused_says_why(text: str, word: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text, "f.yaml")
    assert word in str(caught.value)


def test_an_empty_document_is_an_empty_mapping() -> None:
    assert parse_yaml("# nothing\n", "f").data == {}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("a: 1")
    with pytest.raises(DocumentError, match=r"gatway\.yaml: found no such file.*Did you mean .*gateway\.yaml"):
        read_yaml(tmp_path / "gatway.yaml")
    (tmp_path / "gbk.yaml").write_bytes("a: 1\nname: 注塑机".encode("gbk"))
    with pytest.raises(DocumentError, match=r"gbk\.yaml:2: .*UTF-8"):
        read_yaml(tmp_path / "gbk.yaml")
    (tmp_path / "bom.yaml").write_bytes("name: 注塑机".encode("utf-8-sig"))
    assert read_yaml(tmp_path / "bom.yaml").data == {"name": "注塑机"}
    with pytest.raises(DocumentError, match="expected a readable file"):
        read_yaml(tmp_path)


def test_all_problems_at_once_each_with_its_line() -> None:
    found = problems(
        "ratio: much\n"
        "itmes: []\n"
        "enabled: perhaps\n"
        "items:\n"
        "  - id: Press 1\n"
        "    colour: gren\n"
        "  - colour: red\n"
        "    period: 1 hour\n"
        "    name: 5\n"
    )
    told = [(p.line, p.path, p.nearest) for p in found]
    assert told == [
        (1, "ratio", ""),
        (2, "itmes", "items"),
        (3, "enabled", ""),
        (5, "items[0].id", "press-1"),
        (6, "items[0].colour", "green"),
        (7, "items[1].id", ""),
        (8, "items[1].period", ""),
        (9, "items[1].name", ""),
    ]
    assert str(found[4]) == (
        "f.yaml:6: items[0].colour: found 'gren', expected one of red, green, blue. Did you mean green?"
    )
    assert "{zh: …, en: …}" in str(found[7])


def test_a_misspelt_key_is_one_mistake() -> None:
    (problem,) = problems("items:\n  - idd: x\n")
    assert problem.nearest == "id"


def test_places_with_other_characters_are_quoted() -> None:
    (problem,) = problems('by_name:\n  "cycle/last": {id: x, period: -1}\n')
    assert problem.path == 'by_name["cycle/last"].period'
    assert problem.expected == "a value of at least 0"
    assert path_text(["a", 0, "b-c", "d e"]) == 'a[0].b-c["d e"]'


def test_secrets_are_never_repeated() -> None:
    for text in ("items: [{id: x, password: 12345678}]", "items: [{id: x, password: [hunter2]}]"):
        assert "12345678" not in str(problems(text))
        assert "hunter2" not in str(problems(text))


def test_plain_data_has_no_lines() -> None:
    with pytest.raises(DocumentError) as caught:
        validate({"ratio": "x"}, Outer, "settings")
    assert [(p.file, p.line) for p in caught.value.problems] == [("settings", None)]
    assert validate({"ratio": 2}, Outer).ratio == 2


def test_a_text_may_be_plain() -> None:
    assert validate(parse_yaml("items: [{id: x, name: Presse}]", "f"), Outer).items[0].name.get("zh") == "Presse"


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.text(st.characters(codec="utf-8", categories=("L", "N"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list("abcd")), inner, max_size=3),
    max_leaves=12,
)


@given(json_like)
def test_any_wrong_data_gives_problems_and_never_another_exception(data: object) -> None:
    told = ["valid"]
    try:
        validate(data, Outer, "f")
    except DocumentError as error:
        told = [str(p) for p in error.problems]
    assert told
    assert all(told)


words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1)


@given(st.dictionaries(words, words | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_is_read_as_json(data: dict[str, object]) -> None:
    assert parse_yaml(json.dumps(data, ensure_ascii=False), "f").data == data


def test_nearest() -> None:
    assert nearest("Machine", ["site", "machine"]) == "machine"
    assert nearest("zzz", ["site", "machine"]) == ""


# --------------------------------------------------------------------------------------------------------------- library

PROFILE = """
profile: our-meter
protocol: modbus
name: Meter
source: {document: manual}
verified: none
licence: CC0-1.0
rules: {max_registers: 40}
signals:
  - name: power/total
    unit: W
    type: float32
    address: {table: input, address: 0x34, type: float32}
"""


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(PROFILE)
    profile = load_profile("ours.yaml", tmp_path)
    address = parsed_address("modbus", profile.signals[0])
    assert isinstance(address, ModbusAddress)
    assert address.wire == 0x34
    assert parsed_address("another", profile.signals[0]) == {"table": "input", "address": 0x34, "type": "float32"}


def test_addresses_and_rules_are_checked_where_they_stand(tmp_path: Path) -> None:
    text = PROFILE.replace("table: input", "table: inputs").replace("max_registers: 40", "max_register: 40")
    (tmp_path / "ours.yaml").write_text(text)
    with pytest.raises(DocumentError) as caught:
        load_profile("./ours.yaml", tmp_path)
    assert [(p.line, p.path, p.nearest) for p in caught.value.problems] == [
        (8, "rules.max_register", "max_registers"),
        (13, "signals[0].address.table", "input"),
    ]


def test_a_rule_over_several_keys_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text(PROFILE.replace("address: 0x34, ", ""))
    with pytest.raises(DocumentError, match=r"ours\.yaml:13: signals\[0\]\.address: Give `address`"):
        load_profile("ours.yaml", tmp_path)


def test_an_unknown_profile_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.library.shipped", lambda: ("eastron-sdm630", "delta-dtb"))
    with pytest.raises(DocumentError, match=r"'eastron_sdm63'.*Did you mean eastron-sdm630\?"):
        read_profile("eastron_sdm63")


@pytest.mark.parametrize("name", shipped())
def test_each_shipped_profile_loads_under_its_own_name(name: str) -> None:
    assert load_profile(name).profile == name


def test_a_document_knows_its_parts() -> None:
    document = parse_yaml("a: [1, {b: 2}]", "f")
    assert document.at(["a", 1, "b"]) == 2
    assert Document("f", {}).line(["a"]) is None
