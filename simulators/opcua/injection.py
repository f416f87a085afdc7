"""imm-01: an injection-moulding machine that speaks EUROMAP 77 1.01 (its later name is OPC 40077).

Names, types and structure are those of EUROMAP 77 and 83 as republished in OPC 40077 1.01 and OPC 40083 1.02; EUROMAP's own
nodeset was not at hand, so that the numeric ids of its types (1038 for CycleParametersEventType …) are those of the
republication and not verified under the EUROMAP namespaces. Root and NodeIds belong to the server (OPC 40077 §20.2).
Left out: methods, production datasets, StandstillReasons (an array of a structure of its own), users. The namespace of the
BrowseNames InjectionUnitCycleParameters_1 and MouldCycleParameters_1 inside an event type is not verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncua import ua

from simulators.opcua._conditions import condition_fields
from simulators.opcua._device import ServerInfo
from simulators.opcua._events import FieldPath, SimulatedEvent, base_fields
from simulators.opcua._space import Place, Space, Unit, numeric
from simulators.process import injection as process
from simulators.process.injection import InjectionMachine

__all__ = ["INFO", "InjectionModel"]

DI, EM83, EM77, VENDOR = 2, 3, 4, 5
INFO = ServerInfo(
    name="Guantong IMM simulator",
    product_uri="urn:guantong:simulators:imm",
    manufacturer="GUANTONG",
    product="IMM simulator",
    software="1.0",
    namespaces=(
        "http://opcfoundation.org/UA/DI/",
        "http://www.euromap.org/euromap83/",
        "http://www.euromap.org/euromap77/",
        "http://guantong.example/imm/",
    ),
)
CELSIUS = Unit("CEL", "°C", "degree Celsius")
MILLIMETRE = Unit("MMT", "mm", "millimetre")
CUBIC_CENTIMETRE = Unit("CMQ", "cm³", "cubic centimetre")

COUNTERS = {
    "JobCycleCounter": "cycles",
    "JobPartsCounter": "parts",
    "JobGoodPartsCounter": "good",
    "JobBadPartsCounter": "bad",
    "JobTestSamplesCounter": "test",
    "BoxCycleCounter": "box_cycles",
    "BoxPartsCounter": "box_parts",
    "BoxGoodPartsCounter": "box_good",
    "BoxBadPartsCounter": "box_bad",
}
"""Counters of OPC 40083 §18.4.7 that begin anew with each job or box, and where the process keeps them."""
T = ua.VariantType


def texts(enumeration: Any) -> dict[int, str]:
    """Value and name of each member of an IntEnum."""
    return {int(member): str(member.name) for member in enumeration}


class InjectionModel:
    """The machine and its address space; see :class:`simulators.opcua._device.Model`."""

    def __init__(self, seed: int, serial: str = "0000001") -> None:
        self.machine = InjectionMachine(seed)
        self.serial = serial
        self.root_name = f"IMM_GUANTONG_{serial}"
        self._now: Callable[[], Any]
        self._space: Space
        self._root: Place
        self._types: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------- address space

    def build(self, objects: Place) -> None:
        """Build ``DeviceSet/IMM_GUANTONG_…``."""
        self._space = objects.space
        self._now = objects.space.server.iserver.clock.now
        self._build_types()
        devices = objects.object(DI, "DeviceSet", node=numeric(5001, DI), organizes=True, notifier=True)
        self._devices = Place(self._space, devices.node, "")
        kind = self._types["IMM_MES_InterfaceType"]
        root = self._devices.object(1, self.root_name, kind, notifier=True, node=ua.NodeId(self.root_name, VENDOR))
        self._root = Place(self._space, root.node, "")
        self._space.refer(root.node, ua.ObjectIds.GeneratesEvent, self._types["cycle"], inverse=False)
        self._information(self._root.object(EM77, "MachineInformation"))
        self._configuration(self._root)
        self._status(self._root)
        self._mes_status(self._root.object(EM77, "MachineMESStatus"))
        self._power_units(self._root.object(EM77, "PowerUnits"))
        self._moulds(self._root.object(EM77, "Moulds"))
        self._injection_units(self._root.object(EM77, "InjectionUnits"))
        self._jobs(self._root.object(EM77, "Jobs"))

    def _build_types(self) -> None:
        space, ids = self._space, ua.ObjectIds
        base, event, alarm = numeric(ids.BaseObjectType), numeric(ids.BaseEventType), numeric(ids.AlarmConditionType)
        types = self._types
        types["IMM_MES_InterfaceType"] = space.object_type(EM77, 1007, "IMM_MES_InterfaceType", base)
        for identifier, name, members in (
            (3011, "MachineModeEnumeration", process.MachineMode),
            (3016, "ProductionStatusEnumeration", process.ProductionStatus),
            (3017, "JobStatusEnumeration", process.JobStatus),
        ):
            types[name] = space.enumeration(EM83, identifier, name, texts(members))
        types["ControlModeEnumeration"] = space.enumeration(
            EM83, 3001, "ControlModeEnumeration",
            {0: "OTHER", 1: "OFF", 2: "AUTOMATIC", 3: "TUNING", 4: "STANDBY", 5: "OPEN_LOOP", 6: "ONLY_MEASUREMENT"},
        )  # fmt: skip
        types["MouldStatusEnumeration"] = space.enumeration(
            EM83, 3008, "MouldStatusEnumeration",
            {0: "OTHER", 1: "MOULD_NOT_INSTALLED", 2: "MOULD_CHANGE", 3: "MOULD_INSTALLED"},
        )  # fmt: skip
        string, u64, i32, double = T.String, T.UInt64, T.Int32, T.Double
        cycle = space.event_type(
            EM83, 1038, "CycleParametersEventType", event,
            [(EM83, name, kind) for name, kind in (
                ("JobName", string), ("JobStatus", i32), ("CurrentLotName", string), ("BoxId", string),
                ("CycleTime", double), ("AverageCycleTime", double), ("CycleQuality", i32),
                ("JobCycleCounter", u64), ("MachineCycleCounter", u64), ("JobPartsCounter", u64),
                ("JobGoodPartsCounter", u64), ("JobBadPartsCounter", u64), ("JobTestSamplesCounter", u64),
            )],
            abstract=True,
        )  # fmt: skip
        types["cycle"] = space.event_type(VENDOR, 1001, "GuantongCycleParametersEventType", cycle)
        log = space.event_type(EM83, 1011, "LogbookEventType", event, [(EM83, "EventOriginator", i32)], abstract=True)
        status = space.event_type(
            EM83, 1044, "ProductionStatusChangeLogType", log,
            [(EM83, "NewProductionStatus", i32), (EM83, "OldProductionStatus", i32)], abstract=True,
        )  # fmt: skip
        reason = space.event_type(
            EM83, 1013, "StandstillReasonLogType", log, [(EM83, "StandstillReasonId", string)], abstract=True
        )
        types["status"] = space.event_type(VENDOR, 1002, "GuantongProductionStatusChangeLogType", status)
        types["reason"] = space.event_type(VENDOR, 1003, "GuantongStandstillReasonLogType", reason)
        types["message"] = space.event_type(
            EM83, 1004, "MessageConditionType", alarm,
            [(EM83, "Id", string), (EM83, "Classification", i32), (EM83, "IsStandstillMessage", T.Boolean)],
        )  # fmt: skip

    def _information(self, place: Place) -> None:
        place.property(DI, "Manufacturer", T.LocalizedText, ua.LocalizedText("GUANTONG"))
        place.property(DI, "Model", T.LocalizedText, ua.LocalizedText("GT-160E"))
        place.property(DI, "SerialNumber", T.String, self.serial)
        place.property(DI, "DeviceClass", T.String, "Injection Moulding Machine")
        place.property(DI, "SoftwareRevision", T.String, "4.12.1")
        place.property(EM83, "ControllerName", T.String, "GTC-8")
        place.property(EM83, "SupportedLogbookEvents", T.Int32, [5, 8], array=True)

    def _configuration(self, root: Place) -> None:
        place = root.object(EM77, "MachineConfiguration")
        place.property(EM83, "UserMachineName", T.String, "1号注塑机")
        place.property(EM83, "LocationName", T.String, "Hall 1")
        zone = ua.TimeZoneDataType(Offset=480, DaylightSavingInOffset=False)
        place.property(EM83, "TimeZoneOffset", T.ExtensionObject, zone)
        place = root.object(EM77, "MachineMESConfiguration")
        place.property(EM83, "StandstillReasonsLockedByMES", T.Boolean, False)

    def _status(self, root: Place) -> None:
        machine = self.machine
        place = root.object(EM77, "MachineStatus")
        place.property(EM83, "IsPresent", T.Boolean, True)
        kind = self._types["MachineModeEnumeration"]
        place.live(EM83, "MachineMode", T.Int32, lambda: int(machine.mode), data_type=kind, prop=True)

    def _mes_status(self, place: Place) -> None:
        machine = self.machine
        place.live(EM83, "StandstillReasonId", T.String, lambda: machine.reason, prop=True)
        control = place.object(EM83, "ProductionControl")
        kind = self._types["ProductionStatusEnumeration"]
        control.live(EM83, "ProductionStatus", T.Int32, lambda: int(machine.production), data_type=kind, prop=True)
        control.property(EM83, "ProductionReleasedByMES", T.Boolean, True)
        control.property(EM83, "AutomaticRunEnabled", T.Boolean, True)
        message = place.object(EM83, "StandstillMessage")
        live = message.live
        live(EM83, "Id", T.String, lambda: machine.standstill.id if machine.standstill else "", prop=True)
        live(0, "Message", T.LocalizedText,
             lambda: ua.LocalizedText(machine.standstill.message if machine.standstill else ""), prop=True)  # fmt: skip
        live(0, "Severity", T.UInt16, lambda: machine.standstill.severity if machine.standstill else 0, prop=True)
        live(EM83, "Classification", T.Int32,
             lambda: machine.standstill.classification if machine.standstill else 0, prop=True)  # fmt: skip

    def _power_units(self, place: Place) -> None:
        machine = self.machine
        place.property(0, "NodeVersion", T.String, "1")
        unit = place.object(EM83, "PowerUnit_1")
        unit.property(EM83, "Index", T.UInt32, 1)
        unit.property(EM83, "Id", T.String, "PU-1")
        unit.property(EM83, "IsPresent", T.Boolean, True)
        unit.live(EM83, "PowerOn", T.Boolean, lambda: machine.power_on, prop=True)
        unit.analog(EM83, "ActualTemperature", lambda: machine.oil.measured, CELSIUS, 0.0, 80.0)

    def _zones(self, place: Place, name: str, zones: list[process.Zone], low: float, high: float) -> None:
        place.property(0, "NodeVersion", T.String, "1")
        for number, zone in enumerate(zones, start=1):
            here = place.object(EM83, f"{name}_{number}")
            here.property(EM83, "Index", T.UInt32, number)
            here.property(EM83, "Name", T.String, zone.name)
            here.property(EM83, "IsPresent", T.Boolean, True)
            kind = self._types["ControlModeEnumeration"]
            here.property(EM83, "ControlMode", T.Int32, 2, data_type=kind)
            here.analog(EM83, "ActualTemperature", _measured(zone), CELSIUS, low, high)
            here.analog(EM83, "NominalTemperature", _nominal(zone), CELSIUS, low, high)
            if name.startswith("Barrel"):
                here.property(EM83, "Position", T.UInt32, number)

    def _moulds(self, place: Place) -> None:
        machine = self.machine
        place.property(0, "NodeVersion", T.String, "1")
        mould = place.object(EM83, "Mould_1")
        mould.property(EM83, "Index", T.UInt32, 1)
        mould.live(EM83, "Id", T.String, lambda: machine.job.mould, prop=True)
        mould.live(EM83, "Description", T.String, lambda: machine.job.product, prop=True)
        mould.property(EM83, "IsPresent", T.Boolean, True)
        changing = (process.JobStatus.TEAR_DOWN_ACTIVE, process.JobStatus.SET_UP_ACTIVE)
        mould.live(EM83, "MouldStatus", T.Int32, lambda: 2 if machine.job_status in changing else 3,
                   data_type=self._types["MouldStatusEnumeration"], prop=True)  # fmt: skip
        self._zones(mould.object(EM83, "TemperatureZones"), "MouldTemperatureZone", machine.mould, 0.0, 120.0)

    def _injection_units(self, place: Place) -> None:
        machine = self.machine
        place.property(0, "NodeVersion", T.String, "1")
        unit = place.object(EM77, "InjectionUnit_1")
        unit.property(EM77, "Index", T.UInt32, 1)
        unit.property(EM77, "IsPresent", T.Boolean, True)
        producing = process.ProductionStatus.PRODUCTION
        unit.live(EM77, "InProduction", T.Boolean, lambda: machine.production == producing, prop=True)
        unit.property(EM77, "BarrelId", T.String, "B-40")
        unit.property(EM77, "ScrewId", T.String, "S-40")
        unit.analog(EM77, "ScrewDiameter", lambda: 40.0, MILLIMETRE, 0.0, 200.0)
        unit.analog(EM77, "ScrewVolume", lambda: 226.0, CUBIC_CENTIMETRE, 0.0, 5000.0)
        unit.analog(EM77, "MaxScrewStroke", lambda: 180.0, MILLIMETRE, 0.0, 1000.0)
        self._zones(unit.object(EM77, "TemperatureZones"), "BarrelTemperatureZone", machine.barrel, 0.0, 400.0)

    def _jobs(self, place: Place) -> None:
        machine = self.machine
        job = place.object(EM83, "ActiveJob")
        for name, kind, read in (
            ("JobName", T.String, lambda: machine.job_name),
            ("JobDescription", T.String, lambda: machine.job.description),
            ("CustomerName", T.String, lambda: machine.job.customer),
            ("ProductionDatasetName", T.String, lambda: f"DS-{machine.job.mould}"),
            ("MouldId", T.String, lambda: machine.job.mould),
            ("NumCavities", T.UInt32, lambda: machine.job.cavities),
            ("NominalParts", T.UInt64, lambda: machine.job.parts),
            ("NominalBoxParts", T.UInt64, lambda: machine.job.box),
        ):
            job.live(EM83, name, kind, read, prop=True)
        job.live(EM83, "ProductName", T.String, lambda: [machine.job.product], prop=True, array=True)
        job.live(EM83, "Material", T.String, lambda: [machine.job.material], prop=True, array=True)
        duration = numeric(ua.ObjectIds.Duration)
        job.live(EM83, "ExpectedCycleTime", T.Double, lambda: machine.job.cycle * 1000, data_type=duration, prop=True)
        values = place.object(EM83, "ActiveJobValues")
        status = self._types["JobStatusEnumeration"]
        values.live(EM83, "JobStatus", T.Int32, lambda: int(machine.job_status), data_type=status, prop=True)
        values.live(EM83, "CurrentLotName", T.String, lambda: machine.lot, prop=True)
        values.live(EM83, "BoxId", T.String, lambda: machine.box_id, prop=True)
        for name, read_counter in self._counters().items():
            values.live(EM83, name, T.UInt64, read_counter)
        values.live(EM83, "LastCycleTime", T.Double, lambda: _milliseconds(machine.last_cycle), data_type=duration)
        values.live(EM83, "AverageCycleTime", T.Double, lambda: _milliseconds(machine.average_cycle),
                    data_type=duration)  # fmt: skip
        values.live(EM83, "LastPartId", T.String, lambda: list(machine.part_ids), array=True)

    def _counters(self) -> Mapping[str, Callable[[], int]]:
        machine = self.machine
        return {
            "MachineCycleCounter": lambda: machine.machine_cycles,
            **{name: _attribute(machine, attribute) for name, attribute in COUNTERS.items()},
        }

    # -------------------------------------------------------------------------------------------------------- process

    def advance(self, seconds: float) -> None:
        """Let process seconds go by."""
        self.machine.advance(seconds)

    def events(self) -> list[SimulatedEvent]:
        """What happened since the last call, as events at the root object (OPC 40083 §19: the EventSource)."""
        return [self._event(occurrence) for occurrence in self.machine.drain()]

    def _event(self, occurrence: process.Occurrence) -> SimulatedEvent:
        match occurrence:
            case process.Cycle():
                return self._fire("cycle", "Cycle finished", 100, self._cycle_fields(occurrence))
            case process.StatusChange():
                changed: dict[FieldPath, Any] = {
                    ((EM83, "EventOriginator"),): ua.Variant(1, T.Int32),
                    ((EM83, "NewProductionStatus"),): ua.Variant(int(occurrence.new), T.Int32),
                    ((EM83, "OldProductionStatus"),): ua.Variant(int(occurrence.old), T.Int32),
                }
                return self._fire("status", f"Production status {occurrence.new.name}", 100, changed)
            case process.ReasonEntered():
                entered: dict[FieldPath, Any] = {
                    ((EM83, "EventOriginator"),): ua.Variant(2 if occurrence.reason else 1, T.Int32),
                    ((EM83, "StandstillReasonId"),): ua.Variant(occurrence.reason, T.String),
                }
                english = process.STANDSTILL_REASONS.get(occurrence.reason, ("none", ""))[0]
                return self._fire("reason", f"Standstill reason: {english}", 200, entered)
            case process.AlarmChange():
                return self._alarm(occurrence)

    def _alarm(self, change: process.AlarmChange) -> SimulatedEvent:
        alarm = change.alarm
        condition = ua.NodeId(f"{self.root_name}.Messages.{alarm.id}", VENDOR)
        fields = condition_fields(
            condition, alarm.id, active=change.active, acked=not change.active, severity=alarm.severity
        )
        fields |= {
            ((EM83, "Id"),): ua.Variant(alarm.id, T.String),
            ((EM83, "Classification"),): ua.Variant(alarm.classification, T.Int32),
            ((EM83, "IsStandstillMessage"),): ua.Variant(alarm.standstill, T.Boolean),
        }
        return self._fire("message", alarm.message, alarm.severity, fields, condition, change.active)

    def _fire(self, kind: str, message: str, severity: int, fields: Mapping[FieldPath, Any],
              condition: Any = None, retain: bool = False) -> SimulatedEvent:  # fmt: skip
        event_type = self._types[kind]
        event = self._space.event(event_type, self._root, [self._devices], {}, condition=condition, retain=retain)
        base = base_fields(event.event_id, event_type, self._root.node, self.root_name, self._now(), message, severity)
        event.fields = {**base, **fields}
        return event

    def _cycle_fields(self, cycle: process.Cycle) -> dict[FieldPath, Any]:
        fields: dict[FieldPath, Any] = {
            ((EM83, name),): ua.Variant(getattr(cycle.counters, attribute), T.UInt64)
            for name, attribute in COUNTERS.items()
        }
        for name, value, kind in (
            ("MachineCycleCounter", cycle.machine_cycles, T.UInt64),
            ("JobName", cycle.job, T.String),
            ("JobStatus", int(cycle.status), T.Int32),
            ("CurrentLotName", cycle.lot, T.String),
            ("BoxId", cycle.box, T.String),
            ("CycleTime", _milliseconds(cycle.seconds), T.Double),
            ("AverageCycleTime", _milliseconds(cycle.counters.average), T.Double),
            ("CycleQuality", cycle.quality, T.Int32),
        ):
            fields[((EM83, name),)] = ua.Variant(value, kind)
        fields[((EM83, "CavityCycleQuality"),)] = ua.Variant(list(cycle.cavities), T.Int32, is_array=True)
        fields[((EM83, "PartId"),)] = ua.Variant(list(cycle.part_ids), T.String, is_array=True)
        unit = (EM77, "InjectionUnitCycleParameters_1")
        for name, number in (
            ("InjectionTime", cycle.injection_seconds * 1000),
            ("DosingTime", cycle.dosing_seconds * 1000),
            ("CushionVolume", cycle.cushion),
            ("PlastificationVolume", cycle.plastification),
            ("SpecificPressureMaximum", cycle.pressure),
        ):
            fields[(unit, (EM77, name))] = ua.Variant(number, T.Double)
        fields[(unit, (EM77, "Index"))] = ua.Variant(1, T.UInt32)
        mould = (EM83, "MouldCycleParameters_1")
        fields[(mould, (EM83, "Index"))] = ua.Variant(1, T.UInt32)
        for owner, zone, measured in ((unit, "Barrel", cycle.barrel), (mould, "Mould", cycle.mould)):
            for number, degrees in enumerate(measured, start=1):
                zone_name = f"{zone}TemperatureZoneCycleParameters_{number}"
                path = (owner, (EM83, zone_name), (EM83, "ActualTemperature"))
                fields[path] = ua.Variant(degrees, T.Double)
        return fields


def _milliseconds(seconds: float) -> float:
    """A Duration: a Double in milliseconds, to the millisecond."""
    return float(round(seconds * 1000))


def _measured(zone: process.Zone) -> Callable[[], float]:
    return lambda: zone.measured


def _nominal(zone: process.Zone) -> Callable[[], float]:
    return lambda: zone.nominal


def _attribute(machine: InjectionMachine, name: str) -> Callable[[], int]:
    # the counters are another object after a change of job
    return lambda: int(getattr(machine.counters, name))
