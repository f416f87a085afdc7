"""YAML documents that people write: read with positions, checked against a model, every problem told at once.

The dialect is YAML 1.2's core schema: `on`, `off`, `yes`, `no`, `2026-11-22` and `1:30` stay texts, only `true` and `false` are truth
values (YAML 1.2.2 §10.3). A key that is written twice is an error, and so is a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from schemas._explain import explain, nearest
from schemas.bilingual import Bilingual, chinese, spoken

M = TypeVar("M", bound=BaseModel)
Place = Sequence[str | int]

MAX_BYTES = 16 * 1024 * 1024
"""A configuration file is never larger; what is, is a wrong file."""
MAX_DEPTH = 64
NO_SUCH_FILE = Bilingual("no such file", "文件不存在")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a document: where it is, what was found, what is expected, the nearest valid thing, and what to do.

    `found`, `expected` and `fix` are `schemas.bilingual.Bilingual` where they are words; `str(problem)` is the English of the whole.
    """

    file: str
    path: str
    line: int | None
    found: str
    expected: str
    nearest: str = ""
    fix: str = ""

    def text(self, language: str) -> str:
        """The whole in `language`: zh, or English for any other."""
        where = spoken(self.file, language)
        if self.line is not None:
            where = f"{where}:{self.line}"
        text = "".join(f"{part}: " for part in (where, self.path) if part)
        if language == "zh":
            said = [f"发现 {chinese(self.found)}"] if self.found else []
            said += [f"应为 {chinese(self.expected)}"] if self.expected else []
            text += "，".join(said) + ("。" if said else "")
            return (text + (f"是否指 {self.nearest}？" if self.nearest else "") + chinese(self.fix)).rstrip()
        said = [f"found {self.found}"] if self.found else []
        said += [f"expected {self.expected}"] if self.expected else []
        if said:
            text += ", ".join(said) + ". "
        if self.nearest:
            text += f"Did you mean {self.nearest}? "
        return (text + self.fix).rstrip()

    def __str__(self) -> str:
        return self.text("en")


class DocumentError(Exception):
    """A document cannot be used. `problems` holds every mistake in it, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.file, p.line or 0))
        super().__init__(
            Bilingual(
                "\n".join(str(problem) for problem in self.problems),
                "\n".join(problem.text("zh") for problem in self.problems),
            )
        )


@dataclass(frozen=True)
class Document:
    """A document's data with the line of each of its parts."""

    file: str
    data: Any
    _root: yaml.Node | None = None
    _children: Mapping[int, Mapping[Any, tuple[int, yaml.Node]]] = field(default_factory=dict)

    def line(self, place: Place) -> int | None:
        """The line (from 1) of the deepest existing part of `place`; None for data that was not read from a file."""
        if self._root is None:
            return None
        node, line = self._root, self._root.start_mark.line + 1
        for part in place:
            entry = self._children.get(id(node), {}).get(part)
            if entry is None:
                break
            line, node = entry
        return line

    def at(self, place: Place) -> Any:
        """The data at `place`. Raises KeyError or IndexError where there is none."""
        data = self.data
        for part in place:
            data = data[part]
        return data

    def problem(self, place: Place, *, found: str, expected: str, nearest: str = "", fix: str = "") -> Problem:
        """A problem at `place` of this document."""
        return Problem(self.file, path_text(place), self.line(place), found, expected, nearest, fix)


def path_text(place: Place) -> str:
    """`links[0].devices[1].override["cycle/last_time"]` of the parts of a place."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


# --------------------------------------------------------------------------------------------------------------- reading


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes by the core schema of YAML 1.2 (§10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own name


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    ("merge", r"<<", "<"),
):  # fmt: skip
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(rf"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first]
    )


class _Builder:
    """Plain data from nodes, with the line of each key and item; mistakes are collected."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.children: dict[int, dict[Any, tuple[int, yaml.Node]]] = {}
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        if id(node) in self._built:
            return self._built[id(node)]
        if id(node) in self._open:
            self._problem(
                node, place,
                Bilingual("an alias to the part that contains it", "指向包含自身部分的别名"),
                Bilingual("a document without circles", "没有循环引用的文档"),
            )  # fmt: skip
            return None
        self._open.add(id(node))
        data: Any
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            data = self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            data = [self.build(child, (*place, i)) for i, child in enumerate(node.value)]
            self.children[id(node)] = {i: (c.start_mark.line + 1, c) for i, c in enumerate(node.value)}
        elif isinstance(node, yaml.ScalarNode):
            data = self._scalar(node, place)
        else:
            data = None
            self._tag(node, place)
        self._open.discard(id(node))
        self._built[id(node)] = data
        return data

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[Any, Any]:
        data: dict[Any, Any] = {}
        children: dict[Any, tuple[int, yaml.Node]] = {}
        merged: list[tuple[yaml.Node, Any]] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                merged.append((value_node, self.build(value_node, place)))
                continue
            key = self.build(key_node, place) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or isinstance(key, float):
                self._problem(
                    key_node, place, Bilingual("a key that is no text", "不是文本的键"),
                    Bilingual("a key such as name:", "形如 name: 的键"),
                    fix=Bilingual("Quote the key.", "请给该键加引号。"),
                )  # fmt: skip
                continue
            if isinstance(key, bool):
                key = str(key_node.value)
            if key in data:
                first = children[key][0]
                self._problem(
                    key_node, (*place, key), Bilingual(f"the key {key!r} a second time", f"重复的键 {key!r}"),
                    Bilingual(f"it once (first on line {first})", f"只写一次（首次出现在第 {first} 行）"),
                    fix=Bilingual("Remove one of the two.", "请删除其中一个。"),
                )  # fmt: skip
                continue
            data[key] = self.build(value_node, (*place, key))
            children[key] = (line, value_node)
        self.children[id(node)] = children
        for merge_node, merge in merged:
            nodes = merge_node.value if isinstance(merge_node, yaml.SequenceNode) else [merge_node]
            for source_node, source in zip(nodes, merge if isinstance(merge, list) else [merge], strict=True):
                if not isinstance(source, dict):
                    self._problem(
                        source_node, place,
                        Bilingual("<< with something that is no mapping", "<< 之后不是键值映射"),
                        Bilingual("an alias of a mapping", "键值映射的别名"),
                    )  # fmt: skip
                    continue
                for key, value in source.items():
                    if key not in data:
                        data[key] = value
                        children[key] = self.children[id(source_node)][key]
        return data

    def _scalar(self, node: yaml.ScalarNode, place: tuple[str | int, ...]) -> Any:
        text = str(node.value)
        try:
            match node.tag.removeprefix(_TAG):
                case "str" | "merge":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._problem(
                node, place, repr(text[:60]), Bilingual(f"a value of the tag {node.tag}", f"标签 {node.tag} 的值")
            )
            return None
        self._tag(node, place)
        return None

    def _tag(self, node: yaml.Node, place: tuple[str | int, ...]) -> None:
        self._problem(
            node, place, Bilingual(f"the tag {node.tag}", f"标签 {node.tag}"),
            Bilingual("plain YAML without tags", "不带标签的普通 YAML"),
            fix=Bilingual("Remove the tag (!…).", "请删除标签（!…）。"),
        )  # fmt: skip

    def _problem(self, node: yaml.Node, place: Place, found: str, expected: str, fix: str = "") -> None:
        self.problems.append(Problem(self.file, path_text(place), node.start_mark.line + 1, found, expected, fix=fix))


def _too_deep(text: str) -> int | None:
    """The line where nesting exceeds MAX_DEPTH. Composing recurses in C, where depth ends the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                return mark.line + 1 if mark is not None else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def parse_yaml(text: str, file: str) -> Document:
    """The document in `text`; `file` is only its name in problems. Raises DocumentError."""
    too_deep, node = None, None
    try:
        too_deep = _too_deep(text)
        loader = _Loader(text if too_deep is None else "")
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise DocumentError([_syntax_problem(error, text, file)]) from None
    if too_deep is not None:
        found = Bilingual(f"more than {MAX_DEPTH} levels", f"超过 {MAX_DEPTH} 层嵌套")
        raise DocumentError([Problem(file, "", too_deep, found, Bilingual("a few levels of nesting", "几层嵌套"))])
    if node is None:
        return Document(file, {})
    builder = _Builder(file)
    data = builder.build(node, ())
    if builder.problems:
        raise DocumentError(builder.problems)
    return Document(file, {} if data is None else data, node, builder.children)


def read_yaml(path: Path) -> Document:
    """The document in the file `path` (UTF-8). Raises DocumentError, also for a file that is missing or cannot be read."""
    file = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            found = Bilingual("a file of more than 16 MB", "超过 16 MB 的文件")
            raise DocumentError(
                [Problem(file, "", None, found, Bilingual("a YAML file written by people", "人工编写的 YAML 文件"))]
            )
        raw = path.read_bytes()
    except FileNotFoundError:
        there = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = nearest(path.name, there)
        raise DocumentError(
            [Problem(file, "", None, NO_SUCH_FILE, Bilingual("a YAML file", "YAML 文件"), near)]
        ) from None
    except OSError as error:
        problem = Problem(
            file, "", None, error.strerror or str(error), Bilingual("a readable file", "可读取的文件"),
            fix=Bilingual("Check its permissions.", "请检查文件权限。"),
        )  # fmt: skip
        raise DocumentError([problem]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(
            file, "", line,
            Bilingual(f"the byte 0x{raw[error.start]:02x}, which is not UTF-8", f"字节 0x{raw[error.start]:02x}，不是 UTF-8"),
            Bilingual("a file in UTF-8", "UTF-8 编码的文件"),
            fix=Bilingual(
                "Save it again with the encoding UTF-8 (it may be GBK now).", "请以 UTF-8 编码另存（目前可能是 GBK）。"
            ),
        )  # fmt: skip
        raise DocumentError([problem]) from None
    return parse_yaml(text, file)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """What the parser could not read, with a hint for the usual traps; never the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark is not None else None
    lines = text.split("\n")
    source = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "\t" in source[: len(source) - len(source.lstrip())] or "'\\t'" in what:
        fix = Bilingual("Indent with spaces; a tab is not allowed here.", "请用空格缩进；此处不允许制表符。")
    elif re.search(r':\s+"[^"\n]*=[^"\n]*"', source) and source.count('"') > 2:
        fix = Bilingual(
            'Put a NodeId that contains quotes between single quotes: \'ns=3;s="DB"."T"\'.',
            '含引号的 NodeId 请放在单引号内：\'ns=3;s="DB"."T"\'。',
        )
    elif "mapping values are not allowed" in what or "expected ',' or" in what:
        fix = Bilingual(
            "Put a text that contains ': ', a comma or a brace between quotes, and check the indentation.",
            "含 ': '、逗号或花括号的文本请加引号，并检查缩进。",
        )
    elif "@" in what or "`" in what or "%" in what:
        fix = Bilingual("Put a text that begins with @, ` or % between quotes.", "以 @、` 或 % 开头的文本请加引号。")
    else:
        fix = Bilingual(
            "Check the indentation and the quotes on this line and the one before.", "请检查本行与上一行的缩进和引号。"
        )
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Problem(
            file, "", line, Bilingual("a control character", "控制字符"), Bilingual("printable text", "可打印的文本"),
            fix=Bilingual("Delete it and type the line again.", "请删除后重新输入该行。"),
        )  # fmt: skip
    found = Bilingual(f"a line that is not YAML ({what})", f"不是 YAML 的一行（{what}）")
    return Problem(file, "", line, found, Bilingual("valid YAML", "有效的 YAML"), fix=fix)


# -------------------------------------------------------------------------------------------------------------- checking


def validate(document: Document | Any, model: type[M], file: str = "", *, context: Any = None) -> M:
    """An instance of `model` from a document (or from plain data, then `file` is its name). Raises DocumentError.

    `context` is handed to the model's validators.
    """
    if not isinstance(document, Document):
        document = Document(file, document)
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        raise DocumentError(problems_of(document, error, model)) from None


def problems_of(
    document: Document, error: ValidationError, model: type[BaseModel], prefix: Place = ()
) -> list[Problem]:
    """The problems behind a pydantic error about the part of `document` at `prefix`, one for each mistake."""
    try:
        data = document.at(prefix)
    except (KeyError, IndexError, TypeError):
        data = {}
    return [
        document.problem([*prefix, *e.place], found=e.found, expected=e.expected, nearest=e.nearest, fix=e.fix)
        for e in explain(error, model, data)
    ]


def check_part(document: Document, place: Place, data: Any, model: type[M]) -> tuple[M | None, list[Problem]]:
    """`data`, which stands at `place`, as an instance of `model`; or None and the problems."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        part = Document(document.file, data, document._root, document._children)
        return None, [
            part.problem([*place, *e.place], found=e.found, expected=e.expected, nearest=e.nearest, fix=e.fix)
            for e in explain(error, model, data)
        ]


__all__ = [
    "Document", "DocumentError", "Place", "Problem", "check_part", "nearest", "parse_yaml", "path_text", "problems_of", "read_yaml", "validate",
]  # fmt: skip
