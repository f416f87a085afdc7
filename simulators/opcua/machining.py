"""mt-01: a machine tool that speaks OPC 40501-1 v1.01 (umati), with the building blocks of OPC 40001-1.

Names, types and numeric ids are those of that version's nodeset. Left out: prognoses, lists of parts, methods. That
PowerOnDuration counts full hours is not verified in the text of v1.01. The BrowseName of the machine below ``Machines``
belongs to the server; here it lies in the server's own namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncua import ua

from simulators.opcua._conditions import condition_fields
from simulators.opcua._device import ServerInfo
from simulators.opcua._events import FieldPath, SimulatedEvent, base_fields
from simulators.opcua._space import Place, Space, Unit, numeric
from simulators.process import machining as process
from simulators.process.machining import MachineTool, ProgramState

__all__ = ["INFO", "MachiningModel"]

DI, IA, MACHINERY, MT, VENDOR = 2, 3, 4, 5, 6
INFO = ServerInfo(
    name="Guantong machine tool simulator",
    product_uri="urn:guantong:simulators:machinetool",
    manufacturer="GUANTONG",
    product="Machine tool simulator",
    software="1.0",
    namespaces=(
        "http://opcfoundation.org/UA/DI/",
        "http://opcfoundation.org/UA/IA/",
        "http://opcfoundation.org/UA/Machinery/",
        "http://opcfoundation.org/UA/MachineTool/",
        "http://guantong.example/machinetool/",
    ),
)
PERCENT = Unit("P1", "%", "percent")
RPM = Unit("RPM", "r/min", "revolutions per minute")
ONE = Unit("C62", "1", "one")
STATE_TEXTS = {
    ProgramState.INITIALIZING: "Initializing",
    ProgramState.RUNNING: "Running",
    ProgramState.ENDED: "Ended",
    ProgramState.INTERRUPTED: "Interrupted",
    ProgramState.ABORTED: "Aborted",
}
# NodeIds of the state objects of ProductionProgramStateMachineType's supertype ProductionStateMachineType
STATE_NODES = {0: 135, 1: 138, 2: 140, 3: 139, 4: 141}
COLOURS = {"red": 1, "green": 2, "yellow": 4}
T = ua.VariantType


class MachiningModel:
    """The machine and its address space; see :class:`simulators.opcua._device.Model`."""

    def __init__(self, seed: int, serial: str = "2026-001") -> None:
        self.machine = MachineTool(seed)
        self.serial = serial
        self._now: Callable[[], Any]
        self._space: Space
        self._root: Place
        self._machines: Place
        self._messages: Place
        self._active: Place
        self._types: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------- address space

    def build(self, objects: Place) -> None:
        """Build ``Machines/GT-MC850_…``."""
        self._space = objects.space
        self._now = objects.space.server.iserver.clock.now
        self._build_types()
        machines = objects.object(MACHINERY, "Machines", node=numeric(1001, MACHINERY), organizes=True, notifier=True)
        self._machines = Place(self._space, machines.node, "")
        name = f"GT-MC850_{self.serial}"
        machine = self._machines.object(1, name, self._types["machine"], notifier=True, node=ua.NodeId(name, VENDOR))
        self._root = Place(self._space, machine.node, "")
        self._name = name
        self._identification(self._root.object(DI, "Identification"))
        self._monitoring(self._root.object(MT, "Monitoring"))
        production = self._root.object(MT, "Production", notifier=True)
        self._production(production)
        notification = self._root.object(MT, "Notification", notifier=True)
        self._messages = notification.object(MT, "Messages", notifier=True)
        self._equipment(self._root.object(MT, "Equipment"))

    def _build_types(self) -> None:
        space, ids, types = self._space, ua.ObjectIds, self._types
        types["machine"] = space.object_type(MT, 13, "MachineToolType", numeric(ids.BaseObjectType))
        for identifier, name, members in (
            (64, "ChannelState", {0: "Active", 1: "Interrupted", 2: "Reset"}),
            (67, "ChannelMode", {0: "Automatic", 1: "MdaMdi", 2: "JogManual", 3: "JogIncrement", 4: "TeachingHandle",
                                 5: "Remote", 6: "Reference", 7: "Other"}),
            (65, "MachineOperationMode", {0: "Manual", 1: "Automatic", 2: "Setup", 3: "AutoWithManualIntervention",
                                          4: "Service", 5: "Other"}),
            (63, "PartQuality", {0: "CapabilityUnavailable", 1: "Good", 2: "Bad", 3: "NotYetMeasured",
                                 4: "WillNotBeMeasured"}),
            (69, "ToolManagement", {0: "NumberBased", 1: "GroupBased", 2: "Other"}),
            (68, "ToolLifeIndication", {0: "Time", 1: "NumberOfParts", 2: "NumberOfUsages", 3: "Feed_Distance",
                                        4: "Cutting_Distance", 5: "Length", 6: "Diameter", 7: "Other"}),
        ):  # fmt: skip
            types[name] = space.enumeration(MT, identifier, name, members)
        colours = {0: "Off", 1: "Red", 2: "Green", 3: "Blue", 4: "Yellow", 5: "Purple", 6: "Cyan", 7: "White"}
        types["SignalColor"] = space.enumeration(IA, 3004, "SignalColor", colours)
        types["alert"] = space.event_type(
            MT, 39, "AlertType", numeric(ids.AlarmConditionType), [(MT, "ErrorCode", T.String)]
        )
        transition = numeric(ids.TransitionEventType)
        program = space.event_type(
            MT, 17, "ProductionProgramTransitionEventType", transition,
            [(MT, "JobIdentifier", T.String), (MT, "Name", T.String)], abstract=True,
        )  # fmt: skip
        part = space.event_type(
            MT, 27, "ProductionPartTransitionEventType", transition,
            [(MT, "JobIdentifier", T.String), (MT, "Name", T.String), (MT, "Identifier", T.String),
             (MT, "PartQuality", T.Int32)], abstract=True,
        )  # fmt: skip
        types["program"] = space.event_type(VENDOR, 1001, "GuantongProgramTransitionEventType", program)
        types["part"] = space.event_type(VENDOR, 1002, "GuantongPartTransitionEventType", part)

    def _identification(self, place: Place) -> None:
        place.property(DI, "Manufacturer", T.LocalizedText, ua.LocalizedText("GUANTONG"))
        place.property(DI, "Model", T.LocalizedText, ua.LocalizedText("GT-MC850"))
        place.property(DI, "SerialNumber", T.String, self.serial)
        place.property(DI, "ProductInstanceUri", T.String, f"http://guantong.example/machinetool/{self.serial}")
        place.property(MACHINERY, "YearOfConstruction", T.UInt16, 2026)
        place.property(MACHINERY, "Location", T.String, "Hall 2")

    def _analog(self, place: Place, namespace: int, name: str, read: Callable[[], float], unit: Unit,
                high: float) -> None:  # fmt: skip
        kind = ua.ObjectIds.AnalogUnitRangeType
        place.analog(namespace, name, read, unit, 0.0, high, type_definition=kind)

    def _monitoring(self, place: Place) -> None:
        machine, types = self.machine, self._types
        whole = place.object(MT, "MachineTool")
        whole.live(
            MT, "OperationMode", T.Int32, lambda: int(machine.operation), data_type=types["MachineOperationMode"]
        )
        whole.live(MT, "IsWarmUp", T.Boolean, lambda: machine.warming_up)
        whole.live(MT, "PowerOnDuration", T.UInt32, lambda: machine.power_on_hours)
        self._analog(whole, MT, "FeedOverride", lambda: machine.feed_override, PERCENT, 200.0)
        channel = place.object(MT, "Channel")
        channel.property(MT, "Name", T.String, "Channel 1")
        channel.live(MT, "ChannelState", T.Int32, lambda: int(machine.channel), data_type=types["ChannelState"])
        channel.live(MT, "ChannelMode", T.Int32, lambda: int(machine.mode), data_type=types["ChannelMode"])
        self._analog(channel, MT, "FeedOverride", lambda: machine.feed_override, PERCENT, 200.0)
        self._analog(channel, MT, "RapidOverride", lambda: machine.rapid_override, PERCENT, 100.0)
        spindle = place.object(MT, "Spindle")
        spindle.property(MT, "Name", T.String, "Main spindle")
        spindle.live(MT, "IsRotating", T.Boolean, lambda: machine.rotating)
        self._analog(spindle, MT, "Override", lambda: machine.spindle_override, PERCENT, 200.0)
        # v1.01 has no speed and load; builders add them in their own namespace
        self._analog(spindle, VENDOR, "ActualSpeed", lambda: float(round(machine.spindle_speed)), RPM, 15000.0)
        self._analog(spindle, VENDOR, "Load", lambda: machine.spindle_load, PERCENT, 150.0)
        light = place.object(MT, "Stacklight")
        light.property(IA, "StacklightMode", T.Int32, 0)
        for number, colour in enumerate(("red", "yellow", "green")):
            element = light.object(VENDOR, f"Element_{number}")
            element.property(0, "NumberInList", T.UInt16, number)
            element.variable(IA, "SignalColor", T.Int32, COLOURS[colour], data_type=types["SignalColor"])
            element.live(IA, "SignalOn", T.Boolean, _equals(lambda: machine.light, colour), prop=True)

    def _state(self, place: Place, read: Callable[[], ProgramState]) -> None:
        """A state machine: CurrentState with Id and Number (OPC 10000-16 §4.4.5)."""
        state = place.object(MT, "State")
        current = state.live(0, "CurrentState", T.LocalizedText, lambda: ua.LocalizedText(STATE_TEXTS[read()], "en"))
        here = Place(self._space, current.node, current.path)
        here.live(0, "Id", T.NodeId, lambda: numeric(STATE_NODES[read()], MT), prop=True)
        here.live(0, "Number", T.UInt32, lambda: int(read()), prop=True)

    def _production(self, place: Place) -> None:
        machine = self.machine
        self._active = active = place.object(MT, "ActiveProgram", notifier=True)
        active.live(MT, "Name", T.String, lambda: machine.program.name, prop=True)
        active.property(0, "NumberInList", T.UInt16, 0)
        active.live(MT, "JobIdentifier", T.String, lambda: machine.job_identifier)
        self._state(active, lambda: machine.state)
        statistics = place.object(MT, "Statistics")
        statistics.live(MT, "PartsProducedInLifetime", T.UInt32, lambda: machine.lifetime_parts)
        job = place.object(MT, "ProductionPlan").object(VENDOR, "Job_1")
        job.live(MT, "Identifier", T.String, lambda: machine.job_identifier, prop=True)
        job.property(0, "NumberInList", T.UInt16, 0)
        runs = job.live(MT, "RunsPlanned", T.UInt32, lambda: machine.program.planned)
        Place(self._space, runs.node, runs.path).property(MT, "IsValid", T.Boolean, True)
        job.live(MT, "RunsCompleted", T.UInt32, lambda: machine.completed)
        job.live(MT, "PartsCompleted", T.UInt32, lambda: machine.completed)
        job.live(MT, "PartsGood", T.UInt32, lambda: machine.good)
        parts = job.object(MT, "PartSets").object(VENDOR, "PartSet_1")
        parts.live(MT, "Name", T.String, lambda: machine.program.job, prop=True)
        parts.property(MT, "ContainsMixedParts", T.Boolean, False)
        parts.property(MT, "PartsPlannedPerRun", T.UInt32, 1)
        finished = (ProgramState.ENDED,)
        parts.live(MT, "PartsCompletedPerRun", T.UInt32, lambda: int(machine.state in finished))

    def _equipment(self, place: Place) -> None:
        tools = place.object(MT, "Tools")
        for tool in self.machine.tools:
            here = tools.object(VENDOR, f"Tool_{tool.number}")
            here.property(MT, "Name", T.String, tool.name)
            here.variable(MT, "ControlIdentifier1", T.UInt32, tool.number)
            kind = self._types["ToolManagement"]
            here.variable(MT, "ControlIdentifierInterpretation", T.Int32, 0, data_type=kind)
            here.live(MT, "Locked", T.Boolean, _attribute(tool, "locked"))
            life = here.object(MT, "ToolLife").live(VENDOR, "Parts", T.Int32, _attribute(tool, "remaining"))
            about = Place(self._space, life.node, life.path)
            about.property(MT, "EngineeringUnits", T.ExtensionObject, ONE.information())
            about.property(MT, "Indication", T.Int32, 1, data_type=self._types["ToolLifeIndication"])
            about.property(MT, "IsCountingUp", T.Boolean, False)
            about.property(MT, "StartValue", T.Int32, tool.life)

    # -------------------------------------------------------------------------------------------------------- process

    def advance(self, seconds: float) -> None:
        """Let process seconds go by."""
        self.machine.advance(seconds)

    def events(self) -> list[SimulatedEvent]:
        """What happened since the last call: alerts at Messages, transitions at ActiveProgram."""
        return [self._event(occurrence) for occurrence in self.machine.drain()]

    def _event(self, occurrence: process.Occurrence) -> SimulatedEvent:
        match occurrence:
            case process.AlertChange():
                return self._alert(occurrence)
            case process.StateChange():
                old, new = STATE_TEXTS[occurrence.old], STATE_TEXTS[occurrence.new]
                fields = _transition_fields(old, new, occurrence.job, occurrence.program)
                return self._fire("program", self._active, "ActiveProgram", f"Program {new.lower()}", 100, fields)
            case process.PartFinished():
                fields = _transition_fields("Running", "Ended", occurrence.job, occurrence.program)
                fields[((MT, "Identifier"),)] = ua.Variant(occurrence.identifier, T.String)
                fields[((MT, "PartQuality"),)] = ua.Variant(1 if occurrence.good else 2, T.Int32)
                quality = "good" if occurrence.good else "bad"
                return self._fire("part", self._active, "ActiveProgram", f"Part finished: {quality}", 100, fields)

    def _alert(self, change: process.AlertChange) -> SimulatedEvent:
        alert = change.alert
        condition = ua.NodeId(f"Notification.Messages.{alert.code}", VENDOR)
        fields = condition_fields(
            condition, alert.code, active=change.active, acked=not change.active, severity=alert.severity
        )
        fields[((MT, "ErrorCode"),)] = ua.Variant(alert.code, T.String)
        return self._fire(
            "alert", self._messages, "Messages", alert.message, alert.severity, fields, condition, change.active
        )

    def _fire(self, kind: str, source: Place, name: str, message: str, severity: int, fields: Mapping[FieldPath, Any],
              condition: Any = None, retain: bool = False) -> SimulatedEvent:  # fmt: skip
        event_type = self._types[kind]
        above = [self._root, self._machines]
        event = self._space.event(event_type, source, above, {}, condition=condition, retain=retain)
        base = base_fields(event.event_id, event_type, source.node, name, self._now(), message, severity)
        event.fields = {**base, **fields}
        return event


def _equals(read: Callable[[], str], wanted: str) -> Callable[[], bool]:
    return lambda: read() == wanted


def _attribute(thing: object, name: str) -> Callable[[], Any]:
    return lambda: getattr(thing, name)


def _transition_fields(old: str, new: str, job: str, program: str) -> dict[FieldPath, Any]:
    """What a TransitionEventType has (OPC 10000-16 §4.4.16), and what OPC 40501-1 adds."""
    named = (("FromState", old), ("ToState", new), ("Transition", f"{old}To{new}"))
    fields: dict[FieldPath, Any] = {
        ((0, name),): ua.Variant(ua.LocalizedText(text, "en"), T.LocalizedText) for name, text in named
    }
    fields[((MT, "JobIdentifier"),)] = ua.Variant(job, T.String)
    fields[((MT, "Name"),)] = ua.Variant(program, T.String)
    return fields
