"""Six maps written after the rules of `explain`, and for which no rule was changed.

They follow the register lists of real kinds of devices as manufacturers publish them, types included. Values move as the process behind
them does. Whoever changes a rule because of one of these moves the map to the known ones and writes another here.
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


def branch_meter() -> Device:
    """A three-phase meter for rails: integers of 32 bits with the low word first and with sign, tenths and thousandths, frequency in a word."""

    def power(t: float) -> float:
        return 21_000 * math.sin(2 * math.pi * t / 83) + 4_000

    def of(share: float, noise: float) -> Process:
        return lambda t, rng: share * power(t) + rng.gauss(0, noise)

    return Device(
        seed=71,
        map=[
            Register(0, "voltage/l1", "uint32", noisy(2_314, 2, 7, 80), "CDAB"),
            Register(2, "voltage/l2", "uint32", noisy(2_301, 2, 7, 80), "CDAB"),
            Register(4, "voltage/l3", "uint32", noisy(2_322, 2, 7, 80), "CDAB"),
            Register(6, "voltage/l1_l2", "uint32", noisy(3_998, 3, 12, 80), "CDAB"),
            Register(8, "voltage/l2_l3", "uint32", noisy(4_004, 3, 12, 80), "CDAB"),
            Register(10, "voltage/l3_l1", "uint32", noisy(4_015, 3, 12, 80), "CDAB"),
            Register(12, "current/l1", "uint32", noisy(31_400, 120, 9_000, 83), "CDAB"),
            Register(14, "current/l2", "uint32", noisy(28_900, 120, 8_000, 83), "CDAB"),
            Register(16, "current/l3", "uint32", noisy(33_700, 120, 9_600, 83), "CDAB"),
            Register(18, "power/l1", "int32", of(1.0, 90), "CDAB"),
            Register(20, "power/l2", "int32", of(0.92, 90), "CDAB"),
            Register(22, "power/l3", "int32", of(1.07, 90), "CDAB"),
            Register(24, "power/total", "int32", of(3.0, 200), "CDAB"),
            Register(26, "reactive/total", "int32", noisy(-900, 120, 7_700, 61), "CDAB"),
            Register(28, "energy", "uint32", flows(7_311_408, 2.2, 1.8, 83), "CDAB"),
            Register(30, "energy/reactive", "uint32", flows(1_844_017, 0.7), "CDAB"),
            Register(32, "energy/exported", "uint32", flows(918_220, 0.5, 0.4, 83), "CDAB"),
            Register(34, "frequency", "uint16", noisy(500, 0.6, 1, 100)),
            Register(35, "sequence", "int16", always(-1)),
        ],
    )


def conveyor_drive() -> Device:
    """A drive at a conveyor that turns both ways: control and status words, speeds and torque with sign, a few settings, counters in pairs."""

    def speed(t: float) -> float:
        return 1_380 * math.tanh(4 * math.sin(2 * math.pi * t / 46))

    return Device(
        seed=72,
        map=[
            Register(6000, "control", "uint16", turns([0x047F, 0x0C7F], 23)),
            Register(6001, "status", "uint16", bits((0, 900, 1.0), (3, 46, 0.5), (10, 23, 0.8))),
            Register(6002, "speed/set", "int16", lambda t, rng: round(speed(t + 1))),
            Register(6003, "speed", "int16", lambda t, rng: speed(t) + rng.gauss(0, 3)),
            Register(6004, "torque", "int16", lambda t, rng: 0.31 * speed(t) + rng.gauss(0, 14)),
            Register(6005, "current", "uint16", lambda t, rng: 210 + 0.24 * abs(speed(t)) + rng.gauss(0, 4)),
            Register(6006, "link", "uint16", noisy(5_611, 9, 60, 23)),
            Register(6007, "voltage", "uint16", lambda t, rng: 400 + 2.4 * abs(speed(t)) + rng.gauss(0, 9)),
            Register(6008, "heat/sink", "uint16", noisy(441, 0.7, 8, 300)),
            Register(6009, "heat/motor", "uint16", noisy(612, 0.7, 10, 400)),
            Register(6010, "warning", "uint16", turns([0, 0, 0, 2310], 25)),
            Register(6011, "fault", "uint16", always(0)),
            Register(6012, "energy", "uint32", counts(1_611_230, 0.4)),
            Register(6014, "turns", "uint32", counts(88_204_119, 11.2)),
            Register(6016, "time/run", "uint32", counts(19_844_271, 1.0)),
            Register(6018, "ramp/up", "uint16", always(150)),
            Register(6019, "ramp/down", "uint16", always(200)),
            Register(6020, "speed/limit", "uint16", always(1_500)),
            Register(6021, "current/limit", "uint16", always(640)),
        ],
    )


def air_handler() -> Device:
    """An air handling unit in winter: temperatures in tenths, fresh air and frost below zero, percent, pressures, hours in words."""
    return Device(
        seed=73,
        map=[
            Register(400, "mode", "uint16", always(3)),
            Register(401, "outside", "int16", noisy(-46, 0.8, 5, 300)),
            Register(402, "after_recovery", "int16", noisy(2, 1.0, 17, 110)),
            Register(403, "supply", "uint16", lags(196, 7, 95, 0.8)),
            Register(404, "extract", "uint16", noisy(221, 0.6, 3, 240)),
            Register(405, "exhaust", "int16", noisy(1, 0.9, 14, 110)),
            Register(406, "water/return", "uint16", lags(331, 18, 95, 1.0)),
            Register(407, "setpoint", "uint16", always(195)),
            Register(408, "humidity", "uint16", noisy(344, 2, 12, 200)),
            Register(409, "co2", "uint16", noisy(712, 4, 60, 130)),
            Register(410, "pressure/supply", "uint16", gusts(246, 9, 10)),
            Register(411, "pressure/extract", "uint16", gusts(221, 9, 10)),
            Register(412, "fan/supply", "uint16", ramp(540, 710, 95, 3)),
            Register(413, "fan/extract", "uint16", ramp(510, 680, 95, 3)),
            Register(414, "recovery", "uint16", ramp(62, 94, 110, 0.6)),
            Register(415, "valve/heating", "uint16", lags(380, 240, 95, 3)),
            Register(416, "filter/supply", "uint16", noisy(118, 1.1, 4, 60)),
            Register(417, "filter/extract", "uint16", noisy(96, 1.1, 4, 60)),
            Register(418, "inputs", "uint16", bits((0, 700, 1.0), (1, 41, 0.7), (5, 26, 0.4))),
            Register(419, "alarms", "uint16", always(0)),
            Register(420, "hours/supply", "uint16", always(8_812)),
            Register(421, "hours/extract", "uint16", always(8_790)),
            Register(422, "frost/limit", "int16", always(-50)),
        ],
    )


def coriolis() -> Device:
    """A Coriolis meter: floats of the usual order, totals as float64, counters of 32 bits, a tag, settings at rest."""

    def flow(t: float) -> float:
        return 3.412 + 0.9 * math.sin(2 * math.pi * t / 64)

    return Device(
        seed=74,
        map=[
            Register(2000, "tag", "string", always("FT-301 syrup"), length=8),
            Register(2008, "mass_flow", "float32", lambda t, rng: flow(t) + rng.gauss(0, 0.012)),
            Register(2010, "volume_flow", "float32", lambda t, rng: flow(t) / 1.318 + rng.gauss(0, 0.01)),
            Register(2012, "density", "float32", noisy(1_318.4, 0.06, 0.8, 180)),
            Register(2014, "temperature", "float32", noisy(41.27, 0.01, 0.5, 200)),
            Register(2016, "brix", "float32", noisy(64.91, 0.02, 0.3, 180)),
            Register(2018, "frequency", "float32", noisy(182.33, 0.003, 0.06, 180)),
            Register(2020, "drive/gain", "float32", noisy(7.81, 0.04, 0.6, 44)),
            Register(2022, "viscosity", "float32", noisy(188.2, 0.9, 9, 120)),
            Register(
                2024, "mass/total", "float64", lambda t, rng: 918_402.771 + 3.412 * t + 9.2 * (1 - math.cos(t / 10.2))
            ),
            Register(
                2028, "volume/total", "float64", lambda t, rng: 696_814.12 + 2.589 * t + 7.0 * (1 - math.cos(t / 10.2))
            ),
            Register(2032, "batch", "float32", lambda t, rng: 211.4 + 3.412 * t + 9.2 * (1 - math.cos(t / 10.2))),
            Register(2034, "pulses", "uint32", flows(91_840_277, 341.2, 90.0, 64)),
            Register(2036, "uptime", "uint32", counts(8_271_993, 1.0)),
            Register(2038, "status", "uint16", turns([0x0020, 0x0020, 0x0024], 29)),
            Register(2039, "unit", "uint16", always(73)),
            Register(2040, "cut_off", "float32", always(0.02)),
            Register(2042, "damping", "float32", always(0.8)),
            Register(2044, "k_factor", "float32", always(100.0)),
        ],
    )


def mast() -> Device:
    """A meteorological mast: floats with the low word first, two heights, a counter of lightning, battery and a clock in words."""

    def wind(height: float) -> Process:
        return gusts(6.1 * height, 1.4 * height, 7)

    return Device(
        seed=75,
        map=[
            Register(100, "wind/40m", "float32", wind(1.0), "CDAB"),
            Register(102, "wind/40m/greatest", "float32", turns([9.4, 10.1, 11.7], 30), "CDAB"),
            Register(104, "direction/40m", "float32", gusts(243.0, 12.0, 9), "CDAB"),
            Register(106, "wind/80m", "float32", wind(1.18), "CDAB"),
            Register(108, "wind/80m/greatest", "float32", turns([11.2, 12.6, 13.1], 30), "CDAB"),
            Register(110, "direction/80m", "float32", gusts(247.0, 10.0, 9), "CDAB"),
            Register(112, "temperature", "float32", noisy(-3.41, 0.02, 0.6, 240), "CDAB"),
            Register(114, "humidity", "float32", noisy(78.3, 0.1, 2.2, 240), "CDAB"),
            Register(116, "pressure", "float32", noisy(968.42, 0.02, 0.1, 300), "CDAB"),
            Register(118, "radiation", "float32", noisy(214.0, 2.0, 60, 170), "CDAB"),
            Register(120, "rain", "float32", lambda t, rng: 412.6 + 0.2 * int(t / 17), "CDAB"),
            Register(122, "lightning", "uint16", counts(27, 0.03)),
            Register(123, "battery", "uint16", noisy(1_297, 1.0, 4, 90)),
            Register(124, "year", "uint16", always(2_026)),
            Register(125, "month", "uint16", always(2)),
            Register(126, "day", "uint16", always(11)),
            Register(127, "hour", "uint16", always(16)),
            Register(128, "minute", "uint16", lambda t, rng: 7 + int(t / 60)),
            Register(129, "second", "uint16", lambda t, rng: int(t) % 60),
            Register(130, "records", "uint32", counts(2_118_402, 1.0), "CDAB"),
        ],
    )


def labeller() -> Device:
    """A labelling machine's block: packed bits, words, pairs with the low word first, names with the bytes of each register exchanged."""

    def angle(t: float, rng: random.Random) -> float:
        return 90_000 * math.sin(2 * math.pi * t / 37) + rng.gauss(0, 90)

    return Device(
        seed=76,
        map=[
            Register(300, "word/1", "uint16", bits((0, 600, 1.0), (2, 19, 0.5), (6, 37, 0.5), (9, 52, 0.2))),
            Register(301, "word/2", "uint16", bits((1, 24, 0.4), (5, 43, 0.6))),
            Register(302, "fault", "uint16", turns([0, 0, 31], 28)),
            Register(303, "speed", "uint16", noisy(412, 2, 30, 50)),
            Register(304, "speed/set", "uint16", always(420)),
            Register(305, "tension", "uint16", gusts(188, 9, 6)),
            Register(306, "labels/good", "uint32", counts(4_390_902, 6.9), "CDAB"),
            Register(308, "labels/bad", "uint32", counts(71_310, 0.08), "CDAB"),
            Register(310, "web/used", "uint32", counts(902_114_700, 522.0), "CDAB"),
            Register(312, "head/angle", "int32", angle, "CDAB"),
            Register(314, "glue/temperature", "float32", noisy(162.4, 0.15, 1.8, 90), "CDAB"),
            Register(316, "glue/pressure", "float32", noisy(4.12, 0.02, 0.3, 25), "CDAB"),
            Register(318, "glue/level", "float32", lambda t, rng: 71.3 - t / 90, "CDAB"),
            Register(320, "camera/score", "float32", noisy(97.1, 0.3, 0.9, 30), "CDAB"),
            Register(322, "glue/setpoint", "float32", always(162.0), "CDAB"),
            Register(324, "product", "string", always("Olive oil 0.75 extra"), "BADC", length=16),
            Register(340, "lot", "string", always("L26-0418"), "BADC", length=8),
            Register(348, "roll/left", "uint16", lambda t, rng: 6_120 - int(0.5 * t)),
            Register(349, "shift", "uint16", always(2)),
            Register(350, "run_time", "uint32", counts(14_008_276, 1.0), "CDAB"),
        ],
    )


UNSEEN: dict[str, Callable[[], Device]] = {
    "branch meter": branch_meter,
    "conveyor drive": conveyor_drive,
    "air handling unit": air_handler,
    "Coriolis meter": coriolis,
    "meteorological mast": mast,
    "labelling machine": labeller,
}
