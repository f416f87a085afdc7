"""Writes schemas/json: a JSON Schema (2020-12) for each wire type and for profiles, and an AsyncAPI 3.0 document of the bus.

`python -m schemas.generate` writes them, with `--check` it says what differs from what the types say and ends with 1. The schema of the
configuration file beside them is written by `python -m gateway.config.reference`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel

from schemas import wire
from schemas._examples import ADDRESSES, EXAMPLES, PROFILE
from schemas.profile import ModbusAddress, OpcUaAddress, Profile

FOLDER = Path(__file__).with_name("json")
OTHERS = frozenset({"configuration.json"})
"""Files in the folder that are generated elsewhere."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[type[BaseModel], list[dict[str, Any]]] = {
    Profile: [PROFILE],
    ModbusAddress: ADDRESSES["ModbusAddress"],
    OpcUaAddress: ADDRESSES["OpcUaAddress"],
}


def file_name(name: str) -> str:
    """`sync-request.json` of `SyncRequest`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower() + ".json"


def wire_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a wire type with its example. A MessagePack array's places carry the names of the fields."""
    schema = msgspec.json.schema(kind)
    for name, definition in schema.get("$defs", {}).items():
        _describe(definition, getattr(wire, name))
    example = msgspec.json.decode(msgspec.json.encode(EXAMPLES[kind]))
    return {"$schema": DIALECT, **schema, "examples": [example]}


def _describe(definition: dict[str, Any], kind: type) -> None:
    if "description" in definition:
        definition["description"] = inspect.cleandoc(definition["description"])
    info = msgspec.inspect.type_info(kind)
    if isinstance(info, msgspec.inspect.StructType) and "prefixItems" in definition:
        names = [f.name for f in info.fields]
        if len(definition["prefixItems"]) > len(names):
            names.insert(0, info.tag_field or "type")
        for name, place in zip(names, definition["prefixItems"], strict=True):
            place["title"] = name


def model_schema(model: type[BaseModel], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON Schema of a document that people write, with examples."""
    return {"$schema": DIALECT, **model.model_json_schema(mode="validation"), "examples": examples}


# ------------------------------------------------------------------------------------------------------------ the bus


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic: who sends, who receives, and what."""

    name: str
    address: str
    parameter: str
    messages: tuple[type, ...]
    sender: str
    receiver: str
    text: str
    binary: bool = True
    retained: bool = False
    qos: int = 1


CHANNELS: tuple[Channel, ...] = (
    Channel("ledger", "ledger/{gateway}", "gateway", (wire.Envelope,), "collect", "ingest",
            "Everything the store derives from, in one order. The body of an envelope is a Batch, Birth, Link, list of Event, list of Gap, "
            "Progress, Closed or Tombstone, by its kind."),
    Channel("sync", "sync/{gateway}", "gateway", (wire.SyncRequest,), "collect", "ingest",
            "Where sending goes on: asked after each connect and for each new ingest."),
    Channel("confirmed", "confirmed/{gateway}", "gateway", (wire.SyncAnswer, wire.Confirmed, wire.Replay, wire.Hello), "ingest", "collect",
            "Answers to sync, confirmations, and requests to send again."),
    Channel("committed", "committed/{store}", "store", (wire.Committed,), "ingest", "serve",
            "What each transaction of the store held."),
    Channel("readings", "readings/{device}", "device", (wire.Readings,), "collect", "everybody",
            "Readings for other subscribers, outside the ledger.", binary=False, qos=0),
    Channel("events", "events/{device}", "device", (wire.EventMessage,), "collect", "everybody",
            "Events for other subscribers, outside the ledger.", binary=False, qos=0),
    Channel("birth", "birth/{device}", "device", (wire.BirthMessage,), "collect", "everybody",
            "What a device and its signals are.", binary=False, retained=True, qos=0),
    Channel("deviceStatus", "status/{device}", "device", (wire.Status,), "collect", "everybody",
            "How a device is, with reason and fix.", binary=False, retained=True, qos=0),
    Channel("gatewayStatus", "status/gateway/{gateway}", "gateway", (wire.Status,), "collect", "everybody",
            "How the gateway is; the broker publishes the will here when it dies, and its devices are then unknown.",
            binary=False, retained=True),
)  # fmt: skip
_PARAMETERS = {
    "gateway": "Id of a gateway (`gateway.id`).",
    "store": "Id of a store: a UUID born with its database.",
    "device": "Id of a device.",
}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0.0 document of the bus; payloads refer to the JSON Schema files beside it."""
    messages: dict[str, Any] = {}
    for channel in CHANNELS:
        for kind in channel.messages:
            messages[kind.__name__] = {
                "name": kind.__name__,
                "summary": inspect.cleandoc(kind.__doc__ or kind.__name__).split("\n", 1)[0],
                "contentType": "application/vnd.msgpack" if channel.binary else "application/json",
                "payload": {
                    "schemaFormat": "application/schema+json;version=2020-12",
                    "schema": {"$ref": f"./{file_name(kind.__name__)}"},
                },
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Guantong bus",
            "version": f"{wire.VERSION}.0.0",
            "description": "MQTT 5 or 3.1.1. The ledger's topics carry MessagePack arrays (QoS 1, never retained, clean start; no order between topics "
            "is relied on); the courtesy topics carry JSON. docs/wire-format.md has the rules.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {
            name: operation for channel in CHANNELS for name, operation in _operations(channel).items()
        },
        "components": {
            "messages": messages,
            "parameters": {
                "root": {"description": "First levels of every topic (`bus.root`).", "default": "guantong"},
                **{name: {"description": text} for name, text in _PARAMETERS.items()},
            },
        },
    }  # fmt: skip


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": f"{{root}}/v1/{channel.address}",
        "title": channel.address.split("/")[0],
        "description": channel.text,
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in ("root", channel.parameter)},
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in channel.messages
        },
    }  # fmt: skip


def _operations(channel: Channel) -> dict[str, Any]:
    """What each role does on the channel; AsyncAPI 3 tells it from the role's own side."""
    refs = [{"$ref": f"#/channels/{channel.name}/messages/{kind.__name__}"} for kind in channel.messages]
    binding = {"mqtt": {"qos": channel.qos, "retain": channel.retained, "bindingVersion": "0.2.0"}}
    base = {"channel": {"$ref": f"#/channels/{channel.name}"}, "messages": refs, "bindings": binding}
    title = channel.name[0].upper() + channel.name[1:]
    return {
        f"{channel.sender}Sends{title}": {"action": "send", "summary": f"{channel.sender} publishes.", **base},
        f"{channel.receiver}Receives{title}": {
            "action": "receive",
            "summary": f"{channel.receiver} subscribes.",
            **base,
        },
    }


# ---------------------------------------------------------------------------------------------------------------- files


def generated() -> dict[str, str]:
    """Name and text of each generated file."""
    files = {file_name(kind.__name__): _json(wire_schema(kind)) for kind in EXAMPLES}
    files |= {file_name(model.__name__): _json(model_schema(model, ex)) for model, ex in _MODELS.items()}
    return {**files, "asyncapi.yaml": _yaml(asyncapi())}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)


def main(argv: list[str] | None = None) -> int:
    """Writes or compares the files; the exit code is 1 when one of them differs or is left over."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args(argv).check
    files = generated()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*") if path.name not in OTHERS}
    different = sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))
    for name in different:
        if check:
            sys.stderr.write(f"schemas/json/{name} is not what the types say: run python -m schemas.generate\n")
        elif name in files:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(files[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 1 if check and different else 0


if __name__ == "__main__":
    raise SystemExit(main())
