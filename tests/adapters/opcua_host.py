"""The gateway's own host over an OPC UA adapter, and the truth test of what came: each value that the server had is stored, or within
a gap; each stored value was the server's; none is there twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from adapters.contract import SystemClock
from adapters.opcua import DeviceSettings, LinkSettings, OpcUaAdapter
from adapters.opcua.pki import Pki
from gateway.collect.items import DeviceStatus, Gaps, Item, Readings
from gateway.collect.link import LinkHost
from gateway.config.plan import PlannedDevice, PlannedLink
from schemas.profile import OpcUaAddress, OpcUaRules
from schemas.wire import Gap, Link, Progress
from tests.collect.plans import INDEX, planned

PERIOD = 0.05
Served = tuple[int, Any]
"""Source time (µs) and value."""


def device(
    nodes: Sequence[str],
    *,
    type: str = "int64",
    period: float = PERIOD,
    sampling: float | None = None,
    queue: int | None = None,
    **signal: Any,
) -> PlannedDevice:
    """A device with a signal for each NodeId, in one group. `sampling` 0: each change is served, also from a server that samples."""
    made = planned([{"type": type, **signal} for _ in nodes])
    signals = tuple(
        replace(s, address=OpcUaAddress(node=text, sampling=sampling, queue=queue), point=i)
        for i, (s, text) in enumerate(zip(made.signals, nodes, strict=True))
    )
    return replace(
        made, signals=signals, first=0, settings=DeviceSettings(), rules=OpcUaRules(), groups={"default": period}
    )


class Host:
    """`async with Host(endpoint, device) as host:` collects, as the role does; what it would write to the ledger is in `items`."""

    def __init__(self, endpoint: str, device: PlannedDevice, *, pki: Pki | None = None, **settings: Any) -> None:
        parameters = {"endpoint": endpoint, "security": "none", "timeout": 2.0, **settings}
        link = PlannedLink("link", "opcua", OpcUaAdapter, LinkSettings.model_validate(parameters), (device,))
        if pki is not None:
            link = replace(link, pki=pki.folder, gateway=pki.gateway)
        self.items: list[Item] = []
        self.told: list[DeviceStatus] = []
        self.device = device
        self.clock = SystemClock()
        self.host = LinkHost(link, self, clock=self.clock, on_status=self.told.append, sleep=_briefly)

    async def put(self, item: Item, on_durable: Callable[[], None] | None = None) -> None:
        """The sink of the host: durable at once."""
        self.items.append(item)
        if on_durable is not None:
            on_durable()

    async def __aenter__(self) -> Host:
        self._task = asyncio.create_task(self.host.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def until(self, condition: Callable[[], Any], deadline: float = 30.0) -> None:
        """Waits for `condition`."""
        end = asyncio.get_running_loop().time() + deadline
        while not condition():
            if self._task.done():
                self._task.result()
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"not within {deadline} s; {self.told[-3:]}; {self.items[-5:]}")
            await asyncio.sleep(0.005)

    # ------------------------------------------------------------------------------------------------- what was written

    def rows(self) -> dict[int, list[Served]]:
        """Signal -> (ts, value) of each row, in the order of the ledger."""
        found: dict[int, list[Served]] = {i: [] for i in range(len(self.device.signals))}
        for item in self.items:
            if isinstance(item, Readings):
                for point, ts, value in zip(item.points, item.ts, item.values, strict=True):
                    found[point - INDEX].append((ts, value))
        return found

    def last(self, signal: int = 0) -> Any:
        """The newest value of a signal."""
        rows = self.rows()[signal]
        return max(rows)[1] if rows else None

    def full_rows(self, signal: int) -> list[dict[str, Any]]:
        """Every row of a signal, with what it has."""
        found = []
        for item in self.items:
            if not isinstance(item, Readings):
                continue
            for i, point in enumerate(item.points):
                if point == signal + INDEX:
                    extra = (item.extra or {}).get(i)
                    found.append(
                        {
                            "ts": item.ts[i],
                            "value": item.values[i],
                            "flags": item.flags[i] if item.flags is not None else 0,
                            "n": item.n[i] if item.n is not None else 0,
                            "source": None if extra is None else extra.source_ts,
                        }
                    )
        return found

    def last_value(self, signal: int = 0) -> Any:
        """The value that came last."""
        rows = self.rows()[signal]
        return rows[-1][1] if rows else None

    def troubles(self) -> dict[str, str]:
        """Signal -> what is wrong with it."""
        (status,) = self.host.statuses()
        return status.troubles

    def back_to(self) -> list[int]:
        """From when on what was missed is told to be fetched."""
        told = [done.back_to for item in self.items if isinstance(item, Progress) for done in item.done]
        return [at for at in told if at is not None]

    def gaps(self) -> list[Gap]:
        return [gap for item in self.items if isinstance(item, Gaps) for gap in item.gaps]

    def outages(self) -> int:
        """How often the device went down; another reason for the same outage is not one more."""
        links = [item.up for item in self.items if isinstance(item, Link)]
        return sum(before and not after for before, after in pairwise([True, *links]))

    def is_up(self) -> bool:
        links = [item for item in self.items if isinstance(item, Link)]
        return bool(links) and links[-1].up

    def complete_to(self) -> int:
        """As the store would have it."""
        marks = [done.complete_to for item in self.items if isinstance(item, Progress) for done in item.done]
        return max(marks, default=0)

    # ------------------------------------------------------------------------------------------------------------- truth

    def check_claims(self, served: Mapping[int, Sequence[Served]]) -> None:
        """Raises AssertionError where the host said that it was complete up to a time, and was not yet: had it been killed then, what was
        missing would be in no gap."""
        missing = {(signal, *row) for signal, rows in served.items() for row in rows}
        for item in self.items:
            if isinstance(item, Readings):
                missing -= {(p - INDEX, ts, v) for p, ts, v in zip(item.points, item.ts, item.values, strict=True)}
            elif isinstance(item, Gaps):
                missing = {
                    row
                    for row in missing
                    if not any(
                        gap.start <= row[1] <= gap.end and (gap.points is None or row[0] + INDEX in gap.points)
                        for gap in item.gaps
                    )
                }
            elif isinstance(item, Progress):
                end = max(done.complete_to for done in item.done)
                early = sorted(row for row in missing if row[1] <= end)
                assert not early, f"said to be complete up to {end}, and without {early[:5]}"

    def compare(self, served: Mapping[int, Sequence[Served]], until: int | None = None) -> int:
        """Raises AssertionError where it does not agree; how many values lie within gaps. Compared is up to `until` (µs), or to what the
        host says is complete."""
        end = self.complete_to() if until is None else until
        excused = 0
        for signal, rows in self.rows().items():
            truth, stored = Counter(served[signal]), Counter(rows)
            invented = [row for row in stored if row not in truth]
            assert not invented, f"signal {signal}: never served: {invented[:5]}"
            twice = [row for row, n in _without_history(self, signal).items() if n > 1]
            assert not twice, f"signal {signal}: stored twice: {twice[:5]}"
            missing = [row for row in truth if row[0] <= end and row not in stored]
            covered = [row for row in missing if self._in_gap(signal, row[0])]
            lost = sorted(set(missing) - set(covered))
            assert not lost, (
                f"signal {signal}: {len(lost)} of {len(truth)} served, not stored and in no gap: {lost[:5]}; gaps {self.gaps()[:5]}"
            )
            excused += len(covered)
        return excused

    def _in_gap(self, signal: int, ts: int) -> bool:
        return any(
            gap.start <= ts <= gap.end and (gap.points is None or signal + INDEX in gap.points) for gap in self.gaps()
        )


def _without_history(host: Host, signal: int) -> Counter[Served]:
    """Rows that the store would not recognise as read again (those are flagged historical or initial)."""
    found: Counter[Served] = Counter()
    for item in host.items:
        if isinstance(item, Readings):
            for i, point in enumerate(item.points):
                if point == signal + INDEX and not (item.flags is not None and item.flags[i] & 12):
                    found[item.ts[i], item.values[i]] += 1
    return found


async def _briefly(seconds: float) -> None:
    """Pauses of the host, fifty times shorter and never long."""
    await asyncio.sleep(min(seconds * 0.02, 0.05))


@contextlib.asynccontextmanager
async def while_running(work: Callable[[asyncio.Event], Any]) -> AsyncIterator[None]:
    """Runs `work(stop)` in a thread of its own meanwhile."""
    stop = asyncio.Event()
    task = asyncio.create_task(asyncio.to_thread(work, stop))
    try:
        yield
    finally:
        stop.set()
        await task
