"""Drafts of the configuration, inside serve's child process: with a device that somebody has picked together, or without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.opcua.discovery import Found
from gateway.looking.questions import AddDevice, FailedLookError, Link, Mistake, RemoveDevice
from gateway.looking.shapes import DeviceDraft, Draft, Notice
from gateway.looking.tables import configuration, rewritten
from gateway.points._grid import TableError
from gateway.points.splicing import Edit, spliced
from schemas.documents import nearest
from schemas.library import shipped
from schemas.model import ID_PATTERN

Place = tuple[int, int]
"""Index of a link, and of a device on it."""


def added(question: AddDevice) -> DeviceDraft:
    """See `questions.AddDevice`. Raises FailedLookError."""
    text, data = configuration(Path(question.file))
    links: list[Any] = list(data.get("links") or [])
    _check(question)
    device, signals, notices = _device(question)
    at = _place_of(question.device.id, links)
    link_at, settings = _link_for(question, links)
    edits: list[Edit] = []
    if link_at is not None and at is not None and at[0] == link_at:
        edits.append(Edit(("links", link_at, "devices"), at[1], device))
    else:
        if link_at is not None:
            edits.append(Edit(("links", link_at, "devices"), None, device))
        if at is not None:
            edits.append(_without(links, at))  # the last that may move other links
        if link_at is None:
            edits.append(Edit(("links",), None, {}))  # filled in below, once its id is known
    if link_at is None:
        gone = links[at[0]]["id"] if at is not None and len(links[at[0]]["devices"]) == 1 else None
        link_id = _free(question.device.id, {link.get("id") for link in links} - {gone})
        item = {"id": link_id, "adapter": question.link.adapter, "settings": settings, "devices": [device]}
        edits[-1] = Edit(("links",), None, item)
    else:
        link_id = links[link_at]["id"]
        if settings is not None and settings != links[link_at].get("settings"):
            whole = {**links[link_at], "settings": settings}
            listed = [device if at == (link_at, i) else d for i, d in enumerate(whole["devices"])]
            whole["devices"] = listed if at is not None and at[0] == link_at else [*listed, device]
            edits = [Edit(("links",), link_at, whole)]
            if at is not None and at[0] != link_at:
                edits.append(_without(links, at))
    made, kept = spliced(text, edits, data)
    return DeviceDraft(made, question.device.id, link_id, signals, [*notices, *rewritten(kept, question.lang)])


def removed(question: RemoveDevice) -> Draft:
    """See `questions.RemoveDevice`. Raises FailedLookError."""
    text, data = configuration(Path(question.file))
    links: list[Any] = list(data.get("links") or [])
    at = _place_of(question.device, links)
    if at is None:
        known = [d.get("id", "") for link in links for d in link.get("devices", ())]
        near = nearest(question.device, known)
        raise FailedLookError(
            "unknown_device", f"the device {question.device!r} is not configured", f"没有配置设备 {question.device!r}",
            fix_en=f"Did you mean {near}?" if near else "", fix_zh=f"是否指 {near}？" if near else "",
        )  # fmt: skip
    made, kept = spliced(text, [_without(links, at)], data)
    return Draft(made, rewritten(kept, question.lang))


def _without(links: list[Any], at: Place) -> Edit:
    """A link without devices is none: with its last one it goes itself."""
    if len(links[at[0]]["devices"]) == 1:
        return Edit(("links",), at[0], None)
    return Edit(("links", at[0], "devices"), at[1], None)


def _place_of(device: str, links: list[Any]) -> Place | None:
    for i, link in enumerate(links):
        for j, known in enumerate(link.get("devices") or () if isinstance(link, dict) else ()):
            if isinstance(known, dict) and known.get("id") == device:
                return i, j
    return None


def _free(wanted: str, taken: set[Any]) -> str:
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


# ------------------------------------------------------------------------------------------------------------- the device


def _wrong(parameter: str, found: Any, en: str, zh: str, fix_en: str = "", fix_zh: str = "") -> FailedLookError:
    return FailedLookError(
        "invalid", f"{parameter}: found {found!r}, expected {en}", f"{parameter}：收到 {found!r}，应为 {zh}",
        fix_en=fix_en, fix_zh=fix_zh, mistakes=[Mistake(found, en, zh, parameter)],
    )  # fmt: skip


def _check(question: AddDevice) -> None:
    device, link = question.device, question.link
    if not re.fullmatch(ID_PATTERN, device.id):
        raise _wrong("device.id", device.id[:80], "lower-case letters, digits, - and _", "小写字母、数字、- 和 _")
    for language in device.name.keys() - {"zh", "en"}:
        raise _wrong("device.name", language[:20], "zh and en", "zh 与 en")
    if link.id is None and link.adapter not in ("opcua", "modbus"):
        raise _wrong("link.adapter", link.adapter[:40], "opcua or modbus", "opcua 或 modbus")
    if question.profile is not None and question.profile not in shipped() and "/" not in question.profile:
        near = nearest(question.profile, shipped())
        raise _wrong(
            "profile", question.profile[:80], "the name of a shipped profile", "自带设备模板的名称",
            f"Did you mean {near}?" if near else "", f"是否指 {near}？" if near else "",
        )  # fmt: skip
    if question.profile is None and not question.nodes and not question.signals:
        raise _wrong(
            "nodes", None, "a profile, nodes or signals", "设备模板、节点或信号",
            "Choose a profile, or pick what is to be collected.", "请选择设备模板，或勾选要采集的变量。",
        )  # fmt: skip


def _device(question: AddDevice) -> tuple[dict[str, Any], int, list[Notice]]:
    """The device's data, how many signals it has beside its profile's, and what there is to say of them."""
    notices: list[Notice] = []
    device: dict[str, Any] = {"id": question.device.id}
    name = {lang: text.strip() for lang, text in question.device.name.items() if text.strip()}
    if name:
        device["name"] = name
    if question.profile is not None:
        device["profile"] = question.profile
    if question.unit is not None:
        device["settings"] = {"unit": question.unit}
    signals: list[dict[str, Any]] = []
    if question.nodes:
        signals, notices = _picked(question)
    signals += question.signals
    if signals:
        device["signals"] = signals
    return device, len(signals), notices


def _picked(question: AddDevice) -> tuple[list[dict[str, Any]], list[Notice]]:
    """The signals of picked nodes, made and checked as the rows of a point table."""
    from gateway.points.browsing import imported, rows_of

    lang = question.lang
    picked = [Found(p.node, p.path, p.name, p.node_class, p.type, unit=p.unit, texts=p.enum) for p in question.nodes]
    devices, points = rows_of("opc.tcp://host:4840", question.device.id, picked)
    variables = [p for p in question.nodes if p.node_class == "Variable"]
    for point, node in zip(points, variables, strict=True):
        if node.picked_type:
            point["type"] = node.picked_type
            point.pop("kind", None)
            if node.picked_type in ("string", "bytes", "datetime"):
                point["kind"] = "text"
    if not points:
        raise _wrong(
            "nodes",
            len(question.nodes),
            "variables",
            "变量节点",
            "Pick variables: objects have no value.",
            "请勾选变量；对象没有值。",
        )
    try:
        found = imported((devices, points))
    except TableError as error:
        mistakes = [Mistake(p.found or None, p.text.get(lang), parameter=f"nodes {p.place}") for p in error.problems]
        first = error.problems[0]
        raise FailedLookError("invalid", first.told("en"), first.told("zh"), mistakes=mistakes) from None
    return found.links[0]["devices"][0]["signals"], [Notice(n.place, n.found, n.text.get(lang)) for n in found.notices]


# --------------------------------------------------------------------------------------------------------------- the link


def _link_for(question: AddDevice, links: list[Any]) -> tuple[int | None, dict[str, Any] | None]:
    """The index of the link that the device belongs on (None: a new one), and its settings (None: as they are)."""
    link = question.link
    if link.id is not None:
        for i, known in enumerate(links):
            if known.get("id") == link.id:
                return i, None
        near = nearest(link.id, [known.get("id", "") for known in links])
        raise FailedLookError(
            "unknown_link", f"the link {link.id!r} is not configured", f"没有配置链路 {link.id!r}",
            fix_en=f"Did you mean {near}?" if near else "", fix_zh=f"是否指 {near}？" if near else "",
        )  # fmt: skip
    settings = {key: value for key, value in link.settings.items() if value is not None}
    for i, known in enumerate(links):
        if known.get("adapter") == link.adapter and _same_place(link, known.get("settings") or {}):
            return i, {**(known.get("settings") or {}), **settings}
    return None, settings


def _same_place(link: Link, settings: dict[str, Any]) -> bool:
    """Whether two links have one connection: the same server as the same user, or the same host and port, or the same
    serial port, or the same unit that dials in."""
    one, other = link.settings, settings
    if link.adapter == "opcua":
        return _endpoint(one.get("endpoint")) == _endpoint(other.get("endpoint")) and one.get("user") == other.get(
            "user"
        )
    if one.get("serial") or other.get("serial"):
        return one.get("serial") == other.get("serial")
    if one.get("listen") or other.get("listen"):
        here, there = one.get("listen") or {}, other.get("listen") or {}
        return all(here.get(key) == there.get(key) for key in ("port", "registration"))
    return (str(one.get("host")).lower(), one.get("port", 502)) == (
        str(other.get("host")).lower(),
        other.get("port", 502),
    )


def _endpoint(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else value
    try:
        parts = urlsplit(str(first))
        return parts.hostname, parts.port or 4840, parts.path.rstrip("/")
    except ValueError:
        return value
