"""A machining centre: programs, tools that wear, parts good and bad, alarms, jobs.

Numbers of states are those of OPC 40501-1 v1.01, so that a server can pass them on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

__all__ = ["Alert", "AlertChange", "MachineTool", "Occurrence", "PartFinished", "ProgramState", "StateChange", "Tool"]

STEP = 0.5
"""Process seconds of one step of the model."""


class ProgramState(IntEnum):
    """State numbers of OPC 40501-1 §8.4.7 (ProductionStateMachineType)."""

    INITIALIZING = 0
    RUNNING = 1
    ENDED = 2
    INTERRUPTED = 3
    ABORTED = 4


class ChannelState(IntEnum):
    """OPC 40501-1 §12.1."""

    ACTIVE = 0
    INTERRUPTED = 1
    RESET = 2


class ChannelMode(IntEnum):
    """OPC 40501-1 §12.2, those that occur here."""

    AUTOMATIC = 0
    MDA_MDI = 1
    JOG_MANUAL = 2


class OperationMode(IntEnum):
    """OPC 40501-1 §12.3 (MachineOperationMode), those that occur here."""

    MANUAL = 0
    AUTOMATIC = 1
    SETUP = 2


@dataclass(frozen=True, slots=True)
class Program:
    """A manufacturing program: one part a run, cut with tools in turn."""

    name: str
    job: str
    planned: int
    tools: tuple[tuple[int, float, int], ...]
    """(tool number, seconds of cutting, spindle speed in 1/min)"""


PROGRAMS = (
    Program("O1201_BRACKET", "Bracket 1201", 20, ((1, 32.0, 6000), (2, 24.0, 8500), (4, 18.0, 12000))),
    Program("O0815_FLANGE", "Flange 0815", 12, ((1, 45.0, 5500), (3, 30.0, 3200), (2, 20.0, 9000))),
    Program("O2210_HOUSING", "Gear housing 2210", 8, ((1, 60.0, 6500), (2, 40.0, 8000), (3, 25.0, 2800), (4, 30.0, 12000))),
)  # fmt: skip
LOADING = 14.0
TOOL_CHANGE = 4.0


@dataclass(slots=True)
class Tool:
    """A cutter and the parts it is still good for."""

    number: int
    name: str
    life: int
    remaining: int
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of the machine that interrupts the program."""

    code: str
    message: str
    severity: int
    seconds: tuple[float, float]


ALERTS = (
    Alert("700112", "Coolant level low", 500, (30.0, 90.0)),
    Alert("27001", "Axis X following error", 800, (60.0, 180.0)),
    Alert("700310", "Chip conveyor overload", 600, (40.0, 120.0)),
    Alert("510204", "Door not locked", 500, (15.0, 45.0)),
)
WORN = Alert("6424", "Tool life expired", 500, (40.0, 80.0))


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert came or went."""

    alert: Alert
    active: bool


@dataclass(frozen=True, slots=True)
class StateChange:
    """The active program changed its state."""

    old: ProgramState
    new: ProgramState
    job: str
    program: str


@dataclass(frozen=True, slots=True)
class PartFinished:
    """A part was finished; ``good`` by the machine's own probing."""

    identifier: str
    good: bool
    job: str
    program: str


Occurrence: TypeAlias = AlertChange | StateChange | PartFinished


@dataclass
class MachineTool:
    """The machine. :meth:`advance` lets time go by, :meth:`drain` tells what happened, the attributes how it stands."""

    seed: int
    time: float = 0.0
    state: ProgramState = ProgramState.INITIALIZING
    channel: ChannelState = ChannelState.RESET
    mode: ChannelMode = ChannelMode.AUTOMATIC
    operation: OperationMode = OperationMode.AUTOMATIC
    warming_up: bool = True
    alert: Alert | None = None
    feed_override: float = 100.0
    rapid_override: float = 100.0
    spindle_override: float = 100.0
    spindle_speed: float = 0.0
    """1/min, measured."""
    spindle_load: float = 0.0
    """% of the rated power."""
    completed: int = 0
    good: int = 0
    lifetime_parts: int = 88_412
    tools: list[Tool] = field(default_factory=list)
    tool: int = 1
    """Number of the tool in the spindle."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._owed = 0.0
        self._occurred: list[Occurrence] = []
        self._index = self.seed % len(PROGRAMS)
        self._job_number = 2300 + self.seed % 50
        self._power_on = 11_240.0 * 3600 + self._random.uniform(0.0, 3500.0)
        names = ("Face mill D63", "End mill D12", "Drill D8.5", "Finisher D6")
        self.tools = [
            Tool(number, name, 120, self._random.randint(15, 110)) for number, name in enumerate(names, start=1)
        ]
        self._then: Callable[[], None] = self._warmed_up
        self._left = 40.0
        self._cut = 0
        self._target_speed = 3000.0

    @property
    def program(self) -> Program:
        """The program that is active."""
        return PROGRAMS[self._index]

    @property
    def job_identifier(self) -> str:
        """Which job it belongs to."""
        return f"WO-{self._job_number:05d}"

    @property
    def power_on_hours(self) -> int:
        """Full hours the machine has been powered in its life."""
        return int(self._power_on // 3600)

    @property
    def rotating(self) -> bool:
        """Whether the spindle turns."""
        return self.spindle_speed > 5.0

    @property
    def light(self) -> str:
        """Colour of the stack light: green running, yellow waiting, red alert."""
        if self.alert is not None:
            return "red"
        return "green" if self.channel is ChannelState.ACTIVE else "yellow"

    def drain(self) -> list[Occurrence]:
        """What happened since the last call, in order."""
        occurred, self._occurred = self._occurred, []
        return occurred

    def advance(self, seconds: float) -> None:
        """Let *seconds* of process time go by."""
        self._owed += seconds
        while self._owed >= STEP:
            self._owed -= STEP
            self._step()

    def _step(self) -> None:
        self.time += STEP
        self._power_on += STEP
        self._turn_spindle()
        cutting = self.channel is ChannelState.ACTIVE
        self._left -= STEP * (self.feed_override / 100.0 if cutting else 1.0)
        if cutting and not self.warming_up and self._random.random() < STEP / 420.0:
            self._interrupt(self._random.choice(ALERTS))
        elif self._left <= 0:
            self._then()

    def _turn_spindle(self) -> None:
        target = self._target_speed * self.spindle_override / 100.0
        self.spindle_speed += (target - self.spindle_speed) * (1 - math.exp(-STEP / 0.8))
        if target == 0.0 and self.spindle_speed < 5.0:
            self.spindle_speed = 0.0
        if not self.rotating:
            self.spindle_load = 0.0
            return
        wear = 1.0 - self.tools[self.tool - 1].remaining / self.tools[self.tool - 1].life
        base = 8.0 if self.warming_up else 34.0 + 18.0 * wear
        self.spindle_load = round(max(0.0, base + self._random.gauss(0.0, 1.5)), 1)

    def _set_state(self, state: ProgramState, channel: ChannelState) -> None:
        if state is not self.state:
            self._occurred.append(StateChange(self.state, state, self.job_identifier, self.program.name))
        self.state, self.channel = state, channel

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._left, self._then = seconds, then

    # ------------------------------------------------------------------------------------------------- one after another

    def _warmed_up(self) -> None:
        self.warming_up = False
        self._target_speed = 0.0
        self._load()

    def _load(self) -> None:
        """Change the part; now and then an operator turns the override knob."""
        self._set_state(ProgramState.INITIALIZING, ChannelState.RESET)
        if self._random.random() < 0.15:
            self.feed_override = float(self._random.choice((80, 90, 100, 100, 110)))
        self._cut = 0
        self._after(LOADING * self._random.uniform(0.8, 1.6), self._change_tool)

    def _change_tool(self) -> None:
        self._set_state(ProgramState.RUNNING, ChannelState.ACTIVE)
        self.tool = self.program.tools[self._cut][0]
        self._target_speed = 0.0
        tool = self.tools[self.tool - 1]
        if tool.remaining <= 0:
            tool.locked = True
            self._interrupt(WORN)
        else:
            self._after(TOOL_CHANGE, self._begin_cut)

    def _begin_cut(self) -> None:
        _, seconds, speed = self.program.tools[self._cut]
        self._target_speed = float(speed)
        self._after(seconds * self._random.uniform(0.98, 1.03), self._end_cut)

    def _end_cut(self) -> None:
        self.tools[self.tool - 1].remaining -= 1
        self._cut += 1
        if self._cut < len(self.program.tools):
            self._change_tool()
            return
        self._target_speed = 0.0
        self.completed += 1
        self.lifetime_parts += 1
        good = self._random.random() > 0.03
        self.good += good
        job, program = self.job_identifier, self.program.name
        self._occurred.append(PartFinished(f"{job}-{self.completed:04d}", good, job, program))
        self._set_state(ProgramState.ENDED, ChannelState.RESET)
        done = self.completed >= self.program.planned
        self._after(2.0, self._set_up if done else self._load)

    def _set_up(self) -> None:
        """The next job: the operator loads its program and sets up."""
        self._index = (self._index + 1) % len(PROGRAMS)
        self._job_number += 1
        self.completed = self.good = 0
        self.operation, self.mode = OperationMode.SETUP, ChannelMode.JOG_MANUAL
        self._after(120.0, self._set_up_done)

    def _set_up_done(self) -> None:
        self.operation, self.mode = OperationMode.AUTOMATIC, ChannelMode.AUTOMATIC
        self._load()

    def _interrupt(self, alert: Alert) -> None:
        self.alert = alert
        self._occurred.append(AlertChange(alert, True))
        resume, left, speed = self._then, self._left, self._target_speed
        self._set_state(ProgramState.INTERRUPTED, ChannelState.INTERRUPTED)
        self._target_speed = 0.0

        def clear() -> None:
            self.alert = None
            self._occurred.append(AlertChange(alert, False))
            if alert is WORN:
                tool = self.tools[self.tool - 1]
                tool.remaining, tool.locked = tool.life, False
                self._change_tool()
                return
            self._set_state(ProgramState.RUNNING, ChannelState.ACTIVE)
            self._target_speed = speed
            self._after(left, resume)

        self._after(self._random.uniform(*alert.seconds), clear)
