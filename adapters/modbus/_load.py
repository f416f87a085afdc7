"""How full a line is: what its scans take of it, reckoned before or measured while it runs, and what would fit.

The utilisation is the sum over the scan groups of the seconds that a scan takes, divided by its period. One request at a time: more than 1
cannot be had, whatever the order. A pause that a device needs between its requests leaves the line to the others, and bounds
that unit alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adapters.modbus._device import Device
from adapters.modbus._opening import place_of
from adapters.modbus._settings import ModbusLinkSettings
from adapters.modbus._unit import Unit
from schemas.bilingual import Bilingual, chinese

FILL: Final = 0.9
"""What fits leaves a tenth: for trials of silent units, one-off reads, and answers that take a little longer."""
TURNAROUND: Final = 0.02
"""Seconds that a unit is reckoned to take before its answer begins, where nothing has been measured: cheap meters take 5 to 50 ms."""
FULL_FIX_EN: Final = (
    "Lengthen the periods of the groups, leave out signals, raise the baud rate at all devices, or take a second line."
)
FULL_FIX_ZH: Final = "请加长采集组的周期、减少信号、提高所有设备的波特率，或改用两条总线。"

LOOK: Final = 10.0
"""Seconds between two looks at the load of a line that runs."""
_VAIN: Final = 0.1
"""Share of the line's time from which on silent units are named as the reason why others are late."""
_NEWS: Final = 0.1
"""Relative change of the load that is told anew."""

Part = tuple[float, float]
"""Period and cost of a scan, both in seconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """`share` of the line's time that its scans take, or, where that is more, of the time of the fullest unit with a pause (`unit`);
    `fits`: the shortest period with which everything fits, in seconds; None where it fits as it is."""

    share: float
    fits: float | None = None
    unit: int | None = None

    @property
    def percent(self) -> int:
        """For people."""
        return round(100 * self.share)

    @property
    def what_fits(self) -> Bilingual:
        """Of a load that does not fit."""
        period = f"{self.fits:g}"
        return Bilingual(f"a period of {period} s or longer would fit", f"周期不短于 {period} 秒即可")

    @property
    def text(self) -> Bilingual:
        """Such as `the line is 140 % busy: a period of 1.6 s or longer would fit`."""
        en, zh = f"the line is {self.percent} % busy", f"总线占用 {self.percent} %"
        if self.unit is not None:
            en, zh = (
                f"unit {self.unit} is {self.percent} % busy, its pauses included",
                f"站点 {self.unit} 占用 {self.percent} %（含间歇）",
            )
        if self.fits is None:
            return Bilingual(en, zh)
        return Bilingual(f"{en}: {self.what_fits}", f"{zh}：{chinese(self.what_fits)}")


def measured(units: Iterable[Unit]) -> Load:
    """The load by what the scans have taken until now; those that were never complete count nothing."""
    line: list[Part] = []
    alone: dict[int, list[Part]] = {}
    for unit in units:
        for device in unit.devices:
            for scan in device.scans.values():
                if scan.cost:
                    line.append((scan.period, scan.cost))
                    if unit.pause:
                        cost = scan.cost + unit.pause * len(scan.blocks)
                        alone.setdefault(unit.number, []).append((scan.period, cost))
    return _load(line, alone)


def expected(settings: ModbusLinkSettings, devices: Iterable[Device]) -> Load | None:
    """The load of a serial line by its speed, the lengths of the frames, the silences and pauses; None where the speed is not known."""
    if settings.serial is None:
        return None
    place = place_of(settings)
    line: list[Part] = []
    alone: dict[int, list[Part]] = {}
    for device in devices:
        for scan in device.scans.values():
            if not scan.blocks:
                continue
            cost = 0.0
            for block in scan.blocks:
                frames = settings.frame_length(5) + settings.frame_length(2 + block.request.data_bytes)
                rest = max(place.silence, settings.pause)
                cost += frames * place.character + place.silence + TURNAROUND + rest
            line.append((scan.period, cost))
            if device.rules.pause:
                alone.setdefault(device.unit, []).append((scan.period, cost + device.rules.pause * len(scan.blocks)))
    return _load(line, alone)


def _load(line: Sequence[Part], alone: dict[int, list[Part]]) -> Load:
    share, unit, fits = _share(line), None, shortest(line)
    for number, parts in alone.items():
        if _share(parts) > max(share, FILL):
            share, unit = _share(parts), number
        fits = max(fits, shortest(parts))
    return Load(share, fits if share > FILL else None, unit)


def _share(parts: Iterable[Part]) -> float:
    return sum(cost / period for period, cost in parts)


def shortest(parts: Iterable[Part]) -> float:
    """The shortest period, in seconds and rounded up to two digits, such that all of it fits if nothing is read more often; 0 where it
    fits as it is."""
    ordered = sorted(parts)
    if _share(ordered) <= FILL:
        return 0.0
    raised, found = 0.0, 0.0
    for number, (_, cost) in enumerate(ordered):
        raised += cost
        slower = ordered[number + 1 :]
        left = FILL - _share(slower)
        if left > 0:
            found = raised / left
            if not slower or found <= slower[0][0]:
                break
    unit = 10.0 ** (math.floor(math.log10(found)) - 1)
    return float(f"{math.ceil(found / unit - 1e-9) * unit:.6g}")


@dataclass(slots=True)
class Told:
    """What a person should see of a line, and what can be done."""

    problem: Bilingual
    fix_en: str
    fix_zh: str


class Watch:
    """Looks at a line that runs, once in a while, and says why scans come late."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self.due = math.inf
        """Monotonic seconds of the next look."""
        self.vain = 0.0
        """Seconds that requests without an answer have taken."""
        self._since = 0.0
        self._overruns = 0
        self._vain_before = 0.0
        self._full = 0.0
        self._told: Told | None = None

    def begin(self, now: float, overruns: int) -> None:
        """A new session."""
        self._full, self._told = 0.0, None
        self._count_from(now, overruns)

    def look(self, now: float, overruns: int) -> Told | None:
        """What is to be told now; the same object while nothing is new."""
        late = overruns - self._overruns
        vain = (self.vain - self._vain_before) / max(now - self._since, 1e-9)
        self._count_from(now, overruns)
        load = measured(self._units)
        if load.fits is not None and (late or self._full):
            if not self._full or abs(load.share - self._full) > _NEWS * self._full:
                self._full = load.share
                self._told = Told(load.text, FULL_FIX_EN, FULL_FIX_ZH)
        elif late and vain > _VAIN:
            if self._full or self._told is None:
                self._told = self._silent(round(100 * vain))
            self._full = 0.0
        else:
            self._full, self._told = 0.0, None
        return self._told

    def _count_from(self, now: float, overruns: int) -> None:
        self.due = now + LOOK
        self._since, self._overruns, self._vain_before = now, overruns, self.vain

    def _silent(self, percent: int) -> Told:
        silent = ", ".join(str(unit.number) for unit in self._units if unit.misses)
        return Told(
            Bilingual(
                f"scans come late: time-outs take {percent} % of the line (silent units: {silent or 'now and then one'})",
                f"采集推迟：超时占用总线 {percent} %（无应答站点：{silent or '偶尔出现'}）",
            ),
            "Switch the unit on, take it out of the configuration, or give it a shorter `timeout`.",
            "请给该站点通电，或从配置中移除，或缩短其 `timeout`。",
        )
