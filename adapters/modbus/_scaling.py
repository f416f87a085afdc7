"""Numbers that are multiplied by a ratio of the device's configuration, or by what another of its registers holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.bilingual import Bilingual
from schemas.modbus import ModbusAddress, ScaleBy
from schemas.status import BAD_OUT_OF_RANGE, BAD_WAITING_FOR_INITIAL_DATA, info

_MOST_DIGITS = 30
_LARGEST = 10**_MOST_DIGITS
"""Up to here a whole factor is exact; what is beyond, or below its reciprocal, is rubbish that must not be more than a wrong number."""
Source = tuple[Any, int]
"""What a factor's registers held last, and its StatusCode."""
UNREAD: Source = (None, BAD_WAITING_FOR_INITIAL_DATA)


@dataclass(frozen=True, slots=True)
class Factor:
    """By what the values of a point are multiplied: `constant`, times what the point `source` holds if there is one."""

    constant: float
    source: int | None = None
    exponent: bool = False

    def of(self, source: Source) -> tuple[int | float, int]:
        """The factor and 0, or any number and the StatusCode that says why there is none."""
        held, status = source
        if status & 0x80000000:
            return 1, status
        if isinstance(held, bool) or not isinstance(held, int | float) or not math.isfinite(held):
            return 1, BAD_OUT_OF_RANGE
        if self.exponent:
            if held != int(held) or abs(held) > _MOST_DIGITS:
                return 1, BAD_OUT_OF_RANGE
            power = 10 ** int(held)
            number = power if self.constant == 1 else power * self.constant
        else:
            number = held * self.constant
        # A ratio of 0 is one that was never set; all values would be 0 and look good. Rubbish may be beyond all numbers.
        return (number, 0) if number and math.isfinite(number) else (1, BAD_OUT_OF_RANGE)


def times(value: Any, factor: int | float) -> Any:
    """`value * factor` of a number or a list of them: integers stay integers by a whole factor, and 3 by 0.1 is 0.3."""
    if factor == 1:
        return value
    if isinstance(value, list):
        return [times(each, factor) for each in value]
    if abs(factor) <= _LARGEST and factor == int(factor):
        return value * int(factor)
    if abs(factor) >= 1 / _LARGEST:
        divisor = round(1 / factor)
        if abs(divisor) > 1 and 1 / divisor == factor:
            return value / divisor
    return value * factor


def constant(address: ModbusAddress, ratios: Mapping[str, float]) -> float | Bilingual:
    """The product of an address's ratios, or what is wrong with them."""
    product = 1.0
    for name in address.ratio:
        if name not in ratios:
            known = ", ".join(sorted(ratios)) or "-"
            return Bilingual(
                f"ratio {name!r} is not among the `ratios` of the rules ({known}): give it a number there, 1 for a direct connection",
                f"变比 {name!r} 不在规则的 `ratios` 之中（{known}）：请在那里给出数值，直接接入时为 1",
            )
        product *= ratios[name]
    if not product or not math.isfinite(product):
        return Bilingual(
            f"the ratios {', '.join(address.ratio)} make {product:g}: check the `ratios` of the rules",
            f"变比 {', '.join(address.ratio)} 之积为 {product:g}：请检查规则中的 `ratios`",
        )
    return product


def trouble(by: ScaleBy, source: Source, status: int) -> Bilingual:
    """Why a value has no factor, for people."""
    held, what = source[0], info(status)
    return Bilingual(
        f"the factor ({by}) cannot be used: {held if held is not None else what.text_en}. Check the register and its setting in the device.",
        f"系数（{by}）无法使用：{held if held is not None else what.text_zh} 请检查该寄存器及设备中的设置。",
    )
