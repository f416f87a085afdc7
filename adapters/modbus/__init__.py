"""Modbus TCP, and Modbus RTU in a TCP connection as serial servers pass it on."""

from adapters.modbus._adapter import ModbusAdapter
from adapters.modbus._decode import decode_one
from adapters.modbus._settings import ModbusDeviceSettings, ModbusLinkSettings

__all__ = ["ModbusAdapter", "ModbusDeviceSettings", "ModbusLinkSettings", "decode_one"]
