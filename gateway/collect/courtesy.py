"""Courtesy topics: the same facts as the ledger's, as self-describing JSON for whoever listens. Nothing of ours reads them.

Published at QoS 0 after the batch is durable, and dropped when the broker does not keep up: what counts travels on the ledger.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.bus.client import Bus
from gateway.bus.topics import Topics
from gateway.collect.items import DeviceStatus, Readings
from gateway.config.plan import Plan, PlannedDevice
from schemas import wire
from schemas.status import quality
from schemas.times import to_rfc3339
from schemas.wire import MAX_MESSAGE

_json = msgspec.json.Encoder()
_FLAGS: dict[int, list[str]] = {}
_AT_ONCE = 200
"""Readings in one message: far below what brokers take."""
_NO_FLAGS: list[str] = []
_AS_THEY_ARE = frozenset({int, bool, str})
_HUGE = math.inf


def flag_names(flags: int) -> list[str]:
    """`["late", "historical"]` of a flags number."""
    names = _FLAGS.get(flags)
    if names is None:
        names = _FLAGS[flags] = [flag.name.lower() for flag in wire.Flag if flags & flag and flag.name]
    return names


def json_value(value: Any) -> Any:
    """A value as JSON can carry it: NaN and infinities as the strings NaN, Infinity, -Infinity; bytes as base64."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    return value


class Courtesy:
    """See the module. Does nothing when it is off."""

    def __init__(self, bus: Bus, topics: Topics, plan: Plan, *, enabled: bool) -> None:
        self._bus, self._topics = bus, topics
        self._enabled = enabled
        self._gateway = plan.gateway.id
        self._units: dict[int, tuple[str, str]] = {}
        """Point -> name and unit; of earlier plans as well, since what was read under one may be durable after it."""
        self.learn(plan)
        self._status: dict[str, bytes] = {}
        bus.on_connected.append(self._announce)

    def learn(self, plan: Plan) -> None:
        """From now on there are readings of this plan."""
        self._units.update((s.index, (s.signal.name, s.unit)) for s in plan.signals)

    def readings(self, item: Readings) -> None:
        """Publishes durable readings of one device."""
        if not self._enabled or not self._bus.connected:
            return
        self._publish(item.device, self._readings(item))

    def _publish(self, device: str, readings: list[wire.Reading]) -> None:
        """In as many messages as it takes for each of them to be one that every broker takes."""
        message = _json.encode(wire.Readings(self._gateway, device, readings))
        if len(message) > MAX_MESSAGE and len(readings) > 1:
            middle = len(readings) // 2
            self._publish(device, readings[:middle])
            self._publish(device, readings[middle:])
        else:
            self._bus.publish(self._topics.readings(device), message, qos=0)

    def _readings(self, item: Readings) -> list[wire.Reading]:
        units, out, reading = self._units, [], wire.Reading
        last, text = item.ts[0], to_rfc3339(item.ts[0])
        names: dict[int, list[str]] = {0: _NO_FLAGS}
        zeros = (0,) * len(item.points)
        rows = zip(
            item.points, item.ts, item.values, item.status or zeros, item.flags or zeros, item.n or zeros, strict=True
        )
        for point, ts, value, status, flags, n in rows:
            if ts != last:  # an answer of a polled device has one time
                last, text = ts, to_rfc3339(ts)
            if value.__class__ is float:
                if not -_HUGE < value < _HUGE:  # NaN is neither
                    value = json_value(value)
            elif value.__class__ not in _AS_THEY_ARE:
                value = json_value(value)
            if flags not in names:
                names[flags] = flag_names(flags)
            name, unit = units[point]
            out.append(reading(name, text, value, n, status, quality(status) if status else "good", unit, names[flags]))
        for row, extra in (item.extra or {}).items():
            source_ts = None if extra.source_ts is None else to_rfc3339(extra.source_ts)
            out[row] = msgspec.structs.replace(out[row], source_ts=source_ts, raw=json_value(extra.raw))
        return out

    def events(self, events: Iterable[wire.Event]) -> None:
        """Publishes durable events."""
        if not self._enabled:
            return
        for event in events:
            message = wire.EventMessage(
                self._gateway, event.device, event.id, to_rfc3339(event.ts), event.type, event.severity, event.asset,
                to_rfc3339(event.source_ts) if event.source_ts is not None else None,
                {"zh": event.message_zh, "en": event.message_en}, json_value(event.fields), event.condition, event.state,
            )  # fmt: skip
            self._bus.publish(self._topics.events(event.device), _json.encode(message), qos=0)

    def status(self, status: DeviceStatus) -> None:
        """Publishes a device's state, retained; again with each connection."""
        message = wire.Status(
            self._gateway, status.state, to_rfc3339(status.since), status.device, str(status.reason),
            {"zh": status.fix_zh, "en": status.fix_en} if status.fix_en else {},
        )  # fmt: skip
        self._keep(self._topics.status(status.device), _json.encode(message))

    def gateway(self, state: wire.State, since: int, reason: str = "") -> None:
        """Publishes the gateway's own state, retained; the broker replaces it by the will when this connection dies."""
        message = wire.Status(self._gateway, state, to_rfc3339(since), None, reason)
        self._keep(self._topics.gateway_status(self._gateway), _json.encode(message))

    def births(self, devices: Iterable[PlannedDevice], at: int, retired: Iterable[str] = ()) -> None:
        """Announces these devices, and those that are gone."""
        for device in devices:
            self._keep(self._topics.birth(device.id), _json.encode(_birth(self._gateway, device, at)))
        for name in retired:
            message = wire.BirthMessage(self._gateway, name, to_rfc3339(at), "", {}, "", "", [], retired=True)
            self._keep(self._topics.birth(name), _json.encode(message))

    def _keep(self, topic: str, payload: bytes) -> None:
        if self._enabled:
            self._status[topic] = payload
            self._bus.publish(topic, payload, qos=1, retain=True)

    def _announce(self) -> None:
        for topic, payload in self._status.items():
            self._bus.publish(topic, payload, qos=1, retain=True)


def will(gateway: str, at: int) -> bytes:
    """What the broker says of a gateway whose connection died."""
    return _json.encode(wire.Status(gateway, "stopped", to_rfc3339(at), None, "the connection to the broker was lost"))


def _birth(gateway: str, device: PlannedDevice, at: int) -> wire.BirthMessage:
    signals = [
        wire.BirthSignal(
            s.signal.name, s.type, s.unit, s.signal.kind, s.asset,
            {"zh": s.signal.description.zh, "en": s.signal.description.en},
            {str(k): {"zh": t.zh, "en": t.en} for k, t in s.signal.enum.items()} if s.signal.enum else None,
            s.signal.range,
            s.signal.counter.model_dump(mode="json") if s.signal.counter else None,
        )
        for s in device.signals
    ]  # fmt: skip
    name = {"zh": device.name.zh, "en": device.name.en}
    return wire.BirthMessage(
        gateway, device.id, to_rfc3339(at), device.asset, name, device.protocol, device.profile, signals
    )
