"""Six more maps that judged the rules of `explain` once (267 of their 315 registers were right), and on which they were tuned then.

They follow the register lists of real kinds of devices as manufacturers publish them. Values move as the process behind them does: totals
are what has flowed, powers are product of voltage and current, temperatures heat and cool.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from tests.explore.devices import (
    Device,
    Process,
    Register,
    always,
    bits,
    counts,
    flows,
    gusts,
    lags,
    noisy,
    ramp,
    turns,
)


def energy_meter() -> Device:
    """A three-phase meter behind a transformer: floats of the usual order, NaN for what it cannot measure, energies in Wh as 64 bits, a model name."""

    def load(t: float) -> float:
        return 61.0 + 9.0 * math.sin(2 * math.pi * t / 84) + (14.0 if t % 47 < 21 else 0.0)

    def current(phase: int) -> Process:
        return lambda t, rng: load(t) * (1 + 0.04 * phase) + rng.gauss(0, 0.15)

    def voltage(phase: int) -> Process:
        return lambda t, rng: 231.4 - 0.9 * phase - 0.02 * load(t) + rng.gauss(0, 0.12)

    def power(share: float) -> Process:
        return lambda t, rng: 0.2293 * load(t) * 0.91 * share + rng.gauss(0, 0.03)

    nan = float("nan")
    return Device(
        seed=41,
        map=[
            Register(29, "model", "string", always("iEM meter 3255"), length=20),
            Register(49, "maker", "string", always("Contoso Power"), length=20),
            Register(1637, "firmware", "uint16", always(2051)),
            Register(2013, "phases", "uint16", always(11)),
            Register(2014, "wires", "uint16", always(4)),
            Register(2015, "system", "uint16", always(11)),
            Register(2016, "nominal/frequency", "uint16", always(50)),
            Register(2017, "nominal/voltage", "float32", always(400.0)),
            Register(2999, "current/l1", "float32", current(0)),
            Register(3001, "current/l2", "float32", current(1)),
            Register(3003, "current/l3", "float32", current(2)),
            Register(3005, "current/neutral", "float32", always(nan)),
            Register(3019, "voltage/l1_l2", "float32", noisy(400.1, 0.2, 0.5, 70)),
            Register(3021, "voltage/l2_l3", "float32", noisy(398.7, 0.2, 0.5, 70)),
            Register(3023, "voltage/l3_l1", "float32", noisy(399.6, 0.2, 0.5, 70)),
            Register(3025, "voltage/average", "float32", noisy(399.5, 0.1, 0.5, 70)),
            Register(3027, "voltage/l1", "float32", voltage(0)),
            Register(3029, "voltage/l2", "float32", voltage(1)),
            Register(3031, "voltage/l3", "float32", voltage(2)),
            Register(3053, "power/l1", "float32", power(0.96)),
            Register(3055, "power/l2", "float32", power(1.0)),
            Register(3057, "power/l3", "float32", power(1.04)),
            Register(3059, "power/total", "float32", power(3.0)),
            Register(3061, "reactive/l1", "float32", always(nan)),
            Register(3067, "reactive/total", "float32", noisy(17.3, 0.05, 2.1, 84)),
            Register(3075, "apparent/total", "float32", power(3.29)),
            Register(3083, "power_factor", "float32", noisy(0.911, 0.002, 0.015, 84)),
            Register(3109, "frequency", "float32", noisy(50.01, 0.004, 0.02, 200)),
            Register(3203, "energy/import", "int64", flows(81_204_417, 12.6, 1.9, 84)),
            Register(3207, "energy/export", "int64", always(0)),
            Register(3211, "energy/reactive_import", "int64", flows(24_810_093, 4.8, 0.6, 84)),
            Register(3215, "energy/reactive_export", "int64", always(1_288)),
            Register(3517, "energy/l1", "int64", flows(27_000_812, 4.0, 0.6, 84)),
            Register(3521, "energy/l2", "int64", flows(26_411_377, 4.2, 0.6, 84)),
            Register(3525, "energy/l3", "int64", flows(27_792_228, 4.4, 0.6, 84)),
        ],
    )


def fan_drive() -> Device:
    """An inverter at a fan, the monitor block of its programming manual: a word each, unused numbers read zero."""

    def frequency(t: float) -> float:
        return 3_400 + 900 * math.sin(2 * math.pi * t / 66)

    def of(share: Callable[[float], float], noise: float) -> Process:
        return lambda t, rng: share(frequency(t) / 5000) + rng.gauss(0, noise)

    return Device(
        seed=42,
        map=[
            Register(200, "frequency/output", "uint16", lambda t, rng: frequency(t)),
            Register(201, "current", "uint16", of(lambda f: 420 + 1460 * f * f, 6)),
            Register(202, "voltage", "uint16", of(lambda f: 3990 * f, 9)),
            Register(203, "spare", "spare", always(0)),
            Register(204, "frequency/set", "uint16", lambda t, rng: frequency(t + 2)),
            Register(205, "speed", "uint16", of(lambda f: 1465 * f, 1.5)),
            Register(206, "torque", "uint16", of(lambda f: 90 + 720 * f * f, 5)),
            Register(207, "link/voltage", "uint16", noisy(5_588, 7, 30, 66)),
            Register(208, "brake/duty", "uint16", always(0)),
            Register(209, "thermal/load", "uint16", of(lambda f: 240 + 310 * f, 0.7)),
            Register(210, "current/peak", "uint16", always(2_211)),
            Register(211, "link/peak", "uint16", always(5_702)),
            Register(212, "power/input", "uint16", of(lambda f: 31 + 1010 * f**3, 4)),
            Register(213, "power/output", "uint16", of(lambda f: 12 + 980 * f**3, 4)),
            Register(214, "terminals/in", "uint16", bits((0, 500, 1.0), (2, 41, 0.6), (9, 23, 0.4))),
            Register(215, "terminals/out", "uint16", bits((0, 500, 1.0), (1, 33, 0.5))),
            Register(216, "load", "uint16", of(lambda f: 12 + 77 * f * f, 0.7)),
            Register(217, "excitation", "uint16", of(lambda f: 612 + 40 * f, 3)),
            Register(218, "spare", "spare", always(0)),
            Register(219, "hours/on", "uint16", always(19_377)),
            Register(220, "spare", "spare", always(0)),
            Register(221, "orientation", "spare", always(0)),
            Register(222, "hours/run", "uint16", always(17_904)),
            Register(223, "motor/load", "uint16", of(lambda f: 110 + 640 * f * f, 8)),
            Register(224, "energy", "uint16", counts(41_277, 0.04)),
            Register(251, "pid/set", "uint16", always(5_200)),
            Register(252, "pid/measured", "uint16", noisy(5_190, 11, 160, 66)),
            Register(253, "pid/deviation", "int16", noisy(0, 11, 160, 66)),
        ],
    )


def chiller() -> Device:
    """An air-cooled water chiller with two circuits: tenths of a degree with sign, pressures in kPa, hours and starts in pairs."""
    registers = [
        Register(0, "state", "uint16", turns([4, 4, 5], 27)),
        Register(1, "mode", "uint16", always(2)),
        Register(2, "capacity", "uint16", ramp(46, 88, 95, 0.6)),
        Register(3, "water/in", "int16", lags(118, 9, 110, 0.8)),
        Register(4, "water/out", "int16", lags(69, 7, 110, 0.8)),
        Register(5, "water/setpoint", "int16", always(70)),
        Register(6, "ambient", "int16", noisy(-4, 0.8, 9, 260)),
        Register(7, "power", "uint16", ramp(881, 1_604, 95, 9)),
        Register(8, "flow", "uint16", noisy(2_214, 9, 30, 40)),
        Register(9, "alarm", "uint16", always(0)),
    ]
    for circuit, phase in ((1, 0.0), (2, 31.0)):
        at = 100 * circuit
        registers += [
            Register(at, f"{circuit}/state", "uint16", turns([3, 3, 6, 3], 19 + circuit)),
            Register(at + 1, f"{circuit}/suction", "uint16", noisy(412 + phase, 3, 30, 80)),
            Register(at + 2, f"{circuit}/discharge", "uint16", noisy(1_688 + phase, 7, 110, 95)),
            Register(at + 3, f"{circuit}/oil", "uint16", noisy(611, 4, 25, 95)),
            Register(at + 4, f"{circuit}/suction/temperature", "int16", lags(-11 + circuit, 19, 80, 0.9)),
            Register(at + 5, f"{circuit}/saturated", "int16", lags(-34, 14, 80, 0.9)),
            Register(at + 6, f"{circuit}/discharge/temperature", "uint16", noisy(688 + phase, 1.5, 26, 95)),
            Register(at + 7, f"{circuit}/valve", "uint16", gusts(446, 60, 14)),
            Register(at + 8, f"{circuit}/fan", "uint16", ramp(310, 870, 95, 3)),
            Register(at + 9, f"{circuit}/current", "uint16", noisy(1_116 + phase, 8, 90, 95)),
            Register(at + 10, f"{circuit}/hours", "uint32", always(21_553 + 914 * circuit)),
            Register(at + 12, f"{circuit}/starts", "uint32", always(6_180 + circuit)),
            Register(at + 14, f"{circuit}/energy", "uint32", counts(1_376_204 + 65_411 * circuit, 0.26)),
            Register(at + 16, f"{circuit}/alarm", "uint16", always(0)),
            Register(at + 17, f"{circuit}/limit/low", "int16", always(-60)),
        ]
    return Device(seed=43, map=registers)


def flow_meter() -> Device:
    """An electromagnetic flow meter for brine: all in pairs with the low word first, totals of 64 bits in millilitres, the net one with sign."""

    def flow(t: float) -> float:
        return 7.32 + 2.1 * math.sin(2 * math.pi * t / 58)

    return Device(
        seed=44,
        map=[
            Register(0, "flow", "float32", lambda t, rng: flow(t) + rng.gauss(0, 0.03), "CDAB"),
            Register(2, "velocity", "float32", lambda t, rng: flow(t) * 0.3537 + rng.gauss(0, 0.002), "CDAB"),
            Register(4, "mass_flow", "float32", lambda t, rng: flow(t) * 1_071.0 + rng.gauss(0, 30), "CDAB"),
            Register(6, "density", "float32", noisy(1_071.2, 0.08, 0.5, 240), "CDAB"),
            Register(8, "conductivity", "float32", noisy(81.44, 0.1, 0.8, 170), "CDAB"),
            Register(10, "temperature", "float32", noisy(-6.82, 0.01, 0.3, 260), "CDAB"),
            Register(12, "percent", "float32", lambda t, rng: flow(t) * 5.0 + rng.gauss(0, 0.15), "CDAB"),
            Register(14, "total/forward", "int64", flows(93_118_204_551, 2_033.0, 583.0, 58), "CDAB"),
            Register(18, "total/reverse", "int64", always(41_277_030), "CDAB"),
            Register(22, "total/net", "int64", flows(93_076_927_521, 2_033.0, 583.0, 58), "CDAB"),
            Register(26, "batch", "float32", lambda t, rng: 118.3 + 2.033 * t + 0.2 * math.sin(t / 9), "CDAB"),
            Register(28, "seconds", "uint32", counts(18_044_905, 1.0), "CDAB"),
            Register(30, "status", "uint32", turns([0x0000_0400, 0x0000_0400, 0x0000_0402], 31), "CDAB"),
            Register(32, "unit/flow", "uint16", always(12)),
            Register(33, "unit/total", "uint16", always(3)),
            Register(34, "direction", "uint16", always(1)),
            Register(35, "empty_pipe", "uint16", noisy(742, 2, 8, 90)),
            Register(36, "diameter", "float32", always(50.0), "CDAB"),
            Register(38, "cut_off", "float32", always(0.5), "CDAB"),
            Register(40, "full_scale", "float32", always(20.0), "CDAB"),
            Register(42, "damping", "float32", always(3.0), "CDAB"),
            Register(44, "serial", "uint32", always(77_214_063), "CDAB"),
            Register(46, "coil/current", "float32", noisy(124.9, 0.02, 0.1, 60), "CDAB"),
            Register(48, "coil/resistance", "float32", noisy(61.73, 0.02, 0.2, 300), "CDAB"),
        ],
    )


def weather_station() -> Device:
    """A compact weather sensor in winter: a word each, the present, the least and the greatest value side by side, tenths with sign."""
    return Device(
        seed=45,
        map=[
            Register(0, "identification", "uint16", always(0x2B14)),
            Register(1, "status", "uint16", bits((0, 44, 0.3), (4, 29, 0.5))),
            Register(2, "temperature", "int16", noisy(-28, 0.9, 11, 240)),
            Register(3, "temperature/least", "int16", always(-71)),
            Register(4, "temperature/greatest", "int16", always(-12)),
            Register(5, "dew_point", "int16", noisy(-66, 0.9, 9, 240)),
            Register(6, "chill", "int16", noisy(-93, 4, 14, 60)),
            Register(7, "humidity", "uint16", noisy(741, 2, 21, 240)),
            Register(8, "humidity/least", "uint16", always(688)),
            Register(9, "humidity/greatest", "uint16", always(902)),
            Register(10, "pressure", "uint16", noisy(9_874, 1.1, 2, 300)),
            Register(11, "pressure/sea_level", "uint16", noisy(10_166, 1.1, 2, 300)),
            Register(12, "wind/speed", "uint16", gusts(64, 19, 8)),
            Register(13, "wind/gust", "uint16", turns([91, 104, 118], 30)),
            Register(14, "wind/mean", "uint16", noisy(63, 1.2, 9, 130)),
            Register(15, "wind/direction", "uint16", gusts(2_412, 150, 11)),
            Register(16, "radiation", "uint16", noisy(211, 3, 70, 160)),
            Register(17, "illuminance", "uint16", noisy(24_110, 130, 7_400, 160)),
            Register(18, "rain/total", "uint32", counts(183_204, 0.08)),
            Register(20, "rain/intensity", "uint16", gusts(41, 12, 15)),
            Register(21, "rain/kind", "uint16", turns([60, 60, 70], 29)),
            Register(22, "heater/temperature", "uint16", lags(312, 24, 70, 0.8)),
            Register(23, "supply", "uint16", noisy(2_391, 3, 4, 60)),
            Register(24, "compass", "uint16", noisy(1_183, 1.1, 2, 90)),
            Register(25, "spare", "spare", always(0)),
            Register(26, "uptime", "uint32", counts(5_832_664, 1.0)),
        ],
    )


def filling_line() -> Device:
    """A bottling line's block in a soft PLC on x86: pairs with the low word first, text with the bytes swapped, packed bits, INT and UINT."""

    def pace(t: float) -> float:
        return 0.0 if 62 < t % 120 < 78 else 3.2

    def made(start: int) -> Process:
        total = [float(start), 0.0]

        def at(t: float, rng: random.Random) -> int:
            total[0] += pace(t) * max(t - total[1], 0.0)
            total[1] = t
            return int(total[0])

        return at

    return Device(
        seed=46,
        map=[
            Register(
                1000, "inputs", "uint16", bits((0, 7, 0.5), (1, 9, 0.3), (5, 40, 0.8), (12, 120, 0.86), (15, 31, 0.4))
            ),
            Register(1001, "outputs", "uint16", bits((0, 11, 0.4), (3, 13, 0.5), (7, 120, 0.86))),
            Register(1002, "faults", "uint16", always(0)),
            Register(1003, "state", "uint16", lambda t, rng: 40 if pace(t) else 60),
            Register(1004, "speed", "uint16", lambda t, rng: pace(t) * 3_600 + (rng.gauss(0, 25) if pace(t) else 0)),
            Register(1005, "shift", "uint16", always(3)),
            Register(1006, "article", "string", always("Apple spritzer 0.5"), "BADC", length=16),
            Register(1022, "order", "string", always("FA-2026-11873"), "BADC", length=8),
            Register(1030, "bottles/good", "uint32", made(982_990), "CDAB"),
            Register(1032, "bottles/bad", "uint32", counts(3_317, 0.05), "CDAB"),
            Register(1034, "bottles/target", "uint32", always(1_150_000), "CDAB"),
            Register(1036, "fill/volume", "float32", noisy(502.4, 0.6, 1.5, 40), "CDAB"),
            Register(1038, "fill/pressure", "float32", noisy(2.816, 0.012, 0.15, 25), "CDAB"),
            Register(1040, "fill/temperature", "float32", noisy(8.31, 0.02, 0.3, 200), "CDAB"),
            Register(1042, "tank/level", "float32", ramp(48.0, 91.0, 140, 0.15), "CDAB"),
            Register(1044, "co2", "float32", noisy(5.92, 0.01, 0.09, 110), "CDAB"),
            Register(1046, "fill/setpoint", "float32", always(502.5), "CDAB"),
            Register(1048, "tank/limit", "float32", always(95.0), "CDAB"),
            Register(1050, "capper/position", "int32", noisy(4_000, 150, 88_000, 31), "CDAB"),
            Register(1052, "capper/torque", "int16", noisy(12, 9, 190, 31)),
            Register(1053, "conveyor/load", "uint16", gusts(58, 7, 10)),
            Register(1054, "energy", "float32", lambda t, rng: 48_112.6 + 0.0093 * t, "CDAB"),
            Register(1056, "run_time", "uint32", counts(7_404_118, 1.0), "CDAB"),
            Register(1058, "cleaning/in", "uint16", lambda t, rng: 5_411 - t / 60),
            Register(1059, "operator", "uint16", always(4_417)),
            Register(1060, "hour", "uint16", always(14)),
            Register(1061, "minute", "uint16", lambda t, rng: 31 + int(t / 60)),
            Register(1062, "second", "uint16", lambda t, rng: int(t) % 60),
            Register(1063, "life", "uint16", lambda t, rng: int(t) & 1),
        ],
    )


SECOND_UNSEEN: dict[str, Callable[[], Device]] = {
    "energy meter": energy_meter,
    "fan drive": fan_drive,
    "water chiller": chiller,
    "electromagnetic flow meter": flow_meter,
    "weather station": weather_station,
    "filling line": filling_line,
}
