"""From raw samples to stored readings: scale, unit, bits, range, type, deadband, clock rules and `n`. Pure: no clock, no I/O.

One `Normaliser` serves one device. It keeps, for each signal, what was stored last; everything that equals it (or lies within the deadband)
is suppressed, and known to be unchanged by the progress of its group.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from itertools import compress, repeat
from typing import Any, Final

from adapters.contract import Samples
from gateway.collect._blocks import FEW, Block
from gateway.collect._rows import NEVER, Row, Rows, State
from gateway.collect._signal_rules import SignalRules, kept, same
from gateway.collect.clock import AHEAD, EARLIEST, ClockChange, DeviceClock
from gateway.collect.counters import CounterWatch
from gateway.collect.items import Readings
from gateway.config.plan import PlannedDevice
from schemas.bilingual import Bilingual
from schemas.status import BAD_ENCODING_LIMITS_EXCEEDED, BAD_NO_COMMUNICATION, BAD_TYPE_MISMATCH, CODE_MASK
from schemas.wire import Cause, Event, Extra, Flag, Gap

MAX_N: Final = 32_767
"""Readings of one `ts` are numbered up to here (the store's int2); a further one gets the gateway's time."""
OVERSIZE_EVERY: Final = 10_000_000
"""Refused values of one signal are told as one gap in this time (µs)."""
_GATEWAY: Final = Flag.GATEWAY_TIME.value
_EXEMPT: Final = Flag.INITIAL.value | Flag.HISTORICAL.value
_HISTORICAL: Final = Flag.HISTORICAL.value
_UNSYNCED: Final = Flag.UNSYNCED.value
_KINDS: Final = {
    bool: ("a boolean", "布尔值"), int: ("an integer", "整数"), float: ("a number with a fraction", "小数"), str: ("a text", "文本"),
    bytes: ("bytes", "字节串"), list: ("an array", "数组"), tuple: ("an array", "数组"), dict: ("a structure", "结构体"),
}  # fmt: skip
"""Types of raw values, for people."""


class Normaliser:
    """Normalises the samples of one device.

    `feed` takes samples in the order in which the adapter gave them; `tick` once a second lets the longest silence pass. What
    else is to be written waits in `events` and `gaps` until `take` is called. `unsynced` says that the gateway's own clock is not
    synchronised: readings stamped by it are flagged.
    """

    def __init__(
        self, device: PlannedDevice, *, new_id: Callable[[], str] = lambda: str(uuid.uuid4()), unsynced: bool = False
    ) -> None:
        self.device = device.id
        self.unsynced = unsynced
        self.clock = DeviceClock(device.clock)
        self._plan = device
        self._new_id = new_id
        self._first = device.first
        self._size = len(device.signals)
        self._index = [signal.index for signal in device.signals]
        self._group = [signal.group for signal in device.signals]
        self._rules = [SignalRules(signal) for signal in device.signals]
        self._quick: list[Any] = [rules.quick for rules in self._rules]
        self._low = [rules.low for rules in self._rules]
        self._high = [rules.high for rules in self._rules]
        self._convert = [rules.convert for rules in self._rules]
        self._deadband = [rules.deadband for rules in self._rules]
        self._every = frozenset(i for i, rules in enumerate(self._rules) if rules.every)
        self._silence = {i: r.silence for i, r in enumerate(self._rules) if r.silence is not None}
        self._state = State(self._size)
        self._history: State | None = None
        self._doubted: dict[int, int] = {}
        """Signals that were interrupted, with the status that was stored last."""
        self._down = False
        self._pending: dict[int, Row] = {}
        self._due: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}
        """First point of an answer -> what is known of it. No point is in two of them."""
        self._oversize: dict[int, Gap] = {}
        self._told: dict[int, int] = {}
        self._misfits: dict[int, Any] = {}
        """Signals whose last value was of another type, with that value."""
        self._counters = CounterWatch(device, new_id)
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        self.suppressed = 0
        """Values that were not stored because they are unchanged, since the start."""

    # --------------------------------------------------------------------------------------------------- coming and going

    def down(self) -> None:
        """The device is gone: its points' BadNoCommunication is not stored, and a back-fill starts from what is stored now."""
        if not self._down:
            self._down = True
            self._history = self._state.copy()
            self._blocks.clear()

    def up(self) -> None:
        """The device is back."""
        self._down = False

    def history_from_nothing(self) -> None:
        """What was stored last is not known, since the gateway has begun anew: the first row of each signal that is read from the
        device's history is stored."""
        self._history = State(self._size)

    def interrupted(self, points: Sequence[int]) -> None:
        """Some values of these points (of the link) were lost, and may come from the device's history: the next live row of each is stored
        whatever it is, and so is the first of its history, since neither is known to be unchanged; but for the one that was there last, with its
        time: it has only come again."""
        if self._history is None:
            self._history = self._state.copy()
        self._blocks.clear()
        for point in points:
            p = point - self._first
            if self._state.status[p] != NEVER:
                self._doubted[p] = self._state.status[p]
            self._state.status[p] = self._history.status[p] = NEVER
            self._pending.pop(p, None)

    def history_ended(self, group: str) -> None:
        """The outage of this group is filled: what is read of its history from now on is compared with what is stored now."""
        if self._history is not None:
            for p in [p for p, name in enumerate(self._group) if name == group]:
                self._history.take(self._state, p)

    def misfits(self) -> dict[str, Bilingual | None]:
        """Signals of which a value of another type came, with what is wrong; None for those that are right again, once."""
        found: dict[str, Bilingual | None] = {}
        for p, raw in list(self._misfits.items()):
            signal = self._plan.signals[p].signal
            if self._state.status[p] in (BAD_TYPE_MISMATCH, NEVER):
                en, zh = _KINDS.get(type(raw), ("something else", "其他类型"))
                found[signal.name] = Bilingual(
                    f"BadTypeMismatch: the device sends {en}, the signal is {signal.type}",
                    f"BadTypeMismatch：设备发送的是{zh}，而信号类型为 {signal.type}",
                )
            else:
                del self._misfits[p]
                found[signal.name] = None
        return found

    def deadbands(self, points: Sequence[int], held: bool) -> None:
        """The device applies the deadbands of these points (of the link) itself, or does so no longer: then each value that comes
        is stored if it differs."""
        self._blocks.clear()
        for point in points:
            p = point - self._first
            self._deadband[p] = 0.0 if held else self._rules[p].deadband

    def take(self) -> tuple[list[Event], list[Gap]]:
        """The events and gaps that came up since the last call."""
        events, gaps = self.events, self.gaps
        self.events, self.gaps = [], []
        return events, gaps

    # ------------------------------------------------------------------------------------------------------------ feeding

    def feed(self, samples: Samples) -> Readings | None:
        """The readings to store of these samples; None where nothing changed.

        Raises IndexError for a point that is not the device's, or columns that do not fit together.
        """
        if samples.source_ts is not None and samples.server_ts is not None:
            self._changed(self.clock.observe(samples.server_ts, samples.received))
        points = samples.points
        if not points:
            return None
        if samples.source_ts is None:
            readings, block = self._feed_polled(samples, tuple(points), tuple(samples.values))
            counted = block is None or block.counted
        else:
            self._check(samples)
            rows = Rows()
            self._feed_stamped(samples, samples.source_ts, rows)
            readings, counted = rows.readings(self.device, samples.group, samples.received), True
        if readings is None:
            self.suppressed += len(points)
            return None
        self.suppressed += len(points) - len(readings.points)
        if counted:
            self.events += self._counters.check(readings)
        return readings

    def _check(self, samples: Samples) -> None:
        """Raises IndexError."""
        points = samples.points
        if min(points) < self._first or max(points) >= self._first + self._size:
            raise IndexError(f"samples of {self.device} hold a point of another device")
        self._check_lengths(samples)

    def _check_lengths(self, samples: Samples) -> None:
        for column in (samples.values, samples.source_ts, samples.status, samples.flags):
            if column is not None and len(column) != len(samples.points):
                raise IndexError(f"samples of {self.device} have columns of different lengths")

    def _feed_polled(
        self, samples: Samples, points: tuple[int, ...], values: tuple[Any, ...]
    ) -> tuple[Readings | None, Block | None]:
        """An answer of a polled device: one time for all. Of one whose points came like this before, only what differs is looked at."""
        received, status = samples.received, samples.status
        block = self._blocks.get(points[0])
        if block is None or (block.points is not points and block.points != points) or samples.flags is not None:
            self._check(samples)
            block = self._new_block(points, plain=samples.flags is None)
        else:
            self._check_lengths(samples)
        differ: list[bool] | None = None
        if block is not None:
            if received < block.soonest:
                if status is None and not block.odd and not block.every and block.values == values:
                    return None, block
                if not block.moving:
                    differ = block.differing(values, status)
            block.soonest = 0
            block.moving = differ is None or differ.count(True) > FEW
            if block.moving and block.able and status is None and not block.odd:
                found = block.whole(values, received, self._state, self._deadband, self._due, self._pending)
                if found is not None:
                    block.done(values, [], received, self._due)
                    block.moving = len(found[0]) > FEW
                    return self._readings(samples, *found), block
            block.moving = False
        rows = Rows()
        odd = self._one_by_one(samples, points, values, differ, rows)
        if block is not None:
            block.done(values, odd, received, self._due)
        return rows.readings(self.device, samples.group, received), block

    def _new_block(self, points: tuple[int, ...], *, plain: bool) -> Block | None:
        """A block of these points, of whose last answer nothing is known; None for answers that have to be looked at one by one. Those
        that hold some of the points, but not just these, say no more what is unchanged."""
        mine = set(points)
        for key in [key for key, block in self._blocks.items() if not mine.isdisjoint(block.points)]:
            del self._blocks[key]
        if not plain or len(mine) != len(points):
            return None
        block = Block(points, self._first, self._rules, self._quick, self._index)
        block.counted = self._counters.concern(block.index)
        self._blocks[points[0]] = block
        return block

    def _readings(self, samples: Samples, index: list[int], values: list[Any]) -> Readings | None:
        """Rows with the time of the answer, all of them Good."""
        size = len(index)
        if not size:
            return None
        flags = [_UNSYNCED] * size if self.unsynced else None
        return Readings(
            self.device, samples.group, samples.received, index, [samples.received] * size, values, None, flags
        )

    def _one_by_one(
        self,
        samples: Samples,
        points: tuple[int, ...],
        values: tuple[Any, ...],
        differ: list[bool] | None,
        rows: Rows,
    ) -> list[int]:
        """Looks at the rows of an answer that `differ` (None: at all of them). Returns those that went the long way."""
        received = samples.received
        first, state = self._first, self._state
        quick, low, high, convert, deadband = self._quick, self._low, self._high, self._convert, self._deadband
        last_value, last_status, last_ts, last_n = state.value, state.status, state.ts, state.n
        silence, every, due, pending, index = self._silence, self._every, self._due, self._pending, self._index
        out_points, out_values, out_ts = rows.points, rows.values, rows.ts
        unsynced = self.unsynced
        odd: list[int] = []
        table = zip(
            range(len(points)), points, values, samples.status or repeat(0), samples.flags or repeat(0), strict=False
        )
        raw: Any
        for row, point, raw, status, flags in table if differ is None else compress(table, differ):
            p = point - first
            if not status and not flags and raw.__class__ in quick[p] and low[p] <= raw <= high[p]:
                value = raw if (conversion := convert[p]) is None else conversion(raw)
                if not last_status[p]:
                    last = last_value[p]
                    if (value == last or ((band := deadband[p]) and -band < value - last < band)) and p not in every:
                        if p in silence:
                            same_row = Row(received, value, 0, _UNSYNCED if unsynced else 0, None)
                            self._unchanged(p, same_row, received, rows, keep=False)
                        continue
                if last_ts[p] == received:
                    odd.append(row)
                    self._full(p, raw, 0, 0, None, samples, rows)
                    continue
                last_value[p], last_status[p], last_ts[p], last_n[p] = value, 0, received, 0
                if p in silence:
                    due[p] = received + silence[p]
                    pending.pop(p, None)
                if unsynced:
                    rows.flags[len(out_points)] = _UNSYNCED
                out_points.append(index[p])
                out_values.append(value)
                out_ts.append(received)
            else:
                odd.append(row)
                self._full(p, raw, status, flags, None, samples, rows)
        return odd

    def _feed_stamped(self, samples: Samples, stamps: Sequence[int | None], rows: Rows) -> None:
        """Samples with times of their own."""
        received, horizon = samples.received, samples.received + AHEAD
        first, state, clock = self._first, self._state, self.clock
        quick, low, high, convert, deadband = self._quick, self._low, self._high, self._convert, self._deadband
        last_value, last_status, last_ts, last_n = state.value, state.status, state.ts, state.n
        silence, every, due, pending, index = self._silence, self._every, self._due, self._pending, self._index
        out_points, out_values, out_ts = rows.points, rows.values, rows.ts
        statuses, flagged = samples.status or repeat(0), samples.flags or repeat(0)
        believed = clock.clock == "source"
        self._blocks.clear()
        raw: Any
        for point, raw, ts, status, flags in zip(
            samples.points, samples.values, stamps, statuses, flagged, strict=False
        ):
            p = point - first
            if (
                believed
                and not status
                and not flags
                and ts is not None
                and EARLIEST <= ts <= horizon
                and raw.__class__ in quick[p]
                and low[p] <= raw <= high[p]
            ):
                value = raw if (conversion := convert[p]) is None else conversion(raw)
                if not last_status[p]:
                    last = last_value[p]
                    if (value == last or ((band := deadband[p]) and -band < value - last < band)) and p not in every:
                        if p in silence:
                            self._unchanged(p, Row(ts, value, 0, 0, None), received, rows, keep=True)
                        continue
                if ts != last_ts[p]:
                    last_value[p], last_status[p], last_ts[p], last_n[p] = value, 0, ts, 0
                    if p in silence:
                        due[p] = received + silence[p]
                        pending.pop(p, None)
                    out_points.append(index[p])
                    out_values.append(value)
                    out_ts.append(ts)
                    continue
            self._full(p, raw, status, flags, ts, samples, rows)
            believed = clock.clock == "source"

    # ------------------------------------------------------------------------------------------------- one row in full

    def _full(
        self, p: int, raw: Any, status: int, flags: int, source: int | None, samples: Samples, rows: Rows
    ) -> None:
        """Any row, by all the rules."""
        kept_raw: Any = None
        if status & 0x80000000:
            if self._down and status & CODE_MASK == BAD_NO_COMMUNICATION:
                return
            value: Any = None
            kept_raw, more = kept(raw)
        else:
            value, status, kept_raw, more = self._rules[p].full(raw, status)
            if status == BAD_TYPE_MISMATCH:
                self._misfits[p] = raw
        if flags & _HISTORICAL:
            if self._history is None:
                self._history = self._state.copy()
            state = self._history
        else:
            state = self._state
        if source is None and samples.source_ts is None:
            ts, time_flags, source_kept = samples.received, _UNSYNCED if self.unsynced else 0, None
        else:
            ts, time_flags, source_kept = self.stamp(source, flags, samples.received, samples.server_ts)
        if status == BAD_ENCODING_LIMITS_EXCEEDED and value is None:
            self._refused(p, ts, samples.received)
        extra = Extra(source_kept, kept_raw) if source_kept is not None or more & Flag.RAW_KEPT.value else None
        row = Row(ts, value, status, flags | more | time_flags, extra)
        if source is not None and not flags & _EXEMPT:
            self._watch_clock(p, value, source, ts, samples.received)
        if self._is_unchanged(p, row, state):
            if state is self._state:
                self._unchanged(p, row, samples.received, rows, keep=source is not None)
            return
        self._store(p, row, samples.received, state, rows)

    def _is_unchanged(self, p: int, row: Row, state: State) -> bool:
        if state.status[p] != row.status:
            again = state.status[p] == NEVER and self._doubted.get(p) == row.status and state.ts[p] == row.ts
            return again and same(row.value, state.value[p])
        last, rules = state.value[p], self._rules[p]
        if rules.every:
            # Only what the device sends again, with the time it had, is not stored again.
            return state.ts[p] == row.ts and same(row.value, last)
        if same(row.value, last):
            return True
        band = rules.deadband if state is not self._state else self._deadband[p]
        if not band or isinstance(row.value, bool) or not isinstance(row.value, int | float):
            return False
        return isinstance(last, int | float) and -band < row.value - last < band

    def _unchanged(self, p: int, row: Row, received: int, rows: Rows, *, keep: bool) -> None:
        """An unchanged live row: stored if the silence has lasted long enough, else kept as the newest suppressed one. A polled
        one need not be kept: the poll after the silence brings a newer one."""
        last = self._state.ts[p]
        if p not in self._silence or (last is not None and row.ts <= last):
            return
        if received >= self._due.get(p, received):
            self._store(p, row, received, self._state, rows)
        elif keep:
            self._pending[p] = row

    def _store(self, p: int, row: Row, received: int, state: State, rows: Rows) -> None:
        n = 0
        if state.ts[p] == row.ts:
            n = state.n[p] + 1
            if n > MAX_N:
                source = row.extra.source_ts if row.extra is not None else None
                raw = row.extra.raw if row.extra is not None else None
                extra = Extra(row.ts if source is None else source, raw)
                row, n = Row(received, row.value, row.status, row.flags | _GATEWAY, extra), 0
        self._remember(p, row, n, state)
        if state is self._state:
            if p in self._silence:
                self._due[p] = received + self._silence[p]
                self._pending.pop(p, None)
            if row.status != BAD_ENCODING_LIMITS_EXCEEDED and p in self._oversize:
                self.gaps.append(self._oversize.pop(p))
        elif (live := self._state.ts[p]) is not None and row.ts > live:
            # A value from the device's history that is newer than the live one is what the signal is now.
            self._remember(p, row, n, self._state)
        rows.add(self._index[p], row, n)

    @staticmethod
    def _remember(p: int, row: Row, n: int, state: State) -> None:
        state.value[p], state.status[p], state.ts[p], state.n[p] = row.value, row.status, row.ts, n

    # --------------------------------------------------------------------------------------------------------------- time

    def stamp(
        self, source: int | None, flags: int, received: int, server_ts: int | None = None
    ) -> tuple[int, int, int | None]:
        """`ts` by the rules of the device's clock, the flags that its origin asks for, and the source time where it is kept
        beside it (all µs). `flags` INITIAL and HISTORICAL exempt from the judgement of the clock, not from its bounds."""
        clock = self.clock
        by_gateway = _UNSYNCED if self.unsynced else 0
        if source is None:
            if server_ts is not None and clock.clock != "gateway":
                ts = server_ts - clock.shift
                if EARLIEST <= ts <= received + AHEAD:
                    return ts, Flag.NO_SOURCE_TIME.value, None
            return received, Flag.NO_SOURCE_TIME.value | by_gateway, None
        ts = source - clock.shift
        believed = clock.clock != "gateway" or flags & _EXEMPT
        if not believed or not EARLIEST <= ts <= received + AHEAD:
            return received, _GATEWAY | by_gateway, source
        return ts, 0, source if clock.shift else None

    def _watch_clock(self, p: int, value: Any, source: int, ts: int, received: int) -> None:
        """Looks for a source time that stands still while the value changes, and for one that moves again."""
        if self.clock.frozen:
            self._changed(self.clock.moved(source, received))
        elif ts == self._state.ts[p] and not same(value, self._state.value[p]):
            self._changed(self.clock.repeated(p, source, self._state.value[p], value, received))

    def _changed(self, change: ClockChange | None) -> None:
        """A change of judgement is an event."""
        if change is None:
            return
        seconds = change.offset / 1e6
        if change.reason == "frozen":
            zh, en = "设备时钟停走，改用网关时间。", "The device's clock stands still; the gateway's time is used."
        elif change.reason == "off":
            zh = f"设备时钟偏差 {seconds:+.1f} 秒，改用网关时间。"
            en = f"The device's clock is off by {seconds:+.1f} s; the gateway's time is used."
        else:
            zh, en = "设备时钟恢复正常，使用设备时间。", "The device's clock is right again; its own time is used."
        self.events.append(
            Event(
                id=self._new_id(),
                ts=change.at,
                source_ts=None,
                asset=self._plan.asset,
                device=self.device,
                type="device_clock",
                severity=100 if change.reason == "right" else 500,
                message_zh=zh,
                message_en=en,
                fields={"clock": change.clock, "reason": change.reason, "offset": seconds},
            )
        )

    # ------------------------------------------------------------------------------------------------------ passing of time

    def tick(self, now: int) -> list[Readings]:
        """The newest suppressed samples of signals whose longest silence has passed at `now` (µs), each with its own time."""
        by_group: dict[str, Rows] = {}
        for p in [p for p in self._pending if self._due.get(p, now) <= now]:
            row = self._pending.pop(p)
            self._store(p, row, now, self._state, by_group.setdefault(self._group[p], Rows()))
        for p in [p for p, at in self._told.items() if at + OVERSIZE_EVERY <= now]:
            del self._told[p]
            if p in self._oversize:
                self.gaps.append(self._oversize.pop(p))
                self._told[p] = now
        found = (rows.readings(self.device, group, now) for group, rows in by_group.items())
        return [readings for readings in found if readings is not None]

    def flush(self) -> None:
        """Nothing more will come: gaps that were still growing are told."""
        self.gaps += self._oversize.values()
        self._oversize.clear()

    def _refused(self, p: int, ts: int, received: int) -> None:
        """A value too large for a message: a gap at once, and then one for all that follow within some seconds."""
        if p not in self._told:
            self._told[p] = received
            self.gaps.append(Gap(self.device, [self._index[p]], ts, ts, Cause.DROPPED, 1, "value too large"))
            return
        gap = self._oversize.get(p)
        start, end, count = (ts, ts, 0) if gap is None else (min(gap.start, ts), max(gap.end, ts), gap.count or 0)
        self._oversize[p] = Gap(self.device, [self._index[p]], start, end, Cause.DROPPED, count + 1, "value too large")
