"""Profiles whose manual counts addresses from 1: everything is put on the wire's count, from 0, when the profile is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.bilingual import Bilingual
from schemas.modbus import ScaleBy, Select, whole_number


def from_zero(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a Modbus profile with `address_base: 1`, all addresses one lower, and `address_base: 0`.

    What is not understood stays as it is, and is told by the models. Raises ValueError for an address 0.
    """
    made: dict[str, Any] = {**profile, "address_base": 0}
    signals = profile.get("signals")
    if isinstance(signals, list | tuple):
        made["signals"] = [_signal(one) for one in signals]
    rules = profile.get("rules")
    if isinstance(rules, Mapping) and isinstance(rules.get("holes"), list | tuple):
        holes = [
            [_lower("holes", end) for end in hole] if isinstance(hole, list | tuple) else hole
            for hole in rules["holes"]
        ]
        made["rules"] = {**rules, "holes": holes}
    return made


def _signal(signal: Any) -> Any:
    if not isinstance(signal, Mapping) or not isinstance(signal.get("address"), Mapping):
        return signal
    name, address = str(signal.get("name")), dict(signal["address"])
    if "address" in address:
        address["address"] = _lower(name, address["address"])
    for key, model in (("scale_by", ScaleBy), ("select", Select)):
        if key in address:
            address[key] = _factor(name, address[key], model)
    return {**signal, "address": address}


def _factor(name: str, data: Any, model: type[ScaleBy] | type[Select]) -> Any:
    try:
        read = model.model_validate(data)
    except ValueError:
        return data
    return data if read.address is None else str(read.model_copy(update={"address": _lower(name, read.address)}))


def _lower(place: str, value: Any) -> Any:
    number = whole_number(value)
    if not isinstance(number, int) or isinstance(number, bool):
        return value
    if number == 0:
        raise ValueError(
            Bilingual(
                f"{place}: found the address 0, expected 1 and up: `address_base: 1` says that addresses are counted from 1",
                f"{place}：地址为 0，应从 1 起：`address_base: 1` 表示地址从 1 数起",
            )
        )
    return number - 1
