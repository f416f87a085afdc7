"""The difference between two configurations: links, devices and signals, with the names of the keys that changed.

Values are never told: a setting may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from gateway.config.models import Config
from gateway.config.plan import Plan, PlannedDevice, PlannedLink, PlannedSignal

What = Literal["link", "device", "signal"]
How = Literal["added", "removed", "changed"]


class Change(msgspec.Struct, frozen=True):
    """One thing that differs. `keys` only of a changed one: the keys whose values differ, sorted."""

    what: What
    id: str
    how: How
    keys: list[str] = msgspec.field(default_factory=list)


class Difference(msgspec.Struct, frozen=True):
    """What applying would do."""

    changes: list[Change] = msgspec.field(default_factory=list)
    links: list[str] = msgspec.field(default_factory=list)
    """Links that are begun, ended or begun anew; readings of the devices on all others go on."""
    restart: list[str] = msgspec.field(default_factory=list)
    """Sections of the file that differ and count only when the gateway is started again."""

    @property
    def empty(self) -> bool:
        """True when nothing differs."""
        return not self.changes and not self.restart


_NOT_COMPARED = frozenset(
    {"id", "point", "index", "first", "link", "device", "devices", "signals", "revision", "address_text"}
)


def difference(before: Plan, after: Plan, links: Iterable[str], restart: Iterable[str]) -> Difference:
    """From `before` to `after`; `links` are those that have to be begun anew, `restart` what needs a start."""
    changes = _compared("link", {k.id: k for k in before.links}, {k.id: k for k in after.links})
    changes += _compared("device", {d.id: d for d in before.devices}, {d.id: d for d in after.devices})
    changes += _compared("signal", _signals(before), _signals(after))
    return Difference(changes, sorted(links), sorted(restart))


def restart_sections(before: Config, after: Config) -> list[str]:
    """The sections in which two configurations differ and that a running gateway does not take over."""
    names = [name for name in type(before).model_fields if name not in ("links", "assets")]
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _signals(plan: Plan) -> dict[str, PlannedSignal]:
    return {f"{signal.device}/{signal.signal.name}": signal for signal in plan.signals}


def _compared(what: What, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    changes = [Change(what, name, "removed") for name in before if name not in after]
    for name, new in after.items():
        old = before.get(name)
        if old is None:
            changes.append(Change(what, name, "added"))
        elif keys := _keys(old, new):
            changes.append(Change(what, name, "changed", keys))
    return changes


def _keys(old: PlannedLink | PlannedDevice | PlannedSignal, new: Any) -> list[str]:
    """The keys in which two things of one kind differ; those of a group of settings with its name before them."""
    found: set[str] = set()
    for field in fields(old):
        one, other = getattr(old, field.name), getattr(new, field.name)
        if field.name == "broken":
            one, other = str(one), str(other)
        if field.name in _NOT_COMPARED or one == other:
            continue
        inner = _inner(one, other)
        name = {"asset_path": "assets"}.get(field.name, field.name)
        prefix = "" if name == "signal" else f"{name}."
        found |= {prefix + key for key in inner} if inner else {name}
    if isinstance(old, PlannedSignal):
        found -= {"address"}  # as it was written; what it comes to stands beside it
    if isinstance(old, PlannedDevice) and old.link != new.link:
        found.add("link")
    return sorted(found)


def _inner(one: Any, other: Any) -> list[str]:
    if isinstance(one, BaseModel) and type(one) is type(other):
        return [name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)]
    return []
