"""The shipped profiles of the simulated OPC UA devices load, and find everything they name on the simulated servers."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import Client, ua

from schemas.library import load_profile
from schemas.profile import OpcUaRules, Profile
from simulators.device import DeviceSettings
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.truth import TruthLog

PROFILES = {
    "imm-01": "euromap77-injection",
    "mt-01": "opc40501-machinetool",
    "plc-01": "siemens-s7-1500-line",
}
TYPES = {
    "bool": {"Boolean"}, "int16": {"Int16"}, "uint16": {"UInt16"}, "uint8": {"Byte"}, "int32": {"Int32"},
    "uint32": {"UInt32"}, "int64": {"Int64"}, "uint64": {"UInt64"}, "float32": {"Float"},
    "float64": {"Double", "Int16"}, "string": {"String", "LocalizedText"},
}  # fmt: skip


def _names(path: str, prefixes: dict[str, int]) -> list[Any]:
    """The QualifiedNames of a profile's path; none of the shipped ones needs an escape."""
    parts = [part.rpartition(":") for part in path.split("/")]
    return [
        ua.QualifiedName(name, int(prefix) if prefix.isdecimal() else prefixes[prefix] if prefix else 0)
        for prefix, _, name in parts
    ]


async def _root(client: Client, rules: OpcUaRules, prefixes: dict[str, int]) -> Any:
    node = client.nodes.objects
    for wanted in _names(rules.root, prefixes) if rules.root else []:
        # a machine is there twice, as a component and as an event source
        children = {child: await child.read_browse_name() for child in await node.get_children()}
        start = wanted.Name.removesuffix("*")
        [node] = [
            child
            for child, name in children.items()
            if name.NamespaceIndex == wanted.NamespaceIndex and name.Name.startswith(start)
        ]
    return node


@pytest.mark.parametrize("device", PROFILES)
async def test_everything_that_a_profile_names_is_there(device: str) -> None:
    profile: Profile = load_profile(PROFILES[device])
    rules = OpcUaRules.model_validate(profile.rules)
    simulated = FACTORIES[device].create(DeviceSettings(device, TruthLog(None, device)))
    assert isinstance(simulated, OpcUaDevice)
    await simulated.start("127.0.0.1", 0)
    try:
        async with Client(simulated.endpoint) as client:
            uris = await client.get_namespace_array()
            prefixes = {prefix: uris.index(uri) for prefix, uri in rules.namespaces.items()}
            root = await _root(client, rules, prefixes)
            for signal in profile.signals:
                node_text, path = signal.address.get("node"), signal.address.get("path")
                if node_text:
                    uri, _, identifier = node_text.removeprefix("nsu=").partition(";")
                    node = client.get_node(f"ns={uris.index(uri)};{identifier}")
                else:
                    node = await root.get_child(_names(str(path), prefixes))
                value = await node.read_data_value()
                if signal.type == "array":
                    assert isinstance(value.Value.Value, list), signal.name
                else:
                    assert value.Value.VariantType.name in TYPES[signal.type], signal.name
            for clause in profile.events:
                uri, _, identifier = clause.type.removeprefix("nsu=").partition(";")
                kind = client.get_node(f"ns={uris.index(uri)};{identifier}")
                assert (await kind.read_node_class()) == ua.NodeClass.ObjectType, clause.name
                for field in clause.fields.values():
                    assert _names(field.path, prefixes), clause.name
    finally:
        await simulated.stop()
