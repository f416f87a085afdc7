"""Six maps on which the rules of `explain` were tuned. They are no proof of anything; `unseen` is."""

from __future__ import annotations

from collections.abc import Callable

from tests.explore.devices import Device, Register, always, counts, noisy, ramp, turns


def drive() -> Device:
    """A frequency inverter that starts and brakes: words in hundredths and tenths, the torque with its sign."""
    return Device(
        seed=11,
        map=[
            Register(0x2100, "fault", "uint16", turns([0, 0, 0, 14], 12)),
            Register(0x2101, "status", "uint16", turns([0x0500, 0x0507, 0x0502], 9)),
            Register(0x2102, "frequency/command", "uint16", always(4500)),
            Register(0x2103, "frequency/output", "uint16", ramp(800, 4500, 80, 4)),
            Register(0x2104, "current/output", "uint16", ramp(31, 88, 80, 1.2)),
            Register(0x2105, "voltage/dc", "uint16", noisy(5407, 11, 40, 50)),
            Register(0x2106, "voltage/output", "uint16", ramp(690, 3801, 80, 6)),
            Register(0x2107, "step", "uint16", turns([1, 2, 3, 4], 15)),
            Register(0x2108, "spare", "spare", always(0)),
            Register(0x2109, "counter", "uint16", counts(211, 0.4)),
            Register(0x210A, "power_factor", "uint16", noisy(862, 4, 20, 70)),
            Register(0x210B, "torque", "int16", noisy(10, 9, 320, 40)),
            Register(0x210C, "speed", "int16", noisy(0, 3, 1350, 80)),
            Register(0x210D, "temperature/sink", "uint16", noisy(487, 1, 8, 600)),
            Register(0x210E, "energy", "uint32", counts(1_183_402, 0.7)),
            Register(0x2110, "hours/run", "uint16", always(11873)),
            Register(0x2111, "hours/power", "uint16", always(14002)),
            Register(0x2112, "power/output", "int32", noisy(300, 40, 5200, 40)),
            Register(0x2114, "load", "uint16", noisy(63, 2, 9, 33)),
            Register(0x2115, "rated/current", "uint16", always(125)),
            Register(0x2116, "rated/voltage", "uint16", always(380)),
            Register(0x2117, "inputs", "uint16", turns([0x0041, 0x0001, 0x0043, 0x0141], 7)),
            Register(0x2118, "version", "uint16", always(207)),
        ],
    )


def compressor() -> Device:
    """A screw compressor: words, hours and starts in pairs, two temperatures that go below zero in a cold hall."""
    return Device(
        seed=12,
        map=[
            Register(100, "state", "uint16", turns([3, 3, 4, 5], 14)),
            Register(101, "alarm", "spare", always(0)),
            Register(102, "pressure/line", "uint16", ramp(672, 761, 45, 1.5)),
            Register(103, "pressure/oil", "uint16", ramp(690, 790, 45, 2.0)),
            Register(104, "temperature/oil", "uint16", noisy(823, 1.5, 14, 200)),
            Register(105, "temperature/inlet", "int16", noisy(-6, 1.2, 14, 300)),
            Register(106, "temperature/dew_point", "int16", noisy(-231, 2.0, 9, 90)),
            Register(107, "motor/current", "uint16", ramp(412, 917, 45, 5)),
            Register(108, "motor/speed", "uint16", ramp(1480, 3470, 45, 9)),
            Register(109, "load", "uint16", ramp(31, 97, 45, 1)),
            Register(110, "hours/total", "uint32", always(83_271)),
            Register(112, "hours/loaded", "uint32", always(70_655)),
            Register(114, "starts", "uint32", counts(9_113, 0.05)),
            Register(116, "volume", "uint32", counts(18_220_417, 2.3)),
            Register(118, "energy", "uint32", counts(6_553_572, 1.1)),
            Register(120, "service/left", "int16", always(-118)),
            Register(121, "setpoint/load", "uint16", always(680)),
            Register(122, "setpoint/unload", "uint16", always(760)),
            Register(123, "relays", "uint16", turns([0b10110, 0b10010, 0b10111], 11)),
            Register(124, "spare", "spare", always(0)),
            Register(125, "serial", "string", always("GA37-2208841"), length=8),
        ],
    )


def water_meter() -> Device:
    """An ultrasonic water meter, low word first: totals in litres, flow and velocity as floats."""
    return Device(
        seed=13,
        map=[
            Register(0, "flow", "float32", noisy(12.41, 0.09, 1.7, 60), "CDAB"),
            Register(2, "velocity", "float32", noisy(0.731, 0.005, 0.1, 60), "CDAB"),
            Register(4, "volume/forward", "uint32", counts(48_213_377, 3.4), "CDAB"),
            Register(6, "volume/reverse", "uint32", counts(71_204, 0.06), "CDAB"),
            Register(8, "volume/net", "int32", counts(48_142_173, 3.3), "CDAB"),
            Register(10, "pulses", "uint32", counts(196_500, 17.3), "CDAB"),
            Register(12, "temperature/supply", "float32", noisy(14.2, 0.02, 0.4, 300), "CDAB"),
            Register(14, "temperature/return", "float32", noisy(11.87, 0.02, 0.3, 240), "CDAB"),
            Register(16, "pressure", "float32", noisy(0.412, 0.002, 0.01, 20), "CDAB"),
            Register(18, "hours", "uint32", always(31_906), "CDAB"),
            Register(20, "signal/up", "uint16", noisy(873, 2, 5, 40)),
            Register(21, "signal/down", "uint16", noisy(869, 2, 5, 40)),
            Register(22, "quality", "uint16", noisy(92, 0.7)),
            Register(23, "error", "uint16", turns([0, 0, 16], 20)),
            Register(24, "diameter", "float32", always(80.0), "CDAB"),
            Register(26, "k_factor", "float32", always(1.0025), "CDAB"),
            Register(28, "volume/today", "uint32", counts(65_490, 3.4), "CDAB"),
            Register(30, "address", "uint16", always(7)),
            Register(31, "baud", "uint16", always(3)),
        ],
    )


def transmitter() -> Device:
    """Temperature and humidity in a cold store, four sensors: tenths, below zero."""
    sensors = []
    for number, middle in enumerate((-183, -12, 214, -35)):
        sensors += [
            Register(3 * number, f"{number}/temperature", "int16", noisy(middle, 1.0, 16 if number == 1 else 6, 150)),
            Register(3 * number + 1, f"{number}/humidity", "uint16", noisy(552 + 60 * number, 3, 20, 90)),
            Register(3 * number + 2, f"{number}/dew_point", "int16", noisy(middle - 71, 1.4, 6, 120)),
        ]
    return Device(
        seed=14,
        map=[
            *sensors,
            Register(12, "pressure", "uint16", noisy(10_132, 1.4, 3, 300)),
            Register(13, "co2", "uint16", noisy(612, 5, 40, 100)),
            Register(14, "alarms", "uint16", turns([0, 1, 5, 4], 13)),
            Register(15, "spare", "spare", always(0)),
            Register(16, "limit/low", "int16", always(-250)),
            Register(17, "limit/high", "uint16", always(80)),
            Register(18, "correction", "int16", always(-4)),
            Register(19, "uptime", "uint32", counts(3_942_117, 1.0)),
            Register(21, "unit", "uint16", always(1)),
            Register(22, "baud", "uint16", always(9600)),
        ],
    )


def plc() -> Device:
    """A data block that several people filled: floats and integers in two orders, text, states, a broken sensor."""
    nan = float("nan")
    return Device(
        seed=15,
        map=[
            Register(4000, "oven/temperature", "float32", noisy(182.3, 0.25, 2.5, 70), "DCBA"),
            Register(4002, "oven/setpoint", "float32", always(185.0), "DCBA"),
            Register(4004, "oven/power", "float32", noisy(43.7, 1.1, 12, 35), "DCBA"),
            Register(4006, "belt/speed", "float32", noisy(1.36, 0.01, 0.2, 55), "DCBA"),
            Register(4008, "parts/total", "int32", counts(7_340_000, 2600.0), "DCBA"),
            Register(4010, "drive/position", "int32", noisy(0, 200, 7600, 65), "DCBA"),
            Register(4012, "recipe", "string", always("Baguette 45 hell"), "BADC", length=10),
            Register(4022, "state", "uint16", turns([10, 20, 30], 13)),
            Register(4023, "shift", "uint16", always(2)),
            Register(4024, "mixer/torque", "float32", noisy(88.2, 2.0, 21, 25), "BADC"),
            Register(4026, "mixer/temperature", "float32", noisy(24.3, 0.05, 0.9, 80), "BADC"),
            Register(4028, "mixer/weight", "float32", noisy(512.6, 0.8, 5, 30), "BADC"),
            Register(4030, "mixer/energy", "float32", lambda t, rng: 10_311.4 + 0.21 * t, "BADC"),
            Register(4032, "probe/broken", "float32", always(nan), "BADC"),
            Register(4034, "mixer/turns", "int32", counts(130_816, 33.0), "BADC"),
            Register(4036, "line/name", "string", always("Linie 3 Nord"), "BADC", length=8),
            Register(4044, "step", "uint16", turns([1, 2, 3, 4, 5, 6], 8)),
            Register(4045, "speed/percent", "uint16", noisy(74, 1.5, 8, 30)),
        ],
    )


def solar() -> Device:
    """A hybrid inverter with battery: text first, grid values in tenths, powers with sign in pairs, energies of 64 bits in Wh."""
    return Device(
        seed=16,
        map=[
            Register(30000, "maker", "string", always("Sunvolt Power"), length=8),
            Register(30008, "model", "string", always("SVH-10K-T2"), length=8),
            Register(30016, "serial", "string", always("SV2309A004417"), length=10),
            Register(30026, "state", "uint16", turns([5, 5, 7], 16)),
            Register(30027, "grid/l1", "uint16", noisy(2318, 4, 9, 90)),
            Register(30028, "grid/l2", "uint16", noisy(2296, 4, 9, 80)),
            Register(30029, "grid/l3", "uint16", noisy(2331, 4, 9, 70)),
            Register(30030, "grid/frequency", "uint16", noisy(5001, 1, 2, 60)),
            Register(30031, "grid/current", "int16", noisy(4, 3, 90, 75)),
            Register(30032, "grid/power", "int32", noisy(-150, 60, 4100, 75)),
            Register(30034, "pv/power", "uint32", noisy(5480, 35, 700, 45)),
            Register(30036, "battery/power", "int32", noisy(220, 30, 2900, 50)),
            Register(30038, "load/power", "uint32", noisy(2240, 60, 400, 33)),
            Register(30040, "energy/pv", "uint64", counts(31_208_771, 1.5)),
            Register(30044, "energy/export", "uint64", counts(19_775_030, 0.9)),
            Register(30048, "energy/import", "uint64", counts(4_521_916, 0.3)),
            Register(30052, "energy/load", "uint64", counts(15_990_608, 0.6)),
            Register(30056, "battery/soc", "uint16", noisy(671, 0.8, 4, 400)),
            Register(30057, "battery/voltage", "uint16", noisy(5162, 2, 12, 60)),
            Register(30058, "battery/current", "int16", noisy(10, 6, 520, 50)),
            Register(30059, "battery/temperature", "int16", noisy(-2, 0.8, 6, 150)),
            Register(30060, "pv/1/voltage", "uint16", noisy(6210, 12, 60, 40)),
            Register(30061, "pv/1/current", "uint16", noisy(452, 3, 40, 45)),
            Register(30062, "pv/2/voltage", "uint16", noisy(6044, 12, 60, 42)),
            Register(30063, "pv/2/current", "uint16", noisy(438, 3, 40, 47)),
            Register(30064, "inner/temperature", "uint16", noisy(412, 0.9, 3, 300)),
            Register(30065, "fault", "spare", always(0)),
        ],
    )


KNOWN: dict[str, Callable[[], Device]] = {
    "frequency inverter": drive,
    "compressor": compressor,
    "water meter": water_meter,
    "temperature and humidity": transmitter,
    "PLC block": plc,
    "solar inverter": solar,
}
