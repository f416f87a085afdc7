"""OPC UA: sessions, subscriptions with acknowledgement after storage, events, browsing."""

from adapters.opcua.adapter import OpcUaAdapter
from adapters.opcua.settings import DeviceSettings, LinkSettings, Security

__all__ = ["DeviceSettings", "LinkSettings", "OpcUaAdapter", "Security"]
