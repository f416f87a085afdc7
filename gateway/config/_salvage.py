"""What is left of a configuration without its mistakes of form, so that the mistakes of meaning are told in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from gateway.config.models import Config
from schemas._explain import only_follows, real_place
from schemas.documents import Document, Place, Problem

_ROUNDS = 50
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class _Salvaged(Document):
    """A document whose lists have lost items: places are told as they are in the file."""

    origin: Mapping[int, int] = field(default_factory=dict)

    def problem(self, place: Place, *, found: str, expected: str, nearest: str = "", fix: str = "") -> Problem:
        data: Any = self.data
        real: list[str | int] = []
        for part in place:
            try:
                data = data[part]
            except (KeyError, IndexError, TypeError):
                data = None
            real.append(self.origin.get(id(data), part) if isinstance(part, int) else part)
        return super().problem(real, found=found, expected=expected, nearest=nearest, fix=fix)


def salvage(document: Document, context: dict[str, Any]) -> Config | None:
    """The configuration without what is wrong in form: a wrong optional key is left out, and an item without a needed one. None
    where nothing sensible is left."""
    data = deepcopy(document.data)
    origin: dict[int, int] = {}
    _remember(data, origin)
    for _ in range(_ROUNDS):
        try:
            config = Config.model_validate(data, context=context)
        except ValidationError as error:
            if not _prune(data, error):
                return None
            continue
        config._base = context["base"]
        config._document = _Salvaged(document.file, data, document._root, document._children, origin)
        return config
    return None


def _remember(data: Any, origin: dict[int, int]) -> None:
    """Notes the index of every mapping in a list. Identities last as long as `data`."""
    if isinstance(data, dict):
        for value in data.values():
            _remember(value, origin)
    elif isinstance(data, list):
        for index, item in enumerate(data):
            if isinstance(item, dict):
                origin[id(item)] = index
            _remember(item, origin)


def _prune(data: Any, error: ValidationError) -> bool:
    """Takes out what the error is about; False where that is the whole document."""
    places: set[Key] = set()
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            places.add((*real_place(Config, data, detail["loc"][:-1])[0], detail["loc"][-1]))
            continue
        if only_follows(detail):
            continue
        place, _ = real_place(Config, data, detail["loc"])
        places.add(place[:-1] if detail["type"] == "missing" else place)
    if () in places:
        return False
    # Longest and last first, so that no removal moves a place that is still to be removed.
    removed = 0
    for place in sorted(places, key=lambda p: [str(part).zfill(9) for part in p], reverse=True):
        removed += _remove(data, place)
    return removed > 0


def _remove(data: Any, place: Key) -> bool:
    for part in place[:-1]:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    try:
        del data[place[-1]]
    except (KeyError, IndexError, TypeError):
        return False
    return True
