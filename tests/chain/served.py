"""What the simulated devices handed out, as the store should have it: read from their truth logs, in arithmetic of its own.

Nothing of the gateway is used here: profiles are read as plain YAML, Modbus answers are decoded by the simulators' own maps, scales are
exact fractions, StatusCodes come from asyncua's table.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from asyncua import ua

from simulators.device import DeviceSettings, DeviceType
from simulators.modbus import MAPS, MapEntry, decode, width
from simulators.opcua import FACTORIES, OpcUaDevice
from simulators.truth import TruthLog, read_truth

PROFILES = Path(__file__).parents[2] / "schemas" / "profiles"
UNCERTAIN = 0x40000000
UNCERTAIN_UNITS_EXCEEDED = 0x40940000
_OVERFLOW = 0x480
"""InfoType DataValue and the Overflow bit (OPC 10000-4 §7.39.1)."""
_FUNCTIONS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_EXCEPTIONS = {
    1: "BadServiceUnsupported", 2: "BadNodeIdUnknown", 3: "BadOutOfRange", 4: "BadDeviceFailure", 6: "BadServerTooBusy",
}  # fmt: skip
_UNITS = {("ms", "s"): Fraction(1, 1000)}
"""What a profile's source_unit and unit come to."""
CLAUSES = {
    "nsu=http://guantong.example/imm/;i=1001": "cycle",
    "nsu=http://guantong.example/imm/;i=1002": "production_status",
    "nsu=http://guantong.example/imm/;i=1003": "standstill_reason",
    "nsu=http://www.euromap.org/euromap83/;i=1004": "alarm",
    "nsu=http://guantong.example/machinetool/;i=1001": "program",
    "nsu=http://guantong.example/machinetool/;i=1002": "part",
    "nsu=http://opcfoundation.org/UA/MachineTool/;i=39": "alert",
}
"""The event type that arrives, and the clause of the profile that selects it (by a supertype, as a rule)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A device of the gateway that is compared: its profile's name, the simulated device behind it and, on a line, its unit."""

    device: str
    profile: str
    simulator: str
    unit: int = 1

    @property
    def protocol(self) -> str:
        return str(profile(self.profile)["protocol"])


@dataclass(frozen=True, slots=True)
class Served:
    """One value as a device handed it out, in the store's terms. `ts` is None where the protocol has no time."""

    t: int
    ts: int | None
    value: Any
    status: int = 0
    out_of_range: bool = False
    overflow: bool = False
    raw: Any = None
    """What arrived beside a bad status."""
    first: bool = False
    """The first of its node in its subscription: the present value, however old."""

    def __str__(self) -> str:
        status = f" status {self.status:#010x}" if self.status else ""
        return f"{self.value!r}{status} of {self.ts if self.ts is not None else self.t}, handed out at {self.t}"


@dataclass(frozen=True, slots=True)
class Fired:
    """One event as a device handed it out: `fields` are those that the profile's clause selects."""

    t: int
    ts: int
    id: str
    device: str
    clause: str
    type: str
    severity: int
    message: str
    condition: str | None
    state: str | None
    fields: Mapping[str, Any]


@dataclass(slots=True)
class SignalTruth:
    """Everything that was served of one signal, in the order in which it was handed out."""

    device: str
    name: str
    group: str
    type: str
    deadband: Fraction
    every: bool
    served: list[Served] = field(default_factory=list)


@functools.cache
def profile(name: str) -> dict[str, Any]:
    """A shipped profile as the YAML has it."""
    loaded: dict[str, Any] = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    return loaded


@functools.cache
def opcua_nodes(simulator: str) -> Mapping[str, str]:
    """NodeId text of each variable of a simulated device by its path, as its truth log writes it."""

    async def look() -> dict[str, str]:
        device = _kind(simulator).create(DeviceSettings(simulator, TruthLog(None, simulator)))
        assert isinstance(device, OpcUaDevice)
        await device.start("127.0.0.1", 0)
        try:
            return device.variables
        finally:
            await device.stop()

    return asyncio.run(look())


def _kind(simulator: str) -> DeviceType:
    """The type of a simulated device, or of a copy such as imm-02."""
    return next(kind for kind in FACTORIES.values() if simulator in (kind.instance(n) for n in range(1, 100)))


def signals_of(subject: Subject) -> dict[str, SignalTruth]:
    """The signals of the device's profile, with nothing served yet."""
    found = {}
    for signal in profile(subject.profile)["signals"]:
        band = signal.get("deadband", {})
        assert set(band) <= {"absolute"}, "a deadband in percent is not compared here"
        name = signal["name"]
        found[name] = SignalTruth(
            subject.device, name, signal.get("group", "default"), signal.get("type", "float64"),
            Fraction(str(band.get("absolute", 0))), signal.get("store") == "every",
        )  # fmt: skip
    return found


def groups_of(subject: Subject) -> set[str]:
    """The groups in which the device's signals are read."""
    return {signal.group for signal in signals_of(subject).values()}


def served_values(subject: Subject, truth: Path) -> dict[str, SignalTruth]:
    """The signals of a device with all that its truth log says was served of them."""
    signals = signals_of(subject)
    records = read_truth(truth / f"{subject.simulator}.ndjson")
    if subject.protocol == "opcua":
        _opcua(subject, signals, records)
    else:
        _modbus(subject, signals, records)
    return signals


def interpreted(signal: Mapping[str, Any], raw: Any, status: int) -> tuple[Any, int, bool]:
    """Value, status and whether it is out of range, of a raw value that is not bad, by the profile's words."""
    value = raw
    scale = Fraction(str(signal.get("scale", 1)))
    unit = signal.get("unit", "")
    if (source := signal.get("source_unit", unit)) != unit:
        scale *= _UNITS[source, unit]
    assert "offset" not in signal, "an offset is not compared here"
    if scale != 1 and signal.get("bit") is None:
        value = float(Fraction(raw) * scale)
    if status & 0xC0000000:
        return value, status, False
    if "enum" in signal and value not in signal["enum"]:
        status = UNCERTAIN
    low, high = signal.get("range", (None, None))
    if low is not None and not low <= value <= high:
        return value, UNCERTAIN_UNITS_EXCEEDED, True
    return value, status, False


# ------------------------------------------------------------------------------------------------------------- OPC UA


def _opcua(subject: Subject, signals: dict[str, SignalTruth], records: Iterable[dict[str, Any]]) -> None:
    nodes = opcua_nodes(subject.simulator)
    by_node: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for signal in profile(subject.profile)["signals"]:
        address = signal["address"]
        node = address.get("node") or nodes["/".join(part.rpartition(":")[2] for part in address["path"].split("/"))]
        by_node[node].append(signal)
    begun: set[tuple[int, str]] = set()
    for record in records:
        if record["kind"] != "value":
            continue
        key = (record["subscription"], record["node"])
        first = key not in begun
        begun.add(key)
        for signal in by_node.get(record["node"], ()):
            signals[signal["name"]].served.append(_opcua_value(signal, record, first))


def _opcua_value(signal: Mapping[str, Any], record: Mapping[str, Any], first: bool) -> Served:
    status, raw, ts = record["status"], record["value"], record["source_ts"]
    overflow = status & _OVERFLOW == _OVERFLOW
    if overflow:
        status &= ~_OVERFLOW
    if status & 0x80000000:
        return Served(record["t"], ts, None, status, overflow=overflow, raw=raw, first=first)
    value, status, outside = interpreted(signal, raw, status)
    return Served(record["t"], ts, value, status, outside, overflow, first=first)


REFRESH = {"i=2787", "i=2788", "i=2789"}
"""What brackets, or asks for, a repetition of conditions (OPC 10000-9 §5.11): no event of the machine."""


def fired_events(subject: Subject, truth: Path) -> list[Fired]:
    """The events of a device as its truth log has them; one that was handed out twice is there twice."""
    if subject.protocol != "opcua":
        return []
    clauses = {clause["name"]: clause for clause in profile(subject.profile).get("events", ())}
    records = read_truth(truth / f"{subject.simulator}.ndjson")
    events = (record for record in records if record["kind"] == "event" and record["type"] not in REFRESH)
    return [_event(subject, clauses, record) for record in events]


def _event(subject: Subject, clauses: Mapping[str, Any], record: Mapping[str, Any]) -> Fired:
    told = record["fields"]
    clause = clauses[CLAUSES[record["type"]]]
    fields = {
        name: told.get("/".join(part.rpartition(":")[2] for part in selected["path"].split("/")))
        for name, selected in clause["fields"].items()
    }
    condition = state = None
    if clause.get("kind") == "alarm":
        condition = told["ConditionId"]
        state = ("active" if told["ActiveState/Id"] else "inactive") + (
            ",acked" if told["AckedState/Id"] else ",unacked"
        )
        fields |= {"condition_name": told["ConditionName"], "retain": told["Retain"], "source": told["SourceName"]}
    return Fired(
        record["t"], record["source_ts"], record["event_id"], subject.device, clause["name"], record["type"],
        told["Severity"], told["Message"], condition, state, fields,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- Modbus


def _modbus(subject: Subject, signals: dict[str, SignalTruth], records: Iterable[dict[str, Any]]) -> None:
    entries = {entry.name: entry for entry in MAPS[subject.profile]}
    wanted: dict[str, list[tuple[Mapping[str, Any], MapEntry]]] = defaultdict(list)
    owner: dict[tuple[int, int], str] = {}
    for signal in profile(subject.profile)["signals"]:
        entry, group = entries[signal["name"]], signals[signal["name"]].group
        wanted[group].append((signal, entry))
        owner[_FUNCTIONS[entry.table], entry.address] = group
    for record in _answers(records):
        if record["unit"] != subject.unit or record["function"] not in _FUNCTIONS.values():
            continue  # another station, or a question for the device's name
        # A read begins with a value of the group that it is for; what it reads along of another group's is nobody's reading.
        for signal, entry in wanted[owner[record["function"], record["address"]]]:
            place = entry.address - record["address"]
            if _FUNCTIONS[entry.table] == record["function"] and 0 <= place <= record["count"] - width(entry):
                signals[signal["name"]].served.append(_modbus_value(signal, entry, record, place))


def _answers(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers and exceptions, without the very first one: the trial while the link is opened, which is no reading."""
    told = (record for record in records if record["kind"] in ("answer", "exception"))
    next(told, None)
    yield from told


def _modbus_value(signal: Mapping[str, Any], entry: MapEntry, record: Mapping[str, Any], place: int) -> Served:
    t = record["t"]
    if record["kind"] == "exception":
        return Served(t, None, None, _status(_EXCEPTIONS[record["code"]]))
    words = (record["bits"] if "bits" in record else record["registers"])[place:]
    plain = dataclasses.replace(entry, scale=1.0, sentinels={})
    raw = decode(plain, words)
    if entry.sentinels and decode(dataclasses.replace(entry, scale=1.0), words) is None:
        named = signal["address"]["sentinels"][words[0]]
        return Served(t, None, None, _status(named), raw=raw)
    assert Fraction(str(entry.scale)) == Fraction(str(signal.get("scale", 1))), f"{entry.name}: another scale"
    value, status, outside = interpreted(signal, raw, 0)
    return Served(t, None, value, status, outside)


def _status(name: str) -> int:
    return int(getattr(ua.StatusCodes, name))
