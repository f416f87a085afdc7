"""What is known of one device: its points, the reads that fetch them, and what it has taught about its registers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.contract import DeviceSpec
from adapters.modbus._codec import Request
from adapters.modbus._decode import Decoder, check_address, compile_decoder
from adapters.modbus._errors import bad_model
from adapters.modbus._isolate import BadSpan, Cut, Defect, Limit, Probe
from adapters.modbus._plan import Problem, Read, Value, plan, together
from adapters.modbus._scaling import UNREAD, Factor, Source, constant, times, trouble
from adapters.modbus._select import SelectRequest, not_permitted
from adapters.modbus._settings import ModbusDeviceSettings
from adapters.modbus.identification import Identification
from schemas.bilingual import Bilingual, chinese
from schemas.modbus import REGISTERS, Select
from schemas.profile import Group, ModbusAddress, ModbusRules

FUNCTIONS = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""Function codes of the reads (V1.1b3 §6.1 to §6.4)."""
BITS = frozenset({"coil", "discrete"})

PROBE_FIRST = 30.0
"""Seconds until a refused address is tried again; doubled each time."""
PROBE_MOST = 900.0
_NEWEST = 0.125
"""Weight of the newest scan in what a scan is reckoned to cost."""


@dataclass(slots=True)
class Block:
    """One read as it is sent again and again."""

    table: str
    read: Read
    request: Request
    decoder: Decoder
    points: tuple[int, ...]
    """The points of its values that somebody has asked for: those of the decoder without what only factors need."""
    scaled: bool = False
    """Some of its values are factors, or are multiplied by one."""
    last: tuple[bytes, Answered] | None = field(default=None, repr=False, compare=False)
    """The data bytes of its last response and what they said, where that depends on nothing else."""


@dataclass(slots=True)
class Answered:
    """A block's values. `told`: what a person should know of some points."""

    points: Sequence[int]
    values: Sequence[Any]
    status: Sequence[int] | None
    told: dict[int, str]


@dataclass(slots=True)
class Hunt:
    """The search for what is wrong with a refused block."""

    block: Block
    code: int
    steps: Generator[Probe, int, Defect | None]
    request: Request


@dataclass(slots=True)
class Scan:
    """The points of a group, read once a period on a fixed grid of monotonic seconds."""

    group: str
    period: float
    values: dict[str, list[Value]]
    """Table -> values, without those in quarantine."""
    due: float = math.inf
    """The grid's slot that is under way or next."""
    blocks: list[Block] = field(default_factory=list)
    pending: deque[Block] = field(default_factory=deque)
    """What is left of the scan under way, empty between scans."""
    hunt: Hunt | None = None
    vain: int = 0
    """Hunts in this slot that found nothing."""
    waits: int = 0
    """How often in a row the device has said that it is busy."""
    phase: float | None = None
    """Where the grid stands on the clock: slots begin so many seconds after the multiples of the period since 1970. None: at the connect."""
    spent: float = 0.0
    """Seconds for which the scan under way has taken the wire."""
    cost: float = 0.0
    """Seconds for which a whole scan takes the wire, smoothed; 0 before the first."""
    complete_to: int | None = None
    """When its last complete scan was answered, in µs."""
    unanswered: int = 0
    """Requests of it that were not answered in time since the unit answered last: what came for them later, or never, is lost."""

    def points(self) -> list[int]:
        """Its points; what only serves others is none."""
        return [value.point for values in self.values.values() for value in values if value.point >= 0]

    def request(self) -> Request:
        """What to ask next for this scan, which begins if it is not under way. Only for a scan with blocks."""
        if self.hunt is not None:
            return self.hunt.request
        if not self.pending:
            self.pending.extend(self.blocks)
            self.vain = 0
        return self.pending[0].request

    def restart(self) -> None:
        """Gives up the scan under way; the next one begins with the block that was not answered, which alone a late answer fits."""
        self.hunt = None
        self.waits = 0
        self.spent = 0.0
        if self.pending:
            first = self.pending[0]
            where = [(block.table, block.read.start) for block in self.blocks]
            key = (first.table, first.read.start)
            at = where.index(key) if key in where else 0
            self.pending = deque(self.blocks[at:] + self.blocks[:at])

    def reset(self, now: float, clock: int) -> None:
        """Begins anew, at once: with the slot of the grid that is under way, if the grid stands on the clock (`clock`: UTC, in µs)."""
        self.hunt = None
        self.waits = 0
        self.spent = 0.0
        self.pending.clear()
        begun = 0.0 if self.phase is None else (clock / 1e6 - self.phase) % self.period
        self.due = now - begun if self.blocks else math.inf

    def reckon(self) -> None:
        """The scan is complete: what it has taken counts for what the next ones will."""
        self.cost = self.spent if not self.cost else self.cost + (self.spent - self.cost) * _NEWEST
        self.spent = 0.0

    def advance(self, now: float) -> int:
        """The scan is complete: on to the next slot. Returns how many slots have passed without a scan."""
        self.due += self.period
        return self.skip(now)

    def skip(self, now: float) -> int:
        """Leaves slots behind that are over; the one that has begun last is still served. Returns how many."""
        missed = self.over(now)
        if missed:
            self.due += missed * self.period
        return missed

    def over(self, now: float) -> int:
        """How many slots are over that have not been served; 0 for a scan that is never due."""
        return math.floor((now - self.due) / self.period) if now > self.due else 0


@dataclass(slots=True)
class Refused:
    """A span that the device refuses on its own: in quarantine, and tried again ever more seldom."""

    table: str
    span: tuple[int, int]
    values: list[tuple[str, Value]]
    """(group, value)."""
    code: int
    request: Request
    due: float
    delay: float = PROBE_FIRST
    recalled: bool = False
    """Known from before a restart: it is not tried first of all when the next session begins."""


class Device:
    """One device of the link. Raises ConfigError when its models are not those of this adapter.

    `writes`: whether selectors may be written; `alone`: whether it has the connection to itself, and frames that tell their length. `unreadable` are the points that are never asked for, each with what is wrong with its configuration.
    """

    def __init__(self, spec: DeviceSpec, *, writes: bool = False, alone: bool = False) -> None:
        if not isinstance(spec.settings, ModbusDeviceSettings):
            raise bad_model(f"device {spec.id}: settings", spec.settings, ModbusDeviceSettings)
        if not isinstance(spec.rules, ModbusRules):
            raise bad_model(f"device {spec.id}: rules", spec.rules, ModbusRules)
        self.id = spec.id
        self.unit = spec.settings.unit
        self.rules = spec.rules
        self.addresses: dict[int, ModbusAddress] = {}
        self.groups: dict[int, str] = {}
        self.unreadable: dict[int, str] = {}
        self.troubles: dict[int, str] = {}
        """Points that the device answers with exceptions, and what it says."""
        self.refused: dict[tuple[str, tuple[int, int]], Refused] = {}
        self.factors: dict[int, Source] = {}
        """What the factors' registers held last, by point; those that are read for nothing else have negative ones."""
        self._scaling: dict[int, Factor] = {}
        self._sources: dict[int, ModbusAddress] = {}
        self._selects: dict[str, Select] = {}
        self._whole: dict[int, Value] = {}
        """The values of atomic groups."""
        asked = spec.rules.identification
        self.identification = Identification(alone if asked is None else asked)
        self.taught_at = 0
        """When it taught a border or a largest read last, in µs; 0: never."""
        self._limits: dict[str, int] = {}
        self._cuts: dict[str, set[int]] = {}
        values: dict[str, dict[str, list[Value]]] = {}
        for point in spec.points:
            address = point.address
            if not isinstance(address, ModbusAddress):
                raise bad_model(f"device {spec.id}, signal {point.signal}: address", address, ModbusAddress)
            self.addresses[point.id] = address
            self.groups[point.id] = point.group
        named = {point.signal: point.id for point in spec.points}
        for point in spec.points:
            address = self.addresses[point.id]
            problem = check_address(address) or self._scale(point.id, address, named)
            if problem is None and address.select is not None:
                problem = None if writes else not_permitted(address.select)
                self._selects[address.place] = address.select
            if problem is not None:
                self.unreadable[point.id] = problem
                continue
            tables = values.setdefault(point.group, {})
            tables.setdefault(address.place, []).append(self.value(point.id))
            factor = self._scaling.get(point.id)
            if factor is not None and factor.source is not None and factor.source < 0:
                source = self.value(factor.source)
                beside = tables.setdefault(self._sources[factor.source].table, [])
                if source not in beside:
                    beside.append(source)
        for tables in values.values():
            for table in tables:
                tables[table] = self._atomic(tables[table])
                _, problems = self.plan(table, tables[table])
                self.unreadable.update((problem.point, problem.text) for problem in problems)
        for point_id, factor in self._scaling.items():
            if factor.source in self.unreadable:
                why = self.unreadable[factor.source]
                self.unreadable[point_id] = Bilingual(f"scale_by: {why}", f"scale_by：{chinese(why)}")
        self.unreadable = {point_id: why for point_id, why in self.unreadable.items() if point_id >= 0}
        for tables in values.values():
            for table in tables:
                tables[table] = [value for value in tables[table] if value.point not in self.unreadable]
        self.scans = {
            group: Scan(group, spec.groups.get(group, 1.0), tables, phase=spec.options.get(group, Group()).phase)
            for group, tables in values.items()
        }
        self.replan()

    def value(self, point: int) -> Value:
        """Where the value of a point, or of a factor, lies."""
        if point in self._whole:
            return self._whole[point]
        address = self.addresses[point] if point >= 0 else self._sources[point]
        return Value(address.wire, address.registers, point)

    def _atomic(self, values: list[Value]) -> list[Value]:
        """The values of a scan group in one table, those of each atomic group tied together, with the factors that lie beside them."""
        groups: dict[str, list[Value]] = {}
        for value in values:
            name = self.addresses[value.point].atomic if value.point >= 0 else None
            if name is not None:
                group = groups.setdefault(name, [])
                source = self.source(value.point)
                beside = [other for other in values if other.point == source and other not in group]
                group += [other for other in (value, *beside) if other not in group]
        for group in groups.values():
            self._whole.update((value.point, value) for value in together(group))
        return [self._whole.get(value.point, value) for value in values] if groups else values

    def source(self, point: int) -> int | None:
        """The point of the registers whose value multiplies those of `point`, if there are such."""
        factor = self._scaling.get(point)
        return factor.source if factor is not None else None

    def table(self, point: int) -> str:
        """The table in which the value of a point, or of a factor, lies, with what is selected."""
        return (self.addresses[point] if point >= 0 else self._sources[point]).place

    def _scale(self, point: int, address: ModbusAddress, named: dict[str, int]) -> str | None:
        """Takes note of what the values of a point are multiplied by; what is wrong with that, else None."""
        by = address.scale_by
        fixed = constant(address, self.rules.ratios)
        if isinstance(fixed, str):
            return fixed
        if by is None:
            if fixed != 1:
                self._scaling[point] = Factor(fixed)
            return None
        if by.signal is None:
            place = ModbusAddress(table=by.table, address=by.address, type=by.type, order=by.order)
            source = next((known for known, where in self._sources.items() if known < 0 and where == place), None)
            source = source or -1 - sum(known < 0 for known in self._sources)
        else:
            if by.signal not in named:
                return Bilingual(
                    f"scale_by: this device has no signal {by.signal!r}", f"scale_by：该设备没有信号 {by.signal!r}"
                )
            source = named[by.signal]
            place = self.addresses[source]
            if place.type not in REGISTERS or place.table in BITS or place.fields or place.count or source == point:
                return Bilingual(
                    f"scale_by: the signal {by.signal!r} holds no number that could be a factor",
                    f"scale_by：信号 {by.signal!r} 不是可作系数的数值",
                )
        self._sources[source] = place
        self._scaling[point] = Factor(fixed * by.scale, source, by.exponent)
        return None

    def decoded(self, block: Block, data: bytes) -> Answered:
        """What a block's response says; factors that are among it are used at once, and kept for other blocks."""
        if block.last is not None and block.last[0] == data:
            return block.last[1]
        values, status = block.decoder.decode(data)
        if not block.scaled:
            got = Answered(block.points, values, status, block.decoder.told)
            block.last = (data, got)
            return got
        rows = list(zip(block.decoder.points, values, status or (0,) * len(values), strict=True))
        for point, value, code in rows:
            if point in self._sources:
                self.factors[point] = (value, code)
        told = dict(block.decoder.told)
        shown = [(point, *self._multiplied(point, value, code, told)) for point, value, code in rows if point >= 0]
        codes = [code for _, _, code in shown]
        return Answered(block.points, [value for _, value, _ in shown], codes if any(codes) else None, told)

    def _multiplied(self, point: int, value: Any, code: int, told: dict[int, str]) -> tuple[Any, int]:
        factor = self._scaling.get(point)
        if factor is None or code & 0x80000000:
            return value, code
        if factor.source is None:
            return times(value, factor.constant), code
        source = self.factors.get(factor.source, UNREAD)
        number, problem = factor.of(source)
        if not problem:
            return times(value, number), code
        by = self.addresses[point].scale_by
        if by is not None and source is not UNREAD:
            told[point] = trouble(by, source, problem)
        return value, problem

    def plan(self, table: str, values: Iterable[Value]) -> tuple[list[Read], list[Problem]]:
        """The reads of these values, by the rules and by what the device has taught."""
        rules = self.rules
        # a refused span is not read along either: no read goes on behind it
        beyond = {start + size for own, (start, size) in self.refused if own == table}
        return plan(
            values,
            limit=rules.max_bits if table in BITS else rules.max_registers,
            max_gap=rules.max_gap,
            holes=rules.holes,
            cuts=sorted(beyond | self._cuts.get(table, set())),
            learned=self._limits.get(table),
        )

    def blocks(self, tables: dict[str, list[Value]]) -> list[Block]:
        """The values' reads, ready to be sent and decoded."""
        made: list[Block] = []
        addresses = {**self.addresses, **self._sources} if self._sources else self.addresses
        for table, values in tables.items():
            for read in self.plan(table, values)[0]:
                decoder = compile_decoder(read, addresses, bits=table in BITS)
                points = tuple(point for point in decoder.points if point >= 0)
                scaled = any(point in self._scaling or point in self._sources for point in decoder.points)
                made.append(Block(table, read, self.request(table, read.start, read.size), decoder, points, scaled))
        if self._sources:  # factors first, so that none of the values has to wait for the next scan
            made.sort(key=lambda block: self._sources.keys().isdisjoint(block.decoder.points))
        return made

    def request(self, table: str, start: int, size: int) -> Request:
        """A read request to this device's unit."""
        select = self._selects.get(table)
        if select is not None:
            return SelectRequest(self.unit, start, size, select)
        return Request(self.unit, FUNCTIONS[table], start, size)

    def replan(self) -> None:
        """Makes the scans' blocks anew. A scan under way goes on with those it has."""
        for scan in self.scans.values():
            scan.blocks = self.blocks(scan.values)
            if not scan.blocks:
                scan.pending.clear()
                scan.due = math.inf

    def learn(self, table: str, defect: Defect) -> None:
        """Takes note of a border or of the largest read; then `replan`."""
        if isinstance(defect, Cut):
            self._cuts.setdefault(table, set()).add(defect.address)
        elif isinstance(defect, Limit):
            self._limits[table] = min(defect.size, self._limits.get(table, defect.size))

    def continue_with(self, scan: Scan) -> None:
        """What is left of the scan under way, planned anew after something has been learned."""
        left: dict[str, list[Value]] = {}
        for block in scan.pending:
            known = set(scan.values.get(block.table, ()))
            left.setdefault(block.table, []).extend(value for value in block.read.values if value in known)
        scan.pending = deque(self.blocks(left))

    def quarantine(self, table: str, defect: BadSpan, now: float) -> Refused:
        """Takes a span out of all scans; then `replan`. A second search, of another group, may come to the same span."""
        values: list[tuple[str, Value]] = []
        for scan in self.scans.values():
            here = scan.values.get(table, [])
            values += [(scan.group, value) for value in here if value.span == defect.span]
            scan.values[table] = [value for value in here if value.span != defect.span]
        key = (table, defect.span)
        refused = self.refused.get(key)
        if refused is None:
            request = self.request(table, *defect.span)
            refused = self.refused[key] = Refused(table, defect.span, [], defect.code, request, now + PROBE_FIRST)
        refused.values += values
        return refused

    def lessons(self) -> tuple[list[tuple[str, int, int, int]], dict[str, list[int]], dict[str, int]]:
        """What it has taught: refused spans (table, start, size, exception code), borders and largest reads by table."""
        refused = [(table, start, size, found.code) for (table, (start, size)), found in self.refused.items()]
        return refused, {table: sorted(cuts) for table, cuts in self._cuts.items()}, dict(self._limits)

    def taught(self, cuts: Mapping[str, Iterable[int]], limits: Mapping[str, int], at: int) -> None:
        """Takes back borders and largest reads that it taught at `at` (µs); then `replan`."""
        self.taught_at = at
        for table, places in cuts.items():
            self._cuts.setdefault(table, set()).update(places)
        for table, size in limits.items():
            if size >= 1:
                self._limits[table] = size

    def recall_refused(self, table: str, span: tuple[int, int], code: int, now: float) -> None:
        """Takes a span that it refused before a restart out of the scans again, if anything is asked for there; then `replan`.

        They are tried again one after the other, so that a long list does not hold up the values.
        """
        values = (value for scan in self.scans.values() for value in scan.values.get(table, ()))
        if any(value.span == span for value in values):
            refused = self.quarantine(table, BadSpan(span, code), now)
            refused.recalled = True
            refused.due = now + PROBE_FIRST * (1 + len(self.refused) / 10)

    def release(self, refused: Refused, now: float) -> None:
        """Takes a span back into its scans, which may get a first slot; the others in quarantine are tried soon. Then `replan`."""
        del self.refused[refused.table, refused.span]
        for group, value in refused.values:
            scan = self.scans[group]
            scan.values.setdefault(refused.table, []).append(value)
            if scan.due == math.inf:
                scan.due = now
        for other in self.refused.values():
            other.due, other.delay = now, PROBE_FIRST

    def next_due(self) -> float:
        """The earliest slot of its scans and trials, in monotonic seconds; infinite when there is nothing to read."""
        due = min((scan.due for scan in self.scans.values()), default=math.inf)
        return min(due, min((refused.due for refused in self.refused.values()), default=math.inf))
