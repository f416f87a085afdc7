"""Six maps that judged the rules of `explain` once (189 of their 211 registers were right), and on which they were tuned then."""

from __future__ import annotations

from collections.abc import Callable

from tests.explore.devices import Device, Register, always, counts, noisy, ramp, turns


def spindle() -> Device:
    """A spindle inverter: words in tenths and hundredths, torque and speed with sign, energy in a pair."""
    return Device(
        seed=31,
        map=[
            Register(3200, "status_word", "uint16", turns([0x0627, 0x0637, 0x0237], 13)),
            Register(3201, "fault", "spare", always(0)),
            Register(3202, "speed/reference", "int16", turns([1800, -1800, 2400], 18)),
            Register(3203, "speed/actual", "int16", noisy(60, 4, 1750, 54)),
            Register(3204, "motor/current", "uint16", noisy(1170, 14, 310, 54)),
            Register(3205, "motor/torque", "int16", noisy(40, 15, 610, 54)),
            Register(3206, "motor/power", "int16", noisy(25, 6, 170, 54)),
            Register(3207, "mains/voltage", "uint16", noisy(3987, 8, 25, 100)),
            Register(3208, "link/voltage", "uint16", noisy(5602, 12, 60, 54)),
            Register(3209, "frequency", "uint16", noisy(611, 2, 140, 54)),
            Register(3210, "drive/heat", "uint16", noisy(47, 0.6, 4, 300)),
            Register(3211, "motor/heat", "uint16", noisy(62, 0.6, 5, 350)),
            Register(3212, "energy", "uint32", counts(2_030_911, 0.8)),
            Register(3214, "run_time", "uint32", counts(40_117_333, 1.0)),
            Register(3216, "acceleration", "uint16", always(50)),
            Register(3217, "deceleration", "uint16", always(80)),
            Register(3218, "speed/max", "uint16", always(6000)),
            Register(3219, "terminals", "uint16", turns([0x0003, 0x000B, 0x0001], 7)),
            Register(3220, "load", "uint16", ramp(120, 840, 54, 9)),
        ],
    )


def air_station() -> Device:
    """A compressed-air station: states, pressures in millibar, a dew point below zero, hours in pairs, a maker's text."""
    return Device(
        seed=32,
        map=[
            Register(1, "maker", "string", always("Boreas Air"), length=8),
            Register(9, "state", "uint16", turns([6, 6, 7, 2], 16)),
            Register(10, "pressure/net", "uint16", ramp(6_890, 7_430, 39, 11)),
            Register(11, "pressure/internal", "uint16", ramp(7_020, 7_690, 39, 14)),
            Register(12, "dew_point", "int16", noisy(-402, 3, 22, 140)),
            Register(13, "temperature/block", "uint16", noisy(874, 2, 31, 78)),
            Register(14, "temperature/hall", "int16", noisy(6, 0.9, 17, 400)),
            Register(15, "power", "uint16", ramp(207, 548, 39, 6)),
            Register(16, "hours", "uint32", counts(154_772, 0.02)),
            Register(18, "hours/load", "uint32", counts(131_840, 0.02)),
            Register(20, "volume", "uint32", counts(7_208_880, 6.1)),
            Register(22, "starts", "uint32", always(38_205)),
            Register(24, "pressure/low", "uint16", always(6900)),
            Register(25, "pressure/high", "uint16", always(7400)),
            Register(26, "warnings", "uint16", turns([0, 2, 2, 0, 8], 10)),
            Register(27, "alarms", "spare", always(0)),
            Register(28, "service/in", "int16", always(-260)),
            Register(29, "flow", "uint16", ramp(1210, 3870, 39, 40)),
        ],
    )


def water_panel() -> Device:
    """A panel of three water meters, low word first: a total, a flow and a temperature each."""
    registers = []
    for number, (total, rate, flow, warm) in enumerate(
        ((5_505_001, 4.4, 15.8, 9.3), (98_304_010, 11.0, 39.6, 12.6), (640_117, 0.7, 2.51, 31.4))
    ):
        at = 200 + 10 * number
        registers += [
            Register(at, f"{number}/total", "uint32", counts(total, rate), "CDAB"),
            Register(at + 2, f"{number}/flow", "float32", noisy(flow, flow / 150, flow / 8, 60 + 9 * number), "CDAB"),
            Register(at + 4, f"{number}/temperature", "float32", noisy(warm, 0.02, 0.6, 170), "CDAB"),
            Register(at + 6, f"{number}/pulse_value", "uint16", always(10)),
            Register(at + 7, f"{number}/state", "uint16", turns([1, 1, 3], 17 + number)),
            Register(at + 8, f"{number}/serial", "uint32", always(22_410_000 + 37 * number), "CDAB"),
        ]
    return Device(seed=33, map=registers)


def greenhouse() -> Device:
    """Climate transmitters in and outside: tenths with sign, humidity, light, wind."""
    return Device(
        seed=34,
        map=[
            Register(0, "inside/temperature", "uint16", noisy(224, 0.8, 11, 200)),
            Register(1, "inside/humidity", "uint16", noisy(713, 2.5, 34, 160)),
            Register(2, "outside/temperature", "int16", noisy(-9, 1.0, 24, 220)),
            Register(3, "outside/humidity", "uint16", noisy(864, 2.0, 20, 180)),
            Register(4, "outside/dew_point", "int16", noisy(-38, 1.2, 20, 220)),
            Register(5, "soil/temperature", "uint16", noisy(168, 0.5, 2, 600)),
            Register(6, "freezer/temperature", "int16", noisy(-187, 1.1, 8, 95)),
            Register(7, "light", "uint16", noisy(18_420, 90, 2_600, 75)),
            Register(8, "wind/speed", "uint16", noisy(47, 4.5, 21, 26)),
            Register(9, "wind/direction", "uint16", noisy(214, 5, 30, 50)),
            Register(10, "rain", "uint16", counts(371, 0.06)),
            Register(11, "co2", "uint16", noisy(803, 6, 95, 90)),
            Register(12, "vent", "uint16", ramp(0, 100, 120, 0.4)),
            Register(13, "status", "uint16", turns([0x0010, 0x0011, 0x0030], 12)),
            Register(14, "offset/temperature", "int16", always(-3)),
            Register(15, "offset/humidity", "int16", always(-12)),
            Register(16, "spare", "spare", always(0)),
            Register(17, "model", "uint16", always(3100)),
        ],
    )


def mill() -> Device:
    """A flour mill's block: three hands, three orders: reversed floats, swapped floats, straight integers, text."""
    return Device(
        seed=35,
        map=[
            Register(500, "recipe", "string", always("Type 405 fine"), length=10),
            Register(510, "operator", "string", always("Annette Braun"), "BADC", length=8),
            Register(518, "roller/1/gap", "float32", noisy(0.284, 0.001, 0.02, 70), "DCBA"),
            Register(520, "roller/1/current", "float32", noisy(61.7, 0.9, 8, 33), "DCBA"),
            Register(522, "roller/2/gap", "float32", noisy(0.191, 0.001, 0.015, 65), "DCBA"),
            Register(524, "roller/2/current", "float32", noisy(48.2, 0.8, 6, 41), "DCBA"),
            Register(526, "bearing/temperature", "float32", noisy(57.9, 0.1, 1.8, 240), "DCBA"),
            Register(528, "bearing/limit", "float32", always(85.0), "DCBA"),
            Register(530, "bags", "uint32", counts(2_162_640, 9.0), "ABCD"),
            Register(532, "weigher/position", "int32", noisy(200, 300, 41_000, 43), "ABCD"),
            Register(534, "state", "uint16", turns([100, 110, 120], 14)),
            Register(535, "line", "uint16", always(3)),
            Register(536, "moisture", "float32", noisy(14.62, 0.02, 0.3, 90), "BADC"),
            Register(538, "protein", "float32", noisy(11.81, 0.02, 0.2, 100), "BADC"),
            Register(540, "mass/flow", "float32", noisy(2_381.0, 14, 160, 37), "BADC"),
            Register(542, "mass/total", "float32", lambda t, rng: 81_233.5 + 0.66 * t, "BADC"),
            Register(544, "air/pressure", "float32", noisy(-3.41, 0.03, 0.5, 28), "BADC"),
            Register(546, "level", "uint16", noisy(628, 2, 40, 200)),
            Register(547, "vibration", "uint16", noisy(233, 8, 25, 20)),
        ],
    )


def rooftop() -> Device:
    """A string inverter: text, energies of 64 bits in Wh and of 32 bits for the day, power with sign, strings in tenths."""
    strings = []
    for number in range(4):
        strings += [
            Register(
                40_060 + 2 * number,
                f"string/{number}/voltage",
                "uint16",
                noisy(5_870 + 60 * number, 14, 70, 40 + number),
            ),
            Register(
                40_061 + 2 * number, f"string/{number}/current", "uint16", noisy(911 + 11 * number, 5, 80, 44 + number)
            ),
        ]
    return Device(
        seed=36,
        map=[
            Register(40_000, "maker", "string", always("Heliosys GmbH"), length=16),
            Register(40_016, "version", "string", always("2.14.07"), length=8),
            Register(40_024, "state", "uint16", turns([4, 4, 5], 19)),
            Register(40_025, "phase/1", "uint16", noisy(2_334, 4, 8, 80)),
            Register(40_026, "phase/2", "uint16", noisy(2_311, 4, 8, 85)),
            Register(40_027, "phase/3", "uint16", noisy(2_327, 4, 8, 90)),
            Register(40_028, "frequency", "uint16", noisy(4_999, 1, 2, 70)),
            Register(40_029, "cos_phi", "int16", noisy(2, 3, 60, 66)),
            Register(40_030, "power", "uint32", noisy(81_400, 400, 9_000, 48)),
            Register(40_032, "reactive", "int32", noisy(-120, 50, 6_300, 66)),
            Register(40_034, "meter/power", "int32", noisy(900, 300, 17_400, 57)),
            Register(40_036, "energy/total", "uint64", counts(412_880_190, 22.6)),
            Register(40_040, "energy/year", "uint64", counts(61_144_807, 22.6)),
            Register(40_044, "energy/import", "uint64", counts(6_010_911, 1.2)),
            Register(40_048, "energy/day", "uint32", counts(322_108, 22.6)),
            Register(40_050, "uptime", "uint32", counts(9_633_001, 1.0)),
            Register(40_052, "temperature/sink", "uint16", noisy(538, 0.9, 9, 300)),
            Register(40_053, "temperature/air", "int16", noisy(3, 0.9, 14, 280)),
            Register(40_054, "insulation", "uint16", noisy(1_204, 11, 60, 130)),
            Register(40_055, "limit", "uint16", always(1000)),
            Register(40_056, "events", "uint32", always(0x0000_0412)),
            Register(40_058, "rated", "uint32", always(100_000)),
            *strings,
            Register(40_068, "fault", "spare", always(0)),
        ],
    )


ONCE_UNSEEN: dict[str, Callable[[], Device]] = {
    "spindle inverter": spindle,
    "compressed-air station": air_station,
    "three water meters": water_panel,
    "greenhouse climate": greenhouse,
    "mill": mill,
    "rooftop inverter": rooftop,
}
