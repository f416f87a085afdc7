"""The shipped profiles of the Modbus devices fit the simulated maps, and what they say of limits and holes is so."""

from __future__ import annotations

from itertools import pairwise

import pytest

from schemas.library import load_profile, parsed_address
from schemas.profile import ModbusAddress, ModbusRules, Profile
from schemas.status import info, table
from simulators.device import DeviceSettings
from simulators.modbus import FACTORIES, MAPS, PROFILES, width
from simulators.modbus.device import ModbusDevice
from simulators.truth import TruthLog

_LEFT_OUT = {"status/word"}
"""A word whose bits are signals of their own."""


@pytest.fixture(params=sorted(MAPS))
def profile(request: pytest.FixtureRequest) -> Profile:
    name: str = request.param
    return load_profile(name)


def _device(profile: Profile) -> ModbusDevice:
    (name,) = [name for name, of in PROFILES.items() if of == profile.profile]
    device = FACTORIES[name].create(DeviceSettings(name, TruthLog(None, name)))
    assert isinstance(device, ModbusDevice)
    return device


def test_each_signal_lies_where_the_map_has_it(profile: Profile) -> None:
    entries = {entry.name: entry for entry in MAPS[profile.profile]}
    for signal in profile.signals:
        entry = entries[signal.name]
        address = parsed_address("modbus", signal)
        assert isinstance(address, ModbusAddress)
        assert (address.table, address.wire, address.registers) == (entry.table, entry.address, width(entry))
        if entry.type != "bool":
            assert (address.type, address.order) == (entry.type, entry.order)
        assert (signal.scale, signal.offset, signal.bit) == (entry.scale, 0.0, entry.bit)
        assert set(address.sentinels) == set(entry.sentinels)


@pytest.mark.parametrize("name", sorted(set(MAPS) - {"delta-dtb"}))  # whose many settings nobody collects
def test_the_maps_values_are_all_in_the_profile(name: str) -> None:
    names = {signal.name for signal in load_profile(name).signals}
    assert {entry.name for entry in MAPS[name]} - names <= _LEFT_OUT


def test_sentinels_name_bad_statuses(profile: Profile) -> None:
    known = {info(code).name for code in table()}
    for signal in profile.signals:
        for status in parsed_address("modbus", signal).sentinels.values():
            assert status in known
            assert status.startswith("Bad")


def test_texts_are_there_in_both_languages(profile: Profile) -> None:
    for text in (profile.name, *(signal.description for signal in profile.signals)):
        assert text.zh
        assert text.en


def test_the_rules_are_the_limits_of_the_device(profile: Profile) -> None:
    rules = ModbusRules.model_validate(profile.rules)
    for unit in _device(profile).instrument.units.values():
        assert rules.max_registers <= unit.max_registers
        assert rules.max_bits <= unit.max_bits


def test_every_gap_that_a_planner_might_bridge_is_named_as_a_hole(profile: Profile) -> None:
    rules = ModbusRules.model_validate(profile.rules)
    holes = [range(first, last + 1) for first, last in rules.holes]
    tables = {entry.table for entry in MAPS[profile.profile]}
    for table_name in tables:
        served = {
            place
            for entry in MAPS[profile.profile]
            if entry.table == table_name
            for place in range(entry.address, entry.address + width(entry))
        }
        for low, high in pairwise(sorted(served)):
            if 1 < high - low <= rules.max_gap + 1:
                assert all(any(place in hole for hole in holes) for place in range(low + 1, high))
        assert all(served.isdisjoint(hole) for hole in holes)


def test_the_stations_and_the_press_count_to_their_modulus() -> None:
    moduli = {
        signal.name: signal.counter.modulus
        for name in ("generic-dio8-counter", "generic-sewing-station")
        for signal in load_profile(name).signals
        if signal.counter is not None
    }
    assert moduli["cycle/count"] == 65_536
    assert moduli["stitches"] == 4_294_967_296
    assert moduli["pieces"] is None
