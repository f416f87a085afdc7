"""Births: what the plan's devices and signals are, as the ledger tells it at the beginning of each stream.

The stream-local point of a signal is its `PlannedSignal.index`, which `gateway.collect.points` has given it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from gateway.collect.identities import Identities
from gateway.config.plan import Plan, PlannedDevice, PlannedSignal
from gateway.ledger.bodies import OVERHEAD
from schemas.wire import MAX_MESSAGE, AssetBirth, Birth, SignalBirth

_LARGEST = MAX_MESSAGE - OVERHEAD - 1024
Known = Mapping[str, list[str]]
"""Device -> names of its signals, as they were told last."""


def births_of(
    devices: Iterable[PlannedDevice],
    endpoints: Mapping[str, str],
    at: int,
    identities: Identities,
    *,
    signals: bool = True,
) -> list[Birth]:
    """A birth for each device, in several messages where one would be too large. `endpoints` by device; `at` in µs.

    Without `signals`: what is told of the devices themselves, whose signals stay as they were told.
    """
    births = []
    for device in devices:
        endpoint = endpoints.get(device.id, "")
        head = _birth(device, endpoint, at, identities.of(device.id, endpoint))
        births += _split(head, [_signal(s) for s in device.signals] if signals else ())
    return births


def retired(plan: Plan, known: Known, at: int, new_point: Callable[[], int]) -> list[Birth]:
    """What was told before and is not configured any more. `new_point` gives a number that this stream has not used."""
    births = []
    now = known_of(plan)
    for device, names in known.items():
        gone = [name for name in names if name not in now.get(device, ())]
        if device in now and not gone:
            continue
        signals = [SignalBirth(new_point(), name, "", "float64", "", "measurement", "", retired=True) for name in gone]
        head = Birth(at, device, "", retired=device not in now)
        births += _split(head, signals)
    return births


def known_of(plan: Plan) -> dict[str, list[str]]:
    """What this plan tells, to be remembered for the next start."""
    return {device.id: [s.signal.name for s in device.signals] for device in plan.devices}


def dump_known(known: Known) -> str:
    """As text, for the outbox's memory."""
    return json.dumps(known)


def load_known(text: str | None) -> dict[str, list[str]]:
    """The inverse; nothing is known of an outbox that never told."""
    loaded: dict[str, list[str]] = json.loads(text) if text else {}
    return loaded


def _birth(device: PlannedDevice, endpoint: str, at: int, identity: dict[str, str] | None) -> Birth:
    path = [AssetBirth(a.id, a.name.zh, a.name.en, a.parent, a.level) for a in device.asset_path]
    return Birth(
        at,
        device.id,
        device.asset,
        device.name.zh,
        device.name.en,
        device.protocol,
        device.profile,
        endpoint,
        identity,
        assets=path,
    )


def _signal(planned: PlannedSignal) -> SignalBirth:
    signal = planned.signal
    deadband: dict[str, Any] | None = signal.deadband.model_dump(exclude_none=True) if signal.deadband else None
    return SignalBirth(
        planned.index, signal.name, planned.revision, planned.type, planned.unit, signal.kind, planned.asset, planned.group,
        signal.description.zh, signal.description.en, planned.scale, planned.offset, planned.address_text,
        {value: (text.zh, text.en) for value, text in signal.enum.items()} if signal.enum else None,
        signal.counter.model_dump(mode="json") if signal.counter else None,
        signal.range, deadband, signal.silence, signal.semantic_id,
    )  # fmt: skip


def _split(head: Birth, signals: Iterable[SignalBirth]) -> list[Birth]:
    births: list[Birth] = []
    part: list[SignalBirth] = []
    room = _LARGEST - len(msgspec.msgpack.encode(head))
    size = 0
    for signal in signals:
        more = len(msgspec.msgpack.encode(signal))
        if part and size + more > room:
            births.append(msgspec.structs.replace(head, signals=part))
            part, size = [], 0
        part.append(signal)
        size += more
    return [*births, msgspec.structs.replace(head, signals=part)]
