"""Editing a configuration's lists in its text: what is not meant stays as somebody wrote it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.points.splicing import Edit, spliced
from schemas.documents import DocumentError, parse_yaml

TEXT = """\
# the workshop
gateway: {id: a}   # ours

links:  # machines
  # the press
  - id: press   # since 2019
    adapter: modbus
    devices:
      # upper
      - id: upper
        note: |
          two
          lines
      - id: lower
        profile:

  # the meter
  - id: meter
    devices: [{id: m1}]
# the end
log_level: info
"""
LINK = {"id": "new", "devices": [{"id": "n1", "name": {"zh": "新"}}]}


def parsed(text: str) -> Any:
    return yaml.safe_load(text)


def lines_lost(before: str, after: str) -> list[str]:
    there = after.splitlines()
    return [line for line in before.splitlines() if line.strip() and line not in there]


def test_an_item_behind_the_last() -> None:
    made, kept = spliced(TEXT, [Edit(("links",), None, LINK)])
    assert kept
    assert lines_lost(TEXT, made) == []
    assert parsed(made)["links"][2] == LINK
    made, kept = spliced(TEXT, [Edit(("links", 0, "devices"), None, {"id": "third"})])
    assert kept
    assert lines_lost(TEXT, made) == []
    assert [d["id"] for d in parsed(made)["links"][0]["devices"]] == ["upper", "lower", "third"]
    assert made.index("third") < made.index("# the meter")


def test_an_item_replaced_and_one_taken_out() -> None:
    made, kept = spliced(TEXT, [Edit(("links", 0, "devices"), 0, {"id": "upper", "x": 1})])
    assert kept
    assert lines_lost(TEXT, made) == ["        note: |", "          two", "          lines"]
    made, kept = spliced(TEXT, [Edit(("links", 0, "devices"), 1, None)])
    assert kept
    assert lines_lost(TEXT, made) == ["      - id: lower", "        profile:"]
    made, kept = spliced(TEXT, [Edit(("links",), 0, None), Edit(("links",), 0, None)])
    assert kept
    assert parsed(made) == {"gateway": {"id": "a"}, "links": [], "log_level": "info"}
    assert "# the workshop" in made
    assert "# the end" in made


def test_a_list_on_one_line_costs_its_item_only() -> None:
    made, kept = spliced(TEXT, [Edit(("links", 1, "devices"), None, {"id": "m2"})])
    assert kept
    assert lines_lost(TEXT, made) == ["    devices: [{id: m1}]"]
    assert [d["id"] for d in parsed(made)["links"][1]["devices"]] == ["m1", "m2"]


@pytest.mark.parametrize("text", ["", "links: []\n", "links:\n", "links: # none\na: 1", "# c\na: 1\n", "links: ~\n"])
def test_the_first_item_of_a_list(text: str) -> None:
    made, kept = spliced(text, [Edit(("links",), None, LINK)])
    assert kept
    assert parsed(made) == {**(parsed(text) or {}), "links": [LINK]}
    assert made.count("#") == text.count("#")


@pytest.mark.parametrize(
    "text",
    ["{links: [{id: a}], b: 1}\n", "links: [\n  {id: a},\n]\n", "x: &x {id: a}\nlinks:\n- *x\n- &y {id: b}\nz: *y\n"],
)
def test_what_cannot_be_edited_in_places_is_right_all_the_same(text: str) -> None:
    before = parsed(text)
    made, _ = spliced(text, [Edit(("links",), 0, LINK), Edit(("links",), None, {"id": "z"})])
    assert parsed(made) == {**before, "links": [LINK, *before["links"][1:], {"id": "z"}]}


def test_it_says_when_comments_are_lost() -> None:
    made, kept = spliced("# mine\nlinks: [\n  {id: a},\n]\n", [Edit(("links",), None, LINK)])
    assert not kept
    assert "# mine" not in made


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-999, 999), st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
_ITEMS = st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), _VALUES, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_ITEMS, max_size=4),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), _ITEMS)), min_size=1, max_size=3),
)
def test_the_outcome_is_always_what_was_wanted(items: list[Any], flow: bool, changes: list[tuple[int, Any]]) -> None:
    text = "# head\n" + yaml.safe_dump({"a": 1, "links": items, "z": {"b": [1]}}, default_flow_style=flow or None, allow_unicode=True, sort_keys=False)  # fmt: skip
    wanted, edits = list(items), []
    for at, item in changes:
        if at >= len(wanted):
            if item is not None:
                wanted.append(item)
                edits.append(Edit(("links",), None, item))
        else:
            wanted[at : at + 1] = [] if item is None else [item]
            edits.append(Edit(("links",), at, item))
    try:
        before = parse_yaml(text, "").data
    except DocumentError:
        return  # YAML 1.1 that YAML 1.2 does not know
    expected = [before["links"][items.index(item)] if item in items else item for item in wanted]
    made, _ = spliced(text, edits)
    assert parse_yaml(made, "").data == {**before, "links": expected}
