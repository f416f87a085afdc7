"""A profile whose manual counts from 1 means the same as one that counts from 0."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.library import parsed_address
from schemas.profile import ModbusRules, Profile


def profile(base: int, *addresses: dict[str, Any], **more: Any) -> Profile:
    signals = [{"name": f"s{i}", "address": {"table": "holding", **address}} for i, address in enumerate(addresses)]
    return Profile.model_validate({
        "profile": "oven", "protocol": "modbus", "name": {"en": "Oven", "zh": "烘箱"}, "source": {"document": "manual"},
        "verified": "none", "licence": "unpublished", "address_base": base, "signals": signals, **more,
    })  # fmt: skip


def test_every_address_is_one_lower_on_the_wire() -> None:
    one = profile(
        1, {"address": 1}, {"address": "0x101"}, {"number": 7}, {"address": 9, "scale_by": "holding 7 uint16 *0.1"},
        {"address": 9, "scale_by": "s0"}, {"address": 9, "select": "0x201=3"}, {"address": 9, "scale_by": {"address": 7}},
        rules={"holes": [[11, "0x10"]], "max_registers": 8},
    )  # fmt: skip
    zero = profile(
        0, {"address": 0}, {"address": 0x100}, {"number": 7}, {"address": 8, "scale_by": "holding 6 uint16 *0.1"},
        {"address": 8, "scale_by": "s0"}, {"address": 8, "select": "0x200=3"}, {"address": 8, "scale_by": {"address": 6}},
        rules={"holes": [[10, 15]], "max_registers": 8},
    )  # fmt: skip
    assert [parsed_address("modbus", s) for s in one.signals] == [parsed_address("modbus", s) for s in zero.signals]
    assert ModbusRules.model_validate(one.rules) == ModbusRules.model_validate(zero.rules)


def test_what_is_read_again_stays_as_it_is() -> None:
    one = profile(1, {"address": 5}, rules={"holes": [[11, 12]]})
    assert Profile.model_validate(one.model_dump(mode="json")) == one


def test_an_address_0_is_none_and_other_protocols_do_not_count() -> None:
    with pytest.raises(ValidationError, match="address_base: 1"):
        profile(1, {"address": 0})
    with pytest.raises(ValidationError, match="only addresses of Modbus"):
        profile(1, protocol="acme")


def test_what_is_wrong_is_still_told() -> None:
    one = profile(1, {"address": "x"}, {"address": 2, "scale_by": "holding 6 nonsense"}, rules={"holes": "none"})
    for signal in one.signals:
        with pytest.raises(ValidationError):
            parsed_address("modbus", signal)
    with pytest.raises(ValidationError):
        ModbusRules.model_validate(one.rules)
