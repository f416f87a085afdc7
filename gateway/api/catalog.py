"""What serve knows of assets, devices and signals: one consistent copy of the store's, replaced as a whole after births.

The public id of a signal is `device/name`, such as `imm-01/cycle/last_time`: a device's id has no slash, so the first slash
divides the two. The store's number of a signal is accepted too, as `signals/12`.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import translate
from typing import Any

import msgspec

from gateway.store.records import AssetRecord, DeviceRecord, SignalRecord

_MOST_COMPARED = 2_000
_MOST_CACHED = 256


class SignalGone(LookupError):
    """A name, or several, that there is not. `name` is the first, `nearest` are some that there are."""

    def __init__(self, name: str, nearest: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.nearest = list(nearest)


class Catalog:
    """Assets, devices and signals as of one reading of the store. Never changed once it is made."""

    def __init__(
        self, assets: Sequence[AssetRecord], devices: Sequence[DeviceRecord], signals: Sequence[SignalRecord]
    ) -> None:
        self.assets = {asset.id: asset for asset in assets}
        self.devices = {device.id: device for device in devices}
        self.signals = {signal.id: signal for signal in signals}
        self.names = {signal.id: public_id(signal) for signal in signals}
        self.by_name = {name: number for number, name in self.names.items()}
        self.ordered = sorted(self.by_name)
        self.digest = _digest(assets, devices, signals)
        """Hash of everything in it (16 hex digits): equal content, equal digest, also after a restart."""
        self.signals_of: dict[str, list[int]] = {device: [] for device in self.devices}
        for name in self.ordered:
            number = self.by_name[name]
            self.signals_of.setdefault(self.signals[number].device, []).append(number)
        self.devices_of: dict[str, list[str]] = {}
        for device in sorted(self.devices):
            if not self.devices[device].retired:
                self.devices_of.setdefault(self.devices[device].asset, []).append(device)
        self.children: dict[str | None, list[str]] = {}
        for asset in self.assets.values():
            self.children.setdefault(self._parent(asset), []).append(asset.id)
        self._selected: dict[Any, tuple[int, ...]] = {}

    def _parent(self, asset: AssetRecord) -> str | None:
        """None for a root, for an asset whose parent is unknown, and for one that is its own ancestor."""
        above, seen = asset.parent, set[str]()
        while above is not None and above not in seen:
            if above == asset.id or (above == asset.parent and above not in self.assets):
                return None
            seen.add(above)
            known = self.assets.get(above)
            above = None if known is None else known.parent
        return asset.parent

    def path(self, asset: str) -> list[str]:
        """The ids from the root down to this asset; empty for an asset that is not known."""
        found: list[str] = []
        at: str | None = asset
        while at is not None and at in self.assets and at not in found:
            found.append(at)
            at = self._parent(self.assets[at])
        return found[::-1]

    def below(self, assets: Iterable[str]) -> set[str]:
        """These assets and everything below them."""
        found: set[str] = set()
        waiting = list(assets)
        while waiting:
            asset = waiting.pop()
            if asset not in found:
                found.add(asset)
                waiting += self.children.get(asset, ())
        return found

    # --------------------------------------------------------------------------------------------------- finding

    def find(self, text: str) -> SignalRecord | None:
        """The signal with this public id, or with this number; None when there is none."""
        number = self.by_name.get(text)
        if number is None and text.isascii() and text.isdigit() and len(text) < 10:
            number = int(text)
        return None if number is None else self.signals.get(number)

    def nearest_signals(self, text: str) -> list[str]:
        """Up to three ids that resemble `text`."""
        device, _, _ = text.partition("/")
        if device in self.devices:
            candidates = [self.names[number] for number in self.signals_of[device]]
        else:
            near = self.nearest_devices(device)
            if near:
                return [
                    name for name in (f"{other}/{text.partition('/')[2]}" for other in near) if name in self.by_name
                ]
            candidates = self.ordered
        return get_close_matches(text[:200], candidates[:_MOST_COMPARED], n=3, cutoff=0.5)

    def nearest_devices(self, text: str) -> list[str]:
        """Up to three ids of devices that resemble `text`."""
        return get_close_matches(text[:64], list(self.devices)[:_MOST_COMPARED], n=3, cutoff=0.5)

    def nearest_assets(self, text: str) -> list[str]:
        """Up to three ids of assets that resemble `text`."""
        return get_close_matches(text[:64], list(self.assets)[:_MOST_COMPARED], n=3, cutoff=0.5)

    # ------------------------------------------------------------------------------------------------- selecting

    def select(
        self,
        *,
        names: Sequence[str] = (),
        match: Sequence[str] = (),
        devices: Sequence[str] = (),
        assets: Sequence[str] = (),
        retired: bool = False,
    ) -> tuple[int, ...]:
        """Numbers of the signals that are named or match, on these devices and below these assets, in the order of their ids.

        Neither `names` nor `match` means all. Retired signals are left out unless they are named or asked for. Raises
        SignalGone for a name that is not known.
        """
        key = (tuple(names), tuple(match), tuple(devices), tuple(assets), retired)
        found = self._selected.get(key)
        if found is None:
            found = tuple(self._select(*key))
            if len(self._selected) >= _MOST_CACHED:
                self._selected.pop(next(iter(self._selected)))
            self._selected[key] = found
        return found

    def _select(
        self,
        names: tuple[str, ...],
        match: tuple[str, ...],
        devices: tuple[str, ...],
        assets: tuple[str, ...],
        retired: bool,
    ) -> Iterable[int]:
        named: set[int] = set()
        for name in names:
            signal = self.find(name)
            if signal is None:
                raise SignalGone(name, self.nearest_signals(name))
            named.add(signal.id)
        matches = _matcher(match)
        below = self.below(assets) if assets else None
        wanted = set(devices)
        for name in self.ordered:
            number = self.by_name[name]
            signal = self.signals[number]
            if wanted and signal.device not in wanted:
                continue
            if below is not None and signal.asset not in below:
                continue
            if number in named:
                yield number
            elif signal.retired and not retired:
                continue
            elif matches(name) if matches is not None else not names:
                yield number

    def after(self, numbers: Sequence[int], name: str) -> Sequence[int]:
        """What follows the id `name` in numbers that are in the order of their ids."""
        return numbers[bisect_right(numbers, name, key=self.names.__getitem__) :]


def public_id(signal: SignalRecord) -> str:
    """`device/name`."""
    return f"{signal.device}/{signal.name}"


def _matcher(patterns: Sequence[str]) -> Callable[[str], object] | None:
    """True for an id that one of the globs matches; None without a glob."""
    if not patterns:
        return None
    return re.compile("|".join(translate(pattern) for pattern in patterns)).match


def _digest(*lists: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for records in lists:
        digest.update(msgspec.json.encode(records))
    return digest.hexdigest()[:16]


EMPTY = Catalog((), (), ())
