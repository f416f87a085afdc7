"""The plan: profile, override, unit and address of each signal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.config.load import load_config
from gateway.config.plan import Plan, address_text
from gateway.config.resolve import resolve, total
from schemas import units
from schemas.profile import ModbusAddress, OpcUaAddress
from tests.config.adapters import ServerSettings, SessionSettings, TcpSettings, UnitSettings

PROFILE = """
profile: our-meter
protocol: modbus
name: Meter
source: {document: Our notes}
verified: none
licence: CC0-1.0
anchor: {signal: power/total, min: 0, max: 9}
rules: {max_registers: 40, max_gap: 4}
groups: {fast: {period: 1s}, slow: {period: 1min}}
signals:
  - {name: power/total, group: fast, unit: kW, source_unit: W, type: float32, scale: 0.1, range: [0, 9], deadband: {percent: 1},
     address: {table: input, address: 0x34, type: float32, order: CDAB}}
  - {name: energy/import, group: slow, kind: counter, counter: {counts: energy}, unit: kWh, type: uint32,
     address: {table: input, number: 73, type: uint32}}
  - {name: temperature, group: slow, unit: ℃, source_unit: ℉, type: int16, address: {table: input, address: 90, type: int16}}
"""
CONFIG = """
assets:
  - {id: hall, level: area}
  - {id: press, parent: hall}
links:
  - id: line-1
    adapter: modbus
    settings: {host: 192.168.1.21}
    devices:
      - id: meter-01
        asset: press
        profile: meter.yaml
        settings: {unit: 7}
        rules: {max_gap: 0}
        groups: {slow: {period: 30s}, own: {period: 5s}}
        clock: {tolerance: 2min, offset: +8h}
        signals:
          - {name: door, type: bool, bit: 3, asset: hall, address: {table: holding, address: 1}}
        override:
          temperature: {disabled: true}
          energy/import: {group: own, address: {number: null, address: 0x4A}, scale: 100, silence: 1h}
          power/total: {deadband: null, description: Netz}
      - id: meter-02
        profile: meter.yaml
  - id: line-2
    adapter: opcua
    settings: {endpoint: "opc.tcp://h:4840", security: {policy: none, key: keys/k.pem}, user: u, password: {env: PLC_PW}}
    devices:
      - id: plc-01
        signals: [{name: placed, type: uint32, address: {node: 'nsu=u;s="DB"."N"'}}]
  - id: line-3
    adapter: modbus
    enabled: false
    settings: {host: h}
    devices: [{id: off, signals: [{name: a, address: {table: coil, address: 1}}]}]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "meter.yaml").write_text(PROFILE)
    (tmp_path / "g.yaml").write_text(CONFIG)
    return resolve(load_config(tmp_path / "g.yaml", {}), {"PLC_PW": "hunter2"})


def test_points_are_dense_in_the_link_and_indices_in_the_plan(plan: Plan) -> None:
    assert [(link.id, [s.point for d in link.devices for s in d.signals]) for link in plan.links] == [
        ("line-1", [0, 1, 2, 3, 4, 5]),
        ("line-2", [0]),
    ]
    assert [s.index for s in plan.signals] == list(range(7))
    assert [d.first for d in plan.devices] == [0, 3, 0]


def test_an_override_changes_what_it_names_and_nothing_else(plan: Plan) -> None:
    power, energy, door = plan.device("meter-01").signals
    assert (power.signal.deadband, power.signal.range, power.signal.description.zh) == (None, (0.0, 9.0), "Netz")
    assert (energy.group, energy.scale, energy.signal.silence) == ("own", 100.0, 3600.0)
    assert energy.address == ModbusAddress(table="input", address=0x4A, type="uint32")
    assert (door.asset, power.asset, plan.device("meter-02").asset) == ("hall", "press", "meter-02")
    untouched = plan.device("meter-02").signals[0]
    assert untouched.signal.deadband is not None
    assert untouched.address_text == "input 52 float32 CDAB"


def test_units_are_in_the_scale(plan: Plan) -> None:
    power, energy, temperature = plan.device("meter-02").signals
    assert (power.unit, power.scale, power.offset, power.type) == ("kW", 0.0001, 0.0, "float64")
    assert (energy.unit, energy.scale, energy.type) == ("kW.h", 1.0, "uint32")
    assert temperature.unit == "Cel"
    assert temperature.scale * 212 + temperature.offset == pytest.approx(100)


def test_a_revision_follows_the_meaning(plan: Plan) -> None:
    first, second = plan.device("meter-01"), plan.device("meter-02")
    assert first.signals[0].revision == second.signals[0].revision
    assert first.signals[1].revision != second.signals[1].revision


def test_the_spec_of_a_link(plan: Plan) -> None:
    spec = plan.links[0].spec()
    assert spec.settings == TcpSettings(host="192.168.1.21")
    assert not spec.writes
    first = spec.devices[0]
    assert first.settings == UnitSettings(unit=7)
    assert first.groups == {"fast": 1.0, "own": 5.0, "default": 1.0}
    assert first.rules.model_dump(include={"max_registers", "max_gap"}) == {"max_registers": 40, "max_gap": 0}
    assert [(p.id, p.device, p.signal, p.group, p.type) for p in first.points] == [
        (0, "meter-01", "power/total", "fast", "float32"),
        (1, "meter-01", "energy/import", "own", "uint32"),
        (2, "meter-01", "door", "default", "bool"),
    ]


def test_secrets_and_paths_of_adapter_settings(plan: Plan, tmp_path: Path) -> None:
    settings = plan.links[1].settings
    assert isinstance(settings, SessionSettings)
    assert settings.password == SecretStr("hunter2")
    assert settings.security.key == tmp_path / "keys" / "k.pem"
    assert plan.device("plc-01").settings == ServerSettings()
    assert "hunter2" not in repr(plan)


def test_the_path_of_an_asset(plan: Plan) -> None:
    assert [a.id for a in plan.device("meter-01").asset_path] == ["hall", "press"]
    assert [a.id for a in plan.device("meter-02").asset_path] == ["meter-02"]
    assert (plan.device("meter-01").clock.offset, plan.device("meter-02").clock.offset) == (28800.0, None)


def test_a_broken_adapter_costs_its_own_link_only(tmp_path: Path) -> None:
    (tmp_path / "meter.yaml").write_text(PROFILE)
    (tmp_path / "g.yaml").write_text(CONFIG.replace("adapter: opcua", "adapter: broken"))
    plan = resolve(load_config(tmp_path / "g.yaml", {}), {})
    assert [(link.id, link.broken is not None, len(link.devices)) for link in plan.links] == [
        ("line-1", False, 2),
        ("line-2", True, 0),
    ]


def test_addresses_for_people() -> None:
    assert address_text(ModbusAddress(table="holding", number=1, type="string", length=4)) == "holding 0 string[4]"
    assert address_text(OpcUaAddress(path="a:B/a:C")) == "a:B/a:C"
    assert address_text(UnitSettings(unit=3)) == '{"unit": 3}'


@given(st.decimals(min_value="0.0001", max_value="1000", places=4), st.integers(-1000, 1000))
def test_totals_are_rounded_once(scale: object, raw: int) -> None:
    factor = float(str(scale))
    got, offset = total(factor, 0.0, units.resolve("kW"), units.resolve("W"))
    assert offset == 0
    assert got == float(round(factor * 1000, 6))
    same, offset = total(factor, 1.5, units.resolve("kW"), units.resolve("kW"))
    assert (same, offset) == (factor, 1.5)
    assert raw * same == raw * factor


def test_another_ratio_is_another_meaning_and_what_adapters_learn_lies_in_data_dir(tmp_path: Path) -> None:
    """The history of an energy meter whose transformer was exchanged is not continued as if nothing had happened."""

    def planned(rules: str) -> Plan:
        profile = PROFILE.replace("type: float32, order: CDAB}", "type: float32, order: CDAB, ratio: ct}")
        (tmp_path / "meter.yaml").write_text(profile)
        (tmp_path / "g.yaml").write_text(CONFIG.replace("rules: {max_gap: 0}", f"rules: {rules}"))
        return resolve(load_config(tmp_path / "g.yaml", {}), {"PLC_PW": "hunter2"})

    first, second = planned("{ratios: {ct: 40}}"), planned("{ratios: {ct: 60}}")
    before, after = first.device("meter-01").signals, second.device("meter-01").signals
    assert before[0].revision != after[0].revision
    assert [s.revision for s in before[1:]] == [s.revision for s in after[1:]]
    assert planned("{ratios: {ct: 40, pt: 9}}").device("meter-01").signals[0].revision == before[0].revision
    link = first.links[0]
    assert link.state is not None
    assert link.spec().state == link.state
    assert link.state.name == "learned"
