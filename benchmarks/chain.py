"""The whole chain under load: 5,000 signals at 1 Hz, half OPC UA, half Modbus, to SQLite over the embedded broker.

Every value changes every second. The load servers run in processes of their own, outside of the budget. At the end they
stand still, so that what they gave can be compared with what is stored, value by value.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._figures import SHORT, Figure, load_average, say, tell
from benchmarks._gateway import READINGS, STORE, Gateway, Load, free_ports, metrics, opened, rows_of, write_config
from benchmarks._processes import ROOT, Told, Use, module, wait_for

SECONDS = 30.0 if SHORT else 120.0
WARM_UP = 5.0 if SHORT else 10.0
YARDSTICK_SECONDS = 5.0 if SHORT else 15.0
AIM_CPU = 6.0
"""µs for each value: the mean of 5 (Modbus) and 7 (OPC UA)."""
AIM_MEMORY = 300.0
"""MB of all processes; the aim is meant for twice as many signals."""
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the running gateway; times and lags in seconds."""

    at: float
    stored: float
    """Readings stored since ingest began."""
    arrival: float
    """From the arrival of the oldest message of ingest's last transaction to its commit."""
    complete: float
    """From the time up to which the history of the device that is furthest behind is complete, to now."""
    waiting: float
    """Messages in the outbox that the store has not confirmed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen while it ran."""

    looks: list[Look]
    begin: dict[str, Use]
    middle: dict[str, Use]
    end: dict[str, Use]
    store_bytes: int
    """How much larger the store's file became."""

    @property
    def values(self) -> float:
        """Readings that were stored meanwhile."""
        return self.looks[-1].stored - self.looks[0].stored

    @property
    def seconds(self) -> float:
        """How long."""
        return self.looks[-1].at - self.looks[0].at

    def cpu(self, name: str) -> float:
        """Microseconds of CPU that a process spent for each value."""
        return 1e6 * (self.end[name].cpu - self.begin[name].cpu) / self.values

    def slope(self, name: str) -> float:
        """How much a lag grew: the slope of the straight line through it (least squares), in seconds per minute."""
        times = [one.at for one in self.looks]
        lags = [float(getattr(one, name)) for one in self.looks]
        middle, mean = sum(times) / len(times), sum(lags) / len(lags)
        product = sum((t - middle) * (lag - mean) for t, lag in zip(times, lags, strict=True))
        return 60 * product / sum((t - middle) ** 2 for t in times)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the servers gave against what is stored, in readings."""

    stored: int
    lost: int
    doubled: int
    wrong: int


def look(gateway: Gateway, store: Path) -> Look:
    """How it stands now."""
    ingest, collect = metrics(gateway.ports.ingest), metrics(gateway.ports.collect)
    with opened(store) as connection:
        complete = connection.execute("SELECT min(complete_to) FROM progress").fetchone()[0]
    return Look(
        time.monotonic(), ingest["guantong_ingest_rows_total"], ingest["guantong_ingest_lag_seconds"],
        time.time() - complete / 1e6, collect["guantong_outbox_unconfirmed_messages"],
    )  # fmt: skip


def measure(gateway: Gateway, store: Path) -> Measured:
    """Looks once a second."""
    begin, size = gateway.use(), store.stat().st_size
    middle: dict[str, Use] = {}
    looks = [look(gateway, store)]
    while looks[-1].at - looks[0].at < SECONDS:
        time.sleep(max(0.0, looks[0].at + len(looks) - time.monotonic()))
        looks.append(look(gateway, store))
        if not middle and looks[-1].at - looks[0].at >= SECONDS / 2:
            middle = gateway.use()
    end = gateway.use()
    if end.keys() != begin.keys():
        raise RuntimeError(f"processes came or went: {sorted(begin)} became {sorted(end)}")
    return Measured(looks, begin, middle, end, store.stat().st_size - size)


def compare(store: Path, load: Load, answers: dict[str, int], ticks: list[int]) -> Truth:
    """From the first stored value of a signal on, each value that its server gave must be stored, once, and nothing else."""
    with opened(store) as connection:
        names = connection.execute("SELECT id, device, name FROM signal").fetchall()
        numbers = (
            f"SELECT signal_id, count(*), count(DISTINCT num), min(num), max(num) FROM ({READINGS}) GROUP BY signal_id"
        )
        found = {signal: row for signal, *row in connection.execute(numbers)}
    if len(names) != load.signals or len(found) != load.signals:
        raise RuntimeError(
            f"the store knows {len(names)} signals, {len(found)} of them with readings, not {load.signals}"
        )
    stored = lost = doubled = wrong = 0
    for signal, device, name in names:
        kind, _, number = device.partition("-")
        first = (1000 if kind == "machine" else 100) * int(name[1:])
        last = first + (ticks[int(number)] if kind == "machine" else answers[str(int(number))])
        count, different, lowest, highest = found[signal]
        stored += count
        doubled += count - different
        lost += max(0, int(last - lowest) + 1 - different)
        wrong += highest > last or lowest < first
    return Truth(stored, lost, doubled, wrong)


def libraries(load: Load) -> float:
    """Microseconds of CPU for each value when pymodbus and asyncua alone read the same signals at the same pace."""
    period = str(load.period)
    modbus = _library("modbus", str(load.modbus_port), str(load.units), str(load.registers), period)
    opcua = _library("opcua", load.endpoint, str(load.variables), str(load.machines), period)
    say(f"pymodbus alone takes {modbus:.2f} µs for a value, asyncua alone {opcua:.2f} µs")
    both = load.units * load.registers
    return (modbus * both + opcua * load.variables) / load.signals


def _library(*arguments: str) -> float:
    command = module("benchmarks._yardsticks", *arguments, str(YARDSTICK_SECONDS))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return 1e6 * told["cpu"] / told["values"]


def figures(measured: Measured, truth: Truth, load: Load, yardstick: float) -> list[Figure]:
    """What there is to tell."""
    begin, end, looks, values = measured.begin, measured.end, measured.looks, measured.values
    memory = {name: use.memory / _MB for name, use in end.items()}
    growth = {name: memory[name] - measured.middle[name].memory / _MB for name in end}
    written = {name: (end[name].written - begin[name].written) / values for name in end}
    told = [
        Figure("chain.stored", values / measured.seconds, "values/s", aim=load.signals / load.period),
        Figure("chain.compared", float(truth.stored), "readings"),
        Figure("chain.lost", float(truth.lost), "readings", aim=0),
        Figure("chain.doubled", float(truth.doubled), "readings", aim=0),
        Figure("chain.wrong", float(truth.wrong), "signals", aim=0),
        Figure("chain.cpu", sum(map(measured.cpu, end)), "µs/value", yardstick, AIM_CPU),
        *(Figure(f"chain.cpu.{name}", measured.cpu(name), "µs/value") for name in end),
        Figure("chain.memory", sum(memory.values()), "MB", aim=AIM_MEMORY),
        *(Figure(f"chain.memory.{name}", memory[name], "MB") for name in end),
        Figure("chain.growth", sum(growth.values()), "MB", aim=0),
        *(Figure(f"chain.growth.{name}", growth[name], "MB") for name in end),
    ]
    for name, text in (("arrival", "lag.arrival"), ("complete", "lag.complete"), ("waiting", "waiting")):
        lags = [float(getattr(one, name)) for one in looks]
        unit = "messages" if name == "waiting" else "s"
        told.append(Figure(f"chain.{text}.mean", sum(lags) / len(lags), unit))
        told.append(Figure(f"chain.{text}.largest", max(lags), unit))
        told.append(Figure(f"chain.{text}.slope", measured.slope(name), f"{unit}/min", aim=0))
    return [
        *told,
        Figure("chain.written", sum(written.values()), "bytes/reading"),
        *(Figure(f"chain.written.{name}", written[name], "bytes/reading") for name in ("collect", "ingest")),
        Figure("chain.store", measured.store_bytes / values, "bytes/reading"),
    ]


def run(folder: Path) -> list[Figure]:
    """Everything, in `folder`."""
    say(f"starting the load servers; {load_average()}")
    shape = Load()
    modbus = Told("benchmarks._modbus_load")
    opcua = Told("benchmarks._opcua_load", str(shape.variables), str(shape.machines), str(shape.period))
    load = Load(modbus.ready["port"], opcua.ready["endpoint"])
    yardstick = libraries(load)
    ports, store = free_ports(), folder / STORE
    gateway = Gateway(write_config(folder, load, ports), ports)
    try:
        gateway.wait()
        wait_for("a first reading of each signal", lambda: rows_of(store) >= load.signals, 60, every=0.5)
        say(f"every signal is stored; after {WARM_UP:g} s more, {SECONDS:g} s are measured")
        time.sleep(WARM_UP)
        measured = measure(gateway, store)
        held: dict[str, Any] = modbus.ask("hold") | opcua.ask("hold")
        settle(store)
        say(f"measured; {load_average()}")
    except BaseException:  # also Ctrl-C: the log says why it hung
        say(gateway.log.read_text(encoding="utf-8")[-4_000:])
        raise
    finally:
        gateway.end()
        modbus.end()
        opcua.end()
    return figures(measured, compare(store, load, held["answers"], held["ticks"]), load, yardstick)


def settle(store: Path) -> None:
    """Until no more rows come although the servers stand still."""
    before = -1
    while (rows := rows_of(store)) != before:
        before = rows
        time.sleep(3.0)


def main() -> int:
    """0 when nothing was lost, doubled or wrong."""
    with tempfile.TemporaryDirectory(prefix="guantong-chain-") as folder:
        found = run(Path(folder))
    tell(found)
    return int(any(figure.value for figure in found if figure.name in ("chain.lost", "chain.doubled", "chain.wrong")))


if __name__ == "__main__":
    sys.exit(main())
