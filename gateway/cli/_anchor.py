"""The plausibility anchor of a profile: does the device's own value lie where it must, and if not, what is the likely cause?

Where the value itself suggests that its registers are read in a wrong way, the registers are read once more with their neighbours, and
each other way is tried that people get wrong: word and byte order, an address off by one, a forgotten power of ten, degrees Fahrenheit,
the ratio of a transformer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from adapters.contract import Adapter, AdapterError, Samples
from gateway.collect._signal_rules import SignalRules
from gateway.config.plan import PlannedDevice, PlannedSignal
from schemas.bilingual import Bilingual, chinese
from schemas.profile import Anchor, ModbusAddress, ModbusRules
from schemas.status import is_bad
from schemas.units import resolve

_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")
_POWERS: Final = (-1, 1, -2, 2, -3, 3)
_TRANSFORMED: Final = frozenset(
    {"current", "active_power", "reactive_power", "apparent_power", "energy", "reactive_energy", "apparent_energy"}
)
"""Quantities that a meter behind current transformers shows too small by their ratio."""
_LARGEST_RATIO: Final = 2_000.0
_PLAIN: Final = frozenset({"int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"})
"""Types of which another order is tried."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An anchor that does not hold: what was found and expected, and what to do. Both are bilingual."""

    text: Bilingual
    fix: Bilingual


async def violation(adapter: Adapter, device: PlannedDevice, samples: Samples) -> Violation | None:
    """Whether the device's anchor is violated by these samples of its signals, and the likely causes.

    None without an anchor, where its signal is left out or is bad, and where it holds. May read up to three times more from a Modbus
    device whose anchor is violated; errors of those reads are no causes.
    """
    anchor = device.anchor
    signal = next((s for s in device.signals if anchor is not None and s.signal.name == anchor.signal), None)
    if anchor is None or signal is None or signal.point not in samples.points:
        return None
    row = samples.points.index(signal.point)
    status = samples.status[row] if samples.status is not None else 0
    if is_bad(status):
        return None
    value = _value(signal, samples.values[row])
    if value is None or holds(anchor, value):
        return None
    causes = [*by_value(anchor, signal, value)]
    if isinstance(signal.address, ModbusAddress):
        causes = [*await _by_registers(adapter, device, signal, anchor), *causes]
    shown, unit = f"{value:.6g}", f" {signal.signal.unit}".rstrip()
    low, high = f"{anchor.min:g}", f"{anchor.max:g}"
    expected = (low, low) if low == high else (f"{low} to {high}", f"{low} 至 {high}")
    text = Bilingual(
        f"{signal.signal.name} is {shown}{unit}, expected {expected[0]}{unit}. {anchor.why.get('en')}".rstrip(),
        f"{signal.signal.name} 为 {shown}{unit}，应为 {expected[1]}{unit}。{anchor.why.get('zh')}",
    )
    return Violation(text, _joined(causes[:2]))


def holds(anchor: Anchor, value: float) -> bool:
    """Whether a value lies where the anchor says; NaN never does."""
    return anchor.min <= value <= anchor.max


def by_value(anchor: Anchor, signal: PlannedSignal, value: float) -> Iterator[Bilingual]:
    """Likely causes that the value alone shows, the likeliest first."""
    if value == 0:
        yield Bilingual(
            "It is 0: another address or table, or nothing is connected. Compare with the manual and the display.",
            "数值为 0：地址或表（table）有误，或未接线。请对照手册与显示屏。",
        )
        return
    if not math.isfinite(value):
        yield Bilingual(
            "It is no number: another word order, type or address, or a device that has no such value.",
            "不是有效数值：字序、类型或地址有误，或设备没有该值。",
        )
        return
    for power in _POWERS:
        if holds(anchor, value * 10.0**power):
            factor = f"{10.0**power:g}"
            yield Bilingual(
                f"Times {factor} it would fit: multiply the `scale` of this device's signals by {factor}, or take its own decimal point into account.",
                f"乘以 {factor} 后吻合：请将该设备信号的 `scale` 乘以 {factor}，或核对小数位设置。",
            )
            break
    quantity = resolve(signal.unit).quantity if signal.unit else ""
    if quantity == "temperature" and signal.unit == "Cel" and holds(anchor, (value - 32) / 1.8):
        yield Bilingual(
            "As °F it would fit: the device is set to °F. Write source_unit: °F at its temperatures.",
            "按 °F 换算后吻合：设备设为华氏。请在其温度信号处写 source_unit: °F。",
        )
    if quantity in _TRANSFORMED:
        ratios = sorted(limit / value for limit in (anchor.min, anchor.max))
        low, high = max(ratios[0], 1.0), min(ratios[1], _LARGEST_RATIO)
        if low <= high and ratios[0] > 1.0:
            yield Bilingual(
                f"A transformer's ratio of {low:.3g} to {high:.3g} would explain it: is the ratio of the current (and voltage) transformers set?",
                f"互感器变比在 {low:.3g} 至 {high:.3g} 之间可解释：请检查是否设置了电流（电压）互感器变比。",
            )


async def _by_registers(
    adapter: Adapter, device: PlannedDevice, signal: PlannedSignal, anchor: Anchor
) -> list[Bilingual]:
    """Likely causes that the registers show: another order of words or bytes, an address off by one."""
    from gateway.looking.collector import ReadsRegisters
    from gateway.points.testread import decode

    address = signal.address
    assert isinstance(address, ModbusAddress)
    unit, rules = getattr(device.settings, "unit", None), device.rules
    if not isinstance(adapter, ReadsRegisters) or unit is None or address.type not in _PLAIN:
        return []
    holes = rules.holes if isinstance(rules, ModbusRules) else ()
    timeout = rules.timeout if isinstance(rules, ModbusRules) else 1.0

    async def registers(shift: int) -> bytes:
        """The registers that lie so far from the signal's own; none where they must not be read or are refused."""
        first, last = address.wire + shift, address.wire + shift + address.registers - 1
        if first < 0 or last > 65535 or any(low <= last and first <= high for low, high in holes):
            return b""
        assert isinstance(adapter, ReadsRegisters)
        try:
            code, data, _ = await adapter.read_registers(unit, address.table, first, address.registers, timeout=timeout)
        except AdapterError:  # an answer that fails now explains nothing
            return b""
        return b"" if code else data

    def fits(data: bytes, order: str) -> bool:
        value = _value(signal, decode(data, address.type, order)) if data else None
        return value is not None and holds(anchor, value)

    own = await registers(0)
    for order in _ORDERS:
        if order != address.order and fits(own, order):
            return [
                Bilingual(
                    f"In the order {order} it would fit: the order of words or bytes is wrong. Write order: {order} at this device's numbers.",
                    f"字节序改为 {order} 后吻合：字序或字节序有误。请在该设备的数值处写 order: {order}。",
                )
            ]
    for shift in (-1, 1):
        if fits(await registers(shift), address.order):
            return [
                Bilingual(
                    f"It stands at wire address {address.wire + shift}: this device's addresses are probably all off by one ({shift:+d}).",
                    f"该值位于报文地址 {address.wire + shift}：该设备的地址很可能全部差一（{shift:+d}）。",
                )
            ]
    return []


def _value(signal: PlannedSignal, raw: Any) -> float | None:
    value = SignalRules(signal).full(raw, 0)[0]
    return value if isinstance(value, bool | int | float) else None


def _joined(causes: list[Bilingual]) -> Bilingual:
    if not causes:
        return Bilingual(
            "Compare address, type, order and scale with the manual, and the value with the device's display.",
            "请对照手册核对地址、类型、字节序与比例系数，并与设备显示值比较。",
        )
    return Bilingual(" ".join(str(cause) for cause in causes), "".join(chinese(cause) for cause in causes))
