"""Alarms and conditions (OPC 10000-9): ConditionRefresh, what it repeats, and what it no longer has.

After each subscribe the server is asked for all conditions that are of interest (Retain). It sends them between a RefreshStartEvent and a
RefreshEndEvent: what is known already is passed over, what changed meanwhile is new, and a condition that was of interest and is not sent
any more has ended while nobody listened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from asyncua import ua

from adapters.contract import DeviceEvent
from adapters.opcua._errors import fault_name
from adapters.opcua._session import Session
from schemas import status as codes

log = logging.getLogger("guantong.opcua")

START: Final = "i=2787"
END: Final = "i=2788"
REQUIRED: Final = "i=2789"
REFRESH_EVENTS: Final = frozenset({START, END, REQUIRED})
"""RefreshStartEventType, RefreshEndEventType, RefreshRequiredEventType (OPC 10000-9 §5.11); a server sends them whatever the filter says."""
_CONDITION_TYPE: Final = ua.NodeId(2782)
_REFRESH: Final = ua.NodeId(3875)
"""ConditionRefresh, a method of ConditionType (OPC 10000-9 §5.5.7)."""
_IN_PROGRESS: Final = "BadRefreshInProgress"
_MOST: Final = 20_000
"""Conditions of one clause that are remembered."""
_AGAIN: Final = 1.0
"""Seconds before a refresh that the server could not do now is asked for again."""
_ATTEMPTS: Final = 10

_Key = tuple[str | None, str | None]


class Conditions:
    """What one event clause knows of its conditions, over all sessions of the adapter."""

    def __init__(self) -> None:
        self._known: dict[_Key, DeviceEvent] = {}
        """The last event of each condition that is of interest, by condition and branch."""
        self._refreshed: set[_Key] | None = None
        """While a refresh is under way: what it has brought."""
        self.ask: Callable[[], None] = lambda: None
        """Asks for a refresh."""

    def take(self, event: DeviceEvent) -> list[DeviceEvent]:
        """The events that this one makes: itself, nothing for one that is known, or those that have ended unseen."""
        if event.type == START:
            self._refreshed = set()
            return []
        if event.type == END:
            return self._ended(event)
        if event.type == REQUIRED:
            self.ask()
            return []
        key = (event.condition, event.fields.get("branch"))
        before = self._known.get(key)
        if self._refreshed is not None:
            self._refreshed.add(key)
        known = before is not None and _same(before, event, refreshed=self._refreshed is not None)
        if event.fields.get("retain") is False:
            self._known.pop(key, None)
        else:
            self._known.pop(key, None)
            self._known[key] = event
            if len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        return [] if known else [event]

    def interrupted(self) -> None:
        """A session begins: a refresh that was under way will not end any more."""
        self._refreshed = None

    def lost(self) -> None:
        """Events were lost: only a refresh says what is."""
        self._refreshed = None
        self.ask()

    def _ended(self, end: DeviceEvent) -> list[DeviceEvent]:
        refreshed, self._refreshed = self._refreshed, None
        if refreshed is None:
            return []
        gone = [key for key in self._known if key not in refreshed]
        return [_inferred(self._known.pop(key), end) for key in gone]


def _same(before: DeviceEvent, event: DeviceEvent, *, refreshed: bool) -> bool:
    """Whether it is the event that came before; some servers give a refreshed one a new EventId."""
    if event.event_id and event.event_id == before.event_id:
        return True
    return refreshed and (event.state, event.severity, event.message, event.source_ts) == (
        before.state, before.severity, before.message, before.source_ts,
    )  # fmt: skip


def _inferred(last: DeviceEvent, end: DeviceEvent) -> DeviceEvent:
    """That a condition has ended is not told but follows; when it did is not known, only when it was found."""
    words = [word for word in (last.state or "").split(",") if word and word not in ("active", "inactive")]
    return replace(
        last, received=end.received, source_ts=end.source_ts, event_id="", state=",".join(["inactive", *words]),
        fields={**last.fields, "retain": False, "inferred": True}, historical=False, token=None,
    )  # fmt: skip


class Refresher:
    """Calls ConditionRefresh, once for however many asked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wanted: dict[int, int] = {}
        """Subscription -> attempts so far."""
        self._wake = asyncio.Event()
        self.supported: bool | None = None
        """Whether the server has conditions; None before the first answer."""

    def ask(self, subscription: int) -> None:
        """The conditions of this subscription are to be sent."""
        if self.supported is not False:
            self._wanted.setdefault(subscription, 0)
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted, self._wanted = self._wanted, {}
            again = False
            for subscription, attempts in wanted.items():
                if not await self._refresh(subscription) and attempts < _ATTEMPTS:
                    self._wanted[subscription] = attempts + 1
                    again = True
            if again:
                await asyncio.sleep(_AGAIN)
                self._wake.set()

    async def _refresh(self, subscription: int) -> bool:
        """False when it is to be tried again."""
        request = ua.CallRequest()
        call = ua.CallMethodRequest()
        call.ObjectId, call.MethodId = _CONDITION_TYPE, _REFRESH
        call.InputArguments = [ua.Variant(subscription, ua.VariantType.UInt32)]
        request.Parameters.MethodsToCall = [call]
        name = ""
        try:
            answer: Any = await self._session.call(request, ua.CallResponse)
            status = int(answer.Results[0].StatusCode.value) if answer.Results else codes.BAD_NO_VALUE
            if not codes.is_bad(status):
                self.supported = True
                return True
            name = codes.info(status).name
        except ua.UaStatusCodeError as error:
            name = fault_name(error)
        if name == _IN_PROGRESS:
            return False
        if self.supported is None:
            self.supported = False  # it has no conditions, or does not let us: events come all the same
            log.info("%s: no ConditionRefresh: %s", self._session.settings.endpoint, name)
        return True
