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

from schemas.model import ID_PATTERN, Text

_SECRET = re.compile(r"password|secret|token|passphrase|api_key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Explained:
    """One mistake: `place` below the part that was checked, and the words for it."""

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
        return "a value that is not shown here"
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            if len(value) <= 4 and all(isinstance(v, int | float) for v in value):
                return str(list(value))
            return f"a list of {len(value)}" if value else "an empty list"
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
    expected = "one of the keys " + ", ".join(names) if names else "no such key"
    return Explained((*place, key), f"the unknown key {str(key)!r}", expected, near)


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
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_PLAIN = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys to values",
    "path": "a path",
    "none": "nothing",
    "finite": "a finite number",
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
        return Explained(place, found, "one of " + ", ".join(choices), nearest(value, choices))
    if kind in _LIMITS:
        word, key = _LIMITS[kind]
        written = data_at(data, place)
        return Explained(
            place, found if written is None else shown(written, place), f"a value of {word} {_number(context[key])}"
        )
    if kind == "string_pattern_mismatch":
        if context.get("pattern") == ID_PATTERN:
            near = re.sub(r"[^a-z0-9_-]+", "-", str(value).strip().lower()).strip("-_")
            near = near if re.fullmatch(ID_PATTERN, near) else ""
            return Explained(place, found, "an id: lower-case letters, digits, - and _, at most 63", near)
        return Explained(place, found, f"a text that matches {context.get('pattern')}")
    if kind in ("value_error", "assertion_error"):
        return _own_message(place, value, detail["msg"])
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        low, high = context.get("min_length"), context.get("max_length")
        return Explained(place, found, f"at least {low}" if low is not None else f"at most {high}")
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        expected = _shape(candidates)
        return Explained(place, found, expected)
    if kind == "string_type" and isinstance(value, int | float | bool):
        return Explained(place, found, "a text", fix="Put it between quotes.")
    family = kind.split("_", 1)[0]
    if family in _PLAIN:
        return Explained(place, found, _PLAIN[family])
    return Explained(place, found, detail["msg"].removeprefix("Input should be ").strip())


def _missing(place: tuple[str | int, ...], candidates: Sequence[Any]) -> Explained:
    key = place[-1] if place else ""
    above, shape = place[:-1], _shape(candidates)
    return Explained((*above, key), "", f"the key {key!r}, which is missing", fix=f"Add `{key}:` with {shape}.")


def _shape(candidates: Sequence[Any]) -> str:
    """What has to stand at a place, in words."""
    if Text in candidates:
        return "a text, or {zh: …, en: …}"
    models = _models(candidates)
    if models:
        names = list(models[0].model_fields)
        return "a mapping with the keys " + ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
    for candidate in candidates:
        if get_origin(candidate) is Literal:
            return "one of " + ", ".join(str(a) for a in get_args(candidate))
        origin = get_origin(candidate) or candidate
        for plain, words in (
            (bool, "bool"), (int, "int"), (float, "float"), (str, "string"), (tuple, "list"), (list, "list"), (dict, "dict"),
        ):  # fmt: skip
            if origin is plain:
                return _PLAIN[words]
    return "a value"


def _own_message(place: tuple[str | int, ...], value: Any, message: str) -> Explained:
    """A message of our own validators: it says what was found and what to write."""
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    # Our validators speak to the author already; a secret that stands in clear is never repeated.
    found = shown(value, place) if not isinstance(value, dict | list | tuple) and repr(value) not in text else ""
    return Explained(place, found, "", fix=text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."))


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
