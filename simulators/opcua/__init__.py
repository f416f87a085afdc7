"""The devices of the workshop that speak OPC UA: an injection-moulding machine, a machine tool, a line PLC."""

from __future__ import annotations

from simulators.device import Device, DeviceSettings, DeviceType
from simulators.opcua._device import FAULTS, OpcUaDevice
from simulators.opcua.injection import INFO as INJECTION
from simulators.opcua.injection import InjectionModel
from simulators.opcua.line import INFO as LINE
from simulators.opcua.line import LineModel
from simulators.opcua.machining import INFO as MACHINING
from simulators.opcua.machining import MachiningModel

__all__ = ["FACTORIES", "OpcUaDevice"]


def _number(device: str) -> int:
    """The number at the end of an id such as imm-02; 1 when there is none."""
    digits = device.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 1


def _injection(settings: DeviceSettings) -> Device:
    return OpcUaDevice(settings, INJECTION, InjectionModel(settings.seed, f"{_number(settings.device):07d}"))


def _machining(settings: DeviceSettings) -> Device:
    return OpcUaDevice(settings, MACHINING, MachiningModel(settings.seed, f"2026-{_number(settings.device):03d}"))


def _line(settings: DeviceSettings) -> Device:
    return OpcUaDevice(settings, LINE, LineModel(settings.seed))


FACTORIES: dict[str, DeviceType] = {
    kind.id: kind
    for kind in (
        DeviceType("imm-01", "opcua", 1, "injection-moulding machine, EUROMAP 77 1.01", _injection, FAULTS),
        DeviceType("mt-01", "opcua", 2, "machine tool, OPC 40501-1 v1.01", _machining, FAULTS),
        DeviceType("plc-01", "opcua", 3, "PLC of an assembly line in the manner of an S7-1500", _line, FAULTS),
    )
}
"""The device types by the id of their first instance."""
