"""Planned devices for tests, without adapter or configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.config.models import ClockSettings
from gateway.config.plan import PlannedDevice, PlannedSignal
from gateway.config.resolve import total
from schemas import units
from schemas.model import Signal, Strict, Text

FIRST = 10
"""Points do not begin at 0, nor indices where points do."""
INDEX = 100


class Address(Strict):
    number: int = 0


def planned(
    signals: Sequence[dict[str, Any]], *, device: str = "d", clock: ClockSettings | None = None
) -> PlannedDevice:
    """A device with these signals; `group` beside the signal's own keys. Points begin at FIRST, indices at INDEX."""
    result = []
    for number, data in enumerate(signals):
        data = dict(data)
        group = data.pop("group", "default")
        signal = Signal.model_validate({"name": f"s{number}", **data})
        scale, offset = signal.scale, signal.offset
        if signal.source_unit:
            scale, offset = total(scale, offset, units.resolve(signal.source_unit), units.resolve(signal.unit))
        scaled = (scale, offset) != (1.0, 0.0)
        result.append(
            PlannedSignal(
                point=FIRST + number,
                index=INDEX + number,
                device=device,
                signal=signal,
                group=group,
                address=Address(number=number),
                address_text=f"number {number}",
                revision=signal.revision({"number": number}),
                asset=device,
                unit=signal.unit,
                scale=scale,
                offset=offset,
                type="float64" if scaled else signal.type,
            )
        )
    return PlannedDevice(
        id=device,
        name=Text(zh="设备", en="Device"),
        link="link",
        asset=device,
        asset_path=(),
        protocol="fake",
        profile="",
        settings=Address(),
        rules=Address(),
        groups={signal.group: 1.0 for signal in result},
        first=FIRST,
        signals=tuple(result),
        events=(),
        clock=clock or ClockSettings(),
    )
