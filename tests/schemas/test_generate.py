"""The committed schema files are what the types say, and every published example fits its schema."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from schemas import wire
from schemas._examples import EXAMPLES
from schemas.generate import CHANNELS, FOLDER, OTHERS, asyncapi, file_name, generated, main

NAMES = sorted(name for name in generated() if name.endswith(".json"))


def load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return schema


def test_committed_files_are_what_the_types_say() -> None:
    for name, text in generated().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, "run python -m schemas.generate"
    assert {path.name for path in FOLDER.iterdir()} == generated().keys() | OTHERS


def test_check_says_what_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    monkeypatch.setattr("schemas.generate.CHANNELS", CHANNELS[1:])
    assert main(["--check"]) == 1
    assert "asyncapi.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_every_example_fits(name: str) -> None:
    schema = load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert schema["examples"]
    for example in schema["examples"]:
        validator.validate(example)
        assert not validator.is_valid("something else")


def test_every_wire_type_that_travels_alone_has_a_file() -> None:
    parts = {"Extra", "AssetBirth", "SignalBirth", "Done", "Held", "Mark", "Row", "Reading", "BirthSignal"}
    structs = {name for name, kind in vars(wire).items() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    assert {kind.__name__ for kind in EXAMPLES} == structs - parts


@pytest.mark.parametrize("kind", list(EXAMPLES), ids=lambda kind: kind.__name__)
def test_examples_survive_the_wire(kind: type) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(EXAMPLES[kind]), type=kind) == EXAMPLES[kind]


def test_places_of_arrays_carry_the_names_of_their_fields() -> None:
    envelope = load("envelope.json")["$defs"]["Envelope"]
    assert [place["title"] for place in envelope["prefixItems"]] == list(wire.Envelope.__struct_fields__)
    sync = load("sync-request.json")["$defs"]["SyncRequest"]
    assert [place["title"] for place in sync["prefixItems"]] == ["type", *wire.SyncRequest.__struct_fields__]


def test_asyncapi_refers_only_to_what_is_there() -> None:
    document = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert document == asyncapi()
    refs = re.findall(r"\$ref: (\S+)", (FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert refs
    for ref in (ref.strip("'\"") for ref in refs):
        if ref.startswith("./"):
            assert (FOLDER / ref[2:]).is_file(), ref
            continue
        part: Any = document
        for key in ref.removeprefix("#/").split("/"):
            part = part[key]


def test_asyncapi_declares_the_parameters_of_its_addresses() -> None:
    for channel in asyncapi()["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == channel["parameters"].keys()


def test_names_of_files() -> None:
    assert file_name("SyncRequest") == "sync-request.json"
    assert file_name("OpcUaAddress") == "opc-ua-address.json"
