"""Which devices the workshop has. Each protocol's package lists its own in ``FACTORIES``."""

from __future__ import annotations

import importlib

from simulators.device import DeviceType

__all__ = ["device_types"]

_PACKAGES = ("simulators.opcua", "simulators.modbus")


def device_types() -> dict[str, DeviceType]:
    """All device types by the id of their first instance, in the order of their ports.

    The packages are imported here and not before, so that a process which needs no server pays for no library.
    """
    types: dict[str, DeviceType] = {}
    for package in _PACKAGES:
        factories: dict[str, DeviceType] = importlib.import_module(package).FACTORIES
        types.update(factories)
    return dict(sorted(types.items(), key=lambda item: item[1].port))
