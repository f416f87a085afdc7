"""Pydantic's errors in words that a newcomer can act on."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.bilingual import Bilingual, chinese, of_error
from schemas.model import ID_PATTERN, Text

_SECRET = re.compile(r"password|secret|token|passphrase|api_key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Explained:
    """One mistake: `place` below the part that was checked, and the words for it (`schemas.bilingual.Bilingual` where they are words)."""

    place: tuple[str | int, ...]
    found: str
    expected: str
    nearest: str = ""
    fix: str = ""


def explain(error: ValidationError, model: type[BaseModel], data: Any) -> list[Explained]:
    """One `Explained` for each mistake. A missing key beside an unknown one that is nearly it is one mistake, not two."""
    result: list[Explained] = []
    misspelt: set[tuple[str | int, ...]] = set()
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "extra_forbidden":
            entry = _unknown_key(detail, model, data)
            if entry.nearest:
                misspelt.add((*entry.place[:-1], entry.nearest))
            result.append(entry)
    for detail in details:
        if detail["type"] == "extra_forbidden" or only_follows(detail):
            continue
        entry = _explain(detail, model, data)
        if detail["type"] == "missing" and entry.place in misspelt:
            continue
        if entry not in result:
            result.append(entry)
    return result


def only_follows(detail: ErrorDetails) -> bool:
    """True for a list that is too short only because its items are wrong."""
    value = detail.get("input")
    least = (detail.get("ctx") or {}).get("min_length", 0)
    return detail["type"] == "too_short" and isinstance(value, list | tuple) and len(value) >= least


def shown(value: Any, place: Sequence[str | int] = ()) -> str:
    """A value as a message may show it: short, and never a secret."""
    if any(isinstance(part, str) and _SECRET.search(part) for part in place):
        return Bilingual("a value that is not shown here", "（此处不显示的值）")
    match value:
        case None:
            return Bilingual("nothing", "空值")
        case bool():
            return "true" if value else "false"
        case dict():
            return Bilingual("a mapping", "键值映射") if value else Bilingual("an empty mapping", "空的键值映射")
        case list() | tuple():
            if len(value) <= 4 and all(isinstance(v, int | float) for v in value):
                return str(list(value))
            if not value:
                return Bilingual("an empty list", "空列表")
            return Bilingual(f"a list of {len(value)}", f"{len(value)} 项的列表")
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "…")
        case _:
            return str(value)[:60]


# ------------------------------------------------------------------------------------------------ the type at some place


def members_of(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, without Annotated and Union."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [m for arg in get_args(annotation) for m in members_of(arg)]
    return [annotation]


def _step(candidate: Any, part: str | int) -> list[Any]:
    """The annotations of `part` within `candidate`, none where there is no such part."""
    if isinstance(candidate, type) and issubclass(candidate, BaseModel):
        info = candidate.model_fields.get(str(part))
        return members_of(info.annotation) if info is not None else []
    origin, args = get_origin(candidate), get_args(candidate)
    if origin is dict and len(args) == 2:
        return members_of(args[1])
    if origin in (list, set, frozenset) and isinstance(part, int):
        return members_of(args[0])
    if origin is tuple and isinstance(part, int):
        if len(args) == 2 and args[1] is Ellipsis:
            return members_of(args[0])
        return members_of(args[part]) if part < len(args) else []
    return []


def real_place(model: type[BaseModel], data: Any, loc: Sequence[str | int]) -> tuple[tuple[str | int, ...], list[Any]]:
    """The real place of pydantic's `loc`, which also names members of unions and validators, and the types there."""
    place: list[str | int] = []
    types_here: list[Any] = [model]
    for index, part in enumerate(loc):
        further = [t for candidate in types_here for t in _step(candidate, part)]
        inside = False
        if isinstance(data, dict) and part in data:
            data, inside = data[part], True
        elif isinstance(data, dict) and str(part).lstrip("-").isdigit() and int(part) in data:
            part = int(part)
            data, inside = data[part], True
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data, inside = data[part], True
        last_known = index == len(loc) - 1 and any(
            isinstance(t, type) and issubclass(t, BaseModel) and str(part) in t.model_fields for t in types_here
        )
        if inside or last_known:
            place.append(part)
            types_here = further or types_here
            if not inside:
                data = None
    return tuple(place), types_here


def data_at(data: Any, place: Sequence[str | int]) -> Any:
    """What is written at `place`; None where nothing is."""
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _models(candidates: Sequence[Any]) -> list[type[BaseModel]]:
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


# ------------------------------------------------------------------------------------------------------------- the words


def _unknown_key(detail: ErrorDetails, model: type[BaseModel], data: Any) -> Explained:
    *above, key = detail["loc"]
    place, candidates = real_place(model, data, above)
    names = [name for m in _models(candidates) for name in m.model_fields]
    near = nearest(key, names)
    listed = ", ".join(names)
    among = Bilingual(f"one of the keys {listed}", f"以下键之一：{listed}")
    expected = among if names else Bilingual("no such key", "没有这个键")
    return Explained(
        (*place, key), Bilingual(f"the unknown key {str(key)!r}", f"未知的键 {str(key)!r}"), expected, near
    )


def nearest(word: object, valid: Iterable[object]) -> str:
    """The valid word that is most like `word`, else an empty string. Swapped letters count little, a wrong first one much."""
    names = {str(v).casefold(): str(v) for v in valid}
    written = str(word).casefold()

    def likeness(name: str) -> float:
        same = sorted(name) == sorted(written)
        return SequenceMatcher(None, name, written).ratio() + 0.2 * same + 0.05 * (name[:1] == written[:1])

    near = sorted(get_close_matches(written, names, n=5, cutoff=0.55), key=likeness, reverse=True)
    return names[near[0]] if near else ""


_LIMITS = {
    "greater_than": (Bilingual("more than", "大于"), "gt"),
    "greater_than_equal": (Bilingual("at least", "不小于"), "ge"),
    "less_than": (Bilingual("less than", "小于"), "lt"),
    "less_than_equal": (Bilingual("at most", "不大于"), "le"),
}
_PLAIN = {
    "bool": Bilingual("true or false", "true 或 false（布尔值）"),
    "int": Bilingual("a whole number", "整数"),
    "float": Bilingual("a number", "数字"),
    "decimal": Bilingual("a number", "数字"),
    "string": Bilingual("a text", "文本"),
    "list": Bilingual("a list", "列表"),
    "tuple": Bilingual("a list", "列表"),
    "dict": Bilingual("a mapping of keys to values", "键值映射"),
    "path": Bilingual("a path", "路径"),
    "none": Bilingual("nothing", "空值"),
    "finite": Bilingual("a finite number", "有限的数字"),
}


def _explain(detail: ErrorDetails, model: type[BaseModel], data: Any) -> Explained:
    kind, value = detail["type"], detail.get("input")
    context: dict[str, Any] = detail.get("ctx") or {}
    place, candidates = real_place(model, data, detail["loc"])
    found = shown(value, place)
    if kind == "missing":
        return _missing(place, candidates)
    if kind in ("literal_error", "enum"):
        choices = [str(c) for t in candidates for c in get_args(t) if get_origin(t) is Literal]
        return Explained(place, found, _one_of(choices), nearest(value, choices))
    if kind in _LIMITS:
        word, key = _LIMITS[kind]
        written = data_at(data, place)
        limit = _number(context[key])
        return Explained(
            place,
            found if written is None else shown(written, place),
            Bilingual(f"a value of {word} {limit}", f"{chinese(word)} {limit} 的值"),
        )
    if kind == "string_pattern_mismatch":
        if context.get("pattern") == ID_PATTERN:
            near = re.sub(r"[^a-z0-9_-]+", "-", str(value).strip().lower()).strip("-_")
            near = near if re.fullmatch(ID_PATTERN, near) else ""
            expected = Bilingual(
                "an id: lower-case letters, digits, - and _, at most 63", "标识：小写字母、数字、- 和 _，最多 63 个字符"
            )
            return Explained(place, found, expected, near)
        pattern = context.get("pattern")
        return Explained(place, found, Bilingual(f"a text that matches {pattern}", f"符合 {pattern} 的文本"))
    if kind in ("value_error", "assertion_error"):
        raised = context.get("error")
        said = of_error(raised) if isinstance(raised, BaseException) else detail["msg"]
        return _own_message(place, value, said)
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        low, high = context.get("min_length"), context.get("max_length")
        least, most = Bilingual(f"at least {low}", f"至少 {low} 个"), Bilingual(f"at most {high}", f"最多 {high} 个")
        return Explained(place, found, least if low is not None else most)
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        return Explained(place, found, _shape(candidates))
    if kind == "string_type" and isinstance(value, int | float | bool):
        return Explained(place, found, _PLAIN["string"], fix=Bilingual("Put it between quotes.", "请加上引号。"))
    family = kind.split("_", 1)[0]
    if family in _PLAIN:
        return Explained(place, found, _PLAIN[family])
    words = detail["msg"].removeprefix("Input should be ").strip()
    return Explained(place, found, Bilingual(words, f"有效的值（{words}）"))


def _missing(place: tuple[str | int, ...], candidates: Sequence[Any]) -> Explained:
    key = place[-1] if place else ""
    above, shape = place[:-1], _shape(candidates)
    return Explained(
        (*above, key),
        "",
        Bilingual(f"the key {key!r}, which is missing", f"缺少的键 {key!r}"),
        fix=Bilingual(f"Add `{key}:` with {shape}.", f"请添加 `{key}:`，值为{chinese(shape)}。"),
    )


def _shape(candidates: Sequence[Any]) -> str:
    """What has to stand at a place, in words."""
    if Text in candidates:
        return Bilingual("a text, or {zh: …, en: …}", "文本，或 {zh: …, en: …}")
    models = _models(candidates)
    if models:
        names = list(models[0].model_fields)
        listed = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
        return Bilingual(f"a mapping with the keys {listed}", f"含以下键的映射：{listed}")
    for candidate in candidates:
        if get_origin(candidate) is Literal:
            return _one_of([str(a) for a in get_args(candidate)])
        origin = get_origin(candidate) or candidate
        for plain, words in (
            (bool, "bool"), (int, "int"), (float, "float"), (str, "string"), (tuple, "list"), (list, "list"), (dict, "dict"),
        ):  # fmt: skip
            if origin is plain:
                return _PLAIN[words]
    return Bilingual("a value", "一个值")


def _one_of(choices: Sequence[str]) -> str:
    listed = ", ".join(choices)
    return Bilingual(f"one of {listed}", f"以下之一：{listed}")


def _own_message(place: tuple[str | int, ...], value: Any, message: str) -> Explained:
    """A message of our own validators: it says what was found and what to write."""
    text = message if isinstance(message, Bilingual) else message.removeprefix("Assertion failed, ")
    # Our validators speak to the author already; a secret that stands in clear is never repeated.
    found = shown(value, place) if not isinstance(value, dict | list | tuple) and repr(value) not in text else ""
    return Explained(place, found, "", fix=sentence(text))


def sentence(text: str) -> str:
    """A message as a sentence: a capital letter at its beginning, a full stop at its end."""
    told = text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    if isinstance(text, Bilingual):
        return Bilingual(told, text.zh + ("" if text.zh.endswith("。") else "。"))
    return told


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
