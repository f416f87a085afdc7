"""A configuration's YAML with some items of its lists replaced, added or taken out; every other line stays as somebody wrote it.

Not by a library that round-trips YAML: it would write the whole file anew in its own form, which a difference then shows, and takes seconds
for ten thousand signals. Here lines are exchanged where the parser says that an item begins and ends, and the outcome is read again: whatever
is not exactly what was wanted (a file in flow style, anchors) is written anew as a whole, without its comments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from gateway.points.files import to_yaml
from schemas.documents import DocumentError, parse_yaml

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change. `place` names a list of the document; `index` an item of it, or None: behind the last; `item` is what stands there
    then, or None: it is taken out."""

    place: Place
    index: int | None
    item: Any


class _CannotSpliceError(Exception):
    pass


def spliced(text: str, edits: Sequence[Edit], data: Any = None) -> tuple[str, bool]:
    """The text with the edits made in this order, and whether everything else in it, comments too, stayed as it was.

    Each edit's index is that of the list as it is by then. `data` is what the text holds, if that is known already. Raises DocumentError for a text that is no YAML.
    """
    wanted = _data(text) if data is None else data
    for edit in edits:
        wanted = _edited(wanted, edit)
    try:
        made = text if not text or text.endswith("\n") else text + "\n"
        for group in _groups(edits):
            made = _spliced_somewhere(made, group)
        if parse_yaml(made, "").data == wanted:
            return made, True
    except (_CannotSpliceError, DocumentError, yaml.YAMLError):
        pass  # then as a whole
    return to_yaml(wanted), False


def _data(text: str) -> Any:
    data = parse_yaml(text, "configuration").data
    return data if isinstance(data, dict) else {}


def _edited(data: Any, edit: Edit) -> Any:
    """The data with the edit; lists and mappings on the way are copied."""
    if not edit.place:
        items = list(data or [])
        if edit.index is None:
            return [*items, edit.item]
        return items[: edit.index] + ([] if edit.item is None else [edit.item]) + items[edit.index + 1 :]
    first, inner = edit.place[0], Edit(edit.place[1:], edit.index, edit.item)
    if isinstance(first, int):
        return [_edited(value, inner) if i == first else value for i, value in enumerate(data)]
    return {**data, first: _edited(data.get(first), inner)}


# ------------------------------------------------------------------------------------------------------------------ lines


def _groups(edits: Sequence[Edit]) -> Iterator[list[Edit]]:
    """The edits in runs that can be made at once, with one look at where the items are: those of one list in which nothing moves."""
    run: list[Edit] = []
    for edit in edits:
        if run and (edit.place != run[0].place or edit.item is None or run[-1].item is None):
            yield run
            run = []
        run.append(edit)
    if run:
        yield run


def _spliced_somewhere(text: str, edits: Sequence[Edit]) -> str:
    """In the list itself, or, where that is written on one line, with the whole item that it belongs to."""
    place = edits[0].place
    try:
        return _spliced(text, edits)
    except _CannotSpliceError:
        if len(place) != 3 or not isinstance(place[1], int):
            raise
    data = _data(text)
    for edit in edits:
        data = _edited(data, edit)
    return _spliced(text, [Edit(place[:1], place[1], data[place[0]][place[1]])])


def _spliced(text: str, edits: Sequence[Edit]) -> str:
    lines = text.splitlines(keepends=True)
    root = yaml.compose(text, Loader=_LOADER)
    if root is None:
        root = yaml.MappingNode("tag:yaml.org,2002:map", [], flow_style=False)
    key, node = _found(root, edits[0].place)
    if node is None or (isinstance(node, yaml.SequenceNode) and not node.value) or _empty(node):
        return _first_items(lines, root, key, node, edits)
    if not isinstance(node, yaml.SequenceNode) or node.flow_style:
        raise _CannotSpliceError
    starts = [_dash(lines, node, item) for item in node.value]
    if len(set(starts)) != len(starts) or any(each.index is not None and each.index >= len(starts) for each in edits):
        raise _CannotSpliceError
    ends = [_last(item) + 1 for item in node.value]
    if edits[0].item is None and edits[0].index is not None:
        return _without(lines, key, starts, ends, edits[0].index)
    indent = node.start_mark.column
    added = [each.item for each in edits if each.index is None]
    made = [*lines[: ends[-1]], _block(added, indent), *lines[ends[-1] :]]
    replaced = {each.index: each.item for each in edits if each.index is not None}
    for at in sorted(replaced, reverse=True):
        made[starts[at] : ends[at]] = [_block([replaced[at]], indent)]
    return "".join(made)


def _without(lines: list[str], key: Any, starts: Sequence[int], ends: Sequence[int], at: int) -> str:
    """The lines without an item; a list whose only item goes is written as an empty one."""
    if len(starts) > 1:
        return "".join(lines[: starts[at]] + lines[ends[at] :])
    if key is None or key.start_mark.line >= starts[at]:
        raise _CannotSpliceError
    line = key.start_mark.line
    head = lines[line][: key.end_mark.column]
    return "".join([*lines[:line], f"{head}: []\n", *lines[line + 1 : starts[at]], *lines[ends[at] :]])


def _found(root: Any, place: Place) -> tuple[Any, Any]:
    """The key and the value at a place; None where there is none."""
    key: Any = None
    node = root
    for part in place:
        key = None
        if isinstance(part, int):
            node = node.value[part]
            continue
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            raise _CannotSpliceError
        key, node = next(((k, v) for k, v in node.value if k.value == part), (None, None))
        if node is None:
            return None, None
    return key, node


def _empty(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~") and not node.style


def _first_items(lines: list[str], root: Any, key: Any, node: Any, edits: Sequence[Edit]) -> str:
    """Items into a list that is missing, null or empty; only at the top of the document."""
    flow = isinstance(root, yaml.MappingNode) and root.flow_style and root.value
    if len(edits[0].place) != 1 or flow or any(each.index is not None for each in edits):
        raise _CannotSpliceError
    block = f"{edits[0].place[0]}:\n{_block([each.item for each in edits], 0)}"
    if key is None:
        return "".join([*lines, block])
    line = key.start_mark.line
    if node.end_mark.line != line and not _empty(node):
        raise _CannotSpliceError
    behind = lines[line][key.end_mark.column :].partition("#")
    if behind[1]:
        block = block.replace(":\n", f":  #{behind[2].rstrip()}\n", 1)
    return "".join([*lines[:line], block, *lines[line + 1 :]])


def _dash(lines: list[str], sequence: Any, item: Any) -> int:
    """The line with the dash of an item: its own, or one above it."""
    column = sequence.start_mark.column
    for number in range(item.start_mark.line, max(item.start_mark.line - 20, -1), -1):
        line = lines[number]
        if (
            line[:column].strip() == ""
            and line[column : column + 1] == "-"
            and line[column + 1 : column + 2] in (" ", "\n", "\r")
        ):
            return number
    raise _CannotSpliceError


def _last(node: Any) -> int:
    """The last line that belongs to a node; comments and blank lines behind it do not."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _last(node.value[-1][1]) if not _nothing(node.value[-1][1]) else int(node.value[-1][0].end_mark.line)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _last(node.value[-1])
    mark = node.end_mark
    return int(mark.line) if mark.column else max(int(mark.line) - 1, int(node.start_mark.line))


def _nothing(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.start_mark.index == node.end_mark.index


def _block(data: list[Any], indent: int) -> str:
    if not data:
        return ""
    text = to_yaml(data)
    pad = " " * indent
    return "".join(pad + line if line.strip() else line for line in text.splitlines(keepends=True))
