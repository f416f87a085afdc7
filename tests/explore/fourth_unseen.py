"""Six more maps that judged the rules of `explain` once (263 of their 303 registers were right), and on which they were tuned then."""

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


def generator() -> Device:
    """A diesel generator's controller under load: engine values in words, electrical ones in pairs, powers with sign, counters behind."""

    def load(t: float) -> float:
        return 164_000 + 31_000 * math.sin(2 * math.pi * t / 77) + (22_000 if t % 41 < 17 else 0)

    def of(share: float, noise: float) -> Process:
        return lambda t, rng: share * load(t) + rng.gauss(0, noise)

    return Device(
        seed=61,
        map=[
            Register(1024, "oil/pressure", "uint16", noisy(412, 2, 11, 60)),
            Register(1025, "coolant", "int16", noisy(83, 0.4, 2, 300)),
            Register(1026, "oil/temperature", "int16", noisy(91, 0.4, 2, 300)),
            Register(1027, "fuel", "uint16", lambda t, rng: 71 - t / 400),
            Register(1028, "alternator/charge", "uint16", noisy(277, 0.8, 2, 50)),
            Register(1029, "battery", "uint16", noisy(274, 0.6, 1, 50)),
            Register(1030, "engine/speed", "uint16", noisy(1_500, 2, 6, 77)),
            Register(1031, "frequency", "uint16", noisy(500, 0.6, 2, 77)),
            Register(1032, "voltage/l1", "uint32", noisy(2_307, 2, 7, 77)),
            Register(1034, "voltage/l2", "uint32", noisy(2_311, 2, 7, 77)),
            Register(1036, "voltage/l3", "uint32", noisy(2_304, 2, 7, 77)),
            Register(1038, "voltage/l1_l2", "uint32", noisy(3_998, 3, 12, 77)),
            Register(1040, "voltage/l2_l3", "uint32", noisy(4_003, 3, 12, 77)),
            Register(1042, "voltage/l3_l1", "uint32", noisy(3_995, 3, 12, 77)),
            Register(1044, "current/l1", "uint32", of(0.015, 12)),
            Register(1046, "current/l2", "uint32", of(0.0147, 12)),
            Register(1048, "current/l3", "uint32", of(0.0155, 12)),
            Register(1050, "current/earth", "uint32", always(0)),
            Register(1052, "power/l1", "int32", of(0.33, 250)),
            Register(1054, "power/l2", "int32", of(0.32, 250)),
            Register(1056, "power/l3", "int32", of(0.35, 250)),
            Register(1798, "run_time", "uint32", counts(31_227_406, 1.0)),
            Register(1800, "energy", "uint32", counts(9_120_114, 0.5)),
            Register(1802, "starts", "uint32", always(2_118)),
            Register(1804, "fuel/used", "uint32", counts(418_233, 0.11)),
        ],
    )


def ups() -> Device:
    """An uninterruptible power supply: words throughout, minutes and percent, a name."""
    return Device(
        seed=62,
        map=[
            Register(1, "model", "string", always("Sentra 20 kVA"), length=10),
            Register(11, "serial", "string", always("S20-2231-0094"), length=10),
            Register(21, "state", "uint16", bits((1, 300, 1.0), (3, 44, 0.4), (7, 29, 0.3))),
            Register(22, "alarms", "uint16", always(0)),
            Register(23, "input/l1", "uint16", noisy(2_312, 3, 9, 80)),
            Register(24, "input/l2", "uint16", noisy(2_298, 3, 9, 80)),
            Register(25, "input/l3", "uint16", noisy(2_320, 3, 9, 80)),
            Register(26, "input/frequency", "uint16", noisy(500, 0.5, 1, 90)),
            Register(27, "bypass/l1", "uint16", noisy(2_310, 3, 9, 80)),
            Register(28, "bypass/l2", "uint16", noisy(2_297, 3, 9, 80)),
            Register(29, "bypass/l3", "uint16", noisy(2_318, 3, 9, 80)),
            Register(30, "output/l1", "uint16", noisy(2_300, 1.2, 2, 60)),
            Register(31, "output/l2", "uint16", noisy(2_301, 1.2, 2, 60)),
            Register(32, "output/l3", "uint16", noisy(2_299, 1.2, 2, 60)),
            Register(33, "output/current/l1", "uint16", noisy(214, 3, 30, 55)),
            Register(34, "output/current/l2", "uint16", noisy(188, 3, 28, 47)),
            Register(35, "output/current/l3", "uint16", noisy(231, 3, 33, 61)),
            Register(36, "load/l1", "uint16", noisy(74, 0.9, 10, 55)),
            Register(37, "load/l2", "uint16", noisy(65, 0.9, 10, 47)),
            Register(38, "load/l3", "uint16", noisy(80, 0.9, 11, 61)),
            Register(39, "battery/voltage", "uint16", noisy(4_372, 2, 6, 90)),
            Register(40, "battery/current", "int16", noisy(3, 2, 9, 40)),
            Register(41, "battery/charge", "uint16", always(100)),
            Register(42, "battery/minutes", "uint16", noisy(33, 0.6, 3, 55)),
            Register(43, "battery/temperature", "uint16", noisy(246, 0.6, 2, 400)),
            Register(44, "transfers", "uint16", always(14)),
            Register(45, "hours", "uint16", always(30_118)),
            Register(46, "power/nominal", "uint16", always(200)),
        ],
    )


def tank_gauge() -> Device:
    """A radar gauge on a tank that is being filled: floats with the low word first, two masses as float64, states and a tag in words."""

    def level(t: float) -> float:
        return 6_212.4 + 3.1 * t

    return Device(
        seed=63,
        map=[
            Register(0, "status", "uint16", turns([0x0040, 0x0040, 0x0042], 27)),
            Register(1, "quality", "uint16", noisy(187, 2, 5, 30)),
            Register(2, "level", "float32", lambda t, rng: level(t) + rng.gauss(0, 0.7), "CDAB"),
            Register(4, "ullage", "float32", lambda t, rng: 14_800 - level(t) + rng.gauss(0, 0.7), "CDAB"),
            Register(6, "level/rate", "float32", noisy(11.2, 0.2, 1.1, 60), "CDAB"),
            Register(8, "temperature/product", "float32", noisy(17.83, 0.02, 0.3, 200), "CDAB"),
            Register(10, "temperature/vapour", "float32", noisy(21.4, 0.05, 0.9, 200), "CDAB"),
            Register(12, "pressure", "float32", noisy(0.0214, 0.0003, 0.002, 60), "CDAB"),
            Register(14, "volume", "float32", lambda t, rng: 0.3848 * level(t) + rng.gauss(0, 0.3), "CDAB"),
            Register(16, "density", "float32", noisy(832.7, 0.05, 0.4, 240), "CDAB"),
            Register(18, "amplitude", "float32", noisy(2_641.0, 14, 90, 45), "CDAB"),
            Register(20, "tank/height", "float32", always(14_800.0), "CDAB"),
            Register(22, "limit/high", "float32", always(13_500.0), "CDAB"),
            Register(24, "limit/low", "float32", always(450.0), "CDAB"),
            Register(26, "dead_zone", "float32", always(250.0), "CDAB"),
            Register(28, "mass", "float64", lambda t, rng: 320.4181 * level(t) + rng.gauss(0, 90), "CDAB"),
            Register(32, "mass/received", "float64", lambda t, rng: 41_882.3 + 993.17 * t + rng.gauss(0, 4), "CDAB"),
            Register(36, "tag", "string", always("TK-104 diesel"), length=8),
            Register(44, "uptime", "uint32", counts(44_102_918, 1.0), "CDAB"),
            Register(46, "serial", "uint32", always(5_120_447), "CDAB"),
        ],
    )


def oven() -> Device:
    """Four zones of an oven by temperature controllers: the same words for each, those of the freezing zone below zero."""
    registers = []
    for zone, middle in enumerate((1_854, 2_106, 962, -164)):
        at = 100 * zone
        kind = "int16" if middle < 0 else "uint16"
        registers += [
            Register(at, f"{zone}/actual", kind, lags(middle, 14, 60 + 9 * zone, 1.0)),
            Register(at + 1, f"{zone}/setpoint", kind, always(middle + 2)),
            Register(at + 2, f"{zone}/output", "uint16", gusts(520 - 60 * zone, 90, 12)),
            Register(at + 3, f"{zone}/deviation", "int16", lags(-2, 14, 60 + 9 * zone, 1.0)),
            Register(at + 4, f"{zone}/state", "uint16", turns([1, 1, 3], 17 + zone)),
            Register(at + 5, f"{zone}/alarm", "uint16", turns([0, 0, 1], 33 + zone)),
            Register(at + 6, f"{zone}/gain", "uint16", always(120 + 10 * zone)),
            Register(at + 7, f"{zone}/integral", "uint16", always(360)),
            Register(at + 8, f"{zone}/derivative", "uint16", always(60)),
            Register(at + 9, f"{zone}/heater/current", "uint16", noisy(184 + 12 * zone, 2, 16, 40)),
        ]
    return Device(seed=64, map=registers)


def feeder_panel() -> Device:
    """A panel of three feeders, each a block of floats of the usual order and an energy of 32 bits, then what concerns all."""
    registers = []
    for feeder, (amps, turn) in enumerate(((118.0, 70), (43.5, 52), (260.0, 96))):
        at = 3_000 + 20 * feeder

        def load(t: float, amps: float = amps, turn: float = turn) -> float:
            return amps * (1 + 0.2 * math.sin(2 * math.pi * t / turn))

        def of(share: float, noise: float, load: Callable[[float], float] = load) -> Process:
            return lambda t, rng: share * load(t) + rng.gauss(0, noise)

        registers += [
            Register(at, f"{feeder}/current/l1", "float32", of(1.0, 0.4)),
            Register(at + 2, f"{feeder}/current/l2", "float32", of(0.97, 0.4)),
            Register(at + 4, f"{feeder}/current/l3", "float32", of(1.04, 0.4)),
            Register(at + 6, f"{feeder}/power", "float32", of(0.641, 0.3)),
            Register(at + 8, f"{feeder}/reactive", "float32", of(0.214, 0.2)),
            Register(at + 10, f"{feeder}/power_factor", "float32", noisy(0.944, 0.002, 0.02, turn)),
            Register(at + 12, f"{feeder}/thd", "float32", noisy(4.31, 0.04, 0.5, 61)),
            Register(
                at + 14, f"{feeder}/energy", "uint32", flows(7_004_118 + 911_402 * feeder, amps / 6, amps / 40, turn)
            ),
            Register(at + 16, f"{feeder}/demand", "float32", always(round(amps * 0.65, 1))),
            Register(at + 18, f"{feeder}/trips", "uint16", always(feeder + 1)),
            Register(at + 19, f"{feeder}/breaker", "uint16", turns([1, 1, 1, 3], 24 + feeder)),
        ]
    return Device(
        seed=65,
        map=[
            *registers,
            Register(3_060, "voltage/l1", "float32", noisy(231.7, 0.12, 0.6, 80)),
            Register(3_062, "voltage/l2", "float32", noisy(230.9, 0.12, 0.6, 80)),
            Register(3_064, "voltage/l3", "float32", noisy(232.4, 0.12, 0.6, 80)),
            Register(3_066, "frequency", "float32", noisy(49.99, 0.004, 0.02, 200)),
            Register(3_068, "panel/temperature", "float32", noisy(31.6, 0.03, 0.4, 300)),
            Register(3_070, "inputs", "uint16", bits((0, 60, 0.9), (3, 22, 0.4), (6, 37, 0.2))),
            Register(3_071, "version", "uint16", always(312)),
        ],
    )


def water_works() -> Device:
    """A water works' block in a large PLC: floats and integers of 32 bits of the usual order, packed bits, a name, pumps one after the other."""

    def turned(start: int, rate: float) -> Process:
        return counts(start, rate)

    pumps = []
    for pump, (speed, amps, hours) in enumerate(((1_462, 61.8, 41_227_004), (1_188, 44.1, 38_802_117))):
        at = 40 + 12 * pump
        pumps += [
            Register(at, f"pump/{pump}/word", "uint16", bits((0, 800, 1.0), (2, 31, 0.4), (8, 47, 0.6))),
            Register(at + 1, f"pump/{pump}/speed", "uint16", noisy(speed, 2, 40, 66)),
            Register(at + 2, f"pump/{pump}/current", "float32", noisy(amps, 0.3, 4, 66)),
            Register(at + 4, f"pump/{pump}/seconds", "uint32", turned(hours, 1.0)),
            Register(at + 6, f"pump/{pump}/volume", "uint32", turned(88_117_400 + 71_000 * pump, 23.0 - 4 * pump)),
            Register(at + 8, f"pump/{pump}/vibration", "float32", gusts(2.4 + pump, 0.4, 7)),
            Register(at + 10, f"pump/{pump}/bearing", "float32", noisy(58.2 - pump, 0.05, 0.9, 300)),
        ]

    def position(t: float, rng: random.Random) -> float:
        return 26_000 * math.sin(2 * math.pi * t / 84) + rng.gauss(0, 40) - 3_000

    return Device(
        seed=66,
        map=[
            Register(0, "plant", "string", always("Brunnen Nord"), length=8),
            Register(8, "inlet/flow", "float32", noisy(182.4, 0.9, 12, 70)),
            Register(10, "outlet/flow", "float32", noisy(167.1, 0.9, 15, 55)),
            Register(12, "basin/level", "float32", ramp(2.31, 3.84, 150, 0.004)),
            Register(14, "chlorine", "float32", noisy(0.284, 0.002, 0.03, 90)),
            Register(16, "ph", "float32", noisy(7.41, 0.004, 0.06, 130)),
            Register(18, "turbidity", "float32", gusts(0.19, 0.02, 9)),
            Register(20, "temperature", "float32", noisy(11.62, 0.01, 0.15, 300)),
            Register(22, "valve/position", "int32", position),
            Register(24, "inlet/total", "uint32", flows(402_118_337, 50.7, 3.0, 70)),
            Register(26, "outlet/total", "uint32", flows(398_660_912, 46.4, 4.0, 55)),
            Register(28, "chlorine/setpoint", "float32", always(0.3)),
            Register(30, "level/setpoint", "float32", always(3.2)),
            Register(32, "bits/1", "uint16", bits((0, 26, 0.5), (4, 61, 0.4), (13, 38, 0.3))),
            Register(33, "bits/2", "uint16", always(0)),
            Register(34, "step", "uint16", turns([10, 20, 30, 40], 14)),
            Register(35, "recipe", "uint16", always(4)),
            Register(36, "filter/left", "float32", lambda t, rng: 211.0 - t / 60),
            Register(38, "life", "uint16", lambda t, rng: int(t) % 256),
            Register(39, "batch", "uint16", counts(2_207, 0.03)),
            *pumps,
        ],
    )


FOURTH_UNSEEN: dict[str, Callable[[], Device]] = {
    "generator": generator,
    "uninterruptible supply": ups,
    "tank gauge": tank_gauge,
    "oven": oven,
    "feeder panel": feeder_panel,
    "water works": water_works,
}
