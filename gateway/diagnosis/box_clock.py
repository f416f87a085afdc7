"""The clock of the box while collect runs: is it synchronised, and is it behind what was stored already?

Readings that the gateway stamps carry `unsynced` while nobody keeps its clock, or while it is behind the last time that the outbox remembers
(a box whose clock battery is empty starts in the past). Where nobody can tell, they do not: the flag says what is known.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.collect.items import Events
from gateway.diagnosis.kernel_clock import Synchronisation, synchronisation
from schemas.times import to_rfc3339
from schemas.wire import Event

if TYPE_CHECKING:
    from gateway.collect.role import Collect

log = logging.getLogger("guantong.clock")

LAST: Final = "clock.last"
"""Key of the outbox's meta: the gateway's time (µs) when it last looked; lowered only by a synchronised clock."""
EVERY: Final = 10.0
_TICK: Final = 1.0
_TOLERANCE: Final = 1_000_000
"""Microseconds that the clock may be behind without a word: a slew is no jump."""

BEHIND: Final = "clock_behind"
CAUGHT_UP: Final = "clock_caught_up"
"""Types of the events that tell of it."""

FIX_EN: Final = (
    "Set the clock (guantong doctor shows how): install chrony, and replace the battery of the hardware clock."
)
FIX_ZH: Final = "请校准时钟（见 guantong doctor）：安装 chrony，并更换主板时钟电池。"


class BoxClock:
    """What is known of the clock. `look` asks again; nothing here waits or writes."""

    def __init__(
        self, now: Callable[[], int], last: int = 0, *, probe: Callable[[], Synchronisation] = synchronisation
    ) -> None:
        """`now` in µs; `last` the highest time (µs) that an earlier life remembered, 0 for none."""
        self._now, self._probe = now, probe
        self.last = last
        self.synchronisation: Synchronisation = "unknown"
        self.look()

    @property
    def behind(self) -> float:
        """Seconds by which the clock is behind the last time known; 0 when it is not."""
        missing = self.last - self._now()
        return missing / 1e6 if missing > _TOLERANCE else 0.0

    @property
    def unsynced(self) -> bool:
        """Whether what the gateway stamps now is to be flagged. A synchronised clock that is behind is right: the earlier one was wrong."""
        return self.synchronisation == "unsynced" or (self.synchronisation == "unknown" and self.behind > 0)

    def look(self) -> Synchronisation | None:
        """Asks the machine; the answer if it is another than before."""
        before, self.synchronisation = self.synchronisation, self._probe()
        return self.synchronisation if self.synchronisation != before else None

    def remember(self) -> int | None:
        """The time (µs) to remember now; None while the clock is behind what is remembered already, unless it is synchronised."""
        now = self._now()
        if now <= self.last and self.synchronisation != "synced":
            return None
        self.last = now
        return now

    def metrics(self) -> Iterator[Metric]:
        """The state of the clock for /metrics."""
        state = GaugeMetricFamily(
            "guantong_clock_state", "1 for the state of the gateway's own clock", labels=["state"]
        )
        behind = self.behind
        state.add_metric(["clock_behind" if behind else self.synchronisation], 1)
        yield state
        yield GaugeMetricFamily(
            "guantong_clock_behind_seconds", "Seconds by which the clock is behind the last time stored", behind
        )


class ClockWatch:
    """Looks every ten seconds while collect runs, and hands what it finds to the normalisers, the log and the history."""

    def __init__(
        self,
        collect: Collect,
        *,
        probe: Callable[[], Synchronisation] = synchronisation,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """To be made before the links start, so that the first reading is flagged too."""
        self._collect, self._sleep = collect, sleep
        remembered = collect.outbox.meta(LAST) or ""
        self.clock = BoxClock(collect.clock.now, int(remembered) if remembered.isdigit() else 0, probe=probe)
        self._was_behind = self.clock.behind > 0
        self._began_behind = self._was_behind
        self._tell()
        self._flag()

    async def run(self) -> None:
        """Until cancelled."""
        begun, ticks = False, 0
        while True:
            await self._sleep(_TICK)
            begun = begun or self._collect.recorder.numbers.messages > 0  # the births come first
            ticks += 1
            if ticks >= EVERY / _TICK:
                ticks = 0
                if self.clock.look() is not None:
                    self._tell()
                if begun:
                    await self._remember()
            if begun:
                self._follow_behind()
            self._flag()

    async def _remember(self) -> None:
        now = self.clock.remember()
        if now is None:
            return
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._collect.thread, self._collect.outbox.set_meta, LAST, str(now))
        except Exception as error:  # noqa: BLE001  a full disk is the recorder's to tell; here it costs the memory of a time
            log.debug("the time cannot be remembered: %s", error)

    def _flag(self) -> None:
        unsynced = self.clock.unsynced
        for host in self._collect.hosts:
            host.flag_unsynced(unsynced)

    def _tell(self) -> None:
        if self.clock.synchronisation == "unsynced":
            log.warning("the clock of this machine is not synchronised: readings stamped by it are flagged. %s", FIX_EN)
        elif self.clock.synchronisation == "synced":
            log.info("the clock of this machine is synchronised")
        else:
            log.info("whether the clock of this machine is synchronised cannot be told here")

    def _follow_behind(self) -> None:
        behind = self.clock.behind
        if self._began_behind:
            self._began_behind = False
            self._event(BEHIND, behind)
        elif behind > 0 and not self._was_behind:
            self._event(BEHIND, behind)
        elif self._was_behind and not behind:
            self._event(CAUGHT_UP, 0.0)
        self._was_behind = behind > 0

    def _event(self, kind: str, behind: float) -> None:
        last = to_rfc3339(self.clock.last)
        if kind == BEHIND:
            severity = 700
            zh = f"网关时钟比已存储的最后时间 {last} 慢 {behind:.0f} 秒。{FIX_ZH}"
            en = f"The gateway's clock is {behind:.0f} s behind the last time stored, {last}. {FIX_EN}"
            log.warning("clock_behind: %s", en)
        else:
            severity = 100
            zh, en = "网关时钟不再落后于已存储的时间。", "The gateway's clock is no longer behind the last time stored."
            log.info("%s: %s", kind, en)
        fields = {"behind": behind, "last": self.clock.last, "gateway": self._collect.plan.gateway.id}
        event = Event(str(uuid.uuid4()), self._collect.clock.now(), None, "", "", kind, severity, zh, en, fields)
        self._collect.recorder.put_now(Events([event]))
