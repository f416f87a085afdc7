"""Whether the server is there, well, and the best of its kind: its state, its clock, its ServiceLevel, and subscriptions that fall silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from adapters.contract import Clock, DeviceState, LinkSpec
from adapters.opcua import _redundancy
from adapters.opcua._errors import lost
from adapters.opcua._limits import Limits
from adapters.opcua._monitored import Monitored
from adapters.opcua._outlet import Outlet
from adapters.opcua._session import Session, identity_of
from adapters.opcua.settings import LinkSettings
from schemas.bilingual import Bilingual

log = logging.getLogger("guantong.opcua")

_SHUTDOWN: Final = 4
_NOT_WORKING: Final = {1: "failed", 2: "no configuration", 3: "suspended", 6: "communication fault"}
"""ServerStates (OPC 10000-5 §12.6) in which the values are none; 0 Running, 5 Test and 7 Unknown are taken as working."""


class Watch:
    """Looks after one session; raises what the link is lost with."""

    def __init__(
        self,
        spec: LinkSpec,
        settings: LinkSettings,
        session: Session,
        outlet: Outlet,
        monitored: Monitored,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        count: Callable[[str, int], None],
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._session = session
        self._outlet = outlet
        self._clock: Clock = spec.clock
        self._monitored = monitored
        self._spawn = spawn
        self._count = count
        self._state = 0

    async def heartbeat(self) -> None:
        """The server's state and clock at a fixed beat; an answer that does not come is the loss of the link."""
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            await self.beat()

    async def beat(self) -> None:
        """Asks the server for its state and time once. Raises TransientError when it announces its shutdown."""
        sent = self._clock.now()
        time, state, seconds = await self._session.server_status()
        if time is not None:
            self._monitored.server_clock.measured(time, sent)
        if state == _SHUTDOWN:
            what = Bilingual(f"the server announces its shutdown in {seconds} s", f"服务器宣布将在 {seconds} 秒后停机")
            raise lost(
                self._settings.endpoint,
                what,
                "server_shutdown",
                retry_after=0.0 if self._others else max(5.0, float(seconds)),
            )
        if (state in _NOT_WORKING) != (self._state in _NOT_WORKING):
            up = state not in _NOT_WORKING
            reason = "" if up else f"server_{_NOT_WORKING[state].replace(' ', '_')}"
            en = "" if up else f"The server says of itself: {_NOT_WORKING[state]}. Look into its own diagnostics."
            zh = "" if up else "服务器自报状态异常，请查看服务器自身的诊断信息。"
            log.warning("%s: server state %d", self._settings.endpoint, state)
            for device in self._monitored.roots:  # one without a root is down anyhow
                self._outlet.put(DeviceState(device, up, self._clock.now(), reason, en, zh))
        self._state = state

    @property
    def _others(self) -> list[str]:
        """The other endpoints of redundant servers."""
        assert isinstance(self._spec.settings, LinkSettings)
        return [endpoint for endpoint in self._spec.settings.endpoints if endpoint != self._settings.endpoint]

    async def level(self) -> None:
        """Leaves a server that is not healthy for one that is better; for a single one, tells once of which others it knows."""
        others = self._others
        if not others:
            uris = await _redundancy.partners(self._session)
            if uris:
                told = f"it says that it is redundant with {', '.join(uris)}; write their endpoints beside this one to use them"
                self._monitored.log("redundancy", told)
            return
        pause = self._settings.heartbeat
        while True:
            await asyncio.sleep(pause)
            level = await _redundancy.service_level(self._session)
            if level >= _redundancy.HEALTHY:
                pause = self._settings.heartbeat
                continue
            found = await _redundancy.better(level, others, self._probe)
            if found is not None:
                what = Bilingual(
                    f"its service level is {level}, and {found} is better", f"其服务级别为 {level}，{found} 更好"
                )
                raise lost(self._settings.endpoint, what, "service_level_low", retry_after=0.0)
            pause = min(60.0, pause * 2)  # each look is a session on every other server

    def _probe(self, endpoint: str) -> Session:
        return Session(
            self._settings.at(endpoint), Limits(), lambda: self._count("requests", 1), None, identity_of(self._spec)
        )

    async def silence(self) -> None:
        """A subscription of which nothing is heard for three publishing intervals (or the keep-alive that the server granted, where that
        is longer) and the time-out is dead, whatever the session says. Before the time-out the server is asked for its state: if it does
        not answer either, it is the link that is dead, and the subscription may outlive it."""
        last = self._clock.monotonic()
        question: asyncio.Task[None] | None = None
        question_at = 0.0
        while True:
            subscriptions = list(self._monitored.publisher.subscriptions.values())
            tick = min([1.0, *(max(0.05, s.keep_alive / 2) for s in subscriptions)])
            await asyncio.sleep(tick)
            now = self._clock.monotonic()
            asleep = max(0.0, now - last - 2 * tick)
            last = now
            for subscription in subscriptions:
                subscription.heard += asleep  # the gateway itself stood still: that is no silence of the server
                silent = now - subscription.heard
                longest = max(3 * subscription.publishing, subscription.keep_alive)
                if silent > longest and (question is None or (question.done() and question_at < subscription.heard)):
                    question, question_at = self._spawn(self.beat()), now
                if silent > longest + self._settings.timeout and not subscription.repairing:
                    if question is not None and not question.done():
                        continue  # its time-out comes next
                    what = Bilingual(
                        f"nothing heard of subscription {subscription.id} for {silent:.1f} s",
                        f"订阅 {subscription.id} 已有 {silent:.1f} 秒没有消息",
                    )
                    raise lost(self._settings.endpoint, what, "subscription_silent")
