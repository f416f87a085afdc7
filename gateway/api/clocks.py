"""Whose clock is behind: what the collectors said of it last, by events of the ledger (`gateway.diagnosis.box_clock`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from gateway.api.language import Words
from gateway.api.live import Change
from gateway.diagnosis.box_clock import BEHIND, CAUGHT_UP, FIX_EN, FIX_ZH
from gateway.ledger.steps import StoreError
from gateway.store.records import EventRecord
from schemas.times import to_rfc3339

log = logging.getLogger("guantong.clock")

FIX: Final = Words(FIX_EN, FIX_ZH)
_AGAIN: Final = 5.0


class EventReader(Protocol):
    """What is needed of the store; `gateway.store.Reader` is it."""

    def newest_events(self, types: Sequence[str]) -> list[EventRecord]: ...
    def event_by_id(self, ids: Sequence[str]) -> list[EventRecord]: ...


class Clocks:
    """A listener of `gateway.api.live.Live`. `run` goes on until it is cancelled."""

    def __init__(
        self, reader: EventReader, ask: Callable[[Callable[[], list[EventRecord]]], Awaitable[list[EventRecord]]]
    ) -> None:
        """`ask` runs a question to the store in a worker thread."""
        self.behind: dict[str, EventRecord] = {}
        """The last `clock_behind` of each gateway whose clock has not caught up since."""
        self._reader, self._ask = reader, ask
        self._all = True
        self._ids: list[str] = []
        self._awake = asyncio.Event()
        self._awake.set()

    def tell(self, change: Change) -> None:
        """A commit, with the ids of its events."""
        if change.events:
            self._ids += change.events
            self._awake.set()

    def reset(self) -> None:
        """Something was missed: the store is asked for all of it."""
        self._all = True
        self._awake.set()

    def reasons(self) -> Words | None:
        """What a person should know; None when no clock is behind."""
        if not self.behind:
            return None
        told = [(name, self.behind[name]) for name in sorted(self.behind)]
        return Words(
            " ".join(
                f"clock_behind: the clock of gateway {name} was {_seconds(event):.0f} s behind the last time stored ({_last(event)})."
                for name, event in told
            ),
            "".join(
                f"clock_behind：网关 {name} 的时钟比已存储的最后时间（{_last(event)}）慢 {_seconds(event):.0f} 秒。"
                for name, event in told
            ),
        )

    async def run(self) -> None:
        """Asks the store whenever there is something new. A store that is away is asked again."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            everything, ids = self._all, self._ids
            self._all, self._ids = False, []
            try:
                if everything:
                    events = await self._ask(lambda: self._reader.newest_events([BEHIND, CAUGHT_UP]))
                    self.behind.clear()
                else:
                    events = await self._ask(lambda ids=ids: self._reader.event_by_id(ids))  # type: ignore[misc]
            except StoreError as error:
                log.debug("the state of the clocks cannot be read: %s", error)
                self._all = True
                await asyncio.sleep(_AGAIN)
                self._awake.set()
                continue
            self._learn(events)

    def _learn(self, events: Iterable[EventRecord]) -> None:
        for event in events:
            if event.type == BEHIND:
                self.behind[event.gateway] = event
            elif event.type == CAUGHT_UP:
                self.behind.pop(event.gateway, None)


def _seconds(event: EventRecord) -> float:
    behind = event.fields.get("behind")
    return float(behind) if isinstance(behind, int | float) else 0.0


def _last(event: EventRecord) -> str:
    last = event.fields.get("last")
    return to_rfc3339(last) if isinstance(last, int) else "-"
