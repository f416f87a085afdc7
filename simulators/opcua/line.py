"""plc-01: the PLC of an assembly line, as an S7-1500 shows its data blocks.

What is like an S7-1500: the namespace, the structure ``PLC / DataBlocksGlobal / DB_…``, quoted names as NodeIds
(``"DB_Line"."Placed"``), S7 types mapped to OPC UA types, read-only diagnostics, no history. Ten operations a call is
this simulator's choice: real limits depend on CPU and firmware and are read from OperationLimits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncua import ua

from simulators.opcua._device import ServerInfo
from simulators.opcua._events import SimulatedEvent
from simulators.opcua._session import OperationLimits
from simulators.opcua._space import Place, numeric
from simulators.process.line import AssemblyLine, LineState

__all__ = ["INFO", "LineModel"]

SIEMENS = 2
PER_CALL = 10
INFO = ServerInfo(
    name="SIMATIC.S7-1500.OPC-UA.Application:PLC_1",
    product_uri="urn:guantong:simulators:s7-1500",
    manufacturer="GUANTONG (simulated)",
    product="Line PLC in the manner of an S7-1500",
    software="1.0",
    namespaces=("http://www.siemens.com/simatic-s7-opcua",),
    limits=OperationLimits(
        read=PER_CALL, browse=PER_CALL, translate=PER_CALL, register=PER_CALL, write=PER_CALL, call=PER_CALL,
        monitored_items=PER_CALL, history=False,
    ),
    min_publishing=200.0,
)  # fmt: skip
T = ua.VariantType


class LineModel:
    """The line and its address space; see :class:`simulators.opcua._device.Model`."""

    def __init__(self, seed: int) -> None:
        self.line = AssemblyLine(seed)

    def build(self, objects: Place) -> None:
        """Build ``PLC_1/DataBlocksGlobal/DB_Line`` and ``DB_Order``."""
        space = objects.space
        plc = objects.object(SIEMENS, "PLC_1", node=ua.NodeId("PLC", SIEMENS), organizes=True)
        # paths begin at the data blocks, as people name tags
        blocks = plc.object(SIEMENS, "DataBlocksGlobal", node=ua.NodeId("DataBlocksGlobal", SIEMENS))
        self._blocks = Place(space, blocks.node, "")
        states = {int(state): state.name for state in LineState}
        kind = space.enumeration(SIEMENS, 3001, "LineState", states)
        self._line(kind)
        self._order()

    def _line(self, state: Any) -> None:
        line = self.line
        block = self._block("DB_Line")
        self._tag(block, "State", T.Int32, lambda: int(line.state), data_type=state)
        self._tag(block, "Running", T.Boolean, lambda: line.running)
        self._tag(block, "Placed", T.UInt32, lambda: line.placed)
        self._tag(block, "Rejected", T.UInt32, lambda: line.rejected)
        self._tag(block, "CycleTime", T.Float, lambda: line.takt)
        self._tag(block, "CycleTimeAvg", T.Double, lambda: line.average)
        self._tag(block, "ConveyorSpeed", T.Float, lambda: line.speed, slow=True)
        self._tag(block, "DriveCurrent", T.Float, lambda: line.current, slow=True)
        self._tag(block, "CabinetTemp", T.Int16, lambda: line.cabinet, slow=True)
        self._tag(block, "EnergyWh", T.Int64, lambda: line.energy, slow=True)
        self._tag(block, "Runtime", T.UInt64, lambda: line.runtime, slow=True)
        self._tag(block, "FaultCode", T.UInt16, lambda: line.fault_code)
        self._tag(block, "StationTime", T.Float, lambda: list(line.station_times), array=True)
        self._tag(block, "StationFault", T.Boolean, lambda: list(line.station_faults), array=True)
        self._tag(block, "FeederLeft", T.Int16, lambda: list(line.feeder), array=True)
        feeder = block.object(SIEMENS, "Feeder", node=_name("DB_Line", "Feeder"))
        self._tag(feeder, "Empty", T.Boolean, lambda: 0 in line.feeder, parent=("DB_Line", "Feeder"))
        self._tag(feeder, "Lowest", T.Int16, lambda: min(line.feeder), parent=("DB_Line", "Feeder"))

    def _order(self) -> None:
        line = self.line
        block = self._block("DB_Order")
        self._tag(block, "Number", T.String, lambda: line.order.number, parent=("DB_Order",))
        self._tag(block, "Program", T.String, lambda: line.order.program, parent=("DB_Order",))
        self._tag(block, "Planned", T.UInt32, lambda: line.order.planned, parent=("DB_Order",))
        self._tag(block, "Done", T.UInt32, lambda: line.order_placed, parent=("DB_Order",))
        self._tag(block, "TaktTarget", T.Float, lambda: line.order.takt, parent=("DB_Order",))
        self._tag(block, "Shift", T.Byte, lambda: line.shift, parent=("DB_Order",))
        self._tag(block, "Operator", T.String, lambda: f"班组{line.shift}", parent=("DB_Order",))

    def _block(self, name: str) -> Place:
        return self._blocks.object(SIEMENS, name, numeric(ua.ObjectIds.BaseObjectType), node=_name(name))

    def _tag(self, place: Place, name: str, kind: Any, read: Callable[[], Any], *, data_type: Any = None,
             array: bool = False, slow: bool = False, parent: tuple[str, ...] = ("DB_Line",)) -> None:  # fmt: skip
        node = _name(*parent, name)
        place.live(SIEMENS, name, kind, read, data_type=data_type, array=array, slow=slow, node=node)

    def advance(self, seconds: float) -> None:
        """Let process seconds go by."""
        self.line.advance(seconds)

    def events(self) -> list[SimulatedEvent]:
        """None: this PLC shows its faults as tags only."""
        return []


def _name(*parts: str) -> Any:
    """NodeId of a tag: each part in quotation marks, joined by dots."""
    return ua.NodeId(".".join(f'"{part}"' for part in parts), SIEMENS)
