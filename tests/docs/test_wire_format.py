"""docs/wire-format.md says what the code does: its tables, its topics, its worked example."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.bus.topics import Topics
from gateway.ledger.bodies import decode_body
from schemas import wire
from schemas.times import to_rfc3339

TEXT = (Path(__file__).parents[2] / "docs/wire-format.md").read_text(encoding="utf-8")
STRUCTS = [
    wire.Envelope, wire.Batch, wire.Extra, wire.Birth, wire.AssetBirth, wire.SignalBirth, wire.Link, wire.Event, wire.Gap,
    wire.Progress, wire.Done, wire.Closed, wire.Tombstone, wire.SyncRequest, wire.Held, wire.SyncAnswer, wire.Mark,
    wire.Confirmed, wire.Replay, wire.Hello, wire.Committed, wire.Row,
]  # fmt: skip


def block(name: str) -> str:
    """The text of the fenced block whose opening line ends with `name`."""
    found = re.findall(rf"^```{re.escape(name)}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, name
    text: str = found[0]
    return text.strip()


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def first_table(text: str) -> list[list[str]]:
    """The cells of the first table's rows."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_a_table_names_the_fields_in_their_order(struct: type[msgspec.Struct]) -> None:
    fields = [row[0].strip("`") for row in first_table(section(struct.__name__))]
    assert fields == list(struct.__struct_fields__)


@pytest.mark.parametrize("struct", [wire.SyncRequest, wire.SyncAnswer, wire.Confirmed, wire.Replay, wire.Hello])
def test_the_first_field_of_a_tagged_message(struct: type[msgspec.Struct]) -> None:
    assert f'First field: `"{struct.__struct_config__.tag}"`' in section(struct.__name__)


def test_kinds_flags_and_causes() -> None:
    kinds = re.findall(r"^\| (\d) \| ([A-Z]+) \|", TEXT, re.MULTILINE)
    assert {int(number): name for number, name in kinds} == {int(kind): kind.name for kind in wire.Kind}
    flags = re.findall(r"^\| (\d+) \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert {int(number): name.upper() for number, name in flags} == {int(flag): flag.name for flag in wire.Flag}
    (causes,) = [row[2] for row in first_table(section("Gap")) if row[0] == "`cause`"]
    assert set(causes.split(", ")) == set(wire.Cause)


def test_topics() -> None:
    topics = Topics("{root}")
    told = {row[0].strip("`") for row in first_table(section("Topics"))}
    made = [
        topics.ledger("{gateway}"), topics.sync("{gateway}"), topics.confirmed("{gateway}"), topics.commands("{gateway}"),
        topics.committed("{store}"), topics.readings("{device}"), topics.events("{device}"), topics.birth("{device}"),
        topics.status("{device}"), topics.gateway_status("{gateway}"),
    ]  # fmt: skip
    assert told == {topic.removeprefix("{root}/v1/") for topic in made}


@pytest.mark.parametrize(
    ("name", "struct"), [("birth", wire.Birth), ("readings", wire.Batch)], ids=["birth", "readings"]
)
def test_the_example_is_what_the_code_writes(name: str, struct: type[Any]) -> None:
    payload = bytes.fromhex(block(f"hex {name}"))
    assert f"{len(payload)} bytes" in TEXT
    envelope = msgspec.msgpack.decode(payload, type=wire.Envelope)
    assert msgspec.msgpack.encode(envelope) == payload
    body = decode_body(envelope.kind, envelope.body)
    assert isinstance(body, struct)
    assert msgspec.msgpack.encode(body) == envelope.body
    assert msgspec.msgpack.decode(envelope.body) == json.loads(block(f"json {struct.__name__}"))
    assert envelope.hash().hex() == block(f"hash {name}")
    # the hash as the page says it, by hand
    fields = [
        envelope.version,
        envelope.kind,
        envelope.stream,
        envelope.seq,
        envelope.last_seq,
        envelope.prev,
        envelope.enc,
    ]
    assert hashlib.sha256(msgspec.msgpack.encode(fields) + envelope.body).hexdigest() == block(f"hash {name}")


def test_the_example_is_a_chain() -> None:
    first, second = (
        msgspec.msgpack.decode(bytes.fromhex(block(f"hex {name}")), type=wire.Envelope)
        for name in ("birth", "readings")
    )
    assert (first.prev, first.seq) == (wire.ZERO_HASH, 1)
    assert (second.prev, second.seq, second.stream) == (first.hash(), 2, first.stream)


def test_the_json_examples_are_of_their_types() -> None:
    readings = msgspec.json.decode(block("json Readings"), type=wire.Readings)
    batch = msgspec.msgpack.decode(
        msgspec.msgpack.decode(bytes.fromhex(block("hex readings")), type=wire.Envelope).body, type=wire.Batch
    )
    assert [r.ts for r in readings.readings] == [to_rfc3339(batch.base + offset) for offset in batch.offsets]
    assert [r.value for r in readings.readings] == batch.values
    assert [r.status for r in readings.readings] == batch.status
    msgspec.json.decode(block("json Status"), type=wire.Status)
