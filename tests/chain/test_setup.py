"""Setting a gateway up through the API: browsing, test-reads and drafts by a real collector, whose readings are not touched by it."""

from __future__ import annotations

import os
import signal as signals
import struct
from typing import Any

import httpx
import psutil
import pytest
import yaml

from gateway.api.keys import KeyFile
from gateway.apply.requests import FOLDER
from schemas.documents import parse_yaml
from tests.adapters.opcua_server import SmallServer
from tests.chain.conftest import InstallationFactory
from tests.chain.installation import Installation
from tests.chain.test_apply import COUNTER, Counting, counting, gaps, link, signal, started, values
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]
__all__ = ["counting"]

FLOAT = 20
"""Registers of the still device that hold 12.5 with the low word first."""


def said(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:guantong:problem:{kind}"
    return body


def looking(gateway: Installation) -> list[psutil.Process]:
    """The child of the collector that looks."""
    collector = psutil.Process(gateway.processes["collect"].child.pid)
    return [child for child in collector.children() if "gateway.looking" in child.cmdline()]


def test_from_an_address_to_stored_values(install: InstallationFactory, counting: tuple[Counting, Counting]) -> None:
    still, other = counting
    high, low = struct.unpack(">HH", struct.pack(">f", 12.5))
    still.server.holds(1, {FLOAT: low, FLOAT + 1: high})
    keep = link("still", still.port, [signal("count", COUNTER), signal("half", 4, scale=0.5, unit="kW")])
    gateway = install([keep])
    text = gateway.config.read_text(encoding="utf-8")
    gateway.config.write_text("# by hand\n" + text.replace("links:", "# my machines\nlinks:"), encoding="utf-8")
    started(gateway, "still-device")
    gateway.start("serve")
    gateway.serving()
    api = f"http://127.0.0.1:{gateway.api_port}/api/v1"
    with SmallServer() as server, httpx.Client(base_url=api, timeout=60) as client:
        typed = {"adapter": "opcua", "settings": {"endpoint": server.endpoint, "security": "none"}}
        reads_opcua(client, server, typed)
        assert len(looking(gateway)) == 1
        reads_modbus(client, still, other)
        # nothing of it lies in the folder any more
        assert list((gateway.data / FOLDER).iterdir()) == []
        add_and_remove(client, gateway, server, typed)
        fails_alone(client, gateway, server, typed)
        engineer = guarded(client, gateway)
        # an orderly end takes the child and its session along, within the collector's time
        last = still.reads
        eventually(lambda: last in values(gateway, "still-device", "count"), 20, what="all of it is stored")
        said(client.post("/setup/browse", json={"link": typed}, headers=engineer))
        (child,) = looking(gateway)
        assert gateway.processes["collect"].stop() == 0
        eventually(lambda: not child.is_running(), 5, what="the child has ended")
        eventually(lambda: server.sessions() == 0, 5, what="its session has ended")
    assert still.server.connections == 1
    stored = values(gateway, "still-device", "count")
    assert stored == list(range(stored[0], stored[0] + len(stored)))
    assert gaps(gateway, "still-device") == []
    assert gateway.reader.connections("still-device") == []


def reads_opcua(client: httpx.Client, server: SmallServer, typed: dict[str, Any]) -> None:
    offered = said(client.post("/setup/endpoints", json={"url": server.endpoint}))["endpoints"]
    assert {(e["policy"], e["mode"]) for e in offered} == {("None", "None")}
    assert set(offered[0]["users"]) >= {"Anonymous"}
    # down the tree, one branch after the other, in one session
    at, path = None, ""
    for name in ("Hall", "Press_A", "Data"):
        found = said(client.post("/setup/browse", json={"link": typed, "node": at, "path": path}))
        (row,) = [node for node in found["nodes"] if node["name"] == name]
        assert row["has_children"]
        assert row["class"] == "Object"
        at, path = row["node"], row["path"]
    assert path == "Hall/Press_A/Data"
    below = said(client.post("/setup/browse", json={"link": typed, "node": at, "path": path}))
    assert [node["name"] for node in below["nodes"]] == [f"v{i}" for i in range(8)]
    v3 = below["nodes"][3]
    assert (v3["path"], v3["type"], v3["picked_type"], v3["value"]) == ("Hall/Press_A/Data/v3", "Int64", "int64", 3)
    assert (v3["status"], v3["status_name"], v3["quality"]) == (0, "Good", "good")
    assert v3["source_ts"].endswith("Z")
    assert server.sessions() <= 1
    # a filter goes all the way down, and says when there is more
    some = said(client.post("/setup/browse", json={"link": typed, "filter": "*/Data/v*", "limit": 5}))
    assert len(some["nodes"]) == 5
    assert some["truncated"]
    assert [n["name"] for n in said(client.post("/setup/browse", json={"link": typed, "filter": "V7"}))["nodes"]] == [
        "v7"
    ]
    one = said(client.post("/setup/test-read", json={"link": typed, "node": v3["node"]}))
    assert (one["value"], one["text"], one["type"], one["signal_type"]) == (3, "3", "Int64", "int64")
    none = said(client.post("/setup/test-read?lang=zh", json={"link": typed, "node": "ns=2;s=gone"}))
    assert none["status_name"] == "BadNodeIdUnknown"
    assert none["quality"] == "bad"
    assert not none["fix"].isascii()
    wrong = refused(client.post("/setup/test-read", json={"link": typed, "node": "rubbish"}), 502, "look-failed")
    assert "rubbish" in wrong["detail"]


def reads_modbus(client: httpx.Client, still: Counting, other: Counting) -> None:
    # the running link's own connection is used: a second one is what many devices do not bear
    address = {"table": "holding", "address": FLOAT, "type": "float32", "order": "CDAB"}
    meter = {"adapter": "modbus", "settings": {"host": "127.0.0.1", "port": still.port}}
    found = said(client.post("/setup/test-read", json={"link": meter, "unit": 1, "address": address}))
    assert found["value"] == 12.5
    assert bytes.fromhex(found["raw"]) == struct.pack(">HH", *found["registers"])
    others = {(r["type"], r["order"]): r["value"] for r in found["others"]}
    assert others["int32", "CDAB"] == struct.unpack(">i", struct.pack(">f", 12.5))[0]
    assert len(others) > 10
    by_id = said(client.post("/setup/test-read", json={"link": {"id": "still"}, "address": address}))
    assert by_id["value"] == 12.5
    assert still.server.connections == 1
    # a device that is not configured
    stranger = {"adapter": "modbus", "settings": {"host": "127.0.0.1", "port": other.port}}
    read = {"link": stranger, "unit": 1, "address": {"table": "holding", "address": 7}}
    assert said(client.post("/setup/test-read", json=read))["value"] == 107
    gone = said(client.post("/setup/test-read", json={**read, "address": {"table": "holding", "address": 900}}))
    assert gone["quality"] == "bad"
    assert gone["registers"] is None
    # a configured signal, by the adapter that runs: as it is stored, and as it came
    half = said(client.post("/setup/test-read", json={"signal": "still-device/half"}))
    assert (half["value"], half["raw_value"], half["unit"]) == (52.0, 104, "kW")
    assert (half["raw"], half["registers"]) == ("0068", [104])
    assert (
        "Did you mean still-device/half"
        in refused(client.post("/setup/test-read", json={"signal": "still-device/helf"}), 404, "not-found")["fix"]
    )
    # what is wrong in the question is named
    wrong = refused(
        client.post("/setup/test-read?lang=zh", json={**read, "address": {"table": "holding", "address": 7, "type": "floa"}}),
        422, "invalid-parameter",
    )  # fmt: skip
    assert wrong["errors"][0]["parameter"] == "address.type"
    assert "float32" in wrong["errors"][0]["expected"]
    refused(client.post("/setup/test-read", json={"unit": 1}), 400, "bad-request")
    refused(client.post("/setup/test-read", json={"link": {"id": "stil"}, "address": {}}), 404, "not-found")
    closed = {"adapter": "modbus", "settings": {"host": "127.0.0.1", "port": 1}}
    nobody = refused(client.post("/setup/test-read", json={**read, "link": closed}), 502, "look-failed")
    assert nobody["reason"] == "refused"
    assert nobody["fix"]


def add_and_remove(client: httpx.Client, gateway: Installation, server: SmallServer, typed: dict[str, Any]) -> None:
    found = said(client.post("/setup/browse", json={"link": typed, "filter": "*/Data/v*"}))["nodes"]
    clear = {"user": "alice", "allow_clear_password": True}  # the server takes it in no other way
    alice = {"adapter": "opcua", "settings": {**typed["settings"], **clear, "password": "secret"}}
    device = {"id": "press-a", "name": {"zh": "1号冲床", "en": "Press A"}}
    wanted = {"device": device, "link": alice, "nodes": found[:4]}
    before = gateway.config.read_text(encoding="utf-8")
    draft = said(client.post("/setup/device", json=wanted))
    assert (draft["device"], draft["link"], draft["signals"]) == ("press-a", "press-a", 4)
    assert gateway.config.read_text(encoding="utf-8") == before
    assert draft["yaml"].startswith(before)  # with every comment
    assert "secret" not in draft["yaml"].replace("secrets/", "").replace(".secret", "")
    settings = yaml.safe_load(draft["yaml"])["links"][1]["settings"]
    file = gateway.folder / settings["password"]["file"]
    assert file.read_text().strip() == "secret"
    assert file.stat().st_mode & 0o777 == 0o600
    apply(client, draft["yaml"])
    eventually(lambda: 3 in values(gateway, "press-a", "hall/press_a/data/v3"), 20, what="the first value is stored")
    eventually(
        lambda: "press-a" in {d["id"] for d in client.get("/devices").json()["items"]}, 10, what="the device is served"
    )
    # read through the running session, as it came
    one = said(client.post("/setup/test-read", json={"signal": "press-a/hall/press_a/data/v3"}))
    assert (one["value"], one["raw"], one["source_ts"] is not None) == (3, None, True)
    # the same server as the same user: one link; and replaced in place
    again = said(client.post("/setup/device", json={**wanted, "link": {"id": "press-a"}, "nodes": found[:2]}))
    links = parse_yaml(again["yaml"], "").data["links"]
    assert [len(k["devices"]) for k in links] == [1, 1]
    assert len(links[1]["devices"][0]["signals"]) == 2
    gone = said(client.post("/setup/removal", json={"device": "press-a"}))
    assert parse_yaml(gone["yaml"], "").data == parse_yaml(before, "").data
    assert "# my machines" in gone["yaml"]
    apply(client, gone["yaml"])
    eventually(
        lambda: any(d.id == "press-a" and d.retired for d in gateway.reader.devices()), 20, what="the device is retired"
    )
    refused(client.post("/setup/removal", json={"device": "press-b"}), 404, "not-found")


def apply(client: httpx.Client, text: str) -> None:
    would = said(client.post("/config?dry_run=true", json={"yaml": text}))
    assert would["difference"]["links"] == ["press-a"]
    match = {"If-Match": client.get("/config").headers["etag"]}
    said(client.put("/config", json={"yaml": text}, headers=match))


def fails_alone(client: httpx.Client, gateway: Installation, server: SmallServer, typed: dict[str, Any]) -> None:
    """A child that dies, or that is refused, is an answer; the next look finds another."""
    said(client.post("/setup/browse", json={"link": typed}))
    (child,) = looking(gateway)
    os.kill(child.pid, signals.SIGKILL)
    failed = client.post("/setup/browse", json={"link": typed})
    assert failed.status_code in (200, 502)  # 200 where the collector had seen it end already
    assert said(client.post("/setup/browse", json={"link": typed}))["nodes"]
    bad = {
        "adapter": "opcua",
        "settings": {**typed["settings"], "user": "alice", "allow_clear_password": True, "password": "geheim"},
    }
    wrong = refused(client.post("/setup/browse", json={"link": bad}), 502, "look-failed")
    assert wrong["reason"] == "access_denied"
    assert "geheim" not in str(wrong)
    assert server.sessions() <= 1


def guarded(client: httpx.Client, gateway: Installation) -> dict[str, str]:
    """Gives back the headers with which an engineer may ask."""
    # a serial port that is not there, in words
    serial = {"adapter": "modbus", "settings": {"serial": "/dev/serial/by-id/none"}}
    gone = refused(
        client.post("/setup/test-read", json={"link": serial, "address": {"table": "holding", "address": 1}}), 502, "look-failed"
    )  # fmt: skip
    assert "/dev/serial/by-id/none" in gone["detail"]
    keys = {role: KeyFile(gateway.data).add(role, role) for role in ("viewer", "operator", "engineer")}  # type: ignore[arg-type]
    eventually(lambda: client.get("/config").status_code == 401, 5, what="the keys count")
    for role, expected in (("viewer", 403), ("operator", 403), ("engineer", 200)):
        given = {"Authorization": f"Bearer {keys[role]}"}
        assert (
            client.post("/setup/test-read", json={"signal": "still-device/half"}, headers=given).status_code == expected
        )
        assert client.get("/setup/table", headers=given).status_code == expected
    return {"Authorization": f"Bearer {keys['engineer']}"}
