"""Apply: devices on links that do not change lose no reading, whatever is changed beside them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.api.keys import KeyFile
from gateway.apply.requests import Request, ask
from gateway.cli.app import app
from gateway.store.records import GapRecord
from tests.adapters.modbus_server import Ask, Server
from tests.chain.conftest import InstallationFactory
from tests.chain.installation import Installation
from tests.servers.waiting import eventually

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]

COUNTER = 0
"""The register that says how often it was read."""
APPLIES = 10


class Counting:
    """A Modbus device in a thread of its own, one of whose registers counts how often it was read: no two answers are equal, and
    a reading that is missing is a hole in the numbers."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = Server(hook=self._count).holds(1, {COUNTER: 0, **{a: 100 + a for a in range(1, 40)}})
        self.loop.run_until_complete(self.server.up())
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def _count(self, ask: Ask) -> bool:
        if ask.address <= COUNTER < ask.address + ask.count:
            self.server.memory[1, 3][COUNTER] += 1
        return False

    @property
    def reads(self) -> int:
        """How often the counting register was read."""
        return self.server.memory[1, 3][COUNTER]

    @property
    def port(self) -> int:
        return self.server.port

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.down(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@pytest.fixture
def counting() -> Iterator[tuple[Counting, Counting]]:
    """Two devices on two ports."""
    both = Counting(), Counting()
    yield both
    for one in both:
        one.close()


def signal(name: str, address: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "uint16",
        "address": {"table": "holding", "address": address, "type": "uint16"},
        **more,
    }


def link(link_id: str, port: int, signals: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    device = {
        "id": f"{link_id}-device", "settings": {"unit": 1}, "rules": {"timeout": 10.0, "identification": False}, "groups": {"default": {"period": 0.1}}, "signals": signals, **more,
    }  # fmt: skip
    return {
        "id": link_id,
        "adapter": "modbus",
        "settings": {"host": "127.0.0.1", "port": port, "timeout": 10.0},
        "devices": [device],
    }


def edit(gateway: Installation, links: list[dict[str, Any]]) -> None:
    document = yaml.safe_load(gateway.config.read_text(encoding="utf-8"))
    document["links"] = links
    gateway.config.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")


def apply(gateway: Installation, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["apply", "--config", str(gateway.config), *arguments])


def applied(gateway: Installation, *arguments: str) -> dict[str, Any]:
    result = apply(gateway, "--json", *arguments)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def values(gateway: Installation, device: str, name: str) -> list[Any]:
    """What is stored of a signal, in its order."""
    found = {(s.device, s.name): s.id for s in gateway.reader.signals()}
    if (device, name) not in found:
        return []
    pieces = gateway.reader.history([found[device, name]])
    return [reading.value for piece in pieces for reading in piece]


def gaps(gateway: Installation, device: str) -> list[GapRecord]:
    """The gaps of a device, without those of a machine that was too busy to run the collector for a second: what counts is
    whether a number is missing, and that is compared beside this."""
    found = [gap for gap in gateway.reader.gaps() if gap.device in (device, None)]
    return [gap for gap in found if not gap.detail.startswith("the collector stood still")]


def started(gateway: Installation, *devices: str) -> None:
    gateway.start("broker", "ingest", "collect")

    def all_read() -> bool:
        complete = gateway.complete_to()
        return all((device, "default") in complete for device in devices)

    eventually(all_read, 30, what="all devices are read")


def test_ten_applies_cost_the_neighbour_no_reading(
    install: InstallationFactory, counting: tuple[Counting, Counting]
) -> None:
    still, moved = counting
    keep = link("still", still.port, [signal("count", COUNTER)])
    gateway = install([keep, link("moved", moved.port, [signal("a", 1), signal("count", COUNTER)])])
    started(gateway, "still-device", "moved-device")
    for number in range(APPLIES):
        signals = [signal("count", COUNTER), signal("a", 1, scale=2.0 + number)]
        signals += [signal(f"more/{i}", 2 + i) for i in range(number % 3)]
        edit(gateway, [link("moved", moved.port, signals), keep])
        answer = applied(gateway)
        assert answer["difference"]["links"] == ["moved"]
        before = still.reads
        eventually(lambda before=before: still.reads > before + 2, 10, what="the neighbour is read on")  # type: ignore[misc]
    last = still.reads
    eventually(lambda: last in values(gateway, "still-device", "count"), 20, what="all of it is stored")
    stored = values(gateway, "still-device", "count")
    assert stored[0] <= 2  # connecting may ask once by itself
    assert stored == list(range(stored[0], stored[0] + len(stored)))
    assert gaps(gateway, "still-device") == []
    assert gateway.reader.connections("still-device") == []
    assert still.server.connections == 1
    assert moved.server.connections == APPLIES + 1
    # the one that changed has its outages, as intervals and gaps, and its last scale counts
    eventually(lambda: len(gateway.reader.connections("moved-device")) == APPLIES, 20, what="all outages")
    assert {interval.reason for interval in gateway.reader.connections("moved-device")} == {"reconfigured"}
    eventually(lambda: len(gaps(gateway, "moved-device")) == APPLIES, 20, what="all gaps")
    eventually(lambda: values(gateway, "moved-device", "a")[-1] == 101 * 11.0, 20, what="the last scale")
    there = {s.name: s for s in gateway.reader.signals() if s.device == "moved-device"}
    assert there["more/1"].retired
    assert not there["a"].retired
    assert len(there["a"].revisions) == APPLIES + 1
    assert gateway.reader.dead_letters() == []
    assert len(gateway.reader.streams()) == 1


def test_dry_run_refusals_and_rollback(install: InstallationFactory, counting: tuple[Counting, Counting]) -> None:
    still, moved = counting
    keep = link("still", still.port, [signal("count", COUNTER)])
    gateway = install([keep, link("moved", moved.port, [signal("a", 1)])])
    assert "no collector runs" in apply(gateway).stderr
    started(gateway, "still-device", "moved-device")
    first = gateway.config.read_text(encoding="utf-8")
    # a dry run changes nothing, and says what would
    edit(gateway, [keep, link("moved", moved.port, [signal("a", 3), signal("b", 4)], name={"en": "Other"})])
    would = applied(gateway, "--dry-run")["difference"]
    assert would["changes"] == [
        {"what": "device", "id": "moved-device", "how": "changed", "keys": ["assets", "name.en"]},
        {"what": "signal", "id": "moved-device/a", "how": "changed", "keys": ["address.address"]},
        {"what": "signal", "id": "moved-device/b", "how": "added", "keys": []},
    ]
    assert would["links"] == ["moved"]
    assert moved.server.connections == 1
    # the same for people, and in Chinese
    told = CliRunner().invoke(
        app, ["apply", "--config", str(gateway.config), "--dry-run"], env={"LC_ALL": "zh_CN.UTF-8"}
    )
    assert "~ 信号 moved-device/a  (address.address)" in told.stdout
    assert applied(gateway)["number"] == 2
    assert applied(gateway)["difference"] == {"changes": [], "links": [], "restart": []}
    eventually(lambda: 104 in values(gateway, "moved-device", "b"), 20, what="the new signal")
    assert moved.server.connections == 2
    # a name alone is told and costs no connection
    edit(gateway, [keep, link("moved", moved.port, [signal("a", 3), signal("b", 4)], name={"en": "New"})])
    assert applied(gateway)["difference"]["links"] == []
    eventually(
        lambda: "New" in {device.name_en for device in gateway.reader.devices()}, 20, what="the birth with the new name"
    )
    assert moved.server.connections == 2
    # what is wrong is not applied: every mistake is told, by the command and by the collector itself
    second = gateway.config.read_text(encoding="utf-8")
    edit(gateway, [keep, link("moved", moved.port, [signal("a", 3, unit="furlongs/x"), signal("b", 4, scal=2)])])
    refused = apply(gateway)
    assert refused.exit_code == 2
    assert "furlongs" in refused.stderr
    assert "scal" in refused.stderr
    answer = ask(gateway.data, Request("apply", str(gateway.config)))
    assert answer.failure == "problems"
    assert len(answer.problems) == 2
    assert moved.server.connections == 2
    # back from there, and again to the first; the file is what runs
    assert applied(gateway, "--rollback", "3")["number"] == 3
    assert yaml.safe_load(gateway.config.read_text(encoding="utf-8")) == yaml.safe_load(second)
    assert applied(gateway, "--rollback", "1")["number"] == 4
    assert gateway.config.read_text(encoding="utf-8") == first
    eventually(
        lambda: {s.name for s in gateway.reader.signals() if s.device == "moved-device" and not s.retired} == {"a"},
        20,
        what="the added signal is retired",
    )
    history = json.loads(apply(gateway, "--history", "--json").stdout)
    assert [row["number"] for row in history] == [4, 3, 2, 1]
    assert history[0]["hash"] == history[3]["hash"]
    # a device that goes is retired with its link; what needs a start is named
    document = yaml.safe_load(first)
    document["links"], document["log_level"] = [keep], "debug"
    gateway.config.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert applied(gateway)["difference"]["restart"] == ["log_level"]
    eventually(
        lambda: {d.id for d in gateway.reader.devices() if d.retired} == {"moved-device"},
        20,
        what="the device is retired",
    )
    other = gateway.folder / "other.yaml"
    other.write_text(gateway.config.read_text(encoding="utf-8"), encoding="utf-8")
    assert ask(gateway.data, Request("apply", str(other))).failure == "other_file"
    stored = values(gateway, "still-device", "count")
    assert stored == list(range(stored[0], stored[0] + len(stored)))
    assert gaps(gateway, "still-device") == []
    gateway.processes["collect"].stop()
    gateway.start("collect")
    eventually(lambda: len(gateway.reader.streams()) == 2, 20, what="the next stream")
    assert gateway.reader.dead_letters() == []


def test_through_the_api(install: InstallationFactory, counting: tuple[Counting, Counting]) -> None:
    still, moved = counting
    keep = link("still", still.port, [signal("count", COUNTER)])
    gateway = install([keep, link("moved", moved.port, [signal("a", 1)])])
    started(gateway, "still-device", "moved-device")
    gateway.start("serve")
    gateway.serving()
    first = gateway.config.read_text(encoding="utf-8")
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.api_port}/api/v1", timeout=30) as client:
        answer = client.get("/config")
        assert answer.json()["yaml"] == first
        assert [kept["number"] for kept in answer.json()["history"]] == [1]
        match = {"If-Match": answer.headers["etag"]}
        document = yaml.safe_load(first)
        document["links"] = [keep, link("moved", moved.port, [signal("a", 2)])]
        second = yaml.safe_dump(document)
        # a dry run changes nothing
        would = client.put("/config?dry_run=true", json={"yaml": second})
        assert would.status_code == 200, would.text
        assert would.json()["difference"]["links"] == ["moved"]
        assert gateway.config.read_text(encoding="utf-8") == first
        # a change says of what it is one
        assert client.put("/config", json={"yaml": second}).status_code == 428
        assert client.put("/config", json={"yaml": second}, headers={"If-Match": '"other"'}).status_code == 412
        done = client.put("/config", json={"yaml": second}, headers=match)
        assert done.status_code == 200, done.text
        assert done.json()["number"] == 2
        assert gateway.config.read_text(encoding="utf-8") == second
        eventually(lambda: 102 in values(gateway, "moved-device", "a"), 20, what="the other register")
        assert client.put("/config", json={"yaml": first}, headers=match).status_code == 412
        # every mistake is listed, and nothing was changed
        document["links"][1]["devices"][0]["signals"] = [signal("a", 3, unit="furlongs/x"), signal("b", 4, scal=2)]
        match = {"If-Match": done.headers["etag"], "Accept-Language": "zh"}
        wrong = client.post("/config", json={"yaml": yaml.safe_dump(document)}, headers=match)
        assert wrong.status_code == 422
        assert wrong.json()["type"] == "urn:guantong:problem:invalid-configuration"
        assert wrong.json()["title"] == "配置有错误"
        assert len(wrong.json()["errors"]) == 2
        assert all(error["parameter"].startswith("line ") for error in wrong.json()["errors"])
        assert gateway.config.read_text(encoding="utf-8") == second
        # no page of a stranger
        for headers in (
            {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "text/plain"},
        ):  # fmt: skip
            refused = client.post("/config", json={"rollback": 1}, headers={**match, **headers})
            assert refused.status_code in (403, 415), headers
        own = {"Origin": f"http://127.0.0.1:{gateway.api_port}", "Sec-Fetch-Site": "same-origin"}
        back = client.post("/config", json={"rollback": 1}, headers={**match, **own})
        assert back.status_code == 200, back.text
        assert gateway.config.read_text(encoding="utf-8") == first
        # a secret in clear is not shown, whoever wrote it there
        gateway.config.write_text(first + "\nstore: {url: 'postgresql://u:geheim@db/x'}\n", encoding="utf-8")
        shown = client.get("/config")
        assert shown.json()["yaml"] is None
        assert "geheim" not in shown.text
        gateway.config.write_text(first, encoding="utf-8")
        # with keys: engineers and admins
        keys = {role: KeyFile(gateway.data).add(role, role) for role in ("viewer", "operator", "engineer")}
        dry = "/config?dry_run=true"
        eventually(lambda: client.get("/config").status_code == 401, 5, what="the keys count")
        assert client.post(dry, json={"yaml": first}).status_code == 401
        for role, expected in (("viewer", 403), ("operator", 403), ("engineer", 200)):
            given = {"Authorization": f"Bearer {keys[role]}"}
            assert client.post(dry, json={"yaml": first}, headers=given).status_code == expected, role
        described = client.get(f"http://127.0.0.1:{gateway.api_port}/openapi.json").json()
        assert set(described["paths"]["/api/v1/config"]) == {"get", "post", "put"}
    stored = values(gateway, "still-device", "count")
    assert stored == list(range(stored[0], stored[0] + len(stored)))
    assert still.server.connections == 1
