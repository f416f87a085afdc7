"""Who the devices say they are, remembered from one start to the next: an exchanged device is an event."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping

import msgspec

from gateway.config.plan import PlannedDevice
from schemas.wire import Event

IDENTITIES = "identities"
"""Where the outbox remembers them."""
CHANGED = "device_changed"
"""The type of the event: another device answers at this place, or the same one with another firmware."""
_SEVERITY = 500


class _Known(msgspec.Struct):
    endpoint: str
    told: dict[str, str]


class Identities:
    """What each device said of itself last. It holds for a device at its place: one that was moved is not compared."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def load(self, text: str | None, devices: Collection[str]) -> None:
        """What the process before this one remembered, of those of its devices that are still there."""
        known = msgspec.json.decode(text, type=dict[str, _Known]) if text else {}
        self._known = {name: one for name, one in known.items() if name in devices}

    def dump(self) -> str:
        """As text, for `load`."""
        return msgspec.json.encode(self._known).decode()

    def of(self, device: str, endpoint: str) -> dict[str, str] | None:
        """What the device at this place has said; None where nothing is known."""
        known = self._known.get(device)
        return known.told if known is not None and known.endpoint == endpoint else None

    def take(self, device: str, endpoint: str, told: Mapping[str, str]) -> bool:
        """Remembers what a device says. Returns whether that is new."""
        if self.of(device, endpoint) == told:
            return False
        self._known[device] = _Known(endpoint, dict(told))
        return True


def changed(device: PlannedDevice, before: Mapping[str, str], now: Mapping[str, str], at: int) -> Event:
    """The event of a device that says something else of itself than before, at `at` (µs): its fields are `old` and `new`."""
    old, new = described(before), described(now)
    return Event(
        str(uuid.uuid4()), at, None, device.asset, device.id, CHANGED, _SEVERITY,
        f"设备自报的标识已改变：原为 {old}，现为 {new}", f"The device says that it is another one: before {old}, now {new}",
        {"old": dict(before), "new": dict(now)},
    )  # fmt: skip


def described(told: Mapping[str, str]) -> str:
    """In one line: `vendor ACME, product M1, revision 2.4`."""
    return ", ".join(f"{name} {text}" for name, text in told.items())
