"""The devices of the workshop that speak OPC UA: an injection-moulding machine, a machine tool, a line PLC."""

from __future__ import annotations

from simulators.device import Device, DeviceSettings, DeviceType
from simulators.opcua._device import FAULTS, OpcUaDevice
from simulators.opcua.injection import INFO as INJECTION
from simulators.opcua.injection import InjectionModel

__all__ = ["FACTORIES", "OpcUaDevice"]


def _injection(settings: DeviceSettings) -> Device:
    return OpcUaDevice(settings, INJECTION, InjectionModel(settings.seed))


FACTORIES: dict[str, DeviceType] = {
    kind.id: kind
    for kind in (
        DeviceType("imm-01", "opcua", 1, "injection-moulding machine, EUROMAP 77 1.01", _injection, FAULTS),
    )
}
"""The device types by the id of their first instance."""
