"""What a form cannot say: ids that are used twice, assets that do not exist, ports that collide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args
from urllib.parse import urlsplit

from gateway.config._environment import Variable
from gateway.config.models import Config
from schemas.documents import Place, Problem, nearest
from schemas.model import Asset, Level

LEVELS: dict[str, int] = {level: rank for rank, level in enumerate(get_args(Level))}
MAX_LEVELS = 7
_SCHEMES = ("sqlite", "postgresql")


def check(
    config: Config, overridden: Mapping[tuple[str, ...], Variable], *, unfinished: frozenset[str] = frozenset()
) -> list[Problem]:
    """The problems of a configuration whose form is right. `unfinished`: ids of assets that exist, but with a mistake of form."""
    return [
        *_ids(config),
        *_assets(config, unfinished),
        *_asset_references(config, unfinished),
        *_ports(config),
        *_store(config, overridden),
    ]


def _ids(config: Config) -> Iterator[Problem]:
    def twice(what: str, places: list[tuple[str, Place]], elsewhere: str = "") -> Iterator[Problem]:
        first: dict[str, Place] = {}
        for name, place in places:
            if name in first:
                line = config.document.line([*first[name], "id"])
                at = f" (first on line {line})" if line is not None else ""
                yield config.document.problem(
                    [*place, "id"], found=f"the {what} {name!r} a second time", expected=f"each id once{at}",
                    fix=elsewhere or f"Give this {what} another id.",
                )  # fmt: skip
            else:
                first[name] = place

    yield from twice("asset", [(asset.id, ["assets", i]) for i, asset in enumerate(config.assets)])
    yield from twice("link", [(link.id, ["links", i]) for i, link in enumerate(config.links)])
    devices: list[tuple[str, Place]] = [
        (device.id, ["links", i, "devices", j])
        for i, link in enumerate(config.links)
        for j, device in enumerate(link.devices)
    ]
    yield from twice("device", devices, "A device is on one link: remove it here, or give it another id.")


def _assets(config: Config, unfinished: frozenset[str]) -> Iterator[Problem]:
    by_id: dict[str, Asset] = {}
    for asset in config.assets:
        by_id.setdefault(asset.id, asset)
    told: set[str] = set()
    for index, asset in enumerate(config.assets):
        place: list[str | int] = ["assets", index, "parent"]
        if asset.parent is None or asset.parent in unfinished - by_id.keys():
            continue
        parent = by_id.get(asset.parent)
        if parent is None:
            yield config.document.problem(
                place, found=f"the parent {asset.parent!r}", expected="the id of an asset in this file",
                nearest=nearest(asset.parent, [a for a in by_id if a != asset.id]),
            )  # fmt: skip
            continue
        path = path_of(asset.id, by_id)
        if path is None:
            circle = _circle(asset.id, by_id)
            if circle and not told & set(circle):
                told |= set(circle)
                yield config.document.problem(
                    place, found="a circle: " + " in ".join([*circle, circle[0]]), expected="a tree of assets",
                    fix="Take the `parent` away from the topmost one.",
                )  # fmt: skip
            continue
        if LEVELS[asset.level] <= LEVELS[parent.level]:
            below = [level for level, rank in LEVELS.items() if rank > LEVELS[parent.level]]
            yield config.document.problem(
                [*place[:2], "level"],
                found=f"the {asset.level} {asset.id!r} in the {parent.level} {parent.id!r}",
                expected=f"a level below {parent.level}: {', '.join(below)}" if below else "no asset in a unit",
            )
        elif len(path) > MAX_LEVELS:
            yield config.document.problem(place, found=f"{len(path)} levels", expected=f"at most {MAX_LEVELS}")


def path_of(asset: str, by_id: Mapping[str, Asset]) -> tuple[str, ...] | None:
    """The ids from the root down to `asset`; None in a circle."""
    path: list[str] = []
    here: str | None = asset
    while here is not None:
        if here in path:
            return None
        path.append(here)
        parent = by_id.get(here)
        here = parent.parent if parent is not None else None
    return tuple(reversed(path))


def _circle(asset: str, by_id: Mapping[str, Asset]) -> list[str]:
    """The circle that `asset` is part of; empty where it only hangs below one."""
    path = [asset]
    while (parent := by_id[path[-1]].parent) is not None and parent in by_id:
        if parent == asset:
            return path
        if parent in path:
            return []
        path.append(parent)
    return []


def _asset_references(config: Config, unfinished: frozenset[str]) -> Iterator[Problem]:
    known = {asset.id for asset in config.assets} | unfinished
    # A device that names no asset is one itself.
    known |= {device.id for link in config.links for device in link.devices if device.asset is None}

    def unknown(place: Place, asset: str | None) -> Iterator[Problem]:
        if asset is not None and asset not in known:
            yield config.document.problem(
                place, found=f"the asset {asset!r}", expected="the id of an asset in this file",
                nearest=nearest(asset, known), fix="Define it under `assets:`.",
            )  # fmt: skip

    for i, link in enumerate(config.links):
        for j, device in enumerate(link.devices):
            at: list[str | int] = ["links", i, "devices", j]
            yield from unknown([*at, "asset"], device.asset)
            for k, signal in enumerate(device.signals):
                yield from unknown([*at, "signals", k, "asset"], signal.asset)
            for name, override in device.override.items():
                yield from unknown([*at, "override", name, "asset"], override.asset)


def _ports(config: Config) -> Iterator[Problem]:
    ports: list[tuple[int, Place]] = [(config.api.port, ["api", "port"])]
    if config.metrics.enabled:
        ports.append((config.metrics.collect_port, ["metrics", "collect_port"]))
        ports.append((config.metrics.ingest_port, ["metrics", "ingest_port"]))
    if config.bus.embedded:
        ports.append((config.bus.port, ["bus", "port"]))
    used: dict[int, Place] = {}
    for port, place in ports:
        if port and port in used:
            other = ".".join(str(part) for part in used[port])
            yield config.document.problem(
                place, found=f"port {port}, which {other} has as well", expected="a port of its own",
                fix="Choose another; 0 takes a free one for metrics." if place[0] == "metrics" else "Choose another.",
            )  # fmt: skip
        used.setdefault(port, place)


def _store(config: Config, overridden: Mapping[tuple[str, ...], Variable]) -> Iterator[Problem]:
    url = config.store.url
    if url is None:
        return
    place = ["store", "url"]
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        yield config.document.problem(
            place, found=f"the kind of store {scheme[:40]!r}" if separator else "a store without a kind",
            expected="sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE",
            nearest="postgresql" if scheme.startswith(("postgres", "timescale", "pg")) else nearest(scheme, _SCHEMES),
        )  # fmt: skip
        return
    try:
        password = urlsplit(url).password
    except ValueError:
        yield config.document.problem(
            place, found="a URL that cannot be read", expected="postgresql://USER@HOST:PORT/DATABASE"
        )
        return
    if password and tuple(place) not in overridden:
        yield config.document.problem(
            place, found="a password in clear", expected="a URL without it, and store.password: {env: NAME}",
            fix="Move it into the environment or a file, and change it.",
        )  # fmt: skip
