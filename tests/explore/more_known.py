"""Six more maps on which the rules of `explain` were tuned."""

from __future__ import annotations

from collections.abc import Callable

from tests.explore.devices import Device, Register, always, counts, noisy, ramp, turns


def servo() -> Device:
    """A servo drive at a press feeder: positions and speeds with sign, low word first, beside words with sign."""
    return Device(
        seed=21,
        map=[
            Register(0x0300, "status", "uint16", turns([0x0237, 0x1237, 0x1637], 8)),
            Register(0x0301, "mode", "uint16", always(1)),
            Register(0x0302, "position/actual", "int32", noisy(1_500, 60, 186_000, 44), "CDAB"),
            Register(0x0304, "position/target", "int32", turns([0, 180_000, -175_000], 15), "CDAB"),
            Register(0x0306, "velocity/actual", "int32", noisy(0, 25, 26_400, 44), "CDAB"),
            Register(0x0308, "following_error", "int16", noisy(0, 6, 31, 22)),
            Register(0x0309, "torque", "int16", noisy(-14, 11, 287, 22)),
            Register(0x030A, "current", "uint16", noisy(214, 7, 60, 22)),
            Register(0x030B, "bus_voltage", "uint16", noisy(3216, 9, 55, 44)),
            Register(0x030C, "temperature/drive", "uint16", noisy(431, 0.8, 4, 500)),
            Register(0x030D, "temperature/motor", "uint16", noisy(587, 0.8, 6, 700)),
            Register(0x030E, "warning", "spare", always(0)),
            Register(0x030F, "error", "spare", always(0)),
            Register(0x0310, "cycles", "uint32", counts(5_242_820, 0.8), "CDAB"),
            Register(0x0312, "distance", "uint32", counts(917_480_112, 5_210.0), "CDAB"),
            Register(0x0314, "gain/position", "uint16", always(350)),
            Register(0x0315, "gain/velocity", "uint16", always(1200)),
            Register(0x0316, "limit/positive", "int32", always(190_000), "CDAB"),
            Register(0x0318, "limit/negative", "int32", always(-190_000), "CDAB"),
            Register(0x031A, "override", "uint16", always(100)),
        ],
    )


def chiller() -> Device:
    """A brine chiller: temperatures in tenths around and below zero, pressures in hundredths, hours per circuit."""
    return Device(
        seed=22,
        map=[
            Register(256, "run", "uint16", always(1)),
            Register(257, "brine/inlet", "int16", noisy(3, 1.1, 21, 130)),
            Register(258, "brine/outlet", "int16", noisy(-41, 1.0, 18, 130)),
            Register(259, "brine/setpoint", "int16", always(-50)),
            Register(260, "ambient", "int16", noisy(-7, 0.7, 12, 260)),
            Register(261, "suction/temperature", "int16", noisy(-118, 2.2, 15, 65)),
            Register(262, "suction/pressure", "uint16", noisy(287, 2.1, 22, 65)),
            Register(263, "discharge/temperature", "uint16", noisy(734, 2.3, 40, 65)),
            Register(264, "discharge/pressure", "uint16", noisy(1641, 5, 90, 65)),
            Register(265, "superheat", "uint16", noisy(64, 2.5, 20, 50)),
            Register(266, "valve", "uint16", noisy(417, 6, 110, 50)),
            Register(267, "fan/speed", "uint16", ramp(380, 910, 65, 4)),
            Register(268, "flow", "uint16", noisy(1284, 6, 12, 40)),
            Register(269, "compressor/1", "uint16", turns([1, 1, 0], 18)),
            Register(270, "compressor/2", "uint16", turns([0, 1], 25)),
            Register(271, "alarms/1", "spare", always(0)),
            Register(272, "alarms/2", "spare", always(0)),
            Register(273, "hours/1", "uint16", always(21_844)),
            Register(274, "hours/2", "uint16", always(19_002)),
            Register(275, "starts/1", "uint16", always(4_512)),
            Register(276, "starts/2", "uint16", counts(4_630, 0.05)),
            Register(277, "hysteresis", "uint16", always(15)),
            Register(278, "frost_limit", "int16", always(-120)),
            Register(279, "refrigerant", "uint16", always(404)),
        ],
    )


def heat_meter() -> Device:
    """A heat meter: floats with the low word first, totals as integers of 32 bits in the same order, serial number as text."""
    return Device(
        seed=23,
        map=[
            Register(0x50, "serial", "string", always("KM603-71120985"), length=8),
            Register(0x58, "power", "float32", noisy(86.4, 0.7, 11, 80), "CDAB"),
            Register(0x5A, "flow", "float32", noisy(3.218, 0.02, 0.5, 70), "CDAB"),
            Register(0x5C, "supply", "float32", noisy(71.62, 0.06, 2.2, 180), "CDAB"),
            Register(0x5E, "return", "float32", noisy(48.07, 0.05, 1.5, 200), "CDAB"),
            Register(0x60, "difference", "float32", noisy(23.55, 0.07, 1.2, 150), "CDAB"),
            Register(0x62, "energy", "uint32", counts(7_340_018, 2.4), "CDAB"),
            Register(0x64, "volume", "uint32", counts(12_845_007, 0.9), "CDAB"),
            Register(0x66, "energy/cold", "uint32", always(14), "CDAB"),
            Register(0x68, "mass", "float32", lambda t, rng: 12_602.44 + 0.9 * t / 1000, "CDAB"),
            Register(0x6A, "hours", "uint32", always(26_411), "CDAB"),
            Register(0x6C, "hours/error", "uint32", always(3), "CDAB"),
            Register(0x6E, "peak/power", "float32", always(143.8), "CDAB"),
            Register(0x70, "peak/flow", "float32", always(5.02), "CDAB"),
            Register(0x72, "info", "uint16", turns([0, 0, 8], 21)),
            Register(0x73, "battery", "uint16", noisy(361, 0.5)),
            Register(0x74, "tariff", "uint16", always(2)),
            Register(0x75, "type", "uint16", always(603)),
        ],
    )


def flow_computer() -> Device:
    """A gas flow computer: totals as float64, the rest as float32, the usual order; an absent probe reads NaN."""
    return Device(
        seed=24,
        map=[
            Register(7000, "station", "string", always("North Header"), length=8),
            Register(7008, "total/corrected", "float64", lambda t, rng: 4_418_220.731 + 0.4172 * t),
            Register(7012, "total/actual", "float64", lambda t, rng: 771_034.118 + 0.0713 * t),
            Register(7016, "total/energy", "float64", lambda t, rng: 48_390_211.9 + 4.61 * t),
            Register(7020, "flow/corrected", "float32", noisy(1502.4, 6, 130, 75)),
            Register(7022, "flow/actual", "float32", noisy(256.7, 1.2, 22, 75)),
            Register(7024, "pressure", "float32", noisy(6.214, 0.004, 0.06, 90)),
            Register(7026, "temperature", "float32", noisy(-3.42, 0.03, 6.1, 240)),
            Register(7028, "density", "float32", noisy(0.7443, 0.0004, 0.002, 300)),
            Register(7030, "compressibility", "float32", noisy(0.98761, 0.00005, 0.0003, 300)),
            Register(7032, "probe/2", "float32", always(float("nan"))),
            Register(7034, "base/pressure", "float32", always(1.01325)),
            Register(7036, "base/temperature", "float32", always(15.0)),
            Register(7038, "alarms", "uint16", turns([0, 4, 0, 6], 12)),
            Register(7039, "spare", "spare", always(0)),
            Register(7040, "pulses", "uint32", counts(2_949_040, 61.0)),
            Register(7042, "day", "uint16", always(17)),
            Register(7043, "hour", "uint16", always(9)),
            Register(7044, "minute", "uint16", lambda t, rng: 12 + int(t / 60)),
            Register(7045, "second", "uint16", lambda t, rng: int(t) % 60),
        ],
    )


def mixed_plc() -> Device:
    """A packaging line's data block: integers with the bytes reversed, floats with the words straight and the bytes swapped, text between."""
    return Device(
        seed=25,
        map=[
            Register(100, "product", "string", always("Salted crackers 200"), "BADC", length=10),
            Register(110, "batch", "string", always("L2611-0442"), "BADC", length=8),
            Register(118, "bags/good", "uint32", counts(1_310_540, 21.0), "DCBA"),
            Register(120, "bags/bad", "uint32", counts(196_590, 3.1), "DCBA"),
            Register(122, "film/used", "uint32", counts(65_400_880, 412.0), "DCBA"),
            Register(124, "cam/angle", "int32", noisy(0, 900, 71_000, 37), "DCBA"),
            Register(126, "state", "uint16", turns([4, 5, 6], 12)),
            Register(127, "speed", "uint16", noisy(118, 1.4, 9, 60)),
            Register(128, "sealer/upper", "float32", noisy(148.6, 0.3, 2.2, 60), "BADC"),
            Register(130, "sealer/lower", "float32", noisy(151.2, 0.3, 2.0, 55), "BADC"),
            Register(132, "sealer/pressure", "float32", noisy(3.87, 0.02, 0.2, 24), "BADC"),
            Register(134, "weight/mean", "float32", noisy(201.3, 0.2, 0.9, 50), "BADC"),
            Register(136, "weight/deviation", "float32", noisy(1.14, 0.01, 0.15, 50), "BADC"),
            Register(138, "gas/oxygen", "float32", noisy(0.72, 0.01, 0.1, 33), "BADC"),
            Register(140, "target/weight", "float32", always(200.0), "BADC"),
            Register(142, "stops", "uint16", counts(37, 0.04)),
            Register(143, "operator", "uint16", always(12)),
            Register(144, "jam", "spare", always(0)),
            Register(145, "doors", "uint16", turns([0x000F, 0x000D, 0x000F, 0x0007], 9)),
        ],
    )


def storage() -> Device:
    """A battery store: cells in millivolts, powers with sign in pairs, energies of 64 bits in Wh, names as text."""
    cells = [
        Register(1100 + number, f"cell/{number}", "uint16", noisy(3290 + 3 * number, 1.1, 7, 110))
        for number in range(8)
    ]
    return Device(
        seed=26,
        map=[
            Register(1064, "maker", "string", always("Voltera Storage"), length=16),
            Register(1080, "state", "uint16", turns([2, 3, 2, 4], 14)),
            Register(1081, "soc", "uint16", noisy(734, 0.6, 3, 300)),
            Register(1082, "soh", "uint16", always(978)),
            Register(1083, "voltage", "uint16", noisy(7912, 4, 30, 90)),
            Register(1084, "power", "int32", noisy(300, 80, 21_000, 58)),
            Register(1086, "reactive", "int32", noisy(-60, 40, 3_900, 47)),
            Register(1088, "energy/charged", "uint64", counts(88_213_004, 3.6)),
            Register(1092, "energy/discharged", "uint64", counts(79_990_771, 2.9)),
            Register(1096, "current", "int16", noisy(8, 6, 265, 58)),
            Register(1097, "cycles", "uint16", always(412)),
            Register(1098, "temperature/min", "int16", noisy(-1, 0.8, 5, 200)),
            Register(1099, "temperature/max", "int16", noisy(4, 0.8, 9, 200)),
            *cells,
            Register(1108, "frequency", "uint16", noisy(5000, 1.1, 2, 50)),
            Register(1109, "insulation", "uint16", noisy(1840, 9, 25, 60)),
            Register(1110, "uptime", "uint32", counts(11_534_320, 1.0)),
            Register(1112, "fault", "spare", always(0)),
            Register(1113, "contactors", "uint16", turns([0x0003, 0x0003, 0x0001], 17)),
        ],
    )  # fmt: skip


MORE_KNOWN: dict[str, Callable[[], Device]] = {
    "servo drive": servo,
    "chiller": chiller,
    "heat meter": heat_meter,
    "flow computer": flow_computer,
    "packaging line": mixed_plc,
    "battery store": storage,
}
