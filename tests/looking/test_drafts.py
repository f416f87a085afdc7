"""Drafts of a configuration: on which link a device comes to lie, what replaces what, and what is told of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import check_config
from gateway.looking.drafts import added, removed
from gateway.looking.questions import AddDevice, Export, FailedLookError, Link, NewDevice, Picked, RemoveDevice, Table
from gateway.looking.tables import exported, imported
from schemas.documents import parse_yaml

TEXT = """\
# the workshop
gateway: {id: a}
links:
- id: plc   # the line
  adapter: opcua
  settings: {endpoint: "opc.tcp://PLC:4840", security: none}
  devices:
  - {id: plc-01, profile: siemens-s7-1500-line}   # as delivered
- id: meters
  adapter: modbus
  settings: {host: 10.0.0.7, port: 502}
  devices:
  # the first
  - id: meter-01
    profile: eastron-sdm630
    settings: {unit: 1}
  - id: meter-02
    profile: eastron-sdm630
    settings: {unit: 2}
"""
METER = {"host": "10.0.0.7"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "guantong.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def links(config: Path, text: str) -> dict[str, Any]:
    """The links of a draft, which `check` finds sound."""
    assert check_config(config, {}, text=text) == []
    assert "# the workshop" in text
    return {link["id"]: link for link in parse_yaml(text, "").data["links"]}


def meter(config: Path, device: str, link: Link, **more: Any) -> AddDevice:
    return AddDevice(
        file=str(config), device=NewDevice(device), link=link, profile="eastron-sdm630", **{"unit": 3, **more}
    )


def test_a_device_comes_onto_the_link_with_its_connection(config: Path) -> None:
    draft = added(meter(config, "meter-03", Link("modbus", {"host": "10.0.0.7", "port": 502, "transport": "tcp"})))
    assert draft.link == "meters"
    found = links(config, draft.yaml)
    assert [d["id"] for d in found["meters"]["devices"]] == ["meter-01", "meter-02", "meter-03"]
    assert found["meters"]["devices"][2] == {"id": "meter-03", "profile": "eastron-sdm630", "settings": {"unit": 3}}
    same = added(meter(config, "meter-03", Link(id="meters")))
    assert links(config, same.yaml)["meters"]["devices"] == found["meters"]["devices"]
    assert same.yaml.startswith(TEXT)
    other = added(meter(config, "meter-03", Link("modbus", {"host": "10.0.0.8"})))
    assert other.link == "meter-03"
    assert links(config, other.yaml)["meter-03"]["settings"] == {"host": "10.0.0.8"}
    assert other.yaml.startswith(TEXT)


def test_a_device_is_replaced_where_it_is(config: Path) -> None:
    draft = added(meter(config, "meter-01", Link(id="meters"), unit=9))
    found = links(config, draft.yaml)
    assert [(d["id"], d["settings"]["unit"]) for d in found["meters"]["devices"]] == [("meter-01", 9), ("meter-02", 2)]
    assert "# the first" in draft.yaml
    assert not draft.notices


def test_a_device_moves_and_takes_an_empty_link_with_it(config: Path) -> None:
    moved = added(meter(config, "meter-01", Link("modbus", {"host": "10.0.0.8"})))
    found = links(config, moved.yaml)
    assert [d["id"] for d in found["meters"]["devices"]] == ["meter-02"]
    assert found["meter-01"]["devices"][0]["id"] == "meter-01"
    server = Link("opcua", {"endpoint": "opc.tcp://other:4840", "security": "none"})
    node = Picked("ns=3;s=A", "DB/A", "A", "UInt32")
    alone = added(AddDevice(file=str(config), device=NewDevice("plc-01"), link=server, nodes=[node]))
    found = links(config, alone.yaml)
    assert set(found) == {"plc-01", "meters"}
    assert found["plc-01"]["devices"][0]["signals"][0]["type"] == "uint32"


def test_picked_nodes_become_signals(config: Path) -> None:
    nodes = [
        Picked("nsu=urn:x;s=Temp", "Zone_1/Temp", "温度", "Float", unit="℃"),
        Picked("ns=3;i=7", "Zone_1/Odd", "Odd", "ns=3;i=3002", "int64", unit="furlongs"),
        Picked("ns=3;i=8", "Zone_1/Temp", "Temp", "String"),
        Picked("ns=3;i=9", "Zone_1", "Zone_1", node_class="Object"),
        Picked("ns=3;i=10", "Zone_1/Mode", "Mode", "Int32", enum={0: "Off", 3: "Auto"}),
    ]
    link = Link("opcua", {"endpoint": "opc.tcp://plc:4840/", "security": "none"})
    draft = added(
        AddDevice(file=str(config), device=NewDevice("zone", {"zh": "一区", "en": " "}), link=link, nodes=nodes)
    )
    assert (draft.link, draft.signals) == ("plc", 4)
    device = links(config, draft.yaml)["plc"]["devices"][1]
    assert device["name"] == {"zh": "一区"}
    assert [s["name"] for s in device["signals"]] == ["zone_1/temp", "zone_1/odd", "zone_1/temp_2", "zone_1/mode"]
    assert [s["type"] for s in device["signals"]] == ["float32", "int64", "string", "int32"]
    assert {k: text["en"] for k, text in device["signals"][3]["enum"].items()} == {0: "Off", 3: "Auto"}
    assert device["signals"][0]["unit"] == "℃"
    assert "unit" not in device["signals"][1]
    assert "furlongs" in device["signals"][1]["description"]["en"]


def test_devices_on_one_serial_port_share_a_link(config: Path) -> None:
    port = Link("modbus", {"serial": "/dev/serial/by-id/usb-x", "baud": 19200, "parity": "E", "stop": 1})
    draft = added(meter(config, "press", port))
    assert links(config, draft.yaml)["press"]["settings"] == port.settings
    config.write_text(draft.yaml)
    again = added(meter(config, "pump", port, unit=2))
    assert again.link == "press"
    assert [device["id"] for device in links(config, again.yaml)["press"]["devices"]] == ["press", "pump"]


def test_units_that_dial_in_are_told_apart_by_their_registration(config: Path) -> None:
    one, other = (Link("modbus", {"listen": {"port": 5020, "registration": name}}) for name in ("DTU1", "DTU2"))
    config.write_text(added(meter(config, "press", one)).yaml)
    assert added(meter(config, "pump", other)).link == "pump"
    assert added(meter(config, "fan", one, unit=2)).link == "press"


def test_single_registers_beside_a_profile(config: Path) -> None:
    signal = {"name": "t", "type": "int16", "scale": 0.1, "unit": "℃", "address": {"table": "holding", "address": 4096, "type": "int16"}}  # fmt: skip
    draft = added(meter(config, "meter-03", Link(id="meters"), signals=[signal]))
    assert links(config, draft.yaml)["meters"]["devices"][2]["signals"] == [signal]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"device": NewDevice("Meter 1")}, "invalid", "device.id"),
    ({"device": NewDevice("m", {"fr": "x"})}, "invalid", "device.name"),
    ({"link": Link("mqtt", {})}, "invalid", "link.adapter"),
    ({"link": Link(id="metres")}, "unknown_link", ""),
    ({"profile": "eastron-sdm63"}, "invalid", "profile"),
    ({"profile": None}, "invalid", "nodes"),
    ({"profile": None, "nodes": [Picked("ns=3;i=9", node_class="Object")]}, "invalid", "nodes"),
    ({"profile": None, "nodes": [Picked("rubbish", "A", "A", "Float")]}, "invalid", "nodes"),
]


@pytest.mark.parametrize(("change", "reason", "parameter"), WRONG)
def test_mistakes_are_named(config: Path, change: dict[str, Any], reason: str, parameter: str) -> None:
    right: dict[str, Any] = {"device": NewDevice("m"), "link": Link(id="meters"), "profile": "eastron-sdm630"}
    with pytest.raises(FailedLookError) as caught:
        added(AddDevice(file=str(config), **{**right, **change}))
    failure = caught.value.failure
    assert failure.reason == reason
    assert not failure.zh.isascii()
    assert [m.parameter.partition(" ")[0] for m in failure.mistakes][:1] == ([parameter] if parameter else [])


def test_removal(config: Path) -> None:
    draft = removed(RemoveDevice(file=str(config), device="meter-02"))
    assert [d["id"] for d in links(config, draft.yaml)["meters"]["devices"]] == ["meter-01"]
    gone = removed(RemoveDevice(file=str(config), device="plc-01"))
    assert set(links(config, gone.yaml)) == {"meters"}
    with pytest.raises(FailedLookError) as caught:
        removed(RemoveDevice(file=str(config), device="meter-09", lang="zh"))
    assert caught.value.failure.reason == "unknown_device"
    assert "meter-0" in caught.value.failure.fix_zh


def test_a_configuration_that_is_broken_already(config: Path) -> None:
    config.write_text("links: [", encoding="utf-8")
    with pytest.raises(FailedLookError) as caught:
        removed(RemoveDevice(file=str(config), device="a"))
    assert caught.value.failure.reason == "config_broken"
    assert caught.value.failure.fix_zh


@pytest.mark.parametrize("member", ["user: u, password: tops", "x: 'opc.tcp://u:tops@PLC:4840'"])
def test_a_secret_in_clear_is_not_handed_out(config: Path, member: str) -> None:
    config.write_text(TEXT.replace("security: none", f"security: none, {member}"), encoding="utf-8")
    table = exported(Export(form="csv"))
    for ask in (
        lambda: removed(RemoveDevice(file=str(config), device="meter-01")),
        lambda: added(
            AddDevice(file=str(config), device=NewDevice("c"), link=Link("modbus", METER), profile="eastron-sdm630")
        ),
        lambda: imported(Table(file=str(config), name="t.csv", data=table.data)),
    ):
        with pytest.raises(FailedLookError) as caught:
            ask()
        assert caught.value.failure.reason == "config_broken"
        assert "tops" not in str(caught.value.failure)
        assert caught.value.failure.fix_zh


def test_a_table_there_and_back(config: Path) -> None:
    table = exported(Export(form="csv-gbk", file=str(config), lang="zh"))
    assert table.data.decode("gb18030").splitlines()[1:]
    same = imported(Table(file=str(config), name="points.csv", data=table.data))
    assert (same.devices, same.points) == (3, 0)
    assert set(links(config, same.yaml)) == {"plc", "meters"}
    workbook = exported(Export(form="xlsx", file=str(config)))
    assert imported(Table(file=str(config), name="p.xlsx", data=workbook.data)).devices == 3
    new = "设备编号,协议,连接地址,设备模板,站号\nmeter-09,modbus,10.0.0.9,eastron-sdm630,4\n".encode("gb18030")
    draft = imported(Table(file=str(config), name="新.csv", data=new))
    assert (draft.devices, draft.points) == (1, 0)
    assert links(config, draft.yaml)["meter-09"]["settings"]["host"] == "10.0.0.9"
    assert draft.yaml.startswith(TEXT)


def test_every_bad_cell_of_a_table_is_told(config: Path) -> None:
    table = "设备编号,协议,连接地址,信号名,寄存器区,地址（从0起）,单位\na,modbus,h,t,holding,x,furlong\nb b,modbus,h,u,holding,1,℃\n".encode()
    with pytest.raises(FailedLookError) as caught:
        imported(Table(file=str(config), name="bad.csv", data=table, lang="zh"))
    failure = caught.value.failure
    assert failure.reason == "invalid_table"
    assert {m.place for m in failure.mistakes} >= {"F2", "G2", "A3"}
    assert all(not m.detail.isascii() for m in failure.mistakes)
    assert config.read_text(encoding="utf-8") == TEXT
