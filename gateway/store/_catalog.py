"""Devices, assets and signals, as births tell of them; here alone a signal gets its id (rules: Identity)."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.ledger.steps import Step
from gateway.store import tables as t
from gateway.store._sql import text, upsert
from gateway.store._values import to_json
from schemas.wire import Birth, SignalBirth

_MANY = 1_000


class Catalog:
    """What births have told, as far as each transaction needs it. Loaded anew after each rollback."""

    def __init__(self) -> None:
        self.owner: dict[str, str] = {}
        """device -> gateway"""
        self._next_signal: int = 1
        self._points: dict[str, dict[int, int]] = {}

    def load(self, connection: sa.Connection) -> None:
        """Read what is stored."""
        self.owner = {row.id: row.gateway for row in connection.execute(sa.select(t.device.c.id, t.device.c.gateway))}
        self._next_signal = (connection.execute(sa.select(sa.func.max(t.signal.c.id))).scalar() or 0) + 1
        self._points = {}

    def points(self, connection: sa.Connection, stream: str) -> dict[int, int]:
        """Point -> signal id of a stream."""
        known = self._points.get(stream)
        if known is None:
            rows = connection.execute(sa.select(t.point.c.point, t.point.c.signal_id).where(t.point.c.stream == stream))
            known = self._points[stream] = {row.point: row.signal_id for row in rows}
        return known

    def forget(self, connection: sa.Connection, stream: str) -> None:
        """The stream has ended: nobody will ask for its points again."""
        self._points.pop(stream, None)
        connection.execute(t.point.delete().where(t.point.c.stream == stream))

    def foreign(self, device: str, gateway: str) -> str:
        """Why `gateway` may not speak of `device`; empty when it may."""
        owner = self.owner.get(device, gateway)
        if owner == gateway:
            return ""
        return (
            f"device {device} belongs to gateway {owner}; gateway {gateway} may not use its id: rename one of the two"
        )

    def birth(self, connection: sa.Connection, step: Step, birth: Birth) -> None:
        """Store a birth: device, assets, signals, revisions, and the points of its stream.

        `foreign` must have been asked before.
        """
        self._assets(connection, step.gateway, birth)
        self._device(connection, step.gateway, birth)
        ids = self._signals(connection, birth)
        self._tell_points(connection, step.stream, {item.point: ids[item.name] for item in birth.signals})

    def _tell_points(self, connection: sa.Connection, stream: str, new: dict[int, int]) -> None:
        points = self.points(connection, stream)
        rows = [{"stream": stream, "point": point, "signal_id": signal} for point, signal in new.items()]
        upsert(connection, t.point, rows)
        points.update(new)

    def late_birth(self, connection: sa.Connection, step: Step, birth: Birth) -> None:
        """Store of a birth that was held up what the later ones have not told: signals that are not known, and the points.

        `foreign` must have been asked before.
        """
        known = connection.execute(sa.select(t.device.c.changed_at).where(t.device.c.id == birth.device)).scalar()
        if known is None or known <= birth.at:
            self.birth(connection, step, birth)
            return
        columns = t.signal.c
        ids: dict[str, int] = {
            row.name: row.id
            for row in connection.execute(sa.select(columns.name, columns.id).where(columns.device == birth.device))
        }
        new = [item for item in birth.signals if item.name not in ids]
        ids |= self._signals(connection, msgspec.structs.replace(birth, signals=new))
        self._tell_points(connection, step.stream, {item.point: ids[item.name] for item in birth.signals})

    def _assets(self, connection: sa.Connection, gateway: str, birth: Birth) -> None:
        rows = [
            {
                "id": text(asset.id), "gateway": gateway, "name_zh": text(asset.name_zh), "name_en": text(asset.name_en),
                "parent": asset.parent, "level": asset.level,
            }
            for asset in birth.assets
        ]  # fmt: skip
        upsert(connection, t.asset, rows)
        known = {row["id"] for row in rows}
        for name in {birth.asset, *(item.asset for item in birth.signals)} - known - {""}:
            if connection.execute(sa.select(t.asset.c.id).where(t.asset.c.id == name)).first() is None:
                row = {"id": name, "gateway": gateway, "name_zh": "", "name_en": "", "parent": None, "level": "machine"}
                connection.execute(t.asset.insert(), row)

    def _device(self, connection: sa.Connection, gateway: str, birth: Birth) -> None:
        row = {
            "id": birth.device, "gateway": gateway, "asset": birth.asset, "name_zh": text(birth.name_zh),
            "name_en": text(birth.name_en), "protocol": birth.protocol, "profile": birth.profile,
            "endpoint": text(birth.endpoint), "identity": to_json(birth.identity), "retired": birth.retired,
            "born_at": birth.at, "changed_at": birth.at,
        }  # fmt: skip
        upsert(connection, t.device, [row], keep=["born_at"])
        self.owner[birth.device] = gateway
        if birth.retired:
            live = sa.and_(t.signal.c.device == birth.device, t.signal.c.retired.is_(False))
            connection.execute(t.signal.update().where(live).values(retired=True, retired_at=birth.at))

    def _signals(self, connection: sa.Connection, birth: Birth) -> dict[str, int]:
        """Signal name -> id of the signals of this birth."""
        there = {
            row["name"]: dict(row)
            for row in connection.execute(sa.select(t.signal).where(t.signal.c.device == birth.device)).mappings()
        }
        ids: dict[str, int] = {}
        changed: dict[int, dict[str, Any]] = {}
        revised: list[tuple[int, SignalBirth, bool]] = []
        for item in birth.signals:
            old = there.get(item.name)
            if old is None:
                signal = self._next_signal
                self._next_signal += 1
            else:
                signal = old["id"]
            row = _signal_row(signal, birth, item, old)
            if old is None or old["revision"] != item.revision:
                revised.append((signal, item, old is None))
            if old != row:
                changed[signal] = row
            ids[item.name], there[item.name] = signal, row
        upsert(connection, t.signal, list(changed.values()))
        self._revisions(connection, birth.at, revised)
        return ids

    def _revisions(self, connection: sa.Connection, at: int, revised: list[tuple[int, SignalBirth, bool]]) -> None:
        """Open revisions at the birth's time, or just after the last one when the gateway's clock went back."""
        columns = t.signal_revision.c
        before: dict[int, int] = {}
        known = [signal for signal, _, is_new in revised if not is_new]
        for start in range(0, len(known), _MANY):
            some = known[start : start + _MANY]
            query = sa.select(columns.signal_id, sa.func.max(columns.valid_from).label("last"))
            for found in connection.execute(query.where(columns.signal_id.in_(some)).group_by(columns.signal_id)):
                before[found.signal_id] = found.last
        rows = []
        for signal, item, _ in revised:
            last = before.get(signal)
            row = {
                "signal_id": signal, "valid_from": at if last is None else max(at, last + 1), "revision": item.revision,
                "type": item.type, "unit": item.unit, "kind": item.kind, "scale": item.scale, "offset": item.offset,
                "address": text(item.address), "enum": _enum(item), "counter": to_json(item.counter),
            }  # fmt: skip
            before[signal] = row["valid_from"]
            rows.append(row)
        if rows:
            connection.execute(t.signal_revision.insert(), rows)


def _enum(item: SignalBirth) -> dict[str, list[str]] | None:
    if item.enum is None:
        return None
    return {str(number): [text(part) for part in texts] for number, texts in item.enum.items()}


def _signal_row(signal: int, birth: Birth, item: SignalBirth, old: dict[str, Any] | None) -> dict[str, Any]:
    retired = item.retired or birth.retired
    since = old["retired_at"] if old is not None and old["retired"] else birth.at
    return {
        "id": signal, "device": birth.device, "name": item.name, "asset": item.asset, "group_name": item.group,
        "revision": item.revision, "type": item.type, "unit": item.unit, "kind": item.kind,
        "description_zh": text(item.description_zh), "description_en": text(item.description_en),
        "semantic_id": item.semantic_id, "range": None if item.range is None else list(item.range),
        "deadband": item.deadband, "silence": item.silence, "retired": retired,
        "born_at": birth.at if old is None else old["born_at"], "retired_at": since if retired else None,
    }  # fmt: skip
