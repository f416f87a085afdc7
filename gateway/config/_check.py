"""What a form cannot say: ids that are used twice, assets that do not exist, ports that collide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args
from urllib.parse import urlsplit

from gateway.config._environment import Variable
from gateway.config.models import Config
from schemas.bilingual import Bilingual, chinese
from schemas.documents import Place, Problem, nearest
from schemas.model import Asset, Level

LEVELS: dict[str, int] = {level: rank for rank, level in enumerate(get_args(Level))}
MAX_LEVELS = 7
_SCHEMES = ("sqlite", "postgresql")
_AN_ASSET = Bilingual("the id of an asset in this file", "本文件中某个资产的 id")


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
                at = Bilingual(f" (first on line {line})", f"（首次出现在第 {line} 行）") if line is not None else ""
                yield config.document.problem(
                    [*place, "id"],
                    found=Bilingual(f"the {what} {name!r} a second time", f"重复的{chinese(what)} {name!r}"),
                    expected=Bilingual(f"each id once{at}", f"每个 id 只出现一次{chinese(at)}"),
                    fix=elsewhere or Bilingual(f"Give this {what} another id.", f"请为该{chinese(what)}换一个 id。"),
                )  # fmt: skip
            else:
                first[name] = place

    yield from twice(Bilingual("asset", "资产"), [(asset.id, ["assets", i]) for i, asset in enumerate(config.assets)])
    yield from twice(Bilingual("link", "链路"), [(link.id, ["links", i]) for i, link in enumerate(config.links)])
    devices: list[tuple[str, Place]] = [
        (device.id, ["links", i, "devices", j])
        for i, link in enumerate(config.links)
        for j, device in enumerate(link.devices)
    ]
    one_link = Bilingual(
        "A device is on one link: remove it here, or give it another id.",
        "一个设备只属于一条链路：请在此处删除，或换一个 id。",
    )
    yield from twice(Bilingual("device", "设备"), devices, one_link)


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
                place, found=Bilingual(f"the parent {asset.parent!r}", f"上级 {asset.parent!r}"), expected=_AN_ASSET,
                nearest=nearest(asset.parent, [a for a in by_id if a != asset.id]),
            )  # fmt: skip
            continue
        path = path_of(asset.id, by_id)
        if path is None:
            circle = _circle(asset.id, by_id)
            if circle and not told & set(circle):
                told |= set(circle)
                round_trip = [*circle, circle[0]]
                yield config.document.problem(
                    place,
                    found=Bilingual(f"a circle: {' in '.join(round_trip)}", f"循环：{' 属于 '.join(round_trip)}"),
                    expected=Bilingual("a tree of assets", "树状的资产结构"),
                    fix=Bilingual("Take the `parent` away from the topmost one.", "请删除最上层资产的 `parent`。"),
                )  # fmt: skip
            continue
        if LEVELS[asset.level] <= LEVELS[parent.level]:
            below = [level for level, rank in LEVELS.items() if rank > LEVELS[parent.level]]
            yield config.document.problem(
                [*place[:2], "level"],
                found=Bilingual(
                    f"the {asset.level} {asset.id!r} in the {parent.level} {parent.id!r}",
                    f"{asset.level} {asset.id!r} 位于 {parent.level} {parent.id!r} 之下",
                ),
                expected=Bilingual(
                    f"a level below {parent.level}: {', '.join(below)}",
                    f"低于 {parent.level} 的层级：{', '.join(below)}",
                )
                if below
                else Bilingual("no asset in a unit", "unit 之下没有资产"),
            )
        elif len(path) > MAX_LEVELS:
            yield config.document.problem(
                place,
                found=Bilingual(f"{len(path)} levels", f"{len(path)} 层"),
                expected=Bilingual(f"at most {MAX_LEVELS}", f"最多 {MAX_LEVELS} 层"),
            )


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
                place, found=Bilingual(f"the asset {asset!r}", f"资产 {asset!r}"), expected=_AN_ASSET,
                nearest=nearest(asset, known), fix=Bilingual("Define it under `assets:`.", "请在 `assets:` 中定义。"),
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
                place, found=Bilingual(f"port {port}, which {other} has as well", f"端口 {port}，{other} 也在使用"),
                expected=Bilingual("a port of its own", "独占的端口"),
                fix=Bilingual("Choose another; 0 takes a free one for metrics.", "请换一个端口；metrics 写 0 则自动选用空闲端口。")
                if place[0] == "metrics" else Bilingual("Choose another.", "请换一个端口。"),
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
            place,
            found=Bilingual(f"the kind of store {scheme[:40]!r}", f"存储类型 {scheme[:40]!r}")
            if separator else Bilingual("a store without a kind", "未写类型的存储"),
            expected="sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE",
            nearest="postgresql" if scheme.startswith(("postgres", "timescale", "pg")) else nearest(scheme, _SCHEMES),
        )  # fmt: skip
        return
    try:
        password = urlsplit(url).password
    except ValueError:
        yield config.document.problem(
            place, found=Bilingual("a URL that cannot be read", "无法解析的 URL"),
            expected="postgresql://USER@HOST:PORT/DATABASE",
        )  # fmt: skip
        return
    if password and tuple(place) not in overridden:
        yield config.document.problem(
            place, found=Bilingual("a password in clear", "明文密码"),
            expected=Bilingual(
                "a URL without it, and store.password: {env: NAME}", "不含密码的 URL，以及 store.password: {env: NAME}"
            ),
            fix=Bilingual("Move it into the environment or a file, and change it.", "请移到环境变量或文件中，并更换该密码。"),
        )  # fmt: skip
